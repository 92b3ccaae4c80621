//! netdom's lives: it fails under traffic and goes on in the same domain, and its guest sees nothing of it. Host.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Case, SPARE_NIC, Scene, at_rest, given_back, nics};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::traffic::{self, Shell};

pub(super) const CASES: &[Case] = &[Case {
    name: "netdom fails again and again under TCP both ways, and goes on: its guest sees nothing",
    run: failures,
}];

/// Fewer than may be in a row.
const LIVES: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

fn failures(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let nic = lab.make_assignable(SPARE_NIC.into())?;
    let netdom = DriverDomain::create(lab, &DriverDomainConfig::netdom("lives").pci(&nic))?;
    let result = nics::attach(scene, &netdom, &scene.a, SPARE_NIC, "xenbr0").and_then(|()| fail(scene, &netdom));
    lab.run("xl network-detach a 1")?;
    let console = netdom.console().unwrap_or_default();
    lab.destroy_after("lives", result.with_context(|| format!("the console of lives:\n{console}")))
}

fn fail(scene: &Scene<'_>, netdom: &DriverDomain<'_>) -> Result<String> {
    let (lab, a, peer) = (&scene.stage.lab, &scene.a, scene.stage.peer(SPARE_NIC.into()));
    nics::reaches(a, &peer)?;
    let frontend = || lab.must(&format!("xenstore-ls -f /local/domain/{}/device/vif/1", a.id()));
    let (before, mut resources) = (frontend()?, at_rest(lab, netdom)?);
    a.start("send", &format!("traffic tcp-send {peer} 256M"))?;
    a.start("receive", &format!("traffic tcp-receive {peer} 256M"))?;
    for life in 1..=LIVES {
        sleep(Duration::from_secs(2));
        lab.must(&format!("xl trigger {} nmi", netdom.name))?;
        lab.wait_for_console(&netdom.name, &format!("life {life} after one that failed"), PATIENCE)?;
        lab.wait_for_console(&netdom.name, &format!("life {life} has taken over"), PATIENCE)?;
    }
    for name in ["send", "receive"] {
        let out = a.finish(name)?;
        ensure!(out.contains("\"ok\":true"), "{name}: {out}");
    }
    let after = frontend()?;
    ensure!(before == after, "the frontend's nodes were\n{before}and are\n{after}");
    let ping = traffic::ping(a, &peer, 50, 0, 56)?;
    ensure!(ping.lost == 0, "{ping:?}");
    resources.0.insert("lives".to_owned(), LIVES.into());
    given_back(lab, netdom, &resources)?;
    let console = netdom.console()?;
    let pauses = console.lines().filter_map(|line| line.split_once("has taken over, ")?.1.split_once(" after"));
    Ok(format!("pauses of {}", pauses.map(|(pause, _)| pause).collect::<Vec<_>>().join(", ")))
}
