//! A guest is saved, restored and migrated to where it was, with a vif of netdom, which is replaced meanwhile: its connections go on. Host.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::{Guest, GuestConfig};

use super::{Case, SPARE_NIC, Scene, at_rest, given_back, migrate};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::rebuilt::rebuild;
use crate::stage::vif;
use crate::traffic::{self, Shell};

pub(super) const CASES: &[Case] = &[Case {
    name: "xl save, an update of netdom, xl restore, and xl migrate to the same host: the guest's TCP connections go on",
    run: saved,
}];

const NAME: &str = "kept";
const GUEST: &str = "traveller";
const IMAGE: &str = "/usr/lib/oxidom/netdom";
const REBUILT: &str = "/tmp/kept-rebuilt";
/// What the guest's vif may send, and MiB that it has to: some seconds more than a journey.
const RATE: &str = "rate=40Mb/s";
const TRANSFER: u32 = 32;
const PATIENCE: Duration = Duration::from_secs(180);

fn saved(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let nic = lab.make_assignable(SPARE_NIC.into())?;
    let netdom = DriverDomain::create(lab, &DriverDomainConfig::netdom(NAME).pci(&nic))?;
    let result = travels(scene, &netdom);
    lab.run(&format!("xl destroy {GUEST}; rm -f /tmp/{GUEST}"))?;
    netdom.destroy_after(result)
}

fn travels(scene: &Scene<'_>, netdom: &DriverDomain<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let mut rebuilt = fs::read(&scene.stage.images.netdom)?;
    rebuild(&mut rebuilt)?;
    lab.put(REBUILT, 0o644, &rebuilt)?;
    let config = GuestConfig::new(GUEST).vif(&format!("{},{RATE}", vif(NAME, 0x81)));
    let first = scene.stage.client_of(&config)?;
    let mut resources = at_rest(lab, netdom)?;
    let (saved, _) = journey(scene, &first, || {
        lab.must(&format!("xl save {GUEST} /tmp/{GUEST}"))?;
        lab.wait_until(&format!("! xenstore-exists {}", netdom.backends(first.id())), PATIENCE)
            .context("netdom kept the vif of a guest that was saved")?;
        lab.must(&format!("oxidom update {NAME} {REBUILT}"))?;
        lab.must(&format!("xl restore /tmp/{GUEST}")).map(|_| true)
    })
    .context("saved and restored")?;
    let second = lab.guest(GUEST)?;
    let (migrated, moved) = journey(scene, &second, || {
        let update = format!("oxidom update {NAME} {IMAGE} >/tmp/update 2>&1; echo status $? >>/tmp/update");
        migrate(lab, &second, &update)
    })
    .context("migrated")?;
    let update = lab.must("cat /tmp/update")?;
    ensure!(update.contains("status 0"), "the update beside the migration: {update}");
    resources.0.insert("lives".to_owned(), 2);
    given_back(lab, netdom, &resources)?;
    let second = if moved { "migrated" } else { "stayed, as this Xen migrates no PV guest" };
    Ok(format!("TCP at {saved} Mbit/s, saved and restored, and at {migrated}, {second}"))
}

/// The guest goes away and comes back under another number, in the midst of a transfer; gives that one's rate.
fn journey(scene: &Scene<'_>, guest: &Guest<'_>, go: impl FnOnce() -> Result<bool>) -> Result<(String, bool)> {
    let (lab, peer) = (&scene.stage.lab, scene.stage.peer(SPARE_NIC.into()));
    let interface = "cat /sys/class/net/eth0/address; ip -4 -o addr show dev eth0";
    let before = guest.sh(interface)?;
    guest.start("send", &format!("traffic tcp-send {peer} {TRANSFER}M"))?;
    let moved = go()?;
    let back = lab.guest(GUEST)?;
    ensure!((back.id() != guest.id()) == moved, "domain {} is domain {} now", guest.id(), back.id());
    let out = back.finish("send")?;
    ensure!(out.contains("\"ok\":true"), "its transfer: {out}");
    let after = back.sh(interface)?;
    ensure!(before == after, "its interface was\n{before}and is\n{after}");
    let ping = traffic::ping(&back, &peer, 20, 0, 56)?;
    ensure!(ping.lost == 0, "{ping:?}");
    let line = out.lines().last().unwrap_or_default();
    let transfer: traffic::Transfer = serde_json::from_str(line).with_context(|| format!("TCP said '{out}'"))?;
    Ok((format!("{:.0}", transfer.mbit_per_second), moved))
}
