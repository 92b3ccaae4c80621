//! Offloads of a packet on its way out: checksums, segmentation, a VLAN's tag. 82599 datasheet 7.2.4 and 7.2.5. Pure.

use crate::advanced::{Context, Data, Transport};
use crate::checksum::{half, put, sum};

/// Where in a TCP header the checksum is, RFC 9293 3.1.
const TCP_CHECKSUM: usize = 16;
/// Where in a UDP header the checksum is, RFC 768.
const UDP_CHECKSUM: usize = 6;

/// Frames as they go to the wire, for `packet` as its first data descriptor and the context tell; `vlan` is the type of inserted tags,
/// `None` where the device inserts none.
///
/// # Errors
/// The driver's offence.
pub fn apply(
    packet: Vec<u8>,
    first: &Data,
    context: Option<&Context>,
    vlan: Option<u16>,
) -> Result<Vec<Vec<u8>>, &'static str> {
    let wants = first.segment || first.ip_checksum || first.transport_checksum || first.insert_vlan;
    if !first.frame_check {
        return Err("a packet without IFCS");
    }
    let context = match context {
        Some(context) => context,
        None if wants => return Err("an offload without a context"),
        None if packet.len() != first.payload => return Err("PAYLEN is not the packet's length"),
        None => return Ok(vec![packet]),
    };
    let mut frames = if first.segment {
        if !first.transport_checksum || context.ipv4 && !first.ip_checksum {
            return Err("segmentation without checksums");
        }
        segment(&packet, first.payload, context)?
    } else {
        if packet.len() != first.payload {
            return Err("PAYLEN is not the packet's length");
        }
        vec![single(packet, first, context)?]
    };
    if first.insert_vlan {
        insert_tags(&mut frames, vlan, context.vlan)?;
    }
    Ok(frames)
}

/// Inserts a tag of type `vlan` into each frame.
///
/// # Errors
/// Where the device inserts none, or a frame has no addresses.
pub(crate) fn insert_tags(frames: &mut [Vec<u8>], vlan: Option<u16>, tag: u16) -> Result<(), &'static str> {
    let vlan = vlan.ok_or("a tag to be inserted while CTRL.VME is clear")?;
    let ([a, b], [c, d]) = (vlan.to_be_bytes(), tag.to_be_bytes());
    for frame in frames {
        if frame.len() < 12 {
            return Err("a tag for a frame without addresses");
        }
        frame.splice(12..12, [a, b, c, d]);
    }
    Ok(())
}

fn ip_checksum(frame: &mut [u8], start: usize, end: usize) -> Option<()> {
    let place = start.checked_add(10)?;
    (end >= start + 20 && put(frame, place, 0)).then_some(())?;
    let value = !sum(frame.get(start..end)?, 0);
    put(frame, place, value).then_some(())
}

/// The checksum over everything from `start` on; the field holds the pseudo-header's sum.
fn transport_checksum(frame: &mut [u8], start: usize, field: usize, extra: u16, udp: bool) -> Option<()> {
    let value = !sum(frame.get(start..)?, extra);
    let value = if udp && value == 0 { 0xFFFF } else { value };
    put(frame, start.checked_add(field)?, value).then_some(())
}

fn field(transport: Transport) -> Result<usize, &'static str> {
    match transport {
        Transport::Tcp => Ok(TCP_CHECKSUM),
        Transport::Udp => Ok(UDP_CHECKSUM),
        Transport::Sctp => Err("SCTP's checksum, which the model does not know"),
        Transport::Reserved => Err("a reserved L4T"),
    }
}

fn single(mut packet: Vec<u8>, first: &Data, context: &Context) -> Result<Vec<u8>, &'static str> {
    let start = context.mac_length;
    let transport = start + context.ip_length;
    if (first.ip_checksum || first.transport_checksum) && start < 14 {
        return Err("MACLEN is shorter than a MAC header");
    }
    if first.ip_checksum {
        let done = context.ipv4.then(|| ip_checksum(&mut packet, start, transport)).flatten();
        done.ok_or("a context that does not fit its packet: IXSM")?;
    }
    if first.transport_checksum {
        let udp = context.transport == Transport::Udp;
        let done = transport_checksum(&mut packet, transport, field(context.transport)?, 0, udp);
        done.ok_or("a context that does not fit its packet: TXSM")?;
    }
    Ok(packet)
}

/// TCP segmentation, 82599 datasheet 7.2.4; `payload` is PAYLEN.
///
/// # Errors
/// The driver's offence.
pub(crate) fn segment(packet: &[u8], payload: usize, context: &Context) -> Result<Vec<Vec<u8>>, &'static str> {
    const MISFIT: &str = "a context that does not fit its packet: TSE";
    let (ip, size) = (context.mac_length, context.segment_size);
    let tcp = ip + context.ip_length;
    let headers = tcp + context.transport_length;
    if context.transport != Transport::Tcp {
        return Err("segmentation of other than TCP");
    }
    let shortest = if context.ipv4 { 20 } else { 40 };
    if ip < 14 || context.ip_length < shortest || context.transport_length < 20 || size == 0 {
        return Err(MISFIT);
    }
    let (template, data) = packet.split_at_checked(headers).ok_or(MISFIT)?;
    if data.len() != payload || data.is_empty() {
        return Err("PAYLEN is not the payload's length");
    }
    let version = template.get(ip).map(|byte| byte >> 4);
    if version != Some(if context.ipv4 { 4 } else { 6 }) {
        return Err("a context of another IP version than its packet");
    }
    let identification = half(template, ip + 4).ok_or(MISFIT)?;
    let sequence =
        template.get(tcp + 4..).and_then(|rest| rest.first_chunk().copied()).map(u32::from_be_bytes).ok_or(MISFIT)?;
    let count = data.len().div_ceil(size);
    let mut frames = Vec::with_capacity(count);
    for (number, chunk) in data.chunks(size).enumerate() {
        let mut frame = [template, chunk].concat();
        let total = frame.len();
        let last = number + 1 == count;
        let at = sequence.wrapping_add((number * size) as u32);
        let flags = half(&frame, tcp + 12).ok_or(MISFIT)?;
        // FIN and PSH go with the last segment, CWR with the first (RFC 3168 6.1.2).
        let flags = flags & !(if last { 0 } else { 0x0009 }) & !(if number == 0 { 0 } else { 0x0080 });
        put(&mut frame, tcp + 4, (at >> 16) as u16);
        put(&mut frame, tcp + 6, at as u16);
        put(&mut frame, tcp + 12, flags);
        if context.ipv4 {
            put(&mut frame, ip + 2, (total - ip) as u16);
            put(&mut frame, ip + 4, identification.wrapping_add(number as u16));
            ip_checksum(&mut frame, ip, tcp).ok_or(MISFIT)?;
        } else {
            put(&mut frame, ip + 4, (total - ip - 40) as u16);
        }
        transport_checksum(&mut frame, tcp, TCP_CHECKSUM, (total - tcp) as u16, false).ok_or(MISFIT)?;
        frames.push(frame);
    }
    Ok(frames)
}

#[cfg(test)]
mod tests;
