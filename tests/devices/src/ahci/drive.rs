//! Drives: ATA commands upon a medium. Pure.

use std::fmt;
use std::ops::Range;

use blkdom::disk::ahci::command::{LOG_QUEUED_ERROR, Task, opcode};
use blkdom::disk::ahci::identify::IDENTIFY_WORDS;
use blkdom::disk::ahci::registers::{PortStatus, signature};

use super::port::Fetched;
use crate::bus::{Misuse, Transfer};
use crate::medium::{Medium, gather, scatter};

/// Status of a drive that is ready, and of one that refuses.
pub(super) const READY: u32 = 0x50;
pub(super) const REFUSED: u32 = 0x51;
/// Error register: not found, aborted, uncorrectable.
pub(super) const NOT_FOUND: u8 = 0x10;
pub(super) const ABORTED: u8 = 0x04;
/// Commands that are kept for [`super::Ahci::executed`].
const MOST_KEPT: usize = 1 << 16;

/// An error that commands upon a block will meet.
#[derive(Clone, Copy, Debug)]
struct Fault {
    block: u64,
    error: u8,
    times: u32,
}

/// What becomes of commands upon a block, other than that the drive refuses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trap {
    /// They are never answered.
    Silence,
    /// The port stops.
    Break(PortStatus),
}

/// What a command moves before it has ended.
pub(super) enum Motion {
    /// Nothing, or data to the driver: it has ended when they are there.
    Give(Vec<Transfer>),
    /// Data from the driver, and what becomes of them.
    Take(Vec<Transfer>, Taken),
}

/// What becomes of data from the driver.
#[derive(Clone, Copy, Debug)]
pub(super) enum Taken {
    /// They are ranges to trim.
    Ranges,
    /// They are written from this byte on, past the cache or into it.
    Blocks { start: usize, durable: bool },
}

/// A drive, as it is built; plugged into a port by [`super::Ahci::plug_in`].
#[derive(Clone)]
pub struct Drive {
    pub(super) medium: Medium,
    serial: u8,
    /// Commands that it queues; 0 for none.
    queue: u8,
    pub(super) signature: u32,
    patches: Vec<(usize, u16)>,
    faults: Vec<Fault>,
    traps: Vec<(u64, Trap)>,
    has_log: bool,
    /// Reads of PxTFD that it is busy for after a reset.
    pub(super) busy: u32,
    /// The queued command that failed; nothing is taken until the log was read.
    pub(super) failed: Option<(u8, u8)>,
    /// Commands are read and never answered.
    pub(super) deaf: bool,
    pub(super) executed: Vec<Task>,
}

impl Drive {
    /// A drive of `blocks` of `1 << shift` bytes that queues 32 commands, with a cache, and with all that the driver knows of.
    pub fn new(shift: u8, blocks: u64) -> Self {
        Self {
            medium: Medium::new(shift, blocks),
            serial: 1,
            queue: 32,
            signature: signature::DISK,
            patches: Vec::new(),
            faults: Vec::new(),
            traps: Vec::new(),
            has_log: true,
            busy: 0,
            failed: None,
            deaf: false,
            executed: Vec::new(),
        }
    }

    /// With another serial number.
    #[must_use]
    pub fn with_serial(self, serial: u8) -> Self {
        Self { serial, ..self }
    }

    /// That queues so many commands; 0 for none.
    #[must_use]
    pub fn with_queue(self, queue: u8) -> Self {
        Self { queue, ..self }
    }

    /// That is something else.
    #[must_use]
    pub fn with_signature(self, signature: u32) -> Self {
        Self { signature, ..self }
    }

    /// That takes so long to be ready, in reads of PxTFD.
    #[must_use]
    pub fn busy_for(self, busy: u32) -> Self {
        Self { busy, ..self }
    }

    /// That does not have the log of queued errors.
    #[must_use]
    pub fn without_log(self) -> Self {
        Self { has_log: false, ..self }
    }

    /// That says something else of itself in a word.
    #[must_use]
    pub fn with_word(mut self, at: usize, value: u16) -> Self {
        self.patches.push((at, value));
        self
    }

