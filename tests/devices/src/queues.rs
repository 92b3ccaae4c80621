//! The queues of a device: the effects of their registers, and their transfers in turn. Pure.

use std::ops::Range;

use crate::advanced::Advanced;
use crate::buffers::Buffers;
use crate::bus::{Misuse, Transfer};
use crate::receive::{self, ReceiveQueue};
use crate::registers::Registers;
use crate::ring::{self, offset as place};
use crate::transmit::{self, Format, TransmitQueue, Wire};

/// Direction of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the wire.
    Receive,
    /// To the wire.
    Transmit,
}

/// Where a device has the registers of its queues.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Queues in each direction, 128 at most.
    pub queues: usize,
    /// First register of a transmit queue.
    pub transmit: fn(usize) -> usize,
    /// First register of a receive queue.
    pub receive: fn(usize) -> usize,
    /// How it is told of receive buffers.
    pub buffers: Buffers,
}

/// The work that may be begun now.
#[derive(Clone, Copy, Debug)]
pub struct Begins {
    /// Packets are sent.
    pub transmit: bool,
    /// Frames are received.
    pub receive: bool,
    /// Transmit queues that hang, as bits.
    pub hung: u128,
}

/// A part of a batch: whose, and which transfers.
pub type Part = (Direction, usize, Range<usize>);

/// Bytes of a batch of transfers from which on no other queue adds to it.
const BATCH: usize = 4 << 20;

/// All queues of a device.
#[derive(Debug)]
pub struct Queues<F: Format = Advanced> {
    layout: Layout,
    transmit: Box<[TransmitQueue<F>]>,
    receive: Box<[ReceiveQueue]>,
    /// Queues that are enabled, as bits.
    transmit_enabled: u128,
    receive_enabled: u128,
    /// A batch of transfers is out, and whose its parts are.
    in_flight: Option<Vec<Part>>,
    /// The queue that comes first in the next batch.
    turn: usize,
}

