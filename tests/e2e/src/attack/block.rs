//! The attacks on a block backend, and the neighbour that writes and reads back meanwhile. Host.
//!
//! What each is by the protocol is from `io/blkif.h` and `io/ring.h` of Xen's headers. The image says itself where a request is done that
//! must be refused, and where the next proper one is not served.

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Attack, End, Needs, Protocol};
use crate::traffic::Shell;

use End::{Borne, Closed};
use Protocol::{Allowed, Broken, Open, Refused};

/// Requests that cannot be done, pages that are none: each is refused, and the next proper request served.
pub const REQUESTS: &[Attack] = &[
    Attack::new("sectors", Refused, Borne),
    Attack::new("borders", Refused, Borne),
    Attack::new("segment-bounds", Refused, Borne),
    Attack::new("segment-counts", Refused, Borne),
    Attack::new("operations", Refused, Borne),
    Attack::new("discards", Refused, Borne),
    Attack::new("indirect", Allowed, Borne),
    Attack::new("indirect-counts", Refused, Borne),
    Attack::new("indirect-operations", Refused, Borne),
    Attack::new("indirect-pages", Refused, Borne),
    Attack::new("indirect-segments", Refused, Borne),
    Attack::new("indirect-sectors", Refused, Borne),
    Attack::new("grants", Refused, Borne),
    Attack::new("read-only-page", Refused, Borne),
    Attack::new("revoked", Refused, Borne),
    Attack::new("revoke-race", Refused, Borne),
    Attack::new("revoke-in-flight", Refused, Borne),
    Attack::new("changed", Refused, Borne),
    Attack::new("changed-indirect", Refused, Borne),
    Attack::new("random-slots", Refused, Borne),
];

/// Writes of what is only read.
pub const WRITES: &[Attack] = &[
    Attack::new("writes", Refused, Borne).needs(Needs::ReadOnly),
    Attack::new("sectors", Refused, Borne).needs(Needs::ReadOnly),
    Attack::new("borders", Refused, Borne).needs(Needs::ReadOnly),
];

/// Each is served or throttled. After the last, the rings are full for as long as the domain lives.
pub const FLOODS: &[Attack] = &[
    Attack::new("begin-anew", Allowed, Borne),
    Attack::new("never-consumed", Allowed, Borne),
    Attack::new("full-rings", Allowed, Borne),
    Attack::new("barriers", Allowed, Borne),
    Attack::new("flushes", Allowed, Borne),
    Attack::new("event-storm", Allowed, Borne),
    Attack::new("state-flapping", Open, Borne),
    Attack::new("vanish", Allowed, Borne),
];

/// Indices that lie.
pub const OVERRUNS: &[Attack] = &[
    Attack::new("producer-overrun", Broken, Closed("ring overrun")),
    Attack::new("producer-thousand", Broken, Closed("ring overrun")),
    Attack::new("producer-far-ahead", Broken, Closed("ring overrun")),
    Attack::new("producer-goes-back", Broken, Closed("ring overrun")),
    Attack::new("overrun-in-flight", Broken, Closed("ring overrun")),
    Attack::new("ring-scribble", Open, Closed("ring overrun")),
];

/// Nodes that make no sense.
pub const NODES: &[Attack] = &[
    Attack::new("ring-read-only", Broken, Closed("mapping the ring")),
    Attack::new("ring-never-granted", Broken, Closed("mapping the ring")),
    Attack::new("ring-missing", Broken, Closed("node ring-ref is missing")),
    Attack::new("ring-page-missing", Broken, Closed("node ring-ref1 is missing")),
    Attack::new("ring-page-order", Broken, Closed("ring-page-order is 99")),
    Attack::new("ring-no-number", Broken, Closed("node ring-ref is malformed")),
    Attack::new("channel-missing", Broken, Closed("node event-channel is missing")),
    Attack::new("channel-of-nobody", Broken, Closed("binding the event channel")),
    Attack::new("no-queue", Broken, Closed("0 queues")),
    Attack::new("too-many-queues", Broken, Closed("9999 queues")),
    Attack::new("queues-missing", Broken, Closed("node queue-0/ring-ref is missing")),
    Attack::new("protocol", Broken, Closed("unknown protocol \"ia64-abi\"")),
];

/// All of them.
pub fn all() -> Vec<Attack> {
    [REQUESTS, WRITES, FLOODS, OVERRUNS, NODES].concat()
}

/// The word of the image's command line for attacks that one vbd makes one after the other.
pub fn word(attacks: &[Attack]) -> String {
    let names: Vec<_> = attacks.iter().map(|attack| attack.name).collect();
    format!("blk-{}", names.join(","))
}

/// Runs something while the neighbour writes `/dev/xvda` and reads it back; gives also how many operations were verified.
///
/// # Errors
/// What the run says, or what the neighbour read that it did not write.
pub fn beside_verification(neighbour: &dyn Shell, run: impl FnOnce() -> Result<()>) -> Result<u64> {
    let verify = "blocks verify /dev/xvda --seconds 2 --lanes 2 --seed $RANDOM";
    let again = format!("sh -c 'while {verify} && [ ! -e /tmp/enough ]; do :; done'");
    let started = neighbour.sh("rm -f /tmp/enough").and_then(|_| neighbour.start("verify", &again));
    let done = run();
    let said = started.and_then(|()| neighbour.sh("touch /tmp/enough")).and_then(|_| neighbour.finish("verify"));
    done?;
    said.and_then(|said| said.lines().map(operations).sum())
}

/// What the block tool says that it verified.
fn operations(line: &str) -> Result<u64> {
    let said: Value = serde_json::from_str(line).with_context(|| format!("the neighbour says '{line}'"))?;
    said["operations"].as_u64().with_context(|| format!("the neighbour says '{line}'"))
}
