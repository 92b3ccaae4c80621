//! A naive model of the store: plain maps, everything counted anew whenever it is asked for. For tests and fuzzers on a host. Floor 1.
//!
//! It shares with the store how words, paths and permissions are read off the wire, which tables test, and nothing else. A transaction copies
//! what it meets; watches are all walked for each event; what domains take up is summed up over the whole store.

mod node_requests;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use xen_pv_sys::DomainId;
use xen_pv_sys::io::xs_wire as abi;

use crate::fakes::Heard;
use crate::permissions::{ANY, Caller, Permission, Rights};
use crate::{Error, Quotas, Resource, Usage, charge, path, payload};

/// Bytes of a message's header.
const HEADER_BYTES: usize = 16;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    value: Vec<u8>,
    permissions: Vec<Permission>,
    /// Names, in the order in which they were made.
    children: Vec<Vec<u8>>,
    /// When it was last changed.
    changed: u64,
}

/// What a message that waits counts in memory.
fn charge_of(heard: &Heard) -> usize {
    let charge = if heard.kind == abi::XS_WATCH_EVENT { charge::event } else { charge::answer };
    charge(HEADER_BYTES + heard.payload.len())
}

impl Node {
    fn size(&self) -> usize {
        let names: usize = self.children.iter().map(|name| name.len() + 1).sum();
        16 + 8 * self.permissions.len() + self.value.len() + names
    }

    fn contents(&self) -> (usize, usize, usize) {
        (self.value.len(), self.permissions.len(), self.children.iter().map(|name| name.len() + 1).sum())
    }

    /// What it counts in memory, in the tree and where a transaction has met it.
    fn charge(&self, path: &[u8]) -> usize {
        let (value, permissions, children) = self.contents();
        charge::node(path.len(), value, permissions, children)
    }

    fn owner(&self) -> DomainId {
        self.permissions[0].domain
    }
}

type Path = Vec<u8>;
type Nodes = BTreeMap<Path, Node>;

#[derive(Clone, Debug, Default)]
struct Transaction {
    /// What was met, in that order: as it was.
    met: Vec<(Path, Option<Node>)>,
    /// And as it is.
    now: BTreeMap<Path, Option<Node>>,
    changed: BTreeSet<Path>,
    /// Events at the commit; whether they are for the subtree.
    fires: BTreeMap<Path, bool>,
    created: bool,
    failed: bool,
    /// A domain that it named is gone.
    lost: bool,
}

#[derive(Clone, Debug)]
struct Watch {
    path: Path,
    token: Vec<u8>,
    depth: Option<i64>,
    relative: bool,
    /// There was no room for an event of it.
    missed: bool,
}

/// A message, and for an event the domain and the number of the request that made it.
type Waiting = (Heard, Option<(DomainId, u64)>);

#[derive(Clone, Debug, Default)]
struct Domain {
    introduced: bool,
    connected: bool,
    shutdown: bool,
    target: Option<DomainId>,
    transactions: BTreeMap<u32, Transaction>,
    next_transaction: u32,
    watches: Vec<Watch>,
    waiting: Vec<Waiting>,
}

/// The model. Domain 0 is the privileged one and is connected from the beginning.
#[derive(Clone, Debug)]
pub struct Model {
    nodes: Nodes,
    domains: BTreeMap<DomainId, Domain>,
    /// Domains that the machine has.
    existing: BTreeSet<DomainId>,
    quotas: Quotas,
    clock: u64,
    served: u64,
}

/// Whom an event is for, beside who watches its very path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Exact,
    Subtree,
    Special,
    SpecialDomain,
}

/// Something happened.
struct Event<'a> {
    path: &'a [u8],
    scope: Scope,
    now: Option<&'a [Permission]>,
    before: Option<&'a [Permission]>,
    parent: Option<&'a [Permission]>,
}

