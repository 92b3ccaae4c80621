//! The state as bytes: what a store that reads it goes on with, and bytes that are none.

use proptest::prelude::*;
use xen_pv_sys::io::xs_wire::*;
use xen_pv_sys::{DomainId, Port};
use xenstore_lite::fakes::{FakeHost, fetch, request};
use xenstore_lite::{Config, StateError, Store};

fn ask(store: &mut Store, domain: u16, kind: u32, transaction: u32, payload: &[u8]) -> Vec<String> {
    let mut host = FakeHost { domains: (0..4).map(|domain| (DomainId(domain), 7)).collect(), ..FakeHost::default() };
    let id = store.connection(DomainId(domain)).expect("connected");
    let bytes = request(kind, transaction, payload);
    assert_eq!(store.handle_bytes(id, &bytes, &mut host), Ok(bytes.len()));
    fetch(store, id).iter().map(|heard| heard.text()).collect()
}

fn bytes(store: &Store) -> Vec<u8> {
    let mut all = Vec::new();
    store.write_state(&mut |bytes| all.extend_from_slice(bytes));
    all
}

/// A store with something of everything.
fn full() -> Store {
    let mut store = Store::new(Config::default());
    for domain in 0..4 {
        let id = store.connect(DomainId(domain)).expect("not connected yet");
        store.set_port(id, Port(50 + u32::from(domain)));
        store.set_unique(DomainId(domain), 1000 + u64::from(domain));
    }
    for (kind, payload) in [
        (XS_WRITE, b"/a/b\0value\0with\0zeroes".as_slice()),
        (XS_MKDIR, b"/local/domain/1\0"),
        (XS_SET_PERMS, b"/local/domain/1\0n1\0r2\0r77\0"),
        (XS_SET_QUOTA, b"nodes\x00500\0"),
        (XS_SET_QUOTA, b"1\0watches\x005\0"),
        (XS_SET_TARGET, b"2\x001\0"),
    ] {
        assert_eq!(ask(&mut store, 0, kind, 0, payload), ["OK|"]);
    }
    ask(&mut store, 1, XS_WATCH, 0, b"x\0relative\0");
    ask(&mut store, 1, XS_WATCH, 0, b"/\0shallow\x001\0");
    store.disconnect(store.connection(DomainId(3)).expect("connected"));
    store
}

#[test]
fn a_store_goes_on_where_another_ended() {
    let mut old = full();
    // One transaction that can commit, and one that cannot any more.
    ask(&mut old, 1, XS_TRANSACTION_START, 0, b"\0");
    ask(&mut old, 1, XS_TRANSACTION_START, 0, b"\0");
    ask(&mut old, 1, XS_WRITE, 1, b"x/y\0in a transaction");
    ask(&mut old, 0, XS_TRANSACTION_START, 0, b"\0");
    ask(&mut old, 0, XS_READ, 1, b"/a/b\0");
    ask(&mut old, 0, XS_WRITE, 0, b"/a/b\0other");
    ask(&mut old, 1, XS_READ, 2, b"x/none\0");
    // Half a request, and half an answer.
    let one = old.connection(DomainId(1)).expect("connected");
    let two = old.connection(DomainId(2)).expect("connected");
    let mut host = FakeHost::default();
    old.handle_bytes(two, &request(XS_GET_DOMAIN_PATH, 0, b"2\0"), &mut host).expect("taken");
    old.transmitted(two, 5);
    let write = request(XS_WRITE, 0, b"x/z\x001");
    assert_eq!(old.handle_bytes(one, &write[..18], &mut host), Ok(18));
    let rest = (old.waiting(two), old.poll_transmit(two).to_vec());

    let mut new = Store::read_state(&bytes(&old), Config::default()).expect("a state");
    assert_eq!(new.check(), Ok(()));
    assert!(old.connections().eq(new.connections()));
    assert_eq!(new.poll_ready(), Some(two));
    assert_eq!((new.waiting(two), new.poll_transmit(two).to_vec()), rest);
    new.transmitted(two, rest.0);
    assert_eq!(new.handle_bytes(one, &write[18..], &mut host), Ok(write.len() - 18));
    let heard: Vec<String> = fetch(&mut new, one).iter().map(|heard| heard.text()).collect();
    assert_eq!(heard, ["x/z|relative|", "OK|"]);
    assert_eq!(ask(&mut new, 0, XS_TRANSACTION_END, 1, b"T\0"), ["EAGAIN|"]);
    assert_eq!(ask(&mut new, 1, XS_TRANSACTION_END, 2, b"T\0"), ["EAGAIN|"]);
    assert_eq!(ask(&mut new, 0, XS_READ, 0, b"/a/b\0"), ["other"]);
    assert_eq!(ask(&mut new, 0, XS_GET_PERMS, 0, b"/local/domain/1\0"), ["n1|r2|r77|"]);
    assert_eq!(ask(&mut new, 0, XS_GET_QUOTA, 0, b"1\0watches\0"), ["5|"]);
    assert_eq!(ask(&mut new, 0, XS_GET_QUOTA, 0, b"1\0nodes\0"), ["500|"]);
    assert_eq!(ask(&mut new, 2, XS_WRITE, 0, b"/local/domain/1/t\0x"), ["OK|"]);
    assert_eq!(ask(&mut new, 0, XS_IS_DOMAIN_INTRODUCED, 0, b"3\0"), ["T|"]);
    assert_eq!(new.connection(DomainId(3)), None);
}

