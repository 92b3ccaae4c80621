//! Packets through the router: from guests to the wire and back, from guest to guest, and for the router itself.

mod joined;

use super::frames::{complete, ethernet, is_complete, tcp};
use super::{Net, OFFLOADS};
use crate::ethernet::MacAddress;
use crate::fakes::{Frontend, Outgoing};
use crate::netback::config::Features;
use crate::nic::Capabilities;
use crate::offload::checksum::Sum;
use crate::packet::{Checksum, Gso, GsoKind};
use crate::router::config::{Internal, Network, NetworkV6, Setup, Uplink, UplinkV6};
use crate::router::{Routed, gateway_for, mac_of};
use alloc::string::String;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};
use split_driver::time::{Duration, Instant};

/// The addresses of [`tcp`].
const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const REMOTE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const REMOTE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];
const PLAIN: Capabilities =
    Capabilities { checksum_v4: false, checksum_v6: false, tso_v4: false, tso_v6: false, ..OFFLOADS };

/// A net with a router, guests behind it that have these addresses, and a guest on the bridge of the NIC.
fn routed(capabilities: Capabilities, guests: &[Ipv4Addr]) -> Net {
    let guests: Vec<_> = guests.iter().map(|address| (*address, Frontend::linux_features())).collect();
    routed_with(capabilities, &guests)
}

/// The same, of guests that take this.
fn routed_with(capabilities: Capabilities, guests: &[(Ipv4Addr, Features)]) -> Net {
    let mut net = Net::with_nic(&[], capabilities);
    let uplink = Uplink {
        bridge: "xenbr0".into(),
        network: Some(Network { address: OWN, length: 24 }),
        gateway: None,
        v6: None,
    };
    let lab = Network { address: Ipv4Addr::new(10, 0, 7, 1), length: 24 };
    let internals = Vec::from([Internal { bridge: String::from("lab"), network: lab }]);
    net.path.set_router(&Setup { uplink: Some(uplink), internals, ..Setup::default() }, 1500, 3).unwrap();
    for (index, (address, features)) in guests.iter().enumerate() {
        let guest = Frontend::new(&net.xen, index as u16 + 1, true);
        let mut config = guest.config("xenbr0", *features);
        config.routed = Some(translated(&guest, *address));
        net.attach(guest, config);
    }
    net.add(Frontend::linux_features(), "xenbr0");
    net
}

/// A guest behind NAT.
fn translated(guest: &Frontend, address: Ipv4Addr) -> Routed {
    let (mac, addresses) = (MacAddress(guest.mac), Vec::from([address]));
    Routed { mac, addresses, translated: true, addresses_v6: Vec::new() }
}

fn super_frame(net: &Net, payload: usize) -> Outgoing {
    let gso = Some(Gso { kind: GsoKind::TcpV4, size: 1428 });
    let bytes = tcp(mac_of(gateway_for(GUEST).address), net.guests[0].mac, false, payload);
    Outgoing { bytes, checksum: Checksum::Blank, gso, ..Outgoing::default() }
}

/// An answer to the router's question.
fn answer(target: Ipv4Addr) -> Vec<u8> {
    let mut frame = Vec::from(mac_of(OWN).0);
    frame.extend(REMOTE_MAC);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
    frame.extend(REMOTE_MAC);
    frame.extend(target.octets());
    frame.extend(mac_of(OWN).0);
    frame.extend(OWN.octets());
    frame.resize(60, 0);
    frame
}

fn receive(net: &mut Net, frames: Vec<Vec<u8>>) {
    net.wire.borrow_mut().incoming.extend(frames.into_iter().map(|frame| (frame, Checksum::Verified)));
    net.path.handle_interrupt(net.nic, 0);
    net.run();
}

fn take_sent(net: &mut Net) -> Vec<Vec<u8>> {
    let sent = core::mem::take(&mut net.wire.borrow_mut().sent);
    sent.into_iter().map(|frame| frame.bytes).collect()
}

/// Gives a frame of [`tcp`] other addresses; its own checksum is not looked at.
fn set_ends(frame: &mut [u8], source: Ipv4Addr, destination: Ipv4Addr) {
    frame[24..26].fill(0);
    frame[26..30].copy_from_slice(&source.octets());
    frame[30..34].copy_from_slice(&destination.octets());
    let mut sum = Sum::new();
    sum.add(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.checksum().to_be_bytes());
}

/// A segment of the remote station to a port of the router, of 1,000 bytes.
fn reply(port: [u8; 2], number: u32) -> Vec<u8> {
    let mut frame = tcp(mac_of(OWN), REMOTE_MAC, false, 1000);
    set_ends(&mut frame, REMOTE, OWN);
    frame[34..38].copy_from_slice(&[0, 80, port[0], port[1]]);
    frame[38..42].copy_from_slice(&(1 + 1000 * number).to_be_bytes());
    // No PSH, at which no more is joined.
    frame[47] = 0x10;
    complete(&mut frame);
    frame
}

