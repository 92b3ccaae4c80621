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
    pub(super) fn system_time_at(&self, time_stamp: u64) -> u64 {
        if time_stamp >= self.time_stamp {
            self.system_time.wrapping_add(self.nanoseconds(time_stamp - self.time_stamp))
        } else {
            self.system_time.saturating_sub(self.nanoseconds(self.time_stamp - time_stamp))
        }
    }

    /// `((ticks << shift) * multiplier) >> 32`, with a shift of either sign.
    fn nanoseconds(&self, ticks: u64) -> u64 {
        let distance = u32::from(self.shift.unsigned_abs());
        let shifted = if self.shift < 0 {
            ticks.checked_shr(distance).unwrap_or(0)
        } else {
            ticks.checked_shl(distance).unwrap_or(0)
        };
        ((u128::from(shifted) * u128::from(self.multiplier)) >> 32) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::Snapshot;

    /// 2 GHz: a tick is half a nanosecond.
    const TWO_GHZ: Snapshot = Snapshot { time_stamp: 1_000_000, system_time: 5_000_000, multiplier: 1 << 31, shift: 0 };

    #[test]
    fn ticks_become_nanoseconds() {
        assert_eq!(TWO_GHZ.system_time_at(1_000_000), 5_000_000);
        assert_eq!(TWO_GHZ.system_time_at(1_002_000), 5_001_000);
        assert_eq!(TWO_GHZ.system_time_at(998_000), 4_999_000);
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
