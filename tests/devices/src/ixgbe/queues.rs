//! The data path: queues in turn give their transfers, and statistics count what came of them. Pure.

use super::Ixgbe;
use super::registers::{self as reg, count};
use crate::bus::Transfer;
use crate::queues::{Begins, Direction};
use crate::statistics::{self, SHORTEST};
use crate::transmit::Wire;

/// Largest packet without segmentation, 7.2.1.2.
const LONGEST: usize = 15_872;

impl Ixgbe {
    pub(super) fn next_batch(&mut self) -> Vec<Transfer> {
        if self.faults.pulled_out || self.in_reset() || !self.configuration.masters_bus() {
            return Vec::new();
        }
        let receive = !self.registers.has(reg::CTRL, reg::CTRL_MASTER_DISABLE);
        let transmit = receive
            && self.has_link()
            && self.now >= self.paused_until
            && self.registers.has(reg::DMATXCTL, reg::DMATXCTL_TE);
        let begins = Begins { transmit, receive, hung: self.faults.hung_transmit };
        self.queues.next_batch(&mut self.registers, begins, |registers, queue, dropped| {
            if queue < 16 {
                registers.count(count::QPRDC + 0x40 * queue, dropped);
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
        let wire = Wire { vlan: Some((self.registers.get(reg::DMATXCTL) >> 16) as u16), longest: LONGEST };
        let outcome = self.queues.sent(&mut self.registers, index, done, wire, &mut self.misuse);
        for frame in outcome.frames {
            self.emit(index, frame);
        }
        if outcome.reported {
            self.interrupts.queue(index, Direction::Transmit, &self.registers, &self.configuration);
        }
    }

    fn emit(&mut self, queue: usize, mut frame: Vec<u8>) {
        if frame.len() < SHORTEST && !self.registers.has(reg::HLREG0, reg::HLREG0_TXPADEN) {
            self.misuse.note("a short frame while HLREG0.TXPADEN is clear");
        }
        let registers = &mut self.registers;
        let bytes = statistics::sent(registers, &mut frame);
        if queue < 16 {
            registers.count(count::QPTC + 4 * queue, 1);
            registers.count_wide(count::QBTC + 8 * queue, bytes);
        }
        if registers.has(reg::HLREG0, reg::HLREG0_LPBK) {
            self.take_frame(&frame);
        } else {
            self.out.push_back(frame);
        }
    }

    fn received(&mut self, index: usize, done: &[Transfer]) {
        let outcome = self.queues.received(&mut self.registers, index, done, &mut self.misuse);
        if outcome.frames == 0 {
            return;
        }
        if index < 16 {
            self.registers.count(count::QPRC + 0x40 * index, outcome.frames as u32);
            self.registers.count_wide(count::QBRC + 0x40 * index, outcome.bytes as u64);
        }
        self.interrupts.queue(index, Direction::Receive, &self.registers, &self.configuration);
    }
}
