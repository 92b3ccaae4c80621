//! The address space at boot: narrows what the domain builder mapped, maps the rest, and fills the frame allocator. Floor 2.
//!
//! Unsafe because it changes the page tables that it runs on.

use super::tables::{self, Batch, ENTRIES, Entry, Level, TableFrames, Tables};
use super::{frames, p2m};
use crate::environment::environment;
use crate::layout;
use crate::record::record;
use split_driver::hypervisor::XenError;
use xen_pv_sys::start_info::StartInfo;
use xen_pv_sys::{Mfn, PAGE_SIZE, Pfn};

/// The memory that the domain builder mapped and left free, used from its beginning.
struct Unused {
    next: Pfn,
    mapped_end: Pfn,
}

impl Unused {
    fn take(&mut self, count: u64) -> Result<usize, XenError> {
        let address = layout::address_of(self.next);
        let next = Pfn(self.next.0 + count);
        if next.0 > self.mapped_end.0 {
            return Err(XenError::Exhausted);
        }
        self.next = next;
        // SAFETY: mapped writable, and unused until now.
        unsafe { core::ptr::write_bytes(address as *mut u8, 0, count as usize * PAGE_SIZE) };
        Ok(address)
    }
}

impl TableFrames for Unused {
    fn table_frame(&mut self) -> Result<(Mfn, usize), XenError> {
        let address = self.take(1)?;
        Ok((p2m::physical_to_machine(layout::frame_at(address)), address))
    }
}

/// Makes the address space of layout.rs.
///
/// # Safety
/// Called once, before any other memory is used, with what Xen handed over.
pub(super) unsafe fn initialize(start_info: &'static StartInfo, boot_stack: usize) -> Result<Tables, XenError> {
    let pages = usize::min(start_info.nr_pages as usize, layout::MEMORY_PAGES_MAX);
    // SAFETY: start_info's own figures.
    let tables = unsafe {
        p2m::set_list(start_info.mfn_list as usize, pages);
        Tables::new(start_info.pt_base as usize)
    };
    layout::initialize();
    let first_free = first_free(start_info, boot_stack);
    let mut mapped_end = first_free;
    while (mapped_end.0 as usize) < pages && is_mapped(tables, mapped_end) {
        mapped_end.0 += 1;
    }
    let mut unused = Unused { next: first_free, mapped_end };
    // SAFETY: the image is mapped as its sections ask for; the rest is unused memory.
    unsafe {
        protect(tables, mapped_end)?;
        map_rest(tables, &mut unused, Pfn(pages as u64))?;
    }
    let words = pages.div_ceil(64);
    let bitmaps = unused.take(bitmap_pages(pages))?;
    record().bitmaps.set(bitmaps as u64);
    // SAFETY: zeroed and ours alone; what is left is mapped writable and unused.
    unsafe {
        frames::initialize(p2m::set_bitmaps(bitmaps, words));
        frames::free(unused.next, pages - unused.next.0 as usize);
    }
    Ok(tables)
}

/// Pages of the bitmaps for so many frames.
pub(super) fn bitmap_pages(pages: usize) -> u64 {
    (pages.div_ceil(64) * 8 * p2m::BITMAPS).div_ceil(PAGE_SIZE) as u64
}

/// The first frame that holds nothing. The builder puts the boot stack last; the others are looked at for safety's sake.
pub(super) fn first_free(start_info: &StartInfo, boot_stack: usize) -> Pfn {
    let ends = [
        boot_stack,
        start_info.pt_base as usize + start_info.nr_pt_frames as usize * PAGE_SIZE,
        start_info.mfn_list as usize + start_info.nr_pages as usize * 8,
        start_info.mod_start as usize + start_info.mod_len as usize,
        core::ptr::from_ref(start_info) as usize + PAGE_SIZE,
    ];
    let end = ends.into_iter().max().unwrap_or(0);
    let mut first = layout::frame_at(end.next_multiple_of(PAGE_SIZE));
    if !environment().is_initial_domain() {
        for frame in [start_info.store_mfn, start_info.console_mfn] {
            if let Some(ring) = layout::machine_to_physical_checked(frame)
                && p2m::physical_to_machine(ring) == frame
                && frame.0 != 0
            {
                first.0 = u64::max(first.0, ring.0 + 1);
            }
        }
    }
    first
}

