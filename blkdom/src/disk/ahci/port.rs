//! A port: from whatever state it was left in to one that takes commands. Pure. Floor 3.
//!
//! Stopping -> Deafening -> Resetting -> Linking -> Settling -> Identifying -> Idle (AHCI 10.1.2, 10.4.2); a port where nothing is ends
//! in Empty, one with something that is no disk in Ignored. An error leads from Idle through Halting, perhaps ReadingLog, back to
//! Idle, or to Stopping where the link is to be reset. A link that is lost leads to Lost, and on when it comes back.

use super::Statistics;
use super::command::{LOG_QUEUED_ERROR, Task, opcode};
use super::identify::{IDENTIFY_WORDS, Identity};
use super::memory::{Memory, SLOTS};
use super::registers::{self as reg, LinkControl, LinkStatus, PortCommand, PortRegisters, PortStatus, TaskFile};
use super::registers::{detection, signature};
use super::slots::Slots;
use crate::disk::{Completion, IoError, Unit, UnitId, UnitKind};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::{Ordering, fence};
use core::time::Duration;
use split_driver::memory::{DmaAllocator, DmaMemory, Mmio, Quiesced};
use split_driver::time::Instant;

/// How long the adapter may take to stop working on a list or receiving (AHCI 10.3.2, 10.4.2: 500 ms).
pub(super) const ENGINE_PATIENCE: Duration = Duration::from_secs(1);
/// How long COMRESET is sent (AHCI 10.4.2: a millisecond at least).
const RESET_TIME: Duration = Duration::from_millis(2);
/// How long a drive may take to show itself (Serial ATA 3.1: 8.4.1 has 10 ms; one that takes longer comes as if plugged in then), and
/// then to have a link. The readiness of all waits for ports without a drive that long.
const PRESENCE_PATIENCE: Duration = Duration::from_millis(30);
const LINK_PATIENCE: Duration = Duration::from_secs(10);
/// How long a drive may take to spin up, and to answer the driver's own commands.
const SETTLE_PATIENCE: Duration = Duration::from_secs(30);
const OWN_PATIENCE: Duration = Duration::from_secs(30);
/// How long a link may be lost until the drive is held to be gone.
const LOST_PATIENCE: Duration = Duration::from_secs(10);
/// How often a register that is waited for is read.
pub(super) const REGISTER_PAUSE: Duration = Duration::from_millis(1);
/// The same where it may take seconds.
const SLOW_PAUSE: Duration = Duration::from_millis(10);
/// How often is looked at what takes its time: a message that was lost costs no more than that.
pub(super) const LOOK_PAUSE: Duration = Duration::from_secs(1);
/// Starts in a row that may fail.
const STARTS: u8 = 3;
/// PxCMD.ICC: active; PxSCTL.IPM: no sleep.
const LINK_ACTIVE: u8 = 1;
const LINK_AWAKE: u8 = 3;

/// What a port is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing was done yet.
    New,
    /// Waits for PxCMD.CR to become 0.
    Stopping,
    /// Waits for PxCMD.FR to become 0.
    Deafening,
    /// COMRESET is being sent.
    Resetting,
    /// Waits for a link.
    Linking {
        /// Something is there.
        present: bool,
    },
    /// Waits for the drive to be ready.
    Settling,
    /// IDENTIFY DEVICE.
    Identifying,
    /// It takes commands.
    Idle,
    /// After an error: waits for PxCMD.CR to become 0.
    Halting(After),
    /// READ LOG EXT.
    ReadingLog,
    /// The link is lost, and may come back.
    Lost,
    /// Nothing is there.
    Empty,
    /// Something is there that is not for us, or that does not work.
    Ignored,
}

/// What follows once a port has stopped after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// It goes on.
    Resume,
    /// The log says which command failed.
    ReadLog,
    /// The link is reset.
    Reset,
    /// The drive is left alone for good.
    Retire,
}

/// What the controller must know of a port.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// A drive came.
    Came,
    /// Its size or abilities changed.
    Changed,
    /// It went; its commands have completed.
    Left,
}

/// What a port is given to do its work with.
pub(super) struct Turn<'a, M, D> {
    pub(super) io: PortRegisters<'a, M>,
    pub(super) dma: &'a D,
    pub(super) now: Instant,
    pub(super) patience: Duration,
    pub(super) stop_reads: u32,
    /// Slots that the adapter has; whether it queues.
    pub(super) slots: u8,
    pub(super) queuing: bool,
    pub(super) completions: &'a mut Vec<Completion>,
    pub(super) statistics: &'a mut Statistics,
}

