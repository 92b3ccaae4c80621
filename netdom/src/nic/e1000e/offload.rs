//! Offloads of a packet to be sent: the context that the device wants for it, and the headers as it wants them. Pure. Floor 3.

use super::descriptors::{Context, ContextCommand, DataOptions};
use crate::offload::headers::{Layout, Network, Transport};
use crate::packet::{Checksum, Fragment, Packet};

/// Where the checksum lies in an IPv4, a TCP and a UDP header.
const IPV4_CHECKSUM: u16 = 10;
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;
/// Protocol number of TCP.
const TCP: u32 = 6;

/// What is to be done to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) context: Context,
    pub(super) options: DataOptions,
    pub(super) segment: bool,
}

/// Why the device cannot do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unable;

/// What `packet` asks of the device; `None` where it asks nothing.
pub(super) fn plan(packet: &Packet, layout: Option<&Layout>, length: usize) -> Result<Option<Plan>, Unable> {
    if packet.offload.gso.is_none() && packet.offload.checksum != Checksum::Blank {
        return Ok(None);
    }
    let layout = layout.ok_or(Unable)?;
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
    let command =
        ContextCommand::new().with_tcp(layout.transport == Transport::Tcp).with_ipv4(layout.network == Network::V4);
    let byte = |offset: u16| u8::try_from(offset).map_err(|_| Unable);
    let checksum = match layout.transport {
        Transport::Tcp => TCP_CHECKSUM,
        Transport::Udp => UDP_CHECKSUM,
    };
    let mut context = Context {
        ip_start: byte(layout.network_offset)?,
        ip_checksum: byte(layout.network_offset.saturating_add(IPV4_CHECKSUM))?,
        ip_end: match layout.network {
            Network::V4 => layout.transport_offset - 1,
            Network::V6 => 0,
        },
        transport_start: byte(layout.transport_offset)?,
        transport_checksum: byte(layout.transport_offset.saturating_add(checksum))?,
        command,
        ..Context::default()
    };
    let mut options = DataOptions::new().with_transport_checksum(true);
    if let Some(size) = segment {
        context.headers = byte(layout.payload_offset)?;
        context.segment_size = size;
        context.command = command.with_segment(true).with_payload(u32::try_from(payload).map_err(|_| Unable)?);
        options.set_ip_checksum(layout.network == Network::V4);
    }
    Ok(Some(Plan { context, options, segment: segment.is_some() }))
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

/// Writes into the headers what the device builds each segment's headers from (82574 datasheet 7.2.6): lengths of zero, an
/// IPv4 checksum of zero, and as the TCP checksum the pseudo-header's sum *without* the length, which the device adds.
/// A guest's packet holds the sum with the length; it is made anew from the addresses, as not every frontend keeps to that.
///
/// `headers` holds all headers and is this packet's alone.
pub(super) fn prepare_segmentation(headers: &Fragment, layout: &Layout) -> Result<(), Unable> {
    let network = usize::from(headers.offset) + usize::from(layout.network_offset);
    let transport = usize::from(headers.offset) + usize::from(layout.transport_offset);
    let page = &headers.buffer;
    let mut addresses = [0u8; 32];
    let (at, length) = match layout.network {
        Network::V4 => (network + 12, 8),
        Network::V6 => (network + 8, 32),
    };
    let addresses = addresses.get_mut(..length).ok_or(Unable)?;
    let mut done = page.read(at, addresses);
    let pseudo = fold(sum(addresses) + TCP);
    done &= match layout.network {
        // Total length (bytes 2 and 3), header checksum (10 and 11).
        Network::V4 => page.write(network + 2, &[0, 0]) && page.write(network + 10, &[0, 0]),
        // Payload length.
        Network::V6 => page.write(network + 4, &[0, 0]),
    };
    done &= page.write(transport + usize::from(TCP_CHECKSUM), &pseudo.to_be_bytes());
    if done { Ok(()) } else { Err(Unable) }
}
