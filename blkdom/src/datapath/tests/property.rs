//! Several guests at once, each with a model of what its disk may hold, whatever the order in which things happen.
//!
//! Every sector written carries a number of its own, so that a read, or a look at the medium after the power went, tells which write it
//! is of. A guest has no two requests at once that touch the same sector: what then comes of it is nobody's promise.

use super::{SECTORS, UNIT, World};
use crate::blkback::request::Abi;
use crate::datapath::persistent::STEP_BYTES;
use crate::disk::{IoError, UnitId};
use crate::fakes::frontend::{Response, segment};
use crate::fakes::{Fault, FaultyRange, Frontend, Setup, geometry};
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;
use split_driver::time::Duration;
use split_driver::xenbus::DeviceId;
use xen_pv_sys::io::blkif::RequestSegment;

/// Sectors that a guest uses of its volume: few, so that much happens to each.
const USED: u64 = 512;
/// Requests of a guest at once, and pages of each.
const REQUESTS: usize = 24;
const REQUEST_PAGES: usize = 40;
/// What a guest does, all in all.
const STEPS: usize = 400;

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32) % end
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What one sector may hold.
#[derive(Clone, Debug)]
struct Sector {
    /// What a read may give: more than one thing after a write that failed.
    now: Vec<u32>,
    /// What it may hold without power, oldest first, and how many came before those.
    candidates: Vec<u32>,
    before: usize,
    /// The place of what was last acknowledged, counted from the beginning.
    acknowledged: usize,
    busy: bool,
}

/// A request that is not answered.
#[derive(Clone, Debug)]
struct Asked {
    operation: u8,
    sector: u64,
    sectors: u64,
    segments: Vec<(usize, usize, usize)>,
    indirect: bool,
    queue: usize,
    /// The number of its first sector, of a write.
    stamp: u32,
    /// For a flush: what was acknowledged of each sector when it was asked for.
    floor: Vec<usize>,
    /// It was asked for after a flush had failed.
    undurable: bool,
}

struct Model {
    sectors: Vec<Sector>,
    asked: BTreeMap<u64, Asked>,
    free: Vec<u64>,
    indirect: Vec<usize>,
    /// A flush failed: no write succeeds that is asked for from now on.
    undurable: bool,
}

impl Model {
    fn new(queues: usize) -> Self {
        let sector = Sector { now: vec![0], candidates: vec![0], before: 0, acknowledged: 0, busy: false };
        Self {
            sectors: vec![sector; USED as usize],
            asked: BTreeMap::new(),
            free: (0..REQUESTS as u64).collect(),
            indirect: vec![0; queues],
            undurable: false,
        }
    }

    fn range(&mut self, asked: &Asked) -> &mut [Sector] {
        &mut self.sectors[asked.sector as usize..(asked.sector + asked.sectors) as usize]
    }

    fn handle(&mut self, response: Response, guest: &Frontend) {
        let asked = self.asked.remove(&response.id).expect("a request, answered once");
        assert_eq!(response.operation, asked.operation);
        let good = response.status == 0;
        assert!(good || response.status == -1);
        assert!(!good || !asked.undurable || asked.operation == 0, "nothing is written after a flush that failed");
        self.undurable |= asked.operation == 3 && !good;
        self.free.push(response.id);
        self.indirect[asked.queue] -= usize::from(asked.indirect);
        match asked.operation {
            0 if good => self.check_read(&asked, guest),
            1 | 2 | 5 => self.written(&asked, good),
            _ => {}
        }
        if matches!(asked.operation, 2 | 3) && good {
            for (sector, floor) in self.sectors.iter_mut().zip(&asked.floor) {
                sector.durable_from(*floor);
            }
        }
        if asked.operation == 2 && good {
            for sector in self.range(&asked) {
                sector.durable_from(sector.acknowledged);
            }
        }
        for sector in self.range(&asked) {
            sector.busy = false;
        }
    }

    fn written(&mut self, asked: &Asked, good: bool) {
        let stamp = asked.stamp;
        for (sector, index) in self.range(asked).iter_mut().zip(0..) {
            let number = if asked.operation == 5 { 0 } else { stamp + index };
            match good {
                true => {
                    sector.now = vec![number];
                    sector.acknowledged = sector.before + sector.candidates.len() - 1;
                }
                false => sector.now.push(number),
            }
        }
    }

