//! The atomics of shared memory: `core`'s, or loom's where it explores memory orders. Pure. Floor 1.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicU32, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, Ordering, fence};
