//! Cutting a TCP super-frame into segments for who cannot take it whole. Pure. Floor 3.
//!
//! [`Segmenter`] works on the headers alone: it gives each segment's headers and which bytes of the super-frame follow them, so that
//! the payload is moved once, by whatever moves it. [`split`] does so for a packet in local memory, whose payload is not moved at all.
//! Segments have a blank checksum: the NIC completes it, or [`super::checksum::complete`].

use super::checksum;
use super::headers::{self, Layout, MAX_HEADERS, Network, Transport, put, read_u16, read_u32};
use crate::packet::{Checksum, Fragment, Fragments, Offload, Packet, Pool};
use core::ops::Range;

/// The smallest segment that is cut: no sender uses less (Linux: `TCP_MIN_SND_MSS`), and less would make one packet many thousands.
pub const MIN_SEGMENT: u16 = 48;

/// The longest packet that is cut: IP's 64 KiB behind an Ethernet header with tags.
const MAX_SUPER_FRAME: usize = headers::ETHERNET_HEADER + 8 + u16::MAX as usize;

/// Bytes before the flags in a TCP header (RFC 9293, 3.1).
pub(crate) const TCP_FLAGS: usize = 13;
/// No more data from the sender.
pub(crate) const TCP_FIN: u8 = 0x01;
/// Push.
pub(crate) const TCP_PSH: u8 = 0x08;
/// Congestion window reduced (RFC 3168): said once.
pub(crate) const TCP_CWR: u8 = 0x80;

/// Why a packet cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentError {
    /// Segments of so few bytes.
    Size(u16),
    /// No TCP.
    Transport(Transport),
    /// The headers are longer than is worked on, or the bytes given, or the packet, end before them.
    Headers {
        /// Bytes of the headers.
        headers: usize,
        /// Bytes there.
        have: usize,
    },
    /// More than an IP packet may have.
    Length(usize),
    /// A routing header of a kind that is not known, so that the destination in the checksum is not known either.
    Destination,
    /// No page is left for the headers, or one could not be read or written.
    Page,
    /// A segment would lie in too many pages.
    Fragments,
}

impl core::fmt::Display for SegmentError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Size(bytes) => write!(formatter, "segments of {bytes} bytes are too small"),
            Self::Transport(transport) => {
                write!(formatter, "protocol {} cannot be cut, TCP alone can", transport.protocol())
            }
            Self::Headers { headers, have } => write!(formatter, "{headers} bytes of headers, {have} bytes there"),
            Self::Length(bytes) => write!(formatter, "{bytes} bytes are more than an IP packet may have"),
            Self::Destination => formatter.write_str("a routing header of an unknown kind hides the destination"),
            Self::Page => formatter.write_str("no page is left for the headers, or one cannot be read or written"),
            Self::Fragments => formatter.write_str("a segment would lie in too many pages"),
        }
    }
}

impl core::error::Error for SegmentError {}

/// One segment: its headers, and what of the super-frame follows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Headers, from the destination address on, with a blank TCP checksum and a complete IPv4 one.
    pub headers: heapless::Vec<u8, MAX_HEADERS>,
    /// Bytes of the super-frame, counted from its destination address.
    pub payload: Range<usize>,
}

/// Gives the segments of a super-frame in their order.
#[derive(Clone, Debug)]
pub struct Segmenter {
    template: heapless::Vec<u8, MAX_HEADERS>,
    layout: Layout,
    size: usize,
    length: usize,
    next: usize,
    index: u16,
}

impl Segmenter {
    /// `head` has the headers at least; `length` is of the whole super-frame; `size` is the payload of a segment.
    ///
    /// # Errors
    /// What is wrong with these.
    pub fn new(head: &[u8], layout: &Layout, length: usize, size: u16) -> Result<Self, SegmentError> {
        if size < MIN_SEGMENT {
            return Err(SegmentError::Size(size));
        }
        if layout.transport != Transport::Tcp {
            return Err(SegmentError::Transport(layout.transport));
        }
        let payload = usize::from(layout.payload_offset);
        let error = SegmentError::Headers { headers: payload, have: head.len().min(length) };
        if length < payload || payload < usize::from(layout.transport_offset) + 20 {
            return Err(error);
        }
        // What a segment's IP header will have to say must fit into it; so must the place of a segment in the whole.
        let segment = payload + (length - payload).min(usize::from(size));
        if length > MAX_SUPER_FRAME || segment > usize::from(layout.network_offset) + usize::from(u16::MAX) {
            return Err(SegmentError::Length(length));
        }
        if checksum::pseudo_header(head, layout, 0).is_none() {
            return Err(SegmentError::Destination);
        }
        let template = head.get(..payload).and_then(|headers| heapless::Vec::try_from(headers).ok()).ok_or(error)?;
        Ok(Self { template, layout: *layout, size: usize::from(size), length, next: payload, index: 0 })
    }

    /// How many are left to come.
    pub fn remaining(&self) -> usize {
        if self.index == 0 && self.next == self.length {
            return 1;
        }
        (self.length - self.next).div_ceil(self.size)
    }

