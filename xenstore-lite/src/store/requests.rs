//! Requests to their answers. Floor 1.

use alloc::vec::Vec;

use xen_pv_sys::io::xs_wire::{self as abi, MessageHeader};

use super::{Store, error_payload, mark_ready};
use crate::ConnectionId;
use crate::node::Node;
use crate::payload;
use crate::permissions::Caller;
use crate::quota::Resource;
use crate::transaction::Transaction;
use crate::wire::{Message, PAYLOAD_MAX};
use crate::{Error, Host, charge};

/// What a request is answered.
pub(super) enum Reply {
    /// `OK`.
    Done,
    Bytes(Vec<u8>),
    Value(Node),
    Children(Node),
    /// `OK`, and then the watch's first event.
    Watching(Vec<u8>),
}

impl Reply {
    /// A word.
    pub(super) fn word(word: &str) -> Self {
        Self::Bytes([word.as_bytes(), b"\0"].concat())
    }

    fn payload(&self) -> &[u8] {
        match self {
            Self::Done | Self::Watching(_) => b"OK\0",
            Self::Bytes(bytes) => bytes,
            Self::Value(node) => node.value(),
            Self::Children(node) => node.children.bytes(),
        }
    }
}

/// A request, and who asks.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) connection: ConnectionId,
    pub(super) caller: Caller,
    pub(super) kind: u32,
    /// Its transaction; 0 for none.
    pub(super) transaction: u32,
    pub(super) payload: &'a [u8],
}

/// The requests that are for the privileged domain alone.
fn is_privileged(kind: u32) -> bool {
    matches!(
        kind,
        abi::XS_CONTROL
            | abi::XS_INTRODUCE
            | abi::XS_RELEASE
            | abi::XS_IS_DOMAIN_INTRODUCED
            | abi::XS_RESUME
            | abi::XS_SET_TARGET
            | abi::XS_SET_FEATURE
            | abi::XS_GET_QUOTA
            | abi::XS_SET_QUOTA
    )
}

/// Whether such requests, outside of transactions, leave the state as it is.
fn only_reads(kind: u32) -> bool {
    matches!(
        kind,
        abi::XS_DIRECTORY
            | abi::XS_DIRECTORY_PART
            | abi::XS_READ
            | abi::XS_GET_PERMS
            | abi::XS_GET_DOMAIN_PATH
            | abi::XS_IS_DOMAIN_INTRODUCED
    )
}

impl Store {
    /// Serves a request: its events, then its answer.
    pub(super) fn serve(&mut self, id: ConnectionId, message: &Message<'_>, host: &mut dyn Host) {
        let Some(domain) = self.connections.get(&id).map(|connection| connection.domain) else {
            return;
        };
        self.served += 1;
        let caller = self.domains.caller(domain);
        let header = &message.header;
        let transaction = header.tx_id;
        let request = Request { connection: id, caller, kind: header.kind, transaction, payload: message.payload };
        if self.traced {
            log::info!("domain {} asks {} in {transaction}: {}", domain.0, header.kind, message.payload.escape_ascii());
        }
        let reply = self
            .dispatch(request, host)
            .and_then(|reply| if reply.payload().len() <= PAYLOAD_MAX { Ok(reply) } else { Err(Error::E2BIG) });
        if request.transaction != 0 || !only_reads(request.kind) {
            self.changes += 1;
        }
        match &reply {
            // `E2BIG` of a watch is its quota, and of anything else an answer that is too long.
            Err(Error::E2BIG) if request.kind != abi::XS_WATCH => {}
            Err(error @ (Error::ENOMEM | Error::ENOSPC | Error::E2BIG)) => self.domains.note_refusal(domain, *error),
            _ => {}
        }
        self.deliver((!caller.privileged).then_some(id));
        self.answer(id, header, &reply);
    }

