//! Disks that fail, and guests that go.

use super::{SECTORS, World, pattern};
use crate::datapath::statistics::Failure;
use crate::disk::{Event, IoError, Operation, UnitId};
use crate::fakes::frontend::HERE;
use crate::fakes::frontend::Response;
use crate::fakes::{FakeDisk, Fault, FaultyRange, Frontend, Setup, geometry};
use crate::volume::{UnitRef, Volume};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use split_driver::fakes::closed;
use split_driver::memory::Reach;
use split_driver::time::{Duration, Instant};
use split_driver::xenbus::DeviceId;

fn fault(sectors: core::ops::Range<u64>, reads: bool, fault: Fault) -> FaultyRange {
    FaultyRange { unit: UnitId(0), sectors, reads, writes: !reads, fault }
}

fn statuses(responses: &[Response]) -> Vec<(u64, i16)> {
    let mut statuses: Vec<_> = responses.iter().map(|response| (response.id, response.status)).collect();
    statuses.sort_unstable();
    statuses
}

/// A part that fails fails its request, and no other one; what was not read leaves the guest's pages alone.
#[test]
fn errors_are_seen_by_their_request_alone() {
    let device = IoError::Device { code: 0x281 };
    let cases = [
        (Fault::Error(device), Failure::Device),
        (Fault::Torn(device), Failure::Device),
        (Fault::NoAnswer(50), Failure::TimedOut),
        (Fault::Error(IoError::Unsupported), Failure::Unsupported),
    ];
    for (what, kind) in cases {
        for operation in [0, 1] {
            let mut world = World::new(&[Setup::default(), Setup::default()]);
            world.drive.borrow_mut().most_sectors = 16;
            world.drive.borrow_mut().faults.push(fault(40..41, operation == 0, what));
            world.guests[0].write(0, &[0xcc; 8 * 4096]);
            assert!(world.guests[0].transfer(0, 1, operation, 0, (0, 64)));
            assert!(world.guests[0].transfer(0, 2, operation, 64, (8, 64)));
            assert!(world.guests[1].transfer(0, 3, operation, 40, (0, 64)));
            world.guests[1].publish(0);
            let status = if kind == Failure::Unsupported { -2 } else { -1 };
            assert_eq!(statuses(&world.ask(0)), [(1, status), (2, 0)]);
            assert_eq!(statuses(&world.guests[1].responses(0)), [(3, 0)]);
            assert!(world.guests[0].read(0, 8 * 4096).iter().all(|byte| *byte == 0xcc));
            let failures = world.path.vbd_statistics(world.ids[0]).unwrap().failures;
            assert_eq!(failures[kind as usize], 1);
            assert_eq!(world.path.unit_statistics(super::UNIT).unwrap().failures[kind as usize], 1);
            assert_eq!(world.path.vbd_statistics(world.ids[1]).unwrap().failures, [0; Failure::COUNT]);
            world.end();
        }
    }
}

const DEVICE: IoError = IoError::Device { code: 1 };

/// Rounds, an instant apart or as long as the data path may sleep, until it has nothing to wait for or `end` came.
fn sleep_until(world: &mut World, end: Instant) {
    while let Some(deadline) = world.run().deadline.filter(|deadline| *deadline <= end) {
        world.now = world.now.max(deadline);
    }
    world.now = end;
    world.run();
}

fn flushes_seen(world: &World) -> usize {
    let drive = world.drive.borrow();
    drive.seen.iter().flatten().filter(|seen| seen.operation == Operation::Flush).count()
}

