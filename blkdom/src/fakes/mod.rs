//! A guest's blkfront and a disk for tests, fuzzers and benchmarks on a host. Floor 3.

pub mod disk;
pub mod frontend;

pub use disk::{Drive, FakeDisk, Fault, FaultyRange, geometry};
pub use frontend::{Frontend, Setup};
