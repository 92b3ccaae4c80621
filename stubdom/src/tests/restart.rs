//! Failures at each point of a request, and updates: nobody's request is lost, and nobody is answered twice. Floor 3, host only.

extern crate std;

use super::guest::message;
use super::*;
use crate::{Means, Saved, Successor};
use core::mem::offset_of;
use std::boxed::Box;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::string::String;
use std::sync::Once;
use xen_pv_sys::io::xs_wire::*;

impl World {
    /// What is left when a life ends, and a new one that begins with it.
    fn begin_anew(&mut self, failed: bool) {
        self.begin_anew_with(failed, &Means::PLENTY);
    }

    /// The same where there is no more than that for it.
    pub(super) fn begin_anew_with(&mut self, failed: bool, means: &Means) {
        let mut bytes = Vec::new();
        let keeper = self.server.keeper().clone();
        assert!(keeper.write(means, &mut |part| bytes.extend_from_slice(part)));
        assert!(bytes.len() <= keeper.bound(), "{} bytes, at most {} were told", bytes.len(), keeper.bound());
        let saved = Saved::parse(&bytes).expect("what was written");
        let server = Server::resume(self.xen.clone(), self.domains.clone(), config(), &saved, failed);
        core::mem::forget(core::mem::replace(&mut self.server, server.expect("a state")));
        self.server.allow_faults(|_| ());
        self.server.look_at_all();
    }

    /// As [`World::run`], with a new life for each that fails; gives how many.
    fn survive(&mut self) -> u32 {
        static QUIET: Once = Once::new();
        QUIET.call_once(|| {
            std::panic::set_hook(std::boxed::Box::new(|info| {
                let text = std::format!("{info}");
                if !text.contains("a fault that was asked for") && !text.contains("poison") {
                    std::eprintln!("{text}");
                }
            }))
        });
        let mut lives = 0;
        while catch_unwind(AssertUnwindSafe(|| self.run())).is_err() {
            lives += 1;
            assert!(lives < 20, "it never ends");
            self.begin_anew(true);
        }
        lives
    }

    fn arm(&mut self, point: &str, count: u32) {
        self.server.allow_faults(|_| ());
        self.dom0.send(XS_CONTROL, std::format!("fault\0{point}\0{count}\0").as_bytes());
        let armed = catch_unwind(AssertUnwindSafe(|| self.run())).is_ok();
        if !armed {
            self.begin_anew(true);
            self.survive();
        }
        assert_eq!(self.dom0.answer(), Some((XS_CONTROL, b"OK\0".to_vec())));
    }
}

/// A script of a guest and what another hears of it, in one: answers and events as they come.
fn script(world: &mut World, guest: &Guest, other: &Guest) -> (Vec<(u32, Vec<u8>)>, u32) {
    let mut heard = Vec::new();
    let mut lives = 0;
    let mut step = |world: &mut World, who: &Guest, kind, payload: &[u8]| {
        // In pieces, so that some requests are taken in parts.
        let message = message(kind, payload);
        let (first, second) = message.split_at(message.len() / 2);
        who.write(first);
        lives += world.survive();
        who.write(second);
        lives += world.survive();
        heard.extend(guest.receive());
        heard.extend(other.receive());
    };
    step(world, other, XS_WATCH, b"/open\0token\0");
    step(world, guest, XS_WRITE, b"/open/a\0one");
    step(world, guest, XS_READ, b"/open/a\0");
    step(world, guest, XS_MKDIR, b"/open/b\0");
    step(world, guest, XS_DIRECTORY, b"/open\0");
    step(world, guest, XS_RM, b"/open/a\0");
    step(world, guest, XS_READ, b"/open/a\0");
    step(world, guest, XS_RM, b"/open/b\0");
    step(world, guest, XS_TRANSACTION_START, b"\0");
    step(world, other, XS_UNWATCH, b"/open\0token\0");
    (heard, lives)
}

