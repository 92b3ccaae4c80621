//! The way of packets between guests and NICs, in rounds. Pure but for the hypervisor and the NICs it is given. Floor 3.
//!
//! A round takes what is ready and makes at most two hypercalls for all copies, however many guests there are:
//!
//! 1. [`collect`]: the backlog of each ready queue goes into its receive slots; its transmit requests are read and checked, and the heads
//!    of all packets are fetched in the first batch. Guests take turns, and the queues of a guest share its turn. Then the frames that
//!    the NICs received are taken from their rings.
//! 2. [`forward`]: each packet's head is parsed, once ([`Head`](crate::offload::head::Head)). The switch decides from it, and in a guest
//!    with several queues a hash of the flow ([`forwarder`]), once for a run of packets of one flow. To a guest the payload will go from grant to
//!    grant; to a NIC, or to a guest that cannot take it now or as it is, by way of local pages ([`pass`]). What is there already goes to a NIC
//!    at once. Each packet is of a VLAN or of none ([`vlan`]). Segments from the wire are
//!    joined for guests that take them so ([`wire`]).
//! 3. [`copy`]: all copies are made, as the second batch, and guests whose grants were bad are found out.
//! 4. [`finish`]: what was copied is answered; what is in local pages leaves for a NIC or a backlog ([`leave`]).
//! 5. [`signal`]: frontends are notified and NICs are told, each at most once; one that was told a moment ago waits while rounds follow.
//!
//! Each step is a function over the parts that it needs: the ports ([`ports`]: guests and NICs in one table), the round ([`round`]: what it
//! has collected and planned so far), the pool of pages, the hypervisor. [`DataPath`] joins them. Where a packet cannot go on, its sender
//! waits: [`backpressure`]. The loops over packets are functions that are never inlined, so that a profile names the steps.
//!
//! An event channel stays masked until its ring was served to the end, so that a busy guest costs no events.

mod backlog;
mod backpressure;
mod bond_port;
mod bonds;
mod collect;
mod control;
mod copies;
mod copy;
mod fill;
mod finish;
mod forward;
mod forwarder;
mod guest;
mod held;
mod hold;
pub mod kept;
mod learnt;
mod leave;
mod nic_port;
mod nics;
mod pass;
pub mod patience;
mod ports;
mod prepare;
mod queue;
mod round;
mod routing;
mod schedule;
mod signal;
#[cfg(test)]
mod tests;
mod uplink;
mod vlan;
mod wire;

use crate::blame::Suspect;
use crate::credit::{Credit, Rate};
use crate::netback::ahead::WriteAhead;
use crate::netback::config::VifConfig;
use crate::netback::violation::{AttachError, Violation};
use crate::offload::coalesce::Coalescer;
use crate::packet::Pool;
use crate::policy::multicast::Behind;
use crate::policy::storm::{Allowance, StormLimit};
use crate::statistics::PortStatistics;
use crate::switch::{GUEST_ENTRIES, PortId};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
pub use bonds::{ActiveChange, BondId};
use forwarder::{Forwarder, Way};
use guest::GuestPort;
pub use held::Held;
pub use learnt::Heard;
pub use nics::{LinkChange, NICS, NicId};
use ports::Ports;
use round::Round;
use split_driver::hypervisor::Hypervisor;
use split_driver::kept::{Keep, KeptPage};
use split_driver::memory::OutOfMemory;
use split_driver::time::{Duration, Instant};
pub use uplink::{LeaseChange, RouterStatistics, Uplink};
use xen_pv_sys::Port;

/// Packets taken from one vif in a round, from all its queues together.
const VIF_PACKETS: usize = 64;
/// Packets taken from all vifs in a round: each takes a page of the pool.
const ROUND_PACKETS: usize = 192;
/// Frames taken from all NICs in a round.
const NIC_FRAMES: usize = 64;
/// How long a vif waits where a NIC or the pool is exhausted.
const RETRY: Duration = Duration::from_micros(100);
/// How often backlogs are looked through for packets that waited too long.
const EXPIRY: Duration = Duration::from_secs(1);
/// For a guest that wants packets and posts no slots for so long, no packets are held (Linux: `rx_stall_timeout_msecs`).
const STALL: Duration = Duration::from_secs(60);
/// The same for a guest that does not say when it posts slots (Linux: 30 ms).
const DRAIN_WITHOUT_NOTIFY: Duration = Duration::from_millis(30);

/// Names a vif from [`DataPath::attach`] on; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VifId {
    port: PortId,
    generation: u32,
}

/// Names a queue of a vif, while that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueId {
    /// The vif's port.
    pub(crate) port: PortId,
    /// The queue's number.
    pub(crate) queue: u8,
}

/// What the caller of [`DataPath::poll`] does next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Poll {
    /// There is more to do: poll again, after others had their turn.
    pub again: bool,
    /// Poll again then, events or not.
    pub deadline: Option<Instant>,
}

