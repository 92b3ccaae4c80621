//! Messages about multicast groups: IGMP (RFC 1112, RFC 2236, RFC 3376) and MLD (RFC 2710, RFC 3810), read from the first bytes of a frame. Pure.
//! Floor 3.

use super::super::{LISTENER_DONE, LISTENER_REPORT, LISTENER_REPORT_V2, PROTOCOL_ICMPV6, address};
use crate::ethernet::MacAddress;
use crate::offload::checksum::Sum;
use crate::offload::extensions::{HOP_BY_HOP, Upper};
use crate::offload::head::Head;
use crate::offload::headers::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use core::time::Duration;

/// IP protocol number of IGMP.
pub(crate) const PROTOCOL_IGMP: u8 = 2;
/// Types of IGMP (RFC 3376, 4; RFC 2236, 2.1).
pub(crate) const IGMP_QUERY: u8 = 0x11;
const IGMP_REPORT_V1: u8 = 0x12;
const IGMP_REPORT_V2: u8 = 0x16;
const IGMP_LEAVE: u8 = 0x17;
const IGMP_REPORT_V3: u8 = 0x22;
/// A query of MLD (RFC 2710, 3.1). The reports are in [`super::super`].
pub(crate) const LISTENER_QUERY: u8 = 130;
/// Types of group records (RFC 3376, 4.2.12; RFC 3810, 5.2.12).
const MODE_IS_INCLUDE: u8 = 1;
const MODE_IS_EXCLUDE: u8 = 2;
const CHANGE_TO_INCLUDE: u8 = 3;
const CHANGE_TO_EXCLUDE: u8 = 4;
const ALLOW_NEW_SOURCES: u8 = 5;
/// How long hosts of IGMPv1 take to answer (RFC 2236, 4).
const RESPONSE_V1: Duration = Duration::from_secs(10);

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Groups of IGMP.
    V4,
    /// Groups of MLD.
    V6,
}

/// A group, as an Ethernet sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// The address that its frames go to, which is that of other groups, too (RFC 1112, 6.4; RFC 2464, 7).
    pub(super) mac: MacAddress,
    /// A bit that tells it from others with this address: in IPv4 always, in IPv6 nearly so.
    pub(super) bit: u32,
}

impl Group {
    fn v4(octets: [u8; 4]) -> Option<Self> {
        let [a, b, c, d] = octets;
        let mac = MacAddress([0x01, 0x00, 0x5e, b & 0x7f, c, d]);
        (a >> 4 == 0xe).then(|| Self { mac, bit: 1 << ((a & 0xf) << 1 | b >> 7) })
    }

    fn v6(octets: [u8; 16]) -> Option<Self> {
        let [before @ .., a, b, c, d] = octets;
        let place = before.into_iter().fold(0_u8, |place, octet| (place ^ octet).wrapping_mul(31)) >> 3;
        (octets[0] == 0xff).then_some(Self { mac: MacAddress([0x33, 0x33, a, b, c, d]), bit: 1 << place })
    }
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    /// A router asks for all groups, and waits so long for answers.
    Query(Family, Duration),
    /// A host is in a group. Hosts that see this keep silent about the group.
    Report(Group),
    /// A host has left a group.
    Leave(Group),
    /// What a host says of several groups.
    Records(Records<'a>),
    /// It says nothing that is heeded, or what it says is not sound.
    Other,
}

impl<'a> Message<'a> {
    /// `None` where the frame is no such message.
    pub(super) fn parse(head: &Head, bytes: &'a [u8]) -> Option<Self> {
        let packet = bytes.get(head.tags.network_offset()..)?;
        match head.ethertype {
            ETHERTYPE_IPV4 => Self::igmp(head, packet),
            ETHERTYPE_IPV6 => Self::mld(head, packet),
            _ => None,
        }
    }

    fn igmp(head: &Head, packet: &'a [u8]) -> Option<Self> {
        let header = packet.first_chunk::<20>()?;
        if header[0] >> 4 != 4 || header[9] != PROTOCOL_IGMP {
            return None;
        }
        let (offset, end) = (usize::from(header[0] & 0xf) * 4, u16::from_be_bytes([header[2], header[3]]).into());
        // A fragment says nothing.
        if offset < header.len() || u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0 {
            return Some(Self::Other);
        }
        let Some((message, is_whole)) = cut(packet, offset, end) else {
            return Some(Self::Other);
        };
        let mut sum = Sum::new();
        sum.add(message);
        if is_whole && sum.folded() != 0xffff {
            return Some(Self::Other);
        }
        let &[kind, code, _, _, a, b, c, d] = message.first_chunk::<8>()?;
        let group = Group::v4([a, b, c, d]);
        Some(match kind {
            // To all hosts, or they would not answer; and by a neighbour (RFC 3376, 4.1.12).
            IGMP_QUERY => {
                let general = [a, b, c, d] == [0; 4] && header[8] == 1 && head.destination == ALL_HOSTS;
                let response = if message.len() < 12 { response_v2(code) } else { response_v3(code) };
                if general && is_whole { Self::Query(Family::V4, response) } else { Self::Other }
            }
            IGMP_REPORT_V1 | IGMP_REPORT_V2 => group.map_or(Self::Other, Self::Report),
            IGMP_LEAVE => group.map_or(Self::Other, Self::Leave),
            IGMP_REPORT_V3 => Self::Records(Records::new(Family::V4, message, is_whole)),
            _ => Self::Other,
        })
    }

