//! The ends of netdom's lives against a Linux driver domain that is built anew: one boot, in turns. Host.
//!
//! Both driver domains have one vCPU that serves, and an e1000e of their own; one guest has a vif on each. netdom fails, is updated and is
//! restarted. The Linux driver domain has nothing like it: it is destroyed and created, and the guest's vif is attached anew and configured in
//! the guest, as an administrator would do it, but by a script that takes each step as soon as the one before is done.
//!
//! Each end comes twice: once while two paced flows of datagrams go to the wire and from it, which show how long nothing came and what was
//! lost; once while the guest sends by TCP as fast as it can.

use std::cell::Cell;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::{Guest, Nic, Row as Matrix};
use wire::{Timeline, Wire};

use super::common::{LINUX, LinuxDriverDomain, Samples};
use super::course::{Course, Recovery};
use super::net::LINUX_SETUP;
use super::{Better, Report, Row};
use crate::cases::rebuild;
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::stage::{Images, Stage, lease, vif};
use crate::traffic::{Flow, Shell};

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Runs of each end on each side; the median counts.
    pub runs: u32,
    /// Only ends whose names contain one of these, separated by commas.
    pub only: String,
}

impl Default for Effort {
    fn default() -> Self {
        Self { runs: 3, only: String::new() }
    }
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It does not: what the flows alone show.
    Never,
    Failure,
    Update,
    Restart,
    /// The Linux driver domain's: it is created anew.
    Replacement,
}

impl End {
    /// Of netdom's.
    const ALL: [Self; 4] = [Self::Never, Self::Failure, Self::Update, Self::Restart];

    const fn name(self) -> &'static str {
        match self {
            Self::Never => "nothing happens",
            Self::Failure => "netdom fails",
            Self::Update => "netdom is updated",
            Self::Restart => "netdom is restarted",
            Self::Replacement => "the Linux driver domain is created anew",
        }
    }

    /// Lives of netdom that it ends, in an outcome.
    const fn lives(self) -> usize {
        match self {
            Self::Never | Self::Replacement => 0,
            Self::Failure | Self::Update | Self::Restart => 2,
        }
    }
}

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
/// The image that is installed, and one that does the same and differs in each page of its text.
const IMAGES: [&str; 2] = ["/usr/lib/oxidom/netdom", REBUILT];
const REBUILT: &str = "/tmp/netdom-rebuilt";
/// The file in the guest that ends loads.
const ENOUGH: &str = "/tmp/enough";

/// A report of this benchmark without rows.
pub fn report() -> Report {
    Report::with_heads(["netdom", "Linux driver domain, created anew", ""])
}

/// Boots, measures, and tells `progress` what it is doing.
///
/// # Errors
/// What did not come up, or did not come back.
pub fn run(row: Matrix, images: &Images, effort: &Effort, progress: &dyn Fn(&str)) -> Result<Report> {
    progress("booting Xen, dom0 and the NICs");
    let stage = Stage::boot_with(row, images, vec![Nic::wired(0), Nic::wired(1)], |config| {
        config.driver_root = true;
        config.memory = 4096;
    })?;
    let lab = &stage.lab;
    let mut rebuilt = fs::read(&images.netdom)?;
    rebuild(&mut rebuilt)?;
    lab.put(REBUILT, 0o644, &rebuilt)?;
    progress("starting the driver domains and the guest");
    let netdom = DriverDomain::create(lab, &DriverDomainConfig::netdom("netdom").pci(&lab.make_assignable(0)?))?;
    let linux = LinuxDriverDomain { pci: lab.make_assignable(1)?, setup: LINUX_SETUP };
    linux.start(lab)?;
    let guest = stage.client("a", &[vif("netdom", 1), vif(LINUX, LINUX_MAC)])?;
    let address = lease(&guest, "eth1")?;
    let bench = Bench { stage: &stage, netdom, linux, guest, address, updates: Cell::default(), progress };
    let mut report = report();
    bench.measure(effort, &mut report).with_context(|| format!("netdom's console:\n{}", bench.console()))?;
    Ok(report)
}

