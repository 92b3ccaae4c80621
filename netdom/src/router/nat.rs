//! The translation of addresses and ports (RFC 4787, 5382, 5508): which port of the router's own address stands for which port of a guest. Pure.
//! Floor 3.
//!
//! A *mapping* is a guest's address and port, and the router's port that stands for both, towards any remote end (endpoint-independent, RFC 4787,
//! REQ-1). A *session* is a mapping and one remote end; from outside, packets of sessions pass and no others. Both tables are bounded, and
//! sessions for each guest: a guest that opens ever new ones pushes out its own, those first that were not heard of for the longest time. Nothing is allocated
//! after [`Nat::new`] but for guests.

use super::config::{Forwarding, Protocol};
use crate::hash::KeyedHash;
use crate::switch::PortId;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use hashbrown::HashTable;
use split_driver::time::{Duration, Instant};

/// Sessions of all guests.
pub const SESSIONS: usize = 4096;
/// Sessions of a guest.
pub const GUEST_SESSIONS: usize = 1024;

/// How long a session is kept that is not heard of (RFC 5382, REQ-5; RFC 4787, REQ-5; RFC 5508, REQ-1).
const ESTABLISHED: Duration = Duration::from_secs(2 * 3600 + 4 * 60);
const TRANSITORY: Duration = Duration::from_secs(4 * 60);
const UDP: Duration = Duration::from_secs(5 * 60);
const ECHO: Duration = Duration::from_secs(60);

/// A session heard of again so soon is not touched.
const FRESH: Duration = Duration::from_secs(1);
/// The ports that are given where a guest's own is taken (RFC 6335, 6), and how many are tried.
const DYNAMIC: u16 = 49152;
const TRIES: u16 = 128;
/// Ports below are not given for a guest's own.
const SYSTEM: u16 = 1024;
/// No entry: the end of a list.
const NONE: u32 = u32::MAX;

/// An address and a port of it; for an echo, its identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// The address.
    pub address: Ipv4Addr,
    /// The port.
    pub port: u16,
}

impl Endpoint {
    fn word(self) -> u64 {
        u64::from(self.address.to_bits()) << 16 | u64::from(self.port)
    }
}

/// What a packet of TCP says of its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// SYN without ACK.
    pub opens: bool,
    /// FIN.
    pub ends: bool,
    /// RST.
    pub resets: bool,
}

/// A guest's end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inside {
    /// The guest.
    pub owner: PortId,
    /// Its address and port.
    pub endpoint: Endpoint,
    /// It asks the router for names: it sees the router as the remote end. The same address and port may have other sessions besides.
    pub resolves: bool,
}

/// What a session was heard of: bits.
const FROM_INSIDE: u8 = 1;
const FROM_OUTSIDE: u8 = 2;
const END_INSIDE: u8 = 4;
const END_OUTSIDE: u8 = 8;
const RESET: u8 = 16;
const STATES: u8 = FROM_INSIDE | FROM_OUTSIDE | END_INSIDE | END_OUTSIDE | RESET;

/// Bytes of a session that is kept.
pub const KEPT_BYTES: usize = 18;

/// A session, for the domain's next life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptSession {
    /// Its protocol.
    pub protocol: Protocol,
    /// The guest's end.
    pub inside: Endpoint,
    /// The router's port.
    pub port: u16,
    /// The remote end.
    pub remote: Endpoint,
    /// It is one of [`Inside::resolves`].
    pub resolves: bool,
    state: u8,
}

impl KeptSession {
    /// In bytes: protocol, state, and then ports and addresses in the order of the network.
    pub fn to_bytes(self) -> [u8; KEPT_BYTES] {
        let Self { protocol, inside, port, remote, resolves, state } = self;
        let [a, b, c, d] = inside.address.octets();
        let [e, f] = inside.port.to_be_bytes();
        let [g, h] = port.to_be_bytes();
        let [i, j, k, l] = remote.address.octets();
        let [m, n] = remote.port.to_be_bytes();
        [1, protocol as u8, state, a, b, c, d, e, f, g, h, i, j, k, l, m, n, resolves.into()]
    }

