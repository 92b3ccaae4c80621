//! blkdom's NVMe driver against the model: starts, data byte for byte, limits, errors, time-outs, resets, namespaces that come and go.
//! Host.

mod disk;

use blkdom::disk::halt::Halt;
use blkdom::disk::nvme::command::{self, Status};
use blkdom::disk::nvme::identify::IDENTIFY_BYTES;
use blkdom::disk::nvme::{Error, Interrupts, Nvme, Options, registers};
use blkdom::disk::{
    Command, Completion, Discard, Disk, Event, Geometry, IoError, Operation, Refusal, Segment, Tag, UnitId, UnitKind,
};
use devices::bus::{Interrupt, Model as _};
use devices::fake::Device;
use devices::nvme::{Accesses, Namespace, Nvme as Model, answer_words};
use disk::random::{self, Tried};
use disk::{Controller, DISCARD, DURABLE, WRITE};
use proptest::prelude::*;
use split_driver::fakes::{FakeDma, FakeXen};
use split_driver::memory::{DeviceAddress, PageArray};
use std::time::Duration;

type Bench = disk::Bench<Model, Nvme<Device<Model>, FakeDma>>;

impl Controller for Model {
    fn is_stopped(&self) -> bool {
        !self.controller_configuration().enable() && !self.has_io_queues()
    }
}

impl Tried for Model {
    type Driver = Nvme<Device<Self>, FakeDma>;
    const NAMES_PIECES: bool = false;
    const BAD: IoError = IoError::Device { code: 0x281 };

    fn driver(device: &Device<Self>) -> Self::Driver {
        Nvme::new(device.clone(), device.dma(), Interrupts::MsiX(2), Options::default()).expect("taken")
    }

    fn be_lazy(&mut self, lazy: bool) {
        self.be_lazy(lazy);
        if !lazy {
            self.be_deaf(false);
        }
    }

    fn execute(&mut self, place: usize) {
        self.execute_at(place);
    }

    fn pending(&mut self) -> usize {
        self.waiting()
    }

    fn held(&mut self) -> Vec<u8> {
        self.contents(1).expect("the namespace").0
    }

    fn spoil(&mut self, block: u64) {
        self.fail(1, block, MEDIA_ERROR.with_do_not_retry(true), 1);
    }

    fn mend(&mut self) {
        self.forgive();
    }

