//! Each operation, as a well-behaved guest asks for it.

use super::{SECTORS, UNIT, World, pattern};
use crate::blkback::config::VbdConfig;
use crate::blkback::request::Abi;
use crate::datapath::statistics::Failure;
use crate::disk::{Geometry, Operation, UnitId};
use crate::fakes::frontend::HERE;
use crate::fakes::frontend::Response;
use crate::fakes::{FakeDisk, Frontend, Setup, geometry};
use crate::volume::{UnitRef, Volume};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use xen_pv_sys::GrantRef;
use xen_pv_sys::io::blkif::{BLKIF_OP_FLUSH_DISKCACHE, BLKIF_OP_READ, BLKIF_OP_WRITE};

fn setups() -> impl Iterator<Item = Setup> {
    let abis = [Abi::X86_64, Abi::X86_32].into_iter();
    abis.flat_map(|abi| [false, true].map(|persistent| Setup { abi, persistent, ..Setup::default() }))
}

#[test]
fn what_is_written_is_read() {
    for setup in setups() {
        let mut world = World::new(&[setup, setup]);
        for (number, sectors) in [1, 8, 9, 88, 89, 256, 2048].into_iter().enumerate() {
            let bytes = pattern(number as u64, sectors * 512);
            world.guests[1].write(0, &bytes);
            assert!(world.guests[1].transfer(0, 7, BLKIF_OP_WRITE, 100, (0, sectors)));
            assert_eq!(world.ask(1), [Response { id: 7, operation: BLKIF_OP_WRITE, status: 0 }]);
            assert_eq!(world.contents(1, 100, bytes.len()), bytes, "{sectors} sectors");
            assert!(world.guests[1].transfer(0, 8, BLKIF_OP_READ, 100, (256, sectors)));
            assert_eq!(world.ask(1), [Response { id: 8, operation: BLKIF_OP_READ, status: 0 }]);
            assert_eq!(world.guests[1].read(256, bytes.len()), bytes, "{sectors} sectors");
        }
        assert!(world.guests[1].queues[0].flush(9));
        assert_eq!(world.ask(1), [Response { id: 9, operation: BLKIF_OP_FLUSH_DISKCACHE, status: 0 }]);
        // The neighbour's sectors are as they were.
        assert!(world.contents(0, 0, SECTORS as usize * 512).iter().all(|byte| *byte == 0));
        let statistics = world.path.vbd_statistics(world.ids[1]).unwrap();
        let sectors: Vec<u64> = alloc::vec![1, 8, 9, 88, 89, 256, 2048];
        assert_eq!((statistics.reads, statistics.sectors_read), (7, sectors.iter().sum()));
        assert_eq!((statistics.writes, statistics.sectors_written), (7, sectors.iter().sum()));
        assert_eq!((statistics.flushes, statistics.failures), (1, [0; Failure::COUNT]));
        assert_eq!(world.xen.device_map_calls() > 0, setup.persistent);
        world.end();
    }
}

fn statuses(responses: &[Response]) -> Vec<(u64, u8, i16)> {
    responses.iter().map(|response| (response.id, response.operation, response.status)).collect()
}

