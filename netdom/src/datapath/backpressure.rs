//! Backpressure: a sender waits where its packets cannot go on, and they wait with it, in its own pages and on its own ring. Floor 3.
//!
//! - For receive slots of another guest it waits as long as that one's [`Patience`](super::patience::Patience) lasts: [`must_wait`], [`give_back`]. It is served again as
//!   soon as there are slots: [`take_waiters`], [`wake_waiters`]. After that its packets bounce: they go into the receiver's backlog.
//! - For room at a NIC it waits until there is some: [`waits_for_nic`].
//!
//! Frames from the wire wait for nothing: they bounce, or are dropped where a NIC has no room. So do packets of a guest whose rate is
//! limited, as its credit was taken.

use super::forwarder::Way;
use super::patience::Toward;
use super::ports::Ports;
use super::queue::Queue;
use super::round::{Passing, Round};
use super::{QueueId, Stop};

use crate::offload::ability::Acceptance;
use crate::switch::PortId;
use alloc::vec::Vec;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

/// Whether a packet of a queue to a guest waits for receive slots of that, and until when. It does where nothing but slots is missing.
pub(super) fn must_wait<H: Hypervisor>(
    ports: &mut Ports<H>,
    from: QueueId,
    Way { to, steer }: Way,
    passing: &Passing<'_>,
    now: Instant,
) -> Option<Instant> {
    let guest = ports.guest_mut(to).filter(|guest| !guest.broken)?;
    let layout = passing.head.layout.as_ref();
    let as_is = passing.tagging.edit(guest.vif.config.vlan.is_some()).is_none();
    if !as_is || guest.vif.ability.accepts(passing.length, passing.offload, layout) != Acceptance::AsIs {
        return None;
    }
    let needed = guest.vif.slots_for(passing.length, passing.offload, steer.hash.is_some());
    let queue = guest.queues.get_mut(usize::from(steer.queue))?;
    if queue.bouncing || !queue.backlog.is_empty() {
        return None;
    }
    let Queue { rings, backpressure, .. } = queue;
    // What is wrong with the ring shows when the packet is to go there.
    if rings.await_receive_slots(needed) != Ok(false) {
        backpressure.patience.handle_slots(now);
        return None;
    }
    let until = backpressure.patience.poll_until(now)?;
    if backpressure.waiters.is_empty() {
        backpressure.awaited = needed;
    }
    if !backpressure.waiters.contains(&from) {
        backpressure.waiters.push(from);
    }
    Some(until)
}

/// Gives a packet of the round and all after it back to their sender's ring, to be read anew then.
pub(super) fn give_back<H: Hypervisor>(ports: &mut Ports<H>, round: &mut Round, index: usize, until: Instant) {
    let Some(from) = round.sent.get(index).map(|sent| sent.from) else {
        return;
    };
    let mut used = 0;
    for sent in round.sent.iter_mut().skip(index).take_while(|sent| sent.from == from) {
        sent.undone = true;
        used += sent.request.used();
    }
    if let Some(queue) = ports.queue_mut(from) {
        queue.rings.transmit.unconsume(used);
        queue.backpressure.waited = true;
    }
    if let Some((_, stop)) = round.served.iter_mut().find(|(served, _)| *served == from) {
        *stop = Stop::Until(until);
    }
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
