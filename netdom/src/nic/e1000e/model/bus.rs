//! Memory as the modelled device sees it: every page that it may touch, and a count of each access elsewhere, as an IOMMU
//! keeps. A driver that gives a wrong address or takes a buffer back too early is found out. Host only.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicU32, Ordering};
use split_driver::memory::{DmaAllocator, DmaMemory, OutOfMemory, PageArray, Reach, SharedMemory};
use xen_pv_sys::{Mfn, PAGE_SIZE};

/// Memory as the device sees it.
#[derive(Clone, Default)]
pub struct Bus(Rc<BusState>);

#[derive(Default)]
struct BusState {
    regions: RefCell<Vec<(u64, Rc<[AtomicU32]>)>>,
    faults: Cell<usize>,
    /// Of the device whose memory is allocated here.
    reach: Reach,
}

/// A run of pages on a [`Bus`], there until it is dropped. DMA memory that the device may still reach stays there.
pub struct Region {
    bus: Bus,
    base: u64,
    words: Rc<[AtomicU32]>,
    /// It is DMA memory, and the device was told of it.
    told: Cell<bool>,
}

impl Bus {
    /// Pages of zeroes.
    pub fn region(&self, bytes: usize) -> Region {
        let pages = bytes.div_ceil(PAGE_SIZE);
        let words: Rc<[AtomicU32]> = (0..pages * PAGE_SIZE / 4).map(|_| AtomicU32::new(0)).collect();
        let mut regions = self.0.regions.borrow_mut();
        // A hole between any two, so that running over an end is seen; above 4 GiB, so that the high half is.
        let base = regions.last().map_or(0x1_2345_0000, |(base, words)| base + (words.len() * 4 + PAGE_SIZE) as u64);
        regions.push((base, Rc::clone(&words)));
        Region { bus: self.clone(), base, words, told: Cell::new(false) }
    }

    /// Runs of pages that are there.
    pub fn regions(&self) -> usize {
        self.0.regions.borrow().len()
    }

    /// Accesses that no page stood behind.
    pub fn faults(&self) -> usize {
        self.0.faults.get()
    }

    fn word<R>(&self, address: u64, access: impl FnOnce(&AtomicU32) -> R) -> Option<R> {
        let regions = self.0.regions.borrow();
        let after = regions.partition_point(|(base, _)| *base <= address);
        let found = after
            .checked_sub(1)
            .and_then(|index| regions.get(index))
            .and_then(|(base, words)| words.get(usize::try_from(address - base).ok()? / 4));
        if found.is_none() {
            self.0.faults.set(self.0.faults.get() + 1);
        }
        found.map(access)
    }

    /// Every byte from `address` on, with the word that it lies in and its place therein; `None` where no page is.
    fn bytes(&self, address: u64, length: usize, mut access: impl FnMut(usize, Option<(&AtomicU32, u32)>)) {
        let regions = self.0.regions.borrow();
        let mut done = 0;
        while done < length {
            let at = address.wrapping_add(done as u64);
            let after = regions.partition_point(|(base, _)| *base <= at);
            let found = after.checked_sub(1).and_then(|index| regions.get(index));
            let start = found.and_then(|(base, _)| usize::try_from(at - base).ok()).unwrap_or(0);
            let words = found.and_then(|(_, words)| words.get(start / 4..)).unwrap_or_default();
            if words.is_empty() {
                self.0.faults.set(self.0.faults.get() + 1);
                access(done, None);
                done += 1;
                continue;
            }
            let mut place = start % 4;
            for word in words {
                while place < 4 && done < length {
                    access(done, Some((word, place as u32 * 8)));
                    place += 1;
                    done += 1;
                }
                place = 0;
                if done == length {
                    break;
                }
            }
        }
    }

    /// Reads by DMA. Zeroes where there is nothing.
    pub fn read(&self, address: u64, bytes: &mut [u8]) {
        self.bytes(address, bytes.len(), |index, place| {
            let value = place.map_or(0, |(word, shift)| word.load(Ordering::Acquire) >> shift);
            if let Some(byte) = bytes.get_mut(index) {
                *byte = value as u8;
            }
        });
    }

    /// Writes by DMA.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.bytes(address, bytes.len(), |index, place| {
            if let (Some((word, shift)), Some(byte)) = (place, bytes.get(index)) {
                let kept = word.load(Ordering::Relaxed) & !(0xFF << shift);
                word.store(kept | u32::from(*byte) << shift, Ordering::Release);
            }
        });
    }

    pub(super) fn read_words(&self, address: u64) -> [u32; 4] {
        [0, 4, 8, 12].map(|offset| self.word(address + offset, |word| word.load(Ordering::Acquire)).unwrap_or(0))
    }

    /// Writes a descriptor, its status word last.
    pub fn write_words(&self, address: u64, words: [u32; 4]) {
        for word in [0, 1, 3, 2] {
            self.word(address + 4 * word as u64, |slot| {
                slot.store(words.get(word).copied().unwrap_or(0), Ordering::Release);
            });
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.told.get() && !self.bus.0.reach.has_ended() {
            return;
        }
        self.bus.0.regions.borrow_mut().retain(|(base, _)| *base != self.base);
    }
}

impl SharedMemory for Region {
    fn words(&self) -> &[AtomicU32] {
        &self.words
    }
}

impl DmaMemory for Region {
    fn tell_frame(&self) -> Mfn {
        self.told.set(true);
        Mfn(self.base / PAGE_SIZE as u64)
    }
}

impl DmaAllocator for Bus {
    type Memory = Region;
    fn allocate(&self, bytes: usize) -> Result<Region, OutOfMemory> {
        Ok(self.region(bytes))
    }

    fn reach(&self) -> &Reach {
        &self.0.reach
    }
}

impl PageArray for Region {
    fn len(&self) -> usize {
        self.words.len() * 4 / PAGE_SIZE
    }

    fn frame(&self, index: usize) -> Option<Mfn> {
        (index < PageArray::len(self)).then_some(Mfn(self.base / PAGE_SIZE as u64 + index as u64))
    }

    fn read(&self, index: usize, offset: usize, destination: &mut [u8]) -> bool {
        let fits =
            index < PageArray::len(self) && offset.checked_add(destination.len()).is_some_and(|end| end <= PAGE_SIZE);
        if fits {
            self.bus.read(self.base + (index * PAGE_SIZE + offset) as u64, destination);
        }
        fits
    }

    fn write(&self, index: usize, offset: usize, source: &[u8]) -> bool {
        let fits = index < PageArray::len(self) && offset.checked_add(source.len()).is_some_and(|end| end <= PAGE_SIZE);
        if fits {
            self.bus.write(self.base + (index * PAGE_SIZE + offset) as u64, source);
        }
        fits
    }
}
