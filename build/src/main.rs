//! `cargo xtask`: builds, shows, tests and measures. Host.
#![forbid(unsafe_code)]

mod attack;
mod bars;
mod bench;
mod bill;
mod corpus;
mod courses;
mod demo;
mod fuzz;
mod growth;
mod host_image;
mod images;
mod lab;
mod package;
mod path;
mod symbolize;
mod test;
mod torture;
mod xen_tests;

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
    /// Show the main job: two Linux guests get their network from netdom on real Xen
    Demo(demo::Arguments),
    /// Measure ours against what Linux has in its place, alternating
    Bench(bench::Arguments),
    /// Attack a backend with hostile frontends on real Xen: netdom, blkdom, or Linux'
    Attack(attack::Arguments),
    /// Make the corpus of disks that real tools wrote anew, in a dom0 of the lab
    Corpus(corpus::Arguments),
    /// Run a fuzz target on the host
    Fuzz(fuzz::Arguments),
    /// Boot a whole Debian with Xen in QEMU, with the package beside it, and type in it
    HostImage(host_image::Shell),
    /// Build the images into dist/, with sample configs
    Images,
    /// Make Debian's package of the images and dom0's tool: dist/oxidom_VERSION_amd64.deb
    Package(package::Arguments),
    /// Run every test; the last line counts
    Test(test::Arguments),
    /// Kill the machine under load, with a drive that forgets what was not flushed, and check that nothing else is lost
    Torture(torture::Arguments),
    /// Turn the addresses in a console's log (stdin) into functions and lines
    Symbolize(symbolize::Arguments),
}

fn main() -> ExitCode {
    let result: Result<ExitCode> = match Arguments::parse().command {
        Command::Lab(arguments) => lab::run(&arguments),
        Command::Attack(arguments) => attack::run(&arguments),
        Command::Corpus(arguments) => corpus::run(&arguments),
        Command::Fuzz(arguments) => fuzz::run(&arguments),
        Command::HostImage(arguments) => host_image::shell(&arguments),
        Command::Images => images::build().map(|()| ExitCode::SUCCESS),
        Command::Package(arguments) => package::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Torture(arguments) => torture::run(&arguments),
        Command::Symbolize(arguments) => symbolize::run(&arguments).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
