//! blkdom's AHCI driver against the model: starts, data byte for byte, limits, errors, time-outs, links and drives that come and go.
//! Host.

mod disk;

use blkdom::disk::ahci::command::opcode;
use blkdom::disk::ahci::identify::Identity;
use blkdom::disk::ahci::registers::{self as reg, PORT_BYTES, PORTS, PortCommand, PortStatus, signature};
use blkdom::disk::ahci::{Ahci, Error, Options};
use blkdom::disk::halt::Halt;
use blkdom::disk::{
    Command, Completion, Discard, Disk, Event, Geometry, IoError, Operation, Refusal, Segment, Tag, UnitId, UnitKind,
};
use devices::ahci::{Accesses, Ahci as Model, Drive, PORTS as MODEL_PORTS, Quirks, Trap};
use devices::bus::{Interrupt, Model as _};
use devices::fake::Device;
use disk::random::{self, Tried};
use disk::{Controller, DISCARD, DURABLE, PAGES, START, WRITE};
use proptest::prelude::*;
use split_driver::fakes::{FakeDma, FakePages, FakeXen};
use split_driver::memory::{DeviceAddress, PageArray};
use split_driver::time::Instant;
use std::time::Duration;

/// Error registers: uncorrectable, garbled by the link.
const UNCORRECTABLE: u8 = 0x40;
const GARBLED: u8 = 0x84;
/// The port whose drive random commands are for.
const TRIED: usize = 2;

type Bench = disk::Bench<Model, Ahci<Device<Model>, FakeDma>>;

impl Controller for Model {
    fn is_stopped(&self) -> bool {
        self.is_quiet()
    }
}

impl Tried for Model {
    type Driver = Ahci<Device<Self>, FakeDma>;
    const NAMES_PIECES: bool = true;
    const BAD: IoError = IoError::Device { code: 0x5100 | UNCORRECTABLE as u32 };

    fn driver(device: &Device<Self>) -> Self::Driver {
        device.interrupt_by(Interrupt::Msi);
        Ahci::new(device.clone(), device.dma(), Options::default()).expect("taken")
    }

    fn be_lazy(&mut self, lazy: bool) {
        self.be_lazy(lazy);
    }

    fn execute(&mut self, place: usize) {
        self.execute_at(TRIED, place);
    }

    fn pending(&mut self) -> usize {
        self.waiting(TRIED)
    }

    fn held(&mut self) -> Vec<u8> {
        self.contents(TRIED).expect("the drive").0
    }

    fn spoil(&mut self, block: u64) {
        self.fail(TRIED, block, UNCORRECTABLE, 1);
    }

    fn mend(&mut self) {
        self.forgive(TRIED);
    }

    fn disturb(bench: &mut Bench, kind: u8, block: u64) -> Duration {
        let cut = |ahci: &mut Self| ahci.cut_link(TRIED, true);
        let mend = |ahci: &mut Self| ahci.cut_link(TRIED, false);
        match kind {
            0 => bench.device.with_model(|ahci| ahci.break_down(TRIED, PortStatus::new().with_link_fatal(true))),
            1 => bench.device.with_model(|ahci| ahci.break_down(TRIED, PortStatus::new().with_bus_data(true))),
            2 => {
                bench.device.with_model(cut);
                bench.device.with_model(mend);
            }
            3 => {
                bench.device.with_model(cut);
                bench.poll();
                bench.now = bench.now + Duration::from_secs(3);
                bench.poll();
                bench.device.with_model(mend);
            }
            4 => bench.device.with_model(|ahci| ahci.fail(TRIED, block, GARBLED, 1)),
            _ => return Duration::from_millis(700),
        }
        Duration::ZERO
    }
}

#[test]
fn a_halted_adapter_does_nothing_that_it_was_asked_before() {
    let mut model = Model::new();
    model.plug_in(TRIED, Drive::new(9, 2048));
    disk::halt::what_was_asked_before_is_not_done(model, Halt::Ahci);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_drive_holds_what_was_written(
        large in any::<bool>(),
        log in any::<bool>(),
        queue in prop_oneof![Just(32u8), Just(3), Just(0)],
        steps in proptest::collection::vec(random::step(), 1..60),
    ) {
        let shift = if large { 12 } else { 9 };
        let drive = Drive::new(shift, random::SECTORS >> (shift - 9)).with_queue(queue);
        let mut model = Model::new();
        model.plug_in(TRIED, if log { drive } else { drive.without_log() });
        random::holds_what_was_written(model, &steps)?;
    }
}

/// A driver that was given a device and has not done anything yet.
fn raw(prepare: impl FnOnce(&mut Model)) -> Result<Bench, Error> {
    raw_of(devices::ahci::SPACE, prepare)
}

/// The same with so many bytes of registers.
fn raw_of(mapped: usize, prepare: impl FnOnce(&mut Model)) -> Result<Bench, Error> {
    let xen = FakeXen::new();
    let device = adapter(&xen, prepare);
    device.map(mapped);
    Bench::new(&xen, &device, |device| Ahci::new(device.clone(), device.dma(), Options::default()))
}

/// A device that sends messages.
fn adapter(xen: &FakeXen, prepare: impl FnOnce(&mut Model)) -> Device<Model> {
    let mut model = Model::new();
    prepare(&mut model);
    let device = Device::new(xen, model);
    device.interrupt_by(Interrupt::Msi);
    device
}

/// A driver that is ready.
fn start(prepare: impl FnOnce(&mut Model)) -> Bench {
    raw(prepare).expect("the model is taken").ready()
}

/// A ready driver with a drive of 512-byte blocks, 1 MiB, on port 1.
fn bench() -> Bench {
    bench_with(Drive::new(9, 2048))
}

fn bench_with(drive: Drive) -> Bench {
    start(|ahci| ahci.plug_in(1, drive))
}

