//! What a backend asks of the hypervisor. Traits only. Floor 1.

use crate::memory::{DeviceAddress, SharedMemory};
use alloc::vec::Vec;
use xen_pv_sys::errno::{ENOMEM, ENOSPC};
use xen_pv_sys::grant_table::GrantCopy;
use xen_pv_sys::grant_table::{GNTST_NO_DEVICE_SPACE, GNTST_NO_SPACE};
use xen_pv_sys::{DomainId, GrantRef, Port};

/// A refusal of the hypervisor: a positive `errno.h` number, or a `GNTST_*` status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XenError {
    /// A hypercall returned `-errno`.
    Errno(u16),
    /// A grant operation's status (negative, `grant_table.h`).
    Grant(i16),
    /// The local domain has no memory, ports or mapping slots left.
    Exhausted,
}

impl XenError {
    /// Whether the local domain or Xen lacks something, so that the other end is not to blame: memory, ports, mapping slots.
    pub const fn is_shortage(self) -> bool {
        match self {
            Self::Exhausted => true,
            Self::Errno(error) => matches!(error, ENOMEM | ENOSPC),
            Self::Grant(status) => matches!(status, GNTST_NO_DEVICE_SPACE | GNTST_NO_SPACE),
        }
    }
}

impl core::fmt::Display for XenError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Errno(value) => write!(formatter, "Xen refused with errno {value}"),
            Self::Grant(value) => write!(formatter, "grant status {value}"),
            Self::Exhausted => formatter.write_str("no memory, ports or mapping slots are left"),
        }
    }
}

impl core::error::Error for XenError {}

/// An event channel, bound; closed by `Drop`.
pub trait EventChannel {
    /// The local port.
    fn port(&self) -> Port;
    /// Sends an event to the other end.
    fn notify(&self);
    /// Lets the next event through. A channel is masked from the moment its event is delivered until this is called
    /// (late acknowledgement), so a storm costs its sender's peer one delivery per call. An event that came meanwhile is delivered.
    fn unmask(&self);
}

/// The hypervisor as a backend sees it. All methods take `&self`: implementations are single-threaded and share freely.
pub trait Hypervisor {
    /// Ring pages of a frontend, mapped and contiguous; unmapped by `Drop`.
    type Ring: SharedMemory;
    /// A bound event channel. Its events are delivered to the one data-path task as port numbers.
    type Channel: EventChannel;

    /// Maps ring pages that `domain` granted, writable, in the order given.
    ///
    /// # Errors
    /// The grant status, or [`XenError::Exhausted`].
    fn map_ring(&self, domain: DomainId, references: &[GrantRef]) -> Result<Self::Ring, XenError>;

    /// Binds to the unbound channel `remote` that `domain` allocated for us. The channel starts unmasked.
    ///
    /// # Errors
    /// The errno of `EVTCHNOP_bind_interdomain`.
    fn bind_interdomain(&self, domain: DomainId, remote: Port) -> Result<Self::Channel, XenError>;

    /// `GNTTABOP_copy` of the whole batch in one hypercall (several where Xen asks for it, or a status says "again");
    /// every element's `status` is set on return, also where the hypercall itself failed.
    fn grant_copy(&self, batch: &mut [GrantCopy]);

    /// Bytes that all allocations of this domain take, where they are counted.
    fn memory_in_use(&self) -> Option<usize> {
        None
    }
}

/// A hypervisor of a domain that begins anew inside itself: what was mapped and bound then is there still.
pub trait Adopt: Hypervisor {
    /// Where a mapping lies: the same from life to life.
    fn place(&self, ring: &Self::Ring) -> [u32; 2];

    /// What an earlier life mapped at a place; `None` where it is not there, or has been taken over already.
    fn adopt_ring(&self, place: [u32; 2]) -> Option<Self::Ring>;

    /// A channel that an earlier life bound. Events that came since then are delivered once it is unmasked.
    fn adopt_channel(&self, port: Port) -> Self::Channel;
}

/// A page of a peer that a device of ours reads, or writes, by DMA. Given back by [`DeviceMapping::unmap_for_device`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "it stays mapped until it is given back"]
pub struct DevicePage {
    /// Xen's name of the mapping.
    pub handle: u32,
    /// Where the device finds its first byte.
    pub address: DeviceAddress,
    /// The device may only read it.
    pub read_only: bool,
}

impl DevicePage {
    /// What Xen answered to a mapping for devices: its handle, and the bus address of the page.
    pub const fn new(handle: u32, bus_address: u64, read_only: bool) -> Self {
        Self { handle, address: DeviceAddress::of_mapping(bus_address), read_only }
    }
}

/// An element of a batch of [`DeviceMapping::map_for_device`].
#[derive(Debug)]
pub struct DeviceMap {
    /// What the peer granted.
    pub reference: GrantRef,
    /// Whether the device is to read it only.
    pub read_only: bool,
    /// Out.
    pub result: Result<DevicePage, XenError>,
}

impl DeviceMap {
    /// An element still to be mapped.
    pub const fn new(reference: GrantRef, read_only: bool) -> Self {
        Self { reference, read_only, result: Err(XenError::Exhausted) }
    }
}

/// Grants as memory of a device: what the CPU never touches needs no address here. Only where the domain has a device behind an
/// IOMMU (or there is none) does the device reach such pages.
pub trait DeviceMapping {
    /// Maps what `domain` granted (`GNTMAP_device_map` alone), the whole batch in one hypercall; each element's `result` is set on return.
    fn map_for_device(&self, domain: DomainId, batch: &mut [DeviceMap]);

    /// Unmaps the pages, all in one hypercall. No device may be using one of them.
    fn unmap_for_device(&self, pages: &mut Vec<DevicePage>);
}
