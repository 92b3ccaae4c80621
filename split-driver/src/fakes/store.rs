//! A xenstore in a test: tree, transactions with conflicts, watches, owners. Floor 1.
//!
//! Each request yields to the executor first, as a real one does, so that tasks interleave; transactions conflict where a node that
//! they read has changed; removed nodes fire the watches on them and below; whoever may not read a node hears nothing of it. It refuses
//! what C xenstored refuses: all domains but dom0 have its quotas.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cell::RefCell;
use core::future::poll_fn;
use core::task::{Poll, Waker};

use xen_pv_sys::DomainId;

use crate::store::{Store, StoreError, Transaction, Watch};
use crate::turns::Turns;

/// What the store lets each domain but dom0 have. The default is C xenstored's (`domain.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreQuotas {
    /// Nodes that it owns. `ENOSPC` beyond.
    pub nodes: usize,
    /// Bytes of a node's value. `ENOSPC` beyond.
    pub node_size: usize,
    /// Bytes of names and values of the nodes that it owns. `ENOMEM` beyond.
    pub memory: usize,
    /// Entries of a node's permissions. `ENOSPC` beyond.
    pub permissions: usize,
    /// Bytes of a path. `EINVAL` beyond.
    pub path: usize,
    /// Watches. `E2BIG` beyond.
    pub watches: usize,
    /// Transactions open at once. `ENOSPC` beyond.
    pub transactions: usize,
    /// Nodes that a transaction touches. `ENOSPC` beyond.
    pub transaction_nodes: usize,
    /// Requests that are served at once. Those beyond stay in the ring. Counts for a domain from its first request on.
    pub outstanding: usize,
}

impl Default for StoreQuotas {
    fn default() -> Self {
        Self {
            nodes: 1000,
            node_size: 2048,
            memory: 0x28_0000,
            permissions: 5,
            path: 2048,
            watches: 128,
            transactions: 10,
            transaction_nodes: 1024,
            outstanding: 20,
        }
    }
}

/// `ENOMEM`.
const ENOMEM: StoreError = StoreError::Errno(12);
/// `EBUSY`.
const EBUSY: StoreError = StoreError::Errno(16);
/// `EINVAL`.
const EINVAL: StoreError = StoreError::Errno(22);

#[derive(Clone, Debug)]
struct Node {
    value: Vec<u8>,
    permissions: Vec<String>,
    generation: u64,
}

type Tree = BTreeMap<String, Node>;

#[derive(Clone, Debug)]
enum Change {
    Write(String, Vec<u8>),
    Remove(String),
    Permissions(String, Vec<String>),
}

impl Change {
    fn path(&self) -> &str {
        match self {
            Self::Write(path, _) | Self::Remove(path) | Self::Permissions(path, _) => path,
        }
    }
}

#[derive(Debug)]
struct Open {
    domain: DomainId,
    tree: Tree,
    base: BTreeMap<String, Option<u64>>,
    changes: Vec<Change>,
    touched: BTreeSet<String>,
}

impl Open {
    /// Counts a node that the transaction reads or writes.
    fn touch(&mut self, path: &str, quotas: &StoreQuotas) -> Result<(), StoreError> {
        let more = !self.touched.contains(path);
        if more && self.domain.0 != 0 && self.touched.len() >= quotas.transaction_nodes {
            return Err(StoreError::Quota);
        }
        self.touched.insert(path.into());
        Ok(())
    }
}

