//! How long closed devices stay in the store when several of one frontend go together. Pure: time is an argument. Floor 1.

use alloc::collections::BTreeMap;
use core::cell::RefCell;
use xen_pv_sys::DomainId;

use super::Timing;
use crate::time::{Duration, Instant};

/// What each further device that goes adds: libxl comes round to them one by one, and each costs it some requests of the store.
const EACH: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, Default)]
struct Group {
    count: u32,
    /// When the last one joined.
    last: Instant,
}

/// Devices that are closed and not deleted yet, by their frontend.
#[derive(Debug, Default)]
pub(super) struct Departures(RefCell<BTreeMap<DomainId, Group>>);

/// A device that goes; `Drop` takes it out.
#[derive(Debug)]
pub(super) struct Departure<'a> {
    departures: &'a Departures,
    frontend: DomainId,
    since: Instant,
}

impl Departures {
    /// A device of `frontend` goes.
    pub(super) fn begin(&self, frontend: DomainId, now: Instant) -> Departure<'_> {
        let mut groups = self.0.borrow_mut();
        let group = groups.entry(frontend).or_default();
        group.count += 1;
        group.last = now;
        Departure { departures: self, frontend, since: now }
    }
}

impl Departure<'_> {
    /// How long the device is still to stay: alone for `linger`; with others until none has joined them for a while.
    pub(super) fn poll_delay(&self, timing: &Timing, now: Instant) -> Option<Duration> {
        let group = self.departures.0.borrow().get(&self.frontend).copied().unwrap_or_default();
        let until = match group.count {
            0 | 1 => self.since + timing.linger,
            count => group.last + timing.linger + EACH.saturating_mul(count),
        };
        let until = until.min(self.since + timing.linger_max).max(self.since + timing.linger);
        let left = until.since(now);
        (left > Duration::ZERO).then_some(left)
    }
}

impl Drop for Departure<'_> {
    fn drop(&mut self) {
        let mut groups = self.departures.0.borrow_mut();
        if let Some(group) = groups.get_mut(&self.frontend) {
            group.count -= 1;
            if group.count == 0 {
                groups.remove(&self.frontend);
            }
        }
    }
}
