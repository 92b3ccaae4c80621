//! Frames to send.

use crate::ethernet::MacAddress;
use alloc::vec::Vec;

/// A frame of no protocol, `payload` bytes behind its header, each byte telling its place.
pub(crate) fn ethernet(destination: impl Into<MacAddress>, source: impl Into<MacAddress>, payload: usize) -> Vec<u8> {
    let mut frame = Vec::from(destination.into().0);
    frame.extend(source.into().0);
    frame.extend([0x88, 0xb5]);
    frame.extend((0..payload).map(|place| (place % 251) as u8));
    frame
}

/// A TCP frame over IPv4 or IPv6 with a blank checksum, its payload each byte telling its place.
pub(crate) fn tcp(
    destination: impl Into<MacAddress>,
    source: impl Into<MacAddress>,
    ipv6: bool,
    payload: usize,
) -> Vec<u8> {
    let mut frame = Vec::from(destination.into().0);
    frame.extend(source.into().0);
    let transport = 32 + payload;
    if ipv6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend((transport as u16).to_be_bytes());
        frame.extend([6, 64]);
        frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    } else {
        frame.extend([0x08, 0x00, 0x45, 0]);
        frame.extend(((20 + transport) as u16).to_be_bytes());
        frame.extend([0x12, 0x34, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        let sum = ones(&frame[14..34]);
        frame[24..26].copy_from_slice(&(!sum).to_be_bytes());
    }
    let blank = pseudo(&frame, transport);
    let start = frame.len();
    frame.extend([0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x80, 0x18, 1, 0]);
    frame.extend(blank.to_be_bytes());
    frame.extend([0, 0, 1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(frame.len() - start, 32);
    frame.extend((0..payload).map(|place| (place % 251) as u8));
    frame
}

/// The same, between these ports.
pub(crate) fn tcp_ports(destination: [u8; 6], source: [u8; 6], ports: [u16; 2], payload: usize) -> Vec<u8> {
    let mut frame = tcp(destination, source, false, payload);
    frame[34..36].copy_from_slice(&ports[0].to_be_bytes());
    frame[36..38].copy_from_slice(&ports[1].to_be_bytes());
    complete(&mut frame);
    frame
}

/// Where TCP starts.
pub(crate) fn transport_offset(frame: &[u8]) -> usize {
    if frame[12..14] == [0x86, 0xdd] { 54 } else { 34 }
}

/// Whether all checksums of a frame of [`tcp`] are complete and right.
pub(crate) fn is_complete(frame: &[u8]) -> bool {
    let start = transport_offset(frame);
    let transport = &frame[start..];
    let network_good = start == 54 || ones(&frame[14..34]) == 0xffff;
    let sum = u32::from(ones(transport)) + u32::from(pseudo(frame, transport.len()));
    network_good && fold(sum) == 0xffff
}

fn pseudo(frame: &[u8], length: usize) -> u16 {
    let addresses = if transport_offset(frame) == 54 { &frame[22..54] } else { &frame[26..34] };
    fold(u32::from(ones(addresses)) + 6 + length as u32)
}

fn ones(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    fold(words.sum())
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Completes the checksum of a frame of [`tcp`].
pub(crate) fn complete(frame: &mut [u8]) {
    let start = transport_offset(frame);
    frame[start + 16..start + 18].fill(0);
    let length = frame.len() - start;
    let sum = fold(u32::from(ones(&frame[start..])) + u32::from(pseudo(frame, length)));
    frame[start + 16..start + 18].copy_from_slice(&(!sum).to_be_bytes());
}
