//! Page tables: walked by reading them, changed by batches of `mmu_update`. Floor 2.
//!
//! Unsafe because what a page table says is what every other piece of code relies on.

use super::p2m;
use crate::hypercall::{self, number};
use crate::layout;
use crate::local::Local;
use core::cell::Cell;
use split_driver::hypervisor::XenError;
use x86_64::structures::paging::PageTableFlags;
pub(crate) use x86_64::structures::paging::page_table::PageTableLevel as Level;
use x86_64::{PhysAddr, VirtAddr};
use xen_pv_sys::xen::{MMUEXT_TLB_FLUSH_LOCAL, MmuExtOp, MmuUpdate, UpdateVaMappingFlags};
use xen_pv_sys::{DomainId, Mfn, PAGE_SIZE, Pfn};

/// Writable, and marked as written.
const WRITTEN: PageTableFlags = PageTableFlags::WRITABLE.union(PageTableFlags::DIRTY);

/// Entries of a page table.
pub(crate) const ENTRIES: usize = 512;
/// `DOMID_SELF`'s meaning in `mmu_update`: our own frames, or with `DOMID_IO` a device's.
pub(crate) const SELF: DomainId = DomainId::SELF;

/// A page table entry of x86-64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(pub(crate) u64);

impl Entry {
    /// Whether it maps a frame of ours as plain memory.
    pub(super) fn is_plain(self, frame: Pfn) -> bool {
        self.is_present() && self.is_writable() && self.frame() == p2m::physical_to_machine(frame)
    }

    /// The bits of the frame.
    const FRAME: u64 = 0x000f_ffff_ffff_f000;

    /// Nothing mapped.
    pub(crate) const NONE: Self = Self(0);

    const fn new(frame: Mfn, flags: PageTableFlags) -> Self {
        let all = PageTableFlags::PRESENT.union(PageTableFlags::USER_ACCESSIBLE).union(PageTableFlags::ACCESSED);
        Self((frame.0 << 12) | all.union(flags).bits())
    }
    /// Data: RW-.
    pub(crate) const fn data(frame: Mfn) -> Self {
        Self::new(frame, WRITTEN.union(PageTableFlags::NO_EXECUTE))
    }
    /// Constants and page tables: R--.
    pub(crate) const fn constant(frame: Mfn) -> Self {
        Self::new(frame, PageTableFlags::NO_EXECUTE)
    }
    /// Text: R-X.
    pub(crate) const fn text(frame: Mfn) -> Self {
        Self::new(frame, PageTableFlags::empty())
    }
    /// Device registers: RW-, strong uncacheable.
    pub(crate) const fn registers(frame: Mfn) -> Self {
        let uncached = PageTableFlags::WRITE_THROUGH.union(PageTableFlags::NO_CACHE);
        Self::new(frame, WRITTEN.union(PageTableFlags::NO_EXECUTE).union(uncached))
    }
    /// A lower table.
    const fn table(frame: Mfn) -> Self {
        Self::new(frame, WRITTEN)
    }
    const fn flags(self) -> PageTableFlags {
        PageTableFlags::from_bits_truncate(self.0)
    }
    pub(crate) const fn is_present(self) -> bool {
        self.flags().contains(PageTableFlags::PRESENT)
    }
    pub(crate) const fn is_writable(self) -> bool {
        self.flags().contains(PageTableFlags::WRITABLE)
    }
    pub(crate) const fn frame(self) -> Mfn {
        Mfn((self.0 & Self::FRAME) >> 12)
    }
}

/// Changes to page tables, made together: 64 to a hypercall.
pub(crate) struct Batch {
    updates: heapless::Vec<MmuUpdate, 64>,
    owner: DomainId,
}

impl Batch {
    /// For frames of `owner` ([`SELF`], or `DOMID_IO`).
    pub(crate) const fn new(owner: DomainId) -> Self {
        Self { updates: heapless::Vec::new(), owner }
    }

    /// Adds a change of the entry at `machine_address`; made at the latest by [`Batch::flush`].
    ///
    /// # Safety
    /// The memory whose mapping changes is not in use, or is used only in ways that the new mapping allows.
    pub(crate) unsafe fn set(&mut self, machine_address: PhysAddr, entry: Entry) -> Result<(), XenError> {
        if self.updates.is_full() {
            // SAFETY: by the callers of `set`.
            unsafe { self.flush()? };
        }
        let update = MmuUpdate { ptr: machine_address.as_u64(), val: entry.0 };
        self.updates.push(update).map_err(|_| XenError::Exhausted)
    }

