//! Frames of a guest, its own and such as it must not send. Floor 3, host only.

use super::{Addresses, AntiSpoof, Guard};
use crate::ethernet::MacAddress;
use crate::offload::head::Head;
use alloc::string::ToString;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, Ipv6Addr};
use proptest::prelude::*;

const OWN: [u8; 6] = [0, 0x16, 0x3e, 0, 0, 1];
const GATEWAY: [u8; 6] = [2, 0, 0, 0, 0, 0xfe];
const ALL: [u8; 6] = [0xff; 6];
const V4: [u8; 4] = [10, 0, 0, 5];
const ROUTER_V4: [u8; 4] = [10, 0, 0, 1];

fn guard(level: AntiSpoof, addresses: &str) -> Guard {
    let addresses = (!addresses.is_empty()).then(|| Addresses::parse(addresses).unwrap());
    Guard::new(level, MacAddress(OWN), addresses)
}

fn permits(guard: &Guard, frame: &[u8]) -> bool {
    let bytes = &frame[..frame.len().min(128)];
    Head::parse(bytes).is_some_and(|head| guard.permits(&head, bytes))
}

fn ethernet(source: [u8; 6], ethertype: u16, packet: &[u8]) -> Vec<u8> {
    [&ALL[..], &source, &ethertype.to_be_bytes(), packet].concat()
}

fn arp(hardware: [u8; 6], sender: [u8; 4]) -> Vec<u8> {
    arp_about(hardware, sender, ROUTER_V4)
}

fn arp_about(hardware: [u8; 6], sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    [&[0, 1, 8, 0, 6, 4, 0, 1][..], &hardware, &sender, &[0; 6], &target].concat()
}

/// An IPv4 packet; `fragment` is its offset in units of eight bytes.
fn ipv4(source: [u8; 4], protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let [high, low] = fragment.to_be_bytes();
    let header = [&[0x45, 0, 0, 0, 0, 0, high, low, 64, protocol, 0, 0][..], &source, &[255; 4]].concat();
    [&header, payload].concat()
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &[0, 8, 0, 0]].concat()
}

/// A client's message of DHCP that begins so and has this hardware address.
fn dhcp(beginning: [u8; 3], hardware: [u8; 6]) -> Vec<u8> {
    [&udp(68, 67)[..], &beginning, &[0; 25], &hardware, &[0; 10]].concat()
}

fn ipv6(source: &str, next: u8, payload: &[u8]) -> Vec<u8> {
    let source: Ipv6Addr = source.parse().unwrap();
    let [high, low] = (payload.len() as u16).to_be_bytes();
    let header = [&[0x60, 0, 0, 0, high, low, next, 255][..], &source.octets(), &[0xff; 16]].concat();
    [&header, payload].concat()
}

/// A message of neighbour discovery with this target, where it has one, and a link-layer address as an option.
fn discovery(kind: u8, target: &str, option: u8, hardware: [u8; 6]) -> Vec<u8> {
    let target: Vec<u8> = target.parse::<Ipv6Addr>().map(|target| target.octets().to_vec()).unwrap_or_default();
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target, &[option, 1], &hardware].concat()
}

#[test]
fn addresses_are_read_as_the_scripts_read_them() {
    for (text, read) in [
        ("10.0.0.5", Some("10.0.0.5")),
        ("10.0.0.5 10.1.0.0/16", Some("10.0.0.5, 10.1.0.0/16")),
        ("10.0.0.5,fd00::5/64,", Some("10.0.0.5, fd00::5/64")),
        ("10.0.0.5/32  fd00::1/128", Some("10.0.0.5, fd00::1")),
        ("0.0.0.0/0 ::/0", Some("0.0.0.0/0, ::/0")),
        ("", None),
        (" ", None),
        ("10.0.0", None),
        ("10.0.0.5/33", None),
        ("10.0.0.5/", None),
        ("10.0.0.5/-1", None),
        ("fd00::/129", None),
        ("host", None),
        ("10.0.0.5 host", None),
    ] {
        let found = Addresses::parse(text).map(|addresses| addresses.to_string());
        assert_eq!(found.as_deref(), read, "{text}");
    }
    let addresses = Addresses::parse("10.0.0.128/25 192.168.1.1 fd00:1::/33").unwrap();
    for (address, contained) in [
        ("10.0.0.128", true),
        ("10.0.0.255", true),
        ("10.0.0.127", false),
        ("192.168.1.1", true),
        ("192.168.1.0", false),
        ("fd00:1:7fff::", true),
        ("fd00:1:8000::", false),
        ("::ffff:192.168.1.1", false),
    ] {
        assert_eq!(addresses.contain(address.parse().unwrap()), contained, "{address}");
    }
    assert!(Addresses::parse("0.0.0.0/0").unwrap().contain(Ipv4Addr::BROADCAST.into()));
}

