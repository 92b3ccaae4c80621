//! The Internet checksum (RFC 1071) over packets in pieces, and what netif.h calls a blank one. Pure. Floor 3.
//!
//! A *blank* checksum field (`NETTXF_csum_blank`) holds the sum of the pseudo-header, not complemented. So completing it is to
//! sum the transport header and payload as they are and to write the complement: see [`complete`].

use super::headers::{Layout, Network, Transport, final_destination, put, transport_length};
use crate::packet::{Checksum, Packet};

/// A one's complement sum, of any number of pieces of any lengths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// The sum of 16-bit words as this machine reads them: the order of bytes does not matter to the sum (RFC 1071, 2 (B)).
    words: u64,
    /// Whether an odd number of bytes was added: the next is the second of its word.
    odd: bool,
}

impl Sum {
    /// Of nothing.
    pub const fn new() -> Self {
        Self { words: 0, odd: false }
    }

    /// Adds the bytes that follow those added before.
    #[inline]
    pub fn add(&mut self, bytes: &[u8]) {
        let mut sum = sum_words(bytes);
        if self.odd {
            sum = u64::from(fold(sum).swap_bytes());
        }
        self.words = add_with_carry(self.words, sum);
        self.odd ^= !bytes.len().is_multiple_of(2);
    }

    /// Adds a number, at an even place.
    pub fn add_u16(&mut self, number: u16) {
        self.words = add_with_carry(self.words, u64::from(number.to_be()));
    }

    /// The sum, folded, not complemented: what a blank field holds.
    pub fn folded(self) -> u16 {
        u16::from_be(fold(self.words))
    }

    /// The complement: what a complete field holds, but for UDP's zero.
    pub fn checksum(self) -> u16 {
        !self.folded()
    }
}

fn add_with_carry(left: u64, right: u64) -> u64 {
    let (sum, carry) = left.overflowing_add(right);
    sum + u64::from(carry)
}

/// Four sums side by side, so that no addition waits for the carry of the one before.
#[inline]
fn sum_words(bytes: &[u8]) -> u64 {
    let (blocks, rest) = bytes.as_chunks::<32>();
    let mut sums = [0_u64; 4];
    for block in blocks {
        let (words, _) = block.as_chunks::<8>();
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = add_with_carry(*sum, u64::from_ne_bytes(*word));
        }
    }
    let mut sum = sums.into_iter().fold(0, add_with_carry);
    let (words, rest) = rest.as_chunks::<8>();
    for word in words {
        sum = add_with_carry(sum, u64::from_ne_bytes(*word));
    }
    // Bytes that are not there count as zeros behind those that are.
    let mut last = 0;
    let mut behind = rest;
    let mut shift = 0;
    if let Some((four, after)) = behind.split_first_chunk() {
        last = u64::from(u32::from_le_bytes(*four));
        (behind, shift) = (after, 32);
    }
    for byte in behind {
        last |= u64::from(*byte) << shift;
        shift += 8;
    }
    add_with_carry(sum, u64::from_ne_bytes(last.to_le_bytes()))
}

fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    // Two halvings leave 32 bits, three more at most 16.
    sum as u16
}

/// The sum of the pseudo-header (RFC 9293, 3.1; RFC 8200, 8.1) for `length` bytes of transport header and payload. Some NICs want it
/// with a length of 0. `None` where `head` does not hold the addresses, or they are not known: see [`final_destination`].
pub fn pseudo_header(head: &[u8], layout: &Layout, length: u16) -> Option<Sum> {
    let network = usize::from(layout.network_offset);
    let mut sum = Sum::new();
    match layout.network {
        Network::V4 => sum.add(head.get(network + 12..network + 20)?),
        Network::V6 if !layout.has_extensions() => sum.add(head.get(network + 8..network + 40)?),
        Network::V6 => {
            sum.add(head.get(network + 8..network + 24)?);
            sum.add(&final_destination(head, layout)?);
        }
    }
    sum.add_u16(u16::from(layout.transport.protocol()));
    sum.add_u16(length);
    Some(sum)
}

