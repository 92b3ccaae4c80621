//! One of a guest's queues: its rings, and what waits at either of them. Floor 3.

use super::backlog::Backlog;
use super::held::Held;
use super::patience::Backpressure;
use crate::netback::rings::Rings;
use split_driver::hypervisor::Hypervisor;
use split_driver::throttle::Throttle;
use split_driver::time::Instant;
use xen_pv_sys::Port;
use xen_pv_sys::io::netif::RxRequest;

/// A queue of a guest's port.
pub(crate) struct Queue<H: Hypervisor> {
    pub(crate) rings: Rings<H>,
    pub(crate) backlog: Backlog,
    pub(crate) backpressure: Backpressure,
    pub(crate) throttle: Throttle,
    /// An event came since it was last served.
    pub(crate) event: bool,
    /// A packet bounces in this round: it will be in the backlog, so that none may overtake it.
    pub(crate) bouncing: bool,
    /// Responses placed on the rings in this round.
    pub(crate) touched: bool,
    /// In the list of those that are to be notified.
    pub(crate) unnotified: bool,
    /// When its frontend was last notified.
    pub(crate) notified: Option<Instant>,
    /// Packets wait in its backlog for receive slots, since then.
    pub(crate) starving: Option<Instant>,
    /// Served again then.
    pub(crate) wake: Option<Instant>,
}

impl<H: Hypervisor> Queue<H> {
    /// A queue at which nothing waits.
    pub(crate) fn new(rings: Rings<H>, held: &Held) -> Self {
        Self {
            rings,
            backlog: Backlog::new(held),
            backpressure: Backpressure::default(),
            throttle: Throttle::new(),
            event: false,
            bouncing: false,
            touched: false,
            unnotified: false,
            notified: None,
            starving: None,
            wake: None,
        }
    }

    /// Notes that an event came in on one of its channels.
    pub(crate) fn handle_event(&mut self, local: Port) {
        self.event = true;
        self.rings.handle_event(local);
    }

    /// The next receive slot; only after [`Rings::has_receive_slots`] said yes.
    pub(crate) fn take_receive_slot(&mut self) -> RxRequest {
        self.backpressure.patience.earn();
        self.rings.take_receive_slot()
    }

    /// It was served: until when it sleeps. `None` until its next event, for which its channels are unmasked.
    pub(crate) fn poll_sleep(&mut self, now: Instant) -> Option<Instant> {
        let delay = self.throttle.poll_delay(now);
        if delay.is_none() {
            self.rings.unmask();
        }
        delay
    }
}