/// Why a look at a transmit ring ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// No requests are left.
    Empty,
    /// There are more, for the next round.
    Budget,
    /// A NIC or the pool has no room; or the guest has no credit: not before then.
    Until(Instant),
}

/// The data path of one domain: its guests, its NICs, the switch between them.
pub struct DataPath<H: Hypervisor> {
    hypervisor: H,
    pool: Pool,
    ports: Ports<H>,
    /// By local event channel: the guest's port, and the number of its queue; `None` for the channel of its control ring.
    channels: Vec<Option<(PortId, Option<u8>)>>,
    forwarder: Forwarder,
    /// How many frames that go to all a guest may send.
    storm: Option<StormLimit>,
    /// Bridges whose guests are kept apart from each other.
    isolated: Vec<String>,
    coalescer: Coalescer<Way>,
    round: Round,
    held: Held,
    /// Links of NICs that changed, not yet reported.
    link_changes: VecDeque<LinkChange>,
    /// When the last round was.
    now: Instant,
}

impl VifId {
    /// Its port.
    pub const fn port(self) -> PortId {
        self.port
    }
}

impl<H: Hypervisor> DataPath<H> {
    /// No vif, no NIC. `seed` is a number that guests do not know: it keys the switch's table, and the hash of flows.
    pub fn new(hypervisor: H, pool: Pool, seed: u64) -> Self {
        let held = Held::default();
        Self {
            hypervisor,
            pool,
            ports: Ports::default(),
            channels: Vec::new(),
            forwarder: Forwarder::new(seed),
            storm: None,
            isolated: Vec::new(),
            coalescer: Coalescer::new(),
            round: Round::new(&held),
            held,
            link_changes: VecDeque::new(),
            now: Instant::default(),
        }
    }

    /// Has BPDUs forwarded to and from the wire, too. By default they stay among the guests: one of a guest could change the spanning
    /// tree of the whole network, or have a port of its switch closed (BPDU guard).
    pub fn set_bpdus_on_wire(&mut self, forward: bool) {
        self.forwarder.bpdus_on_wire = forward;
    }

    /// Limits the frames that go to all of each guest that comes from now on.
    pub fn set_storm_limit(&mut self, limit: Option<StormLimit>) {
        self.storm = limit;
    }

    /// Keeps the guests that come to these bridges from now on apart from each other: they reach NICs alone.
    pub fn set_isolated(&mut self, bridges: &[String]) {
        self.isolated = bridges.into();
    }

    /// Sets the time for what is done before the next round, as attaching and restoring: a domain that lived before does not begin at time zero, and
    /// the last round may be long ago.
    pub fn begin_at(&mut self, now: Instant) {
        self.now = now;
    }

    /// The hypervisor it was given.
    pub fn hypervisor(&self) -> &H {
        &self.hypervisor
    }

