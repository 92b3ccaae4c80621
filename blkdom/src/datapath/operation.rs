//! Requests at work: between a ring and its response. Pure. Floor 3.

use super::segments::{List, Position};
use super::statistics::{Counted, Failure};
use crate::blkback::request::Request;
use crate::disk::Tag;
use alloc::vec::Vec;
use split_driver::time::Instant;

/// Requests of one vbd at work, at most; more wait in its rings.
pub(crate) const OPERATIONS: usize = 256;

/// What a request wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Read,
    Write,
    /// A write, everything before it complete and durable before, and itself durable when it is answered.
    Barrier,
    Flush,
    Discard {
        secure: bool,
    },
}

/// What the disks are asked for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// To flush, and then the data: a barrier begins here.
    FlushBefore,
    /// The sectors.
    Data,
    /// To flush, and that is the end: a flush, and a barrier where the disk has no durable write.
    FlushAfter,
}

/// How data get to and from a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Movement {
    /// Not decided, or there are none.
    None,
    /// By way of bounce pages, which hold them one after another.
    Copied,
    /// The device reaches the guest's pages.
    Direct,
}

/// Where in a request's memory the next command begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) position: Position,
    /// Sectors of that element that were submitted.
    pub(crate) within: u8,
}

/// A request at work.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    /// Counts the uses of its place.
    generation: u16,
    pub(crate) queue: u16,
    /// Its entry in the queue's journal.
    entry: u16,
    /// The frontend's name for it.
    pub(crate) id: u64,
    /// What the response says that it is for.
    operation: u8,
    pub(crate) kind: Kind,
    pub(crate) sector: u64,
    pub(crate) sectors: u64,
    pub(crate) segments: List,
    pub(crate) movement: Movement,
    /// Its grants could not be mapped.
    pub(crate) copy_only: bool,
    pub(crate) stage: Stage,
    /// Sectors that disks took, or units that were told to flush.
    pub(crate) submitted: u64,
    pub(crate) cursor: Cursor,
    /// Commands that are not answered.
    pub(crate) parts: u32,
    /// It is in the queue of those to be submitted.
    pub(crate) queued: bool,
    /// A disk refused a durable write.
    pub(crate) no_durable_write: bool,
    /// A flush of it failed and is tried again until then.
    pub(crate) patience: Option<Instant>,
    /// What went wrong first.
    pub(crate) failure: Option<Failure>,
}

impl Operation {
    /// A request as it comes from the ring of `queue`, noted in this entry of its journal, what it is for being known.
    pub(crate) fn new((queue, entry): (u16, u16), request: &Request, kind: Kind, sector: u64, sectors: u64) -> Self {
        let stage = match kind {
            Kind::Barrier => Stage::FlushBefore,
            Kind::Flush => Stage::FlushAfter,
            _ => Stage::Data,
        };
        let segments = List::EMPTY;
        Self {
            generation: 0,
            queue,
            entry,
            id: request.id(),
            operation: request.operation(),
            kind,
            sector,
            sectors,
            segments,
            movement: Movement::None,
            copy_only: false,
            stage,
            submitted: 0,
            cursor: Cursor { position: segments.start(), within: 0 },
            parts: 0,
            queued: false,
            no_durable_write: false,
            patience: None,
            failure: None,
        }
    }

    /// Goes on to another stage, from its beginning.
    pub(crate) fn enter(&mut self, stage: Stage) {
        self.stage = stage;
        self.submitted = 0;
        self.cursor = Cursor { position: self.segments.start(), within: 0 };
    }

    /// What is said of it, and counted, as things stand.
    pub(crate) fn outcome(&self) -> Outcome {
        let counted = match self.kind {
            Kind::Read => Counted::Read,
            Kind::Write | Kind::Barrier => Counted::Write,
            Kind::Flush => Counted::Flush,
            Kind::Discard { .. } => Counted::Discard,
        };
        let &Self { entry, id, operation, sectors, failure, .. } = self;
        Outcome { entry, id, operation, counted, sectors, failure }
    }

    /// Notes what went wrong, if it is the first thing.
    pub(crate) fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }
}

/// What a response says, and what is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Its entry in the queue's journal.
    pub(crate) entry: u16,
    pub(crate) id: u64,
    pub(crate) operation: u8,
    pub(crate) counted: Counted,
    pub(crate) sectors: u64,
    pub(crate) failure: Option<Failure>,
}

