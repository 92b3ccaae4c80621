//! The control plane's reads beside the guests' work.

use super::{SECTORS, UNIT, World, pattern};
use crate::datapath::Reader;
use crate::disk::{IoError, UnitId};
use crate::fakes::{Drive, Fault, FaultyRange, Setup};
use crate::volume::{Sectors, UnitRef};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::task::Wake;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::future::Future;
use core::pin::Pin;
use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::{Context, Poll, Waker};
use split_driver::fakes::FakeXen;
use split_driver::fakes::closed;
use split_driver::memory::Reach;
use split_driver::time::Instant;

type Path = Rc<RefCell<crate::datapath::DataPath<FakeXen>>>;

/// Counts wakes.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Reading {
    path: Path,
    reader: Reader<FakeXen>,
    drive: Rc<RefCell<Drive>>,
    /// Calls that ask for a round.
    asked: Rc<Cell<usize>>,
    woken: Arc<Woken>,
}

type Read<'a> = Pin<Box<dyn Future<Output = Result<Vec<u8>, IoError>> + 'a>>;

impl Reading {
    fn new() -> Self {
        let World { path, drive, .. } = World::new(&[Setup::default()]);
        let path = Rc::new(RefCell::new(path));
        let asked = Rc::new(Cell::new(0));
        let count = Rc::clone(&asked);
        let reader = Reader::new(Rc::clone(&path), move || count.set(count.get() + 1));
        drive.borrow_mut().write(UnitId(0), 0, &pattern(2, SECTORS as usize * 512));
        Self { path, reader, drive, asked, woken: Arc::default() }
    }

    fn read(&self, unit: UnitRef, sector: u64, sectors: u32) -> Read<'_> {
        Box::pin(self.reader.read(unit, sector, sectors))
    }

    fn poll(&self, read: &mut Read<'_>) -> Poll<Result<Vec<u8>, IoError>> {
        let waker = Waker::from(Arc::clone(&self.woken));
        read.as_mut().poll(&mut Context::from_waker(&waker))
    }

    fn rounds(&self) {
        while self.path.borrow_mut().poll(Instant(0)).again {}
    }

    /// The end of a read: polled only where it was woken, and the path only where it was asked for.
    fn finish(&self, read: &mut Read<'_>) -> Result<Vec<u8>, IoError> {
        for _ in 0..1000 {
            let (asked, woken) = (self.asked.get(), self.woken.0.load(Ordering::Relaxed));
            if let Poll::Ready(result) = self.poll(read) {
                return result;
            }
            if self.asked.get() > asked {
                self.rounds();
            }
            assert!(self.woken.0.load(Ordering::Relaxed) > woken, "it sleeps for good");
        }
        panic!("it never ends");
    }
}

fn bytes(sector: usize, sectors: usize) -> Vec<u8> {
    pattern(2, SECTORS as usize * 512)[sector * 512..][..sectors * 512].to_vec()
}

#[test]
fn reads_of_any_length() {
    let reading = Reading::new();
    for most in [1 << 20, 24] {
        reading.drive.borrow_mut().most_sectors = most;
        for (sector, sectors) in [(0, 1), (3, 8), (100, 63), (100, 65), (8, 256), (0, 0)] {
            let mut read = reading.read(UNIT, sector, sectors);
            assert_eq!(reading.finish(&mut read), Ok(bytes(sector as usize, sectors as usize)), "{sector} {sectors}");
        }
    }
    let free = reading.path.borrow().pages().available();
    assert_eq!(free, super::PAGES - 24);
}

#[test]
fn reads_that_fail() {
    let reading = Reading::new();
    let gone = UnitRef { controller: 3, unit: UnitId(0) };
    assert_eq!(reading.finish(&mut reading.read(gone, 0, 8)), Err(IoError::Gone));
    let gone = UnitRef { controller: 0, unit: UnitId(7) };
    assert_eq!(reading.finish(&mut reading.read(gone, 0, 8)), Err(IoError::Gone));
    let error = IoError::Device { code: 9 };
    let fault =
        FaultyRange { unit: UnitId(0), sectors: 90..91, reads: true, writes: false, fault: Fault::Error(error) };
    reading.drive.borrow_mut().faults.push(fault);
    assert_eq!(reading.finish(&mut reading.read(UNIT, 0, 128)), Err(error));
    assert_eq!(reading.finish(&mut reading.read(UNIT, 0, 128)), Ok(bytes(0, 128)));
    // Beyond the end: the driver refuses it.
    assert_eq!(reading.finish(&mut reading.read(UNIT, SECTORS, 8)), Err(IoError::Unsupported));
    assert_eq!(reading.finish(&mut reading.read(UNIT, u64::MAX, 128)), Err(IoError::Unsupported));
    reading.path.borrow_mut().remove_disk(0, closed(&Reach::default()));
    assert_eq!(reading.finish(&mut reading.read(UNIT, 0, 8)), Err(IoError::Gone));
}

/// Two at once go one after the other; one that is given up gives way, whatever the disk does to it.
#[test]
fn readers_take_turns() {
    let reading = Reading::new();
    reading.drive.borrow_mut().hold = true;
    let mut first = reading.read(UNIT, 0, 64);
    let mut second = reading.read(UNIT, 64, 64);
    assert!(reading.poll(&mut first).is_pending());
    reading.rounds();
    assert!(reading.poll(&mut second).is_pending());
    assert_eq!(reading.drive.borrow().in_flight(), 1);
    drop(first);
    reading.rounds();
    assert!(reading.poll(&mut second).is_pending(), "the disk works on the pages still");
    assert_eq!(reading.drive.borrow().in_flight(), 1);
    reading.drive.borrow_mut().hold = false;
    let woken = reading.woken.0.load(Ordering::Relaxed);
    reading.rounds();
    assert!(reading.woken.0.load(Ordering::Relaxed) > woken);
    assert_eq!(reading.finish(&mut second), Ok(bytes(64, 64)));
    // Given up before it was submitted at all.
    let mut third = reading.read(UNIT, 0, 8);
    assert!(reading.poll(&mut third).is_pending());
    drop(third);
    assert_eq!(reading.finish(&mut reading.read(UNIT, 8, 8)), Ok(bytes(8, 8)));
}
