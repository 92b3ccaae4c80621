//! The xenstore as a backend sees it, so that no driver knows a transport. Pure. Floor 1.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;
use core::pin::pin;
use core::str::FromStr;
use core::task::{Context, Waker};

/// Why the store refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// `ENOENT`: no such node.
    NotFound,
    /// `EACCES`.
    Denied,
    /// `EAGAIN`: the transaction met a conflict.
    Conflict,
    /// `ENOSPC`, oxenstored's `EQUOTA`, and `E2BIG` to a watch: a quota of the store.
    Quota,
    /// The request is longer than the protocol allows, or `E2BIG`: its answer is. It never succeeds.
    TooLong,
    /// Another error of `xs_wire.h`, by its errno.
    Errno(u16),
    /// The answer breaks the protocol, or the value is not what the caller asked for (not a number, not UTF-8).
    Malformed,
    /// The connection to the store is gone.
    Closed,
}

impl core::fmt::Display for StoreError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NotFound => formatter.write_str("no such node"),
            Self::Denied => formatter.write_str("the store denies access"),
            Self::Conflict => formatter.write_str("the transaction met a conflict"),
            Self::Quota => formatter.write_str("a quota of the store is reached"),
            Self::TooLong => formatter.write_str("longer than the store's protocol allows"),
            Self::Errno(value) => write!(formatter, "the store refused with errno {value}"),
            Self::Malformed => formatter.write_str("the answer or the value is malformed"),
            Self::Closed => formatter.write_str("the connection to the store is closed"),
        }
    }
}

impl core::error::Error for StoreError {}

/// `ENOMEM` and `EBUSY` of `errno.h`.
const ENOMEM: u16 = 12;
const EBUSY: u16 = 16;

impl StoreError {
    /// Whether the store refused for now: the same request may be served later.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Conflict | Self::Quota | Self::Errno(ENOMEM | EBUSY))
    }
}

/// A transaction's id; [`Transaction::NONE`] for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction(pub u32);

impl Transaction {
    /// Outside any transaction.
    pub const NONE: Self = Self(0);
}

/// Events of one watch; unregistered by `Drop`.
#[expect(async_fn_in_trait, reason = "one thread: no future needs to be Send")]
pub trait Watch {
    /// The path that changed, as the store reports it. The first event comes at once. Events of one path may be merged; a flood of
    /// many paths may be merged into one event of the watched path itself, which then stands for all below. Dropping the future
    /// loses no event.
    async fn next(&mut self) -> String;
}

/// The xenstore. Paths are absolute, or relative to `/local/domain/<self>`.
#[expect(async_fn_in_trait, reason = "one thread: no future needs to be Send")]
pub trait Store {
    /// A registered watch.
    type Watch: Watch;
    /// The value of a node.
    async fn read(&self, transaction: Transaction, path: &str) -> Result<Vec<u8>, StoreError>;
    /// Writes a node, making it and its parents where missing.
    async fn write(&self, transaction: Transaction, path: &str, value: &[u8]) -> Result<(), StoreError>;
    /// The names below a node, however many (larger than one payload too).
    async fn directory(&self, transaction: Transaction, path: &str) -> Result<Vec<String>, StoreError>;
    /// Removes a node with all below it. [`StoreError::NotFound`] where its parent is missing too.
    async fn remove(&self, transaction: Transaction, path: &str) -> Result<(), StoreError>;
    /// The node's permission entries as on the wire (`n0`, `r5`), the owner's first.
    async fn permissions(&self, transaction: Transaction, path: &str) -> Result<Vec<String>, StoreError>;
    /// Sets the node's permission entries.
    async fn set_permissions(&self, transaction: Transaction, path: &str, entries: &[&str]) -> Result<(), StoreError>;
    /// Opens a transaction.
    async fn start(&self) -> Result<Transaction, StoreError>;
    /// Ends it. [`StoreError::Conflict`] where the commit must be tried again from the start.
    async fn end(&self, transaction: Transaction, commit: bool) -> Result<(), StoreError>;
    /// Watches a path and all below it.
    async fn watch(&self, path: &str) -> Result<Self::Watch, StoreError>;

    /// The value of a node, none where there is no such node.
    async fn read_optional(&self, transaction: Transaction, path: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match self.read(transaction, path).await {
            Ok(value) => Ok(Some(value)),
            Err(StoreError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The value of a node as what it says. [`StoreError::Malformed`] where it says something else.
    async fn read_parsed<T: FromStr>(&self, transaction: Transaction, path: &str) -> Result<T, StoreError> {
        parse(&self.read(transaction, path).await?).ok_or(StoreError::Malformed)
    }

    /// Writes a node as the text of `value`.
    async fn write_text(&self, transaction: Transaction, path: &str, value: &dyn Display) -> Result<(), StoreError> {
        self.write(transaction, path, value.to_string().as_bytes()).await
    }
}

/// What a node's value says, none where it is not that.
pub fn parse<T: FromStr>(value: &[u8]) -> Option<T> {
    str::from_utf8(value).ok()?.parse().ok()
}

/// How often a transaction is tried. Whoever fails as often meets a peer that writes without pause.
const ATTEMPTS_MAX: u32 = 100;

/// Does `body` in a transaction and commits; again from the start where the commit met a conflict. An error of `body`, or dropping
/// the future, aborts.
///
/// # Errors
/// Of `body`, of the store, or [`StoreError::Conflict`] after very many attempts.
pub async fn transaction<S: Store, T>(
    store: &S,
    mut body: impl AsyncFnMut(Transaction) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    for _ in 0..ATTEMPTS_MAX {
        let mut open = Open { store, transaction: Some(store.start().await?) };
        let id = open.transaction.unwrap_or(Transaction::NONE);
        let result = body(id).await;
        open.transaction = None;
        match result {
            Ok(value) => match store.end(id, true).await {
                Ok(()) => return Ok(value),
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            },
            Err(error) => {
                // What it aborts never happened, so how the abort went is of no interest.
                let _ = store.end(id, false).await;
                if error != StoreError::Conflict {
                    return Err(error);
                }
            }
        }
    }
    Err(StoreError::Conflict)
}

/// A transaction that `Drop` aborts.
struct Open<'a, S: Store> {
    store: &'a S,
    transaction: Option<Transaction>,
}

impl<S: Store> Drop for Open<'_, S> {
    fn drop(&mut self) {
        if let Some(transaction) = self.transaction {
            // One poll hands the request to the store; nobody is left to hear the reply.
            let _ = pin!(self.store.end(transaction, false)).poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}
