//! Config space: BARs and capabilities, read through whatever gives access. Pure. Floor 2.

use super::PciError;
use core::ops::Range;

/// Vendor and device.
pub(super) const IDENTITY: u16 = 0x00;
/// COMMAND, 16 bits; STATUS is the upper half of the doubleword.
pub(super) const COMMAND: u16 = 0x04;
/// Revision and class.
pub(super) const CLASS: u16 = 0x08;
/// The first BAR.
const BAR0: u16 = 0x10;
/// The first capability.
const CAPABILITIES: u16 = 0x34;
/// INTERRUPT_LINE, 8 bits; pciback puts the pirq there.
pub(super) const INTERRUPT_LINE: u16 = 0x3c;
/// STATUS bit 4, in the doubleword at [`COMMAND`].
const STATUS_CAPABILITIES: u32 = 1 << 20;
/// The capability of MSI.
pub(super) const CAPABILITY_MSI: u8 = 0x05;
/// The capability of MSI-X.
const CAPABILITY_MSIX: u8 = 0x11;
/// Capabilities are doublewords from 0x40 to 0xff, so a longer list goes in circles.
const MAX_CAPABILITIES: usize = 48;

/// How much is read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    /// 16 bits.
    Word,
    /// 32 bits.
    Double,
}

impl Width {
    /// In bytes.
    pub(super) const fn bytes(self) -> u32 {
        match self {
            Self::Word => 2,
            Self::Double => 4,
        }
    }
}

/// Access to one device's config space. `offset` is a multiple of the width.
pub(super) trait ConfigSpace {
    async fn read(&self, offset: u16, width: Width) -> Result<u32, PciError>;
    async fn write(&self, offset: u16, width: Width, value: u32) -> Result<(), PciError>;
}

/// What a BAR describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bar {
    /// Memory.
    Memory {
        /// The machine address.
        address: u64,
        /// Bytes, a power of two.
        size: u64,
        /// Whether reads have no side effects.
        prefetchable: bool,
    },
    /// I/O ports.
    Ports {
        /// The first port.
        first: u32,
        /// How many, a power of two.
        size: u32,
    },
}

/// Where a capability lies, and its first doubleword.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Bytes into config space.
    pub offset: u16,
    /// The doubleword there: id, next, and 16 bits of the capability's own.
    pub header: u32,
}

/// Finds a capability by its id.
pub(super) async fn find_capability(config: &impl ConfigSpace, id: u8) -> Result<Option<Capability>, PciError> {
    if config.read(COMMAND, Width::Double).await? & STATUS_CAPABILITIES == 0 {
        return Ok(None);
    }
    let mut next = config.read(CAPABILITIES, Width::Double).await?;
    for _ in 0..MAX_CAPABILITIES {
        // The low two bits are reserved. What lies in the header is no capability: the list has ended.
        let offset = u16::from(next.to_le_bytes()[0] & 0xfc);
        if offset < 0x40 {
            break;
        }
        let header = config.read(offset, Width::Double).await?;
        let [found, after, ..] = header.to_le_bytes();
        if found == id {
            return Ok(Some(Capability { offset, header }));
        }
        next = u32::from(after);
    }
    Ok(None)
}

/// The value and the size pattern of one BAR register; leaves the value there.
async fn probe_register(config: &impl ConfigSpace, offset: u16) -> Result<(u32, u32), PciError> {
    let value = config.read(offset, Width::Double).await?;
    config.write(offset, Width::Double, u32::MAX).await?;
    let pattern = config.read(offset, Width::Double).await?;
    config.write(offset, Width::Double, value).await?;
    Ok((value, pattern))
}

