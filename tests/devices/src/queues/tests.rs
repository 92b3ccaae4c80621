//! A ring of a small driver, for tests of models. Host.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use split_driver::fakes::FakeDmaMemory;
use split_driver::memory::{DmaAllocator, DmaMemory, Mmio, SharedMemory};

use crate::bus::Model;
use crate::fake::Device;
use crate::ring::offset;

/// Descriptors of a ring.
pub(crate) const DESCRIPTORS: u32 = 64;

/// A ring and a page for each of its descriptors.
pub(crate) struct Queue {
    pub(crate) first: usize,
    pub(crate) ring: FakeDmaMemory,
    pub(crate) pages: FakeDmaMemory,
    pub(crate) tail: Cell<u32>,
    pub(crate) seen: Cell<u32>,
}

impl Queue {
    pub(crate) fn new(device: &Device<impl Model>, first: usize) -> Self {
        let dma = device.dma();
        let ring = dma.allocate(16 * DESCRIPTORS as usize).expect("a ring");
        let pages = dma.allocate(4096 * DESCRIPTORS as usize).expect("pages");
        let [low, high] = ring.device_address(0).halves();
        device.write32(first + offset::BASE, low);
        device.write32(first + offset::BASE + 4, high);
        device.write32(first + offset::LENGTH, 16 * DESCRIPTORS);
        device.write32(first + offset::HEAD, 0);
        device.write32(first + offset::TAIL, 0);
        Self { first, ring, pages, tail: Cell::new(0), seen: Cell::new(0) }
    }

    pub(crate) fn put(&self, index: u32, words: [u32; 4]) {
        for (place, word) in self.ring.words().iter().skip(index as usize * 4).zip(words) {
            place.store(word, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self, index: u32) -> [u32; 4] {
        let mut words = self.ring.words().iter().skip(index as usize * 4).map(|word| word.load(Ordering::Relaxed));
        std::array::from_fn(|_| words.next().expect("a word"))
    }

    pub(crate) fn page(&self, index: u32) -> [u32; 2] {
        self.pages.device_address(index as usize * 4096).halves()
    }

    pub(crate) fn read(&self, index: u32, length: usize) -> Vec<u8> {
        let words = self.pages.words().iter().skip(index as usize * 1024);
        words
            .take(length.div_ceil(4))
            .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
            .take(length)
            .collect()
    }

    pub(crate) fn write(&self, index: u32, bytes: &[u8]) {
        let words = self.pages.words().iter().skip(index as usize * 1024);
        for (word, chunk) in words.zip(bytes.chunks(4)) {
            let mut padded = [0; 4];
            padded[..chunk.len()].copy_from_slice(chunk);
            word.store(u32::from_le_bytes(padded), Ordering::Relaxed);
        }
    }

    /// The next frame, with the write-back of its last descriptor.
    pub(crate) fn next(&self, device: &Device<impl Model>) -> Option<(Vec<u8>, [u32; 4])> {
        let mut frame = Vec::new();
        loop {
            let index = self.seen.get();
            let words = self.get(index);
            if words[2] & 1 == 0 {
                assert!(frame.is_empty(), "a frame without an end");
                return None;
            }
            frame.extend(self.read(index, words[3] as usize & 0xFFFF));
            let [low, high] = self.page(index);
            self.put(index, [low, high, 0, 0]);
            self.seen.set((index + 1) % DESCRIPTORS);
            device.write32(self.first + offset::TAIL, index);
            if words[2] & 2 != 0 {
                return Some((frame, words));
            }
        }
    }
}
