//! `cargo xtask fuzz`: builds a fuzz target fast and runs it. Host.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::images;

/// What `cargo xtask fuzz` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The target: netback, blkback, lvm, gpt, nvme, ahci, xenstore
    target: String,
    /// For how long
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where the random numbers begin
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Add what showed something new to the corpus
    #[arg(long)]
    keep: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let program = images::cargo_build("fuzz", "fuzz")?;
    let mut command = Command::new(&program);
    command.arg(&arguments.target);
    command.args(["--seconds", &arguments.seconds.to_string(), "--seed", &arguments.seed.to_string()]);
    if arguments.keep {
        command.arg("--keep");
    }
    let status = command.status().with_context(|| format!("starting {}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
