//! Intel's 82574 as far as drivers look. Host.
//!
//! | file | holds |
//! |---|---|
//! | `registers` | offsets and bits, with their sections of the datasheet |
//! | `access` | the effects of reading and writing a register |
//! | `control` | power-on values, resets, the link |
//! | `phy` | the registers of the PHY that tell of flow control |
//! | `descriptors` | transmit descriptors, and their offloads |
//! | `data` | the data path: which frames are taken, and statistics |
//! | `interrupts` | causes, vectors, masks |
//!
//! QEMU has a model of it, too, which Linux' driver knows; this one serves tests and fuzzers, and misbehaves on request. Not modelled:
//! the second queue and RSS, most of the PHY's registers and the EEPROM behind EERD, flash and I/O space (BARs 1 and 2), packet split, time
//! stamps, wake-up, interrupt throttling and delays (each cause interrupts at once). Pause frames are obeyed; none is sent, but the marks
//! for that are looked at. Capabilities lie where the 82576 has them. [`E1000e::be`] gives what drivers of other kinds meet.

mod access;
mod control;
mod data;
pub mod descriptors;
mod interrupts;
mod phy;
pub mod registers;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

pub use interrupts::cause;

use crate::buffers::Buffers;
use crate::bus::{Faults, Interrupt, Misuse, Model, Transfer};
use crate::ethernet::Address;
use crate::pci::{Bars, ConfigurationSpace, Identity, Request};
use crate::queues::{Layout, Queues};
use crate::registers::{Registers, register_at};

/// Its identity on the bus: an 82574L.
pub const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x10D3,
    subsystem: [0x8086, 0xA01F],
    revision: 0,
    bars: Bars::Narrow,
    registers: registers::SPACE as u64,
    vectors: 5,
    link: (1, 1),
};

const LAYOUT: Layout =
    Layout { queues: 1, transmit: registers::transmit, receive: registers::receive, buffers: Buffers::Device };

/// Which device of the family, as far as the driver of an 82574 meets something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 82574.
    I82574,
    /// The MAC of a platform controller hub (PCH): with another packet memory, and its PHY elsewhere.
    Pch,
    /// 82571: the bus to its PHY is behind SWSM.
    I82571,
    /// 82571 without a PHY: its SerDes negotiates.
    Serdes,
}

impl Kind {
    /// Whether it has two ports, whose drivers share SWSM.
    const fn has_two_ports(self) -> bool {
        matches!(self, Self::I82571 | Self::Serdes)
    }
}

/// The device.
#[derive(Debug)]
pub struct E1000e {
    address: Address,
    configuration: ConfigurationSpace,
    registers: Registers,
    interrupts: interrupts::Interrupts,
    queues: Queues<descriptors::Extended>,
    out: VecDeque<Vec<u8>>,
    now: Duration,
    /// When the last reset began, if it was not long ago.
    reset_at: Option<Duration>,
    /// A reset changes nothing.
    hollow: bool,
    cable: bool,
    /// STATUS.SPEED.
    speed: u32,
    /// The link as STATUS showed it last.
    link: bool,
    /// A pause frame stops the transmitter until then.
    paused_until: Duration,
    /// What the link partner advertises about pause frames: the bits of ANLPAR.
    partner_pause: u16,
    /// The link partner negotiates, where it is a SerDes.
    partner_negotiates: bool,
    /// Writes to the PHY: each might begin anew with the link.
    links_begun: usize,
    kind: Kind,
    faults: Faults,
    misuse: Misuse,
}

impl E1000e {
    /// A card just powered on, its cable plugged in, with `address` in its EEPROM.
    pub fn new(address: Address) -> Self {
        let mut device = Self {
            address,
            configuration: ConfigurationSpace::new(IDENTITY),
            registers: Registers::new(registers::SPACE),
            interrupts: interrupts::Interrupts::default(),
            queues: Queues::new(LAYOUT),
            out: VecDeque::new(),
            now: Duration::ZERO,
            reset_at: None,
            hollow: false,
            cable: true,
            speed: registers::SPEED_1000,
            link: false,
            paused_until: Duration::ZERO,
            partner_pause: 1 << 10,
            partner_negotiates: true,
            links_begun: 0,
            kind: Kind::I82574,
            faults: Faults::default(),
            misuse: Misuse::default(),
        };
        device.initialise();
        device
    }

    /// From now on CTRL.RST changes nothing, as in QEMU before 8.0.
    pub const fn reset_nothing(&mut self) {
        self.hollow = true;
    }

    /// From now on it is one of another kind, just powered on.
    pub fn be(&mut self, kind: Kind) {
        self.kind = kind;
        self.initialise();
    }

