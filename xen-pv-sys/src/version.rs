//! `version.h` and `features.h`. Floor 0: no behaviour.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The version: major in the high half, minor in the low one (`XENVER_version`).
pub const XENVER_VERSION: u64 = 0;
/// `XENVER_extraversion`: [`ExtraVersion`].
pub const XENVER_EXTRAVERSION: u64 = 1;
/// `XENVER_compile_info`.
pub const XENVER_COMPILE_INFO: u64 = 2;
/// `XENVER_capabilities`: [`CapabilitiesInfo`].
pub const XENVER_CAPABILITIES: u64 = 3;
/// `XENVER_changeset`.
pub const XENVER_CHANGESET: u64 = 4;
/// `XENVER_platform_parameters`: the address at which Xen begins.
pub const XENVER_PLATFORM_PARAMETERS: u64 = 5;
/// `XENVER_get_features`, with [`FeatureInfo`].
pub const XENVER_GET_FEATURES: u64 = 6;
/// `XENVER_pagesize`.
pub const XENVER_PAGESIZE: u64 = 7;
/// `XENVER_guest_handle`.
pub const XENVER_GUEST_HANDLE: u64 = 8;
/// `XENVER_commandline`.
pub const XENVER_COMMANDLINE: u64 = 9;

/// `xen_extraversion_t`: terminated text.
pub type ExtraVersion = [u8; 16];
/// `xen_capabilities_info_t`: terminated text.
pub type CapabilitiesInfo = [u8; 1024];

/// `struct xen_feature_info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FeatureInfo {
    /// In: which 32 features.
    pub submap_idx: u32,
    /// Out: a bit for each.
    pub submap: u32,
}

const _: () = assert!(size_of::<FeatureInfo>() == 8);

/// `XENFEAT_writable_page_tables`.
pub const XENFEAT_WRITABLE_PAGE_TABLES: u32 = 0;
/// `XENFEAT_writable_descriptor_tables`.
pub const XENFEAT_WRITABLE_DESCRIPTOR_TABLES: u32 = 1;
/// `XENFEAT_auto_translated_physmap`.
pub const XENFEAT_AUTO_TRANSLATED_PHYSMAP: u32 = 2;
/// `XENFEAT_supervisor_mode_kernel`.
pub const XENFEAT_SUPERVISOR_MODE_KERNEL: u32 = 3;
/// `XENFEAT_pae_pgdir_above_4gb`.
pub const XENFEAT_PAE_PGDIR_ABOVE_4GB: u32 = 4;
/// `XENFEAT_mmu_pt_update_preserve_ad`.
pub const XENFEAT_MMU_PT_UPDATE_PRESERVE_AD: u32 = 5;
/// `XENFEAT_gnttab_map_avail_bits`.
pub const XENFEAT_GNTTAB_MAP_AVAIL_BITS: u32 = 7;
/// `XENFEAT_dom0`.
pub const XENFEAT_DOM0: u32 = 11;
/// `XENFEAT_memory_op_vnode_supported`.
pub const XENFEAT_MEMORY_OP_VNODE_SUPPORTED: u32 = 13;
/// `XENFEAT_NR_SUBMAPS`.
pub const XENFEAT_NR_SUBMAPS: u32 = 1;
