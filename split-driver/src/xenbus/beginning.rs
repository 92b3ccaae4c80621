//! Which devices of the beginning are still to take their first step. Pure. Floor 1.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::task::{Context, Poll, Waker};

use super::DeviceId;

/// The devices that were there when the bus began, until each was served or refused.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    awaited: RefCell<BTreeSet<DeviceId>>,
    /// No more of them will be found.
    complete: Cell<bool>,
    wakers: RefCell<Vec<Waker>>,
}

impl Beginning {
    /// A device was found; one that comes later is none of the beginning.
    pub(super) fn expect(&self, id: DeviceId) {
        if !self.complete.get() {
            self.awaited.borrow_mut().insert(id);
        }
    }

    /// All of them were found.
    pub(super) fn complete(&self) {
        self.complete.set(true);
        self.wake();
    }

    /// A device has taken its first step, or is gone.
    pub(super) fn begun(&self, id: DeviceId) {
        if self.awaited.borrow_mut().remove(&id) {
            self.wake();
        }
    }

    fn wake(&self) {
        if self.is_over() {
            self.wakers.take().into_iter().for_each(Waker::wake);
        }
    }

    /// Whether all have.
    pub(super) fn is_over(&self) -> bool {
        self.complete.get() && self.awaited.borrow().is_empty()
    }

    /// Waits until all have.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if self.is_over() {
            return Poll::Ready(());
        }
        let mut wakers = self.wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}
