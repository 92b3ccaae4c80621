//! The honest guests, and a plain model of what may reach whom: each frame that arrives is held against it. Host.
//!
//! The hostile guest may be on either bridge, and it may say what it likes. Whatever it does, a frame stays on its bridge, the wire
//! belongs to the first bridge alone, frames for the two ends of a link go nowhere, BPDUs stay among guests, a guest with multicast
//! control gets its groups and no others, and what an honest guest sends to an address that is known goes there alone.
//!
//! Where the domain's life ends, the next one sends what was not answered, once more where it had arrived already; what was answered and had not
//! arrived is lost, as on any network. Nothing else may differ.

use netdom::datapath::VifId;
use netdom::fakes::{Arrived, Frontend, Outgoing};
use netdom::packet::{Checksum, Gso, GsoKind};
use split_driver::time::{Duration, Instant};
use split_driver::xenbus::DeviceId;
use std::collections::{HashSet, VecDeque};
use xen_pv_sys::DomainId;

/// Honest guests: each sends to the one beside it.
pub(super) const GUESTS: usize = 4;
/// The bridge of each; the NIC is on the first.
pub(super) const BRIDGES: [&str; GUESTS] = ["xenbr0", "xenbr0", "xenbr1", "xenbr1"];
/// The guest that wants its groups alone.
pub(super) const LISTENER: usize = 3;
/// The address of a station on the wire.
pub(super) const STATION: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// To which bridges send BPDUs; up to 15 beside it are for the two ends of a link (IEEE 802.1D-2004, table 7-10).
pub(super) const BRIDGE_GROUP: [u8; 6] = [0x01, 0x80, 0xc2, 0, 0, 0];
/// After this time an address may be forgotten, and a frame to it goes to all.
const KNOWN: Duration = Duration::from_secs(290);

/// The address of an honest guest towards the one beside it. The hostile guest does not know it: any bridge believes who pretends to be
/// somebody else, and that is not what is tested here.
pub(super) const fn address(which: usize) -> [u8; 6] {
    [0x02, 0xd1, 0x5c, 0x7a, 0xe9, which as u8]
}

/// The address of the same guest towards the hostile one, and as the sender to groups.
pub(super) const fn public_address(which: usize) -> [u8; 6] {
    [0x02, 0x35, 0x99, 0x11, 0x40, which as u8]
}

/// The `number`th group; the listener has joined the first.
pub(super) const fn group(number: u8) -> [u8; 6] {
    match number % 4 {
        3 => BRIDGE_GROUP,
        2 => [0xff; 6],
        number => [0x01, 0, 0x5e, 0, 0, number],
    }
}

/// The type of an IPv4 packet of TCP with `bytes` bytes, and its headers without options (RFC 791, 3.1; RFC 9293, 3.1).
fn tcp_headers(bytes: usize) -> [u8; 42] {
    let mut headers = [0; 42];
    headers[..3].copy_from_slice(&[0x08, 0x00, 0x45]);
    headers[4..6].copy_from_slice(&(bytes as u16).to_be_bytes());
    (headers[10], headers[11], headers[34]) = (64, 6, 5 << 4);
    headers
}

/// A packet that was sent and, as far as is known, not answered.
struct Sent {
    bytes: Vec<u8>,
    /// The group that it is for, if it is for one.
    group: Option<u8>,
    /// The index behind its last slot on the transmit ring.
    end: u32,
}

/// A neighbour.
pub(super) struct Honest {
    pub(super) guest: Frontend,
    pub(super) id: VifId,
    pub(super) which: usize,
    /// Packets on their way to it from the one beside it, in their order.
    expected: VecDeque<Vec<u8>>,
    /// Packets to groups that must reach it.
    groups: Vec<Vec<u8>>,
    /// Packets from it, in their order.
    sent: VecDeque<Sent>,
    pub(super) errors: usize,
    pub(super) arrived: u64,
    serial: u64,
}

