//! What a router remembers, as plain lists: sessions, fragments, and stations. Host.

use netdom::ethernet::MacAddress;
use netdom::router::config::{Forwarding, Protocol};
use netdom::switch::PortId;
use split_driver::time::{Duration, Instant};
use std::net::Ipv4Addr;

/// An address and a port.
pub(super) type End = (Ipv4Addr, u16);

/// A guest's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inside {
    pub(super) guest: PortId,
    pub(super) end: End,
    /// It asks the router for names.
    pub(super) asks: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) inside: Inside,
    pub(super) protocol: Protocol,
    pub(super) remote: End,
    /// The router's port.
    pub(super) port: u16,
    heard: Instant,
    /// Heard of from inside, and from outside; ended from there; reset.
    sides: [bool; 2],
    ended: [bool; 2],
    reset: bool,
}

impl Session {
    fn is_over(&self, now: Instant) -> bool {
        let long = self.sides == [true; 2] && self.ended != [true; 2] && !self.reset;
        let seconds = match self.protocol {
            Protocol::Tcp if long => 7440,
            Protocol::Tcp => 240,
            Protocol::Udp => 300,
            Protocol::Echo => 60,
        };
        now.since(self.heard) > Duration::from_secs(seconds)
    }
}

#[derive(Default)]
pub(super) struct Sessions {
    pub(super) all: Vec<Session>,
    pub(super) forwardings: Vec<Forwarding>,
    /// There is one of whose port nothing is known: nothing can be said from then on.
    pub(super) is_blind: bool,
}

impl Sessions {
    pub(super) fn forwarding(&self, protocol: Protocol, port: u16) -> Option<End> {
        let known = self.forwardings.iter().find(|known| (known.protocol, known.port) == (protocol, port))?;
        Some((known.guest, known.guest_port))
    }

    fn is_taken(&self, protocol: Protocol, port: u16) -> bool {
        self.forwarding(protocol, port).is_some()
            || self.all.iter().any(|known| (known.protocol, known.port) == (protocol, port))
    }

    /// The router's port for a guest's end; `None` where it may be any that is free.
    fn port_of(&self, inside: Inside, protocol: Protocol) -> Option<u16> {
        if let Some(known) = self.all.iter().find(|known| (known.inside, known.protocol) == (inside, protocol)) {
            return Some(known.port);
        }
        let is_it = |known: &&Forwarding| (known.protocol, (known.guest, known.guest_port)) == (protocol, inside.end);
        if let Some(known) = self.forwardings.iter().find(is_it).filter(|_| !inside.asks) {
            return Some(known.port);
        }
        let port = inside.end.1;
        (!self.is_taken(protocol, port) && (port >= 1024 || protocol == Protocol::Echo)).then_some(port)
    }

    pub(super) fn by_inside(&self, inside: Inside, protocol: Protocol, remote: End) -> Option<&Session> {
        self.all.iter().find(|known| (known.inside, known.protocol, known.remote) == (inside, protocol, remote))
    }

    pub(super) fn by_port(&self, protocol: Protocol, port: u16, remote: End) -> Option<&Session> {
        self.all.iter().find(|known| (known.protocol, known.port, known.remote) == (protocol, port, remote))
    }

    fn hear(&mut self, inside: Inside, protocol: Protocol, remote: End, side: usize, flags: u8, now: Instant) -> bool {
        let is_it = |known: &Session| (known.inside, known.protocol, known.remote) == (inside, protocol, remote);
        let Some(place) = self.all.iter().position(is_it) else {
            return false;
        };
        if self.all[place].is_over(now) {
            self.all.swap_remove(place);
            return false;
        }
        let session = &mut self.all[place];
        if flags & 0x12 == 2 && side == 0 {
            (session.sides, session.ended, session.reset) = Default::default();
        }
        session.sides[side] = true;
        session.ended[side] |= flags & 1 != 0;
        session.reset |= flags & 4 != 0;
        if now.since(session.heard) >= Duration::from_secs(1) {
            session.heard = now;
        }
        true
    }

    fn open(&mut self, inside: Inside, protocol: Protocol, remote: End, side: usize, port: u16, now: Instant) {
        let mut sides = [false; 2];
        sides[side] = true;
        let session = Session { inside, protocol, remote, port, heard: now, sides, ended: [false; 2], reset: false };
        self.all.push(session);
    }

