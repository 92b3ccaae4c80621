//! `cargo xtask bench`: ours and Linux's side by side, as a table and as JSON. Host.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use e2e::bench::{Report, blk, net, store};
use lab::{Row, host};

use crate::{growth, images};

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
    /// blkdom: operations and bytes a second, latencies, CPU time, create-to-ready, memory
    Blk(Blk),
    /// xenstore-stubdom against C xenstored and oxenstored, each in boots of its own: requests and events by the number of domains, memory
    Store(Store),
}

/// What every benchmark takes.
#[derive(clap::Args)]
struct Common {
    /// Also write the rows to this file: {"rows": [{"name", "unit", "ours", "linux", "ratio"}]}
    #[arg(long)]
    json: Option<PathBuf>,
    /// The row of the matrix: debian12 or debian13, either with -stubdom or -oxenstored; of the store's benchmark, the release alone
    #[arg(long, default_value = "debian12")]
    row: Row,
}

#[derive(clap::Args)]
struct Net {
    #[command(flatten)]
    common: Common,
    /// Runs of each thing on each side; the median counts
    #[arg(long, default_value_t = net::Effort::default().runs)]
    runs: u32,
    /// Seconds of each throughput run
    #[arg(long, default_value_t = net::Effort::default().seconds)]
    seconds: u32,
}

#[derive(clap::Args)]
struct Blk {
    #[command(flatten)]
    common: Common,
    /// Runs of each thing on each side; the median counts
    #[arg(long, default_value_t = blk::Effort::default().runs)]
    runs: u32,
    /// Seconds of each run
    #[arg(long, default_value_t = blk::Effort::default().seconds)]
    seconds: u32,
    /// Only loads whose names have one of these in them, such as "depth 32,128 KiB"
    #[arg(long, default_value = "")]
    only: String,
    /// More for the guest's kernel, such as xen_blkfront.feature_persistent=N
    #[arg(long, default_value = "")]
    guest_arguments: String,
    /// blkdom's command line
    #[arg(long, default_value = "")]
    blkdom_arguments: String,
}

#[derive(clap::Args)]
struct Store {
    #[command(flatten)]
    common: Common,
    /// Boots of each store; the median counts
    #[arg(long, default_value_t = store::Effort::default().boots)]
    boots: u32,
    /// Requests of each kind
    #[arg(long, default_value_t = store::Effort::default().requests)]
    requests: u32,
    /// In place of all that: measure the library alone on this machine, and draw how it grows into docs/
    #[arg(long)]
    library: bool,
    /// MiB of the store's domain
    #[arg(long, default_value_t = store::Effort::default().memory)]
    memory: u32,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    if let What::Store(Store { library: true, .. }) = arguments.what {
        return growth::run();
    }
    host::provide(&[host::IMAGES, host::BOOT].concat())?;
    let images = images::for_demo()?;
    let start = Instant::now();
    let progress = |what: &str| eprintln!("bench: {:4.0} s  {what}", start.elapsed().as_secs_f64());
    let (common, report) = match &arguments.what {
        What::Net(Net { common, runs, seconds }) => {
            let effort = net::Effort { runs: *runs, seconds: *seconds, ..net::Effort::default() };
            (common, net::run(common.row, &images, effort, &progress)?)
        }
        What::Blk(Blk { common, runs, seconds, only, guest_arguments, blkdom_arguments }) => {
            let effort = blk::Effort {
                runs: *runs,
                seconds: *seconds,
                only: only.clone(),
                guest_arguments: guest_arguments.clone(),
                blkdom_arguments: blkdom_arguments.clone(),
            };
            (common, blk::run(common.row, &images, &effort, &progress)?)
        }
        What::Store(Store { common, boots, requests, memory, library: _ }) => {
            let effort = store::Effort { boots: *boots, requests: *requests, memory: *memory };
            (common, store::run(common.row.release, &images, effort, &progress)?)
        }
    };
    show(common, &report)?;
    Ok(ExitCode::SUCCESS)
}

fn show(common: &Common, report: &Report) -> Result<()> {
    println!("{}", report.markdown());
    if let Some(path) = &common.json {
        let json = serde_json::to_string_pretty(report)?;
        fs::write(path, json + "\n").with_context(|| format!("writing {}", path.display()))?;
        println!("written to {}", path.display());
    }
    let behind: Vec<&str> = report.rows.iter().filter(|row| row.ratio < 1.0).map(|row| row.name.as_str()).collect();
    match behind.as_slice() {
        [] => println!("ahead in all of {} rows", report.rows.len()),
        rows => println!("behind in {} of {} rows: {}", rows.len(), report.rows.len(), rows.join("; ")),
    }
    Ok(())
}
