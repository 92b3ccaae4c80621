//! Tasks and their wakers. Floor 2.
//!
//! Unsafe because a waker is made from a raw pointer; ours is a number, never followed.

use crate::local::{Local, Reentrant};
use crate::watchdog;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::ptr::without_provenance;
use core::task::{Context, RawWaker, RawWakerVTable, Waker};

type BoxedFuture = Pin<Box<dyn Future<Output = ()>>>;

/// A spawned task: an index, and a generation that tells it from those that had the index before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Task {
    index: u32,
    generation: u32,
}

/// A place for a task.
///
/// ```text
/// free --spawn--> queued --run--> running --pending--> waiting --wake--> queued
///   ^                                |  \--wake while running----------> queued
///   +--------- ready, cancelled -----+
/// ```
struct Slot {
    generation: u32,
    alive: bool,
    queued: bool,
    /// Out while it runs.
    future: Option<BoxedFuture>,
}

/// The domain's.
pub(super) static TASKS: Local<Tasks> = Local::new(Tasks::new());

/// All tasks, and those that are ready.
pub(super) struct Tasks {
    slots: RefCell<Vec<Slot>>,
    free: RefCell<Vec<u32>>,
    /// It has room for all slots, and each is in it once at most: waking takes no memory.
    ready: RefCell<VecDeque<u32>>,
}

// SAFETY: three `RefCell`s; no method gives a reference to what is in one.
unsafe impl Reentrant for Tasks {}

impl Tasks {
    pub(super) const fn new() -> Self {
        Self { slots: RefCell::new(Vec::new()), free: RefCell::new(Vec::new()), ready: RefCell::new(VecDeque::new()) }
    }

    pub(super) fn spawn(&self, future: BoxedFuture) -> Task {
        let mut slots = self.slots.borrow_mut();
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| {
            slots.push(Slot { generation: 0, alive: false, queued: false, future: None });
            slots.len() as u32 - 1
        });
        let mut ready = self.ready.borrow_mut();
        let additional = slots.len().saturating_sub(ready.len());
        ready.reserve(additional);
        let mut generation = 0;
        if let Some(slot) = slots.get_mut(index as usize) {
            slot.alive = true;
            slot.future = Some(future);
            if !slot.queued {
                slot.queued = true;
                ready.push_back(index);
            }
            generation = slot.generation;
        }
        Task { index, generation }
    }

    fn wake(&self, task: Task) {
        if let Some(slot) = self.slots.borrow_mut().get_mut(task.index as usize)
            && slot.alive
            && slot.generation == task.generation
            && !slot.queued
        {
            slot.queued = true;
            self.ready.borrow_mut().push_back(task.index);
        }
    }

    pub(super) fn is_alive(&self, task: Task) -> bool {
        self.slots
            .borrow()
            .get(task.index as usize)
            .is_some_and(|slot| slot.alive && slot.generation == task.generation)
    }

    pub(super) fn cancel(&self, task: Task) {
        if self.is_alive(task) {
            drop(self.retire(task.index));
        }
    }

    /// Frees a slot; the future is given out, so that it is dropped while nothing is borrowed.
    fn retire(&self, index: u32) -> Option<BoxedFuture> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(index as usize)?;
        slot.alive = false;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.borrow_mut().push(index);
        slot.future.take()
    }

    pub(super) fn has_ready(&self) -> bool {
        !self.ready.borrow().is_empty()
    }

    /// Runs each task that is ready now, once; how many there were.
    pub(super) fn run_ready(&self) -> usize {
        let count = self.ready.borrow().len();
        for _ in 0..count {
            let Some(index) = self.ready.borrow_mut().pop_front() else {
                break;
            };
            // However many there are: the step of one task is what may take too long.
            watchdog::beat();
            self.run(index);
        }
        count
    }

    fn run(&self, index: u32) {
        let (task, future) = {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.get_mut(index as usize) else {
                return;
            };
            slot.queued = false;
            let generation = slot.generation;
            (Task { index, generation }, slot.future.take())
        };
        let Some(mut future) = future else {
            return;
        };
        let waker = waker(task);
        let done = future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        if !self.is_alive(task) {
            return;
        }
        if done {
            self.retire(index);
        } else if let Some(slot) = self.slots.borrow_mut().get_mut(index as usize) {
            slot.future = Some(future);
        }
    }
}

/// A waker that is the task's number: cloning and dropping are free.
fn waker(task: Task) -> Waker {
    let number = ((task.generation as usize) << 32) | task.index as usize;
    // SAFETY: the functions take the pointer for a number; they are safe to call from anywhere, there being one thread.
    unsafe { Waker::from_raw(raw(without_provenance(number))) }
}

fn raw(number: *const ()) -> RawWaker {
    RawWaker::new(number, &VTABLE)
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(raw, wake_number, wake_number, |_| ());

fn wake_number(number: *const ()) {
    let number = number.addr();
    TASKS.wake(Task { index: (number & 0xffff_ffff) as u32, generation: (number >> 32) as u32 });
}
