//! `elfnote.h`: what an image tells the domain builder. The notes' owner is `Xen`. Floor 0: no behaviour.

/// `XEN_ELFNOTE_INFO`.
pub const XEN_ELFNOTE_INFO: u32 = 0;
/// The entry point's address (`XEN_ELFNOTE_ENTRY`).
pub const XEN_ELFNOTE_ENTRY: u32 = 1;
/// The address of the page that becomes the hypercall page (`XEN_ELFNOTE_HYPERCALL_PAGE`).
pub const XEN_ELFNOTE_HYPERCALL_PAGE: u32 = 2;
/// The address to which pfn 0 is mapped (`XEN_ELFNOTE_VIRT_BASE`).
pub const XEN_ELFNOTE_VIRT_BASE: u32 = 3;
/// What is taken off the program headers' physical addresses (`XEN_ELFNOTE_PADDR_OFFSET`).
pub const XEN_ELFNOTE_PADDR_OFFSET: u32 = 4;
/// `xen-3.0` (`XEN_ELFNOTE_XEN_VERSION`).
pub const XEN_ELFNOTE_XEN_VERSION: u32 = 5;
/// A name (`XEN_ELFNOTE_GUEST_OS`).
pub const XEN_ELFNOTE_GUEST_OS: u32 = 6;
/// A version (`XEN_ELFNOTE_GUEST_VERSION`).
pub const XEN_ELFNOTE_GUEST_VERSION: u32 = 7;
/// `generic` (`XEN_ELFNOTE_LOADER`).
pub const XEN_ELFNOTE_LOADER: u32 = 8;
/// `XEN_ELFNOTE_PAE_MODE`.
pub const XEN_ELFNOTE_PAE_MODE: u32 = 9;
/// Required and supported features, by name (`XEN_ELFNOTE_FEATURES`).
pub const XEN_ELFNOTE_FEATURES: u32 = 10;
/// `XEN_ELFNOTE_BSD_SYMTAB`.
pub const XEN_ELFNOTE_BSD_SYMTAB: u32 = 11;
/// `XEN_ELFNOTE_HV_START_LOW`.
pub const XEN_ELFNOTE_HV_START_LOW: u32 = 12;
/// Mask and value of a present page-table entry (`XEN_ELFNOTE_L1_MFN_VALID`).
pub const XEN_ELFNOTE_L1_MFN_VALID: u32 = 13;
/// `XEN_ELFNOTE_SUSPEND_CANCEL`.
pub const XEN_ELFNOTE_SUSPEND_CANCEL: u32 = 14;
/// Where the p2m shall be mapped (`XEN_ELFNOTE_INIT_P2M`).
pub const XEN_ELFNOTE_INIT_P2M: u32 = 15;
/// The guest takes its module unmapped (`XEN_ELFNOTE_MOD_START_PFN`).
pub const XEN_ELFNOTE_MOD_START_PFN: u32 = 16;
/// Supported features, as bits (`XEN_ELFNOTE_SUPPORTED_FEATURES`).
pub const XEN_ELFNOTE_SUPPORTED_FEATURES: u32 = 17;
/// The PVH entry point (`XEN_ELFNOTE_PHYS32_ENTRY`).
pub const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
