//! The client against a scripted store at the other end of the bytes. Floor 1.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::*;
use crate::fakes::Tasks;
use crate::store::{Store, StoreError, Transaction, Watch, transaction};
use crate::xs_wire::{HEADER_BYTES, Kind, MESSAGE_MAX, Message, MessageHeader, Parser};

/// The other end: keeps what came, answers when told.
struct Peer {
    client: Client,
    parser: RefCell<Parser>,
    kicks: Rc<Cell<usize>>,
}

impl Peer {
    fn new() -> Self {
        let kicks = Rc::new(Cell::new(0));
        let counter = kicks.clone();
        Self { client: Client::new(move || counter.set(counter.get() + 1)), parser: RefCell::default(), kicks }
    }

    /// The requests that the client sent.
    fn requests(&self) -> Vec<Message> {
        let mut buffer = [0; MESSAGE_MAX];
        let mut bytes = Vec::new();
        loop {
            let length = self.client.take_message(&mut buffer);
            if length == 0 {
                break;
            }
            assert!(length >= HEADER_BYTES);
            bytes.extend_from_slice(&buffer[..length]);
        }
        let mut input = bytes.as_slice();
        let mut messages = Vec::new();
        while let Some(message) = self.parser.borrow_mut().next(&mut input).unwrap() {
            messages.push(message);
        }
        messages
    }

    /// Whose client takes the connection over from one that had numbers below this.
    fn taking_over(number: u32) -> Self {
        Self { client: Client::taking_over(number, || ()), parser: RefCell::default(), kicks: Rc::default() }
    }

    fn one(&self) -> Message {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:?}");
        requests.remove(0)
    }

    fn send(&self, kind: Kind, request: u32, payload: &[u8]) {
        let header = MessageHeader { kind: kind.0, req_id: request, tx_id: 0, len: payload.len() as u32 };
        let mut bytes = header.as_bytes().to_vec();
        bytes.extend_from_slice(payload);
        for piece in bytes.chunks(5) {
            self.client.handle_bytes(piece);
        }
    }

    fn reply(&self, to: &Message, payload: &[u8]) {
        self.send(Kind(to.header.kind), to.header.req_id, payload);
    }

    fn refuse(&self, to: &Message, error: &[u8]) {
        self.send(Kind::ERROR, to.header.req_id, error);
    }

    fn event(&self, path: &str, token: &str) {
        let payload = format!("{path}\0{token}\0");
        self.send(Kind::WATCH_EVENT, 0, payload.as_bytes());
    }
}

/// Linux' xenbus device has one buffer for each who opened it: the end of a watch, which nobody waits for, and the request that follows are sent one
/// after the other, whatever else comes meanwhile.
#[test]
fn one_at_a_time() {
    let peer = Peer { client: Client::one_at_a_time(|| ()), ..Peer::new() };
    let (client, read) = (peer.client.clone(), slot());
    let mut tasks = Tasks::new();
    tasks.spawn({
        let read = read.clone();
        async move {
            let watch = client.watch("a").await.unwrap();
            drop(watch);
            *read.borrow_mut() = Some(client.read(Transaction::NONE, "b").await);
        }
    });
    tasks.run_until_stalled();
    let watch = peer.one();
    assert_eq!(Kind(watch.header.kind), Kind::WATCH);
    peer.reply(&watch, b"OK\0");
    tasks.run_until_stalled();
    let unwatch = peer.one();
    assert_eq!(Kind(unwatch.header.kind), Kind::UNWATCH);
    peer.event("a", "0");
    tasks.run_until_stalled();
    assert!(peer.requests().is_empty(), "the unwatch is not answered");
    peer.reply(&unwatch, b"OK\0");
    let request = peer.one();
    assert_eq!(Kind(request.header.kind), Kind::READ);
    peer.refuse(&request, b"ENOENT\0");
    tasks.run_until_stalled();
    assert_eq!(read.take(), Some(Err(StoreError::NotFound)));
    assert_eq!(peer.client.live(), (0, 0));
}

/// A slot for a task's result.
fn slot<T>() -> Rc<RefCell<Option<T>>> {
    Rc::default()
}

