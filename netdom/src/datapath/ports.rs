//! The ports of the switch: guests and NICs in one table, by their numbers. Floor 3.

use super::bond_port::BondPort;
use super::guest::GuestPort;
use super::nic_port::NicPort;
use super::queue::Queue;
use super::{NICS, QueueId, VifId};
use crate::netback::violation::Violation;
use crate::statistics::DropCause;
use crate::switch::PortId;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

/// What is behind a port.
pub(crate) enum PortKind<H: Hypervisor> {
    /// A guest's interface.
    Guest(Box<GuestPort<H>>),
    /// A NIC, and the wire behind it.
    Nic(Box<NicPort>),
    /// Several NICs that are one port: theirs are none of the switch.
    Bond(Box<BondPort>),
    /// The router of this domain: see [`super::routing`].
    Router,
}

struct Port<H: Hypervisor> {
    generation: u32,
    kind: PortKind<H>,
}

/// All ports, and which of them are to be served.
pub(crate) struct Ports<H: Hypervisor> {
    table: Vec<Option<Port<H>>>,
    generation: u32,
    /// The ports of the NICs, by the NICs' numbers.
    nics: [Option<PortId>; NICS as usize],
    /// The ports of the bonds.
    pub(super) bonds: Vec<PortId>,
    /// The number of the NIC whose frames are taken first the next time.
    first_nic: u16,
    /// Guests to be served: see `schedule`.
    pub(super) ready: VecDeque<PortId>,
    /// When timers are to be looked at.
    pub(super) wake: Option<Instant>,
    /// Queues whose frontends are to be notified: see `signal`.
    pub(super) unnotified: Vec<QueueId>,
    /// Pages in all backlogs.
    pub(super) held_pages: usize,
    /// Guests that broke the protocol, not yet reported.
    pub(super) failed: VecDeque<(VifId, Violation)>,
}

impl<H: Hypervisor> Default for Ports<H> {
    fn default() -> Self {
        Self {
            table: Vec::new(),
            generation: 0,
            nics: [None; NICS as usize],
            bonds: Vec::new(),
            first_nic: 0,
            ready: VecDeque::new(),
            wake: None,
            unnotified: Vec::new(),
            held_pages: 0,
            failed: VecDeque::new(),
        }
    }
}

impl<H: Hypervisor> Ports<H> {
    /// What is behind a port.
    pub(crate) fn get(&self, id: PortId) -> Option<&PortKind<H>> {
        self.table.get(id.index())?.as_ref().map(|port| &port.kind)
    }

    /// What is behind a port.
    pub(crate) fn get_mut(&mut self, id: PortId) -> Option<&mut PortKind<H>> {
        self.table.get_mut(id.index())?.as_mut().map(|port| &mut port.kind)
    }

    /// The guest behind a port.
    pub(crate) fn guest(&self, id: PortId) -> Option<&GuestPort<H>> {
        match self.get(id)? {
            PortKind::Guest(guest) => Some(guest),
            _ => None,
        }
    }

    /// The guest behind a port.
    pub(crate) fn guest_mut(&mut self, id: PortId) -> Option<&mut GuestPort<H>> {
        match self.get_mut(id)? {
            PortKind::Guest(guest) => Some(guest),
            _ => None,
        }
    }

    /// A queue of a guest.
    pub(crate) fn queue_mut(&mut self, id: QueueId) -> Option<&mut Queue<H>> {
        self.guest_mut(id.port)?.queues.get_mut(usize::from(id.queue))
    }

    /// The guest that this is the name of.
    pub(crate) fn named(&self, id: VifId) -> Option<&GuestPort<H>> {
        let port = self.table.get(id.port.index())?.as_ref().filter(|port| port.generation == id.generation)?;
        match &port.kind {
            PortKind::Guest(guest) => Some(guest),
            _ => None,
        }
    }

    /// The guest that this is the name of.
    pub(crate) fn named_mut(&mut self, id: VifId) -> Option<&mut GuestPort<H>> {
        self.named(id)?;
        self.guest_mut(id.port)
    }

