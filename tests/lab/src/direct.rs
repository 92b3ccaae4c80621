//! Boots one image in dom0's place, as Xen's own XTF does, and reads its result. Host.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::emulator::Emulator;
use crate::host;
use crate::machine::{self, Machine, MachineConfig};
use crate::packages::{Release, Tree};
use crate::scratch::Scratch;

/// XTF's five results.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The thing works.
    Success,
    /// It cannot be tried here.
    Skip,
    /// The test itself broke.
    Error,
    /// The thing broke.
    Failure,
    /// No result: the image died, or said nothing in time.
    Crash,
}

impl Verdict {
    /// The verdict of the last line that starts with `Test result:`, as XTF prints it.
    pub fn parse(console: &str) -> Self {
        let line = console.lines().rev().find_map(|line| line.split_once("Test result:").map(|(_, rest)| rest.trim()));
        match line.and_then(|line| line.split([' ', ':']).next()) {
            Some("SUCCESS") => Self::Success,
            Some("SKIP") => Self::Skip,
            Some("ERROR") => Self::Error,
            Some("FAILURE") => Self::Failure,
            _ => Self::Crash,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "SUCCESS",
            Self::Skip => "SKIP",
            Self::Error => "ERROR",
            Self::Failure => "FAILURE",
            Self::Crash => "CRASH",
        })
    }
}

/// What a direct boot came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The result.
    pub verdict: Verdict,
    /// The whole console.
    pub console: String,
    /// From QEMU's start to the result.
    pub elapsed: Duration,
}

impl Report {
    /// The console's last lines.
    pub fn tail(&self, lines: usize) -> String {
        machine::tail(self.console.as_bytes(), lines)
    }
}

/// What Xen says when its dom0 crashed, or hung.
const CRASHED: [&str; 3] = ["Dom0 crashed", "Domain 0 crashed", "shutdown: watchdog"];

/// An image that is booted in dom0's place.
#[derive(Clone, Copy, Debug)]
pub struct Guest<'a> {
    /// Its file.
    pub image: &'a Path,
    /// Its command line.
    pub arguments: &'a str,
    /// A file that it is given beside.
    pub module: Option<&'a Path>,
    /// Its memory in Xen's words, `16M`.
    pub memory: &'a str,
    /// Its virtual CPUs.
    pub vcpus: u32,
}

/// Boots an image as dom0, and waits for its result or its crash.
///
/// As [`crate::Lab::boot`] does, it tries a boot again in which the emulated machine crashed before the image's first word, and
/// says so. Whatever dies after its first word has died for good.
///
/// # Errors
/// What the host or the cache lacks, or that QEMU does not start.
pub fn run(release: Release, guest: Guest<'_>, timeout: Duration) -> Result<Report> {
    const ATTEMPTS: u32 = 3;
    let mut attempt = 1;
    loop {
        let report = run_once(release, guest, timeout)?;
        if attempt == ATTEMPTS || !died_unheard(&report.console) {
            return Ok(report);
        }
        attempt += 1;
        let end = report.tail(20);
        eprintln!("lab: {end}\nlab: the image died before its first word; attempt {attempt} of {ATTEMPTS}");
    }
}

fn run_once(release: Release, guest: Guest<'_>, timeout: Duration) -> Result<Report> {
    let Guest { image, arguments, module, memory, vcpus } = guest;
    host::provide(host::BOOT)?;
    let emulator = Emulator::prepare()?;
    let tree = Tree::prepare(release)?;
    let config = MachineConfig {
        hypervisor: tree.hypervisor(),
        xen_arguments: format!("dom0_mem={memory},max:{memory} dom0_max_vcpus={vcpus}"),
        kernel: image.to_owned(),
        kernel_arguments: arguments.to_owned(),
        initramfs: module.map(Path::to_owned),
        memory: 1536,
        ..MachineConfig::default()
    };
    let start = Instant::now();
    let machine = Machine::start(&emulator, &config, Scratch::new()?)?;
    let ends: Vec<_> = ["Test result:"].into_iter().chain(CRASHED).collect();
    // The wait fails when the image dies first; the console then says what there is to say.
    machine.wait_for_any(&ends, timeout).ok();
    let console = machine.console();
    Ok(Report { verdict: Verdict::parse(&console), console, elapsed: start.elapsed() })
}

/// Whether Xen reports dom0's crash and dom0 has said nothing: since Xen handed the console over, all lines are Xen's.
fn died_unheard(console: &str) -> bool {
    let Some((_, after)) = console.split_once("*** Serial input to DOM0") else { return false };
    // The rest of that line is Xen's, too.
    let Some((_, lines)) = after.split_once('\n') else { return false };
    let mut before = lines.lines().take_while(|line| !CRASHED.iter().any(|crash| line.contains(crash)));
    let crashed = CRASHED.iter().any(|crash| lines.contains(crash));
    crashed && before.all(|line| line.trim().is_empty() || line.starts_with("(XEN)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_those_of_xtf() {
        let table = [
            ("(XEN) x\nTest result: SUCCESS\n", Verdict::Success),
            ("Test result: SKIP: no NIC\n", Verdict::Skip),
            ("Test result: ERROR\n", Verdict::Error),
            ("[d0] Test result: FAILURE\n(XEN) hardware domain shutdown", Verdict::Failure),
            ("Test result: \n", Verdict::Crash),
            ("", Verdict::Crash),
        ];
        for (console, verdict) in table {
            assert_eq!(Verdict::parse(console), verdict, "{console:?}");
        }
    }

    #[test]
    fn only_a_crash_before_the_first_word_is_tried_again() {
        let boot = "(XEN) *** Serial input to DOM0 (type 'CTRL-a' three times to switch input)\r\n\
                    (XEN) Freed 668kB init memory\r\n";
        let crash = "(XEN) domain_crash_sync called from entry.S\r\n(XEN) Hardware Dom0 crashed: rebooting machine\r\n";
        assert!(died_unheard(&format!("{boot}{crash}")));
        // It spoke: its crash counts, be it meant or not.
        assert!(!died_unheard(&format!("{boot}[    0.000100] INFO  guest: test panic\r\n{crash}")));
        // No crash: it may be slow, or mute.
        assert!(!died_unheard(boot));
        assert!(!died_unheard("(XEN) Panic on CPU 0:\r\n"));
        assert!(!died_unheard(""));
    }
}
