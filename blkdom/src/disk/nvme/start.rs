//! From whatever state the controller was left in to one that takes commands, and on through its changes: one register wait or one
//! admin command at a time. Pure. Floor 3.
//!
//! New -> Disabling -> Enabling -> Controller -> Limits -> QueueCount -> Events -> CompletionQueue -> SubmissionQueue -> List ->
//! Namespace -> Descriptors (each) -> Idle; from Idle to List again when namespaces change, to Log and back when an event comes; from anywhere to
//! Disabling when the controller fails, and to Dead when that is of no use (NVM Express Base 2.0: 3.5.1, 3.6.1).

use super::command::{self, Answer, Entry, Status, cns, feature};
use super::identify::{self, Controller, Limits};
use super::registers::{self as reg, Aqa, Cc, Csts};
use super::{ADMIN_DEPTH, IO_QUEUE, Interrupts, Nvme};
use crate::disk::{Completion, Event};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};
use core::time::Duration;
use split_driver::memory::{DmaAllocator, DmaMemory, Mmio, Quiesced, SharedMemory};
use split_driver::time::Instant;

/// How long an admin command may take.
const ADMIN_PATIENCE: Duration = Duration::from_secs(30);
/// How often a register that is waited for is read.
const REGISTER_PAUSE: Duration = Duration::from_millis(1);
/// How often is looked at what takes its time: a message that was lost costs no more than that.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Of [`Options::stop_reads`](super::Options::stop_reads), the part that deleting a queue may take.
const DELETE_SHARE: u32 = 20;
/// CC.SHN: normal shutdown (2.0: 3.1.3.5); CSTS.SHST: complete (2.0: 3.1.3.6).
const SHUTDOWN_NORMAL: u8 = 1;
const SHUTDOWN_COMPLETE: u8 = 2;

/// What the driver is about beside I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing was done yet.
    New,
    /// Waits for CSTS.RDY to become 0.
    Disabling,
    /// Waits for CSTS.RDY to become 1.
    Enabling,
    /// Identify controller.
    Controller,
    /// Identify the controller's limits.
    Limits,
    /// Set Features, number of queues.
    QueueCount,
    /// Set Features, asynchronous events.
    Events,
    /// Create I/O Completion Queue.
    CompletionQueue,
    /// Create I/O Submission Queue.
    SubmissionQueue,
    /// Identify the list of active namespaces.
    List,
    /// Identify the namespace of this place in the list.
    Namespace(usize),
    /// Identify the descriptors of the namespace of this place.
    Descriptors(usize),
    /// Read the log page that an event named.
    Log(u8),
    /// Nothing.
    Idle,
    /// The controller was given up.
    Dead,
}

/// The admin command of the step, or the register wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct Control {
    /// The identifier of the command; `None` for a register.
    id: Option<u16>,
    pub(super) deadline: Instant,
}

impl<M: Mmio, D: DmaAllocator> Nvme<M, D> {
    /// Begins at the beginning.
    pub(super) fn disable(&mut self) {
        self.live = false;
        self.control = None;
        self.abort = None;
        self.event_request = None;
        let configuration: Cc = self.registers.read(reg::CC);
        if self.interrupts == Interrupts::Single {
            self.registers.write(reg::INTMS, u32::MAX);
            self.masked = true;
        }
        // Also where it is disabled already: some look at nothing else.
        self.registers.write(reg::CC, configuration.with_enable(false).with_shutdown(0));
        self.await_register(Step::Disabling);
    }

    fn await_register(&mut self, step: Step) {
        self.step = step;
        self.control = Some(Control { id: None, deadline: self.now + self.ready_timeout });
        self.look_at = self.now + REGISTER_PAUSE;
    }

    /// Leaves a controller that was disabled alone for some time.
    pub(super) fn rest(&mut self, time: Duration) {
        self.look_at = self.look_at + time;
        if let Some(control) = &mut self.control {
            control.deadline = control.deadline + time;
        }
    }

    /// Gives it empty admin queues and enables it (2.0: 3.5.1).
    fn enable(&mut self) {
        self.admin.reset();
        self.io.reset();
        let last = ADMIN_DEPTH - 1;
        self.registers.write(reg::AQA, Aqa::new().with_submission(last).with_completion(last));
        self.registers.write_base(reg::ASQ, self.admin.submission_address());
        self.registers.write_base(reg::ACQ, self.admin.completion_address());
        // 64 bytes of command, 16 of answer; pages of 4 KiB, the NVM command set, round robin: 0.
        let configuration = Cc::new().with_submission_entry(6).with_completion_entry(4);
        fence(Ordering::Release);
        self.registers.write(reg::CC, configuration);
        self.registers.write(reg::CC, configuration.with_enable(true));
        self.starting = true;
        self.await_register(Step::Enabling);
    }

