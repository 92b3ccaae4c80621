//! What reading and writing a register does. 82599 datasheet 8.2.3. Pure.

use super::registers::{self as reg};
use super::{Ixgbe, Kind, phy};
use crate::queues::Direction;
use crate::ring::{self, offset as place};

impl Ixgbe {
    pub(super) fn read_register(&mut self, offset: usize) -> u32 {
        self.check_settled(offset);
        if offset >= reg::SPACE {
            // Flash, empty.
            return u32::MAX;
        }
        let offset = reg::canonical(offset);
        let held = self.registers.get(offset);
        match offset {
            reg::CTRL => self.read_ctrl(),
            reg::STATUS => self.read_status(),
            reg::ESDP => held & !4 | u32::from(self.cage.is_full()) << 2,
            reg::PCS1GLSTA if self.cage.speed() == Some(1000) => reg::PCS1GLSTA_AN_COMPLETE,
            reg::PCS1GANLP => u32::from(self.partner_pause.0) << 7 | u32::from(self.partner_pause.1) << 8,
            reg::I2CCTL => self.read_wires(held),
            reg::EICR => self.interrupts.read(&self.registers, &self.configuration),
            reg::EICS => self.interrupts.pending(),
            reg::EIMS => self.interrupts.enabled(),
            reg::EIMC => 0,
            _ if offset & !4 == reg::EIMS_EX => self.interrupts.enabled_vectors((offset / 4) & 1),
            reg::SWSM => {
                self.registers.raise(reg::SWSM, reg::SWSM_SMBI);
                held
            }
            reg::SW_FW_SYNC if self.kind.has_phy() => {
                self.registers.raise(reg::SW_FW_SYNC, reg::SW_FW_SYNC_REGISTERS);
                held
            }
            reg::LINKS => self.read_links(),
            reg::ANLP1 => {
                self.negotiation() | u32::from(self.partner_pause.0) << 10 | u32::from(self.partner_pause.1) << 11
            }
            reg::LINKS2 if self.kind == Kind::Kx4 && self.link => reg::LINKS2_AN,
            _ if reg::clears(offset) => {
                self.registers.set(offset, 0);
                held
            }
            _ => match reg::queue_of(offset) {
                Some((direction, queue, place::CONTROL)) => {
                    self.queues.control(direction, queue, held, self.faults.disable_stuck, &self.registers)
                }
                _ => held,
            },
        }
    }

    pub(super) fn write_register(&mut self, offset: usize, value: u32) {
        self.check_settled(offset);
        if offset >= reg::SPACE {
            self.misuse.note(format!("a write beyond the registers, at {offset:#x}"));
            return;
        }
        let offset = reg::canonical(offset);
        let (registers, space) = (&self.registers, &self.configuration);
        match offset {
            reg::CTRL => self.write_ctrl(value),
            reg::STATUS | reg::LINKS | reg::ANLP1 | reg::FWSM | reg::MMNGC | reg::SECRXSTAT | reg::SECTXSTAT => {}
            reg::I2CCTL => {
                if !self.registers.has(reg::SW_FW_SYNC, reg::SW_FW_SYNC_PHY) {
                    self.misuse.note("a module was spoken to without the PHY's semaphore in SW_FW_SYNC");
                }
                self.registers.set(offset, value);
                self.cage.drive(value & 2 != 0, value & 8 != 0);
            }
            reg::CORECTL => {
                if !self.registers.has(reg::SW_FW_SYNC, reg::SW_FW_SYNC_MAC) {
                    self.misuse.note("CORECTL was written without the link's semaphore in SW_FW_SYNC");
                }
                self.cage.tune(value as u16);
            }
            reg::EERD => self.read_eeprom(value),
            reg::EEC => {
                let fixed = self.registers.get(reg::EEC) & 0x7F00;
                // EE_GNT follows EE_REQ at once.
                self.registers.set(offset, value & !0x7F80 | fixed | value << 1 & 0x80);
            }
            reg::EICR => self.interrupts.acknowledge(value, registers, space),
            reg::EICS => self.interrupts.set(u64::from(value & 0xFFFF), value, registers, space),
            reg::EIMS => self.interrupts.enable(u64::from(value & 0xFFFF), value, registers, space),
            reg::EIMC => self.interrupts.disable(u64::from(value & 0xFFFF), value, registers, space),
            _ if offset & !4 == reg::EICS_EX => self.interrupts.set(vectors(offset, value), 0, registers, space),
            _ if offset & !4 == reg::EIMS_EX => self.interrupts.enable(vectors(offset, value), 0, registers, space),
            _ if offset & !4 == reg::EIMC_EX => self.interrupts.disable(vectors(offset, value), 0, registers, space),
            reg::MSCA => {
                if value & phy::COMMAND != 0 && !self.registers.has(reg::SW_FW_SYNC, reg::SW_FW_SYNC_PHY) {
                    self.misuse.note("a PHY was spoken to without its semaphore in SW_FW_SYNC");
                }
                let link = self.has_link().then_some(self.partner_pause);
                phy::command(self.phy.as_mut(), &mut self.registers, value, link);
            }
            reg::MSRWD => {
                let read = self.registers.get(offset) & 0xFFFF_0000;
                self.registers.set(offset, read | value & 0xFFFF);
            }
            reg::AUTOC => {
                if value & reg::AUTOC_RESTART != 0 {
                    self.restarted_at = self.now;
                    self.links_begun += 1;
                }
                self.registers.set(offset, value & !reg::AUTOC_RESTART);
            }
            reg::RDRXCTL => self.registers.set(offset, value | reg::RDRXCTL_DMAIDONE),
            reg::RXCTRL => self.write_receive_control(value),
            _ => match reg::queue_of(offset) {
                Some(at) => self.write_queue(at, value),
                None => self.registers.set(offset, value),
            },
        }
    }

