//! The router, frame by frame. Floor 3.

use super::config::{Forwarding, Internal, Uplink};
use super::*;
use crate::router::config::Protocol;
use alloc::string::String;
use proptest::prelude::*;
use split_driver::time::Duration;

pub(super) const UPLINK: PortId = PortId(1);
const LAB: PortId = PortId(2);
pub(super) const ONE: PortId = PortId(3);
pub(super) const TWO: PortId = PortId(4);
pub(super) const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
pub(super) const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(super) const GUEST: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 2);
pub(super) const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 8, 2);
pub(super) const GUEST_MAC: MacAddress = MacAddress([0, 0x16, 0x3e, 0, 0, 1]);
pub(super) const OTHER_MAC: MacAddress = MacAddress([0, 0x16, 0x3e, 0, 0, 2]);
pub(super) const GATEWAY_MAC: MacAddress = MacAddress([0, 1, 2, 3, 4, 5]);

pub(super) fn router() -> Router {
    let network = |address| Network { address, length: 24 };
    let setup = Setup {
        uplink: Some(Uplink {
            bridge: String::from("xenbr0"),
            network: Some(network(OWN)),
            gateway: Some(GATEWAY),
            v6: None,
        }),
        internals: Vec::from([Internal { bridge: String::from("lab"), network: network(Ipv4Addr::new(10, 0, 7, 1)) }]),
        dns: Vec::new(),
        forwardings: Vec::from([Forwarding { protocol: Protocol::Tcp, port: 8080, guest: OTHER, guest_port: 80 }]),
    };
    let mut router = Router::new(&setup, 1500, 1);
    router.add_uplink(UPLINK, network(OWN), Some(GATEWAY));
    router.add_internal(LAB, setup.internals[0].network);
    let guest =
        |mac, address| Routed { mac, addresses: Vec::from([address]), translated: true, addresses_v6: Vec::new() };
    assert!(router.add_guest(ONE, guest(GUEST_MAC, GUEST)).is_some());
    assert!(router.add_guest(TWO, guest(OTHER_MAC, OTHER)).is_some());
    assert!(router.add_guest(PortId(5), guest(OTHER_MAC, OTHER)).is_none(), "an address is one guest's");
    router
}

pub(super) fn at(seconds: u64) -> Instant {
    Instant::default() + Duration::from_secs(100 + seconds)
}

/// A frame of IPv4.
pub(super) fn ipv4(
    to: MacAddress,
    from: MacAddress,
    protocol: u8,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    behind: &[u8],
) -> Vec<u8> {
    let mut frame = alloc::vec![0; START + 20];
    set_stations(&mut frame, to, from);
    put(&mut frame, 12, &ETHERTYPE_IPV4.to_be_bytes());
    ipv4::write(&mut frame, (20 + behind.len()) as u16, protocol, source, destination);
    frame.extend(behind);
    frame
}

/// A segment or datagram, its checksum complete.
pub(super) fn transport(protocol: u8, source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), flags: u8) -> Vec<u8> {
    let mut bytes = alloc::vec![0; if protocol == 6 { 20 } else { 8 }];
    put(&mut bytes, 0, &source.1.to_be_bytes());
    put(&mut bytes, 2, &destination.1.to_be_bytes());
    if protocol == 6 {
        (bytes[12], bytes[13]) = (0x50, flags);
    }
    bytes.extend(b"some bytes");
    if protocol == 17 {
        let length = bytes.len() as u16;
        put(&mut bytes, 4, &length.to_be_bytes());
    }
    let mut sum = pseudo(protocol, source.0, destination.0, bytes.len());
    sum.add(&bytes);
    put(&mut bytes, if protocol == 6 { 16 } else { 6 }, &sum.checksum().to_be_bytes());
    bytes
}

fn pseudo(protocol: u8, source: Ipv4Addr, destination: Ipv4Addr, length: usize) -> Sum {
    let mut sum = Sum::new();
    sum.add(&source.octets());
    sum.add(&destination.octets());
    sum.add_u16(protocol.into());
    sum.add_u16(length as u16);
    sum
}

pub(super) fn echo(kind: u8, identifier: u16) -> Vec<u8> {
    let mut bytes = Vec::from([kind, 0, 0, 0, 0, 0, 0, 1]);
    put(&mut bytes, 4, &identifier.to_be_bytes());
    bytes.extend([9; 32]);
    let mut sum = Sum::new();
    sum.add(&bytes);
    put(&mut bytes, 2, &sum.checksum().to_be_bytes());
    bytes
}

