//! netdom against a Linux driver domain, and against a guest that owns its NIC: one boot, alternating runs. Host.
//!
//! Both driver domains have one vCPU and an e1000e of their own; two guests have a vif on each, and one more guest has a third
//! e1000e passed to it, which is the limit. All share one CPU, as they do on any of the machines.
//!
//! Where the machine's clock counts instructions, a nanosecond each, the CPU time that Xen charges a domain is a number of instructions:
//! the domain's and Xen's for it. Rates and latencies say nothing then.

use std::cell::Cell;
use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use lab::{Clock, Guest, GuestConfig, Network, Nic, Row as Matrix};

use super::common::{Alternation, LINUX, LinuxDriverDomain, Runs, create_to_ready, footprint};
use super::counted::{By, cost};
use super::floods::{self, Flood};
use super::topology::{Link, Topology};
use super::{Better, Report};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::stage::{Images, Stage, lease};
use crate::traffic::{self, Flow, Ping, Shell, Transfer};

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Runs of each thing on each side; the median counts.
    pub runs: u32,
    /// Seconds of a throughput run.
    pub seconds: u32,
    /// Round trips of a run.
    pub pings: u32,
    /// Count instructions, in place of rates and time.
    pub instructions: bool,
    /// Only loads whose names contain one of these, separated by commas.
    pub only: String,
    /// The network that both driver domains serve. Any but a bridge has rates and latencies alone.
    pub topology: Topology,
}

impl Effort {
    /// Whether create-to-ready, memory and the limit are measured too.
    fn is_whole(&self) -> bool {
        !self.instructions && self.topology == Topology::Bridge
    }
}

impl Default for Effort {
    fn default() -> Self {
        Self { runs: 3, seconds: 6, pings: 1000, instructions: false, only: String::new(), topology: Topology::Bridge }
    }
}

/// The NICs of so many sides: those of each on one wire.
fn nics(sides: u8, each: u8) -> Vec<Nic> {
    let number = |side: u8, place: u8| side * each + place;
    let of = |side| {
        (0..each).map(move |place| match place {
            0 => Nic::wired(number(side, 0)),
            _ => Nic { network: Network::Port(number(side, 0).into()), ..Nic::wired(number(side, place)) },
        })
    };
    (0..sides).flat_map(of).collect()
}

/// A guest with a vif on each side, and an address on each.
fn client<'s>(stage: &'s Stage, name: &str, links: &[Link; 2], peers: &[String; 2]) -> Result<Guest<'s>> {
    let vifs = links.iter().map(|link| link.vif.clone()).collect();
    let guest = stage.lab.create(&GuestConfig { vifs, ..GuestConfig::new(name) })?;
    for (interface, link) in ["eth0", "eth1"].into_iter().zip(links) {
        match &link.setup {
            Some(setup) => guest.must(setup)?,
            None => lease(&guest, interface)?,
        };
    }
    // The stations on the way are asked for their addresses before anything is measured.
    for peer in peers {
        guest.must(&format!("for i in $(seq 60); do ping -c 1 -W 1 {peer} && exit 0; done; arp -n; exit 1"))?;
    }
    Ok(guest)
}

/// What the guests need to reach the peers of a backend.
struct Side {
    /// The number of its first NIC, and of a bond the place of the active one.
    nic: usize,
    active: Cell<usize>,
    peer: String,
    /// The guests' interface on it.
    interface: &'static str,
    b_address: String,
}

/// A report of this benchmark without rows.
pub fn report() -> Report {
    Report::new("netdom")
}

