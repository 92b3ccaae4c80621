//! All that is known of one guest's disk: its rings, and its requests at work. Pure but for the hypervisor it is given. Floor 3.

use super::operation::{Kind, OPERATIONS, Operation, Operations, Outcome};
use super::pages::Pages;
use super::persistent::Persistent;
use super::room::{Loan, Room};
use super::round::Round;
use super::segments::{Backing, Element, List, Segments};
use super::statistics::{Failure, Statistics};
use crate::blkback::config::{QueueConfig, VbdConfig};
use crate::blkback::journal::{Journal, Left, Mark, Unanswered, Whereabouts, Whose, journal_room, sort_by_order};
use crate::blkback::request::{Answer, Request, RequestRing, TransferKind, parse_words};
use crate::blkback::violation::AttachError;
use crate::volume::{UnitRef, Volume};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;
use split_driver::hypervisor::{DevicePage, EventChannel, Hypervisor};
use split_driver::kept::Keep;
use split_driver::ring::BackState;
use split_driver::throttle::Throttle;
use split_driver::time::Instant;
use xen_pv_sys::Port;
use xen_pv_sys::io::blkif::{BLKIF_RSP_EOPNOTSUPP, BLKIF_RSP_ERROR, BLKIF_RSP_OKAY};

/// A ring and its channel, as long as the frontend is served.
pub(crate) struct Connection<H: Hypervisor + Keep> {
    pub(crate) ring: RequestRing<H::Ring>,
    pub(crate) channel: H::Channel,
    pub(crate) journal: Journal<H::Page>,
}

impl<H: Hypervisor + Keep> Connection<H> {
    /// Lets the frontend see the responses placed. True where it waits for an event.
    pub(crate) fn publish(&mut self) -> bool {
        let produced = self.ring.state().produced;
        self.journal.intend(produced);
        let waits = self.ring.push_and_check_notify();
        self.journal.complete(produced);
        waits
    }
}

/// One of a vbd's queues.
pub(crate) struct Queue<H: Hypervisor + Keep> {
    pub(crate) connection: Option<Connection<H>>,
    pub(crate) persistent: Persistent,
    /// Its event was delivered and not yet acknowledged.
    pub(crate) masked: bool,
    /// An event came since it was last served.
    pub(crate) event: bool,
    /// Whether there was anything to do since then.
    pub(crate) progress: bool,
    pub(crate) throttle: Throttle,
    /// In the list of those to be served.
    pub(crate) ready: bool,
    /// Its requests wait for those at work.
    pub(crate) blocked: bool,
    /// Responses placed in this round.
    pub(crate) touched: bool,
    /// Served again then.
    pub(crate) wake: Option<Instant>,
}

impl<H: Hypervisor + Keep> Queue<H> {
    fn has_mark(&self, mark: Mark) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.journal.has(mark))
    }

    /// Acknowledges, late: only now may the next event come.
    pub(crate) fn unmask(&mut self) {
        if let Some(connection) = &self.connection
            && core::mem::take(&mut self.masked)
        {
            connection.channel.unmask();
        }
    }
}

/// How a vbd stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Served,
    /// It broke the protocol: nothing more is taken from it.
    Broken,
    /// Its frontend is gone; commands are in flight still.
    Draining,
}

/// Requests that the last life had taken and not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Inherited {
    /// All of them.
    pub requests: usize,
    /// Writes and barriers among them.
    pub writes: usize,
    /// Indirect writes among them.
    pub indirect_writes: usize,
}

impl fmt::Display for Inherited {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { requests, writes, indirect_writes } = self;
        write!(formatter, "requests unanswered: {requests}, direct writes {writes}, indirect writes {indirect_writes}")
    }
}

