//! AHCI: any host bus adapter of Serial ATA AHCI 1.0 to 1.3.1 that reaches 64 bits of address, and the disks on its ports. Floor 3.
//!
//! | file | holds |
//! |---|---|
//! | `registers` | registers, typed and cited |
//! | `command` | commands, as the adapter and the drive read them |
//! | `identify` | what a drive says of itself |
//! | `memory` | command lists, tables, received FISes |
//! | `slots` | a port's commands, waiting and sent |
//! | `port` | from any state of a port to one that takes commands |
//! | `io` | commands out, answers in |
//! | `recovery` | errors and time-outs |
//!
//! Queued commands (NCQ) where adapter and drive have them, else one at a time. What cannot be queued (flush, trim) waits for what is
//! queued, and what comes after it waits for it: the drive has no other order. Drives with 48-bit addresses alone; packet devices,
//! port multipliers and enclosures are left alone.
//!
//! # What is believed of the device
//! Of a command's end, the bit that was set for it. All else it writes (what a drive says of itself, its log) is copied once and
//! checked; received FISes are not read at all. Registers that read as ones mean that it is gone.
//!
//! # When it fails
//! A port by itself: see `recovery`. A drive that does not come up three times in a row is given up, and its unit is gone; the other
//! ports go on. Only where a port cannot be stopped is the adapter reset, and all that was in flight is sent again.

pub mod command;
pub mod identify;
mod io;
mod memory;
mod port;
mod recovery;
pub mod registers;
mod slots;

use crate::disk::{Command, Completion, Disk, Event, Refusal, Unit, UnitId};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use memory::Memory;
use port::{News, Port, Step as PortStep, Turn};
use registers::{self as reg, Bohc, Cap, Cap2, Ghc, Registers, Version};
use split_driver::memory::{DmaAllocator, Mmio, Quiesced};
use split_driver::time::Instant;

/// Bytes of registers to map of BAR 5: a page, which has those of thirty ports (AHCI 3). Those of two more would need another page, which
/// may not be the device's.
pub const REGISTER_BYTES: usize = 0x1000;

/// How long a reset may take (AHCI 10.4.3: one second), and the firmware to let go (10.6.3: two).
const RESET_PATIENCE: Duration = Duration::from_millis(1500);
const HANDOFF_PATIENCE: Duration = Duration::from_secs(2);
/// How often a register that is waited for is read.
const REGISTER_PAUSE: Duration = Duration::from_millis(1);
/// Resets in a row that may fail.
const STARTS: u8 = 3;

/// Choices of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a command may take until its drive is reset.
    pub patience: Duration,
    /// Reads of a register that a port which is stopped for good may take, where no clock is at hand: half a second (AHCI 10.3.2) on
    /// hardware, where each takes about half a microsecond.
    pub stop_reads: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { patience: Duration::from_secs(30), stop_reads: 1_000_000 }
    }
}

/// Why there is no driver for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The registers are fewer than one port has.
    Registers {
        /// Bytes mapped.
        mapped: usize,
    },
    /// There is no device behind the registers.
    Absent,
    /// It reaches 32 bits of address alone.
    ShortAddresses,
    /// No memory for command lists.
    Memory,
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registers { mapped } => write!(formatter, "{mapped} bytes of registers are too few"),
            Self::Absent => formatter.write_str("no device answers"),
            Self::ShortAddresses => formatter.write_str("it reaches 32 bits of address alone"),
            Self::Memory => formatter.write_str("no memory for its command lists"),
        }
    }
}

impl core::error::Error for Error {}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Times that a port said it was at work on what it was not sent.
    pub nonsense: u64,
    /// Errors of drives, links and memory.
    pub errors: u64,
    /// Commands sent again since the link garbled them.
    pub retries: u64,
    /// Commands that were not answered in time.
    pub timeouts: u64,
    /// Resets of ports, or of all of them.
    pub resets: u64,
}

/// What the driver is about beside its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing was done yet.
    New,
    /// Waits for the firmware to let go.
    Handoff,
    /// Waits for GHC.HR to become 0.
    Resetting,
    /// The ports do what they do.
    Running,
    /// The adapter was given up.
    Dead,
}

