//! The wire's services, as a host with another TCP/IP stack instance sees them over the socket. Host.

mod common;

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use common::{Cable, Host, path};
use smoltcp::socket::{tcp, udp};
use smoltcp::wire::{IpAddress, IpCidr};
use wire::protocol::{
    Datagram, DatagramKind, Digest, FLOW_PORT, FlowReport, FlowRequest, Header, Operation, Pattern, TRANSFER_PORT,
    Trailer,
};
use wire::{Config, Direction, Wire};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn v4() -> [IpCidr; 2] {
    [IpCidr::new(IpAddress::v4(10, 9, 2, 2), 16), IpCidr::new(IpAddress::v6(0xfd09, 0, 0, 0, 0, 0, 0, 9), 64)]
}

fn start(name: &str) -> (Wire, Host) {
    let config = Config::new(path(name), 0);
    let wire = Wire::start(config).expect("the wire starts");
    let host = Host::new(&path(name), MAC, &v4(), 1500);
    (wire, host)
}

/// Runs one transfer as a client; the trailer, and the digests of what the client sent and received.
fn transfer(host: &mut Host, to: IpAddress, local: u16, header: Header, buffer: usize) -> (Trailer, u64, u64) {
    let handle = host.connect(to, TRANSFER_PORT, local, buffer);
    host.tcp(handle).send_slice(&header.encode()).expect("connected");
    let mut send_left = if header.operation.server_receives() { header.bytes } else { 0 };
    let mut receive_left = if header.operation.server_sends() { header.bytes } else { 0 };
    let mut pattern = Pattern::new(header.random.then_some(header.seed));
    let digest = |flows: bool| Digest::new(header.check && flows);
    let (mut sent, mut received) =
        (digest(header.operation.server_receives()), digest(header.operation.server_sends()));
    let mut trailer = Vec::new();
    host.poll_until(|sockets| {
        let socket = sockets.get_mut::<tcp::Socket<'_>>(handle);
        while send_left > 0 && socket.can_send() {
            send_left -= socket
                .send(|room| {
                    let length = room.len().min(send_left as usize);
                    pattern.fill(&mut room[..length]);
                    sent.update(&room[..length]);
                    (length, length as u64)
                })
                .expect("connected");
        }
        while socket.can_recv() {
            receive_left -= socket
                .recv(|data| {
                    let length = data.len().min(receive_left as usize);
                    received.update(&data[..length]);
                    trailer.extend_from_slice(&data[length..]);
                    (data.len(), length as u64)
                })
                .expect("connected");
        }
        !socket.may_recv() && !socket.can_recv()
    });
    host.tcp(handle).close();
    host.poll();
    host.sockets.remove(handle);
    let trailer = Trailer::decode(&trailer).expect("the wire ends with a trailer");
    (trailer, sent.value(), received.value())
}

#[test]
fn transfers_arrive_whole_both_ways_over_both_protocols() {
    let (wire, mut host) = start("transfers");
    let peers = [IpAddress::v4(10, 9, 0, 1), IpAddress::v6(0xfd09, 0, 0, 0, 0, 0, 0, 1)];
    let mut local = 40_000;
    for to in peers {
        for operation in [Operation::Send, Operation::Receive, Operation::Both] {
            for bytes in [0, 1, 3_000_001] {
                local += 1;
                let header = Header { operation, random: true, check: true, bytes, seed: u64::from(local) };
                let (trailer, sent, received) = transfer(&mut host, to, local, header, 1 << 20);
                let expected = |flows: bool| if flows { bytes } else { 0 };
                assert_eq!(trailer.received, expected(operation.server_receives()), "{header:?}");
                assert_eq!(trailer.sent, expected(operation.server_sends()), "{header:?}");
                assert_eq!(trailer.received_digest, sent, "{header:?}");
                assert_eq!(trailer.sent_digest, received, "{header:?}");
            }
        }
    }
    let stats = wire.stats();
    assert_eq!(stats.transfers.len(), 18);
    assert!(stats.transfers.iter().all(|transfer| transfer.complete));
    assert_eq!(stats.dropped_out, 0);
}

