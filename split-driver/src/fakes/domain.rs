//! A guest as the test that plays it: its pages, grants and ports. Floor 1.

use xen_pv_sys::{DomainId, GrantRef, Port};

use super::hypervisor::{DomainState, FakeXen, Grant};
use super::region::{GuestMemory, PAGE_WORDS, region};

impl FakeXen {
    /// Makes a domain, or takes a handle to it where it is there already.
    pub fn domain(&self, id: DomainId) -> FakeDomain {
        self.0.domains.borrow_mut().entry(id).or_default();
        FakeDomain { xen: self.clone(), id }
    }
}

/// A guest, as the test that plays it.
#[derive(Clone, Debug)]
pub struct FakeDomain {
    xen: FakeXen,
    id: DomainId,
}

impl FakeDomain {
    /// Its number.
    pub fn id(&self) -> DomainId {
        self.id
    }

    fn with<T>(&self, body: impl FnOnce(&mut DomainState) -> T) -> T {
        body(self.xen.0.domains.borrow_mut().entry(self.id).or_default())
    }

    /// Zeroed pages, contiguous.
    pub fn pages(&self, count: usize) -> GuestMemory {
        GuestMemory { region: region(count) }
    }

    /// Grants page `page` of `memory` to us. References are given out from 0 and not reused.
    pub fn grant(&self, memory: &GuestMemory, page: usize, writable: bool) -> GrantRef {
        assert!(page < memory.region.len() / PAGE_WORDS, "the test grants a page that it has not");
        let grant = Grant { region: memory.region.clone(), page, writable, maps: 0 };
        self.with(|state| {
            state.grants.push(Some(grant));
            GrantRef(u32::try_from(state.grants.len() - 1).unwrap_or(u32::MAX))
        })
    }

    /// Ends a grant; false, and not ended, where it is mapped still.
    pub fn end_grant(&self, reference: GrantRef) -> bool {
        self.with(|state| match state.grants.get_mut(reference.0 as usize) {
            Some(slot) if slot.as_ref().is_none_or(|grant| grant.maps == 0) => {
                *slot = None;
                true
            }
            _ => false,
        })
    }

    /// Pages of this domain that we have mapped.
    pub fn mapped(&self) -> usize {
        self.with(|state| {
            let grants = state.grants.iter().flatten();
            grants.map(|grant| grant.maps).sum()
        })
    }

    /// Allocates a port for us to bind to.
    pub fn allocate_port(&self) -> Port {
        self.with(|state| {
            state.next_port += 1;
            state.ports.insert(state.next_port, None);
            Port(state.next_port)
        })
    }

    /// Notifies us through its port.
    pub fn notify(&self, port: Port) {
        let local = self.with(|state| state.ports.get(&port.0).copied().flatten());
        if let Some(local) = local {
            self.xen.deliver(local);
        }
    }

    /// Notifications that we sent to its port since it was last asked.
    pub fn take_notifications(&self, port: Port) -> u64 {
        self.with(|state| state.notified.remove(&port.0).unwrap_or(0))
    }

    /// The domain dies: its grants and ports are gone, what is mapped stays till it is unmapped.
    pub fn destroy(self) {
        self.xen.0.domains.borrow_mut().remove(&self.id);
    }
}
