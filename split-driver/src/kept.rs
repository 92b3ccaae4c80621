//! Pages that outlive a life of the domain, wherever it ends: a journal's; and bytes that are ready to be written when it ends. Floor 1.
//!
//! A life may end behind any instruction (a panic, a fault, an NMI), and nothing is written then. So what such a page holds must make sense
//! behind each single store; and whoever takes one over from an earlier life believes nothing that it has not checked.

use crate::memory::OutOfMemory;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use xen_pv_sys::PAGE_SIZE;

/// Words of a page.
pub const KEPT_WORDS: usize = PAGE_SIZE / size_of::<u32>();

/// A page of this domain's own, zeroed when it was taken; given back by `Drop`.
pub trait KeptPage {
    /// A word; 0 beyond the end.
    fn load(&self, word: usize) -> u32;

    /// Writes a word, when all that was written before is there: to this page, to others, to a ring. Nothing beyond the end.
    fn store(&self, word: usize, value: u32);

    /// Writes words, in any order, from this one on; those beyond the end not.
    fn store_all(&self, word: usize, values: &[u32]);
}

/// A domain that may begin anew inside itself, and what it keeps for that.
pub trait Keep {
    /// A page.
    type Page: KeptPage;

    /// A page that the next life will find.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    fn keep_page(&self) -> Result<Self::Page, OutOfMemory>;

    /// Takes over a page of an earlier life whose first words are these, as it was left; `None` where there is none that nobody has taken.
    /// Those that nobody takes are freed once this life has taken over.
    fn inherit_page(&self, first: &[u32]) -> Option<Self::Page>;
}

/// What the next life has to know, in bytes, written down while all is well: into one of two places, and the other one is what counts until it is
/// complete.
#[derive(Debug, Default)]
pub struct Written {
    places: [RefCell<Vec<u8>>; 2],
    current: Cell<bool>,
}

impl Written {
    /// With what the last life wrote, until this one writes.
    pub fn new(inherited: Option<&[u8]>) -> Self {
        let written = Self::default();
        written.set(inherited.unwrap_or_default().to_vec());
        written
    }

    fn current(&self) -> &RefCell<Vec<u8>> {
        let [first, second] = &self.places;
        if self.current.get() { second } else { first }
    }

    /// Puts bytes into the other place, which counts from then on.
    pub fn set(&self, bytes: Vec<u8>) {
        let [first, second] = &self.places;
        let other = if self.current.get() { first } else { second };
        *other.borrow_mut() = bytes;
        self.current.set(!self.current.get());
    }

    /// Bytes that [`Written::write`] gives.
    pub fn length(&self) -> usize {
        self.current().borrow().len()
    }

    /// Gives them to `out`, without allocating.
    pub fn write(&self, out: &mut dyn FnMut(&[u8])) -> bool {
        self.current().try_borrow().map(|bytes| out(&bytes)).is_ok()
    }
}
