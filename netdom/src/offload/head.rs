//! The head of a packet: what its headers say, read and parsed once. Pure. Floor 3.
//!
//! All that is decided on a packet's way is decided by its head, which goes with it. Its bytes are looked at again only where they are
//! changed: where a checksum is completed, segments are joined or a super-frame is cut.

use super::headers::{self, HeaderError, Layout, MAX_HEADERS, Network, Tags, Transport};
use crate::ethernet::MacAddress;
use crate::packet::Packet;

/// First bytes of a packet that its head is parsed from. Ethernet with two tags, IPv6 and TCP with all its options are 122.
pub const HEAD_BYTES: usize = 128;

/// What the headers of a packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The station, or the stations, that it is for.
    pub destination: MacAddress,
    /// The station that it is from.
    pub source: MacAddress,
    /// Its 802.1Q and 802.1ad tags.
    pub tags: Tags,
    /// The `EtherType` behind the tags.
    pub ethertype: u16,
    /// Where the headers lie of a packet of TCP or UDP that is no fragment; `None` for all others.
    pub layout: Option<Layout>,
    /// Whether the headers go on behind the bytes that were at hand, so that there may be a layout.
    cut: bool,
}

impl Head {
    /// The same, between other stations.
    pub(crate) const fn with_stations(self, [destination, source]: [MacAddress; 2]) -> Self {
        Self { destination, source, ..self }
    }

    /// The head of a packet with these first bytes; `None` where an Ethernet header is longer.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let destination = MacAddress(*bytes.first_chunk()?);
        let source = MacAddress(*bytes.get(6..)?.first_chunk()?);
        let (tags, ethertype) = headers::tags(bytes).ok()?;
        let layout = headers::parse_behind(bytes, &tags, ethertype);
        let cut = matches!(layout, Err(HeaderError::Short { .. }));
        Some(Self { destination, source, tags, ethertype, layout: layout.ok(), cut })
    }

    /// Whether a tag stands where the tags that are looked behind end: there are more, or it is cut.
    pub const fn is_tagged(&self) -> bool {
        headers::is_tag(self.ethertype)
    }

    /// Looks again where the headers went on behind the bytes that were at hand: in all that the first page of `packet` holds of them by now,
    /// at most [`MAX_HEADERS`] bytes.
    pub fn complete(&mut self, packet: &Packet) {
        if !self.cut {
            return;
        }
        let mut bytes = [0; MAX_HEADERS];
        if let Some(first) = packet.fragments.first()
            && let Some(bytes) = bytes.get_mut(..usize::from(first.length).min(MAX_HEADERS))
            && first.buffer.read(first.offset.into(), bytes)
            && let Some(head) = Self::parse(bytes)
        {
            *self = head;
        }
    }
}

/// The bytes that tell a packet with these headers, and of its flow, from all others. `None` where a look at some bytes does not tell: behind
/// IPv6 extension headers, or where the headers are long.
fn mask(layout: &Layout) -> Option<Mask> {
    if layout.has_extensions() {
        return None;
    }
    let (network, transport) = (usize::from(layout.network_offset), usize::from(layout.transport_offset));
    let mut mask = [0; HEAD_BYTES];
    // Ethernet with its tags, version and header length.
    mask.get_mut(..=network)?.fill(0xff);
    let (others, addresses): (&[usize], _) = match layout.network {
        // Fragment, and protocol.
        Network::V4 => (&[6, 7, 9], 12..20),
        // Next header.
        Network::V6 => (&[6], 8..40),
    };
    for place in others {
        *mask.get_mut(network + place)? = 0xff;
    }
    mask.get_mut(network + addresses.start..network + addresses.end)?.fill(0xff);
    // Ports; the length of TCP's header.
    mask.get_mut(transport..transport + 4)?.fill(0xff);
    if layout.transport == Transport::Tcp {
        *mask.get_mut(transport + 12)? = 0xf0;
    }
    Some(mask)
}

/// Which bits of a packet's first bytes matter.
type Mask = [u8; HEAD_BYTES];

/// Bytes that are compared at a time.
const BLOCK: usize = 64;

/// Whether two blocks have the same bits where it matters: word by word, and to the end in any case, which costs less than to look for it.
#[inline]
fn is_same([one, other, mask]: [&[u8; BLOCK]; 3]) -> bool {
    let ((one, _), (other, _), (mask, _)) = (one.as_chunks(), other.as_chunks(), mask.as_chunks());
    let differing = one.iter().zip(other).zip(mask).fold(0, |differing, ((one, other), mask)| {
        differing | (u64::from_ne_bytes(*one) ^ u64::from_ne_bytes(*other)) & u64::from_ne_bytes(*mask)
    });
    differing == 0
}