#[test]
fn the_timeline_has_what_came_and_the_silence_after_it() {
    let (wire, mut host) = start("timeline");
    assert_eq!(wire.timeline(), None);
    let interval = Duration::from_millis(5);
    wire.start_timeline(interval);
    let bytes = 3_000_001;
    for (local, operation) in [(1, Operation::Send), (2, Operation::Receive)] {
        let header = Header { operation, random: false, check: false, bytes, seed: 1 };
        transfer(&mut host, IpAddress::v4(10, 9, 0, 1), 44_000 + local, header, 1 << 20);
    }
    std::thread::sleep(8 * interval);
    let timeline = wire.timeline().expect("it was asked for");
    assert_eq!((timeline.interval, timeline.bytes.iter().sum::<u64>()), (interval, bytes));
    let silent = timeline.bytes.iter().rev().take_while(|bytes| **bytes == 0).count();
    assert!(silent >= 7, "{timeline:?}");
    wire.start_timeline(interval);
    assert!(wire.timeline().is_some_and(|timeline| timeline.bytes.iter().all(|bytes| *bytes == 0)));
}

#[test]
fn throughput_is_printed() {
    let (_wire, mut host) = start("throughput");
    let megabytes = if cfg!(debug_assertions) { 64 } else { 2048 };
    for (local, operation, check) in [
        (1, Operation::Send, false),
        (2, Operation::Receive, false),
        (3, Operation::Send, true),
        (4, Operation::Receive, true),
    ] {
        let header = Header { operation, random: check, check, bytes: megabytes << 20, seed: 1 };
        let before = Instant::now();
        transfer(&mut host, IpAddress::v4(10, 9, 0, 1), 41_000 + local, header, 2 << 20);
        let rate = (header.bytes * 8) as f64 / before.elapsed().as_secs_f64() / 1e6;
        println!("{operation:?}, check {check}: {rate:.0} Mbit/s");
    }
}

#[test]
fn flows_are_counted_and_generated() {
    let (wire, mut host) = start("flows");
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4096], vec![0; 1 << 20]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(5000).expect("a fresh socket binds");
    let handle = host.sockets.add(socket);
    let to = (IpAddress::v4(10, 9, 0, 1), FLOW_PORT);
    let head = |kind, value| Datagram { kind, flow: 3, value }.encode();
    for sequence in (0..100).filter(|sequence| *sequence != 50) {
        let socket = host.sockets.get_mut::<udp::Socket<'_>>(handle);
        socket.send_slice(&head(DatagramKind::Data, sequence), to).expect("room");
    }
    let socket = host.sockets.get_mut::<udp::Socket<'_>>(handle);
    socket.send_slice(&head(DatagramKind::Query, 0), to).expect("room");
    let mut report = None;
    host.poll_until(|sockets| {
        if let Ok((data, _)) = sockets.get_mut::<udp::Socket<'_>>(handle).recv() {
            let (datagram, body) = Datagram::decode(data).expect("ours");
            assert_eq!(datagram.kind, DatagramKind::Report);
            report = FlowReport::decode(body).ok();
        }
        report.is_some()
    });
    let report = report.expect("there is one");
    assert_eq!((report.received, report.missing, report.reordered), (99, 1, 0));

    for (per_second, least) in [(1000, 150), (0, 1000)] {
        let request = FlowRequest { size: 18, per_second, milliseconds: 200, window: 4096 };
        let message = [head(DatagramKind::Generate, 0).as_slice(), &request.encode()].concat();
        let socket = host.sockets.get_mut::<udp::Socket<'_>>(handle);
        socket.send_slice(&message, to).expect("room");
        let (mut seen, mut farewells, mut total) = (0, 0, 0);
        host.poll_until(|sockets| {
            while let Ok((data, _)) = sockets.get_mut::<udp::Socket<'_>>(handle).recv() {
                let (datagram, _) = Datagram::decode(data).expect("ours");
                match datagram.kind {
                    DatagramKind::Data => seen += 1,
                    _ => (farewells, total) = (farewells + 1, datagram.value),
                }
            }
            farewells == 3
        });
        println!("generated at pace {per_second}: {total} in 0.2 s, {seen} seen");
        assert!(total >= least, "{total} of at least {least}");
        if per_second > 0 {
            assert!(total <= 201 && seen == total, "{seen} of {total}");
        }
    }
    assert_eq!(wire.stats().udp_sunk, 99);
}

#[test]
fn echo_comes_back_by_tcp() {
    let (_wire, mut host) = start("echo");
    let handle = host.connect(IpAddress::v4(10, 9, 0, 1), wire::protocol::ECHO_PORT, 42_000, 65536);
    host.tcp(handle).send_slice(b"hello").expect("connected");
    let mut back = Vec::new();
    host.poll_until(|sockets| {
        let _ = sockets.get_mut::<tcp::Socket<'_>>(handle).recv(|data| {
            back.extend_from_slice(data);
            (data.len(), ())
        });
        back == b"hello"
    });
}

