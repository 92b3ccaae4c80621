//! The ways of IPv6 packets: between guests whose addresses are known outside, and the way out; and the neighbour discovery on both sides. Pure.
//! Floor 3.
//!
//! A packet's extension headers pass unread, and so do fragments: nothing is translated.

use super::config::{UplinkV6, is_routable};
use super::icmpv6::{self, Wrong};
use super::ipv4::START;
use super::ipv6::{ALL_NODES, Header, pass_hop};
use super::nd::{self, Advertisement, Answer, Message};
use super::neighbours::Neighbours;
use super::transport::{TCP_HEADER, tcp_header};
use super::{Frame, Interface, Kind, LOST, Routed, Router, Verdict, set_stations};
use crate::ethernet::MacAddress;
use crate::offload::headers::PROTOCOL_TCP;
use crate::switch::PortId;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::net::Ipv6Addr;
use split_driver::time::{Duration, Instant};

/// The router's link-local address for each guest.
pub const GUEST_GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
/// Bytes of the header of IPv6, without extensions.
const HEADER: usize = 40;
/// How often guests are told of the router, for how many seconds each time (RFC 4861, 6.2.1), and when first in a life of the domain.
const INTERVAL: Duration = Duration::from_secs(600);
const LIFETIME: u16 = 1800;
const FIRST: Duration = Duration::from_secs(10);
/// Between two guests that are told.
const SPACING: Duration = Duration::from_millis(10);

/// What the router knows for IPv6.
pub(super) struct Knowledge {
    uplink: Option<UplinkV6>,
    /// The guests' addresses, in order.
    hosts: Vec<(Ipv6Addr, PortId)>,
    neighbours: Box<Neighbours>,
    /// When the next guest is told of the router, and from which port on it is looked for.
    due: Option<Instant>,
    next: usize,
}

impl Knowledge {
    /// No guest. `seed` is a number that guests do not know.
    pub(super) fn new(uplink: Option<UplinkV6>, seed: u64) -> Self {
        Self { uplink, hosts: Vec::new(), neighbours: Box::new(Neighbours::new(seed)), due: None, next: 0 }
    }

    /// The guest with an address.
    pub(super) fn host(&self, address: Ipv6Addr) -> Option<PortId> {
        let place = self.hosts.binary_search_by_key(&address, |(known, _)| *known).ok()?;
        self.hosts.get(place).map(|(_, port)| *port)
    }

    /// A guest has these addresses, which no other has.
    pub(super) fn add(&mut self, addresses: &[Ipv6Addr], port: PortId) {
        self.hosts.extend(addresses.iter().map(|address| (*address, port)));
        self.hosts.sort_unstable();
        self.hosts.dedup();
    }

    /// A guest is gone.
    pub(super) fn remove(&mut self, port: PortId) {
        self.hosts.retain(|(_, known)| *known != port);
    }

    fn is_on_link(&self, address: Ipv6Addr) -> bool {
        let UplinkV6 { network, gateway } = match &self.uplink {
            Some(uplink) => uplink,
            None => return false,
        };
        network.address != address && (network.contains(address) || *gateway == Some(address))
    }
}

impl Router {
    /// The guest behind a port, where it has IPv6.
    fn guest_v6(&self, port: PortId) -> Option<(&Interface, &Routed)> {
        let interface = self.interface(port)?;
        match &interface.kind {
            Kind::Guest(guest) if !guest.translated && !guest.addresses_v6.is_empty() => Some((interface, guest)),
            _ => None,
        }
    }

    fn is_uplink(&self, port: PortId) -> bool {
        self.uplink == Some(port)
    }

    /// The router's Ethernet and link-local address at a port, where there is IPv6.
    fn own_link_local(&self, port: PortId) -> Option<(MacAddress, Ipv6Addr)> {
        if let Some((Interface { mac, .. }, _)) = self.guest_v6(port) {
            return Some((*mac, GUEST_GATEWAY));
        }
        let interface = self.interface(port).filter(|_| self.is_uplink(port) && self.v6.uplink.is_some())?;
        Some((interface.mac, interface.mac.link_local()))
    }

    fn own_address(&self) -> Option<Ipv6Addr> {
        self.v6.uplink.map(|uplink| uplink.network.address)
    }