/// The remote station sends next, and the guest behind NAT gets it from another life of the domain, if it has the session's address.
#[test]
fn a_session_goes_over_a_life() {
    let mut net = routed(OFFLOADS, &[GUEST]);
    let packet = super_frame(&net, 100);
    net.send(0, &packet);
    receive(&mut net, Vec::from([answer(REMOTE)]));
    net.now = net.now + Duration::from_millis(1);
    net.send(0, &packet);
    let sent = take_sent(&mut net);
    let last = sent.last().expect("the packet");
    let port = [last[34], last[35]];
    let kept = net.path.keep_vif(net.ids[0]).expect("a vif");
    for (address, arrives) in [(GUEST, 1), (Ipv4Addr::new(10, 0, 0, 77), 0)] {
        let mut next = routed(OFFLOADS, &[address]);
        receive(&mut next, Vec::from([reply(port, 0)]));
        assert_eq!(next.guests[0].arrived().len(), 0, "nothing is known");
        next.path.restore_vif(next.ids[0], &kept);
        receive(&mut next, Vec::from([reply(port, 0)]));
        assert_eq!(next.guests[0].arrived().len(), arrives, "{address}");
        next.end();
    }
    net.end();
}

#[test]
fn to_the_wire_and_back() {
    for capabilities in [PLAIN, OFFLOADS] {
        for payload in [100, 30_000] {
            let mut net = routed(capabilities, &[GUEST]);
            let packet = super_frame(&net, payload);
            net.send(0, &packet);
            let question = take_sent(&mut net);
            assert_eq!((question.len(), &question[0][12..14]), (1, &[8, 6][..]), "the remote station is not known yet");
            receive(&mut net, Vec::from([answer(REMOTE)]));
            assert!(!net.path.take_changed());
            // It waited on its ring.
            net.now = net.now + Duration::from_millis(1);
            net.run();
            assert!(net.path.take_changed(), "the next life has to know the session");
            let mut sent = take_sent(&mut net);
            assert_eq!(sent.len(), if capabilities == PLAIN { payload.div_ceil(1428) } else { 1 });
            let mut whole: Vec<u8> = Vec::new();
            for frame in &mut sent {
                assert_eq!((&frame[..6], &frame[6..12]), (&REMOTE_MAC[..], &mac_of(OWN).0[..]));
                assert_eq!((&frame[26..30], &frame[30..34], frame[22]), (&OWN.octets()[..], &REMOTE.octets()[..], 63));
                if capabilities != PLAIN {
                    complete(frame);
                }
                assert!(is_complete(frame));
                whole.extend(&frame[66..]);
            }
            assert_eq!(whole, packet.bytes[66..]);
            // Back: as a super-frame where there are several segments.
            let segments = (0..3_u32).map(|number| reply([sent[0][34], sent[0][35]], number));
            let segments: Vec<_> = segments.collect();
            receive(&mut net, segments);
            let arrived = net.guests[0].arrived();
            let packet = arrived.last().expect("the segments");
            assert_eq!((arrived.len(), packet.bytes.len(), packet.gso.is_some()), (1, 66 + 3000, true));
            assert_eq!((&packet.bytes[30..34], &packet.bytes[34..38]), (&GUEST.octets()[..], &[0, 80, 0x30, 0x39][..]));
            assert_eq!(&packet.bytes[..12], &[&net.guests[0].mac[..], &mac_of(gateway_for(GUEST).address).0].concat());
            let mut bytes = packet.bytes.clone();
            complete(&mut bytes);
            assert!(is_complete(&bytes));
            let neighbour = net.guests[1].arrived();
            assert!(
                neighbour.iter().all(|packet| packet.bytes[12..14] == [8, 6]),
                "but for the question, nothing went to the neighbour"
            );
            net.end();
        }
    }
}

/// A guest behind the router reaches no neighbour by its Ethernet address; another guest behind it by the router, from grant to grant.
#[test]
fn from_guest_to_guest() {
    let mut net = routed(OFFLOADS, &[GUEST, REMOTE]);
    let packet = super_frame(&net, 30_000);
    net.send(0, &packet);
    let arrived = net.guests[1].arrived();
    assert_eq!(arrived.len(), 1);
    let packet = &arrived[0];
    assert_eq!((packet.bytes.len(), packet.gso.map(|gso| gso.size)), (66 + 30_000, Some(1428)));
    assert_eq!((&packet.bytes[..6], packet.bytes[22]), (&net.guests[1].mac[..], 63));
    assert_eq!(packet.bytes[26..34], [10, 0, 0, 1, 10, 0, 0, 2], "nothing is translated between guests");
    assert_eq!(packet.bytes[66..], super_frame(&net, 30_000).bytes[66..]);
    for destination in [net.guests[1].mac, net.guests[2].mac, [0xff; 6]] {
        let bytes = ethernet(destination, net.guests[0].mac, 100);
        net.send(0, &Outgoing { bytes, ..Outgoing::default() });
    }
    assert_eq!((net.guests[1].arrived().len(), net.guests[2].arrived().len()), (0, 0));
    assert_eq!(take_sent(&mut net), [[0_u8; 0]; 0]);
    net.end();
}

