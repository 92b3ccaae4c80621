//! The ways of IPv4 packets: from a guest to the way out and to other guests, and back. Pure. Floor 3.

use super::config::{Network, Protocol};
use super::icmp::{self, About, Wrong};
use super::ipv4::{Header, START, is_martian, pass_hop, set_addresses};
use super::nat::{Endpoint, Inside};
use super::transport::{Transport, tcp_header};
use super::{Frame, Interface, Kind, LOST, Routed, Router, Verdict, host_of, set_stations};
use crate::ethernet::MacAddress;
use crate::offload::headers::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_TCP, put, read_u16};
use crate::statistics::DropCause;
use crate::switch::PortId;
use core::net::Ipv4Addr;
use split_driver::time::Instant;

/// Bytes of the headers of IPv4 and TCP, without options.
const HEADERS: u16 = 40;

/// What translation makes of a packet.
pub(super) struct Translated {
    pub(super) source: Endpoint,
    pub(super) destination: Endpoint,
}

impl Router {
    /// A packet of a guest, which is not for the router.
    pub(super) fn leave(
        &mut self,
        port: PortId,
        bytes: &mut [u8],
        header: &Header,
        frame: Frame,
        now: Instant,
    ) -> Verdict {
        let way_out = self.way_out();
        // Hops are those of what passes (RFC 1812, 5.3.1).
        if way_out.is_some_and(|(_, own)| own.address == header.destination) {
            return self.turn(port, bytes, header, frame, now);
        }
        let guest = self.host(header.destination);
        let for_all = |own: Network| own.contains(header.destination) && !own.is_host(header.destination);
        if guest.is_none() && way_out.is_some_and(|(_, own)| for_all(own)) {
            return LOST;
        }
        if header.ttl < 2 {
            return self.refuse(port, bytes, header, Wrong::Hops);
        }
        if let Some(guest) = guest.filter(|_| way_out.is_some()) {
            return if pass_hop(bytes) { self.to_guest(guest, bytes) } else { LOST };
        }
        let Some((uplink, Network { address: own, .. })) = way_out else {
            return self.refuse(port, bytes, header, Wrong::NoRoute);
        };
        if let Some(wrong) = self.too_big(bytes, header, frame) {
            return wrong.map_or(Verdict::Drop(DropCause::Unsuitable), |wrong| self.refuse(port, bytes, header, wrong));
        }
        let guest = self.interface(port).map(|interface| &interface.kind);
        let translated = !matches!(guest, Some(Kind::Guest(Routed { translated: false, .. })));
        let Some(station) = self.station(header.destination, now) else {
            return self.refuse(port, bytes, header, Wrong::NoRoute);
        };
        let Some(station) = station else {
            return self.wait_for_station(port, now);
        };
        if translated && header.is_later {
            match self.follow(port, bytes, header, now) {
                Ok(to) if to == uplink => {}
                Ok(_) => return LOST,
                Err(verdict) => return verdict,
            }
        } else if translated
            && !(self.translate_out(port, own, bytes, header, frame, now)
                && self.lead(port, bytes, header, (uplink, own, header.destination), now))
        {
            return LOST;
        }
        if !pass_hop(bytes) {
            return LOST;
        }
        match self.interface(uplink) {
            Some(interface) if set_stations(bytes, station, interface.mac) => Verdict::Send(uplink),
            _ => LOST,
        }
    }

    /// A packet from the way out for a guest whose address is known there.
    pub(super) fn pass_in(&mut self, guest: PortId, port: PortId, bytes: &mut [u8], header: &Header) -> Verdict {
        if header.ttl < 2 {
            return self.refuse(port, bytes, header, Wrong::Hops);
        }
        if pass_hop(bytes) { self.to_guest(guest, bytes) } else { LOST }
    }