#[derive(Debug)]
struct Watcher {
    domain: DomainId,
    /// Absolute.
    path: String,
    /// What the client gave, and what is cut off in front of what it hears.
    relative_to: Option<String>,
    events: VecDeque<String>,
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
struct State {
    tree: Tree,
    generation: u64,
    transactions: BTreeMap<u32, Open>,
    watches: BTreeMap<u64, Watcher>,
    next: u64,
    requests: u64,
    conflicts: u64,
    /// Transactions that were refused, since the domain had too many.
    refusals: u64,
    quotas: StoreQuotas,
    /// A directory that cannot be listed for now: `EBUSY`.
    busy: Option<String>,
    /// The requests of each domain on their way.
    outstanding: BTreeMap<u16, Rc<Turns>>,
}

/// The store. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct FakeStore(Rc<RefCell<State>>);

/// A domain's connection to it.
#[derive(Clone, Debug)]
pub struct FakeConnection {
    store: FakeStore,
    domain: DomainId,
}

/// A watch; taken back by `Drop`.
#[derive(Debug)]
pub struct FakeWatch {
    store: FakeStore,
    id: u64,
}

fn parent(path: &str) -> Option<&str> {
    match path.rsplit_once('/')? {
        ("", "") => None,
        ("", _) => Some("/"),
        (parent, _) => Some(parent),
    }
}

fn is_below(path: &str, top: &str) -> bool {
    top == "/" || path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn valid(path: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "-/_@".contains(c);
    path.starts_with('/')
        && path.len() <= 3072
        && path.chars().all(legal)
        && !path.contains("//")
        && (path == "/" || !path.ends_with('/'))
}

/// Whether `domain` may do `what` (`r` or `w`) with a node.
fn may(node: &Node, domain: DomainId, what: char) -> bool {
    let id = domain.0.to_string();
    let mut entries = node.permissions.iter();
    let Some(owner) = entries.next() else {
        return domain.0 == 0;
    };
    let allows = |entry: &str| entry.starts_with(what) || entry.starts_with('b');
    if domain.0 == 0 || owner.get(1..) == Some(&id) {
        return true;
    }
    match entries.find(|entry| entry.get(1..) == Some(&id)) {
        Some(entry) => allows(entry),
        None => allows(owner),
    }
}

/// The nearest node at or above `path`.
fn nearest<'a>(tree: &'a Tree, path: &str) -> Option<&'a Node> {
    let mut at = Some(path);
    while let Some(here) = at {
        if let Some(node) = tree.get(here) {
            return Some(node);
        }
        at = parent(here);
    }
    None
}

/// Whether `domain` may make the `missing` nodes, the first of them with `value`.
fn has_room(
    tree: &Tree,
    quotas: &StoreQuotas,
    domain: DomainId,
    missing: &[&str],
    value: &[u8],
) -> Result<(), StoreError> {
    if domain.0 == 0 {
        return Ok(());
    }
    if value.len() > quotas.node_size {
        return Err(StoreError::Quota);
    }
    let owner = domain.0.to_string();
    let owned =
        tree.iter().filter(|(_, node)| node.permissions.first().and_then(|entry| entry.get(1..)) == Some(&owner));
    let (nodes, bytes) =
        owned.fold((0, 0), |(nodes, bytes), (path, node)| (nodes + 1, bytes + path.len() + node.value.len()));
    if !missing.is_empty() && nodes + missing.len() > quotas.nodes {
        return Err(StoreError::Quota);
    }
    let more = missing.iter().map(|path| path.len()).sum::<usize>() + value.len();
    if bytes + more > quotas.memory { Err(ENOMEM) } else { Ok(()) }
}

fn apply(
    tree: &mut Tree,
    change: &Change,
    domain: DomainId,
    generation: u64,
    quotas: &StoreQuotas,
) -> Result<(), StoreError> {
    match change {
        Change::Write(path, value) => {
            let model = nearest(tree, path).ok_or(StoreError::NotFound)?;
            if !may(model, domain, 'w') {
                return Err(StoreError::Denied);
            }
            let mut permissions = model.permissions.clone();
            if domain.0 != 0
                && let Some(owner) = permissions.first_mut()
            {
                *owner = format!("n{}", domain.0);
            }
            let mut missing = Vec::new();
            let mut at = Some(path.as_str());
            while let Some(here) = at.filter(|here| !tree.contains_key(*here)) {
                missing.push(here);
                at = parent(here);
            }
            has_room(tree, quotas, domain, &missing, value)?;
            if let Some(parent) = at.filter(|_| !missing.is_empty())
                && let Some(node) = tree.get_mut(parent)
            {
                node.generation = generation;
            }
            for here in missing {
                let node = Node { value: Vec::new(), permissions: permissions.clone(), generation };
                tree.insert(here.into(), node);
            }
            if let Some(node) = tree.get_mut(path) {
                node.value.clone_from(value);
                node.generation = generation;
            }
        }
        Change::Remove(path) => {
            match tree.get(path) {
                Some(node) if !may(node, domain, 'w') => return Err(StoreError::Denied),
                Some(_) => {}
                None if parent(path).is_some_and(|parent| tree.contains_key(parent)) => {
                    return Ok(());
                }
                None => return Err(StoreError::NotFound),
            }
            tree.retain(|other, _| !is_below(other, path));
            if let Some(node) = parent(path).and_then(|parent| tree.get_mut(parent)) {
                node.generation = generation;
            }
        }
        Change::Permissions(path, permissions) => {
            let node = tree.get_mut(path).ok_or(StoreError::NotFound)?;
            let owner = node.permissions.first().and_then(|owner| owner.get(1..));
            if domain.0 != 0 && owner != Some(&domain.0.to_string()) {
                return Err(StoreError::Denied);
            }
            if domain.0 != 0 && permissions.len() > quotas.permissions {
                return Err(StoreError::Quota);
            }
            node.permissions.clone_from(permissions);
            node.generation = generation;
        }
    }
    Ok(())
}