/// Reads the heads of packets, one behind another. Those of a flow come in runs: of a run the first is parsed, the others are compared.
pub struct HeadReader {
    /// The first bytes of the last packet.
    bytes: [u8; HEAD_BYTES],
    length: usize,
    /// The last packet that was parsed: its first bytes, its head, which of the bytes matter, and how many there must be.
    parsed: [u8; HEAD_BYTES],
    head: Option<Head>,
    mask: Mask,
    needed: usize,
    /// The headers that the mask is for, if it is for any.
    masked: Option<Layout>,
    /// Whether the mask has bits beyond its first block.
    wide: bool,
    repeated: bool,
}

impl Default for HeadReader {
    fn default() -> Self {
        let (bytes, parsed, mask) = ([0; HEAD_BYTES], [0; HEAD_BYTES], [0; HEAD_BYTES]);
        Self {
            bytes,
            length: 0,
            parsed,
            head: None,
            mask,
            needed: usize::MAX,
            masked: None,
            wide: false,
            repeated: false,
        }
    }
}

impl HeadReader {
    /// The head of a packet; `None` where an Ethernet header is longer, or the first page cannot be read.
    #[inline]
    pub fn read(&mut self, packet: &Packet) -> Option<&Head> {
        self.repeated = false;
        let first = packet.fragments.first()?;
        self.length = usize::from(first.length).min(HEAD_BYTES);
        if !first.buffer.read(first.offset.into(), self.bytes.get_mut(..self.length)?) {
            self.length = 0;
            return None;
        }
        self.repeated = self.length >= self.needed && self.is_same();
        if !self.repeated {
            self.parse(packet);
        }
        self.head.as_ref()
    }

    /// The head that was read last.
    pub const fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Whether the bytes that were read are those that were parsed, where it matters.
    #[inline]
    fn is_same(&self) -> bool {
        let blocks = [&self.bytes, &self.parsed, &self.mask].map(|bytes| bytes.as_chunks::<BLOCK>().0);
        let [[read, read_on], [parsed, parsed_on], [mask, mask_on]] = blocks else {
            return false;
        };
        is_same([read, parsed, mask]) && (!self.wide || is_same([read_on, parsed_on, mask_on]))
    }

    /// Parses the bytes that were read, and keeps them to compare others with.
    #[inline(never)]
    fn parse(&mut self, packet: &Packet) {
        self.head = Head::parse(self.bytes());
        if let Some(head) = &mut self.head
            && self.length == HEAD_BYTES
        {
            // The headers may be very long.
            head.complete(packet);
        }
        let layout = self.head.and_then(|head| head.layout);
        if layout.is_none() || layout != self.masked {
            self.masked = None;
            if let Some(mask) = layout.as_ref().and_then(mask) {
                (self.mask, self.masked) = (mask, layout);
                self.wide = mask.iter().skip(BLOCK).any(|bits| *bits != 0);
            }
        }
        self.needed = usize::MAX;
        if let Some(layout) = self.masked {
            (self.parsed, self.needed) = (self.bytes, layout.payload_offset.into());
        }
    }

    /// Whether the last packet has the head of the one before, and is of its flow: addresses and ports are the same.
    pub const fn repeated(&self) -> bool {
        self.repeated
    }

    /// The first bytes of the last packet, [`HEAD_BYTES`] at most.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Fragment, Pool};
    use alloc::boxed::Box;
    use alloc::vec::Vec;
    use proptest::prelude::*;
    use split_driver::fakes::{FakePages, FakeXen};

    fn packet(pool: &Pool, bytes: &[u8]) -> Packet {
        let mut packet = Packet::default();
        let buffer = pool.take().unwrap();
        assert!(buffer.write(0, bytes));
        assert!(packet.fragments.push(Fragment { buffer, offset: 0, length: bytes.len() as u16 }).is_ok());
        packet
    }

    fn pool() -> Pool {
        Pool::new(Box::new(FakePages::new(&FakeXen::new(), 4)))
    }

