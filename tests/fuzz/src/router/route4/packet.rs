//! Packets of IPv4, read field by field, and sums over all of their bytes. Host.

use netdom::ethernet::MacAddress;
use netdom::router::config::Protocol;
use std::net::Ipv4Addr;

/// Where the IP header begins.
pub(super) const START: usize = 14;
/// Protocol numbers.
pub(super) const ICMP: u8 = 1;
pub(super) const IGMP: u8 = 2;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;

pub(super) fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(super) fn set_word(bytes: &mut [u8], at: usize, word: u16) {
    bytes[at..at + 2].copy_from_slice(&word.to_be_bytes());
}

pub(super) fn address(bytes: &[u8], at: usize) -> Ipv4Addr {
    Ipv4Addr::from(*bytes[at..].first_chunk::<4>().expect("an address"))
}

/// The sum of all 16-bit words (RFC 1071), folded; bytes that are missing are zero.
pub(super) fn sum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        let (words, rest) = part.as_chunks::<2>();
        sum += words.iter().map(|word| u64::from(u16::from_be_bytes(*word))).sum::<u64>();
        sum += rest.first().map_or(0, |byte| u64::from(*byte) << 8);
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// Whether two sums are the same number: 0 and 0xffff are.
pub(super) fn same(one: u16, other: u16) -> bool {
    one % 0xffff == other % 0xffff
}

/// What a header says (RFC 791, 3.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Ip {
    /// Where it begins.
    pub(super) at: usize,
    pub(super) header: usize,
    pub(super) total: usize,
    pub(super) id: u16,
    /// Flags and offset.
    pub(super) fragment: u16,
    pub(super) ttl: u8,
    pub(super) protocol: u8,
    pub(super) source: Ipv4Addr,
    pub(super) destination: Ipv4Addr,
}

impl Ip {
    /// `None` where it is none, or its checksum is wrong.
    pub(super) fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let all = bytes.get(at..at + 20)?;
        let header = usize::from(all[0] & 15) * 4;
        let total = usize::from(word(all, 2)?);
        if all[0] >> 4 != 4 || header < 20 || total < header || sum(&[bytes.get(at..at + header)?]) != 0xffff {
            return None;
        }
        let (id, fragment) = (word(all, 4)?, word(all, 6)?);
        let (source, destination) = (address(all, 12), address(all, 16));
        Some(Self { at, header, total, id, fragment, ttl: all[8], protocol: all[9], source, destination })
    }

    pub(super) fn may_be_cut(&self) -> bool {
        self.fragment & 0x4000 == 0
    }

    /// More fragments follow, or others were before.
    pub(super) fn is_fragment(&self) -> bool {
        self.fragment & 0x3fff != 0
    }

    /// Others were before.
    pub(super) fn is_later(&self) -> bool {
        self.fragment & 0x1fff != 0
    }

    /// Where what is behind the header begins.
    pub(super) fn behind(&self) -> usize {
        self.at + self.header
    }

    /// Where the packet ends.
    pub(super) fn end(&self) -> usize {
        self.at + self.total
    }

    /// The sum of what TCP's and UDP's checksums have of the header.
    pub(super) fn pseudo(&self) -> u16 {
        let length = (self.total - self.header) as u16;
        sum(&[&self.source.octets(), &self.destination.octets(), &[0, self.protocol], &length.to_be_bytes()])
    }
}

/// What is behind a header, where it has ports.
#[derive(Clone, Copy, Debug)]
pub(super) struct Upper {
    pub(super) protocol: Protocol,
    /// Where it begins.
    pub(super) at: usize,
    pub(super) source: u16,
    pub(super) destination: u16,
    /// TCP's flags.
    pub(super) flags: u8,
}

impl Upper {
    /// `quoted` are packets in errors, of which little is there.
    pub(super) fn read(bytes: &[u8], ip: &Ip, quoted: bool) -> Option<Self> {
        if ip.is_later() {
            return None;
        }
        let at = ip.behind();
        let bytes = &bytes[..bytes.len().min(ip.end())];
        let there = bytes.len().checked_sub(at)?;
        let needed = match ip.protocol {
            TCP if !quoted => 20,
            TCP => 4,
            _ => 8,
        };
        if there < needed {
            return None;
        }
        let (first, second) = (word(bytes, at)?, word(bytes, at + 2)?);
        let of = |protocol, source, destination, flags| Some(Self { protocol, at, source, destination, flags });
        match ip.protocol {
            TCP => of(Protocol::Tcp, first, second, if quoted { 0 } else { bytes[at + 13] }),
            UDP => of(Protocol::Udp, first, second, 0),
            ICMP if matches!(bytes[at], 0 | 8) => {
                let identifier = word(bytes, at + 4)?;
                of(Protocol::Echo, identifier, identifier, 0)
            }
            _ => None,
        }
    }

    /// Where its checksum is.
    pub(super) fn field(&self) -> usize {
        self.at
            + match self.protocol {
                Protocol::Tcp => 16,
                Protocol::Udp => 6,
                Protocol::Echo => 2,
            }
    }

    /// The port of the remote end, of the two: an echo has none.
    pub(super) fn far(&self, port: u16) -> u16 {
        if self.protocol == Protocol::Echo { 0 } else { port }
    }
}

/// The packet that an ICMP error is about.
pub(super) fn about(bytes: &[u8], ip: &Ip) -> Option<(Ip, Upper)> {
    let at = ip.behind();
    let bytes = &bytes[..bytes.len().min(ip.end())];
    if ip.protocol != ICMP || ip.is_fragment() || !matches!(bytes.get(at)?, 3 | 11 | 12) {
        return None;
    }
    let inner = Ip::read(bytes, at + 8)?;
    Some((inner, Upper::read(bytes, &inner, true)?))
}

/// Whether an address may be that of no station of another network (RFC 1812, 4.2.2.11 and 5.3.7).
pub(super) fn is_martian(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first == 0 || first == 127 || first >= 224
}

/// Whether an Ethernet address is a group's.
pub(super) fn is_group(mac: MacAddress) -> bool {
    mac.0[0] & 1 != 0
}

/// Whether an address is of the network that another is of, in so many bits.
pub(super) fn is_within(one: Ipv4Addr, length: u8, other: Ipv4Addr) -> bool {
    (one.to_bits() ^ other.to_bits()) >> (32 - length) == 0
}

/// Whether it is a host's there: neither the first of its network nor the last.
pub(super) fn is_host(one: Ipv4Addr, length: u8, other: Ipv4Addr) -> bool {
    let rest = other.to_bits() << length;
    is_within(one, length, other) && rest != 0 && rest != u32::MAX << length
}
