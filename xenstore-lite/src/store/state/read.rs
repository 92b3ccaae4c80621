//! The state from records. Whatever they say, it ends in a store that holds together or in an error. Floor 1.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;

use xen_pv_sys::{DomainId, Port};

use super::{
    ALIGNMENT, ALL_LEVELS, CONNECTION, CUT_OFF, DOMAIN, END, GIVEN, GLOBAL, GLOBAL_QUOTA, HAS_UNIQUE, HEADER, MISSED,
    NODE, RING, STALE, TRANSACTION, WATCH, WATCH_EXTENDED,
};
use crate::ConnectionId;
use crate::connection::Connection;
use crate::domains::Counted;
use crate::node::{INTRODUCE_DOMAIN, Listing, Node, RELEASE_DOMAIN};
use crate::path;
use crate::path_map::Gathered;
use crate::permissions::{ANY, Permission, Rights};
use crate::quota::{Quota, Resource};
use crate::store::{Config, Store, mark_ready};
use crate::transaction::{Met, Transaction};
use crate::watches::{Scope, Watch};

/// Why a state cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateError {
    /// No `xenstore` stream, or of a version or a byte order that is not ours.
    Header,
    /// The record at that offset is cut short, or says what cannot be.
    Record(usize),
}

impl core::fmt::Display for StateError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Header => formatter.write_str("no stream of this version and byte order"),
            Self::Record(value) => write!(formatter, "the record at byte {value} is cut short or malformed"),
        }
    }
}

impl core::error::Error for StateError {}

/// Fields from the front of bytes.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// So many bytes, the last of them a zero byte that is not part of what they say.
    fn string(&mut self, count: u16) -> Option<&'a [u8]> {
        self.take(usize::from(count))?.strip_suffix(&[0]).filter(|string| !string.contains(&0))
    }

    /// Bytes up to a zero byte.
    fn name(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let name = self.take(end)?;
        self.take(1).map(|_| name)
    }
}

/// A node of a transaction, as its record has it.
type Pending = (Rc<[u8]>, Option<Node>, u16);

/// A committed node to which children may still come.
struct Open {
    path: Rc<[u8]>,
    node: Node,
    /// Where the names of its children begin in [`Reader::names`].
    names: usize,
}

/// Nodes of one owner that are not counted for it yet.
struct Uncounted {
    owner: DomainId,
    nodes: usize,
    counted: Counted,
}

/// A store in the making.
struct Reader {
    store: Store,
    /// Committed nodes that are whole.
    nodes: Gathered<Node>,
    /// The last committed node and those above it.
    open: Vec<Open>,
    /// The children of those, as far as they came.
    names: Vec<u8>,
    uncounted: Uncounted,
    /// Of the last node that is whole.
    generation: u64,
    /// Those of the record that is read.
    permissions: Vec<Permission>,
    /// The last domain that was met in them.
    met: DomainId,
    /// The nodes say what of them was given, as the root's does. C xenstored's do not.
    tells_given: bool,
    /// Nodes of transactions, by connection and transaction.
    pending: BTreeMap<(u32, u32), Vec<Pending>>,
}

impl Store {
    /// A store from what [`write_state`](Self::write_state) gave, or C xenstored. `config`'s quotas are replaced by those of the state.
    ///
    /// The rings are to be mapped and their channels bound by [`connections`](Self::connections); who answered or was told something that is
    /// not out yet is told so by [`poll_ready`](Self::poll_ready).
    ///
    /// # Errors
    /// [`StateError`].
    pub fn read_state(bytes: &[u8], config: Config) -> Result<Self, StateError> {
        let version_one = [&HEADER[..11], &[1], &HEADER[12..]].concat();
        let (header, _) = bytes.split_at_checked(HEADER.len()).ok_or(StateError::Header)?;
        if *header != HEADER && *header != *version_one {
            return Err(StateError::Header);
        }
        let mut reader = Reader::new(Self::bare(config));
        let mut at = HEADER.len();
        loop {
            let error = StateError::Record(at);
            let mut fields = Fields(bytes.get(at..).unwrap_or_default());
            let kind = fields.u32().ok_or(error)?;
            let length = fields.u32().and_then(|length| usize::try_from(length).ok()).ok_or(error)?;
            let body = fields.take(length).ok_or(error)?;
            if kind == END {
                return reader.finish().ok_or(error);
            }
            reader.record(kind, &mut Fields(body)).ok_or(error)?;
            at += (8 + length).next_multiple_of(ALIGNMENT);
        }
    }
}

