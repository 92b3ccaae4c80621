//! Disks come and go; the neighbour does not notice, and nothing is left behind. Host.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use lab::GuestConfig;

use super::{Block, BlockScene, CONTROLLERS, PATIENCE, PLAIN, appear, disk, handle};
use crate::blocks;
use crate::cases::Case;
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::traffic::Shell;

/// Those that take minutes.
pub(super) const MANY: &[Case<Block>] = &[
    Case { name: "25 cycles of block-detach and block-attach, nothing left behind", run: detach_and_attach },
    Case { name: "8 times xl destroy of a guest under full load, nothing left behind", run: destroy_under_load },
];

pub(super) const CASES: &[Case<Block>] = &[
    Case { name: "a guest reboots and has its disk again", run: reboot },
    Case { name: "xl destroy of a guest with 12 disks complains of nothing", run: destroy_with_many },
    Case { name: "oxidom reattach after xl destroy and xl create of blkdom: disks come back", run: reattach },
];

/// Runs `disturb` while `b` keeps its disk busy; gives its slowest operation in milliseconds.
fn beside_a_load(scene: &BlockScene<'_>, disturb: impl FnOnce() -> Result<()>) -> Result<f64> {
    blocks::keep_busy(&scene.b, "/dev/xvda")?;
    let result = disturb();
    let load = blocks::stop_busy(&scene.b);
    result?;
    Ok(load?.max_us / 1e3)
}

fn detach_and_attach(scene: &BlockScene<'_>) -> Result<String> {
    let again = || {
        scene.with_disk("xvdb", PLAIN.target, || scene.a.sh("dd if=/dev/xvdb of=/dev/null bs=64k count=16 2>/dev/null"))
    };
    // The first cycle may grow tables that stay.
    again()?;
    let before = scene.at_rest()?;
    let slowest = beside_a_load(scene, || (0..25).try_for_each(|_| again().map(drop)))?;
    scene.given_back(&before)?;
    Ok(format!("the neighbour's slowest operation {slowest:.0} ms"))
}

fn destroy_under_load(scene: &BlockScene<'_>) -> Result<String> {
    let before = scene.at_rest()?;
    let mut worst: f64 = 0.0;
    for _ in 0..8 {
        let victim = GuestConfig { memory: 160, ..GuestConfig::new("victim").disk(&disk("xvda", PLAIN.target, "rw")) };
        let victim = scene.lab.create(&victim)?;
        appear(&victim, "xvda")?;
        victim.start("load", "blocks bench /dev/xvda --reads 50 --depth 32 --seconds 600")?;
        victim.start(
            "more",
            "blocks bench /dev/xvda --pattern sequential --size 131072 --reads 0 --depth 4 --seconds 600",
        )?;
        let slowest = beside_a_load(scene, || scene.lab.must("sleep 2; xl destroy victim; sleep 1").map(drop))?;
        worst = worst.max(slowest);
        let gone = format!("! xenstore-exists /local/domain/{}/backend/vbd/{}", scene.blkdom.id, victim.id());
        scene.lab.wait_until(&gone, PATIENCE).context("blkdom or the toolstack kept its directory")?;
    }
    scene.given_back(&before)?;
    Ok(format!("the neighbour's slowest operation {worst:.0} ms"))
}

/// libxl looks at each disk's backend in turn: none may be gone before that.
fn destroy_with_many(scene: &BlockScene<'_>) -> Result<String> {
    let before = scene.at_rest()?;
    let mut guest = GuestConfig { memory: 160, ..GuestConfig::new("many") };
    for letter in 'a'..='l' {
        guest = guest.disk(&disk(&format!("xvd{letter}"), "vg0/filled", "ro"));
    }
    let guest = scene.lab.create(&guest)?;
    for letter in 'a'..='l' {
        appear(&guest, &format!("xvd{letter}"))?;
    }
    let start = Instant::now();
    let said = scene.lab.run("xl destroy many")?;
    let took = start.elapsed().as_secs_f64();
    ensure!(said.status == 0 && said.stdout.trim().is_empty(), "it said: {}", said.stdout.trim());
    let gone = format!("! xenstore-exists /local/domain/{}/backend/vbd/{}", scene.blkdom.id, guest.id());
    scene.lab.wait_until(&gone, PATIENCE).context("blkdom or the toolstack kept its directory")?;
    scene.given_back(&before)?;
    Ok(format!("in {took:.1} s"))
}

/// A guest with a disk that is idle, and its root disk, or what its command line calls so.
fn reattach(scene: &BlockScene<'_>) -> Result<String> {
    let lab = scene.lab;
    let mut config = DriverDomainConfig::blkdom("reborn");
    for controller in lab.controllers().iter().skip(CONTROLLERS) {
        config = config.pci(&lab.hide(&controller.bdf())?);
    }
    DriverDomain::create(lab, &config)?;
    let disk = |device, target| disk(device, target, "rw").replace("=blkdom", "=reborn");
    let guest = GuestConfig::new("orphan").disk(&disk("xvda", "nvme0n1")).disk(&disk("xvdb", "nvme1n1"));
    let guest = lab.create(&GuestConfig { memory: 160, arguments: "root=/dev/xvdb".to_owned(), ..guest })?;
    let result = (|| {
        for device in ["xvda", "xvdb"] {
            appear(&guest, device)?;
        }
        lab.must("xl destroy reborn")?;
        let again = DriverDomain::create(lab, &config)?;
        let said = lab.run_for("oxidom --json reattach", PATIENCE)?;
        let root = "{\"backend\":\"reborn\",\"device\":\"xvdb\",\"domain\":".to_owned();
        ensure!(said.status == 4 && said.stdout.contains(&root) && said.stdout.contains("root disk"), "{said:?}");
        let backend = |device| format!("xenstore-read /libxl/{}/device/vbd/{}/backend", guest.id(), handle(device));
        let backends = [lab.must(&backend("xvda"))?, lab.must(&backend("xvdb"))?];
        let is_new = backends.each_ref().map(|backend| backend.starts_with(&format!("/local/domain/{}/", again.id)));
        ensure!(is_new == [true, false], "the backends are {backends:?}");
        appear(&guest, "xvda")?;
        guest.sh("dd if=/dev/xvda of=/dev/null bs=64k count=16 2>/dev/null")?;
        Ok("the root disk was left alone".to_owned())
    })();
    lab.must("xl destroy orphan")?;
    lab.destroy_after("reborn", result)
}

fn reboot(scene: &BlockScene<'_>) -> Result<String> {
    let guest = GuestConfig { memory: 160, ..GuestConfig::new("again").disk(&disk("xvda", PLAIN.target, "rw")) };
    let guest = scene.lab.create(&guest)?;
    appear(&guest, "xvda")?;
    let digest = guest
        .sh("dd if=/dev/urandom of=/dev/xvda bs=1M count=4 conv=notrunc,fsync 2>/dev/null; sha256sum /dev/xvda")?;
    let old = guest.id();
    guest.sh("(sleep 1; reboot -f) >/dev/null 2>&1 &")?;
    let other =
        format!("id=$(xl domid again) && test $id != {old} && xenstore-exists /local/domain/$id/data/lab/ready");
    scene.lab.wait_until(&other, PATIENCE).context("it did not come back")?;
    let guest = scene.lab.guest("again")?;
    appear(&guest, "xvda")?;
    let found = guest.sh("sha256sum /dev/xvda");
    scene.lab.must("xl destroy again")?;
    ensure!(found? == digest, "it found something else on its disk");
    Ok(format!("domain {old} came back as {}", guest.id()))
}
