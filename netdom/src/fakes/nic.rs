//! A NIC that is a list of frames each way. Floor 3.

use crate::ethernet::{MacAddress, Tag};
use crate::nic::plan::SHORTEST_TRANSMIT;
use crate::nic::{Capabilities, Causes, Delay, Error, Fault, Link, Nic, NicQueue, NicStatistics};
use crate::offload::headers::{ETHERTYPE_VLAN, Layout};
use crate::packet::{Buffer, Checksum, Fragment, Offload, Packet, Pool};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use split_driver::memory::Quiesced;
use split_driver::time::Instant;

/// A frame that was given to the NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentFrame {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// What was left to the NIC.
    pub offload: Offload,
    /// Where the headers were said to be.
    pub layout: Option<Layout>,
    /// The tag that the NIC inserts.
    pub tag: Option<Tag>,
}

/// The far side of the NIC.
#[derive(Default)]
pub struct Wire {
    /// Frames sent, oldest first.
    pub sent: Vec<SentFrame>,
    /// Frames that the NIC was not told of: a flush sends them.
    unflushed: Vec<SentFrame>,
    /// Frames to be received, with the device's word on their checksum.
    pub incoming: VecDeque<(Vec<u8>, Checksum)>,
    /// Buffers of frames "on the wire", which a reclaim gives back.
    in_flight: Vec<Packet>,
    /// Frames taken before the ring is full; a reclaim empties it.
    pub room: usize,
    /// Whether sent frames stay in the ring until this is cleared.
    pub hold: bool,
    /// Whether there is no link; an interrupt tells of a change.
    pub down: bool,
    /// Times `flush` was called.
    pub flushes: usize,
    /// What it no longer does; a restart is the remedy.
    pub fault: Option<Fault>,
    /// Whether it was stopped.
    pub quiesced: bool,
    /// Whether the NIC takes tags out.
    pub strips: bool,
}

/// The NIC.
pub struct FakeNic {
    wire: Rc<RefCell<Wire>>,
    capabilities: Capabilities,
    buffers: Vec<Buffer>,
    ring: usize,
    /// What the last one who asked was told of the link.
    told_down: bool,
    /// Whether it takes tags out.
    strips: bool,
}

impl FakeNic {
    /// A NIC with a ring of `ring` buffers and the shortest ring for what it sends, and its wire.
    pub fn new(capabilities: Capabilities, ring: usize) -> (Self, Rc<RefCell<Wire>>) {
        let room = usize::from(SHORTEST_TRANSMIT) - 1;
        let wire = Rc::new(RefCell::new(Wire { room, ..Wire::default() }));
        (Self::on(&wire, capabilities, ring), wire)
    }

    /// The same NIC in another life of the domain, reset: what was in its rings is lost.
    pub fn again(wire: &Rc<RefCell<Wire>>, capabilities: Capabilities, ring: usize) -> Self {
        {
            let mut wire = wire.borrow_mut();
            wire.in_flight.clear();
            wire.unflushed.clear();
        }
        Self::on(wire, capabilities, ring)
    }

    fn on(wire: &Rc<RefCell<Wire>>, capabilities: Capabilities, ring: usize) -> Self {
        Self { wire: Rc::clone(wire), capabilities, buffers: Vec::new(), ring, told_down: false, strips: false }
    }
}

/// A packet's bytes in one piece.
pub(crate) fn bytes_of(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    for fragment in &packet.fragments {
        let mut piece = alloc::vec![0; usize::from(fragment.length)];
        assert!(fragment.buffer.read(usize::from(fragment.offset), &mut piece), "a fragment leaves its page");
        bytes.append(&mut piece);
    }
    bytes
}

