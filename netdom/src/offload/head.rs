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
    /// The head of a packet with these first bytes; `None` where an Ethernet header is longer.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let destination = MacAddress(*bytes.first_chunk()?);
        let source = MacAddress(*bytes.get(6..)?.first_chunk()?);
        let (tags, ethertype) = headers::tags(bytes).ok()?;
        let layout = headers::parse_behind(bytes, &tags, ethertype);
        let cut = matches!(layout, Err(HeaderError::Short { .. }));
        Some(Self { destination, source, tags, ethertype, layout: layout.ok(), cut })
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

    /// Whether a packet with the first bytes `later` has this head, that of a packet with the first bytes `earlier`, and is of its flow. It is
    /// told by the bytes that matter, of plain headers only: false may also mean that another look is needed.
    fn is_repeated(&self, earlier: &[u8], later: &[u8]) -> bool {
        let Some(layout) = self.layout.filter(|layout| !layout.has_extensions()) else {
            return false;
        };
        let (network, transport) = (usize::from(layout.network_offset), usize::from(layout.transport_offset));
        let payload = usize::from(layout.payload_offset);
        let (Some(earlier), Some(later)) = (earlier.get(..payload), later.get(..payload)) else {
            return false;
        };
        let same = |from: usize, to: usize| earlier.get(from..to) == later.get(from..to);
        let words = |bytes: &[u8]| bytes.first_chunk::<{ headers::ETHERNET_HEADER }>().copied();
        words(earlier) == words(later)
            && (layout.is_untagged() || same(headers::ETHERNET_HEADER, network))
            && match layout.network {
                // Version and length; fragment; protocol; addresses.
                Network::V4 => {
                    same(network, network + 1)
                        && same(network + 6, network + 8)
                        && same(network + 9, network + 10)
                        && chunk::<8>(earlier, network + 12) == chunk::<8>(later, network + 12)
                }
                // Version; next header; addresses.
                Network::V6 => {
                    same(network, network + 1)
                        && same(network + 6, network + 7)
                        && chunk::<32>(earlier, network + 8) == chunk::<32>(later, network + 8)
                }
            }
            && chunk::<4>(earlier, transport) == chunk::<4>(later, transport)
            && (layout.transport == Transport::Udp || same(transport + 12, transport + 13))
    }
}

/// So many bytes from `offset` on.
fn chunk<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

/// Reads the heads of packets, one behind another. Those of a flow come in runs: of a run the first is parsed, the others are compared.
pub struct HeadReader {
    /// The first bytes of the last packet and of the one before, in turn.
    bytes: [[u8; HEAD_BYTES]; 2],
    /// Which of them are the last one's, and how many.
    last: usize,
    length: usize,
    head: Option<Head>,
    repeated: bool,
}

impl Default for HeadReader {
    fn default() -> Self {
        Self { bytes: [[0; HEAD_BYTES]; 2], last: 0, length: 0, head: None, repeated: false }
    }
}

impl HeadReader {
    /// The head of a packet; `None` where an Ethernet header is longer, or the first page cannot be read.
    pub fn read(&mut self, packet: &Packet) -> Option<Head> {
        let earlier = self.head.take();
        self.repeated = false;
        let first = packet.fragments.first()?;
        let length = usize::from(first.length).min(HEAD_BYTES);
        let [one, other] = &mut self.bytes;
        let (old, new) = if self.last == 0 { (one, other) } else { (other, one) };
        let (old, new) = (old.get(..self.length)?, new.get_mut(..length)?);
        if !first.buffer.read(first.offset.into(), new) {
            return None;
        }
        self.head = earlier.filter(|head| head.is_repeated(old, new));
        self.repeated = self.head.is_some();
        (self.last, self.length) = (1 - self.last, length);
        if self.head.is_none() {
            let mut head = Head::parse(self.bytes())?;
            // The bytes at hand are all there are, or the headers are very long.
            if length == HEAD_BYTES {
                head.complete(packet);
            }
            self.head = Some(head);
        }
        self.head
    }

    /// Whether the last packet has the head of the one before, and is of its flow: addresses and ports are the same.
    pub const fn repeated(&self) -> bool {
        self.repeated
    }

    /// The first bytes of the last packet, [`HEAD_BYTES`] at most.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(self.last).and_then(|bytes| bytes.get(..self.length)).unwrap_or_default()
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
        let whole = HeadReader::default().read(&packet(&pool, &bytes)).unwrap();
        assert_eq!(whole.layout.map(|layout| layout.payload_offset), Some(170));
        // As much as is fetched before the switch decides; the rest comes with the others' payload.
        let mut head = HeadReader::default().read(&packet(&pool, &bytes[..HEAD_BYTES])).unwrap();
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
            let head = reader.read(&packet(&pool, &bytes));
            assert!(reader.repeated());
            assert_eq!((head, reader.bytes()), (Head::parse(&bytes), &bytes[..]));
            bytes[transport] = 9;
            assert!(reader.read(&packet(&pool, &bytes)).is_some() && !reader.repeated(), "another port");
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
                prop_assert_eq!(reader.read(&packet(&pool, bytes)), Head::parse(bytes));
                prop_assert_eq!(reader.bytes(), bytes);
            }
        }
    }
}
