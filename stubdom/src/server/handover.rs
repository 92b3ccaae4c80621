//! From life to life: what is kept of the state after each request, how the next life goes on from it, and another image that takes the place of
//! this one. Pure. Floor 3.

use alloc::rc::Rc;
use alloc::string::String;

use split_driver::domains::Domains;
use split_driver::hypervisor::Adopt;
use xen_pv_sys::DomainId;
use xenstore_lite::{Config, StateError, Store};

use super::Server;
#[cfg(any(test, feature = "faults"))]
use crate::faults::Faults;
use crate::page::Fault;
use crate::saved::{Keeper, Saved, Snapshot};
use crate::update::{Begin, Due};

impl<H: Adopt, D: Domains> Server<H, D> {
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
        for ring in &saved.rings {
            if !server.machine.adopt(ring) {
                log::error!("domain {}: its ring is no longer there", ring.domain.0);
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

    /// How a new life begins on request. Returns only where that cannot be, with the reason.
    pub fn allow_restarts(&mut self, again: fn() -> String) {
        self.machine.update.again = again;
    }

    /// What `CONTROL life` answers.
    pub fn set_life(&mut self, life: String) {
        self.machine.update.life = life;
    }

    /// Keeps the result of a live update, or of a new life, for the domain that asked for it.
    pub fn set_verdict(&mut self, verdict: Result<(), String>) {
        self.machine.update.verdict = Some(verdict);
    }

    /// Lets the privileged domain make the store fail. `memory` makes an allocation fail, after the number of allocations that it is given.
    #[cfg(any(test, feature = "faults"))]
    pub fn allow_faults(&mut self, memory: fn(u32)) {
        self.machine.faults = Some(Faults::new(memory));
    }

    /// Makes the present state the one that the next life goes on from. With it, a number of bytes of a domain's requests is taken.
    pub(super) fn commit(&mut self, taken: Option<(DomainId, usize)>) {
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

    /// Clears the suspicion of a domain's request, which was served.
    pub(super) fn forget_suspect(&self, domain: DomainId, taken: usize) {
        if taken > 0 && self.keeper.suspect.get().is_some_and(|suspect| suspect.domain == domain) {
            self.keeper.suspect.set(None);
        }
    }

    /// Ends this life: by the staged image, or for another of this one. Where that fails, the request is served again, and tells why.
    pub(super) fn end_life(&mut self, domain: DomainId, due: Due) {
        let staged = self.machine.update.staged.take();
        // As before the request: it is the next life's to answer.
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
        let reason = match (due, staged) {
            (Due::Image, Some(staged)) => staged.image.enter(staged.command_line.as_deref()),
            (Due::Image, None) => "Not in live-update session.".into(),
            (Due::Restart, _) => (self.machine.update.again)(),
        };
        log::error!("no new life: {reason}");
        self.set_verdict(Err(reason));
        self.commit(None);
        self.enqueue(domain);
    }
}
