//! Numbers without a pattern. Pure but for the seed.

use runtime::time;

/// xorshift64 (Marsaglia 2003).
pub(crate) struct Random(u64);

impl Random {
    /// Seeded by the clock; the seed is on the console.
    pub(crate) fn new() -> Self {
        let seed = time::now().0 | 1;
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
