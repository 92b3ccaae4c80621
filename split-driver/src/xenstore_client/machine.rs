//! The client's half of the protocol: ids, pending requests, watches. Pure: no transport, no executor. Floor 1.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::task::{Poll, Waker};

use crate::store::StoreError;
use crate::xs_wire::{self, HEADER_BYTES, Kind, MESSAGE_MAX, Message, MessageHeader, Parser};
use zerocopy::FromBytes;

/// Bytes of paths that wait in one watch. Beyond, they fold into one event of the watched path itself, which covers them all.
const EVENT_BYTES_MAX: usize = 8192;

/// Why a request has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The store refused, by this `errno.h` number.
    Errno(u16),
    /// The reply belongs to another kind of request.
    Malformed,
    /// The connection is gone.
    Closed,
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Errno(number) => xs_wire::refusal(number),
            Failure::Malformed => Self::Malformed,
            Failure::Closed => Self::Closed,
        }
    }
}

/// A request on its way.
#[derive(Debug)]
enum Pending {
    Waiting(Kind, Option<Waker>),
    Done(Kind, Result<Vec<u8>, Failure>),
    /// Nobody waits any more. The id stays taken until the reply has come.
    Abandoned(Kind),
}

#[derive(Debug)]
struct WatchState {
    path: String,
    events: VecDeque<String>,
    event_bytes: usize,
    waker: Option<Waker>,
}

/// The state of a connection to the store.
#[derive(Debug, Default)]
pub struct Machine {
    outgoing: VecDeque<u8>,
    parser: Parser,
    next_id: u32,
    next_token: u32,
    pending: BTreeMap<u32, Pending>,
    watches: BTreeMap<u32, WatchState>,
    closed: bool,
    /// A request is sent when the one before was answered.
    one_at_a_time: bool,
    /// The request that was sent last, until it is answered, where they go one at a time.
    on_its_way: Option<u32>,
}

impl Machine {
    /// A connection that takes one request at a time: the next one is sent when that was answered, whoever awaits the answer.
    pub fn one_at_a_time() -> Self {
        Self { one_at_a_time: true, ..Self::default() }
    }

    /// A connection that another client had before: its requests and watches had numbers below `number`. What the store keeps of that
    /// client's watches and transactions ends.
    pub fn taking_over(number: u32) -> Self {
        let mut machine = Self { next_id: number, next_token: number, ..Self::default() };
        machine.submit_unheard(Kind::RESET_WATCHES, 0, &[b"\0"]);
        machine
    }

    /// Queues a request; its payload is `parts` one after another.
    ///
    /// # Errors
    /// [`StoreError::TooLong`] where it is longer than the protocol allows, [`StoreError::Closed`] without a connection.
    pub fn submit(&mut self, kind: Kind, transaction: u32, parts: &[&[u8]]) -> Result<u32, StoreError> {
        if self.closed {
            return Err(StoreError::Closed);
        }
        // Ids wrap after a long life; one still pending is passed over.
        while self.pending.contains_key(&self.next_id) {
            self.next_id = self.next_id.wrapping_add(1);
        }
        let id = self.next_id;
        xs_wire::encode(&mut self.outgoing, kind, id, transaction, parts).map_err(|_| StoreError::TooLong)?;
        self.next_id = id.wrapping_add(1);
        self.pending.insert(id, Pending::Waiting(kind, None));
        Ok(id)
    }

    /// Queues a request whose reply nobody awaits.
    fn submit_unheard(&mut self, kind: Kind, transaction: u32, parts: &[&[u8]]) {
        if let Ok(id) = self.submit(kind, transaction, parts) {
            self.pending.insert(id, Pending::Abandoned(kind));
        }
    }

