//! An adapter that answers nonsense, as a list of what it does between the calls of the driver: for a fuzzer and a property. Host only.
//!
//! What must hold whatever it does: no panic; no call that goes on for ever; no access to memory that is not the driver's or its user's;
//! and each command that was taken completes once, at the latest when the device is taken away.

use super::super::registers::{self as reg, PortStatus};
use super::super::{Ahci, Options};
use super::{Device, Drive, PORTS, Quirks, Trap};
use crate::disk::{Command, Disk, Event, IoError, Operation, Refusal, Segment, Tag, UnitId};
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::time::Duration;
use split_driver::fakes::device::{Script, scribbler};
use split_driver::fakes::{FakeDma, FakePages, FakeXen};
use split_driver::memory::{DeviceAddress, PageArray};
use split_driver::time::Instant;
use xen_pv_sys::PAGE_SIZE;

/// Actions of an input, at most.
const ACTIONS: usize = 80;
/// Pages of data.
const PAGES: usize = 40;
/// Reads of registers that one call may take: some for each of a port's steps.
const READS: usize = 40 * PORTS;
/// Times that pass, in milliseconds: a register wait, a drive's presence, a look, a lost link's return, a command's patience.
const PAUSES: [u64; 6] = [1, 110, 600, 1_100, 11_000, 31_000];

/// One of the ports.
fn port(input: &mut Script<'_>) -> usize {
    usize::from(input.byte() & 1)
}

struct World {
    xen: FakeXen,
    device: Device,
    disk: Ahci<Device, FakeDma>,
    pages: FakePages,
    now: Instant,
    next: u64,
    outstanding: BTreeSet<u64>,
}

/// One life of a driver with a device that does what `input` says. What was to be seen goes into `seen`.
pub fn run(input: &[u8], seen: &mut Vec<u64>) {
    let mut input = Script::new(input);
    let Some(mut world) = World::new(&mut input) else {
        return;
    };
    for _ in 0..ACTIONS {
        if input.is_over() {
            break;
        }
        world.act(&mut input, seen);
    }
    world.end(input.byte() & 1 != 0, seen);
}

impl World {
    fn new(input: &mut Script<'_>) -> Option<Self> {
        let flags = input.byte();
        let xen = FakeXen::new();
        let device = Device::new(&xen);
        let drive = Drive::new(9, 256).with_queue(if flags & 1 != 0 { 0 } else { 32 });
        device.plug_in(0, if flags & 2 != 0 { drive.without_log() } else { drive });
        device.plug_in(1, Drive::new(12, 32).with_serial(2).with_queue(4));
        if flags & 4 != 0 {
            device.own_by_firmware();
        }
        if flags & 8 != 0 {
            device.set_capabilities(|capabilities| capabilities.with_slots(2));
        }
        let pages = FakePages::new(&xen, PAGES);
        let disk = Ahci::new(device.clone(), device.dma(), Options { stop_reads: 100, ..Options::default() }).ok()?;
        let mut world = Self { xen, device, disk, pages, now: Instant(0), next: 0, outstanding: BTreeSet::new() };
        // Without this bit the start itself is the device's to spoil.
        if flags & 32 == 0 {
            for _ in 0..130 {
                world.now = world.now + Duration::from_millis(1);
                world.poll(&mut Vec::new());
            }
        }
        // It writes between any two looks of its driver, too.
        if flags & 64 != 0 {
            let seed = input.word();
            world.xen.set_peer(Some(scribbler(seed)));
        }
        Some(world)
    }

    fn poll(&mut self, seen: &mut Vec<u64>) {
        self.device.accesses();
        let mut done = Vec::new();
        let stops = self.disk.statistics().resets;
        self.disk.poll(self.now, &mut done);
        for completion in done {
            assert!(self.outstanding.remove(&completion.tag.0), "completed twice, or never taken: {completion:?}");
            seen.push(match completion.result {
                Ok(()) => 1,
                Err(IoError::Device { code }) => 0x1_0000 | u64::from(code >> 8),
                Err(IoError::TimedOut) => 2,
                Err(IoError::Unsupported) => 3,
                Err(IoError::Gone) => 4,
            });
        }
        let mut failed = false;
        while let Some(event) = self.disk.poll_event() {
            seen.push(match event {
                Event::Ready => 10,
                Event::Added(_) => 11,
                Event::Changed(_) => 12,
                Event::Removed(_) => 13,
                Event::Recovering(why) => 0x2_0000 + why.len() as u64,
                Event::Failed(why) => {
                    failed = true;
                    0x3_0000 + why.len() as u64
                }
            });
        }
        let accesses = self.device.accesses();
        // An adapter that is given up is stopped, which has its own bound.
        assert!(failed || accesses.reads <= READS, "{} reads in one call, {stops} resets", accesses.reads);
    }

