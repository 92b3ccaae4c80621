//! What one request sees of the tree, directly or in a transaction, and what it may do there. Pure. Floor 1.
//!
//! A change is checked whole before it is begun, so that a request which is refused has done nothing.

use alloc::rc::Rc;
use alloc::vec::Vec;

use crate::Error;
use crate::domains::Domains;
use crate::node::{Node, Tree, bytes};
use crate::path;
use crate::permissions::{Caller, Permission, Rights};
use crate::quota::Resource;
use crate::transaction::Transaction;
use crate::watches::{Event, Scope};

/// One request's access.
pub(crate) struct Access<'a> {
    pub(crate) tree: &'a mut Tree,
    pub(crate) domains: &'a mut Domains,
    pub(crate) transaction: Option<&'a mut Transaction>,
    pub(crate) caller: Caller,
    /// What happened, for the watches.
    pub(crate) events: &'a mut Vec<Event>,
}

/// A node that is to be removed, and the permissions of the one above.
struct Doomed {
    path: Rc<[u8]>,
    node: Node,
    parent: Option<Rc<[Permission]>>,
}

impl Access<'_> {
    /// The node at `path`, whoever asks.
    pub(crate) fn read(&mut self, path: &[u8]) -> Result<Option<Node>, Error> {
        match &mut self.transaction {
            None => Ok(self.tree.nodes.get(path).cloned()),
            Some(transaction) => transaction.meet(path, self.tree, self.domains, self.caller.domain),
        }
    }

    /// The node at `path`, for who has all of `rights` there.
    ///
    /// # Errors
    /// `EACCES`, or `ENOENT` for one who may know that, as far as the nearest node above says.
    pub(crate) fn get(&mut self, path: &[u8], rights: Rights) -> Result<Node, Error> {
        let error = match self.read(path)? {
            Some(node) if self.caller.rights(&node.permissions).hold(rights) => return Ok(node),
            Some(_) => Error::EACCES,
            None => Error::ENOENT,
        };
        let mut above = path;
        while above != path::ROOT {
            above = path::parent(above);
            if let Some(node) = self.read(above)? {
                let knows = self.caller.rights(&node.permissions).touch(rights);
                return Err(if knows { error } else { Error::EACCES });
            }
        }
        // The root has none above it but itself.
        Err(Error::EACCES)
    }

    /// Writes `value` to the node at `path`, which is made where it is missing.
    pub(crate) fn write(&mut self, path: &[u8], value: &[u8]) -> Result<(), Error> {
        match self.get(path, Rights::WRITE) {
            Ok(node) => {
                let node = self.given(path, &node, Node { value: bytes(value), ..node.clone() });
                self.check_size(&node)?;
                self.check_memory(path, &node)?;
                self.fire(path, Scope::Subtree, &node, None);
                self.put(path.into(), node);
                Ok(())
            }
            Err(Error::ENOENT) => self.create(path, value),
            Err(error) => Err(error),
        }
    }

    /// Makes an empty node at `path` where there is none.
    pub(crate) fn make(&mut self, path: &[u8]) -> Result<(), Error> {
        match self.get(path, Rights::WRITE) {
            Ok(_) => Ok(()),
            Err(Error::ENOENT) => self.create(path, &[]),
            Err(error) => Err(error),
        }
    }

    /// Makes the node at `path` and those above it that are missing.
    fn create(&mut self, path: &[u8], value: &[u8]) -> Result<(), Error> {
        let mut missing = path;
        let mut paths: Vec<Rc<[u8]>> = alloc::vec![path.into()];
        let top = loop {
            missing = path::parent(missing);
            match self.read(missing)? {
                Some(node) => break node,
                None if missing == path::ROOT => return Err(Error::EIO),
                None => paths.push(missing.into()),
            }
        };
        let permissions = self.inherited(&top);
        let mut child: Option<&[u8]> = None;
        let mut nodes = Vec::with_capacity(paths.len());
        for path in &paths {
            let mut node = Node::new(if child.is_none() { value } else { &[] }, permissions.clone());
            child.into_iter().for_each(|name| node.children.add(name));
            node.given = if self.caller.privileged { node.charge(path) } else { 0 };
            child = Some(path::name(path));
            nodes.push(node);
        }
        let mut above = top.clone();
        child.into_iter().for_each(|name| above.children.add(name));
        let top = self.given(missing, &top, above);
        self.check_new(&paths, &nodes)?;
        self.check_size(&top)?;
        if let Some(transaction) = &mut self.transaction {
            transaction.created = true;
        }
        let parent = nodes.get(1).unwrap_or(&top).permissions.clone();
        if let Some(node) = nodes.first() {
            self.fire(path, Scope::Subtree, node, Some(parent));
        }
        for (path, node) in paths.into_iter().zip(nodes) {
            self.put(path, node);
        }
        self.put(missing.into(), top);
        Ok(())
    }

    /// The permissions of a new node below `top`: the same, but a guest owns what it makes.
    fn inherited(&self, top: &Node) -> Rc<[Permission]> {
        let own = self.caller.domain;
        if self.caller.privileged || top.owner() == own {
            return top.permissions.clone();
        }
        let mut permissions = top.permissions.to_vec();
        permissions.iter_mut().take(1).for_each(|entry| entry.domain = own);
        permissions.into()
    }

    /// `now` in place of `before`, with what it counts more as the privileged domain's gift where that changes it.
    fn given(&self, path: &[u8], before: &Node, mut now: Node) -> Node {
        if self.caller.privileged {
            now.given += now.charge(path).saturating_sub(before.charge(path));
        }
        now
    }

    /// Sets the permissions of the node at `path`.
    pub(crate) fn set_permissions(&mut self, path: &[u8], permissions: Vec<Permission>) -> Result<(), Error> {
        let node = self.get(path, Rights::OWN)?;
        let changed = self.given(path, &node, Node { permissions: permissions.into(), ..node.clone() });
        if !self.caller.privileged && changed.owner() != node.owner() {
            return Err(Error::EPERM);
        }
        self.check_size(&changed)?;
        self.check_memory(path, &changed)?;
        self.put(path.into(), changed.clone());
        match &mut self.transaction {
            Some(transaction) => transaction.fire(path, Scope::Subtree),
            None => self.events.push(Event {
                path: path.into(),
                scope: Scope::Subtree,
                now: Some(changed.permissions),
                before: Some(node.permissions),
                parent: None,
            }),
        }
        Ok(())
    }

    /// Removes the node at `path` and all below it.
    pub(crate) fn remove(&mut self, path: &[u8]) -> Result<(), Error> {
        match self.get(path, Rights::WRITE) {
            Err(Error::ENOENT) => {
                // That it is gone already is fine, as long as it could be there.
                return self.read(path::parent(path))?.map(drop).ok_or(Error::ENOENT);
            }
            found => found.map(drop)?,
        }
        if path == path::ROOT { Err(Error::EINVAL) } else { self.remove_unasked(path) }
    }

    /// Removes the node at `path`, which is not the root, and all below it, whoever asks.
    pub(crate) fn remove_unasked(&mut self, path: &[u8]) -> Result<(), Error> {
        let above = path::parent(path);
        let Some(mut parent) = self.read(above)? else {
            return Err(Error::EINVAL);
        };
        for Doomed { path: below, node, parent } in self.doomed(path)? {
            let scope = if *below == *path { Scope::Subtree } else { Scope::Exact };
            self.fire(&below, scope, &node, parent);
            self.take(&below);
        }
        parent.children.remove(path::name(path));
        self.put(above.into(), parent);
        Ok(())
    }

    /// What is at and below `top`, each after its children.
    fn doomed(&mut self, top: &[u8]) -> Result<Vec<Doomed>, Error> {
        enum Step {
            Enter(Rc<[u8]>, Option<Rc<[Permission]>>),
            Leave(Doomed),
        }
        let mut steps = alloc::vec![Step::Enter(top.into(), None)];
        let mut doomed = Vec::new();
        while let Some(step) = steps.pop() {
            match step {
                Step::Leave(node) => doomed.push(node),
                Step::Enter(path, parent) => {
                    let Some(node) = self.read(&path)? else {
                        continue;
                    };
                    let below = node.clone();
                    let here = path.clone();
                    steps.push(Step::Leave(Doomed { path, node, parent }));
                    steps.extend(
                        below
                            .children
                            .names()
                            .rev()
                            .map(|name| Step::Enter(path::child(&here, name).into(), Some(below.permissions.clone()))),
                    );
                }
            }
        }
        Ok(doomed)
    }

    fn put(&mut self, path: Rc<[u8]>, mut node: Node) {
        match &mut self.transaction {
            None => self.tree.put(path, node, self.domains),
            Some(transaction) => {
                node.generation = self.tree.next_generation();
                transaction.replace(&path, Some(node), self.domains, self.caller.domain);
            }
        }
    }

    fn take(&mut self, path: &[u8]) {
        match &mut self.transaction {
            None => self.tree.take(path, self.domains),
            Some(transaction) => {
                self.tree.next_generation();
                transaction.replace(path, None, self.domains, self.caller.domain);
            }
        }
    }

    fn fire(&mut self, path: &[u8], scope: Scope, node: &Node, parent: Option<Rc<[Permission]>>) {
        match &mut self.transaction {
            Some(transaction) => transaction.fire(path, scope),
            None => {
                let now = Some(node.permissions.clone());
                self.events.push(Event { path: path.into(), scope, now, before: None, parent });
            }
        }
    }

    /// A change is refused. In a transaction that ends in no commit, as in C xenstored.
    fn refuse(&mut self, error: Error) -> Result<(), Error> {
        if let Some(transaction) = &mut self.transaction {
            transaction.failed = true;
        }
        Err(error)
    }

    fn check_size(&mut self, node: &Node) -> Result<(), Error> {
        let size = node.size();
        if self.domains.exceeds(self.caller.domain, Resource::NodeSize, size) {
            return self.refuse(Error::ENOSPC);
        }
        self.domains.note_most(self.caller.domain, Resource::NodeSize, size);
        Ok(())
    }

    /// Whether `node` in place of what is at `path` fits into the memory of who pays for it: its owner, or who holds the transaction.
    fn check_memory(&mut self, path: &[u8], node: &Node) -> Result<(), Error> {
        let before = self.read(path)?.map_or(0, |node| node.charge(path));
        let payer = if self.transaction.is_some() { self.caller.domain } else { node.owner() };
        let more = node.charge(path).saturating_sub(before);
        if !self.caller.privileged && more > 0 && self.domains.exceeds_with(payer, Resource::Memory, more) {
            return self.refuse(Error::ENOMEM);
        }
        Ok(())
    }

    /// Whether nodes may be made at `paths`, the lowest first.
    fn check_new(&mut self, paths: &[Rc<[u8]>], nodes: &[Node]) -> Result<(), Error> {
        let own = self.caller.domain;
        let tally = self.transaction.as_ref().map_or(0, |transaction| transaction.tally(own));
        let present = self.domains.takes(own, Resource::Nodes).saturating_add_signed(tally);
        let mut memory = 0;
        for (count, (path, node)) in paths.iter().zip(nodes).enumerate() {
            if self.domains.exceeds(own, Resource::Nodes, present + count + 1) {
                return if count == 0 { Err(Error::ENOSPC) } else { self.refuse(Error::ENOSPC) };
            }
            self.check_size(node)?;
            memory += node.charge(path);
            if self.domains.exceeds_with(own, Resource::Memory, memory) {
                return self.refuse(Error::ENOMEM);
            }
        }
        Ok(())
    }
}
