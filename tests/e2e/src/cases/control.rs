//! What an administrator does to the driver domain itself: the NIC taken and given, shutdown and reboot, commands on its console. Host.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Case, SPARE_NIC, Scene};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::stage::vif;
use crate::traffic::{self, Ping, Shell};

pub(super) const CASES: &[Case] = &[
    Case { name: "the NIC taken by xl pci-detach and given back by xl pci-attach", run: detach_and_attach_the_nic },
    Case { name: "the NIC's cable pulled out and put in: the vifs' carrier follows", run: cable },
    Case { name: "xl reboot and xl shutdown are obeyed", run: reboot_and_shutdown },
    Case {
        name: "xl destroy takes the NIC from netdom first, without the wait of xl shutdown",
        run: destroy_with_the_nic,
    },
    Case { name: "commands typed on the console are answered", run: console },
    Case { name: "rate= holds a guest back", run: rate },
    Case { name: "profile=on: what is asked of Xen and of the NIC is counted in data/counts", run: profile },
];

const PATIENCE: Duration = Duration::from_secs(60);
/// Where dom0 keeps netdom's console.
const LOG: &str = "/var/log/xen/console/guest-netdom.log";

fn detach_and_attach_the_nic(scene: &Scene<'_>) -> Result<String> {
    let (lab, netdom) = (&scene.stage.lab, &scene.netdom);
    let nic = lab.nics().first().context("the machine has no NIC")?.bdf();
    lab.must(&format!("xl pci-detach netdom {nic}"))?;
    let result = wait_for_carrier(scene, 0).and_then(|()| {
        traffic::ping(&scene.a, &scene.b_address, 20, 0, 56).context("guests are cut off from each other")
    });
    lab.must(&format!("xl pci-attach netdom {nic}"))?;
    lab.wait_until(
        &format!("test $(grep -c 'Intel 82574L, MSI-X' /var/log/xen/console/guest-{}.log) -ge 2", netdom.name),
        PATIENCE,
    )
    .context("the NIC was not taken into use again")?;
    result?;
    wait_for_carrier(scene, 1)?;
    let ping = wire_again(scene)?;
    Ok(format!("guests went on meanwhile; then {} pings to the wire", ping.sent))
}

/// Waits until the vifs of both guests say that they have a carrier, or that they have none.
fn wait_for_carrier(scene: &Scene<'_>, carrier: u8) -> Result<()> {
    [&scene.a, &scene.b].iter().try_for_each(|guest| {
        let node = format!("{}/carrier", scene.netdom.backend(guest.id(), 0));
        let lab = &scene.stage.lab;
        lab.wait_for_node(&node, &carrier.to_string(), PATIENCE)
            .with_context(|| format!("the carrier of the vif of {} is not {carrier}", guest.name()))
    })
}

/// Waits until the wire is reached again, and then counts on it.
fn wire_again(scene: &Scene<'_>) -> Result<Ping> {
    scene.a.sh("ip neigh flush dev eth0")?;
    scene
        .a
        .sh(&format!("for i in $(seq 100); do ping -c 1 -W 1 {} >/dev/null && exit 0; done; exit 1", scene.peer()))?;
    traffic::ping(&scene.a, &scene.peer(), 50, 0, 56)
}

fn cable(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    wait_for_carrier(scene, 1)?;
    let said = lab.must(&format!("grep -c 'link of xenbr0: down' {LOG} || true"))?;
    lab.set_link(0, false)?;
    let result = (|| {
        wait_for_carrier(scene, 0)?;
        lab.wait_until(&format!("test $(grep -c 'link of xenbr0: down' {LOG}) -gt {}", said.trim()), PATIENCE)
            .context("the log does not speak of the link")?;
        let alone = scene.a.run(&format!("ping -c 1 -W 1 {}", scene.peer()))?;
        ensure!(alone.status != 0, "the wire was reached without a cable");
        traffic::ping(&scene.a, &scene.b_address, 50, 0, 56).context("guests are cut off from each other")
    })();
    lab.set_link(0, true)?;
    let between = result?;
    wait_for_carrier(scene, 1)?;
    let ping = wire_again(scene)?;
    Ok(format!("{} pings between guests without it, then {} to the wire", between.sent, ping.sent))
}