    fn act(&mut self, input: &mut Script<'_>, seen: &mut Vec<u64>) {
        let action = input.byte() % 22;
        match action {
            0..=3 => self.submit(input, seen),
            4 => self.disk.ring(),
            5 | 6 => self.poll(seen),
            7 => {
                let pause = PAUSES[usize::from(input.byte()) % PAUSES.len()];
                self.now = self.now + Duration::from_millis(pause);
                self.poll(seen);
            }
            8 => self.disk.handle_interrupt(0),
            9 => seen.push(0x200 | u64::from(self.disk.enable_interrupts())),
            // Time passes as its user lets it pass.
            10 | 11 => {
                for _ in 0..input.byte() % 32 {
                    self.poll(seen);
                    if !self.disk.enable_interrupts()
                        && let Some(deadline) = self.disk.deadline()
                    {
                        self.now = self.now.max(deadline);
                    }
                }
            }
            _ => self.misbehave(action, input),
        }
    }

    fn misbehave(&mut self, action: u8, input: &mut Script<'_>) {
        let device = &self.device;
        let port = port(input);
        match action {
            12 => {
                device.work_at(port, usize::from(input.byte()));
            }
            13 => device.forge(port, input.word(), input.word()),
            14 => device.raise(port, PortStatus::from(input.word())),
            15 => device.break_down(port, PortStatus::from(1 << (input.byte() % 32))),
            16 => {
                let registers = [0x10, 0x18, 0x18, 0x20, 0x20, 0x24, 0x28, 0x28, 0x34, 0x38];
                let values = [u32::MAX, 0, 1, 0x80, 0x50, 0x113, 0xC000, 0x101, input.word()];
                let (which, what, keep) = (input.byte(), input.byte(), input.byte());
                let offset = registers[usize::from(which) % registers.len()];
                let value = values[usize::from(what) % values.len()];
                let place = reg::PORTS + port * reg::PORT_BYTES + offset;
                device.set_register(place, (keep & 1 == 0).then_some(value));
            }
            17 => {
                let places = [0, 49, 69, 75, 76, 83, 84, 85, 87, 100, 102, 103, 106, 117, 118, 128, 169, 209];
                let (which, value) = (input.byte(), input.half());
                let at = places.get(usize::from(which)).copied().unwrap_or(usize::from(which));
                device.set_word(port, at, value);
            }
            18 => self.fail(port, input),
            19 => match input.byte() % 6 {
                0 => drop(device.unplug(port)),
                1 => device.plug_in(port, Drive::new(9, 64).with_serial(input.byte() % 4)),
                2 => device.cut_link(port, true),
                3 => device.cut_link(port, false),
                4 => device.resize(port, u64::from(input.byte())),
                _ => device.be_mute(port, input.byte() & 1 != 0),
            },
            20 => {
                let values = [0, u32::MAX, 0x8000_0000, 0x8000_0001, input.word()];
                let (which, what, keep) = (input.byte(), input.byte(), input.byte());
                let value = values[usize::from(what) % values.len()];
                let offset = [0x04, 0x08, 0x08][usize::from(which % 3)];
                device.set_register(offset, (keep & 3 == 0).then_some(value));
            }
            _ => device.fail(port, u64::from(input.byte()), input.byte(), u32::from(input.byte())),
        }
    }

