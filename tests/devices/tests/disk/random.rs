//! Random commands, carried out in any order and through errors, resets and lost links, against a flat image of what the medium should
//! hold. Host.

use super::{Bench, Controller};
use blkdom::disk::{Command, Disk, IoError, Operation, Refusal, Segment, Tag, UnitId};
use devices::fake::Device;
use proptest::prelude::*;
use split_driver::fakes::{FakePages, FakeXen};
use split_driver::memory::{DeviceAddress, PageArray};
use std::time::Duration;
use xen_pv_sys::PAGE_SIZE;

/// Sectors of the medium, in eight parts that commands have to themselves: two in flight upon the same sectors have no order.
pub(crate) const SECTORS: u64 = 2048;
const PARTS: usize = 8;
const PART: u64 = SECTORS / PARTS as u64;
/// Pages of a part's memory: twice what a command upon all of it needs, as every second is left out at times.
const PAGES: usize = PART as usize / 8 * 2;
/// What memory holds that no command has.
const IDLE: u8 = 0xEE;

/// A device whose driver is tried, with one medium.
pub(crate) trait Tried: Controller + Sized {
    /// The driver.
    type Driver: Disk;

    /// A command can name pieces of pages that do not adjoin.
    const NAMES_PIECES: bool;
    /// How a read of a block ends that cannot be read.
    const BAD: IoError;

    /// Makes the driver.
    fn driver(device: &Device<Self>) -> Self::Driver;

    /// Commands are carried out when told by `execute`, or all of them at once.
    fn be_lazy(&mut self, lazy: bool);

    /// Carries out the command at a place among those read.
    fn execute(&mut self, place: usize);

    /// Commands read and not carried out.
    fn pending(&mut self) -> usize;

    /// What the medium holds.
    fn held(&mut self) -> Vec<u8>;

    /// The next read of a block fails.
    fn spoil(&mut self, block: u64);

    /// No command is to fail from now on.
    fn mend(&mut self);

    /// Something goes wrong that costs no command, `block` being one that is in use; and the time that passes meanwhile. Each costs a
    /// command one of the tries of which it has more than two.
    fn disturb(bench: &mut Bench<Self, Self::Driver>, kind: u8, block: u64) -> Duration;
}

/// Kinds of disturbances.
pub(crate) const DISTURBANCES: u8 = 6;

