//! netback with a hostile frontend beside two honest ones. Host.
//!
//! The data path, the honest guests and the NIC live as long as the target; each input is one life of the hostile vif: attached, at
//! work, detached. What must hold: the honest guests' packets arrive whole, once and in order, answered with success; only the hostile
//! vif is ever closed; an error is seen by a neighbour only where that happened; no call was made that Xen would refuse us as a fault
//! of our own; and when the vif is gone, pages, mappings and channels are back.

mod mallory;

use crate::Target;
use mallory::{Action, Mallory};
use netdom::datapath::{DataPath, VifId};
use netdom::fakes::{FakeNic, Frontend, Outgoing, Wire};
use netdom::netback::vif::Features;
use netdom::nic::Capabilities;
use netdom::packet::{Checksum, Pool};
use split_driver::fakes::{FakePages, FakeXen, Live};
use split_driver::time::{Duration, Instant};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

/// Pages of the pool: few, so that it runs out.
const PAGES: usize = 512;
/// Actions of an input, at most.
const ACTIONS: usize = 40;

/// The world that inputs run in.
pub struct Netback {
    xen: FakeXen,
    path: DataPath<FakeXen, FakeNic>,
    wire: Rc<RefCell<Wire>>,
    honest: [Honest; 2],
    mallory: Mallory,
    now: Instant,
    /// What is held while the hostile vif is not there.
    rest: (usize, Live),
}

/// A neighbour.
struct Honest {
    guest: Frontend,
    id: VifId,
    /// Packets on their way to it from the other one.
    expected: VecDeque<Vec<u8>>,
    errors: usize,
    arrived: u64,
    serial: u64,
}

/// The address of an honest guest towards the other one. The hostile guest does not know it: any bridge believes who pretends to be
/// somebody else, and that is not what is tested here.
const fn address(which: u8) -> [u8; 6] {
    [0x02, 0xd1, 0x5c, 0x7a, 0xe9, which]
}

/// The address of the same honest guest towards the hostile one.
const fn public_address(which: u8) -> [u8; 6] {
    [0x02, 0x35, 0x99, 0x11, 0x40, which]
}

/// The type of an IPv4 packet of TCP with `bytes` bytes, and its headers without options (RFC 791, 3.1; RFC 9293, 3.1).
fn tcp_headers(bytes: usize) -> [u8; 42] {
    let mut headers = [0; 42];
    headers[..3].copy_from_slice(&[0x08, 0x00, 0x45]);
    headers[4..6].copy_from_slice(&(bytes as u16).to_be_bytes());
    (headers[10], headers[11], headers[34]) = (64, 6, 5 << 4);
    headers
}

impl Default for Netback {
    fn default() -> Self {
        Self::new()
    }
}

impl Netback {
    /// The world, at rest.
    pub fn new() -> Self {
        let xen = FakeXen::new();
        let pool = Pool::new(Box::new(FakePages::new(&xen, PAGES)));
        let mut path = DataPath::new(xen.clone(), pool, 1);
        let capabilities = Capabilities { checksum_v4: true, tso_v4: true, max_frame: 1518, ..Capabilities::default() };
        let (nic, wire) = FakeNic::new(capabilities, 16);
        drop(path.set_nic(nic, "xenbr0"));
        let honest = [0, 1].map(|which| {
            let mut guest = Frontend::new(&xen, which + 1, which == 0);
            guest.mac = address(which as u8);
            guest.post(256);
            let id = path.attach(guest.config("xenbr0", Frontend::linux_features())).expect("a vif");
            Honest { guest, id, expected: VecDeque::new(), errors: 0, arrived: 0, serial: 0 }
        });
        let mallory = Mallory::new(&xen);
        let mut world = Self { xen, path, wire, honest, mallory, now: Instant(0), rest: (0, Live::default()) };
        for from in 0..2 {
            let mut bytes = vec![0xff; 6];
            bytes.extend(public_address(from));
            bytes.resize(60, 0);
            let sent = world.honest[usize::from(from)].guest.send(&Outgoing { bytes, ..Outgoing::default() });
            assert!(sent, "the ring is empty");
            world.send(from.into(), 100, false);
            world.settle();
        }
        // The NIC gives back what it sent.
        world.round();
        world.wire.borrow_mut().sent.clear();
        world.rest = (world.path.pool().available(), world.xen.live());
        world
    }