    /// How often a driver began with the link of the PHY.
    pub const fn links_begun(&self) -> usize {
        self.links_begun
    }

    /// Whether the link partner of a SerDes negotiates from now on.
    pub fn set_partner_negotiates(&mut self, negotiates: bool) {
        self.partner_negotiates = negotiates;
        self.notice_link();
    }

    /// What the link partner advertises about pause frames.
    pub const fn set_partner_pause(&mut self, symmetric: bool, asymmetric: bool) {
        self.partner_pause = (symmetric as u16) << 10 | (asymmetric as u16) << 11;
    }

    /// The other end offers 10, 100 or 1000 Mbit/s.
    pub const fn set_speed(&mut self, megabits: u32) {
        self.speed = match megabits {
            10 => 0,
            100 => 1,
            _ => registers::SPEED_1000,
        };
    }

    /// Mbit/s of the link.
    const fn megabits(&self) -> u32 {
        match self.speed {
            0 => 10,
            1 => 100,
            _ => 1000,
        }
    }

    /// Causes of [`cause`] arise.
    pub fn raise(&mut self, causes: u32) {
        self.interrupts.set(causes, &self.registers, &self.configuration);
    }

    /// Context descriptors that the queue took since it was enabled.
    pub fn contexts_seen(&self) -> usize {
        self.queues.contexts_seen()
    }
}

impl Model for E1000e {
    fn configuration(&self) -> &ConfigurationSpace {
        &self.configuration
    }

    fn read_configuration(&mut self, offset: usize, data: &mut [u8]) {
        if self.faults.pulled_out {
            data.fill(0xFF);
            return;
        }
        self.configuration.set_pending(self.queues.is_in_flight() || self.faults.master_stuck);
        self.configuration.read(offset, data);
    }

    fn write_configuration(&mut self, offset: usize, data: &[u8]) {
        if self.faults.pulled_out {
            return;
        }
        let before = (self.configuration.interrupt(0), self.configuration.masters_bus());
        if self.configuration.write(offset, data) == Some(Request::Reset) {
            self.reset();
        }
        if (self.configuration.interrupt(0), self.configuration.masters_bus()) != before {
            self.interrupts.refresh(&self.registers, &self.configuration);
        }
    }

    fn read(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        data.fill(if self.faults.pulled_out { 0xFF } else { 0 });
        if bar != 0 || self.faults.pulled_out {
            return;
        }
        let Some(start) = register_at(offset, data.len()) else {
            return self.misuse.note(format!("{} bytes read at register {offset:#x}", data.len()));
        };
        for (place, word) in (start..).step_by(4).zip(data.as_chunks_mut::<4>().0) {
            *word = self.read_register(place).to_le_bytes();
        }
    }

    fn write(&mut self, bar: usize, offset: u64, data: &[u8]) {
        if bar != 0 || self.faults.pulled_out {
            return;
        }
        let Some(start) = register_at(offset, data.len()) else {
            return self.misuse.note(format!("{} bytes written at register {offset:#x}", data.len()));
        };
        for (place, word) in (start..).step_by(4).zip(data.as_chunks::<4>().0) {
            self.write_register(place, u32::from_le_bytes(*word));
        }
    }

    fn reset(&mut self) {
        self.configuration.reset();
        self.initialise();
        self.reset_at = None;
    }

    fn handle_time(&mut self, now: Duration) {
        self.now = self.now.max(now);
    }

    fn poll_time(&self) -> Option<Duration> {
        Some(self.paused_until).filter(|until| *until > self.now)
    }

    fn handle_frame(&mut self, frame: &[u8]) -> bool {
        self.take_frame(frame)
    }

    fn poll_frame(&mut self) -> Option<Vec<u8>> {
        self.out.pop_front()
    }

    fn poll_dma(&mut self) -> Vec<Transfer> {
        self.next_batch()
    }

    fn handle_dma(&mut self, batch: Vec<Transfer>) {
        self.finish_batch(&batch);
    }

    fn poll_interrupt(&mut self) -> Option<Interrupt> {
        self.interrupts.poll().filter(|_| !self.faults.pulled_out)
    }

    fn set_link(&mut self, up: bool) {
        self.cable = up;
        self.notice_link();
    }

    fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    fn misuse(&self) -> &[String] {
        self.misuse.list()
    }

    fn peek(&self, offset: usize) -> u32 {
        match offset {
            registers::ICR => self.interrupts.pending(),
            registers::IMS => self.interrupts.enabled(),
            offset => self.registers.get(offset),
        }
    }

    fn poke(&mut self, offset: usize, value: u32) {
        self.registers.set(offset, value);
    }
}
