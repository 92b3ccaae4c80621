//! A controller in memory: units with a volatile cache, latency, completions in any order, faults, and the plug to pull. Floor 3.
//!
//! It is as strict as a real one may be: a command that was not rung for is not begun, memory is reached when the command is done and
//! not before, a flush makes durable what had completed when it was submitted and nothing else.

use crate::disk::{
    Command, Completion, Discard, Disk, Event, Geometry, IoError, Operation, Refusal, SECTOR_BYTES, Segment, Tag, Unit,
    UnitId, UnitKind,
};
use alloc::collections::{BTreeSet, VecDeque};
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ops::Range;
use split_driver::fakes::FakeXen;
use split_driver::memory::Quiesced;
use split_driver::time::Instant;
use xen_pv_sys::PAGE_SIZE;

const SECTOR: usize = SECTOR_BYTES as usize;

/// What goes wrong with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails with this error, and nothing is done.
    Error(IoError),
    /// It fails with this error after half of its sectors.
    Torn(IoError),
    /// It is not answered, and given up after so many polls.
    NoAnswer(u32),
}

/// Where and what goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultyRange {
    /// On which unit.
    pub unit: UnitId,
    /// Commands that touch one of these sectors; a flush touches none, and all where the range is empty.
    pub sectors: Range<u64>,
    /// Whether reads are concerned.
    pub reads: bool,
    /// Whether writes (flushes, discards) are concerned.
    pub writes: bool,
    /// What happens.
    pub fault: Fault,
}

/// A unit's contents.
#[derive(Clone, Debug)]
struct Medium {
    unit: Unit,
    /// What a read gives.
    contents: Vec<u8>,
    /// What is left without power, where the cache is volatile.
    durable: Vec<u8>,
    /// Sectors in the cache alone.
    dirty: BTreeSet<u64>,
    present: bool,
}

/// A command that was taken.
#[derive(Clone, Debug)]
struct Pending {
    unit: UnitId,
    operation: Operation,
    sector: u64,
    sectors: u32,
    data: Vec<Segment>,
    tag: Tag,
    /// Polls until it is done.
    left: u32,
    /// For a flush: what it makes durable.
    covered: Vec<u64>,
    failure: Option<Fault>,
}

/// A command as the disk saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Which unit.
    pub unit: UnitId,
    /// What.
    pub operation: Operation,
    /// Where.
    pub sector: u64,
    /// How much of it.
    pub sectors: u32,
    /// Who for.
    pub tag: Tag,
}

/// The controller behind a [`FakeDisk`], as the test sees it.
#[derive(Debug)]
pub struct Drive {
    xen: FakeXen,
    media: Vec<Medium>,
    units: Vec<Unit>,
    pending: VecDeque<Pending>,
    spare: Vec<Vec<Segment>>,
    /// Commands taken and not rung for, at the end of `pending`.
    quiet: usize,
    events: VecDeque<Event>,
    removed: bool,
    /// Commands that it takes at once.
    pub depth: usize,
    /// Polls that a command lasts.
    pub latency: u32,
    /// Sectors of a command, at most.
    pub most_sectors: u32,
    /// Where the random order of completions comes from; 0 for the order of submission.
    pub order: u64,
    /// Nothing is completed.
    pub hold: bool,
    /// It is being reset, for so many polls.
    pub recovering: u32,
    /// Durable writes are refused.
    pub no_durable_write: bool,
    /// What goes wrong; each once.
    pub faults: Vec<FaultyRange>,
    /// What goes wrong with flushes, with so many of them; not with other commands.
    pub flush_fault: Option<(u32, Fault)>,
    /// What was taken, oldest first, where that is wanted.
    pub seen: Option<Vec<Seen>>,
    /// What a driver would not have been asked for by a data path in order.
    pub misuse: Vec<String>,
}

/// The driver's side.
#[derive(Debug)]
pub struct FakeDisk(Rc<RefCell<Drive>>, Vec<Unit>);

