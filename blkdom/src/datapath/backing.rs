//! Third step of a round: memory that the device reaches, for requests that move data. Floor 3.
//!
//! A frontend that keeps its grants has them mapped for the device: nothing is copied. So has any other one, request by request, where
//! that is wanted. Else, and where that cannot be, bounce pages are
//! taken from the pool, each vbd's requests in their order and the vbds by turns. Where the pool is empty, pages that come back go to
//! the vbd that waits longest, and nobody has more than half while others are there: so no guest starves, whatever its neighbours do.

use super::collect::copied;
use super::operation::{Kind, Movement};
use super::pages::Pages;
use super::persistent::Found;
use super::room::{Loan, Room};
use super::round::{Copied, Round};
use super::segments::{Backing, Segments};
use super::statistics::Failure;
use super::vbd::{Standing, Vbd};
use super::{DataPath, MAX_SEGMENTS, UNUSED};
use crate::blkback::request::SECTORS_PER_PAGE;
use crate::disk::SECTOR_BYTES;
use alloc::vec::Vec;
use split_driver::hypervisor::{DeviceMap, DeviceMapping, DevicePage, Hypervisor};
use split_driver::kept::Keep;
use split_driver::time::Instant;
use xen_pv_sys::grant_table::{CopyEnd, GrantCopy};
use xen_pv_sys::{DomainId, GrantRef, PAGE_SIZE};

/// How a try to give a request memory ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// It has some, or failed.
    Done,
    /// Its vbd has as much as it may have.
    Share,
    /// The pool is empty.
    Empty,
}

impl<H: Hypervisor + DeviceMapping + Keep> DataPath<H> {
    /// Gives memory to those that wait for it.
    pub(super) fn back(&mut self) {
        self.ended_late = false;
        self.start_barriers();
        self.back_all();
        while !self.round.mapping.is_empty() {
            self.unmap();
            self.map();
            // Those whose grants could not be mapped.
            self.back_all();
        }
    }

    /// Starts the barriers that nothing is left before.
    fn start_barriers(&mut self) {
        for index in 0..self.vbds.len() {
            let Some(Some(vbd)) = self.vbds.get_mut(index) else {
                continue;
            };
            let Some(number) = vbd.barrier.filter(|_| vbd.may_start_barrier()) else {
                continue;
            };
            vbd.barrier_waits = false;
            vbd.waiting.push_back(number);
            self.mark_hungry(index as u16);
        }
    }

    /// Whether there is a barrier that nothing is left before.
    pub(super) fn has_barrier_to_start(&self) -> bool {
        self.vbds.iter().flatten().any(|vbd| vbd.may_start_barrier())
    }

    fn back_all(&mut self) {
        let share = match self.vbds.iter().flatten().count() {
            0 | 1 => self.pages.capacity(),
            _ => (self.pages.capacity() / 2).max(MAX_SEGMENTS),
        };
        let mut empty = false;
        while let Some(index) = self.hungry.pop_front() {
            let turn = self.back_one(index, share, empty);
            let Some(Some(vbd)) = self.vbds.get_mut(usize::from(index)) else {
                continue;
            };
            if turn == Turn::Done && vbd.waiting.is_empty() {
                vbd.hungry = false;
                if core::mem::take(&mut vbd.starved) {
                    vbd.relieve(index, &mut self.round);
                }
            } else if turn == Turn::Done {
                self.hungry.push_back(index);
            } else {
                vbd.starved = true;
                empty |= turn == Turn::Empty;
                self.stuck.push_back(index);
            }
        }
        core::mem::swap(&mut self.hungry, &mut self.stuck);
    }

    /// Gives the first waiting request of a vbd memory.
    fn back_one(&mut self, index: u16, share: usize, empty: bool) -> Turn {
        let Self { vbds, pages, room, round, now, .. } = self;
        let Some(Some(vbd)) = vbds.get_mut(usize::from(index)) else {
            return Turn::Done;
        };
        let Some(&number) = vbd.waiting.front() else {
            return Turn::Done;
        };
        let new_grants = vbd.to_map.len();
        let turn = if vbd.map_segments(number, *now, room, round) {
            match vbd.to_map.len() > new_grants || vbd.awaits_map(number) {
                true => {
                    round.mapped.push((index, number));
                    if round.mapping.last() != Some(&index) && !round.mapping.contains(&index) {
                        round.mapping.push(index);
                    }
                }
                false => self.queue(index, number),
            }
            Turn::Done
        } else {
            match vbd.take_pages(number, pages, share, empty) {
                Ok(()) => {
                    match vbd.operations.get(number).is_some_and(|operation| operation.kind == Kind::Read) {
                        true => self.queue(index, number),
                        false => {
                            let first = round.inward.len() as u32;
                            vbd.plan_copies(number, pages, Direction::Inward, &mut round.inward);
                            let end = round.inward.len() as u32;
                            round.writes.push(Copied { vbd: index, operation: number, first, end });
                        }
                    }
                    Turn::Done
                }
                Err(turn) => turn,
            }
        };
        if turn == Turn::Done
            && let Some(Some(vbd)) = self.vbds.get_mut(usize::from(index))
        {
            vbd.waiting.pop_front();
        }
        turn
    }