/// The two ends of a frame, addresses and ports, where all its checksums are right.
pub(super) fn read(frame: &[u8]) -> (MacAddress, MacAddress, (Ipv4Addr, u16), (Ipv4Addr, u16)) {
    let header = Header::parse(frame, START).expect("a header with its checksum");
    let behind = &frame[START + header.length..START + header.total];
    let mut sum = if header.protocol == 1 {
        Sum::new()
    } else {
        pseudo(header.protocol, header.source, header.destination, behind.len())
    };
    sum.add(behind);
    assert_eq!(sum.folded(), 0xffff, "the checksum of protocol {}", header.protocol);
    let port = |place| read_u16(behind, place).unwrap();
    let ports = if header.protocol == 1 { (port(4), port(4)) } else { (port(0), port(2)) };
    let mac = |place: usize| MacAddress(*frame[place..].first_chunk().unwrap());
    (mac(0), mac(6), (header.source, ports.0), (header.destination, ports.1))
}

pub(super) fn handle(router: &mut Router, port: PortId, frame: &mut [u8], seconds: u64) -> Verdict {
    let told = Frame { length: frame.len(), blank: false, segment: None };
    router.handle(port, frame, told, at(seconds))
}

/// Has the gateway known.
pub(super) fn introduce(router: &mut Router) {
    let mac = mac_of(gateway_for(GUEST).address);
    let mut frame = ipv4(mac, GUEST_MAC, 17, GUEST, FAR, &transport(17, (GUEST, 9), (FAR, 9), 0));
    assert!(matches!(handle(router, ONE, &mut frame, 0), Verdict::Later(_)));
    let (port, question) = router.take_answer().expect("a question");
    assert_eq!(port, UPLINK);
    let question = arp::Packet::parse(question).unwrap();
    assert_eq!((question.asks, question.target.1), (true, GATEWAY));
    let answer = arp::Packet { asks: false, sender: (GATEWAY_MAC, GATEWAY), target: question.sender };
    assert_eq!(handle(router, UPLINK, &mut answer.frame(mac_of(OWN)), 0), Verdict::Taken);
}

#[test]
fn a_guests_packets_leave_with_the_routers_address_and_answers_come_back() {
    let mut router = router();
    introduce(&mut router);
    let inner = mac_of(gateway_for(GUEST).address);
    for (protocol, flags) in [(6, 2), (17, 0)] {
        let mut frame =
            ipv4(inner, GUEST_MAC, protocol, GUEST, FAR, &transport(protocol, (GUEST, 4000), (FAR, 80), flags));
        assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Send(UPLINK));
        assert_eq!(read(&frame), (GATEWAY_MAC, mac_of(OWN), (OWN, 4000), (FAR, 80)));
        assert_eq!(frame[22], 63);
        let answer = transport(protocol, (FAR, 80), (OWN, 4000), 0x12);
        let mut frame = ipv4(mac_of(OWN), GATEWAY_MAC, protocol, FAR, OWN, &answer);
        assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), Verdict::Send(ONE));
        assert_eq!(read(&frame), (GUEST_MAC, inner, (FAR, 80), (GUEST, 4000)));
        // Of no session.
        let mut frame =
            ipv4(mac_of(OWN), GATEWAY_MAC, protocol, FAR, OWN, &transport(protocol, (FAR, 81), (OWN, 4000), 0));
        assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), Verdict::Drop(DropCause::NotRouted));
    }
    let mut frame = ipv4(inner, GUEST_MAC, 1, GUEST, FAR, &echo(8, 77));
    assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Send(UPLINK));
    assert_eq!(read(&frame).2, (OWN, 77));
    let mut frame = ipv4(mac_of(OWN), GATEWAY_MAC, 1, FAR, OWN, &echo(0, 77));
    assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), Verdict::Send(ONE));
    assert_eq!(read(&frame).3, (GUEST, 77));
    // Other stations' frames are not the router's.
    let mut frame = ipv4(GATEWAY_MAC, GUEST_MAC, 1, GUEST, FAR, &echo(8, 77));
    assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Taken);
}

