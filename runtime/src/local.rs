//! Globals of a domain that has one thread. Floor 2.
//!
//! Unsafe because `static` asks for `Sync`, and nothing here is ever used from a second thread.

use core::ops::Deref;

/// A global that needs no lock.
pub(crate) struct Local<T>(T);

// SAFETY: the domain brings up one vCPU, and its event upcalls are masked but at the one instruction where the vCPU blocks (boot.rs):
// no code of the domain ever runs concurrently with, or interrupts, other code of the domain. A fault or a panic does not return.
unsafe impl<T> Sync for Local<T> {}

impl<T> Local<T> {
    /// Wraps `value`.
    pub(crate) const fn new(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for Local<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}
