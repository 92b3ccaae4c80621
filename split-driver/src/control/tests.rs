use super::*;
use crate::fakes::{FakeConnection, FakeStore, block_on};
use crate::store::{Store, Transaction};
use alloc::format;
use alloc::vec::Vec;
use core::time::Duration;
use xen_pv_sys::DomainId;

const US: DomainId = DomainId(5);
const HOME: &str = "/local/domain/5";

/// An image that takes anything but a byte of 0xee.
#[derive(Debug)]
struct Taken(Vec<u8>);

impl Successor for Taken {
    fn begin(size: usize) -> Result<Self, String> {
        if size == 13 { Err("no memory".into()) } else { Ok(Self(Vec::new())) }
    }

    fn add(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.0.extend_from_slice(bytes);
        if bytes.contains(&0xee) { Err("it is none".into()) } else { Ok(()) }
    }
}

fn own() -> Image {
    Image { name: "netdom".into(), version: "0.1.0".into() }
}

/// A domain, and dom0 beside it.
struct World {
    store: FakeStore,
    dom0: FakeConnection,
    receiver: Receiver<FakeConnection, Taken>,
}

impl World {
    fn new(able: Result<(), String>) -> Self {
        let store = FakeStore::new();
        store.add_domain(US);
        let (dom0, connection) = (store.connection(DomainId(0)), store.connection(US));
        let mut receiver = Receiver::new(connection, own(), able);
        block_on(receiver.begin(None)).unwrap();
        Self { store, dom0, receiver }
    }

    fn put(&self, node: &str, value: &[u8]) {
        block_on(self.dom0.write(Transaction::NONE, &format!("{HOME}/{node}"), value)).unwrap();
    }

    fn ask(&mut self, request: &str) -> Option<Act<Taken>> {
        self.put(REQUEST, request.as_bytes());
        block_on(self.receiver.look()).unwrap()
    }

    fn said(&self) -> String {
        self.store.get(&format!("{HOME}/{ANSWER}")).unwrap()
    }

    /// Sends an image as dom0 does, a window at a time; gives what is to be done in the end.
    fn send(&mut self, number: u32, image: &[u8], checksum: u32) -> Option<Act<Taken>> {
        let pieces: Vec<&[u8]> = image.chunks(PIECE).collect();
        let mut act = None;
        for (window, part) in pieces.chunks(WINDOW as usize).enumerate() {
            let first = window as u32 * WINDOW;
            (first..).zip(part).for_each(|(index, bytes)| self.put(&piece(index), bytes));
            let order = Order::Update { size: image.len() as u32, checksum, pieces: first + part.len() as u32 };
            act = self.ask(&Request { number, order }.to_string());
        }
        act
    }

    /// What a life after this one says first.
    fn next_life(&mut self, ended: Ended) -> String {
        let pause = Pause { whole: Duration::from_micros(1520), own: Duration::from_micros(900) };
        let outcome = Outcome { life: 3, ended, pause, exchanged: 231 };
        let own = Image { version: "0.2.0".into(), ..own() };
        self.receiver = Receiver::new(self.store.connection(US), own, Ok(()));
        block_on(self.receiver.begin(Some(outcome))).unwrap();
        self.said()
    }
}

fn image(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 237) as u8).collect()
}

#[test]
fn requests_and_answers_are_read_as_they_are_written() {
    let update = Order::Update { size: 983_040, checksum: 0x00_1f_03_c2, pieces: 8 };
    for order in [Order::Restart, update] {
        let request = Request { number: 7, order };
        assert_eq!(Request::parse(&request.to_string()), Ok(request));
    }
    for (text, number) in [
        ("", 0),
        ("restart", 0),
        ("7", 7),
        ("7 dance", 7),
        ("7 restart now", 7),
        ("7 update 5 0", 7),
        ("7 update 5 xyz 1", 7),
        ("4294967296 restart", 0),
    ] {
        assert_eq!(Request::parse(text), Err(number), "{text:?}");
    }
    let pause = Pause { whole: Duration::from_micros(1520), own: Duration::from_micros(900) };
    let answers = [
        Answer::Ready(own()),
        Answer::Taken(16),
        Answer::Enters(own()),
        Answer::Refused("no memory for it".into()),
        Answer::Done { life: 3, pause, exchanged: 231, before: own(), after: own() },
        Answer::Returned { life: 3, pause, reason: "panic at a.rs:1:\nwhy".into() },
    ];
    for answer in answers {
        let answered = Answered { number: 7, answer };
        assert_eq!(Answered::parse(&answered.to_string()), Some(answered));
    }
    for text in ["", "7", "x ready netdom 0.1.0", "7 ready netdom", "7 taken", "7 done 3 1", "7 went well"] {
        assert_eq!(Answered::parse(text), None, "{text:?}");
    }
    let long = Answered { number: 7, answer: Answer::Refused("\u{e9}".repeat(5000)) };
    assert!(long.to_string().len() < 2000);
}

