//! One round of the data path: what was taken from the rings, and the two batches of grant copies. Pure. Floor 3.
//!
//! The lists are emptied, never freed, so that a round allocates nothing.

use super::QueueId;
use crate::ethernet::MacAddress;
use crate::netback::request::{DataSlot, PacketRequest};
use crate::netback::steering::Steer;
use crate::offload::flow::Flow;
use crate::packet::{Fragment, MAX_FRAGMENTS, Offload, Packet, Pool};
use alloc::vec::Vec;
use xen_pv_sys::DomainId;
use xen_pv_sys::grant_table::{CopyEnd, GrantCopy};
use xen_pv_sys::io::netif::{ExtraInfo, RxFlags};

/// Runs of bytes one packet may lie in: a head in local memory, and a slot of the sender each.
pub(crate) const CHUNKS: usize = MAX_FRAGMENTS + 1;
/// Bytes fetched before the switch decides: more than it looks at.
pub(crate) const HEAD: u32 = 128;
/// Bytes that the first page of a packet in local memory has at least, so that all headers are in it, however the sender cut them.
pub(crate) const PULLED: u32 = 256;
/// A packet no longer than this is fetched whole at once: cheaper than a second look.
pub(crate) const SMALL: u32 = 2048;

/// Consecutive bytes of a packet, as the source of a grant copy.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk {
    pub(crate) end: CopyEnd,
    pub(crate) granted: bool,
    pub(crate) length: u16,
}

impl Chunk {
    pub(crate) fn local(fragment: &Fragment) -> Self {
        Self { end: CopyEnd::local(fragment.buffer.frame(), fragment.offset), granted: false, length: fragment.length }
    }
}

/// The runs of bytes of one packet.
pub(crate) type Chunks = heapless::Vec<Chunk, CHUNKS>;

/// A packet that a guest sends.
pub(crate) struct Sent {
    /// The sender.
    pub(crate) from: QueueId,
    /// Its first entry in [`Round::slots`].
    pub(crate) first: u32,
    pub(crate) request: PacketRequest,
    pub(crate) offload: Offload,
    /// What is in local memory, or will be after the batch.
    pub(crate) local: Packet,
    /// The entries of the batch of heads that fill it.
    pub(crate) copies: (u32, u32),
    /// The entries of the batch of copies that fill what was not fetched with the head.
    pub(crate) gathered: (u32, u32),
    /// To be answered with an error.
    pub(crate) failed: bool,
    /// Given back to the sender's ring: as if it had not been taken.
    pub(crate) undone: bool,
}

impl Sent {
    /// Its slots.
    pub(crate) fn slots<'a>(&self, slots: &'a [DataSlot]) -> &'a [DataSlot] {
        let first = self.first as usize;
        slots.get(first..first + usize::from(self.request.slots)).unwrap_or_default()
    }

    /// Whether all of it is in local memory.
    pub(crate) fn whole(&self) -> bool {
        self.local.len() >= self.request.length as usize
    }
}

/// A receive slot filled in this round.
pub(crate) struct Received {
    pub(crate) to: QueueId,
    pub(crate) kind: ReceivedKind,
    pub(crate) failed: bool,
}

/// What goes into the response.
pub(crate) enum ReceivedKind {
    /// Packet bytes, copied by these entries of the batch.
    Data { id: u16, offset: u16, length: u16, flags: RxFlags, copies: (u32, u32) },
    /// More about the packet whose first slot is before it.
    Extra(ExtraInfo),
}

/// Where a packet in local memory is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// In [`Round::sent`].
    Guest(u32),
    /// In [`Round::frames`].
    Wire(u32),
}

/// A packet to be passed on after the batch of copies, by way of local memory.
pub(crate) struct Bounce {
    pub(crate) source: Source,
    /// The port it goes to.
    pub(crate) port: u16,
    /// Where it goes there, if that is a guest.
    pub(crate) steer: Steer,
}

