//! ICMPv6 (RFC 4443): answers to echoes, and errors that the router sends. Pure. Floor 3.
//!
//! As of ICMP, there is one error at most for a packet, no longer than what its sender sent and 48 bytes, and only to that sender: there is no state
//! that a flood of them could use up.

use super::ipv4::{Change, START, adjust};
use super::ipv6::{HEADER, Header, ICMPV6, write};
use crate::offload::extensions::Upper;
use crate::offload::headers::{put, read_u16};
use core::net::Ipv6Addr;

/// Types and codes.
const UNREACHABLE: u8 = 1;
const TOO_BIG: u8 = 2;
const TIME_EXCEEDED: u8 = 3;
const ECHO_REQUEST: u8 = 128;
const ECHO_REPLY: u8 = 129;
const REDIRECT: u8 = 137;
/// Types below are errors'.
const INFORMATION: u8 = 128;
/// Hops of what the router itself sends.
const HOPS: u8 = 64;

/// What is wrong with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It passed too many routers.
    Hops,
    /// It is too long for the way out: this is what fits.
    TooBig(u16),
    /// There is no way.
    NoRoute,
    /// Its source is link-local, and its destination is not.
    Scope,
}

impl Wrong {
    const fn parts(self) -> (u8, u8, u16) {
        match self {
            Self::Hops => (TIME_EXCEEDED, 0, 0),
            Self::TooBig(fits) => (TOO_BIG, 0, fits),
            Self::NoRoute => (UNREACHABLE, 0, 0),
            Self::Scope => (UNREACHABLE, 2, 0),
        }
    }
}

/// Makes an echo's question its answer, of any length. False where the packet is none.
pub(super) fn reply(bytes: &mut [u8], header: &Header) -> bool {
    let start = START + HEADER;
    let Some(old) = read_u16(bytes, start).filter(|old| old.to_be_bytes() == [ECHO_REQUEST, 0]) else {
        return false;
    };
    let new = u16::from_be_bytes([ECHO_REPLY, 0]);
    let mut change = Change::default();
    change.word(old, new);
    header.next == ICMPV6
        && header.total >= HEADER + 8
        && put(bytes, START + 7, &[HOPS])
        && put(bytes, START + 8, &header.destination.octets())
        && put(bytes, START + 24, &header.source.octets())
        && put(bytes, start, &new.to_be_bytes())
        && adjust(bytes, start + 2, change)
}

/// Writes an error about a packet behind an Ethernet header, in `out` behind one, too. How long the frame is; `None` where none is to be sent
/// (RFC 4443, 2.4 (e)), or where it cannot be told whether the packet is an error itself.
pub(super) fn error(out: &mut [u8], bytes: &[u8], header: &Header, own: Ipv6Addr, wrong: Wrong) -> Option<usize> {
    let (source, destination) = (header.source, header.destination);
    if source.is_unspecified() || source.is_multicast() || source.is_loopback() || destination.is_multicast() {
        return None;
    }
    let packet = bytes.get(START..)?;
    let packet = packet.get(..header.total).unwrap_or(packet);
    let upper = Upper::find(packet, header.next)?;
    if upper.protocol == ICMPV6 {
        packet.get(upper.offset).filter(|kind| upper.is_first && **kind >= INFORMATION && **kind != REDIRECT)?;
    }
    let room = out.len().checked_sub(START + HEADER + 8)?;
    let quoted = packet.get(..room).unwrap_or(packet);
    let (kind, code, fits) = wrong.parts();
    let [high, low] = fits.to_be_bytes();
    write(out, (own, source), HOPS, &[&[kind, code, 0, 0, 0, 0, high, low], quoted])
}
