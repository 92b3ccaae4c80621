//! A block driver domain: blkback, volumes, NVMe and AHCI drivers, on floors 0 and 1 alone. Floor 3.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod backend;
pub mod blkback;
pub mod datapath;
pub mod disk;
#[cfg(any(test, feature = "fakes"))]
pub mod fakes;
pub mod kept;
pub mod volume;
