//! How long a signal to a frontend or a NIC waits for another that it can be shared with. Pure. Floor 3.

use split_driver::time::{Duration, Instant};

/// How long a signal waits at most, but for the round that is under way then.
const HOLD: Duration = Duration::from_micros(100);

/// Whether the last signal was so short a time ago that the next one may wait.
pub(super) fn is_recent(last: Option<Instant>, now: Instant) -> bool {
    last.is_some_and(|last| now.since(last) < HOLD)
}
