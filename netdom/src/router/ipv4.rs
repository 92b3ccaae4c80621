//! IPv4 headers (RFC 791) in the first bytes of a frame, and what a router changes of them. Pure. Floor 3.
//!
//! A checksum is adjusted by what was changed (RFC 1624, equation 3), never computed anew: a wrong one stays wrong. One that is blank, which holds
//! the sum of the pseudo-header, is adjusted by the addresses alone.

use crate::offload::checksum::Sum;
use crate::offload::headers::{ETHERNET_HEADER, put, read_u16};
use core::net::Ipv4Addr;

/// Where the IP header begins: frames that are routed have no tag.
pub(super) const START: usize = ETHERNET_HEADER;
/// IP protocol number of ICMP.
pub(super) const ICMP: u8 = 1;

/// What an IPv4 header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Bytes of the header.
    pub(super) length: usize,
    /// Bytes with what is behind it.
    pub(super) total: usize,
    /// The protocol of what is behind it.
    pub(super) protocol: u8,
    /// Routers that it may still pass.
    pub(super) ttl: u8,
    /// By which its fragments are known.
    pub(super) identification: u16,
    /// It is a fragment of a packet.
    pub(super) is_fragment: bool,
    /// It is a fragment behind the first one: nothing of the transport's header is in it.
    pub(super) is_later: bool,
    /// It may not be cut.
    pub(super) whole: bool,
    /// Where it comes from.
    pub(super) source: Ipv4Addr,
    /// Where it goes.
    pub(super) destination: Ipv4Addr,
}

impl Header {
    /// The header at `start`. `None` where there is none, or it is not what it says (RFC 1812, 5.2.2).
    pub(super) fn parse(bytes: &[u8], start: usize) -> Option<Self> {
        let first: &[u8; 20] = bytes.get(start..)?.first_chunk()?;
        let length = usize::from(first[0] & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes([first[2], first[3]]));
        if first[0] >> 4 != 4 || length < 20 || total < length {
            return None;
        }
        let mut sum = Sum::new();
        sum.add(bytes.get(start..start + length)?);
        let flags = u16::from_be_bytes([first[6], first[7]]);
        let [_, _, _, _, _, _, _, _, ttl, protocol, _, _, a, b, c, d, e, f, g, h] = *first;
        (sum.folded() == 0xffff).then_some(Self {
            length,
            total,
            protocol,
            ttl,
            identification: u16::from_be_bytes([first[4], first[5]]),
            is_fragment: flags & 0x3fff != 0,
            is_later: flags & 0x1fff != 0,
            whole: flags & 0x4000 != 0,
            source: Ipv4Addr::new(a, b, c, d),
            destination: Ipv4Addr::new(e, f, g, h),
        })
    }
}

/// Whether no packet with this address passes a router: of a host that has none, of the host itself, of a group or reserved (RFC 1812, 4.2.2.11 and
/// 5.3.7).
pub(super) const fn is_martian(address: Ipv4Addr) -> bool {
    matches!(address.octets(), [0 | 127 | 224.., ..])
}

/// What was changed among the bytes that a checksum is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Change(u32);

impl Change {
    /// Another 16 bits.
    pub(super) fn word(&mut self, old: u16, new: u16) {
        // Some dozens of words at most.
        self.0 = self.0.saturating_add(u32::from(!old) + u32::from(new));
    }

    /// Another address.
    pub(super) fn address(&mut self, old: Ipv4Addr, new: Ipv4Addr) {
        let ([a, b, c, d], [e, f, g, h]) = (old.octets(), new.octets());
        self.word(u16::from_be_bytes([a, b]), u16::from_be_bytes([e, f]));
        self.word(u16::from_be_bytes([c, d]), u16::from_be_bytes([g, h]));
    }

    /// What another change did, too.
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The complete checksum that there is now.
    pub(super) const fn complete(self, old: u16) -> u16 {
        !Self::fold((!old) as u32 + self.0)
    }

    /// The sum that there is now, not complemented.
    pub(super) const fn sum(self, old: u16) -> u16 {
        Self::fold(old as u32 + self.0)
    }

    const fn fold(sum: u32) -> u16 {
        let sum = (sum >> 16) + (sum & 0xffff);
        ((sum >> 16) + (sum & 0xffff)) as u16
    }
}