#[test]
fn requests_in_bytes() {
    type Ask = fn(Client) -> core::pin::Pin<alloc::boxed::Box<dyn Future<Output = String>>>;
    /// Who asks, what is sent, what is answered, what comes of it.
    type Case = (Ask, Kind, &'static [u8], &'static [u8], &'static str);
    let cases: [Case; 7] = [
        (
            |c| alloc::boxed::Box::pin(async move { format!("{:?}", c.read(Transaction(9), "a").await) }),
            Kind::READ,
            b"a\0",
            b"v",
            "Ok([118])",
        ),
        (
            |c| alloc::boxed::Box::pin(async move { format!("{:?}", c.write(Transaction(9), "a", b"b\0c").await) }),
            Kind::WRITE,
            b"a\0b\0c",
            b"OK\0",
            "Ok(())",
        ),
        (
            |c| alloc::boxed::Box::pin(async move { format!("{:?}", c.directory(Transaction(9), "a").await) }),
            Kind::DIRECTORY,
            b"a\0",
            b"x\0yz\0",
            r#"Ok(["x", "yz"])"#,
        ),
        (
            |c| alloc::boxed::Box::pin(async move { format!("{:?}", c.remove(Transaction(9), "a").await) }),
            Kind::RM,
            b"a\0",
            b"OK\0",
            "Ok(())",
        ),
        (
            |c| alloc::boxed::Box::pin(async move { format!("{:?}", c.permissions(Transaction(9), "a").await) }),
            Kind::GET_PERMS,
            b"a\0",
            b"n0\0r5\0",
            r#"Ok(["n0", "r5"])"#,
        ),
        (
            |c| {
                alloc::boxed::Box::pin(async move {
                    format!("{:?}", c.set_permissions(Transaction(9), "a", &["n5", "r3"]).await)
                })
            },
            Kind::SET_PERMS,
            b"a\0n5\0r3\0",
            b"OK\0",
            "Ok(())",
        ),
        (
            |c| alloc::boxed::Box::pin(async move { format!("{:?}", c.end(Transaction(9), true).await) }),
            Kind::TRANSACTION_END,
            b"T\0",
            b"OK\0",
            "Ok(())",
        ),
    ];
    for (ask, kind, payload, reply, expected) in cases {
        let peer = Peer::new();
        let result = slot();
        let mut tasks = Tasks::new();
        let (to, asked) = (result.clone(), ask(peer.client.clone()));
        tasks.spawn(async move { *to.borrow_mut() = Some(asked.await) });
        tasks.run_until_stalled();
        assert_eq!(peer.kicks.get(), 1);
        let request = peer.one();
        assert_eq!((request.header.kind, request.header.tx_id), (kind.0, 9));
        assert_eq!(request.payload, payload);
        peer.reply(&request, reply);
        tasks.run_until_stalled();
        assert_eq!(result.borrow().as_deref(), Some(expected));
        assert_eq!(peer.client.live(), (0, 0));
    }
}

#[test]
fn replies_find_their_requests_in_any_order() {
    let peer = Peer::new();
    let mut tasks = Tasks::new();
    let results: Vec<_> = (0..3).map(|_| slot()).collect();
    for (index, result) in results.iter().enumerate() {
        let (client, result) = (peer.client.clone(), result.clone());
        tasks.spawn(async move {
            let value = client.read(Transaction::NONE, &index.to_string()).await;
            *result.borrow_mut() = Some(value);
        });
    }
    tasks.run_until_stalled();
    let requests = peer.requests();
    peer.refuse(&requests[2], b"ENOENT\0");
    peer.reply(&requests[0], b"zero");
    // A reply of another kind than asked.
    peer.send(Kind::WRITE, requests[1].header.req_id, b"OK\0");
    // And some that nobody asked for.
    peer.send(Kind::READ, 999, b"x");
    peer.send(Kind::READ, requests[0].header.req_id, b"again");
    tasks.run_until_stalled();
    let results: Vec<_> = results.iter().map(|result| result.take().unwrap()).collect();
    assert_eq!(results, [Ok(b"zero".to_vec()), Err(StoreError::Malformed), Err(StoreError::NotFound)]);
}

#[test]
fn dropped_midway() {
    let peer = Peer::new();
    let mut tasks = Tasks::new();
    let client = peer.client.clone();
    tasks.spawn(async move { drop(client.read(Transaction::NONE, "slow").await) });
    tasks.run_until_stalled();
    let slow = peer.one();
    drop(tasks);
    let mut tasks = Tasks::new();
    let (client, result) = (peer.client.clone(), slot());
    let to = result.clone();
    tasks.spawn(async move { *to.borrow_mut() = Some(client.read(Transaction::NONE, "b").await) });
    tasks.run_until_stalled();
    let request = peer.one();
    peer.reply(&slow, b"late");
    tasks.run_until_stalled();
    assert_eq!(*result.borrow(), None, "the late reply is not ours");
    peer.reply(&request, b"right");
    tasks.run_until_stalled();
    assert_eq!(*result.borrow(), Some(Ok(b"right".to_vec())));
    assert_eq!(peer.client.live(), (0, 0));
}

#[test]
fn a_transaction_nobody_waits_for_is_ended() {
    // Before its id is known, and after, with the reply read or not.
    for replied_first in [false, true] {
        let peer = Peer::new();
        let mut tasks = Tasks::new();
        let client = peer.client.clone();
        tasks.spawn(async move {
            let _ = client.start().await;
        });
        tasks.run_until_stalled();
        let start = peer.one();
        if replied_first {
            peer.reply(&start, b"17\0");
        }
        drop(tasks);
        if !replied_first {
            peer.reply(&start, b"17\0");
        }
        let end = peer.one();
        assert_eq!(end.header.kind, Kind::TRANSACTION_END.0);
        assert_eq!((end.header.tx_id, end.payload.as_slice()), (17, b"F\0".as_slice()));
        peer.reply(&end, b"OK\0");
        assert_eq!(peer.client.live(), (0, 0));
    }
}

#[test]
fn transactions_are_tried_again() {
    let peer = Peer::new();
    let mut tasks = Tasks::new();
    let (client, tries) = (peer.client.clone(), Rc::new(Cell::new(0)));
    let counter = tries.clone();
    tasks.spawn(async move {
        let done = transaction(&client, async |id| {
            counter.set(counter.get() + 1);
            client.write(id, "a", b"b").await
        });
        assert_eq!(done.await, Ok(()));
    });
    let mut answered = 0;
    for round in 0..20 {
        tasks.run_until_stalled();
        for request in peer.requests() {
            answered += 1;
            match Kind(request.header.kind) {
                Kind::TRANSACTION_START => peer.reply(&request, format!("{}\0", round + 1).as_bytes()),
                Kind::TRANSACTION_END if answered < 7 => peer.refuse(&request, b"EAGAIN\0"),
                _ => peer.reply(&request, b"OK\0"),
            }
        }
    }
    assert!(tasks.is_empty());
    assert_eq!((answered, tries.get()), (9, 3));
    assert_eq!(peer.client.live(), (0, 0));
}

#[test]
fn a_transaction_dropped_midway_is_aborted() {
    let peer = Peer::new();
    let mut tasks = Tasks::new();
    let client = peer.client.clone();
    tasks.spawn(async move {
        let _ = transaction(&client, async |id| client.read(id, "a").await).await;
    });
    tasks.run_until_stalled();
    peer.reply(&peer.one(), b"4\0");
    tasks.run_until_stalled();
    let read = peer.one();
    drop(tasks);
    let end = peer.one();
    assert_eq!((end.header.kind, end.header.tx_id), (Kind::TRANSACTION_END.0, 4));
    assert_eq!(end.payload, b"F\0");
    peer.reply(&read, b"x");
    peer.reply(&end, b"OK\0");
    assert_eq!(peer.client.live(), (0, 0));
}

#[test]
fn large_directories_come_in_parts() {
    let peer = Peer::new();
    let mut tasks = Tasks::new();
    let (client, result) = (peer.client.clone(), slot());
    let to = result.clone();
    tasks.spawn(async move { *to.borrow_mut() = Some(client.directory(Transaction::NONE, "d").await) });
    tasks.run_until_stalled();
    peer.refuse(&peer.one(), b"E2BIG\0");
    // The node changes after the first part.
    for (offset, reply) in [
        (b"d\x000\0".as_slice(), b"7\0one\0two\0".as_slice()),
        (b"d\x008\0", b"8\0three\0\0"),
        (b"d\x000\0", b"8\0one\0\x32\0"),
        (b"d\x006\0", b"8\0three\0\0"),
    ] {
        tasks.run_until_stalled();
        let request = peer.one();
        assert_eq!(request.header.kind, Kind::DIRECTORY_PART.0);
        assert_eq!(request.payload, offset);
        peer.reply(&request, reply);
    }
    tasks.run_until_stalled();
    let names = ["one", "2", "three"].map(String::from).to_vec();
    assert_eq!(*result.borrow(), Some(Ok(names)));
}

/// `E2BIG` says two things: a quota, which may have room later, and a length, which never fits.
#[test]
fn too_many_is_told_from_too_long() {
    let peer = Peer::new();
    let mut tasks = Tasks::new();
    let (client, watched, read) = (peer.client.clone(), slot(), slot());
    let (to_watched, to_read) = (watched.clone(), read.clone());
    tasks.spawn(async move {
        *to_watched.borrow_mut() = client.watch("a").await.err();
        *to_read.borrow_mut() = client.read(Transaction::NONE, "a").await.err();
        let long = vec![0; 5000];
        assert_eq!(client.write(Transaction::NONE, "a", &long).await, Err(StoreError::TooLong));
    });
    for _ in 0..2 {
        tasks.run_until_stalled();
        peer.refuse(&peer.one(), b"E2BIG\0");
    }
    tasks.run_until_stalled();
    assert!(tasks.is_empty());
    assert_eq!((*watched.borrow(), *read.borrow()), (Some(StoreError::Quota), Some(StoreError::TooLong)));
    assert!(StoreError::Quota.is_transient() && !StoreError::TooLong.is_transient());
}

#[test]
fn watches() {
    let peer = Peer::new();
    let mut tasks = Tasks::new();
    let (client, heard) = (peer.client.clone(), Rc::new(RefCell::new(Vec::new())));
    let to = heard.clone();
    tasks.spawn(async move {
        let mut watch = client.watch("backend/vif").await.unwrap();
        for _ in 0..3 {
            let path = watch.next().await;
            to.borrow_mut().push(path);
        }
    });
    tasks.run_until_stalled();
    let request = peer.one();
    assert_eq!(request.payload, b"backend/vif\x000\0");
    // The first event may come before the reply.
    peer.event("backend/vif", "0");
    peer.event("backend/vif/3", "0");
    peer.event("backend/vif/3", "0");
    peer.event("elsewhere", "7");
    peer.event("elsewhere", "nonsense");
    peer.reply(&request, b"OK\0");
    tasks.run_until_stalled();
    assert_eq!(*heard.borrow(), ["backend/vif", "backend/vif/3"], "merged");
    peer.event("backend/vif/4", "0");
    tasks.run_until_stalled();
    assert!(tasks.is_empty());
    // Dropped: the store is told, and what it still sends finds nobody.
    let unwatch = peer.one();
    assert_eq!(unwatch.header.kind, Kind::UNWATCH.0);
    assert_eq!(unwatch.payload, request.payload);
    peer.event("backend/vif/5", "0");
    peer.reply(&unwatch, b"OK\0");
    assert_eq!(peer.client.live(), (0, 0));
}

#[test]
fn a_watch_dropped_before_it_is_one() {
    let peer = Peer::new();
    let mut tasks = Tasks::new();
    let client = peer.client.clone();
    tasks.spawn(async move { drop(client.watch("a").await) });
    tasks.run_until_stalled();
    drop(tasks);
    let requests = peer.requests();
    let kinds: Vec<_> = requests.iter().map(|request| Kind(request.header.kind)).collect();
    assert_eq!(kinds, [Kind::WATCH, Kind::UNWATCH]);
    for request in &requests {
        peer.reply(request, b"OK\0");
    }
    assert_eq!(peer.client.live(), (0, 0));
}

#[test]
fn a_flood_of_events_folds() {
    let peer = Peer::new();
    let mut tasks = Tasks::new();
    let (client, heard) = (peer.client.clone(), Rc::new(RefCell::new(Vec::new())));
    let to = heard.clone();
    tasks.spawn(async move {
        let mut watch = client.watch("top").await.unwrap();
        loop {
            let path = watch.next().await;
            to.borrow_mut().push(path);
        }
    });
    tasks.run_until_stalled();
    peer.reply(&peer.one(), b"OK\0");
    for number in 0..10_000 {
        peer.event(&format!("top/a-rather-long-name-of-a-node-{number}"), "0");
    }
    tasks.run_until_stalled();
    let heard = heard.borrow();
    assert!(heard.len() < 400, "bounded");
    assert_eq!(heard.first().map(String::as_str), Some("top"), "stands for all");
}

#[test]
fn the_end_of_a_connection() {
    let peer = Peer::new();
    let mut tasks = Tasks::new();
    let (client, result) = (peer.client.clone(), slot());
    let to = result.clone();
    tasks.spawn(async move {
        let first = client.read(Transaction::NONE, "a").await;
        let second = client.read(Transaction::NONE, "a").await;
        *to.borrow_mut() = Some((first, second));
    });
    tasks.run_until_stalled();
    // A payload longer than the protocol allows: what follows cannot be understood.
    let mut header = vec![0; 12];
    header.extend(5000_u32.to_le_bytes());
    peer.client.handle_bytes(&header);
    tasks.run_until_stalled();
    let closed = Err(StoreError::Closed);
    assert_eq!(*result.borrow(), Some((closed.clone(), closed)));
}

proptest! {
    #[test]
    fn any_bytes_from_the_store(bytes in proptest::collection::vec(any::<u8>(), 0..500), kinds in proptest::collection::vec((0_u32..24, 0_u32..4, proptest::collection::vec(0_u8..60, 0..40)), 0..20)) {
        let peer = Peer::new();
        let mut tasks = Tasks::new();
        for _ in 0..3 {
            let client = peer.client.clone();
            tasks.spawn(async move {
                let _ = transaction(&client, async |id| client.directory(id, "a").await).await;
                if let Ok(mut watch) = client.watch("a").await {
                    watch.next().await;
                }
            });
        }
        for (kind, id, payload) in kinds {
            tasks.run_until_stalled();
            peer.send(Kind(kind), id, &payload);
        }
        peer.client.handle_bytes(&bytes);
        tasks.run_until_stalled();
        drop(tasks);
        peer.client.close();
        prop_assert_eq!(peer.client.live(), (0, 0));
    }
}

/// What an earlier client asked and watched is nothing to this one, which has the store forget it first.
#[test]
fn a_connection_is_taken_over() {
    let peer = Peer::taking_over(1 << 20);
    let reset = peer.one();
    assert_eq!(Kind(reset.header.kind), Kind::RESET_WATCHES);
    let mut tasks = Tasks::new();
    let (answer, event) = (Rc::new(RefCell::new(None)), Rc::new(RefCell::new(None)));
    tasks.spawn({
        let (client, answer, event) = (peer.client.clone(), answer.clone(), event.clone());
        async move {
            let mut watch = client.watch("data").await.unwrap();
            *event.borrow_mut() = Some(watch.next().await);
            *answer.borrow_mut() = Some(client.read(Transaction::NONE, "data/a").await);
        }
    });
    tasks.run_until_stalled();
    let watch = peer.one();
    let token = crate::xs_wire::strings(&watch.payload).nth(1).unwrap().to_vec();
    assert_ne!(token, b"0");
    // Of the earlier one, on their way: an answer and an event.
    peer.send(Kind::READ, 3, b"old");
    peer.send(Kind::WATCH_EVENT, 0, b"data/old\x000\0");
    peer.send(Kind::RESET_WATCHES, reset.header.req_id, b"OK\0");
    peer.send(Kind::WATCH, watch.header.req_id, b"OK\0");
    tasks.run_until_stalled();
    assert!(event.borrow().is_none());
    peer.send(Kind::WATCH_EVENT, 0, &[b"data/new\0", &token[..], b"\0"].concat());
    tasks.run_until_stalled();
    assert_eq!(event.borrow().as_deref(), Some("data/new"));
    peer.send(Kind::READ, peer.one().header.req_id, b"new");
    tasks.run_until_stalled();
    assert_eq!(answer.borrow().clone().unwrap().unwrap(), b"new");
    peer.send(Kind::UNWATCH, peer.one().header.req_id, b"OK\0");
    assert_eq!(peer.client.live(), (0, 0));
}
