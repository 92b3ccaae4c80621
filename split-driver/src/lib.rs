//! Xen's split-driver model without I/O: shared rings, xenbus, the xenstore's wire codec. Floor 1.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod hypervisor;
pub mod memory;
pub mod store;
pub mod time;