    /// A packet for the router's own address on the way out.
    pub(super) fn enter(
        &mut self,
        port: PortId,
        bytes: &mut [u8],
        header: &Header,
        frame: Frame,
        now: Instant,
    ) -> Verdict {
        if let Some(about) = About::parse(bytes, header) {
            return self.enter_error(bytes, header, &about);
        }
        if header.is_later {
            return self.follow_to_guest(port, bytes, header, now);
        }
        let transport = match self.transport_for_own(port, bytes, header) {
            Ok(transport) => transport,
            Err(verdict) => return verdict,
        };
        if header.ttl < 2 {
            return self.refuse(port, bytes, header, Wrong::Hops);
        }
        let remote = Endpoint { address: header.source, port: remote_port(transport.protocol, transport.source) };
        let Some(inside) = self.find(&transport, transport.destination, remote, now) else {
            return LOST;
        };
        let source = self.seen(&inside, Endpoint { address: header.source, port: transport.source });
        self.translate_in(port, bytes, (header, &transport), source, inside, frame, now)
    }

    /// The guest that a segment of TCP with these first bytes, which comes from the way out, goes on to as things are now: the port that
    /// [`Self::handle`] sends it from. Nothing is changed by this. `None` where it does not go on, or that is not known before.
    pub fn foresee(&self, port: PortId, bytes: &[u8], now: Instant) -> Option<PortId> {
        let interface = self.interface(port).filter(|_| self.uplink == Some(port))?;
        if bytes.first_chunk() != Some(&interface.mac.0) {
            return None;
        }
        if read_u16(bytes, 12)? == ETHERTYPE_IPV6 {
            return self.foresee_v6(bytes);
        }
        let header = Header::parse(bytes, START).filter(|header| header.protocol == PROTOCOL_TCP && header.ttl >= 2)?;
        let passes = !is_martian(header.source) && !interface.is_no_sender(header.source);
        if read_u16(bytes, 12)? != ETHERTYPE_IPV4 || header.is_fragment || !passes {
            return None;
        }
        if !interface.is_own(header.destination) {
            return self.known_outside(header.destination);
        }
        let transport = Transport::parse(bytes, START, &header, false)?;
        let remote = Endpoint { address: header.source, port: transport.source };
        self.nat.as_ref()?.foresee(transport.protocol, transport.destination, remote, now)
    }

    /// What a packet for the router's own address on the way out has behind its header. An echo is answered.
    ///
    /// # Errors
    /// What becomes of a packet that is for no port.
    fn transport_for_own(&self, port: PortId, bytes: &mut [u8], header: &Header) -> Result<Transport, Verdict> {
        let transport = Transport::parse(bytes, START, header, false).ok_or(LOST)?;
        if transport.asks(bytes) { Err(self.handle_own(port, bytes, header)) } else { Ok(transport) }
    }

    /// A packet of a guest for the router's own address on the way out: for a port that is a guest's, where there is one (RFC 4787, REQ-9).
    fn turn(&mut self, port: PortId, bytes: &mut [u8], header: &Header, frame: Frame, now: Instant) -> Verdict {
        let own = header.destination;
        if header.is_later {
            return self.follow_to_guest(port, bytes, header, now);
        }
        let transport = match self.transport_for_own(port, bytes, header) {
            Ok(transport) => transport,
            Err(verdict) => return verdict,
        };
        if header.ttl < 2 {
            return self.refuse(port, bytes, header, Wrong::Hops);
        }
        let from = Inside {
            owner: port,
            endpoint: Endpoint { address: header.source, port: transport.source },
            resolves: false,
        };
        let target = Endpoint { address: own, port: remote_port(transport.protocol, transport.destination) };
        let Self { nat: Some(nat), hosts, .. } = self else {
            return LOST;
        };
        // Nothing is opened towards a port that is no guest's, or of one that is not there.
        let forwarded = nat.forwarding(transport.protocol, transport.destination);
        let is_known = forwarded.is_some_and(|end| host_of(hosts, end.address).is_some())
            || nat.find_port(from, transport.protocol, target).is_some();
        let given = is_known.then(|| nat.leave(from, transport.protocol, target, transport.flags, now)).flatten();
        let Some(given) = given else {
            return LOST;
        };
        let source = Endpoint { address: own, port: given };
        let Some(inside) = self.find(&transport, transport.destination, source, now) else {
            return LOST;
        };
        self.translate_in(port, bytes, (header, &transport), source, inside, frame, now)
    }

