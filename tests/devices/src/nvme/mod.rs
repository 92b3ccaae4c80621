//! An NVMe controller, as NVM Express 1.0 to 1.4 has it, with one pair of I/O queues: for tests, fuzzers and measurements. Host.
//!
//! | file | holds |
//! |---|---|
//! | here | registers, doorbells |
//! | `queues` | commands in, answers out, interrupts |
//! | `admin` | admin commands and events |
//! | `io` | namespaces, I/O commands, their data |
//! | `orders` | what tests tell it |
//!
//! It does what the specification says, and worse where told to. Registers and commands are laid out as in
//! [`blkdom::disk::nvme`], whose tests hold them against Linux's and QEMU's headers.

mod admin;
mod io;
mod orders;
mod queues;

use std::collections::{BTreeMap, VecDeque};

use blkdom::disk::nvme::command::{Entry, Status};
use blkdom::disk::nvme::registers::{self as reg, Aqa, Cap, Cc, Csts};

use crate::bus::{Faults, Interrupt, Misuse, Model, Transfer};
use crate::pci::{Bars, ConfigurationSpace, Identity, Request, class};
use crate::registers::register_at;
use crate::work::{Next, Work, Worker};
pub use admin::answer_words;
pub use io::Namespace;
use queues::{Completion, Posted, Submission};

/// Bytes of registers, doorbells among them.
pub const SPACE: usize = 0x4000;
/// The admin queues and one pair of I/O queues.
const QUEUES: usize = 2;

/// Its identity on the bus: that of QEMU's.
pub const IDENTITY: Identity = Identity {
    vendor: 0x1B36,
    device: 0x0010,
    subsystem: [0x1AF4, 0x1100],
    revision: 2,
    bars: Bars::Wide,
    registers: SPACE as u64,
    vectors: 2,
    link: (1, 1),
};

/// A command that the device has read.
#[derive(Clone, Copy, Debug)]
struct Fetched {
    queue: u16,
    entry: Entry,
}

impl Fetched {
    const fn id(&self) -> u16 {
        (self.entry[0] >> 16) as u16
    }
}

/// How often the driver did what costs time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accesses {
    /// Reads of any register.
    pub reads: usize,
    /// Writes of a submission queue's doorbell, admin and I/O.
    pub tails: [usize; QUEUES],
    /// Writes of a completion queue's doorbell, admin and I/O.
    pub heads: [usize; QUEUES],
}

/// The device.
pub struct Nvme {
    space: ConfigurationSpace,
    capabilities: Cap,
    version: u32,
    configuration: Cc,
    status: Csts,
    attributes: Aqa,
    admin_bases: [u32; 4],
    masked: bool,
    submissions: [Option<Submission>; QUEUES],
    completions: [Option<Completion>; QUEUES],
    inbox: VecDeque<Fetched>,
    /// Commands that a test has carried out, in its order.
    chosen: VecDeque<Fetched>,
    posted: VecDeque<Posted>,
    work: Work<Self>,
    /// Commands that will not be answered, except that they are aborted.
    silent: Vec<Fetched>,
    /// Commands that were answered before they were read, by queue and identifier.
    forestalled: Vec<(u16, u16)>,
    namespaces: BTreeMap<u32, Namespace>,
    /// The smallest blocks that were ever told of a namespace.
    told_shifts: BTreeMap<u32, u8>,
    patches: Vec<(u8, usize, Vec<u8>)>,
    /// What registers read as, and how often still.
    overrides: BTreeMap<usize, (u32, u32)>,
    errors: Vec<Error>,
    events: admin::Events,
    messages: VecDeque<Interrupt>,
    /// The INTx line, as it was told last.
    line: bool,
    faults: Faults,
    misuse: Misuse,
    executed: Vec<Entry>,
    accesses: Accesses,
    lazy: bool,
    deaf: bool,
    admin_deaf: bool,
    unabortable: bool,
    /// Starts that will not come to an end.
    bad_starts: u32,
    /// Reads of CSTS that a start takes; those that are left of one.
    slow_start: u32,
    starting: Option<u32>,
    transfer_shift: u8,
}

