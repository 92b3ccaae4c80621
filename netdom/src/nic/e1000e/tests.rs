//! The driver against the model: frames byte for byte, rings that wrap and fill, offloads, interrupts, and a device that lies.

use super::descriptors::ReceiveStatus;
use super::model::{ADDRESS, Device, checksum};
use super::registers::{self as reg, Ctrl};
use super::*;
use crate::ethernet::Tag;
use crate::nic::{Fault, Link, Nic, queue};
use crate::offload::headers::{Layout, Network, Transport};
use crate::packet::{Checksum, Fragment, Gso, GsoKind, Offload, Packet};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use split_driver::fakes::{FakeDma, FakePages, FakeXen, closed};
use split_driver::memory::DmaAllocator;
use split_driver::time::Instant;
use xen_pv_sys::PAGE_SIZE;

struct Bench {
    nic: E1000e<Device, FakeDma>,
    device: Device,
    xen: FakeXen,
    pool: Pool,
}

fn start(device: impl FnOnce(&Device), interrupts: Interrupts, options: Options) -> Result<Bench, Error> {
    let xen = FakeXen::new();
    let pool = Pool::new(Box::new(FakePages::new(&xen, 1024)));
    let model = Model::find(0x8086, 0x10D3).expect("the 82574L");
    let hardware = Device::new(&xen);
    device(&hardware);
    let nic = E1000e::new(hardware.clone(), hardware.dma(), model, interrupts, &pool, options, &mut |_| ())?;
    Ok(Bench { nic, device: hardware, xen, pool })
}

fn bench() -> Bench {
    start(|_| (), Interrupts::MsiX(2), Options::default()).expect("the model starts")
}

/// Every test ends so: nothing was done against the datasheet, and all pages are back when the device is stopped.
fn finish(mut bench: Bench) {
    bench.nic.quiesce();
    assert_eq!(bench.device.misuse(), Vec::<&str>::new());
    assert_eq!(bench.xen.take_violations(), [], "accesses beyond what was given");
    assert_eq!(bench.pool.available(), bench.pool.capacity());
}

fn bytes(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|index| ((index * 31 + seed * 7) ^ (index >> 8)) as u8).collect()
}

/// `bytes` in fragments of the given lengths, the last taking the rest, each at an odd place in its page.
fn packet(pool: &Pool, bytes: &[u8], cuts: &[usize]) -> Packet {
    let mut packet = Packet::default();
    let mut rest = bytes;
    let mut cuts = cuts.iter();
    while !rest.is_empty() {
        let length = cuts.next().copied().unwrap_or(PAGE_SIZE).min(rest.len());
        let offset = (PAGE_SIZE - length).min(66);
        let (now, later) = rest.split_at(length);
        let buffer = pool.take().expect("a page");
        assert!(buffer.write(offset, now));
        let fragment = Fragment { buffer, offset: offset as u16, length: length as u16 };
        assert!(packet.fragments.push(fragment).is_ok(), "more pieces than a packet has");
        rest = later;
    }
    packet
}

fn contents(packet: &Packet) -> Vec<u8> {
    let mut all = Vec::new();
    for fragment in &packet.fragments {
        let mut part = vec![0; usize::from(fragment.length)];
        assert!(fragment.buffer.read(usize::from(fragment.offset), &mut part));
        all.append(&mut part);
    }
    all
}

/// A TCP packet with its checksum field as a frontend leaves it: the pseudo-header's sum, length included.
fn tcp(network: Network, payload: usize) -> (Vec<u8>, Layout) {
    transport(network, Transport::Tcp, payload)
}

fn transport(network: Network, transport: Transport, payload: usize) -> (Vec<u8>, Layout) {
    let mut frame = bytes(12, 1);
    let (protocol, header, field) = match transport {
        Transport::Tcp => (6u8, 32, 16),
        Transport::Udp => (17u8, 8, 6),
    };
    let segment = header + payload;
    match network {
        Network::V4 => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend(((20 + segment).min(0xFFFF) as u16).to_be_bytes());
            frame.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
            frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
            let sum = checksum(&frame[14..34], 0);
            frame[24..26].copy_from_slice(&sum.to_be_bytes());
        }
        Network::V6 => {
            frame.extend([0x86, 0xDD, 0x60, 0, 0, 0]);
            frame.extend((segment.min(0xFFFF) as u16).to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend(bytes(32, 9));
        }
    }
    let start = frame.len();
    let mut head = vec![0; header];
    if transport == Transport::Tcp {
        head[..8].copy_from_slice(&[0x13, 0x88, 0, 80, 0xFF, 0xFF, 0xFF, 0x00]);
        head[12] = 0x80;
        head[13] = 0x18 | 0x01;
    } else {
        head[4..6].copy_from_slice(&((segment) as u16).to_be_bytes());
    }
    let pseudo = !checksum(&addresses(&frame, network), u32::from(protocol) + segment as u32);
    head[field..field + 2].copy_from_slice(&pseudo.to_be_bytes());
    frame.extend(head);
    frame.extend(bytes(payload, 3));
    let layout = Layout {
        network,
        transport,
        network_offset: 14,
        transport_offset: start as u16,
        payload_offset: (start + header) as u16,
    };
    (frame, layout)
}

