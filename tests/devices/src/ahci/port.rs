//! Ports: registers, command lists, links. Pure.

use std::collections::VecDeque;

use blkdom::disk::ahci::command::{FIS_WORDS, Task, opcode};
use blkdom::disk::ahci::registers::{
    self as reg, LinkControl, LinkStatus, PortCommand, PortReg, PortStatus, detection,
};

use super::drive::{Drive, Motion, READY, REFUSED, Trap};
use crate::bus::{Misuse, Transfer};
use crate::medium::Piece;
use crate::work::words;

/// PxTFD of a port that has not heard of its drive yet.
const UNKNOWN: u32 = 0x7F;
/// PxTFD of a drive that is busy.
const BUSY: u32 = 0x80;
/// PxSERR.DIAG.X: something was plugged in; DIAG.N: the link changed.
const PLUGGED: u32 = 1 << 26;
const CHANGED: u32 = 1 << 16;

/// A command that a port has read.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    pub(super) slot: u8,
    pub(super) task: Task,
    pub(super) pieces: Vec<Piece>,
}

impl Fetched {
    pub(super) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|(_, bytes)| *bytes as u64).sum()
    }
}

/// The header of a command that is being read, AHCI 4.2.2.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub(super) slot: u8,
    flags: u32,
    table: u64,
}

/// How a port is worse than the specification has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// A command that failed is taken off the list, as QEMU before 8.1 does.
    pub forgets_failed: bool,
    /// An error of a queued command shows in PxTFD alone, as with QEMU before 8.1.
    pub hides_queued_errors: bool,
    /// Its list does not stop.
    pub runs_on: bool,
}

/// A port.
#[derive(Default)]
pub(super) struct Port {
    list: u64,
    received: u64,
    /// PxIS, without what PxSERR says.
    status: u32,
    pub(super) enabled: u32,
    pub(super) command: PortCommand,
    task_file: u32,
    signature: u32,
    link: LinkStatus,
    control: LinkControl,
    error: u32,
    active: u32,
    issued: u32,
    pub(super) drive: Option<Drive>,
    /// The drive is there, and its link is not.
    pub(super) unlinked: bool,
    /// A link that is there and was not made: something is present.
    pub(super) mute: bool,
    /// Slots that are to be read.
    unread: u32,
    pub(super) inbox: VecDeque<Fetched>,
    /// Commands that a test has carried out, in its order.
    pub(super) chosen: VecDeque<Fetched>,
    /// Counts the times that it forgot its commands: what is under way for one of them comes to nothing.
    pub(super) epoch: u32,
    /// An error stopped the list.
    halted: bool,
    pub(super) quirks: Quirks,
}

impl Port {
    /// What a reset of the adapter leaves.
    pub(super) fn reset(&mut self) {
        let (drive, unlinked, mute, quirks) = (self.drive.take(), self.unlinked, self.mute, self.quirks);
        let epoch = self.epoch.wrapping_add(1);
        *self =
            Self { drive, unlinked, mute, quirks, epoch, signature: u32::MAX, task_file: UNKNOWN, ..Self::default() };
        self.connect();
    }

    /// The link comes up, if there is a drive.
    fn connect(&mut self) {
        let Some(drive) = self.drive.as_mut().filter(|_| !self.unlinked) else {
            self.link = LinkStatus::new();
            return;
        };
        drive.reset();
        if self.mute {
            self.link = LinkStatus::new().with_detection(detection::PRESENT);
            return;
        }
        self.link = LinkStatus::new().with_detection(detection::LINK).with_speed(3).with_power(1);
        self.signature = drive.signature;
        self.task_file = READY;
        self.error |= PLUGGED | CHANGED;
    }

