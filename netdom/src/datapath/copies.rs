//! Grant copies: which of them bring a packet into local memory, and which into receive slots. Pure. Floor 3.

use super::round::Chunk;
use crate::netback::request::DataSlot;
use crate::offload::head::HEAD_BYTES;
use crate::packet::{Fragment, Packet, Pool};
use alloc::vec::Vec;
use xen_pv_sys::DomainId;
use xen_pv_sys::grant_table::{CopyEnd, GrantCopy};

/// Bytes that the first page of a packet in local memory has at least, so that all headers are in it, however the sender cut them.
const PULLED: u32 = 256;
/// A packet no longer than this is fetched whole at once: cheaper than a second look.
const SMALL: u32 = 2048;

/// Whether one of these copies failed.
#[inline]
pub(super) fn any_failed(copies: &[GrantCopy], (start, end): (u32, u32)) -> bool {
    let range = || copies.get(start as usize..end as usize).unwrap_or_default();
    start < end && range().iter().any(|copy| copy.status != 0)
}

/// How much of a packet to bring into local memory.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// Bytes to go into the first page, whichever slots they are in.
    pub(crate) first: u32,
    /// Bytes in all.
    pub(crate) length: u32,
}

impl Extent {
    /// How much of a packet of `length` bytes to fetch before the switch decides: all, where it is short or where it will be needed in local
    /// memory anyway.
    #[inline]
    pub(crate) fn before_look(held_locally: bool, length: u32, first_slot: u16) -> Self {
        if length <= SMALL {
            Self { first: length, length }
        } else if held_locally {
            Self::whole(length, first_slot)
        } else {
            Self { first: HEAD_BYTES as u32, length: HEAD_BYTES as u32 }
        }
    }

    /// All of a packet, whose first slot has `first_slot` bytes.
    pub(crate) fn whole(length: u32, first_slot: u16) -> Self {
        Self { first: u32::from(first_slot).max(PULLED).min(length), length }
    }
}

/// Adds the copies that bring a sender's bytes into local memory, from what is there on. The first page takes the headers; then each
/// slot has a page of its own, so that one entry of the batch serves a slot. False where the pool has no page left.
#[inline]
pub(crate) fn gather(
    local: &mut Packet,
    slots: &[DataSlot],
    domain: DomainId,
    extent: Extent,
    pool: &Pool,
    copies: &mut Vec<GrantCopy>,
) -> bool {
    // All that is wanted goes from the first slot into the first page.
    if local.fragments.is_empty()
        && let Some(slot) = slots.first()
        && extent.length <= extent.first
        && extent.length <= slot.size.into()
    {
        let Some(buffer) = pool.take() else {
            return false;
        };
        let length = extent.length as u16;
        let destination = CopyEnd::local(buffer.frame(), 0);
        // An empty packet has room.
        let _ = local.fragments.push(Fragment { buffer, offset: 0, length });
        copies.push(fetch(slot, domain, 0, destination, length));
        return true;
    }
    gather_slots(local, slots, domain, extent, pool, copies)
}

/// The copy of bytes of a slot, from one on.
#[inline]
fn fetch(slot: &DataSlot, domain: DomainId, from: u16, destination: CopyEnd, length: u16) -> GrantCopy {
    let source = CopyEnd::granted(domain, slot.reference, slot.offset.saturating_add(from));
    GrantCopy { source, destination, length, flags: GrantCopy::SOURCE_GRANT, status: 0, padding: 0 }
}

/// [`gather`] from any number of slots into any number of pages.
#[inline(never)]
pub(crate) fn gather_slots(
    local: &mut Packet,
    slots: &[DataSlot],
    domain: DomainId,
    extent: Extent,
    pool: &Pool,
    copies: &mut Vec<GrantCopy>,
) -> bool {
    let mut have = u32::try_from(local.len()).unwrap_or(u32::MAX);
    let mut position = 0;
    for slot in slots {
        let end = position + u32::from(slot.size);
        while have < end && have < extent.length {
            let within_first = have < extent.first;
            let limit = if within_first { extent.first } else { end };
            let upto = end.min(limit).min(extent.length);
            if !within_first || local.fragments.is_empty() {
                let Some(buffer) = pool.take() else {
                    return false;
                };
                let fragment = Fragment { buffer, offset: 0, length: 0 };
                if local.fragments.push(fragment).is_err() {
                    return false;
                }
            }
            let Some(fragment) = local.fragments.last_mut() else {
                return false;
            };
            // Both differences are below a page: a slot's bytes lie in one, and so does `extent.first`.
            let length = (upto - have) as u16;
            let within_slot = (have - position) as u16;
            let destination = CopyEnd::local(fragment.buffer.frame(), fragment.length);
            copies.push(fetch(slot, domain, within_slot, destination, length));
            fragment.length += length;
            have = upto;
        }
        position = end;
    }
    true
}

/// Lists the runs of bytes of a packet that is in local memory.
#[inline]
pub(crate) fn list_local(local: &Packet, chunks: &mut Vec<Chunk>) {
    chunks.clear();
    match local.fragments.only() {
        Some(only) => chunks.push(Chunk::local(only)),
        None => chunks.extend(local.fragments.iter().map(Chunk::local)),
    }
}

/// Lists the runs of bytes of a sender's packet: the local ones, the rest from its own pages. The bytes of the local head that were looked at
/// are those that the receiver gets, even where the sender changes them meanwhile.
pub(crate) fn list_chunks(local: &Packet, slots: &[DataSlot], domain: DomainId, chunks: &mut Vec<Chunk>) {
    list_local(local, chunks);
    let mut skip = local.len();
    for slot in slots {
        let size = usize::from(slot.size);
        if skip >= size {
            skip -= size;
            continue;
        }
        let offset = slot.offset.saturating_add(skip as u16);
        let end = CopyEnd::granted(domain, slot.reference, offset);
        chunks.push(Chunk { end, granted: true, length: (size - skip) as u16 });
        skip = 0;
    }
}

/// A place in a packet's bytes.
pub(super) struct Cursor<'a> {
    chunks: &'a [Chunk],
    chunk: usize,
    offset: u16,
}

impl<'a> Cursor<'a> {
    /// The first byte.
    pub(super) const fn new(chunks: &'a [Chunk]) -> Self {
        Self { chunks, chunk: 0, offset: 0 }
    }

    /// Adds the copies of the next `length` bytes into one granted page.
    pub(super) fn copy_to(&mut self, mut destination: CopyEnd, length: u16, copies: &mut Vec<GrantCopy>) {
        let mut left = length;
        while left > 0 {
            let Some(chunk) = self.chunks.get(self.chunk) else {
                return;
            };
            let piece = left.min(chunk.length - self.offset);
            if piece > 0 {
                copies.push(chunk.copy(self.offset, destination, piece));
                destination.offset += piece;
                self.offset += piece;
                left -= piece;
            }
            if self.offset >= chunk.length {
                self.chunk += 1;
                self.offset = 0;
            }
        }
    }
}