fn addresses(frame: &[u8], network: Network) -> Vec<u8> {
    match network {
        Network::V4 => frame[26..34].to_vec(),
        Network::V6 => frame[22..54].to_vec(),
    }
}

/// Checks every checksum and length of a frame as a receiver would.
fn verify(frame: &[u8], layout: &Layout) {
    let start = usize::from(layout.transport_offset);
    let segment = frame.len() - start;
    let protocol = match layout.transport {
        Transport::Tcp => 6,
        Transport::Udp => 17,
    };
    match layout.network {
        Network::V4 => {
            assert_eq!(checksum(&frame[14..34], 0), 0, "the IPv4 header's checksum");
            assert_eq!(frame[16..18], ((frame.len() - 14) as u16).to_be_bytes());
        }
        Network::V6 => assert_eq!(frame[18..20], (segment as u16).to_be_bytes()),
    }
    let mut covered = addresses(frame, layout.network);
    covered.extend(&frame[start..]);
    assert_eq!(checksum(&covered, protocol + segment as u32), 0, "the transport checksum");
}

fn blank(mut packet: Packet, gso: Option<Gso>) -> Packet {
    packet.offload = Offload { checksum: Checksum::Blank, gso };
    packet
}

#[test]
fn starts_with_the_address_and_the_link() {
    let mut bench = bench();
    assert_eq!(bench.nic.mac_address().0, ADDRESS);
    assert_eq!(bench.nic.link(), Link::Up(1000));
    bench.device.set(reg::STATUS, 0x41u32);
    assert_eq!(bench.nic.link(), Link::Down);
    bench.device.set(reg::STATUS, 0x42u32);
    assert_eq!(bench.nic.link(), Link::Up(100));
    assert!(bench.nic.capabilities().tso_v6);
    finish(bench);
}

#[test]
fn starting_is_quick() {
    let bench = bench();
    let accesses = bench.device.accesses();
    assert!(accesses < 120, "{accesses} register accesses");
    finish(bench);
}

#[test]
fn says_why_it_cannot_start() {
    let options = Options::default();
    let bad_ring = Options { transmit_descriptors: 100, ..options };
    let too_large = Options { max_frame: 20_000, ..options };
    let run = |device: fn(&Device), options| start(device, Interrupts::Single, options).err();
    assert_eq!(run(Device::pull_out, options), Some(Error::Absent { status: u32::MAX }));
    assert_eq!(run(Device::get_stuck, options), Some(Error::Reset { register: "EEC", value: 0 }));
    assert_eq!(run(|_| (), bad_ring), Some(Error::Ring { descriptors: 100 }));
    assert_eq!(run(|_| (), too_large), Some(Error::MaxFrame { asked: 20_000, limit: 9230 }));
}

#[test]
fn a_reset_that_resets_nothing_costs_segmentation_of_ipv6_alone() {
    let mut bench = start(Device::reset_nothing, Interrupts::MsiX(2), Options::default()).expect("it starts");
    let can = bench.nic.capabilities();
    assert!(can.tso_v4 && !can.tso_v6 && can.checksum_v6);
    let frame = bytes(600, 4);
    assert!(queue(&mut bench.nic).transmit(packet(&bench.pool, &frame, &[]), None).is_ok());
    queue(&mut bench.nic).flush();
    assert_eq!(bench.device.sent(), Some(frame));
    finish(bench);
}

#[test]
fn sends_byte_for_byte_through_many_wraps() {
    let mut bench = bench();
    for round in 0..700 {
        let frame = bytes(60 + round * 37 % 1458, round);
        let cuts: &[usize] = match round % 3 {
            0 => &[],
            1 => &[14, 20],
            _ => &[1, 1, 1, 1],
        };
        let packet = packet(&bench.pool, &frame, cuts);
        assert!(queue(&mut bench.nic).transmit(packet, None).is_ok());
        if round % 5 == 0 {
            queue(&mut bench.nic).flush();
            queue(&mut bench.nic).reclaim();
        }
        if round % 5 == 0 {
            while let Some(sent) = bench.device.sent() {
                // Compared below, by number.
                assert!(sent.len() >= 60);
            }
        }
    }
    queue(&mut bench.nic).flush();
    let frame = bytes(900, 77);
    while bench.device.sent().is_some() {}
    assert!(queue(&mut bench.nic).transmit(packet(&bench.pool, &frame, &[14, 20, 300]), None).is_ok());
    queue(&mut bench.nic).flush();
    assert_eq!(bench.device.sent(), Some(frame));
    queue(&mut bench.nic).reclaim();
    assert_eq!(queue(&mut bench.nic).room(), 511);
    assert_eq!(bench.device.contexts(), 0, "no offload, no context");
    finish(bench);
}

#[test]
fn each_frame_arrives_in_order_and_unchanged() {
    let mut bench = bench();
    for round in 0..1000 {
        let frame = bytes(60 + round * 13 % 1458, round);
        assert!(queue(&mut bench.nic).transmit(packet(&bench.pool, &frame, &[40]), None).is_ok());
        queue(&mut bench.nic).flush();
        assert_eq!(bench.device.sent(), Some(frame), "round {round}");
        assert_eq!(queue(&mut bench.nic).reclaim(), 1);
    }
    finish(bench);
}