/// A vbd, connected.
pub(crate) struct Vbd<H: Hypervisor + Keep> {
    pub(crate) generation: u32,
    pub(crate) config: VbdConfig,
    /// The device reaches its pages by itself.
    pub(crate) maps: bool,
    /// The units under its volume.
    pub(crate) units: Vec<UnitRef>,
    pub(crate) queues: Vec<Queue<H>>,
    pub(crate) operations: Operations,
    pub(crate) segments: Segments,
    /// Requests that the last life had taken and not answered, by queue and entry of its journal, in their order: they come first.
    pub(crate) inherited: VecDeque<(u16, u16)>,
    /// Counts the requests taken.
    pub(crate) order: u32,
    /// Requests without memory for the device yet, in their order.
    pub(crate) waiting: VecDeque<u16>,
    /// The first of them got none; nothing more is taken from the rings.
    pub(crate) starved: bool,
    /// In the list of those that wait for memory.
    pub(crate) hungry: bool,
    /// Requests that the disks have not taken altogether, in their order.
    pub(crate) submit: VecDeque<u16>,
    /// In the list of those with such requests.
    pub(crate) submitting: bool,
    /// A barrier that waits for all requests before it, or is at work.
    pub(crate) barrier: Option<u16>,
    /// It waits still.
    pub(crate) barrier_waits: bool,
    /// Segments of requests that are on their way, in this round.
    pub(crate) fetching: usize,
    /// Commands in flight.
    pub(crate) commands: u32,
    /// Those among them that discard.
    pub(crate) discards: u32,
    /// Bounce pages in use.
    pub(crate) pages: usize,
    /// Grants to be mapped in this round, by queue and place.
    pub(crate) to_map: Vec<(u16, u16)>,
    /// Steps of all tables of grants that it has of the domain's.
    pub(crate) steps: usize,
    /// In the list of those with room again.
    pub(crate) relieved: bool,
    /// A flush failed for good: nothing is written from then on.
    pub(crate) undurable: bool,
    /// Its disk is gone, in this life or in an earlier one.
    pub(crate) gone: bool,
    pub(crate) standing: Standing,
    pub(crate) statistics: Statistics,
}

impl<H: Hypervisor + Keep> Vbd<H> {
    /// Maps the rings and binds the channels; goes on where the last life ended, where this one `inherits` the vbd.
    ///
    /// # Errors
    /// What could not be had; all else is given back.
    pub(crate) fn connect(
        hypervisor: &H,
        mut config: VbdConfig,
        maps: bool,
        generation: u32,
        inherits: bool,
    ) -> Result<Self, AttachError> {
        let mut queues = Vec::with_capacity(config.queues.len());
        let mut slots = 0;
        let mut unanswered = Vec::new();
        for (queue, number) in config.queues.iter().zip(0..) {
            let (connection, left) = connect_queue(hypervisor, &config, (number, queue), inherits)?;
            slots += connection.ring.slots() as usize;
            unanswered.extend(left.into_iter().map(|(order, entry)| (order, number, entry)));
            queues.push(Queue {
                connection: Some(connection),
                persistent: Persistent::new(config.persistent),
                masked: false,
                event: false,
                progress: false,
                throttle: Throttle::new(),
                ready: false,
                blocked: false,
                touched: false,
                wake: None,
            });
        }
        sort_by_order(&mut unanswered, |(order, ..)| *order);
        let has = |mark| queues.iter().any(|queue| queue.has_mark(mark));
        let (undurable, gone) = (has(Mark::Undurable), has(Mark::Gone));
        if gone {
            config.volume = Volume::gone();
        }
        let operations = Operations::new(slots).ok_or(AttachError::NoMemory)?;
        let maps = maps || config.persistent;
        Ok(Self {
            generation,
            units: config.volume.units(),
            maps,
            config,
            queues,
            segments: Segments::new(slots).ok_or(AttachError::NoMemory)?,
            order: unanswered.last().map_or(0, |(order, ..)| order.wrapping_add(1)),
            inherited: unanswered.into_iter().map(|(_, queue, entry)| (queue, entry)).collect(),
            waiting: list(&operations)?,
            starved: false,
            hungry: false,
            submit: list(&operations)?,
            operations,
            submitting: false,
            barrier: None,
            barrier_waits: false,
            fetching: 0,
            commands: 0,
            discards: 0,
            pages: 0,
            to_map: Vec::new(),
            steps: 0,
            relieved: false,
            undurable,
            gone,
            standing: Standing::Served,
            statistics: Statistics::default(),
        })
    }

