//! The pages that data pass through where the device does not reach a guest's own: bounce pages. Pure. Floor 3.

use alloc::boxed::Box;
use alloc::vec::Vec;
use split_driver::memory::{DeviceAddress, PageArray};
use xen_pv_sys::Mfn;

/// A fixed number of pages, each in use once at most. Taking and giving back allocate nothing.
pub struct Pages {
    memory: Box<dyn PageArray>,
    /// Where each begins.
    places: Vec<DeviceAddress>,
    free: Vec<u32>,
}

impl Pages {
    /// All pages of `memory` that have a frame.
    pub fn new(memory: Box<dyn PageArray>) -> Self {
        let places: Vec<_> = (0..memory.len()).map_while(|index| memory.device_address(index)).collect();
        let free = (0..places.len()).rev().filter_map(|index| u32::try_from(index).ok()).collect();
        Self { memory, places, free }
    }

    /// Pages that can be taken now.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// Pages in all.
    pub fn capacity(&self) -> usize {
        self.places.len()
    }

    /// A page, its contents left from its last use. `None` where all are in use.
    pub(crate) fn take(&mut self) -> Option<u32> {
        self.free.pop()
    }

    /// Gives back what [`Self::take`] gave.
    pub(crate) fn give(&mut self, page: u32) {
        debug_assert!(!self.free.contains(&page), "a page is given back twice");
        self.free.push(page);
    }

    /// The local end of a grant copy.
    pub(crate) fn frame(&self, page: u32) -> Mfn {
        // A page's number comes from `take` alone.
        self.device_address(page).map_or(Mfn(0), DeviceAddress::frame)
    }

    /// Where a device finds its first byte.
    pub(crate) fn device_address(&self, page: u32) -> Option<DeviceAddress> {
        self.places.get(page as usize).copied()
    }

    /// Copies bytes out. False, and nothing read, beyond the page's end.
    pub(crate) fn read(&self, page: u32, offset: usize, destination: &mut [u8]) -> bool {
        self.memory.read(page as usize, offset, destination)
    }
}
