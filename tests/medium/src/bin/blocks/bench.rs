//! Measures a device: a pattern of reads and writes, so many at a time. Linux user space.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::Failure;
use crate::device::{Buffer, open, size};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Pattern {
    /// Anywhere
    Random,
    /// One after the other, each thread in its own part
    Sequential,
    /// Writes of the size anywhere, each followed by a flush: the flush is what is measured
    Flush,
}

#[derive(Args)]
pub(crate) struct Arguments {
    device: PathBuf,
    /// Where operations go
    #[arg(long, value_enum, default_value = "random")]
    pattern: Pattern,
    /// Percent of the operations that read
    #[arg(long, default_value_t = 100)]
    reads: u32,
    /// Bytes of an operation
    #[arg(long, default_value_t = 4096)]
    size: usize,
    /// Operations at a time
    #[arg(long, default_value_t = 1)]
    depth: u64,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Ends sooner, when this file exists
    #[arg(long)]
    until: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Value, Failure> {
    let blocks = size(&open(&arguments.device, false, false)?)? / arguments.size as u64;
    if blocks < arguments.depth {
        return Err("the device is too small".into());
    }
    let start = Instant::now();
    let end = start + Duration::from_secs_f64(arguments.seconds);
    let results: Vec<Result<Vec<u32>, Failure>> = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..arguments.depth).map(|lane| scope.spawn(move || one(arguments, lane, blocks, end))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err("a thread died".into()))).collect()
    });
    let seconds = start.elapsed().as_secs_f64();
    let mut latencies = results.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
    latencies.sort_unstable();
    let at = |part: f64| latencies.get((latencies.len() as f64 * part) as usize).copied();
    let operations = latencies.len() as f64;
    Ok(json!({
        "operations": latencies.len(),
        "seconds": seconds,
        "iops": operations / seconds,
        "megabytes_per_second": operations * arguments.size as f64 / seconds / 1e6,
        "median_us": at(0.5),
        "p99_us": at(0.99),
        "max_us": latencies.last(),
    }))
}

/// One operation after the other until the end; the microseconds that each took.
fn one(arguments: &Arguments, lane: u64, blocks: u64, end: Instant) -> Result<Vec<u32>, Failure> {
    let writes = arguments.reads < 100 || arguments.pattern == Pattern::Flush;
    let file = open(&arguments.device, writes, false)?;
    let mut random = StdRng::seed_from_u64(arguments.seed + lane);
    let mut buffer = Buffer::new(arguments.size);
    random.fill(buffer.all());
    let part = blocks / arguments.depth;
    let mut latencies = Vec::new();
    let mut next = 0;
    while Instant::now() < end && !arguments.until.as_ref().is_some_and(|path| path.exists()) {
        let block = match arguments.pattern {
            Pattern::Sequential => lane * part + next % part,
            _ => random.random_range(0..blocks),
        };
        next += 1;
        let offset = block * arguments.size as u64;
        let mut start = Instant::now();
        if arguments.pattern == Pattern::Flush {
            file.write_all_at(buffer.all(), offset)?;
            start = Instant::now();
            file.sync_data()?;
        } else if random.random_range(0..100) < arguments.reads {
            file.read_exact_at(buffer.all(), offset)?;
        } else {
            file.write_all_at(buffer.all(), offset)?;
        }
        latencies.push(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    Ok(latencies)
}