impl Model {
    /// A fresh store.
    pub fn new(quotas: Quotas) -> Self {
        let dom0 = DomainId(0);
        let mut model = Self {
            nodes: Nodes::new(),
            domains: BTreeMap::from([(dom0, Domain { introduced: true, connected: true, ..Domain::default() })]),
            existing: BTreeSet::from([dom0]),
            quotas,
            clock: 1,
            served: 0,
        };
        let plain = Permission::new(dom0, Rights::NONE);
        let special = [plain, Permission::new(ANY, Rights::READ)];
        let nodes: [(&[u8], &[u8], &[Permission]); 5] = [
            (b"/", b"tool", &[plain]),
            (b"/tool", b"xenstored", &[plain]),
            (b"/tool/xenstored", b"", &[plain]),
            (b"@introduceDomain", b"", &[plain]),
            (b"@releaseDomain", b"", &special),
        ];
        for (path, child, permissions) in nodes {
            let children = if child.is_empty() { Vec::new() } else { alloc::vec![child.to_vec()] };
            let node = Node { value: Vec::new(), permissions: permissions.to_vec(), children, changed: 0 };
            model.nodes.insert(path.to_vec(), node);
        }
        model
    }

    /// The machine has a new domain.
    pub fn create(&mut self, domain: DomainId) {
        self.existing.insert(domain);
    }

    /// The domain is gone from the machine, and the store is told.
    pub fn destroy(&mut self, domain: DomainId) {
        self.existing.remove(&domain);
        self.forget(domain);
    }

    /// The domain shut down, and the store is told.
    pub fn shut_down(&mut self, domain: DomainId) {
        let Some(known) = self.domains.get_mut(&domain) else { return };
        if known.introduced && !core::mem::replace(&mut known.shutdown, true) {
            self.special(b"@releaseDomain", Scope::SpecialDomain, domain);
            self.special(b"@releaseDomain", Scope::Special, domain);
        }
    }

    /// The store goes on from its written state: transactions are numbered anew, and that a domain was said to have shut down and whose request
    /// brought an event that waits is forgotten.
    pub fn restart(&mut self) {
        for known in self.domains.values_mut() {
            (known.next_transaction, known.shutdown) = (0, false);
            known.waiting.iter_mut().for_each(|(_, cause)| *cause = None);
        }
    }

    /// Whether a request of `domain` is to be taken.
    pub fn takes(&self, domain: DomainId) -> bool {
        let Some(known) = self.domains.get(&domain).filter(|known| known.connected) else { return false };
        let answers = known.waiting.iter().filter(|(heard, _)| heard.kind != abi::XS_WATCH_EVENT).count();
        let all = self.domains.values().flat_map(|other| &other.waiting);
        let causing: BTreeSet<u64> = all
            .filter_map(|(_, cause)| cause.filter(|(cause, _)| *cause == domain).map(|(_, serial)| serial))
            .collect();
        let limit = self.quotas.hard(Resource::Outstanding) as usize;
        if domain.0 == 0 { answers < 64 } else { answers + causing.len() < limit }
    }

    /// What a domain has not fetched yet; it has now.
    pub fn fetch(&mut self, domain: DomainId) -> Vec<Heard> {
        let Some(known) = self.domains.get_mut(&domain) else { return Vec::new() };
        let waiting = core::mem::take(&mut known.waiting).into_iter().map(|(heard, _)| heard);
        // And then, of what it had no room for, what comes in its place.
        let missed = known
            .watches
            .iter_mut()
            .filter_map(|watch| core::mem::take(&mut watch.missed).then(|| watch.event(&watch.path, domain)));
        waiting.chain(missed).collect()
    }

    /// What a domain takes up.
    pub fn usage(&self, domain: DomainId) -> Usage {
        let mut usage = Usage::default();
        for (path, node) in self.nodes.iter().filter(|(_, node)| node.owner() == domain) {
            usage.nodes += 1;
            usage.memory += node.charge(path);
        }
        let Some(known) = self.domains.get(&domain) else { return usage };
        usage.watches = known.watches.len();
        usage.transactions = known.transactions.len();
        usage.memory +=
            known.watches.iter().map(|watch| charge::watch(watch.path.len(), watch.token.len())).sum::<usize>();
        usage.memory += known.waiting.iter().map(|(heard, _)| charge_of(heard)).sum::<usize>();
        usage.memory += known.transactions.len() * charge::TRANSACTION;
        for (path, node) in known.transactions.values().flat_map(|transaction| &transaction.now) {
            usage.memory += charge::met(path.len(), node.as_ref().map(Node::contents));
        }
        usage
    }

