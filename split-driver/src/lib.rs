//! Xen's split-driver model without I/O: shared rings, xenbus, the xenstore's wire codec. Floor 1.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod atomic;
pub mod byte_ring;
pub mod control;
pub mod domains;
#[cfg(all(feature = "fakes", not(loom)))]
pub mod fakes;
pub mod hypervisor;
pub mod kept;
pub mod memory;
pub mod registers;
pub mod ring;
pub mod store;
pub mod throttle;
pub mod time;
mod turns;
pub mod xenbus;
pub mod xenstore_client;
pub mod xs_wire;
