//! The effects of reading and writing a register. 82574 datasheet 10.2. Pure.

use super::registers::{self as reg};
use super::{E1000e, Kind};
use crate::queues::Direction;
use crate::ring::offset as place;

impl E1000e {
    pub(super) fn read_register(&mut self, offset: usize) -> u32 {
        self.check_settled(offset);
        let held = self.registers.get(offset);
        match offset {
            reg::STATUS => self.read_status(),
            reg::EEC => self.read_eec(),
            reg::RXCW if self.kind == Kind::Serdes => self.read_rxcw(),
            reg::SWSM if self.kind.has_two_ports() => {
                self.registers.raise(reg::SWSM, reg::SWSM_SMBI);
                held
            }
            reg::ICR => self.interrupts.read(&self.registers, &self.configuration),
            reg::ICS => self.interrupts.pending(),
            reg::IMS => self.interrupts.enabled(),
            reg::IMC => 0,
            _ if reg::clears(offset) => {
                self.registers.set(offset, 0);
                held
            }
            _ => held,
        }
    }

    pub(super) fn write_register(&mut self, offset: usize, value: u32) {
        if offset >= reg::SPACE {
            self.misuse.note(format!("a write beyond the registers, at {offset:#x}"));
            return;
        }
        self.check_settled(offset);
        let (registers, space) = (&self.registers, &self.configuration);
        match offset {
            reg::CTRL => self.write_ctrl(value),
            reg::STATUS => {}
            reg::TXCW | reg::SCTL if self.kind == Kind::Serdes => {
                self.registers.set(offset, value);
                self.notice_link();
            }
            reg::EEC => self.registers.set(offset, value & !reg::EEC_AUTO_READ | reg::EEC_PRESENT),
            reg::MDIC => self.access_phy(value),
            reg::ICR => self.interrupts.acknowledge(value, registers, space),
            reg::ICS => self.interrupts.set(value, registers, space),
            reg::IMS => self.interrupts.enable(value, registers, space),
            reg::IMC => self.interrupts.disable(value, registers, space),
            reg::RCTL => self.switch(offset, value, reg::RCTL_EN, Direction::Receive),
            reg::TCTL => self.switch(offset, value, reg::TCTL_EN, Direction::Transmit),
            _ => match reg::queue_of(offset) {
                // Other places are not of the ring. A tail may be set before the direction is enabled.
                Some((_, _, place::CONTROL..)) => self.registers.set(offset, value),
                Some((direction, queue, place::TAIL)) if !self.queues.is_enabled(direction, queue) => {
                    self.registers.set(offset, value);
                }
                Some(at) => {
                    let masters = self.configuration.masters_bus();
                    self.queues.write(&mut self.registers, at, value, masters, &mut self.misuse);
                }
                None => self.registers.set(offset, value),
            },
        }
    }

    /// RCTL or TCTL, whose `enable` bit is that of its direction's queue.
    fn switch(&mut self, offset: usize, value: u32, enable: u32, direction: Direction) {
        self.registers.set(offset, value);
        let on = value & enable != 0;
        if on != self.queues.is_enabled(direction, 0) {
            let masters = self.configuration.masters_bus();
            self.queues.switch(&self.registers, direction, 0, on, masters, &mut self.misuse);
        }
    }
}