/// A station that says it has the router's Ethernet address does not get its frames.
#[test]
fn the_routers_address_stays_where_it_is() {
    let mut net = routed(OFFLOADS, &[]);
    let guest = net.add(Frontend::linux_features(), "lab");
    let other = net.add(Frontend::linux_features(), "lab");
    let router = mac_of(Ipv4Addr::new(10, 0, 7, 1));
    for from in [other, guest] {
        net.send(from, &Outgoing { bytes: ethernet([0xff; 6], router, 50), ..Outgoing::default() });
    }
    net.guests[other].arrived();
    let mut question = Vec::from([0xff; 6]);
    question.extend(net.guests[guest].mac);
    question.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    question.extend(net.guests[guest].mac);
    question.extend([10, 0, 7, 9, 0, 0, 0, 0, 0, 0, 10, 0, 7, 1]);
    net.send(guest, &Outgoing { bytes: question.clone(), ..Outgoing::default() });
    let arrived = net.guests[guest].arrived();
    let answer = arrived.last().expect("an answer");
    assert_eq!((&answer.bytes[6..12], &answer.bytes[20..22]), (&router.0[..], &[0, 2][..]));
    assert_eq!(net.guests[other].arrived().len(), 1, "the question is for all");
    // Again: the answer was the router's.
    net.send(other, &Outgoing { bytes: ethernet([0xff; 6], router, 50), ..Outgoing::default() });
    net.send(guest, &Outgoing { bytes: ethernet(router, net.guests[guest].mac, 50), ..Outgoing::default() });
    assert_eq!(net.guests[other].arrived().len(), 0);
    net.end();
}

/// The addresses of [`tcp`] by IPv6, and the router's.
const GUEST_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
const REMOTE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2);
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5);
/// All nodes, and the group of stations that are asked for the guest.
const ALL_NODES: ([u8; 6], Ipv6Addr) = ([0x33, 0x33, 0, 0, 0, 1], Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
const GUESTS_GROUP: ([u8; 6], Ipv6Addr) =
    ([0x33, 0x33, 0xff, 0, 0, 1], Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1));

/// A net with a guest whose address of IPv6 is known on the wire, and a guest on the bridge of the NIC.
fn routed_v6() -> Net {
    let mut net = Net::with_nic(&[], OFFLOADS);
    let v6 = Some(UplinkV6 { network: NetworkV6 { address: OWN_V6, length: 64 }, gateway: None });
    let uplink =
        Uplink { bridge: "xenbr0".into(), network: Some(Network { address: OWN, length: 24 }), gateway: None, v6 };
    net.path.set_router(&Setup { uplink: Some(uplink), ..Setup::default() }, 1500, 3).unwrap();
    let guest = Frontend::new(&net.xen, 1, true);
    let mut config = guest.config("xenbr0", Frontend::linux_features());
    config.routed = Routed::new(MacAddress(guest.mac), [GUEST].into_iter(), [GUEST_V6].into_iter(), false);
    net.attach(guest, config);
    net.add(Frontend::linux_features(), "xenbr0");
    net
}

