//! Frontends come and go; the neighbours do not notice, and nothing is left behind. Host.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Case, Scene};
use crate::stage::vif;
use crate::traffic::{self, Shell};

pub(super) const CASES: &[Case] = &[
    Case { name: "12 cycles of network-detach and network-attach, nothing left behind", run: detach_and_attach },
    Case { name: "4 times xl destroy of a guest in full traffic, nothing left behind", run: destroy_in_traffic },
];

/// Datagrams a second of the flow that must not be disturbed.
const PACE: u32 = 100;

/// Runs `disturb` beside a paced flow from `b` to the wire; gives the flow's longest gap in milliseconds and how many were lost.
fn beside_a_flow(scene: &Scene<'_>, seconds: u32, disturb: impl FnOnce() -> Result<()>) -> Result<(f64, u64)> {
    traffic::start_pace(&scene.b, &scene.peer(), PACE, seconds)?;
    let result = disturb();
    if result.is_err() {
        scene.b.stop("pace")?;
    }
    result?;
    let flow = traffic::gap(&scene.b)?;
    Ok((flow.longest_gap_ms, flow.sent.unwrap_or_default().saturating_sub(flow.received)))
}

fn detach_and_attach(scene: &Scene<'_>) -> Result<String> {
    let (lab, a) = (&scene.stage.lab, &scene.a);
    let config = vif("netdom", 1).replace(',', " ");
    let attach = format!("xl network-attach a {config}");
    let connected = format!("test \"$(xenstore-read {}/state)\" = 4", scene.netdom.backend(a.id(), 0));
    let again = || -> Result<()> {
        lab.must("xl network-detach a 0")?;
        // As it removes its end, Linux' netfront waits for a backend that closes. The next backend has the same path and does not.
        a.sh("while test -e /sys/class/net/eth0; do usleep 20000; done")?;
        lab.must(&attach)?;
        lab.wait_until(&connected, Duration::from_secs(60)).map(drop).with_context(|| {
            let nodes = lab.run(&format!(
                "xenstore-ls -fp /local/domain/{}/backend/vif; xenstore-ls -fp /local/domain/{}/device/vif",
                scene.netdom.id,
                a.id()
            ));
            format!(
                "the vif did not connect again; both ends:\n{}",
                nodes.map_or_else(|_| String::new(), |output| output.stdout)
            )
        })
    };
    // The first cycle may grow tables that stay.
    again()?;
    let before = scene.at_rest()?;
    let (gap, lost) = beside_a_flow(scene, 30, || (0..12).try_for_each(|_| again()))?;
    scene.given_back(&before)?;
    let address = crate::stage::lease(a, "eth0")?;
    ensure!(address == scene.a_address, "{address} was leased in place of {}", scene.a_address);
    traffic::ping(a, &scene.peer(), 20, 0, 56)?;
    Ok(format!("the neighbour's longest gap {gap:.0} ms, {lost} datagrams lost"))
}

fn destroy_in_traffic(scene: &Scene<'_>) -> Result<String> {
    let stage = scene.stage;
    let before = scene.at_rest()?;
    let mut worst: f64 = 0.0;
    let mut lost_in_all = 0;
    for _ in 0..4 {
        let victim = stage.client("victim", &[vif("netdom", 3)])?;
        victim.start("load", &format!("traffic tcp-send {} 0 --plain --seconds 600", scene.peer()))?;
        victim.start("more", &format!("traffic udp-flood {} 18 600", scene.peer()))?;
        let (gap, lost) = beside_a_flow(scene, 4, || {
            stage.lab.must("sleep 1; xl destroy victim")?;
            Ok(())
        })?;
        worst = worst.max(gap);
        lost_in_all += lost;
    }
    scene.given_back(&before)?;
    Ok(format!("the neighbour's longest gap {worst:.0} ms, {lost_in_all} datagrams lost"))
}
