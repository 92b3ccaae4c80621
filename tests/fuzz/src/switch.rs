//! Which ports get a frame: where the switch knows stations, guests that are kept apart, and limits of what goes to all, against a model that looks
//! through all that was said. Host.
//!
//! An input is what happens on two bridges: frames, bursts of them, guests that come and go, and time. What must hold: a frame goes where its
//! station was heard of last, or else to all ports of its VLAN; from a guest that is kept apart it never goes to another one; and a frame that goes to
//! all passes if, and only if, no span of time has more of its guest's than the limit.

use crate::{Target, hash};
use arbitrary::{Arbitrary, Unstructured};
use netdom::ethernet::{MacAddress, VlanId};
use netdom::policy::storm::{Allowance, StormLimit};
use netdom::switch::{AGEING, Forward, PortId, Switch, Vlans};
use split_driver::time::{Duration, Instant};

/// Acts of an input, at most, and frames of a burst.
const ACTS: usize = 24;
const BURST: u8 = 16;
/// Addresses that are known on a port. The table has room for all.
const SHARE: usize = 4;
/// An address heard of again so soon is not touched.
const FRESH: Duration = Duration::from_secs(1);
/// Frames a second that go to all. Some intervals are not whole nanoseconds.
const LIMITS: [u32; 6] = [1, 2, 3, 7, 20, StormLimit::MOST];
/// Nanoseconds.
const UNITS: [u64; 7] = [1, 1000, 50_000_000, 333_333_333, 500_000_000, 1_000_000_000, 60_000_000_000];
const VLAN: u16 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Wire,
    Router,
    Guest,
    /// It is kept apart from the others of its kind.
    Isolated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carries {
    All,
    Untagged,
    /// Frames of [`VLAN`], without a tag or with it.
    Access,
    Tagged,
}

/// The ports: on one bridge two wires, guests that are kept apart, and a router; on another a wire and guests.
const BRIDGES: [&str; 2] = ["xenbr0", "inside"];
const PORTS: [(usize, Kind, Carries); 10] = [
    (0, Kind::Wire, Carries::All),
    (0, Kind::Isolated, Carries::All),
    (0, Kind::Isolated, Carries::Access),
    (0, Kind::Isolated, Carries::Untagged),
    (0, Kind::Router, Carries::Untagged),
    (0, Kind::Wire, Carries::All),
    (1, Kind::Wire, Carries::All),
    (1, Kind::Guest, Carries::All),
    (1, Kind::Guest, Carries::Tagged),
    (1, Kind::Guest, Carries::Untagged),
];
/// The router's own address, which is on its port for good.
const ROUTER: MacAddress = station(13);
const ZERO: MacAddress = MacAddress([0; 6]);
const GROUP: MacAddress = MacAddress([1, 0, 0x5e, 1, 2, 3]);

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Act {
    Pass { unit: u8, count: u8 },
    Come { port: u8, limit: u8 },
    Go { port: u8 },
    Frame { port: u8, tagged: bool, from: u8, to: u8 },
    Burst { port: u8, tagged: bool, from: u8, to: u8, count: u8 },
}

/// Ports, a bit for each.
type Ports = u16;

const fn station(number: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, number])
}

const fn reserved(last: u8) -> MacAddress {
    MacAddress([1, 0x80, 0xc2, 0, 0, last])
}

fn source(number: u8) -> MacAddress {
    match number % 16 {
        14 => ZERO,
        15 => GROUP,
        number => station(number),
    }
}

fn destination(number: u8) -> MacAddress {
    match number % 20 {
        14 => ZERO,
        15 => MacAddress::BROADCAST,
        16 => GROUP,
        17 => reserved(0),
        18 => reserved(0x0f),
        19 => reserved(0x10),
        number => station(number),
    }
}

impl Carries {
    fn vlans(self) -> Vlans {
        let vlan = VlanId::new(VLAN).unwrap();
        match self {
            Self::All => Vlans::TRUNK,
            Self::Untagged => Vlans::NONE,
            Self::Access => Vlans::access(vlan),
            Self::Tagged => Vlans::new(None, vec![vlan]),
        }
    }

    fn has(self, vlan: u16) -> bool {
        match self {
            Self::All => true,
            Self::Untagged => vlan == 0,
            Self::Access | Self::Tagged => vlan == VLAN,
        }
    }
}

/// A station was heard on a port.
struct Heard {
    bridge: usize,
    vlan: u16,
    station: MacAddress,
    port: usize,
    /// When last; `None` where it is there for good.
    at: Option<Instant>,
}

/// All that was said.
#[derive(Default)]
struct Model {
    now: Instant,
    there: [bool; PORTS.len()],
    /// By port, those heard of last at the end.
    heard: Vec<Heard>,
    /// What each guest may send to all in a second, and when what it sent so far passed, in nanoseconds.
    limits: [u32; PORTS.len()],
    passed: [Vec<u64>; PORTS.len()],
}

