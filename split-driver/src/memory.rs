//! Memory that a peer or a device can write while we look at it, as words of atomics. Pure. Floor 1.

use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::Cell;
use core::ops::Range;

use crate::atomic::AtomicU32;
use xen_pv_sys::{Mfn, PAGE_SIZE};

/// Memory shared with a frontend or a device. Sound to read at any time: each word is an atomic, and nothing is believed twice.
pub trait SharedMemory {
    /// The memory, word by word; a page is 1,024 words.
    fn words(&self) -> &[AtomicU32];

    /// Those words, to be loaded now, each once; none where they are not all there. A fake has the peer act before.
    #[inline]
    fn look(&self, range: Range<usize>) -> &[AtomicU32] {
        self.words().get(range).unwrap_or_default()
    }
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

    #[inline]
    fn look(&self, range: Range<usize>) -> &[AtomicU32] {
        (**self).look(range)
    }
}

impl<M: SharedMemory + ?Sized> SharedMemory for Rc<M> {
    #[inline]
    fn words(&self) -> &[AtomicU32] {
        (**self).words()
    }

    #[inline]
    fn look(&self, range: Range<usize>) -> &[AtomicU32] {
        (**self).look(range)
    }
}

impl<M: SharedMemory + ?Sized> SharedMemory for Arc<M> {
    #[inline]
    fn words(&self) -> &[AtomicU32] {
        (**self).words()
    }

    #[inline]
    fn look(&self, range: Range<usize>) -> &[AtomicU32] {
        (**self).look(range)
    }
}

/// Where a device finds a byte of memory. Only [`DmaMemory`], [`PageArray`] and [`DevicePage`](crate::hypervisor::DevicePage) make
/// one, so a driver cannot aim its device anywhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceAddress(u64);

impl DeviceAddress {
    /// The byte at `offset` of a frame, or its last one.
    const fn in_frame(frame: Mfn, offset: usize) -> Self {
        let offset = if offset < PAGE_SIZE { offset } else { PAGE_SIZE - 1 };
        Self(frame.0.wrapping_mul(PAGE_SIZE as u64) | offset as u64)
    }

    /// The page that Xen mapped for the device, by the bus address that it gave.
    pub(crate) const fn of_mapping(bus_address: u64) -> Self {
        Self(bus_address)
    }

    /// An address that a test or a model of a hostile device makes up.
    #[cfg(any(test, feature = "fakes"))]
    pub const fn made_up(address: u64) -> Self {
        Self(address)
    }

    /// The address as a number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Its low and high 32 bits, as registers and descriptors take them.
    pub const fn halves(self) -> [u32; 2] {
        [self.0 as u32, (self.0 >> 32) as u32]
    }

    /// The byte at `offset` of the page that this address lies in, or the last one of that page.
    pub const fn in_page(self, offset: usize) -> Self {
        Self::in_frame(self.frame(), offset)
    }

    /// The machine frame that it lies in.
    pub const fn frame(self) -> Mfn {
        Mfn(self.0 / PAGE_SIZE as u64)
    }
}

/// Memory that a device reads and writes by DMA: descriptor rings. Contiguous in device addresses.
///
/// By `Drop` it goes back to the pool where no device was told of it, or where [`DmaAllocator::release`] was given the proof that this
/// device no longer reaches memory. Otherwise it stays lost, and that is logged.
pub trait DmaMemory: SharedMemory {
    /// The machine frame of the first page. From this call on a device may know of the memory.
    fn tell_frame(&self) -> Mfn;

    /// Where the device finds the byte at `offset`, or the last one.
    fn device_address(&self, offset: usize) -> DeviceAddress {
        let last = (self.words().len() * size_of::<u32>()).saturating_sub(1);
        let offset = offset.min(last);
        let Mfn(first) = self.tell_frame();
        DeviceAddress::in_frame(Mfn(first.wrapping_add((offset / PAGE_SIZE) as u64)), offset % PAGE_SIZE)
    }
}

