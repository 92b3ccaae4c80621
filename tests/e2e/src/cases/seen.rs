//! What `oxidom` shows of netdom and of two guests' vifs, against what the guests themselves counted. Host.

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lab::Guest;
use serde_json::Value;

use super::{Case, Scene};
use crate::traffic::{self, Shell};

pub(super) const CASES: &[Case] = &[Case {
    name: "oxidom status, stats, bridge, top, log and exporter show netdom, its guests, and what these sent",
    run: seen,
}];

const PATIENCE: Duration = Duration::from_secs(60);
/// Where the exporter listens, and what is sent.
const PLACE: &str = "127.0.0.1:9710";
const PINGS: u32 = 200;
/// Of a ping: the payload, and the headers of ICMP, IPv4 and Ethernet.
const PAYLOAD: u32 = 500;
const HEADERS: u32 = 8 + 20 + 14;

fn seen(scene: &Scene<'_>) -> Result<String> {
    status(scene)?;
    let before = settled(scene, &scene.a)?;
    traffic::ping(&scene.a, &scene.b_address, PINGS, 0, PAYLOAD)?;
    let after = settled(scene, &scene.a)?;
    let more = |pick: fn(&Counted) -> [u64; 2]| {
        let ([tool, guest], [tool_before, guest_before]) = (pick(&after), pick(&before));
        [tool - tool_before, guest - guest_before]
    };
    let [tool, guest] = more(|counted| counted.packets);
    ensure!(tool == guest, "oxidom counted {tool} packets of the guest, and the guest {guest}");
    ensure!(tool >= PINGS.into(), "{tool} packets of {PINGS} pings");
    let [tool, guest] = more(|counted| counted.bytes);
    ensure!(tool == guest, "oxidom counted {tool} bytes of the guest, and the guest {guest}");
    ensure!(tool >= (PINGS * (PAYLOAD + HEADERS)).into(), "{tool} bytes of {PINGS} pings");
    bridges(scene)?;
    others(scene)?;
    let lines = exporter(scene, after.packets[0])?;
    Ok(format!("{} packets by the guest's own count; the exporter's text has {lines} lines", after.packets[0]))
}

fn json(scene: &Scene<'_>, arguments: &str) -> Result<Value> {
    let said = scene.stage.lab.must(&format!("oxidom --json {arguments}"))?;
    serde_json::from_str(said.trim()).with_context(|| format!("oxidom --json {arguments} said '{said}'"))
}

fn status(scene: &Scene<'_>) -> Result<()> {
    let lab = &scene.stage.lab;
    let found = json(scene, "status netdom")?;
    let netdom = &found["domains"][0];
    ensure!(netdom["id"] == scene.netdom.id && netdom["image"]["name"] == "netdom", "status: {netdom}");
    ensure!(netdom["ready"].is_string() && netdom["is_vouched"] == true && netdom["well"] == true, "status: {netdom}");
    ensure!(netdom["nics"][0]["link"] == true, "the NIC: {}", netdom["nics"]);
    for guest in [&scene.a, &scene.b] {
        let vifs = netdom["vifs"].as_array().context("no vifs")?;
        let vif = vifs.iter().find(|vif| vif["guest"]["id"] == guest.id() && vif["device"] == 0);
        let vif = vif.with_context(|| format!("no vif of {}: {netdom}", guest.name()))?;
        ensure!(vif["state"] == "connected" && vif["frontend"] == "connected", "{vif}");
        ensure!(vif["guest"]["name"] == guest.name() && vif["bridge"] == "xenbr0", "{vif}");
    }
    let text = lab.must("oxidom status")?;
    let line = text.lines().find(|line| line.starts_with("netdom")).context("no line of netdom")?;
    ensure!(line.contains("netdom 0.") && line.contains("yes") && !text.contains('\x1b'), "status:\n{text}");
    let refused = lab.run("oxidom status no-such-domain")?;
    ensure!(refused.status == 1, "a domain that is not there: {}", refused.status);
    Ok(())
}

/// What was counted of a guest's packets: by the tool, and by the guest.
#[derive(Debug, PartialEq)]
struct Counted {
    packets: [u64; 2],
    bytes: [u64; 2],
}

