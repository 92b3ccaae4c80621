//! netdom fails at any place, and is replaced, under the load of four guests with three vifs each: nobody notices. Host.
//!
//! The machine's clocks count instructions, a nanosecond each: pauses and gaps are the guests' time, and the same on any host. Hangs are the
//! exception: each is over when the domain has run for a second, for which that clock takes a minute. Theirs is the host's, and nothing is timed.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lab::{Clock, Guest, Lab, Nic, Row};

use super::{Case, Family, ON_13, Play, Rows, at_rest, given_back};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::rebuilt::rebuild;
use crate::stage::{Images, Stage, vif};
use crate::traffic::{self, Ping, Shell};

/// The cases by a clock of instructions.
pub struct Storm;

/// Those by the host's clock.
pub struct HangStorm;

/// A netdom with a NIC, and the guests.
pub struct Loaded<'s> {
    stage: &'s Stage,
    netdom: DriverDomain<'s>,
    /// To the wire, from the wire, to the last one, and that one.
    guests: Vec<Guest<'s>>,
    /// What the machine's clocks count.
    clock: Clock,
}

impl Play for Storm {
    const UP: &'static str = "netdom and four guests with 12 vifs come up by a clock of instructions";
    const FAILS: bool = true;
    const FAMILIES: &'static [Family<Self>] =
        &[Family { rows: ON_13, cases: CASES }, Family { rows: Rows::All, cases: ON_REQUEST }];
    type Stage = Stage;
    type Scene<'s> = Loaded<'s>;

    fn boot(row: Row, images: &Images) -> Result<Stage> {
        boot(row, images, Clock::Instructions)
    }

    fn set(stage: &Stage) -> Result<Loaded<'_>> {
        set(stage, Clock::Instructions)
    }

    fn witness<'a>(scene: &'a Loaded<'_>) -> (&'a Lab, &'a str) {
        (&scene.stage.lab, &scene.netdom.name)
    }
}

impl Play for HangStorm {
    const UP: &'static str = "on request: netdom and four guests with 12 vifs come up";
    const FAILS: bool = true;
    const FAMILIES: &'static [Family<Self>] = &[Family { rows: Rows::All, cases: HANGS }];
    type Stage = Stage;
    type Scene<'s> = Loaded<'s>;

    fn boot(row: Row, images: &Images) -> Result<Stage> {
        boot(row, images, Clock::Host)
    }

    fn set(stage: &Stage) -> Result<Loaded<'_>> {
        set(stage, Clock::Host)
    }

    fn witness<'a>(scene: &'a Loaded<'_>) -> (&'a Lab, &'a str) {
        (&scene.stage.lab, &scene.netdom.name)
    }
}

fn boot(row: Row, images: &Images, clock: Clock) -> Result<Stage> {
    Stage::boot_with(row, images, vec![Nic::wired(0)], |config| {
        config.clock = clock;
        config.memory = 3072;
    })
}

fn set(stage: &Stage, clock: Clock) -> Result<Loaded<'_>> {
    let mut rebuilt = std::fs::read(&stage.images.netdom)?;
    rebuild(&mut rebuilt)?;
    stage.lab.put(REBUILT, 0o644, &rebuilt)?;
    let netdom = stage.start(DriverDomainConfig::netdom("netdom").memory(16))?;
    let guest = |(index, name): (u8, &&str)| {
        let vifs = [1, 2, 3].map(|number| vif("netdom", index * 4 + number));
        stage.client(name, &vifs)
    };
    let guests = (0..).zip(&["a", "b", "c", "d"]).map(guest).collect::<Result<_>>()?;
    // All share a CPU with three guests that keep it busy. Without the weight of a driver domain and of one with a live flow they wait for it,
    // and its round trips tell of the scheduler.
    for domain in ["0", "netdom", "d"] {
        stage.lab.must(&format!("xl sched-credit2 -d {domain} -w {WEIGHT}"))?;
    }
    Ok(Loaded { stage, netdom, guests, clock })
}

const CASES: &[Case<Storm>] = &[
    Case {
        name: "netdom fails at any hypercall, and is replaced, under load of four guests: they see nothing",
        run: some,
    },
    Case {
        name: "a guest whose frames have netdom fail is closed for the third, and its neighbours' flows go on",
        run: poison,
    },
];

const ON_REQUEST: &[Case<Storm>] =
    &[Case { name: "on request: the same with 100 panics, 100 page faults and 100 updates", run: many }];

const HANGS: &[Case<HangStorm>] = &[Case {
    name: "on request: netdom hangs 20 times under load of four guests: their connections go on",
    run: hangs,
}];

