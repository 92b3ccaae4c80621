//! The descriptors of the family: what is written for the device, and what it wrote. Pure. Floor 3.

use crate::ethernet::Tag;
use crate::nic::ring::plan::{Plan, Unable};
use crate::nic::ring::{Format, ReceivedBits, Words};
use crate::offload::headers::{Network, Transport};
use bitfield_struct::bitfield;

/// Extended descriptors, 82574 datasheet 7.1.4 and 7.2.6 to 7.2.9.
pub struct Extended;

/// Where the checksum lies in an IPv4 header (RFC 791).
const IPV4_CHECKSUM: u16 = 10;

impl Format for Extended {
    const RECEIVED: ReceivedBits = ReceivedBits {
        damaged: ReceiveStatus::new()
            .with_crc_error(true)
            .with_symbol_error(true)
            .with_sequence_error(true)
            .with_extension_error(true)
            .with_data_error(true)
            .into_bits(),
        unchecked: ReceiveStatus::new().with_ignore_checksum(true).into_bits(),
        checked: ReceiveStatus::new().with_transport_checked(true).with_udp_checked(true).into_bits(),
        wrong: ReceiveStatus::new().with_transport_error(true).with_ip_error(true).into_bits(),
    };

    fn context(plan: Option<&Plan>, _tag: Option<Tag>) -> Result<Option<Words>, Unable> {
        let Some(plan) = plan else {
            return Ok(None);
        };
        let layout = &plan.layout;
        let byte = |offset: u16| u8::try_from(offset).map_err(|_| Unable);
        let v4 = layout.network == Network::V4;
        let command = ContextCommand::new().with_tcp(layout.transport == Transport::Tcp).with_ipv4(v4);
        let mut context = Context {
            ip_start: byte(layout.network_offset)?,
            ip_checksum: byte(layout.network_offset.saturating_add(IPV4_CHECKSUM))?,
            ip_end: if v4 { layout.transport_offset - 1 } else { 0 },
            transport_start: byte(layout.transport_offset)?,
            transport_checksum: byte(layout.checksum_offset())?,
            command,
            ..Context::default()
        };
        if let Some(size) = plan.segment {
            context.headers = byte(layout.payload_offset)?;
            context.segment_size = size;
            context.command = command.with_segment(true).with_payload(plan.payload);
        }
        Ok(Some(context.words()))
    }

    fn data(plan: Option<&Plan>, tag: Option<Tag>, _length: usize) -> [u32; 2] {
        let command = DataCommand::new().with_kind(1).with_extended(true).with_insert_crc(true).with_tag(tag.is_some());
        let options = DataOptions::new().with_tag(tag.map_or(0, Tag::control));
        let Some(plan) = plan else {
            return [command.into(), options.into()];
        };
        let segment = plan.segment.is_some();
        let ip_checksum = segment && plan.layout.network == Network::V4;
        let options = options.with_transport_checksum(true).with_ip_checksum(ip_checksum);
        [command.with_segment(segment).into(), options.into()]
    }
}

/// Word 2 of an extended transmit data descriptor, 82574 datasheet 7.2.9.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DataCommand {
    /// Bytes in the buffer.
    #[bits(20)]
    pub length: u32,
    /// DTYP: 1.
    #[bits(4)]
    pub kind: u8,
    /// EOP: the packet ends here.
    pub end: bool,
    /// IFCS: append the frame check sequence.
    pub insert_crc: bool,
    /// TSE: segment as the context says.
    pub segment: bool,
    /// RS: set DD in word 3 when done.
    pub report: bool,
    _r28: bool,
    /// DEXT: not a legacy descriptor.
    pub extended: bool,
    /// VLE: insert the tag of word 3, where `CTRL.VME` is set (82574 datasheet 7.5.2.1).
    pub tag: bool,
    /// IDE: delay the interrupt.
    pub delay: bool,
}

/// Word 3 of an extended transmit data descriptor, 82574 datasheet 7.2.9.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DataOptions {
    /// DD: written by the device when done.
    pub done: bool,
    #[bits(7)]
    _r1: u8,
    /// IXSM: complete the IPv4 header checksum.
    pub ip_checksum: bool,
    /// TXSM: complete the TCP or UDP checksum.
    pub transport_checksum: bool,
    #[bits(6)]
    _r10: u8,
    /// VLAN: the 802.1Q tag to insert.
    pub tag: u16,
}

/// Word 2 of a context descriptor, 82574 datasheet 7.2.8.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ContextCommand {
    /// PAYLEN: bytes of payload to be cut.
    #[bits(20)]
    pub payload: u32,
    /// DTYP: 0.
    #[bits(4)]
    pub kind: u8,
    /// The transport is TCP, not UDP.
    pub tcp: bool,
    /// The network is IPv4, not IPv6.
    pub ipv4: bool,
    /// TSE: for segmentation.
    pub segment: bool,
    pub report: bool,
    _r28: bool,
    /// DEXT: not a legacy descriptor.
    pub extended: bool,
    #[bits(2)]
    _r30: u8,
}

