//! A router whose address is by DHCP, and whose guests ask it for names. Floor 3.

use super::super::arp::Packet;
use super::super::config::{Protocol, Setup, Uplink};
use super::super::dhcp::Message;
use super::super::nat::Endpoint;
use super::super::tests::{ONE, UPLINK, echo, handle, ipv4, read, transport};
use super::super::{HEAD, Routed, gateway_for, mac_of};
use super::*;
use crate::offload::headers::put;
use crate::statistics::DropCause;
use alloc::string::String;
use alloc::vec::Vec;

const NIC: MacAddress = MacAddress([0x52, 0x54, 0, 1, 2, 3]);
const OWN_MAC: MacAddress = MacAddress([6, 0x54, 0, 1, 2, 3]);
const OWN: Ipv4Addr = Ipv4Addr::new(10, 9, 1, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);
const SERVER_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const GUEST: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 2);
const GUEST_MAC: MacAddress = MacAddress([0, 0x16, 0x3e, 0, 0, 1]);
const FAR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const DNS: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 53);

fn at(seconds: u64) -> Instant {
    Instant::default() + Duration::from_secs(100 + seconds)
}

/// Without a NIC yet.
fn router(dns: &[Ipv4Addr]) -> Router {
    let uplink = Some(Uplink { bridge: String::from("xenbr0"), network: None, gateway: None, v6: None });
    let mut router = Router::new(&Setup { uplink, dns: dns.into(), ..Setup::default() }, 1500, 1);
    router.add_leased_uplink(UPLINK, 9);
    let guest = Routed { mac: GUEST_MAC, addresses: Vec::from([GUEST]), addresses_v6: Vec::new(), translated: true };
    assert!(router.add_guest(ONE, guest).is_some());
    router
}

/// The message of the next frame, which is one of DHCP.
fn asked(router: &mut Router, seconds: u64) -> Option<(Message, MacAddress)> {
    let (port, frame) = router.poll(at(seconds))?;
    let (to, from, source, destination) = read(frame);
    assert_eq!((port, from, source.1, destination.1), (UPLINK, OWN_MAC, 68, 67));
    Some((Message::parse(&frame[42..]).unwrap(), to))
}

/// A server's message, in a frame.
fn said(kind: u8, message: &Message, length: u32) -> Vec<u8> {
    let mut udp = alloc::vec![0; 8 + 240];
    put(&mut udp, 0, &[0, 67, 0, 68]);
    put(&mut udp, 8, &[2, 1, 6, 0]);
    put(&mut udp, 12, &message.transaction.to_be_bytes());
    put(&mut udp, 24, &OWN.octets());
    put(&mut udp, 36, &message.mac.0);
    put(&mut udp, 244, &[99, 130, 83, 99]);
    udp.extend([53, 1, kind, 54, 4, 10, 9, 0, 1, 1, 4, 255, 255, 0, 0, 3, 4, 10, 9, 0, 1, 6, 4, 10, 9, 0, 53, 51, 4]);
    udp.extend(length.to_be_bytes());
    udp.push(255);
    let all = (udp.len() as u16).to_be_bytes();
    put(&mut udp, 4, &all);
    ipv4(OWN_MAC, SERVER_MAC, 17, SERVER, OWN, &udp)
}

/// With a lease of so many seconds.
fn leased(dns: &[Ipv4Addr], length: u32) -> Router {
    let mut router = router(dns);
    assert_eq!(router.note_wire(NIC, true, at(0)), Some(OWN_MAC));
    let (discover, to) = asked(&mut router, 0).unwrap();
    assert_eq!(to, MacAddress::BROADCAST);
    let mut offer = said(2, &discover, length);
    let told = Frame { length: offer.len(), blank: false, segment: None };
    assert_eq!(router.handle(UPLINK, &mut offer[..HEAD], told, at(0)), Verdict::More);
    assert_eq!(handle(&mut router, UPLINK, &mut offer, 0), Verdict::Taken);
    assert_eq!((router.address(), router.deadline()), (None, Some(at(0))));
    let (request, _) = asked(&mut router, 0).unwrap();
    assert_eq!(handle(&mut router, UPLINK, &mut said(5, &request, length), 0), Verdict::Taken);
    assert_eq!(router.address(), Some(Network { address: OWN, length: 16 }));
    router
}

