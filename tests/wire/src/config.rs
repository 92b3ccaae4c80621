//! What a wire is to be: its sockets, its addresses, its services. Pure.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::dhcp::{DhcpConfig, Mac};

/// How the wire's TCP slows down when segments are lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// Not at all: the receiver's window alone counts.
    None,
    /// RFC 5681.
    Reno,
    /// RFC 9438, what Linux has by default.
    #[default]
    Cubic,
}

/// Everything about a wire.
#[derive(Clone, Debug)]
pub struct Config {
    /// Unix sockets to listen on, one for each NIC on this segment. Several are joined by a learning switch.
    pub ports: Vec<PathBuf>,
    /// The MAC of the peer on the wire.
    pub mac: Mac,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Length of the network's prefix.
    pub prefix: u8,
    /// Its IPv6 addresses and their prefixes' lengths; three at most.
    pub ipv6: Vec<(Ipv6Addr, u8)>,
    /// Largest IP packet that the peer sends, and takes by TCP.
    pub mtu: usize,
    /// The DHCP server, if there is to be one.
    pub dhcp: Option<DhcpConfig>,
    /// Bytes of buffer for each direction of a TCP connection.
    pub tcp_buffer: usize,
    /// Reaction of TCP to loss.
    pub congestion: Congestion,
    /// A TCP client that says nothing for so long is gone.
    pub tcp_timeout: Duration,
    /// How many frames to remember for [`crate::Wire::captured`]; 0 turns it off.
    pub capture: usize,
}

impl Config {
    /// A wire with one NIC at `port`, on network number `subnet`: the peer is `10.(9 + subnet).0.1/16`,
    /// `fd09:(subnet)::1/64` and `fe80::1/64`, and the DHCP pool starts at `10.(9 + subnet).1.1`.
    pub fn new(port: impl Into<PathBuf>, subnet: u8) -> Self {
        let second = subnet.saturating_add(9);
        Self {
            ports: vec![port.into()],
            mac: [0x02, 0x6f, 0x78, 0x00, subnet, 0x01],
            ipv4: Ipv4Addr::new(10, second, 0, 1),
            prefix: 16,
            ipv6: vec![
                (Ipv6Addr::new(0xfd09, u16::from(subnet), 0, 0, 0, 0, 0, 1), 64),
                (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1), 64),
            ],
            mtu: 1500,
            dhcp: Some(DhcpConfig {
                first: Ipv4Addr::new(10, second, 1, 1),
                count: 1000,
                fixed: BTreeMap::new(),
                lease_seconds: 86_400,
                announce_mtu: false,
            }),
            tcp_buffer: 2 << 20,
            congestion: Congestion::default(),
            tcp_timeout: Duration::from_secs(90),
            capture: 0,
        }
    }
}
