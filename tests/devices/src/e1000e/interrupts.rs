//! Interrupt causes and how they become messages: 82574 datasheet 7.4 and 10.2.4. Pure.
//!
//! With MSI-X IVAR says which vector a queue has, and which all other causes have together (OTHER). Throttling is not modelled: each cause
//! interrupts at once.

use std::collections::VecDeque;

use super::registers::{self as reg};
use crate::bus::Interrupt;
use crate::pci::ConfigurationSpace;
use crate::queues::Direction;
use crate::registers::Registers;

/// Causes, ICR.
pub mod cause {
    /// TXDW: transmit descriptors were written back.
    pub const SENT: u32 = 1 << 0;
    /// LSC: the link changed.
    pub const LSC: u32 = 1 << 2;
    /// RXO: a frame found no room.
    pub const OVERRUN: u32 = 1 << 6;
    /// RXT0: a frame was received.
    pub const RECEIVED: u32 = 1 << 7;
    /// RXQ0: the same of the queue, with MSI-X.
    pub const RECEIVE_QUEUE: u32 = 1 << 20;
    /// TXQ0: transmit descriptors of the queue were written back, with MSI-X.
    pub const TRANSMIT_QUEUE: u32 = 1 << 22;
    /// OTHER: a cause without a vector of its own, with MSI-X.
    pub const OTHER: u32 = 1 << 24;
    /// INT_ASSERTED: one of the enabled ones.
    pub const ASSERTED: u32 = 1 << 31;
}

/// The causes behind OTHER: LSC, RXO, MDAC, SRPD, ACK, MNG.
const BEHIND_OTHER: u32 = 0x0007_0244;

/// Causes that are pending, and those that are enabled.
#[derive(Debug, Default)]
pub(super) struct Interrupts {
    causes: u32,
    enabled: u32,
    line: bool,
    out: VecDeque<Interrupt>,
}

impl Interrupts {
    /// As after a reset; the line falls.
    pub(super) fn reset(&mut self) {
        let fell = std::mem::take(self);
        if fell.line {
            self.out.push_back(Interrupt::Line(false));
        }
    }

    pub(super) fn poll(&mut self) -> Option<Interrupt> {
        self.out.pop_front()
    }

    /// ICR.
    pub(super) const fn pending(&self) -> u32 {
        self.causes | if self.causes & self.enabled != 0 { cause::ASSERTED } else { 0 }
    }

    /// IMS.
    pub(super) const fn enabled(&self) -> u32 {
        self.enabled
    }

    /// The queue wrote descriptors back.
    pub(super) fn queue(&mut self, direction: Direction, registers: &Registers, space: &ConfigurationSpace) {
        let by_vector = matches!(space.interrupt(0), Some(Interrupt::MsiX(_)));
        let cause = match (direction, by_vector) {
            (Direction::Receive, true) => cause::RECEIVE_QUEUE,
            (Direction::Transmit, true) => cause::TRANSMIT_QUEUE,
            (Direction::Receive, false) => cause::RECEIVED,
            (Direction::Transmit, false) => cause::SENT,
        };
        self.set(cause, registers, space);
    }

    /// Sets causes: by ICS, or by the device.
    pub(super) fn set(&mut self, causes: u32, registers: &Registers, space: &ConfigurationSpace) {
        let mut causes = causes & !cause::ASSERTED;
        if matches!(space.interrupt(0), Some(Interrupt::MsiX(_))) && causes & BEHIND_OTHER != 0 {
            causes |= cause::OTHER;
        }
        let new = causes & !self.causes;
        self.causes |= causes;
        self.signal(new, registers, space);
    }

    /// IMS.
    pub(super) fn enable(&mut self, causes: u32, registers: &Registers, space: &ConfigurationSpace) {
        let new = causes & !self.enabled & !cause::ASSERTED;
        self.enabled |= new;
        self.signal(new, registers, space);
    }

    /// IMC.
    pub(super) fn disable(&mut self, causes: u32, registers: &Registers, space: &ConfigurationSpace) {
        self.enabled &= !causes;
        self.signal(0, registers, space);
    }

    /// ICR is read: it is cleared where nothing is enabled and, unless messages do that, where it interrupts. 10.2.4.1.
    pub(super) fn read(&mut self, registers: &Registers, space: &ConfigurationSpace) -> u32 {
        let value = self.pending();
        let by_vector = matches!(space.interrupt(0), Some(Interrupt::MsiX(_)));
        if self.enabled == 0 {
            self.causes = 0;
        } else if !by_vector && value & cause::ASSERTED != 0 {
            if registers.has(reg::CTRL_EXT, reg::CTRL_EXT_IAME) {
                self.enabled &= !registers.get(reg::IAM);
            }
            self.causes = 0;
        }
        self.signal(0, registers, space);
        value
    }

    /// ICR is written: a one clears its cause.
    pub(super) fn acknowledge(&mut self, bits: u32, registers: &Registers, space: &ConfigurationSpace) {
        self.causes &= !bits;
        self.signal(0, registers, space);
    }

    /// The bus enabled interrupts, or another kind of them: pending causes are sent.
    pub(super) fn refresh(&mut self, registers: &Registers, space: &ConfigurationSpace) {
        self.signal(u32::MAX, registers, space);
    }

    /// Sends the messages of these causes, newly set or newly enabled.
    fn signal(&mut self, new: u32, registers: &Registers, space: &ConfigurationSpace) {
        let now = new & self.causes & self.enabled;
        let way = space.interrupt(0);
        let level = matches!(way, Some(Interrupt::Line(_))) && self.causes & self.enabled != 0;
        if level != self.line {
            self.line = level;
            self.out.push_back(Interrupt::Line(level));
        }
        if now == 0 || !space.masters_bus() {
            return;
        }
        match way {
            Some(Interrupt::MsiX(_)) => self.messages(now, registers, space),
            Some(Interrupt::Msi) => self.out.push_back(Interrupt::Msi),
            _ => {}
        }
    }

    fn messages(&mut self, now: u32, registers: &Registers, space: &ConfigurationSpace) {
        let ivar = registers.get(reg::IVAR);
        for (bit, shift) in [(cause::RECEIVE_QUEUE, 0), (cause::TRANSMIT_QUEUE, 8), (cause::OTHER, 16)] {
            let entry = ivar >> shift;
            if now & bit == 0 || entry & 8 == 0 {
                continue;
            }
            self.out.extend(space.interrupt(entry as u16 & 7));
            self.causes &= !(bit & registers.get(reg::EIAC));
            if registers.has(reg::CTRL_EXT, reg::CTRL_EXT_EIAME) {
                self.enabled &= !(bit & registers.get(reg::IAM));
            }
        }
    }
}
