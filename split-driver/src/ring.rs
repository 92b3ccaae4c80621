//! Shared rings of requests and responses (`io/ring.h`), both ends, over words of atomics. Pure: no hypercall. Floor 1.
//!
//! A ring is a page or several: four indices, padding to byte 64, then a power of two of slots, each wide enough for a request and
//! for a response. The indices run freely and wrap at 2^32; a slot's place is the index modulo the number of slots.
//!
//! Each end believes only the one index that its peer writes, checks it where it loads it, and keeps shadows of its own: what it
//! wrote into shared memory it never reads back. The shadows are one plain struct, so that a ring outlives the code that drives it.
//!
//! Memory order: `Relaxed` accesses and fences. Only the meeting of an index and an event index needs a store before a load
//! (`SeqCst`); without it a wakeup is lost. loom shows that within a second:
//! `RUSTFLAGS="--cfg loom" cargo test -p split-driver --release --test ring_loom`.

use core::marker::PhantomData;
use core::mem::offset_of;
use core::ops::Range;

use xen_pv_sys::io::ring::{RING_HEADER_SIZE, SharedRingHead};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::atomic::{Ordering, fence};
use crate::memory::SharedMemory;

/// Word of `req_prod`.
const REQUEST_PRODUCER: usize = offset_of!(SharedRingHead, req_prod) / 4;
/// Word of `req_event`.
const REQUEST_EVENT: usize = offset_of!(SharedRingHead, req_event) / 4;
/// Word of `rsp_prod`.
const RESPONSE_PRODUCER: usize = offset_of!(SharedRingHead, rsp_prod) / 4;
/// Word of `rsp_event`.
const RESPONSE_EVENT: usize = offset_of!(SharedRingHead, rsp_event) / 4;
/// Words before the first slot (`sizeof` of the ring without `ring[]`: 64 bytes).
const HEADER_WORDS: usize = RING_HEADER_SIZE / 4;

/// What may lie in a slot: plain bytes, a multiple of four of them.
pub trait Slot: FromBytes + IntoBytes + Immutable + Copy {}
impl<T: FromBytes + IntoBytes + Immutable + Copy> Slot for T {}

/// The words of what lies in a slot.
#[inline]
pub fn words<T: Slot>(value: &T) -> impl Iterator<Item = u32> {
    value.as_bytes().chunks_exact(4).filter_map(|bytes| Some(u32::from_ne_bytes(bytes.try_into().ok()?)))
}

/// The peer broke the ring's protocol, or the memory is no ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingError {
    /// The peer's producer index claims more than the ring can hold beyond our consumer index, or went back.
    Overrun {
        /// What the peer wrote.
        producer: u32,
        /// How far we had come.
        consumer: u32,
    },
    /// The memory holds not even one slot.
    TooSmall {
        /// Its size.
        words: usize,
    },
}

impl core::fmt::Display for RingError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Overrun { producer, consumer } => {
                write!(formatter, "ring overrun: producer {producer}, consumer {consumer}")
            }
            Self::TooSmall { words } => write!(formatter, "no ring fits into {words} words"),
        }
    }
}

impl core::error::Error for RingError {}

/// All that a back end knows of its ring; can be written down and resumed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackState {
    /// Requests consumed (`req_cons`).
    pub consumed: u32,
    /// Responses placed, published or not (`rsp_prod_pvt`).
    pub produced: u32,
    /// Responses published (`rsp_prod`).
    pub published: u32,
}

/// All that a front end knows of its ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrontState {
    /// Requests placed, published or not (`req_prod_pvt`).
    pub produced: u32,
    /// Requests published (`req_prod`).
    pub published: u32,
    /// Responses consumed (`rsp_cons`).
    pub consumed: u32,
}

/// How many slots of `slot_bytes` a ring in `bytes` of memory has: the largest power of two that fits (`__RING_SIZE`).
pub const fn slots_in(bytes: usize, slot_bytes: usize) -> u32 {
    let fit = bytes.saturating_sub(HEADER_WORDS * 4) / slot_bytes;
    if fit == 0 {
        return 0;
    }
    let power = fit.ilog2();
    if power > 31 { 1 << 31 } else { 1 << power }
}

/// Bytes of a slot: the larger of request and response.
const fn slot_bytes<Request, Response>() -> usize {
    let (request, response) = (size_of::<Request>(), size_of::<Response>());
    let larger = if request > response { request } else { response };
    assert!(request.is_multiple_of(4) && response.is_multiple_of(4) && larger > 0, "slots are made of words");
    larger
}

/// The memory of a ring and where its slots lie.
#[derive(Debug)]
struct Slots<M> {
    memory: M,
    /// Number of slots minus one.
    mask: u32,
}