    /// Translates a packet for the router's own address, and has it go on to a guest.
    #[expect(clippy::too_many_arguments, reason = "a packet, as it was and as it will be")]
    fn translate_in(
        &mut self,
        port: PortId,
        bytes: &mut [u8],
        (header, transport): (&Header, &Transport),
        source: Endpoint,
        inside: Inside,
        frame: Frame,
        now: Instant,
    ) -> Verdict {
        let Inside { owner, endpoint: destination, .. } = inside;
        let done = self.translate(bytes, transport, Translated { source, destination }, frame)
            && self.lead(port, bytes, header, (owner, source.address, destination.address), now)
            && pass_hop(bytes);
        if done { self.to_guest(owner, bytes) } else { LOST }
    }

    /// A fragment behind the first one, for the router's own address.
    fn follow_to_guest(&mut self, port: PortId, bytes: &mut [u8], header: &Header, now: Instant) -> Verdict {
        if header.ttl < 2 {
            return LOST;
        }
        match self.follow(port, bytes, header, now) {
            Ok(guest) if pass_hop(bytes) => self.to_guest(guest, bytes),
            Ok(_) => LOST,
            Err(verdict) => verdict,
        }
    }

    /// An error from outside about a packet of a guest.
    fn enter_error(&mut self, bytes: &mut [u8], header: &Header, about: &About) -> Verdict {
        let remote = Endpoint {
            address: about.destination().address,
            port: remote_port(about.protocol(), about.destination().port),
        };
        let is_own = about.source().address == header.destination;
        let nat = self.nat.as_ref().filter(|_| is_own);
        let Some(inside) = nat.and_then(|nat| nat.find_inside(about.protocol(), about.source().port, remote)) else {
            return LOST;
        };
        let destination = match about.protocol() {
            Protocol::Echo => Endpoint { port: inside.endpoint.port, ..about.destination() },
            _ => self.seen(&inside, about.destination()),
        };
        let done = about.set(bytes, header, inside.endpoint, destination)
            && set_addresses(bytes, START, header.source, inside.endpoint.address).is_some()
            && pass_hop(bytes);
        self.counts.translated += u64::from(done);
        if done { self.to_guest(inside.owner, bytes) } else { LOST }
    }

    /// Translates a packet of a guest for the way out.
    fn translate_out(
        &mut self,
        port: PortId,
        own: Ipv4Addr,
        bytes: &mut [u8],
        header: &Header,
        frame: Frame,
        now: Instant,
    ) -> bool {
        let Some(nat) = &mut self.nat else {
            return false;
        };
        if let Some(about) = About::parse(bytes, header) {
            let inside = Inside { owner: port, endpoint: about.destination(), resolves: false };
            let remote =
                Endpoint { address: about.source().address, port: remote_port(about.protocol(), about.source().port) };
            let Some(given) = nat.find_port(inside, about.protocol(), remote) else {
                return false;
            };
            let source = match about.protocol() {
                Protocol::Echo => Endpoint { port: given, ..about.source() },
                _ => about.source(),
            };
            let done = about.set(bytes, header, source, Endpoint { address: own, port: given })
                && set_addresses(bytes, START, own, header.destination).is_some();
            self.counts.translated += u64::from(done);
            return done;
        }
        let Some(transport) = Transport::parse(bytes, START, header, false) else {
            return false;
        };
        let inside = Inside {
            owner: port,
            endpoint: Endpoint { address: header.source, port: transport.source },
            resolves: false,
        };
        let remote =
            Endpoint { address: header.destination, port: remote_port(transport.protocol, transport.destination) };
        let Some(given) = nat.leave(inside, transport.protocol, remote, transport.flags, now) else {
            return false;
        };
        let destination = Endpoint { address: header.destination, port: transport.destination };
        self.translate(
            bytes,
            &transport,
            Translated { source: Endpoint { address: own, port: given }, destination },
            frame,
        )
    }

