//! A router: DHCP server of bridges without a NIC, and the way out for guests whose addresses it translates (NAT). Pure. Floor 3.
//!
//! It has a port on each of its networks. Of a frame that is for it, it gets the first bytes, and says what becomes of the frame: it goes on from
//! another of its ports, with these bytes as they were changed, whatever is behind them; or nowhere. It may have an answer
//! of its own besides. Time is told to it. Nothing is allocated for a packet.

mod arp;
pub mod config;
mod counts;
pub mod dhcp;
mod fragments;
mod icmp;
mod icmpv6;
mod ipv4;
mod ipv6;
mod kept;
pub mod nat;
mod nd;
mod neighbours;
mod resolve;
mod route;
mod route_v6;
mod transport;
mod uplink;

use crate::ethernet::MacAddress;
use crate::offload::checksum::Sum;
use crate::offload::headers::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_UDP, put, read_u16};
use crate::statistics::DropCause;
use crate::switch::PortId;
use alloc::boxed::Box;
use alloc::vec::Vec;
use config::{Network, Setup, is_routable};
use core::net::{Ipv4Addr, Ipv6Addr};
pub use counts::Counts;
use dhcp::{Book, CLIENT_PORT, Leases, MESSAGE_BYTES, Message, SERVER_PORT, Single, Terms};
use fragments::Fragments;
use ipv4::{Header, START, is_martian};
use nat::Nat;
use neighbours::Neighbours;
pub use route_v6::GUEST_GATEWAY;
use route_v6::Knowledge;
use split_driver::time::Instant;
use uplink::Upkeep;

/// First bytes of a frame that are looked at: the longest headers of IPv4 and TCP, or what an ICMP error has of them.
pub const HEAD: usize = 160;
/// Bytes of a frame that are looked at where they are for the router itself: of one that fits an Ethernet without jumbo frames.
pub const WHOLE: usize = 1514;
/// Bytes of an answer at most: a message of DHCP.
const ANSWER: usize = START + 20 + 8 + MESSAGE_BYTES;

const LOST: Verdict = Verdict::Drop(DropCause::NotRouted);

/// What the router is told of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// Bytes in all.
    pub length: usize,
    /// Its transport checksum is blank.
    pub blank: bool,
    /// Bytes of a segment's payload, where it is a super-frame.
    pub segment: Option<u16>,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was for the router itself, or for nobody.
    Taken,
    /// It is lost.
    Drop(DropCause),
    /// It goes on from this port of the router, with the bytes as they are now.
    Send(PortId),
    /// More bytes of it are to be looked at: [`WHOLE`].
    More,
    /// The station that it goes to was asked where it is: the same frame is handled again then, or is lost where its sender cannot wait.
    Later(Instant),
}

/// A guest behind the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routed {
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// Its addresses; the first is the one that DHCP tells it.
    pub addresses: Vec<Ipv4Addr>,
    /// Its addresses of IPv6, which count where none is translated.
    pub addresses_v6: Vec<Ipv6Addr>,
    /// On the way out they are translated to the router's own; otherwise they are known there, too.
    pub translated: bool,
}

impl Routed {
    /// A guest with those of its addresses that are routed: of IPv6 none where they are translated. `None` where there is none.
    pub fn new(
        mac: MacAddress,
        v4: impl Iterator<Item = Ipv4Addr>,
        v6: impl Iterator<Item = Ipv6Addr>,
        translated: bool,
    ) -> Option<Self> {
        let addresses_v6 = v6.filter(|address| !translated && is_routable(*address)).collect();
        let guest = Self { mac, addresses: v4.collect(), addresses_v6, translated };
        (!guest.addresses.is_empty() || !guest.addresses_v6.is_empty()).then_some(guest)
    }
}

enum Kind {
    Internal(Leases),
    Uplink { gateway: Option<Ipv4Addr> },
    Guest(Routed),
}

struct Interface {
    kind: Kind,
    /// The router, in the network.
    own: Network,
    mac: MacAddress,
    /// When packets of its guest last began to wait for a station.
    waited: Option<Instant>,
}