/// The last byte of the address of the guest's vif on the Linux driver domain.
const LINUX_MAC: u8 = 0x81;
/// The sides, by the numbers of their wires.
const OURS: usize = 0;
const LINUXS: usize = 1;

struct Bench<'s> {
    stage: &'s Stage,
    netdom: DriverDomain<'s>,
    linux: LinuxDriverDomain,
    guest: Guest<'s>,
    /// The guest's on the wire of the Linux driver domain.
    address: String,
    /// How often netdom was updated: it has one image after the other.
    updates: Cell<usize>,
    progress: &'s dyn Fn(&str),
}

/// What the flows and the transfer showed of the end of a life.
struct Outcome {
    to_wire: Flow,
    from_wire: Flow,
    transfer: Option<Transfer>,
    /// By the domain's own clock, in milliseconds.
    own: Vec<f64>,
}

struct Transfer {
    course: Course,
    recovery: Recovery,
    /// Whether its first connection broke.
    broken: bool,
}

impl Bench<'_> {
    fn measure(&self, effort: &Effort, report: &mut Report) -> Result<()> {
        let wanted = |end: &End| effort.only.split(',').any(|part| end.name().contains(part));
        let ends: Vec<End> = End::ALL.into_iter().filter(wanted).collect();
        ensure!(!ends.is_empty(), "no end of a life has '{}' in its name", effort.only);
        let (mut ours, mut linux) = (Vec::new(), Vec::new());
        for run in 0..effort.runs {
            let outcome = |side, end: End, watched| {
                let domain = if side == OURS { "netdom" } else { LINUX };
                (self.progress)(&format!("{domain}: {} ({} of {})", end.name(), run + 1, effort.runs));
                Ok::<_, anyhow::Error>((end, self.outcome(side, end, watched)?))
            };
            let mut watched = Duration::ZERO;
            if ends.contains(&End::Never) {
                linux.push(outcome(LINUXS, End::Never, watched)?);
            }
            if ends.iter().any(|end| *end != End::Never) {
                linux.push(outcome(LINUXS, End::Replacement, watched)?);
                watched = linux
                    .last()
                    .and_then(|(_, outcome)| Some(outcome.transfer.as_ref()?.course.after()))
                    .unwrap_or_default();
            }
            for end in &ends {
                // The picture shows both sides for as long.
                let watched = if *end == End::Failure { watched } else { Duration::ZERO };
                ours.push(outcome(OURS, *end, watched)?);
            }
        }
        for end in ends {
            let (ours, linux) = (of(&ours, end), of(&linux, if end == End::Never { end } else { End::Replacement }));
            rows(report, end, &ours, &linux);
            if end == End::Failure {
                let sides = [("netdom", &ours), (LINUX, &linux)];
                report.courses = sides.into_iter().filter_map(|(name, side)| drawn(name, side)).collect();
            }
        }
        Ok(())
    }

    /// Ends a life.
    fn end(&self, end: End) -> Result<()> {
        let command = match end {
            End::Never => return Ok(()),
            // The next life has taken over by then: to ask dom0 for it again and again would take the CPU from it.
            End::Failure => "xl trigger netdom nmi && usleep 500000".to_owned(),
            End::Update => {
                let number = self.updates.get() + 1;
                self.updates.set(number);
                format!("oxidom update netdom {}", IMAGES.get(number % IMAGES.len()).context("an image")?)
            }
            End::Restart => "oxidom restart netdom".to_owned(),
            End::Replacement => return self.replace(),
        };
        self.stage.lab.must(&command).map(drop)
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
        self.guest
            .sh(&format!(
                "for i in $(seq 1000); do test -e /sys/class/net/eth1 && break; usleep 10000; done; \
                 ip link set eth1 up && ip addr add {}/16 dev eth1 && \
                 for i in $(seq 100); do ping -c 1 -W 1 {} >/dev/null && exit 0; done; exit 1",
                self.address,
                self.stage.peer(LINUXS)
            ))
            .map(drop)
    }

    /// Ends a life under the flows, and one under TCP, which is watched for so long at least.
    fn outcome(&self, side: usize, end: End, watched: Duration) -> Result<Outcome> {
        let first = self.netdom.pauses()?.len();
        let (to_wire, from_wire) = self.flows(side, end)?;
        let transfer = if end == End::Never { None } else { Some(self.transfer(side, end, watched)?) };
        self.netdom.wait_for_lives(first + end.lives())?;
        let own: Vec<f64> = self.netdom.pauses()?.iter().skip(first).map(|pause| pause.whole).collect();
        ensure!(own.len() == end.lives(), "{}: {} lives of netdom ended", end.name(), own.len());
        Ok(Outcome { to_wire, from_wire, transfer, own })
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

    fn console(&self) -> String {
        self.netdom.console().unwrap_or_default()
    }
}

