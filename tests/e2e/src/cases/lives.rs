//! netdom's lives: it fails under traffic and goes on in the same domain, and its guest sees nothing of it. Host.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::Lab;

use super::{Case, SPARE_NIC, Scene, at_rest, given_back, nics};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::traffic::{self, Shell};

pub(super) const CASES: &[Case] = &[Case {
    name: "netdom fails again and again under TCP both ways, and goes on: its guest sees nothing",
    run: failures,
}];

pub(super) const HANGS: &[Case] =
    &[Case { name: "netdom hangs with upcalls masked under TCP, and goes on by itself", run: hangs }];

/// Fewer than may be in a row.
const LIVES: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

fn failures(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let nic = lab.make_assignable(SPARE_NIC.into())?;
    let netdom = DriverDomain::create(lab, &DriverDomainConfig::netdom("lives").pci(&nic))?;
    let result = nics::attach(scene, &netdom, &scene.a, SPARE_NIC, "xenbr0").and_then(|()| fail(scene, &netdom));
    lab.run("xl network-detach a 1")?;
    netdom.destroy_after(result)
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
    let counted = losses(scene, netdom, &peer)?;
    let console = netdom.console()?;
    let pauses = console.lines().filter_map(|line| line.split_once("has taken over, ")?.1.split_once(" after"));
    Ok(format!("pauses of {}; {counted}", pauses.map(|(pause, _)| pause).collect::<Vec<_>>().join(", ")))
}

/// Failures so long after the last one are the first in a row.
const SETTLED: Duration = Duration::from_secs(11);
/// A numbered flow from the wire: bytes of a datagram, datagrams a second, and how long.
const FLOW: (u32, u32, u32) = (200, 20, 24);
/// For how long of it the domain is paused: what comes then lies in the NIC's ring of 255 frames.
const PAUSED: Duration = Duration::from_secs(4);
/// Datagrams that are lost at least.
const FEWEST: u64 = 40;
/// What comes while the NIC's receiver is off is on no count: less than a second's datagrams. As many others may be in the ring.
const UNCOUNTED: u64 = 20;

/// What of a numbered flow does not come where a life ends, the statistics say. The domain is paused before, so that the most of it is in the ring.
fn losses(scene: &Scene<'_>, netdom: &DriverDomain<'_>, peer: &str) -> Result<String> {
    let (lab, a, name) = (&scene.stage.lab, &scene.a, &netdom.name);
    sleep(SETTLED);
    let before = Losses::read(lab, netdom, a.id())?;
    let (size, per_second, seconds) = FLOW;
    traffic::start_receive(a, peer, size, per_second, seconds)?;
    sleep(PAUSED);
    lab.must(&format!("xl pause {name}"))?;
    sleep(PAUSED);
    lab.must(&format!("xl trigger {name} nmi && xl unpause {name}"))?;
    lab.wait_for_console(name, &format!("life {} has taken over", LIVES + 1), PATIENCE)?;
    let flow = traffic::received(a)?;
    // Statistics are written once a second.
    sleep(Duration::from_secs(3));
    let after = Losses::read(lab, netdom, a.id())?;
    let counted = after.all() - before.all();
    let said = format!(
        "of {:?} datagrams {} were lost and {counted} counted, in the ring {}",
        flow.sent,
        flow.lost,
        after.ring - before.ring
    );
    ensure!(flow.lost >= FEWEST && flow.lost.abs_diff(counted) <= UNCOUNTED, "{said}: {before:?}, {after:?}");
    Ok(said)
}

/// Frames from the wire that were lost, as netdom's statistics have them.
#[derive(Debug)]
struct Losses {
    /// In the NIC's ring, and by the NIC.
    ring: u64,
    missed: u64,
    /// In netdom's memory.
    waited: u64,
    /// By the vif, for any cause.
    vif: u64,
}

impl Losses {
    fn read(lab: &Lab, netdom: &DriverDomain<'_>, guest: u32) -> Result<Self> {
        let read = |node: &str| lab.must(&format!("xenstore-read /local/domain/{}/data/statistics/{node}", netdom.id));
        let (nic, vif, lives) = (read("nic/0")?, read(&format!("vif/{guest}/1"))?, read("lives")?);
        let number = |word: &str| word.trim().parse::<u64>().ok();
        let of = |name: &str| nic.split(", ").find_map(|part| number(part.strip_prefix(name)?)).unwrap_or(0);
        // Behind the traffic both ways.
        let vif = vif.split(", ").skip(2).filter_map(|part| number(part.rsplit_once(' ')?.1)).sum();
        let waited = lives.rsplit_once(' ').and_then(|(_, count)| number(count));
        let waited = waited.with_context(|| format!("the statistics say '{lives}' of lives"))?;
        Ok(Self { ring: of("receive-reset "), missed: of("receive-missed "), waited, vif })
    }

