//! Another image in the place of the running one, and back. Floor 2.
//!
//! Nothing is copied at the end: the new image's pages are filled beforehand in frames of their own, and then each changes places with the
//! old one's page, in one hypercall. So the old image lies where the new one was made ready, and can come back in the same way until the
//! new one says that it has taken over. The first page, which is Xen's hypercall page, and the tail are the same in all images; pages of
//! text and of constants that are the same in both stay where they are.
//!
//! Unsafe because it changes what is mapped where the code runs. The last steps are assembly in a page outside of the image.

use super::image::{Frame, Image, Kind};
use super::keep::{LAYOUT, ROOM_PAGES, keep as record};
use crate::memory::tables::{self, Entry};
use crate::memory::{self, frames, layout};
use core::arch::global_asm;
use core::mem::offset_of;
use split_driver::memory::OutOfMemory;
use xen_pv_sys::xen::{MMU_MACHPHYS_UPDATE, MMUEXT_TLB_FLUSH_LOCAL, MmuExtOp, MmuUpdate};
use xen_pv_sys::{PAGE_SIZE, Pfn};

global_asm!(
    r#"
    # oxidom_swap(plan: %rdi): runs as a copy in a page of its own, whatever image is mapped meanwhile, but for the hypercall page. On the
    # way back it is the old image's copy. An error in the middle leaves no image that could report it: the domain crashes.
    .section .text.oxidom_swap, "ax", @progbits
    .globl oxidom_swap
    .globl oxidom_swap_end
oxidom_swap:
    cld
    mov %rdi, %rbx
    mov {from}(%rbx), %rsi
    mov {to}(%rbx), %rdi
    mov {quads}(%rbx), %rcx
    rep movsq
    mov {updates}(%rbx), %rdi
    mov {count}(%rbx), %rsi
    xor %edx, %edx
    mov $0x7ff0, %r10d          # DOMID_SELF
    mov $oxidom_hypercall_page + 1 * 32, %eax
    call *%rax                  # mmu_update
    test %rax, %rax
    jnz 1f
    lea {flush}(%rbx), %rdi
    mov $1, %esi
    xor %edx, %edx
    mov $0x7ff0, %r10d
    mov $oxidom_hypercall_page + 26 * 32, %eax
    call *%rax                  # mmuext_op
    test %rax, %rax
    jnz 1f
    jmp *{entry}(%rbx)
1:  push $3                     # SHUTDOWN_crash
    mov %rsp, %rsi
    mov $2, %edi                # SCHEDOP_shutdown
    mov $oxidom_hypercall_page + 29 * 32, %eax
    call *%rax
    jmp 1b
oxidom_swap_end:
    .text
"#,
    from = const offset_of!(Plan, copy_from),
    to = const offset_of!(Plan, copy_to),
    quads = const offset_of!(Plan, copy_quads),
    updates = const offset_of!(Plan, updates),
    count = const offset_of!(Plan, count),
    flush = const offset_of!(Plan, flush),
    entry = const offset_of!(Plan, entry),
    options(att_syntax)
);

unsafe extern "C" {
    fn oxidom_swap();
    static oxidom_swap_end: u8;
}

/// What `oxidom_swap` does.
#[repr(C)]
#[derive(Clone, Copy)]
struct Plan {
    updates: u64,
    count: u64,
    /// `.data` as it was linked, back in its place.
    copy_from: u64,
    copy_to: u64,
    copy_quads: u64,
    entry: u64,
    flush: MmuExtOp,
}

/// Updates for a page of the room: two mappings, and two entries of Xen's table of what frame each machine frame is.
const UPDATES: usize = 4;
/// Where the updates begin behind the plan.
const FIRST_UPDATE: usize = 128;
const PLAN_PAGES: usize = (FIRST_UPDATE + UPDATES * ROOM_PAGES * size_of::<MmuUpdate>()).div_ceil(PAGE_SIZE);

const _: () = assert!(size_of::<Plan>() <= FIRST_UPDATE);

/// What an image must have in common with this one.
pub(super) fn own_frame() -> Frame {
    Frame { layout: LAYOUT.into(), base: layout::text().start as u64, tail: layout::room().end as u64 }
}

/// An image made ready, with the plan of the exchange; what it takes is given back by [`Staged::discard`].
pub(super) struct Staged {
    plan: usize,
    code: usize,
    entry: u64,
}

/// How this image's page at an address is mapped, and whether it holds something of the file.
fn own_kind(address: usize) -> (Kind, bool) {
    if layout::text().contains(&address) {
        (Kind::Text, true)
    } else if layout::rodata().contains(&address) {
        (Kind::Constant, true)
    } else {
        (Kind::Data, address < layout::data().end)
    }
}

