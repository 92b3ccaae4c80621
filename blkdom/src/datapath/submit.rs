//! Fourth step of a round: commands to the disks, by turns between guests. Floor 3.
//!
//! Each turn is one command. A vbd has a bounded number in flight, fewer where others wait: a guest that asks for much is ahead of its
//! neighbours by so many commands, and no more.

use super::operation::{Kind, Movement, Operation, Stage};
use super::pages::Pages;
use super::persistent::Persistent;
use super::segments::{Backing, Segments};
use super::statistics::{Counted, Failure};
use super::vbd::{Standing, Vbd};
use super::{COMMANDS, DISCARD_SECTORS, DISCARDS, DataPath, DiskSlot, SHARED_COMMANDS};
use crate::blkback::request::SECTORS_PER_PAGE;
use crate::disk::{Command, Operation as DiskOperation, Refusal, SECTOR_BYTES, Segment};
use crate::volume::{Piece, UnitRef};
use alloc::vec::Vec;
use split_driver::hypervisor::{DeviceMapping, Hypervisor};
use split_driver::kept::Keep;

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// A command was taken, or a request is through.
    Done,
    /// Not now: the device's queue is full, or the vbd has its share of it.
    Wait,
}

/// Where a request stands after a try to submit some of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// There is more of it.
    More,
    /// The disks have taken all.
    Complete,
    /// The device's queue is full.
    Full,
}

impl<H: Hypervisor + DeviceMapping + Keep> DataPath<H> {
    /// Gives the disks what they take.
    pub(super) fn submit(&mut self) {
        self.submit_read();
        while let Some(index) = self.submitting.pop_front() {
            let others = !self.submitting.is_empty() || !self.stuck.is_empty();
            let limit = if others { SHARED_COMMANDS } else { COMMANDS };
            let turn = self.submit_one(index, limit);
            let Some(Some(vbd)) = self.vbds.get_mut(usize::from(index)) else {
                continue;
            };
            if vbd.submit.is_empty() {
                vbd.submitting = false;
            } else if turn == Turn::Done {
                self.submitting.push_back(index);
            } else {
                self.stuck.push_back(index);
            }
        }
        core::mem::swap(&mut self.submitting, &mut self.stuck);
    }

    /// One command of a vbd.
    fn submit_one(&mut self, index: u16, limit: u32) -> Turn {
        let Self { vbds, disks, pages, round, .. } = self;
        let Some(Some(vbd)) = vbds.get_mut(usize::from(index)) else {
            return Turn::Done;
        };
        let Some(&number) = vbd.submit.front() else {
            return Turn::Done;
        };
        if vbd.commands >= limit {
            return Turn::Wait;
        }
        let failed = vbd.operations.get(number).is_none_or(|operation| operation.failure.is_some());
        let step = match failed || vbd.standing == Standing::Draining {
            true => Ok(Step::Complete),
            false => vbd.submit_step(index, number, disks, pages, &mut round.data),
        };
        let through = match step {
            Ok(Step::More) => false,
            Ok(Step::Full) => return Turn::Wait,
            Ok(Step::Complete) => true,
            Err(failure) => {
                if let Some(operation) = vbd.operations.get_mut(number) {
                    operation.fail(failure);
                }
                true
            }
        };
        if through {
            vbd.submit.pop_front();
            if let Some(operation) = vbd.operations.get_mut(number) {
                operation.queued = false;
                if operation.parts == 0 {
                    self.go_on(index, number);
                }
            }
        }
        Turn::Done
    }
}

impl<H: Hypervisor + Keep> Vbd<H> {
    /// Submits the next command of a request.
    fn submit_step(
        &mut self,
        index: u16,
        number: u16,
        disks: &mut [Option<DiskSlot>],
        pages: &Pages,
        data: &mut Vec<Segment>,
    ) -> Result<Step, Failure> {
        let stage = self.operations.get(number).map(|operation| operation.stage);
        match stage {
            Some(Stage::FlushBefore | Stage::FlushAfter) => self.submit_flush(index, number, disks),
            Some(Stage::Data) => self.submit_data(index, number, disks, pages, data),
            None => Ok(Step::Complete),
        }
    }

    /// Has the next unit flushed that has a cache to be flushed.
    fn submit_flush(&mut self, index: u16, number: u16, disks: &mut [Option<DiskSlot>]) -> Result<Step, Failure> {
        loop {
            let Some(operation) = self.operations.get(number) else {
                return Ok(Step::Complete);
            };
            let Some(&unit) = usize::try_from(operation.submitted).ok().and_then(|place| self.units.get(place)) else {
                return Ok(Step::Complete);
            };
            let slot = slot(disks, unit)?;
            if slot.geometry(unit.unit).ok_or(Failure::Gone)?.volatile_cache {
                let piece = Piece { unit, sector: 0, sectors: 0 };
                return self.hand_over(index, number, slot, piece, DiskOperation::Flush, &[]);
            }
            if let Some(operation) = self.operations.get_mut(number) {
                operation.submitted += 1;
            }
        }
    }

