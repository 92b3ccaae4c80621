//! What netdom's checks of addresses let pass, against a model that reads each frame by another library, whole and at leisure. Host.
//!
//! An input is what a guest may use, and frames: sound ones of each kind that the checks know, with some bytes changed. What must hold: a frame
//! that the model finds forbidden does not pass, and one that it finds sound does, where all of its headers are among the bytes that the
//! checks see.

use crate::{Target, hash};
use arbitrary::{Arbitrary, Unstructured};
use netdom::ethernet::MacAddress;
use netdom::offload::head::{HEAD_BYTES, Head};
use netdom::policy::{Addresses, AntiSpoof, Guard};
use smoltcp::wire::{
    ArpHardware, ArpPacket, DhcpOpCode, DhcpPacket, EthernetFrame, EthernetProtocol, Icmpv6Message, Icmpv6Packet,
    IpProtocol, Ipv4Packet, Ipv6ExtHeader, Ipv6Packet, NdiscOption, NdiscOptionType, UdpPacket,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Frames of an input, at most.
const FRAMES: usize = 16;
const OWN: [u8; 6] = [0, 0x16, 0x3e, 0, 0, 1];
/// The link-local address that is made of it.
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x0216, 0x3eff, 0xfe00, 1);
const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// What guests may use; empty where that is not known.
const ADDRESSES: [&str; 5] = ["", "10.0.0.5", "10.0.0.0/29 fd00::5", "fd00::/125", "0.0.0.0/0"];

/// What a frame is made of.
#[derive(Arbitrary, Debug)]
struct Recipe {
    /// Of another's Ethernet address.
    spoofed: bool,
    tags: [Option<bool>; 2],
    packet: Packet,
    /// Places behind the Ethernet addresses, and what is there instead.
    changes: [Option<(u8, u8)>; 3],
    /// Bytes that are cut off.
    cut: Option<u8>,
}

