//! Which frames a guest may send: with its own addresses, and none that are a router's or a server's to send. Pure. Floor 3.
//!
//! Each frame is judged by its head and its first bytes. A frame whose headers end behind these bytes is refused where IP addresses are checked.

pub mod multicast;
pub mod storm;

use crate::ethernet::MacAddress;
use crate::offload::extensions::Upper;
use crate::offload::head::Head;
use crate::offload::headers::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, PROTOCOL_UDP};
use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use multicast::{IGMP_QUERY, LISTENER_QUERY, PROTOCOL_IGMP};

/// `EtherType` of ARP (RFC 826).
const ETHERTYPE_ARP: u16 = 0x0806;
/// An ARP packet begins so for Ethernet and IPv4: hardware, protocol, and the lengths of their addresses.
const ARP_ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];
/// IP protocol numbers of ICMP (RFC 792) and ICMPv6 (RFC 4443).
const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_ICMPV6: u8 = 58;
/// Ports of DHCP (RFC 2131, 4.1) and of DHCPv6 (RFC 8415, 7.2).
const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;
const DHCPV6_SERVER: u16 = 547;
/// How a client's message of DHCP begins: a request, by Ethernet (RFC 2131, 2); and where its hardware address is.
const DHCP_REQUEST: [u8; 3] = [1, 1, 6];
const DHCP_HARDWARE: usize = 28;
/// Types of ICMP that routers alone send (RFC 792, RFC 1256), beside the questions of IGMP and MLD.
const ICMP_REDIRECT: u8 = 5;
const ICMP_ROUTER_ADVERTISEMENT: u8 = 9;
/// Types of ICMPv6: multicast listener reports (RFC 2710, 3810), and neighbour discovery (RFC 4861, 4).
const LISTENER_REPORT: u8 = 131;
const LISTENER_DONE: u8 = 132;
const LISTENER_REPORT_V2: u8 = 143;
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOR_SOLICITATION: u8 = 135;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
/// Options of neighbour discovery: the link-layer addresses of source and target (RFC 4861, 4.6.1).
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;

/// What is checked of the frames of each guest (`antispoof=` of the command line).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AntiSpoof {
    /// Nothing: a guest may be a bridge.
    Off,
    /// Its Ethernet address, in ARP too.
    #[default]
    Mac,
    /// That, and in neighbour discovery and DHCP; and it is no router and no DHCP server. Only ARP, IPv4 and IPv6 pass.
    Strict,
}

impl AntiSpoof {
    /// From the word's value.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "off" => Some(Self::Off),
            "mac" => Some(Self::Mac),
            "strict" => Some(Self::Strict),
            _ => None,
        }
    }
}

/// The IP addresses that begin with the first `length` bits of this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().ok()?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let length = length.map_or(Some(bits), |length| length.parse().ok().filter(|length| *length <= bits))?;
        Some(Self { address, length })
    }

    fn contains(&self, address: IpAddr) -> bool {
        let (own, other, bits) = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => (own.to_bits().into(), other.to_bits().into(), 32),
            (IpAddr::V6(own), IpAddr::V6(other)) => (own.to_bits(), other.to_bits(), 128),
            _ => return false,
        };
        u128::checked_shr(own ^ other, bits - u32::from(self.length)).unwrap_or(0) == 0
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, length } = self;
        if *length == if address.is_ipv4() { 32 } else { 128 } {
            write!(formatter, "{address}")
        } else {
            write!(formatter, "{address}/{length}")
        }
    }
}

/// The IP addresses that a guest may use (`ip=` of its vif).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(Vec<Prefix>);

impl Addresses {
    /// Reads addresses and prefixes, separated by spaces or commas. `None` where there is none, or a word is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let words = text.split([' ', ',']).filter(|word| !word.is_empty());
        let prefixes: Vec<_> = words.map(Prefix::parse).collect::<Option<_>>()?;
        (!prefixes.is_empty()).then_some(Self(prefixes))
    }

    /// The single addresses of IPv4 among them, in their order.
    pub fn ipv4(&self) -> impl Iterator<Item = Ipv4Addr> {
        self.0.iter().filter_map(|prefix| match prefix.address {
            IpAddr::V4(address) if prefix.length == 32 => Some(address),
            _ => None,
        })
    }

    /// The same of IPv6.
    pub fn ipv6(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.0.iter().filter_map(|prefix| match prefix.address {
            IpAddr::V6(address) if prefix.length == 128 => Some(address),
            _ => None,
        })
    }

    fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|prefix| prefix.contains(address))
    }

    fn has_v6(&self) -> bool {
        self.0.iter().any(|prefix| prefix.address.is_ipv6())
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, prefix) in self.0.iter().enumerate() {
            let separator = if place > 0 { ", " } else { "" };
            write!(formatter, "{separator}{prefix}")?;
        }
        Ok(())
    }
}

