//! A device's registers, typed, each at an offset that is checked when the driver is built. Pure. Floor 1.

use core::marker::PhantomData;

use crate::memory::{DeviceAddress, Mmio, Quiesced};

/// What a register reads as where there is no device.
const ABSENT: u32 = u32::MAX;

/// A part of a device's register space that has registers of its own.
pub trait Block {
    /// Its bytes.
    const BYTES: usize;
}

/// A register of the block `B` that holds a `T`.
#[derive(Debug)]
pub struct Reg<B, T> {
    offset: usize,
    holds: PhantomData<fn() -> (B, T)>,
}

impl<B, T> Clone for Reg<B, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B, T> Copy for Reg<B, T> {}

impl<B: Block, T> Reg<B, T> {
    /// A register at the byte `offset` of its block.
    ///
    /// # Panics
    /// Where it does not lie in the block, is not aligned or not of 32 bits: in a constant, the build fails.
    pub const fn at(offset: usize) -> Self {
        assert!(size_of::<T>() == 4, "a register is 32 bits");
        assert!(offset.is_multiple_of(4), "registers are aligned");
        assert!(offset + 4 <= B::BYTES, "beyond the registers");
        Self { offset, holds: PhantomData }
    }

    /// Registers one behind the other, the first at the byte `offset` of their block.
    ///
    /// # Panics
    /// As [`Self::at`].
    pub const fn array<const COUNT: usize>(offset: usize) -> [Self; COUNT] {
        let mut all = [Self::at(offset); COUNT];
        let mut place = 0;
        while place < COUNT {
            all[place] = Self::at(offset + 4 * place);
            place += 1;
        }
        all
    }

    /// The byte offset in its block.
    pub const fn offset(self) -> usize {
        self.offset
    }

    /// Its value in the block that begins at the byte `base` of `mmio`.
    pub fn read<M: Mmio>(self, mmio: &M, base: usize) -> T
    where
        T: From<u32>,
    {
        T::from(mmio.read32(base + self.offset))
    }

    /// Sets it.
    pub fn write<M: Mmio>(self, mmio: &M, base: usize, value: T)
    where
        T: Into<u32>,
    {
        mmio.write32(base + self.offset, value.into());
    }

    /// Reads it, and sets it to what `change` makes of its value.
    pub fn update<M: Mmio>(self, mmio: &M, base: usize, change: impl FnOnce(T) -> T)
    where
        T: From<u32> + Into<u32>,
    {
        self.write(mmio, base, change(self.read(mmio, base)));
    }

    /// Reads it, and gives the proof where its value says that the device has stopped. A device that is not there proves nothing.
    pub fn confirm<M: Mmio>(self, mmio: &M, base: usize, stopped: impl FnOnce(T) -> bool) -> Option<Quiesced>
    where
        T: From<u32>,
    {
        let value = mmio.read32(base + self.offset);
        (value != ABSENT && stopped(T::from(value))).then(|| Quiesced::of(mmio.reach()))
    }
}

/// Two registers of the block `B` that hold the low and the high half of an address.
#[derive(Debug)]
pub struct Base<B> {
    low: Reg<B, u32>,
    high: Reg<B, u32>,
}

impl<B> Clone for Base<B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Base<B> {}

impl<B: Block> Base<B> {
    /// The low half at the byte `offset` of the block, the high one behind it.
    pub const fn at(offset: usize) -> Self {
        Self { low: Reg::at(offset), high: Reg::at(offset + 4) }
    }

    /// The register of the low half.
    #[cfg(any(test, feature = "fakes"))]
    pub const fn low(self) -> Reg<B, u32> {
        self.low
    }

    /// The register of the high half.
    #[cfg(any(test, feature = "fakes"))]
    pub const fn high(self) -> Reg<B, u32> {
        self.high
    }

    /// Sets both, the low half first.
    pub fn write<M: Mmio>(self, mmio: &M, base: usize, address: DeviceAddress) {
        let [low, high] = address.halves();
        self.low.write(mmio, base, low);
        self.high.write(mmio, base, high);
    }
}
