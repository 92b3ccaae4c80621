//! The block tool, as cases and benchmarks call it inside a guest; its answers as numbers. Host.

use anyhow::{Context, Result};
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
    /// Likewise.
    pub max_us: f64,
}

/// Measures a device; `arguments` as `blocks bench --help` lists them.
///
/// # Errors
/// An I/O error, or a device that answers nothing.
pub fn bench(guest: &dyn Shell, device: &str, arguments: &str) -> Result<Load> {
    call(guest, "blocks", &format!("bench {device} {arguments}"))
}

/// Keeps a device busy in the background, one operation at a time, until [`stop_busy`].
///
/// # Errors
/// Where it cannot be started.
pub fn keep_busy(guest: &dyn Shell, device: &str) -> Result<()> {
    guest.sh("rm -f /tmp/enough")?;
    guest.start("busy", &format!("blocks bench {device} --reads 50 --seconds 3600 --until /tmp/enough"))
}

/// Ends what [`keep_busy`] began; gives what it measured.
///
/// # Errors
/// Where an operation failed.
pub fn stop_busy(guest: &dyn Shell) -> Result<Load> {
    guest.sh("touch /tmp/enough")?;
    let said = guest.finish("busy")?;
    let line = said.lines().last().unwrap_or_default();
    serde_json::from_str(line).with_context(|| format!("{}: the disk was kept busy and then '{said}'", guest.label()))
}

/// Writes, reads back and discards for some seconds; all that is read must be what was written.
///
/// # Errors
/// What was not.
pub fn verify(guest: &dyn Shell, device: &str, arguments: &str) -> Result<u64> {
    #[derive(Deserialize)]
    struct Verified {
        operations: u64,
    }
    let verified: Verified = call(guest, "blocks", &format!("verify {device} {arguments}"))?;
    Ok(verified.operations)
}