impl Reader {
    /// Begins with a store that has no node.
    fn new(store: Store) -> Self {
        let met = store.domains.privileged;
        Self {
            store,
            nodes: Gathered::default(),
            open: Vec::new(),
            names: Vec::new(),
            uncounted: Uncounted { owner: met, nodes: 0, counted: Counted::default() },
            generation: 0,
            permissions: Vec::new(),
            met,
            tells_given: false,
            pending: BTreeMap::new(),
        }
    }

    fn record(&mut self, kind: u32, fields: &mut Fields<'_>) -> Option<()> {
        match kind {
            GLOBAL => Some(()),
            GLOBAL_QUOTA => self.global_quotas(fields),
            DOMAIN => self.domain(fields),
            CONNECTION => self.connection(fields),
            WATCH | WATCH_EXTENDED => self.watch(kind, fields),
            TRANSACTION => self.transaction(fields),
            NODE => self.node(fields),
            other => {
                log::warn!("a record of the unknown kind {other} is passed over");
                Some(())
            }
        }
    }

    /// Quota values and their names; those unknown are passed over.
    fn quotas(count: usize, fields: &mut Fields<'_>) -> Option<Vec<(Quota, u32)>> {
        let mut values = Fields(fields.take(count.checked_mul(4)?)?);
        let mut quotas = Vec::new();
        while let Some(value) = values.u32() {
            quotas.extend(Quota::from_name(fields.name()?).map(|quota| (quota, value)));
        }
        Some(quotas)
    }

    fn global_quotas(&mut self, fields: &mut Fields<'_>) -> Option<()> {
        let count = usize::from(fields.u16()?) + usize::from(fields.u16()?);
        for (quota, value) in Self::quotas(count, fields)? {
            self.store.domains.quotas.set(quota, value);
        }
        Some(())
    }

    fn domain(&mut self, fields: &mut Fields<'_>) -> Option<()> {
        let id = DomainId(fields.u16()?);
        let count = usize::from(fields.u16()?);
        let features = fields.u32()?;
        self.store.domains.ensure(id, 0, 0)?.features = features & self.store.domains.features;
        for (quota, value) in Self::quotas(count, fields)? {
            self.store.domains.set_quota(id, quota, value);
        }
        Some(())
    }

    fn connection(&mut self, fields: &mut Fields<'_>) -> Option<()> {
        let (number, kind, has) = (fields.u32()?, fields.u16()?, fields.u16()?);
        let (domain, target, port) = (DomainId(fields.u16()?), DomainId(fields.u16()?), fields.u32()?);
        let (input, rest, output) = (fields.u16()?, fields.u16()?, fields.u32()?);
        let (input, output) = (usize::from(input), usize::try_from(output).ok()?);
        let (partial, waiting) = (fields.take(input)?, fields.take(output)?);
        let padding = (input + output).next_multiple_of(ALIGNMENT) - (input + output);
        let unique = if has & HAS_UNIQUE == 0 { 0 } else { fields.take(padding).and_then(|_| fields.u64())? };
        let id = ConnectionId(number);
        if kind != RING || number == 0 || number == u32::MAX || self.store.connections.contains_key(&id) {
            return None;
        }
        let store = &mut self.store;
        let known = store.domains.ensure(domain, unique, 0)?;
        if known.introduced {
            return None;
        }
        known.introduced = true;
        known.unique = unique;
        known.target = Some(target).filter(|target| *target != DomainId::INVALID);
        if port == CUT_OFF {
            return Some(());
        }
        known.connection = Some(id);
        let mut connection = Connection::new(domain);
        connection.port = Port(port);
        connection.take_in(partial).ok()?;
        let answers = connection.restore_output(usize::from(rest), waiting);
        store.domains.add(domain, Resource::Outstanding, answers);
        store.domains.add(domain, Resource::Memory, connection.charged() + connection.charged_input());
        if !waiting.is_empty() {
            mark_ready(&mut store.ready, id, &mut connection);
        }
        store.connections.insert(id, connection);
        store.next_connection = store.next_connection.max(number + 1);
        Some(())
    }

