//! netdom's lives: it fails under traffic and goes on in the same domain, and its guests see nothing of it. Host.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Case, Scene};
use crate::traffic::{self, Shell};

pub(super) const CASES: &[Case] =
    &[Case { name: "netdom fails again and again under TCP and pings, and goes on: no guest sees it", run: failures }];

const LIVES: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

/// What the frontends of the vifs say, as the store has it.
fn frontends(scene: &Scene<'_>) -> Result<String> {
    let directories = [&scene.a, &scene.b].map(|guest| format!("/local/domain/{}/device/vif", guest.id()));
    scene.stage.lab.must(&format!("for d in {}; do xenstore-ls -f $d; done", directories.join(" ")))
}

fn failures(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let (before, resources) = (frontends(scene)?, scene.at_rest()?);
    let netdom = &scene.netdom.name;
    scene.a.start("send", &format!("traffic tcp-send {} 512M", scene.peer()))?;
    scene.b.start("receive", &format!("traffic tcp-receive {} 256M", scene.peer()))?;
    for life in 1..=LIVES {
        sleep(Duration::from_secs(2));
        lab.must(&format!("xl trigger {netdom} nmi"))?;
        lab.wait_for_console(netdom, &format!("life {life} after one that failed"), PATIENCE)?;
        lab.wait_for_console(netdom, &format!("life {life} has taken over"), PATIENCE)?;
    }
    for (guest, name) in [(&scene.a, "send"), (&scene.b, "receive")] {
        let out = guest.finish(name)?;
        ensure!(out.contains("\"ok\":true"), "{name}: {out}");
    }
    let after = frontends(scene)?;
    ensure!(before == after, "the frontends' nodes were\n{before}and are\n{after}");
    let ping = traffic::ping(&scene.a, &scene.b_address, 50, 0, 56)?;
    ensure!(ping.lost == 0, "{ping:?}");
    scene.given_back(&resources)?;
    Ok(format!("{LIVES} lives"))
}
