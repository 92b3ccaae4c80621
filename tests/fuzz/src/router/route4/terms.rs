//! Guests, and what becomes of a frame that comes to a router. Host.

use netdom::ethernet::MacAddress;
use netdom::statistics::DropCause;
use netdom::switch::PortId;
use std::net::Ipv4Addr;

pub(super) const UPLINK: PortId = PortId(1);
pub(super) const LAB: PortId = PortId(2);

/// A guest behind the router.
#[derive(Clone, Copy, Debug)]
pub(super) struct Guest {
    pub(super) port: PortId,
    pub(super) mac: MacAddress,
    /// Twice the same, where it has one.
    pub(super) addresses: [Ipv4Addr; 2],
    /// Besides, it may send from addresses that begin as this one does, in so many bits.
    pub(super) prefix: Option<(Ipv4Addr, u8)>,
    pub(super) translated: bool,
}

impl Guest {
    /// The router's address for it: the first of the 256 around its own, or the last.
    pub(super) fn gateway(&self) -> Ipv4Addr {
        let [a, b, c, d] = self.addresses[0].octets();
        Ipv4Addr::new(a, b, c, if d == 1 { 254 } else { 1 })
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Taken,
    Lost(DropCause),
    /// It is to come again.
    Waits,
    Goes(PortId),
}

/// What the router says besides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Said {
    #[default]
    Nothing,
    /// ARP, from this port.
    Asks { target: Ipv4Addr },
    /// To a station that has this address.
    Has { port: PortId, target: Ipv4Addr, asker: (MacAddress, Ipv4Addr) },
    /// An ICMP error: type, code, and the MTU in it.
    Refuses { port: PortId, kind: (u8, u8), fits: u16 },
    /// DHCP, if anything.
    Dhcp { port: PortId },
}

/// Which sums of a packet are to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sums {
    /// All behind the header is as it was.
    Same,
    /// Of TCP, UDP or an echo, over the whole packet.
    Whole,
    /// Of an ICMP error, and of the packet in it.
    Error,
}

/// The router's Ethernet address where it has this IP address.
pub(super) fn mac_of(address: Ipv4Addr) -> MacAddress {
    let [a, b, c, d] = address.octets();
    MacAddress([2, 0x58, a, b, c, d])
}
