//! Globals of a domain that has one thread. Floor 2.
//!
//! Unsafe because `static` asks for `Sync`, and nothing here is ever used from a second thread.

use core::cell::{Cell, OnceCell, RefCell};
use core::ops::Deref;

/// A global that needs no lock.
pub(crate) struct Local<T: Reentrant>(T);

// SAFETY:
// 1. There is no second thread: one vCPU runs Rust. The other one, where there is one, runs a loop of assembly (watchdog.rs).
// 2. No code interrupts other code and returns to it: event upcalls are masked but at the one instruction where the vCPU blocks (boot.rs).
//    A fault that a probe provokes (trap/probe.rs) returns to the probe's own assembly, which is in the midst of no use of a global.
// 3. A panic, or any other fault, enters Rust in the midst of other uses, which never go on. What it runs (the report, the image's writer of
//    the recovery box) reaches the same globals by shared references, which `Reentrant` says is sound.
unsafe impl<T: Reentrant> Sync for Local<T> {}

/// What stays sound where its shared methods are called in the midst of a call of one of them that never goes on.
///
/// # Safety
/// All that a shared method changes is in a [`Cell`], a [`RefCell`], a [`OnceCell`] or an atomic. No method gives a reference to content that
/// a later call may change or drop, but through the borrow flag of a `RefCell`: a fault leaves the flag set, and a second borrow is refused.
pub(crate) unsafe trait Reentrant {}

// SAFETY: it gives and takes copies.
unsafe impl<T> Reentrant for Cell<T> {}
// SAFETY: each reference to its content is behind the borrow flag.
unsafe impl<T> Reentrant for RefCell<T> {}
// SAFETY: it is set once, from a value that is there already; a reference to its content is given only when that is done.
unsafe impl<T> Reentrant for OnceCell<T> {}
// SAFETY: element by element.
unsafe impl<T: Reentrant, const N: usize> Reentrant for [T; N] {}

impl<T: Reentrant> Local<T> {
    /// Wraps `value`.
    pub(crate) const fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T: Reentrant> Deref for Local<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}
