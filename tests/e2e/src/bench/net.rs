//! netdom against a Linux driver domain, and against a guest that owns its NIC: one boot, alternating runs. Host.
//!
//! Both driver domains have one vCPU and an e1000e of their own; two guests have a vif on each, and one more guest has a third
//! e1000e passed to it, which is the limit. All share one CPU, as they do on any of the machines.

use anyhow::Result;
use lab::{Guest, GuestConfig, Nic, Row as Matrix};

use super::common::{Alternation, LINUX, LinuxDriverDomain, Runs, create_to_ready, footprint};
use super::{Better, Report};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::stage::{Images, Stage, lease, vif};
use crate::traffic::{self, Flow, Ping, Shell, Transfer};

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Runs of each thing on each side; the median counts.
    pub runs: u32,
    /// Seconds of a throughput run.
    pub seconds: u32,
    /// Round trips of a run.
    pub pings: u32,
}

impl Default for Effort {
    fn default() -> Self {
        Self { runs: 3, seconds: 6, pings: 1000 }
    }
}

/// What an administrator's init does in a Linux driver domain: a bridge with the NIC in it, and `xl devd` for hotplug.
pub(crate) const LINUX_SETUP: &str = "modprobe e1000e && for i in $(seq 500); do test -e /sys/class/net/eth0 && break; usleep 10000; done
ip link add xenbr0 type bridge && ip link set eth0 master xenbr0 && ip link set eth0 up && ip link set xenbr0 up && xl devd";

/// What the guests need to reach the peers of a backend.
struct Side {
    peer: String,
    b_address: String,
}

/// Boots, measures, and tells `progress` what it is doing.
///
/// # Errors
/// What did not come up, or traffic that failed.
pub fn run(row: Matrix, images: &Images, effort: Effort, progress: &dyn Fn(&str)) -> Result<Report> {
    progress("booting Xen, dom0 and three NICs");
    let nics = (0..3).map(Nic::wired).collect();
    let stage = Stage::boot_with(row, images, nics, |config| {
        config.driver_root = true;
        config.memory = 4096;
    })?;
    let ours = DriverDomainConfig::netdom("netdom").pci(&stage.lab.make_assignable(0)?);
    let linux = LinuxDriverDomain { pci: stage.lab.make_assignable(1)?, setup: LINUX_SETUP };
    let ready = create_to_ready(&stage.lab, &ours, &linux, effort.runs, progress)?;
    progress("starting the guests");
    let _netdom = DriverDomain::create(&stage.lab, &ours)?;
    let _linux = linux.start(&stage.lab)?;
    let vifs = |number: u8| [vif("netdom", number), vif(LINUX, number + 0x80)];
    let a = stage.client("a", &vifs(1))?;
    let b = stage.client("b", &vifs(2))?;
    let limit = limit_guest(&stage)?;
    let side = |index: usize, interface| -> Result<Side> {
        Ok(Side { peer: stage.peer(index), b_address: lease(&b, interface)? })
    };
    let sides = [("netdom", side(0, "eth0")?), (LINUX, side(1, "eth1")?)];
    let turns = Alternation { lab: &stage.lab, sides, runs: effort.runs, progress };
    let limit_peer = stage.peer(2);
    let bench = Bench { turns, a, b, limit, limit_peer, effort };
    let mut report = Report::new("netdom");
    bench.throughput(&mut report)?;
    bench.packets(&mut report)?;
    bench.round_trips(&mut report)?;
    report.push(ready.row("`xl create` to ready", "ms", Better::Less));
    footprint(&stage.lab, "netdom", &images.netdom, &mut report)?;
    Ok(report)
}

struct Bench<'s> {
    turns: Alternation<'s, Side>,
    a: Guest<'s>,
    b: Guest<'s>,
    limit: Guest<'s>,
    limit_peer: String,
    effort: Effort,
}

impl Bench<'_> {
    fn throughput(&self, report: &mut Report) -> Result<()> {
        let seconds = self.effort.seconds;
        let mut add = |name: &str, runs: &Runs<Transfer>| {
            report.push(runs.samples(|transfer| transfer.mbit_per_second).row(name, "Mbit/s", Better::More));
            let cpu = runs.cpu(1e3, |transfer| (transfer.sent + transfer.received) as f64 / 1e6);
            report.push(cpu.row(&format!("{name}: CPU of the driver domain"), "ms/MB", Better::Less));
        };
        for (name, direction) in [("TCP to the wire", "send"), ("TCP from the wire", "receive")] {
            let limit = || traffic::tcp_rate(&self.limit, direction, &self.limit_peer, seconds);
            let measure = |side: &Side| traffic::tcp_rate(&self.a, direction, &side.peer, seconds);
            add(name, &self.turns.run(name, measure, Some(&limit))?);
        }
        traffic::serve(&self.b)?;
        let measure = |side: &Side| traffic::tcp_rate(&self.a, "send", &side.b_address, seconds);
        add("TCP guest to guest", &self.turns.run("TCP guest to guest", measure, None)?);
        self.b.stop("serve")
    }

    fn packets(&self, report: &mut Report) -> Result<()> {
        let seconds = self.effort.seconds;
        // 18 bytes of payload make a frame of 64 with its check sequence, the shortest there is.
        const PAYLOAD: u32 = 18;
        let mut add = |name: &str, runs: &Runs<Flow>| {
            report.push(runs.samples(|flow| flow.received_per_second).row(name, "packets/s", Better::More));
            let cpu = runs.cpu(1e6, |flow| flow.received as f64);
            report.push(cpu.row(&format!("{name}: CPU of the driver domain"), "us/packet", Better::Less));
        };
        let out = |guest: &Guest<'_>, peer: &str| traffic::udp_flood(guest, peer, PAYLOAD, seconds);
        let back = |guest: &Guest<'_>, peer: &str| traffic::udp_receive(guest, peer, PAYLOAD, seconds);
        let limit_out = || out(&self.limit, &self.limit_peer);
        let limit_back = || back(&self.limit, &self.limit_peer);
        let name = "UDP, 64-byte frames to the wire";
        add(name, &self.turns.run(name, |side| out(&self.a, &side.peer), Some(&limit_out))?);
        let name = "UDP, 64-byte frames from the wire";
        add(name, &self.turns.run(name, |side| back(&self.a, &side.peer), Some(&limit_back))?);
        Ok(())
    }

    fn round_trips(&self, report: &mut Report) -> Result<()> {
        let count = self.effort.pings;
        let limit = || traffic::ping(&self.limit, &self.limit_peer, count, 0, 56);
        let measure = |side: &Side| traffic::ping(&self.a, &side.peer, count, 0, 56);
        let runs = self.turns.run("round trips", measure, Some(&limit))?;
        let row = |name, figure: fn(&Ping) -> f64| runs.samples(figure).row(name, "us", Better::Less);
        report.push(row("round trip to the wire, median", |ping| ping.median_us));
        report.push(row("round trip to the wire, 99th percentile", |ping| ping.p99_us));
        Ok(())
    }
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