/// A look-up of the switch: from which port, for which addresses, and to which port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) from: u16,
    pub(crate) destination: MacAddress,
    pub(crate) source: MacAddress,
    pub(crate) to: u16,
}

/// A packet's way within the guest that it is for: to which port, of which flow.
#[derive(Clone, Copy)]
pub(crate) struct Steered {
    pub(crate) to: u16,
    pub(crate) flow: Flow,
    pub(crate) steer: Steer,
}

/// All that a round needs to remember.
#[derive(Default)]
pub(crate) struct Round {
    pub(crate) heads: Vec<GrantCopy>,
    pub(crate) copies: Vec<GrantCopy>,
    /// What finds out who is at fault for copies that failed.
    pub(crate) probes: Vec<GrantCopy>,
    pub(crate) slots: Vec<DataSlot>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) frames: Vec<Packet>,
    /// Frames of NICs that are joined as far as they can be, with the port they go to.
    pub(crate) joined: Vec<(u16, Packet)>,
    /// Pages to be kept until the copies are done.
    pub(crate) held: Vec<Fragment>,
    pub(crate) received: Vec<Received>,
    pub(crate) bounces: Vec<Bounce>,
    pub(crate) destinations: Vec<u16>,
    /// The last look-up of the switch that gave one port: the packets of a flow come one behind the other.
    pub(crate) last_look: Option<Look>,
    /// The last packet that was steered by a hash, for the same reason.
    pub(crate) last_steered: Option<Steered>,
    /// The NICs may have more frames than a round takes.
    pub(crate) frames_left: bool,
    /// Queues with responses placed and not published.
    pub(crate) touched: Vec<QueueId>,
    /// Queues that were looked at, and why the look ended.
    pub(crate) served: Vec<(QueueId, super::Stop)>,
}

impl Round {
    pub(crate) fn clear(&mut self) {
        self.heads.clear();
        self.copies.clear();
        self.probes.clear();
        self.slots.clear();
        self.sent.clear();
        self.frames.clear();
        self.joined.clear();
        self.held.clear();
        self.received.clear();
        self.bounces.clear();
        self.destinations.clear();
        self.last_look = None;
        self.last_steered = None;
        self.frames_left = false;
        self.touched.clear();
        self.served.clear();
    }
}

/// How much of a packet to bring into local memory.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// Bytes to go into the first page, whichever slots they are in.
    pub(crate) first: u32,
    /// Bytes in all.
    pub(crate) length: u32,
}

/// Adds the copies that bring a sender's bytes into local memory, from what is there on. The first page takes the headers; then each
/// slot has a page of its own, so that one entry of the batch serves a slot. False where the pool has no page left.
pub(crate) fn gather(
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
            copies.push(GrantCopy {
                source: CopyEnd::granted(domain, slot.reference, slot.offset.saturating_add(within_slot)),
                destination: CopyEnd::local(fragment.buffer.frame(), fragment.length),
                length,
                flags: GrantCopy::SOURCE_GRANT,
                status: 0,
                padding: 0,
            });
            fragment.length += length;
            have = upto;
        }
        position = end;
    }
    true
}

/// The runs of bytes of a sender's packet: what is local from there, the rest from its own pages. What was looked at in the local head
/// is what the receiver gets, whatever the sender writes meanwhile.
pub(crate) fn chunks_of(local: &Packet, slots: &[DataSlot], domain: DomainId) -> Chunks {
    let mut chunks: Chunks = local.fragments.iter().map(Chunk::local).collect();
    let mut skip = local.len();
    for slot in slots {
        let size = usize::from(slot.size);
        if skip >= size {
            skip -= size;
            continue;
        }
        let offset = slot.offset.saturating_add(skip as u16);
        let _ = chunks.push(Chunk {
            end: CopyEnd::granted(domain, slot.reference, offset),
            granted: true,
            length: (size - skip) as u16,
        });
        skip = 0;
    }
    chunks
}
