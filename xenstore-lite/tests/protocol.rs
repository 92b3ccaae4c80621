//! The protocol as tables of (who, transaction, request, answer), with the events that others hear. The answers are C xenstored's.

use xen_pv_sys::io::xs_wire::*;
use xen_pv_sys::{DomainId, Port};
use xenstore_lite::fakes::{Call, FakeHost, fetch, request};
use xenstore_lite::{Config, Quotas, Resource, Store};

/// A store with domains 0, 1, 2 and 3 connected, of which 4 more exist that are not.
struct Scene {
    store: Store,
    host: FakeHost,
}

const NAMES: [(&str, u32); 24] = [
    ("CONTROL", XS_CONTROL),
    ("DIRECTORY", XS_DIRECTORY),
    ("DIRECTORY_PART", XS_DIRECTORY_PART),
    ("READ", XS_READ),
    ("GET_PERMS", XS_GET_PERMS),
    ("WATCH", XS_WATCH),
    ("UNWATCH", XS_UNWATCH),
    ("START", XS_TRANSACTION_START),
    ("END", XS_TRANSACTION_END),
    ("INTRODUCE", XS_INTRODUCE),
    ("RELEASE", XS_RELEASE),
    ("GET_DOMAIN_PATH", XS_GET_DOMAIN_PATH),
    ("WRITE", XS_WRITE),
    ("MKDIR", XS_MKDIR),
    ("RM", XS_RM),
    ("SET_PERMS", XS_SET_PERMS),
    ("IS_INTRODUCED", XS_IS_DOMAIN_INTRODUCED),
    ("RESUME", XS_RESUME),
    ("SET_TARGET", XS_SET_TARGET),
    ("RESET_WATCHES", XS_RESET_WATCHES),
    ("GET_FEATURE", XS_GET_FEATURE),
    ("SET_FEATURE", XS_SET_FEATURE),
    ("GET_QUOTA", XS_GET_QUOTA),
    ("SET_QUOTA", XS_SET_QUOTA),
];

fn kind(name: &str) -> u32 {
    let known = NAMES.iter().find(|(known, _)| *known == name);
    known.map(|(_, kind)| *kind).unwrap_or_else(|| name.parse().expect("a request's name or number"))
}

impl Scene {
    fn new(quotas: Quotas) -> Self {
        let store = Store::new(Config { quotas, ..Config::default() });
        let domains = (0..8).map(|domain| (DomainId(domain), 100 + u64::from(domain))).collect();
        let mut scene = Self { store, host: FakeHost { domains, ..FakeHost::default() } };
        for domain in 0..4 {
            scene.store.connect(DomainId(domain)).expect("not connected yet");
        }
        scene
    }

    /// Asks, `NAME word|word|`, and gives what is heard: events begin with `!`.
    fn ask(&mut self, domain: u16, transaction: u32, text: &str) -> String {
        let (name, payload) = text.split_once(' ').unwrap_or((text, ""));
        let payload = payload.replace('|', "\0");
        let id = self.store.connection(DomainId(domain)).expect("connected");
        let bytes = request(kind(name), transaction, payload.as_bytes());
        assert_eq!(self.store.handle_bytes(id, &bytes, &mut self.host), Ok(bytes.len()), "{text}");
        assert_eq!(self.store.check(), Ok(()), "after {text}");
        self.hear(domain)
    }

    fn hear(&mut self, domain: u16) -> String {
        let id = self.store.connection(DomainId(domain)).expect("connected");
        let heard = fetch(&mut self.store, id).into_iter().map(|heard| {
            let event = if heard.kind == XS_WATCH_EVENT { "!" } else { "" };
            format!("{event}{}", heard.text())
        });
        heard.collect::<Vec<_>>().join(" ")
    }

    fn table(&mut self, rows: &[(u16, u32, &str, &str)]) {
        for (place, (domain, transaction, text, expected)) in rows.iter().enumerate() {
            let heard = if *text == "hear" { self.hear(*domain) } else { self.ask(*domain, *transaction, text) };
            assert_eq!(heard, *expected, "row {place}: domain {domain} in {transaction}: {text}");
        }
    }
}