    const fn all(&self) -> u64 {
        self.ring + self.missed + self.waited + self.vif
    }
}

/// Hangs of the case, fewer than may be in a row.
const COUNT: u32 = 2;
/// From a hang until the next life has taken over, in seconds by the domain's clock: 1 s of CPU time, a look each 250 ms, and a new life. The
/// emulator's one CPU is shared with the guest that sends.
const HANG_ENDS_WITHIN: f64 = 30.0;
/// CPU time of the vCPU that watches, in the case's half a minute.
const WATCHER_SECONDS: f64 = 2.0;

fn hangs(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    scene.stage.images.faulty_netdom.as_ref().context("the netdom that hangs was not built")?;
    let nic = lab.make_assignable(SPARE_NIC.into())?;
    let config = DriverDomainConfig { image: "netdom-faulty", ..DriverDomainConfig::netdom("hangs").pci(&nic) };
    let netdom = DriverDomain::create(lab, &config)?;
    let result = nics::attach(scene, &netdom, &scene.a, SPARE_NIC, "xenbr0").and_then(|()| hang(scene, &netdom));
    lab.run("xl network-detach a 1")?;
    netdom.destroy_after(result)
}

fn hang(scene: &Scene<'_>, netdom: &DriverDomain<'_>) -> Result<String> {
    let (lab, a, peer) = (&scene.stage.lab, &scene.a, scene.stage.peer(SPARE_NIC.into()));
    nics::reaches(a, &peer)?;
    a.start("send", &format!("traffic tcp-send {peer} 128M"))?;
    let mut said = Vec::new();
    for life in 1..=COUNT {
        sleep(Duration::from_secs(2));
        lab.must(&format!("echo hang > $(xenstore-read /local/domain/{}/console/tty)", netdom.id))?;
        // By the watchdog, not by anybody else.
        let named = format!("life {life} after one that failed: watchdog: no turn of the executor");
        lab.wait_for_console(&netdom.name, &named, PATIENCE)?;
        lab.wait_for_console(&netdom.name, &format!("life {life} has taken over"), PATIENCE)?;
        let console = netdom.console()?;
        let took =
            stamp(&console, &format!("life {life} has taken over"))? - stamp(&console, "a hang that was asked for")?;
        ensure!(took < HANG_ENDS_WITHIN, "the hang ended after {took:.3} s");
        said.push(format!("{took:.1} s"));
    }
    let out = a.finish("send")?;
    ensure!(out.contains("\"ok\":true"), "send: {out}");
    // Its second vCPU costs next to nothing.
    let list = lab.must("xl vcpu-list hangs")?;
    let seconds = |vcpu: &str| {
        // Name, ID, VCPU, CPU, state, seconds.
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let line = list.lines().map(words).find(|words| words.get(2).is_some_and(|number| number == vcpu));
        let time = line.as_ref().and_then(|words| words.get(5));
        time.and_then(|time| time.parse::<f64>().ok()).with_context(|| format!("xl vcpu-list says\n{list}"))
    };
    let (worker, watcher) = (seconds("0")?, seconds("1")?);
    ensure!(watcher < WATCHER_SECONDS, "the watchdog ran for {watcher} s:\n{list}");
    // It is as sound as before, and the same domain.
    let ping = traffic::ping(a, &peer, 50, 0, 56)?;
    ensure!(ping.lost == 0, "{ping:?}");
    ensure!(lab.must("xl domid hangs")?.trim() == netdom.id.to_string(), "another domain");
    Ok(format!("hangs ended after {}; CPU time {worker} s, and {watcher} s of the watchdog's", said.join(", ")))
}

/// When a domain said something the last time, in seconds since its start.
fn stamp(console: &str, text: &str) -> Result<f64> {
    let line = console.lines().rev().find(|line| line.contains(text));
    let stamp = line.and_then(|line| line.strip_prefix('[')?.split_once(']')?.0.trim().parse().ok());
    stamp.with_context(|| format!("no line with a time says '{text}'"))
}
