//! The mapping area: addresses for pages that are not ours. Floor 2.
//!
//! Unsafe because it changes page tables.

use super::tables::{self, Batch, Entry, Level, TableFrames};
use super::{frames, ledger, p2m};
use crate::layout;
use crate::local::Local;
use crate::record::record;
use alloc::vec::Vec;
use core::cell::Cell;
use split_driver::hypervisor::XenError;
use xen_pv_sys::{DomainId, Mfn, PAGE_SIZE};

/// A bit for each page in use.
static USED: Local<[Cell<u64>; layout::AREA_PAGES / 64]> =
    Local::new([const { Cell::new(0) }; layout::AREA_PAGES / 64]);
static USED_COUNT: Local<Cell<usize>> = Local::new(Cell::new(0));
/// Where the last search ended.
static NEXT: Local<Cell<usize>> = Local::new(Cell::new(0));

/// A run of pages of the area, with page tables, and nothing mapped in it yet. Given back by `Drop`; must be unmapped by then.
#[derive(Debug)]
pub(crate) struct Area {
    first: usize,
    count: usize,
}

impl Area {
    /// `count` pages.
    pub(crate) fn new(count: usize) -> Result<Self, XenError> {
        let first = find(count).ok_or(XenError::Exhausted)?;
        mark(first, count, true);
        NEXT.set(first + count);
        let area = Self { first, count };
        let tables = tables::current();
        for address in tables::pages(area.address(), count) {
            // SAFETY: the frames are new.
            unsafe { tables.ensure(address, Level::One, &mut NewFrames)? };
        }
        Ok(area)
    }

    /// A run of pages in which an earlier life mapped grants, with their handles; `None` where that is not so, or it is adopted.
    pub(crate) fn adopt(first: usize, count: usize) -> Option<(Self, Vec<u32>)> {
        let mut handles = Vec::new();
        handles.try_reserve_exact(count).ok()?;
        for page in first..first.checked_add(count)? {
            handles.push(ledger::inherited(page)?);
        }
        let area = Self { first, count };
        for (index, handle) in handles.iter().enumerate() {
            area.note(index, Some(*handle));
        }
        Some((area, handles))
    }

    /// The area of the grant table, of an earlier life.
    pub(crate) fn adopt_grant_table() -> Option<Self> {
        let address = record().grant_table.get() as usize;
        let first = address.checked_sub(layout::AREA_BASE)? / PAGE_SIZE;
        Some(Self { first, count: record().grant_frames_max.get() as usize })
    }

    /// Notes which grants the area will hold, so that the next life can unmap them.
    pub(crate) fn for_grants(count: usize) -> Result<Self, XenError> {
        let area = Self::new(count)?;
        ledger::ensure(area.first, count)?;
        Ok(area)
    }

    /// Notes that grants are about to be mapped at all pages.
    pub(crate) fn begin_mapping(&self) {
        (self.first..self.first + self.count).for_each(ledger::begin);
    }

    /// Notes which grant is mapped at a page, or that none is.
    pub(crate) fn note(&self, index: usize, handle: Option<u32>) {
        if index < self.count {
            ledger::set(self.first + index, handle);
        }
    }

    /// The number of its first page in the mapping area.
    pub(crate) fn first(&self) -> usize {
        self.first
    }

    /// The first byte.
    pub(crate) fn address(&self) -> usize {
        layout::AREA_BASE + self.first * PAGE_SIZE
    }

    /// How many pages.
    pub(crate) fn pages(&self) -> usize {
        self.count
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        mark(self.first, self.count, false);
    }
}

/// Frames for the area's page tables; they are kept for good.
struct NewFrames;

impl TableFrames for NewFrames {
    fn table_frame(&mut self) -> Result<(Mfn, usize), XenError> {
        let frame = frames::allocate(1).map_err(|_| XenError::Exhausted)?;
        let address = layout::address_of(frame);
        // SAFETY: just allocated.
        unsafe { core::ptr::write_bytes(address as *mut u8, 0, PAGE_SIZE) };
        Ok((p2m::physical_to_machine(frame), address))
    }
}

/// Pages of the area in use.
pub(super) fn used() -> usize {
    USED_COUNT.get()
}

fn is_used(page: usize) -> bool {
    USED.get(page / 64).is_none_or(|word| word.get() & (1 << (page % 64)) != 0)
}

fn mark(first: usize, count: usize, used: bool) {
    for page in first..first + count {
        if let Some(word) = USED.get(page / 64) {
            let bit = 1 << (page % 64);
            word.set(if used { word.get() | bit } else { word.get() & !bit });
        }
    }
    let total = USED_COUNT.get();
    USED_COUNT.set(if used { total + count } else { total - count });
}