    /// The NIC behind a port.
    pub(crate) fn nic_mut(&mut self, id: PortId) -> Option<&mut NicPort> {
        match self.get_mut(id)? {
            PortKind::Nic(nic) => Some(nic),
            _ => None,
        }
    }

    /// Whether the router is behind a port.
    pub(crate) fn is_router(&self, id: PortId) -> bool {
        matches!(self.get(id), Some(PortKind::Router))
    }

    /// Whether a NIC is behind a port.
    pub(crate) fn is_nic(&self, id: PortId) -> bool {
        matches!(self.get(id), Some(PortKind::Nic(_)))
    }

    /// Whether the wire is behind a port: a NIC, or several.
    pub(crate) fn is_wire(&self, id: PortId) -> bool {
        matches!(self.get(id), Some(PortKind::Nic(_) | PortKind::Bond(_)))
    }

    /// Whether a guest and a NIC are on one bridge.
    pub(crate) fn share_bridge(&self, guest: PortId, nic: PortId) -> bool {
        matches!((self.guest(guest), self.get(nic)), (Some(guest), Some(PortKind::Nic(nic))) if guest.vif.config.bridge == nic.bridge)
    }

    /// Has the NICs of a bridge take tags out of frames received from the bridge's first port with a native VLAN on, which gets them so. They go on when the last
    /// one leaves: a change costs the frames in the receive rings, and a NIC of the e1000e family would send packets without the tag that they are
    /// to have (see [`crate::nic::Nic::set_vlan_stripping`]).
    pub(super) fn begin_vlan_stripping(&mut self, bridge: &str) {
        let kinds = self.table.iter().flatten().map(|port| &port.kind);
        let mut guests = kinds.filter_map(|kind| match kind {
            PortKind::Guest(guest) => Some(&guest.vif.config),
            _ => None,
        });
        if guests.any(|config| config.vlans.native().is_some() && config.bridge == bridge) {
            self.for_each_nic(|nic| {
                if nic.bridge == bridge {
                    nic.set_vlan_stripping(true);
                }
            });
        }
    }

    /// The port of the NIC with this number.
    pub(crate) fn nic_port(&self, number: u16) -> Option<PortId> {
        *self.nics.get(usize::from(number))?
    }

    /// The NIC with this number.
    pub(crate) fn numbered_mut(&mut self, number: u16) -> Option<&mut NicPort> {
        self.nic_mut(self.nic_port(number)?)
    }

    /// A number for another NIC.
    pub(crate) fn free_nic_number(&self) -> Option<u16> {
        (0..NICS).zip(&self.nics).find(|(_, port)| port.is_none()).map(|(number, _)| number)
    }

    /// The ports of all NICs, by their numbers.
    pub(crate) fn nics(&self) -> impl Iterator<Item = PortId> + use<H> {
        self.nics.into_iter().flatten()
    }

    /// The ports of all NICs, beginning with another one each time.
    pub(super) fn nics_in_turn(&mut self) -> impl Iterator<Item = PortId> + use<H> {
        let (first, nics) = (self.first_nic, self.nics);
        let there = |number: &u16| nics.get(usize::from(*number)).is_some_and(Option::is_some);
        self.first_nic = (first + 1..NICS).chain(0..=first).find(there).unwrap_or_default();
        let (before, from) = nics.split_at_checked(first.into()).unwrap_or_default();
        let mut turns = heapless::Vec::<PortId, { NICS as usize }>::new();
        turns.extend(from.iter().chain(before).copied().flatten());
        turns.into_iter()
    }

    /// Calls `act` with each NIC.
    pub(super) fn for_each_nic(&mut self, mut act: impl FnMut(&mut NicPort)) {
        for port in self.nics() {
            if let Some(nic) = self.nic_mut(port) {
                act(nic);
            }
        }
    }

    /// The number that [`Self::insert`] will give; `None` where there are 65,536 ports.
    pub(crate) fn free(&self) -> Option<PortId> {
        let index = self.table.iter().position(Option::is_none).unwrap_or(self.table.len());
        u16::try_from(index).ok().map(PortId)
    }

