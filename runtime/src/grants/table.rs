//! The entries of the grant table: found, filled, emptied. The table grows as it is used. Floor 2.
//!
//! Unsafe because the table is memory shared with Xen.

use super::operate::operate;
use crate::hypercall::{self, number};
use crate::local::Local;
use crate::memory::tables::{self, Entry};
use crate::memory::{self, Area, Page};
use crate::record::record;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::sync::atomic::{AtomicU16, AtomicU32, Ordering, fence};
use split_driver::hypervisor::XenError;
use xen_pv_sys::grant_table::{
    GNTST_GENERAL_ERROR, GNTST_OKAY, GNTTAB_NR_RESERVED_ENTRIES, GNTTABOP_QUERY_SIZE, GNTTABOP_SETUP_TABLE,
    GrantEntryFlags, QuerySize, SetupTable,
};
use xen_pv_sys::{DomainId, GrantRef, Mfn, PAGE_SIZE};

/// `grant_entry_v1_t`, which Xen changes while a peer uses the page.
#[repr(C)]
struct SharedEntry {
    flags: AtomicU16,
    domain: AtomicU16,
    frame: AtomicU32,
}

/// Entries in a frame of the table.
const ENTRIES: u32 = (PAGE_SIZE / size_of::<SharedEntry>()) as u32;
/// More frames are not used: 32 768 grants.
const FRAMES_MAX: u32 = 64;

/// The table as far as it is set up.
struct Table {
    area: Option<Area>,
    frames: u32,
    frames_max: u32,
    free: Vec<u32>,
    lingering: Vec<(GrantRef, Rc<Page>)>,
    /// Grants of earlier lives, not yet adopted.
    inherited: Vec<(GrantRef, Rc<Page>)>,
    used: usize,
}

static TABLE: Local<RefCell<Table>> = Local::new(RefCell::new(Table {
    area: None,
    frames: 0,
    frames_max: 0,
    free: Vec::new(),
    lingering: Vec::new(),
    inherited: Vec::new(),
    used: 0,
}));

impl Table {
    fn entry(&self, reference: GrantRef) -> Option<&SharedEntry> {
        let area = self.area.as_ref()?;
        if reference.0 >= self.frames * ENTRIES {
            return None;
        }
        let entries = area.address() as *const SharedEntry;
        // SAFETY: within the frames that are mapped, for good; all fields are atomics.
        Some(unsafe { &*entries.wrapping_add(reference.0 as usize) })
    }

    /// One frame more.
    fn grow(&mut self) -> Result<(), XenError> {
        if self.area.is_none() {
            self.frames_max = u32::min(query_max(), FRAMES_MAX);
            self.area = Some(Area::new(self.frames_max as usize)?);
        }
        let area = self.area.as_ref().ok_or(XenError::Exhausted)?;
        if self.frames >= self.frames_max {
            return Err(XenError::Exhausted);
        }
        self.free
            .try_reserve(ENTRIES as usize)
            .and_then(|()| self.lingering.try_reserve((self.frames as usize + 1) * ENTRIES as usize))
            .map_err(|_| XenError::Exhausted)?;
        let frame = set_up(self.frames + 1)?;
        let address = area.address() + self.frames as usize * PAGE_SIZE;
        // SAFETY: a page of an area that is ours alone; Xen's frame is for us to write.
        unsafe { tables::set_mapping(address, Entry::data(frame))? };
        let first = self.frames * ENTRIES;
        self.frames += 1;
        // The next life finds the table where it is.
        record().grant_table.set(area.address() as u64);
        record().grant_frames.set(self.frames);
        record().grant_frames_max.set(self.frames_max);
        let usable = u32::max(first, GNTTAB_NR_RESERVED_ENTRIES)..first + ENTRIES;
        self.free.extend(usable.rev());
        Ok(())
    }

    /// Empties an entry; false where the peer uses it.
    fn empty(&mut self, reference: GrantRef) -> bool {
        let in_use = (GrantEntryFlags::READING | GrantEntryFlags::WRITING).bits();
        let Some(entry) = self.entry(reference) else {
            return true;
        };
        let emptied =
            entry.flags.try_update(Ordering::SeqCst, Ordering::SeqCst, |flags| (flags & in_use == 0).then_some(0));
        if emptied.is_ok() {
            self.free.push(reference.0);
            self.used -= 1;
        }
        emptied.is_ok()
    }

    /// Frees the pages whose peers have let go by now.
    fn sweep(&mut self) {
        let mut index = 0;
        while let Some((reference, _)) = self.lingering.get(index) {
            if self.empty(*reference) {
                self.lingering.swap_remove(index);
            } else {
                index += 1;
            }
        }
    }
}

/// How far the table may grow (`GNTTABOP_query_size`).
fn query_max() -> u32 {
    let mut argument = QuerySize {
        domain: DomainId::SELF,
        padding0: 0,
        nr_frames: 0,
        max_nr_frames: 0,
        status: GNTST_GENERAL_ERROR,
        padding1: 0,
    };
    // SAFETY: the operation's struct.
    unsafe { operate(GNTTABOP_QUERY_SIZE, core::slice::from_mut(&mut argument)) };
    if argument.status == GNTST_OKAY { argument.max_nr_frames } else { 1 }
}

