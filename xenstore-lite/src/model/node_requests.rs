//! The model's requests about nodes. Floor 1.

use alloc::vec::Vec;

use xen_pv_sys::DomainId;
use xen_pv_sys::io::xs_wire as abi;

use super::{Event, Model, Node, Path, Scope};
use crate::permissions::{self, ANY, Permission, Rights};
use crate::{Error, Resource, charge, path, payload};

/// Who asks, and in which transaction.
type Who = (DomainId, u32);

impl Model {
    pub(super) fn node_request(
        &mut self,
        domain: DomainId,
        kind: u32,
        tx: u32,
        payload: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let who = (domain, tx);
        let ok = b"OK\0".to_vec();
        match kind {
            abi::XS_WRITE => {
                let (word, value) = payload::word_and_rest(payload)?;
                let path = self.path(domain, word, false)?;
                self.write(who, &path, Some(value)).map(|()| ok)
            }
            abi::XS_SET_PERMS => self.set_permissions(who, payload).map(|()| ok),
            _ => {
                let path = self.path(domain, payload::only(payload)?, kind == abi::XS_GET_PERMS)?;
                match kind {
                    abi::XS_READ => self.get(who, &path, Rights::READ).map(|node| node.value),
                    abi::XS_DIRECTORY => self
                        .get(who, &path, Rights::READ)
                        .map(|node| node.children.iter().flat_map(|name| [name, b"\0".as_slice()].concat()).collect()),
                    abi::XS_GET_PERMS => self.get(who, &path, Rights::READ).map(|node| {
                        let mut words = Vec::new();
                        permissions::print(&node.permissions, &mut words);
                        words
                    }),
                    abi::XS_MKDIR => self.write(who, &path, None).map(|()| ok),
                    abi::XS_RM => self.remove(who, &path).map(|()| ok),
                    _ => Err(Error::ENOSYS),
                }
            }
        }
    }

    fn transaction(&mut self, (domain, tx): Who) -> Option<&mut super::Transaction> {
        self.domains.get_mut(&domain)?.transactions.get_mut(&tx)
    }

    fn fail(&mut self, who: Who, error: Error) -> Error {
        if let Some(transaction) = self.transaction(who) {
            transaction.failed = true;
        }
        error
    }

    fn read(&mut self, who: Who, path: &[u8]) -> Result<Option<Node>, Error> {
        let live = self.nodes.get(path).cloned();
        let (limit, domain) = (self.quotas.hard(Resource::TransactionNodes) as usize, who.0);
        let Some(transaction) = self.transaction(who) else { return Ok(live) };
        if let Some(now) = transaction.now.get(path) {
            return Ok(now.clone());
        }
        if domain.0 != 0 && transaction.now.len() >= limit {
            return Err(self.fail(who, Error::ENOSPC));
        }
        if self.too_much(domain, charge::met(path.len(), live.as_ref().map(Node::contents))) {
            return Err(self.fail(who, Error::ENOMEM));
        }
        if let Some(transaction) = self.transaction(who) {
            transaction.met.push((path.to_vec(), live.clone()));
            transaction.now.insert(path.to_vec(), live.clone());
        }
        Ok(live)
    }

    fn get(&mut self, who: Who, path: &[u8], rights: Rights) -> Result<Node, Error> {
        let caller = self.caller(who.0);
        let error = match self.read(who, path)? {
            Some(node) if caller.rights(&node.permissions).hold(rights) => return Ok(node),
            Some(_) => Error::EACCES,
            None => Error::ENOENT,
        };
        let mut above = path;
        while above != b"/" {
            above = path::parent(above);
            if let Some(node) = self.read(who, above)? {
                return Err(if caller.rights(&node.permissions).touch(rights) { error } else { Error::EACCES });
            }
        }
        Err(Error::EACCES)
    }

