//! The domain's one executor: runs what is ready, delivers events, fires timers, and blocks the vCPU when all wait. Floor 2.
//!
//! Unsafe because blocking is assembly (boot.rs).

use crate::counts::{self, Count};
use crate::local::Local;
use crate::{clock, events, watchdog};
use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::RefCell;
use core::future::{Future, poll_fn};
use core::task::{Poll, Waker};
use split_driver::time::Instant;
use xen_pv_sys::xen::hypercall as number;

mod tasks;
mod timers;

use tasks::TASKS;
pub use tasks::Task;
use timers::{TimerId, Timers};

static TIMERS: Local<RefCell<Timers>> = Local::new(RefCell::new(Timers::new()));

unsafe extern "C" {
    /// Blocks until an event comes (boot.rs).
    fn oxidom_block();
}

/// Adds a task. It runs when the current one next waits. Dropping the handle leaves the task running.
pub fn spawn(future: impl Future<Output = ()> + 'static) -> Task {
    TASKS.spawn(Box::pin(future))
}

impl Task {
    /// Drops the task's future: at once, or at its next wait where it is the caller.
    pub fn cancel(self) {
        TASKS.cancel(self);
    }
    /// Whether the task has returned or was cancelled.
    pub fn is_finished(self) -> bool {
        !TASKS.is_alive(self)
    }
}

/// Runs `future` with all spawned tasks until it returns. Called once, by [`crate::entry!`].
pub fn block_on<F>(future: F) -> F::Output
where
    F: Future + 'static,
    F::Output: 'static,
{
    let output = Rc::new(RefCell::new(None));
    let result = Rc::clone(&output);
    spawn(async move {
        let value = future.await;
        *result.borrow_mut() = Some(value);
    });
    loop {
        round();
        if let Some(value) = output.borrow_mut().take() {
            return value;
        }
    }
}

/// Events, then timers, then every task that is ready by now, once each: whatever a task does, the next round sees to the others.
fn round() {
    watchdog::beat();
    events::deliver();
    let now = clock::now();
    TIMERS.borrow_mut().fire(now);
    clock::expired(now);
    if TASKS.run_ready() > 0 || TASKS.has_ready() {
        return;
    }
    clock::arm(TIMERS.borrow().earliest());
    counts::add(Count::Blocks, 1);
    // boot.rs makes it.
    counts::hypercall::<{ number::SCHED_OP }>();
    // SAFETY: called with upcalls masked, as all of Rust is. An event that came since `deliver` makes Xen return at once.
    unsafe { oxidom_block() };
}

/// Lets every other ready task, and events that have come, go first.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A deadline of a task; withdrawn by `Drop`.
pub(crate) struct Timer {
    deadline: Instant,
    id: Option<TimerId>,
}

impl Timer {
    pub(crate) const fn new(deadline: Instant) -> Self {
        Self { deadline, id: None }
    }

    /// Wakes `waker` at the deadline; instead of the one before.
    pub(crate) fn set(&mut self, waker: &Waker) {
        let mut timers = TIMERS.borrow_mut();
        match self.id {
            Some(id) if timers.replace(id, waker) => {}
            _ => self.id = Some(timers.add(self.deadline, waker)),
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            TIMERS.borrow_mut().remove(id);
        }
    }
}
