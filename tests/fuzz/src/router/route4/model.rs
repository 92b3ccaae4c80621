//! What becomes of a frame that comes to a router, by what docs/NETWORKING.md and RFC 1812 say, at leisure. Host.

use super::guard;
use super::packet::{
    ICMP, Ip, START, TCP, UDP, Upper, about, is_group, is_host, is_martian, is_within, set_word, word,
};
use super::tables::{Cut, Cuts, End, Inside, Sessions, Stations};
use super::terms::{Fate, Guest, LAB, Said, Sums, UPLINK, mac_of};
use netdom::ethernet::MacAddress;
use netdom::router::Frame;
use netdom::router::config::{Network, Protocol};
use netdom::statistics::DropCause;
use netdom::switch::PortId;
use split_driver::time::{Duration, Instant};
use std::net::Ipv4Addr;

const LAB_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 7, 1);
pub(super) const LAB_NETWORK: Network = Network { address: LAB_ADDRESS, length: 24 };
/// Ports of the switch that are ever used, and one more.
const PORTS: usize = 9;
const NAMES: u16 = 53;

pub(super) struct Model {
    pub(super) own: Network,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) names: Option<Ipv4Addr>,
    pub(super) mtu: u16,
    pub(super) guests: Vec<Guest>,
    pub(super) sessions: Sessions,
    pub(super) cuts: Cuts,
    pub(super) stations: Stations,
    waited: [Option<Instant>; PORTS],
    /// When stations are looked for that will be needed.
    pub(super) look: Instant,
    /// The frame as it goes on.
    pub(super) frame: Vec<u8>,
    pub(super) sums: Sums,
    pub(super) said: Said,
    pub(super) forwarded: u64,
    pub(super) translated: u64,
    pub(super) drops: [u64; DropCause::COUNT],
}

const LOST: Fate = Fate::Lost(DropCause::NotRouted);

/// A packet, and where and when it came.
#[derive(Clone, Copy)]
struct Came<'a> {
    port: PortId,
    ip: Ip,
    told: Frame,
    bytes: &'a [u8],
    /// What the router made of it, where it goes on: ports and identifications are the router's choice.
    made: &'a [u8],
    now: Instant,
}

impl Model {
    pub(super) fn new(own: Network, gateway: Option<Ipv4Addr>, names: Option<Ipv4Addr>, mtu: u16) -> Self {
        Self {
            own,
            gateway,
            names,
            mtu,
            guests: Vec::new(),
            sessions: Sessions::default(),
            cuts: Cuts::default(),
            stations: Stations::default(),
            waited: [None; PORTS],
            look: Instant::default(),
            frame: Vec::new(),
            sums: Sums::Same,
            said: Said::Nothing,
            forwarded: 0,
            translated: 0,
            drops: [0; DropCause::COUNT],
        }
    }

    pub(super) fn guest(&self, port: PortId) -> Option<&Guest> {
        self.guests.iter().find(|guest| guest.port == port)
    }

    pub(super) fn guest_of(&self, address: Ipv4Addr) -> Option<&Guest> {
        self.guests.iter().find(|guest| guest.addresses.contains(&address))
    }

    /// A guest goes, and all that is known of it.
    pub(super) fn forget(&mut self, port: PortId) {
        self.guests.retain(|guest| guest.port != port);
        self.sessions.all.retain(|session| session.inside.guest != port);
        self.cuts.0.retain(|cut| cut.from != port && cut.to != port);
        self.waited[usize::from(port.0)] = None;
    }

    /// The router's address at a port, where that is there.
    pub(super) fn own_at(&self, port: PortId) -> Option<Ipv4Addr> {
        match port {
            UPLINK => Some(self.own.address),
            LAB => Some(LAB_ADDRESS),
            _ => self.guest(port).map(Guest::gateway),
        }
    }

    /// Whether an address is of the network of the way out; and whether it is a station's there.
    fn is_near(&self, address: Ipv4Addr) -> bool {
        is_within(self.own.address, self.own.length, address)
    }

