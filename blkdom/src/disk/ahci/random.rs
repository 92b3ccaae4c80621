//! Random commands, carried out in any order and through errors, resets and lost links, against a flat image of what the drive should
//! hold.

use super::model::{Device, Drive};
use super::registers::PortStatus;
use super::*;
use crate::disk::{IoError, Operation, Segment, Tag};
use alloc::vec;
use proptest::prelude::*;
use split_driver::fakes::{FakeDma, FakePages, FakeXen};
use split_driver::memory::{DeviceAddress, PageArray};
use xen_pv_sys::PAGE_SIZE;

/// Sectors of the drive, in eight parts that commands have to themselves: two in flight upon the same sectors have no order.
const SECTORS: u64 = 2048;
const PARTS: usize = 8;
const PART: u64 = SECTORS / PARTS as u64;
/// Pages of a part's memory: twice what a command upon all of it needs, as every second is left out at times.
const PAGES: usize = PART as usize / 8 * 2;
/// What memory holds that no command has.
const IDLE: u8 = 0xEE;
const PORT: usize = 2;
/// An error register: uncorrectable; garbled by the link.
const UNCORRECTABLE: u8 = 0x40;
const GARBLED: u8 = 0x84;

#[derive(Clone, Debug)]
struct Step {
    part: usize,
    operation: u8,
    first: u64,
    sectors: u64,
    /// Pages lie side by side, or every second is used; or half of each.
    layout: u8,
    /// Commands that the drive carries out before the next step, each from this place on.
    work: usize,
    place: usize,
    fault: u8,
    value: u8,
}

fn step() -> impl Strategy<Value = Step> {
    let shape = (0..PARTS, 0u8..9, 0..PART / 8, 1..PART / 8, 0u8..3);
    (shape, 0usize..6, 0usize..8, 0u8..30, any::<u8>()).prop_map(|(shape, work, place, fault, value)| {
        let (part, operation, first, length, layout) = shape;
        let first = first * 8;
        Step { part, operation, first, sectors: (length * 8).min(PART - first), layout, work, place, fault, value }
    })
}

/// What is on its way in a part.
struct Job {
    operation: Operation,
    first: u64,
    segments: Vec<Segment>,
    left: usize,
    /// It meets a block that cannot be read.
    bad: bool,
}

struct World {
    disk: Ahci<Device, FakeDma>,
    device: Device,
    xen: FakeXen,
    pages: Vec<FakePages>,
    jobs: [Option<Job>; PARTS],
    image: Vec<u8>,
    now: Instant,
    /// Points that a command may have by now.
    points: u8,
}

impl World {
    fn new(drive: Drive) -> Self {
        let xen = FakeXen::new();
        let device = Device::new(&xen);
        device.plug_in(PORT, drive);
        let disk = Ahci::new(device.clone(), device.dma(), Options::default()).expect("taken");
        let pages: Vec<_> = (0..PARTS).map(|_| FakePages::new(&xen, PAGES)).collect();
        let image = vec![0; SECTORS as usize * 512];
        let mut world = Self { disk, device, xen, pages, jobs: Default::default(), image, now: Instant(0), points: 0 };
        world.settle();
        (0..PARTS).for_each(|part| world.clear(part));
        world
    }

    /// Everything comes to its end.
    fn settle(&mut self) {
        self.device.be_lazy(false);
        for _ in 0..10_000 {
            self.poll();
            match self.disk.deadline() {
                _ if self.disk.enable_interrupts() => {}
                Some(deadline) => self.now = self.now.max(deadline),
                None => {
                    // A fault that no command met would give a later one a point more than `disturb` counts.
                    self.device.forgive(PORT);
                    self.points = 0;
                    self.device.be_lazy(true);
                    return;
                }
            }
        }
        panic!("never at rest");
    }

    fn poll(&mut self) {
        let mut done = Vec::new();
        self.disk.poll(self.now, &mut done);
        for completion in done {
            let part = completion.tag.0 as usize;
            let job = self.jobs[part].as_mut().expect("a command that was submitted");
            let bad = Err(IoError::Device { code: 0x5100 | u32::from(UNCORRECTABLE) });
            assert!(completion.result == Ok(()) || (job.bad && completion.result == bad), "{completion:?}");
            job.left -= 1;
            if job.left == 0 {
                let job = self.jobs[part].take().expect("a job");
                self.check(part, &job);
                self.clear(part);
            }
        }
    }

