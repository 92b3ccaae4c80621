//! The heap: `talc`, which takes runs of frames when it is full and gives them back when they are empty. Floor 2.
//!
//! Unsafe because it is the global allocator.

use super::frames;
use crate::layout;
use crate::local::Local;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::Cell;
use core::ptr::null_mut;
use talc::base::binning::DefaultBinning;
use talc::cell::{TalcCell, TalcSyncCell};
use talc::source::GlobalAllocSource;
use xen_pv_sys::PAGE_SIZE;

/// What the heap takes at a time at least.
const BLOCK: usize = 64 * 1024;

/// Frames that the heap holds.
static FRAMES_HELD: Local<Cell<usize>> = Local::new(Cell::new(0));
/// Bytes that the heap gave out.
static BYTES_USED: Local<Cell<usize>> = Local::new(Cell::new(0));
/// When the heap last wanted frames, there were none.
static RAN_OUT: Local<Cell<bool>> = Local::new(Cell::new(false));

/// Failures on demand, in images that are built with `faults` only.
#[cfg(feature = "faults")]
mod faults {
    use crate::local::Local;
    use core::cell::Cell;

    /// Allocations until one fails; 0 for none.
    static FAILS_IN: Local<Cell<u32>> = Local::new(Cell::new(0));

    /// So many allocations succeed, and the next one fails.
    pub fn fail_after(count: u32) {
        FAILS_IN.set(count.saturating_add(1));
    }

    /// Whether this allocation is the one that fails.
    pub(super) fn fails() -> bool {
        let left = FAILS_IN.get();
        FAILS_IN.set(left.saturating_sub(1));
        left == 1
    }
}

#[cfg(feature = "faults")]
pub use faults::fail_after;
#[cfg(feature = "faults")]
use faults::fails;

/// Whether this allocation is to fail.
#[cfg(not(feature = "faults"))]
const fn fails() -> bool {
    false
}

/// Frames as `talc`'s source.
#[derive(Debug)]
struct Frames;

// SAFETY: each allocation is a run of frames of its own, page-aligned, at least as long as asked for; it never uses the heap.
unsafe impl GlobalAlloc for Frames {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let count = layout.size().div_ceil(PAGE_SIZE);
        if layout.align() > PAGE_SIZE {
            return null_mut();
        }
        match frames::ROOM.allocate(count).or_else(|_| frames::allocate(count)) {
            Ok(first) => {
                RAN_OUT.set(false);
                FRAMES_HELD.set(FRAMES_HELD.get() + count);
                layout::address_of(first) as *mut u8
            }
            Err(_) => {
                RAN_OUT.set(true);
                null_mut()
            }
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        let count = layout.size().div_ceil(PAGE_SIZE);
        FRAMES_HELD.set(FRAMES_HELD.get() - count);
        let first = layout::frame_at(pointer as usize);
        // SAFETY: by the caller, what `alloc` gave out, of one or the other.
        unsafe {
            if layout::room().contains(&(pointer as usize)) {
                frames::ROOM.free(first, count);
            } else {
                frames::free(first, count);
            }
        }
    }
}

type Talc = TalcSyncCell<GlobalAllocSource<Frames>, DefaultBinning>;

/// The heap, counted.
struct Heap(Talc);

// SAFETY: `talc`'s allocator, with counting beside it.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // What no domain can have is refused here, so that no sum in the allocator overflows.
        if layout.size() > usize::MAX / 4 || fails() {
            return null_mut();
        }
        // SAFETY: by the caller.
        let pointer = unsafe { self.0.alloc(layout) };
        if !pointer.is_null() {
            BYTES_USED.set(BYTES_USED.get() + layout.size());
        }
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES_USED.set(BYTES_USED.get() - layout.size());
        // SAFETY: by the caller.
        unsafe { self.0.dealloc(pointer, layout) };
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > usize::MAX / 4 {
            return null_mut();
        }
        // SAFETY: by the caller.
        let moved = unsafe { self.0.realloc(pointer, layout, size) };
        if !moved.is_null() {
            BYTES_USED.set(BYTES_USED.get() - layout.size() + size);
        }
        moved
    }
}

// SAFETY: one thread, and no interrupt handler (local.rs).
#[cfg_attr(not(test), global_allocator)]
#[cfg_attr(test, expect(dead_code, reason = "a host test has the host's heap"))]
static HEAP: Heap =
    Heap(unsafe { TalcSyncCell::new(TalcCell::new(GlobalAllocSource::with_block_size(Frames, BLOCK))) });

/// Gives the heap the room for a larger image.
pub(super) fn initialize() {
    let room = layout::room();
    // SAFETY: memory of the image that nothing names, mapped writable; whole pages; called once in a life.
    unsafe { frames::ROOM.free(layout::frame_at(room.start), room.len() / PAGE_SIZE) };
}

/// What the heap can have of it yet.
pub(super) fn room_free() -> usize {
    frames::ROOM.free_count()
}

/// Whether memory has run out: when the heap last wanted more, there was none.
pub fn has_run_out() -> bool {
    RAN_OUT.get()
}

/// Frames that the heap holds.
pub(super) fn frames_held() -> usize {
    FRAMES_HELD.get()
}

/// Bytes that the heap gave out.
pub(super) fn bytes_used() -> usize {
    BYTES_USED.get()
}