    fn is_beside(&self, address: Ipv4Addr) -> bool {
        is_host(self.own.address, self.own.length, address)
    }

    /// What becomes of a frame. `made` is what the router made of it, where it goes on.
    pub(super) fn judge(&mut self, port: PortId, bytes: &[u8], told: Frame, made: &[u8], now: Instant) -> Fate {
        (self.said, self.sums) = (Said::Nothing, Sums::Same);
        self.frame.clear();
        self.frame.extend_from_slice(bytes);
        let translated = self.translated;
        let fate = self.decide(port, bytes, told, made, now);
        match fate {
            Fate::Goes(_) => self.forwarded += 1,
            Fate::Lost(cause) => self.drops[cause as usize] += 1,
            Fate::Taken | Fate::Waits => {}
        }
        assert!(self.translated == translated || matches!(fate, Fate::Goes(_)));
        fate
    }

    fn decide(&mut self, port: PortId, bytes: &[u8], told: Frame, made: &[u8], now: Instant) -> Fate {
        let Some(own) = self.own_at(port) else {
            return Fate::Taken;
        };
        let to = MacAddress(*bytes.first_chunk().expect("an Ethernet header"));
        if to != mac_of(own) && !is_group(to) {
            return Fate::Taken;
        }
        match word(bytes, 12) {
            Some(0x0806) => self.hear_arp(port, bytes, now),
            Some(0x0800) => match Ip::read(bytes, START).filter(|ip| ip.end() <= told.length) {
                Some(ip) => self.route(Came { port, ip, told, bytes, made, now }, to),
                None if is_group(to) => Fate::Taken,
                None => LOST,
            },
            _ if is_group(to) => Fate::Taken,
            _ => LOST,
        }
    }

    fn hear_arp(&mut self, port: PortId, bytes: &[u8], now: Instant) -> Fate {
        let Some((asks, asker, target)) = guard::arp(bytes) else {
            return Fate::Taken;
        };
        let has = match port {
            UPLINK => target == self.own.address || self.guest_of(target).is_some_and(|guest| !guest.translated),
            LAB => target == LAB_ADDRESS,
            _ => !target.is_unspecified() && self.guest(port).is_some_and(|guest| !guest.addresses.contains(&target)),
        };
        if port == UPLINK && self.is_beside(asker.1) && asker.1 != self.own.address {
            self.stations.hear(asker.1, asker.0, now);
        }
        if asks && has {
            self.said = Said::Has { port, target, asker };
        }
        Fate::Taken
    }

    fn route(&mut self, came: Came<'_>, to: MacAddress) -> Fate {
        let Came { port, ip, told, bytes, .. } = came;
        if ip.is_fragment() && (told.blank || told.segment.is_some()) {
            return Fate::Lost(DropCause::Unsuitable);
        }
        let own = self.own_at(port).unwrap_or(Ipv4Addr::UNSPECIFIED);
        let [a, b, c, _] = own.octets();
        let for_all = [own, Ipv4Addr::BROADCAST, Ipv4Addr::new(a, b, c, 255)].contains(&ip.destination);
        let is_dhcp = ip.protocol == UDP && !ip.is_fragment() && word(bytes, ip.behind() + 2) == Some(67);
        if port != UPLINK && is_dhcp && for_all {
            let is_client = word(bytes, ip.behind()) == Some(68);
            let message = bytes.get(ip.behind() + 8..).unwrap_or_default();
            if !is_client || !guard::is_own_message(message, &bytes[6..12]) {
                return LOST;
            }
            self.said = Said::Dhcp { port };
            return Fate::Taken;
        }
        if is_group(to) || ip.destination.is_multicast() || ip.destination.is_broadcast() {
            return Fate::Taken;
        }
        let beside = match port {
            UPLINK => Some(self.own),
            LAB => Some(LAB_NETWORK),
            _ => None,
        };
        // From no station, or from the router itself (RFC 1812, 5.3.7).
        let is_none = |Network { address, length }: Network| {
            address == ip.source || is_within(address, length, ip.source) && !is_host(address, length, ip.source)
        };
        if is_martian(ip.source) || is_martian(ip.destination) || beside.is_some_and(is_none) {
            return LOST;
        }
        let is_own = ip.destination == own;
        match port {
            LAB if is_own => self.echo(&came),
            LAB => LOST,
            UPLINK if is_own => self.enter(&came),
            UPLINK => match self.guest_of(ip.destination).filter(|guest| !guest.translated).copied() {
                Some(_) if ip.ttl < 2 => self.refuse(&came, (11, 0), 0),
                Some(guest) => self.hand(&guest),
                None => LOST,
            },
            _ if is_own => self.own_side(&came),
            _ => self.leave(&came),
        }
    }

