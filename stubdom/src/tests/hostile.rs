//! Domains that break the ring, flood it or do not read: they cost themselves. Floor 3, host only.

use super::guest::message;
use super::*;
use core::mem::offset_of;
use xen_pv_sys::io::xs_wire::{
    DomainInterface, XENSTORE_ERROR_NONE, XENSTORE_ERROR_PROTO, XENSTORE_ERROR_RINGIDX, XENSTORE_RECONNECT, XS_ERROR,
    XS_READ, XS_TRANSACTION_END, XS_TRANSACTION_START,
};

const CONNECTION: usize = offset_of!(DomainInterface, connection);
const ERROR: usize = offset_of!(DomainInterface, error);

/// Whoever is cut off is told why, is not served, and may begin anew; others go on.
fn is_cut_off(world: &mut World, guest: &Guest, error: u32) {
    world.run();
    assert_eq!(guest.word(ERROR), error);
    guest.notify();
    world.run();
    assert_eq!(world.ask_dom0(XS_READ, b"/open\0").0, XS_READ);
    guest.set_word(CONNECTION, XENSTORE_RECONNECT);
    guest.notify();
    world.run();
    assert_eq!(guest.word(ERROR), XENSTORE_ERROR_NONE);
    guest.attach();
    assert_eq!(world.ask(guest, XS_READ, b"/open\0").0, XS_READ);
}

#[test]
fn lying_indices() {
    let indices = [
        (offset_of!(DomainInterface, req_prod), 1025),
        (offset_of!(DomainInterface, req_prod), u32::MAX),
        (offset_of!(DomainInterface, rsp_cons), 1),
        (offset_of!(DomainInterface, rsp_cons), 0x8000_0000),
    ];
    for (offset, lie) in indices {
        let mut world = World::new(true);
        let guest = world.guest(5);
        guest.set_word(offset, guest.word(offset).wrapping_add(lie));
        guest.notify();
        is_cut_off(&mut world, &guest, XENSTORE_ERROR_RINGIDX);
    }
}

/// The store's own indices are never read back.
#[test]
fn indices_that_are_not_the_guests() {
    let mut world = World::new(true);
    let guest = world.guest(5);
    guest.set_word(offset_of!(DomainInterface, req_cons), 999);
    guest.set_word(offset_of!(DomainInterface, rsp_prod), 999);
    guest.notify();
    world.run();
    assert_eq!(guest.word(ERROR), XENSTORE_ERROR_NONE);
    assert_eq!(world.ask_dom0(XS_READ, b"/open\0").0, XS_READ);
}

#[test]
fn messages_that_are_too_long() {
    for length in [4097, 0x7fff_ffff, u32::MAX] {
        let mut world = World::new(true);
        let guest = world.guest(5);
        let mut header = message(XS_READ, b"");
        header[12..].copy_from_slice(&length.to_le_bytes());
        guest.write(&header);
        is_cut_off(&mut world, &guest, XENSTORE_ERROR_PROTO);
    }
}

/// A ring full of requests and a single one: the single one waits for one other at most.
#[test]
fn a_flood_takes_turns_with_everybody() {
    let mut world = World::new(true);
    let (flood, other) = (world.guest(5), world.guest(6));
    world.run();
    let request = message(XS_READ, b"/open\0");
    flood.write(&request.repeat(1024 / request.len()));
    other.send(XS_READ, b"/open\0");
    let mut ports: Vec<Port> = core::iter::from_fn(|| world.xen.next_event()).collect();
    world.server.handle_events(&mut ports);
    assert_eq!(world.server.round(2), Wait::AfterOthers);
    assert!(other.answer().is_some());
    assert_eq!(flood.receive().len(), 1);
    world.run();
    assert_eq!(flood.receive().len(), 1024 / request.len() - 1);
}

/// Whoever does not read its answers is not read from: what it can have waiting is bounded.
#[test]
fn a_domain_that_never_reads() {
    let mut world = World::new(true);
    let guest = world.guest(5);
    world.ask_dom0(XS_WRITE, &[b"/open/long\0".as_slice(), &[b'x'; 900]].concat());
    world.ask_dom0(XS_SET_PERMS, b"/open/long\0b0\0");
    let request = message(XS_READ, b"/open/long\0");
    let mut taken = 0;
    for _ in 0..10_000 {
        taken += guest.write(&request);
        world.run();
    }
    assert!(taken < 10_000, "{taken} bytes of requests were taken");
    assert_eq!(guest.waiting(), 1024);
    assert_eq!(world.ask_dom0(XS_READ, b"/open\0").0, XS_READ);
    // It may think better of it.
    let mut answers = 0;
    while guest.waiting() > 0 {
        answers += guest.receive().len();
        world.run();
    }
    assert_eq!(answers, taken / request.len());
}

