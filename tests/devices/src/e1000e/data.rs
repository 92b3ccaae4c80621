//! The data path: frames out, frames in, and statistics of them. 82574 datasheet 7.1, 7.2 and 10.2.7. Pure.

use super::E1000e;
use super::interrupts::cause;
use super::registers::{self as reg, count};
use crate::advanced::Received;
use crate::bus::Transfer;
use crate::ethernet::{Address, destination};
use crate::gigabit;
use crate::packet::Headers;
use crate::pause;
use crate::queues::{Begins, Direction};
use crate::receive::Incoming;
use crate::statistics::{self, FRAME_CHECK, SHORTEST};
use crate::transmit::Wire;

/// Largest frame, without its frame check sequence; 82574 datasheet 1.3.
const LONGEST: usize = 9234 - FRAME_CHECK;
/// Largest frame without RCTL.LPE, frame check sequence and tag included.
const STANDARD: usize = 1522;
/// Addresses of its own.
const ADDRESSES: usize = 16;

impl E1000e {
    pub(super) fn next_batch(&mut self) -> Vec<Transfer> {
        if self.faults.pulled_out || self.in_reset() || !self.configuration.masters_bus() {
            return Vec::new();
        }
        let receive = !self.registers.has(reg::CTRL, reg::CTRL_MASTER_DISABLE);
        let transmit = receive && self.link && self.now >= self.paused_until;
        let begins = Begins { transmit, receive, hung: self.faults.hung_transmit };
        // Lost is a frame that the ring could never hold.
        self.queues.next_batch(&mut self.registers, begins, |registers, _, lost| registers.count(count::MPC, lost))
    }

    pub(super) fn finish_batch(&mut self, batch: &[Transfer]) {
        for (direction, queue, range) in self.queues.end_batch() {
            let done = batch.get(range).unwrap_or_default();
            let tells = match direction {
                Direction::Transmit => self.sent(queue, done),
                Direction::Receive => {
                    self.queues.received(&mut self.registers, queue, done, &mut self.misuse).frames > 0
                }
            };
            if tells {
                self.interrupts.queue(direction, &self.registers, &self.configuration);
            }
        }
    }

    fn sent(&mut self, queue: usize, done: &[Transfer]) -> bool {
        // 7.5.2.1.
        let inserts = self.registers.has(reg::CTRL, reg::CTRL_VME);
        let wire = Wire { vlan: inserts.then(|| self.registers.get(reg::VET) as u16), longest: LONGEST };
        let outcome = self.queues.sent(&mut self.registers, queue, done, wire, &mut self.misuse);
        for frame in outcome.frames {
            self.emit(frame);
        }
        outcome.reported
    }

    fn emit(&mut self, mut frame: Vec<u8>) {
        gigabit::emit(&mut self.registers, &mut self.misuse, &mut frame);
        if self.registers.has(reg::RCTL, reg::RCTL_LBM) {
            self.take_frame(&frame);
        } else {
            self.out.push_back(frame);
        }
    }

    /// A frame from the wire, without its frame check sequence. It waits in packet memory for descriptors, 7.1.3.
    pub(super) fn take_frame(&mut self, frame: &[u8]) -> bool {
        let enabled = self.queues.is_enabled(Direction::Receive, 0);
        if !self.link || !self.cable || self.faults.pulled_out || self.in_reset() || !enabled {
            return false;
        }
        if self.registers.has(reg::CTRL, reg::CTRL_TFCE) {
            self.check_pause();
        }
        let mut frame = frame.to_vec();
        // As the sender's MAC pads it.
        frame.resize(frame.len().max(SHORTEST), 0);
        let bytes = frame.len() + FRAME_CHECK;
        let headers = Headers::parse(&frame, self.registers.get(reg::VET) as u16);
        self.registers.count(count::TPR, 1);
        self.registers.count_wide(count::TOR, bytes as u64);
        let limit = if self.registers.has(reg::RCTL, reg::RCTL_LPE) { LONGEST + FRAME_CHECK } else { STANDARD };
        if bytes > limit {
            self.registers.count(count::ROC, 1);
            return false;
        }
        if let Some(time) = pause::time_of(&frame) {
            self.registers.count(if time == 0 { count::XONRXC } else { count::XOFFRXC }, 1);
            if self.registers.has(reg::CTRL, reg::CTRL_RFCE) {
                self.paused_until = self.now + pause::duration(time, self.megabits());
            }
            // 10.2.5.1: without RCTL.DPF the filters decide.
            if self.registers.has(reg::RCTL, reg::RCTL_DPF) {
                return true;
            }
        }
        let address = destination(&frame);
        if !self.accepts(address, headers.vlan) {
            return false;
        }
        if self.registers.has(reg::MRQC, 3) {
            self.misuse.note("receive side scaling, which is not modelled");
        }
        let room = (self.registers.get(reg::PBA) as usize & 0x3F) << 10;
        if self.queues.waiting() + frame.len() > room {
            self.registers.count(count::MPC, 1);
            self.raise(cause::OVERRUN);
            return false;
        }
        statistics::received(&mut self.registers, &frame, bytes);
        let incoming = self.describe(frame, &headers);
        self.queues.push(0, incoming);
        true
    }

    /// Filters of addresses and VLANs, 7.1.1.
    fn accepts(&self, address: Address, vlan: Option<u16>) -> bool {
        let own = (0..ADDRESSES).map(|index| reg::RAL + 8 * index);
        gigabit::accepts(&self.registers, own, address, vlan)
    }

    /// The descriptor's contents, and the frame as it goes to memory. The 82574 tells no packet type, 7.1.4.
    fn describe(&self, frame: Vec<u8>, headers: &Headers) -> Incoming {
        let about = Received { packet_type: 0, ..gigabit::describe(&self.registers, headers) };
        let strips = self.registers.has(reg::CTRL, reg::CTRL_VME);
        let incoming =
            Incoming::new(frame, about, headers.vlan, strips, !self.registers.has(reg::RCTL, reg::RCTL_SECRC));
        Incoming { told: self.faults.wrong_length, ..incoming }
    }
}
