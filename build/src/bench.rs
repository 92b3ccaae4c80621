//! `cargo xtask bench`: ours and Linux's side by side, as a table and as JSON. Host.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use e2e::bench::net::{self, Effort};
use lab::Row;

use crate::images;

/// What `cargo xtask bench` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// netdom: throughput, packet rates, round trips, CPU time, create-to-ready, memory
    Net(Net),
}

#[derive(clap::Args)]
struct Net {
    /// Also write the rows to this file: {"rows": [{"name", "unit", "ours", "linux", "ratio"}]}
    #[arg(long)]
    json: Option<PathBuf>,
    /// The row of the matrix: debian12 or debian13
    #[arg(long, default_value = "debian12")]
    row: Row,
    /// Runs of each thing on each side; the median counts
    #[arg(long, default_value_t = Effort::default().runs)]
    runs: u32,
    /// Seconds of each throughput run
    #[arg(long, default_value_t = Effort::default().seconds)]
    seconds: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let What::Net(arguments) = &arguments.what;
    let images = images::for_demo()?;
    let start = Instant::now();
    let progress = |what: &str| eprintln!("bench: {:4.0} s  {what}", start.elapsed().as_secs_f64());
    let effort = Effort { runs: arguments.runs, seconds: arguments.seconds, ..Effort::default() };
    let report = net::run(arguments.row, &images, effort, &progress)?;
    println!("{}", report.markdown());
    if let Some(path) = &arguments.json {
        let json = serde_json::to_string_pretty(&report)?;
        fs::write(path, json + "\n").with_context(|| format!("writing {}", path.display()))?;
        println!("written to {}", path.display());
    }
    let behind: Vec<&str> = report.rows.iter().filter(|row| row.ratio < 1.0).map(|row| row.name.as_str()).collect();
    match behind.as_slice() {
        [] => println!("ahead in all of {} rows", report.rows.len()),
        rows => println!("behind in {} of {} rows: {}", rows.len(), report.rows.len(), rows.join("; ")),
    }
    Ok(ExitCode::SUCCESS)
}
