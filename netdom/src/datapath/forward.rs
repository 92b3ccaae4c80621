//! Second step of a round: where each packet goes, and all copies that will bring it there. Floor 3.

use super::QueueId;
use super::backpressure::give_back;
use super::copies::list_chunks;
use super::forwarder::{Decision, Forwarder, Way};
use super::leave::{Leaver, send};
use super::pass::{hold, pass, pass_on};
use super::patience::Toward;
use super::ports::Ports;
use super::round::{Passing, Round, Source, Turn};
use super::routing::{Hop, Stay, route};
use super::wire::forward_frames;
use crate::netback::request::Wish;
use crate::offload::coalesce::Coalescer;
use crate::packet::Pool;
use crate::statistics::{DropCause, Traffic};
use crate::switch::PortId;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;
use xen_pv_sys::DomainId;

/// Decides on all packets of the round and plans all copies.
pub(super) fn forward<H: Hypervisor>(
    ports: &mut Ports<H>,
    forwarder: &mut Forwarder,
    coalescer: &mut Coalescer<Way>,
    round: &mut Round,
    pool: &Pool,
    now: Instant,
) {
    forwarder.begin_round();
    for served in 0..round.served.len() {
        forward_queue(ports, forwarder, round, pool, served, now);
    }
    round.suspect.set(None);
    forward_frames(ports, forwarder, coalescer, round, pool, now);
}

/// A queue whose packets are decided on.
struct Sender {
    id: QueueId,
    domain: DomainId,
    /// Its packets wait for receive slots.
    may_wait: bool,
    /// What it sent.
    traffic: Traffic,
    /// Where its last packet to one station went.
    toward: Option<Toward>,
    /// How many packets left after the copies before its first one.
    leaving: usize,
}

/// Decides on the packets of a queue that was served.
#[inline(never)]
fn forward_queue<H: Hypervisor>(
    ports: &mut Ports<H>,
    forwarder: &mut Forwarder,
    round: &mut Round,
    pool: &Pool,
    served: usize,
    now: Instant,
) {
    let Some(&Turn { id, packets: (first, end), .. }) = round.served.get(served) else {
        return;
    };
    let Some(guest) = ports.guest(id.port).filter(|guest| !guest.broken) else {
        return;
    };
    round.suspect.set(Some(id.port));
    let (domain, may_wait) = (guest.vif.config.domain, guest.credit.is_none());
    let mut sender =
        Sender { id, domain, may_wait, traffic: Traffic::default(), toward: None, leaving: round.leaving.len() };
    for index in first..end {
        if let Some(until) = forward_sent(ports, forwarder, round, pool, &mut sender, index, now) {
            give_back(ports, round, served, index, until);
            break;
        }
    }
    if let Some(guest) = ports.guest_mut(id.port) {
        guest.statistics.from_port += sender.traffic;
        if let (Some(toward), Some(queue)) = (sender.toward, guest.queues.get_mut(usize::from(id.queue))) {
            queue.backpressure.toward = toward;
        }
    }
}

/// Decides on a packet that a guest sends. Until when it must wait, if it must.
#[inline]
fn forward_sent<H: Hypervisor>(
    ports: &mut Ports<H>,
    forwarder: &mut Forwarder,
    round: &mut Round,
    pool: &Pool,
    sender: &mut Sender,
    index: u32,
    now: Instant,
) -> Option<Instant> {
    let sent = round.sent.get_mut(index as usize)?;
    if sent.failed || !matches!(sent.request.wish, Wish::Send(_)) {
        return None;
    }
    let parsed = forwarder.read(&sent.local, &mut round.parsed)?;
    #[cfg(feature = "faults")]
    if let Some(head) = round.parsed.get(parsed as usize) {
        crate::faults::look_at(head);
    }
    let (length, offload) = (sent.request.length, sent.local.offload);
    let from = sender.id.port;
    if let Err(cause) = forwarder.decide(ports, from, None, now) {
        ports.count_drop(from, cause);
        return None;
    }
    let (&Decision { tagging, way, to_nic, .. }, head) = forwarder.decided()?;
    let waits = sender.may_wait.then_some((sender.id, now));
    let source = Source::Guest(index);
    let passing = Passing { source, head, parsed, length, offload, tagging, waits };
    let waits = match way {
        Some(way) => send_on(ports, round, pool, sender, (way, to_nic), &passing),
        None => match forwarder.take_router(ports) {
            Some(router) => forward_routed(ports, forwarder, round, pool, sender, (index, router), now),
            None => {
                let (_, head) = forwarder.decided()?;
                flood(
                    ports,
                    forwarder,
                    round,
                    pool,
                    sender,
                    &Passing { source, head, parsed, length, offload, tagging, waits },
                );
                None
            }
        },
    };
    if waits.is_none() {
        sender.traffic.count(length);
    }
    waits
}

