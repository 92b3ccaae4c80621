//! Byte-stream rings of the xenstore (`io/xs_wire.h`) and console (`io/console.h`) pages, over words of atomics. Pure. Floor 1.
//!
//! Each end keeps its own index and takes only the peer's from the page, checked. The producer alone writes the data, so changing
//! one byte of a word loses nothing.

use crate::atomic::{Ordering, fence};
use crate::memory::SharedMemory;
use crate::ring::RingError;

/// Where a stream lies in its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteLayout {
    /// First byte of the data, a multiple of 4.
    data: usize,
    /// Bytes of data, a power of two.
    size: u32,
    /// Word of the consumer's index.
    consumer: usize,
    /// Word of the producer's index.
    producer: usize,
}

impl ByteLayout {
    /// Requests to the store: `req`, `req_cons`, `req_prod` of `xenstore_domain_interface`.
    pub const STORE_REQUESTS: Self = Self::new(0, 1024, 2048, 2052);
    /// The store's answers: `rsp`, `rsp_cons`, `rsp_prod`.
    pub const STORE_RESPONSES: Self = Self::new(1024, 1024, 2056, 2060);
    /// What is typed on the console: `in`, `in_cons`, `in_prod` of `xencons_interface`.
    pub const CONSOLE_IN: Self = Self::new(0, 1024, 3072, 3076);
    /// What the console shows: `out`, `out_cons`, `out_prod`.
    pub const CONSOLE_OUT: Self = Self::new(1024, 2048, 3080, 3084);

    const fn new(data: usize, size: u32, consumer: usize, producer: usize) -> Self {
        assert!(data.is_multiple_of(4) && size.is_power_of_two());
        Self { data, size, consumer: consumer / 4, producer: producer / 4 }
    }

    /// Bytes that fit.
    pub const fn capacity(self) -> usize {
        self.size as usize
    }

    /// Makes the stream one that has not begun, for an end that may set both indices: the store's, when a guest connects anew.
    pub fn clear(self, memory: &(impl SharedMemory + ?Sized)) {
        store(memory, self.consumer, 0);
        store(memory, self.producer, 0);
    }

    fn word(self, index: u32) -> usize {
        (self.data + (index & (self.size - 1)) as usize) / 4
    }
}

fn load(memory: &(impl SharedMemory + ?Sized), word: usize) -> u32 {
    memory.look(word..word + 1).first().map_or(0, |word| word.load(Ordering::Relaxed))
}

fn store(memory: &(impl SharedMemory + ?Sized), word: usize, value: u32) {
    if let Some(word) = memory.words().get(word) {
        word.store(value, Ordering::Relaxed);
    }
}

/// The end that writes a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteProducer {
    layout: ByteLayout,
    produced: u32,
}

impl ByteProducer {
    /// Goes on where the page says that the stream ends.
    pub fn attach(layout: ByteLayout, memory: &(impl SharedMemory + ?Sized)) -> Self {
        Self { layout, produced: load(memory, layout.producer) }
    }

    /// Goes on at an index that this end itself had come to, and publishes it: the page's word may have been overwritten.
    pub fn resume(layout: ByteLayout, memory: &(impl SharedMemory + ?Sized), produced: u32) -> Self {
        store(memory, layout.producer, produced);
        Self { layout, produced }
    }

    /// Where the stream ends.
    pub const fn position(&self) -> u32 {
        self.produced
    }

    /// Bytes that may be written now.
    ///
    /// # Errors
    /// [`RingError::Overrun`] where the consumer's index is ahead of ours or more than a ring behind.
    pub fn free(&self, memory: &(impl SharedMemory + ?Sized)) -> Result<usize, RingError> {
        let consumer = load(memory, self.layout.consumer);
        let used = self.produced.wrapping_sub(consumer);
        if used > self.layout.size {
            return Err(RingError::Overrun { producer: self.produced, consumer });
        }
        // Bytes are overwritten only after the consumer has said it read them.
        fence(Ordering::SeqCst);
        Ok((self.layout.size - used) as usize)
    }