#[test]
fn a_full_ring_gives_the_packet_back_and_drains() {
    let options = Options { transmit_descriptors: 64, ..Options::default() };
    let mut bench = start(Device::be_lazy, Interrupts::MsiX(2), options).expect("it starts");
    let mut queued = 0;
    let returned = loop {
        let frame = bytes(100, queued);
        match queue(&mut bench.nic).transmit(packet(&bench.pool, &frame, &[50]), None) {
            Ok(()) => queued += 1,
            Err(packet) => break packet,
        }
    };
    assert_eq!(contents(&returned), bytes(100, queued), "unchanged");
    assert!(queued >= 29, "{queued}");
    queue(&mut bench.nic).flush();
    assert_eq!(queue(&mut bench.nic).reclaim(), 0, "nothing is sent yet");
    assert!(queue(&mut bench.nic).transmit(returned, None).is_err());
    bench.device.transmit();
    assert_eq!(queue(&mut bench.nic).reclaim(), queued);
    assert_eq!(queue(&mut bench.nic).room(), 63);
    finish(bench);
}

#[test]
fn long_batches_are_reported_on_in_between() {
    let mut bench = bench();
    for round in 0..200 {
        let packet = packet(&bench.pool, &bytes(60, round), &[]);
        assert!(queue(&mut bench.nic).transmit(packet, None).is_ok());
    }
    queue(&mut bench.nic).flush();
    let reports = (0..200)
        .filter(|index| {
            let at = bench.device.transmit_descriptor(*index);
            let mut status = [0];
            bench.xen.device_read(at + 12, &mut status);
            status[0] & 1 != 0
        })
        .count();
    assert_eq!(reports, 4);
    assert_eq!(queue(&mut bench.nic).reclaim(), 200);
    finish(bench);
}

#[test]
fn completes_checksums_with_one_context_for_many() {
    let mut bench = bench();
    for network in [Network::V4, Network::V6] {
        for kind in [Transport::Tcp, Transport::Udp] {
            for size in [1, 64, 1001] {
                let (frame, layout) = transport(network, kind, size);
                let packet = blank(packet(&bench.pool, &frame, &[100]), None);
                let layout = Some(&layout);
                assert!(queue(&mut bench.nic).transmit(packet, layout).is_ok());
            }
        }
    }
    queue(&mut bench.nic).flush();
    assert_eq!(bench.device.contexts(), 4);
    for network in [Network::V4, Network::V6] {
        for kind in [Transport::Tcp, Transport::Udp] {
            for size in [1, 64, 1001] {
                let (frame, layout) = transport(network, kind, size);
                let sent = bench.device.sent().expect("a frame");
                let sent = &sent[..frame.len()];
                verify(sent, &layout);
                let end = usize::from(layout.payload_offset);
                assert_eq!(sent[end..], frame[end..]);
            }
        }
    }
    finish(bench);
}

#[test]
fn segments_super_frames() {
    for network in [Network::V4, Network::V6] {
        let mut bench = bench();
        let kind = match network {
            Network::V4 => GsoKind::TcpV4,
            Network::V6 => GsoKind::TcpV6,
        };
        let (frame, layout) = tcp(network, 60_000);
        let gso = Gso { kind, size: 1400 };
        let headers = usize::from(layout.payload_offset);
        // Once with the headers apart, as many a frontend sends them, once with payload behind them.
        for cut in [headers, headers + 100] {
            let packet = blank(packet(&bench.pool, &frame, &[cut]), Some(gso));
            assert!(queue(&mut bench.nic).transmit(packet, Some(&layout)).is_ok());
            queue(&mut bench.nic).flush();
            let mut payload: Vec<u8> = Vec::new();
            let mut count = 0;
            while let Some(segment) = bench.device.sent() {
                verify(&segment, &layout);
                assert_eq!(segment[..12], frame[..12]);
                let fin = segment[usize::from(layout.transport_offset) + 13] & 1;
                payload.extend(&segment[headers..]);
                count += 1;
                assert_eq!(fin == 1, payload.len() == 60_000);
            }
            assert_eq!(count, 43);
            assert_eq!(payload, frame[headers..]);
        }
        assert_eq!(queue(&mut bench.nic).reclaim(), 2);
        finish(bench);
    }
}

#[test]
fn a_super_frame_that_fits_needs_a_checksum_only() {
    let mut bench = bench();
    let (frame, layout) = tcp(Network::V4, 1000);
    let gso = Gso { kind: GsoKind::TcpV4, size: 1400 };
    let packet = blank(packet(&bench.pool, &frame, &[]), Some(gso));
    assert!(queue(&mut bench.nic).transmit(packet, Some(&layout)).is_ok());
    queue(&mut bench.nic).flush();
    verify(&bench.device.sent().expect("a frame"), &layout);
    assert_eq!(bench.device.sent(), None);
    finish(bench);
}

