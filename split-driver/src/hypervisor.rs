//! What a backend asks of the hypervisor. Traits only. Floor 1.

use crate::memory::SharedMemory;
use xen_pv_sys::grant_table::GrantCopy;
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
}