fn is_mapped(tables: Tables, frame: Pfn) -> bool {
    tables
        .entry(layout::address_of(frame), Level::One)
        .is_ok_and(|(_, entry)| entry.is_present() && entry.is_writable())
}

/// Maps text R-X, constants and page tables R--, all else RW-, and the page below the stack not at all.
///
/// # Safety
/// Called once, at boot.
unsafe fn protect(tables: Tables, mapped_end: Pfn) -> Result<(), XenError> {
    let mut batch = Batch::new(tables::SELF);
    for number in 0..mapped_end.0 {
        let address = layout::address_of(Pfn(number));
        let Ok((machine_address, entry)) = tables.entry(address, Level::One) else {
            continue;
        };
        let frame = entry.frame();
        let narrowed = if !entry.is_present() || address == layout::stack_guard() {
            Entry::NONE
        } else if layout::text().contains(&address) {
            Entry::text(frame)
        } else if layout::rodata().contains(&address) || !entry.is_writable() {
            Entry::constant(frame)
        } else {
            Entry::data(frame)
        };
        // SAFETY: each section is used as its mapping now allows.
        unsafe { batch.set(machine_address, narrowed)? };
    }
    // SAFETY: as above.
    unsafe { batch.flush()? };
    tables::flush_tlb();
    Ok(())
}

/// Maps the frames from `unused.mapped_end` on: whole tables are filled while they are still plain memory, then put in their place, two
/// updates for 2 MiB.
///
/// # Safety
/// Called once, at boot; the frames are unused.
unsafe fn map_rest(tables: Tables, unused: &mut Unused, end: Pfn) -> Result<(), XenError> {
    let mut batch = Batch::new(tables::SELF);
    let mut number = unused.mapped_end.0;
    while number < end.0 {
        let address = layout::address_of(Pfn(number));
        let in_table = (address / PAGE_SIZE) % ENTRIES;
        let count = u64::min((ENTRIES - in_table) as u64, end.0 - number);
        // SAFETY: new mappings of unused frames; a table is written before it becomes one.
        unsafe {
            tables.ensure(address, Level::Two, unused)?;
            if matches!(tables.entry(address, Level::Two), Ok((_, entry)) if entry.is_present()) {
                fill_present(tables, &mut batch, number, count)?;
            } else {
                let (frame, mapped) = unused.table_frame()?;
                for offset in 0..count {
                    let entry = Entry::data(p2m::physical_to_machine(Pfn(number + offset)));
                    (mapped as *mut u64).wrapping_add(in_table + offset as usize).write_volatile(entry.0);
                }
                tables.hook(&mut batch, address, Level::Two, frame, mapped)?;
            }
            number += count;
            // The next table may have to come from what this one maps.
            if unused.next.0 + 4 >= unused.mapped_end.0 || number == end.0 {
                batch.flush()?;
                unused.mapped_end = Pfn(number);
            }
        }
    }
    Ok(())
}

/// Fills a part of a table that is in use.
///
/// # Safety
/// As [`map_rest`].
unsafe fn fill_present(tables: Tables, batch: &mut Batch, first: u64, count: u64) -> Result<(), XenError> {
    for number in first..first + count {
        if let Ok((machine_address, _)) = tables.entry(layout::address_of(Pfn(number)), Level::One) {
            // SAFETY: by the caller.
            unsafe {
                batch.set(machine_address, Entry::data(p2m::physical_to_machine(Pfn(number))))?;
            }
        }
    }
    Ok(())
}
