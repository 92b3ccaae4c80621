//! A raw hand on the domain's own xenstore ring: whole requests, and any bytes and words.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::sync::atomic::Ordering;

use runtime::events::Channel;
use runtime::select::select;
use runtime::signal::Signal;
use runtime::store::{self, ConnectError, StorePage};
use split_driver::byte_ring::{ByteConsumer, ByteLayout, ByteProducer};
use split_driver::memory::SharedMemory;
use xen_pv_sys::io::xs_wire::{MessageHeader, XS_WATCH_EVENT};
use zerocopy::{FromBytes, IntoBytes};

/// The ring; clones are the same one.
#[derive(Clone)]
pub(crate) struct Ring(Rc<Inner>);

struct Inner {
    page: StorePage,
    channel: Channel,
    requests: RefCell<ByteProducer>,
    answers: RefCell<ByteConsumer>,
    received: RefCell<Vec<u8>>,
    messages: RefCell<Vec<(MessageHeader, Vec<u8>)>>,
    /// Answers among all messages so far.
    answered: Cell<u32>,
    /// It reads nothing.
    deaf: Cell<bool>,
    /// Something came, or there may be room.
    news: Signal,
    /// It is not deaf any more.
    kick: Signal,
}

impl Ring {
    /// The one of this domain; a task reads what comes.
    pub(crate) fn attach() -> Result<Self, ConnectError> {
        let (page, channel) = store::attach()?;
        let ring = Self(Rc::new(Inner {
            requests: RefCell::new(ByteProducer::attach(ByteLayout::STORE_REQUESTS, page.words())),
            answers: RefCell::new(ByteConsumer::attach(ByteLayout::STORE_RESPONSES, page.words())),
            page,
            channel,
            received: RefCell::default(),
            messages: RefCell::default(),
            answered: Cell::new(0),
            deaf: Cell::new(false),
            news: Signal::new(),
            kick: Signal::new(),
        }));
        runtime::spawn(ring.clone().run());
        Ok(ring)
    }

    async fn run(self) {
        loop {
            self.read();
            self.0.news.set();
            select(self.0.channel.wait(), self.0.kick.wait()).await;
        }
    }

    /// Reads what is there.
    fn read(&self) {
        let mut bytes = [0; 1024];
        let mut received = self.0.received.borrow_mut();
        while !self.0.deaf.get()
            && let Ok(count @ 1..) = self.0.answers.borrow_mut().read(self.0.page.words(), &mut bytes)
        {
            received.extend_from_slice(bytes.get(..count).unwrap_or_default());
            self.0.channel.notify();
        }
        while let Ok((header, rest)) = MessageHeader::read_from_prefix(&received)
            && let Some(payload) = rest.get(..header.len as usize)
        {
            let (payload, end) = (payload.to_vec(), size_of::<MessageHeader>() + header.len as usize);
            received.drain(..end);
            self.0.answered.set(self.0.answered.get() + u32::from(header.kind != XS_WATCH_EVENT));
            self.0.messages.borrow_mut().push((header, payload));
        }
    }

    /// All messages since the last call.
    pub(crate) fn take_messages(&self) -> Vec<(MessageHeader, Vec<u8>)> {
        self.0.messages.take()
    }

    /// Answers so far.
    pub(crate) fn answered(&self) -> u32 {
        self.0.answered.get()
    }

    /// Reads nothing from now on, or all again.
    pub(crate) fn set_deaf(&self, deaf: bool) {
        self.0.deaf.set(deaf);
        self.0.kick.set();
    }

    /// Writes as many of the bytes as fit now, and tells the store; how many.
    pub(crate) fn write_some(&self, bytes: &[u8]) -> usize {
        let written = self.0.requests.borrow_mut().write(self.0.page.words(), bytes).unwrap_or(0);
        if written > 0 {
            self.0.channel.notify();
        }
        written
    }

    /// Writes all of them.
    pub(crate) async fn write(&self, mut bytes: &[u8]) {
        loop {
            let written = self.write_some(bytes);
            bytes = bytes.get(written..).unwrap_or_default();
            if bytes.is_empty() {
                return;
            }
            self.0.news.wait().await;
        }
    }

    /// Waits until something came.
    pub(crate) async fn news(&self) {
        self.0.news.wait().await;
    }

    /// Raises an event that need not mean anything.
    pub(crate) fn notify(&self) {
        self.0.channel.notify();
    }

    /// A word of the page, by its offset in bytes.
    pub(crate) fn word(&self, offset: usize) -> u32 {
        self.0.page.words().get(offset / 4).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Sets one.
    pub(crate) fn set_word(&self, offset: usize, value: u32) {
        if let Some(word) = self.0.page.words().get(offset / 4) {
            word.store(value, Ordering::Release);
        }
    }

    /// Takes both indices from the page again, as where the connection has begun anew.
    pub(crate) fn begin_anew(&self) {
        let words = self.0.page.words();
        self.0.requests.replace(ByteProducer::attach(ByteLayout::STORE_REQUESTS, words));
        self.0.answers.replace(ByteConsumer::attach(ByteLayout::STORE_RESPONSES, words));
        self.0.received.take();
        self.0.messages.take();
    }
}

/// A request's bytes, its length as it is.
pub(crate) fn request(kind: u32, req_id: u32, tx_id: u32, payload: &[u8]) -> Vec<u8> {
    raw(MessageHeader { kind, req_id, tx_id, len: payload.len() as u32 }, payload)
}

/// The bytes of a header and of what follows, whether or not they agree.
pub(crate) fn raw(header: MessageHeader, payload: &[u8]) -> Vec<u8> {
    [header.as_bytes(), payload].concat()
}