/// Boots, measures, and tells `progress` what it is doing.
///
/// # Errors
/// What did not come up, or traffic that failed.
pub fn run(row: Matrix, images: &Images, effort: Effort, progress: &dyn Fn(&str)) -> Result<Report> {
    progress("booting Xen, dom0 and the NICs");
    let (topology, sides) = (effort.topology, if effort.is_whole() { 3 } else { 2 });
    let stage = Stage::boot_with(row, images, nics(sides, topology.nics()), |config| {
        config.driver_root = true;
        config.memory = 4096;
        config.clock = if effort.instructions { Clock::Instructions } else { Clock::Host };
    })?;
    let first = |side: u8| usize::from(side * topology.nics());
    let of = |side: u8| -> Result<Vec<String>> {
        (first(side)..first(side + 1)).map(|nic| stage.lab.make_assignable(nic)).collect()
    };
    let devices = of(0)?;
    let ours = DriverDomainConfig::netdom("netdom")
        .extra(&format!("profile=on {}", topology.words(&devices, &stage.peer(first(0)))));
    let ours = devices.iter().fold(ours, |config, device| config.pci(device));
    let linux = LinuxDriverDomain { pci: of(1)?, setup: topology.linux_setup() };
    let ready = match !effort.is_whole() || !effort.only.is_empty() {
        true => None,
        false => Some(create_to_ready(&stage.lab, &ours, &linux, effort.runs, progress)?),
    };
    progress("starting the guests");
    let netdom = DriverDomain::create(&stage.lab, &ours)?;
    let _linux = linux.start(&stage.lab)?;
    let peers = [stage.peer(first(0)), stage.peer(first(1))];
    let a = stage.lab.with_console(LINUX, client(&stage, "a", &topology.links(1, &peers), &peers))?;
    let links = topology.links(2, &peers);
    let b = client(&stage, "b", &links, &peers)?;
    let limit = if effort.is_whole() { Some(Limit { guest: limit_guest(&stage)?, peer: stage.peer(2) }) } else { None };
    let side = |number: u8, interface: &'static str| -> Result<Side> {
        let (nic, link) = (first(number), &links[usize::from(number)]);
        let b_address = link.address.clone().map_or_else(|| lease(&b, interface), Ok)?;
        Ok(Side { nic, active: Cell::new(0), peer: stage.peer(nic), interface, b_address })
    };
    let sides = [("netdom", side(0, "eth0")?), (LINUX, side(1, "eth1")?)];
    let turns = Alternation { lab: &stage.lab, sides, counting: Some(&netdom), runs: effort.runs, progress };
    let bench = Bench { turns, a, b, limit, effort };
    let mut report = report();
    bench.throughput(&mut report)?;
    bench.packets(&mut report)?;
    bench.round_trips(&mut report)?;
    bench.floods(&mut report)?;
    if topology == Topology::Bond {
        bench.failover(&mut report)?;
    }
    let Some(ready) = ready else {
        return Ok(report);
    };
    report.push(ready.row("`xl create` to ready", "ms", Better::Less));
    footprint(&stage.lab, "netdom", &images.netdom, &mut report)?;
    Ok(report)
}

/// A guest that owns its NIC, and the peer on that one's wire.
struct Limit<'s> {
    guest: Guest<'s>,
    peer: String,
}

struct Bench<'s> {
    turns: Alternation<'s, Side>,
    a: Guest<'s>,
    b: Guest<'s>,
    /// None where instructions are counted: it has no driver domain.
    limit: Option<Limit<'s>>,
    effort: Effort,
}

/// How long a link is left alone before and after it changes.
const SETTLED: Duration = Duration::from_secs(3);

