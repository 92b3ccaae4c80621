//! Statistics in the store: one line for each thing that counts, under `data/statistics/`, what is on loan, and what was
//! asked of Xen. Safe code only. Floor 2.
//!
//! Each thing that counts is one node, however much it counts, so that many frontends do not come near the store's quota of nodes. Those of
//! devices lie below their frontend's domain, as backends do: C xenstored lets a node have 2,048 bytes, its children's names among them.

use super::{DriverDomain, Options, counted, resources};
use crate::time::{self, Duration};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Bound::{Excluded, Included, Unbounded};
use split_driver::store::{Store, StoreError, Transaction};

/// How often nodes are written at most.
const INTERVAL: Duration = Duration::from_secs(1);

/// Nodes that are written and removed each time, at most. C xenstored lets a domain write some 200 nodes a second for long, and serves it
/// nothing for a while when it writes more: the rest is left to devices that come and go.
const A_ROUND: usize = 50;

/// The name under which what the domain has on loan is kept beside the statistics.
const RESOURCES: &str = "resources";

/// The name under which what was asked of Xen and of devices is kept there, where the word `profile=on` asks for it.
const COUNTS: &str = "counts";

/// Where a line is; those of the domain as a whole lie beside the statistics.
fn node(name: &str) -> String {
    if [RESOURCES, COUNTS].contains(&name) { format!("data/{name}") } else { format!("data/statistics/{name}") }
}

/// What the log is told of a store that refuses lines: once that it does, and once that it takes all of them again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    Refuses(StoreError),
    TakesAll,
}

/// What the store has been told.
#[derive(Debug, Default)]
struct Report {
    written: BTreeMap<String, String>,
    /// Names of lines that it refused the last time.
    refused: BTreeSet<String>,
    /// The name that was written last: the next time goes on behind it, so that each line has its turn.
    last: String,
}

impl Report {
    /// Removes what is gone and writes what changed, [`A_ROUND`] at most. What the store refuses is tried again the next time.
    ///
    /// # Errors
    /// [`StoreError::Closed`] where there is no store any longer.
    async fn tell(&mut self, store: &impl Store, lines: &BTreeMap<String, String>) -> Result<Option<News>, StoreError> {
        let refused_before = !self.refused.is_empty();
        let removed = self.remove_gone(store, lines).await?;
        let mut refusal = None;
        let behind = lines.range::<str, _>((Excluded(self.last.as_str()), Unbounded));
        let before = lines.range::<str, _>((Unbounded, Included(self.last.as_str())));
        let changed = behind.chain(before).filter(|(name, text)| self.written.get(*name) != Some(*text));
        let due: Vec<(String, String)> =
            changed.take(A_ROUND.saturating_sub(removed)).map(|(name, text)| (name.clone(), text.clone())).collect();
        for (name, text) in due {
            match store.write(Transaction::NONE, &node(&name), text.as_bytes()).await {
                Ok(()) => {
                    self.refused.remove(&name);
                    self.written.insert(name.clone(), text);
                }
                Err(StoreError::Closed) => return Err(StoreError::Closed),
                Err(error) => {
                    self.refused.insert(name.clone());
                    refusal = Some(error);
                }
            }
            self.last = name;
        }
        Ok(match refusal {
            Some(error) if !refused_before => Some(News::Refuses(error)),
            None if refused_before && self.refused.is_empty() => Some(News::TakesAll),
            _ => None,
        })
    }

    /// Removes nodes without a line, and directories below which none is left. Says how many requests that took.
    async fn remove_gone(&mut self, store: &impl Store, lines: &BTreeMap<String, String>) -> Result<usize, StoreError> {
        self.refused.retain(|name| lines.contains_key(name));
        let (mut removed, mut last) = (0, String::new());
        while removed < A_ROUND
            && let Some(gone) = self.next_gone(&last, lines)
        {
            let top = highest_unused(&gone, lines);
            let path = node(&top);
            match store.remove(Transaction::NONE, &path).await {
                Ok(()) | Err(StoreError::NotFound) => {
                    self.written.retain(|name, _| *name != top && !is_below(name, &top));
                }
                Err(StoreError::Closed) => return Err(StoreError::Closed),
                Err(error) => log::debug!("{path} not removed, to be tried again: {error}"),
            }
            (removed, last) = (removed + 1, gone);
        }
        Ok(removed)
    }

    /// The first written name behind `last` that has no line.
    fn next_gone(&self, last: &str, lines: &BTreeMap<String, String>) -> Option<String> {
        let mut behind = self.written.range::<str, _>((Excluded(last), Unbounded));
        behind.find(|(name, _)| !lines.contains_key(*name)).map(|(name, _)| name.clone())
    }
}

fn is_below(name: &str, top: &str) -> bool {
    name.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'))
}

