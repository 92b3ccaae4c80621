//! Which ports get the frames of multicast groups, against a model that remembers all that was said and looks through all of it. Host.
//!
//! An input is what happens on two bridges: time passes, guests come and go, routers ask, hosts report and leave groups in all versions of IGMP
//! and MLD, and send to them. What must hold: a guest gets the frames of each group that it reported and has not left, or that may be for it;
//! and none of a group that it never reported or has left. A guest whose messages are damaged anyhow changes nothing for the others.

use crate::{Target, hash};
use arbitrary::{Arbitrary, Unstructured};
use netdom::offload::checksum::Sum;
use netdom::offload::head::{HEAD_BYTES, Head};
use netdom::policy::multicast::{Audience, Behind, LAST_MEMBER, MEMBERSHIP, Multicast, QUERIER_PRESENT};
use netdom::switch::PortId;
use split_driver::time::{Duration, Instant};

/// Acts of an input, at most.
const ACTS: usize = 16;
/// Groups of a guest: more than it gets into by reports of those below, and of the first few of many.
const SHARE: usize = 24;
/// How many it gets into at once, and how many of them each message is about.
const MANY: u8 = SHARE as u8 + 2;
const RECORDS: u8 = 9;
/// The wire, hosts, a guest that may be a bridge, and on another bridge a host and a wire.
const PORTS: [(u16, Behind); 8] = [
    (0, Behind::Wire),
    (0, Behind::Host),
    (0, Behind::Host),
    (0, Behind::Any),
    (0, Behind::Host),
    (1, Behind::Wire),
    (1, Behind::Host),
    (1, Behind::Any),
];
/// The port whose messages are damaged: nothing is said of what it gets.
const JUNK: usize = 4;
/// An answer may be late.
const LATE: Duration = Duration::from_secs(1);
/// Groups of IPv4; the first two have one Ethernet address. The last always goes to all, and so does one that has the address of 224.0.0.9.
const GROUPS_V4: [[u8; 4]; 6] =
    [[239, 1, 2, 3], [225, 129, 2, 3], [239, 1, 2, 4], [232, 0, 0, 9], [230, 9, 9, 9], [224, 0, 0, 251]];
/// Groups of IPv6 by their second and last bytes; the last is ff02::1.
const GROUPS_V6: [[u8; 2]; 5] = [[2, 9], [5, 9], [2, 0x16], [0x0e, 7], [2, 1]];

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Act {
    Pass { quarters: u8 },
    Come { port: u8 },
    Go { port: u8 },
    Query { port: u8, v6: bool, tenths: u8, vlan: bool },
    Say { port: u8, group: GroupChoice, how: How, vlan: bool },
    Junk { group: GroupChoice, how: How, change: (u8, u8), cut: u8 },
    Data { port: u8, group: GroupChoice, vlan: bool },
    Many { port: u8, count: u8 },
}

#[derive(Arbitrary, Clone, Copy, Debug)]
struct GroupChoice {
    v6: bool,
    number: u8,
}

/// A report or a leave, of an older version or as a record of the newer one among others.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum How {
    Report,
    Leave,
    Record { kind: u8, sources: u8, before: u8 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Group {
    V4([u8; 4]),
    V6([u8; 16]),
}

impl GroupChoice {
    fn group(self) -> Group {
        let number = usize::from(self.number);
        if !self.v6 {
            return Group::V4(GROUPS_V4[number % GROUPS_V4.len()]);
        }
        let [scope, last] = GROUPS_V6[number % GROUPS_V6.len()];
        let mut octets = [0; 16];
        (octets[0], octets[1], octets[15]) = (0xff, scope, last);
        Group::V6(octets)
    }
}

impl Group {
    fn mac(self) -> [u8; 6] {
        match self {
            Self::V4([_, b, c, d]) => [1, 0, 0x5e, b & 0x7f, c, d],
            Self::V6([.., a, b, c, d]) => [0x33, 0x33, a, b, c, d],
        }
    }

    fn is_v6(self) -> bool {
        matches!(self, Self::V6(_))
    }

    fn octets(&self) -> &[u8] {
        match self {
            Self::V4(octets) => octets,
            Self::V6(octets) => octets,
        }
    }

    fn is_for_all(self) -> bool {
        matches!(self.mac(), [1, 0, 0x5e, 0, 0, _] | [0x33, 0x33, 0, 0, 0, 1])
    }

    fn all_hosts(v6: bool) -> Self {
        if v6 { GroupChoice { v6, number: 4 }.group() } else { Self::V4([224, 0, 0, 1]) }
    }
}

/// Where all packets of IPv6 are from.
const SOURCE: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];

