//! What the router is told: its networks, its own address, and the ports that it passes on. Pure. Floor 3.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::{Ipv4Addr, Ipv6Addr};

/// An IPv4 address in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The address, or the network's own.
    pub address: Ipv4Addr,
    /// Bits of the network, 1 to 30.
    pub length: u8,
}

impl Network {
    /// That of a port that has no address yet.
    pub(super) const NONE: Self = Self { address: Ipv4Addr::UNSPECIFIED, length: 30 };

    /// From `ADDRESS/LENGTH`. A network has two hosts at least.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let length = length.parse().ok().filter(|length| (1..=30).contains(length))?;
        Some(Self { address: address.parse().ok()?, length })
    }

    /// The bits that all its addresses share.
    pub const fn mask(self) -> u32 {
        !(u32::MAX >> self.length)
    }

    /// The lowest address, which is no host's.
    pub const fn base(self) -> u32 {
        self.address.to_bits() & self.mask()
    }

    /// The address of all its hosts.
    pub const fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base() | !self.mask())
    }

    /// Whether an address is of the network.
    pub const fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask() == self.base()
    }

    /// Whether an address may be a host's.
    pub fn is_host(self, address: Ipv4Addr) -> bool {
        self.contains(address) && address.to_bits() != self.base() && address != self.broadcast()
    }

    /// The first host.
    pub const fn first(self) -> Self {
        Self { address: Ipv4Addr::from_bits(self.base() | 1), length: self.length }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.length)
    }
}

/// An IPv6 address in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkV6 {
    /// The address, a station's that is routed.
    pub address: Ipv6Addr,
    /// Bits of the network, 1 to 128.
    pub length: u8,
}

impl NetworkV6 {
    /// From `ADDRESS/LENGTH`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/')?;
        let length = length.parse().ok().filter(|length| (1..=128).contains(length))?;
        let address = address.parse().ok().filter(|address| is_routable(*address))?;
        Some(Self { address, length })
    }

    /// Whether an address is of the network.
    pub fn contains(self, address: Ipv6Addr) -> bool {
        let differing = self.address.to_bits() ^ address.to_bits();
        differing.checked_shr(128 - u32::from(self.length)).is_none_or(|differing| differing == 0)
    }
}

impl fmt::Display for NetworkV6 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.length)
    }
}

/// Whether an address of IPv6 is one station's, and passes routers (RFC 4291, 2.5).
pub const fn is_routable(address: Ipv6Addr) -> bool {
    !address.is_multicast() && !address.is_unspecified() && !address.is_loopback() && !address.is_unicast_link_local()
}

/// A bridge on which the router is the DHCP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Internal {
    /// The bridge.
    pub bridge: String,
    /// The router's address there, the first of the network.
    pub network: Network,
}

/// The way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// The bridge.
    pub bridge: String,
    /// The router's address there; `None` where DHCP says it, and the gateway.
    pub network: Option<Network>,
    /// The router that all other networks are behind.
    pub gateway: Option<Ipv4Addr>,
    /// The same for IPv6, where it is routed.
    pub v6: Option<UplinkV6>,
}

/// The way out of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UplinkV6 {
    /// The router's address there.
    pub network: NetworkV6,
    /// The router that all other networks are behind: of the network, or link-local.
    pub gateway: Option<Ipv6Addr>,
}

/// A protocol whose ports are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// The echo of ICMP, whose identifier is as a port.
    Echo,
}

impl Protocol {
    /// Its name on the command line, where it has one.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            _ => None,
        }
    }
}

/// A port of the router's own address that is a guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarding {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The port of the router's own address.
    pub port: u16,
    /// The guest behind NAT.
    pub guest: Ipv4Addr,
    /// The guest's port.
    pub guest_port: u16,
}

impl Forwarding {
    /// From `PROTO:PORT:GUEST[:PORT]`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let protocol = Protocol::parse(parts.next()?)?;
        let number = |text: &str| text.parse().ok().filter(|port| *port != 0);
        let port = number(parts.next()?)?;
        let guest = parts.next()?.parse().ok()?;
        let guest_port = parts.next().map_or(Some(port), number)?;
        parts.next().is_none().then_some(Self { protocol, port, guest, guest_port })
    }
}

/// All that the router is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// The way out, where there is one.
    pub uplink: Option<Uplink>,
    /// Bridges without a NIC.
    pub internals: Vec<Internal>,
    /// Name servers that guests are told of.
    pub dns: Vec<Ipv4Addr>,
    /// Ports that are guests'.
    pub forwardings: Vec<Forwarding>,
}

impl Setup {
    /// Whether there is nothing to be done.
    pub fn is_empty(&self) -> bool {
        self.uplink.is_none() && self.internals.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        let network = Network::parse("10.0.7.9/24").unwrap();
        assert_eq!(network.first().address, Ipv4Addr::new(10, 0, 7, 1));
        assert_eq!(network.broadcast(), Ipv4Addr::new(10, 0, 7, 255));
        for (last, host) in [(0, false), (1, true), (254, true), (255, false)] {
            assert_eq!(network.is_host(Ipv4Addr::new(10, 0, 7, last)), host, "{last}");
        }
        assert!(!network.contains(Ipv4Addr::new(10, 0, 8, 1)));
        for wrong in
            ["", "10.0.7.0", "10.0.7.0/", "10.0.7.0/31", "10.0.7.0/0", "10.0.7/24", "fd00::/64", "10.0.7.0/24/1"]
        {
            assert_eq!(Network::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn networks_of_ipv6() {
        let network = NetworkV6::parse("2001:db8::5/64").unwrap();
        let within = |text: &str| network.contains(text.parse().unwrap());
        assert!(within("2001:db8::") && within("2001:db8::ffff:1") && !within("2001:db8:0:1::5") && !within("fe80::5"));
        let one = NetworkV6::parse("2001:db8::5/128").unwrap();
        assert!(one.contains(one.address) && !one.contains(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 4)));
        for wrong in [
            "",
            "2001:db8::5",
            "2001:db8::5/0",
            "2001:db8::5/129",
            "fe80::5/64",
            "ff02::1/64",
            "::/64",
            "::1/64",
            "10.0.0.5/24",
        ] {
            assert_eq!(NetworkV6::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn forwardings() {
        let guest = Ipv4Addr::new(10, 0, 0, 2);
        let whole = Forwarding { protocol: Protocol::Tcp, port: 8080, guest, guest_port: 80 };
        assert_eq!(Forwarding::parse("tcp:8080:10.0.0.2:80"), Some(whole));
        let short = Forwarding { protocol: Protocol::Udp, port: 53, guest, guest_port: 53 };
        assert_eq!(Forwarding::parse("udp:53:10.0.0.2"), Some(short));
        for wrong in [
            "",
            "tcp",
            "tcp:80",
            "icmp:1:10.0.0.2",
            "tcp:0:10.0.0.2",
            "tcp:80:web",
            "tcp:80:10.0.0.2:0",
            "tcp:80:10.0.0.2:80:1",
        ] {
            assert_eq!(Forwarding::parse(wrong), None, "{wrong}");
        }
    }
}
