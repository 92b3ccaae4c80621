//! The link of an 82571 or 82572 without a PHY, over fibre or a backplane: the MAC negotiates by itself (IEEE 802.3, clause 37), and where the
//! other end does not, the link is forced (Linux: `e1000_check_for_serdes_link_82571`). Pure. Floor 3.

use super::registers::{self as reg, Ctrl, Registers, Rxcw, Txcw};
use crate::nic::pause::{Abilities, Pause};
use split_driver::memory::Mmio;

/// Has the link negotiated, or forced where the other end does not negotiate.
fn set<M: Mmio>(registers: &Registers<'_, M>, negotiate: bool) {
    let Abilities { symmetric, asymmetric } = Abilities::LOCAL;
    let word = Txcw::new().with_full_duplex(true).with_symmetric(symmetric).with_asymmetric(asymmetric);
    registers.write(reg::TXCW, word.with_negotiate(negotiate));
    registers.update(reg::CTRL, |ctrl: Ctrl| {
        ctrl.with_link_reset(false).with_set_link_up(!negotiate).with_full_duplex(true)
    });
}

/// Begins to negotiate, pause frames in both directions among what is advertised.
pub(super) fn start<M: Mmio>(registers: &Registers<'_, M>) {
    registers.write(reg::SCTL, reg::NO_LOOPBACK);
    set(registers, true);
}

/// What is received, and whether it is in step and has no symbols that are none.
fn received<M: Mmio>(registers: &Registers<'_, M>) -> (Rxcw, bool) {
    // What was wrong since it was read last stays in it.
    let _past = registers.read(reg::RXCW);
    let seen: Rxcw = registers.read(reg::RXCW);
    (seen, seen.synchronised() && !seen.invalid())
}

/// Whether a link that STATUS says to be up is: it says so of one that is forced with no other end, too.
pub(super) fn is_up<M: Mmio>(registers: &Registers<'_, M>) -> bool {
    registers.read(reg::TXCW).negotiate() || received(registers).1
}

/// To be called about once a second: forces the link where the other end sends and did not negotiate the last time either, `alone`, and
/// negotiates again where it begins to, or is gone. True where it does not negotiate.
pub(super) fn watch<M: Mmio>(registers: &Registers<'_, M>, alone: bool) -> bool {
    let (seen, sends) = received(registers);
    let negotiates = registers.read(reg::TXCW).negotiate();
    if !negotiates && (seen.configures() || !sends) {
        log::info!("e1000e: the other end of the link {}", if sends { "negotiates" } else { "sends nothing" });
        set(registers, true);
        return false;
    }
    let mute = negotiates && sends && !seen.configures() && !registers.read(reg::STATUS).link_up();
    if mute && alone {
        log::info!("e1000e: the other end of the link does not negotiate: the link is forced");
        set(registers, false);
    }
    mute
}

/// What the two ends agree on; both directions where the other end does not negotiate.
pub(super) fn negotiated<M: Mmio>(registers: &Registers<'_, M>) -> Pause {
    let (here, there): (Txcw, Rxcw) = (registers.read(reg::TXCW), registers.read(reg::RXCW));
    if !here.negotiate() {
        return Pause::BOTH;
    }
    Pause::resolve(
        Abilities { symmetric: here.symmetric(), asymmetric: here.asymmetric() },
        Abilities { symmetric: there.symmetric(), asymmetric: there.asymmetric() },
    )
}
