//! What tells the packets of one flow from others: addresses and ports, in the order in which hashes are over them. Pure. Floor 3.

use super::head::{HEAD_BYTES, Head};
use super::headers::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Network, Transport};

/// The most bytes that tell a flow: two IPv6 addresses and two ports.
pub const FLOW_BYTES: usize = 36;

/// The flow of an IP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Source, destination, source port, destination port as they are in the packet; zeros behind.
    bytes: [u8; FLOW_BYTES],
    /// IPv4 or IPv6.
    pub network: Network,
    /// TCP or UDP; `None` for all else and for fragments, of which only the first has the ports.
    pub transport: Option<Transport>,
    /// Whether an 802.1Q or 802.1ad tag stands before the IP header.
    pub tagged: bool,
}

impl Flow {
    /// The flow of a packet with this head, which was parsed from `bytes`; `None` where it is no IP packet's. Of a flow's packets the same
    /// bytes are looked at, however much of each is at hand, so that they all look alike.
    pub fn new(head: &Head, bytes: &[u8]) -> Option<Self> {
        let offset = head.tags.network_offset();
        let (network, addresses) = match head.ethertype {
            ETHERTYPE_IPV4 => (Network::V4, bytes.get(offset + 12..offset + 20)?),
            ETHERTYPE_IPV6 => (Network::V6, bytes.get(offset + 8..offset + 40)?),
            _ => return None,
        };
        let mut flow = Self { bytes: [0; FLOW_BYTES], network, transport: None, tagged: !head.tags.is_empty() };
        flow.bytes.get_mut(..addresses.len())?.copy_from_slice(addresses);
        if let Some(layout) = head.layout.filter(|layout| usize::from(layout.payload_offset) <= HEAD_BYTES) {
            let place = usize::from(layout.transport_offset);
            flow.bytes.get_mut(addresses.len()..addresses.len() + 4)?.copy_from_slice(bytes.get(place..place + 4)?);
            flow.transport = Some(layout.transport);
        }
        Some(flow)
    }

    /// Source and destination address: 8 bytes or 32.
    pub fn addresses(&self) -> &[u8] {
        let length = match self.network {
            Network::V4 => 8,
            Network::V6 => 32,
        };
        self.bytes.get(..length).unwrap_or_default()
    }

    /// The same with both ports behind: 12 bytes or 36. The ports are zero where the transport is not known.
    pub fn addresses_and_ports(&self) -> &[u8] {
        let length = self.addresses().len() + 4;
        self.bytes.get(..length).unwrap_or_default()
    }

    /// All of it as words, for the keyed hash.
    pub(crate) fn words(&self) -> impl Iterator<Item = u64> {
        let kind = self.transport.map_or(0, |transport| u64::from(transport.protocol()));
        let bytes = self.addresses_and_ports().chunks(8).map(|chunk| {
            let mut word = [0; 8];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            u64::from_le_bytes(word)
        });
        bytes.chain([kind])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn flow(bytes: &[u8]) -> Option<Flow> {
        Flow::new(&Head::parse(bytes)?, bytes)
    }

    fn v4(protocol: u8, fragment: u16, tag: bool) -> Vec<u8> {
        let mut frame = Vec::from([0; 12]);
        if tag {
            frame.extend([0x81, 0, 0, 7]);
        }
        frame.extend([0x08, 0x00, 0x45, 0, 0, 0, 0, 0]);
        frame.extend(fragment.to_be_bytes());
        frame.extend([
            64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, 0x12, 0x34, 0x56, 0x78, 0, 0, 0, 0, 0, 0, 0, 0, 0x50,
        ]);
        frame.resize(100, 0);
        frame
    }

    #[test]
    fn ports_where_they_are() {
        let addresses = [10, 0, 0, 1, 10, 0, 0, 2];
        let with_ports = [&addresses[..], &[0x12, 0x34, 0x56, 0x78]].concat();
        for (protocol, fragment, tag, transport) in [
            (6, 0, false, Some(Transport::Tcp)),
            (6, 0x4000, true, Some(Transport::Tcp)),
            (17, 0, false, Some(Transport::Udp)),
            (1, 0, false, None),
            // The first fragment and a later one go together.
            (17, 0x2000, false, None),
            (17, 0x0001, false, None),
        ] {
            let flow = flow(&v4(protocol, fragment, tag)).unwrap();
            assert_eq!((flow.network, flow.transport, flow.tagged), (Network::V4, transport, tag));
            assert_eq!(flow.addresses(), addresses);
            let expected = if transport.is_some() { with_ports.clone() } else { [&addresses[..], &[0; 4]].concat() };
            assert_eq!(flow.addresses_and_ports(), expected);
        }
    }

    #[test]
    fn version_6() {
        let mut frame = Vec::from([0; 12]);
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 20, 6, 64]);
        frame.extend((0..32).chain([1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0]));
        let whole = flow(&frame).unwrap();
        assert_eq!((whole.network, whole.transport), (Network::V6, Some(Transport::Tcp)));
        assert!(whole.addresses_and_ports().iter().copied().eq((0..32).chain(1..5)));
        assert_eq!(flow(&frame[..53]), None);
        assert_eq!(flow(&frame[..60]).unwrap().transport, None);
    }

    #[test]
    fn what_is_no_ip_has_no_flow() {
        for ether_type in [0x0806_u16, 0x88cc, 0x9000] {
            let mut frame = Vec::from([0; 100]);
            frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
            assert_eq!(flow(&frame), None);
        }
        for length in 0..34 {
            assert_eq!(flow(&v4(6, 0, false)[..length]), None);
        }
    }
}