    fn watch(&mut self, kind: u32, fields: &mut Fields<'_>) -> Option<()> {
        let connection = ConnectionId(fields.u32()?);
        let (path_bytes, token_bytes) = (fields.u16()?, fields.u16()?);
        let (depth, flags) = if kind == WATCH { (ALL_LEVELS, 0) } else { (fields.u16()?, fields.u16()?) };
        let missed = flags & MISSED != 0;
        let (word, token) = (fields.string(path_bytes)?, fields.string(token_bytes)?);
        let own = self.store.connections.get_mut(&connection)?;
        own.missed += usize::from(missed);
        let path = path::canonical(word, own.domain, true)?;
        let omitted = path.len() - word.len();
        let depth = Some(depth).filter(|depth| *depth != ALL_LEVELS);
        let watch = Watch { connection, serial: 0, token: token.into(), depth, omitted, missed };
        self.store.add_watch(path.into_owned().into(), watch);
        Some(())
    }

    fn transaction(&mut self, fields: &mut Fields<'_>) -> Option<()> {
        let (connection, number) = (fields.u32()?, fields.u32()?);
        let own = self.store.connections.get_mut(&ConnectionId(connection))?;
        if number == 0 || own.transactions.insert(number, Transaction::default()).is_some() {
            return None;
        }
        self.store.domains.add(own.domain, Resource::Transactions, 1);
        self.pending.insert((connection, number), Vec::new());
        Some(())
    }

    fn node(&mut self, fields: &mut Fields<'_>) -> Option<()> {
        // Most of the state is nodes, so their fields are taken at once.
        let (owner, lengths) = (fields.u64()?, fields.u64()?);
        let owner = (owner as u32, (owner >> 32) as u32);
        let short = |place: u32| (lengths >> (16 * place)) as u16;
        let (path_bytes, value_bytes) = (short(0), usize::from(short(1)));
        let (access, count) = (short(2), usize::from(short(3)));
        self.permissions.clear();
        let (entries, _) = fields.take(4 * count)?.as_chunks::<4>();
        for [letter, flags, low, high] in entries {
            let (rights, domain) = (Rights::from_letter(*letter)?, DomainId(u16::from_le_bytes([*low, *high])));
            let stale = flags & STALE != 0;
            if !stale && domain != ANY && domain != self.met {
                self.store.domains.ensure(domain, 0, 0);
                self.met = domain;
            }
            self.permissions.push(Permission { domain, rights, stale });
        }
        let path = fields.string(path_bytes)?;
        let value = fields.take(value_bytes)?;
        if owner.0 == 0 {
            return self.committed(path, value, access);
        }
        if path::is_relative(path) || path::canonical(path, DomainId(0), true).is_none() {
            return None;
        }
        let given = usize::from(access & GIVEN);
        let node = (count > 0).then(|| Node { given, ..Node::new(value, (*self.permissions).into()) });
        let access = access & !GIVEN;
        self.pending.get_mut(&owner)?.push((path.into(), node, access));
        Some(())
    }

    /// A node of the tree: behind the one above it, and before whatever is beside that.
    fn committed(&mut self, path: &[u8], value: &[u8], access: u16) -> Option<()> {
        let is_top = [path::ROOT, INTRODUCE_DOMAIN, RELEASE_DOMAIN].contains(&path);
        if self.permissions.is_empty() {
            return None;
        }
        let (above, name) = if is_top { (path::ROOT, path) } else { path::split(path)? };
        while let Some(last) = self.open.pop_if(|last| is_top || *last.path != *above) {
            self.close(last);
        }
        let parent = self.open.last();
        if parent.is_none() != is_top {
            return None;
        }
        // Most nodes have the permissions of the one above, and share them.
        let same = parent.as_ref().map(|parent| &parent.node.permissions).filter(|same| ***same == *self.permissions);
        let permissions = same.cloned().unwrap_or_else(|| (*self.permissions).into());
        if !is_top {
            self.names.extend_from_slice(name);
            self.names.push(0);
        }
        let names = self.names.len();
        let mut node = Node { given: usize::from(access & GIVEN), ..Node::new(value, permissions) };
        self.tells_given |= path == path::ROOT && node.given > 0;
        if !self.tells_given && self.open.last().is_some_and(|above| self.is_gift(&node, &above.node)) {
            node.given = node.charge(path);
        }
        self.open.push(Open { path: path.into(), node, names });
        Some(())
    }

