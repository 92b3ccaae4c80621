//! A network driver domain: netback, a learning switch, Intel NIC drivers, on floors 0 and 1 alone. Floor 3.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod backend;
pub mod blame;
pub mod bond;
pub mod command_line;
pub mod credit;
pub mod datapath;
pub mod ethernet;
#[cfg(any(test, feature = "fakes"))]
pub mod fakes;
#[cfg(feature = "faults")]
mod faults;
mod hash;
pub mod kept;
pub mod netback;
pub mod nic;
pub mod offload;
pub mod packet;
pub mod policy;
pub mod router;
pub mod statistics;
pub mod switch;
