//! A vif's control ring and its event channel. Pure but for the hypervisor it is given. Floor 3.

use super::ahead::{Whose, WriteAhead};
use super::config::ControlConfig;
use super::control::Hashing;
use super::rings::{Channel, map_ring};
use super::violation::{AttachError, RingName, Violation};
use crate::packet::Pool;
use split_driver::hypervisor::Hypervisor;
use split_driver::ring::BackRing;
use xen_pv_sys::grant_table::{CopyEnd, GrantCopy};
use xen_pv_sys::io::netif::{CtrlRequest, CtrlResponse};
use xen_pv_sys::{DomainId, GrantRef, Port};

/// Requests taken at a time: one may take a hypercall of its own.
const REQUESTS: u32 = 8;

/// A control ring, mapped, and its channel, bound.
pub(crate) struct ControlRing<H: Hypervisor> {
    ring: BackRing<H::Ring, CtrlRequest, CtrlResponse>,
    whose: Whose,
    pub(crate) channel: Channel<H::Channel>,
    pub(crate) hashing: Hashing,
    /// Whether there was anything to do since this was last reset.
    pub(crate) progress: bool,
}

/// How far a control ring was served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// To its end: an event comes with the next request.
    All,
    /// There are more requests.
    Part,
    /// The pool has no page to copy a key or a table to.
    NoPage,
}

impl<H: Hypervisor> ControlRing<H> {
    /// Maps the ring and binds the channel.
    ///
    /// # Errors
    /// What could not be had; all else is given back.
    pub(crate) fn connect(hypervisor: &H, domain: DomainId, config: ControlConfig) -> Result<Self, AttachError> {
        let whose = Whose { domain, ring: config.ring };
        let ring = BackRing::attach(map_ring(hypervisor, domain, RingName::Control, config.ring)?)
            .map_err(|error| AttachError::Ring(RingName::Control, error))?;
        let channel = Channel::bind(hypervisor, domain, config.port)?;
        Ok(Self { ring, whose, channel, hashing: Hashing::default(), progress: false })
    }

    /// The local port of its event channel.
    pub(crate) fn local_port(&self) -> Port {
        self.channel.port()
    }

    /// Places what an earlier life had written ahead, and tells the frontend.
    pub(crate) fn place_left(&mut self, ahead: &mut WriteAhead) {
        if ahead.place_left::<3, _, _, _>(self.whose, &mut self.ring) {
            self.publish();
        }
    }

    /// Publishes the responses placed.
    fn publish(&mut self) {
        if self.ring.unpublished() > 0 && self.ring.push_and_check_notify() {
            self.channel.notify();
        }
    }

    /// Answers the requests of the guest, whose vif has `queues` queues: a bounded number of them. Each response is shown before the next request
    /// is served, as a life may end in that.
    ///
    /// # Errors
    /// What the frontend must not do.
    pub(crate) fn serve(
        &mut self,
        hypervisor: &H,
        pool: &Pool,
        queues: u8,
        ahead: &mut WriteAhead,
    ) -> Result<Served, Violation> {
        let domain = self.whose.domain;
        let overrun = |error| Violation::from((RingName::Control, error));
        for _ in 0..REQUESTS {
            if self.ring.unconsumed().map_err(overrun)? == 0 {
                break;
            }
            let Some(page) = pool.take() else {
                return Ok(Served::NoPage);
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
            ahead.add(&response);
            ahead.place::<3, _, _, _>(self.whose, &mut self.ring);
            self.progress = true;
        }
        self.publish();
        Ok(match self.ring.final_check_for_requests().map_err(overrun)? {
            0 => Served::All,
            _ => Served::Part,
        })
    }
}