/// Judges the frames that a guest sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    level: AntiSpoof,
    mac: MacAddress,
    addresses: Option<Addresses>,
}

impl Guard {
    /// Makes the guard of a guest with this Ethernet address. A guest whose IP addresses are given is checked strictly, and may use no others.
    pub fn new(level: AntiSpoof, mac: MacAddress, addresses: Option<Addresses>) -> Self {
        let level = if addresses.is_some() { AntiSpoof::Strict } else { level };
        Self { level, mac, addresses }
    }

    /// Whether nothing is checked: the guest may be a bridge or a router.
    pub fn is_off(&self) -> bool {
        self.level == AntiSpoof::Off
    }

    /// The IP addresses that the guest may use; `None` where it may use any.
    pub const fn addresses(&self) -> Option<&Addresses> {
        self.addresses.as_ref()
    }

    /// Whether a frame with this head and these first bytes may pass.
    pub fn permits(&self, head: &Head, bytes: &[u8]) -> bool {
        if self.level == AntiSpoof::Off {
            return true;
        }
        if head.source != self.mac {
            return false;
        }
        let packet = bytes.get(head.tags.network_offset()..).unwrap_or_default();
        match head.ethertype {
            ETHERTYPE_ARP => self.permits_arp(packet),
            _ if self.level == AntiSpoof::Mac => true,
            ETHERTYPE_IPV4 => self.permits_ipv4(packet),
            ETHERTYPE_IPV6 => self.permits_ipv6(packet),
            _ => false,
        }
    }

