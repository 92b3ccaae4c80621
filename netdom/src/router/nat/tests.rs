//! The translation, against what it has to keep. Floor 3.

use super::*;
use alloc::collections::BTreeMap;
use proptest::prelude::*;

fn at(seconds: u64) -> Instant {
    Instant::default() + Duration::from_secs(seconds)
}

fn inside(owner: u16, port: u16) -> Inside {
    Inside {
        owner: PortId(owner),
        endpoint: Endpoint { address: Ipv4Addr::new(10, 0, 0, owner as u8), port },
        resolves: false,
    }
}

fn remote(last: u8, port: u16) -> Endpoint {
    Endpoint { address: Ipv4Addr::new(192, 0, 2, last), port }
}

fn nat(capacity: usize, share: usize, guests: u16, forwardings: Vec<Forwarding>) -> Nat {
    let mut nat = Nat::new(capacity, share, 7, forwardings);
    (1..=guests).for_each(|owner| nat.add(PortId(owner)));
    nat
}

const PLAIN: Flags = Flags { opens: false, ends: false, resets: false };

#[test]
fn one_port_for_a_guests_end_and_none_twice() {
    let mut nat = nat(64, 64, 2, Vec::new());
    let first = nat.leave(inside(1, 5000), Protocol::Udp, remote(1, 53), PLAIN, at(0));
    assert_eq!(first, Some(5000), "its own, where that is free");
    assert_eq!(nat.leave(inside(1, 5000), Protocol::Udp, remote(2, 99), PLAIN, at(0)), first);
    let other = nat.leave(inside(2, 5000), Protocol::Udp, remote(1, 53), PLAIN, at(0)).unwrap();
    assert!(other >= DYNAMIC, "{other}");
    assert_eq!(nat.leave(inside(2, 5000), Protocol::Tcp, remote(1, 53), PLAIN, at(0)), Some(5000));
    assert!(nat.leave(inside(1, 123), Protocol::Udp, remote(1, 123), PLAIN, at(0)).unwrap() >= DYNAMIC);
    let none = |_| None;
    assert_eq!(nat.enter(Protocol::Udp, 5000, remote(2, 99), PLAIN, at(0), none), Some(inside(1, 5000)));
    assert_eq!(nat.enter(Protocol::Udp, other, remote(1, 53), PLAIN, at(0), none), Some(inside(2, 5000)));
    // No session.
    assert_eq!(nat.enter(Protocol::Udp, 5000, remote(2, 98), PLAIN, at(0), none), None);
    assert_eq!(nat.enter(Protocol::Udp, other, remote(2, 99), PLAIN, at(0), none), None);
    nat.remove(PortId(1));
    assert_eq!(nat.enter(Protocol::Udp, 5000, remote(2, 99), PLAIN, at(0), none), None);
    assert_eq!((nat.len(), nat.leave(inside(1, 1), Protocol::Udp, remote(1, 1), PLAIN, at(0))), (2, None));
}

#[test]
fn sessions_end_with_their_time() {
    let none = |_| None;
    for (protocol, seconds) in [(Protocol::Udp, 300), (Protocol::Echo, 60), (Protocol::Tcp, 240)] {
        for (later, known) in [(seconds, true), (seconds + 1, false)] {
            let mut nat = nat(8, 8, 1, Vec::new());
            let port = nat.leave(inside(1, 7000), protocol, remote(1, 1), PLAIN, at(10)).unwrap();
            let found = nat.enter(protocol, port, remote(1, 1), PLAIN, at(10 + later), none);
            assert_eq!(found.is_some(), known, "{protocol:?} {later}");
            assert_eq!(nat.len(), usize::from(known));
        }
    }
    // A connection of TCP that was answered, and one that ended: by one end, by both, by a reset.
    let (fin, rst) = (Flags { ends: true, ..PLAIN }, Flags { resets: true, ..PLAIN });
    for (from_inside, from_outside, long) in
        [(PLAIN, PLAIN, true), (fin, PLAIN, true), (fin, fin, false), (PLAIN, rst, false)]
    {
        let mut nat = nat(8, 8, 1, Vec::new());
        let port = nat.leave(inside(1, 7000), Protocol::Tcp, remote(1, 1), from_inside, at(0)).unwrap();
        // The first packet of a session is none that ends it.
        nat.leave(inside(1, 7000), Protocol::Tcp, remote(1, 1), from_inside, at(0)).unwrap();
        assert!(nat.enter(Protocol::Tcp, port, remote(1, 1), from_outside, at(0), none).is_some());
        let found = nat.enter(Protocol::Tcp, port, remote(1, 1), PLAIN, at(7000), none);
        assert_eq!(found.is_some(), long, "{from_inside:?} {from_outside:?}");
    }
}