fn table(rows: &[(u16, u32, &str, &str)]) {
    Scene::new(Quotas::default()).table(rows);
}

#[test]
fn nodes() {
    table(&[
        (0, 0, "DIRECTORY /|", "tool|"),
        (0, 0, "READ /tool/xenstored|", ""),
        (0, 0, "WRITE /a/b/c|value", "OK|"),
        (0, 0, "READ /a/b/c|", "value"),
        (0, 0, "READ /a/b|", ""),
        (0, 0, "READ /a/x|", "ENOENT|"),
        (0, 0, "WRITE /a/b/c|", "OK|"),
        (0, 0, "READ /a/b/c|", ""),
        (0, 0, "MKDIR /a/b|", "OK|"),
        (0, 0, "MKDIR /a/z|", "OK|"),
        (0, 0, "MKDIR /a/y|", "OK|"),
        (0, 0, "DIRECTORY /a|", "b|z|y|"),
        (0, 0, "RM /a/z|", "OK|"),
        (0, 0, "RM /a/z|", "OK|"),
        (0, 0, "RM /x/y/z|", "ENOENT|"),
        (0, 0, "RM /|", "EINVAL|"),
        (0, 0, "DIRECTORY /a|", "b|y|"),
        (0, 0, "RM /a|", "OK|"),
        (0, 0, "READ /a/b/c|", "ENOENT|"),
        (0, 0, "GET_PERMS /tool|", "n0|"),
        (0, 0, "WRITE relative/x|1", "OK|"),
        (0, 0, "READ /local/domain/0/relative/x|", "1"),
    ]);
}

#[test]
fn whatever_shape_a_path_has() {
    let mut scene = Scene::new(Quotas::default());
    let bad = ["", "//", "/a/", "/a//b", "x/", "/local/domain/", "/ ", "/\u{1}", "/a.b", "@x", "@releaseDomain"];
    for request in ["READ", "DIRECTORY", "MKDIR", "RM"] {
        for path in bad {
            for domain in [0, 1] {
                assert_eq!(scene.ask(domain, 0, &format!("{request} {path}|")), "EINVAL|", "{request} {path:?}");
            }
        }
        assert_eq!(scene.ask(0, 0, &format!("{request} /a")), "EINVAL|");
        assert_eq!(scene.ask(0, 0, &format!("{request} /a|/b|")), "EINVAL|");
        assert_eq!(scene.ask(0, 0, &format!("{request} /{}|", "x".repeat(3072))), "EINVAL|");
        assert_eq!(scene.ask(1, 0, &format!("{request} {}|", "x".repeat(2049))), "EINVAL|");
    }
    assert_eq!(scene.ask(0, 0, "WRITE /a"), "EINVAL|");
    assert_eq!(scene.ask(0, 0, "WATCH /a/|t|"), "EINVAL|");
    assert_eq!(scene.ask(0, 0, "WATCH @whatever|t|"), "OK| !@whatever|t|");
}

#[test]
fn requests_that_are_none() {
    table(&[
        (0, 0, "15 x|", "ENOSYS|"),
        (0, 0, "16 x|", "ENOSYS|"),
        (0, 0, "20 1|", "ENOSYS|"),
        (0, 0, "27 1|", "ENOSYS|"),
        (0, 0, "65535 1|", "ENOSYS|"),
        (1, 0, "CONTROL help|", "EACCES|"),
        (1, 0, "INTRODUCE 5|1|1|", "EACCES|"),
        (1, 0, "RELEASE 2|", "EACCES|"),
        (1, 0, "IS_INTRODUCED 2|", "EACCES|"),
        (1, 0, "RESUME 2|", "EACCES|"),
        (1, 0, "SET_TARGET 1|2|", "EACCES|"),
        (1, 0, "SET_FEATURE 5|1|", "EACCES|"),
        (1, 0, "GET_QUOTA", "EACCES|"),
        (1, 0, "SET_QUOTA nodes|1|", "EACCES|"),
        (1, 9, "READ /|", "ENOENT|"),
        (1, 9, "GET_DOMAIN_PATH 1|", "ENOENT|"),
        (1, 9, "WATCH x|t|", "OK| !x|t|"),
    ]);
}

