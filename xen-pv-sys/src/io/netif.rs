//! `io/netif.h`: the network rings. Floor 0: no behaviour.

use crate::GrantRef;
use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Slots of one packet that every backend takes (`XEN_NETIF_NR_SLOTS_MIN`); more may be dropped.
pub const XEN_NETIF_NR_SLOTS_MIN: usize = 18;
/// Bytes of a packet, at most (`XEN_NETIF_MAX_TX_SIZE`).
pub const XEN_NETIF_MAX_TX_SIZE: usize = 0xffff;

/// No extra info (`XEN_NETIF_EXTRA_TYPE_NONE`).
pub const XEN_NETIF_EXTRA_TYPE_NONE: u8 = 0;
/// [`ExtraInfo::gso`] (`XEN_NETIF_EXTRA_TYPE_GSO`).
pub const XEN_NETIF_EXTRA_TYPE_GSO: u8 = 1;
/// A multicast group to receive (`XEN_NETIF_EXTRA_TYPE_MCAST_ADD`).
pub const XEN_NETIF_EXTRA_TYPE_MCAST_ADD: u8 = 2;
/// One to receive no more (`XEN_NETIF_EXTRA_TYPE_MCAST_DEL`).
pub const XEN_NETIF_EXTRA_TYPE_MCAST_DEL: u8 = 3;
/// The packet's hash (`XEN_NETIF_EXTRA_TYPE_HASH`).
pub const XEN_NETIF_EXTRA_TYPE_HASH: u8 = 4;
/// The first number that is none of these (`XEN_NETIF_EXTRA_TYPE_MAX`).
pub const XEN_NETIF_EXTRA_TYPE_MAX: u8 = 5;

/// How far into its page a packet for the guest begins (`XEN_NETIF_EXTRA_TYPE_XDP`). Linux' copy of the header has it, Xen's does not: only
/// a frontend that asked for headroom is sent it.
pub const XEN_NETIF_EXTRA_TYPE_XDP: u8 = 5;
/// Bytes of headroom that a frontend may ask for (`XEN_NETIF_MAX_XDP_HEADROOM` of Linux' copy of the header).
pub const XEN_NETIF_MAX_XDP_HEADROOM: u16 = 0x7fff;

/// [`ExtraInfo::flags`]: another follows (`XEN_NETIF_EXTRA_FLAG_MORE`).
pub const XEN_NETIF_EXTRA_FLAG_MORE: u8 = 1;

/// `XEN_NETIF_GSO_TYPE_NONE`.
pub const XEN_NETIF_GSO_TYPE_NONE: u8 = 0;
/// `XEN_NETIF_GSO_TYPE_TCPV4`.
pub const XEN_NETIF_GSO_TYPE_TCPV4: u8 = 1;
/// `XEN_NETIF_GSO_TYPE_TCPV6`.
pub const XEN_NETIF_GSO_TYPE_TCPV6: u8 = 2;

/// Dropped (`NETIF_RSP_DROPPED`).
pub const NETIF_RSP_DROPPED: i16 = -2;
/// Refused (`NETIF_RSP_ERROR`).
pub const NETIF_RSP_ERROR: i16 = -1;
/// Sent (`NETIF_RSP_OKAY`).
pub const NETIF_RSP_OKAY: i16 = 0;
/// The response to a slot that held an extra info (`NETIF_RSP_NULL`).
pub const NETIF_RSP_NULL: i16 = 1;

/// [`TxRequest::flags`] (`NETTXF_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct TxFlags(u16);

bitflags! {
    impl TxFlags: u16 {
        /// The checksum field holds the pseudo header's sum only (`NETTXF_csum_blank`).
        const CSUM_BLANK = 1 << 0;
        /// The payload was checked (`NETTXF_data_validated`).
        const DATA_VALIDATED = 1 << 1;
        /// The packet goes on in the next slot (`NETTXF_more_data`).
        const MORE_DATA = 1 << 2;
        /// Extra infos follow (`NETTXF_extra_info`).
        const EXTRA_INFO = 1 << 3;
    }
}

/// [`RxResponse::flags`] (`NETRXF_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct RxFlags(u16);

bitflags! {
    impl RxFlags: u16 {
        /// The payload was checked (`NETRXF_data_validated`).
        const DATA_VALIDATED = 1 << 0;
        /// The checksum field holds the pseudo header's sum only (`NETRXF_csum_blank`).
        const CSUM_BLANK = 1 << 1;
        /// The packet goes on in the next slot (`NETRXF_more_data`).
        const MORE_DATA = 1 << 2;
        /// Extra infos follow (`NETRXF_extra_info`).
        const EXTRA_INFO = 1 << 3;
        /// Of old frontends; not used (`NETRXF_gso_prefix`).
        const GSO_PREFIX = 1 << 4;
    }
}