/// A unit that can do everything.
pub fn geometry(sectors: u64, logical_block: u32) -> Geometry {
    Geometry {
        sectors,
        logical_block,
        physical_block: 4096,
        volatile_cache: true,
        read_only: false,
        discard: Some(Discard { granularity: 4096, alignment: 0, secure: false }),
        write_zeroes: true,
    }
}

impl FakeDisk {
    /// A controller with these units, zeroed.
    pub fn new(xen: &FakeXen, geometries: &[Geometry]) -> (Self, Rc<RefCell<Drive>>) {
        let media: Vec<_> =
            geometries.iter().zip(0..).map(|(geometry, number)| Medium::new(number, *geometry)).collect();
        let drive = Drive {
            xen: xen.clone(),
            units: media.iter().map(|medium| medium.unit.clone()).collect(),
            media,
            pending: VecDeque::new(),
            spare: Vec::new(),
            quiet: 0,
            events: VecDeque::from([Event::Ready]),
            removed: false,
            depth: 64,
            latency: 0,
            most_sectors: 1 << 20,
            order: 0,
            hold: false,
            recovering: 0,
            no_durable_write: false,
            faults: Vec::new(),
            flush_fault: None,
            seen: None,
            misuse: Vec::new(),
        };
        let drive = Rc::new(RefCell::new(drive));
        (Self::again(&drive), drive)
    }

    /// A driver for a controller that another one drove, and that was [reset](Drive::reset).
    pub fn again(drive: &Rc<RefCell<Drive>>) -> Self {
        let units = drive.borrow().units.clone();
        Self(Rc::clone(drive), units)
    }
}

impl Medium {
    fn new(number: u16, geometry: Geometry) -> Self {
        let bytes = vec![0; geometry.sectors as usize * SECTOR];
        let unit = Unit {
            id: UnitId(number),
            kind: UnitKind::Namespace(u32::from(number) + 1),
            model: "Fake".into(),
            serial: format!("{number}"),
            wwn: String::new(),
            geometry,
        };
        let durable = if geometry.volatile_cache { bytes.clone() } else { Vec::new() };
        Self { unit, contents: bytes, durable, dirty: BTreeSet::new(), present: true }
    }

    fn range(&self, sector: u64, sectors: u64) -> Range<usize> {
        let start = (sector as usize * SECTOR).min(self.contents.len());
        let end = ((sector + sectors) as usize * SECTOR).min(self.contents.len());
        start..end
    }

    /// The sectors were written.
    fn touch(&mut self, sector: u64, sectors: u64, durable: bool) {
        if !self.unit.geometry.volatile_cache {
            return;
        }
        for sector in sector..sector + sectors {
            if durable {
                self.keep(sector);
                self.dirty.remove(&sector);
            } else {
                self.dirty.insert(sector);
            }
        }
    }

    /// What is in the cache of a sector goes to the medium.
    fn keep(&mut self, sector: u64) {
        let range = self.range(sector, 1);
        if let (Some(to), Some(from)) = (self.durable.get_mut(range.clone()), self.contents.get(range)) {
            to.copy_from_slice(from);
        }
    }
}

impl Drive {
    /// What a read of a unit gives now.
    pub fn contents(&self, unit: UnitId) -> &[u8] {
        self.media.get(usize::from(unit.0)).map_or(&[], |medium| &medium.contents)
    }

    /// What would be left of a unit without power.
    pub fn durable(&self, unit: UnitId) -> &[u8] {
        self.media.get(usize::from(unit.0)).map_or(&[], |medium| match medium.unit.geometry.volatile_cache {
            true => &medium.durable,
            false => &medium.contents,
        })
    }

    /// Writes a unit's contents, durably.
    pub fn write(&mut self, unit: UnitId, sector: u64, bytes: &[u8]) {
        let medium = self.media.get_mut(usize::from(unit.0)).expect("a unit");
        let start = sector as usize * SECTOR;
        medium.contents[start..start + bytes.len()].copy_from_slice(bytes);
        if !medium.durable.is_empty() {
            medium.durable[start..start + bytes.len()].copy_from_slice(bytes);
        }
    }

