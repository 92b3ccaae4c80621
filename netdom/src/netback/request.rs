//! One packet's requests on a guest's transmit ring: copied once, checked, typed. Pure. Floor 3.
//!
//! A packet is a first slot, extra infos where it says so, then further slots while they say "more". The first slot's size is that of
//! the whole packet; its own bytes are what the other slots leave over (`io/netif.h`, "Guest transmit").

use super::violation::{RingName, Violation};
use super::{GSO_SIZE_LEAST, SLOTS_FATAL, SLOTS_LEGAL};
use crate::ethernet::MacAddress;
use crate::packet::{Checksum, Gso, GsoKind, Offload};
use alloc::vec::Vec;
use split_driver::memory::SharedMemory;
use split_driver::ring::{BackRing, RingError};
use xen_pv_sys::io::netif::{
    ExtraInfo, RxRequest, RxResponse, TxFlags, TxRequest, TxResponse, XEN_NETIF_EXTRA_FLAG_MORE,
    XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_EXTRA_TYPE_HASH, XEN_NETIF_EXTRA_TYPE_MCAST_ADD,
    XEN_NETIF_EXTRA_TYPE_MCAST_DEL, XEN_NETIF_GSO_TYPE_TCPV4, XEN_NETIF_GSO_TYPE_TCPV6,
};
use xen_pv_sys::{GrantRef, PAGE_SIZE};

/// Packets from the guest.
pub type TransmitRing<M> = BackRing<M, TxRequest, TxResponse>;
/// Packets to the guest.
pub type ReceiveRing<M> = BackRing<M, RxRequest, RxResponse>;

/// The shortest frame that has addresses and a type.
pub const ETHERNET_HEADER: u32 = 14;

/// A slot with packet bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataSlot {
    /// The page.
    pub reference: GrantRef,
    /// Bytes into the page.
    pub offset: u16,
    /// Bytes of this slot.
    pub size: u16,
    /// To be echoed in the response.
    pub id: u16,
}

/// A group to be received from now on, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// `XEN_NETIF_EXTRA_TYPE_MCAST_ADD`.
    Join(MacAddress),
    /// `XEN_NETIF_EXTRA_TYPE_MCAST_DEL`.
    Leave(MacAddress),
}

/// What a packet's requests ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Send it.
    Send(Offload),
    /// Change the list of groups; there are no packet bytes.
    Group(Membership),
    /// It breaks the rules without harm: answered with an error.
    Refuse,
}

/// The requests of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketRequest {
    /// What is asked for.
    pub wish: Wish,
    /// Bytes in all.
    pub length: u32,
    /// Slots with packet bytes, as many as were added to the list.
    pub slots: u16,
    /// Slots with extra infos, between the first and the second of `slots`.
    pub extras: u16,
}

impl PacketRequest {
    /// Places on the ring.
    pub fn used(&self) -> u32 {
        u32::from(self.slots) + u32::from(self.extras)
    }
}

impl From<(RingName, RingError)> for Violation {
    fn from((ring, error): (RingName, RingError)) -> Self {
        match error {
            RingError::Overrun { producer, consumer } => Self::Overrun { ring, producer, consumer },
            RingError::TooSmall { .. } => Self::Overrun { ring, producer: 0, consumer: 0 },
        }
    }
}

/// Reads the next packet's requests without consuming them; `available` of them are there, at least one. Its data slots are added to `slots`.
///
/// # Errors
/// What the frontend must not do; `slots` may have grown.
#[inline]
pub fn parse<M: SharedMemory>(
    ring: &TransmitRing<M>,
    available: u32,
    slots: &mut Vec<DataSlot>,
) -> Result<PacketRequest, Violation> {
    let first: TxRequest = ring.peek(0);
    if first.flags.intersects(TxFlags::EXTRA_INFO | TxFlags::MORE_DATA) {
        return parse_chain(ring, &first, available, slots);
    }
    within_page(first.offset, first.size)?;
    slots.push(slot(&first));
    let length = u32::from(first.size);
    let wish = match length {
        ETHERNET_HEADER.. => Wish::Send(Offload { checksum: checksum(first.flags), gso: None }),
        _ => Wish::Refuse,
    };
    Ok(PacketRequest { wish, length, slots: 1, extras: 0 })
}

#[inline]
fn slot(request: &TxRequest) -> DataSlot {
    let &TxRequest { gref, offset, id, size, .. } = request;
    DataSlot { reference: gref, offset, size, id }
}