#[test]
fn permissions() {
    table(&[
        (1, 0, "READ /tool|", "EACCES|"),
        (1, 0, "READ /nothing|", "EACCES|"),
        (1, 0, "WRITE /local/domain/1/x|", "EACCES|"),
        (0, 0, "MKDIR /local/domain/1|", "OK|"),
        (0, 0, "SET_PERMS /local/domain/1|n1|", "OK|"),
        (1, 0, "WRITE x/y|1", "OK|"),
        (1, 0, "GET_PERMS x/y|", "n1|"),
        (2, 0, "READ /local/domain/1/x/y|", "EACCES|"),
        (1, 0, "SET_PERMS x/y|n1|r2|", "OK|"),
        (2, 0, "READ /local/domain/1/x/y|", "1"),
        (2, 0, "WRITE /local/domain/1/x/y|2", "EACCES|"),
        (2, 0, "SET_PERMS /local/domain/1/x/y|n1|b2|", "EACCES|"),
        (1, 0, "SET_PERMS x/y|w1|b2|", "OK|"),
        (2, 0, "WRITE /local/domain/1/x/y|2", "OK|"),
        (3, 0, "WRITE /local/domain/1/x/y|3", "OK|"),
        (3, 0, "READ /local/domain/1/x/y|", "EACCES|"),
        (2, 0, "MKDIR /local/domain/1/x/y/z|", "OK|"),
        (2, 0, "GET_PERMS /local/domain/1/x/y/z|", "w2|b2|"),
        (2, 0, "READ /local/domain/1/x/y/q|", "ENOENT|"),
        (3, 0, "READ /local/domain/1/x/y/q|", "EACCES|"),
        (1, 0, "SET_PERMS x|n2|", "EPERM|"),
        (1, 0, "SET_PERMS x|", "EINVAL|"),
        (1, 0, "SET_PERMS x|q1|", "EINVAL|"),
        (1, 0, "SET_PERMS x|n99|", "ENOENT|"),
        (1, 0, "SET_PERMS x|n1|r99|", "OK|"),
        (1, 0, "GET_PERMS x|", "n1|r99|"),
        (1, 0, "SET_PERMS x|n1|r2|r3|r4|r5|r6|", "ENOSPC|"),
        (1, 0, "SET_PERMS x|n1|r32757|", "OK|"),
        (3, 0, "DIRECTORY /local/domain/1/x|", "y|"),
        (0, 0, "SET_TARGET 3|1|", "OK|"),
        (3, 0, "WRITE /local/domain/1/new|1", "OK|"),
        (3, 0, "GET_PERMS /local/domain/1/new|", "n3|"),
        (0, 0, "GET_PERMS @releaseDomain|", "n0|r32757|"),
        (1, 0, "SET_PERMS @releaseDomain|n0|", "EACCES|"),
        (1, 0, "GET_PERMS @introduceDomain|", "EACCES|"),
        (0, 0, "SET_PERMS @introduceDomain|n0|r1|", "OK|"),
        (1, 0, "GET_PERMS @introduceDomain|", "n0|r1|"),
    ]);
}

