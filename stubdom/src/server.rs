//! Turns: who is served next, and what a turn may cost. Pure. Floor 3.
//!
//! A turn copies at most a ring of bytes, hands them to the store, which serves at most one request, and copies at most a ring of
//! answers back. Whoever has more to do goes to the end of the queue. So the longest wait is one request of each other domain,
//! whatever any of them does.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use split_driver::domains::{Change, Domains};
use split_driver::hypervisor::{Adopt, EventChannel, Hypervisor, XenError};
use xen_pv_sys::io::xs_wire::XENSTORE_RING_SIZE;
use xen_pv_sys::{DomainId, Port};
use xenstore_lite::{Config, ConnectionId, Error, Host, StateError, Store};

#[cfg(any(test, feature = "faults"))]
use crate::faults::Faults;
use crate::faults::Point;
use crate::machine::Machine;
use crate::page::Fault;
use crate::saved::{Keeper, Saved, Snapshot};
use crate::update::Begin;

/// Lives that a request may end; then it is answered with an error.
const LIVES: u32 = 2;
/// Requests that the store could not survive, after which their domain is cut off for good.
const BLAME: u32 = 3;

/// What a round leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// There is more to do.
    No,
    /// There is more to do, and a domain that asks for nothing more has got its answer: let it run first.
    AfterOthers,
    /// Nothing but requests that the store holds back for another's sake: look again in a millisecond or so.
    Briefly,
    /// Nothing is to be done until an event arrives.
    ForEvent,
}

/// The store with every domain's ring.
pub struct Server<H: Hypervisor, D> {
    store: Store,
    machine: Machine<H, D>,
    own: DomainId,
    privileged: DomainId,
    /// Whose turn comes next.
    queue: VecDeque<DomainId>,
    /// Whose request the store would not take.
    held: Vec<DomainId>,
    keeper: Rc<Keeper>,
    /// Somebody has got all that it asked for, since the last round.
    satisfied: bool,
}

impl<H: Adopt, D: Domains> Server<H, D> {
    /// A fresh store, which serves nobody yet.
    pub fn new(hypervisor: H, domains: D, config: Config) -> Self {
        let ids = (config.own, config.privileged);
        Self::with(Store::new(config), hypervisor, domains, ids)
    }

    fn with(store: Store, hypervisor: H, domains: D, (own, privileged): (DomainId, DomainId)) -> Self {
        Self {
            store,
            machine: Machine::new(hypervisor, domains, own),
            own,
            privileged,
            queue: VecDeque::new(),
            held: Vec::new(),
            satisfied: false,
            keeper: Rc::default(),
        }
    }

    /// Goes on from what an earlier life left. `failed` says that it ended by a failure.
    ///
    /// # Errors
    /// Why the store's state cannot be read.
    pub fn resume(
        hypervisor: H,
        domains: D,
        config: Config,
        saved: &Saved<'_>,
        failed: bool,
    ) -> Result<Self, StateError> {
        let ids = (config.own, config.privileged);
        let mut server = Self::with(Store::read_state(saved.state, config)?, hypervisor, domains, ids);
        server.machine.known = saved.known.iter().copied().collect();
        *server.keeper.command_line.borrow_mut() = saved.command_line.clone();
        for ring in &saved.rings {
            if !server.machine.adopt(ring) {
                log::error!("domain {}: its ring is not there any more", ring.domain.0);
                continue;
            }
            let id = server.store.connection(ring.domain);
            let Some((id, link)) = id.zip(server.machine.links.get_mut(&ring.domain)) else {
                continue;
            };
            // What the ring has and the state does not know of: answers that wait, and then those of requests that only read.
            let unseen = server.store.waiting(id).min(ring.unseen as usize);
            server.store.transmitted(id, unseen);
            link.id = Some(id);
            link.standing.base.set(ring.answers.wrapping_sub(server.store.gone(id)));
            server.machine.connections.insert(id, ring.domain);
            if ring.hoards {
                log::warn!("domain {} is cut off: {}", ring.domain.0, Fault::Hoard);
                link.page.set_fault(Fault::Hoard);
            }
            // It may not have been told of what is in its page.
            link.notify();
            server.enqueue(ring.domain);
        }
        if let Some(suspect) = saved.suspect.filter(|_| failed) {
            server.keeper.suspect.set(Some(suspect));
            log::warn!("domain {}'s request ended {} lives of the store", suspect.domain.0, suspect.lives);
        }
        server.commit(None);
        Ok(server)
    }