/// What the volume says of a request, as Linux answers it.
#[test]
fn requests_that_cannot_be_are_answered() {
    let end = SECTORS;
    let plain = |_: &mut VbdConfig| {};
    let read_only = |config: &mut VbdConfig| config.read_only = true;
    let no_discard = |config: &mut VbdConfig| config.geometry.discard = None;
    type Change = fn(&mut VbdConfig);
    type Place = fn(&mut Frontend) -> bool;
    type Case = (&'static str, u32, Change, Place, (u8, i16));
    let cases: [Case; 20] = [
        ("last sector", 512, plain, |guest| guest.transfer(0, 1, 0, SECTORS - 1, (0, 1)), (0, 0)),
        ("beyond the end", 512, plain, |guest| guest.transfer(0, 1, 0, SECTORS - 1, (0, 2)), (0, -1)),
        ("at the end", 512, plain, |guest| guest.transfer(0, 1, 1, SECTORS, (0, 1)), (1, -1)),
        ("wrapping", 512, plain, |guest| guest.transfer(0, 1, 1, u64::MAX, (0, 2)), (1, -1)),
        ("indirect, beyond", 512, plain, |guest| guest.transfer(0, 1, 1, SECTORS - 95, (0, 96)), (1, -1)),
        ("not whole blocks", 4096, plain, |guest| guest.transfer(0, 1, 0, 0, (0, 7)), (0, -1)),
        ("not at a block", 4096, plain, |guest| guest.transfer(0, 1, 0, 4, (0, 8)), (0, -1)),
        ("a block", 4096, plain, |guest| guest.transfer(0, 1, 0, 8, (0, 8)), (0, 0)),
        ("write, read only", 512, read_only, |guest| guest.transfer(0, 1, 1, 0, (0, 8)), (1, -1)),
        ("barrier, read only", 512, read_only, |guest| guest.transfer(0, 1, 2, 0, (0, 8)), (2, -1)),
        ("discard, read only", 512, read_only, |guest| guest.queues[0].discard(1, 0, 8, 0), (5, -1)),
        ("read, read only", 512, read_only, |guest| guest.transfer(0, 1, 0, 0, (0, 8)), (0, 0)),
        ("flush, read only", 512, read_only, |guest| guest.queues[0].flush(1), (3, 0)),
        ("unknown", 512, plain, |guest| guest.queues[0].direct(1, 9, 0, &[]), (9, -2)),
        ("no segments", 512, plain, |guest| guest.queues[0].direct(1, 0, 0, &[]), (0, -1)),
        ("empty barrier", 512, plain, |guest| guest.queues[0].direct(1, 2, u64::MAX, &[]), (2, 0)),
        ("discard, not offered", 512, no_discard, |guest| guest.queues[0].discard(1, 0, 8, 0), (5, -2)),
        ("secure discard, not offered", 512, plain, |guest| guest.queues[0].discard(1, 0, 8, 1), (5, -2)),
        ("discard of nothing", 512, plain, |guest| guest.queues[0].discard(1, SECTORS, 0, 0), (5, 0)),
        ("discard beyond the end", 512, plain, |guest| guest.queues[0].discard(1, 8, u64::MAX - 7, 0), (5, -1)),
    ];
    for (name, block, change, place, (operation, status)) in cases {
        let mut world = World::with(&[Setup::default()], geometry(end, block), change);
        assert!(place(&mut world.guests[0]), "{name}");
        assert_eq!(statuses(&world.ask(0)), [(1, operation, status)], "{name}");
        let failures: u64 = world.path.vbd_statistics(world.ids[0]).unwrap().failures.iter().sum();
        assert_eq!(failures, u64::from(status != 0), "{name}");
        world.end();
    }
}

/// Segments are judged where they lie in pages of their own, too, and those pages may be missing.
#[test]
fn indirect_segments_that_cannot_be_are_answered() {
    let mut world = World::new(&[Setup::default()]);
    let guest = &mut world.guests[0];
    let good = guest.segments(0, 96, true);
    let mut backwards = good.clone();
    (backwards[5].first_sect, backwards[5].last_sect) = (3, 2);
    let mut beyond = good.clone();
    beyond[11].last_sect = 8;
    let queue = &mut guest.queues[0];
    assert!(queue.indirect(1, 0, 0, &backwards) && queue.indirect(2, 1, 0, &beyond) && queue.indirect(3, 0, 0, &good));
    let pages = queue.indirect_pages().1[2];
    let grefs = |first| {
        let mut grefs = [GrantRef(0); 8];
        grefs[0] = first;
        grefs
    };
    assert!(queue.indirect_at(4, 0, 0, 257, grefs(pages)) && queue.indirect_at(5, 0, 0, 0, grefs(pages)));
    assert!(
        queue.indirect_at(6, 0, 0, 12, grefs(GrantRef(2))) && queue.indirect_at(7, 0, 0, 12, grefs(GrantRef(9999)))
    );
    assert!(queue.indirect_at(8, 3, 0, 12, grefs(pages)));
    let mut answers = statuses(&world.ask(0));
    answers.sort_unstable();
    let failed = |id, operation| (id, operation, -1);
    let expected =
        [failed(1, 0), failed(2, 1), (3, 0, 0), failed(4, 0), failed(5, 0), failed(6, 0), failed(7, 0), failed(8, 3)];
    assert_eq!(answers, expected);
    world.end();
}

#[test]
fn discarded_sectors_read_as_zeroes_and_no_others() {
    let mut world = World::new(&[Setup::default()]);
    world.drive.borrow_mut().write(UnitId(0), 0, &[0xaa; 100 * 512]);
    assert!(world.guests[0].queues[0].discard(1, 10, 20, 0));
    assert_eq!(statuses(&world.ask(0)), [(1, 5, 0)]);
    let zeroes = world.contents(0, 0, 100 * 512).chunks(512).map(|sector| sector == [0; 512]).collect::<Vec<_>>();
    assert!(zeroes.iter().enumerate().all(|(at, zero)| *zero == (10..30).contains(&at)));
    let statistics = world.path.vbd_statistics(world.ids[0]).unwrap();
    assert_eq!((statistics.discards, statistics.sectors_discarded), (1, 20));
    world.end();
}

/// A discard of all there is comes in pieces, few at a time.
#[test]
fn large_discards_come_in_pieces() {
    let mut world = World::new(&[Setup::default()]);
    world.drive.borrow_mut().hold = true;
    for id in 0..20 {
        assert!(world.guests[0].queues[0].discard(id, id * 8, 8, 0));
    }
    assert_eq!(world.ask(0), []);
    assert_eq!(world.drive.borrow().in_flight(), 4);
    world.drive.borrow_mut().hold = false;
    assert_eq!(world.ask(0).len(), 20);
    world.end();
}

fn kinds(world: &World) -> Vec<Operation> {
    world.drive.borrow().seen.iter().flatten().map(|seen| seen.operation).collect()
}

#[test]
fn a_flush_is_not_asked_of_a_disk_that_needs_none() {
    for cache in [false, true] {
        let disk = Geometry { volatile_cache: cache, ..geometry(SECTORS, 512) };
        let mut world = World::with(&[Setup::default()], disk, |_| {});
        world.drive.borrow_mut().seen = Some(Vec::new());
        assert!(world.guests[0].queues[0].flush(5));
        assert_eq!(statuses(&world.ask(0)), [(5, 3, 0)]);
        assert_eq!(kinds(&world), if cache { vec![Operation::Flush] } else { vec![] });
        world.end();
    }
}

/// A barrier waits for all before it, is durable, and all after it wait for it, in all queues.
#[test]
fn barriers_part_what_is_before_from_what_is_after() {
    let write = |force_unit_access| Operation::Write { force_unit_access };
    for (no_durable_write, empty) in [(false, false), (true, false), (false, true)] {
        let mut world = World::new(&[Setup { queues: 2, ..Setup::default() }]);
        world.drive.borrow_mut().seen = Some(Vec::new());
        world.drive.borrow_mut().no_durable_write = no_durable_write;
        world.drive.borrow_mut().hold = true;
        let guest = &mut world.guests[0];
        assert!(guest.transfer(0, 1, 1, 0, (0, 8)) && guest.transfer(1, 2, 0, 8, (1, 8)));
        guest.publish(1);
        assert_eq!(world.ask(0), []);
        let guest = &mut world.guests[0];
        let sectors = if empty { vec![] } else { guest.segments(2, 8, false) };
        assert!(guest.place(0, 3, 2, 16, &sectors) && guest.transfer(0, 4, 1, 24, (3, 8)));
        assert_eq!(world.ask(0), []);
        let guest = &mut world.guests[0];
        assert!(guest.transfer(1, 5, 0, 24, (4, 8)));
        guest.publish(1);
        assert_eq!(world.ask(0), []);
        // Reads need not wait for the batch that fetches what is to be written.
        assert_eq!(kinds(&world), [Operation::Read, write(false)]);
        world.drive.borrow_mut().hold = false;
        let first = world.ask(0);
        assert_eq!(statuses(&first), [(1, 1, 0), (3, 2, 0), (4, 1, 0)]);
        assert_eq!(statuses(&world.guests[0].responses(1)), [(2, 0, 0), (5, 0, 0)]);
        let mut expected = vec![Operation::Read, write(false), Operation::Flush];
        match (no_durable_write, empty) {
            (_, true) => {}
            (false, _) => expected.push(write(true)),
            (true, _) => expected.extend([write(false), Operation::Flush]),
        }
        let seen = kinds(&world);
        assert_eq!(seen[..expected.len()], expected);
        assert_eq!(seen.len(), expected.len() + 2);
        world.end();
    }
}

/// A volume on two units, a command that the driver cuts, and one response.
#[test]
fn parts_are_counted_and_answered_once() {
    for persistent in [false, true] {
        let mut world = World::with(&[Setup { persistent, ..Setup::default() }], geometry(SECTORS, 512), |_| {});
        let (disk, other) = FakeDisk::new(&world.xen, &[geometry(SECTORS, 512)]);
        assert_eq!(world.path.add_disk(Box::new(disk)), 1);
        let mut volume = Volume::default();
        let second = UnitRef { controller: 1, unit: UnitId(0) };
        volume.push_striped(vec![(UNIT, 64), (second, 128)], 16, 1024).unwrap();
        world.path.resize(world.ids[0], volume, HERE);
        world.drive.borrow_mut().most_sectors = 5;
        other.borrow_mut().latency = 3;
        other.borrow_mut().seen = Some(Vec::new());
        let bytes = pattern(1, 300 * 512);
        world.guests[0].write(0, &bytes);
        assert!(world.guests[0].transfer(0, 1, 1, 24, (0, 300)));
        assert_eq!(statuses(&world.ask(0)), [(1, 1, 0)]);
        assert!(world.guests[0].transfer(0, 2, 0, 24, (100, 300)));
        assert_eq!(statuses(&world.ask(0)), [(2, 0, 0)]);
        assert_eq!(world.guests[0].read(100, bytes.len()), bytes);
        // The first stripe's second row begins with the volume's sector 32.
        assert_eq!(world.contents(0, 80, 16 * 512), bytes[8 * 512..24 * 512]);
        assert_eq!(other.borrow().contents(UnitId(0))[136 * 512..144 * 512], bytes[..8 * 512]);
        assert!(world.guests[0].queues[0].flush(3));
        assert_eq!(statuses(&world.ask(0)), [(3, 3, 0)]);
        assert_eq!(other.borrow().seen.iter().flatten().last().map(|seen| seen.operation), Some(Operation::Flush));
        let statistics = world.path.unit_statistics(second).unwrap();
        assert_eq!((statistics.sectors_written, statistics.flushes), (152, 1));
        assert_eq!(other.borrow().misuse, Vec::<alloc::string::String>::new());
        world.end();
    }
}

/// More requests than may be at work at once, through all queues of the largest rings.
#[test]
fn full_rings_are_served_to_the_end() {
    for persistent in [false, true] {
        let setup = Setup { queues: 2, ring_pages: 16, persistent, ..Setup::default() };
        let mut world = World::new(&[setup, setup]);
        world.drive.borrow_mut().depth = 3;
        for guest in 0..2 {
            for queue in 0..2 {
                for id in 0..512_u64 {
                    assert!(world.guests[guest].transfer(queue, id, (id & 1) as u8, id * 8, (id as usize, 8)));
                }
                assert!(!world.guests[guest].queues[queue].flush(0), "full");
                world.guests[guest].publish(queue);
            }
        }
        world.run();
        for guest in 0..2 {
            for queue in 0..2 {
                let mut ids: Vec<_> = world.guests[guest].responses(queue).iter().map(|answer| answer.id).collect();
                ids.sort_unstable();
                assert_eq!(ids, (0..512).collect::<Vec<_>>());
            }
        }
        world.end();
    }
}

/// More segments asked for at once than a vbd may have at work: some requests wait, none fails.
#[test]
fn the_largest_requests_wait_for_each_other() {
    for persistent in [false, true] {
        let setup = Setup { queues: 2, persistent, ..Setup::default() };
        let mut world = World::new(&[setup]);
        for queue in 0..2 {
            for id in 0..8 {
                assert!(world.guests[0].transfer(queue, id, 0, id * 8, (0, 2048)));
            }
            world.guests[0].publish(queue);
        }
        world.run();
        for queue in 0..2 {
            let answers = statuses(&world.guests[0].responses(queue));
            assert!(answers.len() == 8 && answers.iter().all(|(_, _, status)| *status == 0), "{answers:?}");
        }
        world.end();
    }
}

/// What is done in one round is one event a ring; none where the frontend looks by itself.
#[test]
fn a_round_is_one_event_a_ring() {
    let mut world = World::new(&[Setup { queues: 2, ..Setup::default() }]);
    for round in 0..3 {
        for queue in 0..2 {
            for id in 0..10 {
                assert!(world.guests[0].transfer(queue, id, 0, id * 8, (id as usize, 8)));
            }
            world.guests[0].publish(queue);
        }
        world.run();
        for queue in 0..2 {
            let port = world.guests[0].queues[queue].port;
            assert_eq!(world.guests[0].domain.take_notifications(port), 1, "round {round}");
            assert_eq!(world.guests[0].responses(queue).len(), 10);
        }
    }
    // Answers that were not looked at: no event is asked for.
    for expected in [1, 0] {
        assert!(world.guests[0].queues[0].flush(1));
        world.guests[0].publish(0);
        world.run();
        let port = world.guests[0].queues[0].port;
        assert_eq!(world.guests[0].domain.take_notifications(port), expected);
    }
    world.end();
}
