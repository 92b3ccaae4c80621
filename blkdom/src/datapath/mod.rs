//! The way of requests between guests and disks, in rounds. Pure but for the hypervisor and the disks it is given. Floor 3.
//!
//! A round takes what is ready and makes at most two hypercalls for all copies, however many guests there are:
//!
//! 1. [`disks`]: what the disks completed. What reads brought is copied out in the first batch, which also fetches indirect segments.
//! 2. [`collect`]: each ready queue's requests are taken, each slot copied once, and checked.
//! 3. [`backing`]: requests get memory that the device reaches: the guest's own pages where it keeps its grants, else bounce pages of a
//!    pool. What is to be written is copied in by the second batch.
//! 4. [`submit`]: commands go to the disks, by turns between guests.
//! 5. [`finish`]: responses are published; each frontend is notified at most once a ring.
//!
//! Flushes that a device fails are tried again, by and by: [`flush`].
//!
//! A request is at work from when it is taken from its ring until its response is placed:
//!
//! ```text
//! ring ─> waiting (for memory) ─> submit (for a place in the device's queue) ─> in flight ─> response
//!           │ barrier: first for all others at work      │ a part of it, again and again      │ flush and barrier: several stages
//! ```
//!
//! From when it is taken until its response is seen it stands in its ring's journal ([`crate::blkback::journal`]), so that the domain's next life
//! does it again, before all that was not taken.
//!
//! An event channel stays masked until its ring was served to the end, so that a busy guest costs no events.

mod backing;
mod collect;
mod disks;
mod finish;
mod flush;
mod operation;
pub mod pages;
mod persistent;
mod reader;
mod room;
mod round;
mod segments;
pub mod statistics;
mod submit;
#[cfg(test)]
mod tests;
mod vbd;

use crate::blkback::config::VbdConfig;
use crate::blkback::journal::{Mark, Whereabouts};
use crate::blkback::request::MAX_INDIRECT_SEGMENTS;
use crate::blkback::violation::{AttachError, Violation};
use crate::volume::Volume;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use disks::DiskSlot;
use flush::Retries;
use pages::Pages;
use persistent::STEP_BYTES;
pub use persistent::{PERSISTENT_GRANTS, UNUSED};
pub use reader::Reader;
use reader::ReaderState;
use room::Room;
use round::Round;
use split_driver::hypervisor::{DeviceMapping, Hypervisor};
use split_driver::kept::Keep;
use split_driver::memory::PageArray;
use split_driver::time::Instant;
use split_driver::xenbus::DeviceId;
use statistics::Statistics;
pub use vbd::{Inherited, bytes_for};
use vbd::{Standing, Vbd};
use xen_pv_sys::{Mfn, Port};

/// Requests taken from one queue in a round.
const QUEUE_REQUESTS: usize = 32;
/// Requests taken from all queues in a round.
const ROUND_REQUESTS: usize = 256;
/// Segments of a request, at most.
const MAX_SEGMENTS: usize = MAX_INDIRECT_SEGMENTS;
/// Commands of one vbd in flight, at most.
const COMMANDS: u32 = 128;
/// The same where others wait for a place in the device's queue.
const SHARED_COMMANDS: u32 = 32;
/// Discards of one vbd in flight, at most: they may take a device long.
const DISCARDS: u32 = 4;
/// Sectors that one command discards: 1 GiB.
const DISCARD_SECTORS: u64 = 1 << 21;
/// Pages without which no vbd is served.
pub const PAGES_MIN: usize = MAX_SEGMENTS + round::INDIRECT_PAGES + reader::PAGES;
/// In the place of a vbd's number: the control plane's reads.
const READER: u16 = u16::MAX;

/// Names a vbd from [`DataPath::attach`] on; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VbdId {
    index: u16,
    generation: u32,
}

/// What the caller of [`DataPath::poll`] does next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Poll {
    /// There is more to do: poll again, after others had their turn.
    pub again: bool,
    /// Poll again then, events or not.
    pub deadline: Option<Instant>,
}

/// Why a look at a ring ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// No requests are left.
    Empty,
    /// There are more, for the next round.
    Budget,
    /// There are more, for when those at work are done.
    Busy,
}

