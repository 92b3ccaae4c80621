//! netback with a hostile frontend beside honest ones, on two bridges. It has up to three queues, and may have a control ring. Host.
//!
//! The data path, the honest guests and the NIC live as long as the target; each input is one life of the hostile vif: attached, at
//! work, detached. What must hold: the honest guests' packets arrive whole, once and in order, answered with success, and each frame only
//! where a bridge brings it ([`honest`]); only the hostile vif is ever closed; an error is seen by a neighbour only where that happened; the
//! hostile guest sends no more than its rate; honest packets arrive within [`HONEST_ROUNDS`]; nothing is fetched twice from the hostile
//! ring; no call was made that Xen would refuse us as a fault of our own; and when the vif is gone, pages, mappings and channels are back.
//!
//! The domain's own life may end meanwhile, at any hypercall or behind a round, and the next one takes over what it wrote down ([`domain`]); that
//! may end while it does so. No node of an honest vif changes then; a request that was answered is not answered again, and one that
//! was not is answered once ([`honest`]); groups and counters are as they were written down.

mod domain;
mod honest;
mod mallory;

use crate::Target;
use domain::{Domain, Host};
use guests::tape::Step;
use honest::{BRIDGE_GROUP, BRIDGES, GUESTS, Honest, LISTENER, Model, STATION, address, group, public_address};
use mallory::{Action, Life, Mallory};
use netdom::credit::Rate;
use netdom::datapath::VifId;
use netdom::fakes::{Frontend, Outgoing};
use netdom::netback::config::{Features, VifConfig};
use netdom::packet::Checksum;
use netdom::statistics::PortStatistics;
use split_driver::fakes::{FakeXen, Live};
use split_driver::time::Duration;
use split_driver::xenbus::DeviceId;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Actions of an input, at most.
const ACTIONS: usize = 40;
/// Rounds in which the honest guests' packets arrive, with any hostile guest beside them: 1,000 of 5 us are what senders may wait for a
/// guest that filled many slots (`netdom/src/datapath/patience.rs`).
const HONEST_ROUNDS: u64 = 1_200;
/// Words of a ring before its slots (`io/ring.h`).
const RING_HEADER: usize = 16;

/// From this number of milliseconds on, a wait is the end of the domain's life: inputs from before lives ended read the same.
const MORTAL: u16 = 0xf000;

/// Inputs of a world in which lives end; in others they do not. With a store and a bus one takes as long as twenty without.
const MORTAL_INPUTS: u32 = 4;

/// What a life unwinds with at its end.
struct LifeEnded;

/// Where the domain's life ends.
#[derive(Clone, Copy, Debug)]
struct LifeEnd {
    /// Hypercalls of a round before it; behind the round where that has fewer.
    calls: u64,
    /// The same of the next life, while it takes over.
    adoption: Option<u64>,
    /// It fails, and the hostile vif is to blame if that was served.
    failed: bool,
}

impl LifeEnd {
    /// What a wait of so many milliseconds means.
    fn of(milliseconds: u16) -> Option<Self> {
        let bits = milliseconds.checked_sub(MORTAL)?;
        let adoption = (bits & 0x100 != 0).then_some(u64::from(bits >> 9) * 3);
        Some(Self { calls: u64::from(bits & 0x7f), adoption, failed: bits & 0x80 != 0 })
    }
}

/// The hostile vif, while it is there.
#[derive(Clone, Copy, Debug)]
enum Attached {
    /// To the data path alone.
    Direct(VifId),
    /// As a device of the bus.
    OnBus(DeviceId),
}

