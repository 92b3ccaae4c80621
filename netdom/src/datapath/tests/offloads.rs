//! What a receiver did not negotiate, or the NIC cannot do, is done in software; what they can is left to them.

use super::frames::{complete, ethernet, is_complete, tcp, transport_offset};
use super::{Net, OFFLOADS};
use crate::fakes::{Frontend, Outgoing};
use crate::netback::config::Features;
use crate::nic::Capabilities;
use crate::packet::{Checksum, Gso, GsoKind};
use alloc::vec;
use alloc::vec::Vec;
use xen_pv_sys::io::netif::RxFlags;

/// A guest that negotiated nothing.
pub(super) const PLAIN: Features = Features {
    scatter_gather: false,
    gso_tcpv4: false,
    gso_tcpv6: false,
    checksum_v4: false,
    checksum_v6: false,
    receive_notify: true,
    multicast_control: false,
};
const WIRE: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn gso(ipv6: bool) -> Option<Gso> {
    Some(Gso { kind: if ipv6 { GsoKind::TcpV6 } else { GsoKind::TcpV4 }, size: 1428 })
}

/// The payload of segments, put together in their order.
fn reassembled(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut whole: Vec<u8> = Vec::new();
    for frame in frames {
        let start = transport_offset(frame);
        let sequence = u32::from_be_bytes(frame[start + 4..start + 8].try_into().unwrap());
        assert_eq!(sequence as usize, 1 + whole.len(), "out of order");
        whole.extend(&frame[start + 32..]);
    }
    whole
}

#[test]
fn plain_guests_get_complete_segments() {
    for ipv6 in [false, true] {
        for payload in [10, 1428, 1429, 30_000] {
            let mut net = Net::new(&[Frontend::linux_features(), PLAIN]);
            net.introduce();
            let packet = Outgoing {
                bytes: tcp(net.guests[1].mac, net.guests[0].mac, ipv6, payload),
                cuts: vec![40],
                checksum: Checksum::Blank,
                gso: gso(ipv6),
            };
            net.send(0, &packet);
            let arrived = net.guests[1].arrived();
            assert_eq!(arrived.len(), payload.div_ceil(1428));
            for segment in &arrived {
                assert!(is_complete(&segment.bytes));
                assert_eq!((segment.flags, segment.gso, segment.slots), (RxFlags::DATA_VALIDATED, None, 1));
            }
            let frames: Vec<_> = arrived.into_iter().map(|segment| segment.bytes).collect();
            let start = transport_offset(&packet.bytes) + 32;
            assert_eq!(reassembled(&frames), packet.bytes[start..]);
            net.end();
        }
    }
}

/// To all: the one that completes checksums itself gets a blank one, the others not.
#[test]
fn a_flood_suits_each_receiver() {
    let mut net = Net::new(&[Frontend::linux_features(), PLAIN, Frontend::linux_features(), PLAIN]);
    net.introduce();
    let packet = Outgoing {
        bytes: tcp([0xff; 6], net.guests[0].mac, false, 500),
        checksum: Checksum::Blank,
        ..Outgoing::default()
    };
    net.send(0, &packet);
    for (guest, complete) in [(1, true), (2, false), (3, true)] {
        let arrived = net.guests[guest].arrived();
        assert_eq!(arrived.len(), 1);
        assert_eq!(is_complete(&arrived[0].bytes), complete);
        assert_eq!(arrived[0].flags.contains(RxFlags::CSUM_BLANK), !complete);
        if !complete {
            assert_eq!(arrived[0].bytes, packet.bytes);
        }
    }
    assert_eq!(net.wire.borrow().sent[0].bytes, packet.bytes);
    assert_eq!(net.wire.borrow().sent[0].offload.checksum, Checksum::Blank);
    net.end();
}

#[test]
fn the_nic_does_what_it_can() {
    let able = Capabilities { max_frame: 1518, ..OFFLOADS };
    let checksums = Capabilities { tso_v4: false, tso_v6: false, ..able };
    let nothing = Capabilities { checksum_v4: false, checksum_v6: false, ..checksums };
    for (capabilities, frames, complete) in [(able, 1, false), (checksums, 22, false), (nothing, 22, true)] {
        for ipv6 in [false, true] {
            let mut net = Net::with_nic(&[Frontend::linux_features()], capabilities);
            net.introduce();
            let packet = Outgoing {
                bytes: tcp(WIRE, net.guests[0].mac, ipv6, 30_000),
                cuts: vec![90],
                checksum: Checksum::Blank,
                gso: gso(ipv6),
            };
            net.send(0, &packet);
            let sent = net.wire.borrow().sent.clone();
            assert_eq!(sent.len(), frames);
            assert!(sent.iter().all(|frame| is_complete(&frame.bytes) == complete));
            assert!(sent.iter().all(|frame| frame.layout.is_none() == complete));
            let bytes: Vec<_> = sent.into_iter().map(|frame| frame.bytes).collect();
            if frames == 1 {
                assert_eq!(bytes[0], packet.bytes);
            } else {
                let start = transport_offset(&packet.bytes) + 32;
                assert_eq!(reassembled(&bytes), packet.bytes[start..]);
            }
            net.end();
        }
    }
}