    /// Submits the next run of sectors.
    fn submit_data(
        &mut self,
        index: u16,
        number: u16,
        disks: &mut [Option<DiskSlot>],
        pages: &Pages,
        data: &mut Vec<Segment>,
    ) -> Result<Step, Failure> {
        let Some(operation) = self.operations.get(number) else {
            return Ok(Step::Complete);
        };
        let left = operation.sectors.saturating_sub(operation.submitted);
        if left == 0 {
            return Ok(Step::Complete);
        }
        let sector = operation.sector.saturating_add(operation.submitted);
        // The volume may have another end by now.
        let mut piece = self.config.volume.pieces(sector, left).next().ok_or(Failure::Refused)?;
        let slot = slot(disks, piece.unit)?;
        data.clear();
        let what = match operation.kind {
            Kind::Discard { secure } => {
                if self.discards >= DISCARDS {
                    return Ok(Step::Full);
                }
                piece.sectors = piece.sectors.min(DISCARD_SECTORS);
                DiskOperation::Discard { secure }
            }
            kind => {
                let persistent = self.queues.get(usize::from(operation.queue)).map(|queue| &queue.persistent);
                let memory = Memory { segments: &self.segments, pages, persistent };
                memory.gather(operation, piece.sectors, data).ok_or(Failure::Grant)?;
                match kind {
                    Kind::Read => DiskOperation::Read,
                    Kind::Barrier => DiskOperation::Write { force_unit_access: !operation.no_durable_write },
                    _ => DiskOperation::Write { force_unit_access: false },
                }
            }
        };
        self.hand_over(index, number, slot, piece, what, data)
    }

    /// Gives a command to a disk, and notes what it took.
    fn hand_over(
        &mut self,
        index: u16,
        number: u16,
        slot: &mut DiskSlot,
        piece: Piece,
        what: DiskOperation,
        data: &[Segment],
    ) -> Result<Step, Failure> {
        let owner = self.operations.name(index, number, piece.unit.unit.0);
        let Some(operation) = self.operations.get_mut(number) else {
            return Ok(Step::Complete);
        };
        // A request's sectors are fewer than 2^32, and a discard's were limited.
        let sectors = u32::try_from(piece.sectors).map_err(|_| Failure::Refused)?;
        let command =
            Command { unit: piece.unit.unit, operation: what, sector: piece.sector, sectors, data, tag: owner.tag() };
        let taken = match slot.disk.submit(&command) {
            Ok(taken) => taken.min(sectors),
            Err(Refusal::Full) => return Ok(Step::Full),
            Err(Refusal::NoUnit) => return Err(Failure::Gone),
            Err(Refusal::Malformed) => return Err(Failure::Refused),
            Err(Refusal::Unsupported) => match what {
                DiskOperation::Write { force_unit_access: true } => {
                    operation.no_durable_write = true;
                    return Ok(Step::More);
                }
                _ => return Err(Failure::Unsupported),
            },
        };
        slot.quiet = true;
        slot.in_flight += 1;
        let counted = match what {
            DiskOperation::Flush => Counted::Flush,
            DiskOperation::Read => Counted::Read,
            DiskOperation::Discard { .. } => Counted::Discard,
            _ => Counted::Write,
        };
        slot.count(owner.unit, |statistics| statistics.count(counted, taken.into()));
        operation.parts += 1;
        self.commands += 1;
        if what == DiskOperation::Flush {
            operation.submitted += 1;
            return Ok(Step::More);
        }
        if matches!(what, DiskOperation::Discard { .. }) {
            self.discards += 1;
        } else {
            advance(operation, &self.segments, taken);
        }
        operation.submitted += u64::from(taken);
        if taken == 0 {
            debug_assert!(false, "a command of no sectors was taken");
            return Err(Failure::Device);
        }
        match operation.submitted >= operation.sectors {
            true => Ok(Step::Complete),
            false => Ok(Step::More),
        }
    }
}

/// The controller of a unit.
fn slot(disks: &mut [Option<DiskSlot>], unit: UnitRef) -> Result<&mut DiskSlot, Failure> {
    disks.get_mut(usize::from(unit.controller)).and_then(Option::as_mut).ok_or(Failure::Gone)
}

/// Sectors of the run of memory at a place of a request.
fn run_length(operation: &Operation, segments: &Segments, position: super::segments::Position) -> Option<u8> {
    let element = segments.get(position)?;
    Some(match operation.movement {
        Movement::Direct => element.guest.sectors,
        // The last page may hold less; nobody asks for more than there is.
        _ => SECTORS_PER_PAGE,
    })
}

/// Moves a request's cursor on by what a disk took.
fn advance(operation: &mut Operation, segments: &Segments, sectors: u32) {
    let mut left = sectors;
    while left > 0 {
        let cursor = operation.cursor;
        let Some(length) = run_length(operation, segments, cursor.position) else {
            return;
        };
        let step = left.min(u32::from(length.saturating_sub(cursor.within)));
        left -= step;
        // A page's sectors fit.
        operation.cursor.within += step as u8;
        if operation.cursor.within >= length {
            operation.cursor.position = segments.next(cursor.position);
            operation.cursor.within = 0;
        }
    }
}

/// What backs a vbd's requests.
struct Memory<'a> {
    segments: &'a Segments,
    pages: &'a Pages,
    persistent: Option<&'a Persistent>,
}

impl Memory<'_> {
    /// The memory of the next sectors of a request, as the device finds it.
    fn gather(&self, operation: &Operation, sectors: u64, data: &mut Vec<Segment>) -> Option<()> {
        let mut left = sectors;
        let mut cursor = operation.cursor;
        while left > 0 {
            let element = self.segments.get(cursor.position)?;
            let length = run_length(operation, self.segments, cursor.position)?;
            let (page, first) = match element.backing {
                Backing::Page(page) => (self.pages.device_address(page)?, 0),
                Backing::Mapped(place) => (self.persistent?.address(place)?, element.guest.first_sector),
                Backing::None => return None,
            };
            let taken = left.min(u64::from(length.saturating_sub(cursor.within)));
            let address = page.in_page(usize::from(first + cursor.within) * SECTOR_BYTES as usize);
            data.push(Segment { address, bytes: taken as u32 * SECTOR_BYTES });
            left -= taken;
            cursor.position = self.segments.next(cursor.position);
            cursor.within = 0;
        }
        Some(())
    }
}
