//! Backpressure: a sender waits where its packets cannot go on, and they wait with it, in its own pages and on its own ring. Floor 3.
//!
//! - For receive slots of another guest it waits as long as that one's [`Patience`](super::patience::Patience) lasts: [`wait_for_slots`], [`give_back`]. It is served again as
//!   soon as there are slots: [`take_waiters`], [`wake_waiters`]. After that its packets bounce: they go into the receiver's backlog.
//! - For room at a NIC it waits until there is some: [`waits_for_nic`].
//!
//! Frames from the wire wait for nothing: they bounce, or are dropped where a NIC has no room. So do packets of a guest whose rate is
//! limited, as its credit was taken.

use super::patience::Toward;
use super::ports::Ports;
use super::queue::Queue;
use super::round::{Round, Turn};
use super::{QueueId, Stop};
use crate::switch::PortId;
use alloc::vec::Vec;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

/// Until when a packet of a queue (`from`) waits for receive slots of another one, of which it needs so many; `None` where it does not wait.
pub(super) fn wait_for_slots<H: Hypervisor>(
    queue: &mut Queue<H>,
    needed: u32,
    from: QueueId,
    now: Instant,
) -> Option<Instant> {
    let backpressure = &mut queue.backpressure;
    let until = backpressure.patience.poll_until(now)?;
    if backpressure.waiters.is_empty() {
        backpressure.awaited = needed;
    }
    if !backpressure.waiters.contains(&from) {
        backpressure.waiters.push(from);
    }
    Some(until)
}

/// Gives a packet of a queue and all after it back to their sender's ring, to be read anew then. `served` is the queue's number among those
/// that were served.
pub(super) fn give_back<H: Hypervisor>(
    ports: &mut Ports<H>,
    round: &mut Round,
    served: usize,
    index: u32,
    until: Instant,
) {
    let Some(Turn { id, stop, packets: (_, end) }) = round.served.get_mut(served) else {
        return;
    };
    let mut used = 0;
    for sent in round.sent.get_mut(index as usize..*end as usize).unwrap_or_default() {
        sent.undone = true;
        used += sent.request.used();
    }
    if let Some(queue) = ports.queue_mut(*id) {
        queue.rings.transmit.unconsume(used);
        queue.backpressure.waited = true;
    }
    *stop = Stop::Until(until);
}

/// The queues that waited for receive slots of this one, where there are enough of them by now.
pub(super) fn take_waiters<H: Hypervisor>(queue: &mut Queue<H>, now: Instant) -> Vec<QueueId> {
    let Queue { rings, backpressure, .. } = queue;
    // A ring overrun is reported where slots are taken.
    if backpressure.waiters.is_empty() || rings.await_receive_slots(backpressure.awaited) != Ok(true) {
        return Vec::new();
    }
    backpressure.patience.handle_slots(now);
    core::mem::take(&mut backpressure.waiters)
}

/// Has the queues served that waited for receive slots of this one. The list goes back, so that none is allocated the next time.
pub(super) fn wake_waiters<H: Hypervisor>(ports: &mut Ports<H>, id: QueueId, mut woken: Vec<QueueId>) {
    if woken.capacity() == 0 {
        return;
    }
    for waiter in woken.drain(..) {
        ports.mark_ready(waiter);
    }
    if let Some(queue) = ports.queue_mut(id)
        && queue.backpressure.waiters.is_empty()
    {
        queue.backpressure.waiters = woken;
    }
}

/// Whether a queue must wait for room at the NIC that its packets go to or, where that is not known, at any of its bridge.
pub(super) fn waits_for_nic<H: Hypervisor>(ports: &mut Ports<H>, id: QueueId, now: Instant) -> bool {
    let Some(guest) = ports.guest(id.port) else {
        return false;
    };
    let Some(queue) = guest.queues.get(usize::from(id.queue)) else {
        return false;
    };
    let toward = queue.backpressure.toward;
    let of_bridge = |ports: &Ports<H>, nic: PortId| ports.share_bridge(id.port, nic);
    match toward {
        Toward::Guest => false,
        Toward::Nic(nic) => of_bridge(ports, nic) && ports.nic_mut(nic).is_some_and(|nic| nic.is_full(id, now)),
        Toward::Unknown => {
            let mut nics = ports.nics();
            nics.any(|nic| of_bridge(ports, nic) && ports.nic_mut(nic).is_some_and(|nic| nic.is_full(id, now)))
        }
    }
}