    /// Puts a node, or none.
    fn put(&mut self, who: Who, path: &[u8], node: Option<Node>) {
        if let Some(transaction) = self.transaction(who) {
            transaction.now.insert(path.to_vec(), node);
            transaction.changed.insert(path.to_vec());
            return;
        }
        match node {
            Some(node) => self.nodes.insert(path.to_vec(), node),
            None => self.nodes.remove(path),
        };
        self.touch(path);
    }

    fn check_size(&mut self, who: Who, node: &Node) -> Result<(), Error> {
        let long = who.0.0 != 0 && node.size() > self.quotas.hard(Resource::NodeSize) as usize;
        if long { Err(self.fail(who, Error::ENOSPC)) } else { Ok(()) }
    }

    /// Whether the node may grow to that.
    fn check_growth(&mut self, who: Who, before: &Node, after: &Node) -> Result<(), Error> {
        self.check_size(who, after)?;
        let payer = if self.transaction(who).is_some() { who.0 } else { after.owner() };
        let more = after.charge(&[]).saturating_sub(before.charge(&[]));
        if who.0.0 != 0 && more > 0 && self.too_much(payer, more) {
            return Err(self.fail(who, Error::ENOMEM));
        }
        Ok(())
    }

    /// Nodes of who asks, as the transaction sees them.
    fn owned(&mut self, who: Who) -> usize {
        let live = self.usage(who.0).nodes as isize;
        let Some(transaction) = self.transaction(who) else { return live as usize };
        let own = |node: Option<&Node>| isize::from(node.is_some_and(|node| node.owner() == who.0));
        let more: isize = transaction
            .met
            .iter()
            .map(|(path, before)| own(transaction.now[path].as_ref()) - own(before.as_ref()))
            .sum();
        (live + more).max(0) as usize
    }

    /// `WRITE`, or `MKDIR` without a value.
    fn write(&mut self, who: Who, path: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
        match (self.get(who, path, Rights::WRITE), value) {
            (Ok(_), None) => Ok(()),
            (Ok(node), Some(value)) => {
                let after = Node { value: value.to_vec(), ..node.clone() };
                self.check_growth(who, &node, &after)?;
                self.put(who, path, Some(after.clone()));
                self.note(who, path, true, &after.permissions, None, None);
                Ok(())
            }
            (Err(Error::ENOENT), _) => self.make(who, path, value.unwrap_or_default()),
            (Err(error), _) => Err(error),
        }
    }

    fn make(&mut self, who: Who, path: &[u8], value: &[u8]) -> Result<(), Error> {
        let mut missing: Vec<Path> = [path.to_vec()].into();
        let mut top = loop {
            let above = path::parent(&missing[missing.len() - 1]).to_vec();
            match self.read(who, &above)? {
                Some(node) => break (above, node),
                None => missing.push(above),
            }
        };
        let mut permissions = top.1.permissions.clone();
        if who.0.0 != 0 {
            permissions[0].domain = who.0;
        }
        let owned = self.owned(who);
        let mut new = Vec::new();
        let mut memory = 0;
        for (count, missing_path) in missing.iter().enumerate() {
            let lower = count.checked_sub(1).map(|lower| path::name(&missing[lower]).to_vec());
            let value = if count == 0 { value.to_vec() } else { Vec::new() };
            let children = lower.into_iter().collect();
            let node = Node { value, permissions: permissions.clone(), children, changed: 0 };
            if who.0.0 != 0 && owned + count + 1 > self.quotas.hard(Resource::Nodes) as usize {
                return Err(if count == 0 { Error::ENOSPC } else { self.fail(who, Error::ENOSPC) });
            }
            self.check_size(who, &node)?;
            memory += node.charge(missing_path);
            if self.too_much(who.0, memory) {
                return Err(self.fail(who, Error::ENOMEM));
            }
            new.push(node);
        }
        top.1.children.push(path::name(&missing[missing.len() - 1]).to_vec());
        self.check_size(who, &top.1)?;
        if let Some(transaction) = self.transaction(who) {
            transaction.created = true;
        }
        for (path, node) in missing.iter().zip(new) {
            self.put(who, path, Some(node));
        }
        self.put(who, &top.0, Some(top.1));
        self.note(who, path, true, &permissions, None, None);
        Ok(())
    }

