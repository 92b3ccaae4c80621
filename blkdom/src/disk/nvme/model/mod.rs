//! A model of an NVMe controller for tests, fuzzers and measurements: it does what the specification says, and worse where told to.
//! Host only.
//!
//! | file | holds |
//! |---|---|
//! | here | registers, doorbells, queues |
//! | `admin` | admin commands and events |
//! | `medium` | namespaces, I/O commands, their data |
//! | `hostile` | a device that does anything at all, for the fuzzer |
//!
//! It reads and writes memory through [`FakeXen`], which notes each access to what is not the driver's.

mod admin;
pub mod hostile;
mod medium;

pub use admin::answer_words;
pub use medium::Medium;

use super::command::{Answer, COMMAND_WORDS, Entry, Status};
use super::registers::{self as reg, Aqa, Cap, Cc, Csts};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use split_driver::fakes::{FakeDma, FakeXen};
use split_driver::memory::{DmaAllocator, Mmio, Reach};

/// The admin queues and one pair of I/O queues.
const QUEUES: usize = 2;

/// A submission queue, as the device knows it.
#[derive(Clone, Copy, Debug)]
struct Submission {
    address: u64,
    depth: u16,
    head: u16,
}

/// A completion queue, as the device knows it.
#[derive(Clone, Copy, Debug)]
struct Finished {
    address: u64,
    depth: u16,
    tail: u16,
    phase: bool,
    /// What the driver has taken.
    head: u16,
    vector: u16,
}

/// A command that the device has read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fetched {
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

/// The device. A clone is the same device: one for the driver, one for the test.
#[derive(Clone)]
pub struct Device(Rc<RefCell<State>>);

struct State {
    xen: FakeXen,
    dma: FakeDma,
    capabilities: Cap,
    version: u32,
    configuration: Cc,
    status: Csts,
    attributes: Aqa,
    admin_bases: [u32; 4],
    masked: bool,
    message_signalled: bool,
    submissions: [Option<Submission>; QUEUES],
    finished: [Option<Finished>; QUEUES],
    inbox: VecDeque<Fetched>,
    /// Commands that will not be answered, except that they are aborted.
    silent: Vec<Fetched>,
    /// Commands that were answered before they were read, by queue and identifier.
    forestalled: Vec<(u16, u16)>,
    media: BTreeMap<u32, Medium>,
    /// The smallest blocks that were ever told of a namespace.
    told_shifts: BTreeMap<u32, u8>,
    patches: Vec<(u8, usize, Vec<u8>)>,
    /// What registers read as, and how often still.
    overrides: BTreeMap<usize, (u32, u32)>,
    faults: Vec<Fault>,
    events: admin::Events,
    messages: Vec<u16>,
    misuse: Vec<&'static str>,
    executed: Vec<Entry>,
    accesses: Accesses,
    lazy: bool,
    gone: bool,
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
struct Fault {
    namespace: u32,
    block: u64,
    status: Status,
    times: u32,
}

impl Device {
    /// A device of 64-entry queues without namespaces.
    pub fn new(xen: &FakeXen) -> Self {
        let capabilities = Cap::new()
            .with_max_queue_entries(63)
            .with_contiguous_queues(true)
            .with_timeout(2)
            .with_nvm_commands(true)
            .with_largest_page(4);
        Self(Rc::new(RefCell::new(State {
            xen: xen.clone(),
            dma: xen.dma(),
            capabilities,
            version: 0x0001_0400,
            configuration: Cc::new(),
            status: Csts::new(),
            attributes: Aqa::new(),
            admin_bases: [0; 4],
            masked: false,
            message_signalled: true,
            submissions: [None; QUEUES],
            finished: [None; QUEUES],
            inbox: VecDeque::new(),
            silent: Vec::new(),
            forestalled: Vec::new(),
            media: BTreeMap::new(),
            told_shifts: BTreeMap::new(),
            patches: Vec::new(),
            overrides: BTreeMap::new(),
            faults: Vec::new(),
            events: admin::Events::default(),
            messages: Vec::new(),
            misuse: Vec::new(),
            executed: Vec::new(),
            accesses: Accesses::default(),
            lazy: false,
            gone: false,
            deaf: false,
            admin_deaf: false,
            unabortable: false,
            bad_starts: 0,
            slow_start: 0,
            starting: None,
            transfer_shift: 5,
        })))
    }

    /// The allocator of its memory.
    pub fn dma(&self) -> FakeDma {
        self.0.borrow().dma.clone()
    }