impl State {
    fn fire(&mut self, change: &Change, before: &Tree) {
        let path = change.path();
        let removal = matches!(change, Change::Remove(_));
        for watcher in self.watches.values_mut() {
            let covered = is_below(path, &watcher.path);
            // A removal reaches watches below what was removed, where something was there.
            let below = removal && is_below(&watcher.path, path) && before.contains_key(&watcher.path);
            if !covered && !below {
                continue;
            }
            let told = if covered { path.to_string() } else { watcher.path.clone() };
            let readable = [before, &self.tree]
                .into_iter()
                .any(|tree| tree.get(&told).is_some_and(|node| may(node, watcher.domain, 'r')));
            if readable {
                push_event(watcher, &told);
            }
        }
    }

    fn change(&mut self, domain: DomainId, change: &Change) -> Result<(), StoreError> {
        self.generation += 1;
        let before = self.tree.clone();
        apply(&mut self.tree, change, domain, self.generation, &self.quotas)?;
        self.fire(change, &before);
        Ok(())
    }
}

fn push_event(watcher: &mut Watcher, path: &str) {
    let told = match &watcher.relative_to {
        Some(home) => path.strip_prefix(home.as_str()).unwrap_or(path),
        None => path,
    };
    watcher.events.push_back(told.into());
    if let Some(waker) = watcher.waker.take() {
        waker.wake();
    }
}

impl FakeStore {
    /// A store with `/` and `/local/domain`, which are dom0's.
    pub fn new() -> Self {
        let store = Self::default();
        for path in ["/", "/local", "/local/domain"] {
            let node = Node { value: Vec::new(), permissions: ["n0".into()].into(), generation: 0 };
            store.0.borrow_mut().tree.insert(path.into(), node);
        }
        store
    }

    /// Other quotas than the default, for what comes from now on.
    pub fn set_quotas(&self, quotas: StoreQuotas) {
        self.0.borrow_mut().quotas = quotas;
    }

    /// Refuses to list or to remove this node, for now.
    pub fn set_busy(&self, path: Option<&str>) {
        self.0.borrow_mut().busy = path.map(Into::into);
    }

    /// Transactions refused so far, since their domain had too many.
    pub fn refusals(&self) -> u64 {
        self.0.borrow().refusals
    }

    /// The connection of `domain`.
    pub fn connection(&self, domain: DomainId) -> FakeConnection {
        FakeConnection { store: self.clone(), domain }
    }

    /// A domain's home as a toolstack makes it: dom0's, readable by the domain, with `data` and `error` for it to write.
    pub fn add_domain(&self, domain: DomainId) {
        let home = format!("/local/domain/{}", domain.0);
        self.put(&home, "", &["n0", &format!("r{}", domain.0)]);
        for name in ["data", "error"] {
            self.put(&format!("{home}/{name}"), "", &[&format!("n{}", domain.0)]);
        }
    }

    /// Writes a node at once, as dom0, with its permissions where any are given.
    ///
    /// # Panics
    /// Where the path is not one.
    pub fn put(&self, path: &str, value: &str, permissions: &[&str]) {
        assert!(valid(path), "the test writes {path:?}");
        let dom0 = DomainId(0);
        let mut state = self.0.borrow_mut();
        let written = state.change(dom0, &Change::Write(path.into(), value.into()));
        assert_eq!(written, Ok(()));
        if !permissions.is_empty() {
            let permissions = permissions.iter().map(|entry| (*entry).into()).collect();
            let set = state.change(dom0, &Change::Permissions(path.into(), permissions));
            assert_eq!(set, Ok(()));
        }
    }

    /// Removes a node at once, as dom0; also where there is none.
    pub fn delete(&self, path: &str) {
        let change = Change::Remove(path.into());
        let _ = self.0.borrow_mut().change(DomainId(0), &change);
    }