#[test]
fn errors_about_a_guests_packets_find_it() {
    let mut router = router();
    introduce(&mut router);
    let inner = mac_of(gateway_for(GUEST).address);
    for (protocol, ports) in [(6, (4000, 80)), (17, (5000, 53)), (1, (77, 77))] {
        let behind = if protocol == 1 { echo(8, 77) } else { transport(protocol, (GUEST, ports.0), (FAR, ports.1), 2) };
        let mut sent = ipv4(inner, GUEST_MAC, protocol, GUEST, FAR, &behind);
        assert_eq!(handle(&mut router, ONE, &mut sent, 1), Verdict::Send(UPLINK));
        let mut error = Vec::from([3, 4, 0, 0, 0, 0, 5, 0]);
        error.extend(&sent[START..START + 28]);
        let mut sum = Sum::new();
        sum.add(&error);
        put(&mut error, 2, &sum.checksum().to_be_bytes());
        let hop = Ipv4Addr::new(203, 0, 113, 9);
        let mut frame = ipv4(mac_of(OWN), GATEWAY_MAC, 1, hop, OWN, &error);
        assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), Verdict::Send(ONE));
        let (_, _, from, to) = read(&frame);
        assert_eq!((from.0, to.0), (hop, GUEST));
        let about = Header::parse(&frame, START + 28).expect("the packet that it is about, as the guest sent it");
        assert_eq!((about.source, about.destination), (GUEST, FAR));
        let place = START + 48;
        let expected = if protocol == 1 { &behind[..8] } else { &behind[..if protocol == 6 { 4 } else { 8 }] };
        assert_eq!(&frame[place..place + expected.len()], expected, "protocol {protocol}");
    }
    // About a packet that was never sent.
    let mut error = Vec::from([3, 3, 0, 0, 0, 0, 0, 0]);
    error.extend(&ipv4(inner, GUEST_MAC, 17, OWN, FAR, &transport(17, (OWN, 1), (FAR, 1), 0))[START..]);
    let mut frame = ipv4(mac_of(OWN), GATEWAY_MAC, 1, FAR, OWN, &error);
    assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), Verdict::Drop(DropCause::NotRouted));
}

#[test]
fn a_port_that_is_a_guests_is_reached_from_outside_and_from_inside() {
    let mut router = router();
    introduce(&mut router);
    let mut frame = ipv4(mac_of(OWN), GATEWAY_MAC, 6, FAR, OWN, &transport(6, (FAR, 999), (OWN, 8080), 2));
    assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), Verdict::Send(TWO));
    let other = mac_of(gateway_for(OTHER).address);
    assert_eq!(read(&frame), (OTHER_MAC, other, (FAR, 999), (OTHER, 80)));
    let mut frame = ipv4(other, OTHER_MAC, 6, OTHER, FAR, &transport(6, (OTHER, 80), (FAR, 999), 0x12));
    assert_eq!(handle(&mut router, TWO, &mut frame, 1), Verdict::Send(UPLINK));
    assert_eq!(read(&frame), (GATEWAY_MAC, mac_of(OWN), (OWN, 8080), (FAR, 999)));
    // Hairpin: both see the router's address.
    let inner = mac_of(gateway_for(GUEST).address);
    let mut frame = ipv4(inner, GUEST_MAC, 6, GUEST, OWN, &transport(6, (GUEST, 6000), (OWN, 8080), 2));
    assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Send(TWO));
    assert_eq!(read(&frame), (OTHER_MAC, other, (OWN, 6000), (OTHER, 80)));
    let mut frame = ipv4(other, OTHER_MAC, 6, OTHER, OWN, &transport(6, (OTHER, 80), (OWN, 6000), 0x12));
    assert_eq!(handle(&mut router, TWO, &mut frame, 1), Verdict::Send(ONE));
    assert_eq!(read(&frame), (GUEST_MAC, inner, (OWN, 8080), (GUEST, 6000)));
    // A port that is nobody's.
    let mut frame = ipv4(inner, GUEST_MAC, 6, GUEST, OWN, &transport(6, (GUEST, 6000), (OWN, 22), 2));
    assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Drop(DropCause::NotRouted));
}