    /// A request of a domain that is connected.
    pub fn request(&mut self, domain: DomainId, kind: u32, transaction: u32, payload: &[u8]) {
        self.served += 1;
        let result = self.dispatch(domain, kind, transaction, payload);
        let heard = match result {
            Ok(payload) if payload.len() <= abi::XENSTORE_PAYLOAD_MAX => Heard { kind, transaction, payload },
            other => {
                let error = other.err().unwrap_or(Error::E2BIG);
                Heard { kind: abi::XS_ERROR, transaction, payload: [error.name().as_bytes(), b"\0"].concat() }
            }
        };
        let watched = kind == abi::XS_WATCH && heard.kind == kind;
        let Some(known) = self.domains.get_mut(&domain).filter(|known| known.connected) else { return };
        known.waiting.push((heard, None));
        if let Some(watch) = known.watches.last().filter(|_| watched) {
            let first = (watch.event(&watch.path, domain), None);
            known.waiting.push(first);
        }
    }

    fn dispatch(&mut self, domain: DomainId, kind: u32, tx: u32, payload: &[u8]) -> Result<Vec<u8>, Error> {
        let ok = b"OK\0".to_vec();
        let privileged = matches!(kind, abi::XS_INTRODUCE | abi::XS_RELEASE | abi::XS_RESUME | abi::XS_SET_TARGET);
        if privileged && domain.0 != 0 {
            return Err(Error::EACCES);
        }
        let known = self.domains.get_mut(&domain).ok_or(Error::EIO)?;
        let timeless = matches!(kind, abi::XS_WATCH | abi::XS_UNWATCH);
        if tx != 0 && !timeless && !known.transactions.contains_key(&tx) {
            return Err(Error::ENOENT);
        }
        match kind {
            abi::XS_TRANSACTION_START => self.start(domain, tx),
            abi::XS_TRANSACTION_END => self.end(domain, tx, payload).map(|()| ok),
            abi::XS_RESET_WATCHES => {
                known.watches.clear();
                known.transactions.clear();
                Ok(ok)
            }
            abi::XS_WATCH => self.watch(domain, payload).map(|()| ok),
            abi::XS_UNWATCH => self.unwatch(domain, payload).map(|()| ok),
            abi::XS_INTRODUCE => self.introduce(payload).map(|()| ok),
            abi::XS_RELEASE => self.release(payload).map(|()| ok),
            abi::XS_SET_TARGET => self.set_target(payload).map(|()| ok),
            _ => self.node_request(domain, kind, tx, payload),
        }
    }

    fn start(&mut self, domain: DomainId, tx: u32) -> Result<Vec<u8>, Error> {
        let limit = self.quotas.hard(Resource::Transactions) as usize;
        let known = self.domains.get_mut(&domain).ok_or(Error::EIO)?;
        if tx != 0 {
            return Err(Error::EBUSY);
        }
        if domain.0 != 0 && known.transactions.len() >= limit {
            return Err(Error::ENOSPC);
        }
        known.next_transaction += 1;
        while known.transactions.contains_key(&known.next_transaction) {
            known.next_transaction += 1;
        }
        known.transactions.insert(known.next_transaction, Transaction::default());
        Ok(alloc::format!("{}\0", known.next_transaction).into_bytes())
    }

    fn end(&mut self, domain: DomainId, tx: u32, payload: &[u8]) -> Result<(), Error> {
        let commit = match payload::only(payload)? {
            b"T" => true,
            b"F" => false,
            _ => return Err(Error::EINVAL),
        };
        let known = self.domains.get_mut(&domain).ok_or(Error::EIO)?;
        let transaction = known.transactions.remove(&tx).ok_or(Error::ENOENT)?;
        if commit { self.commit(domain, transaction) } else { Ok(()) }
    }

