//! NVMe: any controller of NVM Express 1.0 to 2.0 over PCIe that has the NVM command set. Floor 3.
//!
//! | file | holds |
//! |---|---|
//! | `registers` | registers, typed and cited |
//! | `command` | entries of the queues, as they are written and answered |
//! | `identify` | what the controller and its namespaces say of themselves |
//! | `queue` | a submission and a completion queue in memory |
//! | `slots` | commands in flight, with their page lists |
//! | `start` | from any state to one that takes commands, one admin command at a time |
//! | `namespaces` | which units there are, and what becomes of them |
//! | `io` | commands out, answers in |
//! | `recovery` | what takes too long, and what to do then |
//!
//! One I/O queue, as there is one vCPU. Memory pages are of 4 KiB, data are named by page entries (PRP). No metadata, no protection
//! information, no zones, no multipath: such namespaces are left alone.
//!
//! # What is believed of the device
//! Nothing that it writes becomes an index before it was checked: an answer names a command that was sent and not yet answered, or it
//! is counted as nonsense and forgotten. Its registers are read once a second while commands are in flight; all ones mean that it is
//! gone.
//!
//! # When it fails
//! A command that is not answered within [`Options::patience`] is aborted, and if that is of no avail the controller is reset and all
//! that was in flight is sent again: reads, writes of the same data and flushes bear that. A command that was not answered twice ends
//! with [`IoError::TimedOut`](crate::disk::IoError::TimedOut); one that met four resets of others' making, too. A controller that fails
//! to come up five times in a row, with longer and longer rests between, is given up. It may still
//! write to memory: what it was given completes once it was stopped, or its bus mastering was turned off ([`Quiesced`]).

pub mod command;
pub mod identify;
mod io;
mod namespaces;
mod queue;
mod recovery;
pub mod registers;
mod slots;
mod start;

use crate::disk::{Command, Completion, Disk, Event, Refusal, Unit};
use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use identify::{Controller, Limits};
use namespaces::Namespaces;
use queue::Queue;
use recovery::Abort;
use registers::{self as reg, Registers, Version};
use slots::{MAX_SLOTS, Slots};
use split_driver::memory::{DmaAllocator, Mmio, Quiesced};
use split_driver::time::Instant;
use start::{Control, Step};
use xen_pv_sys::PAGE_SIZE;

/// Entries of the admin queues.
const ADMIN_DEPTH: u16 = 32;
/// The I/O queue.
const IO_QUEUE: u16 = 1;

/// How the device interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupts {
    /// One message or one line for all: disabled and enabled by the controller's registers.
    Single,
    /// MSI-X with so many vectors: 0 for admin commands, 1 (where there is one) for I/O. Who delivers them disables them.
    MsiX(usize),
}

/// Choices of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Entries of the I/O queue, 2 to 256, as far as the controller can have them.
    pub depth: u16,
    /// How long a command may take until it is aborted.
    pub patience: Duration,
    /// Reads of CSTS that a shutdown may take, where no clock is at hand: some seconds on hardware, where each takes about a microsecond.
    pub stop_reads: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { depth: 256, patience: Duration::from_secs(30), stop_reads: 2_000_000 }
    }
}

/// Why there is no driver for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The registers are fewer than the queues need.
    Registers {
        /// Bytes mapped.
        mapped: usize,
    },
    /// There is no device behind the registers.
    Absent,
    /// The device cannot use pages of 4 KiB.
    PageSize {
        /// CAP.MPSMIN.
        smallest: u8,
    },
    /// The device does not have the NVM command set.
    CommandSet,
    /// No memory for queues and page lists.
    Memory,
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registers { mapped } => write!(formatter, "{mapped} bytes of registers are too few"),
            Self::Absent => formatter.write_str("no device answers"),
            Self::PageSize { smallest } => write!(formatter, "its smallest page is of 2^{} bytes", 12 + smallest),
            Self::CommandSet => formatter.write_str("it does not have the NVM command set"),
            Self::Memory => formatter.write_str("no memory for its queues"),
        }
    }
}

impl core::error::Error for Error {}

