//! What a frontend must not do, and did: each closes its vif and nothing else. Pure. Floor 3.

use core::fmt;
use split_driver::hypervisor::XenError;
use split_driver::ring::RingError;
use xen_pv_sys::GrantRef;
use xen_pv_sys::grant_table::CopyEnd;

/// One of a queue's two rings, or the vif's control ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingName {
    /// Packets from the guest.
    Transmit,
    /// Packets to the guest.
    Receive,
    /// The control ring.
    Control,
}

impl fmt::Display for RingName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Transmit => "transmit",
            Self::Receive => "receive",
            Self::Control => "control",
        })
    }
}

/// Why a vif was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// The request producer is further ahead than the ring is long, or went back.
    Overrun {
        /// Which ring.
        ring: RingName,
        /// `req_prod` as read.
        producer: u32,
        /// Requests consumed so far.
        consumer: u32,
    },
    /// A packet of more slots than any frontend may use (`XEN_NETIF_NR_SLOTS_MIN` with some grace).
    TooManySlots {
        /// Slots seen before we stopped.
        slots: u32,
    },
    /// The producer stops in the midst of a packet.
    ChainCut {
        /// Slots of the packet that were there.
        slots: u32,
    },
    /// The producer stops where an extra info was announced.
    ExtraMissing,
    /// An extra info of a type that `io/netif.h` does not have.
    ExtraUnknown {
        /// The type byte.
        kind: u8,
    },
    /// A super-frame with segments of no bytes.
    GsoSize,
    /// A super-frame of a kind that `io/netif.h` does not have.
    GsoKind {
        /// The kind byte.
        kind: u8,
    },
    /// A slot whose bytes do not lie in one page.
    CrossesPage {
        /// Bytes into the page.
        offset: u16,
        /// Bytes.
        size: u16,
    },
    /// A grant that cannot be copied from or to.
    BadGrant {
        /// Which.
        reference: GrantRef,
        /// The hypervisor's `GNTST_*`.
        status: i16,
    },
}

impl Violation {
    /// A copy from or to `end` was refused.
    pub fn bad_grant(end: CopyEnd, status: i16) -> Self {
        // A reference has 32 bits; that is where it came from.
        let reference = GrantRef(end.reference_or_frame as u32);
        Self::BadGrant { reference, status }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Overrun { ring, producer, consumer } => {
                let name = match ring {
                    RingName::Transmit => "tx",
                    RingName::Receive => "rx",
                    RingName::Control => "control",
                };
                write!(formatter, "{name} ring overrun: request producer {producer}, consumer {consumer}")
            }
            Self::TooManySlots { slots } => {
                write!(formatter, "packet of {slots} slots or more")
            }
            Self::ChainCut { slots } => {
                write!(formatter, "packet cut short after {slots} slots")
            }
            Self::ExtraMissing => write!(formatter, "extra info announced but missing"),
            Self::ExtraUnknown { kind } => write!(formatter, "unknown extra info type {kind}"),
            Self::GsoSize => write!(formatter, "GSO size is zero"),
            Self::GsoKind { kind } => write!(formatter, "unknown GSO type {kind}"),
            Self::CrossesPage { offset, size } => {
                write!(formatter, "offset {offset} with size {size} crosses a page")
            }
            Self::BadGrant { reference, status } => {
                write!(formatter, "grant {} refused, status {status}", reference.0)
            }
        }
    }
}

impl core::error::Error for Violation {}

/// Why a vif could not be connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// The ring could not be mapped.
    Map(RingName, XenError),
    /// What was mapped is no ring, or claims requests that it cannot hold.
    Ring(RingName, RingError),
    /// The event channel could not be bound.
    Bind(XenError),
    /// No port of the switch is left.
    NoPort,
    /// Another guest behind the router has one of its addresses.
    AddressTaken,
}

impl fmt::Display for AttachError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(ring, error) => write!(formatter, "mapping the {ring} ring: {error}"),
            Self::Ring(ring, error) => write!(formatter, "the {ring} ring: {error}"),
            Self::Bind(error) => write!(formatter, "binding the event channel: {error}"),
            Self::NoPort => write!(formatter, "no switch port left"),
            Self::AddressTaken => {
                write!(formatter, "another vif behind NAT has an address of its ip=: each has its own")
            }
        }
    }
}

impl core::error::Error for AttachError {}
