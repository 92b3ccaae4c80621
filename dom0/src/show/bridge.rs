//! `oxidom bridge`: bridges with their ports, and the addresses learnt there. Pure. Host.

use serde_json::{Value, json};

use super::{Cell, table};
use crate::model::{Bridge, Snapshot};

/// The bridges of a snapshot, for people and for programs; all, or those of one name. None where there is no such bridge.
pub(crate) fn bridges(snapshot: &Snapshot, only: Option<&str>) -> Option<(String, Value)> {
    let mut found: Vec<(String, Bridge)> = Vec::new();
    for domain in &snapshot.domains {
        found.extend(domain.bridges().into_iter().map(|bridge| (domain.name.clone(), bridge)));
    }
    found.retain(|(_, bridge)| only.is_none_or(|name| name == bridge.name));
    if found.is_empty() && only.is_some() {
        return None;
    }
    let list: Vec<Value> = found
        .iter()
        .map(|(domain, bridge)| {
            json!({"domain": domain, "name": bridge.name, "ports": bridge.ports, "leases": bridge.leases, "addresses": bridge.addresses})
        })
        .collect();
    Some((text(&found), json!({"bridges": list})))
}

fn text(found: &[(String, Bridge)]) -> String {
    if found.is_empty() {
        return "no driver domain has a bridge with ports\n".into();
    }
    let (mut ports, mut addresses) = (Vec::new(), Vec::new());
    for (domain, bridge) in found {
        let first = || [Cell::from(domain.clone()), bridge.name.clone().into()];
        for port in &bridge.ports {
            let [domain, bridge] = first();
            let up = match port.up {
                Some(true) => Cell::good("up"),
                Some(false) => Cell::bad("down"),
                None => "".into(),
            };
            let (vlans, mac) = (port.vlans.clone().unwrap_or_default(), port.mac.clone().unwrap_or_default());
            ports.push([
                domain,
                bridge,
                port.name.clone().into(),
                port.of.clone().into(),
                vlans.into(),
                mac.into(),
                up,
            ]);
        }
        if let Some(leases) = bridge.leases {
            let [domain, name] = first();
            let of = format!("{leases} leases").into();
            ports.push([domain, name, "DHCP server".into(), of, "".into(), "".into(), Cell::good("up")]);
        }
        for learnt in &bridge.addresses {
            let [domain, bridge] = first();
            let vlan = if learnt.vlan == 0 { String::new() } else { learnt.vlan.to_string() };
            addresses.push([domain, bridge, learnt.address.clone().into(), vlan.into(), learnt.port.clone().into()]);
        }
    }
    let ports = table(["DOMAIN", "BRIDGE", "PORT", "OF", "VLANS", "MAC", "STATE"], &ports);
    let addresses = table(["DOMAIN", "BRIDGE", "ADDRESS", "VLAN", "PORT"], &addresses);
    [ports, addresses].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}
