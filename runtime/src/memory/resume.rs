//! The address space in a new life of the domain: as the last one left it; what nobody can reach any more is free again. Floor 2.
//!
//! Unsafe because it decides which memory is given out.

use super::boot::{bitmap_pages, first_free};
use super::page::Page;
use super::tables::{self, Batch, ENTRIES, Entry, Level, Tables};
use super::{device_ledger, frames, kept, ledger, p2m};
use crate::layout;
use crate::record::record;
use core::ops::Range;
use split_driver::hypervisor::XenError;
use xen_pv_sys::start_info::StartInfo;
use xen_pv_sys::{Mfn, PAGE_SIZE, Pfn};

/// Takes over the address space.
///
/// Free is what is mapped writable where it belongs (page tables are not, and what was being exchanged with Xen is not) and is none of: what
/// lies before the first free frame of the boot, the bitmaps, the ledgers, the page of interrupts to be ended, the watchdog's data, withheld (the
/// box, DMA memory of an earlier life, the pages of a replaced image), kept, or in a grant that has not
/// ended.
///
/// # Safety
/// Called once in a life that is not the first, before any other memory is used, with what Xen handed over; `granted` are the machine frames
/// of all grants that have not ended.
pub(super) unsafe fn initialize(
    start_info: &'static StartInfo,
    boot_stack: usize,
    granted: impl Iterator<Item = Mfn> + Clone,
) -> Result<Tables, XenError> {
    let pages = usize::min(start_info.nr_pages as usize, layout::MEMORY_PAGES_MAX);
    let bitmaps = record().bitmaps.get() as usize;
    // SAFETY: start_info's own figures; the bitmaps as the first life made them: the record's seal says that their address is its.
    let tables = unsafe {
        p2m::set_list(start_info.mfn_list as usize, pages);
        frames::initialize(p2m::set_bitmaps(bitmaps, pages.div_ceil(64)));
        Tables::new(start_info.pt_base as usize)
    };
    layout::initialize();
    p2m::begin_life();
    let first = layout::frame_at(bitmaps);
    let own = first.0..first.0 + bitmap_pages(pages);
    let range = first_free(start_info, boot_stack).0..pages as u64;
    // Until the end of this function the bitmap of shared frames says which ones are taken.
    p2m::share_withheld();
    for number in own.clone() {
        p2m::set_shared_frame(Pfn(number), true);
    }
    let mut number = range.start;
    while number < range.end {
        let address = layout::address_of(Pfn(number));
        let count = ((ENTRIES - (address / PAGE_SIZE) % ENTRIES) as u64).min(range.end - number);
        let entries = tables.leaves(address).chain(core::iter::repeat(Entry::NONE));
        for (frame, entry) in (number..number + count).map(Pfn).zip(entries) {
            if !entry.is_plain(frame) {
                p2m::set_shared_frame(frame, true);
            }
        }
        number += count;
    }
    let interrupt_ends = record().interrupt_ends.get().checked_sub(1).map(Pfn);
    // Its code, which is not mapped writable, is left out above.
    let watchdog = record().watchdog.get().checked_sub(1).map(|code| Pfn(code + 1));
    for frame in ledger::frames().chain(device_ledger::frames()).chain(interrupt_ends).chain(watchdog) {
        p2m::set_shared_frame(frame, true);
    }
    // A page behind a grant counts as allocated, and is freed like any other when the grant ends.
    for frame in granted.clone().filter_map(own_frame).filter(|frame| range.contains(&frame.0)) {
        p2m::set_shared_frame(frame, true);
    }
    // SAFETY: all that is left of `range` is plain memory that no one uses.
    unsafe { add_free(range.clone()) };
    p2m::begin_life();
    for machine in granted {
        let pages = |frame: &Pfn| range.contains(&frame.0) && !own.contains(&frame.0) && !p2m::is_withheld(*frame);
        if let Some(frame) = own_frame(machine).filter(pages).filter(|frame| tables.is_plain(*frame)) {
            p2m::set_shared_frame(frame, true);
        }
    }
    Ok(tables)
}

/// The frame of ours that a machine frame is.
fn own_frame(machine: Mfn) -> Option<Pfn> {
    layout::machine_to_physical_checked(machine).filter(|frame| p2m::physical_to_machine(*frame) == machine)
}