    /// An honest packet to the other honest guest.
    fn send(&mut self, from: usize, length: usize, super_frame: bool) {
        let [a, b] = &mut self.honest;
        let (sender, receiver) = if from == 0 { (a, b) } else { (b, a) };
        let mut bytes = Vec::from(receiver.guest.mac);
        bytes.extend(sender.guest.mac);
        let length = length.max(80);
        if super_frame {
            bytes.extend(tcp_headers(length - 14))
        } else {
            bytes.extend([0x88, 0xb5])
        }
        bytes.extend(sender.serial.to_ne_bytes());
        let serial = sender.serial as usize;
        bytes.extend((bytes.len()..length).map(|place| (place * 7 + serial) as u8));
        let packet = Outgoing {
            cuts: if serial.is_multiple_of(3) { vec![] } else { vec![30] },
            checksum: if super_frame { Checksum::Blank } else { Checksum::Unverified },
            gso: super_frame.then_some(netdom::packet::Gso { kind: netdom::packet::GsoKind::TcpV4, size: 1448 }),
            bytes,
        };
        if sender.guest.send(&packet) {
            sender.serial += 1;
            receiver.expected.push_back(packet.bytes);
        }
    }

    /// Hands events over and does one round.
    fn round(&mut self) -> bool {
        self.now = self.now + Duration::from_micros(5);
        while let Some(port) = self.xen.next_event() {
            self.path.handle_event(port, self.now);
        }
        let again = self.path.poll(self.now).again;
        for honest in &mut self.honest {
            honest.look();
        }
        again
    }

    /// Rounds until nothing is left to do now.
    fn settle(&mut self) -> u64 {
        for rounds in 0..2000 {
            if !self.round() && self.honest.iter().all(Honest::is_done) {
                return rounds;
            }
        }
        for honest in &self.honest {
            let statistics = self.path.vif_statistics(honest.id);
            assert!(honest.is_done(), "{} honest packets are lost or late: {statistics:?}", honest.expected.len());
        }
        panic!("the data path never rests");
    }

    fn act(&mut self, action: &Action, seen: &mut Vec<u64>) {
        match action {
            Action::Honest { from, length, super_frame } => {
                // Mostly short ones: it is the bytes that take the time.
                let limit = if *super_frame { 20_000 } else { 5_000 };
                let length = if length & 3 == 0 { usize::from(*length) % limit } else { usize::from(*length) % 200 };
                self.send(usize::from(*from & 1), length, *super_frame);
            }
            Action::ToMallory { from, length } => {
                let which = u8::from(*from);
                let mut bytes = mallory::ADDRESS.to_vec();
                bytes.extend(public_address(which));
                bytes.resize(20 + usize::from(*length % 5000), which);
                self.honest[usize::from(which)].guest.send(&Outgoing { bytes, ..Outgoing::default() });
            }
            Action::Wire { to_mallory, length } => {
                let mut frame = if *to_mallory { mallory::ADDRESS.to_vec() } else { vec![0xff; 6] };
                frame.resize(14 + usize::from(*length % 256), 3);
                self.wire.borrow_mut().incoming.push_back((frame, Checksum::Unverified));
            }
            Action::Poll => {
                self.round();
            }
            Action::Wait(milliseconds) => {
                // Honest packets must not be on their way meanwhile: they would rightly be given up.
                self.settle();
                self.now = self.now + Duration::from_millis(u64::from(*milliseconds));
                self.round();
            }
            Action::NicFull(full) => self.wire.borrow_mut().hold = *full,
            other => self.mallory.act(other),
        }
        let _ = seen;
    }