#[test]
fn an_adapter_starts_and_tells_what_it_holds() {
    let bench = start(|ahci| {
        ahci.plug_in(1, Drive::new(9, 2048).busy_for(50));
        ahci.plug_in(4, Drive::new(12, 100).with_serial(2).with_queue(0).with_word(85, 0));
        ahci.plug_in(5, Drive::new(9, 64).with_signature(signature::PACKET));
    });
    assert_eq!(bench.disk.name(), "AHCI 1.3.1, 6 ports, queuing");
    let [first, second] = bench.disk.units() else { panic!("two units: {:?}", bench.disk.units()) };
    assert_eq!((first.id, first.kind), (UnitId(0), UnitKind::Drive(1)));
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
        let (data, durable) = bench.device.with_model(|ahci| ahci.contents(1)).expect("the drive");
        assert!((0..4).all(|page| data[(page + 1) * 4096..(page + 2) * 4096].iter().all(|b| *b == page as u8 + 1)));
        assert!(durable.iter().all(|byte| *byte == 0));
        assert_eq!(bench.execute(Operation::Flush, 0, 0), Ok(()));
        assert_eq!(bench.device.with_model(|ahci| ahci.contents(1)).map(|(data, durable)| data == durable), Some(true));
        bench.fill(0, 9);
        assert_eq!(bench.execute(DURABLE, 0, 1), Ok(()));
        let durable = bench
            .device
            .with_model(|ahci| ahci.contents(1))
            .map(|(_, durable)| (durable[0], durable[511], durable[512]));
        assert_eq!(durable, Some((9, 9, 0)));
        assert_eq!(bench.execute(Operation::Read, 16, 8), Ok(()));
        assert_eq!(bench.byte(0), 2);
        assert_eq!(bench.execute(DISCARD, 16, 8), Ok(()));
        assert_eq!(bench.execute(Operation::Read, 15, 10), Ok(()));
        assert_eq!((bench.byte(0), bench.byte(1)), (1, 0));
        assert_eq!(bench.execute(Operation::Read, 24, 1), Ok(()));
        assert_eq!(bench.byte(0), 3);
        let opcodes: Vec<u8> =
            bench.device.with_model(|ahci| ahci.executed(1)).iter().map(|task| task.opcode).collect();
        let queued = [0x61, 0xEA, 0x61, 0x60, 0x06, 0x60, 0x60];
        let unqueued = [0x35, 0xEA, 0x3D, 0x25, 0x06, 0x25, 0x25];
        assert_eq!(opcodes, if queue > 0 { queued } else { unqueued });
        bench.finish();
    }
}

#[test]
fn devices_that_are_none_are_refused() {
    assert_eq!(raw(|ahci| ahci.faults().pulled_out = true).err(), Some(Error::Absent));
    let short = |ahci: &mut Model| ahci.set_capabilities(|cap| cap.with_long_addresses(false));
    assert_eq!(raw(short).err(), Some(Error::ShortAddresses));
    assert_eq!(raw_of(0x100, |_| {}).err(), Some(Error::Registers { mapped: 0x100 }));
    let xen = FakeXen::new();
    for credit in 0..MODEL_PORTS {
        xen.limit_dma(credit);
        let device = adapter(&xen, |_| {});
        assert_eq!(Ahci::new(device, xen.dma(), Options::default()).err(), Some(Error::Memory));
    }
    assert_eq!(xen.live().local_regions, 0);
}

#[test]
fn a_drive_without_memory_for_its_commands_is_left_alone() {
    let mut bench = raw(|ahci| {
        ahci.plug_in(0, Drive::new(9, 64).with_queue(2));
        ahci.plug_in(1, Drive::new(9, 64));
    })
    .expect("taken");
    bench.xen.limit_dma(3);
    bench.run();
    assert_eq!(bench.disk.units().len(), 1);
    assert_eq!(bench.execute(Operation::Read, 0, 1), Ok(()));
    bench.finish();
}

#[test]
fn ports_beyond_those_mapped_or_implemented_are_left_alone() {
    let prepare = |ahci: &mut Model| {
        ahci.implement(0b01_0110);
        ahci.plug_in(2, Drive::new(9, 64));
        ahci.plug_in(4, Drive::new(9, 64));
    };
    let mut bench = raw_of(reg::PORTS + 3 * reg::PORT_BYTES, prepare).expect("taken").ready();
    assert_eq!(bench.disk.name(), "AHCI 1.3.1, 2 ports, queuing");
    assert_eq!(bench.disk.units().len(), 1);
    assert_eq!(bench.execute(Operation::Read, 0, 1), Ok(()));
    bench.finish();
}

#[test]
fn the_firmware_is_asked_for_the_adapter() {
    let bench = start(|ahci| {
        ahci.own_by_firmware();
        ahci.plug_in(0, Drive::new(9, 64));
    });
    assert!(
        bench.device.with_model(|ahci| ahci.owner()).system_owns()
            && !bench.device.with_model(|ahci| ahci.owner()).firmware_owns()
    );
    bench.finish();
    // One that does not let go is not waited for longer than it may take.
    let bench = start(|ahci| {
        ahci.own_by_firmware();
        ahci.set_register(0x28, Some(1));
        ahci.plug_in(0, Drive::new(9, 64));
    });
    assert_eq!(bench.disk.units().len(), 1);
    bench.finish();
}

#[test]
fn commands_that_cannot_be_are_refused() {
    let mut bench = start(|ahci| {
        ahci.plug_in(0, Drive::new(9, 2048));
        ahci.plug_in(1, Drive::new(12, 16).with_word(169, 0).with_word(84, 0));
    });
    let page = bench.page(0);
    let whole = |bytes| [Segment { address: DeviceAddress::made_up(page), bytes }];
    let mut refused = |unit, operation, sector, sectors, data: &[Segment]| {
        bench.submit_to(unit, operation, sector, sectors, data).err()
    };
    let malformed = Some(Refusal::Malformed);
    let read = Operation::Read;
    assert_eq!(refused(9, read, 0, 8, &whole(4096)), Some(Refusal::NoUnit));
    assert_eq!(refused(0, read, 2048, 1, &whole(512)), malformed);
    assert_eq!(refused(0, read, 2047, 2, &whole(1024)), malformed);
    assert_eq!(refused(0, read, u64::MAX, 1, &whole(512)), malformed);
    assert_eq!(refused(0, WRITE, u64::MAX - 3, 8, &whole(4096)), malformed);
    assert_eq!(refused(0, read, 0, 0, &[]), malformed);
    assert_eq!(refused(0, read, 0, 1, &[]), malformed);
    assert_eq!(refused(0, read, 0, 2, &whole(512)), malformed);
    assert_eq!(refused(0, read, 0, 1, &whole(1024)), malformed);
    for (address, bytes) in [(page + 4, 512u32), (page, 100), (page + 4096 - 512, 1024), (page, 8192)] {
        assert_eq!(
            refused(0, read, 0, bytes.div_ceil(512), &[Segment { address: DeviceAddress::made_up(address), bytes }]),
            malformed
        );
    }
    assert_eq!(refused(0, DISCARD, 2040, 9, &[]), malformed);
    // Blocks of 4 KiB: not a part of one.
    assert_eq!(refused(1, read, 4, 8, &whole(4096)), malformed);
    assert_eq!(refused(1, read, 0, 4, &whole(2048)), malformed);
    let unsupported = Some(Refusal::Unsupported);
    assert_eq!(refused(0, Operation::Discard { secure: true }, 0, 8, &[]), unsupported);
    assert_eq!(refused(0, Operation::WriteZeroes, 0, 8, &[]), unsupported);
    assert_eq!(refused(1, DISCARD, 0, 8, &[]), unsupported);
    assert_eq!(refused(1, DURABLE, 0, 8, &whole(4096)), unsupported);
    assert_eq!(bench.device.with_model(|ahci| ahci.executed(0)), []);
    bench.finish();
}

