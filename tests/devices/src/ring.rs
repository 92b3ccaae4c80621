//! The registers of a descriptor ring, at the same places from its first in all NICs of the 82575's line. Pure.

use crate::registers::Registers;

/// Offsets from a ring's first register; 82599 datasheet 8.2.3.8 and 8.2.3.9, 82576 datasheet 8.10 and 8.12.
pub mod offset {
    /// RDBAL, TDBAL.
    pub const BASE: usize = 0x00;
    /// RDLEN, TDLEN: bytes.
    pub const LENGTH: usize = 0x08;
    /// RDH, TDH.
    pub const HEAD: usize = 0x10;
    /// RDT, TDT.
    pub const TAIL: usize = 0x18;
    /// RXDCTL, TXDCTL.
    pub const CONTROL: usize = 0x28;
    /// TDWBAL: where the head is written back to.
    pub const HEAD_WRITE_BACK: usize = 0x38;
}

/// RXDCTL.ENABLE and TXDCTL.ENABLE.
pub const ENABLE: u32 = 1 << 25;
/// TXDCTL.SWFLSH and RXDCTL.SWFLUSH: write back what waits; clears itself.
pub const FLUSH: u32 = 1 << 26;

/// A ring as its registers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Where the first descriptor lies.
    pub base: u64,
    /// Descriptors.
    pub count: u32,
    /// The next descriptor of the device.
    pub head: u32,
    /// The next descriptor of the driver.
    pub tail: u32,
}

impl Ring {
    /// The ring whose first register lies at `first`. `None` where it has no descriptors, or head or tail lie beyond them.
    pub fn new(registers: &Registers, first: usize) -> Option<Self> {
        let ring = Self {
            base: registers.wide(first + offset::BASE) & !0x7F,
            count: registers.get(first + offset::LENGTH) / crate::advanced::BYTES as u32,
            head: registers.get(first + offset::HEAD),
            tail: registers.get(first + offset::TAIL),
        };
        (ring.head < ring.count && ring.tail < ring.count).then_some(ring)
    }

    /// Descriptors that the driver gave and the device did not take yet.
    pub const fn available(&self) -> u32 {
        if self.tail >= self.head { self.tail - self.head } else { self.count - self.head + self.tail }
    }

    /// Where descriptor `index` lies, counted on past the end.
    pub fn address(&self, index: u32) -> u64 {
        self.base.wrapping_add(u64::from(index % self.count) * crate::advanced::BYTES as u64)
    }

    /// The `taken` descriptors from the head on, as pieces that lie in a row: first one and how many.
    pub fn pieces(&self, taken: u32) -> impl Iterator<Item = (u32, u32)> {
        let to_end = taken.min(self.count - self.head);
        [(self.head, to_end), (0, taken - to_end)].into_iter().filter(|piece| piece.1 > 0)
    }

    /// The head after `taken` descriptors.
    pub const fn after(&self, taken: u32) -> u32 {
        (self.head + taken) % self.count
    }
}

/// How a ring is set up against the datasheet, if it is.
pub fn fault(registers: &Registers, first: usize) -> Option<&'static str> {
    let (base, length) = (registers.wide(first + offset::BASE), registers.get(first + offset::LENGTH));
    match () {
        () if length == 0 => Some("a ring without descriptors was enabled"),
        () if length % 128 != 0 => Some("a ring's length is no multiple of 128 bytes"),
        () if base % 128 != 0 => Some("a ring's base is not aligned to 128 bytes"),
        () if base == 0 => Some("a ring at address 0 was enabled"),
        () if registers.get(first + offset::HEAD) >= length / 16 => Some("a ring's head lies beyond it"),
        () if registers.get(first + offset::TAIL) >= length / 16 => Some("a ring's tail lies beyond it"),
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_wraps() {
        let ring = Ring { base: 0x1000, count: 8, head: 6, tail: 3 };
        assert_eq!((ring.available(), ring.after(5)), (5, 3));
        assert_eq!(ring.pieces(5).collect::<Vec<_>>(), [(6, 2), (0, 3)]);
        assert_eq!((ring.address(7), ring.address(9)), (0x1070, 0x1010));
    }

    #[test]
    fn faults_are_told() {
        let mut registers = Registers::new(0x40);
        assert!(Ring::new(&registers, 0).is_none());
        assert!(fault(&registers, 0).is_some());
        registers.set(offset::LENGTH, 128);
        registers.set(offset::BASE, 0x1040);
        assert_eq!(fault(&registers, 0), Some("a ring's base is not aligned to 128 bytes"));
        registers.set(offset::BASE, 0x1080);
        assert_eq!(fault(&registers, 0), None);
        registers.set(offset::TAIL, 8);
        assert_eq!(fault(&registers, 0), Some("a ring's tail lies beyond it"));
        assert!(Ring::new(&registers, 0).is_none());
    }
}
