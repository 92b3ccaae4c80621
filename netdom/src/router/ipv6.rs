//! IPv6 headers (RFC 8200) in the first bytes of a frame, and what a router changes of them. Pure. Floor 3.

use super::ipv4::START;
use crate::offload::checksum::Sum;
use crate::offload::headers::{ETHERTYPE_IPV6, put};
use core::net::Ipv6Addr;

/// Bytes of a header. What extends it is not looked at where a packet passes.
pub(super) const HEADER: usize = 40;
/// Next header of ICMPv6.
pub(super) const ICMPV6: u8 = 58;
/// All nodes of a link (RFC 4291, 2.7.1).
pub(super) const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// What an IPv6 header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes with what is behind it.
    pub(super) total: usize,
    /// The header behind it.
    pub(super) next: u8,
    /// Routers that it may still pass.
    pub(super) hops: u8,
    /// Where it comes from.
    pub(super) source: Ipv6Addr,
    /// Where it goes.
    pub(super) destination: Ipv6Addr,
}

impl Header {
    /// The header behind Ethernet's; `None` where there is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let header: &[u8; HEADER] = bytes.get(START..)?.first_chunk()?;
        let address = |place: usize| header.get(place..)?.first_chunk::<16>().copied().map(Ipv6Addr::from_octets);
        let &[first, _, _, _, high, low, next, hops, ..] = header;
        let (source, destination) = (address(8)?, address(24)?);
        let total = HEADER + usize::from(u16::from_be_bytes([high, low]));
        (first >> 4 == 6).then_some(Self { total, next, hops, source, destination })
    }
}

/// Takes one from the hops that a packet has left. False where it has none left, and nothing is written.
pub(super) fn pass_hop(bytes: &mut [u8]) -> bool {
    match bytes.get_mut(START + 7) {
        Some(hops) if *hops >= 2 => {
            *hops -= 1;
            true
        }
        _ => false,
    }
}

/// The sum of the pseudo-header of ICMPv6 (RFC 8200, 8.1), and of the message, whose bytes these are.
pub(super) fn sum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> Sum {
    let mut sum = Sum::new();
    sum.add(&source.octets());
    sum.add(&destination.octets());
    // It is of one frame.
    sum.add_u16(message.len() as u16);
    sum.add_u16(ICMPV6.into());
    sum.add(message);
    sum
}

/// Writes a packet of ICMPv6, made of these parts with a checksum of zero, behind the stations of a frame. How long the frame is; `None` where there is
/// no room.
pub(super) fn write(
    out: &mut [u8],
    (source, destination): (Ipv6Addr, Ipv6Addr),
    hops: u8,
    parts: &[&[u8]],
) -> Option<usize> {
    let start = START + HEADER;
    let mut end = start;
    for part in parts {
        if !put(out, end, part) {
            return None;
        }
        end += part.len();
    }
    let [high, low] = u16::try_from(end - start).ok()?.to_be_bytes();
    let checksum = sum(source, destination, out.get(start..end)?).checksum();
    let all = put(out, START - 2, &ETHERTYPE_IPV6.to_be_bytes())
        && put(out, START, &[0x60, 0, 0, 0, high, low, ICMPV6, hops])
        && put(out, START + 8, &source.octets())
        && put(out, START + 24, &destination.octets())
        && put(out, start + 2, &checksum.to_be_bytes());
    all.then_some(end)
}
