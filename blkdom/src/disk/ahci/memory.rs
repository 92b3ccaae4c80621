//! A port's memory that the adapter reads and writes: command list, received FISes, command tables, and a block of data. Pure. Floor 3.

use super::command::{self, ENTRY_BYTES, FIS_WORDS, Task};
use crate::disk::{Refusal, SECTOR_BYTES, Segment};
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use split_driver::memory::{DeviceAddress, DmaAllocator, DmaMemory};
use xen_pv_sys::PAGE_SIZE;

/// Slots of a command list (AHCI 4.2.2).
pub(super) const SLOTS: usize = 32;
/// Bytes of a command header (AHCI 4.2.2).
const HEADER_BYTES: usize = 32;
/// Where received FISes go in the port's page: behind the list; 256 bytes (AHCI 4.2.1).
const RECEIVED: usize = SLOTS * HEADER_BYTES;
/// Where the port's page has the table of the driver's own commands; tables are aligned to 128 bytes (AHCI 4.2.2).
const OWN_TABLE: usize = RECEIVED + 256;
/// Where it has a block of data: what the drive says of itself, a log, ranges to trim.
const BLOCK: usize = 2048;
/// Bytes of that.
const BLOCK_BYTES: usize = 512;
/// Words of that.
pub(super) const BLOCK_WORDS: usize = BLOCK_BYTES / 4;
/// Bytes of a slot's table.
const TABLE_BYTES: usize = 2048;
const TABLES_PER_PAGE: usize = PAGE_SIZE / TABLE_BYTES;
/// Where a table has its memory list (AHCI 4.2.3.3).
const LIST: usize = 0x80;
/// Entries of a slot's memory list: pieces of a command's data, 480 KiB where none of them adjoins another.
pub(super) const ENTRIES: usize = (TABLE_BYTES - LIST) / 16;

/// The part of a command's memory that one command can name.
pub(super) struct List {
    entries: heapless::Vec<(DeviceAddress, u32), ENTRIES>,
    /// Bytes from the beginning: whole blocks.
    pub(super) bytes: u32,
}

impl List {
    /// Names `data`, or so much of its beginning as entries can say; at most `limit` bytes, in whole blocks of `block`.
    pub(super) fn of(data: &[Segment], limit: u32, block: u32) -> Result<Self, Refusal> {
        let mut entries = heapless::Vec::<(DeviceAddress, u32), ENTRIES>::new();
        let mut bytes = 0;
        for segment in data {
            if !is_well_formed(segment) {
                return Err(Refusal::Malformed);
            }
            let taken = segment.bytes.min(limit - bytes);
            if taken == 0 {
                break;
            }
            let adjoining = entries.last_mut().filter(|(address, length)| {
                address.get().checked_add(u64::from(*length)) == Some(segment.address.get())
                    && *length <= ENTRY_BYTES - taken
            });
            match adjoining {
                Some((_, length)) => *length += taken,
                None => {
                    if entries.push((segment.address, taken)).is_err() {
                        break;
                    }
                }
            }
            bytes += taken;
        }
        // A block that is not all there is left to the next command.
        let mut surplus = bytes % block;
        bytes -= surplus;
        while surplus > 0
            && let Some((_, length)) = entries.last_mut()
        {
            if *length > surplus {
                *length -= surplus;
                break;
            }
            surplus -= *length;
            entries.pop();
        }
        if bytes == 0 { Err(Refusal::Malformed) } else { Ok(Self { entries, bytes }) }
    }

    pub(super) fn len(&self) -> u16 {
        self.entries.len() as u16
    }
}

/// Whole sectors within a page.
const fn is_well_formed(segment: &Segment) -> bool {
    segment.bytes != 0
        && segment.bytes.is_multiple_of(SECTOR_BYTES)
        && segment.address.get().is_multiple_of(SECTOR_BYTES as u64)
        && segment.address.get() % PAGE_SIZE as u64 + segment.bytes as u64 <= PAGE_SIZE as u64
}

/// The port's page, and the tables of its slots where a drive needs them.
pub(super) struct Memory<D> {
    page: D,
    tables: Vec<D>,
}

