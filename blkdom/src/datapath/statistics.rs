//! What each vbd and each unit counted. Pure. Floor 3.

use crate::disk::IoError;

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

impl Statistics {
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
    }
}
