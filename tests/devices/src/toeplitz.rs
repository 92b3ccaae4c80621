//! The Toeplitz hash of receive-side scaling, with Microsoft's vectors. 82599 datasheet 7.1.2.8.1. Pure.

/// Bytes of the key: 320 bits.
pub const KEY_BYTES: usize = 40;

/// The hash of `input` under `key`: for each bit that is set, the 32 bits of the key that begin there.
pub fn hash(key: &[u8; KEY_BYTES], input: &[u8]) -> u32 {
    let mut window = u64::from_be_bytes([key[0], key[1], key[2], key[3], key[4], key[5], key[6], key[7]]);
    let mut next = key.iter().skip(8);
    let mut result = 0;
    for &byte in input {
        for bit in (0..8).rev() {
            if byte >> bit & 1 != 0 {
                result ^= (window >> 32) as u32;
            }
            window <<= 1;
        }
        // Eight bits were used up; the key ends in zeroes.
        window |= u64::from(next.next().copied().unwrap_or(0));
    }
    result
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The key of Microsoft's "Verifying the RSS Hash Calculation".
    pub(crate) const KEY: [u8; KEY_BYTES] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca,
        0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b,
        0xbe, 0xac, 0x01, 0xfa,
    ];

    fn v4(source: [u8; 4], port: u16, destination: [u8; 4], to: u16) -> (u32, u32) {
        let addresses = [source, destination].concat();
        let all = [addresses.as_slice(), &port.to_be_bytes(), &to.to_be_bytes()].concat();
        (hash(&KEY, &addresses), hash(&KEY, &all))
    }

    fn v6(source: &str, port: u16, destination: &str, to: u16) -> (u32, u32) {
        let octets = |text: &str| text.parse::<std::net::Ipv6Addr>().expect("an address").octets();
        let addresses = [octets(source), octets(destination)].concat();
        let all = [addresses.as_slice(), &port.to_be_bytes(), &to.to_be_bytes()].concat();
        (hash(&KEY, &addresses), hash(&KEY, &all))
    }

    #[test]
    fn microsofts_vectors() {
        assert_eq!(v4([66, 9, 149, 187], 2794, [161, 142, 100, 80], 1766), (0x323e8fc2, 0x51ccc178));
        assert_eq!(v4([199, 92, 111, 2], 14230, [65, 69, 140, 83], 4739), (0xd718262a, 0xc626b0ea));
        assert_eq!(v4([24, 19, 198, 95], 12898, [12, 22, 207, 184], 38024), (0xd2d0a5de, 0x5c2b394a));
        assert_eq!(v4([38, 27, 205, 30], 48228, [209, 142, 163, 6], 2217), (0x82989176, 0xafc7327f));
        assert_eq!(v4([153, 39, 163, 191], 44251, [202, 188, 127, 2], 1303), (0x5d1809c5, 0x10e828a2));
        assert_eq!(v6("3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766), (0x2cc18cd5, 0x40207d3d));
        assert_eq!(v6("3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739), (0x0f0c461c, 0xdde51bbf));
        assert_eq!(
            v6("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251, "fe80::200:f8ff:fe21:67cf", 38024),
            (0x4b61e985, 0x02d1feef)
        );
    }
}
