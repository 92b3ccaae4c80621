//! Frames for a router, made of a few bytes of an input. Host.

use super::model::Model;
use super::packet::{ICMP, Ip, START, TCP, UDP, set_word, sum};
use super::tables::Session;
use super::terms::{Guest, LAB, UPLINK, mac_of};
use arbitrary::Arbitrary;
use netdom::ethernet::MacAddress;
use netdom::router::config::Protocol;
use netdom::router::{Frame, WHOLE};
use netdom::switch::PortId;
use std::net::Ipv4Addr;

/// Guests' addresses and routers', stations outside, and addresses that are no station's.
pub(super) const ADDRESSES: [Ipv4Addr; 26] = [
    Ipv4Addr::new(198, 51, 100, 7),
    Ipv4Addr::new(10, 0, 0, 5),
    Ipv4Addr::new(192, 168, 7, 2),
    Ipv4Addr::new(192, 168, 8, 1),
    Ipv4Addr::new(10, 0, 0, 77),
    Ipv4Addr::new(192, 168, 8, 2),
    Ipv4Addr::new(10, 9, 0, 9),
    Ipv4Addr::new(10, 0, 0, 78),
    Ipv4Addr::new(192, 168, 7, 1),
    Ipv4Addr::new(192, 168, 8, 254),
    Ipv4Addr::new(10, 9, 0, 1),
    Ipv4Addr::new(10, 0, 0, 1),
    Ipv4Addr::new(10, 0, 0, 53),
    Ipv4Addr::new(10, 0, 0, 9),
    Ipv4Addr::new(203, 0, 113, 9),
    Ipv4Addr::new(192, 168, 7, 66),
    Ipv4Addr::new(10, 0, 7, 1),
    Ipv4Addr::new(10, 0, 7, 9),
    Ipv4Addr::new(10, 0, 0, 0),
    Ipv4Addr::new(10, 0, 0, 255),
    Ipv4Addr::new(192, 168, 7, 255),
    Ipv4Addr::UNSPECIFIED,
    Ipv4Addr::BROADCAST,
    Ipv4Addr::LOCALHOST,
    Ipv4Addr::new(224, 0, 0, 5),
    Ipv4Addr::new(240, 0, 0, 1),
];

const PORTS: [u16; 14] = [4000, 8080, 80, 53, 22, 2222, 5353, 123, 50_000, 67, 68, 0, 4001, 65_535];
/// Stations of the wire.
const STATIONS: [MacAddress; 3] =
    [MacAddress([0, 1, 2, 3, 4, 5]), MacAddress([0, 1, 2, 3, 4, 6]), MacAddress([3, 1, 2, 3, 4, 7])];
/// Options of TCP: the largest segment at an even and at an odd place, none, one that fits, and nonsense.
const OPTIONS: [&[u8]; 6] = [
    &[],
    &[2, 4, 0x23, 0x28],
    &[1, 2, 4, 0x23, 0x28, 0, 0, 0],
    &[3, 3, 7, 2, 4, 0x23, 0x28, 0, 0, 0, 0, 0],
    &[2, 4, 2, 0],
    &[8, 0, 2, 4, 0x23, 0x28, 0, 0],
];
/// Flags of TCP.
const FLAGS: [u8; 6] = [2, 0x12, 0x10, 0x11, 4, 0x18];

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) port: u8,
    kind: u8,
    source: u8,
    destination: u8,
    ports: u8,
    ttl: u8,
    /// What is added: a session's ends in place of the above, a group's station, another's station, padding, options of IP, and such.
    odd: u8,
    fragment: u8,
    size: u8,
    change: Option<(u8, u8)>,
}

/// What stands behind the header, and its protocol.
#[derive(Clone, Copy)]
struct Ends {
    source: (Ipv4Addr, u16),
    destination: (Ipv4Addr, u16),
}

fn pick<T: Copy>(list: &[T], number: u8) -> T {
    list[usize::from(number) % list.len()]
}

impl Sent {
    fn is_odd(&self, bit: u8) -> bool {
        self.odd & 1 << bit != 0
    }

    /// The port that it comes to: of the ports that there are.
    pub(super) fn port(&self, model: &Model) -> PortId {
        let guests = model.guests.len();
        match usize::from(self.port) % 16 {
            0 => LAB,
            place if place < 10 && guests > 0 => model.guests[place % guests].port,
            _ => UPLINK,
        }
    }

