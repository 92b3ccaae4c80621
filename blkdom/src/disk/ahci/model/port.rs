//! The model's ports: registers, command lists, links. Host only.

use super::super::command::{FIS_WORDS, Task, opcode};
use super::super::registers::{self as reg, LinkControl, LinkStatus, PortCommand, PortReg, PortStatus, detection};
use super::Fetched;
use super::drive::{Drive, READY, REFUSED, Trap};
use alloc::collections::VecDeque;
use alloc::vec;
use alloc::vec::Vec;
use split_driver::fakes::FakeXen;

/// PxTFD of a port that has not heard of its drive yet.
const UNKNOWN: u32 = 0x7F;
/// PxSERR.DIAG.X: something was plugged in; DIAG.N: the link changed.
const PLUGGED: u32 = 1 << 26;
const CHANGED: u32 = 1 << 16;

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
    pub(super) inbox: VecDeque<Fetched>,
    /// An error stopped the list.
    halted: bool,
    pub(super) quirks: Quirks,
}

impl Port {
    /// What a reset of the adapter leaves.
    pub(super) fn reset(&mut self) {
        let (drive, unlinked, mute, quirks) = (self.drive.take(), self.unlinked, self.mute, self.quirks);
        *self = Self { drive, unlinked, mute, quirks, signature: u32::MAX, task_file: UNKNOWN, ..Self::default() };
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

    /// The link goes.
    pub(super) fn disconnect(&mut self) {
        self.link = LinkStatus::new();
        self.error |= CHANGED;
        self.task_file = UNKNOWN;
        self.inbox.clear();
    }

    /// The link is (again) what the drive makes it.
    pub(super) fn reconnect(&mut self) {
        self.inbox.clear();
        self.connect();
    }

    /// PxIS.
    pub(super) fn status(&self) -> u32 {
        let connected = PortStatus::new().with_connected(self.error & PLUGGED != 0);
        let status = connected.with_link_changed(self.error & CHANGED != 0);
        self.status | u32::from(status)
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
        self.inbox.clear();
    }

    pub(super) fn read(&mut self, offset: usize) -> u32 {
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
            let quirk = self.quirks.runs_on;
            let running = self.command.start() || (quirk && self.command.running());
            self.command = self.command.with_running(running).with_receiving(self.command.receive());
            self.command.into()
        } else if offset == reg::PX_TFD.offset() {
            match self.drive.as_mut().filter(|drive| drive.busy > 0) {
                Some(drive) => {
                    drive.busy -= 1;
                    0x80
                }
                None => self.task_file,
            }
        } else if offset == reg::PX_SSTS.offset() {
            self.link.into()
        } else if offset == reg::PX_SCTL.offset() {
            self.control.into()
        } else {
            0
        }
    }

