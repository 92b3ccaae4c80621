//! The ends of netdom's lives: each comes once under paced flows and once under TCP. Host.
//!
//! Two paced flows of datagrams go to the wire and from it, and show how long nothing came and what was lost. By TCP the guest sends as fast
//! as it can, and what the wire receives is counted by intervals.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Guest, Network, Nic, Row as Matrix};
use wire::{Timeline, Wire};

use super::course::{Course, Drawn, Recovery};
use super::{End, LINUX, Mortal, Outcomes, Report};
use crate::bench::common::LinuxDriverDomain;
use crate::bench::topology::LINUX_BRIDGE;
use crate::driver_domain::DriverDomainConfig;
use crate::stage::{Images, Stage, lease, vif};
use crate::traffic::{Flow, Shell};

/// The driver domain.
pub(super) const NAME: &str = "netdom";

/// Datagrams a second of each paced flow.
const PACE: u32 = 500;
/// Bytes of their payload.
const SIZE: u32 = 64;
/// What the flows have before the end of a life and after it.
const AROUND: Duration = Duration::from_secs(2);
/// Seconds that a flow may take to begin.
const BEGUN: f64 = 1.0;
/// What TCP has before: its window has opened by then, and full speed is of the last 3 s.
const BEFORE: Duration = Duration::from_secs(5);
/// How long it may take to be at full speed again.
const PATIENCE: Duration = Duration::from_secs(120);
/// A timeline's intervals, and those of what is drawn.
const INTERVAL: Duration = Duration::from_millis(2);
const DRAWN: Duration = Duration::from_millis(100);
/// The file in the guest that ends loads.
const ENOUGH: &str = "/tmp/enough";
/// The last byte of the address of the guest's vif on the Linux driver domain.
const LINUX_MAC: u8 = 0x81;
/// The sides, by the numbers of their wires.
const OURS: usize = 0;
const LINUXS: usize = 1;

/// Adds the rows of these ends, and the courses to be drawn.
///
/// # Errors
/// What did not come up, or did not come back.
pub(super) fn run(
    row: Matrix,
    images: &Images,
    ends: &[End],
    runs: u32,
    progress: &dyn Fn(&str),
    report: &mut Report,
) -> Result<()> {
    progress("booting Xen, dom0 and two NICs");
    let stage = Stage::boot_with(row, images, vec![nic(0), nic(1)], |config| {
        config.driver_root = true;
        config.memory = 4096;
    })?;
    let lab = &stage.lab;
    progress("starting the driver domains and the guest");
    let config = DriverDomainConfig::netdom(NAME).pci(&lab.make_assignable(OURS)?);
    let netdom = Mortal::create(lab, &config, &images.netdom)?;
    let linux = LinuxDriverDomain { pci: vec![lab.make_assignable(LINUXS)?], setup: LINUX_BRIDGE };
    linux.start(lab)?;
    let guest = stage.client("a", &[vif(NAME, 1), vif(LINUX, LINUX_MAC)])?;
    let address = lease(&guest, "eth1")?;
    let bench = Bench { stage: &stage, netdom, linux, guest, address, progress };
    let outcomes = bench.outcomes(ends, runs)?;
    for end in ends {
        rows(report, *end, &outcomes);
    }
    let [ours, linux] = outcomes.of(End::Failure);
    report.courses = [(NAME, ours), ("Linux driver domain", linux)]
        .into_iter()
        .filter_map(|(name, side)| drawn(name, &side))
        .collect();
    // Both or none.
    if report.courses.len() < 2 {
        report.courses.clear();
    }
    Ok(())
}

/// A NIC on a wire whose peer waits longer for a silent client than a replacement takes, as a server would.
fn nic(number: u8) -> Nic {
    let mut nic = Nic::wired(number);
    if let Network::Wire(wire) = &mut nic.network {
        wire.tcp_timeout = 2 * PATIENCE;
    }
    nic
}

struct Bench<'s> {
    stage: &'s Stage,
    netdom: Mortal<'s>,
    linux: LinuxDriverDomain,
    guest: Guest<'s>,
    /// The guest's on the wire of the Linux driver domain.
    address: String,
    progress: &'s dyn Fn(&str),
}