/// Begins a packet for a group, whose length is still zero.
fn begin(frame: &mut Vec<u8>, destination: Group, protocol: u8) {
    frame.clear();
    frame.extend(destination.mac());
    frame.extend([0, 0x16, 0x3e, 0, 0, 1]);
    match destination {
        Group::V4(octets) => {
            frame.extend([0x08, 0x00, 0x45, 0, 0, 0, 0, 0, 0, 0, 1, protocol, 0, 0, 10, 0, 0, 5]);
            frame.extend(octets);
        }
        Group::V6(octets) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, protocol, 1]);
            frame.extend(SOURCE);
            frame.extend(octets);
        }
    }
}

/// Gives a packet its length.
fn end(frame: &mut [u8], destination: Group) {
    let (place, before) = if destination.is_v6() { (18, 54) } else { (16, 14) };
    let length = (frame.len() - before) as u16;
    frame[place..place + 2].copy_from_slice(&length.to_be_bytes());
}

/// Writes a message of IGMP or MLD, with its checksum.
fn message(frame: &mut Vec<u8>, destination: Group, write: impl FnOnce(&mut Vec<u8>)) {
    if destination.is_v6() {
        begin(frame, destination, 0);
        frame.extend([58, 0, 5, 2, 0, 0, 1, 0]);
    } else {
        begin(frame, destination, 2);
    }
    let start = frame.len();
    write(frame);
    let mut sum = Sum::new();
    if destination.is_v6() {
        sum.add(&SOURCE);
        sum.add(destination.octets());
        sum.add_u16((frame.len() - start) as u16);
        sum.add_u16(58);
    }
    sum.add(&frame[start..]);
    frame[start + 2..start + 4].copy_from_slice(&sum.checksum().to_be_bytes());
    end(frame, destination);
}

fn query(frame: &mut Vec<u8>, v6: bool, tenths: u8) {
    let [high, low] = (u16::from(tenths) * 100).to_be_bytes();
    message(frame, Group::all_hosts(v6), |frame| match v6 {
        false => frame.extend([0x11, tenths, 0, 0, 0, 0, 0, 0]),
        true => {
            frame.extend([130, 0, 0, 0, high, low, 0, 0]);
            frame.extend([0; 16]);
        }
    });
}

/// A report of IGMPv3 that a host is in all of these groups.
fn join_all(frame: &mut Vec<u8>, groups: impl ExactSizeIterator<Item = Group>) {
    message(frame, Group::V4([224, 0, 0, 22]), |frame| {
        frame.extend([0x22, 0, 0, 0, 0, 0, 0, groups.len() as u8]);
        for group in groups {
            frame.extend([4, 0, 0, 0]);
            frame.extend(group.octets());
        }
    });
    assert!(frame.len() <= HEAD_BYTES);
}

fn data(frame: &mut Vec<u8>, group: Group) {
    begin(frame, group, 17);
    frame.extend([0; 16]);
    end(frame, group);
}

impl How {
    fn write(self, frame: &mut Vec<u8>, group: Group) {
        let v6 = group.is_v6();
        let routers = |last| if v6 { GroupChoice { v6, number: 2 }.group() } else { Group::V4([224, 0, 0, last]) };
        let old = |frame: &mut Vec<u8>, kind: [u8; 2]| {
            frame.extend([kind[usize::from(v6)], 0, 0, 0]);
            frame.extend(if v6 { &[0; 4][..] } else { &[] });
            frame.extend(group.octets());
        };
        match self {
            Self::Report => message(frame, group, |frame| old(frame, [0x16, 131])),
            Self::Leave => message(frame, routers(2), |frame| old(frame, [0x17, 132])),
            Self::Record { kind, sources, before } => message(frame, routers(22), |frame| {
                let width = if v6 { 16 } else { 4 };
                frame.extend([if v6 { 143 } else { 0x22 }, 0, 0, 0, 0, 0, 0, before % 2 + 1]);
                if before % 2 == 1 {
                    // Of another group, it changes sources alone.
                    frame.extend([6, 0, 0, 1]);
                    frame.extend(GroupChoice { v6, number: 3 }.group().octets());
                    frame.extend(&[7; 16][..width]);
                }
                frame.extend([kind % 8, 0, 0, sources % 3]);
                frame.extend(group.octets());
                frame.extend(&[7; 32][..width * usize::from(sources % 3)]);
            }),
        }
    }