    /// Gives a packet other ends.
    pub(super) fn translate(&mut self, bytes: &mut [u8], transport: &Transport, to: Translated, frame: Frame) -> bool {
        let Translated { source, destination } = to;
        let Some(change) = set_addresses(bytes, START, source.address, destination.address) else {
            return false;
        };
        if transport.is_first {
            transport.clamp(bytes, self.mtu.saturating_sub(HEADERS), frame.blank);
        }
        self.counts.translated += 1;
        transport.set_ports(bytes, source.port, destination.port, change, frame.blank)
    }

    /// The guest's end that a packet to the router's own address is for.
    fn find(&mut self, transport: &Transport, port: u16, remote: Endpoint, now: Instant) -> Option<Inside> {
        let Self { nat, hosts, .. } = self;
        let owner_of = |address| host_of(hosts, address);
        nat.as_mut()?.enter(transport.protocol, port, remote, transport.flags, now, owner_of)
    }

    /// The way out, and the router's own address there.
    pub(super) fn way_out(&self) -> Option<(PortId, Network)> {
        Some((self.uplink?, self.address()?))
    }

    /// What is wrong with the length of a packet for the way out; nothing to be said of it where it might be cut.
    pub(super) fn too_big(&self, bytes: &[u8], header: &Header, frame: Frame) -> Option<Option<Wrong>> {
        let longest = match frame.segment {
            Some(segment) => usize::from(segment) + header.length + tcp_header(bytes, START + header.length),
            None => header.total,
        };
        (longest > usize::from(self.mtu)).then(|| header.whole.then_some(Wrong::TooBig(self.mtu)))
    }

    /// The station that a packet for an address goes to on the way out; `None` where there is no way, `Some(None)` where it did not answer yet.
    pub(super) fn station(&mut self, address: Ipv4Addr, now: Instant) -> Option<Option<MacAddress>> {
        let Interface { kind: Kind::Uplink { gateway }, own, .. } = self.interface(self.uplink?)? else {
            return None;
        };
        let next = match own.contains(address) {
            true => Some(address).filter(|address| own.is_host(*address)),
            false => *gateway,
        }?;
        let look = self.neighbours.look(next, now);
        if look.ask {
            self.ask(next);
        }
        Some(look.mac)
    }

    fn to_guest(&self, port: PortId, bytes: &mut [u8]) -> Verdict {
        match self.interface(port) {
            Some(Interface { kind: Kind::Guest(guest), mac, .. }) if set_stations(bytes, guest.mac, *mac) => {
                Verdict::Send(port)
            }
            _ => LOST,
        }
    }

    /// Tells the sender of a packet what is wrong with it.
    pub(super) fn refuse(&mut self, port: PortId, bytes: &[u8], header: &Header, wrong: Wrong) -> Verdict {
        let Some((own, mac)) = self.interface(port).map(|interface| (interface.own.address, interface.mac)) else {
            return LOST;
        };
        let sender = bytes.get(6..).and_then(<[u8]>::first_chunk).copied().map(MacAddress);
        let out = &mut self.answer;
        if let (Some(length), Some(sender)) = (icmp::error(out, bytes, header, own, wrong), sender)
            && set_stations(out, sender, mac)
            && put(out, 12, &ETHERTYPE_IPV4.to_be_bytes())
        {
            self.answered = Some((port, length));
        }
        LOST
    }
}

/// The port of a remote end. For an echo there is none: both ends have its identifier.
const fn remote_port(protocol: Protocol, port: u16) -> u16 {
    match protocol {
        Protocol::Echo => 0,
        Protocol::Tcp | Protocol::Udp => port,
    }
}

#[cfg(test)]
mod tests;
