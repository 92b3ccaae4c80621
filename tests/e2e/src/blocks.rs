//! The block tool, as cases and benchmarks call it inside a guest; its answers as numbers. Host.

use anyhow::Result;
use serde::Deserialize;

use crate::traffic::{Shell, call};

/// What a measurement of a block device came to.
#[derive(Clone, Debug, Deserialize)]
pub struct Load {
    /// Operations that were answered.
    pub operations: u64,
    /// How long it took.
    pub seconds: f64,
    /// Operations a second.
    pub iops: f64,
    /// 10^6 bytes a second.
    pub megabytes_per_second: f64,
    /// Of an operation, in microseconds.
    pub median_us: f64,
    /// Likewise.
    pub p99_us: f64,
}

/// Measures a device; `arguments` as `blocks bench --help` lists them.
///
/// # Errors
/// An I/O error, or a device that answers nothing.
pub fn bench(guest: &dyn Shell, device: &str, arguments: &str) -> Result<Load> {
    call(guest, "blocks", &format!("bench {device} {arguments}"))
}