/// A frame of ICMPv6 from the remote station, with these options before the message.
fn icmp(to: ([u8; 6], Ipv6Addr), source: Ipv6Addr, hops: u8, options: &[u8], message: &[u8]) -> Vec<u8> {
    let next = if options.is_empty() { 58 } else { 0 };
    let length = (options.len() + message.len()) as u8;
    let ends = [source.octets(), to.1.octets()].concat();
    let mut sum = Sum::new();
    sum.add(&[&ends[..], &[0, 0, 0, message.len() as u8, 0, 0, 0, 58], message].concat());
    let mut message = Vec::from(message);
    message[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    let head = [0x86, 0xdd, 0x60, 0, 0, 0, 0, length, next, hops];
    [&to.0[..], &REMOTE_MAC, &head, &ends, options, &message].concat()
}

/// Of neighbour discovery, with the remote station's Ethernet address.
fn neighbour(kind: u8, target: Ipv6Addr) -> Vec<u8> {
    let (flags, option) = if kind == 136 { (0x60, 2) } else { (0, 1) };
    [&[kind, 0, 0, 0, flags, 0, 0, 0][..], &target.octets(), &[option, 1], &REMOTE_MAC].concat()
}

/// A segment of the remote station to the guest, of 1,000 bytes.
fn segment_v6(number: u32) -> Vec<u8> {
    let mut frame = tcp(mac_of(OWN), REMOTE_MAC, true, 1000);
    frame[22..38].copy_from_slice(&REMOTE_V6.octets());
    frame[38..54].copy_from_slice(&GUEST_V6.octets());
    frame[54..58].copy_from_slice(&[0, 80, 0x30, 0x39]);
    frame[58..62].copy_from_slice(&(1 + 1000 * number).to_be_bytes());
    frame[67] = 0x10;
    complete(&mut frame);
    frame
}

/// Super-frames of IPv6 to the wire, and segments back as one.
#[test]
fn ipv6_to_the_wire_and_back() {
    let mut net = routed_v6();
    let inner = mac_of(gateway_for(GUEST).address);
    let gso = Some(Gso { kind: GsoKind::TcpV6, size: 1428 });
    let bytes = tcp(inner, net.guests[0].mac, true, 30_000);
    let packet = Outgoing { bytes, checksum: Checksum::Blank, gso, ..Outgoing::default() };
    net.send(0, &packet);
    let question = take_sent(&mut net);
    assert_eq!((question.len(), &question[0][..6], question[0][54]), (1, &[0x33, 0x33, 0xff, 0, 0, 2][..], 135));
    receive(&mut net, Vec::from([icmp((mac_of(OWN).0, OWN_V6), REMOTE_V6, 255, &[], &neighbour(136, REMOTE_V6))]));
    // It waited on its ring.
    net.now = net.now + Duration::from_millis(1);
    net.run();
    let mut sent = take_sent(&mut net);
    assert_eq!(sent.len(), 1);
    assert_eq!((&sent[0][..6], &sent[0][6..12], sent[0][21]), (&REMOTE_MAC[..], &mac_of(OWN).0[..], 63));
    assert_eq!(sent[0][22..], packet.bytes[22..]);
    complete(&mut sent[0]);
    assert!(is_complete(&sent[0]));
    receive(&mut net, (0..3).map(segment_v6).collect());
    let arrived = net.guests[0].arrived();
    let packet = arrived.last().expect("the segments");
    assert_eq!(
        (arrived.len(), packet.bytes.len(), packet.gso.map(|gso| gso.kind)),
        (1, 86 + 3000, Some(GsoKind::TcpV6))
    );
    assert_eq!((&packet.bytes[..12], packet.bytes[21]), (&[&net.guests[0].mac[..], &inner.0].concat()[..], 63));
    net.end();
}

/// A router on the wire asks which groups are wanted: netdom gets questions for its guest all the same.
#[test]
fn a_querier_takes_no_questions_for_guests_away() {
    let mut net = routed_v6();
    let router_alert = [58, 0, 5, 2, 0, 0, 1, 0];
    let link_local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
    let query = icmp(ALL_NODES, link_local, 1, &router_alert, &[&[130, 0, 0, 0, 0, 10, 0, 0][..], &[0; 16]].concat());
    receive(&mut net, Vec::from([query]));
    // Who did not answer gets no groups from now on.
    net.now = net.now + Duration::from_secs(5);
    net.guests[1].arrived();
    receive(&mut net, Vec::from([icmp(GUESTS_GROUP, link_local, 255, &[], &neighbour(135, GUEST_V6))]));
    let sent = take_sent(&mut net);
    assert_eq!((sent.len(), sent[0][54], &sent[0][62..78]), (1, 136, &GUEST_V6.octets()[..]));
    assert_eq!((&sent[0][..6], &sent[0][6..12]), (&REMOTE_MAC[..], &mac_of(OWN).0[..]));
    assert_eq!(net.guests[1].arrived().len(), 0, "the querier was heard");
    net.end();
}

/// By the clock alone, with no packet that comes in.
#[test]
fn guests_are_told_of_their_way_out() {
    let mut net = routed_v6();
    let mut due = net.run().deadline.expect("the first time");
    let mut told = 0;
    while told < 3 {
        net.now = due;
        due = net.run().deadline.expect("the next time");
        for packet in net.guests[0].arrived() {
            assert_eq!(
                (&packet.bytes[..6], packet.bytes[54], &packet.bytes[60..62]),
                (&net.guests[0].mac[..], 134, &[7, 8][..])
            );
            told += 1;
        }
    }
    assert!(
        net.now.since(Instant(0)) > Duration::from_secs(1200) && net.now.since(Instant(0)) < Duration::from_secs(1300)
    );
    assert_eq!((take_sent(&mut net).len(), net.guests[1].arrived().len()), (0, 0));
    net.end();
}