    /// Whether a host is in the group by that; `None` where it says nothing.
    fn is_in(self) -> Option<bool> {
        match self {
            Self::Report => Some(true),
            Self::Leave => Some(false),
            Self::Record { kind, sources, .. } => match kind % 8 {
                2 | 4 | 5 => Some(true),
                1 | 3 => Some(sources % 3 > 0),
                _ => None,
            },
        }
    }
}

/// What one said of a group, and when it holds no more.
#[derive(Clone, Copy)]
struct Said {
    port: usize,
    vlan: u16,
    group: Group,
    until: Instant,
    /// It was left: nothing is certain from then on.
    left: bool,
}

/// All that was said.
#[derive(Default)]
struct Model {
    now: Instant,
    /// When each port came, if it is there, and after how many questions.
    came: [Option<(Instant, usize)>; PORTS.len()],
    said: Vec<Said>,
    /// Questions that were heeded: bridge, VLAN, family, port, when, and until when answers may come.
    asked: Vec<(u16, u16, bool, usize, Instant, Instant)>,
    /// Ports that reported very many groups.
    many: [bool; PORTS.len()],
}

impl Model {
    fn is_asked(&self, bridge: u16, vlan: u16, v6: bool) -> bool {
        let mut from = None;
        let mut until = Instant(0);
        for (_, _, _, _, at, answered) in
            self.asked.iter().filter(|(b, v, family, ..)| (*b, *v, *family) == (bridge, vlan, v6))
        {
            if from.is_none() || until <= *at {
                from = Some(*answered);
            }
            until = *at + QUERIER_PRESENT;
        }
        from.is_some_and(|from| from <= self.now) && self.now < until
    }

    fn is_router(&self, port: usize) -> bool {
        let asks = |(_, _, _, by, at, _): &(u16, u16, bool, usize, Instant, Instant)| {
            *by == port && self.now < *at + QUERIER_PRESENT
        };
        let since = self.came[port].map_or(0, |(_, questions)| questions);
        PORTS[port].1 == Behind::Wire || self.asked.iter().skip(since).any(asks)
    }

    /// Whether a port that came may have asked for anything: until all questions since were answered.
    fn is_new(&self, port: usize, v6: bool) -> bool {
        let Some((came, questions)) = self.came[port] else {
            return false;
        };
        let bridge = PORTS[port].0;
        let first = self.asked.iter().skip(questions).find(|(b, _, family, ..)| (*b, *family) == (bridge, v6));
        let answered = first.map_or(came + MEMBERSHIP, |(.., answered)| (*answered).min(came + MEMBERSHIP));
        self.now < answered
    }

    /// Whether a port must get a group, and whether it may.
    fn gets(&self, port: usize, vlan: u16, group: Group) -> (bool, bool) {
        if self.is_router(port) || self.is_new(port, group.is_v6()) {
            return (true, true);
        }
        let said = || self.said.iter().filter(|said| said.port == port && said.vlan == vlan);
        let must = said().any(|said| said.group == group && !said.left && self.now < said.until);
        let may = said().any(|said| said.group.mac() == group.mac() && self.now < said.until);
        (must, may || self.many[port])
    }

    /// Whether a port left a group with this one's Ethernet address.
    fn has_left(&self, port: usize, vlan: u16, group: Group) -> bool {
        let mut said = self.said.iter().filter(|said| said.port == port && said.vlan == vlan);
        said.any(|said| said.left && said.group.mac() == group.mac())
    }
}

/// The target. Its tables stay from one input to the next, and lose all ports before: an entry that is left would be seen.
pub struct Groups {
    multicast: Multicast,
    model: Model,
    frame: Vec<u8>,
    listed: Vec<PortId>,
    acts: u64,
}

impl Default for Groups {
    fn default() -> Self {
        let (model, frame, listed, acts) = Default::default();
        Self { multicast: Multicast::with_share(1, SHARE), model, frame, listed, acts }
    }
}

struct Run<'a> {
    multicast: &'a mut Multicast,
    model: &'a mut Model,
    /// The frame that comes next, and the ports that the last one was for.
    frame: &'a mut Vec<u8>,
    listed: &'a mut Vec<PortId>,
    seen: &'a mut Vec<u64>,
}

