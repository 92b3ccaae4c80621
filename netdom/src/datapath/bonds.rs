//! Bonds on the data path: the ways to and from their NICs, and the frames that they send of their own. Floor 3.
//!
//! The switch learns and floods by the bond's port; what leaves goes to a member ([`Ports::outlet`]), and what a member received comes from the
//! bond, as far as the bond takes it ([`Ports::sift`]). Where there is no bond, that costs nothing.

use super::bond_port::{BondPort, Membership};
use super::nic_port::NicPort;
use super::ports::{PortKind, Ports};
use super::{DataPath, NicId, QueueId, RETRY};
use crate::bond::{Bond, MEMBERS, Mode};
use crate::ethernet::{MacAddress, Tag};
use crate::nic::{Link, Nic};
use crate::offload::head::Head;
use crate::offload::headers::ETHERTYPE_VLAN;
use crate::packet::{Fragment, Packet, Pool};
use crate::policy::multicast::Behind;
use crate::switch::{AddError, PortId, Switch, Vlans, WIRE_ENTRIES};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::{Duration, Instant};

/// Names a bond from [`DataPath::add_bond`] on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BondId(PortId);

impl BondId {
    /// Its port.
    pub(super) const fn port(self) -> PortId {
        self.0
    }
}

/// The member of a bond that is the active one, where that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActiveChange {
    /// Which bond.
    pub bond: BondId,
    /// Its place; none where no member has a link.
    pub active: Option<usize>,
}

/// The Ethernet type of RARP (RFC 903).
const ETHERTYPE_RARP: u16 = 0x8035;
/// Bytes of the shortest frame, without its check sequence.
const SHORTEST: usize = 60;
/// After a failover the network outside is told again after this time, and after twice as long each time until it is [`LONGEST`]: a frame is lost
/// where a port of a switch does not forward yet, and one that left on the other link may come after it.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(2);

/// A frame that says to all switches where a station is, and nothing to anyone else: a request of RARP for the station's own address (RFC 903), which hypervisors
/// send where a guest has moved.
fn announcement(vlan: u16, station: MacAddress) -> ([u8; SHORTEST + Tag::BYTES], usize) {
    let mut frame = [0; SHORTEST + Tag::BYTES];
    let mut length = 0;
    let mut put = |bytes: &[u8]| {
        if let Some(place) = frame.get_mut(length..length + bytes.len()) {
            place.copy_from_slice(bytes);
            length += bytes.len();
        }
    };
    put(&MacAddress::BROADCAST.0);
    put(&station.0);
    if vlan != 0 {
        put(&ETHERTYPE_VLAN.to_be_bytes());
        put(&vlan.to_be_bytes());
    }
    put(&ETHERTYPE_RARP.to_be_bytes());
    // Ethernet, IPv4, the lengths of their addresses, a request.
    put(&[0, 1, 8, 0, 6, 4, 0, 3]);
    put(&station.0);
    put(&[0; 4]);
    put(&station.0);
    put(&[0; 4]);
    (frame, SHORTEST + if vlan != 0 { Tag::BYTES } else { 0 })
}

/// Frames of a bond's own are sent as those of other NICs.
const SOURCE: QueueId = QueueId { port: PortId(0), queue: 0 };

/// Sends a frame to a member, behind those that wait for room there: false where there is no page for it.
fn send(nic: &mut NicPort, bytes: &[u8], pool: &Pool) -> bool {
    let Some(buffer) = pool.take().filter(|buffer| buffer.write(0, bytes)) else {
        return false;
    };
    let mut packet = Packet::default();
    let length = bytes.len() as u16;
    if packet.fragments.push(Fragment { buffer, offset: 0, length }).is_ok() {
        nic.send(SOURCE, packet, length.into(), None);
    }
    true
}

impl<H: Hypervisor> Ports<H> {
    /// The port that a packet to `port` leaves by: a bond's member; the bond itself where that has no link.
    pub(crate) fn outlet(&self, port: PortId, head: &Head, bytes: &[u8]) -> PortId {
        let Some(bond) = self.bond(port) else {
            return port;
        };
        let member = bond.bond.member(head, bytes).and_then(|place| *bond.nics.get(place)?);
        member.unwrap_or(port)
    }

    /// What a member received, from `first` on, without what its bond does not take. The port of the switch that the rest comes from.
    pub(super) fn sift(&mut self, member: Membership, frames: &mut Vec<Packet>, first: usize, now: Instant) -> PortId {
        if let Some(bond) = self.bond_mut(member.bond) {
            bond.sift(member.place.into(), frames, first, now);
        }
        member.bond
    }

    /// The bond with this port.
    pub(super) fn bond(&self, port: PortId) -> Option<&BondPort> {
        match self.get(port)? {
            PortKind::Bond(bond) => Some(bond),
            _ => None,
        }
    }

