//! Packets for tests, and what is read of them. Pure.

use super::*;
use crate::checksum::put;

/// A packet to build.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    pub(crate) v6: bool,
    pub(crate) tcp: bool,
    pub(crate) vlan: Option<u16>,
    pub(crate) payload: usize,
    /// The checksum field holds the pseudo-header's sum, with the length as given: for the device to complete.
    pub(crate) pseudo: Option<usize>,
    pub(crate) source: [u8; 4],
    pub(crate) ports: [u16; 2],
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            v6: false,
            tcp: true,
            vlan: None,
            payload: 100,
            pseudo: None,
            source: [66, 9, 149, 187],
            ports: [2794, 1766],
        }
    }
}

/// Where the IP header begins.
pub(crate) const IP: usize = 14;
/// Bytes of a TCP header with time stamps' room.
pub(crate) const TCP: usize = 32;

impl Recipe {
    /// Bytes of the IP header.
    pub(crate) const fn ip(self) -> usize {
        if self.v6 { 40 } else { 20 }
    }

    /// Bytes of the layer 4 header.
    pub(crate) const fn transport(self) -> usize {
        if self.tcp { TCP } else { 8 }
    }

    /// The frame to station `destination`.
    pub(crate) fn frame(self, destination: [u8; 6]) -> Vec<u8> {
        let length = self.transport() + self.payload;
        let protocol = if self.tcp { 6 } else { 17 };
        let mut frame = [&destination[..], &[2, 0, 0, 0, 0, 9]].concat();
        if let Some(tag) = self.vlan {
            frame.extend([0x81, 0x00]);
            frame.extend(tag.to_be_bytes());
        }
        let ip = frame.len() + 2;
        let addresses;
        if self.v6 {
            frame.extend([0x86, 0xDD, 0x60, 0, 0, 0]);
            frame.extend((length.min(0xFFFF) as u16).to_be_bytes());
            frame.extend([protocol, 64]);
            addresses = ip + 8..ip + 40;
            let mut address = [0xFE, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
            address[..4].copy_from_slice(&self.source);
            frame.extend(address);
            frame.extend([0x3F, 0xFE, 0x25, 0x01, 2, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1]);
        } else {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend(((20 + length).min(0xFFFF) as u16).to_be_bytes());
            frame.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
            addresses = ip + 12..ip + 20;
            frame.extend(self.source);
            frame.extend([161, 142, 100, 80]);
            let header = !sum(&frame[ip..], 0);
            put(&mut frame, ip + 10, header);
        }
        let start = frame.len();
        frame.extend(self.ports[0].to_be_bytes());
        frame.extend(self.ports[1].to_be_bytes());
        if self.tcp {
            frame.extend(0xFFFF_FFF0_u32.to_be_bytes());
            frame.extend([0, 0, 0, 1, 0x80, 0x99, 1, 0, 0, 0, 0, 0]);
            frame.extend([1; TCP - 20]);
        } else {
            frame.extend((length as u16).to_be_bytes());
            frame.extend([0, 0]);
        }
        frame.extend((0..self.payload).map(|index| ((index * 7) ^ (index >> 8)) as u8));
        let field = start + if self.tcp { 16 } else { 6 };
        let pseudo = |length: usize| sum(&frame[addresses.clone()], sum(&[0, protocol], length as u16));
        let value = match self.pseudo {
            Some(length) => pseudo(length),
            None => !sum(&frame[start..], pseudo(length)),
        };
        put(&mut frame, field, value);
        frame
    }
}

#[test]
fn packets_are_read() {
    for (v6, tcp, vlan) in [(false, true, None), (false, false, Some(5)), (true, true, Some(7)), (true, false, None)] {
        let recipe = Recipe { v6, tcp, vlan, ..Recipe::default() };
        let mut frame = recipe.frame([2; 6]);
        // What pads a frame is none of the packet.
        frame.extend([0xFF; 3]);
        let headers = Headers::parse(&frame, 0x8100);
        let network = if v6 { Network::V6 { extensions: false } } else { Network::V4 { options: false, valid: true } };
        let transport = |right| if tcp { Transport::Tcp(right) } else { Transport::Udp(Some(right)) };
        assert_eq!((headers.vlan, headers.network, headers.transport), (vlan, Some(network), Some(transport(true))));
        assert_eq!(headers.ports, Some([0x0A, 0xEA, 0x06, 0xE6]));
        assert_eq!(headers.addresses.len(), if v6 { 32 } else { 8 });
        let last = frame.len() - 4;
        frame[last] ^= 1;
        assert_eq!(Headers::parse(&frame, 0x8100).transport, Some(transport(false)));
        if !v6 {
            frame[IP + vlan.map_or(0, |_| 4) + 8] ^= 1;
            let network = Network::V4 { options: false, valid: false };
            assert_eq!(Headers::parse(&frame, 0x8100).network, Some(network));
        }
    }
}

#[test]
fn fragments_and_pieces_of_packets() {
    let mut frame = Recipe::default().frame([2; 6]);
    frame[IP + 6] = 0x20;
    let headers = Headers::parse(&frame, 0x8100);
    assert!(headers.network.is_some() && headers.transport.is_none() && headers.ports.is_none());
    let mut frame = Recipe { tcp: false, ..Recipe::default() }.frame([2; 6]);
    frame[IP + 20 + 6..IP + 20 + 8].fill(0);
    assert_eq!(Headers::parse(&frame, 0x8100).transport, Some(Transport::Udp(None)), "no checksum");
    // IPv6 with hop-by-hop options before UDP.
    let plain = Recipe { v6: true, tcp: false, ..Recipe::default() }.frame([2; 6]);
    let mut frame = [&plain[..54], &[17, 0, 1, 4, 0, 0, 0, 0], &plain[54..]].concat();
    frame[IP + 6] = 0;
    put(&mut frame, IP + 4, 116);
    let headers = Headers::parse(&frame, 0x8100);
    assert_eq!(headers.network, Some(Network::V6 { extensions: true }));
    assert_eq!(headers.transport, Some(Transport::Udp(Some(true))));
    for recipe in [Recipe::default(), Recipe { v6: true, vlan: Some(3), ..Recipe::default() }] {
        let frame = recipe.frame([2; 6]);
        for length in 0..frame.len() {
            Headers::parse(&frame[..length], 0x8100);
        }
    }
}
