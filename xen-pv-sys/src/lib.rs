//! The public Xen ABI for PV guests: structs, constants, numbers; one file per public header. Floor 0: no behaviour.
#![no_std]
#![forbid(unsafe_code)]

pub mod grant_table;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A domain's number (`domid_t`, `xen.h`).
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct DomainId(pub u16);

impl DomainId {
    /// The caller itself (`DOMID_SELF`, `xen.h`).
    pub const SELF: Self = Self(0x7ff0);
}

/// An event channel of the local domain (`evtchn_port_t`, `event_channel.h`).
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct Port(pub u32);

/// An entry of a domain's grant table (`grant_ref_t`, `grant_table.h`).
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct GrantRef(pub u32);

/// A machine frame number: for a PV domain also its device address divided by 4096 (`xen_pfn_t`, `xen.h`).
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct Mfn(pub u64);

/// A pseudo-physical frame number: the domain's own contiguous numbering of its pages (`xen_pfn_t`, `xen.h`).
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
)]
#[repr(transparent)]
pub struct Pfn(pub u64);

/// Bytes in a page and in a machine frame (`XEN_PAGE_SIZE` of a PV guest on x86).
pub const PAGE_SIZE: usize = 4096;
