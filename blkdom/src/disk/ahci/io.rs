//! Commands out, answers in. No allocation; a round costs a port two writes to send, and four accesses to see what is done. Pure.
//! Floor 3.

use super::command::{self, Task, opcode};
use super::identify::Identity;
use super::memory::List;
use super::port::{LOOK_PAUSE, Port, Step, Turn};
use super::registers::{self as reg, LinkStatus, PortRegisters, PortStatus, TaskFile, detection};
use super::slots::Slot;
use crate::disk::{Command, Completion, Operation, Refusal, SECTOR_BYTES};
use core::sync::atomic::{Ordering, fence};
use split_driver::memory::{DmaAllocator, DmaMemory, Mmio};
use split_driver::time::Instant;

/// Blocks that a command with a 16-bit count can cover.
const MOST_BLOCKS: u32 = 1 << 16;

/// Blocks of a drive.
#[derive(Clone, Copy)]
struct Blocks {
    first: u64,
    count: u32,
}

impl Blocks {
    /// The blocks of a command, checked against the drive's end.
    fn of(command: &Command<'_>, identity: &Identity) -> Result<Self, Refusal> {
        let per_block = identity.shift.saturating_sub(9);
        let whole = (command.sector | u64::from(command.sectors)).trailing_zeros() >= u32::from(per_block);
        let end = command.sector.checked_add(u64::from(command.sectors));
        if command.sectors == 0 || !whole || end.is_none_or(|end| end > identity.geometry.sectors) {
            return Err(Refusal::Malformed);
        }
        Ok(Self { first: command.sector >> per_block, count: command.sectors >> per_block })
    }
}

/// A command as it goes into a slot.
struct Prepared {
    task: Task,
    list: Option<List>,
    trim: Option<(u64, u32)>,
    /// Blocks that it covers.
    blocks: u32,
}

impl<D: DmaMemory> Port<D> {
    /// [`crate::disk::Disk::submit`].
    pub(super) fn take_command(&mut self, command: &Command<'_>) -> Result<u32, Refusal> {
        let identity = self.identity.as_ref().ok_or(Refusal::NoUnit)?;
        let prepared = prepare(command, identity, self.queues)?;
        if self.step != Step::Idle {
            return Err(Refusal::Full);
        }
        let index = self.slots.next_free().ok_or(Refusal::Full)?;
        let taken = prepared.blocks << identity.shift.saturating_sub(9);
        let entries = match &prepared.list {
            Some(list) => {
                self.memory.describe(index, list);
                list.len()
            }
            None => 0,
        };
        let slot = Slot {
            tag: command.tag,
            task: prepared.task,
            entries,
            trim: prepared.trim,
            since: None,
            strikes: 0,
            alone: false,
            verdict: None,
        };
        self.slots.take(index, slot);
        Ok(taken)
    }

    /// Sends what waits and may be sent: queued commands beside each other, all others alone.
    pub(super) fn issue<M: Mmio>(&mut self, io: &PortRegisters<'_, M>, now: Instant) {
        if self.step != Step::Idle || !self.slots.has_waiting() {
            return;
        }
        let (mut sent, mut queued) = (0u32, 0u32);
        while let Some((index, slot)) = self.slots.send_next() {
            let mut entries = slot.entries;
            if let Some((first, blocks)) = slot.trim {
                self.memory.fill_block(command::ranges(first, blocks));
                self.memory.describe_block(index);
                entries = 1;
            }
            let task = if slot.task.is_queued() { slot.task.with_tag(index) } else { slot.task };
            self.memory.write_command(index, &task, entries);
            sent |= 1 << index;
            queued |= u32::from(slot.task.is_queued()) << index;
        }
        if sent != 0 {
            fence(Ordering::Release);
            if queued != 0 {
                io.write(reg::PX_SACT, queued);
            }
            io.write(reg::PX_CI, sent);
            self.look_at.get_or_insert(now + LOOK_PAUSE);
        }
    }

