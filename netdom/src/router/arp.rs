//! ARP (RFC 826): questions and answers. Pure. Floor 3.

use crate::ethernet::MacAddress;
use core::net::Ipv4Addr;

/// Bytes of a frame of ARP, padded to what an Ethernet carries at least.
pub(super) const FRAME: usize = 60;
/// `EtherType`.
pub(super) const ETHERTYPE: u16 = 0x0806;
/// An ARP packet begins so for Ethernet and IPv4.
const BEGINNING: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];

/// What a packet of ARP says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// It asks; otherwise it answers.
    pub(super) asks: bool,
    /// The sender.
    pub(super) sender: (MacAddress, Ipv4Addr),
    /// The station that it is about.
    pub(super) target: (MacAddress, Ipv4Addr),
}

impl Packet {
    /// The packet of a frame.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let packet: &[u8; 28] = bytes.get(14..)?.first_chunk()?;
        let mac = |place: usize| packet.get(place..)?.first_chunk().copied().map(MacAddress);
        let address = |place: usize| packet.get(place..)?.first_chunk::<4>().copied().map(Ipv4Addr::from);
        let asks = match packet.get(6..8)? {
            [0, 1] => true,
            [0, 2] => false,
            _ => return None,
        };
        let (sender, target) = ((mac(8)?, address(14)?), (mac(18)?, address(24)?));
        (packet.first_chunk() == Some(&BEGINNING)).then_some(Self { asks, sender, target })
    }

    /// The frame, to a station.
    pub(super) fn frame(&self, to: MacAddress) -> [u8; FRAME] {
        let mut frame = [0; FRAME];
        let (source, sender) = self.sender;
        let (known, target) = self.target;
        let kind = [0, if self.asks { 1 } else { 2 }];
        let parts: [&[u8]; 9] = [
            &to.0,
            &source.0,
            &ETHERTYPE.to_be_bytes(),
            &BEGINNING,
            &kind,
            &source.0,
            &sender.octets(),
            &known.0,
            &target.octets(),
        ];
        frame.iter_mut().zip(parts.iter().flat_map(|part| part.iter())).for_each(|(to, from)| *to = *from);
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_and_back() {
        let (one, other) = (MacAddress([2; 6]), MacAddress([4; 6]));
        for asks in [true, false] {
            let packet =
                Packet { asks, sender: (one, Ipv4Addr::new(10, 0, 0, 1)), target: (other, Ipv4Addr::new(10, 0, 0, 2)) };
            let frame = packet.frame(MacAddress::BROADCAST);
            assert_eq!(Packet::parse(&frame), Some(packet));
            assert_eq!(Packet::parse(&frame[..41]), None);
        }
    }
}
