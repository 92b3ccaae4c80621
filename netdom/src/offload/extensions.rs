//! The header behind those of IPv6, wherever it is (RFC 8200, 4). Pure. Floor 3.

/// Next headers of options, of a route and of a fragment (RFC 8200, 4).
pub const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;
/// IPv6 extension headers looked behind.
const MAX_EXTENSIONS: usize = 8;

/// The header behind those of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upper {
    /// Its protocol.
    pub protocol: u8,
    /// Where it is in the packet.
    pub offset: usize,
    /// The packet is a fragment.
    pub is_fragment: bool,
    /// It is here, not in an earlier fragment.
    pub is_first: bool,
}

impl Upper {
    /// In a packet whose IPv6 header names this protocol. `None` where it lies behind the bytes at hand, or behind too many others.
    pub fn find(packet: &[u8], mut protocol: u8) -> Option<Self> {
        let (mut offset, mut is_fragment) = (40, false);
        for _ in 0..MAX_EXTENSIONS {
            if !matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION) {
                return Some(Self { protocol, offset, is_fragment, is_first: true });
            }
            let &[next, length, high, low] = packet.get(offset..)?.first_chunk()?;
            if protocol == FRAGMENT {
                is_fragment = true;
                if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                    return Some(Self { protocol: next, offset: offset + 8, is_fragment, is_first: false });
                }
                offset += 8;
            } else {
                offset += usize::from(length) * 8 + 8;
            }
            protocol = next;
        }
        None
    }
}
