//! First step of a round: what the ready vifs have, and the heads of what they send. Floor 3.

use super::round::{Chunks, Extent, HEAD, PULLED, Round, SMALL, Sent, gather};
use super::vif::{Toward, Vif};
use super::{DataPath, RETRY, ROUND_PACKETS, Stop, VIF_PACKETS, WAITED_PACKETS, route};
use crate::netback::request::{PacketRequest, Wish, parse};
use crate::netback::violation::{RingName, Violation};
use crate::packet::{Offload, Packet, Pool};
use alloc::vec::Vec;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

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
            vif.ready = false;
            if vif.broken {
                continue;
            }
            let mut woken = core::mem::take(&mut vif.waiters);
            if !woken.is_empty() {
                match vif.await_receive_slots(vif.awaited) {
                    Ok(true) => vif.patience.handle_slots(now),
                    // An overrun shows when there is something for it.
                    _ => core::mem::swap(&mut woken, &mut vif.waiters),
                }
            }
            let pages = vif.queue.pages();
            let served = drain(vif, port, &mut self.round, now).and_then(|()| {
                if self.nics.hold_back(port, vif.toward, &vif.config.bridge) {
                    return Ok(Stop::Until(now + RETRY));
                }
                take_requests(vif, port, &mut self.round, &self.pool, now)
            });
            self.queued_pages = self.queued_pages.saturating_sub(pages.saturating_sub(vif.queue.pages()));
            match served {
                Ok(stop) => self.round.served.push((port, stop)),
                Err(violation) => self.fail(port, violation),
            }
            self.wake_waiters(port, woken);
        }
        if !self.round.heads.is_empty() {
            self.hypervisor.grant_copy(&mut self.round.heads);
            self.check_heads();
        }
    }

    /// Has the vifs served that waited for receive slots of `port`. The list goes back, so that none is allocated the next time.
    fn wake_waiters(&mut self, port: u16, mut woken: Vec<u16>) {
        if woken.capacity() == 0 {
            return;
        }
        for waiter in woken.drain(..) {
            self.mark_ready(waiter);
        }
        if let Some(Some(slot)) = self.vifs.get_mut(usize::from(port))
            && slot.vif.waiters.is_empty()
        {
            slot.vif.waiters = woken;
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
            let port = sent.vif;
            let violation = Violation::bad_grant(copy.source, copy.status);
            self.fail(port, violation);
        }
    }
}

/// Moves what waits for a guest into its receive slots, as far as they go.
fn drain<H: Hypervisor>(vif: &mut Vif<H>, port: u16, round: &mut Round, now: Instant) -> Result<(), Violation> {
    while let Some(head) = vif.queue.head() {
        if !vif.await_receive_slots(Vif::<H>::slots_for(head.length, head.offload))? {
            vif.starving.get_or_insert(now);
            return Ok(());
        }
        vif.starving = None;
        vif.progress = true;
        let mut chunks = Chunks::new();
        vif.queue.take(&mut chunks, &mut round.held);
        route::fill_slots(vif, port, round, &chunks, head.length, head.offload);
    }
    vif.starving = None;
    Ok(())
}

/// Reads the requests of one vif, up to its share of the round.
fn take_requests<H: Hypervisor>(
    vif: &mut Vif<H>,
    port: u16,
    round: &mut Round,
    pool: &Pool,
    now: Instant,
) -> Result<Stop, Violation> {
    let mut available = vif.transmit.unconsumed().map_err(|error| Violation::from((RingName::Transmit, error)))?;
    let limit = if core::mem::take(&mut vif.waited) { WAITED_PACKETS } else { VIF_PACKETS };
    for _ in 0..limit {
        if available == 0 {
            return Ok(Stop::Empty);
        }
        let first = round.slots.len();
        let request = parse(&vif.transmit, available, &mut round.slots)?;
        if let Err(stop) = take_one(vif, port, request, first, round, pool, now) {
            round.slots.truncate(first);
            return Ok(stop);
        }
        vif.progress = true;
        vif.transmit.consume(request.used());
        available = available.saturating_sub(request.used());
    }
    Ok(match available {
        0 => Stop::Empty,
        _ => Stop::Budget,
    })
}

/// Takes one packet into the round, or says why it must wait.
fn take_one<H: Hypervisor>(
    vif: &mut Vif<H>,
    port: u16,
    request: PacketRequest,
    first: usize,
    round: &mut Round,
    pool: &Pool,
    now: Instant,
) -> Result<(), Stop> {
    let mut sent = Sent {
        vif: port,
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
            let extent =
                first_look(vif.toward != Toward::Vif, request.length, slots.first().map_or(0, |slot| slot.size));
            let domain = vif.config.domain;
            if !gather(&mut sent.local, slots, domain, extent, pool, &mut round.heads) {
                round.heads.truncate(start);
                return Err(Stop::Until(now + RETRY));
            }
            sent.copies = (start as u32, round.heads.len() as u32);
            if let Some(credit) = &mut vif.credit
                && let Err(at) = credit.take(request.length as usize, now)
            {
                round.heads.truncate(start);
                return Err(Stop::Until(at));
            }
        }
        Wish::Group(membership) => sent.failed = !vif.change_groups(membership),
        Wish::Refuse => sent.failed = true,
    }
    round.sent.push(sent);
    Ok(())
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
