//! Why something with a PCI device failed. Pure. Floor 2.

use split_driver::hypervisor::XenError;
use split_driver::memory::OutOfMemory;
use split_driver::store::StoreError;

/// Why something with a PCI device failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PciError {
    /// pciback knows no such device (`XEN_PCI_ERR_dev_not_found`).
    NotFound,
    /// pciback refused, with its negative error (`XEN_PCI_ERR_*` of `pciif.h`, or an errno).
    Refused {
        /// `XEN_PCI_OP_*`.
        command: u32,
        /// What it answered.
        error: i32,
    },
    /// pciback did not answer in time.
    Timeout {
        /// `XEN_PCI_OP_*`.
        command: u32,
    },
    /// The BAR is absent, of ports, or describes memory that cannot be.
    UnusableBar {
        /// 0 to 5.
        index: u8,
        /// What it says of the address.
        address: u64,
    },
    /// pciback gave an interrupt number that cannot be.
    BadPirq(u32),
    /// The device has no interrupt that could be bound.
    NoInterrupt,
    /// The store refused.
    Store(StoreError),
    /// Xen refused.
    Xen(XenError),
    /// No page was to be had for the ring to pciback.
    OutOfMemory,
}

impl From<StoreError> for PciError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<XenError> for PciError {
    fn from(error: XenError) -> Self {
        Self::Xen(error)
    }
}

impl From<OutOfMemory> for PciError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}