    /// A packet of a guest for the router's own address there.
    fn own_side(&mut self, came: &Came<'_>) -> Fate {
        match Upper::read(came.bytes, &came.ip, false) {
            Some(upper) if upper.protocol != Protocol::Echo && upper.destination == NAMES && !came.ip.is_fragment() => {
                self.resolve(came, &upper)
            }
            _ if self.guest_of(came.ip.destination).is_some() => self.leave(came),
            _ => self.echo(came),
        }
    }

    /// A packet for the router alone: echoes are answered.
    fn echo(&mut self, came: &Came<'_>) -> Fate {
        let Came { port, ip, bytes, .. } = *came;
        if ip.is_fragment() {
            return Fate::Lost(DropCause::Fragment);
        }
        let upper = Upper::read(bytes, &ip, false);
        let Some(upper) = upper.filter(|upper| upper.protocol == Protocol::Echo && bytes[upper.at] == 8) else {
            return LOST;
        };
        self.frame[upper.at] = 0;
        self.frame[START + 8] = 64;
        self.set_ends(START, ip.destination, ip.source);
        let own = self.own_at(port).unwrap_or(Ipv4Addr::UNSPECIFIED);
        self.set_stations(MacAddress(*bytes[6..].first_chunk().expect("a station")), mac_of(own));
        self.sums = Sums::Whole;
        Fate::Goes(port)
    }

    /// What a packet has to fit into the way out: bytes of the longest that is made of it.
    fn longest(came: &Came<'_>) -> usize {
        let Came { ip, told, bytes, .. } = came;
        match told.segment {
            Some(segment) => {
                let options = bytes.get(ip.behind() + 12).map_or(20, |byte| usize::from(byte >> 4) * 4);
                usize::from(segment) + ip.header + options.max(20)
            }
            None => ip.total,
        }
    }

    /// The station that a packet goes to, or why it does not go.
    fn next(&mut self, came: &Came<'_>, address: Ipv4Addr) -> Result<MacAddress, Fate> {
        if Self::longest(came) > usize::from(self.mtu) {
            return Err(match came.ip.may_be_cut() {
                true => Fate::Lost(DropCause::Unsuitable),
                false => self.refuse(came, (3, 4), self.mtu),
            });
        }
        let next = if self.is_near(address) { Some(address) } else { self.gateway };
        let Some(next) = next else {
            return Err(self.refuse(came, (3, 0), 0));
        };
        let (station, asks) = self.stations.look(next, came.now);
        if asks {
            self.said = Said::Asks { target: next };
        }
        station.ok_or_else(|| self.wait(came.port, came.now))
    }

    /// The station that the router asks for of itself: it looks for the gateway and the name server each 20 s, while there are guests.
    pub(super) fn due(&mut self, now: Instant) -> Option<Ipv4Addr> {
        if self.guests.is_empty() || self.look > now {
            return None;
        }
        for address in [self.gateway, self.names].into_iter().flatten() {
            if self.stations.look(address, now).1 {
                return Some(address);
            }
        }
        self.look = now + Duration::from_secs(20);
        None
    }