    pub(super) fn write(&mut self, xen: &FakeXen, offset: usize, value: u32, misuse: &mut Vec<&'static str>) {
        let high = |address: u64, high: u32| address & 0xFFFF_FFFF | u64::from(high) << 32;
        let low = |address: u64, low: u32| address & !0xFFFF_FFFF | u64::from(low);
        let is = |register: PortReg<u32>| register.offset() == offset;
        let addresses = [reg::PX_CLB, reg::PX_FB].iter().any(|base| is(base.low()) || is(base.high()));
        if addresses && (self.command.start() || self.command.receive()) {
            misuse.push("addresses changed while the port works");
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
                misuse.push("tags that are in use, or of a port that is stopped");
            }
            self.active |= value;
        } else if is(reg::PX_CI) {
            self.issue(xen, value, misuse);
        } else {
            misuse.push("a write to a port's register that cannot be written");
        }
    }

    fn set_command(&mut self, command: PortCommand, misuse: &mut Vec<&'static str>) {
        let before = self.command;
        if command.start() && !before.start() {
            if !before.receive() || self.link.detection() != detection::LINK || self.task_file & 0x88 != 0 {
                misuse.push("a list started without a drive that is ready, or without receiving");
            }
            if !self.list.is_multiple_of(1024) || !self.received.is_multiple_of(256) {
                misuse.push("a command list or received FISes off their alignment");
            }
        }
        if !command.start() && before.start() && !self.quirks.runs_on {
            (self.issued, self.active, self.halted) = (0, 0, false);
            self.inbox.clear();
        }
        if !command.receive() && before.running() && before.start() {
            misuse.push("no receiving while the list is worked on");
        }
        let running = command.start() || (self.quirks.runs_on && before.running());
        self.command = command.with_running(running).with_receiving(command.receive()).with_link_power(0);
    }

    fn set_control(&mut self, control: LinkControl, misuse: &mut Vec<&'static str>) {
        if control.detection() == detection::RESET {
            if self.command.start() {
                misuse.push("COMRESET while the list is worked on");
            }
            self.link = LinkStatus::new();
            (self.task_file, self.signature) = (UNKNOWN, u32::MAX);
            self.inbox.clear();
        } else if self.control.detection() == detection::RESET {
            self.connect();
        }
        self.control = control;
    }

    fn issue(&mut self, xen: &FakeXen, slots: u32, misuse: &mut Vec<&'static str>) {
        if !self.command.start() || !self.command.receive() {
            misuse.push("a command to a port that is stopped");
            return;
        }
        if self.issued & slots != 0 {
            misuse.push("a slot that is in use");
        }
        self.issued |= slots;
        if self.halted || self.link.detection() != detection::LINK {
            // The driver cannot know yet: the command stays on the list.
            return;
        }
        for slot in (0..32u8).filter(|slot| slots >> slot & 1 != 0) {
            match self.fetch(xen, slot, misuse) {
                Some(fetched) => {
                    let queued = fetched.task.is_queued();
                    if self.inbox.iter().any(|other| !(queued && other.task.is_queued())) {
                        misuse.push("an unqueued command beside others");
                    }
                    if queued {
                        self.issued &= !(1 << slot);
                    }
                    self.inbox.push_back(fetched);
                }
                None => misuse.push("a slot without a command"),
            }
        }
    }

    /// Reads a command, checked as AHCI 4.2 has it.
    fn fetch(&self, xen: &FakeXen, slot: u8, misuse: &mut Vec<&'static str>) -> Option<Fetched> {
        let header: [u32; 4] = words(xen, self.list + u64::from(slot) * 32);
        let [flags, _, low, high] = header;
        let table = u64::from(high) << 32 | u64::from(low);
        let task = Task::parse(words::<FIS_WORDS>(xen, table))?;
        if flags & 0x1F != 5 || table % 128 != 0 || flags & 0xFFA0 != 0 {
            misuse.push("a command header that is none");
        }
        if (flags & 1 << 6 != 0) != task.is_write() {
            misuse.push("a command header that says the wrong direction");
        }
        let tag_fits = task.count == u16::from(slot) << 3 && self.active >> slot & 1 != 0;
        if task.is_queued() && !tag_fits {
            misuse.push("a queued command without its tag");
        }
        if !task.is_queued() && self.active != 0 {
            misuse.push("an unqueued command beside queued ones");
        }
        let pieces = (0..u64::from(flags >> 16)).map(|place| {
            let [low, high, _, count] = words(xen, table + 0x80 + place * 16);
            (u64::from(high) << 32 | u64::from(low), (count & 0x3F_FFFF) as usize + 1)
        });
        let pieces: Vec<_> = pieces.collect();
        if pieces.iter().any(|(address, bytes)| address % 2 != 0 || bytes % 2 != 0) {
            misuse.push("an entry of a memory list off its alignment");
        }
        Some(Fetched { slot, task, pieces })
    }

    /// Carries out the command at a place among those read. False where there is none.
    pub(super) fn work_at(&mut self, xen: &FakeXen, place: usize, misuse: &mut Vec<&'static str>) -> bool {
        let Some(drive) = self.drive.as_mut().filter(|drive| !drive.deaf && !self.halted) else {
            return false;
        };
        let Some(fetched) = self.inbox.remove(place) else {
            return false;
        };
        let (task, bit) = (fetched.task, 1 << fetched.slot);
        match drive.trap(&task) {
            Some(Trap::Silence) => return true,
            Some(Trap::Break(status)) => {
                self.fail(status);
                return true;
            }
            None => {}
        }
        match drive.execute(xen, &fetched, misuse) {
            Ok(()) if task.is_queued() => {
                self.active &= !bit;
                self.task_file = READY;
                self.answer(xen, 0x58, PortStatus::new().with_device_bits(true));
            }
            Ok(()) => {
                self.issued &= !bit;
                self.task_file = READY;
                let data_in = matches!(task.opcode, opcode::IDENTIFY | opcode::READ_LOG);
                let status = PortStatus::new().with_registers(!data_in).with_pio_setup(data_in);
                self.answer(xen, if data_in { 0x20 } else { 0x40 }, status);
            }
            Err(error) => {
                if task.is_queued() {
                    drive.failed = Some((fetched.slot, error));
                } else if self.quirks.forgets_failed {
                    self.issued &= !bit;
                }
                self.task_file = REFUSED | u32::from(error) << 8;
                let hidden = task.is_queued() && self.quirks.hides_queued_errors;
                let status = PortStatus::new().with_device_bits(task.is_queued()).with_registers(!task.is_queued());
                self.answer(xen, 0x58, status.with_task_file(!hidden));
                self.inbox.clear();
                self.halted = true;
            }
        }
        true
    }

    /// Writes a FIS where received ones go, and notes the interrupt.
    fn answer(&mut self, xen: &FakeXen, place: u64, status: PortStatus) {
        xen.device_write(self.received + place, &[0xA5; 8]);
        self.raise(status);
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

/// Words of the driver's memory.
fn words<const N: usize>(xen: &FakeXen, address: u64) -> [u32; N] {
    let mut bytes = vec![0; N * 4];
    xen.device_read(address, &mut bytes);
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}