#[derive(Clone, Debug)]
pub(crate) struct Step {
    part: usize,
    operation: u8,
    first: u64,
    sectors: u64,
    /// Pages lie side by side, or every second is used; or half of each.
    layout: u8,
    /// Where the first segment begins in its page.
    offset: u64,
    /// Commands that are carried out before the next step, each from this place on.
    work: usize,
    place: usize,
    fault: u8,
    value: u8,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let shape = (0..PARTS, 0u8..10, 0..PART / 8, 1..PART / 8, 0u8..4, 0u64..8);
    (shape, 0usize..6, 0usize..8, 0u8..30, any::<u8>()).prop_map(|(shape, work, place, fault, value)| {
        let (part, operation, first, length, layout, offset) = shape;
        let first = first * 8;
        let sectors = (length * 8).min(PART - first);
        Step { part, operation, first, sectors, layout, offset, work, place, fault, value }
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

struct World<M: Tried> {
    bench: Bench<M, M::Driver>,
    pages: Vec<FakePages>,
    jobs: [Option<Job>; PARTS],
    image: Vec<u8>,
    /// Disturbances that a command may have met by now.
    disturbances: u8,
}

impl<M: Tried> World<M> {
    fn new(model: M) -> Self {
        let xen = FakeXen::new();
        let device = Device::new(&xen, model);
        let make = |device: &Device<M>| Ok::<_, ()>(M::driver(device));
        let bench = Bench::new(&xen, &device, make).expect("taken").ready();
        let pages: Vec<_> = (0..PARTS).map(|_| FakePages::new(&xen, PAGES)).collect();
        let image = vec![0; SECTORS as usize * 512];
        let mut world = Self { bench, pages, jobs: Default::default(), image, disturbances: 0 };
        world.settle();
        (0..PARTS).for_each(|part| world.clear(part));
        world
    }

    /// Everything comes to its end.
    fn settle(&mut self) {
        self.bench.device.with_model(|model| model.be_lazy(false));
        self.bench.run();
        self.complete();
        // A fault that no command met would give a later one more than its disturbances.
        self.bench.device.with_model(|model| {
            model.mend();
            model.be_lazy(true);
        });
        self.bench.run();
        self.complete();
        self.disturbances = 0;
    }

    fn complete(&mut self) {
        for completion in std::mem::take(&mut self.bench.done) {
            let part = completion.tag.0 as usize;
            let job = self.jobs[part].as_mut().expect("a command that was submitted");
            let expected = completion.result == Ok(()) || (job.bad && completion.result == Err(M::BAD));
            assert!(expected, "{completion:?}");
            job.left -= 1;
            if job.left == 0 {
                let job = self.jobs[part].take().expect("a job");
                self.check(part, &job);
                self.clear(part);
            }
        }
    }

    fn poll(&mut self) {
        self.bench.poll();
        self.complete();
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

    fn segments(&self, step: &Step) -> Vec<Segment> {
        let base = self.pages[step.part].frame(0).expect("a page").0 * PAGE_SIZE as u64;
        let (page, block) = (PAGE_SIZE as u64, u64::from(self.block()));
        let bytes = step.sectors * 512;
        let (mut at, stride, piece) = match step.layout {
            // The first page may be named in part.
            0 => (base + step.offset * 512, page, page),
            1 => (base, 2 * page, page),
            2 if M::NAMES_PIECES || block < page => (base, page, block.min(page / 2)),
            _ => (base, page, page),
        };
        let end = base + PAGES as u64 * page;
        let (mut left, mut segments) = (bytes, Vec::new());
        while left > 0 && at < end {
            let bytes = left.min(piece).min(page - at % page);
            segments.push(Segment { address: DeviceAddress::made_up(at), bytes: bytes as u32 });
            left -= bytes;
            at += stride - at % page;
        }
        segments
    }

    fn step(&mut self, step: &Step) {
        if self.jobs[step.part].is_none() {
            self.begin(step);
        }
        if step.fault < DISTURBANCES {
            self.disturb(step);
        }
        self.bench.device.with_model(|model| {
            for _ in 0..step.work {
                let place = step.place % model.pending().max(1);
                model.execute(place);
            }
        });
        self.poll();
        self.check_idle();
    }

    fn disturb(&mut self, step: &Step) {
        if self.disturbances == 2 {
            self.settle();
        }
        self.disturbances += 1;
        let block = (step.part as u64 * PART + step.first) * 512 / u64::from(self.block());
        let pause = M::disturb(&mut self.bench, step.fault, block);
        self.bench.now = self.bench.now + pause;
        self.complete();
    }

    fn block(&self) -> u32 {
        self.bench.disk.units()[0].geometry.logical_block
    }

    fn begin(&mut self, step: &Step) {
        let start = step.part as u64 * PART + step.first;
        let write_zeroes = self.bench.disk.units()[0].geometry.write_zeroes;
        let (operation, moves) = match step.operation {
            0..=2 => (Operation::Read, true),
            3..=5 => (Operation::Write { force_unit_access: step.operation == 5 }, true),
            6 => (Operation::Flush, false),
            7 if write_zeroes => (Operation::WriteZeroes, false),
            _ => (Operation::Discard { secure: false }, false),
        };
        let segments = if moves { self.segments(step) } else { Vec::new() };
        let carried: u64 = segments.iter().map(|segment| u64::from(segment.bytes) / 512).sum();
        let sectors = if moves { carried } else { step.sectors };
        let bad = operation == Operation::Read && (DISTURBANCES..DISTURBANCES + 3).contains(&step.fault);
        if matches!(operation, Operation::Write { .. }) {
            self.fill(step, &segments);
        }
        let mut job = Job { operation, first: step.first, segments: segments.clone(), left: 0, bad };
        let (mut sector, mut rest) = (start, segments);
        loop {
            let left = if operation == Operation::Flush { 0 } else { (start + sectors - sector) as u32 };
            let command =
                Command { unit: UnitId(0), operation, sector, sectors: left, data: &rest, tag: Tag(step.part as u64) };
            match self.bench.disk.submit(&command) {
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
            let block = start * 512 / u64::from(self.block());
            self.bench.device.with_model(|model| model.spoil(block));
        }
        self.bench.disk.ring();
        let image = &mut self.image[start as usize * 512..sector as usize * 512];
        match operation {
            Operation::Write { .. } => {
                for (place, byte) in image.iter_mut().enumerate() {
                    *byte = pattern(step.value, place);
                }
            }
            Operation::Discard { .. } | Operation::WriteZeroes => image.fill(0),
            Operation::Read | Operation::Flush => {}
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

/// The medium holds what was written, whatever went wrong meanwhile.
pub(crate) fn holds_what_was_written<M: Tried>(model: M, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut world = World::new(model);
    for step in steps {
        world.step(step);
    }
    world.settle();
    prop_assert!(world.jobs.iter().all(Option::is_none));
    world.check_idle();
    let held = world.bench.device.with_model(|model| {
        model.be_lazy(false);
        model.held()
    });
    prop_assert!(held == world.image, "the medium differs");
    drop(world.pages);
    world.bench.finish();
    Ok(())
}
