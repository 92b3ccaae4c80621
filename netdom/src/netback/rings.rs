//! The two rings of a vif's queue and their event channels. Pure but for the hypervisor it is given. Floor 3.

use super::ahead::{Whose, WriteAhead};
use super::config::{QueueConfig, RemotePorts};
use super::request::{ReceiveRing, TransmitRing};
use super::violation::{AttachError, RingName, Violation};
use split_driver::hypervisor::{EventChannel, Hypervisor};
use xen_pv_sys::io::netif::RxRequest;
use xen_pv_sys::{DomainId, GrantRef, Port};

/// One event channel, and whether its event was delivered and not yet acknowledged.
pub(crate) struct Channel<C> {
    channel: C,
    masked: bool,
}

impl<C: EventChannel> Channel<C> {
    /// Binds a frontend's channel.
    ///
    /// # Errors
    /// Why it could not be bound.
    pub(crate) fn bind<H>(hypervisor: &H, domain: DomainId, remote: Port) -> Result<Self, AttachError>
    where
        H: Hypervisor<Channel = C>,
    {
        let channel = hypervisor.bind_interdomain(domain, remote).map_err(AttachError::Bind)?;
        Ok(Self { channel, masked: false })
    }

    /// The local port.
    pub(crate) fn port(&self) -> Port {
        self.channel.port()
    }

    /// An event came in, which masked the channel.
    pub(crate) fn handle_event(&mut self) {
        self.masked = true;
    }

    /// Acknowledges, late: only now may the next event come.
    pub(crate) fn unmask(&mut self) {
        if self.masked {
            self.masked = false;
            self.channel.unmask();
        }
    }

    /// Sends the frontend an event.
    pub(crate) fn notify(&self) {
        self.channel.notify();
    }
}

/// Maps a ring of one page.
///
/// # Errors
/// Why it could not be mapped.
pub(crate) fn map_ring<H: Hypervisor>(
    hypervisor: &H,
    domain: DomainId,
    name: RingName,
    reference: GrantRef,
) -> Result<H::Ring, AttachError> {
    hypervisor.map_ring(domain, &[reference]).map_err(|error| AttachError::Map(name, error))
}

/// A queue's rings, mapped, and its channels, bound.
pub(crate) struct Rings<H: Hypervisor> {
    pub(crate) transmit: TransmitRing<H::Ring>,
    pub(crate) receive: ReceiveRing<H::Ring>,
    /// The channel of both rings, or of the transmit ring where there are two.
    channel: Channel<H::Channel>,
    receive_channel: Option<Channel<H::Channel>>,
    /// Whose they are, for what is written ahead.
    pub(crate) transmit_whose: Whose,
    pub(crate) receive_whose: Whose,
    /// Receive slots known to be posted and not taken.
    posted: u32,
    /// Whether a notification is due on each of the two channels.
    due: (bool, bool),
    /// Whether there was anything to do since this was last reset.
    pub(crate) progress: bool,
}

impl<H: Hypervisor> Rings<H> {
    /// Maps the rings and binds the channels.
    ///
    /// # Errors
    /// What could not be had; all else is given back.
    pub(crate) fn connect(hypervisor: &H, domain: DomainId, config: &QueueConfig) -> Result<Self, AttachError> {
        let map = |name, reference| map_ring(hypervisor, domain, name, reference);
        let bind = |port| Channel::bind(hypervisor, domain, port);
        let transmit = TransmitRing::attach(map(RingName::Transmit, config.transmit_ring)?)
            .map_err(|error| AttachError::Ring(RingName::Transmit, error))?;
        let receive = ReceiveRing::attach(map(RingName::Receive, config.receive_ring)?)
            .map_err(|error| AttachError::Ring(RingName::Receive, error))?;
        let (channel, receive_channel) = match config.ports {
            RemotePorts::Single(port) => (bind(port)?, None),
            RemotePorts::Split { transmit, receive } => (bind(transmit)?, Some(bind(receive)?)),
        };
        Ok(Self {
            transmit,
            receive,
            channel,
            receive_channel,
            transmit_whose: Whose { domain, ring: config.transmit_ring },
            receive_whose: Whose { domain, ring: config.receive_ring },
            posted: 0,
            due: (false, false),
            progress: false,
        })
    }

    /// The local ports of its event channels.
    pub(crate) fn local_ports(&self) -> impl Iterator<Item = Port> {
        core::iter::once(self.channel.port()).chain(self.receive_channel.as_ref().map(Channel::port))
    }

    /// Notes that an event came in on one of its channels.
    pub(crate) fn handle_event(&mut self, local: Port) {
        match &mut self.receive_channel {
            Some(receive) if receive.port() == local => receive.handle_event(),
            _ => self.channel.handle_event(),
        }
    }

    /// Acknowledges the events that came in on its channels.
    pub(crate) fn unmask(&mut self) {
        self.channel.unmask();
        if let Some(channel) = &mut self.receive_channel {
            channel.unmask();
        }
    }

    /// Whether `count` receive slots are posted; the ring is looked at only where those known are too few.
    #[inline]
    pub(crate) fn has_receive_slots(&mut self, count: u32) -> Result<bool, Violation> {
        if self.posted >= count {
            return Ok(true);
        }
        self.look_for_receive_slots(count)
    }

    fn look_for_receive_slots(&mut self, count: u32) -> Result<bool, Violation> {
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
        self.receive.take()
    }

    /// Places what an earlier life had written ahead for one of the rings, and tells the frontend.
    pub(crate) fn place_left(&mut self, ahead: &mut WriteAhead) {
        let transmit = ahead.place_left::<1, _, _, _>(self.transmit_whose, &mut self.transmit);
        let receive = ahead.place_left::<2, _, _, _>(self.receive_whose, &mut self.receive);
        if (transmit || receive) && self.publish() {
            self.notify();
        }
    }

    /// Publishes the responses placed. True where the frontend asked for a notification, which [`Self::notify`] then sends.
    pub(crate) fn publish(&mut self) -> bool {
        let transmit = self.transmit.unpublished() > 0 && self.transmit.push_and_check_notify();
        let receive = self.receive.unpublished() > 0 && self.receive.push_and_check_notify();
        let due = match self.receive_channel {
            Some(_) => (transmit, receive),
            None => (transmit || receive, false),
        };
        self.due = (self.due.0 || due.0, self.due.1 || due.1);
        due != (false, false)
    }

    /// Sends the notifications that are due, one a channel.
    pub(crate) fn notify(&mut self) {
        let (channel, receive_channel) = core::mem::take(&mut self.due);
        if channel {
            self.channel.notify();
        }
        if let Some(channel) = self.receive_channel.as_ref().filter(|_| receive_channel) {
            channel.notify();
        }
    }
}
