//! Frames that are free, a bit each: runs of any length, from the lowest that fits. Pure. Floor 2.
//!
//! Frames that come back join their neighbours by themselves, and nothing is written into them. Single ones fill the gaps at the low end,
//! so the high end stays in one piece for long runs, which need no alignment: what a run takes is what was asked for.

use core::cell::Cell;
use core::sync::atomic::{AtomicU64, Ordering};

/// The frames that are free.
#[derive(Debug)]
pub(super) struct Runs<'a> {
    words: &'a [AtomicU64],
    /// How many there are.
    free: Cell<usize>,
    /// All words before it are empty.
    first: Cell<usize>,
}

/// Bits from `from` on.
const fn bits_from(from: u64) -> u64 {
    u64::MAX << (from % 64)
}

impl<'a> Runs<'a> {
    /// None of the frames that `words` have bits for.
    pub(super) fn new(words: &'a [AtomicU64]) -> Self {
        words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        Self { words, free: Cell::new(0), first: Cell::new(words.len()) }
    }

    /// How many frames are free.
    pub(super) fn free(&self) -> usize {
        self.free.get()
    }

    /// Takes `count` frames that follow each other and lie in one block of `block` frames, where they fit into one; gives the first.
    pub(super) fn take(&self, count: usize, block: u64) -> Option<u64> {
        let wanted = count as u64;
        if count == 0 || count > self.free.get() {
            return None;
        }
        let mut start = self.first.get() as u64 * 64;
        let all = self.words.len() as u64 * 64;
        loop {
            start = self.next(start, all, |word| word)?;
            if count == 1 {
                self.first.set((start / 64) as usize);
            }
            let left = block - start % block;
            if wanted <= block && wanted > left {
                start += left;
                continue;
            }
            let enough = all.min(start + wanted);
            let end = self.next(start, enough, |word| !word).unwrap_or(enough);
            if end - start == wanted {
                self.set(start, wanted, false);
                return Some(start);
            }
            start = end;
        }
    }

    /// Gives frames back, or adds them; those without a bit are not used.
    pub(super) fn give(&self, start: u64, count: usize) {
        self.set(start, count as u64, true);
        self.first.set(self.first.get().min((start / 64) as usize));
    }

    /// The next frame from `start` on, before `end`, whose bit is set in what `of` makes of its word.
    fn next(&self, start: u64, end: u64, of: impl Fn(u64) -> u64) -> Option<u64> {
        let mut frame = start;
        while frame < end {
            let bits = of(self.words.get((frame / 64) as usize)?.load(Ordering::Relaxed)) & bits_from(frame);
            frame &= !63;
            if bits != 0 {
                return Some(frame + u64::from(bits.trailing_zeros())).filter(|found| *found < end);
            }
            frame += 64;
        }
        None
    }

    fn set(&self, start: u64, count: u64, free: bool) {
        let end = start + count;
        let mut frame = start;
        while frame < end {
            let Some(word) = self.words.get((frame / 64) as usize) else {
                return;
            };
            let next = u64::min((frame / 64 + 1) * 64, end);
            let above = if next.is_multiple_of(64) { 0 } else { bits_from(next) };
            let bits = bits_from(frame) & !above;
            let before = word.load(Ordering::Relaxed);
            debug_assert!(before & bits == if free { 0 } else { bits }, "frames {frame} to {next} were so already");
            word.store(if free { before | bits } else { before & !bits }, Ordering::Relaxed);
            let changed = bits.count_ones() as usize;
            self.free.set(if free { self.free.get() + changed } else { self.free.get() - changed });
            frame = next;
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    fn words(count: usize) -> Vec<AtomicU64> {
        (0..count).map(|_| AtomicU64::new(7)).collect()
    }

    #[test]
    fn the_lowest_run_that_fits() {
        let words = words(4);
        let runs = Runs::new(&words);
        assert_eq!(runs.take(1, 512), None);
        runs.give(3, 2);
        runs.give(10, 200);
        runs.give(250, 100);
        assert_eq!(runs.free(), 2 + 200 + 6);
        assert_eq!((runs.take(1, 512), runs.take(5, 512), runs.take(1, 512)), (Some(3), Some(10), Some(4)));
        assert_eq!((runs.take(50, 64), runs.take(64, 64), runs.take(65, 64)), (Some(64), Some(128), None));
        runs.give(64, 50);
        assert_eq!(runs.take(65, 64), Some(15));
        assert_eq!((runs.take(7, 512), runs.free()), (Some(80), 2 + 200 + 6 - 1 - 5 - 1 - 64 - 65 - 7));
    }

    proptest! {
        /// Against a list of frames that are free.
        #[test]
        fn as_a_list_would(steps in proptest::collection::vec((0_usize..40, any::<bool>(), 0_usize..64), 1..200)) {
            let words = words(3);
            let runs = Runs::new(&words);
            let mut free = [true; 192];
            runs.give(0, 192);
            let mut taken: Vec<(u64, usize)> = Vec::new();
            for (count, gives, which) in steps {
                if gives && !taken.is_empty() {
                    let (start, count) = taken.swap_remove(which % taken.len());
                    runs.give(start, count);
                    free[start as usize..start as usize + count].fill(true);
                } else {
                    let fits = |start: usize| {
                        let in_block = start / 64 == (start + count - 1) / 64;
                        in_block && free[start..start + count].iter().all(|free| *free)
                    };
                    let expected = (1..=192).contains(&count).then(|| (0..=192 - count).find(|start| fits(*start))).flatten();
                    let start = runs.take(count, 64);
                    prop_assert_eq!(start, expected.map(|start| start as u64));
                    if let Some(start) = start {
                        free[start as usize..start as usize + count].fill(false);
                        taken.push((start, count));
                    }
                }
                prop_assert_eq!(runs.free(), free.iter().filter(|free| **free).count());
            }
        }
    }
}