impl<M: SharedMemory> Slots<M> {
    fn new(memory: M, slot_bytes: usize) -> Result<Self, RingError> {
        let words = memory.words().len();
        match slots_in(words.saturating_mul(4), slot_bytes) {
            0 => Err(RingError::TooSmall { words }),
            slots => Ok(Self { memory, mask: slots - 1 }),
        }
    }

    #[inline]
    fn count(&self) -> u32 {
        self.mask + 1
    }

    #[inline]
    fn load_index(&self, word: usize) -> u32 {
        self.memory.look(word..word + 1).first().map_or(0, |word| word.load(Ordering::Relaxed))
    }

    #[inline]
    fn store_index(&self, word: usize, value: u32) {
        if let Some(word) = self.memory.words().get(word) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// The places of the words of slot `index`, of `stride` words. Always there: `new` counted them.
    #[inline]
    fn slot(&self, index: u32, stride: usize) -> Range<usize> {
        let start = HEADER_WORDS + (index & self.mask) as usize * stride;
        start..start + stride
    }

    #[inline]
    fn read<T: Slot>(&self, index: u32, stride: usize) -> T {
        const { assert!(size_of::<T>().is_multiple_of(4)) };
        let mut value = T::new_zeroed();
        for (bytes, word) in value.as_mut_bytes().chunks_exact_mut(4).zip(self.memory.look(self.slot(index, stride))) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        value
    }

    #[inline]
    fn write<T: Slot>(&self, index: u32, stride: usize, value: &T) {
        const { assert!(size_of::<T>().is_multiple_of(4)) };
        let slot = self.memory.words().get(self.slot(index, stride)).unwrap_or_default();
        for (value, word) in words(value).zip(slot) {
            word.store(value, Ordering::Relaxed);
        }
    }

    /// How far the peer's producer (at `word`) is ahead of `consumed`. It may be at most a ring ahead of `answered`: what lies
    /// between `answered` and `consumed` occupies slots still.
    #[inline]
    fn ahead(&self, word: usize, consumed: u32, answered: u32) -> Result<u32, RingError> {
        let producer = self.load_index(word);
        let ahead = producer.wrapping_sub(consumed);
        if ahead > self.count() || producer.wrapping_sub(answered) > self.count() {
            return Err(RingError::Overrun { producer, consumer: consumed });
        }
        // The slots below the index must not be read before it.
        fence(Ordering::Acquire);
        Ok(ahead)
    }

    /// Publishes the index `new` at `word`; true where the peer asked, at `event`, for word of something in `old..new`.
    #[inline]
    fn publish(&self, word: usize, event: usize, old: u32, new: u32) -> bool {
        // Slots before the index that covers them.
        fence(Ordering::Release);
        self.store_index(word, new);
        // The index before the look at what the peer waits for: it does the same the other way round.
        fence(Ordering::SeqCst);
        let event = self.load_index(event);
        new.wrapping_sub(event) < new.wrapping_sub(old)
    }
}

/// The back end of a ring: consumes requests, produces responses.
#[derive(Debug)]
pub struct BackRing<M, Request, Response> {
    slots: Slots<M>,
    state: BackState,
    types: PhantomData<fn(Request) -> Response>,
}

impl<M: SharedMemory, Request: Slot, Response: Slot> BackRing<M, Request, Response> {
    const SLOT_BYTES: usize = slot_bytes::<Request, Response>();
    /// Words of a slot.
    const STRIDE: usize = Self::SLOT_BYTES / 4;

    /// Takes up a frontend's ring where its published responses end (0 in a new ring).
    ///
    /// # Errors
    /// [`RingError`] where the ring claims more requests than it can hold, or has no room for a slot.
    pub fn attach(memory: M) -> Result<Self, RingError> {
        let slots = Slots::new(memory, Self::SLOT_BYTES)?;
        let start = slots.load_index(RESPONSE_PRODUCER);
        let state = BackState { consumed: start, produced: start, published: start };
        let ring = Self { slots, state, types: PhantomData };
        ring.unconsumed()?;
        Ok(ring)
    }

    /// Goes on with a ring that was driven before.
    ///
    /// # Errors
    /// [`RingError::TooSmall`] where the memory has no room for a slot.
    pub fn resume(memory: M, state: BackState) -> Result<Self, RingError> {
        let slots = Slots::new(memory, Self::SLOT_BYTES)?;
        Ok(Self { slots, state, types: PhantomData })
    }

    /// The state to [`resume`](Self::resume) from.
    #[inline]
    pub fn state(&self) -> BackState {
        self.state
    }

    /// The memory, given back.
    pub fn into_memory(self) -> M {
        self.slots.memory
    }

    /// Slots of the ring.
    #[inline]
    pub fn slots(&self) -> u32 {
        self.slots.count()
    }

    /// Requests consumed and not yet answered.
    #[inline]
    pub fn unanswered(&self) -> u32 {
        self.state.consumed.wrapping_sub(self.state.produced)
    }

