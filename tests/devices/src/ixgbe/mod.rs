//! Intel's 82599, X540 and X550 as far as drivers look. Host.
//!
//! | file | holds |
//! |---|---|
//! | `registers` | offsets and bits, with their sections of the datasheet |
//! | `access` | what reading and writing a register does |
//! | `control` | power-on values, resets, the link |
//! | `queues` | the data path: queues in turn, statistics |
//! | `filter` | which frames are taken, for which queue, and what is told of them |
//! | `interrupts` | causes, vectors, masks |
//! | `cage` | the cage of a card for SFP+, and the module in it |
//! | `eeprom`, `phy` | what drivers read before they believe in the device |
//!
//! Not modelled: receive-side coalescing (it never coalesces, as it may), header split, flow director, DCB, VMDq and SR-IOV, IPsec,
//! MACsec, FCoE, SCTP's checksum, time stamps, wake-up, interrupt throttling (each cause interrupts at once).
//! Pause frames are obeyed; none is sent, but the marks for that are looked at.

mod access;
mod cage;
mod control;
mod eeprom;
mod filter;
mod interrupts;
mod phy;
mod queues;
pub mod registers;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

pub use interrupts::cause;

use crate::buffers::Buffers;
use crate::bus::{Faults, Interrupt, Misuse, Model, Transfer};
use crate::ethernet::Address;
use crate::i2c::{self, Module};
use crate::pci::{Bars, ConfigurationSpace, Identity, Request};
use crate::queues::{Layout, Queues};
use crate::registers::{Registers, register_at};

/// Queues in each direction.
pub const QUEUES: usize = 128;

const LAYOUT: Layout = Layout {
    queues: QUEUES,
    transmit: registers::transmit,
    receive: registers::receive,
    buffers: Buffers::Queue { control: registers::SRRCTL, size: 0x1F, largest: 16, drop: registers::SRRCTL_DROP },
};

/// Which card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 82599 on a backplane, 10GBASE-KX4.
    Kx4,
    /// 82599 with an SFP+ cage and short-range optics.
    Sfp,
    /// 82599 with a copper PHY, TN1010.
    T3,
    /// X540, 10GBASE-T.
    X540,
    /// X550, 10GBASE-T, 5GBASE-T and 2.5GBASE-T.
    X550,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 5] = [Self::Kx4, Self::Sfp, Self::T3, Self::X540, Self::X550];

    /// Whether the MAC and its PHY are one.
    const fn has_phy(self) -> bool {
        matches!(self, Self::X540 | Self::X550)
    }

    /// Bytes of packet memory for receive, 82599 datasheet 7.1.3.1, X540 datasheet 7.1.3.
    const fn packet_memory(self) -> u32 {
        match self {
            Self::Kx4 | Self::Sfp | Self::T3 => 512 << 10,
            Self::X540 | Self::X550 => 384 << 10,
        }
    }

    /// Its identity on the bus.
    pub const fn identity(self) -> Identity {
        let (device, registers) = match self {
            Self::Kx4 => (0x10F7, 512 << 10),
            Self::Sfp => (0x10FB, 512 << 10),
            Self::T3 => (0x151C, 512 << 10),
            Self::X540 => (0x1528, 2 << 20),
            Self::X550 => (0x1563, 4 << 20),
        };
        Identity {
            vendor: 0x8086,
            device,
            subsystem: [0x8086, 0x0003],
            revision: 1,
            bars: Bars::Wide,
            registers,
            vectors: 64,
            link: (2, 8),
        }
    }
}

/// The device.
#[derive(Debug)]
pub struct Ixgbe {
    kind: Kind,
    address: Address,
    configuration: ConfigurationSpace,
    registers: Registers,
    interrupts: interrupts::Interrupts,
    eeprom: Box<[u16]>,
    cage: cage::Cage,
    phy: Option<phy::Phy>,
    queues: Queues,
    out: VecDeque<Vec<u8>>,
    link: bool,
    /// Mbit/s of the link, where it is not one of a module.
    speed: u32,
    /// A pause frame stops the transmitter until then.
    paused_until: Duration,
    /// What the link partner advertises about pause frames: in both directions, in one.
    partner_pause: (bool, bool),
    /// The link was down since LINKS was read last.
    link_fell: bool,
    now: Duration,
    /// When the last reset began, if it was not long ago.
    reset_at: Option<Duration>,
    resets: usize,
    /// When AUTOC restarted the link last.
    restarted_at: Duration,
    /// How often that was.
    links_begun: usize,
    faults: Faults,
    misuse: Misuse,
}

