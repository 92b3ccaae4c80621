//! The router's IPv6, frame by frame. Floor 3.

use super::super::config::{Network, NetworkV6, Setup, Uplink};
use super::super::{Frame, mac_of};
use super::*;
use crate::offload::checksum::Sum;
use alloc::string::String;
use core::net::Ipv4Addr;
use proptest::prelude::*;

const UPLINK: PortId = PortId(1);
const ONE: PortId = PortId(3);
const TWO: PortId = PortId(4);
/// Behind NAT.
const THREE: PortId = PortId(5);
const OWN_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const OWN: Ipv6Addr = local(5);
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99);
const FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1);
const GUEST: Ipv6Addr = local(7);
const OTHER: Ipv6Addr = local(8);
const HIDDEN: Ipv6Addr = local(9);
const GUEST_MAC: MacAddress = MacAddress([0, 0x16, 0x3e, 0, 0, 1]);
const OTHER_MAC: MacAddress = MacAddress([0, 0x16, 0x3e, 0, 0, 2]);
const HIDDEN_MAC: MacAddress = MacAddress([0, 0x16, 0x3e, 0, 0, 3]);
const GATEWAY_MAC: MacAddress = MacAddress([0, 1, 2, 3, 4, 5]);
const UDP: u8 = 17;

/// An address of the network of the way out.
const fn local(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
}

fn router_with(v6: Option<UplinkV6>) -> Router {
    let network = Network { address: OWN_V4, length: 24 };
    let uplink = Uplink { bridge: String::from("xenbr0"), network: Some(network), gateway: None, v6 };
    let mut router = Router::new(&Setup { uplink: Some(uplink), ..Setup::default() }, 1500, 1);
    router.add_uplink(UPLINK, network, None);
    let guest = |mac, v4: &[Ipv4Addr], v6, translated| Routed {
        mac,
        addresses: v4.into(),
        addresses_v6: Vec::from([v6]),
        translated,
    };
    let address = Ipv4Addr::new(10, 0, 0, 77);
    assert!(router.add_guest(ONE, guest(GUEST_MAC, &[address], GUEST, false)).is_some());
    assert!(router.add_guest(TWO, guest(OTHER_MAC, &[], OTHER, false)).is_some(), "IPv6 alone");
    let hidden = Ipv4Addr::new(192, 168, 7, 2);
    assert!(router.add_guest(THREE, guest(HIDDEN_MAC, &[hidden], HIDDEN, true)).is_some());
    assert!(router.add_guest(PortId(6), guest(OTHER_MAC, &[], OTHER, false)).is_none(), "an address is one guest's");
    assert!(router.add_guest(PortId(6), guest(OTHER_MAC, &[], OTHER, true)).is_none(), "nothing to be translated");
    router
}

fn router() -> Router {
    router_with(Some(UplinkV6 { network: NetworkV6 { address: OWN, length: 64 }, gateway: Some(GATEWAY) }))
}

fn at(seconds: u64) -> Instant {
    Instant::default() + Duration::from_secs(100 + seconds)
}

fn mac_at(router: &Router, port: PortId) -> MacAddress {
    router.interface(port).unwrap().mac
}

/// A packet with these stations, for whatever is behind its header.
fn packet(
    stations: (MacAddress, MacAddress),
    next: u8,
    ends: (Ipv6Addr, Ipv6Addr),
    hops: u8,
    behind: &[u8],
) -> Vec<u8> {
    let length = (behind.len() as u16).to_be_bytes();
    let (to, from) = stations;
    let head = [0x86, 0xdd, 0x60, 0, 0, 0, length[0], length[1], next, hops];
    [&to.0[..], &from.0, &head, &ends.0.octets(), &ends.1.octets(), behind].concat()
}

/// The sum over an ICMPv6 message with its pseudo-header.
fn sum_of(ends: (Ipv6Addr, Ipv6Addr), message: &[u8]) -> u16 {
    let mut sum = Sum::new();
    sum.add(
        &[&ends.0.octets()[..], &ends.1.octets(), &(message.len() as u32).to_be_bytes(), &[0, 0, 0, 58], message]
            .concat(),
    );
    sum.folded()
}

