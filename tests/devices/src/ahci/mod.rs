//! An AHCI adapter, as Serial ATA AHCI 1.3.1 has it, and drives on its ports: for tests, fuzzers and measurements. Host.
//!
//! | file | holds |
//! |---|---|
//! | here | the adapter's registers, and commands on their way |
//! | `port` | ports: registers, command lists, links |
//! | `drive` | drives: commands and their data |
//! | `orders` | what tests tell it |
//!
//! It does what the specification says, and worse where told to. Registers and commands are laid out as in
//! [`blkdom::disk::ahci`], whose tests hold them against Linux's and QEMU's headers.

mod drive;
mod orders;
mod port;

pub use drive::{Drive, Trap};
pub use port::Quirks;

use std::collections::{BTreeMap, VecDeque};

use blkdom::disk::ahci::registers::{self as reg, Bohc, Cap, Cap2, Ghc, PortStatus};

use crate::bus::{Faults, Interrupt, Misuse, Model, Transfer};
use crate::pci::{Bars, ConfigurationSpace, Identity, Request, class};
use crate::registers::register_at;
use crate::work::{Next, Work, Worker};
use drive::Motion;
use port::{Fetched, Port};

/// Ports of the model.
pub const PORTS: usize = 6;
/// Bytes of registers.
pub const SPACE: usize = 0x1000;

/// Its identity on the bus: that of an ICH9, which QEMU emulates.
pub const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x2922,
    subsystem: [0x1AF4, 0x1100],
    revision: 2,
    bars: Bars::Last,
    registers: SPACE as u64,
    vectors: 0,
    link: (1, 1),
};

/// How often the driver did what costs time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accesses {
    /// Reads of any register.
    pub reads: usize,
    /// Writes of any register.
    pub writes: usize,
}

/// The device.
pub struct Ahci {
    space: ConfigurationSpace,
    capabilities: Cap,
    control: Ghc,
    status: u32,
    implemented: u32,
    more: Cap2,
    owner: Bohc,
    ports: [Port; PORTS],
    work: Work<Self>,
    overrides: BTreeMap<usize, u32>,
    faults: Faults,
    misuse: Misuse,
    accesses: Accesses,
    messages: VecDeque<Interrupt>,
    /// The INTx line, as it was told last.
    line: bool,
    lazy: bool,
    /// Resets that will not come to an end.
    bad_resets: u32,
}

impl Default for Ahci {
    fn default() -> Self {
        Self::new()
    }
}

impl Ahci {
    /// An adapter of six ports with 32 slots each, and no drives.
    pub fn new() -> Self {
        let capabilities = Cap::new()
            .with_ports(PORTS as u8 - 1)
            .with_slots(31)
            .with_ahci_only(true)
            .with_queuing(true)
            .with_long_addresses(true);
        Self {
            space: ConfigurationSpace::of_class(IDENTITY, class::AHCI),
            capabilities,
            control: Ghc::new().with_ahci(true),
            status: 0,
            implemented: (1 << PORTS) - 1,
            more: Cap2::new(),
            owner: Bohc::new(),
            ports: Default::default(),
            work: Work::Idle,
            overrides: BTreeMap::new(),
            faults: Faults::default(),
            misuse: Misuse::default(),
            accesses: Accesses::default(),
            messages: VecDeque::new(),
            line: false,
            lazy: false,
            bad_resets: 0,
        }
    }

    fn with_port<T>(&mut self, port: usize, act: impl FnOnce(&mut Port) -> T) -> Option<T> {
        let result = self.ports.get_mut(port).map(act);
        self.tell();
        result
    }

    fn with_drive<T>(&mut self, port: usize, act: impl FnOnce(&mut Drive) -> T) -> Option<T> {
        self.with_port(port, |port| port.drive.as_mut().map(act)).flatten()
    }

    /// Notes the ports that have something new to say, and tells of them.
    fn tell(&mut self) {
        let mut now = self.status;
        for (place, port) in self.ports.iter().enumerate() {
            now |= u32::from(port.interrupts()) << place;
        }
        let news = now & !self.status != 0 && self.control.interrupts();
        self.status = now;
        let interrupt = self.space.interrupt(0);
        if news && interrupt == Some(Interrupt::Msi) {
            self.messages.push_back(Interrupt::Msi);
        }
        let wired = matches!(interrupt, Some(Interrupt::Line(_)));
        let up = wired && self.control.interrupts() && self.status != 0;
        if up != self.line {
            self.line = up;
            self.messages.push_back(Interrupt::Line(up));
        }
    }

