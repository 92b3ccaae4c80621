//! First step of a round: what the ready guests have, with the heads of what they send, and what the NICs received. Floor 3.
//!
//! Where a packet will go is not known before its head is read. It is guessed by where the queue's last packet went: if that was to the wire,
//! all of the packet is fetched at once, not its head alone. A wrong guess costs a copy, no more.

use super::backlog::Front;
use super::backpressure::{take_waiters, waits_for_nic, wake_waiters};
use super::copies::{Extent, gather};
use super::fill::{Filling, fill_slots};
use super::guest::GuestPort;
use super::patience::Toward;
use super::ports::Ports;
use super::queue::Queue;
use super::round::{Arrival, Round, Sent, Turn};
use super::{NIC_FRAMES, QueueId, RETRY, ROUND_PACKETS, Stop, VIF_PACKETS};
use crate::credit::Credit;
use crate::netback::ahead::WriteAhead;
use crate::netback::control_ring::Served;
use crate::netback::request::{PacketRequest, Wish, parse};
use crate::netback::vif::Vif;
use crate::netback::violation::{RingName, Violation};
use crate::packet::{Packet, Pool};
use crate::switch::PortId;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

/// Serves the ready guests, as many as a round has room for, and fetches heads; then takes the NICs' frames.
pub(super) fn collect<H: Hypervisor>(
    ports: &mut Ports<H>,
    round: &mut Round,
    pool: &Pool,
    hypervisor: &H,
    now: Instant,
) {
    for _ in 0..ports.ready.len() {
        if round.sent.len() >= ROUND_PACKETS {
            break;
        }
        let Some(port) = ports.ready.pop_front() else {
            break;
        };
        let Some(guest) = ports.guest_mut(port) else {
            continue;
        };
        guest.listed = false;
        let (ready, turn) = (core::mem::take(&mut guest.ready), guest.turn);
        if guest.broken {
            continue;
        }
        guest.turn = (turn + 1) % guest.queue_count().max(1);
        round.suspect.set(Some(port));
        serve_queues(ports, round, pool, (port, ready, turn), now);
        round.changed |= serve_control(ports, port, &mut round.ahead, hypervisor, pool, now);
    }
    round.suspect.set(None);
    if !round.heads.is_empty() {
        hypervisor.grant_copy(&mut round.heads);
        check_heads(ports, round);
    }
    take_frames(ports, round, pool, now);
}

/// Serves the ready queues of a guest (a bit each), from one on. They share what the guest may send in a round: what one does not use is the
/// next one's.
fn serve_queues<H: Hypervisor>(
    ports: &mut Ports<H>,
    round: &mut Round,
    pool: &Pool,
    (port, ready, turn): (PortId, u8, u8),
    now: Instant,
) {
    let before = round.sent.len();
    let mut left = ready;
    while left != 0 {
        let later = left & u8::MAX.checked_shl(turn.into()).unwrap_or(0);
        let queue = (if later != 0 { later } else { left }).trailing_zeros() as u8;
        let share = VIF_PACKETS.saturating_sub(round.sent.len() - before).div_ceil(left.count_ones() as usize);
        left &= !(1 << queue);
        serve_queue(ports, round, pool, QueueId { port, queue }, share, now);
    }
}

/// Serves one queue, which may send `share` packets.
fn serve_queue<H: Hypervisor>(
    ports: &mut Ports<H>,
    round: &mut Round,
    pool: &Pool,
    id: QueueId,
    share: usize,
    now: Instant,
) {
    let Some(guest) = ports.guest_mut(id.port).filter(|guest| !guest.broken) else {
        return;
    };
    let Some(queue) = guest.queues.get_mut(usize::from(id.queue)) else {
        return;
    };
    let woken = take_waiters(queue, now);
    let pages = queue.backlog.pages();
    let first = round.sent.len() as u32;
    let mut served = drain(guest, id, round, now).map(|()| Stop::Until(now + RETRY));
    let held = guest.queues.get(usize::from(id.queue)).map_or(0, |queue| queue.backlog.pages());
    let released = pages.saturating_sub(held);
    guest.held_pages = guest.held_pages.saturating_sub(released);
    ports.held_pages = ports.held_pages.saturating_sub(released);
    if served.is_ok()
        && !waits_for_nic(ports, id, now)
        && let Some(guest) = ports.guest_mut(id.port)
    {
        served = take_requests(guest, id, share, round, pool, now);
    }
    match served {
        Ok(stop) => round.served.push(Turn { id, stop, packets: (first, round.sent.len() as u32) }),
        Err(violation) => ports.fail(id.port, violation),
    }
    wake_waiters(ports, id, woken);
}