/// What all of them know together.
#[derive(Default)]
pub(super) struct Model {
    /// Packets that honest guests sent to groups, with the sender.
    sent_to_groups: HashSet<Vec<u8>>,
    /// Frames put on the wire.
    pub(super) from_wire: HashSet<Vec<u8>>,
    /// The bridge of the hostile guest.
    pub(super) hostile_bridge: &'static str,
    /// What the hostile guest sent and may arrive, where it keeps to what can be said beforehand.
    pub(super) hostile: Option<HashSet<Vec<u8>>>,
    /// When which honest address was last heard, without a VLAN.
    heard: [Option<Instant>; GUESTS],
    /// Which may have been forgotten in this input.
    aged: [bool; GUESTS],
    /// Which the next life will know, as far as was written down.
    kept: [bool; GUESTS],
    now: Instant,
}

/// The vif of an honest guest.
pub(super) fn device(which: usize) -> DeviceId {
    DeviceId { frontend: DomainId(which as u16 + 1), handle: 0 }
}

impl Honest {
    pub(super) fn new(guest: Frontend, id: VifId, which: usize) -> Self {
        let (expected, groups, sent) = Default::default();
        Self { guest, id, which, expected, groups, sent, errors: 0, arrived: 0, serial: 0 }
    }

    /// Its vif.
    pub(super) fn device(&self) -> DeviceId {
        device(self.which)
    }

    fn bridge(&self) -> &'static str {
        BRIDGES[self.which]
    }

    /// Whether all that was sent to it has arrived, and all that it sent is answered.
    pub(super) fn is_done(&self) -> bool {
        self.missing() == 0 && self.guest.transmit.free() == self.guest.transmit.slots()
    }

    /// Packets that must still reach it.
    pub(super) fn missing(&self) -> usize {
        self.expected.len() + self.groups.len()
    }

    /// Takes what has arrived, and makes room for more.
    pub(super) fn look(&mut self, model: &Model) {
        for packet in self.guest.arrived() {
            if packet.error {
                self.errors += 1;
                continue;
            }
            self.arrived += 1;
            self.check(&packet, model);
        }
        self.guest.post(256);
        self.guest.collect_answers();
        let answered = self.guest.transmit.state().consumed;
        while self.sent.front().is_some_and(|sent| answered.wrapping_sub(sent.end).cast_signed() >= 0) {
            self.sent.pop_front();
        }
    }

    fn note_sent(&mut self, bytes: Vec<u8>, group: Option<u8>) {
        self.sent.push_back(Sent { bytes, group, end: self.guest.transmit.state().produced });
    }

    /// Whether a packet to that group from the guest `from` must reach it.
    fn listens(&self, from: usize, number: u8) -> bool {
        let wanted = self.which != LISTENER || group(number) == group(0) || group(number) == [0xff; 6];
        from != self.which && BRIDGES[from] == self.bridge() && wanted
    }

    fn check(&mut self, packet: &Arrived, model: &Model) {
        let bytes = &packet.bytes;
        let (destination, source) = addresses(bytes);
        if source[..5] == address(0)[..5] {
            let expected = self.expected.pop_front();
            let expected = expected.expect("an honest packet came twice, or to another one than it was for");
            assert!(
                *bytes == expected,
                "an honest packet is not what was sent: {} bytes of {}, {:02x?} for {:02x?}",
                bytes.len(),
                expected.len(),
                bytes.get(..32),
                expected.get(..32)
            );
            return;
        }
        if let Some(place) = self.groups.iter().position(|expected| expected == bytes) {
            self.groups.swap_remove(place);
            return;
        }
        let control = self.which == LISTENER;
        let is_group = destination[0] & 1 == 1 && destination != [0xff; 6];
        assert!(!control || !is_group || destination == group(0), "a group that nobody asked for: {destination:02x?}");
        assert!(!is_for_a_link(destination) || destination == BRIDGE_GROUP, "a frame for a link: {destination:02x?}");
        model.check_known(bytes, self.which);
        if model.from_wire.contains(bytes) {
            assert!(self.bridge() == BRIDGES[0], "the wire is not on this bridge");
            assert!(destination != BRIDGE_GROUP, "a BPDU of the wire");
            return;
        }
        let mine = (0..GUESTS).find(|which| public_address(*which) == source);
        let from = mine.map_or(model.hostile_bridge, |which| BRIDGES[which]);
        assert!(
            from == self.bridge() || model.hostile_bridge == self.bridge(),
            "a frame of another bridge: {:02x?}",
            bytes.get(..32)
        );
        model.check_hostile(source, bytes);
    }
}

