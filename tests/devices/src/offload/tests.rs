//! Checksums and segments as a receiver sees them. Pure.

use super::*;
use crate::packet::tests::{IP, Recipe, TCP};
use crate::packet::{self, Headers, Network};

const STATION: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn context(recipe: Recipe) -> Context {
    Context {
        ip_length: recipe.ip(),
        mac_length: IP,
        vlan: 0,
        ipv4: !recipe.v6,
        transport: if recipe.tcp { Transport::Tcp } else { Transport::Udp },
        index: 0,
        transport_length: recipe.transport(),
        segment_size: 1000,
    }
}

fn data(payload: usize) -> Data {
    Data { end: true, frame_check: true, payload, ..Data::default() }
}

fn assert_valid(frame: &[u8]) {
    let headers = Headers::parse(frame, 0x8100);
    assert!(!matches!(headers.network, None | Some(Network::V4 { valid: false, .. })));
    assert!(
        matches!(headers.transport, Some(packet::Transport::Tcp(true) | packet::Transport::Udp(Some(true)))),
        "{headers:?}"
    );
}

#[test]
fn checksums_are_completed() {
    for (v6, tcp) in [(false, true), (false, false), (true, true), (true, false)] {
        for payload in [0, 1, 1001] {
            let recipe = Recipe { v6, tcp, payload, ..Recipe::default() };
            let wanted = recipe.frame(STATION);
            let mut packet = Recipe { pseudo: Some(recipe.transport() + payload), ..recipe }.frame(STATION);
            if !v6 {
                packet[IP + 10..IP + 12].fill(0x55);
            }
            let first = Data { ip_checksum: !v6, transport_checksum: true, ..data(packet.len()) };
            assert_eq!(apply(packet, &first, Some(&context(recipe)), Some(0x8100)), Ok(vec![wanted]));
        }
    }
}

#[test]
fn a_udp_checksum_is_never_zero() {
    let recipe = Recipe { tcp: false, payload: 2, pseudo: Some(10), ..Recipe::default() };
    let mut packet = recipe.frame(STATION);
    // The payload that makes the sum all ones.
    let start = IP + 20;
    packet[start + 8..].fill(0);
    let sum = sum(&packet[start..], 0);
    packet[start + 8..].copy_from_slice(&(!sum).to_be_bytes());
    let first = Data { transport_checksum: true, ..data(packet.len()) };
    let frames = apply(packet, &first, Some(&context(recipe)), Some(0x8100)).expect("it fits");
    assert_eq!(half(&frames[0], start + 6), Some(0xFFFF));
}

#[test]
fn tcp_is_segmented() {
    for v6 in [false, true] {
        let recipe = Recipe { v6, payload: 2500, pseudo: Some(0), ..Recipe::default() };
        let packet = recipe.frame(STATION);
        let headers = IP + recipe.ip() + TCP;
        let first = Data { segment: true, ip_checksum: !v6, transport_checksum: true, ..data(2500) };
        let frames = apply(packet.clone(), &first, Some(&context(recipe)), Some(0x8100)).expect("it fits");
        assert_eq!(frames.iter().map(Vec::len).collect::<Vec<_>>(), [headers + 1000, headers + 1000, headers + 500]);
        frames.iter().for_each(|frame| assert_valid(frame));
        let payload: Vec<u8> = frames.iter().flat_map(|frame| frame[headers..].to_vec()).collect();
        assert_eq!(payload, packet[headers..]);
        let tcp = IP + recipe.ip();
        let sequences: Vec<_> = frames.iter().map(|frame| half(frame, tcp + 6).expect("a number")).collect();
        assert_eq!(sequences, [0xFFF0, 0xFFF0u16.wrapping_add(1000), 0xFFF0u16.wrapping_add(2000)]);
        // CWR in the first, FIN and PSH in the last, ACK in all.
        assert_eq!(frames.iter().map(|frame| frame[tcp + 13]).collect::<Vec<_>>(), [0x90, 0x10, 0x19]);
        if !v6 {
            assert_eq!(
                frames.iter().filter_map(|frame| half(frame, IP + 4)).collect::<Vec<_>>(),
                [0x1234, 0x1235, 0x1236]
            );
        }
    }
}

#[test]
fn a_tag_is_inserted() {
    let recipe = Recipe { payload: 1500, pseudo: Some(0), ..Recipe::default() };
    let context = Context { vlan: 0x6123, ..context(recipe) };
    let first = Data { segment: true, ip_checksum: true, transport_checksum: true, insert_vlan: true, ..data(1500) };
    let frames = apply(recipe.frame(STATION), &first, Some(&context), Some(0x8100)).expect("it fits");
    assert_eq!(frames.len(), 2);
    for frame in frames {
        assert_valid(&frame);
        assert_eq!(Headers::parse(&frame, 0x8100).vlan, Some(0x6123));
    }
}

#[test]
fn what_does_not_fit_is_told() {
    let recipe = Recipe { pseudo: Some(0), ..Recipe::default() };
    let packet = recipe.frame(STATION);
    let good = Data { segment: true, ip_checksum: true, transport_checksum: true, ..data(100) };
    let context = context(recipe);
    assert!(apply(packet.clone(), &good, Some(&context), None).is_ok());
    let refused = |first: Data, context: Option<Context>| {
        apply(packet.clone(), &first, context.as_ref(), None).expect_err("it does not fit");
    };
    refused(good, None);
    refused(Data { insert_vlan: true, ..good }, Some(context));
    refused(Data { payload: 99, ..good }, Some(context));
    refused(Data { frame_check: false, ..good }, Some(context));
    refused(Data { ip_checksum: false, ..good }, Some(context));
    refused(Data { segment: false, ..good }, Some(context));
    refused(good, Some(Context { segment_size: 0, ..context }));
    refused(good, Some(Context { mac_length: 0, ..context }));
    refused(good, Some(Context { ip_length: 511, ..context }));
    refused(good, Some(Context { ipv4: false, ..context }));
    refused(good, Some(Context { transport: Transport::Udp, ..context }));
    let plain = Data { segment: false, ip_checksum: false, payload: packet.len(), ..good };
    refused(plain, Some(Context { transport: Transport::Sctp, ..context }));
    refused(plain, Some(Context { ip_length: 300, ..context }));
    refused(Data { transport_checksum: false, payload: 0, ..plain }, None);
}
