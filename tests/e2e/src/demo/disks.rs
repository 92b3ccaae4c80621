//! The demo's second half: a Linux guest installs itself on a disk of blkdom's, boots from it, and finds what it wrote. Host.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{ControllerKind, Disk, DiskController, Guest, GuestConfig, Lab};

use super::Audience;
use crate::blocks;
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::install;
use crate::stage::Stage;
use crate::traffic::Shell;

/// The guest.
const NAME: &str = "c";
/// How much it writes, in MiB.
const MEBIBYTES: u32 = 16;

/// The machine's NVMe controller, with an empty drive in the directory.
pub(super) fn controller(directory: &Path) -> Result<DiskController> {
    let path = directory.join("drive");
    fs::File::create(&path)?.set_len(256 << 20)?;
    Ok(DiskController { kind: ControllerKind::Nvme, slot: 8, disks: vec![Disk::image(path)] })
}

/// Shows it.
pub(super) fn show(stage: &Stage, audience: &dyn Audience, line: &mut impl FnMut(&'static str, String)) -> Result<()> {
    let lab = &stage.lab;
    audience.step(
        "xl create blkdom, which owns the NVMe controller; a guest with backend=blkdom installs itself on its disk",
    );
    let bdf = lab.controllers().first().context("the machine has no disk controller")?.bdf();
    let blkdom = DriverDomain::create(lab, &DriverDomainConfig::blkdom("blkdom").pci(&lab.hide(&bdf)?))?;
    let mut config =
        GuestConfig::new(NAME).disk("format=raw,vdev=xvda,access=rw,backend=blkdom,backendtype=phy,target=nvme0n1");
    config.memory = 160;
    let root = install::install(&lab.create(&config)?)?;
    lab.must(&format!("xl destroy {NAME}"))?;
    audience.done(&format!("ext4 with {root} MiB in it"));

    audience.step(&format!("booting it from there; it writes {MEBIBYTES} MiB"));
    config.arguments = install::ROOT.to_owned();
    let guest = lab.create(&config)?;
    install::has_root(&guest)?;
    let write = format!("dd if=/dev/urandom of=/root/written bs=1M count={MEBIBYTES} 2>/dev/null && sync");
    let written = guest.sh(&format!("{write} && sha256sum /root/written"))?;
    audience.done("its root file system is on blkdom's disk");

    audience.step("xl reboot");
    let started = Instant::now();
    let guest = reboot(lab, &guest)?;
    let found = guest.sh("sha256sum /root/written")?;
    ensure!(written == found, "the guest wrote {written} and found {found}");
    audience.done(&format!("back after {:.1} s, and finds what it wrote", started.elapsed().as_secs_f64()));

    audience.step("blkdom fails while the guest writes (xl trigger blkdom nmi), and is replaced (oxidom update)");
    guest.start("write", &format!("sh -c '{write} && sha256sum /root/written'"))?;
    lab.must("sleep 1; xl trigger blkdom nmi")?;
    blkdom.wait_for_lives(1)?;
    lab.must("oxidom update blkdom /usr/lib/oxidom/blkdom")?;
    let written = guest.finish("write")?;
    let found = guest.sh("echo 3 >/proc/sys/vm/drop_caches; sha256sum /root/written")?;
    ensure!(written == found, "the guest wrote {written} and found {found}");
    guest.sh("! dmesg | grep -i 'i/o error'")?;
    audience.done(&format!("no error, and it finds what it wrote; {}", super::shown(&blkdom.pauses()?)));

    audience.step("reading from the disk");
    let small = blocks::bench(&guest, "/dev/xvda", "--depth 1 --seconds 2")?;
    let large = blocks::bench(&guest, "/dev/xvda", "--pattern sequential --size 131072 --depth 4 --seconds 2")?;
    audience.done(&format!("{:.0} IOPS, {:.0} MB/s", small.iops, large.megabytes_per_second));
    line("blkdom: `xl create` to ready", format!("{} ms", blkdom.created.as_millis()));
    line("blkdom: its first instruction to ready", format!("{} ms", blkdom.ready.as_millis()));
    line(
        "blkdom: 4 KiB read",
        format!("median {:.2} ms, 99th percentile {:.2} ms", small.median_us / 1e3, small.p99_us / 1e3),
    );
    line("blkdom: reading 128 KiB at a time", format!("{:.0} MB/s", large.megabytes_per_second));
    line("blkdom: memory, image", super::footprint(lab, "blkdom", &stage.images.blkdom)?);
    Ok(())
}

/// Reboots a guest as an administrator does; it comes back as another domain.
fn reboot<'lab>(lab: &'lab Lab, guest: &Guest<'lab>) -> Result<Guest<'lab>> {
    let (name, before) = (guest.name(), guest.id());
    lab.must(&format!("xl reboot {name}"))?;
    let new = format!("id=$(xl domid {name}) && test $id != {before}");
    lab.wait_until(&new, Duration::from_secs(60)).with_context(|| format!("{name} did not come back"))?;
    let guest = lab.guest(name)?;
    guest.sh("true")?;
    Ok(guest)
}
