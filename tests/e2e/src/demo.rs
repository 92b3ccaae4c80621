//! The main job, shown: the store in its own domain, Linux guests that get their network from netdom, and their disk from blkdom. Host.

mod disks;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::scratch::Scratch;
use lab::{Equipment, Lab, Nic, Row, StorePlace};

use crate::cases::Scene;
use crate::driver_domain::Pause;
use crate::stage::{Images, Stage, lease, vif};
use crate::traffic::{self, Shell};

/// How much each transfer carries.
const MEBIBYTES: u32 = 64;

/// What is told while the demo runs, and its end.
pub trait Audience {
    /// What happens now.
    fn step(&self, what: &str);
    /// What it came to.
    fn done(&self, outcome: &str);
}

/// One line of the table at the end.
pub struct Line {
    /// What.
    pub name: &'static str,
    /// How much, with its unit.
    pub value: String,
}

/// Runs the demo; gives the table.
///
/// # Errors
/// The first thing that was not right.
pub fn run(row: Row, images: &Images, audience: &dyn Audience) -> Result<Vec<Line>> {
    let mut table = Vec::new();
    let mut line = |name, value| table.push(Line { name, value });
    audience.step(&format!("booting Xen {} and a Linux dom0 under QEMU", row.xen()));
    let drives = Scratch::new()?;
    let controller = disks::controller(drives.path())?;
    let stage = Stage::boot_with(row, images, vec![Nic::wired(0)], |config| {
        config.controllers = vec![controller];
        config.equipment = Equipment::Disks;
    })?;
    audience.done(&format!("dom0 answers after {:.1} s", stage.lab.boot_time.as_secs_f64()));
    if row.store == StorePlace::Domain {
        store(&stage, audience, &mut line)?;
    }

    audience.step("xl create netdom, which owns the NIC; two Linux guests with backend=netdom");
    let scene = Scene::set(&stage)?;
    let created = format!("{} ms", scene.netdom.created.as_millis());
    audience.done(&format!("leases by DHCP: {} and {}", scene.a_address, scene.b_address));
    line("netdom: `xl create` to ready", created);
    line("netdom: its first instruction to ready", format!("{} ms", scene.netdom.ready.as_millis()));

    audience.step("1,000 pings to the wire");
    let ping = traffic::ping(&scene.a, &scene.peer(), 1000, 0, 56)?;
    audience.done(&format!("none lost, median {:.2} ms", ping.median_us / 1e3));
    line(
        "netdom: round trip to the wire",
        format!("median {:.2} ms, 99th percentile {:.2} ms", ping.median_us / 1e3, ping.p99_us / 1e3),
    );

    transfers(&scene, audience, &mut line)?;
    live_on(&scene, audience)?;
    unplug_and_plug(&scene, audience)?;

    line("netdom: memory, image", footprint(&stage.lab, "netdom", &images.netdom)?);
    line("netdom: dropped packets", drops(&scene)?);
    disks::show(&stage, audience, &mut line)?;
    Ok(table)
}

