//! Frames from the NICs: those of one flow are joined for guests that take super-frames. Floor 3.

use super::copies::list_local;
use super::forwarder::{Decision, Forwarder, Way};
use super::pass::{hold, pass, pass_on};
use super::ports::Ports;
use super::round::{Arrival, Passing, Round, Source, ToRoute};
use super::routing::{Hop, route};
use super::vlan::Tagging;
use crate::netback::steering::Steer;
use crate::offload::coalesce::Coalescer;
use crate::offload::head::Head;
use crate::offload::headers::Network;
use crate::packet::{Packet, Pool};
use crate::statistics::Traffic;
use crate::switch::PortId;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

/// Decides on all frames of the round, joins them and plans their copies.
#[inline(never)]
pub(super) fn forward_frames<H: Hypervisor>(
    ports: &mut Ports<H>,
    forwarder: &mut Forwarder,
    coalescer: &mut Coalescer<Way>,
    round: &mut Round,
    pool: &Pool,
    now: Instant,
) {
    let mut arrival = 0;
    // The router's answers are added.
    while let Some(&Arrival { port, from, frames: (first, end) }) = round.arrivals.get(arrival) {
        arrival += 1;
        let mut traffic = Traffic::default();
        for index in first..end {
            let length = forward_frame(ports, forwarder, coalescer, round, pool, (from, index), now);
            traffic.count(length);
        }
        coalescer.flush(&mut |way, packet, head| pass_joined(ports, round, pool, way, packet, head));
        forward_joined(ports, forwarder, round, pool, from, now);
        if let Some(nic) = ports.nic_mut(port) {
            nic.statistics.from_port += traffic;
        }
    }
}

/// Decides on a frame, which is joined with others, or its copies are planned. How long it is.
#[inline]
fn forward_frame<H: Hypervisor>(
    ports: &mut Ports<H>,
    forwarder: &mut Forwarder,
    coalescer: &mut Coalescer<Way>,
    round: &mut Round,
    pool: &Pool,
    (from, index): (PortId, u32),
    now: Instant,
) -> u32 {
    let Some(frame) = round.frames.get_mut(index as usize) else {
        return 0;
    };
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let (offload, tag) = (frame.offload, frame.tag);
    let Some(parsed) = forwarder.read(frame, &mut round.parsed) else {
        return length;
    };
    if let Err(cause) = forwarder.decide(ports, from, tag, now) {
        ports.count_drop(from, cause);
        return length;
    }
    let Some((&Decision { tagging, way, to_nic, joins }, head)) = forwarder.decided() else {
        return length;
    };
    let source = Source::Wire(index);
    let passing = Passing { source, head, parsed, length, offload, tagging, waits: None };
    match way {
        Some(way) if joins => {
            let frame = core::mem::take(frame);
            coalescer.push(way, frame, head, forwarder.bytes(), &mut |way, packet, head| {
                pass_joined(ports, round, pool, way, packet, head);
            });
        }
        Some(way) if to_nic => {
            hold(ports, round, pool, way, tagging.edit(false), &passing);
        }
        Some(way) => {
            list_local(frame, &mut round.chunks);
            let _none_waits = pass(ports, round, pool, way, &passing);
        }
        None => forward_without_way(ports, forwarder, coalescer, round, pool, (from, index, parsed), now),
    }
    length
}

/// Goes on with a frame that is for the router, or for no single port.
#[inline(never)]
fn forward_without_way<H: Hypervisor>(
    ports: &mut Ports<H>,
    forwarder: &mut Forwarder,
    coalescer: &mut Coalescer<Way>,
    round: &mut Round,
    pool: &Pool,
    (from, index, parsed): (PortId, u32, u32),
    now: Instant,
) {
    let (Some((&Decision { joins, .. }, head)), Some(frame)) =
        (forwarder.decided(), round.frames.get_mut(index as usize))
    else {
        return;
    };
    match forwarder.router_port() {
        Some(router) if joins && has_hops(head, forwarder.bytes()) => {
            let frame = core::mem::take(frame);
            let way = Way { to: router, steer: Steer::default() };
            coalescer.push(way, frame, head, forwarder.bytes(), &mut |way, packet, head| {
                pass_joined(ports, round, pool, way, packet, head);
            });
        }
        Some(router) => {
            let packet = ToRoute { router, frame: index, parsed };
            forward_routed(ports, forwarder, round, pool, from, packet, now);
        }
        None => forward_to_all(ports, forwarder, round, pool, (from, index, parsed), now),
    }
}