    /// From bytes of an earlier life; `None` where it wrote others.
    pub fn from_bytes(bytes: [u8; KEPT_BYTES]) -> Option<Self> {
        let [1, protocol, state, a, b, c, d, e, f, g, h, i, j, k, l, m, n, resolves @ 0..=1] = bytes else {
            return None;
        };
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Echo].into_iter().find(|one| *one as u8 == protocol)?;
        let end = |a, b, c, d, e, f| Endpoint { address: Ipv4Addr::new(a, b, c, d), port: u16::from_be_bytes([e, f]) };
        let (inside, remote) = (end(a, b, c, d, e, f), end(i, j, k, l, m, n));
        Some(Self { protocol, inside, port: u16::from_be_bytes([g, h]), remote, resolves: resolves == 1, state })
    }
}

struct Mapping {
    inside: Inside,
    protocol: Protocol,
    /// The router's port.
    port: u16,
    /// Its sessions. Without any it is not in use.
    sessions: u32,
}

struct Session {
    mapping: u32,
    owner: PortId,
    protocol: Protocol,
    remote: Endpoint,
    heard: Instant,
    state: u8,
    older: u32,
    newer: u32,
}

impl Session {
    /// Until when it is kept.
    fn timeout(&self) -> Duration {
        match self.protocol {
            Protocol::Echo => ECHO,
            Protocol::Udp => UDP,
            Protocol::Tcp => {
                let both = self.state & (FROM_INSIDE | FROM_OUTSIDE) == FROM_INSIDE | FROM_OUTSIDE;
                let over =
                    self.state & RESET != 0 || self.state & (END_INSIDE | END_OUTSIDE) == END_INSIDE | END_OUTSIDE;
                if both && !over { ESTABLISHED } else { TRANSITORY }
            }
        }
    }
}

struct Owner {
    id: PortId,
    count: usize,
    oldest: u32,
    newest: u32,
}

/// The tables.
pub struct Nat {
    key: KeyedHash,
    capacity: usize,
    share: usize,
    forwardings: Vec<Forwarding>,
    owners: Vec<Owner>,
    mappings: Vec<Mapping>,
    free_mappings: Vec<u32>,
    by_inside: HashTable<u32>,
    by_port: HashTable<u32>,
    sessions: Vec<Session>,
    free_sessions: Vec<u32>,
    by_remote: HashTable<u32>,
    /// Where to look next for a session to give up when the table is full.
    hand: u32,
    /// A session was opened since this was asked last.
    opened: bool,
}

impl Nat {
    /// No guest. `seed` is a number that guests do not know. There are at most `capacity` sessions, and `share` of a guest.
    pub fn new(capacity: usize, share: usize, seed: u64, forwardings: Vec<Forwarding>) -> Self {
        let capacity = capacity.clamp(1, 1 << 24);
        Self {
            key: KeyedHash::new(seed),
            capacity,
            share: share.max(1),
            forwardings,
            owners: Vec::new(),
            mappings: Vec::with_capacity(capacity),
            free_mappings: Vec::with_capacity(capacity),
            // Half empty, so that it never grows.
            by_inside: HashTable::with_capacity(2 * capacity),
            by_port: HashTable::with_capacity(2 * capacity),
            sessions: Vec::with_capacity(capacity),
            free_sessions: Vec::with_capacity(capacity),
            by_remote: HashTable::with_capacity(2 * capacity),
            hand: 0,
            opened: false,
        }
    }

    /// A guest that may have sessions from now on.
    pub fn add(&mut self, owner: PortId) {
        if self.owner(owner).is_none() {
            self.owners.push(Owner { id: owner, count: 0, oldest: NONE, newest: NONE });
            self.owners.sort_unstable_by_key(|known| known.id);
        }
    }