impl Model {
    fn place(&self, bridge: usize, vlan: u16, station: MacAddress) -> Option<usize> {
        self.heard.iter().position(|heard| (heard.bridge, heard.vlan, heard.station) == (bridge, vlan, station))
    }

    fn count(&self, port: usize) -> usize {
        self.heard.iter().filter(|heard| heard.port == port).count()
    }

    fn hear(&mut self, port: usize, vlan: u16, station: MacAddress) {
        let (bridge, now) = (PORTS[port].0, self.now);
        let known = self.place(bridge, vlan, station).map(|place| &self.heard[place]);
        let is_settled =
            known.is_some_and(|heard| heard.at.is_none_or(|at| heard.port == port && now.since(at) < FRESH));
        if is_settled {
            return;
        }
        if known.is_none_or(|heard| heard.port != port) && self.count(port) >= SHARE {
            let oldest = self.heard.iter().position(|heard| heard.port == port).unwrap();
            self.heard.remove(oldest);
        }
        if let Some(place) = self.place(bridge, vlan, station) {
            self.heard.remove(place);
        }
        self.heard.push(Heard { bridge, vlan, station, port, at: Some(now) });
    }

    fn all(&self, from: usize, vlan: u16) -> Ports {
        let (bridge, kind, _) = PORTS[from];
        let gets = |to: &usize| {
            let apart = (kind, PORTS[*to].1) == (Kind::Isolated, Kind::Isolated);
            *to != from && self.there[*to] && PORTS[*to].0 == bridge && PORTS[*to].2.has(vlan) && !apart
        };
        (0..PORTS.len()).filter(gets).fold(0, |all, to| all | 1 << to)
    }

    /// Whether one more frame to all may pass: each span of time that begins with one of those before has room for it.
    fn has_room(&self, port: usize) -> bool {
        let (limit, passed) = (u64::from(self.limits[port]), &self.passed[port]);
        let interval = 1_000_000_000 / limit;
        passed.iter().enumerate().all(|(place, begin)| {
            let frames = (passed.len() - place + 1) as u64;
            frames * interval <= limit * interval + (self.now.0 - begin)
        })
    }

    /// The ports that get a frame.
    fn frame(&mut self, port: usize, vlan: u16, source: MacAddress, destination: MacAddress) -> Ports {
        let (bridge, kind, _) = PORTS[port];
        let is_reserved = (0..0x10).any(|last| destination == reserved(last)) && destination != reserved(0);
        if !self.there[port] || source == ZERO || source == GROUP || is_reserved {
            return 0;
        }
        self.hear(port, vlan, source);
        if let Some(place) = self.place(bridge, vlan, destination) {
            let Heard { port: to, at, .. } = self.heard[place];
            if at.is_none_or(|at| self.now.since(at) <= AGEING) {
                let apart = (kind, PORTS[to].1) == (Kind::Isolated, Kind::Isolated);
                return if to == port || apart { 0 } else { 1 << to };
            }
            self.heard.remove(place);
        }
        if matches!(kind, Kind::Guest | Kind::Isolated) {
            if !self.has_room(port) {
                return 0;
            }
            self.passed[port].push(self.now.0);
        }
        self.all(port, vlan)
    }
}

/// The target. Its table stays from one input to the next, and loses all ports before: an entry that is left would be seen.
pub struct Bridges {
    switch: Switch,
    allowances: [Option<Allowance>; PORTS.len()],
    model: Model,
    frames: u64,
}

impl Default for Bridges {
    fn default() -> Self {
        let switch = Switch::new(SHARE * PORTS.len(), AGEING, 5);
        Self { switch, allowances: [None; PORTS.len()], model: Model::default(), frames: 0 }
    }
}

impl Bridges {
    fn come(&mut self, port: usize, limit: u8) {
        self.go(port);
        let (bridge, kind, carries) = PORTS[port];
        let limit = LIMITS[usize::from(limit) % LIMITS.len()];
        self.switch.add(PortId(port as u16), BRIDGES[bridge], carries.vlans(), SHARE).expect("it is on no bridge");
        self.model.there[port] = true;
        match kind {
            Kind::Wire => return,
            Kind::Router => {
                self.switch.pin(PortId(port as u16), ROUTER);
                self.model.heard.retain(|heard| (heard.bridge, heard.vlan, heard.station) != (bridge, 0, ROUTER));
                self.model.heard.push(Heard { bridge, vlan: 0, station: ROUTER, port, at: None });
                return;
            }
            Kind::Isolated => self.switch.isolate(PortId(port as u16)),
            Kind::Guest => {}
        }
        self.allowances[port] = StormLimit::new(limit).map(Allowance::new);
        self.model.limits[port] = limit;
        self.model.passed[port].clear();
    }