/// Plans the copies of a frame to all ports that were chosen, and has the router handle it where that is among them.
fn forward_to_all<H: Hypervisor>(
    ports: &mut Ports<H>,
    forwarder: &mut Forwarder,
    round: &mut Round,
    pool: &Pool,
    (from, index, parsed): (PortId, u32, u32),
    now: Instant,
) {
    let router = forwarder.take_router(ports);
    let (Some(frame), Some((&Decision { tagging, .. }, head))) =
        (round.frames.get(index as usize), forwarder.decided())
    else {
        return;
    };
    list_local(frame, &mut round.chunks);
    let (length, offload) = (u32::try_from(frame.len()).unwrap_or(u32::MAX), frame.offload);
    let source = Source::Wire(index);
    let passing = Passing { source, head, parsed, length, offload, tagging, waits: None };
    pass_on(ports, forwarder, round, pool, &passing);
    if let Some(router) = router.filter(|_| tagging.vlan == 0) {
        let packet = ToRoute { router, frame: index, parsed };
        forward_routed(ports, forwarder, round, pool, from, packet, now);
    }
}

/// Has the router handle what was joined for it.
fn forward_joined<H: Hypervisor>(
    ports: &mut Ports<H>,
    forwarder: &mut Forwarder,
    round: &mut Round,
    pool: &Pool,
    from: PortId,
    now: Instant,
) {
    let mut place = 0;
    while let Some(&packet) = round.to_route.get(place) {
        place += 1;
        forward_routed(ports, forwarder, round, pool, from, packet, now);
    }
    round.to_route.clear();
}

/// Has the router handle a frame.
#[inline(never)]
fn forward_routed<H: Hypervisor>(
    ports: &mut Ports<H>,
    forwarder: &mut Forwarder,
    round: &mut Round,
    pool: &Pool,
    from: PortId,
    ToRoute { router, frame: index, parsed }: ToRoute,
    now: Instant,
) {
    let (Some(frame), Some(&head)) = (round.frames.get_mut(index as usize), round.parsed.get(parsed as usize)) else {
        return;
    };
    let mut frame = core::mem::take(frame);
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let hop = route(ports, forwarder, round, pool, (&mut frame, length, &head), (from, router), now);
    list_local(&frame, &mut round.chunks);
    let offload = frame.offload;
    if let Some(place) = round.frames.get_mut(index as usize) {
        *place = frame;
    }
    // What comes from the wire is for guests, which are known.
    let Ok(Hop { head, parsed, decision: Decision { tagging, way, to_nic, .. } }) = hop else {
        return;
    };
    let source = Source::Wire(index);
    let passing = Passing { source, head: &head, parsed, length, offload, tagging, waits: None };
    match way {
        Some(way) if to_nic => {
            hold(ports, round, pool, way, tagging.edit(false), &passing);
        }
        Some(way) => {
            let _none_waits = pass(ports, round, pool, way, &passing);
        }
        None => pass_on(ports, forwarder, round, pool, &passing),
    }
}

/// Whether a packet may pass a router. The others are told so one by one, before they are joined.
fn has_hops(head: &Head, bytes: &[u8]) -> bool {
    let place = head.layout.map(|layout| match layout.network {
        Network::V4 => usize::from(layout.network_offset) + 8,
        Network::V6 => usize::from(layout.network_offset) + 7,
    });
    place.and_then(|place| bytes.get(place)).is_some_and(|hops| *hops >= 2)
}

/// Plans the copies of what cannot be joined further.
#[inline(never)]
fn pass_joined<H: Hypervisor>(
    ports: &mut Ports<H>,
    round: &mut Round,
    pool: &Pool,
    way: Way,
    packet: Packet,
    head: &Head,
) {
    list_local(&packet, &mut round.chunks);
    let (source, parsed) = (Source::Wire(round.frames.len() as u32), round.parsed.len() as u32);
    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    let (offload, tagging) = (packet.offload, Tagging::of_trunk(head, packet.tag));
    round.frames.push(packet);
    round.parsed.push(*head);
    let passing = Passing { source, head, parsed, length, offload, tagging, waits: None };
    let _none_waits = pass(ports, round, pool, way, &passing);
}
