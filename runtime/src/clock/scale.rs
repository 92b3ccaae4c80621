//! Time stamps turned into Xen's system time. Pure. Floor 2.

/// A consistent copy of `struct vcpu_time_info` (`xen.h`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Snapshot {
    pub(super) time_stamp: u64,
    pub(super) system_time: u64,
    pub(super) multiplier: u32,
    pub(super) shift: i8,
}

impl Snapshot {
    /// The system time in nanoseconds at a time stamp, which may lie before the snapshot's.
    ///
    /// Time stamps wrap: where Xen emulates the counter, it begins at zero with the domain, and a snapshot from before that has a
    /// time stamp just below 2^64.
    pub(super) fn system_time_at(&self, time_stamp: u64) -> u64 {
        let ticks = time_stamp.wrapping_sub(self.time_stamp).cast_signed();
        let nanoseconds = self.nanoseconds(ticks.unsigned_abs());
        if ticks >= 0 {
            self.system_time.wrapping_add(nanoseconds)
        } else {
            self.system_time.saturating_sub(nanoseconds)
        }
    }

    /// `((ticks << shift) * multiplier) >> 32`, with a shift of either sign.
    pub(super) fn nanoseconds(&self, ticks: u64) -> u64 {
        let distance = u32::from(self.shift.unsigned_abs());
        let shifted = if self.shift < 0 {
            ticks.checked_shr(distance).unwrap_or(0)
        } else {
            ticks.checked_shl(distance).unwrap_or(0)
        };
        ((u128::from(shifted) * u128::from(self.multiplier)) >> 32) as u64
    }
}

/// Xen's system time made into ours: from the first instruction, and never backward.
///
/// Xen corrects its time once a second. Where the machine below stalls it, the correction can be a step back of milliseconds; ours then
/// goes on from where it was, instead of standing still until Xen's has caught up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reckoning {
    /// System time at our zero; wrapping.
    zero: u64,
    last: u64,
}

impl Reckoning {
    pub(super) const fn starting_at(system_time: u64) -> Self {
        Self { zero: system_time, last: 0 }
    }

    /// Our time at a system time, and whether Xen's made a step back.
    pub(super) fn read(&mut self, system_time: u64) -> (u64, bool) {
        let time = system_time.wrapping_sub(self.zero);
        let back = time.wrapping_sub(self.last).cast_signed() < 0;
        if back {
            self.zero = system_time.wrapping_sub(self.last);
        } else {
            self.last = time;
        }
        (self.last, back)
    }

    /// The system time at a time of ours. Xen's is signed: what is beyond would lie in the past.
    pub(super) fn system_time(&self, time: u64) -> u64 {
        let limit = i64::MAX as u64;
        time.min(limit / 2).wrapping_add(self.zero).min(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::{Reckoning, Snapshot};

    #[test]
    fn a_step_back_is_no_step_and_no_pause() {
        let mut clock = Reckoning::starting_at(1000);
        assert_eq!(clock.read(1000), (0, false));
        assert_eq!(clock.read(1500), (500, false));
        assert_eq!(clock.read(1200), (500, true));
        assert_eq!(clock.read(1201), (501, false));
        assert_eq!(clock.system_time(601), 1301);
        // Before our zero.
        let mut clock = Reckoning::starting_at(1000);
        assert_eq!(clock.read(10), (0, true));
        assert_eq!(clock.read(15), (5, false));
        assert_eq!(clock.system_time(u64::MAX), i64::MAX as u64 / 2 + 10);
    }

    /// 2 GHz: a tick is half a nanosecond.
    const TWO_GHZ: Snapshot = Snapshot { time_stamp: 1_000_000, system_time: 5_000_000, multiplier: 1 << 31, shift: 0 };

    #[test]
    fn ticks_become_nanoseconds() {
        assert_eq!(TWO_GHZ.system_time_at(1_000_000), 5_000_000);
        assert_eq!(TWO_GHZ.system_time_at(1_002_000), 5_001_000);
        assert_eq!(TWO_GHZ.system_time_at(998_000), 4_999_000);
    }

    #[test]
    fn a_snapshot_from_before_the_domain_is_no_great_future() {
        let early = Snapshot { time_stamp: 2_000_u64.wrapping_neg(), ..TWO_GHZ };
        assert_eq!(early.system_time_at(4_000), 5_003_000);
        assert_eq!(early.system_time_at(3_000_u64.wrapping_neg()), 4_999_500);
    }

    #[test]
    fn the_shift_has_a_sign() {
        let slow = Snapshot { shift: 2, ..TWO_GHZ };
        assert_eq!(slow.system_time_at(1_001_000), 5_002_000);
        let fast = Snapshot { shift: -2, ..TWO_GHZ };
        assert_eq!(fast.system_time_at(1_008_000), 5_001_000);
    }

    #[test]
    fn a_year_does_not_overflow() {
        let year = 365 * 24 * 3600 * 2_000_000_000_u64;
        assert_eq!(TWO_GHZ.system_time_at(1_000_000 + year), 5_000_000 + year / 2);
    }

    #[test]
    fn before_time_began_is_zero() {
        let early = Snapshot { system_time: 10, ..TWO_GHZ };
        assert_eq!(early.system_time_at(0), 0);
    }
}
