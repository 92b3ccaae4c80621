//! The grant table, version 1: granting, mapping, copying. Floor 2.
//!
//! Unsafe because a grant lets a peer write to a page, a mapping brings in a peer's page, and a copy writes wherever it is told to.

use crate::counts::{self, Count};
use crate::hypercall;
#[cfg(feature = "faults")]
use crate::local::Local;
use crate::memory::{self, Area, Inherited, Page, device_ledger};
use alloc::rc::Rc;
use alloc::vec::Vec;
#[cfg(feature = "faults")]
use core::cell::Cell;
use core::sync::atomic::AtomicU32;
use split_driver::hypervisor::{DeviceMap, DevicePage, XenError};
use split_driver::memory::SharedMemory;
use xen_pv_sys::grant_table::{
    CopyEnd, GNTST_BAD_HANDLE, GNTST_BAD_PAGE, GNTST_EAGAIN, GNTST_GENERAL_ERROR, GNTST_OKAY, GNTTABOP_COPY,
    GNTTABOP_MAP_GRANT_REF, GNTTABOP_UNMAP_GRANT_REF, GrantCopy, MapFlags, MapGrantRef, UnmapGrantRef,
};
use xen_pv_sys::{DomainId, GrantRef, Mfn, PAGE_SIZE};

mod operate;
mod table;

use operate::operate;
#[cfg(not(test))]
pub(crate) use table::{granted, initialize};

/// How often an operation is tried again whose status asks for it (the peer's page is being paged in or shared).
const TRIES: usize = 256;

/// A page of ours that another domain may map or copy. Ended by `Drop`; where the peer still has it mapped, the page is kept aside
/// until the peer lets go.
#[derive(Debug)]
pub struct Grant {
    reference: GrantRef,
    page: Rc<Page>,
    ended: bool,
}

impl Grant {
    /// What to tell the peer.
    pub fn reference(&self) -> GrantRef {
        self.reference
    }

    /// The granted page.
    pub fn page(&self) -> &Rc<Page> {
        &self.page
    }

    /// Ends the grant, and gives the page back.
    ///
    /// # Errors
    /// The grant itself, still valid, where the peer has the page in use.
    pub fn end(mut self) -> Result<Rc<Page>, Self> {
        if table::end(self.reference) {
            self.ended = true;
            Ok(Rc::clone(&self.page))
        } else {
            Err(self)
        }
    }
}

impl SharedMemory for Grant {
    fn words(&self) -> &[AtomicU32] {
        self.page.words()
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        if !self.ended && !table::end(self.reference) {
            table::linger(self.reference, Rc::clone(&self.page));
        }
    }
}

/// Lets `domain` map or copy `page`, writable or not.
///
/// # Errors
/// [`XenError::Exhausted`] where the grant table is at its limit.
pub fn grant_access(domain: DomainId, page: Rc<Page>, read_only: bool) -> Result<Grant, XenError> {
    let reference = table::grant(domain, page.mfn(), read_only)?;
    Ok(Grant { reference, page, ended: false })
}

/// Takes over a grant that an earlier life made; `None` where there is none, or it is taken over already.
pub fn adopt(reference: GrantRef) -> Option<Grant> {
    table::adopt(reference).map(|page| Grant { reference, page, ended: false })
}

/// Ends the grants of earlier lives that were not adopted, and unmaps what was mapped and not adopted, or for a device.
pub(crate) fn end_inherited() {
    for Inherited { area, handle } in memory::inherited_mappings() {
        drop(GrantMapping { area: Some(area), handles: alloc::vec![handle] });
    }
    let for_devices = device_ledger::inherited();
    let mut pages: Vec<_> =
        for_devices.map(|(handle, frame)| DevicePage::new(handle, frame.0 * PAGE_SIZE as u64, false)).collect();
    unmap_for_device(&mut pages);
    // A grant to ourselves is in use until then.
    table::end_inherited();
}

/// Grants whose peer still used them when they were dropped.
pub fn lingering() -> usize {
    table::lingering()
}

/// Grants in the table now, lingering ones included.
pub fn in_use() -> usize {
    table::in_use()
}

/// Pages of a peer, mapped one after the other; unmapped by `Drop`.
#[derive(Debug)]
pub struct GrantMapping {
    /// `None` once it is given up.
    area: Option<Area>,
    handles: Vec<u32>,
}

impl GrantMapping {
    /// Where it is, for [`adopt_mapping`] in another life.
    pub fn place(&self) -> Place {
        Place { first: self.area.as_ref().map_or(0, Area::first) as u32, pages: self.handles.len() as u32 }
    }
}

/// Where a [`GrantMapping`] is: the same from life to life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its first page, counted from the beginning of the mapping area.
    pub first: u32,
    /// How many.
    pub pages: u32,
}

/// Takes over what an earlier life mapped at a place; `None` where it mapped nothing there, or it is taken over already.
pub fn adopt_mapping(place: Place) -> Option<GrantMapping> {
    let (area, handles) = Area::adopt(place.first as usize, place.pages as usize)?;
    Some(GrantMapping { area: Some(area), handles })
}