#[test]
fn a_guest_whose_address_is_known_outside() {
    let mut router = router();
    introduce(&mut router);
    let (mac, address, port) = (MacAddress([0, 0x16, 0x3e, 0, 0, 3]), Ipv4Addr::new(10, 0, 0, 77), PortId(6));
    assert!(
        router
            .add_guest(
                port,
                Routed { mac, addresses: Vec::from([address]), translated: false, addresses_v6: Vec::new() }
            )
            .is_some()
    );
    let inner = mac_of(gateway_for(address).address);
    // The router answers for it, and for no guest whose address is translated.
    for (target, answered) in [(address, true), (GUEST, false)] {
        let question =
            arp::Packet { asks: true, sender: (GATEWAY_MAC, GATEWAY), target: (MacAddress::default(), target) };
        assert_eq!(handle(&mut router, UPLINK, &mut question.frame(MacAddress::BROADCAST), 1), Verdict::Taken);
        let answer = router.take_answer().map(|(_, bytes)| arp::Packet::parse(bytes).unwrap().sender);
        assert_eq!(answer, answered.then_some((mac_of(OWN), target)));
    }
    let mut frame = ipv4(inner, mac, 17, address, FAR, &transport(17, (address, 9), (FAR, 9), 0));
    assert_eq!(handle(&mut router, port, &mut frame, 1), Verdict::Send(UPLINK));
    assert_eq!(read(&frame), (GATEWAY_MAC, mac_of(OWN), (address, 9), (FAR, 9)));
    let mut frame = ipv4(mac_of(OWN), GATEWAY_MAC, 6, FAR, address, &transport(6, (FAR, 1), (address, 22), 2));
    assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), Verdict::Send(port));
    assert_eq!((read(&frame), frame[22]), ((mac, inner, (FAR, 1), (address, 22)), 63));
    // A guest's own address behind NAT is not known outside.
    let mut frame = ipv4(mac_of(OWN), GATEWAY_MAC, 6, FAR, GUEST, &transport(6, (FAR, 1), (GUEST, 22), 2));
    assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), Verdict::Drop(DropCause::NotRouted));
}

/// The first address of a network is what the guests there are given as their gateway.
#[test]
fn a_guest_with_the_address_of_the_others_gateway_is_reached() {
    let mut router = router();
    for translated in [false, true] {
        let [first, second] = [1, 2].map(|last| Ipv4Addr::new(10, 3, u8::from(translated), last));
        let ports = [PortId(7 + 2 * u16::from(translated)), PortId(8 + 2 * u16::from(translated))];
        for (address, port) in [(first, ports[0]), (second, ports[1])] {
            let mac = mac_of(address);
            let addresses = Vec::from([address]);
            assert!(router.add_guest(port, Routed { mac, addresses, translated, addresses_v6: Vec::new() }).is_some());
        }
        assert_eq!(gateway_for(second).address, first);
        let mut frame = ipv4(mac_of(first), mac_of(second), 1, second, first, &echo(8, 5));
        assert_eq!(handle(&mut router, ports[1], &mut frame, 1), Verdict::Send(ports[0]));
        assert_eq!(frame[34], 8, "it is the guest that answers");
        // Its questions for names are the router's, which said so by DHCP, and no other guest's.
        let question = transport(17, (second, 4000), (first, 53), 0);
        let mut frame = ipv4(mac_of(first), mac_of(second), 17, second, first, &question);
        let verdict = handle(&mut router, ports[1], &mut frame, 1);
        assert_ne!(verdict, Verdict::Send(ports[0]));
        router.take_answer();
        let inner = mac_of(gateway_for(first).address);
        let mut frame = ipv4(inner, mac_of(first), 1, first, second, &echo(0, 5));
        assert_eq!(handle(&mut router, ports[0], &mut frame, 1), Verdict::Send(ports[1]));
        assert_eq!((frame[34], read(&frame).2.0), (0, first));
    }
}

