//! A NIC that hangs or reports a fault is restarted under its guests; one that does so again and again is given back. Host.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::Misbehaviour;

use super::nics::{attach, reaches};
use super::{Case, I350, Scene};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::traffic::{Shell, Transfer};

pub(super) const ONCE: &[Case] = &[Case {
    name: "a NIC that hangs, and one that loses its memory, is reset under a TCP connection that goes on; at the sixth fault it is given back",
    run: faults,
}];

const PATIENCE: Duration = Duration::from_secs(60);
/// The served NIC that misbehaves: its PHY keeps the link through a reset.
const NIC: u8 = I350;
/// Faults in a row that netdom bears.
const BORNE: u32 = 5;
/// MiB of the TCP connection: some ten seconds and more.
const TRANSFER: u32 = 256;
const NAME: &str = "faulty";
const HANG: &str = "hangs: it is reset";
const LOST_MEMORY: &str = "an error of its access to memory: it is reset";

fn faults(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let nic = lab.make_assignable(NIC.into())?;
    let netdom = DriverDomain::create(lab, &DriverDomainConfig::netdom(NAME).pci(&nic))?;
    let result = attach(scene, &netdom, &scene.a, NIC, "xenbr0").and_then(|()| one_by_one(scene, &netdom, &nic));
    // The next driver finds a card that works.
    lab.misbehave(NIC.into(), Misbehaviour::Hang(false))?;
    lab.run("xl network-detach a 1")?;
    netdom.destroy_after(result)
}

fn one_by_one(scene: &Scene<'_>, netdom: &DriverDomain<'_>, nic: &str) -> Result<String> {
    let (lab, a) = (&scene.stage.lab, &scene.a);
    let peer = scene.stage.peer(NIC.into());
    let (carrier, error) =
        (format!("{}/carrier", netdom.backend(a.id(), 1)), format!("/local/domain/{}/data/error", netdom.id));
    reaches(a, &peer)?;
    // Each write of the node, with the value before it.
    lab.start("carrier", &format!("xenstore-watch -n 2 {carrier}"))?;
    a.start("tcp", &format!("traffic tcp-send {peer} {TRANSFER}M"))?;
    lab.misbehave(NIC.into(), Misbehaviour::Hang(true))?;
    said(scene, HANG, 1)?;
    lab.misbehave(NIC.into(), Misbehaviour::Hang(false))?;
    lab.misbehave(NIC.into(), Misbehaviour::LostMemory)?;
    said(scene, LOST_MEMORY, 1)?;
    let transfer = a.finish("tcp")?;
    let line = transfer.lines().last().unwrap_or_default();
    let transfer: Transfer = serde_json::from_str(line).with_context(|| format!("TCP through it: '{transfer}'"))?;
    ensure!(transfer.checked && transfer.sent == u64::from(TRANSFER) << 20, "{transfer:?}");
    reaches(a, &peer)?;
    // A watch fires once when it is set.
    let writes = lab.must("cat /tmp/carrier.out")?;
    lab.stop("carrier")?;
    ensure!(writes.lines().count() == 1, "the link went and came back: {writes}");
    ensure!(lab.run(&format!("xenstore-exists {error}"))?.status != 0, "an error stays though the NIC works again");
    for fault in 2..BORNE {
        lab.misbehave(NIC.into(), Misbehaviour::LostMemory)?;
        said(scene, LOST_MEMORY, fault)?;
        reaches(a, &peer).with_context(|| format!("after fault {} in a row", fault + 1))?;
    }
    lab.misbehave(NIC.into(), Misbehaviour::LostMemory)?;
    let reason = lab.wait_until(&format!("xenstore-read {error} | grep 'it was reset too often'"), PATIENCE)?;
    ensure!(reason.contains(&format!("pci 0000:{nic}")), "data/error is '{reason}'");
    lab.wait_for_node(&carrier, "0", PATIENCE).context("the carrier of a NIC that was given back")?;
    // Given anew, it is used again.
    lab.must(&format!("xl pci-detach {NAME} {nic} && xl pci-attach {NAME} {nic}"))?;
    lab.wait_for_node(&carrier, "1", PATIENCE)?;
    reaches(a, &peer).context("attached anew")?;
    let misuse = lab.misuse(NIC.into());
    ensure!(misuse.is_empty(), "the driver: {misuse:?}");
    Ok(format!("TCP of {TRANSFER} MiB took {:.1} s over two resets; then '{}'", transfer.seconds, reason.trim()))
}

/// Waits until netdom has said the text so often.
fn said(scene: &Scene<'_>, text: &str, times: u32) -> Result<()> {
    let log = format!("/var/log/xen/console/guest-{NAME}.log");
    let counted = format!("test $(grep -c -F -- '{text}' {log}) -ge {times}");
    scene.stage.lab.wait_until(&counted, PATIENCE).map(drop).with_context(|| format!("'{text}', {times} times"))
}