    /// Commands at work.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// The power goes: what only the cache has is forgotten, but for the sectors that `keep` says, and so are the commands at work,
    /// done in part as `keep` says.
    pub fn power_cut(&mut self, mut keep: impl FnMut(UnitId, u64) -> bool) {
        for pending in core::mem::take(&mut self.pending) {
            let Some(medium) = self.media.get_mut(usize::from(pending.unit.0)) else {
                continue;
            };
            if let Operation::Write { .. } = pending.operation {
                let mut bytes = vec![0; pending.sectors as usize * SECTOR];
                if gather(&self.xen, &pending.data, &mut bytes) {
                    for (sector, bytes) in (pending.sector..).zip(bytes.chunks_exact(SECTOR)) {
                        let range = medium.range(sector, 1);
                        if keep(pending.unit, sector) {
                            medium.contents[range].copy_from_slice(bytes);
                            medium.touch(sector, 1, false);
                        }
                    }
                }
            }
        }
        self.quiet = 0;
        for medium in &mut self.media {
            for sector in core::mem::take(&mut medium.dirty) {
                if keep(medium.unit.id, sector) {
                    medium.keep(sector);
                } else {
                    let range = medium.range(sector, 1);
                    let (to, from) = (&mut medium.contents[range.clone()], &medium.durable[range]);
                    to.copy_from_slice(from);
                }
            }
        }
    }

    /// The controller is reset: its commands at work are forgotten, each done as far as `keep` says, and its cache is as it was.
    pub fn reset(&mut self, mut keep: impl FnMut(UnitId, u64) -> bool) {
        for pending in core::mem::take(&mut self.pending) {
            let Some(medium) = self.media.get_mut(usize::from(pending.unit.0)) else {
                continue;
            };
            let mut bytes = vec![0; pending.sectors as usize * SECTOR];
            let changes = match pending.operation {
                Operation::Write { .. } => gather(&self.xen, &pending.data, &mut bytes),
                Operation::Discard { .. } | Operation::WriteZeroes => true,
                Operation::Read | Operation::Flush => false,
            };
            for (sector, bytes) in (pending.sector..).zip(bytes.chunks_exact(SECTOR)).filter(|_| changes) {
                if keep(pending.unit, sector) {
                    let range = medium.range(sector, 1);
                    medium.contents[range].copy_from_slice(bytes);
                    medium.touch(sector, 1, false);
                }
            }
        }
        (self.quiet, self.recovering) = (0, 0);
        self.events = VecDeque::from([Event::Ready]);
    }

    /// A unit goes away.
    pub fn remove_unit(&mut self, unit: UnitId) {
        if let Some(medium) = self.media.get_mut(usize::from(unit.0)) {
            medium.present = false;
        }
        self.units.retain(|known| known.id != unit);
        self.events.push_back(Event::Removed(unit));
    }

    /// Something happens.
    pub fn announce(&mut self, event: Event) {
        self.events.push_back(event);
    }

    fn misused(&mut self, command: &Command<'_>, what: &str) -> Result<u32, Refusal> {
        self.misuse.push(format!("{what}: {command:?}"));
        Err(Refusal::Malformed)
    }

