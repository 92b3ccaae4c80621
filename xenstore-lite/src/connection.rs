//! A connection: what came in of a request, what waits to go out, its transactions, its watches. Pure. Floor 1.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;

use xen_pv_sys::io::xs_wire::{self as abi, MessageHeader};
use xen_pv_sys::{DomainId, Port};

use crate::path_map::PathMap;
use crate::transaction::Transaction;
use crate::wire::{self, Message, ProtocolError};
use crate::{ConnectionId, Map, charge};

/// A request whose events have not all been fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cause {
    pub(crate) connection: ConnectionId,
    pub(crate) serial: u64,
}

/// A message that waits to go out.
#[derive(Clone, Debug)]
struct Waiting {
    /// The whole message, shared with [`Connection::events`].
    bytes: Rc<[u8]>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Answer,
    Event(Option<Cause>),
}

impl Waiting {
    /// Bytes that it counts in its domain's memory.
    fn charge(&self) -> usize {
        match self.kind {
            Kind::Answer => charge::answer(self.bytes.len()),
            Kind::Event(_) => charge::event(self.bytes.len()),
        }
    }
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
    /// The first message that waits, of which the bytes before `sent` are gone. Most connections never have a second one.
    first: Option<Waiting>,
    sent: usize,
    /// The first is the rest of one that a store before this one had begun.
    rest: bool,
    /// The others by number. A clone of the connection shares them, so that one more costs no copy of those that wait.
    others: Map<u64, Waiting>,
    next_number: u64,
    /// Bytes of all messages that wait, whole ones.
    bytes: usize,
    /// What all messages that wait count in the domain's memory.
    charged: usize,
    /// The events that wait, as whole messages.
    events: PathMap<()>,
    pub(crate) transactions: Map<u32, Transaction>,
    next_transaction: u32,
    /// Paths of its watches, by serial number.
    pub(crate) watches: Map<u64, Rc<[u8]>>,
    /// How many of them have missed something.
    pub(crate) missed: usize,
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
            first: None,
            sent: 0,
            rest: false,
            others: Map::default(),
            next_number: 0,
            bytes: 0,
            charged: 0,
            events: PathMap::default(),
            transactions: Map::default(),
            next_transaction: 0,
            watches: Map::default(),
            missed: 0,
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
            let lacking_in_all = wire::lacking(&self.partial);
            let lacking = lacking_in_all.min(input.len());
            let (now, rest) = input.split_at_checked(lacking).unwrap_or_default();
            if now.is_empty() {
                break Ok(self.partial.len() - before);
            }
            // All that the message still lacks, so that it takes what it is counted at.
            self.partial.reserve_exact(lacking_in_all);
            self.partial.extend_from_slice(now);
            input = rest;
        }
    }

    fn queue(&mut self, bytes: Rc<[u8]>, kind: Kind) -> usize {
        let waiting = Waiting { bytes, kind };
        let charge = waiting.charge();
        self.bytes += waiting.bytes.len();
        self.charged += charge;
        if self.first.is_none() {
            self.first = Some(waiting);
        } else {
            self.others.insert(self.next_number, waiting);
            self.next_number += 1;
        }
        charge
    }

    /// What the beginning of a request counts in the domain's memory.
    pub(crate) fn charged_input(&self) -> usize {
        let partial = &self.partial;
        charge::input(if partial.is_empty() { 0 } else { partial.len() + wire::lacking(partial) })
    }

    /// Queues an answer; gives what it counts in the domain's memory.
    pub(crate) fn answer(&mut self, kind: u32, request: &MessageHeader, payload: &[u8]) -> usize {
        self.queue(wire::message(kind, request, &[payload]).into(), Kind::Answer)
    }

    /// Whether just that event waits already; `message` is the whole of it.
    pub(crate) fn has_event(&self, message: &[u8]) -> bool {
        self.events.get(message).is_some()
    }

    /// Queues an event, a whole message; gives what it counts in the domain's memory.
    pub(crate) fn event(&mut self, message: &[u8], cause: Option<Cause>) -> usize {
        let bytes: Rc<[u8]> = message.into();
        self.events.insert(bytes.clone(), ());
        self.queue(bytes, Kind::Event(cause))
    }

    /// Queues what a state says that waited: the rest of a message that was begun, and whole ones. Gives how many are answers.
    pub(crate) fn restore_output(&mut self, rest: usize, bytes: &[u8]) -> usize {
        let (begun, mut whole) = bytes.split_at_checked(rest).unwrap_or_default();
        if !begun.is_empty() {
            self.queue(begun.into(), Kind::Answer);
            self.rest = true;
        }
        let mut answers = usize::from(!begun.is_empty());
        while let Ok(Some(message)) = Message::parse(whole) {
            if message.header.kind == abi::XS_WATCH_EVENT {
                self.event(whole.get(..message.bytes()).unwrap_or_default(), None);
            } else {
                self.answer(message.header.kind, &message.header, message.payload);
                answers += 1;
            }
            whole = whole.get(message.bytes()..).unwrap_or_default();
        }
        answers
    }

    /// What is left of the first message that waits.
    pub(crate) fn transmit(&self) -> &[u8] {
        self.first.as_ref().and_then(|first| first.bytes.get(self.sent..)).unwrap_or_default()
    }

    /// All bytes that wait, in pieces.
    pub(crate) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        core::iter::once(self.transmit()).chain(self.others.values().map(|waiting| &*waiting.bytes))
    }

    /// How many bytes wait.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.bytes - self.sent
    }

    /// What the messages that wait count in the domain's memory.
    pub(crate) fn charged(&self) -> usize {
        self.charged
    }

    /// Bytes of the first message that waits, where a part of it is gone.
    pub(crate) fn begun(&self) -> usize {
        if self.rest || self.sent > 0 { self.transmit().len() } else { 0 }
    }

    /// So many bytes are gone; tells `gone` of each message that is gone with them.
    pub(crate) fn transmitted(&mut self, count: usize, mut gone: impl FnMut(Gone)) {
        let count = count.min(self.waiting_bytes());
        self.sent += count;
        self.gone = self.gone.wrapping_add(count as u32);
        while let Some(first) = self.first.take_if(|first| first.bytes.len() <= self.sent) {
            let charge = first.charge();
            self.sent -= first.bytes.len();
            self.bytes -= first.bytes.len();
            self.charged -= charge;
            self.rest = false;
            self.first = self.others.pop_first();
            let cause = match first.kind {
                Kind::Answer => None,
                Kind::Event(cause) => {
                    self.events.remove(&first.bytes);
                    cause
                }
            };
            gone(Gone { bytes: charge, answer: first.kind == Kind::Answer, cause });
        }
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

    fn event(payload: &[u8]) -> Vec<u8> {
        wire::message(abi::XS_WATCH_EVENT, &MessageHeader::default(), &[payload])
    }

    fn gone(connection: &mut Connection, count: usize) -> Vec<Gone> {
        let mut all = Vec::new();
        connection.transmitted(count, |gone| all.push(gone));
        all
    }

    #[test]
    fn requests_come_in_pieces() {
        let mut connection = Connection::new(DomainId(1));
        let header = MessageHeader { kind: abi::XS_READ, len: 3, ..MessageHeader::default() };
        let mut bytes = wire::message(abi::XS_READ, &header, &[b"/a\0"]);
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
        let event = event(b"/a\0t\0");
        connection.answer(abi::XS_READ, &MessageHeader::default(), b"value");
        connection.event(&event, None);
        assert!(connection.has_event(&event));
        assert_eq!((connection.transmit().len(), connection.waiting_bytes(), connection.begun()), (21, 21 + 21, 0));
        assert_eq!(gone(&mut connection, 20), []);
        assert_eq!(connection.begun(), 1);
        let answer = Gone { bytes: charge::answer(21), answer: true, cause: None };
        assert_eq!(gone(&mut connection, 2), [answer]);
        assert_eq!((connection.transmit().len(), connection.begun()), (20, 20));
        assert_eq!(gone(&mut connection, 20), [Gone { answer: false, bytes: charge::event(21), ..answer }]);
        assert!(connection.transmit().is_empty() && !connection.has_event(&event));
        assert_eq!((connection.waiting_bytes(), connection.charged()), (0, 0));
    }

    #[test]
    fn what_waited_is_restored() {
        let mut old = Connection::new(DomainId(1));
        old.answer(abi::XS_READ, &MessageHeader::default(), b"value");
        old.event(&event(b"/a\0t\0"), None);
        old.transmitted(18, |_| ());
        let waiting = old.pieces().collect::<Vec<_>>().concat();
        let mut new = Connection::new(DomainId(1));
        assert_eq!(new.restore_output(old.begun(), &waiting), 1);
        assert_eq!((new.pieces().collect::<Vec<_>>().concat(), new.begun()), (waiting, 3));
        assert!(new.has_event(&event(b"/a\0t\0")));
        assert_eq!(gone(&mut new, 3).len(), 1);
        assert_eq!(new.begun(), 0);
    }
}