    /// The reply to `id`, once. After [`Poll::Ready`] the id is forgotten.
    pub fn poll_reply(&mut self, id: u32, waker: &Waker) -> Poll<Result<Vec<u8>, Failure>> {
        match self.pending.get_mut(&id) {
            Some(Pending::Waiting(_, slot)) => {
                *slot = Some(waker.clone());
                return Poll::Pending;
            }
            Some(Pending::Done(..)) => {}
            Some(Pending::Abandoned(_)) | None => return Poll::Ready(Err(Failure::Closed)),
        }
        match self.pending.remove(&id) {
            Some(Pending::Done(_, result)) => Poll::Ready(result),
            _ => Poll::Ready(Err(Failure::Closed)),
        }
    }

    /// Nobody waits for `id` any more. A transaction that it opened is ended, a watch is for its owner to close.
    pub fn abandon(&mut self, id: u32) {
        match self.pending.remove(&id) {
            Some(Pending::Waiting(kind, _)) => {
                self.pending.insert(id, Pending::Abandoned(kind));
            }
            Some(Pending::Done(Kind::TRANSACTION_START, Ok(payload))) => self.end_transaction(&payload),
            Some(other @ Pending::Abandoned(_)) => {
                self.pending.insert(id, other);
            }
            Some(Pending::Done(..)) | None => {}
        }
    }

    /// Ends the transaction that a reply opened which nobody reads.
    fn end_transaction(&mut self, payload: &[u8]) {
        if let Some(transaction) = number(payload) {
            self.submit_unheard(Kind::TRANSACTION_END, transaction, &[b"F\0"]);
        }
    }

    /// Queues the registration of a watch: its token, and the request's id.
    ///
    /// # Errors
    /// As of [`submit`](Self::submit).
    pub fn open_watch(&mut self, path: &str) -> Result<(u32, u32), StoreError> {
        while self.watches.contains_key(&self.next_token) {
            self.next_token = self.next_token.wrapping_add(1);
        }
        let token = self.next_token;
        let text = token.to_string();
        let parts: [&[u8]; 4] = [path.as_bytes(), b"\0", text.as_bytes(), b"\0"];
        let id = self.submit(Kind::WATCH, 0, &parts)?;
        self.next_token = token.wrapping_add(1);
        let state = WatchState { path: path.into(), events: VecDeque::new(), event_bytes: 0, waker: None };
        self.watches.insert(token, state);
        Ok((token, id))
    }

    /// Forgets a watch and, where the store may know it, queues its end without waiting for the reply.
    pub fn close_watch(&mut self, token: u32, registered: bool) {
        let Some(watch) = self.watches.remove(&token) else {
            return;
        };
        if registered {
            let text = token.to_string();
            let parts: [&[u8]; 4] = [watch.path.as_bytes(), b"\0", text.as_bytes(), b"\0"];
            self.submit_unheard(Kind::UNWATCH, 0, &parts);
        }
    }

    /// The next path of a watch. Never ready where the connection or the watch is gone.
    pub fn poll_event(&mut self, token: u32, waker: &Waker) -> Poll<String> {
        let Some(watch) = self.watches.get_mut(&token) else {
            return Poll::Pending;
        };
        if let Some(path) = watch.events.pop_front() {
            watch.event_bytes = watch.event_bytes.saturating_sub(path.len());
            return Poll::Ready(path);
        }
        watch.waker = Some(waker.clone());
        Poll::Pending
    }

    /// Bytes that the store sent.
    pub fn handle_bytes(&mut self, mut bytes: &[u8]) {
        while !self.closed {
            match self.parser.next(&mut bytes) {
                Ok(Some(message)) => self.handle_message(message),
                Ok(None) => return,
                Err(error) => {
                    log::error!("xenstore: a payload of {} bytes, connection lost", error.length);
                    self.close();
                }
            }
        }
    }

