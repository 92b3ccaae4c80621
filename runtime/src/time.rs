//! The clock, and waiting for a time. Safe code. Floor 2.

pub(crate) use crate::clock::nanoseconds;
pub use crate::clock::{now, running};
use crate::executor::Timer;
use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;
pub use split_driver::time::{Duration, Instant};

/// Waits until `deadline`.
pub async fn sleep_until(deadline: Instant) {
    let mut timer = Timer::new(deadline);
    poll_fn(|context| {
        if now() >= deadline {
            Poll::Ready(())
        } else {
            timer.set(context.waker());
            Poll::Pending
        }
    })
    .await;
}

/// Waits for `duration`.
pub async fn sleep(duration: Duration) {
    sleep_until(now() + duration).await;
}

/// The clock as libraries sleep on it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock;

impl split_driver::time::Timer for Clock {
    fn now(&self) -> Instant {
        now()
    }

    async fn sleep(&self, duration: Duration) {
        sleep(duration).await;
    }
}

/// The time was up before the future was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl core::fmt::Display for Elapsed {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("the time is up")
    }
}

impl core::error::Error for Elapsed {}

/// Waits for `future`, but no longer than until `deadline`.
///
/// # Errors
/// [`Elapsed`], with the future dropped.
pub async fn timeout_at<F: Future>(deadline: Instant, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = pin!(sleep_until(deadline));
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => sleep.as_mut().poll(context).map(|()| Err(Elapsed)),
    })
    .await
}

/// Waits for `future`, but no longer than `duration`.
///
/// # Errors
/// [`Elapsed`], with the future dropped.
pub async fn timeout<F: Future>(duration: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(now() + duration, future).await
}
