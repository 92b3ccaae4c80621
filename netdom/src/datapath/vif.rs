//! All that is known of one guest's interface. Pure but for the hypervisor it is given. Floor 3.

use super::control::Control;
use super::prepare::{Ability, fits};
use super::queue::Queue;
pub(crate) use super::queue::Toward;
use crate::credit::Credit;
use crate::ethernet::MacAddress;
use crate::netback::config::VifConfig;
use crate::netback::control::Hashing;
use crate::netback::request::Membership;
use crate::netback::violation::AttachError;
use crate::offload::headers::Layout;
use crate::packet::{Checksum, Offload};
use crate::statistics::PortStatistics;
use alloc::boxed::Box;
use alloc::vec::Vec;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;
use xen_pv_sys::{PAGE_SIZE, Port};

/// Groups a guest may list (as many as Linux' netback takes).
const GROUPS: usize = 64;

/// The groups that a guest lists.
pub(crate) type Groups = heapless::Vec<MacAddress, GROUPS>;

/// A vif, connected.
pub(crate) struct Vif<H: Hypervisor> {
    pub(crate) config: VifConfig,
    pub(crate) ability: Ability,
    /// What it may still send, where that is limited.
    pub(crate) credit: Option<Credit>,
    /// Until when none of its queues takes credit: there is too little for the one whose turn it is.
    pub(crate) saving: Option<Instant>,
    /// At least one.
    pub(crate) queues: Vec<Queue<H>>,
    pub(crate) control: Option<Box<Control<H>>>,
    pub(crate) groups: Groups,
    pub(crate) statistics: PortStatistics,
    /// Pages in the backlogs of all queues.
    pub(crate) held_pages: usize,
    /// In the list of those to be served.
    pub(crate) listed: bool,
    /// The queues to be served, a bit each.
    pub(crate) ready: u8,
    /// The queue that is served first the next time.
    pub(crate) turn: u8,
    /// It broke the protocol: nothing is done for it any more.
    pub(crate) broken: bool,
}

impl<H: Hypervisor> Vif<H> {
    /// Maps the rings and binds the channels.
    ///
    /// # Errors
    /// What could not be had; all else is given back.
    pub(crate) fn connect(hypervisor: &H, mut config: VifConfig, now: Instant) -> Result<Self, AttachError> {
        config.headroom = within_page(config.headroom);
        let domain = config.domain;
        let queues = config.queues.iter().map(|queue| Queue::connect(hypervisor, domain, queue));
        let control = config.control.map(|control| Control::connect(hypervisor, domain, control));
        Ok(Self {
            ability: Ability::of_guest(&config.features, config.headroom),
            credit: config.rate.map(|rate| Credit::new(rate, now)),
            saving: None,
            queues: queues.collect::<Result<_, _>>()?,
            control: control.transpose()?.map(Box::new),
            config,
            groups: Groups::new(),
            statistics: PortStatistics::default(),
            held_pages: 0,
            listed: false,
            ready: 0,
            turn: 0,
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
        self.control.as_ref().map(|control| &control.hashing).filter(|hashing| hashing.is_on())
    }

    /// The local ports of its event channels, each with its queue's number; none for the control ring's.
    pub(crate) fn local_ports(&self) -> impl Iterator<Item = (Port, Option<u8>)> {
        let queues = (0..).zip(&self.queues);
        let queues = queues.flat_map(|(number, queue)| queue.local_ports().map(move |port| (port, Some(number))));
        queues.chain(self.control.as_ref().map(|control| (control.local_port(), None)))
    }

    /// Changes the bytes before a packet in its first receive slot.
    pub(crate) fn set_headroom(&mut self, headroom: u16) {
        self.config.headroom = within_page(headroom);
        self.ability = Ability::of_guest(&self.config.features, self.config.headroom);
    }

    /// Whether the guest takes the packet with that much left to do. `layout` is where the headers are that this is about.
    pub(crate) fn accepts(&self, length: u32, offload: Offload, layout: Option<&Layout>) -> Acceptance {
        let blank = offload.checksum == Checksum::Blank;
        if let Some(gso) = offload.gso {
            let taken = layout.is_some_and(|layout| fits(gso, layout) && self.ability.gso(layout));
            return match taken && blank {
                true => Acceptance::AsIs,
                false => Acceptance::Prepared,
            };
        }
        if length as usize > self.ability.longest() {
            return Acceptance::Never;
        }
        match blank && !layout.is_some_and(|layout| self.ability.checksum(layout)) {
            true => Acceptance::Prepared,
            false => Acceptance::AsIs,
        }
    }

    /// Whether the guest wants frames to this address: unicast and broadcast always, groups as it said.
    pub(crate) fn wants(&self, destination: MacAddress) -> bool {
        let group = destination.is_group() && destination != MacAddress::BROADCAST;
        !group || !self.config.features.multicast_control || self.groups.contains(&destination)
    }
}

/// Headroom that leaves at least a byte of a page, so that each slot takes a packet further.
fn within_page(headroom: u16) -> u16 {
    headroom.min(PAGE_SIZE as u16 - 1)
}

/// Changes a list of groups. False where it is full.
pub(crate) fn change_groups(groups: &mut Groups, membership: Membership) -> bool {
    match membership {
        Membership::Join(address) => groups.contains(&address) || groups.push(address).is_ok(),
        Membership::Leave(address) => {
            groups.retain(|group| *group != address);
            true
        }
    }
}

/// Receive slots that a packet of `length` bytes takes: those of its bytes, behind the headroom, and one for each extra info.
pub(crate) fn slots_for(length: u32, offload: Offload, hashed: bool, headroom: u16) -> u32 {
    let data = (length + u32::from(headroom)).div_ceil(PAGE_SIZE as u32).max(1);
    data + u32::from(offload.gso.is_some()) + u32::from(hashed) + u32::from(headroom > 0)
}

/// What must be done to a packet before a guest takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acceptance {
    /// Nothing.
    AsIs,
    /// Its checksum must be completed, or it must be cut into segments.
    Prepared,
    /// It is too long for this guest.
    Never,
}