    fn commit(&mut self, domain: DomainId, transaction: Transaction) -> Result<(), Error> {
        if transaction.failed {
            return Err(Error::ENOMEM);
        }
        let mut after = self.nodes.clone();
        for path in &transaction.changed {
            match &transaction.now[path] {
                Some(node) => after.insert(path.clone(), node.clone()),
                None => after.remove(path),
            };
        }
        if transaction.created && domain.0 != 0 {
            // By the nodes that it met, as they were: others may have changed the tree since.
            let mut more: BTreeMap<DomainId, isize> = BTreeMap::new();
            for (path, before) in transaction.met.iter().filter(|(path, _)| transaction.changed.contains(path)) {
                before.iter().for_each(|node| *more.entry(node.owner()).or_default() -= 1);
                transaction.now[path].iter().for_each(|node| *more.entry(node.owner()).or_default() += 1);
            }
            let limit = self.quotas.hard(Resource::Nodes) as isize;
            let owned = |owner| self.usage(owner).nodes as isize;
            if more.iter().any(|(owner, more)| owner.0 != 0 && *more > 0 && owned(*owner) + more > limit) {
                return Err(Error::ENOSPC);
            }
        }
        let is = |path: &Path| self.nodes.get(path).map(|node| node.changed);
        if transaction.lost
            || transaction.met.iter().any(|(path, before)| is(path) != before.as_ref().map(|node| node.changed))
        {
            return Err(Error::EAGAIN);
        }
        let exists =
            |entry: &Permission| entry.stale || entry.domain == ANY || self.domains.contains_key(&entry.domain);
        let changed = transaction.changed.iter().filter_map(|path| after.get(path));
        if !changed.clone().all(|node| node.permissions.iter().all(exists)) {
            return Err(Error::EAGAIN);
        }
        self.nodes = after;
        for (path, before) in &transaction.met {
            if transaction.changed.contains(path) {
                self.touch(path);
            }
            if let Some(subtree) = transaction.fires.get(path) {
                let now = self.nodes.get(path).map(|node| node.permissions.clone());
                let before = before.as_ref().map(|node| &*node.permissions);
                let scope = if *subtree { Scope::Subtree } else { Scope::Exact };
                self.fire(Some(domain), &Event { path, scope, now: now.as_deref(), before, parent: None });
            }
        }
        Ok(())
    }

    /// Notes that a node is changed now.
    fn touch(&mut self, path: &[u8]) {
        self.clock += 1;
        if let Some(node) = self.nodes.get_mut(path) {
            node.changed = self.clock;
        }
    }

    fn watch(&mut self, domain: DomainId, payload: &[u8]) -> Result<(), Error> {
        let words: Vec<&[u8]> = payload::words(payload).collect();
        let (word, token, depth) = match *words.as_slice() {
            [word, token] => (word, token, None),
            [word, token, depth] if payload::number(depth) >= 0 => (word, token, Some(payload::number(depth))),
            _ => return Err(Error::EINVAL),
        };
        let path = self.path(domain, word, true)?;
        let known = self.domains.get(&domain).ok_or(Error::EIO)?;
        if known.watches.iter().any(|watch| watch.path == path && watch.token == token) {
            return Err(Error::EEXIST);
        }
        let usage = self.usage(domain);
        if domain.0 != 0 && usage.watches >= self.quotas.hard(Resource::Watches) as usize {
            return Err(Error::E2BIG);
        }
        if self.too_much(domain, charge::watch(path.len(), token.len())) {
            return Err(Error::ENOMEM);
        }
        let watch = Watch { path, token: token.to_vec(), depth, relative: path::is_relative(word), missed: false };
        self.domains.entry(domain).or_default().watches.push(watch);
        Ok(())
    }