/// Makes the checksum field of `head` blank: the pseudo-header's sum for `length` bytes of transport header and payload. False, and
/// nothing written, where `head` is too short.
pub fn blank(head: &mut [u8], layout: &Layout, length: u16) -> bool {
    let field = usize::from(layout.checksum_offset());
    match pseudo_header(head, layout, length) {
        Some(sum) => put(head, field, &sum.folded().to_be_bytes()),
        None => false,
    }
}

/// The IPv4 header's own checksum, written anew. False where `head` is too short. Nothing to do for IPv6.
pub fn complete_network(head: &mut [u8], layout: &Layout) -> bool {
    if layout.network == Network::V6 {
        return true;
    }
    let network = usize::from(layout.network_offset);
    if !put(head, network + 10, &[0, 0]) {
        return false;
    }
    let Some(header) = head.get(network..usize::from(layout.transport_offset)) else {
        return false;
    };
    let mut sum = Sum::new();
    sum.add(header);
    put(head, network + 10, &sum.checksum().to_be_bytes())
}

/// Whether the IPv4 header's own checksum is right; true for IPv6, which has none.
pub fn verify_network(head: &[u8], layout: &Layout) -> bool {
    if layout.network == Network::V6 {
        return true;
    }
    head.get(usize::from(layout.network_offset)..usize::from(layout.transport_offset)).is_some_and(|header| {
        let mut sum = Sum::new();
        // Nearly all have no options: of a length that is known, the sum is a few additions.
        match <&[u8; 20]>::try_from(header) {
            Ok(header) => sum.add(header),
            Err(_) => sum.add(header),
        }
        sum.folded() == 0xffff
    })
}

/// Bytes fetched from a page at a time.
const PIECE: usize = 1024;

/// The sum of `length` bytes of a packet from `skip` on. `None` where the packet is shorter.
pub fn sum_packet(packet: &Packet, skip: usize, length: usize) -> Option<Sum> {
    let mut sum = Sum::new();
    let (mut skip, mut left) = (skip, length);
    let mut piece = [0; PIECE];
    for fragment in &packet.fragments {
        let size = usize::from(fragment.length);
        if skip >= size {
            skip -= size;
            continue;
        }
        let mut at = usize::from(fragment.offset) + skip;
        let mut here = (size - skip).min(left);
        skip = 0;
        left -= here;
        while here > 0 {
            let part = piece.get_mut(..here.min(PIECE))?;
            if !fragment.buffer.read(at, part) {
                return None;
            }
            sum.add(part);
            at += part.len();
            here -= part.len();
        }
        if left == 0 {
            break;
        }
    }
    (left == 0).then_some(sum)
}

/// Why a checksum could not be completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChecksumError {
    /// The packet ends before its headers do.
    Short {
        /// Bytes of the packet.
        length: usize,
        /// Bytes of its headers.
        headers: usize,
    },
    /// The first fragment does not hold the headers, or a page could not be read or written.
    Page,
}

impl core::fmt::Display for ChecksumError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Short { length, headers } => {
                write!(formatter, "{length} bytes end before {headers} bytes of headers")
            }
            Self::Page => formatter.write_str("a page cannot be read or written, or the headers lie in more than one"),
        }
    }
}

impl core::error::Error for ChecksumError {}

/// Bytes of transport header and payload: what IP says, where that is not more than there is.
fn covered(packet: &Packet, layout: &Layout) -> Result<usize, ChecksumError> {
    let length = packet.len();
    let short = ChecksumError::Short { length, headers: usize::from(layout.payload_offset) };
    let there = length.checked_sub(usize::from(layout.transport_offset)).ok_or(short)?;
    if length < usize::from(layout.payload_offset) {
        return Err(short);
    }
    let mut head = [0; super::headers::MAX_HEADERS];
    let first = packet.fragments.first().ok_or(short)?;
    let head = head.get_mut(..usize::from(layout.transport_offset)).ok_or(ChecksumError::Page)?;
    if first.length < layout.transport_offset || !first.buffer.read(usize::from(first.offset), head) {
        return Err(ChecksumError::Page);
    }
    let stated = transport_length(head, layout).map_or(there, usize::from);
    Ok(if stated <= there { stated } else { there })
}

