//! Commands out, answers in. No allocation, no register but one doorbell each way a round. Pure. Floor 3.

use super::command::{self, Status, io};
use super::identify::Limits;
use super::namespaces::Namespace;
use super::slots::{Progress, RANGES};
use super::start::{Step, is_no_namespace};
use super::{IO_QUEUE, Nvme};
use crate::disk::{Command, Completion, IoError, Operation, Refusal, SECTOR_BYTES};
use alloc::vec::Vec;
use core::time::Duration;
use split_driver::memory::{DmaAllocator, Mmio};

/// Tries of a command that the device refuses without saying that it is for good; as many as Linux makes.
const RETRIES: u8 = 5;
/// Points for tries without an answer, after which a command is given up.
pub(super) const STRIKES: u8 = 4;
/// Blocks that a command with a 16-bit count can cover.
const MOST_BLOCKS: u64 = 1 << 16;
/// A device's wish to wait before another try counts no further than this.
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// Blocks of a namespace.
#[derive(Clone, Copy)]
struct Blocks {
    first: u64,
    count: u32,
}

impl Blocks {
    /// The blocks of a command, checked against the namespace's end.
    fn of(command: &Command<'_>, namespace: &Namespace) -> Result<Self, Refusal> {
        let per_block = namespace.format.shift.saturating_sub(9);
        let whole = (command.sector | u64::from(command.sectors)).trailing_zeros() >= u32::from(per_block);
        let end = command.sector.checked_add(u64::from(command.sectors));
        if command.sectors == 0 || !whole || end.is_none_or(|end| end > namespace.format.geometry.sectors) {
            return Err(Refusal::Malformed);
        }
        Ok(Self { first: command.sector >> per_block, count: command.sectors >> per_block })
    }

    /// No more than `most`, which is not 0 where it is a limit at all.
    fn at_most(self, most: u64) -> Self {
        let count = u32::try_from(most.max(1)).map_or(self.count, |most| self.count.min(most));
        Self { count, ..self }
    }
}

impl<M: Mmio, D: DmaAllocator> Nvme<M, D> {
    /// [`crate::disk::Disk::submit`].
    pub(super) fn take_command(&mut self, command: &Command<'_>) -> Result<u32, Refusal> {
        if self.step == Step::Dead {
            return Err(Refusal::NoUnit);
        }
        let namespace = *self.namespaces.get(command.unit).ok_or(Refusal::NoUnit)?;
        let geometry = &namespace.format.geometry;
        if geometry.read_only && !matches!(command.operation, Operation::Read | Operation::Flush) {
            return Err(Refusal::Unsupported);
        }
        if !self.live {
            return Err(Refusal::Full);
        }
        let index = self.slots.next_free().ok_or(Refusal::Full)?;
        let number = namespace.number;
        let (entry, blocks) = match command.operation {
            Operation::Flush => (command::plain(io::FLUSH, number, [0, 0]), 0),
            Operation::Read => self.transfer(index, command, &namespace, io::READ, 0)?,
            Operation::Write { force_unit_access } => {
                let flags = if force_unit_access { command::FORCE_UNIT_ACCESS } else { 0 };
                self.transfer(index, command, &namespace, io::WRITE, flags)?
            }
            Operation::Discard { secure: true } => return Err(Refusal::Unsupported),
            Operation::Discard { secure: false } if geometry.discard.is_none() => return Err(Refusal::Unsupported),
            Operation::Discard { secure: false } => self.discard(index, Blocks::of(command, &namespace)?, number)?,
            Operation::WriteZeroes if !geometry.write_zeroes => return Err(Refusal::Unsupported),
            Operation::WriteZeroes => {
                let most = u64::from(self.limits.zeroes_bytes >> namespace.format.shift).min(MOST_BLOCKS);
                let blocks = Blocks::of(command, &namespace)?.at_most(most);
                (command::upon_blocks(io::WRITE_ZEROES, number, blocks.first, blocks.count, 0), blocks.count)
            }
        };
        self.slots.take(command.tag, command.unit, entry);
        self.send(index);
        Ok(blocks << namespace.format.shift.saturating_sub(9))
    }

    /// Read or Write: as much as pages can say and one command may move.
    fn transfer(
        &self,
        index: u16,
        command: &Command<'_>,
        namespace: &Namespace,
        opcode: u8,
        flags: u32,
    ) -> Result<(command::Entry, u32), Refusal> {
        let blocks = Blocks::of(command, namespace)?;
        let bytes = u64::from(command.sectors) * u64::from(SECTOR_BYTES);
        if command.data.iter().map(|segment| u64::from(segment.bytes)).sum::<u64>() != bytes {
            return Err(Refusal::Malformed);
        }
        let shift = namespace.format.shift;
        let most = bytes.min(u64::from(self.controller.transfer_bytes)).min(MOST_BLOCKS << shift);
        let most = u32::try_from(most).unwrap_or(u32::MAX);
        let pages = self.slots.describe(index, command.data, most, 1 << shift)?;
        let count = pages.bytes >> shift;
        let entry = command::upon_blocks(opcode, namespace.number, blocks.first, count, flags);
        Ok((command::with_pages(entry, pages.first, pages.second), count))
    }

