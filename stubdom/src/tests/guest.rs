//! A guest's end of its ring: bytes as the test wants them. Floor 3, host only.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::sync::atomic::Ordering;

use split_driver::byte_ring::{ByteConsumer, ByteLayout, ByteProducer};
use split_driver::fakes::{FakeDomain, FakeXen, GuestMemory};
use split_driver::memory::SharedMemory;
use xen_pv_sys::grant_table::GNTTAB_RESERVED_XENSTORE;
use xen_pv_sys::{DomainId, Port};

/// `XS_WATCH_EVENT`.
const WATCH_EVENT: u32 = 15;

/// A guest; clones are the same one.
#[derive(Clone)]
pub(super) struct Guest {
    pub(super) domain: FakeDomain,
    pub(super) port: Port,
    page: GuestMemory,
    inner: Rc<RefCell<Inner>>,
}

struct Inner {
    requests: ByteProducer,
    answers: ByteConsumer,
    received: Vec<u8>,
    messages: VecDeque<(u32, Vec<u8>)>,
}

impl Guest {
    pub(super) fn new(xen: &FakeXen, id: DomainId) -> Self {
        let domain = xen.domain(id);
        let page = domain.pages(1);
        // The console's, then the store's.
        domain.grant(&domain.pages(1), 0, true);
        assert_eq!(domain.grant(&page, 0, true), GNTTAB_RESERVED_XENSTORE);
        let port = domain.allocate_port();
        let inner = Inner {
            requests: ByteProducer::attach(ByteLayout::STORE_REQUESTS, page.words()),
            answers: ByteConsumer::attach(ByteLayout::STORE_RESPONSES, page.words()),
            received: Vec::new(),
            messages: VecDeque::new(),
        };
        Self { domain, port, page, inner: Rc::new(RefCell::new(inner)) }
    }

    /// Writes raw bytes, as many as fit, and tells the store.
    pub(super) fn write(&self, bytes: &[u8]) -> usize {
        let written = self.inner.borrow_mut().requests.write(self.page.words(), bytes).expect("the store's index");
        self.notify();
        written
    }

    pub(super) fn notify(&self) {
        self.domain.notify(self.port);
    }

    /// A whole request.
    pub(super) fn send(&self, kind: u32, payload: &[u8]) {
        self.send_in(0, kind, payload);
    }

    /// A whole request in a transaction.
    pub(super) fn send_in(&self, transaction: u32, kind: u32, payload: &[u8]) {
        let message = message_in(transaction, kind, payload);
        assert_eq!(self.write(&message), message.len(), "the request fits");
    }

    /// Reads what is there and tells the store.
    pub(super) fn receive(&self) -> Vec<(u32, Vec<u8>)> {
        self.read();
        self.inner.borrow_mut().messages.drain(..).collect()
    }

    /// The next message that is no watch event.
    pub(super) fn answer(&self) -> Option<(u32, Vec<u8>)> {
        self.read();
        let messages = &mut self.inner.borrow_mut().messages;
        let place = messages.iter().position(|(kind, _)| *kind != WATCH_EVENT)?;
        messages.remove(place)
    }

    /// The watch events so far, as `path token`.
    pub(super) fn events(&self) -> Vec<alloc::string::String> {
        let events = self.receive().into_iter().filter(|(kind, _)| *kind == WATCH_EVENT);
        events
            .map(|(_, payload)| {
                let text = alloc::string::String::from_utf8(payload).expect("text");
                text.trim_end_matches('\0').replace('\0', " ")
            })
            .collect()
    }

    fn read(&self) {
        let inner = &mut *self.inner.borrow_mut();
        let mut bytes = [0; 1024];
        while let Ok(count @ 1..) = inner.answers.read(self.page.words(), &mut bytes) {
            inner.received.extend_from_slice(&bytes[..count]);
            self.notify();
        }
        while let Some(header) = inner.received.first_chunk::<16>() {
            let word = |index: usize| u32::from_le_bytes(*header[4 * index..].first_chunk().expect("four bytes"));
            let (kind, end) = (word(0), 16 + word(3) as usize);
            if inner.received.len() < end {
                break;
            }
            inner.messages.push_back((kind, inner.received[16..end].to_vec()));
            inner.received.drain(..end);
        }
    }

    /// A word of the page at a byte offset.
    pub(super) fn word(&self, offset: usize) -> u32 {
        self.page.words()[offset / 4].load(Ordering::Relaxed)
    }

    /// Sets one.
    pub(super) fn set_word(&self, offset: usize, value: u32) {
        self.page.words()[offset / 4].store(value, Ordering::Relaxed);
    }

    /// Takes both indices from the page again, as after a connection that began anew.
    pub(super) fn attach(&self) {
        let inner = &mut *self.inner.borrow_mut();
        inner.requests = ByteProducer::attach(ByteLayout::STORE_REQUESTS, self.page.words());
        inner.answers = ByteConsumer::attach(ByteLayout::STORE_RESPONSES, self.page.words());
        inner.received.clear();
        inner.messages.clear();
    }

    /// What the store has left to be read.
    pub(super) fn waiting(&self) -> usize {
        self.inner.borrow().answers.waiting(self.page.words()).expect("the store's index")
    }
}

/// A message outside of transactions.
pub(super) fn message(kind: u32, payload: &[u8]) -> Vec<u8> {
    message_in(0, kind, payload)
}

fn message_in(transaction: u32, kind: u32, payload: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    for word in [kind, 7, transaction, payload.len() as u32] {
        message.extend_from_slice(&word.to_le_bytes());
    }
    message.extend_from_slice(payload);
    message
}
