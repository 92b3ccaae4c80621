//! Which ports get the frames of multicast groups, against a model that remembers all that was said and looks through all of it. Host.
//!
//! An input is what happens on two bridges: time passes, guests come and go, routers ask, hosts report and leave groups in all versions of IGMP
//! and MLD, and send to them. What must hold: a guest gets the frames of each group that it reported and has not left, or that may be for it;
//! and none of a group that it never reported or has left. A guest whose messages are damaged anyhow changes nothing for the others.

use crate::{Target, hash};
use arbitrary::{Arbitrary, Unstructured};
use netdom::offload::checksum::Sum;
use netdom::offload::head::{HEAD_BYTES, Head};
use netdom::policy::multicast::{Audience, Behind, LAST_MEMBER, MEMBERSHIP, Multicast, PORT_GROUPS, QUERIER_PRESENT};
use netdom::switch::PortId;
use split_driver::time::{Duration, Instant};

/// Acts of an input, at most.
const ACTS: usize = 16;
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

    fn octets(self) -> Vec<u8> {
        match self {
            Self::V4(octets) => octets.to_vec(),
            Self::V6(octets) => octets.to_vec(),
        }
    }

    fn is_for_all(self) -> bool {
        matches!(self.mac(), [1, 0, 0x5e, 0, 0, _] | [0x33, 0x33, 0, 0, 0, 1])
    }

    fn all_hosts(v6: bool) -> Self {
        if v6 { GroupChoice { v6, number: 4 }.group() } else { Self::V4([224, 0, 0, 1]) }
    }
}

fn ipv4(destination: Group, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = (20 + payload.len() as u16).to_be_bytes();
    let header =
        [&[0x45, 0][..], &length, &[0, 0, 0, 0, 1, protocol, 0, 0, 10, 0, 0, 5], &destination.octets()].concat();
    [&destination.mac()[..], &[0, 0x16, 0x3e, 0, 0, 1, 0x08, 0x00], &header, payload].concat()
}

fn ipv6(destination: Group, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut source = [0; 16];
    (source[0], source[1], source[15]) = (0xfe, 0x80, 5);
    let length = (payload.len() as u16).to_be_bytes();
    let header = [&[0x60, 0, 0, 0][..], &length, &[next, 1], &source, &destination.octets()].concat();
    [&destination.mac()[..], &[0, 0x16, 0x3e, 0, 0, 1, 0x86, 0xdd], &header, payload].concat()
}