#[test]
fn without_a_cache_each_write_is_durable() {
    let mut bench = bench_with(Drive::new(9, 64).with_word(84, 0).with_word(85, 0));
    assert_eq!(bench.execute(DURABLE, 0, 8), Ok(()));
    assert_eq!(bench.execute(Operation::Flush, 0, 0), Ok(()));
    bench.finish();
}

/// Segments as (page, offset, bytes); the entries that name them, and how many bytes one command takes.
#[test]
fn memory_is_named_as_it_lies() {
    type Pieces = &'static [(usize, u32, u32)];
    let table: &[(Pieces, u32)] = &[
        (&[(0, 0, 512)], 512),
        (&[(0, 3584, 512)], 512),
        (&[(0, 0, 4096), (5, 0, 4096)], 8192),
        // Pages that lie side by side.
        (&[(0, 0, 4096), (1, 0, 4096), (2, 0, 1024)], 9216),
        (&[(0, 512, 512), (0, 2048, 512), (7, 1024, 1024)], 2048),
        (&[(3, 0, 512), (2, 0, 512), (3, 512, 512)], 1536),
    ];
    for (segments, taken) in table {
        let mut bench = bench();
        let data = segments.iter().map(|(page, offset, bytes)| Segment {
            address: DeviceAddress::made_up(bench.page(*page) + u64::from(*offset)),
            bytes: *bytes,
        });
        let data: Vec<Segment> = data.collect();
        for (place, (page, offset, bytes)) in segments.iter().enumerate() {
            assert!(bench.pages.write(*page, *offset as usize, &vec![place as u8 + 1; *bytes as usize]));
        }
        let sectors = data.iter().map(|segment| segment.bytes / 512).sum();
        assert_eq!(bench.submit(WRITE, 0, sectors, &data), Ok(taken / 512), "{segments:?}");
        bench.disk.ring();
        bench.run();
        assert_eq!(bench.results(), [(0, Ok(()))]);
        let (written, _) = bench.device.with_model(|ahci| ahci.contents(1)).expect("the drive");
        let expected = segments.iter().enumerate();
        let expected: Vec<u8> =
            expected.flat_map(|(place, (.., bytes))| vec![place as u8 + 1; *bytes as usize]).collect();
        assert_eq!(written[..*taken as usize], expected, "{segments:?}");
        assert!(written[*taken as usize..].iter().all(|byte| *byte == 0), "{segments:?}");
        bench.finish();
    }
}

#[test]
fn long_commands_are_taken_in_parts() {
    // Every second page: none adjoins another.
    let parts = |shift: u8, pieces: usize, bytes: u32| {
        let mut bench = bench_with(Drive::new(shift, 1 << (24 - shift)));
        let data =
            (0..pieces).map(|piece| Segment { address: DeviceAddress::made_up(bench.page(piece * 2 % PAGES)), bytes });
        let mut data: Vec<Segment> = data.collect();
        let (mut parts, mut sector) = (Vec::new(), 0);
        while !data.is_empty() {
            let sectors = data.iter().map(|segment| segment.bytes / 512).sum();
            let taken = bench.submit(Operation::Read, sector, sectors, &data).expect("taken");
            parts.push(taken);
            sector += u64::from(taken);
            data.drain(..(taken * 512 / bytes) as usize);
        }
        bench.disk.ring();
        bench.run();
        assert!(bench.results().iter().all(|(_, result)| result.is_ok()));
        bench.finish();
        parts
    };
    assert_eq!(parts(9, 120, 4096), [960]);
    assert_eq!(parts(9, 125, 4096), [960, 40]);
    assert_eq!(parts(9, 250, 512), [120, 120, 10]);
    // 120 pieces of 1,536 bytes are 45 blocks of 4 KiB, and none of the next; they end with a piece.
    assert_eq!(parts(12, 128, 1536), [360, 24]);
}

#[test]
fn a_block_that_is_not_all_there_is_left_to_the_next_command() {
    let mut bench = bench_with(Drive::new(12, 64));
    let mut data: Vec<Segment> =
        (0..240).map(|piece| Segment { address: DeviceAddress::made_up(bench.page(piece)), bytes: 1024 }).collect();
    data.extend((0..5).map(|piece| Segment { address: DeviceAddress::made_up(bench.page(250 + piece)), bytes: 3072 }));
    data.push(Segment { address: DeviceAddress::made_up(bench.page(260)), bytes: 1024 });
    // 120 entries, 30 blocks.
    assert_eq!(bench.submit(WRITE, 0, 512, &data), Ok(240));
    // 117 entries of 1 KiB, 3 of 3 KiB: 126 KiB, of which 2 are of a block that goes on.
    let rest = &data[123..];
    let sectors = rest.iter().map(|segment| segment.bytes / 512).sum();
    assert_eq!(bench.submit(WRITE, 240, sectors, rest).err(), Some(Refusal::Malformed), "an odd count of blocks");
    let rest = [rest, &[Segment { address: DeviceAddress::made_up(bench.page(270)), bytes: 3072 }]].concat();
    let sectors = rest.iter().map(|segment| segment.bytes / 512).sum();
    assert_eq!(bench.submit(WRITE, 240, sectors, &rest), Ok(248));
    bench.disk.ring();
    bench.run();
    assert_eq!(bench.results(), [(0, Ok(())), (240, Ok(()))]);
    bench.finish();
}

