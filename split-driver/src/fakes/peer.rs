//! The peer within a step of ours: it may act before any of our looks at shared memory, and between two grant copies. Floor 1.
//!
//! What is fetched twice may differ from one time to the next. [`FakeXen::set_peer`](super::FakeXen::set_peer) lets a test write memory
//! between any two looks of the code under test, [`Fetches`] counts what that code fetches.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;

use super::region::GuestMemory;
use crate::atomic::AtomicU32;
use crate::memory::SharedMemory;

/// What the code under test is about to do.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// It loads these words of shared memory.
    Look(&'a [AtomicU32]),
    /// The hypervisor copies between pages for it.
    Copy,
}

/// What the peer does before each step.
pub type Peer = Box<dyn FnMut(Step<'_>)>;

/// The peer of a hypervisor's rings, if any.
#[derive(Default)]
pub(super) struct Place(RefCell<Option<Peer>>);

impl fmt::Debug for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.borrow().is_some() { "a peer" } else { "no peer" })
    }
}

impl Place {
    pub(super) fn set(&self, peer: Option<Peer>) {
        self.0.replace(peer);
    }

    /// Lets the peer act. What it does itself is no step.
    pub(super) fn before(&self, step: Step<'_>) {
        let taken = self.0.borrow_mut().take();
        if let Some(mut peer) = taken {
            peer(step);
            self.set(Some(peer));
        }
    }
}

/// Counts how often each word of a memory is fetched.
#[derive(Clone, Debug)]
pub struct Fetches {
    memory: GuestMemory,
    counts: Rc<RefCell<Vec<u32>>>,
}

impl Fetches {
    /// Of this memory; nothing is counted yet.
    pub fn new(memory: &GuestMemory) -> Self {
        let counts = vec![0; memory.words().len()];
        Self { memory: memory.clone(), counts: Rc::new(RefCell::new(counts)) }
    }

    /// Counts the step, where it is a look at this memory.
    pub fn note(&self, step: Step<'_>) {
        if let Step::Look(words) = step
            && let Some(place) = self.memory.place(words)
        {
            let mut counts = self.counts.borrow_mut();
            counts.iter_mut().skip(place).take(words.len()).for_each(|count| *count += 1);
        }
    }

    /// The first word from `from` on that was fetched more than once since it was last asked.
    pub fn take_repeated(&self, from: usize) -> Option<usize> {
        let mut counts = self.counts.borrow_mut();
        let found = counts.iter().skip(from).position(|count| *count > 1).map(|place| place + from);
        counts.fill(0);
        found
    }
}
