//! `physdev.h`: interrupts of passed-through devices. Floor 0: no behaviour.

use crate::{DomainId, Mfn};
use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `PHYSDEVOP_irq_status_query`, with [`IrqStatusQuery`].
pub const PHYSDEVOP_IRQ_STATUS_QUERY: u64 = 5;
/// `PHYSDEVOP_set_iopl`, with [`SetIopl`].
pub const PHYSDEVOP_SET_IOPL: u64 = 6;
/// `PHYSDEVOP_eoi`, with [`Eoi`].
pub const PHYSDEVOP_EOI: u64 = 12;
/// `PHYSDEVOP_map_pirq`, with [`MapPirq`].
pub const PHYSDEVOP_MAP_PIRQ: u64 = 13;
/// `PHYSDEVOP_unmap_pirq`, with [`UnmapPirq`].
pub const PHYSDEVOP_UNMAP_PIRQ: u64 = 14;
/// `PHYSDEVOP_get_free_pirq`, with [`GetFreePirq`].
pub const PHYSDEVOP_GET_FREE_PIRQ: u64 = 23;
/// `PHYSDEVOP_pirq_eoi_gmfn_v2`, with [`PirqEoiGmfn`].
pub const PHYSDEVOP_PIRQ_EOI_GMFN_V2: u64 = 28;

/// `MAP_PIRQ_TYPE_MSI`.
pub const MAP_PIRQ_TYPE_MSI: i32 = 0;
/// `MAP_PIRQ_TYPE_GSI`.
pub const MAP_PIRQ_TYPE_GSI: i32 = 1;

bitflags! {
    /// [`IrqStatusQuery::flags`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct IrqStatus: u32 {
        /// `PHYSDEVOP_eoi` is needed (`XENIRQSTAT_needs_eoi`).
        const NEEDS_EOI = 1 << 0;
        /// Other domains have it too (`XENIRQSTAT_shared`).
        const SHARED = 1 << 1;
    }
}

/// `struct physdev_eoi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Eoi {
    /// The pirq.
    pub irq: u32,
}

/// `struct physdev_irq_status_query`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IrqStatusQuery {
    /// The pirq.
    pub irq: u32,
    /// Out: [`IrqStatus`].
    pub flags: u32,
}

const _: () = assert!(size_of::<IrqStatusQuery>() == 8);

/// `struct physdev_set_iopl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetIopl {
    /// The level.
    pub iopl: u32,
}

/// `struct physdev_map_pirq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MapPirq {
    /// Whose.
    pub domid: DomainId,
    /// Padding of the C struct.
    pub padding0: u16,
    /// `MAP_PIRQ_TYPE_*` (`type`).
    pub kind: i32,
    /// In: the global interrupt.
    pub index: i32,
    /// In, out: the pirq; -1 for any.
    pub pirq: i32,
    /// For MSI: the bus.
    pub bus: i32,
    /// For MSI: device and function.
    pub devfn: i32,
    /// For MSI-X: the entry.
    pub entry_nr: i32,
    /// Padding of the C struct.
    pub padding1: u32,
    /// For MSI-X: where the table is.
    pub table_base: u64,
}

const _: () = assert!(size_of::<MapPirq>() == 40);

/// `struct physdev_unmap_pirq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UnmapPirq {
    /// Whose.
    pub domid: DomainId,
    /// Padding of the C struct.
    pub padding: u16,
    /// Which.
    pub pirq: i32,
}

const _: () = assert!(size_of::<UnmapPirq>() == 8);

/// `struct physdev_get_free_pirq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GetFreePirq {
    /// `MAP_PIRQ_TYPE_*` (`type`).
    pub kind: i32,
    /// Out.
    pub pirq: u32,
}

const _: () = assert!(size_of::<GetFreePirq>() == 8);

/// `struct physdev_pirq_eoi_gmfn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PirqEoiGmfn {
    /// The page in which Xen keeps a bit for each pirq that needs an end of interrupt.
    pub gmfn: Mfn,
}
