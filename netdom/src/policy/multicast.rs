//! Which guests get the frames of a multicast group: those that asked for it, where a router asks for groups (RFC 4541). Pure. Floor 3.
//!
//! On a network (a bridge, and a VLAN of it) where no router is heard to ask, nobody has to answer, and all frames go to all. Where one asks, a
//! guest gets the groups that it reported within the last 260 s. NICs and routers get all. Whatever is not known for certain is decided for the
//! guest: one that came a moment ago, whose report was longer than the bytes at hand, or that is in more groups than it may have here, gets all
//! for a time. So a guest that reports ever new groups costs itself alone, and a lost state (a new life) costs nobody a frame.
//!
//! A guest is heeded as a router only where nothing is checked of its frames: any other could take its neighbours' groups from them by a
//! question that they do not hear.

mod message;

use crate::ethernet::MacAddress;
use crate::hash::KeyedHash;
use crate::offload::head::Head;
use crate::switch::PortId;
use alloc::vec::Vec;
use core::time::Duration;
use hashbrown::HashTable;
pub use message::Family;
use message::{ALL_NODES, Group, Message};
pub(super) use message::{IGMP_QUERY, LISTENER_QUERY, PROTOCOL_IGMP};
use split_driver::time::Instant;

/// How long a report holds (RFC 3376, 8.4; RFC 3810, 9.4).
pub const MEMBERSHIP: Duration = Duration::from_secs(260);
/// How long a router is there that asks no more (RFC 3376, 8.5; RFC 3810, 9.5).
pub const QUERIER_PRESENT: Duration = Duration::from_secs(255);
/// How long another host behind a port has to report a group that one has left (RFC 3376, 8.8 and 8.9: two intervals of a second).
pub const LAST_MEMBER: Duration = Duration::from_secs(2);
/// How long an answer may be late.
const LATE: Duration = Duration::from_secs(1);
/// Groups of a guest.
pub const PORT_GROUPS: usize = 64;
/// Groups of all guests.
pub const ALL_GROUPS: usize = 4096;
/// Networks with a router that asks; on others beyond, all frames go to all.
pub const NETWORKS: usize = 256;
/// No entry: the end of a list.
const NONE: u32 = u32::MAX;

/// A bridge, by its number, and a VLAN of it.
type Network = (u16, u16);

/// What is behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// A wire, or a router: it gets all.
    Wire,
    /// One host, which says by itself when it leaves a group.
    Host,
    /// A guest that may be a bridge or a router.
    Any,
}

struct Port {
    bridge: u16,
    behind: Behind,
    /// Until when it gets all groups, by family.
    all: [Instant; 2],
    /// It came after the last question, by family: until the next one is answered it gets all.
    is_new: [bool; 2],
    /// Until when it is a router's.
    router: Instant,
    /// It is among [`Multicast::greedy`].
    is_listed: bool,
    /// Its entries.
    first: u32,
    count: usize,
}

/// A guest is in a group.
struct Entry {
    network: Network,
    group: MacAddress,
    /// The groups with this address that it is in: see [`Group::bit`].
    bits: u32,
    port: PortId,
    until: Instant,
    /// Its neighbours in its port's list, and among those in the group.
    of_port: Links,
    of_group: Links,
}

#[derive(Clone, Copy)]
struct Links {
    before: u32,
    behind: u32,
}

const LOOSE: Links = Links { before: NONE, behind: NONE };

/// When a router is heard in a network.
struct Querier {
    network: Network,
    /// From when on all hosts have answered, and until when it is there, by family.
    times: [(Instant, Instant); 2],
}

/// The ports that get a frame for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// All ports of its network.
    All,
    /// The ports that were listed, of those that carry its VLAN.
    Listed,
}

/// The groups of all guests.
pub struct Multicast {
    key: KeyedHash,
    /// Groups of a guest.
    share: usize,
    ports: Vec<Option<Port>>,
    /// Ports that get all groups, at least for a time.
    greedy: Vec<PortId>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    /// Entries by network, group and port.
    index: HashTable<u32>,
    /// The first entry of each group of a network.
    groups: HashTable<u32>,
    queriers: Vec<Querier>,
}