/// Of `name` and the directories that it is in, the highest that no line is in.
fn highest_unused(name: &str, lines: &BTreeMap<String, String>) -> String {
    let directories = name.match_indices('/').filter_map(|(end, _)| name.get(..end));
    let unused = |top: &&str| !lines.keys().any(|line| line == top || is_below(line, top));
    directories.chain([name]).find(unused).unwrap_or(name).into()
}

/// Writes what changed, once a second, and removes what is gone.
pub(super) async fn run<S: DriverDomain>(service: Rc<S>, options: Options) {
    let store = service.store();
    let mut report = Report::default();
    loop {
        time::sleep(INTERVAL).await;
        let mut lines: BTreeMap<String, String> = service.statistics().into_iter().collect();
        lines.insert(RESOURCES.into(), resources(&*service));
        if options.profile {
            lines.insert(COUNTS.into(), counted());
        }
        match report.tell(store, &lines).await {
            Ok(Some(News::Refuses(error))) => {
                log::warn!("statistics are not written: {error}; trying again each second");
            }
            Ok(Some(News::TakesAll)) => log::info!("statistics are written again"),
            Ok(None) => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use split_driver::fakes::{FakeStore, StoreQuotas, block_on};
    use xen_pv_sys::DomainId;

    const US: DomainId = DomainId(5);
    const TOP: &str = "/local/domain/5/data/statistics";

    fn store() -> FakeStore {
        let store = FakeStore::new();
        store.add_domain(US);
        store
    }

    /// Lines of `count` vifs of one domain.
    fn vifs(domain: u32, count: u32, text: &str) -> BTreeMap<String, String> {
        (0..count).map(|handle| (format!("vif/{domain}/{handle}"), text.into())).collect()
    }

    #[test]
    fn a_refusal_is_said_once_and_so_is_its_end() {
        let store = store();
        let (connection, mut report) = (store.connection(US), Report::default());
        let lines = vifs(3, 120, "1");
        let mut tell = || block_on(report.tell(&connection, &lines)).unwrap();
        let default = StoreQuotas::default();
        store.set_quotas(StoreQuotas { nodes: 60, ..default });
        assert_eq!((tell(), tell(), tell()), (None, Some(News::Refuses(StoreError::Quota)), None));
        store.set_quotas(default);
        assert_eq!([tell(), tell(), tell()].iter().flatten().collect::<Vec<_>>(), [&News::TakesAll]);
        assert_eq!(store.paths(TOP).len(), 123);
    }

    /// A store that limits the rate of writes is not asked for more than it takes, and each line has its turn.
    #[test]
    fn a_round_is_bounded_and_all_have_their_turn() {
        let store = store();
        let (connection, mut report) = (store.connection(US), Report::default());
        for round in 0..8 {
            let (before, _) = store.counts();
            block_on(report.tell(&connection, &vifs(3, 120, &format!("{round}")))).unwrap();
            let (after, _) = store.counts();
            assert_eq!(after - before, A_ROUND as u64);
        }
        let values =
            (0..120).map(|handle| store.get(&format!("{TOP}/vif/3/{handle}")).unwrap().parse::<u32>().unwrap());
        assert!(values.clone().all(|round| round >= 5), "{values:?}", values = values.clone().collect::<Vec<_>>());
        let (before, _) = store.counts();
        block_on(report.tell(&connection, &BTreeMap::new())).unwrap();
        assert_eq!((store.counts().0 - before, store.paths(TOP)), (1, Vec::from([TOP.into()])));
    }

    #[test]
    fn what_is_gone_is_removed_with_its_directory() {
        let store = store();
        let (connection, mut report) = (store.connection(US), Report::default());
        let mut lines = vifs(3, 2, "1");
        lines.extend(vifs(33, 1, "1"));
        lines.insert("nic".into(), "1".into());
        block_on(report.tell(&connection, &lines)).unwrap();
        lines.remove("vif/3/0");
        block_on(report.tell(&connection, &lines)).unwrap();
        let below = |store: &FakeStore| -> Vec<String> {
            let paths = store.paths(TOP).into_iter();
            paths.filter_map(|path| Some(path.strip_prefix(TOP)?.strip_prefix('/')?.into())).collect()
        };
        assert_eq!(below(&store), ["nic", "vif", "vif/3", "vif/3/1", "vif/33", "vif/33/0"]);
        lines.remove("vif/3/1");
        block_on(report.tell(&connection, &lines)).unwrap();
        assert_eq!(below(&store), ["nic", "vif", "vif/33", "vif/33/0"]);
        // What the store does not remove now keeps no other node, and goes later.
        store.set_busy(Some(&format!("{TOP}/nic")));
        lines.clear();
        lines.insert("vif/33/1".into(), "1".into());
        block_on(report.tell(&connection, &lines)).unwrap();
        assert_eq!(below(&store), ["nic", "vif", "vif/33", "vif/33/1"]);
        store.set_busy(None);
        block_on(report.tell(&connection, &lines)).unwrap();
        assert_eq!(below(&store), ["vif", "vif/33", "vif/33/1"]);
    }
}
