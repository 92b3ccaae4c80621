//! Interrupt moderation: how long the device waits between interrupts, by how much each of them brought. Pure. Floor 3.
//!
//! Interrupts are one-shot here, so a busy loop sees few of them in any case; the interval bounds those of a half-busy one.
//! QEMU's e1000e never waits less than 128 us between two interrupts of a vector, whatever it is told (its `E1000E_MIN_XITR`).

use core::time::Duration;

/// The least time between two interrupts of the link and of faults: a link that goes up and down all the time is no load.
pub(super) const OTHER: Duration = Duration::from_millis(1);

/// How busy the device is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Load {
    /// A request and its answer: latency is all.
    #[default]
    Quiet,
    /// Some packets an interrupt.
    Busy,
    /// Whole batches an interrupt.
    Bulk,
}

impl Load {
    /// The least time between two interrupts: some 70,000, 20,000 and 8,000 a second.
    pub(super) const fn interval(self) -> Duration {
        match self {
            Self::Quiet => Duration::from_micros(14),
            Self::Busy => Duration::from_micros(50),
            Self::Bulk => Duration::from_micros(125),
        }
    }
}

/// Follows the load.
#[derive(Debug, Default)]
pub(super) struct Moderation {
    load: Load,
    packets: u32,
}

impl Moderation {
    /// The least time between two interrupts now.
    pub(super) const fn interval(&self) -> Duration {
        self.load.interval()
    }

    /// A packet was received.
    pub(super) const fn count(&mut self) {
        self.packets = self.packets.saturating_add(1);
    }

    /// Packets since the last poll ended.
    pub(super) const fn packets(&self) -> u32 {
        self.packets
    }

    /// A poll ended. The new interval, where it changes: one step at a time, and down later than up, so that it settles.
    pub(super) fn poll_ended(&mut self) -> Option<Duration> {
        let packets = core::mem::take(&mut self.packets);
        let load = match (self.load, packets) {
            (Load::Quiet, 17..) => Load::Busy,
            (Load::Busy, 65..) => Load::Bulk,
            (Load::Bulk, ..32) => Load::Busy,
            (Load::Busy, ..6) => Load::Quiet,
            (load, _) => load,
        };
        let changed = load != self.load;
        self.load = load;
        changed.then(|| load.interval())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(moderation: &mut Moderation, packets: u32) -> Option<Duration> {
        for _ in 0..packets {
            moderation.count();
        }
        moderation.poll_ended()
    }

    #[test]
    fn follows_the_load_one_step_at_a_time() {
        let mut moderation = Moderation::default();
        assert_eq!(poll(&mut moderation, 1), None);
        assert_eq!(poll(&mut moderation, 100), Some(Load::Busy.interval()));
        assert_eq!(poll(&mut moderation, 100), Some(Load::Bulk.interval()));
        assert_eq!(poll(&mut moderation, 40), None, "hysteresis");
        assert_eq!(poll(&mut moderation, 1), Some(Load::Busy.interval()));
        assert_eq!(poll(&mut moderation, 1), Some(Load::Quiet.interval()));
        assert_eq!(poll(&mut moderation, 1), None);
    }
}
