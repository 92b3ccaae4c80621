//! A guest is saved, restored and migrated to where it was, with a disk of blkdom, which is replaced meanwhile: its load goes on. Host.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{DiskController, Guest, GuestConfig};

use super::{Block, BlockScene, CONTROLLERS, appear, disk_of};
use crate::cases::{Case, at_rest, given_back, migrate};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::rebuilt::rebuild;
use crate::traffic::Shell;

pub(super) const CASES: &[Case<Block>] = &[Case {
    name: "xl save, an update of blkdom, xl restore, and xl migrate to the same host: the guest's load goes on",
    run: saved,
}];

const NAME: &str = "kept";
const GUEST: &str = "traveller";
const IMAGE: &str = "/usr/lib/oxidom/blkdom";
const REBUILT: &str = "/tmp/kept-rebuilt";
/// Shared: on the same host, the domain that the guest is leaves when the one that it becomes has the disk.
const TARGET: &str = "w!:nvme0n1";
const PATIENCE: Duration = Duration::from_secs(180);

fn saved(scene: &BlockScene<'_>) -> Result<String> {
    let lab = scene.lab;
    let mut config = DriverDomainConfig::blkdom(NAME);
    for controller in lab.controllers().iter().skip(CONTROLLERS + 2).map(DiskController::bdf) {
        config = config.pci(&lab.hide(&controller)?);
    }
    let blkdom = DriverDomain::create(lab, &config)?;
    let result = travels(scene, &blkdom);
    lab.run(&format!("xl destroy {GUEST}; rm -f /tmp/{GUEST}"))?;
    blkdom.destroy_after(result)
}

fn travels(scene: &BlockScene<'_>, blkdom: &DriverDomain<'_>) -> Result<String> {
    let lab = scene.lab;
    let mut rebuilt = fs::read(&scene.block.stage.images.blkdom)?;
    rebuild(&mut rebuilt)?;
    lab.put(REBUILT, 0o644, &rebuilt)?;
    let disk = disk_of(NAME, "xvda", TARGET, "rw");
    let config = GuestConfig { memory: 160, ..GuestConfig::new(GUEST).disk(&disk) };
    let first = lab.create(&config)?;
    appear(&first, "xvda")?;
    let mut resources = at_rest(lab, blkdom)?;
    journey(scene, &first, || {
        lab.must(&format!("xl save {GUEST} /tmp/{GUEST}"))?;
        lab.wait_until(&format!("! xenstore-exists {}", blkdom.backends(first.id())), PATIENCE)
            .context("blkdom kept the disk of a guest that was saved")?;
        lab.must(&format!("oxidom update {NAME} {REBUILT}"))?;
        lab.must(&format!("xl restore /tmp/{GUEST}")).map(|_| true)
    })
    .context("saved and restored")?;
    let second = lab.guest(GUEST)?;
    let moved = journey(scene, &second, || {
        let update = format!("oxidom update {NAME} {IMAGE} >/tmp/update 2>&1; echo status $? >>/tmp/update");
        migrate(lab, &second, &update)
    })
    .context("migrated")?;
    let update = lab.must("cat /tmp/update")?;
    ensure!(update.contains("status 0"), "the update beside the migration: {update}");
    resources.0.insert("lives".to_owned(), 2);
    given_back(lab, blkdom, &resources)?;
    let second = if moved { "and migrated" } else { "not migrated, as this Xen migrates no PV guest" };
    Ok(format!("saved and restored, {second}"))
}

/// The guest goes away and comes back under another number, in the midst of a load that verifies what it reads.
fn journey(scene: &BlockScene<'_>, guest: &Guest<'_>, go: impl FnOnce() -> Result<bool>) -> Result<bool> {
    guest.start("load", "blocks verify /dev/xvda --discard --seconds 8")?;
    let moved = go()?;
    let back = scene.lab.guest(GUEST)?;
    ensure!((back.id() != guest.id()) == moved, "domain {} is domain {} now", guest.id(), back.id());
    let said = back.finish("load")?;
    ensure!(said.contains("\"operations\"") && !said.contains("error"), "its load: {said}");
    let errors = back.sh("dmesg | grep -iE 'i/o error|blkfront.*failed' || true")?;
    ensure!(errors.trim().is_empty(), "its kernel says: {errors}");
    Ok(moved)
}
