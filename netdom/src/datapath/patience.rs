//! How long senders wait for a guest that has no receive slots, before their packets go into its queue. Pure. Floor 3.
//!
//! A sender that waits keeps its packets in its own pages and on its own ring: nothing is copied twice and nothing is lost, and its
//! TCP slows down by itself. But all its packets wait, those to others too. So the time that others wait for a guest is paid for by the
//! slots it posts: one that posts none costs its peers a few milliseconds, once.

use super::QueueId;
use crate::switch::PortId;
use alloc::vec::Vec;
use split_driver::time::{Duration, Instant};

/// Nanoseconds that a slot taken earns.
const EARNED: u64 = 50_000;
/// Nanoseconds that can be saved.
const MOST: u64 = 5_000_000;

/// A guest's account of time that others wait for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// Nanoseconds.
    saved: u64,
    since: Option<Instant>,
}

impl Patience {
    /// Nothing earned.
    pub const fn new() -> Self {
        Self { saved: 0, since: None }
    }

    /// A receive slot was filled.
    pub fn earn(&mut self) {
        self.saved = (self.saved + EARNED).min(MOST);
    }

    /// Until when a sender may wait; `None` where it must not.
    pub fn poll_until(&mut self, now: Instant) -> Option<Instant> {
        let since = *self.since.get_or_insert(now);
        let until = since + Duration::from_nanos(self.saved);
        if until > now {
            return Some(until);
        }
        // It is spent; slots that are filled earn it anew.
        *self = Self::new();
        None
    }

    /// There are receive slots again.
    pub fn handle_slots(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.saved = self.saved.saturating_sub(now.0.saturating_sub(since.0));
        }
    }
}

/// Packets taken from a queue where the last ones had to be given back to its ring.
const WAITED_PACKETS: usize = 8;

/// Where packets of a queue go, as far as the last one tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Toward {
    /// It sent none to one station.
    #[default]
    Unknown,
    /// To the NIC with this port.
    Nic(PortId),
    /// To another guest.
    Guest,
}

/// A queue's part in backpressure.
#[derive(Default)]
pub(crate) struct Backpressure {
    /// How long others wait for its receive slots.
    pub(crate) patience: Patience,
    /// The queues that do.
    pub(super) waiters: Vec<QueueId>,
    /// Slots that the first of them needs.
    pub(super) awaited: u32,
    /// It waited for another's receive slots, so that it is likely to do so again.
    pub(super) waited: bool,
    /// Where its last packet to one station went.
    pub(crate) toward: Toward,
}

impl Backpressure {
    /// Packets that it may send in this round, of a share.
    pub(crate) fn poll_share(&mut self, share: usize) -> usize {
        if core::mem::take(&mut self.waited) { share.min(WAITED_PACKETS) } else { share }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_paid_for_by_slots() {
        let at = |microseconds: u64| Instant(microseconds * 1000);
        let mut patience = Patience::new();
        assert_eq!(patience.poll_until(at(0)), None, "nothing earned");
        for _ in 0..10 {
            patience.earn();
        }
        assert_eq!(patience.poll_until(at(100)), Some(at(600)));
        assert_eq!(patience.poll_until(at(500)), Some(at(600)));
        patience.handle_slots(at(500));
        assert_eq!(patience.poll_until(at(1000)), Some(at(1100)));
        assert_eq!(patience.poll_until(at(1100)), None);
        assert_eq!(patience.poll_until(at(1101)), None, "spent");
        for _ in 0..1000 {
            patience.earn();
        }
        assert_eq!(patience.poll_until(at(2000)), Some(at(7000)), "no more than the most");
    }
}
