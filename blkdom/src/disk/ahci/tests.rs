//! The driver against the model: starts, data byte for byte, limits, errors, time-outs, links and drives that come and go.

use super::command::{Task, opcode};
use super::model::{Device, Drive, Quirks};
use super::registers::{PortStatus, signature};
use super::*;
use crate::disk::{Discard, Geometry, IoError, Operation, Segment, Tag, UnitId, UnitKind};
use alloc::vec;
use split_driver::fakes::{FakePages, FakeXen};
use split_driver::memory::PageArray;
use xen_pv_sys::PAGE_SIZE;

const PAGES: usize = 300;
const WRITE: Operation = Operation::Write { force_unit_access: false };
const DURABLE: Operation = Operation::Write { force_unit_access: true };
const DISCARD: Operation = Operation::Discard { secure: false };
/// Error registers: uncorrectable, garbled by the link, aborted.
const UNCORRECTABLE: u8 = 0x40;
const GARBLED: u8 = 0x84;
const ABORTED: u8 = 0x04;

struct Bench {
    disk: Ahci<Device, FakeXen>,
    device: Device,
    xen: FakeXen,
    pages: FakePages,
    now: Instant,
    done: Vec<Completion>,
    events: Vec<Event>,
}

/// A driver that was given a device and has not done anything yet.
fn raw(prepare: impl FnOnce(&Device)) -> Result<Bench, Error> {
    let xen = FakeXen::new();
    let device = Device::new(&xen);
    prepare(&device);
    let disk = Ahci::new(device.clone(), xen.clone(), Options::default())?;
    let pages = FakePages::new(&xen, PAGES);
    let now = Instant(1_000_000_000);
    Ok(Bench { disk, device, xen, pages, now, done: Vec::new(), events: Vec::new() })
}

/// A driver that is ready.
fn start(prepare: impl FnOnce(&Device)) -> Bench {
    let mut bench = raw(prepare).expect("the model is taken");
    bench.run();
    assert_eq!(bench.events.pop(), Some(Event::Ready));
    bench
}

/// A ready driver with a drive of 512-byte blocks, 1 MiB, on port 1.
fn bench() -> Bench {
    bench_with(Drive::new(9, 2048))
}

fn bench_with(drive: Drive) -> Bench {
    start(|device| device.plug_in(1, drive))
}

impl Bench {
    fn poll(&mut self) {
        self.disk.poll(self.now, &mut self.done);
        while let Some(event) = self.disk.poll_event() {
            self.events.push(event);
        }
    }