#[derive(Arbitrary, Debug)]
enum Packet {
    Arp { own: bool, sender: u8, target: u8 },
    V4 { source: u8, protocol: Upper, fragment: Option<(bool, u8)> },
    V6 { source: u8, extensions: [Option<Extension>; 3], protocol: Upper },
    Other { ethertype: u16, bytes: [u8; 20] },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Extension {
    HopByHop,
    Routing,
    Destination,
    Fragment { first: bool },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Upper {
    Udp {
        ports: [u8; 2],
    },
    /// A message to a DHCP server: a request or not, of this length of an address, with its own or not.
    Dhcp {
        request: bool,
        length: u8,
        own: bool,
    },
    Discovery {
        kind: u8,
        target: u8,
        option: u8,
        own: bool,
    },
    Icmp {
        kind: u8,
    },
    Any {
        protocol: u8,
        first: u8,
    },
}

const PORTS: [u16; 6] = [67, 68, 546, 547, 53, 9];

fn v4(last: u8) -> [u8; 4] {
    if last % 8 == 7 { [0; 4] } else { [10, 0, 0, last % 16] }
}

fn v6(last: u8) -> [u8; 16] {
    let mut address = [0; 16];
    match last % 8 {
        7 => {}
        6 if last & 8 == 0 => address = LINK_LOCAL.octets(),
        6 => address[..2].copy_from_slice(&[0xfe, 0x80]),
        5 => (address[0], address[15]) = (0xfd, 5),
        low => (address[0], address[15]) = (0xfd, low | (last & 0x10)),
    }
    address
}

impl Upper {
    fn protocol(self) -> u8 {
        match self {
            Self::Udp { .. } | Self::Dhcp { .. } => 17,
            Self::Discovery { .. } => 58,
            Self::Icmp { .. } => 1,
            Self::Any { protocol, .. } => protocol,
        }
    }

    fn write(self, frame: &mut Vec<u8>) {
        match self {
            Self::Udp { ports } => {
                for port in ports {
                    frame.extend(PORTS[usize::from(port) % PORTS.len()].to_be_bytes());
                }
                frame.extend([0, 8, 0, 0]);
            }
            Self::Dhcp { request, length, own } => {
                let length = if length % 4 == 0 { length } else { 6 };
                frame.extend([0, 68, 0, 67, 0, 8, 0, 0, if request { 1 } else { 2 }, 1, length]);
                frame.extend([0; 25]);
                frame.extend(if own { OWN } else { OTHER });
            }
            Self::Discovery { kind, target, option, own } => {
                let kind = 130 + kind % 15;
                frame.extend([kind, 0, 0, 0, 0, 0, 0, 0]);
                if !matches!(kind, 133 | 134) {
                    frame.extend(v6(target));
                }
                frame.extend([option % 4, 1]);
                frame.extend(if own { OWN } else { OTHER });
            }
            Self::Icmp { kind } => frame.extend([kind % 16; 8]),
            Self::Any { first, .. } => frame.extend([first; 20]),
        }
    }
}

impl Extension {
    /// Its number, and how it begins behind the number of the next header.
    const fn head(self) -> (u8, [u8; 3]) {
        match self {
            Self::HopByHop => (0, [0, 1, 4]),
            Self::Routing => (43, [0, 0, 0]),
            Self::Destination => (60, [0, 1, 4]),
            Self::Fragment { first } => (44, [0, 0, if first { 0 } else { 8 }]),
        }
    }
}

impl Packet {
    /// What it is, and what is in it, for what was seen.
    fn kinds(&self) -> [u8; 2] {
        let upper = |upper: &Upper| match upper {
            Upper::Udp { ports: [from, _] } => 16 + from % PORTS.len() as u8,
            Upper::Dhcp { own, .. } => 24 + u8::from(*own),
            Upper::Discovery { kind, .. } => 32 + kind % 15,
            Upper::Icmp { kind } => 48 + kind % 16,
            Upper::Any { .. } => 64,
        };
        match self {
            Self::Arp { own, .. } => [0, u8::from(*own)],
            Self::V4 { protocol, fragment, .. } => [1 + u8::from(fragment.is_some()), upper(protocol)],
            Self::V6 { extensions, protocol, .. } => [3 + extensions.iter().flatten().count() as u8, upper(protocol)],
            Self::Other { .. } => [7, 0],
        }
    }

    fn ethertype(&self) -> u16 {
        match self {
            Self::Arp { .. } => 0x0806,
            Self::V4 { .. } => 0x0800,
            Self::V6 { .. } => 0x86dd,
            Self::Other { ethertype, .. } => *ethertype,
        }
    }

    fn write(&self, frame: &mut Vec<u8>) {
        let start = frame.len();
        match self {
            Self::Arp { own, sender, target } => {
                frame.extend([0, 1, 8, 0, 6, 4, 0, 1]);
                frame.extend(if *own { OWN } else { OTHER });
                frame.extend(v4(*sender));
                frame.extend([0; 6]);
                frame.extend(v4(*target));
            }
            Self::V4 { source, protocol, fragment } => {
                let fragment = fragment.map_or(0, |(more, offset)| u16::from(more) << 13 | u16::from(offset & 1));
                let [high, low] = fragment.to_be_bytes();
                frame.extend([0x45, 0, 0, 0, 0, 0, high, low, 64, protocol.protocol(), 0, 0]);
                frame.extend(v4(*source));
                frame.extend([255; 4]);
                protocol.write(frame);
                let length = (frame.len() - start) as u16;
                frame[start + 2..start + 4].copy_from_slice(&length.to_be_bytes());
            }
            Self::V6 { source, extensions, protocol } => {
                let heads = extensions.iter().flatten().map(|extension| extension.head());
                let mut next = heads.clone().map(|(kind, _)| kind).chain([protocol.protocol()]);
                frame.extend([0x60, 0, 0, 0, 0, 0, next.next().unwrap_or_default(), 255]);
                frame.extend(v6(*source));
                frame.extend([0xff; 16]);
                for ((_, [a, b, c]), next) in heads.zip(next) {
                    frame.extend([next, a, b, c, 0, 0, 0, 0]);
                }
                protocol.write(frame);
                let length = (frame.len() - start - 40) as u16;
                frame[start + 4..start + 6].copy_from_slice(&length.to_be_bytes());
            }
            Self::Other { bytes, .. } => frame.extend(bytes),
        }
    }
}

impl Recipe {
    fn build(&self, frame: &mut Vec<u8>) {
        frame.clear();
        frame.extend([0xff; 6]);
        frame.extend(if self.spoofed { OTHER } else { OWN });
        for service in self.tags.iter().flatten() {
            frame.extend(if *service { [0x88, 0xa8, 0, 5] } else { [0x81, 0, 0, 5] });
        }
        frame.extend(self.packet.ethertype().to_be_bytes());
        self.packet.write(frame);
        let behind = frame.len() - 12;
        for (place, byte) in self.changes.iter().flatten() {
            frame[12 + usize::from(*place) % behind] = *byte;
        }
        let cut = self.cut.map_or(0, |cut| usize::from(cut) % (behind + 1));
        frame.truncate(frame.len() - cut);
    }
}

/// What the model says of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Sound,
    Forbidden,
    /// It is not well-formed, or a part of it is not there.
    Unclear,
}

use Verdict::{Forbidden, Sound, Unclear};

/// What the model knows of the guest.
struct Model {
    level: AntiSpoof,
    /// As (address, bits).
    addresses: Option<Vec<(IpAddr, usize)>>,
}

/// Whether the first bits of two addresses are the same; of more bits than there are, all.
fn begins_alike(one: &[u8], other: &[u8], bits: usize) -> bool {
    let whole = (bits / 8).min(one.len());
    let rest = |bytes: &[u8]| bytes.get(whole).map(|byte| u16::from(*byte) << (bits % 8) >> 8);
    one[..whole] == other[..whole] && rest(one) == rest(other)
}

impl Model {
    fn new(level: AntiSpoof, text: &str) -> Self {
        let prefix = |word: &str| {
            let (address, bits) = word.split_once('/').unwrap_or((word, "128"));
            (address.parse().unwrap(), bits.parse().unwrap())
        };
        let addresses = (!text.is_empty()).then(|| text.split(' ').map(prefix).collect());
        Self { level: if text.is_empty() { level } else { AntiSpoof::Strict }, addresses }
    }