    /// Checks what must hold, after the hostile vif is gone.
    fn check(&mut self, closed: bool) {
        for honest in &mut self.honest {
            assert!(closed || honest.errors == 0, "a neighbour saw an error of a vif in good standing");
            honest.errors = 0;
            let answers = std::mem::take(&mut honest.guest.answers);
            assert!(answers.iter().all(|(_, status)| *status == 0), "an honest packet was refused");
        }
        assert_eq!(self.xen.take_violations(), [], "a fault of our own");
        let rest = (self.path.pool().available(), self.xen.live());
        assert_eq!(rest, self.rest, "something is held still");
    }
}

impl Honest {
    /// Whether all that was sent to it has arrived, and all that it sent is answered.
    fn is_done(&self) -> bool {
        self.expected.is_empty() && self.guest.transmit.free() == self.guest.transmit.slots()
    }

    /// Takes what has arrived, and makes room for more.
    fn look(&mut self) {
        for packet in self.guest.arrived() {
            if packet.error {
                self.errors += 1;
                continue;
            }
            self.arrived += 1;
            if packet.bytes.get(6..11) == Some(&address(0)[..5]) {
                let expected = self.expected.pop_front().expect("an honest packet came twice");
                assert!(
                    packet.bytes == expected,
                    "an honest packet is not what was sent: {} bytes of {}, {:02x?} for {:02x?}",
                    packet.bytes.len(),
                    expected.len(),
                    packet.bytes.get(..32),
                    expected.get(..32)
                );
            }
        }
        self.guest.post(256);
        self.guest.collect_answers();
    }
}

/// An input as it is read, for a look at it.
pub fn describe(input: &[u8]) -> String {
    let (features, actions) = decode(input);
    let lines = actions.iter().map(|action| format!("{action:?}\n"));
    std::iter::once(format!("{features:?}\n")).chain(lines).collect()
}

impl Target for Netback {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        let (features, actions) = decode(input);
        let config = self.mallory.reset(&features);
        let arrived: u64 = self.honest.iter().map(|honest| honest.arrived).sum();
        let Ok(id) = self.path.attach(config) else {
            panic!("the hostile vif could not be attached");
        };
        for action in &actions {
            self.act(action, seen);
        }
        self.wire.borrow_mut().hold = false;
        let rounds = self.settle();
        let mut closed = false;
        while let Some((failed, violation)) = self.path.poll_failed() {
            assert_eq!(failed, id, "a neighbour was closed: {violation}");
            assert!(!closed, "closed twice");
            closed = true;
            seen.push(crate::hash(format!("{:?}", std::mem::discriminant(&violation)).as_bytes()));
        }
        let statistics = self.path.detach(id).expect("the hostile vif");
        self.settle();
        self.wire.borrow_mut().incoming.clear();
        let wire = std::mem::take(&mut self.wire.borrow_mut().sent).len() as u64;
        self.path.poll(self.now);
        self.check(closed);
        let arrived = self.honest.iter().map(|honest| honest.arrived).sum::<u64>() - arrived;
        let counts = [
            rounds,
            wire,
            arrived,
            statistics.from_port.packets,
            statistics.from_port.bytes,
            statistics.to_port.packets,
            statistics.to_port.bytes,
            self.mallory.answers(),
        ];
        crate::see(seen, closed, counts.into_iter().chain(statistics.drops));
    }
}

/// Reads an input. Bytes that are missing are zero: every input is one.
fn decode(input: &[u8]) -> (Features, Vec<Action>) {
    let mut bytes = arbitrary::Unstructured::new(input);
    let bits: u8 = bytes.arbitrary().unwrap_or(0);
    let bit = |place: u8| bits & 1 << place != 0;
    let features = Features {
        scatter_gather: bit(0),
        gso_tcpv4: bit(1),
        gso_tcpv6: bit(2),
        checksum_v4: bit(3),
        checksum_v6: bit(4),
        receive_notify: bit(5),
        multicast_control: bit(6),
    };
    let mut actions = Vec::new();
    while actions.len() < ACTIONS && !bytes.is_empty() {
        match bytes.arbitrary() {
            Ok(action) => actions.push(action),
            Err(_) => break,
        }
    }
    (features, actions)
}