/// A frame longer than the wire allows is lost; one to a guest is not.
#[test]
fn too_long_for_the_wire() {
    let mut net = Net::with_nic(&[Frontend::linux_features(); 2], Capabilities { max_frame: 1518, ..OFFLOADS });
    net.introduce();
    let a = net.guests[0].mac;
    net.send(0, &Outgoing { bytes: ethernet([0xff; 6], a, 3000), ..Outgoing::default() });
    assert!(net.wire.borrow().sent.is_empty());
    assert_eq!(net.guests[1].arrived().len(), 1);
    net.end();
}

/// Some frontends do not say that a super-frame's checksum is blank.
#[test]
fn super_frames_are_made_blank() {
    let mut net = Net::new(&[Frontend::linux_features(); 2]);
    net.introduce();
    let mut bytes = tcp(net.guests[1].mac, net.guests[0].mac, false, 20_000);
    let expected = bytes.clone();
    bytes[50..52].copy_from_slice(&[0xab, 0xcd]);
    net.send(0, &Outgoing { bytes, gso: gso(false), ..Outgoing::default() });
    let arrived = net.guests[1].arrived();
    assert_eq!(arrived.len(), 1);
    assert_eq!(arrived[0].bytes, expected);
    assert_eq!(arrived[0].flags, RxFlags::CSUM_BLANK | RxFlags::DATA_VALIDATED);
    net.end();
}

/// A segment that the NIC did not verify is joined with none, and overtakes none that is held.
#[test]
fn a_segment_that_was_not_verified_keeps_its_place() {
    let mut net = Net::new(&[Frontend::linux_features()]);
    net.introduce();
    for index in 0..5_u32 {
        let mut frame = tcp(net.guests[0].mac, WIRE, false, 1428);
        let start = transport_offset(&frame);
        frame[start + 4..start + 8].copy_from_slice(&(index * 1428).to_be_bytes());
        frame[start + 13] = 0x10;
        complete(&mut frame);
        let checksum = if index == 2 { Checksum::Unverified } else { Checksum::Verified };
        net.wire.borrow_mut().incoming.push_back((frame, checksum));
    }
    net.run();
    let arrived: Vec<_> = net.guests[0].arrived().into_iter().map(|packet| packet.bytes).collect();
    let numbers: Vec<u32> = arrived
        .iter()
        .map(|bytes| {
            let at = transport_offset(bytes) + 4;
            u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap()) / 1428
        })
        .collect();
    assert_eq!(numbers, [0, 2, 3]);
    net.end();
}

/// Segments of one flow from the wire: one super-frame for a guest that takes such, segments for one that does not.
#[test]
fn segments_from_the_wire_are_joined() {
    for ipv6 in [false, true] {
        for (features, packets) in [(Frontend::linux_features(), 1), (PLAIN, 7)] {
            let mut net = Net::new(&[features, Frontend::linux_features()]);
            net.introduce();
            let whole = tcp(net.guests[0].mac, WIRE, ipv6, 7 * 1428);
            let start = transport_offset(&whole);
            let mut frames = Vec::new();
            for index in 0..7 {
                let mut frame = tcp(net.guests[0].mac, WIRE, ipv6, 1428);
                frame[start + 32..].copy_from_slice(&whole[start + 32 + index * 1428..][..1428]);
                frame[start + 4..start + 8].copy_from_slice(&(1 + index as u32 * 1428).to_be_bytes());
                // PSH in the last one only.
                frame[start + 13] = if index == 6 { 0x18 } else { 0x10 };
                complete(&mut frame);
                frames.push(frame.clone());
                net.wire.borrow_mut().incoming.push_back((frame, Checksum::Verified));
            }
            net.run();
            let arrived = net.guests[0].arrived();
            assert_eq!(arrived.len(), packets);
            if packets == 1 {
                assert_eq!(arrived[0].bytes[start + 32..], whole[start + 32..]);
                assert_eq!(arrived[0].gso, gso(ipv6));
                assert_eq!(arrived[0].flags, RxFlags::CSUM_BLANK | RxFlags::DATA_VALIDATED);
            } else {
                let bytes: Vec<_> = arrived.into_iter().map(|packet| packet.bytes).collect();
                assert_eq!(bytes, frames);
            }
            assert_eq!(net.guests[1].arrived(), []);
            net.end();
        }
    }
}
