//! `cargo xtask corpus`: has real tools write disks in a dom0 of the lab, and keeps these with what Linux says of them. Host.

use std::process::ExitCode;

use anyhow::Result;
use lab::{Row, host};

/// What `cargo xtask corpus` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The row of the matrix whose tools and kernel are asked: debian12 or debian13
    #[arg(long, default_value = "debian13")]
    row: Row,
    /// Makes the forms alone whose names hold one of these; the others stay as they are in the file
    #[arg(long)]
    only: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    host::provide(host::BOOT)?;
    let forms = e2e::corpus::generate(arguments.row, &arguments.only)?;
    println!("{forms} forms in {}", e2e::corpus::file().display());
    Ok(ExitCode::SUCCESS)
}
