//! Waiting for whichever of two things comes first. Pure. Floor 2.

use core::future::{Future, poll_fn};
use core::pin::pin;
use core::task::Poll;

/// Which of two futures was done first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first one.
    First(A),
    /// The second one.
    Second(B),
}

/// Waits for the first of two futures to be done; the other one is dropped. Where both are ready, `first` goes first.
pub async fn select<A: Future, B: Future>(first: A, second: B) -> Either<A::Output, B::Output> {
    let mut first = pin!(first);
    let mut second = pin!(second);
    poll_fn(|context| {
        if let Poll::Ready(value) = first.as_mut().poll(context) {
            return Poll::Ready(Either::First(value));
        }
        match second.as_mut().poll(context) {
            Poll::Ready(value) => Poll::Ready(Either::Second(value)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