/// Flushes and barriers, before and after the data, are tried again: the guest waits, and sees one success. Its other requests, and its
/// neighbour's, go on meanwhile.
#[test]
fn a_flush_that_fails_is_tried_again() {
    for (operation, fault) in [
        (3, Fault::Error(DEVICE)),
        (3, Fault::NoAnswer(50)),
        (2, Fault::Error(DEVICE)),
        (2, Fault::Error(IoError::TimedOut)),
    ] {
        let mut world = World::new(&[Setup::default(), Setup::default()]);
        world.drive.borrow_mut().no_durable_write = true;
        world.drive.borrow_mut().flush_fault = Some((3, fault));
        world.drive.borrow_mut().seen = Some(Vec::new());
        let start = world.now;
        world.guests[0].write(0, &[0xab; 4096]);
        let segments = if operation == 2 { world.guests[0].segments(0, 8, false) } else { vec![] };
        assert!(world.guests[0].place(0, 1, operation, 0, &segments));
        assert_eq!(world.ask(0), []);
        assert_eq!(flushes_seen(&world), 1, "not at once");
        assert!(world.contents(0, 0, 4096).iter().all(|byte| *byte == 0), "no write overtakes its barrier's flush");
        assert!(world.guests[1].transfer(0, 5, 1, 0, (0, 8)));
        assert_eq!(statuses(&world.ask(1)), [(5, 0)]);
        let others: &[_] = if operation == 3 { &[(2, 0), (3, 0)] } else { &[] };
        for &(id, _) in others {
            assert!(world.guests[0].transfer(0, id, (id % 2) as u8, 8 * id, (1, 8)));
        }
        assert_eq!(statuses(&world.ask(0)), others);
        sleep_until(&mut world, start + Duration::from_millis(2900));
        assert_eq!((flushes_seen(&world), world.guests[0].responses(0).len()), (3, 0));
        sleep_until(&mut world, start + Duration::from_millis(3100));
        assert_eq!(statuses(&world.guests[0].responses(0)), [(1, 0)]);
        assert_eq!(flushes_seen(&world), if operation == 2 { 5 } else { 4 });
        let statistics = world.path.vbd_statistics(world.ids[0]).unwrap();
        assert_eq!(statistics.failures, [0; Failure::COUNT]);
        let failures = world.path.unit_statistics(super::UNIT).unwrap().failures;
        assert_eq!(failures[Failure::Device as usize] + failures[Failure::TimedOut as usize], 3, "the unit's tell");
        assert_eq!(world.run().deadline, None, "nothing to wait for any more");
        world.end();
    }
}

/// Each stage of a barrier has all the time that a flush has.
#[test]
fn a_barriers_second_flush_is_tried_as_long_as_its_first() {
    let mut world = World::new(&[Setup::default()]);
    world.drive.borrow_mut().no_durable_write = true;
    let segments = world.guests[0].segments(0, 8, false);
    for (before, after, status) in [(25, 25, 0), (0, 25, 0), (25, 40, -1)] {
        world.drive.borrow_mut().flush_fault = Some((before, Fault::Error(DEVICE)));
        world.drive.borrow_mut().seen = Some(Vec::new());
        assert!(world.guests[0].place(0, 1, 2, 0, &segments));
        world.guests[0].publish(0);
        // The data are written when the first flush succeeded.
        let written = (0..500).any(|_| {
            world.now = world.now + Duration::from_millis(100);
            world.round();
            world.drive.borrow().seen.iter().flatten().any(|seen| seen.operation != Operation::Flush)
        });
        assert!(written);
        world.drive.borrow_mut().flush_fault = Some((after, Fault::Error(DEVICE)));
        let middle = world.now;
        sleep_until(&mut world, middle + Duration::from_secs(24));
        assert_eq!(world.guests[0].responses(0), []);
        sleep_until(&mut world, middle + Duration::from_secs(32));
        assert_eq!(statuses(&world.guests[0].responses(0)), [(1, status)]);
    }
    world.end();
}