/// Completes a blank checksum in software, and notes that the packet's checksum is good.
///
/// # Errors
/// The packet is left as it was.
pub fn complete(packet: &mut Packet, layout: &Layout) -> Result<(), ChecksumError> {
    let length = covered(packet, layout)?;
    let sum = sum_packet(packet, usize::from(layout.transport_offset), length).ok_or(ChecksumError::Page)?;
    let checksum = match (layout.transport, sum.checksum()) {
        // Zero says "none" in UDP (RFC 768); the other zero is as good.
        (Transport::Udp, 0) => 0xffff,
        (_, checksum) => checksum,
    };
    let field = layout.checksum_offset();
    let first = packet.fragments.first().ok_or(ChecksumError::Page)?;
    if field.saturating_add(2) > first.length
        || !first.buffer.write(usize::from(first.offset) + usize::from(field), &checksum.to_be_bytes())
    {
        return Err(ChecksumError::Page);
    }
    packet.offload.checksum = Checksum::Verified;
    Ok(())
}

/// Whether a complete checksum is right. A UDP packet without one is right.
///
/// # Errors
/// As [`complete`].
pub fn verify(packet: &Packet, layout: &Layout) -> Result<bool, ChecksumError> {
    let length = covered(packet, layout)?;
    let mut head = [0; super::headers::MAX_HEADERS];
    let first = packet.fragments.first().ok_or(ChecksumError::Page)?;
    let head = head.get_mut(..usize::from(layout.payload_offset.min(first.length))).ok_or(ChecksumError::Page)?;
    if !first.buffer.read(usize::from(first.offset), head) {
        return Err(ChecksumError::Page);
    }
    let field = usize::from(layout.checksum_offset());
    let stated = super::headers::read_u16(head, field).ok_or(ChecksumError::Page)?;
    if layout.transport == Transport::Udp && stated == 0 {
        return Ok(true);
    }
    let short = ChecksumError::Short { length: packet.len(), headers: usize::from(layout.payload_offset) };
    let mut sum = pseudo_header(head, layout, u16::try_from(length).map_err(|_| short)?).ok_or(ChecksumError::Page)?;
    let data = sum_packet(packet, usize::from(layout.transport_offset), length).ok_or(ChecksumError::Page)?;
    sum.add_u16(data.folded());
    Ok(sum.folded() == 0xffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::headers::parse;

    #[test]
    fn known_sums() {
        // RFC 1071, 3: the example's sum is ddf2.
        let mut sum = Sum::new();
        sum.add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.folded(), 0xddf2);
        // The same in odd pieces.
        let mut sum = Sum::new();
        for piece in [&[0x00][..], &[0x01, 0xf2], &[], &[0x03, 0xf4, 0xf5, 0xf6], &[0xf7]] {
            sum.add(piece);
        }
        assert_eq!(sum.folded(), 0xddf2);
        assert_eq!(Sum::new().checksum(), 0xffff);
    }

    #[test]
    fn carries_are_kept() {
        let mut sum = Sum::new();
        for _ in 0..1000 {
            sum.add(&[0xff; 4096]);
        }
        assert_eq!(sum.folded(), 0xffff);
    }

    #[test]
    fn ipv4_header() {
        // An ordinary header whose checksum is known to be b861.
        let mut frame = [0_u8; 42];
        put(&mut frame, 12, &[0x08, 0x00]);
        put(
            &mut frame,
            14,
            &[0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7],
        );
        let layout = parse(&frame).unwrap();
        assert!(!verify_network(&frame, &layout));
        assert!(complete_network(&mut frame, &layout));
        assert_eq!(frame[24..26], [0xb8, 0x61]);
        assert!(verify_network(&frame, &layout));
    }
}
