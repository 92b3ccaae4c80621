//! Page frames: a buddy system over all memory that the boot left free. Floor 2.
//!
//! Unsafe because giving out a frame twice would break everything. The free lists live in the free frames themselves.

use super::layout;
use crate::local::Local;
use buddy_system_allocator::Heap;
use core::alloc::Layout;
use core::cell::RefCell;
use core::ptr::NonNull;
use split_driver::memory::OutOfMemory;
use xen_pv_sys::{PAGE_SIZE, Pfn};

/// All memory but the image and its room.
static FRAMES: Pool = Pool::new();
/// The room for a larger image. What lives there does not outlive a restart, so the heap alone has it.
pub(super) static ROOM: Pool = Pool::new();

/// Frames of a part of memory. Blocks of up to 512 GiB.
pub(super) struct Pool(Local<RefCell<Heap<40>>>);

impl Pool {
    const fn new() -> Self {
        Self(Local::new(RefCell::new(Heap::new())))
    }

    /// Adds memory.
    ///
    /// # Safety
    /// The pages are mapped writable, unused, and never added twice.
    pub(super) unsafe fn add(&self, first: Pfn, end: Pfn) {
        if first.0 < end.0 {
            // SAFETY: by the caller.
            unsafe {
                self.0.borrow_mut().add_to_heap(layout::address_of(first), layout::address_of(end));
            }
        }
    }

    /// `count` frames, mapped one after the other (in machine memory they are not); with what they last held.
    pub(super) fn allocate(&self, count: usize) -> Result<Pfn, OutOfMemory> {
        let total = self.0.borrow().stats_total_bytes() / PAGE_SIZE;
        if count == 0 || count > total {
            return Err(OutOfMemory);
        }
        let block = count.next_power_of_two();
        let layout = block_layout(block)?;
        let address = self.0.borrow_mut().alloc(layout).map_err(|()| OutOfMemory)?;
        let first = layout::frame_at(address.as_ptr() as usize);
        // SAFETY: the tail of the block that was just allocated, which nobody has seen yet.
        unsafe { self.free(Pfn(first.0 + count as u64), block - count) };
        Ok(first)
    }

    /// Gives frames back, in any portions.
    ///
    /// # Safety
    /// They came from [`Pool::allocate`], nobody uses them, and they are mapped writable.
    pub(super) unsafe fn free(&self, first: Pfn, count: usize) {
        let mut address = layout::address_of(first);
        let end = address + count * PAGE_SIZE;
        while address < end {
            // The largest block that is aligned and fits: what the buddy system could have given out here.
            let aligned = 1 << address.trailing_zeros();
            let fits = 1 << (usize::BITS - 1 - (end - address).leading_zeros());
            let bytes = usize::min(aligned, fits);
            if let (Some(pointer), Ok(layout)) = (NonNull::new(address as *mut u8), block_layout(bytes / PAGE_SIZE)) {
                // SAFETY: by the caller. The buddy system keeps no record of the blocks it gave out, so a block may come back in parts.
                unsafe { self.0.borrow_mut().dealloc(pointer, layout) };
            }
            address += bytes;
        }
    }

    /// Frames that are free.
    pub(super) fn free_count(&self) -> usize {
        let frames = self.0.borrow();
        (frames.stats_total_bytes() - frames.stats_alloc_actual()) / PAGE_SIZE
    }
}

/// [`Pool::add`] to all memory.
///
/// # Safety
/// As there.
pub(crate) unsafe fn add(first: Pfn, end: Pfn) {
    // SAFETY: by the caller.
    unsafe { FRAMES.add(first, end) };
}

/// [`Pool::allocate`] of all memory.
pub(crate) fn allocate(count: usize) -> Result<Pfn, OutOfMemory> {
    FRAMES.allocate(count)
}

/// [`Pool::free`] to all memory.
///
/// # Safety
/// As there.
pub(crate) unsafe fn free(first: Pfn, count: usize) {
    // SAFETY: by the caller.
    unsafe { FRAMES.free(first, count) };
}

/// Frames that are free.
pub(crate) fn free_count() -> usize {
    FRAMES.free_count()
}

fn block_layout(count: usize) -> Result<Layout, OutOfMemory> {
    let bytes = count.checked_mul(PAGE_SIZE).ok_or(OutOfMemory)?;
    Layout::from_size_align(bytes, PAGE_SIZE).map_err(|_| OutOfMemory)
}
