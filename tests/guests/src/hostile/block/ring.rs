//! A frontend's end of a block ring of several pages, open to any misuse: no index is believed, none is kept from being overwritten.

use crate::error::{Error, Result};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering, fence};
use runtime::memory::Page;
use split_driver::memory::SharedMemory;
use split_driver::ring::slots_in;
use xen_pv_sys::PAGE_SIZE;
use xen_pv_sys::io::blkif::{Request, Response, x86_32};
use xen_pv_sys::io::ring::{RING_HEADER_SIZE, SharedRingHead};
use zerocopy::{FromZeros, IntoBytes};

const REQUEST_PRODUCER: usize = offset_of!(SharedRingHead, req_prod) / 4;
const RESPONSE_PRODUCER: usize = offset_of!(SharedRingHead, rsp_prod) / 4;
const RESPONSE_EVENT: usize = offset_of!(SharedRingHead, rsp_event) / 4;
/// Where every kind of request has its identifier, as a 64-bit frontend lays it out.
const IDENTIFIER: usize = offset_of!(Request, id) / 4;
/// The word before it, which a 32-bit frontend does not have. Up to there, and from there on, requests of each kind and responses are
/// the same for both.
const PADDING: usize = IDENTIFIER - 1;
const _: () = assert!(offset_of!(x86_32::Request, id) == PADDING * 4);

/// The ring.
pub(crate) struct Ring {
    /// As a 32-bit frontend lays it out (`x86_32-abi`).
    narrow: bool,
    pub(crate) pages: Vec<Rc<Page>>,
    pub(crate) slots: u32,
    pub(crate) produced: u32,
    pub(crate) consumed: u32,
}

impl Ring {
    pub(crate) fn new(pages: usize, narrow: bool) -> Result<Self> {
        let slots = slots_in(pages * PAGE_SIZE, slot_size(narrow));
        let pages = (0..pages).map(|_| Ok(Rc::new(Page::new()?))).collect::<Result<_>>()?;
        let ring = Self { narrow, pages, slots, produced: 0, consumed: 0 };
        ring.store(RESPONSE_EVENT, 1);
        Ok(ring)
    }

    /// Words of all pages.
    pub(crate) fn words(&self) -> usize {
        self.pages.len() * PAGE_SIZE / 4
    }

    /// Any word, index or slot.
    pub(crate) fn word(&self, index: usize) -> Option<&AtomicU32> {
        self.pages.get(index * 4 / PAGE_SIZE)?.words().get(index % (PAGE_SIZE / 4))
    }

    fn load(&self, index: usize) -> u32 {
        self.word(index).map_or(0, |word| word.load(Ordering::SeqCst))
    }

    /// Writes any word, index or slot.
    pub(crate) fn store(&self, index: usize, value: u32) {
        if let Some(word) = self.word(index) {
            word.store(value, Ordering::SeqCst);
        }
    }

    /// The first word of a slot.
    pub(crate) fn slot(&self, index: u32) -> usize {
        (RING_HEADER_SIZE + (index % self.slots) as usize * slot_size(self.narrow)) / 4
    }

    /// Places a request of any kind (as a 64-bit frontend lays it out), whose identifier becomes the index it has on this ring; gives
    /// that.
    pub(crate) fn push(&mut self, request: &[u8]) -> Result<u32> {
        if self.free() == 0 {
            return Err(Error::Wrong("the ring is full"));
        }
        let (first, index) = (self.slot(self.produced), self.produced);
        let words = request.as_chunks().0.iter().map(|bytes| u32::from_ne_bytes(*bytes));
        let there = words.enumerate().filter(|(offset, _)| !self.narrow || *offset != PADDING);
        for (offset, (_, word)) in there.enumerate() {
            self.store(first + offset, word);
        }
        let identifier = first + if self.narrow { PADDING } else { IDENTIFIER };
        self.store(identifier, index);
        self.store(identifier + 1, 0);
        self.produced = self.produced.wrapping_add(1);
        Ok(index)
    }

    pub(crate) fn free(&self) -> u32 {
        self.slots - self.produced.wrapping_sub(self.consumed)
    }

    pub(crate) fn publish(&self) {
        self.claim(self.produced);
    }

    /// Publishes that index, whatever was placed.
    pub(crate) fn claim(&self, producer: u32) {
        self.store(REQUEST_PRODUCER, producer);
        fence(Ordering::SeqCst);
    }

    /// How far the backend is with its answers.
    pub(crate) fn answered(&self) -> Result<u32> {
        let answered = self.load(RESPONSE_PRODUCER);
        if answered.wrapping_sub(self.consumed) > self.produced.wrapping_sub(self.consumed) {
            return Err(Error::Wrong("the backend answered what was not asked"));
        }
        Ok(answered)
    }

    /// Takes a response; where there is none, the next one will bring an event.
    pub(crate) fn take(&mut self) -> Result<Option<Response>> {
        if self.answered()? == self.consumed {
            self.store(RESPONSE_EVENT, self.consumed.wrapping_add(1));
            if self.answered()? == self.consumed {
                return Ok(None);
            }
        }
        let first = self.slot(self.consumed);
        let mut response = Response::new_zeroed();
        let size = if self.narrow { size_of::<x86_32::Response>() } else { size_of::<Response>() };
        for (offset, bytes) in response.as_mut_bytes().as_chunks_mut().0.iter_mut().enumerate().take(size / 4) {
            *bytes = self.load(first + offset).to_ne_bytes();
        }
        self.consumed = self.consumed.wrapping_add(1);
        Ok(Some(response))
    }
}

/// Bytes of a slot.
const fn slot_size(narrow: bool) -> usize {
    if narrow { size_of::<x86_32::Request>() } else { size_of::<Request>() }
}