impl Interface {
    /// Whether an address is the router's own there.
    fn is_own(&self, address: Ipv4Addr) -> bool {
        self.own.address == address && !address.is_unspecified()
    }

    /// Whether no station there sends with this address: it is the router's own, or none of a host. Guests' addresses are checked where they send.
    fn is_no_sender(&self, address: Ipv4Addr) -> bool {
        match self.kind {
            Kind::Guest(_) => false,
            Kind::Internal(_) | Kind::Uplink { .. } => {
                self.own.contains(address) && (self.own.address == address || !self.own.is_host(address))
            }
        }
    }
}

/// The router.
pub struct Router {
    /// By port.
    interfaces: Vec<Option<Interface>>,
    uplink: Option<PortId>,
    upkeep: Upkeep,
    counts: Counts,
    /// A lease was given, or had, since this was asked last.
    leased: bool,
    /// Bytes of an IP packet on the way out.
    mtu: u16,
    dns: Vec<Ipv4Addr>,
    nat: Option<Nat>,
    /// The guests' addresses, in order.
    hosts: Vec<(Ipv4Addr, PortId)>,
    neighbours: Box<Neighbours>,
    fragments: Fragments,
    /// What it knows for IPv6.
    v6: Knowledge,
    answer: [u8; ANSWER],
    /// The port that the answer leaves from, and how long it is.
    answered: Option<(PortId, usize)>,
}

/// The router's Ethernet address where it has this IP address: a local one (IEEE 802-2014, 8.2.2), the same in each life.
pub const fn mac_of(address: Ipv4Addr) -> MacAddress {
    let [a, b, c, d] = address.octets();
    MacAddress([0x02, 0x58, a, b, c, d])
}

/// The router's address for a guest that has this one: the first of the 256 around it, or the last.
pub fn gateway_for(address: Ipv4Addr) -> Network {
    let network = Network { address, length: 24 };
    let first = network.first();
    if first.address != address {
        return first;
    }
    Network { address: Ipv4Addr::from_bits(network.broadcast().to_bits() - 1), length: 24 }
}

impl Router {
    /// No port. `seed` is a number that guests do not know; packets on the way out have at most `mtu` bytes.
    pub fn new(setup: &Setup, mtu: u16, seed: u64) -> Self {
        let nat = setup
            .uplink
            .is_some()
            .then(|| Nat::new(nat::SESSIONS, nat::GUEST_SESSIONS, seed, setup.forwardings.clone()));
        Self {
            interfaces: Vec::new(),
            uplink: None,
            upkeep: Upkeep::default(),
            counts: Counts::default(),
            leased: false,
            mtu,
            dns: setup.dns.clone(),
            nat,
            hosts: Vec::new(),
            neighbours: Box::new(Neighbours::new(seed.rotate_left(17))),
            fragments: Fragments::default(),
            v6: Knowledge::new(setup.uplink.as_ref().and_then(|uplink| uplink.v6), seed.rotate_left(43)),
            answer: [0; ANSWER],
            answered: None,
        }
    }

    /// A port on a bridge without a NIC, with a DHCP server. The router's Ethernet address there.
    pub fn add_internal(&mut self, port: PortId, own: Network) -> MacAddress {
        self.add(port, Kind::Internal(Leases::new(own)), own)
    }

    /// The port on the way out.
    pub fn add_uplink(&mut self, port: PortId, own: Network, gateway: Option<Ipv4Addr>) -> MacAddress {
        self.uplink = Some(port);
        self.fragments.add(port);
        self.add(port, Kind::Uplink { gateway }, own)
    }

    /// A port towards one guest. `None` where the guest has no address, or another one has it.
    pub fn add_guest(&mut self, port: PortId, guest: Routed) -> Option<MacAddress> {
        let routed_v6 = if guest.translated { &[] } else { guest.addresses_v6.as_slice() };
        let first = guest.addresses.first().copied();
        let none = first.is_none() && routed_v6.is_empty();
        let is_known = guest.addresses.iter().any(|address| self.host(*address).is_some());
        if none || is_known || routed_v6.iter().any(|address| self.v6.host(*address).is_some()) {
            return None;
        }
        self.v6.add(routed_v6, port);
        self.hosts.extend(guest.addresses.iter().map(|address| (*address, port)));
        self.hosts.sort_unstable();
        self.hosts.dedup();
        if let Some(nat) = &mut self.nat {
            nat.add(port);
        }
        self.fragments.add(port);
        self.look_soon();
        // Without IPv4 it has no address that a packet could be for. Each guest is on a network of its own.
        let own = first.map_or(Network { address: Ipv4Addr::UNSPECIFIED, length: 24 }, gateway_for);
        Some(self.add(port, Kind::Guest(guest), own))
    }