    fn may_use(&self, address: IpAddr) -> bool {
        let Some(addresses) = &self.addresses else {
            return true;
        };
        let known = addresses.iter().any(|(known, bits)| match (known, address) {
            (IpAddr::V4(known), IpAddr::V4(address)) => begins_alike(&known.octets(), &address.octets(), *bits),
            (IpAddr::V6(known), IpAddr::V6(address)) => begins_alike(&known.octets(), &address.octets(), *bits),
            _ => false,
        });
        known || address == LINK_LOCAL && self.has_v6()
    }

    fn has_v6(&self) -> bool {
        self.addresses.as_ref().is_none_or(|addresses| addresses.iter().any(|(address, _)| address.is_ipv6()))
    }

    fn judge(&self, frame: &[u8]) -> Verdict {
        if self.level == AntiSpoof::Off {
            return Sound;
        }
        let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
            return Unclear;
        };
        if ethernet.src_addr().0 != OWN {
            return Forbidden;
        }
        let (mut ethertype, mut packet) = (u16::from(ethernet.ethertype()), ethernet.payload());
        for _ in 0..2 {
            if let (0x8100 | 0x88a8, [_, _, high, low, rest @ ..]) = (ethertype, packet) {
                (ethertype, packet) = (u16::from_be_bytes([*high, *low]), rest);
            }
        }
        match EthernetProtocol::from(ethertype) {
            EthernetProtocol::Arp => self.judge_arp(packet),
            _ if self.level == AntiSpoof::Mac => Sound,
            EthernetProtocol::Ipv4 => self.judge_v4(packet),
            EthernetProtocol::Ipv6 => self.judge_v6(packet),
            // A tag that is cut off, too.
            _ => Forbidden,
        }
    }

    fn judge_arp(&self, packet: &[u8]) -> Verdict {
        let Ok(arp) = ArpPacket::new_checked(packet) else {
            return Unclear;
        };
        let lengths = (arp.hardware_len(), arp.protocol_len());
        if (arp.hardware_type(), arp.protocol_type(), lengths)
            != (ArpHardware::Ethernet, EthernetProtocol::Ipv4, (6, 4))
        {
            return Forbidden;
        }
        let sender: [u8; 4] = arp.source_protocol_addr().try_into().unwrap();
        let target: [u8; 4] = arp.target_protocol_addr().try_into().unwrap();
        let claimed = if sender == [0; 4] { target } else { sender };
        let own = arp.source_hardware_addr() == OWN && self.may_use(Ipv4Addr::from(claimed).into());
        if own { Sound } else { Forbidden }
    }