    fn disturb(bench: &mut Bench, kind: u8, block: u64) -> Duration {
        match kind {
            0 => bench.device.with_model(|nvme| nvme.fail_fatally()),
            1 => bench.device.with_model(|nvme| nvme.be_deaf(true)),
            2 => bench.device.with_model(|nvme| nvme.be_deaf(false)),
            // Fewer times than the driver tries.
            3 => bench.device.with_model(|nvme| nvme.fail(1, block, MEDIA_ERROR, 2)),
            4 => bench.device.with_model(|nvme| nvme.fail(1, block, MEDIA_ERROR.with_delay(2), 2)),
            _ => return Duration::from_secs(7),
        }
        Duration::ZERO
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_medium_holds_what_was_written(
        large in any::<bool>(),
        transfer_shift in 0u8..5,
        steps in proptest::collection::vec(random::step(), 1..60),
    ) {
        let shift = if large { 12 } else { 9 };
        let mut model = Model::new();
        model.set_transfer_limit(transfer_shift);
        model.insert(1, Namespace::new(shift, random::SECTORS >> (shift - 9)));
        random::holds_what_was_written(model, &steps)?;
    }
}

#[test]
fn a_halted_controller_does_nothing_that_it_was_asked_before() {
    let mut model = Model::new();
    model.insert(1, Namespace::new(9, 2048));
    disk::halt::what_was_asked_before_is_not_done(model, Halt::Nvme);
}

/// A driver that was given a device and has not done anything yet.
fn raw(prepare: impl FnOnce(&mut Model), interrupts: Interrupts, options: Options) -> Result<Bench, Error> {
    let xen = FakeXen::new();
    let mut model = Model::new();
    prepare(&mut model);
    let device = Device::new(&xen, model);
    if interrupts == Interrupts::Single {
        device.interrupt_by(Interrupt::Msi);
    }
    Bench::new(&xen, &device, |device| Nvme::new(device.clone(), device.dma(), interrupts, options))
}

/// A driver that is ready.
fn start(prepare: impl FnOnce(&mut Model)) -> Bench {
    raw(prepare, Interrupts::MsiX(2), Options::default()).expect("the model is taken").ready()
}

/// A ready driver with a namespace of 512-byte blocks, 1 MiB.
fn bench() -> Bench {
    start(|nvme| nvme.insert(1, Namespace::new(9, 2048)))
}

#[test]
fn a_controller_starts_and_tells_what_it_holds() {
    let bench = start(|nvme| {
        nvme.insert(1, Namespace::new(9, 2048));
        nvme.insert(7, Namespace::new(12, 100).read_only());
    });
    assert_eq!(bench.disk.name(), "NVMe 1.4, oxidom's model 1.0");
    let [first, second] = bench.disk.units() else { panic!("two units") };
    assert_eq!((first.id, first.kind), (UnitId(0), UnitKind::Namespace(1)));
    assert_eq!((first.model.as_str(), first.serial.as_str()), ("oxidom's model", "MODEL0001"));
    let discard = Some(Discard { granularity: 512, alignment: 0, secure: false });
    let geometry = Geometry {
        sectors: 2048,
        logical_block: 512,
        physical_block: 512,
        volatile_cache: true,
        read_only: false,
        discard,
        write_zeroes: true,
    };
    assert_eq!(first.geometry, geometry);
    assert_eq!((second.id, second.kind), (UnitId(1), UnitKind::Namespace(7)));
    assert_eq!((second.geometry.sectors, second.geometry.logical_block), (800, 4096));
    assert!(second.geometry.read_only);
    bench.finish();
}

#[test]
fn devices_that_are_none_are_refused() {
    let refused = |prepare: &dyn Fn(&mut Model)| raw(prepare, Interrupts::MsiX(2), Options::default()).err();
    assert_eq!(refused(&|nvme| nvme.faults().pulled_out = true), Some(Error::Absent));
    assert_eq!(
        refused(&|nvme| nvme.set_capabilities(|c| c.with_smallest_page(1))),
        Some(Error::PageSize { smallest: 1 })
    );
    assert_eq!(refused(&|nvme| nvme.set_capabilities(|c| c.with_nvm_commands(false))), Some(Error::CommandSet));
    let far = Some(Error::Registers { mapped: 0x4000 });
    assert_eq!(refused(&|nvme| nvme.set_capabilities(|c| c.with_doorbell_stride(12))), far);
    let xen = FakeXen::new();
    for credit in 0..20 {
        xen.limit_dma(credit);
        let device = Device::new(&xen, Model::new());
        assert_eq!(
            Nvme::new(device.clone(), device.dma(), Interrupts::Single, Options::default()).err(),
            Some(Error::Memory)
        );
    }
    assert_eq!(xen.live().local_regions, 0);
}

#[test]
fn data_are_written_read_and_made_durable() {
    let mut bench = bench();
    for page in 0..4 {
        bench.fill(page, page as u8 + 1);
    }
    assert_eq!(bench.execute(WRITE, 8, 32), Ok(()));
    let (data, durable) = bench.device.with_model(|nvme| nvme.contents(1)).expect("the namespace");
    assert!((0..4).all(|page| data[(page + 1) * 4096..(page + 2) * 4096].iter().all(|b| *b == page as u8 + 1)));
    assert!(durable.iter().all(|byte| *byte == 0));
    assert_eq!(bench.execute(Operation::Flush, 0, 0), Ok(()));
    assert_eq!(bench.device.with_model(|nvme| nvme.contents(1)).map(|(data, durable)| data == durable), Some(true));
    bench.fill(0, 9);
    assert_eq!(bench.execute(DURABLE, 0, 1), Ok(()));
    assert_eq!(
        bench.device.with_model(|nvme| nvme.contents(1)).map(|(_, durable)| (durable[0], durable[511], durable[512])),
        Some((9, 9, 0))
    );
    assert_eq!(bench.execute(Operation::Read, 16, 8), Ok(()));
    assert_eq!(bench.byte(0), 2);
    assert_eq!(bench.execute(Operation::WriteZeroes, 8, 8), Ok(()));
    assert_eq!(bench.execute(DISCARD, 16, 8), Ok(()));
    assert_eq!(bench.execute(Operation::Read, 15, 10), Ok(()));
    assert_eq!((bench.byte(0), bench.byte(1)), (0, 0));
    assert_eq!(bench.execute(Operation::Read, 24, 1), Ok(()));
    assert_eq!(bench.byte(0), 3);
    bench.finish();
}

#[test]
fn commands_that_cannot_be_are_refused() {
    let mut bench = start(|nvme| {
        nvme.insert(1, Namespace::new(9, 2048));
        nvme.insert(2, Namespace::new(12, 16));
        nvme.insert(3, Namespace::new(9, 16).read_only());
    });
    let page = bench.page(0);
    let whole = |bytes| [Segment { address: DeviceAddress::made_up(page), bytes }];
    let mut refused = |unit, operation, sector, sectors, data: &[Segment]| {
        let unit = UnitId(unit);
        bench.disk.submit(&Command { unit, operation, sector, sectors, data, tag: Tag(0) }).err()
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
    // Blocks of 4 KiB: not a part of one.
    assert_eq!(refused(1, read, 4, 8, &whole(4096)), malformed);
    assert_eq!(refused(1, read, 0, 4, &whole(2048)), malformed);
    assert_eq!(refused(1, DISCARD, 0, 4, &[]), malformed);
    assert_eq!(refused(1, Operation::WriteZeroes, 0, 129, &[]), malformed);
    assert_eq!(refused(0, Operation::Discard { secure: true }, 0, 8, &[]), Some(Refusal::Unsupported));
    assert_eq!(refused(2, WRITE, 0, 8, &whole(4096)), Some(Refusal::Unsupported));
    assert_eq!(refused(2, Operation::WriteZeroes, 0, 8, &[]), Some(Refusal::Unsupported));
    assert_eq!(bench.device.with_model(|nvme| nvme.executed()), Vec::<command::Entry>::new());
    bench.finish();
}

#[test]
fn what_a_device_cannot_do_is_not_promised() {
    // ONCS: neither Dataset Management nor Write Zeroes; VWC: no cache.
    let mut bench = start(|nvme| {
        nvme.insert(1, Namespace::new(9, 2048));
        nvme.patch(command::cns::CONTROLLER, 520, &[0, 0, 0, 0, 0, 0]);
    });
    let geometry = bench.disk.units()[0].geometry;
    assert_eq!((geometry.discard, geometry.write_zeroes, geometry.volatile_cache), (None, false, false));
    assert_eq!(bench.submit(DISCARD, 0, 8, &[]), Err(Refusal::Unsupported));
    assert_eq!(bench.submit(Operation::WriteZeroes, 0, 8, &[]), Err(Refusal::Unsupported));
    bench.finish();
}

/// A segment: page, offset, bytes.
type Piece = (usize, u32, u32);

/// Segments, and how many bytes of them one command can name.
#[test]
fn pages_are_named_as_far_as_entries_can_say() {
    let table: &[(&[Piece], u32)] = &[
        (&[(0, 0, 512)], 512),
        (&[(0, 3584, 512)], 512),
        (&[(0, 0, 4096), (5, 0, 4096)], 8192),
        (&[(0, 512, 3584), (5, 0, 1024)], 4608),
        (&[(0, 3584, 512), (5, 0, 4096), (3, 0, 4096), (9, 0, 512)], 9216),
        // Pieces of one page, one after another.
        (&[(0, 0, 512), (0, 512, 512), (0, 1024, 3072), (4, 0, 512), (4, 512, 512)], 5120),
        // What does not begin at a page's start, or leaves a page's end out, ends the command.
        (&[(0, 0, 512), (1, 0, 512)], 512),
        (&[(0, 0, 4096), (1, 512, 512)], 4096),
        (&[(0, 0, 4096), (1, 0, 2048), (2, 0, 512)], 6144),
        (&[(0, 0, 512), (0, 1024, 512)], 512),
        (&[(0, 512, 512), (0, 0, 512)], 512),
    ];
    for (segments, taken) in table {
        let mut bench = bench();
        let data: Vec<Segment> = segments
            .iter()
            .map(|(page, offset, bytes)| Segment {
                address: DeviceAddress::made_up(bench.page(*page) + u64::from(*offset)),
                bytes: *bytes,
            })
            .collect();
        for (place, (page, offset, bytes)) in segments.iter().enumerate() {
            let fill = vec![place as u8 + 1; *bytes as usize];
            assert!(bench.pages.write(*page, *offset as usize, &fill));
        }
        let sectors = data.iter().map(|segment| segment.bytes / 512).sum();
        assert_eq!(bench.submit(WRITE, 0, sectors, &data), Ok(taken / 512), "{segments:?}");
        bench.disk.ring();
        bench.run();
        assert_eq!(bench.done.pop().map(|completion| completion.result), Some(Ok(())));
        let (written, _) = bench.device.with_model(|nvme| nvme.contents(1)).expect("the namespace");
        let expected: Vec<u8> = segments
            .iter()
            .enumerate()
            .flat_map(|(place, (.., bytes))| vec![place as u8 + 1; *bytes as usize])
            .collect();
        let taken = *taken as usize;
        assert_eq!(written[..taken], expected[..taken], "{segments:?}");
        assert!(written[taken..].iter().all(|byte| *byte == 0), "{segments:?}");
        bench.finish();
    }
}

#[test]
fn blocks_of_a_page_may_lie_across_two() {
    let mut bench = start(|nvme| nvme.insert(1, Namespace::new(12, 16)));
    let half = |bench: &Bench, page, offset, bytes| Segment {
        address: DeviceAddress::made_up(bench.page(page) + offset),
        bytes,
    };
    let data = [half(&bench, 0, 512, 3584), half(&bench, 1, 0, 512)];
    assert_eq!(bench.submit(WRITE, 8, 8, &data), Ok(8));
    // The second block cannot be named together with the first: one is taken.
    let data = [half(&bench, 0, 0, 4096), half(&bench, 1, 0, 2048), half(&bench, 3, 0, 2048)];
    assert_eq!(bench.submit(WRITE, 16, 16, &data), Ok(8));
    // And by itself not at all.
    assert_eq!(bench.submit(WRITE, 16, 8, &data[1..]), Err(Refusal::Malformed));
    bench.disk.ring();
    bench.run();
    assert!(bench.results().iter().all(|(_, result)| result.is_ok()));
    bench.finish();
}

#[test]
fn long_commands_are_taken_in_parts() {
    let parts = |shift: u8, bytes: u32| {
        let mut bench = start(|nvme| {
            nvme.set_transfer_limit(shift);
            nvme.insert(1, Namespace::new(9, 4096));
        });
        let mut data = bench.data(0, bytes);
        let mut parts = Vec::new();
        let mut sector = 0;
        while !data.is_empty() {
            let sectors = data.iter().map(|segment| segment.bytes / 512).sum();
            let taken = bench.submit(Operation::Read, sector, sectors, &data).expect("taken");
            parts.push(taken / 8);
            sector += u64::from(taken);
            data.drain(..taken as usize / 8);
        }
        bench.disk.ring();
        bench.run();
        assert_eq!(bench.done.len(), parts.len());
        bench.finish();
        parts
    };
    assert_eq!(parts(5, 4 * 4096), [4]);
    assert_eq!(parts(5, 40 * 4096), [32, 8]);
    // Without a limit, as many as a page list holds, and the one before it.
    assert_eq!(parts(0, 256 * 4096), [129, 127]);
    assert_eq!(parts(10, 129 * 4096), [129]);
}

#[test]
fn limits_of_discards_and_zeroes_are_kept() {
    let mut bench = start(|nvme| {
        nvme.insert(1, Namespace::new(9, 1 << 18));
        // WZSL 8 KiB; DMRL 3, DMRSL 100 blocks, DMSL 250 blocks.
        nvme.patch(command::cns::COMMAND_SET_CONTROLLER, 0, &[0, 1, 0, 3, 100, 0, 0, 0, 250]);
    });
    assert_eq!(bench.submit(Operation::WriteZeroes, 0, 1000, &[]), Ok(16));
    assert_eq!(bench.submit(DISCARD, 0, 1000, &[]), Ok(250));
    assert_eq!(bench.submit(DISCARD, 0, 7, &[]), Ok(7));
    bench.disk.ring();
    bench.run();
    let executed = bench.device.with_model(|nvme| nvme.executed());
    assert_eq!(executed.iter().map(|entry| entry[10] + 1).collect::<Vec<_>>(), [1, 3, 1]);
    assert!(bench.results().iter().all(|(_, result)| result.is_ok()));
    bench.finish();

    let mut bench = start(|nvme| {
        nvme.set_transfer_limit(0);
        nvme.insert(1, Namespace::new(9, 1 << 18));
    });
    assert_eq!(bench.submit(Operation::WriteZeroes, 0, 1 << 18, &[]), Ok(1 << 16));
    assert_eq!(bench.submit(DISCARD, 0, 1 << 18, &[]), Ok(1 << 18));
    bench.disk.ring();
    bench.run();
    assert!(bench.results().iter().all(|(_, result)| result.is_ok()));
    bench.finish();
}

#[test]
fn doorbells_are_rung_once_a_round() {
    let mut bench = bench();
    bench.device.with_model(|nvme| nvme.accesses());
    for sector in 0..20 {
        let data = bench.data(0, 512);
        bench.submit(Operation::Read, sector, 1, &data).expect("taken");
    }
    bench.disk.ring();
    bench.disk.ring();
    bench.poll();
    assert_eq!(bench.done.len(), 20);
    bench.poll();
    let accesses = bench.device.with_model(|nvme| nvme.accesses());
    assert_eq!((accesses.tails, accesses.heads, accesses.reads), ([0, 1], [0, 1], 0));
    bench.finish();
}

#[test]
fn doorbells_lie_where_the_stride_says() {
    let mut bench = start(|nvme| {
        nvme.set_capabilities(|capabilities| capabilities.with_doorbell_stride(4));
        nvme.insert(1, Namespace::new(9, 64));
    });
    assert_eq!(bench.execute(Operation::Read, 0, 1), Ok(()));
    bench.finish();
}

#[test]
fn a_full_queue_goes_round_and_round() {
    for depth in [2, 3, 64] {
        let options = Options { depth, ..Options::default() };
        let prepare = |nvme: &mut Model| nvme.insert(1, Namespace::new(9, 2048));
        let mut bench = raw(prepare, Interrupts::MsiX(1), options).expect("taken");
        bench.run();
        for round in 0..20 {
            let data = bench.data(0, 512);
            let mut taken = 0;
            while bench.submit(Operation::Read, u64::from(taken), 1, &data).is_ok() {
                taken += 1;
            }
            assert_eq!(taken, depth - 1, "round {round}");
            bench.disk.ring();
            bench.run();
            assert_eq!(bench.done.drain(..).count(), usize::from(taken));
        }
        bench.finish();
    }
}

#[test]
fn interrupts_are_those_of_the_wiring() {
    let vectors = |interrupts, single: bool| {
        let prepare = |nvme: &mut Model| nvme.insert(1, Namespace::new(9, 64));
        let mut bench = raw(prepare, interrupts, Options::default()).expect("taken");
        bench.run();
        bench.device.messages();
        let data = bench.data(0, 512);
        bench.submit(Operation::Read, 0, 1, &data).expect("taken");
        bench.disk.ring();
        let messages = bench.device.messages();
        bench.disk.handle_interrupt(usize::from(messages.first().copied().unwrap_or(0)));
        assert!(bench.disk.enable_interrupts(), "an answer waits");
        bench.poll();
        assert!(!bench.disk.enable_interrupts());
        // While it is being handled, no other comes.
        bench.disk.handle_interrupt(0);
        bench.device.messages();
        bench.submit(Operation::Read, 0, 1, &data).expect("taken");
        bench.disk.ring();
        assert_eq!(bench.device.messages().is_empty(), single);
        assert!(bench.disk.enable_interrupts());
        assert_eq!(bench.device.messages().is_empty(), !single);
        bench.run();
        assert_eq!(bench.done.len(), 2);
        bench.finish();
        messages
    };
    assert_eq!(vectors(Interrupts::MsiX(2), false), [1]);
    assert_eq!(vectors(Interrupts::MsiX(1), false), [0]);
    assert_eq!(vectors(Interrupts::Single, true), [0]);
}

const MEDIA_ERROR: Status = Status::new().with_kind(2).with_code(0x81);

#[test]
fn errors_are_retried_where_that_may_help() {
    let mut bench = bench();
    bench.device.with_model(|nvme| nvme.fail(1, 8, MEDIA_ERROR, 3));
    assert_eq!(bench.execute(Operation::Read, 8, 8), Ok(()));
    assert_eq!(bench.disk.statistics().retries, 3);
    bench.device.with_model(|nvme| nvme.fail(1, 16, MEDIA_ERROR, 100));
    assert_eq!(bench.execute(WRITE, 10, 8), Err(IoError::Device { code: 0x281 }));
    assert_eq!(bench.disk.statistics().retries, 8);
    assert_eq!(bench.execute(WRITE, 24, 8), Ok(()), "the next block is none of that");
    for (status, error) in [
        (MEDIA_ERROR.with_do_not_retry(true), IoError::Device { code: 0x281 }),
        (Status::new().with_code(1), IoError::Unsupported),
        (Status::new().with_code(2), IoError::Unsupported),
    ] {
        bench.device.with_model(|nvme| nvme.fail(1, 100, status, 1));
        assert_eq!(bench.execute(Operation::Read, 100, 1), Err(error));
    }
    assert_eq!(bench.disk.statistics().retries, 8);
    // CRD 2: after CRDT2, half a second.
    bench.device.with_model(|nvme| nvme.fail(1, 200, MEDIA_ERROR.with_delay(2), 1));
    let before = bench.now;
    assert_eq!(bench.execute(Operation::Read, 200, 1), Ok(()));
    assert_eq!(bench.now.since(before), Duration::from_millis(500));
    bench.finish();
}

#[test]
fn a_command_without_an_answer_is_aborted() {
    let mut bench = bench();
    bench.device.with_model(|nvme| nvme.be_deaf(true));
    let data = bench.data(0, 4096);
    bench.submit(Operation::Read, 0, 8, &data).expect("taken");
    bench.disk.ring();
    bench.wait(Duration::from_secs(29));
    assert_eq!(bench.disk.statistics().aborts, 0);
    bench.device.with_model(|nvme| nvme.be_deaf(false));
    bench.wait(Duration::from_secs(4));
    assert_eq!((bench.disk.statistics().aborts, bench.disk.statistics().resets), (1, 0));
    assert_eq!(bench.done.pop().map(|completion| completion.result), Some(Ok(())), "sent again");
    // Never answered: after the second time it is given up. Others go on meanwhile.
    bench.device.with_model(|nvme| nvme.be_deaf(true));
    bench.submit(Operation::Read, 8, 8, &data).expect("taken");
    bench.disk.ring();
    bench.device.with_model(|nvme| nvme.be_deaf(false));
    bench.submit(WRITE, 16, 8, &data).expect("taken");
    bench.disk.ring();
    bench.poll();
    assert_eq!(bench.done.pop(), Some(Completion { tag: Tag(16), result: Ok(()) }));
    bench.device.with_model(|nvme| nvme.be_deaf(true));
    bench.wait(Duration::from_secs(70));
    assert_eq!(bench.done.pop(), Some(Completion { tag: Tag(8), result: Err(IoError::TimedOut) }));
    assert_eq!((bench.disk.statistics().aborts, bench.disk.statistics().resets), (3, 0));
    assert_eq!(bench.events, []);
    bench.finish();
}

#[test]
fn a_command_that_cannot_be_aborted_costs_a_reset() {
    let mut bench = bench();
    bench.device.with_model(|nvme| nvme.be_unabortable());
    bench.device.with_model(|nvme| nvme.be_deaf(true));
    let data = bench.data(0, 4096);
    bench.fill(0, 7);
    bench.submit(WRITE, 0, 8, &data).expect("taken");
    bench.submit(WRITE, 8, 8, &data).expect("taken");
    bench.disk.ring();
    bench.wait(Duration::from_secs(33));
    bench.device.with_model(|nvme| nvme.be_deaf(false));
    bench.wait(Duration::from_secs(6));
    assert_eq!(bench.done.drain(..).filter(|completion| completion.result == Ok(())).count(), 2);
    assert!(matches!(bench.events.as_slice(), [Event::Recovering(_), Event::Ready]), "{:?}", bench.events);
    let (written, _) = bench.device.with_model(|nvme| nvme.contents(1)).expect("the namespace");
    assert!(written[..8192].iter().all(|byte| *byte == 7));
    // Again and again: given up, while the controller is not.
    bench.events.clear();
    bench.device.with_model(|nvme| nvme.be_deaf(true));
    bench.submit(Operation::Read, 0, 8, &data).expect("taken");
    bench.disk.ring();
    bench.wait(Duration::from_secs(80));
    assert_eq!(bench.done.pop().map(|completion| completion.result), Some(Err(IoError::TimedOut)));
    assert_eq!(bench.events.len(), 4);
    bench.device.with_model(|nvme| nvme.be_deaf(false));
    assert_eq!(bench.execute(Operation::Read, 0, 8), Ok(()));
    bench.finish();
}

#[test]
fn a_fatal_status_loses_no_command() {
    let mut bench = bench();
    let data = bench.data(0, 4096);
    for sector in 0..30 {
        bench.submit(WRITE, sector * 8, 8, &data).expect("taken");
    }
    bench.device.with_model(|nvme| nvme.be_lazy(true));
    bench.disk.ring();
    bench.device.with_model(|nvme| nvme.execute_next(10));
    bench.device.with_model(|nvme| nvme.fail_fatally());
    bench.device.with_model(|nvme| nvme.be_lazy(false));
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.done.len(), 30);
    assert!(bench.done.drain(..).all(|completion| completion.result == Ok(())));
    assert_eq!(bench.disk.statistics().resets, 1);
    // One that is fatal each time is given up, with what was in flight beside it.
    bench.events.clear();
    bench.device.with_model(|nvme| nvme.be_deaf(true));
    bench.submit(WRITE, 0, 8, &data).expect("taken");
    for _ in 0..4 {
        while bench.device.with_model(|nvme| nvme.unanswered(0)).is_none() {
            bench.wait(Duration::from_millis(2));
            assert_eq!(bench.done, []);
        }
        let resets = bench.disk.statistics().resets;
        bench.device.with_model(|nvme| nvme.fail_fatally());
        while bench.disk.statistics().resets == resets {
            bench.wait(Duration::from_millis(100));
        }
    }
    bench.device.with_model(|nvme| nvme.be_deaf(false));
    bench.run();
    assert_eq!(bench.done.pop().map(|completion| completion.result), Some(Err(IoError::TimedOut)));
    assert_eq!(bench.execute(Operation::Read, 0, 8), Ok(()));
    bench.finish();
}

#[test]
fn a_controller_that_does_not_come_up_is_given_up() {
    let prepare = |nvme: &mut Model| nvme.fail_starts(100);
    let mut bench = raw(prepare, Interrupts::MsiX(2), Options::default()).expect("taken");
    bench.run();
    let [.., Event::Failed(why)] = bench.events.as_slice() else { panic!("{:?}", bench.events) };
    assert_eq!(why, "it did not start in time; 5 resets did not help");
    assert_eq!(bench.events.len(), 6);
    assert_eq!(bench.disk.units(), []);
    // It might still be about to start.
    bench.disk.quiesce();
    bench.disk.remove(bench.device.dma().closed());
    bench.finish();

    let prepare = |nvme: &mut Model| nvme.fail_starts(2);
    let mut bench = raw(prepare, Interrupts::MsiX(2), Options::default()).expect("taken");
    bench.run();
    assert_eq!(bench.events.last(), Some(&Event::Ready));
    bench.finish();

    // In operation: what was in flight ends, too.
    let mut bench = self::bench();
    let data = bench.data(0, 4096);
    bench.device.with_model(|nvme| nvme.be_deaf(true));
    bench.submit(WRITE, 0, 8, &data).expect("taken");
    bench.disk.ring();
    bench.device.with_model(|nvme| nvme.fail_starts(100));
    bench.device.with_model(|nvme| nvme.fail_fatally());
    bench.run();
    assert!(matches!(bench.events.last(), Some(Event::Failed(_))));
    assert_eq!(bench.done, [], "the controller may still read or write its memory");
    bench.disk.quiesce();
    bench.disk.remove(bench.device.dma().closed());
    bench.poll();
    assert_eq!(bench.done.pop().map(|completion| completion.result), Some(Err(IoError::Gone)));
    assert_eq!(bench.submit(WRITE, 0, 8, &data), Err(Refusal::NoUnit));
    bench.finish();
}

#[test]
fn memory_of_a_controller_that_does_not_stop_goes_back_with_a_proof_alone() {
    for ended in [false, true] {
        let mut bench = bench();
        // Beside the driver's own, there are the pages of the bench.
        assert!(bench.xen.live().local_regions > 1);
        bench.device.pull_out();
        bench.disk.quiesce();
        if ended {
            bench.disk.remove(bench.device.dma().closed());
        }
        let (xen, pages) = (bench.xen.clone(), bench.pages);
        drop((bench.disk, bench.device));
        // The two queues of each kind, and the page of admin commands: a list of pages was never named.
        assert_eq!(xen.live().local_regions, if ended { 1 } else { 6 });
        drop(pages);
    }
}

#[test]
fn the_proof_of_another_controller_releases_nothing() {
    let mut bench = self::bench();
    let data = bench.data(0, 4096);
    bench.device.with_model(|nvme| nvme.be_deaf(true));
    bench.submit(WRITE, 0, 8, &data).expect("taken");
    bench.disk.ring();
    bench.device.pull_out();
    bench.disk.remove(bench.xen.dma().closed());
    bench.run();
    assert_eq!(bench.done, [], "this one may still write to its memory");
    bench.disk.remove(bench.device.dma().closed());
    bench.poll();
    assert_eq!(bench.done.pop().map(|completion| completion.result), Some(Err(IoError::Gone)));
}

#[test]
fn a_controller_that_is_starting_has_not_stopped() {
    for comes_up in [true, false] {
        let prepare = |nvme: &mut Model| match comes_up {
            true => nvme.start_slowly(50),
            false => nvme.fail_starts(1),
        };
        let mut bench = raw(prepare, Interrupts::MsiX(2), Options::default()).expect("the model is taken");
        for _ in 0..4 {
            bench.wait(Duration::from_millis(1));
        }
        let device = bench.device.clone();
        assert!(device.with_model(|nvme| nvme.controller_configuration().enable()));
        assert_eq!(device.peek(registers::CSTS.offset()), 0, "it is starting");
        bench.disk.quiesce();
        let (xen, pages) = (bench.xen.clone(), bench.pages);
        drop((bench.disk, bench.device));
        // The pages of the bench, and what the controller was told of.
        assert_eq!(xen.live().local_regions > 1, !comes_up, "it was not ready: it may be about to start");
        assert_eq!(device.misuse(), Vec::<String>::new());
        drop(pages);
        assert_eq!(xen.take_violations(), []);
    }
}

#[test]
fn a_controller_of_another_kind_is_left_alone() {
    let prepare = |nvme: &mut Model| nvme.patch(command::cns::CONTROLLER, 111, &[2]);
    let mut bench = raw(prepare, Interrupts::MsiX(2), Options::default()).expect("taken");
    bench.run();
    assert!(matches!(bench.events.as_slice(), [Event::Failed(_)]), "{:?}", bench.events);
    bench.finish();
}

#[test]
fn a_device_that_is_pulled_out_is_let_go() {
    for told in [false, true] {
        let mut bench = bench();
        bench.device.with_model(|nvme| nvme.be_deaf(true));
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
        assert_eq!(bench.done.len(), 2);
        assert!(bench.done.iter().all(|completion| completion.result == Err(IoError::Gone)));
        assert!(matches!(bench.events.as_slice(), [Event::Failed(_)]), "{:?}", bench.events);
        assert_eq!(bench.submit(WRITE, 0, 8, &data), Err(Refusal::NoUnit));
        bench.device.with_model(|nvme| nvme.accesses());
        bench.run();
        bench.disk.handle_interrupt(0);
        assert!(!bench.disk.enable_interrupts());
        bench.disk.ring();
        bench.disk.quiesce();
        assert_eq!(bench.device.with_model(|nvme| nvme.accesses()), Accesses::default());
    }
}

#[test]
fn namespaces_come_change_and_go() {
    let mut bench = start(|nvme| {
        nvme.insert(1, Namespace::new(9, 2048));
        nvme.insert(2, Namespace::new(9, 2048));
    });
    let take = |bench: &mut Bench| {
        bench.run();
        std::mem::take(&mut bench.events)
    };
    bench.device.with_model(|nvme| nvme.resize(1, 4096));
    assert_eq!(take(&mut bench), [Event::Changed(UnitId(0))]);
    assert_eq!(bench.disk.units()[0].geometry.sectors, 4096);
    bench.device.with_model(|nvme| nvme.insert(5, Namespace::new(12, 10)));
    assert_eq!(take(&mut bench), [Event::Added(UnitId(2))]);
    // Two changes, one event each.
    bench.device.with_model(|nvme| nvme.take_out(2));
    bench.device.with_model(|nvme| nvme.resize(1, 2048));
    assert_eq!(take(&mut bench), [Event::Changed(UnitId(0)), Event::Removed(UnitId(1))]);
    // The same number, another namespace; another block size.
    bench.device.with_model(|nvme| nvme.insert(1, Namespace::new(9, 2048).with_identity(2)));
    bench.device.with_model(|nvme| nvme.insert(5, Namespace::new(9, 10)));
    let events =
        [Event::Added(UnitId(3)), Event::Added(UnitId(4)), Event::Removed(UnitId(0)), Event::Removed(UnitId(2))];
    assert_eq!(take(&mut bench), events);
    assert_eq!(bench.disk.units().iter().map(|unit| unit.id.0).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(bench.submit(Operation::Flush, 0, 0, &[]), Err(Refusal::NoUnit));
    let flush = Command { unit: UnitId(4), operation: Operation::Flush, sector: 0, sectors: 0, data: &[], tag: Tag(1) };
    assert_eq!(bench.disk.submit(&flush), Ok(0));
    bench.run();
    assert_eq!(bench.done.len(), 1);
    // Events of other kinds are taken note of.
    assert!(bench.device.with_model(|nvme| nvme.send_event(0x0002_0001)));
    assert_eq!(take(&mut bench), []);
    assert!(bench.device.with_model(|nvme| nvme.send_event(0x0001_0000)));
    bench.finish();
}

#[test]
fn a_namespace_is_called_by_its_uuid_where_it_has_one() {
    let uuid = [&[3, 16, 0, 0][..], &[0x5A; 16]].concat();
    for (version, name) in [
        (0x0001_0400, "uuid.5a5a5a5a-5a5a-5a5a-5a5a-5a5a5a5a5a5a"),
        (0x0001_0200, "eui.01010101010101010101010101010101"),
    ] {
        let mut bench = start(|nvme| {
            nvme.insert(1, Namespace::new(9, 2048));
            nvme.set_version(version);
            nvme.patch(command::cns::NAMESPACE_DESCRIPTORS, 0, &uuid);
        });
        assert_eq!(bench.disk.units()[0].wwn, name);
        // The same number and size, another namespace.
        bench.events.clear();
        bench.device.with_model(|nvme| nvme.patch(command::cns::NAMESPACE_DESCRIPTORS, 4, &[0x5B; 16]));
        bench.device.with_model(|nvme| nvme.resize(1, 2048));
        bench.run();
        let events: &[Event] =
            if name.starts_with("eui") { &[] } else { &[Event::Added(UnitId(1)), Event::Removed(UnitId(0))] };
        assert_eq!(bench.events, events);
        bench.finish();
    }
}

#[test]
fn a_namespace_that_goes_under_load_ends_its_commands_first() {
    let mut bench = bench();
    let data = bench.data(0, 4096);
    bench.device.with_model(|nvme| nvme.be_deaf(true));
    bench.submit(WRITE, 0, 8, &data).expect("taken");
    bench.disk.ring();
    bench.device.with_model(|nvme| nvme.be_deaf(false));
    bench.device.with_model(|nvme| nvme.take_out(1));
    for _ in 0..10 {
        bench.poll();
    }
    assert_eq!(bench.events, [], "the device may still read its page");
    assert_eq!(bench.submit(WRITE, 0, 8, &data), Err(Refusal::NoUnit));
    let (queue, id) = bench.device.with_model(|nvme| nvme.unanswered(0)).expect("the command");
    bench.device.with_model(|nvme| nvme.forge(queue, answer_words(queue, id, Status::new().with_code(0x0B))));
    bench.poll();
    assert_eq!(bench.done.pop().map(|completion| completion.result), Some(Err(IoError::Gone)));
    assert_eq!(bench.events, [Event::Removed(UnitId(0))]);
    bench.finish();
}

#[test]
fn a_namespace_that_is_found_gone_by_its_commands_is_looked_for() {
    // No notices: the controller does not have them.
    let mut bench = start(|nvme| {
        nvme.patch(command::cns::CONTROLLER, 92, &[0, 0, 0, 0]);
        nvme.insert(1, Namespace::new(9, 64));
    });
    bench.device.with_model(|nvme| nvme.take_out(1));
    assert_eq!(bench.execute(Operation::Read, 0, 1), Err(IoError::Gone));
    assert_eq!(bench.events, [Event::Removed(UnitId(0))]);
    bench.finish();
}

#[test]
fn namespaces_of_other_formats_are_left_alone() {
    let units = |at: usize, bytes: &[u8]| {
        let bench = start(|nvme| {
            nvme.insert(1, Namespace::new(9, 64));
            nvme.patch(command::cns::NAMESPACE, at, bytes);
        });
        let units = bench.disk.units().len();
        bench.finish();
        units
    };
    assert_eq!(units(128, &[0, 0]), 1);
    assert_eq!(units(128, &[8, 0]), 0, "metadata");
    assert_eq!(units(29, &[1]), 0, "protection information");
    assert_eq!(units(130, &[14]), 0, "blocks of 16 KiB");
    assert_eq!(units(0, &[0xFF; IDENTIFY_BYTES]), 0);
}

#[test]
fn controllers_without_lists_are_asked_for_each() {
    let mut bench = start(|nvme| {
        nvme.set_version(0x0001_0000);
        nvme.insert(1, Namespace::new(9, 64));
        nvme.insert(3, Namespace::new(9, 64));
        // A list that names none it has, as far as 1.0 goes: the structure does not exist.
        nvme.patch(command::cns::ACTIVE_NAMESPACES, 0, &[1, 0, 0, 0, 3, 0, 0, 0]);
    });
    assert_eq!(bench.disk.name(), "NVMe 1.0, oxidom's model 1.0");
    assert_eq!(bench.disk.units().len(), 2);
    assert_eq!(bench.execute(Operation::Read, 0, 1), Ok(()));
    bench.finish();
}

#[test]
fn answers_to_nothing_are_counted_and_forgotten() {
    let mut bench = bench();
    let data = bench.data(0, 512);
    bench.device.with_model(|nvme| nvme.be_lazy(true));
    bench.submit(Operation::Read, 0, 1, &data).expect("taken");
    bench.disk.ring();
    let (_, id) = bench.device.with_model(|nvme| nvme.unanswered(0)).expect("the command");
    let right = answer_words(1, id, Status::new());
    let wrong = [
        answer_words(1, id ^ 0x100, Status::new()),
        answer_words(1, id ^ 1, Status::new()),
        answer_words(1, 0xFFFF, Status::new()),
        [0, 0, 1 << 16 | 64, right[3]],
        [0, 0, 2 << 16, right[3]],
        [0, 0, 0, right[3]],
    ];
    for words in wrong {
        bench.device.with_model(|nvme| nvme.forge(1, words));
        bench.poll();
    }
    bench.device.with_model(|nvme| nvme.forge(0, answer_words(0, 0x7FFF, Status::new())));
    bench.poll();
    assert_eq!(bench.done, []);
    assert_eq!(bench.disk.statistics().nonsense, 7);
    bench.device.with_model(|nvme| nvme.forge(1, right));
    bench.device.with_model(|nvme| nvme.forge(1, right));
    bench.poll();
    assert_eq!(bench.done.len(), 1, "once");
    assert_eq!(bench.disk.statistics().nonsense, 8);
    bench.device.with_model(|nvme| nvme.be_lazy(false));
    bench.finish();
}

#[test]
fn an_admin_queue_that_fell_silent_costs_a_reset() {
    let mut bench = bench();
    bench.device.with_model(|nvme| nvme.resize(1, 64));
    bench.device.with_model(|nvme| nvme.ignore_admin(true));
    bench.wait(Duration::from_secs(32));
    assert!(matches!(bench.events.as_slice(), [Event::Recovering(_)]), "{:?}", bench.events);
    bench.device.with_model(|nvme| nvme.ignore_admin(false));
    bench.wait(Duration::from_secs(32));
    let [_, Event::Recovering(_), Event::Changed(UnitId(0)), Event::Ready] = bench.events.as_slice() else {
        panic!("{:?}", bench.events)
    };
    bench.finish();
}

#[test]
fn commands_are_refused_while_the_controller_recovers() {
    let mut bench = bench();
    bench.device.with_model(|nvme| nvme.be_deaf(true));
    let data = bench.data(0, 512);
    bench.submit(Operation::Read, 0, 1, &data).expect("taken");
    bench.disk.ring();
    bench.device.with_model(|nvme| nvme.fail_fatally());
    bench.device.with_model(|nvme| nvme.be_deaf(false));
    while bench.disk.statistics().resets == 0 {
        bench.poll();
        bench.now = bench.now + Duration::from_millis(100);
    }
    assert_eq!(bench.submit(Operation::Read, 8, 1, &data), Err(Refusal::Full));
    bench.run();
    assert_eq!(bench.done.drain(..).count(), 1);
    assert_eq!(bench.execute(Operation::Read, 8, 1), Ok(()));
    bench.finish();
}

#[test]
fn a_device_that_only_says_that_it_is_gone_is_disabled() {
    let mut bench = bench();
    let data = bench.data(0, 512);
    bench.device.with_model(|nvme| nvme.be_deaf(true));
    bench.submit(Operation::Read, 0, 1, &data).expect("taken");
    bench.disk.ring();
    bench.device.with_model(|nvme| nvme.set_register(registers::CSTS.offset(), u32::MAX, 1));
    bench.wait(Duration::from_secs(2));
    assert_eq!(bench.done, [], "it may still write to their memory");
    bench.disk.remove(bench.device.dma().closed());
    bench.poll();
    assert_eq!(bench.done.pop().map(|completion| completion.result), Some(Err(IoError::Gone)));
    bench.finish();
}

#[test]
fn a_controller_that_was_given_up_is_not_reset() {
    let prepare = |nvme: &mut Model| nvme.patch(command::cns::CONTROLLER, 111, &[3]);
    let mut bench = raw(prepare, Interrupts::MsiX(2), Options::default()).expect("taken");
    while bench.device.with_model(|nvme| nvme.accesses()).tails[0] == 0 {
        bench.wait(Duration::from_millis(1));
    }
    // The answer that ends it is there, and a fatal status as well.
    bench.device.with_model(|nvme| nvme.set_register(registers::CSTS.offset(), 3, 1));
    bench.now = bench.now + Duration::from_secs(2);
    bench.run();
    assert!(matches!(bench.events.as_slice(), [Event::Failed(_)]), "{:?}", bench.events);
    assert_eq!(bench.disk.statistics().resets, 0);
    bench.finish();
}

#[test]
fn a_controller_that_has_failed_is_stopped_all_the_same() {
    let mut bench = bench();
    bench.device.with_model(|nvme| nvme.fail_fatally());
    bench.disk.quiesce();
    bench.finish();
}
