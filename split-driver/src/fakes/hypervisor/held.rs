//! What a driver holds of its peers: mapped rings and bound event channels, given back when they are dropped. Floor 1.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::ops::Range;

use xen_pv_sys::{DomainId, GrantRef, Port};

use super::super::peer::Step;
use super::super::region::{PAGE_WORDS, Region};
use super::FakeXen;
use crate::atomic::AtomicU32;
use crate::hypervisor::EventChannel;
use crate::memory::SharedMemory;

/// A mapped ring. The pages outlive their domain, as they do in Xen.
#[derive(Debug)]
pub struct FakeRing {
    pub(super) xen: FakeXen,
    pub(super) domain: DomainId,
    pub(super) references: Vec<GrantRef>,
    pub(super) region: Region,
    pub(super) first: usize,
}

impl SharedMemory for FakeRing {
    #[inline]
    fn words(&self) -> &[AtomicU32] {
        self.xen.step();
        let start = self.first * PAGE_WORDS;
        self.region.get(start..start + self.references.len() * PAGE_WORDS).unwrap_or_default()
    }

    #[inline(never)]
    fn look(&self, range: Range<usize>) -> &[AtomicU32] {
        let words = self.words().get(range).unwrap_or_default();
        self.xen.0.peer.before(Step::Look(words));
        words
    }
}

impl Drop for FakeRing {
    fn drop(&mut self) {
        let world = &self.xen.0;
        let pages = self.references.len();
        world.mapped_pages.set(world.mapped_pages.get() - pages);
        if let Some(state) = world.domains.borrow_mut().get_mut(&self.domain) {
            for reference in &self.references {
                // Unless another domain has got the number meanwhile.
                let grant = state.grants.get_mut(reference.0 as usize).and_then(Option::as_mut);
                if let Some(grant) = grant.filter(|grant| Rc::ptr_eq(&grant.region, &self.region)) {
                    grant.maps -= 1;
                }
            }
        }
    }
}

/// A bound event channel.
#[derive(Debug)]
pub struct FakeChannel {
    pub(super) xen: FakeXen,
    pub(super) port: Port,
}

impl EventChannel for FakeChannel {
    fn port(&self) -> Port {
        self.port
    }

    #[inline(never)]
    fn notify(&self) {
        self.xen.call();
        let remote = match self.xen.0.channels.borrow().get(&self.port.0) {
            Some(channel) => channel.remote,
            None => return,
        };
        if let Some(state) = self.xen.0.domains.borrow_mut().get_mut(&remote.0) {
            *state.notified.entry(remote.1.0).or_default() += 1;
        }
    }

    #[inline(never)]
    fn unmask(&self) {
        let pending = match self.xen.0.channels.borrow_mut().get_mut(&self.port.0) {
            Some(channel) => {
                channel.masked = false;
                core::mem::take(&mut channel.pending)
            }
            None => false,
        };
        if pending {
            self.xen.deliver(self.port);
        }
    }
}

impl Drop for FakeChannel {
    fn drop(&mut self) {
        let world = &self.xen.0;
        let Some(channel) = world.channels.borrow_mut().remove(&self.port.0) else {
            return;
        };
        let (domain, remote) = channel.remote;
        // The other end is unbound again, as `EVTCHNOP_close` leaves it.
        if let Some(state) = world.domains.borrow_mut().get_mut(&domain)
            && let Some(bound) = state.ports.get_mut(&remote.0)
        {
            *bound = None;
        }
        world.events.borrow_mut().retain(|port| *port != self.port);
    }
}
