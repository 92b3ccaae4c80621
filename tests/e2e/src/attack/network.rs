//! The attacks on a network backend, and the neighbour that pings meanwhile. Host.
//!
//! What each is by the protocol is from `io/netif.h` and `io/ring.h` of Xen's headers.

use anyhow::{Context, Result, ensure};

use super::{Attack, End, Needs, Protocol};
use crate::traffic::{Ping, Shell};

use End::{Borne, Closed, Either};
use Needs::Helper;
use Protocol::{Allowed, Broken, Open, Refused};

/// Grants that are none, or not for this.
pub const GRANTS: &[Attack] = &[
    // The tables' first growth is no leak.
    Attack::new("none", Allowed, Borne).needs(Helper),
    Attack::new("bad-grant", Refused, Closed("grant 16777215 refused")),
    Attack::new("bad-grant-later", Refused, Closed("grant 16777215 refused")),
    Attack::new("bad-grants", Refused, Closed("grant 16777215 refused")),
    Attack::new("foreign-grant", Refused, Closed("refused")),
    Attack::new("revoked-grant", Refused, Closed("refused")),
    Attack::new("revoke-race", Refused, Closed("refused")),
    Attack::new("bad-grant-rx", Refused, Closed("grant 16777215 refused")).needs(Helper),
    Attack::new("read-only-rx", Refused, Closed("refused")).needs(Helper),
    Attack::new("same-page-rx", Open, Either).needs(Helper),
];

/// Packets that are none.
pub const CHAINS: &[Attack] = &[
    Attack::new("beyond-page", Refused, Closed("offset 4000 with size 200 crosses a page")),
    Attack::new("far-beyond-page", Refused, Closed("crosses a page")),
    Attack::new("beyond-page-later", Refused, Closed("offset 4095 with size 2 crosses a page")),
    Attack::new("chain-too-long", Refused, Closed("20 slots or more")),
    Attack::new("chain-of-a-ring", Refused, Closed("20 slots or more")),
    Attack::new("chain-a-bit-long", Allowed, Borne),
    Attack::new("chain-cut-short", Refused, Closed("cut short after 2 slots")),
    Attack::new("chain-of-more-than-it-says", Refused, Borne),
    Attack::new("short-packet", Refused, Borne),
    Attack::new("zero-size", Refused, Borne),
    Attack::new("unknown-extra", Refused, Closed("unknown extra info type 99")),
    Attack::new("extra-of-no-type", Refused, Closed("unknown extra info type 0")),
    Attack::new("extra-missing", Refused, Closed("announced but missing")),
    Attack::new("extra-flood", Refused, Closed("announced but missing")),
    Attack::new("extra-many", Allowed, Borne),
];

/// Offloads that make no sense.
pub const OFFLOADS: &[Attack] = &[
    Attack::new("gso-of-zero", Refused, Closed("GSO size is zero")),
    Attack::new("gso-bad-type", Refused, Closed("unknown GSO type 77")),
    Attack::new("gso-of-one", Allowed, Borne),
    Attack::new("csum-garbage", Allowed, Borne),
    Attack::new("gso-garbage", Allowed, Borne),
    Attack::new("group-flood", Refused, Borne),
];

/// Ring indices that lie, rings never filled.
pub const RINGS: &[Attack] = &[
    Attack::new("producer-overrun", Broken, Closed("tx ring overrun")),
    Attack::new("producer-far-ahead", Broken, Closed("tx ring overrun")),
    Attack::new("producer-goes-back", Broken, Closed("tx ring overrun")),
    Attack::new("rx-producer-overrun", Broken, Closed("rx ring overrun")).needs(Helper),
    Attack::new("rx-never-filled", Allowed, Borne).needs(Helper),
    Attack::new("ring-never-granted", Broken, Closed("mapping the transmit ring")),
    Attack::new("channel-of-nobody", Broken, Closed("binding the event channel")),
    Attack::new("queues-too-many", Broken, Closed("9 queues, of 1 to 4 offered")),
    Attack::new("queues-missing", Broken, Closed("node queue-0/event-channel is missing")),
    Attack::new("control-ring-never-granted", Broken, Closed("mapping the control ring")),
    Attack::new("headroom-of-a-page", Broken, Closed("xdp-headroom is 4096")),
    Attack::new("begin-anew", Open, Borne),
];

/// Storms of events, states and random bytes.
pub const NOISE: &[Attack] = &[
    Attack::new("event-storm", Allowed, Borne),
    Attack::new("state-flapping", Open, Borne),
    // For whichever of all reasons comes first.
    Attack::new("ring-scribble", Open, Closed("")),
    Attack::new("random-slots", Open, Either),
];

/// All of them.
pub fn all() -> Vec<Attack> {
    [GRANTS, CHAINS, OFFLOADS, RINGS, NOISE].concat()
}

/// The word of the image's command line for the station that is to answer it.
pub fn witness(peer: &str) -> String {
    format!("witness={peer}")
}

/// Pings of the neighbour beside each attack, and the milliseconds between two.
const PINGS: (u32, u32) = (120, 10);

/// Runs something while the neighbour pings; then the neighbour must have lost none.
///
/// # Errors
/// What the run says, or the pings that were lost.
pub fn beside_pings(neighbour: &dyn Shell, peer: &str, run: impl FnOnce() -> Result<()>) -> Result<Ping> {
    let (count, interval) = PINGS;
    neighbour.start("ping", &format!("traffic ping {peer} {count} {interval}"))?;
    let done = run();
    let pings = neighbour.finish("ping")?;
    done?;
    let line = pings.lines().last().unwrap_or_default();
    let ping: Ping = serde_json::from_str(line).with_context(|| format!("the neighbour's ping: '{pings}'"))?;
    ensure!(ping.sent == u64::from(count) && ping.lost == 0, "the neighbour lost pings: {ping:?}");
    Ok(ping)
}
