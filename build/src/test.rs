//! `cargo xtask test`: everything, ending in one line that counts. Host.

use std::fmt::Display;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use lab::{cache, host};

use crate::host_image;

/// What `cargo xtask test` takes.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Only what needs no Xen: formatting, clippy, host tests
    #[arg(long)]
    host: bool,
    /// Only tests on Xen whose name contains this, or one of these where it is said more than once
    #[arg(long)]
    only: Vec<String>,
    /// Only this row of the matrix
    #[arg(long)]
    row: Option<lab::Row>,
    #[command(flatten)]
    host_image: host_image::HostImage,
}

/// What has passed and failed so far.
#[derive(Default)]
pub(crate) struct Tally {
    passed: u32,
    failed: Vec<String>,
}

impl Tally {
    /// Counts one test, and says how it went.
    pub(crate) fn record(&mut self, name: impl Display, start: Instant, result: Result<()>) {
        let seconds = start.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                self.passed += 1;
                println!("ok      {name} ({seconds:.1} s)");
            }
            Err(error) => {
                println!("FAILED  {name} ({seconds:.1} s)\n{error:#}");
                self.failed.push(name.to_string());
            }
        }
    }

    fn finish(self) -> ExitCode {
        for name in &self.failed {
            println!("failed: {name}");
        }
        println!("{} passed, {} failed", self.passed, self.failed.len());
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let mut tally = Tally::default();
    if arguments.host_image.host_image {
        let rows = arguments.row.map_or(host_image::ROWS.to_vec(), |row| vec![row]);
        host_image::run(&mut tally, &arguments.host_image, &rows)?;
        return Ok(tally.finish());
    }
    // All that is asked of the administrator is asked at the start.
    let needs = if arguments.host { host::TESTS.to_vec() } else { [host::TESTS, host::IMAGES, host::BOOT].concat() };
    host::provide(&needs)?;
    if arguments.only.is_empty() {
        host(&mut tally)?;
    }
    if !arguments.host {
        let rows = arguments.row.map_or(lab::Row::MATRIX.to_vec(), |row| vec![row]);
        crate::xen_tests::run(&mut tally, &rows, &arguments.only);
    }
    Ok(tally.finish())
}

/// What rustdoc refuses: all that it warns of, but for links in the words of modules to what is not public.
const RUSTDOC: (&str, &str) = ("RUSTDOCFLAGS", "-D warnings -A rustdoc::private-intra-doc-links");
/// The memory order of the rings, in every order that the memory model allows.
const LOOM: [&str; 9] = [
    "test",
    "--quiet",
    "--release",
    "--config",
    r#"build.rustflags=["--cfg","loom"]"#,
    "--package",
    "split-driver",
    "--test",
    "ring_loom",
];

/// Formatting, clippy, rustdoc, loom, and all that `cargo test` runs.
fn host(tally: &mut Tally) -> Result<()> {
    host::provide_components()?;
    step(tally, "formatting", &["fmt", "--all", "--check"], None)?;
    step(tally, "clippy", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"], None)?;
    step(tally, "documentation", &["doc", "--quiet", "--no-deps", "--workspace"], Some(RUSTDOC))?;
    step(tally, "loom", &LOOM, None)?;
    cargo_test(tally)
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(cache::workspace()).args(arguments);
    command
}

fn step(tally: &mut Tally, name: &str, arguments: &[&str], variable: Option<(&str, &str)>) -> Result<()> {
    let start = Instant::now();
    println!("cargo {}", arguments.join(" "));
    let output = cargo(arguments).envs(variable).output().context("starting cargo")?;
    let result = if output.status.success() {
        Ok(())
    } else {
        let text = [output.stdout, output.stderr].concat();
        Err(anyhow::anyhow!("{}\n`cargo {}` shows it again", String::from_utf8_lossy(&text), arguments.join(" ")))
    };
    tally.record(name, start, result);
    Ok(())
}

/// Runs the host tests and counts each of them from libtest's lines.
fn cargo_test(tally: &mut Tally) -> Result<()> {
    let arguments = ["test", "--workspace", "--no-fail-fast"];
    println!("cargo {}", arguments.join(" "));
    let start = Instant::now();
    let mut child = cargo(&arguments).stdout(Stdio::piped()).spawn().context("starting cargo")?;
    let (mut passed, mut failed) = (0, Vec::new());
    for line in BufReader::new(child.stdout.take().context("cargo's stdout")?).lines() {
        let line = line?;
        match outcome(&line) {
            Some((_, true)) => passed += 1,
            Some((name, false)) => failed.push(name.to_owned()),
            // Of the rest, only what explains a failure.
            None if !failed.is_empty() => println!("{line}"),
            None => {}
        }
    }
    let status = child.wait()?;
    tally.passed += passed;
    println!("ok      {passed} host tests ({:.1} s)", start.elapsed().as_secs_f64());
    let explained = !failed.is_empty();
    tally.failed.extend(failed);
    if !status.success() && !explained {
        tally.failed.push("cargo test: something did not build or died".to_owned());
    }
    Ok(())
}

/// The name in a line of libtest's, and whether it passed; ignored tests have neither.
fn outcome(line: &str) -> Option<(&str, bool)> {
    let (name, verdict) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    match verdict {
        "ok" => Some((name, true)),
        verdict if verdict.starts_with("FAILED") => Some((name, false)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_libtest_are_counted() {
        assert_eq!(outcome("test a::b ... ok"), Some(("a::b", true)));
        assert_eq!(outcome("test a::b - should panic ... ok"), Some(("a::b - should panic", true)));
        assert_eq!(outcome("test a::b ... FAILED"), Some(("a::b", false)));
        assert_eq!(outcome("test a::b ... ignored, boots Xen"), None);
        assert_eq!(outcome("test result: ok. 2 passed; 0 failed"), None);
    }
}
