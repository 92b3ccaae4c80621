//! Memory of the fakes: runs of words, packet pages, DMA memory with the device's view of it. Floor 1.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::cell::Cell;

use xen_pv_sys::{Mfn, PAGE_SIZE};
use zerocopy::FromZeros;

use super::hypervisor::FakeXen;
use crate::atomic::{AtomicU32, Ordering};
use crate::memory::{BusMaster, DmaAllocator, DmaMemory, OutOfMemory, PageArray, Quiesced, Reach, SharedMemory};

/// Words in a page.
pub(super) const PAGE_WORDS: usize = PAGE_SIZE / 4;

/// Zeroed pages, one after another.
pub(super) type Region = Rc<Box<[AtomicU32]>>;

pub(super) fn region(pages: usize) -> Region {
    Rc::new(<[AtomicU32]>::new_box_zeroed_with_elems(pages * PAGE_WORDS).unwrap_or_else(|_| Box::new([])))
}

/// The byte at `offset`.
fn byte(words: &[AtomicU32], offset: usize) -> u8 {
    let word = words.get(offset / 4).map_or(0, |word| word.load(Ordering::Relaxed));
    word.to_ne_bytes()[offset % 4]
}

fn set_byte(words: &[AtomicU32], offset: usize, value: u8) {
    if let Some(word) = words.get(offset / 4) {
        let mut bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        bytes[offset % 4] = value;
        word.store(u32::from_ne_bytes(bytes), Ordering::Relaxed);
    }
}

/// Copies bytes out; nothing where they are not all there.
pub(super) fn read_bytes(words: &[AtomicU32], offset: usize, destination: &mut [u8]) -> bool {
    let end = offset.checked_add(destination.len());
    if end.is_none_or(|end| end > words.len() * 4) {
        return false;
    }
    let head = destination.len().min(offset.wrapping_neg() % 4);
    let (first, rest) = destination.split_at_mut(head);
    for (index, to) in first.iter_mut().enumerate() {
        *to = byte(words, offset + index);
    }
    let offset = offset + head;
    let (chunks, tail) = rest.as_chunks_mut::<4>();
    for (to, word) in chunks.iter_mut().zip(words.get(offset / 4..).unwrap_or_default()) {
        *to = word.load(Ordering::Relaxed).to_ne_bytes();
    }
    let at = offset + chunks.len() * 4;
    for (index, to) in tail.iter_mut().enumerate() {
        *to = byte(words, at + index);
    }
    true
}

/// Copies bytes in; nothing where there is no room for all.
pub(super) fn write_bytes(words: &[AtomicU32], offset: usize, source: &[u8]) -> bool {
    let end = offset.checked_add(source.len());
    if end.is_none_or(|end| end > words.len() * 4) {
        return false;
    }
    let head = source.len().min(offset.wrapping_neg() % 4);
    let (first, rest) = source.split_at(head);
    for (index, from) in first.iter().enumerate() {
        set_byte(words, offset + index, *from);
    }
    let offset = offset + head;
    let (chunks, tail) = rest.as_chunks::<4>();
    for (from, word) in chunks.iter().zip(words.get(offset / 4..).unwrap_or_default()) {
        word.store(u32::from_ne_bytes(*from), Ordering::Relaxed);
    }
    let at = offset + chunks.len() * 4;
    for (index, from) in tail.iter().enumerate() {
        set_byte(words, at + index, *from);
    }
    true
}

/// Copies between two pages whose bounds were checked.
pub(super) fn copy_bytes(
    source: &[AtomicU32],
    source_offset: usize,
    destination: &[AtomicU32],
    destination_offset: usize,
    length: usize,
) {
    if source_offset.is_multiple_of(4) && destination_offset.is_multiple_of(4) && length.is_multiple_of(4) {
        let from = source.get(source_offset / 4..).unwrap_or_default();
        let to = destination.get(destination_offset / 4..).unwrap_or_default();
        for (from, to) in from.iter().zip(to).take(length / 4) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        return;
    }
    let mut buffer = [0_u8; PAGE_SIZE];
    if let Some(buffer) = buffer.get_mut(..length) {
        let _ = read_bytes(source, source_offset, buffer) && write_bytes(destination, destination_offset, buffer);
    }
}

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

    fn read(&self, index: usize, offset: usize, destination: &mut [u8]) -> bool {
        self.page(index).is_some_and(|page| read_bytes(page, offset, destination))
    }

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

impl FakeDma {
    pub(super) fn new(xen: &FakeXen) -> Self {
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
