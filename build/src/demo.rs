//! `cargo xtask demo`: the main job, told step by step and summed up in a table. Host.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use e2e::demo::{self, Audience};
use indicatif::{ProgressBar, ProgressStyle};
use lab::{Row, Tree, host, root};

use crate::images;

/// What `cargo xtask demo` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The row of the matrix: debian12 (Xen 4.17, Linux 6.1) or debian13 (Xen 4.20, Linux 6.12); with -stubdom, the xenstore in a domain of its own, with -oxenstored, the daemon in OCaml, with -pvh, PVH guests
    #[arg(long, default_value = "debian12-stubdom")]
    row: Row,
}

/// Shows each step with a spinner while it runs, and as a line once it is done.
struct Terminal {
    bar: ProgressBar,
}

impl Audience for Terminal {
    fn step(&self, what: &str) {
        if self.bar.is_hidden() {
            println!("... {what}");
        }
        self.bar.set_message(what.to_owned());
    }

    fn done(&self, outcome: &str) {
        let line = format!("ok  {}: {outcome}", self.bar.message());
        if self.bar.is_hidden() {
            println!("{line}");
        } else {
            self.bar.println(line);
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    host::provide(&[host::IMAGES, host::BOOT].concat())?;
    println!("Building the image and the guests' tools, which takes minutes the first time");
    let images = images::for_demo()?;
    root::build_tools()?;
    Tree::prepare(arguments.row.release)?;
    let start = Instant::now();
    let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")?;
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(120));
    let terminal = Terminal { bar };
    let table = demo::run(arguments.row, &images, &terminal);
    terminal.bar.finish_and_clear();
    let table = table?;
    println!();
    let width = table.iter().map(|line| line.name.chars().count()).max().unwrap_or(0);
    for line in &table {
        println!("{:<width$}  {}", line.name, line.value);
    }
    println!(
        "\nAll of it was right, in {:.0} s. Next: `cargo xtask lab` for a dom0 to try it in.",
        start.elapsed().as_secs_f64()
    );
    Ok(ExitCode::SUCCESS)
}
