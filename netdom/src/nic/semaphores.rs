//! The semaphores by which firmware and the drivers of a device's other ports keep out of each other's way: SWSM for a moment, and under it
//! `SW_FW_SYNC`, a bit for each part of the device (82599 datasheet 10.5.4, X540 datasheet 11.7.5, 82576 datasheet 4.7). Pure. Floor 3.

use super::Delay;
use super::family::wait;
use core::time::Duration;
use split_driver::memory::Mmio;

/// SWSM, SMBI: a driver has it. Set by reading.
const DRIVERS: u32 = 1 << 0;
/// SWSM, SWESMBI: software has it, not firmware. Stays clear while firmware has it.
const SOFTWARE: u32 = 1 << 1;
/// `SW_FW_SYNC`, REGSMP: from the X540 on, this register is in use. Set by reading.
const REGISTER: u32 = 1 << 31;

/// How often one is looked at, and how far apart (Linux: 2,000 times, 50 us). One that is not given back in that time was left so by an owner
/// that is no more, and is taken.
const PATIENCE: u32 = 2000;
const PAUSE: Duration = Duration::from_micros(50);
/// Of them, between two looks at `SW_FW_SYNC`.
const ROUND: u32 = 100;

/// Where a family has them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Semaphores {
    /// The offset of SWSM.
    pub(super) swsm: usize,
    /// The offset of `SW_FW_SYNC`.
    pub(super) sync: usize,
    /// How far the bits of firmware lie above those of software.
    pub(super) firmware: u32,
    /// `SW_FW_SYNC` has a semaphore of its own in place of firmware's in SWSM.
    pub(super) by_register: bool,
}

impl Semaphores {
    /// Changes `SW_FW_SYNC`, where `change` wants it.
    fn change<M: Mmio>(&self, mmio: &M, delay: Delay<'_>, change: impl FnOnce(u32) -> Option<u32>) -> bool {
        wait(delay, PAUSE, PATIENCE, || mmio.read32(self.swsm) & DRIVERS == 0);
        let mut sync = 0;
        if self.by_register {
            wait(delay, PAUSE, PATIENCE, || {
                sync = mmio.read32(self.sync);
                sync & REGISTER == 0
            });
        } else {
            wait(delay, PAUSE, PATIENCE, || {
                mmio.write32(self.swsm, DRIVERS | SOFTWARE);
                mmio.read32(self.swsm) & SOFTWARE != 0
            });
            sync = mmio.read32(self.sync);
        }
        let changed = change(sync);
        if changed.is_some() || self.by_register {
            mmio.write32(self.sync, changed.unwrap_or(sync) & !REGISTER);
        }
        mmio.write32(self.swsm, 0);
        changed.is_some()
    }

    /// Does something while a part of the device, named by its bit, is this driver's.
    pub(super) fn hold<M: Mmio, T>(&self, mmio: &M, bit: u32, delay: Delay<'_>, act: impl FnOnce(Delay<'_>) -> T) -> T {
        for round in 1..=PATIENCE / ROUND {
            let taken = self.change(mmio, delay, |sync| {
                let free = sync & (bit | bit << self.firmware) == 0;
                (free || round == PATIENCE / ROUND).then_some(sync | bit)
            });
            if taken {
                break;
            }
            delay(PAUSE * ROUND);
        }
        let result = act(delay);
        self.change(mmio, delay, |sync| Some(sync & !bit));
        result
    }
}