/// One that fails for good, or that there is no sense in trying again: an error for it and for all that writes from then on, what is at
/// work included. Reads go on, and so does the neighbour; whoever connects anew begins afresh.
#[test]
fn a_flush_that_fails_for_good_ends_all_writing() {
    for (operation, fault, waits) in [
        (3, Fault::Error(DEVICE), true),
        (2, Fault::Error(DEVICE), true),
        (3, Fault::Error(IoError::Unsupported), false),
        (3, Fault::Error(IoError::Gone), false),
    ] {
        let mut world = World::new(&[Setup::default(), Setup::default()]);
        let start = world.now;
        assert!(world.guests[0].transfer(0, 1, 1, 0, (0, 8)));
        assert_eq!(statuses(&world.ask(0)), [(1, 0)]);
        world.drive.borrow_mut().flush_fault = Some((u32::MAX, fault));
        assert!(world.guests[0].place(0, 2, operation, 0, &[]));
        let mut expected = vec![(2, -1)];
        if waits {
            assert_eq!(world.ask(0), []);
            sleep_until(&mut world, start + Duration::from_millis(29_500));
            assert_eq!(world.guests[0].responses(0), []);
            // The neighbour's begins later, and finds a device that is well again.
            assert!(world.guests[1].queues[0].flush(1));
            assert_eq!(world.ask(1), []);
            // The last try is in flight, and so is all of this; behind a barrier it waits in the ring.
            world.drive.borrow_mut().latency = 1000;
            world.now = start + Duration::from_millis(30_100);
            world.round();
            assert!(world.guests[0].transfer(0, 3, 1, 8, (8, 8)) && world.guests[0].queues[0].flush(4));
            assert!(world.guests[0].transfer(0, 5, 0, 8, (16, 8)));
            world.guests[0].publish(0);
            expected = vec![(2, -1), (3, -1), (4, -1), (5, 0)];
        }
        assert_eq!(statuses(&world.ask(0)), expected);
        world.drive.borrow_mut().flush_fault = None;
        world.drive.borrow_mut().latency = 0;
        let segments = world.guests[0].segments(0, 8, false);
        let writes = world.path.unit_statistics(super::UNIT).unwrap().writes;
        assert!(world.guests[0].transfer(0, 10, 1, 0, (0, 8)) && world.guests[0].transfer(0, 11, 1, 0, (0, 160)));
        assert!(world.guests[0].queues[0].flush(12) && world.guests[0].queues[0].discard(13, 0, 8, 0));
        assert!(world.guests[0].place(0, 14, 2, 0, &segments) && world.guests[0].place(0, 15, 2, 0, &[]));
        assert!(world.guests[0].transfer(0, 16, 0, 0, (0, 8)) && world.guests[0].transfer(0, 17, 0, 0, (0, 160)));
        let refused = (10..16).map(|id| (id, -1));
        assert_eq!(statuses(&world.ask(0)), refused.chain([(16, 0), (17, 0)]).collect::<Vec<_>>());
        assert_eq!(world.path.unit_statistics(super::UNIT).unwrap().writes, writes, "nothing reaches the disk");
        let failures = world.path.vbd_statistics(world.ids[0]).unwrap().failures;
        assert_eq!(failures[Failure::Undurable as usize], 6 + if waits { 3 } else { 1 });
        sleep_until(&mut world, start + Duration::from_secs(40));
        assert!(world.guests[1].transfer(0, 2, 1, 0, (0, 8)) && world.guests[1].queues[0].flush(3));
        let answers = statuses(&world.ask(1));
        assert_eq!(answers, if waits { vec![(1, 0), (2, 0), (3, 0)] } else { vec![(2, 0), (3, 0)] });
        assert!(world.path.detach(world.ids[0]).is_some());
        let again = Frontend::new(&world.xen, 9, Setup::default());
        world.ids[0] = world.path.attach(again.config(super::volume(0), geometry(2 * SECTORS, 512))).unwrap();
        world.guests[0] = again;
        assert!(world.guests[0].transfer(0, 1, 1, 0, (0, 8)) && world.guests[0].queues[0].flush(2));
        assert_eq!(statuses(&world.ask(0)), [(1, 0), (2, 0)]);
        world.end();
    }
}

