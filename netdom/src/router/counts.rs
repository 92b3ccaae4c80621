//! What the router counted: packets that went on, and those that did not, by cause. Pure. Floor 3.

use super::{Kind, Router, Verdict};
use crate::statistics::DropCause;
use crate::switch::PortId;
use split_driver::time::Instant;

/// Packets, in this life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// That went on from one of the router's ports; a super-frame is one.
    pub forwarded: u64,
    /// Of these, with another address or port.
    pub translated: u64,
    /// That were lost.
    pub drops: [u64; DropCause::COUNT],
}

impl Counts {
    /// Counts what became of a packet.
    pub(super) fn note(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Send(_) => self.forwarded += 1,
            Verdict::Drop(cause) => {
                if let Some(count) = self.drops.get_mut(cause as usize) {
                    *count += 1;
                }
            }
            Verdict::Taken | Verdict::More | Verdict::Later(_) => {}
        }
    }
}

impl Router {
    /// What it counted.
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Sessions in use; none where it has no way out.
    pub fn sessions(&self) -> Option<usize> {
        self.nat.as_ref().map(super::nat::Nat::len)
    }

    /// Leases in use on a bridge without a NIC; none where the port is on no such bridge.
    pub fn leases(&self, port: PortId, now: Instant) -> Option<usize> {
        match &self.interface(port)?.kind {
            Kind::Internal(leases) => Some(leases.iter(now).count()),
            _ => None,
        }
    }
}