#[test]
fn a_nic_that_goes_and_comes_back_is_served_again() {
    let (wire, mut host) = start("again");
    host.connect(IpAddress::v4(10, 9, 0, 1), TRANSFER_PORT, 43_000, 65536);
    drop(host);
    let mut host = Host::new(&path("again"), MAC, &v4(), 1500);
    host.connect(IpAddress::v4(10, 9, 0, 1), TRANSFER_PORT, 43_001, 65536);
    assert_eq!(wire.stats().connects, 2);
}

#[test]
fn injected_frames_arrive_and_all_frames_are_seen() {
    let name = path("inject");
    let wire = Wire::start(Config { capture: 10, ..Config::new(&name, 0) }).expect("the wire starts");
    let mut cable = Cable::connect(&name);
    let garbage = vec![0xff; 61];
    let deadline = Instant::now() + Duration::from_secs(5);
    while wire.stats().connects == 0 {
        assert!(Instant::now() < deadline, "not accepted");
    }
    wire.inject([garbage.clone()]);
    assert_eq!(cable.receive(Duration::from_secs(5)), Some(garbage.clone()));
    cable.send(&[1; 5]);
    cable.send(&[0xff; 20]);
    cable.poll();
    while wire.stats().frames_in < 2 {
        assert!(Instant::now() < deadline, "not seen");
    }
    let seen: Vec<_> = wire.captured().into_iter().map(|captured| (captured.direction, captured.frame.len())).collect();
    let expected = [(Direction::Out, 61), (Direction::In(0), 5), (Direction::In(0), 20)];
    assert_eq!(seen, expected);
    assert_eq!(wire.stats().runts_in, 1);
    assert!(wire.captured().is_empty());
}

#[test]
fn two_nics_on_one_segment_reach_each_other_and_the_peer() {
    let names = [path("joined-a"), path("joined-b")];
    let wire = Wire::start(Config { ports: names.to_vec(), ..Config::new(&names[0], 0) }).expect("the wire starts");
    let [mut first, mut second] = names.each_ref().map(|name| Cable::connect(name));
    while wire.stats().connects < 2 {}
    let frame =
        |to: u8, from: u8| [[2, 0, 0, 0, 0, to], [2, 0, 0, 0, 0, from]].concat().into_iter().chain([0x88, 0xb5]);
    let unknown: Vec<u8> = frame(2, 1).collect();
    first.send(&unknown);
    first.poll();
    assert_eq!(second.receive(Duration::from_secs(5)), Some(unknown));
    let back: Vec<u8> = frame(1, 2).collect();
    second.send(&back);
    second.poll();
    assert_eq!(first.receive(Duration::from_secs(5)), Some(back.clone()));
    // A frame for its own port goes nowhere.
    first.send(&back);
    assert_eq!(first.receive(Duration::from_millis(50)), None);
    assert_eq!(second.receive(Duration::from_millis(50)), None);
}

/// A packet of ICMP in fragments, from the host with this number to the wire's.
fn fragments(to: [u8; 6], host: u8, message: &[u8]) -> Vec<Vec<u8>> {
    let count = message.len().div_ceil(1480);
    let pieces = message.chunks(1480).enumerate();
    let frame = |(place, piece): (usize, &[u8])| {
        let length = (20 + piece.len() as u16).to_be_bytes();
        let offset = (place as u16 * 185 + if place + 1 < count { 0x2000 } else { 0 }).to_be_bytes();
        let head = [0x45, 0, length[0], length[1], 0, 7, offset[0], offset[1], 64, 1, 0, 0];
        let mut header = [&head[..], &[10, 9, 2, host, 10, 9, 0, 1]].concat();
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum);
        [&to[..], &[2, 0, 0, 0, 0, host, 8, 0], &header, piece].concat()
    };
    pieces.map(frame).collect()
}

fn checksum(bytes: &[u8]) -> [u8; 2] {
    let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum();
    let sum = (sum >> 16) + (sum & 0xffff);
    (!((sum >> 16) + sum) as u16).to_be_bytes()
}

