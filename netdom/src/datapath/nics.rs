//! The data path's NICs, beside the packets: where they are, their links, their faults; and when they interrupt. Floor 3.

use super::bond_port::Membership;
use super::nic_port::NicPort;
use super::ports::{PortKind, Ports};
use super::{DataPath, RETRY};
use crate::nic::{self, Delay, FRAME_HEADERS, Fault, Link, Nic};
use crate::packet::Pool;
use crate::policy::multicast::Behind;
use crate::statistics::PortStatistics;
use crate::switch::{Vlans, WIRE_ENTRIES};
use alloc::boxed::Box;
use alloc::string::String;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

/// NICs of a domain at most.
pub const NICS: u16 = 16;

/// Names a NIC from [`DataPath::add_nic`] to [`DataPath::remove_nic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NicId(u16);

impl NicId {
    /// Its number, below [`NICS`].
    pub fn number(self) -> u16 {
        self.0
    }
}

/// A NIC's link, where it changed. A NIC that is taken away has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkChange {
    /// Which NIC.
    pub nic: NicId,
    /// The bridge that it is on, or was on.
    pub bridge: String,
    /// The link now.
    pub link: Link,
}

impl<H: Hypervisor> DataPath<H> {
    /// Puts a NIC on a bridge, which may have others.
    ///
    /// # Errors
    /// The NIC, where there are [`NICS`] already, or 65,536 bridges.
    pub fn add_nic(&mut self, nic: Box<dyn Nic>, bridge: &str) -> Result<NicId, Box<dyn Nic>> {
        self.insert_nic(nic, bridge, None)
    }

    /// Adds a NIC, as a port of the switch or as a member of a bond.
    ///
    /// # Errors
    /// As [`Self::add_nic`].
    pub(super) fn insert_nic(
        &mut self,
        nic: Box<dyn Nic>,
        bridge: &str,
        member: Option<Membership>,
    ) -> Result<NicId, Box<dyn Nic>> {
        let (Some(number), Some(port)) = (self.ports.free_nic_number(), self.ports.free()) else {
            return Err(nic);
        };
        let all = (Vlans::TRUNK, WIRE_ENTRIES);
        if member.is_none() && self.forwarder.add_port(port, bridge, all, Behind::Wire, self.now).is_err() {
            return Err(nic);
        }
        let mut nic = NicPort::new(nic, bridge, &self.pool, &self.held);
        nic.member = member;
        let change = LinkChange { nic: NicId(number), bridge: bridge.into(), link: nic.nic.link() };
        self.ports.insert_nic(port, number, Box::new(nic));
        self.ports.begin_vlan_stripping(bridge);
        self.note_link(change);
        Ok(NicId(number))
    }

    /// Takes a NIC off its bridge, stopped. The bridge has lost that link to the wire.
    pub fn remove_nic(&mut self, id: NicId) -> Option<Box<dyn Nic>> {
        let (port, nic) = self.ports.remove_nic(id.0)?;
        let NicPort { mut nic, bridge, member, .. } = *nic;
        self.forwarder.remove_port(port);
        nic.quiesce();
        if let Some(member) = member {
            self.remove_member(member);
        }
        self.note_link(LinkChange { nic: id, bridge, link: Link::Down });
        Some(nic)
    }

    /// Notes a change for [`Self::poll_link`]. It replaces an earlier one of the same NIC on the same bridge.
    fn note_link(&mut self, change: LinkChange) {
        self.note_wire(&change);
        self.link_changes.retain(|known| known.nic != change.nic || known.bridge != change.bridge);
        self.link_changes.push_back(change);
    }

    /// A NIC, for what is not on the path of packets.
    pub fn nic(&mut self, id: NicId) -> Option<&mut dyn Nic> {
        self.ports.numbered_mut(id.0).map(|port| &mut *port.nic as &mut dyn Nic)
    }

    /// Bytes of the largest IP packet that all NICs of a bridge carry; none where it has no NIC.
    pub fn mtu(&self, bridge: &str) -> Option<usize> {
        let nics = self.ports.nics().filter_map(|port| match self.ports.get(port)? {
            PortKind::Nic(nic) if nic.bridge == bridge => Some(nic),
            _ => None,
        });
        nics.map(|nic| nic.nic.capabilities().max_frame.saturating_sub(FRAME_HEADERS)).min()
    }

