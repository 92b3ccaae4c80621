//! What each port of the switch counted, as text. Floor 3.

use super::Domain;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use netdom::bond::Mode;
use netdom::datapath::{Heard, RouterStatistics, Uplink};
use netdom::nic::Nic;
use netdom::statistics::{DropCause, PortStatistics};
use runtime::restart;

/// One port's counters as text: those of drops only where there were any.
fn line(statistics: &PortStatistics) -> String {
    let (from, to) = (statistics.from_port, statistics.to_port);
    let mut text =
        format!("from: {} packets {} bytes, to: {} packets {} bytes", from.packets, from.bytes, to.packets, to.bytes);
    write_drops(&mut text, &statistics.drops);
    text
}

fn write_drops(text: &mut String, drops: &[u64; DropCause::COUNT]) {
    for (cause, name) in DropCause::ALL {
        if let Some(count) = drops.get(cause as usize)
            && *count > 0
        {
            // Writing to a string does not fail.
            let _ = write!(text, ", {name} {count}");
        }
    }
}

/// What the router is doing: its packets and sessions, the way out with its address, and the leases of each bridge.
fn router(statistics: &RouterStatistics, ports: &mut Vec<(String, String)>) {
    let RouterStatistics { counts, sessions, leases, uplink } = statistics;
    let mut text = format!("forwarded {} packets, translated {}", counts.forwarded, counts.translated);
    write_drops(&mut text, &counts.drops);
    if let Some(sessions) = sessions {
        let _ = write!(text, ", sessions {sessions}");
    }
    ports.push(("router/packets".into(), text));
    if let Some(Uplink { bridge, address, lease }) = uplink {
        let text = match (lease, address) {
            (Some(lease), _) => format!("on {bridge}, address {lease}"),
            (None, Some(address)) => format!("on {bridge}, address {address}"),
            (None, None) => format!("on {bridge}, no address, as there is no lease"),
        };
        ports.push(("router/uplink".into(), text));
    }
    for (bridge, count) in leases {
        ports.push((format!("router/leases/{bridge}"), format!("leases {count}")));
    }
}

/// Addresses of a port that are told, at most: of a guest's and of the wire's.
const OF_GUEST: usize = 8;
const OF_WIRE: usize = 32;
/// Bytes of a bridge's addresses, at most: a store takes 2,048 of a node (xenstored's `node-size`), less what it keeps beside.
const ADDRESSES: usize = 1800;

/// The addresses heard of lately, with their VLANs and ports, a line for each bridge whose name can be a node's. Guests' come first where not all
/// have room. The order is that of the addresses, so that a line is another one only where they are others.
fn addresses(domain: &Domain) -> Vec<(String, String)> {
    let path = domain.path.borrow();
    let mut bridges: BTreeMap<String, (usize, Vec<String>)> = BTreeMap::new();
    let mut add = |name: String, heard: Option<Heard>| {
        let Some((bridge, addresses)) = heard else {
            return;
        };
        let (bytes, lines) = bridges.entry(bridge).or_default();
        for (vlan, address) in addresses {
            let line = format!("{address} {vlan} {name}");
            if *bytes + line.len() + 2 <= ADDRESSES {
                *bytes += line.len() + 2;
                lines.push(line);
            }
        }
    };
    for (device, vif) in domain.bus.backend().vifs() {
        add(format!("vif/{}/{}", device.frontend.0, device.handle), path.vif_heard(vif, OF_GUEST));
    }
    for nic in domain.nics.borrow().active() {
        add(format!("nic/{}", nic.id().number()), path.nic_heard(nic.id(), OF_WIRE));
    }
    for (id, word) in domain.bonds.iter().zip(domain.words.bonds()) {
        add(format!("bond/{}", word.name), path.bond_heard(*id, OF_WIRE));
    }
    let is_node = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_@".contains(&byte));
    let told = bridges.into_iter().filter(|(bridge, (_, lines))| is_node(bridge) && !lines.is_empty());
    told.map(|(bridge, (_, mut lines))| {
        lines.sort_unstable();
        (format!("addresses/{bridge}"), lines.join(", "))
    })
    .collect()
}

/// Every port by name: NICs as `nic/0` and so on, with their address and bridge before their counters, and vifs; and the addresses heard of on each bridge.
pub(super) fn lines(domain: &Domain) -> Vec<(String, String)> {
    let mut lines = ports(domain);
    lines.extend(addresses(domain));
    lines
}

fn ports(domain: &Domain) -> Vec<(String, String)> {
    let mut path = domain.path.borrow_mut();
    let mut ports = Vec::new();
    for nic in domain.nics.borrow().active() {
        let Some(statistics) = path.nic_statistics(nic.id()) else {
            continue;
        };
        let mut text = format!("pci {} on {}, {}", nic.address(), nic.bridge(), line(&statistics));
        if let Some(module) = path.nic(nic.id()).and_then(|nic| nic.module()) {
            let _ = write!(text, ", module {module}");
        }
        if let Some(device) = path.nic(nic.id()).map(Nic::statistics) {
            for (name, count) in [
                ("receive-errors", device.receive_errors),
                ("receive-missed", device.receive_missed),
                ("receive-malformed", device.receive_malformed),
                ("receive-oversize", device.receive_oversize),
                ("receive-reset", device.receive_reset),
                ("transmit-errors", device.transmit_errors),
                ("transmit-reset", device.transmit_reset),
                ("pauses", device.pauses),
            ] {
                if count > 0 {
                    let _ = write!(text, ", {name} {count}");
                }
            }
        }
        if let Some(up) = path.nic_is_up(nic.id()) {
            text.push_str(if up { ", link up" } else { ", link down" });
        }
        ports.push((format!("nic/{}", nic.id().number()), text));
    }
    for (id, word) in domain.bonds.iter().zip(domain.words.bonds()) {
        let active = path.active_member(*id).and_then(|place| word.nics.get(place));
        let active = active.map_or(String::new(), |nic| format!(", active pci {nic}"));
        let linked = path.linked_members(*id);
        let active = match word.mode {
            Mode::ActiveBackup => active,
            Mode::BalanceXor(_) | Mode::Lacp(_) => format!(", {} in use", path.used_members(*id)),
        };
        let nics = word.nics.join(" ");
        ports.push((format!("bond/{}", word.name), format!("pci {nics}, {linked} with a link{active}")));
    }
    if let Some(statistics) = path.router_statistics() {
        router(&statistics, &mut ports);
    }
    for (device, vif) in domain.bus.backend().vifs() {
        if let Some(statistics) = path.vif_statistics(vif) {
            let name = format!("vif/{}/{}", device.frontend.0, device.handle);
            ports.push((name, line(&statistics)));
        }
    }
    if restart::lives() > 0 {
        ports.push((
            "lives".into(),
            format!("lives {}, packets that waited and were lost with them {}", restart::lives(), domain.lost),
        ));
    }
    ports
}