    pub(super) fn handle_ipv6(
        &mut self,
        port: PortId,
        bytes: &mut [u8],
        frame: Frame,
        to: MacAddress,
        now: Instant,
    ) -> Verdict {
        let header = Header::parse(bytes).filter(|header| header.total + START <= frame.length);
        let (Some(header), Some((_, link_local))) = (header, self.own_link_local(port)) else {
            return if to.is_group() { Verdict::Taken } else { LOST };
        };
        if nd::is_message(bytes, &header) {
            self.handle_discovery(port, bytes, &header, now);
            return Verdict::Taken;
        }
        if to.is_group() || header.destination.is_multicast() {
            return Verdict::Taken;
        }
        if self.is_own_from_outside(port, &header) {
            return LOST;
        }
        if header.destination == link_local || Some(header.destination) == self.own_address() {
            return self.handle_own_v6(port, bytes, &header);
        }
        if header.source.is_unicast_link_local() {
            return self.refuse_v6(port, bytes, &header, Wrong::Scope);
        }
        if !is_routable(header.source) || !is_routable(header.destination) {
            return LOST;
        }
        if header.hops < 2 {
            return self.refuse_v6(port, bytes, &header, Wrong::Hops);
        }
        match self.v6.host(header.destination) {
            Some(guest) if guest != port => self.to_guest_v6(guest, bytes),
            None if !self.is_uplink(port) => self.leave_v6(port, bytes, &header, frame, now),
            // It came from where it would go.
            _ => LOST,
        }
    }

    /// Whether a packet from the way out has the router's own address as its sender: no station there sends it.
    fn is_own_from_outside(&self, port: PortId, header: &Header) -> bool {
        self.is_uplink(port) && Some(header.source) == self.own_address()
    }

    /// The guest that a segment of TCP with these first bytes, which comes from the way out, goes on to.
    pub(super) fn foresee_v6(&self, bytes: &[u8]) -> Option<PortId> {
        self.v6.uplink?;
        let header = Header::parse(bytes).filter(|header| header.next == PROTOCOL_TCP && header.hops >= 2)?;
        if !is_routable(header.source) || !is_routable(header.destination) || header.source.is_unicast_link_local() {
            return None;
        }
        if Some(header.source) == self.own_address() {
            return None;
        }
        let guest = self.v6.host(header.destination).filter(|_| Some(header.destination) != self.own_address())?;
        self.guest_v6(guest).map(|_| guest)
    }

    /// A packet of a guest that is for no other guest.
    fn leave_v6(&mut self, port: PortId, bytes: &mut [u8], header: &Header, frame: Frame, now: Instant) -> Verdict {
        let Some((uplink, station)) = self.station_v6(header.destination, now) else {
            return self.refuse_v6(port, bytes, header, Wrong::NoRoute);
        };
        let headers =
            || HEADER + if header.next == PROTOCOL_TCP { tcp_header(bytes, START + HEADER) } else { TCP_HEADER };
        let longest = frame.segment.map_or(header.total, |segment| usize::from(segment) + headers());
        if longest > usize::from(self.mtu) {
            return self.refuse_v6(port, bytes, header, Wrong::TooBig(self.mtu));
        }
        let Some(station) = station else {
            return self.wait_for_station(port, now);
        };
        match self.interface(uplink).map(|interface| interface.mac) {
            Some(mac) if pass_hop(bytes) && set_stations(bytes, station, mac) => Verdict::Send(uplink),
            _ => LOST,
        }
    }

    /// The way out, and the station there that a packet for an address goes to; `None` where there is no way, and no station where it did not answer yet.
    fn station_v6(&mut self, address: Ipv6Addr, now: Instant) -> Option<(PortId, Option<MacAddress>)> {
        let (port, UplinkV6 { network, gateway }) = (self.uplink?, self.v6.uplink?);
        let next = if network.contains(address) { address } else { gateway? };
        let look = self.v6.neighbours.look(next, now);
        if look.ask {
            let (mac, link_local) = self.own_link_local(port)?;
            // The address that stations of the network know the router by.
            let source = if next.is_unicast_link_local() { link_local } else { network.address };
            let length = nd::ask(&mut self.answer, mac, source, next);
            self.answered = length.map(|length| (port, length));
        }
        Some((port, look.mac))
    }

    fn to_guest_v6(&self, guest: PortId, bytes: &mut [u8]) -> Verdict {
        match self.guest_v6(guest) {
            Some((interface, routed)) if pass_hop(bytes) && set_stations(bytes, routed.mac, interface.mac) => {
                Verdict::Send(guest)
            }
            _ => LOST,
        }
    }

    /// A packet for one of the router's own addresses: an echo is answered by the packet itself.
    fn handle_own_v6(&self, port: PortId, bytes: &mut [u8], header: &Header) -> Verdict {
        let own = self.interface(port).map(|interface| interface.mac);
        let (Some(own), Some(asker)) = (own, sender(bytes)) else {
            return LOST;
        };
        let is_station = is_routable(header.source) || header.source.is_unicast_link_local();
        if is_station && icmpv6::reply(bytes, header) && set_stations(bytes, asker, own) {
            return Verdict::Send(port);
        }
        LOST
    }

