//! The translation of addresses, against a list of sessions. Host.
//!
//! An input is packets of some guests and of the outside, with pauses between. Each gets what the list says: a port that is no other's, the guest
//! that asked, or nothing; and no guest loses a session to another.

use crate::{Target, hash};
use arbitrary::{Arbitrary, Unstructured};
use netdom::router::config::{Forwarding, Protocol};
use netdom::router::nat::{Endpoint, Flags, Inside, Nat};
use netdom::switch::PortId;
use split_driver::time::{Duration, Instant};
use std::net::Ipv4Addr;

/// Guests, and what each may have. The table has room for all of it.
const GUESTS: u16 = 3;
const SHARE: usize = 5;
const STEPS: usize = 128;
/// A guest's port that stands for another of the router's.
const FORWARDED: (u16, u16) = (8080, 80);

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Leave { guest: u8, protocol: u8, port: u8, remote: u8, flags: u8 },
    Enter { protocol: u8, port: u8, remote: u8, flags: u8 },
    Pause(u16),
    Restart(u8),
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Echo];
const PORTS: [u16; 6] = [80, 8080, 4000, 4001, 123, 50_000];

fn protocol(number: u8) -> Protocol {
    PROTOCOLS[usize::from(number) % PROTOCOLS.len()]
}

fn remote(number: u8) -> Endpoint {
    Endpoint { address: Ipv4Addr::new(192, 0, 2, number % 2), port: u16::from(number / 2 % 3) }
}

fn flags(number: u8) -> Flags {
    Flags { opens: number & 1 != 0, ends: number & 2 != 0, resets: number & 4 != 0 }
}

fn address(guest: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, guest as u8)
}

struct Session {
    inside: Inside,
    protocol: Protocol,
    remote: Endpoint,
    port: u16,
    heard: Instant,
    sides: [bool; 2],
    ended: [bool; 2],
    reset: bool,
}

impl Session {
    fn is_over(&self, now: Instant) -> bool {
        let long = self.sides == [true; 2] && self.ended != [true; 2] && !self.reset;
        let seconds = match self.protocol {
            Protocol::Tcp if long => 7440,
            Protocol::Tcp => 240,
            Protocol::Udp => 300,
            Protocol::Echo => 60,
        };
        now.since(self.heard) > Duration::from_secs(seconds)
    }
}

/// The sessions, each guest's in the order in which they were heard of.
#[derive(Default)]
struct Model(Vec<Session>);

impl Model {
    fn hear(&mut self, place: usize, outside: bool, flags: Flags, now: Instant) {
        let mut session = self.0.remove(place);
        if flags.opens && !outside {
            (session.sides, session.ended, session.reset) = Default::default();
        }
        session.sides[usize::from(outside)] = true;
        session.ended[usize::from(outside)] |= flags.ends;
        session.reset |= flags.resets;
        if now.since(session.heard) < Duration::from_secs(1) {
            self.0.insert(place, session);
        } else {
            session.heard = now;
            self.0.push(session);
        }
    }

    /// Makes a session, whose port is known where its mapping is.
    fn open(&mut self, inside: Inside, protocol: Protocol, remote: Endpoint, outside: bool, port: u16, now: Instant) {
        let mut sides = [false; 2];
        sides[usize::from(outside)] = true;
        self.0.push(Session { inside, protocol, remote, port, heard: now, sides, ended: [false; 2], reset: false });
    }

    fn make_room(&mut self, owner: PortId) {
        if self.0.iter().filter(|session| session.inside.owner == owner).count() >= SHARE {
            let oldest = self.0.iter().position(|session| session.inside.owner == owner).unwrap();
            self.0.remove(oldest);
        }
    }

    fn leave(
        &mut self,
        inside: Inside,
        protocol: Protocol,
        remote: Endpoint,
        flags: Flags,
        given: Option<u16>,
        now: Instant,
    ) {
        let given = given.expect("a port for any guest's end");
        let is_it =
            |session: &Session| (session.inside, session.protocol, session.remote) == (inside, protocol, remote);
        if let Some(place) = self.0.iter().position(is_it) {
            if !self.0[place].is_over(now) {
                assert_eq!(given, self.0[place].port);
                return self.hear(place, false, flags, now);
            }
            self.0.remove(place);
        }
        self.make_room(inside.owner);
        let known = self.0.iter().find(|session| (session.inside, session.protocol) == (inside, protocol));
        let is_taken = |port: u16| self.0.iter().any(|session| (session.protocol, session.port) == (protocol, port));
        let port = inside.endpoint.port;
        let forwarded = protocol == Protocol::Tcp && inside.endpoint == forwarded_to() && !inside.resolves;
        if let Some(known) = known {
            assert_eq!(given, known.port, "one port for a guest's end");
        } else if forwarded {
            assert_eq!(given, FORWARDED.0);
        } else {
            assert!(!is_taken(given) && (protocol != Protocol::Tcp || given != FORWARDED.0), "{given} is another's");
            let free = !is_taken(port) && (protocol != Protocol::Tcp || port != FORWARDED.0);
            assert!(!free || given == port || port < 1024 && protocol != Protocol::Echo, "{port} is free");
        }
        self.open(inside, protocol, remote, false, given, now);
    }

