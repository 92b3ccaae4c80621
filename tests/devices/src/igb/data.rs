//! The data path: queues give their transfers, and statistics count what came of them. Pure.

use super::registers::{self as reg};
use super::{Igb, Kind};
use crate::bus::Transfer;
use crate::gigabit;
use crate::queues::{Begins, Direction};
use crate::transmit::Wire;

/// Largest packet without segmentation: 9.5 KB, 7.2.1.1.
const LONGEST: usize = 9728;
/// Where the 82576's RQDPC stays, 8.10.12.
const MOST_DROPPED: u32 = 0xFFF;

impl Igb {
    pub(super) fn next_batch(&mut self) -> Vec<Transfer> {
        if self.faults.pulled_out || self.in_reset() || !self.configuration.masters_bus() {
            return Vec::new();
        }
        let receive = !self.registers.has(reg::CTRL, reg::CTRL_MASTER_DISABLE);
        let paused = self.now < self.paused_until;
        let transmit = receive && self.link && !paused && self.registers.has(reg::TCTL, reg::TCTL_EN);
        let begins = Begins { transmit, receive, hung: self.faults.hung_transmit };
        let kind = self.kind;
        self.queues.next_batch(&mut self.registers, begins, |registers, queue, dropped| {
            let counter = reg::receive(queue) + reg::RQDPC;
            registers.count(counter, dropped);
            if kind == Kind::I82576 {
                registers.set(counter, registers.get(counter).min(MOST_DROPPED));
            }
        })
    }

    pub(super) fn finish_batch(&mut self, batch: &[Transfer]) {
        for (direction, queue, range) in self.queues.end_batch() {
            let done = batch.get(range).unwrap_or_default();
            match direction {
                Direction::Transmit => self.sent(queue, done),
                Direction::Receive => self.received(queue, done),
            }
        }
    }

    fn sent(&mut self, index: usize, done: &[Transfer]) {
        // Linux's igb, too, has tags inserted only while they are stripped.
        let inserts = self.registers.has(reg::CTRL, reg::CTRL_VME);
        let wire = Wire { vlan: inserts.then(|| self.registers.get(reg::VET) as u16), longest: LONGEST };
        let outcome = self.queues.sent(&mut self.registers, index, done, wire, &mut self.misuse);
        for frame in outcome.frames {
            self.emit(frame);
        }
        if outcome.reported {
            self.tell_queue(index, Direction::Transmit);
        }
    }

    fn emit(&mut self, mut frame: Vec<u8>) {
        gigabit::emit(&mut self.registers, &mut self.misuse, &mut frame);
        if self.registers.has(reg::RCTL, reg::RCTL_LBM) {
            self.take_frame(&frame);
        } else {
            self.out.push_back(frame);
        }
    }

    fn received(&mut self, index: usize, done: &[Transfer]) {
        let outcome = self.queues.received(&mut self.registers, index, done, &mut self.misuse);
        if outcome.frames > 0 {
            self.tell_queue(index, Direction::Receive);
        }
    }

    fn tell_queue(&mut self, queue: usize, direction: Direction) {
        self.interrupts.queue(self.kind, queue, direction, &self.registers, &self.configuration);
    }
}