impl Bench<'_> {
    /// Runs a load on both sides and, where there is one, at the limit: `load` is told the guest and the peer.
    fn alternate<T>(
        &self,
        name: &str,
        address: impl Fn(&Side) -> &str,
        load: impl Fn(&Guest<'_>, &str) -> Result<T>,
        limited: bool,
    ) -> Result<Runs<T>> {
        let measure = |side: &Side| load(&self.a, address(side));
        let limit = self.limit.as_ref().filter(|_| limited).map(|limit| || load(&limit.guest, &limit.peer));
        self.turns.run(name, measure, limit.as_ref().map(|limit| limit as &dyn Fn() -> Result<T>))
    }

    /// Rows of a rate, where it says something, and of what it costs.
    fn rows<T>(&self, report: &mut Report, name: &str, runs: &Runs<T>, rate: Rate<T>) {
        if !self.effort.instructions {
            report.push(runs.samples(rate.figure).row(name, rate.unit, Better::More));
        }
        cost(report, name, runs, rate.by, self.effort.instructions, rate.amount);
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.effort.only.split(',').any(|part| name.contains(part))
    }

    fn throughput(&self, report: &mut Report) -> Result<()> {
        let seconds = self.effort.seconds;
        let rate = || Rate {
            unit: "Mbit/s",
            figure: |transfer: &Transfer| transfer.mbit_per_second,
            by: By::Megabyte,
            amount: |transfer| (transfer.sent + transfer.received) as f64 / 1e6,
        };
        for (name, direction) in [("TCP to the wire", "send"), ("TCP from the wire", "receive")] {
            if !self.is_wanted(name) {
                continue;
            }
            let load = |guest: &Guest<'_>, peer: &str| traffic::tcp_rate(guest, direction, peer, seconds);
            self.rows(report, name, &self.alternate(name, |side| &side.peer, load, true)?, rate());
        }
        let name = "TCP guest to guest";
        if !self.is_wanted(name) {
            return Ok(());
        }
        traffic::serve(&self.b)?;
        let load = |guest: &Guest<'_>, peer: &str| traffic::tcp_rate(guest, "send", peer, seconds);
        self.rows(report, name, &self.alternate(name, |side| &side.b_address, load, false)?, rate());
        self.b.stop("serve")
    }

    fn packets(&self, report: &mut Report) -> Result<()> {
        let seconds = self.effort.seconds;
        // 18 bytes of payload make a frame of 64 with its check sequence, the shortest there is.
        const PAYLOAD: u32 = 18;
        let rate = || Rate {
            unit: "packets/s",
            figure: |flow: &Flow| flow.received_per_second,
            by: By::Packet,
            amount: |flow| flow.received as f64,
        };
        type Load = fn(&dyn Shell, &str, u32, u32) -> Result<Flow>;
        let loads: [(&str, Load); 2] = [
            ("UDP, 64-byte frames to the wire", |guest, peer, payload, seconds| {
                traffic::udp_flood(guest, peer, payload, seconds)
            }),
            ("UDP, 64-byte frames from the wire", |guest, peer, payload, seconds| {
                traffic::udp_receive(guest, peer, payload, seconds)
            }),
        ];
        for (name, flow) in loads.into_iter().filter(|(name, _)| self.is_wanted(name)) {
            let load = |guest: &Guest<'_>, peer: &str| flow(guest, peer, PAYLOAD, seconds);
            self.rows(report, name, &self.alternate(name, |side| &side.peer, load, true)?, rate());
        }
        Ok(())
    }

    /// The active NIC of a bond loses its link.
    fn failover(&self, report: &mut Report) -> Result<()> {
        let name = "failover: no round trip for";
        if !self.is_wanted(name) {
            return Ok(());
        }
        const INTERVAL_MS: u32 = 2;
        let lab = self.turns.lab;
        let measure = |side: &Side| -> Result<Ping> {
            let active = side.active.get();
            self.a.start("pings", &format!("traffic ping {} 10000000 {INTERVAL_MS} --until /tmp/enough", side.peer))?;
            sleep(SETTLED);
            lab.set_link(side.nic + active, false)?;
            sleep(SETTLED);
            self.a.sh("touch /tmp/enough")?;
            let pings = traffic::told(&self.a, "pings")?;
            self.a.sh("rm /tmp/enough")?;
            lab.set_link(side.nic + active, true)?;
            side.active.set(1 - active);
            sleep(SETTLED);
            Ok(pings)
        };
        let runs = self.turns.run(name, measure, None)?;
        report.push(runs.samples(|pings| pings.longest_loss_ms).row(name, "ms", Better::Less));
        report.push(runs.samples(|pings| pings.lost as f64).row("failover: round trips lost", "", Better::Less));
        Ok(())
    }

    /// Round trips beside a neighbour that floods.
    fn floods(&self, report: &mut Report) -> Result<()> {
        if self.effort.instructions {
            return Ok(());
        }
        for flood in Flood::of(self.effort.topology) {
            let name = format!("round trip beside a flood of {}, median", flood.name());
            if !self.is_wanted(&name) {
                continue;
            }
            let measure = |side: &Side| {
                floods::beside(*flood, (&self.a, &self.b), side.interface, &side.peer, self.effort.pings / 4)
            };
            let runs = self.turns.run(&name, measure, None)?;
            report.push(runs.samples(|pings| pings.median_us).row(&name, "us", Better::Less));
        }
        Ok(())
    }

    fn round_trips(&self, report: &mut Report) -> Result<()> {
        let name = "round trip to the wire";
        if !self.is_wanted(name) {
            return Ok(());
        }
        // `xl list` knows 10^8 instructions: more round trips for a figure that says something.
        let pings = self.effort.pings * if self.effort.instructions { 20 } else { 1 };
        let load = |guest: &Guest<'_>, peer: &str| traffic::ping(guest, peer, pings, 0, 56);
        let runs = self.alternate("round trips", |side| &side.peer, load, true)?;
        let row = |name, figure: fn(&Ping) -> f64| runs.samples(figure).row(name, "us", Better::Less);
        if !self.effort.instructions {
            report.push(row("round trip to the wire, median", |ping| ping.median_us));
            report.push(row("round trip to the wire, 99th percentile", |ping| ping.p99_us));
        }
        cost(report, name, &runs, By::RoundTrip, self.effort.instructions, |ping| (ping.sent - ping.lost) as f64);
        Ok(())
    }
}

/// What of a load's outcome is its rate, and what passed through the driver domain.
struct Rate<T> {
    unit: &'static str,
    figure: fn(&T) -> f64,
    by: By,
    amount: fn(&T) -> f64,
}

/// The guest that owns NIC 2.
fn limit_guest(stage: &Stage) -> Result<Guest<'_>> {
    let mut config = GuestConfig::new("limit");
    config.pci = vec![stage.lab.make_assignable(2)?];
    config.memory = 192;
    let guest = stage.lab.create(&config)?;
    guest.sh("modprobe xen-pcifront; modprobe e1000e; \
         for i in $(seq 500); do test -e /sys/class/net/eth0 && break; usleep 10000; done; ip link set eth0 up")?;
    lease(&guest, "eth0")?;
    Ok(guest)
}
