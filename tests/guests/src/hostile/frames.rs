//! Frames to send, good ones and others.

use alloc::vec::Vec;

/// Everybody.
pub(crate) const BROADCAST: [u8; 6] = [0xff; 6];
/// A group nobody listens to.
pub(crate) const NOBODY: [u8; 6] = [0x02, 0xde, 0xad, 0xbe, 0xef, 0x00];
/// EtherType for local experiments (IEEE Std 802).
pub(crate) const EXPERIMENT: [u8; 2] = [0x88, 0xb5];
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ARP: [u8; 2] = [0x08, 0x06];

fn frame(destination: [u8; 6], source: [u8; 6], kind: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(&destination);
    frame.extend_from_slice(&source);
    frame.extend_from_slice(&kind);
    frame.extend_from_slice(payload);
    frame
}

/// A broadcast, by which the switch learns where the sender is.
pub(crate) fn hello(source: [u8; 6]) -> Vec<u8> {
    frame(BROADCAST, source, EXPERIMENT, &[0; 46])
}

/// Who has this address? As `own` it asks, and is answered (RFC 826).
pub(crate) fn question(source: [u8; 6], own: [u8; 4], address: [u8; 4]) -> Vec<u8> {
    let fixed = [0, 1, 8, 0, 6, 4, 0, 1];
    let packet = [&fixed[..], &source, &own, &[0; 6], &address, &[0; 18]].concat();
    frame(BROADCAST, source, ARP, &packet)
}

/// A frame with that many bytes of payload.
pub(crate) fn datagram(destination: [u8; 6], source: [u8; 6], length: usize) -> Vec<u8> {
    let payload: Vec<u8> = (0..length).map(|index| index as u8).collect();
    frame(destination, source, EXPERIMENT, &payload)
}

/// IPv4 of a protocol and a header length, in words, that it may not have; cut to `length` bytes of packet.
pub(crate) fn ipv4(source: [u8; 6], header_words: u8, total: u16, protocol: u8, length: usize) -> Vec<u8> {
    let [high, low] = total.to_be_bytes();
    let mut packet = Vec::from([0x40 | header_words & 0xf, 0, high, low, 0, 1, 0, 0, 64, protocol, 0, 0]);
    packet.extend_from_slice(&[10, 9, 9, 9, 10, 9, 255, 255]);
    packet.resize(length.max(1), 0x45);
    packet.truncate(length);
    frame(BROADCAST, source, IPV4, &packet)
}

/// IPv6 with a chain of headers that begins with `next`; cut to `length` bytes of packet.
pub(crate) fn ipv6(source: [u8; 6], next: u8, payload: u16, length: usize) -> Vec<u8> {
    let [high, low] = payload.to_be_bytes();
    let mut packet = Vec::from([0x60, 0, 0, 0, high, low, next, 64]);
    packet.resize(40, 0xfe);
    // Each extension header says that the same one follows.
    packet.resize(length.max(40), next);
    packet.truncate(length);
    frame(BROADCAST, source, IPV6, &packet)
}

/// IPv4 and TCP with `data` bytes, all header fields right but for the checksums.
pub(crate) fn tcp(source: [u8; 6], data: usize) -> Vec<u8> {
    let total = u16::try_from(40 + data).unwrap_or(u16::MAX);
    let mut frame = ipv4(source, 5, total, 6, 20);
    frame.extend_from_slice(&[0x30, 0x39, 0x30, 0x39, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame.resize(frame.len() + data, 0x5a);
    frame
}
