//! Advanced descriptors, which igb's and ixgbe's devices have in common, and how they spread flows over queues. Pure. Floor 3.
//!
//! Sections are those of the Intel 82599 10 GbE Controller datasheet; the 82576's and the I350's have the same under 7.1 and 7.2.

pub mod queues;
pub mod rss;

use super::ring::plan::{Plan, Unable};
use super::ring::{Format, ReceivedBits, Words};
use crate::ethernet::Tag;
use crate::offload::headers::{ETHERNET_HEADER, Network, Transport};
use bitfield_struct::bitfield;

/// Words 2 of an advanced transmit data descriptor, 82599 datasheet 7.2.3.2.4.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DataCommand {
    /// DTALEN: bytes in the buffer.
    pub length: u16,
    #[bits(4)]
    _r16: u8,
    /// DTYP: 3.
    #[bits(4)]
    pub kind: u8,
    /// EOP: the packet ends here.
    pub end: bool,
    /// IFCS: append the frame check sequence.
    pub insert_crc: bool,
    _r26: bool,
    /// RS: set DD in word 3 when done.
    pub report: bool,
    _r28: bool,
    /// DEXT: not a legacy descriptor.
    pub extended: bool,
    /// VLE: insert the context's tag.
    pub tag: bool,
    /// TSE: segment as the context says.
    pub segment: bool,
}

/// Word 3 of an advanced transmit data descriptor, 82599 datasheet 7.2.3.2.4.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct DataOptions {
    /// DD: written by the device when done.
    pub done: bool,
    #[bits(3)]
    _r1: u8,
    /// IDX: which of the queue's two contexts.
    #[bits(3)]
    pub context: u8,
    _r7: bool,
    /// IXSM: complete the IPv4 header checksum.
    pub ip_checksum: bool,
    /// TXSM: complete the TCP or UDP checksum.
    pub transport_checksum: bool,
    #[bits(4)]
    _r10: u8,
    /// PAYLEN: bytes of the packet, or where it is segmented, of its payload.
    #[bits(18)]
    pub payload: u32,
}

/// An advanced context descriptor, 82599 datasheet 7.2.3.2.3: word 0.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ContextLengths {
    /// IPLEN: bytes of the IP header.
    #[bits(9)]
    pub network: u16,
    /// MACLEN: bytes before it.
    #[bits(7)]
    pub link: u8,
    /// The 802.1Q tag to insert.
    pub tag: u16,
}

/// Word 2 of an advanced context descriptor, 82599 datasheet 7.2.3.2.3.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ContextCommand {
    #[bits(10)]
    _r0: u16,
    /// TUCMD: the network is IPv4, not IPv6.
    pub ipv4: bool,
    /// TUCMD: the transport is TCP, not UDP.
    pub tcp: bool,
    #[bits(8)]
    _r12: u8,
    /// DTYP: 2.
    #[bits(4)]
    pub kind: u8,
    #[bits(5)]
    _r24: u8,
    /// DEXT: not a legacy descriptor.
    pub extended: bool,
    #[bits(2)]
    _r30: u8,
}

/// Word 3 of an advanced context descriptor, 82599 datasheet 7.2.3.2.3.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ContextSegment {
    #[bits(8)]
    _r0: u8,
    /// L4LEN: bytes of the TCP or UDP header.
    pub transport: u8,
    /// MSS: payload bytes of a segment.
    pub size: u16,
}

/// Word 2 of an advanced receive descriptor after write-back, but for the errors, in which the families differ: 82599 datasheet 7.1.6.2.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct ReceiveStatus {
    /// DD: written by the device.
    pub done: bool,
    /// EOP: the frame ends here.
    pub end: bool,
    _r2: bool,
    /// VP: a tag was taken out.
    pub tag_stripped: bool,
    /// UDPCS: the UDP checksum was verified.
    pub udp_checked: bool,
    /// L4I: the TCP or UDP checksum was verified.
    pub transport_checked: bool,
    /// IPCS: the IPv4 header checksum was verified.
    pub ip_checked: bool,
    #[bits(25)]
    _r7: u32,
}

