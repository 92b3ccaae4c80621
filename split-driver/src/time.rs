//! Time as an argument: the libraries never read a clock. Pure. Floor 1.

use core::ops::Add;
pub use core::time::Duration;

/// Nanoseconds since the domain's first instruction, monotonic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(pub u64);

impl Instant {
    /// The time since `earlier`; zero where that is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// A clock that can be slept on, for the control plane.
#[expect(async_fn_in_trait, reason = "one thread: no future needs to be Send")]
pub trait Timer {
    /// What it shows.
    fn now(&self) -> Instant;
    /// Returns after `duration`, or somewhat later.
    async fn sleep(&self, duration: Duration);
}