/// What is before a barrier ends as the disks are asked, which is behind the step that starts barriers.
#[test]
fn a_barrier_is_answered_when_what_it_waits_for_fails_at_once() {
    let mut world = World::new(&[Setup::default()]);
    world.drive.borrow_mut().depth = 1;
    world.drive.borrow_mut().latency = 3;
    world.drive.borrow_mut().flush_fault = Some((1, Fault::Error(IoError::Unsupported)));
    // The flush is at work, the write waits for its turn, the barrier for both.
    assert!(world.guests[0].queues[0].flush(1) && world.guests[0].transfer(0, 2, 1, 0, (0, 8)));
    assert!(world.guests[0].place(0, 3, 2, 0, &[]));
    assert_eq!(statuses(&world.ask(0)), [(1, -1), (2, -1), (3, -1)]);
    world.end();
}

/// The memory that requests wait for comes back as the disks are asked, which is behind the step that gives it.
#[test]
fn requests_get_memory_of_those_that_fail_at_once() {
    let setup = Setup { ring_pages: 16, pages: 64, ..Setup::default() };
    let mut world = World::build(&[setup], geometry(SECTORS, 512), |path| path.map_requests(false), |_| {});
    world.drive.borrow_mut().depth = 1;
    world.drive.borrow_mut().latency = 3;
    world.drive.borrow_mut().flush_fault = Some((1, Fault::Error(IoError::Unsupported)));
    assert!(world.guests[0].queues[0].flush(0));
    // More than there are pages for, and a read behind them.
    assert!((1..60).all(|id| world.guests[0].transfer(0, id, 1, 0, (0, 88))));
    assert!(world.guests[0].transfer(0, 60, 0, 0, (0, 88)));
    let expected: Vec<_> = (0..60).map(|id| (id, -1)).chain([(60, 0)]).collect();
    assert_eq!(statuses(&world.ask(0)), expected);
    world.end();
}

/// A vbd that goes does not wait for a flush that nobody waits for, and a later one in its place has none of it.
#[test]
fn a_flush_that_waits_holds_no_vbd() {
    for operation in [3, 2] {
        let mut world = World::new(&[Setup::default()]);
        let device = DeviceId { frontend: world.guests[0].domain.id(), handle: 51712 };
        world.drive.borrow_mut().flush_fault = Some((u32::MAX, Fault::Error(DEVICE)));
        world.drive.borrow_mut().seen = Some(Vec::new());
        assert!(world.guests[0].place(0, 1, operation, 0, &[]) && world.guests[0].transfer(0, 2, 0, 0, (0, 8)));
        let answers = if operation == 3 { vec![(2, 0)] } else { vec![] };
        assert_eq!(statuses(&world.ask(0)), answers);
        assert!(!world.path.is_settled(device));
        assert!(world.path.detach(world.ids[0]).is_some());
        assert!(world.path.is_settled(device), "at once");
        assert_eq!(world.run().deadline, None);
        let again = Frontend::new(&world.xen, 9, Setup::default());
        world.ids[0] = world.path.attach(again.config(super::volume(0), geometry(SECTORS, 512))).unwrap();
        world.guests[0] = again;
        // One that is in flight when its vbd goes is over when it comes back.
        world.drive.borrow_mut().latency = 3;
        assert!(world.guests[0].queues[0].flush(1));
        world.guests[0].publish(0);
        world.round();
        let device = DeviceId { frontend: world.guests[0].domain.id(), handle: 51712 };
        assert!(world.path.detach(world.ids[0]).is_some() && !world.path.is_settled(device));
        assert_eq!(world.run().deadline, None);
        assert!(world.path.is_settled(device));
        assert_eq!(flushes_seen(&world), 2);
        world.ids.clear();
        world.end();
    }
}