#[test]
fn pages_of_others_are_left_alone() {
    let mut bench = bench();
    let (frame, layout) = tcp(Network::V4, 5000);
    let gso = Gso { kind: GsoKind::TcpV4, size: 1400 };
    let flooded = blank(packet(&bench.pool, &frame, &[]), Some(gso));
    assert!(queue(&mut bench.nic).transmit(flooded.clone(), Some(&layout)).is_ok());
    queue(&mut bench.nic).flush();
    assert_eq!(contents(&flooded), frame, "another port's copy");
    let mut count = 0;
    while let Some(segment) = bench.device.sent() {
        verify(&segment, &layout);
        count += 1;
    }
    assert_eq!(count, 4);
    drop(flooded);
    finish(bench);
}

#[test]
fn what_it_cannot_do_comes_back_whole() {
    let mut bench = bench();
    let (frame, layout) = tcp(Network::V4, 5000);
    let gso = |size| Some(Gso { kind: GsoKind::TcpV4, size });
    let far = Layout { transport_offset: 300, payload_offset: 320, ..layout };
    let reversed = Layout { payload_offset: 20, ..layout };
    type Case<'a> = (&'a str, Option<Gso>, Option<&'a Layout>, &'a [usize]);
    let cases: [Case<'_>; 6] = [
        ("no layout", gso(1400), None, &[]),
        ("headers across fragments", gso(1400), Some(&layout), &[40]),
        ("segments beyond the wire's", gso(1500), Some(&layout), &[]),
        ("a size of zero", gso(0), Some(&layout), &[]),
        ("headers beyond a byte", gso(1400), Some(&far), &[]),
        ("offsets out of order", gso(1400), Some(&reversed), &[]),
    ];
    for (what, gso, layout, cuts) in cases {
        let packet = blank(packet(&bench.pool, &frame, cuts), gso);
        let returned = queue(&mut bench.nic).transmit(packet, layout);
        let returned = returned.expect_err(what);
        assert_eq!(contents(&returned), frame, "{what}");
    }
    finish(bench);
}

#[test]
fn what_no_nic_can_send_is_counted() {
    let mut bench = bench();
    for length in [1, 13, 1519, 4000] {
        let packet = packet(&bench.pool, &bytes(length, 0), &[]);
        assert!(queue(&mut bench.nic).transmit(packet, None).is_ok());
    }
    queue(&mut bench.nic).flush();
    assert_eq!(bench.device.sent(), None);
    assert_eq!(bench.nic.statistics().transmit_errors, 4);
    finish(bench);
}

/// The device pads frames of 17 bytes and more: shorter ones it would not send. The page's old contents stay here.
#[test]
fn frames_too_short_for_the_device_are_padded() {
    let mut bench = bench();
    for length in [14, 15, 16] {
        for cuts in [&[][..], &[3, 10]] {
            let frame = bytes(length, 7);
            let packet = packet(&bench.pool, &frame, cuts);
            // The next page taken has contents, and this packet's are another port's, too.
            let shared = packet.clone();
            assert!(bench.pool.take().expect("a page").write(0, &[0xee; 4096]));
            assert!(queue(&mut bench.nic).transmit(packet, None).is_ok());
            queue(&mut bench.nic).flush();
            let mut padded = frame.clone();
            padded.resize(60, 0);
            assert_eq!(bench.device.sent(), Some(padded), "{length} {cuts:?}");
            assert_eq!(shared.len(), length);
            queue(&mut bench.nic).reclaim();
        }
    }
    assert_eq!(bench.nic.statistics().transmit_errors, 0);
    finish(bench);
}

#[test]
fn receives_byte_for_byte_through_many_wraps() {
    let mut bench = bench();
    for round in 0..1500 {
        let frame = bytes(60 + round * 29 % 1458, round);
        assert!(bench.device.inject(&frame, ReceiveStatus::new()), "round {round}");
        let packet = queue(&mut bench.nic).receive().expect("a frame");
        assert_eq!(contents(&packet), frame);
        assert_eq!(packet.offload, Offload::default());
        queue(&mut bench.nic).refill(&bench.pool);
    }
    assert!(queue(&mut bench.nic).receive().is_none());
    finish(bench);
}

#[test]
fn believes_the_device_about_checksums_it_looked_at() {
    let good = ReceiveStatus::new().with_transport_checked(true).with_ip_checked(true);
    let cases = [
        (good, Checksum::Verified),
        (good.with_udp_checked(true), Checksum::Verified),
        (ReceiveStatus::new().with_ip_checked(true), Checksum::Unverified),
        (good.with_transport_error(true), Checksum::Unverified),
        (good.with_ip_error(true), Checksum::Unverified),
        (good.with_ignore_checksum(true), Checksum::Unverified),
    ];
    let mut bench = bench();
    for (status, expected) in cases {
        assert!(bench.device.inject(&bytes(64, 1), status));
        let packet = queue(&mut bench.nic).receive().expect("a frame");
        assert_eq!(packet.offload.checksum, expected, "{status:?}");
    }
    assert!(bench.device.inject(&bytes(64, 1), good.with_crc_error(true)));
    assert!(queue(&mut bench.nic).receive().is_none());
    assert_eq!(bench.nic.statistics().receive_errors, 1);
    finish(bench);
}

