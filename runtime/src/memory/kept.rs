//! Pages that the next life finds as this one leaves them, wherever it ends. Floor 2.
//!
//! A bit for each frame says which ones these are (`p2m`). The next life leaves them out of what is free until it has taken over; whose they
//! are, their first words say. Nothing else is known of them: whoever takes one over checks what it holds.
//!
//! Unsafe because a page of ours is reached by its address.

use super::{frames, p2m, tables};
use crate::layout;
use core::sync::atomic::{AtomicU32, Ordering};
use split_driver::kept::{KEPT_WORDS, KeptPage};
use split_driver::memory::OutOfMemory;
use xen_pv_sys::{PAGE_SIZE, Pfn};

/// A page that outlives this life; freed by `Drop`.
#[derive(Debug)]
pub struct KeptFrame {
    frame: Pfn,
}

/// The words of a frame.
fn words(frame: Pfn) -> &'static [AtomicU32] {
    // SAFETY: a page of ours, mapped as plain memory for good, that is reached through here alone while it is kept; each word is an atomic.
    unsafe { core::slice::from_raw_parts(layout::address_of(frame) as *const AtomicU32, KEPT_WORDS) }
}

impl KeptFrame {
    /// A zeroed page.
    ///
    /// # Errors
    /// [`OutOfMemory`].
    pub fn new() -> Result<Self, OutOfMemory> {
        let frame = frames::allocate(1)?;
        // SAFETY: just allocated.
        unsafe { core::ptr::write_bytes(layout::address_of(frame) as *mut u8, 0, PAGE_SIZE) };
        p2m::set_kept(frame, true);
        Ok(Self { frame })
    }

    /// Takes over a page of an earlier life whose first words are these; `None` where there is none.
    pub fn inherit(first: &[u32]) -> Option<Self> {
        let begins = |frame: &Pfn| {
            let found = words(*frame).get(..first.len()).unwrap_or_default();
            found.len() == first.len() && found.iter().zip(first).all(|(word, is)| word.load(Ordering::Relaxed) == *is)
        };
        let frame = p2m::inherited().find(begins)?;
        p2m::set_kept(frame, true);
        Some(Self { frame })
    }
}

impl KeptPage for KeptFrame {
    #[inline]
    fn load(&self, word: usize) -> u32 {
        words(self.frame).get(word).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    #[inline]
    fn store(&self, word: usize, value: u32) {
        if let Some(word) = words(self.frame).get(word) {
            // This life may end behind any instruction: what was stored before is there.
            word.store(value, Ordering::Release);
        }
    }

    #[inline]
    fn store_all(&self, word: usize, values: &[u32]) {
        let places = words(self.frame).get(word..).unwrap_or_default();
        for (place, value) in places.iter().zip(values) {
            place.store(*value, Ordering::Relaxed);
        }
    }
}

impl Drop for KeptFrame {
    fn drop(&mut self) {
        p2m::set_kept(self.frame, false);
        // SAFETY: allocated in `new`, in this life or in one that kept it.
        unsafe { frames::free(self.frame, 1) };
    }
}

/// Frees what earlier lives kept and nobody took over.
pub(super) fn release_inherited() {
    let tables = tables::current();
    for frame in p2m::inherited() {
        p2m::set_kept(frame, false);
        if tables.is_plain(frame) {
            // SAFETY: plain memory that was left out of what is free, and that no `KeptFrame` of this life has.
            unsafe { frames::free(frame, 1) };
        }
    }
}
