//! Second step of a round: what the ready queues have, and the segments of indirect requests. Floor 3.

use super::operation::{Kind, Operation, Outcome};
use super::round::{Copied, INDIRECT_PAGES, Indirect, Round};
use super::statistics::{Counted, Failure};
use super::vbd::{Connection, Place, Standing, Vbd};
use super::{DataPath, MAX_SEGMENTS, QUEUE_REQUESTS, ROUND_REQUESTS, Stop};
use crate::blkback::request::{GuestSegment, Refusal, Request, TransferKind, parse_indirect, parse_words};
use crate::blkback::violation::Violation;
use split_driver::hypervisor::{DeviceMapping, Hypervisor};
use split_driver::kept::Keep;
use xen_pv_sys::grant_table::{CopyEnd, GrantCopy};
use xen_pv_sys::io::blkif::BLKIF_OP_READ;
use xen_pv_sys::{GrantRef, Mfn};

/// Bytes of a segment in an indirect page (`struct blkif_request_segment`).
const SEGMENT_BYTES: usize = 8;

impl<H: Hypervisor + DeviceMapping + Keep> DataPath<H> {
    /// Serves the ready queues, by turns.
    pub(super) fn collect(&mut self) {
        for _ in 0..self.ready.len() {
            if self.round.taken >= ROUND_REQUESTS {
                break;
            }
            let Some((index, number)) = self.ready.pop_front() else {
                break;
            };
            let Self { vbds, round, indirect_pages, .. } = self;
            let Some(Some(vbd)) = vbds.get_mut(usize::from(index)) else {
                continue;
            };
            if let Some(queue) = vbd.queue(number) {
                queue.ready = false;
            }
            if vbd.standing != Standing::Served {
                continue;
            }
            let place = Place { vbd: index, queue: number };
            let outcome = vbd.take_requests(place, round, indirect_pages);
            let (waits, submits) = (!vbd.waiting.is_empty(), !vbd.submit.is_empty());
            if waits {
                self.mark_hungry(index);
            }
            if submits {
                self.mark_submitting(index);
            }
            match outcome {
                Ok(stop) => self.round.served.push((index, number, stop)),
                Err(violation) => self.fail(index, violation),
            }
        }
    }

    /// First batch: what reads brought goes to the guests, and indirect segments come in.
    pub(super) fn copy_outward(&mut self) {
        if !self.round.outward.is_empty() {
            self.hypervisor.grant_copy(&mut self.round.outward);
        }
        let reads = core::mem::take(&mut self.round.reads);
        for read in &reads {
            if !copied(&self.round.outward, read)
                && let Some(Some(vbd)) = self.vbds.get_mut(usize::from(read.vbd))
                && let Some(operation) = vbd.operations.get_mut(read.operation)
            {
                operation.fail(Failure::Grant);
            }
            self.finish(read.vbd, read.operation);
        }
        self.round.reads = reads;
        let indirect = core::mem::take(&mut self.round.indirect);
        for request in &indirect {
            self.take_indirect(request);
        }
        self.round.indirect = indirect;
    }

    /// Reads the segments of an indirect request, from our copy.
    fn take_indirect(&mut self, request: &Indirect) {
        let mut bytes = [0; MAX_SEGMENTS * SEGMENT_BYTES];
        let fetched = self.round.outward.get(request.copy as usize).is_some_and(|copy| copy.status == 0);
        let bytes = bytes.get_mut(..usize::from(request.segments) * SEGMENT_BYTES);
        let Some(Some(vbd)) = self.vbds.get_mut(usize::from(request.vbd)) else {
            return;
        };
        vbd.fetching = vbd.fetching.saturating_sub(request.segments.into());
        let outcome = match bytes.filter(|_| fetched) {
            Some(bytes) => match self.pages.read(request.page, 0, bytes) {
                true => vbd.take_fetched(request.operation, bytes, request.segments),
                false => Err(Failure::Grant),
            },
            None => Err(Failure::Grant),
        };
        match outcome {
            Ok(()) => {
                vbd.waiting.push_back(request.operation);
                self.mark_hungry(request.vbd);
            }
            Err(failure) => {
                if let Some(operation) = vbd.operations.get_mut(request.operation) {
                    operation.fail(failure);
                }
                self.finish(request.vbd, request.operation);
            }
        }
    }

    pub(super) fn mark_hungry(&mut self, index: u16) {
        if let Some(Some(vbd)) = self.vbds.get_mut(usize::from(index))
            && !core::mem::replace(&mut vbd.hungry, true)
        {
            self.hungry.push_back(index);
        }
    }