/// A message of IGMP or MLD, with its checksum.
fn message(destination: Group, mut message: Vec<u8>) -> Vec<u8> {
    let mut sum = Sum::new();
    if destination.is_v6() {
        let mut source = [0; 16];
        (source[0], source[1], source[15]) = (0xfe, 0x80, 5);
        let length = (message.len() as u32).to_be_bytes();
        sum.add(&[&source[..], &destination.octets(), &length, &[0, 0, 0, 58]].concat());
    }
    sum.add(&message);
    message[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    match destination {
        Group::V4(_) => ipv4(destination, 2, &message),
        Group::V6(_) => ipv6(destination, 0, &[&[58, 0, 5, 2, 0, 0, 1, 0][..], &message].concat()),
    }
}

fn query(v6: bool, tenths: u8) -> Vec<u8> {
    let [high, low] = (u16::from(tenths) * 100).to_be_bytes();
    let bytes = match v6 {
        false => vec![0x11, tenths, 0, 0, 0, 0, 0, 0],
        true => [&[130, 0, 0, 0, high, low, 0, 0][..], &[0; 16]].concat(),
    };
    message(Group::all_hosts(v6), bytes)
}

impl How {
    fn frame(self, group: Group) -> Vec<u8> {
        let v6 = group.is_v6();
        let routers = |last| if v6 { GroupChoice { v6, number: 2 }.group() } else { Group::V4([224, 0, 0, last]) };
        let old = |kind: [u8; 2]| {
            let kind = kind[usize::from(v6)];
            [&[kind, 0, 0, 0][..], if v6 { &[0; 4] } else { &[] }, &group.octets()].concat()
        };
        match self {
            Self::Report => message(group, old([0x16, 131])),
            Self::Leave => message(routers(2), old([0x17, 132])),
            Self::Record { kind, sources, before } => {
                let width = if v6 { 16 } else { 4 };
                let mut bytes = vec![if v6 { 143 } else { 0x22 }, 0, 0, 0, 0, 0, 0, before % 2 + 1];
                for _ in 0..before % 2 {
                    // Of another group, it changes sources alone.
                    bytes.extend([6, 0, 0, 1]);
                    bytes.extend(Group::octets(GroupChoice { v6, number: 3 }.group()));
                    bytes.extend(vec![7; width]);
                }
                bytes.extend([kind % 8, 0, 0, sources % 3]);
                bytes.extend(group.octets());
                bytes.extend(vec![7; width * usize::from(sources % 3)]);
                message(routers(22), bytes)
            }
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
}

/// The target.
#[derive(Default)]
pub struct Groups {
    acts: u64,
}

struct Run<'a> {
    multicast: Multicast,
    model: Model,
    seen: &'a mut Vec<u64>,
}

impl Run<'_> {
    fn handle(&mut self, from: usize, vlan: u16, frame: &[u8]) -> Option<Vec<PortId>> {
        let bytes = &frame[..frame.len().min(HEAD_BYTES)];
        let head = Head::parse(bytes)?;
        let mut listed = Vec::new();
        let audience = self.multicast.handle(PortId(from as u16), vlan, (&head, bytes), self.model.now, &mut listed);
        let mut ports = listed.clone();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), listed.len(), "a port twice");
        (audience == Audience::Listed).then_some(listed)
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
        let listed = self.handle(port, vlan, &how.frame(group));
        let (bridge, behind) = PORTS[port];
        if let Some(listed) = listed {
            for other in (0..PORTS.len()).filter(|other| self.model.came[*other].is_some() && *other != JUNK) {
                let is_listed = listed.contains(&PortId(other as u16));
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
                let same: Vec<_> = (0..self.model.said.len())
                    .filter(|at| {
                        let said = &self.model.said[*at];
                        (said.port, said.vlan, said.group.mac()) == (port, vlan, group.mac())
                    })
                    .collect();
                if same.iter().all(|at| self.model.said[*at].left) {
                    for at in same {
                        let said = &mut self.model.said[at];
                        said.until = if behind == Behind::Host { now } else { said.until.min(now + LAST_MEMBER) };
                    }
                }
            }
            None => {}
        }
    }

    fn data(&mut self, port: usize, vlan: u16, group: Group) {
        let bridge = PORTS[port].0;
        let frame = if group.is_v6() { ipv6(group, 17, &[0; 16]) } else { ipv4(group, 17, &[0; 16]) };
        let listed = self.handle(port, vlan, &frame);
        let filters = self.model.is_asked(bridge, vlan, group.is_v6()) && !group.is_for_all();
        assert_eq!(listed.is_some(), filters, "{group:?} at {:?}", self.model.now);
        let Some(listed) = listed else {
            return;
        };
        for other in (0..PORTS.len()).filter(|other| *other != JUNK) {
            let is_listed = listed.contains(&PortId(other as u16));
            if PORTS[other].0 != bridge || self.model.came[other].is_none() {
                assert!(!is_listed, "{other} is not there");
                continue;
            }
            let (must, may) = self.model.gets(other, vlan, group);
            assert!(is_listed || !must, "{other} does not get {group:?}");
            assert!(!is_listed || may, "{other} gets {group:?}");
            self.seen.push(hash(&[1, other as u8, is_listed.into(), must.into(), may.into()]));
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
                let (Some(port), tenths) = (there(&self.model, port), tenths % 100 + 1) else {
                    return;
                };
                let listed = self.handle(port, vlan.into(), &query(v6, tenths));
                assert_eq!(listed, None, "a question goes to all");
                let (bridge, behind) = PORTS[port];
                if behind != Behind::Host {
                    let answered = self.model.now + Duration::from_millis(u64::from(tenths) * 100) + LATE;
                    self.model.asked.push((bridge, vlan.into(), v6, port, self.model.now, answered));
                }
            }
            Act::Say { port, group, how, vlan } => {
                if let Some(port) = there(&self.model, port) {
                    self.say(port, vlan.into(), group.group(), how);
                }
            }
            Act::Junk { group, how, change: (place, byte), cut } => {
                let mut frame = how.frame(group.group());
                let behind = frame.len() - 12;
                frame[12 + usize::from(place) % behind] = byte;
                frame.truncate(frame.len() - usize::from(cut) % behind);
                if self.model.came[JUNK].is_some() {
                    self.handle(JUNK, 0, &frame);
                }
            }
            Act::Data { port, group, vlan } => {
                if let Some(port) = there(&self.model, port) {
                    self.data(port, vlan.into(), group.group());
                }
            }
            Act::Many { port, count } => {
                let Some(port) = there(&self.model, port).filter(|port| PORTS[*port].1 != Behind::Wire) else {
                    return;
                };
                // Seldom: it takes as long as all else.
                let count = if count >= 250 { PORT_GROUPS as u8 + 2 } else { count % 4 };
                for number in 0..count {
                    self.handle(port, 0, &How::Report.frame(Group::V4([239, 200, port as u8, number])));
                }
                self.model.many[port] |= usize::from(count) > PORT_GROUPS / 2;
                assert!(self.multicast.learnt(PortId(port as u16)) <= PORT_GROUPS);
            }
        }
    }
}

/// Reads an input. Every input is one.
fn decode(input: &[u8]) -> Vec<Act> {
    let mut bytes = Unstructured::new(input);
    let mut acts = Vec::new();
    while acts.len() < ACTS && !bytes.is_empty() {
        match bytes.arbitrary() {
            Ok(act) => acts.push(act),
            Err(_) => break,
        }
    }
    acts
}

/// An input as it is read, for a look at it.
pub fn describe(input: &[u8]) -> String {
    decode(input).iter().map(|act| format!("{act:?}\n")).collect()
}

impl Target for Groups {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        let acts = decode(input);
        let mut run = Run { multicast: Multicast::new(1), model: Model { now: Instant(1), ..Model::default() }, seen };
        for port in 0..PORTS.len() {
            run.come(port);
        }
        for act in &acts {
            run.act(*act);
        }
        let learnt: usize = (0..PORTS.len()).map(|port| run.multicast.learnt(PortId(port as u16))).sum();
        run.seen.push(hash(&[2, learnt.min(8) as u8]));
        self.acts += acts.len() as u64;
    }

    fn operations(&self) -> Option<u64> {
        Some(self.acts)
    }
}
