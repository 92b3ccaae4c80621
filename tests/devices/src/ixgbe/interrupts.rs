//! Interrupt causes and how they become messages: 82599 datasheet 7.3 and 8.2.3.5. Pure.
//!
//! With GPIE.MSIX_MODE bit `n` of EICR stands for vector `n` (up to 63 by the EX registers), and IVAR says which vector a queue has.
//! Without, it is one of 16 causes of queues, and there is one interrupt. Throttling (EITR) is not modelled: each cause interrupts at once.

use std::collections::VecDeque;

use super::registers::{self as reg};
use crate::bus::Interrupt;
use crate::pci::ConfigurationSpace;
use crate::queues::Direction;
use crate::registers::Registers;

/// Causes besides queues, EICR.
pub mod cause {
    /// RXMISS: packet memory was full.
    pub const RX_MISS: u32 = 1 << 17;
    /// LSC: the link changed.
    pub const LSC: u32 = 1 << 20;
    /// GPI_SDP2: SDP2 rose, as a module was put in.
    pub const SDP2: u32 = 1 << 26;
    /// ECC: a memory of the device holds nonsense.
    pub const ECC: u32 = 1 << 28;
    /// DHER: a descriptor could not be handled.
    pub const DHER: u32 = 1 << 29;
    /// TCP timer.
    pub const TCP_TIMER: u32 = 1 << 30;
    /// OTHER: one of the enabled ones above 15.
    pub const OTHER: u32 = 1 << 31;
}

const QUEUES: u32 = 0xFFFF;
/// Causes that reading EICR clears even where GPIE.OCD keeps it from clearing.
const OTHERS: u32 = 0x3FFF_0000;

/// What is pending and what is enabled.
#[derive(Debug, Default)]
pub(super) struct Interrupts {
    queues: u64,
    others: u32,
    queues_enabled: u64,
    others_enabled: u32,
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

    /// Pending causes as EICR shows them.
    pub(super) const fn pending(&self) -> u32 {
        let other = if self.others & self.others_enabled != 0 { cause::OTHER } else { 0 };
        self.queues as u32 & QUEUES | self.others | other
    }

    /// EIMS.
    pub(super) const fn enabled(&self) -> u32 {
        self.queues_enabled as u32 & QUEUES | self.others_enabled
    }

    /// EIMS_EX, half 0 or 1.
    pub(super) const fn enabled_vectors(&self, half: usize) -> u32 {
        (self.queues_enabled >> (32 * (half & 1))) as u32
    }

    /// A queue wrote descriptors back.
    pub(super) fn queue(
        &mut self,
        queue: usize,
        direction: Direction,
        registers: &Registers,
        space: &ConfigurationSpace,
    ) {
        let shift = 16 * (queue & 1) + if direction == Direction::Transmit { 8 } else { 0 };
        let entry = registers.get(reg::IVAR + queue / 2 * 4) >> shift;
        if entry & 0x80 != 0 {
            self.set(1 << (entry & 0x3F), 0, registers, space);
        }
    }

    /// Sets causes: by EICS or its EX registers, or by the device.
    pub(super) fn set(&mut self, queues: u64, others: u32, registers: &Registers, space: &ConfigurationSpace) {
        let others = others & !QUEUES & !cause::OTHER;
        self.queues |= queues;
        self.others |= others;
        self.signal(queues, others, registers, space);
    }

    /// EIMS and EIMS_EX.
    pub(super) fn enable(&mut self, queues: u64, others: u32, registers: &Registers, space: &ConfigurationSpace) {
        let others = others & !QUEUES;
        let (queues_new, others_new) = (queues & !self.queues_enabled, others & !self.others_enabled);
        self.queues_enabled |= queues;
        self.others_enabled |= others;
        self.signal(queues_new, others_new, registers, space);
    }

    /// EIMC and EIMC_EX.
    pub(super) fn disable(&mut self, queues: u64, others: u32, registers: &Registers, space: &ConfigurationSpace) {
        self.queues_enabled &= !queues;
        self.others_enabled &= !others | QUEUES;
        self.signal(0, 0, registers, space);
    }

    /// EICR is read.
    pub(super) fn read(&mut self, registers: &Registers, space: &ConfigurationSpace) -> u32 {
        let value = self.pending();
        let cleared = if registers.has(reg::GPIE, reg::GPIE_OCD) { value & OTHERS } else { value };
        self.acknowledge(cleared, registers, space);
        value
    }

    /// EICR is written: what is set is cleared.
    pub(super) fn acknowledge(&mut self, bits: u32, registers: &Registers, space: &ConfigurationSpace) {
        self.queues &= !u64::from(bits & QUEUES);
        self.others &= !bits | QUEUES;
        if !registers.has(reg::GPIE, reg::GPIE_EIAME) {
            let mask = bits & registers.get(reg::EIAM);
            self.queues_enabled &= !u64::from(mask & QUEUES);
            self.others_enabled &= !mask | QUEUES;
        }
        self.signal(0, 0, registers, space);
    }

    /// Sends what follows from these causes, newly set or newly enabled.
    fn signal(&mut self, queues: u64, others: u32, registers: &Registers, space: &ConfigurationSpace) {
        let enabled = (self.queues & self.queues_enabled, self.others & self.others_enabled);
        let now = (queues & enabled.0, others & enabled.1);
        let way = space.interrupt(0);
        let level = matches!(way, Some(Interrupt::Line(_))) && (enabled.0 as u32 & QUEUES != 0 || enabled.1 != 0);
        if level != self.line {
            self.line = level;
            self.out.push_back(Interrupt::Line(level));
        }
        match way {
            Some(Interrupt::MsiX(_)) if registers.has(reg::GPIE, reg::GPIE_MSIX) => self.vectors(now, registers, space),
            Some(message @ (Interrupt::Msi | Interrupt::MsiX(_))) if now != (0, 0) && space.masters_bus() => {
                self.out.push_back(message);
            }
            _ => {}
        }
    }

    /// The bus enabled interrupts, or another kind of them: what is pending is sent.
    pub(super) fn refresh(&mut self, registers: &Registers, space: &ConfigurationSpace) {
        self.signal(u64::MAX, u32::MAX, registers, space);
    }

    fn vectors(&mut self, (queues, others): (u64, u32), registers: &Registers, space: &ConfigurationSpace) {
        if !space.masters_bus() {
            return;
        }
        let mut vectors = queues;
        let misc = registers.get(reg::IVAR_MISC);
        for (bits, shift) in [(others & cause::TCP_TIMER, 0), (others & !cause::TCP_TIMER, 8)] {
            if bits != 0 && misc >> shift & 0x80 != 0 {
                vectors |= 1 << (misc >> shift & 0x3F);
            }
        }
        for vector in (0..64).filter(|vector| vectors >> vector & 1 != 0) {
            self.out.extend(space.interrupt(vector));
        }
        // Vectors above 15 have no bit in EICR: they always clear themselves.
        let clear = registers.get(reg::EIAC);
        self.queues &= !(queues & (u64::from(clear & QUEUES) | !u64::from(QUEUES)));
        self.others &= !(others & clear);
        if registers.has(reg::GPIE, reg::GPIE_EIAME) {
            let mask = u64::from(registers.get(reg::EIAM) & QUEUES) | registers.wide(reg::EIAM_EX);
            self.queues_enabled &= !(queues & mask);
            self.others_enabled &= !(others & registers.get(reg::EIAM));
        }
    }
}

#[cfg(test)]
mod tests;
