//! A hostile frontend, written in Rust as a guest image: each attack costs its own vif at most, and the neighbours go on. A vif whose
//! frontend may go on carries packets afterwards. Host.

use anyhow::{Context, Result, ensure};

use super::{Case, Scene};
use crate::attack::network::{CHAINS, GRANTS, NOISE, OFFLOADS, RINGS, beside_pings, witness};
use crate::attack::{Attack, Needs, PATIENCE, carries, judge, let_go, must_work, with_attacker};
use crate::stage::vif;
use crate::traffic;

/// A family of attacks; what netdom has on loan is compared before and after.
macro_rules! family {
    ($name:literal, $attacks:expr) => {
        Case { name: concat!("a hostile frontend: ", $name), run: |scene| family(scene, $attacks) }
    };
}

pub(super) const CASES: &[Case] = &[
    family!("grants that are none, or not for this", GRANTS),
    family!("packets that are none", CHAINS),
    family!("offloads that make no sense", OFFLOADS),
    family!("ring indices that lie, rings never filled", RINGS),
    family!("storms of events, states and random bytes", NOISE),
];

fn family(scene: &Scene<'_>, attacks: &[Attack]) -> Result<String> {
    let before = scene.at_rest()?;
    let (mut closed, mut slowest) = (0, (0.0, ""));
    for attack in attacks {
        let (reason, longest) = one(scene, attack).with_context(|| format!("attack {}", attack.name))?;
        closed += u32::from(reason.is_some());
        if longest > slowest.0 {
            slowest = (longest, attack.name);
        }
    }
    scene.given_back(&before)?;
    let borne = attacks.len() as u32 - closed;
    let (longest, name) = slowest;
    Ok(format!(
        "{closed} closed, {borne} borne; the neighbour lost nothing, its slowest round trip {longest:.1} ms ({name})"
    ))
}

/// Makes one attack; gives the reason where the vif was closed for it, and the neighbour's longest round trip in milliseconds.
fn one(scene: &Scene<'_>, attack: &Attack) -> Result<(Option<String>, f64)> {
    let helped = attack.needs == Needs::Helper;
    let mut vifs = vec![vif("netdom", 0x31)];
    if helped {
        vifs.push(vif("netdom", 0x32));
    }
    let (lab, netdom) = (&scene.stage.lab, &scene.netdom);
    let words = format!("{} {}", attack.name, witness(&scene.peer()));
    with_attacker(lab, netdom, &format!("vif = {vifs:?}"), &words, |id| {
        let ping = beside_pings(&scene.a, &scene.peer(), || let_go(lab, id, PATIENCE)).with_context(|| {
            let ports = lab.must(&format!("sleep 1; xenstore-ls -f /local/domain/{}/data/statistics", netdom.id));
            format!("the ports:\n{}", ports.unwrap_or_default())
        })?;
        let reason = judge(lab, netdom, &netdom.backend(id, 0), attack.end)?;
        if must_work(&[*attack]) {
            carries(lab, id)?;
        }
        if helped {
            let helper = format!("{}/state", netdom.backend(id, 1));
            ensure!(lab.must(&format!("xenstore-read {helper}"))?.trim() == "4", "the vif beside it was closed too");
        }
        traffic::ping(&scene.a, &scene.peer(), 20, 0, 56).context("after the attack")?;
        Ok((reason, ping.max_us / 1e3))
    })
}