#[test]
fn a_failure_at_each_point_is_not_noticed() {
    let expected = {
        let mut world = World::new(true);
        let (guest, other) = (world.guest(5), world.guest(6));
        world.ask_dom0(XS_SET_PERMS, b"/open\0b0\0");
        script(&mut world, &guest, &other).0
    };
    assert!(expected.len() > 12);
    let mut ended = 0;
    for point in ["before", "served", "kept", "sent"] {
        for count in 1..24 {
            let mut world = World::new(true);
            let (guest, other) = (world.guest(5), world.guest(6));
            world.ask_dom0(XS_SET_PERMS, b"/open\0b0\0");
            world.arm(point, count);
            let (heard, lives) = script(&mut world, &guest, &other);
            assert_eq!(heard, expected, "{point} {count}");
            ended += lives;
            world.server.allow_faults(|_| ());
            assert_eq!(world.ask_dom0(XS_CONTROL, b"check\0"), (XS_CONTROL, b"OK\0".to_vec()));
        }
    }
    assert!(ended > 40, "{ended} failures");
}

/// An answer that is longer than the ring goes out once, whenever the store fails.
#[test]
fn a_long_answer_goes_out_once() {
    for point in ["kept", "sent"] {
        for count in 1..5 {
            let mut world = World::new(true);
            let guest = world.guest(5);
            let value = [b'x'; 2000];
            world.ask_dom0(XS_WRITE, &[b"/open/long\0".as_slice(), &value[..900]].concat());
            world.ask_dom0(XS_SET_PERMS, b"/open/long\0b0\0");
            world.arm(point, count);
            for _ in 0..2 {
                guest.send(XS_READ, b"/open/long\0");
            }
            world.survive();
            let mut answers = guest.receive();
            world.survive();
            answers.extend(guest.receive());
            world.survive();
            answers.extend(guest.receive());
            assert_eq!(
                answers,
                [(XS_READ, value[..900].to_vec()), (XS_READ, value[..900].to_vec())],
                "{point} {count}"
            );
        }
    }
}

/// A request that the store fails with each time is answered with an error, and in the end costs its sender the connection, and it alone.
#[test]
fn poison() {
    let mut world = World::new(true);
    let (guest, other) = (world.guest(5), world.guest(6));
    world.server.allow_faults(|_| ());
    for _ in 0..2 {
        guest.send(XS_READ, b"/poison-for-the-store\0");
        other.send(XS_READ, b"/open\0");
        assert_eq!(world.survive(), 2);
        assert_eq!(guest.receive(), [(XS_ERROR, b"EIO\0".to_vec())]);
        assert_eq!(other.receive(), [(XS_READ, b"value".to_vec())]);
        assert_eq!(world.ask(&guest, XS_READ, b"/open\0"), (XS_READ, b"value".to_vec()));
    }
    guest.send(XS_READ, b"/poison-for-the-store\0");
    assert_eq!(world.survive(), 2);
    assert_eq!(guest.word(offset_of!(DomainInterface, error)), XENSTORE_ERROR_PROTO);
    guest.set_word(offset_of!(DomainInterface, connection), XENSTORE_RECONNECT);
    guest.notify();
    assert_eq!(world.survive(), 0);
    assert_eq!(guest.word(offset_of!(DomainInterface, error)), XENSTORE_ERROR_PROTO);
    assert_eq!(world.ask(&other, XS_READ, b"/open\0"), (XS_READ, b"value".to_vec()));
}

/// Has the bytes of an image, and ends as the test says.
struct Taken {
    bytes: Vec<u8>,
    end: fn(&[u8]) -> String,
}

impl Successor for Taken {
    fn add(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.bytes.extend_from_slice(bytes);
        if bytes.contains(&b'!') { Err("it is none".into()) } else { Ok(()) }
    }

    fn enter(self: Box<Self>, _: Option<&str>) -> String {
        (self.end)(&self.bytes)
    }
}

