//! The domain's memory: page tables, frames, heap, pages shared with peers and devices. Floor 2.
//!
//! Unsafe because the boot hands over raw addresses.

mod area;
mod boot;
pub(crate) mod device_ledger;
pub(crate) mod frames;
mod heap;
mod kept;
mod ledger;
mod p2m;
mod page;
mod resume;
mod runs;
pub(crate) mod tables;

use crate::layout;
use crate::record::record;
use xen_pv_sys::start_info::StartInfo;
use xen_pv_sys::{Mfn, Pfn};

pub(crate) use area::{Area, Inherited, inherited_mappings, map_frames};
pub use area::{Caching, Mapping};
#[cfg(feature = "faults")]
pub use heap::fail_after;
pub use heap::has_run_out;
pub use kept::KeptFrame;
pub(crate) use p2m::{is_shared, physical_to_machine, set_device_frame, set_machine};
pub use page::{Page, Pages};
pub(crate) use resume::{
    are_withheld, do_not_withhold, granted_page, interrupt_ends, lose_device_frames, release_device_frames,
    release_withheld, withhold,
};

/// Makes the address space, the frame allocator and the heap.
///
/// # Safety
/// Called once in a life, at its beginning, with what Xen handed over; `granted` are the machine frames of the grants that an earlier life made
/// and that have not ended.
pub(crate) unsafe fn initialize(
    start_info: &'static StartInfo,
    boot_stack: usize,
    granted: impl Iterator<Item = Mfn> + Clone,
) {
    // SAFETY: by the caller.
    let tables = unsafe {
        if record().is_again() {
            resume::initialize(start_info, boot_stack, granted)
        } else {
            boot::initialize(start_info, boot_stack)
        }
    };
    match tables {
        Ok(tables) => tables::set_current(tables),
        Err(error) => panic!("cannot make the address space: {error}"),
    }
    heap::initialize();
    if record().is_again() {
        device_ledger::resume();
        if let Err(error) = area::resume() {
            panic!("cannot take over the mapping area: {error}");
        }
    }
}

/// The addresses of all memory behind the image.
pub(crate) fn beyond_image() -> core::ops::Range<usize> {
    layout::keep() + layout::KEEP_SIZE..layout::address_of(Pfn(p2m::len() as u64))
}

/// What memory is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Pages that the domain was given.
    pub total_pages: usize,
    /// Frames in the frame allocator, free.
    pub free_frames: usize,
    /// Frames that the heap alone can have, free: the room for a larger image.
    pub room_frames: usize,
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
        room_frames: heap::room_free(),
        heap_frames: heap::frames_held(),
        heap_bytes: heap::bytes_used(),
        mapped_pages: area::used(),
    }
}

/// Where the stack is; the page below it is not mapped.
pub fn stack() -> core::ops::Range<usize> {
    layout::stack()
}