    /// Forgets a guest: no more work than its share.
    pub fn remove(&mut self, owner: PortId) {
        while let Some(oldest) = self.owner(owner).map(|state| state.oldest).filter(|oldest| *oldest != NONE) {
            self.forget(oldest);
        }
        self.owners.retain(|known| known.id != owner);
    }

    /// Sessions known.
    pub fn len(&self) -> usize {
        self.by_remote.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Sessions of a guest.
    pub fn count(&self, owner: PortId) -> usize {
        self.owner(owner).map_or(0, |state| state.count)
    }

    /// The guest's end that a port of the router's own address was given to from the start.
    pub fn forwarding(&self, protocol: Protocol, port: u16) -> Option<Endpoint> {
        let mut all = self.forwardings.iter();
        let found = all.find(|known| (known.protocol, known.port) == (protocol, port))?;
        Some(Endpoint { address: found.guest, port: found.guest_port })
    }

    /// A packet from a guest to a remote end: the router's port that it gets. `None` where there is none left, or the guest is not known.
    pub fn leave(
        &mut self,
        inside: Inside,
        protocol: Protocol,
        remote: Endpoint,
        flags: Flags,
        now: Instant,
    ) -> Option<u16> {
        let mapping = self.mapping_of(inside, protocol);
        if let Some(mapping) = mapping
            && let Some(session) = self.session(mapping, remote, now)
        {
            self.hear(session, FROM_INSIDE, flags, now);
            return self.mappings.get(mapping as usize).map(|known| known.port);
        }
        self.owner(inside.owner)?;
        self.open(inside, protocol, remote, FROM_INSIDE, now)
    }

    /// A packet from a remote end to a port of the router's own address: the guest's end that it is for. `owner_of` says which guest has an address.
    pub fn enter(
        &mut self,
        protocol: Protocol,
        port: u16,
        remote: Endpoint,
        flags: Flags,
        now: Instant,
        owner_of: impl FnOnce(Ipv4Addr) -> Option<PortId>,
    ) -> Option<Inside> {
        if let Some(mapping) = self.mapping_at(protocol, port)
            && let Some(session) = self.session(mapping, remote, now)
        {
            self.hear(session, FROM_OUTSIDE, flags, now);
            return self.mappings.get(mapping as usize).map(|known| known.inside);
        }
        let endpoint = self.forwarding(protocol, port)?;
        let inside = Inside { owner: owner_of(endpoint.address)?, endpoint, resolves: false };
        self.owner(inside.owner)?;
        self.open(inside, protocol, remote, FROM_OUTSIDE, now)?;
        Some(inside)
    }

    /// The guest that a packet from a remote end would go to, where it is of a session that there is. Nothing is changed by this.
    pub fn foresee(&self, protocol: Protocol, port: u16, remote: Endpoint, now: Instant) -> Option<PortId> {
        let session = self.sessions.get(self.find(self.mapping_at(protocol, port)?, remote)? as usize)?;
        (now.since(session.heard) <= session.timeout()).then_some(session.owner)
    }

    /// The guest's end of a session that there is, for an error that is about one of its packets.
    pub fn find_inside(&self, protocol: Protocol, port: u16, remote: Endpoint) -> Option<Inside> {
        let mapping = self.mapping_at(protocol, port)?;
        self.find(mapping, remote)?;
        self.mappings.get(mapping as usize).map(|known| known.inside)
    }

    /// The router's port of a session that there is, for an error that a guest sends about one of its packets.
    pub fn find_port(&self, inside: Inside, protocol: Protocol, remote: Endpoint) -> Option<u16> {
        let mapping = self.mapping_of(inside, protocol)?;
        self.find(mapping, remote)?;
        self.mappings.get(mapping as usize).map(|known| known.port)
    }

    fn owner(&self, id: PortId) -> Option<&Owner> {
        let place = self.owners.binary_search_by_key(&id, |known| known.id).ok()?;
        self.owners.get(place)
    }

    fn owner_mut(&mut self, id: PortId) -> Option<&mut Owner> {
        let place = self.owners.binary_search_by_key(&id, |known| known.id).ok()?;
        self.owners.get_mut(place)
    }

    fn mapping_of(&self, inside: Inside, protocol: Protocol) -> Option<u32> {
        let mappings = &self.mappings;
        let is_it = |number: &u32| {
            mappings.get(*number as usize).is_some_and(|known| (known.inside, known.protocol) == (inside, protocol))
        };
        self.by_inside.find(inside_hash(self.key, inside, protocol), is_it).copied()
    }

    fn mapping_at(&self, protocol: Protocol, port: u16) -> Option<u32> {
        let mappings = &self.mappings;
        let is_it = |number: &u32| {
            mappings.get(*number as usize).is_some_and(|known| (known.port, known.protocol) == (port, protocol))
        };
        self.by_port.find(port_hash(self.key, protocol, port), is_it).copied()
    }

    fn find(&self, mapping: u32, remote: Endpoint) -> Option<u32> {
        let sessions = &self.sessions;
        let is_it = |number: &u32| {
            sessions.get(*number as usize).is_some_and(|known| (known.mapping, known.remote) == (mapping, remote))
        };
        self.by_remote.find(remote_hash(self.key, mapping, remote), is_it).copied()
    }

    /// The session, unless it is too old: then it is forgotten.
    fn session(&mut self, mapping: u32, remote: Endpoint, now: Instant) -> Option<u32> {
        let number = self.find(mapping, remote)?;
        let session = self.sessions.get(number as usize)?;
        if now.since(session.heard) > session.timeout() {
            self.forget(number);
            return None;
        }
        Some(number)
    }

    fn hear(&mut self, number: u32, from: u8, flags: Flags, now: Instant) {
        let Some(session) = self.sessions.get_mut(number as usize) else {
            return;
        };
        if flags.opens && from == FROM_INSIDE {
            // The two ends use their ports anew.
            session.state = 0;
        }
        session.state |= from;
        if flags.ends {
            session.state |= if from == FROM_INSIDE { END_INSIDE } else { END_OUTSIDE };
        }
        if flags.resets {
            session.state |= RESET;
        }
        if now.since(session.heard) >= FRESH {
            self.unlink(number);
            self.link(number, now);
        }
    }

    /// Makes a session, and its mapping where there is none.
    fn open(&mut self, inside: Inside, protocol: Protocol, remote: Endpoint, from: u8, now: Instant) -> Option<u16> {
        if self.count(inside.owner) >= self.share || self.len() >= self.capacity && self.count(inside.owner) > 0 {
            self.forget_oldest(inside.owner);
        } else if self.len() >= self.capacity {
            self.forget_any();
        }
        // Only now: it may have been the one of the session that was given up.
        let mapping = match self.mapping_of(inside, protocol) {
            Some(mapping) => mapping,
            None => {
                let port = self.choose_port(inside, protocol)?;
                self.map(inside, protocol, port)
            }
        };
        self.opened = true;
        self.begin(mapping, inside.owner, protocol, remote, from, now)
    }

    /// Whether a session was opened since this was asked last.
    pub const fn take_opened(&mut self) -> bool {
        core::mem::replace(&mut self.opened, false)
    }

    /// Puts a session of a mapping into the table; the router's port.
    fn begin(
        &mut self,
        mapping: u32,
        owner: PortId,
        protocol: Protocol,
        remote: Endpoint,
        state: u8,
        now: Instant,
    ) -> Option<u16> {
        let port = self.mappings.get_mut(mapping as usize).map(|known| {
            known.sessions += 1;
            known.port
        })?;
        let session = Session { mapping, owner, protocol, remote, heard: now, state, older: NONE, newer: NONE };
        let number = put(&mut self.sessions, &mut self.free_sessions, session);
        let (key, sessions) = (self.key, &self.sessions);
        let rehash = |number: &u32| {
            sessions.get(*number as usize).map_or(0, |known| remote_hash(key, known.mapping, known.remote))
        };
        self.by_remote.insert_unique(remote_hash(key, mapping, remote), number, rehash);
        self.link(number, now);
        Some(port)
    }

    /// The sessions of a guest for the domain's next life, those first that were not heard of for the longest time.
    pub fn keep(&self, owner: PortId) -> impl Iterator<Item = KeptSession> {
        let session = |number: u32| self.sessions.get(number as usize);
        let oldest = session(self.owner(owner).map_or(NONE, |known| known.oldest));
        let all = core::iter::successors(oldest, move |known| session(known.newer));
        all.filter_map(|known| {
            let mapping = self.mappings.get(known.mapping as usize)?;
            let Mapping { inside: Inside { endpoint: inside, resolves, .. }, port, .. } = *mapping;
            let (protocol, remote, state) = (known.protocol, known.remote, known.state);
            Some(KeptSession { protocol, inside, port, remote, resolves, state })
        })
    }

    /// Goes on with a session of an earlier life, as if it had been heard of now. False where its port is not to be had, or the guest has its share.
    pub fn restore(&mut self, owner: PortId, kept: KeptSession, now: Instant) -> bool {
        let KeptSession { protocol, inside: endpoint, port, remote, resolves, state } = kept;
        let inside = Inside { owner, endpoint, resolves };
        if self.owner(owner).is_none_or(|known| known.count >= self.share) || self.len() >= self.capacity {
            return false;
        }
        let mapping = match (self.mapping_of(inside, protocol), self.mapping_at(protocol, port)) {
            (Some(mapping), Some(other)) if mapping == other => mapping,
            (None, None)
                if self.forwarding(protocol, port).is_none_or(|to| to == endpoint && !resolves) && port != 0 =>
            {
                self.map(inside, protocol, port)
            }
            _ => return false,
        };
        self.find(mapping, remote).is_none()
            && self.begin(mapping, owner, protocol, remote, state & STATES, now).is_some()
    }

    /// Has a port, which is free, stand for a guest's end.
    fn map(&mut self, inside: Inside, protocol: Protocol, port: u16) -> u32 {
        let number = put(&mut self.mappings, &mut self.free_mappings, Mapping { inside, protocol, port, sessions: 0 });
        let (key, mappings) = (self.key, &self.mappings);
        let known = |number: &u32| mappings.get(*number as usize);
        let rehash = |number: &u32| known(number).map_or(0, |known| inside_hash(key, known.inside, known.protocol));
        self.by_inside.insert_unique(inside_hash(key, inside, protocol), number, rehash);
        let rehash = |number: &u32| known(number).map_or(0, |known| port_hash(key, known.protocol, known.port));
        self.by_port.insert_unique(port_hash(key, protocol, port), number, rehash);
        number
    }

    /// The port for a guest's end: the one that is the guest's by the router's configuration, its own, or any that is free.
    fn choose_port(&self, inside: Inside, protocol: Protocol) -> Option<u16> {
        let Endpoint { address, port } = inside.endpoint;
        let own = |known: &&Forwarding| (known.protocol, known.guest, known.guest_port) == (protocol, address, port);
        if let Some(known) = self.forwardings.iter().find(own).filter(|_| !inside.resolves) {
            return self.mapping_at(protocol, known.port).is_none().then_some(known.port);
        }
        let is_free =
            |port: &u16| self.forwarding(protocol, *port).is_none() && self.mapping_at(protocol, *port).is_none();
        let first = inside_hash(self.key, inside, protocol) as u16;
        let others = (0..TRIES).map(|try_| DYNAMIC | first.wrapping_add(try_.wrapping_mul(97)));
        let kept = (port >= SYSTEM || protocol == Protocol::Echo).then_some(port);
        kept.into_iter().chain(others).find(is_free)
    }

    fn forget_oldest(&mut self, owner: PortId) {
        if let Some(oldest) = self.owner(owner).map(|state| state.oldest).filter(|oldest| *oldest != NONE) {
            self.forget(oldest);
        }
    }

    /// Gives up the oldest session of some guest, in turn, for one that has none while the table is full.
    fn forget_any(&mut self) {
        let count = u32::try_from(self.sessions.len()).unwrap_or(NONE);
        self.hand = if self.hand + 1 < count { self.hand + 1 } else { 0 };
        if let Some(owner) = self.sessions.get(self.hand as usize).map(|known| known.owner) {
            self.forget_oldest(owner);
        }
    }

    fn forget(&mut self, number: u32) {
        let Some(session) = self.sessions.get(number as usize) else {
            return;
        };
        let (mapping, remote) = (session.mapping, session.remote);
        if let Ok(place) = self.by_remote.find_entry(remote_hash(self.key, mapping, remote), |known| *known == number) {
            place.remove();
            self.unlink(number);
            self.free_sessions.push(number);
        }
        let Some(known) = self.mappings.get_mut(mapping as usize) else {
            return;
        };
        known.sessions = known.sessions.saturating_sub(1);
        if known.sessions > 0 {
            return;
        }
        let (inside, protocol, port) = (known.inside, known.protocol, known.port);
        if let Ok(place) = self.by_inside.find_entry(inside_hash(self.key, inside, protocol), |known| *known == mapping)
        {
            place.remove();
            self.free_mappings.push(mapping);
        }
        if let Ok(place) = self.by_port.find_entry(port_hash(self.key, protocol, port), |known| *known == mapping) {
            place.remove();
        }
    }

    /// Puts a session at the new end of its guest's list.
    fn link(&mut self, number: u32, now: Instant) {
        let Some(owner) = self.sessions.get(number as usize).map(|known| known.owner) else {
            return;
        };
        let Some(state) = self.owner_mut(owner) else {
            return;
        };
        let newest = core::mem::replace(&mut state.newest, number);
        if newest == NONE {
            state.oldest = number;
        }
        state.count += 1;
        if let Some(session) = self.sessions.get_mut(newest as usize) {
            session.newer = number;
        }
        if let Some(session) = self.sessions.get_mut(number as usize) {
            (session.heard, session.older, session.newer) = (now, newest, NONE);
        }
    }

    /// Takes a session out of its guest's list.
    fn unlink(&mut self, number: u32) {
        let Some(session) = self.sessions.get(number as usize) else {
            return;
        };
        let (owner, older, newer) = (session.owner, session.older, session.newer);
        if let Some(session) = self.sessions.get_mut(older as usize) {
            session.newer = newer;
        }
        if let Some(session) = self.sessions.get_mut(newer as usize) {
            session.older = older;
        }
        if let Some(state) = self.owner_mut(owner) {
            state.count = state.count.saturating_sub(1);
            if state.oldest == number {
                state.oldest = newer;
            }
            if state.newest == number {
                state.newest = older;
            }
        }
    }
}

/// Puts an entry at a free place.
fn put<T>(table: &mut Vec<T>, free: &mut Vec<u32>, entry: T) -> u32 {
    if let Some(number) = free.pop() {
        if let Some(place) = table.get_mut(number as usize) {
            *place = entry;
        }
        return number;
    }
    // Below the capacity, which is below `NONE`.
    let number = table.len() as u32;
    table.push(entry);
    number
}

fn inside_hash(key: KeyedHash, inside: Inside, protocol: Protocol) -> u64 {
    let kind = u64::from(inside.resolves) << 4 | protocol as u64;
    key.of([inside.endpoint.word(), u64::from(inside.owner.0) << 8 | kind])
}

fn port_hash(key: KeyedHash, protocol: Protocol, port: u16) -> u64 {
    key.of([u64::from(port) << 8 | protocol as u64])
}

fn remote_hash(key: KeyedHash, mapping: u32, remote: Endpoint) -> u64 {
    key.of([remote.word(), mapping.into()])
}

#[cfg(test)]
mod tests;