    fn set_control(&mut self, control: Ghc) {
        if !control.reset() {
            // No message for what came while they were disabled: some adapters send none.
            self.control = control.with_ahci(true);
            return;
        }
        let left = self.bad_resets.checked_sub(1);
        self.bad_resets = left.unwrap_or(0);
        if left.is_some() || self.faults.reset_stuck {
            self.control = self.control.with_reset(true);
            return;
        }
        self.forget();
    }

    /// What a reset of the adapter leaves (AHCI 10.4.3).
    fn forget(&mut self) {
        self.control = Ghc::new();
        self.status = 0;
        self.ports.iter_mut().for_each(Port::reset);
    }

    /// What a register holds.
    fn register(&self, offset: usize) -> u32 {
        match offset {
            0x00 => self.capabilities.into(),
            0x04 => self.control.into(),
            0x08 => self.status,
            0x0C => self.implemented,
            0x10 => 0x0001_0301,
            0x24 => self.more.into(),
            0x28 => self.owner.into(),
            reg::PORTS.. => {
                let (port, offset) = place(offset);
                self.ports.get(port).map_or(0, |port| port.register(offset))
            }
            _ => 0,
        }
    }

    fn read_register(&mut self, offset: usize) -> u32 {
        if let Some(forced) = self.overrides.get(&offset) {
            return *forced;
        }
        if offset < reg::PORTS {
            return self.register(offset);
        }
        let (port, offset) = place(offset);
        self.ports.get_mut(port).map_or(0, |port| port.read(offset))
    }

    fn write_register(&mut self, offset: usize, value: u32) {
        match offset {
            0x04 => self.set_control(Ghc::from(value)),
            0x08 => self.status &= !value,
            0x28 => {
                let asked = Bohc::from(value).system_owns();
                self.owner = self.owner.with_system_owns(asked).with_firmware_owns(!asked);
            }
            reg::PORTS.. => {
                let (port, offset) = place(offset);
                if self.implemented.checked_shr(port as u32).unwrap_or(0) & 1 == 0 || !self.control.ahci() {
                    self.misuse.note("a write to a port that is not there, or without AHCI");
                }
                if let Some(port) = self.ports.get_mut(port) {
                    port.write(offset, value, &mut self.misuse);
                }
            }
            _ => self.misuse.note("a write to a register that cannot be written"),
        }
        self.tell();
    }

    /// A port, unless it has forgotten its commands since `epoch`.
    fn port(&mut self, (number, epoch): Place) -> Option<&mut Port> {
        self.ports.get_mut(number).filter(|port| port.epoch == epoch)
    }

    /// An address of the driver's that the bus does not know: the port stops (AHCI 6.1.3).
    fn break_off(&mut self, at: Place) -> Next<Self> {
        if let Some(port) = self.port(at) {
            port.fail(PortStatus::new().with_bus_fatal(true));
        }
        Next::Done
    }

    /// Reads a command: its header, and then its table.
    fn fetch(at: Place, (slot, header): (u8, Transfer)) -> Next<Self> {
        Next::then(vec![header], move |device: &mut Self, batch| {
            let Some(bytes) = reached(&batch) else {
                return device.break_off(at);
            };
            let (header, table) = Port::header(slot, bytes);
            Next::then(table, move |device: &mut Self, batch| {
                if reached(&batch).is_none() {
                    return device.break_off(at);
                }
                if let Some(port) = device.ports.get_mut(at.0).filter(|port| port.epoch == at.1) {
                    port.receive(&header, &batch, &mut device.misuse);
                }
                Next::Done
            })
        })
    }

    /// Carries out a command.
    fn execute(&mut self, at: Place, fetched: Fetched) -> Next<Self> {
        let Some(port) = self.ports.get_mut(at.0).filter(|port| port.epoch == at.1) else {
            return Next::Done;
        };
        match port.begin(&fetched, &mut self.misuse) {
            None => Next::Done,
            Some(Err(error)) => self.answer(at, fetched, Err(error)),
            Some(Ok(Motion::Give(batch))) => Next::then(batch, move |device: &mut Self, batch| {
                if reached(&batch).is_none() && !batch.is_empty() {
                    return device.break_off(at);
                }
                device.answer(at, fetched, Ok(()))
            }),
            Some(Ok(Motion::Take(batch, taken))) => Next::then(batch, move |device: &mut Self, batch| {
                if reached(&batch).is_none() {
                    return device.break_off(at);
                }
                let drive = device.port(at).and_then(|port| port.drive.as_mut());
                let Some(result) = drive.map(|drive| drive.take(taken, &batch)) else {
                    return Next::Done;
                };
                device.answer(at, fetched, result)
            }),
        }
    }

