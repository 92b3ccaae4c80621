//! Memory that runs out: the next life begins with what fits, without the domain that took most. Floor 3, host only.

extern crate std;

use super::*;
use crate::Means;
use core::mem::offset_of;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{format, vec};
use xen_pv_sys::io::xs_wire::*;

impl World {
    /// A life that ends because memory runs out, and the next one.
    fn run_out(&mut self) {
        assert!(catch_unwind(AssertUnwindSafe(|| self.run())).is_err());
        self.begin_anew_with(true, &Means { ran_out: true, ..Means::PLENTY });
    }
}

/// Dom0's nodes of guests 5 to 7, of whom 5 hoards nodes, watches, a transaction and events, and 7 some nodes.
fn crowd(world: &mut World) -> [Guest; 3] {
    let guests = [5, 6, 7].map(|number| world.guest(number));
    for number in [5, 6, 7] {
        for name in ["data", "device"] {
            world.ask_dom0(XS_WRITE, format!("/local/domain/{number}/{name}\0dom0's").as_bytes());
            world.ask_dom0(XS_SET_PERMS, format!("/local/domain/{number}/{name}\0n{number}\0").as_bytes());
        }
    }
    let [hoarder, honest, other] = &guests;
    for number in 0..150 {
        let value = format!("data/{number}/x\0{:0900}", number);
        world.ask(hoarder, XS_WRITE, value.as_bytes());
    }
    for number in 0..90 {
        world.ask(other, XS_WRITE, format!("data/{number}\0{:0900}", number).as_bytes());
    }
    for number in 0..20 {
        world.ask(hoarder, XS_WATCH, format!("data\0{number:0300}\0").as_bytes());
    }
    world.ask(hoarder, XS_TRANSACTION_START, b"\0");
    world.ask(honest, XS_WRITE, b"data/mine\0x");
    world.ask(honest, XS_WATCH, b"data\0t\0");
    guests.iter().for_each(|guest| drop(guest.receive()));
    guests
}

fn text(world: &mut World, guest: &Guest, path: &str) -> std::string::String {
    let (_, value) = world.ask(guest, XS_READ, format!("{path}\0").as_bytes());
    std::string::String::from_utf8(value).expect("text")
}

fn is_cut_off(guest: &Guest) -> bool {
    guest.word(offset_of!(DomainInterface, error)) == XENSTORE_ERROR_COMM
}

#[test]
fn who_took_most_is_cut_off_and_who_was_served_is_not_blamed() {
    let mut world = World::new(true);
    let [hoarder, honest, other] = crowd(&mut world);
    world.server.allow_faults(|_| ());
    // Memory runs out whenever this is served. The first time it is for who hoards; then nobody else is cut off for it.
    honest.send(XS_READ, b"/poison-for-the-store\0");
    for _ in 0..2 {
        world.run_out();
        assert_eq!([&hoarder, &honest, &other].map(is_cut_off), [true, false, false]);
    }
    world.run();
    assert_eq!(honest.answer(), Some((XS_ERROR, b"EIO\0".to_vec())));
    assert_eq!(text(&mut world, &honest, "data/mine"), "x");
    let nodes = |world: &mut World, number| {
        let dom0 = world.dom0.clone();
        let (_, names) = world.ask(&dom0, XS_DIRECTORY, format!("/local/domain/{number}/data\0").as_bytes());
        names.split(|byte| *byte == 0).filter(|name| !name.is_empty()).count()
    };
    assert_eq!([5, 6, 7].map(|number| nodes(&mut world, number)), [0, 1, 90]);
    assert_eq!(world.ask_dom0(XS_READ, b"/local/domain/5/data\0"), (XS_READ, b"dom0's".to_vec()));
    // It may begin anew.
    hoarder.set_word(offset_of!(DomainInterface, connection), XENSTORE_RECONNECT);
    hoarder.notify();
    world.run();
    hoarder.attach();
    assert!(!is_cut_off(&hoarder));
    assert_eq!(text(&mut world, &hoarder, "data"), "dom0's");
    assert_eq!(world.ask_dom0(XS_CONTROL, b"check\0"), (XS_CONTROL, b"OK\0".to_vec()));
}

#[test]
fn a_state_that_does_not_fit_is_written_without_those_that_took_most() {
    for (heap, cut_off) in [(usize::MAX, 0), (300_000, 1), (100_000, 2), (1000, 2)] {
        let mut world = World::new(true);
        let guests = crowd(&mut world);
        world.begin_anew_with(true, &Means { heap, ..Means::PLENTY });
        let are = guests.iter().filter(|guest| is_cut_off(guest)).count();
        assert_eq!(are, cut_off, "with {heap} bytes of heap");
        assert_eq!(text(&mut world, &guests[1], "data/mine"), "x");
    }
    for (room, cut_off) in [(400_000, 0), (200_000, 1), (80_000, 2)] {
        let mut world = World::new(true);
        let guests = crowd(&mut world);
        let mut bytes = vec![];
        let keeper = world.server.keeper().clone();
        assert!(keeper.write(&Means { room, ..Means::PLENTY }, &mut |part| bytes.extend_from_slice(part)));
        assert!(bytes.len() <= room, "{} bytes in {room}", bytes.len());
        world.begin_anew_with(true, &Means { room, ..Means::PLENTY });
        let are = guests.iter().filter(|guest| is_cut_off(guest)).count();
        assert_eq!(are, cut_off, "with {room} bytes of room");
    }
}

/// Where nobody hoards, nobody is cut off, and the request that memory runs out with is refused in the end.
#[test]
fn where_nobody_hoards_the_request_is_refused() {
    let mut world = World::new(true);
    let guest = world.guest(5);
    world.server.allow_faults(|_| ());
    guest.send(XS_READ, b"/poison-for-the-store\0");
    for _ in 0..2 {
        world.run_out();
    }
    world.run();
    assert_eq!(guest.answer(), Some((XS_ERROR, b"EIO\0".to_vec())));
    assert!(!is_cut_off(&guest));
}
