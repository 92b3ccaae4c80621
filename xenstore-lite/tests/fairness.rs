//! That nobody waits for ever: transactions against writers without end, answers that nobody fetches, bytes in pieces.

use xen_pv_sys::DomainId;
use xen_pv_sys::io::xs_wire::*;
use xenstore_lite::fakes::{FakeHost, fetch, request};
use xenstore_lite::{Config, ConnectionId, ProtocolError, Store};

struct Scene {
    store: Store,
    host: FakeHost,
    ids: Vec<ConnectionId>,
}

impl Scene {
    /// Domains 0 to 3, and a node `/shared` that all may read and write.
    fn new() -> Self {
        let mut store = Store::new(Config::default());
        let host = FakeHost { domains: (0..4).map(|domain| (DomainId(domain), 1)).collect(), ..FakeHost::default() };
        let ids = (0..4).filter_map(|domain| store.connect(DomainId(domain))).collect();
        let mut scene = Self { store, host, ids };
        assert_eq!(scene.ask(0, XS_MKDIR, 0, b"/shared\0"), Some("OK|".into()));
        assert_eq!(scene.ask(0, XS_SET_PERMS, 0, b"/shared\0b0\0"), Some("OK|".into()));
        scene
    }

    fn send(&mut self, domain: usize, kind: u32, transaction: u32, payload: &[u8]) -> bool {
        let bytes = request(kind, transaction, payload);
        self.store.handle_bytes(self.ids[domain], &bytes, &mut self.host).expect("no long message") > 0
    }

    /// The answer; `None` where the request was not taken.
    fn ask(&mut self, domain: usize, kind: u32, transaction: u32, payload: &[u8]) -> Option<String> {
        if !self.send(domain, kind, transaction, payload) {
            return None;
        }
        fetch(&mut self.store, self.ids[domain]).pop().map(|heard| heard.text())
    }

    fn start(&mut self, domain: usize) -> u32 {
        let answer = self.ask(domain, XS_TRANSACTION_START, 0, b"\0").expect("taken");
        answer.trim_end_matches('|').parse().expect("a transaction")
    }

    /// A transaction of `domain` that reads and writes `/shared` while another domain writes there as often as it is let.
    fn attempt(&mut self, domain: usize, writer: usize) -> String {
        let transaction = self.start(domain);
        self.ask(domain, XS_READ, transaction, b"/shared\0");
        self.ask(writer, XS_WRITE, 0, b"/shared\0noise");
        self.ask(domain, XS_WRITE, transaction, b"/shared\0mine");
        self.ask(writer, XS_WRITE, 0, b"/shared\0noise");
        self.ask(domain, XS_TRANSACTION_END, transaction, b"T\0").expect("taken")
    }
}

#[test]
fn a_transaction_commits_in_the_end() {
    for loser in [0, 1] {
        let mut scene = Scene::new();
        let outcomes: Vec<String> = (0..6).map(|_| scene.attempt(loser, 2)).collect();
        assert_eq!(outcomes, ["EAGAIN|", "EAGAIN|", "EAGAIN|", "EAGAIN|", "OK|", "EAGAIN|"], "domain {loser}");
    }
}

#[test]
fn the_privileged_domain_is_not_held_back() {
    let mut scene = Scene::new();
    assert!((0..20).all(|_| scene.attempt(1, 0) == "EAGAIN|"));
}

#[test]
fn only_who_disturbs_is_held_back_and_not_for_ever() {
    let mut scene = Scene::new();
    assert_eq!(scene.ask(0, XS_MKDIR, 0, b"/other\0"), Some("OK|".into()));
    assert_eq!(scene.ask(0, XS_SET_PERMS, 0, b"/other\0b0\0"), Some("OK|".into()));
    for _ in 0..4 {
        assert_eq!(scene.attempt(1, 2), "EAGAIN|");
    }
    // It is protected now, and rests.
    let transaction = scene.start(1);
    scene.ask(1, XS_READ, transaction, b"/shared\0");
    assert!(!scene.store.poll_held());
    assert_eq!(scene.ask(3, XS_WRITE, 0, b"/other\0x"), Some("OK|".into()));
    assert!(!scene.send(2, XS_SET_PERMS, 0, b"/shared\0b0\0"), "who may have it is what the transaction read, too");
    let held = (0..1000).take_while(|_| !scene.send(2, XS_MKDIR, 0, b"/shared/new\0")).count();
    assert_eq!(held, 99);
    assert!(!scene.store.poll_held());
    assert_eq!(scene.ask(1, XS_TRANSACTION_END, transaction, b"T\0"), Some("EAGAIN|".into()));
}