    /// The port has something to say, or had: looks what.
    pub(super) fn handle_interrupt<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &mut Turn<'_, M, A>) {
        let status: PortStatus = turn.io.read(reg::PX_IS);
        turn.io.write(reg::PX_IS, status);
        match self.step {
            Step::Idle => self.collect(turn, status),
            Step::Identifying | Step::ReadingLog => self.collect_own(turn, status),
            Step::Empty | Step::Ignored | Step::Lost | Step::Halting(_) if status.is_link_change() => {
                self.handle_link_change(turn);
            }
            _ => {}
        }
    }

    /// Collects what the drive has done.
    fn collect<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &mut Turn<'_, M, A>, mut status: PortStatus) {
        let sent = self.slots.sent();
        let mut left: u32 = turn.io.read(reg::PX_CI);
        if self.slots.queued {
            left |= turn.io.read::<u32>(reg::PX_SACT);
        }
        if left & !sent != 0 {
            turn.statistics.nonsense += 1;
            if turn.statistics.nonsense.is_power_of_two() {
                log::warn!("ahci: port {}: commands {:#x} at work that were not sent", self.number, left & !sent);
            }
        }
        let mut done = sent & !left;
        if done != 0 && self.slots.solitary {
            // Its error may have come since the status was read.
            let more: PortStatus = turn.io.read(reg::PX_IS);
            turn.io.write(reg::PX_IS, more);
            status = PortStatus::from(u32::from(status) | u32::from(more));
        }
        self.stale &= done == 0;
        let unsaid = self.slots.queued && status.device_bits() && done == 0 && sent != 0 && self.reports_error(turn);
        let failed = status.is_refusal() || status.is_fatal() || unsaid;
        if failed && self.slots.solitary {
            // Some adapters take a command that failed off the list, too.
            done = 0;
        }
        while done != 0 {
            let index = done.trailing_zeros() as u8;
            done &= done - 1;
            if let Some(slot) = self.slots.release(index) {
                turn.completions.push(Completion { tag: slot.tag, result: Ok(()) });
            }
        }
        if status.is_link_change() {
            self.handle_link_change(turn);
        } else if failed {
            self.handle_error(turn, status);
        }
    }

    /// Whether the drive reports an error: QEMU before 8.1 does not say so of queued commands in PxIS.
    pub(super) fn reports_error<M: Mmio, A>(&self, turn: &Turn<'_, M, A>) -> bool {
        let state: TaskFile = turn.io.read(reg::PX_TFD);
        state.error() && state.is_idle() && !self.stale
    }

    /// Looks for the end of a command of the driver's own.
    fn collect_own<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &mut Turn<'_, M, A>, status: PortStatus) {
        let left: u32 = turn.io.read(reg::PX_CI);
        let more: PortStatus = turn.io.read(reg::PX_IS);
        let status = PortStatus::from(u32::from(status) | u32::from(more));
        if status.is_link_change() {
            self.handle_link_change(turn);
        } else if status.is_refusal() || status.is_fatal() {
            if self.step == Step::ReadingLog {
                self.log_read(turn, false)
            } else {
                self.fail(turn, "it does not tell what it is")
            }
        } else if left & 1 == 0 {
            if self.step == Step::ReadingLog { self.log_read(turn, true) } else { self.identified(turn) }
        }
    }

    /// Something was plugged in or pulled out, or the link broke for a moment.
    fn handle_link_change<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &mut Turn<'_, M, A>) {
        self.clear_status(turn);
        let link: LinkStatus = turn.io.read(reg::PX_SSTS);
        let linked = link.detection() == detection::LINK;
        match self.step {
            Step::Empty | Step::Ignored if link.detection() == 0 => self.rest(turn, Step::Empty),
            Step::Lost if !linked => {}
            _ if !linked && self.identity.is_some() => self.lose_link(turn),
            _ => {
                // Perhaps it is another drive.
                self.strike(turn, 1, None);
                self.begin(turn);
            }
        }
    }
}

/// What a command asks of the drive.
fn prepare(command: &Command<'_>, identity: &Identity, queues: bool) -> Result<Prepared, Refusal> {
    let geometry = &identity.geometry;
    match command.operation {
        Operation::Flush => Ok(Prepared { task: Task::plain(opcode::FLUSH), list: None, trim: None, blocks: 0 }),
        Operation::Read => {
            let opcodes = if queues { opcode::READ_QUEUED } else { opcode::READ_DMA };
            transfer(command, identity, queues, opcodes, false)
        }
        Operation::Write { force_unit_access } => {
            // Without a cache each write is durable.
            let durable = force_unit_access && geometry.volatile_cache;
            let opcode = match (queues, durable) {
                (_, true) if !identity.durable_writes => return Err(Refusal::Unsupported),
                (true, _) => opcode::WRITE_QUEUED,
                (false, true) => opcode::WRITE_DMA_DURABLE,
                (false, false) => opcode::WRITE_DMA,
            };
            transfer(command, identity, queues, opcode, durable)
        }
        Operation::Discard { secure: false } if geometry.discard.is_some() => {
            let Blocks { first, count } = Blocks::of(command, identity)?;
            let blocks = count.min(Identity::trim_blocks());
            Ok(Prepared { task: Task::trim(), list: None, trim: Some((first, blocks)), blocks })
        }
        Operation::Discard { .. } | Operation::WriteZeroes => Err(Refusal::Unsupported),
    }
}

/// A read or a write: as much as a memory list can say and one command may move.
fn transfer(
    command: &Command<'_>,
    identity: &Identity,
    queues: bool,
    opcode: u8,
    durable: bool,
) -> Result<Prepared, Refusal> {
    let blocks = Blocks::of(command, identity)?;
    let bytes = u64::from(command.sectors) * u64::from(SECTOR_BYTES);
    if command.data.iter().map(|segment| u64::from(segment.bytes)).sum::<u64>() != bytes {
        return Err(Refusal::Malformed);
    }
    let most = u32::try_from(bytes).unwrap_or(u32::MAX).min(MOST_BLOCKS << identity.shift);
    let list = List::of(command.data, most, 1 << identity.shift)?;
    let count = list.bytes >> identity.shift;
    let task = match queues {
        true => Task::queued(opcode, blocks.first, count, durable),
        false => Task::unqueued(opcode, blocks.first, count),
    };
    Ok(Prepared { task, list: Some(list), trim: None, blocks: count })
}
