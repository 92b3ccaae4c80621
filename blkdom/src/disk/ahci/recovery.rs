//! What fails and what takes too long (AHCI 6.2.2). Pure. Floor 3.
//!
//! A command that the drive refuses fails by itself: an unqueued one is alone with the drive, and of queued ones the drive's log says
//! which it was. Where that is not to be learned, and where the port stopped for another reason, those in flight are sent once more,
//! one at a time: the next error is certainly the command's own.
//!
//! A command that is not answered in time has two points; each other one in flight then, and each at an error that is not known to be
//! one command's, gets one. With four, a command is given up; the link is reset before its memory is given back.

use super::command::{FailedCommand, opcode};
use super::memory::BLOCK_WORDS;
use super::port::{After, ENGINE_PATIENCE, LOOK_PAUSE, Port, REGISTER_PAUSE, Step, Turn};
use super::registers::{self as reg, PortCommand, PortStatus, TaskFile};
use super::slots::Slot;
use crate::disk::{Completion, IoError};
use core::time::Duration;
use split_driver::memory::{DmaAllocator, DmaMemory, Mmio};

/// Points with which a command is given up.
const STRIKES: u8 = 4;
/// Points for a command that was not answered in time.
const OWN_STRIKES: u8 = 2;
/// The error register: the link garbled the data (ATA8-ACS 6.3: ICRC); the command was refused as such (ABRT).
const GARBLED: u32 = 1 << 7;
const ABORTED: u32 = 1 << 2;

impl<D: DmaMemory> Port<D> {
    /// The port stopped with an error.
    pub(super) fn handle_error<M: Mmio, A: DmaAllocator<Memory = D>>(
        &mut self,
        turn: &mut Turn<'_, M, A>,
        status: PortStatus,
    ) {
        let state: TaskFile = turn.io.read(reg::PX_TFD);
        turn.statistics.errors += 1;
        self.suspects = self.slots.sent();
        let after = if status.is_fatal() {
            log::warn!("ahci: port {}: error {:#x} of the link or of memory", self.number, u32::from(status));
            self.strike(turn, 1, Some(IoError::Device { code: state.code() }));
            self.suspect();
            After::Reset
        } else if self.slots.solitary || self.suspects == 0 {
            let mut retries = 0;
            for (_, slot) in self.slots.sent_mut() {
                retries += u64::from(judge(self.number, slot, state.code()));
            }
            turn.statistics.retries += retries;
            // A queued one has the drive refuse all others until its log is read or its link is reset.
            if self.slots.queued { After::Reset } else { After::Resume }
        } else {
            After::ReadLog
        };
        self.slots.recall(|_| {});
        let command: PortCommand = turn.io.read(reg::PX_CMD);
        turn.io.write(reg::PX_CMD, command.with_start(false));
        self.enter(Step::Halting(after), turn.now, ENGINE_PATIENCE, Duration::ZERO);
    }

    /// Waits until the list is not worked on any more, and goes on.
    pub(super) fn await_halt<M: Mmio, A: DmaAllocator<Memory = D>>(
        &mut self,
        turn: &mut Turn<'_, M, A>,
        command: PortCommand,
        after: After,
        late: bool,
    ) {
        if command.running() {
            self.look_at = Some(turn.now + REGISTER_PAUSE);
            if late {
                self.begin(turn);
            }
            return;
        }
        self.complete_judged(turn);
        if after == After::Retire {
            return self.rest(turn, Step::Ignored);
        }
        let state: TaskFile = turn.io.read(reg::PX_TFD);
        if after == After::Reset || !state.is_idle() {
            return self.begin(turn);
        }
        // Reading the log leaves no error behind.
        self.stale = after == After::Resume && state.error();
        self.clear_status(turn);
        self.start(turn);
        match after {
            After::ReadLog => self.read_log(turn),
            After::Resume | After::Reset | After::Retire => self.resume(turn),
        }
    }

