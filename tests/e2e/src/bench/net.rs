//! netdom against a Linux driver domain, and against a guest that owns its NIC: one boot, alternating runs. Host.
//!
//! Both driver domains have one vCPU and an e1000e of their own; two guests have a vif on each, and one more guest has a third
//! e1000e passed to it, which is the limit. All share one CPU, as they do on any of the machines.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{Guest, GuestConfig, Lab, Nic, Row as Matrix};

use super::{Better, Report, Row};
use crate::driver_domain::{DriverDomain, DriverDomainConfig, cpu_seconds};
use crate::stage::{Images, Stage, lease, vif};
use crate::traffic::{self, Shell};

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

/// Memory of the Linux driver domain, in MiB: what it takes to start with all it needs.
const LINUX_MEMORY: u32 = 192;

/// What an administrator's init does in a Linux driver domain: a bridge with the NIC in it, and `xl devd` for hotplug.
const LINUX_SETUP: &str = "modprobe e1000e && for i in $(seq 500); do test -e /sys/class/net/eth0 && break; usleep 10000; done
ip link add xenbr0 type bridge && ip link set eth0 master xenbr0 && ip link set eth0 up && ip link set xenbr0 up && xl devd";

/// One of the two backends, with what the guests need to reach it.
struct Side {
    name: &'static str,
    peer: String,
    b_address: String,
}

/// Samples of one thing on both sides and at the limit.
#[derive(Default)]
struct Samples {
    sides: [Vec<f64>; 2],
    limit: Vec<f64>,
}

impl Samples {
    fn row(&self, name: &str, unit: &str, better: Better) -> Option<Row> {
        let [ours, linux] = &self.sides;
        Row::new(name, unit, better, ours, linux, &self.limit)
    }
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
    let mut report = Report::default();
    let mut ready = Samples::default();
    create_to_ready(&stage, effort, &mut ready, progress)?;
    progress("starting the guests");
    let _netdom =
        DriverDomain::create(&stage.lab, &DriverDomainConfig::netdom("netdom").pci(&stage.lab.make_assignable(0)?))?;
    let _linux = linux_driver_domain(&stage.lab)?;
    let vifs = |number: u8| [vif("netdom", number), vif("linuxdd", number + 0x80)];
    let a = stage.client("a", &vifs(1))?;
    let b = stage.client("b", &vifs(2))?;
    let limit = limit_guest(&stage)?;
    let side = |index: usize, name, interface| -> Result<Side> {
        Ok(Side { name, peer: stage.peer(index), b_address: lease(&b, interface)? })
    };
    let sides = [side(0, "netdom", "eth0")?, side(1, "linuxdd", "eth1")?];
    let bench = Bench { stage: &stage, a, b, limit, sides, effort, progress };
    bench.throughput(&mut report)?;
    bench.packets(&mut report)?;
    bench.round_trips(&mut report)?;
    report.push(ready.row("`xl create` to ready", "ms", Better::Less));
    footprint(&stage, images, &mut report)?;
    Ok(report)
}

struct Bench<'s> {
    stage: &'s Stage,
    a: Guest<'s>,
    b: Guest<'s>,
    limit: Guest<'s>,
    sides: [Side; 2],
    effort: Effort,
    progress: &'s dyn Fn(&str),
}

