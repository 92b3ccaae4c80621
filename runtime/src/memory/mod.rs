//! The domain's memory: page tables, frames, heap, pages shared with peers and devices. Floor 2.

use core::sync::atomic::AtomicU32;
use split_driver::memory::{OutOfMemory, PageArray, SharedMemory};
use xen_pv_sys::{DomainId, Mfn, Pfn};

/// One page of ours, zeroed when allocated, that a peer or a device may write; freed by `Drop`.
#[derive(Debug)]
pub struct Page;

impl Page {
    /// A zeroed page.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn new() -> Result<Self, OutOfMemory> {
        todo!()
    }
    /// Its machine frame.
    pub fn mfn(&self) -> Mfn {
        todo!()
    }
    /// Its pseudo-physical frame.
    pub fn pfn(&self) -> Pfn {
        todo!()
    }
}

impl SharedMemory for Page {
    fn words(&self) -> &[AtomicU32] {
        todo!()
    }
}

/// Pages that hold packets; each has a machine frame of its own, not contiguous. Freed by `Drop`.
#[derive(Debug)]
pub struct Pages;

impl Pages {
    /// `count` zeroed pages.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn new(count: usize) -> Result<Self, OutOfMemory> {
        let _ = count;
        todo!()
    }
}

impl PageArray for Pages {
    fn len(&self) -> usize {
        todo!()
    }
    fn frame(&self, _index: usize) -> Option<Mfn> {
        todo!()
    }
    fn read(&self, _index: usize, _offset: usize, _destination: &mut [u8]) -> bool {
        todo!()
    }
    fn write(&self, _index: usize, _offset: usize, _source: &[u8]) -> bool {
        todo!()
    }
}

/// How [`map_frames`] maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Ordinary memory.
    WriteBack,
    /// Device registers (PCD | PWT: strong uncacheable).
    Uncached,
}

/// Foreign or device frames mapped one after the other, readable and writable, never executable; unmapped by `Drop`.
#[derive(Debug)]
pub struct Mapping;

impl Mapping {
    /// The first byte. Access it by volatile reads and writes or atomics only.
    pub fn address(&self) -> *mut u8 {
        todo!()
    }
    /// Bytes mapped.
    pub fn len(&self) -> usize {
        todo!()
    }
    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Maps frames of `owner` ([`DomainId::SELF`], `DOMID_IO` for a device's registers).
///
/// # Errors
/// The errno of the hypercall, or `XenError::Exhausted`.
pub(crate) fn map_frames(
    owner: DomainId,
    frames: &[Mfn],
    caching: Caching,
) -> Result<Mapping, split_driver::hypervisor::XenError> {
    let _ = (owner, frames, caching);
    todo!()
}

/// What memory is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Pages that the domain was given.
    pub total_pages: usize,
    /// Frames in the frame allocator, free.
    pub free_frames: usize,
    /// Frames that the heap has taken, for good.
    pub heap_frames: usize,
    /// Bytes of the heap in use.
    pub heap_bytes: usize,
    /// Pages of the mapping area (grants, registers) in use.
    pub mapped_pages: usize,
}

/// The usage now; for statistics and tests of leaks.
pub fn usage() -> Usage {
    todo!()
}
