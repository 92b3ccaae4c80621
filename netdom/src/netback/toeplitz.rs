//! The Toeplitz hash of receive-side scaling (`io/netif.h`, "Toeplitz hash"). Pure. Floor 3.

/// Bytes of a key, at most: 36 bytes are hashed at most, and the last of them meets the key's last bits.
pub const KEY_BYTES: usize = 40;

/// The hash: where bit `n` of `data` is set, the 32 bits of `key` from bit `n` on are added to it (exclusive or).
pub fn toeplitz(key: &[u8; KEY_BYTES], data: &[u8]) -> u32 {
    let [a, b, c, d, rest @ ..] = *key;
    let mut window = u32::from_be_bytes([a, b, c, d]);
    let mut hash = 0;
    for (byte, next) in data.iter().zip(rest) {
        for bit in (0..8).rev() {
            if byte >> bit & 1 != 0 {
                hash ^= window;
            }
            window = window << 1 | u32::from(next >> bit & 1);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// The key of Microsoft's "Verifying the RSS Hash Calculation".
    const KEY: [u8; KEY_BYTES] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca,
        0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b,
        0xbe, 0xac, 0x01, 0xfa,
    ];

    /// Its vectors: destination, source, the hash with TCP's ports and without.
    #[test]
    fn published_vectors() {
        for (destination, source, with_ports, without) in [
            ("161.142.100.80:1766", "66.9.149.187:2794", 0x51cc_c178, 0x323e_8fc2_u32),
            ("65.69.140.83:4739", "199.92.111.2:14230", 0xc626_b0ea, 0xd718_262a),
            ("12.22.207.184:38024", "24.19.198.95:12898", 0x5c2b_394a, 0xd2d0_a5de),
            ("209.142.163.6:2217", "38.27.205.30:48228", 0xafc7_327f, 0x8298_9176),
            ("202.188.127.2:1303", "153.39.163.191:44251", 0x10e8_28a2, 0x5d18_09c5),
            ("[3ffe:2501:200:3::1]:1766", "[3ffe:2501:200:1fff::7]:2794", 0x4020_7d3d, 0x2cc1_8cd5),
            ("[ff02::1]:4739", "[3ffe:501:8::260:97ff:fe40:efab]:14230", 0xdde5_1bbf, 0x0f0c_461c),
            (
                "[fe80::200:f8ff:fe21:67cf]:38024",
                "[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251",
                0x02d1_feef,
                0x4b61_e985,
            ),
        ] {
            let [source, destination] =
                [source, destination].map(|text| text.parse::<core::net::SocketAddr>().unwrap());
            let octets = |address: core::net::SocketAddr| match address.ip() {
                core::net::IpAddr::V4(ip) => Vec::from(ip.octets()),
                core::net::IpAddr::V6(ip) => Vec::from(ip.octets()),
            };
            let mut data = [octets(source), octets(destination)].concat();
            assert_eq!(toeplitz(&KEY, &data), without, "{source} {destination}");
            data.extend([source.port().to_be_bytes(), destination.port().to_be_bytes()].concat());
            assert_eq!(toeplitz(&KEY, &data), with_ports, "{source} {destination}");
        }
    }

    #[test]
    fn no_key_hashes_to_nothing() {
        assert_eq!(toeplitz(&[0; KEY_BYTES], &[0xff; 36]), 0);
        assert_eq!(toeplitz(&KEY, &[]), 0);
        // The last bit of the longest data meets bits 287 to 318.
        let mut data = [0; 36];
        data[35] = 1;
        assert_eq!(toeplitz(&KEY, &data), 0xdf56_00fd);
    }
}
