//! `cargo xtask test --host-image`: the package on a whole Debian. And `cargo xtask host-image`: one to type in. Host.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use e2e::host_image::{Host, Plan, steps};
use lab::{Release, Row, StorePlace, host};

use crate::test::Tally;

/// What `cargo xtask test --host-image` takes beside the rows.
#[derive(clap::Args)]
pub(crate) struct HostImage {
    /// In place of all other tests: install the package on a whole Debian in QEMU (systemd, Debian's Xen, kernel and GRUB), boot with it, take the power away, update and purge it. The first run makes the disk, which takes some minutes
    #[arg(long, conflicts_with_all = ["host", "only"])]
    pub(crate) host_image: bool,
    /// Clean reboots
    #[arg(long, default_value_t = 10, requires = "host_image")]
    reboots: u32,
    /// Power cuts: the machine is killed and booted again
    #[arg(long, default_value_t = 5, requires = "host_image")]
    power_cuts: u32,
    /// This package in place of the one that is built
    #[arg(long, value_name = "FILE", requires = "host_image")]
    package: Option<PathBuf>,
}

/// That package, or the one that this tree makes.
fn package(other: Option<&Path>) -> Result<PathBuf> {
    match other {
        Some(file) => Ok(file.to_owned()),
        None => crate::package::make(None),
    }
}

/// The rows that are tried where none is named.
pub(crate) const ROWS: [Row; 2] =
    [Row::new(Release::Debian12, StorePlace::Daemon), Row::new(Release::Debian13, StorePlace::Daemon)];

/// Tries the package on the rows' releases, one after the other.
pub(crate) fn run(tally: &mut Tally, arguments: &HostImage, rows: &[Row]) -> Result<()> {
    host::provide(&[host::IMAGES, host::BOOT, host::HOST_IMAGE].concat())?;
    let package = package(arguments.package.as_deref())?;
    let plan = Plan { reboots: arguments.reboots, power_cuts: arguments.power_cuts };
    for row in rows {
        try_on(tally, *row, &package, plan);
    }
    Ok(())
}

/// What `cargo xtask host-image` takes.
#[derive(clap::Args)]
pub(crate) struct Shell {
    /// debian12 (Xen 4.17, Linux 6.1) or debian13 (Xen 4.20, Linux 6.12)
    #[arg(long, default_value = "debian12")]
    row: Row,
    /// This package in place of the one that is built
    #[arg(long, value_name = "FILE")]
    package: Option<PathBuf>,
}

/// Boots a whole Debian, and joins the terminal to its console.
pub(crate) fn shell(arguments: &Shell) -> Result<ExitCode> {
    host::provide(&[host::IMAGES, host::BOOT, host::HOST_IMAGE].concat())?;
    let package = package(arguments.package.as_deref())?;
    let mut host = Host::prepare(arguments.row, &package)?;
    println!("Booting a whole {}, which takes a minute or two; root needs no password", arguments.row.release);
    println!("The package is there in two builds: apt install /mnt/lab/first.deb");
    println!("netdom's NIC is 00:03.0, with the far end 10.9.0.1; blkdom's controller is 00:04.0");
    loop {
        let lab = host.start()?;
        let status = crate::lab::interact(lab)?;
        if lab.machine().is_running() {
            return Ok(status);
        }
        println!("The machine is off or was to reset: booting it again. Ctrl-\\ ends it for good");
        host.ended();
    }
}

fn try_on(tally: &mut Tally, row: Row, package: &Path, plan: Plan) {
    let start = Instant::now();
    let name = |step: &str| format!("{row} host: {step}");
    println!("... {}", name("its disk"));
    let mut host = match Host::prepare(row, package) {
        Ok(host) => host,
        Err(error) => return tally.record(name("its disk"), start, Err(error)),
    };
    for step in steps(plan) {
        let start = Instant::now();
        println!("... {}", name(&step.name));
        let result = step.run(&mut host);
        let said = result.as_ref().map_or_else(|_| String::new(), |said| format!(": {said}"));
        let failed = result.is_err();
        tally.record(name(&step.name) + &said, start, result.map(drop));
        if failed {
            println!("        {row} host: what would follow was not tried");
            break;
        }
    }
    println!("        {row} host took {:.0} s", start.elapsed().as_secs_f64());
}