/// Two controllers: one goes, unit by unit or as a whole, and guests of the other notice nothing.
#[test]
fn what_is_gone_fails_and_the_rest_goes_on() {
    for whole in [false, true] {
        let mut world = World::new(&[Setup::default(), Setup::default()]);
        let (disk, other) = FakeDisk::new(&world.xen, &[geometry(SECTORS, 512), geometry(SECTORS, 512)]);
        assert_eq!(world.path.add_disk(Box::new(disk)), 1);
        let unit = |unit| UnitRef { controller: 1, unit: UnitId(unit) };
        world.path.resize(world.ids[0], Volume::linear(unit(1), 0, SECTORS), HERE);
        other.borrow_mut().hold = true;
        for id in 0..20 {
            assert!(world.guests[0].transfer(0, id, (id % 2) as u8, id * 8, (id as usize, 8)));
        }
        assert!(world.guests[0].queues[0].flush(20));
        assert_eq!(world.ask(0), []);
        other.borrow_mut().depth = 0;
        assert!(world.guests[0].transfer(0, 21, 1, 0, (30, 8)));
        assert_eq!(world.ask(0), []);
        match whole {
            true => world.path.remove_disk(1, closed(&Reach::default())),
            false => {
                other.borrow_mut().remove_unit(UnitId(1));
                other.borrow_mut().hold = false;
                other.borrow_mut().depth = 64;
            }
        }
        assert!(world.guests[1].transfer(0, 5, 1, 0, (0, 256)));
        assert_eq!(statuses(&world.ask(1)), [(5, 0)]);
        world.run();
        let answers = statuses(&world.guests[0].responses(0));
        assert_eq!(answers, (0..22).map(|id| (id, -1)).collect::<Vec<_>>());
        let failures = world.path.vbd_statistics(world.ids[0]).unwrap().failures;
        assert_eq!(failures[Failure::Gone as usize] + failures[Failure::Undurable as usize], 22);
        assert!(world.guests[0].transfer(0, 30, 0, 0, (0, 8)) && world.guests[0].queues[0].flush(31));
        assert_eq!(statuses(&world.ask(0)), [(30, -1), (31, -1)]);
        assert_eq!(world.path.poll_disk_event(), Some((0, Event::Ready)));
        match whole {
            true => {
                assert!(world.path.disk(1).is_none() && world.path.disk(0).is_some());
                assert_eq!(world.path.controllers().collect::<Vec<_>>(), [0]);
                assert_eq!(alloc::rc::Rc::strong_count(&other), 1, "its driver is dropped");
            }
            false => {
                assert_eq!(world.path.poll_disk_event(), Some((1, Event::Ready)));
                assert_eq!(world.path.poll_disk_event(), Some((1, Event::Removed(UnitId(1)))));
                assert!(world.path.unit_statistics(unit(1)).is_none() && world.path.unit_statistics(unit(0)).is_some());
            }
        }
        assert_eq!(world.path.poll_disk_event(), None);
        world.end();
    }
}

/// While a controller is being reset its queue takes nothing; nothing is lost by that.
#[test]
fn recovery_loses_nothing() {
    let mut world = World::new(&[Setup { persistent: true, ..Setup::default() }, Setup::default()]);
    world.drive.borrow_mut().hold = true;
    let bytes = pattern(4, 64 * 512);
    for guest in 0..2 {
        world.guests[guest].write(0, &bytes);
        assert!(world.guests[guest].transfer(0, 1, 1, 0, (0, 32)));
        assert_eq!(world.ask(guest), []);
    }
    world.drive.borrow_mut().recovering = 100;
    world.drive.borrow_mut().announce(Event::Recovering("fatal".into()));
    for guest in 0..2 {
        assert!(world.guests[guest].transfer(0, 2, 1, 32, (4, 32)) && world.guests[guest].queues[0].flush(3));
        world.guests[guest].publish(0);
    }
    world.round();
    assert_eq!(world.drive.borrow().in_flight(), 2);
    world.drive.borrow_mut().hold = false;
    world.run();
    for guest in 0..2 {
        assert_eq!(statuses(&world.guests[guest].responses(0)), [(1, 0), (2, 0), (3, 0)]);
        assert_eq!(world.contents(guest, 0, bytes.len()), bytes);
    }
    world.end();
}

