//! Frames from the NICs: those of one flow are joined for guests that take super-frames. Floor 3.

use super::copies::list_local;
use super::forwarder::{Decision, Forwarder, Way};
use super::pass::{hold, pass, pass_on};
use super::ports::Ports;
use super::round::{Arrival, Passing, Round, Source};
use super::routing::{Hop, route};
use super::vlan::Tagging;
use crate::offload::coalesce::Coalescer;
use crate::offload::head::{HEAD_BYTES, Head};
use crate::packet::{Fragment, Packet, Pool};
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
        None => {
            let router = forwarder.take_router(ports);
            list_local(frame, &mut round.chunks);
            if let Some((&Decision { tagging, .. }, head)) = forwarder.decided() {
                pass_on(
                    ports,
                    forwarder,
                    round,
                    pool,
                    &Passing { source, head, parsed, length, offload, tagging, waits: None },
                );
            }
            if let Some(router) = router.filter(|_| tagging.vlan == 0) {
                forward_routed(ports, forwarder, coalescer, round, pool, (from, router, index), now);
            }
        }
    }
    length
}

/// Has the router handle a frame.
#[inline(never)]
fn forward_routed<H: Hypervisor>(
    ports: &mut Ports<H>,
    forwarder: &mut Forwarder,
    coalescer: &mut Coalescer<Way>,
    round: &mut Round,
    pool: &Pool,
    (from, router, index): (PortId, PortId, u32),
    now: Instant,
) {
    let Some(mut frame) = round.frames.get_mut(index as usize).map(core::mem::take) else {
        return;
    };
    let length = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    let hop = route(ports, forwarder, round, pool, (&mut frame, length), (from, router), now);
    let offload = frame.offload;
    if let Ok(Hop { head, decision: Decision { way: Some(way), joins: true, .. }, .. }) = &hop
        && let Some(bytes) = frame.fragments.first().and_then(first_bytes)
    {
        let length = usize::from(frame.fragments.first().map_or(0, |first| first.length)).min(HEAD_BYTES);
        let bytes = bytes.get(..length).unwrap_or_default();
        coalescer.push(*way, frame, head, bytes, &mut |way, packet, head| {
            pass_joined(ports, round, pool, way, packet, head);
        });
        return;
    }
    list_local(&frame, &mut round.chunks);
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

/// The first bytes of a packet, zeros behind.
fn first_bytes(first: &Fragment) -> Option<[u8; HEAD_BYTES]> {
    let mut bytes = [0; HEAD_BYTES];
    let place = bytes.get_mut(..usize::from(first.length).min(HEAD_BYTES))?;
    first.buffer.read(first.offset.into(), place).then_some(bytes)
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