    /// An Ethernet frame of TCP or UDP.
    fn frame(tags: &[u16], v6: bool, protocol: u8) -> Vec<u8> {
        let mut frame = Vec::from([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        for tag in tags {
            frame.extend(0x8100_u16.to_be_bytes());
            frame.extend(tag.to_be_bytes());
        }
        if v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 40, protocol, 64]);
            frame.extend([0xfd; 32]);
        } else {
            frame.extend([0x08, 0x00, 0x45, 0, 0, 60, 0, 1, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        let transport = frame.len();
        frame.resize(transport + 40, 7);
        frame[transport + 12] = 0x50;
        frame
    }

    #[test]
    fn what_the_headers_say() {
        let head = Head::parse(&frame(&[0x6005, 9], false, 6)).unwrap();
        assert_eq!(head.destination, MacAddress([2, 0, 0, 0, 0, 1]));
        assert_eq!(head.source, MacAddress([2, 0, 0, 0, 0, 2]));
        assert_eq!((head.tags.len(), head.tags.outer()), (2, Some((0x8100, 0x6005))));
        assert_eq!((head.ethertype, head.layout.map(|layout| layout.network_offset)), (0x0800, Some(22)));
        // More tags than are looked behind, and a tag that is cut.
        let head = Head::parse(&frame(&[1, 2, 3], false, 6)).unwrap();
        assert_eq!((head.tags.len(), head.ethertype, head.layout), (2, 0x8100, None));
        let head = Head::parse(&frame(&[1], false, 6)[..17]).unwrap();
        assert_eq!((head.tags.len(), head.ethertype, head.layout), (0, 0x8100, None));
        let head = Head::parse(&frame(&[], false, 1)).unwrap();
        assert_eq!((head.tags.outer(), head.ethertype, head.layout), (None, 0x0800, None));
        assert_eq!(Head::parse(&frame(&[], false, 6)[..13]), None);
    }

    /// Headers of more bytes than are read at first.
    #[test]
    fn long_headers_are_read_to_their_end() {
        let mut bytes = frame(&[1, 2], true, 60);
        bytes.truncate(62);
        bytes.extend([6, 10]);
        bytes.extend([0; 86]);
        bytes.extend([0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0]);
        let pool = pool();
        let whole = *HeadReader::default().read(&packet(&pool, &bytes)).unwrap();
        assert_eq!(whole.layout.map(|layout| layout.payload_offset), Some(170));
        // As much as is fetched before the switch decides; the rest comes with the others' payload.
        let mut head = *HeadReader::default().read(&packet(&pool, &bytes[..HEAD_BYTES])).unwrap();
        assert_eq!(head.layout, None);
        head.complete(&packet(&pool, &bytes));
        assert_eq!(head, whole);
    }

    #[test]
    fn a_run_of_one_flow() {
        let pool = pool();
        let mut reader = HeadReader::default();
        for (tags, v6, protocol) in [(&[][..], false, 6), (&[3][..], false, 17), (&[], true, 6), (&[3], true, 17)] {
            let mut bytes = frame(tags, v6, protocol);
            let transport = bytes.len() - 40;
            assert!(reader.read(&packet(&pool, &bytes)).is_some() && !reader.repeated());
            // Sequence number, payload.
            bytes[transport + 7] = 9;
            bytes[transport + 30] = 9;
            let head = reader.read(&packet(&pool, &bytes)).copied();
            assert!(reader.repeated());
            assert_eq!((head, reader.bytes()), (Head::parse(&bytes), &bytes[..]));
            bytes[transport] = 9;
            assert!(reader.read(&packet(&pool, &bytes)).is_some() && !reader.repeated(), "another port");
            // With IPv6 it lies in the second block.
            bytes[transport + 12] = 0x60;
            assert!(reader.read(&packet(&pool, &bytes)).is_some());
            assert_eq!(reader.repeated(), protocol == 17, "a longer TCP header");
        }
        assert_eq!(reader.read(&packet(&pool, &[0; 13])), None);
        assert_eq!(reader.read(&Packet::default()), None);
    }

    proptest! {
        /// Whatever is in the bytes, a head that is compared is the one that would have been parsed.
        #[test]
        fn a_repeated_head_is_the_parsed_one(
            tags in proptest::collection::vec(any::<u16>(), 0..3),
            v6 in any::<bool>(),
            protocol in prop_oneof![Just(6), Just(17)],
            changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
            lengths in (14..120_usize, 14..120_usize),
        ) {
            let pool = pool();
            let first = frame(&tags, v6, protocol);
            let mut second = first.clone();
            for (index, byte) in changes {
                let index = index.index(second.len());
                second[index] = byte;
            }
            let mut reader = HeadReader::default();
            for (bytes, length) in [(&first, lengths.0), (&second, lengths.1)] {
                let bytes = &bytes[..length.min(bytes.len())];
                prop_assert_eq!(reader.read(&packet(&pool, bytes)).copied(), Head::parse(bytes));
                prop_assert_eq!(reader.bytes(), bytes);
            }
        }
    }
}
