//! The package on a whole Debian with Xen, as an administrator has it: installed, booted with, updated, purged. Host.
//!
//! One machine goes through [`steps`] in their order; each step leaves it as the next one wants it. Dom0 has a NIC and a drive of its own. The
//! driver domains have a second NIC, of the same kind, and an NVMe drive. Two Linux guests are in `/etc/xen/auto`.

mod guests;
mod package;
mod purge;
mod steps;

use std::fmt::Display;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::host_image::files_drive;
use lab::root::{self, Equipment, Extra};
use lab::scratch::Scratch;
use lab::{ControllerKind, Disk, DiskController, HostConfig, HostImage, Lab, Network, Nic, Row, Tree};

pub use steps::{Plan, Step, steps};

/// How long systemd may take to start all, and to stop all.
const START: Duration = Duration::from_secs(600);
const STOP: Duration = Duration::from_secs(1800);
/// How long apt may take, with all that it calls.
const APT: Duration = Duration::from_secs(1800);
/// Where the lab's files are in dom0.
const FILES: &str = "/mnt/lab";
/// The slots of dom0's own NIC, of netdom's and of blkdom's controller.
const SLOTS: [u8; 3] = [2, 3, 4];

/// A host: a disk that stays, and a machine while it runs.
pub struct Host {
    config: HostConfig,
    running: Option<Lab>,
    /// The release's tree and image stay locked, as guests boot of the one and the host's disk stands on the other.
    _held: (Tree, HostImage),
    /// Each time from an order to end until the machine was off.
    ends: Vec<End>,
    /// Counts what the guest with a disk has written.
    written: u32,
    /// Removed at last.
    _directory: Scratch,
}

/// How long a host took to end.
#[derive(Clone, Copy, Debug)]
struct End {
    with_package: bool,
    took: Duration,
}

impl Host {
    /// Prepares the host's disk, the package in two builds, and the guests.
    ///
    /// # Errors
    /// What could not be made.
    pub fn prepare(row: Row, package: &Path) -> Result<Self> {
        let image = HostImage::prepare(row.release)?;
        let tree = Tree::prepare(row.release)?;
        let directory = Scratch::new()?;
        let path = |name: &str| directory.path().join(name);
        image.layer(&path("disk"))?;
        File::create(path("drive"))?.set_len(64 << 20)?;
        let file = |path: &str, content| Extra { path: path.to_owned(), mode: 0o644, content };
        let files = [
            file("vmlinux", fs::read(tree.kernel())?),
            file("guest.img", root::guest(&tree, Equipment::Network, &[])?),
            file(package::FIRST, fs::read(package).with_context(|| format!("reading {}", package.display()))?),
            file(package::SECOND, package::rebuilt(package, directory.path()).context("the other build")?),
        ];
        let [own_slot, ..] = SLOTS;
        let mac = "52:54:00:12:34:40".to_owned();
        let own = Nic { slot: own_slot, mac, network: Network::User, ..Nic::wired(0) };
        let [.., slot] = SLOTS;
        let drive = DiskController { kind: ControllerKind::Nvme, slot, disks: vec![Disk::image(path("drive"))] };
        let config = HostConfig {
            row,
            layer: path("disk"),
            files: files_drive(directory.path(), &files)?,
            memory: 2560,
            nics: vec![own, Nic::wired(0)],
            controllers: vec![drive],
        };
        let _held = (tree, image);
        Ok(Self { config, running: None, _held, ends: Vec::new(), written: 0, _directory: directory })
    }

    /// Boots; gives the machine, in which systemd may still be starting what it starts.
    ///
    /// # Errors
    /// The console's end where it does not come up.
    pub fn start(&mut self) -> Result<&Lab> {
        Ok(self.running.insert(Lab::boot_host(&self.config)?))
    }

    /// Notes that the machine has ended by itself; its disks stay.
    pub fn ended(&mut self) {
        self.running = None;
    }

    /// Boots, and waits until systemd has started all.
    fn boot(&mut self) -> Result<f64> {
        ensure!(self.running.is_none(), "it runs");
        let start = Instant::now();
        let lab = self.start()?;
        // Any status: what failed is looked at by name.
        lab.run_for("systemctl is-system-running --wait", START)?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// The running machine.
    fn lab(&self) -> Result<&Lab> {
        self.running.as_ref().context("the host does not run")
    }

    /// Shuts the host down as an administrator does, and waits until the machine is off or resets; notes how long that took.
    fn end(&mut self, order: &str, with_package: bool) -> Result<Duration> {
        let lab = self.running.take().context("the host does not run")?;
        let start = Instant::now();
        lab.must(&format!("systemctl --no-block {order}"))?;
        lab.machine().wait_end(STOP).with_context(|| {
            let console = lab.machine().console();
            let lines: Vec<_> = console.lines().rev().take(40).collect();
            format!("the console's end:\n{}", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        })?;
        let took = start.elapsed();
        self.ends.push(End { with_package, took });
        Ok(took)
    }

    /// Takes the power away. The disks keep what had reached them.
    fn cut_power(&mut self) -> Result<()> {
        // The end of the machine is QEMU's, by SIGKILL.
        self.running.take().map(drop).context("the host does not run")
    }

    /// Systemd must have started all, and nothing may have failed.
    fn is_well(&self) -> Result<()> {
        let lab = self.lab()?;
        let state = lab.run("systemctl is-system-running")?.stdout;
        if state.trim() == "running" {
            return Ok(());
        }
        let failed = lab.run("systemctl --failed --no-legend --plain")?.stdout;
        let why = lab.run(
            "for unit in $(systemctl --failed --no-legend --plain | cut -d' ' -f1); do journalctl -b --no-pager -n 25 -u $unit; done; \
             systemctl list-jobs --no-legend",
        )?;
        bail!("systemd says {}; failed:\n{failed}{}", state.trim(), why.stdout)
    }

    /// Has apt do something, without questions; gives what it said.
    fn apt(&self, arguments: impl Display) -> Result<String> {
        let command = format!("DEBIAN_FRONTEND=noninteractive apt-get -q -y {arguments}");
        self.lab()?.run_for(&command, APT)?.success().with_context(|| format!("in dom0: {command}"))
    }

    /// How long the host took to end, without the package and with it.
    fn ends(&self) -> String {
        let list = |with: bool| {
            let seconds = self.ends.iter().filter(|end| end.with_package == with).map(|end| end.took.as_secs_f64());
            seconds.map(|seconds| format!("{seconds:.0}")).collect::<Vec<_>>().join(", ")
        };
        format!("shutting down took {} s without the package, {} s with it", list(false), list(true))
    }
}

/// A path below the lab's files, as dom0 has it.
fn below(name: &str) -> PathBuf {
    Path::new(FILES).join(name)
}
