//! Bad input from an administrator or a frontend's store nodes: a clear error, for its sender alone. Host.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::GuestConfig;

use super::{Case, Scene};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::stage::vif;
use crate::traffic;

pub(super) const CASES: &[Case] = &[
    Case { name: "no PCI device: says so, and switches between guests all the same", run: no_device },
    Case { name: "a device of another kind: says which", run: other_device },
    Case { name: "a malformed command line: says which words, in data/error too", run: command_line },
    Case { name: "a vif with an unknown bridge, VLAN or ip=: refused with the reason", run: refused_vifs },
    Case { name: "nonsense in a frontend's nodes: its vif closed, the reason in its error node", run: nonsense },
];

const PATIENCE: Duration = Duration::from_secs(30);

fn no_device(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let other = DriverDomain::create(lab, &DriverDomainConfig::netdom("nonic"))?;
    let result = (|| {
        let line = lab.wait_for_console("nonic", "no PCI device", PATIENCE)?;
        let error = other.node("data/error")?;
        ensure!(error.contains("no PCI device"), "data/error is '{error}'");
        for (guest, number) in [("a", 0x11), ("b", 0x12)] {
            lab.must(&format!("xl network-attach {guest} {}", vif("nonic", number).replace(',', " ")))?;
        }
        for (guest, address) in [(&scene.a, "10.200.0.1"), (&scene.b, "10.200.0.2")] {
            guest.must(&format!(
                "for i in $(seq 3000); do test -e /sys/class/net/eth1 && break; usleep 20000; done; \
                 ip link set eth1 up && ip addr add {address}/24 dev eth1"
            ))?;
        }
        traffic::ping(&scene.a, "10.200.0.2", 50, 0, 56)?;
        Ok(line)
    })();
    for guest in ["a", "b"] {
        lab.run(&format!("xl network-detach {guest} 1"))?;
    }
    other.destroy()?;
    result
}

fn other_device(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let device = lab.make_assignable(1)?;
    let other = DriverDomain::create(lab, &DriverDomainConfig::netdom("othernic").pci(&device))?;
    // An 82540EM: the vendor's, of another programming model.
    let line = lab.wait_for_console("othernic", "8086:100e", PATIENCE);
    other.destroy()?;
    line
}

/// Wrong vifs: what is added to the config's words, and what the log and the error node say.
const REFUSED: &[(&str, &str)] = &[
    ("bridge=nosuch", "no bridge \"nosuch\"; there are: xenbr0"),
    ("ip=10.9.0.77/33", "ip is no list of IP addresses"),
    ("bridge=xenbr0.100:x", "no VLAN \"100:x\" on bridge \"xenbr0\""),
];

fn refused_vifs(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    for (words, reason) in REFUSED {
        // A guest that never runs. `xl` waits for the vif, gives up and takes all back.
        let config = GuestConfig::new("mistaken").vif(&format!("{},{words}", vif("netdom", 0x22)));
        lab.put("/etc/xen/mistaken.cfg", 0o644, config.to_string().as_bytes())?;
        let created = lab.run("xl create -q -p /etc/xen/mistaken.cfg")?;
        lab.run("xl destroy mistaken 2>/dev/null || true")?;
        ensure!(created.status != 0, "{words}: xl did not fail");
        lab.wait_for_console(&scene.netdom.name, reason, PATIENCE)?;
    }
    traffic::ping(&scene.a, &scene.peer(), 20, 0, 56)?;
    Ok(format!("{} kinds", REFUSED.len()))
}

fn command_line(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let config = DriverDomainConfig::netdom("misconfigured").extra("colour=green bridge= bpdu=perhaps");
    lab.put("/etc/xen/misconfigured.cfg", 0o644, config.to_string().as_bytes())?;
    lab.must("xl create -q /etc/xen/misconfigured.cfg")?;
    let line = lab.wait_for_console("misconfigured", "unknown word \"colour", PATIENCE).and_then(|line| {
        let id = lab.domain_id("misconfigured")?;
        let error = lab.wait_until(&format!("xenstore-read /local/domain/{id}/data/error"), PATIENCE)?;
        for word in ["colour=green", "bridge=", "bpdu=perhaps"] {
            ensure!(error.contains(word), "data/error does not name {word}: {error}");
        }
        Ok(line)
    });
    lab.destroy_after("misconfigured", line)
}

/// What a frontend may write below its own directory: (what it is, `node value` pairs). Each is one frontend's whole say.
const NONSENSE: &[(&str, &[(&str, &str)])] = &[
    ("no ring", &[("request-rx-copy", "1"), ("event-channel", "7")]),
    (
        "a ring that is no number",
        &[("tx-ring-ref", "green"), ("rx-ring-ref", "9"), ("event-channel", "7"), ("request-rx-copy", "1")],
    ),
    (
        "a ring beyond all tables",
        &[("tx-ring-ref", "4294967295"), ("rx-ring-ref", "9"), ("event-channel", "7"), ("request-rx-copy", "1")],
    ),
    (
        "a number that does not fit",
        &[
            ("tx-ring-ref", "99999999999999999999"),
            ("rx-ring-ref", "9"),
            ("event-channel", "7"),
            ("request-rx-copy", "1"),
        ],
    ),
    (
        "a ring that was never granted",
        &[("tx-ring-ref", "511"), ("rx-ring-ref", "510"), ("event-channel", "7"), ("request-rx-copy", "1")],
    ),
    ("too many queues", &[("multi-queue-num-queues", "9999"), ("request-rx-copy", "1")]),
    ("a state that does not exist", &[("state", "77")]),
];

fn nonsense(scene: &Scene<'_>) -> Result<String> {
    let lab = &scene.stage.lab;
    let mut reasons = Vec::new();
    for (what, nodes) in NONSENSE {
        // A guest that never runs, for which dom0 speaks.
        let config = GuestConfig::new("liar").vif(&vif("netdom", 0x21));
        lab.put("/etc/xen/liar.cfg", 0o644, config.to_string().as_bytes())?;
        lab.must("xl create -q -p /etc/xen/liar.cfg")?;
        let id = lab.domain_id("liar")?;
        let result = (|| -> Result<String> {
            let front = format!("/local/domain/{id}/device/vif/0");
            for (node, value) in *nodes {
                lab.must(&format!("xenstore-write {front}/{node} '{value}'"))?;
            }
            if !nodes.iter().any(|(node, _)| *node == "state") {
                lab.must(&format!("xenstore-write {front}/state 4"))?;
            }
            let error = format!("xenstore-read {}/error", scene.netdom.backend(id, 0));
            let reason = lab.wait_until(&error, PATIENCE).with_context(|| format!("{what}: no error node"))?;
            traffic::ping(&scene.a, &scene.peer(), 20, 0, 56)
                .with_context(|| format!("{what}: the neighbour suffers"))?;
            Ok(reason.trim().to_owned())
        })();
        reasons.push(lab.destroy_after("liar", result)?);
    }
    let console = scene.netdom.console()?;
    for reason in &reasons {
        ensure!(console.contains(reason.as_str()), "the log does not say '{reason}'");
    }
    Ok(format!("{} kinds, for example: {}", reasons.len(), reasons.first().map_or("", String::as_str)))
}
