//! The virtual address space: where the image, all memory, and the mapping area lie. Floor 2.
//!
//! Unsafe because the linker script's symbols are foreign items; only their addresses are used.
//!
//! ```text
//! 0x0000_0000_0000  not mapped: the null page
//! 0x0000_0040_0000  all memory, pseudo-physical frame 0 first; the image is its beginning, then room for a larger one
//!                    (the heap's meanwhile), then the tail: shared info, guard page, stack, what outlives a restart
//! 0x0080_0000_0000  the mapping area: granted pages, grant table, device registers
//! 0xffff_8000_0000_0000  Xen: machine-to-physical table, read-only
//! ```

use crate::hypercall::{self, number};
use crate::local::Local;
use core::cell::Cell;
use xen_pv_sys::arch_x86::MACH2PHYS_VIRT_START;
use xen_pv_sys::memory::{MachphysMapping, XENMEM_MACHPHYS_MAPPING};
use xen_pv_sys::{Mfn, PAGE_SIZE, Pfn};

/// Where pseudo-physical frame 0 is mapped (the linker script's IMAGE_BASE).
pub(crate) const MEMORY_BASE: usize = 0x40_0000;
/// Memory beyond this many pages is not used: the mapping area begins there.
pub(crate) const MEMORY_PAGES_MAX: usize = (AREA_BASE - MEMORY_BASE) / PAGE_SIZE;
/// Where the mapping area begins.
pub(crate) const AREA_BASE: usize = 0x80_0000_0000;
/// Pages of the mapping area: 512 MiB.
pub(crate) const AREA_PAGES: usize = 0x2_0000;
/// Pages of the room that an image has at the most; those of a larger room are not replaced.
pub(crate) const ROOM_PAGES: usize = 512;
/// Bytes of what outlives a restart (the linker script's KEEP_SIZE).
pub(crate) const KEEP_SIZE: usize = 0x8000;
/// Entries of the machine-to-physical table that Xen has filled; read from Xen at boot.
static MACHINE_FRAMES: Local<Cell<u64>> = Local::new(Cell::new(0));

unsafe extern "C" {
    static image_start: u8;
    static image_text_end: u8;
    static image_rodata_end: u8;
    static image_stack_guard: u8;
    static image_stack_bottom: u8;
    static image_stack_top: u8;
    static image_shared_info: u8;
    static image_room: u8;
    static image_data_start: u8;
    static image_data_end: u8;
    static image_pristine: u8;
    static image_tail: u8;
    static image_keep: u8;
}

macro_rules! address {
    ($symbol:ident) => {
        (&raw const $symbol) as usize
    };
}

/// The addresses of the image's text.
pub(crate) fn text() -> core::ops::Range<usize> {
    address!(image_start)..address!(image_text_end)
}

/// The addresses of the image's constants.
pub(crate) fn rodata() -> core::ops::Range<usize> {
    address!(image_text_end)..address!(image_rodata_end)
}

/// The addresses of the image's initialised variables.
pub(crate) fn data() -> core::ops::Range<usize> {
    address!(image_data_start)..address!(image_data_end)
}

/// Where they are kept as they were linked.
pub(crate) fn pristine() -> usize {
    address!(image_pristine)
}

/// The image's first instruction.
pub(crate) fn entry() -> usize {
    unsafe extern "C" {
        fn oxidom_entry();
    }
    oxidom_entry as *const () as usize
}

/// The addresses of the stack.
pub(crate) fn stack() -> core::ops::Range<usize> {
    address!(image_stack_bottom)..address!(image_stack_top)
}

/// The page below the stack, unmapped.
pub(crate) fn stack_guard() -> usize {
    address!(image_stack_guard)
}

/// The page that the shared info is mapped over.
pub(crate) fn shared_info() -> usize {
    address!(image_shared_info)
}

/// The addresses between the image and the tail: memory of the heap.
pub(crate) fn room() -> core::ops::Range<usize> {
    address!(image_room)..address!(image_tail)
}

/// Where what outlives a restart is kept.
pub(crate) fn keep() -> usize {
    address!(image_keep)
}

/// Where a frame of ours is mapped.
pub(crate) const fn address_of(frame: Pfn) -> usize {
    MEMORY_BASE + frame.0 as usize * PAGE_SIZE
}

/// The frame of ours that is mapped at `address`.
pub(crate) const fn frame_at(address: usize) -> Pfn {
    Pfn(((address - MEMORY_BASE) / PAGE_SIZE) as u64)
}

/// The pseudo-physical frame that Xen holds for a machine frame. Meaningless where the frame is not ours: check it against the p2m.
///
/// # Safety
/// The table is mapped for `frame`: it is a frame of RAM.
pub(crate) unsafe fn machine_to_physical(frame: Mfn) -> Pfn {
    let entry = (MACH2PHYS_VIRT_START as *const u64).wrapping_add(frame.0 as usize);
    // SAFETY: by the caller; Xen may write the table, hence volatile.
    Pfn(unsafe { entry.read_volatile() })
}

/// Asks Xen how far the machine-to-physical table goes (`XENMEM_machphys_mapping`).
pub(crate) fn initialize() {
    let mut mapping = MachphysMapping { v_start: 0, v_end: 0, max_mfn: 0 };
    // SAFETY: the operation's struct; it is only written to.
    let result = unsafe { hypercall::operation::<{ number::MEMORY_OP }, _>(XENMEM_MACHPHYS_MAPPING, &mut mapping) };
    if result.is_ok() {
        MACHINE_FRAMES.set(mapping.max_mfn + 1);
    }
}

/// [`machine_to_physical`] of any number; `None` beyond the table.
pub(crate) fn machine_to_physical_checked(frame: Mfn) -> Option<Pfn> {
    // SAFETY: within the table. A hole in it would be a clean fault: only code of ours that makes up frame numbers meets one.
    (frame.0 < MACHINE_FRAMES.get()).then(|| unsafe { machine_to_physical(frame) })
}
