//! blkback: the backend half of `io/blkif.h`. Pure but for the traits of `split_driver`. Floor 3.
//!
//! [`request`] reads what a guest sends, [`violation`] is why a vbd is closed, [`config`] is what the store says.
//! The requests' way to the disks and back is the data path's.

pub mod config;
pub mod request;
pub mod violation;
