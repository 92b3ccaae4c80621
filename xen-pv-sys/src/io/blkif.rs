//! `io/blkif.h`: the block rings, as a 64-bit frontend lays them out. Floor 0: no behaviour.
//!
//! All sectors are of 512 bytes, whatever `sector-size` says. In [`x86_32`] are the layouts of a 32-bit frontend.

use crate::GrantRef;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub mod x86_32;

/// Medium to the segments (`BLKIF_OP_READ`).
pub const BLKIF_OP_READ: u8 = 0;
/// Segments to the medium (`BLKIF_OP_WRITE`).
pub const BLKIF_OP_WRITE: u8 = 1;
/// A write that all earlier ones are complete before, and no later one begins before (`BLKIF_OP_WRITE_BARRIER`).
pub const BLKIF_OP_WRITE_BARRIER: u8 = 2;
/// Makes what was written durable (`BLKIF_OP_FLUSH_DISKCACHE`).
pub const BLKIF_OP_FLUSH_DISKCACHE: u8 = 3;
/// Another's (`BLKIF_OP_RESERVED_1`).
pub const BLKIF_OP_RESERVED_1: u8 = 4;
/// The sectors' contents are of no use any more: a [`RequestDiscard`] (`BLKIF_OP_DISCARD`).
pub const BLKIF_OP_DISCARD: u8 = 5;
/// A read or write whose segments lie in pages of their own: a [`RequestIndirect`] (`BLKIF_OP_INDIRECT`).
pub const BLKIF_OP_INDIRECT: u8 = 6;

/// Segments in a [`Request`], at most (`BLKIF_MAX_SEGMENTS_PER_REQUEST`).
pub const BLKIF_MAX_SEGMENTS_PER_REQUEST: usize = 11;
/// Pages of segments in a [`RequestIndirect`], at most (`BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST`).
pub const BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST: usize = 8;

/// [`RequestDiscard::flag`]: all copies of the sectors must be beyond recovery (`BLKIF_DISCARD_SECURE`).
pub const BLKIF_DISCARD_SECURE: u8 = 1 << 0;

/// The backend does not do that (`BLKIF_RSP_EOPNOTSUPP`).
pub const BLKIF_RSP_EOPNOTSUPP: i16 = -2;
/// It failed (`BLKIF_RSP_ERROR`).
pub const BLKIF_RSP_ERROR: i16 = -1;
/// It is done (`BLKIF_RSP_OKAY`).
pub const BLKIF_RSP_OKAY: i16 = 0;

/// In `info`: a CD-ROM (`VDISK_CDROM`).
pub const VDISK_CDROM: u32 = 0x1;
/// In `info`: the medium can be taken out (`VDISK_REMOVABLE`).
pub const VDISK_REMOVABLE: u32 = 0x2;
/// In `info`: it cannot be written (`VDISK_READONLY`).
pub const VDISK_READONLY: u32 = 0x4;

/// A part of a page (`struct blkif_request_segment`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RequestSegment {
    /// The page.
    pub gref: GrantRef,
    /// Its first sector in the page.
    pub first_sect: u8,
    /// Its last sector in the page, inclusive.
    pub last_sect: u8,
    /// Padding.
    pub padding: [u8; 2],
}

const _: () = assert!(size_of::<RequestSegment>() == 8);

/// A slot of the ring, frontend to backend (`struct blkif_request`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Request {
    /// `BLKIF_OP_*`.
    pub operation: u8,
    /// Segments in use.
    pub nr_segments: u8,
    /// The device's number in the frontend.
    pub handle: u16,
    /// Padding.
    pub padding: [u8; 4],
    /// Echoed in the response.
    pub id: u64,
    /// The first sector on the disk.
    pub sector_number: u64,
    /// The memory.
    pub seg: [RequestSegment; BLKIF_MAX_SEGMENTS_PER_REQUEST],
}

const _: () = assert!(size_of::<Request>() == 112);

/// A slot with [`BLKIF_OP_DISCARD`] (`struct blkif_request_discard`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RequestDiscard {
    /// `BLKIF_OP_DISCARD`.
    pub operation: u8,
    /// [`BLKIF_DISCARD_SECURE`] or 0.
    pub flag: u8,
    /// The device's number in the frontend.
    pub handle: u16,
    /// Padding.
    pub padding: [u8; 4],
    /// Echoed in the response.
    pub id: u64,
    /// The first sector on the disk.
    pub sector_number: u64,
    /// How many.
    pub nr_sectors: u64,
}

const _: () = assert!(size_of::<RequestDiscard>() == 32);

/// A slot with [`BLKIF_OP_INDIRECT`] (`struct blkif_request_indirect`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RequestIndirect {
    /// `BLKIF_OP_INDIRECT`.
    pub operation: u8,
    /// `BLKIF_OP_READ` or `BLKIF_OP_WRITE`.
    pub indirect_op: u8,
    /// Segments in the pages.
    pub nr_segments: u16,
    /// Padding.
    pub padding0: [u8; 4],
    /// Echoed in the response.
    pub id: u64,
    /// The first sector on the disk.
    pub sector_number: u64,
    /// The device's number in the frontend.
    pub handle: u16,
    /// Padding.
    pub padding1: [u8; 2],
    /// Pages with [`RequestSegment`]s, 512 in each.
    pub indirect_grefs: [GrantRef; BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST],
    /// Padding.
    pub padding2: [u8; 4],
}

const _: () = assert!(size_of::<RequestIndirect>() == 64);

/// Backend to frontend (`struct blkif_response`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Response {
    /// The request's.
    pub id: u64,
    /// The request's; of an indirect one its `indirect_op`, as Linux answers, and as its frontend insists.
    pub operation: u8,
    /// Padding.
    pub padding0: u8,
    /// `BLKIF_RSP_*`.
    pub status: i16,
    /// Padding.
    pub padding1: [u8; 4],
}

const _: () = assert!(size_of::<Response>() == 16);