/// The context descriptor of offloads, see [`Format::context`].
fn context(plan: Option<&Plan>, tag: Option<Tag>) -> Result<Option<Words>, Unable> {
    let lengths = ContextLengths::new().with_tag(tag.map_or(0, Tag::control));
    let kind = ContextCommand::new().with_kind(2).with_extended(true);
    let Some(plan) = plan else {
        let tag_alone = [lengths.with_link(ETHERNET_HEADER as u8).into(), 0, kind.into(), 0];
        return Ok(tag.map(|_| tag_alone));
    };
    of_headers(plan, lengths, kind).map(Some).ok_or(Unable)
}

/// `None` where a header is longer than its field can say.
fn of_headers(plan: &Plan, lengths: ContextLengths, kind: ContextCommand) -> Option<Words> {
    let layout = &plan.layout;
    let link = u8::try_from(layout.network_offset).ok().filter(|bytes| *bytes < 1 << 7)?;
    let network = Some(plan.network_length()).filter(|bytes| *bytes < 1 << 9)?;
    let transport = u8::try_from(plan.transport_length()).ok()?;
    let command = kind.with_ipv4(layout.network == Network::V4).with_tcp(layout.transport == Transport::Tcp);
    let segment = match plan.segment {
        Some(size) => ContextSegment::new().with_transport(transport).with_size(size),
        // The device has no use for them, and packets of one kind share a context.
        None => ContextSegment::new(),
    };
    Some([lengths.with_network(network).with_link(link).into(), 0, command.into(), segment.into()])
}

/// Words 2 and 3 of the data descriptors of a packet.
fn data(plan: Option<&Plan>, tag: Option<Tag>, length: usize) -> [u32; 2] {
    let command = DataCommand::new().with_kind(3).with_extended(true).with_insert_crc(true).with_tag(tag.is_some());
    let segment = plan.is_some_and(|plan| plan.segment.is_some());
    let payload = match plan {
        Some(plan) if segment => plan.payload,
        // At most a packet's pages.
        _ => length as u32,
    };
    let options = DataOptions::new()
        .with_transport_checksum(plan.is_some())
        .with_ip_checksum(plan.is_some_and(|plan| segment && plan.layout.network == Network::V4))
        .with_payload(payload & 0x3_FFFF);
    [command.with_segment(segment).into(), options.into()]
}

/// The descriptors of the 82599 and its successors.
pub struct Ixgbe;

impl Format for Ixgbe {
    const RECEIVED: ReceivedBits = ReceivedBits {
        // CE, LE, PE, OSE and USE (82599 datasheet 7.1.6.2: RXE is their sum, where bad frames are passed on at all).
        damaged: 0x3B00_0000,
        unchecked: 0,
        // UDPCS also speaks of fragments.
        checked: ReceiveStatus::new().with_transport_checked(true).into_bits(),
        // L4E and IPE.
        wrong: 0xC000_0000,
    };

    fn context(plan: Option<&Plan>, tag: Option<Tag>) -> Result<Option<Words>, Unable> {
        context(plan, tag)
    }

    fn data(plan: Option<&Plan>, tag: Option<Tag>, length: usize) -> [u32; 2] {
        data(plan, tag, length)
    }
}

/// The descriptors of the 82576 and its successors.
pub struct Igb;

impl Format for Igb {
    const RECEIVED: ReceivedBits = ReceivedBits {
        // CE, SE, SEQ, CXE and RXE (82576 datasheet 7.1.5.2).
        damaged: 0x9700_0000,
        unchecked: 0,
        checked: ReceiveStatus::new().with_transport_checked(true).with_udp_checked(true).into_bits(),
        // L4E and IPE.
        wrong: 0x6000_0000,
    };

    fn context(plan: Option<&Plan>, tag: Option<Tag>) -> Result<Option<Words>, Unable> {
        context(plan, tag)
    }

