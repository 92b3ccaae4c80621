//! A connection: what came in of a request, what waits to go out, its transactions, its watches. Pure. Floor 1.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::rc::Rc;
use alloc::vec::Vec;

use xen_pv_sys::io::xs_wire::{self as abi, MessageHeader};
use xen_pv_sys::{DomainId, Port};

use crate::Map;
use crate::transaction::Transaction;
use crate::wire::{self, HEADER_BYTES, Message, ProtocolError};

/// A connection, as long as it lives. None is used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub(crate) u32);

/// Bytes of room that an idle connection keeps for what goes out.
const IDLE_ROOM: usize = 4096;

/// A request whose events have not all been fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cause {
    pub(crate) connection: ConnectionId,
    pub(crate) serial: u64,
}

/// A message that waits to go out.
#[derive(Clone, Debug)]
enum Waiting {
    Answer,
    /// With its payload, by which another like it is found.
    Event(Rc<[u8]>, Option<Cause>),
}

/// What has gone out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone {
    /// Bytes that counted in its memory.
    pub(crate) bytes: usize,
    /// It was an answer.
    pub(crate) answer: bool,
    /// It was an event, of a request that waits for that.
    pub(crate) cause: Option<Cause>,
}

/// A connection.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) domain: DomainId,
    pub(crate) port: Port,
    /// The beginning of a request, or a whole one that is held.
    pub(crate) partial: Vec<u8>,
    /// Messages that wait, from `begin` on; of the first of them, the bytes before `sent` are gone.
    out: Vec<u8>,
    begin: usize,
    sent: usize,
    /// The first is the rest of one that a store before this one had begun.
    rest: bool,
    /// The bytes of each, and what it is.
    waiting: VecDeque<(usize, Waiting)>,
    events: BTreeSet<Rc<[u8]>>,
    pub(crate) transactions: Map<u32, Transaction>,
    next_transaction: u32,
    /// Paths of its watches, by serial number.
    pub(crate) watches: Map<u64, Rc<[u8]>>,
    /// Its requests with events that wait elsewhere, and how many.
    pub(crate) causing: BTreeMap<u64, u32>,
    /// [`Store::poll_ready`](crate::Store::poll_ready) will name it.
    pub(crate) ready: bool,
    /// Bytes that are gone since it began, or was restored; wraps.
    pub(crate) gone: u32,
}

impl Connection {
    pub(crate) fn new(domain: DomainId) -> Self {
        Self {
            domain,
            port: Port(0),
            partial: Vec::new(),
            out: Vec::new(),
            begin: 0,
            sent: 0,
            rest: false,
            waiting: VecDeque::new(),
            events: BTreeSet::new(),
            transactions: Map::default(),
            next_transaction: 0,
            watches: Map::default(),
            causing: BTreeMap::new(),
            ready: false,
            gone: 0,
        }
    }

    /// Drops all but its domain, its port, that it is to be named as ready, and the bytes that are gone.
    pub(crate) fn begin_anew(&mut self) {
        *self = Self { port: self.port, ready: self.ready, gone: self.gone, ..Self::new(self.domain) };
    }

    /// Adds bytes to a request that is not whole yet; gives how many were taken.
    pub(crate) fn take_in(&mut self, mut input: &[u8]) -> Result<usize, ProtocolError> {
        let before = self.partial.len();
        // The header says how much follows, so it takes two steps at most.
        loop {
            Message::parse(&self.partial)?;
            let lacking = wire::lacking(&self.partial).min(input.len());
            let (now, rest) = input.split_at_checked(lacking).unwrap_or_default();
            if now.is_empty() {
                break Ok(self.partial.len() - before);
            }
            self.partial.extend_from_slice(now);
            input = rest;
        }
    }

    /// Queues an answer; gives its bytes.
    pub(crate) fn answer(&mut self, kind: u32, request: &MessageHeader, payload: &[u8]) -> usize {
        wire::append(&mut self.out, kind, request, payload);
        self.waiting.push_back((HEADER_BYTES + payload.len(), Waiting::Answer));
        HEADER_BYTES + payload.len()
    }

    /// Whether just that event waits already.
    pub(crate) fn has_event(&self, payload: &[u8]) -> bool {
        self.events.contains(payload)
    }

    /// Queues an event; gives its bytes.
    pub(crate) fn event(&mut self, payload: &[u8], cause: Option<Cause>) -> usize {
        wire::append(&mut self.out, abi::XS_WATCH_EVENT, &MessageHeader::default(), payload);
        let payload: Rc<[u8]> = payload.into();
        self.events.insert(payload.clone());
        let bytes = HEADER_BYTES + payload.len();
        self.waiting.push_back((bytes, Waiting::Event(payload, cause)));
        bytes
    }

    /// Queues what a state says that waited: the rest of a message that was begun, and whole ones. Gives how many are answers.
    pub(crate) fn restore_output(&mut self, rest: usize, bytes: &[u8]) -> usize {
        let (begun, mut whole) = bytes.split_at_checked(rest).unwrap_or_default();
        if !begun.is_empty() {
            self.out.extend_from_slice(begun);
            self.waiting.push_back((begun.len(), Waiting::Answer));
            self.rest = true;
        }
        let mut answers = usize::from(!begun.is_empty());
        while let Ok(Some(message)) = Message::parse(whole) {
            if message.header.kind == abi::XS_WATCH_EVENT {
                self.event(message.payload, None);
            } else {
                self.answer(message.header.kind, &message.header, message.payload);
                answers += 1;
            }
            whole = whole.get(message.bytes()..).unwrap_or_default();
        }
        answers
    }

