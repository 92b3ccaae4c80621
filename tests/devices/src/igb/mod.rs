//! Intel's 82576, I350 and I210 as far as drivers look. Host.
//!
//! | file | holds |
//! |---|---|
//! | `registers` | offsets and bits, with their sections of the datasheet |
//! | `access` | what reading and writing a register does |
//! | `control` | power-on values, resets, the link |
//! | `data` | the data path: queues and statistics |
//! | `filter` | which frames are taken, for which queue, and what is told of them |
//! | `interrupts` | causes, vectors, masks |
//! | `eeprom`, `phy` | what drivers read before they believe in the device |
//!
//! Each is port 0 of its card, with copper. Not modelled: flash and I/O space (BARs 1 and 2), header split, VMDq and SR-IOV, IPsec, SCTP's
//! checksum, time stamps, wake-up, energy-efficient Ethernet, interrupt throttling (each cause interrupts at once).
//! Pause frames are obeyed; none is sent, but the marks for that are looked at.

mod access;
mod control;
mod data;
mod eeprom;
mod filter;
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

/// Which card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 82576.
    I82576,
    /// I350.
    I350,
    /// I210.
    I210,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 3] = [Self::I82576, Self::I350, Self::I210];

    /// Its identity on the bus.
    pub const fn identity(self) -> Identity {
        let (device, revision, vectors, link) = match self {
            Self::I82576 => (0x10C9, 1, 25, (1, 4)),
            Self::I350 => (0x1521, 1, 25, (2, 4)),
            Self::I210 => (0x1533, 3, 5, (1, 1)),
        };
        let subsystem = [0x8086, device];
        Identity {
            vendor: 0x8086,
            device,
            subsystem,
            revision,
            bars: Bars::Narrow,
            registers: 128 << 10,
            vectors,
            link,
        }
    }

    /// Queues in each direction.
    pub const fn queues(self) -> usize {
        match self {
            Self::I82576 => 16,
            Self::I350 => 8,
            Self::I210 => 4,
        }
    }

    /// Addresses of its own.
    const fn addresses(self) -> usize {
        match self {
            Self::I82576 => 24,
            Self::I350 => 32,
            Self::I210 => 16,
        }
    }

    /// Bytes of packet memory for receive, as RXPBS has them after a reset.
    const fn packet_memory(self) -> usize {
        match self {
            Self::I82576 => 64 << 10,
            Self::I350 => 36 << 10,
            Self::I210 => 34 << 10,
        }
    }

    const fn layout(self) -> Layout {
        Layout {
            queues: self.queues(),
            transmit: registers::transmit,
            receive: registers::receive,
            buffers: Buffers::Queue {
                control: registers::SRRCTL,
                size: 0x7F,
                largest: 127,
                drop: registers::SRRCTL_DROP,
            },
        }
    }
}

/// The device.
#[derive(Debug)]
pub struct Igb {
    kind: Kind,
    address: Address,
    configuration: ConfigurationSpace,
    registers: Registers,
    interrupts: interrupts::Interrupts,
    eeprom: Box<[u16]>,
    phy: phy::Phy,
    queues: Queues,
    out: VecDeque<Vec<u8>>,
    now: Duration,
    /// When the last reset began, if it was not long ago.
    reset_at: Option<Duration>,
    /// When the last access to the PHY ends.
    mdic_until: Option<Duration>,
    /// How long after a reset EEMNGCTL says that the PHY is set up, and when it does so.
    set_up_takes: Duration,
    set_up_at: Duration,
    /// The link as STATUS showed it last.
    link: bool,
    /// A pause frame stops the transmitter until then.
    paused_until: Duration,
    faults: Faults,
    misuse: Misuse,
}

impl Igb {
    /// A card just powered on, its cable plugged in, with `address` in its EEPROM.
    pub fn new(kind: Kind, address: Address) -> Self {
        let mut device = Self {
            kind,
            address,
            configuration: ConfigurationSpace::new(kind.identity()),
            registers: Registers::new(registers::SPACE),
            interrupts: interrupts::Interrupts::default(),
            eeprom: eeprom::image(kind, address),
            phy: phy::Phy::new(kind),
            queues: Queues::new(kind.layout()),
            out: VecDeque::new(),
            now: Duration::ZERO,
            reset_at: None,
            mdic_until: None,
            set_up_takes: Duration::ZERO,
            set_up_at: Duration::ZERO,
            link: false,
            paused_until: Duration::ZERO,
            faults: Faults::default(),
            misuse: Misuse::default(),
        };
        device.power_on();
        device
    }

    /// Which card it is.
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Causes of [`cause`] arise, such as [`cause::FATAL`].
    pub fn raise(&mut self, causes: u32) {
        self.interrupts.set(causes, &self.registers, &self.configuration);
    }

    /// Context descriptors that the queues took since each was enabled: how well a driver keeps the contexts it has.
    pub fn contexts_seen(&self) -> usize {
        self.queues.contexts_seen()
    }

    /// The PHY is set up so long after each reset from now on.
    pub const fn set_up_for(&mut self, time: Duration) {
        self.set_up_takes = time;
    }

    /// A driver has turned the PHY off.
    pub fn power_phy_down(&mut self) {
        self.phy.power_down(self.now);
    }

    /// How often its PHY began to negotiate.
    pub const fn links_begun(&self) -> usize {
        self.phy.negotiations()
    }

    /// What the link partner advertises about pause frames from its next negotiation on.
    pub const fn set_partner_pause(&mut self, symmetric: bool, asymmetric: bool) {
        self.phy.set_partner_pause(symmetric, asymmetric);
    }

    /// PCI configuration space, for a bus driver in a test.
    pub const fn configuration_mut(&mut self) -> &mut ConfigurationSpace {
        &mut self.configuration
    }
}

impl Model for Igb {
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
        self.power_on();
        self.reset_at = None;
    }

    fn handle_time(&mut self, now: Duration) {
        self.now = self.now.max(now);
        self.notice_link();
    }

    fn poll_time(&self) -> Option<Duration> {
        let paused = Some(self.paused_until).filter(|until| *until > self.now);
        [self.phy.negotiated_at(self.now), paused].into_iter().flatten().min()
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
        self.phy.plug(up, self.now);
        self.notice_link();
    }

    fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    fn misuse(&self) -> &[String] {
        self.misuse.list()
    }

    fn peek(&self, offset: usize) -> u32 {
        match registers::canonical(offset) {
            registers::ICR => self.interrupts.pending(),
            registers::IMS => self.interrupts.enabled(),
            registers::EICR => self.interrupts.pending_vectors(),
            registers::EIMS => self.interrupts.enabled_vectors(),
            offset => self.registers.get(offset),
        }
    }

    fn poke(&mut self, offset: usize, value: u32) {
        self.registers.set(registers::canonical(offset), value);
    }
}