    fn add(&mut self, port: PortId, kind: Kind, own: Network) -> MacAddress {
        let mac = mac_of(own.address);
        if self.interfaces.len() <= port.index() {
            self.interfaces.resize_with(port.index() + 1, || None);
        }
        if let Some(place) = self.interfaces.get_mut(port.index()) {
            *place = Some(Interface { kind, own, mac, waited: None });
        }
        mac
    }

    /// Takes a port away.
    pub fn remove(&mut self, port: PortId) {
        if let Some(place) = self.interfaces.get_mut(port.index()) {
            *place = None;
        }
        self.hosts.retain(|(_, known)| *known != port);
        self.fragments.remove(port);
        self.v6.remove(port);
        if let Some(nat) = &mut self.nat {
            nat.remove(port);
        }
    }

    /// Whether guests can be behind it.
    pub const fn has_uplink(&self) -> bool {
        self.nat.is_some()
    }

    /// The guest with an address.
    fn host(&self, address: Ipv4Addr) -> Option<PortId> {
        host_of(&self.hosts, address)
    }

    /// The guest with an address, where that is known on the way out.
    fn known_outside(&self, address: Ipv4Addr) -> Option<PortId> {
        let port = self.host(address)?;
        matches!(&self.interface(port)?.kind, Kind::Guest(Routed { translated: false, .. })).then_some(port)
    }

    fn interface(&self, port: PortId) -> Option<&Interface> {
        self.interfaces.get(port.index())?.as_ref()
    }

    /// The answer to the last frame, and the port that it leaves from.
    pub fn take_answer(&mut self) -> Option<(PortId, &[u8])> {
        let (port, length) = self.answered.take()?;
        Some((port, self.answer.get(..length)?))
    }

    /// Handles a frame that came to a port: its first bytes, [`HEAD`] of them where there are so many.
    pub fn handle(&mut self, port: PortId, bytes: &mut [u8], frame: Frame, now: Instant) -> Verdict {
        self.answered = None;
        let verdict = self.decide(port, bytes, frame, now);
        self.counts.note(verdict);
        verdict
    }

    fn decide(&mut self, port: PortId, bytes: &mut [u8], frame: Frame, now: Instant) -> Verdict {
        let Some(interface) = self.interface(port) else {
            return Verdict::Taken;
        };
        let (Some(destination), Some(ethertype)) = (bytes.first_chunk().copied().map(MacAddress), read_u16(bytes, 12))
        else {
            return Verdict::Drop(DropCause::NotRouted);
        };
        if destination != interface.mac && !destination.is_group() {
            return Verdict::Taken;
        }
        match ethertype {
            arp::ETHERTYPE => self.handle_arp(port, bytes, now),
            ETHERTYPE_IPV4 => self.handle_ipv4(port, bytes, frame, destination, now),
            ETHERTYPE_IPV6 => self.handle_ipv6(port, bytes, frame, destination, now),
            _ if destination.is_group() => Verdict::Taken,
            _ => Verdict::Drop(DropCause::NotRouted),
        }
    }