    /// Looks at what takes its time. Called once a [`LOOK_PAUSE`] or, while a register is waited for, once a [`REGISTER_PAUSE`].
    pub(super) fn look_after(&mut self, completions: &mut Vec<Completion>) {
        match self.step {
            Step::New => return self.disable(),
            Step::Dead => return,
            _ => {}
        }
        let status: Csts = self.registers.read(reg::CSTS);
        if status.absent() {
            // Lost where there is none; one that only says so must not go on.
            self.registers.write(reg::CC, Cc::new());
            self.halted = true;
            return self.give_up(String::from("its registers are gone"));
        }
        self.starting &= !status.ready();
        let late = self.control.is_some_and(|control| self.now >= control.deadline);
        match self.step {
            Step::Disabling if !status.ready() => self.enable(),
            Step::Enabling if status.fatal() => self.recover("it reports a fatal error as it starts".into()),
            Step::Enabling if status.ready() => self.begin(Step::Controller, completions),
            Step::Disabling | Step::Enabling => {
                self.look_at = self.now + REGISTER_PAUSE;
                if late {
                    let to = if self.step == Step::Disabling { "stop" } else { "start" };
                    self.recover(format!("it did not {to} in time"));
                }
            }
            _ => {
                self.look_at = self.now + LOOK_PAUSE;
                if status.fatal() || !status.ready() {
                    self.recover(format!("its status is {:#x}", u32::from(status)));
                } else if late {
                    self.recover(format!("it did not answer an admin command ({:?})", self.step));
                } else {
                    self.look_after_commands(completions);
                }
            }
        }
    }

    /// Writes an admin command; gives its identifier.
    pub(super) fn send_admin(&mut self, mut entry: Entry) -> u16 {
        self.sequence = (self.sequence + 1) % 0x7FFF;
        if let Some(word) = entry.first_mut() {
            *word |= u32::from(self.sequence) << 16;
        }
        self.admin.push(&entry);
        self.sequence
    }

    /// Enters a step, with its admin command if it has one.
    fn begin(&mut self, step: Step, completions: &mut Vec<Completion>) {
        let page = self.page.device_address(0);
        let entry = match step {
            Step::Controller => command::identify(cns::CONTROLLER, 0, page),
            Step::Limits => command::identify(cns::COMMAND_SET_CONTROLLER, 0, page),
            // One of each, counted from 0.
            Step::QueueCount => command::set_feature(feature::QUEUES, 0),
            Step::Events => command::set_feature(feature::ASYNC_EVENTS, command::NAMESPACE_NOTICES),
            Step::CompletionQueue => {
                let vector = u16::from(matches!(self.interrupts, Interrupts::MsiX(2..)));
                command::create_completion_queue(IO_QUEUE, self.io.depth(), vector, self.io.completion_address())
            }
            Step::SubmissionQueue => {
                command::create_submission_queue(IO_QUEUE, self.io.depth(), self.io.submission_address())
            }
            Step::List => {
                self.rescan = false;
                command::identify(cns::ACTIVE_NAMESPACES, 0, page)
            }
            Step::Namespace(place) => match self.namespaces.listed(place) {
                Some(namespace) => command::identify(cns::NAMESPACE, namespace, page),
                None => return self.finish_scan(completions),
            },
            Step::Descriptors(place) => {
                command::identify(cns::NAMESPACE_DESCRIPTORS, self.namespaces.listed(place).unwrap_or(0), page)
            }
            Step::Log(log) => command::log_page(log, identify::log_bytes(log), page),
            Step::New | Step::Disabling | Step::Enabling | Step::Idle | Step::Dead => {
                self.step = step;
                self.control = None;
                return;
            }
        };
        for word in self.page.words() {
            word.store(0, Ordering::Relaxed);
        }
        let id = Some(self.send_admin(entry));
        self.step = step;
        self.control = Some(Control { id, deadline: self.now + ADMIN_PATIENCE });
        self.look_at = self.look_at.min(self.now + LOOK_PAUSE);
    }

