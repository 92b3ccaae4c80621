//! Power-on values, resets, master disable, the link. 82574 datasheet 4.2 and 10.2.2. Pure.

use std::time::Duration;

use super::interrupts::cause;
use super::registers::{self as reg};
use super::{E1000e, Kind};
use crate::gigabit;

/// How long registers are not to be touched after CTRL.RST was set; the EEPROM is read anew meanwhile.
const SETTLE: Duration = Duration::from_millis(1);
/// PBA after a reset: KiB of packet memory for receive and for transmit, 10.2.2.
const PACKET_MEMORY: u32 = 20 << 16 | 20;
/// The same of a PCH, in Linux' `e1000_reset`.
const PCH_PACKET_MEMORY: u32 = 26;

impl E1000e {
    /// All registers as after power-on.
    pub(super) fn initialise(&mut self) {
        self.interrupts.reset();
        self.queues.reset();
        self.paused_until = Duration::ZERO;
        let registers = &mut self.registers;
        registers.clear_all();
        registers.set(reg::EEC, reg::EEC_PRESENT);
        registers.set(reg::VET, 0x8100);
        registers.set(reg::PBA, if self.kind == Kind::Pch { PCH_PACKET_MEMORY } else { PACKET_MEMORY });
        registers.set(reg::TARC0, 0x403);
        if self.kind == Kind::Serdes {
            // A tool left it in loopback, which no reset ends.
            registers.set(reg::SCTL, reg::SCTL_LOOPBACK);
            registers.set(reg::CTRL, reg::CTRL_LRST);
        }
        let [a, b, c, d, e, f] = self.address;
        registers.set(reg::RAL, u32::from_le_bytes([a, b, c, d]));
        registers.set(reg::RAL + 4, u32::from_le_bytes([e, f, 0, 0]) | reg::RAH_AV);
        self.link = false;
    }

    /// CTRL.RST: everything but the PHY and the registers of PCI Express, with the semaphores.
    fn software_reset(&mut self) {
        if self.queues.is_in_flight() {
            self.misuse.note("a reset while the device reaches memory");
        }
        if !self.kind.has_two_ports() && !self.registers.has(reg::EXTCNF_CTRL, reg::EXTCNF_MDIO) {
            self.misuse.note("a reset while firmware may use the bus to the PHY");
        }
        self.reset_at = Some(self.now);
        if self.hollow {
            return;
        }
        let kept: Vec<_> = (reg::GCR..reg::PCIE_END).step_by(4).map(|at| (at, self.registers.get(at))).collect();
        self.initialise();
        for (at, value) in kept {
            self.registers.set(at, value);
        }
    }

    /// Whether a reset still goes on.
    pub(super) fn in_reset(&self) -> bool {
        self.reset_at.is_some_and(|at| self.faults.reset_stuck || self.now < at + SETTLE)
    }

    /// A register is touched: too early after a reset? Drivers poll CTRL, STATUS and EEC meanwhile.
    pub(super) fn check_settled(&mut self, offset: usize) {
        if !self.in_reset() {
            self.reset_at = None;
        } else if !matches!(offset, reg::CTRL | reg::STATUS | reg::EEC) {
            self.misuse.note(format!("register {offset:#x} was touched within 1 ms of a reset"));
        }
    }

    pub(super) fn write_ctrl(&mut self, value: u32) {
        if value & reg::CTRL_RST != 0 {
            return self.software_reset();
        }
        self.registers.set(reg::CTRL, value);
        if self.kind == Kind::Serdes && value & reg::CTRL_SLU != 0 && self.registers.has(reg::TXCW, reg::TXCW_ANE) {
            self.misuse.note("CTRL.SLU forces a link that TXCW.ANE negotiates");
        }
        self.notice_link();
    }

    /// Pause frames are to be sent: are their marks and their contents such that they can? 10.2.2 and 10.2.5.
    pub(super) fn check_pause(&mut self) {
        let buffer = (self.registers.get(reg::PBA) & 0xFFFF) << 10;
        gigabit::check_pause(&self.registers, &mut self.misuse, buffer);
    }

    /// EEC: the auto read is done where no reset goes on.
    pub(super) fn read_eec(&self) -> u32 {
        self.registers.get(reg::EEC) | if self.in_reset() { 0 } else { reg::EEC_AUTO_READ }
    }

    pub(super) fn read_status(&self) -> u32 {
        let disabled = self.registers.has(reg::CTRL, reg::CTRL_MASTER_DISABLE);
        let busy = self.queues.is_in_flight() || self.faults.master_stuck;
        let master = if disabled && !busy { 0 } else { reg::STATUS_MASTER };
        // Full duplex.
        let link = if self.link { reg::STATUS_LU | self.speed << 6 | 1 } else { 0 };
        self.registers.get(reg::STATUS) | master | link
    }

    /// Whether a SerDes is up: negotiated, or forced, which it is without a cable, too.
    fn serdes_is_up(&self) -> bool {
        let ready =
            !self.registers.has(reg::CTRL, reg::CTRL_LRST) && self.registers.get(reg::SCTL) == reg::SCTL_NO_LOOPBACK;
        let negotiates = self.registers.has(reg::TXCW, reg::TXCW_ANE);
        ready
            && if negotiates {
                self.cable && self.partner_negotiates
            } else {
                self.registers.has(reg::CTRL, reg::CTRL_SLU)
            }
    }

    /// RXCW: in step, and what the other end sends and advertises.
    pub(super) fn read_rxcw(&self) -> u32 {
        let negotiated = self.link && self.registers.has(reg::TXCW, reg::TXCW_ANE);
        let word = if self.partner_negotiates { 1 << 5 | u32::from(self.partner_pause) >> 3 } else { 0 };
        let configures = if self.partner_negotiates && !negotiated { reg::RXCW_C } else { 0 };
        let done = if negotiated { reg::RXCW_ANC } else { 0 };
        if self.cable { word | configures | done | reg::RXCW_SYNCH } else { 0 }
    }

    /// The MAC has a link where the PHY has one and CTRL.SLU lets it; a change is told by LSC.
    pub(super) fn notice_link(&mut self) {
        let link = if self.kind == Kind::Serdes {
            self.serdes_is_up()
        } else {
            self.cable && self.registers.has(reg::CTRL, reg::CTRL_SLU)
        };
        if link != self.link {
            self.link = link;
            self.raise(cause::LSC);
        }
    }
}
