//! Round trips of a guest while its neighbour floods the driver domain with frames of one kind, each of which may make it remember something. Host.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use lab::Guest;

use super::topology::Topology;
use crate::traffic::{self, Ping, Shell};

/// What a neighbour floods with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flood {
    /// Frames from ever new Ethernet addresses.
    Addresses,
    /// ARP requests for ever new IP addresses.
    Arp,
    /// Reports of IGMPv2 about ever new groups.
    Groups,
    /// Messages of DHCP from ever new clients.
    Dhcp,
    /// First fragments of ever new packets.
    Fragments,
    /// First segments of ever new connections.
    Connections,
}

impl Flood {
    /// Those that say something about a network.
    pub(super) fn of(topology: Topology) -> &'static [Self] {
        match topology {
            Topology::Bridge => &[Self::Addresses, Self::Arp, Self::Groups],
            Topology::Nat => &[Self::Arp, Self::Dhcp, Self::Fragments, Self::Connections],
            Topology::Vlan | Topology::Bond | Topology::Route => &[],
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Addresses => "Ethernet addresses",
            Self::Arp => "ARP requests",
            Self::Groups => "IGMP reports",
            Self::Dhcp => "DHCP messages",
            Self::Fragments => "fragments",
            Self::Connections => "TCP connections",
        }
    }

    /// A frame, and the places where each has other bytes.
    fn frame(self, sender: &Sender) -> (Vec<u8>, &'static str) {
        let Sender { mac, next, address, peer } = sender;
        let udp = |destination: [u8; 4], ports: [u8; 4], payload: &[u8]| {
            let length = (8 + payload.len() as u16).to_be_bytes();
            ipv4(17, [0; 4], destination, 0, &[&ports[..], &length, &[0, 0], payload].concat())
        };
        let (destination, kind, rest, places) = match self {
            Self::Addresses => ([2, 0, 0, 0, 0, 1], [0x88, 0xb5], Vec::new(), "8:4"),
            Self::Arp => {
                let ends = [&mac[..], address, &[0; 6], &[10, 0, 0, 1]].concat();
                ([0xff; 6], [0x08, 0x06], [&[0, 1, 8, 0, 6, 4, 0, 1][..], &ends].concat(), "39:3")
            }
            Self::Groups => {
                let report = [0x16, 0, 0, 0, 239, 1, 2, 3];
                ([1, 0, 0x5e, 1, 2, 3], [0x08, 0x00], ipv4(2, *address, [239, 1, 2, 3], 0, &report), "3:3,31:3,39:3")
            }
            Self::Dhcp => {
                let mut message = vec![0; 300];
                // A request on Ethernet; behind the cookie, DHCPDISCOVER (RFC 2131, 2; RFC 2132, 9.6).
                message[..3].copy_from_slice(&[1, 1, 6]);
                message[28..34].copy_from_slice(mac);
                message[236..244].copy_from_slice(&[99, 130, 83, 99, 53, 1, 1, 255]);
                ([0xff; 6], [0x08, 0x00], udp([255; 4], [0, 68, 0, 67], &message), "8:4,72:4")
            }
            Self::Fragments => {
                let part = [&[0x30, 0x39, 0, 9, 5, 0, 0, 0][..], &[0; 64]].concat();
                (*next, [0x08, 0x00], ipv4(17, *address, *peer, 0x2000, &part), "18:2")
            }
            Self::Connections => {
                let segment = [&[0x30, 0x39, 0, 9][..], &[0; 8], &[0x50, 2, 4, 0, 0, 0, 0, 0]].concat();
                (*next, [0x08, 0x00], ipv4(6, *address, *peer, 0, &segment), "34:2,36:2")
            }
        };
        let mut frame = [&destination[..], mac, &kind, &rest].concat();
        frame.resize(frame.len().max(60), 0);
        (frame, places)
    }
}

/// An IPv4 packet; the tool that sends it makes its checksum.
fn ipv4(protocol: u8, source: [u8; 4], destination: [u8; 4], fragment: u16, behind: &[u8]) -> Vec<u8> {
    let [high, low] = (20 + behind.len() as u16).to_be_bytes();
    let [flags, offset] = fragment.to_be_bytes();
    let header = [0x45, 0, high, low, 0, 0, flags, offset, 64, protocol, 0, 0];
    [&header[..], &source, &destination, behind].concat()
}

/// The neighbour's end: its addresses, the station that its packets go to next, and their destination.
struct Sender {
    mac: [u8; 6],
    next: [u8; 6],
    address: [u8; 4],
    peer: [u8; 4],
}

impl Sender {
    fn of(guest: &Guest<'_>, interface: &str, peer: &str) -> Result<Self> {
        traffic::ping(guest, peer, 3, 0, 56)?;
        let said = guest.must(&format!(
            "cat /sys/class/net/{interface}/address; \
             /usr/bin/ip -4 neigh show dev {interface} | awk '/lladdr/ {{ for (i = 1; i < NF; i++) if ($i == \"lladdr\") print $(i + 1) }}' | head -n 1; \
             /usr/bin/ip -4 -o addr show dev {interface} | awk '{{ split($4, a, \"/\"); print a[1]; exit }}'"
        ))?;
        let mut lines = said.lines();
        let mut next = || lines.next().with_context(|| format!("{interface} of {}: '{said}'", guest.name()));
        let station = |text: &str| -> Result<[u8; 6]> {
            let bytes: Vec<u8> =
                text.trim().split(':').map(|part| u8::from_str_radix(part, 16)).collect::<Result<_, _>>()?;
            bytes.try_into().ok().with_context(|| format!("'{text}' is no Ethernet address"))
        };
        let address = |text: &str| anyhow::Ok(text.trim().parse::<Ipv4Addr>()?.octets());
        Ok(Self { mac: station(next()?)?, next: station(next()?)?, address: address(next()?)?, peer: address(peer)? })
    }
}

/// Round trips of one guest while another one floods by its interface: as fast as it can, which takes turns on the machine's CPU.
pub(super) fn beside(
    flood: Flood,
    (guest, neighbour): (&Guest<'_>, &Guest<'_>),
    interface: &str,
    peer: &str,
    pings: u32,
) -> Result<Ping> {
    let (frame, places) = flood.frame(&Sender::of(neighbour, interface, peer)?);
    let digits: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
    neighbour.start("flood", &format!("traffic frames {interface} {digits} --vary {places} --until /tmp/enough"))?;
    let result = traffic::ping(guest, peer, pings, 0, 56);
    neighbour.sh("touch /tmp/enough")?;
    let said = neighbour.finish("flood")?;
    neighbour.sh("rm /tmp/enough")?;
    result.with_context(|| format!("beside a flood that ended with {said}"))
}