/// What the flows and the transfer showed of the end of a life.
struct Outcome {
    to_wire: Flow,
    from_wire: Flow,
    transfer: Option<Transfer>,
}

struct Transfer {
    course: Course,
    recovery: Recovery,
    /// Whether its first connection broke.
    broken: bool,
}

impl Bench<'_> {
    fn outcomes(&self, ends: &[End], runs: u32) -> Result<Outcomes<Outcome>> {
        let mut outcomes = Outcomes::default();
        for run in 1..=runs {
            let said = |what: String| (self.progress)(&format!("{what} ({run} of {runs})"));
            // The picture shows both sides for as long.
            let mut watched = Duration::ZERO;
            for end in [End::Never, End::Replacement].into_iter().filter(|end| ends.iter().any(|of| of.linux() == *end))
            {
                said(end.of(LINUX));
                let outcome = self.outcome(LINUXS, end, Duration::ZERO)?;
                watched = outcome.transfer.as_ref().map_or(watched, |transfer| transfer.course.after());
                outcomes.sides[1].push((end, outcome));
            }
            for end in ends {
                said(end.of(NAME));
                let watched = if *end == End::Failure { watched } else { Duration::ZERO };
                let lives = if *end == End::Never { 0 } else { 2 };
                let (outcome, pauses) = self.netdom.pauses(lives, || self.outcome(OURS, *end, watched))?;
                outcomes.sides[0].push((*end, outcome));
                outcomes.pauses.extend(pauses.into_iter().map(|pause| (*end, pause)));
            }
        }
        Ok(outcomes)
    }

    fn end(&self, end: End) -> Result<()> {
        if end == End::Replacement { self.replace() } else { self.netdom.end(end) }
    }

    /// The Linux driver domain is destroyed and created, and the guest has its vif on it again.
    fn replace(&self) -> Result<()> {
        let lab = &self.stage.lab;
        let name = self.guest.name();
        lab.must(&format!("xl destroy {LINUX} && xl network-detach {name} 1"))?;
        self.linux.start(lab)?;
        // The frontend has to have seen the end of the old device.
        self.guest.sh("for i in $(seq 1000); do test -e /sys/class/net/eth1 || exit 0; usleep 10000; done; exit 1")?;
        lab.must(&format!("xl network-attach {name} {}", vif(LINUX, LINUX_MAC).replace(',', " ")))?;
        // The new domain's NIC takes some seconds for its link.
        let configure = format!(
            "for i in $(seq 1000); do test -e /sys/class/net/eth1 && break; usleep 10000; done; \
             ip link set eth1 up && ip addr add {}/16 dev eth1 && \
             for i in $(seq 100); do ping -c 1 -W 1 {} >/dev/null && exit 0; done; exit 1",
            self.address,
            self.stage.peer(LINUXS)
        );
        self.guest.sh(&configure).map(drop)
    }

    /// Ends a life under the flows, and one under TCP, which is watched for so long at least.
    fn outcome(&self, side: usize, end: End, watched: Duration) -> Result<Outcome> {
        let (to_wire, from_wire) = self.flows(side, end)?;
        let transfer = if end == End::Never { None } else { Some(self.transfer(side, end, watched)?) };
        Ok(Outcome { to_wire, from_wire, transfer })
    }

    fn flows(&self, side: usize, end: End) -> Result<(Flow, Flow)> {
        let (guest, peer) = (&self.guest, self.stage.peer(side));
        let most = PATIENCE.as_secs();
        guest.sh(&format!("rm -f {ENOUGH}"))?;
        guest.start("to", &format!("traffic udp-pace {peer} {PACE} {most} --size {SIZE} --until {ENOUGH}"))?;
        guest.start("from", &format!("traffic udp-receive {peer} {SIZE} {most} --pace {PACE} --until {ENOUGH}"))?;
        let start = Instant::now();
        sleep(AROUND);
        self.end(end)?;
        let ended = start.elapsed().as_secs_f64();
        sleep(AROUND);
        guest.sh(&format!("touch {ENOUGH}"))?;
        let flow = |name: &str| -> Result<Flow> {
            let said = guest.finish(name)?;
            let flow: Flow =
                serde_json::from_str(said.trim_end()).with_context(|| format!("the flow '{name}' said '{said}'"))?;
            // From its first datagram to its last.
            let length = flow.received as f64 / flow.received_per_second.max(1e-9);
            ensure!(length > ended - BEGUN, "the flow '{name}' did not come back within {AROUND:?}: {said}");
            Ok(flow)
        };
        Ok((flow("to")?, flow("from")?))
    }

    fn transfer(&self, side: usize, end: End, watched: Duration) -> Result<Transfer> {
        let (guest, peer, wire) = (&self.guest, self.stage.peer(side), self.stage.lab.wire(side)?);
        let send = format!("traffic tcp-send {peer} 0 --plain --timeout {} --until {ENOUGH}", PATIENCE.as_secs());
        guest.sh(&format!("rm -f {ENOUGH}"))?;
        guest.start("send", &format!("sh -c 'while ! test -e {ENOUGH}; do {send}; usleep 100000; done'"))?;
        wire.start_timeline(INTERVAL);
        sleep(BEFORE);
        let told = Instant::now();
        self.end(end)?;
        let ended = Instant::now();
        let (course, recovery) = loop {
            sleep(AROUND);
            let course = course(wire, told, ended)?;
            if let Some(recovery) = course.recovery().filter(|_| told.elapsed() >= watched) {
                break (course, recovery);
            }
            ensure!(ended.elapsed() < PATIENCE, "TCP is not at full speed after {} s: {course:?}", PATIENCE.as_secs());
        };
        guest.sh(&format!("touch {ENOUGH}"))?;
        let said = guest.finish("send")?;
        Ok(Transfer { course, recovery, broken: said.contains("\"ok\":false") })
    }
}