    fn handle_discovery(&mut self, port: PortId, bytes: &[u8], header: &Header, now: Instant) {
        let (Some(message), Some(asker)) = (Message::parse(bytes, header), sender(bytes)) else {
            return;
        };
        match message {
            Message::RouterSolicitation => {
                let all = header.source.is_unspecified();
                self.advertise(port, if all { ALL_NODES } else { header.source });
            }
            Message::Solicitation { target, mac } => {
                self.hear_v6(port, header.source, mac, now);
                self.answer_for(port, target, (asker, header.source));
            }
            Message::Advertisement { target, mac } => self.hear_v6(port, target, mac, now),
        }
    }

    /// A station said its Ethernet address, which counts on the way out.
    fn hear_v6(&mut self, port: PortId, address: Ipv6Addr, mac: Option<MacAddress>, now: Instant) {
        if let Some(mac) = mac.filter(|_| self.is_uplink(port) && self.v6.is_on_link(address)) {
            self.v6.neighbours.hear(address, mac, now);
        }
    }

    /// Answers a question for an Ethernet address, where what has it is the router, or is behind it.
    fn answer_for(&mut self, port: PortId, target: Ipv6Addr, asker: (MacAddress, Ipv6Addr)) {
        let Some(from) = self.own_link_local(port) else {
            return;
        };
        let is_own = target == from.1 || Some(target) == self.own_address();
        let is_behind = match self.guest_v6(port) {
            // All addresses but its own are behind the router. Whether one is free, the guest asks about its own alone.
            Some((_, guest)) => {
                is_routable(target) && !guest.addresses_v6.contains(&target) && !asker.1.is_unspecified()
            }
            // It answers for the guests there (RFC 4861, 7.2.8).
            None => self.v6.host(target).is_some(),
        };
        if is_own || is_behind {
            let length = Answer { to: asker, from, target, is_own }.write(&mut self.answer);
            self.answered = length.map(|length| (port, length));
        }
    }

    /// Tells a guest of the router.
    fn advertise(&mut self, port: PortId, destination: Ipv6Addr) {
        let Some((Interface { mac, .. }, guest)) = self.guest_v6(port) else {
            return;
        };
        let lifetime = if self.v6.uplink.is_some() { LIFETIME } else { 0 };
        let from = (*mac, GUEST_GATEWAY);
        let advertisement = Advertisement { to: guest.mac, destination, from, lifetime, mtu: self.mtu };
        let length = advertisement.write(&mut self.answer);
        self.answered = length.map(|length| (port, length));
    }

    /// When [`Self::advertise_in_turn`] has something to do. Never where no guest has IPv6.
    pub(super) fn advertises_at(&self) -> Option<Instant> {
        self.v6.due.filter(|_| !self.v6.hosts.is_empty())
    }

    /// Makes the next advertisement to a guest the answer, where it is time.
    pub(super) fn advertise_in_turn(&mut self, now: Instant) {
        if self.v6.hosts.is_empty() || *self.v6.due.get_or_insert(now + FIRST) > now {
            return;
        }
        let ports = (self.v6.next..self.interfaces.len()).filter_map(|place| u16::try_from(place).ok().map(PortId));
        let guest = ports.into_iter().find(|port| self.guest_v6(*port).is_some());
        let (next, due) = match guest {
            Some(port) => {
                self.advertise(port, ALL_NODES);
                (port.index() + 1, now + SPACING)
            }
            None => (0, now + INTERVAL),
        };
        (self.v6.next, self.v6.due) = (next, Some(due));
    }

    /// Tells the sender of a packet what is wrong with it.
    fn refuse_v6(&mut self, port: PortId, bytes: &[u8], header: &Header, wrong: Wrong) -> Verdict {
        let (Some((mac, link_local)), Some(sender)) = (self.own_link_local(port), sender(bytes)) else {
            return LOST;
        };
        // One that passes routers, where the sender may be behind others.
        let own = self.own_address().filter(|_| is_routable(header.source)).unwrap_or(link_local);
        if let Some(length) = icmpv6::error(&mut self.answer, bytes, header, own, wrong)
            && set_stations(&mut self.answer, sender, mac)
        {
            self.answered = Some((port, length));
        }
        LOST
    }
}

/// The station that a frame is from.
fn sender(bytes: &[u8]) -> Option<MacAddress> {
    let sender = bytes.get(6..)?.first_chunk().copied().map(MacAddress);
    sender.filter(|sender| sender.is_station())
}

#[cfg(test)]
mod tests;
