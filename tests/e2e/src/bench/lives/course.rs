//! The course of a transfer around the end of a driver domain's life: its pause, and when it was at full speed again. Pure.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How much of the time before counts as full speed.
const BEFORE: Duration = Duration::from_secs(3);
/// A transfer is at full speed again with this part of the bytes of before, over so long.
const FULL: f64 = 0.8;
const WINDOW: Duration = Duration::from_millis(500);

/// Bytes of a transfer by intervals of one length.
#[derive(Clone, Debug)]
pub(super) struct Course {
    pub(super) interval: Duration,
    pub(super) bytes: Vec<u64>,
    /// The intervals from the command that ended the life until all was done: the pause is the longest that begins in them.
    pub(super) ending: Range<usize>,
}

/// What became of the transfer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Recovery {
    /// The interval with which the pause began.
    pub(super) began: usize,
    /// The longest time without a byte.
    pub(super) pause: Duration,
    /// From its beginning until full speed.
    pub(super) full_speed: Duration,
}

impl Course {
    /// What became of it; none as long as it is not at full speed.
    pub(super) fn recovery(&self) -> Option<Recovery> {
        let window = self.intervals(WINDOW);
        let least = self.full() * FULL * window as f64;
        let (began, length) = self.silence();
        let after = self.bytes.get(began + length..)?;
        let sums = after.windows(window).map(|bytes| bytes.iter().sum::<u64>());
        let slow = sums.take_while(|sum| (*sum as f64) < least).count();
        if slow + window > after.len() {
            return None;
        }
        let time = |intervals: usize| self.interval.saturating_mul(u32::try_from(intervals).unwrap_or(u32::MAX));
        Some(Recovery { began, pause: time(length), full_speed: time(length + slow) })
    }

    /// How long it was watched after the command.
    pub(super) fn after(&self) -> Duration {
        let after = self.bytes.len().saturating_sub(self.ending.start);
        self.interval.saturating_mul(u32::try_from(after).unwrap_or(u32::MAX))
    }

    /// The rates by intervals of `interval`, one of which begins with our interval `from`; what is left at both ends is not drawn.
    pub(super) fn drawn(&self, name: &str, from: usize, interval: Duration) -> Drawn {
        let group = self.intervals(interval);
        let seconds = self.interval.as_secs_f64() * group as f64;
        let mbit = |bytes: &[u64]| bytes.iter().sum::<u64>() as f64 * 8.0 / 1e6 / seconds;
        let (before, after) = self.bytes.split_at(from.min(self.bytes.len()));
        let mut rates: Vec<f64> = before.rchunks_exact(group).map(mbit).collect();
        rates.reverse();
        let before = rates.len();
        rates.extend(after.chunks_exact(group).map(mbit));
        let rates = rates.into_iter().map(|rate| (rate * 10.0).round() / 10.0).collect();
        Drawn { name: name.to_owned(), interval_ms: seconds * 1e3, before, mbit_per_second: rates }
    }

    /// Bytes of an interval at full speed.
    fn full(&self) -> f64 {
        let before = self.bytes.get(..self.ending.start).unwrap_or_default();
        let before = before.get(before.len().saturating_sub(self.intervals(BEFORE))..).unwrap_or_default();
        before.iter().sum::<u64>() as f64 / before.len().max(1) as f64
    }

    /// The first of the longest row of intervals without a byte that begins as the life ends, and their number.
    fn silence(&self) -> (usize, usize) {
        let (mut longest, mut row) = ((self.ending.start, 0), (self.ending.start, 0));
        for (number, bytes) in self.bytes.iter().enumerate().skip(self.ending.start) {
            row = if *bytes == 0 { (row.0, row.1 + 1) } else { (number + 1, 0) };
            if row.0 >= self.ending.end {
                break;
            }
            if row.1 > longest.1 {
                longest = row;
            }
        }
        longest
    }

    fn intervals(&self, time: Duration) -> usize {
        let number = time.as_nanos() / self.interval.as_nanos().max(1);
        usize::try_from(number).unwrap_or(usize::MAX).max(1)
    }
}

/// A course as it is drawn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drawn {
    /// Whose.
    pub name: String,
    /// The length of an interval, in milliseconds.
    pub interval_ms: f64,
    /// Intervals before the pause begins.
    pub before: usize,
    /// The rate in each.
    pub mbit_per_second: Vec<f64>,
}

impl Drawn {
    /// The seconds from the beginning of the pause to the middle of each interval, and the rate.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        let rates = self.mbit_per_second.iter().enumerate();
        rates.map(|(number, rate)| ((number as f64 - self.before as f64 + 0.5) * self.interval_ms / 1e3, *rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of intervals of 100 ms, each a number of them and the bytes in each.
    fn course(rows: &[(usize, u64)], ending: Range<usize>) -> Course {
        let bytes = rows.iter().flat_map(|(count, bytes)| vec![*bytes; *count]).collect();
        Course { interval: Duration::from_millis(100), bytes, ending }
    }

    fn recovery(began: usize, pause: u64, full_speed: u64) -> Option<Recovery> {
        let (pause, full_speed) = (Duration::from_millis(pause), Duration::from_millis(full_speed));
        Some(Recovery { began, pause, full_speed })
    }

    #[test]
    fn a_pause_is_followed_by_full_speed_at_once_or_slowly() {
        assert_eq!(course(&[(40, 10), (2, 0), (20, 10)], 35..41).recovery(), recovery(40, 200, 200));
        assert_eq!(course(&[(40, 10), (2, 0), (10, 3), (20, 9)], 35..41).recovery(), recovery(40, 200, 1200));
        // Slower than before, but by less than a fifth.
        assert_eq!(course(&[(40, 10), (3, 0), (20, 8)], 40..41).recovery(), recovery(40, 300, 300));
        assert_eq!(course(&[(40, 10), (3, 0), (20, 7)], 40..41).recovery(), None);
    }

    #[test]
    fn the_longest_silence_counts_that_begins_as_the_life_ends() {
        let course =
            course(&[(10, 0), (30, 10), (1, 0), (3, 10), (4, 0), (1, 10), (2, 0), (9, 10), (7, 0), (9, 10)], 38..60);
        assert_eq!(course.recovery(), recovery(44, 400, 600));
    }

    #[test]
    fn a_transfer_that_does_not_come_back_has_not_recovered() {
        assert_eq!(course(&[(40, 10), (100, 0)], 38..41).recovery(), None);
        assert_eq!(course(&[(40, 10), (100, 0), (4, 10)], 38..41).recovery(), None);
        assert_eq!(course(&[(40, 10), (100, 0), (5, 10)], 38..41).recovery(), recovery(40, 10_000, 10_000));
        assert_eq!(course(&[], 0..1).recovery(), None);
    }

    #[test]
    fn a_transfer_without_a_pause_is_at_full_speed() {
        assert_eq!(course(&[(60, 10)], 40..41).recovery(), recovery(40, 0, 0));
    }

    #[test]
    fn what_is_drawn_is_cut_at_the_beginning_of_the_pause() {
        let course = course(&[(1, 99), (4, 12_500), (3, 0), (2, 25_000), (1, 7)], 4..6);
        let drawn = course.drawn("a", 5, Duration::from_millis(200));
        assert_eq!((drawn.before, drawn.interval_ms), (2, 200.0));
        assert_eq!(drawn.mbit_per_second, [1.0, 1.0, 0.0, 1.0, 1.0]);
        let points: Vec<(f64, f64)> = drawn.points().collect();
        assert_eq!(points.first(), Some(&(-0.3, 1.0)));
    }
}
