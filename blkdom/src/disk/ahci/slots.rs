//! A port's commands, from being taken to being answered. Pure. Floor 3.

use super::command::Task;
use super::memory::SLOTS;
use crate::disk::{IoError, Tag};
use alloc::collections::VecDeque;
use split_driver::time::Instant;

/// A command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slot {
    pub(super) tag: Tag,
    /// Without the tag of a queued command.
    pub(super) task: Task,
    /// Entries of its memory list.
    pub(super) entries: u16,
    /// First block and blocks, where it trims: the ranges are written when it goes to the drive.
    pub(super) trim: Option<(u64, u32)>,
    /// When it was first seen to be with the drive; `None` when sent after the last look.
    pub(super) since: Option<Instant>,
    /// Points for tries that did not come to an end.
    pub(super) strikes: u8,
    /// It goes to the drive when nothing else is there: so an error is certainly its own.
    pub(super) alone: bool,
    /// How it ends as soon as the port has stopped.
    pub(super) verdict: Option<IoError>,
}

/// All slots of a port. A queued command's tag is its slot.
pub(super) struct Slots {
    slots: [Option<Slot>; SLOTS],
    /// Slots that can be used.
    usable: u32,
    /// Commands that are to be sent, in that order.
    waiting: VecDeque<u8>,
    /// Commands that the drive has.
    sent: u32,
    /// What the drive has is one command that bears no other beside it.
    pub(super) solitary: bool,
    /// What the drive has is queued.
    pub(super) queued: bool,
}

impl Slots {
    pub(super) fn new() -> Self {
        Self { slots: [None; SLOTS], usable: 0, waiting: VecDeque::new(), sent: 0, solitary: false, queued: false }
    }

    /// Lets so many slots be used.
    pub(super) fn resize(&mut self, count: u8) {
        self.usable = (1u64 << count.min(SLOTS as u8)).wrapping_sub(1) as u32;
        self.waiting.reserve(usize::from(count));
    }

    /// A slot that is free.
    pub(super) fn next_free(&self) -> Option<u8> {
        let taken =
            self.slots.iter().zip(0u8..).fold(0, |bits, (slot, index)| bits | u32::from(slot.is_some()) << index);
        let free = self.usable & !taken;
        (free != 0).then(|| free.trailing_zeros() as u8)
    }

    /// Fills a free slot; its command waits.
    pub(super) fn take(&mut self, index: u8, slot: Slot) {
        if let Some(place) = self.slots.get_mut(usize::from(index)) {
            *place = Some(slot);
            self.waiting.push_back(index);
        }
    }

    pub(super) fn get_mut(&mut self, index: u8) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(index))?.as_mut()
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The commands that the drive has, one bit each.
    pub(super) const fn sent(&self) -> u32 {
        self.sent
    }

    /// The next command that may go to the drive beside those that it has: it has it from then on.
    pub(super) fn send_next(&mut self) -> Option<(u8, Slot)> {
        let index = *self.waiting.front()?;
        let slot = self.slots.get_mut(usize::from(index))?.as_mut()?;
        let alone = slot.alone || !slot.task.is_queued();
        if self.sent != 0 && (alone || self.solitary) {
            return None;
        }
        slot.since = None;
        self.waiting.pop_front();
        self.solitary = alone;
        self.queued = slot.task.is_queued();
        self.sent |= 1 << index;
        Some((index, *slot))
    }

    /// The drive has done with a command: gives it, and frees the slot.
    pub(super) fn release(&mut self, index: u8) -> Option<Slot> {
        let slot = self.slots.get_mut(usize::from(index))?.take()?;
        self.sent &= !(1 << index);
        self.waiting.retain(|waiting| *waiting != index);
        Some(slot)
    }

    /// The drive has forgotten its commands: they wait again, before the others. Each is shown to `mark`.
    pub(super) fn recall(&mut self, mut mark: impl FnMut(&mut Slot)) {
        for index in (0..SLOTS as u8).rev().filter(|index| self.sent >> index & 1 != 0) {
            if let Some(slot) = self.slots.get_mut(usize::from(index)).and_then(Option::as_mut) {
                mark(slot);
                self.waiting.push_front(index);
            }
        }
        self.sent = 0;
    }

    /// Takes out a waiting command that `wanted` says so of.
    pub(super) fn take_waiting(&mut self, wanted: impl Fn(&Slot) -> bool) -> Option<Slot> {
        let slot = |index: u8| self.slots.get(usize::from(index))?.as_ref();
        let index = self.waiting.iter().copied().find(|index| slot(*index).is_some_and(&wanted))?;
        self.release(index)
    }

    /// The commands that the drive has.
    pub(super) fn sent_mut(&mut self) -> impl Iterator<Item = (u8, &mut Slot)> {
        let sent = self.sent;
        let slots = self.slots.iter_mut().zip(0u8..).filter(move |(_, index)| sent >> index & 1 != 0);
        slots.filter_map(|(slot, index)| Some((index, slot.as_mut()?)))
    }
}
