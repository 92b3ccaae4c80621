//! A learning switch: any number of ports on any number of bridges, one table. Pure. Floor 3.
//!
//! Each frame costs two look-ups, however many ports there are. The table is bounded as a whole and for each port: a guest that sends
//! from ever new addresses pushes out its own entries and no other's. Nothing is allocated after [`Switch::new`] but for ports.

mod vlans;

use crate::ethernet::MacAddress;
use crate::hash::KeyedHash;
use alloc::string::String;
use alloc::vec::Vec;
use hashbrown::HashTable;
use split_driver::time::{Duration, Instant};

pub use vlans::Vlans;

/// How long an address is remembered that is not heard of (IEEE 802.1D-2004, table 7-5).
pub const AGEING: Duration = Duration::from_secs(300);
/// Entries of the whole table, by default.
pub const TABLE_ENTRIES: usize = 4096;
/// Entries of a port towards one guest, which may be a bridge itself.
pub const GUEST_ENTRIES: usize = 256;
/// Entries of a port towards the wire.
pub const WIRE_ENTRIES: usize = 2048;

/// An entry heard of again so soon is not touched: most frames change nothing.
const FRESH: Duration = Duration::from_secs(1);
/// When a pinned address was heard of last: it is never too old.
const PINNED: Instant = Instant(u64::MAX);
/// No entry: the end of a list.
const NONE: u32 = u32::MAX;

/// A port of the switch, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u16);

impl PortId {
    /// Its place in a table by number.
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

impl core::fmt::Display for PortId {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.fmt(formatter)
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// It goes to one port, never the one it came from.
    Port(PortId),
    /// It goes to all ports of its VLAN but the one it came from: [`Switch::flood`].
    Flood,
    /// It goes nowhere.
    Drop(Reason),
}

/// Why a frame goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The port it came from is on no bridge.
    NoBridge,
    /// Its source is a group or zero: no station sends such.
    Source,
    /// Its destination is reserved for the two ends of a link (IEEE 802.1D-2004, table 7-10), and is not [`MacAddress::BRIDGE_GROUP`].
    LinkLocal,
    /// Its destination is where it came from.
    SamePort,
    /// Both ports are isolated.
    Isolated,
}

/// Why a port cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddError {
    /// It is on a bridge already.
    Exists(PortId),
    /// There are 65,536 bridges.
    Bridges,
}

impl core::fmt::Display for AddError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Exists(port) => write!(formatter, "port {port} is on a bridge already"),
            Self::Bridges => formatter.write_str("there are 65536 bridges, the most there can be"),
        }
    }
}

impl core::error::Error for AddError {}

struct Entry {
    address: MacAddress,
    bridge: u16,
    /// Its VLAN; 0 for none.
    vlan: u16,
    port: PortId,
    heard: Instant,
    /// The neighbours in the port's list, by age.
    older: u32,
    newer: u32,
}

struct Port {
    bridge: u16,
    vlans: Vlans,
    /// It reaches no other port that is isolated.
    isolated: bool,
    limit: usize,
    count: usize,
    oldest: u32,
    newest: u32,
}

#[derive(Default)]
struct Bridge {
    name: String,
    members: Vec<PortId>,
}

/// A network in which addresses are known: a bridge, and a VLAN of it.
type Network = (u16, u16);

/// The switch.
pub struct Switch {
    key: KeyedHash,
    ageing: Duration,
    capacity: usize,
    bridges: Vec<Bridge>,
    /// By number.
    ports: Vec<Option<Port>>,
    entries: Vec<Entry>,
    /// Entries not in use.
    free: Vec<u32>,
    index: HashTable<u32>,
    /// Where to look next for an entry to give up when the table is full.
    hand: u32,
}

impl Switch {
    /// A switch without ports. `seed` is a number that guests do not know, so that none can choose addresses that collide.
    /// Of `capacity`, at most 2^24 addresses are known at a time.
    pub fn new(capacity: usize, ageing: Duration, seed: u64) -> Self {
        let capacity = capacity.clamp(1, 1 << 24);
        Self {
            key: KeyedHash::new(seed),
            ageing,
            capacity,
            bridges: Vec::new(),
            ports: Vec::new(),
            entries: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            // Half empty, so that it never grows: what removals leave behind is then cleared in place.
            index: HashTable::with_capacity(2 * capacity),
            hand: 0,
        }
    }

