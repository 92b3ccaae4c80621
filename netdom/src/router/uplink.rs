//! The way out: its address, where DHCP gives it, and the stations that are kept known there. Pure. Floor 3.
//!
//! Without a lease there is no way out. Where there are guests, the gateway and the name server are asked for their Ethernet addresses
//! in time, so that no packet of a guest is the first one to them.

use super::config::Network;
use super::dhcp::client::{Client, Lease, Question, Reply};
use super::dhcp::{CLIENT_PORT, SERVER_PORT};
use super::ipv4::{Header, START};
use super::{ANSWER as ANSWER_BYTES, Frame, Interface, Kind, LOST, Router, Verdict, WHOLE};
use crate::ethernet::MacAddress;
use crate::hash::KeyedHash;
use crate::offload::headers::{PROTOCOL_UDP, read_u16};
use crate::switch::PortId;
use core::net::Ipv4Addr;
use split_driver::time::{Duration, Instant};

/// How often the gateway and the name server are looked at: well within the time that a station is known without a question.
const LOOK: Duration = Duration::from_secs(20);

/// How long packets of a guest wait for a station that was asked, how often it is looked for meanwhile, and how long after that none of the guest's
/// waits again: a guest that sends to stations that there are not loses no more time by it.
const ANSWER: Duration = Duration::from_millis(20);
const AGAIN: Duration = Duration::from_millis(1);
const REST: Duration = Duration::from_secs(1);

/// What the router does on the way out of itself.
#[derive(Default)]
pub(super) struct Upkeep {
    /// Where the address is by DHCP.
    client: Option<Client>,
    /// When stations are to be looked at.
    look: Instant,
    /// The station that uses the address now is to be announced.
    announces: bool,
    /// The lease has changed, and that was not told yet.
    has_news: bool,
}

/// The Ethernet address of a port whose IP address is not known: a local one (IEEE 802-2014, 8.2.2), of the NIC's.
const fn mac_beside(nic: MacAddress) -> MacAddress {
    let [_, b, c, d, e, f] = nic.0;
    MacAddress([0x06, b, c, d, e, f])
}

impl Router {
    /// The port on the way out, whose address is by DHCP. It has none before a NIC is there, or an earlier life's lease.
    pub fn add_leased_uplink(&mut self, port: PortId, seed: u64) {
        self.uplink = Some(port);
        self.upkeep.client = Some(Client::new(KeyedHash::new(seed).of([0x6468_6370])));
        self.add(port, Kind::Uplink { gateway: None }, Network::NONE);
    }

    /// The port on the way out.
    pub const fn uplink(&self) -> Option<PortId> {
        self.uplink
    }

    /// Its address there, in its network.
    pub fn address(&self) -> Option<Network> {
        let own = self.interface(self.uplink?)?.own;
        Some(own).filter(|own| !own.address.is_unspecified())
    }

    /// Whether that is by DHCP.
    pub const fn is_by_dhcp(&self) -> bool {
        self.upkeep.client.is_some()
    }

    /// The lease of it.
    pub fn lease(&self) -> Option<&Lease> {
        self.upkeep.client.as_ref()?.lease()
    }

    /// The lease, where it is another one than when this was asked last; `None` in it where it is over.
    pub fn poll_lease(&mut self) -> Option<Option<Lease>> {
        core::mem::take(&mut self.upkeep.has_news).then(|| self.lease().cloned())
    }

    /// A NIC with this Ethernet address is on the bridge of the way out, with a link or without. The router's own address there, where that is new.
    pub fn note_wire(&mut self, nic: MacAddress, has_link: bool, now: Instant) -> Option<MacAddress> {
        let client = self.upkeep.client.as_mut()?;
        let is_new = !client.mac().is_station();
        match (is_new, has_link) {
            (true, _) => client.begin(mac_beside(nic), now),
            (false, true) => client.link_up(now),
            (false, false) => {}
        }
        let mac = client.mac();
        self.use_lease();
        is_new.then_some(mac)
    }

    /// The lease for the domain's next life, where the port is the one on the way out.
    pub(super) fn keep_lease(&self, port: PortId) -> Option<[u8; super::dhcp::client::KEPT_BYTES]> {
        self.upkeep.client.as_ref().filter(|_| self.uplink == Some(port))?.keep()
    }

    /// Goes on with the lease of an earlier life, where the port is the one on the way out.
    pub(super) fn restore_lease(&mut self, port: PortId, bytes: &[u8], now: Instant) {
        if let Some(client) = self.upkeep.client.as_mut().filter(|_| self.uplink == Some(port)) {
            client.restore(bytes, now);
            self.use_lease();
        }
    }

    /// The router's Ethernet address on the way out.
    pub fn station_of_uplink(&self) -> Option<MacAddress> {
        Some(self.interface(self.uplink?)?.mac).filter(|mac| mac.is_station())
    }