    fn permits_arp(&self, packet: &[u8]) -> bool {
        let Some(
            &[
                h0,
                h1,
                p0,
                p1,
                hardware,
                protocol,
                _,
                _,
                a,
                b,
                c,
                d,
                e,
                f,
                s0,
                s1,
                s2,
                s3,
                _,
                _,
                _,
                _,
                _,
                _,
                t0,
                t1,
                t2,
                t3,
            ],
        ) = packet.first_chunk()
        else {
            return false;
        };
        let (sender, target) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(t0, t1, t2, t3));
        // Who asks whether an address is free has none yet, and takes it from whoever is about to have it (RFC 5227, 2.1.1).
        let claimed = if sender.is_unspecified() { target } else { sender };
        [h0, h1, p0, p1, hardware, protocol] == ARP_ETHERNET_IPV4
            && MacAddress([a, b, c, d, e, f]) == self.mac
            && self.may_use(claimed.into())
    }

    fn permits_ipv4(&self, packet: &[u8]) -> bool {
        let Some(header) = packet.first_chunk::<20>() else {
            return false;
        };
        let length = usize::from(header[0] & 0xf) * 4;
        if header[0] >> 4 != 4 || length < header.len() {
            return false;
        }
        let source = Ipv4Addr::new(header[12], header[13], header[14], header[15]);
        let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff;
        let is_first = fragment & 0x1fff == 0;
        let permitted = match header[9] {
            PROTOCOL_ICMP if is_first => {
                !matches!(packet.get(length), None | Some(&(ICMP_REDIRECT | ICMP_ROUTER_ADVERTISEMENT)))
            }
            PROTOCOL_IGMP if is_first => !matches!(packet.get(length), None | Some(&IGMP_QUERY)),
            PROTOCOL_UDP if is_first => match ports(packet, length) {
                None | Some((DHCP_SERVER, _)) => false,
                // Nobody cuts these into fragments.
                Some((_, DHCP_SERVER)) if fragment != 0 || !self.asks_for_itself(packet, length + 8) => false,
                Some((DHCP_CLIENT, DHCP_SERVER)) if source.is_unspecified() => return true,
                Some(_) => true,
            },
            _ => true,
        };
        permitted && self.may_use(source.into())
    }

    /// Whether a message of DHCP is a client's, and for the guest's own Ethernet address: that of another could get or end another's lease.
    fn asks_for_itself(&self, packet: &[u8], offset: usize) -> bool {
        let message = packet.get(offset..).unwrap_or_default();
        let hardware = message.get(DHCP_HARDWARE..).and_then(<[u8]>::first_chunk);
        message.starts_with(&DHCP_REQUEST) && hardware == Some(&self.mac.0)
    }

    fn permits_ipv6(&self, packet: &[u8]) -> bool {
        let Some(header) = packet.first_chunk::<40>() else {
            return false;
        };
        let Some(source) = address(packet, 8).filter(|_| header[0] >> 4 == 6) else {
            return false;
        };
        let Some(upper) = Upper::find(packet, header[6]) else {
            return false;
        };
        let end = header.len() + usize::from(u16::from_be_bytes([header[4], header[5]]));
        match upper {
            Upper { is_first: false, .. } => self.may_use_v6(source),
            Upper { protocol: PROTOCOL_UDP, offset, .. } => {
                ports(packet, offset).is_some_and(|(from, _)| from != DHCPV6_SERVER) && self.may_use_v6(source)
            }
            Upper { protocol: PROTOCOL_ICMPV6, offset, is_fragment, .. } => {
                self.permits_icmpv6(packet, source, offset, end, is_fragment)
            }
            Upper { .. } => self.may_use_v6(source),
        }
    }

    fn permits_icmpv6(&self, packet: &[u8], source: Ipv6Addr, offset: usize, end: usize, is_fragment: bool) -> bool {
        let Some(&kind) = packet.get(offset) else {
            return false;
        };
        let has_v6 = || self.addresses.as_ref().is_none_or(Addresses::has_v6);
        let target = || address(packet, offset + 8).is_some_and(|target| self.may_use_v6(target));
        let (options, permitted) = match kind {
            ROUTER_ADVERTISEMENT | REDIRECT | LISTENER_QUERY => return false,
            LISTENER_REPORT | LISTENER_DONE | LISTENER_REPORT_V2 if source.is_unspecified() => return has_v6(),
            ROUTER_SOLICITATION if source.is_unspecified() => (8, has_v6()),
            ROUTER_SOLICITATION => (8, self.may_use_v6(source)),
            // Who asks whether an address is free takes it from whoever is about to have it (RFC 4862, 5.4.3).
            NEIGHBOR_SOLICITATION if source.is_unspecified() => (24, target()),
            NEIGHBOR_SOLICITATION => (24, self.may_use_v6(source)),
            NEIGHBOR_ADVERTISEMENT => (24, self.may_use_v6(source) && target()),
            _ => return self.may_use_v6(source),
        };
        // A node drops fragments of neighbour discovery (RFC 6980, 5).
        permitted && !is_fragment && packet.get(offset + options..end).is_some_and(|options| self.owns_all(options))
    }

    /// Whether all link-layer addresses among the options of neighbour discovery are the guest's.
    fn owns_all(&self, mut options: &[u8]) -> bool {
        while let [kind, length, rest @ ..] = options {
            let bytes = usize::from(*length) * 8;
            let Some((_, behind)) = options.split_at_checked(bytes).filter(|_| bytes != 0) else {
                return false;
            };
            if matches!(*kind, SOURCE_ADDRESS | TARGET_ADDRESS) && rest.first_chunk() != Some(&self.mac.0) {
                return false;
            }
            options = behind;
        }
        options.is_empty()
    }

    fn may_use(&self, address: IpAddr) -> bool {
        self.addresses.as_ref().is_none_or(|addresses| addresses.contain(address))
    }

    /// Where it may use an address of IPv6, a guest may use the link-local one of its Ethernet address besides. Any other could be the gateway's.
    fn may_use_v6(&self, address: Ipv6Addr) -> bool {
        self.may_use(address.into())
            || address == self.mac.link_local() && self.addresses.as_ref().is_some_and(Addresses::has_v6)
    }
}

/// The ports of UDP, from and to.
fn ports(packet: &[u8], offset: usize) -> Option<(u16, u16)> {
    let &[a, b, c, d] = packet.get(offset..)?.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

/// An IPv6 address.
fn address(packet: &[u8], offset: usize) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(*packet.get(offset..)?.first_chunk::<16>()?))
}

#[cfg(test)]
mod tests;
