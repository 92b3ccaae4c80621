//! A TCP segment in its frame, as far as a mere receiver needs it: checked, and answered. Pure.

use alloc::vec::Vec;

/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Bytes of a TCP header without options.
const TCP: usize = 20;

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const ACK: u8 = 0x10;

/// What a segment says (RFC 9293, 3.1).
pub(crate) struct Segment<'f> {
    frame: &'f [u8],
    /// Where the TCP header begins.
    transport: usize,
    pub(crate) port: u16,
    pub(crate) sequence: u32,
    pub(crate) flags: u8,
    pub(crate) data: &'f [u8],
    /// Whether its checksums are right, and the packet no longer than it says.
    pub(crate) intact: bool,
}

/// The sum of RFC 1071; all ones where it goes over its own right checksum.
pub(crate) fn sum(pieces: &[&[u8]]) -> u16 {
    let words = pieces.iter().flat_map(|piece| piece.chunks(2));
    let mut sum: u64 =
        words.map(|word| u64::from(u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn word(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

fn put(bytes: &mut [u8], offset: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(offset..offset + value.len()) {
        place.copy_from_slice(value);
    }
}

/// Both addresses of a packet whose TCP header begins there.
fn addresses(frame: &[u8], transport: usize) -> &[u8] {
    let length = if transport == ETHERNET + 20 { 8 } else { 32 };
    frame.get(transport - length..transport).unwrap_or_default()
}

/// The sum over a segment and its pseudo header (RFC 9293, 3.1; RFC 8200, 8.1).
fn transport_sum(frame: &[u8], transport: usize, length: usize) -> u16 {
    let segment = frame.get(transport..transport + length).unwrap_or_default();
    sum(&[addresses(frame, transport), &(length as u32).to_be_bytes(), &[0, 6], segment])
}

impl<'f> Segment<'f> {
    /// A TCP segment in IP without options; none where it is something else.
    pub(crate) fn parse(frame: &'f [u8]) -> Option<Self> {
        let packet = frame.get(ETHERNET..)?;
        let (header, total) = match (word(frame, 12)?, packet.first()?, packet.get(6)?, packet.get(9)?) {
            (0x0800, 0x45, _, 6) => (20, usize::from(word(packet, 2)?)),
            (0x86dd, 0x60..=0x6f, 6, _) => (40, 40 + usize::from(word(packet, 4)?)),
            _ => return None,
        };
        let (transport, length) = (ETHERNET + header, total.checked_sub(header)?);
        let segment = frame.get(transport..transport + length)?;
        let data = segment.get(usize::from(segment.get(12)? >> 4) * 4..)?;
        let network_sum = if header == 20 { sum(&[packet.get(..20)?]) } else { 0xffff };
        let intact = network_sum == 0xffff && transport_sum(frame, transport, length) == 0xffff;
        let sequence = segment.get(4..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))?;
        let (port, flags) = (word(segment, 2)?, *segment.get(13)?);
        Some(Self { frame, transport, port, sequence, flags, data, intact })
    }

    /// The frame that answers it: no data, the whole window.
    pub(crate) fn answer(&self, sequence: u32, acknowledged: u32, flags: u8) -> Vec<u8> {
        let transport = self.transport;
        let mut frame = self.frame.get(..transport + TCP).unwrap_or_default().to_vec();
        let swap = |frame: &mut [u8], at: usize, each: usize| {
            if let Some(place) = frame.get_mut(at..at + 2 * each) {
                place.rotate_left(each);
            }
        };
        let is_v4 = transport == ETHERNET + 20;
        let address = if is_v4 { 4 } else { 16 };
        swap(&mut frame, 0, 6);
        swap(&mut frame, transport - 2 * address, address);
        swap(&mut frame, transport, 2);
        put(&mut frame, transport + 4, &sequence.to_be_bytes());
        put(&mut frame, transport + 8, &acknowledged.to_be_bytes());
        put(&mut frame, transport + 12, &[5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
        if flags & SYN != 0 {
            // The largest segment of an MTU of 1500 (RFC 9293, 3.7.1).
            let [high, low] = (1500 - (transport - ETHERNET + TCP) as u16).to_be_bytes();
            frame.extend([2, 4, high, low]);
            put(&mut frame, transport + 12, &[6 << 4]);
        }
        let length = frame.len() - transport;
        if is_v4 {
            put(&mut frame, ETHERNET + 2, &(20 + length as u16).to_be_bytes());
            put(&mut frame, ETHERNET + 10, &[0, 0]);
            let checksum = !sum(&[frame.get(ETHERNET..transport).unwrap_or_default()]);
            put(&mut frame, ETHERNET + 10, &checksum.to_be_bytes());
        } else {
            put(&mut frame, ETHERNET + 4, &(length as u16).to_be_bytes());
        }
        let checksum = !transport_sum(&frame, transport, length);
        put(&mut frame, transport + 16, &checksum.to_be_bytes());
        frame
    }
}
