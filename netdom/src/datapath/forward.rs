//! Second step of a round: where each packet goes, and all copies that will bring it there. Floor 3.

use super::backpressure::{give_back, must_wait};
use super::copies::list_chunks;
use super::forwarder::{Forwarder, Way};
use super::pass::{pass, pass_on};
use super::patience::Toward;
use super::ports::Ports;
use super::round::{Passing, Round, Source};
use super::vlan::Tagging;
use super::wire::forward_frames;
use crate::netback::request::Wish;
use crate::offload::coalesce::Coalescer;
use crate::packet::Pool;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

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
    for index in 0..round.sent.len() {
        forward_sent(ports, forwarder, round, pool, index, now);
    }
    forward_frames(ports, forwarder, coalescer, round, pool, now);
}

/// Decides on a packet that a guest sends.
fn forward_sent<H: Hypervisor>(
    ports: &mut Ports<H>,
    forwarder: &mut Forwarder,
    round: &mut Round,
    pool: &Pool,
    index: usize,
    now: Instant,
) {
    let Some(sent) = round.sent.get_mut(index) else {
        return;
    };
    let from = sent.from;
    if sent.failed || sent.undone || !matches!(sent.request.wish, Wish::Send(_)) {
        return;
    }
    let Some(guest) = ports.guest(from.port).filter(|guest| !guest.broken) else {
        return;
    };
    let (may_wait, domain) = (guest.credit.is_none(), guest.vif.config.domain);
    let Some(head) = forwarder.read(&sent.local) else {
        return;
    };
    sent.head = Some(head);
    let tagging = match Tagging::new(guest.vif.config.vlan, &head, None) {
        Ok(tagging) => tagging,
        Err(cause) => return ports.count_drop(from.port, cause),
    };
    forwarder.choose(ports, from.port, tagging.vlan, &head, now);
    if forwarder.destinations().iter().any(|to| !ports.is_nic(*to)) {
        list_chunks(&sent.local, sent.slots(&round.slots), domain, &mut round.chunks);
    }
    let (length, offload) = (sent.request.length, sent.local.offload);
    let passing = Passing { source: Source::Guest(index as u32), head: &head, length, offload, tagging };
    let way = forwarder.only_destination(&head).map(|to| forwarder.way(ports, to, &head));
    if let Some(way) = way {
        if may_wait && let Some(until) = must_wait(ports, from, way, &passing, now) {
            give_back(ports, round, index, until);
            return;
        }
        let toward = if ports.is_nic(way.to) { Toward::Nic(way.to) } else { Toward::Guest };
        if let Some(queue) = ports.queue_mut(from) {
            queue.backpressure.toward = toward;
        }
    }
    if let Some(guest) = ports.guest_mut(from.port) {
        guest.statistics.from_port.count(length);
    }
    match way {
        Some(way) => pass(ports, round, pool, way, &passing),
        None => pass_on(ports, forwarder, round, pool, &passing),
    }
}