fn is_for_a_link(destination: [u8; 6]) -> bool {
    destination[..5] == BRIDGE_GROUP[..5] && destination[5] < 16
}

/// Whether a frame has the tag of a VLAN, not that of a priority alone.
fn is_in_vlan(bytes: &[u8]) -> bool {
    matches!(bytes.get(12..16), Some([0x81, 0x00, high, low]) if (high & 0xf, *low) != (0, 0))
}

fn addresses(bytes: &[u8]) -> ([u8; 6], [u8; 6]) {
    let address = |place: usize| bytes.get(place..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
    (address(0), address(6))
}

impl Model {
    /// Time goes on.
    pub(super) fn set_now(&mut self, now: Instant) {
        self.now = now;
        for (heard, aged) in self.heard.iter().zip(&mut self.aged) {
            *aged |= heard.is_none_or(|heard| now.since(heard) >= KNOWN);
        }
    }

    /// What is known is written down for the next life.
    pub(super) fn keep(&mut self) {
        let now = self.now;
        self.kept = self.heard.map(|heard| heard.is_some_and(|heard| now.since(heard) < KNOWN));
    }

    /// The next life has begun: it knows what was written down.
    pub(super) fn begin_life(&mut self) {
        for (heard, kept) in self.heard.iter_mut().zip(self.kept) {
            *heard = heard.filter(|_| kept);
        }
        self.set_now(self.now);
    }

    /// A frame to an honest guest's own address goes to it alone, as long as that is known: without a VLAN, as it is not heard in each.
    pub(super) fn check_known(&self, bytes: &[u8], receiver: usize) {
        let (destination, _) = addresses(bytes);
        if let Some(owner) = (0..GUESTS).find(|which| address(*which) == destination) {
            assert!(
                is_in_vlan(bytes) || owner == receiver || self.aged[owner],
                "a frame for guest {owner} came to {receiver}: {:02x?}",
                bytes.get(..24)
            );
        }
    }

    /// What the hostile guest sent arrives as it was sent, or not at all.
    fn check_hostile(&self, source: [u8; 6], bytes: &[u8]) {
        if let Some(sent) = &self.hostile
            && source == super::mallory::ADDRESS
        {
            assert!(
                sent.contains(bytes),
                "a frame that was never sent: {} bytes, {:02x?}",
                bytes.len(),
                bytes.get(..48)
            );
        }
    }

    /// A frame that went to the wire.
    pub(super) fn check_wire(&self, bytes: &[u8]) {
        let (destination, source) = addresses(bytes);
        assert!(!is_for_a_link(destination), "a frame for a link went to the wire: {destination:02x?}");
        self.check_known(bytes, GUESTS);
        if self.sent_to_groups.contains(bytes) {
            let sender = usize::from(source[5]);
            assert!(BRIDGES[sender] == BRIDGES[0], "a frame of a bridge without NIC went to the wire");
            return;
        }
        let honest = (0..GUESTS).find(|which| [address(*which), public_address(*which)].contains(&source));
        let from = honest.map_or(self.hostile_bridge, |which| BRIDGES[which]);
        assert!(
            from == BRIDGES[0] || self.hostile_bridge == BRIDGES[0],
            "a frame of a bridge without NIC went to the wire"
        );
        self.check_hostile(source, bytes);
    }

    /// Whether an input's frames are forgotten.
    pub(super) fn forget(&mut self) {
        self.sent_to_groups.clear();
        self.from_wire.clear();
        self.aged = [false; GUESTS];
        self.set_now(self.now);
    }
}

/// An honest packet to the guest beside.
pub(super) fn send(guests: &mut [Honest; GUESTS], model: &mut Model, from: usize, length: usize, super_frame: bool) {
    let to = from ^ 1;
    let [Some(sender), Some(receiver)] = [from, to].map(|which| guests.get(which)) else {
        return;
    };
    let serial = sender.serial as usize;
    let length = length.max(80);
    let mut bytes = Vec::from(receiver.guest.mac);
    bytes.extend(sender.guest.mac);
    if super_frame {
        bytes.extend(tcp_headers(length - 14));
    } else if serial % 4 == 1 {
        // In a VLAN, which is a network of its own.
        bytes.extend([0x81, 0x00, 0x00, 0x05, 0x88, 0xb5]);
    } else {
        bytes.extend([0x88, 0xb5]);
    }
    bytes.extend(sender.serial.to_ne_bytes());
    bytes.extend((bytes.len()..length).map(|place| (place * 7 + serial) as u8));
    let packet = Outgoing {
        cuts: if serial.is_multiple_of(3) { vec![] } else { vec![30] },
        checksum: if super_frame { Checksum::Blank } else { Checksum::Unverified },
        gso: super_frame.then_some(Gso { kind: GsoKind::TcpV4, size: 1448 }),
        bytes,
    };
    if let Some(sender) = guests.get_mut(from)
        && sender.guest.send(&packet)
    {
        sender.serial += 1;
        if let Some(heard) = model.heard.get_mut(from)
            && !is_in_vlan(&packet.bytes)
        {
            *heard = Some(model.now);
        }
        sender.note_sent(packet.bytes.clone(), None);
        if let Some(receiver) = guests.get_mut(to) {
            receiver.expected.push_back(packet.bytes);
        }
    }
}

/// An honest packet to a group: to all on the bridge that want it.
pub(super) fn send_to_group(guests: &mut [Honest; GUESTS], model: &mut Model, from: usize, number: u8) {
    let Some(sender) = guests.get_mut(from) else {
        return;
    };
    let mut bytes = Vec::from(group(number));
    bytes.extend(public_address(from));
    bytes.extend([0x88, 0xb5]);
    bytes.extend(sender.serial.to_ne_bytes());
    bytes.resize(100, number);
    if !sender.guest.send(&Outgoing { bytes: bytes.clone(), ..Outgoing::default() }) {
        return;
    }
    sender.serial += 1;
    sender.note_sent(bytes.clone(), Some(number));
    model.sent_to_groups.insert(bytes.clone());
    for receiver in guests.iter_mut().filter(|guest| guest.listens(from, number)) {
        receiver.groups.push(bytes.clone());
    }
}

/// The domain's life ended: what was not answered is on its way again, and nothing else is.
pub(super) fn begin_life(guests: &mut [Honest; GUESTS], model: &mut Model) {
    for guest in guests.iter_mut() {
        guest.look(model);
    }
    for to in 0..GUESTS {
        let expected = guests[to ^ 1].sent.iter().filter(|sent| sent.group.is_none());
        let expected = expected.map(|sent| sent.bytes.clone()).collect();
        let sent = guests.iter().flat_map(|from| from.sent.iter().map(|sent| (from.which, sent)));
        let groups = sent.filter(|(from, sent)| sent.group.is_some_and(|number| guests[to].listens(*from, number)));
        let groups = groups.map(|(_, sent)| sent.bytes.clone()).collect();
        (guests[to].expected, guests[to].groups) = (expected, groups);
    }
    model.begin_life();
}