    /// Has the port be what the client says.
    fn use_lease(&mut self) {
        let (Some(client), Some(port)) = (&self.upkeep.client, self.uplink) else {
            return;
        };
        let (own, gateway) = client.lease().map_or((Network::NONE, None), |lease| (lease.network, lease.gateway));
        let Some(interface) = self.interfaces.get_mut(port.index()).and_then(Option::as_mut) else {
            return;
        };
        let before = core::mem::replace(
            interface,
            Interface { kind: Kind::Uplink { gateway }, own, mac: client.mac(), waited: None },
        );
        if before.own == own {
            return;
        }
        self.neighbours.clear();
        self.upkeep.announces = client.lease().is_some();
        (self.upkeep.look, self.upkeep.has_news) = (Instant::default(), true);
    }

    /// Whether a packet from the way out is one of a DHCP server for the router.
    pub(super) fn is_for_client(&self, bytes: &[u8], header: &Header) -> bool {
        let port = |place: usize| read_u16(bytes, START + header.length + place);
        self.is_by_dhcp()
            && header.protocol == PROTOCOL_UDP
            && !header.is_fragment
            && (port(0), port(2)) == (Some(SERVER_PORT), Some(CLIENT_PORT))
            && self.known_outside(header.destination).is_none()
    }

    /// A message of a DHCP server.
    pub(super) fn hear_server(&mut self, bytes: &[u8], header: &Header, frame: Frame, now: Instant) -> Verdict {
        if bytes.len() < frame.length.min(WHOLE) {
            return Verdict::More;
        }
        let station = bytes.get(6..).and_then(<[u8]>::first_chunk).copied().map(MacAddress);
        let behind = bytes.get(START + header.length + 8..(START + header.total).min(bytes.len()));
        let (Some(client), Some(station), Some(reply)) =
            (&mut self.upkeep.client, station, behind.and_then(Reply::parse))
        else {
            return Verdict::Taken;
        };
        if client.hear(&reply, station, now) {
            self.upkeep.has_news = true;
            self.leased = true;
            self.use_lease();
        }
        Verdict::Taken
    }

    /// The next frame that the router sends of itself, and the port that it leaves from. Nothing more is due where there is none.
    pub fn poll(&mut self, now: Instant) -> Option<(PortId, &[u8])> {
        self.answered = None;
        self.poll_uplink(now);
        if self.answered.is_none() {
            self.advertise_in_turn(now);
        }
        self.take_answer()
    }

    /// Makes what is due on the way out the answer.
    fn poll_uplink(&mut self, now: Instant) {
        let Some(port) = self.uplink else {
            return;
        };
        let question = self.upkeep.client.as_mut().and_then(|client| client.poll(now));
        if self.is_by_dhcp() && self.lease().is_none() {
            self.use_lease();
        }
        if let Some(Question { message, source, to: (station, to) }) = question {
            let Some(own) = self.interface(port).map(|interface| interface.mac) else {
                return;
            };
            if self.write_udp(station, own, (source, CLIENT_PORT), (to, SERVER_PORT), &message) {
                self.answered = Some((port, ANSWER_BYTES));
            }
        } else if let Some(own) = self.address() {
            if core::mem::take(&mut self.upkeep.announces) {
                self.ask(own.address);
            } else if self.upkeep.look <= now && !self.hosts.is_empty() {
                self.look_at_stations(now);
            }
        }
    }

    /// Asks for a station that will be needed.
    fn look_at_stations(&mut self, now: Instant) {
        for address in [self.gateway(), self.resolver()].into_iter().flatten() {
            let _ = self.station(address, now);
            // One frame at a time; the next look asks for the next station.
            if self.answered.is_some() {
                return;
            }
        }
        self.upkeep.look = now + LOOK;
    }

    fn gateway(&self) -> Option<Ipv4Addr> {
        match self.interface(self.uplink?)?.kind {
            Kind::Uplink { gateway } => gateway,
            _ => None,
        }
    }

    /// When [`Self::poll`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        let client = self.upkeep.client.as_ref().and_then(Client::deadline);
        let look = self.address().map(|_| match (self.upkeep.announces, self.hosts.is_empty()) {
            (true, _) => Some(Instant::default()),
            (false, true) => None,
            (false, false) => Some(self.upkeep.look),
        });
        [client, look.flatten(), self.advertises_at()].into_iter().flatten().min()
    }

    /// A packet of a guest, which came to this port, is for a station that was asked and has not answered.
    pub(super) fn wait_for_station(&mut self, port: PortId, now: Instant) -> Verdict {
        let Some(interface) = self.interfaces.get_mut(port.index()).and_then(Option::as_mut) else {
            return LOST;
        };
        let begun = *interface.waited.get_or_insert(now);
        if now.since(begun) >= REST {
            interface.waited = Some(now);
            return Verdict::Later(now + AGAIN);
        }
        if now.since(begun) < ANSWER { Verdict::Later(now + AGAIN) } else { LOST }
    }

    /// A guest is there, whose packets may be for the gateway at once.
    pub(super) fn look_soon(&mut self) {
        self.upkeep.look = Instant::default();
    }
}

#[cfg(test)]
mod tests;
