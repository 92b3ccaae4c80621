//! What takes too long: abort, then reset the controller and send again what was in flight. Pure. Floor 3.
//!
//! A command that the device does not answer within the caller's patience has two points and is aborted; two more points, and it is
//! given up as soon as the device has let go of it, by answering the abort or by being reset. Each other command in flight at a reset
//! gets one: the one among them that makes the controller fail is given up in the end, and the others are not lost.

use super::io::{STRIKES, describe};
use super::slots::Progress;
use super::start::Step;
use super::{IO_QUEUE, Nvme, command};
use crate::disk::{Completion, Event, IoError};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;
use split_driver::memory::{DmaAllocator, Mmio, Quiesced};
use split_driver::time::Instant;

/// How long the device may take to abort a command and to answer it.
const ABORT_PATIENCE: Duration = Duration::from_secs(5);
/// How long the controller rests before each of the starts in a row that may fail: whatever made it fail (firmware that begins anew, a
/// link that is being retrained) may take its time.
const RESTS: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(5),
];
/// Points for a command that was not answered in time.
const OWN_STRIKES: u8 = 2;

/// An Abort that the device was asked for. There is one at a time: any controller can have that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Abort {
    /// Its own identifier.
    id: u16,
    /// The identifier of the command to be aborted.
    command: u16,
    deadline: Instant,
    answered: bool,
}

impl Abort {
    /// Whether an answer to admin command `id` is its own.
    pub(super) const fn is_awaiting(&self, id: u16) -> bool {
        !self.answered && self.id == id
    }
}

impl<M: Mmio, D: DmaAllocator> Nvme<M, D> {
    /// Looks for commands whose time has come, one way or the other.
    pub(super) fn look_after_commands(&mut self, completions: &mut Vec<Completion>) {
        if !self.live {
            return;
        }
        if self.delayed {
            self.send_delayed(completions);
        }
        if let Some(abort) = self.abort {
            let with_device = self.slots.find(abort.command).is_some();
            if !with_device && abort.answered {
                self.abort = None;
            } else if self.now >= abort.deadline {
                return self.recover(String::from("a command was not answered, nor could it be aborted"));
            }
        }
        let (now, patience) = (self.now, self.options.patience);
        let mut oldest = None;
        for (index, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.progress == Progress::Sent) {
            let since = *slot.since.get_or_insert(now);
            if !slot.aborting && now.since(since) >= patience && oldest.is_none_or(|(_, oldest)| since < oldest) {
                oldest = Some((index, since));
            }
        }
        if self.abort.is_none()
            && let Some((index, _)) = oldest
        {
            self.abort_command(index);
        }
    }

    fn abort_command(&mut self, index: u16) {
        let (Some(command), Some(slot)) = (self.slots.id(index), self.slots.get_mut(index)) else {
            return;
        };
        log::warn!("nvme: {}: not answered in {:?}, aborting it", describe(&slot.entry), self.options.patience);
        slot.aborting = true;
        slot.strikes = slot.strikes.saturating_add(OWN_STRIKES);
        self.statistics.aborts += 1;
        let id = self.send_admin(command::abort(IO_QUEUE, command));
        self.abort = Some(Abort { id, command, deadline: self.now + ABORT_PATIENCE, answered: false });
    }

    /// The Abort was answered. Whether the command was aborted shows in its own answer.
    pub(super) const fn abort_answered(&mut self) {
        if let Some(abort) = &mut self.abort {
            abort.answered = true;
        }
    }

    /// Sends held commands whose delay is over.
    fn send_delayed(&mut self, completions: &mut Vec<Completion>) {
        self.delayed = false;
        for index in 0..self.io.depth() {
            let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.progress == Progress::Held) else {
                continue;
            };
            match slot.not_before {
                Some(until) if until > self.now => {
                    self.delayed = true;
                    self.look_at = self.look_at.min(until);
                }
                _ if self.namespaces.get(slot.unit).is_none() => self.finish(index, Err(IoError::Gone), completions),
                _ => self.send(index),
            }
        }
    }

    /// The controller is of no use as it is: resets it, unless that has failed too often.
    pub(super) fn recover(&mut self, reason: String) {
        log::warn!("nvme: {reason}");
        let Some(rest) = RESTS.get(usize::from(self.failures)) else {
            return self.give_up(format!("{reason}; {} resets did not help", RESTS.len()));
        };
        self.failures += 1;
        self.statistics.resets += 1;
        self.events.push_back(Event::Recovering(reason));
        let (now, patience) = (self.now, self.options.patience);
        for (_, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.progress == Progress::Sent) {
            let late = slot.since.is_some_and(|since| now.since(since) >= patience);
            if !slot.aborting {
                slot.strikes = slot.strikes.saturating_add(if late { OWN_STRIKES } else { 1 });
            }
            slot.progress = Progress::Held;
        }
        self.disable();
        self.rest(*rest);
    }

    /// The controller works again, or for the first time: sends what is held.
    pub(super) fn resume(&mut self, completions: &mut Vec<Completion>) {
        self.delayed = false;
        for index in 0..self.io.depth() {
            let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.progress == Progress::Held) else {
                continue;
            };
            if self.namespaces.get(slot.unit).is_none() {
                self.finish(index, Err(IoError::Gone), completions);
            } else if slot.strikes >= STRIKES {
                log::warn!("nvme: {}: given up", describe(&slot.entry));
                self.finish(index, Err(IoError::TimedOut), completions);
            } else {
                self.send(index);
            }
        }
    }

    /// Completes all commands: none of them will be answered, and the device reaches their memory no longer.
    pub(super) fn complete_all_as_gone(&mut self, _proof: &Quiesced, completions: &mut Vec<Completion>) {
        debug_assert_eq!(self.step, Step::Dead);
        for index in 0..self.io.depth() {
            if self.slots.get_mut(index).is_some_and(|slot| slot.progress != Progress::Free) {
                self.finish(index, Err(IoError::Gone), completions);
            }
        }
    }
}
