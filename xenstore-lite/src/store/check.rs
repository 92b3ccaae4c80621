//! Whether the store holds together. Floor 1.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;

use super::Store;
use crate::charge;
use crate::domains::Counted;
use crate::node::{INTRODUCE_DOMAIN, RELEASE_DOMAIN};
use crate::path;
use crate::permissions::ANY;
use crate::quota::Resource;

impl Store {
    /// Counts everything anew, and compares: that each node is in its parent's list and each name in a list is a node, and that domains take
    /// up what they are said to.
    ///
    /// # Errors
    /// What does not hold. That is a fault of the store, whatever its clients did.
    pub fn check(&self) -> Result<(), String> {
        let (mut reached, mut named) = (0, 0);
        let mut counts: BTreeMap<_, (usize, Counted)> = BTreeMap::new();
        for top in [path::ROOT, INTRODUCE_DOMAIN, RELEASE_DOMAIN] {
            for path in self.tree.pre_order(top, |_| true) {
                let node = self.tree.nodes.get(&path).ok_or("a node that was met is gone")?;
                let missing =
                    node.children.names().find(|name| self.tree.nodes.get(&path::child(&path, name)).is_none());
                if let Some(name) = missing {
                    return Err(alloc::format!("{} lists {}", path.escape_ascii(), name.escape_ascii()));
                }
                let (nodes, counted) = counts.entry(node.owner()).or_default();
                *nodes += 1;
                *counted += node.counted(&path, self.domains.privileged);
                let names = node.permissions.iter().map(|entry| entry.domain);
                let names: BTreeSet<_> =
                    names.filter(|name| *name != self.domains.privileged && *name != ANY).collect();
                if let Some(name) = names.iter().find(|name| !self.tree.naming(**name).contains(&path)) {
                    return Err(alloc::format!("{} is not among what names {}", path.escape_ascii(), name.0));
                }
                named += names.len();
                reached += 1;
            }
        }
        if reached != self.tree.nodes.len() {
            return Err(alloc::format!("{reached} of {} nodes are listed", self.tree.nodes.len()));
        }
        if named != self.tree.named() {
            return Err(alloc::format!("{named} names in permissions, {} known", self.tree.named()));
        }
        for connection in self.connections.values() {
            let (_, Counted { memory, .. }) = counts.entry(connection.domain).or_default();
            let mut missed = 0;
            *memory += connection.charged() + connection.charged_input();
            *memory += connection.transactions.values().map(|transaction| transaction.memory()).sum::<usize>();
            for (serial, path) in &connection.watches {
                let watch = self.watches.get(path, *serial).ok_or("a connection has a watch that is not")?;
                *memory += charge::watch(path.len(), watch.token.len());
                missed += usize::from(watch.missed);
            }
            if missed != connection.missed {
                return Err(alloc::format!("{} watches have missed something, {missed} say so", connection.missed));
            }
        }
        for (id, domain) in self.domains.iter() {
            let there = counts.remove(&id).unwrap_or_default();
            let (given, devices) = domain.gifts();
            let counted = Counted { memory: domain.takes(Resource::Memory), given, devices };
            let takes = (domain.takes(Resource::Nodes), counted);
            if takes != there {
                return Err(alloc::format!("domain {}: {takes:?} counted, {there:?} there", id.0));
            }
        }
        for resource in [Resource::Nodes, Resource::Watches, Resource::Memory] {
            let all: usize = self.domains.iter().map(|(_, domain)| domain.takes(resource)).sum();
            let counted = self.domains.all(resource);
            if all != counted {
                return Err(alloc::format!("{}: {counted} counted for all domains, {all} there", resource.name()));
            }
        }
        if counts.is_empty() { Ok(()) } else { Err("nodes of domains that are not known".into()) }
    }
}
