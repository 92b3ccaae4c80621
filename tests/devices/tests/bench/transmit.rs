//! Cases of packets to be sent: rings that wrap and fill, offloads, pages of others. Host.

use devices::checksum::sum;
use devices::fake::Device;
use netdom::nic::{Interrupts, Options, queue};
use netdom::offload::headers::{Layout, Network, Transport};
use netdom::packet::{Checksum, Gso, GsoKind, Offload, Packet};

use super::cases::{Card, bench, start_on};
use super::{bytes, contents, packet};

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

/// The checksum (RFC 1071) of `bytes` and `more`.
fn checksum(bytes: &[u8], more: u32) -> u16 {
    !sum(bytes, sum(&more.to_be_bytes(), 0))
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

pub(crate) fn sends_byte_for_byte_through_many_wraps<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    for round in 0..700 {
        let frame = bytes(60 + round * 37 % 1458, round);
        let cuts: &[usize] = match round % 3 {
            0 => &[],
            1 => &[14, 20],
            _ => &[1, 1, 1, 1],
        };
        let packet = packet(&bench.pool, &frame, cuts);
        assert!(queue(&mut *bench.nic).transmit(packet, None).is_ok());
        if round % 5 == 0 {
            queue(&mut *bench.nic).flush();
            queue(&mut *bench.nic).reclaim();
        }
        if round % 5 == 0 {
            while let Some(sent) = bench.device.sent() {
                // Compared below, by number.
                assert!(sent.len() >= 60);
            }
        }
    }
    queue(&mut *bench.nic).flush();
    let frame = bytes(900, 77);
    while bench.device.sent().is_some() {}
    assert!(queue(&mut *bench.nic).transmit(packet(&bench.pool, &frame, &[14, 20, 300]), None).is_ok());
    queue(&mut *bench.nic).flush();
    assert_eq!(bench.device.sent(), Some(frame));
    queue(&mut *bench.nic).reclaim();
    assert_eq!(queue(&mut *bench.nic).room(), 511);
    assert_eq!(bench.device.with_model(|model| model.contexts()), 0, "no offload, no context");
    bench.finish();
}

pub(crate) fn each_frame_arrives_in_order_and_unchanged<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    for round in 0..1000 {
        let frame = bytes(60 + round * 13 % 1458, round);
        assert!(queue(&mut *bench.nic).transmit(packet(&bench.pool, &frame, &[40]), None).is_ok());
        queue(&mut *bench.nic).flush();
        assert_eq!(bench.device.sent(), Some(frame), "round {round}");
        assert_eq!(queue(&mut *bench.nic).reclaim(), 1);
    }
    bench.finish();
}

pub(crate) fn a_full_ring_gives_the_packet_back_and_drains<C: Card>(kind: C::Kind) {
    let options = Options { transmit_descriptors: 64, ..Options::default() };
    let mut bench = start_on::<C>(kind, Device::be_lazy, Interrupts::MsiX(3), options).expect("it starts");
    let mut queued = 0;
    let returned = loop {
        let frame = bytes(100, queued);
        match queue(&mut *bench.nic).transmit(packet(&bench.pool, &frame, &[50]), None) {
            Ok(()) => queued += 1,
            Err(packet) => break packet,
        }
    };
    assert_eq!(contents(&returned), bytes(100, queued), "unchanged");
    assert!(queued >= 29, "{queued}");
    queue(&mut *bench.nic).flush();
    assert_eq!(queue(&mut *bench.nic).reclaim(), 0, "nothing is sent yet");
    assert!(queue(&mut *bench.nic).transmit(returned, None).is_err());
    bench.device.run();
    assert_eq!(queue(&mut *bench.nic).reclaim(), queued);
    assert_eq!(queue(&mut *bench.nic).room(), 63);
    bench.finish();
}

pub(crate) fn long_batches_are_reported_on_in_between<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    for round in 0..200 {
        let packet = packet(&bench.pool, &bytes(60, round), &[]);
        assert!(queue(&mut *bench.nic).transmit(packet, None).is_ok());
    }
    queue(&mut *bench.nic).flush();
    let reports = (0..200)
        .filter(|index| {
            let at = bench.device.descriptor(C::transmit_queue(0), *index);
            let mut status = [0];
            bench.xen.device_read(at + 12, &mut status);
            status[0] & 1 != 0
        })
        .count();
    assert_eq!(reports, 4);
    assert_eq!(queue(&mut *bench.nic).reclaim(), 200);
    bench.finish();
}

pub(crate) fn completes_checksums_with_one_context_for_many<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    for network in [Network::V4, Network::V6] {
        for kind in [Transport::Tcp, Transport::Udp] {
            for size in [1, 64, 1001] {
                let (frame, layout) = transport(network, kind, size);
                let packet = blank(packet(&bench.pool, &frame, &[100]), None);
                let layout = Some(&layout);
                assert!(queue(&mut *bench.nic).transmit(packet, layout).is_ok());
            }
        }
    }
    queue(&mut *bench.nic).flush();
    assert_eq!(bench.device.with_model(|model| model.contexts()), 4);
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
    bench.finish();
}

