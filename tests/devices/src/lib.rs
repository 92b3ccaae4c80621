//! Models of NICs and of disks' controllers: for tests and fuzzers of their drivers on a host, and over vfio-user for the lab. Host.
//!
//! | module | holds |
//! |---|---|
//! | [`bus`] | the interface of a model: accesses in, transfers and interrupts out, without I/O |
//! | [`e1000e`] | Intel's 82574 |
//! | [`igb`] | Intel's 82576, I350 and I210 |
//! | [`ixgbe`] | Intel's 82599, X540 and X550 |
//! | [`nvme`] | an NVMe controller |
//! | [`ahci`] | an AHCI adapter and its drives |
//! | [`advanced`], [`transmit`], [`receive`], [`buffers`], [`ring`], [`queues`] | descriptors and queues of NICs |
//! | [`filter`], [`rss`] | which frames are taken, and for which queue |
//! | [`gigabit`], [`statistics`] | what the MACs of 1 Gbit/s share, and counters that all have |
//! | [`offload`], [`packet`], [`toeplitz`], [`checksum`], [`ethernet`] | offloads of packets |
//! | [`pause`] | flow control |
//! | [`medium`] | what a disk holds |
//! | [`work`] | what a device does in steps, between which it waits for memory |
//! | [`pci`], [`registers`], [`i2c`] | parts of devices |
//! | [`fake`] | a model under a driver in a test |
//! | [`hostile`] | a model that answers nonsense, and what must hold of its driver |
//! | [`vfio_user`] | a model under QEMU |

pub mod advanced;
pub mod ahci;
pub mod buffers;
pub mod bus;
pub mod checksum;
pub mod e1000e;
pub mod ethernet;
pub mod fake;
pub mod filter;
pub mod gigabit;
pub mod hostile;
pub mod i2c;
pub mod igb;
pub mod ixgbe;
pub mod medium;
#[cfg(test)]
mod nonsense;
pub mod nvme;
pub mod offload;
pub mod packet;
pub mod pause;
pub mod pci;
pub mod queues;
pub mod receive;
pub mod registers;
pub mod ring;
pub mod rss;
pub mod statistics;
pub mod toeplitz;
pub mod transmit;
pub mod vfio_user;
pub mod work;
