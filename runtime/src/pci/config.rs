//! Config space: what little of it is read, through whatever gives access. Pure. Floor 2.
//!
//! Each access costs a turn of pciback's domain, so nothing is looked at that something else tells: the size of a BAR is the driver's
//! to know, and whether a device has a kind of interrupt shows when pciback is asked for it.

use super::error::PciError;

/// Vendor and device.
pub(super) const IDENTITY: u16 = 0x00;
/// COMMAND, 16 bits.
pub(super) const COMMAND: u16 = 0x04;
/// Revision and class.
pub(super) const CLASS: u16 = 0x08;
/// The first BAR.
const BAR0: u16 = 0x10;
/// INTERRUPT_LINE, 8 bits; pciback puts the pirq there.
pub(super) const INTERRUPT_LINE: u16 = 0x3c;
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

/// Where the memory of BAR `index` begins, in machine addresses (PCI Local Bus 3.0, section 6.2.5.1).
pub(super) async fn memory_bar(config: &impl ConfigSpace, index: u8) -> Result<u64, PciError> {
    let unusable = |address| PciError::UnusableBar { index, address };
    if index > 5 {
        return Err(unusable(0));
    }
    let offset = BAR0 + 4 * u16::from(index);
    let low = config.read(offset, Width::Double).await?;
    // Ports.
    if low & 1 != 0 {
        return Err(unusable(low.into()));
    }
    let mut address = u64::from(low & !0xf);
    if low & 0x6 == 0x4 {
        if index == 5 {
            return Err(unusable(address));
        }
        address |= u64::from(config.read(offset + 4, Width::Double).await?) << 32;
    }
    if address == 0 { Err(unusable(0)) } else { Ok(address) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::cell::Cell;
    use core::future::Future;
    use core::pin::pin;
    use core::task::{Context, Poll, Waker};

    /// Six BARs. pciback may answer something else the second time, so none is read twice.
    struct Fake {
        bars: [u32; 6],
        read: Cell<u8>,
    }

    impl ConfigSpace for Fake {
        async fn read(&self, offset: u16, width: Width) -> Result<u32, PciError> {
            assert_eq!((offset % 4, width), (0, Width::Double));
            let index = usize::from(offset / 4).checked_sub(4).expect("only BARs are read");
            assert_eq!(self.read.get() & 1 << index, 0, "BAR {index} is read twice");
            self.read.set(self.read.get() | 1 << index);
            Ok(self.bars[index])
        }

        async fn write(&self, _: u16, _: Width, _: u32) -> Result<(), PciError> {
            unreachable!("nothing is written")
        }
    }

    fn now<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => value,
            Poll::Pending => unreachable!("the fake never waits"),
        }
    }

    #[test]
    fn where_bars_lie() {
        let bars = [0xfebc_0000, 0x0000_c001, 0xe000_000c, 0x0000_0001, 0, 0xfebc_0004];
        let base = |index| now(memory_bar(&Fake { bars, read: Cell::new(0) }, index));
        let unusable = |index, address| Err(PciError::UnusableBar { index, address });
        assert_eq!(base(0), Ok(0xfebc_0000));
        assert_eq!(base(1), unusable(1, 0xc001), "ports");
        assert_eq!(base(2), Ok(0x1_e000_0000), "64 bits, prefetchable");
        assert_eq!(base(4), unusable(4, 0), "not implemented, or not assigned");
        assert_eq!(base(5), unusable(5, 0xfebc_0000), "64 bits, without a second half");
        assert_eq!(base(6), unusable(6, 0), "no such BAR");
    }
}
