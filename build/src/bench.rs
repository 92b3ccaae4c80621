//! `cargo xtask bench`: ours and Linux's side by side, as a table and as JSON. Host.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use e2e::bench::{Report, Topology, blk, lives, net, store};
use lab::{Row, host};

use crate::{bars, courses, growth, images, path};

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
    /// The ends of netdom's and blkdom's lives, against Linux driver domains that are created anew: pauses, packets lost, time to full speed
    Lives(Lives),
    /// xenstore-stubdom against C xenstored and oxenstored, each in boots of its own: requests and events by the number of domains, memory
    Store(Store),
    /// netdom's data path on this host, without Xen: its own instructions a packet, counted by callgrind
    Path(path::Arguments),
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
    /// In place of rates and time: count the instructions of the driver domains, by a clock that an instruction takes on by a nanosecond
    #[arg(long)]
    instructions: bool,
    /// Only loads whose names contain one of these, such as "TCP to,round trip"
    #[arg(long, default_value = "")]
    only: String,
    /// The network that both driver domains serve: bridge, vlan (access ports of a VLAN), bond (of two NICs, active-backup; with its failover), route or nat
    #[arg(long, default_value = "bridge")]
    topology: Topology,
    /// Also draw each group of rows: docs/net-ROW-GROUP.svg
    #[arg(long)]
    pictures: bool,
    /// In place of a run: show, and draw, what an earlier one of this row wrote by --json
    #[arg(long, conflicts_with_all = ["json", "runs", "seconds", "instructions", "only", "topology"])]
    from: Option<PathBuf>,
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
struct Lives {
    #[command(flatten)]
    common: Common,
    /// Runs of each end on each side; the median counts
    #[arg(long, default_value_t = lives::Effort::default().runs)]
    runs: u32,
    /// Only ends whose names contain one of these, such as "netdom fails,updated"
    #[arg(long, default_value = "")]
    only: String,
    /// Also draw TCP's throughput over time, with a failure in the middle: docs/lives-ROW.svg
    #[arg(long)]
    pictures: bool,
    /// In place of a run: show, and draw, what an earlier one of this row wrote by --json
    #[arg(long, conflicts_with_all = ["json", "runs", "only"])]
    from: Option<PathBuf>,
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
    let earlier = match &arguments.what {
        What::Net(Net { from: Some(file), common, .. }) => Some((file, common, net::report())),
        What::Lives(Lives { from: Some(file), common, .. }) => Some((file, common, lives::report())),
        _ => None,
    };
    if let Some((file, common, report)) = earlier {
        let text = fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        let read: Report = serde_json::from_slice(&text).with_context(|| format!("the rows in {}", file.display()))?;
        let report = Report { heads: report.heads, ..read };
        show(common, &report)?;
        return draw(&arguments.what, common, &report);
    }
    let images = || {
        host::provide(&[host::IMAGES, host::BOOT].concat())?;
        images::for_demo()
    };
    let start = Instant::now();
    let progress = |what: &str| eprintln!("bench: {:4.0} s  {what}", start.elapsed().as_secs_f64());
    let (common, report) = match &arguments.what {
        What::Path(arguments) => return path::run_loads(arguments),
        What::Net(Net { common, runs, seconds, instructions, only, topology, .. }) => {
            let effort = net::Effort {
                runs: *runs,
                seconds: *seconds,
                instructions: *instructions,
                only: only.clone(),
                topology: *topology,
                ..net::Effort::default()
            };
            (common, net::run(common.row, &images()?, effort, &progress)?)
        }
        What::Blk(Blk { common, runs, seconds, only, guest_arguments, blkdom_arguments }) => {
            let effort = blk::Effort {
                runs: *runs,
                seconds: *seconds,
                only: only.clone(),
                guest_arguments: guest_arguments.clone(),
                blkdom_arguments: blkdom_arguments.clone(),
            };
            (common, blk::run(common.row, &images()?, &effort, &progress)?)
        }
        What::Lives(Lives { common, runs, only, .. }) => {
            let effort = lives::Effort { runs: *runs, only: only.clone() };
            (common, lives::run(common.row, &images()?, &effort, &progress)?)
        }
        What::Store(Store { common, boots, requests, memory, library: _ }) => {
            let effort = store::Effort { boots: *boots, requests: *requests, memory: *memory };
            (common, store::run(common.row.release, &images()?, effort, &progress)?)
        }
    };
    show(common, &report)?;
    draw(&arguments.what, common, &report)
}

/// Draws what was measured where that is asked for.
fn draw(what: &What, common: &Common, report: &Report) -> Result<ExitCode> {
    let row = common.row.to_string();
    let files = match what {
        What::Net(Net { pictures: true, topology: Topology::Bridge, .. }) => bars::draw(report, &row)?,
        What::Net(Net { pictures: true, topology, .. }) => bars::draw(report, &format!("{row}-{topology}"))?,
        What::Lives(Lives { pictures: true, .. }) => courses::draw(report, &row)?,
        _ => Vec::new(),
    };
    for file in files {
        println!("{}", file.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn show(common: &Common, report: &Report) -> Result<()> {
    println!("{}", report.markdown());
    if let Some(path) = &common.json {
        let json = serde_json::to_string_pretty(report)?;
        fs::write(path, json + "\n").with_context(|| format!("writing {}", path.display()))?;
        println!("written to {}", path.display());
    }
    let compared: Vec<(&str, f64)> =
        report.rows.iter().filter_map(|row| Some((row.name.as_str(), row.ratio?))).collect();
    let behind: Vec<&str> = compared.iter().filter(|(_, ratio)| *ratio < 1.0).map(|(name, _)| *name).collect();
    match behind.as_slice() {
        [] => println!("ahead in all of {} rows", compared.len()),
        rows => println!("behind in {} of {} rows: {}", rows.len(), compared.len(), rows.join("; ")),
    }
    Ok(())
}
