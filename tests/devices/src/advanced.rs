//! Advanced descriptors of Intel's NICs from the 82575 on: 82599 datasheet 7.1.6 and 7.2.3.2; 82576 datasheet 7.1.5 and 7.2.2. Pure.
//!
//! A descriptor is 16 bytes, little-endian; here four words of 32 bits.

use crate::bus::Transfer;
use crate::offload;
use crate::packet::{self, Headers, Network};
use crate::transmit::Format;

/// Bytes of a descriptor.
pub const BYTES: usize = 16;

/// The four words of a descriptor; zeroes where bytes are missing.
pub fn words(bytes: &[u8]) -> [u32; 4] {
    let mut chunks = bytes.as_chunks::<4>().0.iter();
    std::array::from_fn(|_| chunks.next().copied().map_or(0, u32::from_le_bytes))
}

/// The bytes of four words.
pub fn bytes(words: [u32; 4]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Layer 4 of a context descriptor, L4T.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// 00b.
    Udp,
    /// 01b.
    Tcp,
    /// 10b.
    Sctp,
    /// 11b.
    Reserved,
}

/// A context descriptor: where the headers of packets lie. 82599 datasheet 7.2.3.2.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// Bytes of the IP header.
    pub ip_length: usize,
    /// Bytes of the MAC header.
    pub mac_length: usize,
    /// The tag that DCMD.VLE inserts.
    pub vlan: u16,
    /// IPv4; otherwise IPv6.
    pub ipv4: bool,
    /// Layer 4.
    pub transport: Transport,
    /// Which of the queue's two contexts it fills.
    pub index: usize,
    /// Bytes of the layer 4 header, for segmentation.
    pub transport_length: usize,
    /// Payload of a segment.
    pub segment_size: usize,
}

/// A data descriptor. 82599 datasheet 7.2.3.2.4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Data {
    /// Where the buffer lies.
    pub address: u64,
    /// DTALEN: bytes of the buffer.
    pub length: usize,
    /// DCMD.EOP: the packet ends here.
    pub end: bool,
    /// DCMD.IFCS: the device adds the frame check sequence.
    pub frame_check: bool,
    /// DCMD.RS: report when done.
    pub report: bool,
    /// DCMD.VLE: insert the context's tag.
    pub insert_vlan: bool,
    /// DCMD.TSE: segment.
    pub segment: bool,
    /// STA.DD was set when the descriptor was posted.
    pub done: bool,
    /// IDX: which context.
    pub context: usize,
    /// POPTS.IXSM: the IPv4 header's checksum.
    pub ip_checksum: bool,
    /// POPTS.TXSM: the layer 4 checksum.
    pub transport_checksum: bool,
    /// PAYLEN: bytes of the packet, or where it is segmented, of its payload.
    pub payload: usize,
    /// The tag that DCMD.VLE inserts, on a device that has it here and not in the context.
    pub vlan: u16,
}

/// A transmit descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transmit<C = Context> {
    /// DTYP 0010b.
    Context(C),
    /// DTYP 0011b.
    Data(Data),
    /// DCMD.DEXT is clear.
    Legacy,
    /// A DTYP that is reserved.
    Unknown(u8),
}

const CONTEXT: u32 = 2;
const DATA: u32 = 3;

