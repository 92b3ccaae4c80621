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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Instant {
        Instant(1_000_000_000) + Duration::from_millis(milliseconds)
    }

    fn left(departure: &Departure<'_>, now: u64) -> Option<u64> {
        let timing =
            Timing { linger: Duration::from_millis(500), linger_max: Duration::from_secs(2), ..Timing::default() };
        departure.poll_delay(&timing, at(now)).map(|delay| delay.as_nanos() as u64 / 1_000_000)
    }

    #[test]
    fn a_device_alone_stays_as_long_as_said() {
        let departures = Departures::default();
        let device = departures.begin(DomainId(1), at(0));
        let _of_another = [departures.begin(DomainId(2), at(400)), departures.begin(DomainId(2), at(400))];
        assert_eq!([0, 499, 500, 600].map(|now| left(&device, now)), [Some(500), Some(1), None, None]);
    }

    #[test]
    fn devices_that_go_together_wait_for_the_last() {
        let departures = Departures::default();
        let first = departures.begin(DomainId(1), at(0));
        let second = departures.begin(DomainId(1), at(300));
        // 500 ms after the second, and 100 for each.
        assert_eq!([left(&first, 300), left(&second, 300)], [Some(700); 2]);
        assert_eq!([left(&first, 1000), left(&second, 1000)], [None; 2]);
        drop(first);
        assert_eq!(left(&second, 300), Some(500), "the last is alone again");
        drop(second);
        let later = departures.begin(DomainId(1), at(5000));
        assert_eq!(left(&later, 5000), Some(500), "nothing is left of those before");
    }

    #[test]
    fn however_many_follow_a_device_goes_in_the_end() {
        let departures = Departures::default();
        let all: alloc::vec::Vec<_> = (0..50).map(|number| departures.begin(DomainId(1), at(number * 100))).collect();
        assert_eq!(left(&all[0], 1999), Some(1));
        assert_eq!(left(&all[0], 2000), None);
        assert_eq!(left(&all[49], 4900), Some(2000));
    }
}