    fn set_permissions(&mut self, who: Who, payload: &[u8]) -> Result<(), Error> {
        let words: Vec<&[u8]> = payload::words(payload).collect();
        let [word, entries @ ..] = words.as_slice() else { return Err(Error::EINVAL) };
        if entries.is_empty() {
            return Err(Error::EINVAL);
        }
        if who.0.0 != 0 && entries.len() > self.quotas.hard(Resource::NodePermissions) as usize {
            return Err(Error::ENOSPC);
        }
        let mut entries = permissions::parse(entries.iter().copied())?;
        for entry in entries.iter_mut().filter(|entry| entry.domain != ANY) {
            entry.stale = !self.domains.contains_key(&entry.domain) && !self.existing.contains(&entry.domain);
            if !entry.stale {
                self.domains.entry(entry.domain).or_default();
            }
        }
        if entries[0].stale || entries[0].domain == ANY {
            return Err(Error::ENOENT);
        }
        let path = self.path(who.0, word, true)?;
        let node = self.get(who, &path, Rights::OWN)?;
        let after = Node { permissions: entries.clone(), ..node.clone() };
        if who.0.0 != 0 && after.owner() != node.owner() {
            return Err(Error::EPERM);
        }
        self.check_growth(who, &node, &after)?;
        self.put(who, &path, Some(after));
        self.note(who, &path, true, &entries, Some(&node.permissions), None);
        Ok(())
    }

    fn remove(&mut self, who: Who, path: &[u8]) -> Result<(), Error> {
        match self.get(who, path, Rights::WRITE) {
            Err(Error::ENOENT) => return self.read(who, path::parent(path))?.map(drop).ok_or(Error::ENOENT),
            found => found.map(drop)?,
        }
        if path == b"/" {
            return Err(Error::EINVAL);
        }
        let above = path::parent(path);
        let mut parent = self.read(who, above)?.ok_or(Error::EINVAL)?;
        self.meet_all(who, path)?;
        self.remove_below(who, path, path, None);
        parent.children.retain(|name| name != path::name(path));
        self.put(who, above, Some(parent));
        Ok(())
    }

    /// Reads everything at and below `path`, parents first.
    fn meet_all(&mut self, who: Who, path: &[u8]) -> Result<(), Error> {
        if let Some(node) = self.read(who, path)? {
            for name in node.children {
                self.meet_all(who, &path::child(path, &name))?;
            }
        }
        Ok(())
    }

    fn remove_below(&mut self, who: Who, path: &[u8], top: &[u8], parent: Option<&[Permission]>) {
        let Ok(Some(node)) = self.read(who, path) else { return };
        for name in &node.children {
            self.remove_below(who, &path::child(path, name), top, Some(&node.permissions));
        }
        self.put(who, path, None);
        self.note(who, path, path == top, &node.permissions, None, parent);
    }

    /// Removes a live node, for nobody in particular.
    pub(super) fn remove_live(&mut self, path: &[u8]) {
        let nobody = (DomainId::INVALID, 0);
        self.remove_below(nobody, path, path, None);
        let above = path::parent(path);
        if let Some(mut parent) = self.nodes.get(above).cloned() {
            parent.children.retain(|name| name != path::name(path));
            self.put(nobody, above, Some(parent));
        }
    }

    /// An event, now or at the commit.
    fn note(
        &mut self,
        who: Who,
        path: &[u8],
        subtree: bool,
        now: &[Permission],
        before: Option<&[Permission]>,
        parent: Option<&[Permission]>,
    ) {
        if let Some(transaction) = self.transaction(who) {
            *transaction.fires.entry(path.to_vec()).or_default() |= subtree;
            return;
        }
        let sender = Some(who.0).filter(|domain| *domain != DomainId::INVALID);
        let scope = if subtree { Scope::Subtree } else { Scope::Exact };
        self.fire(sender, &Event { path, scope, now: Some(now), before, parent });
    }
}
