//! blkback's data path with a hostile frontend beside two honest ones, on one disk. Host.
//!
//! The data path, the honest guests and the disk live as long as the target; each input is one life of the hostile vbd: attached, at
//! work, detached. The domain's own life may end meanwhile, at any step, and another one goes on. What must hold: the honest guests' requests succeed, and their disks hold what they wrote and nothing else; only the
//! hostile vbd is ever closed; no honest request waits long for the hostile ones; what an answered flush or barrier covers is durable; a disk that may only be read is not written; the disk is
//! never asked for nonsense; nothing is fetched twice from the hostile rings; no call was made that Xen would refuse us as a fault of our
//! own; and when the vbd is gone, pages, mappings and channels are back.

mod mallory;

use crate::Target;
use blkdom::blkback::request::Abi;
use blkdom::datapath::{DataPath, VbdId};
use blkdom::disk::{Geometry, IoError, UnitId};
use blkdom::fakes::{Drive, FakeDisk, Fault, FaultyRange, Frontend, Setup, geometry};
use blkdom::volume::{UnitRef, Volume};
use guests::tape::Step;
use mallory::{Action, Features, Mallory};
use split_driver::fakes::{FakePages, FakeXen};
use split_driver::time::{Duration, Instant};
use split_driver::xenbus::DeviceId;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

/// Pages of the pool: few, so that it runs out.
const PAGES: usize = 24 + 256 + 32;
/// Bytes of the tables of mapped grants.
const TABLE_BYTES: usize = 16 << 10;
/// Actions of an input, at most.
const ACTIONS: usize = 40;
/// Sectors of an honest guest's disk, and of each of its parts: it has a request at once on each.
const HONEST_SECTORS: u64 = 64;
const PARTS: u64 = 4;
const PART_SECTORS: u64 = HONEST_SECTORS / PARTS;
/// Rounds in which the disk is at work that an honest request waits at most: a command that the disk loses takes 20 of them, and the most that was
/// seen in a million inputs is 16.
const PATIENCE: u32 = 40;
/// Rounds in which a hostile guest with that feature fills its rings anew: more than that.
const REFILLS: u32 = 60;
/// Where the hostile guest's sectors lie: between the others'.
const MALLORY_START: u64 = HONEST_SECTORS;
const MALLORY_SECTORS: u64 = 64;
/// Words of a ring before its slots (`io/ring.h`).
const RING_HEADER: usize = 16;
const UNIT: UnitRef = UnitRef { controller: 0, unit: UnitId(0) };

/// From this number on, the disk's reset is the end of the domain's life.
const MORTAL: u8 = 224;

/// What a life unwinds with at its end.
struct LifeEnded;

/// A data path at the beginning of a life.
fn data_path(xen: &FakeXen) -> DataPath<FakeXen> {
    let mut path = DataPath::new(xen.clone(), Box::new(FakePages::new(xen, PAGES)));
    // Two steps of a table: guests take them from each other.
    path.bound_tables(TABLE_BYTES);
    path
}

fn disk_geometry() -> Geometry {
    geometry(2 * HONEST_SECTORS + MALLORY_SECTORS, 512)
}

/// The world that inputs run in.
pub struct Blkback {
    xen: FakeXen,
    path: DataPath<FakeXen>,
    drive: Rc<RefCell<Drive>>,
    honest: [Honest; 2],
    mallory: Mallory,
    /// The hostile vbd, while it is there.
    attached: Option<VbdId>,
    features: Option<Features>,
    /// The rounds in which it still fills its rings anew.
    refills: u32,
    now: Instant,
    /// Pages, channels and local memory while the hostile vbd is not there.
    rest: (usize, usize, usize),
}

/// A neighbour.
struct Honest {
    guest: Frontend,
    id: VbdId,
    start: u64,
    /// What its disk holds.
    image: Vec<u8>,
    /// Its requests, by part: operation, first sector, sectors.
    asked: [Option<(u8, u64, usize)>; PARTS as usize],
    /// The rounds that each has waited in which the disk was at work.
    waited: [u32; PARTS as usize],
    /// What must be durable when the flush or barrier of a part is answered.
    promised: [Option<Promise>; PARTS as usize],
    serial: u8,
    answered: u64,
}