#[test]
fn a_transaction_commits_in_another_store() {
    let mut old = full();
    ask(&mut old, 1, XS_WRITE, 0, b"gone/below\x001");
    ask(&mut old, 1, XS_TRANSACTION_START, 0, b"\0");
    ask(&mut old, 1, XS_WRITE, 1, b"x/y\0new");
    ask(&mut old, 1, XS_RM, 1, b"gone\0");
    let mut new = Store::read_state(&bytes(&old), Config::default()).expect("a state");
    assert_eq!(ask(&mut new, 1, XS_DIRECTORY, 1, b"x\0"), ["y|"]);
    let heard = ask(&mut new, 1, XS_TRANSACTION_END, 1, b"T\0");
    assert!(heard.contains(&"x/y|relative|".into()) && heard.contains(&"OK|".into()), "{heard:?}");
    assert_eq!(ask(&mut new, 0, XS_DIRECTORY, 0, b"/local/domain/1\0"), ["x|"]);
    assert_eq!(new.check(), Ok(()));
}

/// What a transaction only read is told of with no other bit than that, which images of before would take for a change.
#[test]
fn a_transaction_that_reads_changes_nothing_for_another() {
    const READ: u16 = 1;
    let mut old = full();
    ask(&mut old, 1, XS_TRANSACTION_START, 0, b"\0");
    ask(&mut old, 1, XS_READ, 1, b"/local/domain/1\0");
    ask(&mut old, 1, XS_READ, 1, b"x\0");
    let state = bytes(&old);
    let (all, _) = records(&state);
    let word = |record: &[u8], at: usize| u16::from_le_bytes(record[at..at + 2].try_into().expect("two bytes"));
    let met: Vec<u16> =
        all.iter().filter(|node| word(node, 0) == 5 && word(node, 8) != 0).map(|node| word(node, 20)).collect();
    assert_eq!(met, [READ; 2]);
    let mut new = Store::read_state(&state, Config::default()).expect("a state");
    assert_eq!(ask(&mut new, 1, XS_TRANSACTION_END, 1, b"T\0"), ["OK|"]);
    assert_eq!((new.check(), new.usage(DomainId(1))), (Ok(()), full().usage(DomainId(1))));
}