    /// Dataset Management, deallocate: as many ranges as it takes, within the controller's limits.
    fn discard(&self, index: u16, blocks: Blocks, number: u32) -> Result<(command::Entry, u32), Refusal> {
        let Limits { range_blocks, discard_ranges, discard_blocks, .. } = self.limits;
        let most_ranges = u64::from(discard_ranges).min(RANGES as u64);
        let blocks = blocks.at_most((u64::from(range_blocks) * most_ranges).min(discard_blocks));
        let mut left = blocks.count;
        let mut first = blocks.first;
        let ranges = core::iter::from_fn(|| {
            let count = left.min(range_blocks);
            let range = (first, count);
            left -= count;
            first += u64::from(count);
            (count > 0).then_some(range)
        });
        let address = self.slots.write_ranges(index, ranges).ok_or(Refusal::Full)?;
        let last = blocks.count.div_ceil(range_blocks.max(1)) - 1;
        let words = [last, command::DEALLOCATE];
        Ok((command::with_page(io::DATASET_MANAGEMENT, number, words, address), blocks.count))
    }

    /// Sends the command of a slot. The device learns of it by the next doorbell.
    pub(super) fn send(&mut self, index: u16) {
        if let Some(entry) = self.slots.send(index) {
            self.io.push(&entry);
        }
    }

    /// Takes the answers of I/O commands: no more than the queue holds, however fast the device writes them.
    pub(super) fn collect(&mut self, completions: &mut Vec<Completion>) {
        if !self.live {
            return;
        }
        for _ in 0..self.io.depth() {
            let Some(answer) = self.io.pop() else {
                break;
            };
            let checked = answer.queue == IO_QUEUE && answer.head < self.io.depth();
            match self.slots.find(answer.id) {
                Some((index, slot)) if checked => {
                    if answer.status.value() == 0 {
                        completions.push(Completion { tag: slot.tag, result: Ok(()) });
                        self.slots.release(index);
                    } else {
                        self.refused(index, answer.status, completions);
                    }
                }
                _ => self.count_nonsense(&answer),
            }
        }
        self.io.acknowledge(&self.registers);
    }

    /// The device refused the command of a slot: once more, or it has failed.
    #[cold]
    fn refused(&mut self, index: u16, status: Status, completions: &mut Vec<Completion>) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let value = status.value();
        let error = if self.namespaces.get(slot.unit).is_none() {
            Some(IoError::Gone)
        } else if is_no_namespace(value) {
            self.rescan = true;
            Some(IoError::Gone)
        } else if matches!(value, Status::INVALID_OPCODE | Status::INVALID_FIELD) {
            Some(IoError::Unsupported)
        } else if slot.aborting && value == Status::ABORT_REQUESTED {
            (slot.strikes >= STRIKES).then_some(IoError::TimedOut)
        } else if status.do_not_retry() || slot.retries >= RETRIES {
            Some(IoError::Device { code: u32::from(value) })
        } else {
            slot.retries += 1;
            None
        };
        if let Some(error) = error {
            log::warn!("nvme: {}: status {value:#x}: {error}", describe(&slot.entry));
            return self.finish(index, Err(error), completions);
        }
        self.statistics.retries += 1;
        let delay =
            usize::from(status.delay()).checked_sub(1).and_then(|which| self.controller.retry_delays.get(which));
        match delay {
            None | Some(0) => self.send(index),
            Some(delay) => {
                let until = self.now + Duration::from_millis(u64::from(*delay) * 100).min(LONGEST_DELAY);
                slot.progress = Progress::Held;
                slot.not_before = Some(until);
                self.delayed = true;
                self.look_at = self.look_at.min(until);
            }
        }
    }

    /// The command of a slot is done.
    pub(super) fn finish(&mut self, index: u16, result: Result<(), IoError>, completions: &mut Vec<Completion>) {
        if let Some(slot) = self.slots.get_mut(index) {
            completions.push(Completion { tag: slot.tag, result });
            self.slots.release(index);
        }
    }
}

/// A command for the log.
pub(super) fn describe(entry: &command::Entry) -> alloc::string::String {
    let [first, namespace, .., low, high, count, _, _, _] = entry;
    let name = match *first as u8 {
        io::FLUSH => return alloc::format!("flush of namespace {namespace}"),
        io::DATASET_MANAGEMENT => return alloc::format!("deallocation in namespace {namespace}"),
        io::READ => "read",
        io::WRITE => "write",
        _ => "write of zeroes",
    };
    let block = u64::from(*high) << 32 | u64::from(*low);
    alloc::format!("{name} of {} blocks from {block} of namespace {namespace}", (count & 0xFFFF) + 1)
}