    fn wait(&mut self, port: PortId, now: Instant) -> Fate {
        let waited = &mut self.waited[usize::from(port.0)];
        let begun = waited.filter(|begun| now.since(*begun) < Duration::from_secs(1));
        let begun = *waited.insert(begun.unwrap_or(now));
        if now.since(begun) < Duration::from_millis(20) { Fate::Waits } else { LOST }
    }

    /// A packet of a guest that is not for the router.
    fn leave(&mut self, came: &Came<'_>) -> Fate {
        let Came { port, ip, bytes, made, now, .. } = *came;
        if ip.destination == self.own.address {
            return self.turn(came);
        }
        let guest = self.guest_of(ip.destination).copied();
        if guest.is_none() && self.is_near(ip.destination) && !self.is_beside(ip.destination) {
            // To all stations of the way out, by no means: and nobody is told (RFC 1812, 4.3.2.7).
            return LOST;
        }
        if ip.ttl < 2 {
            return self.refuse(came, (11, 0), 0);
        }
        if let Some(guest) = guest {
            return self.hand(&guest);
        }
        let station = match self.next(came, ip.destination) {
            Ok(station) => station,
            Err(fate) => return fate,
        };
        if self.guest(port).is_some_and(|guest| guest.translated) {
            let own = self.own.address;
            if ip.is_later() {
                let cut = self.cuts.find(port, (ip.source, ip.destination, ip.protocol, ip.id), now);
                let Some(cut) = cut else {
                    return Fate::Lost(DropCause::Fragment);
                };
                self.set_ends(START, cut.ends.0, cut.ends.1);
                set_word(&mut self.frame, START + 4, cut.id);
                self.translated += 1;
            } else if let Some((inner, upper)) = about(bytes, &ip) {
                let inside = Inside { guest: port, end: (inner.destination, upper.destination), asks: false };
                let remote = (inner.source, upper.far(upper.source));
                let Some(known) = self.sessions.by_inside(inside, upper.protocol, remote) else {
                    return LOST;
                };
                let port = known.port;
                self.set_ends(START, own, ip.destination);
                self.set_about((&inner, &upper), (inner.source, upper.source), (own, port));
            } else {
                let Some(upper) = Upper::read(bytes, &ip, false) else {
                    return LOST;
                };
                let inside = Inside { guest: port, end: (ip.source, upper.source), asks: false };
                let remote = (ip.destination, upper.far(upper.destination));
                let given = word(made, upper.at + if upper.protocol == Protocol::Echo { 4 } else { 0 });
                let given = self.sessions.leave(inside, upper.protocol, remote, upper.flags, given, now);
                self.translate(came, &upper, (own, given), (ip.destination, upper.destination), UPLINK);
            }
        }
        self.frame[START + 8] -= 1;
        self.set_stations(station, mac_of(self.own.address));
        Fate::Goes(UPLINK)
    }

    /// A question for a name.
    fn resolve(&mut self, came: &Came<'_>, upper: &Upper) -> Fate {
        if came.ip.ttl < 2 {
            return self.refuse(came, (11, 0), 0);
        }
        let Some(server) = self.names else {
            return self.refuse(came, (3, 0), 0);
        };
        let station = match self.next(came, server) {
            Ok(station) => station,
            Err(fate) => return fate,
        };
        let inside = Inside { guest: came.port, end: (came.ip.source, upper.source), asks: true };
        let given = word(came.made, upper.at);
        let given = self.sessions.leave(inside, upper.protocol, (server, NAMES), upper.flags, given, came.now);
        self.translate(came, upper, (self.own.address, given), (server, NAMES), UPLINK);
        self.frame[START + 8] -= 1;
        self.set_stations(station, mac_of(self.own.address));
        Fate::Goes(UPLINK)
    }

