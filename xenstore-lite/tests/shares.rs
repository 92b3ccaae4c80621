//! Who may take how much of the store's memory: what the privileged domain gives counts for nobody's share, and no event is lost. Host.

use xen_pv_sys::DomainId;
use xen_pv_sys::io::xs_wire::*;
use xenstore_lite::fakes::{FakeHost, Heard, fetch, request};
use xenstore_lite::{Config, ConnectionId, Store};

/// What all may take in a domain of 8 MiB.
const SMALL: usize = 2_883_584;
/// Domains that are connected, dom0 among them.
const DOMAINS: u16 = 5;

struct Scene {
    store: Store,
    host: FakeHost,
    ids: Vec<ConnectionId>,
}

impl Scene {
    /// Each guest owns `/local/domain/N/data`.
    fn new() -> Self {
        let mut store = Store::new(Config { memory: SMALL, ..Config::default() });
        let domains = (0..DOMAINS).map(|domain| (DomainId(domain), 1)).collect();
        let host = FakeHost { domains, ..FakeHost::default() };
        let ids = (0..DOMAINS).filter_map(|domain| store.connect(DomainId(domain))).collect();
        let mut scene = Self { store, host, ids };
        for domain in 1..DOMAINS {
            scene.give(&format!("/local/domain/{domain}/data"), "", &format!("n{domain}"));
        }
        scene
    }

    fn send(&mut self, domain: usize, kind: u32, payload: &str) -> bool {
        let bytes = request(kind, 0, payload.as_bytes());
        self.store.handle_bytes(self.ids[domain], &bytes, &mut self.host).expect("no long message") > 0
    }

    fn fetch(&mut self, domain: usize) -> Vec<Heard> {
        fetch(&mut self.store, self.ids[domain])
    }

    /// The answer, and before it whatever waited.
    fn ask(&mut self, domain: usize, kind: u32, payload: &str) -> String {
        assert!(self.send(domain, kind, payload), "a request was not taken");
        let heard = self.fetch(domain).into_iter().rfind(|heard| heard.kind != XS_WATCH_EVENT);
        heard.expect("an answer").text()
    }

    fn done(&mut self, domain: usize, kind: u32, payload: &str) {
        let said = self.ask(domain, kind, payload);
        assert_eq!(said, "OK|", "domain {domain}, {kind}, {}", payload.escape_debug());
    }

    /// Dom0 makes a node with those permissions.
    fn give(&mut self, path: &str, value: &str, permissions: &str) {
        self.done(0, XS_WRITE, &format!("{path}\0{value}"));
        self.done(0, XS_SET_PERMS, &format!("{path}\0{}\0", permissions.replace(' ', "\0")));
    }

    /// The directories of a vif of domain 1's, as `xl` writes them for a frontend that is only a number.
    fn give_vif(&mut self, frontend: u32) {
        let (back, front) =
            (format!("/local/domain/1/backend/vif/{frontend}/0"), format!("/local/domain/{frontend}/device/vif/0"));
        self.give(&front, "", "n0 r1");
        self.done(0, XS_WRITE, &format!("{front}/state\x001"));
        self.give(&back, "", "n1");
        for (name, value) in [
            ("frontend", front.as_str()),
            ("frontend-id", "10"),
            ("online", "1"),
            ("state", "1"),
            ("script", "/etc/xen/scripts/vif-bridge"),
            ("mac", "00:16:3e:00:00:01"),
            ("bridge", "xenbr0"),
            ("handle", "0"),
            ("type", "vif"),
        ] {
            self.done(0, XS_WRITE, &format!("{back}/{name}\0{value}"));
        }
    }

    /// A domain writes nodes of its own until it is refused more; how many.
    fn fill(&mut self, domain: usize, name: &str) -> usize {
        let refused = |scene: &mut Self, number| {
            scene.ask(domain, XS_WRITE, &format!("data/{name}{number}\0{:01900}", 1)) != "OK|"
        };
        (0..1500).take_while(|number| !refused(self, *number)).count()
    }
}

