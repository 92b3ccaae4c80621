//! What each vbd and each unit counted. Pure. Floor 3.

use crate::disk::IoError;
use alloc::vec::Vec;

/// Why a request, or a command, failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Failure {
    /// The device or its medium reported an error.
    Device,
    /// The device did not answer in time.
    TimedOut,
    /// The device, or this disk, cannot do that.
    Unsupported,
    /// The unit or its controller is gone.
    Gone,
    /// The request leaves the disk, is not whole logical blocks, writes what may only be read, or makes no sense.
    Refused,
    /// A grant could not be used.
    Grant,
    /// A flush failed for good, or had failed so before: what was written may be lost, and nothing more is written.
    Undurable,
}

impl Failure {
    /// How many there are.
    pub const COUNT: usize = 7;
    /// All, with the names they have under `data/` and on the console.
    pub const ALL: [(Self, &'static str); Self::COUNT] = [
        (Self::Device, "device"),
        (Self::TimedOut, "timed-out"),
        (Self::Unsupported, "unsupported"),
        (Self::Gone, "gone"),
        (Self::Refused, "refused"),
        (Self::Grant, "grant"),
        (Self::Undurable, "undurable"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::ALL.get(self as usize).map_or("", |(_, name)| name)
    }
}

impl From<IoError> for Failure {
    fn from(error: IoError) -> Self {
        match error {
            IoError::Device { .. } => Self::Device,
            IoError::TimedOut => Self::TimedOut,
            IoError::Unsupported => Self::Unsupported,
            IoError::Gone => Self::Gone,
        }
    }
}

/// A vbd's requests, or a unit's commands, that are answered; and what went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Reads that succeeded.
    pub reads: u64,
    /// Their sectors.
    pub sectors_read: u64,
    /// Writes that succeeded, barriers among them.
    pub writes: u64,
    /// Their sectors.
    pub sectors_written: u64,
    /// Flushes that succeeded.
    pub flushes: u64,
    /// Discards that succeeded.
    pub discards: u64,
    /// Their sectors.
    pub sectors_discarded: u64,
    /// Failures, by kind.
    pub failures: [u64; Failure::COUNT],
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    Read,
    Write,
    Flush,
    Discard,
}

impl core::ops::AddAssign for Statistics {
    fn add_assign(&mut self, other: Self) {
        let mut more = other.to_words().into_iter();
        self.each(|count| *count = count.saturating_add(more.next().unwrap_or(0)));
    }
}

impl Statistics {
    /// Does something with each counter, in an order that stays.
    fn each(&mut self, mut action: impl FnMut(&mut u64)) {
        let Self { reads, sectors_read, writes, sectors_written, flushes, discards, sectors_discarded, failures } =
            self;
        let counts = [reads, sectors_read, writes, sectors_written, flushes, discards, sectors_discarded];
        counts.into_iter().chain(failures).for_each(&mut action);
    }

    /// All counters: for another life, and other versions, which may have more of them.
    pub fn to_words(mut self) -> Vec<u64> {
        let mut words = Vec::new();
        self.each(|count| words.push(*count));
        words
    }

    /// What [`Statistics::to_words`] gave, as far as it is known here.
    pub fn from_words(words: &[u64]) -> Self {
        let (mut statistics, mut words) = (Self::default(), words.iter());
        statistics.each(|count| *count = words.next().copied().unwrap_or(0));
        statistics
    }

    /// Counts a success.
    pub(crate) fn count(&mut self, what: Counted, sectors: u64) {
        let nothing = &mut 0;
        let (count, total) = match what {
            Counted::Read => (&mut self.reads, &mut self.sectors_read),
            Counted::Write => (&mut self.writes, &mut self.sectors_written),
            Counted::Flush => (&mut self.flushes, nothing),
            Counted::Discard => (&mut self.discards, &mut self.sectors_discarded),
        };
        *count += 1;
        *total = total.saturating_add(sectors);
    }

    /// Counts a failure.
    pub(crate) fn fail(&mut self, failure: Failure) {
        if let Some(count) = self.failures.get_mut(failure as usize) {
            *count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_places_and_names() {
        let mut statistics = Statistics::default();
        for (place, (failure, name)) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure as usize, place);
            assert!(!name.is_empty() && failure.name() == name);
            statistics.fail(failure);
        }
        assert_eq!(statistics.failures, [1; Failure::COUNT]);
        statistics.count(Counted::Discard, u64::MAX);
        statistics.count(Counted::Discard, 8);
        assert_eq!((statistics.discards, statistics.sectors_discarded), (2, u64::MAX));
        statistics.count(Counted::Read, 5);
        assert_eq!(Statistics::from_words(&statistics.to_words()), statistics);
        let mut sum = Statistics { writes: 4, reads: 1, ..statistics };
        sum += statistics;
        assert_eq!((sum.reads, sum.sectors_read, sum.writes, sum.discards), (2, 10, 4, 4));
        assert_eq!((sum.sectors_discarded, sum.failures), (u64::MAX, [2; Failure::COUNT]));
    }
}
