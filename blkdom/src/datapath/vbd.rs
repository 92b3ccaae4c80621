//! All that is known of one guest's disk: its rings, and its requests at work. Pure but for the hypervisor it is given. Floor 3.

use super::operation::{Kind, OPERATIONS, Operation, Operations, Outcome};
use super::pages::Pages;
use super::persistent::Persistent;
use super::room::{Loan, Room};
use super::round::Round;
use super::segments::{Backing, Element, List, Segments};
use super::statistics::{Failure, Statistics};
use crate::blkback::config::VbdConfig;
use crate::blkback::request::{Answer, RequestRing};
use crate::blkback::violation::AttachError;
use crate::volume::UnitRef;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use split_driver::hypervisor::{DevicePage, EventChannel, Hypervisor};
use split_driver::throttle::Throttle;
use split_driver::time::Instant;
use xen_pv_sys::Port;
use xen_pv_sys::io::blkif::{BLKIF_RSP_EOPNOTSUPP, BLKIF_RSP_ERROR, BLKIF_RSP_OKAY};

/// A ring and its channel, as long as the frontend is served.
pub(crate) struct Connection<H: Hypervisor> {
    pub(crate) ring: RequestRing<H::Ring>,
    pub(crate) channel: H::Channel,
}

/// One of a vbd's queues.
pub(crate) struct Queue<H: Hypervisor> {
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

impl<H: Hypervisor> Queue<H> {
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

/// A vbd, connected.
pub(crate) struct Vbd<H: Hypervisor> {
    pub(crate) generation: u32,
    pub(crate) config: VbdConfig,
    /// The device reaches its pages by itself.
    pub(crate) maps: bool,
    /// The units under its volume.
    pub(crate) units: Vec<UnitRef>,
    pub(crate) queues: Vec<Queue<H>>,
    pub(crate) operations: Operations,
    pub(crate) segments: Segments,
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
    /// A flush failed for good: nothing is written any more.
    pub(crate) undurable: bool,
    pub(crate) standing: Standing,
    pub(crate) statistics: Statistics,
}

impl<H: Hypervisor> Vbd<H> {
    /// Maps the rings and binds the channels.
    ///
    /// # Errors
    /// What could not be had; all else is given back.
    pub(crate) fn connect(hypervisor: &H, config: VbdConfig, maps: bool, generation: u32) -> Result<Self, AttachError> {
        let mut queues = Vec::with_capacity(config.queues.len());
        let mut slots = 0;
        for (number, queue) in config.queues.iter().enumerate() {
            let memory = hypervisor
                .map_ring(config.domain, &queue.ring)
                .map_err(|error| AttachError::Map { queue: number as u16, error })?;
            let ring = RequestRing::attach(memory, config.abi)
                .map_err(|error| AttachError::Ring { queue: number as u16, error })?;
            let channel = hypervisor
                .bind_interdomain(config.domain, queue.port)
                .map_err(|error| AttachError::Bind { queue: number as u16, error })?;
            slots += ring.slots() as usize;
            queues.push(Queue {
                connection: Some(Connection { ring, channel }),
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
        let operations = Operations::new(slots).ok_or(AttachError::NoMemory)?;
        let maps = maps || config.persistent;
        Ok(Self {
            generation,
            units: config.volume.units(),
            maps,
            config,
            queues,
            segments: Segments::new(slots).ok_or(AttachError::NoMemory)?,
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
            undurable: false,
            standing: Standing::Served,
            statistics: Statistics::default(),
        })
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
