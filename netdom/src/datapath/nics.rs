//! The NICs as ports of the switch. Floor 3.

use super::vif::Toward;
use super::{DataPath, QueueId, RETRY};
use crate::nic::{self, Delay, FRAME_HEADERS, Fault, Link, Nic};
use crate::offload::headers::Layout;
use crate::packet::{MAX_FRAGMENTS, Packet, Pool};
use crate::statistics::{DropCause, PortStatistics};
use crate::switch::WIRE_ENTRIES;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

/// NICs of a domain at most. Their ports of the switch are the first ones, those of vifs follow.
pub const NICS: u16 = 16;
/// Packets kept for a queue of a NIC whose ring is full: a super-frame may be cut into some dozens.
const PENDING: usize = 512;
/// The part of all pages that packets kept for one NIC may hold.
const PENDING_SHARE: usize = 8;
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

/// Packets that wait for room in a queue's ring, and where their headers lie.
type Pending = VecDeque<(Packet, Option<Layout>)>;

/// A NIC as a port.
pub(super) struct NicPort {
    pub(super) nic: Box<dyn Nic>,
    bridge: String,
    /// Whether it has a link. Without one, nothing is given to it: on hardware it would stay in its ring.
    pub(super) up: bool,
    /// By its queues, one at least.
    pending: Vec<Pending>,
    /// Pages that they hold, and how many they may begin to.
    pending_pages: usize,
    pending_limit: usize,
    /// Whose frames are taken first the next time.
    first_queue: usize,
    /// What it said that it no longer does.
    fault: Option<Fault>,
    pub(super) statistics: PortStatistics,
}

impl NicPort {
    /// The link came or went. With it goes what waited for room.
    fn set_up(&mut self, up: bool) {
        self.up = up;
        if !up {
            self.pending_pages = 0;
            for _ in self.pending.iter_mut().flat_map(|pending| pending.drain(..)) {
                self.statistics.drop(DropCause::NoLink);
            }
        }
    }

    /// The NIC's queue for packets from a vif's queue: they stay in order, and those of a guest that sends too much are not in the way of all.
    fn queue_of(&self, source: QueueId) -> usize {
        (usize::from(source.port) + usize::from(source.queue)) % self.pending.len().max(1)
    }

    fn room(&mut self, queue: usize) -> usize {
        self.nic.queue(queue).map_or(0, |queue| queue.room())
    }

    fn waits(&self, queue: usize) -> bool {
        self.pending.get(queue).is_some_and(|pending| !pending.is_empty())
    }

    /// Whether there is room for a packet from another NIC. Those cannot be held back as guests can, and leave room for what guests send.
    pub(super) fn has_room_for_wire(&mut self, source: QueueId) -> bool {
        let queue = self.queue_of(source);
        !self.waits(queue) && self.room(queue) >= 2 * ROOM
    }

    /// Sends a packet from a vif's queue behind those that wait for room, or has it wait. One that the NIC can never send is dropped.
    pub(super) fn send(&mut self, source: QueueId, packet: Packet, layout: Option<&Layout>) {
        let queue = self.queue_of(source);
        let packet = match self.waits(queue) {
            true => packet,
            false => match self.hand_over(queue, packet, layout) {
                Ok(()) => return,
                Err(packet) => packet,
            },
        };
        match self.pending.get_mut(queue) {
            Some(pending) if pending.len() < PENDING && self.pending_pages < self.pending_limit => {
                self.pending_pages += packet.fragments.len();
                pending.push_back((packet, layout.copied()));
            }
            _ => self.statistics.drop(DropCause::NicFull),
        }
    }

