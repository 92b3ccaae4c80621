//! Numbers without a pattern. Pure but for the seed.

use core::sync::atomic::{AtomicU64, Ordering};
use runtime::time;

/// The seed that the command line names; 0 where it names none.
static SEED: AtomicU64 = AtomicU64::new(0);

/// Takes `seed=N` of the command line.
pub(crate) fn take_seed(words: &str) {
    let named = words.split_ascii_whitespace().find_map(|word| word.strip_prefix("seed=")?.parse().ok());
    SEED.store(named.unwrap_or(0), Ordering::Relaxed);
}

/// xorshift64 (Marsaglia 2003).
pub(crate) struct Random(u64);

impl Random {
    /// Seeded by the command line, where it names a seed, another one each time; else by the clock. The seed is on the console.
    pub(crate) fn new() -> Self {
        let seed = match SEED.fetch_add(u64::from(SEED.load(Ordering::Relaxed) != 0), Ordering::Relaxed) {
            0 => time::now().0 | 1,
            // The seeds of a campaign follow each other: spread their bits (the multiplier of splitmix64).
            seed => seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
        };
        log::info!("seed {seed}");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as u32
    }

    /// A number below `limit`; 0 where that is 0.
    pub(crate) fn below(&mut self, limit: u32) -> u32 {
        self.next() % limit.max(1)
    }

    /// One of these; the default where there is none.
    pub(crate) fn pick<T: Copy + Default>(&mut self, from: &[T]) -> T {
        from.get(self.below(from.len() as u32) as usize).copied().unwrap_or_default()
    }
}