/// What a context descriptor says, 82574 datasheet 7.2.8: where the checksums lie, and how to segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// IPCSS: where the IP header starts.
    pub ip_start: u8,
    /// IPCSO: where its checksum lies.
    pub ip_checksum: u8,
    /// IPCSE: its last byte.
    pub ip_end: u16,
    /// TUCSS: where the TCP or UDP header starts.
    pub transport_start: u8,
    /// TUCSO: where its checksum lies.
    pub transport_checksum: u8,
    /// Lengths, kind and flags.
    pub command: ContextCommand,
    /// HDRLEN: bytes of all headers.
    pub headers: u8,
    /// MSS: payload bytes of a segment.
    pub segment_size: u16,
}

impl Context {
    /// As it lies in memory. TUCSE is 0: the checksum covers the rest of the packet.
    pub fn words(&self) -> Words {
        [
            u32::from(self.ip_start) | u32::from(self.ip_checksum) << 8 | u32::from(self.ip_end) << 16,
            u32::from(self.transport_start) | u32::from(self.transport_checksum) << 8,
            self.command.with_extended(true).into(),
            u32::from(self.headers) << 8 | u32::from(self.segment_size) << 16,
        ]
    }
}

/// Word 2 of an extended receive descriptor after write-back, 82574 datasheet 7.1.4.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReceiveStatus {
    /// DD: written by the device.
    pub done: bool,
    /// EOP: the frame ends here.
    pub end: bool,
    /// IXSM: the checksum bits mean nothing.
    pub ignore_checksum: bool,
    /// VP: a tag was taken out.
    pub tag_stripped: bool,
    /// UDPCS: the UDP checksum was verified.
    pub udp_checked: bool,
    /// TCPCS: the TCP or UDP checksum was verified.
    pub transport_checked: bool,
    /// IPCS: the IPv4 header checksum was verified.
    pub ip_checked: bool,
    #[bits(17)]
    _r7: u32,
    /// CE: the frame check sequence is wrong.
    pub crc_error: bool,
    /// SE: a symbol error.
    pub symbol_error: bool,
    /// SEQ: a sequence error.
    pub sequence_error: bool,
    _r27: bool,
    /// CXE: a carrier extension error.
    pub extension_error: bool,
    /// TCPE: the TCP or UDP checksum is wrong.
    pub transport_error: bool,
    /// IPE: the IPv4 header checksum is wrong.
    pub ip_error: bool,
    /// RXE: the data are wrong.
    pub data_error: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_intel_says() {
        let table: &[(u32, u32)] = &[
            (DataCommand::new().with_kind(1).into(), 0x0010_0000),
            (DataCommand::new().with_end(true).into(), 0x0100_0000),
            (DataCommand::new().with_insert_crc(true).into(), 0x0200_0000),
            (DataCommand::new().with_segment(true).into(), 0x0400_0000),
            (DataCommand::new().with_report(true).into(), 0x0800_0000),
            (DataCommand::new().with_extended(true).into(), 0x2000_0000),
            (DataCommand::new().with_tag(true).into(), 0x4000_0000),
            (DataCommand::new().with_delay(true).into(), 0x8000_0000),
            (DataOptions::new().with_ip_checksum(true).into(), 0x0000_0100),
            (DataOptions::new().with_transport_checksum(true).into(), 0x0000_0200),
            (DataOptions::new().with_tag(1).into(), 0x0001_0000),
            (ContextCommand::new().with_tcp(true).into(), 0x0100_0000),
            (ContextCommand::new().with_ipv4(true).into(), 0x0200_0000),
            (ContextCommand::new().with_segment(true).into(), 0x0400_0000),
            (ReceiveStatus::new().with_end(true).into(), 0x0000_0002),
            (ReceiveStatus::new().with_ignore_checksum(true).into(), 0x0000_0004),
            (ReceiveStatus::new().with_tag_stripped(true).into(), 0x0000_0008),
            (ReceiveStatus::new().with_udp_checked(true).into(), 0x0000_0010),
            (ReceiveStatus::new().with_transport_checked(true).into(), 0x0000_0020),
            (ReceiveStatus::new().with_ip_checked(true).into(), 0x0000_0040),
            (ReceiveStatus::new().with_crc_error(true).into(), 0x0100_0000),
            (ReceiveStatus::new().with_extension_error(true).into(), 0x1000_0000),
            (ReceiveStatus::new().with_transport_error(true).into(), 0x2000_0000),
            (ReceiveStatus::new().with_ip_error(true).into(), 0x4000_0000),
            (ReceiveStatus::new().with_data_error(true).into(), 0x8000_0000),
        ];
        for (row, (ours, theirs)) in table.iter().enumerate() {
            assert_eq!(ours, theirs, "row {row}");
        }
    }

    #[test]
    fn a_context_lies_in_memory_as_documented() {
        let context = Context {
            ip_start: 14,
            ip_checksum: 24,
            ip_end: 33,
            transport_start: 34,
            transport_checksum: 50,
            command: ContextCommand::new().with_payload(0x1_2345).with_tcp(true).with_ipv4(true).with_segment(true),
            headers: 54,
            segment_size: 1448,
        };
        assert_eq!(context.words(), [0x0021_180E, 0x0000_3222, 0x2701_2345, 0x05A8_3600]);
    }
}
