//! The way of packets between guests and the NIC, in rounds. Pure but for the hypervisor and the NIC it is given. Floor 3.
//!
//! A round takes what is ready and makes at most two hypercalls for all copies, however many guests there are:
//!
//! 1. [`collect`]: the backlog of each ready queue goes into its receive slots; its transmit requests are read and checked, and the heads
//!    of all packets are fetched in the first batch. Vifs take turns, and the queues of a vif share its turn.
//! 2. [`route`]: the switch decides from the head, and in a guest with several queues a hash of the flow ([`steer`]). To a guest the payload goes from grant to grant; to the NIC, or to a guest that
//!    cannot take it now or as it is, by way of local pages. All copies are the second batch.
//! 3. [`finish`]: what was copied is answered, passed to the NIC or held in a backlog; each queue's frontend is notified at most once.
//!
//! An event channel stays masked until its ring was served to the end, so that a busy guest costs no events.

mod backlog;
mod blame;
mod collect;
mod control;
mod finish;
mod nics;
pub mod patience;
pub(crate) mod prepare;
pub(crate) mod queue;
mod round;
mod route;
mod steer;
#[cfg(test)]
mod tests;
pub(crate) mod vif;
mod wire;

use crate::credit::{Credit, Rate};
use crate::ethernet::MacAddress;
use crate::hash::KeyedHash;
use crate::netback::config::VifConfig;
use crate::netback::violation::{AttachError, Violation};
use crate::offload::coalesce::Coalescer;
use crate::offload::headers::{self, ETHERNET_HEADER};
use crate::packet::{Packet, Pool};
use crate::statistics::{DropCause, PortStatistics};
use crate::switch::{AGEING, GUEST_ENTRIES, Switch, TABLE_ENTRIES};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use nics::NicPorts;
pub use nics::{LinkChange, NICS, NicId};
use queue::Queue;
use round::Round;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::{Duration, Instant};
use vif::Vif;
use xen_pv_sys::Port;

/// Packets taken from one vif in a round, from all its queues together.
const VIF_PACKETS: usize = 64;
/// Packets taken from a queue where the last ones had to be given back to its ring.
const WAITED_PACKETS: usize = 8;
/// Packets taken from all vifs in a round: each takes a page of the pool.
const ROUND_PACKETS: usize = 192;
/// Frames taken from all NICs in a round.
const NIC_FRAMES: usize = 64;
/// How long a vif waits where a NIC or the pool is exhausted.
const RETRY: Duration = Duration::from_micros(100);
/// How often backlogs are looked through for packets that waited too long.
const EXPIRY: Duration = Duration::from_secs(1);
/// A guest that wants packets and posts no slots for so long is held nothing any more (Linux: `rx_stall_timeout_msecs`).
const STALL: Duration = Duration::from_secs(60);
/// The same for a guest that does not say when it posts slots (Linux: 30 ms).
const DRAIN_WITHOUT_NOTIFY: Duration = Duration::from_millis(30);

/// Names a vif from [`DataPath::attach`] on; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VifId {
    port: u16,
    generation: u32,
}

/// Names a queue of a vif, while that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueId {
    /// The vif's port.
    pub(crate) port: u16,
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

struct Slot<H: Hypervisor> {
    generation: u32,
    vif: Vif<H>,
    /// When the first of its queues is to be looked at again.
    wake: Option<Instant>,
}

/// The queue of this name.
fn queue_mut<H: Hypervisor>(vifs: &mut [Option<Box<Slot<H>>>], id: QueueId) -> Option<&mut Queue<H>> {
    vifs.get_mut(usize::from(id.port))?.as_mut()?.vif.queues.get_mut(usize::from(id.queue))
}

