//! A submission queue and its completion queue in memory that the device reads and writes. Pure. Floor 3.
//!
//! Who pushes no more commands than there are slots (one less than entries) never runs into the device's head, so that is not followed:
//! what the device says of it is checked and forgotten.

use super::command::{ANSWER_WORDS, Answer, COMMAND_WORDS, Entry, Status};
use super::registers::Registers;
use core::sync::atomic::{Ordering, fence};
use split_driver::memory::{DeviceAddress, DmaAllocator, DmaMemory, Mmio};

/// Bytes of a submission queue entry.
const COMMAND_BYTES: usize = COMMAND_WORDS * 4;
/// Bytes of a completion queue entry.
const ANSWER_BYTES: usize = ANSWER_WORDS * 4;

/// A pair of queues.
pub(super) struct Queue<D> {
    id: u16,
    depth: u16,
    submission: D,
    completion: D,
    /// Where the next command goes, and what the device was told of that.
    tail: u16,
    told: u16,
    /// Where the next answer comes, and what the device was told of that.
    head: u16,
    acknowledged: u16,
    phase: bool,
}

impl<D: DmaMemory> Queue<D> {
    /// Queues of `depth` entries. `None` where there is no memory for them.
    pub(super) fn new<A: DmaAllocator<Memory = D>>(dma: &A, id: u16, depth: u16) -> Option<Self> {
        let entries = usize::from(depth);
        let submission = dma.allocate(entries * COMMAND_BYTES).ok()?;
        let completion = dma.allocate(entries * ANSWER_BYTES).ok()?;
        let fits =
            submission.words().len() >= entries * COMMAND_WORDS && completion.words().len() >= entries * ANSWER_WORDS;
        let queue = Self { id, depth, submission, completion, tail: 0, told: 0, head: 0, acknowledged: 0, phase: true };
        fits.then_some(queue)
    }

    pub(super) const fn depth(&self) -> u16 {
        self.depth
    }

    pub(super) fn submission_address(&self) -> DeviceAddress {
        self.submission.device_address(0)
    }

    pub(super) fn completion_address(&self) -> DeviceAddress {
        self.completion.device_address(0)
    }

    /// Empties both, for a device that has forgotten them.
    pub(super) fn reset(&mut self) {
        for word in self.completion.words() {
            word.store(0, Ordering::Relaxed);
        }
        (self.tail, self.told, self.head, self.acknowledged, self.phase) = (0, 0, 0, 0, true);
    }

    /// Writes a command; the device learns of it from [`Self::ring`].
    pub(super) fn push(&mut self, entry: &Entry) {
        let first = usize::from(self.tail) * COMMAND_WORDS;
        let slots = self.submission.words().get(first..first + COMMAND_WORDS).unwrap_or_default();
        for (slot, word) in slots.iter().zip(entry) {
            slot.store(*word, Ordering::Relaxed);
        }
        self.tail = self.after(self.tail);
    }

    /// Tells the device of what was pushed, if anything.
    pub(super) fn ring<M: Mmio>(&mut self, registers: &Registers<M>) {
        if self.tail != self.told {
            self.told = self.tail;
            fence(Ordering::Release);
            registers.write_submission_tail(self.id, self.tail);
        }
    }

    /// Whether an answer is there.
    pub(super) fn ready(&self) -> bool {
        self.status_word().is_some()
    }

    /// The last word of the next answer, where the device has written it.
    fn status_word(&self) -> Option<u32> {
        let last = usize::from(self.head) * ANSWER_WORDS + ANSWER_WORDS - 1;
        let word = self.completion.look(last..last + 1).first()?.load(Ordering::Acquire);
        (Status::from_bits((word >> 16) as u16).phase() == self.phase).then_some(word)
    }

    /// The next answer.
    pub(super) fn pop(&mut self) -> Option<Answer> {
        let status = self.status_word()?;
        let first = usize::from(self.head) * ANSWER_WORDS;
        let word = |index: usize| {
            let at = first + index;
            self.completion.look(at..at + 1).first().map_or(0, |word| word.load(Ordering::Relaxed))
        };
        let answer = Answer::parse([word(0), 0, word(2), status]);
        self.head = self.after(self.head);
        if self.head == 0 {
            self.phase = !self.phase;
        }
        Some(answer)
    }

    /// Gives the device the places of the answers taken, if any.
    pub(super) fn acknowledge<M: Mmio>(&mut self, registers: &Registers<M>) {
        if self.head != self.acknowledged {
            self.acknowledged = self.head;
            registers.write_completion_head(self.id, self.head);
        }
    }

    const fn after(&self, index: u16) -> u16 {
        if index + 1 >= self.depth { 0 } else { index + 1 }
    }
}