#[test]
fn a_command_moves_no_more_than_its_count_can_say() {
    // Pages side by side are one entry: 32 MiB of blocks of 512 bytes would be too many.
    let xen = FakeXen::new();
    let device = adapter(&xen, |ahci| ahci.plug_in(0, Drive::new(9, 1 << 17)));
    let mut disk = Ahci::new(device.clone(), device.dma(), Options::default()).expect("taken");
    let mut now = Instant(0);
    while disk.units().is_empty() {
        disk.poll(now, &mut Vec::new());
        now = now + Duration::from_millis(1);
    }
    let pages = FakePages::new(&xen, 8200);
    let base = pages.frame(0).expect("a page").0 * 4096;
    let data: Vec<Segment> =
        (0..8200).map(|page| Segment { address: DeviceAddress::made_up(base + page * 4096), bytes: 4096 }).collect();
    let sectors = 8200 * 8;
    let command = Command { unit: UnitId(0), operation: Operation::Read, sector: 0, sectors, data: &data, tag: Tag(0) };
    assert_eq!(disk.submit(&command), Ok(65_536));
    disk.ring();
    let mut done = Vec::new();
    disk.poll(now, &mut done);
    assert_eq!(done, [Completion { tag: Tag(0), result: Ok(()) }]);
    disk.quiesce();
    assert_eq!(device.misuse(), Vec::<String>::new());
}

#[test]
fn trims_are_taken_in_parts() {
    // It claims to be larger than it is; the first trim goes beyond its end.
    let mut bench = bench_with(Drive::new(9, 64).with_word(101, 1 << 7));
    assert_eq!(bench.submit(DISCARD, 5, 1 << 22, &[]), Ok(Identity::trim_blocks()));
    assert_eq!(bench.submit(DISCARD, 7, 3, &[]), Ok(3));
    bench.disk.ring();
    bench.run();
    assert_eq!(bench.results(), [(5, Err(IoError::Device { code: 0x5110 })), (7, Ok(()))]);
    bench.finish();
}

#[test]
fn queued_commands_end_in_any_order() {
    let mut bench = bench();
    bench.device.with_model(|ahci| ahci.be_lazy(true));
    let data = bench.data(0, 512);
    for sector in 0..32 {
        bench.submit(Operation::Read, sector, 1, &data).expect("taken");
    }
    assert_eq!(bench.submit(Operation::Read, 32, 1, &data), Err(Refusal::Full));
    bench.disk.ring();
    assert_eq!(bench.device.with_model(|ahci| ahci.waiting(1)), 32);
    for place in [31, 7, 0] {
        assert!(bench.device.with_model(|ahci| ahci.execute_at(1, place)));
        bench.poll();
    }
    let tags: Vec<u64> = bench.done.drain(..).map(|done| done.tag.0).collect();
    assert_eq!(tags, [31, 7, 0]);
    // Their slots are free again.
    for sector in 40..43 {
        bench.submit(Operation::Read, sector, 1, &data).expect("taken");
    }
    bench.disk.ring();
    bench.device.with_model(|ahci| ahci.be_lazy(false));
    bench.run();
    assert_eq!(bench.done.len(), 32);
    bench.finish();
}

#[test]
fn fewer_are_queued_where_the_drive_has_fewer() {
    for (queue, slots, most) in [(8, 31, 8), (32, 3, 4), (0, 15, 16)] {
        let mut bench = start(|ahci| {
            ahci.set_capabilities(|capabilities| capabilities.with_slots(slots));
            ahci.plug_in(1, Drive::new(9, 2048).with_queue(queue));
        });
        let data = bench.data(0, 512);
        let mut taken = 0;
        while bench.submit(Operation::Read, taken, 1, &data).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, most);
        bench.disk.ring();
        bench.run();
        assert_eq!(bench.done.len() as u64, most);
        bench.finish();
    }
    let mut bench = start(|ahci| {
        ahci.set_capabilities(|capabilities| capabilities.with_queuing(false));
        ahci.plug_in(1, Drive::new(9, 2048));
    });
    assert_eq!(bench.execute(Operation::Read, 0, 1), Ok(()));
    assert_eq!(bench.device.with_model(|ahci| ahci.executed(1))[0].opcode, opcode::READ_DMA);
    bench.finish();
}

#[test]
fn a_flush_waits_for_what_was_queued_and_is_waited_for() {
    let mut bench = bench();
    bench.device.with_model(|ahci| ahci.be_lazy(true));
    let data = bench.data(0, 512);
    for sector in 0..3 {
        bench.submit(WRITE, sector, 1, &data).expect("taken");
    }
    bench.submit(Operation::Flush, 100, 0, &[]).expect("taken");
    bench.submit(DISCARD, 50, 1, &[]).expect("taken");
    bench.submit(WRITE, 4, 1, &data).expect("taken");
    bench.disk.ring();
    let mut waiting = Vec::new();
    for _ in 0..6 {
        waiting.push(bench.device.with_model(|ahci| ahci.waiting(1)));
        assert!(bench.device.with_model(|ahci| ahci.execute_at(1, 0)));
        bench.poll();
    }
    assert_eq!(waiting, [3, 2, 1, 1, 1, 1]);
    let tags: Vec<u64> = bench.done.drain(..).map(|done| done.tag.0).collect();
    assert_eq!(tags, [0, 1, 2, 100, 50, 4]);
    bench.finish();
}

#[test]
fn a_round_costs_few_accesses() {
    let mut bench = bench();
    bench.device.with_model(|ahci| ahci.be_lazy(true));
    bench.poll();
    bench.device.with_model(|ahci| ahci.accesses());
    let data = bench.data(0, 512);
    for sector in 0..20 {
        bench.submit(Operation::Read, sector, 1, &data).expect("taken");
    }
    bench.disk.ring();
    bench.disk.ring();
    let accesses = bench.device.with_model(|ahci| ahci.accesses());
    assert_eq!((accesses.reads, accesses.writes), (0, 2), "PxSACT and PxCI");
    bench.device.with_model(|ahci| ahci.be_lazy(false));
    bench.disk.handle_interrupt(0);
    bench.device.with_model(|ahci| ahci.accesses());
    bench.poll();
    assert_eq!(bench.done.len(), 20);
    let accesses = bench.device.with_model(|ahci| ahci.accesses());
    assert_eq!((accesses.reads, accesses.writes), (4, 2), "IS, PxIS, PxCI, PxSACT; PxIS, IS");
    bench.poll();
    let accesses = bench.device.with_model(|ahci| ahci.accesses());
    assert_eq!((accesses.reads, accesses.writes), (0, 0), "nothing is at work");
    bench.finish();
}