    /// A packet of a guest for the router's address on the way out.
    fn turn(&mut self, came: &Came<'_>) -> Fate {
        let Came { port, ip, bytes, made, now, .. } = *came;
        if ip.is_later() {
            return if ip.ttl < 2 { LOST } else { self.follow(came) };
        }
        let Some(upper) = Upper::read(bytes, &ip, false) else {
            return LOST;
        };
        if upper.protocol == Protocol::Echo && bytes[upper.at] == 8 {
            return self.echo(came);
        }
        if ip.ttl < 2 {
            return self.refuse(came, (11, 0), 0);
        }
        let own = ip.destination;
        let from = Inside { guest: port, end: (ip.source, upper.source), asks: false };
        let target = (own, upper.far(upper.destination));
        let forwarded = self.sessions.forwarding(upper.protocol, upper.destination);
        let is_open = forwarded.is_some_and(|end| self.guest_of(end.0).is_some())
            || self.sessions.by_inside(from, upper.protocol, target).is_some();
        if !is_open {
            return LOST;
        }
        let given = word(made, upper.at);
        let given = self.sessions.leave(from, upper.protocol, target, upper.flags, given, now);
        self.bring(came, &upper, (own, given))
    }

    /// A packet from the way out for the router's address there.
    fn enter(&mut self, came: &Came<'_>) -> Fate {
        let Came { ip, bytes, .. } = *came;
        if let Some((inner, upper)) = about(bytes, &ip) {
            let remote = (inner.destination, upper.far(upper.destination));
            let known = self.sessions.by_port(upper.protocol, upper.source, remote);
            let Some(inside) = known.map(|known| known.inside).filter(|_| inner.source == ip.destination) else {
                return LOST;
            };
            let Some(guest) = self.guest(inside.guest).filter(|_| ip.ttl >= 2).copied() else {
                return LOST;
            };
            let seen = if inside.asks { guest.gateway() } else { inner.destination };
            self.set_ends(START, ip.source, inside.end.0);
            self.set_about((&inner, &upper), inside.end, (seen, upper.destination));
            return self.hand(&guest);
        }
        if ip.is_later() {
            return if ip.ttl < 2 { LOST } else { self.follow(came) };
        }
        let Some(upper) = Upper::read(bytes, &ip, false) else {
            return LOST;
        };
        if upper.protocol == Protocol::Echo && bytes[upper.at] == 8 {
            return self.echo(came);
        }
        if ip.ttl < 2 {
            return self.refuse(came, (11, 0), 0);
        }
        self.bring(came, &upper, (ip.source, upper.source))
    }

    /// A packet for a port of the router's, to the guest that has it. `source` is whom it is from.
    fn bring(&mut self, came: &Came<'_>, upper: &Upper, source: End) -> Fate {
        let Self { sessions, guests, .. } = self;
        let guest_of = |address| guests.iter().find(|guest| guest.addresses.contains(&address)).map(|guest| guest.port);
        let remote = (source.0, upper.far(source.1));
        let found = sessions.enter(upper.protocol, upper.destination, remote, upper.flags, came.now, guest_of);
        let Some((inside, guest)) = found.and_then(|inside| Some((inside, *self.guest(inside.guest)?))) else {
            return LOST;
        };
        let seen = if inside.asks { guest.gateway() } else { source.0 };
        self.translate(came, upper, (seen, source.1), inside.end, guest.port);
        self.hand(&guest)
    }

    /// A fragment behind the first one, for the router's address on the way out.
    fn follow(&mut self, came: &Came<'_>) -> Fate {
        let Came { port, ip, now, .. } = *came;
        let Some(cut) = self.cuts.find(port, (ip.source, ip.destination, ip.protocol, ip.id), now) else {
            return Fate::Lost(DropCause::Fragment);
        };
        let guest = self.guest(cut.to).copied().expect("a way to a guest that is gone is forgotten");
        self.set_ends(START, cut.ends.0, cut.ends.1);
        set_word(&mut self.frame, START + 4, cut.id);
        self.translated += 1;
        self.hand(&guest)
    }

    /// Gives the packet to a guest.
    fn hand(&mut self, guest: &Guest) -> Fate {
        self.frame[START + 8] -= 1;
        self.set_stations(guest.mac, mac_of(guest.gateway()));
        Fate::Goes(guest.port)
    }

