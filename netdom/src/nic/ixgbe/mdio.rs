//! Registers of a copper PHY (IEEE 802.3, clause 45), and the semaphores that are shared with firmware and the other port. Pure. Floor 3.

use super::models::{Kind, Model};
use super::registers::{self as reg, Msca};
use crate::nic::Delay;
use crate::nic::family::wait;
use core::time::Duration;
use split_driver::memory::Mmio;

/// Auto-negotiation (MMD 7, IEEE 802.3, table 45-1).
pub(super) const NEGOTIATION: u8 = 7;

/// How often a semaphore is looked at, 50 us apart (Linux: 2,000 times). One that is not given back in that time was left so by an owner that
/// is no more.
const PATIENCE: u32 = 2000;
const PAUSE: Duration = Duration::from_micros(50);

/// The bit of this port's PHY in `SW_FW_SYNC`.
fn phy<M: Mmio>(mmio: &M) -> u8 {
    if reg::STATUS.read(mmio, 0).port() & 1 == 0 { 1 << 1 } else { 1 << 2 }
}

/// Changes `SW_FW_SYNC` under its semaphores (82599 datasheet 10.5.4, X540 datasheet 11.7.5). False where `change` says so.
fn change<M: Mmio>(
    mmio: &M,
    model: &Model,
    delay: Delay<'_>,
    change: impl FnOnce(reg::SwFwSync) -> Option<reg::SwFwSync>,
) -> bool {
    wait(delay, PAUSE, PATIENCE, || !reg::SWSM.read(mmio, 0).drivers());
    let by_register = matches!(model.kind, Kind::X540 | Kind::X550);
    let sync = if by_register {
        let mut sync = reg::SwFwSync::new();
        wait(delay, PAUSE, PATIENCE, || {
            sync = reg::SW_FW_SYNC.read(mmio, 0);
            !sync.taken()
        });
        sync
    } else {
        wait(delay, PAUSE, PATIENCE, || {
            reg::SWSM.update(mmio, 0, |swsm: reg::Swsm| swsm.with_software(true));
            reg::SWSM.read(mmio, 0).software()
        });
        reg::SW_FW_SYNC.read(mmio, 0)
    };
    let changed = change(sync);
    reg::SW_FW_SYNC.write(mmio, 0, changed.unwrap_or(sync).with_taken(false));
    reg::SWSM.write(mmio, 0, reg::Swsm::new());
    changed.is_some()
}

/// Does something while this port's PHY is software's: neither firmware's nor another driver's.
pub(super) fn with_phy<M: Mmio, T>(mmio: &M, model: &Model, delay: Delay<'_>, act: impl FnOnce(Delay<'_>) -> T) -> T {
    let bit = phy(mmio);
    for last in (0..PATIENCE / 100).map(|round| round + 1 == PATIENCE / 100) {
        let taken = change(mmio, model, delay, |sync| {
            let free = (sync.software() | sync.firmware()) & bit == 0;
            (free || last).then(|| sync.with_software(sync.software() | bit))
        });
        if taken {
            break;
        }
        delay(PAUSE * 100);
    }
    let result = act(delay);
    change(mmio, model, delay, |sync| Some(sync.with_software(sync.software() & !bit)));
    result
}

/// One cycle on the bus. False where it does not end.
fn cycle<M: Mmio>(mmio: &M, command: Msca, delay: Delay<'_>) -> bool {
    reg::MSCA.write(mmio, 0, command.with_command(true));
    wait(delay, Duration::from_micros(10), 100, || !reg::MSCA.read(mmio, 0).command())
}

/// Reads a register. `None` where no PHY answers. The PHY is the caller's by [`with_phy`].
pub(super) fn read<M: Mmio>(mmio: &M, device: u8, register: u16, delay: Delay<'_>) -> Option<u16> {
    let command = Msca::new().with_device(device).with_register(register);
    let done = cycle(mmio, command, delay) && cycle(mmio, command.with_operation(3), delay);
    Some((reg::MSRWD.read(mmio, 0) >> 16) as u16).filter(|word| done && *word != u16::MAX)
}

/// Writes a register. The PHY is the caller's by [`with_phy`].
pub(super) fn write<M: Mmio>(mmio: &M, device: u8, register: u16, value: u16, delay: Delay<'_>) {
    let command = Msca::new().with_device(device).with_register(register);
    reg::MSRWD.write(mmio, 0, value.into());
    let _done = cycle(mmio, command, delay) && cycle(mmio, command.with_operation(1), delay);
}