#[test]
fn jumbo_frames_span_buffers() {
    let options = Options { max_frame: 9018, ..Options::default() };
    let mut bench = start(|_| (), Interrupts::MsiX(3), options).expect("it starts");
    for length in [1519, 4096, 4097, 8192, 9018] {
        let frame = bytes(length, length);
        assert!(bench.device.inject(&frame, ReceiveStatus::new()));
        assert_eq!(contents(&queue(&mut bench.nic).receive().expect("a frame")), frame);
        assert!(queue(&mut bench.nic).transmit(packet(&bench.pool, &frame, &[]), None).is_ok());
        queue(&mut bench.nic).flush();
        assert_eq!(bench.device.sent(), Some(frame));
        queue(&mut bench.nic).reclaim();
    }
    assert!(bench.device.inject(&bytes(9019, 0), ReceiveStatus::new()));
    assert!(queue(&mut bench.nic).receive().is_none(), "longer than asked for");
    let counted = bench.nic.statistics();
    assert_eq!((counted.receive_malformed, counted.receive_oversize), (0, 1));
    assert!(bench.device.inject(&bytes(100, 0), ReceiveStatus::new()));
    assert!(queue(&mut bench.nic).receive().is_some(), "and the next one is whole");
    finish(bench);
}

#[test]
fn without_buffers_frames_are_missed_and_with_them_received_again() {
    let mut bench = bench();
    let frame = bytes(100, 1);
    let mut held = Vec::new();
    while let Some(buffer) = bench.pool.take() {
        held.push(buffer);
    }
    let mut received = 0;
    while bench.device.inject(&frame, ReceiveStatus::new()) {
        received += 1;
        assert!(queue(&mut bench.nic).receive().is_some());
    }
    assert_eq!(received, 255, "the ring was full, less one");
    // The dropped packets' pages are the pool's again, and two of the held.
    queue(&mut bench.nic).refill(&bench.pool);
    assert!(bench.device.inject(&frame, ReceiveStatus::new()));
    assert_eq!(bench.nic.statistics().receive_missed, 1);
    held.clear();
    finish(bench);
}

#[test]
fn one_interrupt_a_poll_however_wired() {
    for (interrupts, receive, link) in [
        (Interrupts::MsiX(1), 0, 0),
        (Interrupts::MsiX(2), 0, 1),
        (Interrupts::MsiX(3), 0, 2),
        (Interrupts::Single, 0, 0),
    ] {
        let mut bench = start(|_| (), interrupts, Options::default()).expect("it starts");
        let frame = bytes(64, 0);
        bench.device.inject(&frame, ReceiveStatus::new());
        assert!(bench.device.messages().is_empty(), "disabled at first");
        assert!(queue(&mut bench.nic).arm(false), "a frame is there already");
        bench.device.messages();
        for _ in 0..3 {
            let _causes = bench.nic.handle_interrupt(receive);
            while queue(&mut bench.nic).receive().is_some() {}
            // A frame during the poll: no message, and none later, once it was taken.
            bench.device.inject(&frame, ReceiveStatus::new());
            assert!(bench.device.messages().is_empty(), "{interrupts:?}");
            assert!(queue(&mut bench.nic).receive().is_some());
            assert!(!queue(&mut bench.nic).arm(false));
            assert!(bench.device.messages().is_empty(), "{interrupts:?}: stale");
            bench.device.inject(&frame, ReceiveStatus::new());
            bench.device.inject(&frame, ReceiveStatus::new());
            assert_eq!(bench.device.messages(), [receive as u8], "{interrupts:?}");
        }
        assert!(bench.nic.handle_interrupt(receive).receive);
        while queue(&mut bench.nic).receive().is_some() {}
        assert!(!queue(&mut bench.nic).arm(false));
        bench.device.raise(super::registers::Causes::new().with_link(true));
        assert_eq!(bench.device.messages(), [link as u8], "{interrupts:?}");
        assert!(bench.nic.handle_interrupt(link).link);
        assert!(!queue(&mut bench.nic).arm(false));
        assert!(bench.device.messages().is_empty(), "{interrupts:?}: acknowledged");
        finish(bench);
    }
}

#[test]
fn sent_packets_interrupt_only_where_asked() {
    let mut bench = start(Device::be_lazy, Interrupts::MsiX(2), Options::default()).expect("it starts");
    let send = |bench: &mut Bench, ask: bool| {
        let packet = packet(&bench.pool, &bytes(64, 0), &[]);
        assert!(queue(&mut bench.nic).transmit(packet, None).is_ok());
        queue(&mut bench.nic).flush();
        assert!(!queue(&mut bench.nic).arm(ask));
        bench.device.transmit();
        let messages = bench.device.messages();
        assert_eq!(queue(&mut bench.nic).reclaim(), 1);
        messages
    };
    assert!(send(&mut bench, false).is_empty());
    assert_eq!(send(&mut bench, true), [0]);
    assert!(send(&mut bench, false).is_empty());
    finish(bench);
}

#[test]
fn room_found_while_enabling_is_not_kept_secret() {
    let mut bench = bench();
    for ask in [true, false] {
        let packet = packet(&bench.pool, &bytes(64, 0), &[]);
        assert!(queue(&mut bench.nic).transmit(packet, None).is_ok());
        queue(&mut bench.nic).flush();
        assert_eq!(queue(&mut bench.nic).arm(ask), ask);
        assert_eq!(queue(&mut bench.nic).room(), 511, "taken back before the wait");
    }
    finish(bench);
}

