//! What the toolstack asks for through `control/shutdown`, and ending the domain. Safe code. Floor 2.

use crate::end::{self, Exit};
use alloc::string::String;
use futures_util::future::join3;
use split_driver::store::{Store, StoreError, Transaction, Watch, transaction};

/// Where the toolstack writes what it wants.
const NODE: &str = "control/shutdown";

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

impl core::fmt::Display for Kind {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(match self {
            Self::PowerOff => "poweroff",
            Self::Reboot => "reboot",
            Self::Halt => "halt",
        })
    }
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
        log::debug!("{feature}: {error}");
    }
}

impl<S: Store> Requests<S> {
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
                Err(error) => log::warn!("{NODE}: {error}"),
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
        transaction(&self.store, async |transaction| self.take_within(transaction).await).await
    }

    async fn take_within(&self, transaction: Transaction) -> Result<Option<Kind>, StoreError> {
        let value = self.store.read_optional(transaction, NODE).await?.unwrap_or_default();
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

/// Ends the domain as asked. Devices must be quiet: nothing of the domain runs after this.
pub fn finish(kind: Kind) -> ! {
    end::exit(match kind {
        Kind::PowerOff | Kind::Halt => Exit::PowerOff,
        Kind::Reboot => Exit::Reboot,
    })
}