impl Multicast {
    /// No port. `seed` is a number that guests do not know.
    pub fn new(seed: u64) -> Self {
        Self::with_share(seed, PORT_GROUPS)
    }

    /// The same, where each guest may be in `share` groups.
    pub fn with_share(seed: u64, share: usize) -> Self {
        Self {
            key: KeyedHash::new(seed),
            share,
            ports: Vec::new(),
            greedy: Vec::new(),
            entries: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            groups: HashTable::new(),
            queriers: Vec::new(),
        }
    }

    /// Adds a port on the bridge with this number.
    pub fn add(&mut self, port: PortId, bridge: u16, behind: Behind, now: Instant) {
        self.remove(port);
        if self.ports.len() <= port.index() {
            self.ports.resize_with(port.index() + 1, || None);
        }
        let all = if behind == Behind::Wire { Instant(u64::MAX) } else { now + MEMBERSHIP };
        if let Some(place) = self.ports.get_mut(port.index()) {
            let (all, is_new, router) = ([all; 2], [behind != Behind::Wire; 2], Instant::default());
            *place = Some(Port { bridge, behind, all, is_new, router, is_listed: true, first: NONE, count: 0 });
            self.greedy.push(port);
        }
    }

    /// Forgets a port, and the routers of a bridge that has no other.
    pub fn remove(&mut self, port: PortId) {
        while let Some(first) = self.port(port).map(|state| state.first)
            && first != NONE
        {
            self.forget(first);
        }
        self.greedy.retain(|known| *known != port);
        if let Some(Port { bridge, .. }) = self.ports.get_mut(port.index()).and_then(Option::take)
            && !self.ports.iter().flatten().any(|other| other.bridge == bridge)
        {
            self.queriers.retain(|querier| querier.network.0 != bridge);
        }
    }

    /// Groups of a port.
    pub fn learnt(&self, port: PortId) -> usize {
        self.port(port).map_or(0, |state| state.count)
    }

    /// Learns from a frame for a group, with this head and these first bytes, that comes from a port in a VLAN. Lists the ports that get it, unless all do;
    /// the port itself may be among them.
    pub fn handle(
        &mut self,
        from: PortId,
        vlan: u16,
        (head, bytes): (&Head, &[u8]),
        now: Instant,
        listed: &mut Vec<PortId>,
    ) -> Audience {
        let group = head.destination;
        let (Some(family), Some(bridge)) = (family(group), self.port(from).map(|state| state.bridge)) else {
            return Audience::All;
        };
        let network = (bridge, vlan);
        if let Some(message) = Message::parse(head, bytes) {
            self.learn(from, network, message, now);
            // Hosts must not see each other's reports, or they keep silent (RFC 4541, 2.1.1 (1)).
            let is_answer = matches!(message, Message::Report(_) | Message::Leave(_) | Message::Records(_));
            if is_answer && self.is_asked(network, family, now) {
                listed.extend(self.greedy.iter().filter(|port| self.is_router(**port, bridge, now)));
                return Audience::Listed;
            }
        }
        if is_for_all(group) || !self.is_asked(network, family, now) {
            return Audience::All;
        }
        listed.extend(self.greedy.iter().filter(|port| self.is_greedy(**port, bridge, family, now)));
        listed.extend(self.members(network, group, now).filter(|port| !self.is_greedy(*port, bridge, family, now)));
        Audience::Listed
    }

    fn learn(&mut self, from: PortId, network: Network, message: Message<'_>, now: Instant) {
        if let Message::Query(family, response) = message {
            return self.handle_query(from, network, family, response, now);
        }
        // Nothing is filtered on the way to a wire.
        let Some(behind) = self.port(from).map(|state| state.behind).filter(|behind| *behind != Behind::Wire) else {
            return;
        };
        match message {
            Message::Report(group) => self.join(from, network, group, now),
            Message::Leave(group) => self.leave(from, behind, network, group, now),
            Message::Records(mut records) => {
                for (group, is_in) in records.by_ref() {
                    match is_in {
                        true => self.join(from, network, group, now),
                        false => self.leave(from, behind, network, group, now),
                    }
                }
                if records.is_cut() {
                    self.give_all(from, records.family, now);
                }
            }
            Message::Query(..) | Message::Other => {}
        }
    }

