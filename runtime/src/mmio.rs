//! A device's registers, mapped uncached. Unsafe: volatile accesses within mappings that this module holds. Floor 2.
use crate::counts::{self, Count};
use crate::memory::{self, Caching, Mapping};
use alloc::vec::Vec;
use core::ptr;
use split_driver::hypervisor::XenError;
use split_driver::memory::{Mmio, Reach};
use xen_pv_sys::{DomainId, Mfn, PAGE_SIZE};

/// The registers of one BAR, from its first on. What lies beyond reads as all ones, like a missing device, and ignores writes.
#[derive(Debug)]
pub struct MmioRegion {
    length: usize,
    /// Bytes into the mapping where the region begins: not zero where a BAR is smaller than a page.
    skip: usize,
    mapping: Mapping,
    /// Of the device.
    reach: Reach,
}

impl MmioRegion {
    /// Maps `length` bytes at machine address `address`, registers of the device of `reach`.
    ///
    /// # Errors
    /// What Xen answers where the domain may not reach those frames, or [`XenError::Exhausted`].
    pub(crate) fn map(address: u64, length: usize, reach: Reach) -> Result<Self, XenError> {
        let page = PAGE_SIZE as u64;
        let skip = usize::try_from(address % page).unwrap_or(0);
        let pages = length.saturating_add(skip).div_ceil(PAGE_SIZE);
        let frames: Vec<Mfn> = (0..pages).map(|index| Mfn((address / page).saturating_add(index as u64))).collect();
        // SAFETY: with DOMID_IO, Xen maps frames of devices only, never memory of ours.
        let mapping = unsafe { memory::map_frames(DomainId::IO, &frames, Caching::Uncached)? };
        Ok(Self { length, skip, mapping, reach })
    }

    /// The register's place, where all its four bytes are mapped.
    fn register(&self, offset: usize) -> Option<*mut u32> {
        if !offset.is_multiple_of(4) || offset.checked_add(4)? > self.length {
            return None;
        }
        let within = offset + self.skip;
        if within.checked_add(4)? > self.mapping.len() {
            return None;
        }
        Some(self.mapping.address().wrapping_add(within).cast::<u32>())
    }
}

impl Mmio for MmioRegion {
    fn reach(&self) -> Reach {
        self.reach.clone()
    }

    fn len(&self) -> usize {
        self.length
    }

    // An access takes far longer than a call, and drivers have hundreds of them.
    #[inline(never)]
    fn read32(&self, offset: usize) -> u32 {
        match self.register(offset) {
            // SAFETY: `register` gave an aligned address whose four bytes lie in a mapping that `self` keeps alive, and which
            // nothing but these volatile accesses refers to.
            Some(register) => counts::register_access(Count::RegisterReads, || unsafe { ptr::read_volatile(register) }),
            None => u32::MAX,
        }
    }

    #[inline(never)]
    fn write32(&self, offset: usize, value: u32) {
        if let Some(register) = self.register(offset) {
            // SAFETY: as in `read32`; the mapping is writable.
            counts::register_access(Count::RegisterWrites, || unsafe { ptr::write_volatile(register, value) });
        }
    }
}