    /// Sets what CAP reads as.
    pub fn set_capabilities(&self, change: impl FnOnce(Cap) -> Cap) {
        let mut state = self.0.borrow_mut();
        state.capabilities = change(state.capabilities);
    }

    /// Sets what VS reads as.
    pub fn set_version(&self, version: u32) {
        self.0.borrow_mut().version = version;
    }

    /// MDTS: one command moves `4096 << shift` bytes; 0 is no limit.
    pub fn set_transfer_limit(&self, shift: u8) {
        self.0.borrow_mut().transfer_shift = shift;
    }

    /// A single message or a line, so that INTMS and INTMC count.
    pub fn use_single_interrupt(&self) {
        self.0.borrow_mut().message_signalled = false;
    }

    /// From now on commands are read, and carried out when told by [`Self::work`].
    pub fn be_lazy(&self, lazy: bool) {
        self.0.borrow_mut().lazy = lazy;
    }

    /// Carries out up to `count` commands, in order.
    pub fn work(&self, count: usize) {
        for _ in 0..count {
            if !self.work_at(0) {
                return;
            }
        }
    }

    /// Carries out the command at a place among those read. False where there is none.
    pub fn work_at(&self, place: usize) -> bool {
        let mut state = self.0.borrow_mut();
        match state.inbox.remove(place) {
            Some(fetched) => {
                state.execute(&fetched);
                true
            }
            None => false,
        }
    }

    /// Commands read and not carried out.
    pub fn waiting(&self) -> usize {
        self.0.borrow().inbox.len()
    }

    /// Pulls it out: all registers read as ones, writes are lost, nothing is done.
    pub fn pull_out(&self) {
        let mut state = self.0.borrow_mut();
        state.gone = true;
        state.forget();
    }

    /// From now on I/O commands are read and never answered, or no longer so. Those that were not stay so.
    pub fn be_deaf(&self, deaf: bool) {
        self.0.borrow_mut().deaf = deaf;
    }

    /// From now on admin commands are read and never answered, or no longer so.
    pub fn ignore_admin(&self, ignore: bool) {
        self.0.borrow_mut().admin_deaf = ignore;
    }

    /// From now on nothing can be aborted.
    pub fn be_unabortable(&self) {
        self.0.borrow_mut().unabortable = true;
    }

    /// Sets CSTS.CFS and does nothing more until it is reset.
    pub fn fail_fatally(&self) {
        let mut state = self.0.borrow_mut();
        state.status.set_fatal(true);
        state.inbox.clear();
        state.silent.clear();
    }

    /// The next starts do not come to an end.
    pub fn fail_starts(&self, count: u32) {
        self.0.borrow_mut().bad_starts = count;
    }

    /// The controller becomes ready at the `reads`th read of CSTS after each start.
    pub fn start_slowly(&self, reads: u32) {
        self.0.borrow_mut().slow_start = reads;
    }

    /// The next `times` commands upon a block fail.
    pub fn fail(&self, namespace: u32, block: u64, status: Status, times: u32) {
        self.0.borrow_mut().faults.push(Fault { namespace, block, status, times });
    }

    /// No command is to fail any more.
    pub fn forgive(&self) {
        self.0.borrow_mut().faults.clear();
    }

    /// What a register reads as the next `times`, whatever it is.
    pub fn set_register(&self, offset: usize, value: u32, times: u32) {
        self.0.borrow_mut().overrides.insert(offset, (value, times));
    }

    /// Writes an answer as if the device had one. The command that it names, where there is one, is taken for answered.
    pub fn forge(&self, queue: u16, words: [u32; 4]) {
        let mut state = self.0.borrow_mut();
        state.drop_command(queue, Answer::parse(words).id);
        state.write_answer(queue, words);
    }

    /// Writes anything to any place of a completion queue, without regard to phases.
    pub fn scribble(&self, queue: u16, place: u16, words: [u32; 4]) {
        let mut state = self.0.borrow_mut();
        state.drop_command(queue, Answer::parse(words).id);
        if let Some(Some(finished)) = state.finished.get(usize::from(queue)).copied() {
            state.write_words(finished.address + u64::from(place % finished.depth) * 16, words);
        }
    }

    /// The identifier of a command that was read and not answered.
    pub fn unanswered(&self, place: usize) -> Option<(u16, u16)> {
        let state = self.0.borrow();
        state.inbox.iter().chain(&state.silent).nth(place).map(|fetched| (fetched.queue, fetched.id()))
    }

