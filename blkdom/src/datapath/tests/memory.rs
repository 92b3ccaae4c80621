//! Where data lie on their way: grants that stay mapped, bounce pages, and who gets them.

use super::{PAGES, World, pattern};
use crate::datapath::persistent::{STEP, STEP_BYTES};
use crate::datapath::{PERSISTENT_GRANTS, UNUSED};
use crate::disk::{Geometry, Operation};
use crate::fakes::frontend::segment;
use crate::fakes::{Frontend, Setup, geometry};
use alloc::vec;
use alloc::vec::Vec;
use split_driver::hypervisor::XenError;
use split_driver::time::Duration;

const KEEPS: Setup =
    Setup { persistent: true, ring_pages: 16, pages: 2048, abi: crate::blkback::request::Abi::X86_64, queues: 1 };

fn done(world: &mut World, guest: usize) -> usize {
    let responses = world.ask(guest);
    assert!(responses.iter().all(|response| response.status == 0), "{responses:?}");
    responses.len()
}

#[test]
fn grants_stay_mapped_and_are_mapped_in_one_call() {
    let mut world = World::new(&[KEEPS]);
    for round in 0..5 {
        for id in 0..32 {
            assert!(world.guests[0].transfer(0, id as u64, (id & 1) as u8, id as u64 * 8, (id, 8)));
        }
        assert_eq!(done(&mut world, 0), 32);
        assert_eq!(world.xen.device_map_calls(), 1, "round {round}");
    }
    assert_eq!(world.xen.copy_count(), (0, 0), "nothing was copied");
    assert_eq!(world.guests[0].domain.mapped(), 16 + 32);
    assert_eq!(world.path.pages().available(), PAGES - 24);
    world.end();
}

#[test]
fn unused_grants_are_unmapped_after_a_minute() {
    let mut world = World::new(&[KEEPS]);
    assert!(world.guests[0].transfer(0, 1, 0, 0, (0, 16)));
    assert_eq!(done(&mut world, 0), 1);
    let begin = world.now;
    world.now = begin + Duration::from_secs(30);
    assert!(world.guests[0].transfer(0, 1, 0, 0, (0, 8)));
    assert_eq!(done(&mut world, 0), 1);
    let deadline = world.run().deadline.expect("the end of a grant");
    assert!(deadline <= begin + UNUSED + Duration::from_secs(1));
    world.now = deadline;
    let deadline = world.run().deadline.expect("the end of the other");
    assert_eq!(world.guests[0].domain.mapped(), 16 + 1);
    world.now = deadline;
    assert_eq!(world.run().deadline, None);
    assert_eq!(world.guests[0].domain.mapped(), 16);
    world.end();
}

/// More grants than are kept: the table stays within its bounds, and nothing in flight is unmapped.
#[test]
fn only_so_many_grants_stay_mapped() {
    let mut world = World::new(&[KEEPS]);
    for round in 0..3 {
        for id in 0..8 {
            let page = id * 256 % 2048;
            let bytes = pattern(page as u64, 256 * 4096);
            world.guests[0].write(page, &bytes);
            assert!(world.guests[0].transfer(0, id as u64, 1, 0, (page, 2048)));
        }
        assert_eq!(done(&mut world, 0), 8, "round {round}");
        assert!(world.guests[0].domain.mapped() <= 16 + PERSISTENT_GRANTS);
    }
    // Eight of 256 pages are more than the table holds: the rest were copied.
    assert!(world.xen.copy_count().0 > 0);
    world.end();
}

/// Grants for reading only, and a mapping that Xen refuses for a reason of its own: the data are copied.
#[test]
fn what_cannot_be_mapped_is_copied() {
    let mut world = World::new(&[KEEPS]);
    let bytes = pattern(3, 8 * 512);
    world.guests[0].write(0, &bytes);
    world.guests[0].setup.persistent = false;
    for id in 0..30 {
        assert!(world.guests[0].transfer(0, id, 1, 0, (0, 8)));
        assert_eq!(done(&mut world, 0), 1);
    }
    assert_eq!(world.contents(0, 0, bytes.len()), bytes);
    assert!(world.xen.device_map_calls() <= 16, "tried for good");
    assert_eq!(world.guests[0].domain.mapped(), 16);
    world.end();

    let mut world = World::new(&[KEEPS]);
    world.xen.fail_next_map(XenError::Exhausted);
    assert!(world.guests[0].transfer(0, 1, 0, 0, (0, 24)) && world.guests[0].transfer(0, 2, 1, 24, (0, 16)));
    assert_eq!(done(&mut world, 0), 2);
    assert_eq!(world.guests[0].domain.mapped(), 16 + 2);
    world.end();
}

