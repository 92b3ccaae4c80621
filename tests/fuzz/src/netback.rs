//! netback with a hostile frontend beside honest ones, on two bridges. It has up to three queues, and may have a control ring. Host.
//!
//! The data path, the honest guests and the NIC live as long as the target; each input is one life of the hostile vif: attached, at
//! work, detached. What must hold: the honest guests' packets arrive whole, once and in order, answered with success, and each frame only
//! where a bridge brings it ([`honest`]); only the hostile vif is ever closed; an error is seen by a neighbour only where that happened; the
//! hostile guest sends no more than its rate; honest packets arrive within [`HONEST_ROUNDS`]; nothing is fetched twice from the hostile
//! ring; no call was made that Xen would refuse us as a fault of our own; and when the vif is gone, pages, mappings and channels are back.

mod honest;
mod mallory;

use crate::Target;
use guests::tape::Step;
use honest::{BRIDGE_GROUP, BRIDGES, GUESTS, Honest, LISTENER, Model, STATION, address, group, public_address};
use mallory::{Action, Life, Mallory};
use netdom::credit::Rate;
use netdom::datapath::DataPath;
use netdom::fakes::{FakeNic, Frontend, Outgoing, Wire};
use netdom::netback::config::Features;
use netdom::nic::Capabilities;
use netdom::packet::{Checksum, Pool};
use split_driver::fakes::{FakePages, FakeXen, Live};
use split_driver::time::{Duration, Instant};
use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

/// Pages of the pool: few, so that it runs out.
const PAGES: usize = 512;
/// Actions of an input, at most.
const ACTIONS: usize = 40;
/// Rounds in which the honest guests' packets arrive, with any hostile guest beside them: 1,000 of 5 us are what senders may wait for a
/// guest that filled many slots (`netdom/src/datapath/patience.rs`).
const HONEST_ROUNDS: u64 = 1_200;
/// Words of a ring before its slots (`io/ring.h`).
const RING_HEADER: usize = 16;

