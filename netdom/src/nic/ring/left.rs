//! What lies in a queue's rings: packets that the device has not sent, frames that were not taken. It can be read wherever a life ends, and the
//! next life knows by the device's heads how much of it came to nothing. Pure. Floor 3.

use super::DESCRIPTOR_BYTES;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::Cell;
use minicbor::encode::{self, Write};
use minicbor::{Decode, Encode, Encoder};

/// Descriptors of a ring at most.
const MOST: u16 = 4096;
/// Bits of a word of [`KeptUnsent::ends`].
const BITS: u16 = u32::BITS as u16;

/// Where a device is in a ring, by its registers.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Bytes of the ring: TDLEN, RDLEN. Zero after a reset.
    pub bytes: u32,
    /// The next descriptor of the device: TDH, RDH.
    pub head: u32,
}

/// Where a device is in the rings of a queue.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// In the transmit ring.
    pub transmit: Place,
    /// In the receive ring.
    pub receive: Place,
}

impl Place {
    /// The device's head, where this is a ring of `count` descriptors and the head is neither before `first` nor beyond `next`.
    fn head(self, count: u16, first: u16, next: u16) -> Option<u16> {
        let head = u16::try_from(self.head).ok().filter(|head| *head < count)?;
        let given = self.bytes as usize == usize::from(count) * DESCRIPTOR_BYTES && first < count && next < count;
        (given && distance(first, head, count) <= distance(first, next, count)).then_some(head)
    }
}

/// Descriptors from one to before another, both of a ring of `count`.
const fn distance(from: u16, to: u16, count: u16) -> u16 {
    if to >= from { to - from } else { count - from + to }
}

/// The packets in a transmit ring.
#[derive(Debug)]
pub struct Unsent {
    /// By descriptor: a packet ends there.
    ends: Box<[Cell<bool>]>,
    /// The first descriptor not yet reclaimed, and the next one to be filled.
    first: Cell<u16>,
    next: Cell<u16>,
}

impl Unsent {
    /// None, in a ring of `count` descriptors.
    pub fn new(count: u16) -> Self {
        let (first, next) = Default::default();
        Self { ends: (0..count).map(|_| Cell::new(false)).collect(), first, next }
    }

    /// A descriptor is filled; `next` is the one behind it.
    #[inline]
    pub fn fill(&self, index: u16, end: bool, next: u16) {
        if let Some(slot) = self.ends.get(usize::from(index)) {
            slot.set(end);
        }
        self.next.set(next);
    }

    /// Whether a packet ends in a descriptor.
    #[inline]
    pub fn ends(&self, index: u16) -> bool {
        self.ends.get(usize::from(index)).is_some_and(Cell::get)
    }

    /// All descriptors before `first` were reclaimed.
    #[inline]
    pub fn reclaim(&self, first: u16) {
        self.first.set(first);
    }

    /// The ring is empty.
    pub fn clear(&self) {
        self.first.set(0);
        self.next.set(0);
    }

    /// Descriptors. They were as many when it was made.
    fn count(&self) -> u16 {
        u16::try_from(self.ends.len()).unwrap_or(0)
    }

    /// Packets that the device has not sent.
    pub fn packets(&self, device: Place) -> u64 {
        let (count, next) = (self.count(), self.next.get());
        let Some(head) = device.head(count, self.first.get(), next) else {
            return 0;
        };
        let left = (0..distance(head, next, count)).map(|further| (head + further) % count);
        left.filter(|index| self.ends(*index)).count() as u64
    }

    /// Descriptors that may not be sent.
    fn filled(&self) -> u16 {
        let (count, first, next) = (self.count(), self.first.get(), self.next.get());
        if first < count && next < count { distance(first, next, count) } else { 0 }
    }

    /// Bytes that it is written in, at most.
    pub fn length(&self) -> usize {
        const NUMBERS: usize = 24;
        NUMBERS + usize::from(self.count()).div_ceil(u32::BITS as usize) * 5
    }
}

/// [`Unsent`], written down.
#[derive(Decode)]
pub struct KeptUnsent {
    #[n(0)]
    count: u16,
    #[n(1)]
    first: u16,
    #[n(2)]
    next: u16,
    /// A bit for each descriptor from the first one on.
    #[n(3)]
    ends: Vec<u32>,
}

impl<C> Encode<C> for Unsent {
    fn encode<W: Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        let (count, first, filled) = (self.count(), self.first.get(), self.filled());
        encoder.array(4)?.u16(count)?.u16(first)?.u16(self.next.get())?;
        encoder.array(filled.div_ceil(BITS).into())?;
        for start in (0..filled).step_by(BITS.into()) {
            let bits = (start..filled).take(BITS.into()).zip(0..);
            encoder.u32(bits.map(|(at, bit)| u32::from(self.ends((first + at) % count)) << bit).sum())?;
        }
        Ok(())
    }
}

impl From<KeptUnsent> for Unsent {
    fn from(kept: KeptUnsent) -> Self {
        let KeptUnsent { count, first, next, ends } = kept;
        let unsent = Self::new(count.min(MOST));
        let count = unsent.count();
        let words = usize::from(count).div_ceil(BITS.into());
        for (place, word) in ends.into_iter().take(words).enumerate() {
            for bit in (0..usize::from(BITS)).filter(|bit| word >> bit & 1 != 0) {
                let index = (usize::from(first) + place * usize::from(BITS) + bit).checked_rem(count.into());
                if let Some(slot) = index.and_then(|index| unsent.ends.get(index)) {
                    slot.set(true);
                }
            }
        }
        unsent.first.set(first);
        unsent.next.set(next);
        unsent
    }
}

