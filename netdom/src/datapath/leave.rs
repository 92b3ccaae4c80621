//! Packets that leave from local memory: to a NIC, or into the backlog of a guest that cannot take them now or as they are. Floor 3.

use super::backlog::Backlog;
use super::copies::any_failed;
use super::guest::GuestPort;
use super::nic_port::NicPort;
use super::ports::{PortKind, Ports};
use super::prepare::prepare;
use super::round::{Frame, Leaving, Round, Source};
use super::vlan::{Edit, apply};
use super::{EXPIRY, QueueId};
use crate::ethernet::Tag;
use crate::netback::steering::Steer;
use crate::offload::ability::Acceptance;
use crate::offload::headers::Layout;
use crate::packet::{Checksum, Packet, Pool};
use crate::statistics::DropCause;
use crate::switch::PortId;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

/// Hands on the packets that the copies brought into local memory.
pub(super) fn leave<H: Hypervisor>(ports: &mut Ports<H>, round: &mut Round, pool: &Pool, now: Instant) {
    for index in 0..round.leaving.len() {
        let Some(&Leaving { source, to, steer, edit }) = round.leaving.get(index) else {
            return;
        };
        let id = QueueId { port: to, queue: steer.queue };
        if let Some(queue) = ports.queue_mut(id) {
            queue.bouncing = false;
        }
        let last = round.leaving.get(index + 1).is_none_or(|next| next.source != source);
        let from = match source {
            Source::Guest(index) => round.sent.get(index as usize).map(|sent| sent.from),
            Source::Wire(_) => None,
        };
        let Some(frame) = take(round, source, last) else {
            ports.count_drop(to, DropCause::CopyFailed);
            continue;
        };
        let held_pages = ports.held_pages;
        match ports.get_mut(to) {
            Some(PortKind::Nic(nic)) => send(nic, from, frame, edit, pool),
            Some(PortKind::Guest(guest)) => {
                let others = held_pages.saturating_sub(guest.held_pages);
                let waits = bounce(guest, steer, (frame, edit), others, pool, now);
                ports.held_pages = others + guest.held_pages;
                if waits {
                    ports.wake_guest_at(to, now + EXPIRY);
                    ports.mark_ready(id);
                }
            }
            None => {}
        }
    }
}

/// The packet, and its head; `None` where it could not be copied. The last port that it goes to gets the pages for its own.
fn take(round: &mut Round, source: Source, last: bool) -> Option<Frame> {
    let (local, mut head) = match source {
        Source::Guest(index) => {
            let sent = round.sent.get_mut(index as usize)?;
            if sent.failed || any_failed(&round.copies, sent.gathered) {
                return None;
            }
            (&mut sent.local, sent.head?)
        }
        Source::Wire(index) => {
            let frame = round.frames.get_mut(index as usize)?;
            (&mut frame.packet, frame.head)
        }
    };
    // More of a guest's packet may be here than when it was forwarded.
    head.complete(local);
    // If it has a tag apart from its bytes, `Edit` knows it.
    local.tag = None;
    Some(Frame { packet: if last { core::mem::take(local) } else { local.clone() }, head })
}

/// Sends a packet to a NIC; `from` is the guest's queue that it is of, where it is of a guest.
fn send(nic: &mut NicPort, from: Option<QueueId>, mut frame: Frame, mut edit: Edit, pool: &Pool) {
    if !nic.up {
        return nic.statistics.drop(DropCause::NoLink);
    }
    // Frames of other NICs go into one queue, as they came.
    let source = from.unwrap_or(QueueId { port: PortId(0), queue: 0 });
    if from.is_none() && !nic.has_room_for_wire(source) {
        return nic.statistics.drop(DropCause::NicFull);
    }
    let mut ability = nic.ability;
    if nic.inserts_tags {
        frame.packet.tag = edit.take_insert();
        ability.longest = ability.longest.saturating_sub(if frame.packet.tag.is_some() { Tag::BYTES } else { 0 });
    }
    if !edit.is_none()
        && let Err(cause) = apply(&mut frame.packet, &mut frame.head, edit, pool)
    {
        return nic.statistics.drop(cause);
    }
    let Frame { packet, head } = frame;
    let (layout, offload) = (head.layout.as_ref(), packet.offload);
    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    if offload.gso.is_none() && ability.accepts(length, offload, layout) == Acceptance::AsIs {
        return nic.send(source, packet, layout.filter(|_| offload.checksum == Checksum::Blank));
    }
    let prepared = prepare(packet, layout, &ability, pool, &mut |packet, layout| {
        nic.send(source, packet, layout);
    });
    if let Err(cause) = prepared {
        nic.statistics.drop(cause);
    }
}

/// Holds a packet for a queue of a guest, made fit for it; `others` is the pages that all other guests' backlogs hold. Whether the queue
/// has a backlog now.
fn bounce<H: Hypervisor>(
    guest: &mut GuestPort<H>,
    steer: Steer,
    (mut frame, edit): (Frame, Edit),
    others: usize,
    pool: &Pool,
    now: Instant,
) -> bool {
    let share = pool.capacity() / 2;
    let GuestPort { vif, queues, statistics, held_pages, broken: false, .. } = guest else {
        return false;
    };
    let Some(backlog) = queues.get_mut(usize::from(steer.queue)).map(|queue| &mut queue.backlog) else {
        return false;
    };
    if !edit.is_none()
        && let Err(cause) = apply(&mut frame.packet, &mut frame.head, edit, pool)
    {
        statistics.drop(cause);
        return !backlog.is_empty();
    }
    let Frame { packet, head } = frame;
    let layout = head.layout.as_ref();
    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    let elsewhere = held_pages.saturating_sub(backlog.pages());
    let mut push = |packet: Packet, _: Option<&Layout>| {
        // A guest never has more than what is left to all: guests that take nothing leave room for those that do.
        let held = elsewhere + backlog.pages();
        let room = held + packet.fragments.len() <= share.saturating_sub(others + held);
        if !room || !Backlog::push(backlog, &packet, steer.hash, now) {
            statistics.drop(DropCause::QueueFull);
        }
    };
    let prepared = match vif.ability.accepts(length, packet.offload, layout) {
        Acceptance::AsIs => {
            push(packet, None);
            Ok(())
        }
        Acceptance::Prepared => prepare(packet, layout, &vif.ability, pool, &mut push),
        Acceptance::Never => Err(DropCause::Unsuitable),
    };
    if let Err(cause) = prepared {
        statistics.drop(cause);
    }
    *held_pages = elsewhere + backlog.pages();
    !backlog.is_empty()
}