/// The image that is installed, one that differs from it, and one that fails on demand.
const IMAGE: &str = "/usr/lib/oxidom/netdom";
const REBUILT: &str = "/tmp/rebuilt";
const FAULTY: &str = "/usr/lib/oxidom/netdom-faulty";
/// The weight of those that wait for no others; guests have 256.
const WEIGHT: u32 = 2048;
/// How long each life may take: a hang is over after a second of CPU time, of which the domain has its share, and the clock of instructions is slow.
const PATIENCE: Duration = Duration::from_secs(900);
/// How often guests are looked at meanwhile.
const CHECK: Duration = Duration::from_secs(60);
/// The domain's own time in a pause, in milliseconds: at most, and the median.
const MOST_MS: f64 = 10.0;
const MEDIAN_MS: f64 = 3.0;
/// Milliseconds between pings, their bytes, and for how many milliseconds all of them may be lost.
const PING_MS: u32 = 10;
const PING_SIZE: u32 = 56;
const LOSS_MS: f64 = 200.0;

/// How many of each, and how many hypercalls lie between failures, on average.
struct Counts {
    between: u32,
    panics: u64,
    pages: u64,
    hangs: u64,
    updates: u64,
}

fn some(scene: &Loaded<'_>) -> Result<String> {
    storm(scene, &Counts { between: 4000, panics: 8, pages: 8, hangs: 0, updates: 4 })
}

fn many(scene: &Loaded<'_>) -> Result<String> {
    storm(scene, &Counts { between: 1000, panics: 100, pages: 100, hangs: 0, updates: 100 })
}

fn hangs(scene: &Loaded<'_>) -> Result<String> {
    // Connections that find netdom hanging each time that they try again wait twice as long for the next time.
    storm(scene, &Counts { between: 20_000, panics: 0, pages: 0, hangs: 20, updates: 4 })
}

fn storm(scene: &Loaded<'_>, counts: &Counts) -> Result<String> {
    let Loaded { stage, netdom, guests, .. } = scene;
    let lab = &stage.lab;
    let [a, b, c, d] = guests.as_slice() else { bail!("four guests") };
    let (wire, neighbour) = (stage.peer(0), address(d)?);
    let frontends = || -> Result<String> {
        let nodes = |guest: &Guest<'_>| lab.must(&format!("xenstore-ls -f /local/domain/{}/device/vif", guest.id()));
        guests.iter().map(nodes).collect()
    };
    let (before, mut resources) = (frontends()?, at_rest(lab, netdom)?);
    let first = netdom.pauses()?.len();
    d.start("serve", "traffic tcp-serve")?;
    let loads = [(a, "send", &wire), (b, "receive", &wire), (c, "send", &neighbour)];
    for (guest, direction, host) in loads {
        // Hundreds of results would be more than an answer of a guest's may have.
        let again = format!("traffic tcp-{direction} {host} 2M >/tmp/last 2>&1 || {{ cat /tmp/last; exit 1; }}");
        guest
            .start("load", &format!("sh -c 'touch /tmp/go; while [ -e /tmp/go ]; do {again}; done; echo all well'"))?;
    }
    // What the load alone does to them.
    let alone = traffic::ping(d, &wire, 500, PING_MS, PING_SIZE)?;
    let pinged = [("wire", &wire), ("guest", &address(c)?)];
    for (name, host) in pinged {
        d.start(name, &format!("traffic ping {host} 10000000 {PING_MS} --until /tmp/enough"))?;
    }
    let phases = [("panic", counts.panics), ("page", counts.pages), ("hang", counts.hangs)];
    for (way, count) in phases.into_iter().filter(|(_, count)| *count > 0) {
        let lives = netdom.pauses()?.len() as u64 + 1 + count;
        lab.must(&format!("oxidom update netdom {FAULTY} --words faults={way}:{}:{lives}", counts.between))?;
        wait_for(netdom, lives, || Ok(()))?;
    }
    lab.must(&format!("oxidom update netdom {IMAGE} --words ''"))?;
    for turn in 0..counts.updates {
        let image = if turn % 4 < 2 { REBUILT } else { IMAGE };
        lab.must(&format!("oxidom update netdom {image}"))?;
        tell(turn, turn + 1, "updates", counts.updates);
    }
    for (guest, ..) in loads {
        guest.sh("rm /tmp/go")?;
        let said = guest.finish("load")?;
        ensure!(said.contains("all well"), "{}: {said}", guest.name());
    }
    d.sh("touch /tmp/enough")?;
    let ended = |(name, _)| -> Result<Ping> {
        let said = d.finish(name)?;
        serde_json::from_str(said.trim()).with_context(|| format!("the pings to the {name}: {said}"))
    };
    let pings: Vec<Ping> = pinged.into_iter().map(ended).collect::<Result<_>>()?;
    d.sh("rm /tmp/enough; kill $(cat /tmp/serve.pid)")?;
    let after = frontends()?;
    ensure!(before == after, "the frontends' nodes were\n{before}and are\n{after}");
    let all = netdom.pauses()?;
    let own: Vec<f64> = all.iter().skip(first).map(|pause| pause.own).collect();
    let whole: Vec<f64> = all.iter().skip(first).map(|pause| pause.whole).collect();
    resources.0.insert("lives".to_owned(), all.last().context("no life")?.life);
    given_back(lab, netdom, &resources)?;
    let loss = pings.iter().map(|pings| pings.longest_loss_ms).fold(0.0, f64::max);
    let report = format!(
        "{} lives; own time {:.1} ms (median), {:.1} ms (most); pauses {:.1} and {:.1} ms; \
         of {} pings {} lost, for {loss:.0} ms at most; the slowest took {:.0} ms, and {:.0} ms before",
        own.len(),
        median(&own),
        most(&own),
        median(&whole),
        most(&whole),
        pings.iter().map(|pings| pings.sent).sum::<u64>(),
        pings.iter().map(|pings| pings.lost).sum::<u64>(),
        pings.iter().map(|pings| pings.max_us / 1e3).fold(0.0, f64::max),
        alone.max_us / 1e3,
    );
    let timely = most(&own) < MOST_MS && median(&own) < MEDIAN_MS && loss < LOSS_MS;
    ensure!(timely || scene.clock == Clock::Host, "{report}");
    Ok(report)
}

