//! One turn of a domain: its requests out of its ring, one of them served, its answers in. Pure. Floor 3.

use split_driver::domains::Domains;
use split_driver::hypervisor::{Adopt, EventChannel};
use xen_pv_sys::DomainId;
use xen_pv_sys::io::xs_wire::XENSTORE_RING_SIZE;
use xenstore_lite::{ConnectionId, Error};

use super::Server;
use crate::faults::Point;
use crate::page::Fault;

/// Lives that a request may end; then it is answered with an error.
const LIVES: u32 = 2;
/// Requests that the store could not survive, after which their domain is cut off for good.
const BLAME: u32 = 3;

impl<H: Adopt, D: Domains> Server<H, D> {
    /// One turn of a domain.
    pub(super) fn turn(&mut self, domain: DomainId) -> Result<(), Fault> {
        let Some(link) = self.machine.links.get_mut(&domain) else {
            return Ok(());
        };
        let Some(id) = link.id else {
            return Ok(());
        };
        link.queued = false;
        // Before the page is looked at: what is written from now on raises another event.
        if let Some(channel) = &link.channel {
            channel.unmask();
        }
        let standing = link.standing.clone();
        if standing.blame.get() < BLAME && link.page.asks_to_restart() {
            self.store.reset(id);
            self.machine.restart(domain);
            self.machine.introduced.push(domain);
            self.commit(None);
            return Ok(());
        }
        if standing.cut_off.get() {
            return Ok(());
        }
        let suspect = self.keeper.suspect.get().filter(|suspect| suspect.domain == domain);
        let suspect = suspect.filter(|suspect| suspect.position == standing.requests.get());
        let lives = suspect.map_or(0, |suspect| suspect.lives);
        if lives > LIVES {
            return Err(Fault::Poison);
        }
        let mut moved = self.transmit(domain, id)?;
        moved |= if lives == LIVES { self.refuse(domain, id)? } else { self.receive(domain, id)? };
        moved |= self.transmit(domain, id)?;
        if let Some(link) = self.machine.links.get(&domain).filter(|_| moved) {
            // One event tells of both: answers to read, and room for requests.
            link.notify();
            self.satisfied |= !link.queued;
        }
        Ok(())
    }

    /// Hands over what waits, for one request at most. Whether anything was taken.
    fn receive(&mut self, domain: DomainId, id: ConnectionId) -> Result<bool, Fault> {
        let mut buffer = [0; XENSTORE_RING_SIZE];
        let Some(link) = self.machine.links.get(&domain) else {
            return Ok(false);
        };
        let count = link.page.peek(&mut buffer)?;
        let input = buffer.get(..count).unwrap_or_default();
        // A request that is held back may have been taken whole: then it wants no more bytes to go on.
        if input.is_empty() && !self.store.has_request(id) {
            return Ok(false);
        }
        if let Some(faults) = &self.machine.faults {
            faults.look_at(input);
        }
        self.reach(Point::Before);
        let (changes, silent) = (self.store.changes(), self.store.poll_transmit(id).is_empty());
        let waited = self.store.has_request(id);
        let taken = self.store.handle_bytes(id, input, &mut self.machine).map_err(|_| Fault::Message)?;
        self.reach(Point::Served);
        if let Some(due) = self.machine.update.due.take() {
            self.end_life(domain, due);
            return Ok(false);
        }
        let link = self.machine.links.get_mut(&domain);
        let answer = self.store.poll_transmit(id);
        match link {
            // Nothing but an answer that fits: it and the taking of its request are one step, and the state is as it was.
            Some(link)
                if silent
                    && changes == self.store.changes()
                    && self.store.waiting(id) == answer.len()
                    && link.page.room()? >= answer.len() =>
            {
                let sent = link.send(answer)?;
                link.take(taken);
                self.store.transmitted(id, sent);
            }
            _ => self.commit(Some((domain, taken))),
        }
        self.reach(Point::Kept);
        self.forget_suspect(domain, taken);
        let Some(link) = self.machine.links.get_mut(&domain) else {
            return Ok(false);
        };
        let more = link.page.has_requests()?;
        let waits = self.store.has_request(id);
        let went_on = taken > 0 || waited && !waits;
        if more && went_on {
            self.enqueue(domain);
        } else if (more || waits) && self.store.poll_transmit(id).is_empty() && !link.held {
            link.held = true;
            self.held.push(domain);
        }
        Ok(taken > 0)
    }

    /// Answers the request that waits with an error: it has ended too many lives. Whether anything was taken.
    fn refuse(&mut self, domain: DomainId, id: ConnectionId) -> Result<bool, Fault> {
        let mut buffer = [0; XENSTORE_RING_SIZE];
        let Some(link) = self.machine.links.get(&domain) else {
            return Ok(false);
        };
        let blame = link.standing.blame.get() + 1;
        link.standing.blame.set(blame);
        if blame >= BLAME && domain != self.privileged {
            return Err(Fault::Poison);
        }
        log::error!("domain {}: a request is refused, the store fails with it", domain.0);
        let count = link.page.peek(&mut buffer)?;
        let input = buffer.get(..count).unwrap_or_default();
        let taken = self.store.refuse_bytes(id, input, Error::EIO).map_err(|_| Fault::Message)?;
        self.commit(Some((domain, taken)));
        self.forget_suspect(domain, taken);
        self.enqueue(domain);
        Ok(taken > 0)
    }

    /// Writes what fits of the answers. Whether anything did; the rest goes when the domain has read and says so.
    fn transmit(&mut self, domain: DomainId, id: ConnectionId) -> Result<bool, Fault> {
        let mut moved = false;
        loop {
            let Some(link) = self.machine.links.get_mut(&domain) else {
                return Ok(false);
            };
            let sent = link.send(self.store.poll_transmit(id))?;
            if sent == 0 {
                return Ok(moved);
            }
            if let Some(faults) = &mut self.machine.faults {
                faults.reach(Point::Sent);
            }
            let changes = self.store.changes();
            self.store.transmitted(id, sent);
            if self.store.changes() != changes {
                // There was room for events that it had missed. Not a byte of them goes out before the state has them.
                self.commit(None);
            }
            moved = true;
        }
    }

    /// Leaves a domain alone that broke its ring, and tells it why. What it watched and had begun ends here.
    pub(super) fn cut_off(&mut self, domain: DomainId, fault: Fault) {
        log::warn!("domain {} is cut off: {fault}", domain.0);
        if let Some(link) = self.machine.links.get_mut(&domain) {
            link.standing.cut_off.set(true);
            link.page.set_fault(fault);
            link.notify();
            if let Some(id) = link.id {
                self.store.reset(id);
            }
        }
        self.commit(None);
    }

    fn reach(&mut self, point: Point) {
        if let Some(faults) = &mut self.machine.faults {
            faults.reach(point);
        }
    }
}
