//! Statistics in the store: one line for each thing that counts, under `data/statistics/`, and what is on loan. Safe code only. Floor 2.
//!
//! Each thing that counts is one node, however much it counts, so that many frontends do not come near the store's quota of nodes.

use super::{Service, resources};
use crate::time::{self, Duration};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use split_driver::store::{Store, StoreError, Transaction};

/// How often nodes are written at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// The name under which what the domain has on loan is kept beside the statistics.
const RESOURCES: &str = "resources";

/// Where a line is, or that of the resources.
fn node(name: &str) -> String {
    if name == RESOURCES { format!("data/{name}") } else { format!("data/statistics/{name}") }
}

/// What the log is told of a store that refuses lines: once that it does, and once that it takes all of them again.
#[derive(Debug, Default)]
struct Refusals {
    refuses: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Refuses(StoreError),
    TakesAll,
}

impl Refusals {
    /// All lines were written, or one was not.
    fn note(&mut self, refusal: Option<StoreError>) -> Option<News> {
        let before = core::mem::replace(&mut self.refuses, refusal.is_some());
        match refusal {
            Some(error) if !before => Some(News::Refuses(error)),
            None if before => Some(News::TakesAll),
            _ => None,
        }
    }
}

/// Writes what changed, once a second, and removes what is gone. What the store refuses is tried again each time.
pub(super) async fn run<S: Service>(service: Rc<S>) {
    let store = service.store();
    let mut written: BTreeMap<String, String> = BTreeMap::new();
    let mut refusals = Refusals::default();
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
                log::debug!("{path} not removed: {error}");
            }
        }
        let mut refusal = None;
        for (name, text) in lines {
            if written.get(&name) == Some(&text) {
                continue;
            }
            match store.write(Transaction::NONE, &node(&name), text.as_bytes()).await {
                Ok(()) => {
                    written.insert(name, text);
                }
                Err(StoreError::Closed) => return,
                Err(error) => refusal = Some(error),
            }
        }
        match refusals.note(refusal) {
            Some(News::Refuses(error)) => log::warn!("statistics are not written: {error}; trying again each second"),
            Some(News::TakesAll) => log::info!("statistics are written again"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_said_once_and_so_is_its_end() {
        let mut refusals = Refusals::default();
        let quota = Some(StoreError::Quota);
        let news = [None, quota, quota, Some(StoreError::Denied), None, None, quota].map(|seen| refusals.note(seen));
        let refuses = Some(News::Refuses(StoreError::Quota));
        assert_eq!(news, [None, refuses, None, None, Some(News::TakesAll), None, refuses]);
    }
}
