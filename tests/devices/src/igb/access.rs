//! What reading and writing a register does. 82576 datasheet 8. Pure.

use std::time::Duration;

use super::interrupts::cause;
use super::registers::{self as reg};
use super::{Igb, Kind};
use crate::ring::offset as place;

/// How long an access to the PHY takes: 64 bits of a frame at 2.5 MHz.
const MANAGEMENT: Duration = Duration::from_micros(26);

impl Igb {
    pub(super) fn read_register(&mut self, offset: usize) -> u32 {
        let offset = reg::canonical(offset);
        self.check_settled(offset);
        let held = self.registers.get(offset);
        let (registers, space) = (&self.registers, &self.configuration);
        match offset {
            reg::CTRL => self.read_ctrl(),
            reg::STATUS => self.read_status(),
            reg::EEC => self.read_eec(),
            reg::MDIC => self.read_mdic(held),
            reg::ICR => self.interrupts.read(registers, space),
            reg::ICS => self.interrupts.pending(),
            reg::IMS => self.interrupts.enabled(),
            reg::EICR => self.interrupts.read_vectors(registers, space),
            reg::EICS => self.interrupts.pending_vectors(),
            reg::EIMS => self.interrupts.enabled_vectors(),
            reg::IMC | reg::EIMC => 0,
            reg::EEMNGCTL | reg::EEMNGCTL_I210 if self.now < self.set_up_at => 0,
            reg::SWSM => {
                self.registers.raise(reg::SWSM, reg::SWSM_SMBI);
                held
            }
            _ if reg::clears(offset) => {
                self.registers.set(offset, 0);
                held
            }
            _ => match reg::queue_of(offset) {
                Some((direction, queue, place::CONTROL)) => {
                    self.queues.control(direction, queue, held, self.faults.disable_stuck, &self.registers)
                }
                Some((_, _, reg::RQDPC)) if self.kind != Kind::I210 => {
                    self.registers.set(offset, 0);
                    held
                }
                _ => held,
            },
        }
    }

    pub(super) fn write_register(&mut self, offset: usize, value: u32) {
        if offset >= reg::SPACE {
            self.misuse.note(format!("a write beyond the registers, at {offset:#x}"));
            return;
        }
        let offset = reg::canonical(offset);
        self.check_settled(offset);
        let (registers, space) = (&self.registers, &self.configuration);
        match offset {
            reg::CTRL => self.write_ctrl(value),
            reg::STATUS => self.write_status(value),
            reg::FWSM | reg::EEMNGCTL | reg::EEMNGCTL_I210 => {}
            reg::EERD => self.read_eeprom(value),
            reg::EEC => {
                let fixed = registers.get(reg::EEC) & (reg::EEC_FLASH | reg::EEC_UPDATED | 0x7F00);
                // EE_GNT follows EE_REQ at once.
                let free = value & !(reg::EEC_FLASH | reg::EEC_UPDATED | 0x7F80);
                self.registers.set(offset, free | fixed | value << 1 & 0x80);
            }
            reg::MDIC => self.write_mdic(value),
            reg::ICR => self.interrupts.acknowledge(value, registers, space),
            reg::ICS => self.interrupts.set(value, registers, space),
            reg::IMS => self.interrupts.enable(value, registers, space),
            reg::IMC => self.interrupts.disable(value, registers, space),
            reg::EICR => self.interrupts.acknowledge_vectors(value, registers, space),
            reg::EICS => self.interrupts.set_vectors(value, registers, space),
            reg::EIMS => self.interrupts.enable_vectors(value, registers, space),
            reg::EIMC => self.interrupts.disable_vectors(value, registers, space),
            _ => match reg::queue_of(offset) {
                Some(at) if at.1 < self.kind.queues() => {
                    let masters = self.configuration.masters_bus();
                    self.queues.write(&mut self.registers, at, value, masters, &mut self.misuse);
                }
                Some((direction, queue, _)) => {
                    self.misuse.note(format!("a register of {direction:?} queue {queue}, which is not there"));
                }
                None => self.registers.set(offset, value),
            },
        }
    }

    /// EERD: start, done, address of 14 bits, data.
    fn read_eeprom(&mut self, value: u32) {
        let address = value >> 2 & 0x3FFF;
        let word = self.eeprom.get(address as usize).copied().unwrap_or(0xFFFF);
        let done = value & 1 != 0 && !self.faults.eeprom_stuck;
        let result = if done { u32::from(word) << 16 | address << 2 | 2 } else { value & 0xFFFC };
        self.registers.set(reg::EERD, result);
    }

    /// MDIC, 8.2.4: data, register, PHY, operation. The PHY of the 82576 is at address 1; from the 82580 on the one inside is not addressed.
    fn write_mdic(&mut self, value: u32) {
        if self.mdic_until.is_some_and(|until| self.now < until) {
            self.misuse.note("MDIC was written before it was ready");
        }
        if self.now < self.set_up_at {
            self.misuse.note("the PHY was spoken to before EEMNGCTL.CFG_DONE");
        }
        if !self.registers.has(reg::SW_FW_SYNC, reg::SW_FW_SYNC_PHY) {
            self.misuse.note("the PHY was spoken to without its semaphore in SW_FW_SYNC");
        }
        let (register, phy) = (value >> 16 & 0x1F, value >> 21 & 0x1F);
        let there = self.kind != Kind::I82576 || phy == 1;
        let command = value & !(reg::MDIC_READY | reg::MDIC_ERROR);
        let result = match (value >> 26 & 3, there) {
            (1, true) => {
                self.phy.write(register, value as u16, self.now);
                self.notice_link();
                command
            }
            (2, true) => command & !0xFFFF | u32::from(self.phy.read(register, self.now)),
            (_, false) => command | reg::MDIC_ERROR,
            _ => {
                self.misuse.note("an operation of MDIC that is reserved");
                command
            }
        };
        self.mdic_until = Some(self.now + MANAGEMENT);
        self.registers.set(reg::MDIC, result);
        if value & reg::MDIC_INTERRUPT != 0 {
            self.raise(cause::MDIO);
        }
    }

    fn read_mdic(&mut self, held: u32) -> u32 {
        match self.mdic_until {
            None => held,
            Some(until) if self.now < until => held & !0xFFFF,
            Some(_) => held | reg::MDIC_READY,
        }
    }
}