fn entry(kind: Kind, frame: xen_pv_sys::Mfn) -> Entry {
    match kind {
        Kind::Text => Entry::text(frame),
        Kind::Constant => Entry::constant(frame),
        Kind::Data => Entry::data(frame),
    }
}

/// Whether this image's page at an address never changes and is what another image has there, which is `bytes` and then zeros.
fn stays(address: usize, kind: Kind, bytes: &[u8]) -> bool {
    if kind == Kind::Data {
        return false;
    }
    // SAFETY: a page of this image's text or constants: mapped, readable, and written by nobody.
    let own = unsafe { core::slice::from_raw_parts(address as *const u8, PAGE_SIZE) };
    own.split_at_checked(bytes.len()).is_some_and(|(begin, rest)| begin == bytes && rest.iter().all(|byte| *byte == 0))
}

/// The pages of the room that may change: all but the first.
fn room_pages() -> impl Iterator<Item = (usize, usize)> + Clone {
    let base = layout::text().start;
    (1..(layout::room().end - base) / PAGE_SIZE).map(move |page| (page, base + page * PAGE_SIZE))
}

impl Staged {
    /// Makes an image ready.
    pub(super) fn new(image: &Image<'_>) -> Result<Self, OutOfMemory> {
        let plan = layout::address_of(frames::allocate(PLAN_PAGES)?);
        let code = match frames::allocate(1) {
            Ok(frame) => layout::address_of(frame),
            Err(error) => {
                // SAFETY: just allocated.
                unsafe { frames::free(layout::frame_at(plan), PLAN_PAGES) };
                return Err(error);
            }
        };
        let staged = Self { plan, code, entry: image.entry };
        match staged.fill(image) {
            Ok(()) => Ok(staged),
            Err(error) => {
                staged.discard();
                Err(error)
            }
        }
    }

    /// Fills a page for each that the new image or this one has and that differs, and copies the code.
    fn fill(&self, image: &Image<'_>) -> Result<(), OutOfMemory> {
        for (page, address) in room_pages() {
            let new = image.page(address as u64);
            let (kind, held) = own_kind(address);
            let Some(slot) = record().replaced.get(page) else {
                // A room this large is not replaced.
                return Err(OutOfMemory);
            };
            if new.map_or(!held, |(new_kind, bytes)| held && new_kind == kind && stays(address, kind, bytes)) {
                continue;
            }
            let frame = frames::allocate(1)?;
            let bytes = new.map_or(&[][..], |(_, bytes)| bytes);
            let target = layout::address_of(frame) as *mut u8;
            // SAFETY: a page just allocated, mapped writable; `bytes` are at most a page, and not of it.
            unsafe {
                core::ptr::write_bytes(target, 0, PAGE_SIZE);
                core::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
            }
            slot.set(frame.0 as u32 | (kind as u32) << 30);
        }
        let start = oxidom_swap as *const u8;
        let length = (&raw const oxidom_swap_end) as usize - start as usize;
        // SAFETY: the code's bytes, which are less than a page, into a page just allocated; then it is mapped to be executed, no longer to
        // be written.
        unsafe {
            core::ptr::copy_nonoverlapping(start, self.code as *mut u8, length);
            let frame = memory::physical_to_machine(layout::frame_at(self.code));
            tables::set_mapping(self.code, Entry::text(frame)).map_err(|_| OutOfMemory)
        }
    }

    /// Gives everything back.
    pub(super) fn discard(self) {
        let frame = memory::physical_to_machine(layout::frame_at(self.code));
        // SAFETY: nobody executes it; all of it was allocated here and is used by no one else.
        unsafe {
            if tables::set_mapping(self.code, Entry::data(frame)).is_ok() {
                frames::free(layout::frame_at(self.code), 1);
            }
            frames::free(layout::frame_at(self.plan), PLAN_PAGES);
            for slot in &record().replaced {
                if let Some((frame, _)) = replaced(slot.take()) {
                    frames::free(frame, 1);
                }
            }
        }
    }

    /// Puts the image in the place of this one. The box is written.
    pub(super) fn enter(self, image: &Image<'_>) -> ! {
        let pages = room_pages().filter_map(|(page, address)| {
            let (frame, _) = record().replaced.get(page).and_then(|slot| replaced(slot.get()))?;
            let kind = image.page(address as u64).map_or(Kind::Data, |(kind, _)| kind);
            // The old page can be read only, so no life takes it for free memory.
            Some(Exchange { address, kind, frame, kind_there: Kind::Constant })
        });
        let mut swap = Swap::new(self.plan);
        swap.exchange(&pages);
        pages.for_each(|page| memory::withhold(page.frame, 1));
        let record = record();
        record.swap_plan.set(self.plan as u64);
        record.swap_code.set(self.code as u64);
        record.old_entry.set(layout::entry() as u64);
        memory::withhold(layout::frame_at(self.plan), PLAN_PAGES);
        memory::withhold(layout::frame_at(self.code), 1);
        let data = layout::data();
        // This image's `.data` goes as it was linked, since it may come back.
        swap.run(self.code, self.entry, (layout::pristine(), data.start, data.len() / 8))
    }
}