    /// What is left of the requests of the last life: all of them before the first round.
    pub(crate) fn inherited(&self) -> Inherited {
        let mut inherited = Inherited { requests: self.inherited.len(), ..Inherited::default() };
        for (queue, entry) in &self.inherited {
            let connection = self.queues.get(usize::from(*queue)).and_then(|queue| queue.connection.as_ref());
            match connection.map(|connection| parse_words(self.config.abi, &connection.journal.content(*entry))) {
                Some(Request::Transfer { kind: TransferKind::Write | TransferKind::Barrier, .. }) => {
                    inherited.writes += 1;
                }
                Some(Request::Indirect { write: true, .. }) => inherited.indirect_writes += 1,
                _ => {}
            }
        }
        inherited
    }

    /// The local ports of its channels, by queue.
    pub(crate) fn local_ports(&self) -> impl Iterator<Item = (u16, Port)> {
        let ports = self.queues.iter().zip(0..);
        ports.filter_map(|(queue, number)| Some((number, queue.connection.as_ref()?.channel.port())))
    }

    pub(crate) fn queue(&mut self, number: u16) -> Option<&mut Queue<H>> {
        self.queues.get_mut(usize::from(number))
    }

    /// Whether a barrier waits for other requests, and none is left.
    pub(crate) fn may_start_barrier(&self) -> bool {
        self.barrier_waits && self.operations.len() == 1
    }

    /// Whether a range of sectors may be asked for like that.
    pub(crate) fn check(&self, kind: Kind, sector: u64, sectors: u64) -> Result<(), Failure> {
        if self.config.read_only && kind != Kind::Read {
            return Err(Failure::Refused);
        }
        let block = u64::from(self.config.geometry.logical_block / crate::disk::SECTOR_BYTES).max(1);
        let whole = sector.is_multiple_of(block) && sectors.is_multiple_of(block);
        match whole && self.config.volume.contains(sector, sectors) {
            true => Ok(()),
            false => Err(Failure::Refused),
        }
    }

    /// Where its volume lay, by the first journal.
    pub(crate) fn whereabouts(&self) -> Option<Whereabouts> {
        self.queues.first()?.connection.as_ref()?.journal.whereabouts()
    }

    /// Notes where its volume lies.
    pub(crate) fn set_whereabouts(&self, whereabouts: Whereabouts) {
        if let Some(connection) = self.queues.first().and_then(|queue| queue.connection.as_ref()) {
            connection.journal.set_whereabouts(whereabouts);
        }
    }

    /// Notes something for this life and those after it.
    pub(crate) fn mark(&self, mark: Mark) {
        for connection in self.queues.iter().filter_map(|queue| queue.connection.as_ref()) {
            connection.journal.mark(mark);
        }
    }

    /// Places a response, and counts. Nothing where the frontend is served no more.
    pub(crate) fn respond(&mut self, place: Place, outcome: &Outcome, round: &mut Round) {
        match outcome.failure {
            Some(failure) => self.statistics.fail(failure),
            None => self.statistics.count(outcome.counted, outcome.sectors),
        }
        if self.standing != Standing::Served {
            return;
        }
        let Some(queue) = self.queues.get_mut(usize::from(place.queue)) else {
            return;
        };
        let Some(connection) = &mut queue.connection else {
            return;
        };
        let status = match outcome.failure {
            None => BLKIF_RSP_OKAY,
            Some(Failure::Unsupported) => BLKIF_RSP_EOPNOTSUPP,
            Some(_) => BLKIF_RSP_ERROR,
        };
        connection.journal.answer(outcome.entry, connection.ring.state().produced);
        connection.ring.push(Answer { id: outcome.id, operation: outcome.operation, status });
        if !queue.touched {
            queue.touched = true;
            round.touched.push((place.vbd, place.queue));
        }
    }

    /// Lets go of a request: its memory and its place.
    pub(crate) fn release(
        &mut self,
        index: u16,
        number: u16,
        pages: &mut Pages,
        round: &mut Round,
    ) -> Option<Operation> {
        let operation = self.operations.remove(number)?;
        self.release_memory(operation.segments, operation.queue, pages, &mut round.unmap);
        self.segments.release(operation.segments);
        if self.barrier == Some(number) {
            self.barrier = None;
            self.barrier_waits = false;
        }
        self.relieve(index, round);
        Some(operation)
    }

    /// Has the queues served again that wait for requests at work.
    pub(crate) fn relieve(&mut self, index: u16, round: &mut Round) {
        if !self.relieved {
            self.relieved = true;
            round.relieved.push(index);
        }
    }