impl SharedMemory for GrantMapping {
    fn words(&self) -> &[AtomicU32] {
        let bytes = self.handles.len() * PAGE_SIZE;
        match &self.area {
            // SAFETY: mapped as long as `self` lives; whoever else writes it, each word is an atomic.
            Some(area) => unsafe {
                core::slice::from_raw_parts(area.address() as *const AtomicU32, bytes / size_of::<AtomicU32>())
            },
            None => &[],
        }
    }
}

impl Drop for GrantMapping {
    fn drop(&mut self) {
        if let Some(area) = &self.area
            && !unmap(area, 0, &self.handles)
        {
            // Something is mapped there still: the addresses are never used again.
            core::mem::forget(self.area.take());
        }
    }
}

/// Unmaps the pages of an area from number `start` on, in one hypercall for some; whether all of them are gone.
fn unmap(area: &Area, start: usize, handles: &[u32]) -> bool {
    const AT_ONCE: usize = 16;
    let mut all = true;
    for (group, handles) in handles.chunks(AT_ONCE).enumerate() {
        let start = start + group * AT_ONCE;
        let first = area.address() + start * PAGE_SIZE;
        let operation = |(index, handle): (usize, &u32)| UnmapGrantRef {
            host_addr: (first + index * PAGE_SIZE) as u64,
            dev_bus_addr: 0,
            handle: *handle,
            status: GNTST_GENERAL_ERROR,
            padding: 0,
        };
        let mut operations: heapless::Vec<UnmapGrantRef, AT_ONCE> = handles.iter().enumerate().map(operation).collect();
        // SAFETY: an array of the operation's struct; the mappings end with their owner.
        unsafe { operate(GNTTABOP_UNMAP_GRANT_REF, &mut operations) };
        for (index, operation) in operations.iter().enumerate() {
            if operation.status == GNTST_OKAY {
                area.note(start + index, None);
            } else {
                all = false;
            }
        }
    }
    all
}

/// Maps pages that `domain` granted, writable, contiguous and in this order: one hypercall for all.
///
/// # Errors
/// The first grant status that is not success (none stays mapped), or [`XenError::Exhausted`].
pub fn map(domain: DomainId, references: &[GrantRef]) -> Result<GrantMapping, XenError> {
    let area = Area::for_grants(references.len())?;
    let mut operations = Vec::new();
    let mut handles = Vec::new();
    operations
        .try_reserve_exact(references.len())
        .and_then(|()| handles.try_reserve_exact(references.len()))
        .map_err(|_| XenError::Exhausted)?;
    for (index, reference) in references.iter().enumerate() {
        operations.push(MapGrantRef {
            host_addr: (area.address() + index * PAGE_SIZE) as u64,
            flags: MapFlags::HOST_MAP.bits(),
            reference: *reference,
            domain,
            status: GNTST_GENERAL_ERROR,
            handle: 0,
            dev_bus_addr: 0,
        });
    }
    area.begin_mapping();
    // SAFETY: an array of the operation's struct; the addresses are ours alone.
    unsafe { operate(GNTTABOP_MAP_GRANT_REF, &mut operations) };
    for operation in &mut operations {
        for _ in 0..TRIES {
            if operation.status != GNTST_EAGAIN {
                break;
            }
            hypercall::yield_cpu();
            // SAFETY: as above.
            unsafe { operate(GNTTABOP_MAP_GRANT_REF, core::slice::from_mut(operation)) };
        }
    }
    for (index, operation) in operations.iter().enumerate() {
        area.note(index, (operation.status == GNTST_OKAY).then_some(operation.handle));
    }
    if let Some(failed) = operations.iter().find(|each| each.status != GNTST_OKAY) {
        let mut clean = true;
        for (index, done) in operations.iter().enumerate().filter(|(_, each)| each.status == GNTST_OKAY) {
            clean &= unmap(&area, index, &[done.handle]);
        }
        if !clean {
            core::mem::forget(area);
        }
        return Err(XenError::Grant(failed.status));
    }
    handles.extend(operations.iter().map(|operation| operation.handle));
    Ok(GrantMapping { area: Some(area), handles })
}

/// Elements of one hypercall that maps or unmaps for a device: what fits on the stack.
const DEVICE_BATCH: usize = device_ledger::BATCH;

/// Done once behind the next hypercall that maps for a device, for tests.
#[cfg(feature = "faults")]
static BEHIND_MAPPING: Local<Cell<fn()>> = Local::new(Cell::new(|| ()));

/// Has this life end behind the next hypercall that maps for a device, for tests.
#[cfg(feature = "faults")]
pub fn end_behind_mapping(end: fn()) {
    BEHIND_MAPPING.set(end);
}

