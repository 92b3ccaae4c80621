//! Registers of a copper PHY (IEEE 802.3, clause 45), and the semaphores that are shared with firmware and the other port. Pure. Floor 3.

use super::models::{Kind, Model};
use super::registers::{self as reg, Msca};
use crate::nic::Delay;
use crate::nic::family::wait;
use crate::nic::ledger::Ledger;
use crate::nic::pause::Abilities;
use crate::nic::semaphores::{Place, Semaphores};
use core::time::Duration;
use split_driver::memory::Mmio;

/// Auto-negotiation (MMD 7, IEEE 802.3, table 45-1).
pub(super) const NEGOTIATION: u8 = 7;

/// What a PHY advertises in it, and what the other end does (IEEE 802.3, 45.2.7.6 and 45.2.7.7).
pub(super) const ADVERTISEMENT: u16 = 16;
pub(super) const PARTNER: u16 = 19;

/// The vendor's registers of an X540's or X550's PHY.
const VENDOR: u8 = 30;

/// The semaphores of a device.
pub(super) fn semaphores(model: &Model, ledger: &Ledger) -> Semaphores {
    let by_register = matches!(model.kind, Kind::X540 | Kind::X550);
    Semaphores::new(Place { swsm: reg::SWSM, sync: reg::SW_FW_SYNC, firmware: 5, by_register }, ledger)
}

/// The bit of this port's PHY in them (`PHY0_SM`, `PHY1_SM`): it is neither firmware's nor another driver's while it is held.
pub(super) fn bit<M: Mmio>(mmio: &M) -> u32 {
    1 << (1 + (reg::STATUS.read(mmio, 0).port() & 1))
}

/// Begins with a copper PHY: it is woken, where a driver before this one put that of an X540 or X550 to sleep (Linux:
/// `ixgbe_set_copper_phy_power`), and advertises pause frames for links that come up from now on. False where firmware has it now.
pub(super) fn begin<M: Mmio>(mmio: &M, model: &Model, semaphores: &Semaphores, delay: Delay<'_>) -> bool {
    const CONTROL: u16 = 0;
    const LOW_POWER: u16 = 1 << 11;
    let begun = semaphores.try_hold(mmio, bit(mmio), delay, |delay| {
        let sleeps = |word: &u16| matches!(model.kind, Kind::X540 | Kind::X550) && word & LOW_POWER != 0;
        if let Some(word) = read(mmio, VENDOR, CONTROL, delay).filter(sleeps) {
            log::info!("ixgbe: the PHY is asleep: it is woken");
            write(mmio, VENDOR, CONTROL, word & !LOW_POWER, delay);
        }
        let word = read(mmio, NEGOTIATION, ADVERTISEMENT, delay);
        if let Some(word) = word.filter(|word| word & Abilities::BITS != Abilities::BITS) {
            write(mmio, NEGOTIATION, ADVERTISEMENT, word | Abilities::BITS, delay);
        }
    });
    begun.is_some()
}

/// One cycle on the bus, of some 30 us. False where it does not end. Without a clock the looks themselves are the time.
fn cycle<M: Mmio>(mmio: &M, command: Msca, delay: Delay<'_>) -> bool {
    reg::MSCA.write(mmio, 0, command.with_command(true));
    wait(delay, Duration::from_micros(10), 2000, || !reg::MSCA.read(mmio, 0).command())
}

/// Reads a register. `None` where no PHY answers. The PHY is the caller's by its [`bit`].
pub(super) fn read<M: Mmio>(mmio: &M, device: u8, register: u16, delay: Delay<'_>) -> Option<u16> {
    let command = Msca::new().with_device(device).with_register(register);
    let done = cycle(mmio, command, delay) && cycle(mmio, command.with_operation(3), delay);
    Some((reg::MSRWD.read(mmio, 0) >> 16) as u16).filter(|word| done && *word != u16::MAX)
}

/// Writes a register. The PHY is the caller's by its [`bit`].
pub(super) fn write<M: Mmio>(mmio: &M, device: u8, register: u16, value: u16, delay: Delay<'_>) {
    let command = Msca::new().with_device(device).with_register(register);
    reg::MSRWD.write(mmio, 0, value.into());
    let _done = cycle(mmio, command, delay) && cycle(mmio, command.with_operation(1), delay);
}
