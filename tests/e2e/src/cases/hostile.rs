//! A hostile frontend, written in Rust as a guest image: each attack costs its own vif at most, and the neighbours go on. A vif whose
//! frontend may go on carries packets afterwards. Host.

use anyhow::{Context, Result, ensure};

use super::nics::{attach, jumbo, reaches};
use super::{Case, IGB, IXGBE, Scene};
use crate::attack::network::{CHAINS, GRANTS, NOISE, OFFLOADS, RINGS, all, beside_pings, witness};
use crate::attack::{Attack, End, Needs, PATIENCE, carries, judge, let_go, must_work, with_attacker};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::stage::vif;
use crate::traffic;

/// A family of attacks; netdom's loans are compared before and after.
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

/// The same through NICs of other drivers.
pub(super) const IGB_ONCE: &[Case] = &[Case {
    name: "a hostile frontend through an 82576 (igb): packets and offloads that reach the driver harm no wire, no neighbour and no counter",
    run: |scene| through(scene, IGB),
}];
/// Likewise.
pub(super) const IXGBE_ONCE: &[Case] = &[Case {
    name: "a hostile frontend through an 82599 (ixgbe): packets and offloads that reach the driver harm no wire, no neighbour and no counter",
    run: |scene| through(scene, IXGBE),
}];

/// Attacks that netback bears, so that their packets reach the NIC's driver; each row is made by one domain.
const BORNE: [&[&str]; 2] = [
    &["chain-a-bit-long", "chain-of-more-than-it-says", "short-packet", "zero-size", "extra-many"],
    &["gso-of-one", "csum-garbage", "gso-garbage", "group-flood"],
];

/// Attacks beside a guest on a netdom of its own whose NIC is `number`, with room for jumbo frames.
fn through(scene: &Scene<'_>, number: u8) -> Result<String> {
    const NAME: &str = "attacked";
    let lab = &scene.stage.lab;
    let nic = lab.make_assignable(number.into())?;
    let netdom = DriverDomain::create(lab, &DriverDomainConfig::netdom(NAME).pci(&nic).extra("mtu=9000"))?;
    let result = attach(scene, &netdom, &scene.a, number, "xenbr0").and_then(|()| beside(scene, &netdom, number));
    lab.run("xl network-detach a 1")?;
    netdom.destroy_after(result)
}

fn beside(scene: &Scene<'_>, netdom: &DriverDomain<'_>, number: u8) -> Result<String> {
    let (lab, a) = (&scene.stage.lab, &scene.a);
    let peer = scene.stage.peer(number.into());
    reaches(a, &peer)?;
    let wire = lab.wire(number.into())?;
    let (sent, runts) = (wire.stats().frames_in, wire.stats().runts_in);
    let attacks = all();
    let mut slowest: f64 = 0.0;
    for names in BORNE {
        let made: Vec<Attack> = attacks.iter().filter(|attack| names.contains(&attack.name)).copied().collect();
        ensure!(made.len() == names.len() && must_work(&made), "not all of {names:?} are borne");
        let words = format!("{} {}", names.join(","), witness(&peer));
        let devices = format!("vif = [\"{}\"]", vif(&netdom.name, 0x31));
        let ping = with_attacker(lab, netdom, &devices, &words, |id| {
            let ping = beside_pings(a, &peer, || let_go(lab, id, PATIENCE))?;
            judge(lab, netdom, &netdom.backend(id, 0), End::Borne)?;
            carries(lab, id)?;
            Ok(ping)
        });
        slowest = slowest.max(ping.with_context(|| format!("attacks {}", names.join(", ")))?.max_us / 1e3);
    }
    let jumbo = jumbo(a, &peer)?;
    let frames = wire.stats().frames_in - sent;
    ensure!(wire.stats().runts_in == runts, "{} runts on the wire", wire.stats().runts_in - runts);
    let misuse = lab.misuse(number.into());
    ensure!(misuse.is_empty(), "the driver: {misuse:?}");
    let node = format!("/local/domain/{}/data/statistics/nic/0", netdom.id);
    // Once a second.
    let counted = lab.must(&format!("sleep 2; xenstore-read {node}"))?;
    let harmed = ["receive-", "transmit-errors"].into_iter().find(|name| counted.contains(name));
    ensure!(harmed.is_none(), "the NIC counted errors: {counted}");
    Ok(format!("{frames} frames; the neighbour lost nothing, its slowest round trip {slowest:.1} ms; {jumbo}"))
}

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