    fn fail(&mut self, port: usize, input: &mut Script<'_>) {
        let device = &self.device;
        match input.byte() % 11 {
            0 => device.be_lazy(true),
            1 => device.be_lazy(false),
            2 => device.be_deaf(port, true),
            3 => device.be_deaf(port, false),
            4 => device.be_busy(port, input.word() >> 8),
            5 => {
                let [a, b, c] = [1, 2, 4].map(|bit| input.byte() & bit != 0);
                device.set_quirks(port, Quirks { forgets_failed: a, hides_queued_errors: b, runs_on: c });
            }
            6 => device.set_trap(port, u64::from(input.byte()), Trap::Silence),
            7 => device.set_trap(port, u64::from(input.byte()), Trap::Break(PortStatus::new().with_link_fatal(true))),
            8 => device.forgive(port),
            9 => device.fail_resets(u32::from(input.byte() % 6)),
            _ => {
                // Seldom, as nothing happens after it.
                if input.byte() < 32 {
                    device.pull_out();
                }
            }
        }
    }

    fn submit(&mut self, input: &mut Script<'_>, seen: &mut Vec<u64>) {
        let (what, sector, length) = (input.byte(), input.byte(), input.byte());
        let operation = match what & 7 {
            0..=2 => Operation::Read,
            3 | 4 => Operation::Write { force_unit_access: what & 8 != 0 },
            5 => Operation::Flush,
            6 => Operation::Discard { secure: what & 8 != 0 },
            _ => Operation::WriteZeroes,
        };
        // Pieces of pages; some of them of an odd shape.
        let mut data = Vec::new();
        let mut sectors = u32::from(length % 64);
        if matches!(operation, Operation::Read | Operation::Write { .. }) {
            let odd = what & 16 != 0;
            let mut left = sectors * 512;
            let mut page = usize::from(input.byte());
            while left > 0 {
                let offset = if odd { u32::from(input.byte() % 8) * 512 } else { 0 };
                let bytes = left.min(PAGE_SIZE as u32 - offset);
                let address = self.pages.frame(page % PAGES).map_or(0, |frame| frame.0) * PAGE_SIZE as u64;
                data.push(Segment { address: DeviceAddress::made_up(address + u64::from(offset)), bytes });
                left -= bytes;
                page += 1;
            }
        } else if operation == Operation::Flush {
            sectors = 0;
        }
        let sector = if what & 32 != 0 { u64::from(sector & !7) } else { u64::from(sector) << (length >> 6 << 4) };
        let unit = UnitId(u16::from(what >> 6));
        let tag = Tag(self.next);
        let taken = self.disk.submit(&Command { unit, operation, sector, sectors, data: &data, tag });
        seen.push(match taken {
            Ok(taken) => {
                assert!(taken <= sectors && (taken > 0) == (sectors > 0), "{taken} of {sectors} sectors taken");
                self.outstanding.insert(self.next);
                self.next += 1;
                0x40 + u64::from(taken == sectors)
            }
            Err(Refusal::Full) => 0x30,
            Err(Refusal::NoUnit) => 0x31,
            Err(Refusal::Unsupported) => 0x32,
            Err(Refusal::Malformed) => 0x33,
        });
    }

    /// The device is stopped or taken away, and all ends.
    fn end(mut self, stopped: bool, seen: &mut Vec<u64>) {
        if stopped {
            self.disk.quiesce();
            self.poll(seen);
        }
        let removed = !stopped || !self.outstanding.is_empty();
        if removed {
            self.device.pull_out();
            self.disk.remove(self.device.dma().closed());
        }
        self.poll(seen);
        assert!(self.outstanding.is_empty(), "commands are lost: {:?}", self.outstanding);
        assert_eq!(self.disk.deadline(), None);
        assert_eq!(self.disk.units(), []);
        let statistics = self.disk.statistics();
        let counts =
            [statistics.nonsense, statistics.errors, statistics.retries, statistics.timeouts, statistics.resets];
        for (place, count) in (0u64..).zip(counts) {
            seen.push(0x1000 | place << 8 | u64::from(u64::BITS - count.leading_zeros()));
        }
        drop(self.disk);
        assert_eq!(self.xen.take_violations(), [], "memory of others was touched");
        drop(self.pages);
        // What the device does not say that it has let go of is lost until it is taken away.
        assert!(!removed || self.xen.live().local_regions == 0);
    }
}