/// Whether an old image can come back.
pub(super) fn has_old() -> bool {
    record().replaced.iter().any(|slot| slot.get() != 0)
}

/// The old image cannot come back any more.
pub(super) fn forget_old() {
    for slot in &record().replaced {
        slot.set(0);
    }
}

/// Puts the old image back in the place of this one.
pub(super) fn back() -> ! {
    let record = record();
    let mut swap = Swap::new(record.swap_plan.get() as usize);
    let pages = room_pages().filter_map(|(page, address)| {
        let (frame, kind) = record.replaced.get(page).and_then(|slot| replaced(slot.get()))?;
        Some(Exchange { address, kind, frame, kind_there: Kind::Data })
    });
    swap.exchange(&pages);
    pages.for_each(|page| memory::do_not_withhold(page.frame, 1));
    forget_old();
    swap.run(record.swap_code.get() as usize, record.old_entry.get(), (0, 0, 0))
}

/// What a slot of `Keep::replaced` says: where the page is, and how it was mapped.
fn replaced(slot: u32) -> Option<(Pfn, Kind)> {
    let kind = match slot >> 30 {
        1 => Kind::Text,
        2 => Kind::Constant,
        3 => Kind::Data,
        _ => return None,
    };
    Some((Pfn((slot & 0x3fff_ffff).into()), kind))
}

/// A page of the room that changes places with a frame.
struct Exchange {
    address: usize,
    /// How the frame is mapped in the room.
    kind: Kind,
    frame: Pfn,
    /// How the old page is mapped where the frame was.
    kind_there: Kind,
}

/// The updates of an exchange, in the pages reserved for them.
struct Swap {
    plan: usize,
    used: usize,
}

impl Swap {
    const fn new(plan: usize) -> Self {
        Self { plan, used: 0 }
    }

    fn push(&mut self, ptr: u64, val: u64) {
        if self.used < UPDATES * ROOM_PAGES {
            let updates = (self.plan + FIRST_UPDATE) as *mut MmuUpdate;
            // SAFETY: within the plan's pages, which are reserved for this and mapped writable.
            unsafe { updates.add(self.used).write(MmuUpdate { ptr, val }) };
            self.used += 1;
        }
    }

    fn map(&mut self, address: usize, entry: Entry) {
        if let Ok((machine_address, _)) = memory::tables().entry(address, 1) {
            self.push(machine_address, entry.0);
        }
    }

    /// The pages change places: in the page tables, in Xen's table, and in ours at once. What lies together goes together, so that Xen finds
    /// it where the one before was.
    fn exchange(&mut self, pages: &(impl Iterator<Item = Exchange> + Clone)) {
        let machine = memory::physical_to_machine;
        for page in pages.clone() {
            self.map(page.address, entry(page.kind, machine(page.frame)));
        }
        for page in pages.clone() {
            let here = layout::frame_at(page.address);
            self.map(layout::address_of(page.frame), entry(page.kind_there, machine(here)));
        }
        record().exchanged.set(pages.clone().count() as u32);
        for page in pages.clone() {
            let here = layout::frame_at(page.address);
            let (old, new) = (machine(here), machine(page.frame));
            self.push((new.0 << 12) | MMU_MACHPHYS_UPDATE, here.0);
            self.push((old.0 << 12) | MMU_MACHPHYS_UPDATE, page.frame.0);
            memory::set_machine(here, new);
            memory::set_machine(page.frame, old);
        }
    }

    fn run(self, code: usize, entry: u64, (copy_from, copy_to, copy_quads): (usize, usize, usize)) -> ! {
        let plan = Plan {
            updates: (self.plan + FIRST_UPDATE) as u64,
            count: self.used as u64,
            copy_from: copy_from as u64,
            copy_to: copy_to as u64,
            copy_quads: copy_quads as u64,
            entry,
            flush: MmuExtOp { cmd: MMUEXT_TLB_FLUSH_LOCAL, padding: 0, arg1: 0, arg2: 0 },
        };
        // SAFETY: the plan's pages are reserved for it. The code at `code` is `oxidom_swap`, position-independent, in a page that is mapped
        // to be executed and that no update touches; nor do they touch the stack, the plan and the hypercall page. What they unmap is used
        // by nobody: this life ends here, and the image that is entered begins with nothing but `Keep`.
        unsafe {
            (self.plan as *mut Plan).write(plan);
            core::arch::asm!("call {code}", code = in(reg) code, in("rdi") self.plan, options(noreturn))
        }
    }
}
