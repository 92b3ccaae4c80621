//! The domain's memory: page tables, frames, heap, pages shared with peers and devices. Floor 2.
//!
//! Unsafe because the boot hands over raw addresses.

mod area;
mod boot;
pub(crate) mod frames;
mod heap;
pub(crate) mod layout;
mod p2m;
mod page;
pub(crate) mod tables;

use crate::local::Local;
use core::cell::Cell;
use xen_pv_sys::start_info::StartInfo;

pub(crate) use area::{Area, map_frames};
pub use area::{Caching, Mapping};
pub(crate) use p2m::{is_shared, physical_to_machine, set_machine, set_shared_frame};
pub use page::{Page, Pages};
use tables::Tables;

static TABLES: Local<Cell<Option<Tables>>> = Local::new(Cell::new(None));

/// Makes the address space, the frame allocator and the heap.
///
/// # Safety
/// Called once, at boot, with what Xen handed over.
pub(crate) unsafe fn initialize(start_info: &'static StartInfo, boot_stack: usize) {
    // SAFETY: by the caller.
    match unsafe { boot::initialize(start_info, boot_stack) } {
        Ok(tables) => TABLES.set(Some(tables)),
        Err(error) => panic!("cannot make the address space: {error:?}"),
    }
}

/// The page tables that the domain runs on.
pub(crate) fn tables() -> Tables {
    match TABLES.get() {
        Some(tables) => tables,
        None => panic!("memory is used before it is set up"),
    }
}

/// What memory is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Pages that the domain was given.
    pub total_pages: usize,
    /// Frames in the frame allocator, free.
    pub free_frames: usize,
    /// Frames that the heap holds now.
    pub heap_frames: usize,
    /// Bytes of the heap in use.
    pub heap_bytes: usize,
    /// Pages of the mapping area (grants, registers) in use.
    pub mapped_pages: usize,
}

/// The usage now; for statistics and tests of leaks.
pub fn usage() -> Usage {
    Usage {
        total_pages: p2m::len(),
        free_frames: frames::free_count(),
        heap_frames: heap::frames_held(),
        heap_bytes: heap::bytes_used(),
        mapped_pages: area::used(),
    }
}

/// Where the stack is; the page below it is not mapped.
pub fn stack() -> core::ops::Range<usize> {
    layout::stack()
}
