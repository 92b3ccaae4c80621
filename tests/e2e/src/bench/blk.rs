//! blkdom against a Linux driver domain, and against a guest that owns its NVMe controller: one boot, alternating runs. Host.
//!
//! Both driver domains have one vCPU and an NVMe controller of their own, all drives of one kind; one guest has a disk on each, and one
//! more guest has a third controller passed to it, which is the limit. All share one CPU, as they do on any of the machines.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use lab::scratch::Scratch;
use lab::{ControllerKind, Disk, DiskController, Equipment, Guest, GuestConfig, Lab, Row as Matrix};

use super::common::{Alternation, LINUX, LinuxDriverDomain, Runs, create_to_ready, footprint};
use super::{Better, Report};
use crate::blocks::{self, Load};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::stage::{Images, Stage};
use crate::traffic::Shell;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Runs of each thing on each side; the median counts.
    pub runs: u32,
    /// Seconds of a run.
    pub seconds: u32,
    /// Only loads whose names have one of these in them, with commas between.
    pub only: String,
    /// More for the guest's kernel, such as `xen_blkfront.feature_persistent=N`.
    pub guest_arguments: String,
    /// blkdom's command line.
    pub blkdom_arguments: String,
}

impl Default for Effort {
    fn default() -> Self {
        let (only, guest_arguments, blkdom_arguments) = Default::default();
        Self { runs: 3, seconds: 4, only, guest_arguments, blkdom_arguments }
    }
}

/// Size of each drive, in MiB.
const DRIVE: usize = 128;
/// The slots of the controllers: blkdom's, the Linux driver domain's, the limit's.
const SLOTS: [u8; 3] = [4, 5, 6];

/// Waits for a block device of the kernel's.
pub(super) const WAIT: &str =
    "appear() { for i in $(seq 1000); do test -b $1 && return; usleep 10000; done; echo no $1; return 1; }";

/// What an administrator's init does in a Linux driver domain: the drivers, and `xl devd` for hotplug, with a script that says no more
/// than where the disk is; Debian's would look first whether another guest has it.
pub(crate) const LINUX_SETUP: &str = "modprobe nvme && modprobe xen-blkback && \
for i in $(seq 1000); do test -b /dev/nvme0n1 && break; usleep 10000; done
cat >/etc/xen/scripts/block-plain <<'END'
#!/bin/sh
test \"$1\" = add || exit 0
xenstore-write $XENBUS_PATH/physical-device $(stat -c %t:%T $(xenstore-read $XENBUS_PATH/params))
xenstore-write $XENBUS_PATH/hotplug-status connected
END
chmod 755 /etc/xen/scripts/block-plain && xl devd";

/// What is asked of a disk.
struct Work {
    name: &'static str,
    arguments: &'static str,
    figures: Figures,
}

/// What a load is judged by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Figures {
    /// Operations a second, and how long each took.
    Operations,
    /// Bytes a second.
    Bytes,
    /// How long each took.
    Latency,
}

const fn work(name: &'static str, arguments: &'static str, figures: Figures) -> Work {
    Work { name, arguments, figures }
}

const WORKS: [Work; 10] = [
    work("4 KiB random read, depth 1", "--depth 1", Figures::Operations),
    work("4 KiB random read, depth 4", "--depth 4", Figures::Operations),
    work("4 KiB random read, depth 32", "--depth 32", Figures::Operations),
    work("4 KiB random write, depth 1", "--reads 0 --depth 1", Figures::Operations),
    work("4 KiB random write, depth 4", "--reads 0 --depth 4", Figures::Operations),
    work("4 KiB random write, depth 32", "--reads 0 --depth 32", Figures::Operations),
    work("4 KiB, 70 % reads, depth 8", "--reads 70 --depth 8", Figures::Operations),
    work("128 KiB sequential read", "--pattern sequential --size 131072 --depth 4", Figures::Bytes),
    work("128 KiB sequential write", "--pattern sequential --size 131072 --reads 0 --depth 4", Figures::Bytes),
    work("flush after a 4 KiB write", "--pattern flush", Figures::Latency),
];

/// Boots, measures, and tells `progress` what it is doing.
///
/// # Errors
/// What did not come up, or an I/O error.
pub fn run(row: Matrix, images: &Images, effort: &Effort, progress: &dyn Fn(&str)) -> Result<Report> {
    progress("booting Xen, dom0 and three NVMe controllers");
    let drives = Scratch::new()?;
    let controllers = SLOTS.into_iter().map(|slot| controller(drives.path(), slot)).collect::<Result<_>>()?;
    let stage = Stage::boot_with(row, images, Vec::new(), |config| {
        config.controllers = controllers;
        config.equipment = Equipment::Disks;
        config.driver_root = true;
        config.memory = 4096;
    })?;
    let lab = &stage.lab;
    let [blkdom_slot, linux_slot, limit_slot] = SLOTS.map(|slot| format!("00:{slot:02x}.0"));
    let ours = DriverDomainConfig::blkdom("blkdom").pci(&lab.hide(&blkdom_slot)?).extra(&effort.blkdom_arguments);
    let linux = LinuxDriverDomain { pci: vec![lab.hide(&linux_slot)?], setup: LINUX_SETUP };
    let ready = match effort.only.as_str() {
        "" => Some(create_to_ready(lab, &ours, &linux, effort.runs, progress)?),
        _ => None,
    };
    progress("starting the guests");
    let blkdom = DriverDomain::create(lab, &ours)?;
    let _linux = linux.start(lab)?;
    let guest = client(lab, &effort.guest_arguments)?;
    let limit = limit_guest(lab, limit_slot)?;
    let sides = [("blkdom", "/dev/xvda"), (LINUX, "/dev/xvdb")];
    let bench =
        Bench { turns: Alternation { lab, sides, counting: None, runs: effort.runs, progress }, guest, limit, effort };
    bench.warm_up()?;
    let mut report = Report::new("blkdom");
    let wanted = |work: &&Work| effort.only.split(',').any(|part| work.name.contains(part));
    for work in WORKS.iter().filter(wanted) {
        bench.work(work, &mut report).with_context(|| format!("blkdom's console:\n{}", console(&blkdom)))?;
    }
    if let Some(ready) = ready {
        report.push(ready.row("`xl create` to ready", "ms", Better::Less));
        footprint(lab, "blkdom", &images.blkdom, &mut report)?;
    }
    Ok(report)
}

