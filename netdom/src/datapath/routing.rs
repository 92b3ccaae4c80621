//! The router's ports: what it makes of packets that the switch brings there, and its answers. Floor 3.
//!
//! A packet that it sends on has its first bytes changed in local memory, and goes on as one that came from the router's other port: to a guest
//! from grant to grant, super-frames whole. Answers are frames that a port of the router received.

use super::DataPath;
use super::forwarder::{Decision, Forwarder};
use super::ports::Ports;
use super::prepare::own_head;
use super::round::{Arrival, Round};
use crate::ethernet::MacAddress;
use crate::netback::violation::AttachError;
use crate::offload::head::{HEAD_BYTES, Head};
use crate::packet::{Checksum, Fragment, Offload, Packet, Pool};
use crate::policy::multicast::Behind;
use crate::router::config::Setup;
use crate::router::{Frame, HEAD, Routed, Router, Verdict, WHOLE};
use crate::statistics::DropCause;
use crate::switch::{PortId, Vlans};
use alloc::boxed::Box;
use alloc::format;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

/// Addresses of a port of the router: its own.
const ENTRIES: usize = 1;

/// How a packet goes on from another port of the router.
pub(super) struct Hop {
    pub(super) head: Head,
    /// Where its head is in [`Round::parsed`].
    pub(super) parsed: u32,
    /// Without a way it goes to the ports that were chosen last.
    pub(super) decision: Decision,
}

/// Why a packet does not go on from the router.
pub(super) enum Stay {
    /// It was for the router itself, or is lost.
    Gone,
    /// It is to come again then; where its sender cannot wait, it is lost.
    Until(Instant),
}

/// Has the router handle a packet with this head that came from one port and is at another, the router's.
///
/// # Errors
/// It does not go on.
pub(super) fn route<H: Hypervisor>(
    ports: &mut Ports<H>,
    forwarder: &mut Forwarder,
    round: &mut Round,
    pool: &Pool,
    (packet, length, head): (&mut Packet, u32, &Head),
    (from, at): (PortId, PortId),
    now: Instant,
) -> Result<Hop, Stay> {
    let mut router = forwarder.router.take().ok_or(Stay::Gone)?;
    let frame = Frame {
        length: length as usize,
        blank: packet.offload.checksum == Checksum::Blank,
        segment: packet.offload.gso.map(|gso| gso.size),
    };
    let mut bytes = [0; HEAD];
    let verdict = match look(&mut router, packet, at, frame, pool, &mut bytes, now) {
        Verdict::More => look_at_whole(&mut router, packet, at, frame, pool, &mut bytes, now),
        verdict => verdict,
    };
    if let Some((port, bytes)) = router.take_answer() {
        answer(ports, round, pool, port, bytes);
    }
    forwarder.router = Some(router);
    let out = match verdict {
        Verdict::Send(out) => out,
        Verdict::Drop(cause) => {
            ports.count_drop(from, cause);
            return Err(Stay::Gone);
        }
        Verdict::Later(until) => return Err(Stay::Until(until)),
        Verdict::Taken | Verdict::More => return Err(Stay::Gone),
    };
    // Headers stay where they were.
    let station =
        |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk).copied().map(MacAddress).unwrap_or_default();
    let head = head.with_stations([station(0), station(6)]);
    let length = packet.fragments.first().map_or(0, |first| usize::from(first.length).min(HEAD_BYTES));
    let parsed = round.parsed.len() as u32;
    round.parsed.push(head);
    let decision = forwarder.decide_routed(ports, out, &head, bytes.get(..length).unwrap_or_default(), now);
    Ok(Hop { head, parsed, decision })
}

/// Has the router look at the first bytes of a packet, which it may change: as many as there is room for. What they are then is in `bytes`.
#[inline(never)]
fn look(
    router: &mut Router,
    packet: &mut Packet,
    at: PortId,
    frame: Frame,
    pool: &Pool,
    bytes: &mut [u8],
    now: Instant,
) -> Verdict {
    const LOST: Verdict = Verdict::Drop(DropCause::NotRouted);
    let Some(first) = packet.fragments.first() else {
        return LOST;
    };
    let length = usize::from(first.length).min(bytes.len());
    let Some(bytes) = bytes.get_mut(..length) else {
        return LOST;
    };
    if !first.buffer.read(usize::from(first.offset), bytes) {
        return LOST;
    }
    let verdict = router.handle(at, bytes, frame, now);
    if !matches!(verdict, Verdict::Send(_)) {
        return verdict;
    }
    if let Err(cause) = own_head(packet, pool) {
        return Verdict::Drop(cause);
    }
    match packet.fragments.first() {
        Some(first) if first.buffer.write(usize::from(first.offset), bytes) => verdict,
        _ => Verdict::Drop(DropCause::NoBuffer),
    }
}