    /// The bond with this port.
    pub(super) fn bond_mut(&mut self, port: PortId) -> Option<&mut BondPort> {
        match self.get_mut(port)? {
            PortKind::Bond(bond) => Some(bond),
            _ => None,
        }
    }

    /// A NIC of the bond with this port, for what is counted.
    pub(super) fn first_member(&self, port: PortId) -> Option<PortId> {
        self.bond(port)?.nics.iter().flatten().next().copied()
    }

    /// Sends what bonds have to say.
    pub(super) fn poll_bonds(&mut self, switch: &Switch, pool: &Pool, now: Instant) {
        for place in 0..self.bonds.len() {
            if let Some(&port) = self.bonds.get(place) {
                self.speak(port, pool, now);
                self.announce_again(port, switch, now);
                self.announce(port, pool, now);
            }
        }
    }

    /// Sends what a bond's protocol has to say, where that is due.
    fn speak(&mut self, port: PortId, pool: &Pool, now: Instant) {
        let Some(mut due) = self.bond_mut(port).and_then(|bond| bond.due) else {
            return;
        };
        if due <= now {
            while let Some(bond) = self.bond_mut(port)
                && let Some((place, frame)) = bond.bond.poll(now)
            {
                // One that finds no page is said again when it is due again.
                if let Some(nic) = bond.nics.get(place).and_then(|nic| *nic).and_then(|nic| self.nic_mut(nic)) {
                    send(nic, &frame, pool);
                }
            }
            let Some(bond) = self.bond_mut(port) else {
                return;
            };
            let deadline = bond.bond.deadline(now);
            bond.due = deadline;
            let Some(next) = deadline else {
                return;
            };
            due = next;
        }
        self.wake_at(due);
    }

    /// Has the network outside told once more of all stations behind a bond, where that is due.
    fn announce_again(&mut self, port: PortId, switch: &Switch, now: Instant) {
        let Some(bond) = self.bond_mut(port) else {
            return;
        };
        let Some((due, interval)) = bond.again else {
            return;
        };
        if due <= now {
            bond.announced = stations(switch, port);
            let interval = interval * 2;
            bond.again = (interval <= LONGEST).then_some((now + interval, interval));
        }
        if let Some((due, _)) = bond.again {
            self.wake_at(due);
        }
    }

    /// Tells the network outside of stations behind a bond, as many as the active member has room for.
    fn announce(&mut self, port: PortId, pool: &Pool, now: Instant) {
        while let Some(bond) = self.bond_mut(port)
            && let Some(&(vlan, station)) = bond.announced.front()
        {
            let active = bond.bond.first().and_then(|place| *bond.nics.get(place)?);
            let (frame, length) = announcement(vlan, station);
            let sent = match active.and_then(|nic| self.nic_mut(nic)).filter(|nic| nic.up) {
                Some(nic) => nic.has_room_for_wire(SOURCE) && send(nic, frame.get(..length).unwrap_or_default(), pool),
                // The next one that has a link says it all.
                None => true,
            };
            if !sent {
                return self.wake_at(now + RETRY);
            }
            if let Some(bond) = self.bond_mut(port) {
                bond.announced.pop_front();
            }
        }
    }
}

impl<H: Hypervisor> DataPath<H> {
    /// Puts a bond of this number of NICs on a bridge. None of them is there yet.
    ///
    /// # Errors
    /// There is no room for another port or bridge.
    pub fn add_bond(&mut self, bridge: &str, mode: Mode, members: usize) -> Result<BondId, AddError> {
        let port = self.ports.free().ok_or(AddError::Bridges)?;
        self.forwarder.add_port(port, bridge, (Vlans::TRUNK, WIRE_ENTRIES), Behind::Wire, self.now)?;
        let (bond, nics, announced) = (Bond::new(mode, members), [None; MEMBERS], VecDeque::new());
        self.ports.insert_bond(
            port,
            Box::new(BondPort { bond, bridge: bridge.into(), nics, announced, again: None, told: None, due: None }),
        );
        Ok(BondId(port))
    }

    /// Adds a NIC to a bond, at its place among those that may be of it.
    ///
    /// # Errors
    /// The NIC, where there are [`NICS`](super::NICS) already, or one has that place.
    pub fn add_member(&mut self, nic: Box<dyn Nic>, bond: BondId, place: usize) -> Result<NicId, Box<dyn Nic>> {
        let Some(BondPort { bridge, nics, .. }) = self.ports.bond_mut(bond.0) else {
            return Err(nic);
        };
        let bridge = bridge.clone();
        let (Some(None), Ok(number)) = (nics.get(place), u8::try_from(place)) else {
            return Err(nic);
        };
        let id = self.insert_nic(nic, &bridge, Some(Membership { bond: bond.0, place: number }))?;
        let port = self.ports.nic_port(id.number());
        if let Some(place) = self.ports.bond_mut(bond.0).and_then(|bond| bond.nics.get_mut(place)) {
            *place = port;
        }
        self.note_member(id, true);
        Ok(id)
    }

