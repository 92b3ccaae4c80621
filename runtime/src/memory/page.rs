//! Pages of ours that peers and devices may read and write. Floor 2.
//!
//! Unsafe because the memory changes under us: it is reached as atomics, or by a copy that the compiler cannot see into.

use super::{frames, p2m};
use crate::layout;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU32;
use split_driver::memory::{OutOfMemory, PageArray, SharedMemory};
use xen_pv_sys::{Mfn, PAGE_SIZE, Pfn};

unsafe extern "C" {
    /// `memmove` under a name that the compiler knows nothing of (intrinsics.rs).
    fn oxidom_copy_shared(destination: *mut u8, source: *const u8, count: usize);
}

/// One page of ours that a peer or a device may write; freed by `Drop`.
#[derive(Debug)]
pub struct Page {
    frame: Pfn,
}

impl Page {
    /// A zeroed page.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn new() -> Result<Self, OutOfMemory> {
        let page = Self::take()?;
        // SAFETY: just allocated.
        unsafe { core::ptr::write_bytes(page.address() as *mut u8, 0, PAGE_SIZE) };
        Ok(page)
    }

    /// A page with what it last held.
    fn take() -> Result<Self, OutOfMemory> {
        let frame = frames::allocate(1)?;
        p2m::set_shared_frame(frame, true);
        Ok(Self { frame })
    }

    /// The page of a grant that an earlier life made.
    ///
    /// # Safety
    /// Allocated, marked as shared, and no other `Page`'s.
    pub(super) unsafe fn adopt(frame: Pfn) -> Self {
        Self { frame }
    }
    /// Its machine frame.
    pub fn mfn(&self) -> Mfn {
        p2m::physical_to_machine(self.frame)
    }
    /// Its pseudo-physical frame.
    pub fn pfn(&self) -> Pfn {
        self.frame
    }

    fn address(&self) -> usize {
        layout::address_of(self.frame)
    }

    /// Copies `destination.len()` bytes out of the page at `offset`. False, and nothing read, where it would leave the page.
    pub fn read(&self, offset: usize, destination: &mut [u8]) -> bool {
        if !fits(offset, destination.len()) {
            return false;
        }
        // SAFETY: within the page; the destination is not this page, which nobody has a reference to bytes of.
        unsafe {
            oxidom_copy_shared(destination.as_mut_ptr(), (self.address() + offset) as *const u8, destination.len());
        }
        true
    }

    /// Copies `source` into the page at `offset`. False, and nothing written, where it would leave the page.
    pub fn write(&self, offset: usize, source: &[u8]) -> bool {
        if !fits(offset, source.len()) {
            return false;
        }
        // SAFETY: as in `read`.
        unsafe {
            oxidom_copy_shared((self.address() + offset) as *mut u8, source.as_ptr(), source.len());
        }
        true
    }
}

fn fits(offset: usize, count: usize) -> bool {
    offset <= PAGE_SIZE && count <= PAGE_SIZE - offset
}

impl SharedMemory for Page {
    fn words(&self) -> &[AtomicU32] {
        // SAFETY: a page of ours, mapped as long as `self` lives; whoever else writes it, each word is an atomic.
        unsafe { core::slice::from_raw_parts(self.address() as *const AtomicU32, PAGE_SIZE / size_of::<AtomicU32>()) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        p2m::set_device_frame(self.frame, false);
        // SAFETY: allocated in `new`; a grant of it holds an `Rc` of it.
        unsafe { frames::free(self.frame, 1) };
    }
}

/// Pages that hold packets or blocks; each has a machine frame of its own, not contiguous. A device may write them, so that the next life does
/// not have them before devices were stopped. Freed by `Drop`.
#[derive(Debug)]
pub struct Pages {
    pages: Vec<Page>,
}

impl Pages {
    /// `count` pages with what they last held: whoever uses one fills it first, as one that was used before. A new life begins sooner so.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn new(count: usize) -> Result<Self, OutOfMemory> {
        let mut pages = Vec::new();
        pages.try_reserve_exact(count).map_err(|_| OutOfMemory)?;
        for _ in 0..count {
            let page = Page::take()?;
            // A device may have them in its rings when a life ends.
            p2m::set_device_frame(page.frame, true);
            pages.push(page);
        }
        Ok(Self { pages })
    }
}

impl PageArray for Pages {
    fn len(&self) -> usize {
        self.pages.len()
    }
    fn frame(&self, index: usize) -> Option<Mfn> {
        self.pages.get(index).map(Page::mfn)
    }
    fn read(&self, index: usize, offset: usize, destination: &mut [u8]) -> bool {
        self.pages.get(index).is_some_and(|page| page.read(offset, destination))
    }
    fn write(&self, index: usize, offset: usize, source: &[u8]) -> bool {
        self.pages.get(index).is_some_and(|page| page.write(offset, source))
    }
}
