//! A NIC as a port of the switch. Floor 3.

use super::QueueId;
use super::bond_port::Membership;
use super::held::{Held, Share};
use super::hold::is_recent;
use crate::nic::plan::SHORTEST_TRANSMIT;
use crate::nic::{Capabilities, Fault, Link, Nic};
use crate::offload::ability::Ability;
use crate::offload::headers::Layout;
use crate::packet::{MAX_FRAGMENTS, Packet, Pool};
use crate::statistics::{DropCause, PortStatistics};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use split_driver::time::{Duration, Instant};

/// Packets kept for a queue of a NIC whose ring is full: a super-frame may be cut into some dozens.
const PENDING: usize = 512;
/// The part of all pages that packets kept for one NIC may hold.
const PENDING_SHARE: usize = 8;
/// A queue that was full for so long and has sent nothing meanwhile holds no guest back: those have others to send to. It stands still where
/// the link's other end asks for a pause again and again, or where the NIC hangs, which it is reset for later.
const STANDSTILL: Duration = Duration::from_millis(500);
/// Descriptors that must be free for a guest that sends to the wire to be served.
const ROOM: usize = 64;
/// Descriptors that must be free for a packet from another NIC: more, and fewer than the shortest ring has.
const ROOM_FOR_WIRE: usize = ROOM + ROOM / 2;
const _: () = assert!(ROOM_FOR_WIRE < SHORTEST_TRANSMIT as usize - 1, "a short ring takes packets of other NICs");

/// Packets that wait for room in a queue's ring, and where their headers lie.
type Pending = VecDeque<(Packet, Option<Layout>)>;

/// A NIC as a port.
pub(super) struct NicPort {
    pub(super) nic: Box<dyn Nic>,
    /// What it takes over.
    pub(super) ability: Ability,
    /// Whether it puts in tags that are apart from a packet's bytes, and whether it was told to take them out.
    pub(super) inserts_tags: bool,
    strips_tags: bool,
    pub(super) bridge: String,
    /// Its bond, where it is of one: it is no port of the switch then.
    pub(super) member: Option<Membership>,
    /// Whether it has a link. Without one, nothing is given to it: on hardware it would stay in its ring.
    pub(super) up: bool,
    /// By its queues, one at least.
    pending: Vec<Pending>,
    /// Pages that they hold, and how many they may begin to.
    pending_pages: usize,
    share: Share,
    pending_limit: usize,
    /// By its queues: it is full, and nothing was sent, since then.
    full_since: Vec<Option<Instant>>,
    /// Whose frames are taken first the next time.
    first_queue: usize,
    /// Packets were queued that it was not told of; and when it was last told of some.
    unflushed: bool,
    flushed: Option<Instant>,
    /// What its last interrupts said that it no longer does.
    pub(super) fault: Option<Fault>,
    pub(super) statistics: PortStatistics,
}

impl NicPort {
    /// A NIC on a bridge, with buffers of `pool` for its frames.
    pub(super) fn new(mut nic: Box<dyn Nic>, bridge: &str, pool: &Pool, held: &Held) -> Self {
        let up = nic.link() != Link::Down;
        let queues = nic.queues().max(1);
        let mut port = Self {
            ability: ability(&nic.capabilities()),
            inserts_tags: nic.capabilities().vlan_insertion,
            strips_tags: false,
            nic,
            bridge: bridge.into(),
            member: None,
            up,
            pending: (0..queues).map(|_| Pending::with_capacity(64)).collect(),
            pending_pages: 0,
            share: Share::new(held),
            pending_limit: pool.capacity() / PENDING_SHARE,
            full_since: (0..queues).map(|_| None).collect(),
            first_queue: 0,
            unflushed: false,
            flushed: None,
            fault: None,
            statistics: PortStatistics::default(),
        };
        port.refill(pool);
        port
    }

    /// Has it take tags out of frames received, or no longer. Where that changes, frames may be lost: see [`Nic::set_vlan_stripping`].
    pub(super) fn set_vlan_stripping(&mut self, on: bool) {
        if self.strips_tags == on {
            return;
        }
        self.strips_tags = on;
        self.nic.set_vlan_stripping(on);
        let capabilities = self.nic.capabilities();
        (self.ability, self.inserts_tags) = (ability(&capabilities), capabilities.vlan_insertion);
    }

    /// The link came or went. With it goes what waited for room.
    pub(super) fn set_up(&mut self, up: bool) {
        self.up = up;
        if !up {
            self.pending_pages = 0;
            for _ in self.pending.iter_mut().flat_map(|pending| pending.drain(..)) {
                self.statistics.drop(DropCause::NoLink);
            }
            self.share.set(0);
        }
    }

    /// The NIC's queue for packets from a vif's queue: they stay in order, and those of a guest that sends too much are not in the way of all.
    fn queue_of(&self, source: QueueId) -> usize {
        (source.port.index() + usize::from(source.queue)) % self.pending.len().max(1)
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
        !self.waits(queue) && self.room(queue) >= ROOM_FOR_WIRE
    }