impl Transmit {
    /// Reads four words.
    pub fn parse([low, high, command, options]: [u32; 4]) -> Self {
        let bit = |word: u32, bit: u32| word >> bit & 1 != 0;
        if !bit(command, 29) {
            return Self::Legacy;
        }
        match command >> 20 & 0xF {
            CONTEXT => Self::Context(Context {
                ip_length: low as usize & 0x1FF,
                mac_length: low as usize >> 9 & 0x7F,
                vlan: (low >> 16) as u16,
                ipv4: bit(command, 10),
                transport: match command >> 11 & 3 {
                    0 => Transport::Udp,
                    1 => Transport::Tcp,
                    2 => Transport::Sctp,
                    _ => Transport::Reserved,
                },
                index: options as usize >> 4 & 7,
                transport_length: options as usize >> 8 & 0xFF,
                segment_size: options as usize >> 16,
            }),
            DATA => Self::Data(Data {
                address: u64::from(low) | u64::from(high) << 32,
                length: command as usize & 0xFFFF,
                end: bit(command, 24),
                frame_check: bit(command, 25),
                report: bit(command, 27),
                insert_vlan: bit(command, 30),
                segment: bit(command, 31),
                done: bit(options, 0),
                context: options as usize >> 4 & 7,
                ip_checksum: bit(options, 8),
                transport_checksum: bit(options, 9),
                payload: options as usize >> 14,
                vlan: 0,
            }),
            other => Self::Unknown(other as u8),
        }
    }
}

/// The write-back over a transmit descriptor that asked for a report: STA.DD, the rest reserved.
pub const TRANSMITTED: [u32; 4] = [0, 0, 0, 1];

/// Transmit descriptors of this format.
#[derive(Debug)]
pub struct Advanced;

impl Format for Advanced {
    type Context = Context;
    const HEAD_WRITE_BACK: bool = true;

    fn parse(words: [u32; 4]) -> Transmit {
        Transmit::parse(words)
    }

    fn place(context: &Context) -> usize {
        context.index
    }

    fn report(address: u64) -> Transfer {
        Transfer::write(address, bytes(TRANSMITTED))
    }

    fn apply(
        packet: Vec<u8>,
        first: &Data,
        context: Option<&Context>,
        vlan: Option<u16>,
    ) -> Result<Vec<Vec<u8>>, &'static str> {
        offload::apply(packet, first, context, vlan)
    }
}

/// Extended status and error of a received frame, the third word of the write-back. 82599 datasheet 7.1.6.2.
pub mod status {
    /// Descriptor done.
    pub const DD: u32 = 1 << 0;
    /// The frame ends here.
    pub const EOP: u32 = 1 << 1;
    /// The tag of a VLAN was stripped, or would have been.
    pub const VP: u32 = 1 << 3;
    /// The UDP checksum was computed.
    pub const UDPCS: u32 = 1 << 4;
    /// The layer 4 checksum was verified.
    pub const L4CS: u32 = 1 << 5;
    /// The IPv4 header's checksum was verified.
    pub const IPCS: u32 = 1 << 6;
    /// The address matched by hash only (PIF).
    pub const PIF: u32 = 1 << 7;
}

/// Bits of errors of the third word, which differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errors {
    /// L4E: the layer 4 checksum is wrong.
    pub transport: u32,
    /// IPE: the IPv4 header's checksum is wrong.
    pub network: u32,
}

impl Errors {
    /// 82599 datasheet 7.1.6.2.
    pub const I82599: Self = Self { transport: 1 << 30, network: 1 << 31 };
    /// 82576 datasheet 7.1.5.2.
    pub const I82576: Self = Self { transport: 1 << 29, network: 1 << 30 };
}

/// Which checksums are verified, RXCSUM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verify {
    /// Of IPv4 headers.
    pub network: bool,
    /// Of TCP and UDP.
    pub transport: bool,
}

/// Packet types, bits of a descriptor's 13: 82599 datasheet 7.1.6.2.
mod packet_type {
    pub(super) const IPV4: u32 = 1 << 0;
    pub(super) const IPV4_OPTIONS: u32 = 1 << 1;
    pub(super) const IPV6: u32 = 1 << 2;
    pub(super) const IPV6_EXTENSIONS: u32 = 1 << 3;
    pub(super) const TCP: u32 = 1 << 4;
    pub(super) const UDP: u32 = 1 << 5;
    pub(super) const SCTP: u32 = 1 << 6;
}

/// The device's description of a received frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// RSS type, 4 bits.
    pub hash_type: u32,
    /// Packet type, 13 bits.
    pub packet_type: u32,
    /// The hash, where there is a type.
    pub hash: u32,
    /// Bits of [`status`], apart from DD and EOP.
    pub status: u32,
    /// The stripped tag.
    pub vlan: u16,
}

