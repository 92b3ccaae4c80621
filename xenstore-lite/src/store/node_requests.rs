//! Requests about nodes and watches. Floor 1.

use alloc::borrow::Cow;
use alloc::rc::Rc;
use alloc::vec::Vec;

use xen_pv_sys::io::xs_wire::{self as abi, ServerFeatures};

use super::Store;
use super::delivery::{event_length, event_message};
use super::requests::{Reply, Request};
use crate::access::Access;
use crate::node::Node;
use crate::path;
use crate::payload;
use crate::permissions::{self, ANY, Rights};
use crate::quota::Resource;
use crate::watches::Watch;
use crate::wire::PAYLOAD_MAX;
use crate::{Error, Host, charge};

impl Store {
    /// The path that a word of a request means.
    fn path<'a>(&mut self, request: Request<'_>, word: &'a [u8], special: bool) -> Result<Cow<'a, [u8]>, Error> {
        let domain = request.caller.domain;
        let path = path::canonical(word, domain, special).ok_or(Error::EINVAL)?;
        let counted = path::counted_bytes(&path);
        if self.domains.exceeds(domain, Resource::PathBytes, counted) {
            return Err(Error::EINVAL);
        }
        self.domains.note_most(domain, Resource::PathBytes, counted);
        Ok(path)
    }

