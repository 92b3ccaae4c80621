//! Which frames are taken, for which queue, and what their descriptors tell. 82599 datasheet 7.1.1, 7.1.2 and 7.1.6. Pure.

use super::registers::{self as reg, count};
use super::{Ixgbe, Kind, cause};
use crate::advanced::{Errors, Received, Verify};
use crate::ethernet::{Address, destination, is_broadcast, is_multicast};
use crate::filter;
use crate::packet::Headers;
use crate::pause;
use crate::queues::Direction;
use crate::receive::Incoming;
use crate::rss::{self, Places};
use crate::statistics;

impl Ixgbe {
    /// A frame from the wire, without its frame check sequence.
    pub(super) fn take_frame(&mut self, frame: &[u8]) -> bool {
        if !self.has_link()
            || self.faults.pulled_out
            || self.in_reset()
            || !self.registers.has(reg::RXCTRL, reg::RXCTRL_RXEN)
        {
            return false;
        }
        // Linux enables pause frames before it sets their marks, which count from the first frame on.
        if self.registers.has(reg::FCCFG, reg::FCCFG_TFCE) {
            self.check_pause();
        }
        let mut frame = frame.to_vec();
        // As the sender's MAC pads it.
        frame.resize(frame.len().max(60), 0);
        let (bytes, vlan) = (frame.len() + 4, self.registers.get(reg::VLNCTRL) as u16);
        let headers = Headers::parse(&frame, vlan);
        self.registers.count(count::TPR, 1);
        self.registers.count_wide(count::TOR, bytes as u64);
        let jumbo = self.registers.has(reg::HLREG0, reg::HLREG0_JUMBOEN);
        let limit = if jumbo { self.registers.get(reg::MAXFRS) as usize >> 16 } else { 1518 };
        if bytes > limit + if headers.vlan.is_some() { 4 } else { 0 } {
            self.registers.count(count::ROC, 1);
            self.registers.count(count::RLEC, 1);
            return false;
        }
        if let Some(time) = pause::time_of(&frame) {
            self.registers.count(if time == 0 { count::LXONRXCNT } else { count::LXOFFRXCNT }, 1);
            if self.registers.has(reg::MFLCN, reg::MFLCN_RFCE) {
                self.paused_until = self.now + pause::duration(time, 10_000);
            }
            if self.registers.has(reg::MFLCN, reg::MFLCN_RFCE | reg::MFLCN_DPF) {
                return true;
            }
        }
        let address = destination(&frame);
        let accepted = self.accepts(address, headers.vlan);
        self.registers.count(count::RXNFGPC, 1);
        if !accepted {
            return false;
        }
        statistics::received(&mut self.registers, &frame, bytes);
        let (queue, hash) = self.spread(&headers);
        if !self.queues.is_enabled(Direction::Receive, queue) {
            return false;
        }
        if self.queues.waiting() + frame.len() > self.registers.get(reg::RXPBSIZE) as usize {
            self.registers.count(count::MPC, 1);
            self.raise(cause::RX_MISS);
            return false;
        }
        let incoming = self.describe(queue, frame, &headers, hash);
        self.queues.push(queue, incoming);
        true
    }

    /// Filters of addresses and VLANs, 7.1.1.1 and 7.1.1.2.
    fn accepts(&self, address: Address, vlan: Option<u16>) -> bool {
        let registers = &self.registers;
        let filters = |bit: u32| registers.has(reg::FCTRL, bit);
        let by_address = if is_broadcast(address) {
            filters(reg::FCTRL_BAM)
        } else if is_multicast(address) {
            filters(reg::FCTRL_MPE) || self.has_multicast(address) || self.has_address(address)
        } else {
            filters(reg::FCTRL_UPE) || self.has_address(address)
        };
        let by_vlan = vlan.is_none_or(|tag| {
            let tag = usize::from(tag & 0xFFF);
            !registers.has(reg::VLNCTRL, reg::VLNCTRL_VFE) || filter::has_bit(registers, reg::VFTA, tag)
        });
        by_address && by_vlan
    }

    fn has_address(&self, address: Address) -> bool {
        (0..128).any(|index| filter::holds(&self.registers, reg::RAL + 8 * index, address))
    }

    fn has_multicast(&self, address: Address) -> bool {
        let control = self.registers.get(reg::MCSTCTRL);
        let bit = filter::multicast_bit(address, control);
        control & reg::MCSTCTRL_MFE != 0 && filter::has_bit(&self.registers, reg::MTA, bit)
    }

    /// The queue, and type and value of the hash. 7.1.2.8.
    fn spread(&mut self, headers: &Headers) -> (usize, Option<(u32, u32)>) {
        let mrqc = self.registers.get(reg::MRQC);
        match mrqc & 0xF {
            0 => return (0, None),
            1 => {}
            mode => {
                self.misuse.note(format!("MRQC.MRQE is {mode}, which is not modelled"));
                return (0, None);
            }
        }
        if !self.registers.has(reg::RXCSUM, reg::RXCSUM_PCSD) {
            self.misuse.note("RSS while RXCSUM.PCSD is clear");
        }
        let more = (self.kind == Kind::X550).then_some(reg::ERETA);
        let places = Places { mrqc: reg::MRQC, key: reg::RSSRK, table: reg::RETA, more };
        let spread = rss::spread(&self.registers, places, headers);
        spread.map_or((0, None), |spread| (spread.queue, Some((spread.kind, spread.hash))))
    }

    /// What the descriptor tells, and the frame as it goes to memory.
    fn describe(&self, queue: usize, frame: Vec<u8>, headers: &Headers, hash: Option<(u32, u32)>) -> Incoming {
        let verify = Verify { network: true, transport: true };
        let mut about = Received::describe(headers, verify, Errors::I82599);
        if let Some((kind, hash)) = hash.filter(|_| self.registers.has(reg::RXCSUM, reg::RXCSUM_PCSD)) {
            (about.hash_type, about.hash) = (kind, hash);
        }
        let strips = self.registers.has(reg::receive(queue) + crate::ring::offset::CONTROL, reg::RXDCTL_VME);
        let checked = !self.registers.has(reg::HLREG0, reg::HLREG0_RXCRCSTRP);
        let incoming = Incoming::new(frame, about, headers.vlan, strips, checked);
        Incoming { told: self.faults.wrong_length, ..incoming }
    }
}