/// Has all stations that are asked for answer; the addresses that were asked for.
fn answer_all(router: &mut Router, seconds: u64) -> Vec<Ipv4Addr> {
    let mut all = Vec::new();
    while let Some((port, frame)) = router.poll(at(seconds)) {
        assert_eq!(port, UPLINK);
        let question = Packet::parse(frame).expect("a question of ARP");
        assert!(question.asks && question.sender == (OWN_MAC, OWN));
        all.push(question.target.1);
        let [.., last] = question.target.1.octets();
        let answer = Packet {
            asks: false,
            sender: (MacAddress([2, 0, 0, 0, 0, last]), question.target.1),
            target: question.sender,
        };
        handle(router, UPLINK, &mut answer.frame(OWN_MAC), seconds);
    }
    all
}

/// The DNS servers that DHCP tells a guest.
fn told_dns(router: &mut Router) -> Vec<u8> {
    let mut udp = Vec::from([0, 68, 0, 67, 1, 52, 0, 0]);
    udp.extend([0; 300]);
    put(&mut udp, 8, &[1, 1, 6, 0, 1, 2, 3, 4]);
    put(&mut udp, 36, &GUEST_MAC.0);
    put(&mut udp, 244, &[99, 130, 83, 99, 53, 1, 1, 255]);
    let mut frame = ipv4(MacAddress::BROADCAST, GUEST_MAC, 17, Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, &udp);
    assert_eq!(handle(router, ONE, &mut frame, 0), Verdict::Taken);
    let (_, bytes) = router.take_answer().expect("an offer");
    let mut options = &bytes[42 + 240..];
    while let [code, length, rest @ ..] = options {
        let (value, rest) = rest.split_at(usize::from(*length));
        if *code == 6 {
            return value.into();
        }
        if *code == 255 {
            break;
        }
        options = rest;
    }
    Vec::new()
}

fn datagram(source: u16, destination: (Ipv4Addr, u16)) -> Vec<u8> {
    let inner = mac_of(gateway_for(GUEST).address);
    ipv4(inner, GUEST_MAC, 17, GUEST, destination.0, &transport(17, (GUEST, source), destination, 0))
}

#[test]
fn the_lease_is_the_way_out_and_its_end_is_the_end_of_it() {
    let mut none = router(&[]);
    assert!(none.poll(at(0)).is_none() && none.deadline().is_none(), "there is no NIC");
    assert_eq!(handle(&mut none, ONE, &mut datagram(4000, (FAR, 9)), 0), Verdict::Drop(DropCause::NotRouted));
    let (_, error) = none.take_answer().expect("an error");
    assert_eq!(error[34], 3);
    // Nobody is answered for an address that there is not.
    let probe =
        Packet { asks: true, sender: (SERVER_MAC, SERVER), target: (MacAddress::default(), Ipv4Addr::UNSPECIFIED) };
    assert_eq!(handle(&mut none, UPLINK, &mut probe.frame(MacAddress::BROADCAST), 0), Verdict::Taken);
    assert_eq!(none.take_answer(), None);
    let mut own = ipv4(MacAddress::default(), SERVER_MAC, 1, SERVER, Ipv4Addr::UNSPECIFIED, &echo(8, 1));
    assert_ne!(handle(&mut none, UPLINK, &mut own, 0), Verdict::Send(UPLINK));

    let mut router = leased(&[], 100);
    assert!(router.poll_lease().is_some_and(|lease| lease.is_some()));
    assert_eq!(router.poll_lease(), None);
    // It says that it has the address, and asks for the gateway and the name server before a guest needs them.
    assert_eq!(answer_all(&mut router, 0), [OWN, SERVER, DNS]);
    let mut frame = datagram(4000, (FAR, 9));
    assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Send(UPLINK));
    assert_eq!(read(&frame), (SERVER_MAC, OWN_MAC, (OWN, 4000), (FAR, 9)));
    let question = Packet { asks: true, sender: (SERVER_MAC, SERVER), target: (MacAddress::default(), OWN) };
    handle(&mut router, UPLINK, &mut question.frame(MacAddress::BROADCAST), 1);
    assert!(router.take_answer().is_some());
    let counts = *router.counts();
    assert_eq!((counts.forwarded, counts.translated, router.sessions()), (1, 1, Some(1)));
    // It is renewed.
    assert_eq!(router.deadline().map(|due| due.since(at(0)).as_secs()), Some(20));
    answer_all(&mut router, 20);
    let (renewal, to) = asked(&mut router, 50).unwrap();
    assert_eq!((renewal.client, to), (OWN, SERVER_MAC));
    handle(&mut router, UPLINK, &mut said(5, &renewal, 100), 50);
    assert_eq!(router.poll_lease(), None);
    // And lost: the guest is told.
    while router.poll(at(150)).is_some() {}
    assert_eq!((router.address(), router.poll_lease()), (None, Some(None)));
    assert_eq!(handle(&mut router, ONE, &mut datagram(4000, (FAR, 9)), 151), Verdict::Drop(DropCause::NotRouted));
    assert_eq!(router.counts().drops[DropCause::NotRouted as usize], 1);
}

