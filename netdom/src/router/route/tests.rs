//! What the router passes of IPv4 by RFC 1812, and of what it tells the sender. Floor 3.

use crate::offload::headers::{put, read_u16};
use crate::router::ipv4::{Change, adjust};
use crate::router::tests::*;
use crate::router::{Frame, Routed, Router, Verdict, gateway_for, mac_of};
use crate::statistics::DropCause;
use crate::switch::PortId;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

const LOST: Verdict = Verdict::Drop(DropCause::NotRouted);
const ROUTED: (PortId, Ipv4Addr) = (PortId(6), Ipv4Addr::new(10, 0, 0, 77));

/// With a guest whose address is known outside, too.
fn routers() -> Router {
    let mut router = router();
    introduce(&mut router);
    let guest =
        Routed { mac: OTHER_MAC, addresses: Vec::from([ROUTED.1]), translated: false, addresses_v6: Vec::new() };
    router.add_guest(ROUTED.0, guest).expect("no other has its address");
    router
}

fn set_hops(frame: &mut [u8], hops: u8) {
    let mut change = Change::default();
    let [old, new] = [read_u16(frame, 22).unwrap(), u16::from(hops) << 8 | u16::from(frame[23])];
    change.word(old, new);
    put(frame, 22, &new.to_be_bytes());
    adjust(frame, 24, change);
}

/// A datagram of a guest.
fn of_guest(destination: Ipv4Addr) -> Vec<u8> {
    let inner = mac_of(gateway_for(GUEST).address);
    ipv4(inner, GUEST_MAC, 17, GUEST, destination, &transport(17, (GUEST, 9), (destination, 9), 0))
}

/// What the router tells of a frame: the type and code of an ICMP error.
fn told(router: &mut Router) -> Option<(u8, u8)> {
    router.take_answer().map(|(_, bytes)| (bytes[34], bytes[35]))
}

#[test]
fn no_error_is_about_a_fragment_behind_the_first_one() {
    let mut router = routers();
    for (word, expected) in [(MORE, Some((11, 0))), (MORE | 3, None), (3, None)] {
        let mut frame = of_guest(FAR);
        set_fragment(&mut frame, 5, word);
        set_hops(&mut frame, 1);
        assert_eq!(handle(&mut router, ONE, &mut frame, 1), LOST);
        assert_eq!(told(&mut router), expected, "{word:04x}");
    }
}

/// Nothing passes to or from addresses that are no station's.
#[test]
fn martians_do_not_pass() {
    let mut router = routers();
    let numbers = [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [240, 0, 0, 1]];
    for destination in numbers.map(Ipv4Addr::from) {
        for hops in [64, 1] {
            let mut frame = of_guest(destination);
            set_hops(&mut frame, hops);
            assert_eq!(handle(&mut router, ONE, &mut frame, 1), LOST, "{destination}");
            assert_eq!((told(&mut router), router.sessions()), (None, Some(0)));
        }
    }
    let others = [[224, 0, 0, 1], [255, 255, 255, 255], OWN.octets(), [10, 0, 0, 0], [10, 0, 0, 255]];
    for source in numbers.into_iter().chain(others).map(Ipv4Addr::from) {
        for (target, hops) in [(ROUTED.1, 64), (ROUTED.1, 1), (OWN, 64)] {
            let segment = transport(6, (source, 999), (target, 8080), 2);
            let mut frame = ipv4(mac_of(OWN), GATEWAY_MAC, 6, source, target, &segment);
            set_hops(&mut frame, hops);
            assert_eq!(router.foresee(UPLINK, &frame, Default::default()), None);
            assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), LOST, "{source}");
            assert_eq!((told(&mut router), router.sessions()), (None, Some(0)));
        }
    }
}