impl<F: Format> Queues<F> {
    /// Queues that are disabled.
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            transmit: (0..layout.queues).map(|queue| TransmitQueue::new((layout.transmit)(queue))).collect(),
            receive: (0..layout.queues).map(|queue| ReceiveQueue::new((layout.receive)(queue))).collect(),
            transmit_enabled: 0,
            receive_enabled: 0,
            in_flight: None,
            turn: 0,
        }
    }

    /// As after a reset. The bus may still do a batch that is out; its result is ignored.
    pub fn reset(&mut self) {
        self.transmit.iter_mut().for_each(TransmitQueue::reset);
        self.receive.iter_mut().for_each(ReceiveQueue::reset);
        (self.transmit_enabled, self.receive_enabled) = (0, 0);
        if let Some(parts) = &mut self.in_flight {
            parts.clear();
        }
    }

    /// Whether a batch is out.
    pub const fn is_in_flight(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Context descriptors that the queues took since each was enabled.
    pub fn contexts_seen(&self) -> usize {
        self.transmit.iter().map(TransmitQueue::contexts_seen).sum()
    }

    /// Bytes that wait for descriptors.
    pub fn waiting(&self) -> usize {
        self.receive.iter().map(ReceiveQueue::waiting).sum()
    }

    /// Puts a frame behind those that wait for descriptors of a queue.
    pub fn push(&mut self, queue: usize, incoming: receive::Incoming) {
        if let Some(queue) = self.receive.get_mut(queue) {
            queue.push(incoming);
        }
    }

    const fn bits(&self, direction: Direction) -> u128 {
        match direction {
            Direction::Transmit => self.transmit_enabled,
            Direction::Receive => self.receive_enabled,
        }
    }

    /// Whether a queue is enabled.
    pub const fn is_enabled(&self, direction: Direction, queue: usize) -> bool {
        queue < self.layout.queues && self.bits(direction) >> queue & 1 != 0
    }

    /// First register of a queue.
    pub fn first(&self, direction: Direction, queue: usize) -> usize {
        match direction {
            Direction::Transmit => (self.layout.transmit)(queue),
            Direction::Receive => (self.layout.receive)(queue),
        }
    }

    /// RXDCTL or TXDCTL, `held` in the register. ENABLE shows also while the queue ends what it began, and where `stuck`, as long as the
    /// queue has a ring.
    pub fn control(&self, direction: Direction, queue: usize, held: u32, stuck: bool, registers: &Registers) -> u32 {
        let busy = match direction {
            Direction::Transmit => self.transmit.get(queue).is_some_and(TransmitQueue::is_busy),
            Direction::Receive => self.receive.get(queue).is_some_and(ReceiveQueue::is_busy),
        };
        let has_ring = || registers.get(self.first(direction, queue) + place::LENGTH) != 0;
        let enabled = self.is_enabled(direction, queue) || busy || stuck && has_ring();
        held & !ring::ENABLE | if enabled { ring::ENABLE } else { 0 }
    }

    /// Register `at` of a queue is written. `masters` tells whether the device may reach memory.
    pub fn write(
        &mut self,
        registers: &mut Registers,
        (direction, queue, at): (Direction, usize, usize),
        value: u32,
        masters: bool,
        misuse: &mut Misuse,
    ) {
        let first = self.first(direction, queue);
        let enabled = self.is_enabled(direction, queue);
        match at {
            place::CONTROL => {
                registers.set(first + at, value & !ring::FLUSH);
                if enabled != (value & ring::ENABLE != 0) {
                    self.switch(registers, direction, queue, !enabled, masters, misuse);
                }
                return;
            }
            place::TAIL => {
                let count = registers.get(first + place::LENGTH) / 16;
                if value >= count.max(1) {
                    misuse.note(format!("a tail of {value} in a ring of {count}"));
                    return;
                }
                if !enabled && value != 0 {
                    misuse.note("the tail of a queue that is not enabled was moved");
                }
                if enabled && !masters {
                    misuse.note("a tail was moved while bus mastering is off");
                }
            }
            0x00..=place::LENGTH | place::HEAD if enabled => {
                misuse.note("a ring was moved while its queue is enabled");
            }
            _ => {}
        }
        registers.set(first + at, value);
    }

    /// A queue is enabled, or disabled. `masters` tells whether the device may reach memory.
    pub fn switch(
        &mut self,
        registers: &Registers,
        direction: Direction,
        queue: usize,
        on: bool,
        masters: bool,
        misuse: &mut Misuse,
    ) {
        let bit = 1u128.checked_shl(queue as u32).unwrap_or(0);
        let bits = match direction {
            Direction::Transmit => &mut self.transmit_enabled,
            Direction::Receive => &mut self.receive_enabled,
        };
        if !on {
            *bits &= !bit;
            return;
        }
        *bits |= bit;
        let first = self.first(direction, queue);
        if let Some(fault) = ring::fault(registers, first) {
            misuse.note(fault);
        }
        if !masters {
            misuse.note("a queue was enabled while bus mastering is off");
        }
        match direction {
            Direction::Transmit => {
                if let Some(queue) = self.transmit.get_mut(queue).filter(|queue| !queue.is_busy()) {
                    queue.reset();
                }
            }
            Direction::Receive => {
                self.layout.buffers.check(registers, first, misuse);
                if let Some(queue) = self.receive.get_mut(queue).filter(|queue| !queue.is_busy()) {
                    queue.reset();
                }
            }
        }
    }

    /// Transfers of queues in turn, from another one each time, until there are enough; none while a batch is out. `dropped` is told of
    /// frames of a queue that were lost for want of descriptors.
    pub fn next_batch(
        &mut self,
        registers: &mut Registers,
        begins: Begins,
        mut dropped: impl FnMut(&mut Registers, usize, u32),
    ) -> Vec<Transfer> {
        let mut batch = Vec::new();
        if self.in_flight.is_some() {
            return batch;
        }
        let bytes = |batch: &[Transfer]| batch.iter().map(|transfer| transfer.data.len()).sum::<usize>();
        let mut parts = Vec::new();
        let (first, queues) = (self.turn, self.layout.queues);
        self.turn = (first + 1) % queues;
        let mut total = 0;
        for index in (first..queues).chain(0..first) {
            let enabled = begins.transmit && self.is_enabled(Direction::Transmit, index);
            let Some(queue) = self.transmit.get_mut(index).filter(|_| total < BATCH) else { break };
            if !queue.is_busy() && !enabled || begins.hung >> index & 1 != 0 {
                continue;
            }
            let start = batch.len();
            queue.poll(registers, enabled, &mut batch);
            if batch.len() > start {
                total += bytes(batch.get(start..).unwrap_or_default());
                parts.push((Direction::Transmit, index, start..batch.len()));
            }
        }
        for index in (first..queues).chain(0..first) {
            let settings = self.layout.buffers.settings(registers, self.first(Direction::Receive, index));
            let enabled = begins.receive && self.is_enabled(Direction::Receive, index);
            let Some(queue) = self.receive.get_mut(index).filter(|_| total < BATCH) else { break };
            if !(queue.is_busy() || enabled && queue.waiting() > 0) {
                continue;
            }
            let start = batch.len();
            let lost = queue.poll(registers, enabled, settings, &mut batch);
            if batch.len() > start {
                total += bytes(batch.get(start..).unwrap_or_default());
                parts.push((Direction::Receive, index, start..batch.len()));
            }
            if lost > 0 {
                dropped(registers, index, lost);
            }
        }
        if !batch.is_empty() {
            self.in_flight = Some(parts);
        }
        batch
    }

    /// The batch came back: its parts, for [`Self::sent`] and [`Self::received`].
    pub fn end_batch(&mut self) -> Vec<Part> {
        self.in_flight.take().unwrap_or_default()
    }

    /// A transmit queue's part of a batch.
    pub fn sent(
        &mut self,
        registers: &mut Registers,
        queue: usize,
        done: &[Transfer],
        wire: Wire,
        misuse: &mut Misuse,
    ) -> transmit::Outcome {
        let queue = self.transmit.get_mut(queue);
        queue.map(|queue| queue.handle(registers, done, wire, misuse)).unwrap_or_default()
    }

    /// A receive queue's part of a batch.
    pub fn received(
        &mut self,
        registers: &mut Registers,
        queue: usize,
        done: &[Transfer],
        misuse: &mut Misuse,
    ) -> receive::Outcome {
        let settings = self.layout.buffers.settings(registers, self.first(Direction::Receive, queue));
        let queue = self.receive.get_mut(queue);
        queue.map(|queue| queue.handle(registers, done, settings, misuse)).unwrap_or_default()
    }
}

#[cfg(test)]
pub(crate) mod tests;