    /// Puts a port with these VLANs on the bridge of that name, and makes the bridge where there is none. The port may have `limit` entries of the
    /// table.
    ///
    /// # Errors
    /// [`AddError`].
    pub fn add(&mut self, port: PortId, bridge: &str, vlans: Vlans, limit: usize) -> Result<(), AddError> {
        if self.port(port).is_some() {
            return Err(AddError::Exists(port));
        }
        let number = self
            .bridges
            .iter()
            .position(|known| !known.members.is_empty() && known.name == bridge)
            .or_else(|| self.bridges.iter().position(|known| known.members.is_empty()))
            .unwrap_or(self.bridges.len());
        let bridge_number = u16::try_from(number).map_err(|_| AddError::Bridges)?;
        if number == self.bridges.len() {
            self.bridges.push(Bridge::default());
        }
        if let Some(place) = self.bridges.get_mut(number) {
            if place.members.is_empty() {
                place.name = bridge.into();
            }
            place.members.push(port);
        }
        if self.ports.len() <= port.index() {
            self.ports.resize_with(port.index() + 1, || None);
        }
        if let Some(place) = self.ports.get_mut(port.index()) {
            let (bridge, limit) = (bridge_number, limit.max(1));
            *place = Some(Port { bridge, vlans, isolated: false, limit, count: 0, oldest: NONE, newest: NONE });
        }
        Ok(())
    }

    /// Keeps a port apart from all others that are kept apart.
    pub fn isolate(&mut self, port: PortId) {
        if let Some(state) = self.port_mut(port) {
            state.isolated = true;
        }
    }

    /// Takes a port off its bridge and forgets what was learnt there: no more work than the port's limit. False where there was none.
    pub fn remove(&mut self, port: PortId) -> bool {
        if self.port(port).is_none() {
            return false;
        }
        while let Some(oldest) = self.port(port).map(|state| state.oldest)
            && oldest != NONE
        {
            self.forget(oldest);
        }
        if let Some(state) = self.ports.get_mut(port.index()).and_then(Option::take)
            && let Some(bridge) = self.bridges.get_mut(usize::from(state.bridge))
        {
            bridge.members.retain(|member| *member != port);
        }
        true
    }

    /// Learns where `source` is, and says where `destination` is, in a VLAN of the port's bridge; 0 is no VLAN, and each is a network of its own.
    pub fn forward(
        &mut self,
        port: PortId,
        vlan: u16,
        destination: MacAddress,
        source: MacAddress,
        now: Instant,
    ) -> Forward {
        let Some((bridge, isolated)) = self.port(port).map(|state| (state.bridge, state.isolated)) else {
            return Forward::Drop(Reason::NoBridge);
        };
        if !source.is_station() {
            return Forward::Drop(Reason::Source);
        }
        // A bridge without a spanning tree of its own passes on the BPDUs of those that have one, or they could not see a loop through it
        // (Linux: `br_handle_frame`, with STP off).
        if destination.is_link_local() && destination != MacAddress::BRIDGE_GROUP {
            return Forward::Drop(Reason::LinkLocal);
        }
        self.learn(port, (bridge, vlan), source, now);
        if destination.is_group() {
            return Forward::Flood;
        }
        match self.find((bridge, vlan), destination) {
            Some((number, entry)) if now.since(entry.heard) > self.ageing => {
                self.forget(number);
                Forward::Flood
            }
            Some((_, entry)) if entry.port == port => Forward::Drop(Reason::SamePort),
            Some((_, entry)) if isolated && self.is_isolated(entry.port) => Forward::Drop(Reason::Isolated),
            Some((_, entry)) => Forward::Port(entry.port),
            None => Forward::Flood,
        }
    }

    /// All ports on the bridge of `port`, itself among them.
    pub fn members(&self, port: PortId) -> &[PortId] {
        self.port(port)
            .and_then(|state| self.bridges.get(usize::from(state.bridge)))
            .map_or(&[], |bridge| &bridge.members)
    }

