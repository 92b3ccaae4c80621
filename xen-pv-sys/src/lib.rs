//! The public Xen ABI for PV guests: structs, constants, numbers; one file per public header. Floor 0: no behaviour.
#![no_std]
#![forbid(unsafe_code)]

pub mod arch_x86;
pub mod callback;
pub mod domctl;
pub mod elfnote;
pub mod errno;
pub mod event_channel;
pub mod grant_table;
pub mod io;
pub mod memory;
pub mod physdev;
pub mod sched;
pub mod start_info;
pub mod vcpu;
pub mod version;
pub mod xen;

/// Its examples are compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A domain's number (`domid_t`, `xen.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct DomainId(pub u16);

impl DomainId {
    /// The caller itself (`DOMID_SELF`, `xen.h`).
    pub const SELF: Self = Self(0x7ff0);
    /// Frames of devices (`DOMID_IO`).
    pub const IO: Self = Self(0x7ff1);
    /// Xen's own frames (`DOMID_XEN`).
    pub const XEN: Self = Self(0x7ff2);
    /// Shared, copied on write (`DOMID_COW`).
    pub const COW: Self = Self(0x7ff3);
    /// Nobody (`DOMID_INVALID`).
    pub const INVALID: Self = Self(0x7ff4);
    /// Xen's idle vCPUs (`DOMID_IDLE`).
    pub const IDLE: Self = Self(0x7fff);
    /// The first number that no domain has (`DOMID_FIRST_RESERVED`).
    pub const FIRST_RESERVED: Self = Self(0x7ff0);
}

/// An event channel of the local domain (`evtchn_port_t`, `event_channel.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Port(pub u32);

/// An entry of a domain's grant table (`grant_ref_t`, `grant_table.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct GrantRef(pub u32);

/// A machine frame number: for a PV domain also its device address divided by 4096 (`xen_pfn_t`, `xen.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Mfn(pub u64);

/// A pseudo-physical frame number: the domain's own contiguous numbering of its pages (`xen_pfn_t`, `xen.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct Pfn(pub u64);

/// Bytes in a page and in a machine frame (`XEN_PAGE_SIZE` of a PV guest on x86).
pub const PAGE_SIZE: usize = 4096;