impl Received {
    /// The description of a frame with these headers, without hash and VLAN.
    pub fn describe(headers: &Headers, verify: Verify, errors: Errors) -> Self {
        let mut about = Self::default();
        match headers.network {
            Some(Network::V4 { options, valid }) => {
                about.packet_type |= if options { packet_type::IPV4_OPTIONS } else { packet_type::IPV4 };
                if verify.network {
                    about.status |= status::IPCS | if valid { 0 } else { errors.network };
                }
            }
            Some(Network::V6 { extensions }) => {
                about.packet_type |= if extensions { packet_type::IPV6_EXTENSIONS } else { packet_type::IPV6 };
            }
            None => {}
        }
        let verified = |valid: bool| status::L4CS | if valid { 0 } else { errors.transport };
        let checked = match headers.transport {
            Some(packet::Transport::Tcp(valid)) => {
                about.packet_type |= packet_type::TCP;
                verified(valid)
            }
            Some(packet::Transport::Udp(valid)) => {
                about.packet_type |= packet_type::UDP;
                valid.map_or(0, |valid| verified(valid) | status::UDPCS)
            }
            Some(packet::Transport::Sctp) => {
                about.packet_type |= packet_type::SCTP;
                0
            }
            None => 0,
        };
        if verify.transport {
            about.status |= checked;
        }
        about
    }

    /// The write-back for a piece of `length` bytes. The status of the whole frame stands in its last piece; types and hash in each.
    pub fn write_back(&self, length: u16, last: bool) -> [u32; 4] {
        let status = status::DD | if last { self.status | status::EOP } else { 0 };
        let vlan = if last { self.vlan } else { 0 };
        let kind = self.hash_type & 0xF | (self.packet_type & 0x1FFF) << 4;
        [kind, self.hash, status, u32::from(length) | u32::from(vlan) << 16]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_descriptor() {
        let parsed = Transmit::parse([
            0x0123_0000 | 14 << 9 | 20,
            0,
            0x2020_0000 | 1 << 10 | 1 << 11,
            1448 << 16 | 32 << 8 | 1 << 4,
        ]);
        let expected = Context {
            ip_length: 20,
            mac_length: 14,
            vlan: 0x123,
            ipv4: true,
            transport: Transport::Tcp,
            index: 1,
            transport_length: 32,
            segment_size: 1448,
        };
        assert_eq!(parsed, Transmit::Context(expected));
    }

    #[test]
    fn a_data_descriptor() {
        let parsed = Transmit::parse([0x1000, 2, 0x2B30_05DC, 1500 << 14 | 3 << 8 | 1 << 4]);
        let expected = Data {
            address: 0x2_0000_1000,
            length: 1500,
            end: true,
            frame_check: true,
            report: true,
            context: 1,
            ip_checksum: true,
            transport_checksum: true,
            payload: 1500,
            ..Data::default()
        };
        assert_eq!(parsed, Transmit::Data(expected));
        assert_eq!(Transmit::parse([0, 0, 0x0B00_0040, 0]), Transmit::Legacy);
        assert_eq!(Transmit::parse([0, 0, 0x2050_0000, 0]), Transmit::Unknown(5));
    }

    #[test]
    fn a_write_back() {
        let received =
            Received { hash_type: 1, packet_type: 0x11, hash: 0xAABB_CCDD, status: status::IPCS | status::VP, vlan: 7 };
        assert_eq!(received.write_back(2048, false), [0x111, 0xAABB_CCDD, 1, 2048]);
        assert_eq!(received.write_back(60, true), [0x111, 0xAABB_CCDD, 0x4B, 60 | 7 << 16]);
        assert_eq!(words(&bytes([1, 2, 3, 4])), [1, 2, 3, 4]);
        assert_eq!(words(&[1, 0, 0]), [0; 4]);
    }
}
