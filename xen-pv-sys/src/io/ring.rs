//! `io/ring.h`: the head of a shared ring. Floor 0: no behaviour.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The head of every shared ring (`struct NAME_sring` without its `ring`). All indices wrap at 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SharedRingHead {
    /// Requests that the frontend made.
    pub req_prod: u32,
    /// The request that shall raise an event.
    pub req_event: u32,
    /// Responses that the backend made.
    pub rsp_prod: u32,
    /// The response that shall raise an event.
    pub rsp_event: u32,
    /// Private to the implementation, then padding.
    pub padding: [u8; 48],
}

const _: () = assert!(size_of::<SharedRingHead>() == RING_HEADER_SIZE);

/// Bytes ahead of the first slot (`offsetof(struct NAME_sring, ring)`).
pub const RING_HEADER_SIZE: usize = 64;

/// Slots in `bytes` of shared pages for entries of `entry` bytes: a power of two (`__CONST_RING_SIZE`).
pub const fn ring_size(bytes: usize, entry: usize) -> u32 {
    let slots = (bytes - RING_HEADER_SIZE) / entry;
    1 << slots.ilog2()
}

const _: () = assert!(ring_size(4096, 12) == 256 && ring_size(4096, 8) == 256 && ring_size(4096, 16) == 128);
