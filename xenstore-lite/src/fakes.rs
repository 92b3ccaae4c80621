//! A machine, and the client's end of the wire, for tests, fuzzers and benchmarks on a host. Floor 1.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use xen_pv_sys::io::xs_wire::MessageHeader;
use xen_pv_sys::{DomainId, Port};

use crate::wire::{self, Message};
use crate::{ConnectionId, Error, Host, Store};

/// A machine that knows which domains there are, and does nothing.
#[derive(Clone, Debug, Default)]
pub struct FakeHost {
    /// Its domains, by a number of their own.
    pub domains: BTreeMap<DomainId, u64>,
    /// Rings that were mapped, or mapped anew, and unmapped.
    pub calls: Vec<Call>,
}

/// What the store asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// [`Host::introduce`].
    Introduce(DomainId, Port),
    /// [`Host::release`].
    Release(DomainId),
}

impl Host for FakeHost {
    fn introduce(&mut self, domain: DomainId, port: Port) -> Result<(), Error> {
        self.calls.push(Call::Introduce(domain, port));
        if self.domains.contains_key(&domain) { Ok(()) } else { Err(Error::EINVAL) }
    }

    fn release(&mut self, domain: DomainId) {
        self.calls.push(Call::Release(domain));
    }

    fn domain(&mut self, domain: DomainId) -> Option<u64> {
        self.domains.get(&domain).copied()
    }

    fn control(&mut self, words: &mut dyn Iterator<Item = &[u8]>, reply: &mut Vec<u8>) -> Option<Result<(), Error>> {
        (words.next()? == b"echo").then(|| {
            words.for_each(|word| reply.extend_from_slice(&[word, b"|"].concat()));
            Ok(())
        })
    }
}

/// A message that a client heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// `XS_*`.
    pub kind: u32,
    /// The transaction.
    pub transaction: u32,
    /// What it says.
    pub payload: Vec<u8>,
}

impl Heard {
    /// What it says, readably: zero bytes as bars.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.payload).replace('\0', "|")
    }
}

/// A request's bytes.
pub fn request(kind: u32, transaction: u32, payload: &[u8]) -> Vec<u8> {
    wire::message(kind, &MessageHeader { tx_id: transaction, ..MessageHeader::default() }, &[payload])
}

/// The message that these bytes are.
pub fn message(bytes: &[u8]) -> Option<Heard> {
    let Message { header, payload } = Message::parse(bytes).ok()??;
    Some(Heard { kind: header.kind, transaction: header.tx_id, payload: payload.into() })
}

/// Fetches all messages that wait for a connection.
pub fn fetch(store: &mut Store, id: ConnectionId) -> Vec<Heard> {
    let mut heard = Vec::new();
    while let Ok(Some(message)) = Message::parse(store.poll_transmit(id)) {
        let Message { header, payload } = message;
        heard.push(Heard { kind: header.kind, transaction: header.tx_id, payload: payload.into() });
        let count = message.bytes();
        store.transmitted(id, count);
    }
    heard
}
