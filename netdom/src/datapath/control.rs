//! A guest's control ring on the data path: when it is served. Floor 3.

use crate::netback::config::ControlConfig;
use crate::netback::control_ring::ControlRing;
use crate::netback::violation::AttachError;
use split_driver::hypervisor::Hypervisor;
use split_driver::throttle::Throttle;
use split_driver::time::Instant;
use xen_pv_sys::DomainId;

/// A control ring, and what is known of it.
pub(crate) struct Control<H: Hypervisor> {
    pub(crate) ring: ControlRing<H>,
    throttle: Throttle,
    /// An event came since it was last served.
    event: bool,
    /// To be looked at in the next round.
    pub(crate) ready: bool,
    /// Served again then.
    pub(crate) wake: Option<Instant>,
}

impl<H: Hypervisor> Control<H> {
    /// Maps the ring and binds the channel.
    ///
    /// # Errors
    /// What could not be had; all else is given back.
    pub(crate) fn connect(hypervisor: &H, domain: DomainId, config: ControlConfig) -> Result<Self, AttachError> {
        let ring = ControlRing::connect(hypervisor, domain, config)?;
        // Requests may have been made before the channel was there.
        Ok(Self { ring, throttle: Throttle::new(), event: false, ready: true, wake: None })
    }

    /// Notes that an event came in.
    pub(crate) fn handle_event(&mut self) {
        self.event = true;
        self.ready = true;
        self.ring.channel.handle_event();
    }

    /// Until when it sleeps after it was served to the end; `None` until its next event.
    pub(super) fn settle(&mut self, now: Instant) -> Option<Instant> {
        if core::mem::take(&mut self.event) {
            self.throttle.handle_served(self.ring.progress, now);
        }
        self.ring.progress = false;
        let delay = self.throttle.poll_delay(now);
        if delay.is_none() {
            self.ring.channel.unmask();
        }
        delay
    }
}
