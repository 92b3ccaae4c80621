//! A hostile block frontend: what cannot be is refused, what breaks the protocol costs its own vbd, and nobody else a byte. Host.
//!
//! The attacks are the image's (`tests/guests`), which says itself where a request is done that must be refused. Here is looked at what it
//! cannot see: why a vbd was closed, the neighbour, the medium, and what blkdom has on loan.

use std::ops::Range;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::{Block, BlockScene, MEBIBYTE, MEDIA, PLAIN, SMALL, disk, handle};
use crate::cases::Case;
use crate::cases::hostile::{End, judge, let_go, with_attacker};
use crate::traffic::Shell;

use End::{Borne, Closed};

pub(super) const CASES: &[Case<Block>] = &[
    Case { name: "a hostile block frontend: requests that cannot be done, pages that are none", run: requests },
    Case { name: "a hostile block frontend: floods, full rings, indices that lie", run: rings },
    Case { name: "a hostile block frontend: nodes that make no sense", run: nodes },
    Case { name: "a hostile block frontend: writes of what is only read", run: writes },
];

/// Each is refused, and the next proper request served.
const REQUESTS: &str = "blk-sectors,borders,segment-bounds,segment-counts,operations,discards,indirect,indirect-counts,\
                        indirect-operations,indirect-pages,indirect-segments,indirect-sectors,grants,read-only-page,revoked,\
                        revoke-race,revoke-in-flight,changed,changed-indirect,random-slots";

/// Each is served or throttled. In the end the rings are full for as long as the domain lives.
const FLOODS: &str = "blk-begin-anew,never-consumed,full-rings,barriers,flushes,event-storm,state-flapping,vanish";

const OVERRUNS: &[(&str, End)] = &[
    ("blk-producer-overrun", Closed("ring overrun")),
    ("blk-producer-thousand", Closed("ring overrun")),
    ("blk-producer-far-ahead", Closed("ring overrun")),
    ("blk-producer-goes-back", Closed("ring overrun")),
    ("blk-overrun-in-flight", Closed("ring overrun")),
    ("blk-ring-scribble", Closed("ring overrun")),
];

const NODES: &[(&str, End)] = &[
    ("blk-ring-read-only", Closed("mapping the ring")),
    ("blk-ring-never-granted", Closed("mapping the ring")),
    ("blk-ring-missing", Closed("node ring-ref is missing")),
    ("blk-ring-page-missing", Closed("node ring-ref1 is missing")),
    ("blk-ring-page-order", Closed("ring-page-order is 99")),
    ("blk-ring-no-number", Closed("node ring-ref is malformed")),
    ("blk-channel-missing", Closed("node event-channel is missing")),
    ("blk-channel-of-nobody", Closed("binding the event channel")),
    ("blk-no-queue", Closed("0 queues")),
    ("blk-too-many-queues", Closed("9999 queues")),
    ("blk-queues-missing", Closed("node queue-0/ring-ref is missing")),
    ("blk-protocol", Closed("unknown protocol \"ia64-abi\"")),
];

/// A volume for the attacker, and where it is on medium 0.
struct Ground {
    target: &'static str,
    own: [Range<u64>; 2],
}

/// Between the partition table and a partition that nobody has.
fn part() -> Ground {
    Ground { target: PLAIN.target, own: [PLAIN.start..PLAIN.start + PLAIN.length, 0..0] }
}

/// On two physical volumes: between the neighbour's extents, or the metadata, and those of a volume that nobody has.
fn striped() -> Ground {
    let eight = |first: u64| first * MEBIBYTE..(first + 8) * MEBIBYTE;
    Ground { target: "vg0/striped", own: [eight(50), eight(98)] }
}

/// The neighbour's.
const NEIGHBOUR: Range<u64> = 34 * MEBIBYTE..50 * MEBIBYTE;

fn requests(scene: &BlockScene<'_>) -> Result<String> {
    let largest = "persistent queues=4 pages=16";
    attacks(
        scene,
        &[(REQUESTS, Borne)],
        &[(part(), "rw", ""), (striped(), "rw", "persistent"), (part(), "rw", "narrow"), (part(), "rw", largest)],
    )
}

fn rings(scene: &BlockScene<'_>) -> Result<String> {
    let floods = [(part(), "rw", ""), (striped(), "rw", "persistent queues=4 pages=16")];
    let flooded = attacks(scene, &[(FLOODS, Borne)], &floods)?;
    let overrun = attacks(scene, OVERRUNS, &[(part(), "rw", "queues=2 pages=4")])?;
    Ok(format!("{flooded}; {overrun}"))
}