/// A frontend that goes with requests everywhere on their way: its pages are the device's until the device is done with them.
#[test]
fn detached_with_work_in_flight() {
    for (persistent, destroyed) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut world = World::new(&[Setup { persistent, ring_pages: 4, ..Setup::default() }, Setup::default()]);
        let device = DeviceId { frontend: world.guests[0].domain.id(), handle: 51712 };
        world.drive.borrow_mut().hold = true;
        world.drive.borrow_mut().depth = 10;
        for id in 0..40 {
            assert!(world.guests[0].transfer(0, id, (id % 2) as u8, id * 8, (id as usize, 80)));
        }
        let segments = world.guests[0].segments(0, 8, false);
        assert!(world.guests[0].place(0, 40, 2, 0, &segments));
        assert_eq!(world.ask(0), []);
        assert!(!world.path.is_settled(device));
        let statistics = world.path.detach(world.ids[0]);
        assert_eq!(statistics.map(|statistics| statistics.writes), Some(0));
        assert!(world.path.detach(world.ids[0]).is_none(), "once");
        assert!(!world.path.is_settled(device));
        world.run();
        assert!(!world.path.is_settled(device));
        if persistent {
            assert!(world.guests[0].domain.mapped() > 0, "the device works on them");
        }
        if destroyed {
            world.guests[0].domain.clone().destroy();
        }
        assert!(world.guests[1].transfer(0, 1, 1, 0, (0, 8)));
        world.guests[1].publish(0);
        world.drive.borrow_mut().hold = false;
        world.run();
        assert!(world.path.is_settled(device));
        assert_eq!(statuses(&world.guests[1].responses(0)), [(1, 0)]);
        if !destroyed {
            assert_eq!(world.guests[0].domain.mapped(), 0);
        }
        // Its place is taken by the next one.
        let again = crate::fakes::Frontend::new(&world.xen, 9, Setup::default());
        world.ids[0] = world.path.attach(again.config(super::volume(0), geometry(SECTORS, 512))).unwrap();
        world.guests[0] = again;
        assert!(world.guests[0].transfer(0, 1, 0, 0, (0, 8)));
        assert_eq!(statuses(&world.ask(0)), [(1, 0)]);
        world.end();
    }
}

/// A guest that is destroyed under load costs its own requests, and is no fault of ours.
#[test]
fn destroyed_under_load() {
    for persistent in [false, true] {
        let mut world = World::new(&[Setup { persistent, ..Setup::default() }, Setup::default()]);
        world.drive.borrow_mut().hold = true;
        for id in 0..32 {
            assert!(world.guests[0].transfer(0, id, (id % 2) as u8, id * 8, (id as usize, 8)));
        }
        assert_eq!(world.ask(0), []);
        world.guests[0].domain.clone().destroy();
        world.drive.borrow_mut().hold = false;
        world.run();
        assert!(world.guests[1].transfer(0, 1, 0, 0, (0, 8)));
        assert_eq!(statuses(&world.ask(1)), [(1, 0)]);
        world.end();
    }
}

/// What cannot be taken up leaves nothing behind.
#[test]
fn failed_attachments_leave_nothing() {
    let mut world = World::new(&[]);
    let guest = crate::fakes::Frontend::new(&world.xen, 1, Setup { queues: 2, ring_pages: 2, ..Setup::default() });
    let good = guest.config(super::volume(0), geometry(SECTORS, 512));
    let rest = world.xen.live();
    let mut bad_ring = good.clone();
    bad_ring.queues[1].ring[1] = xen_pv_sys::GrantRef(999);
    let mut bad_port = good.clone();
    bad_port.queues[1].port = xen_pv_sys::Port(99);
    for bad in [bad_ring, bad_port] {
        assert!(world.path.attach(bad).is_err());
        assert_eq!(world.xen.live(), rest);
    }
    world.ids.push(world.path.attach(good).unwrap());
    world.end();
}