/// A guest sends what has netdom fail.
fn poison(scene: &Loaded<'_>) -> Result<String> {
    let Loaded { stage, netdom, guests, .. } = scene;
    let lab = &stage.lab;
    let [a, b, ..] = guests.as_slice() else { bail!("guests") };
    let wire = stage.peer(0);
    lab.must(&format!("oxidom update netdom {FAULTY} --words ''"))?;
    let lives = netdom.pauses()?.len() as u64;
    b.start("load", &format!("traffic tcp-send {wire} 24M"))?;
    // A station that is not there, by its address.
    let victim = "10.9.255.250";
    a.sh(&format!("/usr/bin/ip neigh replace {victim} lladdr 02:00:00:00:00:fa dev eth1"))?;
    // Each life finds the request in the ring that the one before failed of.
    a.sh(&format!("ping -c 1 -W 1 -I eth1 {victim} >/dev/null; true"))?;
    wait_for(netdom, lives + 3, || Ok(()))?;
    let closed = netdom.backend(a.id(), 1);
    lab.wait_until(&format!("[ $(xenstore-read {closed}/state) -ge 5 ]"), PATIENCE)?;
    let why = lab.must(&format!("xenstore-read {closed}/error"))?;
    ensure!(why.contains("netdom failed 3 times while it served this vif"), "{why}");
    let out = b.finish("load")?;
    ensure!(out.contains("\"ok\":true"), "the neighbour's flow: {out}");
    for other in [0, 2] {
        let state = lab.must(&format!("xenstore-read {}/state", netdom.backend(a.id(), other)))?;
        ensure!(state.trim() == "4", "the guest's vif {other} is in state {state}");
    }
    Ok(why.trim().to_owned())
}

/// The address of a guest's first vif.
fn address(guest: &Guest<'_>) -> Result<String> {
    let said = guest.sh("ip -4 -o addr show dev eth0 | awk '{print $4}' | cut -d/ -f1")?;
    Ok(said.trim().to_owned())
}

/// Waits until so many lives have taken over; now and then, `check`s whether the guests are still sound.
pub(super) fn wait_for(domain: &DriverDomain<'_>, lives: u64, check: impl Fn() -> Result<()>) -> Result<()> {
    let mut known = domain.lives()?;
    let (mut since, mut checked) = (Instant::now(), Instant::now());
    while known < lives {
        ensure!(since.elapsed() < PATIENCE, "{known} lives of {lives} have taken over");
        if checked.elapsed() > CHECK {
            check()?;
            checked = Instant::now();
        }
        sleep(Duration::from_secs(1));
        let now = domain.lives()?;
        if now > known {
            tell(known, now, "lives", lives);
            (known, since) = (now, Instant::now());
        }
    }
    Ok(())
}

/// Says how far a long storm has come, now and then.
pub(super) fn tell(before: u64, done: u64, name: &str, of: u64) {
    const STEP: u64 = 20;
    if done / STEP > before / STEP {
        println!("        {done} of {of} {name}");
    }
}

pub(super) fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

pub(super) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}