/// A port.
pub(super) struct Port<D> {
    pub(super) number: u8,
    pub(super) memory: Memory<D>,
    pub(super) slots: Slots,
    pub(super) step: Step,
    /// What the step must be done by.
    deadline: Instant,
    /// When to look, if at any time.
    pub(super) look_at: Option<Instant>,
    pub(super) identity: Option<Identity>,
    /// What the drive is called, once the controller has named it.
    pub(super) unit: Option<UnitId>,
    /// Commands are queued.
    pub(super) queues: bool,
    /// The list was seen to stop, and nothing but the driver's own commands was sent since.
    pub(super) idle: Option<ListIdle>,
    /// Queued commands one of which failed.
    pub(super) suspects: u32,
    /// The task file still has the error of a command that was done with.
    pub(super) stale: bool,
    /// Until when a lost link may come back.
    lost_until: Option<Instant>,
    /// Failed starts in a row.
    pub(super) failures: u8,
    pub(super) news: VecDeque<News>,
    /// It cannot be stopped: the adapter must be reset.
    pub(super) stuck: bool,
}

/// Proof that none of the commands that waited or were recalled is with the drive: their memory is reached no longer.
pub(super) struct ListIdle(());

impl From<&Quiesced> for ListIdle {
    fn from(_proof: &Quiesced) -> Self {
        Self(())
    }
}

impl<D: DmaMemory> Port<D> {
    pub(super) fn new(number: u8, memory: Memory<D>) -> Self {
        Self {
            number,
            memory,
            slots: Slots::new(),
            step: Step::New,
            deadline: Instant(0),
            look_at: None,
            identity: None,
            unit: None,
            queues: false,
            idle: None,
            suspects: 0,
            stale: false,
            lost_until: None,
            failures: 0,
            news: VecDeque::new(),
            stuck: false,
        }
    }

    /// Whether it is known what is there.
    pub(super) const fn is_settled(&self) -> bool {
        matches!(self.step, Step::Idle | Step::Halting(_) | Step::ReadingLog | Step::Lost | Step::Empty | Step::Ignored)
    }

    /// Whether interrupts of it are to be expected, beside those of the link.
    pub(super) const fn is_active(&self) -> bool {
        matches!(self.step, Step::Identifying | Step::ReadingLog) || self.slots.sent() != 0
    }

    /// The drive as a unit.
    pub(super) fn describe(&self, id: UnitId) -> Option<Unit> {
        let identity = self.identity.as_ref()?;
        Some(Unit {
            id,
            kind: UnitKind::Drive(self.number),
            model: identity.model.clone(),
            serial: identity.serial.clone(),
            wwn: identity.wwn.clone(),
            geometry: identity.geometry,
        })
    }

    pub(super) fn enter(&mut self, step: Step, now: Instant, patience: Duration, pause: Duration) {
        self.step = step;
        self.deadline = now + patience;
        self.look_at = Some(now + pause);
    }

