//! A node, and the live tree of them. Pure. Floor 1.
//!
//! Nodes lie in one map by their whole path, and each lists the names of its children, as they were made. All that a node holds is shared by
//! reference: a transaction takes a node as it is by three counters, and what it then writes leaves the live one as it was.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;

use xen_pv_sys::DomainId;
use xen_pv_sys::io::xs_wire::XENSTORE_ABS_PATH_MAX;

use crate::Map;
use crate::charge;
use crate::domains::{Counted, Domains};
use crate::path;
use crate::path_map::{Gathered, PathMap};
use crate::permissions::{ANY, Permission, owner};

/// Bytes that a node counts in its quotas beside its contents, as C xenstored's header.
const HEADER_BYTES: usize = 16;
/// Bytes that an entry of its permissions counts.
const PERMISSION_BYTES: usize = 8;

/// The special node that is told of new domains.
pub(crate) const INTRODUCE_DOMAIN: &[u8] = b"@introduceDomain";
/// The special node that is told of domains that end.
pub(crate) const RELEASE_DOMAIN: &[u8] = b"@releaseDomain";

/// A node. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) value: Option<Rc<[u8]>>,
    pub(crate) permissions: Rc<[Permission]>,
    pub(crate) children: Listing,
    /// When it, or the list of its children, was last written.
    pub(crate) generation: u64,
    /// Of the bytes that it counts in its owner's memory, those that the privileged domain added.
    pub(crate) given: usize,
}

impl Node {
    /// Without children.
    pub(crate) fn new(value: &[u8], permissions: Rc<[Permission]>) -> Self {
        Self { value: bytes(value), permissions, children: Listing::default(), generation: 0, given: 0 }
    }

    pub(crate) fn value(&self) -> &[u8] {
        self.value.as_deref().unwrap_or_default()
    }

    pub(crate) fn owner(&self) -> DomainId {
        owner(&self.permissions)
    }

    /// What it counts in its owner's memory.
    pub(crate) fn charge(&self, path: &[u8]) -> usize {
        charge::node(path.len(), self.value().len(), self.permissions.len(), self.children.bytes().len())
    }

    /// What it counts for its owner: what the privileged domain has is all its own gift.
    pub(crate) fn counted(&self, path: &[u8], privileged: DomainId) -> Counted {
        let (memory, owner) = (self.charge(path), self.owner());
        if owner == privileged {
            return Counted { memory, given: memory, devices: 0 };
        }
        let given = self.given.min(memory);
        Counted { memory, given, devices: usize::from(given > 0 && path::is_device_of(path, owner)) }
    }

    /// What it counts in the quota `node-size`.
    pub(crate) fn size(&self) -> usize {
        HEADER_BYTES + PERMISSION_BYTES * self.permissions.len() + self.value().len() + self.children.bytes().len()
    }
}

/// Bytes to share; none take no memory.
pub(crate) fn bytes(value: &[u8]) -> Option<Rc<[u8]>> {
    (!value.is_empty()).then(|| value.into())
}

/// Names, each ended by a zero byte, in the order in which they were made: just as `DIRECTORY` answers.
///
/// The quota `node-size` bounds it for all but the privileged domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing(Option<Rc<Vec<u8>>>);

impl Listing {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], Vec::as_slice)
    }

    /// Of what [`bytes`](Self::bytes) gives.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self((!bytes.is_empty()).then(|| Rc::new(bytes.to_vec())))
    }

    pub(crate) fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.bytes().split_inclusive(|byte| *byte == 0).map(|name| name.strip_suffix(&[0]).unwrap_or(name))
    }

    pub(crate) fn add(&mut self, name: &[u8]) {
        let bytes = Rc::make_mut(self.0.get_or_insert_default());
        // A listing that doubled its room with each name would waste a good part of a small store.
        if bytes.capacity() - bytes.len() <= name.len() {
            bytes.reserve_exact(name.len() + 1 + bytes.len() / 4);
        }
        bytes.extend_from_slice(name);
        bytes.push(0);
    }

    pub(crate) fn remove(&mut self, name: &[u8]) {
        let mut start = 0;
        for present in self.bytes().split_inclusive(|byte| *byte == 0) {
            let end = start + present.len();
            if present.strip_suffix(&[0]) == Some(name) {
                if let Some(bytes) = &mut self.0 {
                    Rc::make_mut(bytes).drain(start..end);
                }
                break;
            }
            start = end;
        }
        if self.bytes().is_empty() {
            self.0 = None;
        }
    }
}

