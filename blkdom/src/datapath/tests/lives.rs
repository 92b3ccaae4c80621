//! A life that ends at any step of the data path, and the next one that goes on: what it must not do, case by case.

use super::{SECTORS, World, pattern, volume};
use crate::blkback::journal::JournalError;
use crate::blkback::violation::AttachError;
use crate::datapath::Inherited;
use crate::disk::{IoError, Operation};
use crate::fakes::frontend::Response;
use crate::fakes::{Fault, Setup, geometry};
use alloc::vec;
use alloc::vec::Vec;
use split_driver::time::Duration;

const OKAY: i16 = 0;
const ERROR: i16 = -1;

impl World {
    /// Ends the life here, and has the next one take over the vbds.
    fn next_life(&mut self) {
        self.begin_life(|_| {}, |_, _| false);
        for index in 0..self.guests.len() {
            let config = self.guests[index].config(volume(index), geometry(SECTORS * self.guests.len() as u64, 512));
            self.ids[index] = self.path.adopt(config).expect("a journal").0;
        }
        assert_eq!(self.xen.taken_over(), 0);
    }

    /// Publishes what a guest placed, and does one round.
    fn begin(&mut self) {
        self.guests[0].publish(0);
        self.round();
    }

    /// All responses, until nothing is left to do.
    fn finish(&mut self) -> Vec<Response> {
        self.drive.borrow_mut().hold = false;
        self.run();
        self.guests[0].responses(0)
    }
}

fn ids(responses: &[Response]) -> Vec<(u64, i16)> {
    let mut ids: Vec<_> = responses.iter().map(|response| (response.id, response.status)).collect();
    ids.sort_unstable();
    ids
}

/// Every step of a few rounds with reads, writes, a flush, a discard and indirect requests is a life's last once. All is answered once,
/// the frontend's nodes do not come into it, and the disk holds what was written.
#[test]
fn whatever_step_is_a_lifes_last_each_request_is_answered_once() {
    for persistent in [false, true] {
        for last in 0.. {
            let mut world = World::new(&[Setup { persistent, pages: 64, ..Setup::default() }]);
            world.drive.borrow_mut().latency = 1;
            world.guests[0].write(0, &pattern(1, 4096));
            world.guests[0].write(16, &pattern(2, 13 * 4096));
            let queued = [
                world.guests[0].transfer(0, 1, 1, 0, (0, 8)),
                world.guests[0].transfer(0, 2, 1, 100, (16, 13 * 8)),
                world.guests[0].queues[0].flush(3),
                world.guests[0].queues[0].discard(4, 512, 8, 0),
                world.guests[0].transfer(0, 5, 0, 1000, (40, 8)),
                // Beyond the end.
                world.guests[0].transfer(0, 6, 0, SECTORS, (41, 8)),
            ];
            assert_eq!(queued, [true; 6]);
            world.guests[0].publish(0);
            let mut responses = Vec::new();
            let ended = world.live(last, |world| {
                for _ in 0..6 {
                    world.round();
                    responses.extend(world.guests[0].responses(0));
                }
            });
            if !ended {
                assert!(last > 50, "{last} steps");
                break;
            }
            responses.extend(world.guests[0].responses(0));
            world.next_life();
            responses.extend(world.finish());
            let expected = [(1, OKAY), (2, OKAY), (3, OKAY), (4, OKAY), (5, OKAY), (6, ERROR)];
            assert_eq!(ids(&responses), expected, "behind step {last}");
            assert!(world.contents(0, 0, 4096) == pattern(1, 4096), "{last}");
            assert!(world.contents(0, 100, 13 * 4096) == pattern(2, 13 * 4096), "{last}");
            world.end();
        }
    }
}

#[test]
fn what_was_taken_and_not_answered_is_counted() {
    let mut world = World::new(&[Setup { pages: 64, ..Setup::default() }]);
    world.drive.borrow_mut().hold = true;
    let queued = [
        world.guests[0].transfer(0, 1, 1, 0, (0, 8)),
        world.guests[0].transfer(0, 2, 1, 8, (1, 8)),
        world.guests[0].transfer(0, 3, 1, 100, (16, 13 * 8)),
        world.guests[0].transfer(0, 4, 0, 300, (32, 13 * 8)),
        world.guests[0].transfer(0, 5, 0, 500, (48, 8)),
        world.guests[0].queues[0].flush(6),
    ];
    assert_eq!(queued, [true; 6]);
    world.begin();
    world.next_life();
    let id = world.ids[0];
    assert_eq!(world.path.inherited(id), Inherited { requests: 6, writes: 2, indirect_writes: 1 });
    world.finish();
    world.next_life();
    let id = world.ids[0];
    assert_eq!(world.path.inherited(id), Inherited::default());
    world.end();
}

