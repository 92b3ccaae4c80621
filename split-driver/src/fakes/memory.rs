//! Memory of the local domain: packet pages, DMA memory with the device's view of it. Floor 1.

use core::cell::Cell;
use core::ops::Range;

use xen_pv_sys::{Mfn, PAGE_SIZE};

use super::hypervisor::FakeXen;
use super::peer::Step;
use super::region::{PAGE_WORDS, Region, read_bytes, region, write_bytes};
use crate::atomic::AtomicU32;
use crate::memory::{BusMaster, DmaAllocator, DmaMemory, OutOfMemory, PageArray, Quiesced, Reach, SharedMemory};

/// Packet pages of the local domain; unknown to the fake hypervisor and its devices again after `Drop`.
#[derive(Debug)]
pub struct FakePages {
    xen: FakeXen,
    region: Region,
    first: Mfn,
}

impl FakePages {
    /// `count` zeroed pages.
    pub fn new(xen: &FakeXen, count: usize) -> Self {
        let region = region(count);
        let first = xen.add_local(&region);
        Self { xen: xen.clone(), region, first }
    }

    fn page(&self, index: usize) -> Option<&[AtomicU32]> {
        self.region.chunks_exact(PAGE_WORDS).nth(index)
    }
}

impl Drop for FakePages {
    fn drop(&mut self) {
        self.xen.remove_local(self.first);
    }
}

impl PageArray for FakePages {
    fn len(&self) -> usize {
        self.region.len() / PAGE_WORDS
    }

    fn frame(&self, index: usize) -> Option<Mfn> {
        (index < self.len()).then(|| Mfn(self.first.0 + index as u64))
    }

    #[inline(never)]
    fn read(&self, index: usize, offset: usize, destination: &mut [u8]) -> bool {
        self.page(index).is_some_and(|page| read_bytes(page, offset, destination))
    }

    #[inline(never)]
    fn write(&self, index: usize, offset: usize, source: &[u8]) -> bool {
        self.page(index).is_some_and(|page| write_bytes(page, offset, source))
    }
}

/// DMA memory for one device of the local domain.
#[derive(Clone, Debug)]
pub struct FakeDma {
    xen: FakeXen,
    reach: Reach,
}

impl FakeXen {
    /// An allocator of DMA memory for a device of the local domain.
    pub fn dma(&self) -> FakeDma {
        FakeDma::new(self)
    }
}

impl FakeDma {
    fn new(xen: &FakeXen) -> Self {
        Self { xen: xen.clone(), reach: Reach::default() }
    }

    /// The proof that this device was closed.
    ///
    /// # Panics
    /// Never: [`FakeClosedDevice`] is closed.
    pub fn closed(&self) -> Quiesced {
        closed(&self.reach)
    }
}

impl DmaAllocator for FakeDma {
    type Memory = FakeDmaMemory;

    fn allocate(&self, bytes: usize) -> Result<FakeDmaMemory, OutOfMemory> {
        if self.reach.has_ended() || !self.xen.take_dma_credit() {
            return Err(OutOfMemory);
        }
        let region = region(bytes.div_ceil(PAGE_SIZE));
        let first = self.xen.add_local(&region);
        Ok(FakeDmaMemory { xen: self.xen.clone(), region, first, reach: self.reach.clone(), told: Cell::new(false) })
    }

    fn reach(&self) -> &Reach {
        &self.reach
    }
}

/// What a [`FakeDma`] gives out. A device that reaches for it after it went back is noted; what is lost stays in
/// [`Live::local_regions`](super::Live::local_regions).
#[derive(Debug)]
pub struct FakeDmaMemory {
    xen: FakeXen,
    region: Region,
    first: Mfn,
    reach: Reach,
    told: Cell<bool>,
}

impl Drop for FakeDmaMemory {
    fn drop(&mut self) {
        if self.reach.has_ended() || !self.told.get() {
            self.xen.remove_local(self.first);
        }
    }
}

impl SharedMemory for FakeDmaMemory {
    fn words(&self) -> &[AtomicU32] {
        &self.region
    }

    #[inline(never)]
    fn look(&self, range: Range<usize>) -> &[AtomicU32] {
        let words = self.region.get(range).unwrap_or_default();
        self.xen.0.peer.before(Step::Look(words));
        words
    }
}

impl DmaMemory for FakeDmaMemory {
    fn tell_frame(&self) -> Mfn {
        self.told.set(true);
        self.first
    }
}

/// A PCI function whose bus mastering was turned off.
#[derive(Clone, Debug, Default)]
pub struct FakeClosedDevice(pub Reach);

impl BusMaster for FakeClosedDevice {
    fn reach(&self) -> Reach {
        self.0.clone()
    }

    fn has_ended(&self) -> bool {
        true
    }
}

/// The proof that the device of `reach` was closed.
///
/// # Panics
/// Never: [`FakeClosedDevice`] is closed.
pub fn closed(reach: &Reach) -> Quiesced {
    FakeClosedDevice(reach.clone()).quiesced().expect("it is closed")
}
