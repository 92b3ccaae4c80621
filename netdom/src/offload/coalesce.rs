//! Joining TCP segments of one flow, received in one batch, into a super-frame: one packet to pass on instead of twenty. Pure. Floor 3.
//!
//! The rules are those of Linux' GRO, so that cutting the super-frame again gives what came: segments in sequence, of equal size but
//! the last, whose headers differ in nothing but the sequence number, lengths, checksums, IPv4 identification, PSH and FIN.
//! Everything of a flow leaves in the order it came.

use super::checksum;
use super::head::{HEAD_BYTES, Head};
use super::headers::{ETHERNET_HEADER, Layout, Network, Transport, put, read_u16, read_u32, transport_length};
use super::segment::{TCP_CWR, TCP_FIN, TCP_FLAGS, TCP_PSH};
use crate::packet::{Checksum, Fragments, Gso, GsoKind, MAX_FRAGMENTS, Packet};

/// Flows joined at a time; a further one sends the oldest on.
pub const MAX_FLOWS: usize = 8;
/// Bytes of a joined packet, at most (`XEN_NETIF_MAX_TX_SIZE`, `io/netif.h`).
const MAX_LENGTH: usize = 0xffff;

const TCP_SYN: u8 = 0x02;
const TCP_RST: u8 = 0x04;
const TCP_URG: u8 = 0x20;

/// Joins packets. `Tag` goes with a packet, such as the port it is for; packets of different tags are of different flows.
#[derive(Default)]
pub struct Coalescer<Tag> {
    flows: heapless::Vec<Flow<Tag>, MAX_FLOWS>,
}

/// A packet that further segments may join.
struct Flow<Tag> {
    tag: Tag,
    packet: Packet,
    head: Head,
    layout: Layout,
    headers: heapless::Vec<u8, HEAD_BYTES>,
    length: usize,
    /// Payload bytes of each segment but the last.
    size: u16,
    segments: u16,
    next_sequence: u32,
    /// PSH and FIN of the last segment.
    flags: u8,
    identification: Identification,
}

/// IPv4's identification of the segments of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identification {
    /// Not known with one segment; IPv6 has none.
    None,
    /// The same in all.
    Fixed,
    /// In each the next number.
    Counted,
}

/// What is known of a packet that may be held.
struct Segment<'a> {
    headers: &'a [u8],
    layout: &'a Layout,
    sequence: u32,
    flags: u8,
    payload: u16,
}

impl<'a> Segment<'a> {
    /// `None` where the packet must go on as it is.
    fn new(packet: &Packet, bytes: &'a [u8], layout: &'a Layout) -> Option<Self> {
        let headers = bytes.get(..usize::from(layout.payload_offset)).filter(|headers| headers.len() <= HEAD_BYTES)?;
        let transport = usize::from(layout.transport_offset);
        let plain_network = match layout.network {
            Network::V4 => 20,
            Network::V6 => 40,
        };
        let first = packet.fragments.first()?;
        if packet.offload.checksum != Checksum::Verified
            || packet.offload.gso.is_some()
            || layout.transport_offset.checked_sub(layout.network_offset)? != plain_network
            || first.length < layout.payload_offset
            || !checksum::verify_network(headers, layout)
        {
            return None;
        }
        let flags = *headers.get(transport + TCP_FLAGS)?;
        let length = transport_length(headers, layout)?;
        let payload = length.checked_sub(layout.payload_offset - layout.transport_offset)?;
        let there = packet.len() >= headers.len() + usize::from(payload);
        if flags & (TCP_SYN | TCP_RST | TCP_URG) != 0 || payload == 0 || !there {
            return None;
        }
        Some(Self { headers, layout, sequence: read_u32(headers, transport + 4)?, flags, payload })
    }
}

