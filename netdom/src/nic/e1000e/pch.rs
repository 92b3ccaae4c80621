//! What the MAC of a platform controller hub (PCH) wants beside: bits that Linux's `ich8lan.c` and `netdev.c` write, and errata of the I217 to
//! I219. Pure. Floor 3.

use super::models::{Kind, Model};
use super::registers::{self as reg, Ctrl, CtrlExt, Registers};
use split_driver::memory::Mmio;

/// The I219s of Sunrise Point and Kaby Lake.
const SUNRISE_POINT: [u16; 9] = [0x156F, 0x1570, 0x15B7, 0x15B8, 0x15B9, 0x15D7, 0x15D8, 0x15E3, 0x15D6];

/// Before a reset: an I219 that reads several descriptors at a time may keep one (Linux: `e1000_flush_desc_rings`).
pub(super) fn before_reset<M: Mmio>(registers: &Registers<'_, M>, model: &Model) {
    if model.kind == Kind::I219 {
        registers.update(reg::FEXTNVM11, |held| held | reg::SINGLE_READ_FIX_OFF);
    }
}

/// After a reset: the band gap of the PHY's transmitter (Linux: `e1000_reset_hw_ich8lan`).
pub(super) fn after_reset<M: Mmio>(registers: &Registers<'_, M>) {
    registers.update(reg::KABGTXD, |held| held | reg::BAND_GAP);
}

/// What is set in TARC0: 23, 24, 26 and 27 as the errata ask; an I219 has two requests to memory at a time, as three may hang it.
pub(super) const fn arbitration(model: &Model) -> u32 {
    let errata = 1 << 23 | 1 << 24 | 1 << 26 | 1 << 27;
    match model.kind {
        Kind::I219 => errata | 0x2 << 28,
        Kind::I82571 | Kind::I82573 | Kind::I82574 | Kind::I217 => errata,
    }
}

/// Sets the bits that every start sets.
pub(super) fn prepare<M: Mmio>(registers: &Registers<'_, M>, model: &Model) {
    // An error of the packet buffer stops the device, not a frame's contents.
    registers.update(reg::PBECCSTS, |held| held | reg::PACKET_BUFFER_ECC);
    registers.update(reg::CTRL, |ctrl: Ctrl| ctrl.with_memory_errors(true));
    registers.update(reg::CTRL_EXT, |control: CtrlExt| control.with_must_be_set(true));
    listen_for_beacon(registers);
    match model.kind {
        // It may corrupt what it sends.
        Kind::I219 if SUNRISE_POINT.contains(&model.device) => {
            registers.update(reg::IOSFPC, |held| held | reg::TRANSMIT_ERRATUM);
        }
        Kind::I82571 | Kind::I82573 | Kind::I82574 | Kind::I217 | Kind::I219 => {}
    }
}

/// It loses frames where it listens for the other end's beacon for less than 8 us. The Management Engine may change that (Linux:
/// `e1000_check_for_copper_link_ich8lan`), so that it is set anew with each link.
pub(super) fn listen_for_beacon<M: Mmio>(registers: &Registers<'_, M>) {
    registers.update(reg::FEXTNVM4, |held| held & !7 | reg::BEACON_8_US);
}