    fn judge_v4(&self, packet: &[u8]) -> Verdict {
        let Ok(ip) = Ipv4Packet::new_checked(packet) else {
            return Unclear;
        };
        if ip.version() != 4 || ip.header_len() < 20 {
            return Forbidden;
        }
        let source = ip.src_addr();
        let permitted = self.may_use(source.into());
        if ip.next_header() == IpProtocol::Icmp && ip.frag_offset() == 0 {
            return match ip.payload().first() {
                None => Unclear,
                Some(5 | 9) => Forbidden,
                Some(_) if permitted => Sound,
                Some(_) => Forbidden,
            };
        }
        if ip.next_header() == IpProtocol::Igmp && ip.frag_offset() == 0 {
            return match ip.payload().first() {
                None => Unclear,
                Some(0x11) => Forbidden,
                Some(_) if permitted => Sound,
                Some(_) => Forbidden,
            };
        }
        if ip.next_header() != IpProtocol::Udp || ip.frag_offset() != 0 {
            return if permitted { Sound } else { Forbidden };
        }
        if ip.payload().len() < 8 {
            return Unclear;
        }
        let udp = UdpPacket::new_unchecked(ip.payload());
        match (udp.src_port(), udp.dst_port()) {
            (67, _) => Forbidden,
            (_, 67) if ip.more_frags() => Forbidden,
            // Cut off, it is no message.
            (_, 67) if ip.payload().len() < 8 + 34 => Unclear,
            (_, 67) if !asks_for_itself(&ip.payload()[8..]) => Forbidden,
            (68, 67) if source.is_unspecified() => Sound,
            _ if permitted => Sound,
            _ => Forbidden,
        }
    }

    fn judge_v6(&self, packet: &[u8]) -> Verdict {
        let Ok(ip) = Ipv6Packet::new_checked(packet) else {
            return Unclear;
        };
        if ip.version() != 6 {
            return Forbidden;
        }
        let (source, mut next, mut payload) = (ip.src_addr(), ip.next_header(), ip.payload());
        let permitted = if self.may_use(source.into()) { Sound } else { Forbidden };
        let mut fragment = false;
        for depth in 0.. {
            match next {
                IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Opts | IpProtocol::Ipv6Frag
                    if depth >= 8 =>
                {
                    return Forbidden;
                }
                IpProtocol::HopByHop | IpProtocol::Ipv6Route | IpProtocol::Ipv6Opts => {
                    let Ok(header) = Ipv6ExtHeader::new_checked(payload) else {
                        return Unclear;
                    };
                    let bytes = usize::from(header.header_len()) * 8 + 8;
                    next = header.next_header();
                    let Some(rest) = payload.get(bytes..) else {
                        return Unclear;
                    };
                    payload = rest;
                }
                IpProtocol::Ipv6Frag => {
                    let [following, _, high, low, _, _, _, _, rest @ ..] = payload else {
                        return Unclear;
                    };
                    fragment = true;
                    if u16::from_be_bytes([*high, *low]) >> 3 != 0 {
                        return permitted;
                    }
                    (next, payload) = (IpProtocol::from(*following), rest);
                }
                IpProtocol::Udp => {
                    if payload.len() < 8 {
                        return Unclear;
                    }
                    let server = UdpPacket::new_unchecked(payload).src_port() == 547;
                    return if server { Forbidden } else { permitted };
                }
                IpProtocol::Icmpv6 => return self.judge_icmpv6(payload, source, permitted, fragment),
                _ => return permitted,
            }
        }
        Unclear
    }

    fn judge_icmpv6(&self, payload: &[u8], source: Ipv6Addr, permitted: Verdict, fragment: bool) -> Verdict {
        if payload.len() < 8 {
            return Unclear;
        }
        let packet = Icmpv6Packet::new_unchecked(payload);
        let about = |payload: &[u8]| {
            let target = payload.get(8..24).map(|target| <[u8; 16]>::try_from(target).unwrap());
            target.is_none_or(|target| self.may_use(Ipv6Addr::from(target).into()))
        };
        let none_yet = source.is_unspecified();
        let (allowed, options) = match packet.msg_type() {
            Icmpv6Message::RouterAdvert | Icmpv6Message::Redirect | Icmpv6Message::MldQuery => return Forbidden,
            Icmpv6Message::RouterSolicit => (permitted == Sound || none_yet && self.has_v6(), 8),
            Icmpv6Message::NeighborSolicit => (if none_yet { about(payload) } else { permitted == Sound }, 24),
            Icmpv6Message::NeighborAdvert => (permitted == Sound && about(payload), 24),
            _ if none_yet && matches!(payload[0], 131 | 132 | 143) => {
                return if self.has_v6() { Sound } else { Forbidden };
            }
            _ => return permitted,
        };
        if fragment || !allowed {
            return Forbidden;
        }
        let Some(mut options) = payload.get(options..) else {
            return Unclear;
        };
        while !options.is_empty() {
            let Ok(option) = NdiscOption::new_checked(options) else {
                return Unclear;
            };
            let bytes = usize::from(option.data_len()) * 8;
            let tells = matches!(
                option.option_type(),
                NdiscOptionType::SourceLinkLayerAddr | NdiscOptionType::TargetLinkLayerAddr
            );
            if tells && options.get(2..8) != Some(&OWN) {
                return Forbidden;
            }
            options = match options.get(bytes..) {
                Some(rest) if bytes != 0 => rest,
                _ => return Unclear,
            };
        }
        Sound
    }
}

