//! The drivers, by the PCI ids of their devices. Pure. Floor 3.

use super::family::{ABSENT, Family, Start, settle};
use super::ledger::Ledger;
use super::{Delay, Error, Interrupts, Nic, Options, e1000e, igb, ixgbe};
use crate::packet::Pool;
use alloc::boxed::Box;
use core::time::Duration;
use split_driver::memory::{DmaAllocator, Mmio};

/// CTRL, in all families.
const CTRL: usize = 0;

/// A device that there is a driver for.
#[derive(Clone, Copy, Debug)]
pub enum Model {
    /// Driven by [`e1000e`].
    E1000e(&'static e1000e::models::Model),
    /// Driven by [`igb`].
    Igb(&'static igb::models::Model),
    /// Driven by [`ixgbe`].
    Ixgbe(&'static ixgbe::models::Model),
}

impl Model {
    /// The model with these PCI ids.
    pub fn find(vendor: u16, device: u16) -> Option<Self> {
        let e1000e = e1000e::models::Model::find(vendor, device).map(Self::E1000e);
        let igb = || igb::models::Model::find(vendor, device).map(Self::Igb);
        let ixgbe = || ixgbe::models::Model::find(vendor, device).map(Self::Ixgbe);
        e1000e.or_else(igb).or_else(ixgbe)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::E1000e(model) => model.name,
            Self::Igb(model) => model.name,
            Self::Ixgbe(model) => model.name,
        }
    }

    /// The name of its driver.
    pub const fn driver(self) -> &'static str {
        match self {
            Self::E1000e(_) => e1000e::Hardware::NAME,
            Self::Igb(_) => igb::Hardware::NAME,
            Self::Ixgbe(_) => ixgbe::Hardware::NAME,
        }
    }

    /// Bytes of registers, from the beginning of BAR 0.
    pub const fn registers(self) -> usize {
        match self {
            Self::E1000e(_) => e1000e::Hardware::REGISTERS,
            Self::Igb(_) => igb::Hardware::REGISTERS,
            Self::Ixgbe(_) => ixgbe::Hardware::REGISTERS,
        }
    }

    /// MSI-X vectors that the driver makes use of with so many queues: one a queue, one for packets sent, one for the link. None where the
    /// device has no MSI-X.
    pub fn vectors(self, queues: usize) -> usize {
        let there = match self {
            Self::E1000e(model) => model.vectors(),
            Self::Igb(model) => model.vectors(),
            Self::Ixgbe(model) => model.vectors(),
        };
        there.min(queues.clamp(1, self.queues()) + 2)
    }

    /// Queues each way that the driver makes use of at most.
    pub const fn queues(self) -> usize {
        match self {
            Self::E1000e(_) => 1,
            Self::Igb(model) => model.queues(),
            Self::Ixgbe(_) => ixgbe::QUEUES,
        }
    }

    /// Bytes of the largest frame, frame check sequence not included.
    pub const fn max_frame(self) -> usize {
        match self {
            Self::E1000e(model) => model.max_frame(),
            Self::Igb(model) => model.max_frame(),
            Self::Ixgbe(model) => model.max_frame(),
        }
    }

    /// How often a device that an earlier life of the domain used is reset: where something was under way to memory, the first reset does not end
    /// it (82599 datasheet 5.2.5.3.2).
    pub const fn resets(self) -> usize {
        match self {
            Self::E1000e(_) | Self::Igb(_) => 1,
            Self::Ixgbe(_) => 2,
        }
    }

    /// Sees to what an earlier life left in such a device and its ledger, before the reset: counts what is lost, and gives back the semaphores that
    /// were held.
    pub fn settle<M: Mmio>(self, registers: &M, ledger: &Ledger, delay: Delay<'_>) {
        fn of<F: Family, M: Mmio>(family: &F, registers: &M, ledger: &Ledger, delay: Delay<'_>) {
            settle(family, registers, ledger);
            family.take_back(registers, delay);
        }
        match self {
            Self::E1000e(model) => of(&e1000e::Hardware::new(model, ledger), registers, ledger, delay),
            Self::Igb(model) => of(&igb::Hardware::new(model, ledger), registers, ledger, delay),
            Self::Ixgbe(model) => of(&ixgbe::Hardware::new(model, ledger), registers, ledger, delay),
        }
    }

    /// Begins to reset such a device, before it reaches memory again: its rings lie in memory that has other uses by now. No register may be
    /// touched for the time that this gives; then comes [`Self::release_phy`].
    pub fn begin_reset<M: Mmio>(self, registers: &M, ledger: &Ledger, delay: Delay<'_>) -> Duration {
        match self {
            Self::E1000e(model) => e1000e::Hardware::new(model, ledger).begin_reset(registers, delay),
            Self::Igb(model) => igb::Hardware::new(model, ledger).begin_reset(registers, delay),
            Self::Ixgbe(model) => ixgbe::Hardware::new(model, ledger).begin_reset(registers, delay),
        }
    }

    /// Gives firmware the PHY back.
    pub fn release_phy<M: Mmio>(self, registers: &M, ledger: &Ledger, delay: Delay<'_>) {
        match self {
            Self::E1000e(model) => e1000e::Hardware::new(model, ledger).release_phy(registers, delay),
            Self::Igb(model) => igb::Hardware::new(model, ledger).release_phy(registers, delay),
            Self::Ixgbe(model) => ixgbe::Hardware::new(model, ledger).release_phy(registers, delay),
        }
    }

    /// Whether the device does not answer.
    pub fn is_absent<M: Mmio>(registers: &M) -> bool {
        registers.read32(CTRL) == ABSENT
    }

    /// Whether that reset is over: CTRL.RST, at the same place in all families (82574 datasheet 10.2.2.1, 82576 datasheet 8.2.1, 82599 datasheet
    /// 8.2.3.1.1). Never where there is no device behind the registers.
    pub fn is_reset<M: Mmio>(registers: &M) -> bool {
        const RST: u32 = 1 << 26;
        let control = registers.read32(CTRL);
        control != ABSENT && control & RST == 0
    }

    /// Starts the device behind `mmio`, see [`Driver::start`](super::driver::Driver::start).
    ///
    /// # Errors
    /// [`Error`], with the device stopped.
    pub fn start<M: Mmio + 'static, A: DmaAllocator<Memory: 'static> + 'static>(
        self,
        mmio: M,
        dma: A,
        interrupts: Interrupts,
        pool: &Pool,
        options: Options,
        delay: Delay<'_>,
    ) -> Result<Box<dyn Nic>, Error> {
        Ok(match self {
            Self::E1000e(model) => Box::new(e1000e::E1000e::new(mmio, dma, model, interrupts, pool, options, delay)?),
            Self::Igb(model) => Box::new(igb::Igb::new(mmio, dma, model, interrupts, pool, options, delay)?),
            Self::Ixgbe(model) => Box::new(ixgbe::Ixgbe::new(mmio, dma, model, interrupts, pool, options, delay)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_driver() {
        let table = [(0x10D3, "e1000e", 3), (0x153A, "e1000e", 0), (0x10C9, "igb", 6), (0x1539, "igb", 4)];
        for (device, driver, vectors) in table.into_iter().chain([(0x10FB, "ixgbe", 6), (0x1528, "ixgbe", 6)]) {
            let model = Model::find(0x8086, device).expect("a model");
            assert_eq!((model.driver(), model.vectors(4)), (driver, vectors), "{}", model.name());
        }
        let all = e1000e::models::MODELS.iter().map(|model| model.device);
        let all = all.chain(igb::models::MODELS.iter().map(|model| model.device));
        let mut all: alloc::vec::Vec<u16> = all.chain(ixgbe::models::MODELS.iter().map(|model| model.device)).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "no id is of two families");
        assert!(Model::find(0x8086, 0x100E).is_none() && Model::find(0x10EC, 0x10D3).is_none());
    }
}