    /// Maps the grants that this round's requests need, each vbd's in one hypercall.
    fn map(&mut self) {
        let mapping = core::mem::take(&mut self.round.mapping);
        let mut failed = false;
        for &index in &mapping {
            let Some(Some(vbd)) = self.vbds.get_mut(usize::from(index)) else {
                continue;
            };
            let maps = &mut self.round.maps;
            maps.clear();
            maps.extend(vbd.to_map.iter().map(|&(queue, place)| {
                let queue = vbd.queues.get(usize::from(queue));
                let entry = queue.and_then(|queue| queue.persistent.grant(place));
                let (grant, writable) = entry.unwrap_or((GrantRef(u32::MAX), false));
                DeviceMap::new(grant, !writable)
            }));
            self.hypervisor.map_for_device(vbd.config.domain, maps);
            for ((queue, place), map) in vbd.to_map.drain(..).zip(maps.drain(..)) {
                failed |= map.result.is_err();
                if let Some(queue) = vbd.queues.get_mut(usize::from(queue)) {
                    queue.persistent.handle_mapped(place, map.result.ok());
                }
            }
            if vbd.config.persistent {
                self.wake_at(self.now + UNUSED);
            }
        }
        self.round.mapping = mapping;
        self.round.mapping.clear();
        let mapped = core::mem::take(&mut self.round.mapped);
        for &(index, number) in &mapped {
            if failed && self.fall_back(index, number) {
                continue;
            }
            self.queue(index, number);
        }
        self.round.mapped = mapped;
        self.round.mapped.clear();
    }

    /// Has a request copied whose grants could not be mapped. False where they were.
    fn fall_back(&mut self, index: u16, number: u16) -> bool {
        let Some(Some(vbd)) = self.vbds.get_mut(usize::from(index)) else {
            return true;
        };
        if !vbd.awaits_map(number) {
            return false;
        }
        let Some(operation) = vbd.operations.get_mut(number) else {
            return true;
        };
        operation.copy_only = true;
        operation.movement = Movement::None;
        let (segments, queue) = (operation.segments, operation.queue);
        vbd.release_memory(segments, queue, &mut self.pages, &mut self.round.unmap);
        vbd.waiting.push_back(number);
        self.mark_hungry(index);
        true
    }

    /// Second batch: what is to be written comes in.
    pub(super) fn copy_inward(&mut self) {
        if self.round.inward.is_empty() && self.round.writes.is_empty() {
            return;
        }
        self.hypervisor.grant_copy(&mut self.round.inward);
        let writes = core::mem::take(&mut self.round.writes);
        for write in &writes {
            if copied(&self.round.inward, write) {
                self.queue(write.vbd, write.operation);
                continue;
            }
            if let Some(Some(vbd)) = self.vbds.get_mut(usize::from(write.vbd))
                && let Some(operation) = vbd.operations.get_mut(write.operation)
            {
                operation.fail(Failure::Grant);
            }
            self.finish(write.vbd, write.operation);
        }
        self.round.writes = writes;
    }

    /// Queues a request for the disks.
    pub(super) fn queue(&mut self, index: u16, number: u16) {
        if let Some(Some(vbd)) = self.vbds.get_mut(usize::from(index))
            && let Some(operation) = vbd.operations.get_mut(number)
        {
            operation.queued = true;
            vbd.submit.push_back(number);
            self.mark_submitting(index);
        }
    }

    /// Unmaps what is not needed any more, all in one hypercall.
    pub(super) fn unmap(&mut self) {
        if !self.round.unmap.is_empty() {
            self.hypervisor.unmap_for_device(&mut self.round.unmap);
        }
    }
}

/// Which way a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the guest.
    Inward,
    /// To the guest.
    Outward,
}