/// What a flush or a barrier covers.
struct Promise {
    /// The disk as it was.
    image: Vec<u8>,
    /// The parts that are as they were then, with nothing at work that may have come later.
    covered: [bool; PARTS as usize],
}

impl Default for Blkback {
    fn default() -> Self {
        Self::new()
    }
}

impl Blkback {
    /// The world, at rest.
    pub fn new() -> Self {
        let xen = FakeXen::new();
        let mut path = data_path(&xen);
        let (disk, drive) = FakeDisk::new(&xen, &[disk_geometry()]);
        drive.borrow_mut().order = 1;
        path.add_disk(Box::new(disk));
        let starts = [0, MALLORY_START + MALLORY_SECTORS];
        let honest = [0, 1].map(|which: usize| {
            let pages = (PART_SECTORS / 8 * PARTS) as usize;
            let setup = Setup { persistent: which == 0, pages, ..Setup::default() };
            let guest = Frontend::new(&xen, which as u16 + 1, setup);
            let volume = Volume::linear(UNIT, starts[which], HONEST_SECTORS);
            let id = path.attach(guest.config(volume, disk_geometry())).expect("a vbd");
            let image = vec![0; HONEST_SECTORS as usize * 512];
            Honest {
                guest,
                id,
                start: starts[which],
                image,
                asked: [None; 4],
                waited: [0; 4],
                promised: Default::default(),
                serial: 0,
                answered: 0,
            }
        });
        let mallory = Mallory::new(&xen);
        let (attached, features, refills, now, rest) = (None, None, 0, Instant(0), (0, 0, 0));
        let mut world = Self { xen, path, drive, honest, mallory, attached, features, refills, now, rest };
        world.settle();
        world.rest = world.held();
        world
    }

    fn held(&self) -> (usize, usize, usize) {
        let live = self.xen.live();
        (self.path.pages().available(), live.channels, live.local_regions)
    }

    /// Hands events over and does one round.
    fn round(&mut self) -> bool {
        self.now = self.now + Duration::from_micros(5);
        if self.attached.is_some() && self.refills > 0 {
            self.refills -= 1;
            self.mallory.refill();
        }
        while let Some(port) = self.xen.next_event() {
            self.path.handle_event(port, self.now);
        }
        let at_work = {
            let drive = self.drive.borrow();
            !drive.hold && drive.recovering == 0
        };
        self.xen.set_peer(self.attached.map(|_| self.mallory.peer()));
        let again = self.path.poll(self.now).again;
        self.xen.set_peer(None);
        for fetches in &self.mallory.fetches {
            let repeated = fetches.take_repeated(RING_HEADER);
            assert_eq!(repeated, None, "a word of a hostile ring was fetched twice in a round");
        }
        let drive = self.drive.borrow();
        for honest in &mut self.honest {
            honest.look(drive.durable(UNIT.unit));
            honest.wait(at_work);
        }
        again
    }

