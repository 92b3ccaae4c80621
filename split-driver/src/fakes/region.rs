//! Runs of words: the memory of which all fakes' pages are. Floor 1.

use alloc::boxed::Box;
use alloc::rc::Rc;
use core::ptr;

use xen_pv_sys::PAGE_SIZE;
use zerocopy::FromZeros;

use crate::atomic::{AtomicU32, Ordering};
use crate::memory::SharedMemory;

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

/// Memory of a fake guest, seen by the test as the guest sees it.
#[derive(Clone, Debug)]
pub struct GuestMemory {
    pub(super) region: Region,
}

impl GuestMemory {
    /// Copies bytes out; false where they are not all there.
    pub fn read(&self, offset: usize, destination: &mut [u8]) -> bool {
        read_bytes(&self.region, offset, destination)
    }

    /// Copies bytes in; false where there is no room for all.
    pub fn write(&self, offset: usize, source: &[u8]) -> bool {
        write_bytes(&self.region, offset, source)
    }

    /// The place of the first of these words in this memory; none where it is another's.
    pub fn place(&self, words: &[AtomicU32]) -> Option<usize> {
        let first = ptr::from_ref(self.region.first()?).addr();
        let bytes = ptr::from_ref(words.first()?).addr().checked_sub(first)?;
        Some(bytes / size_of::<AtomicU32>()).filter(|place| *place < self.region.len())
    }
}

impl SharedMemory for GuestMemory {
    #[inline]
    fn words(&self) -> &[AtomicU32] {
        &self.region
    }
}
