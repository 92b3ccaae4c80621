//! Names: what guests ask the router's own address for goes to a name server, as a session of the guest. Pure. Floor 3.
//!
//! A guest is told the router's address in place of the server's, so that another server may take its place at any time. The router reads no
//! question: it translates both ends, and the guest sees the router as the remote end ([`Inside::resolves`]).

use super::config::{Network, Protocol};
use super::icmp::Wrong;
use super::ipv4::{Header, START, pass_hop};
use super::nat::{Endpoint, Inside};
use super::route::Translated;
use super::transport::Transport;
use super::{Frame, LOST, Router, Verdict, set_stations};
use crate::statistics::DropCause;
use crate::switch::PortId;
use core::net::Ipv4Addr;
use split_driver::time::Instant;

/// UDP and TCP port of name servers (RFC 1035, 4.2).
pub(super) const PORT: u16 = 53;

impl Router {
    /// The server that guests' questions go to: the first one that it was told of, or that the lease tells of. None where that is a guest, which the
    /// others ask themselves.
    pub(super) fn resolver(&self) -> Option<Ipv4Addr> {
        let server = self.dns.first().or_else(|| self.lease()?.dns.first()).copied();
        server.filter(|server| self.host(*server).is_none())
    }

    /// Whether guests are told to ask the router.
    pub(super) fn resolves(&self) -> bool {
        self.has_uplink() && (self.resolver().is_some() || self.dns.is_empty() && self.is_by_dhcp())
    }

    /// A packet of a guest for the router's own address on its side.
    pub(super) fn handle_guests_own(
        &mut self,
        port: PortId,
        bytes: &mut [u8],
        header: &Header,
        frame: Frame,
        now: Instant,
    ) -> Verdict {
        match Transport::parse(bytes, START, header, false) {
            Some(transport)
                if transport.protocol != Protocol::Echo && transport.destination == PORT && !header.is_fragment =>
            {
                self.resolve(port, bytes, header, &transport, frame, now)
            }
            // The address may be another guest's. All but the router's services is that guest's then.
            _ if self.host(header.destination).is_some() => self.leave(port, bytes, header, frame, now),
            _ => self.handle_own(port, bytes, header),
        }
    }

    fn resolve(
        &mut self,
        port: PortId,
        bytes: &mut [u8],
        header: &Header,
        transport: &Transport,
        frame: Frame,
        now: Instant,
    ) -> Verdict {
        if header.ttl < 2 {
            return self.refuse(port, bytes, header, Wrong::Hops);
        }
        let (Some((uplink, Network { address: own, .. })), Some(server)) = (self.way_out(), self.resolver()) else {
            return self.refuse(port, bytes, header, Wrong::NoRoute);
        };
        if let Some(wrong) = self.too_big(bytes, header, frame) {
            return wrong.map_or(Verdict::Drop(DropCause::Unsuitable), |wrong| self.refuse(port, bytes, header, wrong));
        }
        let Some(station) = self.station(server, now) else {
            return self.refuse(port, bytes, header, Wrong::NoRoute);
        };
        let Some(station) = station else {
            return self.wait_for_station(port, now);
        };
        let Some(mac) = self.interface(uplink).map(|interface| interface.mac) else {
            return LOST;
        };
        let endpoint = Endpoint { address: header.source, port: transport.source };
        let inside = Inside { owner: port, endpoint, resolves: true };
        let remote = Endpoint { address: server, port: PORT };
        let nat = self.nat.as_mut();
        let Some(given) = nat.and_then(|nat| nat.leave(inside, transport.protocol, remote, transport.flags, now))
        else {
            return LOST;
        };
        let to = Translated { source: Endpoint { address: own, port: given }, destination: remote };
        let done = self.translate(bytes, transport, to, frame) && pass_hop(bytes) && set_stations(bytes, station, mac);
        if done { Verdict::Send(uplink) } else { LOST }
    }

    /// The remote end of a packet, as the guest sees it.
    pub(super) fn seen(&self, inside: &Inside, remote: Endpoint) -> Endpoint {
        match self.interface(inside.owner) {
            Some(interface) if inside.resolves => Endpoint { address: interface.own.address, ..remote },
            _ => remote,
        }
    }
}