#[test]
fn what_was_taken_comes_before_what_was_not_and_in_its_order() {
    let mut world = World::new(&[Setup::default()]);
    world.drive.borrow_mut().hold = true;
    for id in 0..5 {
        assert!(world.guests[0].transfer(0, id, 1, id * 8, (id as usize, 8)));
    }
    world.begin();
    for id in 5..8 {
        assert!(world.guests[0].transfer(0, id, 1, id * 8, (id as usize, 8)));
    }
    world.guests[0].publish(0);
    world.drive.borrow_mut().seen = Some(Vec::new());
    world.next_life();
    assert_eq!(ids(&world.finish()), (0..8).map(|id| (id, OKAY)).collect::<Vec<_>>());
    let seen = world.drive.borrow_mut().seen.take().expect("noted");
    assert_eq!(seen.iter().map(|seen| seen.sector / 8).collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    world.end();
}

/// A barrier that waits for a write, and that write, in the last life: in this one, the write comes first and is flushed, and what comes behind the
/// barrier comes last.
#[test]
fn a_barrier_parts_requests_in_the_next_life_as_well() {
    let mut world = World::new(&[Setup::default()]);
    world.drive.borrow_mut().hold = true;
    assert!(world.guests[0].transfer(0, 0, 1, 0, (0, 8)));
    assert!(world.guests[0].transfer(0, 1, 2, 8, (1, 8)));
    assert!(world.guests[0].transfer(0, 2, 1, 16, (2, 8)));
    world.begin();
    world.drive.borrow_mut().seen = Some(Vec::new());
    world.next_life();
    assert_eq!(ids(&world.finish()), [(0, OKAY), (1, OKAY), (2, OKAY)]);
    let seen = world.drive.borrow_mut().seen.take().expect("noted");
    let seen: Vec<_> = seen.iter().map(|seen| (seen.operation, seen.sector)).collect();
    let write = |force_unit_access| Operation::Write { force_unit_access };
    assert_eq!(seen, [(write(false), 0), (Operation::Flush, 0), (write(true), 8), (write(false), 16)]);
    world.end();
}

/// More requests than are noted at once wait in their ring, in this life and in the next.
#[test]
fn a_ring_longer_than_its_journal_is_served_to_its_end() {
    for lives in 0..3 {
        let setup = Setup { queues: 2, ring_pages: 16, pages: 1, ..Setup::default() };
        let mut world = World::new(&[setup]);
        // All that is at work is done in one round.
        (world.drive.borrow_mut().depth, world.drive.borrow_mut().hold) = (256, true);
        for id in 0..400 {
            assert!(world.guests[0].transfer(0, id, 1, id, (0, 1)));
        }
        world.begin();
        let again = (0..50).filter(|_| world.round().again).count();
        assert!(again < 20, "it does not rest");
        for _ in 0..lives {
            world.next_life();
            world.run();
        }
        let answered = world.finish();
        assert_eq!(ids(&answered), (0..400).map(|id| (id, OKAY)).collect::<Vec<_>>());
        world.end();
    }
}

/// What was said of a flush that failed for good holds in the next life.
#[test]
fn a_life_does_not_write_what_the_last_one_would_not() {
    let mut world = World::new(&[Setup::default()]);
    world.drive.borrow_mut().flush_fault = Some((u32::MAX, Fault::Error(IoError::Device { code: 3 })));
    assert!(world.guests[0].queues[0].flush(0));
    world.guests[0].publish(0);
    let mut answer = vec![];
    for _ in 0..100 {
        world.now = world.now + Duration::from_secs(1);
        world.run();
        answer.extend(world.guests[0].responses(0));
    }
    assert_eq!(ids(&answer), [(0, ERROR)]);
    world.drive.borrow_mut().flush_fault = None;
    world.next_life();
    assert!(world.guests[0].transfer(0, 1, 1, 0, (0, 8)) && world.guests[0].transfer(0, 2, 0, 0, (1, 8)));
    assert_eq!(ids(&world.ask(0)), [(1, ERROR), (2, OKAY)]);
    world.end();
}

#[test]
fn requests_fail_where_the_disk_is_another_one_and_that_is_not_written() {
    let mut world = World::new(&[Setup::default()]);
    world.drive.borrow_mut().hold = true;
    world.guests[0].write(0, &pattern(1, 4096));
    assert!(world.guests[0].transfer(0, 0, 1, 0, (0, 8)));
    world.begin();
    for life in 0..2_u64 {
        world.begin_life(|_| {}, |_, _| false);
        let config = world.guests[0].config(volume(0), geometry(SECTORS, 512));
        let lay = config.whereabouts;
        let (id, found) = world.path.adopt(config).expect("a journal");
        world.ids[0] = id;
        // Back again in the second life, and who knows what it lost.
        assert_eq!(found, (life == 0).then_some(lay));
        if life == 0 {
            world.path.lose_disk(id);
        }
        let expected = if life == 0 { vec![(0, ERROR)] } else { vec![] };
        assert_eq!(ids(&world.finish()), expected);
        assert!(world.guests[0].transfer(0, 7, 1, 0, (0, 8)) && world.guests[0].transfer(0, 8, 0, 0, (1, 8)));
        assert!(world.guests[0].queues[0].flush(9));
        assert_eq!(ids(&world.ask(0)), [(7, ERROR), (8, ERROR), (9, ERROR)]);
        assert!(world.contents(0, 0, 4096) == vec![0; 4096]);
    }
    world.end();
}

/// A neighbour's journal that was written over costs him his disk, and nobody else.
#[test]
fn a_damaged_journal_costs_its_vbd() {
    let mut world = World::new(&[Setup::default(), Setup::default()]);
    world.drive.borrow_mut().hold = true;
    for guest in 0..2 {
        assert!(world.guests[guest].transfer(0, 1, 1, 0, (0, 8)));
        world.guests[guest].publish(0);
    }
    world.round();
    // In the first page: the first entry's request.
    world.xen.damage(0, 64 + 5, |word| word ^ 4);
    world.begin_life(|_| {}, |_, _| false);
    let config = |world: &World, guest: usize| world.guests[guest].config(volume(guest), geometry(2 * SECTORS, 512));
    let (one, other) = (config(&world, 0), config(&world, 1));
    let damaged = AttachError::Journal { queue: 0, error: JournalError::Damaged };
    assert_eq!(world.path.adopt(one.clone()), Err(damaged));
    let missing = AttachError::Journal { queue: 0, error: JournalError::Missing };
    assert_eq!(world.path.adopt(one.clone()), Err(missing), "it is gone then");
    world.ids[1] = world.path.adopt(other).expect("a journal").0;
    assert_eq!(world.xen.taken_over(), 0);
    world.drive.borrow_mut().hold = false;
    world.run();
    assert_eq!(ids(&world.guests[1].responses(0)), [(1, OKAY)]);
    world.ids[0] = world.path.attach(one).expect("anew");
    world.end();
}

/// A frontend may write anything into its ring between two lives. It costs itself.
#[test]
fn a_ring_that_was_scribbled_on_between_lives_harms_nobody_else() {
    for (word, value) in [(0, 1000), (0, 0), (2, 77), (2, 0), (2, 1), (3, 9), (20, u32::MAX)] {
        let mut world = World::new(&[Setup::default(), Setup::default()]);
        for guest in 0..2 {
            for id in 0..4 {
                assert!(world.guests[guest].transfer(0, id, 1, id * 8, (id as usize, 8)));
            }
            assert_eq!(world.ask(guest).len(), 4);
        }
        world.drive.borrow_mut().hold = true;
        for guest in 0..2 {
            assert!(world.guests[guest].transfer(0, 9, 0, 0, (5, 8)));
            world.guests[guest].publish(0);
        }
        world.round();
        assert!(world.guests[0].queues[0].memory.write(word * 4, &u32::to_le_bytes(value)));
        world.begin_life(|_| {}, |_, _| false);
        let config =
            |world: &World, guest: usize| world.guests[guest].config(volume(guest), geometry(2 * SECTORS, 512));
        let (one, other) = (config(&world, 0), config(&world, 1));
        let first = world.path.adopt(one);
        world.ids[1] = world.path.adopt(other).expect("a journal").0;
        world.drive.borrow_mut().hold = false;
        world.run();
        assert_eq!(ids(&world.guests[1].responses(0)), [(9, OKAY)], "word {word}, {value}");
        match first {
            Ok((id, _)) => world.ids[0] = id,
            Err(AttachError::Ring { .. }) => drop(world.ids.remove(0)),
            Err(error) => panic!("{error}"),
        }
        while world.path.poll_failed().is_some() {}
        world.xen.taken_over();
        world.end();
    }
}
