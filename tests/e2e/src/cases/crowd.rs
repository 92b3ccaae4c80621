//! Many vifs of one netdom, and one that is refused among others: each costs nobody else anything. Host.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Case, Scene};
use crate::stage::vif;
use crate::traffic::{self, Shell};

pub(super) const CASES: &[Case] = &[
    Case { name: "16 vifs of one domain hear of a link change at once, and none is lost", run: link_change },
    Case { name: "a vif that is refused keeps its guest from nothing", run: refused_beside_others },
];

const PATIENCE: Duration = Duration::from_secs(120);
const VIFS: u32 = 16;

fn link_change(scene: &Scene<'_>) -> Result<String> {
    let (lab, netdom) = (&scene.stage.lab, &scene.netdom);
    let nic = lab.nics().first().context("the machine has no NIC")?.bdf();
    let all = |node: &str, value: &str, count: u32| -> Result<()> {
        let command = format!(
            "test $(for d in $(xenstore-list {top}); do xenstore-read {top}/$d/{node}; done | grep -c -x {value}) -eq {count}",
            top = netdom.backends(0)
        );
        lab.wait_until(&command, PATIENCE)
            .with_context(|| format!("{node} is not {value} for each of {count} vifs"))?;
        Ok(())
    };
    let result = (|| {
        for number in 0..VIFS {
            lab.must(&format!("xl network-attach 0 backend=netdom mac=00:16:3e:00:02:{number:02x}"))?;
        }
        all("state", "4", VIFS)?;
        lab.must(&format!("xl pci-detach netdom {nic}"))?;
        let without = all("carrier", "0", VIFS).and_then(|()| all("state", "4", VIFS));
        lab.must(&format!("xl pci-attach netdom {nic}"))?;
        without?;
        all("carrier", "1", VIFS)?;
        all("state", "4", VIFS)
    })();
    // Of each, what it was: without the list nothing is detached, and the cases that follow say so.
    let left = lab.run(
        "xl network-list 0 | awk '/00:16:3e:00:02:/ {print $1}' | while read d; do xl network-detach 0 $d; done",
    )?;
    result.with_context(|| netdom.console().unwrap_or_default())?;
    traffic::ping(&scene.a, &scene.peer(), 20, 0, 56)?;
    Ok(format!("{VIFS} vifs of dom0{}", if left.stdout.contains("unable") { ", not all were let go" } else { "" }))
}

/// A device of guest `a` as a toolstack makes it, but with a MAC address that is none; and then one as it should be.
fn refused_beside_others(scene: &Scene<'_>) -> Result<String> {
    const HANDLE: u32 = 9;
    let (lab, netdom, a) = (&scene.stage.lab, &scene.netdom, &scene.a);
    let (front, back) = (format!("/local/domain/{}/device/vif/{HANDLE}", a.id()), netdom.backend(a.id(), HANDLE));
    let nodes = format!(
        "xenstore-write {back} '' {back}/frontend {front} {back}/frontend-id {a} {back}/online 1 {back}/mac nonsense \
         {back}/bridge xenbr0 {back}/handle {HANDLE} {back}/state 1 && \
         xenstore-chmod -r {back} n{netdom} r{a} && \
         xenstore-write {front} '' {front}/backend {back} {front}/backend-id {netdom} {front}/handle {HANDLE} \
         {front}/mac 00:16:3e:00:00:61 {front}/state 1 && \
         xenstore-chmod -r {front} n{a} r{netdom}",
        a = a.id(),
        netdom = netdom.id
    );
    lab.must(&nodes)?;
    let result = (|| {
        let reason = lab.wait_until(&format!("xenstore-read {back}/error"), PATIENCE).context("it was not refused")?;
        lab.must(&format!("xl network-attach a {}", vif("netdom", 0x62).replace(',', " ")))?;
        a.sh("for i in $(seq 3000); do grep -q 00:16:3e:00:00:62 /sys/class/net/*/address && exit 0; usleep 20000; done; exit 1")
            .context("the vif attached after it does not come up")?;
        lab.wait_until("d=$(xl network-list a | awk '/00:16:3e:00:00:62/ {print $5}'); test \"$d\" = 4", PATIENCE)
            .context("the vif attached after it is not connected")?;
        Ok(reason.trim().to_owned())
    })();
    lab.run("d=$(xl network-list a | awk '/00:16:3e:00:00:62/ {print $1}'); test -z \"$d\" || xl network-detach a $d")?;
    lab.must(&format!("xenstore-rm {front}; xenstore-write {back}/online 0 {back}/state 5"))?;
    lab.wait_until(&format!("! xenstore-exists {back}/state"), PATIENCE)?;
    result
}