    fn handle_arp(&mut self, port: PortId, bytes: &[u8], now: Instant) -> Verdict {
        let (Some(packet), Some(interface)) = (arp::Packet::parse(bytes), self.interface(port)) else {
            return Verdict::Taken;
        };
        let ((mac, address), (_, target)) = (packet.sender, packet.target);
        let (own, own_mac) = (interface.own.address, interface.mac);
        let is_own = interface.is_own(target);
        let answers = match &interface.kind {
            // All addresses but its own are behind the router.
            Kind::Guest(guest) => !guest.addresses.contains(&target) && !target.is_unspecified(),
            Kind::Internal(_) => is_own,
            // It answers for the guests whose addresses are known there (proxy ARP, RFC 1027).
            Kind::Uplink { .. } => is_own || self.known_outside(target).is_some(),
        };
        if matches!(interface.kind, Kind::Uplink { .. }) && interface.own.is_host(address) && address != own {
            self.neighbours.hear(address, mac, now);
        }
        if packet.asks && answers {
            let answer = arp::Packet { asks: false, sender: (own_mac, target), target: (mac, address) };
            self.set_answer(port, &answer.frame(mac));
        }
        Verdict::Taken
    }

    fn set_answer(&mut self, port: PortId, frame: &[u8]) {
        if put(&mut self.answer, 0, frame) {
            self.answered = Some((port, frame.len()));
        }
    }

    /// Asks a station of the way out for its Ethernet address.
    fn ask(&mut self, target: Ipv4Addr) {
        if let Some((port, interface)) = self.uplink.and_then(|port| Some((port, self.interface(port)?))) {
            let (sender, target) = ((interface.mac, interface.own.address), (MacAddress::default(), target));
            let question = arp::Packet { asks: true, sender, target };
            self.set_answer(port, &question.frame(MacAddress::BROADCAST));
        }
    }

    fn handle_ipv4(&mut self, port: PortId, bytes: &mut [u8], frame: Frame, to: MacAddress, now: Instant) -> Verdict {
        let Some(header) = Header::parse(bytes, START).filter(|header| header.total + START <= frame.length) else {
            return if to.is_group() { Verdict::Taken } else { LOST };
        };
        let Some(interface) = self.interface(port) else {
            return LOST;
        };
        // The checksum of a fragment's packet is over all of its fragments.
        if header.is_fragment && (frame.blank || frame.segment.is_some()) {
            return Verdict::Drop(DropCause::Unsuitable);
        }
        let Interface { kind, own, .. } = interface;
        let is_own = interface.is_own(header.destination);
        let serves = !matches!(kind, Kind::Uplink { .. });
        let is_dhcp = header.protocol == PROTOCOL_UDP
            && !header.is_fragment
            && read_u16(bytes, START + header.length + 2) == Some(SERVER_PORT);
        if serves
            && is_dhcp
            && (is_own || header.destination == Ipv4Addr::BROADCAST || header.destination == own.broadcast())
        {
            return self.handle_dhcp(port, bytes, header, frame, now);
        }
        if !serves && self.is_for_client(bytes, &header) {
            return self.hear_server(bytes, &header, frame, now);
        }
        if to.is_group() || header.destination.is_multicast() || header.destination.is_broadcast() {
            return Verdict::Taken;
        }
        if is_martian(header.source) || is_martian(header.destination) || interface.is_no_sender(header.source) {
            return LOST;
        }
        match kind {
            Kind::Internal(_) if is_own => self.handle_own(port, bytes, &header),
            Kind::Internal(_) => LOST,
            Kind::Guest(_) if is_own => self.handle_guests_own(port, bytes, &header, frame, now),
            Kind::Guest(_) => self.leave(port, bytes, &header, frame, now),
            Kind::Uplink { .. } if is_own => self.enter(port, bytes, &header, frame, now),
            Kind::Uplink { .. } => match self.known_outside(header.destination) {
                Some(guest) => self.pass_in(guest, port, bytes, &header),
                None => LOST,
            },
        }
    }

    /// A packet for the router's own address: an echo is answered by the packet itself.
    fn handle_own(&self, port: PortId, bytes: &mut [u8], header: &Header) -> Verdict {
        if header.is_fragment {
            return Verdict::Drop(DropCause::Fragment);
        }
        let asks = transport::Transport::parse(bytes, START, header, false).is_some_and(|echo| echo.asks(bytes));
        let own = self.interface(port).map(|interface| interface.mac);
        let (Some(own), Some(asker)) = (own, bytes.get(6..).and_then(<[u8]>::first_chunk).copied().map(MacAddress))
        else {
            return Verdict::Drop(DropCause::NotRouted);
        };
        if asks && icmp::reply(bytes, header) && set_stations(bytes, asker, own) {
            return Verdict::Send(port);
        }
        Verdict::Drop(DropCause::NotRouted)
    }

