//! Memory for a device's descriptor rings: contiguous in machine frames, since a PV domain's device addresses are those. Floor 2.
//!
//! Unsafe because frames are unmapped, exchanged with Xen for others and mapped again, and because the memory changes under us.

use crate::hypercall::{self, number};
use crate::layout;
use crate::memory::tables::{self, Batch, Entry, Level};
use crate::memory::{self, frames};
use alloc::vec::Vec;
use core::cell::Cell;
use core::ptr;
use core::slice;
use core::sync::atomic::AtomicU32;
use split_driver::hypervisor::XenError;
use split_driver::memory::{DmaAllocator, DmaMemory, OutOfMemory, Reach, SharedMemory};
use xen_pv_sys::memory::{MemoryExchange, MemoryReservation, XENMEM_EXCHANGE, xenmemf_address_bits};
use xen_pv_sys::{DomainId, Mfn, PAGE_SIZE, Pfn};

/// Pages that a device may read and write, contiguous for it. `Drop` frees them where the device cannot reach them, and otherwise loses
/// them.
#[derive(Debug)]
pub struct DmaBuffer {
    first: Pfn,
    pages: usize,
    machine: Mfn,
    reach: Reach,
    /// The device was told of them.
    told: Cell<bool>,
}

/// Gives out [`DmaBuffer`]s for one device.
#[derive(Clone, Debug)]
pub struct DmaFrames {
    /// Bits of address that the device reaches; 0 for all.
    address_bits: u8,
    reach: Reach,
}

impl DmaFrames {
    /// For the device of `reach`, which reaches all memory.
    pub fn new(reach: Reach) -> Self {
        Self { address_bits: 0, reach }
    }

    /// For the device of `reach`, which reaches addresses of no more than `address_bits` bits.
    pub fn within(address_bits: u8, reach: Reach) -> Self {
        Self { address_bits, reach }
    }

    /// Whether a run of frames lies within reach.
    fn reaches(&self, first: Mfn, pages: usize) -> bool {
        let last = ((first.0 + pages as u64) << 12) - 1;
        self.address_bits == 0 || last.checked_shr(self.address_bits.into()).is_none_or(|over| over == 0)
    }
}

impl DmaAllocator for DmaFrames {
    type Memory = DmaBuffer;

    fn allocate(&self, bytes: usize) -> Result<DmaBuffer, OutOfMemory> {
        if self.reach.has_ended() {
            return Err(OutOfMemory);
        }
        let pages = bytes.div_ceil(PAGE_SIZE).max(1);
        let first = contiguous(pages, self)?;
        // SAFETY: just allocated, and mapped writable.
        unsafe { ptr::write_bytes(layout::address_of(first) as *mut u8, 0, pages * PAGE_SIZE) };
        for page in 0..pages as u64 {
            memory::set_device_frame(Pfn(first.0 + page), true);
        }
        let machine = memory::physical_to_machine(first);
        Ok(DmaBuffer { first, pages, machine, reach: self.reach.clone(), told: Cell::new(false) })
    }

    fn reach(&self) -> &Reach {
        &self.reach
    }
}

impl SharedMemory for DmaBuffer {
    fn words(&self) -> &[AtomicU32] {
        let address = layout::address_of(self.first) as *const AtomicU32;
        // SAFETY: pages of ours, mapped one after the other as long as `self` lives; a device may write them, each word is an atomic.
        unsafe { slice::from_raw_parts(address, self.pages * PAGE_SIZE / size_of::<AtomicU32>()) }
    }
}

impl DmaMemory for DmaBuffer {
    fn tell_frame(&self) -> Mfn {
        self.told.set(true);
        self.machine
    }
}

impl Drop for DmaBuffer {
    fn drop(&mut self) {
        if self.told.get() && !self.reach.has_ended() {
            log::error!("{} pages are lost: a device may still write to them", self.pages);
            return;
        }
        for page in 0..self.pages as u64 {
            memory::set_device_frame(Pfn(self.first.0 + page), false);
        }
        // SAFETY: allocated in `allocate`, mapped writable; no device knows of them, or it was proven that it no longer reaches memory.
        unsafe { frames::free(self.first, self.pages) };
    }
}