    fn at(&self, part: usize, segment: &Segment) -> (usize, usize) {
        let base = self.pages[part].frame(0).expect("a page").0 * PAGE_SIZE as u64;
        let at = (segment.address.get() - base) as usize;
        (at / PAGE_SIZE, at % PAGE_SIZE)
    }

    /// What was read is what the image holds.
    fn check(&self, part: usize, job: &Job) {
        if job.operation != Operation::Read || job.bad {
            return;
        }
        let mut at = (part as u64 * PART + job.first) as usize * 512;
        for segment in &job.segments {
            let mut bytes = vec![0; segment.bytes as usize];
            let (page, offset) = self.at(part, segment);
            assert!(self.pages[part].read(page, offset, &mut bytes));
            assert!(bytes == self.image[at..at + bytes.len()], "part {part}, byte {at}");
            at += bytes.len();
        }
    }

    fn clear(&self, part: usize) {
        for page in 0..PAGES {
            assert!(self.pages[part].write(page, 0, &[IDLE; PAGE_SIZE]));
        }
    }

    /// Memory that was given back is not touched.
    fn check_idle(&self) {
        for part in (0..PARTS).filter(|part| self.jobs[*part].is_none()) {
            // Sectors are written as a whole: some bytes of each page are enough.
            for (page, offset) in (0..PAGES).flat_map(|page| [(page, 0), (page, PAGE_SIZE / 2), (page, PAGE_SIZE - 8)])
            {
                let mut bytes = [0; 8];
                assert!(self.pages[part].read(page, offset, &mut bytes));
                assert!(bytes == [IDLE; 8], "page {page} of part {part} was written late");
            }
        }
    }

    fn segments(&self, step: &Step, block: u64) -> Vec<Segment> {
        let base = self.pages[step.part].frame(0).expect("a page").0 * PAGE_SIZE as u64;
        let (stride, piece) = match step.layout {
            0 => (PAGE_SIZE as u64, PAGE_SIZE as u64),
            1 => (2 * PAGE_SIZE as u64, PAGE_SIZE as u64),
            _ => (PAGE_SIZE as u64, block.min(PAGE_SIZE as u64 / 2)),
        };
        let bytes = step.sectors * 512;
        let most = (PAGES * PAGE_SIZE) as u64 / stride;
        let count = bytes.div_ceil(piece).min(most);
        let segment = |index: u64| Segment {
            address: DeviceAddress::made_up(base + index * stride),
            bytes: (bytes - index * piece).min(piece) as u32,
        };
        (0..count).map(segment).collect()
    }

    fn step(&mut self, step: &Step) {
        if self.jobs[step.part].is_none() {
            self.begin(step);
        }
        self.disturb(step);
        for _ in 0..step.work {
            self.device.work_at(PORT, step.place % self.device.waiting(PORT).max(1));
        }
        self.poll();
        self.check_idle();
    }

    /// Each of these costs a command a point at most, and four are too many.
    fn disturb(&mut self, step: &Step) {
        if step.fault > 6 {
            return;
        }
        if self.points == 2 {
            self.settle();
        }
        self.points += 1;
        match step.fault {
            0 => self.device.break_down(PORT, PortStatus::new().with_link_fatal(true)),
            1 => self.device.break_down(PORT, PortStatus::new().with_bus_data(true)),
            2 => {
                self.device.cut_link(PORT, true);
                self.device.cut_link(PORT, false);
            }
            3 => {
                self.device.cut_link(PORT, true);
                self.poll();
                self.now = self.now + Duration::from_secs(3);
                self.poll();
                self.device.cut_link(PORT, false);
            }
            4 => {
                let block = (step.part as u64 * PART + step.first) * 512 / u64::from(self.block());
                self.device.fail(PORT, block, GARBLED, 1);
            }
            _ => self.now = self.now + Duration::from_millis(700),
        }
    }

