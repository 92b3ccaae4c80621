//! By what packets are spread over the members of a bond: Linux' `xmit_hash_policy` (Documentation/networking/bonding.rst). Pure. Floor 3.

use crate::offload::flow::Flow;
use crate::offload::head::Head;

/// What packets have in common that leave on one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Ethernet addresses, and the kind of packet.
    #[default]
    Layer2,
    /// These, and IP addresses.
    Layer23,
    /// IP addresses, and ports where there are any; for packets that are not IP, what is looked at by `Layer2`. Fragments have no ports: one member's
    /// may overtake another's.
    Layer34,
}

impl Policy {
    /// From its name.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "layer2" => Some(Self::Layer2),
            "layer2+3" => Some(Self::Layer23),
            "layer3+4" => Some(Self::Layer34),
            _ => None,
        }
    }

    /// The hash of a packet whose head was read from `bytes`.
    pub fn hash(self, head: &Head, bytes: &[u8]) -> u32 {
        let ([.., to], [.., from]) = (head.destination.0, head.source.0);
        let ethernet = u32::from(to ^ from) ^ u32::from(head.ethertype);
        let Some(flow) = (self != Self::Layer2).then(|| Flow::new(head, bytes)).flatten() else {
            return ethernet;
        };
        let words = |bytes: &[u8]| {
            let words = bytes.chunks_exact(4).filter_map(|word| word.first_chunk());
            words.fold(0, |all, word| all ^ u32::from_le_bytes(*word))
        };
        let fold = |hash: u32| {
            let hash = hash ^ hash >> 16;
            hash ^ hash >> 8
        };
        match self {
            // Ports are often even, or odd.
            Self::Layer34 => fold(words(flow.addresses_and_ports())) >> 1,
            _ => fold(ethernet ^ words(flow.addresses())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    /// A frame of UDP between these, by the last bytes of the Ethernet addresses, of the IP addresses and the ports.
    fn frame(ethernet: [u8; 2], ip: [u8; 2], ports: [u16; 2]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, ethernet[0], 2, 0, 0, 0, 0, ethernet[1], 8, 0];
        frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, ip[0], 10, 0, 0, ip[1]]);
        frame.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
        frame.extend([0, 8, 0, 0]);
        frame.resize(60, 0);
        frame
    }

    fn hash(policy: Policy, frame: &[u8]) -> u32 {
        policy.hash(&Head::parse(frame).unwrap(), frame)
    }

    #[test]
    fn each_policy_looks_at_its_own() {
        use Policy::{Layer2, Layer23, Layer34};
        let one = frame([1, 2], [1, 2], [1000, 80]);
        for (other, differ) in [
            (frame([1, 3], [1, 2], [1000, 80]), [true, true, false]),
            (frame([1, 2], [1, 3], [1000, 80]), [false, true, true]),
            (frame([1, 2], [1, 2], [1002, 80]), [false, false, true]),
        ] {
            assert_eq!([Layer2, Layer23, Layer34].map(|policy| hash(policy, &one) != hash(policy, &other)), differ);
        }
        // A packet of no IP.
        let mut other = one;
        other[12..14].copy_from_slice(&[0x88, 0xb5]);
        assert_eq!([Layer23, Layer34].map(|policy| hash(policy, &other)), [hash(Layer2, &other); 2]);
        assert_eq!(hash(Layer2, &other), 1 ^ 2 ^ 0x88b5);
    }

    #[test]
    fn flows_are_spread() {
        for members in [2, 3, 4] {
            let mut counts = [0; 4];
            for port in (40_000..40_400).step_by(2) {
                counts[hash(Policy::Layer34, &frame([1, 2], [1, 2], [port, 80])) as usize % members] += 1;
            }
            assert!(counts[..members].iter().all(|count| *count >= 120 / members), "{counts:?}");
        }
    }

    /// The formula as the document has it, worked by hand.
    #[test]
    fn as_linux_has_it() {
        let packet = frame([1, 2], [5, 9], [0x1234, 0x0050]);
        // 10.0.0.5 ^ 10.0.0.9, as a little-endian machine holds them; 0x0800 is the kind.
        let addresses: u32 = (5 ^ 9) << 24;
        let mut expected = (1 ^ 2 ^ 0x800) ^ addresses;
        expected ^= expected >> 16;
        expected ^= expected >> 8;
        assert_eq!(hash(Policy::Layer23, &packet), expected);
        let mut expected = addresses ^ u32::from_le_bytes([0x12, 0x34, 0x00, 0x50]);
        expected ^= expected >> 16;
        expected ^= expected >> 8;
        assert_eq!(hash(Policy::Layer34, &packet), expected >> 1);
    }
}