    /// Writes the frame. What is behind it, as zeros that are not written, is in the length.
    pub(super) fn write(&self, model: &Model, frame: &mut Vec<u8>) -> Frame {
        let port = self.port(model);
        let guest = model.guest(port);
        let own = model.own_at(port).unwrap_or(Ipv4Addr::UNSPECIFIED);
        let to = match (self.is_odd(1), self.is_odd(2)) {
            (true, false) if self.odd & 0xc0 == 0 => MacAddress::BROADCAST,
            (true, true) if self.odd & 0xc0 == 0 => MacAddress([2, 9, 9, 9, 9, 9]),
            _ => mac_of(own),
        };
        let from = guest.map_or(pick(&STATIONS, self.ports >> 4), |guest| guest.mac);
        let from = if self.odd == 0xff { MacAddress([2, 8, 8, 8, 8, 8]) } else { from };
        frame.clear();
        frame.extend(to.0);
        frame.extend(from.0);
        match self.kind % 24 {
            0 | 1 => return self.write_arp(guest, from, frame),
            2 if self.odd & 3 == 3 => {
                frame.extend([0x88, 0xb5, 0, 0]);
                frame.resize(60, 0);
                return Frame { length: 60, blank: false, segment: None };
            }
            _ => {}
        }
        self.write_ip(model, guest, port, frame)
    }

