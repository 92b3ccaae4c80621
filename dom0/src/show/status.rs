//! `oxidom status`: driver domains, what they own, whom they serve, and what is wrong. Pure. Host.

use super::{Cell, count, size, span, state, table};
use crate::model::{DriverDomain, Image, Snapshot, StoreDomain};

/// All of it; `now` is in seconds since 1970.
pub(crate) fn status(snapshot: &Snapshot, now: f64) -> String {
    let store = snapshot.store.iter().map(of_store);
    let domains: Vec<_> = snapshot.domains.iter().map(|domain| of_domain(domain, now)).chain(store).collect();
    if domains.is_empty() {
        return "no driver domain runs here\n".into();
    }
    let heading = ["DOMAIN", "ID", "IMAGE", "READY", "UPTIME", "LIVES", "SERVES"];
    let parts = [
        table(heading, &domains),
        errors(snapshot),
        nics(snapshot),
        vifs(snapshot),
        bridges(snapshot),
        units(snapshot),
        vbds(snapshot),
        if snapshot.truncated { "There is more than is shown here.\n".into() } else { String::new() },
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

fn image(image: Option<&Image>) -> String {
    image.map_or_else(|| "another".into(), |Image { name, version }| format!("{name} {version}"))
}

fn of_store(store: &StoreDomain) -> [Cell; 7] {
    let lives = store.lives.map(|lives| lives.to_string()).unwrap_or_default();
    let (name, id, image) = (store.name.clone(), store.id.to_string(), image(store.image.as_ref()));
    [name.into(), id.into(), image.into(), Cell::good("yes"), "".into(), lives.into(), "the store".into()]
}

fn of_domain(domain: &DriverDomain, now: f64) -> [Cell; 7] {
    let ready = match (&domain.image, &domain.ready) {
        (None, _) => "".into(),
        (Some(_), Some(_)) => Cell::good("yes"),
        (Some(_), None) => Cell::bad("no"),
    };
    let mut shown = image(domain.image.as_ref());
    if !domain.is_vouched {
        shown.push_str(", it says");
    }
    let uptime = domain.start.map(|start| span(now - start)).unwrap_or_default();
    let lives = domain.lives.map(|lives| lives.to_string()).unwrap_or_default();
    let mut serves = Vec::new();
    for (number, what) in [(domain.vifs.len(), "vif"), (domain.vbds.len(), "disk")] {
        serves.extend((number > 0).then(|| count(number, what)));
    }
    [
        domain.name.clone().into(),
        domain.id.to_string().into(),
        shown.into(),
        ready,
        uptime.into(),
        lives.into(),
        serves.join(", ").into(),
    ]
}

/// What is wrong, and what was: the newest last.
fn errors(snapshot: &Snapshot) -> String {
    let mut rows = Vec::new();
    for domain in &snapshot.domains {
        let name = || Cell::from(domain.name.clone());
        rows.extend(domain.error.iter().map(|error| [name(), Cell::bad(error.clone())]));
        rows.extend(domain.refusals.iter().map(|text| [name(), format!("refused {text}").into()]));
    }
    table(["DOMAIN", "ERROR"], &rows)
}

fn nics(snapshot: &Snapshot) -> String {
    let mut rows = Vec::new();
    for domain in &snapshot.domains {
        for nic in &domain.nics {
            let link = match nic.link {
                Some(true) => Cell::good("up"),
                Some(false) => Cell::bad("down"),
                None => "".into(),
            };
            let lost: u64 =
                nic.port.drops.values().chain(nic.device.values()).fold(0, |sum, count| sum.saturating_add(*count));
            rows.push([
                domain.name.clone().into(),
                nic.name.clone().into(),
                nic.pci.clone().unwrap_or_default().into(),
                nic.bridge.clone().unwrap_or_default().into(),
                link,
                nic.port.from.packets.to_string().into(),
                nic.port.to.packets.to_string().into(),
                lost.to_string().into(),
                nic.module.clone().unwrap_or_default().into(),
            ]);
        }
        for bond in &domain.bonds {
            let (name, state) = (domain.name.clone().into(), bond.state.clone());
            let nics = bond.nics.join(" ");
            let blank = || Cell::default();
            rows.push([
                name,
                bond.name.clone().into(),
                nics.into(),
                blank(),
                blank(),
                blank(),
                blank(),
                blank(),
                state.into(),
            ]);
        }
    }
    table(["DOMAIN", "NIC", "PCI", "BRIDGE", "LINK", "RECEIVED", "SENT", "LOST", ""], &rows)
}

fn vifs(snapshot: &Snapshot) -> String {
    let mut rows = Vec::new();
    for domain in &snapshot.domains {
        for vif in &domain.vifs {
            rows.push([
                domain.name.clone().into(),
                vif.guest.shown().into(),
                vif.device.to_string().into(),
                vif.bridge.clone().unwrap_or_default().into(),
                vif.mac.clone().unwrap_or_default().into(),
                state(vif.state, vif.frontend, vif.error.as_ref()),
                vif.error.clone().unwrap_or_default().into(),
            ]);
        }
    }
    table(["BACKEND", "GUEST", "VIF", "BRIDGE", "MAC", "STATE", ""], &rows)
}

fn bridges(snapshot: &Snapshot) -> String {
    let mut rows = Vec::new();
    for domain in &snapshot.domains {
        for bridge in domain.bridges() {
            let ports: Vec<String> = bridge.ports.iter().map(|port| port.name.clone()).collect();
            rows.push([domain.name.clone().into(), bridge.name.into(), ports.join(", ").into()]);
        }
    }
    table(["DOMAIN", "BRIDGE", "PORTS"], &rows)
}

fn units(snapshot: &Snapshot) -> String {
    let mut rows = Vec::new();
    for domain in &snapshot.domains {
        for unit in &domain.units {
            let known = domain.volumes.iter().find(|volume| volume.names.contains(&unit.name));
            let failed: u64 = unit.disk.failures.values().fold(0, |sum, count| sum.saturating_add(*count));
            rows.push([
                domain.name.clone().into(),
                unit.name.clone().into(),
                known.map(|volume| size(volume.sectors)).unwrap_or_default().into(),
                unit.disk.reads.to_string().into(),
                unit.disk.writes.to_string().into(),
                failed.to_string().into(),
            ]);
        }
    }
    table(["DOMAIN", "DISK", "SIZE", "READS", "WRITES", "FAILED"], &rows)
}

fn vbds(snapshot: &Snapshot) -> String {
    let mut rows = Vec::new();
    for domain in &snapshot.domains {
        for vbd in &domain.vbds {
            let mode = match vbd.mode.as_deref() {
                Some("w") => "write",
                Some("r") => "read",
                _ => "",
            };
            rows.push([
                domain.name.clone().into(),
                vbd.guest.shown().into(),
                vbd.shown().into(),
                vbd.target.clone().unwrap_or_default().into(),
                mode.into(),
                state(vbd.state, vbd.frontend, vbd.error.as_ref()),
                vbd.error.clone().unwrap_or_default().into(),
            ]);
        }
    }
    table(["BACKEND", "GUEST", "DISK", "TARGET", "MODE", "STATE", ""], &rows)
}
