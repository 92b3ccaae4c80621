//! Event channels of the two-level ABI. Floor 2.

use alloc::vec::Vec;
use split_driver::hypervisor::{EventChannel, XenError};
use xen_pv_sys::{DomainId, Port};

/// A bound event channel; closed by `Drop`. It starts unmasked, and is masked from the moment an event is delivered until the next
/// [`Channel::wait`] or [`Channel::unmask`].
#[derive(Debug)]
pub struct Channel(Port);

impl Channel {
    /// The local port.
    pub fn port(&self) -> Port {
        self.0
    }
    /// Sends an event to the other end.
    pub fn notify(&self) {
        todo!()
    }
    /// Lets the next event through; one that came meanwhile is delivered. Ends the interrupt where the channel is a physical one
    /// that needs it.
    pub fn unmask(&self) {
        todo!()
    }
    /// Waits for the next event; returns at once where one came since the last wait. One task at a time.
    pub async fn wait(&self) {
        todo!()
    }
}

impl EventChannel for Channel {
    fn port(&self) -> Port {
        Channel::port(self)
    }
    fn notify(&self) {
        Channel::notify(self);
    }
    fn unmask(&self) {
        Channel::unmask(self);
    }
}

/// A channel for `remote` to bind to (`EVTCHNOP_alloc_unbound`).
///
/// # Errors
/// The errno of the hypercall.
pub fn alloc_unbound(remote: DomainId) -> Result<Channel, XenError> {
    let _ = remote;
    todo!()
}

/// Binds to the unbound channel `port` of `domain` (`EVTCHNOP_bind_interdomain`).
///
/// # Errors
/// The errno of the hypercall.
pub fn bind_interdomain(domain: DomainId, port: Port) -> Result<Channel, XenError> {
    let _ = (domain, port);
    todo!()
}

/// Takes over a port that the toolstack bound (console, xenstore).
pub fn adopt(port: Port) -> Channel {
    Channel(port)
}

/// Binds a virtual interrupt to the one vCPU (`EVTCHNOP_bind_virq`).
///
/// # Errors
/// The errno of the hypercall.
pub fn bind_virq(virq: u32) -> Result<Channel, XenError> {
    let _ = virq;
    todo!()
}

/// Binds a physical interrupt (`EVTCHNOP_bind_pirq`). [`Channel::unmask`] ends the interrupt where Xen asks for it.
///
/// # Errors
/// The errno of the hypercall.
pub fn bind_pirq(pirq: u32, shareable: bool) -> Result<Channel, XenError> {
    let _ = (pirq, shareable);
    todo!()
}

/// Channels whose events are delivered to one task, as a list of ports. A clone is another handle to the same set.
#[derive(Clone, Debug, Default)]
pub struct EventSet;

impl EventSet {
    /// An empty set.
    pub fn new() -> Self {
        Self
    }
    /// Delivers the channel's events to this set from now on, until the channel is dropped.
    pub fn add(&self, channel: &Channel) {
        let _ = channel;
        todo!()
    }
    /// Waits for events, and appends their ports to `into`. Each port comes once, and again only after its `unmask`.
    pub async fn next(&self, into: &mut Vec<Port>) {
        let _ = into;
        todo!()
    }
    /// Appends the ports of the events that are there, also those that came since the executor last looked. Never waits.
    pub fn take(&self, into: &mut Vec<Port>) {
        let _ = into;
        todo!()
    }
}