    fn write_arp(&self, guest: Option<&Guest>, from: MacAddress, frame: &mut Vec<u8>) -> Frame {
        let mut sender = pick(&ADDRESSES, self.source);
        if let Some(guest) = guest.filter(|_| self.source < 192) {
            sender = pick(&guest.addresses, self.source);
        }
        if self.is_odd(0) {
            frame[..6].copy_from_slice(&MacAddress::BROADCAST.0);
        }
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1 + self.kind % 24]);
        frame.extend(from.0);
        frame.extend(sender.octets());
        frame.extend([0; 6]);
        frame.extend(pick(&ADDRESSES, self.destination).octets());
        if let Some((place, byte)) = self.change.filter(|(place, _)| (place & 31) < 14) {
            frame[START + usize::from(place & 31)] = byte;
        }
        frame.resize(60, 0);
        Frame { length: 60, blank: false, segment: None }
    }

    /// The two ends: those of a session that there is, or any.
    fn ends(&self, model: &Model, guest: Option<&Guest>) -> (Ends, Option<Session>) {
        let source = match guest {
            Some(guest) if self.source < 224 => pick(&guest.addresses, self.source),
            _ => pick(&ADDRESSES, self.source),
        };
        let (from, to) = (pick(&PORTS, self.ports), pick(&PORTS, self.ports.wrapping_add(self.ports / 16)));
        let ends = Ends { source: (source, from), destination: (pick(&ADDRESSES, self.destination), to) };
        let count = model.sessions.all.len();
        if !self.is_odd(0) || count == 0 {
            return (ends, None);
        }
        let session = model.sessions.all[usize::from(self.ports) % count];
        let ends = match guest {
            None => Ends { source: session.remote, destination: (model.own.address, session.port) },
            Some(guest) if guest.port == session.inside.guest => {
                let remote = if session.inside.asks { (guest.gateway(), 53) } else { session.remote };
                Ends { source: session.inside.end, destination: remote }
            }
            // By the router's address, as hairpins go.
            Some(_) => Ends { source: ends.source, destination: (model.own.address, session.port) },
        };
        (ends, Some(session))
    }

    fn write_ip(&self, model: &Model, guest: Option<&Guest>, port: PortId, frame: &mut Vec<u8>) -> Frame {
        let (mut ends, session) = self.ends(model, guest);
        let is_dhcp = self.kind % 24 == 3 && port != UPLINK;
        if is_dhcp {
            ends = Ends { source: (Ipv4Addr::UNSPECIFIED, 68), destination: (Ipv4Addr::BROADCAST, 67) };
            frame[..6].copy_from_slice(&MacAddress::BROADCAST.0);
        }
        let protocol = match (self.kind % 24, session) {
            (3, _) if is_dhcp => UDP,
            (4..=8, Some(Session { protocol: Protocol::Udp, .. })) => UDP,
            (4..=8, Some(Session { protocol: Protocol::Echo, .. })) => ICMP,
            (4..=10, _) => TCP,
            (11..=15, _) => UDP,
            (16..=22, _) => ICMP,
            (_, _) => [47, 2, 1, 17, 6][usize::from(self.size) % 5],
        };
        let options = if self.odd >> 3 == 0b11101 { 8 } else { 0 };
        let ttl = if self.ttl < 224 { 64 } else { self.ttl & 3 };
        let (id, word) = match self.fragment {
            0..=160 => (self.ttl.into(), u16::from(self.fragment & 1) << 14),
            number => (u16::from(number & 1), [0x2000, 3, 0x2003, 0x4003][usize::from(number >> 1) % 4]),
        };
        frame.extend([8, 0, 0x45 + options / 4, 0, 0, 0, 0, 0, 0, 0, ttl, protocol, 0, 0]);
        frame.extend(ends.source.0.octets());
        frame.extend(ends.destination.0.octets());
        frame.extend([7, 4, 5, 0, 1, 1, 1, 0].into_iter().take(options.into()));
        set_word(frame, START + 4, id);
        set_word(frame, START + 6, word);
        let at = frame.len();
        match protocol {
            TCP => self.write_tcp(ends, frame),
            UDP => self.write_udp(ends, is_dhcp, frame),
            ICMP => self.write_icmp(model, ends, session, port, frame),
            _ => frame.extend([0x11 + self.size % 2, 1, 2, 3, 4, 5, 6, 7, 8]),
        }
        self.finish(model, at, protocol, frame)
    }

    fn write_tcp(&self, ends: Ends, frame: &mut Vec<u8>) {
        let options = pick(&OPTIONS, self.size / 16);
        let [from, to] = [ends.source.1, ends.destination.1].map(u16::to_be_bytes);
        let offset = (((20 + options.len()) / 4) << 4) as u8;
        frame.extend([from[0], from[1], to[0], to[1], 0, 0, 0, 1, 0, 0, 0, 2, offset, pick(&FLAGS, self.kind)]);
        frame.extend([1, 0, 0, 0, 0, 0]);
        frame.extend(options);
        frame.extend([0x5a; 7].iter().take(usize::from(self.size % 8)));
    }

    fn write_udp(&self, ends: Ends, is_dhcp: bool, frame: &mut Vec<u8>) {
        let at = frame.len();
        let [from, to] = [ends.source.1, ends.destination.1].map(u16::to_be_bytes);
        frame.extend([from[0], from[1], to[0], to[1], 0, 0, 0, 0]);
        if is_dhcp {
            let mac: [u8; 6] = *frame[6..].first_chunk().expect("a station");
            frame.resize(at + 8 + 300, 0);
            frame[at + 8..at + 12].copy_from_slice(&[1, 1, 6, 0]);
            frame[at + 36..at + 42].copy_from_slice(&mac);
            frame[at + 244..at + 248].copy_from_slice(&[99, 130, 83, 99]);
            frame[at + 248..at + 252].copy_from_slice(&[53, 1, 1 + self.size % 8, 255]);
        } else {
            frame.extend([0x5a; 9].iter().take(usize::from(self.size % 10)));
        }
        let length = (frame.len() - at) as u16;
        set_word(frame, at + 4, length);
    }

    fn write_icmp(&self, model: &Model, ends: Ends, session: Option<Session>, port: PortId, frame: &mut Vec<u8>) {
        let kind = [8, 0, 8, 3, 11, 12, 5][usize::from(self.kind) % 7];
        if matches!(kind, 0 | 8) {
            let identifier = ends.source.1.max(ends.destination.1).to_be_bytes();
            frame.extend([kind, 0, 0, 0, identifier[0], identifier[1], 0, 1, 0x5a, 0x5a, 0x5a]);
            return;
        }
        frame.extend([kind, 4, 0, 0, 0, 0, 5, 0]);
        // About a packet of a session, as this side knows it; or about one the other way round.
        let (mut source, mut destination) = (ends.destination, ends.source);
        if let Some(known) = session.filter(|_| port == UPLINK) {
            (source, destination) = ((model.own.address, known.port), known.remote);
        }
        let protocol = match session.map(|session| session.protocol) {
            Some(Protocol::Tcp) => TCP,
            Some(Protocol::Udp) => UDP,
            Some(Protocol::Echo) => ICMP,
            None => pick(&[TCP, UDP, ICMP], self.size),
        };
        let at = frame.len();
        let total = 40 + self.size % 4;
        frame.extend([0x45, 0, 0, total, 0, 9, 0, 0, 9, protocol, 0, 0]);
        frame.extend(source.0.octets());
        frame.extend(destination.0.octets());
        let sum_of_header = !sum(&[&frame[at..]]);
        set_word(frame, at + 10, sum_of_header);
        let [from, to] = [source.1, destination.1].map(u16::to_be_bytes);
        match protocol {
            ICMP => {
                let identifier = from.max(to);
                frame.extend([8, 0, 0x12, 0x34, identifier[0], identifier[1], 0, 1]);
            }
            UDP if self.size & 1 == 0 => frame.extend([from[0], from[1], to[0], to[1], 0, 20, 0, 0]),
            _ => frame.extend([from[0], from[1], to[0], to[1], 0, 20, 0x12, 0x34]),
        }
        frame.extend([0x5a; 20].iter().take(usize::from(self.size % 21)));
    }

    /// Gives the packet its lengths, checksums, and what was changed of it.
    fn finish(&self, model: &Model, at: usize, protocol: u8, frame: &mut Vec<u8>) -> Frame {
        let mut zeros = match self.size / 8 {
            28 => usize::from(model.mtu) + START - frame.len(),
            29 => usize::from(model.mtu) + START + 1 - frame.len(),
            30 => 3000,
            _ => 0,
        };
        if frame.len() > 300 {
            zeros = 0;
        }
        let total = frame.len() - START + zeros;
        set_word(frame, START + 2, total as u16);
        let blank = self.is_odd(3) && self.odd & 0xc0 == 0x40;
        let field = match protocol {
            TCP => Some(at + 16),
            UDP if self.size & 1 == 0 || blank => Some(at + 6),
            ICMP => Some(at + 2),
            _ => None,
        };
        let mut pseudo = [0; 10];
        pseudo[..8].copy_from_slice(&frame[START + 12..START + 20]);
        pseudo[9] = protocol;
        let length = ((total - (at - START)) as u16).to_be_bytes();
        if let Some(field) = field {
            let parts: [&[u8]; 3] =
                if protocol == ICMP { [&[], &[], &frame[at..]] } else { [&pseudo, &length, &frame[at..]] };
            let new = if blank && protocol != ICMP { sum(&parts[..2]) } else { !sum(&parts) };
            set_word(frame, field, if new == 0 && protocol == UDP { 0xffff } else { new });
        }
        let mut is_sound = true;
        if let Some((place, byte)) = self.change {
            let place = START + usize::from(place & 63);
            // Another destination would have the router ask for ever more stations.
            if place < frame.len() && !(START + 16..START + 20).contains(&place) {
                frame[place] = byte;
            }
            is_sound = byte & 7 != 7;
        }
        if is_sound {
            let end = (START + usize::from(frame[START] & 15) * 4).max(START + 20).min(frame.len());
            set_word(frame, START + 10, 0);
            let new = !sum(&[&frame[START..end]]);
            set_word(frame, START + 10, new);
        }
        let mut length = frame.len() + zeros;
        if zeros == 0 && self.is_odd(5) && self.is_odd(4) {
            frame.resize(frame.len() + 6, 2);
            length = frame.len();
        }
        let segment = Ip::read(frame, START).filter(|ip| ip.protocol == TCP && blank && zeros > 0 && !ip.is_later());
        let segment = segment.map(|_| [1448, 1460, 1461, 8948][usize::from(self.ports >> 4) % 4]);
        if frame[START + 9] == UDP && length > frame.len() && length < WHOLE {
            frame.resize(length, 0);
        }
        Frame { length, blank: blank && matches!(frame[START + 9], TCP | UDP), segment }
    }
}

/// Writes the answer to a question for a station, and who it is.
pub(super) fn write_answer(number: u8, address: Ipv4Addr, asker: Ipv4Addr, frame: &mut Vec<u8>) -> Frame {
    let (to, from) = (mac_of(asker), pick(&STATIONS, number));
    frame.clear();
    frame.extend(to.0);
    frame.extend(from.0);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    frame.extend(from.0);
    frame.extend(address.octets());
    frame.extend(to.0);
    frame.extend(asker.octets());
    frame.resize(60, 0);
    Frame { length: 60, blank: false, segment: None }
}
