//! A device that answers nonsense, as a list of what it does between the calls of the driver: for the fuzzer and a property. Host only.
//!
//! What must hold whatever it does: no panic; no call that goes on for ever; no access to memory that is not the driver's or its user's;
//! and each command that was taken completes once, at the latest when the device is taken away.

use super::super::command::{Status, cns};
use super::super::{Interrupts, Nvme, Options};
use super::{Device, Medium};
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
/// Reads of registers that one call may take: it looks at two of them.
const READS: usize = 8;
/// Times that pass, in milliseconds: a register wait, a look, an Abort's patience, a command's.
const PAUSES: [u64; 6] = [1, 20, 300, 1_100, 6_000, 31_000];

struct World {
    xen: FakeXen,
    device: Device,
    disk: Nvme<Device, FakeDma>,
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
        device.set_transfer_limit(flags & 3);
        if flags & 4 != 0 {
            device.use_single_interrupt();
        }
        if flags & 8 != 0 {
            device.set_version(0x0001_0000);
        }
        device.insert(1, Medium::new(9, 256));
        device.insert(2, Medium::new(12, 32));
        let interrupts = if flags & 4 != 0 { Interrupts::Single } else { Interrupts::MsiX(2) };
        let options = Options { depth: if flags & 16 != 0 { 4 } else { 16 }, ..Options::default() };
        let pages = FakePages::new(&xen, PAGES);
        let disk = Nvme::new(device.clone(), device.dma(), interrupts, options).ok()?;
        let mut world = Self { xen, device, disk, pages, now: Instant(0), next: 0, outstanding: BTreeSet::new() };
        // Without this bit the start itself is the device's to spoil.
        if flags & 32 == 0 {
            for _ in 0..60 {
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
        while let Some(event) = self.disk.poll_event() {
            seen.push(match event {
                Event::Ready => 10,
                Event::Added(_) => 11,
                Event::Changed(_) => 12,
                Event::Removed(_) => 13,
                Event::Recovering(why) => 0x2_0000 + why.len() as u64,
                Event::Failed(why) => 0x3_0000 + why.len() as u64,
            });
        }
        let accesses = self.device.accesses();
        assert!(accesses.reads <= READS, "{} reads of registers in one call", accesses.reads);
    }

    fn act(&mut self, input: &mut Script<'_>, seen: &mut Vec<u64>) {
        let action = input.byte() % 20;
        match action {
            0..=3 => self.submit(input, seen),
            4 => self.disk.ring(),
            5 | 6 => self.poll(seen),
            7 => {
                let pause = PAUSES[usize::from(input.byte()) % PAUSES.len()];
                self.now = self.now + Duration::from_millis(pause);
                self.poll(seen);
            }
            8 => {
                self.disk.handle_interrupt(usize::from(input.byte()));
            }
            9 => seen.push(0x200 | u64::from(self.disk.enable_interrupts())),
            // Time passes as its user lets it pass.
            10 => {
                for _ in 0..input.byte() % 16 {
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
        match action {
            11 => device.work(usize::from(input.byte() % 8)),
            12 => {
                device.work_at(usize::from(input.byte()));
            }
            13 | 14 => {
                // Mostly a command that there is, with something wrong about it or its answer.
                let (queue, id) = device.unanswered(usize::from(input.byte() % 8)).unwrap_or((1, input.half()));
                let (wrong, status, head) = (input.byte(), input.half(), input.byte());
                let id = if wrong & 1 != 0 { id ^ input.half() } else { id };
                let owner = if wrong & 2 != 0 { input.half() } else { queue };
                let status = if wrong & 4 != 0 { u32::from(status) } else { 0 };
                let words = [input.word(), 0, u32::from(owner) << 16 | u32::from(head), status << 16 | u32::from(id)];
                if wrong & 8 != 0 {
                    device.scribble(queue, input.half(), words);
                } else {
                    device.forge(queue, words);
                }
            }
            15 => {
                let registers = [0x00, 0x04, 0x08, 0x14, 0x1C, 0x1C, 0x1C, 0x1C];
                let values = [u32::MAX, 0, 1, 2, 3, 0xC, input.word(), 0x10];
                let (which, what) = (input.byte(), input.byte());
                let value = values[usize::from(what) % values.len()];
                device.set_register(registers[usize::from(which) % registers.len()], value, u32::from(input.half()));
            }
            16 => {
                let structures = [cns::NAMESPACE, cns::CONTROLLER, cns::ACTIVE_NAMESPACES, cns::COMMAND_SET_CONTROLLER];
                let places = [0u16, 7, 24, 25, 26, 29, 64, 77, 104, 111, 128, 130, 516, 520];
                let (which, place) = (input.byte(), input.byte());
                let known = places.get(usize::from(place)).copied();
                let at = known.unwrap_or_else(|| input.half() % 4096);
                let bytes = input.word().to_le_bytes();
                device.patch(structures[usize::from(which) % structures.len()], usize::from(at), &bytes);
            }
            17 => self.fail(input),
            18 => {
                let (what, number) = (input.byte(), u32::from(input.byte() % 6));
                match what % 4 {
                    0 => device.take_out(number),
                    1 => device.resize(number, u64::from(input.byte())),
                    2 => device.insert(number, Medium::new(9 + what / 4 % 5, 64).with_identity(input.byte() % 4)),
                    _ => {
                        device.send_event(input.word());
                    }
                }
            }
            _ => {
                let status = Status::from_bits(input.half());
                device.fail(1, u64::from(input.byte()), status, u32::from(input.byte()));
            }
        }
    }

    fn fail(&mut self, input: &mut Script<'_>) {
        let device = &self.device;
        match input.byte() % 10 {
            0 => device.be_lazy(true),
            1 => device.be_lazy(false),
            2 => device.be_deaf(true),
            3 => device.be_deaf(false),
            4 => device.ignore_admin(true),
            5 => device.ignore_admin(false),
            6 => device.be_unabortable(),
            7 => device.fail_fatally(),
            8 => device.fail_starts(u32::from(input.byte() % 6)),
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
        let counts = [statistics.nonsense, statistics.retries, statistics.aborts, statistics.resets];
        for (place, count) in (0u64..).zip(counts) {
            seen.push(0x1000 | place << 8 | u64::from(u64::BITS - count.leading_zeros()));
        }
        drop(self.disk);
        self.device.work(usize::MAX);
        assert_eq!(self.xen.take_violations(), [], "memory of others was touched");
        drop(self.pages);
        // What the device does not say that it has let go of is lost until it is taken away.
        assert!(!removed || self.xen.live().local_regions == 0);
    }
}