/// Adjusts the complete checksum at a place. False where there are no such bytes.
pub(super) fn adjust(bytes: &mut [u8], place: usize, change: Change) -> bool {
    match read_u16(bytes, place) {
        Some(old) => put(bytes, place, &change.complete(old).to_be_bytes()),
        None => false,
    }
}

/// Gives the header at `start` other addresses, and the checksum of the header with them. What changed; `None` where there are no such bytes.
pub(super) fn set_addresses(bytes: &mut [u8], start: usize, source: Ipv4Addr, destination: Ipv4Addr) -> Option<Change> {
    let mut change = Change::default();
    for (offset, new) in [(12, source), (16, destination)] {
        let place = start + offset;
        let old = Ipv4Addr::from(*bytes.get(place..)?.first_chunk::<4>()?);
        change.address(old, new);
        if !put(bytes, place, &new.octets()) {
            return None;
        }
    }
    adjust(bytes, start + 10, change).then_some(change)
}

/// Gives the header another identification. False where there are no such bytes.
pub(super) fn set_identification(bytes: &mut [u8], old: u16, new: u16) -> bool {
    let mut change = Change::default();
    change.word(old, new);
    put(bytes, START + 4, &new.to_be_bytes()) && adjust(bytes, START + 10, change)
}

/// Takes one from the hops that a packet has left. False where it has none left, and nothing is written.
pub(super) fn pass_hop(bytes: &mut [u8]) -> bool {
    let Some(old) = read_u16(bytes, START + 8).filter(|old| *old >= 0x0200) else {
        return false;
    };
    let new = old - 0x0100;
    let mut change = Change::default();
    change.word(old, new);
    put(bytes, START + 8, &new.to_be_bytes()) && adjust(bytes, START + 10, change)
}

/// Writes a header of 20 bytes for a packet of `total` bytes.
pub(super) fn write(bytes: &mut [u8], total: u16, protocol: u8, source: Ipv4Addr, destination: Ipv4Addr) -> bool {
    let [a, b] = total.to_be_bytes();
    let header = [0x45, 0, a, b, 0, 0, 0x40, 0, 64, protocol, 0, 0];
    if !put(bytes, START, &header)
        || !put(bytes, START + 12, &source.octets())
        || !put(bytes, START + 16, &destination.octets())
    {
        return false;
    }
    let mut sum = Sum::new();
    sum.add(bytes.get(START..START + 20).unwrap_or_default());
    put(bytes, START + 10, &sum.checksum().to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn checksum(bytes: &[u8]) -> u16 {
        let mut sum = Sum::new();
        sum.add(bytes);
        sum.checksum()
    }

    proptest! {
        /// What is adjusted is what would be computed.
        #[test]
        fn an_adjusted_checksum_is_the_right_one(
            bytes in proptest::collection::vec(any::<u8>(), 40),
            changes in proptest::collection::vec((0..20_usize, any::<u16>()), 0..8),
        ) {
            let before = checksum(&bytes);
            let mut after: Vec<u8> = bytes.clone();
            let mut change = Change::default();
            for (place, new) in changes {
                let old = read_u16(&after, 2 * place).unwrap();
                change.word(old, new);
                put(&mut after, 2 * place, &new.to_be_bytes());
            }
            // 0 and 0xffff are the same sum.
            let same = |one: u16, other: u16| one % 0xffff == other % 0xffff;
            prop_assert!(same(change.complete(before), checksum(&after)));
            prop_assert!(same(change.sum(!before), !checksum(&after)));
        }

        #[test]
        fn a_header_stays_right(addresses in any::<[u32; 4]>(), ttl in any::<u8>()) {
            let [a, b, c, d] = addresses.map(Ipv4Addr::from_bits);
            let mut frame = [0; 34];
            prop_assert!(write(&mut frame, 20, 17, a, b));
            let mut change = Change::default();
            change.word(0x4000, u16::from(ttl) << 8);
            frame[22] = ttl;
            prop_assert!(adjust(&mut frame, 24, change));
            prop_assert!(set_addresses(&mut frame, START, c, d).is_some());
            prop_assert_eq!(pass_hop(&mut frame), ttl > 1);
            let header = Header::parse(&frame, START).unwrap();
            prop_assert_eq!((header.source, header.destination), (c, d));
            prop_assert_eq!(header.ttl, if ttl > 1 { ttl - 1 } else { ttl });
        }
    }
}
