//! The copper PHY behind MDIC: it has a link, and says what both ends can (IEEE 802.3, clause 22). Pure. Floor 3.

use super::models::{Kind, Model};
use super::registers::{self as reg, Mdic};
use crate::nic::Delay;
use crate::nic::e1000e::flow;
use crate::nic::family::wait;
use crate::nic::ledger::Ledger;
use crate::nic::pause::{Abilities, Marks, Pause};
use crate::nic::semaphores::{Place, Semaphores};
use core::time::Duration;
use split_driver::memory::Mmio;

/// Registers of the PHY (IEEE 802.3, table 22-6).
const CONTROL: u8 = 0;
const ADVERTISEMENT: u8 = 4;
const PARTNER: u8 = 5;

/// An access to a register of the PHY; `None` where it fails, as it does where there is none.
/// The PHY is the caller's by its [`bit`]. It has 2,000 looks (Linux: 1,920, 50 us apart).
fn access<M: Mmio>(mmio: &M, operation: Mdic, delay: Delay<'_>) -> Option<u16> {
    reg::MDIC.write(mmio, 0, operation.with_phy(1));
    let mut seen = Mdic::new();
    let ended = wait(delay, Duration::from_micros(50), 2000, || {
        seen = reg::MDIC.read(mmio, 0);
        seen.ready()
    });
    (ended && !seen.error()).then_some(seen.data())
}

fn read<M: Mmio>(mmio: &M, register: u8, delay: Delay<'_>) -> Option<u16> {
    access(mmio, Mdic::new().with_register(register).with_operation(2), delay)
}

fn write<M: Mmio>(mmio: &M, register: u8, value: u16, delay: Delay<'_>) {
    let _done = access(mmio, Mdic::new().with_register(register).with_operation(1).with_data(value), delay);
}

/// The semaphores of a device.
pub(super) fn semaphores(ledger: &Ledger) -> Semaphores {
    let place = Place { swsm: reg::SWSM, sync: reg::SW_FW_SYNC, firmware: 16, by_register: false };
    Semaphores::new(place, ledger)
}

/// The bit of this port's PHY in them: it is neither firmware's nor another driver's while it is held.
fn bit<M: Mmio>(mmio: &M) -> u32 {
    // SW_PHY_SM0 to 3.
    const PHY: [u32; 4] = [1 << 1, 1 << 2, 1 << 5, 1 << 6];
    let port = reg::STATUS.read(mmio, 0).lan_id();
    PHY.get(usize::from(port)).copied().unwrap_or(0)
}

/// Waits until the PHY was set up from the non-volatile memory (82576 datasheet 4.3, CFG_DONE; Linux goes on after 100 ms, too: a device
/// without such memory never says so).
fn wait_for_set_up<M: Mmio>(mmio: &M, model: &Model, delay: Delay<'_>) {
    let done = reg::SET_UP << reg::STATUS.read(mmio, 0).lan_id();
    let register = match model.kind {
        Kind::I82576 | Kind::I82580 | Kind::I350 => reg::EEMNGCTL,
        Kind::I210 | Kind::I211 => reg::EEMNGCTL_I210,
    };
    if !wait(delay, Duration::from_millis(1), 100, || register.read(mmio, 0) & done != 0) {
        log::debug!("igb: the PHY is not said to be set up");
    }
}

/// Has the PHY negotiate where there is no link, or where it does not advertise pause frames, and turns it on where a driver before this one
/// turned it off. Any other link that is up stays: it is seen within a moment of a reset. False where firmware has the PHY, and [`begin`] is
/// to be tried later.
pub(super) fn start_link<M: Mmio>(mmio: &M, model: &Model, semaphores: &Semaphores, delay: Delay<'_>) -> bool {
    wait_for_set_up(mmio, model, delay);
    semaphores.clear(mmio, bit(mmio), delay);
    begin(mmio, semaphores, delay)
}

/// The same, once the PHY was set up and waited for.
pub(super) fn begin<M: Mmio>(mmio: &M, semaphores: &Semaphores, delay: Delay<'_>) -> bool {
    semaphores.try_hold(mmio, bit(mmio), delay, |delay| negotiate(mmio, delay)).is_some()
}

fn negotiate<M: Mmio>(mmio: &M, delay: Delay<'_>) {
    const POWER_DOWN: u16 = 1 << 11;
    /// Auto-negotiation: enabled, and begun anew (IEEE 802.3, 22.2.4.1).
    const NEGOTIATE: u16 = 1 << 12 | 1 << 9;
    let up = wait(delay, Duration::from_micros(100), 50, || reg::STATUS.read(mmio, 0).link_up());
    let advertised = read(mmio, ADVERTISEMENT, delay).filter(|word| word & Abilities::BITS != Abilities::BITS);
    if let Some(word) = advertised {
        write(mmio, ADVERTISEMENT, word | Abilities::BITS, delay);
    }
    if up && advertised.is_none() {
        return;
    }
    if let Some(control) = read(mmio, CONTROL, delay) {
        write(mmio, CONTROL, control & !POWER_DOWN | NEGOTIATE, delay);
    }
}

/// Bytes of the receive packet buffer (82576 datasheet 8.3; Linux: `e1000_rxpbs_adjust_82580`, `E1000_PBA_34K`).
fn packet_buffer<M: Mmio>(mmio: &M, model: &Model) -> u32 {
    const I82580: [u32; 11] = [36, 72, 144, 1, 2, 4, 8, 16, 35, 70, 140];
    let size = reg::RXPBS.read(mmio, 0);
    let kibibytes = match model.kind {
        Kind::I82576 => size & 0x7F,
        Kind::I82580 | Kind::I350 => I82580.get(size as usize & 0xF).copied().unwrap_or(0),
        Kind::I210 | Kind::I211 => 34,
    };
    kibibytes << 10
}

/// Has the MAC do about pause frames what the PHY negotiated (82576 datasheet 3.5.5). `None` where another owner has the PHY now.
pub(super) fn settle_pause<M: Mmio>(
    mmio: &M,
    model: &Model,
    semaphores: &Semaphores,
    max_frame: usize,
) -> Option<Pause> {
    let negotiated = semaphores.try_hold(mmio, bit(mmio), &mut |_| (), |delay| {
        let mut ability = |register| read(mmio, register, delay).map(Abilities::of_word).unwrap_or_default();
        Pause::resolve(ability(ADVERTISEMENT), ability(PARTNER))
    })?;
    let pause = negotiated.on_duplex(reg::STATUS.read(mmio, 0).full_duplex());
    // Two frames: one that the other end has begun, and one that this end has.
    flow::apply(mmio, "igb", pause, Marks::gigabit(packet_buffer(mmio, model), 2, max_frame + 4));
    Some(pause)
}