/// Each frame: whether it passes by the Ethernet address alone, strictly, and where IP addresses are known.
#[test]
fn what_a_guest_may_send() {
    let off = guard(AntiSpoof::Off, "");
    let guards = [guard(AntiSpoof::Mac, ""), guard(AntiSpoof::Strict, ""), guard(AntiSpoof::Mac, "10.0.0.5 fd00::5")];
    let (discover, offer) = (dhcp([1, 1, 6], OWN), udp(67, 68));
    let (yes, strict, free, no) = ([true; 3], [true, false, false], [true, true, false], [false; 3]);
    // Made of its Ethernet address.
    let link = "fe80::216:3eff:fe00:1";
    let v6 = |source, kind, target, option, mac| (0x86dd, ipv6(source, 58, &discovery(kind, target, option, mac)));
    let fragment = |offset: u16, rest: &[u8]| [&[58, 0][..], &(offset << 3).to_be_bytes(), &[0; 4], rest].concat();
    let options = |rest: &[u8]| [&[58, 0, 1, 4, 0, 0, 0, 0][..], rest].concat();
    let solicitation = discovery(135, "fd00::9", 1, OWN);
    let advertisement = discovery(134, "", 1, OWN);
    let table = [
        ("ARP", (0x0806, arp(OWN, V4)), yes),
        ("an ARP probe", (0x0806, arp_about(OWN, [0; 4], V4)), yes),
        ("one for the gateway's IP address", (0x0806, arp_about(OWN, [0; 4], ROUTER_V4)), free),
        ("ARP for the gateway's IP address", (0x0806, arp(OWN, ROUTER_V4)), free),
        ("ARP for the gateway's Ethernet address", (0x0806, arp(GATEWAY, V4)), no),
        ("ARP that is cut", (0x0806, arp(OWN, V4)[..27].to_vec()), no),
        ("ARP of another kind of network", (0x0806, [&[0, 6], &arp(OWN, V4)[2..]].concat()), no),
        ("RARP", (0x8035, arp(OWN, V4)), strict),
        ("another protocol", (0x88b5, [0; 46].into()), strict),
        ("LLC", (0x0026, [0x42; 46].into()), strict),
        ("TCP", (0x0800, ipv4(V4, 6, 0, &[0; 20])), yes),
        ("another's TCP", (0x0800, ipv4(ROUTER_V4, 6, 0, &[0; 20])), free),
        ("TCP from no address", (0x0800, ipv4([0; 4], 6, 0, &[0; 20])), free),
        ("a later fragment", (0x0800, ipv4(V4, 17, 1, &offer)), yes),
        ("another's later fragment", (0x0800, ipv4(ROUTER_V4, 17, 1, &offer)), free),
        ("a first fragment without ports", (0x0800, ipv4(V4, 17, 0x2000, &offer[..3])), strict),
        ("IPv4 that is IPv6", (0x0800, ipv6(link, 6, &[0; 20])), strict),
        ("IPv4 with a short header", (0x0800, [&[0x44], &ipv4(V4, 6, 0, &[0; 20])[1..]].concat()), strict),
        ("IPv4 that is cut", (0x0800, ipv4(V4, 6, 0, &[])[..19].to_vec()), strict),
        ("a DHCP client", (0x0800, ipv4([0; 4], 17, 0, &discover)), yes),
        ("one that renews its lease", (0x0800, ipv4(V4, 17, 0, &discover)), yes),
        ("one with another's hardware address", (0x0800, ipv4([0; 4], 17, 0, &dhcp([1, 1, 6], GATEWAY))), strict),
        (
            "the same from another port",
            (0x0800, ipv4(V4, 17, 0, &[&[0, 9], &dhcp([1, 1, 6], GATEWAY)[2..]].concat())),
            strict,
        ),
        ("one with a longer address", (0x0800, ipv4([0; 4], 17, 0, &dhcp([1, 1, 16], OWN))), strict),
        ("an answer from a client", (0x0800, ipv4([0; 4], 17, 0, &dhcp([2, 1, 6], OWN))), strict),
        ("a DHCP client's fragment", (0x0800, ipv4([0; 4], 17, 0x2000, &discover)), strict),
        ("a DHCP client that is cut off", (0x0800, ipv4([0; 4], 17, 0, &discover[..40])), strict),
        ("a report of IGMP", (0x0800, ipv4(V4, 2, 0, &[0x16, 0, 0, 0, 239, 0, 0, 1])), yes),
        ("a question of IGMP", (0x0800, ipv4(V4, 2, 0, &[0x11, 0, 0, 0, 0, 0, 0, 0])), strict),
        ("IGMP without a type", (0x0800, ipv4(V4, 2, 0, &[])), strict),
        ("a question of MLD", (0x86dd, ipv6(link, 58, &[130, 0, 0, 0, 0, 0, 0, 0])), strict),
        ("a DHCP server", (0x0800, ipv4(V4, 17, 0, &offer)), strict),
        ("UDP from no address", (0x0800, ipv4([0; 4], 17, 0, &udp(68, 69))), free),
        ("an echo", (0x0800, ipv4(V4, 1, 0, &[8, 0, 0, 0])), yes),
        ("a redirect of IPv4", (0x0800, ipv4(V4, 1, 0, &[5, 1, 0, 0])), strict),
        ("a router's advertisement of IPv4", (0x0800, ipv4(V4, 1, 0, &[9, 0, 0, 0])), strict),
        ("a first fragment of ICMP without a type", (0x0800, ipv4(V4, 1, 0x2000, &[])), strict),
        ("a later fragment of ICMP", (0x0800, ipv4(V4, 1, 1, &[5, 1, 0, 0])), yes),
        ("TCP over IPv6", (0x86dd, ipv6("fd00::5", 6, &[0; 20])), yes),
        ("from a link-local address", (0x86dd, ipv6(link, 6, &[0; 20])), yes),
        ("from another link-local address", (0x86dd, ipv6("fe80::1", 6, &[0; 20])), free),
        ("another's over IPv6", (0x86dd, ipv6("fd00::1", 6, &[0; 20])), free),
        ("a DHCPv6 client", (0x86dd, ipv6(link, 17, &udp(546, 547))), yes),
        ("a DHCPv6 server", (0x86dd, ipv6(link, 17, &udp(547, 546))), strict),
        ("IPv6 that is cut", (0x86dd, ipv6(link, 6, &[])[..39].to_vec()), strict),
        ("a solicitation", v6(link, 135, "fd00::9", 1, OWN), yes),
        ("one of another's Ethernet address", v6(link, 135, "fd00::9", 1, GATEWAY), strict),
        ("of another's IP address", v6("fd00::1", 135, "fd00::9", 1, OWN), free),
        ("a look whether its address is free", (0x86dd, ipv6("::", 58, &discovery(135, "fd00::5", 14, OWN))), yes),
        ("the same of its link-local one", (0x86dd, ipv6("::", 58, &discovery(135, link, 14, OWN))), yes),
        ("a look whether another's is free", (0x86dd, ipv6("::", 58, &solicitation[..24])), free),
        ("an advertisement of the gateway's link-local address", v6("fd00::5", 136, "fe80::1", 2, OWN), free),
        ("an advertisement", v6("fd00::5", 136, "fd00::5", 2, OWN), yes),
        ("one of another's IP address", v6("fd00::5", 136, "fd00::1", 2, OWN), free),
        ("one of another's Ethernet address", v6("fd00::5", 136, "fd00::5", 2, GATEWAY), strict),
        ("one from no address", (0x86dd, ipv6("::", 58, &discovery(136, "fd00::5", 2, OWN))), free),
        ("one whose option has no length", (0x86dd, ipv6(link, 58, &[&solicitation[..24], &[1, 0]].concat())), strict),
        ("one whose option is cut", (0x86dd, ipv6(link, 58, &[&solicitation[..24], &[14, 2, 0]].concat())), strict),
        (
            "one that is longer than its frame",
            {
                let mut packet = ipv6(link, 58, &solicitation);
                packet[5] = 200;
                (0x86dd, packet)
            },
            strict,
        ),
        ("a router's solicitation", v6("::", 133, "", 1, OWN), yes),
        ("a router's advertisement", (0x86dd, ipv6(link, 58, &advertisement)), strict),
        ("one behind options", (0x86dd, ipv6(link, 60, &options(&advertisement))), strict),
        ("one in a first fragment", (0x86dd, ipv6(link, 44, &fragment(0, &advertisement))), strict),
        ("a solicitation in a fragment", (0x86dd, ipv6(link, 44, &fragment(0, &solicitation))), strict),
        ("an echo in a fragment", (0x86dd, ipv6(link, 44, &fragment(0, &[128, 0, 0, 0]))), yes),
        ("a later fragment", (0x86dd, ipv6(link, 44, &fragment(1, &advertisement))), yes),
        ("a redirect", v6(link, 137, "fd00::9", 2, OWN), strict),
        ("a listener's report", (0x86dd, ipv6("::", 0, &options(&[143, 0, 0, 0, 0, 0, 0, 0]))), yes),
        ("a route behind the bytes at hand", (0x86dd, ipv6(link, 43, &[58, 20, 0, 0])), strict),
        ("options behind options", (0x86dd, ipv6(link, 60, &[60, 0, 1, 4, 0, 0, 0, 0].repeat(9))), strict),
    ];
    for (name, (ethertype, packet), expected) in table {
        let frame = ethernet(OWN, ethertype, &packet);
        let found = guards.each_ref().map(|guard| permits(guard, &frame));
        assert_eq!(found, expected, "{name}");
        // Behind tags, too.
        let tag = [&[0, 5][..], &ethertype.to_be_bytes(), &packet].concat();
        let found = guards.each_ref().map(|guard| permits(guard, &ethernet(OWN, 0x8100, &tag)));
        assert_eq!(found, expected, "{name}, tagged");
        let spoofed = ethernet(GATEWAY, ethertype, &packet);
        assert!(guards.iter().all(|guard| !permits(guard, &spoofed)), "{name}");
        assert!(permits(&off, &frame) && permits(&off, &spoofed), "{name}");
    }
}