    /// Whether it was the privileged domain that made a node: its owner may not write to the one above.
    fn is_gift(&self, node: &Node, above: &Node) -> bool {
        !self.store.domains.caller(node.owner()).rights(&above.permissions).hold(Rights::WRITE)
    }

    /// A node has all its children.
    fn close(&mut self, Open { path, mut node, names }: Open) {
        node.children = Listing::of(self.names.get(names..).unwrap_or_default());
        self.names.truncate(names);
        let owner = node.owner();
        if owner != self.uncounted.owner {
            self.count(owner);
        }
        let counted = node.counted(&path, self.store.domains.privileged);
        node.given = counted.given;
        self.uncounted.counted += counted;
        self.uncounted.nodes += 1;
        self.generation += 1;
        node.generation = self.generation;
        self.nodes.add(path, node);
    }

    /// Counts what is not counted; what comes then is `next`'s.
    fn count(&mut self, next: DomainId) {
        let uncounted = Uncounted { owner: next, nodes: 0, counted: Counted::default() };
        let Uncounted { owner, nodes, counted } = core::mem::replace(&mut self.uncounted, uncounted);
        self.store.domains.add_nodes(owner, nodes, counted);
    }

    fn finish(mut self) -> Option<Store> {
        while let Some(last) = self.open.pop() {
            self.close(last);
        }
        self.count(self.store.domains.privileged);
        self.store.tree.fill(core::mem::take(&mut self.nodes).finish()?, self.generation);
        for (owner, nodes) in core::mem::take(&mut self.pending) {
            self.pending_nodes(owner, nodes)?;
        }
        let tops = [path::ROOT, INTRODUCE_DOMAIN, RELEASE_DOMAIN];
        tops.iter().all(|path| self.store.tree.nodes.get(path).is_some()).then_some(self.store)
    }

    /// Gives a transaction what it had met, and nodes of it the lists of their children, which no record has.
    fn pending_nodes(&mut self, (connection, number): (u32, u32), nodes: Vec<Pending>) -> Option<()> {
        let store = &mut self.store;
        let own = store.connections.get_mut(&ConnectionId(connection))?;
        let transaction = own.transactions.get_mut(&number)?;
        let mut listings: BTreeMap<&[u8], _> = nodes
            .iter()
            .map(|(path, ..)| {
                (&**path, store.tree.nodes.get(path).map(|node| node.children.clone()).unwrap_or_default())
            })
            .collect();
        for (path, node, _) in &nodes {
            let parent = listings.get_mut(path::parent(path)).filter(|_| **path != *path::ROOT);
            match (parent, store.tree.nodes.get(path), node) {
                (Some(children), None, Some(_)) => children.add(path::name(path)),
                (Some(children), Some(_), None) => children.remove(path::name(path)),
                _ => {}
            }
        }
        for (path, node, access) in &nodes {
            let live = store.tree.nodes.get(path);
            // What was met as absent and is there, or the other way round, without a change by the transaction: it has lost.
            let changed = *access != super::READ;
            let lost = !changed && live.is_some() != node.is_some();
            let seen = if lost { node.as_ref().map(|_| 0) } else { live.map(|node| node.generation) };
            let fires = match access & (super::SILENT | super::EXACT) {
                0 => changed.then_some(Scope::Subtree),
                super::EXACT => Some(Scope::Exact),
                _ => None,
            };
            transaction.created |= changed && live.is_none();
            let generation = store.tree.generation();
            let children = listings.remove(&**path)?;
            let now = node.clone().map(|node| {
                let given = live.filter(|_| !changed).map_or(node.given, |live| live.given);
                Node { generation, children, given, ..node }
            });
            if changed {
                let owners = [(live, -1), (now.as_ref(), 1)];
                owners.into_iter().for_each(|(node, more)| {
                    node.into_iter().for_each(|node| transaction.restore_tally(node.owner(), more));
                });
            }
            // A transaction that was written held, so what it met is what is there.
            let before = live.map(|node| node.permissions.clone());
            transaction.restore(path, Met { seen, before, now, changed, fires });
        }
        store.domains.add(own.domain, Resource::Memory, transaction.memory());
        Some(())
    }
}
