//! `cargo xtask`: builds, shows, tests and measures. Host.
#![forbid(unsafe_code)]

mod lab;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds, shows, tests and measures oxidom.
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Boot real Xen with a Linux dom0 in QEMU: a shell, or a script
    Lab(lab::Arguments),
}

fn main() -> ExitCode {
    let result: Result<ExitCode> = match Arguments::parse().command {
        Command::Lab(arguments) => lab::run(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