    fn unwatch(&mut self, domain: DomainId, payload: &[u8]) -> Result<(), Error> {
        let [word, token] = payload::exactly(payload)?;
        let path = self.path(domain, word, true)?;
        let watches = &mut self.domains.entry(domain).or_default().watches;
        let place = watches.iter().position(|watch| watch.path == path && watch.token == token);
        watches.remove(place.ok_or(Error::ENOENT)?);
        Ok(())
    }

    fn introduce(&mut self, payload: &[u8]) -> Result<(), Error> {
        let [domain, _, port] = payload::at_least(payload)?;
        let domain = payload::domain(domain)?;
        if !(1..=i64::from(u32::MAX)).contains(&payload::number(port)) || !self.existing.contains(&domain) {
            return Err(Error::EINVAL);
        }
        let known = self.domains.entry(domain).or_default();
        let first = !known.introduced;
        let Domain { shutdown, target, .. } = *known;
        let shutdown = shutdown && known.connected;
        *known = Domain { introduced: true, connected: true, shutdown, target, ..Domain::default() };
        if first {
            self.special(b"@introduceDomain", Scope::Special, domain);
            self.special(b"@introduceDomain", Scope::SpecialDomain, domain);
        }
        Ok(())
    }

    fn release(&mut self, payload: &[u8]) -> Result<(), Error> {
        let domain = payload::domain(payload::only(payload)?)?;
        if domain.0 == 0 {
            return Err(Error::EINVAL);
        }
        if !self.domains.get(&domain).is_some_and(|known| known.introduced) {
            return Err(Error::ENOENT);
        }
        self.forget(domain);
        Ok(())
    }

    fn set_target(&mut self, payload: &[u8]) -> Result<(), Error> {
        let [domain, target] = payload::at_least(payload)?;
        let (domain, target) = (payload::domain(domain)?, payload::domain(target)?);
        for domain in [domain, target] {
            let known = self.domains.get(&domain).filter(|known| known.introduced).ok_or(Error::ENOENT)?;
            if !known.connected {
                return Err(Error::EINVAL);
            }
        }
        self.domains.entry(domain).or_default().target = Some(target);
        Ok(())
    }

    fn forget(&mut self, domain: DomainId) {
        let Some(known) = self.domains.get_mut(&domain) else { return };
        let introduced = known.introduced;
        *known = Domain::default();
        let owned: Vec<Path> =
            self.nodes.iter().filter(|(_, node)| node.owner() == domain).map(|(path, _)| path.clone()).collect();
        for path in owned {
            if path == b"/" || path.starts_with(b"@") {
                self.nodes.entry(path.clone()).and_modify(|node| node.permissions[0].domain = DomainId(0));
                self.touch(&path);
            } else if self.nodes.contains_key(&path) {
                self.remove_live(&path);
            }
        }
        let named = |node: &Node| node.permissions[1..].iter().any(|entry| entry.domain == domain);
        let naming: Vec<Path> =
            self.nodes.iter().filter(|(_, node)| named(node)).map(|(path, _)| path.clone()).collect();
        for path in naming {
            self.nodes.entry(path.clone()).and_modify(|node| {
                let owner = node.permissions.remove(0);
                node.permissions.retain(|entry| entry.domain != domain);
                node.permissions.insert(0, owner);
            });
            self.touch(&path);
        }
        // Domains that transactions named before count as others from now on.
        for transaction in self.domains.values_mut().flat_map(|known| known.transactions.values_mut()) {
            let nodes = transaction.changed.iter().filter_map(|path| transaction.now[path].as_ref());
            let names = |node: &Node| node.permissions.iter().any(|entry| !entry.stale && entry.domain == domain);
            if nodes.into_iter().any(names) {
                transaction.lost = true;
            }
        }
        self.domains.remove(&domain);
        for known in self.domains.values_mut() {
            known.target = known.target.filter(|target| *target != domain);
        }
        if introduced {
            self.special(b"@releaseDomain", Scope::Special, domain);
            self.special(b"@releaseDomain", Scope::SpecialDomain, domain);
        }
    }

