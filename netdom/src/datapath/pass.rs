//! What is planned for a packet whose ways are known: into a guest's receive slots, or into local memory. Floor 3.

use super::QueueId;
use super::backpressure::wait_for_slots;
use super::copies::{Extent, gather_slots};
use super::fill::{Filling, fill_slots};
use super::forwarder::{Forwarder, Way};
use super::guest::GuestPort;
use super::ports::{PortKind, Ports};
use super::round::{Leaving, Passing, Round, Source, ToRoute};
use super::vlan::Edit;
use crate::netback::violation::Violation;
use crate::offload::ability::Acceptance;
use crate::packet::Pool;
use crate::statistics::DropCause;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

/// Plans the copies to each of the ports chosen.
pub(super) fn pass_on<H: Hypervisor>(
    ports: &mut Ports<H>,
    forwarder: &Forwarder,
    round: &mut Round,
    pool: &Pool,
    passing: &Passing<'_>,
) {
    for place in 0..forwarder.destinations().len() {
        if let Some(&to) = forwarder.destinations().get(place)
            && !ports.is_router(to)
        {
            let way = forwarder.way(ports, to, passing.head);
            let _none_waits = pass(ports, round, pool, way, passing);
        }
    }
}

/// Plans the copies of a packet to one port. Until when it must wait for receive slots, if it must.
pub(super) fn pass<H: Hypervisor>(
    ports: &mut Ports<H>,
    round: &mut Round,
    pool: &Pool,
    way: Way,
    passing: &Passing<'_>,
) -> Option<Instant> {
    match ports.get_mut(way.to) {
        Some(PortKind::Guest(guest)) => match pass_to_guest(guest, round, way, passing) {
            Ok(Passed::Done) => {}
            Ok(Passed::Waits(until)) => return Some(until),
            Ok(Passed::Bounces(edit)) => {
                if hold(ports, round, pool, way, edit, passing)
                    && let Some(queue) = ports.queue_mut(QueueId { port: way.to, queue: way.steer.queue })
                {
                    queue.bouncing = true;
                }
            }
            Err(violation) => ports.fail(way.to, violation),
        },
        Some(PortKind::Nic(_)) => {
            hold(ports, round, pool, way, passing.tagging.edit(false), passing);
        }
        // None of its NICs has a link.
        Some(PortKind::Bond(_)) => ports.count_drop(way.to, DropCause::NoLink),
        // Only what was joined for the router comes here.
        Some(PortKind::Router) => {
            if let Source::Wire(frame) = passing.source {
                round.to_route.push(ToRoute { router: way.to, frame, parsed: passing.parsed });
            }
        }
        None => {}
    }
    None
}

/// What becomes of a packet to a guest.
enum Passed {
    /// It goes into receive slots, or nowhere.
    Done,
    /// Nothing but slots is missing: it waits for them in its sender's ring.
    Waits(Instant),
    /// It must go by way of local memory and the backlog; this is to be done there about its tag.
    Bounces(Edit),
}

/// Plans the copy into a guest's receive slots.
#[inline]
fn pass_to_guest<H: Hypervisor>(
    guest: &mut GuestPort<H>,
    round: &mut Round,
    Way { to, steer }: Way,
    passing: &Passing<'_>,
) -> Result<Passed, Violation> {
    let GuestPort { vif, queues, statistics, broken: false, .. } = guest else {
        return Ok(Passed::Done);
    };
    if !vif.wants(passing.head.destination) {
        statistics.drop(DropCause::Filtered);
        return Ok(Passed::Done);
    }
    let &Passing { head, length, offload, .. } = passing;
    let acceptance = vif.ability.accepts(length, offload, head.layout.as_ref());
    if acceptance == Acceptance::Never {
        statistics.drop(DropCause::Unsuitable);
        return Ok(Passed::Done);
    }
    let edit = passing.tagging.edit_for(&vif.config.vlans);
    let needed = vif.slots_for(length, offload, steer.hash.is_some());
    let Some(queue) = queues.get_mut(usize::from(steer.queue)) else {
        return Ok(Passed::Done);
    };
    let in_order = acceptance == Acceptance::AsIs && edit.is_none() && !queue.bouncing && queue.backlog.is_empty();
    if !in_order {
        return Ok(Passed::Bounces(edit));
    }
    let waits = passing.waits;
    if queue.rings.has_receive_slots(needed)? || waits.is_some() && queue.rings.await_receive_slots(needed)? {
        if let Some((_, now)) = waits {
            queue.backpressure.patience.handle_slots(now);
        }
        let id = QueueId { port: to, queue: steer.queue };
        fill_slots(&vif.config, queue, id, round, &Filling { length, offload, hash: steer.hash });
        statistics.to_port.count(length);
        return Ok(Passed::Done);
    }
    let until = waits.and_then(|(from, now)| wait_for_slots(queue, needed, from, now));
    Ok(until.map_or(Passed::Bounces(edit), Passed::Waits))
}

/// Has a packet brought into local memory with the batch, from where it leaves after that. False where there is no room for it, and it is lost.
pub(super) fn hold<H: Hypervisor>(
    ports: &mut Ports<H>,
    round: &mut Round,
    pool: &Pool,
    way: Way,
    edit: Edit,
    passing: &Passing<'_>,
) -> bool {
    let &Passing { source, parsed, .. } = passing;
    if let Source::Guest(index) = source
        && round.sent.get(index as usize).is_none_or(|sent| !sent.whole())
        && !gather_rest(ports, round, pool, index)
    {
        ports.count_drop(way.to, DropCause::NoBuffer);
        return false;
    }
    round.leaving.push(Leaving { source, parsed, to: way.to, steer: way.steer, edit });
    true
}

/// Plans the copies of what is not in local memory of a packet that a guest sends. False where there is no room for it.
fn gather_rest<H: Hypervisor>(ports: &Ports<H>, round: &mut Round, pool: &Pool, index: u32) -> bool {
    let Round { sent, slots, copies, .. } = round;
    let Some(sent) = sent.get_mut(index as usize) else {
        return false;
    };
    let Some(domain) = ports.guest(sent.from.port).map(|guest| guest.vif.config.domain) else {
        return false;
    };
    // A packet that was begun with is not gathered twice: pages were too few for an earlier port.
    if sent.gathered != (0, 0) {
        return false;
    }
    let start = copies.len() as u32;
    let slots = sent.slots(slots);
    let extent = Extent::whole(sent.request.length, slots.first().map_or(0, |slot| slot.size));
    let gathered = gather_slots(&mut sent.local, slots, domain, extent, pool, copies);
    sent.gathered = (start, copies.len() as u32);
    gathered
}