/// What happened since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Answers that belong to no command.
    pub nonsense: u64,
    /// Commands sent again because the device said so.
    pub retries: u64,
    /// Commands that the device was asked to abort.
    pub aborts: u64,
    /// Resets of the controller.
    pub resets: u64,
}

/// A controller. `M` are its registers (BAR 0), `D` gives the memory of its queues.
pub struct Nvme<M: Mmio, D: DmaAllocator> {
    registers: Registers<M>,
    interrupts: Interrupts,
    options: Options,
    version: Version,
    /// CAP.TO, with some more.
    ready_timeout: Duration,
    admin: Queue<D::Memory>,
    io: Queue<D::Memory>,
    slots: Slots<D::Memory>,
    /// Where admin commands put their data.
    page: D::Memory,
    controller: Controller,
    limits: Limits,
    namespaces: Namespaces,
    step: Step,
    control: Option<Control>,
    /// Counts admin commands, for their identifiers.
    sequence: u16,
    /// The identifier of the outstanding Asynchronous Event Request.
    event_request: Option<u16>,
    abort: Option<Abort>,
    /// Commands are sent to the device; otherwise they wait for its start.
    live: bool,
    /// The first [`Event::Ready`] was told: what comes and goes is told from then on.
    told: bool,
    /// Namespaces must be looked at once more.
    rescan: bool,
    /// It was enabled, and has not said since that it is ready: that it is not ready does not say that it has stopped.
    starting: bool,
    /// Failed starts in a row.
    failures: u8,
    /// Held commands are waiting for their time.
    delayed: bool,
    now: Instant,
    look_at: Instant,
    events: VecDeque<Event>,
    statistics: Statistics,
    /// Why it was given up, until that was told.
    obituary: Option<String>,
    /// The interrupt is disabled in the controller.
    masked: bool,
    /// The registers are not touched any more.
    halted: bool,
    dma: D,
    /// The device no longer reaches memory.
    quiesced: Option<Quiesced>,
}

impl<M: Mmio, D: DmaAllocator> Nvme<M, D> {
    /// Takes the device behind `mmio` into use; [`Disk::poll`] starts it. Memory access by the device (bus mastering) must be enabled.
    ///
    /// # Errors
    /// [`Error`], with nothing done to the device.
    pub fn new(mmio: M, dma: D, interrupts: Interrupts, options: Options) -> Result<Self, Error> {
        let mut registers = Registers::new(mmio);
        let mapped = registers.mmio.len();
        if mapped < reg::DOORBELLS {
            return Err(Error::Registers { mapped });
        }
        let capabilities = registers.capabilities();
        if u64::from(capabilities) == u64::MAX {
            return Err(Error::Absent);
        }
        if !registers.set_stride(capabilities.doorbell_stride(), IO_QUEUE) {
            return Err(Error::Registers { mapped });
        }
        if capabilities.smallest_page() != 0 {
            return Err(Error::PageSize { smallest: capabilities.smallest_page() });
        }
        if !capabilities.nvm_commands() {
            return Err(Error::CommandSet);
        }
        let depth = options.depth.min(capabilities.max_queue_entries().saturating_add(1)).clamp(2, MAX_SLOTS + 1);
        let admin = Queue::new(&dma, 0, ADMIN_DEPTH).ok_or(Error::Memory)?;
        let io = Queue::new(&dma, IO_QUEUE, depth).ok_or(Error::Memory)?;
        let slots = Slots::new(&dma, depth - 1).ok_or(Error::Memory)?;
        let page = dma.allocate(PAGE_SIZE).map_err(|_| Error::Memory)?;
        Ok(Self {
            version: registers.read(reg::VS),
            registers,
            interrupts,
            options,
            // Some devices take a little longer than they say.
            ready_timeout: Duration::from_millis(500 * (u64::from(capabilities.timeout()) + 2)),
            admin,
            io,
            slots,
            page,
            controller: Controller::default(),
            limits: Limits::none(u32::MAX),
            namespaces: Namespaces::default(),
            step: Step::New,
            control: None,
            sequence: 0,
            event_request: None,
            abort: None,
            live: false,
            told: false,
            rescan: false,
            starting: false,
            failures: 0,
            delayed: false,
            now: Instant(0),
            look_at: Instant(0),
            events: VecDeque::new(),
            statistics: Statistics::default(),
            obituary: None,
            masked: false,
            halted: false,
            dma,
            quiesced: None,
        })
    }

