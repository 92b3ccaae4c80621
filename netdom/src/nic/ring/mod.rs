//! Rings of descriptors, as all families of Intel's NICs have them: 16 bytes each, some for the device, the others back from it. Floor 3.
//!
//! | file | holds |
//! |---|---|
//! | `plan` | the offloads that a packet asks for |
//! | `transmit` | packets out |
//! | `receive` | frames in |
//! | `left` | what lies in the rings when a life of the domain ends, or the device is reset |
//!
//! The families differ in how a descriptor says a thing: that is their [`Format`]. All else is here: which buffer lies behind which
//! descriptor, and the checks of every field that the device wrote.

pub mod left;
pub mod plan;
pub mod receive;
pub mod transmit;

use crate::ethernet::Tag;
use crate::nic::Error;
use core::sync::atomic::Ordering;
use plan::{Plan, Unable};
use split_driver::memory::{DeviceAddress, DmaAllocator, DmaMemory};

/// Bytes of any descriptor used here.
pub const DESCRIPTOR_BYTES: usize = 16;
const WORDS: usize = DESCRIPTOR_BYTES / 4;

/// A descriptor, word by word as it lies in memory.
pub type Words = [u32; WORDS];

/// How the descriptors of a family say a thing.
///
/// Common to all: words 0 and 1 of a descriptor that names a buffer are the buffer's address. Word 2 of a transmit data descriptor has the
/// buffer's length in its low bits, EOP in bit 24 and RS in bit 27; the device sets DD, bit 0 of word 3. The device writes a receive
/// descriptor with DD, EOP and VP in bits 0, 1 and 3 of word 2, and in word 3 the length in the low half, the tag that was taken out in the
/// high one.
pub trait Format {
    /// What word 2 of a received descriptor says of the frame.
    const RECEIVED: ReceivedBits;

    /// The context descriptor that these offloads want, if any.
    ///
    /// # Errors
    /// [`Unable`] where a header is longer than its field can say.
    fn context(plan: Option<&Plan>, tag: Option<Tag>) -> Result<Option<Words>, Unable>;

    /// Words 2 and 3 of the data descriptors of a packet of `length` bytes, without the length of the buffer, EOP and RS.
    fn data(plan: Option<&Plan>, tag: Option<Tag>, length: usize) -> [u32; 2];
}

/// EOP: the packet ends here.
pub(super) const END: u32 = 1 << 24;
/// RS: the device sets DD when done.
pub(super) const REPORT: u32 = 1 << 27;
/// DD: the device is done.
pub(super) const DONE: u32 = 1;

/// Bits of word 2 of a received descriptor beside DD and EOP.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedBits {
    /// Any of them: the frame itself arrived damaged (as opposed to a packet in it whose checksum is wrong).
    pub damaged: u32,
    /// Any of them: the device did not look at the checksums.
    pub unchecked: u32,
    /// Any of them: it looked at the TCP or UDP checksum.
    pub checked: u32,
    /// Any of them: a checksum is wrong.
    pub wrong: u32,
}

impl ReceivedBits {
    const fn is_damaged(self, status: u32) -> bool {
        status & self.damaged != 0
    }

    /// Whether the device vouches for the TCP or UDP checksum.
    const fn is_verified(self, status: u32) -> bool {
        status & (self.unchecked | self.wrong) == 0 && status & self.checked != 0
    }
}

/// A ring of descriptors in memory that the device reads and writes.
pub struct Ring<D> {
    memory: D,
    count: u16,
}

impl<D: DmaMemory> Ring<D> {
    /// A ring of `count` descriptors, a multiple of 8 from 64 to 4,096.
    ///
    /// # Errors
    /// [`Error::Ring`] and [`Error::Memory`].
    pub fn allocate<A: DmaAllocator<Memory = D>>(dma: &A, count: u16) -> Result<Self, Error> {
        if !(64..=4096).contains(&count) || !count.is_multiple_of(8) {
            return Err(Error::Ring { descriptors: count });
        }
        let bytes = usize::from(count) * DESCRIPTOR_BYTES;
        let memory = dma.allocate(bytes).ok().filter(|memory| memory.words().len() >= usize::from(count) * WORDS);
        Ok(Self { memory: memory.ok_or(Error::Memory { bytes })?, count })
    }

    /// Where the device finds it.
    pub fn device_address(&self) -> DeviceAddress {
        self.memory.device_address(0)
    }

    /// Its descriptors.
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// Its bytes.
    pub const fn bytes(&self) -> u32 {
        self.count as u32 * DESCRIPTOR_BYTES as u32
    }

    /// The descriptor after `index`.
    const fn after(&self, index: u16) -> u16 {
        if index + 1 >= self.count { 0 } else { index + 1 }
    }

    /// One word of a descriptor as it is now; 0 beyond the ring, which reads as "not done".
    #[inline]
    fn word(&self, index: u16, word: usize) -> u32 {
        let at = usize::from(index) * WORDS + word;
        self.memory.look(at..at + 1).first().map_or(0, |slot| slot.load(Ordering::Acquire))
    }

    fn set_word(&self, index: u16, word: usize, value: u32) {
        if let Some(slot) = self.memory.words().get(usize::from(index) * WORDS + word) {
            slot.store(value, Ordering::Relaxed);
        }
    }

    #[inline]
    fn write(&self, index: u16, words: Words) {
        let at = usize::from(index) * WORDS;
        let slots = self.memory.words().get(at..at + WORDS).unwrap_or_default();
        for (slot, value) in slots.iter().zip(words) {
            slot.store(value, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_verified_where_the_device_looked_and_found_nothing_wrong() {
        let bits = ReceivedBits { damaged: 1 << 24, unchecked: 1 << 2, checked: 3 << 4, wrong: 3 << 29 };
        let table = [
            (0b11, false),
            (0b11 | 1 << 4, true),
            (0b11 | 1 << 5, true),
            (0b11 | 1 << 4 | 1 << 2, false),
            (0b11 | 1 << 4 | 1 << 29, false),
            (0b11 | 1 << 4 | 1 << 30, false),
        ];
        for (status, verified) in table {
            assert_eq!(bits.is_verified(status), verified, "{status:#x}");
            assert!(!bits.is_damaged(status));
        }
        assert!(bits.is_damaged(1 << 24));
    }
}
