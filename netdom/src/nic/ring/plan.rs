//! Offloads of a packet to be sent: what the device is to do, and the headers as it wants them. Pure. Floor 3.

use crate::offload::headers::{Layout, Network, PROTOCOL_TCP, Transport};
use crate::packet::{Checksum, Fragment, Packet};

/// What is to be done to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where its headers lie; each begins behind the one before.
    pub layout: Layout,
    /// Payload bytes of a segment, where it is to be cut.
    pub segment: Option<u16>,
    /// Payload bytes in all.
    pub payload: u32,
}

impl Plan {
    /// Bytes of the IP header with its options or extension headers.
    pub const fn network_length(&self) -> u16 {
        self.layout.transport_offset - self.layout.network_offset
    }

    /// Bytes of the TCP or UDP header.
    pub const fn transport_length(&self) -> u16 {
        self.layout.payload_offset - self.layout.transport_offset
    }

    /// Bytes of the longest frame that comes of a packet of `length` bytes.
    pub fn longest_frame(&self, length: usize) -> usize {
        self.segment.map_or(length, |size| usize::from(self.layout.payload_offset) + usize::from(size))
    }
}

/// Why the device cannot do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unable;

/// What `packet` asks of the device; `None` where it asks nothing.
pub(super) fn plan(packet: &Packet, layout: Option<&Layout>, length: usize) -> Result<Option<Plan>, Unable> {
    if packet.offload.gso.is_none() && packet.offload.checksum != Checksum::Blank {
        return Ok(None);
    }
    let layout = *layout.ok_or(Unable)?;
    let payload = length.checked_sub(usize::from(layout.payload_offset)).ok_or(Unable)?;
    let ordered = layout.network_offset < layout.transport_offset && layout.transport_offset < layout.payload_offset;
    if !ordered {
        return Err(Unable);
    }
    let segment = match packet.offload.gso {
        Some(gso) if payload > usize::from(gso.size) => Some(gso.size),
        // What fits one segment is a packet whose checksum is to be completed: it needs no fixing up of its headers.
        Some(_) | None => None,
    };
    if segment.is_some() && layout.transport != Transport::Tcp || segment == Some(0) {
        return Err(Unable);
    }
    Ok(Some(Plan { layout, segment, payload: u32::try_from(payload).map_err(|_| Unable)? }))
}

/// One's complement sum of big-endian halfwords.
fn sum(bytes: &[u8]) -> u32 {
    bytes.as_chunks::<2>().0.iter().map(|pair| u32::from(u16::from_be_bytes(*pair))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while let high @ 1.. = sum >> 16 {
        sum = (sum & 0xFFFF) + high;
    }
    sum as u16
}

/// Writes into the headers what the device builds each segment's headers from (82574 datasheet 7.2.6, 82599 datasheet 7.2.4): lengths of
/// zero, an IPv4 checksum of zero, and as the TCP checksum the pseudo-header's sum *without* the length, which the device adds.
/// A guest's packet holds the sum with the length; it is made anew from the addresses, as not every frontend keeps to that.
///
/// `headers` holds all headers and is this packet's alone.
pub(super) fn prepare_segmentation(headers: &Fragment, layout: &Layout) -> Result<(), Unable> {
    let network = usize::from(headers.offset) + usize::from(layout.network_offset);
    let checksum = usize::from(headers.offset) + usize::from(layout.checksum_offset());
    let page = &headers.buffer;
    let mut addresses = [0u8; 32];
    let (at, length) = match layout.network {
        Network::V4 => (network + 12, 8),
        Network::V6 => (network + 8, 32),
    };
    let addresses = addresses.get_mut(..length).ok_or(Unable)?;
    let mut done = page.read(at, addresses);
    let pseudo = fold(sum(addresses) + u32::from(PROTOCOL_TCP));
    done &= match layout.network {
        // Total length (bytes 2 and 3), header checksum (10 and 11).
        Network::V4 => page.write(network + 2, &[0, 0]) && page.write(network + 10, &[0, 0]),
        // Payload length.
        Network::V6 => page.write(network + 4, &[0, 0]),
    };
    done &= page.write(checksum, &pseudo.to_be_bytes());
    if done { Ok(()) } else { Err(Unable) }
}