    fn block(&self) -> u32 {
        self.disk.units()[0].geometry.logical_block
    }

    fn begin(&mut self, step: &Step) {
        let start = step.part as u64 * PART + step.first;
        let (operation, moves) = match step.operation {
            0..=2 => (Operation::Read, true),
            3..=5 => (Operation::Write { force_unit_access: step.operation == 5 }, true),
            6 => (Operation::Flush, false),
            _ => (Operation::Discard { secure: false }, false),
        };
        let segments = if moves { self.segments(step, u64::from(self.block())) } else { Vec::new() };
        let carried: u64 = segments.iter().map(|segment| u64::from(segment.bytes) / 512).sum();
        let sectors = if moves { carried } else { step.sectors };
        let bad = moves && operation == Operation::Read && (7..10).contains(&step.fault);
        if matches!(operation, Operation::Write { .. }) {
            self.fill(step, &segments);
        }
        let mut job = Job { operation, first: step.first, segments: segments.clone(), left: 0, bad };
        let (mut sector, mut rest) = (start, segments);
        loop {
            let left = if operation == Operation::Flush { 0 } else { (start + sectors - sector) as u32 };
            let command =
                Command { unit: UnitId(0), operation, sector, sectors: left, data: &rest, tag: Tag(step.part as u64) };
            match self.disk.submit(&command) {
                Ok(taken) => {
                    job.left += 1;
                    sector += u64::from(taken);
                    drop_front(&mut rest, if moves { taken * 512 } else { 0 });
                }
                Err(Refusal::Full) if job.left == 0 => return self.clear(step.part),
                // A part that does not fit is left out: it was not written.
                Err(Refusal::Full) => break,
                Err(refusal) => panic!("{step:?}: {refusal:?}"),
            }
            if operation == Operation::Flush || sector == start + sectors {
                break;
            }
        }
        if bad {
            self.device.fail(PORT, start * 512 / u64::from(self.block()), UNCORRECTABLE, 1);
        }
        self.disk.ring();
        let image = &mut self.image[start as usize * 512..sector as usize * 512];
        match operation {
            Operation::Write { .. } => {
                for (place, byte) in image.iter_mut().enumerate() {
                    *byte = pattern(step.value, place);
                }
            }
            Operation::Discard { .. } => image.fill(0),
            _ => {}
        }
        if operation == Operation::Read {
            // What was left out was not read either.
            let mut surplus = (start + sectors - sector) as u32 * 512;
            while let Some(last) = job.segments.last_mut().filter(|_| surplus > 0) {
                let cut = last.bytes.min(surplus);
                (last.bytes, surplus) = (last.bytes - cut, surplus - cut);
                if last.bytes == 0 {
                    job.segments.pop();
                }
            }
        }
        self.jobs[step.part] = Some(job);
    }

    fn fill(&self, step: &Step, segments: &[Segment]) {
        let mut place = 0;
        for segment in segments {
            let bytes: Vec<u8> = (place..place + segment.bytes as usize).map(|at| pattern(step.value, at)).collect();
            let (page, offset) = self.at(step.part, segment);
            assert!(self.pages[step.part].write(page, offset, &bytes));
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
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_drive_holds_what_was_written(
        large in any::<bool>(),
        log in any::<bool>(),
        queue in prop_oneof![Just(32u8), Just(3), Just(0)],
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let shift = if large { 12 } else { 9 };
        let drive = Drive::new(shift, SECTORS >> (shift - 9)).with_queue(queue);
        let mut world = World::new(if log { drive } else { drive.without_log() });
        let steps: Vec<Step> = steps;
        for step in &steps {
            world.step(step);
        }
        world.settle();
        prop_assert!(world.jobs.iter().all(Option::is_none));
        world.check_idle();
        let (data, _) = world.device.contents(PORT).expect("the drive");
        prop_assert!(data == world.image, "the drive differs");
        world.disk.quiesce();
        prop_assert_eq!(world.device.misuse(), Vec::<&str>::new());
        drop(world.disk);
        prop_assert_eq!(world.xen.take_violations(), []);
    }
}
