//! What is planned for a packet whose ways are known: into a guest's receive slots, or into local memory. Floor 3.

use super::QueueId;
use super::copies::{Extent, gather};
use super::fill::{Filling, fill_slots};
use super::forwarder::{Forwarder, Way};
use super::guest::GuestPort;
use super::ports::{PortKind, Ports};
use super::round::{Leaving, Passing, Round, Source};
use super::vlan::Edit;
use crate::netback::violation::Violation;
use crate::offload::ability::Acceptance;
use crate::packet::Pool;
use crate::statistics::DropCause;
use split_driver::hypervisor::Hypervisor;

/// Plans the copies to each of the ports chosen.
pub(super) fn pass_on<H: Hypervisor>(
    ports: &mut Ports<H>,
    forwarder: &mut Forwarder,
    round: &mut Round,
    pool: &Pool,
    passing: &Passing<'_>,
) {
    for place in 0..forwarder.destinations().len() {
        if let Some(&to) = forwarder.destinations().get(place) {
            let way = forwarder.way(ports, to, passing.head);
            pass(ports, round, pool, way, passing);
        }
    }
}

/// Plans the copies of a packet to one port.
pub(super) fn pass<H: Hypervisor>(
    ports: &mut Ports<H>,
    round: &mut Round,
    pool: &Pool,
    way: Way,
    passing: &Passing<'_>,
) {
    match ports.get_mut(way.to) {
        Some(PortKind::Guest(guest)) => match pass_to_guest(guest, round, way, passing) {
            Ok(None) => {}
            Ok(Some(edit)) => hold(ports, round, pool, way, edit, passing),
            Err(violation) => ports.fail(way.to, violation),
        },
        Some(PortKind::Nic(_)) => hold(ports, round, pool, way, passing.tagging.edit(false), passing),
        None => {}
    }
}

/// Plans the copy into a guest's receive slots. Where the packet bounces, so that it must go by way of local memory and the backlog, what is to
/// be done there about its tag.
fn pass_to_guest<H: Hypervisor>(
    guest: &mut GuestPort<H>,
    round: &mut Round,
    Way { to, steer }: Way,
    passing: &Passing<'_>,
) -> Result<Option<Edit>, Violation> {
    if guest.broken {
        return Ok(None);
    }
    if !guest.vif.wants(passing.head.destination) {
        guest.statistics.drop(DropCause::Filtered);
        return Ok(None);
    }
    let &Passing { head, length, offload, .. } = passing;
    let acceptance = guest.vif.ability.accepts(length, offload, head.layout.as_ref());
    if acceptance == Acceptance::Never {
        guest.statistics.drop(DropCause::Unsuitable);
        return Ok(None);
    }
    let edit = passing.tagging.edit(guest.vif.config.vlan.is_some());
    let needed = guest.vif.slots_for(length, offload, steer.hash.is_some());
    let Some(queue) = guest.queues.get_mut(usize::from(steer.queue)) else {
        return Ok(None);
    };
    let in_order = acceptance == Acceptance::AsIs && edit.is_none() && !queue.bouncing && queue.backlog.is_empty();
    if in_order && queue.rings.has_receive_slots(needed)? {
        let id = QueueId { port: to, queue: steer.queue };
        fill_slots(guest, id, round, &Filling { length, offload, hash: steer.hash });
        return Ok(None);
    }
    Ok(Some(edit))
}

/// Has a packet brought into local memory with the batch, from where it leaves after that.
fn hold<H: Hypervisor>(
    ports: &mut Ports<H>,
    round: &mut Round,
    pool: &Pool,
    way: Way,
    edit: Edit,
    passing: &Passing<'_>,
) {
    if let Source::Guest(index) = passing.source {
        let Round { sent, slots, copies, .. } = round;
        let Some(sent) = sent.get_mut(index as usize) else {
            return;
        };
        let Some(domain) = ports.guest(sent.from.port).map(|guest| guest.vif.config.domain) else {
            return;
        };
        if !sent.whole() {
            // Pages were too few for an earlier port, and none comes back within a round.
            if sent.gathered != (0, 0) {
                return ports.count_drop(way.to, DropCause::NoBuffer);
            }
            let start = copies.len() as u32;
            let slots = sent.slots(slots);
            let extent = Extent::whole(passing.length, slots.first().map_or(0, |slot| slot.size));
            let gathered = gather(&mut sent.local, slots, domain, extent, pool, copies);
            sent.gathered = (start, copies.len() as u32);
            if !gathered {
                return ports.count_drop(way.to, DropCause::NoBuffer);
            }
        }
    }
    if let Some(queue) = ports.queue_mut(QueueId { port: way.to, queue: way.steer.queue }) {
        queue.bouncing = true;
    }
    round.leaving.push(Leaving { source: passing.source, to: way.to, steer: way.steer, edit });
}