/// An error that a command will meet.
#[derive(Clone, Copy, Debug)]
struct Error {
    namespace: u32,
    block: u64,
    status: Status,
    times: u32,
}

impl Default for Nvme {
    fn default() -> Self {
        Self::new()
    }
}

impl Nvme {
    /// A device of 64-entry queues without namespaces.
    pub fn new() -> Self {
        let capabilities = Cap::new()
            .with_max_queue_entries(63)
            .with_contiguous_queues(true)
            .with_timeout(2)
            .with_nvm_commands(true)
            .with_largest_page(4);
        Self {
            space: ConfigurationSpace::of_class(IDENTITY, class::NVME),
            capabilities,
            version: 0x0001_0400,
            configuration: Cc::new(),
            status: Csts::new(),
            attributes: Aqa::new(),
            admin_bases: [0; 4],
            masked: false,
            submissions: [None; QUEUES],
            completions: [None; QUEUES],
            inbox: VecDeque::new(),
            chosen: VecDeque::new(),
            posted: VecDeque::new(),
            work: Work::Idle,
            silent: Vec::new(),
            forestalled: Vec::new(),
            namespaces: BTreeMap::new(),
            told_shifts: BTreeMap::new(),
            patches: Vec::new(),
            overrides: BTreeMap::new(),
            errors: Vec::new(),
            events: admin::Events::default(),
            messages: VecDeque::new(),
            line: false,
            faults: Faults::default(),
            misuse: Misuse::default(),
            executed: Vec::new(),
            accesses: Accesses::default(),
            lazy: false,
            deaf: false,
            admin_deaf: false,
            unabortable: false,
            bad_starts: 0,
            slow_start: 0,
            starting: None,
            transfer_shift: 5,
        }
    }

    /// Forgets queues and commands, as a reset does.
    fn forget(&mut self) {
        self.submissions = [None; QUEUES];
        self.completions = [None; QUEUES];
        self.inbox.clear();
        self.chosen.clear();
        self.posted.clear();
        self.forget_work();
        self.silent.clear();
        self.forestalled.clear();
        self.events = admin::Events::default();
        self.set_line();
    }

    fn configure(&mut self, value: u32) {
        let (before, now) = (self.configuration, Cc::from(value));
        self.configuration = now;
        if now.enable() && !before.enable() {
            match self.slow_start {
                0 => self.start(now),
                reads => self.starting = Some(reads),
            }
        } else if self.starting.is_some() && !now.enable() {
            self.misuse.note("disabled before it was ready");
        } else if !now.enable() && before.enable() {
            if !self.faults.reset_stuck {
                self.forget();
                self.status = Csts::new();
            }
        } else if now.enable() && now.shutdown() != 0 && before.shutdown() == 0 {
            if self.submissions[1].is_some() {
                self.misuse.note("a shutdown with I/O queues");
            }
            self.namespaces.values_mut().for_each(Namespace::flush);
            self.status.set_shutdown(2);
        }
    }

    fn start(&mut self, configuration: Cc) {
        if configuration.submission_entry() != 6 || configuration.completion_entry() != 4 || configuration.page() != 0 {
            self.misuse.note("entries or pages of another size");
        }
        if let Some(left) = self.bad_starts.checked_sub(1) {
            self.bad_starts = left;
            return;
        }
        let [sq_low, sq_high, cq_low, cq_high] = self.admin_bases.map(u64::from);
        let (submission, completion) = (sq_high << 32 | sq_low, cq_high << 32 | cq_low);
        if !(submission | completion).is_multiple_of(4096) {
            self.misuse.note("admin queues off a page's start");
        }
        self.submissions[0] = Some(Submission::new(submission, self.attributes.submission() + 1));
        self.completions[0] = Some(Completion::new(completion, self.attributes.completion() + 1, 0));
        self.status.set_ready(true);
    }