#[test]
fn interrupts_come_once_until_they_are_enabled() {
    let mut bench = bench();
    let data = bench.data(0, 512);
    assert!(!bench.disk.enable_interrupts());
    bench.device.messages();
    bench.submit(Operation::Read, 0, 1, &data).expect("taken");
    bench.disk.ring();
    assert_eq!(bench.device.messages(), [0]);
    bench.disk.handle_interrupt(0);
    bench.poll();
    bench.submit(Operation::Read, 1, 1, &data).expect("taken");
    bench.disk.ring();
    assert_eq!(bench.device.messages(), [0; 0]);
    assert!(bench.disk.enable_interrupts(), "it came before they were enabled");
    bench.poll();
    assert_eq!(bench.done.len(), 2);
    assert!(!bench.disk.enable_interrupts());
    bench.finish();
}

/// Eight reads in flight of which those of `bad` sectors fail; gives what became of them.
fn eight(bench: &mut Bench, bad: &[u64], error: u8, times: u32) -> Vec<(u64, Result<(), IoError>)> {
    let data = bench.data(0, 512);
    for sector in bad {
        bench.device.with_model(|ahci| ahci.fail(1, *sector, error, times));
    }
    bench.device.with_model(|ahci| ahci.be_lazy(true));
    for sector in 0..8 {
        bench.submit(Operation::Read, sector, 1, &data).expect("taken");
    }
    bench.disk.ring();
    bench.device.with_model(|ahci| ahci.execute_at(1, 0));
    bench.device.with_model(|ahci| ahci.be_lazy(false));
    bench.run();
    bench.results()
}

fn failed(bad: &[u64], error: u8) -> Vec<(u64, Result<(), IoError>)> {
    let code = 0x5100 | u32::from(error);
    (0..8).map(|tag| (tag, if bad.contains(&tag) { Err(IoError::Device { code }) } else { Ok(()) })).collect()
}

#[test]
fn a_command_that_fails_fails_alone() {
    for bad in [&[0u64][..], &[3], &[7], &[1, 2, 6], &[0, 1, 2, 3, 4, 5, 6, 7]] {
        for quirks in [
            Quirks::default(),
            Quirks { forgets_failed: true, ..Quirks::default() },
            Quirks { hides_queued_errors: true, ..Quirks::default() },
        ] {
            for drive in [Drive::new(9, 64), Drive::new(9, 64).without_log(), Drive::new(9, 64).with_queue(0)] {
                let mut bench = bench_with(drive.clone());
                bench.device.with_model(|ahci| ahci.set_quirks(1, quirks));
                let results = eight(&mut bench, bad, UNCORRECTABLE, 100);
                assert_eq!(results, failed(bad, UNCORRECTABLE), "{quirks:?} {drive:?}");
                assert_eq!(bench.events, [], "nobody else is concerned");
                bench.device.with_model(|ahci| ahci.forgive(1));
                assert_eq!(bench.execute(WRITE, 0, 8), Ok(()));
                bench.finish();
            }
        }
    }
}

#[test]
fn an_error_that_is_past_is_not_found_again() {
    let mut bench = bench();
    // A trim beyond the end of a drive that shrank: the task file keeps its error.
    bench.device.with_model(|ahci| ahci.resize(1, 64));
    assert_eq!(bench.execute(DISCARD, 1000, 8), Err(IoError::Device { code: 0x5110 }));
    bench.device.with_model(|ahci| ahci.be_lazy(true));
    let data = bench.data(0, 512);
    bench.submit(Operation::Read, 0, 1, &data).expect("taken");
    bench.disk.ring();
    bench.device.with_model(|ahci| ahci.raise(1, PortStatus::new().with_device_bits(true)));
    bench.wait(Duration::from_secs(5));
    bench.device.with_model(|ahci| ahci.be_lazy(false));
    bench.run();
    assert_eq!(bench.results(), [(0, Ok(()))]);
    assert_eq!((bench.disk.statistics().errors, bench.disk.statistics().resets), (1, 0));
    bench.finish();
}

#[test]
fn the_log_spares_a_reset_of_the_link() {
    let mut bench = bench();
    eight(&mut bench, &[3], UNCORRECTABLE, 100);
    assert_eq!((bench.disk.statistics().errors, bench.disk.statistics().resets), (1, 0));
    let opcodes = bench.device.with_model(|ahci| ahci.executed(1)).len();
    assert!(opcodes <= 8 + 6, "{opcodes}: those that did not fail are not sent again and again");
    bench.finish();
}

#[test]
fn what_the_link_garbled_is_sent_again() {
    for queue in [32, 0] {
        let mut bench = bench_with(Drive::new(9, 64).with_queue(queue));
        assert_eq!(eight(&mut bench, &[2], GARBLED, 2), failed(&[], 0));
        assert_eq!(bench.disk.statistics().retries, 2);
        assert_eq!(eight(&mut bench, &[2], GARBLED, 100), failed(&[2], GARBLED));
        bench.finish();
    }
}

#[test]
fn a_trim_beyond_the_drives_end_is_the_devices_error() {
    let mut bench = bench();
    // It is out of range for the drive, which shrank without a word.
    bench.device.with_model(|ahci| ahci.resize(1, 64));
    assert_eq!(bench.execute(DISCARD, 1000, 8), Err(IoError::Device { code: 0x5110 }));
    bench.finish();
}

