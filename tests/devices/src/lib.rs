//! Models of NICs: for tests and fuzzers of their drivers on a host, and over vfio-user for the lab. Host.
//!
//! | module | holds |
//! |---|---|
//! | [`bus`] | the interface of a model: accesses in, transfers and interrupts out, without I/O |
//! | [`e1000e`] | Intel's 82574 |
//! | [`igb`] | Intel's 82576, I350 and I210 |
//! | [`ixgbe`] | Intel's 82599, X540 and X550 |
//! | [`advanced`], [`transmit`], [`receive`], [`buffers`], [`ring`], [`queues`] | descriptors and queues |
//! | [`filter`], [`rss`] | which frames are taken, and for which queue |
//! | [`gigabit`], [`statistics`] | what the MACs of 1 Gbit/s share, and counters that all have |
//! | [`offload`], [`packet`], [`toeplitz`], [`checksum`], [`ethernet`] | offloads of packets |
//! | [`pause`] | flow control |
//! | [`pci`], [`registers`], [`i2c`] | parts of devices |
//! | [`fake`] | a model under a driver in a test |
//! | [`vfio_user`] | a model under QEMU |

pub mod advanced;
pub mod buffers;
pub mod bus;
pub mod checksum;
pub mod e1000e;
pub mod ethernet;
pub mod fake;
pub mod filter;
pub mod gigabit;
pub mod i2c;
pub mod igb;
pub mod ixgbe;
#[cfg(test)]
mod nonsense;
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
