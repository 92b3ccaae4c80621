//! A transaction: what it met of the tree, and what it made of that. Pure. Floor 1.
//!
//! As in C xenstored, a transaction begins with nothing. It takes each node as it is when it first meets it, absent ones too, and from then on
//! sees that and its own changes. It commits where each node that it met still is what it was: so it costs what it met, whatever the size of
//! the tree, and holds no memory that its domain's quota does not count. All that is met was read, if only to be allowed to write.

use alloc::rc::Rc;
use alloc::vec::Vec;

use xen_pv_sys::DomainId;

use crate::domains::{Counted, Domains};
use crate::node::{Node, Tree};
use crate::path_map::PathMap;
use crate::permissions::{ANY, Caller, Permission};
use crate::quota::Resource;
use crate::watches::{Event, Scope};
use crate::{Error, Map, charge};

/// A node that a transaction met.
#[derive(Clone, Debug)]
pub(crate) struct Met {
    /// Its generation when it was met; `None` for no node.
    pub(crate) seen: Option<u64>,
    /// Its permissions then.
    pub(crate) before: Option<Rc<[Permission]>>,
    /// What it is now.
    pub(crate) now: Option<Node>,
    pub(crate) changed: bool,
    /// The event that its commit brings.
    pub(crate) fires: Option<Scope>,
}

/// An open transaction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Transaction {
    met: PathMap<Met>,
    /// Their paths as they were met, which is the order of the events.
    order: Map<usize, Rc<[u8]>>,
    /// Nodes that domains have more or fewer by it.
    tallies: Map<DomainId, isize>,
    /// Nodes were made in it.
    pub(crate) created: bool,
    /// A change was begun that could not be ended: it cannot commit.
    pub(crate) failed: bool,
}

/// What a met node counts in its domain's memory.
fn charged(path: &[u8], node: Option<&Node>) -> usize {
    let contents = |node: &Node| (node.value().len(), node.permissions.len(), node.children.bytes().len());
    charge::met(path.len(), node.map(contents))
}

impl Transaction {
    /// The node at `path` as the transaction sees it, met by it from now on.
    pub(crate) fn meet(
        &mut self,
        path: &[u8],
        tree: &Tree,
        domains: &mut Domains,
        own: DomainId,
    ) -> Result<Option<Node>, Error> {
        if let Some(met) = self.met.get(path) {
            return Ok(met.now.clone());
        }
        let now = tree.nodes.get(path).cloned();
        let count = self.order.len() + 1;
        let memory = charged(path, now.as_ref());
        let refusal = if domains.exceeds(own, Resource::TransactionNodes, count) {
            Some(Error::ENOSPC)
        } else {
            domains.exceeds_with(own, Resource::Memory, memory).then_some(Error::ENOMEM)
        };
        if let Some(error) = refusal {
            self.failed = true;
            return Err(error);
        }
        domains.note_most(own, Resource::TransactionNodes, count);
        domains.add(own, Resource::Memory, memory);
        let (seen, before) =
            (now.as_ref().map(|node| node.generation), now.as_ref().map(|node| node.permissions.clone()));
        self.restore(path, Met { seen, before, now: now.clone(), changed: false, fires: None });
        Ok(now)
    }

    /// Has it have met `path`.
    pub(crate) fn restore(&mut self, path: &[u8], met: Met) {
        let path: Rc<[u8]> = path.into();
        self.order.insert(self.order.len(), path.clone());
        self.met.insert(path, met);
    }

    /// Puts a node, or nothing, in place of one that was met.
    pub(crate) fn replace(&mut self, path: &[u8], node: Option<Node>, domains: &mut Domains, own: DomainId) {
        let Some(met) = self.met.get_mut(path) else {
            return;
        };
        let memory = charged(path, node.as_ref());
        let before = charged(path, met.now.as_ref());
        let owners = [(met.now.as_ref(), -1), (node.as_ref(), 1)].map(|(node, more)| (node.map(Node::owner), more));
        met.now = node;
        met.changed = true;
        for (owner, more) in owners {
            owner.into_iter().for_each(|owner| self.restore_tally(owner, more));
        }
        domains.take_off(own, Resource::Memory, before);
        domains.add(own, Resource::Memory, memory);
    }

    /// Has an event of a met node wait for the commit. The wider scope wins.
    pub(crate) fn fire(&mut self, path: &[u8], scope: Scope) {
        if let Some(met) = self.met.get_mut(path)
            && met.fires != Some(Scope::Subtree)
        {
            met.fires = Some(scope);
        }
    }

