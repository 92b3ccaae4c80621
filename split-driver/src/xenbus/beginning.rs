//! Which devices of the beginning are still to take their first step. Pure. Floor 1.

use alloc::collections::BTreeSet;
use core::cell::{Cell, RefCell};
use core::task::{Context, Poll, Waker};

use super::DeviceId;

/// The devices that were there when the bus began, until each was served or refused.
#[derive(Debug, Default)]
pub(super) struct Beginning {
    awaited: RefCell<BTreeSet<DeviceId>>,
    /// No more of them will be found.
    complete: Cell<bool>,
    waker: RefCell<Option<Waker>>,
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
        let waker = self.waker.borrow_mut().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until all have.
    pub(super) fn poll(&self, context: &Context<'_>) -> Poll<()> {
        if self.complete.get() && self.awaited.borrow().is_empty() {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(context.waker().clone());
        Poll::Pending
    }
}