/// Whether a message of DHCP is a client's own.
fn asks_for_itself(message: &[u8]) -> bool {
    let packet = DhcpPacket::new_unchecked(message);
    packet.opcode() == DhcpOpCode::Request
        && packet.hardware_type() == ArpHardware::Ethernet
        && packet.hardware_len() == 6
        && packet.client_hardware_address().as_bytes() == OWN
}

/// How a guest is checked: the place of its addresses, and its level.
const GUARDS: usize = ADDRESSES.len() * LEVELS.len();
const LEVELS: [AntiSpoof; 3] = [AntiSpoof::Mac, AntiSpoof::Strict, AntiSpoof::Off];

/// The guard that an input is for, by its number.
fn guard_of(bytes: &mut Unstructured<'_>) -> usize {
    usize::from(bytes.arbitrary::<u8>().unwrap_or(0)) % GUARDS
}

/// The frames of an input. Every input is one.
fn frames(mut bytes: Unstructured<'_>) -> impl Iterator<Item = Recipe> {
    std::iter::from_fn(move || if bytes.is_empty() { None } else { bytes.arbitrary().ok() }).take(FRAMES)
}

/// An input as it is read, for a look at it.
pub fn describe(input: &[u8]) -> String {
    let mut bytes = Unstructured::new(input);
    let guard = guard_of(&mut bytes);
    let (level, addresses) = (LEVELS[guard % LEVELS.len()], ADDRESSES[guard / LEVELS.len()]);
    let mut frame = Vec::new();
    let lines = frames(bytes).map(|recipe| {
        recipe.build(&mut frame);
        format!("{recipe:?}: {frame:02x?}\n")
    });
    std::iter::once(format!("{level:?}, \"{addresses}\"\n")).chain(lines).collect()
}

/// The target.
pub struct Policy {
    /// A guard and the model of it for each level and each list of addresses. They keep nothing of a frame.
    guards: Vec<(Guard, Model)>,
    frame: Vec<u8>,
    frames: u64,
}

impl Default for Policy {
    fn default() -> Self {
        let guard = |number: usize| {
            let (level, addresses) = (LEVELS[number % LEVELS.len()], ADDRESSES[number / LEVELS.len()]);
            (Guard::new(level, MacAddress(OWN), Addresses::parse(addresses)), Model::new(level, addresses))
        };
        Self { guards: (0..GUARDS).map(guard).collect(), frame: Vec::new(), frames: 0 }
    }
}

impl Target for Policy {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        let mut bytes = Unstructured::new(input);
        let (guard, model) = &self.guards[guard_of(&mut bytes)];
        let frame = &mut self.frame;
        for recipe in frames(bytes) {
            self.frames += 1;
            recipe.build(frame);
            let bytes = &frame[..frame.len().min(HEAD_BYTES)];
            // Without an Ethernet header it is forwarded nowhere.
            let Some(head) = Head::parse(bytes) else {
                continue;
            };
            let passes = guard.permits(&head, bytes);
            let verdict = model.judge(frame);
            match verdict {
                Forbidden => assert!(!passes, "a forbidden frame passes: {recipe:?}"),
                Sound => assert!(passes || frame.len() > HEAD_BYTES, "a sound frame does not pass: {recipe:?}"),
                Unclear => {}
            }
            let [kind, upper] = recipe.packet.kinds();
            seen.push(hash(&[kind, upper, verdict as u8, passes.into()]));
        }
    }

    fn operations(&self) -> Option<u64> {
        Some(self.frames)
    }
}
