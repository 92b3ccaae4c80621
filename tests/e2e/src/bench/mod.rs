//! Benchmarks: ours and Linux's side by side, alternating; rows for people and for programs. Host.

pub mod blk;
pub(crate) mod common;
mod counted;
mod floods;
pub mod lives;
pub mod net;
pub mod store;
mod table;
pub(crate) mod topology;

pub use lives::Drawn;
pub use table::{Better, Report, Row, number};
pub use topology::{TOPOLOGIES, Topology};