/// The data path of one domain: its guests, its NICs, the switch between them.
pub struct DataPath<H: Hypervisor> {
    hypervisor: H,
    pool: Pool,
    nics: NicPorts,
    /// By port number; those of NICs are `None`.
    vifs: Vec<Option<Box<Slot<H>>>>,
    generation: u32,
    /// By local event channel: the vif's port, and its queue or, where there is none, its control ring.
    ports: Vec<Option<(u16, Option<u8>)>>,
    /// Vifs to be served.
    ready: VecDeque<u16>,
    switch: Switch,
    /// Spreads flows over the queues of guests.
    flow_key: KeyedHash,
    /// Whether BPDUs go from guests to the wire, and from there to guests.
    bpdus_on_wire: bool,
    round: Round,
    coalescer: Coalescer<u16>,
    /// Pages in all backlogs.
    held_pages: usize,
    failed: VecDeque<(VifId, Violation)>,
    wake: Option<Instant>,
    /// When the last round was.
    now: Instant,
}

impl<H: Hypervisor> DataPath<H> {
    /// No vif, no NIC. `seed` is a number that guests do not know: it keys the switch's table, and the hash of flows.
    pub fn new(hypervisor: H, pool: Pool, seed: u64) -> Self {
        Self {
            hypervisor,
            pool,
            nics: NicPorts::default(),
            vifs: (0..NICS).map(|_| None).collect(),
            generation: 0,
            ports: Vec::new(),
            ready: VecDeque::new(),
            switch: Switch::new(TABLE_ENTRIES, AGEING, seed),
            // Another key than the switch's: a guest sees which queue its packets come from.
            flow_key: KeyedHash::new(!seed),
            bpdus_on_wire: false,
            round: Round::default(),
            coalescer: Coalescer::new(),
            held_pages: 0,
            failed: VecDeque::new(),
            wake: None,
            now: Instant::default(),
        }
    }

    /// Has BPDUs forwarded to and from the wire, too. By default they stay among the guests: one of a guest could change the spanning
    /// tree of the whole network, or have a port of its switch closed (BPDU guard).
    pub fn set_bpdus_on_wire(&mut self, forward: bool) {
        self.bpdus_on_wire = forward;
    }

    /// The hypervisor it was given.
    pub fn hypervisor(&self) -> &H {
        &self.hypervisor
    }

    /// The pages that packets are held in.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Connects a vif to its frontend and to its bridge.
    ///
    /// # Errors
    /// What could not be had; nothing is left behind.
    pub fn attach(&mut self, config: VifConfig) -> Result<VifId, AttachError> {
        let index = match self.vifs.iter().skip(NICS.into()).position(Option::is_none) {
            Some(free) => free + usize::from(NICS),
            None => self.vifs.len(),
        };
        let port = u16::try_from(index).map_err(|_| AttachError::NoPort)?;
        let vif = Vif::connect(&self.hypervisor, config, self.now)?;
        self.switch.add(port, &vif.config.bridge, GUEST_ENTRIES).map_err(|_| AttachError::NoPort)?;
        for (local, queue) in vif.local_ports() {
            let place = local.0 as usize;
            if self.ports.len() <= place {
                self.ports.resize(place + 1, None);
            }
            if let Some(entry) = self.ports.get_mut(place) {
                *entry = Some((port, queue));
            }
        }
        self.generation = self.generation.wrapping_add(1);
        let id = VifId { port, generation: self.generation };
        let queues = vif.queue_count();
        let slot = Some(Box::new(Slot { generation: self.generation, vif, wake: None }));
        match self.vifs.get_mut(index) {
            Some(place) => *place = slot,
            None => self.vifs.push(slot),
        }
        // Requests may have been made before the channel was there.
        for queue in 0..queues {
            self.mark_ready(QueueId { port, queue });
        }
        Ok(id)
    }

    /// Lets go of a vif: its backlogs, its rings and its channels. Its statistics are what is left of it.
    pub fn detach(&mut self, id: VifId) -> Option<PortStatistics> {
        let place = self.vifs.get_mut(usize::from(id.port))?;
        if place.as_ref()?.generation != id.generation {
            return None;
        }
        let slot = place.take()?;
        self.switch.remove(id.port);
        for (local, _) in slot.vif.local_ports() {
            if let Some(entry) = self.ports.get_mut(local.0 as usize) {
                *entry = None;
            }
        }
        self.ready.retain(|port| *port != id.port);
        self.held_pages = self.held_pages.saturating_sub(slot.vif.held_pages);
        Some(slot.vif.statistics)
    }