    fn data(plan: Option<&Plan>, tag: Option<Tag>, length: usize) -> [u32; 2] {
        data(plan, tag, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::headers::Layout;

    #[test]
    fn fields_lie_where_intel_says() {
        let table: &[(u32, u32)] = &[
            (DataCommand::new().with_length(0xFFFF).into(), 0x0000_FFFF),
            (DataCommand::new().with_kind(3).into(), 0x0030_0000),
            (DataCommand::new().with_end(true).into(), super::super::ring::END),
            (DataCommand::new().with_insert_crc(true).into(), 0x0200_0000),
            (DataCommand::new().with_report(true).into(), super::super::ring::REPORT),
            (DataCommand::new().with_extended(true).into(), 0x2000_0000),
            (DataCommand::new().with_tag(true).into(), 0x4000_0000),
            (DataCommand::new().with_segment(true).into(), 0x8000_0000),
            (DataOptions::new().with_done(true).into(), super::super::ring::DONE),
            (DataOptions::new().with_context(1).into(), 0x0000_0010),
            (DataOptions::new().with_ip_checksum(true).into(), 0x0000_0100),
            (DataOptions::new().with_transport_checksum(true).into(), 0x0000_0200),
            (DataOptions::new().with_payload(1).into(), 0x0000_4000),
            (ContextCommand::new().with_ipv4(true).into(), 0x0000_0400),
            (ContextCommand::new().with_tcp(true).into(), 0x0000_0800),
            (ContextCommand::new().with_kind(2).with_extended(true).into(), 0x2020_0000),
            (ContextSegment::new().with_transport(20).with_size(1448).into(), 0x05A8_1400),
            (ReceiveStatus::new().with_udp_checked(true).into(), 0x0000_0010),
            (ReceiveStatus::new().with_transport_checked(true).into(), 0x0000_0020),
            (ReceiveStatus::new().with_ip_checked(true).into(), 0x0000_0040),
        ];
        for (row, (here, there)) in table.iter().enumerate() {
            assert_eq!(here, there, "row {row}");
        }
    }

    #[test]
    fn a_packet_is_described_with_its_offload() {
        let layout = Layout {
            network: Network::V4,
            transport: Transport::Tcp,
            network_offset: 18,
            transport_offset: 38,
            payload_offset: 70,
        };
        let plan = Plan { layout, segment: Some(1448), payload: 20_000 };
        let tag = Tag::new(0x2005);
        assert_eq!(context(Some(&plan), None), Ok(Some([18 << 9 | 20, 0, 0x2020_0C00, 1448 << 16 | 32 << 8])));
        assert_eq!(
            context(Some(&plan), tag),
            Ok(Some([0x2005_0000 | 18 << 9 | 20, 0, 0x2020_0C00, 1448 << 16 | 32 << 8]))
        );
        assert_eq!(data(Some(&plan), None, 20_070), [0xA230_0000, 20_000 << 14 | 0x300]);
        assert_eq!(data(Some(&plan), tag, 20_070), [0xE230_0000, 20_000 << 14 | 0x300]);
        let plan = Plan { segment: None, ..plan };
        assert_eq!(context(Some(&plan), None), Ok(Some([18 << 9 | 20, 0, 0x2020_0C00, 0])));
        assert_eq!(data(Some(&plan), None, 1070), [0x2230_0000, 1070 << 14 | 0x200]);
        assert_eq!((context(None, None), data(None, None, 60)), (Ok(None), [0x2230_0000, 60 << 14]));
        let tagged = Ok(Some([0x2005_0000 | 14 << 9, 0, 0x2020_0000, 0]));
        assert_eq!((context(None, tag), data(None, tag, 60)), (tagged, [0x6230_0000, 60 << 14]));
        let far = Layout { network_offset: 128, transport_offset: 148, payload_offset: 168, ..layout };
        assert_eq!(context(Some(&Plan { layout: far, ..plan }), None), Err(Unable), "MACLEN has 7 bits");
    }
}
