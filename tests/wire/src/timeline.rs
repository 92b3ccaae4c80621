//! What the services received, by intervals of time. Pure: time is an argument.

use std::time::{Duration, Instant};

/// Intervals that a timeline has at most; what comes later is not in it.
const MOST: usize = 1 << 20;

/// Bytes of TCP payload that services received, by intervals of one length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// When the first interval began.
    pub since: Instant,
    /// The length of each.
    pub interval: Duration,
    /// Bytes, one entry for each interval.
    pub bytes: Vec<u64>,
}

impl Timeline {
    /// An empty one; an interval has a millisecond at least.
    pub(crate) fn new(since: Instant, interval: Duration) -> Self {
        Self { since, interval: interval.max(Duration::from_millis(1)), bytes: Vec::new() }
    }

    /// Takes in bytes that have come.
    pub(crate) fn handle_bytes(&mut self, bytes: u64, now: Instant) {
        let number = self.number(now);
        if bytes == 0 || number >= MOST {
            return;
        }
        if self.bytes.len() <= number {
            self.bytes.resize(number + 1, 0);
        }
        if let Some(sum) = self.bytes.get_mut(number) {
            *sum = sum.saturating_add(bytes);
        }
    }

    /// The intervals that are over, the silent ones at its end among them.
    pub(crate) fn until(&self, now: Instant) -> Self {
        let mut timeline = self.clone();
        timeline.bytes.resize(self.number(now).min(MOST), 0);
        timeline
    }

    /// The number of the interval that is now.
    fn number(&self, now: Instant) -> usize {
        let number = now.saturating_duration_since(self.since).as_nanos() / self.interval.as_nanos();
        usize::try_from(number).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_in_the_intervals_in_which_they_came() {
        let since = Instant::now();
        let at = |ms| since + Duration::from_millis(ms);
        let mut timeline = Timeline::new(since, Duration::from_millis(10));
        for (bytes, ms) in [(1, 0), (2, 9), (4, 10), (8, 39), (0, 500)] {
            timeline.handle_bytes(bytes, at(ms));
        }
        assert_eq!(timeline.until(at(39)).bytes, [3, 4, 0]);
        assert_eq!(timeline.until(at(65)).bytes, [3, 4, 0, 8, 0, 0]);
        assert_eq!(timeline.until(since).bytes, [0; 0]);
        timeline.handle_bytes(1, since + Duration::from_secs(1 << 40));
        assert_eq!(timeline.bytes.len(), 4);
        assert_eq!(Timeline::new(since, Duration::ZERO).interval, Duration::from_millis(1));
    }
}