#[test]
fn the_gateway_is_known_all_the_time() {
    let mut router = leased(&[], 100_000);
    answer_all(&mut router, 0);
    for seconds in (0..1000).step_by(10) {
        answer_all(&mut router, seconds);
        assert_eq!(
            handle(&mut router, ONE, &mut datagram(4000, (FAR, 9)), seconds),
            Verdict::Send(UPLINK),
            "{seconds}"
        );
    }
}

#[test]
fn guests_ask_the_router_for_names() {
    let inner = gateway_for(GUEST).address;
    let far = Ipv4Addr::new(9, 9, 9, 9);
    for (dns, server, station) in [(&[][..], DNS, 53), (&[far], far, 1)] {
        let mut router = leased(dns, 1000);
        answer_all(&mut router, 0);
        assert_eq!(told_dns(&mut router), inner.octets());
        for protocol in [17, 6] {
            let question = transport(protocol, (GUEST, 4000), (inner, 53), 2);
            let mut frame = ipv4(mac_of(inner), GUEST_MAC, protocol, GUEST, inner, &question);
            assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Send(UPLINK));
            let expected = (MacAddress([2, 0, 0, 0, 0, station]), OWN_MAC, (OWN, 4000), (server, 53));
            assert_eq!(read(&frame), expected);
            let answer = transport(protocol, (server, 53), (OWN, 4000), 0x12);
            let mut frame = ipv4(OWN_MAC, SERVER_MAC, protocol, server, OWN, &answer);
            assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), Verdict::Send(ONE));
            assert_eq!(read(&frame), (GUEST_MAC, mac_of(inner), (inner, 53), (GUEST, 4000)));
        }
        // An answer of any other port or station is none.
        for remote in [(server, 54), (FAR, 53)] {
            let mut frame = ipv4(OWN_MAC, SERVER_MAC, 17, remote.0, OWN, &transport(17, remote, (OWN, 4000), 0));
            assert_eq!(handle(&mut router, UPLINK, &mut frame, 1), Verdict::Drop(DropCause::NotRouted));
        }
        // From the same port the guest asks the server itself: each answer is from where it was asked.
        let mut frame = datagram(4000, (server, 53));
        assert_eq!(handle(&mut router, ONE, &mut frame, 2), Verdict::Send(UPLINK));
        let (_, _, (_, port), _) = read(&frame);
        assert_ne!(port, 4000);
        for (port, seen) in [(port, server), (4000, inner)] {
            let mut frame = ipv4(OWN_MAC, SERVER_MAC, 17, server, OWN, &transport(17, (server, 53), (OWN, port), 0));
            assert_eq!(handle(&mut router, UPLINK, &mut frame, 2), Verdict::Send(ONE));
            assert_eq!(read(&frame).2, (seen, 53));
        }
        // An error about a question is about what the guest sent.
        let mut error = Vec::from([3, 3, 0, 0, 0, 0, 0, 0]);
        error.extend(&ipv4(OWN_MAC, OWN_MAC, 17, OWN, server, &transport(17, (OWN, 4000), (server, 53), 0))[START..]);
        let mut sum = crate::offload::checksum::Sum::new();
        sum.add(&error);
        put(&mut error, 2, &sum.checksum().to_be_bytes());
        let mut frame = ipv4(OWN_MAC, SERVER_MAC, 1, server, OWN, &error);
        assert_eq!(handle(&mut router, UPLINK, &mut frame, 2), Verdict::Send(ONE));
        read(&frame);
        let about = Header::parse(&frame, START + 28).unwrap();
        assert_eq!((about.source, about.destination), (GUEST, inner));
        // Other ports of the router are none, and echoes are answered as before.
        let mut frame = datagram(4000, (inner, 54));
        assert_eq!(handle(&mut router, ONE, &mut frame, 2), Verdict::Drop(DropCause::NotRouted));
        let mut frame = ipv4(mac_of(inner), GUEST_MAC, 1, GUEST, inner, &echo(8, 53));
        assert_eq!(handle(&mut router, ONE, &mut frame, 2), Verdict::Send(ONE));
    }
}

