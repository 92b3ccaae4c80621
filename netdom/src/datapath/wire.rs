//! Frames from the NICs: those of one flow are joined for guests that take super-frames. Floor 3.

use super::forwarder::{Forwarder, Way};
use super::pass::{pass, pass_on};
use super::ports::Ports;
use super::round::{Chunk, Frame, Passing, Round, Source};
use super::vlan::Tagging;
use crate::offload::coalesce::Coalescer;
use crate::offload::head::Head;
use crate::packet::{Checksum, Packet, Pool};
use crate::switch::PortId;
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
        let tagging = Tagging::of_trunk(&head, frame.tag);
        forwarder.choose(ports, from, tagging.vlan, &head, now);
        if let Some(to) = forwarder.only_destination(&head) {
            let way = forwarder.way(ports, to, &head);
            if is_joinable(ports, to, &frame, &head, tagging) {
                coalescer.push(way, frame, &head, forwarder.bytes(), &mut |way, packet, head| {
                    pass_joined(ports, round, pool, way, packet, head);
                });
            } else {
                let to_guest = !ports.is_nic(to);
                pass_frame(round, frame, &head, to_guest, |round, passing| pass(ports, round, pool, way, passing));
            }
        } else {
            let to_guest = forwarder.destinations().iter().any(|to| !ports.is_nic(*to));
            pass_frame(round, frame, &head, to_guest, |round, passing| {
                pass_on(ports, forwarder, round, pool, passing);
            });
        }
    }
    coalescer.flush(&mut |way, packet, head| pass_joined(ports, round, pool, way, packet, head));
}

/// Whether a frame may be joined with others for this port. The guest must take the super-frame as it is: cut again here, it would have been
/// joined in vain.
fn is_joinable<H: Hypervisor>(ports: &Ports<H>, to: PortId, frame: &Packet, head: &Head, tagging: Tagging) -> bool {
    frame.offload.checksum == Checksum::Verified
        && head.layout.is_some_and(|layout| {
            ports.guest(to).is_some_and(|guest| {
                guest.vif.ability.gso(&layout) && tagging.edit(guest.vif.config.vlan.is_some()).is_none()
            })
        })
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
    pass_frame(round, packet, head, true, |round, passing| pass(ports, round, pool, way, passing));
}

/// Adds a packet to those of the round, to be passed on by `pass`.
fn pass_frame(
    round: &mut Round,
    packet: Packet,
    head: &Head,
    to_guest: bool,
    pass: impl FnOnce(&mut Round, &Passing<'_>),
) {
    if to_guest {
        round.chunks.clear();
        round.chunks.extend(packet.fragments.iter().map(Chunk::local));
    }
    let source = Source::Wire(round.frames.len() as u32);
    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    let (offload, tagging) = (packet.offload, Tagging::of_trunk(head, packet.tag));
    round.frames.push(Frame { packet, head: *head });
    pass(round, &Passing { source, head, length, offload, tagging });
}
