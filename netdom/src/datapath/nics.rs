//! The NICs as ports of the switch. Floor 3.

use super::vif::Toward;
use super::{DataPath, RETRY};
use crate::nic::{FRAME_HEADERS, Link, Nic};
use crate::offload::headers::Layout;
use crate::packet::{MAX_FRAGMENTS, Packet};
use crate::statistics::{DropCause, PortStatistics};
use crate::switch::WIRE_ENTRIES;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

/// NICs of a domain at most. Their ports of the switch are the first ones, those of vifs follow.
pub const NICS: u16 = 16;
/// Packets kept for a NIC whose ring is full: a super-frame may be cut into some dozens.
const PENDING: usize = 512;
/// Descriptors that must be free for a guest that sends to the wire to be served.
const ROOM: usize = 64;

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

/// Whether the port is one of a NIC.
pub(super) fn is_nic(port: u16) -> bool {
    port < NICS
}

/// A NIC as a port.
pub(super) struct NicPort {
    pub(super) nic: Box<dyn Nic>,
    bridge: String,
    /// Whether it has a link. Without one, nothing is given to it: on hardware it would stay in its ring.
    pub(super) up: bool,
    /// Packets that wait for room in its ring.
    pending: VecDeque<(Packet, Option<Layout>)>,
    pub(super) statistics: PortStatistics,
}

impl NicPort {
    /// The link came or went. With it goes what waited for room.
    fn set_up(&mut self, up: bool) {
        self.up = up;
        if !up {
            for _ in self.pending.drain(..) {
                self.statistics.drop(DropCause::NoLink);
            }
        }
    }

    /// Whether there is room for a packet from another NIC. Those cannot be held back as guests can, and leave room for what guests send.
    pub(super) fn has_room_for_wire(&self) -> bool {
        self.pending.is_empty() && self.nic.transmit_room() >= 2 * ROOM
    }

    /// Sends a packet behind those that wait for room, or has it wait. One that the NIC can never send is dropped.
    pub(super) fn send(&mut self, packet: Packet, layout: Option<&Layout>) {
        let packet = match self.pending.is_empty() {
            true => match self.hand_over(packet, layout) {
                Ok(()) => return,
                Err(packet) => packet,
            },
            false => packet,
        };
        if self.pending.len() >= PENDING {
            self.statistics.drop(DropCause::NicFull);
            return;
        }
        self.pending.push_back((packet, layout.copied()));
    }

    /// Gives a packet to the NIC; back where it has no room now.
    fn hand_over(&mut self, packet: Packet, layout: Option<&Layout>) -> Result<(), Packet> {
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let room = self.nic.transmit_room();
        match self.nic.transmit(packet, layout) {
            Ok(()) => {
                self.statistics.to_port.count(length);
                Ok(())
            }
            Err(_) if room > MAX_FRAGMENTS * 2 => {
                self.statistics.drop(DropCause::Unsuitable);
                Ok(())
            }
            Err(packet) => Err(packet),
        }
    }

    /// Gives the NIC what had to wait for room.
    fn send_pending(&mut self) {
        while let Some((packet, layout)) = self.pending.pop_front() {
            if let Err(packet) = self.hand_over(packet, layout.as_ref()) {
                self.pending.push_front((packet, layout));
                break;
            }
        }
    }

    /// Whether a guest that sends to it is to wait. Without a link it takes nothing, and nobody waits for it.
    fn is_full(&self) -> bool {
        self.up && (!self.pending.is_empty() || self.nic.transmit_room() < ROOM)
    }
}

/// The NICs, by the numbers of their ports.
#[derive(Default)]
pub(super) struct NicPorts {
    ports: [Option<NicPort>; NICS as usize],
    /// Whose frames are taken first the next time.
    first: u16,
    changes: VecDeque<LinkChange>,
}

