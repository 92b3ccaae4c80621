//! Runs apt-get and shows its progress. Host.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// A bar of 100 percent; where nobody would see it, a line says what it would.
pub(crate) fn bar(message: &str) -> ProgressBar {
    let bar = ProgressBar::new(100);
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {wide_bar} {percent}% {elapsed}") {
        bar.set_style(style);
    }
    say(&bar, message);
    bar
}

/// The bar's next stage.
pub(crate) fn say(bar: &ProgressBar, message: &str) {
    if bar.is_hidden() {
        eprintln!("lab: {message}");
    }
    bar.set_message(message.to_owned());
}

/// Lets the bar's clock run even while nothing is heard. Not where a password may be asked for on the same terminal.
pub(crate) fn tick(bar: &ProgressBar) {
    bar.enable_steady_tick(Duration::from_millis(200));
}

/// Runs an apt-get whose `APT::Status-Fd` is 1, and moves the bar by its status lines. Gives the other lines; a failure has what it
/// wrote to stderr.
pub(crate) fn run(command: &mut Command, bar: &ProgressBar) -> Result<Vec<String>> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {}", command.get_program().display()))?;
    let errors = child.stderr.take().context("apt-get's stderr")?;
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        BufReader::new(errors).read_to_end(&mut text).ok();
        String::from_utf8_lossy(&text).trim_end().to_owned()
    });
    let mut lines = Vec::new();
    for line in BufReader::new(child.stdout.take().context("apt-get's stdout")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        match percent(&line) {
            Some(percent) => bar.set_position(percent),
            None => lines.push(line),
        }
    }
    let status = child.wait()?;
    let errors = errors.join().unwrap_or_default();
    if !status.success() {
        bail!("apt-get failed, {status}: {errors}");
    }
    Ok(lines)
}

/// The percentage of a status line: `dlstatus:ITEM:PERCENT:TEXT` for downloads, `pmstatus:PACKAGE:PERCENT:TEXT` for installations.
fn percent(line: &str) -> Option<u64> {
    let rest = line.strip_prefix("dlstatus:").or_else(|| line.strip_prefix("pmstatus:"))?;
    // A package's name may hold a colon before its architecture.
    rest.split(':').skip(1).find_map(|field| field.parse::<f64>().ok()).map(|percent| percent as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_lines_are_told_from_others() {
        assert_eq!(percent("dlstatus:1:20.5391:Retrieving file 1 of 3"), Some(20));
        assert_eq!(percent("pmstatus:seabios:66.6667:Installed seabios (all)"), Some(66));
        assert_eq!(percent("pmstatus:libc6-dev:amd64:7.5:Unpacking libc6-dev (amd64)"), Some(7));
        assert_eq!(percent("Inst bash (5.2.15-2 Debian:12.11/stable [amd64])"), None);
    }

    #[test]
    fn a_failure_says_what_was_on_stderr() {
        let hidden = ProgressBar::hidden();
        let error = run(Command::new("sh").args(["-c", "echo 'E: no such package' >&2; exit 100"]), &hidden);
        let error = error.expect_err("it failed").to_string();
        assert!(error.contains("E: no such package") && error.contains("100"), "{error}");
        let lines = run(Command::new("sh").args(["-c", "echo dlstatus:1:3:x; echo Inst"]), &hidden).expect("it worked");
        assert_eq!(lines, ["Inst"]);
    }
}
