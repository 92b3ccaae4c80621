//! `cargo xtask fuzz`: builds a fuzz target fast and runs it. Host.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use lab::{cache, host};

use crate::images::{self, FUZZ_PROFILE};

/// Takes a `cargo xtask fuzz` line.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The target: netback, switch, policy, multicast, lacp, nat, route4, route6, dhcp, blkback, lvm, gpt, nvme, ahci, ixgbe, igb, e1000e, xenstore
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
    /// What makes the inputs: the mutator of this project, or LLVM's, which follows the coverage
    #[arg(long, value_enum, default_value_t = Engine::Own)]
    engine: Engine,
    /// Run the inputs of a file once more, in their order
    #[arg(long, value_name = "FILE", conflicts_with = "minimise")]
    one: Option<PathBuf>,
    /// Find the least of a failing file that still fails
    #[arg(long, value_name = "FILE")]
    minimise: Option<PathBuf>,
}

/// What makes inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Engine {
    Own,
    Libfuzzer,
}

/// Where libFuzzer's build and its inputs are, below cargo's target directory.
const DIRECTORY: &str = "libfuzzer";
/// The target that cargo is given by name, so that build scripts and macros are built without the flags.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// What has the compiler's LLVM count edges and comparisons, as libFuzzer reads them (LLVM's SanitizerCoverage).
const COVERAGE: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions=on",
];

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let program = images::fuzzer()?;
    let mut command = Command::new(&program);
    command.arg(&arguments.target);
    if let Some(file) = &arguments.one {
        command.arg("--one").arg(file);
    } else if let Some(file) = &arguments.minimise {
        command.arg("--minimise").arg(file);
    } else if arguments.engine == Engine::Libfuzzer {
        return libfuzzer(arguments, &program);
    } else {
        command.args(["--seconds", &arguments.seconds.to_string(), "--seed", &arguments.seed.to_string()]);
        if arguments.keep {
            command.arg("--keep");
        }
    }
    let status = command.status().with_context(|| format!("starting {}", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn libfuzzer(arguments: &Arguments, fuzz: &Path) -> Result<ExitCode> {
    let target = arguments.target.as_str();
    let directory = cache::target_directory().join(DIRECTORY);
    let (found, least) = (directory.join("inputs").join(target), directory.join("least").join(target));
    for path in [&found, &least] {
        std::fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))?;
    }
    let corpus = |word: &str, path: &Path| {
        let status = Command::new(fuzz).arg(target).arg(word).arg(path).status();
        let status = status.with_context(|| format!("starting {}", fuzz.display()))?;
        ensure!(status.success(), "`fuzz {target} {word}` failed: {status}");
        Ok(())
    };
    corpus("--unpack", &found)?;
    let program = build(&directory)?;
    let engine = |words: &[String], paths: &[&Path]| {
        let mut command = Command::new(&program);
        command.env("OXIDOM_FUZZ_TARGET", target).current_dir(&directory).args(words).args(paths);
        command.status().with_context(|| format!("starting {}", program.display()))
    };
    let words = [
        format!("-max_total_time={}", arguments.seconds),
        format!("-seed={}", arguments.seed),
        String::from("-max_len=512"),
        String::from("-print_final_stats=1"),
    ];
    if !engine(&words, &[&found])?.success() {
        return Ok(ExitCode::FAILURE);
    }
    if arguments.keep {
        let merged = engine(&[String::from("-merge=1")], &[&least, &found])?;
        ensure!(merged.success(), "merging the inputs failed: {merged}");
        corpus("--pack", &least)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the targets with libFuzzer; gives the program.
fn build(directory: &Path) -> Result<PathBuf> {
    host::provide(host::LIBFUZZER)?;
    println!("building the targets with libFuzzer; the first time takes a minute");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(cache::workspace())
        .args(["build", "--quiet", "--profile", FUZZ_PROFILE, "--package", "fuzz"])
        .args(["--features", "libfuzzer", "--bin", "libfuzzer"])
        .args(["--target", TRIPLE, "--target-dir"])
        .arg(directory)
        .env("CARGO_ENCODED_RUSTFLAGS", COVERAGE.join("\x1f"))
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "the targets do not build with libFuzzer");
    Ok(directory.join(TRIPLE).join(FUZZ_PROFILE).join("libfuzzer"))
}
