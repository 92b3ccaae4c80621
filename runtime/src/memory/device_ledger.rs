//! The ledger of grants that are mapped for devices alone: by which handle and bus address each is unmapped. It outlives a restart. Floor 2.
//!
//! Such a mapping has no page in the mapping area, so this is kept by handle; Xen's handles are small numbers. Xen gives them, and a life may end
//! between its answer and the note. So Xen answers into a page that outlives the life as well, and the next one makes up for the notes.
//!
//! Unsafe because its pages are found by their frames, kept from life to life.

use super::frames;
use crate::layout;
use crate::record::record;
use core::sync::atomic::{AtomicU64, Ordering, compiler_fence};
use split_driver::hypervisor::XenError;
use xen_pv_sys::grant_table::{GNTST_OKAY, MapGrantRef};
use xen_pv_sys::{Mfn, PAGE_SIZE, Pfn};

/// Entries of a page.
const ENTRIES: usize = PAGE_SIZE / size_of::<AtomicU64>();
/// Grants of a batch, at most.
pub(crate) const BATCH: usize = 64;
const _: () = assert!(BATCH * size_of::<MapGrantRef>() <= PAGE_SIZE);
/// Set where an earlier life mapped. Frames are smaller numbers.
const INHERITED: u64 = 1 << 63;

/// The entry of a handle, where it has one: 0 for none mapped, else the machine frame plus one.
fn entry(handle: u32) -> Option<&'static AtomicU64> {
    let handle = handle as usize;
    let frame = record().device_ledger.get(handle / ENTRIES)?.get().checked_sub(1)?;
    let entries = layout::address_of(Pfn(frame.into())) as *const AtomicU64;
    // SAFETY: a page that `add` allocated for good, in this life or in one that sealed the record, mapped writable; every access of it is an
    // atomic.
    Some(unsafe { &*entries.add(handle % ENTRIES) })
}

/// Notes that a grant is mapped by this handle, at this machine frame.
///
/// # Errors
/// [`XenError::Exhausted`], and nothing is noted: the next life could not unmap it.
pub(crate) fn add(handle: u32, machine: Mfn) -> Result<(), XenError> {
    let slot = record().device_ledger.get(handle as usize / ENTRIES).ok_or(XenError::Exhausted)?;
    if slot.get() == 0 {
        let frame = frames::allocate(1).map_err(|_| XenError::Exhausted)?;
        // SAFETY: just allocated.
        unsafe { core::ptr::write_bytes(layout::address_of(frame) as *mut u8, 0, PAGE_SIZE) };
        slot.set(frame.0 as u32 + 1);
    }
    entry(handle).ok_or(XenError::Exhausted)?.store(machine.0 + 1, Ordering::Relaxed);
    Ok(())
}

/// Notes that it is unmapped.
pub(crate) fn remove(handle: u32) {
    if let Some(entry) = entry(handle) {
        entry.store(0, Ordering::Relaxed);
    }
}

/// Where the batch is; a page of the ledger's own.
fn batch_page() -> Option<*mut MapGrantRef> {
    let frame = record().device_batch.get().checked_sub(1)?;
    Some(layout::address_of(Pfn(frame.into())) as *mut MapGrantRef)
}

/// Has `map` make Xen map a batch of at most [`BATCH`] grants, and note by [`add`] what came of each: wherever a life ends in it, the next one
/// knows what Xen did.
///
/// # Errors
/// [`XenError::Exhausted`], and nothing is mapped.
pub(crate) fn with_batch(
    batch: impl Iterator<Item = MapGrantRef>,
    map: impl FnOnce(&mut [MapGrantRef]),
) -> Result<(), XenError> {
    let record = record();
    if record.device_batch.get() == 0 {
        let frame = frames::allocate(1).map_err(|_| XenError::Exhausted)?;
        record.device_batch.set(frame.0 as u32 + 1);
    }
    let page = batch_page().ok_or(XenError::Exhausted)?;
    let mut length = 0;
    for operation in batch.take(BATCH) {
        // SAFETY: within the page, which was allocated above, in this life or in an earlier one, for good; a batch is not begun within another.
        unsafe { page.add(length).write(operation) };
        length += 1;
    }
    compiler_fence(Ordering::SeqCst);
    record.device_batch_length.set(length as u32);
    compiler_fence(Ordering::SeqCst);
    // SAFETY: as above; just written, and reached by nothing else until `map` returns.
    map(unsafe { core::slice::from_raw_parts_mut(page, length) });
    compiler_fence(Ordering::SeqCst);
    record.device_batch_length.set(0);
    Ok(())
}

/// Makes up for the notes of a batch in which the last life ended: what Xen has mapped of it is in the ledger then.
fn recover_batch() {
    let length = record().device_batch_length.get() as usize;
    if let Some(page) = batch_page() {
        for index in 0..length.min(BATCH) {
            // SAFETY: within the page of the batch; an earlier life wrote them all before it set the length, which is sealed. Any bytes are valid.
            let MapGrantRef { status, handle, dev_bus_addr, .. } = unsafe { page.add(index).read() };
            if status == GNTST_OKAY
                && let Err(error) = add(handle, Mfn(dev_bus_addr / PAGE_SIZE as u64))
            {
                log::error!("a grant stays mapped for a device: {error}");
            }
        }
    }
    record().device_batch_length.set(0);
}

/// The handles that may have an entry.
fn handles() -> impl Iterator<Item = u32> {
    let slots = record().device_ledger.iter().zip(0_u32..).filter(|(slot, _)| slot.get() != 0);
    slots.flat_map(|(_, slot)| slot * ENTRIES as u32..(slot + 1) * ENTRIES as u32)
}

/// In a new life: what is mapped is an earlier life's.
pub(super) fn resume() {
    recover_batch();
    for entry in handles().filter_map(entry).filter(|entry| entry.load(Ordering::Relaxed) != 0) {
        entry.fetch_or(INHERITED, Ordering::Relaxed);
    }
}

/// What earlier lives mapped, by handle and machine frame.
pub(crate) fn inherited() -> impl Iterator<Item = (u32, Mfn)> {
    handles().filter_map(|handle| {
        let value = entry(handle)?.load(Ordering::Relaxed);
        (value & INHERITED != 0).then(|| (handle, Mfn((value & !INHERITED).wrapping_sub(1))))
    })
}

/// The ledger's own frames.
pub(super) fn frames() -> impl Iterator<Item = Pfn> {
    let slots = record().device_ledger.iter().chain([&record().device_batch]);
    slots.filter_map(|slot| slot.get().checked_sub(1)).map(|frame| Pfn(frame.into()))
}
