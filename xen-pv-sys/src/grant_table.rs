//! `grant_table.h`. Floor 0: no behaviour.

use crate::{DomainId, GrantRef, Mfn};
use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `GNTTABOP_map_grant_ref`, with [`MapGrantRef`].
pub const GNTTABOP_MAP_GRANT_REF: u64 = 0;
/// `GNTTABOP_unmap_grant_ref`, with [`UnmapGrantRef`].
pub const GNTTABOP_UNMAP_GRANT_REF: u64 = 1;
/// `GNTTABOP_setup_table`, with [`SetupTable`].
pub const GNTTABOP_SETUP_TABLE: u64 = 2;
/// `GNTTABOP_dump_table`.
pub const GNTTABOP_DUMP_TABLE: u64 = 3;
/// `GNTTABOP_transfer`.
pub const GNTTABOP_TRANSFER: u64 = 4;
/// `GNTTABOP_copy`, with [`GrantCopy`].
pub const GNTTABOP_COPY: u64 = 5;
/// `GNTTABOP_query_size`, with [`QuerySize`].
pub const GNTTABOP_QUERY_SIZE: u64 = 6;
/// `GNTTABOP_unmap_and_replace`.
pub const GNTTABOP_UNMAP_AND_REPLACE: u64 = 7;
/// `GNTTABOP_set_version`, with [`SetVersion`].
pub const GNTTABOP_SET_VERSION: u64 = 8;
/// `GNTTABOP_get_status_frames`.
pub const GNTTABOP_GET_STATUS_FRAMES: u64 = 9;
/// `GNTTABOP_get_version`, with [`GetVersion`].
pub const GNTTABOP_GET_VERSION: u64 = 10;
/// `GNTTABOP_swap_grant_ref`.
pub const GNTTABOP_SWAP_GRANT_REF: u64 = 11;
/// `GNTTABOP_cache_flush`.
pub const GNTTABOP_CACHE_FLUSH: u64 = 12;

/// Done (`GNTST_okay`).
pub const GNTST_OKAY: i16 = 0;
/// Any other error (`GNTST_general_error`).
pub const GNTST_GENERAL_ERROR: i16 = -1;
/// No such domain (`GNTST_bad_domain`).
pub const GNTST_BAD_DOMAIN: i16 = -2;
/// No such grant, or one for another domain (`GNTST_bad_gntref`).
pub const GNTST_BAD_GNTREF: i16 = -3;
/// No such mapping (`GNTST_bad_handle`).
pub const GNTST_BAD_HANDLE: i16 = -4;
/// No address that can be mapped (`GNTST_bad_virt_addr`).
pub const GNTST_BAD_VIRT_ADDR: i16 = -5;
/// No such device address (`GNTST_bad_dev_addr`).
pub const GNTST_BAD_DEV_ADDR: i16 = -6;
/// The IOMMU's table is full (`GNTST_no_device_space`).
pub const GNTST_NO_DEVICE_SPACE: i16 = -7;
/// Not granted for that use (`GNTST_permission_denied`).
pub const GNTST_PERMISSION_DENIED: i16 = -8;
/// Not a page that can be granted (`GNTST_bad_page`).
pub const GNTST_BAD_PAGE: i16 = -9;
/// The copy leaves its page (`GNTST_bad_copy_arg`).
pub const GNTST_BAD_COPY_ARG: i16 = -10;
/// A frame number too large (`GNTST_address_too_big`).
pub const GNTST_ADDRESS_TOO_BIG: i16 = -11;
/// Not now; try again (`GNTST_eagain`).
pub const GNTST_EAGAIN: i16 = -12;
/// No mapping slots left (`GNTST_no_space`).
pub const GNTST_NO_SPACE: i16 = -13;

/// Entries that the tools own (`GNTTAB_NR_RESERVED_ENTRIES`).
pub const GNTTAB_NR_RESERVED_ENTRIES: u32 = 8;
/// The console ring's entry (`GNTTAB_RESERVED_CONSOLE`).
pub const GNTTAB_RESERVED_CONSOLE: GrantRef = GrantRef(0);
/// The xenstore ring's entry (`GNTTAB_RESERVED_XENSTORE`).
pub const GNTTAB_RESERVED_XENSTORE: GrantRef = GrantRef(1);

bitflags! {
    /// [`GrantEntryV1::flags`] (`GTF_*`). The low two bits are a kind, not flags; only permit_access is used here.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct GrantEntryFlags: u16 {
        /// The domain may map and copy (`GTF_permit_access`).
        const PERMIT_ACCESS = 1;
        /// It may not write (`GTF_readonly`).
        const READONLY = 1 << 2;
        /// Xen: in use for reading (`GTF_reading`).
        const READING = 1 << 3;
        /// Xen: in use for writing (`GTF_writing`).
        const WRITING = 1 << 4;
    }
}