    fn submit(&mut self, command: &Command<'_>) -> Result<u32, Refusal> {
        if self.removed {
            return Err(Refusal::NoUnit);
        }
        let Some(medium) = self.media.get(usize::from(command.unit.0)).filter(|medium| medium.present) else {
            return Err(Refusal::NoUnit);
        };
        if self.recovering > 0 || self.pending.len() >= self.depth {
            return Err(Refusal::Full);
        }
        let geometry = medium.unit.geometry;
        let block = u64::from(geometry.logical_block / SECTOR_BYTES);
        let count = u64::from(command.sectors);
        let within = command.sector.checked_add(count).is_some_and(|end| end <= geometry.sectors);
        let (moves, takes) = match command.operation {
            Operation::Read => (true, command.sectors.min(self.most_sectors)),
            Operation::Write { force_unit_access: true } if self.no_durable_write => return Err(Refusal::Unsupported),
            Operation::Write { .. } if geometry.read_only => return Err(Refusal::Unsupported),
            Operation::Write { .. } => (true, command.sectors.min(self.most_sectors)),
            Operation::Flush if count == 0 => (false, 0),
            Operation::Discard { secure } if geometry.discard.is_none_or(|discard| secure && !discard.secure) => {
                return Err(Refusal::Unsupported);
            }
            _ => (false, command.sectors),
        };
        if !within || !command.sector.is_multiple_of(block) || !count.is_multiple_of(block) {
            return self.misused(command, "bounds");
        }
        if takes == 0 && command.operation != Operation::Flush {
            return self.misused(command, "nothing");
        }
        let bytes: u64 = command.data.iter().map(|segment| u64::from(segment.bytes)).sum();
        if bytes != if moves { count * u64::from(SECTOR_BYTES) } else { 0 } {
            return self.misused(command, "length");
        }
        let page = PAGE_SIZE as u64;
        let whole = |segment: &Segment| {
            let (at, bytes) = (segment.address.get() % page, u64::from(segment.bytes));
            at % 512 == 0 && bytes > 0 && bytes % (block * 512) == 0 && at + bytes <= page
        };
        if !command.data.iter().all(whole) {
            return self.misused(command, "segments");
        }
        self.take(command, takes);
        Ok(takes)
    }

    fn take(&mut self, command: &Command<'_>, sectors: u32) {
        let mut data = self.spare.pop().unwrap_or_default();
        let mut left = sectors as usize * SECTOR;
        for segment in command.data {
            if left == 0 {
                break;
            }
            let bytes = left.min(segment.bytes as usize);
            data.push(Segment { bytes: bytes as u32, ..*segment });
            left -= bytes;
        }
        let &Command { unit, operation, sector, tag, .. } = command;
        let covered = match (operation, self.media.get(usize::from(unit.0))) {
            (Operation::Flush, Some(medium)) => medium.dirty.iter().copied().collect(),
            _ => Vec::new(),
        };
        let failure = self.fault(unit, operation, sector..sector + u64::from(sectors));
        let mut left = self.latency;
        if let Some(Fault::NoAnswer(polls)) = failure {
            left = polls;
        }
        if let Some(seen) = &mut self.seen {
            seen.push(Seen { unit, operation, sector, sectors, tag });
        }
        self.pending.push_back(Pending { unit, operation, sector, sectors, data, tag, left, covered, failure });
        self.quiet += 1;
    }

    fn fault(&mut self, unit: UnitId, operation: Operation, sectors: Range<u64>) -> Option<Fault> {
        if operation == Operation::Flush
            && let Some((times @ 1.., fault)) = &mut self.flush_fault
        {
            *times -= 1;
            return Some(*fault);
        }
        let reads = operation == Operation::Read;
        let found = self.faults.iter().position(|fault| {
            let touched =
                fault.sectors.is_empty() || fault.sectors.start < sectors.end && sectors.start < fault.sectors.end;
            fault.unit == unit && touched && if reads { fault.reads } else { fault.writes }
        })?;
        Some(self.faults.remove(found).fault)
    }

    fn poll(&mut self, completions: &mut Vec<Completion>) {
        if self.removed {
            for pending in self.pending.drain(..) {
                completions.push(Completion { tag: pending.tag, result: Err(IoError::Gone) });
            }
            self.quiet = 0;
            return;
        }
        if self.recovering > 0 {
            self.recovering -= 1;
            return;
        }
        if self.hold {
            return;
        }
        let begun = self.pending.len() - self.quiet.min(self.pending.len());
        let first = completions.len();
        let mut rest = begun;
        let mut index = 0;
        while index < rest {
            let Some(pending) = self.pending.get_mut(index) else {
                break;
            };
            let present = self.media.get(usize::from(pending.unit.0)).is_some_and(|medium| medium.present);
            if pending.left > 0 && present {
                pending.left -= 1;
                index += 1;
                continue;
            }
            // Each lasts longer than it must, now and then.
            if self.order != 0 && random(&mut self.order).is_multiple_of(3) {
                index += 1;
                continue;
            }
            if let Some(pending) = self.pending.remove(index) {
                rest -= 1;
                let result = if present { self.execute(&pending) } else { Err(IoError::Gone) };
                completions.push(Completion { tag: pending.tag, result });
                let mut data = pending.data;
                data.clear();
                self.spare.push(data);
            }
        }
        if self.order != 0 {
            for index in (first + 1..completions.len()).rev() {
                let other = first + (random(&mut self.order) % (index - first + 1) as u64) as usize;
                completions.swap(index, other);
            }
        }
    }