    fn handle_query(&mut self, from: PortId, network: Network, family: Family, response: Duration, now: Instant) {
        let (answered, place) = (now + response + LATE, family as usize);
        let Some(state) = self.port_mut(from).filter(|state| state.behind != Behind::Host) else {
            return;
        };
        state.router = now + QUERIER_PRESENT;
        self.make_greedy(from);
        // Hosts that came since the last question are asked now.
        for state in self.ports.iter_mut().flatten().filter(|state| state.bridge == network.0) {
            if let (Some(all), Some(true)) = (state.all.get_mut(place), state.is_new.get(place)) {
                *all = answered.min(*all);
            }
            if let Some(is_new) = state.is_new.get_mut(place) {
                *is_new = false;
            }
        }
        let Self { ports, greedy, .. } = self;
        greedy.retain(|port| {
            let state = ports.get_mut(port.index()).and_then(Option::as_mut);
            state.is_some_and(|state| {
                state.is_listed = state.all.iter().chain([&state.router]).any(|until| *until > now);
                state.is_listed
            })
        });
        self.note_querier(network, place, (answered, now + QUERIER_PRESENT), now);
    }

    fn note_querier(&mut self, network: Network, place: usize, (answered, until): (Instant, Instant), now: Instant) {
        let known = self.queriers.iter().position(|querier| querier.network == network);
        let known = known.or_else(|| {
            if self.queriers.len() >= NETWORKS {
                self.queriers.retain(|querier| querier.times.iter().any(|(_, until)| *until > now));
            }
            (self.queriers.len() < NETWORKS).then(|| {
                self.queriers.push(Querier { network, times: <[(Instant, Instant); 2]>::default() });
                self.queriers.len() - 1
            })
        });
        let Some(times) = known.and_then(|known| self.queriers.get_mut(known)?.times.get_mut(place)) else {
            return;
        };
        // One that was silent for too long begins anew.
        let from = if times.1 > now { times.0 } else { answered };
        *times = (from, until);
    }

    /// Whether all hosts of a network were asked for their groups.
    fn is_asked(&self, network: Network, family: Family, now: Instant) -> bool {
        let querier = self.queriers.iter().find(|querier| querier.network == network);
        querier
            .and_then(|querier| querier.times.get(family as usize))
            .is_some_and(|(from, until)| (*from..*until).contains(&now))
    }

    fn is_router(&self, port: PortId, bridge: u16, now: Instant) -> bool {
        let is_router = |state: &Port| state.bridge == bridge && (state.behind == Behind::Wire || state.router > now);
        self.port(port).is_some_and(is_router)
    }

    fn is_greedy(&self, port: PortId, bridge: u16, family: Family, now: Instant) -> bool {
        let gets_all = |state: &Port| {
            state.bridge == bridge
                && state.all.get(family as usize).is_some_and(|until| *until.max(&state.router) > now)
        };
        self.port(port).is_some_and(gets_all)
    }

    /// Has a port get all groups, as it is not known which ones it wants.
    fn give_all(&mut self, port: PortId, family: Family, now: Instant) {
        if let Some(state) = self.port_mut(port)
            && let (Some(all), Some(is_new)) =
                (state.all.get_mut(family as usize), state.is_new.get_mut(family as usize))
        {
            (*all, *is_new) = (now + MEMBERSHIP, false);
            self.make_greedy(port);
        }
    }

    fn make_greedy(&mut self, port: PortId) {
        if let Some(state) = self.port_mut(port)
            && !core::mem::replace(&mut state.is_listed, true)
        {
            self.greedy.push(port);
        }
    }

    fn join(&mut self, port: PortId, network: Network, group: Group, now: Instant) {
        if is_for_all(group.mac) {
            return;
        }
        let until = now + MEMBERSHIP;
        if let Some(number) = self.find(network, group.mac, port) {
            if let Some(entry) = self.entry_mut(number) {
                (entry.until, entry.bits) = (until, entry.bits | group.bit);
            }
            return;
        }
        if self.learnt(port) >= self.share || self.index.len() >= ALL_GROUPS {
            self.forget_old(port, now);
        }
        if self.learnt(port) >= self.share || !self.insert(port, network, group, until) {
            let Some(family) = family(group.mac) else {
                return;
            };
            self.give_all(port, family, now);
        }
    }

