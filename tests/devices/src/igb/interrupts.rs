//! Interrupt causes and how they become messages: 82576 datasheet 7.3 and 8.8. Pure.
//!
//! ICR has causes, EICR vectors. With GPIE.Multiple_MSIX bit `n` of EICR stands for vector `n`; IVAR says which vector a queue has, and
//! IVAR_MISC which all enabled causes of ICR have. Without, ICR alone is asked for one interrupt, and bit `n` of EICR is what IVAR makes of
//! a queue. Throttling (EITR) is not modelled: each cause interrupts at once.

use std::collections::VecDeque;

use super::Kind;
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
    /// RXMISS: packet memory was full.
    pub const MISSED: u32 = 1 << 6;
    /// RXDW: receive descriptors were written back.
    pub const RECEIVED: u32 = 1 << 7;
    /// MDAC: an access to the PHY is done.
    pub const MDIO: u32 = 1 << 9;
    /// FER: a memory of the device holds nonsense.
    pub const FATAL: u32 = 1 << 22;
    /// DRSTA: the device was reset.
    pub const DEVICE_RESET: u32 = 1 << 30;
    /// INTA: one of the enabled ones.
    pub const ASSERTED: u32 = 1 << 31;
}

/// Bits of EICR that are vectors with MSI-X.
const VECTORS: u32 = 0x01FF_FFFF;