#[test]
fn transactions() {
    table(&[
        (0, 0, "START |", "1|"),
        (0, 1, "START |", "EBUSY|"),
        (0, 1, "WRITE /a|1", "OK|"),
        (0, 1, "READ /a|", "1"),
        (0, 0, "READ /a|", "ENOENT|"),
        (0, 1, "END X|", "EINVAL|"),
        (0, 1, "END T|", "OK|"),
        (0, 1, "END T|", "ENOENT|"),
        (0, 0, "READ /a|", "1"),
        (0, 0, "END T|", "ENOENT|"),
        // What was met is changed by another.
        (0, 0, "START |", "2|"),
        (0, 2, "READ /a|", "1"),
        (0, 0, "WRITE /a|2", "OK|"),
        (0, 2, "READ /a|", "1"),
        (0, 2, "WRITE /b|1", "OK|"),
        (0, 2, "END T|", "EAGAIN|"),
        (0, 0, "READ /b|", "ENOENT|"),
        // What it had not met yet may change.
        (0, 0, "START |", "3|"),
        (0, 0, "WRITE /a|3", "OK|"),
        (0, 3, "READ /a|", "3"),
        (0, 3, "WRITE /a|4", "OK|"),
        (0, 3, "END T|", "OK|"),
        (0, 0, "READ /a|", "4"),
        // Absence is met, too, and so is the list of children.
        (0, 0, "START |", "4|"),
        (0, 4, "READ /c|", "ENOENT|"),
        (0, 0, "WRITE /c|", "OK|"),
        (0, 4, "END T|", "EAGAIN|"),
        (0, 0, "START |", "5|"),
        (0, 5, "RM /c|", "OK|"),
        (0, 5, "DIRECTORY /|", "tool|a|"),
        (0, 5, "END F|", "OK|"),
        (0, 0, "DIRECTORY /|", "tool|a|c|"),
        (0, 0, "START |", "6|"),
        (0, 6, "RM /c|", "OK|"),
        (0, 6, "READ /c|", "ENOENT|"),
        (0, 6, "END T|", "OK|"),
        (0, 0, "DIRECTORY /|", "tool|a|"),
        (0, 0, "START |", "7|"),
        (0, 0, "RESET_WATCHES |", "OK|"),
        (0, 7, "READ /a|", "ENOENT|"),
    ]);
}

#[test]
fn watches() {
    table(&[
        (0, 0, "WATCH /a|t|", "OK| !/a|t|"),
        (0, 0, "WATCH /a|t|", "EEXIST|"),
        (0, 0, "WATCH /a|", "EINVAL|"),
        (0, 0, "WATCH /a|t|1|x|", "EINVAL|"),
        (0, 0, "WATCH /a|t|-1|", "EINVAL|"),
        (0, 0, "WATCH /|top|1|", "OK| !/|top|"),
        (0, 0, "WRITE /a|1", "!/a|t| !/a|top| OK|"),
        (0, 0, "WRITE /a/b/c|1", "!/a/b/c|t| OK|"),
        (0, 0, "MKDIR /a/b|", "OK|"),
        (0, 0, "SET_PERMS /a|n0|r1|", "!/a|t| !/a|top| OK|"),
        // Below what is removed, only the watches of just that path hear of it.
        (0, 0, "WATCH /a/b/c|deep|", "OK| !/a/b/c|deep|"),
        (0, 0, "RM /a/b|", "!/a/b/c|deep| !/a/b|t| OK|"),
        (0, 0, "UNWATCH /a|x|", "ENOENT|"),
        (0, 0, "UNWATCH /a|t|", "OK|"),
        (0, 0, "WRITE /a|2", "!/a|top| OK|"),
        // In a transaction, at its end.
        (0, 0, "START |", "1|"),
        (0, 1, "WRITE /x|2", "OK|"),
        (0, 1, "WRITE /y|2", "OK|"),
        (0, 1, "RM /a|", "OK|"),
        (0, 1, "END T|", "!/x|top| !/y|top| !/a|top| OK|"),
        (0, 0, "START |", "2|"),
        (0, 2, "WRITE /x|3", "OK|"),
        (0, 2, "END F|", "OK|"),
        // Relative ones.
        (0, 0, "MKDIR /local/domain/1|", "OK|"),
        (0, 0, "SET_PERMS /local/domain/1|n1|", "OK|"),
        (1, 0, "WATCH x|rel|", "OK| !x|rel|"),
        (1, 0, "WRITE x/y|1", "!x/y|rel| OK|"),
        // Who may not read hears nothing.
        (2, 0, "WATCH /local/domain/1|spy|", "OK| !/local/domain/1|spy|"),
        (1, 0, "WRITE x/y|2", "!x/y|rel| OK|"),
        (2, 0, "hear", ""),
        (1, 0, "SET_PERMS x/y|r1|", "!x/y|rel| OK|"),
        (2, 0, "hear", "!/local/domain/1/x/y|spy|"),
        // And who may not any more hears of just that.
        (1, 0, "SET_PERMS x/y|n1|", "!x/y|rel| OK|"),
        (2, 0, "hear", "!/local/domain/1/x/y|spy|"),
        (1, 0, "RESET_WATCHES |", "OK|"),
        (1, 0, "WRITE x/y|3", "OK|"),
    ]);
}

