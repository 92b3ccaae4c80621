//! Statistics in the store: one line for each thing that counts, under `data/statistics/`, and what is on loan. Safe code only. Floor 2.
//!
//! Whatever counts is one node, however much it counts, so that many frontends do not come near the store's quota of nodes.

use super::{Service, resources, write_node};
use crate::time::{self, Duration};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use split_driver::store::{Store, Transaction};

/// How often nodes are written at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// The name under which what the domain has on loan is kept beside the statistics.
const RESOURCES: &str = "resources";

/// Where a line is, or that of the resources.
fn node(name: &str) -> String {
    if name == RESOURCES { format!("data/{name}") } else { format!("data/statistics/{name}") }
}

/// Writes what changed, once a second, and removes what is gone.
pub(super) async fn run<S: Service>(service: Rc<S>) {
    let store = service.store();
    let mut written: BTreeMap<String, String> = BTreeMap::new();
    loop {
        time::sleep(INTERVAL).await;
        let mut lines = service.statistics();
        lines.push((RESOURCES.into(), resources(&*service)));
        let gone: Vec<String> =
            written.keys().filter(|known| !lines.iter().any(|(name, _)| name == *known)).cloned().collect();
        for name in gone {
            written.remove(&name);
            let path = node(&name);
            if let Err(error) = store.remove(Transaction::NONE, &path).await {
                log::debug!("{path} not removed: {error:?}");
            }
        }
        for (name, text) in lines {
            if written.get(&name) != Some(&text) {
                write_node(store, &node(&name), &text).await;
                written.insert(name, text);
            }
        }
    }
}