/// What BAR `index` describes (PCI Local Bus 3.0, section 6.2.5.1).
pub(super) async fn read_bar(config: &impl ConfigSpace, index: u8) -> Result<Option<Bar>, PciError> {
    let offset = BAR0 + 4 * u16::from(index);
    let unusable = |address, size| PciError::UnusableBar { index, address, size };
    if index > 5 {
        return Err(unusable(0, 0));
    }
    let (value, pattern) = probe_register(config, offset).await?;
    if pattern == 0 || pattern == u32::MAX {
        return Ok(None);
    }
    if pattern & 1 != 0 {
        // The upper half of the pattern may be hard-wired to zero: ports have 16 bits.
        let size = (!(pattern | 0xffff_0000 | 3)).wrapping_add(4);
        return Ok(Some(Bar::Ports { first: value & !3, size }));
    }
    let mut address = u64::from(value & !0xf);
    let mut mask = u64::from(pattern & !0xf) | 0xffff_ffff_0000_0000;
    if pattern & 0x6 == 0x4 {
        if index == 5 {
            return Err(unusable(address, 0));
        }
        let (high, high_pattern) = probe_register(config, offset + 4).await?;
        address |= u64::from(high) << 32;
        mask = u64::from(pattern & !0xf) | u64::from(high_pattern) << 32;
    }
    let size = (!mask).wrapping_add(1);
    let fits = address
        .checked_add(size)
        // x86 has 52 bits of physical address.
        .is_some_and(|end| end <= 1 << 52);
    if !size.is_power_of_two() || address == 0 || !address.is_multiple_of(size) || !fits {
        return Err(unusable(address, size));
    }
    Ok(Some(Bar::Memory { address, size, prefetchable: pattern & 8 != 0 }))
}

/// What the MSI-X capability says (PCI Local Bus 3.0, section 6.8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Msix {
    /// Entries of the table: 1 to 2048.
    pub(super) entries: u16,
    table: u32,
    pending: u32,
}

impl Msix {
    /// The pages of BAR `index` that hold the table or the pending bits.
    pub(super) fn pages_in(self, index: u8, page: usize) -> impl Iterator<Item = Range<usize>> {
        let entries = usize::from(self.entries);
        [(self.table, entries * 16), (self.pending, entries.div_ceil(64) * 8)]
            .into_iter()
            .filter(move |(place, _)| place & 7 == u32::from(index))
            .map(move |(place, length)| {
                let start = (place & !7) as usize;
                start / page..(start + length).div_ceil(page)
            })
    }
}