    fn leave(&mut self, port: PortId, behind: Behind, network: Network, group: Group, now: Instant) {
        let Some(number) = self.find(network, group.mac, port) else {
            return;
        };
        let Some(entry) = self.entry_mut(number) else {
            return;
        };
        if behind == Behind::Host {
            entry.bits &= !group.bit;
            if entry.bits == 0 {
                self.forget(number);
            }
        } else if entry.bits & !group.bit == 0 {
            // Another behind the port has to say so.
            entry.until = entry.until.min(now + LAST_MEMBER);
        }
    }

    /// Forgets the groups of a port that it did not report for too long.
    fn forget_old(&mut self, port: PortId, now: Instant) {
        let mut number = self.port(port).map_or(NONE, |state| state.first);
        while let Some(entry) = self.entries.get(number as usize) {
            let (next, is_old) = (entry.of_port.behind, entry.until <= now);
            if is_old {
                self.forget(number);
            }
            number = next;
        }
    }

    /// The ports that are in a group.
    fn members(&self, network: Network, group: MacAddress, now: Instant) -> impl Iterator<Item = PortId> + '_ {
        let hash = self.hash(network, group, None);
        let first = self.groups.find(hash, |number| self.is_of(*number, network, group)).copied();
        let entry = |number: u32| self.entries.get(number as usize);
        let entries = core::iter::successors(entry(first.unwrap_or(NONE)), move |known| entry(known.of_group.behind));
        entries.filter(move |entry| entry.until > now).map(|entry| entry.port)
    }

    fn port(&self, port: PortId) -> Option<&Port> {
        self.ports.get(port.index())?.as_ref()
    }

    fn port_mut(&mut self, port: PortId) -> Option<&mut Port> {
        self.ports.get_mut(port.index())?.as_mut()
    }

    fn entry_mut(&mut self, number: u32) -> Option<&mut Entry> {
        self.entries.get_mut(number as usize)
    }

    fn is_of(&self, number: u32, network: Network, group: MacAddress) -> bool {
        self.entries.get(number as usize).is_some_and(|entry| (entry.network, entry.group) == (network, group))
    }

    fn hash(&self, network: Network, group: MacAddress, port: Option<PortId>) -> u64 {
        hash(self.key, network, group, port)
    }

    fn find(&self, network: Network, group: MacAddress, port: PortId) -> Option<u32> {
        let is_it = |number: &u32| {
            self.is_of(*number, network, group)
                && self.entries.get(*number as usize).is_some_and(|entry| entry.port == port)
        };
        self.index.find(self.hash(network, group, Some(port)), is_it).copied()
    }

    /// False where there is no room.
    fn insert(&mut self, port: PortId, network: Network, group: Group, until: Instant) -> bool {
        let Self { key, entries, free, index, groups, .. } = self;
        let hash_of = |number: &u32, with_port: bool| match entries.get(*number as usize) {
            Some(entry) => hash(*key, entry.network, entry.group, with_port.then_some(entry.port)),
            None => 0,
        };
        let is_full = index.len() >= ALL_GROUPS
            || index.try_reserve(1, |number| hash_of(number, true)).is_err()
            || groups.try_reserve(1, |number| hash_of(number, false)).is_err()
            || free.is_empty() && (entries.try_reserve(1).is_err() || free.try_reserve(entries.capacity()).is_err());
        if is_full {
            return false;
        }
        let entry = Entry { network, group: group.mac, bits: group.bit, port, until, of_port: LOOSE, of_group: LOOSE };
        let number = match free.pop() {
            Some(number) => {
                if let Some(place) = entries.get_mut(number as usize) {
                    *place = entry;
                }
                number
            }
            None => {
                entries.push(entry);
                entries.len() as u32 - 1
            }
        };
        self.link(number, (network, group.mac, port));
        true
    }

    /// Puts an entry before the others of its port and of its group.
    fn link(&mut self, number: u32, (network, group, port): (Network, MacAddress, PortId)) {
        let Self { key, entries, index, groups, ports, .. } = self;
        let with_port = |number: &u32| match entries.get(*number as usize) {
            Some(entry) => hash(*key, entry.network, entry.group, Some(entry.port)),
            None => 0,
        };
        index.insert_unique(hash(*key, network, group, Some(port)), number, with_port);
        let is_of = |other: &u32| {
            entries.get(*other as usize).is_some_and(|entry| (entry.network, entry.group) == (network, group))
        };
        let without_port = |number: &u32| match entries.get(*number as usize) {
            Some(entry) => hash(*key, entry.network, entry.group, None),
            None => 0,
        };
        let place = groups.entry(hash(*key, network, group, None), is_of, without_port);
        let in_group = match place {
            hashbrown::hash_table::Entry::Occupied(mut place) => core::mem::replace(place.get_mut(), number),
            hashbrown::hash_table::Entry::Vacant(place) => {
                place.insert(number);
                NONE
            }
        };
        let mut in_port = NONE;
        if let Some(state) = ports.get_mut(port.index()).and_then(Option::as_mut) {
            in_port = core::mem::replace(&mut state.first, number);
            state.count += 1;
        }
        if let Some(entry) = self.entry_mut(number) {
            (entry.of_port.behind, entry.of_group.behind) = (in_port, in_group);
        }
        if let Some(entry) = self.entry_mut(in_port) {
            entry.of_port.before = number;
        }
        if let Some(entry) = self.entry_mut(in_group) {
            entry.of_group.before = number;
        }
    }

    fn forget(&mut self, number: u32) {
        let Some(&Entry { network, group, port, of_port, of_group, .. }) = self.entries.get(number as usize) else {
            return;
        };
        let hashes = (self.hash(network, group, Some(port)), self.hash(network, group, None));
        if let Ok(place) = self.index.find_entry(hashes.0, |known| *known == number) {
            place.remove();
            self.free.push(number);
        }
        if of_group.before == NONE
            && let Ok(mut place) = self.groups.find_entry(hashes.1, |known| *known == number)
        {
            match of_group.behind {
                NONE => {
                    place.remove();
                }
                behind => *place.get_mut() = behind,
            }
        }
        if let Some(state) = self.port_mut(port) {
            state.count = state.count.saturating_sub(1);
            if of_port.before == NONE {
                state.first = of_port.behind;
            }
        }
        for (links, of_port) in [(of_port, true), (of_group, false)] {
            let mut set = |at: u32, change: fn(&mut Links, u32), to: u32| {
                if let Some(entry) = self.entries.get_mut(at as usize) {
                    change(if of_port { &mut entry.of_port } else { &mut entry.of_group }, to);
                }
            };
            set(links.before, |links, to| links.behind = to, links.behind);
            set(links.behind, |links, to| links.before = to, links.before);
        }
    }
}

/// The family of a group's address, where it is one of IP.
fn family(group: MacAddress) -> Option<Family> {
    match group.0 {
        [0x01, 0x00, 0x5e, third, ..] if third < 0x80 => Some(Family::V4),
        [0x33, 0x33, ..] => Some(Family::V6),
        _ => None,
    }
}

/// Whether frames for a group always go to all: 224.0.0.0/24, which hosts do not report, and ff02::1 (RFC 4541, 2.1.2 (2) and 3).
fn is_for_all(group: MacAddress) -> bool {
    matches!(group.0, [0x01, 0x00, 0x5e, 0, 0, _]) || group == ALL_NODES
}

fn hash(key: KeyedHash, (bridge, vlan): Network, group: MacAddress, port: Option<PortId>) -> u64 {
    let [a, b, c, d, e, f] = group.0;
    let [g, h] = bridge.to_le_bytes();
    let port = port.map_or(u64::MAX, |port| port.0.into());
    key.of([u64::from_le_bytes([a, b, c, d, e, f, g, h]), u64::from(vlan) | port << 16])
}

#[cfg(test)]
mod tests;