    /// Polls as its user would: upon interrupts, and when its time has come, until nothing is waited for.
    fn run(&mut self) {
        for _ in 0..20_000 {
            self.poll();
            if !self.disk.enable_interrupts() {
                if self.device.messages() > 0 {
                    self.disk.handle_interrupt(0);
                    continue;
                }
                match self.disk.deadline() {
                    Some(deadline) => self.now = self.now.max(deadline),
                    None => return,
                }
            }
        }
        panic!("never at rest");
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.poll();
            if !self.disk.enable_interrupts() {
                if self.device.messages() > 0 {
                    self.disk.handle_interrupt(0);
                    continue;
                }
                self.now = self.disk.deadline().map_or(end, |deadline| deadline.max(self.now)).min(end);
            }
        }
        self.poll();
    }

    fn page(&self, index: usize) -> u64 {
        self.pages.frame(index).expect("a page").0 * PAGE_SIZE as u64
    }

    /// Whole pages from `first` on, the last as short as it takes.
    fn data(&self, first: usize, bytes: u32) -> Vec<Segment> {
        let pages = (bytes as usize).div_ceil(PAGE_SIZE);
        let length = |page: usize| (bytes - (page * PAGE_SIZE) as u32).min(PAGE_SIZE as u32);
        (0..pages).map(|page| Segment { address: self.page(first + page), bytes: length(page) }).collect()
    }

    fn submit(&mut self, operation: Operation, sector: u64, sectors: u32, data: &[Segment]) -> Result<u32, Refusal> {
        self.submit_to(0, operation, sector, sectors, data)
    }

    fn submit_to(
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
    fn execute(&mut self, operation: Operation, sector: u64, sectors: u32) -> Result<(), IoError> {
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
    fn results(&mut self) -> Vec<(u64, Result<(), IoError>)> {
        let mut results: Vec<_> = self.done.drain(..).map(|done| (done.tag.0, done.result)).collect();
        results.sort_by_key(|(tag, _)| *tag);
        results
    }

    fn fill(&self, page: usize, value: u8) {
        assert!(self.pages.write(page, 0, &[value; PAGE_SIZE]));
    }

    fn byte(&self, page: usize) -> u8 {
        let mut byte = [0];
        assert!(self.pages.read(page, 0, &mut byte));
        byte[0]
    }

    /// Every test ends so: nothing was done against the specification, nothing touched that is not the driver's.
    fn finish(mut self) {
        self.disk.quiesce();
        assert!(self.device.is_quiet(), "it was left at work");
        assert_eq!(self.device.misuse(), Vec::<&str>::new());
        drop(self.disk);
        drop(self.pages);
        assert_eq!(self.xen.take_violations(), []);
        assert_eq!(self.xen.live().local_regions, 0);
    }
}

#[test]
fn an_adapter_starts_and_tells_what_it_holds() {
    let bench = start(|device| {
        device.plug_in(1, Drive::new(9, 2048).busy_for(50));
        device.plug_in(4, Drive::new(12, 100).with_serial(2).with_queue(0).with_word(85, 0));
        device.plug_in(5, Drive::new(9, 64).with_signature(signature::PACKET));
    });
    assert_eq!(bench.disk.name(), "AHCI 1.3.1, 6 ports, queuing");
    let [first, second] = bench.disk.units() else { panic!("two units: {:?}", bench.disk.units()) };
    assert_eq!((first.id, first.kind), (UnitId(0), UnitKind::Drive));
    assert_eq!((first.model.as_str(), first.serial.as_str()), ("oxidom's disk", "MODEL0001"));
    let discard = Some(Discard { granularity: 512, alignment: 0, secure: false });
    let geometry = Geometry {
        sectors: 2048,
        logical_block: 512,
        physical_block: 512,
        volatile_cache: true,
        read_only: false,
        discard,
        write_zeroes: false,
    };
    assert_eq!(first.geometry, geometry);
    assert_eq!((second.id, second.serial.as_str()), (UnitId(1), "MODEL0002"));
    assert_eq!((second.geometry.sectors, second.geometry.logical_block), (800, 4096));
    assert!(!second.geometry.volatile_cache);
    bench.finish();
}

#[test]
fn data_are_written_read_and_made_durable() {
    for queue in [32, 1, 0] {
        let mut bench = bench_with(Drive::new(9, 2048).with_queue(queue));
        for page in 0..4 {
            bench.fill(page, page as u8 + 1);
        }
        assert_eq!(bench.execute(WRITE, 8, 32), Ok(()));
        let (data, durable) = bench.device.contents(1).expect("the drive");
        assert!((0..4).all(|page| data[(page + 1) * 4096..(page + 2) * 4096].iter().all(|b| *b == page as u8 + 1)));
        assert!(durable.iter().all(|byte| *byte == 0));
        assert_eq!(bench.execute(Operation::Flush, 0, 0), Ok(()));
        assert_eq!(bench.device.contents(1).map(|(data, durable)| data == durable), Some(true));
        bench.fill(0, 9);
        assert_eq!(bench.execute(DURABLE, 0, 1), Ok(()));
        let durable = bench.device.contents(1).map(|(_, durable)| (durable[0], durable[511], durable[512]));
        assert_eq!(durable, Some((9, 9, 0)));
        assert_eq!(bench.execute(Operation::Read, 16, 8), Ok(()));
        assert_eq!(bench.byte(0), 2);
        assert_eq!(bench.execute(DISCARD, 16, 8), Ok(()));
        assert_eq!(bench.execute(Operation::Read, 15, 10), Ok(()));
        assert_eq!((bench.byte(0), bench.byte(1)), (1, 0));
        assert_eq!(bench.execute(Operation::Read, 24, 1), Ok(()));
        assert_eq!(bench.byte(0), 3);
        let opcodes: Vec<u8> = bench.device.executed(1).iter().map(|task| task.opcode).collect();
        let queued = [0x61, 0xEA, 0x61, 0x60, 0x06, 0x60, 0x60];
        let unqueued = [0x35, 0xEA, 0x3D, 0x25, 0x06, 0x25, 0x25];
        assert_eq!(opcodes, if queue > 0 { queued } else { unqueued });
        bench.finish();
    }
}