    fn go(&mut self, port: usize) {
        assert_eq!(self.switch.remove(PortId(port as u16)), self.model.there[port]);
        self.allowances[port] = None;
        self.model.there[port] = false;
        self.model.heard.retain(|heard| heard.port != port);
    }

    /// No port is there, and nothing is known.
    fn clear(&mut self) {
        (0..PORTS.len()).for_each(|port| self.go(port));
        assert!(self.switch.is_empty() && self.model.heard.is_empty());
        self.model.now = Instant(1);
    }

    /// The ports that a frame goes to, as the domain has it.
    fn spread(&mut self, port: usize, vlan: u16, source: MacAddress, destination: MacAddress) -> Ports {
        let now = self.model.now;
        match self.switch.forward(PortId(port as u16), vlan, destination, source, now) {
            Forward::Drop(_) => 0,
            Forward::Port(PortId(to)) => 1 << to,
            Forward::Flood if self.allowances[port].as_mut().is_some_and(|allowance| !allowance.take(now)) => 0,
            Forward::Flood => self.switch.flood(PortId(port as u16), vlan).fold(0, |all, PortId(to)| {
                assert_eq!(all & 1 << to, 0, "a port twice");
                all | 1 << to
            }),
        }
    }

    fn send(&mut self, (port, tagged): (u8, bool), (from, to): (u8, u8), count: u8, seen: &mut Vec<u64>) {
        let port = usize::from(port) % PORTS.len();
        let (_, kind, carries) = PORTS[port];
        let wanted = if tagged { VLAN } else { 0 };
        let vlan = if carries.has(wanted) { wanted } else { VLAN - wanted };
        let (from, to) = (if kind == Kind::Router { ROUTER } else { source(from) }, destination(to));
        for _ in 0..count {
            self.frames += 1;
            let (found, expected) = (self.spread(port, vlan, from, to), self.model.frame(port, vlan, from, to));
            assert_eq!(found, expected, "from {port}, VLAN {vlan}, {from} to {to}, at {:?}", self.model.now);
            let gets_it = |to: usize, kind: Kind| found & 1 << to != 0 && PORTS[to].1 == kind;
            let is_apart = kind == Kind::Isolated && (0..PORTS.len()).any(|to| gets_it(to, Kind::Isolated));
            assert!(!is_apart, "a frame between two that are kept apart");
            let class = u8::from(to.is_group()) | u8::from(to.is_link_local()) << 1 | u8::from(to == ROUTER) << 2;
            seen.push(hash(&[0, kind as u8, vlan as u8, class, found.count_ones() as u8]));
        }
        let passed = self.model.passed[port].len().checked_ilog2().map_or(0, |magnitude| magnitude + 1) as u8;
        seen.push(hash(&[1, kind as u8, self.model.count(port) as u8, passed]));
    }

    fn act(&mut self, act: Act, seen: &mut Vec<u64>) {
        match act {
            Act::Pass { unit, count } => {
                let unit = Duration::from_nanos(UNITS[usize::from(unit) % UNITS.len()]);
                self.model.now = self.model.now + unit * (u32::from(count) % 8 + 1);
            }
            Act::Come { port, limit } => self.come(usize::from(port) % PORTS.len(), limit),
            Act::Go { port } => self.go(usize::from(port) % PORTS.len()),
            Act::Frame { port, tagged, from, to } => self.send((port, tagged), (from, to), 1, seen),
            Act::Burst { port, tagged, from, to, count } => {
                self.send((port, tagged), (from, to), count % BURST + 1, seen);
            }
        }
    }
}

/// The first byte of an input says what guests may send to all; the rest is acts. Every input is one.
fn decode(input: &[u8]) -> (u8, impl Iterator<Item = Act>) {
    let mut bytes = Unstructured::new(input);
    let limit = bytes.arbitrary().unwrap_or(0);
    let act = move || if bytes.is_empty() { None } else { bytes.arbitrary().ok() };
    (limit, std::iter::from_fn(act).take(ACTS))
}

/// An input as it is read, for a look at it.
pub fn describe(input: &[u8]) -> String {
    let (limit, acts) = decode(input);
    std::iter::once(format!("limits from {limit}\n")).chain(acts.map(|act| format!("{act:?}\n"))).collect()
}

impl Target for Bridges {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        let (limit, acts) = decode(input);
        self.clear();
        for port in 0..PORTS.len() {
            self.come(port, limit.wrapping_add(port as u8));
        }
        acts.for_each(|act| self.act(act, seen));
        assert_eq!(self.switch.len(), self.model.heard.len());
        for port in 0..PORTS.len() {
            let newest = self.model.heard.iter().rev().filter(|heard| heard.port == port);
            let listed = self.switch.addresses(PortId(port as u16));
            assert!(listed.eq(newest.map(|heard| (heard.vlan, heard.station))), "the addresses of {port}");
        }
        seen.push(hash(&[2, self.model.heard.len() as u8]));
    }

    fn operations(&self) -> Option<u64> {
        Some(self.frames)
    }
}