    /// Gives a packet to a queue of the NIC; back where it has no room now.
    fn hand_over(&mut self, queue: usize, packet: Packet, layout: Option<&Layout>) -> Result<(), Packet> {
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let Some(queue) = self.nic.queue(queue) else {
            return Err(packet);
        };
        let room = queue.room();
        match queue.transmit(packet, layout) {
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

    /// Gives the NIC's sent buffers back, and the NIC what had to wait for room.
    fn reclaim(&mut self) {
        for index in 0..self.pending.len() {
            if let Some(queue) = self.nic.queue(index) {
                queue.reclaim();
            }
            while let Some((packet, layout)) = self.pending.get_mut(index).and_then(Pending::pop_front) {
                let pages = packet.fragments.len();
                self.pending_pages = self.pending_pages.saturating_sub(pages);
                if let Err(packet) = self.hand_over(index, packet, layout.as_ref()) {
                    if let Some(pending) = self.pending.get_mut(index) {
                        self.pending_pages += pages;
                        pending.push_front((packet, layout));
                    }
                    break;
                }
            }
        }
    }

    /// Whether a guest that sends to it is to wait. Without a link it takes nothing, and nobody waits for it.
    fn is_full(&mut self, source: QueueId) -> bool {
        let queue = self.queue_of(source);
        self.up && (self.waits(queue) || self.room(queue) < ROOM)
    }

    /// The next received frame of any queue.
    pub(super) fn receive(&mut self) -> Option<Packet> {
        let queues = self.pending.len();
        for _ in 0..queues {
            if let Some(frame) = self.nic.queue(self.first_queue)?.receive() {
                return Some(frame);
            }
            self.first_queue = if self.first_queue + 1 < queues { self.first_queue + 1 } else { 0 };
        }
        None
    }

    /// The next round begins with another queue's frames.
    pub(super) fn next_queue(&mut self) {
        self.first_queue = (self.first_queue + 1) % self.pending.len().max(1);
    }

    /// Gives its rings new buffers.
    pub(super) fn refill(&mut self, pool: &Pool) {
        for index in 0..self.pending.len() {
            if let Some(queue) = self.nic.queue(index) {
                queue.refill(pool);
            }
        }
    }

    /// Tells it of what was queued.
    pub(super) fn flush(&mut self) {
        for index in 0..self.pending.len() {
            if let Some(queue) = self.nic.queue(index) {
                queue.flush();
            }
        }
    }

    /// Enables its interrupts. Whether there is something for another round; and whether somebody waits for room, or the NIC for buffers.
    fn arm(&mut self) -> (bool, bool) {
        let (mut again, mut waits) = (false, false);
        for (index, pending) in self.pending.iter().enumerate() {
            // Sent packets need an interrupt only where somebody waits for room; the timer is for NICs that are late with it.
            let waiting = !pending.is_empty();
            if let Some(queue) = self.nic.queue(index) {
                again |= queue.arm(waiting);
                waits |= queue.starves();
            }
            waits |= waiting;
        }
        (again, waits)
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
    pub(super) fn hold_back(&mut self, source: QueueId, toward: Toward, bridge: &str) -> bool {
        let waits = |port: &mut NicPort| port.bridge == bridge && port.is_full(source);
        match toward {
            Toward::Nic(port) => self.get_mut(port).is_some_and(waits),
            Toward::Unknown => self.iter_mut().any(waits),
            Toward::Vif => false,
        }
    }

    /// The NICs' ports, beginning with another one each time.
    pub(super) fn take_turns(&mut self) -> impl Iterator<Item = u16> + use<> {
        let first = self.first;
        let mut behind = (first + 1..NICS).chain(0..=first);
        let there = |port: &u16| self.ports.get(usize::from(*port)).is_some_and(Option::is_some);
        self.first = behind.find(there).unwrap_or_default();
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
        let link = nic.link();
        let queues = nic.queues().max(1);
        let id = NicId(port);
        self.nics.note(LinkChange { nic: id, bridge: bridge.into(), link });
        if let Some(place) = self.nics.ports.get_mut(usize::from(port)) {
            let mut port = NicPort {
                nic,
                bridge: bridge.into(),
                up: link != Link::Down,
                pending: (0..queues).map(|_| Pending::with_capacity(64)).collect(),
                pending_pages: 0,
                pending_limit: self.pool.capacity() / PENDING_SHARE,
                first_queue: 0,
                fault: None,
                statistics: PortStatistics::default(),
            };
            port.refill(&self.pool);
            *place = Some(port);
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
        let causes = port.nic.handle_interrupt(vector);
        if let Some(fault) = causes.fault {
            port.fault.get_or_insert(fault);
        }
        if causes.link {
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

    /// What a NIC no longer does, by its own word or because nothing is sent. To be asked about once a second.
    pub fn watch(&mut self, id: NicId, now: Instant) -> Option<Fault> {
        let port = self.nics.get_mut(id.0)?;
        let fault = port.fault.take().or_else(|| port.nic.watch(now));
        // An interrupt may have been lost.
        let link = port.nic.link();
        if port.up != (link != Link::Down) {
            port.set_up(link != Link::Down);
            let change = LinkChange { nic: id, bridge: port.bridge.clone(), link };
            self.nics.note(change);
        }
        fault
    }

    /// Resets a NIC and starts it anew; what was in its rings is lost.
    ///
    /// # Errors
    /// Why it can no longer be used; it is to be taken off its bridge.
    pub fn restart_nic(&mut self, id: NicId, delay: Delay<'_>) -> Result<(), nic::Error> {
        let Some(port) = self.nics.get_mut(id.0) else {
            return Ok(());
        };
        let result = port.nic.restart(delay);
        let link = port.nic.link();
        port.set_up(result.is_ok() && link != Link::Down);
        let change = LinkChange { nic: id, bridge: port.bridge.clone(), link };
        self.nics.note(change);
        result
    }

    /// Gives the NICs' sent buffers back, and the NICs what had to wait for room.
    pub(super) fn reclaim(&mut self) {
        for port in self.nics.iter_mut() {
            port.reclaim();
            // Before guests take pages for what they send.
            port.refill(&self.pool);
        }
    }

    /// Enables the NICs' interrupts; true where one has something for another round instead.
    pub(super) fn enable_nic_interrupts(&mut self, now: Instant) -> bool {
        let (mut again, mut waits) = (false, false);
        for port in self.nics.iter_mut() {
            let (more, waiting) = port.arm();
            again |= more;
            waits |= waiting;
        }
        if waits {
            self.wake_at(now + RETRY);
        }
        again
    }
}