fn taken(end: fn(&[u8]) -> String) -> Result<Box<dyn Successor>, String> {
    Ok(Box::new(Taken { bytes: Vec::new(), end }))
}

/// What the tool sends, and an image that does not fit: the reason is the answer, once.
#[test]
fn an_update_that_fails_is_answered_with_the_reason() {
    let mut world = World::new(true);
    let ask = |world: &mut World, words: &[u8]| world.ask_dom0(XS_CONTROL, &[b"live-update\0", words].concat()).1;
    assert_eq!(ask(&mut world, b"-b\x005\0"), b"There is no live update here.\0");
    world.server.allow_updates(|size| {
        assert!(size <= 9000);
        taken(|bytes| std::format!("not {} bytes", bytes.len()))
    });
    assert_eq!(ask(&mut world, b"-s\0-t\x0060\0"), b"Not in live-update session.\0");
    assert_eq!(ask(&mut world, b"-a\0"), b"No live-update session active.\0");
    assert_eq!(ask(&mut world, b"-b\x005\0"), b"OK\0");
    assert_eq!(ask(&mut world, b"-d\x003\0a\0b\0"), b"OK\0");
    assert_eq!(ask(&mut world, b"-s\0-t\x0060\0"), b"Kernel not complete.\0");
    assert_eq!(ask(&mut world, b"-d\x003\0abc\0"), b"Too much kernel data.\0");
    assert_eq!(ask(&mut world, b"-a\0"), b"OK\0");
    assert_eq!(ask(&mut world, b"-b\x005\0"), b"OK\0");
    assert_eq!(ask(&mut world, b"-d\x002\0a!\0"), b"it is none\0");
    assert_eq!(ask(&mut world, b"-a\0"), b"OK\0");
    assert_eq!(ask(&mut world, b"-b\x005\0"), b"OK\0");
    assert_eq!(ask(&mut world, b"-d\x003\0a\0b\0"), b"OK\0");
    assert_eq!(ask(&mut world, b"-d\x002\0\0\xff\0"), b"OK\0");
    assert_eq!(ask(&mut world, b"-s\0-t\x0060\0-F\0"), b"not 5 bytes\0");
    assert_eq!(ask(&mut world, b"-s\0-t\x0060\0"), b"Not in live-update session.\0");
    assert_eq!(ask(&mut world, b"-b\x003000000\0"), b"An image has at most 2097152 bytes, and this one 3000000.\0");
    assert_eq!(ask(&mut world, b"-b\x005\0"), b"OK\0");
    assert_eq!(ask(&mut world, b"-a\0"), b"OK\0");
}

/// In whatever pieces an image comes, it is handed on as it is.
#[test]
fn an_image_comes_in_pieces() {
    let image = [[1; 4080].as_slice(), &[0; 20], &[2; 4100]].concat();
    for size in [1, 2, 7, 23, 24, 25, 900] {
        let mut world = World::new(true);
        world.server.allow_updates(|_| taken(|bytes| std::format!("{} {:?}", bytes.len(), &bytes[4070..4130])));
        let mut ask = |words: &[u8]| world.ask_dom0(XS_CONTROL, &[b"live-update\0", words].concat()).1;
        assert_eq!(ask(std::format!("-b\0{}\0", image.len()).as_bytes()), b"OK\0");
        for part in image.chunks(size) {
            let words = [std::format!("-d\0{}\0", part.len()).as_bytes(), part, b"\0"].concat();
            assert_eq!(ask(&words), b"OK\0");
        }
        let expected = std::format!("{} {:?}\0", image.len(), &image[4070..4130]);
        assert_eq!(ask(b"-s\0-t\x0060\0"), expected.as_bytes(), "pieces of {size}");
    }
}