/// Memory is set aside for the state by its bound: the state never takes more, and where there is much of anything it takes a quarter.
#[test]
fn no_state_is_larger_than_its_bound() {
    let mut store = full();
    for (domain, name) in [(1, "nodes"), (1, "memory"), (2, "watches"), (2, "node-size")] {
        let payload = format!("{domain}\0{name}\x005000\0");
        assert_eq!(ask(&mut store, 0, XS_SET_QUOTA, 0, payload.as_bytes()), ["OK|"]);
    }
    let check = |store: &Store| {
        let (bytes, bound) = (bytes(store).len(), store.state_bound());
        assert!(bytes <= bound && bound <= 4 * bytes + 4096, "{bytes} bytes, the bound is {bound}");
    };
    check(&store);
    for number in 0..500 {
        ask(&mut store, 0, XS_WATCH, 0, format!("/w\0{number}\0").as_bytes());
    }
    check(&store);
    for number in 0..2000 {
        ask(&mut store, 0, XS_WRITE, 0, format!("/n/{number}\0").as_bytes());
    }
    check(&store);
    for number in 0..10 {
        ask(&mut store, 1, XS_TRANSACTION_START, 0, b"\0");
        ask(&mut store, 1, XS_WRITE, number + 1, format!("/local/domain/1/{number}\0value").as_bytes());
        check(&store);
    }
}

#[test]
fn bytes_that_are_no_state() {
    let read = |bytes: &[u8]| Store::read_state(bytes, Config::default()).map(drop);
    let good = bytes(&full());
    assert_eq!(read(&good), Ok(()));
    assert_eq!(read(b"").and(read(b"xenstorf\0\0\0\x02\0\0\0\0")), Err(StateError::Header));
    let big_endian = [b"xenstore\0\0\0\x02\0\0\0\x01", &good[16..]].concat();
    assert_eq!(read(&big_endian), Err(StateError::Header));
    for end in 16..good.len() {
        assert!(matches!(read(&good[..end]), Err(StateError::Record(_))), "cut at {end}");
    }
}

/// The records of a state, and which of them are committed nodes.
fn records(state: &[u8]) -> (Vec<&[u8]>, Vec<usize>) {
    let (mut all, mut nodes, mut rest) = (Vec::new(), Vec::new(), &state[16..]);
    while !rest.is_empty() {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().expect("four bytes"));
        let (record, behind) = rest.split_at(8 + word(4) as usize);
        if word(0) == 5 && word(8) == 0 {
            nodes.push(all.len());
        }
        all.push(record);
        rest = behind;
    }
    (all, nodes)
}

#[test]
fn nodes_that_come_twice_or_without_the_one_above() {
    let good = bytes(&full());
    let (all, nodes) = records(&good);
    let read =
        |records: &[&[u8]]| Store::read_state(&[&good[..16], &records.concat()].concat(), Config::default()).map(drop);
    assert_eq!((read(&all), nodes.len()), (Ok(()), 10));
    for (place, node) in nodes.iter().enumerate() {
        for other in &nodes {
            let mut twice = all.clone();
            twice.insert(other + 1, all[*node]);
            assert!(read(&twice).is_err(), "node {place} comes twice");
        }
        let mut swapped = all.clone();
        swapped.swap(nodes[0], *node);
        assert!(place == 0 || read(&swapped).is_err(), "node {place} changes places with the root");
        let mut missing = all.clone();
        missing.remove(*node);
        // Only /a/b, /local/domain/1 and /tool/xenstored can be left out.
        let text = all[*node].escape_ascii().to_string();
        let is_leaf = ["/a/b", "/domain/1", "/xenstored"].iter().any(|leaf| text.contains(leaf));
        assert_eq!(read(&missing).is_ok(), is_leaf, "without {text}");
    }
}

proptest! {
    #[test]
    fn any_bytes_end_in_a_store_that_holds_together(
        changes in prop::collection::vec((16..4000_usize, any::<u8>()), 1..8)
    ) {
        let mut state = bytes(&full());
        for (at, byte) in changes {
            if let Some(place) = state.get_mut(at) {
                *place = byte;
            }
        }
        if let Ok(store) = Store::read_state(&state, Config::default()) {
            prop_assert_eq!(store.check(), Ok(()));
        }
    }
}