#[test]
fn ports_that_are_a_guests_from_the_start() {
    let forwarding =
        Forwarding { protocol: Protocol::Tcp, port: 8080, guest: Ipv4Addr::new(10, 0, 0, 1), guest_port: 80 };
    let mut nat = nat(8, 8, 2, Vec::from([forwarding]));
    let owner_of = |address: Ipv4Addr| Some(PortId(address.octets()[3].into()));
    assert_eq!(nat.enter(Protocol::Udp, 8080, remote(1, 1), PLAIN, at(0), owner_of), None);
    assert_eq!(nat.enter(Protocol::Tcp, 8080, remote(1, 1), PLAIN, at(0), |_| None), None);
    assert_eq!(nat.enter(Protocol::Tcp, 8080, remote(1, 1), PLAIN, at(0), owner_of), Some(inside(1, 80)));
    assert_eq!(nat.leave(inside(1, 80), Protocol::Tcp, remote(1, 1), PLAIN, at(0)), Some(8080));
    // No other guest gets that port.
    assert!(nat.leave(inside(2, 8080), Protocol::Tcp, remote(1, 1), PLAIN, at(0)).unwrap() >= DYNAMIC);
}

#[test]
fn a_guest_pushes_out_its_own() {
    let mut nat = nat(12, 8, 3, Vec::new());
    for port in 0..4 {
        nat.leave(inside(1, 2000 + port), Protocol::Udp, remote(1, 1), PLAIN, at(port.into())).unwrap();
    }
    for port in 0..40 {
        nat.leave(inside(2, 3000 + port), Protocol::Udp, remote(1, 1), PLAIN, at(10)).unwrap();
    }
    assert_eq!((nat.count(PortId(1)), nat.count(PortId(2))), (4, 8));
    // The table is full: one that has none gets one all the same.
    nat.leave(inside(3, 1), Protocol::Udp, remote(1, 1), PLAIN, at(11)).unwrap();
    assert_eq!((nat.count(PortId(3)), nat.len()), (1, 12));
}

proptest! {
    /// Whatever comes, a port stands for one guest's end at a time, and what is answered is what was asked.
    #[test]
    fn as_a_list_of_sessions(
        steps in proptest::collection::vec((1..4_u16, 0..6_u16, 0..3_u8, any::<bool>(), 0..200_u64), 1..200),
        share in 1..6_usize,
    ) {
        let mut nat = nat(8, share, 3, Vec::new());
        let mut known: BTreeMap<u16, Inside> = BTreeMap::new();
        let mut now = 0;
        for (owner, port, end, leaves, seconds) in steps {
            now += seconds;
            let (end, remote) = (inside(owner, 4000 + port), remote(end, 9));
            if leaves {
                let given = nat.leave(end, Protocol::Udp, remote, PLAIN, at(now)).unwrap();
                known.insert(given, end);
                prop_assert_eq!(nat.find_inside(Protocol::Udp, given, remote), Some(end));
                prop_assert_eq!(nat.find_port(end, Protocol::Udp, remote), Some(given));
            } else {
                for (port, end) in &known {
                    let found = nat.enter(Protocol::Udp, *port, remote, PLAIN, at(now), |_| None);
                    prop_assert!(found.is_none_or(|found| found == *end));
                }
            }
            for owner in 1..4 {
                prop_assert!(nat.count(PortId(owner)) <= share);
            }
            let sum: usize = (1..4).map(|owner| nat.count(PortId(owner))).sum();
            prop_assert!(sum == nat.len() && sum <= 8);
            let mappings = nat.by_port.len();
            prop_assert!(mappings == nat.by_inside.len() && mappings <= sum);
            prop_assert_eq!(nat.mappings.len() - nat.free_mappings.len(), mappings);
        }
    }
}

