//! Where the headers of a packet lie. Pure. Floor 3.

/// The network protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// IPv4 (RFC 791).
    V4,
    /// IPv6 (RFC 8200).
    V6,
}

/// The transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP (RFC 9293).
    Tcp,
    /// UDP (RFC 768).
    Udp,
}

/// Offsets into a packet that carries TCP or UDP and is not a later fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// IPv4 or IPv6.
    pub network: Network,
    /// TCP or UDP.
    pub transport: Transport,
    /// Bytes before the IP header (14, or more with 802.1Q tags).
    pub network_offset: u16,
    /// Bytes before the TCP or UDP header.
    pub transport_offset: u16,
    /// Bytes before the TCP or UDP payload: the length of all headers.
    pub payload_offset: u16,
}
