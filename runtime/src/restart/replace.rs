//! Another image in the place of the running one, and back. Floor 2.
//!
//! Nothing is copied at the end: the new image's pages are filled in frames of their own as they come, and then each changes places with the
//! old one's page, in one hypercall. So the old image lies where the new one was made ready, and can come back in the same way until the
//! new one says that it has taken over. The first page, which is Xen's hypercall page, and the tail are the same in all images; pages of
//! text and of constants that are the same in both stay where they are.
//!
//! Unsafe because it changes what is mapped where the code runs. The last steps are assembly in a page outside of the image.

use super::identity::{Identity, IdentityNote};
use super::image::{Frame, Image, ImageError, Kind};
use super::refusal::Refusal;
use crate::layout::{self, ROOM_PAGES};
use crate::memory::tables::{self, Entry, Level};
use crate::memory::{self, frames};
use crate::record::{LAYOUT, WORDS, record};
use alloc::vec::Vec;
use core::arch::global_asm;
use core::fmt;
use core::mem::offset_of;
use core::sync::atomic::{Ordering, compiler_fence};
use split_driver::memory::OutOfMemory;
use xen_pv_sys::vcpu::VCPUOP_SEND_NMI;
use xen_pv_sys::xen::{MMU_MACHPHYS_UPDATE, MMUEXT_TLB_FLUSH_LOCAL, MmuExtOp, MmuUpdate};
use xen_pv_sys::{PAGE_SIZE, Pfn};

global_asm!(
    r#"
    # oxidom_swap(plan: %rdi): runs as a copy in a page of its own, whatever image is mapped meanwhile, but for the hypercall page. On the
    # way back it is the old image's copy. An error in the middle leaves no image that could report it: the domain crashes. The trap table
    # names code of the image that goes, so it is emptied first: Xen drops a non-maskable interrupt that comes before the other image has
    # set its own (null_trap_bounce in its set_guest_nmi_trapbounce). Images of tests send themselves one there.
    .section .text.oxidom_swap, "ax", @progbits
    .globl oxidom_swap
    .globl oxidom_swap_end
oxidom_swap:
    cld
    mov %rdi, %rbx
    xor %edi, %edi              # no table
    mov $oxidom_hypercall_page + 0 * 32, %eax
    call *%rax                  # set_trap_table
    test %rax, %rax
    jnz 1f
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
    .if {interrupted}
    mov ${nmi_operation}, %edi
    xor %esi, %esi              # vCPU 0
    xor %edx, %edx
    mov $oxidom_hypercall_page + 24 * 32, %eax
    call *%rax                  # vcpu_op
    .endif
    mov %rsp, %rax              # by HYPERVISOR_iret, as boot.rs enters a life: the way back may be that of a non-maskable interrupt
    push $0xe02b
    push %rax
    push $2
    push $0xe030
    push {entry}(%rbx)
    push $0
    mov $oxidom_hypercall_page + 23 * 32, %eax
    jmp *%rax
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
    interrupted = const cfg!(feature = "faults") as u32,
    nmi_operation = const VCPUOP_SEND_NMI,
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

/// Pages of an exchange beside those that change places: its plan, and the code that makes it.
pub(super) const EXCHANGE_PAGES: usize = PLAN_PAGES + 1;

const _: () = assert!(size_of::<Plan>() <= FIRST_UPDATE);

/// What an image must have in common with this one.
pub(super) fn own_frame() -> Frame {
    Frame { layout: LAYOUT.into(), base: layout::text().start as u64, tail: layout::room().end as u64 }
}

unsafe extern "Rust" {
    /// What [`crate::entry!`] put into this image.
    #[link_name = "oxidom_identity"]
    safe static IDENTITY: IdentityNote;
}

/// Which image this is.
pub fn own_identity() -> Identity {
    IDENTITY.identity()
}

/// Why an image did not take the place of this one, which goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplaceError {
    /// It is none, or does not fit.
    Image(ImageError),
    /// There is no memory for it.
    OutOfMemory,
    /// This life has not taken over itself.
    NotTakenOver,
    /// Its command line is longer than is kept for it, or holds something else than printable ASCII.
    Words,
    /// The box could not be written.
    Refused(Refusal),
}

/// Why, in words for whoever sent the image.
impl fmt::Display for ReplaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Image(error) => error.fmt(f),
            Self::OutOfMemory => f.write_str("there is no memory for it; the domain wants more"),
            Self::NotTakenOver => f.write_str("the running image has not taken over yet; try again"),
            Self::Words => write!(f, "its command line is not ASCII, or has more than {WORDS} bytes"),
            Self::Refused(refusal) => write!(f, "the state could not be kept: {refusal}"),
        }
    }
}

impl core::error::Error for ReplaceError {}

impl From<OutOfMemory> for ReplaceError {
    fn from(_: OutOfMemory) -> Self {
        Self::OutOfMemory
    }
}

