//! Both of a device's directories in the store, as its frontend reads and writes them.

use crate::error::{Error, Result};
use alloc::format;
use alloc::string::String;
use core::str::FromStr;
use runtime::time::{Duration, timeout};
use split_driver::store::{Store, StoreError, Transaction, Watch, parse, transaction};
use split_driver::xenstore_client::Client;
use xen_pv_sys::DomainId;
use xen_pv_sys::io::xenbus::XenbusState;

/// How long anything may take on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A device of ours.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) store: Client,
    pub(crate) path: String,
    pub(crate) backend: String,
    pub(crate) domain: DomainId,
}

impl Device {
    /// Reads what the toolstack wrote: `path` is `device/vif/0`, say.
    pub(crate) async fn find(store: &Client, path: String) -> Result<Self> {
        let domain = text(store, &format!("{path}/backend-id")).await?.parse().map_err(|_| Error::Text)?;
        let backend = text(store, &format!("{path}/backend")).await?;
        Ok(Self { store: store.clone(), path, backend, domain: DomainId(domain) })
    }

    /// A node of ours.
    pub(crate) async fn read(&self, node: &str) -> Result<String> {
        text(&self.store, &format!("{}/{node}", self.path)).await
    }

    /// Writes a node of ours.
    pub(crate) async fn write(&self, node: &str, value: &str) -> Result<()> {
        Ok(self.store.write(Transaction::NONE, &format!("{}/{node}", self.path), value.as_bytes()).await?)
    }

    /// Removes a node of ours, where there is one.
    pub(crate) async fn remove(&self, node: &str) -> Result<()> {
        match self.store.remove(Transaction::NONE, &format!("{}/{node}", self.path)).await {
            Ok(()) | Err(StoreError::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes nodes of ours together with the state.
    pub(crate) async fn write_with_state(&self, nodes: &[(String, String)], state: XenbusState) -> Result<()> {
        let Self { store, path, .. } = self;
        let written = transaction(store, async |transaction| {
            for (node, value) in nodes {
                store.write(transaction, &format!("{path}/{node}"), value.as_bytes()).await?;
            }
            store.write_text(transaction, &format!("{path}/state"), &(state as u8)).await
        });
        Ok(written.await?)
    }

    pub(crate) async fn set_state(&self, state: XenbusState) -> Result<()> {
        self.write("state", &format!("{}", state as u8)).await
    }

    /// A number in the backend's directory; 0 where there is none.
    pub(crate) async fn backend_number<T: FromStr + Default>(&self, node: &str) -> Result<T> {
        let value = self.store.read_optional(Transaction::NONE, &format!("{}/{node}", self.backend)).await?;
        Ok(value.and_then(|value| parse(&value)).unwrap_or_default())
    }

    pub(crate) async fn backend_state(&self) -> Result<XenbusState> {
        Ok(XenbusState::from_number(self.backend_number("state").await?))
    }

    /// Waits until the backend is in one of these states.
    pub(crate) async fn wait_for(&self, states: &[XenbusState]) -> Result<()> {
        let mut watch = self.store.watch(&format!("{}/state", self.backend)).await?;
        let reached = async {
            while !states.contains(&self.backend_state().await?) {
                watch.next().await;
            }
            Ok(())
        };
        timeout(PATIENCE, reached).await?
    }

    /// Waits until the backend has closed the device.
    pub(crate) async fn wait_for_end(&self) -> Result<()> {
        self.wait_for(&[XenbusState::Closing, XenbusState::Closed]).await
    }

    /// The way back to where a frontend begins, from wherever both ends are.
    pub(crate) async fn begin_anew(&self) -> Result<()> {
        self.set_state(XenbusState::Closed).await?;
        self.wait_for(&[XenbusState::Closed]).await?;
        self.set_state(XenbusState::Initialising).await?;
        self.wait_for(&[XenbusState::InitWait]).await
    }
}

async fn text(store: &Client, path: &str) -> Result<String> {
    String::from_utf8(store.read(Transaction::NONE, path).await?).map_err(|_| Error::Text)
}