/// Allocates frames that follow each other in machine memory as well.
fn contiguous(pages: usize, reach: &DmaFrames) -> Result<Pfn, OutOfMemory> {
    // Domain builders fill a domain by 2 MiB where they can, so the first try mostly succeeds.
    let first = frames::allocate_together(pages)?;
    if is_contiguous(first, pages) && reach.reaches(memory::physical_to_machine(first), pages) {
        return Ok(first);
    }
    // SAFETY: just allocated, used by nobody.
    unsafe { frames::free(first, pages) };
    let block = pages.checked_next_power_of_two().ok_or(OutOfMemory)?;
    let first = frames::allocate(block)?;
    match exchange(first, block, reach) {
        Ok(()) => {
            // SAFETY: the tail of what was just allocated, mapped again by `exchange`.
            unsafe { frames::free(Pfn(first.0 + pages as u64), block - pages) };
            Ok(first)
        }
        Err((error, state)) => {
            log::warn!("no {block} contiguous pages within reach of {} bits: {error}", reach.address_bits);
            if state == AfterFailure::Usable {
                // SAFETY: as above; `exchange` left them as they were.
                unsafe { frames::free(first, block) };
            }
            Err(OutOfMemory)
        }
    }
}

fn is_contiguous(first: Pfn, pages: usize) -> bool {
    let machine = memory::physical_to_machine(first);
    (0..pages as u64).all(|page| memory::physical_to_machine(Pfn(first.0 + page)).0 == machine.0 + page)
}

/// What became of the frames of an exchange that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterFailure {
    /// They are mapped again, as before.
    Usable,
    /// They may not be mapped: lost for good.
    Lost,
}

/// Gives the machine frames behind `count` frames (a power of two) to Xen, and takes contiguous ones instead.
fn exchange(first: Pfn, count: usize, reach: &DmaFrames) -> Result<(), (XenError, AfterFailure)> {
    let mut machines = Vec::new();
    machines.try_reserve_exact(count).map_err(|_| (XenError::Exhausted, AfterFailure::Usable))?;
    machines.extend((0..count as u64).map(|page| memory::physical_to_machine(Pfn(first.0 + page)).0));
    // SAFETY: frames that nobody uses, just allocated by the only caller. Xen takes no frame that is still mapped.
    unsafe { map(first, count, |_| Entry::NONE) }.map_err(|error| (error, AfterFailure::Lost))?;
    let exchanged = exchange_unmapped(first, &machines, reach);
    if let Ok(machine) = exchanged {
        for page in 0..count as u64 {
            memory::set_machine(Pfn(first.0 + page), Mfn(machine.0 + page));
        }
    }
    // SAFETY: the frames that the list of frames says are ours now: the new ones, or the old ones where Xen gave none.
    unsafe { map(first, count, |frame| Entry::data(memory::physical_to_machine(frame))) }
        .map_err(|error| (error, AfterFailure::Lost))?;
    exchanged.map(|_| ()).map_err(|error| (error, AfterFailure::Usable))
}

/// `XENMEM_exchange` of single frames for one extent: its first machine frame.
fn exchange_unmapped(first: Pfn, machines: &[u64], reach: &DmaFrames) -> Result<Mfn, XenError> {
    let reservation = |extents: usize, address: usize, order: u32| MemoryReservation {
        extent_start: address as u64,
        nr_extents: extents as u64,
        extent_order: order,
        mem_flags: 0,
        domid: DomainId::SELF,
        padding: [0; 3],
    };
    // In: the frame of ours that it is for; out: the machine frame.
    let mut extent = first.0;
    let mut argument = MemoryExchange {
        input: reservation(machines.len(), machines.as_ptr() as usize, 0),
        output: MemoryReservation {
            mem_flags: xenmemf_address_bits(reach.address_bits),
            ..reservation(1, (&raw mut extent) as usize, machines.len().ilog2())
        },
        nr_exchanged: 0,
    };
    // SAFETY: the struct of this operation; its two arrays live until the call returns, and the frames given away are unmapped.
    let result = unsafe { hypercall::operation::<{ number::MEMORY_OP }, _>(XENMEM_EXCHANGE, &mut argument) };
    // SAFETY: Xen wrote there through the address, which the compiler does not see.
    let extent = unsafe { ptr::read_volatile(&raw const extent) };
    match result {
        Ok(_) => Ok(Mfn(extent)),
        // All was done but reporting it.
        Err(_) if argument.nr_exchanged == machines.len() as u64 => Ok(Mfn(extent)),
        Err(error) => Err(error),
    }
}

/// Changes the mapping of each of `count` frames.
///
/// # Safety
/// As of [`Batch::set`], for each.
unsafe fn map(first: Pfn, count: usize, entry: impl Fn(Pfn) -> Entry) -> Result<(), XenError> {
    let mut batch = Batch::new(tables::SELF);
    for page in 0..count as u64 {
        let frame = Pfn(first.0 + page);
        let (machine_address, _) =
            tables::current().entry(layout::address_of(frame), Level::One).map_err(|_| XenError::Exhausted)?;
        // SAFETY: by the caller.
        unsafe { batch.set(machine_address, entry(frame))? };
    }
    // SAFETY: by the caller.
    unsafe { batch.flush()? };
    tables::flush_tlb();
    Ok(())
}
