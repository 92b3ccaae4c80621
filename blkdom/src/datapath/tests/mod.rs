//! The data path between fake frontends and a fake controller.

extern crate std;

mod faults;
mod hostile;
mod lives;
mod memory;
mod property;
mod reader;
mod requests;

use super::{DataPath, Poll, VbdId};
use crate::disk::{Geometry, UnitId};
use crate::fakes::frontend::Response;
use crate::fakes::{Drive, FakeDisk, Frontend, Setup, geometry};
use crate::volume::{UnitRef, Volume};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use split_driver::fakes::{FakePages, FakeXen, Live};
use split_driver::time::{Duration, Instant};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// Pages of the pool: those set aside, and two of the largest requests.
const PAGES: usize = 16 + 8 + 512;
/// Sectors of each guest's volume, one after another on the first unit.
const SECTORS: u64 = 4096;

/// What a life unwinds with at its end.
struct LifeEnded;

/// A domain with its guests.
struct World {
    xen: FakeXen,
    path: DataPath<FakeXen>,
    drive: Rc<RefCell<Drive>>,
    guests: Vec<Frontend>,
    ids: Vec<VbdId>,
    now: Instant,
}

/// Where a guest's sectors lie.
fn volume(guest: usize) -> Volume {
    Volume::linear(UNIT, guest as u64 * SECTORS, SECTORS)
}

const UNIT: UnitRef = UnitRef { controller: 0, unit: UnitId(0) };

impl World {
    fn new(setups: &[Setup]) -> Self {
        Self::with(setups, geometry(setups.len() as u64 * SECTORS, 512), |_| {})
    }

    fn with(setups: &[Setup], geometry: Geometry, change: impl Fn(&mut crate::blkback::config::VbdConfig)) -> Self {
        Self::build(setups, geometry, |_| {}, change)
    }

    fn build(
        setups: &[Setup],
        geometry: Geometry,
        prepare: impl FnOnce(&mut DataPath<FakeXen>),
        change: impl Fn(&mut crate::blkback::config::VbdConfig),
    ) -> Self {
        let xen = FakeXen::new();
        let mut path = DataPath::new(xen.clone(), Box::new(FakePages::new(&xen, PAGES)));
        prepare(&mut path);
        let (disk, drive) = FakeDisk::new(&xen, &[geometry]);
        assert_eq!(path.add_disk(Box::new(disk)), 0);
        let mut world = Self { xen, path, drive, guests: Vec::new(), ids: Vec::new(), now: Instant(0) };
        for (index, setup) in setups.iter().enumerate() {
            let guest = Frontend::new(&world.xen, index as u16 + 1, *setup);
            let mut config = guest.config(volume(index), geometry);
            change(&mut config);
            world.ids.push(world.path.attach(config).expect("a vbd"));
            world.guests.push(guest);
        }
        world
    }

    /// Does something until the life ends, behind so many steps; the next one begins then, and is to take over. Whether it ended.
    fn live(&mut self, steps: u64, act: impl FnOnce(&mut Self)) -> bool {
        self.xen.end_life(steps, || resume_unwind(Box::new(LifeEnded)));
        let outcome = catch_unwind(AssertUnwindSafe(|| act(self)));
        self.xen.spare_life();
        match outcome {
            Err(other) if !other.is::<LifeEnded>() => resume_unwind(other),
            outcome => outcome.is_err(),
        }
    }

    /// The life has ended: another data path in its place, without any vbd. `keep` says how far the drive got with its commands.
    fn begin_life(&mut self, prepare: impl FnOnce(&mut DataPath<FakeXen>), keep: impl FnMut(UnitId, u64) -> bool) {
        self.xen.end_life_now();
        // The controller is stopped and reset before memory is used again.
        self.drive.borrow_mut().reset(keep);
        self.path = DataPath::new(self.xen.clone(), Box::new(FakePages::new(&self.xen, PAGES)));
        self.xen.begin_life();
        prepare(&mut self.path);
        self.path.add_disk(Box::new(FakeDisk::again(&self.drive)));
    }

    /// One round.
    fn round(&mut self) -> Poll {
        self.now = self.now + Duration::from_micros(10);
        while let Some(port) = self.xen.next_event() {
            self.path.handle_event(port, self.now);
        }
        self.path.poll(self.now)
    }

    /// Rounds until nothing is left to do.
    fn run(&mut self) -> Poll {
        for _ in 0..100_000 {
            let poll = self.round();
            if !poll.again {
                return poll;
            }
        }
        panic!("the data path never rests");
    }

    /// Publishes what a guest placed on its first queue, and gives what became of it.
    fn ask(&mut self, guest: usize) -> Vec<Response> {
        self.guests[guest].publish(0);
        self.run();
        self.guests[guest].responses(0)
    }

    /// What lies on a guest's volume.
    fn contents(&self, guest: usize, sector: u64, bytes: usize) -> Vec<u8> {
        let drive = self.drive.borrow();
        let start = (guest as u64 * SECTORS + sector) as usize * 512;
        drive.contents(UnitId(0))[start..start + bytes].to_vec()
    }

    /// Takes all apart and checks that nothing is held any more.
    fn end(mut self) {
        assert_eq!(self.path.poll_failed(), None);
        for id in &self.ids {
            assert!(self.path.detach(*id).is_some());
        }
        self.run();
        let free = self.path.pages().available() + 16 + 8;
        assert_eq!(free, self.path.pages().capacity(), "pages leaked");
        self.check();
        drop(self.path);
        assert_eq!(self.xen.live(), Live::default());
    }

    /// Nobody made a mistake.
    fn check(&self) {
        assert_eq!(self.xen.take_violations(), []);
        assert_eq!(self.drive.borrow().misuse, Vec::<alloc::string::String>::new());
    }
}

/// Bytes that tell where they belong.
fn pattern(seed: u64, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at as u64 * 7 + (at as u64 >> 9) * 13 + seed * 31) as u8).collect()
}