/// An adapter. `M` are its registers (BAR 5), `D` gives the memory of its ports.
pub struct Ahci<M: Mmio, D: DmaAllocator> {
    registers: Registers<M>,
    dma: D,
    options: Options,
    version: Version,
    capabilities: Cap,
    ports: Vec<Port<D::Memory>>,
    /// In ascending order of their ids.
    units: Vec<Unit>,
    next_unit: u16,
    step: Step,
    deadline: Instant,
    /// When to look at the adapter itself.
    look_at: Instant,
    now: Instant,
    /// [`Event::Ready`] was told, and holds.
    ready: bool,
    /// It was told once: units that come are told from then on.
    told: bool,
    /// Failed resets in a row.
    failures: u8,
    events: VecDeque<Event>,
    statistics: Statistics,
    /// Why it was given up, until that was told.
    obituary: Option<String>,
    /// An interrupt arrived.
    interrupted: bool,
    /// Interrupts are disabled in the adapter.
    masked: bool,
    /// The registers are not touched any more.
    halted: bool,
    /// The device no longer reaches memory.
    quiesced: Option<Quiesced>,
    /// What it was to do has not completed since.
    unburied: bool,
}

impl<M: Mmio, D: DmaAllocator> Ahci<M, D> {
    /// Takes the device behind `mmio` into use; [`Disk::poll`] starts it. Memory access by the device (bus mastering) must be enabled.
    ///
    /// # Errors
    /// [`Error`], with nothing done to the device.
    pub fn new(mmio: M, dma: D, options: Options) -> Result<Self, Error> {
        let registers = Registers { mmio };
        let mapped = registers.mmio.len();
        if mapped < reg::PORTS + reg::PORT_BYTES {
            return Err(Error::Registers { mapped });
        }
        if registers.read::<Ghc>(reg::GHC).absent() {
            return Err(Error::Absent);
        }
        let capabilities: Cap = registers.read(reg::CAP);
        if !capabilities.long_addresses() {
            return Err(Error::ShortAddresses);
        }
        let implemented: u32 = registers.read(reg::PI);
        let within = ((mapped - reg::PORTS) / reg::PORT_BYTES).min(reg::MOST_PORTS.into()) as u8;
        if u64::from(implemented) >> within != 0 {
            log::warn!("ahci: ports beyond the first {within} are left alone");
        }
        let numbers = (0..within).filter(|number| implemented >> number & 1 != 0);
        let ports = numbers.map(|number| Some(Port::new(number, Memory::new(&dma)?)));
        let ports = ports.collect::<Option<Vec<_>>>().ok_or(Error::Memory)?;
        Ok(Self {
            version: registers.read(reg::VS),
            registers,
            dma,
            options,
            capabilities,
            ports,
            units: Vec::new(),
            next_unit: 0,
            step: Step::New,
            deadline: Instant(0),
            look_at: Instant(0),
            now: Instant(0),
            ready: false,
            told: false,
            failures: 0,
            events: VecDeque::new(),
            statistics: Statistics::default(),
            obituary: None,
            interrupted: false,
            masked: true,
            halted: false,
            quiesced: None,
            unburied: false,
        })
    }

    /// What happened since the start.
    pub const fn statistics(&self) -> Statistics {
        self.statistics
    }

    fn control(&self) -> Ghc {
        Ghc::new().with_ahci(true).with_interrupts(!self.masked)
    }

    fn enter(&mut self, step: Step, patience: Duration) {
        self.step = step;
        self.deadline = self.now + patience;
        self.look_at = self.now + REGISTER_PAUSE;
    }

    /// Asks the firmware for the adapter, where it has it (AHCI 10.6.3).
    fn begin(&mut self) {
        let more: Cap2 = self.registers.read(reg::CAP2);
        let owner: Bohc = self.registers.read(reg::BOHC);
        if more.handoff() && owner.firmware_owns() {
            self.registers.write(reg::BOHC, owner.with_system_owns(true));
            return self.enter(Step::Handoff, HANDOFF_PATIENCE);
        }
        self.reset();
    }

    /// Resets the adapter (AHCI 10.4.3).
    fn reset(&mut self) {
        self.masked = true;
        self.registers.write(reg::GHC, self.control());
        self.registers.write(reg::GHC, self.control().with_reset(true));
        self.enter(Step::Resetting, RESET_PATIENCE);
    }

    fn advance(&mut self) {
        let late = self.now >= self.deadline;
        match self.step {
            Step::New => self.begin(),
            Step::Handoff if late || !self.registers.read::<Bohc>(reg::BOHC).firmware_owns() => self.reset(),
            Step::Resetting => {
                let control: Ghc = self.registers.read(reg::GHC);
                if control.absent() {
                    self.vanish();
                } else if !control.reset() {
                    self.registers.write(reg::GHC, self.control());
                    self.step = Step::Running;
                } else if late {
                    self.recover(String::from("its reset does not end"));
                } else {
                    self.look_at = self.now + REGISTER_PAUSE;
                }
            }
            Step::Handoff => self.look_at = self.now + REGISTER_PAUSE,
            Step::Running | Step::Dead => {}
        }
    }