    fn mld(head: &Head, packet: &'a [u8]) -> Option<Self> {
        let header = packet.first_chunk::<40>()?;
        // A message of MLD has a hop-by-hop option (RFC 2710, 3).
        if header[0] >> 4 != 6 || header[6] != HOP_BY_HOP {
            return None;
        }
        let upper = Upper::find(packet, header[6])?;
        if upper.protocol != PROTOCOL_ICMPV6 || upper.is_fragment {
            return None;
        }
        let end = header.len() + usize::from(u16::from_be_bytes([header[4], header[5]]));
        let (message, is_whole) = cut(packet, upper.offset, end)?;
        let &[kind, _, _, _, high, low, _, _] = message.first_chunk::<8>()?;
        if !matches!(kind, LISTENER_QUERY | LISTENER_REPORT | LISTENER_DONE | LISTENER_REPORT_V2) {
            return None;
        }
        if is_whole && !is_sound_v6(packet, message) {
            return Some(Self::Other);
        }
        let about = address(message, 8).map(|about| about.octets());
        let group = about.and_then(Group::v6);
        Some(match kind {
            LISTENER_QUERY => {
                let neighbour = header[7] == 1 && header[8] == 0xfe && header[9] & 0xc0 == 0x80;
                let general = about == Some([0; 16]) && neighbour && head.destination == ALL_NODES;
                let response = response_mld([high, low], message.len() >= 28);
                if general && is_whole { Self::Query(Family::V6, response) } else { Self::Other }
            }
            LISTENER_REPORT => group.map_or(Self::Other, Self::Report),
            LISTENER_DONE => group.map_or(Self::Other, Self::Leave),
            _ => Self::Records(Records::new(Family::V6, message, is_whole)),
        })
    }
}

/// Where frames for all hosts of a link go: 224.0.0.1 and ff02::1.
const ALL_HOSTS: MacAddress = MacAddress([0x01, 0x00, 0x5e, 0, 0, 1]);
pub(super) const ALL_NODES: MacAddress = MacAddress([0x33, 0x33, 0, 0, 0, 1]);

/// The bytes of a packet from one place to another, and whether all of them are here.
fn cut(packet: &[u8], offset: usize, end: usize) -> Option<(&[u8], bool)> {
    Some((packet.get(offset..end.min(packet.len()))?, end <= packet.len()))
}

/// Whether the checksum of a whole message of ICMPv6 is right (RFC 8200, 8.1).
fn is_sound_v6(packet: &[u8], message: &[u8]) -> bool {
    let mut sum = Sum::new();
    sum.add(packet.get(8..40).unwrap_or_default());
    // Bytes at hand, which are few.
    sum.add_u16(message.len() as u16);
    sum.add_u16(PROTOCOL_ICMPV6.into());
    sum.add(message);
    sum.folded() == 0xffff
}

/// Tenths of a second; 0 is a query of IGMPv1 (RFC 2236, 4).
fn response_v2(code: u8) -> Duration {
    if code == 0 { RESPONSE_V1 } else { Duration::from_millis(u64::from(code) * 100) }
}

/// RFC 3376, 4.1.1.
fn response_v3(code: u8) -> Duration {
    let tenths = match code {
        ..128 => u64::from(code),
        _ => u64::from(code & 0xf | 0x10) << ((code >> 4 & 7) + 3),
    };
    Duration::from_millis(tenths * 100)
}

/// RFC 3810, 5.1.3; of MLDv1, RFC 2710, 3.4.
fn response_mld(code: [u8; 2], is_v2: bool) -> Duration {
    let code = u64::from(u16::from_be_bytes(code));
    Duration::from_millis(if is_v2 && code >= 0x8000 {
        (code & 0xfff | 0x1000) << ((code >> 12 & 7) + 3)
    } else {
        code
    })
}

/// The group records of a report of IGMPv3 or MLDv2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Records<'a> {
    pub(super) family: Family,
    left: u16,
    bytes: &'a [u8],
    is_whole: bool,
}

impl<'a> Records<'a> {
    fn new(family: Family, message: &'a [u8], is_whole: bool) -> Self {
        let left = message.get(6..8).map_or(0, |count| u16::from_be_bytes([count[0], count[1]]));
        Self { family, left, bytes: message.get(8..).unwrap_or_default(), is_whole }
    }

    /// Whether there are records behind the bytes at hand that were not read.
    pub(super) const fn is_cut(&self) -> bool {
        self.left > 0 && !self.is_whole
    }
}

/// Each group, and whether the host is in it now. A record that changes sources alone says nothing of that.
impl Iterator for Records<'_> {
    type Item = (Group, bool);

    fn next(&mut self) -> Option<(Group, bool)> {
        while self.left > 0 {
            let &[kind, auxiliary, high, low] = self.bytes.first_chunk()?;
            let sources = usize::from(u16::from_be_bytes([high, low]));
            let (group, width) = match self.family {
                Family::V4 => (Group::v4(*self.bytes.get(4..)?.first_chunk()?), 4),
                Family::V6 => (Group::v6(*self.bytes.get(4..)?.first_chunk()?), 16),
            };
            let length = 4 + width + sources * width + usize::from(auxiliary) * 4;
            // The group is here, its sources need not be.
            self.bytes = self.bytes.get(length..).unwrap_or_default();
            self.left -= 1;
            let is_in = match kind {
                MODE_IS_EXCLUDE | CHANGE_TO_EXCLUDE | ALLOW_NEW_SOURCES => true,
                MODE_IS_INCLUDE | CHANGE_TO_INCLUDE => sources > 0,
                _ => continue,
            };
            if let Some(group) = group {
                return Some((group, is_in));
            }
        }
        None
    }
}
