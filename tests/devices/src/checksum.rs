//! The Internet's checksum, RFC 1071. Pure.

/// Adds `bytes`, as big-endian halves, to a running sum of 16 bits with end-around carry.
pub fn sum(bytes: &[u8], start: u16) -> u16 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let mut total = u64::from(start) + pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum::<u64>();
    if let [last] = rest {
        total += u64::from(*last) << 8;
    }
    while total >> 16 != 0 {
        total = (total & 0xFFFF) + (total >> 16);
    }
    total as u16
}

/// The big-endian half at `at`, if it is there.
pub fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().copied().map(u16::from_be_bytes)
}

/// Writes a big-endian half at `at`; false where there is no room.
pub fn put(bytes: &mut [u8], at: usize, value: u16) -> bool {
    let place = bytes.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>);
    place.map(|place| *place = value.to_be_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc() {
        // RFC 1071, 3.
        assert_eq!(sum(&[0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7], 0), 0xDDF2);
        assert_eq!(sum(&[0xFF, 0xFF, 0x01], 0), 0x0100);
        assert_eq!(sum(&[0xFF; 0x3_0000], 0xFFFF), 0xFFFF);
    }
}