fn reboot_and_shutdown(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let netdom = DriverDomain::create(lab, &DriverDomainConfig::netdom("short-lived"))?;
    lab.must("xl reboot short-lived")?;
    let id = lab.wait_until(
        &format!(
            "id=$(xl domid short-lived) && test $id != {} && xenstore-read /local/domain/$id/data/ready >/dev/null && echo $id",
            netdom.id
        ),
        PATIENCE,
    )?;
    lab.must("xl shutdown -w short-lived")?;
    lab.wait_until("! xl domid short-lived", PATIENCE)?;
    Ok(format!("domain {} came back as {}, and was shut down", netdom.id, id.trim()))
}

fn destroy_with_the_nic(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let nic = lab.make_assignable(SPARE_NIC.into())?;
    let netdom = DriverDomain::create(lab, &DriverDomainConfig::netdom("destroyed").pci(&nic))?;
    // The directory of a domain is gone with it: pcifront's states are those that its log has.
    let said = lab.must("xl destroy destroyed 2>&1")?;
    ensure!(said.trim().is_empty(), "xl says: {said}");
    let log = netdom.console()?;
    ensure!(log.contains(": taken away"), "netdom did not hear of it:\n{log}");
    Ok(format!("ready {} ms after `xl create` began", netdom.created.as_millis()))
}

fn console(scene: &Scene<'_>) -> Result<String> {
    // What `xl console` joins a terminal to; without a terminal it passes no input on. The answer is in the console's log as well.
    let id = scene.netdom.id;
    let terminal = format!("$(xenstore-read /local/domain/{id}/console/tty)");
    scene.stage.lab.must(&format!("echo stats > {terminal}"))?;
    scene.stage.lab.wait_for_console("netdom", "log lines dropped:", PATIENCE)?;
    scene.stage.lab.must(&format!("echo memory > {terminal}"))?;
    let line = scene.stage.lab.wait_for_console("netdom", "packet-pages-free", PATIENCE)?;
    let console = scene.netdom.console()?;
    ensure!(console.contains("vif"), "no vif in the statistics:\n{console}");
    Ok(line.trim().to_owned())
}

/// What the vif of the case may send, in megabits a second.
const LIMIT: f64 = 8.0;

fn rate(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    lab.must(&format!("xl network-attach b {} rate={LIMIT}Mb/s", vif("netdom", 0x41).replace(',', " ")))?;
    let result = (|| -> Result<String> {
        scene.b.sh("for i in $(seq 3000); do test -e /sys/class/net/eth1 && exit 0; usleep 20000; done; exit 1")?;
        scene.b.sh("ip link set eth1 up && ip addr add 10.9.88.1/32 dev eth1 && ip route add 10.9.0.1/32 dev eth1 src 10.9.88.1")?;
        let transfer = traffic::tcp_rate(&scene.b, "send", &scene.peer(), 8)?;
        // The burst of 128 KiB that Linux allows too comes on top.
        let most = LIMIT * 1.25 + 0.2;
        ensure!(transfer.mbit_per_second < most, "{:.1} Mbit/s passed", transfer.mbit_per_second);
        Ok(format!("{:.1} Mbit/s of {LIMIT} passed", transfer.mbit_per_second))
    })();
    scene.b.sh("ip link set eth1 down 2>/dev/null; true")?;
    let device = lab.must("xl network-list b | awk '/00:16:3e:00:00:41/ {print $1}'")?;
    lab.must(&format!("xl network-detach b {}", device.trim()))?;
    result
}

fn profile(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    ensure!(scene.netdom.node("data/counts").is_err(), "there is a data/counts that nobody asked for");
    let nic = lab.make_assignable(SPARE_NIC.into())?;
    let netdom = DriverDomain::create(lab, &DriverDomainConfig::netdom("counting").pci(&nic).extra("profile=on"))?;
    let result = netdom.counts().and_then(|before| Ok((netdom.counts()?.since(&before)?, before)));
    netdom.destroy()?;
    let (more, before) = result?;
    // Each second it wakes up to write the next line, and tells the store.
    for name in ["uptime-ms", "running-us", "hypercalls", "sched_op", "event_channel_op", "notifications", "blocks"] {
        ensure!(more.get(name) > 0, "{name} does not grow: {more:?}");
    }
    // What the driver did at its start.
    for name in ["register-reads", "register-writes", "register-us"] {
        ensure!(before.get(name) > 0, "{name} is zero: {before:?}");
    }
    ensure!(
        more.get("running-us") <= more.get("uptime-ms") * 1000,
        "it ran longer than the time that passed: {more:?}"
    );
    Ok(format!("{} hypercalls in {} ms of idling", more.get("hypercalls"), more.get("uptime-ms")))
}
