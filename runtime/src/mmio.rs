//! A device's registers, mapped uncached. Unsafe: volatile accesses within mappings that this module holds. Floor 2.
use crate::memory::{self, Caching, Mapping};
use alloc::vec::Vec;
use core::ops::Range;
use core::ptr;
use split_driver::hypervisor::XenError;
use split_driver::memory::Mmio;
use xen_pv_sys::{DomainId, Mfn, PAGE_SIZE};

/// Consecutive pages of the region that are mapped.
#[derive(Debug)]
struct Segment {
    /// Bytes into the region, of the mapping's first byte that belongs to it.
    start: usize,
    /// Where the mapping, or the region, ends.
    end: usize,
    /// Bytes into the mapping where the region begins: not zero where a BAR is smaller than a page.
    skip: usize,
    mapping: Mapping,
}

/// The registers of one BAR. Pages that hold an MSI-X table are left out: Xen makes them read-only, and a write would fault.
/// What lies in a page left out reads as all ones, like a missing device, and ignores writes.
#[derive(Debug)]
pub struct MmioRegion {
    length: usize,
    segments: Vec<Segment>,
}

impl MmioRegion {
    /// Maps `length` bytes at machine address `address`, without the pages (numbered from the region's first) in `holes`.
    ///
    /// # Errors
    /// What Xen answers where the domain may not reach those frames, or [`XenError::Exhausted`].
    pub(crate) fn map(address: u64, length: usize, holes: &[Range<usize>]) -> Result<Self, XenError> {
        let page = PAGE_SIZE as u64;
        let skip = usize::try_from(address % page).unwrap_or(0);
        let pages = length.saturating_add(skip).div_ceil(PAGE_SIZE);
        let in_hole = |index: usize| holes.iter().any(|hole| hole.contains(&index));
        let mut segments = Vec::new();
        let mut next = 0;
        while next < pages {
            if in_hole(next) {
                next += 1;
                continue;
            }
            let end = (next..pages).find(|&index| in_hole(index)).unwrap_or(pages);
            let frames: Vec<Mfn> =
                (next..end).map(|index| Mfn((address / page).saturating_add(index as u64))).collect();
            // SAFETY: with DOMID_IO, Xen maps frames of devices only, never memory of ours.
            let mapping = unsafe { memory::map_frames(DomainId::IO, &frames, Caching::Uncached)? };
            segments.push(Segment {
                start: (next * PAGE_SIZE).saturating_sub(skip),
                end: (end * PAGE_SIZE).saturating_sub(skip).min(length),
                skip: if next == 0 { skip } else { 0 },
                mapping,
            });
            next = end;
        }
        Ok(Self { length, segments })
    }

    /// The register's place, where all its four bytes are mapped.
    fn register(&self, offset: usize) -> Option<*mut u32> {
        if !offset.is_multiple_of(4) {
            return None;
        }
        let end = offset.checked_add(4)?;
        let segment = self.segments.iter().find(|segment| segment.start <= offset && end <= segment.end)?;
        let within = offset - segment.start + segment.skip;
        if within.checked_add(4)? > segment.mapping.len() {
            return None;
        }
        Some(segment.mapping.address().wrapping_add(within).cast::<u32>())
    }
}

impl Mmio for MmioRegion {
    fn len(&self) -> usize {
        self.length
    }

    fn read32(&self, offset: usize) -> u32 {
        match self.register(offset) {
            // SAFETY: `register` gave an aligned address whose four bytes lie in a mapping that `self` keeps alive, and which
            // nothing but these volatile accesses refers to.
            Some(register) => unsafe { ptr::read_volatile(register) },
            None => u32::MAX,
        }
    }

    fn write32(&self, offset: usize, value: u32) {
        if let Some(register) = self.register(offset) {
            // SAFETY: as in `read32`; the mapping is writable.
            unsafe { ptr::write_volatile(register, value) }
        }
    }
}