    /// The member of a bond that all is sent on, where it is one alone: by its place.
    pub fn active_member(&self, bond: BondId) -> Option<usize> {
        self.ports.bond(bond.0)?.bond.active()
    }

    /// How many NICs of a bond have a link.
    pub fn linked_members(&self, bond: BondId) -> usize {
        self.ports.bond(bond.0).map_or(0, |bond| bond.bond.linked())
    }

    /// How many NICs of a bond packets are sent on.
    pub fn used_members(&self, bond: BondId) -> usize {
        self.ports.bond(bond.0).map_or(0, |bond| bond.bond.used())
    }

    /// The next active member that changed: for the log.
    pub fn poll_active(&mut self) -> Option<ActiveChange> {
        for place in 0..self.ports.bonds.len() {
            let port = *self.ports.bonds.get(place)?;
            let bond = self.ports.bond_mut(port)?;
            let active = bond.bond.active();
            if core::mem::replace(&mut bond.told, active) != active {
                return Some(ActiveChange { bond: BondId(port), active });
            }
        }
        None
    }

    /// Whether a bond has something to say, so that the path is to be polled soon.
    pub fn has_news(&self) -> bool {
        let mut bonds = self.ports.bonds.iter().filter_map(|port| self.ports.bond(*port));
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= self.now);
        bonds.any(|bond| !bond.announced.is_empty() || is_due(bond.due) || is_due(bond.again.map(|(due, _)| due)))
    }

    /// All NICs of the last life that are still there have come.
    pub fn settle_bonds(&mut self) {
        for port in self.ports.bonds.clone() {
            if let Some(bond) = self.ports.bond_mut(port) {
                bond.bond.settle();
            }
            self.note_moved(port);
        }
    }

    /// A NIC is there, or its link may have changed. Nothing, where it is of no bond.
    pub(super) fn note_member(&mut self, id: NicId, there: bool) {
        let Some(nic) = self.ports.numbered_mut(id.number()) else {
            return;
        };
        let Some(member) = nic.member else {
            return;
        };
        let speed = match nic.nic.link() {
            Link::Up(speed) if there && nic.up => Some(speed),
            _ => None,
        };
        let address = nic.nic.mac_address();
        self.set_member(member, speed, address);
    }

    /// A member is gone.
    pub(super) fn remove_member(&mut self, member: Membership) {
        if let Some(place) =
            self.ports.bond_mut(member.bond).and_then(|bond| bond.nics.get_mut(usize::from(member.place)))
        {
            *place = None;
        }
        self.set_member(member, None, MacAddress::default());
    }

    fn set_member(&mut self, member: Membership, speed: Option<u32>, address: MacAddress) {
        let now = self.now;
        let Some(bond) = self.ports.bond_mut(member.bond) else {
            return;
        };
        bond.bond.set_link(member.place.into(), speed, address, now);
        bond.due = bond.bond.deadline(now);
        if let Some(due) = bond.due {
            self.ports.wake_at(due);
        }
        self.note_moved(member.bond);
    }

    /// Where the network outside is to be told, lists all stations of the bridge that are not behind the bond: no more than the switch knows.
    fn note_moved(&mut self, port: PortId) {
        let Some(bond) = self.ports.bond_mut(port) else {
            return;
        };
        if !bond.bond.take_moved() {
            return;
        }
        bond.announced = stations(&self.forwarder.switch, port);
        bond.again = Some((self.now + SHORTEST_INTERVAL, SHORTEST_INTERVAL));
        self.ports.wake_at(self.now);
    }
}

/// All stations of the bridge that are not behind the bond itself, each with its VLAN.
fn stations(switch: &Switch, bond: PortId) -> VecDeque<(u16, MacAddress)> {
    let others = switch.members(bond).iter().filter(|member| **member != bond);
    others.flat_map(|member| switch.addresses(*member)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcements_name_the_station_alone() {
        let station = MacAddress([0, 0x16, 0x3e, 1, 2, 3]);
        let (frame, length) = announcement(0, station);
        let body =
            [&[0, 1, 8, 0, 6, 4, 0, 3, 0, 0x16, 0x3e, 1, 2, 3, 0, 0, 0, 0, 0, 0x16, 0x3e, 1, 2, 3][..], &[0; 22]];
        let plain = [&[0xff; 6][..], &station.0, &[0x80, 0x35], &body.concat()].concat();
        assert_eq!((&frame[..length], length), (plain.as_slice(), 60));
        let (frame, length) = announcement(0x123, station);
        let tagged = [&plain[..12], &[0x81, 0, 1, 0x23], &plain[12..]].concat();
        assert_eq!(frame[..length], tagged);
    }
}