/// What the wire has received since its timeline began.
fn course(wire: &Wire, told: Instant, ended: Instant) -> Result<Course> {
    let Timeline { since, interval, bytes } = wire.timeline().context("the wire keeps no timeline")?;
    let number = |at: Instant| usize::try_from(at.saturating_duration_since(since).as_nanos() / interval.as_nanos());
    Ok(Course { interval, bytes, ending: number(told)?..number(ended)? + 1 })
}

/// The rows of an end.
fn rows(report: &mut Report, end: End, outcomes: &Outcomes<Outcome>) {
    type Figure = fn(&Outcome) -> Option<f64>;
    let figures: [(&str, &str, Figure); 7] = [
        ("longest time without a datagram to the wire", "ms", |outcome| Some(outcome.to_wire.longest_gap_ms)),
        ("longest time without a datagram from the wire", "ms", |outcome| Some(outcome.from_wire.longest_gap_ms)),
        ("datagrams lost to the wire", "datagrams", |outcome| Some(outcome.to_wire.lost as f64)),
        ("datagrams lost from the wire", "datagrams", |outcome| Some(outcome.from_wire.lost as f64)),
        ("longest time without a byte of TCP", "ms", |outcome| Some(ms(outcome.transfer.as_ref()?.recovery.pause))),
        ("TCP at full speed again", "ms", |outcome| Some(ms(outcome.transfer.as_ref()?.recovery.full_speed))),
        ("TCP connections that broke, of 1", "connections", |outcome| {
            Some(f64::from(u8::from(outcome.transfer.as_ref()?.broken)))
        }),
    ];
    for (what, unit, figure) in figures {
        outcomes.row(report, NAME, end, (what, unit), figure);
    }
    outcomes.pauses_row(report, NAME, end);
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The course of the run that was in the middle by the time until full speed.
fn drawn(name: &str, side: &[&Outcome]) -> Option<Drawn> {
    let mut transfers: Vec<&Transfer> = side.iter().filter_map(|outcome| outcome.transfer.as_ref()).collect();
    transfers.sort_by_key(|transfer| transfer.recovery.full_speed);
    let middle = transfers.get(transfers.len() / 2)?;
    Some(middle.course.drawn(name, middle.recovery.began, DRAWN))
}
