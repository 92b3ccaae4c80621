//! The monotonic clock of the PV time page, and timers of the executor. Floor 2.

use core::future::Future;
pub use split_driver::time::{Duration, Instant};

/// The time since the domain's first instruction.
pub fn now() -> Instant {
    todo!()
}

/// Waits until `deadline`.
pub async fn sleep_until(deadline: Instant) {
    let _ = deadline;
    todo!()
}

/// Waits for `duration`.
pub async fn sleep(duration: Duration) {
    sleep_until(now() + duration).await;
}

/// The time was up before the future was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

/// Waits for `future`, but no longer than until `deadline`.
///
/// # Errors
/// [`Elapsed`], with the future dropped.
pub async fn timeout_at<F: Future>(deadline: Instant, future: F) -> Result<F::Output, Elapsed> {
    let _ = (deadline, future);
    todo!()
}
/// Waits for `future`, but no longer than `duration`.
///
/// # Errors
/// [`Elapsed`], with the future dropped.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(now() + duration, future).await
}
