//! A disk's driver, its device, and pages of data, for the tests of each driver. Host.

pub(crate) mod halt;
pub(crate) mod random;

use blkdom::disk::{Command, Completion, Disk, Event, IoError, Operation, Refusal, Segment, Tag, UnitId};
use devices::bus::Model;
use devices::fake::Device;
use split_driver::fakes::{FakePages, FakeXen};
use split_driver::memory::{DeviceAddress, PageArray};
use split_driver::time::Instant;
use std::time::Duration;
use xen_pv_sys::PAGE_SIZE;

/// Pages of data.
pub(crate) const PAGES: usize = 300;
/// The time that a driver is first told.
pub(crate) const START: Instant = Instant(1_000_000_000);

pub(crate) const WRITE: Operation = Operation::Write { force_unit_access: false };
pub(crate) const DURABLE: Operation = Operation::Write { force_unit_access: true };
pub(crate) const DISCARD: Operation = Operation::Discard { secure: false };

/// A device of disks.
pub(crate) trait Controller: Model + 'static {
    /// Whether it no longer does anything, as its driver has to leave it.
    fn is_stopped(&self) -> bool;
}

pub(crate) struct Bench<M, D> {
    pub(crate) disk: D,
    pub(crate) device: Device<M>,
    pub(crate) xen: FakeXen,
    pub(crate) pages: FakePages,
    pub(crate) now: Instant,
    pub(crate) done: Vec<Completion>,
    pub(crate) events: Vec<Event>,
}

impl<M: Controller, D: Disk> Bench<M, D> {
    /// With what `make` makes of the device.
    pub(crate) fn new<E>(
        xen: &FakeXen,
        device: &Device<M>,
        make: impl FnOnce(&Device<M>) -> Result<D, E>,
    ) -> Result<Self, E> {
        let disk = make(device)?;
        let pages = FakePages::new(xen, PAGES);
        let (xen, device) = (xen.clone(), device.clone());
        Ok(Self { disk, device, xen, pages, now: START, done: Vec::new(), events: Vec::new() })
    }

    /// Once it is ready.
    pub(crate) fn ready(mut self) -> Self {
        self.run();
        assert_eq!(self.events.pop(), Some(Event::Ready));
        self
    }

    pub(crate) fn poll(&mut self) {
        self.disk.poll(self.now, &mut self.done);
        while let Some(event) = self.disk.poll_event() {
            self.events.push(event);
        }
    }

    /// Interrupts that have come are handled. False where there were none.
    fn interrupt(&mut self) -> bool {
        let messages = self.device.messages();
        messages.iter().for_each(|vector| self.disk.handle_interrupt((*vector).into()));
        !messages.is_empty()
    }

    /// Polls as its user would: upon interrupts, and when its time has come, until nothing is waited for.
    pub(crate) fn run(&mut self) {
        for _ in 0..20_000 {
            self.poll();
            if !self.disk.enable_interrupts() && !self.interrupt() {
                match self.disk.deadline() {
                    Some(deadline) => self.now = self.now.max(deadline),
                    None => return,
                }
            }
        }
        panic!("never at rest");
    }

    /// The same for some time.
    pub(crate) fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.poll();
            if !self.disk.enable_interrupts() && !self.interrupt() {
                self.now = self.disk.deadline().map_or(end, |deadline| deadline.max(self.now)).min(end);
            }
        }
        self.poll();
    }

    /// Where a page is.
    pub(crate) fn page(&self, index: usize) -> u64 {
        self.pages.frame(index).expect("a page").0 * PAGE_SIZE as u64
    }

    /// Whole pages from `first` on, the last as short as it takes.
    pub(crate) fn data(&self, first: usize, bytes: u32) -> Vec<Segment> {
        let pages = (bytes as usize).div_ceil(PAGE_SIZE);
        let length = |page: usize| (bytes - (page * PAGE_SIZE) as u32).min(PAGE_SIZE as u32);
        (0..pages)
            .map(|page| Segment { address: DeviceAddress::made_up(self.page(first + page)), bytes: length(page) })
            .collect()
    }

    /// Submits to the first unit.
    pub(crate) fn submit(
        &mut self,
        operation: Operation,
        sector: u64,
        sectors: u32,
        data: &[Segment],
    ) -> Result<u32, Refusal> {
        self.submit_to(0, operation, sector, sectors, data)
    }

    pub(crate) fn submit_to(
        &mut self,
        unit: u16,
        operation: Operation,
        sector: u64,
        sectors: u32,
        data: &[Segment],
    ) -> Result<u32, Refusal> {
        let command = Command { unit: UnitId(unit), operation, sector, sectors, data, tag: Tag(sector) };
        self.disk.submit(&command)
    }

    /// One command, to its end.
    pub(crate) fn execute(&mut self, operation: Operation, sector: u64, sectors: u32) -> Result<(), IoError> {
        let bytes = if matches!(operation, Operation::Read | Operation::Write { .. }) { sectors * 512 } else { 0 };
        let data = self.data(0, bytes);
        let taken = self.submit(operation, sector, sectors, &data).expect("taken");
        assert_eq!(taken, if operation == Operation::Flush { 0 } else { sectors });
        self.disk.ring();
        self.run();
        assert_eq!(self.done.len(), 1, "one completion");
        let completion = self.done.pop().expect("one completion");
        assert_eq!(completion.tag, Tag(sector));
        completion.result
    }

    /// Results by tag, in order.
    pub(crate) fn results(&mut self) -> Vec<(u64, Result<(), IoError>)> {
        let mut results: Vec<_> = self.done.drain(..).map(|done| (done.tag.0, done.result)).collect();
        results.sort_by_key(|(tag, _)| *tag);
        results
    }

    pub(crate) fn fill(&self, page: usize, value: u8) {
        assert!(self.pages.write(page, 0, &[value; PAGE_SIZE]));
    }

    pub(crate) fn byte(&self, page: usize) -> u8 {
        let mut byte = [0];
        assert!(self.pages.read(page, 0, &mut byte));
        byte[0]
    }

    /// Every test ends so: nothing was done against the specification, nothing touched that is not the driver's.
    pub(crate) fn finish(mut self) {
        self.disk.quiesce();
        assert!(self.device.with_model(|model| model.is_stopped()), "it was left at work");
        assert_eq!(self.device.misuse(), Vec::<String>::new());
        drop(self.disk);
        drop(self.pages);
        assert_eq!(self.xen.take_violations(), []);
        assert_eq!(self.xen.live().local_regions, 0);
    }
}
