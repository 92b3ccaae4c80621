//! How much trouble a device may make: lines in the log, beginnings, violations of the protocol. Pure: time is an argument. Floor 1.

use crate::time::{Duration, Instant};

/// What may be done so often at once, and then as often as time brings it back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    left: u32,
    most: u32,
    every: Duration,
    /// When the last one came back, or could have.
    since: Instant,
}

impl Budget {
    /// `most` at once, one more `every` so long.
    pub(super) const fn new(most: u32, every: Duration) -> Self {
        Self { left: most, most, every, since: Instant(0) }
    }

    /// Takes one.
    ///
    /// # Errors
    /// Where none is left: how long until there is.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        while self.left < self.most && now.since(self.since) >= self.every {
            self.left += 1;
            self.since = self.since + self.every;
        }
        if self.left == self.most {
            self.since = now;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(self.every.saturating_sub(now.since(self.since))),
        }
    }
}

/// Lines of the log about one device.
#[derive(Debug)]
pub(super) struct Lines {
    budget: Budget,
    left_out: u32,
}

impl Lines {
    pub(super) const fn new() -> Self {
        Self { budget: Budget::new(10, Duration::from_secs(10)), left_out: 0 }
    }

    /// Whether a line may be written: how many were left out before it.
    pub(super) fn take(&mut self, now: Instant) -> Option<u32> {
        if self.budget.take(now).is_err() {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        Some(core::mem::take(&mut self.left_out))
    }
}

/// Violations of the protocol by one frontend: after each, it waits longer until its rings are taken up again.
#[derive(Debug, Default)]
pub(super) struct Violations {
    count: u32,
    last: Instant,
}

impl Violations {
    /// The first is free: it may be a driver that a crash left in disorder.
    const FIRST: Duration = Duration::from_secs(1);
    const MOST: Duration = Duration::from_secs(16);
    /// After so long without one, all are forgotten.
    const FORGOTTEN: Duration = Duration::from_secs(600);

    pub(super) fn handle_violation(&mut self, now: Instant) {
        if now.since(self.last) >= Self::FORGOTTEN {
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.last = now;
    }

    /// How long the frontend is still to wait.
    pub(super) fn poll_delay(&self, now: Instant) -> Option<Duration> {
        let further = self.count.checked_sub(2)?;
        let penance = Self::FIRST.saturating_mul(1 << further.min(10)).min(Self::MOST);
        let left = penance.saturating_sub(now.since(self.last));
        (left > Duration::ZERO).then_some(left)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant(seconds * 1_000_000_000)
    }

    #[test]
    fn a_budget_comes_back_with_time() {
        let mut budget = Budget::new(3, Duration::from_secs(2));
        for _ in 0..3 {
            assert_eq!(budget.take(at(100)), Ok(()));
        }
        assert_eq!(budget.take(at(101)), Err(Duration::from_secs(1)));
        assert_eq!(budget.take(at(102)), Ok(()));
        assert_eq!(budget.take(at(103)), Err(Duration::from_secs(1)));
        for _ in 0..3 {
            assert_eq!(budget.take(at(10_000)), Ok(()));
        }
        assert_eq!(budget.take(at(10_000)), Err(Duration::from_secs(2)));
    }

    #[test]
    fn lines_left_out_are_counted() {
        let mut lines = Lines::new();
        let written = (0..1000).filter(|_| lines.take(at(5)).is_some()).count();
        assert_eq!(written, 10);
        assert_eq!(lines.take(at(15)), Some(990));
        assert_eq!(lines.take(at(15)), None);
        assert_eq!(lines.take(at(60)), Some(1));
        assert_eq!(lines.take(at(60)), Some(0));
    }

    #[test]
    fn who_breaks_the_protocol_again_waits_longer() {
        let mut violations = Violations::default();
        let mut now = 0;
        for expected in [0, 1, 2, 4, 8, 16, 16, 16] {
            violations.handle_violation(at(now));
            let delay = violations.poll_delay(at(now));
            assert_eq!(delay.unwrap_or_default(), Duration::from_secs(expected));
            now += expected;
            assert_eq!(violations.poll_delay(at(now)), None);
        }
        violations.handle_violation(at(now + 600));
        assert_eq!(violations.poll_delay(at(now + 600)), None, "long ago");
    }
}
