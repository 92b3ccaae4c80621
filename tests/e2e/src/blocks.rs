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

/// How long none of a guest's writes came to its end.
#[derive(Clone, Debug, Deserialize)]
pub struct Gaps {
    /// Writes.
    pub writes: u64,
    /// Writes that failed.
    pub errors: u64,
    /// The longest time from a write to the next, in milliseconds.
    pub longest_gap_ms: f64,
}

/// Writes one block after the other in the background, until [`stop_gaps`].
///
/// # Errors
/// Where it cannot be started.
pub fn start_gaps(guest: &dyn Shell, device: &str) -> Result<()> {
    guest.sh("rm -f /tmp/enough /tmp/hold")?;
    guest.start("gaps", &format!("blocks gaps {device} --until /tmp/enough --hold /tmp/hold"))
}

/// Has the writer close its device until [`resume_gaps`].
///
/// # Errors
/// Where the guest does not answer.
pub fn hold_gaps(guest: &dyn Shell) -> Result<()> {
    guest.sh("touch /tmp/hold; usleep 200000").map(drop)
}

/// Has it go on.
///
/// # Errors
/// Where the guest does not answer.
pub fn resume_gaps(guest: &dyn Shell) -> Result<()> {
    guest.sh("rm /tmp/hold").map(drop)
}

/// Ends what [`start_gaps`] began; gives what it measured.
///
/// # Errors
/// Where it did not end well.
pub fn stop_gaps(guest: &dyn Shell) -> Result<Gaps> {
    guest.sh("touch /tmp/enough")?;
    let said = guest.finish("gaps")?;
    serde_json::from_str(said.trim_end()).with_context(|| format!("{}: the writer said '{said}'", guest.label()))
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