#[test]
fn an_event_waits_once() {
    let mut scene = Scene::new(Quotas::default());
    scene.table(&[(0, 0, "WATCH /a|t|", "OK| !/a|t|"), (0, 0, "MKDIR /a|", "!/a|t| OK|")]);
    scene.table(&[(0, 0, "SET_PERMS /a|b1|", "!/a|t| OK|")]);
    for _ in 0..3 {
        assert_eq!(scene.ask(1, 0, "WRITE /a|1"), "OK|");
    }
    assert_eq!(scene.hear(0), "!/a|t|");
    assert_eq!(scene.ask(1, 0, "WRITE /a|1"), "OK|");
    assert_eq!(scene.hear(0), "!/a|t|");
}

#[test]
fn domains() {
    let mut scene = Scene::new(Quotas::default());
    scene.table(&[
        (0, 0, "GET_DOMAIN_PATH 7|", "/local/domain/7|"),
        (0, 0, "GET_DOMAIN_PATH x|", "EINVAL|"),
        (0, 0, "IS_INTRODUCED 5|", "F|"),
        (0, 0, "IS_INTRODUCED 32752|", "T|"),
        (0, 0, "WATCH @introduceDomain|in|", "OK| !@introduceDomain|in|"),
        (0, 0, "WATCH @releaseDomain|out|", "OK| !@releaseDomain|out|"),
        (0, 0, "WATCH @releaseDomain|each|1|", "OK| !@releaseDomain|each|"),
        (1, 0, "WATCH @releaseDomain/5|five|", "OK| !@releaseDomain/5|five|"),
        (1, 0, "WATCH @introduceDomain|in|", "OK| !@introduceDomain|in|"),
        (0, 0, "GET_FEATURE", "15|"),
        (0, 0, "SET_FEATURE 5|3|", "OK|"),
        (0, 0, "SET_FEATURE 5|16|", "EINVAL|"),
        (0, 0, "SET_FEATURE 99|3|", "ENOENT|"),
        (0, 0, "INTRODUCE 5|0|0|", "EINVAL|"),
        (0, 0, "INTRODUCE 5|0|", "EINVAL|"),
        (0, 0, "INTRODUCE 99|0|1|", "EINVAL|"),
        (0, 0, "INTRODUCE 5|0|11|", "!@introduceDomain|in| OK|"),
        (1, 0, "hear", ""),
        (0, 0, "IS_INTRODUCED 5|", "T|"),
        (0, 0, "SET_FEATURE 5|3|", "EBUSY|"),
        (5, 0, "GET_FEATURE", "3|"),
        (5, 0, "GET_FEATURE 5|", "EACCES|"),
        (5, 0, "WATCH x|t|1|", "EINVAL|"),
        (0, 0, "SET_TARGET 5|99|", "ENOENT|"),
        (0, 0, "RELEASE 0|", "EINVAL|"),
        (0, 0, "RELEASE 6|", "ENOENT|"),
        (0, 0, "RELEASE 5|", "!@releaseDomain|out| !@releaseDomain/5|each| OK|"),
        (1, 0, "hear", "!@releaseDomain/5|five|"),
        (0, 0, "IS_INTRODUCED 5|", "F|"),
    ]);
    let five = DomainId(5);
    let expected = [Call::Introduce(DomainId(99), Port(1)), Call::Introduce(five, Port(11)), Call::Release(five)];
    assert_eq!(scene.host.calls, expected);
}

