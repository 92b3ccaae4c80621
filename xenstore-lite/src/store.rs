//! The store's face: connections in, answers and events out. Pure. Floor 1.

mod check;
mod control;
mod delivery;
mod domain_ends;
mod domain_requests;
mod node_requests;
mod patience;
mod requests;
mod state;

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;

use xen_pv_sys::io::xs_wire::ServerFeatures;
use xen_pv_sys::{DomainId, Port};

use crate::ConnectionId;
use crate::connection::{Cause, Connection, Gone};
use crate::domains::Domains;
use crate::node::{self, Node, Tree};
use crate::path;
use crate::permissions::{ANY, Permission, Rights};
use crate::quota::{Quotas, Resource};
use crate::watches::{Event, Watches};
use crate::wire::{HEADER_BYTES, Message, PAYLOAD_MAX, ProtocolError};
use crate::{Error, Host, Map, charge};
use patience::Protection;
pub use state::StateError;

/// Answers that wait for the privileged domain before its requests do; the others' quota says that for them.
const PRIVILEGED_OUTSTANDING: usize = 64;

/// What a store begins with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The domain to which nothing is refused.
    pub privileged: DomainId,
    /// The domain in which the store runs; `RELEASE` and `RESUME` are not for it.
    pub own: DomainId,
    /// What `GET_FEATURE` tells, and what belongs into a ring's `server_features`.
    pub features: ServerFeatures,
    /// The quotas of domains that have none of their own.
    pub quotas: Quotas,
    /// Bytes that all domains may take together; 0 is no bound. What is taken has to fit twice, in the heap and as it is kept for the next
    /// life. Beyond it only the privileged domain gets more. Beside what that gave it, a domain may have a quarter of what is free.
    pub memory: usize,
}

impl Default for Config {
    /// For a store in dom0, with all features and C xenstored's quotas.
    fn default() -> Self {
        let dom0 = DomainId(0);
        Self { privileged: dom0, own: dom0, features: ServerFeatures::all(), quotas: Quotas::default(), memory: 0 }
    }
}

/// A connection for the embedder, e.g. after [`Store::read_state`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    /// Which.
    pub id: ConnectionId,
    /// Whose.
    pub domain: DomainId,
    /// What [`Store::set_port`] said.
    pub port: Port,
    /// [`Host::domain`]'s number of that domain; 0 where unknown.
    pub unique: u64,
    /// What belongs into the ring's `server_features`.
    pub features: u32,
}

/// What a domain takes up, of what its quotas count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nodes that it owns.
    pub nodes: usize,
    /// Its watches.
    pub watches: usize,
    /// Its transactions.
    pub transactions: usize,
    /// Bytes of all that, and of what waits for it.
    pub memory: usize,
}

/// The xenstore.
///
/// Each call does at once what it can. Clone it to keep the state of a moment.
#[derive(Clone, Debug)]
pub struct Store {
    tree: Tree,
    domains: Domains,
    watches: Watches,
    connections: Map<ConnectionId, Connection>,
    next_connection: u32,
    /// Connections to be named by `poll_ready`.
    ready: VecDeque<ConnectionId>,
    /// What happened and is not yet told to the watches.
    events: Vec<Event>,
    own: DomainId,
    protection: Option<Protection>,
    /// Requests served, which tells those apart whose events wait.
    served: u64,
    /// `CONTROL log`: requests go into the log.
    traced: bool,
    /// Of what the state tells.
    changes: u64,
}

impl Store {
    /// With the nodes of a fresh store: `/tool/xenstored` and the special ones.
    pub fn new(config: Config) -> Self {
        let mut store = Self::bare(config);
        let privileged = store.domains.privileged;
        let permissions: Rc<[_]> = [Permission::new(privileged, Rights::NONE)].into();
        let mut put = |path: &[u8], children: &[u8], permissions: &Rc<[Permission]>| {
            let mut node = Node::new(&[], permissions.clone());
            if !children.is_empty() {
                node.children.add(children);
            }
            store.tree.put(path.into(), node, &mut store.domains);
        };
        put(path::ROOT, b"tool", &permissions);
        put(b"/tool", b"xenstored", &permissions);
        put(b"/tool/xenstored", &[], &permissions);
        put(node::INTRODUCE_DOMAIN, &[], &permissions);
        let readable = [Permission::new(privileged, Rights::NONE), Permission::new(ANY, Rights::READ)];
        put(node::RELEASE_DOMAIN, &[], &readable.into());
        store
    }