impl<Tag: Copy + PartialEq> Coalescer<Tag> {
    /// Holds nothing.
    pub const fn new() -> Self {
        Self { flows: heapless::Vec::new() }
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Takes a packet with this head, which was parsed from `bytes`, and gives out what cannot be joined further, each with its head:
    /// `packet` itself, what was held of its flow, or neither.
    pub fn push(
        &mut self,
        tag: Tag,
        packet: Packet,
        head: &Head,
        bytes: &[u8],
        emit: &mut impl FnMut(Tag, Packet, &Head),
    ) {
        let Some(layout) = head.layout.as_ref().filter(|layout| layout.transport == Transport::Tcp) else {
            emit(tag, packet, head);
            return;
        };
        let segment = Segment::new(&packet, bytes, layout);
        let same = |flow: &Flow<Tag>| flow.tag == tag && flow.packet.tag == packet.tag && flow.is_of(bytes, layout);
        let held = self.flows.iter().position(same);
        let Some(segment) = segment else {
            self.emit(held, emit);
            emit(tag, packet, head);
            return;
        };
        if let Some(index) = held
            && let Some(flow) = self.flows.get_mut(index)
            && let Some(identification) = flow.takes(&segment, packet.fragments.len())
        {
            flow.append(packet, &segment, identification);
            let last = segment.payload < flow.size || segment.flags & (TCP_PSH | TCP_FIN) != 0;
            if last || flow.packet.fragments.is_full() {
                self.emit(held, emit);
            }
            return;
        }
        self.emit(held, emit);
        if self.flows.is_full() {
            self.emit(Some(0), emit);
        }
        match Flow::new(tag, packet, head, &segment) {
            Ok(flow) => {
                if let Err(flow) = self.flows.push(flow) {
                    flow.emit(emit);
                }
            }
            Err(packet) => emit(tag, packet, head),
        }
    }

    /// Gives out all that is held: the batch is over.
    pub fn flush(&mut self, emit: &mut impl FnMut(Tag, Packet, &Head)) {
        for flow in self.flows.drain(..) {
            flow.emit(emit);
        }
    }

    fn emit(&mut self, index: Option<usize>, emit: &mut impl FnMut(Tag, Packet, &Head)) {
        if let Some(flow) = index.filter(|index| *index < self.flows.len()).map(|index| self.flows.remove(index)) {
            flow.emit(emit);
        }
    }
}

impl<Tag> Flow<Tag> {
    fn new(tag: Tag, mut packet: Packet, head: &Head, segment: &Segment<'_>) -> Result<Self, Packet> {
        let Ok(headers) = heapless::Vec::try_from(segment.headers) else {
            return Err(packet);
        };
        let length = headers.len() + usize::from(segment.payload);
        // The frame may have been padded.
        let fragments = core::mem::take(&mut packet.fragments);
        append(&mut packet.fragments, fragments, 0, length);
        Ok(Self {
            tag,
            packet,
            head: *head,
            layout: *segment.layout,
            headers,
            length,
            size: segment.payload,
            segments: 1,
            next_sequence: segment.sequence.wrapping_add(u32::from(segment.payload)),
            flags: segment.flags,
            identification: Identification::None,
        })
    }

    /// Whether a packet is of this flow: addresses, tags and ports.
    fn is_of(&self, head: &[u8], layout: &Layout) -> bool {
        let network = usize::from(layout.network_offset);
        // Options may stand before the ports of one and not of the other: what cannot be joined must not be overtaken either.
        let ports = |head: &[u8], layout: &Layout| read_u32(head, layout.transport_offset.into());
        layout.network == self.layout.network
            && layout.network_offset == self.layout.network_offset
            && ports(head, layout) == ports(&self.headers, &self.layout)
            && match layout.network {
                Network::V4 => same::<8>(head, &self.headers, network + 12),
                Network::V6 => same::<32>(head, &self.headers, network + 8),
            }
            && match network {
                ETHERNET_HEADER => same::<ETHERNET_HEADER>(head, &self.headers, 0),
                _ => head.get(..network) == self.headers.get(..network),
            }
    }

    /// Whether a segment of this flow is the next, and can be told from the others when all is cut again; its identification then.
    fn takes(&self, segment: &Segment<'_>, fragments: usize) -> Option<Identification> {
        // FIN ends the stream: joined, it would move behind bytes that came after it.
        let fits = self.flags & TCP_FIN == 0
            && segment.sequence == self.next_sequence
            && segment.payload <= self.size
            && segment.flags & TCP_CWR == 0
            && self.length + usize::from(segment.payload) <= MAX_LENGTH
            && self.packet.fragments.len() + fragments <= MAX_FRAGMENTS
            && *segment.layout == self.layout
            && self.has_same_transport_header(segment);
        if fits { self.network_header(segment) } else { None }
    }

    fn has_same_transport_header(&self, segment: &Segment<'_>) -> bool {
        let transport = usize::from(self.layout.transport_offset);
        let (ours, theirs) = (&*self.headers, segment.headers);
        let flags = |headers: &[u8]| headers.get(transport + TCP_FLAGS).copied();
        let options = transport + 20;
        // Acknowledgement; length; window; options, time stamps among them, which alone are 12 bytes.
        flags(ours).zip(flags(theirs)).is_some_and(|(one, other)| (one ^ other) & !(TCP_CWR | TCP_FIN | TCP_PSH) == 0)
            && same::<4>(ours, theirs, transport + 8)
            && same::<1>(ours, theirs, transport + 12)
            && same::<2>(ours, theirs, transport + 14)
            && match ours.len().checked_sub(options) {
                Some(0) => true,
                Some(12) => same::<12>(ours, theirs, options),
                _ => ours.get(options..) == theirs.get(options..),
            }
    }

