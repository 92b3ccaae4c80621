//! The rings of all domains, and what is known of the domains: the machine beneath the store. Pure. Floor 3.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::Cell;

use split_driver::domains::Domains;
use split_driver::hypervisor::{Adopt, EventChannel, Hypervisor, XenError};
use xen_pv_sys::grant_table::GNTTAB_RESERVED_XENSTORE;
use xen_pv_sys::{DomainId, Port};
use xenstore_lite::{ConnectionId, Error, Host, Map};

use crate::faults::Faults;
use crate::page::{Fault, Page};
use crate::saved::{SavedRing, Standing, Standings};
use crate::update::Update;

/// A domain's ring.
pub(crate) struct Link<H: Hypervisor> {
    pub(crate) page: Page<H::Ring>,
    /// The store's name of it; `None` until the store has one.
    pub(crate) id: Option<ConnectionId>,
    /// `None` where it could not be bound again.
    pub(crate) channel: Option<H::Channel>,
    /// What another life needs of it; whether it broke the ring, and is not looked at until it begins anew.
    pub(crate) standing: Rc<Standing>,
    /// It waits for its turn.
    pub(crate) queued: bool,
    /// It waits for the store to go on with it.
    pub(crate) held: bool,
}

impl<H: Hypervisor> Link<H> {
    /// Tells the domain that something in its page changed.
    pub(crate) fn notify(&self) {
        if let Some(channel) = &self.channel {
            channel.notify();
        }
    }

    /// Writes as much of the answers as fits; how much.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let sent = self.page.send(bytes)?;
        self.standing.answers.set(self.page.positions().1);
        Ok(sent)
    }

    /// Passes so many bytes of requests.
    pub(crate) fn take(&mut self, count: usize) {
        self.standing.requests.set(self.standing.requests.get().wrapping_add(count as u32));
        self.page.take(count);
    }

    /// The local port.
    pub(crate) fn port(&self) -> Option<Port> {
        self.channel.as_ref().map(EventChannel::port)
    }
}

/// All that is mapped, bound and known.
pub(crate) struct Machine<H: Hypervisor, D> {
    pub(crate) hypervisor: H,
    pub(crate) domains: D,
    /// The domain that this is: it has no ring.
    own: DomainId,
    pub(crate) links: BTreeMap<DomainId, Link<H>>,
    /// Whose ring a local port is.
    pub(crate) ports: BTreeMap<Port, DomainId>,
    /// Whose ring a connection of the store's is.
    pub(crate) connections: BTreeMap<ConnectionId, DomainId>,
    /// Domains that the store may hold something of, by what tells them from others of the same number.
    pub(crate) known: Map<DomainId, u64>,
    /// Rings that were made, or made anew, since the server last looked.
    pub(crate) introduced: Vec<DomainId>,
    /// What is kept of the rings.
    pub(crate) rings: Standings,
    /// Rings that are given back once the state does not have them any more.
    pub(crate) released: Vec<Link<H>>,
    pub(crate) update: Update,
    pub(crate) faults: Option<Faults>,
}

impl<H: Adopt, D: Domains> Machine<H, D> {
    pub(crate) fn new(hypervisor: H, domains: D, own: DomainId) -> Self {
        Self {
            hypervisor,
            domains,
            own,
            links: BTreeMap::new(),
            ports: BTreeMap::new(),
            connections: BTreeMap::new(),
            known: Map::default(),
            introduced: Vec::new(),
            rings: Standings::default(),
            released: Vec::new(),
            update: Update::default(),
            faults: None,
        }
    }

    fn add(&mut self, domain: DomainId, page: Page<H::Ring>, channel: Option<H::Channel>, was: Option<&SavedRing>) {
        let (requests, answers) = page.positions();
        let standing = Rc::new(Standing {
            place: self.hypervisor.place(page.memory()),
            port: Cell::new(channel.as_ref().map_or(0, |channel| channel.port().0)),
            requests: Cell::new(requests),
            answers: Cell::new(answers),
            base: Cell::new(answers),
            cut_off: Cell::new(channel.is_none() || was.is_some_and(|was| was.cut_off)),
            blame: Cell::new(was.map_or(0, |was| was.blame)),
        });
        if let Some(channel) = &channel {
            self.ports.insert(channel.port(), domain);
        }
        self.rings.insert(domain, standing.clone());
        self.links.insert(domain, Link { page, id: None, channel, standing, queued: false, held: false });
    }

