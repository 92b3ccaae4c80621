//! Statistics: one line a port, under `data/statistics/` and on the console. Floor 3.
//!
//! A port is one node whatever it counts, so that many vifs do not come near the store's quota of nodes.

use super::Domain;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write;
use netdom::nic::Nic;
use netdom::statistics::{DropCause, PortStatistics};
use runtime::time::{self, Duration};
use runtime::{events, grants, memory};
use split_driver::store::{Store, Transaction};

/// How often nodes are written at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// The name under which what the domain has on loan is kept beside the ports.
const RESOURCES: &str = "resources";

/// Where a port's line is, or that of the resources.
fn node(name: &str) -> String {
    if name == RESOURCES { format!("data/{name}") } else { format!("data/statistics/{name}") }
}

/// One port's counters as text: those of drops only where there were any.
pub(super) fn line(statistics: &PortStatistics) -> String {
    let (from, to) = (statistics.from_port, statistics.to_port);
    let mut text =
        format!("from: {} packets {} bytes, to: {} packets {} bytes", from.packets, from.bytes, to.packets, to.bytes);
    for (cause, name) in DropCause::ALL {
        if let Some(count) = statistics.drops.get(cause as usize)
            && *count > 0
        {
            // Writing to a string does not fail.
            let _ = write!(text, ", {name} {count}");
        }
    }
    text
}

/// Every port by name, the NIC first.
pub(super) fn ports(domain: &Domain) -> Vec<(String, String)> {
    let mut path = domain.path.borrow_mut();
    let mut ports = Vec::new();
    if let Some(statistics) = path.nic_statistics() {
        let mut text = line(&statistics);
        if let Some(device) = path.nic().map(Nic::statistics) {
            for (name, count) in [
                ("receive-errors", device.receive_errors),
                ("receive-missed", device.receive_missed),
                ("receive-malformed", device.receive_malformed),
                ("transmit-errors", device.transmit_errors),
            ] {
                if count > 0 {
                    let _ = write!(text, ", {name} {count}");
                }
            }
        }
        ports.push(("nic".into(), text));
    }
    for (device, vif) in domain.netback.vifs() {
        if let Some(statistics) = path.vif_statistics(vif) {
            // As Linux names it, but for the dot, which no node's name may have.
            let name = format!("vif{}-{}", device.frontend.0, device.handle);
            ports.push((name, line(&statistics)));
        }
    }
    ports
}

/// What the domain has on loan now, as `name value` pairs: the same before a frontend came and after it went.
pub(super) fn resources(domain: &Domain) -> String {
    let usage = memory::usage();
    let (requests, watches) = domain.store.live();
    format!(
        "free-pages {}, heap-pages {}, heap-bytes {}, mapped-pages {}, grants {}, ports {}, packet-pages-free {}, \
         store-requests {requests}, watches {watches}",
        usage.free_frames,
        usage.heap_frames,
        usage.heap_bytes,
        usage.mapped_pages,
        grants::in_use(),
        events::bound(),
        domain.path.borrow().pool().available(),
    )
}

/// Writes what changed, once a second, and removes what is gone.
pub(super) async fn run(domain: Rc<Domain>) {
    let mut written: BTreeMap<String, String> = BTreeMap::new();
    loop {
        time::sleep(INTERVAL).await;
        let mut ports = ports(&domain);
        ports.push((RESOURCES.into(), resources(&domain)));
        let gone: Vec<String> =
            written.keys().filter(|known| !ports.iter().any(|(name, _)| name == *known)).cloned().collect();
        for name in gone {
            written.remove(&name);
            let path = node(&name);
            if let Err(error) = domain.store.remove(Transaction::NONE, &path).await {
                log::debug!("{path} not removed: {error:?}");
            }
        }
        for (name, text) in ports {
            if written.get(&name) != Some(&text) {
                crate::write_node(&domain.store, &node(&name), &text).await;
                written.insert(name, text);
            }
        }
    }
}