    /// Writes as much of `source` as fits and publishes it; how much that was. The consumer is to be notified where it is not 0.
    ///
    /// # Errors
    /// As of [`free`](Self::free).
    pub fn write(&mut self, memory: &(impl SharedMemory + ?Sized), source: &[u8]) -> Result<usize, RingError> {
        let count = self.free(memory)?.min(source.len());
        for &byte in source.iter().take(count) {
            if let Some(word) = memory.words().get(self.layout.word(self.produced)) {
                let shift = (self.produced & 3) * 8;
                let others = word.load(Ordering::Relaxed) & !(0xff << shift);
                word.store(others | u32::from(byte) << shift, Ordering::Relaxed);
            }
            self.produced = self.produced.wrapping_add(1);
        }
        // Data before the index that covers it, and the index before the caller's notify.
        fence(Ordering::Release);
        store(memory, self.layout.producer, self.produced);
        fence(Ordering::SeqCst);
        Ok(count)
    }
}

/// The end that reads a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteConsumer {
    layout: ByteLayout,
    consumed: u32,
}

impl ByteConsumer {
    /// Goes on where the page says that was read to.
    pub fn attach(layout: ByteLayout, memory: &(impl SharedMemory + ?Sized)) -> Self {
        Self { layout, consumed: load(memory, layout.consumer) }
    }

    /// Goes on at an index that this end itself had come to, and publishes it: the page's word may have been overwritten.
    pub fn resume(layout: ByteLayout, memory: &(impl SharedMemory + ?Sized), consumed: u32) -> Self {
        store(memory, layout.consumer, consumed);
        Self { layout, consumed }
    }

    /// What was read to.
    pub const fn position(&self) -> u32 {
        self.consumed
    }

    /// Bytes that wait.
    ///
    /// # Errors
    /// [`RingError::Overrun`] where the producer claims more than fits.
    pub fn waiting(&self, memory: &(impl SharedMemory + ?Sized)) -> Result<usize, RingError> {
        let producer = load(memory, self.layout.producer);
        let waiting = producer.wrapping_sub(self.consumed);
        if waiting > self.layout.size {
            return Err(RingError::Overrun { producer, consumer: self.consumed });
        }
        fence(Ordering::Acquire);
        Ok(waiting as usize)
    }

    /// Copies out as much as waits and fits, and gives its room back; how much that was. The producer is to be notified where it is
    /// not 0.
    ///
    /// # Errors
    /// As of [`waiting`](Self::waiting).
    pub fn read(&mut self, memory: &(impl SharedMemory + ?Sized), destination: &mut [u8]) -> Result<usize, RingError> {
        let count = self.peek(memory, destination)?;
        self.advance(memory, count);
        Ok(count)
    }

    /// Copies out as much as waits and fits, and leaves it there; how much that was. The producer may write other bytes in their place:
    /// what [`advance`](Self::advance) does not pass is not to be believed.
    ///
    /// # Errors
    /// As of [`waiting`](Self::waiting).
    pub fn peek(&self, memory: &(impl SharedMemory + ?Sized), destination: &mut [u8]) -> Result<usize, RingError> {
        let count = self.waiting(memory)?.min(destination.len());
        let mut next = self.consumed;
        for byte in destination.iter_mut().take(count) {
            let word = load(memory, self.layout.word(next));
            *byte = word.to_le_bytes()[(next & 3) as usize];
            next = next.wrapping_add(1);
        }
        Ok(count)
    }

    /// Passes `count` bytes that were looked at, and gives their room back.
    pub fn advance(&mut self, memory: &(impl SharedMemory + ?Sized), count: usize) {
        self.consumed = self.consumed.wrapping_add(count as u32);
        // The bytes are copied before their room is given back.
        fence(Ordering::Release);
        store(memory, self.layout.consumer, self.consumed);
        fence(Ordering::SeqCst);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
