//! What a device's task writes into the store. Pure over the store's trait. Floor 1.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;

use futures_util::future::join_all;
use xen_pv_sys::io::xenbus::XenbusState;

use super::{Backend, End, Phase, Session, Store, StoreError, Timer, Transaction, parse, retry_after, state};
use crate::store::transaction;

/// The outcome of writing into our directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    Done,
    /// Somebody else wrote `state`: look again. Nothing was written.
    Overtaken,
}

/// A node to be written, or removed where there is no value.
pub(super) type Entry<'a> = (&'a str, Option<&'a str>);

/// Nodes to be written, as [`Session::publish`] takes them.
fn entries(writes: &BTreeMap<String, String>) -> Vec<Entry<'_>> {
    writes.iter().map(|(name, value)| (name.as_str(), Some(value.as_str()))).collect()
}

impl<S: Store, T: Timer, B: Backend> Session<'_, S, T, B> {
    /// Counts the nodes of our directory, and itself.
    pub(super) async fn count_nodes(&self) {
        if let Ok(names) = self.context.store.directory(Transaction::NONE, &self.path).await {
            self.mailbox.set_nodes(names.len() + 1);
        }
    }

    pub(super) async fn enter(&mut self, phase: Phase) -> Result<(), End> {
        if self.publish(phase.state(), &[]).await? == Written::Done {
            self.phase = phase;
        }
        Ok(())
    }

    /// Writes what the data path asked for, with our state. What could not be written is asked for still.
    pub(super) async fn publish_writes(&mut self, state: XenbusState) -> Result<(), End> {
        let (connection, writes) = self.mailbox.take_writes();
        let stale = self.stale.clone();
        let gone = stale.iter().filter(|name| !writes.contains_key(*name)).map(|name| (name.as_str(), None));
        let entries: Vec<_> = entries(&writes).into_iter().chain(gone).collect();
        let written = self.publish(state, &entries).await;
        if written == Ok(Written::Done) {
            self.stale.clear();
            self.properties.extend(writes.into_keys());
        } else {
            self.mailbox.return_writes(connection, writes);
        }
        written.map(|_| ())
    }

    /// Writes our state and other nodes at once.
    pub(super) async fn publish(&mut self, state: XenbusState, entries: &[Entry<'_>]) -> Result<Written, End> {
        match self.write_entries(state, entries).await {
            Ok(Written::Done) => {
                self.state = state;
                Ok(Written::Done)
            }
            Err(StoreError::NotFound) => Err(End::Gone),
            other => Ok(other?),
        }
    }

    /// In one transaction, and only while our `state` node says what we last knew of it: a directory that is gone must not come back to
    /// life, and what the toolstack wrote must not be lost.
    async fn write_entries(&self, new: XenbusState, entries: &[Entry<'_>]) -> Result<Written, StoreError> {
        let store = &self.context.store;
        let state_path = format!("{}/state", self.path);
        self.transact(async |transaction| {
            let now = store.read(transaction, &state_path).await?;
            if state(Some(&now)) != self.state {
                return Ok(Written::Overtaken);
            }
            // All on their way at once: a device's offer is a dozen nodes.
            let changes = entries.iter().map(|(name, value)| async move {
                let path = format!("{}/{name}", self.path);
                match value {
                    Some(value) => store.write(transaction, &path, value.as_bytes()).await,
                    None => match store.remove(transaction, &path).await {
                        Err(StoreError::NotFound) => Ok(()),
                        other => other,
                    },
                }
            });
            for change in join_all(changes).await {
                change?;
            }
            store.write_text(transaction, &state_path, &(new as u8)).await?;
            Ok(Written::Done)
        })
        .await
    }

    /// Does `body` in a transaction when it is this device's turn. Where the store opens none for now, it is asked again later.
    async fn transact<R>(
        &self,
        mut body: impl AsyncFnMut(Transaction) -> Result<R, StoreError>,
    ) -> Result<R, StoreError> {
        // Kept until it is done, so that few ask a store that refuses.
        let _turn = self.context.transactions.take().await;
        let mut attempt = 0;
        loop {
            let opened = Cell::new(false);
            let outcome = transaction(&self.context.store, async |transaction| {
                opened.set(true);
                body(transaction).await
            })
            .await;
            match outcome {
                Err(error) if error.is_transient() && !opened.get() => {
                    attempt += 1;
                    log::debug!("{self}: no transaction: {error}, trying again");
                    self.context.timer.sleep(retry_after(attempt)).await;
                }
                other => return other,
            }
        }
    }

    /// Closed, and not wanted any more: deletes our directory, when the toolstack has had time to see the `Closed`.
    pub(super) async fn remove(&mut self) -> Result<(), End> {
        let timer = &self.context.timer;
        let departure = self.context.departures.begin(self.id.frontend, timer.now());
        while let Some(delay) = departure.poll_delay(&self.context.timing, timer.now()) {
            timer.sleep(delay).await;
        }
        let store = &self.context.store;
        let state_path = format!("{}/state", self.path);
        let online_path = format!("{}/online", self.path);
        self.transact(async |transaction| {
            let now = store.read(transaction, &state_path).await?;
            let online = store.read(transaction, &online_path).await?;
            if state(Some(&now)) == XenbusState::Closed && parse::<u32>(&online) == Some(0) {
                store.remove(transaction, &self.path).await?;
            }
            Ok(())
        })
        .await
        .or_else(|error| match error {
            StoreError::NotFound => Ok(()),
            other => Err(other),
        })?;
        Ok(())
    }
}