    pub(super) fn set_word(&mut self, at: usize, value: u16) {
        self.patches.push((at, value));
    }

    pub(super) fn fail(&mut self, block: u64, error: u8, times: u32) {
        self.faults.retain(|fault| fault.times > 0);
        self.faults.push(Fault { block, error, times });
    }

    pub(super) fn set_trap(&mut self, block: u64, trap: Trap) {
        self.traps.push((block, trap));
    }

    /// What a command runs into.
    pub(super) fn trap(&self, task: &Task) -> Option<Trap> {
        let (opcode::READ_QUEUED | opcode::WRITE_QUEUED | opcode::READ_DMA | opcode::WRITE_DMA) = task.opcode else {
            return None;
        };
        let count = if task.is_queued() { task.features } else { task.count };
        let blocks = task.address..task.address + u64::from(count.wrapping_sub(1)) + 1;
        self.traps.iter().find(|(block, _)| blocks.contains(block)).map(|(_, trap)| *trap)
    }

    pub(super) fn forgive(&mut self) {
        self.faults.clear();
        self.traps.clear();
    }

    /// A reset by the link: it forgets its commands, and not its cache.
    pub(super) fn reset(&mut self) {
        self.failed = None;
    }

    fn identify(&self) -> [u16; IDENTIFY_WORDS] {
        let mut words = [0; IDENTIFY_WORDS];
        let (blocks, shift) = (self.medium.blocks(), self.medium.shift());
        put_text(&mut words, 10..20, b"MODEL000");
        words[14] = u16::from_be_bytes([b'0' + self.serial, b' ']);
        put_text(&mut words, 23..27, b"1.0");
        put_text(&mut words, 27..47, b"oxidom's disk");
        words[49] = 1 << 8 | 1 << 9;
        words[69] = 1 << 14 | 1 << 5;
        if self.queue > 0 {
            words[75] = u16::from(self.queue) - 1;
            words[76] = 1 << 8;
        }
        words[82] = 1 << 5;
        words[83] = 1 << 14 | 1 << 13 | 1 << 10;
        words[84] = 1 << 14 | 1 << 6;
        words[85] = 1 << 5;
        words[86] = 1 << 13 | 1 << 10;
        words[87] = 1 << 14;
        for place in 0..4 {
            words[100 + place] = (blocks >> (16 * place)) as u16;
        }
        if shift > 9 {
            words[106] = 1 << 14 | 1 << 12;
            words[117] = 1 << (shift - 1);
        }
        words[105] = 1;
        words[169] = 1;
        for (at, value) in &self.patches {
            if let Some(word) = words.get_mut(*at) {
                *word = *value;
            }
        }
        words[255] = 0xA5;
        let sum = words.iter().flat_map(|word| word.to_le_bytes()).fold(0u8, u8::wrapping_add);
        words[255] |= u16::from(0u8.wrapping_sub(sum)) << 8;
        words
    }

    /// Begins a command: what it moves. The error register where it fails.
    pub(super) fn begin(&mut self, fetched: &Fetched, misuse: &mut Misuse) -> Result<Motion, u8> {
        let task = &fetched.task;
        let reads_log =
            task.opcode == opcode::READ_LOG && task.address == u64::from(LOG_QUEUED_ERROR) && task.count == 1;
        if self.failed.is_some() && !reads_log {
            misuse.note("a command to a drive whose log must be read first");
            return Err(ABORTED);
        }
        match task.opcode {
            opcode::IDENTIFY => {
                let bytes: Vec<u8> = self.identify().iter().flat_map(|word| word.to_le_bytes()).collect();
                Ok(give(fetched, &bytes, misuse))
            }
            opcode::READ_LOG if self.has_log && reads_log => {
                let log = self.log();
                self.failed = None;
                Ok(give(fetched, &log, misuse))
            }
            opcode::FLUSH => {
                self.keep(task);
                self.medium.flush();
                Ok(Motion::Give(Vec::new()))
            }
            opcode::DATA_SET_MANAGEMENT => {
                self.keep(task);
                if (task.features, task.count) != (1, 1) || fetched.bytes() != 512 {
                    misuse.note("a trim that is none");
                    return Err(ABORTED);
                }
                Ok(Motion::Take(gather(&fetched.pieces), Taken::Ranges))
            }
            _ => {
                self.keep(task);
                self.transfer(fetched, misuse)
            }
        }
    }