#[test]
fn errors_of_the_link_and_of_memory_lose_no_command() {
    for status in [
        PortStatus::new().with_link_fatal(true),
        PortStatus::new().with_bus_data(true),
        PortStatus::new().with_bus_fatal(true).with_task_file(true),
    ] {
        let mut bench = bench();
        let data = bench.data(0, 512);
        bench.device.with_model(|ahci| ahci.be_lazy(true));
        for sector in 0..8 {
            bench.submit(WRITE, sector, 1, &data).expect("taken");
        }
        bench.disk.ring();
        assert!(bench.device.with_model(|ahci| ahci.execute_at(1, 3)));
        bench.device.with_model(|ahci| ahci.break_down(1, status));
        bench.device.with_model(|ahci| ahci.be_lazy(false));
        bench.run();
        assert_eq!(bench.results(), failed(&[], 0));
        // The one that breaks it each time is given up, and no other.
        bench.device.with_model(|ahci| ahci.set_trap(1, 5, Trap::Break(status)));
        for sector in 0..8 {
            bench.submit(WRITE, sector, 1, &data).expect("taken");
        }
        bench.disk.ring();
        bench.run();
        let results = bench.results();
        let failed: Vec<u64> = results.iter().filter(|(_, result)| result.is_err()).map(|(tag, _)| *tag).collect();
        assert_eq!((results.len(), failed), (8, vec![5]));
        bench.device.with_model(|ahci| ahci.forgive(1));
        assert_eq!(bench.execute(Operation::Read, 0, 8), Ok(()));
        bench.finish();
    }
}

#[test]
fn a_command_without_an_answer_costs_its_port_a_reset() {
    let mut bench = start(|ahci| {
        ahci.plug_in(1, Drive::new(9, 2048));
        ahci.plug_in(2, Drive::new(9, 2048));
    });
    let data = bench.data(0, 4096);
    bench.fill(0, 7);
    bench.device.with_model(|ahci| ahci.set_trap(1, 8, Trap::Silence));
    for sector in [0, 8] {
        bench.submit(WRITE, sector, 8, &data).expect("taken");
    }
    bench.submit(Operation::Flush, 16, 0, &[]).expect("taken");
    bench.disk.ring();
    bench.wait(Duration::from_secs(29));
    assert_eq!(bench.results(), [(0, Ok(()))]);
    assert_eq!(bench.disk.statistics().resets, 0);
    // The other drive does not wait.
    bench.submit_to(1, WRITE, 24, 8, &data).expect("taken");
    bench.disk.ring();
    bench.poll();
    assert_eq!(bench.results(), [(24, Ok(()))]);
    bench.wait(Duration::from_secs(4));
    assert_eq!((bench.disk.statistics().timeouts, bench.disk.statistics().resets), (1, 1));
    bench.device.with_model(|ahci| ahci.forgive(1));
    bench.device.with_model(|ahci| ahci.cut_link(1, true));
    bench.device.with_model(|ahci| ahci.cut_link(1, false));
    bench.run();
    assert_eq!(bench.results(), [(8, Ok(())), (16, Ok(()))]);
    let (written, _) = bench.device.with_model(|ahci| ahci.contents(1)).expect("the drive");
    assert!(written[..8192].iter().all(|byte| *byte == 7));
    // One that is not answered again is given up, and others are not.
    bench.device.with_model(|ahci| ahci.set_trap(1, 8, Trap::Silence));
    for sector in [0, 8] {
        bench.submit(WRITE, sector, 8, &data).expect("taken");
    }
    bench.submit(Operation::Flush, 16, 0, &[]).expect("taken");
    bench.disk.ring();
    bench.wait(Duration::from_secs(70));
    assert_eq!(bench.results(), [(0, Ok(())), (8, Err(IoError::TimedOut)), (16, Ok(()))]);
    assert_eq!((bench.disk.statistics().timeouts, bench.disk.statistics().resets), (3, 3));
    assert_eq!(bench.events, []);
    bench.finish();
}

#[test]
fn a_link_that_comes_back_loses_no_command() {
    let mut bench = bench();
    let data = bench.data(0, 4096);
    bench.fill(0, 5);
    for seconds in [0, 3, 8] {
        bench.device.with_model(|ahci| ahci.be_lazy(true));
        bench.submit(WRITE, 0, 8, &data).expect("taken");
        bench.submit(Operation::Flush, 100, 0, &[]).expect("taken");
        bench.disk.ring();
        bench.device.with_model(|ahci| ahci.cut_link(1, true));
        bench.wait(Duration::from_secs(seconds));
        assert_eq!(bench.done, []);
        if seconds > 0 {
            assert_eq!(bench.submit(WRITE, 8, 8, &data), Err(Refusal::Full));
        }
        bench.device.with_model(|ahci| ahci.be_lazy(false));
        bench.device.with_model(|ahci| ahci.cut_link(1, false));
        bench.run();
        assert_eq!(bench.results(), [(0, Ok(())), (100, Ok(()))], "after {seconds} s");
    }
    assert_eq!(bench.events, []);
    let (written, durable) = bench.device.with_model(|ahci| ahci.contents(1)).expect("the drive");
    assert!(written[..4096].iter().all(|byte| *byte == 5) && written == durable);
    bench.finish();
}

#[test]
fn a_link_that_does_not_come_back_takes_the_unit_along() {
    let mut bench = bench();
    let data = bench.data(0, 4096);
    bench.device.with_model(|ahci| ahci.be_deaf(1, true));
    bench.submit(WRITE, 0, 8, &data).expect("taken");
    bench.disk.ring();
    bench.device.with_model(|ahci| ahci.unplug(1));
    bench.wait(Duration::from_secs(9));
    assert_eq!((bench.done.len(), bench.events.len()), (0, 0));
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.results(), [(0, Err(IoError::Gone))]);
    assert_eq!(bench.events, [Event::Removed(UnitId(0))]);
    assert_eq!(bench.disk.units(), []);
    assert_eq!(bench.submit(WRITE, 0, 8, &data), Err(Refusal::NoUnit));
    bench.run();
    // The next one is another unit, whatever it is.
    bench.device.with_model(|ahci| ahci.plug_in(1, Drive::new(9, 2048)));
    bench.run();
    assert_eq!(bench.events[1..], [Event::Added(UnitId(1))]);
    bench.submit_to(1, WRITE, 0, 8, &data).expect("taken");
    bench.disk.ring();
    bench.run();
    assert_eq!(bench.results(), [(0, Ok(()))]);
    bench.finish();
}

