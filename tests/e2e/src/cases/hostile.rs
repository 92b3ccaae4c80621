//! A hostile frontend, written in Rust as a guest image: each attack closes its own vif, and the neighbours go on. Host.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Case, Scene};
use crate::stage::vif;
use crate::traffic::{self, Shell};

pub(super) const CASES: &[Case] =
    &[Case { name: "a hostile frontend: each attack costs its sender alone", run: hostile_frontend }];

/// How an attack must end.
#[derive(Clone, Copy)]
enum End {
    /// The vif is closed; its `error` node says why.
    Closed,
    /// The frontend may go on: what it does harms nobody.
    Borne,
}

/// The attacks of the image `hostile` of `tests/guests`, by the word on its command line, and how each must end.
const ATTACKS: &[(&str, End)] = &[
    ("bad-grant", End::Borne),
    ("beyond-page", End::Closed),
    ("chain-too-long", End::Closed),
    ("chain-cut-short", End::Closed),
    ("unknown-extra", End::Closed),
    ("gso-of-zero", End::Closed),
    ("producer-overrun", End::Closed),
    ("rx-never-filled", End::Borne),
    ("event-storm", End::Borne),
    ("short-packet", End::Borne),
];

fn hostile_frontend(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let mut reasons = Vec::new();
    for (attack, end) in ATTACKS {
        let config = format!(
            "name = \"hostile\"\ntype = \"pv\"\nkernel = \"/usr/lib/oxidom/hostile\"\nmemory = 16\nvcpus = 1\n\
             vif = ['{}']\nextra = \"{attack}\"\non_crash = \"preserve\"\n",
            vif("netdom", 0x31)
        );
        lab.put("/etc/xen/hostile.cfg", 0o644, config.as_bytes())?;
        lab.must("xl create -q /etc/xen/hostile.cfg")?;
        let id = lab.domain_id("hostile")?;
        let result = (|| -> Result<()> {
            // It says so once it has done its worst.
            lab.wait_for_console("hostile", &format!("attack {attack} done"), Duration::from_secs(60))?;
            if matches!(end, End::Closed) {
                let error = format!("xenstore-read {}/error", scene.netdom.backend(id, 0));
                let reason = lab.wait_until(&error, Duration::from_secs(30)).context("no error node")?;
                reasons.push(reason.trim().to_owned());
            }
            let ping = traffic::ping(&scene.a, &scene.peer(), 50, 0, 56).context("the neighbour suffers")?;
            ensure!(ping.lost == 0, "the neighbour lost {}", ping.lost);
            Ok(())
        })();
        lab.sh("xl destroy hostile")?;
        result.with_context(|| format!("attack {attack}"))?;
    }
    let console = scene.netdom.console()?;
    for reason in &reasons {
        ensure!(console.contains(reason.as_str()), "the log does not say '{reason}'");
    }
    Ok(format!(
        "{} attacks; vifs closed with, for example: {}",
        ATTACKS.len(),
        reasons.first().map_or("", String::as_str)
    ))
}
