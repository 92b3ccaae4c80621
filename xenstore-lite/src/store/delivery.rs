//! Events to the watches that hear of them, and what becomes of those that find no room. Floor 1.

use alloc::vec::Vec;

use xen_pv_sys::DomainId;
use xen_pv_sys::io::xs_wire::{self as abi, MessageHeader};

use super::{Store, mark_ready};
use crate::ConnectionId;
use crate::charge;
use crate::connection::Cause;
use crate::domains::Domains;
use crate::node::Tree;
use crate::path;
use crate::permissions::{Permission, Rights};
use crate::quota::Resource;
use crate::watches::{Event, Watch};
use crate::wire::{self, HEADER_BYTES, PAYLOAD_MAX};

impl Store {
    /// Tells the watches what happened, by a request of `sender` or without one.
    ///
    /// A watch whose domain has no room for an event is told later: of its own path, once, in place of all that it missed. Who sees that
    /// looks at all that is below. Of the privileged domain no event is missed.
    pub(super) fn deliver(&mut self, sender: Option<ConnectionId>) {
        for event in core::mem::take(&mut self.events) {
            let mut missed = Vec::new();
            for watch in self.watches.hearing(event.scope, &event.path) {
                // An event that is missed copies nothing: a clone of the store has its own connection only where this one is changed.
                let Some(connection) = self.connections.get(&watch.connection) else {
                    continue;
                };
                let receiver = connection.domain;
                let Some(length) = event_length(watch, &event.path) else {
                    continue;
                };
                if watch.missed || !may_hear(&self.domains, &self.tree, receiver, &event) {
                    continue;
                }
                if !has_room(&self.domains, receiver, connection.waiting_bytes(), length) {
                    missed.push((watch.connection, watch.serial));
                    continue;
                }
                let message = event_message(watch, &event.path);
                if !event.path.starts_with(b"@") && connection.has_event(&message) {
                    continue;
                }
                let privileged = receiver == self.domains.privileged;
                let Some(connection) = self.connections.get_mut(&watch.connection) else {
                    continue;
                };
                let cause = sender.filter(|sender| privileged && *sender != watch.connection);
                let cause = cause.map(|connection| Cause { connection, serial: self.served });
                let bytes = connection.event(&message, cause);
                self.domains.add(receiver, Resource::Memory, bytes);
                mark_ready(&mut self.ready, watch.connection, connection);
                if let Some(cause) = cause
                    && let Some(sender) = self.connections.get_mut(&cause.connection)
                {
                    let count = sender.causing.entry(cause.serial).or_default();
                    *count += 1;
                    if *count == 1 {
                        self.domains.add(sender.domain, Resource::Outstanding, 1);
                    }
                }
            }
            missed.into_iter().for_each(|(connection, serial)| self.miss(connection, serial));
        }
    }

    /// Notes that a watch of a connection has missed an event.
    fn miss(&mut self, id: ConnectionId, serial: u64) {
        if let Some(connection) = self.connections.get_mut(&id)
            && let Some(path) = connection.watches.get(&serial)
            && self.watches.set_missed(path, serial, true)
        {
            connection.missed += 1;
        }
    }

    /// Tells a connection of what it missed, as far as there is room by now.
    pub(super) fn make_up(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get(&id).filter(|connection| connection.missed > 0) else {
            return;
        };
        // In the order in which the watches were set.
        for (serial, path) in &connection.watches.clone() {
            let Some(connection) = self.connections.get_mut(&id).filter(|connection| connection.missed > 0) else {
                return;
            };
            let Some(watch) = self.watches.get(path, *serial).filter(|watch| watch.missed) else {
                continue;
            };
            if let Some(length) = event_length(watch, path) {
                if !has_room(&self.domains, connection.domain, connection.waiting_bytes(), length) {
                    return;
                }
                let bytes = connection.event(&event_message(watch, path), None);
                self.domains.add(connection.domain, Resource::Memory, bytes);
                mark_ready(&mut self.ready, id, connection);
            }
            connection.missed -= 1;
            self.watches.set_missed(path, *serial, false);
            self.changes += 1;
        }
    }
}

/// Whether a domain for whom so many bytes wait has room for an event: one for whom nothing waits always has.
fn has_room(domains: &Domains, receiver: DomainId, waiting: usize, length: usize) -> bool {
    waiting == 0 || !domains.exceeds_with(receiver, Resource::Memory, charge::event(length))
}

/// Whether a domain may know of an event: it can read the node, could before, or can read the parent.
fn may_hear(domains: &Domains, tree: &Tree, receiver: DomainId, event: &Event) -> bool {
    let caller = domains.caller(receiver);
    let reads = |permissions: &[Permission]| caller.rights(permissions).hold(Rights::READ);
    if event.before.as_deref().is_some_and(reads) {
        return true;
    }
    let Some(now) = &event.now else {
        return false;
    };
    if reads(now) {
        return true;
    }
    match &event.parent {
        Some(parent) => reads(parent),
        None => {
            // A domain's number below a special path is no node: what is above that counts.
            let special = event.path.starts_with(b"@");
            let parent = if special { path::ROOT } else { path::parent(&event.path) };
            tree.nodes.get(parent).is_some_and(|node| reads(&node.permissions))
        }
    }
}

/// Bytes of [`event_message`]; `None` where its payload does not fit.
pub(super) fn event_length(watch: &Watch, path: &[u8]) -> Option<usize> {
    let payload = path.len().saturating_sub(watch.omitted) + 1 + watch.token.len() + 1;
    (payload <= PAYLOAD_MAX).then_some(HEADER_BYTES + payload)
}

/// An event as its watch put it, header and all.
pub(super) fn event_message(watch: &Watch, path: &[u8]) -> Vec<u8> {
    let path = path.get(watch.omitted..).unwrap_or_default();
    wire::message(abi::XS_WATCH_EVENT, &MessageHeader::default(), &[path, b"\0", &watch.token, b"\0"])
}