    /// Without a node.
    fn bare(config: Config) -> Self {
        let Config { privileged, own, features, quotas, memory } = config;
        let mut domains = Domains::new(privileged, features.bits(), quotas, memory);
        domains.ensure(privileged, 0, 0);
        Self {
            tree: Tree::new(privileged),
            domains,
            watches: Watches::default(),
            connections: Map::default(),
            next_connection: 1,
            ready: VecDeque::new(),
            events: Vec::new(),
            own,
            protection: None,
            served: 0,
            traced: false,
            changes: 0,
        }
    }

    /// A domain's connection, one for each; `None` where it has got one. Fires `@introduceDomain` but for the privileged domain.
    pub fn connect(&mut self, domain: DomainId) -> Option<ConnectionId> {
        let id = ConnectionId(self.next_connection);
        let known = self.domains.ensure(domain, 0, self.tree.generation())?;
        if known.connection.is_some() {
            return None;
        }
        let first = !known.introduced;
        known.connection = Some(id);
        known.introduced = true;
        known.shutdown = false;
        self.next_connection += 1;
        self.connections.insert(id, Connection::new(domain));
        if first && domain != self.domains.privileged {
            self.fire_introduced(domain);
            self.deliver(None);
        }
        Some(id)
    }

    /// Ends a connection with its watches, its transactions and what was under way. Nodes stay, and the domain counts as introduced.
    pub fn disconnect(&mut self, id: ConnectionId) {
        if let Some(connection) = self.clear(id) {
            self.connections.remove(&id);
            if let Some(domain) = self.domains.get_mut(connection) {
                domain.connection = None;
            }
        }
    }

    /// Has a connection begin anew, as after [`connect`](Self::connect).
    pub fn reset(&mut self, id: ConnectionId) {
        self.clear(id);
    }

