//! Waiting for whichever of two things comes first. Pure. Floor 2.

use core::future::Future;
use core::pin::pin;
pub use futures_util::future::Either;

/// Waits for the first of two futures to be done; the other one is dropped. Where both are ready, `first` goes first.
pub async fn select<A: Future, B: Future>(first: A, second: B) -> Either<A::Output, B::Output> {
    match futures_util::future::select(pin!(first), pin!(second)).await {
        Either::Left((value, _)) => Either::Left(value),
        Either::Right((value, _)) => Either::Right(value),
    }
}
