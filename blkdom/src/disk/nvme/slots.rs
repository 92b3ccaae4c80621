//! Commands in flight, each in a slot with memory for its page list; identifiers that come back late are told from those in use. Pure.
//! Floor 3.

use super::command::Entry;
use crate::disk::{Refusal, SECTOR_BYTES, Segment, Tag, UnitId};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use split_driver::memory::{DeviceAddress, DmaAllocator, DmaMemory};
use split_driver::time::Instant;
use xen_pv_sys::PAGE_SIZE;

/// Entries of a slot's page list: with the page that the command itself names, 516 KiB.
pub(super) const LIST_ENTRIES: usize = 128;
const LIST_BYTES: usize = LIST_ENTRIES * 8;
const LIST_WORDS: usize = LIST_BYTES / 4;
const LISTS_PER_PAGE: usize = PAGE_SIZE / LIST_BYTES;

/// Ranges of Dataset Management that fit in a slot's memory, 16 bytes each.
pub(super) const RANGES: usize = LIST_BYTES / 16;

/// Slots at most: one byte of an identifier is the slot, the other a generation.
pub(super) const MAX_SLOTS: u16 = 255;

/// Generations of a slot, after which they repeat. Less than 256, so that no identifier is `FFFFh`, which 2.0: 5.16.1.2 uses for "none".
const GENERATIONS: u8 = 0x7F;

/// Where a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// There is none.
    Free,
    /// The device has it.
    Sent,
    /// It must be sent once more.
    Held,
}

/// A command.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) progress: Progress,
    generation: u8,
    pub(super) tag: Tag,
    pub(super) unit: UnitId,
    /// As it is sent, but for the identifier.
    pub(super) entry: Entry,
    /// When it was first seen to be with the device; `None` when sent after the last look.
    pub(super) since: Option<Instant>,
    /// The device was asked to abort it.
    pub(super) aborting: bool,
    /// Tries that the device refused.
    pub(super) retries: u8,
    /// Points for tries that the device did not answer.
    pub(super) strikes: u8,
    /// Held at least until then.
    pub(super) not_before: Option<Instant>,
}

impl Slot {
    const EMPTY: Self = Self {
        progress: Progress::Free,
        generation: 0,
        tag: Tag(0),
        unit: UnitId(0),
        entry: [0; 16],
        since: None,
        aborting: false,
        retries: 0,
        strikes: 0,
        not_before: None,
    };
}

/// The part of a command's memory that one command can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pages {
    /// PRP1.
    pub(super) first: DeviceAddress,
    /// PRP2.
    pub(super) second: Option<DeviceAddress>,
    /// Bytes from the beginning: whole blocks.
    pub(super) bytes: u32,
}

/// All slots.
pub(super) struct Slots<D> {
    slots: Vec<Slot>,
    free: Vec<u16>,
    lists: Vec<D>,
}

impl<D: DmaMemory> Slots<D> {
    /// `None` where there is no memory for the page lists.
    pub(super) fn new<A: DmaAllocator<Memory = D>>(dma: &A, count: u16) -> Option<Self> {
        let count = count.min(MAX_SLOTS);
        let pages = usize::from(count).div_ceil(LISTS_PER_PAGE);
        let lists = (0..pages).map(|_| dma.allocate(PAGE_SIZE).ok()).collect::<Option<Vec<D>>>()?;
        let enough = lists.iter().all(|page| page.words().len() >= PAGE_SIZE / 4);
        // Taken from the end: the slots used last are still in the cache.
        let free = (0..count).rev().collect();
        enough.then(|| Self { slots: alloc::vec![Slot::EMPTY; usize::from(count)], free, lists })
    }