    /// CSTS is read.
    fn go_on_starting(&mut self) {
        self.starting = self.starting.map(|reads| reads.saturating_sub(1));
        if self.starting == Some(0) {
            self.starting = None;
            self.start(self.configuration);
        }
    }

    fn register(&self, offset: usize) -> u32 {
        let capabilities = u64::from(self.capabilities);
        match offset {
            0x00 => capabilities as u32,
            0x04 => (capabilities >> 32) as u32,
            0x08 => self.version,
            0x14 => self.configuration.into(),
            0x1C => self.status.into(),
            0x24 => self.attributes.into(),
            _ => 0,
        }
    }

    fn read_register(&mut self, offset: usize) -> u32 {
        self.accesses.reads += 1;
        if offset == reg::CSTS.offset() {
            self.go_on_starting();
        }
        match self.overrides.get_mut(&offset) {
            Some((value, times)) if *times > 0 => {
                *times -= 1;
                *value
            }
            _ => self.register(offset),
        }
    }

    fn write_register(&mut self, offset: usize, value: u32) {
        match offset {
            _ if offset == reg::INTMS.offset() => self.mask(true),
            _ if offset == reg::INTMC.offset() => self.mask(false),
            _ if offset == reg::CC.offset() => self.configure(value),
            _ if offset == reg::AQA.offset() => self.attributes = Aqa::from(value),
            0x28..0x38 => {
                if let Some(slot) = self.admin_bases.get_mut((offset - 0x28) / 4) {
                    *slot = value;
                }
            }
            reg::DOORBELLS.. => self.ring(offset - reg::DOORBELLS, value),
            _ => self.misuse.note("a write to a register that cannot be written"),
        }
    }

    fn ring(&mut self, offset: usize, value: u32) {
        let stride = 4usize << self.capabilities.doorbell_stride();
        let (queue, completion) = (offset / stride / 2, offset / stride % 2 == 1);
        let counted = if completion { &mut self.accesses.heads } else { &mut self.accesses.tails };
        match counted.get_mut(queue).filter(|_| offset.is_multiple_of(stride)) {
            Some(count) => *count += 1,
            None => return self.misuse.note("a doorbell that is none"),
        }
        if completion { self.head_written(queue, value) } else { self.tail_written(queue, value) }
    }
}

impl Worker for Nvme {
    fn work(&mut self) -> &mut Work<Self> {
        &mut self.work
    }

    fn begin(&mut self) -> Option<Next<Self>> {
        if let Some(posted) = self.posted.pop_front() {
            return Some(Self::deliver(posted));
        }
        if let Some(fetch) = self.fetch() {
            return Some(fetch);
        }
        let next = self.chosen.pop_front();
        let fetched = if self.lazy { next } else { next.or_else(|| self.inbox.pop_front()) };
        fetched.map(|fetched| self.execute(fetched))
    }
}

impl Model for Nvme {
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
        self.set_line();
    }

    fn read(&mut self, bar: usize, offset: u64, data: &mut [u8]) {
        data.fill(if self.faults.pulled_out { 0xFF } else { 0 });
        if bar != 0 {
            return;
        }
        let Some(start) = register_at(offset, data.len()) else {
            return self.misuse.note(format!("{} bytes read at register {offset:#x}", data.len()));
        };
        if self.faults.pulled_out {
            self.accesses.reads += 1;
            return;
        }
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
        self.space.reset();
        self.forget();
        self.configuration = Cc::new();
        self.status = Csts::new();
        self.attributes = Aqa::new();
        self.admin_bases = [0; 4];
        self.masked = false;
        self.starting = None;
    }

    fn poll_dma(&mut self) -> Vec<Transfer> {
        if self.faults.pulled_out || !self.space.masters_bus() { Vec::new() } else { self.next_batch() }
    }

    fn handle_dma(&mut self, batch: Vec<Transfer>) {
        if batch.iter().any(|transfer| !transfer.done) {
            self.misuse.note("memory that cannot be reached");
        }
        self.finish_batch(batch);
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
        self.set_register(offset, value, u32::MAX);
    }
}