/// Has the table `count` frames (`GNTTABOP_setup_table`); the last one.
fn set_up(count: u32) -> Result<Mfn, XenError> {
    let mut frames = [0u64; FRAMES_MAX as usize];
    let mut argument = SetupTable {
        domain: DomainId::SELF,
        padding0: 0,
        nr_frames: count,
        status: GNTST_GENERAL_ERROR,
        padding1: [0; 3],
        frame_list: frames.as_mut_ptr() as u64,
    };
    // SAFETY: the operation's struct; Xen writes `count` frame numbers, which is at most the array's length.
    let result = unsafe {
        hypercall::call4::<{ number::GRANT_TABLE_OP }>(GNTTABOP_SETUP_TABLE, (&raw mut argument) as u64, 1, 0)
    };
    hypercall::check(result)?;
    if argument.status != GNTST_OKAY {
        return Err(XenError::Grant(argument.status));
    }
    (count as usize)
        .checked_sub(1)
        .and_then(|last| frames.get(last))
        .map(|frame| Mfn(*frame))
        .ok_or(XenError::Exhausted)
}

/// Fills an entry.
pub(super) fn grant(domain: DomainId, frame: Mfn, read_only: bool) -> Result<GrantRef, XenError> {
    let mut table = TABLE.borrow_mut();
    table.sweep();
    if table.free.is_empty() {
        table.grow()?;
    }
    let frame = u32::try_from(frame.0).map_err(|_| XenError::Exhausted)?;
    let reference = GrantRef(table.free.pop().ok_or(XenError::Exhausted)?);
    let entry = table.entry(reference).ok_or(XenError::Exhausted)?;
    let mut flags = GrantEntryFlags::PERMIT_ACCESS;
    flags.set(GrantEntryFlags::READONLY, read_only);
    entry.frame.store(frame, Ordering::Relaxed);
    entry.domain.store(domain.0, Ordering::Relaxed);
    // Frame and domain are there before Xen sees the flags.
    fence(Ordering::SeqCst);
    entry.flags.store(flags.bits(), Ordering::Relaxed);
    table.used += 1;
    Ok(reference)
}

/// Empties an entry; false where the peer uses it.
pub(super) fn end(reference: GrantRef) -> bool {
    TABLE.borrow_mut().empty(reference)
}

/// Keeps a page until its peer lets go. There is room for as many as there are entries.
pub(super) fn linger(reference: GrantRef, page: Rc<Page>) {
    TABLE.borrow_mut().lingering.push((reference, page));
}

/// The entries of the table that an earlier life set up, with their references.
fn inherited_entries() -> impl Iterator<Item = (GrantRef, &'static SharedEntry)> + Clone {
    let entries = record().grant_table.get() as *const SharedEntry;
    let count = record().grant_frames.get() * ENTRIES;
    (GNTTAB_NR_RESERVED_ENTRIES..count).map(move |reference| {
        // SAFETY: the table stays mapped from life to life (area.rs), these frames of it at this address, as a life wrote into the record, which
        // is sealed; all fields are atomics.
        (GrantRef(reference), unsafe { &*entries.add(reference as usize) })
    })
}

/// The machine frame of each grant that an earlier life made and that has not ended; of more than one grant of a frame, as often. For the
/// beginning of a life, before there is a heap.
pub(crate) fn granted() -> impl Iterator<Item = Mfn> + Clone {
    let in_use = inherited_entries().filter(|(_, entry)| entry.flags.load(Ordering::Relaxed) != 0);
    in_use.map(|(_, entry)| Mfn(entry.frame.load(Ordering::Relaxed).into()))
}

/// Takes over the table of an earlier life.
///
/// # Safety
/// Called once in a life, before it has any page of its own.
pub(crate) unsafe fn initialize() {
    let Some(area) = Area::adopt_grant_table() else {
        return;
    };
    let mut table = TABLE.borrow_mut();
    table.area = Some(area);
    table.frames = record().grant_frames.get();
    table.frames_max = record().grant_frames_max.get();
    let entries = table.frames as usize * ENTRIES as usize;
    table.lingering.reserve(entries);
    table.free.reserve(entries);
    let mut pages: BTreeMap<u64, Rc<Page>> = BTreeMap::new();
    for (reference, entry) in inherited_entries() {
        if entry.flags.load(Ordering::Relaxed) == 0 {
            table.free.push(reference.0);
            continue;
        }
        let machine = Mfn(entry.frame.load(Ordering::Relaxed).into());
        let known = pages.get(&machine.0).cloned();
        // SAFETY: `pages` has each frame that was asked for with success; by the caller this life has no page yet but those.
        let asked = || unsafe { memory::granted_page(machine) };
        // One whose page is none of ours stays in the table for good.
        if let Some(page) = known.or_else(|| asked().map(Rc::new)) {
            pages.insert(machine.0, Rc::clone(&page));
            table.inherited.push((reference, page));
        }
        table.used += 1;
    }
    table.free.reverse();
}

/// Takes over a grant of an earlier life.
pub(super) fn adopt(reference: GrantRef) -> Option<Rc<Page>> {
    let mut table = TABLE.borrow_mut();
    let index = table.inherited.iter().position(|(known, _)| *known == reference)?;
    Some(table.inherited.swap_remove(index).1)
}

/// Ends the grants of earlier lives, those that a peer uses as soon as it does not.
pub(super) fn end_inherited() {
    let mut table = TABLE.borrow_mut();
    let inherited = core::mem::take(&mut table.inherited);
    table.lingering.extend(inherited);
    table.sweep();
}

/// Grants kept so, after a look at which are over.
pub(super) fn lingering() -> usize {
    let mut table = TABLE.borrow_mut();
    table.sweep();
    table.lingering.len()
}

/// Entries in use.
pub(super) fn in_use() -> usize {
    TABLE.borrow().used
}