/// Adds the runs of frames that are not taken.
///
/// # Safety
/// They are free.
unsafe fn add_free(range: Range<u64>) {
    let end = range.end;
    let mut start = range.start;
    while start < end {
        if p2m::is_shared_frame(Pfn(start)) {
            start += 1;
            continue;
        }
        let mut taken = start;
        while taken < end && !p2m::is_shared_frame(Pfn(taken)) {
            // 64 at a time where none of them is taken.
            taken = if p2m::none_shared_from(Pfn(taken)) { taken + 64 } else { taken + 1 };
        }
        let taken = taken.min(end);
        // SAFETY: by the caller.
        unsafe { frames::free(Pfn(start), (taken - start) as usize) };
        start = taken;
    }
}

/// The page behind a grant of an earlier life.
///
/// # Safety
/// Asked for once in a life for each frame, before any [`Page`] of this life is shared: then a frame that is marked as shared is one that
/// `initialize` marked.
pub(crate) unsafe fn granted_page(machine: Mfn) -> Option<Page> {
    let frame = own_frame(machine)?;
    // SAFETY: `initialize` marked it as shared and left it out of what is free; by the caller nobody else has it.
    p2m::is_shared_frame(frame).then(|| unsafe { Page::adopt(frame) })
}

/// The page in which Xen keeps which interrupts have to be ended, where an earlier life gave it one.
///
/// # Safety
/// Asked for once in a life.
pub(crate) unsafe fn interrupt_ends() -> Option<Page> {
    let frame = record().interrupt_ends.get().checked_sub(1).map(Pfn)?;
    // SAFETY: `initialize` left it out of what is free; by the caller nobody else has it.
    record().is_again().then(|| unsafe { Page::adopt(frame) })
}

/// Keeps frames from the next life.
pub(crate) fn withhold(first: Pfn, count: usize) {
    for number in first.0..first.0 + count as u64 {
        p2m::withhold(Pfn(number));
    }
}

/// Whether all of these frames are withheld, so that nobody in this life has them.
pub(crate) fn are_withheld(first: Pfn, count: usize) -> bool {
    (first.0..first.0 + count as u64).map(Pfn).all(p2m::is_withheld)
}

/// Withholds frames no longer.
pub(crate) fn do_not_withhold(first: Pfn, count: usize) {
    for number in first.0..first.0 + count as u64 {
        p2m::do_not_withhold(Pfn(number));
    }
}

/// Frees what was withheld from this life and is not lost, and what an earlier one kept and this one has not taken over.
pub(crate) fn release_withheld() {
    release(|_| true);
    kept::release_inherited();
}

/// Frees what was withheld since devices of the last life might write it, and they no longer do.
pub(crate) fn release_device_frames() {
    release(p2m::is_device_frame);
}

/// What devices of earlier lives could write stays withheld for good: one of them was not seen to stop. To be called before this life gives a
/// device any memory. Gives how many frames are lost by that.
pub(crate) fn lose_device_frames() -> usize {
    p2m::lose_device_frames()
}

fn release(which: impl Fn(Pfn) -> bool) {
    let which = |frame: Pfn| which(frame) && !p2m::is_lost(frame);
    // Most are mapped as all free memory is.
    free_plain(which);
    let tables = tables::current();
    let mut batch = Batch::new(tables::SELF);
    let mut any = false;
    for frame in p2m::withheld().filter(|frame| which(*frame)) {
        if let Ok((machine_address, _)) = tables.entry(layout::address_of(frame), Level::One) {
            any = true;
            // SAFETY: nobody uses it any more; it is mapped as all free memory is.
            let _ = unsafe { batch.set(machine_address, Entry::data(p2m::physical_to_machine(frame))) };
        }
    }
    if !any {
        return;
    }
    // SAFETY: as above.
    if let Err(error) = unsafe { batch.flush() } {
        log::error!("memory of the last life stays lost: {error}");
    }
    tables::flush_tlb();
    free_plain(which);
    for frame in p2m::withheld().filter(|frame| which(*frame)) {
        p2m::do_not_withhold(frame);
    }
}

/// Frees the frames that are withheld and mapped as plain memory.
fn free_plain(which: impl Fn(Pfn) -> bool) {
    // SAFETY: plain memory, in no allocator in this life, and by the callers' callers in no one's use.
    let free = |run: &Range<u64>| unsafe { frames::free(Pfn(run.start), (run.end - run.start) as usize) };
    let mut leaves = tables::current().reader();
    let mut run = 0..0;
    for frame in p2m::withheld().filter(|frame| which(*frame)) {
        if !leaves.is_plain(frame) {
            continue;
        }
        p2m::do_not_withhold(frame);
        if run.end != frame.0 {
            free(&run);
            run.start = frame.0;
        }
        run.end = frame.0 + 1;
    }
    free(&run);
}
