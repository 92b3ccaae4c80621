//! The store's end of the page that it shares with a domain (`struct xenstore_domain_interface`, `io/xs_wire.h`). Pure. Floor 3.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering};

use split_driver::byte_ring::{ByteConsumer, ByteLayout, ByteProducer};
use split_driver::memory::SharedMemory;
use split_driver::ring::RingError;
use xen_pv_sys::Port;
use xen_pv_sys::io::xs_wire::{
    DomainInterface, XENSTORE_CONNECTED, XENSTORE_ERROR_COMM, XENSTORE_ERROR_NONE, XENSTORE_ERROR_PROTO,
    XENSTORE_ERROR_RINGIDX, XENSTORE_RECONNECT,
};

/// Why a connection is not served any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Its event channel cannot be bound.
    Channel,
    /// An index lies outside of the ring.
    Index,
    /// A message is longer than messages may be.
    Message,
    /// Requests that the store fails with.
    Poison,
    /// Memory ran out, and it had taken most.
    Hoard,
}

impl Fault {
    const fn code(self) -> u32 {
        match self {
            Self::Channel | Self::Hoard => XENSTORE_ERROR_COMM,
            Self::Index => XENSTORE_ERROR_RINGIDX,
            Self::Message | Self::Poison => XENSTORE_ERROR_PROTO,
        }
    }
}

impl core::fmt::Display for Fault {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(match self {
            Self::Channel => "its event channel cannot be bound",
            Self::Index => "an index lies outside of its ring",
            Self::Message => "a message is longer than messages may be",
            Self::Poison => "the store failed with its requests",
            Self::Hoard => "memory ran out, and it had taken most",
        })
    }
}

impl From<RingError> for Fault {
    fn from(_: RingError) -> Self {
        Self::Index
    }
}

/// The page, mapped. The two indices that are ours are kept here and never believed from the page.
#[derive(Debug)]
pub(crate) struct Page<M> {
    memory: M,
    requests: ByteConsumer,
    answers: ByteProducer,
}

impl<M: SharedMemory> Page<M> {
    /// Goes on where the page says that the store has come to.
    pub(crate) fn attach(memory: M) -> Self {
        let words = memory.words();
        let requests = ByteConsumer::attach(ByteLayout::STORE_REQUESTS, words);
        let answers = ByteProducer::attach(ByteLayout::STORE_RESPONSES, words);
        Self { memory, requests, answers }
    }

    /// Goes on where an earlier life had come to, whatever the page says of that.
    pub(crate) fn resume(memory: M, requests: u32, answers: u32) -> Self {
        let words = memory.words();
        let requests = ByteConsumer::resume(ByteLayout::STORE_REQUESTS, words, requests);
        let answers = ByteProducer::resume(ByteLayout::STORE_RESPONSES, words, answers);
        Self { memory, requests, answers }
    }

    /// What it is mapped by.
    pub(crate) const fn memory(&self) -> &M {
        &self.memory
    }

    /// The indices that are ours: of requests and of answers.
    pub(crate) const fn positions(&self) -> (u32, u32) {
        (self.requests.position(), self.answers.position())
    }

    /// Bytes of answers that fit.
    pub(crate) fn room(&self) -> Result<usize, RingError> {
        self.answers.free(self.memory.words())
    }

    /// Empties both streams and takes back what was said of a fault.
    pub(crate) fn restart(&mut self) {
        let words = self.memory.words();
        for layout in [ByteLayout::STORE_REQUESTS, ByteLayout::STORE_RESPONSES] {
            layout.clear(words);
        }
        self.requests = ByteConsumer::attach(ByteLayout::STORE_REQUESTS, words);
        self.answers = ByteProducer::attach(ByteLayout::STORE_RESPONSES, words);
        self.set(offset_of!(DomainInterface, error), XENSTORE_ERROR_NONE);
    }

    /// Says what the store can do.
    pub(crate) fn offer(&self, features: u32) {
        self.set(offset_of!(DomainInterface, server_features), features);
    }

    /// Whether the domain asks for a connection that has not begun.
    pub(crate) fn asks_to_restart(&self) -> bool {
        self.get(offset_of!(DomainInterface, connection)) == XENSTORE_RECONNECT
    }

    /// Says that the connection stands.
    pub(crate) fn set_connected(&self) {
        self.set(offset_of!(DomainInterface, connection), XENSTORE_CONNECTED);
    }

    /// Says why the connection is not served any more.
    pub(crate) fn set_fault(&self, fault: Fault) {
        self.set(offset_of!(DomainInterface, error), fault.code());
    }

    /// The domain's end of the event channel, where Xen made it at the domain's creation.
    pub(crate) fn named_port(&self) -> Option<Port> {
        Some(Port(self.get(offset_of!(DomainInterface, evtchn_port)))).filter(|port| port.0 != 0)
    }

    /// Copies out what waits of requests, and leaves it there.
    pub(crate) fn peek(&self, into: &mut [u8]) -> Result<usize, RingError> {
        self.requests.peek(self.memory.words(), into)
    }

    /// Whether any byte of a request waits.
    pub(crate) fn has_requests(&self) -> Result<bool, RingError> {
        Ok(self.requests.waiting(self.memory.words())? > 0)
    }

    /// Passes so many bytes of requests.
    pub(crate) fn take(&mut self, count: usize) {
        self.requests.advance(self.memory.words(), count);
    }

    /// Writes as much of the answers as fits; how much.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<usize, RingError> {
        self.answers.write(self.memory.words(), bytes)
    }

    fn word(&self, offset: usize) -> Option<&AtomicU32> {
        self.memory.words().get(offset / size_of::<u32>())
    }

    fn get(&self, offset: usize) -> u32 {
        self.word(offset).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn set(&self, offset: usize, value: u32) {
        if let Some(word) = self.word(offset) {
            word.store(value, Ordering::Release);
        }
    }
}
