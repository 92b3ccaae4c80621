//! Memory that a peer or a device can write while we look at it, as words of atomics. Pure. Floor 1.

use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::atomic::AtomicU32;
use xen_pv_sys::Mfn;

/// Memory shared with a frontend or a device. Sound to read at any time: each word is an atomic, and nothing is believed twice.
pub trait SharedMemory {
    /// The memory, word by word; a page is 1,024 words.
    fn words(&self) -> &[AtomicU32];
}

impl SharedMemory for [AtomicU32] {
    #[inline]
    fn words(&self) -> &[AtomicU32] {
        self
    }
}

impl SharedMemory for Vec<AtomicU32> {
    #[inline]
    fn words(&self) -> &[AtomicU32] {
        self
    }
}

impl<M: SharedMemory + ?Sized> SharedMemory for &M {
    #[inline]
    fn words(&self) -> &[AtomicU32] {
        (**self).words()
    }
}

impl<M: SharedMemory + ?Sized> SharedMemory for Rc<M> {
    #[inline]
    fn words(&self) -> &[AtomicU32] {
        (**self).words()
    }
}

impl<M: SharedMemory + ?Sized> SharedMemory for Arc<M> {
    #[inline]
    fn words(&self) -> &[AtomicU32] {
        (**self).words()
    }
}

/// Memory that a device reads and writes by DMA: descriptor rings. Contiguous in device addresses.
pub trait DmaMemory: SharedMemory {
    /// Where the device finds the first byte.
    fn device_address(&self) -> u64;
}

/// Gives out [`DmaMemory`].
pub trait DmaAllocator {
    /// What is given out; freed by `Drop`.
    type Memory: DmaMemory;
    /// Zeroed memory of `bytes` (rounded up to pages), page-aligned, contiguous for a device that reaches 64 bits of address.
    ///
    /// # Errors
    /// [`OutOfMemory`] where no such run of frames is to be had.
    fn allocate(&self, bytes: usize) -> Result<Self::Memory, OutOfMemory>;
}

/// Proof that a device no longer reaches memory. Pages that it was given go back to their pool only with this.
///
/// There are two ways to it, and each constructor is for one of them only.
#[derive(Debug)]
#[must_use = "without it the pages that the device was given stay lost"]
pub struct Quiesced(());

impl Quiesced {
    /// The driver stopped the device, and read from its registers that it has stopped.
    pub const fn stopped() -> Self {
        Self(())
    }

    /// The device's bus mastering was turned off: for who closes a PCI device, and for models of one.
    pub const fn closed() -> Self {
        Self(())
    }
}

/// No memory of that kind is left; the caller goes on with less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

/// A device's registers, little-endian, uncached.
pub trait Mmio {
    /// Bytes mapped.
    fn len(&self) -> usize;
    /// Whether nothing is mapped.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The 32-bit register at `offset`; all ones where `offset` is beyond the end or not aligned, as a missing device answers.
    fn read32(&self, offset: usize) -> u32;
    /// Writes the 32-bit register at `offset`; ignored beyond the end.
    fn write32(&self, offset: usize, value: u32);
}

/// A fixed array of local pages that hold packets: a page is both an end of a grant copy and a target of DMA.
pub trait PageArray {
    /// How many pages.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The machine frame of page `index` (device address / 4096). `None` beyond the end.
    fn frame(&self, index: usize) -> Option<Mfn>;
    /// Copies `destination.len()` bytes out of page `index` at `offset`. False, and nothing read, where it would leave the page.
    fn read(&self, index: usize, offset: usize, destination: &mut [u8]) -> bool;
    /// Copies `source` into page `index` at `offset`. False, and nothing written, where it would leave the page.
    fn write(&self, index: usize, offset: usize, source: &[u8]) -> bool;
}