/// Packets for all stations of the way out end at the router, and nobody is told (RFC 2644; RFC 1812, 4.3.2.7).
#[test]
fn broadcasts_for_the_way_out_do_not_pass() {
    let mut router = routers();
    for last in [0, 255] {
        for hops in [64, 1] {
            let mut frame = of_guest(Ipv4Addr::new(10, 0, 0, last));
            set_hops(&mut frame, hops);
            assert_eq!(handle(&mut router, ONE, &mut frame, 1), LOST);
            assert_eq!(told(&mut router), None);
        }
    }
}

/// A packet for the router needs no hop more.
#[test]
fn the_routers_own_address_is_reached_with_the_last_hop() {
    let mut router = routers();
    let inner = mac_of(gateway_for(GUEST).address);
    let mut frame = ipv4(inner, GUEST_MAC, 1, GUEST, OWN, &echo(8, 5));
    set_hops(&mut frame, 1);
    assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Send(ONE));
    assert_eq!((frame[34], read(&frame).2.0), (0, OWN));
    // What goes on to a guest does.
    let mut frame = ipv4(inner, GUEST_MAC, 6, GUEST, OWN, &transport(6, (GUEST, 6000), (OWN, 8080), 2));
    set_hops(&mut frame, 1);
    assert_eq!(handle(&mut router, ONE, &mut frame, 1), LOST);
    assert_eq!((told(&mut router), router.sessions()), (Some((11, 0)), Some(0)));
}

#[test]
fn a_port_of_a_guest_that_is_not_there_opens_nothing() {
    let mut router = routers();
    router.remove(TWO);
    let inner = mac_of(gateway_for(GUEST).address);
    let mut frame = ipv4(inner, GUEST_MAC, 6, GUEST, OWN, &transport(6, (GUEST, 6000), (OWN, 8080), 2));
    assert_eq!(handle(&mut router, ONE, &mut frame, 1), LOST);
    assert_eq!(router.sessions(), Some(0));
}

/// Segments have their options besides.
#[test]
fn a_super_frame_whose_segments_would_not_fit_is_refused() {
    let mut router = routers();
    let inner = mac_of(gateway_for(GUEST).address);
    for (segment, options, fits) in [(1460, 0, true), (1461, 0, false), (1448, 12, true), (1449, 12, false)] {
        let mut behind = transport(6, (GUEST, 4000), (FAR, 80), 0x10);
        behind.splice(20..20, core::iter::repeat_n(1, options));
        behind[12] = (((20 + options) / 4) << 4) as u8;
        let mut frame = ipv4(inner, GUEST_MAC, 6, GUEST, FAR, &behind);
        set_fragment(&mut frame, 0, 0x4000);
        let told_of = Frame { length: frame.len(), blank: true, segment: Some(segment) };
        let verdict = router.handle(ONE, &mut frame, told_of, at(1));
        assert_eq!(verdict == Verdict::Send(UPLINK), fits, "{segment} and {options}");
        assert_eq!(told(&mut router), (!fits).then_some((3, 4)));
    }
}

/// Errors and later fragments are translated, too.
#[test]
fn what_is_translated_is_counted() {
    let mut router = routers();
    for (word, count) in [(MORE, 1), (3, 2)] {
        let mut frame = of_guest(FAR);
        set_fragment(&mut frame, 5, word);
        assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Send(UPLINK));
        assert_eq!(router.counts().translated, count);
    }
    let mut error = Vec::from([3, 3, 0, 0, 0, 0, 0, 0]);
    let about = ipv4(mac_of(OWN), GATEWAY_MAC, 17, OWN, FAR, &transport(17, (OWN, 9), (FAR, 9), 0));
    error.extend(&about[14..]);
    // The router's port may be another.
    let port = router.nat.as_ref().and_then(|nat| nat.keep(ONE).next()).map(|kept| kept.port).unwrap();
    put(&mut error, 28, &port.to_be_bytes());
    let mut frame = ipv4(mac_of(OWN), GATEWAY_MAC, 1, FAR, OWN, &error);
    assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), Verdict::Send(ONE));
    assert_eq!(router.counts().translated, 3);
}
