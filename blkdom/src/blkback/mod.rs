//! blkback: the backend half of `io/blkif.h`. Pure but for the traits of `split_driver`. Floor 3.
//!
//! [`buses`] are the two that disks come on; [`request`] reads what a guest sends, [`journal`] has it for the next life, [`violation`] is why a vbd is closed; [`config`] and
//! [`nodes`] are what the store says. The requests' way to the disks and back is in [`crate::datapath`]; [`crate::backend`] joins both to
//! xenbus.

pub mod buses;
pub mod config;
pub mod journal;
pub mod nodes;
pub mod request;
pub mod violation;