    /// How many commands are in flight.
    pub(super) fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u16, &mut Slot)> {
        (0..).zip(&mut self.slots)
    }

    pub(super) fn get_mut(&mut self, index: u16) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(index))
    }

    /// The slot that would be taken next.
    pub(super) fn next_free(&self) -> Option<u16> {
        self.free.last().copied()
    }

    /// Fills the slot of [`Self::next_free`].
    pub(super) fn take(&mut self, tag: Tag, unit: UnitId, entry: Entry) {
        let Some(slot) = self.free.pop().and_then(|index| self.slots.get_mut(usize::from(index))) else {
            return;
        };
        *slot = Slot { progress: Progress::Held, generation: slot.generation, tag, unit, entry, ..Slot::EMPTY };
    }

    /// A slot's command goes to the device: gives the entry with a new identifier.
    pub(super) fn send(&mut self, index: u16) -> Option<Entry> {
        let slot = self.slots.get_mut(usize::from(index))?;
        slot.progress = Progress::Sent;
        slot.generation = if slot.generation + 1 < GENERATIONS { slot.generation + 1 } else { 0 };
        slot.since = None;
        slot.aborting = false;
        slot.not_before = None;
        let id = u16::from(slot.generation) << 8 | index;
        let mut entry = slot.entry;
        if let Some(word) = entry.first_mut() {
            *word = *word & 0xFFFF | u32::from(id) << 16;
        }
        Some(entry)
    }

    /// The identifier under which a slot's command was sent.
    pub(super) fn id(&self, index: u16) -> Option<u16> {
        let slot = self.slots.get(usize::from(index))?;
        (slot.progress == Progress::Sent).then_some(u16::from(slot.generation) << 8 | index)
    }

    /// The slot whose command was sent as `id`, if the device has it.
    pub(super) fn find(&mut self, id: u16) -> Option<(u16, &mut Slot)> {
        let index = id & 0xFF;
        let slot = self.slots.get_mut(usize::from(index))?;
        (slot.progress == Progress::Sent && u16::from(slot.generation) == id >> 8).then_some((index, slot))
    }

    /// A slot's command is done.
    pub(super) fn release(&mut self, index: u16) {
        if let Some(slot) = self.slots.get_mut(usize::from(index))
            && slot.progress != Progress::Free
        {
            slot.progress = Progress::Free;
            self.free.push(index);
        }
    }

    /// Whether a command of `unit` is in flight.
    pub(super) fn any_of(&self, unit: UnitId) -> bool {
        self.slots.iter().any(|slot| slot.progress != Progress::Free && slot.unit == unit)
    }

    fn list(&self, index: u16) -> Option<(DeviceAddress, &D, usize)> {
        let (page, place) = (usize::from(index) / LISTS_PER_PAGE, usize::from(index) % LISTS_PER_PAGE);
        let memory = self.lists.get(page)?;
        Some((memory.device_address(place * LIST_BYTES), memory, place * LIST_WORDS))
    }

    /// Names `data`, or so much of its beginning as page entries can say (2.0: 4.1.1): all but the first begin at a page's start,
    /// all but the last end at a page's end. At most `limit` bytes, in whole blocks of `block`.
    pub(super) fn describe(&self, index: u16, data: &[Segment], limit: u32, block: u32) -> Result<Pages, Refusal> {
        const PAGE: u64 = PAGE_SIZE as u64;
        let (list, memory, base) = self.list(index).ok_or(Refusal::Full)?;
        let words = memory.words().get(base..base + LIST_WORDS).unwrap_or_default();
        let first = data.first().ok_or(Refusal::Malformed)?.address;
        let (mut end, mut bytes, mut entries, mut second) = (first.get(), 0u32, 0usize, None);
        for segment in data {
            if !is_well_formed(segment) {
                return Err(Refusal::Malformed);
            }
            let begins_page = entries == 0 || (end % PAGE == 0 && segment.address.get() % PAGE == 0);
            if begins_page {
                if entries > LIST_ENTRIES {
                    break;
                }
                if entries > 0 {
                    if entries == 1 {
                        second = Some(segment.address);
                    }
                    let [low, high] = segment.address.halves();
                    for (slot, value) in words.iter().skip(2 * (entries - 1)).zip([low, high]) {
                        slot.store(value, Ordering::Relaxed);
                    }
                }
                entries += 1;
            } else if segment.address.get() != end || end % PAGE == 0 {
                break;
            }
            let taken = segment.bytes.min(limit - bytes);
            bytes += taken;
            end = segment.address.get().wrapping_add(u64::from(taken));
            if taken < segment.bytes {
                break;
            }
        }
        bytes -= bytes % block;
        if bytes == 0 {
            return Err(Refusal::Malformed);
        }
        let second = match (first.get() % PAGE + u64::from(bytes)).div_ceil(PAGE) {
            0 | 1 => None,
            2 => second,
            _ => Some(list),
        };
        Ok(Pages { first, second, bytes })
    }

    /// Writes ranges of Dataset Management (NVM: 3.2.3, first block and blocks) to a slot's memory; gives its address.
    pub(super) fn write_ranges(&self, index: u16, ranges: impl Iterator<Item = (u64, u32)>) -> Option<DeviceAddress> {
        let (address, memory, base) = self.list(index)?;
        let words = memory.words().get(base..base + LIST_WORDS).unwrap_or_default();
        for (place, (first, blocks)) in words.chunks_exact(4).zip(ranges) {
            let [low, high] = super::command::halves(first);
            for (slot, value) in place.iter().zip([0, blocks, low, high]) {
                slot.store(value, Ordering::Relaxed);
            }
        }
        Some(address)
    }
}

/// Whole sectors within a page.
const fn is_well_formed(segment: &Segment) -> bool {
    segment.bytes != 0
        && segment.bytes.is_multiple_of(SECTOR_BYTES)
        && segment.address.get().is_multiple_of(SECTOR_BYTES as u64)
        && segment.address.get() % PAGE_SIZE as u64 + segment.bytes as u64 <= PAGE_SIZE as u64
}
