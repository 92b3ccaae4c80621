//! The ways of IPv4, against a model that reads each packet at leisure. Host.
//!
//! An input is packets of guests and of the outside, with bytes changed and pauses between, and guests that go and come. Each guest's frames are
//! checked as those of a vif with `ip=`, and go to the router then. Of each frame the model says what becomes of it: whether it goes on, from which port,
//! between which stations, addresses and ports, and with how many hops; with which message its sender is told otherwise, or which cause it
//! is counted by. The sums of what goes on are made anew over the whole packet. Ports and identifications that are the router's choice
//! are taken from it, and have to be nobody else's.

mod check;
mod guard;
mod model;
mod packet;
mod recipe;
mod tables;
mod terms;

use crate::{Target, hash};
use arbitrary::Unstructured;
use check::{check_frame, check_said};
use model::{LAB_NETWORK, Model};
use netdom::ethernet::MacAddress;
use netdom::offload::head::{HEAD_BYTES, Head};
use netdom::policy::{Addresses, AntiSpoof, Guard};
use netdom::router::config::{Forwarding, Network, Setup, Uplink};
use netdom::router::{Frame, HEAD, Routed, Router, Verdict, WHOLE};
use netdom::statistics::DropCause;
use netdom::switch::PortId;
use recipe::Sent;
use split_driver::time::{Duration, Instant};
use std::net::Ipv4Addr;
use terms::{Fate, Guest, LAB, Said, UPLINK, mac_of};

/// An address, and how many of its bits are the network's.
type Prefix = (Ipv4Addr, u8);

const STEPS: usize = 24;
/// Between two inputs: longer than a station is known, or a question waits for its answer.
const BETWEEN: Duration = Duration::from_secs(300);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const NAMES: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 53);
/// Guests: their ports, `ip=`, what of it is a prefix, and whether they are behind NAT. The last but one has the gateway's address of another.
const GUESTS: [(u16, &str, Option<Prefix>, bool); 5] = [
    (3, "192.168.7.2 192.168.7.64/28", Some((Ipv4Addr::new(192, 168, 7, 64), 28)), true),
    (4, "10.0.0.77 10.0.0.78", None, false),
    (5, "192.168.8.2", None, true),
    (6, "192.168.8.1", None, true),
    (7, "10.9.0.9", None, false),
];
/// A port to a guest of each kind, and one to an address that may not be there.
const FORWARDINGS: [&str; 4] =
    ["tcp:8080:192.168.7.2:80", "udp:5353:192.168.8.1:53", "tcp:2222:10.0.0.77:22", "tcp:22:192.168.9.9"];

#[derive(Clone, Copy, Debug)]
enum Step {
    Packet(Sent),
    /// The station that was asked for last answers.
    Answer(u8),
    Pause(u16),
    Leave(u8),
    Return(u8),
}

fn step(bytes: &mut Unstructured<'_>) -> Option<Step> {
    if bytes.is_empty() {
        return None;
    }
    let step = match bytes.arbitrary::<u8>().ok()? {
        0..=199 => Step::Packet(bytes.arbitrary().ok()?),
        200..=219 => Step::Answer(bytes.arbitrary().ok()?),
        220..=239 => Step::Pause(bytes.arbitrary().ok()?),
        240..=247 => Step::Leave(bytes.arbitrary().ok()?),
        _ => Step::Return(bytes.arbitrary().ok()?),
    };
    Some(step)
}

fn steps(input: &[u8]) -> impl Iterator<Item = Step> {
    let mut bytes = Unstructured::new(input.get(1..).unwrap_or_default());
    std::iter::from_fn(move || step(&mut bytes)).take(STEPS)
}

/// An input as it is read, for a look at it.
pub fn describe(input: &[u8]) -> String {
    let first = format!("world {}\n", input.first().copied().unwrap_or_default() & 3);
    std::iter::once(first).chain(steps(input).map(|step| format!("{step:?}\n"))).collect()
}

/// A router, and a model of it.
struct World {
    router: Router,
    model: Model,
    guards: Vec<(PortId, Guard)>,
    /// Frames that guests may not send.
    spoofed: u64,
    /// The last question for a station.
    asked: Option<Ipv4Addr>,
    /// A frame as it was sent, and as the router has it.
    before: Vec<u8>,
    after: Vec<u8>,
}