/// Sends a packet on its way to one port. Until when it must wait, if it must.
#[inline(always)]
fn send_on<H: Hypervisor>(
    ports: &mut Ports<H>,
    round: &mut Round,
    pool: &Pool,
    sender: &mut Sender,
    (way, to_nic): (Way, bool),
    passing: &Passing<'_>,
) -> Option<Instant> {
    let Source::Guest(index) = passing.source else {
        return None;
    };
    let sent = round.sent.get_mut(index as usize)?;
    if !to_nic {
        list_chunks(&sent.local, sent.slots(&round.slots), sender.domain, &mut round.chunks);
        if let Some(until) = pass(ports, round, pool, way, passing) {
            return Some(until);
        }
        sender.toward = Some(Toward::Guest);
        return None;
    }
    sender.toward = Some(Toward::Nic(way.to));
    let edit = passing.tagging.edit(false);
    // What is here already goes at once, but not past others of its queue that leave after the copies.
    if round.leaving.len() == sender.leaving
        && sent.whole()
        && let Some(nic) = ports.nic_mut(way.to)
    {
        let packet = core::mem::take(&mut sent.local);
        send(nic, Leaver { packet, head: passing.head, from: Some(sender.id) }, edit, pool);
    } else {
        hold(ports, round, pool, way, edit, passing);
    }
    None
}

/// Sends a packet to all ports that were chosen.
#[inline(never)]
fn flood<H: Hypervisor>(
    ports: &mut Ports<H>,
    forwarder: &Forwarder,
    round: &mut Round,
    pool: &Pool,
    sender: &Sender,
    passing: &Passing<'_>,
) {
    if let Source::Guest(index) = passing.source
        && let Some(sent) = round.sent.get(index as usize)
        && forwarder.destinations().iter().any(|to| !ports.is_wire(*to))
    {
        list_chunks(&sent.local, sent.slots(&round.slots), sender.domain, &mut round.chunks);
    }
    pass_on(ports, forwarder, round, pool, &Passing { waits: None, ..*passing });
}

/// Has the router handle a packet that a guest sends, after all others that it is for. Until when it must wait, if it must.
#[inline(never)]
fn forward_routed<H: Hypervisor>(
    ports: &mut Ports<H>,
    forwarder: &mut Forwarder,
    round: &mut Round,
    pool: &Pool,
    sender: &mut Sender,
    (index, router): (u32, PortId),
    now: Instant,
) -> Option<Instant> {
    let sent = round.sent.get_mut(index as usize)?;
    let (length, offload) = (sent.request.length, sent.local.offload);
    let (source, waits) = (Source::Guest(index), sender.may_wait.then_some((sender.id, now)));
    let (&Decision { tagging, .. }, &head) = forwarder.decided()?;
    if !forwarder.destinations().is_empty() {
        let parsed = (round.parsed.len() as u32).saturating_sub(1);
        let passing = Passing { source, head: &head, parsed, length, offload, tagging, waits: None };
        flood(ports, forwarder, round, pool, sender, &passing);
    }
    if tagging.vlan != 0 {
        return None;
    }
    let mut packet = core::mem::take(&mut round.sent.get_mut(index as usize)?.local);
    let hop = route(ports, forwarder, round, pool, (&mut packet, length, &head), (sender.id.port, router), now);
    round.sent.get_mut(index as usize)?.local = packet;
    let Hop { head, parsed, decision } = match hop {
        Ok(hop) => hop,
        Err(Stay::Until(until)) if sender.may_wait => return Some(until),
        Err(Stay::Until(_)) => {
            ports.count_drop(sender.id.port, DropCause::NotRouted);
            return None;
        }
        Err(Stay::Gone) => return None,
    };
    let passing = Passing { source, head: &head, parsed, length, offload, tagging: decision.tagging, waits };
    match decision.way {
        Some(way) => send_on(ports, round, pool, sender, (way, decision.to_nic), &passing),
        None => {
            flood(ports, forwarder, round, pool, sender, &passing);
            None
        }
    }
}