    /// Notes the event channel of a connection, for [`write_state`](Self::write_state).
    pub fn set_port(&mut self, id: ConnectionId, port: Port) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.port = port;
        }
    }

    /// Notes [`Host::domain`]'s number of a domain, for [`write_state`](Self::write_state).
    pub fn set_unique(&mut self, domain: DomainId, unique: u64) {
        if let Some(domain) = self.domains.get_mut(domain) {
            domain.unique = unique;
        }
    }

    /// The connections, the oldest first.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionInfo> {
        self.connections.iter().map(|(id, connection)| {
            let domain = self.domains.get(connection.domain);
            ConnectionInfo {
                id: *id,
                domain: connection.domain,
                port: connection.port,
                unique: domain.map_or(0, |domain| domain.unique),
                features: domain.map_or(0, |domain| domain.features),
            }
        })
    }

    /// A domain's connection.
    pub fn connection(&self, domain: DomainId) -> Option<ConnectionId> {
        self.domains.get(domain)?.connection
    }

    /// All domains that the store knows of, connected or named by nodes and permissions, with [`Host::domain`]'s numbers of them as far as it
    /// has those. Whichever of them is gone, or is another one by now, is for [`handle_domain_gone`](Self::handle_domain_gone).
    pub fn known_domains(&self) -> impl Iterator<Item = (DomainId, Option<u64>)> {
        self.domains.iter().map(|(id, domain)| (id, Some(domain.unique).filter(|unique| *unique != 0)))
    }

    /// What a domain takes up.
    pub fn usage(&self, domain: DomainId) -> Usage {
        let takes = |resource| self.domains.takes(domain, resource);
        Usage {
            nodes: takes(Resource::Nodes),
            watches: takes(Resource::Watches),
            transactions: takes(Resource::Transactions),
            memory: takes(Resource::Memory),
        }
    }

    /// Bytes that a domain which can be cut off took by itself: its memory without what the privileged domain gave it.
    fn hoards(&self, domain: DomainId) -> Option<usize> {
        let known = self.domains.get(domain).filter(|known| known.connection.is_some())?;
        (domain != self.domains.privileged && domain != self.own).then(|| known.hoards())
    }

    /// Whether a domain took `limit` bytes or more by itself and can be cut off for it.
    pub fn is_above(&self, domain: DomainId, limit: usize) -> bool {
        self.hoards(domain).is_some_and(|hoards| hoards >= limit)
    }

    /// Which domain has taken the most by itself, of those that took less than `below` bytes, and how much.
    pub fn most_hoarded(&self, below: usize) -> Option<(DomainId, usize)> {
        let all = self.domains.iter().filter_map(|(id, _)| Some((id, self.hoards(id)?)));
        all.filter(|(_, hoards)| *hoards < below).max_by_key(|(_, hoards)| *hoards)
    }

    /// Bytes that all take but for what those took by themselves that took `limit` or more.
    pub fn counted_below(&self, limit: usize) -> usize {
        let hoarded = self.domains.iter().filter_map(|(id, _)| self.hoards(id));
        self.domains.all(Resource::Memory).saturating_sub(hoarded.filter(|hoards| *hoards >= limit).sum())
    }

    /// Takes bytes, serves at most one whole request, and gives how many bytes were taken.
    ///
    /// Takes none while too many answers wait, which [`transmitted`](Self::transmitted) changes, or while the request is held back, of which
    /// [`poll_held`](Self::poll_held) tells. A request that came in pieces may be held with all its bytes taken: call again then, with no new
    /// ones too.
    ///
    /// # Errors
    /// [`ProtocolError`]: cut the connection off.
    pub fn handle_bytes(
        &mut self,
        id: ConnectionId,
        input: &[u8],
        host: &mut dyn Host,
    ) -> Result<usize, ProtocolError> {
        if self.is_full(id) {
            return Ok(0);
        }
        let Some(connection) = self.connections.get(&id) else {
            return Ok(0);
        };
        if connection.partial.is_empty()
            && let Some(message) = Message::parse(input)?
        {
            if self.holds_back(id, &message) {
                return Ok(0);
            }
            self.serve(id, &message, host);
            return Ok(message.bytes());
        }
        let (taken, partial) = self.take_in(id, input)?;
        match Message::parse(&partial)? {
            Some(message) if !self.holds_back(id, &message) => self.serve(id, &message, host),
            _ => self.put_back(id, partial),
        }
        Ok(taken)
    }

    /// Takes bytes as [`handle_bytes`](Self::handle_bytes) does, but answers a whole request with an error in place of serving it.
    ///
    /// # Errors
    /// [`ProtocolError`]: cut the connection off.
    pub fn refuse_bytes(&mut self, id: ConnectionId, input: &[u8], error: Error) -> Result<usize, ProtocolError> {
        let (taken, partial) = self.take_in(id, input)?;
        match Message::parse(&partial)? {
            Some(message) => self.answer(id, &message.header, &Err(error)),
            None => self.put_back(id, partial),
        }
        Ok(taken)
    }

    /// Adds bytes to a request that is not whole, and takes that out; gives how many were taken as well.
    fn take_in(&mut self, id: ConnectionId, input: &[u8]) -> Result<(usize, Vec<u8>), ProtocolError> {
        let Some(connection) = self.connections.get_mut(&id) else {
            return Ok((0, Vec::new()));
        };
        let charged = connection.charged_input();
        let taken = connection.take_in(input);
        self.changes += 1;
        // Also where the bytes break the protocol: a request that is never served is counted no longer, at its own figure.
        let partial = core::mem::take(&mut connection.partial);
        self.domains.take_off(connection.domain, Resource::Memory, charged);
        Ok((taken?, partial))
    }

    /// Keeps a request that is not to be served yet.
    fn put_back(&mut self, id: ConnectionId, partial: Vec<u8>) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.partial = partial;
            self.domains.add(connection.domain, Resource::Memory, connection.charged_input());
        }
    }

    /// Grows with each change of what [`write_state`](Self::write_state) tells, but for answers that come and go. Requests that only read
    /// leave it.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Bytes of a connection that are gone since it began, or since the state was read; wraps.
    pub fn gone(&self, id: ConnectionId) -> u32 {
        self.connections.get(&id).map_or(0, |connection| connection.gone)
    }

    /// What to transmit next: what is left of the first message that waits. Empty for nothing.
    pub fn poll_transmit(&self, id: ConnectionId) -> &[u8] {
        self.connections.get(&id).map_or(&[], Connection::transmit)
    }

    /// Bytes of all messages that wait.
    pub fn waiting(&self, id: ConnectionId) -> usize {
        self.connections.get(&id).map_or(0, Connection::waiting_bytes)
    }

    /// So many bytes of the [`waiting`](Self::waiting) ones are gone.
    pub fn transmitted(&mut self, id: ConnectionId, count: usize) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let domain = connection.domain;
        let mut causes = Vec::new();
        connection.transmitted(count, |Gone { bytes, answer, cause }| {
            self.domains.take_off(domain, Resource::Memory, bytes);
            self.domains.take_off(domain, Resource::Outstanding, usize::from(answer));
            causes.extend(cause);
        });
        for cause in causes {
            self.fetched(cause);
        }
        self.make_up(id);
    }

    /// A connection that has got something to transmit since it was last named here.
    pub fn poll_ready(&mut self) -> Option<ConnectionId> {
        loop {
            let id = self.ready.pop_front()?;
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.ready = false;
                return Some(id);
            }
        }
    }

    /// Whether a connection is held back for another's sake: call [`handle_bytes`](Self::handle_bytes) again for those that have got
    /// something to say, after a millisecond or so.
    pub fn poll_held(&self) -> bool {
        self.protection.as_ref().is_some_and(|protection| protection.holds())
    }

    /// Whether a whole request of a connection was taken and is not served: call [`handle_bytes`](Self::handle_bytes) again, with no new
    /// bytes too. It was held back, by this store or by one whose state this one has read.
    pub fn has_request(&self, id: ConnectionId) -> bool {
        let partial = self.connections.get(&id).map_or(&[][..], |connection| &connection.partial);
        matches!(Message::parse(partial), Ok(Some(_)))
    }

    /// Whether too many answers wait for that connection.
    fn is_full(&self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get(&id) else {
            return true;
        };
        let domain = connection.domain;
        let outstanding = self.domains.takes(domain, Resource::Outstanding);
        if domain == self.domains.privileged {
            outstanding >= PRIVILEGED_OUTSTANDING
        } else {
            // Where memory is short, an answer at a time.
            let answers = outstanding.saturating_sub(connection.causing.len());
            let message = charge::answer(HEADER_BYTES + PAYLOAD_MAX);
            self.domains.exceeds(domain, Resource::Outstanding, outstanding + 1)
                || (answers > 0 && self.domains.exceeds_share(domain, message))
        }
    }

    /// An event of that request has been fetched.
    fn fetched(&mut self, cause: Cause) {
        let Some(connection) = self.connections.get_mut(&cause.connection) else {
            return;
        };
        if let Some(count) = connection.causing.get_mut(&cause.serial) {
            *count -= 1;
            if *count == 0 {
                connection.causing.remove(&cause.serial);
                self.domains.take_off(connection.domain, Resource::Outstanding, 1);
            }
        }
    }

    /// Takes from a connection all that it has got; gives whose it is.
    fn clear(&mut self, id: ConnectionId) -> Option<DomainId> {
        self.clear_watches(id);
        self.clear_transactions(id);
        let connection = self.connections.get(&id)?;
        let (waiting, gone) = (connection.waiting_bytes(), connection.gone);
        self.transmitted(id, waiting);
        let connection = self.connections.get_mut(&id)?;
        connection.gone = gone;
        let domain = connection.domain;
        self.domains.take_off(domain, Resource::Outstanding, connection.causing.len());
        self.domains.take_off(domain, Resource::Memory, connection.charged_input());
        connection.begin_anew();
        Some(domain)
    }

    fn clear_watches(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let domain = connection.domain;
        connection.missed = 0;
        for (serial, path) in &core::mem::take(&mut connection.watches) {
            if let Some(watch) = self.watches.remove(path, *serial) {
                self.domains.take_off(domain, Resource::Watches, 1);
                self.domains.take_off(domain, Resource::Memory, charge::watch(path.len(), watch.token.len()));
            }
        }
    }

    fn clear_transactions(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        for transaction in core::mem::take(&mut connection.transactions).values() {
            self.domains.take_off(connection.domain, Resource::Transactions, 1);
            self.domains.take_off(connection.domain, Resource::Memory, transaction.memory());
        }
    }
}

/// Has `poll_ready` name a connection.
fn mark_ready(ready: &mut VecDeque<ConnectionId>, id: ConnectionId, connection: &mut Connection) {
    if !core::mem::replace(&mut connection.ready, true) {
        ready.push_back(id);
    }
}

/// The name of an error, as it is answered.
fn error_payload(error: Error) -> Vec<u8> {
    [error.name().as_bytes(), b"\0"].concat()
}
