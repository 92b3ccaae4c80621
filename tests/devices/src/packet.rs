//! Headers of a received frame, as far as a NIC looks: type, checksums, and input of the RSS hash. Pure.

use crate::checksum::{half, sum};

/// Network layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4, with or without options.
    V4 {
        /// There are options.
        options: bool,
        /// The header's checksum is right.
        valid: bool,
    },
    /// IPv6, with or without extension headers.
    V6 {
        /// There are extension headers.
        extensions: bool,
    },
}

/// Transport layer of a packet that is no fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP, and whether the checksum is right.
    Tcp(bool),
    /// UDP, and whether the checksum is right; `None` where it has none.
    Udp(Option<bool>),
    /// SCTP.
    Sctp,
}

/// What a frame holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Headers {
    /// The tag of a VLAN, 802.1Q.
    pub vlan: Option<u16>,
    /// The EtherType behind the tag.
    pub ether_type: u16,
    /// IP.
    pub network: Option<Network>,
    /// What IP carries.
    pub transport: Option<Transport>,
    /// Source and destination address, one behind the other.
    pub addresses: Vec<u8>,
    /// Source and destination port.
    pub ports: Option<[u8; 4]>,
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86DD;

impl Headers {
    /// Reads a frame; a tag is one of type `vlan`.
    pub fn parse(frame: &[u8], vlan: u16) -> Self {
        let mut headers = Self::default();
        let Some(mut kind) = half(frame, 12) else { return headers };
        let mut at = 14;
        if kind == vlan {
            headers.vlan = half(frame, 14);
            kind = half(frame, 16).unwrap_or(0);
            at = 18;
        }
        headers.ether_type = kind;
        let packet = frame.get(at..).unwrap_or_default();
        match kind {
            IPV4 => headers.ipv4(packet),
            IPV6 => headers.ipv6(packet),
            _ => None,
        };
        headers
    }

    fn ipv4(&mut self, packet: &[u8]) -> Option<()> {
        let length = (usize::from(*packet.first()?) & 0xF) * 4;
        let header =
            packet.get(..length).filter(|_| packet.first().is_some_and(|byte| byte >> 4 == 4) && length >= 20)?;
        self.network = Some(Network::V4 { options: length > 20, valid: sum(header, 0) == 0xFFFF });
        self.addresses = header.get(12..20)?.to_vec();
        let total = usize::from(half(header, 2)?);
        // More fragments, or an offset.
        if half(header, 6)? & 0x3FFF != 0 {
            return None;
        }
        self.transport(*header.get(9)?, packet.get(length..total)?)
    }

    fn ipv6(&mut self, packet: &[u8]) -> Option<()> {
        let header = packet.get(..40).filter(|header| header.first().is_some_and(|byte| byte >> 4 == 6))?;
        self.network = Some(Network::V6 { extensions: false });
        self.addresses = header.get(8..40)?.to_vec();
        let mut payload = packet.get(40..40 + usize::from(half(header, 4)?))?;
        let mut next = *header.get(6)?;
        loop {
            let length = match next {
                // Hop-by-hop, routing, destination options: RFC 8200 4.
                0 | 43 | 60 => 8 + 8 * usize::from(*payload.get(1)?),
                44 => {
                    self.network = Some(Network::V6 { extensions: true });
                    return None;
                }
                _ => return self.transport(next, payload),
            };
            self.network = Some(Network::V6 { extensions: true });
            next = *payload.first()?;
            payload = payload.get(length..)?;
        }
    }

    fn transport(&mut self, protocol: u8, segment: &[u8]) -> Option<()> {
        let pseudo = sum(&self.addresses, sum(&[0, protocol], 0));
        let valid = |bytes: &[u8]| sum(bytes, sum(&(bytes.len() as u32).to_be_bytes(), pseudo)) == 0xFFFF;
        let found = match protocol {
            6 if segment.len() >= 20 => Transport::Tcp(valid(segment)),
            17 => {
                let datagram = segment.get(..usize::from(half(segment, 4)?)).filter(|datagram| datagram.len() >= 8)?;
                Transport::Udp((half(datagram, 6)? != 0).then(|| valid(datagram)))
            }
            132 if segment.len() >= 12 => Transport::Sctp,
            _ => return None,
        };
        self.transport = Some(found);
        self.ports = segment.first_chunk().copied();
        Some(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