    /// Makes the changes. After an error some of them are made.
    ///
    /// # Safety
    /// As [`Batch::set`], for each.
    pub(crate) unsafe fn flush(&mut self) -> Result<(), XenError> {
        if self.updates.is_empty() {
            return Ok(());
        }
        // SAFETY: elements of mmu_update_t; no count of those done is asked for.
        let result = unsafe {
            hypercall::call4::<{ number::MMU_UPDATE }>(
                self.updates.as_ptr() as u64,
                self.updates.len() as u64,
                0,
                u64::from(self.owner.0),
            )
        };
        self.updates.clear();
        hypercall::check(result).map(|_| ())
    }
}

/// Drops what the TLB holds of mappings that are gone or have become narrower (`MMUEXT_TLB_FLUSH_LOCAL`: one vCPU uses them; the watchdog's
/// uses a few pages whose mapping never changes).
pub(crate) fn flush_tlb() {
    let operation = MmuExtOp { cmd: MMUEXT_TLB_FLUSH_LOCAL, padding: 0, arg1: 0, arg2: 0 };
    // SAFETY: one mmuext_op; it changes no memory.
    unsafe { hypercall::call4::<{ number::MMUEXT_OP }>((&raw const operation) as u64, 1, 0, u64::from(SELF.0)) };
}

/// Maps `entry` at `address` through the table that is there (`update_va_mapping`).
///
/// # Safety
/// As [`Batch::set`].
pub(crate) unsafe fn set_mapping(address: usize, entry: Entry) -> Result<(), XenError> {
    // SAFETY: by the caller.
    let result = unsafe {
        hypercall::call4::<{ number::UPDATE_VA_MAPPING }>(
            address as u64,
            entry.0,
            UpdateVaMappingFlags::INVLPG.bits(),
            0,
        )
    };
    hypercall::check(result).map(|_| ())
}

/// The page tables that the domain runs on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tables {
    root: usize,
}

static CURRENT: Local<Cell<Option<Tables>>> = Local::new(Cell::new(None));

/// The page tables that the domain runs on.
pub(crate) fn current() -> Tables {
    match CURRENT.get() {
        Some(tables) => tables,
        None => panic!("memory is used before it is set up"),
    }
}

/// Says which they are.
pub(super) fn set_current(tables: Tables) {
    CURRENT.set(Some(tables));
}

/// Gives out zeroed mapped frames for tables: the frame and its address.
pub(crate) trait TableFrames {
    /// A zeroed frame of ours, mapped writable at the address.
    fn table_frame(&mut self) -> Result<(Mfn, usize), XenError>;
}

/// Looks at the lowest entries of frames. Those that follow each other are mostly in one table, to which the walk is made once.
pub(super) struct Reader {
    tables: Tables,
    /// The first address that the table below is for, if it is for any.
    first: usize,
    /// The address of a lowest table, where there is one.
    table: Option<usize>,
}

impl Reader {
    /// [`Tables::is_plain`].
    pub(super) fn is_plain(&mut self, frame: Pfn) -> bool {
        let page = layout::address_of(frame) / PAGE_SIZE;
        let (first, index) = (page - page % ENTRIES, page % ENTRIES);
        if self.first != first {
            (self.first, self.table) = (first, self.tables.lowest(first * PAGE_SIZE));
        }
        // SAFETY: a mapped page table, as in `entry`.
        let entry = |table: usize| Entry(unsafe { (table as *const u64).wrapping_add(index).read_volatile() });
        self.table.is_some_and(|table| entry(table).is_plain(frame))
    }
}

impl Tables {
    /// Whether a frame is mapped as plain memory where it belongs.
    pub(super) fn is_plain(self, frame: Pfn) -> bool {
        self.entry(layout::address_of(frame), Level::One).is_ok_and(|(_, entry)| entry.is_plain(frame))
    }

    /// # Safety
    /// `root` is the address of the top-level table in use, and all tables below it are mapped at [`layout::address_of`].
    pub(crate) const unsafe fn new(root: usize) -> Self {
        Self { root }
    }