#[test]
fn a_held_request_that_came_in_pieces_is_served_later() {
    let mut scene = Scene::new();
    for _ in 0..4 {
        scene.attempt(1, 2);
    }
    let transaction = scene.start(1);
    scene.ask(1, XS_READ, transaction, b"/shared\0");
    let bytes = request(XS_WRITE, 0, b"/shared\0x");
    let (head, tail) = bytes.split_at(10);
    for piece in [head, tail] {
        assert_eq!(scene.store.handle_bytes(scene.ids[2], piece, &mut scene.host), Ok(piece.len()));
    }
    assert!(scene.store.poll_held() && scene.store.poll_transmit(scene.ids[2]).is_empty());
    assert_eq!(scene.ask(1, XS_TRANSACTION_END, transaction, b"T\0"), Some("OK|".into()));
    assert_eq!(scene.store.handle_bytes(scene.ids[2], &[], &mut scene.host), Ok(0));
    assert_eq!(fetch(&mut scene.store, scene.ids[2]).len(), 1);
}

#[test]
fn who_fetches_no_answers_is_not_served() {
    let mut scene = Scene::new();
    let served = (0..1000).take_while(|_| scene.send(1, XS_READ, 0, b"/shared\0")).count();
    assert_eq!(served, 20);
    let dom0 = (0..1000).take_while(|_| scene.send(0, XS_READ, 0, b"/shared\0")).count();
    assert_eq!(dom0, 64);
    // Others are, and it is too when it has fetched one.
    assert!(scene.send(2, XS_READ, 0, b"/shared\0"));
    let first = scene.store.poll_transmit(scene.ids[1]).len();
    scene.store.transmitted(scene.ids[1], first);
    assert!(scene.send(1, XS_READ, 0, b"/shared\0") && !scene.send(1, XS_READ, 0, b"/shared\0"));
}

#[test]
fn who_floods_dom0_with_events_waits_for_it() {
    let mut scene = Scene::new();
    scene.ask(0, XS_WATCH, 0, b"/shared\0t\0");
    fetch(&mut scene.store, scene.ids[0]);
    let mut served = 0;
    for number in 0..1000 {
        if scene.ask(1, XS_MKDIR, 0, format!("/shared/{number}\0").as_bytes()).is_none() {
            break;
        }
        served += 1;
    }
    assert_eq!(served, 20);
    assert_eq!(fetch(&mut scene.store, scene.ids[0]).len(), 20);
    assert!(scene.send(1, XS_MKDIR, 0, b"/shared/more\0"));
}

#[test]
fn who_watches_and_does_not_read_holds_nobody() {
    let mut scene = Scene::new();
    scene.ask(2, XS_WATCH, 0, b"/shared\0t\0");
    for number in 0..900 {
        let path = format!("/shared/{number:02048}\0");
        assert!(scene.ask(1, XS_MKDIR, 0, path.get(..300).unwrap_or_default().as_bytes()).is_some());
        scene.ask(1, XS_WRITE, 0, format!("/shared/{number}\0x").as_bytes());
    }
    assert!(scene.store.usage(DomainId(2)).memory < 0x28_0000 + 4096);
    assert_eq!(scene.store.check(), Ok(()));
}

#[test]
fn a_long_message_is_the_end_of_a_connection() {
    let mut scene = Scene::new();
    let long = request(XS_WRITE, 0, &[b'x'; 4097]);
    let error = Err(ProtocolError { length: 4097 });
    assert_eq!(scene.store.handle_bytes(scene.ids[1], &long, &mut scene.host), error);
    assert_eq!(scene.store.handle_bytes(scene.ids[1], long.get(..16).unwrap_or_default(), &mut scene.host), error);
    scene.store.disconnect(scene.ids[1]);
    assert_eq!(scene.store.handle_bytes(scene.ids[1], &long, &mut scene.host), Ok(0));
    assert_eq!(scene.ask(0, XS_IS_DOMAIN_INTRODUCED, 0, b"1\0"), Some("T|".into()));
    assert_eq!(scene.ask(0, XS_RESUME, 0, b"1\0"), Some("EINVAL|".into()));
    // It may be introduced anew.
    assert_eq!(scene.ask(0, XS_INTRODUCE, 0, b"1\x000\x005\0"), Some("OK|".into()));
    assert_ne!(scene.store.connection(DomainId(1)), Some(scene.ids[1]));
}

#[test]
fn those_with_something_to_fetch_are_named_once() {
    let mut scene = Scene::new();
    scene.ask(2, XS_WATCH, 0, b"/shared\0t\0");
    while scene.store.poll_ready().is_some() {}
    scene.send(1, XS_WRITE, 0, b"/shared\0x");
    scene.send(1, XS_WRITE, 0, b"/shared\0y");
    assert_eq!([(); 3].map(|()| scene.store.poll_ready()), [Some(scene.ids[2]), Some(scene.ids[1]), None]);
}