/// A driver domain serves a hundred guests beside three that take all they can get, and hears of all that it watches.
#[test]
fn a_driver_domain_has_room_for_its_devices() {
    let mut scene = Scene::new();
    scene.give("/local/domain/1/backend", "", "n0 r1");
    scene.done(1, XS_WATCH, "backend/vif\0bus\0");
    for frontend in 10..110 {
        scene.give_vif(frontend);
        for hoarder in 2..5 {
            scene.fill(hoarder, "x");
        }
        let (back, front) = (format!("backend/vif/{frontend}/0"), format!("/local/domain/{frontend}/device/vif/0"));
        scene.done(1, XS_WATCH, &format!("{front}\0{front}\0"));
        for (name, value) in [
            ("state", "2"),
            ("hotplug-status", "connected"),
            ("feature-sg", "1"),
            ("feature-gso-tcpv4", "1"),
            ("feature-gso-tcpv6", "1"),
            ("feature-rx-copy", "1"),
            ("feature-multicast-control", "1"),
            ("carrier", "1"),
            ("error", "none"),
        ] {
            scene.done(1, XS_WRITE, &format!("{back}/{name}\0{value}"));
        }
        if frontend % 25 != 9 {
            continue;
        }
        // All devices change at once, as when a host shuts down, before it reads a word.
        for other in 10..=frontend {
            scene.done(0, XS_WRITE, &format!("/local/domain/{other}/device/vif/0/state\0{frontend}"));
        }
        let heard = scene.fetch(1);
        for other in 10..=frontend {
            let front = format!("/local/domain/{other}/device/vif/0");
            let is = |heard: &&Heard| heard.text() == format!("{front}/state|{front}|");
            assert!(heard.iter().any(|heard| is(&heard)), "with {frontend}, the change of {other} is lost");
        }
    }
    assert!(scene.store.usage(DomainId(1)).nodes > 1000);
    assert_eq!(scene.store.check(), Ok(()));
}

/// Only directories that dom0 made for a domain make a backend of it, and what it may have then is what a device takes.
#[test]
fn nobody_makes_a_backend_of_itself() {
    let mut scene = Scene::new();
    scene.give("/local/domain/1/backend", "", "n1");
    for number in 0..1200 {
        scene.ask(1, XS_MKDIR, &format!("backend/vif/{number}/0\0"));
        scene.ask(1, XS_MKDIR, &format!("data/{}/{number}\0", number / 100));
    }
    assert_eq!(scene.store.usage(DomainId(1)).nodes, 1000);
    scene.done(0, XS_RM, "/local/domain/1/data\0");
    scene.give("/local/domain/1/data", "", "n1");
    scene.done(0, XS_RM, "/local/domain/1/backend\0");
    scene.give("/local/domain/1/backend", "", "n0 r1");
    scene.give_vif(10);
    for number in 0..1200 {
        scene.ask(1, XS_MKDIR, &format!("backend/vif/10/0/{}/{number}\0", number / 100));
    }
    assert_eq!(scene.store.usage(DomainId(1)).nodes, 1064);
    scene.done(0, XS_RM, "/local/domain/1/backend/vif/10\0");
    (0..1200).for_each(|number| drop(scene.ask(1, XS_MKDIR, &format!("data/{}/{number}\0", number / 100))));
    assert_eq!(scene.store.usage(DomainId(1)).nodes, 1000);
    assert_eq!(scene.store.check(), Ok(()));
}

/// With the trees of 140 guests, which are dom0's, a guest still gets what a guest needs.
#[test]
fn nodes_of_dom0_refuse_a_guest_nothing() {
    let mut scene = Scene::new();
    for guest in 10..150 {
        for node in 0..60 {
            scene.done(0, XS_WRITE, &format!("/local/domain/{guest}/device/vif/{node:02}\0{node:012}"));
        }
    }
    for node in 0..60 {
        scene.done(1, XS_WRITE, &format!("data/{node}\0{node:040}"));
        scene.done(1, XS_WATCH, &format!("data/{node}\0{node}\0"));
    }
}