/// What the wire has received since its timeline began.
fn course(wire: &Wire, told: Instant, ended: Instant) -> Result<Course> {
    let Timeline { since, interval, bytes } = wire.timeline().context("the wire keeps no timeline")?;
    let number = |at: Instant| usize::try_from(at.saturating_duration_since(since).as_nanos() / interval.as_nanos());
    Ok(Course { interval, bytes, ending: number(told)?..number(ended)? + 1 })
}

/// The outcomes of an end.
fn of(outcomes: &[(End, Outcome)], end: End) -> Vec<&Outcome> {
    outcomes.iter().filter(|(other, _)| *other == end).map(|(_, outcome)| outcome).collect()
}

/// The rows of an end.
fn rows(report: &mut Report, end: End, ours: &[&Outcome], linux: &[&Outcome]) {
    let name = |what: &str| format!("{}: {what}", end.name());
    let mut row = |what: &str, unit: &str, figure: &dyn Fn(&Outcome) -> Option<f64>| {
        let of = |side: &[&Outcome]| side.iter().filter_map(|outcome| figure(outcome)).collect();
        let samples = Samples { sides: [of(ours), of(linux)], limit: Vec::new() };
        report.push(samples.row(&name(what), unit, Better::Less));
    };
    row("longest time without a datagram to the wire", "ms", &|outcome| Some(outcome.to_wire.longest_gap_ms));
    row("longest time without a datagram from the wire", "ms", &|outcome| Some(outcome.from_wire.longest_gap_ms));
    row("datagrams lost to the wire", "datagrams", &|outcome| Some(outcome.to_wire.lost as f64));
    row("datagrams lost from the wire", "datagrams", &|outcome| Some(outcome.from_wire.lost as f64));
    let of_transfer = |figure: fn(&Transfer) -> f64| move |outcome: &Outcome| outcome.transfer.as_ref().map(figure);
    row("longest time without a byte of TCP", "ms", &of_transfer(|transfer| ms(transfer.recovery.pause)));
    row("TCP at full speed again", "ms", &of_transfer(|transfer| ms(transfer.recovery.full_speed)));
    row(
        "TCP connections that broke, of 1",
        "connections",
        &of_transfer(|transfer| f64::from(u8::from(transfer.broken))),
    );
    let own: Vec<f64> = ours.iter().flat_map(|outcome| outcome.own.iter().copied()).collect();
    report.push(Row::alone(&name("pause by netdom's own clock"), "ms", &own));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The course of the run that was in the middle by the time until full speed.
fn drawn(name: &str, side: &[&Outcome]) -> Option<super::course::Drawn> {
    let mut transfers: Vec<&Transfer> = side.iter().filter_map(|outcome| outcome.transfer.as_ref()).collect();
    transfers.sort_by_key(|transfer| transfer.recovery.full_speed);
    let middle = transfers.get(transfers.len() / 2)?;
    Some(middle.course.drawn(name, middle.recovery.began, DRAWN))
}
