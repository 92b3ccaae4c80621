//! Frames from the NICs: those of one flow are joined for guests that take super-frames. Floor 3.

use super::copies::list_local;
use super::forwarder::{Decision, Forwarder, Way};
use super::pass::{hold, pass, pass_on};
use super::ports::Ports;
use super::round::{Arrival, Passing, Round, Source};
use super::vlan::Tagging;
use crate::offload::coalesce::Coalescer;
use crate::offload::head::Head;
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
    for arrival in 0..round.arrivals.len() {
        let Some(&Arrival { port, from, frames: (first, end) }) = round.arrivals.get(arrival) else {
            return;
        };
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
            list_local(frame, &mut round.chunks);
            pass_on(ports, forwarder, round, pool, &passing);
        }
    }
    length
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