    /// What an admin command put into the page, copied once.
    fn page_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; identify::IDENTIFY_BYTES];
        for (place, word) in bytes.chunks_exact_mut(4).zip(self.page.look(0..identify::IDENTIFY_BYTES / 4)) {
            place.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        bytes
    }

    /// Takes the answers of admin commands.
    pub(super) fn collect_admin(&mut self, completions: &mut Vec<Completion>) {
        if matches!(self.step, Step::New | Step::Disabling | Step::Enabling) {
            return;
        }
        for _ in 0..self.admin.depth() {
            let Some(answer) = self.admin.pop() else {
                break;
            };
            let checked = answer.queue == 0 && answer.head < self.admin.depth();
            let abort = self.abort.is_some_and(|abort| abort.is_awaiting(answer.id));
            if checked && self.control.is_some_and(|control| control.id == Some(answer.id)) {
                self.control = None;
                self.step_done(&answer, completions);
            } else if checked && self.event_request == Some(answer.id) {
                self.event_request = None;
                self.handle_event(&answer);
            } else if checked && abort {
                self.abort_answered();
            } else {
                self.count_nonsense(&answer);
            }
            if matches!(self.step, Step::Dead | Step::Disabling) {
                return;
            }
        }
        self.admin.acknowledge(&self.registers);
        if self.step == Step::Idle
            && let Some(next) = self.next_errand()
        {
            self.begin(next, completions);
        }
    }

    /// What there is to do when nothing is: an event to look into, namespaces to look at.
    fn next_errand(&mut self) -> Option<Step> {
        match self.namespaces.pending_log.take() {
            Some(log) => Some(Step::Log(log)),
            None => self.rescan.then_some(Step::List),
        }
    }

    /// The step's command was answered.
    fn step_done(&mut self, answer: &Answer, completions: &mut Vec<Completion>) {
        let failed = (answer.status.value() != 0).then(|| answer.status.value());
        let next = match (self.step, failed) {
            (Step::Controller, None) => {
                self.controller = Controller::parse(&self.page_bytes());
                self.limits = Limits::none(self.controller.transfer_bytes);
                // 2 is a discovery controller, 3 an administrative one.
                if self.controller.kind > 1 {
                    return self.give_up(format!("it is a controller without I/O, of type {}", self.controller.kind));
                }
                // QEMU has the structure of 2.0, and says 1.4.
                if self.version.at_least(1, 4) { Step::Limits } else { Step::QueueCount }
            }
            (Step::Limits, failed) => {
                if failed.is_none() {
                    self.limits = Limits::parse(&self.page_bytes(), self.controller.transfer_bytes);
                }
                Step::QueueCount
            }
            // A controller that refuses this has one queue all the same, or refuses the next.
            (Step::QueueCount, _) if self.controller.notices => Step::Events,
            (Step::QueueCount, _) => Step::CompletionQueue,
            (Step::Events, failed) => {
                if failed.is_none() {
                    self.request_event();
                }
                Step::CompletionQueue
            }
            (Step::CompletionQueue, None) => Step::SubmissionQueue,
            (Step::SubmissionQueue, None) => Step::List,
            (Step::List, failed) => {
                let bytes = if failed.is_none() { self.page_bytes() } else { Vec::new() };
                self.namespaces.begin_scan(failed.is_none().then_some(&bytes), self.controller.namespaces);
                Step::Namespace(0)
            }
            (Step::Namespace(place), failed) => {
                let bytes = if failed.is_none() { self.page_bytes() } else { Vec::new() };
                self.namespaces.found(place, failed.map_or(Ok(&bytes), Err), &self.controller);
                // Mandatory from 1.3 on.
                let asks = self.version.at_least(1, 3) && self.namespaces.is_usable(place);
                if asks { Step::Descriptors(place) } else { Step::Namespace(place + 1) }
            }
            (Step::Descriptors(place), failed) => {
                let bytes = if failed.is_none() { self.page_bytes() } else { Vec::new() };
                self.namespaces.described(place, failed.map_or(Ok(&bytes), Err));
                Step::Namespace(place + 1)
            }
            (Step::Log(log), _) => {
                log::debug!("nvme: log page {log:#x} read, status {:#x}", answer.status.value());
                self.request_event();
                Step::Idle
            }
            (step, failed) => return self.recover(format!("{step:?} was refused: {:#x}", failed.unwrap_or(0))),
        };
        self.begin(next, completions);
    }

    /// All namespaces were looked at.
    fn finish_scan(&mut self, completions: &mut Vec<Completion>) {
        self.step = Step::Idle;
        self.control = None;
        let tell = self.told;
        self.namespaces.finish_scan(&self.controller, tell, &mut self.events);
        self.told = true;
        if !self.live {
            self.live = true;
            self.failures = 0;
            self.events.push_back(Event::Ready);
            self.resume(completions);
        }
    }

    fn request_event(&mut self) {
        let id = self.send_admin(command::plain(command::admin::ASYNC_EVENT_REQUEST, 0, [0, 0]));
        self.event_request = Some(id);
    }

    /// An asynchronous event (2.0: 5.2.1): bits 2:0 its type, 15:8 what it says, 23:16 the log page that tells more.
    fn handle_event(&mut self, answer: &Answer) {
        if answer.status.value() != 0 {
            log::warn!("nvme: it sends no events: status {:#x}", answer.status.value());
            return;
        }
        let [kind, information, log, _] = answer.result.to_le_bytes();
        if (kind & 0b111, information) == (2, 0) {
            self.rescan = true;
        } else {
            log::warn!("nvme: event of type {}, {information:#x}; log page {log:#x}", kind & 0b111);
        }
        self.namespaces.pending_log = Some(log);
    }

    /// Whether answers are there.
    pub(super) fn answers_wait(&self) -> bool {
        match self.step {
            Step::New | Step::Disabling | Step::Enabling | Step::Dead => false,
            _ => self.admin.ready() || (self.live && self.io.ready()),
        }
    }

    /// Counts an answer to nothing; tells of the first, the second, the fourth and so on.
    pub(super) fn count_nonsense(&mut self, answer: &Answer) {
        self.statistics.nonsense += 1;
        if self.statistics.nonsense.is_power_of_two() {
            log::warn!("nvme: {} answers to nothing, the last is {answer:?}", self.statistics.nonsense);
        }
    }

    /// Deletes the queues, shuts down, disables. Each read of CSTS takes a device's time, so no clock is needed to bound the waits. A
    /// controller that is starting must not be disabled before it is ready (2.0: 3.1.3.5), and where it never is proves nothing.
    pub(super) fn shut_down(&mut self) -> Option<Quiesced> {
        self.starting = self.starting && !self.spin(|status| status.ready());
        let status: Csts = self.registers.read(reg::CSTS);
        let well = self.live && status.ready() && !status.fatal();
        if well {
            for opcode in [command::admin::DELETE_SUBMISSION_QUEUE, command::admin::DELETE_COMPLETION_QUEUE] {
                let id = self.send_admin(command::plain(opcode, 0, [u32::from(IO_QUEUE), 0]));
                self.admin.ring(&self.registers);
                self.await_admin(id);
            }
        }
        let configuration: Cc = self.registers.read(reg::CC);
        if well {
            self.registers.write(reg::CC, configuration.with_shutdown(SHUTDOWN_NORMAL));
            self.spin(|status| status.shutdown() == SHUTDOWN_COMPLETE);
        }
        self.registers.write(reg::CC, configuration.with_enable(false).with_shutdown(0));
        self.spin(|status| !status.ready());
        self.registers.confirm(reg::CSTS, |status| !status.fatal() && !status.ready()).filter(|_| !self.starting)
    }

    /// Whether its status came to be so.
    fn spin(&self, done: impl Fn(Csts) -> bool) -> bool {
        for _ in 0..self.options.stop_reads {
            let status: Csts = self.registers.read(reg::CSTS);
            if status.absent() || status.fatal() {
                return false;
            }
            if done(status) {
                return true;
            }
        }
        log::warn!("nvme: it neither started nor stopped in time");
        false
    }

    fn await_admin(&mut self, id: u16) {
        for _ in 0..self.options.stop_reads / DELETE_SHARE {
            while let Some(answer) = self.admin.pop() {
                self.admin.acknowledge(&self.registers);
                if answer.id == id {
                    return;
                }
            }
            let status: Csts = self.registers.read(reg::CSTS);
            if status.absent() || status.fatal() {
                return;
            }
        }
    }
}

/// Whether a status says that the namespace is not there.
pub(super) const fn is_no_namespace(status: u16) -> bool {
    status == Status::INVALID_NAMESPACE
}