/// On a disk of 4 KiB blocks, blocks that lie in pieces are put together in bounce pages.
#[test]
fn blocks_in_pieces_are_put_together() {
    for persistent in [false, true] {
        let disk = Geometry { ..geometry(super::SECTORS, 4096) };
        let mut world = World::with(&[Setup { persistent, ..Setup::default() }], disk, |_| {});
        let bytes = pattern(9, 24 * 512);
        let pieces = |guest: &Frontend, writable: bool| {
            let page = |page| guest.grant(page, writable);
            vec![
                segment(page(3), 7, 7),
                segment(page(0), 0, 4),
                segment(page(9), 2, 7),
                segment(page(1), 0, 7),
                segment(page(2), 1, 4),
            ]
        };
        let places = [(3, 7, 1), (0, 0, 5), (9, 2, 6), (1, 0, 8), (2, 1, 4)];
        let mut at = 0;
        for (page, first, sectors) in places {
            world.guests[0].memory.write(page * 4096 + first * 512, &bytes[at..at + sectors * 512]);
            at += sectors * 512;
        }
        let segments = pieces(&world.guests[0], false);
        assert!(world.guests[0].place(0, 1, 1, 8, &segments));
        assert_eq!(done(&mut world, 0), 1);
        assert_eq!(world.contents(0, 8, bytes.len()), bytes);
        for page in 0..10 {
            world.guests[0].write(page, &[0xee; 4096]);
        }
        let segments = pieces(&world.guests[0], true);
        assert!(world.guests[0].place(0, 2, 0, 8, &segments));
        assert_eq!(done(&mut world, 0), 1);
        let mut at = 0;
        for (page, first, sectors) in places {
            let read = world.guests[0].read(page, 4096);
            assert_eq!(read[first * 512..][..sectors * 512], bytes[at..at + sectors * 512]);
            assert!(read[..first * 512].iter().chain(&read[(first + sectors) * 512..]).all(|byte| *byte == 0xee));
            at += sectors * 512;
        }
        assert_eq!(world.xen.device_map_calls(), 0);
        world.end();
    }
}

/// A neighbour with all it may ask for leaves pages for others, and who waits longest gets those that come back.
#[test]
fn nobody_starves_of_pages() {
    let greedy = Setup { ring_pages: 16, ..Setup::default() };
    let mut world = World::new(&[greedy, greedy, greedy]);
    world.drive.borrow_mut().hold = true;
    world.drive.borrow_mut().depth = 1;
    for guest in 0..2 {
        let before = world.path.pages().available();
        for id in 0..200 {
            assert!(world.guests[guest].transfer(0, id, 0, 0, (0, 88)));
        }
        assert_eq!(world.ask(guest), []);
        assert!(before - world.path.pages().available() <= PAGES / 2, "half is left");
    }
    // The second has nearly as much as the first. Nothing is left for a large one.
    assert!(world.path.pages().available() < 22);
    assert!(world.guests[2].transfer(0, 1, 0, 0, (0, 2048)) && world.guests[2].transfer(0, 2, 0, 0, (300, 8)));
    assert_eq!(world.ask(2), []);
    world.drive.borrow_mut().hold = false;
    let (mut rounds, mut answered, mut others) = (0, 0, 0);
    while answered < 2 {
        world.round();
        rounds += 1;
        answered += world.guests[2].responses(0).len();
        others += world.guests[0].responses(0).len() + world.guests[1].responses(0).len();
        assert!(rounds < 1000);
    }
    // Those that had the pages that it needs go before it, and little more.
    assert!(others < 40, "{others} requests of others were answered first");
    world.run();
    world.end();
}