#[test]
fn what_cannot_pass_is_refused() {
    let mut router = router();
    introduce(&mut router);
    let inner = mac_of(gateway_for(GUEST).address);
    let behind = transport(17, (GUEST, 9), (FAR, 9), 0);
    let whole = || ipv4(inner, GUEST_MAC, 17, GUEST, FAR, &behind);
    let mut frame = whole();
    let mut change = ipv4::Change::default();
    change.word(0x4011, 0x0111);
    frame[22] = 1;
    ipv4::adjust(&mut frame, 24, change);
    assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Drop(DropCause::NotRouted));
    let (port, bytes) = router.take_answer().expect("an error");
    assert_eq!((port, &bytes[34..36]), (ONE, &[11, 0][..]));
    read(bytes);
    // Too long for the way out, and not to be cut.
    let long = [0; 1473];
    let mut frame = ipv4(inner, GUEST_MAC, 17, GUEST, FAR, &[&behind[..8], &long].concat());
    assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Drop(DropCause::NotRouted));
    let (_, bytes) = router.take_answer().expect("an error");
    assert_eq!((&bytes[34..36], read_u16(bytes, 40)), (&[3, 4][..], Some(1500)));
    // A fragment whose first one never came, and a first one whose checksum is to be made.
    let mut frame = whole();
    set_fragment(&mut frame, 7, 1);
    assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Drop(DropCause::Fragment));
    let mut frame = whole();
    set_fragment(&mut frame, 7, MORE);
    let blank = Frame { length: frame.len(), blank: true, segment: None };
    assert_eq!(router.handle(ONE, &mut frame, blank, at(1)), Verdict::Drop(DropCause::Unsuitable));
    // No way, and a wrong header.
    let mut frame = ipv4(mac_of(Ipv4Addr::new(10, 0, 7, 1)), GUEST_MAC, 17, GUEST, FAR, &behind);
    assert_eq!(handle(&mut router, LAB, &mut frame, 1), Verdict::Drop(DropCause::NotRouted));
    let mut frame = whole();
    frame[16] ^= 1;
    assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Drop(DropCause::NotRouted));
    assert_eq!(router.take_answer(), None);
}

/// Fragments that are to follow, in the word of flags and offset.
pub(super) const MORE: u16 = 0x2000;

/// Makes a packet a fragment.
pub(super) fn set_fragment(frame: &mut [u8], identification: u16, word: u16) {
    for (place, new) in [(18, identification), (20, word)] {
        let mut change = ipv4::Change::default();
        change.word(read_u16(frame, place).unwrap(), new);
        put(frame, place, &new.to_be_bytes());
        ipv4::adjust(frame, 24, change);
    }
}

