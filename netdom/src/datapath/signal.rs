//! What ends a round for the others: notifications to frontends, and writes to the NICs' tail registers. Floor 3.
//!
//! Each costs more than a packet: a hypercall, and the interrupt at its receiver; a write to a device, and its look at the ring. While one
//! round follows another they wait, so that several rounds share one, but no longer than `hold` says, and never where the last one was longer ago:
//! a guest or a NIC that was idle is told at once. The responses themselves are published in each round.

use super::hold::is_recent;
use super::ports::Ports;
use super::queue::Queue;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

/// Sends the signals that are due. `follows`: another round comes at once, so that some may wait for it.
pub(super) fn signal<H: Hypervisor>(ports: &mut Ports<H>, follows: bool, now: Instant) {
    ports.for_each_nic(|nic| nic.flush(follows, now));
    let mut unnotified = core::mem::take(&mut ports.unnotified);
    unnotified.retain(|id| ports.queue_mut(*id).is_some_and(|queue| !notify(queue, follows, now)));
    ports.unnotified = unnotified;
}

/// Notifies a queue's frontend; false where that waits.
fn notify<H: Hypervisor>(queue: &mut Queue<H>, follows: bool, now: Instant) -> bool {
    if follows && is_recent(queue.notified, now) {
        return false;
    }
    (queue.unnotified, queue.notified) = (false, Some(now));
    queue.rings.notify();
    true
}