/// A barrier without data is served while the pages that another's request waits for are not there.
#[test]
fn what_needs_no_pages_does_not_wait_for_any() {
    let greedy = Setup { ring_pages: 16, ..Setup::default() };
    let mut world = World::new(&[greedy, greedy, greedy, greedy]);
    world.drive.borrow_mut().hold = true;
    for guest in 0..2 {
        for id in 0..200 {
            assert!(world.guests[guest].transfer(0, id, 0, 0, (0, 88)));
        }
        assert_eq!(world.ask(guest), []);
    }
    world.drive.borrow_mut().seen = Some(Vec::new());
    assert!(world.guests[2].transfer(0, 1, 0, 0, (0, 2048)));
    assert_eq!(world.ask(2), []);
    assert!(world.guests[3].place(0, 2, 2, 0, &[]));
    assert_eq!(world.ask(3), []);
    let seen: Vec<_> = world.drive.borrow().seen.iter().flatten().map(|seen| seen.operation).collect();
    assert_eq!(seen, [Operation::Flush]);
    world.drive.borrow_mut().hold = false;
    world.run();
    world.end();
}

/// Segments of a few sectors are blocks of a disk whose blocks are sectors: they need not be put together.
#[test]
fn pieces_of_a_page_are_mapped_where_blocks_are_small() {
    let mut world = World::new(&[KEEPS]);
    let guest = &mut world.guests[0];
    let pieces =
        [(0, 3, 6), (1, 1, 1), (2, 0, 2)].map(|(page, first, last)| segment(guest.grant(page, true), first, last));
    assert!(guest.place(0, 1, 0, 8, &pieces));
    assert_eq!(done(&mut world, 0), 1);
    assert_eq!(world.xen.copy_count(), (0, 0), "nothing was copied");
    world.end();
}

/// A request whose pages nobody granted, alone and beside good ones.
#[test]
fn bad_grants_fail_their_request_alone() {
    for persistent in [false, true] {
        let mut world = World::new(&[Setup { persistent, ..Setup::default() }]);
        let good = world.guests[0].segments(0, 16, true);
        let ended = world.guests[0].domain.grant(&world.guests[0].memory, 5, true);
        assert!(world.guests[0].domain.end_grant(ended));
        let guest = &mut world.guests[0];
        for (id, operation) in [(1, 0), (2, 1)] {
            let bad = vec![good[0], segment(ended, 0, 7), good[1]];
            assert!(guest.place(0, id, operation, 0, &bad));
            let bad = vec![segment(xen_pv_sys::GrantRef(1 << 20), 0, 0)];
            assert!(guest.place(0, id + 2, operation, 0, &bad));
        }
        assert!(guest.place(0, 9, 1, 64, &good));
        let mut answers: Vec<_> = world.ask(0).iter().map(|response| (response.id, response.status)).collect();
        answers.sort_unstable();
        assert_eq!(answers, [(1, -1), (2, -1), (3, -1), (4, -1), (9, 0)]);
        let failures = world.path.vbd_statistics(world.ids[0]).unwrap().failures;
        assert_eq!(failures[super::super::statistics::Failure::Grant as usize], 4);
        assert!(world.contents(0, 0, 64 * 512).iter().all(|byte| *byte == 0), "nothing of a bad write is done");
        world.end();
    }
}

/// Mapped for each request: no copy, one call to map and one to unmap a round, and nothing stays.
#[test]
fn pages_mapped_for_a_request_go_with_it() {
    let setup = Setup { persistent: false, ..KEEPS };
    let mut world = World::build(&[setup], geometry(super::SECTORS, 512), |path| path.map_requests(true), |_| {});
    let bytes = pattern(5, 32 * 4096);
    world.guests[0].write(0, &bytes);
    for (operation, page) in [(1, 0), (0, 100)] {
        let calls = world.xen.device_map_calls();
        for id in 0..4 {
            assert!(world.guests[0].transfer(0, id as u64, operation, id as u64 * 64, (page + id * 8, 64)));
        }
        world.drive.borrow_mut().hold = true;
        assert_eq!(done(&mut world, 0), 0);
        assert_eq!(world.guests[0].domain.mapped(), 16 + 32);
        world.drive.borrow_mut().hold = false;
        assert_eq!(done(&mut world, 0), 4);
        assert_eq!(world.guests[0].domain.mapped(), 16, "before the answer");
        assert_eq!(world.xen.device_map_calls() - calls, 2);
    }
    assert_eq!(world.guests[0].read(100, bytes.len()), bytes);
    assert_eq!(world.xen.copy_count(), (0, 0));
    assert_eq!(world.run().deadline, None);
    world.end();
}

