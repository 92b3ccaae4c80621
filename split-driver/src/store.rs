//! The xenstore as a backend sees it, so that no driver knows a transport. Traits only. Floor 1.

use alloc::string::String;
use alloc::vec::Vec;

/// Why the store refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// `ENOENT`: no such node.
    NotFound,
    /// `EACCES`.
    Denied,
    /// `EAGAIN`: the transaction met a conflict.
    Conflict,
    /// `EQUOTA`/`ENOSPC`/`E2BIG`: a quota of the store.
    Quota,
    /// Another error of `xs_wire.h`, by its errno.
    Errno(u16),
    /// The answer breaks the protocol, or the value is not what the caller asked for (not a number, not UTF-8).
    Malformed,
    /// The connection to the store is gone.
    Closed,
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
    /// The path that changed, as the store reports it. The first event comes at once. Events of one path may be merged.
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
    async fn write(
        &self,
        transaction: Transaction,
        path: &str,
        value: &[u8],
    ) -> Result<(), StoreError>;
    /// The names below a node, however many (larger than one payload too).
    async fn directory(
        &self,
        transaction: Transaction,
        path: &str,
    ) -> Result<Vec<String>, StoreError>;
    /// Removes a node with all below it. [`StoreError::NotFound`] where its parent is missing too.
    async fn remove(&self, transaction: Transaction, path: &str) -> Result<(), StoreError>;
    /// The node's permission entries as on the wire (`n0`, `r5`), the owner's first.
    async fn permissions(
        &self,
        transaction: Transaction,
        path: &str,
    ) -> Result<Vec<String>, StoreError>;
    /// Sets the node's permission entries.
    async fn set_permissions(
        &self,
        transaction: Transaction,
        path: &str,
        entries: &[&str],
    ) -> Result<(), StoreError>;
    /// Opens a transaction.
    async fn start(&self) -> Result<Transaction, StoreError>;
    /// Ends it. [`StoreError::Conflict`] where the commit must be tried again from the start.
    async fn end(&self, transaction: Transaction, commit: bool) -> Result<(), StoreError>;
    /// Watches a path and all below it.
    async fn watch(&self, path: &str) -> Result<Self::Watch, StoreError>;
}
