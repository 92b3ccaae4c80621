//! Disks that fail, and guests that go.

use super::{SECTORS, World, pattern};
use crate::datapath::statistics::Failure;
use crate::disk::{Event, IoError, UnitId};
use crate::fakes::frontend::Response;
use crate::fakes::{FakeDisk, Fault, FaultyRange, Setup, geometry};
use crate::volume::{UnitRef, Volume};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
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
            assert_eq!(world.path.vbd_statistics(world.ids[1]).unwrap().failures, [0; 6]);
            world.end();
        }
    }
}

#[test]
fn a_flush_that_fails_is_no_success() {
    let mut world = World::new(&[Setup::default()]);
    for (id, operation) in [(1, 3), (2, 2)] {
        world.drive.borrow_mut().faults.push(fault(0..0, false, Fault::Error(IoError::Device { code: 1 })));
        let segments = if operation == 2 { world.guests[0].segments(0, 8, false) } else { vec![] };
        assert!(world.guests[0].place(0, id, operation, 0, &segments));
        assert_eq!(statuses(&world.ask(0)), [(id, -1)]);
    }
    assert!(
        world.contents(0, 0, 4096).iter().all(|byte| *byte == 0),
        "the barrier's write does not overtake its flush"
    );
    world.end();
}

/// Two controllers: one goes, unit by unit or as a whole, and guests of the other notice nothing.
#[test]
fn what_is_gone_fails_and_the_rest_goes_on() {
    for whole in [false, true] {
        let mut world = World::new(&[Setup::default(), Setup::default()]);
        let (disk, other) = FakeDisk::new(&world.xen, &[geometry(SECTORS, 512), geometry(SECTORS, 512)]);
        assert_eq!(world.path.add_disk(Box::new(disk)), 1);
        let unit = |unit| UnitRef { controller: 1, unit: UnitId(unit) };
        world.path.resize(world.ids[0], Volume::linear(unit(1), 0, SECTORS));
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
            true => world.path.remove_disk(1),
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
        assert_eq!(world.path.vbd_statistics(world.ids[0]).unwrap().failures[Failure::Gone as usize], 22);
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
