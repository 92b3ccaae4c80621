//! What a hostile guest does costs that guest its disk, and its neighbours little.

use super::{SECTORS, World};
use crate::blkback::violation::Violation;
use crate::fakes::Setup;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use split_driver::memory::SharedMemory;
use split_driver::time::Duration;

/// The villain, and an honest neighbour.
const MALLORY: usize = 0;
const ALICE: usize = 1;

#[test]
fn an_overrun_closes_the_vbd_and_nobody_elses() {
    for queue in 0..2 {
        let setup = Setup { queues: 2, ..Setup::default() };
        let mut world = World::new(&[setup, setup]);
        world.drive.borrow_mut().hold = true;
        assert!(world.guests[MALLORY].transfer(0, 1, 0, 0, (0, 8)));
        assert_eq!(world.ask(MALLORY), []);
        let memory = world.guests[MALLORY].queues[queue].memory.clone();
        let producer = memory.words()[0].load(Ordering::Relaxed).wrapping_add(33);
        memory.words()[0].store(producer, Ordering::Relaxed);
        let port = world.guests[MALLORY].queues[queue].port;
        world.guests[MALLORY].domain.notify(port);
        world.run();
        let (failed, violation) = world.path.poll_failed().expect("a violation");
        assert_eq!(failed, world.ids[MALLORY]);
        assert!(
            matches!(violation, Violation::Overrun { queue: found, producer: p, .. } if usize::from(found) == queue && p == producer)
        );
        world.drive.borrow_mut().hold = false;
        world.guests[MALLORY].domain.notify(port);
        world.run();
        assert_eq!(world.guests[MALLORY].queues[0].memory.words()[2].load(Ordering::Relaxed), 0, "no answer any more");
        assert!(world.guests[ALICE].transfer(1, 1, 0, 0, (0, 8)));
        world.guests[ALICE].publish(1);
        world.run();
        assert_eq!(world.guests[ALICE].responses(1).len(), 1);
        world.end();
    }
}

/// Events without work: ever fewer of them reach us.
#[test]
fn event_storms_die_down() {
    let mut world = World::new(&[Setup::default(), Setup::default()]);
    let port = world.guests[MALLORY].queues[0].port;
    let mut delivered = 0;
    for _ in 0..1000 {
        world.now = world.now + Duration::from_micros(100);
        world.guests[MALLORY].domain.notify(port);
        while let Some(local) = world.xen.next_event() {
            delivered += 1;
            world.path.handle_event(local, world.now);
        }
        world.path.poll(world.now);
    }
    assert!((5..=13).contains(&delivered), "{delivered}");
    // Work is found all the same, when the delay is over.
    assert!(world.guests[MALLORY].transfer(0, 1, 0, 0, (0, 8)));
    world.guests[MALLORY].publish(0);
    let deadline = world.run().deadline.expect("the end of the delay");
    world.now = deadline;
    world.run();
    assert_eq!(world.guests[MALLORY].responses(0).len(), 1);
    world.end();
}

/// A neighbour with full rings, and a request that comes after them: so many commands go before it, and no more.
#[test]
fn full_rings_delay_a_neighbour_by_a_bounded_number_of_commands() {
    for persistent in [false, true] {
        for (depth, most_before) in [(1024, 128 + 2), (32, 32 + 2), (1, 3)] {
            let greedy = Setup { queues: 4, ring_pages: 16, persistent, ..Setup::default() };
            let mut world = World::new(&[greedy, Setup::default()]);
            world.drive.borrow_mut().depth = depth;
            world.drive.borrow_mut().seen = Some(Vec::new());
            world.drive.borrow_mut().hold = true;
            for queue in 0..4 {
                for id in 0..500 {
                    assert!(world.guests[MALLORY].transfer(queue, id, 1, id * 8, (id as usize, 8)));
                }
                world.guests[MALLORY].publish(queue);
            }
            world.run();
            world.drive.borrow_mut().hold = false;
            world.guests[ALICE].transfer(0, 1, 1, 0, (0, 8));
            world.guests[ALICE].publish(0);
            world.run();
            assert_eq!(world.guests[ALICE].responses(0).len(), 1);
            let drive = world.drive.borrow();
            let before = drive.seen.iter().flatten().take_while(|seen| seen.sector < SECTORS).count();
            assert!(before <= most_before, "{before} commands before it, of a device with {depth}");
            drop(drive);
            world.end();
        }
    }
}

/// While two are at it, neither has more than its share in flight.
#[test]
fn two_that_want_all_share() {
    let greedy = Setup { ring_pages: 16, ..Setup::default() };
    let mut world = World::new(&[greedy, greedy]);
    world.drive.borrow_mut().seen = Some(Vec::new());
    world.drive.borrow_mut().depth = 16;
    for guest in [MALLORY, ALICE] {
        for id in 0..200 {
            assert!(world.guests[guest].transfer(0, id, 1, id * 8, (id as usize, 8)));
        }
        world.guests[guest].publish(0);
    }
    world.run();
    let drive = world.drive.borrow();
    let first: Vec<_> = drive.seen.iter().flatten().take(200).map(|seen| seen.sector < SECTORS).collect();
    let of_mallory = first.iter().filter(|mallory| **mallory).count();
    assert!((90..=110).contains(&of_mallory), "{of_mallory}");
    drop(drive);
    world.end();
}

/// A guest that changes a request after it was published, and its indirect segments after they were looked at, has what it had then.
#[test]
fn nothing_is_read_twice() {
    let mut world = World::new(&[Setup { ring_pages: 1, ..Setup::default() }, Setup::default()]);
    world.drive.borrow_mut().hold = true;
    let guest = &mut world.guests[MALLORY];
    assert!(guest.transfer(0, 1, 0, 0, (0, 128)));
    assert_eq!(world.ask(MALLORY), []);
    let guest = &mut world.guests[MALLORY];
    let (segments, _) = guest.queues[0].indirect_pages();
    segments.write(0, &[0xff; 4096]);
    for word in &guest.queues[0].memory.words()[16..] {
        word.store(u32::MAX, Ordering::Relaxed);
    }
    world.drive.borrow_mut().hold = false;
    world.run();
    assert_eq!(world.guests[MALLORY].responses(0).first().map(|answer| (answer.id, answer.status)), Some((1, 0)));
    world.end();
}
