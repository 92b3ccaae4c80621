//! Benchmarks: ours and Linux's side by side in one boot, alternating; rows for people and for programs. Host.

pub mod blk;
mod common;
pub mod net;
mod table;

pub use table::{Better, Report, Row};