    /// The identification, where the network header is that of this flow in all else.
    fn network_header(&self, segment: &Segment<'_>) -> Option<Identification> {
        let network = usize::from(self.layout.network_offset);
        let (ours, theirs) = (&*self.headers, segment.headers);
        if self.layout.network == Network::V6 {
            // Class and flow label; hop limit.
            let same = same::<4>(ours, theirs, network) && same::<1>(ours, theirs, network + 7);
            return same.then_some(Identification::None);
        }
        // Type of service; flags; time to live.
        let same = same::<1>(ours, theirs, network + 1) && same::<3>(ours, theirs, network + 6);
        let number = |headers| read_u16(headers, network + 4);
        let (first, this) = (number(ours)?, number(theirs)?);
        let dont_fragment = ours.get(network + 6)? & 0x40 != 0;
        // One for all is for those that must not be fragmented, where it has no meaning (RFC 6864).
        let kind = if this == first.wrapping_add(self.segments) {
            Identification::Counted
        } else if this == first && dont_fragment {
            Identification::Fixed
        } else {
            return None;
        };
        (same && (self.identification == Identification::None || self.identification == kind)).then_some(kind)
    }

    fn append(&mut self, packet: Packet, segment: &Segment<'_>, identification: Identification) {
        self.identification = identification;
        append(&mut self.packet.fragments, packet.fragments, segment.headers.len(), segment.payload.into());
        self.length += usize::from(segment.payload);
        self.segments += 1;
        self.next_sequence = self.next_sequence.wrapping_add(segment.payload.into());
        self.flags |= segment.flags & (TCP_PSH | TCP_FIN);
    }

    /// Writes the headers of the whole into its first page. A packet of one segment goes on as it came.
    fn emit(mut self, emit: &mut impl FnMut(Tag, Packet, &Head)) {
        if self.segments > 1 {
            let kind = match self.layout.network {
                Network::V4 => GsoKind::TcpV4,
                Network::V6 => GsoKind::TcpV6,
            };
            // Neither fails: the headers are those that were read from this page.
            if self.fix_headers().is_none() {
                return;
            }
            let Some(first) = self.packet.fragments.first() else {
                return;
            };
            if !first.buffer.write(first.offset.into(), &self.headers) {
                return;
            }
            self.packet.offload.checksum = Checksum::Blank;
            self.packet.offload.gso = Some(Gso { kind, size: self.size });
        }
        emit(self.tag, self.packet, &self.head);
    }

    fn fix_headers(&mut self) -> Option<()> {
        let (network, transport) = (usize::from(self.layout.network_offset), usize::from(self.layout.transport_offset));
        *self.headers.get_mut(transport + TCP_FLAGS)? |= self.flags;
        match self.layout.network {
            Network::V4 => {
                let total = u16::try_from(self.length - network).ok()?;
                put(&mut self.headers, network + 2, &total.to_be_bytes());
                checksum::complete_network(&mut self.headers, &self.layout);
            }
            Network::V6 => {
                let total = u16::try_from(self.length - network - 40).ok()?;
                put(&mut self.headers, network + 4, &total.to_be_bytes());
            }
        }
        let length = u16::try_from(self.length - transport).ok()?;
        checksum::blank(&mut self.headers, &self.layout, length).then_some(())
    }
}

/// Whether both have the same `N` bytes at `at`. The number is known when this is compiled: no call compares them.
#[inline]
fn same<const N: usize>(one: &[u8], other: &[u8], at: usize) -> bool {
    let bytes = |head: &[u8]| head.get(at..).and_then(<[u8]>::first_chunk::<N>).copied();
    bytes(one).is_some_and(|one| bytes(other) == Some(one))
}

/// Moves `length` bytes of `fragments`, from `skip` on, to the end of `into`. What does not fit is lost: the caller has counted.
fn append(into: &mut Fragments, fragments: Fragments, skip: usize, length: usize) {
    let (mut skip, mut left) = (skip, length);
    fragments.for_each_taken(|mut fragment| {
        let size = usize::from(fragment.length);
        if skip >= size {
            skip -= size;
            return;
        }
        // Both are at most the fragment's length.
        fragment.offset += skip as u16;
        fragment.length = left.min(size - skip) as u16;
        skip = 0;
        left -= usize::from(fragment.length);
        if fragment.length > 0 && into.push(fragment).is_err() {
            left = 0;
        }
    });
}