/// What a device allows its backend is there for it when all else is taken, and for nobody else.
#[test]
fn a_backend_has_room_for_its_devices_when_nothing_is_free() {
    let mut scene = Scene::new();
    (10..20).for_each(|frontend| scene.give_vif(frontend));
    for number in 0..1600 {
        scene.done(0, XS_WRITE, &format!("/local/domain/0/data/{number}\0{number:01900}"));
    }
    assert_eq!(scene.ask(2, XS_WRITE, "data/x\0"), "ENOMEM|");
    for frontend in 10..20 {
        scene.done(1, XS_WRITE, &format!("backend/vif/{frontend}/0/feature-sg\x001"));
    }
    assert_eq!(scene.store.check(), Ok(()));
}

/// What dom0 gave and a guest took away, or made smaller, is nothing that the guest has room for.
#[test]
fn a_gift_that_is_gone_is_no_room() {
    let mut scene = Scene::new();
    let alone = scene.fill(2, "x");
    scene.done(0, XS_RM, "/local/domain/2/data\0");
    scene.give("/local/domain/2/data", "", "n2");
    for round in 0..5 {
        for number in 0..100 {
            scene.give(&format!("/local/domain/1/data/{round}-{number}"), &format!("{number:01900}"), "n1");
        }
        for number in 0..100 {
            if number % 2 == 0 {
                scene.done(1, XS_RM, &format!("data/{round}-{number}\0"));
            } else {
                scene.done(1, XS_WRITE, &format!("data/{round}-{number}\0"));
                scene.done(1, XS_RM, &format!("data/{round}-{number}\0"));
            }
        }
    }
    assert_eq!(scene.fill(1, "x"), alone);
    assert_eq!(scene.store.check(), Ok(()));
}

/// A state of one who does not tell of gifts, as C xenstored's: what its owner cannot have made was given.
#[test]
fn an_old_state_makes_no_hoarder_of_a_driver_domain() {
    let mut scene = Scene::new();
    scene.give("/local/domain/1/backend", "", "n0 r1");
    for frontend in 10..70 {
        scene.give_vif(frontend);
        for name in ["hotplug-status", "feature-sg", "feature-rx-copy", "carrier"] {
            scene.done(1, XS_WRITE, &format!("backend/vif/{frontend}/0/{name}\x001"));
        }
    }
    for number in 0..40 {
        scene.done(2, XS_WRITE, &format!("data/{number}\0{:01900}", 1));
    }
    let mut state = Vec::new();
    scene.store.write_state(&mut |bytes| state.extend_from_slice(bytes));
    without_gifts(&mut state);
    let config = Config { memory: SMALL, ..Config::default() };
    scene.store = Store::read_state(&state, config).expect("a state");
    assert_eq!(scene.store.most_hoarded(usize::MAX).map(|(domain, _)| domain), Some(DomainId(2)));
    assert_eq!(scene.store.most_hoarded(80_000).map(|(_, hoard)| hoard), Some(0));
    for number in 0..300 {
        scene.done(1, XS_WRITE, &format!("backend/vif/10/0/x{number}\x001"));
    }
    assert_eq!(scene.store.check(), Ok(()));
}

/// Takes what was given out of the nodes' records (`xenstore-migration.md`): the upper bits of a field that C xenstored leaves empty.
fn without_gifts(state: &mut [u8]) {
    let mut at = 16;
    while let Some([kind, length]) = state
        .get(at..at + 8)
        .map(|head| [0, 4].map(|place| u32::from_le_bytes(head[place..place + 4].try_into().expect("four bytes"))))
    {
        if kind == 5 {
            state[at + 20] &= 0x0f;
            state[at + 21] = 0;
        }
        at += 8 + length as usize;
    }
}