/// Gives out [`DmaMemory`] for one device.
pub trait DmaAllocator {
    /// What is given out.
    type Memory: DmaMemory;
    /// Zeroed memory of `bytes` (rounded up to pages), page-aligned, contiguous for a device that reaches 64 bits of address.
    ///
    /// # Errors
    /// [`OutOfMemory`] where no such run of frames is to be had, or the device was released.
    fn allocate(&self, bytes: usize) -> Result<Self::Memory, OutOfMemory>;

    /// Of the device that it gives memory to.
    fn reach(&self) -> &Reach;

    /// The device no longer reaches memory: what it was given goes back when it is dropped, and no more is given out. False, and nothing
    /// changes, where the proof is another device's.
    #[must_use = "where the proof is another device's, nothing may go back"]
    fn release(&self, proof: &Quiesced) -> bool {
        self.reach().end(proof)
    }
}

/// Which device it is, and whether it may reach the memory that was allocated for it. A device's registers, the switch of its bus
/// mastering, its allocator and all that this gave out share one.
#[derive(Clone, Debug, Default)]
pub struct Reach(Rc<Cell<bool>>);

impl Reach {
    /// The device reaches memory no longer. False, and nothing changes, where the proof is another device's.
    #[must_use = "where the proof is another device's, nothing may go back"]
    pub fn end(&self, proof: &Quiesced) -> bool {
        let own = self.is(&proof.0);
        if own {
            self.0.set(true);
        } else {
            log::error!("a device's memory stays lost: the proof is another device's");
        }
        own
    }

    /// Whether both are of one device.
    pub fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Whether it was proven that the device no longer reaches memory.
    pub fn has_ended(&self) -> bool {
        self.0.get()
    }
}

/// Proof that one device no longer reaches memory. Pages that it was given go back to their pool only with this; those of other devices
/// do not.
///
/// There are two ways to it: a register of the device says that it has stopped ([`Reg::confirm`](crate::registers::Reg::confirm)), or
/// its bus mastering has ended ([`BusMaster::quiesced`]).
#[derive(Debug)]
#[must_use = "without it the pages that the device was given stay lost"]
pub struct Quiesced(Reach);

impl Quiesced {
    /// For the two ways alone.
    pub(crate) const fn of(device: Reach) -> Self {
        Self(device)
    }

    /// The proof for a device whose parts stop one by one. `None` where the parts are of two devices.
    pub fn both(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        let (one, other) = (one?, other?);
        one.0.is(&other.0).then_some(other)
    }
}

/// Who holds the switch of a device's bus mastering: its place in PCI configuration space.
pub trait BusMaster {
    /// Of the device.
    fn reach(&self) -> Reach;

    /// Whether bus mastering was turned off, and stays off as long as the device is this domain's.
    fn has_ended(&self) -> bool;

    /// The proof, where it was turned off.
    fn quiesced(&self) -> Option<Quiesced> {
        self.has_ended().then(|| Quiesced::of(self.reach()))
    }
}

/// No memory of that kind is left; the caller goes on with less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory;

impl core::fmt::Display for OutOfMemory {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str("out of memory")
    }
}

impl core::error::Error for OutOfMemory {}

/// A device's registers, little-endian, uncached.
pub trait Mmio {
    /// Of the device.
    fn reach(&self) -> Reach;
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
    /// The machine frame of page `index`: the local end of a grant copy. `None` beyond the end.
    fn frame(&self, index: usize) -> Option<Mfn>;
    /// Where a device finds the first byte of page `index`. `None` beyond the end.
    fn device_address(&self, index: usize) -> Option<DeviceAddress> {
        self.frame(index).map(|frame| DeviceAddress::in_frame(frame, 0))
    }
    /// Copies `destination.len()` bytes out of page `index` at `offset`. False, and nothing read, where it would leave the page.
    fn read(&self, index: usize, offset: usize, destination: &mut [u8]) -> bool;
    /// Copies `source` into page `index` at `offset`. False, and nothing written, where it would leave the page.
    fn write(&self, index: usize, offset: usize, source: &[u8]) -> bool;
}