impl From<ImageError> for ReplaceError {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

/// An image that is to take the place of this one, as its file comes.
///
/// What is done here is not done while nobody is served: each page is put into a frame of its own when it is there, and a page that is the
/// same in both images is let go of again. What is left for [`Staging::enter`] is the exchange.
#[derive(Debug)]
pub struct Staging {
    plan: usize,
    code: usize,
    size: usize,
    taken: usize,
    image: Option<Image>,
    /// What the file's next page is put into.
    filling: Option<Pfn>,
    pages: Vec<New>,
    /// Why it came to nothing: what comes then is not looked at.
    flaw: Option<ReplaceError>,
}

/// A page of the room that will be another one.
#[derive(Clone, Copy, Debug)]
struct New {
    page: usize,
    frame: Pfn,
    /// How it will be mapped, and how the one is that is there now.
    kind: Kind,
    kind_before: Kind,
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

/// Whether this image's page at an address never changes and is what another image has there.
fn stays(address: usize, kind: Kind, bytes: &[u8]) -> bool {
    // SAFETY: a page of this image's text or constants: mapped, readable, and written by nobody.
    let own = || unsafe { core::slice::from_raw_parts(address as *const u8, PAGE_SIZE) };
    own_kind(address) == (kind, true) && kind != Kind::Data && own() == bytes
}

/// The pages of the room that may change: all but the first.
fn room_pages() -> impl Iterator<Item = (usize, usize)> + Clone {
    let base = layout::text().start;
    (1..(layout::room().end - base) / PAGE_SIZE).map(move |page| (page, base + page * PAGE_SIZE))
}

impl Staging {
    /// Begins with nothing of a file of `size` bytes.
    ///
    /// # Errors
    /// [`ReplaceError::OutOfMemory`].
    pub fn new(size: usize) -> Result<Self, ReplaceError> {
        let plan = layout::address_of(frames::allocate(PLAN_PAGES)?);
        let code = frames::allocate(1).inspect_err(|_| {
            // SAFETY: just allocated.
            unsafe { frames::free(layout::frame_at(plan), PLAN_PAGES) };
        })?;
        let code = layout::address_of(code);
        let start = oxidom_swap as *const u8;
        let length = (&raw const oxidom_swap_end) as usize - start as usize;
        // SAFETY: the code's bytes, which are less than a page, into a page just allocated.
        unsafe { core::ptr::copy_nonoverlapping(start, code as *mut u8, length) };
        Ok(Self { plan, code, size, taken: 0, image: None, filling: None, pages: Vec::new(), flaw: None })
    }