    /// The NIC raised its interrupt. The next [`Self::poll`] looks for frames.
    pub fn handle_interrupt(&mut self, id: NicId, vector: usize) {
        let Some(port) = self.ports.numbered_mut(id.0) else {
            return;
        };
        let causes = port.nic.handle_interrupt(vector);
        if let Some(fault) = causes.fault {
            port.fault.get_or_insert(fault);
        }
        if causes.link {
            let link = port.nic.link();
            port.set_up(link != Link::Down);
            let change = LinkChange { nic: id, bridge: port.bridge.clone(), link };
            self.note_link(change);
            self.note_member(id, true);
        }
    }

    /// The next link that changed: for the `carrier` nodes.
    pub fn poll_link(&mut self) -> Option<LinkChange> {
        self.link_changes.pop_front()
    }

    /// The counters of a NIC's port.
    pub fn nic_statistics(&self, id: NicId) -> Option<PortStatistics> {
        match self.ports.get(self.ports.nic_port(id.0)?)? {
            PortKind::Nic(nic) => Some(nic.statistics),
            _ => None,
        }
    }

    /// Whether a NIC has a link, as far as its interrupts and [`Self::watch`] told.
    pub fn nic_is_up(&self, id: NicId) -> Option<bool> {
        match self.ports.get(self.ports.nic_port(id.0)?)? {
            PortKind::Nic(nic) => Some(nic.up),
            _ => None,
        }
    }

    /// What a NIC no longer does, by its own word or because nothing is sent. To be asked about once a second.
    pub fn watch(&mut self, id: NicId, now: Instant, delay: Delay<'_>) -> Option<Fault> {
        self.now = now;
        let port = self.ports.numbered_mut(id.0)?;
        let fault = port.fault.take().or_else(|| port.nic.watch(now, delay));
        // An interrupt may have been lost.
        let link = port.nic.link();
        if port.up != (link != Link::Down) {
            port.set_up(link != Link::Down);
            let change = LinkChange { nic: id, bridge: port.bridge.clone(), link };
            self.note_link(change);
            self.note_member(id, true);
        }
        fault
    }

    /// When a NIC is to be watched again, where that is before the second is over.
    pub fn next_look(&self, id: NicId) -> Option<Instant> {
        match self.ports.get(self.ports.nic_port(id.0)?)? {
            PortKind::Nic(port) => port.nic.next_look(),
            _ => None,
        }
    }

    /// Resets a NIC and starts it anew; what was in its rings is lost.
    ///
    /// # Errors
    /// Why it can no longer be used; it is to be taken off its bridge.
    pub fn restart_nic(&mut self, id: NicId, delay: Delay<'_>) -> Result<(), nic::Error> {
        let Some(port) = self.ports.numbered_mut(id.0) else {
            return Ok(());
        };
        let result = port.nic.restart(delay);
        let link = port.nic.link();
        port.set_up(result.is_ok() && link != Link::Down);
        let change = LinkChange { nic: id, bridge: port.bridge.clone(), link };
        self.note_link(change);
        self.note_member(id, true);
        result
    }
}

/// Gives the NICs' sent buffers back, and the NICs the packets that had to wait for room.
pub(super) fn reclaim<H: Hypervisor>(ports: &mut Ports<H>, pool: &Pool) {
    ports.for_each_nic(|nic| {
        nic.reclaim();
        // Before guests take pages for what they send.
        nic.refill(pool);
    });
}

/// Enables the NICs' interrupts; true where one has something for another round instead.
pub(super) fn enable_interrupts<H: Hypervisor>(ports: &mut Ports<H>, now: Instant) -> bool {
    let (mut again, mut waits) = (false, false);
    ports.for_each_nic(|nic| {
        let (more, waiting) = nic.arm();
        again |= more;
        waits |= waiting;
    });
    if waits {
        ports.wake_at(now + RETRY);
    }
    again
}