fn icmp(stations: (MacAddress, MacAddress), ends: (Ipv6Addr, Ipv6Addr), hops: u8, message: &[u8]) -> Vec<u8> {
    let mut message = Vec::from(message);
    message[2..4].fill(0);
    let checksum = !sum_of(ends, &message);
    message[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet(stations, 58, ends, hops, &message)
}

fn solicitation(target: Ipv6Addr, options: &[u8]) -> Vec<u8> {
    [&[135, 0, 0, 0, 0, 0, 0, 0][..], &target.octets(), options].concat()
}

fn option(kind: u8, mac: MacAddress) -> Vec<u8> {
    [&[kind, 1][..], &mac.0].concat()
}

fn handle(router: &mut Router, port: PortId, frame: &mut [u8], seconds: u64) -> Verdict {
    let told = Frame { length: frame.len(), blank: false, segment: None };
    router.handle(port, frame, told, at(seconds))
}

/// What a frame of ICMPv6 says: its stations, its ends, its hops, and the message, whose checksum is right.
fn read(frame: &[u8]) -> ((MacAddress, MacAddress), (Ipv6Addr, Ipv6Addr), u8, Vec<u8>) {
    assert_eq!((&frame[12..15], frame[20]), (&[0x86, 0xdd, 0x60][..], 58));
    let address = |place: usize| Ipv6Addr::from_octets(*frame[place..].first_chunk().unwrap());
    let mac = |place: usize| MacAddress(*frame[place..].first_chunk().unwrap());
    let (ends, message) = ((address(22), address(38)), &frame[54..]);
    assert_eq!(usize::from(u16::from_be_bytes([frame[18], frame[19]])), message.len());
    assert_eq!(sum_of(ends, message), 0xffff, "the checksum");
    ((mac(0), mac(6)), ends, frame[21], Vec::from(message))
}

fn answer(router: &mut Router) -> Option<(PortId, Vec<u8>)> {
    router.take_answer().map(|(port, bytes)| (port, Vec::from(bytes)))
}

/// When the router tells guests of itself next, and the one that it tells now.
fn advertised(router: &mut Router, now: Instant) -> (Option<Instant>, Option<(PortId, Vec<u8>)>) {
    let mut all = Vec::new();
    while let Some((port, bytes)) = router.poll(now) {
        all.push((port, Vec::from(bytes)));
    }
    all.retain(|(port, _)| *port != UPLINK);
    assert!(all.len() < 2, "one at a time");
    let due = router.advertises_at();
    assert!(due.is_none_or(|due| router.deadline().is_some_and(|deadline| deadline <= due)), "it is forgotten");
    (due, all.pop())
}

/// Has a station of the way out known.
fn introduce(router: &mut Router, to: Ipv6Addr, next: Ipv6Addr, mac: MacAddress) {
    let stations = (mac_at(router, ONE), GUEST_MAC);
    let mut frame = packet(stations, UDP, (GUEST, to), 64, &[0; 12]);
    assert!(matches!(handle(router, ONE, &mut frame, 0), Verdict::Later(_)));
    let (port, question) = answer(router).expect("a question");
    let ((group, own), (source, solicited), hops, message) = read(&question);
    let [.., a, b, c] = next.octets();
    assert_eq!((port, group, own), (UPLINK, MacAddress([0x33, 0x33, 0xff, a, b, c]), mac_of(OWN_V4)));
    assert_eq!(solicited, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c])));
    assert_eq!((hops, message[0], &message[24..]), (255, 135, &option(1, own)[..]));
    assert_eq!(message[8..24], next.octets());
    let message = [&[136, 0, 0, 0, 0x60, 0, 0, 0][..], &next.octets(), &option(2, mac)].concat();
    let mut frame = icmp((own, mac), (next, source), 255, &message);
    assert_eq!(handle(router, UPLINK, &mut frame, 0), Verdict::Taken);
}

/// As by IPv4, and for both together: 20 ms, and that once a second. Each guest has its own.
#[test]
fn packets_wait_for_a_station() {
    let mut router = router();
    let later = |milliseconds| at(0) + Duration::from_millis(milliseconds);
    let mut send = |port, to: Ipv6Addr, now| {
        let (station, from) = if port == ONE { (GUEST_MAC, GUEST) } else { (OTHER_MAC, OTHER) };
        let before = packet((mac_at(&router, port), station), UDP, (from, to), 64, &[0; 12]);
        let mut frame = before.clone();
        let told = Frame { length: frame.len(), blank: false, segment: None };
        let verdict = router.handle(port, &mut frame, told, later(now));
        assert!(frame == before, "it is to come again as it was");
        (verdict, router.take_answer().is_some())
    };
    assert_eq!(send(ONE, FAR, 0), (Verdict::Later(later(1)), true));
    assert_eq!(send(ONE, FAR, 1), (Verdict::Later(later(2)), false), "it was asked");
    assert_eq!(send(ONE, local(1), 19), (Verdict::Later(later(20)), true));
    assert_eq!(send(ONE, FAR, 20), (LOST, false));
    assert_eq!(send(ONE, local(0x77), 999), (LOST, true));
    assert_eq!(send(TWO, local(0x77), 999), (Verdict::Later(later(1000)), false));
    assert_eq!(send(ONE, FAR, 1000), (Verdict::Later(later(1001)), true));
}

