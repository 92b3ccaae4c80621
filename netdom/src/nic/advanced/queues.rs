//! The registers of a queue that igb's and ixgbe's devices have at the same places: 82599 datasheet 8.2.3.8 and 8.2.3.9, 82576 datasheet
//! 8.10 and 8.12. Pure. Floor 3.

use crate::nic::Delay;
use crate::nic::Error;
use crate::nic::family::wait;
use crate::nic::ring::Ring;
use crate::nic::ring::left::{Place, Places};
use core::time::Duration;
use split_driver::memory::{DmaMemory, Mmio};
use split_driver::registers::{Base, Block, Reg};

/// Bytes from the registers of one queue to those of the next.
pub const BYTES: usize = 0x40;

/// The registers of a receive queue.
#[derive(Debug)]
pub enum ReceiveQueue {}

impl Block for ReceiveQueue {
    const BYTES: usize = BYTES;
}

/// The registers of a transmit queue.
#[derive(Debug)]
pub enum TransmitQueue {}

impl Block for TransmitQueue {
    const BYTES: usize = BYTES;
}

/// A register of a receive queue that holds a `T`.
pub type Receive<T> = Reg<ReceiveQueue, T>;
/// A register of a transmit queue that holds a `T`.
pub type Transmit<T> = Reg<TransmitQueue, T>;

/// RDBAL and RDBAH: the receive ring's address.
pub const RDBA: Base<ReceiveQueue> = Base::at(0x00);
/// RDLEN: bytes of the receive ring, a multiple of 128.
pub const RDLEN: Receive<u32> = Receive::at(0x08);
/// RDH: the next descriptor that the device fills.
pub const RDH: Receive<u32> = Receive::at(0x10);
/// RDT: one beyond the last descriptor that the device may fill.
pub const RDT: Receive<u32> = Receive::at(0x18);

/// TDBAL and TDBAH: the transmit ring's address.
pub const TDBA: Base<TransmitQueue> = Base::at(0x00);
/// TDLEN: bytes of the transmit ring, a multiple of 128.
pub const TDLEN: Transmit<u32> = Transmit::at(0x08);
/// TDH: the next descriptor that the device reads.
pub const TDH: Transmit<u32> = Transmit::at(0x10);
/// TDT: one beyond the last descriptor that the device may read.
pub const TDT: Transmit<u32> = Transmit::at(0x18);

/// Sets up a transmit ring, empty, of a queue that is disabled and whose registers begin at `at`.
pub fn set_transmit_ring<M: Mmio, D: DmaMemory>(mmio: &M, at: usize, ring: &Ring<D>) {
    TDBA.write(mmio, at, ring.device_address());
    TDLEN.write(mmio, at, ring.bytes());
    TDH.write(mmio, at, 0);
    TDT.write(mmio, at, 0);
}

/// The same of a receive ring.
pub fn set_receive_ring<M: Mmio, D: DmaMemory>(mmio: &M, at: usize, ring: &Ring<D>) {
    RDBA.write(mmio, at, ring.device_address());
    RDLEN.write(mmio, at, ring.bytes());
    RDH.write(mmio, at, 0);
    RDT.write(mmio, at, 0);
}

/// Where the device is in the rings of queues whose registers begin there.
pub fn places<M: Mmio>(mmio: &M, transmit: usize, receive: usize) -> Places {
    Places {
        transmit: Place { bytes: TDLEN.read(mmio, transmit), head: TDH.read(mmio, transmit) },
        receive: Place { bytes: RDLEN.read(mmio, receive), head: RDH.read(mmio, receive) },
    }
}

/// Waits until a queue's control register, of this name, says that it is enabled, or is not.
///
/// # Errors
/// [`Error::Stuck`].
pub(in crate::nic) fn confirm<T: Into<u32>>(
    register: &'static str,
    delay: Delay<'_>,
    read: impl Fn() -> T,
    done: impl Fn(&T) -> bool,
) -> Result<(), Error> {
    if wait(delay, Duration::from_micros(100), 100, || done(&read())) {
        return Ok(());
    }
    Err(Error::Stuck { register, value: read().into() })
}