    /// Commands that were read, or are to be, are not carried out.
    fn forget(&mut self) {
        self.unread = 0;
        self.inbox.clear();
        self.chosen.clear();
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// The link goes.
    pub(super) fn disconnect(&mut self) {
        self.link = LinkStatus::new();
        self.error |= CHANGED;
        self.task_file = UNKNOWN;
        self.forget();
    }

    /// The link is (again) what the drive makes it.
    pub(super) fn reconnect(&mut self) {
        self.forget();
        self.connect();
    }

    /// PxIS.
    pub(super) fn status(&self) -> u32 {
        let connected = PortStatus::new().with_connected(self.error & PLUGGED != 0);
        let status = connected.with_link_changed(self.error & CHANGED != 0);
        self.status | u32::from(status)
    }

    /// PxTFD.
    fn task_file(&self) -> u32 {
        if self.drive.as_ref().is_some_and(|drive| drive.busy > 0) { BUSY } else { self.task_file }
    }

    /// Whether it interrupts.
    pub(super) fn interrupts(&self) -> bool {
        self.status() & self.enabled != 0
    }

    pub(super) fn raise(&mut self, status: PortStatus) {
        self.status |= u32::from(status);
    }

    /// An error of the link or of memory: the list stops.
    pub(super) fn fail(&mut self, status: PortStatus) {
        self.raise(status);
        self.halted = true;
        self.forget();
    }

    /// What a register holds.
    pub(super) fn register(&self, offset: usize) -> u32 {
        let is = |register: PortReg<u32>| register.offset() == offset;
        if is(reg::PX_CLB.low()) {
            self.list as u32
        } else if is(reg::PX_SIG) {
            self.signature
        } else if is(reg::PX_SERR) {
            self.error
        } else if is(reg::PX_SACT) {
            self.active
        } else if is(reg::PX_CI) {
            self.issued
        } else if offset == reg::PX_IS.offset() {
            self.status()
        } else if offset == reg::PX_IE.offset() {
            self.enabled
        } else if offset == reg::PX_CMD.offset() {
            self.command.into()
        } else if offset == reg::PX_TFD.offset() {
            self.task_file()
        } else if offset == reg::PX_SSTS.offset() {
            self.link.into()
        } else if offset == reg::PX_SCTL.offset() {
            self.control.into()
        } else {
            0
        }
    }

    /// Reads a register.
    pub(super) fn read(&mut self, offset: usize) -> u32 {
        if offset == reg::PX_CMD.offset() {
            let running = self.command.start() || (self.quirks.runs_on && self.command.running());
            self.command = self.command.with_running(running).with_receiving(self.command.receive());
        }
        let held = self.register(offset);
        if offset == reg::PX_TFD.offset()
            && let Some(drive) = &mut self.drive
        {
            drive.busy = drive.busy.saturating_sub(1);
        }
        held
    }

    pub(super) fn write(&mut self, offset: usize, value: u32, misuse: &mut Misuse) {
        let high = |address: u64, high: u32| address & 0xFFFF_FFFF | u64::from(high) << 32;
        let low = |address: u64, low: u32| address & !0xFFFF_FFFF | u64::from(low);
        let is = |register: PortReg<u32>| register.offset() == offset;
        let addresses = [reg::PX_CLB, reg::PX_FB].iter().any(|base| is(base.low()) || is(base.high()));
        if addresses && (self.command.start() || self.command.receive()) {
            misuse.note("addresses changed while the port works");
        }
        if is(reg::PX_CLB.low()) {
            self.list = low(self.list, value);
        } else if is(reg::PX_CLB.high()) {
            self.list = high(self.list, value);
        } else if is(reg::PX_FB.low()) {
            self.received = low(self.received, value);
        } else if is(reg::PX_FB.high()) {
            self.received = high(self.received, value);
        } else if offset == reg::PX_IS.offset() {
            self.status &= !value;
        } else if offset == reg::PX_IE.offset() {
            self.enabled = value;
        } else if offset == reg::PX_CMD.offset() {
            self.set_command(PortCommand::from(value), misuse);
        } else if offset == reg::PX_SCTL.offset() {
            self.set_control(LinkControl::from(value), misuse);
        } else if is(reg::PX_SERR) {
            self.error &= !value;
        } else if is(reg::PX_SACT) {
            if !self.command.start() || self.active & value != 0 {
                misuse.note("tags that are in use, or of a port that is stopped");
            }
            self.active |= value;
        } else if is(reg::PX_CI) {
            self.issue(value, misuse);
        } else {
            misuse.note("a write to a port's register that cannot be written");
        }
    }

    fn set_command(&mut self, command: PortCommand, misuse: &mut Misuse) {
        let before = self.command;
        if command.start() && !before.start() {
            if !before.receive() || self.link.detection() != detection::LINK || self.task_file() & 0x88 != 0 {
                misuse.note("a list started without a drive that is ready, or without receiving");
            }
            if !self.list.is_multiple_of(1024) || !self.received.is_multiple_of(256) {
                misuse.note("a command list or received FISes off their alignment");
            }
        }
        if !command.start() && before.start() && !self.quirks.runs_on {
            (self.issued, self.active, self.halted) = (0, 0, false);
            self.forget();
        }
        if !command.receive() && before.running() && before.start() {
            misuse.note("no receiving while the list is worked on");
        }
        let running = command.start() || (self.quirks.runs_on && before.running());
        self.command = command.with_running(running).with_receiving(command.receive()).with_link_power(0);
    }

    fn set_control(&mut self, control: LinkControl, misuse: &mut Misuse) {
        if control.detection() == detection::RESET {
            if self.command.start() {
                misuse.note("COMRESET while the list is worked on");
            }
            self.link = LinkStatus::new();
            (self.task_file, self.signature) = (UNKNOWN, u32::MAX);
            self.forget();
        } else if self.control.detection() == detection::RESET {
            self.connect();
        }
        self.control = control;
    }

    fn issue(&mut self, slots: u32, misuse: &mut Misuse) {
        if !self.command.start() || !self.command.receive() {
            misuse.note("a command to a port that is stopped");
            return;
        }
        if self.issued & slots != 0 {
            misuse.note("a slot that is in use");
        }
        self.issued |= slots;
        // Otherwise the driver cannot know yet: the command stays on the list.
        if !self.halted && self.link.detection() == detection::LINK {
            self.unread |= slots;
        }
    }

    /// The next slot that is to be read, and where its header is.
    pub(super) fn next_unread(&mut self) -> Option<(u8, Transfer)> {
        let slot = (self.unread != 0).then(|| self.unread.trailing_zeros() as u8)?;
        self.unread &= !(1 << slot);
        Some((slot, Transfer::read(self.list.wrapping_add(u64::from(slot) * 32), 16)))
    }

    /// A header was read: what it says, and where its table is.
    pub(super) fn header(slot: u8, bytes: &[u8]) -> (Header, Vec<Transfer>) {
        let [flags, _, low, high] = words(bytes);
        let table = u64::from(high) << 32 | u64::from(low);
        let batch = vec![
            Transfer::read(table, FIS_WORDS * 4),
            Transfer::read(table.wrapping_add(0x80), (flags >> 16) as usize * 16),
        ];
        let batch = batch.into_iter().filter(|transfer| !transfer.data.is_empty()).collect();
        (Header { slot, flags, table }, batch)
    }

    /// A command was read, which is checked as AHCI 4.2 has it.
    pub(super) fn receive(&mut self, header: &Header, batch: &[Transfer], misuse: &mut Misuse) {
        let Header { slot, flags, table } = *header;
        let mut parts = batch.iter().map(|transfer| transfer.data.as_slice());
        let Some(task) = Task::parse(words(parts.next().unwrap_or_default())) else {
            return misuse.note("a slot without a command");
        };
        if flags & 0x1F != 5 || table % 128 != 0 || flags & 0xFFA0 != 0 {
            misuse.note("a command header that is none");
        }
        if (flags & 1 << 6 != 0) != task.is_write() {
            misuse.note("a command header that says the wrong direction");
        }
        let tag_fits = task.count == u16::from(slot) << 3 && self.active >> slot & 1 != 0;
        if task.is_queued() && !tag_fits {
            misuse.note("a queued command without its tag");
        }
        if !task.is_queued() && self.active != 0 {
            misuse.note("an unqueued command beside queued ones");
        }
        let entries = parts.next().unwrap_or_default().as_chunks::<16>().0;
        let pieces = entries.iter().map(|entry| {
            let [low, high, _, count] = words(entry);
            (u64::from(high) << 32 | u64::from(low), (count & 0x3F_FFFF) as usize + 1)
        });
        let pieces: Vec<Piece> = pieces.collect();
        if pieces.iter().any(|(address, bytes)| address % 2 != 0 || bytes % 2 != 0) {
            misuse.note("an entry of a memory list off its alignment");
        }
        let queued = task.is_queued();
        if self.inbox.iter().any(|other| !(queued && other.task.is_queued())) {
            misuse.note("an unqueued command beside others");
        }
        if queued {
            self.issued &= !(1 << slot);
        }
        self.inbox.push_back(Fetched { slot, task, pieces });
    }

    /// The drive, where it takes commands.
    fn ready_drive(&mut self) -> Option<&mut Drive> {
        self.drive.as_mut().filter(|drive| !drive.deaf && !self.halted)
    }

    /// Has the command at a place among those read carried out. False where there is none.
    pub(super) fn choose(&mut self, place: usize) -> bool {
        let fetched = self.ready_drive().is_some().then(|| self.inbox.remove(place)).flatten();
        let chosen = fetched.is_some();
        self.chosen.extend(fetched);
        chosen
    }

    /// The next command that is to be carried out.
    pub(super) fn next(&mut self, lazy: bool) -> Option<Fetched> {
        self.ready_drive()?;
        let chosen = self.chosen.pop_front();
        if lazy { chosen } else { chosen.or_else(|| self.inbox.pop_front()) }
    }

    /// Begins a command: what it moves, or how it ended; none where it is never answered.
    pub(super) fn begin(&mut self, fetched: &Fetched, misuse: &mut Misuse) -> Option<Result<Motion, u8>> {
        let drive = self.drive.as_mut()?;
        match drive.trap(&fetched.task) {
            Some(Trap::Silence) => None,
            Some(Trap::Break(status)) => {
                self.fail(status);
                None
            }
            None => Some(drive.begin(fetched, misuse)),
        }
    }

    /// Where the FIS goes that tells of a command's end.
    pub(super) fn answer(&self, task: &Task, result: Result<(), u8>) -> Transfer {
        let place = match result {
            Ok(()) if !task.is_queued() => {
                if gives(task) {
                    0x20
                } else {
                    0x40
                }
            }
            _ => 0x58,
        };
        Transfer::write(self.received.wrapping_add(place), vec![0xA5; 8])
    }

    /// A command has ended.
    pub(super) fn end(&mut self, fetched: &Fetched, result: Result<(), u8>) {
        let (task, bit) = (&fetched.task, 1 << fetched.slot);
        match result {
            Ok(()) if task.is_queued() => {
                self.active &= !bit;
                self.task_file = READY;
                self.raise(PortStatus::new().with_device_bits(true));
            }
            Ok(()) => {
                self.issued &= !bit;
                self.task_file = READY;
                self.raise(PortStatus::new().with_registers(!gives(task)).with_pio_setup(gives(task)));
            }
            Err(error) => {
                if task.is_queued() {
                    if let Some(drive) = &mut self.drive {
                        drive.failed = Some((fetched.slot, error));
                    }
                } else if self.quirks.forgets_failed {
                    self.issued &= !bit;
                }
                self.task_file = REFUSED | u32::from(error) << 8;
                let hidden = task.is_queued() && self.quirks.hides_queued_errors;
                let status = PortStatus::new().with_device_bits(task.is_queued()).with_registers(!task.is_queued());
                self.raise(status.with_task_file(!hidden));
                self.halted = true;
                self.forget();
            }
        }
    }

    /// Sets a bit as if a command were at work.
    pub(super) fn forge(&mut self, issued: u32, active: u32) {
        self.issued |= issued;
        self.active |= active;
    }

    pub(super) fn is_quiet(&self) -> bool {
        !self.command.start() && !self.command.receive()
    }
}

/// Whether a command's data come by PIO Setup FISes.
const fn gives(task: &Task) -> bool {
    matches!(task.opcode, opcode::IDENTIFY | opcode::READ_LOG)
}