#[test]
fn packets_leave_and_come_back() {
    let mut router = router();
    introduce(&mut router, FAR, GATEWAY, GATEWAY_MAC);
    let near = MacAddress([2; 6]);
    introduce(&mut router, local(1), local(1), near);
    let (inner, outer) = (mac_at(&router, ONE), mac_of(OWN_V4));
    // UDP, what is cut, and options of whatever kind: nothing is looked at.
    for (next, behind) in [(UDP, [7; 30]), (44, [17; 30]), (0, [0xff; 30]), (59, [0; 30])] {
        for (to, station) in [(FAR, GATEWAY_MAC), (local(1), near)] {
            let mut frame = packet((inner, GUEST_MAC), next, (GUEST, to), 64, &behind);
            assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Send(UPLINK));
            assert_eq!(frame, packet((station, outer), next, (GUEST, to), 63, &behind));
            let mut frame = packet((outer, station), next, (to, GUEST), 9, &behind);
            assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), Verdict::Send(ONE));
            assert_eq!(frame, packet((GUEST_MAC, inner), next, (to, GUEST), 8, &behind));
        }
    }
    // From guest to guest.
    let mut frame = packet((inner, GUEST_MAC), UDP, (GUEST, OTHER), 64, &[0; 9]);
    assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Send(TWO));
    assert_eq!(frame, packet((OTHER_MAC, mac_at(&router, TWO)), UDP, (GUEST, OTHER), 63, &[0; 9]));
    assert_eq!(answer(&mut router), None);
    // A guest that is gone.
    router.remove(TWO);
    let mut frame = packet((outer, near), UDP, (FAR, OTHER), 64, &[0; 9]);
    assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), LOST);
}

#[test]
fn nothing_goes_where_it_must_not() {
    let mut router = router();
    introduce(&mut router, FAR, GATEWAY, GATEWAY_MAC);
    let (inner, outer) = (mac_at(&router, ONE), mac_of(OWN_V4));
    let link_local = GUEST_MAC.link_local();
    for (port, source, destination) in [
        // Back to where it came from.
        (ONE, GUEST, GUEST),
        (UPLINK, FAR, local(77)),
        (UPLINK, local(77), FAR),
        // A guest behind NAT has no IPv6.
        (UPLINK, FAR, HIDDEN),
        // What is of a link or of no station.
        (ONE, link_local, FAR),
        (ONE, link_local, OTHER),
        (ONE, GUEST, link_local),
        (ONE, GUEST, GATEWAY),
        (ONE, Ipv6Addr::UNSPECIFIED, FAR),
        (ONE, Ipv6Addr::LOCALHOST, FAR),
        (ONE, GUEST, Ipv6Addr::LOCALHOST),
        (ONE, GUEST, Ipv6Addr::UNSPECIFIED),
        (UPLINK, GATEWAY, GUEST),
        (UPLINK, Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 1), GUEST),
        // For the router itself, and no echo.
        (UPLINK, FAR, OWN),
        (ONE, GUEST, OWN),
    ] {
        let stations = if port == ONE { (inner, GUEST_MAC) } else { (outer, GATEWAY_MAC) };
        let mut frame = packet(stations, UDP, (source, destination), 64, &[0; 9]);
        let before = frame.clone();
        assert_eq!(handle(&mut router, port, &mut frame, 1), LOST, "{source} to {destination}");
        assert_eq!(frame, before);
    }
    // Groups, by Ethernet or by IP.
    let group = Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 1);
    for (to, destination) in [(inner, group), (MacAddress([0x33, 0x33, 0, 0, 0, 1]), FAR), (MacAddress::BROADCAST, FAR)]
    {
        let mut frame = packet((to, GUEST_MAC), UDP, (GUEST, destination), 1, &[0; 9]);
        assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Taken);
        assert_eq!(answer(&mut router), None, "no error");
    }
    // A packet longer than its frame, and another version.
    for (place, byte) in [(19, 10), (14, 0x40)] {
        let mut frame = packet((inner, GUEST_MAC), UDP, (GUEST, FAR), 64, &[0; 9]);
        frame[place] = byte;
        assert_eq!(handle(&mut router, ONE, &mut frame, 1), LOST);
    }
    // The guest behind NAT: nothing, and nothing is said.
    let stations = (mac_at(&router, THREE), HIDDEN_MAC);
    let mut frame = packet(stations, UDP, (HIDDEN, FAR), 1, &[0; 9]);
    assert_eq!(handle(&mut router, THREE, &mut frame, 1), LOST);
    let mut frame = icmp(stations, (HIDDEN, GUEST_GATEWAY), 255, &solicitation(GUEST_GATEWAY, &[]));
    assert_eq!(handle(&mut router, THREE, &mut frame, 1), LOST);
    assert_eq!(answer(&mut router), None);
}

