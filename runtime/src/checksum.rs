//! The checksum of what a life leaves to the next. Pure. Floor 2.
//!
//! It tells what was written to its end from what was not, and from what something wrote over. Nobody forges it.

/// An odd number without pattern.
const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

/// Of `bytes`, begun with `seed`.
pub(crate) fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    for (slot, byte) in last.iter_mut().zip(rest) {
        *slot = *byte;
    }
    let start = seed ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    checksum_words(start, words.iter().chain([&last]).map(|word| u64::from_le_bytes(*word)))
}

/// Of as many words as there always are, begun with `seed`.
pub(crate) fn checksum_words(seed: u64, words: impl IntoIterator<Item = u64>) -> u64 {
    words.into_iter().fold(seed, |sum, word| {
        let mixed = (sum ^ word).wrapping_mul(FACTOR);
        mixed ^ (mixed >> 29)
    })
}

#[cfg(test)]
mod tests {
    use super::checksum;

    #[test]
    fn every_bit_and_the_length_count() {
        let bytes: [u8; 43] = core::array::from_fn(|index| index as u8);
        for length in 0..bytes.len() {
            let sum = checksum(1, &bytes[..length]);
            assert_ne!(sum, checksum(2, &bytes[..length]));
            assert_ne!(sum, checksum(1, &bytes[..length + 1]));
            for bit in 0..length * 8 {
                let mut changed = bytes;
                changed[bit / 8] ^= 1 << (bit % 8);
                assert_ne!(sum, checksum(1, &changed[..length]), "length {length}, bit {bit}");
            }
        }
        assert_ne!(checksum(0, &[]), checksum(0, &[0]));
    }
}
