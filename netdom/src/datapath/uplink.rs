//! The router's way out: the frames that the router sends of itself, and its lease. Floor 3.
//!
//! Where there is no router, that costs nothing.

use super::forwarder::Forwarder;
use super::ports::Ports;
use super::round::Round;
use super::routing::answer;
use super::{DataPath, LinkChange};
use crate::nic::Link;
use crate::packet::Pool;
use crate::router::config::Network;
use crate::router::dhcp::client::Lease;
use crate::router::{Counts, Router};
use crate::switch::PortId;
use alloc::string::String;
use alloc::vec::Vec;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

/// The lease of the router's own address, where that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseChange {
    /// The bridge of the way out.
    pub bridge: String,
    /// The lease; none where it is over.
    pub lease: Option<Lease>,
}

/// What the router is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterStatistics {
    /// Its packets.
    pub counts: Counts,
    /// Sessions in use, where there is a way out.
    pub sessions: Option<usize>,
    /// Leases in use on each bridge without a NIC that has a DHCP server.
    pub leases: Vec<(String, usize)>,
    /// The way out, where there is one.
    pub uplink: Option<Uplink>,
}

/// The way out, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its bridge.
    pub bridge: String,
    /// The router's own address there, where it has one.
    pub address: Option<Network>,
    /// The lease, where the address is by DHCP.
    pub lease: Option<Lease>,
}

/// Has the router say what is due.
pub(super) fn poll<H: Hypervisor>(
    ports: &mut Ports<H>,
    forwarder: &mut Forwarder,
    round: &mut Round,
    pool: &Pool,
    now: Instant,
) {
    let Some(router) = &mut forwarder.router else {
        return;
    };
    while let Some((port, bytes)) = router.poll(now) {
        answer(ports, round, pool, port, bytes);
    }
}

/// Has the path polled when the router has something to say.
pub(super) fn wake<H: Hypervisor>(ports: &mut Ports<H>, forwarder: &Forwarder) {
    if let Some(deadline) = forwarder.router.as_ref().and_then(|router| router.deadline()) {
        ports.wake_at(deadline);
    }
}

impl<H: Hypervisor> DataPath<H> {
    /// A NIC is there, or its link changed: where it is on the bridge of the way out, the router hears of it.
    pub(super) fn note_wire(&mut self, change: &LinkChange) {
        let (Some(router), Some(nic)) = (&mut self.forwarder.router, self.ports.numbered_mut(change.nic.number()))
        else {
            return;
        };
        let bridge = router.uplink().and_then(|port| self.forwarder.switch.bridge(port));
        if bridge == Some(&change.bridge) {
            let new = router.note_wire(nic.nic.mac_address(), change.link != Link::Down, self.now);
            if new.is_some() {
                self.pin_uplink();
            }
        }
    }

    /// Has the switch know the router's Ethernet address on the way out.
    pub(super) fn pin_uplink(&mut self) {
        let router = self.forwarder.router.as_ref().filter(|router| router.is_by_dhcp());
        if let Some((port, mac)) = router.and_then(|router| Some((router.uplink()?, router.station_of_uplink()?))) {
            self.forwarder.switch.pin(port, mac);
        }
    }

    /// The lease of the router's own address, where that changed since this was asked last: for the log.
    pub fn poll_lease(&mut self) -> Option<LeaseChange> {
        let router = self.forwarder.router.as_mut()?;
        let lease = router.poll_lease()?;
        let bridge = self.forwarder.switch.bridge(router.uplink()?)?;
        Some(LeaseChange { bridge: bridge.into(), lease })
    }

    /// What the router is doing, where there is one.
    pub fn router_statistics(&self) -> Option<RouterStatistics> {
        let router: &Router = self.forwarder.router.as_ref()?;
        let bridge = |port| self.forwarder.switch.bridge(port).map(String::from);
        let ports = (0..self.ports.places()).map(PortId);
        let leases = ports.filter_map(|port| Some((bridge(port)?, router.leases(port, self.now)?)));
        let uplink = router.uplink().and_then(|port| {
            let (address, lease) = (router.address(), router.lease().cloned());
            Some(Uplink { bridge: bridge(port)?, address, lease })
        });
        Some(RouterStatistics {
            counts: *router.counts(),
            sessions: router.sessions(),
            leases: leases.collect(),
            uplink,
        })
    }
}