/// The MSI-X capability, where the device has one.
pub(super) async fn read_msix(config: &impl ConfigSpace) -> Result<Option<Msix>, PciError> {
    let Some(capability) = find_capability(config, CAPABILITY_MSIX).await? else {
        return Ok(None);
    };
    // A capability at the very end of the space leaves no room for the two doublewords.
    if capability.offset > 0xf4 {
        return Ok(None);
    }
    let table = config.read(capability.offset + 4, Width::Double).await?;
    let pending = config.read(capability.offset + 8, Width::Double).await?;
    let [_, _, low, high] = capability.header.to_le_bytes();
    Ok(Some(Msix { entries: (u16::from_le_bytes([low, high]) & 0x7ff) + 1, table, pending }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;
    use core::cell::RefCell;
    use core::future::Future;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};

    /// Config space as pciback emulates it: a BAR holds its value, or its pattern after a write of all ones.
    struct Fake {
        words: RefCell<Vec<u32>>,
        patterns: [u32; 6],
        sizing: RefCell<[bool; 6]>,
    }

    impl Fake {
        fn new(bars: [(u32, u32); 6], more: &[(u16, u32)]) -> Self {
            let mut words = vec![0u32; 64];
            for (index, (value, _)) in bars.iter().enumerate() {
                words[4 + index] = *value;
            }
            for (offset, value) in more {
                words[usize::from(*offset) / 4] = *value;
            }
            Self { words: RefCell::new(words), patterns: bars.map(|(_, pattern)| pattern), sizing: RefCell::default() }
        }
    }

    impl ConfigSpace for Fake {
        async fn read(&self, offset: u16, width: Width) -> Result<u32, PciError> {
            assert!(u32::from(offset).is_multiple_of(width.bytes()));
            let index = usize::from(offset) / 4;
            if (4..10).contains(&index) && self.sizing.borrow()[index - 4] {
                return Ok(self.patterns[index - 4]);
            }
            Ok(self.words.borrow()[index])
        }

        async fn write(&self, offset: u16, _: Width, value: u32) -> Result<(), PciError> {
            let index = usize::from(offset) / 4;
            assert!((4..10).contains(&index), "only BARs are written");
            assert!(value == u32::MAX || value == self.words.borrow()[index], "a BAR is restored to what it was");
            self.sizing.borrow_mut()[index - 4] = value == u32::MAX;
            Ok(())
        }
    }

    fn now<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => unreachable!("the fake never waits"),
        }
    }

    const NONE: (u32, u32) = (0, 0);

    #[test]
    fn bars_of_every_kind() {
        let fake = Fake::new(
            [
                (0xfebc_0000, 0xfffe_0000),
                (0x0000_c001, 0x0000_ffe1),
                (0xe000_000c, 0xff00_000c),
                (0x0000_0001, 0xffff_ffff),
                (0xfebd_4000, 0xffff_c000),
                NONE,
            ],
            &[],
        );
        let memory = |address, size, prefetchable| Ok(Some(Bar::Memory { address, size, prefetchable }));
        assert_eq!(now(read_bar(&fake, 0)), memory(0xfebc_0000, 0x2_0000, false));
        assert_eq!(now(read_bar(&fake, 1)), Ok(Some(Bar::Ports { first: 0xc000, size: 32 })));
        assert_eq!(now(read_bar(&fake, 2)), memory(0x1_e000_0000, 0x100_0000, true));
        assert_eq!(now(read_bar(&fake, 4)), memory(0xfebd_4000, 0x4000, false));
        assert_eq!(now(read_bar(&fake, 5)), Ok(None));
        assert!(now(read_bar(&fake, 6)).is_err());
        assert_eq!(*fake.sizing.borrow(), [false; 6], "sizing was ended");
    }

    #[test]
    fn bars_that_cannot_be() {
        let fake = Fake::new(
            [
                // Not assigned.
                (0, 0xffff_f000),
                // Not aligned to its size.
                (0x1000, 0xfffe_0000),
                // Holes in the pattern.
                (0x1_0000, 0xfff0_f000),
                NONE,
                NONE,
                // 64 bits, without a second half.
                (0xfebc_0004, 0xfffe_0004),
            ],
            &[],
        );
        for index in [0, 1, 2, 5] {
            assert!(matches!(now(read_bar(&fake, index)), Err(PciError::UnusableBar { .. })), "BAR {index}");
        }
    }

    #[test]
    fn capabilities() {
        let list = [
            (COMMAND, STATUS_CAPABILITIES),
            (CAPABILITIES, 0xc8),
            (0xc8, 0x0000_d001),
            (0xd0, 0x0080_e005),
            (0xe0, 0x0001_a010),
            (0xa0, 0x0004_0011),
            (0xa4, 0x0000_0003),
            (0xa8, 0x0000_2003),
        ];
        let fake = Fake::new([NONE; 6], &list);
        assert_eq!(now(find_capability(&fake, CAPABILITY_MSI)).map(|found| found.map(|c| c.offset)), Ok(Some(0xd0)));
        assert_eq!(now(find_capability(&fake, 0x42)), Ok(None));
        let msix = now(read_msix(&fake)).ok().flatten().expect("MSI-X");
        assert_eq!(msix.entries, 5);
        assert_eq!(msix.pages_in(3, 4096).collect::<Vec<_>>(), [0..1, 2..3]);
        assert_eq!(msix.pages_in(0, 4096).count(), 0);
        // Without the STATUS bit there is no list, and one that goes in circles ends.
        let fake = Fake::new([NONE; 6], &list[1..]);
        assert_eq!(now(find_capability(&fake, CAPABILITY_MSI)), Ok(None));
        let circle = [list[0], list[1], (0xc8, 0x0000_c801)];
        let fake = Fake::new([NONE; 6], &circle);
        assert_eq!(now(find_capability(&fake, CAPABILITY_MSI)), Ok(None));
    }
}
