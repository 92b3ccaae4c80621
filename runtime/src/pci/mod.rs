//! PCI devices by way of pcifront: what a driver sees of a device that `xl` passed to this domain. Floor 2.
//!
//! Everything works against a pciback that is *not* permissive: nothing is written into config space but COMMAND, which pciback
//! emulates, and interrupts are set up by its operations alone. From a device's discovery to its interrupts, pciback is asked four times
//! (five for a BAR of 64 bits).

mod config;
mod device;
mod error;
mod frontend;
mod interrupt;
pub(crate) mod kept;
mod operation;
mod states;
mod tenure;

pub use device::{Device, DeviceId, Unclosed};
pub use error::PciError;
pub use frontend::{Event, Frontend};
pub use interrupt::{InterruptKind, Interrupts};
pub use pci_types::PciAddress;
