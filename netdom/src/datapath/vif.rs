//! All that is known of one guest's interface. Pure but for the hypervisor it is given. Floor 3.

use super::patience::Patience;
use super::prepare::{Ability, fits};
use super::queue::Queue;
use crate::credit::Credit;
use crate::ethernet::MacAddress;
use crate::netback::config::{RemotePorts, VifConfig};
use crate::netback::request::{Membership, ReceiveRing, TransmitRing};
use crate::netback::violation::{AttachError, RingName, Violation};
use crate::offload::headers::Layout;
use crate::packet::{Checksum, Offload};
use crate::statistics::PortStatistics;
use alloc::vec::Vec;
use split_driver::hypervisor::{EventChannel, Hypervisor};
use split_driver::throttle::Throttle;
use split_driver::time::Instant;
use xen_pv_sys::Port;
use xen_pv_sys::io::netif::RxRequest;

/// Groups a guest may list (as many as Linux' netback takes).
pub(crate) const GROUPS: usize = 64;

/// One event channel, and whether its event was delivered and not yet acknowledged.
pub(crate) struct Channel<C> {
    pub(crate) channel: C,
    pub(crate) masked: bool,
}

impl<C: EventChannel> Channel<C> {
    fn new(channel: C) -> Self {
        Self { channel, masked: false }
    }

    /// Acknowledges, late: only now may the next event come.
    pub(crate) fn unmask(&mut self) {
        if self.masked {
            self.masked = false;
            self.channel.unmask();
        }
    }
}

/// A vif, connected.
pub(crate) struct Vif<H: Hypervisor> {
    pub(crate) config: VifConfig,
    pub(crate) ability: Ability,
    /// What it may still send, where that is limited.
    pub(crate) credit: Option<Credit>,
    pub(crate) transmit: TransmitRing<H::Ring>,
    pub(crate) receive: ReceiveRing<H::Ring>,
    /// The channel of both rings, or of the transmit ring where there are two.
    pub(crate) channel: Channel<H::Channel>,
    pub(crate) receive_channel: Option<Channel<H::Channel>>,
    /// Receive slots known to be posted and not taken.
    pub(crate) posted: u32,
    /// Whether there was anything to do since the last event.
    pub(crate) progress: bool,
    pub(crate) queue: Queue,
    pub(crate) groups: heapless::Vec<MacAddress, GROUPS>,
    pub(crate) throttle: Throttle,
    /// How long others wait for its receive slots, and who does.
    pub(crate) patience: Patience,
    pub(crate) waiters: Vec<u16>,
    /// Slots that the first of them needs.
    pub(crate) awaited: u32,
    /// It waited for another's receive slots, so that it is likely to do so again.
    pub(crate) waited: bool,
    pub(crate) statistics: PortStatistics,
    /// In the list of those to be served.
    pub(crate) ready: bool,
    /// An event came since it was last served.
    pub(crate) event: bool,
    /// Where its last packet to one station went.
    pub(crate) toward: Toward,
    /// A packet for it is on its way into the queue, so that none may overtake it.
    pub(crate) bouncing: bool,
    /// Responses placed on the rings in this round.
    pub(crate) touched: bool,
    /// It was to have packets and had no receive slots, since then.
    pub(crate) starving: Option<Instant>,
    /// It broke the protocol: nothing is done for it any more.
    pub(crate) broken: bool,
}

/// Where packets of a vif go, as far as the last one tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toward {
    /// It sent none to one station.
    Unknown,
    /// To the NIC with this port.
    Nic(u16),
    /// To another guest.
    Vif,
}

impl<H: Hypervisor> Vif<H> {
    /// Maps the rings and binds the channels.
    ///
    /// # Errors
    /// What could not be had; all else is given back.
    pub(crate) fn connect(hypervisor: &H, config: VifConfig, now: Instant) -> Result<Self, AttachError> {
        let map = |name, reference| {
            hypervisor.map_ring(config.domain, &[reference]).map_err(|error| AttachError::Map(name, error))
        };
        let bind = |port| hypervisor.bind_interdomain(config.domain, port).map(Channel::new).map_err(AttachError::Bind);
        let transmit = TransmitRing::attach(map(RingName::Transmit, config.transmit_ring)?)
            .map_err(|error| AttachError::Ring(RingName::Transmit, error))?;
        let receive = ReceiveRing::attach(map(RingName::Receive, config.receive_ring)?)
            .map_err(|error| AttachError::Ring(RingName::Receive, error))?;
        let (channel, receive_channel) = match config.ports {
            RemotePorts::Single(port) => (bind(port)?, None),
            RemotePorts::Split { transmit, receive } => (bind(transmit)?, Some(bind(receive)?)),
        };
        Ok(Self {
            ability: Ability::of_guest(&config.features),
            credit: config.rate.map(|rate| Credit::new(rate, now)),
            config,
            transmit,
            receive,
            channel,
            receive_channel,
            posted: 0,
            progress: false,
            queue: Queue::new(),
            groups: heapless::Vec::new(),
            throttle: Throttle::new(),
            patience: Patience::new(),
            waiters: Vec::new(),
            awaited: 0,
            waited: false,
            statistics: PortStatistics::default(),
            ready: false,
            event: false,
            toward: Toward::Unknown,
            bouncing: false,
            touched: false,
            starving: None,
            broken: false,
        })
    }

    /// The local ports of its event channels.
    pub(crate) fn local_ports(&self) -> impl Iterator<Item = Port> {
        core::iter::once(self.channel.channel.port())
            .chain(self.receive_channel.as_ref().map(|channel| channel.channel.port()))
    }

    /// Whether `count` receive slots are posted; the ring is looked at only where those known do not do.
    pub(crate) fn has_receive_slots(&mut self, count: u32) -> Result<bool, Violation> {
        if self.posted >= count {
            return Ok(true);
        }
        let posted = self.receive.unconsumed().map_err(|error| Violation::from((RingName::Receive, error)))?;
        self.progress |= posted > self.posted;
        self.posted = posted;
        Ok(posted >= count)
    }

    /// As [`Self::has_receive_slots`]; where not, an event will come as soon as `count` are posted.
    pub(crate) fn await_receive_slots(&mut self, count: u32) -> Result<bool, Violation> {
        if self.has_receive_slots(count)? {
            return Ok(true);
        }
        self.receive.request_event(count.max(1));
        self.has_receive_slots(count)
    }

    /// The next receive slot; only after [`Self::has_receive_slots`] said yes.
    pub(crate) fn take_receive_slot(&mut self) -> RxRequest {
        self.posted = self.posted.saturating_sub(1);
        self.patience.earn();
        self.receive.take()
    }

    /// Receive slots that a packet of `length` bytes takes.
    pub(crate) fn slots_for(length: u32, offload: Offload) -> u32 {
        length.div_ceil(4096).max(1) + u32::from(offload.gso.is_some())
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

    /// Changes the list of groups. False where it is full.
    pub(crate) fn change_groups(&mut self, membership: Membership) -> bool {
        match membership {
            Membership::Join(address) => self.groups.contains(&address) || self.groups.push(address).is_ok(),
            Membership::Leave(address) => {
                self.groups.retain(|group| *group != address);
                true
            }
        }
    }
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
