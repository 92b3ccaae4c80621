//! A device that is hostile: what it does comes from a script, and it may write DMA memory between any two looks of its driver. Floor 1.
//!
//! For the harness of `tests/devices`. A model's transfers reach memory by [`FakeXen::device_read`] and [`FakeXen::device_write`], which note
//! what is not the driver's; the driver's memory is [`FakeDma`](super::FakeDma)'s, and each look at it is a step before which
//! [`scribbler`] may act.

use alloc::boxed::Box;
use core::sync::atomic::Ordering;

use super::hypervisor::FakeXen;
use super::peer::{Peer, Step};

/// Bytes that are read as numbers; zero at the end.
#[derive(Clone, Debug)]
pub struct Script<'a>(core::slice::Iter<'a, u8>);

impl<'a> Script<'a> {
    /// Of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes.iter())
    }

    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.0.next().copied().unwrap_or(0)
    }

    /// The next two, little-endian.
    pub fn half(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// The next four, little-endian.
    pub fn word(&mut self) -> u32 {
        u32::from(self.half()) | u32::from(self.half()) << 16
    }

    /// Whether all was read.
    pub fn is_over(&self) -> bool {
        self.0.len() == 0
    }
}

/// A device that writes what its driver is about to look at, once in four looks: noise, one bit, all ones, or nothing at all. What follows
/// from a word that is fetched twice is seen then, as the second may differ from the first.
pub fn scribbler(seed: u32) -> Peer {
    let mut state = seed | 1;
    let mut next = move || {
        // Marsaglia's xorshift32.
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    };
    Box::new(move |step| {
        let Step::Look(words) = step else {
            return;
        };
        let (choice, place, noise) = (next(), next() as usize, next());
        if choice & 0x30 != 0 {
            return;
        }
        if let Some(word) = words.get(place % words.len().max(1)) {
            let value = match choice & 3 {
                0 => noise,
                1 => word.load(Ordering::Relaxed) ^ 1 << (noise & 31),
                2 => u32::MAX,
                _ => 0,
            };
            word.store(value, Ordering::Relaxed);
        }
    })
}

impl FakeXen {
    /// Writes words as a device does, in the order given: which word of them, and what.
    pub fn device_write_words(&self, address: u64, words: impl IntoIterator<Item = (usize, u32)>) {
        for (place, word) in words {
            self.device_write(address.wrapping_add(4 * place as u64), &word.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{DmaAllocator, SharedMemory};

    #[test]
    fn a_scribbler_acts_between_two_looks() {
        let xen = FakeXen::new();
        let memory = xen.dma().allocate(4096).expect("a page");
        xen.set_peer(Some(scribbler(7)));
        let look = || memory.look(0..4).iter().map(|word| word.load(Ordering::Relaxed)).max();
        let differ = (0..64).filter(|_| look() != look()).count();
        assert!(differ > 4, "{differ} of 64");
        // What is not looked at stays.
        assert!(memory.words().iter().skip(4).all(|word| word.load(Ordering::Relaxed) == 0));
    }

    #[test]
    fn a_script_is_zero_at_its_end() {
        let mut script = Script::new(&[1, 2, 3, 4, 5]);
        assert_eq!((script.word(), script.is_over()), (0x0403_0201, false));
        assert_eq!((script.half(), script.byte(), script.is_over()), (5, 0, true));
    }
}
