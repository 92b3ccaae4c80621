//! Something is done after some number of hypercalls, for tests: an image that is built without the feature `faults` has none of it. Floor 2.

use crate::local::Local;
use core::cell::Cell;

/// Hypercalls until then; 0 for nothing to be done.
static LEFT: Local<Cell<u32>> = Local::new(Cell::new(0));
static ACTION: Local<Cell<fn()>> = Local::new(Cell::new(|| ()));

/// Has `action` done before the `count`th hypercall from now, once.
pub(crate) fn arm(count: u32, action: fn()) {
    ACTION.set(action);
    LEFT.set(count);
}

/// A hypercall is about to be made.
pub(crate) fn reach() {
    match LEFT.get() {
        0 => {}
        1 => {
            LEFT.set(0);
            ACTION.get()();
        }
        left => LEFT.set(left - 1),
    }
}