/// A new life on request is answered by it; where there is none, by this one.
#[test]
fn a_new_life_is_answered_by_the_next() {
    let mut world = World::new(true);
    let mut ask = |words: &[u8]| world.ask_dom0(XS_CONTROL, words);
    assert_eq!(ask(b"restart\0").1, b"There is no other life here.\0");
    assert_eq!(ask(b"restart\0now\0"), (XS_ERROR, b"EINVAL\0".to_vec()));
    assert_eq!(ask(b"life\0now\0"), (XS_ERROR, b"EINVAL\0".to_vec()));
    world.server.set_life("0 0 0 0 stubdom 1".into());
    assert_eq!(world.ask_dom0(XS_CONTROL, b"life\0").1, b"0 0 0 0 stubdom 1\0");
    world.server.allow_restarts(|| panic!("a fault that was asked for: the new life"));
    world.dom0.send(XS_CONTROL, b"restart\0");
    assert!(catch_unwind(AssertUnwindSafe(|| world.run())).is_err());
    world.begin_anew(false);
    world.server.set_verdict(Ok(()));
    world.survive();
    assert_eq!(world.dom0.receive(), [(XS_CONTROL, b"OK\0".to_vec())]);
}

/// The request is the new image's to answer.
#[test]
fn an_update_is_answered_by_the_new_image() {
    let mut world = World::new(true);
    let guest = world.guest(5);
    world.ask(&guest, XS_WATCH, b"/open\0token\0");
    guest.receive();
    world.server.allow_updates(|_| taken(|_| panic!("a fault that was asked for: the update")));
    world.ask_dom0(XS_CONTROL, b"live-update\0-b\x005\0");
    world.ask_dom0(XS_CONTROL, b"live-update\0-d\x005\0image\0");
    world.dom0.send(XS_CONTROL, b"live-update\0-s\0-t\x0060\0");
    assert!(catch_unwind(AssertUnwindSafe(|| world.run())).is_err());
    world.begin_anew(false);
    world.server.set_verdict(Ok(()));
    world.survive();
    assert_eq!(world.dom0.receive(), [(XS_CONTROL, b"OK\0".to_vec())]);
    world.ask_dom0(XS_WRITE, b"/open\0new");
    assert_eq!(guest.events(), ["/open token"]);
}

/// What a reader had no room for is made up for in whole messages, wherever the store fails meanwhile.
#[test]
fn what_was_missed_is_made_up_for_once_it_is_kept() {
    let token = "t".repeat(800);
    for point in ["before", "served", "kept", "sent"] {
        for count in 1..12 {
            let mut world = World::new(true);
            let (writer, reader) = (world.guest(5), world.guest(6));
            world.ask_dom0(XS_SET_PERMS, b"/open\0b0\0");
            world.ask_dom0(XS_CONTROL, b"quota\0set\0memory\x009000\0");
            for path in ["/open", "/open/0"] {
                world.ask(&reader, XS_WATCH, std::format!("{path}\0{token}\0").as_bytes());
            }
            reader.receive();
            for number in 0..20 {
                let number = (number + 1) % 20;
                world.ask(&writer, XS_WRITE, std::format!("/open/{number}\0").as_bytes());
                world.ask(&writer, XS_RM, std::format!("/open/{number}\0").as_bytes());
            }
            world.arm(point, count);
            let mut heard = Vec::new();
            loop {
                world.survive();
                let more = reader.receive();
                if more.is_empty() {
                    break;
                }
                heard.extend(more);
            }
            let heard: Vec<String> =
                heard.into_iter().map(|(_, text)| String::from_utf8(text).expect("text")).collect();
            let is_whole = |text: &String| text.starts_with("/open") && text.ends_with(&std::format!("\0{token}\0"));
            assert!(heard.iter().all(is_whole), "{point} {count}: {heard:?}");
            assert_eq!(heard.last(), Some(&std::format!("/open/0\0{token}\0")), "{point} {count}");
            assert!(heard.contains(&std::format!("/open\0{token}\0")), "{point} {count}");
            world.server.allow_faults(|_| ());
            assert_eq!(world.ask_dom0(XS_CONTROL, b"check\0"), (XS_CONTROL, b"OK\0".to_vec()));
        }
    }
}