    fn check_read(&mut self, asked: &Asked, guest: &Frontend) {
        let mut bytes = Vec::new();
        for &(page, first, sectors) in &asked.segments {
            bytes.extend_from_slice(&guest.read(page, 4096)[first * 512..(first + sectors) * 512]);
        }
        for (sector, bytes) in self.range(asked).iter_mut().zip(bytes.chunks(512)) {
            let number = number_of(bytes);
            assert!(sector.now.contains(&number), "{number:#x} was read, of {:x?}", sector.now);
            sector.now = vec![number];
        }
    }

    /// Its frontend is gone: what was not answered happened or did not.
    fn forget(&mut self) {
        for asked in core::mem::take(&mut self.asked).into_values() {
            if matches!(asked.operation, 1 | 2 | 5) {
                self.written(&asked, false);
            }
            for sector in self.range(&asked) {
                sector.busy = false;
            }
        }
        self.free = (0..REQUESTS as u64).collect();
        self.indirect.fill(0);
        self.undurable = false;
    }
}

impl Sector {
    fn durable_from(&mut self, floor: usize) {
        let gone = floor.saturating_sub(self.before);
        self.candidates.drain(..gone);
        self.before += gone;
    }
}

/// The number that a sector carries.
fn number_of(bytes: &[u8]) -> u32 {
    let words: Vec<_> = bytes.as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    assert!(words.iter().all(|word| *word == words[0]), "a torn sector: {words:x?}");
    words[0]
}

struct Run {
    world: World,
    models: Vec<Model>,
    random: Random,
    stamp: u32,
    block: u64,
    next_domain: u16,
    /// What each life's data path is told at its beginning.
    maps: bool,
    tables: usize,
    /// One life in so many rounds ends within the round; none where it is 0.
    mortal: u64,
}

fn prepare(maps: bool, tables: usize) -> impl Fn(&mut crate::datapath::DataPath<split_driver::fakes::FakeXen>) {
    move |path| {
        path.map_requests(maps);
        path.bound_tables(tables);
    }
}

impl Run {
    fn segments(&mut self, id: u64) -> Vec<(usize, usize, usize)> {
        let count = match self.random.below(3) {
            0 => 1,
            1 => 1 + self.random.below(11),
            _ => 1 + self.random.below(REQUEST_PAGES as u64),
        };
        let odd = self.random.chance(30);
        let mut segments: Vec<_> = (0..count as usize)
            .map(|index| {
                let first = if odd { self.random.below(8) as usize } else { 0 };
                let sectors = if odd { 1 + self.random.below(8 - first as u64) as usize } else { 8 };
                (id as usize * REQUEST_PAGES + index, first, sectors)
            })
            .collect();
        let mut over = segments.iter().map(|segment| segment.2).sum::<usize>() % self.block as usize;
        while over > 0 {
            match segments.last_mut() {
                Some(last) if last.2 > over => {
                    last.2 -= over;
                    over = 0;
                }
                Some(last) => {
                    over -= last.2;
                    segments.pop();
                }
                None => break,
            }
        }
        segments
    }

    /// Places a request of any kind.
    fn place(&mut self, index: usize) {
        let Some(id) = self.models[index].free.pop() else {
            return;
        };
        let queue = self.random.below(self.world.guests[index].queues.len() as u64) as usize;
        let operation = [0, 0, 0, 0, 1, 1, 1, 1, 1, 3, 3, 5, 2][self.random.below(13) as usize];
        let segments = if matches!(operation, 3 | 5) { Vec::new() } else { self.segments(id) };
        let mut sectors = segments.iter().map(|segment| segment.2 as u64).sum::<u64>();
        if operation == 5 {
            sectors = self.block * (1 + self.random.below(64 / self.block));
        }
        let sector = self.random.below((USED - sectors) / self.block + 1) * self.block;
        let stamp = self.stamp;
        let indirect = segments.len() > 11;
        let model = &mut self.models[index];
        let mut asked =
            Asked { operation, sector, sectors, segments, indirect, queue, stamp, floor: Vec::new(), undurable: false };
        let free = self.world.guests[index].queues[queue].free() > 0;
        let nothing = sectors == 0 && !matches!(operation, 2 | 3);
        let busy = model.range(&asked).iter().any(|sector| sector.busy);
        // The pages of indirect segments are used by turns; and a barrier has none.
        if !free || nothing || busy || indirect && (model.indirect[queue] == 8 || operation == 2) {
            model.free.push(id);
            return;
        }
        self.stamp += sectors as u32;
        asked.undurable = model.undurable;
        asked.floor = model.sectors.iter().map(|sector| sector.acknowledged).collect();
        model.indirect[queue] += usize::from(indirect);
        for (sector, number) in model.range(&asked).iter_mut().zip(stamp..) {
            sector.busy = true;
            if matches!(operation, 1 | 2 | 5) {
                sector.candidates.push(if operation == 5 { 0 } else { number });
            }
        }
        let guest = &mut self.world.guests[index];
        if matches!(operation, 1 | 2) {
            let numbers = asked
                .segments
                .iter()
                .flat_map(|&(page, first, sectors)| (first..first + sectors).map(move |at| (page, at)));
            for ((page, at), number) in numbers.zip(stamp..) {
                guest.memory.write(page * 4096 + at * 512, &number.to_le_bytes().repeat(128));
            }
        }
        let slots: Vec<RequestSegment> = asked
            .segments
            .iter()
            .map(|&(page, first, sectors)| {
                segment(guest.grant(page, operation == 0), first as u8, (first + sectors - 1) as u8)
            })
            .collect();
        assert!(match operation {
            5 => guest.queues[queue].discard(id, sector, sectors, 0),
            3 => guest.queues[queue].flush(id),
            _ => guest.place(queue, id, operation, sector, &slots),
        });
        model.asked.insert(id, asked);
    }