impl Ixgbe {
    /// A card just powered on, its cable plugged in, with `address` in its EEPROM.
    pub fn new(kind: Kind, address: Address) -> Self {
        let mut device = Self {
            kind,
            address,
            configuration: ConfigurationSpace::new(kind.identity()),
            registers: Registers::new(registers::SPACE),
            interrupts: interrupts::Interrupts::default(),
            eeprom: eeprom::image(kind, address),
            cage: cage::Cage::new((kind == Kind::Sfp).then(|| Module::new(i2c::Kind::ShortReach)), kind == Kind::Sfp),
            phy: phy::Phy::new(kind),
            queues: Queues::new(LAYOUT),
            out: VecDeque::new(),
            link: true,
            speed: 10_000,
            paused_until: Duration::ZERO,
            partner_pause: (true, false),
            link_fell: false,
            now: Duration::ZERO,
            reset_at: None,
            resets: 0,
            restarted_at: Duration::ZERO,
            links_begun: 0,
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

    /// Causes of [`cause`] arise, such as [`cause::ECC`].
    pub fn raise(&mut self, causes: u32) {
        self.interrupts.set(0, causes, &self.registers, &self.configuration);
    }

    /// Context descriptors that the queues took since each was enabled: how well a driver keeps the contexts it has.
    pub fn contexts_seen(&self) -> usize {
        self.queues.contexts_seen()
    }

    /// The PHY sleeps, as a driver may have put it to sleep: there is no link.
    pub fn put_to_sleep(&mut self) {
        if let Some(phy) = &mut self.phy {
            phy.put_to_sleep();
        }
    }

    /// Resets by CTRL so far.
    pub const fn resets(&self) -> usize {
        self.resets
    }

    /// A module is put into the cage. The analogue part is not set up for it.
    pub fn put_in(&mut self, module: Module) {
        self.take_out();
        self.cage.put_in(module);
        if self.registers.has(registers::GPIE, registers::GPIE_SDP2) {
            self.raise(cause::SDP2);
        }
    }

    /// The cage is emptied.
    pub fn take_out(&mut self) {
        let had = self.has_link();
        self.cage.take_out();
        if had && !self.has_link() {
            self.link_fell = true;
            self.raise(cause::LSC);
        }
    }

    /// The MAC sees a link from now on where there is none.
    pub const fn see_crosstalk(&mut self) {
        self.cage.see_crosstalk();
    }

    /// Mbit/s of the link partner, which does not negotiate over optics.
    pub const fn set_partner_speed(&mut self, speed: u32) {
        self.cage.set_partner_speed(speed);
    }

    /// Mbit/s of the link from now on: 100, 1,000 or 10,000, of an X550 also 2,500 and 5,000.
    pub const fn set_speed(&mut self, speed: u32) {
        self.speed = speed;
    }

    /// The words of the last start-up sequence that the analogue part took.
    pub fn tuned(&self) -> &[u16] {
        self.cage.words()
    }

    /// Sets a word of the EEPROM.
    pub fn set_word(&mut self, address: usize, value: u16) {
        if let Some(word) = self.eeprom.get_mut(address) {
            *word = value;
        }
    }

    /// Whether there is a link.
    fn has_link(&self) -> bool {
        self.link && self.cage.has_carrier() && self.phy.as_ref().is_none_or(phy::Phy::is_awake)
    }

    /// How often a driver began with the link, by AUTOC or in the PHY.
    pub fn links_begun(&self) -> usize {
        self.links_begun + self.phy.as_ref().map_or(0, phy::Phy::negotiations)
    }

    /// What the link partner advertises about pause frames from its next negotiation on.
    pub const fn set_partner_pause(&mut self, symmetric: bool, asymmetric: bool) {
        self.partner_pause = (symmetric, asymmetric);
    }

    /// The permanent address.
    pub const fn address(&self) -> Address {
        self.address
    }

    /// PCI configuration space, for a bus driver in a test.
    pub const fn configuration_mut(&mut self) -> &mut ConfigurationSpace {
        &mut self.configuration
    }
}

impl Model for Ixgbe {
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
        if let Some(up) = self.cage.settle(self.now, &self.registers)
            && self.link
        {
            self.link_fell |= !up;
            self.raise(cause::LSC);
        }
    }

    fn poll_time(&self) -> Option<Duration> {
        let paused = Some(self.paused_until).filter(|until| *until > self.now);
        paused.into_iter().chain(self.cage.poll_time()).min()
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
        if up == self.link {
            return;
        }
        self.link = up;
        self.link_fell |= !up;
        self.raise(cause::LSC);
    }

    fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    fn misuse(&self) -> &[String] {
        self.misuse.list()
    }

    fn peek(&self, offset: usize) -> u32 {
        match offset {
            registers::EICR => self.interrupts.pending(),
            registers::EIMS => self.interrupts.enabled(),
            _ => self.registers.get(registers::canonical(offset)),
        }
    }

    fn poke(&mut self, offset: usize, value: u32) {
        self.registers.set(registers::canonical(offset), value);
    }
}