/// The data path of one domain: its guests, its disks.
pub struct DataPath<H: Hypervisor + DeviceMapping + Keep> {
    hypervisor: H,
    pages: Pages,
    /// For tables of mapped grants.
    room: Room,
    /// A vbd is to give up what is in use still.
    shedding: bool,
    /// For the segments of indirect requests, within a round.
    indirect_pages: Vec<(u32, Mfn)>,
    disks: Vec<Option<DiskSlot>>,
    vbds: Vec<Option<Box<Vbd<H>>>>,
    generation: u32,
    maps: bool,
    /// Vbd and queue by local event channel.
    ports: Vec<Option<(u16, u16)>>,
    /// Queues to be served.
    ready: VecDeque<(u16, u16)>,
    /// Vbds with requests that wait for memory.
    hungry: VecDeque<u16>,
    /// Vbds with requests that the disks have not taken.
    submitting: VecDeque<u16>,
    /// Those of a list at hand that cannot go on.
    stuck: VecDeque<u16>,
    /// A request ended in this round behind the step that starts barriers and gives memory.
    ended_late: bool,
    /// Requests whose flush failed and is tried again.
    retries: Retries,
    round: Round,
    reader: ReaderState,
    failed: VecDeque<(VbdId, Violation)>,
    wake: Option<Instant>,
    /// When the last round was.
    now: Instant,
}

impl<H: Hypervisor + DeviceMapping + Keep> DataPath<H> {
    /// No vbd, no disk. `memory` holds data on their way: for the largest request ([`MAX_INDIRECT_SEGMENTS`] pages) at least, and some more
    /// for those that must never wait (indirect segments, the control plane's reads).
    pub fn new(hypervisor: H, memory: Box<dyn PageArray>) -> Self {
        let mut pages = Pages::new(memory);
        let indirect_pages =
            (0..round::INDIRECT_PAGES).map_while(|_| pages.take().map(|page| (page, pages.frame(page)))).collect();
        let reader = ReaderState::new(&mut pages);
        Self {
            hypervisor,
            pages,
            room: Room::new(usize::MAX),
            shedding: false,
            indirect_pages,
            disks: Vec::new(),
            vbds: Vec::new(),
            generation: 0,
            maps: false,
            ports: Vec::new(),
            ready: VecDeque::new(),
            hungry: VecDeque::new(),
            submitting: VecDeque::new(),
            stuck: VecDeque::new(),
            ended_late: false,
            retries: Retries::default(),
            round: Round::default(),
            reader,
            failed: VecDeque::new(),
            wake: None,
            now: Instant::default(),
        }
    }

    /// Whether the data of frontends that do not keep their grants are reached by the device in their own pages, mapped for each
    /// request, in place of being copied. For those that are attached from now on.
    pub fn map_requests(&mut self, maps: bool) {
        self.maps = maps;
    }

    /// Bounds the heap that tables of mapped grants take. To be said before the first vbd is attached.
    pub fn bound_tables(&mut self, bytes: usize) {
        self.room = Room::new(bytes / STEP_BYTES);
    }

    /// Bytes of heap that tables of mapped grants take.
    pub fn table_bytes(&self) -> usize {
        self.room.lent() * STEP_BYTES
    }

    /// The hypervisor it was given.
    pub fn hypervisor(&self) -> &H {
        &self.hypervisor
    }

    /// The pages that data pass through.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Takes a frontend's rings up.
    ///
    /// # Errors
    /// What could not be had; nothing is left behind.
    pub fn attach(&mut self, config: VbdConfig) -> Result<VbdId, AttachError> {
        self.take_up(config, false)
    }

    /// Takes up the rings of a frontend that the last life served: what that one had taken of them and not answered is done again, first.
    /// Gives where its volume lay; `None` where its disk was gone by then. Where this one does not lie there, [`lose_disk`](Self::lose_disk) is
    /// to be called before the next round.
    ///
    /// # Errors
    /// As of [`attach`](Self::attach); [`AttachError::Journal`].
    pub fn adopt(&mut self, config: VbdConfig) -> Result<(VbdId, Option<Whereabouts>), AttachError> {
        let id = self.take_up(config, true)?;
        Ok((id, self.vbd_of(id).filter(|vbd| !vbd.gone).and_then(|vbd| vbd.whereabouts())))
    }