    /// Adds the file's next bytes.
    ///
    /// # Errors
    /// Why it cannot take the place of this image. What can be known of that is known with the last byte.
    pub fn add(&mut self, bytes: &[u8]) -> Result<(), ReplaceError> {
        match self.flaw {
            Some(flaw) => Err(flaw),
            None => self.take(bytes).inspect_err(|flaw| self.flaw = Some(*flaw)),
        }
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), ReplaceError> {
        while !bytes.is_empty() {
            let frame = match self.filling {
                Some(frame) => frame,
                None => *self.filling.insert(frames::allocate(1)?),
            };
            let start = self.taken % PAGE_SIZE;
            let count = bytes.len().min(PAGE_SIZE - start).min(self.size - self.taken);
            let (now, later) = bytes.split_at_checked(count).unwrap_or_default();
            if now.is_empty() {
                return Err(ImageError::NotElf.into());
            }
            // SAFETY: a frame of our own, mapped writable, from `start` on, no further than to its end.
            unsafe {
                let target = (layout::address_of(frame) + start) as *mut u8;
                core::ptr::copy_nonoverlapping(now.as_ptr(), target, count);
            }
            self.taken += count;
            if start + count == PAGE_SIZE || self.taken == self.size {
                self.take_page(frame, start + count)?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// A page of the file is there, in the frame that is being filled.
    fn take_page(&mut self, frame: Pfn, length: usize) -> Result<(), ReplaceError> {
        let address = layout::address_of(frame) as *mut u8;
        // SAFETY: a frame of our own, mapped; the bytes were just written.
        let bytes = unsafe { core::slice::from_raw_parts(address, length) };
        let offset = (self.taken - length) as u64;
        let image = match &mut self.image {
            Some(image) => image,
            None => self.image.insert(Image::begin(bytes, self.size as u64, own_frame(), own_identity())?),
        };
        let place = image.page(offset, bytes);
        image.check_notes()?;
        // The first page stays as Xen filled it.
        if let Some(place) = place.filter(|place| place.address != layout::text().start as u64) {
            // SAFETY: a frame of our own, mapped writable; `bytes` is not used any more.
            let bytes = unsafe {
                core::ptr::write_bytes(address.add(place.length), 0, PAGE_SIZE - place.length);
                core::slice::from_raw_parts(address, PAGE_SIZE)
            };
            if !stays(place.address as usize, place.kind, bytes) {
                self.put(place.address as usize, place.kind)?;
            }
        }
        if self.taken == self.size { self.finish() } else { Ok(()) }
    }

    /// The frame that was filled will be at an address.
    fn put(&mut self, address: usize, kind: Kind) -> Result<(), ReplaceError> {
        let page = (address - layout::text().start) / PAGE_SIZE;
        self.pages.try_reserve(1).map_err(|_| ReplaceError::OutOfMemory)?;
        // A room this large is not replaced.
        let frame = self.filling.take_if(|_| page < ROOM_PAGES).ok_or(ReplaceError::OutOfMemory)?;
        self.pages.push(New { page, frame, kind, kind_before: own_kind(address).0 });
        Ok(())
    }

    /// The whole file is there. What this image has and the new one has not becomes zeros.
    fn finish(&mut self) -> Result<(), ReplaceError> {
        for (_, address) in room_pages() {
            let is_new = self.image.as_ref().is_some_and(|image| image.kind_at(address as u64).is_some());
            if is_new || !own_kind(address).1 {
                continue;
            }
            let frame = match self.filling {
                Some(frame) => frame,
                None => *self.filling.insert(frames::allocate(1)?),
            };
            // SAFETY: a frame of our own, mapped writable.
            unsafe { core::ptr::write_bytes(layout::address_of(frame) as *mut u8, 0, PAGE_SIZE) };
            self.put(address, Kind::Data)?;
        }
        match &self.image {
            Some(image) => Ok(image.finish()?),
            None => Err(ImageError::NotElf.into()),
        }
    }

    /// Whether the image could be entered.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&self) -> Result<(), ReplaceError> {
        match (self.flaw, &self.image) {
            (Some(flaw), _) => Err(flaw),
            (None, Some(_)) if self.taken == self.size => Ok(()),
            _ => Err(ImageError::NotElf.into()),
        }
    }

    /// Maps the code of the exchange to be executed, or again as all memory is.
    ///
    /// # Safety
    /// Nobody executes it.
    pub(super) unsafe fn map_code(&self, executable: bool) -> Result<(), ReplaceError> {
        let frame = memory::physical_to_machine(layout::frame_at(self.code));
        let entry = if executable { Entry::text(frame) } else { Entry::data(frame) };
        // SAFETY: a page of our own.
        unsafe { tables::set_mapping(self.code, entry) }.map_err(|_| ReplaceError::OutOfMemory)
    }

    /// Puts the image in the place of this one. The box is written, and the code mapped to be executed. `words` is where the record has its
    /// command line.
    pub(super) fn exchange(&self, words: u32) -> ! {
        let base = layout::text().start;
        let pages = self.pages.iter().map(|new| Exchange {
            address: base + new.page * PAGE_SIZE,
            kind: new.kind,
            frame: new.frame,
            // The old page can be read only, so no life takes it for free memory.
            kind_there: Kind::Constant,
        });
        let record = record();
        for new in &self.pages {
            if let Some(slot) = record.replaced.get(new.page) {
                slot.set(new.frame.0 as u32 | (new.kind_before as u32) << 30);
            }
        }
        let mut swap = Swap::new(self.plan);
        swap.exchange(&pages);
        pages.for_each(|page| memory::withhold(page.frame, 1));
        record.swap_plan.set(self.plan as u64);
        record.swap_code.set(self.code as u64);
        record.old_entry.set(layout::entry() as u64);
        record.words_of_old.set(record.words_of_own.replace(words));
        memory::withhold(layout::frame_at(self.plan), PLAN_PAGES);
        memory::withhold(layout::frame_at(self.code), 1);
        let data = layout::data();
        let entry = self.image.as_ref().map_or(0, |image| image.entry);
        // This image's `.data` goes as it was linked, since it may come back.
        swap.run(self.code, entry, (layout::pristine(), data.start, data.len() / 8))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let singles = self.pages.iter().map(|new| new.frame).chain(self.filling);
        // SAFETY: allocated here, used by no one else, and mapped writable unless `enter` says otherwise, which drops nothing then.
        unsafe {
            singles.for_each(|frame| frames::free(frame, 1));
            frames::free(layout::frame_at(self.code), 1);
            frames::free(layout::frame_at(self.plan), PLAN_PAGES);
        }
    }
}

/// Whether an old image can come back.
pub(super) fn has_old() -> bool {
    record().swap_plan.get() != 0
}

/// The old image cannot come back any more.
pub(super) fn forget_old() {
    let record = record();
    // One word decides, wherever this life ends.
    record.swap_plan.set(0);
    compiler_fence(Ordering::SeqCst);
    for slot in &record.replaced {
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
    record.words_of_own.set(record.words_of_old.get());
    swap.run(record.swap_code.get() as usize, record.old_entry.get(), (0, 0, 0))
}

/// What a slot of `Record::replaced` says: where the page is, and how it was mapped.
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
        if let Ok((machine_address, _)) = tables::current().entry(address, Level::One) {
            self.push(machine_address.as_u64(), entry.0);
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
        record().seal();
        // SAFETY: the plan's pages are reserved for it. The code at `code` is `oxidom_swap`, position-independent, in a page that is mapped
        // to be executed and that no update touches; nor do they touch the stack, the plan and the hypercall page. What they unmap is used
        // by nobody: this life ends here, and the image that is entered begins with nothing but `Record`.
        unsafe {
            (self.plan as *mut Plan).write(plan);
            core::arch::asm!("call {code}", code = in(reg) code, in("rdi") self.plan, options(noreturn))
        }
    }
}
