//! `memory.h`. Floor 0: no behaviour.

use crate::DomainId;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `XENMEM_increase_reservation`.
pub const XENMEM_INCREASE_RESERVATION: u64 = 0;
/// `XENMEM_decrease_reservation`.
pub const XENMEM_DECREASE_RESERVATION: u64 = 1;
/// `XENMEM_maximum_ram_page`.
pub const XENMEM_MAXIMUM_RAM_PAGE: u64 = 2;
/// `XENMEM_current_reservation`.
pub const XENMEM_CURRENT_RESERVATION: u64 = 3;
/// `XENMEM_maximum_reservation`.
pub const XENMEM_MAXIMUM_RESERVATION: u64 = 4;
/// `XENMEM_machphys_mfn_list`.
pub const XENMEM_MACHPHYS_MFN_LIST: u64 = 5;
/// `XENMEM_populate_physmap`.
pub const XENMEM_POPULATE_PHYSMAP: u64 = 6;
/// `XENMEM_add_to_physmap`.
pub const XENMEM_ADD_TO_PHYSMAP: u64 = 7;
/// `XENMEM_memory_map`.
pub const XENMEM_MEMORY_MAP: u64 = 9;
/// `XENMEM_machine_memory_map`.
pub const XENMEM_MACHINE_MEMORY_MAP: u64 = 10;
/// `XENMEM_exchange`.
pub const XENMEM_EXCHANGE: u64 = 11;
/// `XENMEM_machphys_mapping`.
pub const XENMEM_MACHPHYS_MAPPING: u64 = 12;
/// `XENMEM_maximum_gpfn`.
pub const XENMEM_MAXIMUM_GPFN: u64 = 14;
/// `XENMEM_remove_from_physmap`.
pub const XENMEM_REMOVE_FROM_PHYSMAP: u64 = 15;

/// `XENMAPSPACE_shared_info`.
pub const XENMAPSPACE_SHARED_INFO: u32 = 0;
/// `XENMAPSPACE_grant_table`.
pub const XENMAPSPACE_GRANT_TABLE: u32 = 1;
/// `XENMAPSPACE_gmfn`.
pub const XENMAPSPACE_GMFN: u32 = 2;

/// [`MemoryReservation::mem_flags`] for memory below 2^`bits` (`XENMEMF_address_bits`); 0 for any.
pub const fn xenmemf_address_bits(bits: u8) -> u32 {
    bits as u32
}

/// `struct xen_memory_reservation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryReservation {
    /// The address of an array of `nr_extents` frame numbers; in, out or both, by the operation.
    pub extent_start: u64,
    /// How many extents.
    pub nr_extents: u64,
    /// Each is 2^`extent_order` pages.
    pub extent_order: u32,
    /// [`xenmemf_address_bits`].
    pub mem_flags: u32,
    /// Whose reservation: [`DomainId::SELF`].
    pub domid: DomainId,
    /// Padding of the C struct.
    pub padding: [u16; 3],
}

const _: () = assert!(size_of::<MemoryReservation>() == 32);

/// `XENMEM_exchange`'s argument (`struct xen_memory_exchange`): as many pages out as in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryExchange {
    /// What is given (`in`): machine frames.
    pub input: MemoryReservation,
    /// What is wanted (`out`): in, the pfns; out, the machine frames.
    pub output: MemoryReservation,
    /// Input extents done. 0 at the call.
    pub nr_exchanged: u64,
}

const _: () = assert!(size_of::<MemoryExchange>() == 72);

/// `XENMEM_machphys_mapping`'s answer (`struct xen_machphys_mapping`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MachphysMapping {
    /// First address of the table.
    pub v_start: u64,
    /// Its end.
    pub v_end: u64,
    /// The largest machine frame that has an entry.
    pub max_mfn: u64,
}

const _: () = assert!(size_of::<MachphysMapping>() == 24);

/// `struct xen_memory_domain`, the argument of the three questions about reservations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryDomain {
    /// Whose.
    pub domid: DomainId,
}

/// `XENMEM_add_to_physmap`'s argument (`struct xen_add_to_physmap`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct AddToPhysmap {
    /// Whose map.
    pub domid: DomainId,
    /// Pages, for the range space only.
    pub size: u16,
    /// `XENMAPSPACE_*`.
    pub space: u32,
    /// Index into the space.
    pub idx: u64,
    /// Where it shall appear.
    pub gpfn: u64,
}

const _: () = assert!(size_of::<AddToPhysmap>() == 24);

/// `XENMEM_memory_map`'s argument (`struct xen_memory_map`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryMap {
    /// In: entries the buffer holds. Out: entries written.
    pub nr_entries: u32,
    /// Padding of the C struct.
    pub padding: u32,
    /// The address of an array of [`E820Entry`].
    pub buffer: u64,
}

const _: () = assert!(size_of::<MemoryMap>() == 16);

/// An entry of the memory map: the BIOS's E820 form, packed to 20 bytes (`struct e820entry` of the toolstack; ACPI 6.4, 15.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, packed)]
pub struct E820Entry {
    /// First byte.
    pub addr: u64,
    /// Bytes.
    pub size: u64,
    /// 1 RAM, 2 reserved, 3 ACPI, 4 NVS, 5 unusable.
    pub kind: u32,
}

const _: () = assert!(size_of::<E820Entry>() == 20);