    /// The adapter is of no use as it is: resets it, unless that has failed too often.
    fn recover(&mut self, reason: String) {
        log::warn!("ahci: {reason}");
        self.failures += 1;
        if self.failures > STARTS {
            return self.give_up(format!("{reason}; {STARTS} resets did not help"));
        }
        self.statistics.resets += 1;
        self.ready = false;
        self.events.push_back(Event::Recovering(reason));
        self.poll_ports_with(|port, turn| port.interrupt_by_reset(turn), &mut Vec::new());
        self.reset();
    }

    /// The registers read as ones.
    fn vanish(&mut self) {
        self.halted = true;
        self.give_up(String::from("its registers are gone"));
    }

    /// Nothing more will come of it; with `reason` told at the next `poll`.
    fn give_up(&mut self, reason: String) {
        if self.step != Step::Dead {
            if !self.halted {
                self.stop();
            }
            self.step = Step::Dead;
            self.obituary = Some(reason);
        }
    }

    fn stop(&mut self) {
        self.masked = true;
        self.registers.write(reg::GHC, self.control());
        let mut proof = self.registers.confirm(reg::GHC, |control: Ghc| !control.reset());
        self.poll_ports_with(|port, turn| proof = Quiesced::both(proof.take(), port.shut_down(turn)), &mut Vec::new());
        if let Some(proof) = proof {
            self.release(proof);
        }
        self.halted = true;
    }

    /// The device no longer reaches memory: what it was given goes back.
    fn release(&mut self, proof: Quiesced) {
        if self.dma.release(&proof) {
            self.quiesced = Some(proof);
            self.unburied = true;
        }
    }

    /// Tells that it was given up, and completes what it will never answer once it reaches no memory.
    fn bury(&mut self, completions: &mut Vec<Completion>) {
        if let Some(reason) = self.obituary.take() {
            for port in &mut self.ports {
                (port.identity, port.unit) = (None, None);
            }
            self.units.clear();
            self.events.push_back(Event::Failed(reason));
        }
        if core::mem::take(&mut self.unburied)
            && let Some(proof) = &self.quiesced
        {
            for port in &mut self.ports {
                port.complete_all_as_gone(&proof.into(), completions);
            }
        }
    }

    /// Whether `bury` has something to do.
    const fn has_last_words(&self) -> bool {
        self.obituary.is_some() || self.unburied
    }

    /// Has each port do something.
    fn poll_ports_with(
        &mut self,
        mut act: impl FnMut(&mut Port<D::Memory>, &mut Turn<'_, M, D>),
        completions: &mut Vec<Completion>,
    ) {
        for port in &mut self.ports {
            let mut turn = Turn {
                io: self.registers.port(port.number),
                dma: &self.dma,
                now: self.now,
                patience: self.options.patience,
                stop_reads: self.options.stop_reads,
                slots: self.capabilities.slots() + 1,
                queuing: self.capabilities.queuing(),
                completions,
                statistics: &mut self.statistics,
            };
            act(port, &mut turn);
        }
    }

    /// What the ports have to say, and what their time has come for.
    fn poll_ports(&mut self, completions: &mut Vec<Completion>) {
        let asked = core::mem::take(&mut self.interrupted) || self.ports.iter().any(Port::is_active);
        let looks =
            self.ports.iter().any(|port| port.look_at.is_some_and(|at| at <= self.now) || port.step == PortStep::New);
        if !asked && !looks {
            return;
        }
        let status: u32 = self.registers.read(reg::IS);
        if (status == u32::MAX || looks) && self.registers.read::<Ghc>(reg::GHC).absent() {
            return self.vanish();
        }
        let now = self.now;
        let act = |port: &mut Port<D::Memory>, turn: &mut Turn<'_, M, D>| {
            if status >> port.number & 1 != 0 {
                port.handle_interrupt(turn);
            }
            if port.step == PortStep::New || port.look_at.is_some_and(|at| at <= now) {
                port.look(turn);
            }
            port.issue(&turn.io, now);
        };
        self.poll_ports_with(act, completions);
        if status != 0 {
            // After the ports' own: it says what they say (AHCI 10.7.2).
            self.registers.write(reg::IS, status);
        }
        self.hear_news();
    }