fn counted(scene: &Scene<'_>, guest: &Guest<'_>) -> Result<Counted> {
    let stats = json(scene, &format!("stats {}", guest.name()))?;
    let of_tool = |name: &str| {
        let samples = stats["samples"].as_array()?;
        let found = samples.iter().find(|sample| {
            let labels = &sample["labels"];
            sample["name"] == name && labels["device"] == "0" && labels["direction"] == "from_guest"
        });
        found?["value"].as_u64()
    };
    let own = guest.sh("cd /sys/class/net/eth0/statistics && cat tx_packets tx_bytes")?;
    let mut own = own.lines().map(|line| line.trim().parse::<u64>());
    let mut next = || own.next().context("two numbers")?.context("a number");
    let (packets, bytes) = (next()?, next()?);
    let of_tool = |name: &str| of_tool(name).with_context(|| format!("no {name} of {}: {stats}", guest.name()));
    Ok(Counted { packets: [of_tool("vif_packets")?, packets], bytes: [of_tool("vif_bytes")?, bytes] })
}

/// Waits until nothing is counted any longer: netdom says once a second what it did.
fn settled(scene: &Scene<'_>, guest: &Guest<'_>) -> Result<Counted> {
    let mut last = counted(scene, guest)?;
    for _ in 0..30 {
        sleep(Duration::from_secs(3));
        let now = counted(scene, guest)?;
        if now == last {
            return Ok(now);
        }
        last = now;
    }
    bail!("{} sends without pause: {last:?}", guest.name())
}

fn bridges(scene: &Scene<'_>) -> Result<()> {
    let found = json(scene, "bridge xenbr0")?;
    let bridges = found["bridges"].as_array().context("no bridges")?;
    let bridge = bridges.iter().find(|bridge| bridge["domain"] == "netdom").context("none of netdom")?;
    let ports = bridge["ports"].as_array().context("no ports")?;
    for name in ["nic 0".to_owned(), format!("vif {}.0", scene.a.id()), format!("vif {}.0", scene.b.id())] {
        let port = ports.iter().find(|port| port["name"] == name.as_str());
        ensure!(port.is_some_and(|port| port["up"] == true), "{name} among the ports: {bridge}");
    }
    Ok(())
}

/// A line of each of the others.
fn others(scene: &Scene<'_>) -> Result<()> {
    let lab = &scene.stage.lab;
    let log = lab.must("oxidom log netdom")?;
    ensure!(log.contains("ready in"), "oxidom log: {log}");
    let line = json(scene, "top --interval 1 --count 1")?;
    let ports = line["ports"].as_array().context("no ports")?;
    let vif = ports.iter().find(|port| port["name"] == format!("vif {}.0", scene.a.id()).as_str());
    ensure!(vif.is_some_and(|vif| vif["rate"]["from_packets"].is_number()), "oxidom top: {line}");
    let netdom = line["domains"].as_array().and_then(|found| found.iter().find(|found| found["name"] == "netdom"));
    ensure!(netdom.is_some_and(|found| found["cpu_percent"].is_number()), "oxidom top: {line}");
    let volumes = lab.run("oxidom volumes netdom")?;
    ensure!(volumes.status == 1, "a netdom has volumes: {}", volumes.stdout);
    Ok(())
}

/// Scrapes the exporter; gives how many lines it said.
fn exporter(scene: &Scene<'_>, packets: u64) -> Result<usize> {
    let lab = &scene.stage.lab;
    lab.must("ip link set lo up")?;
    lab.start("exporter", &format!("oxidom exporter --listen {PLACE}"))?;
    let text = lab.wait_until(&format!("wget -q -O - http://{PLACE}/metrics"), PATIENCE);
    let missing = lab.run(&format!("wget -q -O - http://{PLACE}/"));
    lab.stop("exporter")?;
    let text = text.context("the exporter does not answer")?;
    ensure!(missing?.status != 0, "the exporter has more than /metrics");
    ensure!(text.ends_with("# EOF\n"), "the end is not marked:\n{text}");
    let (id, guest) = (scene.netdom.id, scene.a.id());
    let sample = format!(
        "oxidom_vif_packets_total{{domain=\"netdom\",domid=\"{id}\",guest=\"a\",guest_domid=\"{guest}\",device=\"0\",bridge=\"xenbr0\",\
         direction=\"from_guest\"}} "
    );
    let value = text.lines().find_map(|line| line.strip_prefix(&sample));
    let value: u64 = value.with_context(|| format!("no {sample}:\n{text}"))?.parse()?;
    // The guest may have said something since.
    ensure!(value >= packets, "{value} packets by the exporter, and {packets} before");
    ensure!(
        text.contains(&format!("oxidom_domain_ready{{domain=\"netdom\",domid=\"{id}\"}} 1\n")),
        "not ready:\n{text}"
    );
    Ok(text.lines().count())
}
