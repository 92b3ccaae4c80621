//! Power-on values, resets, master disable. 82599 datasheet 4.2 and 8.2.3.1. Pure.

use std::time::Duration;

use super::registers::{self as reg};
use super::{Ixgbe, Kind, eeprom};

/// How long CTRL.RST reads as set.
const RESET: Duration = Duration::from_micros(3);
/// How long registers are not to be touched after CTRL.RST was set, 8.2.3.1.1.
const SETTLE: Duration = Duration::from_millis(1);
/// How long it takes until a restart of the link by AUTOC shows in ANLP1.
const RESTART: Duration = Duration::from_millis(3);

impl Ixgbe {
    /// All registers as after power-on, the semaphores of software too.
    pub(super) fn power_on(&mut self) {
        self.registers.clear_all();
        let eec = reg::EEC_PRESENT | reg::EEC_AUTO_READ | eeprom::SIZE_FIELD << 11;
        self.registers.set(reg::EEC, eec);
        self.registers.set(reg::FWSM, reg::FWSM_VALID);
        self.initialise();
        self.cage.power_on(&self.registers);
    }

    /// What CTRL.RST does: everything but the EEPROM's and the firmware's registers (those above 0x10000), and the pins.
    pub(super) fn software_reset(&mut self) {
        if self.queues.is_in_flight() {
            self.misuse.note("a reset while the device reaches memory");
        }
        for offset in (0..0x1_0000).step_by(4).filter(|offset| !matches!(*offset, reg::MMNGC | reg::ESDP)) {
            self.registers.set(offset, 0);
        }
        self.initialise();
        self.reset_at = Some(self.now);
        self.resets += 1;
    }

    fn initialise(&mut self) {
        self.interrupts.reset();
        self.queues.reset();
        self.paused_until = Duration::ZERO;
        let registers = &mut self.registers;
        let (autoc, autoc2) = match self.kind {
            // KX4 and KX, by autonegotiation.
            Kind::Kx4 => (0xC000_0000 | 4 << 13 | 1 << 7, 0),
            // 10G serial, SFI.
            Kind::Sfp => (3 << 13, 2 << 16),
            // XAUI to the PHY.
            Kind::T3 => (1 << 13, 0),
            Kind::X540 | Kind::X550 => (0, 0),
        };
        registers.set(reg::AUTOC, autoc);
        registers.set(reg::AUTOC2, autoc2);
        registers.set(reg::HLREG0, 0x0801_0000 | reg::HLREG0_TXPADEN | reg::HLREG0_RXCRCSTRP | 1);
        registers.set(reg::MAXFRS, 1518 << 16);
        registers.set(reg::VLNCTRL, 0x8100);
        registers.set(reg::DMATXCTL, 0x8100 << 16);
        registers.set(reg::RDRXCTL, reg::RDRXCTL_CRCSTRIP | reg::RDRXCTL_DMAIDONE);
        registers.set(reg::SECTXSTAT, 1);
        registers.set(reg::SECRXSTAT, 1);
        // RXPBSIZE and TXPBSIZE: all of it for one traffic class.
        // The X540 and the X550 leave it to the driver.
        let receive = if self.kind.has_phy() { 0 } else { self.kind.packet_memory() };
        registers.set(reg::RXPBSIZE, receive);
        registers.set(0xCC00, 160 << 10);
        for queue in 0..super::QUEUES {
            registers.set(reg::receive(queue) + reg::SRRCTL, 2 | 4 << 8);
        }
        let [a, b, c, d, e, f] = self.address;
        registers.set(reg::RAL, u32::from_le_bytes([a, b, c, d]));
        registers.set(reg::RAL + 4, u32::from_le_bytes([e, f, 0, 0]) | reg::RAH_AV);
    }

    /// Whether a reset still goes on.
    pub(super) fn in_reset(&self) -> bool {
        self.reset_at.is_some_and(|at| self.faults.reset_stuck || self.now < at + RESET)
    }

    /// A register is touched: too early after a reset? What lies above 0x10000 is not reset; polling CTRL, and flushing by STATUS, is
    /// what drivers do in spite of the datasheet, which wants 1 ms before that too.
    pub(super) fn check_settled(&mut self, offset: usize) {
        let Some(at) = self.reset_at else { return };
        if self.in_reset() || self.now < at + SETTLE {
            if offset < 0x1_0000 && offset != reg::CTRL && offset != reg::STATUS {
                self.misuse.note(format!("register {offset:#x} was touched within 1 ms of a reset"));
            }
        } else {
            self.reset_at = None;
        }
    }

    pub(super) fn read_ctrl(&self) -> u32 {
        let resetting = if self.in_reset() { reg::CTRL_RST } else { 0 };
        self.registers.get(reg::CTRL) | resetting
    }

    pub(super) fn write_ctrl(&mut self, value: u32) {
        if value & (reg::CTRL_RST | reg::CTRL_LRST) != 0 {
            self.software_reset();
            return;
        }
        self.registers.set(reg::CTRL, value);
    }

    pub(super) fn read_status(&self) -> u32 {
        let disabled = self.registers.has(reg::CTRL, reg::CTRL_MASTER_DISABLE);
        let busy = self.queues.is_in_flight() || self.faults.master_stuck;
        if disabled && !busy { 0 } else { reg::STATUS_MASTER }
    }

    /// Pause frames are to be sent: are their marks and their time such that they can? 8.2.3.3.
    pub(super) fn check_pause(&mut self) {
        let get = |offset| self.registers.get(offset);
        let (low, high) = (get(reg::FCRTL), get(reg::FCRTH));
        if let Some(fault) = crate::pause::fault(low & 0x7_FFFF, high & 0x7_FFFF, get(reg::RXPBSIZE)) {
            self.misuse.note(fault);
        }
        if high & reg::FCRTH_FCEN == 0 || self.registers.get(reg::FCTTV) & 0xFFFF == 0 {
            self.misuse.note("pause frames are sent while FCRTH.FCEN is clear, or with no time");
        }
    }

    /// ANLP1's state of auto-negotiation: none until a restart has taken hold.
    pub(super) fn negotiation(&self) -> u32 {
        let begun = !self.faults.negotiation_stuck && self.now >= self.restarted_at + RESTART;
        u32::from(begun) << 16
    }

    /// A link that fell shows as down once, even if it is up again.
    pub(super) fn read_links(&mut self) -> u32 {
        let fell = std::mem::take(&mut self.link_fell);
        let speed = match self.cage.speed().unwrap_or(self.speed) {
            100 => reg::LINKS_100M,
            1000 => reg::LINKS_1G,
            2500 => reg::LINKS_10G | reg::LINKS_OTHER,
            5000 => reg::LINKS_100M | reg::LINKS_OTHER,
            _ => reg::LINKS_10G,
        };
        if self.has_link() && !fell { reg::LINKS_UP | speed | reg::LINKS_AN_COMPLETE } else { 0 }
    }
}
