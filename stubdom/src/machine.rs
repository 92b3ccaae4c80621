//! The rings of all domains, and what is known of the domains: the machine beneath the store. Pure. Floor 3.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use split_driver::domains::Domains;
use split_driver::hypervisor::{EventChannel, Hypervisor, XenError};
use xen_pv_sys::grant_table::GNTTAB_RESERVED_XENSTORE;
use xen_pv_sys::{DomainId, Port};
use xenstore_lite::{ConnectionId, Error, Host};

use crate::page::{Fault, Page};

/// A domain's ring.
pub(crate) struct Link<H: Hypervisor> {
    pub(crate) page: Page<H::Ring>,
    /// The store's name of it; `None` until the store has one.
    pub(crate) id: Option<ConnectionId>,
    /// `None` where it could not be bound again.
    pub(crate) channel: Option<H::Channel>,
    /// It broke the ring: it is not looked at until it begins anew.
    pub(crate) cut_off: bool,
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
    pub(crate) known: BTreeMap<DomainId, u64>,
    /// Rings that were made, or made anew, since the server last looked.
    pub(crate) introduced: Vec<DomainId>,
}

impl<H: Hypervisor, D: Domains> Machine<H, D> {
    pub(crate) fn new(hypervisor: H, domains: D, own: DomainId) -> Self {
        Self {
            hypervisor,
            domains,
            own,
            links: BTreeMap::new(),
            ports: BTreeMap::new(),
            connections: BTreeMap::new(),
            known: BTreeMap::new(),
            introduced: Vec::new(),
        }
    }

    /// A ring that is not mapped yet. `port` yields to the one that the page names.
    pub(crate) fn open(&mut self, domain: DomainId, port: Option<Port>) -> Result<(), XenError> {
        let page = Page::attach(self.hypervisor.map_ring(domain, &[GNTTAB_RESERVED_XENSTORE])?);
        let port = page.named_port().or(port).ok_or(XenError::Exhausted)?;
        let channel = self.hypervisor.bind_interdomain(domain, port)?;
        self.ports.insert(channel.port(), domain);
        self.links.insert(
            domain,
            Link { page, id: None, channel: Some(channel), cut_off: false, queued: false, held: false },
        );
        Ok(())
    }

    /// The ring is as if it had never been used, and the domain is told.
    pub(crate) fn restart(&mut self, domain: DomainId) {
        let Some(link) = self.links.get_mut(&domain) else {
            return;
        };
        link.page.restart();
        link.cut_off = link.channel.is_none();
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
        }
        match self.hypervisor.bind_interdomain(domain, port) {
            Ok(channel) => {
                self.ports.insert(channel.port(), domain);
                link.channel = Some(channel);
            }
            Err(error) => {
                log::warn!("domain {}: port {} cannot be bound again: {error:?}", domain.0, port.0);
                link.page.set_fault(Fault::Channel);
            }
        }
    }
}

impl<H: Hypervisor, D: Domains> Host for Machine<H, D> {
    fn introduce(&mut self, domain: DomainId, port: Port) -> Result<(), Error> {
        if domain == self.own {
            return Err(Error::EINVAL);
        }
        if self.links.contains_key(&domain) {
            self.rebind(domain, port);
        } else {
            self.open(domain, Some(port)).map_err(|error| {
                log::warn!("domain {} cannot be introduced: {error:?}", domain.0);
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

    fn control(&mut self, _words: &mut dyn Iterator<Item = &[u8]>, _reply: &mut Vec<u8>) -> Option<Result<(), Error>> {
        None
    }
}
