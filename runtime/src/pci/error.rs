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
    /// The store names a page or a channel to pciback that the last life did not have.
    NotInherited,
    /// No page was to be had for the ring to pciback.
    OutOfMemory,
}

impl core::fmt::Display for PciError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotInherited => formatter.write_str("the page or the channel to pciback is not the last life's"),
            Self::NotFound => formatter.write_str("pciback knows no such device"),
            Self::Refused { command, error } => write!(formatter, "pciback refused command {command} with {error}"),
            Self::Timeout { command } => write!(formatter, "pciback did not answer command {command}"),
            Self::UnusableBar { index, address } => write!(formatter, "BAR {index} is unusable, with {address:#x}"),
            Self::BadPirq(value) => write!(formatter, "pciback gave {value} for an interrupt"),
            Self::NoInterrupt => formatter.write_str("the device has no interrupt that can be bound"),
            Self::Store(error) => error.fmt(formatter),
            Self::Xen(error) => error.fmt(formatter),
            Self::OutOfMemory => formatter.write_str("no page for the ring to pciback"),
        }
    }
}

impl core::error::Error for PciError {}

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