    /// A ring that an earlier life had; whether it is there.
    pub(crate) fn adopt(&mut self, saved: &SavedRing) -> bool {
        let Some(ring) = self.hypervisor.adopt_ring(saved.place) else {
            return false;
        };
        let page = Page::resume(ring, saved.requests, saved.answers);
        let channel = (saved.port.0 != 0).then(|| self.hypervisor.adopt_channel(saved.port));
        self.add(saved.domain, page, channel, Some(saved));
        true
    }

    /// A ring that is not mapped yet. `port` yields to the one that the page names.
    pub(crate) fn open(&mut self, domain: DomainId, port: Option<Port>) -> Result<(), XenError> {
        let page = Page::attach(self.hypervisor.map_ring(domain, &[GNTTAB_RESERVED_XENSTORE])?);
        let port = page.named_port().or(port).ok_or(XenError::Exhausted)?;
        let channel = self.hypervisor.bind_interdomain(domain, port)?;
        self.add(domain, page, Some(channel), None);
        Ok(())
    }

    /// The ring is as if it had never been used, and the domain is told.
    pub(crate) fn restart(&mut self, domain: DomainId) {
        let Some(link) = self.links.get_mut(&domain) else {
            return;
        };
        link.page.restart();
        // In a record of its own: the last state's stays as it is.
        let old = &link.standing;
        link.standing = Rc::new(Standing {
            place: old.place,
            port: old.port.clone(),
            requests: Cell::new(0),
            answers: Cell::new(0),
            base: Cell::new(0),
            cut_off: Cell::new(link.channel.is_none()),
            blame: old.blame.clone(),
        });
        self.rings.insert(domain, link.standing.clone());
        if link.page.asks_to_restart() {
            link.page.set_connected();
            link.notify();
        }
    }

    /// Another event channel for a ring. The old one is closed first: the domain may mean the same port.
    fn rebind(&mut self, domain: DomainId, port: Port) {
        let Some(link) = self.links.get_mut(&domain) else {
            return;
        };
        if let Some(old) = link.channel.take() {
            self.ports.remove(&old.port());
            link.standing.port.set(0);
        }
        match self.hypervisor.bind_interdomain(domain, port) {
            Ok(channel) => {
                self.ports.insert(channel.port(), domain);
                link.standing.port.set(channel.port().0);
                link.channel = Some(channel);
            }
            Err(error) => {
                log::warn!("domain {}: port {} cannot be bound again: {error}", domain.0, port.0);
                link.page.set_fault(Fault::Channel);
            }
        }
    }
}

impl<H: Adopt, D: Domains> Host for Machine<H, D> {
    fn introduce(&mut self, domain: DomainId, port: Port) -> Result<(), Error> {
        if domain == self.own {
            return Err(Error::EINVAL);
        }
        if self.links.contains_key(&domain) {
            self.rebind(domain, port);
        } else {
            self.open(domain, Some(port)).map_err(|error| {
                log::warn!("domain {} cannot be introduced: {error}", domain.0);
                if error == XenError::Exhausted { Error::ENOMEM } else { Error::EINVAL }
            })?;
        }
        self.restart(domain);
        self.introduced.push(domain);
        Ok(())
    }

    fn release(&mut self, domain: DomainId) {
        if let Some(link) = self.links.remove(&domain) {
            link.port().map(|port| self.ports.remove(&port));
            link.id.map(|id| self.connections.remove(&id));
            self.rings.remove(&domain);
            self.released.push(link);
        }
    }

    fn domain(&mut self, domain: DomainId) -> Option<u64> {
        if let Some(unique) = self.known.get(&domain) {
            return Some(*unique);
        }
        let state = self.domains.state(domain).ok().flatten().filter(|state| !state.gone)?;
        self.known.insert(domain, state.unique);
        Some(state.unique)
    }

    fn memory_in_use(&self) -> Option<usize> {
        self.hypervisor.memory_in_use()
    }

    fn control(&mut self, words: &mut dyn Iterator<Item = &[u8]>, reply: &mut Vec<u8>) -> Option<Result<(), Error>> {
        match words.next()? {
            b"live-update" => Some(self.update.control(words, reply)),
            b"restart" => Some(self.update.restart(words, reply)),
            b"life" => Some(self.update.tell_life(words, reply)),
            b"fault" => self.faults.as_mut().map(|faults| faults.control(words)),
            _ => None,
        }
    }
}