/// The same, with more bytes; those that there is room for in `start` are there then.
#[inline(never)]
fn look_at_whole(
    router: &mut Router,
    packet: &mut Packet,
    at: PortId,
    frame: Frame,
    pool: &Pool,
    start: &mut [u8; HEAD],
    now: Instant,
) -> Verdict {
    let mut bytes = [0; WHOLE];
    let verdict = look(router, packet, at, frame, pool, &mut bytes, now);
    if let Some(first) = bytes.first_chunk() {
        *start = *first;
    }
    verdict
}

/// Adds a frame of the router to those that were received.
pub(super) fn answer<H: Hypervisor>(ports: &mut Ports<H>, round: &mut Round, pool: &Pool, port: PortId, bytes: &[u8]) {
    let Some(buffer) = pool.take().filter(|buffer| buffer.write(0, bytes)) else {
        return ports.count_drop(port, DropCause::NoBuffer);
    };
    let offload = Offload { checksum: Checksum::Verified, gso: None };
    let mut frame = Packet { offload, ..Packet::default() };
    // It is far shorter than a page; and an empty packet has room.
    let length = bytes.len() as u16;
    let _ = frame.fragments.push(Fragment { buffer, offset: 0, length });
    let index = round.frames.len() as u32;
    round.frames.push(frame);
    round.arrivals.push(Arrival { port, from: port, frames: (index, index + 1) });
}

impl<H: Hypervisor> DataPath<H> {
    /// Has the domain be a router, before vifs are attached. Packets on the way out have at most `mtu` bytes; `seed` is a number that guests
    /// do not know.
    ///
    /// # Errors
    /// There is no port for it.
    pub fn set_router(&mut self, setup: &Setup, mtu: u16, seed: u64) -> Result<(), AttachError> {
        let mut router = Box::new(Router::new(setup, mtu, seed));
        for internal in &setup.internals {
            let port = self.add_router_port(&internal.bridge, Behind::Host)?;
            let mac = router.add_internal(port, internal.network);
            self.forwarder.switch.pin(port, mac);
        }
        if let Some(uplink) = &setup.uplink {
            // With IPv6 it is asked for guests' addresses in groups of theirs.
            let behind = if uplink.v6.is_some() { Behind::Wire } else { Behind::Host };
            let port = self.add_router_port(&uplink.bridge, behind)?;
            match uplink.network {
                Some(network) => {
                    let mac = router.add_uplink(port, network, uplink.gateway);
                    self.forwarder.switch.pin(port, mac);
                }
                None => router.add_leased_uplink(port, seed.rotate_left(29)),
            }
        }
        self.forwarder.router = Some(router);
        Ok(())
    }

    /// A port of the router on a bridge.
    fn add_router_port(&mut self, bridge: &str, behind: Behind) -> Result<PortId, AttachError> {
        let port = self.ports.free().ok_or(AttachError::NoPort)?;
        let added = self.forwarder.add_port(port, bridge, (Vlans::NONE, ENTRIES), behind, self.now);
        added.map_err(|_| AttachError::NoPort)?;
        self.ports.insert_router(port);
        Ok(port)
    }

    /// Puts the router on the bridge of its own that a guest behind it is on.
    ///
    /// # Errors
    /// Another guest has its address; or there is no port, or no router.
    pub(super) fn add_routed(&mut self, bridge: &str, guest: Routed) -> Result<(), AttachError> {
        let port = self.add_router_port(bridge, Behind::Host)?;
        let mac = self.forwarder.router.as_mut().and_then(|router| router.add_guest(port, guest));
        let Some(mac) = mac else {
            self.remove_router_port(port);
            return Err(AttachError::AddressTaken);
        };
        self.forwarder.switch.pin(port, mac);
        Ok(())
    }

    /// The router's port beside that of a guest behind it.
    pub(super) fn router_of(&self, guest: PortId) -> Option<PortId> {
        self.ports.guest(guest)?.vif.config.routed.as_ref()?;
        self.forwarder.switch.members(guest).iter().copied().find(|member| self.ports.is_router(*member))
    }

    /// Takes away the router's port beside a guest's, which is to be taken away.
    pub(super) fn remove_routed(&mut self, guest: PortId) {
        let router = self.forwarder.switch.members(guest).iter().copied().find(|member| self.ports.is_router(*member));
        if let Some(port) = router {
            self.remove_router_port(port);
        }
    }

    fn remove_router_port(&mut self, port: PortId) {
        if let Some(router) = &mut self.forwarder.router {
            router.remove(port);
        }
        self.forwarder.remove_port(port);
        self.ports.remove_router(port);
    }
}

/// The name of the bridge of a guest behind the router. No other bridge has such a name.
pub(super) fn bridge_of(guest: PortId) -> alloc::string::String {
    format!("\0{guest}")
}
