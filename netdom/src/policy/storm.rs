//! How many frames that go to all a guest may send (storm control): each costs every neighbour a copy. Pure. Floor 3.

use core::fmt;
use core::num::NonZeroU32;
use core::time::Duration;
use split_driver::time::Instant;

const SECOND: u64 = 1_000_000_000;

/// Frames a second. Those of a second may come at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StormLimit(NonZeroU32);

impl StormLimit {
    /// What a guest may send where nothing else is said: more than a host asks, and less than its neighbours feel.
    pub const DEFAULT: Self = match NonZeroU32::new(10_000) {
        Some(frames) => Self(frames),
        None => Self(NonZeroU32::MIN),
    };
    /// The most: one each microsecond.
    pub const MOST: u32 = 1_000_000;

    /// `None` for none, and for more than [`Self::MOST`].
    pub const fn new(frames: u32) -> Option<Self> {
        match NonZeroU32::new(frames) {
            Some(number) if frames <= Self::MOST => Some(Self(number)),
            _ => None,
        }
    }
}

impl fmt::Display for StormLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What a guest may still send to all: the time at which all that it sent would have been due, evenly spaced (as the generic cell rate algorithm
/// of ITU-T I.371, annex A).
#[derive(Clone, Copy, Debug)]
pub struct Allowance {
    interval: Duration,
    burst: Duration,
    due: Instant,
}

impl Allowance {
    /// All of it.
    pub const fn new(limit: StormLimit) -> Self {
        let frames = limit.0.get() as u64;
        let interval = SECOND / frames;
        let burst = Duration::from_nanos(interval * frames);
        Self { interval: Duration::from_nanos(interval), burst, due: Instant(0) }
    }

    /// Takes a frame; false where it is one too many.
    pub fn take(&mut self, now: Instant) -> bool {
        let due = self.due.max(now) + self.interval;
        let permitted = due.since(now) <= self.burst;
        if permitted {
            self.due = due;
        }
        permitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_at_once_and_then_evenly() {
        for frames in [1, 3, 1000, 10_000, StormLimit::MOST] {
            let mut allowance = Allowance::new(StormLimit::new(frames).unwrap());
            let mut taken = |nanoseconds: u64| (0..2 * frames).filter(|_| allowance.take(Instant(nanoseconds))).count();
            let start = 5 * SECOND;
            // Idle time does not add to it.
            assert_eq!(taken(start), frames as usize, "{frames}");
            assert_eq!(taken(start + SECOND / u64::from(frames) - 1), 0, "{frames}");
            assert_eq!(taken(start + SECOND / u64::from(frames)), 1, "{frames}");
            assert_eq!(taken(start + 3 * SECOND), frames as usize, "{frames}");
            assert_eq!(taken(start + 100 * SECOND), frames as usize, "{frames}");
        }
        assert_eq!([0, StormLimit::MOST + 1, u32::MAX].map(StormLimit::new), [None; 3]);
    }
}
