//! Writes one block after the other, and says how long none was written; a device that goes is waited for. Linux user space.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::Failure;
use crate::device::{Buffer, open, size};

/// How soon a device that failed is tried again.
const AGAIN: Duration = Duration::from_millis(5);
/// Bytes of a write.
const SIZE: usize = 4096;

#[derive(Args)]
pub(crate) struct Arguments {
    device: PathBuf,
    /// Ends when this file exists
    #[arg(long)]
    until: PathBuf,
    /// The device is closed as long as this file exists
    #[arg(long)]
    hold: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What came of the writes.
#[derive(Debug, Default)]
struct Gaps {
    writes: u64,
    errors: u64,
    longest: Duration,
    last: Option<Instant>,
}

impl Gaps {
    /// Takes in the end of a write.
    fn handle(&mut self, good: bool, now: Instant) {
        if !good {
            self.errors += 1;
            return;
        }
        self.writes += 1;
        if let Some(last) = self.last.replace(now) {
            self.longest = self.longest.max(now.saturating_duration_since(last));
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<Value, Failure> {
    let mut gaps = Gaps::default();
    let mut random = StdRng::seed_from_u64(arguments.seed);
    let mut buffer = Buffer::new(SIZE);
    random.fill(buffer.all());
    // A device that is not there at first is a mistake.
    let mut device = Some(device(&arguments.device)?);
    while !arguments.until.exists() {
        if arguments.hold.as_ref().is_some_and(|file| file.exists()) {
            device = None;
            thread::sleep(AGAIN);
            continue;
        }
        let Some((file, blocks)) = &device else {
            thread::sleep(AGAIN);
            device = self::device(&arguments.device).ok();
            continue;
        };
        let written = file.write_all_at(buffer.all(), random.random_range(0..*blocks) * SIZE as u64);
        gaps.handle(written.is_ok(), Instant::now());
        if written.is_err() {
            device = None;
        }
    }
    Ok(json!({
        "writes": gaps.writes,
        "errors": gaps.errors,
        "longest_gap_ms": gaps.longest.as_secs_f64() * 1e3,
    }))
}

/// A device and the blocks that it has.
fn device(path: &Path) -> Result<(File, u64), Failure> {
    let file = open(path, true, false)?;
    let blocks = size(&file)? / SIZE as u64;
    if blocks == 0 {
        return Err("the device is too small".into());
    }
    Ok((file, blocks))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_from_a_good_write_to_the_next_one() {
        let start = Instant::now();
        let mut gaps = Gaps::default();
        for (good, ms) in [(false, 0), (true, 500), (true, 510), (false, 530), (false, 900), (true, 910), (true, 1000)]
        {
            gaps.handle(good, start + Duration::from_millis(ms));
        }
        assert_eq!((gaps.writes, gaps.errors, gaps.longest), (4, 3, Duration::from_millis(400)));
    }
}
