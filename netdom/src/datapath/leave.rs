//! Packets that leave from local memory: to a NIC, or into the backlog of a guest that cannot take them now or as they are. Floor 3.

use super::backlog::Backlog;
use super::copies::any_failed;
use super::guest::GuestPort;
use super::nic_port::NicPort;
use super::ports::{PortKind, Ports};
use super::prepare::prepare;
use super::round::{Leaving, Round, Source};
use super::vlan::{Edit, apply};
use super::{EXPIRY, QueueId};
use crate::ethernet::Tag;
use crate::netback::steering::Steer;
use crate::offload::ability::Acceptance;
use crate::offload::head::Head;
use crate::offload::headers::Layout;
use crate::packet::{Checksum, Packet, Pool};
use crate::statistics::DropCause;
use crate::switch::PortId;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

/// Hands on the packets that the copies brought into local memory.
#[inline(never)]
pub(super) fn leave<H: Hypervisor>(ports: &mut Ports<H>, round: &mut Round, pool: &Pool, now: Instant) {
    let leaving = core::mem::take(&mut round.leaving);
    let mut later = leaving.iter().skip(1);
    for run in leaving.chunk_by(|one, next| one.to == next.to) {
        let Some(to) = run.first().map(|first| first.to) else {
            continue;
        };
        // Its entries, each with whether it is the last one of its packet.
        let entries =
            run.iter().map(|leaving| (leaving, later.next().is_none_or(|next| next.source != leaving.source)));
        match ports.get_mut(to) {
            Some(PortKind::Nic(nic)) => entries.for_each(|(leaving, last)| match take(round, leaving, last) {
                Some(leaver) => send(nic, leaver, leaving.edit, pool),
                None => nic.statistics.drop(DropCause::CopyFailed),
            }),
            Some(PortKind::Guest(_)) => {
                entries.for_each(|(leaving, last)| bring(ports, round, leaving, last, pool, now));
            }
            Some(PortKind::Bond(_) | PortKind::Router) | None => entries.for_each(drop),
        }
    }
    round.leaving = leaving;
}

/// A packet that leaves.
pub(super) struct Leaver<'a> {
    pub(super) packet: Packet,
    pub(super) head: &'a Head,
    /// The guest's queue that it is of, where it is of a guest.
    pub(super) from: Option<QueueId>,
}

/// The packet; `None` where it could not be copied. The last port that it goes to gets the pages for its own.
#[inline]
fn take<'a>(round: &'a mut Round, leaving: &Leaving, last: bool) -> Option<Leaver<'a>> {
    let (local, from) = match leaving.source {
        Source::Guest(index) => {
            let sent = round.sent.get_mut(index as usize)?;
            if sent.failed || any_failed(&round.copies, sent.gathered) {
                return None;
            }
            (&mut sent.local, Some(sent.from))
        }
        Source::Wire(index) => (round.frames.get_mut(index as usize)?, None),
    };
    let head = round.parsed.get_mut(leaving.parsed as usize)?;
    // More of a guest's packet may be here than when it was forwarded.
    head.complete(local);
    // If it has a tag apart from its bytes, `Edit` knows it.
    local.tag = None;
    Some(Leaver { packet: if last { core::mem::take(local) } else { local.clone() }, head, from })
}

/// Sends a packet to a NIC.
#[inline]
pub(super) fn send(nic: &mut NicPort, leaver: Leaver<'_>, mut edit: Edit, pool: &Pool) {
    let Leaver { mut packet, head, from } = leaver;
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
        packet.tag = edit.take_insert();
        ability.longest = ability.longest.saturating_sub(if packet.tag.is_some() { Tag::BYTES } else { 0 });
    }
    let mut edited = None;
    if !edit.is_none() {
        match apply(&mut packet, edit, pool) {
            Ok(head) => edited = Some(head),
            Err(cause) => return nic.statistics.drop(cause),
        }
    }
    let layout = edited.as_ref().unwrap_or(head).layout.as_ref();
    let offload = packet.offload;
    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    if offload.gso.is_none() && ability.accepts(length, offload, layout) == Acceptance::AsIs {
        return nic.send(source, packet, length, layout.filter(|_| offload.checksum == Checksum::Blank));
    }
    let prepared = prepare(packet, layout, &ability, pool, &mut |packet, layout| {
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        nic.send(source, packet, length, layout);
    });
    if let Err(cause) = prepared {
        nic.statistics.drop(cause);
    }
}

/// Brings a packet into the backlog of a guest.
fn bring<H: Hypervisor>(
    ports: &mut Ports<H>,
    round: &mut Round,
    leaving: &Leaving,
    last: bool,
    pool: &Pool,
    now: Instant,
) {
    let &Leaving { to, steer, edit, .. } = leaving;
    let id = QueueId { port: to, queue: steer.queue };
    if let Some(queue) = ports.queue_mut(id) {
        queue.bouncing = false;
    }
    let held_pages = ports.held_pages;
    let Some(guest) = ports.guest_mut(to) else {
        return;
    };
    let Some(leaver) = take(round, leaving, last) else {
        return guest.statistics.drop(DropCause::CopyFailed);
    };
    let others = held_pages.saturating_sub(guest.held_pages);
    let waits = bounce(guest, steer, (leaver, edit), others, pool, now);
    ports.held_pages = others + guest.held_pages;
    if waits {
        ports.wake_guest_at(to, now + EXPIRY);
        ports.mark_ready(id);
    }
}

/// Holds a packet for a queue of a guest, made fit for it; `others` is the pages that all other guests' backlogs hold. Whether the queue
/// has a backlog now.
fn bounce<H: Hypervisor>(
    guest: &mut GuestPort<H>,
    steer: Steer,
    (leaver, edit): (Leaver<'_>, Edit),
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
    let Leaver { mut packet, head, .. } = leaver;
    let mut edited = None;
    if !edit.is_none() {
        match apply(&mut packet, edit, pool) {
            Ok(head) => edited = Some(head),
            Err(cause) => {
                statistics.drop(cause);
                return !backlog.is_empty();
            }
        }
    }
    let layout = edited.as_ref().unwrap_or(head).layout.as_ref();
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