    fn collect(&mut self, index: usize) {
        for queue in 0..self.world.guests[index].queues.len() {
            for response in self.world.guests[index].responses(queue) {
                self.models[index].handle(response, &self.world.guests[index]);
            }
        }
    }

    fn publish(&mut self, index: usize) {
        for queue in 0..self.world.guests[index].queues.len() {
            self.world.guests[index].publish(queue);
        }
    }

    /// The guest's frontend goes, and another one comes.
    fn reconnect(&mut self, index: usize) {
        self.world.drive.borrow_mut().hold = false;
        let old = &self.world.guests[index];
        let setup = old.setup;
        let device = DeviceId { frontend: old.domain.id(), handle: 51712 };
        assert!(self.world.path.detach(self.world.ids[index]).is_some());
        if self.random.chance(50) {
            self.world.guests[index].domain.clone().destroy();
        }
        self.world.run();
        assert!(self.world.path.is_settled(device));
        self.models[index].forget();
        self.next_domain += 1;
        let guest = Frontend::new(&self.world.xen, self.next_domain, setup);
        let disk = geometry(SECTORS * self.models.len() as u64, self.block as u32 * 512);
        let config = guest.config(super::volume(index), disk);
        self.world.ids[index] = self.world.path.attach(config).expect("a vbd");
        self.world.guests[index] = guest;
    }

    /// A round, which may be the life's last, behind any of its steps.
    fn round(&mut self) {
        let ends = self.mortal > 0 && self.random.below(self.mortal) == 0;
        let steps = if ends { 1 << self.random.below(11) } else { u64::MAX };
        let steps = self.random.below(steps);
        let round = |world: &mut World| {
            world.round();
        };
        if self.world.live(steps, round) {
            self.next_life();
        }
    }

    /// The next life takes all vbds over, unless it ends meanwhile as well.
    fn next_life(&mut self) {
        loop {
            let mut keep = Random(self.random.below(u64::MAX >> 32) | 1);
            let percent = keep.below(101);
            let prepare = prepare(self.maps, self.tables);
            self.world.begin_life(prepare, |_, _| keep.chance(percent));
            let disk = geometry(SECTORS * self.models.len() as u64, self.block as u32 * 512);
            let steps = if self.random.chance(30) { self.random.below(200) } else { u64::MAX };
            let ended = self.world.live(steps, |world| {
                for index in 0..world.guests.len() {
                    let config = world.guests[index].config(super::volume(index), disk);
                    let lay = config.whereabouts;
                    let (id, found) = world.path.adopt(config).expect("a journal");
                    assert_eq!(found, Some(lay));
                    world.ids[index] = id;
                }
            });
            if !ended {
                assert_eq!(self.world.xen.taken_over(), 0, "pages that nobody took over");
                break;
            }
        }
    }

    fn step(&mut self, faults: bool) {
        let index = self.random.below(self.models.len() as u64) as usize;
        match self.random.below(100) {
            0..55 => self.place(index),
            55..70 => self.publish(index),
            70..85 => self.round(),
            85..95 => self.collect(index),
            95 => self.world.drive.borrow_mut().hold ^= true,
            96 => self.world.now = self.world.now + Duration::from_secs(1 + self.random.below(60)),
            97 if faults => self.fault(),
            98 => self.world.drive.borrow_mut().recovering = 3,
            99 if self.random.chance(30) => self.reconnect(index),
            _ => {}
        }
    }

