//! Pages that a driver is given for its requests: they come back, and the device leaves alone those that are back. Host.

use split_driver::fakes::{FakePages, FakeXen};
use split_driver::memory::PageArray;
use xen_pv_sys::PAGE_SIZE;

/// What each sector of a page begins with that no request has.
const IDLE: [u8; 8] = [0xEE; 8];
const SECTOR: usize = 512;

/// Marks a page that no request has.
pub(super) fn mark_idle(write: impl Fn(usize, &[u8]) -> bool) {
    (0..PAGE_SIZE).step_by(SECTOR).for_each(|at| assert!(write(at, &IDLE)));
}

/// Whether a page is as [`mark_idle`] left it.
pub(super) fn is_idle(read: impl Fn(usize, &mut [u8]) -> bool) -> bool {
    (0..PAGE_SIZE).step_by(SECTOR).all(|at| {
        let mut bytes = [0; IDLE.len()];
        read(at, &mut bytes) && bytes == IDLE
    })
}

/// Pages, and how many requests each is in.
pub(super) struct Loans {
    pages: FakePages,
    requests: Vec<usize>,
}

impl Loans {
    pub(super) fn new(xen: &FakeXen, count: usize) -> Self {
        let loans = Self { pages: FakePages::new(xen, count), requests: vec![0; count] };
        (0..count).for_each(|page| loans.mark(page));
        loans
    }

    /// Where a page begins, as the device knows it.
    pub(super) fn address(&self, page: usize) -> u64 {
        self.pages.frame(page).map_or(0, |frame| frame.0) * PAGE_SIZE as u64
    }

    fn mark(&self, page: usize) {
        mark_idle(|at, bytes| self.pages.write(page, at, bytes));
    }

    /// A page that no request has is as it was when it came back.
    fn check(&self, page: usize) {
        let idle = is_idle(|at, bytes| self.pages.read(page, at, bytes));
        assert!(idle, "page {page} was written though no request has it");
    }

    /// A request gets pages. With `check`, those that no other has were left alone.
    pub(super) fn lend(&mut self, pages: &[usize], check: bool) {
        for page in pages {
            if check && self.requests[*page] == 0 {
                self.check(*page);
            }
            self.requests[*page] += 1;
        }
    }

    /// A request has ended.
    pub(super) fn give_back(&mut self, pages: &[usize]) {
        for page in pages {
            self.requests[*page] -= 1;
            if self.requests[*page] == 0 {
                self.mark(*page);
            }
        }
    }

    /// Pages that no request has were left alone.
    pub(super) fn check_all(&self) {
        (0..self.requests.len()).filter(|page| self.requests[*page] == 0).for_each(|page| self.check(page));
    }
}