/// A slot of the transmit ring, frontend to backend (`struct netif_tx_request`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TxRequest {
    /// The page.
    pub gref: GrantRef,
    /// Bytes into the page.
    pub offset: u16,
    /// Flags.
    pub flags: TxFlags,
    /// Echoed in the response.
    pub id: u16,
    /// In the first slot the packet's bytes, in the others the fragment's.
    pub size: u16,
}

const _: () = assert!(size_of::<TxRequest>() == 12);

/// Backend to frontend (`struct netif_tx_response`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TxResponse {
    /// The request's.
    pub id: u16,
    /// `NETIF_RSP_*`.
    pub status: i16,
}

const _: () = assert!(size_of::<TxResponse>() == 4);

/// A slot of the receive ring, frontend to backend (`struct netif_rx_request`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RxRequest {
    /// Echoed in the response.
    pub id: u16,
    /// Padding.
    pub pad: u16,
    /// The page to fill.
    pub gref: GrantRef,
}

const _: () = assert!(size_of::<RxRequest>() == 8);

/// Backend to frontend (`struct netif_rx_response`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RxResponse {
    /// The request's.
    pub id: u16,
    /// Where in the page the data begins.
    pub offset: u16,
    /// Flags.
    pub flags: RxFlags,
    /// Bytes in the page; `NETIF_RSP_*` where negative.
    pub status: i16,
}

const _: () = assert!(size_of::<RxResponse>() == 8);

/// A slot that holds more about a packet, on either ring (`struct netif_extra_info`). On the transmit ring it is 8 of the slot's 12 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExtraInfo {
    /// `XEN_NETIF_EXTRA_TYPE_*` (`type`).
    pub kind: u8,
    /// [`XEN_NETIF_EXTRA_FLAG_MORE`] or 0.
    pub flags: u8,
    /// The union `u`, by the kind: [`ExtraGso`], a multicast address, [`ExtraHash`].
    pub value: [u8; 6],
}

const _: () = assert!(size_of::<ExtraInfo>() == 8);

impl ExtraInfo {
    /// An extra of segmentation, the last of its packet.
    pub const fn new_gso(size: u16, kind: u8) -> Self {
        let [low, high] = size.to_le_bytes();
        Self { kind: XEN_NETIF_EXTRA_TYPE_GSO, flags: 0, value: [low, high, kind, 0, 0, 0] }
    }

    /// An extra of a hash, the last of its packet.
    pub const fn new_hash(hash: ExtraHash) -> Self {
        let [a, b, c, d] = hash.value;
        Self { kind: XEN_NETIF_EXTRA_TYPE_HASH, flags: 0, value: [hash.kind, hash.algorithm, a, b, c, d] }
    }

    /// An extra of headroom (`u.xdp` of Linux' copy of the header), the last of its packet.
    pub const fn new_xdp(headroom: u16) -> Self {
        let [low, high] = headroom.to_le_bytes();
        Self { kind: XEN_NETIF_EXTRA_TYPE_XDP, flags: 0, value: [low, high, 0, 0, 0, 0] }
    }

    /// The value as `u.hash`.
    pub const fn hash(&self) -> ExtraHash {
        let [kind, algorithm, a, b, c, d] = self.value;
        ExtraHash { kind, algorithm, value: [a, b, c, d] }
    }

    /// The value as `u.xdp.headroom`.
    pub const fn headroom(&self) -> u16 {
        let [low, high, ..] = self.value;
        u16::from_le_bytes([low, high])
    }

    /// The value as `u.gso`.
    pub const fn gso(&self) -> ExtraGso {
        let [s0, s1, kind, pad, f0, f1] = self.value;
        ExtraGso { size: u16::from_le_bytes([s0, s1]), kind, pad, features: u16::from_le_bytes([f0, f1]) }
    }

    /// The value as `u.mcast.addr`.
    pub const fn mcast(&self) -> [u8; 6] {
        self.value
    }
}

/// `netif_extra_info.u.gso`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExtraGso {
    /// Bytes of payload of a segment.
    pub size: u16,
    /// `XEN_NETIF_GSO_TYPE_*` (`type`).
    pub kind: u8,
    /// Padding.
    pub pad: u8,
    /// `XEN_NETIF_GSO_FEAT_*`: none defined.
    pub features: u16,
}

