//! Transmit descriptors in the extended format, and the offloads that they ask for. 82574 datasheet 7.2. Pure.

use crate::advanced::{self, Data, Transmit, Transport};
use crate::bus::Transfer;
use crate::checksum::{put, sum};
use crate::offload;
use crate::transmit::Format;

/// The format.
#[derive(Debug)]
pub struct Extended;

/// A context descriptor: where checksums go, and how to segment. 82574 datasheet 7.2.8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// IPCSS: where the IP header begins.
    pub ip_start: usize,
    /// IPCSO: where its checksum goes.
    pub ip_checksum: usize,
    /// IPCSE: its last byte.
    pub ip_end: usize,
    /// TUCSS: where the TCP or UDP header begins.
    pub transport_start: usize,
    /// TUCSO: where its checksum goes.
    pub transport_checksum: usize,
    /// TUCSE: the last byte that it covers; 0 for all.
    pub transport_end: usize,
    /// PAYLEN: bytes to be cut into segments.
    pub payload: usize,
    /// TUCMD.TCP; otherwise UDP.
    pub tcp: bool,
    /// TUCMD.IP: IPv4; otherwise IPv6.
    pub ipv4: bool,
    /// TUCMD.TSE: it is for segmentation.
    pub segment: bool,
    /// HDRLEN: bytes of all headers.
    pub headers: usize,
    /// MSS: payload of a segment.
    pub segment_size: usize,
}

/// DTALEN's limit: a buffer of 16 KiB.
const LARGEST_BUFFER: usize = 16 << 10;
/// Shorter packets the device does not pad, 82574 datasheet 7.2.1.
const SHORTEST: usize = 17;

const CONTEXT: u32 = 0;
const DATA: u32 = 1;

impl Format for Extended {
    type Context = Context;
    const HEAD_WRITE_BACK: bool = false;

    fn parse([low, high, command, options]: [u32; 4]) -> Transmit<Context> {
        let bit = |word: u32, bit: u32| word >> bit & 1 != 0;
        let byte = |word: u32, shift: u32| (word >> shift) as usize & 0xFF;
        if !bit(command, 29) {
            return Transmit::Legacy;
        }
        match command >> 20 & 0xF {
            CONTEXT => Transmit::Context(Context {
                ip_start: byte(low, 0),
                ip_checksum: byte(low, 8),
                ip_end: low as usize >> 16,
                transport_start: byte(high, 0),
                transport_checksum: byte(high, 8),
                transport_end: high as usize >> 16,
                payload: command as usize & 0xF_FFFF,
                tcp: bit(command, 24),
                ipv4: bit(command, 25),
                segment: bit(command, 26),
                headers: byte(options, 8),
                segment_size: options as usize >> 16,
            }),
            DATA => Transmit::Data(Data {
                address: u64::from(low) | u64::from(high) << 32,
                length: (command as usize & 0xF_FFFF).min(LARGEST_BUFFER),
                end: bit(command, 24),
                frame_check: bit(command, 25),
                segment: bit(command, 26),
                report: bit(command, 27),
                insert_vlan: bit(command, 30),
                done: bit(options, 0),
                ip_checksum: bit(options, 8),
                transport_checksum: bit(options, 9),
                vlan: (options >> 16) as u16,
                ..Data::default()
            }),
            other => Transmit::Unknown(other as u8),
        }
    }

    /// There is one.
    fn place(_context: &Context) -> usize {
        0
    }

    /// STA.DD; the rest of the descriptor stays.
    fn report(address: u64) -> Transfer {
        Transfer::write(address.wrapping_add(12), vec![1])
    }

    fn apply(
        packet: Vec<u8>,
        first: &Data,
        context: Option<&Context>,
        vlan: Option<u16>,
    ) -> Result<Vec<Vec<u8>>, &'static str> {
        if !first.frame_check {
            return Err("a packet without IFCS");
        }
        if packet.len() < SHORTEST {
            return Err("a packet shorter than 17 bytes");
        }
        let mut frames = match context {
            Some(context) if first.segment => segment(&packet, first, context)?,
            Some(context) => vec![single(packet, first, context)?],
            None if first.segment || first.ip_checksum || first.transport_checksum => {
                return Err("an offload without a context");
            }
            None => vec![packet],
        };
        if first.insert_vlan {
            offload::insert_tags(&mut frames, vlan, first.vlan)?;
        }
        Ok(frames)
    }
}

/// Checksums, 82574 datasheet 7.2.5: over the bytes as they are, the field included.
fn single(mut packet: Vec<u8>, first: &Data, context: &Context) -> Result<Vec<u8>, &'static str> {
    if first.ip_checksum {
        let covered = packet.get(context.ip_start..=context.ip_end).filter(|_| context.ip_start >= 14);
        let value = !sum(covered.ok_or("a context that does not fit its packet: IXSM")?, 0);
        if !put(&mut packet, context.ip_checksum, value) {
            return Err("IPCSO lies beyond the packet");
        }
    }
    if first.transport_checksum {
        let end = if context.transport_end == 0 { packet.len() } else { context.transport_end + 1 };
        let covered = packet.get(context.transport_start..end).filter(|_| context.transport_start >= 14);
        let value = !sum(covered.ok_or("a context that does not fit its packet: TXSM")?, 0);
        let value = if value == 0 && !context.tcp { 0xFFFF } else { value };
        if !put(&mut packet, context.transport_checksum, value) {
            return Err("TUCSO lies beyond the packet");
        }
    }
    Ok(packet)
}