    fn execute(&mut self, pending: &Pending) -> Result<(), IoError> {
        let Some(medium) = self.media.get_mut(usize::from(pending.unit.0)) else {
            return Err(IoError::Gone);
        };
        let mut sectors = u64::from(pending.sectors);
        let result = match pending.failure {
            Some(Fault::Error(error)) => return Err(error),
            Some(Fault::NoAnswer(_)) => return Err(IoError::TimedOut),
            Some(Fault::Torn(error)) => {
                sectors /= 2;
                Err(error)
            }
            None => Ok(()),
        };
        let range = medium.range(pending.sector, sectors);
        let reached = match pending.operation {
            Operation::Read => scatter(&self.xen, &pending.data, &medium.contents[range]),
            Operation::Write { force_unit_access } => {
                let reached = gather(&self.xen, &pending.data, &mut medium.contents[range]);
                medium.touch(pending.sector, sectors, force_unit_access);
                reached
            }
            Operation::Flush => {
                for sector in &pending.covered {
                    medium.keep(*sector);
                    medium.dirty.remove(sector);
                }
                true
            }
            Operation::Discard { .. } | Operation::WriteZeroes => {
                medium.contents[range].fill(0);
                medium.touch(pending.sector, sectors, false);
                true
            }
        };
        // What could not be reached is noted as a violation by the hypervisor.
        if reached { result } else { Err(IoError::Device { code: 4 }) }
    }
}

/// xorshift64*.
fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
}

/// Memory to `bytes`.
fn gather(xen: &FakeXen, data: &[Segment], bytes: &mut [u8]) -> bool {
    let mut rest = bytes;
    for segment in data {
        let length = rest.len().min(segment.bytes as usize);
        let (bytes, after) = rest.split_at_mut(length);
        if !xen.device_read(segment.address.get(), bytes) {
            return false;
        }
        rest = after;
    }
    true
}

/// `bytes` to memory.
fn scatter(xen: &FakeXen, data: &[Segment], bytes: &[u8]) -> bool {
    let mut rest = bytes;
    for segment in data {
        let length = rest.len().min(segment.bytes as usize);
        let (bytes, after) = rest.split_at(length);
        if !xen.device_write(segment.address.get(), bytes) {
            return false;
        }
        rest = after;
    }
    true
}

impl Disk for FakeDisk {
    fn name(&self) -> String {
        "Fake".into()
    }

    fn units(&self) -> &[Unit] {
        &self.1
    }

    fn submit(&mut self, command: &Command<'_>) -> Result<u32, Refusal> {
        let mut drive = self.0.borrow_mut();
        drive.xen.step();
        drive.submit(command)
    }

    fn ring(&mut self) {
        let mut drive = self.0.borrow_mut();
        drive.xen.step();
        drive.quiet = 0;
    }

    fn poll(&mut self, _now: Instant, completions: &mut Vec<Completion>) {
        let mut drive = self.0.borrow_mut();
        drive.xen.step();
        drive.poll(completions);
        if drive.units.len() != self.1.len() {
            self.1.clone_from(&drive.units);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        None
    }

    fn poll_event(&mut self) -> Option<Event> {
        self.0.borrow_mut().events.pop_front()
    }

    fn handle_interrupt(&mut self, _vector: usize) {}

    fn enable_interrupts(&mut self) -> bool {
        // What was rung for will be done at one of the next polls.
        let drive = self.0.borrow();
        drive.pending.len() > drive.quiet && !drive.hold || drive.recovering > 0
    }

    fn remove(&mut self, _proof: Quiesced) {
        self.0.borrow_mut().removed = true;
    }

    fn quiesce(&mut self) {}
}
