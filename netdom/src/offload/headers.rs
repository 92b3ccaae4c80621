//! Where the headers of a packet lie. Pure. Floor 3.
//!
//! Nothing here trusts a length that a packet states: every field is read from the bytes at hand, or is an error.

/// Bytes of an Ethernet header without a tag (IEEE 802.3).
pub const ETHERNET_HEADER: usize = 14;
/// The longest run of headers that this project works on: Ethernet with two tags, IPv4 or IPv6 with options, TCP with options.
pub const MAX_HEADERS: usize = 256;
/// `EtherType` of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// `EtherType` of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// `EtherType` of an 802.1Q tag.
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// `EtherType` of an 802.1ad tag.
pub const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
/// IP protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// IP protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;

/// IPv4: more fragments, or an offset.
const FRAGMENT: u16 = 0x3fff;
/// Next header: IPv6 routing header (RFC 8200, 4.4).
const ROUTING: u8 = 43;
/// 802.1Q tags looked behind.
const MAX_TAGS: usize = 2;
/// IPv6 extension headers looked behind.
const MAX_EXTENSIONS: usize = 8;

/// The network protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4 (RFC 791).
    V4,
    /// IPv6 (RFC 8200).
    V6,
}

/// The transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP (RFC 9293).
    Tcp,
    /// UDP (RFC 768).
    Udp,
}

impl Transport {
    /// Its number in an IP header.
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Tcp => PROTOCOL_TCP,
            Self::Udp => PROTOCOL_UDP,
        }
    }

    /// Where in its header the checksum is.
    pub const fn checksum_offset(self) -> u16 {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }
}

/// Offsets into a packet that carries TCP or UDP and is not a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// IPv4 or IPv6.
    pub network: Network,
    /// TCP or UDP.
    pub transport: Transport,
    /// Bytes before the IP header (14, or more with 802.1Q tags).
    pub network_offset: u16,
    /// Bytes before the TCP or UDP header.
    pub transport_offset: u16,
    /// Bytes before the TCP or UDP payload: the length of all headers.
    pub payload_offset: u16,
}

impl Layout {
    /// Whether no 802.1Q or 802.1ad tag stands before the IP header.
    pub const fn is_untagged(&self) -> bool {
        self.network_offset as usize == ETHERNET_HEADER
    }

    /// Whether IPv6 extension headers stand before the transport header. IPv4's options are no such: they are of the IP header.
    pub const fn has_extensions(&self) -> bool {
        matches!(self.network, Network::V6) && self.transport_offset > self.network_offset.saturating_add(40)
    }

    /// Bytes before the transport checksum.
    pub const fn checksum_offset(&self) -> u16 {
        self.transport_offset.saturating_add(self.transport.checksum_offset())
    }
}

/// Why a packet has no [`Layout`]. Most of these are ordinary packets that are no TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// The bytes given end before the header does.
    Short {
        /// Bytes that the headers take, as far as is known.
        needed: usize,
        /// Bytes given.
        have: usize,
    },
    /// No IP packet.
    EtherType(u16),
    /// More tags than are looked behind.
    Tags,
    /// The IP header says that it is of this version, its `EtherType` otherwise.
    Version(u8),
    /// An IP or TCP header that says it is shorter than it can be: this many bytes.
    HeaderLength(u8),
    /// A part of a larger IP packet: the transport checksum is not over it alone.
    Fragment,
    /// Neither TCP nor UDP, but this protocol.
    Protocol(u8),
    /// More IPv6 extension headers than are looked behind.
    Extensions,
}

impl core::fmt::Display for HeaderError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short { needed, have } => write!(formatter, "{have} bytes end before {needed} bytes of headers"),
            Self::EtherType(value) => write!(formatter, "EtherType {value:#06x} is not IP's"),
            Self::Tags => formatter.write_str("too many VLAN tags"),
            Self::Version(value) => write!(formatter, "the IP header is of version {value}, its EtherType is not"),
            Self::HeaderLength(value) => write!(formatter, "a header of {value} bytes is too short"),
            Self::Fragment => formatter.write_str("a fragment of an IP packet"),
            Self::Protocol(value) => write!(formatter, "protocol {value} is neither TCP nor UDP"),
            Self::Extensions => formatter.write_str("too many IPv6 extension headers"),
        }
    }
}