    /// Sends a packet of so many bytes from a vif's queue behind those that wait for room, or has it wait. One that the NIC can never send is
    /// dropped.
    #[inline]
    pub(super) fn send(&mut self, source: QueueId, packet: Packet, length: u32, layout: Option<&Layout>) {
        let queue = self.queue_of(source);
        let packet = match self.waits(queue) {
            true => packet,
            false => match self.hand_over(queue, packet, length, layout) {
                Ok(()) => return,
                Err(packet) => packet,
            },
        };
        self.keep(queue, packet, layout);
    }

    /// Has a packet wait for room.
    #[inline(never)]
    fn keep(&mut self, queue: usize, packet: Packet, layout: Option<&Layout>) {
        match self.pending.get_mut(queue) {
            Some(pending) if pending.len() < PENDING && self.pending_pages < self.pending_limit => {
                self.pending_pages += packet.fragments.len();
                pending.push_back((packet, layout.copied()));
            }
            _ => self.statistics.drop(DropCause::NicFull),
        }
        self.count_pending();
    }

    /// Gives a packet to a queue of the NIC; back where it has no room now.
    #[inline]
    fn hand_over(&mut self, queue: usize, packet: Packet, length: u32, layout: Option<&Layout>) -> Result<(), Packet> {
        let Some(queue) = self.nic.queue(queue) else {
            return Err(packet);
        };
        match queue.transmit(packet, layout) {
            Ok(()) => {
                self.unflushed = true;
                self.statistics.to_port.count(length);
                Ok(())
            }
            // It took nothing of it.
            Err(_) if queue.room() > MAX_FRAGMENTS * 2 => {
                self.statistics.drop(DropCause::Unsuitable);
                Ok(())
            }
            Err(packet) => Err(packet),
        }
    }

    /// Gives the NIC's sent buffers back, and the NIC what had to wait for room.
    pub(super) fn reclaim(&mut self) {
        for index in 0..self.pending.len() {
            let sent = self.nic.queue(index).map_or(0, |queue| queue.reclaim());
            if sent > 0
                && let Some(since) = self.full_since.get_mut(index)
            {
                *since = None;
            }
            while let Some((packet, layout)) = self.pending.get_mut(index).and_then(Pending::pop_front) {
                let pages = packet.fragments.len();
                let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
                self.pending_pages = self.pending_pages.saturating_sub(pages);
                if let Err(packet) = self.hand_over(index, packet, length, layout.as_ref()) {
                    if let Some(pending) = self.pending.get_mut(index) {
                        self.pending_pages += pages;
                        pending.push_front((packet, layout));
                    }
                    break;
                }
            }
        }
        self.count_pending();
    }

    fn count_pending(&mut self) {
        self.share.set(self.pending.iter().map(Pending::len).sum());
    }

    /// Whether a guest that sends to it is to wait. Without a link it takes nothing, and no guest waits for it; nor where it stands still. Packets
    /// to it are dropped then.
    pub(super) fn is_full(&mut self, source: QueueId, now: Instant) -> bool {
        let queue = self.queue_of(source);
        let full = self.up && (self.waits(queue) || self.room(queue) < ROOM);
        let Some(since) = self.full_since.get_mut(queue) else {
            return false;
        };
        if !full {
            *since = None;
        }
        full && now.since(*since.get_or_insert(now)) < STANDSTILL
    }

    /// Adds the next received frames of all queues to a list, `most` at most, and says how many.
    pub(super) fn receive(&mut self, most: usize, frames: &mut Vec<Packet>) -> usize {
        let (queues, mut left) = (self.pending.len(), most);
        for _ in 0..queues {
            let Some(queue) = self.nic.queue(self.first_queue) else {
                break;
            };
            left -= queue.receive_batch(left, frames).min(left);
            if left == 0 {
                break;
            }
            self.first_queue = if self.first_queue + 1 < queues { self.first_queue + 1 } else { 0 };
        }
        most - left
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

    /// Tells it of the packets that were queued, if any. `hold`: only where it was not told a moment ago.
    pub(super) fn flush(&mut self, hold: bool, now: Instant) {
        if !self.unflushed || hold && is_recent(self.flushed, now) {
            return;
        }
        (self.unflushed, self.flushed) = (false, Some(now));
        for index in 0..self.pending.len() {
            if let Some(queue) = self.nic.queue(index) {
                queue.flush();
            }
        }
    }

    /// Enables its interrupts. Whether there is something for another round; and whether a packet waits for room, or the NIC for buffers.
    pub(super) fn arm(&mut self) -> (bool, bool) {
        let (mut again, mut waits) = (false, false);
        for (index, pending) in self.pending.iter().enumerate() {
            // Sent packets need an interrupt only where one waits for room; the timer is for NICs that are late with it.
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

/// What a NIC takes over.
const fn ability(capabilities: &Capabilities) -> Ability {
    Ability {
        checksum_v4: capabilities.checksum_v4,
        checksum_v6: capabilities.checksum_v6,
        gso_v4: capabilities.tso_v4,
        gso_v6: capabilities.tso_v6,
        told_headers: true,
        longest: capabilities.max_frame,
    }
}