/// The world that inputs run in.
pub struct Netback {
    host: Host,
    domain: Domain,
    honest: [Honest; GUESTS],
    model: Model,
    mallory: Mallory,
    attached: Option<Attached>,
    /// What the hostile vif counted, as seen last.
    counted: PortStatistics,
    /// Lives that ended, and inputs in which they might.
    ended: u64,
    mortal_inputs: u32,
    /// What the honest vifs counted when that was written down.
    kept: [PortStatistics; GUESTS],
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
        let host = Host::new();
        let mut domain = Domain::new(&host, None);
        domain.take_over();
        let honest = std::array::from_fn(|which| {
            let mut guest = Frontend::new(&host.xen, which as u16 + 1, which.is_multiple_of(2));
            guest.mac = address(which);
            guest.post(256);
            let features = Features { multicast_control: which == LISTENER, ..Frontend::linux_features() };
            host.create(&guest.config(BRIDGES[which], features));
            domain.run_tasks();
            let id = domain.vif(honest::device(which)).expect("a vif");
            if which == LISTENER {
                assert!(guest.join(group(0)), "the ring is empty");
            }
            Honest::new(guest, id, which)
        });
        let (mallory, model) = (Mallory::new(&host.xen), Model::default());
        let (attached, counted, ended, mortal_inputs, kept, rest) = Default::default();
        let mut world =
            Self { host, domain, honest, model, mallory, attached, counted, ended, mortal_inputs, kept, rest };
        for from in 0..GUESTS {
            let mut bytes = vec![0xff; 6];
            bytes.extend(public_address(from));
            bytes.resize(60, 0);
            assert!(world.honest[from].guest.send(&Outgoing { bytes, ..Outgoing::default() }), "the ring is empty");
            world.settle();
            honest::send(&mut world.honest, &mut world.model, from, 100, false);
            world.settle();
        }
        // The NIC gives back what it sent, and the state is written down.
        world.host.advance(Duration::from_secs(1));
        world.round();
        world.host.wire.borrow_mut().sent.clear();
        world.rest = world.held();
        world
    }

    fn held(&self) -> (usize, Live) {
        (self.domain.path().pool().available(), self.host.xen.live())
    }

    /// The hostile vif on the data path, unless it was closed.
    fn hostile(&self) -> Option<VifId> {
        match self.attached? {
            Attached::Direct(id) => Some(id),
            Attached::OnBus(device) => self.domain.vif(device),
        }
    }

    /// Hands events over and does one round.
    fn round(&mut self) -> bool {
        self.host.advance(Duration::from_micros(5));
        self.model.set_now(self.host.now());
        self.host.xen.set_peer(self.attached.map(|_| self.mallory.peer()));
        let again = self.domain.round();
        self.host.xen.set_peer(None);
        if let Some(id) = self.hostile()
            && let Some(counted) = self.domain.path().vif_statistics(id)
        {
            self.counted = counted;
        }
        if let Some(Attached::OnBus(_)) = self.attached {
            self.domain.report();
        }
        let repeated = self.mallory.take_repeated(RING_HEADER);
        assert_eq!(repeated, None, "a word of the hostile ring was fetched twice in a round");
        for honest in &mut self.honest {
            honest.look(&self.model);
        }
        if self.domain.keep() {
            self.model.keep();
            self.kept = self.counters();
        }
        again
    }

    /// What the honest vifs have counted.
    fn counters(&self) -> [PortStatistics; GUESTS] {
        let path = self.domain.path();
        self.honest.each_ref().map(|honest| path.vif_statistics(honest.id).expect("an honest vif"))
    }

    /// The domain's life ends within a round, or behind it, and the next one takes over.
    fn end_life(&mut self, end: LifeEnd) {
        let Some(Attached::OnBus(hostile)) = self.attached else {
            return;
        };
        let devices = self.honest.each_ref().map(Honest::device);
        let nodes = devices.map(|device| self.host.nodes(device));
        let within_round = self.dies(Some(end.calls), |world| {
            world.round();
        });
        let blamed = (end.failed && within_round).then_some(hostile);
        self.begin_life(blamed);
        if self.dies(end.adoption, |world| world.domain.take_over()) {
            self.begin_life(None);
            self.domain.take_over();
        }
        for (honest, before) in self.honest.iter_mut().zip(nodes) {
            let id = self.domain.vif(honest.device());
            honest.id = id.expect("an honest vif is taken over");
            assert_eq!(self.host.nodes(honest.device()), before, "a node of an honest vif changed");
        }
        assert_eq!(self.counters(), self.kept, "counters are not those that were written down");
        honest::begin_life(&mut self.honest, &mut self.model);
    }

    /// Whether the life ends in `act`, behind so many hypercalls.
    fn dies(&mut self, calls: Option<u64>, act: impl FnOnce(&mut Self)) -> bool {
        if let Some(calls) = calls {
            self.host.xen.end_life_at_call(calls, || resume_unwind(Box::new(LifeEnded)));
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| act(self)));
        self.host.xen.spare_life();
        self.host.xen.set_peer(None);
        match outcome {
            Ok(()) => false,
            Err(end) if end.is::<LifeEnded>() => true,
            Err(other) => resume_unwind(other),
        }
    }

    /// The next life begins, and has not taken over yet.
    fn begin_life(&mut self, blamed: Option<DeviceId>) {
        self.ended += 1;
        // What was fetched and not answered is fetched by the next life.
        self.mallory.take_repeated(RING_HEADER);
        self.host.xen.end_life_now();
        let legacy = self.domain.end(blamed);
        self.host.xen.begin_life();
        self.domain = Domain::new(&self.host, Some(&legacy));
    }

    /// Rounds until nothing is left to do now, the NIC sending.
    fn settle(&mut self) -> u64 {
        let hold = std::mem::replace(&mut self.host.wire.borrow_mut().hold, false);
        for rounds in 0..2000 {
            let honest = self.honest.iter().all(Honest::is_done);
            assert!(honest || rounds < HONEST_ROUNDS, "honest packets are late by {rounds} rounds: {}", self.late());
            if !self.round() && self.honest.iter().all(Honest::is_done) {
                self.host.wire.borrow_mut().hold = hold;
                self.mallory.handle_rest();
                return rounds;
            }
        }
        panic!("the data path never rests");
    }

    /// Of each honest guest: packets that have not arrived, and its vif's counters.
    fn late(&self) -> String {
        let counters =
            self.honest.iter().map(|honest| (honest.missing(), self.domain.path().vif_statistics(honest.id)));
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
                self.host.wire.borrow_mut().incoming.push_back((frame, Checksum::Unverified));
            }
            Action::Poll => {
                self.round();
            }
            Action::Wait(milliseconds) if let Some(end) = LifeEnd::of(*milliseconds) => self.end_life(end),
            Action::Wait(milliseconds) => {
                // Honest packets must not be on their way meanwhile: they would rightly be given up.
                self.settle();
                self.host.advance(Duration::from_millis(u64::from(*milliseconds)));
                self.round();
            }
            Action::NicFull(full) => self.host.wire.borrow_mut().hold = *full,
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

    /// Attaches the hostile vif without a bus.
    fn attach(&mut self, config: VifConfig) -> Attached {
        match self.domain.path().attach(config) {
            Ok(id) => Attached::Direct(id),
            Err(error) => panic!("the hostile vif could not be attached: {error}"),
        }
    }

    /// The toolstack makes the hostile vif, and it is connected.
    fn create(&mut self, config: &VifConfig) -> Attached {
        let device = DeviceId { frontend: config.domain, handle: config.handle };
        self.host.create(config);
        self.domain.run_tasks();
        assert!(
            self.domain.vif(device).is_some(),
            "the hostile vif could not be attached: {:?}",
            self.host.error(device)
        );
        Attached::OnBus(device)
    }

    /// Takes the hostile vif away; true where it was closed before.
    fn detach(&mut self, seen: &mut Vec<u64>) -> bool {
        let mut closed = false;
        match self.attached.take() {
            Some(Attached::Direct(id)) => {
                while let Some((failed, violation)) = self.domain.path().poll_failed() {
                    assert_eq!(failed, id, "a neighbour was closed: {violation}");
                    assert!(!closed, "closed twice");
                    closed = true;
                    seen.push(crate::hash(format!("{:?}", std::mem::discriminant(&violation)).as_bytes()));
                }
                let statistics = self.domain.path().detach(id);
                assert!(statistics.is_some(), "the hostile vif");
            }
            Some(Attached::OnBus(device)) => {
                let error = self.host.error(device);
                closed = error.is_some();
                let words = error.iter().flat_map(|error| error.bytes()).filter(|byte| !byte.is_ascii_digit());
                seen.push(crate::hash(&words.collect::<Vec<_>>()));
                self.host.delete(device);
                self.domain.run_tasks();
                assert_eq!(self.domain.vif(device), None, "a vif without nodes");
                for honest in &self.honest {
                    let state = self.host.state(honest.device());
                    assert_eq!(state.as_deref(), Some("4"), "a neighbour was closed");
                }
            }
            None => {}
        }
        closed
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
        assert_eq!(self.host.xen.take_violations(), [], "a fault of our own");
        assert_eq!(self.held(), self.rest, "something is held still");
    }

    /// Looks at what went to the wire; gives how many frames.
    fn check_wire(&mut self) -> u64 {
        let sent = std::mem::take(&mut self.host.wire.borrow_mut().sent);
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
        self.model.hostile_bridge = life.bridge;
        let mortal = actions.iter().any(|action| matches!(action, Action::Wait(time) if LifeEnd::of(*time).is_some()));
        let mortal = mortal && self.mortal_inputs < MORTAL_INPUTS;
        self.mortal_inputs += u32::from(mortal);
        let ended = self.ended;
        self.counted = PortStatistics::default();
        self.attached = Some(if mortal { self.create(&config) } else { self.attach(config) });
        let start = self.host.now();
        for action in &actions {
            self.act(action);
        }
        self.host.wire.borrow_mut().hold = false;
        let rounds = self.settle();
        let closed = self.detach(seen);
        let statistics = self.counted;
        if let Some(Rate { bytes, interval }) = life.rate {
            let intervals = self.host.now().since(start).as_nanos() / interval.as_nanos() + 1;
            // Each life begins with an interval's bytes.
            let most = bytes * (intervals as u64 + self.ended - ended);
            assert!(statistics.from_port.bytes <= most, "{} bytes of {most}", statistics.from_port.bytes);
        }
        self.settle();
        self.host.wire.borrow_mut().incoming.clear();
        let wire = self.check_wire();
        self.domain.round();
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
            self.ended - ended,
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
