//! What all devices of one bus share. Pure over the store's trait. Floor 1.

use alloc::format;
use alloc::string::String;
use core::cell::Cell;

use super::backend::{Backend, Timing};
use super::departures::Departures;
use super::errors::Errors;
use crate::time::Duration;
use crate::turns::Turns;

/// Transactions of one bus that are open at once. xenstored lets a domain have ten, and others of the domain want some, too.
const TRANSACTIONS_MAX: usize = 4;

/// How long to wait before what the store refused for the `attempt`th time in a row is tried again.
pub(super) fn retry_after(attempt: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(20);
    const MOST: Duration = Duration::from_secs(1);
    let factor = 1 << attempt.saturating_sub(1).min(10);
    FIRST.saturating_mul(factor).min(MOST)
}

/// What a bus and its devices share: store, timer and backend, and the work at which devices take turns.
pub(super) struct Context<S, T, B> {
    pub(super) store: S,
    pub(super) timer: T,
    pub(super) backend: B,
    pub(super) timing: Timing,
    /// Transactions of all devices.
    pub(super) transactions: Turns,
    /// Devices that are closed and about to be deleted, by their frontend.
    pub(super) departures: Departures,
    /// Why devices were refused.
    pub(super) errors: Errors,
    /// The domain lived before: a device that is connected was served by that life.
    pub(super) adopts: bool,
    /// All of those are served on, or refused. Before, no other device gets anything that one of them may have.
    pub(super) inherited: Cell<bool>,
}

impl<S, T, B: Backend> Context<S, T, B> {
    pub(super) fn new(store: S, timer: T, backend: B, timing: Timing) -> Self {
        let transactions = Turns::new(TRANSACTIONS_MAX);
        let (departures, errors) = Default::default();
        Self {
            store,
            timer,
            backend,
            timing,
            transactions,
            departures,
            errors,
            adopts: false,
            inherited: Cell::new(true),
        }
    }

    /// `backend/<kind>`, relative to our home.
    pub(super) fn top(&self) -> String {
        format!("backend/{}", self.backend.kind())
    }
}
