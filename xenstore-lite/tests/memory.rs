//! That what the store counts for a domain is what the domain's objects take, by an allocator that counts. Host.
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use xen_pv_sys::DomainId;
use xen_pv_sys::io::xs_wire::*;
use xenstore_lite::fakes::{FakeHost, fetch, request};
use xenstore_lite::{Config, ConnectionId, Quotas, Resource, Store};

thread_local! {
    static TAKEN: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

/// Bytes of a block, as the heap of the images takes them: a word beside what was asked for, and no block below four words.
fn block(layout: Layout) -> isize {
    (layout.size() + 8).next_multiple_of(8).max(32) as isize
}

// SAFETY: all calls go to `System` as they are; what is counted beside that are cells of the thread, which allocate nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let taken = TAKEN.get() + block(layout);
        TAKEN.set(taken);
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        PEAK.set(PEAK.get().max(taken));
        // SAFETY: as the caller has it.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        TAKEN.set(TAKEN.get() - block(layout));
        // SAFETY: as the caller has it.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A store with the clone that is kept after each request, as the server keeps it.
struct Scene {
    store: Store,
    kept: Store,
    host: FakeHost,
    ids: Vec<ConnectionId>,
}

impl Scene {
    /// Domains 0 to 4; each of the guests owns `/local/domain/N`. All may take `memory` together.
    fn new(quotas: Quotas, memory: usize) -> Self {
        let mut store = Store::new(Config { quotas, memory, ..Config::default() });
        let host = FakeHost { domains: (0..5).map(|domain| (DomainId(domain), 1)).collect(), ..FakeHost::default() };
        let ids = (0..5).filter_map(|domain| store.connect(DomainId(domain))).collect();
        let mut scene = Self { kept: store.clone(), store, host, ids };
        for domain in 1..5 {
            scene.ask(0, XS_MKDIR, 0, format!("/local/domain/{domain}\0").as_bytes());
            scene.ask(0, XS_SET_PERMS, 0, format!("/local/domain/{domain}\0n{domain}\0").as_bytes());
        }
        scene
    }

    fn plenty() -> Self {
        let mut quotas = Quotas::default();
        for resource in Resource::ALL {
            quotas.set_hard(resource, 0);
        }
        Self::new(quotas, 0)
    }

    /// A request whose answer nobody fetches; whether it was taken.
    fn send(&mut self, domain: usize, kind: u32, transaction: u32, payload: &[u8]) -> bool {
        let bytes = request(kind, transaction, payload);
        let taken = self.store.handle_bytes(self.ids[domain], &bytes, &mut self.host).expect("no long message");
        self.kept = self.store.clone();
        taken > 0
    }

    /// The answer alone, where nothing else waits.
    fn ask(&mut self, domain: usize, kind: u32, transaction: u32, payload: &[u8]) -> String {
        assert!(self.send(domain, kind, transaction, payload), "a request was not taken");
        let answer = fetch(&mut self.store, self.ids[domain]).pop().map(|heard| heard.text()).unwrap_or_default();
        self.kept = self.store.clone();
        answer
    }

    fn start(&mut self, domain: usize) -> u32 {
        let answer = self.ask(domain, XS_TRANSACTION_START, 0, b"\0");
        answer.trim_end_matches('|').parse().expect("a transaction")
    }

    fn counted(&self) -> isize {
        (1..5).map(|domain| self.store.usage(DomainId(domain)).memory as isize).sum()
    }
}

/// Holds what `make` makes of a fresh store, counted against taken.
fn hold(what: &str, make: impl FnOnce(&mut Scene)) {
    let mut scene = Scene::plenty();
    let (counted, taken) = (scene.counted(), TAKEN.get());
    make(&mut scene);
    assert_eq!(scene.store.check(), Ok(()), "{what}");
    let (counted, taken) = (scene.counted() - counted, TAKEN.get() - taken);
    println!("{what}: {counted} counted, {taken} taken");
    assert!(counted * 4 >= taken * 3 && counted * 4 <= taken * 5, "{what}: {counted} counted, {taken} taken");
}

#[test]
fn what_is_counted_is_what_is_taken() {
    hold("empty nodes", |scene| {
        (0..1000).for_each(|number| drop(scene.ask(1, XS_MKDIR, 0, format!("{number}\0").as_bytes())));
    });
    hold("nodes with values of 8 bytes", |scene| {
        (0..1000).for_each(|number| drop(scene.ask(1, XS_WRITE, 0, format!("{number}\0{number:08}").as_bytes())));
    });
    hold("nodes with values of 2,000 bytes", |scene| {
        (0..200).for_each(|number| drop(scene.ask(1, XS_WRITE, 0, format!("{number}\0{number:02000}").as_bytes())));
    });
    hold("nodes below each other", |scene| {
        let mut path = String::from("x");
        (0..200).for_each(|_| {
            path.push_str("/x");
            scene.ask(1, XS_MKDIR, 0, format!("{path}\0").as_bytes());
        });
    });
    hold("nodes with permissions", |scene| {
        for number in 0..500 {
            scene.ask(1, XS_MKDIR, 0, format!("{number}\0").as_bytes());
            scene.ask(1, XS_SET_PERMS, 0, format!("{number}\0n1\0r2\0r3\0").as_bytes());
        }
    });
    hold("watches with paths of their own", |scene| {
        (0..500).for_each(|number| drop(scene.ask(1, XS_WATCH, 0, format!("{number}\0t\0").as_bytes())));
    });
    hold("watches of one path", |scene| {
        (0..500).for_each(|number| drop(scene.ask(1, XS_WATCH, 0, format!("x\0{number}\0").as_bytes())));
    });
    hold("watches with long tokens", |scene| {
        (0..120).for_each(|number| drop(scene.ask(1, XS_WATCH, 0, format!("x\0{number:0900}\0").as_bytes())));
    });
    hold("answers that wait", |scene| {
        (0..500).for_each(|_| assert!(scene.send(1, XS_READ, 0, b"none\0")));
    });
    hold("half a request", |scene| {
        let bytes = request(XS_WRITE, 0, &[b'x'; 4000]);
        scene.store.handle_bytes(scene.ids[1], &bytes[..20], &mut scene.host).expect("taken");
        scene.kept = scene.store.clone();
    });
    hold("transactions", |scene| (0..200).for_each(|_| assert!(scene.start(1) > 0)));
    hold("absent nodes that transactions read", |scene| {
        for _ in 0..4 {
            let transaction = scene.start(1);
            (0..300).for_each(|number| drop(scene.ask(1, XS_READ, transaction, format!("{number}\0").as_bytes())));
        }
    });
    hold("nodes that transactions make", |scene| {
        let transaction = scene.start(1);
        (0..300).for_each(|number| {
            drop(scene.ask(1, XS_WRITE, transaction, format!("{number}\0{number:0100}").as_bytes()))
        });
    });
}

/// Events that nobody fetches are counted as what they take, for the reader of another's node too.
#[test]
fn events_that_wait_are_counted_once_and_taken_once() {
    for token in [1, 100, 900] {
        let mut scene = Scene::plenty();
        for number in 0..100 {
            scene.ask(1, XS_WATCH, 0, format!("/local/domain/1\0{number:0token$}\0").as_bytes());
        }
        let (counted, taken) = (scene.counted(), TAKEN.get());
        for number in 0..20 {
            assert!(scene.send(1, XS_WRITE, 0, format!("{number}\0x").as_bytes()));
        }
        let (counted, taken) = (scene.counted() - counted, TAKEN.get() - taken);
        println!("events of {token} bytes: {counted} counted, {taken} taken");
        assert!(counted * 4 >= taken * 3 && counted * 4 <= taken * 5, "{token}: {counted} counted, {taken} taken");
    }
}

/// One guest with many watches writes and does not read. What it takes, the clone that is kept and all that comes and goes stay within
/// twice what is counted.
#[test]
fn a_guest_that_watches_writes_and_does_not_read() {
    let mut scene = Scene::new(Quotas::default(), 0);
    let before = TAKEN.get();
    for number in 0..120 {
        scene.ask(1, XS_WATCH, 0, format!("/local/domain/1\0{number:0900}\0").as_bytes());
    }
    PEAK.set(TAKEN.get());
    let rounds = (0..20).take_while(|number| scene.send(1, XS_WRITE, 0, format!("{number}\0x").as_bytes())).count();
    let (counted, peak) = (scene.counted(), PEAK.get() - before);
    println!("{rounds} writes: {counted} counted, {peak} at the peak");
    assert!(peak < counted * 3 / 2 + 200_000, "{counted} counted, {peak} at the peak");
}

/// An event that is dropped, since its reader has its fill, costs no copy of what waits.
#[test]
fn a_reader_that_is_full_costs_its_writers_nothing() {
    let mut scene = Scene::new(Quotas::default(), 0);
    scene.ask(1, XS_MKDIR, 0, b"open\0");
    scene.ask(1, XS_SET_PERMS, 0, b"open\0r1\0");
    let before = TAKEN.get();
    for number in 0..128 {
        scene.ask(2, XS_WATCH, 0, format!("/local/domain/1/open\0{number:0900}\0").as_bytes());
    }
    PEAK.set(TAKEN.get());
    for number in 0..400 {
        scene.ask(1, XS_WRITE, 0, format!("open/{}\0{number}", number % 100).as_bytes());
    }
    let (counted, peak) = (scene.counted(), PEAK.get() - before);
    println!("{counted} counted, {peak} at the peak");
    assert!(peak < counted * 3 / 2 + 200_000, "{counted} counted, {peak} at the peak");
}

/// What all may take in a domain of 8 MiB.
const SMALL: usize = 2_883_584;

type Attack = fn(&mut Scene, usize);

/// Nodes with long values, as many as go.
fn hoard_nodes(scene: &mut Scene, own: usize) {
    (0..990).for_each(|number| drop(scene.ask(own, XS_WRITE, 0, format!("{number}\0{number:02000}").as_bytes())));
}

/// Transactions that have read absent nodes.
fn hoard_reads(scene: &mut Scene, own: usize) {
    for _ in 0..10 {
        let answer = scene.ask(own, XS_TRANSACTION_START, 0, b"\0");
        let Ok(transaction) = answer.trim_end_matches('|').parse() else { return };
        (0..1020).for_each(|number| drop(scene.ask(own, XS_READ, transaction, format!("none/{number}\0").as_bytes())));
    }
}

/// Watches with long tokens on a node that is written, and nobody reads.
fn hoard_events(scene: &mut Scene, own: usize) {
    for number in 0..120 {
        scene.ask(own, XS_WATCH, 0, format!("/local/domain/{own}\0{number:0900}\0").as_bytes());
    }
    for number in 0..30 {
        scene.send(own, XS_WRITE, 0, format!("x/{number}\0x").as_bytes());
    }
}

/// Whatever three guests hoard, all of it with the clone that is kept fits into what all may have, the privileged domain is
/// served, and a guest that comes late gets what a guest needs.
#[test]
fn guests_that_collude_leave_room() {
    let attacks: [Attack; 3] = [hoard_nodes, hoard_reads, hoard_events];
    for (one, first) in attacks.iter().enumerate() {
        for second in attacks.iter().skip(one) {
            let mut scene = Scene::new(Quotas::default(), SMALL);
            let before = TAKEN.get();
            PEAK.set(before);
            first(&mut scene, 1);
            second(&mut scene, 2);
            first(&mut scene, 3);
            let counted = scene.counted();
            assert!(counted < SMALL as isize, "{counted} counted");
            let peak = PEAK.get() - before;
            assert!(peak < SMALL as isize * 5 / 4, "{counted} counted, {peak} at the peak");
            for number in 0..60 {
                let written = scene.ask(4, XS_WRITE, 0, format!("device/{number}\0{number:040}").as_bytes());
                assert_eq!(written, "OK|", "the late guest's node {number}");
            }
            let written = scene.ask(0, XS_WRITE, 0, b"/local/domain/0/x\0y");
            assert_eq!((written, scene.store.check()), (String::from("OK|"), Ok(())));
        }
    }
}

/// The state is written when memory has run out, so that takes none: neither all of it, nor what is left without those who hoard.
#[test]
fn a_state_that_is_written_takes_no_memory() {
    let mut scene = Scene::new(Quotas::default(), SMALL);
    hoard_nodes(&mut scene, 1);
    hoard_events(&mut scene, 2);
    scene.start(3);
    let (mut limit, mut bytes) = (usize::MAX, Vec::new());
    for left in [2, 1, 0] {
        let (mut length, before) = (0, ALLOCATIONS.get());
        scene.store.write_state_below(limit, &mut |piece| length += piece.len());
        let counted = scene.store.counted_below(limit);
        let next = scene.store.most_hoarded(limit);
        assert_eq!(ALLOCATIONS.get(), before);
        println!("{length} bytes written, {counted} counted");
        assert!(bytes.last().is_none_or(|last| length + 100_000 < *last), "{length} after {bytes:?}");
        bytes.push(length);
        let (_, hoard) = next.expect("a domain");
        assert_eq!(hoard > 100_000, left > 0, "{hoard}");
        limit = hoard;
    }
}

/// Who has no room left is told so as by C xenstored, and goes on when it has given some back.
#[test]
fn who_has_too_much_is_refused_more() {
    let mut scene = Scene::new(Quotas::default(), SMALL);
    hoard_nodes(&mut scene, 1);
    assert_eq!(scene.ask(1, XS_WRITE, 0, format!("more\0{:02000}", 1).as_bytes()), "ENOMEM|");
    assert_eq!(scene.ask(1, XS_READ, 0, b"none\0"), "ENOENT|");
    (0..10).for_each(|number| drop(scene.ask(1, XS_RM, 0, format!("{number}\0").as_bytes())));
    assert_eq!(scene.ask(1, XS_WRITE, 0, format!("more\0{:02000}", 1).as_bytes()), "OK|");
}

#[test]
fn a_request_that_breaks_the_protocol_leaves_the_counts_right() {
    let mut scene = Scene::plenty();
    scene.ask(1, XS_WRITE, 0, format!("node\0{:02000}", 1).as_bytes());
    let counted = scene.counted();
    let mut header = request(XS_READ, 0, b"");
    // A payload of 4 GiB, of which the length comes in a piece of its own.
    header[12..16].fill(0xff);
    let id = scene.ids[1];
    assert_eq!(scene.store.handle_bytes(id, &header[..1], &mut scene.host), Ok(1));
    assert!(scene.store.handle_bytes(id, &header[1..], &mut scene.host).is_err());
    scene.store.reset(id);
    assert_eq!(scene.store.check(), Ok(()));
    assert_eq!(scene.counted(), counted);
}