    /// Rounds until nothing is left to do, the disk doing its work.
    fn settle(&mut self) -> u64 {
        {
            let mut drive = self.drive.borrow_mut();
            drive.hold = false;
            drive.depth = 64;
        }
        for rounds in 0..5000 {
            if !self.round() {
                let done = self.honest.iter().all(|honest| honest.asked.iter().all(Option::is_none));
                assert!(done, "an honest request is not answered");
                return rounds;
            }
        }
        panic!("the data path never rests");
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Honest { which, part, operation, place, sectors } => {
                self.honest[usize::from(*which)].ask(*part, *operation, *place, *sectors);
            }
            Action::Poll => {
                self.round();
            }
            Action::Wait(milliseconds) => {
                self.now = self.now + Duration::from_millis(u64::from(*milliseconds) * 4);
                self.round();
            }
            Action::Hold(hold) => self.drive.borrow_mut().hold = *hold,
            Action::Depth(depth) => self.drive.borrow_mut().depth = usize::from(*depth % 16) + 1,
            // Inputs from before lives ended read the same.
            Action::Recover(steps @ MORTAL..) => self.end_life(u64::from(steps - MORTAL) * 3),
            Action::Recover(polls) => self.drive.borrow_mut().recovering = u32::from(polls % 8),
            Action::Fault { place, kind } => {
                let error = IoError::Device { code: 1 };
                let fault = [Fault::Error(error), Fault::Torn(error), Fault::NoAnswer(20)][usize::from(kind % 3)];
                let start = MALLORY_START + u64::from(*place) % MALLORY_SECTORS;
                let fault =
                    FaultyRange { unit: UnitId(0), sectors: start..start + 1, reads: true, writes: true, fault };
                self.drive.borrow_mut().faults.push(fault);
            }
            other => self.mallory.act(other),
        }
    }

    /// The domain's life ends within a round, behind so many steps or at the round's end, and the next one takes the vbds over.
    fn end_life(&mut self, steps: u64) {
        self.xen.end_life(steps, || resume_unwind(Box::new(LifeEnded)));
        let outcome = catch_unwind(AssertUnwindSafe(|| self.round()));
        if let Err(other) = outcome
            && !other.is::<LifeEnded>()
        {
            resume_unwind(other);
        }
        self.xen.set_peer(None);
        for fetches in &self.mallory.fetches {
            // What was fetched and not noted as taken is fetched by the next life.
            fetches.take_repeated(RING_HEADER);
        }
        self.xen.end_life_now();
        let mut odd = false;
        self.drive.borrow_mut().reset(|_, _| {
            odd ^= true;
            odd
        });
        self.path = data_path(&self.xen);
        self.xen.begin_life();
        self.path.add_disk(Box::new(FakeDisk::again(&self.drive)));
        for honest in &mut self.honest {
            let volume = Volume::linear(UNIT, honest.start, HONEST_SECTORS);
            let adopted = self.path.adopt(honest.guest.config(volume, disk_geometry()));
            honest.id = adopted.expect("an honest vbd is taken over").0;
            honest.waited = [0; 4];
        }
        if let (Some(_), Some(features)) = (self.attached, &self.features) {
            self.path.map_requests(features.maps);
            let config = self.mallory.config(features, Volume::linear(UNIT, MALLORY_START, MALLORY_SECTORS));
            // A ring that makes no sense is not taken over.
            self.attached = self.path.adopt(config).ok().map(|(id, _)| id);
        }
        let lost = self.xen.taken_over();
        assert!(lost == 0 || self.attached.is_none(), "a journal was not taken over");
    }

    /// Checks what must hold, after the hostile vbd is gone.
    fn check(&mut self, read_only: Option<Vec<u8>>) {
        assert_eq!(self.xen.take_violations(), [], "a fault of our own");
        assert_eq!(self.mallory.mapped(), 0, "pages of a vbd that is gone");
        assert_eq!(self.held(), self.rest, "something is held still");
        let mut drive = self.drive.borrow_mut();
        assert_eq!(drive.misuse, Vec::<String>::new(), "the disk was asked for nonsense");
        drive.faults.clear();
        for honest in &self.honest {
            let start = honest.start as usize * 512;
            let contents = &drive.contents(UnitId(0))[start..start + honest.image.len()];
            assert!(contents == honest.image, "an honest guest's disk is another one");
        }
        if let Some(before) = read_only {
            let contents = &drive.contents(UnitId(0))[MALLORY_START as usize * 512..][..before.len()];
            assert!(contents == before, "a disk that may only be read was written");
        }
    }
}

