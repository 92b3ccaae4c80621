//! First step of a round: what the ready vifs have, and the heads of what they send. Floor 3.

use super::queue::Toward;
use super::round::{Chunks, Extent, HEAD, PULLED, Round, SMALL, Sent, gather};
use super::vif::{Groups, change_groups};
use super::vif::{Vif, slots_for};
use super::{DataPath, QueueId, RETRY, ROUND_PACKETS, Stop, VIF_PACKETS, WAITED_PACKETS, queue_mut, route};
use crate::credit::Credit;
use crate::netback::request::{PacketRequest, Wish, parse};
use crate::netback::violation::{RingName, Violation};
use crate::packet::{Offload, Packet, Pool};
use alloc::vec::Vec;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;
use xen_pv_sys::DomainId;

impl<H: Hypervisor> DataPath<H> {
    /// Serves the ready vifs, as many as a round has room for, and fetches heads.
    pub(super) fn collect(&mut self, now: Instant) {
        for _ in 0..self.ready.len() {
            if self.round.sent.len() >= ROUND_PACKETS {
                break;
            }
            let Some(port) = self.ready.pop_front() else {
                break;
            };
            let Some(Some(slot)) = self.vifs.get_mut(usize::from(port)) else {
                continue;
            };
            let vif = &mut slot.vif;
            vif.listed = false;
            let (ready, turn) = (core::mem::take(&mut vif.ready), vif.turn);
            if vif.broken {
                continue;
            }
            vif.turn = (turn + 1) % vif.queue_count().max(1);
            let has_control = vif.control.is_some();
            self.serve_queues(port, ready, turn, now);
            if has_control {
                self.serve_control(port, now);
            }
        }
        if !self.round.heads.is_empty() {
            self.hypervisor.grant_copy(&mut self.round.heads);
            self.check_heads();
        }
    }

    /// Serves the ready queues of a vif (a bit each), from one on. They share what the vif may send in a round: what one does not use is the
    /// next one's.
    fn serve_queues(&mut self, port: u16, ready: u8, turn: u8, now: Instant) {
        let before = self.round.sent.len();
        let mut left = ready;
        while left != 0 {
            let later = left & u8::MAX.checked_shl(turn.into()).unwrap_or(0);
            let queue = (if later != 0 { later } else { left }).trailing_zeros() as u8;
            let share = VIF_PACKETS.saturating_sub(self.round.sent.len() - before).div_ceil(left.count_ones() as usize);
            left &= !(1 << queue);
            self.serve_queue(QueueId { port, queue }, share, now);
        }
    }

    /// Serves one queue, which may send so many packets.
    fn serve_queue(&mut self, id: QueueId, share: usize, now: Instant) {
        let Some(Some(slot)) = self.vifs.get_mut(usize::from(id.port)) else {
            return;
        };
        let vif = &mut slot.vif;
        let Some(queue) = vif.queues.get_mut(usize::from(id.queue)).filter(|_| !vif.broken) else {
            return;
        };
        let mut woken = core::mem::take(&mut queue.waiters);
        if !woken.is_empty() {
            match queue.await_receive_slots(queue.awaited) {
                Ok(true) => queue.patience.handle_slots(now),
                // An overrun shows when there is something for it.
                _ => core::mem::swap(&mut woken, &mut queue.waiters),
            }
        }
        let (pages, toward) = (queue.backlog.pages(), queue.toward);
        let served = drain(vif, id, &mut self.round, now).and_then(|()| {
            if self.nics.hold_back(id, toward, &vif.config.bridge) {
                return Ok(Stop::Until(now + RETRY));
            }
            take_requests(vif, id, share, &mut self.round, &self.pool, now)
        });
        let held = vif.queues.get(usize::from(id.queue)).map_or(0, |queue| queue.backlog.pages());
        let released = pages.saturating_sub(held);
        vif.held_pages = vif.held_pages.saturating_sub(released);
        self.held_pages = self.held_pages.saturating_sub(released);
        match served {
            Ok(stop) => self.round.served.push((id, stop)),
            Err(violation) => self.fail(id.port, violation),
        }
        self.wake_waiters(id, woken);
    }

    /// Has the queues served that waited for receive slots of this one. The list goes back, so that none is allocated the next time.
    fn wake_waiters(&mut self, id: QueueId, mut woken: Vec<QueueId>) {
        if woken.capacity() == 0 {
            return;
        }
        for waiter in woken.drain(..) {
            self.mark_ready(waiter);
        }
        if let Some(queue) = queue_mut(&mut self.vifs, id)
            && queue.waiters.is_empty()
        {
            queue.waiters = woken;
        }
    }

    /// Marks the packets whose head could not be fetched, and the vifs that are at fault.
    fn check_heads(&mut self) {
        for index in 0..self.round.sent.len() {
            let Some(sent) = self.round.sent.get_mut(index) else {
                return;
            };
            let (start, end) = sent.copies;
            let failure = self
                .round
                .heads
                .get(start as usize..end as usize)
                .unwrap_or_default()
                .iter()
                .find(|copy| copy.status != 0);
            let Some(copy) = failure else {
                continue;
            };
            sent.failed = true;
            let port = sent.from.port;
            let violation = Violation::bad_grant(copy.source, copy.status);
            self.fail(port, violation);
        }
    }
}