    /// Gives up a step of its largest table, for those who have less than their part.
    pub(crate) fn shed(&mut self, unmap: &mut Vec<DevicePage>) {
        let tables = self.queues.iter_mut().map(|queue| &mut queue.persistent);
        if let Some(table) = tables.max_by_key(|table| table.limit()) {
            table.shed(unmap);
        }
    }

    /// Whether a table gives up what is in use still.
    pub(crate) fn is_shedding(&self) -> bool {
        self.queues.iter().any(|queue| queue.persistent.is_shedding())
    }

    /// Gives back the steps that its tables have done without.
    pub(crate) fn return_steps(&mut self, room: &mut Room) {
        let returned = self.queues.iter_mut().map(|queue| queue.persistent.take_returned()).sum();
        Loan { room, held: &mut self.steps }.give(returned);
    }

    /// Gives back what backs a request.
    pub(crate) fn release_memory(&mut self, list: List, queue: u16, pages: &mut Pages, unmap: &mut Vec<DevicePage>) {
        let mut persistent = self.queues.get_mut(usize::from(queue)).map(|queue| &mut queue.persistent);
        let mut position = list.start();
        while let Some(element) = self.segments.get_mut(position) {
            match core::mem::replace(&mut element.backing, Backing::None) {
                Backing::None => {}
                Backing::Page(page) => {
                    pages.give(page);
                    self.pages = self.pages.saturating_sub(1);
                }
                Backing::Mapped(place) => {
                    if let Some(persistent) = &mut persistent {
                        persistent.release(place, unmap);
                    }
                }
            }
            position = self.segments.next(position);
        }
    }
}

/// Maps a ring and binds its channel. Gives the requests without an answer that the last life had taken, where this one `inherits` the ring.
fn connect_queue<H: Hypervisor + Keep>(
    hypervisor: &H,
    config: &VbdConfig,
    (queue, nodes): (u16, &QueueConfig),
    inherits: bool,
) -> Result<(Connection<H>, Unanswered), AttachError> {
    let map = |error| AttachError::Map { queue, error };
    let made = |error| AttachError::Ring { queue, error };
    let memory = hypervisor.map_ring(config.domain, &nodes.ring).map_err(map)?;
    let mut ring = RequestRing::attach(memory, config.abi).map_err(made)?;
    let visible = ring.state().published;
    let VbdConfig { domain, handle, abi, whereabouts, .. } = *config;
    let whose = Whose { domain, handle, queue, abi, room: journal_room(ring.slots(), config.queues.len()) };
    let (journal, unanswered) = if inherits {
        let recovered = Journal::recover(hypervisor, &whose, visible);
        let (journal, left) = recovered.map_err(|error| AttachError::Journal { queue, error })?;
        let Left { published, unanswered } = left;
        let consumed = published.wrapping_add(unanswered.len() as u32);
        let state = BackState { consumed, produced: published, published };
        ring = RequestRing::resume(ring.into_memory(), abi, state).map_err(made)?;
        (journal, unanswered)
    } else {
        let journal = Journal::begin(hypervisor, &whose, whereabouts, visible);
        (journal.map_err(|_| AttachError::NoMemory)?, Vec::new())
    };
    let bind = |error| AttachError::Bind { queue, error };
    let channel = hypervisor.bind_interdomain(config.domain, nodes.port).map_err(bind)?;
    Ok((Connection { ring, channel, journal }, unanswered))
}

/// An empty list of requests that never grows.
fn list(operations: &Operations) -> Result<VecDeque<u16>, AttachError> {
    let mut list = VecDeque::new();
    list.try_reserve_exact(operations.limit().into()).map_err(|_| AttachError::NoMemory)?;
    Ok(list)
}

/// The bytes of heap that a vbd has for its requests from the beginning, with `slots` slots in all its rings. The tables of grants that stay
/// mapped come from the domain's [`Room`].
pub fn bytes_for(slots: usize) -> usize {
    let (requests, segments) = (slots.min(OPERATIONS), Segments::capacity(slots));
    let lists = requests * 2 * size_of::<u16>() + segments * size_of::<(u16, u16)>();
    requests * Operations::EACH + segments * size_of::<Element>() + lists
}

/// Whose request it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) vbd: u16,
    pub(crate) queue: u16,
}