/// Answers the requests on a guest's control ring, where there may be some.
fn serve_control<H: Hypervisor>(
    ports: &mut Ports<H>,
    port: PortId,
    ahead: &mut WriteAhead,
    hypervisor: &H,
    pool: &Pool,
    now: Instant,
) -> bool {
    let Some(guest) = ports.guest_mut(port).filter(|guest| !guest.broken) else {
        return false;
    };
    let queues = guest.queue_count();
    let Some(control) = guest.control.as_mut().filter(|control| control.ready) else {
        return false;
    };
    let served = control.ring.serve(hypervisor, pool, queues, ahead);
    let progress = control.ring.progress;
    control.ready = served == Ok(Served::Part);
    control.wake = match served {
        Ok(Served::All) => control.settle(now),
        Ok(Served::NoPage) => Some(now + RETRY),
        Ok(Served::Part) => {
            ports.list(port);
            return progress;
        }
        Err(violation) => {
            ports.fail(port, violation);
            return progress;
        }
    };
    if let Some(at) = control.wake {
        ports.wake_guest_at(port, at);
    }
    progress
}

/// Marks the packets whose head could not be fetched, and closes the vifs that are at fault.
fn check_heads<H: Hypervisor>(ports: &mut Ports<H>, round: &mut Round) {
    let Round { sent, heads, .. } = round;
    if heads.iter().all(|copy| copy.status == 0) {
        return;
    }
    for sent in sent {
        let (start, end) = sent.copies;
        let mut copies = heads.get(start as usize..end as usize).unwrap_or_default().iter();
        if let Some(copy) = copies.find(|copy| copy.status != 0) {
            sent.failed = true;
            ports.fail(sent.from.port, Violation::bad_grant(copy.source, copy.status));
        }
    }
}

/// Takes the frames that the NICs received, and gives the NICs new buffers.
#[inline(never)]
fn take_frames<H: Hypervisor>(ports: &mut Ports<H>, round: &mut Round, pool: &Pool, now: Instant) {
    let mut budget = NIC_FRAMES;
    for port in ports.nics_in_turn() {
        let Some(nic) = ports.nic_mut(port) else {
            continue;
        };
        let first = round.frames.len() as u32;
        let received = nic.receive(budget, &mut round.frames);
        let member = nic.member;
        // Also where there were no frames: the pool may have had nothing to give the last time.
        nic.next_queue();
        nic.refill(pool);
        if received > 0 {
            budget -= received;
            let from = member.map_or(port, |member| ports.sift(member, &mut round.frames, first as usize, now));
            round.arrivals.push(Arrival { port, from, frames: (first, round.frames.len() as u32) });
        }
    }
    round.frames_left = budget == 0;
    round.in_hand.set(round.frames.len());
}

/// Moves what waits for a queue into its receive slots, as far as they go.
fn drain<H: Hypervisor>(
    guest: &mut GuestPort<H>,
    id: QueueId,
    round: &mut Round,
    now: Instant,
) -> Result<(), Violation> {
    let GuestPort { vif, queues, statistics, .. } = guest;
    let Some(queue) = queues.get_mut(usize::from(id.queue)) else {
        return Ok(());
    };
    loop {
        let Some(Front { length, offload, hash }) = queue.backlog.front() else {
            queue.starving = None;
            break;
        };
        if !queue.rings.await_receive_slots(vif.slots_for(length, offload, hash.is_some()))? {
            queue.starving.get_or_insert(now);
            break;
        }
        queue.starving = None;
        queue.rings.progress = true;
        queue.backlog.take(&mut round.chunks, &mut round.held);
        fill_slots(&vif.config, queue, id, round, &Filling { length, offload, hash });
        statistics.to_port.count(length);
    }
    Ok(())
}