    /// Tells the sender why its packet does not go on, where it may be told (RFC 1812, 4.3.2.7).
    fn refuse(&mut self, came: &Came<'_>, kind: (u8, u8), fits: u16) -> Fate {
        let Came { port, ip, bytes, .. } = *came;
        let of_icmp = bytes.get(ip.behind()).is_none_or(|kind| matches!(*kind, 3 | 4 | 5 | 11 | 12));
        let is_told = !(ip.is_later() || ip.protocol == ICMP && of_icmp);
        if is_told {
            self.said = Said::Refuses { port, kind, fits };
        }
        LOST
    }

    /// Gives the packet other ends, and notes where its other fragments go.
    fn translate(&mut self, came: &Came<'_>, upper: &Upper, source: End, destination: End, to: PortId) {
        let Came { port, ip, made, now, .. } = *came;
        self.translated += 1;
        self.sums = Sums::Whole;
        self.set_ends(START, source.0, destination.0);
        if upper.protocol == Protocol::Echo {
            let new = if source.1 != upper.source { source.1 } else { destination.1 };
            set_word(&mut self.frame, upper.at + 4, new);
        } else {
            set_word(&mut self.frame, upper.at, source.1);
            set_word(&mut self.frame, upper.at + 2, destination.1);
        }
        if ip.protocol == TCP && upper.flags & 2 != 0 {
            self.bound_segments(upper.at, ip.end());
        }
        if ip.is_fragment() {
            let id = if port == UPLINK { ip.id } else { word(made, START + 4).unwrap_or(0) };
            // The far end must take packets of several guests apart.
            let is_other = |cut: &Cut| cut.from != port || cut.name.3 != ip.id;
            assert!(
                port == UPLINK || self.cuts.0.iter().all(|cut| !is_other(cut) || cut.id != id || cut.from == UPLINK)
            );
            set_word(&mut self.frame, START + 4, id);
            let name = (ip.source, ip.destination, ip.protocol, ip.id);
            self.cuts.note(Cut { from: port, name, to, ends: (source.0, destination.0), id, first: now });
        }
    }

    /// The largest segment that a first segment of TCP asks for fits into the way out.
    fn bound_segments(&mut self, at: usize, end: usize) {
        let most = self.mtu - 40;
        let options = at + usize::from(self.frame[at + 12] >> 4) * 4;
        let end = options.min(self.frame.len()).min(end);
        let mut place = at + 20;
        while place + 1 < end {
            match (self.frame[place], usize::from(self.frame[place + 1])) {
                (1, _) => place += 1,
                (2, 4) if place + 4 <= end => {
                    if word(&self.frame, place + 2).is_some_and(|old| old > most) {
                        set_word(&mut self.frame, place + 2, most);
                    }
                    return;
                }
                (0, _) | (_, 0 | 1) => return,
                (_, length) => place += length,
            }
        }
    }

    /// Gives the packet in an error other ends.
    fn set_about(&mut self, (inner, upper): (&Ip, &Upper), source: End, destination: End) {
        self.translated += 1;
        self.sums = Sums::Error;
        self.set_ends(inner.at, source.0, destination.0);
        if upper.protocol == Protocol::Echo {
            let new = if source.1 != upper.source { source.1 } else { destination.1 };
            set_word(&mut self.frame, upper.at + 4, new);
        } else {
            set_word(&mut self.frame, upper.at, source.1);
            set_word(&mut self.frame, upper.at + 2, destination.1);
        }
    }

    fn set_ends(&mut self, at: usize, source: Ipv4Addr, destination: Ipv4Addr) {
        self.frame[at + 12..at + 16].copy_from_slice(&source.octets());
        self.frame[at + 16..at + 20].copy_from_slice(&destination.octets());
    }

    fn set_stations(&mut self, to: MacAddress, from: MacAddress) {
        self.frame[..6].copy_from_slice(&to.0);
        self.frame[6..12].copy_from_slice(&from.0);
    }
}