#[test]
fn neighbour_solicitations_are_answered() {
    let mut router = router();
    let none = Ipv6Addr::UNSPECIFIED;
    let uplink_local = mac_of(OWN_V4).link_local();
    for (port, source, target, expected) in [
        // To a guest, all that is not its own is behind the router.
        (ONE, GUEST, GUEST_GATEWAY, Some(true)),
        (ONE, GUEST_MAC.link_local(), GUEST_GATEWAY, Some(true)),
        (ONE, GUEST, OWN, Some(true)),
        (ONE, GUEST, local(1), Some(false)),
        (ONE, GUEST, OTHER, Some(false)),
        (ONE, GUEST, FAR, Some(false)),
        (ONE, GUEST, GUEST, None),
        (ONE, GUEST, GUEST_MAC.link_local(), None),
        (ONE, GUEST, GATEWAY, None),
        (ONE, GUEST, none, None),
        // Whether its addresses are free.
        (ONE, none, GUEST, None),
        (ONE, none, local(1), None),
        (ONE, none, GUEST_MAC.link_local(), None),
        (ONE, none, GUEST_GATEWAY, Some(true)),
        // Outside, its own and the guests'.
        (UPLINK, local(1), OWN, Some(true)),
        (UPLINK, local(1), uplink_local, Some(true)),
        (UPLINK, GATEWAY, GUEST, Some(false)),
        (UPLINK, none, OTHER, Some(false)),
        (UPLINK, local(1), HIDDEN, None),
        (UPLINK, local(1), local(77), None),
        (UPLINK, local(1), GUEST_GATEWAY, None),
    ] {
        let (asker, own) = (if port == ONE { GUEST_MAC } else { GATEWAY_MAC }, mac_at(&router, port));
        let [.., a, b, c] = target.octets();
        let (group, solicited) = (MacAddress([0x33, 0x33, 0xff, a, b, c]), nd::solicited_node(target));
        let options = if source == none { Vec::new() } else { option(1, asker) };
        let mut frame = icmp((group, asker), (source, solicited), 255, &solicitation(target, &options));
        assert_eq!(handle(&mut router, port, &mut frame, 1), Verdict::Taken);
        let said = answer(&mut router);
        let Some(is_own) = expected else {
            assert_eq!(said, None, "{port}: {target} for {source}");
            continue;
        };
        let (to, frame) = said.unwrap_or_else(|| panic!("{port}: {target} for {source}"));
        let (stations, ends, hops, message) = read(&frame);
        let link_local = if port == ONE { GUEST_GATEWAY } else { uplink_local };
        let (mac, address, flags) = match source == none {
            true => (MacAddress([0x33, 0x33, 0, 0, 0, 1]), ALL_NODES, 0x80),
            false => (asker, source, 0xc0),
        };
        assert_eq!((to, stations, ends, hops), (port, (mac, own), (link_local, address), 255));
        let flags = if is_own { flags | 0x20 } else { flags };
        assert_eq!((message[0], message[4], &message[8..24]), (136, flags, &target.octets()[..]));
        assert_eq!(message[24..], option(2, own));
    }
    // Whether a neighbour is still there, which is asked by its address: also one behind the router.
    let mut frame = icmp((mac_of(OWN_V4), GATEWAY_MAC), (local(1), GUEST), 255, &solicitation(GUEST, &[]));
    assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), Verdict::Taken);
    assert!(answer(&mut router).is_some());
}

