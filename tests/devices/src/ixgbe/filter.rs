//! Which frames are taken, for which queue, and what their descriptors tell. 82599 datasheet 7.1.1, 7.1.2 and 7.1.6. Pure.

use super::registers::{self as reg, count};
use super::{Ixgbe, PACKET_MEMORY, cause};
use crate::advanced::{Received, status};
use crate::ethernet::{Address, destination, frame_check, is_broadcast, is_multicast};
use crate::packet::{Headers, Network, Transport};
use crate::receive::Incoming;
use crate::toeplitz;

/// Packet types, bits of a descriptor's 13: 7.1.6.2.
mod kind {
    pub(super) const IPV4: u32 = 1 << 0;
    pub(super) const IPV4_OPTIONS: u32 = 1 << 1;
    pub(super) const IPV6: u32 = 1 << 2;
    pub(super) const IPV6_EXTENSIONS: u32 = 1 << 3;
    pub(super) const TCP: u32 = 1 << 4;
    pub(super) const UDP: u32 = 1 << 5;
    pub(super) const SCTP: u32 = 1 << 6;
}

/// What of a packet is hashed: MRQC's bit, the RSS type in its descriptor, and whether ports are part of it. 7.1.2.8.
const HASHES: [(Rule, u32, u32, bool); 6] = [
    (Rule::TcpV4, 1 << 16, 1, true),
    (Rule::UdpV4, 1 << 22, 7, true),
    (Rule::V4, 1 << 17, 2, false),
    (Rule::TcpV6, 1 << 21, 3, true),
    (Rule::UdpV6, 1 << 23, 8, true),
    (Rule::V6, 1 << 20, 5, false),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    TcpV4,
    UdpV4,
    V4,
    TcpV6,
    UdpV6,
    V6,
}

impl Rule {
    const fn fits(self, headers: &Headers) -> bool {
        let v4 = matches!(headers.network, Some(Network::V4 { .. }));
        let v6 = matches!(headers.network, Some(Network::V6 { .. }));
        let tcp = matches!(headers.transport, Some(Transport::Tcp(_)));
        let udp = matches!(headers.transport, Some(Transport::Udp(_)));
        match self {
            Self::TcpV4 => v4 && tcp,
            Self::UdpV4 => v4 && udp,
            Self::V4 => v4,
            Self::TcpV6 => v6 && tcp,
            Self::UdpV6 => v6 && udp,
            Self::V6 => v6,
        }
    }
}