impl Bench<'_> {
    /// Runs `measure` on the two sides in turn; it gives a rate and how much passed, and the driver domain's CPU time is
    /// divided by that. `limit` gives the rate of the guest with its own NIC.
    fn alternate(
        &self,
        what: &str,
        measure: impl Fn(&Side) -> Result<(f64, f64)>,
        limit: Option<&dyn Fn() -> Result<f64>>,
    ) -> Result<(Samples, Samples)> {
        let (mut rates, mut cpu) = (Samples::default(), Samples::default());
        for run in 0..self.effort.runs {
            for (index, side) in self.sides.iter().enumerate() {
                (self.progress)(&format!("{what}: {} ({} of {})", side.name, run + 1, self.effort.runs));
                let before = cpu_seconds(&self.stage.lab, side.name)?;
                let (rate, amount) = measure(side).with_context(|| format!("{what}, {}", side.name))?;
                let spent = cpu_seconds(&self.stage.lab, side.name)? - before;
                if let (Some(rates), Some(cpu)) = (rates.sides.get_mut(index), cpu.sides.get_mut(index)) {
                    rates.push(rate);
                    cpu.push(spent / amount.max(1e-9));
                }
            }
            if let Some(limit) = limit {
                rates.limit.push(limit().with_context(|| format!("{what}, the limit"))?);
            }
        }
        Ok((rates, cpu))
    }

    fn throughput(&self, report: &mut Report) -> Result<()> {
        let seconds = self.effort.seconds;
        let outcome =
            |transfer: traffic::Transfer| (transfer.mbit_per_second, (transfer.sent + transfer.received) as f64 / 1e6);
        let mut add = |name: &str, samples: (Samples, Samples)| {
            let (rates, cpu) = samples;
            report.push(rates.row(name, "Mbit/s", Better::More));
            let scaled = Samples { sides: cpu.sides.map(|side| side.iter().map(|value| value * 1e3).collect()), ..cpu };
            report.push(scaled.row(&format!("{name}: CPU of the driver domain"), "ms/MB", Better::Less));
        };
        for (name, direction) in [("TCP to the wire", "send"), ("TCP from the wire", "receive")] {
            let limit =
                || traffic::tcp_rate(&self.limit, direction, &self.stage.peer(2), seconds).map(|t| t.mbit_per_second);
            let measure = |side: &Side| traffic::tcp_rate(&self.a, direction, &side.peer, seconds).map(outcome);
            add(name, self.alternate(name, measure, Some(&limit))?);
        }
        traffic::serve(&self.b)?;
        let measure = |side: &Side| traffic::tcp_rate(&self.a, "send", &side.b_address, seconds).map(outcome);
        add("TCP guest to guest", self.alternate("TCP guest to guest", measure, None)?);
        self.b.stop("serve")
    }

    fn packets(&self, report: &mut Report) -> Result<()> {
        let seconds = self.effort.seconds;
        // 18 bytes of payload make a frame of 64 with its check sequence, the shortest there is.
        const PAYLOAD: u32 = 18;
        let outcome = |flow: traffic::Flow| (flow.received_per_second, flow.received as f64);
        let mut add = |name: &str, samples: (Samples, Samples)| {
            let (rates, cpu) = samples;
            report.push(rates.row(name, "packets/s", Better::More));
            let scaled = Samples { sides: cpu.sides.map(|side| side.iter().map(|value| value * 1e6).collect()), ..cpu };
            report.push(scaled.row(&format!("{name}: CPU of the driver domain"), "us/packet", Better::Less));
        };
        let out = |guest: &Guest<'_>, peer: &str| traffic::udp_flood(guest, peer, PAYLOAD, seconds);
        let back = |guest: &Guest<'_>, peer: &str| traffic::udp_receive(guest, peer, PAYLOAD, seconds);
        let limit_out = || out(&self.limit, &self.stage.peer(2)).map(|flow| flow.received_per_second);
        let limit_back = || back(&self.limit, &self.stage.peer(2)).map(|flow| flow.received_per_second);
        let name = "UDP, 64-byte frames to the wire";
        add(name, self.alternate(name, |side| out(&self.a, &side.peer).map(outcome), Some(&limit_out))?);
        let name = "UDP, 64-byte frames from the wire";
        add(name, self.alternate(name, |side| back(&self.a, &side.peer).map(outcome), Some(&limit_back))?);
        Ok(())
    }

    fn round_trips(&self, report: &mut Report) -> Result<()> {
        let (mut median, mut high) = (Samples::default(), Samples::default());
        for run in 0..self.effort.runs {
            for (index, side) in self.sides.iter().enumerate() {
                (self.progress)(&format!("round trips: {} ({} of {})", side.name, run + 1, self.effort.runs));
                let ping = traffic::ping(&self.a, &side.peer, self.effort.pings, 0, 56)?;
                if let (Some(median), Some(high)) = (median.sides.get_mut(index), high.sides.get_mut(index)) {
                    median.push(ping.median_us);
                    high.push(ping.p99_us);
                }
            }
            let ping = traffic::ping(&self.limit, &self.stage.peer(2), self.effort.pings, 0, 56)?;
            median.limit.push(ping.median_us);
            high.limit.push(ping.p99_us);
        }
        report.push(median.row("round trip to the wire, median", "us", Better::Less));
        report.push(high.row("round trip to the wire, 99th percentile", "us", Better::Less));
        Ok(())
    }
}

/// Creates and destroys the two in turn; for both, ready is when a vif would be served.
fn create_to_ready(stage: &Stage, effort: Effort, ready: &mut Samples, progress: &dyn Fn(&str)) -> Result<()> {
    let nic = stage.lab.make_assignable(0)?;
    stage.lab.make_assignable(1)?;
    let [ours, linux] = &mut ready.sides;
    for run in 0..effort.runs {
        progress(&format!("create to ready ({} of {})", run + 1, effort.runs));
        let netdom = DriverDomain::create(&stage.lab, &DriverDomainConfig::netdom("netdom").pci(&nic))?;
        ours.push(netdom.created.as_secs_f64() * 1e3);
        netdom.destroy()?;
        let (guest, took) = linux_driver_domain(&stage.lab)?;
        linux.push(took.as_secs_f64() * 1e3);
        stage.lab.must(&format!("xl destroy {}", guest.name()))?;
    }
    Ok(())
}

/// The Linux driver domain `linuxdd` with NIC 1; gives it and the time from `xl create` to `xl devd`.
fn linux_driver_domain(lab: &Lab) -> Result<(Guest<'_>, Duration)> {
    let mut config = GuestConfig::new("linuxdd");
    config.memory = LINUX_MEMORY;
    config.pci = vec![lab.make_assignable(1)?];
    config.root = "/boot/driver.img".to_owned();
    config.role = "driver".to_owned();
    config.more = "driver_domain = 1".to_owned();
    let started = Instant::now();
    let guest = lab.create(&config)?;
    guest.sh(LINUX_SETUP)?;
    Ok((guest, started.elapsed()))
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

fn footprint(stage: &Stage, images: &Images, report: &mut Report) -> Result<()> {
    let one = |value: f64| vec![value];
    let memory = |domain: &str| -> Result<f64> {
        let line = stage.lab.must(&format!("xl list {domain} | tail -n 1"))?;
        line.split_whitespace()
            .nth(2)
            .and_then(|word| word.parse().ok())
            .with_context(|| format!("xl list says '{line}'"))
    };
    report.push(Row::new("memory", "MiB", Better::Less, &one(memory("netdom")?), &one(memory("linuxdd")?), &[]));
    let size = |read: &str| -> Result<f64> {
        let text = stage.lab.must(&format!("{read} | wc -c"))?;
        Ok(text.trim().parse::<f64>()? / 1024.0)
    };
    let ours = std::fs::metadata(&images.netdom)?.len() as f64 / 1024.0;
    // Both as an administrator would store them: Debian's kernel is compressed, its initramfs would be.
    let linux = size("cat /boot/vmlinuz")? + size("gzip -c /boot/driver.img")?;
    report.push(Row::new("image (kernel and initramfs)", "KiB", Better::Less, &one(ours), &one(linux), &[]));
    Ok(())
}