    pub(super) fn mark_submitting(&mut self, index: u16) {
        if let Some(Some(vbd)) = self.vbds.get_mut(usize::from(index))
            && !core::mem::replace(&mut vbd.submitting, true)
        {
            self.submitting.push_back(index);
        }
    }
}

/// Whether all copies of a request were done.
pub(super) fn copied(batch: &[GrantCopy], request: &Copied) -> bool {
    let copies = batch.get(request.first as usize..request.end as usize).unwrap_or_default();
    copies.iter().all(|copy| copy.status == 0)
}

impl<H: Hypervisor + Keep> Vbd<H> {
    /// Takes requests of one queue, up to its share of the round. Those of the last life come first, whatever their queue.
    fn take_requests(&mut self, place: Place, round: &mut Round, indirect: &[(u32, Mfn)]) -> Result<Stop, Violation> {
        let Some(connection) = self.queues.get(usize::from(place.queue)).and_then(|queue| queue.connection.as_ref())
        else {
            return Ok(Stop::Empty);
        };
        let mut available = connection.ring.unconsumed().map_err(|error| Violation::overrun(place.queue, error))?;
        for _ in 0..QUEUE_REQUESTS {
            if available == 0 && self.inherited.is_empty() {
                return Ok(Stop::Empty);
            }
            let busy = self.barrier.is_some() || self.starved || self.operations.is_full();
            if busy || self.segments.room() < self.fetching + MAX_SEGMENTS {
                return Ok(Stop::Busy);
            }
            if round.indirect.len() >= INDIRECT_PAGES.min(indirect.len()) {
                return Ok(Stop::Budget);
            }
            let (queue_number, entry) = self.inherited.front().copied().unzip();
            let number = queue_number.unwrap_or(place.queue);
            let Some(queue) = self.queues.get_mut(usize::from(number)) else {
                return Ok(Stop::Empty);
            };
            let Some(connection) = &mut queue.connection else {
                return Ok(Stop::Empty);
            };
            let (request, entry) = match entry {
                Some(entry) => {
                    self.inherited.pop_front();
                    (parse_words(self.config.abi, &connection.journal.content(entry)), entry)
                }
                // Entries are free once their responses are seen.
                None if connection.journal.is_full() => {
                    let published = connection.ring.unpublished() == 0;
                    return Ok(if published { Stop::Busy } else { Stop::Budget });
                }
                None => {
                    available -= 1;
                    let Connection { ring, journal, .. } = connection;
                    let order = self.order;
                    self.order = order.wrapping_add(1);
                    match ring.take_noted(order, |words| journal.take(words)) {
                        (request, Some(entry)) => (request, entry),
                        (_, None) => return Ok(Stop::Budget),
                    }
                }
            };
            queue.progress = true;
            round.taken += 1;
            self.take_request(Place { queue: number, ..place }, entry, request, round, indirect);
        }
        Ok(match available {
            0 if self.inherited.is_empty() => Stop::Empty,
            _ => Stop::Budget,
        })
    }

    /// Takes one request up, or answers it at once.
    fn take_request(&mut self, place: Place, entry: u16, request: Request, round: &mut Round, indirect: &[(u32, Mfn)]) {
        let noted = (place.queue, entry);
        let operation = |kind, sector, sectors| Operation::new(noted, &request, kind, sector, sectors);
        if self.undurable && request.operation() != BLKIF_OP_READ {
            // Of no kind: a failure counts as such.
            return self.refuse(place, &operation(Kind::Flush, 0, 0), Failure::Undurable, round);
        }
        match &request {
            Request::Transfer { kind, sector, segments, .. } => {
                let kind = match kind {
                    TransferKind::Read => Kind::Read,
                    TransferKind::Write => Kind::Write,
                    TransferKind::Barrier => Kind::Barrier,
                };
                let sectors = segments.iter().map(|segment| u64::from(segment.sectors)).sum();
                self.take_transfer(place, operation(kind, *sector, sectors), segments, round);
            }
            Request::Indirect { write, sector, segments, pages, .. } => {
                let operation = operation(if *write { Kind::Write } else { Kind::Read }, *sector, 0);
                match pages.first() {
                    // One page describes as many as a request may have.
                    Some(page) if usize::from(*segments) <= MAX_SEGMENTS => {
                        self.fetch_segments(place, operation, (*page, *segments), round, indirect);
                    }
                    _ => self.refuse(place, &operation, Failure::Refused, round),
                }
            }
            Request::Flush { .. } => self.start(operation(Kind::Flush, 0, 0)),
            Request::Discard { sector, sectors, secure, .. } => {
                let operation = operation(Kind::Discard { secure: *secure }, *sector, *sectors);
                self.take_discard(place, operation, *secure, round);
            }
            &Request::Refused { id, operation, reason } => {
                let failure = match reason {
                    Refusal::Operation => Failure::Unsupported,
                    _ => Failure::Refused,
                };
                // Of no kind: a failure counts as such.
                let outcome =
                    Outcome { entry, id, operation, counted: Counted::Flush, sectors: 0, failure: Some(failure) };
                self.respond(place, &outcome, round);
            }
        }
    }

