//! Ports and checksums of TCP, UDP and the echo of ICMP, and what a router changes of them. Pure. Floor 3.

use super::config::Protocol;
use super::ipv4::{Change, Header, ICMP, adjust};
use super::nat::Flags;
use crate::offload::headers::{PROTOCOL_TCP, PROTOCOL_UDP, put, read_u16};

/// Types of ICMP (RFC 792).
pub(super) const ECHO_REPLY: u8 = 0;
/// The other one.
pub(super) const ECHO_REQUEST: u8 = 8;

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// An option of TCP: the largest segment (RFC 9293, 3.2).
const MAXIMUM_SEGMENT: u8 = 2;

/// What stands behind an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transport {
    /// What it is.
    pub(super) protocol: Protocol,
    /// Where it begins.
    pub(super) start: usize,
    /// Its ports; for an echo, both are its identifier.
    pub(super) source: u16,
    /// The other one.
    pub(super) destination: u16,
    /// What it says of its connection.
    pub(super) flags: Flags,
    /// TCP's first segment of either end.
    pub(super) is_first: bool,
}

impl Transport {
    /// Behind the header at `start`. `None` where it is nothing whose ports are known, or a fragment without them. Of a packet in
    /// an error there is less than that: `quoted`.
    pub(super) fn parse(bytes: &[u8], start: usize, header: &Header, quoted: bool) -> Option<Self> {
        if header.is_later {
            return None;
        }
        let begin = start + header.length;
        let there = header.total.checked_sub(header.length)?;
        let port = |place: usize| read_u16(bytes, begin + place);
        let (mut flags, mut is_first) = (Flags::default(), false);
        let (protocol, source, destination) = match header.protocol {
            PROTOCOL_TCP if quoted => (Protocol::Tcp, port(0)?, port(2)?),
            PROTOCOL_TCP => {
                let bits = *bytes.get(begin + 13).filter(|_| there >= 20 && bytes.len() >= begin + 20)?;
                is_first = bits & SYN != 0;
                flags = Flags { opens: bits & (SYN | ACK) == SYN, ends: bits & FIN != 0, resets: bits & RST != 0 };
                (Protocol::Tcp, port(0)?, port(2)?)
            }
            PROTOCOL_UDP if there >= 8 => {
                port(6)?;
                (Protocol::Udp, port(0)?, port(2)?)
            }
            ICMP if there >= 8 && matches!(bytes.get(begin)?, &(ECHO_REPLY | ECHO_REQUEST)) => {
                let identifier = port(4)?;
                port(6)?;
                (Protocol::Echo, identifier, identifier)
            }
            _ => return None,
        };
        Some(Self { protocol, start: begin, source, destination, flags, is_first })
    }

    /// Whether it is an echo that asks.
    pub(super) fn asks(&self, bytes: &[u8]) -> bool {
        self.protocol == Protocol::Echo && bytes.get(self.start) == Some(&ECHO_REQUEST)
    }

    /// Gives it other ports, and the checksum that goes with them and with other addresses. A blank one is of the addresses alone. False where
    /// there are no such bytes.
    pub(super) fn set_ports(
        &self,
        bytes: &mut [u8],
        source: u16,
        destination: u16,
        addresses: Change,
        blank: bool,
    ) -> bool {
        let mut ports = Change::default();
        let mut all = true;
        if self.protocol == Protocol::Echo {
            // It has one; the one that was to be changed.
            let new = if source != self.source { source } else { destination };
            ports.word(self.source, new);
            return put(bytes, self.start + 4, &new.to_be_bytes()) && adjust(bytes, self.start + 2, ports);
        }
        for (offset, old, new) in [(0, self.source, source), (2, self.destination, destination)] {
            ports.word(old, new);
            all &= put(bytes, self.start + offset, &new.to_be_bytes());
        }
        all && self.set_checksum(bytes, addresses, ports, blank)
    }

    fn set_checksum(&self, bytes: &mut [u8], addresses: Change, others: Change, blank: bool) -> bool {
        let place = self.start + if self.protocol == Protocol::Tcp { 16 } else { 6 };
        let Some(old) = read_u16(bytes, place) else {
            return false;
        };
        let new = match (blank, self.protocol) {
            (true, _) => addresses.sum(old),
            // None was made (RFC 768).
            (false, Protocol::Udp) if old == 0 => 0,
            (false, Protocol::Udp) => match addresses.and(others).complete(old) {
                0 => 0xffff,
                new => new,
            },
            (false, _) => addresses.and(others).complete(old),
        };
        put(bytes, place, &new.to_be_bytes())
    }

    /// Has the first segment of a connection ask for segments of at most `most` bytes.
    pub(super) fn clamp(&self, bytes: &mut [u8], most: u16, blank: bool) {
        let Some(length) = bytes.get(self.start + 12).map(|byte| usize::from(byte >> 4) * 4) else {
            return;
        };
        let mut place = 20;
        while place + 4 <= length {
            let at = self.start + place;
            let Some(&[code, size, high, low]) = bytes.get(at..).and_then(<[u8]>::first_chunk) else {
                return;
            };
            match code {
                0 => return,
                1 => place += 1,
                MAXIMUM_SEGMENT if size == 4 => {
                    let old = u16::from_be_bytes([high, low]);
                    if old > most && put(bytes, at + 2, &most.to_be_bytes()) {
                        let mut change = Change::default();
                        // At an odd place, its bytes are of two words: the sum has them in the other order (RFC 1071, 2 (B)).
                        match place.is_multiple_of(2) {
                            true => change.word(old, most),
                            false => change.word(old.swap_bytes(), most.swap_bytes()),
                        }
                        self.set_checksum(bytes, Change::default(), change, blank);
                    }
                    return;
                }
                _ if size < 2 => return,
                _ => place += usize::from(size),
            }
        }
    }
}