const _: () = assert!(size_of::<ExtraGso>() == 6);

/// `netif_extra_info.u.hash`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ExtraHash {
    /// The header fields hashed: the number of one of [`HashTypes`]' bits, `_XEN_NETIF_CTRL_HASH_TYPE_*` (`type`).
    pub kind: u8,
    /// `XEN_NETIF_CTRL_HASH_ALGORITHM_*`.
    pub algorithm: u8,
    /// The hash, little-endian.
    pub value: [u8; 4],
}

const _: () = assert!(size_of::<ExtraHash>() == 6);

/// The header fields that a hash is over (`XEN_NETIF_CTRL_HASH_TYPE_*`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct HashTypes(u32);

bitflags! {
    impl HashTypes: u32 {
        /// Source and destination of an IPv4 packet: 8 bytes (`XEN_NETIF_CTRL_HASH_TYPE_IPV4`).
        const IPV4 = 1 << 0;
        /// The same, and TCP's source and destination port: 12 bytes (`XEN_NETIF_CTRL_HASH_TYPE_IPV4_TCP`).
        const IPV4_TCP = 1 << 1;
        /// Source and destination of an IPv6 packet: 32 bytes (`XEN_NETIF_CTRL_HASH_TYPE_IPV6`).
        const IPV6 = 1 << 2;
        /// The same, and TCP's source and destination port: 36 bytes (`XEN_NETIF_CTRL_HASH_TYPE_IPV6_TCP`).
        const IPV6_TCP = 1 << 3;
    }
}

/// No hash: the backend chooses the queue (`XEN_NETIF_CTRL_HASH_ALGORITHM_NONE`).
pub const XEN_NETIF_CTRL_HASH_ALGORITHM_NONE: u32 = 0;
/// The Toeplitz hash (`XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ`).
pub const XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ: u32 = 1;

/// `XEN_NETIF_CTRL_TYPE_INVALID`.
pub const XEN_NETIF_CTRL_TYPE_INVALID: u16 = 0;
/// `XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS`.
pub const XEN_NETIF_CTRL_TYPE_GET_HASH_FLAGS: u16 = 1;
/// `XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS`.
pub const XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS: u16 = 2;
/// `XEN_NETIF_CTRL_TYPE_SET_HASH_KEY`.
pub const XEN_NETIF_CTRL_TYPE_SET_HASH_KEY: u16 = 3;
/// `XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE`.
pub const XEN_NETIF_CTRL_TYPE_GET_HASH_MAPPING_SIZE: u16 = 4;
/// `XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE`.
pub const XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE: u16 = 5;
/// `XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING`.
pub const XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING: u16 = 6;
/// `XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM`.
pub const XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM: u16 = 7;
/// `XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE`.
pub const XEN_NETIF_CTRL_TYPE_GET_GREF_MAPPING_SIZE: u16 = 8;
/// `XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING`.
pub const XEN_NETIF_CTRL_TYPE_ADD_GREF_MAPPING: u16 = 9;
/// `XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING`.
pub const XEN_NETIF_CTRL_TYPE_DEL_GREF_MAPPING: u16 = 10;

/// `XEN_NETIF_CTRL_STATUS_SUCCESS`.
pub const XEN_NETIF_CTRL_STATUS_SUCCESS: u32 = 0;
/// `XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED`.
pub const XEN_NETIF_CTRL_STATUS_NOT_SUPPORTED: u32 = 1;
/// `XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER`.
pub const XEN_NETIF_CTRL_STATUS_INVALID_PARAMETER: u32 = 2;
/// `XEN_NETIF_CTRL_STATUS_BUFFER_OVERFLOW`.
pub const XEN_NETIF_CTRL_STATUS_BUFFER_OVERFLOW: u32 = 3;

/// A slot of the control ring, frontend to backend (`struct xen_netif_ctrl_request`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CtrlRequest {
    /// Echoed in the response.
    pub id: u16,
    /// `XEN_NETIF_CTRL_TYPE_*` (`type`).
    pub kind: u16,
    /// By the kind.
    pub data: [u32; 3],
}

const _: () = assert!(size_of::<CtrlRequest>() == 16);

/// Backend to frontend (`struct xen_netif_ctrl_response`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CtrlResponse {
    /// The request's.
    pub id: u16,
    /// The request's (`type`).
    pub kind: u16,
    /// `XEN_NETIF_CTRL_STATUS_*`.
    pub status: u32,
    /// By the kind.
    pub data: u32,
}

const _: () = assert!(size_of::<CtrlResponse>() == 12);
