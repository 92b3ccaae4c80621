//! When an event channel whose events bring no work is let through again. Pure. Floor 1.

use crate::time::{Duration, Instant};

/// Events without work that are taken as chance: the work may have been found before its event was.
const PARDONED: u32 = 4;
/// The longest delay.
const LONGEST: Duration = Duration::from_secs(1);

/// Counts events without work. The delay doubles from 1 ms to 1 s, and work resets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    idle_events: u32,
    until: Option<Instant>,
}

impl Throttle {
    /// No event yet.
    pub const fn new() -> Self {
        Self { idle_events: 0, until: None }
    }

    /// An event was served; `worked` says whether there was anything to do.
    pub fn handle_served(&mut self, worked: bool, now: Instant) {
        if worked {
            *self = Self::new();
            return;
        }
        self.idle_events = self.idle_events.saturating_add(1);
        if let Some(exponent) = self.idle_events.checked_sub(PARDONED + 1) {
            let delay = Duration::from_millis(1_u64.checked_shl(exponent).unwrap_or(u64::MAX));
            self.until = Some(now + delay.min(LONGEST));
        }
    }

    /// Until when the channel stays masked; `None` where it may be unmasked at once.
    pub fn poll_delay(&mut self, now: Instant) -> Option<Instant> {
        if self.until.is_some_and(|until| until <= now) {
            self.until = None;
        }
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delay_doubles_to_a_second_and_work_resets_it() {
        let mut throttle = Throttle::new();
        let now = Instant(0);
        let mut delays = alloc::vec::Vec::new();
        for _ in 0..16 {
            throttle.handle_served(false, now);
            delays.push(throttle.poll_delay(now).map_or(0, |until| until.since(now).as_millis()));
        }
        assert_eq!(delays, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000]);
        assert_eq!(throttle.poll_delay(now + Duration::from_secs(1)), None);
        throttle.handle_served(true, now);
        throttle.handle_served(false, now);
        assert_eq!(throttle.poll_delay(now), None);
    }
}
