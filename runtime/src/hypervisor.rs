//! `split_driver::hypervisor::Hypervisor` on the real Xen. Safe code only. Floor 2.

use crate::events::{self, Channel, EventSet};
use crate::grants::{self, GrantMapping, Place};
use crate::memory::{self, KeptFrame};
use alloc::vec::Vec;
use split_driver::hypervisor::{Adopt, DeviceMap, DeviceMapping, DevicePage, Hypervisor, XenError};
use split_driver::kept::Keep;
use split_driver::memory::OutOfMemory;
use xen_pv_sys::grant_table::GrantCopy;
use xen_pv_sys::{DomainId, GrantRef, Port};

/// The hypervisor under this domain. Channels that it binds deliver to its [`EventSet`].
#[derive(Clone, Debug, Default)]
pub struct Xen {
    events: EventSet,
}

impl Xen {
    /// With an event set of its own.
    pub fn new() -> Self {
        Self::default()
    }
    /// Where the events of the channels bound through this handle arrive.
    pub fn events(&self) -> &EventSet {
        &self.events
    }
}

impl Hypervisor for Xen {
    type Ring = GrantMapping;
    type Channel = Channel;

    fn map_ring(&self, domain: DomainId, references: &[GrantRef]) -> Result<GrantMapping, XenError> {
        grants::map(domain, references)
    }

    fn bind_interdomain(&self, domain: DomainId, remote: Port) -> Result<Channel, XenError> {
        let channel = events::bind_interdomain(domain, remote)?;
        self.events.add(&channel);
        Ok(channel)
    }

    fn grant_copy(&self, batch: &mut [GrantCopy]) {
        grants::copy(batch);
    }

    fn memory_in_use(&self) -> Option<usize> {
        Some(memory::usage().heap_bytes)
    }
}

impl Adopt for Xen {
    fn place(&self, ring: &GrantMapping) -> [u32; 2] {
        let Place { first, pages } = ring.place();
        [first, pages]
    }

    fn adopt_ring(&self, [first, pages]: [u32; 2]) -> Option<GrantMapping> {
        grants::adopt_mapping(Place { first, pages })
    }

    fn adopt_channel(&self, port: Port) -> Channel {
        let channel = events::adopt(port);
        self.events.add(&channel);
        channel
    }
}

impl DeviceMapping for Xen {
    fn map_for_device(&self, domain: DomainId, batch: &mut [DeviceMap]) {
        grants::map_for_device(domain, batch);
    }

    fn unmap_for_device(&self, pages: &mut Vec<DevicePage>) {
        grants::unmap_for_device(pages);
    }
}

impl Keep for Xen {
    type Page = KeptFrame;

    fn keep_page(&self) -> Result<KeptFrame, OutOfMemory> {
        KeptFrame::new()
    }

    fn inherit_page(&self, first: &[u32]) -> Option<KeptFrame> {
        KeptFrame::inherit(first)
    }
}
