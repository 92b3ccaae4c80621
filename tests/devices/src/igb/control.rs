//! Power-on values, resets, master disable, the link. 82576 datasheet 4.2 and 8.2.1. Pure.

use std::time::Duration;

use super::interrupts::cause;
use super::registers::{self as reg};
use super::{Igb, Kind, eeprom};
use crate::gigabit;

/// How long CTRL.RST reads as set.
const RESET: Duration = Duration::from_micros(3);
/// How long registers are not to be touched after CTRL.RST was set, 4.3.1; the EEPROM is read anew meanwhile.
const SETTLE: Duration = Duration::from_millis(1);

impl Igb {
    /// All registers as after power-on, the semaphores of software too, and the PHY.
    pub(super) fn power_on(&mut self) {
        self.registers.clear_all();
        let flash = if self.kind == Kind::I210 { reg::EEC_FLASH | reg::EEC_UPDATED } else { 0 };
        self.registers.set(reg::EEC, reg::EEC_PRESENT | eeprom::SIZE_FIELD << 11 | flash);
        self.registers.set(reg::FWSM, reg::FWSM_VALID);
        self.registers.set(reg::GCR, reg::GCR_VERSION_2);
        self.phy.reset(self.now);
        self.initialise();
    }

    /// What CTRL.RST does: everything but the EEPROM's registers, those of PCI Express with the semaphores, and the PHY.
    fn software_reset(&mut self) {
        if self.queues.is_in_flight() {
            self.misuse.note("a reset while the device reaches memory");
        }
        for offset in (0..reg::SPACE).step_by(4) {
            if !matches!(offset, reg::EEC | reg::EERD | reg::MDICNFG | reg::GCR..=reg::PCIE_END) {
                self.registers.set(offset, 0);
            }
        }
        self.initialise();
        self.reset_at = Some(self.now);
    }

    fn initialise(&mut self) {
        self.interrupts.reset();
        self.queues.reset();
        self.paused_until = Duration::ZERO;
        self.set_up_at = self.now + self.set_up_takes;
        let registers = &mut self.registers;
        registers.set(reg::VET, 0x8100);
        registers.set(reg::TCTL, reg::TCTL_PSP | 0xF << 4);
        registers.set(reg::RLPML, 0x2600);
        registers.set(reg::RXCSUM, reg::RXCSUM_IPOFLD | reg::RXCSUM_TUOFLD);
        let (receive, transmit, configured) = match self.kind {
            Kind::I82576 => (0x40, 0x28, reg::EEMNGCTL),
            Kind::I350 => (0, 0, reg::EEMNGCTL),
            Kind::I210 => (0x22, 0x0400_0014, reg::EEMNGCTL_I210),
        };
        registers.set(reg::RXPBS, receive);
        registers.set(reg::TXPBS, transmit);
        registers.set(configured, reg::EEMNGCTL_DONE);
        for queue in 0..self.kind.queues() {
            registers.set(reg::receive(queue) + reg::SRRCTL, 4 << 8);
        }
        let [a, b, c, d, e, f] = self.address;
        registers.set(reg::RAL, u32::from_le_bytes([a, b, c, d]));
        registers.set(reg::RAL + 4, u32::from_le_bytes([e, f, 0, 0]) | reg::RAH_AV);
        self.link = false;
    }

    /// Whether a reset still goes on.
    pub(super) fn in_reset(&self) -> bool {
        self.reset_at.is_some_and(|at| self.faults.reset_stuck || self.now < at + RESET)
    }

    fn is_settling(&self) -> bool {
        self.in_reset() || self.reset_at.is_some_and(|at| self.now < at + SETTLE)
    }

    /// A register is touched: too early after a reset? CTRL, STATUS and EEC are what drivers poll in spite of the datasheet.
    pub(super) fn check_settled(&mut self, offset: usize) {
        if !self.is_settling() {
            self.reset_at = None;
        } else if !matches!(offset, reg::CTRL | reg::STATUS | reg::EEC) {
            self.misuse.note(format!("register {offset:#x} was touched within 1 ms of a reset"));
        }
    }

    pub(super) fn read_ctrl(&self) -> u32 {
        let resetting = if self.in_reset() { reg::CTRL_RST } else { 0 };
        self.registers.get(reg::CTRL) | resetting
    }

    pub(super) fn write_ctrl(&mut self, value: u32) {
        let all_ports = value & reg::CTRL_DEV_RST != 0 && self.kind != Kind::I82576;
        if value & reg::CTRL_RST != 0 || all_ports {
            self.software_reset();
            if all_ports {
                self.registers.raise(reg::STATUS, reg::STATUS_DEV_RST_SET);
                self.raise(cause::DEVICE_RESET);
            }
            return;
        }
        let resets = value & reg::CTRL_PHY_RST != 0 && !self.registers.has(reg::CTRL, reg::CTRL_PHY_RST);
        self.registers.set(reg::CTRL, value);
        if resets {
            self.phy.reset(self.now);
            self.registers.raise(reg::STATUS, reg::STATUS_PHYRA);
        }
        self.notice_link();
    }

    /// Pause frames are to be sent: are their marks and their contents such that they can? 8.3.
    pub(super) fn check_pause(&mut self) {
        gigabit::check_pause(&self.registers, &mut self.misuse, self.kind.packet_memory() as u32);
    }

    /// EEC: the auto read is done where no reset goes on.
    pub(super) fn read_eec(&self) -> u32 {
        self.registers.get(reg::EEC) | if self.is_settling() { 0 } else { reg::EEC_AUTO_READ }
    }

    pub(super) fn read_status(&self) -> u32 {
        let disabled = self.registers.has(reg::CTRL, reg::CTRL_MASTER_DISABLE);
        let busy = self.queues.is_in_flight() || self.faults.master_stuck;
        let master = if disabled && !busy { 0 } else { reg::STATUS_MASTER };
        // Full duplex, 1000 Mbit/s.
        let link = if self.link { reg::STATUS_LU | 2 << 6 | 1 } else { 0 };
        let done = if self.kind == Kind::I82576 || self.in_reset() { 0 } else { reg::STATUS_RST_DONE };
        self.registers.get(reg::STATUS) | master | link | done
    }

    /// STATUS: PHYRA goes by writing it as zero, DEV_RST_SET by writing it as one.
    pub(super) fn write_status(&mut self, value: u32) {
        let held = self.registers.get(reg::STATUS);
        self.registers.set(reg::STATUS, held & (value | !reg::STATUS_PHYRA) & !(value & reg::STATUS_DEV_RST_SET));
    }

    /// The MAC has a link where the PHY has one and CTRL.SLU lets it; a change is told by LSC.
    pub(super) fn notice_link(&mut self) {
        let link = self.phy.has_link(self.now) && self.registers.has(reg::CTRL, reg::CTRL_SLU);
        if link != self.link {
            self.link = link;
            self.raise(cause::LSC);
        }
    }
}