    /// Requests that wait, so many that may be [taken](Self::take).
    ///
    /// # Errors
    /// [`RingError::Overrun`] where the frontend claims more than fit: it breaks the protocol.
    #[inline]
    pub fn unconsumed(&self) -> Result<u32, RingError> {
        let BackState { consumed, produced, .. } = self.state;
        self.slots.ahead(REQUEST_PRODUCER, consumed, produced)
    }

    /// Copies the request `ahead` of the next one, not consuming it. Below [`unconsumed`](Self::unconsumed) it is the frontend's;
    /// beyond, old bytes. Whoever peeks and takes copies twice, and may see two different requests.
    #[inline]
    pub fn peek<T: Slot>(&self, ahead: u32) -> T {
        self.slots.read(self.state.consumed.wrapping_add(ahead), Self::STRIDE)
    }

    /// Copies the next request and consumes it. Call at most as often as [`unconsumed`](Self::unconsumed) said.
    #[inline]
    pub fn take(&mut self) -> Request {
        self.take_as()
    }

    /// As [`take`](Self::take), where the protocol puts something else into the slot (an extra info).
    #[inline]
    pub fn take_as<T: Slot>(&mut self) -> T {
        const { assert!(size_of::<T>() <= Self::SLOT_BYTES) };
        let value = self.slots.read(self.state.consumed, Self::STRIDE);
        self.state.consumed = self.state.consumed.wrapping_add(1);
        value
    }

    /// Consumes `count` requests that were [peeked](Self::peek).
    #[inline]
    pub fn consume(&mut self, count: u32) {
        self.state.consumed = self.state.consumed.wrapping_add(count);
    }

    /// Gives back the `count` requests that were consumed last, none of them answered: they will be read anew.
    #[inline]
    pub fn unconsume(&mut self, count: u32) {
        self.state.consumed = self.state.consumed.wrapping_sub(count.min(self.unanswered()));
    }

    /// Places a response, not yet seen by the frontend. There is room for one per request consumed.
    #[inline]
    pub fn push(&mut self, response: &Response) {
        self.push_as(response);
    }

    /// As [`push`](Self::push), where the protocol puts something else into the slot (an extra info).
    #[inline]
    pub fn push_as<T: Slot>(&mut self, value: &T) {
        const { assert!(size_of::<T>() <= Self::SLOT_BYTES) };
        debug_assert!(self.unanswered() > 0, "a response without a request");
        self.slots.write(self.state.produced, Self::STRIDE, value);
        self.state.produced = self.state.produced.wrapping_add(1);
    }

    /// Lets the frontend see the responses placed, and leaves the question whether it waits to
    /// [`push_and_check_notify`](Self::push_and_check_notify). What is placed and not seen lies in slots that another life of this end takes for requests.
    #[inline]
    pub fn show(&mut self) {
        // The responses before the index that covers them.
        fence(Ordering::Release);
        self.slots.store_index(RESPONSE_PRODUCER, self.state.produced);
    }

    /// Responses placed and not yet published.
    #[inline]
    pub fn unpublished(&self) -> u32 {
        self.state.produced.wrapping_sub(self.state.published)
    }

    /// Publishes the responses placed. True where the frontend waits for an event.
    #[inline]
    #[must_use = "the frontend may sleep"]
    pub fn push_and_check_notify(&mut self) -> bool {
        let BackState { produced, published, .. } = self.state;
        self.state.published = produced;
        self.slots.publish(RESPONSE_PRODUCER, RESPONSE_EVENT, published, produced)
    }

    /// Asks for an event when the `ahead`th request from here is published (1: the next one).
    #[inline]
    pub fn request_event(&self, ahead: u32) {
        self.slots.store_index(REQUEST_EVENT, self.state.consumed.wrapping_add(ahead));
        // The event index before the next look at the producer.
        fence(Ordering::SeqCst);
    }

    /// To be called before sleeping: how many requests wait; where none does, an event will come with the next.
    ///
    /// # Errors
    /// As of [`unconsumed`](Self::unconsumed).
    #[inline]
    pub fn final_check_for_requests(&self) -> Result<u32, RingError> {
        match self.unconsumed()? {
            0 => {
                self.request_event(1);
                self.unconsumed()
            }
            waiting => Ok(waiting),
        }
    }
}

/// The front end of a ring: produces requests, consumes responses.
#[derive(Debug)]
pub struct FrontRing<M, Request, Response> {
    slots: Slots<M>,
    state: FrontState,
    types: PhantomData<fn(Request) -> Response>,
}

impl<M: SharedMemory, Request: Slot, Response: Slot> FrontRing<M, Request, Response> {
    const SLOT_BYTES: usize = slot_bytes::<Request, Response>();
    /// Words of a slot.
    const STRIDE: usize = Self::SLOT_BYTES / 4;