    /// Does with the driver's data what was begun. The error register where it fails.
    pub(super) fn take(&mut self, taken: Taken, batch: &[Transfer]) -> Result<(), u8> {
        match taken {
            Taken::Blocks { start, durable } => {
                self.medium.write(start, batch, durable);
                Ok(())
            }
            Taken::Ranges => {
                let bytes: Vec<u8> = batch.iter().flat_map(|transfer| transfer.data.iter().copied()).collect();
                bytes.as_chunks::<8>().0.iter().try_for_each(|range| {
                    let value = u64::from_le_bytes(*range);
                    let (first, blocks) = (value & 0xFFFF_FFFF_FFFF, value >> 48);
                    self.medium.zero(self.medium.range(first, blocks).ok_or(NOT_FOUND)?);
                    Ok(())
                })
            }
        }
    }

    fn keep(&mut self, task: &Task) {
        if self.executed.len() < MOST_KEPT {
            self.executed.push(*task);
        }
    }

    fn log(&self) -> Vec<u8> {
        let mut log = vec![0; 512];
        let (tag, error) = self.failed.unwrap_or((0x80, 0));
        (log[0], log[2], log[3]) = (tag, REFUSED as u8, error);
        log[511] = 0u8.wrapping_sub(log.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte)));
        log
    }

    fn transfer(&mut self, fetched: &Fetched, misuse: &mut Misuse) -> Result<Motion, u8> {
        let task = &fetched.task;
        let (count, durable) = match task.opcode {
            opcode::READ_QUEUED => (task.features, false),
            opcode::WRITE_QUEUED => (task.features, task.device & 1 << 7 != 0),
            opcode::READ_DMA | opcode::WRITE_DMA => (task.count, false),
            opcode::WRITE_DMA_DURABLE => (task.count, true),
            _ => return Err(ABORTED),
        };
        if task.is_queued() && self.queue == 0 || task.device & 1 << 6 == 0 {
            misuse.note("a command that the drive does not have");
            return Err(ABORTED);
        }
        let blocks = u64::from(count.wrapping_sub(1)) + 1;
        let hit = |fault: &&mut Fault| fault.times > 0 && (task.address..task.address + blocks).contains(&fault.block);
        if let Some(fault) = self.faults.iter_mut().find(hit) {
            fault.times -= 1;
            return Err(fault.error);
        }
        let range = self.medium.range(task.address, blocks).ok_or(NOT_FOUND)?;
        if fetched.bytes() != range.len() as u64 {
            misuse.note("memory of another length than the command's");
            return Err(ABORTED);
        }
        let start = range.start;
        Ok(if task.is_write() {
            Motion::Take(gather(&fetched.pieces), Taken::Blocks { start, durable })
        } else {
            Motion::Give(self.medium.read(start, &fetched.pieces))
        })
    }
}

fn put_text(words: &mut [u16; IDENTIFY_WORDS], place: Range<usize>, text: &[u8]) {
    let mut bytes = text.iter().copied().chain(std::iter::repeat(b' '));
    for word in words.get_mut(place).unwrap_or_default() {
        *word = u16::from_be_bytes([bytes.next().unwrap_or(b' '), bytes.next().unwrap_or(b' ')]);
    }
}

/// Data of the drive's own go into a command's memory.
fn give(fetched: &Fetched, bytes: &[u8], misuse: &mut Misuse) -> Motion {
    if fetched.bytes() != bytes.len() as u64 {
        misuse.note("memory of another length than a block");
    }
    Motion::Give(scatter(bytes, &fetched.pieces))
}

impl fmt::Debug for Drive {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { medium, queue, signature, patches, has_log, .. } = self;
        write!(
            formatter,
            "drive: shift {}, queue {queue}, log {has_log}, signature {signature:#x}, words {patches:?}",
            medium.shift()
        )
    }
}
