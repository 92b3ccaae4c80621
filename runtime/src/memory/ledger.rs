//! The ledger of grant mappings: by which handle each page of the mapping area is unmapped. It outlives a restart. Floor 2.
//!
//! Unsafe because its pages are found by their frames, kept from life to life.

use super::frames;
use crate::layout;
use crate::record::record;
use core::sync::atomic::{AtomicU32, Ordering};
use split_driver::hypervisor::XenError;
use xen_pv_sys::{PAGE_SIZE, Pfn};

/// Entries of a page.
const ENTRIES: usize = PAGE_SIZE / size_of::<AtomicU32>();
/// Set where an earlier life mapped, and this one has not adopted it. Handles are small numbers.
const INHERITED: u32 = 1 << 31;
/// A grant is being mapped: where a life ends before Xen's answer is noted, the handle is lost, and so is the page of the area.
const MAPPING: u32 = 1 << 30;

/// The entry of a page of the area, where it has one: 0 for no grant, else the handle plus one.
fn entry(page: usize) -> Option<&'static AtomicU32> {
    let frame = record().ledger.get(page / ENTRIES)?.get().checked_sub(1)?;
    let entries = layout::address_of(Pfn(frame.into())) as *const AtomicU32;
    // SAFETY: a page that `ensure` allocated for good, in this life or in one that sealed the record, mapped writable; every access of it is an
    // atomic.
    Some(unsafe { &*entries.add(page % ENTRIES) })
}

/// Makes entries for `count` pages from `first` on.
pub(super) fn ensure(first: usize, count: usize) -> Result<(), XenError> {
    for slot in first / ENTRIES..(first + count).div_ceil(ENTRIES) {
        let slot = record().ledger.get(slot).ok_or(XenError::Exhausted)?;
        if slot.get() == 0 {
            let frame = frames::allocate(1).map_err(|_| XenError::Exhausted)?;
            // SAFETY: just allocated.
            unsafe { core::ptr::write_bytes(layout::address_of(frame) as *mut u8, 0, PAGE_SIZE) };
            slot.set(frame.0 as u32 + 1);
        }
    }
    Ok(())
}

/// Notes that a grant is mapped at a page of the area, or none any more.
pub(super) fn set(page: usize, handle: Option<u32>) {
    if let Some(entry) = entry(page) {
        entry.store(handle.map_or(0, |handle| handle + 1), Ordering::Relaxed);
    }
}

/// Notes that a grant is about to be mapped at a page.
pub(super) fn begin(page: usize) {
    if let Some(entry) = entry(page) {
        entry.store(MAPPING, Ordering::SeqCst);
    }
}

/// Whether a grant is mapped at a page by a handle that was lost.
pub(super) fn is_lost(page: usize) -> bool {
    entry(page).is_some_and(|entry| entry.load(Ordering::Relaxed) & MAPPING != 0)
}

/// Whether a grant is mapped at a page.
pub(super) fn is_mapped(page: usize) -> bool {
    entry(page).is_some_and(|entry| entry.load(Ordering::Relaxed) != 0)
}

/// Notes that a mapping is an earlier life's.
pub(super) fn inherit(page: usize) {
    if let Some(entry) = entry(page) {
        entry.fetch_or(INHERITED, Ordering::Relaxed);
    }
}

/// The handle of a mapping of an earlier life, that is not adopted.
pub(super) fn inherited(page: usize) -> Option<u32> {
    let value = entry(page)?.load(Ordering::Relaxed);
    (value & INHERITED != 0).then(|| (value & !INHERITED).wrapping_sub(1))
}

/// The pages of the area that may have an entry.
pub(super) fn pages() -> impl Iterator<Item = usize> {
    let slots = record().ledger.iter().zip(0..).filter(|(slot, _)| slot.get() != 0);
    slots.flat_map(|(_, slot)| slot * ENTRIES..(slot + 1) * ENTRIES)
}

/// The ledger's own frames.
pub(super) fn frames() -> impl Iterator<Item = Pfn> {
    record().ledger.iter().filter_map(|slot| slot.get().checked_sub(1)).map(|frame| Pfn(frame.into()))
}