    /// A packet of a guest to a remote end: the port that it leaves with. `given` is what the router gave it.
    pub(super) fn leave(
        &mut self,
        inside: Inside,
        protocol: Protocol,
        remote: End,
        flags: u8,
        given: Option<u16>,
        now: Instant,
    ) -> u16 {
        let flags = if protocol == Protocol::Tcp { flags } else { 0 };
        if self.hear(inside, protocol, remote, 0, flags, now) {
            return self.by_inside(inside, protocol, remote).expect("it was heard").port;
        }
        let port = self.port_of(inside, protocol).unwrap_or_else(|| {
            // It has one, and nobody sees which, where the packet did not go on.
            self.is_blind |= given.is_none();
            let given = given.unwrap_or(u16::MAX);
            assert!(self.is_blind || given >= 49152 && !self.is_taken(protocol, given), "{given} for {inside:?}");
            given
        });
        self.open(inside, protocol, remote, 0, port, now);
        port
    }

    /// A packet from a remote end: the guest's end that it is for.
    pub(super) fn enter(
        &mut self,
        protocol: Protocol,
        port: u16,
        remote: End,
        flags: u8,
        now: Instant,
        guest_of: impl Fn(Ipv4Addr) -> Option<PortId>,
    ) -> Option<Inside> {
        let flags = if protocol == Protocol::Tcp { flags } else { 0 };
        if let Some(inside) = self.by_port(protocol, port, remote).map(|known| known.inside)
            && self.hear(inside, protocol, remote, 1, flags, now)
        {
            return Some(inside);
        }
        let end = self.forwarding(protocol, port)?;
        let inside = Inside { guest: guest_of(end.0)?, end, asks: false };
        self.open(inside, protocol, remote, 1, port, now);
        Some(inside)
    }
}

/// A packet of which the first fragment went on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    pub(super) from: PortId,
    pub(super) name: (Ipv4Addr, Ipv4Addr, u8, u16),
    pub(super) to: PortId,
    pub(super) ends: (Ipv4Addr, Ipv4Addr),
    pub(super) id: u16,
    pub(super) first: Instant,
}

#[derive(Default)]
pub(super) struct Cuts(pub(super) Vec<Cut>);

impl Cuts {
    pub(super) fn note(&mut self, cut: Cut) {
        self.0.retain(|known| (known.from, known.name) != (cut.from, cut.name));
        self.0.push(cut);
    }

    pub(super) fn find(&self, from: PortId, name: (Ipv4Addr, Ipv4Addr, u8, u16), now: Instant) -> Option<Cut> {
        let known = self.0.iter().find(|known| (known.from, known.name) == (from, name))?;
        (now.since(known.first) <= Duration::from_secs(30)).then_some(*known)
    }
}

#[derive(Clone, Copy, Default)]
struct Station {
    heard: Option<(MacAddress, Instant)>,
    asked: Option<Instant>,
}

/// The stations of the way out that were asked for.
#[derive(Default)]
pub(super) struct Stations(Vec<(Ipv4Addr, Station)>);

impl Stations {
    /// The station with an address, where it is known; and whether it is asked now.
    pub(super) fn look(&mut self, address: Ipv4Addr, now: Instant) -> (Option<MacAddress>, bool) {
        let place = self.0.iter().position(|(known, _)| *known == address).unwrap_or_else(|| {
            self.0.push((address, Station::default()));
            self.0.len() - 1
        });
        let station = &mut self.0[place].1;
        let known = station.heard.filter(|(_, heard)| now.since(*heard) <= Duration::from_secs(120));
        let is_fresh = known.is_some_and(|(_, heard)| now.since(heard) <= Duration::from_secs(60));
        let asks = !is_fresh && station.asked.is_none_or(|asked| now.since(asked) >= Duration::from_secs(1));
        if asks {
            station.asked = Some(now);
        }
        (known.map(|(mac, _)| mac), asks)
    }

    /// A station says that it has an address.
    pub(super) fn hear(&mut self, address: Ipv4Addr, mac: MacAddress, now: Instant) {
        if let Some((_, station)) = self.0.iter_mut().find(|(known, _)| *known == address)
            && mac.0[0] & 1 == 0
            && mac.0 != [0; 6]
        {
            station.heard = Some((mac, now));
        }
    }
}