/// [`parse`] for a packet of any number of requests, of which the first was read.
#[inline(never)]
fn parse_chain<M: SharedMemory>(
    ring: &TransmitRing<M>,
    first: &TxRequest,
    available: u32,
    slots: &mut Vec<DataSlot>,
) -> Result<PacketRequest, Violation> {
    let mut extras = Extras::default();
    if first.flags.contains(TxFlags::EXTRA_INFO) {
        extras = parse_extras(ring, available)?;
    }
    let length = u32::from(first.size);
    let mut packet = PacketRequest { wish: Wish::Refuse, length, slots: 1, extras: extras.count };
    let start = slots.len();
    slots.push(slot(first));
    if let Some(membership) = extras.membership {
        packet.wish = Wish::Group(membership);
        return Ok(packet);
    }
    let mut more = first.flags.contains(TxFlags::MORE_DATA);
    let mut rest = Some(first.size);
    while more {
        let place = packet.used();
        if place >= available {
            return Err(Violation::ChainCut { slots: packet.slots.into() });
        }
        if u32::from(packet.slots) + 1 >= SLOTS_FATAL {
            return Err(Violation::TooManySlots { slots: SLOTS_FATAL });
        }
        let next: TxRequest = ring.peek(place);
        within_page(next.offset, next.size)?;
        // Some frontends let the size of a packet of 64 KiB and more overflow: dropped, not punished.
        rest = rest.and_then(|rest| rest.checked_sub(next.size));
        slots.push(slot(&next));
        packet.slots += 1;
        more = next.flags.contains(TxFlags::MORE_DATA);
    }
    if let (Some(rest), Some(slot)) = (rest, slots.get_mut(start)) {
        within_page(first.offset, rest)?;
        slot.size = rest;
    }
    let gso_sane = extras.gso.is_none_or(|gso| gso.size >= GSO_SIZE_LEAST);
    if rest.is_some() && u32::from(packet.slots) <= SLOTS_LEGAL && length >= ETHERNET_HEADER && gso_sane {
        packet.wish = Wish::Send(Offload { checksum: checksum(first.flags), gso: extras.gso });
    }
    Ok(packet)
}

fn checksum(flags: TxFlags) -> Checksum {
    if flags.contains(TxFlags::CSUM_BLANK) {
        Checksum::Blank
    } else if flags.contains(TxFlags::DATA_VALIDATED) {
        Checksum::Verified
    } else {
        Checksum::Unverified
    }
}

/// Checks that a slot's bytes lie in its page.
fn within_page(offset: u16, size: u16) -> Result<(), Violation> {
    if usize::from(offset) + usize::from(size) > PAGE_SIZE {
        return Err(Violation::CrossesPage { offset, size });
    }
    Ok(())
}

#[derive(Default)]
struct Extras {
    count: u16,
    gso: Option<Gso>,
    membership: Option<Membership>,
}

fn parse_extras<M: SharedMemory>(ring: &TransmitRing<M>, available: u32) -> Result<Extras, Violation> {
    let mut extras = Extras::default();
    loop {
        let place = u32::from(extras.count) + 1;
        if place >= available {
            return Err(Violation::ExtraMissing);
        }
        let extra: ExtraInfo = ring.peek(place);
        extras.count += 1;
        match extra.kind {
            XEN_NETIF_EXTRA_TYPE_GSO => extras.gso = Some(parse_gso(&extra)?),
            XEN_NETIF_EXTRA_TYPE_MCAST_ADD => {
                extras.membership = Some(Membership::Join(MacAddress(extra.mcast())));
            }
            XEN_NETIF_EXTRA_TYPE_MCAST_DEL => {
                extras.membership = Some(Membership::Leave(MacAddress(extra.mcast())));
            }
            // A hint, of no use to us.
            XEN_NETIF_EXTRA_TYPE_HASH => {}
            kind => return Err(Violation::ExtraUnknown { kind }),
        }
        if extra.flags & XEN_NETIF_EXTRA_FLAG_MORE == 0 {
            return Ok(extras);
        }
    }
}

fn parse_gso(extra: &ExtraInfo) -> Result<Gso, Violation> {
    let gso = extra.gso();
    if gso.size == 0 {
        return Err(Violation::GsoSize);
    }
    let kind = match gso.kind {
        XEN_NETIF_GSO_TYPE_TCPV4 => GsoKind::TcpV4,
        XEN_NETIF_GSO_TYPE_TCPV6 => GsoKind::TcpV6,
        kind => return Err(Violation::GsoKind { kind }),
    };
    Ok(Gso { kind, size: gso.size })
}