    /// What a vbd that was [adopted](Self::adopt) has of requests that the last life took: all of them before the first round.
    pub fn inherited(&mut self, id: VbdId) -> Inherited {
        self.vbd_of(id).map(|vbd| vbd.inherited()).unwrap_or_default()
    }

    /// The disk of a vbd is gone, and what came back in its place may have lost what a cache held, or is another one: what is asked of the vbd
    /// fails, in later lives as well.
    pub fn lose_disk(&mut self, id: VbdId) {
        if let Some(vbd) = self.vbd_of(id) {
            vbd.gone = true;
            vbd.mark(Mark::Gone);
            vbd.config.volume = Volume::gone();
            vbd.units = vbd.config.volume.units();
        }
    }

    fn take_up(&mut self, config: VbdConfig, inherits: bool) -> Result<VbdId, AttachError> {
        if self.pages.capacity() < PAGES_MIN {
            return Err(AttachError::NoPlace);
        }
        let free = self.vbds.iter().position(Option::is_none).unwrap_or(self.vbds.len());
        let index = u16::try_from(free).ok().filter(|index| *index != READER).ok_or(AttachError::NoPlace)?;
        let generation = self.generation.wrapping_add(1);
        let vbd = Vbd::connect(&self.hypervisor, config, self.maps, generation, inherits)?;
        self.generation = generation;
        self.room.join();
        for (queue, local) in vbd.local_ports() {
            let place = local.0 as usize;
            if self.ports.len() <= place {
                self.ports.resize(place + 1, None);
            }
            if let Some(entry) = self.ports.get_mut(place) {
                *entry = Some((index, queue));
            }
        }
        let queues = vbd.queues.len();
        match self.vbds.get_mut(free) {
            Some(place) => *place = Some(Box::new(vbd)),
            None => self.vbds.push(Some(Box::new(vbd))),
        }
        // Requests may have been made before the channel was there.
        for queue in (0..queues).zip(0..).map(|(_, queue)| queue) {
            self.mark_ready(index, queue);
        }
        Ok(VbdId { index, generation })
    }

    /// Lets go of a vbd's rings and channels at once, and of its pages as soon as no device works on them:
    /// [`is_settled`](Self::is_settled) says when. Its statistics are what is left of it.
    pub fn detach(&mut self, id: VbdId) -> Option<Statistics> {
        let vbd = self.vbd_of(id)?;
        if vbd.standing == Standing::Draining {
            return None;
        }
        vbd.standing = Standing::Draining;
        let statistics = vbd.statistics;
        let ports: Vec<_> = vbd.local_ports().collect();
        for queue in &mut vbd.queues {
            queue.connection = None;
        }
        for (_, local) in ports {
            if let Some(entry) = self.ports.get_mut(local.0 as usize) {
                *entry = None;
            }
        }
        self.ready.retain(|(index, _)| *index != id.index);
        self.drop_idle(id.index);
        Some(statistics)
    }

    /// Whether nothing of a device's memory is in use: it was never attached, or was detached and its last command is done.
    pub fn is_settled(&self, device: DeviceId) -> bool {
        let same = |vbd: &Vbd<H>| vbd.config.domain == device.frontend && vbd.config.handle == device.handle;
        !self.vbds.iter().flatten().any(|vbd| same(vbd))
    }

    /// An event came in on a channel, which is masked from now on until its ring was served.
    pub fn handle_event(&mut self, local: Port, _now: Instant) {
        let Some(&Some((index, number))) = self.ports.get(local.0 as usize) else {
            return;
        };
        if let Some(Some(vbd)) = self.vbds.get_mut(usize::from(index))
            && let Some(queue) = vbd.queue(number)
        {
            queue.event = true;
            queue.masked = true;
            self.mark_ready(index, number);
        }
    }

    /// A vbd that broke the protocol and is served no more; the caller detaches it and says why.
    pub fn poll_failed(&mut self) -> Option<(VbdId, Violation)> {
        self.failed.pop_front()
    }