/// Who a command is for: what its tag says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) vbd: u16,
    pub(crate) operation: u16,
    pub(crate) generation: u16,
    /// The unit it went to.
    pub(crate) unit: u16,
}

impl Owner {
    pub(crate) fn tag(self) -> Tag {
        let [vbd, operation, generation, unit] = [self.vbd, self.operation, self.generation, self.unit].map(u64::from);
        Tag(vbd << 48 | operation << 32 | generation << 16 | unit)
    }

    pub(crate) fn of(tag: Tag) -> Self {
        let part = |shift: u32| (tag.0 >> shift) as u16;
        Self { vbd: part(48), operation: part(32), generation: part(16), unit: part(0) }
    }
}

/// The requests of a vbd that are at work, by number.
#[derive(Default)]
pub(crate) struct Operations {
    places: Vec<Option<Operation>>,
    generations: Vec<u16>,
    free: Vec<u16>,
    limit: usize,
}

impl Operations {
    /// Bytes of heap for one request.
    pub(crate) const EACH: usize = size_of::<Option<Operation>>() + 2 * size_of::<u16>();

    /// Room for `slots` requests, or as many as one vbd may have at work: it does not grow. `None` where there is no memory.
    pub(crate) fn new(slots: usize) -> Option<Self> {
        let limit = slots.min(OPERATIONS);
        let (mut places, mut generations, mut free) = (Vec::new(), Vec::new(), Vec::new());
        places.try_reserve_exact(limit).ok()?;
        places.resize(limit, None);
        generations.try_reserve_exact(limit).ok()?;
        generations.resize(limit, 0);
        free.try_reserve_exact(limit).ok()?;
        free.extend((0..limit as u16).rev());
        Some(Self { places, generations, free, limit })
    }

    /// How many are at work.
    pub(crate) fn len(&self) -> usize {
        self.limit - self.free.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// Takes one up; `None` where there is no room.
    pub(crate) fn insert(&mut self, mut operation: Operation) -> Option<u16> {
        let number = self.free.pop()?;
        let generation = self.generations.get_mut(usize::from(number))?;
        *generation = generation.wrapping_add(1);
        operation.generation = *generation;
        *self.places.get_mut(usize::from(number))? = Some(operation);
        Some(number)
    }

    pub(crate) fn get(&self, number: u16) -> Option<&Operation> {
        self.places.get(usize::from(number))?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, number: u16) -> Option<&mut Operation> {
        self.places.get_mut(usize::from(number))?.as_mut()
    }

    /// The one that a completed command was for.
    pub(crate) fn owner(&mut self, owner: Owner) -> Option<&mut Operation> {
        self.get_mut(owner.operation).filter(|operation| operation.generation == owner.generation)
    }

    /// Who a command of operation `number` is for.
    pub(crate) fn name(&self, vbd: u16, number: u16, unit: u16) -> Owner {
        let generation = self.get(number).map_or(0, |operation| operation.generation);
        Owner { vbd, operation: number, generation, unit }
    }

    /// Lets go of one.
    pub(crate) fn remove(&mut self, number: u16) -> Option<Operation> {
        let operation = self.places.get_mut(usize::from(number))?.take()?;
        self.free.push(number);
        Some(operation)
    }

    /// Above the numbers of all.
    pub(crate) fn limit(&self) -> u16 {
        self.limit as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_find_their_operation_and_no_later_one_in_its_place() {
        let mut operations = Operations::new(2).unwrap();
        let read = Operation::new((0, 0), &Request::Flush { id: 7 }, Kind::Read, 0, 8);
        let first = operations.insert(read.clone()).unwrap();
        let owner = operations.name(3, first, 0x1234);
        assert_eq!(Owner::of(owner.tag()), owner);
        assert_eq!(operations.owner(owner).map(|operation| operation.id), Some(7));
        assert!(operations.insert(read.clone()).is_some());
        assert!(operations.is_full() && operations.insert(read.clone()).is_none());
        assert!(operations.remove(first).is_some() && operations.remove(first).is_none());
        assert!(operations.owner(owner).is_none());
        assert_eq!(operations.insert(read), Some(first));
        assert!(operations.owner(owner).is_none(), "another one");
        assert_eq!((operations.len(), operations.limit()), (2, 2));
    }
}
