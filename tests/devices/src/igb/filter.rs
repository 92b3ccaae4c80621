//! Which frames are taken, for which queue, and what their descriptors tell. 82576 datasheet 7.1.1, 7.1.2 and 7.1.5. Pure.

use super::interrupts::cause;
use super::registers::{self as reg, count};
use super::{Igb, Kind};
use crate::ethernet::{Address, destination};
use crate::gigabit;
use crate::packet::Headers;
use crate::pause;
use crate::queues::Direction;
use crate::receive::Incoming;
use crate::rss::{self, Places};
use crate::statistics;

impl Igb {
    /// A frame from the wire, without its frame check sequence.
    pub(super) fn take_frame(&mut self, frame: &[u8]) -> bool {
        if !self.link || self.faults.pulled_out || self.in_reset() || !self.registers.has(reg::RCTL, reg::RCTL_EN) {
            return false;
        }
        if self.registers.has(reg::CTRL, reg::CTRL_TFCE) {
            self.check_pause();
        }
        let mut frame = frame.to_vec();
        // As the sender's MAC pads it.
        frame.resize(frame.len().max(60), 0);
        let (bytes, vlan) = (frame.len() + 4, self.registers.get(reg::VET) as u16);
        let headers = Headers::parse(&frame, vlan);
        self.registers.count(count::TPR, 1);
        self.registers.count_wide(count::TOR, bytes as u64);
        let limit = match self.registers.has(reg::RCTL, reg::RCTL_LPE) {
            true => self.registers.get(reg::RLPML) as usize & 0x3FFF,
            false => 1518 + if headers.vlan.is_some() { 4 } else { 0 },
        };
        if bytes > limit {
            self.registers.count(count::ROC, 1);
            self.registers.count(count::RLEC, 1);
            return false;
        }
        if let Some(time) = pause::time_of(&frame) {
            self.registers.count(if time == 0 { count::XONRXC } else { count::XOFFRXC }, 1);
            if self.registers.has(reg::CTRL, reg::CTRL_RFCE) {
                self.paused_until = self.now + pause::duration(time, 1000);
                return true;
            }
        }
        let address = destination(&frame);
        if !self.accepts(address, headers.vlan) {
            return false;
        }
        statistics::received(&mut self.registers, &frame, bytes);
        let (queue, hash) = self.spread(&headers);
        if !self.queues.is_enabled(Direction::Receive, queue) {
            return false;
        }
        if self.queues.waiting() + frame.len() > self.kind.packet_memory() {
            self.registers.count(count::MPC, 1);
            self.raise(cause::MISSED);
            return false;
        }
        let incoming = self.describe(frame, &headers, hash);
        self.queues.push(queue, incoming);
        true
    }

    /// Filters of addresses and VLANs, 7.1.2.
    fn accepts(&self, address: Address, vlan: Option<u16>) -> bool {
        let own = (0..self.kind.addresses()).map(reg::ral);
        gigabit::accepts(&self.registers, own, address, vlan)
    }

    /// The queue, and type and value of the hash. 7.1.1.7.
    fn spread(&mut self, headers: &Headers) -> (usize, Option<(u32, u32)>) {
        match self.registers.get(reg::MRQC) & 7 {
            0 => return (0, None),
            2 => {}
            mode => {
                self.misuse.note(format!("MRQC of mode {mode}, which is not modelled"));
                return (0, None);
            }
        }
        if !self.registers.has(reg::RXCSUM, reg::RXCSUM_PCSD) {
            self.misuse.note("RSS while RXCSUM.PCSD is clear");
        }
        let places = Places { mrqc: reg::MRQC, key: reg::RSSRK, table: reg::RETA, more: None };
        let spread = rss::spread(&self.registers, places, headers);
        // The table's entries have as many bits as there are queues: 8.10.21.
        let queues = self.kind.queues();
        spread.map_or((0, None), |spread| (spread.queue % queues, Some((spread.kind, spread.hash))))
    }

    /// Whether tags are taken out. 8.2.1; on the I350 DVMOLR of the one pool must say so, too (I350 datasheet 8.10.20).
    fn strips_tags(&self) -> bool {
        let by_pool = self.kind != Kind::I350 || self.registers.has(reg::DVMOLR, reg::DVMOLR_STRVLAN);
        by_pool && self.registers.has(reg::CTRL, reg::CTRL_VME)
    }

    /// What the descriptor tells, and the frame as it goes to memory.
    fn describe(&self, frame: Vec<u8>, headers: &Headers, hash: Option<(u32, u32)>) -> Incoming {
        let mut about = gigabit::describe(&self.registers, headers);
        if let Some((kind, hash)) = hash.filter(|_| self.registers.has(reg::RXCSUM, reg::RXCSUM_PCSD)) {
            (about.hash_type, about.hash) = (kind, hash);
        }
        let checked = !self.registers.has(reg::RCTL, reg::RCTL_SECRC);
        let incoming = Incoming::new(frame, about, headers.vlan, self.strips_tags(), checked);
        Incoming { told: self.faults.wrong_length, ..incoming }
    }
}