    /// The log of queued errors was read, or not.
    pub(super) fn log_read<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &mut Turn<'_, M, A>, read: bool) {
        let mut bytes = [0; BLOCK_WORDS * 4];
        for (place, word) in bytes.chunks_exact_mut(4).zip(self.memory.block()) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let found = FailedCommand::parse(&bytes).filter(|error| read && self.suspects >> error.tag & 1 != 0);
        let slot = found.and_then(|error| Some((error, self.slots.get_mut(error.tag)?)));
        let Some((error, slot)) = slot else {
            log::warn!("ahci: port {}: the drive does not tell which command failed: one by one", self.number);
            self.suspect();
            // A drive refuses all others until its log is read or its link is reset.
            return self.begin(turn);
        };
        turn.statistics.retries += u64::from(judge(self.number, slot, error.code));
        self.complete_judged(turn);
        self.resume(turn);
    }

    /// Takes commands (again).
    pub(super) fn resume<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &mut Turn<'_, M, A>) {
        self.step = Step::Idle;
        self.look_at = None;
        self.idle = None;
        self.suspects = 0;
        self.complete_judged(turn);
        self.issue(&turn.io, turn.now);
    }

    /// One of the suspects is to blame: from now on each goes alone.
    fn suspect(&mut self) {
        for index in (0..32).filter(|index| self.suspects >> index & 1 != 0) {
            if let Some(slot) = self.slots.get_mut(index) {
                slot.alone = true;
            }
        }
    }

    /// Gives points to all that the drive has. Who has enough is given up, with `error` or as not answered.
    pub(super) fn strike<M, A>(&mut self, turn: &Turn<'_, M, A>, points: u8, error: Option<IoError>) {
        let (now, patience) = (turn.now, turn.patience);
        for (_, slot) in self.slots.sent_mut() {
            let late = slot.since.is_some_and(|since| now.since(since) >= patience);
            slot.strikes = slot.strikes.saturating_add(if late { OWN_STRIKES } else { points });
            if slot.strikes >= STRIKES {
                slot.verdict = Some(error.unwrap_or(IoError::TimedOut));
            }
        }
    }

    /// Completes what was given up. The drive has let go of it.
    pub(super) fn complete_judged<M, A>(&mut self, turn: &mut Turn<'_, M, A>) {
        while let Some(slot) = self.slots.take_waiting(|slot| slot.verdict.is_some()) {
            let Some(error) = slot.verdict else {
                continue;
            };
            log::warn!("ahci: port {}: {}: {error}", self.number, slot.task.describe());
            turn.completions.push(Completion { tag: slot.tag, result: Err(error) });
        }
    }

    /// Looks for commands whose time is over. Called once a [`LOOK_PAUSE`] while the drive has any.
    pub(super) fn look_after_commands<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &mut Turn<'_, M, A>) {
        self.look_at = None;
        // An interrupt may have been lost.
        self.handle_interrupt(turn);
        if self.step != Step::Idle || self.slots.sent() == 0 {
            return;
        }
        self.look_at = Some(turn.now + LOOK_PAUSE);
        if self.slots.queued && self.reports_error(turn) {
            return self.handle_error(turn, PortStatus::new().with_task_file(true));
        }
        let (now, patience) = (turn.now, turn.patience);
        let mut late = 0;
        for (_, slot) in self.slots.sent_mut() {
            let since = *slot.since.get_or_insert(now);
            if now.since(since) >= patience {
                late += 1;
                log::warn!("ahci: port {}: {}: not answered in {patience:?}", self.number, slot.task.describe());
            }
        }
        if late > 0 {
            turn.statistics.timeouts += late;
            turn.statistics.resets += 1;
            self.strike(turn, 1, None);
            self.begin(turn);
        }
    }
}

/// The drive refused a command: it failed, or it is worth another try. Gives whether it is.
pub(super) fn judge(port: u8, slot: &mut Slot, code: u32) -> bool {
    if code & GARBLED != 0 && slot.strikes + 1 < STRIKES {
        log::warn!("ahci: port {port}: {}: the link garbled it", slot.task.describe());
        slot.strikes += 1;
        return true;
    }
    let unknown = slot.task.opcode == opcode::DATA_SET_MANAGEMENT && code & ABORTED != 0;
    slot.verdict = Some(if unknown { IoError::Unsupported } else { IoError::Device { code } });
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Tag;
    use crate::disk::ahci::command::Task;

    #[test]
    fn a_trim_that_the_drive_does_not_have_after_all_is_unsupported() {
        let judged = |opcode, error: u8| {
            let mut slot = Slot {
                tag: Tag(0),
                task: Task::plain(opcode),
                entries: 0,
                trim: None,
                since: None,
                strikes: 0,
                alone: false,
                verdict: None,
            };
            judge(0, &mut slot, 0x5100 | u32::from(error));
            slot.verdict
        };
        let aborted = ABORTED as u8;
        assert_eq!(judged(opcode::DATA_SET_MANAGEMENT, aborted), Some(IoError::Unsupported));
        assert_eq!(judged(opcode::FLUSH, aborted), Some(IoError::Device { code: 0x5104 }));
    }
}