pub(crate) fn segments_super_frames<C: Card>(kind: C::Kind) {
    for network in [Network::V4, Network::V6] {
        let mut bench = bench::<C>(kind, Options::default());
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
            assert!(queue(&mut *bench.nic).transmit(packet, Some(&layout)).is_ok());
            queue(&mut *bench.nic).flush();
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
        assert_eq!(queue(&mut *bench.nic).reclaim(), 2);
        bench.finish();
    }
}

pub(crate) fn a_super_frame_that_fits_needs_a_checksum_only<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    let (frame, layout) = tcp(Network::V4, 1000);
    let gso = Gso { kind: GsoKind::TcpV4, size: 1400 };
    let packet = blank(packet(&bench.pool, &frame, &[]), Some(gso));
    assert!(queue(&mut *bench.nic).transmit(packet, Some(&layout)).is_ok());
    queue(&mut *bench.nic).flush();
    verify(&bench.device.sent().expect("a frame"), &layout);
    assert_eq!(bench.device.sent(), None);
    bench.finish();
}

pub(crate) fn pages_of_others_are_left_alone<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    let (frame, layout) = tcp(Network::V4, 5000);
    let gso = Gso { kind: GsoKind::TcpV4, size: 1400 };
    let flooded = blank(packet(&bench.pool, &frame, &[]), Some(gso));
    assert!(queue(&mut *bench.nic).transmit(flooded.clone(), Some(&layout)).is_ok());
    queue(&mut *bench.nic).flush();
    assert_eq!(contents(&flooded), frame, "another port's copy");
    let mut count = 0;
    while let Some(segment) = bench.device.sent() {
        verify(&segment, &layout);
        count += 1;
    }
    assert_eq!(count, 4);
    drop(flooded);
    // Where the checksum alone is left to the device, too: QEMU's writes it into the page.
    let (frame, layout) = tcp(Network::V4, 100);
    for shared in [false, false, true] {
        let first = blank(packet(&bench.pool, &frame, &[]), None);
        let other = shared.then(|| first.clone());
        let before = bench.pool.available();
        assert!(queue(&mut *bench.nic).transmit(first, Some(&layout)).is_ok());
        assert_eq!(before - bench.pool.available(), usize::from(shared), "a page for its headers");
        queue(&mut *bench.nic).flush();
        verify(&bench.device.sent().expect("a frame"), &layout);
        drop(other);
    }
    bench.finish();
}

pub(crate) fn what_it_cannot_do_comes_back_whole<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    let (frame, layout) = tcp(Network::V4, 5000);
    let gso = |size| Some(Gso { kind: GsoKind::TcpV4, size });
    let far = Layout { transport_offset: C::FAR, payload_offset: C::FAR + 20, ..layout };
    let reversed = Layout { payload_offset: 20, ..layout };
    type Case<'a> = (&'a str, Option<Gso>, Option<&'a Layout>, &'a [usize]);
    let cases: [Case<'_>; 6] = [
        ("no layout", gso(1400), None, &[]),
        ("headers across fragments", gso(1400), Some(&layout), &[40]),
        ("segments beyond the wire's", gso(1500), Some(&layout), &[]),
        ("a size of zero", gso(0), Some(&layout), &[]),
        ("headers that no descriptor reaches", gso(1400), Some(&far), &[]),
        ("offsets out of order", gso(1400), Some(&reversed), &[]),
    ];
    for (why, gso, layout, cuts) in cases {
        let packet = blank(packet(&bench.pool, &frame, cuts), gso);
        let returned = queue(&mut *bench.nic).transmit(packet, layout);
        let returned = returned.expect_err(why);
        assert_eq!(contents(&returned), frame, "{why}");
    }
    bench.finish();
}

pub(crate) fn what_no_nic_can_send_is_counted<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    for length in [1, 13, 1519, 4000] {
        let packet = packet(&bench.pool, &bytes(length, 0), &[]);
        assert!(queue(&mut *bench.nic).transmit(packet, None).is_ok());
    }
    queue(&mut *bench.nic).flush();
    assert_eq!(bench.device.sent(), None);
    assert_eq!(bench.nic.statistics().transmit_errors, 4);
    bench.finish();
}

/// The device pads frames of 17 bytes and more: shorter ones it would not send. The page's old contents stay here.
pub(crate) fn frames_too_short_for_the_device_are_padded<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    for length in [14, 15, 16] {
        for cuts in [&[][..], &[3, 10]] {
            let frame = bytes(length, 7);
            let packet = packet(&bench.pool, &frame, cuts);
            // The next page taken has contents, and this packet's are another port's, too.
            let shared = packet.clone();
            assert!(bench.pool.take().expect("a page").write(0, &[0xee; 4096]));
            assert!(queue(&mut *bench.nic).transmit(packet, None).is_ok());
            queue(&mut *bench.nic).flush();
            let mut padded = frame.clone();
            padded.resize(60, 0);
            assert_eq!(bench.device.sent(), Some(padded), "{length} {cuts:?}");
            assert_eq!(shared.len(), length);
            queue(&mut *bench.nic).reclaim();
        }
    }
    assert_eq!(bench.nic.statistics().transmit_errors, 0);
    bench.finish();
}
