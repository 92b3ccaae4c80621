//! The data path: queues in turn give their transfers, and statistics count what came of them. Pure.

use super::registers::{self as reg, Direction, count};
use super::{Ixgbe, QUEUES};
use crate::bus::Transfer;
use crate::ethernet::{destination, is_broadcast, is_multicast};
use crate::receive::Settings;

/// Shortest frame, without its frame check sequence.
const SHORTEST: usize = 60;
/// Bytes of the frame check sequence.
const FRAME_CHECK: usize = 4;

/// Bytes of a batch of transfers from which on no other queue adds to it.
const BATCH: usize = 4 << 20;

fn bytes(transfers: Option<&[Transfer]>) -> usize {
    transfers.unwrap_or_default().iter().map(|transfer| transfer.data.len()).sum()
}

impl Ixgbe {
    pub(super) fn settings(&self, queue: usize) -> Settings {
        let control = self.registers.get(reg::receive(queue) + reg::SRRCTL);
        Settings { buffer: (control as usize & 0x1F) << 10, drop: control & reg::SRRCTL_DROP != 0 }
    }

    pub(super) fn next_batch(&mut self) -> Vec<Transfer> {
        let mut batch = Vec::new();
        if self.in_flight.is_some() || self.faults.pulled_out || self.in_reset() || !self.configuration.masters_bus() {
            return batch;
        }
        let begins = !self.registers.has(reg::CTRL, reg::CTRL_MASTER_DISABLE);
        let mut parts = Vec::new();
        let sends = begins && self.link && self.registers.has(reg::DMATXCTL, reg::DMATXCTL_TE);
        // Queues in turn, from another one each time, until the batch is large enough.
        let first = self.turn;
        self.turn = (first + 1) % QUEUES;
        let mut total = 0;
        for index in (first..QUEUES).chain(0..first) {
            let Some(queue) = self.transmit.get_mut(index).filter(|_| total < BATCH) else { break };
            let bit = 1u128 << index;
            let enabled = sends && self.transmit_enabled & bit != 0;
            if !queue.is_busy() && !enabled || self.faults.hung_transmit & bit != 0 {
                continue;
            }
            let start = batch.len();
            queue.poll(&self.registers, enabled, &mut batch);
            if batch.len() > start {
                total += bytes(batch.get(start..));
                parts.push((Direction::Transmit, index, start..batch.len()));
            }
        }
        for index in (first..QUEUES).chain(0..first) {
            let settings = self.settings(index);
            let Some(queue) = self.receive.get_mut(index).filter(|_| total < BATCH) else { break };
            let enabled = begins && self.receive_enabled >> index & 1 != 0;
            if !(queue.is_busy() || enabled && queue.waiting() > 0) {
                continue;
            }
            let start = batch.len();
            let dropped = queue.poll(&self.registers, enabled, settings, &mut batch);
            if batch.len() > start {
                total += bytes(batch.get(start..));
                parts.push((Direction::Receive, index, start..batch.len()));
            }
            if dropped > 0 && index < 16 {
                self.registers.count(count::QPRDC + 0x40 * index, dropped);
            }
        }
        if !batch.is_empty() {
            self.in_flight = Some(parts);
        }
        batch
    }

    pub(super) fn finish_batch(&mut self, batch: &[Transfer]) {
        for (direction, queue, range) in self.in_flight.take().unwrap_or_default() {
            let done = batch.get(range).unwrap_or_default();
            match direction {
                Direction::Transmit => self.sent(queue, done),
                Direction::Receive => self.received(queue, done),
            }
        }
    }

    fn sent(&mut self, index: usize, done: &[Transfer]) {
        let vlan = (self.registers.get(reg::DMATXCTL) >> 16) as u16;
        let Some(queue) = self.transmit.get_mut(index) else { return };
        let outcome = queue.handle(&mut self.registers, done, vlan, &mut self.misuse);
        for frame in outcome.frames {
            self.emit(index, frame);
        }
        if outcome.reported {
            self.interrupts.queue(index, Direction::Transmit, &self.registers, &self.configuration);
        }
    }

    fn emit(&mut self, queue: usize, mut frame: Vec<u8>) {
        if frame.len() < SHORTEST {
            if !self.registers.has(reg::HLREG0, reg::HLREG0_TXPADEN) {
                self.misuse.note("a short frame while HLREG0.TXPADEN is clear");
            }
            frame.resize(SHORTEST, 0);
        }
        let bytes = (frame.len() + FRAME_CHECK) as u64;
        let registers = &mut self.registers;
        registers.count(count::GPTC, 1);
        registers.count(count::TPT, 1);
        registers.count_wide(count::GOTC, bytes);
        match destination(&frame) {
            address if is_broadcast(address) => registers.count(count::BPTC, 1),
            address if is_multicast(address) => registers.count(count::MPTC, 1),
            _ => {}
        }
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
        let settings = self.settings(index);
        let Some(queue) = self.receive.get_mut(index) else { return };
        let outcome = queue.handle(&mut self.registers, done, settings, &mut self.misuse);
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
