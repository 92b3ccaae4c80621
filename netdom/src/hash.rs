//! A hash with a key that guests do not know, so that none can choose what collides. Pure. Floor 3.

/// The key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyedHash([u64; 2]);

impl KeyedHash {
    /// A key made from a number that guests do not know.
    pub(crate) const fn new(seed: u64) -> Self {
        Self([seed ^ 0x9e37_79b9_7f4a_7c15, seed.rotate_left(32).wrapping_mul(0xd6e8_feb8_6659_fd93) | 1])
    }

    /// The hash of some words.
    pub(crate) fn of(self, words: impl IntoIterator<Item = u64>) -> u64 {
        let [first, second] = self.0;
        let state = words.into_iter().fold(first, |state, word| fold(state ^ word, second));
        fold(state ^ second, first | 1)
    }
}

/// Both halves of the product.
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    (product >> 64) as u64 ^ product as u64
}