#[test]
fn a_domain_shuts_down_once_until_it_is_resumed() {
    let mut scene = Scene::new(Quotas::default());
    scene.table(&[(0, 0, "WATCH @releaseDomain|t|", "OK| !@releaseDomain|t|")]);
    scene.store.handle_domain_shutdown(DomainId(1));
    scene.store.handle_domain_shutdown(DomainId(1));
    assert_eq!(scene.hear(0), "!@releaseDomain|t|");
    scene.table(&[(0, 0, "RESUME 1|", "OK|"), (0, 0, "RESUME 0|", "EINVAL|"), (0, 0, "RESUME 6|", "ENOENT|")]);
    scene.store.handle_domain_shutdown(DomainId(1));
    assert_eq!(scene.hear(0), "!@releaseDomain|t|");
}

#[test]
fn what_a_domain_leaves_behind_is_removed() {
    let mut scene = Scene::new(Quotas::default());
    scene.table(&[
        (0, 0, "MKDIR /d/1|", "OK|"),
        (0, 0, "SET_PERMS /d/1|n1|r2|", "OK|"),
        (1, 0, "MKDIR /d/1/x/y|", "OK|"),
        (0, 0, "MKDIR /d/1/x/y/of0|", "OK|"),
        (0, 0, "MKDIR /d/shared|", "OK|"),
        (0, 0, "SET_PERMS /d/shared|n0|r1|w2|", "OK|"),
        (0, 0, "WATCH /d|t|", "OK| !/d|t|"),
    ]);
    scene.host.domains.remove(&DomainId(1));
    scene.store.handle_domain_gone(DomainId(1), &mut scene.host);
    assert_eq!(scene.store.check(), Ok(()));
    scene.table(&[
        (0, 0, "hear", "!/d/1|t|"),
        (0, 0, "DIRECTORY /d|", "shared|"),
        (0, 0, "GET_PERMS /d/shared|", "n0|w2|"),
        (0, 0, "SET_PERMS /d/shared|n0|r1|", "!/d/shared|t| OK|"),
        (0, 0, "GET_PERMS /d/shared|", "n0|r1|"),
    ]);
    // A new domain of that number is not meant by what was set before.
    scene.host.domains.insert(DomainId(1), 900);
    scene.table(&[(0, 0, "INTRODUCE 1|0|3|", "OK|"), (1, 0, "READ /d/shared|", "EACCES|")]);
    assert_eq!(scene.store.usage(DomainId(1)).nodes, 0);
}

#[test]
fn long_directories() {
    let mut scene = Scene::new(Quotas::default());
    for number in 0..1000 {
        assert_eq!(scene.ask(0, 0, &format!("MKDIR /d/{number:05}|")), "OK|");
    }
    assert_eq!(scene.ask(0, 0, "DIRECTORY /d|"), "E2BIG|");
    let mut names = String::new();
    loop {
        let part = scene.ask(0, 0, &format!("DIRECTORY_PART /d|{}|", names.len()));
        let (_, part) = part.split_once('|').expect("a generation");
        if let Some(end) = part.strip_suffix("||") {
            names += &format!("{end}|");
            break;
        }
        names += part;
    }
    let expected: String = (0..1000).map(|number| format!("{number:05}|")).collect();
    assert_eq!(names, expected);
    assert!(scene.ask(0, 0, "DIRECTORY_PART /d|6000|").ends_with("||"));
    // A part may fill a message to its last byte: the generation, the names, and the end.
    let generation = scene.ask(0, 0, "DIRECTORY_PART /d|6000|").len() - 2;
    let room = 4096 - generation - 2;
    for (name, length) in [("a", room / 2), ("b", room - room / 2)] {
        assert_eq!(scene.ask(0, 0, &format!("MKDIR /e/{}|", name.repeat(length - 1))), "OK|");
    }
    let part = scene.ask(0, 0, "DIRECTORY_PART /e|0|");
    assert_eq!((part.len(), part.ends_with("||")), (4096, true));
    assert_eq!(scene.ask(0, 0, "DIRECTORY_PART /d|"), "EINVAL|");
    assert_eq!(scene.ask(0, 0, "DIRECTORY_PART /none|0|"), "ENOENT|");
}