    /// The bytes that wait.
    pub(crate) fn transmit(&self) -> &[u8] {
        self.out.get(self.sent..).unwrap_or_default()
    }

    /// Bytes of the messages that wait, whole ones.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.out.len() - self.begin
    }

    /// Bytes at the beginning of [`transmit`](Self::transmit) that are the rest of a message which was begun.
    pub(crate) fn begun(&self) -> usize {
        let end = self.waiting.front().map_or(self.begin, |(bytes, _)| self.begin + bytes);
        if self.rest || self.sent > self.begin { end.saturating_sub(self.sent) } else { 0 }
    }

    /// So many bytes are gone; tells `gone` of each message that is gone with them.
    pub(crate) fn transmitted(&mut self, count: usize, mut gone: impl FnMut(Gone)) {
        let count = count.min(self.out.len() - self.sent);
        self.sent += count;
        self.gone = self.gone.wrapping_add(count as u32);
        while let Some((bytes, waiting)) = self.waiting.pop_front_if(|(bytes, _)| self.begin + *bytes <= self.sent) {
            self.begin += bytes;
            self.rest = false;
            let cause = match &waiting {
                Waiting::Answer => None,
                Waiting::Event(payload, cause) => {
                    self.events.remove(payload);
                    *cause
                }
            };
            gone(Gone { bytes, answer: matches!(waiting, Waiting::Answer), cause });
        }
        if self.begin == self.out.len() {
            self.out.clear();
            self.out.shrink_to(IDLE_ROOM);
        } else if self.begin > self.out.len() / 2 {
            self.out.drain(..self.begin);
        } else {
            return;
        }
        self.sent -= self.begin;
        self.begin = 0;
    }

    /// An identifier for a new transaction: the next one that is free.
    pub(crate) fn next_transaction(&mut self) -> u32 {
        while self.next_transaction == 0 || self.transactions.contains_key(&self.next_transaction) {
            self.next_transaction = self.next_transaction.wrapping_add(1);
        }
        let id = self.next_transaction;
        self.next_transaction = id.wrapping_add(1);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gone(connection: &mut Connection, count: usize) -> Vec<Gone> {
        let mut all = Vec::new();
        connection.transmitted(count, |gone| all.push(gone));
        all
    }

    #[test]
    fn requests_come_in_pieces() {
        let mut connection = Connection::new(DomainId(1));
        let header = MessageHeader { kind: abi::XS_READ, len: 3, ..MessageHeader::default() };
        let mut bytes = Vec::new();
        wire::append(&mut bytes, abi::XS_READ, &header, b"/a\0");
        bytes.extend_from_slice(b"next");
        for end in 0..19 {
            assert_eq!(connection.take_in(&bytes[end..=end]), Ok(1));
        }
        assert_eq!(connection.take_in(&bytes[19..]), Ok(0));
        assert_eq!(Message::parse(&connection.partial).unwrap().unwrap().payload, b"/a\0");
    }

    #[test]
    fn a_long_request_is_known_by_its_header() {
        let mut connection = Connection::new(DomainId(1));
        let header = MessageHeader { len: 4097, ..MessageHeader::default() };
        assert_eq!(connection.take_in(zerocopy::IntoBytes::as_bytes(&header)), Err(ProtocolError { length: 4097 }));
    }

    #[test]
    fn messages_go_out_in_pieces() {
        let mut connection = Connection::new(DomainId(1));
        connection.answer(abi::XS_READ, &MessageHeader::default(), b"value");
        connection.event(b"/a\0t\0", None);
        assert!(connection.has_event(b"/a\0t\0"));
        assert_eq!((connection.transmit().len(), connection.begun()), (21 + 21, 0));
        assert_eq!(gone(&mut connection, 20), []);
        assert_eq!(connection.begun(), 1);
        let answer = Gone { bytes: 21, answer: true, cause: None };
        assert_eq!(gone(&mut connection, 2), [answer]);
        assert_eq!((connection.transmit().len(), connection.begun()), (20, 20));
        assert_eq!(gone(&mut connection, 20), [Gone { answer: false, ..answer }]);
        assert!(connection.transmit().is_empty() && !connection.has_event(b"/a\0t\0"));
    }

    #[test]
    fn what_waited_is_restored() {
        let mut old = Connection::new(DomainId(1));
        old.answer(abi::XS_READ, &MessageHeader::default(), b"value");
        old.event(b"/a\0t\0", None);
        old.transmitted(18, |_| ());
        let mut new = Connection::new(DomainId(1));
        assert_eq!(new.restore_output(old.begun(), old.transmit()), 1);
        assert_eq!((new.transmit(), new.begun()), (old.transmit(), 3));
        assert!(new.has_event(b"/a\0t\0"));
        assert_eq!(gone(&mut new, 3).len(), 1);
        assert_eq!(new.begun(), 0);
    }
}