    /// A node's value as text.
    pub fn get(&self, path: &str) -> Option<String> {
        let state = self.0.borrow();
        let value = state.tree.get(path)?.value.clone();
        Some(String::from_utf8_lossy(&value).into_owned())
    }

    /// The paths at and below `top`.
    pub fn paths(&self, top: &str) -> Vec<String> {
        let state = self.0.borrow();
        let paths = state.tree.keys().filter(|path| is_below(path, top));
        paths.cloned().collect()
    }

    /// Watches that `domain` has.
    pub fn watches(&self, domain: DomainId) -> usize {
        let state = self.0.borrow();
        let watches = state.watches.values();
        watches.filter(|watch| watch.domain == domain).count()
    }

    /// Transactions open.
    pub fn transactions(&self) -> usize {
        self.0.borrow().transactions.len()
    }

    /// Requests so far, and commits that met a conflict.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.0.borrow();
        (state.requests, state.conflicts)
    }
}

impl FakeConnection {
    fn home(&self) -> String {
        format!("/local/domain/{}/", self.domain.0)
    }

    fn absolute(&self, path: &str) -> Result<String, StoreError> {
        let path = if path.starts_with('/') { path.into() } else { self.home() + path };
        let limit = self.store.0.borrow().quotas.path;
        let short = self.domain.0 == 0 || path.len() <= limit;
        if valid(&path) && short { Ok(path) } else { Err(EINVAL) }
    }

    fn refuse_if_busy(&self, path: &str) -> Result<(), StoreError> {
        if self.store.0.borrow().busy.as_deref() == Some(path) { Err(EBUSY) } else { Ok(()) }
    }

