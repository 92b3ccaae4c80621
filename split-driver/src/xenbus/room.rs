//! Whether the store has room for more nodes of this domain. Pure over the store's trait. Floor 1.
//!
//! No request tells a guest its quota, and where an administrator raised it, the default says nothing. So it is tried: nodes in a row, one
//! below the other, are made by one write, and removed again.

use alloc::vec::Vec;
use core::cell::Cell;

use crate::store::{Store, StoreError, Transaction};

/// With fewer nodes, nothing is tried: the lowest default is 1,000 (C xenstored, oxenstored).
const FEW: usize = 200;
/// A tenth more or fewer nodes are worth another try: the last one looked further, and each costs the store the work of hundreds of nodes.
const PART: usize = 10;
/// Nodes that are made to try, at most: a quarter of those of a domain that has 800 of xenstored's 1,000. C xenstored limits the rate of
/// writes: a domain may make some 1,000 nodes at once and 200 a second, removals count as well, and it waits when it has used that up. With
/// 400 nodes it did, for seconds in which devices were attached.
const TRIED_MAX: usize = 200;
/// Where they are made.
const TOP: &str = "data/room";

/// What was found of the room for nodes.
#[derive(Debug, Default)]
pub struct NodeRoom {
    /// The nodes that the domain had at the last try.
    at: Cell<usize>,
    short: Cell<bool>,
}

impl NodeRoom {
    /// Nothing was tried yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether a domain that has `nodes` in its devices' directories may not have a quarter more (200 at most). Asks the store where that
    /// number has changed since; where there was no room, also `again`.
    ///
    /// # Errors
    /// Why it could not be tried.
    pub async fn is_short(&self, store: &impl Store, nodes: usize, again: bool) -> Result<bool, StoreError> {
        let changed = nodes.abs_diff(self.at.get()) >= nodes.div_ceil(PART);
        if nodes < FEW {
            self.short.set(false);
            self.at.set(0);
        } else if changed || again && self.short.get() {
            self.short.set(!has_room(store, nodes.div_ceil(4).min(TRIED_MAX)).await?);
            self.at.set(nodes);
        }
        Ok(self.short.get())
    }
}

/// Whether the store lets the domain have `count` more nodes.
async fn has_room(store: &impl Store, count: usize) -> Result<bool, StoreError> {
    let path = [TOP].into_iter().chain((1..count).map(|_| "r")).collect::<Vec<_>>().join("/");
    let made = store.write(Transaction::NONE, &path, b"").await;
    // oxenstored leaves those that it made before it refused the next.
    let removed = store.remove(Transaction::NONE, TOP).await;
    match (made, removed) {
        (Ok(()), Ok(())) => Ok(true),
        (Err(StoreError::Quota), Ok(()) | Err(StoreError::NotFound)) => Ok(false),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

#[cfg(all(test, feature = "fakes", not(loom)))]
mod tests {
    use super::*;
    use crate::fakes::{FakeStore, StoreQuotas, block_on};
    use alloc::format;
    use xen_pv_sys::DomainId;

    const US: DomainId = DomainId(5);

    fn store_with(nodes: usize) -> FakeStore {
        let store = FakeStore::new();
        store.add_domain(US);
        for number in 1..nodes {
            store.put(&format!("/local/domain/5/data/{number}"), "", &["n5"]);
        }
        store
    }

    fn quota(nodes: usize) -> StoreQuotas {
        StoreQuotas { nodes, ..StoreQuotas::default() }
    }

    #[test]
    fn the_quota_that_there_is_counts() {
        // `data` and `error` are the domain's, too.
        let store = store_with(810);
        let connection = store.connection(US);
        let room = NodeRoom::new();
        let is_short = |nodes, again| block_on(room.is_short(&connection, nodes, again));
        assert_eq!(is_short(720, false), Ok(false));
        assert_eq!(store.paths("/local/domain/5/data").len(), 810, "all is removed again");
        assert_eq!(is_short(810, false), Ok(true));
        // Raised: nothing is said of it, so it is tried again.
        store.set_quotas(quota(6000));
        assert_eq!(is_short(810, false), Ok(true));
        assert_eq!(is_short(810, true), Ok(false));
        // Lowered, and looked at with the next device.
        store.set_quotas(quota(850));
        assert_eq!((is_short(880, false), is_short(900, false)), (Ok(false), Ok(true)));
        assert_eq!(is_short(100, false), Ok(false));
    }

    #[test]
    fn few_nodes_cost_no_request() {
        let store = store_with(10);
        let connection = store.connection(US);
        let before = store.counts();
        assert_eq!(block_on(NodeRoom::new().is_short(&connection, 199, true)), Ok(false));
        assert_eq!(store.counts(), before);
    }

    #[test]
    fn a_device_more_among_many_costs_no_request() {
        let store = store_with(799);
        let connection = store.connection(US);
        let room = NodeRoom::new();
        store.set_quotas(quota(6000));
        assert_eq!(block_on(room.is_short(&connection, 790, false)), Ok(false));
        let before = store.counts();
        assert_eq!(block_on(room.is_short(&connection, 840, false)), Ok(false));
        assert_eq!(store.counts(), before);
    }

    #[test]
    fn of_thousands_of_nodes_a_small_part_is_tried() {
        let store = store_with(10);
        store.set_quotas(quota(250));
        let connection = store.connection(US);
        assert_eq!(block_on(NodeRoom::new().is_short(&connection, 5000, false)), Ok(false));
    }
}