#[test]
fn events_without_work() {
    let mut world = World::new(true);
    let guest = world.guest(5);
    for _ in 0..100 {
        guest.notify();
        world.run();
    }
    assert_eq!(world.ask(&guest, XS_READ, b"/open\0").0, XS_READ);
}

/// Begins a transaction, and reads in it what others write; gives its number.
fn begin(world: &mut World, guest: &Guest) -> u32 {
    let (_, number) = world.ask(guest, XS_TRANSACTION_START, b"\0");
    let number = core::str::from_utf8(&number).ok().and_then(|text| text.trim_end_matches('\0').parse().ok());
    let number = number.expect("a transaction's number");
    assert_eq!(world.ask_in(guest, number, XS_READ, b"/shared\0").0, XS_READ);
    assert_eq!(world.ask_in(guest, number, XS_WRITE, b"/shared\0mine").0, XS_WRITE);
    number
}

/// Whoever always loses to others' writes is protected in the end: then the others' writes wait, and are served when it is done.
#[test]
fn a_write_that_is_held_back_is_served_later() {
    held_back(&[XS_WRITE], |world, writer| {
        writer.send(XS_WRITE, b"/shared\0theirs");
        deliver(world);
    });
}

/// As Linux sends them: the header, and then the rest.
#[test]
fn a_write_in_pieces_that_is_held_back_is_served_later() {
    held_back(&[XS_WRITE], |world, writer| {
        in_pieces(world, writer);
        deliver(world);
    });
}

/// Nor does what stands behind it in the ring wait for another event: whoever writes into a ring that is not empty tells nobody.
#[test]
fn a_request_behind_one_that_is_held_back_is_served_with_it() {
    held_back(&[XS_WRITE, XS_READ], |world, writer| {
        in_pieces(world, writer);
        writer.send(XS_READ, b"/shared\0");
        deliver(world);
    });
}

/// Begins a write, which the store takes; writes the rest of it.
fn in_pieces(world: &mut World, writer: &Guest) {
    let message = message(XS_WRITE, b"/shared\0theirs");
    let (header, rest) = message.split_at(16);
    writer.write(header);
    deliver(world);
    assert_eq!(world.server.round(100), Wait::ForEvent);
    writer.write(rest);
}

/// Hands over the events that have come.
fn deliver(world: &mut World) {
    let mut ports: Vec<Port> = core::iter::from_fn(|| world.xen.next_event()).collect();
    world.server.handle_events(&mut ports);
}

/// `write` writes requests of those kinds, the first of which is held back in the end.
fn held_back(kinds: &[u32], write: impl Fn(&mut World, &Guest)) {
    let mut world = World::new(true);
    let (patient, writer) = (world.guest(5), world.guest(6));
    world.ask_dom0(XS_WRITE, b"/shared\0value");
    world.ask_dom0(XS_SET_PERMS, b"/shared\0b0\0");
    let mut losses = 0;
    let transaction = loop {
        let transaction = begin(&mut world, &patient);
        world.run();
        write(&mut world, &writer);
        if world.server.round(100) == Wait::Briefly {
            break transaction;
        }
        for kind in kinds {
            assert_eq!(writer.answer().expect("it was not held back").0, *kind);
        }
        losses += 1;
        assert!(losses < 20, "the store never takes its side");
        assert_eq!(world.ask_in(&patient, transaction, XS_TRANSACTION_END, b"T\0").0, XS_ERROR);
    };
    assert_eq!(writer.answer(), None);
    patient.send_in(transaction, XS_TRANSACTION_END, b"T\0");
    deliver(&mut world);
    world.server.round(100);
    assert_eq!(patient.answer().expect("an answer").0, XS_TRANSACTION_END);
    world.run();
    for kind in kinds {
        assert_eq!(writer.answer().expect("an answer").0, *kind);
    }
    assert_eq!(world.ask_dom0(XS_READ, b"/shared\0"), (XS_READ, b"theirs".to_vec()));
}
