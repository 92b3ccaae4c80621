//! Frames from the NICs: those of one flow are joined for guests that take super-frames. Floor 3.

use super::forwarder::{Decision, Forwarder, Way};
use super::pass::{pass, pass_on};
use super::ports::Ports;
use super::round::{Chunk, Frame, Passing, Round, Source};
use super::vlan::Tagging;
use crate::offload::coalesce::Coalescer;
use crate::offload::head::Head;
use crate::packet::{Checksum, Packet, Pool};
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

/// Decides on all frames of the round, joins them and plans their copies.
pub(super) fn forward_frames<H: Hypervisor>(
    ports: &mut Ports<H>,
    forwarder: &mut Forwarder,
    coalescer: &mut Coalescer<Way>,
    round: &mut Round,
    pool: &Pool,
    now: Instant,
) {
    let mut before = None;
    for index in 0..round.incoming.len() {
        let Some((from, frame)) = round.incoming.get_mut(index) else {
            break;
        };
        let (from, frame) = (*from, core::mem::take(frame));
        if before.replace(from).is_some_and(|before| before != from) {
            coalescer.flush(&mut |way, packet, head| pass_joined(ports, round, pool, way, packet, head));
        }
        let Some(head) = forwarder.read(&frame) else {
            continue;
        };
        let tag = frame.tag;
        let Decision { tagging, way, to_nic, joins } = match forwarder.decide(ports, (from, None), &head, tag, now) {
            Ok(decision) => decision,
            Err(cause) => {
                ports.count_drop(from, cause);
                continue;
            }
        };
        match way {
            Some(way) if joins && frame.offload.checksum == Checksum::Verified => {
                coalescer.push(way, frame, &head, forwarder.bytes(), &mut |way, packet, head| {
                    pass_joined(ports, round, pool, way, packet, head);
                });
            }
            Some(way) => {
                let passing = add_frame(round, frame, &head, tagging, !to_nic);
                let _none_waits = pass(ports, round, pool, way, &passing);
            }
            None => {
                let to_guest = forwarder.destinations().iter().any(|to| !ports.is_nic(*to));
                let passing = add_frame(round, frame, &head, tagging, to_guest);
                pass_on(ports, forwarder, round, pool, &passing);
            }
        }
    }
    coalescer.flush(&mut |way, packet, head| pass_joined(ports, round, pool, way, packet, head));
}

/// Plans the copies of what cannot be joined further.
fn pass_joined<H: Hypervisor>(
    ports: &mut Ports<H>,
    round: &mut Round,
    pool: &Pool,
    way: Way,
    packet: Packet,
    head: &Head,
) {
    let tagging = Tagging::of_trunk(head, packet.tag);
    let passing = add_frame(round, packet, head, tagging, true);
    let _none_waits = pass(ports, round, pool, way, &passing);
}

/// Adds a packet to those of the round, to be passed on.
#[inline]
fn add_frame<'a>(round: &mut Round, packet: Packet, head: &'a Head, tagging: Tagging, to_guest: bool) -> Passing<'a> {
    if to_guest {
        round.chunks.clear();
        round.chunks.extend(packet.fragments.iter().map(Chunk::local));
    }
    let source = Source::Wire(round.frames.len() as u32);
    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    let offload = packet.offload;
    round.frames.push(Frame { packet, head: *head });
    Passing { source, head, length, offload, tagging, waits: None }
}