/// A guest with IPv4 alone has no IPv6, but asks DHCP.
#[test]
fn addresses_of_one_protocol() {
    let (four, six) = (guard(AntiSpoof::Off, "10.0.0.0/8"), guard(AntiSpoof::Off, "fd00::/8"));
    let link = "fe80::216:3eff:fe00:1";
    let discovery = discovery(135, link, 1, OWN);
    for (name, ethertype, packet, expected) in [
        ("TCP", 0x0800, ipv4(V4, 6, 0, &[0; 20]), [true, false]),
        ("ARP", 0x0806, arp(OWN, V4), [true, false]),
        ("an ARP probe", 0x0806, arp_about(OWN, [0; 4], V4), [true, false]),
        ("DHCP", 0x0800, ipv4([0; 4], 17, 0, &dhcp([1, 1, 6], OWN)), [true, true]),
        ("TCP over IPv6", 0x86dd, ipv6("fd00::7", 6, &[0; 20]), [false, true]),
        ("a solicitation", 0x86dd, ipv6(link, 58, &discovery), [false, true]),
        ("one from no address", 0x86dd, ipv6("::", 58, &discovery), [false, true]),
        ("a listener's report", 0x86dd, ipv6("::", 58, &[131; 24]), [false, true]),
    ] {
        let frame = ethernet(OWN, ethertype, &packet);
        assert_eq!([&four, &six].map(|guard| permits(guard, &frame)), expected, "{name}");
    }
}

proptest! {
    /// Each level passes no frame that the one below refuses, and no level passes one with another's Ethernet address.
    #[test]
    fn levels_are_nested(
        kind in prop_oneof![Just(0x0800_u16), Just(0x0806), Just(0x86dd), Just(0x8100), any::<u16>()],
        own in any::<bool>(),
        mut bytes in proptest::collection::vec(any::<u8>(), 0..140),
        next in prop_oneof![Just(0_u8), Just(17), Just(43), Just(44), Just(58), Just(60)],
    ) {
        if kind == 0x86dd && bytes.len() > 40 {
            bytes[0] = 0x60;
            bytes[6] = next;
        }
        let frame = ethernet(if own { OWN } else { GATEWAY }, kind, &bytes);
        let guards = [guard(AntiSpoof::Mac, ""), guard(AntiSpoof::Strict, ""), guard(AntiSpoof::Off, "10.0.0.5 fd00::/8")];
        let [mac, strict, known] = guards.each_ref().map(|guard| permits(guard, &frame));
        prop_assert!(mac || !strict);
        prop_assert!(strict || !known);
        prop_assert!(own || !mac);
    }
}