impl Honest {
    /// Asks for a part of its disk, where nothing is asked of that part.
    fn ask(&mut self, part: u8, operation: u8, place: u8, sectors: u8) {
        let part = u64::from(part) % PARTS;
        if self.asked[part as usize].is_some() {
            return;
        }
        let sectors = u64::from(sectors) % PART_SECTORS + 1;
        let first = part * PART_SECTORS + u64::from(place) % (PART_SECTORS - sectors + 1);
        let page = (part * PART_SECTORS / 8) as usize;
        let bytes = first as usize * 512..(first + sectors) as usize * 512;
        let operation = [0, 1, 1, 3, 5, 2][usize::from(operation) % 6];
        let (guest, count) = (&mut self.guest, sectors as usize);
        let placed = match operation {
            3 => guest.queues[0].flush(part),
            5 => {
                self.image[bytes].fill(0);
                guest.queues[0].discard(part, first, sectors, 0)
            }
            operation => {
                if operation != 0 {
                    self.serial = self.serial.wrapping_add(1);
                    let serial = self.serial;
                    let fill = |(at, byte): (usize, &mut u8)| *byte = serial.wrapping_add((at / 64) as u8);
                    self.image[bytes.clone()].iter_mut().enumerate().for_each(fill);
                    guest.write(page, &self.image[bytes]);
                }
                guest.transfer(0, part, operation, first, (page, count))
            }
        };
        assert!(placed, "there is room for each part's request");
        guest.publish(0);
        self.promise(part as usize, operation);
        self.asked[part as usize] = Some((operation, first, count));
    }

    /// Notes what a request covers, and what others no longer do.
    fn promise(&mut self, part: usize, operation: u8) {
        if [1, 2, 5].contains(&operation) {
            for promise in self.promised.iter_mut().flatten() {
                promise.covered[part] = false;
            }
        }
        // A barrier covers all that was asked before; a flush what was answered.
        let writes =
            |asked: &Option<(u8, u64, usize)>| asked.is_some_and(|(operation, ..)| [1, 2, 5].contains(&operation));
        let covered = self.asked.each_ref().map(|asked| operation == 2 || !writes(asked));
        if [2, 3].contains(&operation) {
            self.promised[part] = Some(Promise { image: self.image.clone(), covered });
        }
    }

    /// Holds what a flush or barrier covers against what the disk has for good.
    fn check_durable(&self, promise: &Promise, durable: &[u8]) {
        for (part, _) in promise.covered.iter().enumerate().filter(|(_, covered)| **covered) {
            let bytes = part * PART_SECTORS as usize * 512..(part + 1) * PART_SECTORS as usize * 512;
            let kept = &durable[self.start as usize * 512..][bytes.clone()];
            assert!(kept == &promise.image[bytes], "part {part} is not durable after a flush or a barrier");
        }
    }

    /// Counts a round that its requests have waited for their answers; the disk's delays are not blkdom's.
    fn wait(&mut self, at_work: bool) {
        for (waited, asked) in self.waited.iter_mut().zip(&self.asked) {
            *waited = if asked.is_some() { *waited + u32::from(at_work) } else { 0 };
            assert!(*waited <= PATIENCE, "an honest request waits for {waited} rounds");
        }
    }

    /// Takes the answers, which are all good. `durable` is what the disk has for good.
    fn look(&mut self, durable: &[u8]) {
        if self.asked.iter().all(Option::is_none) {
            return;
        }
        for response in self.guest.responses(0) {
            let (operation, first, sectors) = self.asked[response.id as usize].take().expect("one answer a request");
            assert_eq!((response.operation, response.status), (operation, 0), "an honest request failed");
            self.answered += 1;
            if let Some(promise) = self.promised[response.id as usize].take() {
                self.check_durable(&promise, durable);
            }
            if operation == 0 {
                let page = (response.id * PART_SECTORS / 8) as usize;
                let read = self.guest.read(page, sectors * 512);
                assert!(
                    read == self.image[first as usize * 512..][..sectors * 512],
                    "an honest guest reads other bytes"
                );
            }
        }
    }
}

/// An input as it is read, for a look at it.
pub fn describe(input: &[u8]) -> String {
    let (features, actions) = decode(input);
    let lines = actions.iter().map(|action| format!("{action:?}\n"));
    std::iter::once(format!("{features:?}\n")).chain(lines).collect()
}