#[test]
fn where_there_is_no_server_to_ask_guests_are_told_what_there_is() {
    // A lease may come with one.
    assert_eq!(told_dns(&mut router(&[])), gateway_for(GUEST).address.octets());
    // The server is a guest, which the others reach themselves.
    let other = Ipv4Addr::new(192, 168, 8, 2);
    let mut router = leased(&[other], 1000);
    let guest = Routed {
        mac: MacAddress([0, 0x16, 0x3e, 0, 0, 2]),
        addresses: Vec::from([other]),
        addresses_v6: Vec::new(),
        translated: true,
    };
    router.add_guest(PortId(4), guest).unwrap();
    assert_eq!(told_dns(&mut router), other.octets());
    let mut frame = datagram(4000, (gateway_for(GUEST).address, 53));
    assert_eq!(handle(&mut router, ONE, &mut frame, 1), Verdict::Drop(DropCause::NotRouted));
    // And a router without DHCP and without `dns=` tells of none.
    assert_eq!(told_dns(&mut super::super::tests::router()), []);
}

#[test]
fn the_lease_and_questions_for_names_go_over_a_life() {
    let mut before = leased(&[], 1000);
    answer_all(&mut before, 0);
    let inner = gateway_for(GUEST).address;
    assert_eq!(handle(&mut before, ONE, &mut datagram(4000, (inner, 53)), 1), Verdict::Send(UPLINK));
    let (lease, sessions) = (before.keep_leases(UPLINK, at(2)).unwrap(), before.keep_sessions(ONE));
    let mut after = router(&[]);
    after.restore_leases(ONE, &lease, at(3));
    assert_eq!(after.address(), None, "it is the way out's");
    after.restore_leases(UPLINK, &lease, at(3));
    after.restore_sessions(ONE, &sessions, at(3));
    assert_eq!((after.address(), after.station_of_uplink()), (before.address(), Some(OWN_MAC)));
    assert_eq!(after.note_wire(MacAddress([2; 6]), false, at(3)), None);
    let answer = transport(17, (DNS, 53), (OWN, 4000), 0);
    let mut frame = ipv4(OWN_MAC, SERVER_MAC, 17, DNS, OWN, &answer);
    assert_eq!(handle(&mut after, UPLINK, &mut frame, 3), Verdict::Send(ONE));
    assert_eq!(read(&frame).2, (inner, 53));
    let (renewal, to) = asked(&mut after, 3).unwrap();
    assert_eq!((renewal.client, to), (OWN, SERVER_MAC));
    // The same guest's port is not another's by that.
    let nat = after.nat.as_ref().unwrap();
    let remote = Endpoint { address: DNS, port: 53 };
    assert!(nat.find_inside(Protocol::Udp, 4000, remote).is_some_and(|inside| inside.resolves));
}

#[test]
fn packets_wait_for_a_station_and_not_for_long() {
    let mut router = leased(&[], 1000);
    let later = |milliseconds: u64| at(0) + Duration::from_millis(milliseconds);
    let send = |router: &mut Router, port: PortId, last: u8, milliseconds: u64| {
        let mut frame = datagram(4000, (Ipv4Addr::new(10, 9, 7, last), 9));
        let told = Frame { length: frame.len(), blank: false, segment: None };
        router.handle(port, &mut frame, told, later(milliseconds))
    };
    assert_eq!(send(&mut router, ONE, 1, 0), Verdict::Later(later(1)));
    let (_, question) = router.take_answer().expect("a question");
    let question = Packet::parse(question).unwrap();
    assert_eq!(router.sessions(), Some(0), "it may be lost yet");
    // For any station: there are 20 ms of a second for all.
    assert_eq!(send(&mut router, ONE, 2, 10), Verdict::Later(later(11)));
    assert_eq!(send(&mut router, ONE, 2, 20), Verdict::Drop(DropCause::NotRouted));
    assert_eq!(send(&mut router, ONE, 3, 999), Verdict::Drop(DropCause::NotRouted));
    assert_eq!(send(&mut router, ONE, 3, 1000), Verdict::Later(later(1001)));
    // What another guest does, does not matter.
    let guest = Routed {
        mac: MacAddress([0, 0x16, 0x3e, 0, 0, 2]),
        addresses: Vec::from([Ipv4Addr::new(192, 168, 7, 3)]),
        addresses_v6: Vec::new(),
        translated: true,
    };
    router.add_guest(PortId(4), guest).unwrap();
    assert_eq!(send(&mut router, PortId(4), 4, 1030), Verdict::Later(later(1031)));
    let answer = Packet { asks: false, sender: (SERVER_MAC, question.target.1), target: question.sender };
    handle(&mut router, UPLINK, &mut answer.frame(OWN_MAC), 1);
    assert_eq!(send(&mut router, ONE, 1, 1035), Verdict::Send(UPLINK));
}
