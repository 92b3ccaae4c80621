//! blkback: the backend half of `io/blkif.h`. Pure but for the traits of `split_driver`. Floor 3.
//!
//! [`buses`] are the two that disks come on; [`request`] reads what a guest sends, [`violation`] is why a vbd is closed; [`config`] is what the store says, and [`driver`] joins all
//! that to xenbus. The requests' way to the disks and back is in [`crate::datapath`].

pub mod buses;
pub mod config;
pub mod driver;
pub mod nodes;
pub mod request;
#[cfg(test)]
mod tests;
pub mod violation;