#[test]
fn a_poll_that_finds_nothing_touches_no_register() {
    let mut bench = bench();
    assert!(!queue(&mut bench.nic).arm(false));
    bench.device.accesses();
    for _ in 0..10 {
        queue(&mut bench.nic).reclaim();
        assert!(queue(&mut bench.nic).receive().is_none());
        queue(&mut bench.nic).flush();
        queue(&mut bench.nic).refill(&bench.pool);
        assert!(!queue(&mut bench.nic).arm(false));
    }
    assert_eq!(bench.device.accesses(), 0);
    // A batch each way: one access for each tail; the interrupt of it: two to enable, none to handle.
    for _ in 0..32 {
        assert!(bench.device.inject(&bytes(64, 0), ReceiveStatus::new()));
    }
    bench.device.accesses();
    bench.nic.handle_interrupt(0);
    while let Some(packet) = queue(&mut bench.nic).receive() {
        assert!(queue(&mut bench.nic).transmit(packet, None).is_ok());
    }
    queue(&mut bench.nic).flush();
    queue(&mut bench.nic).refill(&bench.pool);
    assert!(!queue(&mut bench.nic).arm(false));
    assert_eq!(bench.device.accesses(), 5, "tails, cause, mask, and the interval for the new load");
    finish(bench);
}

#[test]
fn a_device_pulled_out_hangs_nothing() {
    let mut bench = bench();
    let send = packet(&bench.pool, &bytes(64, 0), &[]);
    bench.device.pull_out();
    assert_eq!(bench.nic.link(), Link::Down);
    assert!(bench.nic.handle_interrupt(1).link);
    assert!(queue(&mut bench.nic).transmit(send, None).is_err());
    queue(&mut bench.nic).flush();
    assert_eq!(queue(&mut bench.nic).reclaim(), 0);
    assert!(queue(&mut bench.nic).receive().is_none());
    assert!(!queue(&mut bench.nic).arm(true));
    assert_eq!(bench.nic.statistics(), NicStatistics::default());
    assert_eq!(queue(&mut bench.nic).room(), 0);
    bench.nic.quiesce();
    assert!(bench.pool.available() < bench.pool.capacity(), "what reads as ones has not said that it stopped");
    bench.nic.release(closed(bench.device.dma().reach()));
    finish(bench);
}

#[test]
fn a_device_that_lies_costs_itself() {
    let mut bench = bench();
    // Status, length: what a device might write, each followed by a good frame that must come through.
    const DONE: u32 = 1;
    const END: u32 = 3;
    // How many are malformed, and how many oversize.
    type Case = (&'static str, &'static [(u32, u32)], [u64; 2]);
    let cases: &[Case] = &[
        ("longer than its buffer", &[(END, 2049)], [1, 0]),
        ("longest length", &[(END, 0xFFFF)], [1, 0]),
        ("empty", &[(END, 0)], [1, 0]),
        ("shorter than a header", &[(END, 13)], [1, 0]),
        ("longer than a frame", &[(END, 1519)], [0, 1]),
        ("a short middle", &[(DONE, 100), (END, 100)], [1, 0]),
        ("longer than a frame, in pieces", &[(DONE, 2048), (DONE, 2048), (END, 2048)], [0, 1]),
        ("all bits", &[(u32::MAX, u32::MAX)], [1, 0]),
    ];
    let mut index = 0u32;
    let (mut malformed, mut oversize) = (0, 0);
    for (what, descriptors, count) in cases {
        for (status, length) in *descriptors {
            let at = bench.device.receive_descriptor(index);
            bench.device.write_descriptor(at, [u32::MAX, u32::MAX, *status, *length]);
            index += 1;
        }
        bench.device.set(reg::RDH, index);
        assert!(queue(&mut bench.nic).receive().is_none(), "{what}");
        malformed += count[0];
        oversize += count[1];
        let counted = bench.nic.statistics();
        assert_eq!((counted.receive_malformed, counted.receive_oversize), (malformed, oversize), "{what}");
        let good = bytes(70, 5);
        assert!(bench.device.inject(&good, ReceiveStatus::new()));
        index += 1;
        assert_eq!(contents(&queue(&mut bench.nic).receive().expect(what)), good);
    }
    queue(&mut bench.nic).refill(&bench.pool);
    finish(bench);
}

#[test]
fn done_bits_where_nothing_is_posted_are_not_looked_at() {
    let mut bench = bench();
    // The whole ring as done, at once: as many frames as buffers were posted, not one more.
    for index in 0..256 {
        let at = bench.device.receive_descriptor(index);
        bench.device.write_descriptor(at, [0, 0, 3, 64]);
    }
    let mut frames = Vec::new();
    while let Some(frame) = queue(&mut bench.nic).receive() {
        frames.push(frame);
    }
    assert_eq!(frames.len(), 255);
    // Done bits on transmit descriptors that were never given.
    for index in 0..512 {
        let at = bench.device.transmit_descriptor(index);
        bench.device.write_descriptor(at, [0, 0, 0, 1]);
    }
    assert_eq!(queue(&mut bench.nic).reclaim(), 0);
    assert_eq!(queue(&mut bench.nic).room(), 511);
    drop(frames);
    finish(bench);
}