/// Moves what waits for a queue into its receive slots, as far as they go.
fn drain<H: Hypervisor>(vif: &mut Vif<H>, id: QueueId, round: &mut Round, now: Instant) -> Result<(), Violation> {
    let headroom = vif.config.headroom;
    while let Some(queue) = vif.queues.get_mut(usize::from(id.queue)) {
        let Some(head) = queue.backlog.head() else {
            queue.starving = None;
            break;
        };
        if !queue.await_receive_slots(slots_for(head.length, head.offload, head.hash.is_some(), headroom))? {
            queue.starving.get_or_insert(now);
            break;
        }
        queue.starving = None;
        queue.progress = true;
        let mut chunks = Chunks::new();
        queue.backlog.take(&mut chunks, &mut round.held);
        let filling = route::Filling { chunks: &chunks, length: head.length, offload: head.offload, hash: head.hash };
        route::fill_slots(vif, id, round, &filling);
    }
    Ok(())
}

/// Reads the requests of one queue, up to its share of the round.
fn take_requests<H: Hypervisor>(
    vif: &mut Vif<H>,
    id: QueueId,
    share: usize,
    round: &mut Round,
    pool: &Pool,
    now: Instant,
) -> Result<Stop, Violation> {
    let Vif { config, credit, saving, queues, groups, turn, .. } = vif;
    let following = if usize::from(id.queue) + 1 < queues.len() { id.queue + 1 } else { 0 };
    let Some(queue) = queues.get_mut(usize::from(id.queue)) else {
        return Ok(Stop::Empty);
    };
    let (domain, held_locally, has_taken) = (config.domain, queue.toward != Toward::Vif, false);
    let mut sender = Sender { id, domain, held_locally, credit, saving, turn, following, has_taken, groups };
    let overrun = |error| Violation::from((RingName::Transmit, error));
    let mut available = queue.transmit.unconsumed().map_err(overrun)?;
    let limit = if core::mem::take(&mut queue.waited) { share.min(WAITED_PACKETS) } else { share };
    for _ in 0..limit {
        if available == 0 {
            return Ok(Stop::Empty);
        }
        let first = round.slots.len();
        let request = parse(&queue.transmit, available, &mut round.slots)?;
        if let Err(stop) = sender.take_one(request, first, round, pool, now) {
            round.slots.truncate(first);
            return Ok(stop);
        }
        sender.has_taken = true;
        queue.progress = true;
        queue.transmit.consume(request.used());
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
    domain: DomainId,
    /// Its last packet was needed in local memory.
    held_locally: bool,
    credit: &'a mut Option<Credit>,
    saving: &'a mut Option<Instant>,
    /// Whose turn it is next; `following` is the queue behind this one.
    turn: &'a mut u8,
    following: u8,
    /// It took a packet in this round.
    has_taken: bool,
    groups: &'a mut Groups,
}

impl Sender<'_> {
    /// Takes one packet into the round, or says why it must wait.
    fn take_one(
        &mut self,
        request: PacketRequest,
        first: usize,
        round: &mut Round,
        pool: &Pool,
        now: Instant,
    ) -> Result<(), Stop> {
        let mut sent = Sent {
            from: self.id,
            first: u32::try_from(first).unwrap_or(u32::MAX),
            request,
            offload: Offload::default(),
            local: Packet::default(),
            copies: (0, 0),
            gathered: (0, 0),
            failed: false,
            undone: false,
        };
        match request.wish {
            Wish::Send(offload) => {
                sent.offload = offload;
                let start = round.heads.len();
                let slots = sent.slots(&round.slots);
                let extent = first_look(self.held_locally, request.length, slots.first().map_or(0, |slot| slot.size));
                if !gather(&mut sent.local, slots, self.domain, extent, pool, &mut round.heads) {
                    round.heads.truncate(start);
                    return Err(Stop::Until(now + RETRY));
                }
                sent.copies = (start as u32, round.heads.len() as u32);
                if let Err(at) = self.take_credit(request.length as usize, now) {
                    round.heads.truncate(start);
                    return Err(Stop::Until(at));
                }
            }
            Wish::Group(membership) => sent.failed = !change_groups(self.groups, membership),
            Wish::Refuse => sent.failed = true,
        }
        round.sent.push(sent);
        Ok(())
    }

    /// Takes the credit for a packet. A queue whose turn it is saves up for a large one: the others do not use up what it waits for.
    ///
    /// # Errors
    /// When to ask again.
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

/// How much of a packet to fetch before the switch decides: all, where it is short or where it will be needed in local memory anyway,
/// going by where the last one went.
fn first_look(held_locally: bool, length: u32, first_slot: u16) -> Extent {
    if length <= SMALL {
        return Extent { first: length, length };
    }
    let first = u32::from(first_slot).max(PULLED).min(length);
    Extent { first: if held_locally { first } else { HEAD }, length: if held_locally { length } else { HEAD } }
}