/// Maps pages that `domain` granted for a device alone: they get no address here. One hypercall for [`DEVICE_BATCH`] of them.
pub fn map_for_device(domain: DomainId, batch: &mut [DeviceMap]) {
    for batch in batch.chunks_mut(DEVICE_BATCH) {
        let operation = |element: &DeviceMap| {
            let read_only = if element.read_only { MapFlags::READONLY } else { MapFlags::empty() };
            MapGrantRef {
                host_addr: 0,
                flags: (MapFlags::DEVICE_MAP | read_only).bits(),
                reference: element.reference,
                domain,
                status: GNTST_GENERAL_ERROR,
                handle: 0,
                dev_bus_addr: 0,
            }
        };
        let operations: heapless::Vec<MapGrantRef, DEVICE_BATCH> = batch.iter().map(operation).collect();
        let mapped = device_ledger::with_batch(operations.into_iter(), |operations| map_batch(operations, batch));
        if let Err(error) = mapped {
            batch.iter_mut().for_each(|element| element.result = Err(error));
        }
    }
}

/// Maps a batch, and notes what is mapped.
fn map_batch(operations: &mut [MapGrantRef], batch: &mut [DeviceMap]) {
    // SAFETY: an array of the operation's struct; nothing is mapped where the CPU could see it.
    unsafe { operate(GNTTABOP_MAP_GRANT_REF, operations) };
    #[cfg(feature = "faults")]
    BEHIND_MAPPING.replace(|| ())();
    for (operation, element) in operations.iter_mut().zip(batch) {
        for _ in 0..TRIES {
            if operation.status != GNTST_EAGAIN {
                break;
            }
            hypercall::yield_cpu();
            // SAFETY: as above.
            unsafe { operate(GNTTABOP_MAP_GRANT_REF, core::slice::from_mut(operation)) };
        }
        let &mut MapGrantRef { handle, dev_bus_addr: address, status, .. } = operation;
        element.result = match status {
            GNTST_OKAY => note_for_device(DevicePage::new(handle, address, element.read_only)),
            status => Err(XenError::Grant(status)),
        };
    }
}

/// Notes a page for the next life; unmaps it where there is no room for that.
fn note_for_device(page: DevicePage) -> Result<DevicePage, XenError> {
    match device_ledger::add(page.handle, Mfn(page.address.get() / PAGE_SIZE as u64)) {
        Ok(()) => Ok(page),
        Err(error) => {
            unmap_for_device(&mut alloc::vec![page]);
            Err(error)
        }
    }
}

/// Unmaps what [`map_for_device`] mapped.
pub fn unmap_for_device(pages: &mut Vec<DevicePage>) {
    for batch in pages.chunks(DEVICE_BATCH) {
        let operation = |page: &DevicePage| UnmapGrantRef {
            host_addr: 0,
            dev_bus_addr: page.address.get(),
            handle: page.handle,
            status: GNTST_GENERAL_ERROR,
            padding: 0,
        };
        let mut operations: heapless::Vec<UnmapGrantRef, DEVICE_BATCH> = batch.iter().map(operation).collect();
        // SAFETY: an array of the operation's struct; by the caller no device uses the pages, and the CPU never did.
        unsafe { operate(GNTTABOP_UNMAP_GRANT_REF, &mut operations) };
        for operation in &operations {
            match operation.status {
                // A life may have ended between this and its note.
                GNTST_OKAY | GNTST_BAD_HANDLE => device_ledger::remove(operation.handle),
                status => log::error!("a grant stays mapped for a device: status {status}"),
            }
        }
    }
    pages.clear();
}

/// `GNTTABOP_copy` of the batch in one hypercall; elements whose status asks for it are tried again. A local end must be a frame of a
/// [`Page`] or of [`crate::memory::Pages`], else its status is `GNTST_bad_page` and nothing is copied.
pub fn copy(batch: &mut [GrantCopy]) {
    for element in batch.iter_mut() {
        element.status = if is_ours(element) { GNTST_GENERAL_ERROR } else { GNTST_BAD_PAGE };
    }
    for run in batch.chunk_by_mut(|one, other| one.status == other.status) {
        if run.first().is_some_and(|first| first.status == GNTST_BAD_PAGE) {
            continue;
        }
        // SAFETY: an array of the operation's struct; local ends are memory that anyone may write at any time.
        unsafe { operate_copy(run) };
        for element in run.iter_mut() {
            for _ in 0..TRIES {
                if element.status != GNTST_EAGAIN {
                    break;
                }
                hypercall::yield_cpu();
                // SAFETY: as above.
                unsafe { operate_copy(core::slice::from_mut(element)) };
            }
        }
    }
}

/// Makes the hypercall, and counts it with its elements.
///
/// # Safety
/// As [`operate`].
unsafe fn operate_copy(batch: &mut [GrantCopy]) {
    counts::add(Count::CopyCalls, 1);
    counts::add(Count::CopyEntries, batch.len());
    // SAFETY: by the caller.
    unsafe { operate(GNTTABOP_COPY, batch) };
}

/// Whether both ends are a grant, or memory of ours that is meant to be reached by others.
fn is_ours(element: &GrantCopy) -> bool {
    let fine = |end: &CopyEnd, granted: u16| {
        element.flags & granted != 0 || memory::is_shared(xen_pv_sys::Mfn(end.reference_or_frame))
    };
    fine(&element.source, GrantCopy::SOURCE_GRANT) && fine(&element.destination, GrantCopy::DESTINATION_GRANT)
}