impl Nic for FakeNic {
    fn mac_address(&self) -> MacAddress {
        MacAddress([0, 0x16, 0x3e, 0xff, 0xff, 0xff])
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn link(&mut self) -> Link {
        self.told_down = self.wire.borrow().down;
        if self.told_down { Link::Down } else { Link::Up(1000) }
    }

    fn handle_interrupt(&mut self, _vector: usize) -> Causes {
        Causes { receive: true, link: self.wire.borrow().down != self.told_down, ..Causes::default() }
    }

    fn queues(&self) -> usize {
        1
    }

    fn queue(&mut self, index: usize) -> Option<&mut dyn NicQueue> {
        (index == 0).then_some(self)
    }

    fn watch(&mut self, _now: Instant, _delay: Delay<'_>) -> Option<Fault> {
        self.wire.borrow().fault
    }

    fn restart(&mut self, _delay: Delay<'_>) -> Result<(), Error> {
        self.buffers.clear();
        let mut wire = self.wire.borrow_mut();
        wire.in_flight.clear();
        wire.unflushed.clear();
        wire.fault = None;
        Ok(())
    }

    fn set_vlan_stripping(&mut self, on: bool) {
        self.strips = on && self.capabilities.vlan_stripping;
        self.wire.borrow_mut().strips = self.strips;
    }

    fn statistics(&mut self) -> NicStatistics {
        NicStatistics::default()
    }

    fn quiesce(&mut self) {
        self.buffers.clear();
        let mut wire = self.wire.borrow_mut();
        wire.in_flight.clear();
        wire.unflushed.clear();
        wire.quiesced = true;
    }

    fn release(&mut self, _proof: Quiesced) {}
}

impl NicQueue for FakeNic {
    fn starves(&self) -> bool {
        self.buffers.is_empty()
    }

    fn arm(&mut self, transmit: bool) -> bool {
        let wire = self.wire.borrow();
        let receive = !wire.incoming.is_empty() && !self.buffers.is_empty();
        receive || transmit && !wire.hold && !wire.in_flight.is_empty()
    }

    fn transmit(&mut self, packet: Packet, layout: Option<&Layout>) -> Result<(), Packet> {
        let mut wire = self.wire.borrow_mut();
        if wire.in_flight.len() >= wire.room {
            return Err(packet);
        }
        wire.unflushed.push(SentFrame {
            bytes: bytes_of(&packet),
            offload: packet.offload,
            layout: layout.copied(),
            tag: packet.tag,
        });
        wire.in_flight.push(packet);
        Ok(())
    }

    fn room(&self) -> usize {
        let wire = self.wire.borrow();
        wire.room.saturating_sub(wire.in_flight.len())
    }

    fn flush(&mut self) {
        let mut wire = self.wire.borrow_mut();
        let Wire { sent, unflushed, flushes, .. } = &mut *wire;
        sent.append(unflushed);
        *flushes += 1;
    }

    fn reclaim(&mut self) -> usize {
        let mut wire = self.wire.borrow_mut();
        if wire.hold {
            return 0;
        }
        let count = wire.in_flight.len();
        wire.in_flight.clear();
        count
    }

    fn receive(&mut self) -> Option<Packet> {
        let mut wire = self.wire.borrow_mut();
        let buffer = self.buffers.pop()?;
        let Some((mut bytes, checksum)) = wire.incoming.pop_front() else {
            self.buffers.push(buffer);
            return None;
        };
        let tagged = self.strips && bytes.get(12..14) == Some(&ETHERTYPE_VLAN.to_be_bytes()) && bytes.len() >= 18;
        let tag = tagged
            .then(|| bytes.drain(12..16).skip(2).fold(0, |tag, byte| tag << 8 | u16::from(byte)))
            .and_then(Tag::new);
        assert!(buffer.write(0, &bytes), "a frame longer than a buffer");
        let mut packet = Packet::default();
        packet.offload.checksum = checksum;
        packet.tag = tag;
        let fragment = Fragment { buffer, offset: 0, length: bytes.len() as u16 };
        assert!(packet.fragments.push(fragment).is_ok(), "a packet without fragments has room");
        Some(packet)
    }

    fn refill(&mut self, pool: &Pool) {
        while self.buffers.len() < self.ring
            && let Some(buffer) = pool.take()
        {
            self.buffers.push(buffer);
        }
    }
}
