//! `io/blkif.h` as a 32-bit x86 frontend lays it out (`x86_32-abi`): there, 64-bit numbers are aligned to 4 bytes. Floor 0: no behaviour.

use super::{BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST, BLKIF_MAX_SEGMENTS_PER_REQUEST, RequestSegment};
use crate::GrantRef;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// As [`super::Request`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed(4))]
pub struct Request {
    /// `BLKIF_OP_*`.
    pub operation: u8,
    /// Segments in use.
    pub nr_segments: u8,
    /// The device's number in the frontend.
    pub handle: u16,
    /// Echoed in the response.
    pub id: u64,
    /// The first sector on the disk.
    pub sector_number: u64,
    /// The memory.
    pub seg: [RequestSegment; BLKIF_MAX_SEGMENTS_PER_REQUEST],
}

const _: () = assert!(size_of::<Request>() == 108);

/// As [`super::RequestDiscard`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed(4))]
pub struct RequestDiscard {
    /// `BLKIF_OP_DISCARD`.
    pub operation: u8,
    /// [`super::BLKIF_DISCARD_SECURE`] or 0.
    pub flag: u8,
    /// The device's number in the frontend.
    pub handle: u16,
    /// Echoed in the response.
    pub id: u64,
    /// The first sector on the disk.
    pub sector_number: u64,
    /// How many.
    pub nr_sectors: u64,
}

const _: () = assert!(size_of::<RequestDiscard>() == 28);

/// As [`super::RequestIndirect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed(4))]
pub struct RequestIndirect {
    /// `BLKIF_OP_INDIRECT`.
    pub operation: u8,
    /// `BLKIF_OP_READ` or `BLKIF_OP_WRITE`.
    pub indirect_op: u8,
    /// Segments in the pages.
    pub nr_segments: u16,
    /// Echoed in the response.
    pub id: u64,
    /// The first sector on the disk.
    pub sector_number: u64,
    /// The device's number in the frontend.
    pub handle: u16,
    /// Padding.
    pub padding0: [u8; 2],
    /// Pages with [`RequestSegment`]s, 512 in each.
    pub indirect_grefs: [GrantRef; BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST],
    /// Padding (`pad`): 64 bytes in all.
    pub padding1: u64,
}

const _: () = assert!(size_of::<RequestIndirect>() == 64);

/// As [`super::Response`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed(4))]
pub struct Response {
    /// The request's.
    pub id: u64,
    /// The request's; of an indirect one its `indirect_op`.
    pub operation: u8,
    /// Padding.
    pub padding: u8,
    /// `BLKIF_RSP_*`.
    pub status: i16,
}

const _: () = assert!(size_of::<Response>() == 12);
