//! Fragments of packets whose addresses are translated: the first one, which has the ports, says where the others go (RFC 4787, REQ-14). Pure.
//! Floor 3.
//!
//! A fragment that comes before the first one of its packet is dropped and counted: nothing is held back. Each port has a ring of its own, so that a guest
//! pushes out packets of its own alone. On the way out, packets of all guests have one source address: their identification is changed, so that
//! the far end never joins fragments of two guests.

use super::ipv4::{Header, START, set_addresses, set_identification};
use super::{LOST, Router, Verdict};
use crate::statistics::DropCause;
use crate::switch::PortId;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use split_driver::time::{Duration, Instant};

/// Packets of a port that are known by their first fragment.
const PACKETS: usize = 32;
/// How long the other fragments may take (RFC 1122, 3.3.2, says 60 to 120 s; Linux gives a packet 30 s).
const PATIENCE: Duration = Duration::from_secs(30);

/// What fragments of one packet have alike (RFC 791, 3.2).
type Packet = (Ipv4Addr, Ipv4Addr, u8, u16);

/// Where fragments of a packet go, and with which addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub(super) to: PortId,
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
    pub(super) identification: u16,
}

#[derive(Clone, Copy)]
struct Known {
    packet: Packet,
    way: Way,
    first: Instant,
}

/// The packets of a port.
struct Ring {
    port: PortId,
    known: [Option<Known>; PACKETS],
    next: usize,
}

/// The packets of all ports.
#[derive(Default)]
pub(super) struct Fragments {
    /// In the order of their ports.
    rings: Vec<Ring>,
    /// The last identification that was given.
    last: u16,
}

const fn packet_of(header: &Header) -> Packet {
    (header.source, header.destination, header.protocol, header.identification)
}

impl Fragments {
    /// A port that fragments may come to.
    pub(super) fn add(&mut self, port: PortId) {
        if let Err(place) = self.rings.binary_search_by_key(&port, |ring| ring.port) {
            self.rings.insert(place, Ring { port, known: [None; PACKETS], next: 0 });
        }
    }

    /// Takes a port away, and all ways to it.
    pub(super) fn remove(&mut self, port: PortId) {
        self.rings.retain(|ring| ring.port != port);
        for known in self.rings.iter_mut().flat_map(|ring| &mut ring.known) {
            known.take_if(|known| known.way.to == port);
        }
    }

    fn ring(&mut self, port: PortId) -> Option<&mut Ring> {
        let place = self.rings.binary_search_by_key(&port, |ring| ring.port).ok()?;
        self.rings.get_mut(place)
    }

    /// Notes where the other fragments of a packet go, by the header that its first one had.
    fn note(&mut self, port: PortId, header: &Header, way: Way, now: Instant) {
        let Some(ring) = self.ring(port) else {
            return;
        };
        let packet = packet_of(header);
        // A packet of the same name takes the place of the earlier one.
        let same = ring.known.iter().position(|known| known.is_some_and(|known| known.packet == packet));
        let place = same.unwrap_or(ring.next);
        if same.is_none() {
            ring.next = (ring.next + 1) % PACKETS;
        }
        if let Some(known) = ring.known.get_mut(place) {
            *known = Some(Known { packet, way, first: now });
        }
    }

    fn find(&mut self, port: PortId, header: &Header, now: Instant) -> Option<Way> {
        let packet = packet_of(header);
        let mut known = self.ring(port)?.known.iter().flatten();
        known.find(|known| known.packet == packet && now.since(known.first) <= PATIENCE).map(|known| known.way)
    }
}

impl Router {
    /// Gives a fragment behind the first one the addresses that the first one got. The port that it goes to.
    ///
    /// # Errors
    /// Nothing is known of the first one.
    pub(super) fn follow(
        &mut self,
        port: PortId,
        bytes: &mut [u8],
        header: &Header,
        now: Instant,
    ) -> Result<PortId, Verdict> {
        let way = self.fragments.find(port, header, now).ok_or(Verdict::Drop(DropCause::Fragment))?;
        self.counts.translated += 1;
        rename(bytes, header, way).then_some(way.to).ok_or(LOST)
    }

    /// Where a packet that was translated is a first fragment, notes where the others go. False where there are no such bytes.
    pub(super) fn lead(
        &mut self,
        port: PortId,
        bytes: &mut [u8],
        header: &Header,
        (to, source, destination): (PortId, Ipv4Addr, Ipv4Addr),
        now: Instant,
    ) -> bool {
        if !header.is_fragment {
            return true;
        }
        // From outside, a source has but one station behind it.
        let identification = if Some(port) == self.uplink {
            header.identification
        } else {
            self.fragments.last = self.fragments.last.wrapping_add(1);
            self.fragments.last
        };
        let way = Way { to, source, destination, identification };
        self.fragments.note(port, header, way, now);
        set_identification(bytes, header.identification, identification)
    }
}

fn rename(bytes: &mut [u8], header: &Header, way: Way) -> bool {
    set_addresses(bytes, START, way.source, way.destination).is_some()
        && set_identification(bytes, header.identification, way.identification)
}