/// A datagram of UDP in two fragments.
fn cut(to: MacAddress, from: MacAddress, source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> [Vec<u8>; 2] {
    let behind = transport(17, source, destination, 0);
    let mut first = ipv4(to, from, 17, source.0, destination.0, &behind[..16]);
    let mut last = ipv4(to, from, 17, source.0, destination.0, &behind[16..]);
    set_fragment(&mut first, 7, MORE);
    set_fragment(&mut last, 7, 2);
    [first, last]
}

/// The packet of two fragments.
fn join(first: &[u8], last: &[u8]) -> Vec<u8> {
    let headers = [first, last].map(|frame| Header::parse(frame, START).expect("a header"));
    assert_eq!(headers[0].identification, headers[1].identification);
    assert!(headers[1].is_later && first[..14] == last[..14], "they go one way");
    let mut frame = [first, &last[34..]].concat();
    set_fragment(&mut frame, 0, 0);
    let total = frame.len() as u16 - 14;
    let mut change = ipv4::Change::default();
    change.word(read_u16(&frame, 16).unwrap(), total);
    put(&mut frame, 16, &total.to_be_bytes());
    ipv4::adjust(&mut frame, 24, change);
    frame
}

#[test]
fn fragments_go_where_the_first_one_goes() {
    let mut router = router();
    introduce(&mut router);
    let mut out = Vec::new();
    for (port, mac, address) in [(ONE, GUEST_MAC, GUEST), (TWO, OTHER_MAC, OTHER)] {
        let [mut first, mut last] = cut(mac_of(gateway_for(address).address), mac, (address, 5000), (FAR, 53));
        // Behind the first one alone, and of this guest alone.
        assert_eq!(handle(&mut router, port, &mut last.clone(), 1), Verdict::Drop(DropCause::Fragment));
        assert_eq!(handle(&mut router, port, &mut first, 1), Verdict::Send(UPLINK));
        let mut late = last.clone();
        assert_eq!(handle(&mut router, port, &mut last, 20), Verdict::Send(UPLINK));
        assert_eq!(handle(&mut router, port, &mut late, 32), Verdict::Drop(DropCause::Fragment));
        let (_, _, source, destination) = read(&join(&first, &last));
        assert_eq!((source.0, destination), (OWN, (FAR, 53)));
        out.push((source.1, Header::parse(&first, START).unwrap().identification));
    }
    assert!(out[0].0 != out[1].0 && out[0].1 != out[1].1, "the far end takes them apart: {out:?}");
    // Answers, the second one of a guest that is gone then.
    for ((given, _), (guest, port)) in out.into_iter().zip([((GUEST_MAC, GUEST), ONE), ((OTHER_MAC, OTHER), TWO)]) {
        let [mut first, mut last] = cut(mac_of(OWN), GATEWAY_MAC, (FAR, 53), (OWN, given));
        assert_eq!(handle(&mut router, UPLINK, &mut first, 40), Verdict::Send(port));
        let mut again = last.clone();
        assert_eq!(handle(&mut router, UPLINK, &mut last, 40), Verdict::Send(port));
        let joined = join(&first, &last);
        assert_eq!(read(&joined), (guest.0, mac_of(gateway_for(guest.1).address), (FAR, 53), (guest.1, 5000)));
        router.remove(port);
        assert_eq!(handle(&mut router, UPLINK, &mut again, 40), Verdict::Drop(DropCause::Fragment));
    }
}

#[test]
fn a_guest_pushes_out_fragments_of_its_own_alone() {
    let mut router = router();
    introduce(&mut router);
    let mut cuts = [(ONE, GUEST_MAC, GUEST), (TWO, OTHER_MAC, OTHER)].map(|(port, mac, address)| {
        let [mut first, last] = cut(mac_of(gateway_for(address).address), mac, (address, 5000), (FAR, 53));
        assert_eq!(handle(&mut router, port, &mut first, 1), Verdict::Send(UPLINK));
        (port, last)
    });
    for identification in 100..200 {
        let [mut first, _] = cut(mac_of(gateway_for(GUEST).address), GUEST_MAC, (GUEST, 5000), (FAR, 53));
        set_fragment(&mut first, identification, MORE);
        assert_eq!(handle(&mut router, ONE, &mut first, 1), Verdict::Send(UPLINK));
    }
    let verdicts = cuts.each_mut().map(|(port, last)| handle(&mut router, *port, last, 1));
    assert_eq!(verdicts, [Verdict::Drop(DropCause::Fragment), Verdict::Send(UPLINK)]);
}

#[test]
fn arp_and_echoes_are_answered() {
    let mut router = router();
    let lab = Ipv4Addr::new(10, 0, 7, 1);
    let guest = (GUEST_MAC, GUEST);
    for (port, target, answered) in [
        (LAB, lab, true),
        (LAB, Ipv4Addr::new(10, 0, 7, 2), false),
        (UPLINK, OWN, true),
        (UPLINK, GUEST, false),
        // All that is behind the router, whatever the guest takes for its gateway.
        (ONE, gateway_for(GUEST).address, true),
        (ONE, FAR, true),
        (ONE, GUEST, false),
    ] {
        let question = arp::Packet { asks: true, sender: guest, target: (MacAddress::default(), target) };
        let mut frame = question.frame(MacAddress::BROADCAST);
        assert_eq!(handle(&mut router, port, &mut frame, 0), Verdict::Taken);
        let own = router.interface(port).unwrap().mac;
        let answer = router.take_answer().map(|(to, bytes)| (to, arp::Packet::parse(bytes).unwrap()));
        let expected = arp::Packet { asks: false, sender: (own, target), target: guest };
        assert_eq!(answer, answered.then_some((port, expected)), "{port}: {target}");
    }
    let mut frame = ipv4(mac_of(lab), GUEST_MAC, 1, Ipv4Addr::new(10, 0, 7, 9), lab, &echo(8, 5));
    assert_eq!(handle(&mut router, LAB, &mut frame, 0), Verdict::Send(LAB));
    assert_eq!(read(&frame), (GUEST_MAC, mac_of(lab), (lab, 5), (Ipv4Addr::new(10, 0, 7, 9), 5)));
    assert_eq!(frame[34], 0);
}

/// No guest says again that it has a session or a lease: another life must know of it at once.
#[test]
fn new_sessions_and_leases_are_to_be_written_down() {
    let mut router = router();
    introduce(&mut router);
    assert!(!router.take_changed());
    for (port, is_new) in [(9, true), (9, false), (10, true)] {
        let datagram = transport(17, (GUEST, port), (FAR, 9), 0);
        let mut frame = ipv4(mac_of(gateway_for(GUEST).address), GUEST_MAC, 17, GUEST, FAR, &datagram);
        assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Send(UPLINK));
        assert_eq!((router.take_changed(), router.take_changed()), (is_new, false));
    }
    let lab = Ipv4Addr::new(10, 0, 7, 1);
    let client = Ipv4Addr::new(10, 0, 7, 20).octets();
    for (kind, is_lease) in [(1, false), (3, true)] {
        let mut message = alloc::vec![0; 300];
        put(&mut message, 0, &[1, 1, 6]);
        put(&mut message, 28, &OTHER_MAC.0);
        put(&mut message, 236, &[99, 130, 83, 99, 53, 1, kind, 50, 4]);
        put(&mut message, 245, &client);
        put(&mut message, 249, &[255]);
        let mut udp = Vec::from([0, 68, 0, 67, 1, 52, 0, 0]);
        udp.extend(&message);
        let (all, none) = (Ipv4Addr::BROADCAST, Ipv4Addr::UNSPECIFIED);
        let mut frame = ipv4(MacAddress::BROADCAST, OTHER_MAC, 17, none, all, &udp);
        assert_eq!(handle(&mut router, LAB, &mut frame, 1), Verdict::Taken);
        assert!(router.take_answer().is_some(), "the router at {lab} did not answer");
        assert_eq!(router.take_changed(), is_lease);
    }
}