    /// I2CCTL: what is on the wires, which are low where either end pulls.
    fn read_wires(&self, held: u32) -> u32 {
        let data = self.cage.data().unwrap_or(held & 8 != 0);
        held & !5 | u32::from(held & 2 != 0) | u32::from(data) << 2
    }

    /// EERD: start, done, address of 14 bits, data.
    fn read_eeprom(&mut self, value: u32) {
        let address = value >> 2 & 0x3FFF;
        let word = self.eeprom.get(address as usize).copied().unwrap_or(0xFFFF);
        let done = value & 1 != 0 && !self.faults.eeprom_stuck;
        let result = if done { u32::from(word) << 16 | address << 2 | 2 } else { value & 0xFFFC };
        self.registers.set(reg::EERD, result);
    }

    fn write_receive_control(&mut self, value: u32) {
        let enable = value & reg::RXCTRL_RXEN != 0;
        if enable && !self.registers.has(reg::RXCTRL, reg::RXCTRL_RXEN) {
            // 4.6.7: the 82599's path is halted while receive is enabled.
            if !self.kind.has_phy() && !self.registers.has(reg::SECRXCTRL, reg::SECRXCTRL_RX_DIS) {
                self.misuse.note("RXCTRL.RXEN was set while SECRXCTRL.RX_DIS was clear");
            }
            let (by_mac, by_dma) = (reg::HLREG0_RXCRCSTRP, reg::RDRXCTL_CRCSTRIP);
            if self.registers.has(reg::HLREG0, by_mac) != self.registers.has(reg::RDRXCTL, by_dma) {
                self.misuse.note("HLREG0.RXCRCSTRP and RDRXCTL.CRCSTRIP differ");
            }
        }
        self.registers.set(reg::RXCTRL, value);
    }

    fn write_queue(&mut self, at: (Direction, usize, usize), value: u32) {
        let (direction, queue, place) = at;
        let masters = self.configuration.masters_bus();
        let was_on = self.queues.is_enabled(direction, queue);
        self.queues.write(&mut self.registers, at, value, masters, &mut self.misuse);
        // 4.6.8: DMATXCTL.TE comes before the first queue.
        let enables = direction == Direction::Transmit && place == place::CONTROL && value & ring::ENABLE != 0;
        if enables && !was_on && !self.registers.has(reg::DMATXCTL, reg::DMATXCTL_TE) {
            self.misuse.note("a transmit queue was enabled before DMATXCTL.TE");
        }
    }
}

/// The vectors that a half of an EX register holds.
const fn vectors(offset: usize, value: u32) -> u64 {
    (value as u64) << (32 * ((offset / 4) & 1))
}
