//! What all devices of one bus share. Pure over the store's trait. Floor 1.

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;

use super::DeviceId;
use super::backend::{Backend, Timing};
use super::beginning::Beginning;
use super::connections::{Connection, Connections};
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
    /// Devices that the last life wrote down, until each is served on.
    pub(super) inherited: RefCell<Vec<Connection>>,
    /// Devices that the next life will find.
    pub(super) connections: Rc<Connections>,
    /// Devices of the beginning.
    pub(super) beginning: Beginning,
}

impl<S, T, B: Backend> Context<S, T, B> {
    pub(super) fn new(store: S, timer: T, backend: B, timing: Timing) -> Self {
        let transactions = Turns::new(TRANSACTIONS_MAX);
        let (departures, errors, inherited) = Default::default();
        let (connections, beginning) = Default::default();
        Self {
            store,
            timer,
            backend,
            timing,
            transactions,
            departures,
            errors,
            adopts: false,
            inherited,
            connections,
            beginning,
        }
    }

    /// How the last life had connected a device, once.
    pub(super) fn take_inherited(&self, id: DeviceId) -> Option<Connection> {
        let mut inherited = self.inherited.borrow_mut();
        let place = inherited.iter().position(|connection| connection.id == id)?;
        Some(inherited.swap_remove(place))
    }

    /// `backend/<kind>`, relative to our home.
    pub(super) fn top(&self) -> String {
        format!("backend/{}", self.backend.kind())
    }
}