#[test]
fn quotas_hold() {
    let mut quotas = Quotas::default();
    quotas.set_hard(Resource::Nodes, 3);
    quotas.set_hard(Resource::Watches, 2);
    quotas.set_hard(Resource::Transactions, 1);
    quotas.set_hard(Resource::NodeSize, 100);
    quotas.set_hard(Resource::TransactionNodes, 2);
    let mut scene = Scene::new(quotas);
    scene.table(&[
        (0, 0, "MKDIR /d|", "OK|"),
        (0, 0, "SET_PERMS /d|b0|", "OK|"),
        (1, 0, "MKDIR /d/1/2|", "OK|"),
        (1, 0, "MKDIR /d/3/4|", "ENOSPC|"),
        (1, 0, "MKDIR /d/3|", "OK|"),
        (1, 0, "MKDIR /d/4|", "ENOSPC|"),
        (1, 0, "RM /d/1|", "OK|"),
        (1, 0, "MKDIR /d/4|", "OK|"),
        (1, 0, &format!("WRITE /d/4|{}", "x".repeat(77)), "ENOSPC|"),
        (1, 0, &format!("WRITE /d/4|{}", "x".repeat(76)), "OK|"),
        (1, 0, "WATCH /a|t|", "OK| !/a|t|"),
        (1, 0, "WATCH /b|t|", "OK| !/b|t|"),
        (1, 0, "WATCH /c|t|", "E2BIG|"),
        (1, 0, "START |", "1|"),
        (1, 0, "START |", "ENOSPC|"),
        (1, 1, "READ /d/3|", ""),
        (1, 1, "READ /d/4|", &"x".repeat(76)),
        (1, 1, "READ /d|", "ENOSPC|"),
        (1, 1, "END T|", "ENOMEM|"),
        // A domain's own quota, and none.
        (0, 0, "SET_QUOTA 1|nodes|5|", "OK|"),
        (0, 0, "GET_QUOTA 1|nodes|", "5|"),
        (0, 0, "GET_QUOTA 2|nodes|", "3|"),
        (1, 0, "MKDIR /d/5/6|", "OK|"),
        (1, 0, "MKDIR /d/7/8|", "ENOSPC|"),
        (0, 0, "SET_QUOTA nodes|0|", "OK|"),
        (2, 0, "MKDIR /d/1/2/3/4/5/6|", "OK|"),
        (0, 0, "GET_QUOTA nodes|", "0|"),
        (0, 0, "GET_QUOTA soft-memory|", "2097152|"),
        (0, 0, "GET_QUOTA soft-nodes|", "EINVAL|"),
        (0, 0, "GET_QUOTA what|", "EINVAL|"),
        (0, 0, "SET_QUOTA what|1|", "EINVAL|"),
        (
            0,
            0,
            "GET_QUOTA",
            "nodes watches outstanding memory soft-memory transactions transaction-nodes node-permissions path-max node-size|",
        ),
    ]);
}

/// What a transaction removes makes room for what it makes, and its domain has after the commit what there is.
#[test]
fn a_transaction_may_exchange_nodes_at_the_quota() {
    let mut quotas = Quotas::default();
    quotas.set_hard(Resource::Nodes, 3);
    let mut scene = Scene::new(quotas);
    scene.table(&[
        (0, 0, "MKDIR /d|", "OK|"),
        (0, 0, "SET_PERMS /d|b0|", "OK|"),
        (1, 0, "MKDIR /d/1/2|", "OK|"),
        (1, 0, "MKDIR /d/3|", "OK|"),
        (1, 0, "START |", "1|"),
        (1, 1, "MKDIR /d/4|", "ENOSPC|"),
        (1, 1, "RM /d/1|", "OK|"),
        (1, 1, "MKDIR /d/4|", "OK|"),
        (1, 1, "MKDIR /d/4/5|", "OK|"),
        (1, 1, "MKDIR /d/6|", "ENOSPC|"),
        (1, 1, "END T|", "OK|"),
    ]);
    assert_eq!(scene.store.usage(DomainId(1)).nodes, 3);
    scene.table(&[(1, 0, "START |", "2|"), (1, 2, "RM /d/4|", "OK|"), (1, 2, "END T|", "OK|")]);
    assert_eq!(scene.store.usage(DomainId(1)).nodes, 1);
}

