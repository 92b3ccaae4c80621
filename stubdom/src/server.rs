//! Who is served next: domains that come and go, the queue of those that wait, and rounds of turns. Pure. Floor 3.
//!
//! A [turn](turn) copies at most a ring of bytes, hands them to the store, which serves at most one request, and copies at most a ring of
//! answers back. Whoever has more to do goes to the end of the queue. So the longest wait is one request of each other domain,
//! whatever any of them does.

mod handover;
mod turn;

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;

use split_driver::domains::{Change, Domains};
use split_driver::hypervisor::{Adopt, Hypervisor, XenError};
use xen_pv_sys::{DomainId, Port};
use xenstore_lite::{Config, Host, Store, Usage};

use crate::machine::Machine;
use crate::saved::Keeper;

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

    /// What each domain takes up.
    pub fn usages(&self) -> impl Iterator<Item = (u16, Usage)> {
        self.machine.known.keys().map(|domain| (domain.0, self.store.usage(*domain)))
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
}