    /// Adds a guest at a free place.
    pub(crate) fn insert_guest(&mut self, port: PortId, guest: Box<GuestPort<H>>) -> VifId {
        self.insert(port, PortKind::Guest(guest));
        VifId { port, generation: self.generation }
    }

    /// Adds a NIC at a free place, with a free number.
    pub(crate) fn insert_nic(&mut self, port: PortId, number: u16, nic: Box<NicPort>) {
        self.insert(port, PortKind::Nic(nic));
        if let Some(place) = self.nics.get_mut(usize::from(number)) {
            *place = Some(port);
        }
    }

    /// Adds a bond at a free place.
    pub(super) fn insert_bond(&mut self, port: PortId, bond: Box<BondPort>) {
        self.insert(port, PortKind::Bond(bond));
        self.bonds.push(port);
    }

    /// Adds a port of the router at a free place.
    pub(crate) fn insert_router(&mut self, port: PortId) {
        self.insert(port, PortKind::Router);
    }

    /// Takes away a port of the router.
    pub(crate) fn remove_router(&mut self, port: PortId) {
        if self.is_router(port)
            && let Some(place) = self.table.get_mut(port.index())
        {
            *place = None;
        }
    }

    fn insert(&mut self, port: PortId, kind: PortKind<H>) {
        self.generation = self.generation.wrapping_add(1);
        if self.table.len() <= port.index() {
            self.table.resize_with(port.index() + 1, || None);
        }
        if let Some(place) = self.table.get_mut(port.index()) {
            *place = Some(Port { generation: self.generation, kind });
        }
    }

    /// Takes away a guest.
    pub(crate) fn remove_guest(&mut self, id: VifId) -> Option<Box<GuestPort<H>>> {
        self.named(id)?;
        let PortKind::Guest(guest) = self.table.get_mut(id.port.index())?.take()?.kind else {
            return None;
        };
        self.ready.retain(|port| *port != id.port);
        self.unnotified.retain(|queue| queue.port != id.port);
        self.held_pages = self.held_pages.saturating_sub(guest.held_pages);
        Some(guest)
    }

    /// Takes away the NIC with this number.
    pub(crate) fn remove_nic(&mut self, number: u16) -> Option<(PortId, Box<NicPort>)> {
        let port = self.nics.get_mut(usize::from(number))?.take()?;
        match self.table.get_mut(port.index())?.take()?.kind {
            PortKind::Nic(nic) => Some((port, nic)),
            _ => None,
        }
    }

    /// How many places there are: each port's number is below.
    pub(super) fn places(&self) -> u16 {
        u16::try_from(self.table.len()).unwrap_or(u16::MAX)
    }

    /// Counts a packet lost on its way to a port, or from it.
    pub(super) fn count_drop(&mut self, port: PortId, cause: DropCause) {
        match self.get_mut(port) {
            Some(PortKind::Guest(guest)) => guest.statistics.drop(cause),
            Some(PortKind::Nic(nic)) => nic.statistics.drop(cause),
            // Its NICs count for it.
            Some(PortKind::Bond(_)) => {
                if let Some(nic) = self.first_member(port).and_then(|member| self.nic_mut(member)) {
                    nic.statistics.drop(cause);
                }
            }
            Some(PortKind::Router) | None => {}
        }
    }

    /// Ends all service of a guest that broke the protocol. Its port leaves the switch at the end of the round.
    pub(super) fn fail(&mut self, port: PortId, violation: Violation) {
        let Some(Port { generation, kind: PortKind::Guest(guest) }) =
            self.table.get_mut(port.index()).and_then(Option::as_mut)
        else {
            return;
        };
        if guest.broken {
            return;
        }
        guest.broken = true;
        self.held_pages = self.held_pages.saturating_sub(core::mem::take(&mut guest.held_pages));
        for queue in &mut guest.queues {
            while queue.backlog.discard() {}
        }
        self.failed.push_back((VifId { port, generation: *generation }, violation));
    }
}
