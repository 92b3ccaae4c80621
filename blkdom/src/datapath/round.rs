//! One round of the data path: its lists, and the two batches of grant copies. Pure. Floor 3.
//!
//! The lists are emptied, never freed, so that a round allocates nothing.

use super::Stop;
use crate::disk::{Completion, Segment};
use alloc::vec::Vec;
use split_driver::hypervisor::{DeviceMap, DevicePage};
use xen_pv_sys::grant_table::GrantCopy;

/// Pages of indirect segments that are read in a round.
pub(crate) const INDIRECT_PAGES: usize = 16;

/// A request whose data are copied by these entries of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Copied {
    pub(crate) vbd: u16,
    pub(crate) operation: u16,
    pub(crate) first: u32,
    pub(crate) end: u32,
}

/// A request whose segments lie in a page of the guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Indirect {
    pub(crate) vbd: u16,
    pub(crate) operation: u16,
    pub(crate) segments: u16,
    /// The entry of the first batch that fetches them, and the page that it fetches them to.
    pub(crate) copy: u32,
    pub(crate) page: u32,
}

/// All that a round needs to remember.
#[derive(Default)]
pub(crate) struct Round {
    /// Requests taken from all rings.
    pub(crate) taken: usize,
    pub(crate) completions: Vec<Completion>,
    /// First batch: what reads brought, to the guests; indirect segments.
    pub(crate) outward: Vec<GrantCopy>,
    pub(crate) reads: Vec<Copied>,
    pub(crate) indirect: Vec<Indirect>,
    /// Second batch: what is to be written.
    pub(crate) inward: Vec<GrantCopy>,
    pub(crate) writes: Vec<Copied>,
    /// Vbds with grants to be mapped.
    pub(crate) mapping: Vec<u16>,
    pub(crate) maps: Vec<DeviceMap>,
    /// Requests that wait for these grants.
    pub(crate) mapped: Vec<(u16, u16)>,
    pub(crate) unmap: Vec<DevicePage>,
    /// The memory of the command at hand.
    pub(crate) data: Vec<Segment>,
    /// Queues with responses placed and not published.
    pub(crate) touched: Vec<(u16, u16)>,
    /// Queues that were looked at, and why the look ended.
    pub(crate) served: Vec<(u16, u16, Stop)>,
    /// Vbds that have room again for requests of theirs.
    pub(crate) relieved: Vec<u16>,
}

impl Round {
    pub(crate) fn clear(&mut self) {
        self.taken = 0;
        self.completions.clear();
        self.outward.clear();
        self.reads.clear();
        self.indirect.clear();
        self.inward.clear();
        self.writes.clear();
        self.mapping.clear();
        self.maps.clear();
        self.mapped.clear();
        self.data.clear();
        self.touched.clear();
        self.served.clear();
        self.relieved.clear();
        debug_assert!(self.unmap.is_empty(), "pages are unmapped in their round");
    }
}