/// A drive that went has none of its commands, but the adapter may still read them from the list: it says itself when it does no longer.
#[test]
fn commands_of_a_drive_that_went_end_when_the_list_is_idle() {
    let command = PORTS + PORT_BYTES + reg::PX_CMD.offset();
    for tenths in 0..20 {
        let mut bench = bench();
        let data = bench.data(0, 4096);
        bench.device.with_model(|ahci| ahci.be_deaf(1, true));
        bench.submit(WRITE, 0, 8, &data).expect("taken");
        bench.disk.ring();
        bench.device.with_model(|ahci| ahci.unplug(1));
        bench.wait(Duration::from_millis(9_990 + 10 * tenths));
        let before = bench.results();
        bench.device.with_model(|ahci| ahci.set_register(command, Some(PortCommand::new().with_running(true).into())));
        bench.wait(Duration::from_secs(2));
        assert_eq!(bench.results(), [], "the list is worked on, after {tenths}");
        bench.device.with_model(|ahci| ahci.set_register(command, None));
        bench.run();
        let after = bench.results();
        assert_eq!([before, after].concat(), [(0, Err(IoError::Gone))], "after {tenths}");
        bench.finish();
    }
}

#[test]
fn another_drive_behind_the_link_is_another_unit() {
    let mut bench = bench();
    let data = bench.data(0, 4096);
    bench.device.with_model(|ahci| ahci.be_lazy(true));
    bench.submit(WRITE, 0, 8, &data).expect("taken");
    bench.disk.ring();
    bench.device.with_model(|ahci| ahci.unplug(1));
    bench.device.with_model(|ahci| ahci.be_lazy(false));
    bench.device.with_model(|ahci| ahci.plug_in(1, Drive::new(9, 64).with_serial(2)));
    bench.run();
    assert_eq!(bench.results(), [(0, Err(IoError::Gone))]);
    assert_eq!(bench.events, [Event::Removed(UnitId(0)), Event::Added(UnitId(1))]);
    assert_eq!(bench.disk.units().iter().map(|unit| unit.geometry.sectors).collect::<Vec<_>>(), [64]);
    let (written, _) = bench.device.with_model(|ahci| ahci.contents(1)).expect("the drive");
    assert!(written.iter().all(|byte| *byte == 0));
    bench.finish();
}

#[test]
fn what_a_drive_says_may_change() {
    let mut bench = bench();
    bench.device.with_model(|ahci| ahci.resize(1, 4096));
    bench.device.with_model(|ahci| ahci.cut_link(1, true));
    bench.device.with_model(|ahci| ahci.cut_link(1, false));
    bench.run();
    assert_eq!(bench.events, [Event::Changed(UnitId(0))]);
    assert_eq!(bench.disk.units()[0].geometry.sectors, 4096);
    assert_eq!(bench.execute(Operation::Read, 4088, 8), Ok(()));
    bench.finish();
}

#[test]
fn drives_come_while_others_work() {
    let mut bench = start(|_| {});
    assert_eq!(bench.disk.units(), []);
    bench.device.with_model(|ahci| ahci.plug_in(3, Drive::new(9, 64).busy_for(200)));
    bench.run();
    assert_eq!(bench.events, [Event::Added(UnitId(0))]);
    bench.device.with_model(|ahci| ahci.plug_in(0, Drive::new(9, 64).with_serial(2)));
    assert_eq!(bench.execute(Operation::Read, 0, 8), Ok(()));
    assert_eq!(bench.events[1..], [Event::Added(UnitId(1))]);
    // What is none, and then makes room for one.
    bench.device.with_model(|ahci| ahci.plug_in(2, Drive::new(9, 64).with_signature(signature::PORT_MULTIPLIER)));
    bench.run();
    bench.device.with_model(|ahci| ahci.unplug(2));
    bench.run();
    bench.device.with_model(|ahci| ahci.plug_in(2, Drive::new(9, 64).with_serial(3)));
    bench.run();
    assert_eq!(bench.events[2..], [Event::Added(UnitId(2))]);
    bench.finish();
}

#[test]
fn what_is_no_disk_is_left_alone() {
    for other in [
        Drive::new(9, 64).with_signature(signature::PACKET),
        Drive::new(9, 64).with_signature(signature::ENCLOSURE),
        Drive::new(9, 64).with_signature(0x1234_5678),
        Drive::new(9, 64).with_word(0, 1 << 15),
        Drive::new(9, 64).with_word(83, 1 << 14),
        Drive::new(9, 64).with_word(128, 0b111),
        Drive::new(9, 64).with_word(106, 1 << 14 | 1 << 12),
        Drive::new(9, 0),
    ] {
        let bench = bench_with(other.clone());
        assert_eq!(bench.disk.units(), [], "{other:?}");
        bench.finish();
    }
}

#[test]
fn a_drive_that_does_not_come_up_is_given_up() {
    let begin = |prepare: &dyn Fn(&mut Model)| {
        let bench = start(|ahci| {
            ahci.plug_in(0, Drive::new(9, 64));
            ahci.plug_in(1, Drive::new(9, 64).with_serial(2));
            prepare(ahci);
        });
        let units: Vec<_> = bench.disk.units().iter().map(|unit| unit.serial.clone()).collect();
        assert_eq!(units, ["MODEL0002"]);
        assert!(bench.now.since(START) < Duration::from_secs(150));
        bench.finish();
    };
    begin(&|ahci| ahci.be_busy(0, u32::MAX));
    begin(&|ahci| ahci.be_deaf(0, true));
    begin(&|ahci| ahci.be_mute(0, true));
    begin(&|ahci| ahci.set_word(0, 49, 0));
    // In operation: what was in flight ends, and the other goes on.
    let mut bench = start(|ahci| {
        ahci.plug_in(0, Drive::new(9, 64));
        ahci.plug_in(1, Drive::new(9, 64).with_serial(2));
    });
    let data = bench.data(0, 512);
    bench.device.with_model(|ahci| ahci.be_deaf(0, true));
    bench.submit(WRITE, 0, 1, &data).expect("taken");
    bench.disk.ring();
    bench.wait(Duration::from_secs(60));
    bench.submit_to(1, WRITE, 1, 1, &data).expect("taken");
    bench.disk.ring();
    bench.poll();
    assert_eq!(bench.results(), [(1, Ok(()))]);
    bench.run();
    assert_eq!(bench.results(), [(0, Err(IoError::Gone))]);
    assert_eq!(bench.events, [Event::Removed(UnitId(0))]);
    bench.finish();
}