    /// The machine frame of the top-level table.
    pub(crate) fn root(self) -> Mfn {
        p2m::physical_to_machine(layout::frame_at(self.root))
    }

    /// The machine address and the value of the entry for `address` at `level` (the lowest has the pages); the level at which the walk ended
    /// where a table is missing above.
    pub(crate) fn entry(self, address: usize, level: Level) -> Result<(PhysAddr, Entry), Level> {
        let mut table = self.root;
        let mut at = Level::Four;
        loop {
            let index = usize::from(VirtAddr::new_truncate(address as u64).page_table_index(at));
            let pointer = (table as *const u64).wrapping_add(index);
            // SAFETY: `table` is a mapped page table (by `new`); Xen changes its accessed bits, hence volatile.
            let entry = Entry(unsafe { pointer.read_volatile() });
            if at == level {
                // A table is a page of ours, so its machine frame is in the p2m.
                let frame = p2m::physical_to_machine(layout::frame_at(table));
                return Ok((PhysAddr::new_truncate((frame.0 << 12) + index as u64 * 8), entry));
            }
            let below = at.next_lower_level().filter(|_| entry.is_present()).ok_or(at)?;
            // SAFETY: the frame of a table of ours, so of RAM.
            table = layout::address_of(unsafe { layout::machine_to_physical(entry.frame()) });
            at = below;
        }
    }

    /// The entries for `address` and for the pages behind it, up to the end of their table; none where there is no such table.
    pub(crate) fn leaves(self, address: usize) -> impl Iterator<Item = Entry> {
        let first = (address / PAGE_SIZE) % ENTRIES;
        self.lowest(address).into_iter().flat_map(move |table| {
            // SAFETY: a mapped page table, as in `entry`.
            (first..ENTRIES)
                .map(move |index| Entry(unsafe { (table as *const u64).wrapping_add(index).read_volatile() }))
        })
    }

    /// The address of the lowest table that `address` has an entry in, where there is one.
    fn lowest(self, address: usize) -> Option<usize> {
        let (_, entry) = self.entry(address, Level::Two).ok()?;
        // SAFETY: the frame of a table of ours, so of RAM.
        entry.is_present().then(|| layout::address_of(unsafe { layout::machine_to_physical(entry.frame()) }))
    }

    /// Looks at the lowest entries of frame after frame.
    pub(super) const fn reader(self) -> Reader {
        Reader { tables: self, first: usize::MAX, table: None }
    }

    /// Makes the tables that are missing above the entries of `level` for `address`.
    ///
    /// # Safety
    /// Nobody else uses what `frames` gives out.
    pub(crate) unsafe fn ensure(
        self,
        address: usize,
        level: Level,
        frames: &mut dyn TableFrames,
    ) -> Result<PhysAddr, XenError> {
        loop {
            match self.entry(address, level) {
                Ok((machine_address, _)) => return Ok(machine_address),
                Err(missing) => {
                    let (frame, mapped) = frames.table_frame()?;
                    let mut batch = Batch::new(SELF);
                    // SAFETY: an unused frame becomes a table, which nothing writes any more.
                    unsafe {
                        self.hook(&mut batch, address, missing, frame, mapped)?;
                        batch.flush()?;
                    }
                }
            }
        }
    }

    /// Makes the page at `mapped` (of `frame`) read-only, and the table for `address` below the entry of `level`.
    ///
    /// # Safety
    /// The page holds valid entries, and nothing writes to it from now on.
    pub(crate) unsafe fn hook(
        self,
        batch: &mut Batch,
        address: usize,
        level: Level,
        frame: Mfn,
        mapped: usize,
    ) -> Result<(), XenError> {
        let missing = |_| XenError::Exhausted;
        let (own, _) = self.entry(mapped, Level::One).map_err(missing)?;
        let (above, _) = self.entry(address, level).map_err(missing)?;
        // SAFETY: by the caller.
        unsafe {
            batch.set(own, Entry::constant(frame))?;
            batch.set(above, Entry::table(frame))
        }
    }
}

/// The pages of `address..address + count * PAGE_SIZE`.
pub(crate) fn pages(address: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |page| address + page * PAGE_SIZE)
}