#[test]
fn wrong_messages_of_neighbour_discovery_are_nothing() {
    let own = mac_of(OWN_V4);
    let (good, stations) = (solicitation(GUEST, &option(1, GATEWAY_MAC)), (own, GATEWAY_MAC));
    let with = |place: usize, byte: u8| {
        let mut message = good.clone();
        message[place] = byte;
        message
    };
    let (source, to) = (local(1), nd::solicited_node(GUEST));
    let none = Ipv6Addr::UNSPECIFIED;
    for (is_right, ends, hops, message) in [
        (true, (source, to), 255, good.clone()),
        (true, (source, GUEST), 255, good.clone()),
        (false, (source, to), 254, good.clone()),
        (false, (source, to), 255, with(1, 1)),
        // An option of length zero, one that goes on behind the end, and half of one.
        (false, (source, to), 255, with(25, 0)),
        (false, (source, to), 255, with(25, 2)),
        (false, (source, to), 255, [&good[..], &[14]].concat()),
        (true, (source, to), 255, [&good[..], &[14, 1, 0, 0, 0, 0, 0, 0]].concat()),
        (false, (source, to), 255, Vec::from(&good[..23])),
        (false, (source, to), 255, with(8, 0xff)),
        // Who has no address says no Ethernet address, and asks the group.
        (false, (none, to), 255, good.clone()),
        (false, (none, GUEST), 255, Vec::from(&good[..24])),
        (true, (none, to), 255, Vec::from(&good[..24])),
        // Of routers alone.
        (false, (source, to), 255, with(0, 134)),
        (false, (source, to), 255, with(0, 137)),
    ] {
        let mut router = router();
        let mut frame = icmp(stations, ends, hops, &message);
        assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), Verdict::Taken, "never passed on");
        assert_eq!(answer(&mut router).is_some(), is_right, "{ends:?} {hops} {message:?}");
    }
    let mut frame = icmp(stations, (source, to), 255, &good);
    frame[56] ^= 1;
    let mut router = router();
    assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), Verdict::Taken);
    assert_eq!(answer(&mut router), None, "a wrong checksum");
    // Answers that were not asked for, or say nothing.
    introduce(&mut router, FAR, GATEWAY, GATEWAY_MAC);
    let station = |router: &mut Router, to| {
        let mut frame = packet((mac_at(router, ONE), GUEST_MAC), UDP, (GUEST, to), 64, &[0; 9]);
        handle(router, ONE, &mut frame, 2);
        router.take_answer();
        MacAddress(*frame.first_chunk().unwrap())
    };
    let inner = mac_at(&router, ONE);
    let unknown = local(0x33);
    assert_eq!(station(&mut router, unknown), inner, "not known yet");
    let evil = MacAddress([6; 6]);
    for (port, hops, target, flags, destination, options) in [
        (UPLINK, 255, GATEWAY, 0x60, OWN, Vec::new()),
        (UPLINK, 255, GATEWAY, 0x60, OWN, option(2, MacAddress([7; 6]))),
        (UPLINK, 255, GATEWAY, 0x60, ALL_NODES, option(2, evil)),
        (UPLINK, 64, GATEWAY, 0x60, OWN, option(2, evil)),
        (UPLINK, 255, local(0x44), 0x60, OWN, option(2, evil)),
        // Of a guest.
        (ONE, 255, GATEWAY, 0x60, GUEST_GATEWAY, option(2, evil)),
        (ONE, 255, unknown, 0x60, GUEST_GATEWAY, option(2, evil)),
    ] {
        let message = [&[136, 0, 0, 0, flags, 0, 0, 0][..], &target.octets(), &options].concat();
        let to = mac_at(&router, port);
        let mut frame = icmp((to, evil), (target, destination), hops, &message);
        assert_eq!(handle(&mut router, port, &mut frame, 1), Verdict::Taken);
        assert_eq!(station(&mut router, FAR), GATEWAY_MAC, "{port} {hops} {target}");
        assert_eq!(station(&mut router, unknown), inner);
    }
    let message = [&[136, 0, 0, 0, 0x20, 0, 0, 0][..], &unknown.octets(), &option(2, evil)].concat();
    let mut frame = icmp((own, evil), (Ipv6Addr::UNSPECIFIED, OWN), 255, &message);
    assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), Verdict::Taken);
    assert_eq!(station(&mut router, unknown), inner, "from nowhere");
    // A question tells where the one who asks is, where the router wanted to know.
    let mut frame = icmp((own, evil), (unknown, OWN), 255, &solicitation(OWN, &option(1, evil)));
    assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), Verdict::Taken);
    assert_eq!(station(&mut router, unknown), evil);
}