    /// Begins at the beginning. The commands wait.
    pub(super) fn begin<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &Turn<'_, M, A>) {
        self.slots.recall(|_| {});
        turn.io.write(reg::PX_IE, PortStatus::new());
        let command: PortCommand = turn.io.read(reg::PX_CMD);
        turn.io.write(reg::PX_CMD, command.with_start(false));
        self.enter(Step::Stopping, turn.now, ENGINE_PATIENCE, Duration::ZERO);
    }

    /// The adapter is being reset, and forgets all that the port has. The commands wait.
    pub(super) fn interrupt_by_reset<M, A>(&mut self, turn: &Turn<'_, M, A>) {
        self.strike(turn, 1, None);
        self.slots.recall(|_| {});
        self.stuck = false;
        self.step = Step::New;
        self.look_at = None;
    }

    /// Takes the steps that can be taken now.
    pub(super) fn look<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &mut Turn<'_, M, A>) {
        // Each wait can be over at once; there are fewer steps than this.
        for _ in 0..8 {
            let before = self.step;
            self.advance(turn);
            if self.step == before {
                break;
            }
        }
    }

    fn advance<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &mut Turn<'_, M, A>) {
        let late = turn.now >= self.deadline;
        let command: PortCommand = turn.io.read(reg::PX_CMD);
        self.look_at = Some(turn.now + REGISTER_PAUSE);
        match self.step {
            Step::New => self.begin(turn),
            Step::Stopping if !command.running() => {
                self.idle = self.list_idle(turn);
                self.complete_judged(turn);
                turn.io.write(reg::PX_CMD, command.with_start(false).with_receive(false));
                self.enter(Step::Deafening, turn.now, ENGINE_PATIENCE, REGISTER_PAUSE);
            }
            Step::Deafening if !command.receiving() => self.reset_link(turn, command),
            Step::Stopping | Step::Deafening if late => {
                self.stuck = true;
            }
            Step::Stopping | Step::Deafening => {}
            Step::Resetting if late => {
                turn.io.write(reg::PX_SCTL, LinkControl::new().with_power(LINK_AWAKE));
                self.enter(Step::Linking { present: false }, turn.now, PRESENCE_PATIENCE, REGISTER_PAUSE);
            }
            Step::Resetting => {}
            Step::Linking { present } => self.await_link(turn, present, late),
            Step::Settling => self.await_drive(turn, late),
            Step::Halting(after) => self.await_halt(turn, command, after, late),
            Step::Identifying | Step::ReadingLog => {
                self.look_at = Some(turn.now + LOOK_PAUSE);
                self.handle_interrupt(turn);
                if late && matches!(self.step, Step::Identifying | Step::ReadingLog) {
                    self.fail(turn, "it does not answer a command of the driver's own");
                }
            }
            Step::Idle => self.look_after_commands(turn),
            Step::Lost => self.await_return(turn),
            Step::Empty | Step::Ignored => self.look_at = None,
        }
    }

    /// Gives the port its memory, lets it receive, and begins to send COMRESET (AHCI 10.1.2, 10.4.2).
    fn reset_link<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &Turn<'_, M, A>, command: PortCommand) {
        turn.io.write_base(reg::PX_CLB, self.memory.list_address());
        turn.io.write_base(reg::PX_FB, self.memory.received_address());
        self.clear_status(turn);
        fence(Ordering::Release);
        let command = command.with_start(false).with_power_on(true).with_spin_up(true).with_link_power(LINK_ACTIVE);
        turn.io.write(reg::PX_CMD, command.with_receive(true));
        let control = LinkControl::new().with_power(LINK_AWAKE).with_detection(detection::RESET);
        turn.io.write(reg::PX_SCTL, control);
        self.stale = false;
        self.enter(Step::Resetting, turn.now, RESET_TIME, RESET_TIME);
    }

    /// PxSERR first: two bits of PxIS are its (AHCI 3.3.5).
    pub(super) fn clear_status<M: Mmio, A>(&self, turn: &Turn<'_, M, A>) {
        turn.io.write(reg::PX_SERR, u32::MAX);
        turn.io.write(reg::PX_IS, PortStatus::from(u32::MAX));
    }

    fn await_link<M: Mmio, A: DmaAllocator<Memory = D>>(
        &mut self,
        turn: &mut Turn<'_, M, A>,
        present: bool,
        late: bool,
    ) {
        let link: LinkStatus = turn.io.read(reg::PX_SSTS);
        match link.detection() {
            detection::LINK => self.enter(Step::Settling, turn.now, SETTLE_PATIENCE, REGISTER_PAUSE),
            detection::PRESENT if !present => {
                self.enter(Step::Linking { present: true }, turn.now, LINK_PATIENCE, SLOW_PAUSE);
            }
            _ if !late => {}
            _ if self.identity.is_some() && self.lost_until.is_none_or(|until| turn.now < until) => {
                self.lose_link(turn);
            }
            _ => self.rest(turn, Step::Empty),
        }
    }

    /// The port has no drive (any more): only the link can change that.
    pub(super) fn rest<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &mut Turn<'_, M, A>, step: Step) {
        if self.identity.is_some() {
            let Some(idle) = self.list_idle(turn) else {
                // Its list must not be worked on when its commands are given back.
                return self.begin(turn);
            };
            self.say_farewell(turn, &idle);
        }
        self.lost_until = None;
        self.failures = 0;
        self.step = step;
        self.look_at = None;
        self.clear_status(turn);
        turn.io.write(reg::PX_IE, PortStatus::of_the_link());
        let link: LinkStatus = turn.io.read(reg::PX_SSTS);
        if step == Step::Empty && link.detection() == detection::LINK {
            // It came before it would have been told.
            self.begin(turn);
        }
    }

    /// The link broke. The commands wait for it to come back, and for the same drive behind it.
    pub(super) fn lose_link<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &mut Turn<'_, M, A>) {
        match self.lost_until {
            Some(until) if turn.now < until => {}
            None if self.identity.is_some() => {
                log::warn!("ahci: port {}: the link is lost", self.number);
                self.lost_until = Some(turn.now + LOST_PATIENCE);
            }
            _ => return self.fail(turn, "the link breaks again and again"),
        }
        self.slots.recall(|_| {});
        let command: PortCommand = turn.io.read(reg::PX_CMD);
        turn.io.write(reg::PX_CMD, command.with_start(false));
        self.step = Step::Lost;
        self.look_at = Some(turn.now + SLOW_PAUSE);
    }

    fn await_return<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &mut Turn<'_, M, A>) {
        self.look_at = Some(turn.now + SLOW_PAUSE);
        let link: LinkStatus = turn.io.read(reg::PX_SSTS);
        if link.detection() == detection::LINK {
            self.begin(turn);
        } else if self.lost_until.is_none_or(|until| turn.now >= until) {
            log::warn!("ahci: port {}: the link did not come back", self.number);
            // Its list must not be worked on when its commands are given back.
            self.begin(turn);
        }
    }

    fn await_drive<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &mut Turn<'_, M, A>, late: bool) {
        self.look_at = Some(turn.now + SLOW_PAUSE);
        let state: TaskFile = turn.io.read(reg::PX_TFD);
        let found: u32 = turn.io.read(reg::PX_SIG);
        let link: LinkStatus = turn.io.read(reg::PX_SSTS);
        if link.detection() != detection::LINK {
            return self.lose_link(turn);
        }
        if !state.is_idle() || found == u32::MAX {
            if late {
                self.fail(turn, "the drive does not become ready");
            }
            return;
        }
        let what = match found {
            signature::DISK => return self.identify(turn),
            signature::PACKET => "an optical drive or a tape",
            signature::PORT_MULTIPLIER => "a port multiplier",
            signature::ENCLOSURE => "an enclosure",
            _ => "something unknown",
        };
        log::info!("ahci: port {}: {what} (signature {found:#010x}) is left alone", self.number);
        self.retire(turn);
    }

    /// Starts the list, and asks the drive what it is.
    fn identify<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &mut Turn<'_, M, A>) {
        self.clear_status(turn);
        turn.io.write(reg::PX_IE, PortStatus::of_interest());
        self.start(turn);
        self.send_own(turn, &Task::plain(opcode::IDENTIFY));
        self.enter(Step::Identifying, turn.now, OWN_PATIENCE, Duration::ZERO);
    }

    pub(super) fn start<M: Mmio, A>(&self, turn: &Turn<'_, M, A>) {
        let command: PortCommand = turn.io.read(reg::PX_CMD);
        turn.io.write(reg::PX_CMD, command.with_start(true));
    }

    /// Sends a command of the driver's own: nothing else is with the drive.
    fn send_own<M: Mmio, A>(&self, turn: &Turn<'_, M, A>, task: &Task) {
        self.memory.write_own_command(task);
        fence(Ordering::Release);
        turn.io.write(reg::PX_CI, 1);
    }

    /// After an error of a queued command: asks which it was.
    pub(super) fn read_log<M: Mmio, A>(&mut self, turn: &Turn<'_, M, A>) {
        self.send_own(turn, &Task::read_log(LOG_QUEUED_ERROR));
        self.enter(Step::ReadingLog, turn.now, OWN_PATIENCE, Duration::ZERO);
    }

    /// The drive told what it is.
    pub(super) fn identified<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &mut Turn<'_, M, A>) {
        let mut words = [0; IDENTIFY_WORDS];
        for (pair, word) in words.chunks_exact_mut(2).zip(self.memory.block()) {
            pair.copy_from_slice(&[word as u16, (word >> 16) as u16]);
        }
        let identity = match Identity::parse(&words) {
            Ok(identity) => identity,
            Err(why) => {
                log::info!("ahci: port {}: the drive is left alone: {why}", self.number);
                return self.retire(turn);
            }
        };
        let queues = turn.queuing && identity.queue > 0;
        let count = if queues { identity.queue.min(turn.slots) } else { turn.slots };
        if !self.memory.provide(turn.dma, usize::from(count).min(SLOTS)) {
            log::error!("ahci: port {}: no memory for the commands of {}", self.number, identity.model);
            return self.retire(turn);
        }
        match &self.identity {
            Some(before) if *before == identity => {}
            Some(before) if before.is_same_drive(&identity) => self.news.push_back(News::Changed),
            Some(_) => {
                let Some(idle) = self.idle.take() else {
                    return self.begin(turn);
                };
                self.say_farewell(turn, &idle);
                self.news.push_back(News::Came);
            }
            None => self.news.push_back(News::Came),
        }
        self.identity = Some(identity);
        self.queues = queues;
        self.slots.resize(count);
        self.failures = 0;
        self.lost_until = None;
        self.resume(turn);
    }

    /// What is there is not for us: stops what was begun.
    fn retire<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &mut Turn<'_, M, A>) {
        self.slots.recall(|_| {});
        turn.io.write(reg::PX_IE, PortStatus::new());
        let command: PortCommand = turn.io.read(reg::PX_CMD);
        turn.io.write(reg::PX_CMD, command.with_start(false));
        self.enter(Step::Halting(After::Retire), turn.now, ENGINE_PATIENCE, Duration::ZERO);
        self.look(turn);
    }

    /// Whether the list is worked on no longer (AHCI 3.3.7: PxCMD.CR).
    fn list_idle<M: Mmio, A>(&self, turn: &Turn<'_, M, A>) -> Option<ListIdle> {
        turn.io.confirm(reg::PX_CMD, |command: PortCommand| !command.running()).map(|_| ListIdle(()))
    }

    /// Ends all commands of a drive that went, and tells of it. The drive has none of them.
    pub(super) fn say_farewell<M, A>(&mut self, turn: &mut Turn<'_, M, A>, idle: &ListIdle) {
        if self.identity.take().is_some() {
            self.complete_all_as_gone(idle, turn.completions);
            self.news.push_back(News::Left);
        }
    }

    /// Ends all commands: none of them will be answered, and their memory is reached no longer.
    pub(super) fn complete_all_as_gone(&mut self, _idle: &ListIdle, completions: &mut Vec<Completion>) {
        self.slots.recall(|_| {});
        while let Some(slot) = self.slots.take_waiting(|_| true) {
            completions.push(Completion { tag: slot.tag, result: Err(IoError::Gone) });
        }
    }

    /// A start failed: once more, or it is given up.
    pub(super) fn fail<M: Mmio, A: DmaAllocator<Memory = D>>(&mut self, turn: &mut Turn<'_, M, A>, reason: &str) {
        self.failures += 1;
        turn.statistics.resets += 1;
        if self.failures > STARTS {
            log::error!("ahci: port {}: {reason}; {STARTS} resets did not help", self.number);
            return self.retire(turn);
        }
        log::warn!("ahci: port {}: {reason}: resetting it", self.number);
        self.begin(turn);
    }

    /// Stops for good: makes durable what the cache holds, lets nothing be read or written any more. Each read of a register takes a
    /// device's time, so no clock is needed to bound the waits. `None` where the port does not say that it has stopped.
    pub(super) fn shut_down<M: Mmio, A>(&mut self, turn: &Turn<'_, M, A>) -> Option<Quiesced> {
        turn.io.write(reg::PX_IE, PortStatus::new());
        let cached = self.identity.as_ref().is_some_and(|identity| identity.geometry.volatile_cache);
        if cached && self.step == Step::Idle {
            let done = |_: &Self| turn.io.read::<u32>(reg::PX_CI) == 0 && turn.io.read::<u32>(reg::PX_SACT) == 0;
            if self.spin(turn, done) {
                self.send_own(turn, &Task::plain(opcode::FLUSH));
                self.spin(turn, done);
            }
        }
        let command: PortCommand = turn.io.read(reg::PX_CMD);
        turn.io.write(reg::PX_CMD, command.with_start(false));
        self.spin(turn, |_| !turn.io.read::<PortCommand>(reg::PX_CMD).running());
        turn.io.write(reg::PX_CMD, command.with_start(false).with_receive(false));
        self.spin(turn, |_| !turn.io.read::<PortCommand>(reg::PX_CMD).receiving());
        let proof = turn.io.confirm(reg::PX_CMD, |command: PortCommand| !command.running() && !command.receiving());
        if proof.is_none() {
            log::warn!("ahci: port {} did not stop", self.number);
        }
        proof
    }

    fn spin<M, A>(&self, turn: &Turn<'_, M, A>, done: impl Fn(&Self) -> bool) -> bool {
        (0..turn.stop_reads).any(|_| done(self))
    }
}