/// A run of `count` pages: behind the last one given out, else from the beginning.
fn find(count: usize) -> Option<usize> {
    if count == 0 || count > layout::AREA_PAGES {
        return None;
    }
    let search = |start: usize| {
        let mut run = 0;
        for page in start..layout::AREA_PAGES {
            run = if is_used(page) { 0 } else { run + 1 };
            if run == count {
                return Some(page + 1 - count);
            }
        }
        None
    };
    search(NEXT.get()).or_else(|| search(0))
}

/// A page in which an earlier life mapped a grant that this one has not adopted.
pub(crate) struct Inherited {
    /// The page.
    pub(crate) area: Area,
    /// By which it is unmapped.
    pub(crate) handle: u32,
}

/// All of them.
pub(crate) fn inherited_mappings() -> impl Iterator<Item = Inherited> {
    ledger::pages().filter_map(|page| {
        ledger::inherited(page).map(|handle| Inherited { area: Area { first: page, count: 1 }, handle })
    })
}

/// In a new life: grants stay mapped until they are adopted or given back, and so does the grant table; all else is unmapped.
pub(super) fn resume() -> Result<(), XenError> {
    let table = Area::adopt_grant_table().map_or(0..0, |area| {
        let range = area.first..area.first + area.count;
        core::mem::forget(area);
        range
    });
    mark(table.start, table.len(), true);
    let mut batch = Batch::new(tables::SELF);
    let mut page = 0;
    while page < layout::AREA_PAGES {
        match tables::current().entry(layout::AREA_BASE + page * PAGE_SIZE, Level::One) {
            Err(level) => {
                // Nothing below a table that is missing.
                let pages = level.entry_address_space_alignment() as usize / PAGE_SIZE;
                page = (page / pages + 1) * pages;
                continue;
            }
            Ok((machine_address, entry)) if entry.is_present() => {
                if ledger::is_lost(page) {
                    mark(page, 1, true);
                } else if ledger::is_mapped(page) {
                    ledger::inherit(page);
                    mark(page, 1, true);
                } else if !table.contains(&page) {
                    // SAFETY: nothing of this life uses it, and it is no grant's mapping, which only Xen may undo.
                    unsafe { batch.set(machine_address, Entry::NONE)? };
                }
            }
            Ok(_) => ledger::set(page, None),
        }
        page += 1;
    }
    // SAFETY: as above.
    unsafe { batch.flush()? };
    tables::flush_tlb();
    Ok(())
}

/// How [`map_frames`] maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Ordinary memory.
    WriteBack,
    /// Device registers: strong uncacheable (PCD and PWT).
    Uncached,
}

/// Foreign or device frames mapped one after the other, readable and writable, never executable; unmapped by `Drop`.
#[derive(Debug)]
pub struct Mapping {
    /// `None` once it is given up.
    area: Option<Area>,
    owner: DomainId,
}

impl Mapping {
    /// The first byte. Use volatile or atomic access only.
    pub fn address(&self) -> *mut u8 {
        self.area.as_ref().map_or(0, Area::address) as *mut u8
    }
    /// Bytes mapped.
    pub fn len(&self) -> usize {
        self.area.as_ref().map_or(0, Area::pages) * PAGE_SIZE
    }
    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn set(&self, mut entry: impl FnMut(usize) -> Entry) -> Result<(), XenError> {
        let mut batch = Batch::new(self.owner);
        let pages = self.area.iter().flat_map(|area| tables::pages(area.address(), area.pages()));
        for (index, address) in pages.enumerate() {
            let (machine_address, _) = tables::current().entry(address, Level::One).map_err(|_| XenError::Exhausted)?;
            // SAFETY: addresses of an area that is ours alone.
            unsafe { batch.set(machine_address, entry(index))? };
        }
        // SAFETY: as above.
        unsafe { batch.flush() }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.owner = tables::SELF;
        let unmapped = self.set(|_| Entry::NONE);
        tables::flush_tlb();
        if let Err(error) = unmapped {
            log::error!("{} pages stay mapped: {error}", self.len() / PAGE_SIZE);
            // Something is mapped there still: the addresses are never used again.
            core::mem::forget(self.area.take());
        }
    }
}

/// Maps frames of `owner`: [`DomainId::SELF`], or [`DomainId::IO`] for a device's registers.
///
/// # Safety
/// Frames of our own are not those of memory that Rust code holds.
///
/// # Errors
/// The errno of the hypercall, or [`XenError::Exhausted`].
pub(crate) unsafe fn map_frames(owner: DomainId, frames: &[Mfn], caching: Caching) -> Result<Mapping, XenError> {
    let mapping = Mapping { area: Some(Area::new(frames.len())?), owner };
    mapping.set(|index| match (frames.get(index), caching) {
        (Some(frame), Caching::WriteBack) => Entry::data(*frame),
        (Some(frame), Caching::Uncached) => Entry::registers(*frame),
        (None, _) => Entry::NONE,
    })?;
    Ok(mapping)
}
