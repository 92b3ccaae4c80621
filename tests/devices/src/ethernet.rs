//! Addresses of stations. Pure.

/// A MAC address.
pub type Address = [u8; 6];

/// The destination of a frame, zeroes where it is shorter.
pub fn destination(frame: &[u8]) -> Address {
    frame.first_chunk().copied().unwrap_or_default()
}

/// Whether it is the address of all stations.
pub fn is_broadcast(address: Address) -> bool {
    address == [0xFF; 6]
}

/// Whether it is the address of a group, all stations included.
pub const fn is_multicast(address: Address) -> bool {
    address[0] & 1 != 0
}

/// The frame check sequence, IEEE 802.3 3.2.9, as it follows the frame.
pub fn frame_check(frame: &[u8]) -> [u8; 4] {
    let step = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| sum >> 1 ^ if sum & 1 != 0 { 0xEDB8_8320 } else { 0 })
    };
    (!frame.iter().fold(!0, step)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_value_of_crc_32() {
        assert_eq!(frame_check(b"123456789"), 0xCBF4_3926_u32.to_le_bytes());
    }
}
