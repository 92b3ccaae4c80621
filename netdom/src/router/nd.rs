//! Neighbour discovery (RFC 4861): messages that are read, and those that the router sends. Pure. Floor 3.
//!
//! No message counts that came from beyond the link (a hop limit below 255), that has an option of length zero, or whose checksum is wrong.

use super::ipv4::START;
use super::ipv6::{ALL_NODES, HEADER, Header, ICMPV6, sum, write};
use super::set_stations;
use crate::ethernet::MacAddress;
use core::net::Ipv6Addr;

/// Types of ICMPv6.
const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
/// Options.
const SOURCE: u8 = 1;
const TARGET: u8 = 2;
const MTU: u8 = 5;
/// Flags of an advertisement: it comes from a router, answers a solicitation, and stands above what is known.
const IS_ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;
/// Hops of all messages.
const HOPS: u8 = 255;
/// Hops of a guest's packets, which it is told.
const GUEST_HOPS: u8 = 64;

/// What a message says that counts for this router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    /// A host looks for routers.
    RouterSolicitation,
    /// A station asks for the Ethernet address of another, and says its own.
    Solicitation { target: Ipv6Addr, mac: Option<MacAddress> },
    /// A station says its Ethernet address.
    Advertisement { target: Ipv6Addr, mac: Option<MacAddress> },
}

/// Whether a packet is a message, which is of its link alone.
pub(super) fn is_message(bytes: &[u8], header: &Header) -> bool {
    let kind = bytes.get(START + HEADER);
    header.next == ICMPV6 && kind.is_some_and(|kind| (ROUTER_SOLICITATION..=REDIRECT).contains(kind))
}

/// The group of an address whose members are asked for it (RFC 4291, 2.7.1).
pub(super) const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | a as u16, (b as u16) << 8 | c as u16)
}

/// The Ethernet address of a group (RFC 2464, 7).
const fn group_mac(group: Ipv6Addr) -> MacAddress {
    let [.., a, b, c, d] = group.octets();
    MacAddress([0x33, 0x33, a, b, c, d])
}

impl Message {
    /// The message of a packet, where it is one that counts (RFC 4861, 6.1 and 7.1).
    pub(super) fn parse(bytes: &[u8], header: &Header) -> Option<Self> {
        let message = bytes.get(START + HEADER..START + header.total)?;
        let &[kind, code, _, _, flags, ..] = message else {
            return None;
        };
        let whole = sum(header.source, header.destination, message).folded() == 0xffff;
        if header.hops != HOPS || code != 0 || !whole {
            return None;
        }
        let is_unspecified = header.source.is_unspecified();
        if kind == ROUTER_SOLICITATION {
            let mac = station(message.get(8..)?, SOURCE)?;
            return (!is_unspecified || mac.is_none()).then_some(Self::RouterSolicitation);
        }
        let target = message.get(8..)?.first_chunk::<16>().copied().map(Ipv6Addr::from_octets)?;
        let options = message.get(24..)?;
        match kind {
            _ if target.is_multicast() => None,
            SOLICITATION => {
                let mac = station(options, SOURCE)?;
                let is_probe = mac.is_none() && header.destination == solicited_node(target);
                (!is_unspecified || is_probe).then_some(Self::Solicitation { target, mac })
            }
            ADVERTISEMENT => {
                let mac = station(options, TARGET)?;
                let is_right = !is_unspecified && (flags & SOLICITED == 0 || !header.destination.is_multicast());
                is_right.then_some(Self::Advertisement { target, mac })
            }
            _ => None,
        }
    }
}

/// The Ethernet address in an option of this kind, if there is one. `None` where the options are not what they say.
fn station(mut options: &[u8], kind: u8) -> Option<Option<MacAddress>> {
    let mut found = None;
    while let &[code, units, ref rest @ ..] = options {
        let (_, behind) = options.split_at_checked(usize::from(units) * 8).filter(|_| units != 0)?;
        if code == kind && units == 1 {
            found = rest.first_chunk().copied().map(MacAddress);
        }
        options = behind;
    }
    options.is_empty().then_some(found)
}

/// Writes a question for the Ethernet address of a station. How long the frame is.
pub(super) fn ask(out: &mut [u8], mac: MacAddress, source: Ipv6Addr, target: Ipv6Addr) -> Option<usize> {
    let group = solicited_node(target);
    let parts: [&[u8]; 4] = [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0], &target.octets(), &[SOURCE, 1], &mac.0];
    let length = write(out, (source, group), HOPS, &parts)?;
    set_stations(out, group_mac(group), mac).then_some(length)
}

/// An answer about a target.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    /// The station that asked, and its address, which may have none yet.
    pub(super) to: (MacAddress, Ipv6Addr),
    /// The router.
    pub(super) from: (MacAddress, Ipv6Addr),
    /// The address that is the router's, or behind it.
    pub(super) target: Ipv6Addr,
    /// It is its own: an answer for another (RFC 4861, 7.2.8) leaves a station's own word.
    pub(super) is_own: bool,
}

impl Answer {
    /// Writes it. How long the frame is.
    pub(super) fn write(&self, out: &mut [u8]) -> Option<usize> {
        let ((to, asker), (mac, source)) = (self.to, self.from);
        let (destination, solicited) = if asker.is_unspecified() { (ALL_NODES, 0) } else { (asker, SOLICITED) };
        let to = if asker.is_unspecified() { group_mac(ALL_NODES) } else { to };
        let flags = IS_ROUTER | solicited | if self.is_own { OVERRIDE } else { 0 };
        let head = [ADVERTISEMENT, 0, 0, 0, flags, 0, 0, 0];
        let parts: [&[u8]; 4] = [&head, &self.target.octets(), &[TARGET, 1], &mac.0];
        let length = write(out, (source, destination), HOPS, &parts)?;
        set_stations(out, to, mac).then_some(length)
    }
}

/// What hosts are told of a router.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advertisement {
    /// The host's Ethernet address: a group's message may go to its one member (RFC 6085).
    pub(super) to: MacAddress,
    /// Its address, or that of all.
    pub(super) destination: Ipv6Addr,
    /// The router, and its link-local address.
    pub(super) from: (MacAddress, Ipv6Addr),
    /// For how many seconds it is there; 0 where it leads nowhere.
    pub(super) lifetime: u16,
    /// Bytes of a packet at most.
    pub(super) mtu: u16,
}

impl Advertisement {
    /// Writes it, without a prefix: hosts make no address of their own. How long the frame is.
    pub(super) fn write(&self, out: &mut [u8]) -> Option<usize> {
        let ((mac, source), [high, low], [mtu_high, mtu_low]) =
            (self.from, self.lifetime.to_be_bytes(), self.mtu.to_be_bytes());
        let parts: [&[u8]; 4] = [
            &[ROUTER_ADVERTISEMENT, 0, 0, 0, GUEST_HOPS, 0, high, low, 0, 0, 0, 0, 0, 0, 0, 0],
            &[SOURCE, 1],
            &mac.0,
            &[MTU, 1, 0, 0, 0, 0, mtu_high, mtu_low],
        ];
        let length = write(out, (source, self.destination), HOPS, &parts)?;
        set_stations(out, self.to, mac).then_some(length)
    }
}