    /// What is to be written when a life ends.
    pub fn keeper(&self) -> &Rc<Keeper> {
        &self.keeper
    }

    /// How images take the place of this one.
    pub fn allow_updates(&mut self, begin: Begin) {
        self.machine.update.begin = begin;
    }

    /// How a live update went, for whoever began it.
    pub fn set_verdict(&mut self, verdict: Result<(), String>) {
        self.machine.update.verdict = Some(verdict);
    }

    /// From now on the privileged domain may have the store fail; `memory` has so many allocations succeed and the next one fail.
    #[cfg(any(test, feature = "faults"))]
    pub fn allow_faults(&mut self, memory: fn(u32)) {
        self.machine.faults = Some(Faults::new(memory));
    }

    /// Makes what is now the state to go on from; of a domain's requests, so many bytes are taken with it.
    fn commit(&mut self, taken: Option<(DomainId, usize)>) {
        self.connect_introduced();
        let (rings, known) = (self.machine.rings.clone(), self.machine.known.clone());
        let snapshot = Rc::new(Snapshot { store: self.store.clone(), rings, known });
        let link = taken.and_then(|(domain, count)| Some((self.machine.links.get_mut(&domain)?, count)));
        let old = self.keeper.snapshot.replace(Some(snapshot));
        if let Some((link, count)) = link {
            link.take(count);
        }
        drop(old);
        self.keeper.changes.set(self.keeper.changes.get() + 1);
        self.machine.released.clear();
    }

    fn reach(&mut self, point: Point) {
        if let Some(faults) = &mut self.machine.faults {
            faults.reach(point);
        }
    }

    /// Connects the privileged domain, by the port that the domain's builder got from its kernel; then this domain itself, which asks
    /// the store without a ring; then the domains that were there before the store, where Xen says which.
    ///
    /// # Errors
    /// Why the privileged domain's ring cannot be had: then nothing can be served.
    pub fn start(&mut self, port: Port) -> Result<(), XenError> {
        let privileged = self.privileged;
        self.machine.open(privileged, Some(port))?;
        self.machine.introduced.push(privileged);
        self.connect_introduced();
        for domain in [privileged, self.own] {
            self.machine.domain(domain);
        }
        self.store.connect(self.own);
        while let Change::Of(domain) = self.machine.domains.next_changed() {
            let is_known = self.machine.known.contains_key(&domain);
            if !is_known && self.machine.domain(domain).is_some() && self.machine.open(domain, None).is_ok() {
                self.machine.introduced.push(domain);
                self.connect_introduced();
            }
        }
        self.commit(None);
        Ok(())
    }

    /// Domains that have a ring.
    pub fn connected(&self) -> usize {
        self.machine.links.len()
    }

    /// Takes the ports whose events arrived.
    pub fn handle_events(&mut self, ports: &mut Vec<Port>) {
        for port in ports.drain(..) {
            if let Some(domain) = self.machine.ports.get(&port).copied() {
                self.enqueue(domain);
            }
        }
    }

    /// A domain came, ended or went (`VIRQ_DOM_EXC`).
    pub fn handle_domain_change(&mut self) {
        loop {
            match self.machine.domains.next_changed() {
                Change::Of(domain) => self.look_at(domain),
                Change::None => break,
                Change::Unknown => {
                    let all: Vec<DomainId> = self.machine.known.keys().copied().collect();
                    all.into_iter().for_each(|domain| self.look_at(domain));
                    break;
                }
            }
        }
        self.commit(None);
        self.enqueue_ready();
    }

    /// As after a change of which nobody was told: looks at each domain that is known.
    pub fn look_at_all(&mut self) {
        let all: Vec<DomainId> = self.machine.known.keys().copied().collect();
        all.into_iter().for_each(|domain| self.look_at(domain));
        self.handle_domain_change();
    }

    fn look_at(&mut self, domain: DomainId) {
        let Some(unique) = self.machine.known.get(&domain).copied() else {
            return;
        };
        match self.machine.domains.state(domain) {
            Ok(Some(state)) if !state.gone && state.unique == unique => {
                if state.shut_down {
                    self.store.handle_domain_shutdown(domain);
                }
            }
            Ok(_) => {
                log::info!("domain {} is gone", domain.0);
                self.machine.known.remove(&domain);
                self.store.handle_domain_gone(domain, &mut self.machine);
            }
            // Nothing is thrown away for a doubt.
            Err(error) => log::error!("Xen does not say how domain {} is: {error}", domain.0),
        }
    }