#[test]
fn guests_are_told_of_the_router() {
    let expected = |router: &Router, port, mac, to, lifetime: u16, frame: &[u8]| {
        let own = mac_at(router, port);
        let (stations, ends, hops, message) = read(frame);
        assert_eq!((stations, ends, hops), ((mac, own), (GUEST_GATEWAY, to), 255));
        let [high, low] = lifetime.to_be_bytes();
        assert_eq!(message[..2], [134, 0]);
        assert_eq!(message[4..16], [64, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0], "no address is made by itself");
        assert_eq!(message[16..], [&option(1, own)[..], &[5, 1, 0, 0, 0, 0, 5, 220]].concat());
    };
    let all_routers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
    let group = MacAddress([0x33, 0x33, 0, 0, 0, 2]);
    let none = Ipv6Addr::UNSPECIFIED;
    let link_local = GUEST_MAC.link_local();
    for (source, options, to) in [
        (link_local, option(1, GUEST_MAC), Some(link_local)),
        (link_local, Vec::new(), Some(link_local)),
        (none, Vec::new(), Some(ALL_NODES)),
        (none, option(1, GUEST_MAC), None),
        (link_local, Vec::from([1, 0, 0, 0, 0, 0, 0, 0]), None),
    ] {
        let mut router = router();
        let message = [&[133, 0, 0, 0, 0, 0, 0, 0][..], &options].concat();
        let mut frame = icmp((group, GUEST_MAC), (source, all_routers), 255, &message);
        assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Taken);
        match (answer(&mut router), to) {
            (Some((port, frame)), Some(to)) => {
                assert_eq!(port, ONE);
                expected(&router, ONE, GUEST_MAC, to, 1800, &frame);
            }
            (said, to) => assert_eq!((said, to), (None, None)),
        }
        // The network outside has its own routers.
        let mut frame = icmp((group, GATEWAY_MAC), (GATEWAY, all_routers), 255, &message);
        assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), Verdict::Taken);
        assert_eq!(answer(&mut router), None);
    }
    // By the clock: one guest after the other, and all again after ten minutes. Where nothing leads out, none is to send there.
    for (mut router, lifetime) in [(router(), 1800), (router_with(None), 0)] {
        assert_eq!(advertised(&mut router, at(0)), (Some(at(10)), None));
        assert_eq!(advertised(&mut router, at(9)), (Some(at(10)), None));
        let mut now = at(10);
        for start in [10, 700] {
            now = now.max(at(start));
            for (port, mac) in [(ONE, GUEST_MAC), (TWO, OTHER_MAC)] {
                let (due, said) = advertised(&mut router, now);
                let (due, (to, frame)) = (due.unwrap(), said.expect("it is time"));
                assert_eq!(to, port);
                expected(&router, port, mac, ALL_NODES, lifetime, &frame);
                assert!(due > now && due < now + Duration::from_secs(1));
                assert_eq!(advertised(&mut router, now), (Some(due), None));
                now = due;
            }
            assert_eq!(advertised(&mut router, now), (Some(now + INTERVAL), None));
        }
        router.remove(ONE);
        router.remove(TWO);
        assert_eq!(advertised(&mut router, at(9999)), (None, None));
    }
}

