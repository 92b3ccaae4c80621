//! Writes until the machine is killed, and keeps the ledger. Linux user space.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use clap::Args;
use medium::torture::{ENTRY, Load, Operation, SECTOR};
use serde_json::{Value, json};

use crate::device::{Buffer, open, size};
use crate::{Failure, print_line};

#[derive(Args)]
pub(crate) struct Arguments {
    device: PathBuf,
    /// The device that loses nothing
    ledger: PathBuf,
    #[arg(long)]
    seed: u64,
    #[arg(long, default_value_t = 4)]
    lanes: u64,
    /// Ends after so many operations of each lane; without it, never
    #[arg(long)]
    operations: Option<u64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Value, Failure> {
    let sectors = size(&open(&arguments.device, false, false)?)? / SECTOR as u64;
    let load = Load::new(arguments.seed, arguments.lanes, sectors);
    print_line(&json!({ "begun": arguments.seed }));
    let results: Vec<Result<(), Failure>> = thread::scope(|scope| {
        let lanes: Vec<_> = (0..arguments.lanes).map(|lane| scope.spawn(move || one(arguments, load, lane))).collect();
        lanes.into_iter().map(|lane| lane.join().unwrap_or_else(|_| Err("a lane died".into()))).collect()
    });
    results.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(json!({ "done": arguments.operations }))
}

fn one(arguments: &Arguments, load: Load, lane: u64) -> Result<(), Failure> {
    let device = open(&arguments.device, true, false)?;
    let ledger = open(&arguments.ledger, true, true)?;
    let mut buffer = Buffer::new(1 << 20);
    let mut entry = Buffer::new(ENTRY);
    for (number, operation) in (1..=arguments.operations.unwrap_or(u64::MAX)).zip(load.operations(lane)) {
        match operation {
            Operation::Write { sector, sectors } => {
                let bytes = buffer.first(sectors as usize * SECTOR);
                load.stamp(lane, number, sector, bytes);
                device.write_all_at(bytes, sector * SECTOR as u64)?;
            }
            Operation::Discard { sector, sectors } => discard(&arguments.device, sector, sectors)?,
            Operation::Flush => {
                device.sync_data()?;
                write_ledger(&ledger, &load, lane, number, &mut entry)?;
            }
        }
    }
    Ok(())
}

fn write_ledger(ledger: &File, load: &Load, lane: u64, number: u64, entry: &mut Buffer) -> Result<(), Failure> {
    entry.all().copy_from_slice(&load.entry(lane, number));
    ledger.write_all_at(entry.all(), lane * ENTRY as u64)?;
    Ok(())
}

/// There is no call for it in safe Rust. It is forced, as util-linux' tool would have the device for itself otherwise, and busybox's
/// always.
pub(crate) fn discard(device: &Path, sector: u64, sectors: u64) -> Result<(), Failure> {
    let bytes = |sectors: u64| (sectors * SECTOR as u64).to_string();
    let status = Command::new("blkdiscard")
        .args(["--force", "--offset", &bytes(sector), "--length", &bytes(sectors)])
        .arg(device)
        .stdout(Stdio::null())
        .status()?;
    if status.success() { Ok(()) } else { Err(format!("blkdiscard: {status}").into()) }
}