/// Who serves the store: a domain that `xl list` shows, and nobody in dom0.
fn store(stage: &Stage, audience: &dyn Audience, line: &mut impl FnMut(&'static str, String)) -> Result<()> {
    const NAME: &str = "Xenstore";
    let lab = &stage.lab;
    audience.step("asking who serves the xenstore");
    lab.must("! pidof xenstored oxenstored").context("a daemon runs in dom0")?;
    let id = lab.domain_id(NAME)?;
    let known = lab.must("xenstore-read /tool/xenstored/domid")?;
    ensure!(known.trim() == id.to_string(), "the store is domain {id}, and says that it is {known}");
    let ready = lab.wait_for_console(NAME, "ready in", Duration::from_secs(60))?;
    let ready = ready.rsplit_once("ready in").map_or("", |(_, time)| time.trim());
    let memory = footprint(lab, NAME, &stage.images.stubdom)?;
    audience.done(&format!("no daemon in dom0; `xl list` shows it as domain {id}, \"{NAME}\""));
    line("xenstore: its first instruction to ready", ready.to_owned());
    line("xenstore: memory, image", memory);
    Ok(())
}

/// A domain's memory and the size of its image.
fn footprint(lab: &Lab, name: &str, image: &Path) -> Result<String> {
    let memory = lab.must(&format!("xl list {name} | awk 'END {{ print $3 }}'"))?;
    Ok(format!("{} MiB, {} KiB", memory.trim(), std::fs::metadata(image)?.len() / 1024))
}

fn transfers(scene: &Scene<'_>, audience: &dyn Audience, line: &mut impl FnMut(&'static str, String)) -> Result<()> {
    let mut transfer = |name: &'static str, direction, host: &str| -> Result<()> {
        audience.step(&format!("{MEBIBYTES} MiB of {}", name.trim_start_matches("netdom: ")));
        let transfer = traffic::tcp(&scene.a, direction, host, MEBIBYTES)?;
        audience.done(&format!("checksums equal, {:.0} Mbit/s", transfer.mbit_per_second));
        line(name, format!("{:.0} Mbit/s", transfer.mbit_per_second));
        Ok(())
    };
    transfer("netdom: TCP to the wire", "send", &scene.peer())?;
    transfer("netdom: TCP from the wire", "receive", &scene.peer())?;
    traffic::serve(&scene.b)?;
    transfer("netdom: TCP from guest to guest", "send", &scene.b_address)?;
    transfer("netdom: TCP back", "receive", &scene.b_address)?;
    scene.b.stop("serve")
}

/// netdom fails in the midst of a transfer, and is replaced in the midst of the same.
fn live_on(scene: &Scene<'_>, audience: &dyn Audience) -> Result<()> {
    let (lab, netdom) = (&scene.stage.lab, &scene.netdom);
    audience.step("netdom fails while a guest sends (xl trigger netdom nmi), and is replaced (oxidom update)");
    scene.a.start("send", &format!("traffic tcp-send {} {MEBIBYTES}M", scene.peer()))?;
    lab.must("sleep 1; xl trigger netdom nmi")?;
    netdom.wait_for_lives(1)?;
    lab.must("oxidom update netdom /usr/lib/oxidom/netdom")?;
    let said = scene.a.finish("send")?;
    ensure!(said.contains("\"ok\":true"), "the transfer: {said}");
    audience.done(&format!("the guest's connection went on, checksums equal; {}", shown(&netdom.pauses()?)));
    Ok(())
}

/// How long nobody was served.
fn shown(pauses: &[Pause]) -> String {
    let pauses: Vec<String> = pauses.iter().map(|pause| format!("{:.0} ms", pause.whole)).collect();
    format!("pauses of {}", pauses.join(" and "))
}

fn unplug_and_plug(scene: &Scene<'_>, audience: &dyn Audience) -> Result<()> {
    let lab = &scene.stage.lab;
    audience.step("unplugging a guest's vif and plugging it again");
    let started = Instant::now();
    lab.must("xl network-detach a 0")?;
    let gone = format!("! xenstore-exists {}", scene.netdom.backend(scene.a.id(), 0));
    lab.wait_until(&gone, Duration::from_secs(30)).context("netdom kept the device's directory")?;
    lab.must(&format!("xl network-attach a {}", vif("netdom", 1).replace(',', " ")))?;
    scene.a.sh("for i in $(seq 3000); do test -e /sys/class/net/eth0 && exit 0; usleep 20000; done; exit 1")?;
    let address = lease(&scene.a, "eth0")?;
    ensure!(address == scene.a_address, "{address} was leased in place of {}", scene.a_address);
    traffic::ping(&scene.a, &scene.peer(), 20, 0, 56)?;
    audience.done(&format!("back after {:.1} s, with the same address", started.elapsed().as_secs_f64()));
    Ok(())
}

/// What netdom dropped, by port and cause.
fn drops(scene: &Scene<'_>) -> Result<String> {
    // Statistics are written at most once a second.
    scene.stage.lab.must("sleep 2")?;
    let text = scene.stage.lab.must(&format!("oxidom stats {}", scene.netdom.name))?;
    let dropped: Vec<String> = text
        .lines()
        .filter(|line| line.contains(" dropped "))
        .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" "))
        .collect();
    Ok(if dropped.is_empty() { "none".to_owned() } else { dropped.join("; ") })
}