    /// Does something with the nodes as a request sees them.
    fn access<T>(&mut self, request: Request<'_>, act: impl FnOnce(&mut Access<'_>) -> T) -> T {
        let connection = self.connections.get_mut(&request.connection);
        let transaction = connection.and_then(|connection| connection.transactions.get_mut(&request.transaction));
        act(&mut Access {
            tree: &mut self.tree,
            domains: &mut self.domains,
            transaction,
            caller: request.caller,
            events: &mut self.events,
        })
    }

    pub(super) fn node_request(&mut self, request: Request<'_>) -> Result<Reply, Error> {
        let payload = request.payload;
        match request.kind {
            abi::XS_WRITE => {
                let (word, value) = payload::word_and_rest(payload)?;
                let path = self.path(request, word, false)?;
                self.access(request, |access| access.write(&path, value)).map(|()| Reply::Done)
            }
            abi::XS_DIRECTORY_PART => {
                let [word, offset] = payload::exactly(payload)?;
                let path = self.path(request, word, false)?;
                let node = self.access(request, |access| access.get(&path, Rights::READ))?;
                Ok(Reply::Bytes(directory_part(&node, payload::number(offset))))
            }
            kind => {
                let path = self.path(request, payload::only(payload)?, kind == abi::XS_GET_PERMS)?;
                self.access(request, |access| match kind {
                    abi::XS_READ => access.get(&path, Rights::READ).map(Reply::Value),
                    abi::XS_DIRECTORY => access.get(&path, Rights::READ).map(Reply::Children),
                    abi::XS_MKDIR => access.make(&path).map(|()| Reply::Done),
                    abi::XS_RM => access.remove(&path).map(|()| Reply::Done),
                    abi::XS_GET_PERMS => access.get(&path, Rights::READ).map(|node| {
                        let mut words = Vec::new();
                        permissions::print(&node.permissions, &mut words);
                        Reply::Bytes(words)
                    }),
                    _ => Err(Error::ENOSYS),
                })
            }
        }
    }

    pub(super) fn set_permissions(&mut self, request: Request<'_>, host: &mut dyn Host) -> Result<Reply, Error> {
        let mut words = payload::words(request.payload);
        let word = words.next().ok_or(Error::EINVAL)?;
        let domain = request.caller.domain;
        let count = words.clone().count();
        if count == 0 {
            return Err(Error::EINVAL);
        }
        if self.domains.exceeds(domain, Resource::NodePermissions, count) {
            return Err(Error::ENOSPC);
        }
        self.domains.note_most(domain, Resource::NodePermissions, count);
        let mut entries = permissions::parse(words)?;
        let generation = self.tree.generation();
        for entry in &mut entries {
            entry.stale = if entry.domain == ANY {
                !self.has_feature(domain, ServerFeatures::DOMID_ANY)
            } else {
                self.domains.ensure_existing(entry.domain, generation, host).is_none()
            };
        }
        if entries.first().is_none_or(|owner| owner.stale || owner.domain == ANY) {
            return Err(Error::ENOENT);
        }
        let path = self.path(request, word, true)?;
        self.access(request, |access| access.set_permissions(&path, entries)).map(|()| Reply::Done)
    }

    /// Whether a domain may use that.
    fn has_feature(&self, domain: xen_pv_sys::DomainId, feature: ServerFeatures) -> bool {
        let features = self.domains.get(domain).map_or(0, |domain| domain.features);
        ServerFeatures::from_bits_retain(features).contains(feature)
    }

    pub(super) fn watch(&mut self, request: Request<'_>) -> Result<Reply, Error> {
        let domain = request.caller.domain;
        let [word, token] = payload::at_least(request.payload)?;
        let mut more = payload::words(request.payload).skip(2);
        let depth = match (more.next(), more.next()) {
            (None, _) => None,
            (Some(depth), None) if self.has_feature(domain, ServerFeatures::WATCHDEPTH) => {
                let depth = payload::number(depth);
                Some(u64::try_from(depth).map_err(|_| Error::EINVAL)?)
            }
            _ => return Err(Error::EINVAL),
        };
        let path = self.path(request, word, true)?;
        if self.watches.find(&path, request.connection, token).is_some() {
            return Err(Error::EEXIST);
        }
        if self.domains.exceeds_with(domain, Resource::Watches, 1) {
            return Err(Error::E2BIG);
        }
        if self.domains.exceeds_with(domain, Resource::Memory, charge::watch(path.len(), token.len())) {
            return Err(Error::ENOMEM);
        }
        // No path has as many levels, so what does not fit is no bound.
        let depth = depth.and_then(|depth| u16::try_from(depth).ok()).filter(|depth| *depth != u16::MAX);
        let omitted = path.len() - word.len();
        let watch =
            Watch { connection: request.connection, serial: 0, token: token.into(), depth, omitted, missed: false };
        let event = event_length(&watch, &path).map(|_| event_message(&watch, &path));
        self.add_watch(path.into_owned().into(), watch);
        Ok(event.map_or(Reply::Done, Reply::Watching))
    }

    /// Adds a watch that may be, counted for its domain.
    pub(super) fn add_watch(&mut self, path: Rc<[u8]>, watch: Watch) {
        let Some(connection) = self.connections.get_mut(&watch.connection) else {
            return;
        };
        self.domains.add(connection.domain, Resource::Watches, 1);
        self.domains.add(connection.domain, Resource::Memory, charge::watch(path.len(), watch.token.len()));
        let serial = self.watches.add(&path, watch);
        connection.watches.insert(serial, path);
    }

    pub(super) fn unwatch(&mut self, request: Request<'_>) -> Result<Reply, Error> {
        let [word, token] = payload::exactly(request.payload)?;
        let path = self.path(request, word, true)?;
        let serial = self.watches.find(&path, request.connection, token).ok_or(Error::ENOENT)?;
        let missed = self.watches.remove(&path, serial).is_some_and(|watch| watch.missed);
        if let Some(connection) = self.connections.get_mut(&request.connection) {
            connection.watches.remove(&serial);
            connection.missed -= usize::from(missed);
        }
        self.domains.take_off(request.caller.domain, Resource::Watches, 1);
        self.domains.take_off(request.caller.domain, Resource::Memory, charge::watch(path.len(), token.len()));
        Ok(Reply::Done)
    }
}

/// The names of a node's children from a byte on, as many as fit, led by the node's generation. An empty name tells the end.
fn directory_part(node: &Node, offset: i64) -> Vec<u8> {
    let mut answer = alloc::format!("{}\0", node.generation).into_bytes();
    let rest = usize::try_from(offset).ok().and_then(|offset| node.children.bytes().get(offset..)).unwrap_or_default();
    let room = PAYLOAD_MAX - answer.len() - 1;
    let mut end = 0;
    for name in rest.split_inclusive(|byte| *byte == 0) {
        if end + name.len() > room {
            break;
        }
        end += name.len();
    }
    answer.extend_from_slice(rest.get(..end).unwrap_or_default());
    if end == rest.len() {
        answer.push(0);
    }
    answer
}