    /// One round.
    pub fn poll(&mut self, now: Instant) -> Poll {
        self.now = now;
        self.look_at_timers();
        self.share_tables();
        self.retry_flushes();
        self.poll_disks();
        self.relieve();
        self.collect();
        self.copy_outward();
        self.back();
        self.copy_inward();
        self.submit();
        self.ring_disks();
        self.unmap();
        self.publish();
        self.settle();
        self.round.clear();
        // What a request that ended late leaves to others, they have in another round.
        let mut again =
            !self.ready.is_empty() || self.ended_late && (!self.hungry.is_empty() || self.has_barrier_to_start());
        if !again {
            again = self.enable_interrupts();
        }
        let deadline = [self.wake, self.disk_deadline(), self.retries.deadline()].into_iter().flatten().min();
        Poll { again, deadline }
    }

    /// The counters of a vbd.
    pub fn vbd_statistics(&self, id: VbdId) -> Option<Statistics> {
        let vbd = self.vbds.get(usize::from(id.index))?.as_ref()?;
        (vbd.generation == id.generation).then_some(vbd.statistics)
    }

    /// A vbd counts on from what it counted in earlier lives.
    pub fn restore_vbd(&mut self, id: VbdId, counted: Statistics) {
        if let Some(vbd) = self.vbd_of(id) {
            vbd.statistics += counted;
        }
    }

    /// The volume is another one now: larger, mostly. What is at work beyond a new end fails.
    pub fn resize(&mut self, id: VbdId, volume: Volume, whereabouts: Whereabouts) {
        if let Some(vbd) = self.vbd_of(id) {
            vbd.set_whereabouts(whereabouts);
            vbd.units = volume.units();
            vbd.config.volume = volume;
        }
    }

    fn vbd_of(&mut self, id: VbdId) -> Option<&mut Vbd<H>> {
        let vbd = self.vbds.get_mut(usize::from(id.index))?.as_deref_mut()?;
        (vbd.generation == id.generation).then_some(vbd)
    }

    fn mark_ready(&mut self, index: u16, number: u16) {
        if let Some(Some(vbd)) = self.vbds.get_mut(usize::from(index))
            && vbd.standing == Standing::Served
            && let Some(queue) = vbd.queue(number)
            && !queue.ready
        {
            queue.ready = true;
            self.ready.push_back((index, number));
        }
    }

    fn wake_at(&mut self, at: Instant) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// Takes nothing more from a vbd that broke the protocol.
    fn fail(&mut self, index: u16, violation: Violation) {
        if let Some(Some(vbd)) = self.vbds.get_mut(usize::from(index))
            && vbd.standing == Standing::Served
        {
            vbd.standing = Standing::Broken;
            let id = VbdId { index, generation: vbd.generation };
            self.failed.push_back((id, violation));
        }
    }

    /// Does what became due: queues to be served again, channels to be unmasked, grants that were unused for long.
    fn look_at_timers(&mut self) {
        if self.wake.is_none_or(|wake| wake > self.now) {
            return;
        }
        let now = self.now;
        let mut next: Option<Instant> = None;
        let mut sooner = |at: Option<Instant>| next = next.into_iter().chain(at).min();
        for (index, vbd) in self.vbds.iter_mut().zip(0..).filter_map(|(vbd, index)| Some((index, vbd.as_mut()?))) {
            if vbd.standing != Standing::Served {
                continue;
            }
            for (queue, number) in vbd.queues.iter_mut().zip(0..) {
                let due = queue.persistent.age(now, &mut self.round.unmap);
                // Where all are in use, one may be unused later.
                sooner(due.or((queue.persistent.mapped() > 0).then(|| now + UNUSED)));
                if queue.wake.is_some_and(|wake| wake <= now) {
                    queue.wake = None;
                    if !queue.ready {
                        queue.ready = true;
                        self.ready.push_back((index, number));
                    }
                }
                sooner(queue.wake);
            }
            vbd.return_steps(&mut self.room);
        }
        self.wake = next;
    }

    /// Has those with more than their part of the room for tables give a step back, where one got less.
    fn share_tables(&mut self) {
        let short = self.room.take_short();
        if !short && !self.shedding {
            return;
        }
        self.shedding = false;
        let part = self.room.part();
        for vbd in self.vbds.iter_mut().flatten() {
            if short && vbd.steps > part && !vbd.is_shedding() {
                vbd.shed(&mut self.round.unmap);
            }
            vbd.return_steps(&mut self.room);
            self.shedding |= vbd.is_shedding();
        }
    }
}
