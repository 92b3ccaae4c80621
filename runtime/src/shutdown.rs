//! What the toolstack asks for through `control/shutdown`, waiting for frontends, and ending the domain. Safe code. Floor 2.

use crate::hypercall::{self, Exit};
use crate::select::{Either, select};
use crate::time::{self, Duration};
use alloc::format;
use alloc::string::String;
use futures_util::future::join3;
use split_driver::store::{Store, StoreError, Transaction, Watch};

/// Where the toolstack writes what it wants.
const NODE: &str = "control/shutdown";

/// The backends of this domain: `backend/KIND/DOMAIN/DEVICE`. Others make the directories.
const BACKENDS: &str = "backend";
/// `XenbusStateConnected` as it stands in the store.
const CONNECTED: &[u8] = b"4";
/// How long a domain that is to power off goes on serving devices that are in use.
const SERVES_ON: Duration = Duration::from_secs(120);
/// How long the changes of a device are gathered before all devices are looked at again.
const GATHERS: Duration = Duration::from_millis(250);

/// What `xl shutdown`, `xl reboot` and their like ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `poweroff`.
    PowerOff,
    /// `reboot`.
    Reboot,
    /// `halt`: as `poweroff` for a domain.
    Halt,
}

/// Follows `control/shutdown`.
pub struct Requests<S: Store> {
    store: S,
    watch: S::Watch,
}

/// Says that this domain obeys a request.
async fn obey(store: &impl Store, feature: &str) {
    // Older toolstacks do not let a domain write these; what they are for is not asked there either.
    if let Err(error) = store.write(Transaction::NONE, feature, b"1").await {
        log::debug!("{feature}: {error:?}");
    }
}

impl<S: Store + Clone> Requests<S> {
    /// Says what this domain obeys, and watches for it.
    ///
    /// # Errors
    /// What the store answers.
    pub async fn new(store: S) -> Result<Self, StoreError> {
        let (watch, (), ()) =
            join3(store.watch(NODE), obey(&store, "control/feature-poweroff"), obey(&store, "control/feature-reboot"))
                .await;
        Ok(Self { watch: watch?, store })
    }

    /// Waits for a request that is obeyed, and acknowledges it by emptying the node. A suspension is not supported: it is not
    /// acknowledged, so the toolstack gives it up.
    pub async fn requested(&mut self) -> Kind {
        loop {
            self.watch.next().await;
            match self.take().await {
                Ok(Some(kind)) => return kind,
                Ok(None) => {}
                Err(error) => log::warn!("{NODE}: {error:?}"),
            }
        }
    }

    /// Waits, once a power-off was requested, until no frontend uses a device of this domain any longer. A host that shuts down asks all of
    /// its domains at once, and a guest has still to write to its disk then. It ends after [`SERVES_ON`] at the latest, and at once when
    /// the toolstack asks again; gives what it asked for last.
    pub async fn wait_for_frontends(&mut self, requested: Kind) -> Kind {
        let (Kind::PowerOff | Kind::Halt) = requested else {
            return requested;
        };
        let store = self.store.clone();
        let Ok(mut changes) = store.watch(BACKENDS).await else {
            return requested;
        };
        let deadline = time::now() + SERVES_ON;
        let mut said = false;
        loop {
            let in_use = devices_in_use(&store).await;
            if in_use == 0 {
                return requested;
            }
            if !core::mem::replace(&mut said, true) {
                log::info!(
                    "{in_use} devices are in use: this domain goes on until they are not, for {} s at most; ask again to end it now",
                    SERVES_ON.as_secs()
                );
            }
            let change = async {
                changes.next().await;
                time::sleep(GATHERS).await;
            };
            match time::timeout_at(deadline, select(self.requested(), change)).await {
                Ok(Either::First(again)) => return again,
                Ok(Either::Second(())) => {}
                Err(time::Elapsed) => {
                    log::warn!("{in_use} devices are still in use");
                    return requested;
                }
            }
        }
    }

    /// Reads the request and empties the node, in one transaction.
    async fn take(&self) -> Result<Option<Kind>, StoreError> {
        // Mostly there is none: an event of the watch's own, or of our acknowledgement.
        match self.store.read(Transaction::NONE, NODE).await {
            Err(StoreError::NotFound) => return Ok(None),
            Ok(value) if value.is_empty() => return Ok(None),
            _ => {}
        }
        loop {
            let transaction = self.store.start().await?;
            let taken = self.take_within(transaction).await;
            let commit = matches!(taken, Ok(Some(_)));
            match self.store.end(transaction, commit).await {
                Err(StoreError::Conflict) => {}
                Err(error) if commit => return Err(error),
                _ => return taken,
            }
        }
    }

    async fn take_within(&self, transaction: Transaction) -> Result<Option<Kind>, StoreError> {
        let value = match self.store.read(transaction, NODE).await {
            Ok(value) => value,
            Err(StoreError::NotFound) => return Ok(None),
            Err(error) => return Err(error),
        };
        let kind = match value.as_slice() {
            b"" => return Ok(None),
            b"poweroff" => Kind::PowerOff,
            b"reboot" => Kind::Reboot,
            b"halt" => Kind::Halt,
            b"suspend" => {
                log::warn!("the toolstack asks to suspend: this domain cannot, and goes on");
                return Ok(None);
            }
            other => {
                log::warn!("{NODE}: unknown: {:?}", String::from_utf8_lossy(other));
                return Ok(None);
            }
        };
        self.store.write(transaction, NODE, b"").await?;
        Ok(Some(kind))
    }
}

/// How many devices of this domain frontends are connected to. What cannot be read is taken for gone.
async fn devices_in_use(store: &impl Store) -> usize {
    let list = async |path: &str| store.directory(Transaction::NONE, path).await.unwrap_or_default();
    let mut in_use = 0;
    for kind in list(BACKENDS).await {
        let kind = format!("{BACKENDS}/{kind}");
        for domain in list(&kind).await {
            let domain = format!("{kind}/{domain}");
            for device in list(&domain).await {
                let state = store.read(Transaction::NONE, &format!("{domain}/{device}/state")).await;
                in_use += usize::from(state.is_ok_and(|state| state == CONNECTED));
            }
        }
    }
    in_use
}

/// Ends the domain as asked. Devices must be quiet: nothing of the domain runs after this.
pub fn finish(kind: Kind) -> ! {
    hypercall::exit(match kind {
        Kind::PowerOff | Kind::Halt => Exit::PowerOff,
        Kind::Reboot => Exit::Reboot,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use split_driver::fakes::{FakeStore, block_on};
    use xen_pv_sys::DomainId;

    #[test]
    fn devices_are_in_use_while_a_frontend_is_connected() {
        let store = FakeStore::new();
        let own = DomainId(5);
        store.add_domain(own);
        let in_use = || block_on(devices_in_use(&store.connection(own)));
        assert_eq!(in_use(), 0);
        let state = |device: &str, state: &str| {
            store.put(&format!("/local/domain/5/backend/{device}/state"), state, &["n5"]);
        };
        state("vif/7/0", "4");
        state("vif/7/1", "2");
        state("vbd/8/51712", "4");
        store.put("/local/domain/5/backend/vbd/9", "", &["n5"]);
        assert_eq!(in_use(), 2);
        state("vbd/8/51712", "6");
        store.delete("/local/domain/5/backend/vif/7");
        assert_eq!(in_use(), 0);
    }
}