impl<D: DmaMemory> Memory<D> {
    /// Without tables. `None` where there is no memory.
    pub(super) fn new<A: DmaAllocator<Memory = D>>(dma: &A) -> Option<Self> {
        let page = dma.allocate(PAGE_SIZE).ok()?;
        (page.words().len() >= PAGE_SIZE / 4).then(|| Self { page, tables: Vec::new() })
    }

    /// Has tables for so many slots. False where there is no memory.
    pub(super) fn provide<A: DmaAllocator<Memory = D>>(&mut self, dma: &A, slots: usize) -> bool {
        while self.tables.len() < slots.div_ceil(TABLES_PER_PAGE) {
            match dma.allocate(PAGE_SIZE) {
                Ok(page) if page.words().len() >= PAGE_SIZE / 4 => self.tables.push(page),
                _ => return false,
            }
        }
        true
    }

    /// Where the command list is.
    pub(super) fn list_address(&self) -> DeviceAddress {
        self.page.device_address(0)
    }

    /// Where received FISes go.
    pub(super) fn received_address(&self) -> DeviceAddress {
        self.page.device_address(RECEIVED)
    }

    fn table(&self, slot: u8) -> Option<(&D, usize)> {
        let (page, place) = (usize::from(slot) / TABLES_PER_PAGE, usize::from(slot) % TABLES_PER_PAGE);
        Some((self.tables.get(page)?, place * TABLE_BYTES))
    }

    /// Writes a command's memory list into its slot's table.
    pub(super) fn describe(&self, slot: u8, list: &List) {
        if let Some((memory, base)) = self.table(slot) {
            for (place, (address, bytes)) in list.entries.iter().enumerate() {
                store(memory, base + LIST + place * 16, &command::entry(*address, *bytes));
            }
        }
    }

    /// Names the block of data in a slot's memory list.
    pub(super) fn describe_block(&self, slot: u8) {
        if let Some((memory, base)) = self.table(slot) {
            store(memory, base + LIST, &self.block_entry());
        }
    }

    fn block_entry(&self) -> [u32; 4] {
        command::entry(self.page.device_address(BLOCK), BLOCK_BYTES as u32)
    }

    /// Writes a command into its slot, whose memory list is written already.
    pub(super) fn write_command(&self, slot: u8, task: &Task, entries: u16) {
        if let Some((memory, base)) = self.table(slot) {
            self.write_header(slot, task, entries, memory, base);
        }
    }

    /// Writes a command of the driver's own into slot 0: it fills the block of data.
    pub(super) fn write_own_command(&self, task: &Task) {
        self.fill_block(core::iter::empty());
        store(&self.page, OWN_TABLE + LIST, &self.block_entry());
        let entries = u16::from(task.opcode != command::opcode::FLUSH);
        self.write_header(0, task, entries, &self.page, OWN_TABLE);
    }

    fn write_header(&self, slot: u8, task: &Task, entries: u16, memory: &D, base: usize) {
        let fis: [u32; FIS_WORDS] = task.fis();
        store(memory, base, &fis);
        let [low, high] = memory.device_address(base).halves();
        let first = command::header(task.is_write(), entries);
        // The count of bytes (PRDBC) is the adapter's to write, from 0 on.
        let header = [first, 0, low, high];
        store(&self.page, usize::from(slot) * HEADER_BYTES, &header);
    }

    /// Fills the block of data; with zeroes beyond what there is.
    pub(super) fn fill_block(&self, values: impl Iterator<Item = u64>) {
        let mut values = values.flat_map(|value| [value as u32, (value >> 32) as u32]);
        let words = self.page.words().get(BLOCK / 4..BLOCK / 4 + BLOCK_WORDS).unwrap_or_default();
        for word in words {
            word.store(values.next().unwrap_or(0), Ordering::Relaxed);
        }
    }

    /// The block of data, copied once.
    pub(super) fn block(&self) -> [u32; BLOCK_WORDS] {
        let mut block = [0; BLOCK_WORDS];
        for (to, word) in block.iter_mut().zip(self.page.look(BLOCK / 4..BLOCK / 4 + BLOCK_WORDS)) {
            *to = word.load(Ordering::Acquire);
        }
        block
    }
}

/// Writes words at a byte offset.
fn store<D: DmaMemory>(memory: &D, at: usize, values: &[u32]) {
    for (word, value) in memory.words().iter().skip(at / 4).zip(values) {
        word.store(*value, Ordering::Relaxed);
    }
}
