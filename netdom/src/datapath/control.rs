//! A vif's control ring on the data path. Floor 3.

use super::queue::{Channel, map_ring};
use super::{DataPath, RETRY};
use crate::netback::config::ControlConfig;
use crate::netback::control::Hashing;
use crate::netback::violation::{AttachError, RingName, Violation};
use crate::packet::Pool;
use split_driver::hypervisor::{EventChannel, Hypervisor};
use split_driver::ring::BackRing;
use split_driver::throttle::Throttle;
use split_driver::time::Instant;
use xen_pv_sys::grant_table::{CopyEnd, GrantCopy};
use xen_pv_sys::io::netif::{CtrlRequest, CtrlResponse};
use xen_pv_sys::{DomainId, GrantRef, Port};

/// Requests taken in a round: one may take a hypercall of its own.
const REQUESTS: u32 = 8;

/// A control ring, connected.
pub(crate) struct Control<H: Hypervisor> {
    ring: BackRing<H::Ring, CtrlRequest, CtrlResponse>,
    channel: Channel<H::Channel>,
    pub(crate) hashing: Hashing,
    throttle: Throttle,
    /// An event came since it was last served.
    event: bool,
    /// Whether there was anything to do since then.
    progress: bool,
    /// To be looked at in the next round.
    pub(crate) ready: bool,
    /// Served again then.
    pub(crate) wake: Option<Instant>,
}

/// What comes after a look at a control ring.
enum Next {
    /// An event.
    Event,
    /// Another look in the next round.
    Again,
    /// Another look then.
    Wait(Instant),
}

impl<H: Hypervisor> Control<H> {
    /// Maps the ring and binds the channel.
    ///
    /// # Errors
    /// What could not be had; all else is given back.
    pub(crate) fn connect(hypervisor: &H, domain: DomainId, config: ControlConfig) -> Result<Self, AttachError> {
        let ring = BackRing::attach(map_ring(hypervisor, domain, RingName::Control, config.ring)?)
            .map_err(|error| AttachError::Ring(RingName::Control, error))?;
        Ok(Self {
            ring,
            channel: Channel::bind(hypervisor, domain, config.port)?,
            hashing: Hashing::default(),
            throttle: Throttle::new(),
            event: false,
            progress: false,
            // Requests may have been made before the channel was there.
            ready: true,
            wake: None,
        })
    }

    /// The local port of its event channel.
    pub(crate) fn local_port(&self) -> Port {
        self.channel.channel.port()
    }

    /// Notes that an event came in.
    pub(crate) fn handle_event(&mut self) {
        self.event = true;
        self.channel.masked = true;
        self.ready = true;
    }

    /// Answers requests, as many as a round has room for.
    fn serve(
        &mut self,
        hypervisor: &H,
        pool: &Pool,
        domain: DomainId,
        queues: u8,
        now: Instant,
    ) -> Result<Next, Violation> {
        let overrun = |error| Violation::from((RingName::Control, error));
        for _ in 0..REQUESTS {
            if self.ring.unconsumed().map_err(overrun)? == 0 {
                break;
            }
            // Somewhere a key or a table can be copied to.
            let Some(page) = pool.take() else {
                return Ok(Next::Wait(now + RETRY));
            };
            let request = self.ring.take();
            let response = self.hashing.handle(&request, queues, |reference: GrantRef, into: &mut [u8]| {
                let mut copy = [GrantCopy {
                    source: CopyEnd::granted(domain, reference, 0),
                    destination: CopyEnd::local(page.frame(), 0),
                    // Less than a page: a key, or a table of some entries.
                    length: into.len() as u16,
                    flags: GrantCopy::SOURCE_GRANT,
                    status: 0,
                    padding: 0,
                }];
                hypervisor.grant_copy(&mut copy);
                copy.iter().all(|copy| copy.status == 0) && page.read(0, into)
            });
            self.ring.push(&response);
            self.progress = true;
        }
        if self.ring.unpublished() > 0 && self.ring.push_and_check_notify() {
            self.channel.channel.notify();
        }
        Ok(match self.ring.final_check_for_requests().map_err(overrun)? {
            0 => Next::Event,
            _ => Next::Again,
        })
    }

    /// Until when it sleeps after it was served to the end; `None` until its next event.
    fn settle(&mut self, now: Instant) -> Option<Instant> {
        if core::mem::take(&mut self.event) {
            self.throttle.handle_served(self.progress, now);
        }
        self.progress = false;
        let delay = self.throttle.poll_delay(now);
        if delay.is_none() {
            self.channel.unmask();
        }
        delay
    }
}

impl<H: Hypervisor> DataPath<H> {
    /// Answers what a guest asks for on its control ring, where there may be something.
    pub(super) fn serve_control(&mut self, port: u16, now: Instant) {
        let Some(Some(slot)) = self.vifs.get_mut(usize::from(port)) else {
            return;
        };
        let (domain, queues) = (slot.vif.config.domain, slot.vif.queue_count());
        let broken = slot.vif.broken;
        let Some(control) = slot.vif.control.as_mut().filter(|control| control.ready && !broken) else {
            return;
        };
        control.ready = false;
        let wake = match control.serve(&self.hypervisor, &self.pool, domain, queues, now) {
            Ok(Next::Event) => control.settle(now),
            Ok(Next::Again) => {
                control.ready = true;
                self.list(port);
                return;
            }
            Ok(Next::Wait(at)) => Some(at),
            Err(violation) => {
                self.fail(port, violation);
                return;
            }
        };
        control.wake = wake;
        if let Some(at) = wake {
            self.wake_vif_at(port, at);
        }
    }
}