impl NicPorts {
    pub(super) fn get_mut(&mut self, port: u16) -> Option<&mut NicPort> {
        self.ports.get_mut(usize::from(port))?.as_mut()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut NicPort> {
        self.ports.iter_mut().flatten()
    }

    /// Whether a guest on a bridge, whose packets go there, must wait for room at a NIC.
    pub(super) fn hold_back(&self, toward: Toward, bridge: &str) -> bool {
        let waits = |port: &NicPort| port.bridge == bridge && port.is_full();
        match toward {
            Toward::Nic(port) => self.ports.get(usize::from(port)).is_some_and(|port| port.as_ref().is_some_and(waits)),
            Toward::Unknown => self.ports.iter().flatten().any(waits),
            Toward::Vif => false,
        }
    }

    /// The NICs' ports, beginning with another one each time.
    pub(super) fn take_turns(&mut self) -> impl Iterator<Item = u16> + use<> {
        let first = self.first;
        self.first = (first + 1) % NICS;
        (first..NICS).chain(0..first)
    }

    /// Notes a change for [`DataPath::poll_link`]. It replaces an earlier one of the same NIC on the same bridge.
    fn note(&mut self, change: LinkChange) {
        self.changes.retain(|known| known.nic != change.nic || known.bridge != change.bridge);
        self.changes.push_back(change);
    }
}

impl<H: Hypervisor> DataPath<H> {
    /// Puts a NIC on a bridge, which may have others.
    ///
    /// # Errors
    /// The NIC, where there are [`NICS`] already, or 65,536 bridges.
    pub fn add_nic(&mut self, mut nic: Box<dyn Nic>, bridge: &str) -> Result<NicId, Box<dyn Nic>> {
        let free = (0..NICS).zip(&self.nics.ports).find(|(_, port)| port.is_none());
        let Some((port, _)) = free else {
            return Err(nic);
        };
        if self.switch.add(port, bridge, WIRE_ENTRIES).is_err() {
            return Err(nic);
        }
        nic.refill(&self.pool);
        let link = nic.link();
        let id = NicId(port);
        self.nics.note(LinkChange { nic: id, bridge: bridge.into(), link });
        if let Some(place) = self.nics.ports.get_mut(usize::from(port)) {
            *place = Some(NicPort {
                nic,
                bridge: bridge.into(),
                up: link != Link::Down,
                pending: VecDeque::with_capacity(64),
                statistics: PortStatistics::default(),
            });
        }
        Ok(id)
    }

    /// Takes a NIC off its bridge, stopped. The bridge has lost that link to the wire.
    pub fn remove_nic(&mut self, id: NicId) -> Option<Box<dyn Nic>> {
        let mut port = self.nics.ports.get_mut(usize::from(id.0))?.take()?;
        self.switch.remove(id.0);
        port.nic.quiesce();
        self.nics.note(LinkChange { nic: id, bridge: port.bridge, link: Link::Down });
        Some(port.nic)
    }

    /// A NIC, for what is not on the path of packets.
    pub fn nic(&mut self, id: NicId) -> Option<&mut dyn Nic> {
        self.nics.get_mut(id.0).map(|port| &mut *port.nic as &mut dyn Nic)
    }

    /// Bytes of the largest IP packet that all NICs of a bridge carry; none where it has no NIC.
    pub fn mtu(&self, bridge: &str) -> Option<usize> {
        let ports = self.nics.ports.iter().flatten().filter(|port| port.bridge == bridge);
        ports.map(|port| port.nic.capabilities().max_frame.saturating_sub(FRAME_HEADERS)).min()
    }

    /// The NIC raised its interrupt. The next [`Self::poll`] looks for frames.
    pub fn handle_interrupt(&mut self, id: NicId, vector: usize) {
        let Some(port) = self.nics.get_mut(id.0) else {
            return;
        };
        if port.nic.handle_interrupt(vector).link {
            let link = port.nic.link();
            port.set_up(link != Link::Down);
            let change = LinkChange { nic: id, bridge: port.bridge.clone(), link };
            self.nics.note(change);
        }
    }

    /// The next link that changed: for the `carrier` nodes.
    pub fn poll_link(&mut self) -> Option<LinkChange> {
        self.nics.changes.pop_front()
    }

    /// The counters of a NIC's port.
    pub fn nic_statistics(&self, id: NicId) -> Option<PortStatistics> {
        let port = self.nics.ports.get(usize::from(id.0))?.as_ref()?;
        Some(port.statistics)
    }

    /// Gives the NICs' sent buffers back, and the NICs what had to wait for room.
    pub(super) fn reclaim(&mut self) {
        for port in self.nics.iter_mut() {
            port.nic.reclaim();
            port.send_pending();
        }
    }

    /// Enables the NICs' interrupts; true where one has something for another round instead.
    pub(super) fn enable_nic_interrupts(&mut self, now: Instant) -> bool {
        let (mut again, mut waits) = (false, false);
        for port in self.nics.iter_mut() {
            // Sent packets need an interrupt only where somebody waits for room; the timer is for NICs that are late with it.
            let waiting = !port.pending.is_empty();
            again |= port.nic.enable_interrupts(waiting);
            waits |= waiting;
        }
        if waits {
            self.wake_at(now + RETRY);
        }
        again
    }
}
