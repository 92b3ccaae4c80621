//! Bridges with their ports, by what ports say of the bridge that they are on. Pure. Host.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{DriverDomain, Learnt};

/// A bridge of a driver domain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Bridge {
    /// Its name.
    pub(crate) name: String,
    /// Its ports: NICs, then bonds, then vifs.
    pub(crate) ports: Vec<Port>,
    /// Leases, where it has a DHCP server.
    pub(crate) leases: Option<u64>,
    /// Addresses learnt there, as far as the image says.
    pub(crate) addresses: Vec<Learnt>,
}

/// A port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Port {
    /// `nic 0`, or `vif 3.0`.
    pub(crate) name: String,
    /// Whose it is: a guest, or a PCI address.
    pub(crate) of: String,
    /// Its VLANs, as its config says them.
    pub(crate) vlans: Option<String>,
    /// Its address.
    pub(crate) mac: Option<String>,
    /// Whether packets can pass.
    pub(crate) up: Option<bool>,
}

/// A bridge's name, and the VLANs behind it: `xenbr0.100:200`.
fn split(word: &str) -> (&str, Option<&str>) {
    match word.find(['.', ':']) {
        Some(end) => (word.get(..end).unwrap_or(word), word.get(end + 1..)),
        None => (word, None),
    }
}

/// All of one domain, by name.
#[derive(Default)]
struct Bridges(BTreeMap<String, Bridge>);

impl Bridges {
    fn at(&mut self, name: &str) -> &mut Bridge {
        self.0.entry(name.to_owned()).or_insert_with(|| Bridge { name: name.to_owned(), ..Bridge::default() })
    }
}

impl DriverDomain {
    /// Its bridges that have ports, or a DHCP server, by name.
    pub(crate) fn bridges(&self) -> Vec<Bridge> {
        let mut bridges = Bridges::default();
        for nic in &self.nics {
            let Some(bridge) = &nic.bridge else {
                continue;
            };
            let pci = nic.pci.clone().unwrap_or_default();
            let bond = self.bonds.iter().find(|bond| bond.nics.contains(&pci));
            let of = bond.map_or_else(|| format!("pci {pci}"), |bond| format!("pci {pci}, of {}", bond.name));
            bridges.at(bridge).ports.push(Port {
                name: format!("nic {}", nic.name),
                of,
                up: nic.link,
                ..Port::default()
            });
        }
        for vif in &self.vifs {
            let Some(word) = vif.bridge.as_deref().filter(|word| !word.is_empty()) else {
                continue;
            };
            let (name, vlans) = split(word);
            bridges.at(name).ports.push(Port {
                name: format!("vif {}.{}", vif.guest.id, vif.device),
                of: vif.guest.label(),
                vlans: vlans.map(str::to_owned),
                mac: vif.mac.clone(),
                up: Some(vif.is_connected()),
            });
        }
        for (name, leases) in self.router.iter().flat_map(|router| &router.leases) {
            bridges.at(name).leases = Some(*leases);
        }
        for (name, addresses) in &self.addresses {
            bridges.at(name).addresses.clone_from(addresses);
        }
        bridges.0.into_values().collect()
    }
}
