//! ICMP (RFC 792): answers to echoes, errors that the router sends, and errors about packets whose addresses it translated (RFC 5508). Pure.
//! Floor 3.

use super::config::Protocol;
use super::ipv4::{Change, Header, ICMP, START, adjust, set_addresses, write};
use super::nat::Endpoint;
use super::transport::{ECHO_REPLY, ECHO_REQUEST, Transport};
use crate::offload::checksum::Sum;
use crate::offload::headers::{put, read_u16};
use core::net::Ipv4Addr;

/// Types and codes.
const UNREACHABLE: u8 = 3;
const SOURCE_QUENCH: u8 = 4;
const REDIRECT: u8 = 5;
const TIME_EXCEEDED: u8 = 11;
const PARAMETER: u8 = 12;

/// Bytes of the packet that an error is about: its header, and so many behind.
const QUOTED: usize = 60;

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It passed too many routers.
    Hops,
    /// It is too long for the way out, and must not be cut: this is what fits (RFC 1191).
    TooBig(u16),
    /// There is no way.
    NoRoute,
}

impl Wrong {
    const fn parts(self) -> (u8, u8, u16) {
        match self {
            Self::Hops => (TIME_EXCEEDED, 0, 0),
            Self::TooBig(fits) => (UNREACHABLE, 4, fits),
            Self::NoRoute => (UNREACHABLE, 0, 0),
        }
    }
}

/// Whether a type is an error's, which no error is sent about (RFC 1812, 4.3.2.7).
pub(super) const fn is_error(kind: u8) -> bool {
    matches!(kind, UNREACHABLE | SOURCE_QUENCH | REDIRECT | TIME_EXCEEDED | PARAMETER)
}

/// Makes an echo's question its answer: addresses in the other order, for a packet of any length.
pub(super) fn reply(bytes: &mut [u8], header: &Header) -> bool {
    let start = START + header.length;
    let Some(old) = read_u16(bytes, start) else {
        return false;
    };
    let new = u16::from(ECHO_REPLY) << 8 | old & 0xff;
    let mut change = Change::default();
    change.word(u16::from(ECHO_REQUEST) << 8 | old & 0xff, new);
    let mut hops = Change::default();
    let Some(word) = read_u16(bytes, START + 8) else {
        return false;
    };
    let fresh = 64 << 8 | word & 0xff;
    hops.word(word, fresh);
    set_addresses(bytes, START, header.destination, header.source).is_some()
        && put(bytes, START + 8, &fresh.to_be_bytes())
        && adjust(bytes, START + 10, hops)
        && put(bytes, start, &new.to_be_bytes())
        && adjust(bytes, start + 2, change)
}

/// Writes the IP packet of an error about a packet behind an Ethernet header, in `out` behind one, too. How long the frame is; `None` where none is
/// to be sent: about an error, or a fragment behind the first one (RFC 1812, 4.3.2.7).
pub(super) fn error(out: &mut [u8], bytes: &[u8], header: &Header, own: Ipv4Addr, wrong: Wrong) -> Option<usize> {
    let kind = bytes.get(START + header.length);
    let is_about_error = header.protocol == ICMP && kind.is_none_or(|kind| is_error(*kind));
    if is_about_error || header.is_later || header.source.is_unspecified() {
        return None;
    }
    let behind = (header.total - header.length).min(QUOTED);
    let end = (START + header.length + behind).min(bytes.len());
    let quoted = bytes.get(START..end)?;
    let (kind, code, fits) = wrong.parts();
    let start = START + 20;
    let length = start + 8 + quoted.len();
    let [high, low] = fits.to_be_bytes();
    let all = write(out, (length - START) as u16, ICMP, own, header.source)
        && put(out, start, &[kind, code, 0, 0, 0, 0, high, low])
        && put(out, start + 8, quoted);
    let mut sum = Sum::new();
    sum.add(out.get(start..length)?);
    (all && put(out, start + 2, &sum.checksum().to_be_bytes())).then_some(length)
}

/// The packet that an error is about, as far as the error has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct About {
    start: usize,
    header: Header,
    transport: Transport,
}

impl About {
    /// Of an ICMP packet with this header; `None` where it is no error, or about no packet whose ports are known.
    pub(super) fn parse(bytes: &[u8], outer: &Header) -> Option<Self> {
        let begin = START + outer.length;
        if outer.is_fragment
            || outer.protocol != ICMP
            || !matches!(bytes.get(begin)?, &(UNREACHABLE | TIME_EXCEEDED | PARAMETER))
        {
            return None;
        }
        let start = begin + 8;
        // Behind the packet there may be what fills the frame.
        let bytes = bytes.get(..bytes.len().min(START + outer.total))?;
        let header = Header::parse(bytes, start)?;
        let transport = Transport::parse(bytes, start, &header, true)?;
        Some(Self { start, header, transport })
    }

    /// What it is.
    pub(super) const fn protocol(&self) -> Protocol {
        self.transport.protocol
    }

    /// Where it came from.
    pub(super) const fn source(&self) -> Endpoint {
        Endpoint { address: self.header.source, port: self.transport.source }
    }

    /// Where it was to go. An echo has no port of its remote end.
    pub(super) const fn destination(&self) -> Endpoint {
        Endpoint { address: self.header.destination, port: self.transport.destination }
    }

    /// Translates the packet in the error, and the error's own checksum.
    pub(super) fn set(&self, bytes: &mut [u8], outer: &Header, source: Endpoint, destination: Endpoint) -> bool {
        let begin = START + outer.length;
        let end = (self.transport.start + 8).min(bytes.len());
        let mut before = [0; 68];
        let Some(old) = bytes.get(self.start..end) else {
            return false;
        };
        let length = old.len();
        before.iter_mut().zip(old).for_each(|(to, from)| *to = *from);
        let Some(addresses) = set_addresses(bytes, self.start, source.address, destination.address) else {
            return false;
        };
        let place = self.transport.start;
        let ports = match self.transport.protocol {
            Protocol::Echo | Protocol::Udp => {
                self.transport.set_ports(bytes, source.port, destination.port, addresses, false)
            }
            // Its checksum is mostly not there.
            Protocol::Tcp => {
                put(bytes, place, &source.port.to_be_bytes()) && put(bytes, place + 2, &destination.port.to_be_bytes())
            }
        };
        let mut change = Change::default();
        for offset in (0..length).step_by(2) {
            let old = read_u16(&before, offset);
            if let (Some(old), Some(new)) = (old, read_u16(bytes, self.start + offset)) {
                change.word(old, new);
            }
        }
        ports && adjust(bytes, begin + 2, change)
    }
}
