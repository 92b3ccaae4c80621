//! Benchmarks: ours and Linux's side by side, alternating; rows for people and for programs. Host.

pub mod blk;
pub(crate) mod common;
mod counted;
mod course;
pub mod lives;
pub mod net;
pub mod store;
mod table;

pub use course::Drawn;
pub use table::{Better, Report, Row, number};