#[test]
fn dhcp_tells_a_guest_its_address() {
    let mut router = router();
    let lab = Ipv4Addr::new(10, 0, 7, 1);
    for (port, own, mac, fixed) in
        [(LAB, lab, OTHER_MAC, None), (ONE, gateway_for(GUEST).address, GUEST_MAC, Some(GUEST))]
    {
        let mut message = alloc::vec![0; 300];
        put(&mut message, 0, &[1, 1, 6, 0, 1, 2, 3, 4]);
        put(&mut message, 28, &mac.0);
        put(&mut message, 236, &[99, 130, 83, 99, 53, 1, 1, 255]);
        let mut udp = Vec::from([0, 68, 0, 67, 1, 52, 0, 0]);
        udp.extend(&message);
        let mut frame = ipv4(MacAddress::BROADCAST, mac, 17, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, &udp);
        let told = Frame { length: frame.len(), blank: false, segment: None };
        assert_eq!(router.handle(port, &mut frame[..HEAD], told, at(0)), Verdict::More);
        assert_eq!(router.handle(port, &mut frame, told, at(0)), Verdict::Taken);
        let (to, bytes) = router.take_answer().expect("an offer");
        assert_eq!((to, bytes.len()), (port, ANSWER));
        let (station, from, source, destination) = read(bytes);
        assert_eq!((station, from, source), (mac, mac_of(own), (own, 67)));
        assert!(destination.1 == 68 && fixed.is_none_or(|fixed| fixed == destination.0));
        assert_eq!(bytes[58..62], destination.0.octets());
        // With another's Ethernet address in it.
        let mut frame =
            ipv4(MacAddress::BROADCAST, MacAddress([2; 6]), 17, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, &udp);
        assert_eq!(handle(&mut router, port, &mut frame, 0), Verdict::Drop(DropCause::NotRouted));
        assert_eq!(router.take_answer(), None);
    }
}

proptest! {
    /// Whatever the bytes are.
    #[test]
    fn any_bytes(
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
        start in 0..40_usize,
        port in 0..6_u16,
        kind in 0..4_u8,
    ) {
        let mut router = router();
        introduce(&mut router);
        let to = router.interface(PortId(port)).map_or(MacAddress::BROADCAST, |interface| interface.mac);
        let behind = match kind {
            0 => transport(6, (GUEST, 4000), (FAR, 80), 2),
            1 => transport(17, (GUEST, 4000), (OWN, 67), 0),
            2 => echo(8, 1),
            _ => [&[3, 4, 0, 0, 0, 0, 0, 0], &ipv4(to, to, 17, OWN, FAR, &transport(17, (OWN, 9), (FAR, 9), 0))[14..]].concat(),
        };
        let mut frame = ipv4(to, GUEST_MAC, [6, 17, 1, 1][usize::from(kind)], GUEST, OWN, &behind);
        frame.truncate(start.max(14) + 14);
        frame.extend(&bytes);
        let told = Frame { length: frame.len(), blank: false, segment: None };
        let _ = router.handle(PortId(port), &mut frame, told, at(1));
    }
}
