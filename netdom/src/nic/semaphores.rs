//! The semaphores by which firmware and the drivers of a device's other ports keep out of each other's way: SWSM for a moment, and under it
//! `SW_FW_SYNC`, a bit for each part of the device (82599 datasheet 10.5.4, X540 datasheet 11.7.5, 82576 datasheet 4.7). A reset of the MAC gives
//! nothing back that is held: where a life of the domain ends, the next one knows by the ledger what it has to give back. Pure. Floor 3.

use super::Delay;
use super::family::wait;
use super::ledger::Ledger;
use core::cell::Cell;
use core::time::Duration;
use split_driver::memory::Mmio;

/// SWSM, SMBI: a driver has it. Set by reading.
const DRIVERS: u32 = 1 << 0;
/// SWSM, SWESMBI: software has it, not firmware. Stays clear while firmware has it.
const SOFTWARE: u32 = 1 << 1;
/// `SW_FW_SYNC`, REGSMP: from the X540 on, this register is in use. Set by reading.
const REGISTER: u32 = 1 << 31;

/// How often SWSM is looked at, and how far apart (Linux: 2,000 times, 50 us).
const LOOKS: u32 = 2000;
const PAUSE: Duration = Duration::from_micros(50);
/// How often, where it is tried again later: others have it for some register accesses.
const FEW_LOOKS: u32 = 50;
/// How often `SW_FW_SYNC` is, and how far apart (Linux: 200 times, 5 ms; a restart stops all guests meanwhile).
const ROUNDS: u32 = 40;
const ROUND: Duration = Duration::from_millis(5);

/// Where a family has them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The offset of SWSM.
    pub(super) swsm: usize,
    /// The offset of `SW_FW_SYNC`.
    pub(super) sync: usize,
    /// How far the bits of firmware lie above those of software.
    pub(super) firmware: u32,
    /// `SW_FW_SYNC` has a semaphore of its own in place of firmware's in SWSM.
    pub(super) by_register: bool,
}

/// The semaphores of a device.
#[derive(Debug)]
pub(super) struct Semaphores {
    place: Place,
    ledger: Ledger,
    /// Bits of `SW_FW_SYNC` that this driver has and no longer needs: SWSM was not free when they were to be given back.
    owed: Cell<u32>,
}

/// Whether a semaphore that is not given back is taken after all.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Force {
    /// Its owner is no more: it was waited for as long as Linux waits.
    Yes,
    /// Its owner may be at work.
    No,
    /// Its owner is no more, unless it gives it back at once: an earlier life held it, or was about to.
    Soon,
    /// It may be, and is not waited for.
    Later,
}

impl Semaphores {
    pub(super) fn new(place: Place, ledger: &Ledger) -> Self {
        Self { place, ledger: ledger.clone(), owed: Cell::new(0) }
    }

    /// Changes `SW_FW_SYNC`, where `change` wants it, and gives back what is owed. `None` where it could not be had.
    fn change<M: Mmio>(
        &self,
        mmio: &M,
        delay: Delay<'_>,
        force: Force,
        change: impl FnOnce(u32) -> Option<u32>,
    ) -> Option<bool> {
        let Place { swsm, sync: place, by_register, .. } = self.place;
        let (looks, forces) = match force {
            Force::Yes => (LOOKS, true),
            Force::No => (LOOKS, false),
            Force::Soon => (FEW_LOOKS, true),
            Force::Later => (FEW_LOOKS, false),
        };
        self.ledger.set_register(true);
        let free = wait(delay, PAUSE, looks, || mmio.read32(swsm) & DRIVERS == 0);
        if !free && !forces {
            self.ledger.set_register(false);
            return None;
        }
        let mut sync = 0;
        let had = if by_register {
            wait(delay, PAUSE, looks, || {
                sync = mmio.read32(place);
                sync & REGISTER == 0
            })
        } else {
            let had = wait(delay, PAUSE, looks, || {
                mmio.write32(swsm, DRIVERS | SOFTWARE);
                mmio.read32(swsm) & SOFTWARE != 0
            });
            sync = mmio.read32(place);
            had
        };
        if !had && !forces {
            mmio.write32(swsm, 0);
            self.ledger.set_register(false);
            return None;
        }
        let owed = self.owed.take();
        let left = sync & !owed;
        let changed = change(left);
        if changed.is_some() || owed != 0 || by_register {
            mmio.write32(place, changed.unwrap_or(left) & !REGISTER);
        }
        // What it no longer holds, owed or cleared.
        self.ledger.set_parts(self.ledger.parts() & changed.unwrap_or(left));
        mmio.write32(swsm, 0);
        self.ledger.set_register(false);
        Some(changed.is_some())
    }