#[test]
fn senders_are_told_what_is_wrong() {
    let mut router = router();
    introduce(&mut router, FAR, GATEWAY, GATEWAY_MAC);
    let (inner, outer) = (mac_at(&router, ONE), mac_of(OWN_V4));
    let (long, short) = ([0x61; 1461], [0x61; 30]);
    let off = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x66);
    for (port, hops, source, to, behind, expected) in [
        (ONE, 1, GUEST, FAR, &short[..], Some((3, 0, 0))),
        (ONE, 0, GUEST, FAR, &short, Some((3, 0, 0))),
        (ONE, 1, GUEST, OTHER, &short, Some((3, 0, 0))),
        (UPLINK, 1, FAR, GUEST, &short, Some((3, 0, 0))),
        (ONE, 64, GUEST, FAR, &long, Some((2, 0, 1500))),
        (ONE, 64, GUEST, FAR, &long[1..], None),
        (ONE, 64, GUEST, OTHER, &long, None),
        (ONE, 64, GUEST_MAC.link_local(), FAR, &short, Some((1, 2, 0))),
        // Not of this network, and it came from there.
        (UPLINK, 64, FAR, off, &short, None),
    ] {
        let stations = if port == ONE { (inner, GUEST_MAC) } else { (outer, GATEWAY_MAC) };
        let mut frame = packet(stations, UDP, (source, to), hops, behind);
        let told = Frame { length: frame.len(), blank: false, segment: None };
        let verdict = router.handle(port, &mut frame[..256.min(54 + behind.len())], told, at(1));
        let Some((kind, code, fits)) = expected else {
            assert_eq!(answer(&mut router), None);
            continue;
        };
        assert_eq!(verdict, LOST);
        let (out, error) = answer(&mut router).expect("an error");
        let (macs, ends, hops, message) = read(&error);
        let own = if source == GUEST_MAC.link_local() { GUEST_GATEWAY } else { OWN };
        assert_eq!((out, macs, ends, hops), (port, (stations.1, stations.0), (own, source), 64));
        assert_eq!(
            (message[0], message[1], u32::from_be_bytes(*message[4..].first_chunk().unwrap())),
            (kind, code, fits)
        );
        let quoted = (40 + behind.len()).min(256 - 14);
        assert_eq!(message[8..], frame[14..14 + quoted]);
    }
    // A super-frame whose segments are too long.
    let mut frame = packet((inner, GUEST_MAC), 6, (GUEST, FAR), 64, &[0; 100]);
    for (size, words, fits) in [(1440, 5, true), (1441, 5, false), (1428, 8, true), (1429, 8, false)] {
        frame[54 + 12] = words << 4;
        let told = Frame { length: 154, blank: true, segment: Some(size) };
        let verdict = router.handle(ONE, &mut frame.clone(), told, at(1));
        assert_eq!((verdict == Verdict::Send(UPLINK), answer(&mut router).is_none()), (fits, fits));
    }
    // About what no error is sent about.
    let echo = [128, 0, 0, 0, 0, 0, 0, 0];
    let behind = |next: u8, more: &[u8]| [&[next, 0, 1, 4, 0, 0, 0, 0][..], more].concat();
    let part = |offset: u8| Vec::from([58, 0, 0, offset, 0, 0, 0, 1]);
    for (next, source, message, told) in [
        (58, GUEST, Vec::from(echo), true),
        (58, GUEST, Vec::from([3, 0, 0, 0, 0, 0, 0, 0]), false),
        (58, GUEST, Vec::from([127, 0, 0, 0, 0, 0, 0, 0]), false),
        (58, GUEST, Vec::new(), false),
        (60, GUEST, behind(58, &[1, 0, 0, 0]), false),
        (60, GUEST, behind(58, &echo), true),
        (60, GUEST, behind(17, &echo), true),
        (44, GUEST, [part(1), Vec::from(echo)].concat(), true),
        (44, GUEST, [part(8), Vec::from(echo)].concat(), false),
        (60, GUEST, Vec::from([58, 200, 0, 0, 0, 0, 0, 0]), false),
        (58, Ipv6Addr::UNSPECIFIED, Vec::from(echo), false),
        (58, ALL_NODES, Vec::from(echo), false),
    ] {
        frame = packet((inner, GUEST_MAC), next, (source, FAR), 1, &message);
        assert_eq!(handle(&mut router, ONE, &mut frame, 1), LOST);
        assert_eq!(answer(&mut router).is_some(), told, "{next} from {source}: {message:?}");
    }
    // Where no way leads.
    for uplink in [None, Some(UplinkV6 { network: NetworkV6 { address: OWN, length: 64 }, gateway: None })] {
        let mut router = router_with(uplink);
        let mut frame = packet((inner, GUEST_MAC), UDP, (GUEST, FAR), 64, &short);
        assert_eq!(handle(&mut router, ONE, &mut frame, 1), LOST);
        let (_, ends, _, message) = read(&answer(&mut router).expect("an error").1);
        let own = if uplink.is_some() { OWN } else { GUEST_GATEWAY };
        assert_eq!((ends, &message[..2]), ((own, GUEST), &[1, 0][..]));
        let mut frame = packet((inner, GUEST_MAC), UDP, (GUEST, OTHER), 64, &short);
        assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Send(TWO), "guests reach each other");
    }
}

