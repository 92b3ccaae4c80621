//! Random commands, carried out in any order and through faults and resets, against a flat image of what the medium should hold.

use super::command::Status;
use super::model::{Device, Medium};
use super::*;
use crate::disk::{Operation, Segment, Tag, UnitId};
use alloc::vec;
use proptest::prelude::*;
use split_driver::fakes::{FakeDma, FakePages, FakeXen};
use split_driver::memory::{DeviceAddress, PageArray};

/// Sectors of the medium, in eight parts that commands have to themselves: two in flight upon the same sectors have no order.
const SECTORS: u64 = 2048;
const PARTS: u64 = 8;
const PART: u64 = SECTORS / PARTS;
/// Pages of a part's memory: one more than a command upon all of it needs.
const PAGES: usize = PART as usize / 8 + 1;

#[derive(Clone, Debug)]
struct Step {
    part: u64,
    operation: u8,
    first: u64,
    sectors: u64,
    /// Where the first segment begins in its page, and what of a page is used by the others.
    offset: u64,
    gap: u64,
    /// Commands that the device carries out before the next step, each from this place on.
    work: usize,
    place: usize,
    fault: u8,
    value: u8,
}

fn step() -> impl Strategy<Value = Step> {
    let shape = (0..PARTS, 0u8..8, 0..PART / 8, 1..PART / 8, 0u64..8, 0u64..8);
    (shape, 0usize..6, 0usize..8, 0u8..40, any::<u8>()).prop_map(|(shape, work, place, fault, value)| {
        let (part, operation, first, length, offset, gap) = shape;
        let first = first * 8;
        let sectors = (length * 8).min(PART - first);
        let gap = if gap < 6 { 0 } else { gap - 5 };
        Step {
            part,
            operation,
            first,
            sectors,
            offset: if gap == 0 { offset } else { 0 },
            gap,
            work,
            place,
            fault,
            value,
        }
    })
}

/// What is on its way in a part.
struct Job {
    read: bool,
    first: u64,
    sectors: u64,
    segments: Vec<Segment>,
    left: usize,
}

struct World {
    disk: Nvme<Device, FakeDma>,
    device: Device,
    xen: FakeXen,
    pages: Vec<FakePages>,
    jobs: [Option<Job>; PARTS as usize],
    image: Vec<u8>,
    now: Instant,
}

impl World {
    fn new(shift: u8, transfer_shift: u8) -> Self {
        let xen = FakeXen::new();
        let device = Device::new(&xen);
        device.set_transfer_limit(transfer_shift);
        device.insert(1, Medium::new(shift, SECTORS >> (shift - 9)));
        let disk = Nvme::new(device.clone(), device.dma(), Interrupts::MsiX(2), Options::default()).expect("taken");
        let pages = (0..PARTS).map(|_| FakePages::new(&xen, PAGES * 2)).collect();
        let image = vec![0; SECTORS as usize * 512];
        let mut world = Self { disk, device, xen, pages, jobs: Default::default(), image, now: Instant(0) };
        world.settle();
        world.device.be_lazy(true);
        world
    }

    /// Everything comes to its end.
    fn settle(&mut self) {
        self.device.be_lazy(false);
        for _ in 0..1000 {
            self.device.work(usize::MAX);
            self.poll();
            match self.disk.deadline() {
                _ if self.disk.enable_interrupts() => {}
                Some(deadline) => self.now = self.now.max(deadline),
                None => return,
            }
        }
        panic!("never at rest");
    }

    fn poll(&mut self) {
        let mut done = Vec::new();
        self.disk.poll(self.now, &mut done);
        for completion in done {
            assert_eq!(completion.result, Ok(()));
            let part = completion.tag.0 as usize;
            let job = self.jobs[part].as_mut().expect("a command that was submitted");
            job.left -= 1;
            if job.left == 0 {
                let job = self.jobs[part].take().expect("a job");
                self.check(part, &job);
            }
        }
    }

    /// What was read is what the image holds.
    fn check(&self, part: usize, job: &Job) {
        if !job.read {
            return;
        }
        let mut at = (part as u64 * PART + job.first) as usize * 512;
        let base = self.pages[part].frame(0).expect("a page").0 * PAGE_SIZE as u64;
        for segment in &job.segments {
            let mut bytes = vec![0; segment.bytes as usize];
            let place = (segment.address.get() - base) as usize;
            assert!(self.pages[part].read(place / PAGE_SIZE, place % PAGE_SIZE, &mut bytes));
            assert!(bytes == self.image[at..at + bytes.len()], "part {part}, byte {at}");
            at += bytes.len();
        }
        assert_eq!(at, (part as u64 * PART + job.first + job.sectors) as usize * 512);
    }

    fn segments(&self, step: &Step) -> Vec<Segment> {
        let base = self.pages[step.part as usize].frame(0).expect("a page").0 * PAGE_SIZE as u64;
        let mut segments = Vec::new();
        let mut left = step.sectors * 512;
        let mut at = base + step.offset * 512;
        while left > 0 {
            let room = PAGE_SIZE as u64 - at % PAGE_SIZE as u64;
            // A gap at the end of each page: no two can be named together.
            let bytes = left.min(room - (step.gap * 512).min(room - 512));
            segments.push(Segment { address: DeviceAddress::made_up(at), bytes: bytes as u32 });
            left -= bytes;
            at += room;
        }
        segments
    }