/// Bytes of a TCP header without options.
pub(super) const TCP_HEADER: usize = 20;

/// Bytes of the TCP header that begins there, with its options (RFC 9293, 3.1: data offset).
pub(super) fn tcp_header(bytes: &[u8], start: usize) -> usize {
    bytes.get(start + 12).map_or(0, |byte| usize::from(byte >> 4) * 4).max(TCP_HEADER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::checksum::Sum;
    use crate::router::ipv4;
    use alloc::vec::Vec;
    use core::net::Ipv4Addr;
    use proptest::prelude::*;

    fn pseudo(bytes: &[u8], header: &Header) -> Sum {
        let mut sum = Sum::new();
        sum.add(bytes.get(26..34).unwrap());
        sum.add_u16(header.protocol.into());
        sum.add_u16((header.total - header.length) as u16);
        sum
    }

    /// A frame of TCP with these options, its checksum complete or blank.
    fn frame(protocol: u8, options: &[u8], blank: bool) -> Vec<u8> {
        let behind = if protocol == PROTOCOL_TCP { 20 + options.len() + 5 } else { 8 + 5 };
        let mut bytes = alloc::vec![0x33; 34 + behind];
        ipv4::write(
            &mut bytes,
            (20 + behind) as u16,
            protocol,
            Ipv4Addr::new(10, 0, 0, 2),
            Ipv4Addr::new(192, 0, 2, 1),
        );
        let (length, field) = if protocol == PROTOCOL_TCP { (20 + options.len(), 50) } else { (8, 40) };
        if protocol == PROTOCOL_TCP {
            bytes[46] = ((length / 4) << 4) as u8;
            bytes[47] = SYN;
            bytes[54..54 + options.len()].copy_from_slice(options);
        }
        bytes[field..field + 2].fill(0);
        let header = Header::parse(&bytes, 14).unwrap();
        let mut sum = pseudo(&bytes, &header);
        if blank {
            put(&mut bytes, field, &sum.folded().to_be_bytes());
        } else {
            sum.add(&bytes[34..]);
            put(&mut bytes, field, &sum.checksum().to_be_bytes());
        }
        bytes
    }

    fn is_right(bytes: &[u8], blank: bool) -> bool {
        let header = Header::parse(bytes, 14).unwrap();
        let mut sum = pseudo(bytes, &header);
        let field = if header.protocol == PROTOCOL_TCP { 50 } else { 40 };
        if blank {
            return sum.folded() % 0xffff == read_u16(bytes, field).unwrap() % 0xffff;
        }
        sum.add(&bytes[34..]);
        sum.folded() == 0xffff
    }

    proptest! {
        #[test]
        fn a_checksum_stays_right(address in any::<u32>(), ports in any::<(u16, u16)>(), tcp in any::<bool>(), blank in any::<bool>()) {
            let protocol = if tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
            let mut bytes = frame(protocol, &[], blank);
            prop_assert!(is_right(&bytes, blank));
            let header = Header::parse(&bytes, 14).unwrap();
            let transport = Transport::parse(&bytes, 14, &header, false).unwrap();
            let change = ipv4::set_addresses(&mut bytes, 14, Ipv4Addr::from_bits(address), header.destination).unwrap();
            prop_assert!(transport.set_ports(&mut bytes, ports.0, ports.1, change, blank));
            prop_assert!(is_right(&bytes, blank));
            let again = Transport::parse(&bytes, 14, &Header::parse(&bytes, 14).unwrap(), false).unwrap();
            prop_assert_eq!((again.source, again.destination), ports);
        }
    }

    #[test]
    fn the_largest_segment_is_bounded() {
        for (options, expected) in [
            (&[2, 4, 0x05, 0xb4][..], &[2, 4, 0x05, 0x50][..]),
            (&[1, 2, 4, 0x23, 0x28, 0, 0, 0], &[1, 2, 4, 0x05, 0x50, 0, 0, 0]),
            (&[3, 3, 7, 2, 4, 0x05, 0xb4, 0], &[3, 3, 7, 2, 4, 0x05, 0x50, 0]),
            (&[2, 4, 0x02, 0x18], &[2, 4, 0x02, 0x18]),
            (&[0, 2, 4, 0x05, 0xb4, 0, 0, 0], &[0, 2, 4, 0x05, 0xb4, 0, 0, 0]),
            (&[3, 0, 2, 4, 0x05, 0xb4, 0, 0], &[3, 0, 2, 4, 0x05, 0xb4, 0, 0]),
        ] {
            for blank in [false, true] {
                let mut bytes = frame(PROTOCOL_TCP, options, blank);
                let header = Header::parse(&bytes, 14).unwrap();
                let transport = Transport::parse(&bytes, 14, &header, false).unwrap();
                assert!(transport.is_first && transport.flags.opens);
                transport.clamp(&mut bytes, 0x0550, blank);
                assert_eq!(&bytes[54..54 + options.len()], expected);
                assert!(is_right(&bytes, blank), "{options:?}");
            }
        }
    }
}
