//! Last step of a round: answers, and packets that leave from local memory. Floor 3.

use super::guest::GuestPort;
use super::leave::leave;
use super::ports::Ports;
use super::round::{Received, ReceivedKind, Round, Turn};
use super::{QueueId, Stop};
use crate::netback::request::Wish;
use crate::netback::violation::{RingName, Violation};
use crate::packet::Pool;
use crate::statistics::DropCause;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;
use xen_pv_sys::io::netif::{NETIF_RSP_ERROR, NETIF_RSP_NULL, NETIF_RSP_OKAY, RxResponse, TxResponse};

/// Answers and passes on what the round copied.
pub(super) fn finish<H: Hypervisor>(ports: &mut Ports<H>, round: &mut Round, pool: &Pool, now: Instant) {
    answer_receivers(ports, round);
    answer_senders(ports, round);
    publish(ports, round);
    // What does not leave now waits elsewhere.
    round.in_hand.set(0);
    leave(ports, round, pool, now);
    for &Turn { id, stop, .. } in &round.served {
        settle(ports, id, stop, now);
    }
}

/// Places the responses of all receive slots filled.
#[inline(never)]
fn answer_receivers<H: Hypervisor>(ports: &mut Ports<H>, round: &mut Round) {
    let Round { received, ahead, .. } = round;
    for received in received.chunk_by(|one, next| one.to == next.to) {
        let Some(queue) = received.first().and_then(|first| ports.queue_mut(first.to)) else {
            continue;
        };
        for Received { kind, failed, .. } in received {
            match *kind {
                ReceivedKind::Data { id, offset, length, flags, .. } => ahead.add(&RxResponse {
                    id,
                    offset,
                    flags,
                    status: match failed {
                        true => NETIF_RSP_ERROR,
                        // At most a page.
                        false => length.cast_signed(),
                    },
                }),
                ReceivedKind::Extra(extra) => ahead.add(&extra),
            }
        }
        let rings = &mut queue.rings;
        ahead.place::<2, _, _, _>(rings.receive_whose, &mut rings.receive);
    }
}

/// Places the responses of all packets taken, each slot's its own.
#[inline(never)]
fn answer_senders<H: Hypervisor>(ports: &mut Ports<H>, round: &mut Round) {
    let Round { sent, slots, touched, served, ahead, .. } = round;
    for &Turn { id, packets: (first, end), .. } in &*served {
        let Some(GuestPort { queues, statistics, .. }) = ports.guest_mut(id.port) else {
            continue;
        };
        let Some(queue) = queues.get_mut(usize::from(id.queue)) else {
            continue;
        };
        let mut answered = false;
        // What was given back is at the end.
        let packets = sent.get(first as usize..end as usize).unwrap_or_default();
        for sent in packets.iter().take_while(|sent| !sent.undone) {
            if sent.request.wish == Wish::Refuse {
                statistics.drop(DropCause::Malformed);
            }
            let status = match sent.failed {
                true => NETIF_RSP_ERROR,
                false => NETIF_RSP_OKAY,
            };
            let mut extras = sent.request.extras;
            for data in sent.slots(slots) {
                ahead.add(&TxResponse { id: data.id, status });
                for _ in 0..core::mem::take(&mut extras) {
                    ahead.add(&TxResponse { id: 0, status: NETIF_RSP_NULL });
                }
            }
            answered = true;
        }
        if !answered {
            continue;
        }
        let rings = &mut queue.rings;
        ahead.place::<1, _, _, _>(rings.transmit_whose, &mut rings.transmit);
        if !queue.touched {
            queue.touched = true;
            touched.push(id);
        }
    }
}

/// Publishes the responses, and lists the queues whose frontends asked for a notification.
fn publish<H: Hypervisor>(ports: &mut Ports<H>, round: &Round) {
    for &id in &round.touched {
        let Some(guest) = ports.guest_mut(id.port) else {
            continue;
        };
        let broken = guest.broken;
        let Some(queue) = guest.queues.get_mut(usize::from(id.queue)) else {
            continue;
        };
        queue.touched = false;
        if !broken && queue.rings.publish() && !core::mem::replace(&mut queue.unnotified, true) {
            ports.unnotified.push(id);
        }
    }
}

/// After a queue was served: served again, or asleep until its next event.
fn settle<H: Hypervisor>(ports: &mut Ports<H>, id: QueueId, stop: Stop, now: Instant) {
    let Some(guest) = ports.guest_mut(id.port).filter(|guest| !guest.broken) else {
        return;
    };
    let Some(queue) = guest.queues.get_mut(usize::from(id.queue)) else {
        return;
    };
    if core::mem::take(&mut queue.event) {
        queue.throttle.handle_served(queue.rings.progress, now);
    }
    queue.rings.progress = false;
    let mut wake = None;
    match stop {
        Stop::Budget => return ports.mark_ready(id),
        Stop::Empty => match queue.rings.transmit.final_check_for_requests() {
            Ok(0) => {}
            Ok(_) => return ports.mark_ready(id),
            Err(error) => return ports.fail(id.port, Violation::from((RingName::Transmit, error))),
        },
        Stop::Until(at) => wake = Some(at),
    }
    if let Some(until) = queue.poll_sleep(now) {
        wake = Some(wake.map_or(until, |at| at.min(until)));
    }
    if let Some(at) = wake {
        queue.wake = Some(at);
        ports.wake_guest_at(id.port, at);
    }
}