/// TCP segmentation, 82574 datasheet 7.2.6.
fn segment(packet: &[u8], first: &Data, context: &Context) -> Result<Vec<Vec<u8>>, &'static str> {
    if !context.segment {
        return Err("segmentation with a context that is not for it");
    }
    if !first.transport_checksum || context.ipv4 && !first.ip_checksum {
        return Err("segmentation without checksums");
    }
    if context.ipv4 && (context.ip_checksum != context.ip_start + 10 || context.ip_end + 1 != context.transport_start) {
        return Err("a context of segmentation with the IPv4 checksum elsewhere");
    }
    if context.transport_checksum != context.transport_start + 16 || context.transport_end != 0 {
        return Err("a context of segmentation with the TCP checksum elsewhere");
    }
    let lengths = || {
        let ip_length = context.transport_start.checked_sub(context.ip_start)?;
        Some((ip_length, context.headers.checked_sub(context.transport_start)?))
    };
    let (ip_length, transport_length) = lengths().ok_or("a context with offsets out of order")?;
    let headers = advanced::Context {
        ip_length,
        mac_length: context.ip_start,
        vlan: 0,
        ipv4: context.ipv4,
        transport: if context.tcp { Transport::Tcp } else { Transport::Udp },
        index: 0,
        transport_length,
        segment_size: context.segment_size,
    };
    offload::segment(packet, context.payload, &headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> Context {
        let words = [0x0021_180E, 0x0000_3222, 0x2701_2345, 0x05A8_3600];
        match Extended::parse(words) {
            Transmit::Context(context) => context,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn descriptors_are_read() {
        let expected = Context {
            ip_start: 14,
            ip_checksum: 24,
            ip_end: 33,
            transport_start: 34,
            transport_checksum: 50,
            transport_end: 0,
            payload: 0x1_2345,
            tcp: true,
            ipv4: true,
            segment: true,
            headers: 54,
            segment_size: 1448,
        };
        assert_eq!(context(), expected);
        let data = Data {
            address: 0x2_0000_1000,
            length: 1500,
            end: true,
            frame_check: true,
            report: true,
            insert_vlan: true,
            transport_checksum: true,
            vlan: 0x123,
            ..Data::default()
        };
        let words = [0x1000, 2, 0x6B10_0000 | 1500, 0x0123_0200];
        assert_eq!(Extended::parse(words), Transmit::Data(data));
        assert_eq!(Extended::parse([0, 0, 0x0B00_0040, 0]), Transmit::Legacy);
        assert_eq!(Extended::parse([0, 0, 0x2050_0000, 0]), Transmit::Unknown(5));
    }

    #[test]
    fn offences_are_told() {
        let whole = Data { frame_check: true, ..Data::default() };
        let checked = Data { transport_checksum: true, ..whole };
        let cut = Data { segment: true, ip_checksum: true, ..checked };
        let context = context();
        let apply = |first: &Data, context: Option<Context>, length: usize| {
            Extended::apply(vec![0; length], first, context.as_ref(), Some(0x8100)).err()
        };
        assert_eq!(apply(&whole, None, 60), None);
        assert_eq!(apply(&Data::default(), None, 60), Some("a packet without IFCS"));
        assert_eq!(apply(&whole, None, 16), Some("a packet shorter than 17 bytes"));
        let tagged = Data { insert_vlan: true, ..whole };
        assert_eq!(apply(&tagged, None, 60), None);
        let unasked = Extended::apply(vec![0; 60], &tagged, None, None).err();
        assert_eq!(unasked, Some("a tag to be inserted while CTRL.VME is clear"));
        assert_eq!(apply(&checked, None, 60), Some("an offload without a context"));
        assert_eq!(apply(&checked, Some(context), 60), None);
        assert_eq!(apply(&checked, Some(context), 30), Some("a context that does not fit its packet: TXSM"));
        let off = Context { segment: false, ..context };
        assert_eq!(apply(&cut, Some(off), 600), Some("segmentation with a context that is not for it"));
        let moved = Context { transport_checksum: 52, ..context };
        assert_eq!(apply(&cut, Some(moved), 600), Some("a context of segmentation with the TCP checksum elsewhere"));
        let reversed = Context { headers: 20, ..context };
        assert_eq!(apply(&cut, Some(reversed), 600), Some("a context with offsets out of order"));
        assert_eq!(apply(&cut, Some(context), 600), Some("PAYLEN is not the payload's length"));
    }
}