#[test]
fn memory_of_a_device_that_does_not_stop_goes_back_with_a_proof_alone() {
    for ended in [false, true] {
        let mut bench = bench();
        let before = bench.pool.available();
        assert!(before < bench.pool.capacity());
        bench.device.stay_busy();
        bench.nic.quiesce();
        assert_eq!(bench.pool.available(), before, "the device may still write to them");
        if ended {
            bench.nic.release(closed(bench.device.dma().reach()));
        }
        drop(bench.nic);
        assert_eq!(bench.pool.available(), if ended { bench.pool.capacity() } else { before });
        // The pool's pages, and the two rings where the device may still write to them.
        assert_eq!(bench.xen.live().local_regions, if ended { 1 } else { 3 });
    }
}

#[test]
fn a_hub_gets_the_bits_that_its_errata_ask_for() {
    // FEXTNVM4, IOSFPC and FEXTNVM11 after a start; FEXTNVM11 is written before the reset, which the model has clear all.
    let rows = [(0x153A, 0x0D80_0403, 7, 0), (0x156F, 0x2D80_0403, 0, 1 << 16), (0x15FB, 0x2D80_0403, 0, 0)];
    for (device, tarc0, fextnvm4, iosfpc) in rows {
        let xen = FakeXen::new();
        let pool = Pool::new(Box::new(FakePages::new(&xen, 1024)));
        let hardware = Device::new(&xen);
        hardware.be_hub();
        let model = Model::find(0x8086, device).expect("a hub");
        let mut waited = Duration::ZERO;
        let nic = E1000e::new(
            hardware.clone(),
            hardware.dma(),
            model,
            Interrupts::Single,
            &pool,
            Options::default(),
            &mut |time| waited += time,
        );
        let mut bench = Bench { nic: nic.expect("it starts"), device: hardware, xen, pool };
        assert!(waited >= Duration::from_millis(20));
        let held = |register: reg::Reg<u32>| bench.device.peek(register.offset());
        assert_eq!(held(reg::KABGTXD), 0x0005_0000);
        assert_eq!((held(reg::TARC0), held(reg::FEXTNVM4), held(reg::IOSFPC)), (tarc0, fextnvm4, iosfpc));
        assert_eq!(held(reg::PBECCSTS), 1 << 16);
        assert!(Ctrl::from(bench.device.peek(0)).memory_errors());
        assert!(reg::CtrlExt::from(bench.device.peek(reg::CTRL_EXT.offset())).hub_erratum());
        // Before the next reset the model no longer resets anything.
        bench.device.reset_nothing();
        bench.nic.restart(&mut |_| ()).expect("it starts anew");
        assert_eq!(bench.device.peek(reg::FEXTNVM11.offset()), if device == 0x153A { 0 } else { 1 << 13 });
        assert_eq!(bench.nic.link(), Link::Up(1000));
        assert!(Ctrl::from(bench.device.peek(0)).transmit_flow_control(), "its PHY is at address 2");
        finish(bench);
    }
}

#[test]
fn pause_frames_are_obeyed_and_sent_as_negotiated() {
    let mut bench = bench();
    let mut pause = vec![1, 0x80, 0xC2, 0, 0, 1, 2, 0, 0, 0, 0, 9, 0x88, 0x08, 0, 1, 0xFF, 0xFF];
    pause.resize(60, 0);
    let mut go_on = pause.clone();
    go_on[16..18].fill(0);
    let status = bench.device.peek(reg::STATUS.offset());
    // What the partner advertises; obeyed, sent.
    let rows = [(false, false, false, false), (false, true, true, false), (true, false, true, true)];
    for (symmetric, asymmetric, obeys, sends) in rows {
        bench.device.set_partner_pause(symmetric, asymmetric);
        bench.device.set(reg::STATUS, status & !2);
        assert_eq!(bench.nic.link(), Link::Down);
        bench.device.set(reg::STATUS, status);
        assert_eq!(bench.nic.link(), Link::Up(1000));
        assert_eq!(Ctrl::from(bench.device.peek(0)).transmit_flow_control(), sends);
        assert!(bench.device.inject(&pause, ReceiveStatus::new()));
        let packet = packet(&bench.pool, &bytes(600, 1), &[]);
        assert!(queue(&mut bench.nic).transmit(packet, None).is_ok());
        queue(&mut bench.nic).flush();
        assert_eq!(bench.device.sent().is_none(), obeys, "{symmetric} {asymmetric}");
        for second in 0..10 {
            bench.device.inject(&pause, ReceiveStatus::new());
            assert_eq!(bench.nic.watch(Instant(second * 1_000_000_000)), None, "it does not hang, it waits");
        }
        assert!(bench.device.inject(&go_on, ReceiveStatus::new()));
        assert_eq!(bench.device.sent().is_some(), obeys);
    }
    assert_eq!(bench.nic.statistics().pauses, 22);
    finish(bench);
}

/// `frame` with a tag behind its addresses.
fn tagged(frame: &[u8], tag: Tag) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    [addresses, &[0x81, 0x00], &tag.control().to_be_bytes(), rest].concat()
}