impl World {
    fn new(gateway: Option<Ipv4Addr>, names: Option<Ipv4Addr>, forwardings: &[&str], mtu: u16) -> Self {
        let own = Network { address: OWN, length: 24 };
        let forwardings: Vec<_> = forwardings.iter().filter_map(|text| Forwarding::parse(text)).collect();
        let uplink = Uplink { bridge: "xenbr0".into(), network: Some(own), gateway, v6: None };
        let setup = Setup {
            uplink: Some(uplink),
            internals: Vec::new(),
            dns: names.into_iter().collect(),
            forwardings: forwardings.clone(),
        };
        let mut model = Model::new(own, gateway, names, mtu);
        model.sessions.forwardings = forwardings;
        Self {
            router: Router::new(&setup, mtu, 5),
            model,
            guards: Vec::new(),
            spoofed: 0,
            asked: None,
            before: Vec::new(),
            after: Vec::new(),
        }
    }

    /// All ports anew.
    fn begin(&mut self) {
        (self.asked, self.model.sessions.is_blind) = (None, false);
        for port in [UPLINK, LAB] {
            self.router.remove(port);
            self.model.forget(port);
        }
        (0..GUESTS.len()).for_each(|number| self.go(number));
        let Self { router, model, .. } = self;
        assert_eq!(router.sessions(), Some(0));
        assert_eq!(router.add_uplink(UPLINK, model.own, model.gateway), mac_of(OWN));
        assert_eq!(router.add_internal(LAB, LAB_NETWORK), mac_of(LAB_NETWORK.address));
        (0..GUESTS.len()).for_each(|number| self.come(number));
    }

    fn come(&mut self, number: usize) {
        let (port, words, prefix, translated) = GUESTS[number];
        let port = PortId(port);
        if self.model.guest(port).is_some() {
            return;
        }
        let mac = MacAddress([0, 0x16, 0x3e, 0, 0, port.0 as u8]);
        let addresses = Addresses::parse(words).expect("addresses");
        let routed = Routed::new(mac, addresses.ipv4(), addresses.ipv6(), translated).expect("a guest with addresses");
        let [first, .., last] = *[routed.addresses.clone(), routed.addresses.clone()].concat() else {
            unreachable!("it has addresses");
        };
        let guest = Guest { port, mac, addresses: [first, last], prefix, translated };
        assert_eq!(self.router.add_guest(port, routed), Some(mac_of(guest.gateway())));
        self.guards.push((port, Guard::new(AntiSpoof::Off, mac, Some(addresses))));
        self.model.guests.push(guest);
        self.model.look = Instant::default();
    }

    fn go(&mut self, number: usize) {
        let port = PortId(GUESTS[number].0);
        self.router.remove(port);
        self.model.forget(port);
        self.guards.retain(|(known, _)| *known != port);
    }

    /// Frames that the router sends of itself: questions for stations that will be needed.
    fn poll(&mut self, answers: bool, now: Instant, seen: &mut Vec<u64>) {
        loop {
            let due = self.model.due(now);
            let polled = self.router.poll(now);
            assert_eq!(due.is_some(), polled.is_some());
            let (Some(target), Some((port, bytes))) = (due, polled) else {
                break;
            };
            check_said(&self.model, Said::Asks { target }, &[], Some((port, bytes)));
            self.asked = Some(target);
            seen.push(hash(&[9, target.octets()[3]]));
            if answers {
                self.answer(0, now);
            }
        }
        let (due, none) = (self.router.deadline(), self.model.guests.is_empty());
        assert!(due.is_none() == none && due.is_none_or(|due| due > now), "{due:?}");
    }

    /// The station that was asked for answers, or another in its place.
    fn answer(&mut self, number: u8, now: Instant) -> u64 {
        let Some(address) = self.asked else {
            return 0;
        };
        let told = recipe::write_answer(number, address, OWN, &mut self.before);
        self.handle(UPLINK, told, now)
    }

    fn send(&mut self, sent: &Sent, now: Instant) -> u64 {
        let port = sent.port(&self.model);
        let told = sent.write(&self.model, &mut self.before);
        if let Some((_, guard)) = self.guards.iter().find(|(known, _)| *known == port) {
            let bytes = &self.before[..self.before.len().min(HEAD_BYTES)];
            let permitted = Head::parse(bytes).is_some_and(|head| guard.permits(&head, bytes));
            let guest = self.model.guest(port).expect("the guest of its guard");
            assert_eq!(permitted, guard::permits(guest, &self.before), "{:02x?}", self.before);
            if !permitted {
                self.spoofed += 1;
                return hash(&[7, kind_of(port), self.before[13]]);
            }
        }
        self.handle(port, told, now)
    }