    /// What happened since the start.
    pub const fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// Nothing more will come of it; with `reason` told at the next `poll`.
    fn give_up(&mut self, reason: String) {
        if self.step != Step::Dead {
            self.step = Step::Dead;
            self.live = false;
            self.control = None;
            self.abort = None;
            self.event_request = None;
            self.obituary = Some(reason);
        }
    }

    /// The device no longer reaches memory: what it was given goes back.
    fn release(&mut self, proof: Quiesced) {
        if self.dma.release(&proof) {
            self.quiesced = Some(proof);
        }
    }

    /// Tells that it was given up, and completes what it will never answer once it reaches no memory.
    fn bury(&mut self, completions: &mut Vec<Completion>) {
        if let Some(reason) = self.obituary.take() {
            self.namespaces.clear();
            self.events.push_back(Event::Failed(reason));
        }
        if let Some(proof) = self.quiesced.take() {
            self.complete_all_as_gone(&proof, completions);
            self.quiesced = Some(proof);
        }
    }

    /// Whether `bury` has something to do.
    fn has_last_words(&self) -> bool {
        self.obituary.is_some() || (self.step == Step::Dead && self.quiesced.is_some() && self.slots.used() > 0)
    }

    /// Whether something is waited for.
    fn is_busy(&self) -> bool {
        self.has_last_words()
            || (self.step != Step::Dead && (self.step != Step::Idle || self.rescan || self.slots.used() > 0))
    }
}

impl<M: Mmio, D: DmaAllocator> Disk for Nvme<M, D> {
    fn name(&self) -> String {
        let (major, minor) = (self.version.major(), self.version.minor());
        format!("NVMe {major}.{minor}, {} {}", self.controller.model, self.controller.firmware)
    }

    fn units(&self) -> &[Unit] {
        self.namespaces.units()
    }

    fn submit(&mut self, command: &Command<'_>) -> Result<u32, Refusal> {
        self.take_command(command)
    }

    fn ring(&mut self) {
        if !self.halted {
            self.io.ring(&self.registers);
        }
    }

    fn poll(&mut self, now: Instant, completions: &mut Vec<Completion>) {
        self.now = now;
        if self.step != Step::Dead {
            self.collect(completions);
            self.collect_admin(completions);
            if now >= self.look_at {
                self.look_after(completions);
            }
            self.namespaces.see_off(&self.slots, &mut self.events);
        }
        self.bury(completions);
        if !self.halted {
            self.io.ring(&self.registers);
            self.admin.ring(&self.registers);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        if self.has_last_words() {
            return Some(self.now);
        }
        self.is_busy().then_some(self.look_at)
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn handle_interrupt(&mut self, _vector: usize) {
        if self.interrupts == Interrupts::Single && !self.halted {
            self.registers.write(reg::INTMS, u32::MAX);
            self.masked = true;
        }
    }

    fn enable_interrupts(&mut self) -> bool {
        if self.step == Step::Dead {
            return self.has_last_words();
        }
        if self.masked {
            self.registers.write(reg::INTMC, u32::MAX);
            self.masked = false;
        }
        self.answers_wait()
    }

    fn remove(&mut self, proof: Quiesced) {
        self.halted = true;
        self.release(proof);
        self.give_up(String::from("it was taken away"));
    }

    fn quiesce(&mut self) {
        if !self.halted {
            if let Some(proof) = self.shut_down() {
                self.release(proof);
            }
            self.halted = true;
        }
        self.give_up(String::from("it was stopped"));
    }
}

impl<M: Mmio, D: DmaAllocator> Drop for Nvme<M, D> {
    /// A running device would go on writing to memory that is no longer its own.
    fn drop(&mut self) {
        if !self.halted {
            self.quiesce();
        }
    }
}
