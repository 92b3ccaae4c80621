//! The copper PHY behind MDIC: what both ends of the link can (IEEE 802.3, clause 22). Pure. Floor 3.

use super::models::{Kind, Model};
use super::registers::{self as reg, Mdic, Registers};
use crate::nic::Delay;
use crate::nic::family::wait;
use crate::nic::ledger::Ledger;
use crate::nic::pause::{Abilities, Pause};
use core::time::Duration;
use split_driver::memory::Mmio;

/// Registers of the PHY (IEEE 802.3, table 22-6).
const ADVERTISEMENT: u8 = 4;
const PARTNER: u8 = 5;
/// How often a register is read until it says that something has ended. Each read takes a device's time, so no clock is needed.
const LOOKS: u32 = 2000;
/// How often, and how far apart, what an earlier life may have held is looked at before it is taken from its owner: who lives has it for moments.
const FEW_LOOKS: u32 = 50;
const PAUSE: Duration = Duration::from_micros(50);

fn ended(done: impl FnMut() -> bool) -> bool {
    wait(&mut |_| (), Duration::ZERO, LOOKS, done)
}

/// Reads a register of the PHY; `None` where it fails, as it does where there is none. The bus to it is software's.
fn read<M: Mmio>(registers: &Registers<'_, M>, model: &Model, register: u8) -> Option<u16> {
    // The PCH's PHYs have the registers of IEEE 802.3 at address 2 (Linux: `e1000_get_phy_addr_for_hv_page`).
    let address = if model.is_pch() { 2 } else { 1 };
    registers.write(reg::MDIC, Mdic::new().with_phy(address).with_register(register).with_operation(2));
    let mut seen = Mdic::new();
    let ready = ended(|| {
        seen = registers.read(reg::MDIC);
        seen.ready()
    });
    (ready && !seen.error()).then_some(seen.data())
}

/// Takes the bus to the PHY, which is shared with firmware: by EXTCNF_CTRL, on the 82571 by SWSM, which its other port shares as well. False
/// where another owner has it; the request is withdrawn then.
fn own<M: Mmio>(registers: &Registers<'_, M>, model: &Model, ledger: &Ledger) -> bool {
    let owned = match model.kind {
        Kind::I82571 => {
            // Reading sets the bit.
            ledger.set_register(true);
            if !ended(|| !registers.read(reg::SWSM).driver()) {
                ledger.set_register(false);
                return false;
            }
            ended(|| {
                registers.write(reg::SWSM, reg::Swsm::new().with_driver(true).with_software(true));
                registers.read(reg::SWSM).software()
            })
        }
        Kind::I82573 | Kind::I82574 | Kind::I217 | Kind::I219 => ended(|| {
            registers.update(reg::EXTCNF_CTRL, |control: reg::ExtcnfCtrl| control.with_mdio_owned(true));
            registers.read(reg::EXTCNF_CTRL).mdio_owned()
        }),
    };
    if !owned {
        disown(registers, model, ledger);
    }
    owned
}

/// Gives the bus back.
fn disown<M: Mmio>(registers: &Registers<'_, M>, model: &Model, ledger: &Ledger) {
    match model.kind {
        Kind::I82571 => {
            registers.write(reg::SWSM, reg::Swsm::new());
            ledger.set_register(false);
        }
        Kind::I82573 | Kind::I82574 | Kind::I217 | Kind::I219 => {
            registers.update(reg::EXTCNF_CTRL, |control: reg::ExtcnfCtrl| control.with_mdio_owned(false));
        }
    }
}

/// Gives back an 82571's SWSM, where an earlier life held it or was about to: a reset does not. EXTCNF_CTRL is this port's alone, and each reset
/// ends with it given back.
pub(super) fn take_back<M: Mmio>(registers: &Registers<'_, M>, model: &Model, ledger: &Ledger, delay: Delay<'_>) {
    if model.kind == Kind::I82571 && ledger.has_register() {
        // Reading takes it where it is free.
        wait(delay, PAUSE, FEW_LOOKS, || !registers.read(reg::SWSM).driver());
        disown(registers, model, ledger);
    }
}

/// What the PHY negotiated; no pause frames where it does not tell. `None` where another owner has the bus to it.
pub(super) fn negotiated<M: Mmio>(registers: &Registers<'_, M>, model: &Model, ledger: &Ledger) -> Option<Pause> {
    if !own(registers, model, ledger) {
        return None;
    }
    let ability = |register| read(registers, model, register).map(Abilities::of_word).unwrap_or_default();
    let pause = Pause::resolve(ability(ADVERTISEMENT), ability(PARTNER));
    disown(registers, model, ledger);
    Some(pause.on_duplex(registers.read(reg::STATUS).full_duplex()))
}