#[test]
fn an_image_comes_in_windows() {
    for length in [1, PIECE - 1, PIECE, PIECE + 1, PIECE * WINDOW as usize, PIECE * 40 + 7] {
        let mut world = World::new(Ok(()));
        assert_eq!(world.said(), "0 ready netdom 0.1.0");
        let image = image(length);
        world.put(WORDS, b"log=debug");
        let act = world.send(7, &image, CHECKSUM.checksum(&image));
        let Some(Act::Enter(Taken(bytes), words)) = act else { panic!("{length} bytes: {}", world.said()) };
        assert_eq!((bytes == image, words.as_deref()), (true, Some("log=debug")));
        assert_eq!((world.said().as_str(), world.receiver.is_receiving()), ("7 enters netdom 0.1.0", false));
        // The same request is not served again.
        assert!(block_on(world.receiver.look()).unwrap().is_none());
        let done = world.next_life(Ended::Replaced);
        assert_eq!(done, "7 done 3 1520 900 231 netdom 0.1.0 netdom 0.2.0");
        assert!(block_on(world.receiver.look()).unwrap().is_none());
        assert_eq!(world.said(), done);
    }
}

#[test]
fn what_is_wrong_is_refused_with_the_reason() {
    let mut world = World::new(Ok(()));
    let good = image(5000);
    let mut bad = good.clone();
    bad[3000] = 0xee;
    assert!(world.send(1, &bad, CHECKSUM.checksum(&bad)).is_none());
    assert_eq!(world.said(), "1 refused it is none");
    assert!(world.send(2, &good, 5).is_none());
    assert_eq!(world.said(), "2 refused the image is damaged: its checksum is wrong");
    assert!(world.send(3, &image(13), 5).is_none());
    assert_eq!(world.said(), "3 refused no memory");
    for (request, said) in [
        ("4 dance", "4 refused this image does not know that request"),
        ("5 update 9999999 0 1", "5 refused an image has at most 2097152 bytes, and this one 9999999"),
        ("6 update 0 0 1", "6 refused an image has at most 2097152 bytes, and this one 0"),
        ("7 update 100000 0 17", "7 refused more pieces came than may be under way"),
    ] {
        assert!(world.ask(request).is_none());
        assert_eq!((world.said().as_str(), world.receiver.is_receiving()), (said, false));
    }
    world.put(&piece(0), b"short");
    assert!(world.ask("8 update 4096 0 1").is_none());
    assert_eq!(world.said(), "8 refused piece 0 has 5 bytes in place of 2048");
    // What is no request is none of anybody's.
    assert!(world.ask("").is_none() && world.ask("nonsense").is_none());
    assert_eq!(world.said(), "8 refused piece 0 has 5 bytes in place of 2048");
    let mut world = World::new(Err("create the domain anew".into()));
    assert!(world.ask("9 restart").is_none());
    assert_eq!(world.said(), "9 refused create the domain anew");
}

#[test]
fn an_image_is_read_as_it_is_shown() {
    assert_eq!(Image::parse(&own().to_string()), Some(own()));
    for text in ["", "netdom", "netdom 0.1.0 x"] {
        assert_eq!(Image::parse(text), None, "{text:?}");
    }
}

/// What a tool left that ended in the middle disturbs nobody.
#[test]
fn another_request_takes_the_place_of_one_that_stopped() {
    let mut world = World::new(Ok(()));
    let image = image(100_000);
    // Other bytes than those of the image that comes whole.
    let begin = |world: &World| (0..8).for_each(|index| world.put(&piece(index), &[5; PIECE]));
    begin(&world);
    assert!(world.ask("1 update 100000 0 8").is_none());
    assert_eq!((world.said().as_str(), world.receiver.is_receiving()), ("1 taken 8", true));
    assert!(matches!(world.send(2, &image, CHECKSUM.checksum(&image)), Some(Act::Enter(..))));
    block_on(world.receiver.refuse(2, "no")).unwrap();
    begin(&world);
    assert!(world.ask("3 update 100000 0 8").is_none());
    assert!(matches!(world.ask("4 restart"), Some(Act::Restart)));
    assert!(!world.receiver.is_receiving());
    assert!(world.ask("5 update 100000 0 8").is_none());
    block_on(world.receiver.give_up()).unwrap();
    assert_eq!(world.said(), "5 refused the rest of the image did not come");
    block_on(world.receiver.give_up()).unwrap();
}

#[test]
fn the_next_life_answers_for_the_last() {
    let table = [
        ("1 restart", Ended::Asked, "1 done 3 1520 900 231 netdom 0.1.0 netdom 0.2.0"),
        ("2 restart", Ended::GivenUp("no room".into()), "2 returned 3 1520 900 no room"),
        ("3 restart", Ended::Failed("oh".into()), "3 refused the domain failed before: oh"),
        ("4 update 100000 0 0", Ended::Failed("oh".into()), "0 ready netdom 0.2.0"),
        ("5 update 100000 0 1", Ended::Failed("oh".into()), "5 refused the domain failed meanwhile: oh"),
        ("6 dance", Ended::Failed("oh".into()), "6 refused this image does not know that request"),
    ];
    for (request, ended, said) in table {
        let mut world = World::new(Ok(()));
        world.put(&piece(0), &image(PIECE));
        world.ask(request);
        assert_eq!(world.next_life(ended), said, "{request}");
    }
}