    /// An event came in on a channel, which is masked from now on until its ring was served.
    pub fn handle_event(&mut self, local: Port, _now: Instant) {
        let Some(&Some((port, queue))) = self.ports.get(local.0 as usize) else {
            return;
        };
        let Some(Some(slot)) = self.vifs.get_mut(usize::from(port)) else {
            return;
        };
        let Some(number) = queue else {
            if let Some(control) = &mut slot.vif.control {
                control.handle_event();
            }
            return self.list(port);
        };
        if let Some(queue) = slot.vif.queues.get_mut(usize::from(number)) {
            queue.handle_event(local);
        }
        self.mark_ready(QueueId { port, queue: number });
    }

    /// A vif that broke the protocol and is served no more; the caller detaches it and says why.
    pub fn poll_failed(&mut self) -> Option<(VifId, Violation)> {
        self.failed.pop_front()
    }

    /// One round.
    pub fn poll(&mut self, now: Instant) -> Poll {
        self.now = now;
        self.look_at_timers(now);
        self.reclaim();
        self.collect(now);
        self.route(now);
        self.finish(now);
        let frames_left = self.round.frames_left;
        self.round.clear();
        let mut again = frames_left || !self.ready.is_empty();
        if !again {
            again = self.enable_nic_interrupts(now);
        }
        Poll { again, deadline: self.wake }
    }

    /// The counters of a vif.
    pub fn vif_statistics(&self, id: VifId) -> Option<PortStatistics> {
        let slot = self.vifs.get(usize::from(id.port))?.as_ref()?;
        (slot.generation == id.generation).then_some(slot.vif.statistics)
    }

    /// Replaces the guest's groups-only wish, which it may change at any time (`request-multicast-control`).
    pub fn set_multicast_control(&mut self, id: VifId, wanted: bool) {
        if let Some(Some(slot)) = self.vifs.get_mut(usize::from(id.port))
            && slot.generation == id.generation
        {
            slot.vif.config.features.multicast_control = wanted;
        }
    }

    /// Sets the bytes before each packet in its first receive slot, which the guest may change at any time (`xdp-headroom`).
    pub fn set_headroom(&mut self, id: VifId, headroom: u16) {
        if let Some(Some(slot)) = self.vifs.get_mut(usize::from(id.port))
            && slot.generation == id.generation
        {
            slot.vif.set_headroom(headroom);
        }
    }

    /// Sets how much a guest may send, which the toolstack may change at any time.
    pub fn set_rate(&mut self, id: VifId, rate: Option<Rate>) {
        if let Some(Some(slot)) = self.vifs.get_mut(usize::from(id.port))
            && slot.generation == id.generation
        {
            let vif = &mut slot.vif;
            match (&mut vif.credit, rate) {
                (Some(credit), Some(rate)) => credit.set_rate(rate),
                (credit, rate) => *credit = rate.map(|rate| Credit::new(rate, self.now)),
            }
            vif.saving = None;
        }
    }

    /// Has a queue served in the next round.
    fn mark_ready(&mut self, id: QueueId) {
        if let Some(Some(slot)) = self.vifs.get_mut(usize::from(id.port)) {
            slot.vif.ready |= 1_u8.checked_shl(id.queue.into()).unwrap_or(0);
            self.list(id.port);
        }
    }

    /// Puts a vif on the list of those to be served.
    fn list(&mut self, port: u16) {
        if let Some(Some(slot)) = self.vifs.get_mut(usize::from(port))
            && !slot.vif.listed
            && !slot.vif.broken
        {
            slot.vif.listed = true;
            self.ready.push_back(port);
        }
    }

    /// Has a vif's timers looked at then.
    fn wake_vif_at(&mut self, port: u16, at: Instant) {
        if let Some(Some(slot)) = self.vifs.get_mut(usize::from(port)) {
            slot.wake = Some(slot.wake.map_or(at, |wake| wake.min(at)));
        }
        self.wake_at(at);
    }

    fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Stops all service of a vif that broke the protocol; its neighbours see a port gone from the switch.
    fn fail(&mut self, port: u16, violation: Violation) {
        let Some(Some(slot)) = self.vifs.get_mut(usize::from(port)) else {
            return;
        };
        if slot.vif.broken {
            return;
        }
        slot.vif.broken = true;
        self.held_pages = self.held_pages.saturating_sub(core::mem::take(&mut slot.vif.held_pages));
        for queue in &mut slot.vif.queues {
            while queue.backlog.discard() {}
        }
        let id = VifId { port, generation: slot.generation };
        self.switch.remove(port);
        self.round.last_look = None;
        self.failed.push_back((id, violation));
    }

    /// Does what became due: queues to be served again, channels to be unmasked, packets that waited too long.
    fn look_at_timers(&mut self, now: Instant) {
        if self.wake.is_none_or(|wake| wake > now) {
            return;
        }
        self.wake = None;
        for index in usize::from(NICS)..self.vifs.len() {
            let Some(Some(slot)) = self.vifs.get_mut(index) else {
                continue;
            };
            if slot.vif.broken {
                continue;
            }
            if slot.wake.is_some_and(|wake| wake <= now) {
                let (due, released, next) = look_at_queues(&mut slot.vif, now);
                (slot.vif.ready, slot.wake) = (slot.vif.ready | due, next);
                self.held_pages = self.held_pages.saturating_sub(released);
                let control = slot.vif.control.as_ref().is_some_and(|control| control.ready);
                if let Ok(port) = u16::try_from(index)
                    && (due != 0 || control)
                {
                    self.list(port);
                }
            }
            if let Some(Some(Slot { wake: Some(wake), .. })) = self.vifs.get(index).map(Option::as_deref) {
                self.wake_at(*wake);
            }
        }
    }

    /// Destination and source of a frame.
    fn addresses(packet: &Packet) -> Option<(MacAddress, MacAddress)> {
        let fragment = packet.fragments.first()?;
        let mut head = [0; ETHERNET_HEADER];
        if usize::from(fragment.length) < head.len() || !fragment.buffer.read(fragment.offset.into(), &mut head) {
            return None;
        }
        headers::addresses(&head)
    }
}

/// Looks at what became due in a vif: the queues to be served, pages that its backlogs held no longer, and when to look again.
fn look_at_queues<H: Hypervisor>(vif: &mut Vif<H>, now: Instant) -> (u8, usize, Option<Instant>) {
    let earlier = |one: Option<Instant>, other: Option<Instant>| match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    };
    let (mut due, mut released, mut next) = (0, 0, None);
    for (number, queue) in vif.queues.iter_mut().enumerate() {
        let pages = queue.backlog.pages();
        expire(queue, vif.config.features.receive_notify, &mut vif.statistics, now);
        released += pages.saturating_sub(queue.backlog.pages());
        if queue.wake.is_some_and(|wake| wake <= now) {
            queue.wake = None;
            due |= 1 << number;
        }
        let expiry = (!queue.backlog.is_empty()).then(|| now + EXPIRY);
        next = earlier(next, earlier(queue.wake, expiry));
    }
    if let Some(control) = &mut vif.control {
        if control.wake.is_some_and(|wake| wake <= now) {
            (control.wake, control.ready) = (None, true);
        }
        next = earlier(next, control.wake);
    }
    vif.held_pages = vif.held_pages.saturating_sub(released);
    (due, released, next)
}

/// Drops what waited too long; all, where the guest seems not to want packets any more.
fn expire<H: Hypervisor>(queue: &mut Queue<H>, receive_notify: bool, statistics: &mut PortStatistics, now: Instant) {
    let (lifetime, stall) = match receive_notify {
        true => (backlog::LIFETIME, STALL),
        false => (DRAIN_WITHOUT_NOTIFY, DRAIN_WITHOUT_NOTIFY),
    };
    let stalled = queue.starving.is_some_and(|since| now.since(since) >= stall);
    while let Some(queued) = queue.backlog.head_since() {
        let cause = if stalled {
            DropCause::Stalled
        } else if now.since(queued) >= lifetime {
            DropCause::Expired
        } else {
            return;
        };
        queue.backlog.discard();
        statistics.drop(cause);
    }
}