/// Nodes that its domain made meanwhile count when a transaction commits.
#[test]
fn a_commit_is_held_against_the_quota_of_nodes() {
    let mut quotas = Quotas::default();
    quotas.set_hard(Resource::Nodes, 3);
    let mut scene = Scene::new(quotas);
    scene.table(&[
        (0, 0, "MKDIR /d|", "OK|"),
        (0, 0, "SET_PERMS /d|b0|", "OK|"),
        (0, 0, "MKDIR /e|", "OK|"),
        (0, 0, "SET_PERMS /e|b0|", "OK|"),
        (1, 0, "MKDIR /d/1|", "OK|"),
        (1, 0, "START |", "1|"),
        (1, 1, "MKDIR /e/2/3|", "OK|"),
        (1, 0, "MKDIR /d/4|", "OK|"),
        (1, 1, "END T|", "ENOSPC|"),
    ]);
    assert_eq!(scene.store.usage(DomainId(1)).nodes, 2);
}

/// Where there is no quota, a backend has none either.
#[test]
fn devices_bring_no_quota_where_there_is_none() {
    let mut scene = Scene::new(Quotas::default());
    scene.table(&[
        (0, 0, "SET_QUOTA nodes|0|", "OK|"),
        (0, 0, "MKDIR /local/domain/1/backend/vif/2/0|", "OK|"),
        (0, 0, "SET_PERMS /local/domain/1/backend/vif/2/0|n1|r2|", "OK|"),
    ]);
    for number in 0..200 {
        assert_eq!(scene.ask(1, 0, &format!("MKDIR /local/domain/1/backend/vif/2/0/{number}|")), "OK|", "{number}");
    }
}

#[test]
fn control() {
    let mut scene = Scene::new(Quotas::default());
    scene.table(&[
        (0, 0, "CONTROL check|", "OK|"),
        (0, 0, "CONTROL check|x|", "EINVAL|"),
        (0, 0, "CONTROL log|", "Log switch settings:\nio      : off\n|"),
        (0, 0, "CONTROL log|on|", "OK|"),
        (0, 0, "CONTROL log|-what|", "EINVAL|"),
        (0, 0, "CONTROL print|hello|", "OK|"),
        (0, 0, "CONTROL quota|set|nodes|77|", "OK|"),
        (0, 0, "CONTROL quota|set|nodes|0|", "EINVAL|"),
        (0, 0, "CONTROL quota|99|", "ENOENT|"),
        (0, 0, "CONTROL quota-soft|set|memory|77|", "OK|"),
        (0, 0, "CONTROL quota-soft|set|nodes|77|", "EINVAL|"),
        (0, 0, "CONTROL echo|a|b|c|d|e|", "a|b|c|d|e||"),
        (0, 0, "CONTROL what|", "EINVAL|"),
        (0, 0, "CONTROL ", "EINVAL|"),
    ]);
    for (command, part) in [
        ("quota|", "nodes            :       77 Nodes per domain\n"),
        ("quota|0|", "nodes            :        5 (max        5)\n"),
        ("quota|max|", "watches          :        0\n"),
        ("quota|max|-r|", "Max. seen accounting values:\n"),
        ("quota-soft|", "memory           :       77 "),
        ("memreport|", "connections      :        4\n"),
        ("help|", "quota-soft      [set <name> <val>]\n"),
    ] {
        let answer = scene.ask(0, 0, &format!("CONTROL {command}"));
        assert!(answer.contains(part), "{command} answers {answer}");
    }
}
