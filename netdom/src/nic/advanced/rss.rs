//! Receive-side scaling: which queue the frames of a flow are received by. Pure. Floor 3.
//!
//! The device hashes addresses and ports by Toeplitz with a key of 40 bytes; the hash's low seven bits choose an entry of a table
//! of 128 queues (82599 datasheet 7.1.2.8, 82576 datasheet 7.1.1.7), its low nine bits on an X550, whose table has 512.

/// Words of the key.
pub const KEY_WORDS: usize = 10;
/// Words of the redirection table, RETA.
pub const TABLE_WORDS: usize = 32;
/// Words of the table of an X550: those of RETA, and behind them ERETA's.
pub const LONG_TABLE_WORDS: usize = 128;

/// MRQC: which protocols' fields are hashed. The same bits in both families.
pub mod fields {
    /// Addresses and ports of TCP over IPv4.
    pub const TCP_V4: u32 = 1 << 16;
    /// Addresses of IPv4.
    pub const IP_V4: u32 = 1 << 17;
    /// Addresses of IPv6.
    pub const IP_V6: u32 = 1 << 20;
    /// Addresses and ports of TCP over IPv6.
    pub const TCP_V6: u32 = 1 << 21;
    /// All of them.
    pub const ALL: u32 = TCP_V4 | IP_V4 | IP_V6 | TCP_V6;
}

/// The key: the flows of one guest should not be steerable into one queue by others, so it is made of a number that changes from
/// start to start.
pub fn key(mut seed: u64) -> [u32; KEY_WORDS] {
    core::array::from_fn(|_| {
        // Steele's SplitMix64.
        seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = seed;
        word = (word ^ word >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ word >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word >> 32) as u32
    })
}

/// The table, so many words of four entries: each queue as often as the others.
pub fn table(queues: usize, words: usize) -> impl Iterator<Item = u32> {
    let queue = move |entry: usize| (entry % queues.clamp(1, 16)) as u8;
    (0..words).map(move |word| u32::from_le_bytes(core::array::from_fn(|byte| queue(4 * word + byte))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_queue_has_its_share_of_the_table() {
        assert!(table(1, TABLE_WORDS).eq([0; TABLE_WORDS]));
        assert!(table(4, TABLE_WORDS).eq([0x0302_0100; TABLE_WORDS]));
        let entries: alloc::vec::Vec<u8> = table(3, TABLE_WORDS).flat_map(u32::to_le_bytes).collect();
        for queue in 0..3 {
            let share = entries.iter().filter(|entry| **entry == queue).count();
            assert!((42..=43).contains(&share));
        }
    }

    #[test]
    fn keys_differ_by_their_seeds() {
        assert_ne!(key(1), key(2));
        assert!(key(0).iter().all(|word| *word != 0));
    }
}
