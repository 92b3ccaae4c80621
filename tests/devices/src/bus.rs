//! What a model of a PCI device reaches, and how it is reached: without I/O, clock or thread. Host.
//!
//! A model takes register accesses, frames and the time (`handle_*`), and gives out transfers to and from memory, interrupts and
//! frames (`poll_*`). One model so serves a test in one thread, where a transfer is done at once, and a server of QEMU's, where it is a
//! message with latency. A register access never waits for memory: transfers come in batches, one batch at a time, between accesses.

use std::time::Duration;

use crate::pci::ConfigurationSpace;

/// A read or a write of memory by the device, at an address as the device knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The first byte's address on the bus.
    pub address: u64,
    /// To memory; otherwise from memory.
    pub write: bool,
    /// The bytes: for a read as many as are asked for, to be filled in.
    pub data: Vec<u8>,
    /// Whether the bus did it. The model takes a refusal for the driver's fault.
    pub done: bool,
}

impl Transfer {
    /// A read of `length` bytes.
    pub fn read(address: u64, length: usize) -> Self {
        Self { address, write: false, data: vec![0; length], done: false }
    }

    /// A write of `data`.
    pub const fn write(address: u64, data: Vec<u8>) -> Self {
        Self { address, write: true, data, done: false }
    }
}

/// How a device asks for attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupt {
    /// The INTx line is asserted, or no longer.
    Line(bool),
    /// The MSI message.
    Msi,
    /// The MSI-X message of a vector.
    MsiX(u16),
}

/// How a device misbehaves, where a test says so. All off at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// It was pulled out: registers read as ones, writes are lost, no frame and no transfer goes.
    pub pulled_out: bool,
    /// A reset never ends.
    pub reset_stuck: bool,
    /// It never says that its requests to memory have ended (master disable).
    pub master_stuck: bool,
    /// Transmit queues that no longer fetch descriptors, as bits.
    pub hung_transmit: u128,
    /// A queue that is disabled never says so.
    pub disable_stuck: bool,
    /// Received frames are reported with this length instead of their own.
    pub wrong_length: Option<u16>,
    /// Words of the EEPROM never come.
    pub eeprom_stuck: bool,
    /// Auto-negotiation does not say that it begins anew.
    pub negotiation_stuck: bool,
}

/// A device behind a PCI bus. One without a cable leaves out what has to do with frames.
pub trait Model {
    /// Its PCI configuration space.
    fn configuration(&self) -> &ConfigurationSpace;

    /// Reads `data.len()` bytes of configuration space.
    fn read_configuration(&mut self, offset: usize, data: &mut [u8]) {
        self.configuration().read(offset, data);
    }

    /// Writes configuration space; what is read-only stays.
    fn write_configuration(&mut self, offset: usize, data: &[u8]);

    /// Reads `data.len()` bytes at `offset` of a base address register's memory, with the effects that reading has.
    fn read(&mut self, bar: usize, offset: u64, data: &mut [u8]);

    /// Writes `data` at `offset` of a base address register's memory.
    fn write(&mut self, bar: usize, offset: u64, data: &[u8]);

    /// The bus resets it: a function-level reset, or the machine's.
    fn reset(&mut self);

    /// The time since power-on. It never goes back. For a device that does nothing on its own it is no matter.
    fn handle_time(&mut self, _now: Duration) {}

    /// When it wants to be told the time next, for what it does on its own by then.
    fn poll_time(&self) -> Option<Duration> {
        None
    }

    /// A frame from the wire, without its frame check sequence. False where the device does not take it.
    fn handle_frame(&mut self, _frame: &[u8]) -> bool {
        false
    }

    /// The next frame for the wire, without its frame check sequence.
    fn poll_frame(&mut self) -> Option<Vec<u8>> {
        None
    }

    /// Transfers that can be done side by side, writes in their order; empty where there is nothing to do or a batch is still out.
    fn poll_dma(&mut self) -> Vec<Transfer>;

    /// The batch that [`Self::poll_dma`] gave, done.
    fn handle_dma(&mut self, batch: Vec<Transfer>);

    /// The next interrupt.
    fn poll_interrupt(&mut self) -> Option<Interrupt>;

    /// The cable is plugged in, or pulled.
    fn set_link(&mut self, _up: bool) {}

    /// How it misbehaves from now on, as far as it has such parts.
    fn faults(&mut self) -> &mut Faults;

    /// The driver's offences against the datasheet, oldest first, each once; bounded.
    fn misuse(&self) -> &[String];

    /// Register at `offset` without the effects of reading it.
    fn peek(&self, offset: usize) -> u32;

    /// Sets what the register at `offset` holds, without the effects of writing it.
    fn poke(&mut self, offset: usize, value: u32);
}

/// A list of offences that stays short whatever a driver does.
#[derive(Clone, Debug, Default)]
pub struct Misuse(Vec<String>);

impl Misuse {
    const MOST: usize = 64;

    /// Notes an offence, where it is a new one and the list has room.
    pub fn note(&mut self, offence: impl Into<String>) {
        let offence = offence.into();
        if self.0.len() < Self::MOST && !self.0.contains(&offence) {
            log::warn!("the driver: {offence}");
            self.0.push(offence);
        }
    }

    /// All, oldest first.
    pub fn list(&self) -> &[String] {
        &self.0
    }
}