    fn fault(&mut self) {
        if self.random.chance(50) {
            let fault = [Fault::Error(IoError::Device { code: 3 }), Fault::NoAnswer(20)][self.random.below(2) as usize];
            // For good, now and then.
            let times = self.random.below(100) as u32;
            self.world.drive.borrow_mut().flush_fault = Some((times, fault));
            return;
        }
        let start = self.random.below(SECTORS * self.models.len() as u64);
        let error = IoError::Device { code: 2 };
        let fault = [Fault::Error(error), Fault::Torn(error), Fault::NoAnswer(20)][self.random.below(3) as usize];
        let (reads, writes) = (self.random.chance(50), self.random.chance(50));
        // Of one guest's sectors only, and of no flush.
        let sectors = start..start + 1 + self.random.below(64);
        self.world.drive.borrow_mut().faults.push(FaultyRange { unit: UnitId(0), sectors, reads, writes, fault });
    }

    fn finish(mut self) {
        // Flushes that fail wait, each for itself, some 30 times.
        for _ in 0..5000 {
            self.world.drive.borrow_mut().hold = false;
            for index in 0..self.models.len() {
                self.publish(index);
            }
            let deadline = self.world.run().deadline;
            for index in 0..self.models.len() {
                self.collect(index);
            }
            if self.models.iter().all(|model| model.asked.is_empty()) {
                break;
            }
            // An event may be held back where there were some without work.
            self.world.now = deadline.expect("work, or somebody to wait for");
        }
        assert!(self.models.iter().all(|model| model.asked.is_empty()), "requests without an answer");
        for (index, model) in self.models.iter().enumerate() {
            let contents = self.world.contents(index, 0, SECTORS as usize * 512);
            for (at, bytes) in contents.chunks(512).enumerate() {
                let number = number_of(bytes);
                let good = model.sectors.get(at).map_or(number == 0, |sector| sector.now.contains(&number));
                assert!(good, "sector {at} holds {number:#x}");
            }
        }
        self.world.end();
    }

    /// The power goes now: every sector holds what was durable, or something newer.
    fn power_cut(self) {
        let mut keep = Random(self.random.0 | 1);
        let percent = keep.below(101);
        self.world.drive.borrow_mut().power_cut(|_, _| keep.chance(percent));
        for (index, model) in self.models.iter().enumerate() {
            let contents = self.world.contents(index, 0, USED as usize * 512);
            for (at, (bytes, sector)) in contents.chunks(512).zip(&model.sectors).enumerate() {
                let number = number_of(bytes);
                assert!(
                    sector.candidates.contains(&number),
                    "sector {at} holds {number:#x}, of {:x?}",
                    sector.candidates
                );
            }
        }
        self.world.check();
    }
}

fn setup() -> impl Strategy<Value = Setup> {
    (any::<bool>(), 1..4_usize, 0..3_usize, any::<bool>()).prop_map(|(wide, queues, pages, persistent)| Setup {
        abi: if wide { Abi::X86_64 } else { Abi::X86_32 },
        queues,
        ring_pages: [1, 2, 16][pages],
        persistent,
        pages: REQUESTS * REQUEST_PAGES,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn disks_hold_what_was_written(
        setups in prop::collection::vec(setup(), 1..4),
        seed in any::<u64>(),
        wide_blocks in any::<bool>(),
        (depth, latency, most) in (1..40_usize, 0..3_u32, 8..200_u32),
        (ordered, faults, cut, maps) in (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
        mortal in prop_oneof![Just(0), 1..4_u64, 4..40_u64],
    ) {
        let block = if wide_blocks { 8 } else { 1 };
        let disk = geometry(SECTORS * setups.len() as u64, block as u32 * 512);
        // Much, or so little that guests take it from each other.
        let tables = if seed & 2 == 0 { usize::MAX } else { 2 * STEP_BYTES };
        let world = World::build(&setups, disk, prepare(maps, tables), |_| {});
        {
            let mut drive = world.drive.borrow_mut();
            drive.depth = depth;
            drive.latency = latency;
            drive.most_sectors = most / 8 * 8;
            drive.order = if ordered { 0 } else { seed | 1 };
        }
        let models = setups.iter().map(|setup| Model::new(setup.queues)).collect();
        let (random, stamp, next_domain) = (Random(seed | 1), 1, 100);
        let mut run = Run { world, models, random, stamp, block, next_domain, maps, tables, mortal };
        for _ in 0..STEPS {
            run.step(faults);
        }
        let unit = run.world.path.unit_statistics(UNIT);
        prop_assert!(unit.is_some());
        match cut {
            true => run.power_cut(),
            false => run.finish(),
        }
    }
}
