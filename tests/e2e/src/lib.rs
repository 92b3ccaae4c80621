//! End-to-end: driver domains on real Xen, with the real toolstack and unmodified Linux guests. Host.
//!
//! A [`Stage`] is one boot of the lab with what the cases need; `cases::ALL` is what `cargo xtask test` runs on each row of
//! the matrix. The demo and the benchmarks stand on the same stage.
#![forbid(unsafe_code)]

pub mod asked;
pub mod attack;
pub mod bench;
pub mod blocks;
pub mod cases;
pub mod corpus;
pub mod demo;
pub mod differential;
pub mod driver_domain;
pub mod host_image;
mod install;
pub mod media;
mod offloads;
mod rebuilt;
mod served;
pub mod stage;
pub mod symbolize;
pub mod torture;
pub mod traffic;

pub use driver_domain::{Counts, DriverDomain, DriverDomainConfig, Resources};
pub use stage::{Images, Stage};