/// The world that inputs run in.
pub struct Netback {
    xen: FakeXen,
    path: DataPath<FakeXen>,
    wire: Rc<RefCell<Wire>>,
    honest: [Honest; GUESTS],
    model: Model,
    mallory: Mallory,
    /// Whether the hostile vif is there.
    attached: bool,
    now: Instant,
    /// What is held while the hostile vif is not there.
    rest: (usize, Live),
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
        let capabilities = Capabilities { checksum_v4: true, tso_v4: true, max_frame: 9018, ..Capabilities::default() };
        let (nic, wire) = FakeNic::new(capabilities, 16);
        let added = path.add_nic(Box::new(nic), BRIDGES[0]);
        assert!(added.is_ok(), "there is room for a NIC");
        let honest = std::array::from_fn(|which| {
            let mut guest = Frontend::new(&xen, which as u16 + 1, which.is_multiple_of(2));
            guest.mac = address(which);
            guest.post(256);
            let features = Features { multicast_control: which == LISTENER, ..Frontend::linux_features() };
            let id = path.attach(guest.config(BRIDGES[which], features)).expect("a vif");
            if which == LISTENER {
                assert!(guest.join(group(0)), "the ring is empty");
            }
            Honest::new(guest, id, which)
        });
        let (mallory, model) = (Mallory::new(&xen), Model::default());
        let (now, rest) = (Instant(0), (0, Live::default()));
        let mut world = Self { xen, path, wire, honest, model, mallory, attached: false, now, rest };
        for from in 0..GUESTS {
            let mut bytes = vec![0xff; 6];
            bytes.extend(public_address(from));
            bytes.resize(60, 0);
            assert!(world.honest[from].guest.send(&Outgoing { bytes, ..Outgoing::default() }), "the ring is empty");
            world.settle();
            honest::send(&mut world.honest, &mut world.model, from, 100, false);
            world.settle();
        }
        // The NIC gives back what it sent.
        world.round();
        world.wire.borrow_mut().sent.clear();
        world.rest = (world.path.pool().available(), world.xen.live());
        world
    }

    /// Hands events over and does one round.
    fn round(&mut self) -> bool {
        self.now = self.now + Duration::from_micros(5);
        self.model.set_now(self.now);
        while let Some(port) = self.xen.next_event() {
            self.path.handle_event(port, self.now);
        }
        self.xen.set_peer(self.attached.then(|| self.mallory.peer()));
        let again = self.path.poll(self.now).again;
        self.xen.set_peer(None);
        let repeated = self.mallory.take_repeated(RING_HEADER);
        assert_eq!(repeated, None, "a word of the hostile ring was fetched twice in a round");
        for honest in &mut self.honest {
            honest.look(&self.model);
        }
        again
    }

    /// Rounds until nothing is left to do now, the NIC sending.
    fn settle(&mut self) -> u64 {
        let hold = std::mem::replace(&mut self.wire.borrow_mut().hold, false);
        for rounds in 0..2000 {
            let honest = self.honest.iter().all(Honest::is_done);
            assert!(honest || rounds < HONEST_ROUNDS, "honest packets are late by {rounds} rounds: {}", self.late());
            if !self.round() && self.honest.iter().all(Honest::is_done) {
                self.wire.borrow_mut().hold = hold;
                self.mallory.handle_rest();
                return rounds;
            }
        }
        panic!("the data path never rests");
    }

    /// Of each honest guest: packets that have not arrived, and its vif's counters.
    fn late(&self) -> String {
        let counters = self.honest.iter().map(|honest| (honest.missing(), self.path.vif_statistics(honest.id)));
        format!("{:?}", counters.collect::<Vec<_>>())
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Honest { from, length, super_frame } => {
                // Mostly short ones: it is the bytes that take the time.
                let limit = if *super_frame { 20_000 } else { 5_000 };
                let length = if length & 3 == 0 { usize::from(*length) % limit } else { usize::from(*length) % 200 };
                honest::send(&mut self.honest, &mut self.model, usize::from(*from) % GUESTS, length, *super_frame);
            }
            Action::HonestGroup { from, group } => {
                honest::send_to_group(&mut self.honest, &mut self.model, usize::from(*from) % GUESTS, *group);
            }
            Action::ToMallory { from, length } => {
                let near = BRIDGES.iter().position(|bridge| *bridge == self.model.hostile_bridge).unwrap_or(0);
                let which = near + usize::from(*from);
                let mut bytes = mallory::ADDRESS.to_vec();
                bytes.extend(public_address(which));
                bytes.resize(20 + usize::from(*length % 5000), which as u8);
                self.honest[which].guest.send(&Outgoing { bytes, ..Outgoing::default() });
            }
            Action::Wire { to_mallory, length } => {
                let group = if length & 0x100 == 0 { [0xff; 6] } else { BRIDGE_GROUP };
                let mut frame = if *to_mallory { mallory::ADDRESS.to_vec() } else { group.to_vec() };
                frame.extend(STATION);
                frame.resize(14 + usize::from(*length % 256), 3);
                self.model.from_wire.insert(frame.clone());
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
            other => {
                if self.mallory.must_wait(other) {
                    self.settle();
                }
                if let (Some(bytes), Some(sent)) = (self.mallory.act(other), &mut self.model.hostile) {
                    sent.insert(bytes);
                }
            }
        }
    }

    /// Checks what must hold, after the hostile vif is gone.
    fn check(&mut self, closed: bool) {
        for honest in &mut self.honest {
            assert!(closed || honest.errors == 0, "a neighbour saw an error of a vif in good standing");
            honest.errors = 0;
            let answers = std::mem::take(&mut honest.guest.answers);
            assert!(answers.iter().all(|(_, status)| *status == 0), "an honest packet was refused");
        }
        for head in self.mallory.received() {
            self.model.check_known(&head, GUESTS);
        }
        self.model.forget();
        assert_eq!(self.xen.take_violations(), [], "a fault of our own");
        let rest = (self.path.pool().available(), self.xen.live());
        assert_eq!(rest, self.rest, "something is held still");
    }

    /// Looks at what went to the wire; gives how many frames.
    fn check_wire(&mut self) -> u64 {
        let sent = std::mem::take(&mut self.wire.borrow_mut().sent);
        sent.iter().for_each(|frame| self.model.check_wire(&frame.bytes));
        sent.len() as u64
    }
}