/// What is pending and what is enabled.
#[derive(Debug, Default)]
pub(super) struct Interrupts {
    causes: u32,
    causes_enabled: u32,
    vectors: u32,
    vectors_enabled: u32,
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
        self.causes | if self.causes & self.causes_enabled != 0 { cause::ASSERTED } else { 0 }
    }

    /// IMS.
    pub(super) const fn enabled(&self) -> u32 {
        self.causes_enabled
    }

    /// EICR.
    pub(super) const fn pending_vectors(&self) -> u32 {
        self.vectors
    }

    /// EIMS.
    pub(super) const fn enabled_vectors(&self) -> u32 {
        self.vectors_enabled
    }

    /// A queue wrote descriptors back.
    pub(super) fn queue(
        &mut self,
        kind: Kind,
        queue: usize,
        direction: Direction,
        registers: &Registers,
        space: &ConfigurationSpace,
    ) {
        // 82576 datasheet 8.8.16: queues n and n + 8 share a register; from the 82580 on queues 2n and 2n + 1.
        let (word, half) = match kind {
            Kind::I82576 => (queue % 8, queue / 8),
            Kind::I350 | Kind::I210 => (queue / 2, queue % 2),
        };
        let (shift, cause) = match direction {
            Direction::Receive => (16 * half, cause::RECEIVED),
            Direction::Transmit => (16 * half + 8, cause::SENT),
        };
        let vector = vector(registers.get(reg::IVAR + 4 * word) >> shift);
        self.causes |= cause;
        self.vectors |= vector;
        self.signal(cause, vector, registers, space);
    }

    /// Sets causes: by ICS, or by the device.
    pub(super) fn set(&mut self, causes: u32, registers: &Registers, space: &ConfigurationSpace) {
        let causes = causes & !cause::ASSERTED;
        self.causes |= causes;
        self.signal(causes, 0, registers, space);
    }

    /// EICS.
    pub(super) fn set_vectors(&mut self, vectors: u32, registers: &Registers, space: &ConfigurationSpace) {
        self.vectors |= vectors & VECTORS;
        self.signal(0, vectors & VECTORS, registers, space);
    }

    /// IMS.
    pub(super) fn enable(&mut self, causes: u32, registers: &Registers, space: &ConfigurationSpace) {
        let new = causes & !self.causes_enabled & !cause::ASSERTED;
        self.causes_enabled |= new;
        self.signal(new, 0, registers, space);
    }

    /// EIMS.
    pub(super) fn enable_vectors(&mut self, vectors: u32, registers: &Registers, space: &ConfigurationSpace) {
        let new = vectors & VECTORS & !self.vectors_enabled;
        self.vectors_enabled |= new;
        self.signal(0, new, registers, space);
    }

    /// IMC.
    pub(super) fn disable(&mut self, causes: u32, registers: &Registers, space: &ConfigurationSpace) {
        self.causes_enabled &= !causes;
        self.signal(0, 0, registers, space);
    }

    /// EIMC.
    pub(super) fn disable_vectors(&mut self, vectors: u32, registers: &Registers, space: &ConfigurationSpace) {
        self.vectors_enabled &= !vectors;
        self.signal(0, 0, registers, space);
    }

    /// ICR is read: it is cleared where GPIE.NSICR says so always, where nothing is enabled, and where it interrupts. 8.8.9.
    pub(super) fn read(&mut self, registers: &Registers, space: &ConfigurationSpace) -> u32 {
        let value = self.pending();
        let always = registers.has(reg::GPIE, reg::GPIE_NSICR);
        if always || self.causes_enabled == 0 || value & cause::ASSERTED != 0 {
            self.acknowledge(u32::MAX, registers, space);
        }
        value
    }

    /// ICR is written: what is set is cleared. By IAM it is disabled too where CTRL_EXT.IAME says so, 8.8.13.
    pub(super) fn acknowledge(&mut self, bits: u32, registers: &Registers, space: &ConfigurationSpace) {
        let interrupts = self.pending() & cause::ASSERTED != 0;
        let masks = registers.has(reg::CTRL_EXT, reg::CTRL_EXT_IAME);
        if masks && (interrupts || registers.has(reg::GPIE, reg::GPIE_NSICR)) {
            self.causes_enabled &= !registers.get(reg::IAM);
        }
        self.causes &= !bits;
        self.signal(0, 0, registers, space);
    }

    /// EICR is read. With several vectors it is cleared by writing, 8.8.1.
    pub(super) fn read_vectors(&mut self, registers: &Registers, space: &ConfigurationSpace) -> u32 {
        let value = self.vectors;
        if !registers.has(reg::GPIE, reg::GPIE_MSIX) {
            self.acknowledge_vectors(value, registers, space);
        }
        value
    }

    /// EICR is written: what is set is cleared.
    pub(super) fn acknowledge_vectors(&mut self, bits: u32, registers: &Registers, space: &ConfigurationSpace) {
        if !registers.has(reg::GPIE, reg::GPIE_EIAME) {
            self.vectors_enabled &= !(bits & registers.get(reg::EIAM));
        }
        self.vectors &= !bits;
        self.signal(0, 0, registers, space);
    }

    /// The bus enabled interrupts, or another kind of them: what is pending is sent.
    pub(super) fn refresh(&mut self, registers: &Registers, space: &ConfigurationSpace) {
        self.signal(u32::MAX, u32::MAX, registers, space);
    }

    /// Sends what follows from these causes and vectors, newly set or newly enabled.
    fn signal(&mut self, causes: u32, vectors: u32, registers: &Registers, space: &ConfigurationSpace) {
        let now = causes & self.causes & self.causes_enabled;
        let way = space.interrupt(0);
        let several = registers.has(reg::GPIE, reg::GPIE_MSIX);
        let level = matches!(way, Some(Interrupt::Line(_))) && self.causes & self.causes_enabled != 0;
        if level != self.line {
            self.line = level;
            self.out.push_back(Interrupt::Line(level));
        }
        match way {
            Some(Interrupt::MsiX(_)) if several => self.messages(now, vectors, registers, space),
            Some(message @ (Interrupt::Msi | Interrupt::MsiX(_))) if now != 0 && space.masters_bus() => {
                self.out.push_back(message);
            }
            _ => {}
        }
    }

    fn messages(&mut self, causes: u32, vectors: u32, registers: &Registers, space: &ConfigurationSpace) {
        let misc = registers.get(reg::IVAR_MISC);
        let mut new = vectors;
        // IVAR_MISC: the first byte is that of the TCP timer, the second of all else.
        if causes != 0 {
            let other = vector(misc >> 8);
            self.vectors |= other;
            new |= other;
        }
        let sent = new & self.vectors & self.vectors_enabled;
        if sent == 0 || !space.masters_bus() {
            return;
        }
        for vector in (0..25).filter(|vector| sent >> vector & 1 != 0) {
            self.out.extend(space.interrupt(vector));
        }
        self.vectors &= !(sent & registers.get(reg::EIAC));
        if registers.has(reg::GPIE, reg::GPIE_EIAME) {
            self.vectors_enabled &= !(sent & registers.get(reg::EIAM));
        }
    }
}

/// The bit of EICR that an entry of IVAR stands for; none where it is not valid.
const fn vector(entry: u32) -> u32 {
    if entry & 0x80 != 0 { (1 << (entry & 0x1F)) & VECTORS } else { 0 }
}

#[cfg(test)]
mod tests;