    fn handle_dhcp(&mut self, port: PortId, bytes: &[u8], header: Header, frame: Frame, now: Instant) -> Verdict {
        if bytes.len() < frame.length.min(WHOLE) {
            return Verdict::More;
        }
        let begin = START + header.length;
        let source = bytes.get(6..).and_then(<[u8]>::first_chunk).copied().map(MacAddress);
        // A client that asks for another's lease could use up all of them.
        let message = bytes.get(begin + 8..).and_then(Message::parse).filter(|message| Some(message.mac) == source);
        let is_client = read_u16(bytes, begin) == Some(CLIENT_PORT);
        let resolves = self.resolves();
        let Some(interface) = self.interfaces.get_mut(port.index()).and_then(Option::as_mut) else {
            return Verdict::Taken;
        };
        let (Some(message), true) = (message, is_client) else {
            return Verdict::Drop(DropCause::NotRouted);
        };
        let (own, mac) = (interface.own, interface.mac);
        let mut single;
        let (book, router): (&mut dyn Book, _) = match &mut interface.kind {
            Kind::Internal(leases) => (leases, None),
            Kind::Guest(Routed { mac, addresses, .. }) => {
                let Some(&address) = addresses.first() else {
                    return Verdict::Taken;
                };
                single = Single { mac: *mac, address };
                (&mut single, Some(own.address))
            }
            Kind::Uplink { .. } => return Verdict::Taken,
        };
        let Some(answer) = dhcp::answer(&message, own.address, book, now) else {
            return Verdict::Taken;
        };
        self.leased |= answer.kind == dhcp::Kind::Acknowledge;
        let to = if answer.to.is_broadcast() { MacAddress::BROADCAST } else { message.mac };
        let asked = [own.address];
        let dns = if resolves && router.is_some() { &asked[..] } else { &self.dns };
        let reply = dhcp::write(&answer, &message, &Terms { own, router, dns });
        if self.write_udp(to, mac, (own.address, SERVER_PORT), (answer.to, CLIENT_PORT), &reply) {
            self.answered = Some((port, ANSWER));
        }
        Verdict::Taken
    }

    /// Writes a packet of UDP as the answer.
    fn write_udp(
        &mut self,
        to: MacAddress,
        from: MacAddress,
        (source, source_port): (Ipv4Addr, u16),
        (destination, destination_port): (Ipv4Addr, u16),
        payload: &[u8; MESSAGE_BYTES],
    ) -> bool {
        let (start, length) = (START + 20, (8 + MESSAGE_BYTES) as u16);
        let out = &mut self.answer;
        let [a, b] = source_port.to_be_bytes();
        let [c, d] = destination_port.to_be_bytes();
        let [e, f] = length.to_be_bytes();
        let all = set_stations(out, to, from)
            && put(out, 12, &ETHERTYPE_IPV4.to_be_bytes())
            && ipv4::write(out, length + 20, PROTOCOL_UDP, source, destination)
            && put(out, start, &[a, b, c, d, e, f, 0, 0])
            && put(out, start + 8, payload);
        let mut sum = Sum::new();
        sum.add(&source.octets());
        sum.add(&destination.octets());
        sum.add_u16(u16::from(PROTOCOL_UDP));
        sum.add_u16(length);
        sum.add(out.get(start..).unwrap_or_default());
        let checksum = if sum.checksum() == 0 { 0xffff } else { sum.checksum() };
        all && put(out, start + 6, &checksum.to_be_bytes())
    }
}

/// The guest with an address, of those in order.
fn host_of(hosts: &[(Ipv4Addr, PortId)], address: Ipv4Addr) -> Option<PortId> {
    let place = hosts.binary_search_by_key(&address, |(known, _)| *known).ok()?;
    hosts.get(place).map(|(_, port)| *port)
}

/// Gives a frame its stations.
fn set_stations(bytes: &mut [u8], destination: MacAddress, source: MacAddress) -> bool {
    put(bytes, 0, &destination.0) && put(bytes, 6, &source.0)
}

#[cfg(test)]
mod tests;