/// The domains that permissions name and that may end, each once.
fn names(permissions: &[Permission], privileged: DomainId) -> impl Iterator<Item = DomainId> {
    permissions.iter().enumerate().filter_map(move |(place, entry)| {
        let before = permissions.get(..place).unwrap_or_default();
        let counts = entry.domain != privileged && entry.domain != ANY;
        (counts && before.iter().all(|other| other.domain != entry.domain)).then_some(entry.domain)
    })
}

/// The live tree.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    pub(crate) nodes: PathMap<Node>,
    /// Where each domain but the privileged one is named in permissions, as the owner or otherwise: its end costs what it had.
    named: Map<DomainId, PathMap<()>>,
    privileged: DomainId,
    /// Grows with each write, each removal and each transaction.
    generation: u64,
}

impl Tree {
    /// Without a node.
    pub(crate) fn new(privileged: DomainId) -> Self {
        Self { nodes: PathMap::default(), named: Map::default(), privileged, generation: 0 }
    }

    /// Puts nodes in place of all, with the generations that they have and counted for their owners already.
    pub(crate) fn fill(&mut self, nodes: PathMap<Node>, generation: u64) {
        let mut named: BTreeMap<DomainId, Gathered<()>> = BTreeMap::new();
        for (path, node) in nodes.iter() {
            for domain in names(&node.permissions, self.privileged) {
                named.entry(domain).or_default().add(path.clone(), ());
            }
        }
        let named = named.into_iter().filter_map(|(domain, paths)| Some((domain, Rc::new(paths.finish()?))));
        self.named = Map::from_sorted(named.collect());
        self.nodes = nodes;
        self.generation = generation;
    }