/// What each may have of little room for mapped grants: who comes late gets its part from those who had more, though these ask for ever
/// more, and nobody waits meanwhile.
#[test]
fn room_for_mapped_grants_is_shared() {
    let setups = [KEEPS; 4];
    let mut world =
        World::build(&setups, geometry(4 * super::SECTORS, 512), |path| path.bound_tables(8 * STEP_BYTES), |_| {});
    // Each request has pages of its own, so that more grants are asked for than fit.
    let mut turn = 0;
    let mut ask = |world: &mut World, guest: usize| {
        for id in 0..8 {
            let page = (turn * 8 + id) % 64 * 32;
            assert!(world.guests[guest].transfer(0, id as u64, (id & 1) as u8, 0, (page, 256)));
        }
        turn += 1;
        assert_eq!(done(world, guest), 8);
    };
    let mapped = |world: &World| world.guests.iter().map(|guest| guest.domain.mapped() - 16).collect::<Vec<_>>();
    for _ in 0..8 {
        ask(&mut world, 0);
    }
    assert_eq!(mapped(&world), [4 * STEP, 0, 0, 0], "half is left");
    for _ in 0..16 {
        for guest in 0..4 {
            ask(&mut world, guest);
        }
    }
    assert_eq!(mapped(&world), [2 * STEP; 4]);
    assert_eq!(world.path.table_bytes(), 8 * STEP_BYTES);
    // Unused for a minute: all comes back.
    world.now = world.now + UNUSED + UNUSED;
    world.run();
    assert_eq!((mapped(&world), world.path.table_bytes()), (vec![0; 4], 0));
    ask(&mut world, 3);
    // The parts of those that go are free for the one that stays.
    for id in world.ids.split_off(1) {
        assert!(world.path.detach(id).is_some());
    }
    for _ in 0..8 {
        ask(&mut world, 0);
    }
    assert_eq!((world.guests[0].domain.mapped() - 16, world.path.table_bytes()), (8 * STEP, 8 * STEP_BYTES));
    world.end();
}

/// With no room for them at all, and with commands in flight while a step is given up.
#[test]
fn without_room_for_mapped_grants_all_is_copied() {
    let mut world = World::build(&[KEEPS], geometry(super::SECTORS, 512), |path| path.bound_tables(0), |_| {});
    let bytes = pattern(4, 16 * 4096);
    world.guests[0].write(0, &bytes);
    assert!(world.guests[0].transfer(0, 1, 1, 0, (0, 128)));
    assert_eq!(done(&mut world, 0), 1);
    assert_eq!(world.contents(0, 0, bytes.len()), bytes);
    assert_eq!((world.xen.device_map_calls(), world.path.table_bytes()), (0, 0));
    world.end();

    let disk = geometry(3 * super::SECTORS, 512);
    let mut world = World::build(&[KEEPS; 3], disk, |path| path.bound_tables(3 * STEP_BYTES), |_| {});
    world.drive.borrow_mut().hold = true;
    for id in 0..2 {
        assert!(world.guests[0].transfer(0, id, 0, 0, (id as usize * 128, 1024)));
    }
    assert_eq!(done(&mut world, 0), 0);
    assert_eq!(world.guests[0].domain.mapped(), 16 + 256, "two steps, in use");
    for guest in [1, 2, 2] {
        assert!(world.guests[guest].transfer(0, 0, 0, 0, (0, 8 * STEP)));
        assert_eq!(done(&mut world, guest), 0);
    }
    let mapped = |world: &World| [0, 1, 2].map(|guest: usize| world.guests[guest].domain.mapped() - 16);
    assert_eq!(mapped(&world), [256, STEP, 0], "what is in use stays");
    world.drive.borrow_mut().hold = false;
    world.run();
    assert_eq!([0, 1, 2].map(|guest: usize| world.guests[guest].responses(0).len()), [2, 1, 2]);
    assert_eq!(mapped(&world), [STEP, STEP, 0], "and then goes");
    assert!(world.guests[2].transfer(0, 0, 0, 0, (0, 8 * STEP)));
    assert_eq!(done(&mut world, 2), 1);
    assert_eq!(mapped(&world), [STEP; 3]);
    world.end();
}