    fn handle_message(&mut self, message: Message) {
        let Message { header, payload } = message;
        let kind = Kind(header.kind);
        if kind == Kind::WATCH_EVENT {
            self.handle_event(&payload);
            return;
        }
        self.on_its_way.take_if(|id| *id == header.req_id);
        let Some(entry) = self.pending.get_mut(&header.req_id) else {
            // Of a client that had this connection before, it may be.
            log::debug!("xenstore: reply to unknown request {}", header.req_id);
            return;
        };
        let result = |asked: Kind| {
            if kind == Kind::ERROR {
                Err(Failure::Errno(xs_wire::errno(&payload)))
            } else if kind == asked {
                Ok(payload)
            } else {
                Err(Failure::Malformed)
            }
        };
        match entry {
            Pending::Waiting(kind, waker) => {
                let (kind, waker) = (*kind, waker.take());
                *entry = Pending::Done(kind, result(kind));
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
            Pending::Abandoned(kind) => {
                let kind = *kind;
                self.pending.remove(&header.req_id);
                if let (Kind::TRANSACTION_START, Ok(payload)) = (kind, result(kind)) {
                    self.end_transaction(&payload);
                }
            }
            Pending::Done(..) => {
                log::warn!("xenstore: second reply to request {}", header.req_id);
            }
        }
    }

    fn handle_event(&mut self, payload: &[u8]) {
        let mut strings = xs_wire::strings(payload);
        let path = strings.next().and_then(|path| str::from_utf8(path).ok());
        let token = strings.next().and_then(number);
        let (Some(path), Some(token)) = (path, token) else {
            log::warn!("xenstore: malformed watch event");
            return;
        };
        // Events on their way while the watch was closed find nobody.
        let Some(watch) = self.watches.get_mut(&token) else {
            return;
        };
        if watch.events.iter().any(|known| known == path) {
            return;
        }
        if watch.event_bytes + path.len() > EVENT_BYTES_MAX {
            watch.events.clear();
            watch.event_bytes = watch.path.len();
            watch.events.push_back(watch.path.clone());
        } else {
            watch.event_bytes += path.len();
            watch.events.push_back(path.into());
        }
        if let Some(waker) = watch.waker.take() {
            waker.wake();
        }
    }

    /// Whether a message is to be sent now.
    pub fn has_message(&self) -> bool {
        !self.outgoing.is_empty() && self.on_its_way.is_none()
    }

    /// Moves the message that is to be sent next into `buffer`; its length, 0 where there is none.
    pub fn take_message(&mut self, buffer: &mut [u8; MESSAGE_MAX]) -> usize {
        let mut header = [0; HEADER_BYTES];
        header.iter_mut().zip(&self.outgoing).for_each(|(slot, byte)| *slot = *byte);
        let length = match MessageHeader::read_from_bytes(&header) {
            Ok(header) if self.has_message() => {
                self.on_its_way = self.one_at_a_time.then_some(header.req_id);
                HEADER_BYTES + header.len as usize
            }
            _ => 0,
        };
        buffer
            .iter_mut()
            .zip(self.outgoing.drain(..length.min(self.outgoing.len())))
            .for_each(|(slot, byte)| *slot = byte);
        length
    }

    /// The connection is gone: whoever waits for a reply hears so, watches fall silent.
    pub fn close(&mut self) {
        self.closed = true;
        self.outgoing = VecDeque::new();
        for entry in self.pending.values_mut() {
            if let Pending::Waiting(kind, waker) = entry {
                let (kind, waker) = (*kind, waker.take());
                *entry = Pending::Done(kind, Err(Failure::Closed));
                if let Some(waker) = waker {
                    waker.wake();
                }
            }
        }
        self.pending.retain(|_, entry| matches!(entry, Pending::Done(..)));
    }

    /// Requests without a reply, and watches: what a leak would show in.
    pub fn live(&self) -> (usize, usize) {
        (self.pending.len(), self.watches.len())
    }
}

/// A decimal number, with or without the zero byte that ends it.
fn number(text: &[u8]) -> Option<u32> {
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    str::from_utf8(text).ok()?.parse().ok()
}