impl Ixgbe {
    /// A frame from the wire, without its frame check sequence.
    pub(super) fn take_frame(&mut self, frame: &[u8]) -> bool {
        if !self.link || self.faults.pulled_out || self.in_reset() || !self.registers.has(reg::RXCTRL, reg::RXCTRL_RXEN)
        {
            return false;
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
        let address = destination(&frame);
        let accepted = self.accepts(address, headers.vlan);
        self.registers.count(count::RXNFGPC, 1);
        if !accepted {
            return false;
        }
        self.registers.count(count::GPRC, 1);
        self.registers.count_wide(count::GORC, bytes as u64);
        match address {
            address if is_broadcast(address) => self.registers.count(count::BPRC, 1),
            address if is_multicast(address) => self.registers.count(count::MPRC, 1),
            _ => {}
        }
        let (queue, hash) = self.spread(&headers);
        if self.receive_enabled >> queue & 1 == 0 {
            return false;
        }
        if self.receive.iter().map(crate::receive::ReceiveQueue::waiting).sum::<usize>() + frame.len() > PACKET_MEMORY {
            self.registers.count(count::MPC, 1);
            self.raise(cause::RX_MISS);
            return false;
        }
        let incoming = self.describe(queue, frame, &headers, hash);
        if let Some(queue) = self.receive.get_mut(queue) {
            queue.push(incoming);
        }
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
            !registers.has(reg::VLNCTRL, reg::VLNCTRL_VFE)
                || registers.get(reg::VFTA + tag / 32 * 4) >> (tag % 32) & 1 != 0
        });
        by_address && by_vlan
    }

    fn has_address(&self, [a, b, c, d, e, f]: Address) -> bool {
        let low = u32::from_le_bytes([a, b, c, d]);
        let high = u32::from(u16::from_le_bytes([e, f])) | reg::RAH_AV;
        (0..128).any(|index| {
            let at = reg::RAL + 8 * index;
            self.registers.get(at) == low && self.registers.get(at + 4) & (reg::RAH_AV | 0xFFFF) == high
        })
    }

    fn has_multicast(&self, address: Address) -> bool {
        let control = self.registers.get(reg::MCSTCTRL);
        let high = u16::from_le_bytes([address[4], address[5]]);
        // Which 12 bits of the address: from 47, 46, 45 or 43 down.
        let shift = [4, 3, 2, 0].get(control as usize & 3).copied().unwrap_or(4);
        let bit = usize::from(high >> shift & 0xFFF);
        control & reg::MCSTCTRL_MFE != 0 && self.registers.get(reg::MTA + bit / 32 * 4) >> (bit % 32) & 1 != 0
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
        let Some((_, _, kind, ports)) =
            HASHES.into_iter().find(|(rule, bit, ..)| mrqc & bit != 0 && rule.fits(headers))
        else {
            return (0, None);
        };
        let mut input = headers.addresses.clone();
        if ports {
            input.extend(headers.ports.unwrap_or_default());
        }
        let mut key = [0; toeplitz::KEY_BYTES];
        for (index, place) in key.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            *place = self.registers.get(reg::RSSRK + 4 * index).to_le_bytes();
        }
        let hash = toeplitz::hash(&key, &input);
        let entry = hash as usize & 0x7F;
        let queue = self.registers.get(reg::RETA + entry / 4 * 4) >> (8 * (entry % 4)) & 0xF;
        (queue as usize, Some((kind, hash)))
    }

    /// What the descriptor tells, and the frame as it goes to memory.
    fn describe(&self, queue: usize, mut frame: Vec<u8>, headers: &Headers, hash: Option<(u32, u32)>) -> Incoming {
        let mut about = Received::default();
        if let Some((kind, hash)) = hash.filter(|_| self.registers.has(reg::RXCSUM, reg::RXCSUM_PCSD)) {
            (about.hash_type, about.hash) = (kind, hash);
        }
        match headers.network {
            Some(Network::V4 { options, valid }) => {
                about.packet_type |= if options { kind::IPV4_OPTIONS } else { kind::IPV4 };
                about.status |= status::IPCS | if valid { 0 } else { status::IPE };
            }
            Some(Network::V6 { extensions }) => {
                about.packet_type |= if extensions { kind::IPV6_EXTENSIONS } else { kind::IPV6 };
            }
            None => {}
        }
        let verified = |valid: bool| status::L4CS | if valid { 0 } else { status::L4E };
        match headers.transport {
            Some(Transport::Tcp(valid)) => {
                about.packet_type |= kind::TCP;
                about.status |= verified(valid);
            }
            Some(Transport::Udp(valid)) => {
                about.packet_type |= kind::UDP;
                about.status |= valid.map_or(0, |valid| verified(valid) | status::UDPCS);
            }
            Some(Transport::Sctp) => about.packet_type |= kind::SCTP,
            None => {}
        }
        if !self.registers.has(reg::HLREG0, reg::HLREG0_RXCRCSTRP) {
            let check = frame_check(&frame);
            frame.extend(check);
        }
        let strips = self.registers.has(reg::receive(queue) + crate::ring::offset::CONTROL, reg::RXDCTL_VME);
        if let Some(tag) = headers.vlan.filter(|_| strips) {
            frame.drain(12..16);
            about.vlan = tag;
            about.status |= status::VP;
        }
        Incoming { frame, about, told: self.faults.wrong_length }
    }
}
