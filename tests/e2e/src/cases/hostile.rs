//! A hostile frontend, written in Rust as a guest image: each attack costs its own vif at most, and the neighbours go on. Host.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::{Lab, NATIVE_CLOCK};

use super::{Case, Scene};
use crate::driver_domain::DriverDomain;
use crate::stage::vif;
use crate::traffic::{self, Shell};

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

/// How an attack must end.
#[derive(Clone, Copy)]
pub(super) enum End {
    /// The device is closed; its `error` node says why, in words that have these among them.
    Closed(&'static str),
    /// The frontend may go on: what it does harms nobody.
    Borne,
    /// One or the other, by chance.
    Either,
}

use End::{Borne, Closed, Either};

/// An attack of the image `hostile` of `tests/guests`.
struct Attack {
    name: &'static str,
    end: End,
    /// It has a second vif, which sends to the first and must outlive it.
    helped: bool,
}

const fn alone(name: &'static str, end: End) -> Attack {
    Attack { name, end, helped: false }
}

const fn helped(name: &'static str, end: End) -> Attack {
    Attack { name, end, helped: true }
}

const GRANTS: &[Attack] = &[
    // The tables' first growth is no leak.
    helped("none", Borne),
    alone("bad-grant", Closed("grant 16777215 refused")),
    alone("bad-grant-later", Closed("grant 16777215 refused")),
    alone("bad-grants", Closed("grant 16777215 refused")),
    alone("foreign-grant", Closed("refused")),
    alone("revoked-grant", Closed("refused")),
    alone("revoke-race", Closed("refused")),
    helped("bad-grant-rx", Closed("grant 16777215 refused")),
    helped("read-only-rx", Closed("refused")),
    helped("same-page-rx", Either),
];

const CHAINS: &[Attack] = &[
    alone("beyond-page", Closed("offset 4000 with size 200 crosses a page")),
    alone("far-beyond-page", Closed("crosses a page")),
    alone("beyond-page-later", Closed("offset 4095 with size 2 crosses a page")),
    alone("chain-too-long", Closed("20 slots or more")),
    alone("chain-of-a-ring", Closed("20 slots or more")),
    alone("chain-a-bit-long", Borne),
    alone("chain-cut-short", Closed("cut short after 2 slots")),
    alone("chain-of-more-than-it-says", Borne),
    alone("short-packet", Borne),
    alone("zero-size", Borne),
    alone("unknown-extra", Closed("unknown extra info type 99")),
    alone("extra-of-no-type", Closed("unknown extra info type 0")),
    alone("extra-missing", Closed("announced but missing")),
    alone("extra-flood", Closed("announced but missing")),
    alone("extra-many", Borne),
];

const OFFLOADS: &[Attack] = &[
    alone("gso-of-zero", Closed("GSO size is zero")),
    alone("gso-bad-type", Closed("unknown GSO type 77")),
    alone("gso-of-one", Borne),
    alone("csum-garbage", Borne),
    alone("gso-garbage", Borne),
    alone("group-flood", Borne),
];

const RINGS: &[Attack] = &[
    alone("producer-overrun", Closed("tx ring overrun")),
    alone("producer-far-ahead", Closed("tx ring overrun")),
    alone("producer-goes-back", Closed("tx ring overrun")),
    helped("rx-producer-overrun", Closed("rx ring overrun")),
    helped("rx-never-filled", Borne),
    alone("ring-never-granted", Closed("mapping the Transmit ring")),
    alone("channel-of-nobody", Closed("binding the event channel")),
    alone("begin-anew", Borne),
];

const NOISE: &[Attack] = &[
    alone("event-storm", Borne),
    alone("state-flapping", Borne),
    // For whichever of all reasons comes first.
    alone("ring-scribble", Closed("")),
    alone("random-slots", Either),
];

/// How long an attack, and what the driver domain does about it, may take on a slow machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// Pings of the neighbour beside each attack, and the milliseconds between two.
const PINGS: (u32, u32) = (120, 10);

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
    let mut vifs = vec![vif("netdom", 0x31)];
    if attack.helped {
        vifs.push(vif("netdom", 0x32));
    }
    let devices = format!("vif = {vifs:?}");
    with_attacker(&scene.stage.lab, &scene.netdom, &devices, attack.name, |id| beside_pings(scene, attack, id))
}

