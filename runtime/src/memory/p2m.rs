//! Which machine frame each of our frames is, and which of them peers and devices may reach. Floor 2.
//!
//! Unsafe because the list is memory that the domain builder filled, found by its address in `start_info`.

use super::layout;
use crate::local::Local;
use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};
use xen_pv_sys::{Mfn, Pfn};

static LIST: Local<Cell<&'static [AtomicU64]>> = Local::new(Cell::new(&[]));
/// A bit for each frame of a `Page`, of `Pages`, or of DMA memory.
static SHARED: Local<Cell<&'static [AtomicU64]>> = Local::new(Cell::new(&[]));

/// Takes over the list that the domain builder made.
///
/// # Safety
/// `count` entries are at `address`, mapped writable, for good, and used through here only.
pub(super) unsafe fn set_list(address: usize, count: usize) {
    // SAFETY: by the caller; u64 and AtomicU64 are laid out alike.
    LIST.set(unsafe { core::slice::from_raw_parts(address as *const AtomicU64, count) });
}

/// Takes a zeroed bitmap for the frames that are shared.
///
/// # Safety
/// `count` zeroed words are at `address`, mapped writable, for good, and used through here only.
pub(super) unsafe fn set_shared(address: usize, count: usize) {
    // SAFETY: by the caller.
    SHARED.set(unsafe { core::slice::from_raw_parts(address as *const AtomicU64, count) });
}

/// Pages that the domain was given, as far as they are used.
pub(crate) fn len() -> usize {
    LIST.get().len()
}

/// The machine frame of a frame of ours; the invalid frame beyond the end.
pub(crate) fn physical_to_machine(frame: Pfn) -> Mfn {
    let entry = usize::try_from(frame.0).ok().and_then(|index| LIST.get().get(index));
    Mfn(entry.map_or(u64::MAX, |entry| entry.load(Ordering::Relaxed)))
}

/// Changes the machine frame of a frame of ours, after `XENMEM_exchange`.
pub(crate) fn set_machine(frame: Pfn, machine: Mfn) {
    if let Some(entry) = LIST.get().get(frame.0 as usize) {
        entry.store(machine.0, Ordering::Relaxed);
    }
}

/// Marks a frame as one that peers and devices may reach, or not any more.
pub(crate) fn set_shared_frame(frame: Pfn, shared: bool) {
    let bit = 1 << (frame.0 % 64);
    if let Some(word) = SHARED.get().get((frame.0 / 64) as usize) {
        let value = word.load(Ordering::Relaxed);
        let value = if shared { value | bit } else { value & !bit };
        word.store(value, Ordering::Relaxed);
    }
}

/// Whether a machine frame is one of ours that peers and devices may reach.
pub(crate) fn is_shared(machine: Mfn) -> bool {
    let Some(frame) = layout::machine_to_physical_checked(machine) else {
        return false;
    };
    physical_to_machine(frame) == machine
        && SHARED
            .get()
            .get((frame.0 / 64) as usize)
            .is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (frame.0 % 64)) != 0)
}