    /// Nodes that `domain` has more by it; fewer where negative.
    pub(crate) fn tally(&self, domain: DomainId) -> isize {
        self.tallies.get(&domain).copied().unwrap_or_default()
    }

    /// Has domains have more nodes or fewer by it, as a state says that was written down.
    pub(crate) fn restore_tally(&mut self, domain: DomainId, more: isize) {
        if let Some(tally) = self.tallies.get_or_insert_with(domain, || 0) {
            *tally += more;
        }
    }

    /// Whether it has met `path`.
    pub(crate) fn has_met(&self, path: &[u8]) -> bool {
        self.met.get(path).is_some()
    }

    /// All that it met, in that order.
    pub(crate) fn met(&self) -> impl Iterator<Item = (&Rc<[u8]>, &Met)> {
        self.order.values().filter_map(|path| self.met.get(path).map(|met| (path, met)))
    }

    /// Bytes that it counts in its domain's memory.
    pub(crate) fn memory(&self) -> usize {
        charge::TRANSACTION + self.met().map(|(path, met)| charged(path, met.now.as_ref())).sum::<usize>()
    }

    /// Whether all that it met is as it was. A domain that has gone meanwhile counts as a change too: what names it went with it.
    pub(crate) fn holds(&self, tree: &Tree, domains: &Domains) -> bool {
        let is_meant = |node: &Node| {
            let mut heeded = node.permissions.iter().filter(|entry| !entry.stale && entry.domain != ANY);
            heeded.all(|entry| domains.means(entry.domain, node.generation))
        };
        self.met().all(|(path, met)| {
            tree.nodes.get(path).map(|node| node.generation) == met.seen
                && (!met.changed || met.now.as_ref().is_none_or(is_meant))
        })
    }

    /// Whether an owner of what it changed would take more memory than it may: a node counts more in the tree than it does here.
    fn exceeds_memory(&self, tree: &Tree, domains: &Domains) -> bool {
        let mut owners: Map<DomainId, (Counted, Counted)> = Map::default();
        for (path, met) in self.met().filter(|(_, met)| met.changed) {
            let mut count = |node: &Node, add: fn(&mut (Counted, Counted), Counted)| {
                if let Some(both) = owners.get_or_insert_with(node.owner(), Default::default) {
                    add(both, node.counted(path, domains.privileged));
                }
            };
            tree.nodes.get(path).into_iter().for_each(|node| count(node, |(before, _), node| *before += node));
            met.now.iter().for_each(|node| count(node, |(_, now), node| *now += node));
        }
        owners.iter().any(|(owner, (before, now))| domains.exceeds_instead(*owner, *before, *now))
    }

    /// Makes the tree what the transaction made of it.
    ///
    /// # Errors
    /// `ENOMEM` where it has failed before or an owner of nodes would take more memory than it may, `ENOSPC` where a domain would have too many
    /// nodes, `EAGAIN` where another changed what it met; and then nothing is changed.
    pub(crate) fn commit(
        self,
        tree: &mut Tree,
        domains: &mut Domains,
        caller: Caller,
        events: &mut Vec<Event>,
    ) -> Result<(), Error> {
        if self.failed {
            return Err(Error::ENOMEM);
        }
        let too_many = |(domain, more): (&DomainId, &isize)| {
            usize::try_from(*more).is_ok_and(|more| more > 0 && domains.exceeds_with(*domain, Resource::Nodes, more))
        };
        if self.created && !caller.privileged && self.tallies.iter().any(too_many) {
            return Err(Error::ENOSPC);
        }
        if !self.holds(tree, domains) {
            return Err(Error::EAGAIN);
        }
        if !caller.privileged && self.exceeds_memory(tree, domains) {
            return Err(Error::ENOMEM);
        }
        let Self { mut met, order, .. } = self;
        for path in order.values() {
            let path = path.clone();
            let Some(Met { before, now, fires, changed: true, .. }) = met.remove(&path) else {
                continue;
            };
            let permissions = now.as_ref().map(|node| node.permissions.clone());
            match now {
                Some(node) => tree.put(path.clone(), node, domains),
                None => tree.take(&path, domains),
            }
            if let Some(scope) = fires {
                events.push(Event { path, scope, now: permissions, before, parent: None });
            }
        }
        Ok(())
    }
}