    /// The headers of the segment with this payload. `None` only where they are not what `new` saw, which cannot be.
    fn headers(&self, payload: &Range<usize>) -> Option<heapless::Vec<u8, MAX_HEADERS>> {
        let layout = &self.layout;
        let (network, transport) = (usize::from(layout.network_offset), usize::from(layout.transport_offset));
        // A clone would go byte by byte.
        let mut headers: heapless::Vec<u8, MAX_HEADERS> = heapless::Vec::new();
        headers.extend_from_slice(&self.template).ok()?;
        let first = usize::from(layout.payload_offset);
        let sequence = read_u32(&headers, transport + 4)?.wrapping_add(u32::try_from(payload.start - first).ok()?);
        put(&mut headers, transport + 4, &sequence.to_be_bytes());
        let flags = headers.get_mut(transport + TCP_FLAGS)?;
        if payload.end < self.length {
            *flags &= !(TCP_FIN | TCP_PSH);
        }
        if self.index > 0 {
            *flags &= !TCP_CWR;
        }
        let length = first + payload.len();
        match layout.network {
            Network::V4 => {
                let total = u16::try_from(length.checked_sub(network)?).ok()?;
                let identification = read_u16(&headers, network + 4)?.wrapping_add(self.index);
                put(&mut headers, network + 2, &total.to_be_bytes());
                put(&mut headers, network + 4, &identification.to_be_bytes());
                checksum::complete_network(&mut headers, layout);
            }
            Network::V6 => {
                let total = u16::try_from(length.checked_sub(network + 40)?).ok()?;
                put(&mut headers, network + 4, &total.to_be_bytes());
            }
        }
        checksum::blank(&mut headers, layout, u16::try_from(length - transport).ok()?);
        Some(headers)
    }
}

impl Iterator for Segmenter {
    type Item = Segment;

    fn next(&mut self) -> Option<Segment> {
        // A super-frame without payload is one segment: itself.
        if self.next >= self.length && self.index > 0 {
            return None;
        }
        let payload = self.next..self.next.saturating_add(self.size).min(self.length);
        let headers = self.headers(&payload)?;
        self.next = payload.end;
        self.index = self.index.saturating_add(1);
        Some(Segment { headers, payload })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining(), Some(self.remaining()))
    }
}

/// Cuts a packet in local memory. Each segment has a page of its own for its headers; its payload stays where it is, in pages that the
/// segments share. What was given to `take` before an error is complete.
///
/// # Errors
/// What is wrong with the packet, or [`SegmentError::Page`] where the pool is empty.
pub fn split(
    packet: &Packet,
    layout: &Layout,
    size: u16,
    pool: &Pool,
    mut take: impl FnMut(Packet),
) -> Result<(), SegmentError> {
    let mut head = [0; MAX_HEADERS];
    let payload_offset = usize::from(layout.payload_offset);
    let first = packet.fragments.first().ok_or(SegmentError::Page)?;
    let error = SegmentError::Headers { headers: payload_offset, have: usize::from(first.length) };
    if first.length < layout.payload_offset {
        return Err(error);
    }
    let head = head.get_mut(..payload_offset).ok_or(error)?;
    if !first.buffer.read(usize::from(first.offset), head) {
        return Err(SegmentError::Page);
    }
    let mut cursor = Cursor::new(&packet.fragments, payload_offset);
    for segment in Segmenter::new(head, layout, packet.len(), size)? {
        let buffer = pool.take().ok_or(SegmentError::Page)?;
        if !buffer.write(0, &segment.headers) {
            return Err(SegmentError::Page);
        }
        let mut fragments = Fragments::new();
        let head = Fragment { buffer, offset: 0, length: layout.payload_offset };
        fragments.push(head).map_err(|_| SegmentError::Fragments)?;
        if !cursor.take(segment.payload.len(), &mut fragments) {
            return Err(SegmentError::Fragments);
        }
        take(Packet { fragments, offload: Offload { checksum: Checksum::Blank, gso: None }, tag: packet.tag });
    }
    Ok(())
}

/// A place in a packet, moving towards its end.
struct Cursor<'a> {
    rest: core::slice::Iter<'a, Fragment>,
    /// What is left of the fragment before `rest`.
    here: Option<Fragment>,
}

impl<'a> Cursor<'a> {
    fn new(fragments: &'a [Fragment], skip: usize) -> Self {
        let mut cursor = Self { rest: fragments.iter(), here: None };
        let mut skip = skip;
        for fragment in cursor.rest.by_ref() {
            if let Some(left) = usize::from(fragment.length).checked_sub(skip) {
                // Not more than the fragment's length.
                let skip = skip as u16;
                cursor.here = (left > 0).then(|| Fragment {
                    buffer: fragment.buffer.clone(),
                    offset: fragment.offset.saturating_add(skip),
                    length: fragment.length - skip,
                });
                break;
            }
            skip -= usize::from(fragment.length);
        }
        cursor
    }

    /// Adds the next `length` bytes to `fragments`. False where they lie in too many pages, or are not there.
    fn take(&mut self, length: usize, fragments: &mut Fragments) -> bool {
        let mut left = length;
        while left > 0 {
            let Some(mut here) = self.here.take().or_else(|| self.rest.next().cloned()) else {
                return false;
            };
            let part = u16::try_from(left).map_or(here.length, |left| left.min(here.length));
            let rest = Fragment {
                buffer: here.buffer.clone(),
                offset: here.offset.saturating_add(part),
                length: here.length - part,
            };
            here.length = part;
            if part > 0 && fragments.push(here).is_err() {
                return false;
            }
            left -= usize::from(part);
            self.here = (rest.length > 0).then_some(rest);
        }
        true
    }
}