/// A commit that would leave a guest with more memory than it may have is refused, and changes nothing.
#[test]
fn a_commit_is_held_against_memory() {
    let mut scene = Scene::new();
    let used = scene.store.usage(DomainId(1)).memory;
    scene.done(0, XS_SET_QUOTA, "1\0memory\x00100000\0");
    for (nodes, expected) in [(100, "OK|"), (200, "ENOMEM|"), (100, "OK|")] {
        scene.done(0, XS_RM, "/local/domain/1/data\0");
        scene.give("/local/domain/1/data", "", "n1");
        let transaction: u32 =
            scene.ask(1, XS_TRANSACTION_START, "\0").trim_end_matches('|').parse().expect("a number");
        let within = |scene: &mut Scene, kind, payload: &str| {
            let bytes = request(kind, transaction, payload.as_bytes());
            scene.store.handle_bytes(scene.ids[1], &bytes, &mut scene.host).expect("no long message");
            scene.fetch(1).into_iter().rfind(|heard| heard.kind != XS_WATCH_EVENT).expect("an answer").text()
        };
        for number in 0..nodes {
            assert_eq!(within(&mut scene, XS_MKDIR, &format!("data/{number}\0")), "OK|");
            let permissions = format!("data/{number}\0n1\0r0\0r2\0r3\0r4\0");
            assert_eq!(within(&mut scene, XS_SET_PERMS, &permissions), "OK|");
        }
        assert_eq!(within(&mut scene, XS_TRANSACTION_END, "T\0"), expected, "{nodes} nodes");
        let usage = scene.store.usage(DomainId(1));
        assert!(usage.memory <= 100_000, "{} bytes", usage.memory);
        assert_eq!(usage.memory == used, expected != "OK|");
        assert_eq!(scene.store.check(), Ok(()));
    }
}

/// What a guest grows is its own, also within a node that dom0 gave it.
#[test]
fn a_gift_that_grows_is_the_guests() {
    let mut scene = Scene::new();
    for number in 0..900 {
        scene.give(&format!("/local/domain/1/data/{number}"), "", "n1");
    }
    let grown = (0..900).take_while(|number| scene.ask(1, XS_WRITE, &format!("data/{number}\0{:01900}", 1)) == "OK|");
    let grown = grown.count();
    assert!((200..400).contains(&grown), "{grown} nodes of 1,900 bytes");
    assert_eq!(scene.store.check(), Ok(()));
}

/// A reader that has its fill hears later, once for each watch, that it missed something: in this store and in the next.
#[test]
fn what_found_no_room_is_made_up_for() {
    let mut scene = Scene::new();
    scene.give("/local/domain/1/data", "", "n1 r2");
    scene.done(2, XS_WATCH, "/local/domain/1/data\0a\0");
    scene.done(2, XS_WATCH, "/local/domain/1/data/x\0b\0");
    for number in 0..1500 {
        scene.done(1, XS_WRITE, &format!("data/{number:0500}\0"));
        scene.done(1, XS_RM, &format!("data/{number:0500}\0"));
    }
    scene.done(1, XS_WRITE, "data/x\0");
    let mut state = Vec::new();
    scene.store.write_state(&mut |bytes| state.extend_from_slice(bytes));
    let config = Config { memory: SMALL, ..Config::default() };
    let next = Store::read_state(&state, config).expect("a state");
    for mut store in [scene.store.clone(), next] {
        assert_eq!(store.check(), Ok(()));
        let waiting = store.waiting(scene.ids[2]);
        assert!(waiting > 0 && waiting < SMALL / 4, "{waiting} bytes wait");
        let heard: Vec<String> = fetch(&mut store, scene.ids[2]).iter().map(Heard::text).collect();
        assert!(heard.contains(&"/local/domain/1/data/x|b|".into()));
        assert_eq!(heard.last().map(String::as_str), Some("/local/domain/1/data|a|"));
        assert_eq!((store.waiting(scene.ids[2]), store.check()), (0, Ok(())));
    }
}