#[test]
fn tags_are_inserted_and_taken_out_where_told_to() {
    let mut bench = bench();
    let tag = Tag::new(0x2005).expect("a tag");
    let frame = bytes(1514, 5);
    assert!(!bench.nic.capabilities().vlan_insertion);
    let mut refused = packet(&bench.pool, &frame, &[]);
    refused.tag = Some(tag);
    assert!(queue(&mut bench.nic).transmit(refused, None).is_err());
    for on in [false, true, true, false] {
        bench.nic.set_vlan_stripping(on);
        assert!(bench.device.inject(&tagged(&frame, tag), ReceiveStatus::new()));
        let received = queue(&mut bench.nic).receive().expect("a frame");
        let expected = if on { (frame.clone(), Some(tag)) } else { (tagged(&frame, tag), None) };
        assert_eq!((contents(&received), received.tag), expected);
        assert!(bench.device.inject(&frame, ReceiveStatus::new()));
        assert_eq!(queue(&mut bench.nic).receive().expect("a frame").tag, None);
        if on {
            for length in [15, 1514] {
                let mut packet = packet(&bench.pool, &bytes(length, 2), &[]);
                packet.tag = Some(tag);
                assert!(queue(&mut bench.nic).transmit(packet, None).is_ok());
                queue(&mut bench.nic).flush();
                let mut expected = bytes(length, 2);
                expected.resize(length.max(if length < 17 { 60 } else { 0 }), 0);
                assert_eq!(bench.device.sent(), Some(tagged(&expected, tag)));
            }
            bench.nic.restart(&mut |_| ()).expect("it starts anew");
        }
    }
    bench.nic.set_vlan_stripping(true);
    let (super_frame, layout) = tcp(Network::V4, 5000);
    let gso = Gso { kind: GsoKind::TcpV4, size: 1400 };
    let mut packet = blank(packet(&bench.pool, &super_frame, &[]), Some(gso));
    packet.tag = Some(tag);
    assert!(queue(&mut bench.nic).transmit(packet, Some(&layout)).is_ok());
    queue(&mut bench.nic).flush();
    let mut segments = 0;
    while let Some(segment) = bench.device.sent() {
        assert_eq!(segment[12..16], [0x81, 0x00, 0x20, 0x05]);
        verify(&[&segment[..12], &segment[16..]].concat(), &layout);
        segments += 1;
    }
    assert_eq!(segments, 4);
    finish(bench);
}

#[test]
fn a_device_that_sends_nothing_for_long_is_started_anew() {
    let mut bench = bench();
    let second = |number: u64| Instant(number * 1_000_000_000);
    let send = |bench: &mut Bench, seed| {
        let packet = packet(&bench.pool, &bytes(600, seed), &[]);
        assert!(queue(&mut bench.nic).transmit(packet, None).is_ok());
        queue(&mut bench.nic).flush();
    };
    bench.device.be_lazy();
    send(&mut bench, 0);
    // While something is sent from time to time, it does not hang; nor where it has nothing to send, or no link.
    for number in 0..20 {
        assert_eq!(bench.nic.watch(second(number)), None, "after {number} s");
        bench.device.transmit();
        send(&mut bench, 1);
    }
    bench.device.transmit();
    assert_eq!((20..40).filter_map(|number| bench.nic.watch(second(number))).count(), 0);
    send(&mut bench, 2);
    let status = bench.device.peek(reg::STATUS.offset());
    bench.device.set(reg::STATUS, status & !2);
    assert_eq!((40..60).filter_map(|number| bench.nic.watch(second(number))).count(), 0, "no link");
    bench.device.set(reg::STATUS, status);
    let found: Vec<_> = (60..70).map(|number| bench.nic.watch(second(number))).collect();
    let expected = (0..10).map(|number| (number >= 5).then_some(Fault::TransmitHang(0)));
    assert!(found.iter().copied().eq(expected), "{found:?}");

    while bench.device.sent().is_some() {}
    bench.nic.restart(&mut |_| ()).expect("it starts anew");
    assert_eq!(bench.pool.available(), bench.pool.capacity() - 128, "what was to be sent is lost, its page is not");
    assert_eq!(bench.nic.watch(second(80)), None);
    send(&mut bench, 3);
    bench.device.transmit();
    assert_eq!(bench.device.sent(), Some(bytes(600, 3)));
    assert_eq!(queue(&mut bench.nic).reclaim(), 1);
    assert!(bench.device.inject(&bytes(70, 4), ReceiveStatus::new()));
    assert_eq!(contents(&queue(&mut bench.nic).receive().expect("a frame")), bytes(70, 4));
    assert!(!queue(&mut bench.nic).arm(false));
    assert!(bench.device.inject(&bytes(70, 5), ReceiveStatus::new()));
    assert_eq!(bench.device.messages(), [0], "its interrupts are enabled again");
    finish(bench);
}

#[test]
fn a_device_that_does_not_stop_is_not_started_anew() {
    let mut bench = bench();
    bench.device.stay_busy();
    assert_eq!(bench.nic.restart(&mut |_| ()), Err(Error::Running));
    let packet = packet(&bench.pool, &bytes(600, 0), &[]);
    assert!(queue(&mut bench.nic).transmit(packet, None).is_err());
    assert!(bench.pool.available() < bench.pool.capacity(), "its pages are not given to others");
    bench.nic.release(closed(bench.device.dma().reach()));
    finish(bench);
}