#[test]
fn a_port_that_does_not_stop_costs_a_reset_of_the_adapter() {
    let mut bench = start(|ahci| {
        ahci.plug_in(0, Drive::new(9, 64));
        ahci.plug_in(1, Drive::new(9, 64).with_serial(2));
    });
    let data = bench.data(0, 512);
    bench.device.with_model(|ahci| ahci.be_lazy(true));
    bench.device.with_model(|ahci| ahci.set_quirks(1, Quirks { runs_on: true, ..Quirks::default() }));
    bench.submit_to(0, WRITE, 0, 1, &data).expect("taken");
    bench.submit_to(1, WRITE, 1, 1, &data).expect("taken");
    bench.disk.ring();
    bench.device.with_model(|ahci| ahci.break_down(1, PortStatus::new().with_link_fatal(true)));
    bench.wait(Duration::from_secs(5));
    bench.device.with_model(|ahci| ahci.set_quirks(1, Quirks::default()));
    bench.device.with_model(|ahci| ahci.be_lazy(false));
    bench.run();
    assert_eq!(bench.results(), [(0, Ok(())), (1, Ok(()))]);
    assert!(matches!(bench.events.as_slice(), [Event::Recovering(_), Event::Ready]), "{:?}", bench.events);
    bench.finish();
}

#[test]
fn an_adapter_whose_resets_do_not_end_is_given_up() {
    let mut bench = raw(|ahci| {
        ahci.plug_in(0, Drive::new(9, 64));
        ahci.fail_resets(100);
    })
    .expect("taken");
    bench.run();
    assert!(matches!(bench.events.as_slice(), [.., Event::Failed(_)]), "{:?}", bench.events);
    assert_eq!(bench.events.len(), 4);
    assert_eq!(bench.disk.units(), []);
    let mut bench = raw(|ahci| {
        ahci.plug_in(0, Drive::new(9, 64));
        ahci.fail_resets(2);
    })
    .expect("taken");
    bench.run();
    assert_eq!(bench.events.last(), Some(&Event::Ready));
    bench.finish();
}

#[test]
fn memory_of_a_port_that_does_not_stop_goes_back_with_a_proof_alone() {
    for ended in [false, true] {
        let mut bench = bench();
        assert!(bench.xen.live().local_regions > 1);
        bench.device.with_model(|ahci| ahci.set_quirks(1, Quirks { runs_on: true, ..Quirks::default() }));
        bench.device.with_model(|ahci| ahci.be_deaf(1, true));
        let data = bench.data(0, 4096);
        bench.submit(WRITE, 0, 8, &data).expect("taken");
        bench.disk.ring();
        bench.disk.quiesce();
        bench.poll();
        assert_eq!(bench.results(), [], "the adapter may still read its memory");
        if ended {
            bench.disk.remove(bench.device.dma().closed());
            bench.poll();
            assert_eq!(bench.results(), [(0, Err(IoError::Gone))]);
        }
        let (xen, pages) = (bench.xen.clone(), bench.pages);
        drop((bench.disk, bench.device));
        assert_eq!(xen.live().local_regions > 1, !ended);
        drop(pages);
    }
}

#[test]
fn an_adapter_that_is_pulled_out_is_let_go() {
    for told in [false, true] {
        let mut bench = bench();
        bench.device.with_model(|ahci| ahci.be_deaf(1, true));
        let data = bench.data(0, 4096);
        bench.submit(WRITE, 0, 8, &data).expect("taken");
        bench.submit(WRITE, 8, 8, &data).expect("taken");
        bench.disk.ring();
        bench.device.pull_out();
        if !told {
            bench.wait(Duration::from_secs(2));
            assert!(matches!(bench.events.as_slice(), [Event::Failed(_)]), "{:?}", bench.events);
            assert_eq!(bench.done, [], "it may still be at work on them");
            assert_eq!(bench.disk.deadline(), None);
        }
        bench.disk.remove(bench.device.dma().closed());
        bench.poll();
        assert_eq!(bench.results(), [(0, Err(IoError::Gone)), (8, Err(IoError::Gone))]);
        assert!(matches!(bench.events.as_slice(), [Event::Failed(_)]), "{:?}", bench.events);
        assert_eq!(bench.submit(WRITE, 0, 8, &data), Err(Refusal::NoUnit));
        bench.device.with_model(|ahci| ahci.accesses());
        bench.run();
        bench.disk.handle_interrupt(0);
        assert!(!bench.disk.enable_interrupts());
        bench.disk.ring();
        bench.disk.quiesce();
        assert_eq!(bench.device.with_model(|ahci| ahci.accesses()), Accesses::default());
    }
}

#[test]
fn what_the_cache_holds_is_written_before_the_end() {
    let mut bench = bench();
    bench.fill(0, 3);
    assert_eq!(bench.execute(WRITE, 0, 8), Ok(()));
    bench.disk.quiesce();
    let (written, durable) = bench.device.with_model(|ahci| ahci.contents(1)).expect("the drive");
    assert!(written == durable && durable[0] == 3);
    bench.finish();
}

#[test]
fn bits_of_what_was_not_sent_are_counted_and_ignored() {
    let mut bench = bench();
    let data = bench.data(0, 512);
    bench.device.with_model(|ahci| ahci.be_lazy(true));
    bench.submit(Operation::Read, 0, 1, &data).expect("taken");
    bench.disk.ring();
    bench.device.with_model(|ahci| ahci.forge(1, 1 << 9, 1 << 10));
    bench.device.with_model(|ahci| ahci.raise(1, PortStatus::new().with_device_bits(true)));
    bench.poll();
    assert_eq!((bench.done.len(), bench.disk.statistics().nonsense), (0, 1));
    bench.device.with_model(|ahci| ahci.be_lazy(false));
    bench.poll();
    assert_eq!(bench.results(), [(0, Ok(()))]);
    bench.finish();
}

#[test]
fn an_interrupt_that_is_lost_costs_a_second() {
    let mut bench = bench();
    let data = bench.data(0, 512);
    bench.device.with_model(|ahci| ahci.set_register(reg::IS.offset(), Some(0)));
    bench.submit(Operation::Read, 0, 1, &data).expect("taken");
    bench.disk.ring();
    bench.poll();
    assert_eq!(bench.done, []);
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.results(), [(0, Ok(()))]);
    bench.device.with_model(|ahci| ahci.set_register(reg::IS.offset(), None));
    bench.finish();
}
