//! A guest's interface as a port: its vif, and all that its packets wait for. Floor 3.

use super::control::Control;
use super::held::Held;
use super::queue::Queue;
use crate::credit::Credit;
use crate::netback::config::VifConfig;
use crate::netback::control::Hashing;
use crate::netback::rings::Rings;
use crate::netback::vif::Vif;
use crate::netback::violation::AttachError;
use crate::policy::storm::Allowance;
use crate::statistics::PortStatistics;
use alloc::boxed::Box;
use alloc::vec::Vec;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;
use xen_pv_sys::Port;

/// A guest's port.
pub(crate) struct GuestPort<H: Hypervisor> {
    pub(crate) vif: Vif,
    /// At least one.
    pub(crate) queues: Vec<Queue<H>>,
    pub(crate) control: Option<Box<Control<H>>>,
    /// What it may still send, where that is limited.
    pub(crate) credit: Option<Credit>,
    /// Until when none of its queues takes credit: there is too little for the one whose turn it is.
    pub(crate) saving: Option<Instant>,
    /// What it may still send to all, where that is limited.
    pub(crate) flooding: Option<Allowance>,
    pub(crate) statistics: PortStatistics,
    /// Pages in the backlogs of all queues.
    pub(crate) held_pages: usize,
    /// In the list of those to be served.
    pub(crate) listed: bool,
    /// The queues to be served, a bit each.
    pub(crate) ready: u8,
    /// The queue that is served first the next time.
    pub(crate) turn: u8,
    /// When the first of its queues is to be looked at again.
    pub(crate) wake: Option<Instant>,
    /// It broke the protocol: it is no longer served.
    pub(crate) broken: bool,
}

impl<H: Hypervisor> GuestPort<H> {
    /// Maps the rings and binds the channels.
    ///
    /// # Errors
    /// What could not be had; all else is given back.
    pub(crate) fn connect(hypervisor: &H, config: VifConfig, held: &Held, now: Instant) -> Result<Self, AttachError> {
        let domain = config.domain;
        let queues = config.queues.iter().map(|queue| Ok(Queue::new(Rings::connect(hypervisor, domain, queue)?, held)));
        let control = config.control.map(|control| Control::connect(hypervisor, domain, control));
        Ok(Self {
            queues: queues.collect::<Result<_, AttachError>>()?,
            control: control.transpose()?.map(Box::new),
            credit: config.rate.map(|rate| Credit::new(rate, now)),
            vif: Vif::new(config),
            saving: None,
            flooding: None,
            statistics: PortStatistics::default(),
            held_pages: 0,
            listed: false,
            ready: 0,
            turn: 0,
            wake: None,
            broken: false,
        })
    }

    /// Queues that it has.
    pub(crate) fn queue_count(&self) -> u8 {
        // As many as were offered, at most.
        self.queues.len() as u8
    }

    /// The hash by which the guest wants its packets spread.
    pub(crate) fn hashing(&self) -> Option<&Hashing> {
        self.control.as_ref().map(|control| &control.ring.hashing).filter(|hashing| hashing.is_on())
    }

    /// The local ports of its event channels, each with its queue's number; none for the control ring's.
    pub(crate) fn local_ports(&self) -> impl Iterator<Item = (Port, Option<u8>)> {
        let queues = (0..).zip(&self.queues);
        let queues = queues.flat_map(|(number, queue)| queue.rings.local_ports().map(move |port| (port, Some(number))));
        queues.chain(self.control.as_ref().map(|control| (control.ring.local_port(), None)))
    }
}