    /// Takes parts of the device, named by their bits, where they are free.
    fn take<M: Mmio>(&self, mmio: &M, bits: u32, delay: Delay<'_>, force: Force) -> Option<bool> {
        self.change(mmio, delay, force, |sync| {
            (sync & (bits | bits << self.place.firmware) == 0).then(|| self.with(sync, bits))
        })
    }

    /// `SW_FW_SYNC` with parts that are held from now on.
    fn with(&self, sync: u32, bits: u32) -> u32 {
        self.ledger.set_parts(self.ledger.parts() | bits);
        sync | bits
    }

    /// Gives back what an earlier life held when it ended: the ledger knows. Firmware and the other port's driver have all of it for moments only.
    pub(super) fn take_back<M: Mmio>(&self, mmio: &M, delay: Delay<'_>) {
        let own = (1 << self.place.firmware) - 1;
        let (parts, register) = (self.ledger.parts() & own, self.ledger.has_register());
        if parts == 0 && !register {
            return;
        }
        let force = if register { Force::Soon } else { Force::Yes };
        self.change(mmio, delay, force, |sync| Some(sync & !parts));
        self.ledger.set_parts(0);
    }

    /// Waits for parts of the device, a fifth of a second at most.
    fn wait<M: Mmio>(&self, mmio: &M, bits: u32, delay: Delay<'_>) -> bool {
        for _ in 0..ROUNDS {
            match self.take(mmio, bits, delay, Force::No) {
                Some(true) => return true,
                Some(false) => delay(ROUND),
                // It was looked at for long already.
                None => break,
            }
        }
        false
    }

    /// Takes a part of the device at the start, for what cannot be left, until [`Self::release`]. It is taken from an owner that does not give it
    /// back in time.
    pub(super) fn acquire<M: Mmio>(&self, mmio: &M, bit: u32, delay: Delay<'_>) {
        if !self.wait(mmio, bit, delay) {
            self.change(mmio, delay, Force::Yes, |sync| Some(self.with(sync, bit)));
        }
    }

    /// Gives it back.
    pub(super) fn release<M: Mmio>(&self, mmio: &M, bit: u32, delay: Delay<'_>) {
        self.owed.set(self.owed.get() | bit);
        self.change(mmio, delay, Force::No, |_| None);
    }

    /// Waits at the start for parts of the device, once for all that is done with them. They are of this port alone,
    /// which was just reset: where software still has
    /// them, it is no more, and they are free after that. Firmware keeps them; what needs them is to be tried later.
    pub(super) fn clear<M: Mmio>(&self, mmio: &M, bits: u32, delay: Delay<'_>) {
        self.wait(mmio, bits, delay);
        self.change(mmio, delay, Force::Yes, |sync| Some(sync & !bits));
    }

    /// Waits at the start for parts of the device that another driver may have, as [`Self::clear`] does, and leaves them to their owner.
    pub(super) fn wait_for<M: Mmio>(&self, mmio: &M, bits: u32, delay: Delay<'_>) {
        if self.wait(mmio, bits, delay) {
            self.release(mmio, bits, delay);
        }
    }

    /// Does something while a part of the device is this driver's. `None` where another owner has it now: it is not waited for, but for the
    /// moments in which a semaphore is looked at, each of a register's time.
    pub(super) fn try_hold<M: Mmio, T>(
        &self,
        mmio: &M,
        bit: u32,
        delay: Delay<'_>,
        act: impl FnOnce(Delay<'_>) -> T,
    ) -> Option<T> {
        let had = self.take(mmio, bit, &mut |_| (), Force::Later) == Some(true);
        had.then(|| {
            let result = act(delay);
            self.owed.set(self.owed.get() | bit);
            self.give_back(mmio);
            result
        })
    }

    /// Gives back what could not be given back when it was no longer needed. To be called about once a second.
    pub(super) fn give_back<M: Mmio>(&self, mmio: &M) {
        if self.owed.get() != 0 {
            self.change(mmio, &mut |_| (), Force::Later, |_| None);
        }
    }
}
