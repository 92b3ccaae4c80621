//! Page frames: which are free, and who gets them. Floor 2.
//!
//! Unsafe because giving out a frame twice would break everything.

use super::runs::Runs;
use crate::layout::ROOM_PAGES;
use crate::local::Local;
use core::cell::OnceCell;
use core::sync::atomic::AtomicU64;
use split_driver::memory::OutOfMemory;
use xen_pv_sys::Pfn;

/// All memory but the image and its room.
static FRAMES: Pool = Pool(Local::new(OnceCell::new()));
/// The room for a larger image. What lives there does not outlive a restart, so the heap alone has it.
pub(super) static ROOM: Pool = Pool(Local::new(OnceCell::new()));
static ROOM_WORDS: [AtomicU64; ROOM_PAGES / 64] = [const { AtomicU64::new(0) }; ROOM_PAGES / 64];

/// Frames that domain builders mostly take from Xen in one piece.
const BUILT_TOGETHER: u64 = 512;

/// Frames of a part of memory.
pub(super) struct Pool(Local<OnceCell<Runs<'static>>>);

impl Pool {
    /// Begins without any; `words` have a bit for each frame from 0 on, and are the pool's alone.
    fn begin(&self, words: &'static [AtomicU64]) {
        let _ = self.0.set(Runs::new(words));
    }

    fn take(&self, count: usize, block: u64) -> Result<Pfn, OutOfMemory> {
        self.0.get().and_then(|runs| runs.take(count, block)).map(Pfn).ok_or(OutOfMemory)
    }

    /// `count` frames, mapped one after the other (in machine memory they are not); with what they last held.
    pub(super) fn allocate(&self, count: usize) -> Result<Pfn, OutOfMemory> {
        self.take(count, u64::MAX)
    }

    /// Gives frames back, in any portions, or adds them.
    ///
    /// # Safety
    /// Nobody uses them, they are mapped writable, and they are not free already.
    pub(super) unsafe fn free(&self, first: Pfn, count: usize) {
        if let Some(runs) = self.0.get() {
            runs.give(first.0, count);
        }
    }

    /// Frames that are free.
    pub(super) fn free_count(&self) -> usize {
        self.0.get().map_or(0, Runs::free)
    }
}

/// Begins without any frame, in memory or in the room.
pub(super) fn initialize(words: &'static [AtomicU64]) {
    FRAMES.begin(words);
    ROOM.begin(&ROOM_WORDS);
}

/// [`Pool::allocate`] of all memory.
pub(crate) fn allocate(count: usize) -> Result<Pfn, OutOfMemory> {
    FRAMES.allocate(count)
}

/// [`allocate`] of frames that probably follow each other in machine memory, too.
pub(crate) fn allocate_together(count: usize) -> Result<Pfn, OutOfMemory> {
    FRAMES.take(count, BUILT_TOGETHER)
}

/// [`Pool::free`] to all memory.
///
/// # Safety
/// As there.
pub(crate) unsafe fn free(first: Pfn, count: usize) {
    // SAFETY: by the caller.
    unsafe { FRAMES.free(first, count) };
}

/// Frames that are free.
pub(crate) fn free_count() -> usize {
    FRAMES.free_count()
}