    /// The pages that packets are held in.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Has responses written down before they are placed, so that a life that ends in between costs none; and knows what an earlier life wrote.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn write_ahead<P: KeptPage + 'static>(&mut self, keep: &impl Keep<Page = P>) -> Result<(), OutOfMemory> {
        self.round.ahead = WriteAhead::new(keep)?;
        Ok(())
    }

    /// Places what an earlier life wrote for a vif that is taken over, before it is served.
    pub(crate) fn place_left(&mut self, id: VifId) {
        if let Some(guest) = self.ports.named_mut(id) {
            guest.queues.iter_mut().for_each(|queue| queue.rings.place_left(&mut self.round.ahead));
            if let Some(control) = &mut guest.control {
                control.ring.place_left(&mut self.round.ahead);
            }
        }
    }

    /// All vifs of an earlier life were taken over.
    pub(crate) fn forget_left(&mut self) {
        self.round.ahead.forget_left();
    }

    /// Connects a vif to its frontend and to its bridge.
    ///
    /// # Errors
    /// What could not be had; nothing is left behind.
    pub fn attach(&mut self, config: VifConfig) -> Result<VifId, AttachError> {
        let port = self.ports.free().ok_or(AttachError::NoPort)?;
        let mut guest = GuestPort::connect(&self.hypervisor, config, &self.held, self.now)?;
        guest.flooding = self.storm.map(Allowance::new);
        let config = &guest.vif.config;
        let routed = config.routed.clone();
        let bridge = if routed.is_some() { routing::bridge_of(port) } else { config.bridge.clone() };
        let vlans = config.vlans.clone();
        let untags = vlans.native().is_some();
        let behind = if guest.vif.config.guard.is_off() { Behind::Any } else { Behind::Host };
        let added = self.forwarder.add_port(port, &bridge, (vlans, GUEST_ENTRIES), behind, self.now);
        added.map_err(|_| AttachError::NoPort)?;
        if self.isolated.contains(&bridge) {
            self.forwarder.switch.isolate(port);
        }
        for (local, queue) in guest.local_ports() {
            let place = local.0 as usize;
            if self.channels.len() <= place {
                self.channels.resize(place + 1, None);
            }
            if let Some(entry) = self.channels.get_mut(place) {
                *entry = Some((port, queue));
            }
        }
        let queues = guest.queue_count();
        let id = self.ports.insert_guest(port, Box::new(guest));
        if let Some(routed) = routed
            && let Err(error) = self.add_routed(&bridge, routed)
        {
            self.detach(id);
            return Err(error);
        }
        if untags {
            self.ports.begin_vlan_stripping(&bridge);
        }
        // Requests may have been made before the channel was there.
        for queue in 0..queues {
            self.ports.mark_ready(QueueId { port, queue });
        }
        Ok(id)
    }

    /// Lets go of a vif: its backlogs, its rings and its channels. Its statistics are what is left of it.
    pub fn detach(&mut self, id: VifId) -> Option<PortStatistics> {
        let guest = self.ports.remove_guest(id)?;
        if guest.vif.config.routed.is_some() {
            self.remove_routed(id.port);
        }
        self.forwarder.remove_port(id.port);
        for (local, _) in guest.local_ports() {
            if let Some(entry) = self.channels.get_mut(local.0 as usize) {
                *entry = None;
            }
        }
        Some(guest.statistics)
    }

    /// An event came in on a channel, which is masked from now on until its ring was served.
    pub fn handle_event(&mut self, local: Port, _now: Instant) {
        let Some(&Some((port, queue))) = self.channels.get(local.0 as usize) else {
            return;
        };
        let Some(number) = queue else {
            if let Some(control) = self.ports.guest_mut(port).and_then(|guest| guest.control.as_mut()) {
                control.handle_event();
            }
            return self.ports.list(port);
        };
        let id = QueueId { port, queue: number };
        if let Some(queue) = self.ports.queue_mut(id) {
            queue.handle_event(local);
        }
        self.ports.mark_ready(id);
    }

    /// A vif that broke the protocol and is no longer served; the caller detaches it and says why.
    pub fn poll_failed(&mut self) -> Option<(VifId, Violation)> {
        self.ports.failed.pop_front()
    }

    /// One round.
    pub fn poll(&mut self, now: Instant) -> Poll {
        let Self { hypervisor, pool, ports, forwarder, coalescer, round, .. } = self;
        self.now = now;
        let failed = ports.failed.len();
        ports.look_at_timers(now);
        nics::reclaim(ports, pool);
        collect::collect(ports, round, pool, hypervisor, now);
        ports.poll_bonds(&forwarder.switch, pool, now);
        uplink::poll(ports, forwarder, round, pool, now);
        forward::forward(ports, forwarder, coalescer, round, pool, now);
        copy::copy(ports, round, pool, hypervisor);
        finish::finish(ports, round, pool, now);
        // To their neighbours, guests that broke the protocol are ports gone from the switch.
        for (id, _) in ports.failed.range(failed..) {
            forwarder.remove_port(id.port);
        }
        let follows = round.frames_left || !ports.ready.is_empty();
        round.clear();
        uplink::wake(ports, forwarder);
        signal::signal(ports, follows, now);
        let again = follows || nics::enable_interrupts(ports, now);
        Poll { again, deadline: ports.wake }
    }

    /// The port that is served now, for the end of a life.
    pub fn suspect(&self) -> Suspect {
        self.round.suspect.clone()
    }

    /// The packets that wait, for the end of a life.
    pub fn held(&self) -> Held {
        self.held.clone()
    }

    /// Whether a guest changed what it will not say again since this was asked last, or the router has a new session or lease.
    pub fn take_changed(&mut self) -> bool {
        let routed = self.forwarder.router.as_mut().is_some_and(|router| router.take_changed());
        core::mem::take(&mut self.round.changed) || routed
    }

    /// The counters of a vif.
    pub fn vif_statistics(&self, id: VifId) -> Option<PortStatistics> {
        self.ports.named(id).map(|guest| guest.statistics)
    }

    /// Replaces the guest's groups-only wish, which it may change at any time (`request-multicast-control`).
    pub fn set_multicast_control(&mut self, id: VifId, wanted: bool) {
        if let Some(guest) = self.ports.named_mut(id) {
            guest.vif.config.features.multicast_control = wanted;
        }
    }

    /// Sets the bytes before each packet in its first receive slot, which the guest may change at any time (`xdp-headroom`).
    pub fn set_headroom(&mut self, id: VifId, headroom: u16) {
        if let Some(guest) = self.ports.named_mut(id) {
            guest.vif.set_headroom(headroom);
        }
    }

    /// Sets how much a guest may send, which the toolstack may change at any time.
    pub fn set_rate(&mut self, id: VifId, rate: Option<Rate>) {
        if let Some(guest) = self.ports.named_mut(id) {
            match (&mut guest.credit, rate) {
                (Some(credit), Some(rate)) => credit.set_rate(rate),
                (credit, rate) => *credit = rate.map(|rate| Credit::new(rate, self.now)),
            }
            guest.saving = None;
        }
    }
}
