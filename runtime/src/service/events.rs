//! The data path's task: events in, rounds of the data path, then waiting. Safe code only. Floor 2.

use super::DriverDomain;
use crate::executor;
use crate::select::select;
use crate::time::{self, Instant};
use alloc::rc::Rc;
use alloc::vec::Vec;
use xen_pv_sys::Port;

/// Rounds without a look at the other tasks. A round is some tens of microseconds long.
const ROUNDS: usize = 16;

/// What a round of the data path leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// There is more to do.
    No,
    /// Nothing is to be done until an event arrives, or this time comes.
    Until(Option<Instant>),
}

/// Serves guests and devices for good.
pub(super) async fn run<S: DriverDomain>(service: Rc<S>) {
    let events = service.events();
    let mut ports: Vec<Port> = Vec::new();
    loop {
        let mut wait = Wait::No;
        for _ in 0..ROUNDS {
            events.take(&mut ports);
            wait = service.round(&mut ports);
            if wait != Wait::No {
                break;
            }
        }
        match wait {
            Wait::No => executor::yield_now().await,
            Wait::Until(None) => {
                select(events.next(&mut ports), service.work().wait()).await;
            }
            Wait::Until(Some(deadline)) => {
                let work = select(service.work().wait(), time::sleep_until(deadline));
                select(events.next(&mut ports), work).await;
            }
        }
    }
}