    /// Has both handle the frame.
    fn handle(&mut self, port: PortId, told: Frame, now: Instant) -> u64 {
        let Self { router, model, before, after, asked, .. } = self;
        after.clone_from(before);
        let head = before.len().min(HEAD);
        let foreseen = router.foresee(port, &after[..head], now);
        let mut verdict = router.handle(port, &mut after[..head], told, now);
        if verdict == Verdict::More {
            assert_eq!(after, before, "written, and not sent");
            after.resize(told.length.min(WHOLE), 0);
            verdict = router.handle(port, after, told, now);
            after.truncate(before.len());
        }
        let made = if matches!(verdict, Verdict::Send(_)) { after.as_slice() } else { &[] };
        let fate = model.judge(port, before, told, made, now);
        let made = match verdict {
            Verdict::Taken => Fate::Taken,
            Verdict::Drop(cause) => Fate::Lost(cause),
            Verdict::Send(out) => Fate::Goes(out),
            Verdict::Later(until) => {
                assert_eq!(until, now + Duration::from_millis(1));
                Fate::Waits
            }
            Verdict::More => panic!("all is there"),
        };
        assert_eq!(made, fate, "{port}: {told:?} {before:02x?}");
        // Of what does not go on, what was written is not heeded.
        if let Fate::Goes(_) = fate {
            check_frame(model, told, before, after);
        }
        if let Some(out) = foreseen {
            let is_whole = check::is_whole(before, told);
            assert!(!is_whole || fate == Fate::Goes(out), "{out:?} was foreseen, and not {fate:?}");
        }
        check_said(model, model.said, before, router.take_answer());
        if let Said::Asks { target } = model.said {
            *asked = Some(target);
        }
        let protocol = before.get(START_OF_PROTOCOL).filter(|protocol| [1, 6, 17].contains(*protocol)).unwrap_or(&0);
        let is_cut = before[20] & 0x3f != 0 || before[21] != 0;
        let kind = [is_cut, told.blank, told.segment.is_some(), before[23] == 1 && before[34] == 8];
        let kind = kind.into_iter().fold(0, |bits, bit| bits << 1 | u8::from(bit));
        hash(&[kind_of(port), before[13], *protocol, fate.number(kind_of), model.said.number(), model.sums as u8, kind])
    }

    fn check_counts(&self) {
        let (counts, model) = (self.router.counts(), &self.model);
        assert_eq!((counts.forwarded, counts.translated), (model.forwarded, model.translated));
        assert_eq!(counts.drops, model.drops);
        assert_eq!(counts.drops[DropCause::Spoofed as usize], 0);
        assert_eq!(self.router.sessions(), Some(model.sessions.all.len()));
    }
}

/// What is behind a port: the way out, the bridge without a NIC, a guest behind NAT, or one that is not.
fn kind_of(port: PortId) -> u8 {
    match port.0 {
        1 | 2 => port.0 as u8,
        4 | 7 => 3,
        _ => 4,
    }
}

/// Where the protocol is.
const START_OF_PROTOCOL: usize = packet::START + 9;

/// The target. Its routers stay from one input to the next, which comes when all that they knew of stations outside is too old.
pub struct Ways {
    worlds: [World; 2],
    now: Instant,
    steps: u64,
}

impl Default for Ways {
    fn default() -> Self {
        let worlds = [World::new(Some(GATEWAY), Some(NAMES), &FORWARDINGS, 1500), World::new(None, None, &[], 9000)];
        Self { worlds, now: Instant::default(), steps: 0 }
    }
}

impl Target for Ways {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        let Self { worlds, now, .. } = self;
        *now = *now + BETWEEN;
        let first = input.first().copied().unwrap_or_default();
        // Mostly the one with a gateway, which answers.
        let world = &mut worlds[usize::from(first & 7 == 7)];
        seen.push(hash(&[first & 15]));
        world.begin();
        world.poll(first & 8 == 0, *now, seen);
        for step in steps(input) {
            self.steps += 1;
            match step {
                Step::Packet(sent) => seen.push(world.send(&sent, *now)),
                Step::Answer(number) => seen.push(world.answer(number, *now)),
                Step::Pause(length) => {
                    *now = *now + Duration::from_millis(u64::from(length) * u64::from(length) / 64);
                    world.poll(length % 2 == 0, *now, seen);
                }
                Step::Leave(guest) => world.go(usize::from(guest) % GUESTS.len()),
                Step::Return(guest) => {
                    world.come(usize::from(guest) % GUESTS.len());
                    world.poll(guest >= 128, *now, seen);
                }
            }
            if world.model.sessions.is_blind {
                break;
            }
            world.check_counts();
        }
    }

    fn operations(&self) -> Option<u64> {
        Some(self.steps)
    }
}
