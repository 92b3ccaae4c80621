//! Writes, reads back, flushes and discards; what is read must be what was written last. Linux user space.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use medium::torture::{LARGEST as SECTORS, Load, Operation, SECTOR};
use serde_json::{Value, json};

use crate::Failure;
use crate::device::{Buffer, open, size};
use crate::torture::discard;

/// Bytes of the largest operation.
const LARGEST: usize = SECTORS as usize * SECTOR;

#[derive(Args)]
pub(crate) struct Arguments {
    device: PathBuf,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long, default_value_t = 4)]
    lanes: u64,
    /// Ends sooner, when this file exists
    #[arg(long)]
    until: Option<PathBuf>,
    /// The device can discard
    #[arg(long)]
    discard: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Value, Failure> {
    let sectors = size(&open(&arguments.device, false, false)?)? / SECTOR as u64;
    let load = Load::new(arguments.seed, arguments.lanes, sectors);
    let end = Instant::now() + Duration::from_secs_f64(arguments.seconds);
    let results: Vec<Result<u64, Failure>> = thread::scope(|scope| {
        let lanes: Vec<_> =
            (0..arguments.lanes).map(|lane| scope.spawn(move || one(arguments, load, lane, end))).collect();
        lanes.into_iter().map(|lane| lane.join().unwrap_or_else(|_| Err("a lane died".into()))).collect()
    });
    let operations: u64 = results.into_iter().collect::<Result<Vec<_>, _>>()?.iter().sum();
    Ok(json!({ "operations": operations }))
}

/// One lane; each write is read back, and at the end once more all that no later operation touched.
fn one(arguments: &Arguments, load: Load, lane: u64, end: Instant) -> Result<u64, Failure> {
    let device = open(&arguments.device, true, false)?;
    let mut buffer = Buffer::new(LARGEST);
    let mut expected = vec![0; LARGEST];
    // Which operation wrote each sector of the lane's last; 0 for unknown.
    let mut last = vec![0_u64; load.region as usize];
    let first = lane * load.region;
    let mut done = 0;
    for (number, operation) in (1..).zip(load.operations(lane)) {
        if Instant::now() >= end || arguments.until.as_ref().is_some_and(|path| path.exists()) {
            break;
        }
        done = number;
        match operation {
            Operation::Write { sector, sectors } => {
                let bytes = buffer.first(sectors as usize * SECTOR);
                load.stamp(lane, number, sector, bytes);
                device.write_all_at(bytes, sector * SECTOR as u64)?;
                bytes.fill(0);
                device.read_exact_at(bytes, sector * SECTOR as u64)?;
                let expected = expected.get_mut(..bytes.len()).unwrap_or_default();
                load.stamp(lane, number, sector, expected);
                if bytes != expected {
                    return Err(format!("sectors {sector} to {} are not what was written", sector + sectors).into());
                }
                let from = (sector - first) as usize;
                last.get_mut(from..from + sectors as usize).unwrap_or_default().fill(number);
            }
            Operation::Discard { sector, sectors } if arguments.discard => {
                discard(&arguments.device, sector, sectors)?;
                let from = (sector - first) as usize;
                last.get_mut(from..from + sectors as usize).unwrap_or_default().fill(0);
            }
            Operation::Discard { .. } => {}
            Operation::Flush => device.sync_data()?,
        }
    }
    let mut stamp = [0; SECTOR];
    for (chunk, numbers) in last.chunks(LARGEST / SECTOR).enumerate() {
        let start = first + (chunk * (LARGEST / SECTOR)) as u64;
        let bytes = buffer.first(numbers.len() * SECTOR);
        device.read_exact_at(bytes, start * SECTOR as u64)?;
        for ((sector, number), found) in (start..).zip(numbers).zip(bytes.as_chunks::<SECTOR>().0) {
            load.stamp(lane, *number, sector, &mut stamp);
            if *number != 0 && *found != stamp {
                return Err(format!("sector {sector} is not what operation {number} wrote").into());
            }
        }
    }
    Ok(done)
}