impl<H: Hypervisor + Keep> Vbd<H> {
    /// Whether the device can reach all of a request's pages itself, and only so many new ones as there is room for: all its segments
    /// are places in the table of grants then.
    fn map_segments(&mut self, number: u16, now: Instant, room: &mut Room, round: &mut Round) -> bool {
        let block = u32::from(SECTORS_PER_PAGE).min(self.config.geometry.logical_block / SECTOR_BYTES).max(1);
        let Some(operation) = self.operations.get_mut(number) else {
            return false;
        };
        let Some(queue) = self.queues.get_mut(usize::from(operation.queue)) else {
            return false;
        };
        if !self.maps || operation.copy_only || !queue.persistent.is_useful() || operation.sectors == 0 {
            return false;
        }
        // A command's memory is whole blocks, run by run.
        let whole = |segments: &Segments| {
            let mut elements = segments.iter(&operation.segments);
            elements.all(|element| {
                let guest = element.guest;
                u32::from(guest.first_sector).is_multiple_of(block) && u32::from(guest.sectors).is_multiple_of(block)
            })
        };
        if !whole(&self.segments) {
            return false;
        }
        let mut loan = Loan { room, held: &mut self.steps };
        let count = usize::from(operation.segments.count);
        if !queue.persistent.holds(count, &mut loan) || self.to_map.try_reserve(count).is_err() {
            return false;
        }
        let written = operation.kind == Kind::Read;
        let (list, queue_number, new_grants) = (operation.segments, operation.queue, self.to_map.len());
        let mut position = list.start();
        while let Some(element) = self.segments.get_mut(position) {
            let grant = element.guest.grant;
            let place = match queue.persistent.acquire(grant, written, now, &mut loan, &mut round.unmap) {
                Found::Known(place) => place,
                Found::New(place) => {
                    self.to_map.push((queue_number, place));
                    place
                }
                Found::Full => {
                    self.unmap_segments(number, new_grants, &mut round.unmap);
                    return false;
                }
            };
            element.backing = Backing::Mapped(place);
            position = self.segments.next(position);
        }
        operation.movement = Movement::Direct;
        true
    }

    /// Takes back what [`Self::map_segments`] began.
    fn unmap_segments(&mut self, number: u16, new_grants: usize, unmap: &mut Vec<DevicePage>) {
        self.to_map.truncate(new_grants);
        let Some(operation) = self.operations.get(number) else {
            return;
        };
        let (list, queue) = (operation.segments, operation.queue);
        let mut position = list.start();
        while let Some(element) = self.segments.get_mut(position) {
            if let Backing::Mapped(place) = core::mem::replace(&mut element.backing, Backing::None)
                && let Some(queue) = self.queues.get_mut(usize::from(queue))
            {
                queue.persistent.release(place, unmap);
            }
            position = self.segments.next(position);
        }
    }

    /// Whether a grant of a request is not mapped.
    fn awaits_map(&self, number: u16) -> bool {
        let Some(operation) = self.operations.get(number) else {
            return false;
        };
        let Some(queue) = self.queues.get(usize::from(operation.queue)) else {
            return false;
        };
        self.segments.iter(&operation.segments).any(|element| match element.backing {
            Backing::Mapped(place) => queue.persistent.address(place).is_none(),
            _ => false,
        })
    }

    /// Takes bounce pages for a request.
    fn take_pages(&mut self, number: u16, pages: &mut Pages, share: usize, empty: bool) -> Result<(), Turn> {
        let Some(operation) = self.operations.get_mut(number) else {
            return Ok(());
        };
        // At most as many as there are segments.
        let need = operation.sectors.div_ceil(SECTORS_PER_PAGE.into()) as usize;
        if self.pages > 0 && self.pages + need > share {
            return Err(Turn::Share);
        }
        if need > 0 && (empty || need > pages.available()) {
            return Err(Turn::Empty);
        }
        operation.movement = Movement::Copied;
        let mut position = operation.segments.start();
        for _ in 0..need {
            if let (Some(element), Some(page)) = (self.segments.get_mut(position), pages.take()) {
                element.backing = Backing::Page(page);
                self.pages += 1;
            }
            position = self.segments.next(position);
        }
        Ok(())
    }

    /// Adds the copies between a request's segments and its bounce pages: the segments' sectors one after another fill the pages.
    pub(super) fn plan_copies(&self, number: u16, pages: &Pages, direction: Direction, batch: &mut Vec<GrantCopy>) {
        let Some(operation) = self.operations.get(number) else {
            return;
        };
        let domain = self.config.domain;
        let mut local = operation.segments.start();
        let mut within = 0;
        for element in self.segments.iter(&operation.segments) {
            let guest = element.guest;
            let (mut offset, mut left) = (guest.offset(), guest.bytes());
            while left > 0 {
                let Some(Backing::Page(page)) = self.segments.get(local).map(|element| element.backing) else {
                    debug_assert!(false, "a page for every page of bytes");
                    return;
                };
                let length = left.min(PAGE_SIZE as u16 - within);
                let ends = (CopyEnd::granted(domain, guest.grant, offset), CopyEnd::local(pages.frame(page), within));
                batch.push(direction.copy(ends, length));
                offset += length;
                left -= length;
                within += length;
                if usize::from(within) == PAGE_SIZE {
                    within = 0;
                    local = self.segments.next(local);
                }
            }
        }
    }

    /// Whether its frontend is served, so that answers mean something.
    pub(super) fn is_served(&self) -> bool {
        self.standing == Standing::Served
    }
}

impl Direction {
    fn copy(self, (guest, local): (CopyEnd, CopyEnd), length: u16) -> GrantCopy {
        debug_assert!(guest.domain != DomainId::SELF);
        let (source, destination, flags) = match self {
            Self::Inward => (guest, local, GrantCopy::SOURCE_GRANT),
            Self::Outward => (local, guest, GrantCopy::DESTINATION_GRANT),
        };
        GrantCopy { source, destination, length, flags, status: 0, padding: 0 }
    }
}