fn console(domain: &DriverDomain<'_>) -> String {
    domain.console().unwrap_or_default()
}

/// An NVMe controller with a drive whose blocks are all written: what was never written is read faster.
pub(super) fn controller(directory: &Path, slot: u8) -> Result<DiskController> {
    let path: PathBuf = directory.join(format!("d{slot}"));
    let mut file = fs::File::create(&path)?;
    let mebibyte = vec![0x5a; 1 << 20];
    for _ in 0..DRIVE {
        file.write_all(&mebibyte)?;
    }
    file.sync_all()?;
    Ok(DiskController { kind: ControllerKind::Nvme, slot, disks: vec![Disk::image(path)] })
}

/// The guest's disk of the Linux driver domain, in `xl`'s words.
pub(super) fn linux_disk() -> String {
    format!("format=raw,vdev=xvdb,access=rw,backend={LINUX},backendtype=phy,script=block-plain,target=/dev/nvme0n1")
}

/// The guest with a disk from each side; `arguments` are more for its kernel.
pub(super) fn client<'lab>(lab: &'lab Lab, arguments: &str) -> Result<Guest<'lab>> {
    let mut config = GuestConfig::new("guest")
        .disk("format=raw,vdev=xvda,access=rw,backend=blkdom,backendtype=phy,target=nvme0n1")
        .disk(&linux_disk());
    config.memory = 192;
    arguments.clone_into(&mut config.arguments);
    let guest = lab.create(&config)?;
    guest.sh(&format!("{WAIT}\nappear /dev/xvda && appear /dev/xvdb"))?;
    Ok(guest)
}

/// The guest that owns the third controller.
fn limit_guest(lab: &Lab, slot: String) -> Result<Guest<'_>> {
    let mut config = GuestConfig::new("limit");
    config.pci = vec![lab.hide(&slot)?];
    config.memory = 192;
    let guest = lab.create(&config)?;
    guest.sh(&format!("{WAIT}\nmodprobe xen-pcifront; modprobe nvme; appear /dev/nvme0n1"))?;
    Ok(guest)
}

struct Bench<'s> {
    turns: Alternation<'s, &'static str>,
    guest: Guest<'s>,
    limit: Guest<'s>,
    effort: &'s Effort,
}

impl Bench<'_> {
    /// Lets every side make its pages, grants and queues first.
    fn warm_up(&self) -> Result<()> {
        const LOAD: &str = "--reads 50 --depth 32 --seconds 1";
        (self.turns.progress)("warming up");
        for (_, device) in &self.turns.sides {
            blocks::bench(&self.guest, device, LOAD)?;
        }
        blocks::bench(&self.limit, "/dev/nvme0n1", LOAD).map(drop)
    }

    fn work(&self, work: &Work, report: &mut Report) -> Result<()> {
        let arguments = format!("{} --seconds {}", work.arguments, self.effort.seconds);
        let limit = || blocks::bench(&self.limit, "/dev/nvme0n1", &arguments);
        let measure = |device: &&str| blocks::bench(&self.guest, device, &arguments);
        let runs: Runs<Load> = self.turns.run(work.name, measure, Some(&limit))?;
        let name = work.name;
        if work.figures == Figures::Operations {
            report.push(runs.samples(|load| load.iops).row(name, "IOPS", Better::More));
        }
        if work.figures == Figures::Bytes {
            report.push(runs.samples(|load| load.megabytes_per_second).row(name, "MB/s", Better::More));
            let cpu = runs.cpu(1e3, |load| load.megabytes_per_second * load.seconds);
            report.push(cpu.row(&format!("{name}: CPU of the driver domain"), "ms/MB", Better::Less));
            return Ok(());
        }
        let median = runs.samples(|load| load.median_us);
        report.push(median.row(&format!("{name}: median"), "us", Better::Less));
        let high = runs.samples(|load| load.p99_us);
        report.push(high.row(&format!("{name}: 99th percentile"), "us", Better::Less));
        let cpu = runs.cpu(1e6, |load| load.operations as f64);
        report.push(cpu.row(&format!("{name}: CPU of the driver domain"), "us/op", Better::Less));
        Ok(())
    }
}