impl core::error::Error for HeaderError {}

/// The bytes at `offset`, or how many were missing.
fn bytes<const N: usize>(head: &[u8], offset: usize) -> Result<[u8; N], HeaderError> {
    head.get(offset..)
        .and_then(<[u8]>::first_chunk::<N>)
        .copied()
        .ok_or(HeaderError::Short { needed: offset + N, have: head.len() })
}

/// The big-endian number at `offset`; `None` beyond the end.
pub(crate) fn read_u16(head: &[u8], offset: usize) -> Option<u16> {
    head.get(offset..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

/// The big-endian number at `offset`; `None` beyond the end.
pub(crate) fn read_u32(head: &[u8], offset: usize) -> Option<u32> {
    head.get(offset..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// Writes `source` at `offset`. False, and nothing written, beyond the end.
pub(crate) fn put(head: &mut [u8], offset: usize, source: &[u8]) -> bool {
    match head.get_mut(offset..offset + source.len()) {
        Some(place) => {
            place.copy_from_slice(source);
            true
        }
        None => false,
    }
}

/// The 802.1Q and 802.1ad tags of a frame that are looked behind, outermost first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    /// The protocol (TPID) and the control information (TCI) of each (IEEE 802.1Q-2018, 9.4).
    fields: [(u16, u16); MAX_TAGS],
    count: u8,
}

impl Tags {
    /// How many there are.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Protocol and control information of the outermost one.
    pub fn outer(&self) -> Option<(u16, u16)> {
        self.fields.first().copied().filter(|_| !self.is_empty())
    }

    /// Bytes before the header that follows Ethernet's.
    pub const fn network_offset(&self) -> usize {
        ETHERNET_HEADER + 4 * self.len()
    }
}

/// The tags of a frame, and the `EtherType` behind them. That is a tag's own where there are more tags, or where `head` ends before the
/// tag does.
///
/// # Errors
/// [`HeaderError::Short`] where `head` ends before the first `EtherType` does.
pub fn tags(head: &[u8]) -> Result<(Tags, u16), HeaderError> {
    let mut ethertype = u16::from_be_bytes(bytes(head, 12)?);
    let mut tags = Tags::default();
    while is_tag(ethertype)
        && let Some(place) = tags.fields.get_mut(usize::from(tags.count))
        && let Ok([high, low, following @ ..]) = bytes::<4>(head, ETHERNET_HEADER + 4 * usize::from(tags.count))
    {
        *place = (ethertype, u16::from_be_bytes([high, low]));
        tags.count += 1;
        ethertype = u16::from_be_bytes(following);
    }
    Ok((tags, ethertype))
}

pub(crate) const fn is_tag(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_SERVICE_VLAN)
}

/// Finds the headers in the first bytes of a packet.
///
/// # Errors
/// What is there instead; [`HeaderError::Short`] says how many bytes to come back with.
pub fn parse(head: &[u8]) -> Result<Layout, HeaderError> {
    let (tags, ethertype) = tags(head)?;
    parse_behind(head, &tags, ethertype)
}

/// As [`parse`], behind tags and `EtherType` that are known.
///
/// # Errors
/// As [`parse`].
pub(crate) fn parse_behind(head: &[u8], tags: &Tags, ethertype: u16) -> Result<Layout, HeaderError> {
    let network_offset = tags.network_offset();
    let (network, (protocol, length)) = match ethertype {
        ETHERTYPE_IPV4 => (Network::V4, parse_v4(head, network_offset)?),
        ETHERTYPE_IPV6 => (Network::V6, parse_v6(head, network_offset)?),
        other if !is_tag(other) => return Err(HeaderError::EtherType(other)),
        _ if tags.len() == MAX_TAGS => return Err(HeaderError::Tags),
        _ => return Err(HeaderError::Short { needed: network_offset + 4, have: head.len() }),
    };
    let transport_offset = network_offset + length;
    let (transport, length) = parse_transport(head, protocol, transport_offset)?;
    // Nothing above goes far beyond `head`, and a head beyond 64 KiB is not one.
    let offset =
        |offset: usize| u16::try_from(offset).map_err(|_| HeaderError::Short { needed: offset, have: head.len() });
    Ok(Layout {
        network,
        transport,
        network_offset: offset(network_offset)?,
        transport_offset: offset(transport_offset)?,
        payload_offset: offset(transport_offset + length)?,
    })
}

/// The destination address that a transport checksum covers: that of the IPv6 header or, where a routing header names segments that are
/// left, the last of its path (RFC 8200, 8.1). `None` where `head` ends before it, or the kind of routing header is not known.
pub fn final_destination(head: &[u8], layout: &Layout) -> Option<[u8; 16]> {
    let network = usize::from(layout.network_offset);
    let mut next = *head.get(network + 6)?;
    let mut offset = network + 40;
    while offset < usize::from(layout.transport_offset) {
        let [following, units, kind, left] = *head.get(offset..)?.first_chunk()?;
        let length = if next == 44 { 8 } else { 8 + usize::from(units) * 8 };
        if next == ROUTING && left > 0 {
            let address = match kind {
                // The path in its order (RFC 2460, 4.4), with the last address at the end.
                0 => length.checked_sub(16).filter(|&last| last >= 8)?,
                // A home address alone (RFC 6275, 6.4); the path backwards (RFC 8754, 2).
                2 | 4 if length >= 24 => 8,
                _ => return None,
            };
            return head.get(offset + address..)?.first_chunk().copied();
        }
        next = following;
        offset += length;
    }
    head.get(network + 24..)?.first_chunk().copied()
}

/// Protocol and length of an IPv4 header (RFC 791, 3.1).
fn parse_v4(head: &[u8], offset: usize) -> Result<(u8, usize), HeaderError> {
    let header: [u8; 20] = bytes(head, offset)?;
    if header[0] >> 4 != 4 {
        return Err(HeaderError::Version(header[0] >> 4));
    }
    let length = (header[0] & 0x0f) * 4;
    if length < 20 {
        return Err(HeaderError::HeaderLength(length));
    }
    if u16::from_be_bytes([header[6], header[7]]) & FRAGMENT != 0 {
        return Err(HeaderError::Fragment);
    }
    Ok((header[9], usize::from(length)))
}

/// Last protocol, and length with extension headers, of an IPv6 header (RFC 8200, 3 and 4).
fn parse_v6(head: &[u8], offset: usize) -> Result<(u8, usize), HeaderError> {
    let header: [u8; 40] = bytes(head, offset)?;
    if header[0] >> 4 != 6 {
        return Err(HeaderError::Version(header[0] >> 4));
    }
    let mut next = header[6];
    let mut length = 40;
    for _ in 0..=MAX_EXTENSIONS {
        match next {
            // Hop-by-hop options, routing, destination options: a length in units of 8 bytes without the first.
            0 | ROUTING | 60 => {
                let [following, units] = bytes(head, offset + length)?;
                next = following;
                length += 8 + usize::from(units) * 8;
            }
            // Fragment.
            44 => {
                let extension: [u8; 8] = bytes(head, offset + length)?;
                if u16::from_be_bytes([extension[2], extension[3]]) & 0xfff9 != 0 {
                    return Err(HeaderError::Fragment);
                }
                next = extension[0];
                length += 8;
            }
            _ => return Ok((next, length)),
        }
    }
    Err(HeaderError::Extensions)
}

/// Kind and length of the transport header.
fn parse_transport(head: &[u8], protocol: u8, offset: usize) -> Result<(Transport, usize), HeaderError> {
    match protocol {
        PROTOCOL_TCP => {
            let header: [u8; 20] = bytes(head, offset)?;
            let length = (header[12] >> 4) * 4;
            if length < 20 {
                return Err(HeaderError::HeaderLength(length));
            }
            let needed = offset + usize::from(length);
            if head.len() < needed {
                return Err(HeaderError::Short { needed, have: head.len() });
            }
            Ok((Transport::Tcp, usize::from(length)))
        }
        PROTOCOL_UDP => {
            let _: [u8; 8] = bytes(head, offset)?;
            Ok((Transport::Udp, 8))
        }
        other => Err(HeaderError::Protocol(other)),
    }
}

/// Bytes from the transport header to the end of the IP packet, as the IP header states them. Less than the frame has where it was
/// padded to Ethernet's 60 bytes. `None` where the statement cannot be true, or is not made (a length of zero).
pub fn transport_length(head: &[u8], layout: &Layout) -> Option<u16> {
    let network = usize::from(layout.network_offset);
    let before = layout.transport_offset.checked_sub(layout.network_offset)?;
    let headers = layout.payload_offset.checked_sub(layout.transport_offset)?;
    let length = match layout.network {
        Network::V4 => read_u16(head, network + 2)?.checked_sub(before)?,
        Network::V6 => read_u16(head, network + 4)?.checked_sub(before.checked_sub(40)?)?,
    };
    (length >= headers).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    fn ethernet(tags: &[u16], ether_type: u16) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for tag in tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0, 5]);
        }
        frame.extend(ether_type.to_be_bytes());
        frame
    }

    fn v4(options: usize, flags: u16, protocol: u8) -> Vec<u8> {
        let mut header = vec![0x45 + (options / 4) as u8, 0, 0, 0, 0, 1];
        header.extend(flags.to_be_bytes());
        header.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        header.extend(vec![1; options]);
        header
    }

    fn v6(next: u8) -> Vec<u8> {
        let mut header = vec![0x60, 0, 0, 0, 0, 0, next, 64];
        header.extend([0xfd; 32]);
        header
    }

    fn tcp(options: usize) -> Vec<u8> {
        let mut header = vec![0; 20 + options];
        header[12] = ((5 + options / 4) << 4) as u8;
        header
    }

    fn layout(network: Network, transport: Transport, offsets: [u16; 3]) -> Layout {
        Layout {
            network,
            transport,
            network_offset: offsets[0],
            transport_offset: offsets[1],
            payload_offset: offsets[2],
        }
    }

    #[test]
    fn a_routing_header_names_the_last_destination() {
        let routed = |kind: u8, left: u8, addresses: &[u8]| {
            let mut frame = ethernet(&[], ETHERTYPE_IPV6);
            frame.extend(v6(0));
            // Options before it, and 8 bytes of its own.
            frame.extend([43, 0, 1, 4, 0, 0, 0, 0]);
            frame.extend([6, addresses.len() as u8 * 2, kind, left, 0, 0, 0, 0]);
            frame.extend(addresses.iter().flat_map(|&byte| [byte; 16]));
            frame.extend(tcp(0));
            let layout = parse(&frame).expect("what the test made");
            final_destination(&frame, &layout)
        };
        assert_eq!(routed(4, 1, &[7, 8]), Some([7; 16]));
        assert_eq!(routed(4, 0, &[7, 8]), Some([0xfd; 16]));
        assert_eq!(routed(0, 2, &[7, 8]), Some([8; 16]));
        assert_eq!(routed(2, 1, &[7]), Some([7; 16]));
        // RPL's (RFC 6554) has its addresses in parts.
        assert_eq!(routed(3, 1, &[7, 8]), None);
        for kind in [0, 2, 4] {
            assert_eq!(routed(kind, 1, &[]), None);
        }
    }

    #[test]
    fn finds_headers() {
        use Network::{V4, V6};
        use Transport::{Tcp, Udp};
        let hop_by_hop = |next| vec![next, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let table = [
            ([ethernet(&[], 0x0800), v4(0, 0x4000, 6), tcp(0)].concat(), Ok(layout(V4, Tcp, [14, 34, 54]))),
            ([ethernet(&[], 0x0800), v4(8, 0, 6), tcp(12)].concat(), Ok(layout(V4, Tcp, [14, 42, 74]))),
            ([ethernet(&[0x8100], 0x0800), v4(0, 0, 17), vec![0; 8]].concat(), Ok(layout(V4, Udp, [18, 38, 46]))),
            ([ethernet(&[0x88a8, 0x8100], 0x86dd), v6(6), tcp(0)].concat(), Ok(layout(V6, Tcp, [22, 62, 82]))),
            ([ethernet(&[], 0x86dd), v6(0), hop_by_hop(17), vec![0; 8]].concat(), Ok(layout(V6, Udp, [14, 70, 78]))),
            // An atomic fragment (RFC 6946) is whole.
            (
                [ethernet(&[], 0x86dd), v6(44), vec![17, 0, 0, 0, 0, 0, 0, 1], vec![0; 8]].concat(),
                Ok(layout(V6, Udp, [14, 62, 70])),
            ),
            (
                [ethernet(&[], 0x86dd), v6(44), vec![17, 0, 0, 1, 0, 0, 0, 1], vec![0; 8]].concat(),
                Err(HeaderError::Fragment),
            ),
            ([ethernet(&[], 0x0800), v4(0, 0x2000, 17), vec![0; 8]].concat(), Err(HeaderError::Fragment)),
            ([ethernet(&[], 0x0800), v4(0, 0x00b9, 17), vec![0; 8]].concat(), Err(HeaderError::Fragment)),
            ([ethernet(&[], 0x0800), v4(0, 0, 1), vec![0; 8]].concat(), Err(HeaderError::Protocol(1))),
            ([ethernet(&[], 0x0800), v6(6), tcp(0)].concat(), Err(HeaderError::Version(6))),
            ([ethernet(&[], 0x86dd), v4(0, 0, 6), tcp(0)].concat(), Err(HeaderError::Version(4))),
            (ethernet(&[], 0x0806), Err(HeaderError::EtherType(0x0806))),
            (ethernet(&[0x8100, 0x8100, 0x8100], 0x0800), Err(HeaderError::Tags)),
            (vec![0; 13], Err(HeaderError::Short { needed: 14, have: 13 })),
            ([ethernet(&[], 0x0800), v4(0, 0, 6), vec![0; 20]].concat(), Err(HeaderError::HeaderLength(0))),
            (
                [ethernet(&[], 0x0800), v4(0, 0, 6), tcp(40)[..59].to_vec()].concat(),
                Err(HeaderError::Short { needed: 94, have: 93 }),
            ),
        ];
        for (frame, expected) in table {
            assert_eq!(parse(&frame), expected, "{frame:02x?}");
        }
    }

    #[test]
    fn extensions_are_bounded() {
        let mut frame = [ethernet(&[], 0x86dd), v6(60)].concat();
        for _ in 0..100 {
            frame.extend([60, 0, 0, 0, 0, 0, 0, 0]);
        }
        assert_eq!(parse(&frame), Err(HeaderError::Extensions));
    }

    #[test]
    fn length_is_what_ip_says() {
        let mut frame = [ethernet(&[], 0x0800), v4(4, 0, 17), vec![0; 8 + 14]].concat();
        let layout = parse(&frame).unwrap();
        for (stated, length) in [(24 + 8 + 3, Some(11)), (0, None), (24 + 7, None), (24 + 8, Some(8))] {
            put(&mut frame, 16, &u16::to_be_bytes(stated));
            assert_eq!(transport_length(&frame, &layout), length);
        }
    }
}
