//! The tests that need Xen: small guests booted directly, and scenarios with a dom0. Host.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use lab::{Row, direct};

use crate::test::Tally;
use crate::{images, symbolize};

/// Runs them on the rows, or those whose name contains `only`.
pub(crate) fn run(tally: &mut Tally, rows: &[Row], only: Option<&str>) {
    let wanted = |name: &str| only.is_none_or(|part| name.contains(part));
    let start = Instant::now();
    match images::cargo_build("guests", "guest") {
        Ok(image) => {
            for row in rows {
                run_guests(tally, *row, &image, &wanted);
            }
        }
        Err(error) => tally.record("the test image builds", start, Err(error)),
    }
}

fn run_guests(tally: &mut Tally, row: Row, image: &Path, wanted: &impl Fn(&str) -> bool) {
    for test in guests::TESTS {
        let name = format!("{row} guest {} {}", test.name, test.memory);
        if wanted(&name) {
            let start = Instant::now();
            let result = run_guest(row, image, test);
            tally.record(name, start, result);
        }
    }
}

fn run_guest(row: Row, image: &Path, test: &guests::Test) -> Result<()> {
    let arguments = format!("test={}", test.name);
    let report = direct::run(row, image, &arguments, test.memory, Duration::from_secs(60))?;
    let expected = test.expected.name();
    let end = || symbolize::symbolize(image, &report.tail(30)).unwrap_or_else(|_| report.tail(30));
    if report.verdict.to_string() != expected {
        bail!("{} instead of {expected}; the console's end:\n{}", report.verdict, end());
    }
    let mut rest = report.console.as_str();
    for text in test.console {
        let Some((_, after)) = rest.split_once(text) else {
            bail!("the console lacks '{text}', or has it too early; its end:\n{}", end());
        };
        rest = after;
    }
    Ok(())
}
