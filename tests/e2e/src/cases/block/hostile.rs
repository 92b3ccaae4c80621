//! A hostile block frontend: what cannot be is refused, what breaks the protocol costs its own vbd, and nobody else a byte. Host.
//!
//! The attacks are the image's (`tests/guests`), which says itself where a request is done that must be refused. Here is looked at what it
//! cannot see: why a vbd was closed, the neighbour, the medium, and what blkdom has on loan.

use std::ops::Range;

use anyhow::{Context, Result, ensure};

use super::{Block, BlockScene, MEBIBYTE, MEDIA, PLAIN, SMALL, disk, handle};
use crate::attack::block::{FLOODS, NODES, OVERRUNS, REQUESTS, WRITES, beside_verification, word};
use crate::attack::{Attack, End, PATIENCE, carries, judge, let_go, must_work, with_attacker};
use crate::cases::Case;
use crate::traffic::Shell;

pub(super) const CASES: &[Case<Block>] = &[
    Case { name: "a hostile block frontend: requests that cannot be done, pages that are none", run: requests },
    Case { name: "a hostile block frontend: floods, full rings, indices that lie", run: rings },
    Case { name: "a hostile block frontend: nodes that make no sense", run: nodes },
    Case { name: "a hostile block frontend: writes of what is only read", run: writes },
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
        &[REQUESTS],
        &[(part(), "rw", ""), (striped(), "rw", "persistent"), (part(), "rw", "narrow"), (part(), "rw", largest)],
    )
}

fn rings(scene: &BlockScene<'_>) -> Result<String> {
    let floods = [(part(), "rw", ""), (striped(), "rw", "persistent queues=4 pages=16")];
    let flooded = attacks(scene, &[FLOODS], &floods)?;
    let overruns: Vec<_> = OVERRUNS.chunks(1).collect();
    let overrun = attacks(scene, &overruns, &[(part(), "rw", "queues=2 pages=4")])?;
    Ok(format!("{flooded}; {overrun}"))
}

fn nodes(scene: &BlockScene<'_>) -> Result<String> {
    let nodes: Vec<_> = NODES.chunks(1).collect();
    attacks(scene, &nodes, &[(part(), "rw", "")])
}

fn writes(scene: &BlockScene<'_>) -> Result<String> {
    let nobodys = Ground { target: SMALL.target, own: [0..0, 0..0] };
    attacks(scene, &[WRITES], &[(nobodys, "ro", "")])
}

/// Makes each series of attacks by each vbd: its ground, its `access=`, and how it connects.
fn attacks(scene: &BlockScene<'_>, series: &[&[Attack]], vbds: &[(Ground, &str, &str)]) -> Result<String> {
    // Tables and heap grow once with the most that is ever under way: here the last vbd's.
    if let (Some(attacks), Some(largest)) = (series.first(), vbds.last()) {
        one(scene, attacks, largest).with_context(|| format!("attack {} for the first time", word(attacks)))?;
    }
    let before = scene.at_rest()?;
    let (mut closed, mut verified) = (0, 0);
    for vbd in vbds {
        for attacks in series {
            let (reason, operations) =
                one(scene, attacks, vbd).with_context(|| format!("attack {} {}", word(attacks), vbd.2))?;
            closed += u32::from(reason.is_some());
            verified += operations;
        }
    }
    scene.given_back(&before)?;
    let made: usize = series.iter().map(|attacks| attacks.len()).sum();
    Ok(format!(
        "{} attacks, {closed} vbds closed for it; the neighbour's {verified} operations verified",
        made * vbds.len()
    ))
}

/// Makes attacks by one vbd, which ends as the last of them; gives the reason where it was closed, and the neighbour's operations.
fn one(
    scene: &BlockScene<'_>,
    attacks: &[Attack],
    (ground, access, words): &(Ground, &str, &str),
) -> Result<(Option<String>, u64)> {
    let end = attacks.last().map_or(End::Borne, |attack| attack.end);
    let before = others(scene, ground)?;
    let devices = format!("disk = {:?}", [disk("xvda", ground.target, access)]);
    let words = format!("{} {words}", word(attacks));
    let result = with_attacker(scene.lab, &scene.blkdom, &devices, &words, |id| {
        let operations = beside_verification(&scene.b, || let_go(scene.lab, id, PATIENCE))?;
        let reason = judge(scene.lab, &scene.blkdom, &scene.blkdom.backend(id, handle("xvda")), end)?;
        if must_work(attacks) {
            carries(scene.lab, id)?;
        }
        Ok((reason, operations))
    })?;
    ensure!(others(scene, ground)? == before, "bytes of the medium that are another's were changed");
    Ok(result)
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
