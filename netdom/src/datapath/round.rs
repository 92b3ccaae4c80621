//! One round of the data path: what was taken from rings and NICs, and the two batches of grant copies. Pure. Floor 3.
//!
//! The lists are emptied, never freed, so that a round allocates nothing.

use super::held::{Held, Share};
use super::vlan::{Edit, Tagging};
use super::{QueueId, Stop};
use crate::blame::Suspect;
use crate::netback::ahead::WriteAhead;
use crate::netback::request::{DataSlot, PacketRequest};
use crate::netback::steering::Steer;
use crate::offload::head::Head;
use crate::packet::{Fragment, Offload, Packet};
use crate::switch::PortId;
use alloc::vec::Vec;
use split_driver::time::Instant;
use xen_pv_sys::grant_table::{CopyEnd, GrantCopy};
use xen_pv_sys::io::netif::{ExtraInfo, RxFlags};

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

    /// The copy of so many of its bytes, from `offset` on, into a granted page.
    #[inline]
    pub(crate) fn copy(&self, offset: u16, destination: CopyEnd, length: u16) -> GrantCopy {
        let mut source = self.end;
        source.offset += offset;
        let flags = GrantCopy::DESTINATION_GRANT | if self.granted { GrantCopy::SOURCE_GRANT } else { 0 };
        GrantCopy { source, destination, length, flags, status: 0, padding: 0 }
    }
}

/// A packet that a guest sends.
pub(crate) struct Sent {
    /// The sender.
    pub(crate) from: QueueId,
    /// Its first entry in [`Round::slots`].
    pub(crate) first: u32,
    pub(crate) request: PacketRequest,
    /// What is in local memory, or will be after the batch; and what is left to do to the packet.
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
    #[inline]
    pub(crate) fn slots<'a>(&self, slots: &'a [DataSlot]) -> &'a [DataSlot] {
        let first = self.first as usize;
        slots.get(first..first + usize::from(self.request.slots)).unwrap_or_default()
    }

    /// Whether all of it is in local memory.
    #[inline]
    pub(crate) fn whole(&self) -> bool {
        self.local.len() >= self.request.length as usize
    }
}

/// The turn of a queue: what the look at it brought.
pub(crate) struct Turn {
    pub(crate) id: QueueId,
    /// Why the look ended.
    pub(crate) stop: Stop,
    /// The packets that were taken from it are those of [`Round::sent`] from one to before the other.
    pub(crate) packets: (u32, u32),
}

/// What a NIC received.
pub(crate) struct Arrival {
    /// Its port.
    pub(crate) port: PortId,
    /// The port of the switch that they come from: its own, or its bond's.
    pub(crate) from: PortId,
    /// Its frames are those of [`Round::frames`] from one to before the other.
    pub(crate) frames: (u32, u32),
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

/// Where a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In [`Round::sent`].
    Guest(u32),
    /// In [`Round::frames`].
    Wire(u32),
}

/// A packet on its way through the switch. Where its bytes are, [`Round::chunks`] says, if any of its ports is a guest's.
pub(crate) struct Passing<'a> {
    pub(crate) source: Source,
    pub(crate) head: &'a Head,
    /// Where its head is in [`Round::parsed`].
    pub(crate) parsed: u32,
    /// Bytes.
    pub(crate) length: u32,
    pub(crate) offload: Offload,
    pub(crate) tagging: Tagging,
    /// The queue that it is of, where it waits there if its receiver has no slots; and now.
    pub(crate) waits: Option<(QueueId, Instant)>,
}

/// A packet that leaves from local memory, after the copies: to a NIC, or into a guest's backlog, where it bounces.
pub(crate) struct Leaving {
    pub(crate) source: Source,
    /// Where its head is in [`Round::parsed`].
    pub(crate) parsed: u32,
    /// The port it goes to.
    pub(crate) to: PortId,
    /// Where it goes there, if that is a guest.
    pub(crate) steer: Steer,
    /// What is to be done about its tag.
    pub(crate) edit: Edit,
}

/// A packet from the wire that is for the router.
#[derive(Clone, Copy)]
pub(crate) struct ToRoute {
    /// The router's port.
    pub(crate) router: PortId,
    /// Where it is in [`Round::frames`].
    pub(crate) frame: u32,
    /// Where its head is in [`Round::parsed`].
    pub(crate) parsed: u32,
}

/// All that a round needs to remember.
pub(crate) struct Round {
    pub(crate) heads: Vec<GrantCopy>,
    pub(crate) copies: Vec<GrantCopy>,
    /// What finds out which end is at fault for copies that failed.
    pub(crate) probes: Vec<GrantCopy>,
    pub(crate) slots: Vec<DataSlot>,
    /// The bytes of the packet that goes into receive slots next, in order.
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) sent: Vec<Sent>,
    pub(crate) arrivals: Vec<Arrival>,
    /// Frames that the NICs received, but for those that were joined; behind them what came of those.
    pub(crate) frames: Vec<Packet>,
    /// The heads that were parsed: packets of one flow that follow each other have one.
    pub(crate) parsed: Vec<Head>,
    /// Pages to be kept until the copies are done.
    pub(crate) held: Vec<Fragment>,
    pub(crate) received: Vec<Received>,
    pub(crate) leaving: Vec<Leaving>,
    /// Packets of the arrival that is looked at now which are joined as far as they can be, before the router handles them.
    pub(crate) to_route: Vec<ToRoute>,
    /// Frames that the NICs received: until they are passed on they wait, too.
    pub(crate) in_hand: Share,
    /// The NICs may have more frames than a round takes.
    pub(crate) frames_left: bool,
    /// Queues with responses placed and not published.
    pub(crate) touched: Vec<QueueId>,
    pub(crate) served: Vec<Turn>,
    /// A guest changed what it will not say again, its groups or its hash, in this round or an earlier one.
    pub(crate) changed: bool,
    /// The port that is served now.
    pub(crate) suspect: Suspect,
    /// The responses that are placed now.
    pub(crate) ahead: WriteAhead,
}

impl Round {
    /// Nothing; the frames that are in hand will be counted in `held`.
    pub(crate) fn new(held: &Held) -> Self {
        Self {
            in_hand: Share::new(held),
            heads: Vec::new(),
            copies: Vec::new(),
            probes: Vec::new(),
            slots: Vec::new(),
            chunks: Vec::new(),
            sent: Vec::new(),
            arrivals: Vec::new(),
            frames: Vec::new(),
            parsed: Vec::new(),
            held: Vec::new(),
            received: Vec::new(),
            leaving: Vec::new(),
            to_route: Vec::new(),
            frames_left: false,
            touched: Vec::new(),
            served: Vec::new(),
            changed: false,
            suspect: Suspect::default(),
            ahead: WriteAhead::default(),
        }
    }

    /// Forgets all of it.
    pub(crate) fn clear(&mut self) {
        self.heads.clear();
        self.copies.clear();
        self.probes.clear();
        self.slots.clear();
        self.chunks.clear();
        self.sent.clear();
        self.arrivals.clear();
        self.frames.clear();
        self.parsed.clear();
        self.held.clear();
        self.received.clear();
        self.leaving.clear();
        self.to_route.clear();
        self.frames_left = false;
        self.touched.clear();
        self.served.clear();
    }
}
