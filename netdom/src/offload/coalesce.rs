//! Joining TCP segments of one flow, received in one batch, into a super-frame: one packet to pass on instead of twenty. Pure. Floor 3.
//!
//! The rules are those of Linux' GRO, so that cutting the super-frame again gives what came: segments in sequence, of equal size but
//! the last, whose headers differ in nothing but the sequence number, lengths, checksums, IPv4 identification, PSH and FIN.
//! Everything of a flow leaves in the order it came.

use super::checksum;
use super::head::{HEAD_BYTES, Head};
use super::headers::{Layout, Network, Transport, put, read_u16, read_u32, transport_length};
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
    /// Whether all segments have the same identification; unknown with one.
    fixed_identification: Option<bool>,
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
        let held = self.flows.iter().position(|flow| flow.tag == tag && flow.is_of(bytes, layout));
        let Some(segment) = segment else {
            self.emit(held, emit);
            emit(tag, packet, head);
            return;
        };
        if let Some(index) = held
            && let Some(flow) = self.flows.get_mut(index)
            && flow.takes(&segment, packet.fragments.len())
        {
            flow.append(packet, &segment);
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
            fixed_identification: None,
        })
    }

    /// Whether a packet is of this flow: addresses, tags and ports.
    fn is_of(&self, head: &[u8], layout: &Layout) -> bool {
        let ports = |head: &[u8], layout: &Layout| read_u32(head, layout.transport_offset.into());
        let network = usize::from(layout.network_offset);
        let addresses = match layout.network {
            Network::V4 => network + 12..network + 20,
            Network::V6 => network + 8..network + 40,
        };
        layout.network == self.layout.network
            && layout.network_offset == self.layout.network_offset
            && ports(head, layout) == ports(&self.headers, &self.layout)
            && head.get(addresses.clone()) == self.headers.get(addresses)
            && head.get(..network) == self.headers.get(..network)
    }

    /// Whether a segment of this flow is the next, and can be told from the others when all is cut again.
    fn takes(&self, segment: &Segment<'_>, fragments: usize) -> bool {
        // FIN ends the stream: joined, it would move behind bytes that came after it.
        self.flags & TCP_FIN == 0
            && segment.sequence == self.next_sequence
            && segment.payload <= self.size
            && segment.flags & TCP_CWR == 0
            && self.length + usize::from(segment.payload) <= MAX_LENGTH
            && self.packet.fragments.len() + fragments <= MAX_FRAGMENTS
            && *segment.layout == self.layout
            && self.has_same_transport_header(segment) == Some(true)
            && self.has_same_network_header(segment) == Some(true)
    }

    fn has_same_transport_header(&self, segment: &Segment<'_>) -> Option<bool> {
        let transport = usize::from(self.layout.transport_offset);
        let (ours, theirs) = (self.headers.get(transport..)?, segment.headers.get(transport..)?);
        let differing = *ours.get(TCP_FLAGS)? ^ *theirs.get(TCP_FLAGS)?;
        // Acknowledgement and length; window; options, time stamps among them.
        Some(
            differing & !(TCP_CWR | TCP_FIN | TCP_PSH) == 0
                && ours.get(8..13)? == theirs.get(8..13)?
                && ours.get(14..16)? == theirs.get(14..16)?
                && ours.get(20..)? == theirs.get(20..)?,
        )
    }

    fn has_same_network_header(&self, segment: &Segment<'_>) -> Option<bool> {
        let network = usize::from(self.layout.network_offset);
        let (ours, theirs) = (self.headers.get(network..)?, segment.headers.get(network..)?);
        if self.layout.network == Network::V6 {
            // Class and flow label; hop limit.
            return Some(ours.get(..4)? == theirs.get(..4)? && ours.get(7)? == theirs.get(7)?);
        }
        // Type of service; flags; time to live.
        let same = ours.get(1)? == theirs.get(1)? && ours.get(6..9)? == theirs.get(6..9)?;
        Some(same && self.identification_kind(segment).is_some())
    }

    /// Whether all segments have one identification (true) or each the next (false); `None` where neither holds. One for all is for
    /// those that must not be fragmented, where it has no meaning (RFC 6864).
    fn identification_kind(&self, segment: &Segment<'_>) -> Option<bool> {
        let network = usize::from(self.layout.network_offset);
        let ours = read_u16(&self.headers, network + 4)?;
        let theirs = read_u16(segment.headers, network + 4)?;
        let dont_fragment = self.headers.get(network + 6)? & 0x40 != 0;
        let fixed = if theirs == ours.wrapping_add(self.segments) {
            false
        } else if theirs == ours && dont_fragment {
            true
        } else {
            return None;
        };
        (self.fixed_identification.unwrap_or(fixed) == fixed).then_some(fixed)
    }

    fn append(&mut self, packet: Packet, segment: &Segment<'_>) {
        if self.layout.network == Network::V4 {
            self.fixed_identification = self.identification_kind(segment);
        }
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