/// An input as it is read, for a look at it.
pub fn describe(input: &[u8]) -> String {
    let (life, actions) = decode(input);
    let lines = actions.iter().map(|action| format!("{action:?}\n"));
    std::iter::once(format!("{life:?}\n")).chain(lines).collect()
}

/// What the hostile guest does in these inputs. What others do there is left out: under Xen there are others.
pub fn tape(inputs: &[Vec<u8>]) -> Vec<guests::tape::Life> {
    let mut mallory = Mallory::new(&FakeXen::new());
    for input in inputs {
        let (life, actions) = decode(input);
        mallory.reset(&life);
        mallory.recorder.begin(life.nodes());
        for action in &actions {
            match action {
                Action::Poll => mallory.recorder.note(|| Step::Wait(1)),
                Action::Wait(milliseconds) => mallory.recorder.note(|| Step::Wait((*milliseconds).into())),
                other => drop(mallory.act(other)),
            }
        }
    }
    mallory.recorder.finish()
}

impl Target for Netback {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        let (life, actions) = decode(input);
        let config = self.mallory.reset(&life);
        self.model.hostile = life.tame.then(HashSet::new);
        let arrived: u64 = self.honest.iter().map(|honest| honest.arrived).sum();
        let Ok(id) = self.path.attach(config) else {
            panic!("the hostile vif could not be attached");
        };
        (self.attached, self.model.hostile_bridge) = (true, life.bridge);
        let start = self.now;
        for action in &actions {
            self.act(action);
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
        self.attached = false;
        if let Some(Rate { bytes, interval }) = life.rate {
            let intervals = self.now.since(start).as_nanos() / interval.as_nanos() + 1;
            let most = bytes * intervals as u64;
            assert!(statistics.from_port.bytes <= most, "{} bytes of {most}", statistics.from_port.bytes);
        }
        self.settle();
        self.wire.borrow_mut().incoming.clear();
        let wire = self.check_wire();
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
fn decode(input: &[u8]) -> (Life, Vec<Action>) {
    let mut bytes = arbitrary::Unstructured::new(input);
    let [low, high, further]: [u8; 3] = bytes.arbitrary().unwrap_or_default();
    let bit = |place: u8| low & 1 << place != 0;
    let features = Features {
        scatter_gather: bit(0),
        gso_tcpv4: bit(1),
        gso_tcpv6: bit(2),
        checksum_v4: bit(3),
        checksum_v6: bit(4),
        receive_notify: bit(5),
        multicast_control: bit(6),
    };
    let tame = high & 1 != 0;
    let limited = !tame && high & 2 != 0;
    let rate = limited.then(|| Rate { bytes: 1000 << (high >> 4), interval: Duration::from_millis(50) });
    let bridge = BRIDGES[if bit(7) { LISTENER } else { 0 }];
    let (queues, control) = (1 + further % 3, further & 4 != 0);
    let headroom = [0, 0, 256, 4095][usize::from(further >> 3 & 3)];
    let life = Life { features, bridge, rate, tame, queues, control, headroom };
    let mut actions = Vec::new();
    while actions.len() < ACTIONS && !bytes.is_empty() {
        match bytes.arbitrary() {
            Ok(action) => actions.push(action),
            Err(_) => break,
        }
    }
    (life, actions)
}
