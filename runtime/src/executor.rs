//! A cooperative single-threaded executor: runs what is ready, then blocks the vCPU until an event or a timer. Floor 2.

use core::future::Future;

/// Adds a task. It runs when the current one next waits. Dropping the handle leaves the task running.
pub fn spawn(future: impl Future<Output = ()> + 'static) -> Task {
    drop(future);
    todo!()
}

/// A spawned task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task(u64);

impl Task {
    /// Drops the task's future at once (at its next wait where it is the caller).
    pub fn cancel(self) {
        todo!()
    }
    /// Whether the task has returned or was cancelled.
    pub fn is_finished(self) -> bool {
        todo!()
    }
}

/// Runs `future` with all spawned tasks until it returns. Called once, by [`crate::entry!`].
pub fn block_on<F: Future>(future: F) -> F::Output {
    drop(future);
    todo!()
}

/// Lets every other ready task, and events that have come, go first.
pub async fn yield_now() {
    todo!()
}