/// Ports, a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ports(u8);

impl Ports {
    fn contain(self, port: usize) -> bool {
        self.0 & 1 << port != 0
    }

    fn add(&mut self, PortId(port): PortId) {
        assert!(usize::from(port) < PORTS.len(), "no such port");
        assert!(!self.contain(port.into()), "a port twice");
        self.0 |= 1 << port;
    }
}

impl Run<'_> {
    /// The ports that the frame was listed for; `None` where it is for all.
    fn handle(&mut self, from: usize, vlan: u16) -> Option<Ports> {
        let bytes = &self.frame[..self.frame.len().min(HEAD_BYTES)];
        let head = Head::parse(bytes)?;
        self.listed.clear();
        let audience = self.multicast.handle(PortId(from as u16), vlan, (&head, bytes), self.model.now, self.listed);
        let mut ports = Ports::default();
        self.listed.iter().for_each(|port| ports.add(*port));
        (audience == Audience::Listed).then_some(ports)
    }

    /// No port is there, and all is forgotten.
    fn clear(&mut self) {
        (0..PORTS.len()).for_each(|port| self.go(port));
        assert!(self.model.said.is_empty());
        self.model.asked.clear();
        self.model.now = Instant(1);
    }

    fn come(&mut self, port: usize) {
        self.go(port);
        let (bridge, behind) = PORTS[port];
        self.multicast.add(PortId(port as u16), bridge, behind, self.model.now);
        self.model.came[port] = Some((self.model.now, self.model.asked.len()));
    }

    fn go(&mut self, port: usize) {
        self.multicast.remove(PortId(port as u16));
        self.model.came[port] = None;
        self.model.many[port] = false;
        self.model.said.retain(|said| said.port != port);
        let bridge = PORTS[port].0;
        let is_empty = !(0..PORTS.len()).any(|other| PORTS[other].0 == bridge && self.model.came[other].is_some());
        if is_empty {
            // The places of the others stay.
            for (known, ..) in self.model.asked.iter_mut().filter(|(known, ..)| *known == bridge) {
                *known = u16::MAX;
            }
        }
    }

    fn say(&mut self, port: usize, vlan: u16, group: Group, how: How) {
        how.write(self.frame, group);
        let listed = self.handle(port, vlan);
        let (bridge, behind) = PORTS[port];
        if let Some(listed) = listed {
            for other in (0..PORTS.len()).filter(|other| self.model.came[*other].is_some() && *other != JUNK) {
                let is_listed = listed.contain(other);
                assert_eq!(is_listed, PORTS[other].0 == bridge && self.model.is_router(other), "a report to {other}");
            }
        }
        if behind == Behind::Wire || group.is_for_all() {
            return;
        }
        let now = self.model.now;
        match how.is_in() {
            Some(true) => {
                self.model.said.retain(|said| (said.port, said.vlan, said.group) != (port, vlan, group));
                self.model.said.push(Said { port, vlan, group, until: now + MEMBERSHIP, left: false });
            }
            Some(false) => {
                let is_it = |said: &&mut Said| (said.port, said.vlan, said.group) == (port, vlan, group);
                for said in self.model.said.iter_mut().filter(is_it) {
                    said.left = true;
                }
                let of_address = |said: &Said| (said.port, said.vlan, said.group.mac()) == (port, vlan, group.mac());
                if self.model.said.iter().all(|said| said.left || !of_address(said)) {
                    for said in self.model.said.iter_mut().filter(|said| of_address(said)) {
                        said.until = if behind == Behind::Host { now } else { said.until.min(now + LAST_MEMBER) };
                    }
                }
            }
            None => {}
        }
    }

    fn data(&mut self, port: usize, vlan: u16, group: Group) {
        let bridge = PORTS[port].0;
        data(self.frame, group);
        let listed = self.handle(port, vlan);
        let filters = self.model.is_asked(bridge, vlan, group.is_v6()) && !group.is_for_all();
        assert_eq!(listed.is_some(), filters, "{group:?} at {:?}", self.model.now);
        let Some(listed) = listed else {
            return;
        };
        for other in (0..PORTS.len()).filter(|other| *other != JUNK) {
            let is_listed = listed.contain(other);
            if PORTS[other].0 != bridge || self.model.came[other].is_none() {
                assert!(!is_listed, "{other} is not there");
                continue;
            }
            let (must, may) = self.model.gets(other, vlan, group);
            assert!(is_listed || !must, "{other} does not get {group:?}");
            assert!(!is_listed || may, "{other} gets {group:?}");
            let (left, many) = (self.model.has_left(other, vlan, group), self.model.many[other]);
            self.seen.push(hash(&[
                1,
                other as u8,
                is_listed.into(),
                must.into(),
                may.into(),
                left.into(),
                many.into(),
            ]));
        }
    }

    fn act(&mut self, act: Act) {
        let there = |model: &Model, port: u8| {
            let port = usize::from(port) % PORTS.len();
            (model.came[port].is_some() && port != JUNK).then_some(port)
        };
        match act {
            Act::Pass { quarters } => {
                self.model.now = self.model.now + Duration::from_millis(u64::from(quarters) * 250);
            }
            Act::Come { port } => self.come(usize::from(port) % PORTS.len()),
            Act::Go { port } => self.go(usize::from(port) % PORTS.len()),
            Act::Query { port, v6, tenths, vlan } => {
                let (Some(port), tenths) = (there(self.model, port), tenths % 100 + 1) else {
                    return;
                };
                query(self.frame, v6, tenths);
                let listed = self.handle(port, vlan.into());
                assert_eq!(listed, None, "a question goes to all");
                let (bridge, behind) = PORTS[port];
                if behind != Behind::Host {
                    let answered = self.model.now + Duration::from_millis(u64::from(tenths) * 100) + LATE;
                    self.model.asked.push((bridge, vlan.into(), v6, port, self.model.now, answered));
                }
            }
            Act::Say { port, group, how, vlan } => {
                if let Some(port) = there(self.model, port) {
                    self.say(port, vlan.into(), group.group(), how);
                }
            }
            Act::Junk { group, how, change: (place, byte), cut } => {
                how.write(self.frame, group.group());
                let behind = self.frame.len() - 12;
                self.frame[12 + usize::from(place) % behind] = byte;
                self.frame.truncate(self.frame.len() - usize::from(cut) % behind);
                if self.model.came[JUNK].is_some() {
                    self.handle(JUNK, 0);
                }
            }
            Act::Data { port, group, vlan } => {
                if let Some(port) = there(self.model, port) {
                    self.data(port, vlan.into(), group.group());
                }
            }
            Act::Many { port, count } => {
                let Some(port) = there(self.model, port).filter(|port| PORTS[*port].1 != Behind::Wire) else {
                    return;
                };
                let group = |number| Group::V4([239, 200, port as u8, number]);
                // Seldom: it takes as long as all else.
                let count = if count >= 250 { MANY } else { count % 4 };
                for first in (0..count).step_by(if count == MANY { RECORDS.into() } else { 1 }) {
                    match count {
                        MANY => join_all(self.frame, (first..MANY).take(RECORDS.into()).map(group)),
                        _ => How::Report.write(self.frame, group(first)),
                    }
                    self.handle(port, 0);
                }
                self.model.many[port] |= count == MANY;
                assert!(self.multicast.learnt(PortId(port as u16)) <= SHARE);
            }
        }
    }
}

/// Reads an input. Every input is one.
fn acts(input: &[u8]) -> impl Iterator<Item = Act> {
    let mut bytes = Unstructured::new(input);
    std::iter::from_fn(move || if bytes.is_empty() { None } else { bytes.arbitrary().ok() }).take(ACTS)
}

/// An input as it is read, for a look at it.
pub fn describe(input: &[u8]) -> String {
    acts(input).map(|act| format!("{act:?}\n")).collect()
}

impl Target for Groups {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        let Self { multicast, model, frame, listed, .. } = self;
        let mut run = Run { multicast, model, frame, listed, seen };
        run.clear();
        assert!((0..PORTS.len()).all(|port| run.multicast.learnt(PortId(port as u16)) == 0));
        for port in 0..PORTS.len() {
            run.come(port);
        }
        for act in acts(input) {
            self.acts += 1;
            run.act(act);
        }
        let learnt: usize = (0..PORTS.len()).map(|port| run.multicast.learnt(PortId(port as u16))).sum();
        run.seen.push(hash(&[2, learnt.min(8) as u8]));
    }

    fn operations(&self) -> Option<u64> {
        Some(self.acts)
    }
}