/// Reads the requests of one queue, up to its share of the round.
#[inline(never)]
fn take_requests<H: Hypervisor>(
    guest: &mut GuestPort<H>,
    id: QueueId,
    share: usize,
    round: &mut Round,
    pool: &Pool,
    now: Instant,
) -> Result<Stop, Violation> {
    let GuestPort { vif, credit, saving, queues, turn, .. } = guest;
    let following = if usize::from(id.queue) + 1 < queues.len() { id.queue + 1 } else { 0 };
    let Some(queue) = queues.get_mut(usize::from(id.queue)) else {
        return Ok(Stop::Empty);
    };
    let Queue { rings, backpressure, .. } = queue;
    let held_locally = backpressure.toward != Toward::Guest;
    let mut sender = Sender { id, held_locally, credit, saving, turn, following, has_taken: false, vif };
    let overrun = |error| Violation::from((RingName::Transmit, error));
    let mut available = rings.transmit.unconsumed().map_err(overrun)?;
    for _ in 0..backpressure.poll_share(share) {
        if available == 0 {
            return Ok(Stop::Empty);
        }
        let first = round.slots.len();
        let request = parse(&rings.transmit, available, &mut round.slots)?;
        if let Err(stop) = sender.take_one(request, first, round, pool, now) {
            round.slots.truncate(first);
            return Ok(stop);
        }
        sender.has_taken = true;
        rings.progress = true;
        rings.transmit.consume(request.used());
        available = available.saturating_sub(request.used());
    }
    Ok(match available {
        0 => Stop::Empty,
        _ => Stop::Budget,
    })
}

/// What taking packets of a queue needs to know of its vif.
struct Sender<'a> {
    id: QueueId,
    /// Its last packet was needed in local memory.
    held_locally: bool,
    credit: &'a mut Option<Credit>,
    saving: &'a mut Option<Instant>,
    /// Whose turn it is next; `following` is the queue behind this one.
    turn: &'a mut u8,
    following: u8,
    /// It took a packet in this round.
    has_taken: bool,
    vif: &'a mut Vif,
}

impl Sender<'_> {
    /// Takes one packet into the round, or says why it must wait. Its slots are the last ones of the round, from `first` on.
    #[inline]
    fn take_one(
        &mut self,
        request: PacketRequest,
        first: usize,
        round: &mut Round,
        pool: &Pool,
        now: Instant,
    ) -> Result<(), Stop> {
        let (mut local, mut copies, mut failed) = (Packet::default(), (0, 0), false);
        match request.wish {
            Wish::Send(offload) => {
                local.offload = offload;
                let start = round.heads.len();
                let slots = round.slots.get(first..).unwrap_or_default();
                let extent =
                    Extent::before_look(self.held_locally, request.length, slots.first().map_or(0, |slot| slot.size));
                if !gather(&mut local, slots, self.vif.config.domain, extent, pool, &mut round.heads) {
                    round.heads.truncate(start);
                    return Err(Stop::Until(now + RETRY));
                }
                copies = (start as u32, round.heads.len() as u32);
                if let Err(at) = self.take_credit(request.length as usize, now) {
                    round.heads.truncate(start);
                    return Err(Stop::Until(at));
                }
            }
            Wish::Group(membership) => {
                failed = !self.vif.change_groups(membership);
                round.changed = true;
            }
            Wish::Refuse => failed = true,
        }
        let (from, first, gathered, undone) = (self.id, first as u32, (0, 0), false);
        round.sent.push(Sent { from, first, request, local, copies, gathered, failed, undone });
        Ok(())
    }

    /// Takes the credit for a packet. A queue whose turn it is saves up for a large one: the others do not use up what it waits for.
    ///
    /// # Errors
    /// When to ask again.
    #[inline]
    fn take_credit(&mut self, length: usize, now: Instant) -> Result<(), Instant> {
        let Some(credit) = self.credit else {
            return Ok(());
        };
        if let Some(until) = self.saving.filter(|until| *until > now) {
            return Err(until);
        }
        let taken = credit.take(length, now);
        *self.saving = taken.err();
        if taken.is_err() {
            *self.turn = if self.has_taken { self.following } else { self.id.queue };
        }
        taken
    }
}