    fn step(&mut self, step: &Step) {
        let part = step.part as usize;
        // A gap leaves less than a block of 4 KiB.
        let large = self.disk.units()[0].geometry.logical_block > 512;
        if self.jobs[part].is_none() && !(large && step.gap > 0) {
            // Fewer times than the driver tries.
            let status = Status::new().with_kind(2).with_code(0x81).with_delay(step.fault & 3);
            let block = (step.part * PART + step.first) * 512 / u64::from(self.disk.units()[0].geometry.logical_block);
            if (5..10).contains(&step.fault) {
                self.device.forgive();
                self.device.fail(1, block, status, 4);
            }
            self.begin(part, step);
        }
        match step.fault {
            0 => self.device.fail_fatally(),
            1 => self.device.be_deaf(true),
            2..=4 => self.device.be_deaf(false),
            11 => self.now = self.now + Duration::from_secs(7),
            _ => {}
        }
        for _ in 0..step.work {
            self.device.work_at(step.place % self.device.waiting().max(1));
        }
        self.poll();
    }

    fn begin(&mut self, part: usize, step: &Step) {
        let from = (step.part * PART + step.first) as usize * 512;
        let bytes = from..from + step.sectors as usize * 512;
        let segments = self.segments(step);
        let (operation, moves) = match step.operation {
            0..=2 => (Operation::Read, true),
            3..=5 => (Operation::Write { force_unit_access: step.operation == 5 }, true),
            6 => (Operation::Discard { secure: false }, false),
            _ => (Operation::WriteZeroes, false),
        };
        let mut sector = step.part * PART + step.first;
        let end = sector + step.sectors;
        let mut rest = if moves { segments.clone() } else { Vec::new() };
        let mut parts = 0;
        if matches!(operation, Operation::Write { .. }) {
            self.fill(part, step.value, &segments);
        }
        while sector < end {
            let tag = Tag(part as u64);
            let sectors = (end - sector) as u32;
            match self.disk.submit(&Command { unit: UnitId(0), operation, sector, sectors, data: &rest, tag }) {
                Ok(taken) => {
                    sector += u64::from(taken);
                    parts += 1;
                    if moves {
                        drop_front(&mut rest, taken * 512);
                    }
                }
                Err(Refusal::Full) if parts == 0 => return,
                Err(Refusal::Full) => {
                    // The rest of it when there is room: here, when all that is in flight is done.
                    let job = Job { read: false, first: 0, sectors: 0, segments: Vec::new(), left: parts + 1 };
                    self.jobs[part] = Some(job);
                    let deaf_no_more = self.device.clone();
                    deaf_no_more.be_deaf(false);
                    self.settle();
                    self.device.be_lazy(true);
                    parts = 0;
                }
                Err(refusal) => panic!("{step:?}: {refusal:?}"),
            }
        }
        self.disk.ring();
        let image = &mut self.image[bytes];
        match operation {
            Operation::Read => {}
            Operation::Write { .. } => {
                for (place, byte) in image.iter_mut().enumerate() {
                    *byte = pattern(step.value, place);
                }
            }
            _ => image.fill(0),
        }
        let read = operation == Operation::Read;
        self.jobs[part] = Some(Job { read, first: step.first, sectors: step.sectors, segments, left: parts });
    }

    fn fill(&self, part: usize, value: u8, segments: &[Segment]) {
        let base = self.pages[part].frame(0).expect("a page").0 * PAGE_SIZE as u64;
        let mut place = 0;
        for segment in segments {
            let bytes: Vec<u8> = (place..place + segment.bytes as usize).map(|place| pattern(value, place)).collect();
            let at = (segment.address.get() - base) as usize;
            assert!(self.pages[part].write(at / PAGE_SIZE, at % PAGE_SIZE, &bytes));
            place += bytes.len();
        }
    }
}

fn pattern(value: u8, place: usize) -> u8 {
    (place / 512) as u8 ^ value.wrapping_mul(31) ^ place as u8
}

/// Takes `bytes` off the front.
fn drop_front(segments: &mut Vec<Segment>, mut bytes: u32) {
    while let Some(first) = segments.first_mut().filter(|_| bytes > 0) {
        let taken = first.bytes.min(bytes);
        bytes -= taken;
        first.address = DeviceAddress::made_up(first.address.get() + u64::from(taken));
        first.bytes -= taken;
        if first.bytes == 0 {
            segments.remove(0);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_medium_holds_what_was_written(
        large in any::<bool>(),
        transfer_shift in 0u8..5,
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(if large { 12 } else { 9 }, transfer_shift);
        let steps: Vec<Step> = steps;
        for step in &steps {
            world.step(step);
        }
        world.device.be_deaf(false);
        world.settle();
        prop_assert!(world.jobs.iter().all(Option::is_none));
        let (data, _) = world.device.contents(1).expect("the namespace");
        prop_assert!(data == world.image, "the medium differs");
        world.disk.quiesce();
        prop_assert_eq!(world.device.misuse(), Vec::<&str>::new());
        drop(world.disk);
        prop_assert_eq!(world.xen.take_violations(), []);
    }
}