#[test]
fn answers_in_fragments_to_two_hosts_at_once_are_whole() {
    let name = path("fragments");
    let wire = Wire::start(Config::new(&name, 0)).expect("the wire starts");
    let mac = wire.config().mac;
    let mut cable = Cable::connect(&name);
    // It answers hosts that asked where it is.
    for host in [1, 2] {
        let ends = [&[2, 0, 0, 0, 0, host, 10, 9, 2, host][..], &[0; 6], &[10, 9, 0, 1]].concat();
        let head = [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
        cable.send(&[&[0xff; 6][..], &[2, 0, 0, 0, 0, host], &head, &ends].concat());
        cable.receive(Duration::from_secs(5)).expect("an answer by ARP");
    }
    for round in 0..20_u8 {
        let mut question = vec![8, 0, 0, 0, 0, 1, 0, round];
        question.resize(8 + 4000, round);
        let sum = checksum(&question);
        question[2..4].copy_from_slice(&sum);
        let [first, second] = [1, 2].map(|host| fragments(mac, host, &question));
        first.iter().zip(&second).flat_map(|(first, second)| [first, second]).for_each(|frame| cable.send(frame));
        let mut answers = [Vec::new(), Vec::new()];
        for _ in 0..first.len() + second.len() {
            let frame = cable.receive(Duration::from_secs(5)).expect("all fragments of both answers");
            let host = usize::from(frame[5]);
            assert_eq!(frame[30..34], [10, 9, 2, host as u8]);
            let offset = usize::from(u16::from_be_bytes([frame[20], frame[21]]) & 0x1fff) * 8;
            assert_eq!(offset, answers[host - 1].len());
            answers[host - 1].extend_from_slice(&frame[34..]);
        }
        for answer in &answers {
            assert_eq!((answer[0], &answer[4..]), (0, &question[4..]));
        }
    }
}

#[test]
fn a_lease_is_offered_acknowledged_and_kept() {
    use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, Ipv4Address};
    let (wire, mut host) = start("lease");
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 16384]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(68).expect("a fresh socket binds");
    let handle = host.sockets.add(socket);
    let mut ask = |kind, wanted: Option<Ipv4Address>, mac: u8| {
        let request = DhcpRepr {
            message_type: kind,
            transaction_id: 77,
            secs: 0,
            client_hardware_address: EthernetAddress([2, 0, 0, 0, 0, mac]),
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip: wanted,
            client_identifier: None,
            server_identifier: None,
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        let mut bytes = vec![0; request.buffer_len()];
        request.emit(&mut DhcpPacket::new_unchecked(bytes.as_mut_slice())).expect("it fits");
        let to = (IpAddress::Ipv4(Ipv4Addr::BROADCAST), 67);
        host.sockets.get_mut::<udp::Socket<'_>>(handle).send_slice(&bytes, to).expect("room");
        let mut answer = None;
        host.poll_until(|sockets| {
            if let Ok((data, _)) = sockets.get_mut::<udp::Socket<'_>>(handle).recv() {
                let packet = DhcpPacket::new_checked(data).expect("DHCP");
                let reply = DhcpRepr::parse(&packet).expect("DHCP");
                assert_eq!((reply.transaction_id, reply.server_identifier), (77, Some(Ipv4Addr::new(10, 9, 0, 1))));
                answer = Some((reply.message_type, reply.your_ip, reply.router, reply.subnet_mask));
            }
            answer.is_some()
        });
        answer.expect("there is one")
    };
    let router = Some(Ipv4Addr::new(10, 9, 0, 1));
    let mask = Some(Ipv4Addr::new(255, 255, 0, 0));
    let first = Ipv4Addr::new(10, 9, 1, 1);
    let second = Ipv4Addr::new(10, 9, 1, 2);
    for (kind, wanted, mac, expected) in [
        (DhcpMessageType::Discover, None, 1, (DhcpMessageType::Offer, first, router, mask)),
        (DhcpMessageType::Request, Some(first), 1, (DhcpMessageType::Ack, first, router, mask)),
        (DhcpMessageType::Discover, None, 2, (DhcpMessageType::Offer, second, router, mask)),
        (DhcpMessageType::Discover, None, 1, (DhcpMessageType::Offer, first, router, mask)),
        (DhcpMessageType::Request, Some(first), 2, (DhcpMessageType::Nak, Ipv4Addr::UNSPECIFIED, None, None)),
    ] {
        assert_eq!(ask(kind, wanted, mac), expected, "{kind:?} of {mac}");
    }
    assert_eq!(wire.stats().leases.len(), 2);
}