/// Runs something with the image that makes an attack, which waits for its word to begin; returns when the driver domain has forgotten it.
pub(super) fn with_attacker<T>(
    lab: &Lab,
    domain: &DriverDomain<'_>,
    devices: &str,
    attack: &str,
    run: impl FnOnce(u32) -> Result<T>,
) -> Result<T> {
    let config = format!(
        "name = \"hostile\"\ntype = \"pv\"\nkernel = \"/usr/lib/oxidom/hostile\"\nmemory = 16\nvcpus = 1\n\
         {devices}\nextra = \"attack={attack} wait\"\non_crash = \"preserve\"\n{NATIVE_CLOCK}"
    );
    lab.put("/etc/xen/hostile.cfg", 0o644, config.as_bytes())?;
    lab.must("xl create -q /etc/xen/hostile.cfg")?;
    let id = lab.domain_id("hostile")?;
    let result = wait_for_word(lab, &word(id), "ready").and_then(|()| run(id));
    if result.is_err() {
        let console = lab.console("hostile").unwrap_or_default();
        let end: Vec<&str> = console.lines().rev().take(8).collect();
        eprintln!("the console of hostile ends:\n{}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
    lab.must("xl destroy hostile")?;
    let result = result?;
    // The next one begins when this one is forgotten.
    let gone = format!("! xenstore-exists {}", domain.backends(id));
    lab.wait_until(&gone, PATIENCE).context("the driver domain or the toolstack kept its directory")?;
    Ok(result)
}

/// Where the image says how far it is.
fn word(id: u32) -> String {
    format!("/local/domain/{id}/data/hostile")
}

/// Lets the attack begin, and waits until it is made.
pub(super) fn let_go(lab: &Lab, id: u32) -> Result<()> {
    lab.must(&format!("xenstore-write /local/domain/{id}/data/go 1"))?;
    wait_for_word(lab, &word(id), "done")
}

fn beside_pings(scene: &Scene<'_>, attack: &Attack, id: u32) -> Result<(Option<String>, f64)> {
    let lab = &scene.stage.lab;
    let (count, interval) = PINGS;
    scene.a.start("ping", &format!("traffic ping {} {count} {interval}", scene.peer()))?;
    let done = let_go(lab, id);
    let pings = scene.a.finish("ping")?;
    done?;
    let line = pings.lines().last().unwrap_or_default();
    let ping: traffic::Ping = serde_json::from_str(line).with_context(|| format!("the neighbour's ping: '{pings}'"))?;
    if ping.sent != u64::from(count) || ping.lost > 0 {
        let ports = lab.must(&format!("sleep 1; xenstore-ls -f /local/domain/{}/data/statistics", scene.netdom.id))?;
        bail!("the neighbour lost pings: {ping:?}; the ports:\n{ports}");
    }
    let reason = judge(lab, &scene.netdom, &scene.netdom.backend(id, 0), attack.end)?;
    if attack.helped {
        let helper = format!("{}/state", scene.netdom.backend(id, 1));
        ensure!(lab.must(&format!("xenstore-read {helper}"))?.trim() == "4", "the vif beside it was closed too");
    }
    traffic::ping(&scene.a, &scene.peer(), 20, 0, 56).context("after the attack")?;
    Ok((reason, ping.max_us / 1e3))
}

/// Whether the attack ended as it must; gives the reason where its device was closed.
pub(super) fn judge(lab: &Lab, domain: &DriverDomain<'_>, backend: &str, end: End) -> Result<Option<String>> {
    match end {
        Closed(words) => Ok(Some(closed(lab, domain, backend, words)?)),
        Borne => {
            ensure!(lab.run(&format!("xenstore-exists {backend}/error"))?.status != 0, "{}", error(lab, backend)?);
            lab.wait_for_node(&format!("{backend}/state"), "4", PATIENCE).context("the device is not connected")?;
            Ok(None)
        }
        Either => Ok(error(lab, backend).ok()),
    }
}

/// Waits for the image's word; `failed` ends the wait.
pub(super) fn wait_for_word(lab: &Lab, node: &str, word: &str) -> Result<()> {
    let either = format!("xenstore-read {node} | grep -x -e {word} -e failed");
    let said = lab.wait_until(&either, PATIENCE).with_context(|| format!("it never was {word}"))?;
    if said.trim() != word {
        bail!("it {} before it was {word}", said.trim());
    }
    Ok(())
}

fn error(lab: &Lab, backend: &str) -> Result<String> {
    Ok(lab.must(&format!("xenstore-read {backend}/error"))?.trim().to_owned())
}

/// The device must be closed, for this reason, and the log must say so.
fn closed(lab: &Lab, domain: &DriverDomain<'_>, backend: &str, words: &str) -> Result<String> {
    lab.wait_until(&format!("xenstore-exists {backend}/error"), PATIENCE).context("no error node")?;
    let reason = error(lab, backend)?;
    ensure!(reason.contains(words), "closed for '{reason}', not for '{words}'");
    let state = format!("xenstore-read {backend}/state | grep -x -e 5 -e 6");
    lab.wait_until(&state, PATIENCE).context("the device is not closed")?;
    lab.wait_for_console(&domain.name, &reason, PATIENCE).context("the reason is not in the log")?;
    Ok(reason)
}