fn nodes(scene: &BlockScene<'_>) -> Result<String> {
    attacks(scene, NODES, &[(part(), "rw", "")])
}

fn writes(scene: &BlockScene<'_>) -> Result<String> {
    let nobodys = Ground { target: SMALL.target, own: [0..0, 0..0] };
    attacks(scene, &[("blk-writes,sectors,borders", Borne)], &[(nobodys, "ro", "")])
}

/// Makes each attack by each vbd: its ground, its `access=`, and how it connects.
fn attacks(scene: &BlockScene<'_>, attacks: &[(&str, End)], vbds: &[(Ground, &str, &str)]) -> Result<String> {
    // Tables and heap grow once with the most that is ever under way: here the last vbd's.
    if let (Some((names, end)), Some(largest)) = (attacks.first(), vbds.last()) {
        one(scene, names, *end, largest).with_context(|| format!("attack {names} for the first time"))?;
    }
    let before = scene.at_rest()?;
    let (mut closed, mut verified) = (0, 0);
    for vbd in vbds {
        for (names, end) in attacks {
            let (reason, operations) =
                one(scene, names, *end, vbd).with_context(|| format!("attack {names} {}", vbd.2))?;
            closed += u32::from(reason.is_some());
            verified += operations;
        }
    }
    scene.given_back(&before)?;
    let made: usize = attacks.iter().map(|(names, _)| names.split(',').count()).sum();
    Ok(format!(
        "{} attacks, {closed} vbds closed for it; the neighbour's {verified} operations verified",
        made * vbds.len()
    ))
}

/// Makes attacks by one vbd; gives the reason where it was closed for one, and the neighbour's operations.
fn one(
    scene: &BlockScene<'_>,
    names: &str,
    end: End,
    (ground, access, words): &(Ground, &str, &str),
) -> Result<(Option<String>, u64)> {
    let before = others(scene, ground)?;
    let devices = format!("disk = {:?}", [disk("xvda", ground.target, access)]);
    let result = with_attacker(scene.lab, &scene.blkdom, &devices, &format!("{names} {words}"), |id| {
        let (done, operations) = beside_verification(scene, || let_go(scene.lab, id));
        done?;
        let operations = operations?;
        let reason = judge(scene.lab, &scene.blkdom, &scene.blkdom.backend(id, handle("xvda")), end)?;
        Ok((reason, operations))
    })?;
    ensure!(others(scene, ground)? == before, "bytes of the medium that are another's were changed");
    Ok(result)
}

/// Runs something while the neighbour writes and reads back; gives also how many operations were verified.
fn beside_verification(scene: &BlockScene<'_>, run: impl FnOnce() -> Result<()>) -> (Result<()>, Result<u64>) {
    let verify = "blocks verify /dev/xvda --seconds 2 --lanes 2 --seed $RANDOM";
    let again = format!("sh -c 'while {verify} && [ ! -e /tmp/enough ]; do :; done'");
    let started = scene.b.sh("rm -f /tmp/enough").and_then(|_| scene.b.start("verify", &again));
    let done = run();
    let said = started.and_then(|()| scene.b.sh("touch /tmp/enough")).and_then(|_| scene.b.finish("verify"));
    (done, said.and_then(|said| said.lines().map(operations).sum()))
}

/// What the block tool says that it verified.
fn operations(line: &str) -> Result<u64> {
    let said: Value = serde_json::from_str(line).with_context(|| format!("the neighbour says '{line}'"))?;
    said["operations"].as_u64().with_context(|| format!("the neighbour says '{line}'"))
}

/// The medium without what is the attacker's or the neighbour's, durable.
fn others(scene: &BlockScene<'_>, ground: &Ground) -> Result<Vec<u8>> {
    // A flush is the whole drive's.
    scene.b.sh("dd if=/dev/zero of=/dev/xvda bs=4k count=1 conv=fsync 2>/dev/null")?;
    let mut bytes = scene.block.media.read(0, 0, usize::try_from(MEDIA[0])?)?;
    for range in ground.own.iter().chain([&NEIGHBOUR]) {
        let range = usize::try_from(range.start)?..usize::try_from(range.end)?;
        bytes.get_mut(range).context("the medium is shorter")?.fill(0);
    }
    Ok(bytes)
}
