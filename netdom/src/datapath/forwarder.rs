//! Where a packet goes, by its head: to which ports, and in a guest with several queues to which of them. Floor 3.

use super::ports::Ports;
use crate::ethernet::MacAddress;
use crate::hash::KeyedHash;
use crate::netback::steering::{Steer, steer};
use crate::offload::flow::Flow;
use crate::offload::head::{Head, HeadReader};
use crate::packet::Packet;
use crate::statistics::DropCause;
use crate::switch::{AGEING, Forward, PortId, Switch, TABLE_ENTRIES};

use alloc::vec::Vec;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;

/// Where a packet for one station goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    /// The port.
    pub(crate) to: PortId,
    /// Where it goes there, if that is a guest.
    pub(crate) steer: Steer,
}

/// A look-up of the switch: from which port, in which VLAN, for which addresses, and to which port.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Look {
    from: PortId,
    vlan: u16,
    destination: MacAddress,
    source: MacAddress,
    to: PortId,
}

/// The switch, and all else that decides.
pub(crate) struct Forwarder {
    pub(super) switch: Switch,
    /// Spreads flows over the queues of guests.
    flow_key: KeyedHash,
    /// Whether BPDUs go from guests to the wire, and from there to guests.
    pub(super) bpdus_on_wire: bool,
    reader: HeadReader,
    /// The ports that the last packet goes to.
    destinations: Vec<PortId>,
    /// The last look-up of the round that gave one port: the packets of a flow come one behind the other.
    last_look: Option<Look>,
    /// Where the last packet went that was hashed, as long as those that follow are of its flow.
    last_way: Option<Way>,
}

impl Forwarder {
    /// A switch without ports. `seed` is a number that guests do not know.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            switch: Switch::new(TABLE_ENTRIES, AGEING, seed),
            // Another key than the switch's: a guest sees which queue its packets come from.
            flow_key: KeyedHash::new(!seed),
            bpdus_on_wire: false,
            reader: HeadReader::default(),
            destinations: Vec::new(),
            last_look: None,
            last_way: None,
        }
    }

    /// A round begins: what was decided in the last one may no longer hold.
    pub(super) fn begin_round(&mut self) {
        (self.last_look, self.last_way) = (None, None);
    }

    /// Reads the head of the next packet; `None` where it has no Ethernet header.
    pub(super) fn read(&mut self, packet: &Packet) -> Option<Head> {
        let head = self.reader.read(packet);
        if !self.reader.repeated() {
            self.last_way = None;
        }
        head
    }

    /// The bytes that the last head was read from.
    pub(super) fn bytes(&self) -> &[u8] {
        self.reader.bytes()
    }

    /// The ports that were chosen last.
    pub(super) fn destinations(&self) -> &[PortId] {
        &self.destinations
    }

    /// The port that was chosen last, where it is the one for a single station.
    pub(super) fn only_destination(&self, head: &Head) -> Option<PortId> {
        match *self.destinations.as_slice() {
            [only] if !head.destination.is_group() => Some(only),
            _ => None,
        }
    }

    /// Chooses the ports that a packet of a VLAN (0: none) with this head goes to.
    pub(super) fn choose<H: Hypervisor>(
        &mut self,
        ports: &mut Ports<H>,
        from: PortId,
        vlan: u16,
        head: &Head,
        now: Instant,
    ) {
        let &Head { destination, source, .. } = head;
        self.destinations.clear();
        // In a round no time passes: the same look-up would learn nothing and find the same.
        if let Some(look) = self.last_look
            && (look.from, look.vlan, look.destination, look.source) == (from, vlan, destination, source)
        {
            return self.destinations.push(look.to);
        }
        self.last_look = None;
        match self.switch.forward(from, vlan, destination, source, now) {
            Forward::Drop(_) => ports.count_drop(from, DropCause::NotForwarded),
            Forward::Port(to) => {
                self.destinations.push(to);
                self.last_look = Some(Look { from, vlan, destination, source, to });
            }
            Forward::Flood if destination == MacAddress::BRIDGE_GROUP && !self.bpdus_on_wire => {
                // From guest to guest, and from wire to wire, so that bridges out there see a loop through this one.
                let wired = ports.is_nic(from);
                self.destinations.extend(self.switch.flood(from, vlan).filter(|to| ports.is_nic(*to) == wired));
                if self.destinations.is_empty() && wired {
                    ports.count_drop(from, DropCause::NotForwarded);
                }
            }
            Forward::Flood => self.destinations.extend(self.switch.flood(from, vlan)),
        }
    }

    /// The way to a port of the packet whose head was read last. Where the guest there has one queue and asked for no hash, the packet is
    /// not looked at.
    pub(super) fn way<H: Hypervisor>(&mut self, ports: &Ports<H>, to: PortId, head: &Head) -> Way {
        let plain = Way { to, steer: Steer::default() };
        let Some(guest) = ports.guest(to) else {
            return plain;
        };
        let (queues, hashing) = (guest.queue_count(), guest.hashing());
        if queues < 2 && hashing.is_none() {
            return plain;
        }
        if let Some(last) = self.last_way.filter(|last| last.to == to) {
            return last;
        }
        let flow = Flow::new(head, self.reader.bytes());
        let way = Way { to, steer: steer(flow.as_ref(), queues, hashing, self.flow_key) };
        self.last_way = Some(way);
        way
    }
}