bitflags! {
    /// [`MapGrantRef::flags`] (`GNTMAP_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MapFlags: u32 {
        /// For devices (`GNTMAP_device_map`).
        const DEVICE_MAP = 1 << 0;
        /// At `host_addr` (`GNTMAP_host_map`).
        const HOST_MAP = 1 << 1;
        /// For reading only (`GNTMAP_readonly`).
        const READONLY = 1 << 2;
        /// Visible in user mode (`GNTMAP_application_map`).
        const APPLICATION_MAP = 1 << 3;
        /// `host_addr` is the machine address of the page-table entry (`GNTMAP_contains_pte`).
        const CONTAINS_PTE = 1 << 4;
    }
}

/// One end of a copy (`gnttab_copy.source` and `.dest`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CopyEnd {
    /// The grant reference (low 32 bits) where the end is a grant, else the machine frame.
    pub reference_or_frame: u64,
    /// The granting domain, or [`DomainId::SELF`].
    pub domain: DomainId,
    /// Bytes into the page.
    pub offset: u16,
    /// Padding of the C union's alignment.
    pub padding: u32,
}

impl CopyEnd {
    /// A page of the local domain.
    pub const fn local(frame: Mfn, offset: u16) -> Self {
        Self { reference_or_frame: frame.0, domain: DomainId::SELF, offset, padding: 0 }
    }

    /// A page that `domain` granted.
    pub const fn granted(domain: DomainId, reference: GrantRef, offset: u16) -> Self {
        Self { reference_or_frame: reference.0 as u64, domain, offset, padding: 0 }
    }
}

/// `GNTTABOP_copy`'s argument (`gnttab_copy`): 40 bytes; `length` bytes from `source` to `destination`, neither crossing its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GrantCopy {
    /// Where from.
    pub source: CopyEnd,
    /// Where to.
    pub destination: CopyEnd,
    /// Bytes to copy.
    pub length: u16,
    /// [`GrantCopy::SOURCE_GRANT`], [`GrantCopy::DESTINATION_GRANT`].
    pub flags: u16,
    /// Out: `GNTST_*`, 0 for success.
    pub status: i16,
    /// Tail padding of the C struct.
    pub padding: u16,
}

const _: () = assert!(size_of::<GrantCopy>() == 40);

impl GrantCopy {
    /// `GNTCOPY_source_gref`.
    pub const SOURCE_GRANT: u16 = 1;
    /// `GNTCOPY_dest_gref`.
    pub const DESTINATION_GRANT: u16 = 2;
}

/// An entry of the grant table, version 1 (`struct grant_entry_v1`). Xen writes `flags` too: change it by compare-and-swap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GrantEntryV1 {
    /// [`GrantEntryFlags`]; 0 for free.
    pub flags: u16,
    /// Who may.
    pub domid: u16,
    /// Which frame.
    pub frame: u32,
}

const _: () = assert!(size_of::<GrantEntryV1>() == 8);

/// `struct gnttab_map_grant_ref`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MapGrantRef {
    /// Where: a virtual address, or a page-table entry's machine address.
    pub host_addr: u64,
    /// [`MapFlags`].
    pub flags: u32,
    /// What (`ref`).
    pub reference: GrantRef,
    /// Whose (`dom`).
    pub domain: DomainId,
    /// Out: `GNTST_*`.
    pub status: i16,
    /// Out: for the unmapping.
    pub handle: u32,
    /// Out: the machine address of the frame.
    pub dev_bus_addr: u64,
}

const _: () = assert!(size_of::<MapGrantRef>() == 32);

/// `struct gnttab_unmap_grant_ref`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct UnmapGrantRef {
    /// As at the mapping.
    pub host_addr: u64,
    /// As the mapping gave it, for a device mapping; else 0.
    pub dev_bus_addr: u64,
    /// Which mapping.
    pub handle: u32,
    /// Out: `GNTST_*`.
    pub status: i16,
    /// Padding of the C struct.
    pub padding: u16,
}

const _: () = assert!(size_of::<UnmapGrantRef>() == 24);

/// `struct gnttab_setup_table`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetupTable {
    /// Whose (`dom`): [`DomainId::SELF`].
    pub domain: DomainId,
    /// Padding of the C struct.
    pub padding0: u16,
    /// How many frames the table shall have at least.
    pub nr_frames: u32,
    /// Out: `GNTST_*`.
    pub status: i16,
    /// Padding of the C struct.
    pub padding1: [u16; 3],
    /// The address of an array for the machine frames.
    pub frame_list: u64,
}

const _: () = assert!(size_of::<SetupTable>() == 24);

/// `struct gnttab_query_size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct QuerySize {
    /// Whose (`dom`).
    pub domain: DomainId,
    /// Padding of the C struct.
    pub padding0: u16,
    /// Out: frames now.
    pub nr_frames: u32,
    /// Out: frames at most.
    pub max_nr_frames: u32,
    /// Out: `GNTST_*`.
    pub status: i16,
    /// Padding of the C struct.
    pub padding1: u16,
}

const _: () = assert!(size_of::<QuerySize>() == 16);

/// `struct gnttab_set_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetVersion {
    /// In: wanted. Out: in use.
    pub version: u32,
}

/// `struct gnttab_get_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct GetVersion {
    /// Whose (`dom`).
    pub domain: DomainId,
    /// Zero.
    pub pad: u16,
    /// Out.
    pub version: u32,
}

const _: () = assert!(size_of::<GetVersion>() == 8);