/// What the hostile guest does in these inputs. What others and the disk do there is left out: under Xen there are others.
/// So is the filling of rings anew, which follows the answers.
pub fn tape(inputs: &[Vec<u8>]) -> Vec<guests::tape::Life> {
    let mut mallory = Mallory::new(&FakeXen::new());
    for input in inputs {
        let (features, actions) = decode(input);
        mallory.reset(&features, Volume::linear(UNIT, MALLORY_START, MALLORY_SECTORS));
        mallory.recorder.begin(features.words());
        for action in &actions {
            match action {
                Action::Poll => mallory.recorder.note(|| Step::Wait(1)),
                Action::Wait(milliseconds) => mallory.recorder.note(|| Step::Wait((*milliseconds).into())),
                other => mallory.act(other),
            }
        }
    }
    mallory.recorder.finish()
}

impl Target for Blkback {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        let (features, actions) = decode(input);
        let answered: u64 = self.honest.iter().map(|honest| honest.answered).sum();
        let volume = Volume::linear(UNIT, MALLORY_START, MALLORY_SECTORS);
        let config = self.mallory.reset(&features, volume);
        let device = DeviceId { frontend: config.domain, handle: config.handle };
        let read_only = config.read_only.then(|| {
            let drive = self.drive.borrow();
            drive.contents(UnitId(0))[MALLORY_START as usize * 512..][..MALLORY_SECTORS as usize * 512].to_vec()
        });
        let (maps, copies) = (self.xen.device_map_calls(), self.xen.copy_count());
        self.path.map_requests(features.maps);
        let Ok(id) = self.path.attach(config) else {
            panic!("the hostile vbd could not be attached");
        };
        self.attached = Some(id);
        self.features = Some(features);
        self.refills = if features.refills { REFILLS } else { 0 };
        for action in &actions {
            self.act(action);
        }
        let early = features.detach_early;
        let rounds = if early { 0 } else { self.settle() };
        let mapped = self.mallory.mapped() as u64;
        let attached = self.attached.take();
        let statistics = attached.map(|id| self.path.detach(id).expect("the hostile vbd")).unwrap_or_default();
        self.settle();
        let mut closed = false;
        while let Some((failed, violation)) = self.path.poll_failed() {
            assert_eq!(Some(failed), attached, "a neighbour was closed: {violation}");
            assert!(!closed, "closed twice");
            closed = true;
        }
        assert!(self.path.is_settled(device));
        self.check(read_only);
        let answered = self.honest.iter().map(|honest| honest.answered).sum::<u64>() - answered;
        for honest in &self.honest {
            let failures = self.path.vbd_statistics(honest.id).expect("an honest vbd").failures;
            assert!(failures.iter().all(|count| *count == 0), "{failures:?}");
        }
        let counts = [
            rounds,
            answered,
            mapped,
            self.xen.device_map_calls() - maps,
            self.xen.copy_count().0 - copies.0,
            self.xen.copy_count().1 - copies.1,
            statistics.reads,
            statistics.sectors_read,
            statistics.writes,
            statistics.sectors_written,
            statistics.flushes,
            statistics.discards,
            self.mallory.answers(),
        ];
        crate::see(seen, closed, counts.into_iter().chain(statistics.failures));
    }
}

/// Reads an input. Bytes that are missing are zero: every input is one.
fn decode(input: &[u8]) -> (Features, Vec<Action>) {
    let mut bytes = arbitrary::Unstructured::new(input);
    let bits: u8 = bytes.arbitrary().unwrap_or(0);
    let bit = |place: u8| bits & 1 << place != 0;
    let features = Features {
        abi: if bit(0) { Abi::X86_32 } else { Abi::X86_64 },
        persistent: bit(1),
        queues: if bit(2) { 2 } else { 1 },
        ring_pages: if bit(3) { 2 } else { 1 },
        read_only: bit(4) && bit(5),
        detach_early: bit(6) && bit(7),
        maps: bit(5) ^ bit(6),
        refills: bit(4) && !bit(5),
    };
    let mut actions = Vec::new();
    while actions.len() < ACTIONS && !bytes.is_empty() {
        match bytes.arbitrary() {
            Ok(action) => actions.push(action),
            Err(_) => break,
        }
    }
    (features, actions)
}