    /// Tells of a command's end.
    fn answer(&mut self, at: Place, fetched: Fetched, result: Result<(), u8>) -> Next<Self> {
        let Some(port) = self.port(at) else {
            return Next::Done;
        };
        Next::then(vec![port.answer(&fetched.task, result)], move |device: &mut Self, batch| {
            if reached(&batch).is_none() {
                return device.break_off(at);
            }
            if let Some(port) = device.port(at) {
                port.end(&fetched, result);
            }
            Next::Done
        })
    }
}

/// The port whose register is at `offset`, and the register's place among that port's.
const fn place(offset: usize) -> (usize, usize) {
    ((offset - reg::PORTS) / reg::PORT_BYTES, offset % reg::PORT_BYTES)
}

/// A port's number, and how often it had forgotten its commands.
type Place = (usize, u32);

/// The first bytes of a batch that was done.
fn reached(batch: &[Transfer]) -> Option<&[u8]> {
    let first = batch.first().filter(|_| batch.iter().all(|transfer| transfer.done));
    first.map(|transfer| transfer.data.as_slice())
}

impl Worker for Ahci {
    fn work(&mut self) -> &mut Work<Self> {
        &mut self.work
    }

    fn begin(&mut self) -> Option<Next<Self>> {
        for (number, port) in self.ports.iter_mut().enumerate() {
            if let Some(unread) = port.next_unread() {
                return Some(Self::fetch((number, port.epoch), unread));
            }
        }
        let lazy = self.lazy;
        let mut ports = self.ports.iter_mut().enumerate();
        let (at, fetched) = ports.find_map(|(number, port)| Some(((number, port.epoch), port.next(lazy)?)))?;
        Some(self.execute(at, fetched))
    }
}

impl Model for Ahci {
    fn configuration(&self) -> &ConfigurationSpace {
        &self.space
    }

    fn write_configuration(&mut self, offset: usize, data: &[u8]) {
        if self.faults.pulled_out {
            return;
        }
        if self.space.write(offset, data) == Some(Request::Reset) {
            self.reset();
        }
        self.tell();
    }

    fn read(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        data.fill(if self.faults.pulled_out { 0xFF } else { 0 });
        if bar != IDENTITY.bars.registers() {
            return;
        }
        let Some(start) = register_at(offset, data.len()) else {
            return self.misuse.note(format!("{} bytes read at register {offset:#x}", data.len()));
        };
        for (place, word) in (start..).step_by(4).zip(data.as_chunks_mut::<4>().0) {
            self.accesses.reads += 1;
            if !self.faults.pulled_out {
                *word = self.read_register(place).to_le_bytes();
            }
        }
    }

    fn write(&mut self, bar: usize, offset: u64, data: &[u8]) {
        if bar != IDENTITY.bars.registers() {
            return;
        }
        let Some(start) = register_at(offset, data.len()) else {
            return self.misuse.note(format!("{} bytes written at register {offset:#x}", data.len()));
        };
        for (place, word) in (start..).step_by(4).zip(data.as_chunks::<4>().0) {
            self.accesses.writes += 1;
            if !self.faults.pulled_out {
                self.write_register(place, u32::from_le_bytes(*word));
            }
        }
    }

    fn reset(&mut self) {
        self.space.reset();
        self.forget();
        self.forget_work();
        self.tell();
    }

    fn poll_dma(&mut self) -> Vec<Transfer> {
        if self.faults.pulled_out || !self.space.masters_bus() {
            return Vec::new();
        }
        let batch = self.next_batch();
        self.tell();
        batch
    }

    fn handle_dma(&mut self, batch: Vec<Transfer>) {
        if batch.iter().any(|transfer| !transfer.done) {
            self.misuse.note("memory that cannot be reached");
        }
        self.finish_batch(batch);
        self.tell();
    }

    fn poll_interrupt(&mut self) -> Option<Interrupt> {
        self.messages.pop_front().filter(|_| !self.faults.pulled_out)
    }

    fn faults(&mut self) -> &mut Faults {
        &mut self.faults
    }

    fn misuse(&self) -> &[String] {
        self.misuse.list()
    }

    fn peek(&self, offset: usize) -> u32 {
        self.register(offset)
    }

    fn poke(&mut self, offset: usize, value: u32) {
        self.set_register(offset, Some(value));
    }
}