    /// The ports that a frame of a VLAN from `port` goes to when it goes to all: those that carry it.
    pub fn flood(&self, port: PortId, vlan: u16) -> impl Iterator<Item = PortId> + '_ {
        self.members(port).iter().copied().filter(move |member| self.reaches(port, *member, vlan))
    }

    /// Whether a frame of a VLAN may go from a port to another on its bridge.
    pub fn reaches(&self, from: PortId, to: PortId, vlan: u16) -> bool {
        from != to && self.carries(to, vlan) && !(self.is_isolated(to) && self.is_isolated(from))
    }

    fn is_isolated(&self, port: PortId) -> bool {
        self.port(port).is_some_and(|state| state.isolated)
    }

    /// Whether frames of a VLAN may go to a port.
    fn carries(&self, port: PortId, vlan: u16) -> bool {
        self.port(port).is_some_and(|state| state.vlans.carry(vlan))
    }

    /// The number of the bridge that `port` is on. A bridge without ports gives it up.
    pub fn bridge_number(&self, port: PortId) -> Option<u16> {
        self.port(port).map(|state| state.bridge)
    }

    /// The name of the bridge that `port` is on.
    pub fn bridge(&self, port: PortId) -> Option<&str> {
        let state = self.port(port)?;
        let bridge = self.bridges.get(usize::from(state.bridge))?;
        Some(&bridge.name)
    }

    /// Addresses known, those among them that are too old and were not asked for since.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether no address is known.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Addresses known on one port.
    pub fn learnt(&self, port: PortId) -> usize {
        self.port(port).map_or(0, |state| state.count)
    }

    /// The addresses known on a port, each with its VLAN, the last heard first.
    pub fn addresses(&self, port: PortId) -> impl Iterator<Item = (u16, MacAddress)> + '_ {
        let entry = |number: u32| self.entries.get(number as usize);
        let newest = entry(self.port(port).map_or(NONE, |state| state.newest));
        core::iter::successors(newest, move |known| entry(known.older)).map(|known| (known.vlan, known.address))
    }

    /// Those of them that are not too old, and are not known for good.
    pub fn heard(&self, port: PortId, now: Instant) -> impl Iterator<Item = (u16, MacAddress)> + '_ {
        let entry = |number: u32| self.entries.get(number as usize);
        let newest = entry(self.port(port).map_or(NONE, |state| state.newest));
        core::iter::successors(newest, move |known| entry(known.older))
            .filter(|known| known.heard != PINNED)
            .take_while(move |known| now.since(known.heard) <= self.ageing)
            .map(|known| (known.vlan, known.address))
    }

    /// Knows an address on a port again, as if it had been heard now, where nothing was heard of it since.
    pub fn recall(&mut self, port: PortId, vlan: u16, address: MacAddress, now: Instant) {
        let Some(bridge) = self.port(port).map(|state| state.bridge) else {
            return;
        };
        if address.is_station() && self.carries(port, vlan) && self.find((bridge, vlan), address).is_none() {
            self.insert(port, (bridge, vlan), address, now);
        }
    }

    /// Knows an address, in no VLAN, on a port for good: it is on no other, whatever comes from there. The port is of a station of this domain
    /// itself, and has this address alone.
    pub fn pin(&mut self, port: PortId, address: MacAddress) {
        let Some(network) = self.port(port).map(|state| (state.bridge, 0)) else {
            return;
        };
        if let Some(number) = self.find(network, address).map(|(number, _)| number) {
            self.forget(number);
        }
        self.insert(port, network, address, PINNED);
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

    fn find(&self, network: Network, address: MacAddress) -> Option<(u32, &Entry)> {
        let entries = &self.entries;
        let number =
            *self.index.find(hash(self.key, network, address), |number| is_of(entries, *number, network, address))?;
        Some((number, entries.get(number as usize)?))
    }

    fn learn(&mut self, port: PortId, network: Network, source: MacAddress, now: Instant) {
        let Some((number, entry)) = self.find(network, source) else {
            self.insert(port, network, source, now);
            return;
        };
        if entry.port == port {
            if now.since(entry.heard) < FRESH {
                return;
            }
            self.unlink(number);
        } else if entry.heard == PINNED {
            return;
        } else {
            // The station has moved; a full port gives up its oldest for it.
            if self.is_full(port) {
                self.forget_oldest(port);
            }
            self.unlink(number);
            if let Some(entry) = self.entry_mut(number) {
                entry.port = port;
            }
        }
        self.link(number, now);
    }

    fn is_full(&self, port: PortId) -> bool {
        self.port(port).is_some_and(|state| state.count >= state.limit)
    }

    fn forget_oldest(&mut self, port: PortId) {
        if let Some(oldest) = self.port(port).map(|state| state.oldest)
            && oldest != NONE
        {
            self.forget(oldest);
        }
    }

    fn insert(&mut self, port: PortId, network: Network, address: MacAddress, now: Instant) {
        if self.is_full(port) || (self.index.len() >= self.capacity && self.learnt(port) > 0) {
            self.forget_oldest(port);
        } else if self.index.len() >= self.capacity {
            self.forget_any();
        }
        let (bridge, vlan) = network;
        let entry = Entry { address, bridge, vlan, port, heard: now, older: NONE, newer: NONE };
        let number = match self.free.pop() {
            Some(number) => {
                if let Some(place) = self.entry_mut(number) {
                    *place = entry;
                }
                number
            }
            None => {
                // Below the capacity, which is below `NONE`.
                let number = self.entries.len() as u32;
                self.entries.push(entry);
                number
            }
        };
        let (key, entries) = (self.key, &self.entries);
        let rehash = |number: &u32| match entries.get(*number as usize) {
            Some(entry) => hash(key, (entry.bridge, entry.vlan), entry.address),
            None => 0,
        };
        self.index.insert_unique(hash(key, network, address), number, rehash);
        self.link(number, now);
    }

    /// Gives up the oldest entry of some port, in turn, for a port that has none while the table is full.
    fn forget_any(&mut self) {
        let count = u32::try_from(self.entries.len()).unwrap_or(NONE);
        for _ in 0..count {
            self.hand = if self.hand + 1 < count { self.hand + 1 } else { 0 };
            let known = self.entries.get(self.hand as usize).filter(|entry| entry.heard != PINNED);
            if let Some(port) = known.map(|entry| entry.port) {
                return self.forget_oldest(port);
            }
        }
    }

    fn forget(&mut self, number: u32) {
        self.unlink(number);
        let Some(entry) = self.entries.get(number as usize) else {
            return;
        };
        let (network, address) = ((entry.bridge, entry.vlan), entry.address);
        let (key, entries) = (self.key, &self.entries);
        let place =
            self.index.find_entry(hash(key, network, address), |number| is_of(entries, *number, network, address));
        if let Ok(place) = place {
            place.remove();
            self.free.push(number);
        }
    }

    /// Puts an entry at the new end of its port's list.
    fn link(&mut self, number: u32, now: Instant) {
        let Some(port) = self.entries.get(number as usize).map(|entry| entry.port) else {
            return;
        };
        let Some(state) = self.port_mut(port) else {
            return;
        };
        let newest = core::mem::replace(&mut state.newest, number);
        if newest == NONE {
            state.oldest = number;
        }
        state.count += 1;
        if let Some(entry) = self.entry_mut(newest) {
            entry.newer = number;
        }
        if let Some(entry) = self.entry_mut(number) {
            entry.heard = now;
            entry.older = newest;
            entry.newer = NONE;
        }
    }

    /// Takes an entry out of its port's list.
    fn unlink(&mut self, number: u32) {
        let Some(entry) = self.entries.get(number as usize) else {
            return;
        };
        let (port, older, newer) = (entry.port, entry.older, entry.newer);
        if let Some(entry) = self.entry_mut(older) {
            entry.newer = newer;
        }
        if let Some(entry) = self.entry_mut(newer) {
            entry.older = older;
        }
        if let Some(state) = self.port_mut(port) {
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

fn is_of(entries: &[Entry], number: u32, network: Network, address: MacAddress) -> bool {
    entries.get(number as usize).is_some_and(|entry| entry.address == address && (entry.bridge, entry.vlan) == network)
}

/// Folded multiplications by a secret: three multiplications are cheaper than SipHash, and a guest sees no hash and no collision.
fn hash(key: KeyedHash, (bridge, vlan): Network, address: MacAddress) -> u64 {
    let [a, b, c, d, e, f] = address.0;
    let [g, h] = bridge.to_le_bytes();
    key.of([u64::from_le_bytes([a, b, c, d, e, f, g, h]), vlan.into()])
}

#[cfg(test)]
mod tests;