    /// Names drives that came, forgets those that went.
    fn hear_news(&mut self) {
        if let Some(port) = self.ports.iter().find(|port| port.stuck) {
            return self.recover(format!("port {} does not stop", port.number));
        }
        let settled = self.ports.iter().all(Port::is_settled);
        // The first drives are named when all are there: in the order of their ports.
        if !self.told && !settled {
            return;
        }
        for place in 0..self.ports.len() {
            while let Some(news) = self.ports.get_mut(place).and_then(|port| port.news.pop_front()) {
                self.hear(place, &news);
            }
        }
        if settled && !self.ready && self.step == Step::Running {
            (self.ready, self.told, self.failures) = (true, true, 0);
            self.events.push_back(Event::Ready);
        }
    }

    fn hear(&mut self, place: usize, news: &News) {
        let Some(port) = self.ports.get_mut(place) else {
            return;
        };
        let known = port.unit.and_then(|id| self.units.iter().position(|unit| unit.id == id));
        match news {
            News::Came => {
                let id = UnitId(self.next_unit);
                let (Some(next), Some(unit)) = (self.next_unit.checked_add(1), port.describe(id)) else {
                    return;
                };
                self.next_unit = next;
                port.unit = Some(id);
                log::info!("ahci: port {}: {} {}", port.number, unit.model, unit.serial);
                self.units.push(unit);
                if self.told {
                    self.events.push_back(Event::Added(id));
                }
            }
            News::Changed => {
                if let (Some(id), Some(unit)) = (port.unit, known.and_then(|known| self.units.get_mut(known)))
                    && let Some(now) = port.describe(id)
                {
                    *unit = now;
                    self.events.push_back(Event::Changed(id));
                }
            }
            News::Left => {
                if let (Some(id), Some(known)) = (port.unit.take(), known) {
                    self.units.remove(known);
                    self.events.push_back(Event::Removed(id));
                }
            }
        }
    }
}

impl<M: Mmio, D: DmaAllocator> Disk for Ahci<M, D> {
    fn name(&self) -> String {
        let (major, minor, tertiary) = (self.version.major(), self.version.minor(), self.version.tertiary());
        let queued = if self.capabilities.queuing() { "queuing" } else { "without queues" };
        format!("AHCI {major}.{minor}.{tertiary}, {} ports, {queued}", self.ports.len())
    }

    fn units(&self) -> &[Unit] {
        &self.units
    }

    fn submit(&mut self, command: &Command<'_>) -> Result<u32, Refusal> {
        let port = self.ports.iter_mut().find(|port| port.unit == Some(command.unit)).ok_or(Refusal::NoUnit)?;
        match self.step {
            Step::Running => port.take_command(command),
            Step::Dead => Err(Refusal::NoUnit),
            _ => Err(Refusal::Full),
        }
    }

    fn ring(&mut self) {
        if self.halted || self.step != Step::Running {
            return;
        }
        for port in &mut self.ports {
            port.issue(&self.registers.port(port.number), self.now);
        }
    }

    fn poll(&mut self, now: Instant, completions: &mut Vec<Completion>) {
        self.now = now;
        if !matches!(self.step, Step::Running | Step::Dead) && now >= self.look_at {
            self.advance();
        }
        if self.step == Step::Running {
            self.poll_ports(completions);
        }
        if self.step == Step::Dead {
            self.bury(completions);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self.step {
            Step::Dead => self.has_last_words().then_some(self.now),
            Step::Running => self.ports.iter().filter_map(|port| port.look_at).min(),
            _ => Some(self.look_at),
        }
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn handle_interrupt(&mut self, _vector: usize) {
        if !self.halted && self.step == Step::Running {
            self.masked = true;
            self.interrupted = true;
            self.registers.write(reg::GHC, self.control());
        }
    }

    fn enable_interrupts(&mut self) -> bool {
        match self.step {
            Step::Dead => return self.has_last_words(),
            Step::Running if self.masked => {}
            _ => return false,
        }
        self.masked = false;
        self.registers.write(reg::GHC, self.control());
        // What came before this is not told of by every adapter.
        self.interrupted = self.registers.read::<u32>(reg::IS) != 0;
        self.interrupted
    }

    fn remove(&mut self, proof: Quiesced) {
        self.halted = true;
        self.release(proof);
        self.give_up(String::from("it was taken away"));
    }

    fn quiesce(&mut self) {
        if !self.halted {
            self.stop();
        }
        self.give_up(String::from("it was stopped"));
    }
}

impl<M: Mmio, D: DmaAllocator> Drop for Ahci<M, D> {
    /// A running device would go on writing to memory that is no longer its own.
    fn drop(&mut self) {
        if !self.halted {
            self.quiesce();
        }
    }
}
