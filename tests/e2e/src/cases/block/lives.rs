//! blkdom's lives: it fails under load and goes on in the same domain, and its guest sees nothing of it. Host.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{DiskController, Guest, GuestConfig};

use super::{Block, BlockScene, CONTROLLERS, PATIENCE, appear, disk_of};
use crate::cases::{Case, at_rest, given_back};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::traffic::Shell;

pub(super) const CASES: &[Case<Block>] = &[Case {
    name: "blkdom fails again and again, idle and under load on NVMe and SATA, and goes on: its guest sees nothing",
    run: failures,
}];

/// The domain, its guest, and what it serves that guest: two namespaces and a drive.
const BLKDOM: &str = "lives";
const GUEST: &str = "survivor";
const DISKS: [(&str, &str); 3] = [("xvda", "nvme0n1"), ("xvdb", "nvme0n2"), ("xvdc", "sda")];
/// Failures while nothing happens, under load, and under a file system. Those in a row are fewer than may be: after a pause another row begins.
const IDLE: u32 = 1;
const LOADED: u32 = 4;
const MOUNTED: u32 = 3;
/// From when a life is sound.
pub(super) const SETTLED: Duration = Duration::from_secs(11);

fn failures(scene: &BlockScene<'_>) -> Result<String> {
    let lab = scene.lab;
    let mut config = DriverDomainConfig::blkdom(BLKDOM);
    for controller in lab.controllers().iter().skip(CONTROLLERS + 2).map(DiskController::bdf) {
        config = config.pci(&controller);
    }
    let blkdom = DriverDomain::create(lab, &config)?;
    let result = with_guest(scene, &blkdom);
    lab.run(&format!("xl destroy {GUEST}"))?;
    blkdom.destroy_after(result)
}

fn with_guest(scene: &BlockScene<'_>, blkdom: &DriverDomain<'_>) -> Result<String> {
    let lab = scene.lab;
    let mut config = GuestConfig { memory: 256, vcpus: 2, ..GuestConfig::new(GUEST) };
    for (device, target) in DISKS {
        config = config.disk(&disk_of(BLKDOM, device, target, "rw"));
    }
    let guest = lab.create(&config)?;
    for (device, _) in DISKS {
        appear(&guest, device)?;
    }
    let nodes = || lab.must(&format!("xenstore-ls -f /local/domain/{}/device/vbd", guest.id()));
    let (before, mut resources) = (nodes()?, at_rest(lab, blkdom)?);
    let mut lives: u32 = 0;
    let mut fail = |times: u32, pause: Duration| -> Result<()> {
        for _ in 0..times {
            lives += 1;
            sleep(pause);
            lab.must(&format!("xl trigger {BLKDOM} nmi"))?;
            lab.wait_for_console(BLKDOM, &format!("life {lives} after one that failed"), PATIENCE)?;
            lab.wait_for_console(BLKDOM, &format!("life {lives} has taken over"), PATIENCE)?;
        }
        Ok(())
    };
    fail(IDLE, Duration::ZERO)?;
    let loads = DISKS.map(|(device, _)| (device, format!("blocks verify /dev/{device} --discard --seconds 25")));
    for (device, command) in &loads {
        guest.start(device, command)?;
    }
    fail(LOADED, Duration::from_secs(2))?;
    for (device, command) in &loads {
        let said = guest.finish(device)?;
        ensure!(said.contains("\"operations\"") && !said.contains("error"), "{command}: {said}");
    }
    sleep(SETTLED);
    mount(&guest)?;
    fail(MOUNTED, Duration::from_secs(3))?;
    unmount(&guest)?;
    let errors = guest.sh("dmesg | grep -iE 'i/o error|blkfront.*failed|ext4-fs (error|warning)' || true")?;
    ensure!(errors.trim().is_empty(), "the guest's kernel says: {errors}");
    let after = nodes()?;
    ensure!(before == after, "the frontend's nodes were\n{before}and are\n{after}");
    resources.0.insert("lives".to_owned(), lives.into());
    given_back(lab, blkdom, &resources)?;
    let console = blkdom.console()?;
    let pauses = console.lines().filter_map(|line| line.split_once("has taken over, ")?.1.split_once(" after"));
    Ok(format!("pauses of {}", pauses.map(|(pause, _)| pause).collect::<Vec<_>>().join(", ")))
}

/// Makes a file system, and keeps it busy: files are written, synchronised, compared and removed.
fn mount(guest: &Guest<'_>) -> Result<()> {
    guest.sh("set -e; mkfs.ext4 -q /dev/xvda; mount -t ext4 /dev/xvda /mnt; rm -f /tmp/enough")?;
    let script = "{ n=0; while ! test -e /tmp/enough; do n=$((n+1)); dd if=/dev/urandom of=/tmp/new bs=64k count=8 2>/dev/null; \
         cp /tmp/new /mnt/$((n%8)) && sync && echo 3 >/proc/sys/vm/drop_caches && cmp /tmp/new /mnt/$((n%8)) || exit 1; done; echo done $n; }";
    guest.start("files", script)
}

fn unmount(guest: &Guest<'_>) -> Result<()> {
    guest.sh("touch /tmp/enough")?;
    let said = guest.finish("files")?;
    ensure!(said.contains("done"), "files were not what was written: {said}");
    guest
        .sh("umount /mnt && fsck.ext4 -fn /dev/xvda >/tmp/fsck || { cat /tmp/fsck; exit 1; }")
        .map(drop)
        .context("fsck")
}