#[test]
fn echoes_are_answered() {
    let mut router = router();
    let uplink_local = mac_of(OWN_V4).link_local();
    for (port, source, own, answered) in [
        (ONE, GUEST, OWN, true),
        (ONE, GUEST, GUEST_GATEWAY, true),
        (ONE, GUEST_MAC.link_local(), GUEST_GATEWAY, true),
        (UPLINK, FAR, OWN, true),
        (UPLINK, GATEWAY, uplink_local, true),
        (UPLINK, GATEWAY, GUEST_GATEWAY, false),
        (UPLINK, Ipv6Addr::UNSPECIFIED, OWN, false),
        (UPLINK, ALL_NODES, OWN, false),
    ] {
        let (to, from) = (mac_at(&router, port), if port == ONE { GUEST_MAC } else { GATEWAY_MAC });
        let message = [&[128, 0, 0, 0, 1, 2, 3, 4][..], &[9; 300]].concat();
        let mut frame = icmp((to, from), (source, own), 1, &message);
        let told = Frame { length: frame.len(), blank: false, segment: None };
        let verdict = router.handle(port, &mut frame[..256], told, at(1));
        if !answered {
            assert_eq!(verdict, LOST, "{source} to {own}");
            continue;
        }
        assert_eq!(verdict, Verdict::Send(port), "{source} to {own}");
        let (stations, ends, hops, said) = read(&frame);
        assert_eq!((stations, ends, hops), ((from, to), (own, source), 64));
        assert_eq!((&said[..2], &said[4..]), (&[129, 0][..], &message[4..]));
    }
    for message in [&[129, 0, 0, 0, 0, 0, 0, 0][..], &[128, 1, 0, 0, 0, 0, 0, 0], &[128, 0, 0, 0, 0]] {
        let mut frame = icmp((mac_of(OWN_V4), GATEWAY_MAC), (FAR, OWN), 64, message);
        assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), LOST);
    }
}

proptest! {
    /// Whatever the bytes are: no packet goes back to where it came from but an answer of the router, and none passes whose ends are of a link.
    #[test]
    fn any_bytes(
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
        start in 14..100_usize,
        port in 0..6_u16,
        kind in 0..4_u8,
        ends in (0..6_usize, 0..6_usize),
    ) {
        let mut router = router();
        introduce(&mut router, FAR, GATEWAY, GATEWAY_MAC);
        let to = router.interface(PortId(port)).map_or(MacAddress::BROADCAST, |interface| interface.mac);
        let known = [GUEST, OTHER, OWN, GUEST_GATEWAY, FAR, ALL_NODES];
        let ends = (known[ends.0], known[ends.1]);
        let behind = match kind {
            0 => solicitation(GUEST, &option(1, GUEST_MAC)),
            1 => Vec::from([133, 0, 0, 0, 0, 0, 0, 0]),
            2 => Vec::from([128, 0, 0, 0, 0, 0, 0, 0]),
            _ => Vec::from([6; 40]),
        };
        let mut frame = icmp((to, GUEST_MAC), ends, 255, &behind);
        frame.truncate(start);
        frame.extend(&bytes);
        if let Verdict::Send(out) = handle(&mut router, PortId(port), &mut frame, 1) {
            let header = Header::parse(&frame).expect("it was one");
            let is_echo = header.next == 58 && frame[54] == 129;
            prop_assert!(out != PortId(port) || is_echo);
            prop_assert!(out == PortId(port) || is_routable(header.source) && is_routable(header.destination));
        }
    }
}

/// No station of the way out sends with the router's own address.
#[test]
fn the_routers_own_address_does_not_come_from_outside() {
    let mut router = router();
    introduce(&mut router, FAR, GATEWAY, GATEWAY_MAC);
    for (source, passes) in [(FAR, true), (OWN, false)] {
        for hops in [64, 1] {
            let mut frame = packet((mac_of(OWN_V4), GATEWAY_MAC), 6, (source, GUEST), hops, &[0; 30]);
            assert_eq!(router.foresee_v6(&frame).is_some(), passes && hops > 1, "{source}, {hops}");
            let verdict = handle(&mut router, UPLINK, &mut frame, 1);
            assert_eq!(verdict == Verdict::Send(ONE), passes && hops > 1, "{source}, {hops}");
            assert_eq!(answer(&mut router).is_some(), passes && hops == 1, "{source}, {hops}");
        }
    }
    let mut echo = packet((mac_of(OWN_V4), GATEWAY_MAC), 58, (OWN, OWN), 64, &[128, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(handle(&mut router, UPLINK, &mut echo, 1), LOST);
}