    /// One request's way to the store and back.
    async fn travel(&self) {
        let turns = {
            let mut state = self.store.0.borrow_mut();
            state.requests += 1;
            let outstanding = if self.domain.0 == 0 { usize::MAX } else { state.quotas.outstanding };
            state.outstanding.entry(self.domain.0).or_insert_with(|| Rc::new(Turns::new(outstanding))).clone()
        };
        let _turn = turns.take().await;
        let mut travelled = false;
        poll_fn(|context| {
            if travelled {
                return Poll::Ready(());
            }
            travelled = true;
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Looks at a node, inside a transaction or not.
    fn look<T>(
        &self,
        transaction: Transaction,
        path: &str,
        body: impl FnOnce(&Tree, &str, &Node) -> T,
    ) -> Result<T, StoreError> {
        let path = self.absolute(path)?;
        let mut state = self.store.0.borrow_mut();
        let quotas = state.quotas;
        let tree = if transaction == Transaction::NONE {
            &state.tree
        } else {
            let open = state
                .transactions
                .get_mut(&transaction.0)
                .filter(|open| open.domain == self.domain)
                .ok_or(StoreError::NotFound)?;
            open.touch(&path, &quotas)?;
            let generation = open.tree.get(&path).map(|node| node.generation);
            // What the transaction itself wrote is no reason for a conflict.
            if generation != Some(u64::MAX) {
                open.base.entry(path.clone()).or_insert(generation);
            }
            &open.tree
        };
        let node = tree.get(&path).ok_or(StoreError::NotFound)?;
        if !may(node, self.domain, 'r') {
            return Err(StoreError::Denied);
        }
        Ok(body(tree, &path, node))
    }

    fn change(&self, transaction: Transaction, change: Change) -> Result<(), StoreError> {
        let mut state = self.store.0.borrow_mut();
        if transaction == Transaction::NONE {
            return state.change(self.domain, &change);
        }
        let quotas = state.quotas;
        let open = state
            .transactions
            .get_mut(&transaction.0)
            .filter(|open| open.domain == self.domain)
            .ok_or(StoreError::NotFound)?;
        open.touch(change.path(), &quotas)?;
        apply(&mut open.tree, &change, self.domain, u64::MAX, &quotas)?;
        open.changes.push(change);
        Ok(())
    }
}

impl Store for FakeConnection {
    type Watch = FakeWatch;

    async fn read(&self, transaction: Transaction, path: &str) -> Result<Vec<u8>, StoreError> {
        self.travel().await;
        self.look(transaction, path, |_, _, node| node.value.clone())
    }

    async fn write(&self, transaction: Transaction, path: &str, value: &[u8]) -> Result<(), StoreError> {
        self.travel().await;
        let path = self.absolute(path)?;
        self.change(transaction, Change::Write(path, value.into()))
    }

    async fn directory(&self, transaction: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        self.travel().await;
        self.refuse_if_busy(&self.absolute(path)?)?;
        self.look(transaction, path, |tree, path, _| {
            let below = tree.keys().filter(|other| parent(other) == Some(path));
            below.filter_map(|other| Some(other.rsplit_once('/')?.1.into())).collect()
        })
    }

    async fn remove(&self, transaction: Transaction, path: &str) -> Result<(), StoreError> {
        self.travel().await;
        let path = self.absolute(path)?;
        self.refuse_if_busy(&path)?;
        self.change(transaction, Change::Remove(path))
    }

    async fn permissions(&self, transaction: Transaction, path: &str) -> Result<Vec<String>, StoreError> {
        self.travel().await;
        self.look(transaction, path, |_, _, node| node.permissions.clone())
    }

    async fn set_permissions(&self, transaction: Transaction, path: &str, entries: &[&str]) -> Result<(), StoreError> {
        self.travel().await;
        let path = self.absolute(path)?;
        let entries = entries.iter().map(|entry| (*entry).into()).collect();
        self.change(transaction, Change::Permissions(path, entries))
    }

    async fn start(&self) -> Result<Transaction, StoreError> {
        self.travel().await;
        let mut state = self.store.0.borrow_mut();
        let open = state.transactions.values().filter(|open| open.domain == self.domain).count();
        if self.domain.0 != 0 && open >= state.quotas.transactions {
            state.refusals += 1;
            return Err(StoreError::Quota);
        }
        state.next += 1;
        let id = u32::try_from(state.next).map_err(|_| StoreError::Quota)?;
        let open = Open {
            domain: self.domain,
            tree: state.tree.clone(),
            base: BTreeMap::new(),
            changes: Vec::new(),
            touched: BTreeSet::new(),
        };
        state.transactions.insert(id, open);
        Ok(Transaction(id))
    }

    async fn end(&self, transaction: Transaction, commit: bool) -> Result<(), StoreError> {
        // No way back and forth: who drops this future after one poll has ended the transaction.
        let mut state = self.store.0.borrow_mut();
        state.requests += 1;
        let open = state.transactions.remove(&transaction.0).ok_or(StoreError::NotFound)?;
        if !commit {
            return Ok(());
        }
        let current = |path: &String| state.tree.get(path).map(|node| node.generation);
        let conflict = open.base.iter().any(|(path, seen)| current(path) != *seen);
        if conflict {
            state.conflicts += 1;
            return Err(StoreError::Conflict);
        }
        let mut told = BTreeSet::new();
        for change in &open.changes {
            state.generation += 1;
            let generation = state.generation;
            let before = state.tree.clone();
            let quotas = state.quotas;
            apply(&mut state.tree, change, self.domain, generation, &quotas)?;
            // One event a node, as the C store tells it.
            if told.insert(change.path().to_string()) {
                state.fire(change, &before);
            }
        }
        Ok(())
    }

    async fn watch(&self, path: &str) -> Result<FakeWatch, StoreError> {
        self.travel().await;
        let relative = !path.starts_with('/');
        let absolute = self.absolute(path)?;
        let mut state = self.store.0.borrow_mut();
        let watches = state.watches.values().filter(|watch| watch.domain == self.domain).count();
        if self.domain.0 != 0 && watches >= state.quotas.watches {
            return Err(StoreError::Quota);
        }
        state.next += 1;
        let id = state.next;
        let mut watcher = Watcher {
            domain: self.domain,
            path: absolute.clone(),
            relative_to: relative.then(|| self.home()),
            events: VecDeque::new(),
            waker: None,
        };
        push_event(&mut watcher, &absolute);
        state.watches.insert(id, watcher);
        Ok(FakeWatch { store: self.store.clone(), id })
    }
}

impl Watch for FakeWatch {
    async fn next(&mut self) -> String {
        poll_fn(|context| {
            let mut state = self.store.0.borrow_mut();
            let Some(watcher) = state.watches.get_mut(&self.id) else {
                return Poll::Pending;
            };
            match watcher.events.pop_front() {
                Some(path) => Poll::Ready(path),
                None => {
                    watcher.waker = Some(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }
}

impl Drop for FakeWatch {
    fn drop(&mut self) {
        self.store.0.borrow_mut().watches.remove(&self.id);
    }
}