    /// Vectors whose messages were sent since this was asked last.
    pub fn messages(&self) -> Vec<u16> {
        core::mem::take(&mut self.0.borrow_mut().messages)
    }

    /// What the driver did against the specification.
    pub fn misuse(&self) -> Vec<&'static str> {
        self.0.borrow().misuse.clone()
    }

    /// I/O commands carried out since this was asked last.
    pub fn executed(&self) -> Vec<Entry> {
        core::mem::take(&mut self.0.borrow_mut().executed)
    }

    /// What the driver did since this was asked last.
    pub fn accesses(&self) -> Accesses {
        core::mem::take(&mut self.0.borrow_mut().accesses)
    }

    /// CC, as the driver wrote it.
    pub fn configuration(&self) -> Cc {
        self.0.borrow().configuration
    }

    /// Whether the I/O queues are there.
    pub fn has_io_queues(&self) -> bool {
        self.0.borrow().submissions[1].is_some()
    }
}

impl State {
    fn complain(&mut self, what: &'static str) {
        self.misuse.push(what);
    }

    /// Forgets queues and commands, as a reset does.
    fn forget(&mut self) {
        self.submissions = [None; QUEUES];
        self.finished = [None; QUEUES];
        self.inbox.clear();
        self.silent.clear();
        self.forestalled.clear();
        self.events = admin::Events::default();
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
            self.complain("disabled before it was ready");
        } else if !now.enable() && before.enable() {
            self.forget();
            self.status = Csts::new();
        } else if now.enable() && now.shutdown() != 0 && before.shutdown() == 0 {
            if self.submissions[1].is_some() {
                self.complain("a shutdown with I/O queues");
            }
            for medium in self.media.values_mut() {
                medium.flush();
            }
            self.status.set_shutdown(2);
        }
    }

    fn start(&mut self, configuration: Cc) {
        if configuration.submission_entry() != 6 || configuration.completion_entry() != 4 || configuration.page() != 0 {
            self.complain("entries or pages of another size");
        }
        if let Some(left) = self.bad_starts.checked_sub(1) {
            self.bad_starts = left;
            return;
        }
        let [sq_low, sq_high, cq_low, cq_high] = self.admin_bases.map(u64::from);
        let (submission, finished) = (sq_high << 32 | sq_low, cq_high << 32 | cq_low);
        if !(submission | finished).is_multiple_of(4096) {
            self.complain("admin queues off a page's start");
        }
        let depth = self.attributes.submission() + 1;
        self.submissions[0] = Some(Submission { address: submission, depth, head: 0 });
        let depth = self.attributes.completion() + 1;
        self.finished[0] = Some(Finished { address: finished, depth, tail: 0, phase: true, head: 0, vector: 0 });
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

    fn tail_written(&mut self, queue: usize, tail: u32) {
        let Some(Some(submission)) = self.submissions.get_mut(queue) else {
            return self.complain("a doorbell of no submission queue");
        };
        if tail >= u32::from(submission.depth) {
            return self.complain("a tail beyond the queue");
        }
        let mut queue_now = *submission;
        while u32::from(queue_now.head) != tail {
            let mut bytes = [0; COMMAND_WORDS * 4];
            self.xen.device_read(queue_now.address + u64::from(queue_now.head) * 64, &mut bytes);
            let mut entry = [0; COMMAND_WORDS];
            for (word, bytes) in entry.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *word = u32::from_le_bytes(*bytes);
            }
            queue_now.head = (queue_now.head + 1) % queue_now.depth;
            let fetched = Fetched { queue: queue as u16, entry };
            match self.forestalled.iter().position(|known| *known == (fetched.queue, fetched.id())) {
                Some(place) => drop(self.forestalled.swap_remove(place)),
                None => self.inbox.push_back(fetched),
            }
        }
        if let Some(Some(submission)) = self.submissions.get_mut(queue) {
            submission.head = queue_now.head;
        }
        while !self.lazy
            && let Some(fetched) = self.inbox.pop_front()
        {
            self.execute(&fetched);
        }
    }

    fn head_written(&mut self, queue: usize, head: u32) {
        match self.finished.get_mut(queue) {
            Some(Some(finished)) if head < u32::from(finished.depth) => finished.head = head as u16,
            _ => self.complain("a head beyond the queue"),
        }
    }

    fn execute(&mut self, fetched: &Fetched) {
        if self.status.fatal() || !self.status.ready() {
            return;
        }
        if fetched.queue == 0 {
            if self.admin_deaf { self.silent.push(*fetched) } else { self.admin(fetched) }
        } else if self.deaf {
            self.silent.push(*fetched);
        } else {
            self.executed.push(fetched.entry);
            let status = self.io(&fetched.entry);
            self.answer(fetched, status, 0);
        }
    }

    /// Answers a command.
    fn answer(&mut self, fetched: &Fetched, status: Status, result: u32) {
        let head = self.submissions.get(usize::from(fetched.queue)).copied().flatten().map_or(0, |queue| queue.head);
        let status = u32::from(u16::from(status.with_phase(false)));
        let words =
            [result, 0, u32::from(fetched.queue) << 16 | u32::from(head), status << 16 | u32::from(fetched.id())];
        self.write_answer(fetched.queue, words);
    }

    fn write_answer(&mut self, queue: u16, [result, reserved, head, status]: [u32; 4]) {
        let Some(Some(finished)) = self.finished.get_mut(usize::from(queue)) else {
            return;
        };
        let at = finished.address + u64::from(finished.tail) * 16;
        let status = status & !(1 << 16) | u32::from(finished.phase) << 16;
        finished.tail = (finished.tail + 1) % finished.depth;
        if finished.tail == 0 {
            finished.phase = !finished.phase;
        }
        let (full, vector) = (finished.tail == finished.head, finished.vector);
        self.write_words(at, [result, reserved, head, status]);
        if full {
            self.complain("the completion queue overflows");
        }
        if self.message_signalled || !self.masked {
            self.messages.push(vector);
        }
    }

    fn write_words(&self, address: u64, words: [u32; 4]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.xen.device_write(address, &bytes);
    }

    /// A command is taken for answered.
    fn drop_command(&mut self, queue: u16, id: u16) {
        let before = self.inbox.len() + self.silent.len();
        self.inbox.retain(|fetched| fetched.queue != queue || fetched.id() != id);
        self.silent.retain(|fetched| fetched.queue != queue || fetched.id() != id);
        if self.inbox.len() + self.silent.len() == before {
            self.forestalled.push((queue, id));
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

    fn mask(&mut self, masked: bool) {
        if self.message_signalled {
            self.complain("INTMS or INTMC with MSI-X");
        }
        self.masked = masked;
        let waiting = self.finished.iter().flatten().any(|finished| finished.head != finished.tail);
        if !masked && waiting {
            self.messages.push(0);
        }
    }
}

impl Mmio for Device {
    fn reach(&self) -> Reach {
        self.dma().reach().clone()
    }

    fn len(&self) -> usize {
        0x4000
    }

    fn read32(&self, offset: usize) -> u32 {
        let mut state = self.0.borrow_mut();
        state.accesses.reads += 1;
        if state.gone {
            return u32::MAX;
        }
        if offset == reg::CSTS.offset() {
            state.go_on_starting();
        }
        match state.overrides.get_mut(&offset) {
            Some((value, times)) if *times > 0 => {
                *times -= 1;
                *value
            }
            _ => state.register(offset),
        }
    }

    fn write32(&self, offset: usize, value: u32) {
        let mut state = self.0.borrow_mut();
        if state.gone {
            return;
        }
        let stride = 4 << state.capabilities.doorbell_stride();
        match offset {
            _ if offset == reg::INTMS.offset() => state.mask(true),
            _ if offset == reg::INTMC.offset() => state.mask(false),
            _ if offset == reg::CC.offset() => state.configure(value),
            _ if offset == reg::AQA.offset() => state.attributes = Aqa::from(value),
            0x28..0x38 => {
                if let Some(slot) = state.admin_bases.get_mut((offset - 0x28) / 4) {
                    *slot = value;
                }
            }
            reg::DOORBELLS.. => {
                let (queue, completion) =
                    ((offset - reg::DOORBELLS) / stride / 2, (offset - reg::DOORBELLS) / stride % 2);
                if !(offset - reg::DOORBELLS).is_multiple_of(stride) || queue >= QUEUES {
                    return state.complain("a doorbell that is none");
                }
                if completion == 1 {
                    state.accesses.heads[queue] += 1;
                    state.head_written(queue, value);
                } else {
                    state.accesses.tails[queue] += 1;
                    state.tail_written(queue, value);
                }
            }
            _ => state.complain("a write to a register that cannot be written"),
        }
    }
}