    fn take_transfer(&mut self, place: Place, operation: Operation, segments: &[GuestSegment], round: &mut Round) {
        let kind = operation.kind;
        // A barrier without data is at no place.
        if (operation.sectors > 0 || kind != Kind::Barrier)
            && let Err(failure) = self.check(kind, operation.sector, operation.sectors)
        {
            return self.refuse(place, &operation, failure, round);
        }
        let Some(number) = self.operations.insert(operation) else {
            return;
        };
        let room = self.take_segments(number, segments.iter().copied());
        debug_assert!(room.is_some(), "there was room");
        match kind {
            Kind::Barrier => {
                self.barrier = Some(number);
                self.barrier_waits = true;
            }
            _ => self.waiting.push_back(number),
        }
    }

    /// Gives an operation its segments. `None` where there is no room.
    fn take_segments(&mut self, number: u16, segments: impl IntoIterator<Item = GuestSegment>) -> Option<()> {
        let operation = self.operations.get_mut(number)?;
        operation.sectors = 0;
        for segment in segments {
            operation.sectors += u64::from(segment.sectors);
            if !self.segments.push(&mut operation.segments, segment) {
                return None;
            }
        }
        operation.enter(operation.stage);
        Some(())
    }

    /// Gives an indirect request the segments that were fetched.
    fn take_fetched(&mut self, number: u16, bytes: &[u8], count: u16) -> Result<(), Failure> {
        let segments = parse_indirect(bytes, count).map_err(|_| Failure::Refused)?;
        self.take_segments(number, segments).ok_or(Failure::Refused)?;
        let operation = self.operations.get(number).ok_or(Failure::Refused)?;
        self.check(operation.kind, operation.sector, operation.sectors)
    }

    /// Has the segments of an indirect request copied: once, so that they are what was checked.
    fn fetch_segments(
        &mut self,
        place: Place,
        operation: Operation,
        (page, segments): (GrantRef, u16),
        round: &mut Round,
        indirect: &[(u32, Mfn)],
    ) {
        let Some(&(local, frame)) = indirect.get(round.indirect.len()) else {
            return;
        };
        let Some(number) = self.operations.insert(operation) else {
            return;
        };
        let copy = round.outward.len() as u32;
        self.fetching += usize::from(segments);
        round.indirect.push(Indirect { vbd: place.vbd, operation: number, segments, copy, page: local });
        round.outward.push(GrantCopy {
            source: CopyEnd::granted(self.config.domain, page, 0),
            destination: CopyEnd::local(frame, 0),
            length: segments * SEGMENT_BYTES as u16,
            flags: GrantCopy::SOURCE_GRANT,
            status: 0,
            padding: 0,
        });
    }

    fn take_discard(&mut self, place: Place, operation: Operation, secure: bool, round: &mut Round) {
        let able = self.config.geometry.discard.is_some_and(|discard| discard.secure || !secure);
        let checked = match able {
            true => self.check(operation.kind, operation.sector, operation.sectors),
            false => Err(Failure::Unsupported),
        };
        match checked {
            Err(failure) => self.refuse(place, &operation, failure, round),
            Ok(()) if operation.sectors == 0 => self.respond(place, &operation.outcome(), round),
            Ok(()) => self.start(operation),
        }
    }

    /// Queues what needs no memory.
    fn start(&mut self, mut operation: Operation) {
        operation.queued = true;
        if let Some(number) = self.operations.insert(operation) {
            self.submit.push_back(number);
        }
    }

    fn refuse(&mut self, place: Place, operation: &Operation, failure: Failure, round: &mut Round) {
        let outcome = Outcome { failure: Some(failure), ..operation.outcome() };
        self.respond(place, &outcome, round);
    }
}