    /// The number of the latest change.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// A number for the next change.
    pub(crate) fn next_generation(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// Puts a node at `path`, counted for its owner.
    pub(crate) fn put(&mut self, path: Rc<[u8]>, mut node: Node, domains: &mut Domains) {
        node.generation = self.next_generation();
        self.discount(&path, domains);
        let counted = node.counted(&path, self.privileged);
        node.given = counted.given;
        domains.add_nodes(node.owner(), 1, counted);
        let permissions = node.permissions.clone();
        let old = self.nodes.insert(path.clone(), node).map(|node| node.permissions);
        // What is only written has the permissions that it had.
        if !old.as_ref().is_some_and(|old| Rc::ptr_eq(old, &permissions)) {
            self.forget_names(&path, old.as_deref().unwrap_or_default());
            for domain in names(&permissions, self.privileged) {
                if let Some(paths) = self.named.get_or_insert_with(domain, PathMap::default) {
                    paths.insert(path.clone(), ());
                }
            }
        }
    }

    /// Takes away the node at `path`. Its parent's list is the caller's affair.
    pub(crate) fn take(&mut self, path: &[u8], domains: &mut Domains) {
        self.generation += 1;
        self.discount(path, domains);
        if let Some(node) = self.nodes.remove(path) {
            self.forget_names(path, &node.permissions);
        }
    }

    /// The node at `path` has those permissions no longer.
    fn forget_names(&mut self, path: &[u8], permissions: &[Permission]) {
        for domain in names(permissions, self.privileged) {
            if let Some(paths) = self.named.get_mut(&domain) {
                paths.remove(path);
                if paths.len() == 0 {
                    self.named.remove(&domain);
                }
            }
        }
    }

    /// How many such entries there are for all domains: one for each domain that a node names.
    pub(crate) fn named(&self) -> usize {
        self.named.values().map(PathMap::len).sum()
    }

    /// The nodes whose permissions name a domain that is not the privileged one, in the order of their paths.
    pub(crate) fn naming(&self, domain: DomainId) -> Vec<Rc<[u8]>> {
        let paths = self.named.get(&domain).into_iter().flat_map(PathMap::iter);
        let mut paths: Vec<_> = paths.map(|(path, ())| path.clone()).collect();
        paths.sort_unstable();
        paths
    }

    fn discount(&self, path: &[u8], domains: &mut Domains) {
        if let Some(node) = self.nodes.get(path) {
            domains.take_off_node(node.owner(), node.counted(path, self.privileged));
        }
    }

    /// The paths at and below `top`, each before its children; the children of a node that `enter` refuses are left out.
    pub(crate) fn pre_order(&self, top: &[u8], enter: impl Fn(&Node) -> bool) -> Vec<Rc<[u8]>> {
        let mut waiting: Vec<Rc<[u8]>> = alloc::vec![top.into()];
        let mut paths = Vec::new();
        while let Some(path) = waiting.pop() {
            let Some(node) = self.nodes.get(&path) else {
                continue;
            };
            if enter(node) {
                waiting.extend(node.children.names().rev().map(|name| Rc::from(path::child(&path, name))));
            }
            paths.push(path);
        }
        paths
    }

    /// Shows all nodes at and below `top`, each before its children, and allocates nothing.
    pub(crate) fn walk(&self, top: &[u8], visit: &mut dyn FnMut(&[u8], &Node)) {
        let mut path = [0; PATH_ROOM];
        let mut length = 0;
        append(&mut path, &mut length, top);
        let mut listings: [&[u8]; DEPTH] = [&[]; DEPTH];
        let mut depth = 0;
        let mut fresh = true;
        loop {
            let here = path.get(..length).unwrap_or_default();
            if fresh && let Some(node) = self.nodes.get(here) {
                visit(here, node);
                if let Some(listing) = listings.get_mut(depth) {
                    *listing = node.children.bytes();
                }
            }
            let listing = listings.get_mut(depth).map(core::mem::take).unwrap_or_default();
            if let Some(end) = listing.iter().position(|byte| *byte == 0) {
                let (name, rest) = listing.split_at_checked(end).unwrap_or_default();
                if let Some(listing) = listings.get_mut(depth) {
                    *listing = rest.get(1..).unwrap_or_default();
                }
                if here != path::ROOT {
                    append(&mut path, &mut length, b"/");
                }
                append(&mut path, &mut length, name);
                (depth, fresh) = (depth + 1, true);
            } else if depth > 0 {
                length = path::parent(path.get(..length).unwrap_or_default()).len();
                (depth, fresh) = (depth - 1, false);
            } else {
                break;
            }
        }
    }
}

/// Room for the longest path.
const PATH_ROOM: usize = XENSTORE_ABS_PATH_MAX + 1;
/// Names in the longest path.
const DEPTH: usize = PATH_ROOM / 2;

fn append(path: &mut [u8], length: &mut usize, bytes: &[u8]) {
    if let Some(room) = path.get_mut(*length..).and_then(|room| room.get_mut(..bytes.len())) {
        room.copy_from_slice(bytes);
        *length += bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_keeps_the_order() {
        let mut listing = Listing::default();
        for name in ["b", "a", "long", "c"] {
            listing.add(name.as_bytes());
        }
        let before = listing.clone();
        listing.remove(b"a");
        listing.remove(b"lon");
        assert_eq!((listing.bytes(), before.bytes()), (b"b\0long\0c\0".as_slice(), b"b\0a\0long\0c\0".as_slice()));
        for name in [b"c".as_slice(), b"b", b"long"] {
            listing.remove(name);
        }
        assert_eq!(listing, Listing::default());
    }
}