    fn enter(&mut self, protocol: Protocol, port: u16, remote: Endpoint, flags: Flags, now: Instant) -> Option<Inside> {
        let is_it = |session: &Session| (session.protocol, session.port, session.remote) == (protocol, port, remote);
        if let Some(place) = self.0.iter().position(is_it) {
            if !self.0[place].is_over(now) {
                let inside = self.0[place].inside;
                self.hear(place, true, flags, now);
                return Some(inside);
            }
            self.0.remove(place);
        }
        if (protocol, port) != (Protocol::Tcp, FORWARDED.0) {
            return None;
        }
        let inside = Inside { owner: PortId(1), endpoint: forwarded_to(), resolves: false };
        self.make_room(inside.owner);
        self.open(inside, protocol, remote, true, port, now);
        Some(inside)
    }
}

impl Model {
    /// Whose session there is.
    fn foresee(&self, protocol: Protocol, port: u16, remote: Endpoint, now: Instant) -> Option<PortId> {
        let is_it = |session: &&Session| (session.protocol, session.port, session.remote) == (protocol, port, remote);
        self.0.iter().find(is_it).filter(|session| !session.is_over(now)).map(|session| session.inside.owner)
    }
}

fn forwarded_to() -> Endpoint {
    Endpoint { address: address(1), port: FORWARDED.1 }
}

fn steps(input: &[u8]) -> impl Iterator<Item = Step> {
    let mut bytes = Unstructured::new(input);
    std::iter::from_fn(move || if bytes.is_empty() { None } else { bytes.arbitrary().ok() }).take(STEPS)
}

/// An input as it is read, for a look at it.
pub fn describe(input: &[u8]) -> String {
    steps(input).map(|step| format!("{step:?}\n")).collect()
}

/// The target. Its tables stay from one input to the next, and lose all guests before: an entry that is left would be seen.
pub struct Translation {
    nat: Nat,
    model: Model,
    steps: u64,
}

impl Default for Translation {
    fn default() -> Self {
        let forwarding =
            Forwarding { protocol: Protocol::Tcp, port: FORWARDED.0, guest: address(1), guest_port: FORWARDED.1 };
        let nat = Nat::new(SHARE * usize::from(GUESTS), SHARE, 5, vec![forwarding]);
        Self { nat, model: Model::default(), steps: 0 }
    }
}

impl Target for Translation {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        let Self { nat, model, .. } = self;
        for guest in (1..=GUESTS).map(PortId) {
            nat.remove(guest);
            nat.add(guest);
        }
        assert!(nat.is_empty());
        model.0.clear();
        let mut now = Instant::default() + Duration::from_secs(9);
        for step in steps(input) {
            self.steps += 1;
            match step {
                Step::Leave { guest, protocol: number, port, remote: far, flags: bits } => {
                    let owner = 1 + u16::from(guest) % GUESTS;
                    let endpoint = Endpoint { address: address(owner), port: PORTS[usize::from(port) % PORTS.len()] };
                    let inside = Inside { owner: PortId(owner), endpoint, resolves: guest >= 128 };
                    let (protocol, remote, flags) = (protocol(number), remote(far), flags(bits));
                    let given = nat.leave(inside, protocol, remote, flags, now);
                    model.leave(inside, protocol, remote, flags, given, now);
                    seen.push(hash(&[0, number % 3, bits & 7, u8::from(given == Some(endpoint.port))]));
                }
                Step::Enter { protocol: number, port, remote: far, flags: bits } => {
                    // A port that was given, mostly.
                    let known = model.0.get(usize::from(port) % (model.0.len() + 1)).map(|session| session.port);
                    let port = known.unwrap_or(PORTS[usize::from(port) % PORTS.len()]);
                    let (protocol, remote, flags) = (protocol(number), remote(far), flags(bits));
                    let foreseen = nat.foresee(protocol, port, remote, now);
                    assert_eq!(foreseen, model.foresee(protocol, port, remote, now), "{step:?}");
                    let owner_of = |found: Ipv4Addr| (found == address(1)).then_some(PortId(1));
                    let found = nat.enter(protocol, port, remote, flags, now, owner_of);
                    assert_eq!(found, model.enter(protocol, port, remote, flags, now), "{step:?}");
                    seen.push(hash(&[1, number % 3, bits & 7, u8::from(found.is_some())]));
                }
                Step::Pause(length) => now = now + Duration::from_millis(u64::from(length) * u64::from(length) / 64),
                Step::Restart(guest) => {
                    let owner = PortId(1 + u16::from(guest) % GUESTS);
                    nat.remove(owner);
                    nat.add(owner);
                    model.0.retain(|session| session.inside.owner != owner);
                    seen.push(hash(&[2, owner.0 as u8]));
                }
            }
            assert_eq!(nat.len(), model.0.len());
            for owner in (1..=GUESTS).map(PortId) {
                let count = model.0.iter().filter(|session| session.inside.owner == owner).count();
                assert_eq!(nat.count(owner), count);
                seen.push(hash(&[3, count as u8]));
            }
        }
    }

    fn operations(&self) -> Option<u64> {
        Some(self.steps)
    }
}