    /// Queues the answer of a request.
    pub(super) fn answer(&mut self, id: ConnectionId, header: &MessageHeader, reply: &Result<Reply, Error>) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let domain = connection.domain;
        let mut bytes = match reply {
            Ok(reply) => connection.answer(header.kind, header, reply.payload()),
            Err(error) => connection.answer(abi::XS_ERROR, header, &error_payload(*error)),
        };
        if let Ok(Reply::Watching(event)) = reply {
            bytes += connection.event(event, None);
        }
        self.domains.add(domain, Resource::Memory, bytes);
        self.domains.add(domain, Resource::Outstanding, 1);
        mark_ready(&mut self.ready, id, connection);
    }

    fn dispatch(&mut self, request: Request<'_>, host: &mut dyn Host) -> Result<Reply, Error> {
        let (kind, id, tx) = (request.kind, request.connection, request.transaction);
        let known = kind <= abi::XS_SET_QUOTA && !matches!(kind, abi::XS_WATCH_EVENT | abi::XS_ERROR | 20);
        if !known {
            return Err(Error::ENOSYS);
        }
        if is_privileged(kind) && !request.caller.privileged {
            return Err(Error::EACCES);
        }
        let timeless = matches!(kind, abi::XS_WATCH | abi::XS_UNWATCH);
        let open = |store: &Self| store.connections.get(&id).is_some_and(|own| own.transactions.contains_key(&tx));
        if tx != 0 && !timeless && !open(self) {
            return Err(Error::ENOENT);
        }
        match kind {
            abi::XS_CONTROL => self.control(request, host),
            abi::XS_WATCH => self.watch(request),
            abi::XS_UNWATCH => self.unwatch(request),
            abi::XS_RESET_WATCHES => {
                self.clear_watches(id);
                self.clear_transactions(id);
                Ok(Reply::Done)
            }
            abi::XS_TRANSACTION_START => self.start(request),
            abi::XS_TRANSACTION_END => self.end(request),
            abi::XS_INTRODUCE => self.introduce(request, host),
            abi::XS_RELEASE => self.release(request, host),
            abi::XS_RESUME => self.resume(request),
            abi::XS_SET_TARGET => self.set_target(request),
            abi::XS_GET_DOMAIN_PATH => Self::domain_path(request),
            abi::XS_IS_DOMAIN_INTRODUCED => self.is_introduced(request),
            abi::XS_GET_FEATURE => self.get_feature(request, host),
            abi::XS_SET_FEATURE => self.set_feature(request, host),
            abi::XS_GET_QUOTA => self.get_quota(request, host),
            abi::XS_SET_QUOTA => self.set_quota(request, host),
            abi::XS_SET_PERMS => self.set_permissions(request, host),
            _ => self.node_request(request),
        }
    }

    fn start(&mut self, request: Request<'_>) -> Result<Reply, Error> {
        if request.transaction != 0 {
            return Err(Error::EBUSY);
        }
        let domain = request.caller.domain;
        if self.domains.exceeds_with(domain, Resource::Transactions, 1) {
            return Err(Error::ENOSPC);
        }
        if self.domains.exceeds_with(domain, Resource::Memory, charge::TRANSACTION) {
            return Err(Error::ENOMEM);
        }
        let connection = self.connections.get_mut(&request.connection).ok_or(Error::EIO)?;
        let id = connection.next_transaction();
        connection.transactions.insert(id, Transaction::default());
        self.tree.next_generation();
        self.domains.add(domain, Resource::Transactions, 1);
        self.domains.add(domain, Resource::Memory, charge::TRANSACTION);
        self.protect_if_losing(request.connection, domain, id);
        Ok(Reply::word(&alloc::format!("{id}")))
    }

    fn end(&mut self, request: Request<'_>) -> Result<Reply, Error> {
        let commit = match payload::only(request.payload)? {
            b"T" => true,
            b"F" => false,
            _ => return Err(Error::EINVAL),
        };
        let connection = self.connections.get_mut(&request.connection).ok_or(Error::EIO)?;
        let transaction = connection.transactions.remove(&request.transaction).ok_or(Error::ENOENT)?;
        let domain = request.caller.domain;
        self.domains.take_off(domain, Resource::Transactions, 1);
        self.domains.take_off(domain, Resource::Memory, transaction.memory());
        self.end_protection(request.connection, request.transaction);
        if commit {
            let result = transaction.commit(&mut self.tree, &mut self.domains, request.caller, &mut self.events);
            self.note_outcome(domain, result);
            result?;
        }
        Ok(Reply::Done)
    }
}