/// Another life goes on with the sessions of the one before: with the same ports, and no others pass.
#[test]
fn sessions_go_over_a_life() {
    let none = |_| None;
    let forwardings = Vec::from([Forwarding {
        protocol: Protocol::Tcp,
        port: 8080,
        guest: Ipv4Addr::new(10, 0, 0, 1),
        guest_port: 80,
    }]);
    let mut before = nat(64, 8, 2, forwardings.clone());
    let first = before.leave(inside(1, 5000), Protocol::Udp, remote(1, 53), PLAIN, at(0)).unwrap();
    before.leave(inside(1, 5000), Protocol::Udp, remote(2, 53), PLAIN, at(1)).unwrap();
    // Another guest's, which has not its own port.
    let other = before.leave(inside(2, 5000), Protocol::Udp, remote(1, 53), PLAIN, at(2)).unwrap();
    let owner_of = |_| Some(PortId(1));
    assert!(before.enter(Protocol::Tcp, 8080, remote(3, 9), PLAIN, at(3), owner_of).is_some());
    let keep = |nat: &Nat, owner| nat.keep(PortId(owner)).map(KeptSession::to_bytes).collect::<Vec<_>>();
    let kept = [keep(&before, 1), keep(&before, 2)];
    assert_eq!(kept.each_ref().map(Vec::len), [3, 1]);
    let mut after = nat(64, 8, 2, forwardings);
    // The guests came in another order, and one had begun to send.
    assert!(after.leave(inside(2, 7000), Protocol::Udp, remote(9, 9), PLAIN, at(10)).is_some());
    for (owner, sessions) in [(2, &kept[1]), (1, &kept[0])] {
        for bytes in sessions {
            let session = KeptSession::from_bytes(*bytes).unwrap();
            assert!(after.restore(PortId(owner), session, at(10)), "{session:?}");
            assert!(!after.restore(PortId(owner), session, at(10)), "it is there");
            assert!(!after.restore(PortId(3 - owner), session, at(10)), "it is another guest's");
        }
    }
    assert_eq!(after.enter(Protocol::Udp, first, remote(2, 53), PLAIN, at(11), none), Some(inside(1, 5000)));
    assert_eq!(after.enter(Protocol::Udp, other, remote(1, 53), PLAIN, at(11), none), Some(inside(2, 5000)));
    assert_eq!(after.enter(Protocol::Udp, other, remote(2, 53), PLAIN, at(11), none), None);
    assert_eq!(after.leave(inside(2, 5000), Protocol::Udp, remote(1, 53), PLAIN, at(11)), Some(other));
    assert_eq!(after.enter(Protocol::Tcp, 8080, remote(3, 9), PLAIN, at(11), none), Some(inside(1, 80)));
    // A port that the command line gave away since is not another guest's; nor has a guest more than its share.
    let stolen = KeptSession { port: 8080, ..KeptSession::from_bytes(kept[1][0]).unwrap() };
    assert!(!after.restore(PortId(2), KeptSession { protocol: Protocol::Tcp, ..stolen }, at(12)));
    for number in 0..20_u16 {
        let end = Endpoint { address: Ipv4Addr::new(10, 0, 0, 1), port: 6000 + number };
        let session = KeptSession { inside: end, port: 6000 + number, ..stolen };
        after.restore(PortId(1), session, at(12));
    }
    assert_eq!(after.count(PortId(1)), 8);
    let mut wrong = kept[0][0];
    wrong[1] = 9;
    assert_eq!((KeptSession::from_bytes(wrong), KeptSession::from_bytes([0; KEPT_BYTES])), (None, None));
}