    /// Serves whoever waits, at most `turns` of them.
    pub fn round(&mut self, turns: usize) -> Wait {
        for _ in 0..turns {
            let Some(domain) = self.queue.pop_front() else {
                break;
            };
            self.keeper.turn.set(Some(domain));
            if let Err(fault) = self.turn(domain) {
                self.cut_off(domain, fault);
            }
            self.keeper.turn.set(None);
            self.enqueue_ready();
        }
        let satisfied = core::mem::take(&mut self.satisfied);
        if !self.queue.is_empty() {
            if satisfied { Wait::AfterOthers } else { Wait::No }
        } else if self.held.is_empty() {
            Wait::ForEvent
        } else {
            Wait::Briefly
        }
    }

    /// Has those go on whose requests the store held back.
    pub fn retry_held(&mut self) {
        for domain in core::mem::take(&mut self.held) {
            if let Some(link) = self.machine.links.get_mut(&domain) {
                link.held = false;
            }
            self.enqueue(domain);
        }
    }

    fn enqueue(&mut self, domain: DomainId) {
        if let Some(link) = self.machine.links.get_mut(&domain).filter(|link| !link.queued) {
            link.queued = true;
            self.queue.push_back(domain);
        }
    }

    /// Whoever has got something to be told, and was not told it in its own turn, gets a turn.
    fn enqueue_ready(&mut self) {
        while let Some(id) = self.store.poll_ready() {
            match self.machine.connections.get(&id).copied() {
                Some(_) if self.store.poll_transmit(id).is_empty() => {}
                Some(domain) => self.enqueue(domain),
                // Our own: nobody reads.
                None => {
                    let count = self.store.waiting(id);
                    self.store.transmitted(id, count);
                }
            }
        }
    }

    /// The store's side of the rings that were made.
    fn connect_introduced(&mut self) {
        for domain in core::mem::take(&mut self.machine.introduced) {
            let id = self.store.connection(domain).or_else(|| self.store.connect(domain));
            if let (Some(id), Some(link)) = (id, self.machine.links.get_mut(&domain)) {
                if let Some(port) = link.port() {
                    self.store.set_port(id, port);
                }
                // `SET_FEATURE` may have said which, before the domain was there to see them.
                let info = self.store.connections().find(|info| info.id == id);
                link.page.offer(info.map_or(0, |info| info.features));
                link.id = Some(id);
                link.standing.base.set(link.standing.answers.get().wrapping_sub(self.store.gone(id)));
                self.machine.connections.insert(id, domain);
                log::info!("domain {} is connected", domain.0);
            }
            // It may have written before it could tell us.
            self.enqueue(domain);
        }
    }

    /// One turn of a domain.
    fn turn(&mut self, domain: DomainId) -> Result<(), Fault> {
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
        if self.machine.update.due {
            self.update(domain);
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

    /// A domain's request was served: whatever life it ended, it ends no other.
    fn forget_suspect(&self, domain: DomainId, taken: usize) {
        if taken > 0 && self.keeper.suspect.get().is_some_and(|suspect| suspect.domain == domain) {
            self.keeper.suspect.set(None);
        }
    }

    /// Puts the staged image in the place of this one. Where that fails, the request is served again, and tells why.
    fn update(&mut self, domain: DomainId) {
        self.machine.update.due = false;
        let Some(staged) = self.machine.update.staged.take() else {
            return;
        };
        // As before the request: it is the new image's to answer.
        if let Some(snapshot) = self.keeper.snapshot.take() {
            self.store = snapshot.store.clone();
            self.keeper.snapshot.set(Some(snapshot));
            for link in self.machine.links.values() {
                let Some(id) = link.id else { continue };
                let unseen = link.standing.unseen(self.store.gone(id)) as usize;
                self.store.transmitted(id, self.store.waiting(id).min(unseen));
            }
        }
        self.keeper.turn.set(None);
        let words = staged.command_line.or_else(|| self.keeper.command_line.borrow().clone());
        let before = self.keeper.command_line.replace(words);
        let reason = staged.image.enter();
        log::error!("live update: {reason}");
        self.keeper.command_line.replace(before);
        self.set_verdict(Err(reason));
        self.commit(None);
        self.enqueue(domain);
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
    fn cut_off(&mut self, domain: DomainId, fault: Fault) {
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
}
