//! A clock and an executor for tests: nothing happens unless the test steps. Floor 1.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::poll_fn;
use core::pin::{Pin, pin};
use core::sync::atomic::{AtomicBool, Ordering};
use core::task::{Context, Poll, Waker};

use crate::time::{Duration, Instant, Timer};

#[derive(Debug, Default)]
struct ClockState {
    now: Cell<Instant>,
    next: Cell<u64>,
    sleepers: RefCell<BTreeMap<(Instant, u64), Waker>>,
}

/// A clock that the test moves. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct FakeClock(Rc<ClockState>);

impl FakeClock {
    /// What it shows.
    pub fn now(&self) -> Instant {
        self.0.now.get()
    }

    /// Moves it on and wakes who slept till then.
    pub fn advance(&self, duration: Duration) {
        self.0.now.set(self.now() + duration);
        let mut sleepers = self.0.sleepers.borrow_mut();
        while let Some(entry) = sleepers.first_entry()
            && entry.key().0 <= self.now()
        {
            entry.remove().wake();
        }
    }

    /// How many sleep.
    pub fn sleepers(&self) -> usize {
        self.0.sleepers.borrow().len()
    }
}

struct Sleeper<'a>(&'a ClockState, (Instant, u64));

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.0.sleepers.borrow_mut().remove(&self.1);
    }
}

impl Timer for FakeClock {
    fn now(&self) -> Instant {
        self.0.now.get()
    }

    async fn sleep(&self, duration: Duration) {
        let id = self.0.next.get();
        self.0.next.set(id + 1);
        let key = (self.now() + duration, id);
        let _sleeper = Sleeper(&self.0, key);
        poll_fn(|context| {
            if self.now() >= key.0 {
                return Poll::Ready(());
            }
            let waker = context.waker().clone();
            self.0.sleepers.borrow_mut().insert(key, waker);
            Poll::Pending
        })
        .await;
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Task<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Tasks that run when told to.
#[derive(Default)]
pub struct Tasks<'a> {
    tasks: Vec<(Arc<Flag>, Task<'a>)>,
}

impl<'a> Tasks<'a> {
    /// No tasks.
    pub fn new() -> Self {
        Self { tasks: Vec::new() }
    }

    /// One more.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + 'a) {
        let flag = Arc::new(Flag(AtomicBool::new(true)));
        self.tasks.push((flag, Box::pin(task)));
    }

    /// Polls once each who was woken. How many those were.
    pub fn step(&mut self) -> usize {
        let mut polls = 0;
        self.tasks.retain_mut(|(flag, task)| {
            if !flag.0.swap(false, Ordering::Relaxed) {
                return true;
            }
            polls += 1;
            let waker = Waker::from(flag.clone());
            task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending()
        });
        polls
    }

    /// Polls who was woken until nobody is. How many polls that took.
    ///
    /// # Panics
    /// Where it does not end: some task wakes itself for ever.
    pub fn run_until_stalled(&mut self) -> usize {
        let mut polls = 0;
        loop {
            match self.step() {
                0 => return polls,
                more => polls += more,
            }
            assert!(polls < 1_000_000, "a task wakes itself for ever");
        }
    }

    /// How many have not ended.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether all have ended.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

/// Runs one future that needs nobody else to make progress.
///
/// # Panics
/// Where it waits for somebody.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(flag.clone());
    let mut future = pin!(future);
    loop {
        assert!(flag.0.swap(false, Ordering::Relaxed), "the future waits for somebody");
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
    }
}