    fn special(&mut self, name: &[u8], scope: Scope, domain: DomainId) {
        let now = self.nodes[name].permissions.clone();
        let path = match scope {
            Scope::SpecialDomain => [name, alloc::format!("/{}", domain.0).as_bytes()].concat(),
            _ => name.to_vec(),
        };
        self.fire(None, &Event { path: &path, scope, now: Some(&now), before: None, parent: None });
    }

    /// Tells the watches, each of them asked.
    fn fire(&mut self, sender: Option<DomainId>, event: &Event<'_>) {
        let serial = self.served;
        for receiver in self.domains.keys().copied().collect::<Vec<_>>() {
            if !self.may_hear(receiver, event) {
                continue;
            }
            for (place, watch) in self.domains[&receiver].watches.clone().into_iter().enumerate() {
                if !watch.hears(event) || watch.missed {
                    continue;
                }
                let heard = watch.event(event.path, receiver);
                let is_full = self.too_much(receiver, charge_of(&heard));
                let known = self.domains.entry(receiver).or_default();
                if is_full && !known.waiting.is_empty() {
                    known.watches[place].missed = true;
                } else if event.path.starts_with(b"@") || known.waiting.iter().all(|(other, _)| *other != heard) {
                    let cause = sender.filter(|sender| sender.0 != 0 && receiver.0 == 0).map(|sender| (sender, serial));
                    known.waiting.push((heard, cause));
                }
            }
        }
    }

    fn may_hear(&self, receiver: DomainId, event: &Event<'_>) -> bool {
        let caller = self.caller(receiver);
        let reads = |permissions: Option<&[Permission]>| {
            permissions.is_some_and(|permissions| caller.rights(permissions).hold(Rights::READ))
        };
        let above = if event.path.starts_with(b"@") { b"/" } else { path::parent(event.path) };
        let parent = event.parent.or_else(|| self.nodes.get(above).map(|node| &*node.permissions));
        reads(event.before) || reads(event.now) || (event.now.is_some() && reads(parent))
    }

    fn caller(&self, domain: DomainId) -> Caller {
        let target = self.domains.get(&domain).and_then(|known| known.target);
        Caller { domain, privileged: domain.0 == 0, target }
    }

    /// Whether `more` bytes are too many for `domain`.
    fn too_much(&self, domain: DomainId, more: usize) -> bool {
        domain.0 != 0 && self.usage(domain).memory + more > self.quotas.hard(Resource::Memory) as usize
    }

    fn path(&self, domain: DomainId, word: &[u8], special: bool) -> Result<Path, Error> {
        let path = path::canonical(word, domain, special).ok_or(Error::EINVAL)?;
        let long = domain.0 != 0 && path::counted_bytes(&path) > self.quotas.hard(Resource::PathBytes) as usize;
        if long { Err(Error::EINVAL) } else { Ok(path.into_owned()) }
    }
}

impl Watch {
    fn hears(&self, event: &Event<'_>) -> bool {
        let exact = self.path == event.path;
        let rest = event.path.strip_prefix(&*self.path);
        let below = rest.is_some_and(|rest| self.path == b"/" || rest.starts_with(b"/"));
        let slashes = rest.unwrap_or_default().iter().filter(|byte| **byte == b'/').count() as i64;
        let levels = slashes + i64::from(self.path == b"/");
        match event.scope {
            Scope::Exact => exact,
            Scope::Subtree => exact || (below && self.depth.is_none_or(|depth| levels <= depth)),
            Scope::Special => exact && self.depth.is_none(),
            Scope::SpecialDomain => exact || (below && self.depth.is_some_and(|depth| depth > 0)),
        }
    }

    fn event(&self, path: &[u8], domain: DomainId) -> Heard {
        let home = path::home(domain).len() + 1;
        let path = if self.relative { &path[home..] } else { path };
        let payload = [path, b"\0", &self.token, b"\0"].concat();
        Heard { kind: abi::XS_WATCH_EVENT, transaction: 0, payload }
    }
}
