//! `io/pciif.h`: PCI configuration space by way of pciback. Floor 0: no behaviour.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The protocol's version, the frontend's `magic` node (`XEN_PCI_MAGIC`).
pub const XEN_PCI_MAGIC: &str = "7";

/// `XEN_PCI_OP_conf_read`.
pub const XEN_PCI_OP_CONF_READ: u32 = 0;
/// `XEN_PCI_OP_conf_write`.
pub const XEN_PCI_OP_CONF_WRITE: u32 = 1;
/// `XEN_PCI_OP_enable_msi`.
pub const XEN_PCI_OP_ENABLE_MSI: u32 = 2;
/// `XEN_PCI_OP_disable_msi`.
pub const XEN_PCI_OP_DISABLE_MSI: u32 = 3;
/// `XEN_PCI_OP_enable_msix`.
pub const XEN_PCI_OP_ENABLE_MSIX: u32 = 4;
/// `XEN_PCI_OP_disable_msix`.
pub const XEN_PCI_OP_DISABLE_MSIX: u32 = 5;
/// `XEN_PCI_OP_aer_detected`.
pub const XEN_PCI_OP_AER_DETECTED: u32 = 6;
/// `XEN_PCI_OP_aer_resume`.
pub const XEN_PCI_OP_AER_RESUME: u32 = 7;
/// `XEN_PCI_OP_aer_mmio`.
pub const XEN_PCI_OP_AER_MMIO: u32 = 8;
/// `XEN_PCI_OP_aer_slotreset`.
pub const XEN_PCI_OP_AER_SLOTRESET: u32 = 9;
/// `XEN_PCI_OP_enable_multi_msi`.
pub const XEN_PCI_OP_ENABLE_MULTI_MSI: u32 = 10;

/// `XEN_PCI_ERR_success`.
pub const XEN_PCI_ERR_SUCCESS: i32 = 0;
/// `XEN_PCI_ERR_dev_not_found`.
pub const XEN_PCI_ERR_DEV_NOT_FOUND: i32 = -1;
/// `XEN_PCI_ERR_invalid_offset`.
pub const XEN_PCI_ERR_INVALID_OFFSET: i32 = -2;
/// `XEN_PCI_ERR_access_denied`.
pub const XEN_PCI_ERR_ACCESS_DENIED: i32 = -3;
/// `XEN_PCI_ERR_not_implemented`.
pub const XEN_PCI_ERR_NOT_IMPLEMENTED: i32 = -4;
/// `XEN_PCI_ERR_op_failed`.
pub const XEN_PCI_ERR_OP_FAILED: i32 = -5;

/// Entries of [`PciOp::msix_entries`] (`SH_INFO_MAX_VEC`).
pub const SH_INFO_MAX_VEC: usize = 128;

bitflags! {
    /// [`PciSharedInfo::flags`].
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PciFlags: u32 {
        /// The frontend's operation waits for the backend (`XEN_PCIF_active`).
        const FRONTEND_ACTIVE = 1 << 0;
        /// The frontend handles errors of the bus (`XEN_PCIB_AERHANDLER`).
        const AER_HANDLER = 1 << 1;
        /// The backend's operation waits for the frontend (`XEN_PCIB_active`).
        const BACKEND_ACTIVE = 1 << 2;
    }
}

/// `struct xen_msix_entry`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MsixEntry {
    /// Out: the pirq.
    pub vector: u16,
    /// In: the index in the device's table.
    pub entry: u16,
}

const _: () = assert!(size_of::<MsixEntry>() == 4);

/// `struct xen_pci_op`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PciOp {
    /// `XEN_PCI_OP_*`.
    pub cmd: u32,
    /// Out: `XEN_PCI_ERR_*`, or an errno negated.
    pub err: i32,
    /// The PCI segment.
    pub domain: u32,
    /// The bus.
    pub bus: u32,
    /// Device (5 bits) and function (3).
    pub devfn: u32,
    /// In configuration space.
    pub offset: i32,
    /// Bytes: 1, 2 or 4.
    pub size: i32,
    /// In, out: the register's value; the pirq of an MSI; the count of MSI-X entries.
    pub value: u32,
    /// More about the operation.
    pub info: u32,
    /// For MSI-X.
    pub msix_entries: [MsixEntry; SH_INFO_MAX_VEC],
}

const _: () = assert!(size_of::<PciOp>() == 548);

/// `struct xen_pcie_aer_op`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PcieAerOp {
    /// `XEN_PCI_OP_aer_*`.
    pub cmd: u32,
    /// The answer.
    pub err: i32,
    /// The PCI segment.
    pub domain: u32,
    /// The bus.
    pub bus: u32,
    /// Device and function.
    pub devfn: u32,
}

const _: () = assert!(size_of::<PcieAerOp>() == 20);

/// The page that pcifront shares (`struct xen_pci_sharedinfo`). Pciback writes it too: access by atomics at these offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct PciSharedInfo {
    /// [`PciFlags`].
    pub flags: u32,
    /// The frontend's operation.
    pub op: PciOp,
    /// The backend's.
    pub aer_op: PcieAerOp,
}

const _: () = assert!(size_of::<PciSharedInfo>() == 572);