/// The frames in a receive ring.
#[derive(Debug)]
pub struct Untaken {
    count: u16,
    /// The next descriptor to be looked at, and the next one to get a buffer.
    next: Cell<u16>,
    fill: Cell<u16>,
}

impl Untaken {
    /// None, in a ring of `count` descriptors.
    pub fn new(count: u16) -> Self {
        let (next, fill) = Default::default();
        Self { count, next, fill }
    }

    /// The frames before `next` were taken.
    #[inline]
    pub fn take(&self, next: u16) {
        self.next.set(next);
    }

    /// The descriptors before `fill` have buffers.
    #[inline]
    pub fn fill(&self, fill: u16) {
        self.fill.set(fill);
    }

    /// The ring is empty.
    pub fn clear(&self) {
        self.next.set(0);
        self.fill.set(0);
    }

    /// Frames that were not taken: one a buffer.
    pub fn frames(&self, device: Place) -> u64 {
        let (count, next) = (self.count, self.next.get());
        device.head(count, next, self.fill.get()).map_or(0, |head| distance(next, head, count).into())
    }

    /// Bytes that it is written in, at most.
    pub const LENGTH: usize = 16;
}

/// [`Untaken`], written down.
#[derive(Decode)]
pub struct KeptUntaken {
    #[n(0)]
    count: u16,
    #[n(1)]
    next: u16,
    #[n(2)]
    fill: u16,
}

impl<C> Encode<C> for Untaken {
    fn encode<W: Write>(&self, encoder: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        encoder.array(3)?.u16(self.count)?.u16(self.next.get())?.u16(self.fill.get())?;
        Ok(())
    }
}

impl From<KeptUntaken> for Untaken {
    fn from(kept: KeptUntaken) -> Self {
        let KeptUntaken { count, next, fill } = kept;
        Self { count: count.min(MOST), next: Cell::new(next), fill: Cell::new(fill) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(head: u32) -> Place {
        Place { bytes: 64 * DESCRIPTOR_BYTES as u32, head }
    }

    /// In this life and, after it was written down, in the next one.
    fn packets(unsent: &Unsent, device: Place) -> u64 {
        let kept: KeptUnsent = minicbor::decode(&minicbor::to_vec(unsent).unwrap()).unwrap();
        let (here, there) = (unsent.packets(device), Unsent::from(kept).packets(device));
        assert_eq!(here, there);
        here
    }

    #[test]
    fn packets_end_where_their_last_descriptor_was_not_sent() {
        let unsent = Unsent::new(64);
        assert_eq!(packets(&unsent, at(0)), 0);
        // Packets of three descriptors each, 17 of them, through the ring's end.
        unsent.reclaim(40);
        for index in 40..40 + 51 {
            unsent.fill(index % 64, index % 3 == 0, (index + 1) % 64);
        }
        for (head, left) in [(40, 17), (42, 17), (43, 16), (0, 9), (26, 1), (27, 0)] {
            assert_eq!(packets(&unsent, at(head)), left, "{head}");
        }
        // A device that was reset, or that has sent what it was not given.
        for device in [Place { bytes: 0, head: 42 }, at(39), at(28), at(64), at(u32::MAX)] {
            assert_eq!(packets(&unsent, device), 0, "{device:?}");
        }
        unsent.clear();
        assert_eq!(packets(&unsent, at(0)), 0);
    }

    #[test]
    fn frames_lie_between_the_next_and_the_devices_head() {
        let untaken = Untaken::new(64);
        untaken.fill(63);
        untaken.take(60);
        untaken.fill(59);
        let frames = |device| {
            let kept: KeptUntaken = minicbor::decode(&minicbor::to_vec(&untaken).unwrap()).unwrap();
            assert_eq!(Untaken::from(kept).frames(device), untaken.frames(device));
            untaken.frames(device)
        };
        assert_eq!([60, 61, 0, 59].map(|head| frames(at(head))), [0, 1, 4, 63]);
        assert_eq!(frames(Place { bytes: 0, head: 61 }), 0);
        untaken.fill(62);
        assert_eq!([62, 63, 0].map(|head| frames(at(head))), [2, 0, 0]);
    }

    /// What was written over is no reason to fail.
    #[test]
    fn nonsense_is_nothing() {
        for numbers in [[0, 0, 0], [0, 5, 9], [64, 70, 3], [64, 3, 70], [u16::MAX, u16::MAX, u16::MAX]] {
            let [count, first, next] = numbers;
            let unsent = Unsent::from(KeptUnsent { count, first, next, ends: [u32::MAX; 200].to_vec() });
            let untaken = Untaken::from(KeptUntaken { count, next: first, fill: next });
            for head in [0, 3, 65_535] {
                let place = Place { bytes: u32::from(count) * DESCRIPTOR_BYTES as u32, head };
                assert_eq!((unsent.packets(place), untaken.frames(place)), (0, 0), "{numbers:?}");
            }
            assert!(unsent.filled() <= MOST && minicbor::to_vec(&unsent).unwrap().len() <= unsent.length());
        }
    }
}