    /// Makes memory an empty ring (`SHARED_RING_INIT`), before it is granted.
    ///
    /// # Errors
    /// [`RingError::TooSmall`] where there is no room for a slot.
    pub fn init(memory: M) -> Result<Self, RingError> {
        let slots = Slots::new(memory, Self::SLOT_BYTES)?;
        slots.store_index(REQUEST_PRODUCER, 0);
        slots.store_index(RESPONSE_PRODUCER, 0);
        slots.store_index(REQUEST_EVENT, 1);
        slots.store_index(RESPONSE_EVENT, 1);
        Ok(Self { slots, state: FrontState::default(), types: PhantomData })
    }

    /// Goes on with a ring that was driven before.
    ///
    /// # Errors
    /// [`RingError::TooSmall`] where the memory has no room for a slot.
    pub fn resume(memory: M, state: FrontState) -> Result<Self, RingError> {
        let slots = Slots::new(memory, Self::SLOT_BYTES)?;
        Ok(Self { slots, state, types: PhantomData })
    }

    /// The state to [`resume`](Self::resume) from.
    #[inline]
    pub fn state(&self) -> FrontState {
        self.state
    }

    /// The memory, given back.
    pub fn into_memory(self) -> M {
        self.slots.memory
    }

    /// Slots of the ring.
    #[inline]
    pub fn slots(&self) -> u32 {
        self.slots.count()
    }

    /// Requests that may be placed now.
    #[inline]
    pub fn free(&self) -> u32 {
        let used = self.state.produced.wrapping_sub(self.state.consumed);
        self.slots.count().saturating_sub(used)
    }

    /// Places a request, not yet seen by the backend; false, and nothing done, where the ring is full.
    #[inline]
    #[must_use = "a full ring takes no request"]
    pub fn push(&mut self, request: &Request) -> bool {
        self.push_as(request)
    }

    /// As [`push`](Self::push), where the protocol puts something else into the slot (an extra info).
    #[inline]
    #[must_use = "a full ring takes no request"]
    pub fn push_as<T: Slot>(&mut self, value: &T) -> bool {
        const { assert!(size_of::<T>() <= Self::SLOT_BYTES) };
        if self.free() == 0 {
            return false;
        }
        self.slots.write(self.state.produced, Self::STRIDE, value);
        self.state.produced = self.state.produced.wrapping_add(1);
        true
    }

    /// Publishes the requests placed. True where the backend waits for an event.
    #[inline]
    #[must_use = "the backend may sleep"]
    pub fn push_and_check_notify(&mut self) -> bool {
        let FrontState { produced, published, .. } = self.state;
        self.state.published = produced;
        self.slots.publish(REQUEST_PRODUCER, REQUEST_EVENT, published, produced)
    }

    /// Responses that wait, so many that may be [taken](Self::take).
    ///
    /// # Errors
    /// [`RingError::Overrun`] where the backend answers what was not asked.
    #[inline]
    pub fn unconsumed(&self) -> Result<u32, RingError> {
        let FrontState { consumed, published, .. } = self.state;
        let waiting = self.slots.ahead(RESPONSE_PRODUCER, consumed, consumed)?;
        if waiting > published.wrapping_sub(consumed) {
            return Err(RingError::Overrun { producer: consumed.wrapping_add(waiting), consumer: consumed });
        }
        Ok(waiting)
    }

    /// Copies the next response and consumes it. Call at most as often as [`unconsumed`](Self::unconsumed) said.
    #[inline]
    pub fn take(&mut self) -> Response {
        self.take_as()
    }

    /// As [`take`](Self::take), where the protocol puts something else into the slot (an extra info).
    #[inline]
    pub fn take_as<T: Slot>(&mut self) -> T {
        const { assert!(size_of::<T>() <= Self::SLOT_BYTES) };
        let value = self.slots.read(self.state.consumed, Self::STRIDE);
        self.state.consumed = self.state.consumed.wrapping_add(1);
        value
    }

    /// Asks for an event when the `ahead`th response from here is published (1: the next one).
    #[inline]
    pub fn response_event(&self, ahead: u32) {
        self.slots.store_index(RESPONSE_EVENT, self.state.consumed.wrapping_add(ahead));
        // The event index before the next look at the producer.
        fence(Ordering::SeqCst);
    }

    /// To be called before sleeping: how many responses wait; where none does, an event will come with the next.
    ///
    /// # Errors
    /// As of [`unconsumed`](Self::unconsumed).
    #[inline]
    pub fn final_check_for_responses(&self) -> Result<u32, RingError> {
        match self.unconsumed()? {
            0 => {
                self.response_event(1);
                self.unconsumed()
            }
            waiting => Ok(waiting),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
