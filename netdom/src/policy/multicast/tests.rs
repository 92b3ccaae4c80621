//! Which ports get the frames of groups: the reports, their ports and their times. Floor 3, host only.

use super::*;
use crate::offload::checksum::Sum;
use alloc::vec;

const OWN: [u8; 6] = [0, 0x16, 0x3e, 0, 0, 1];
const WIRE: PortId = PortId(0);
const A: PortId = PortId(1);
const B: PortId = PortId(2);
/// A guest that may be a bridge or a router.
const BRIDGE: PortId = PortId(3);
const GROUP: [u8; 4] = [239, 1, 2, 3];
/// Another group with the same Ethernet address.
const ALIAS: [u8; 4] = [225, 129, 2, 3];
const GROUP_V6: [u8; 16] = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 5];

fn second(number: u64) -> Instant {
    Instant(number * 1_000_000_000)
}

fn mac_v4(group: [u8; 4]) -> [u8; 6] {
    [1, 0, 0x5e, group[1] & 0x7f, group[2], group[3]]
}

fn mac_v6(group: [u8; 16]) -> [u8; 6] {
    [0x33, 0x33, group[12], group[13], group[14], group[15]]
}

/// A frame of IGMP with a right checksum.
fn igmp(destination: [u8; 4], message: &[u8]) -> Vec<u8> {
    let mut message = message.to_vec();
    let mut sum = Sum::new();
    sum.add(&message);
    message[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    let [high, low] = (24 + message.len() as u16).to_be_bytes();
    // With the option of a router alert.
    let header =
        [&[0x46, 0, high, low, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, 5][..], &destination, &[148, 4, 0, 0]].concat();
    [&mac_v4(destination)[..], &OWN, &[0x08, 0x00], &header, &message].concat()
}

/// A frame of MLD with a right checksum.
fn mld(destination: [u8; 16], message: &[u8]) -> Vec<u8> {
    let source = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5];
    let mut message = message.to_vec();
    let mut sum = Sum::new();
    let pseudo = [&source[..], &destination, &[0, 0, 0, message.len() as u8, 0, 0, 0, 58], &message].concat();
    sum.add(&pseudo);
    message[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    let header = [&[0x60, 0, 0, 0, 0, 8 + message.len() as u8, 0, 1][..], &source, &destination].concat();
    [&mac_v6(destination)[..], &OWN, &[0x86, 0xdd], &header, &[58, 0, 5, 2, 0, 0, 1, 0], &message].concat()
}

fn query() -> Vec<u8> {
    igmp([224, 0, 0, 1], &[0x11, 10, 0, 0, 0, 0, 0, 0])
}

fn query_v6() -> Vec<u8> {
    let all_nodes = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    mld(all_nodes, &[&[130, 0, 0, 0, 0x03, 0xe8, 0, 0][..], &[0; 16]].concat())
}

fn report(group: [u8; 4]) -> Vec<u8> {
    igmp(group, &[&[0x16, 0, 0, 0][..], &group].concat())
}

fn leave(group: [u8; 4]) -> Vec<u8> {
    igmp([224, 0, 0, 2], &[&[0x17, 0, 0, 0][..], &group].concat())
}

/// A report of IGMPv3: each group with the type of its record, and how many sources.
fn records(records: &[(u8, [u8; 4], u8)]) -> Vec<u8> {
    let mut message = vec![0x22, 0, 0, 0, 0, 0, 0, records.len() as u8];
    for (kind, group, sources) in records {
        message.extend([*kind, 0, 0, *sources]);
        message.extend(group);
        message.extend((0..*sources).flat_map(|source| [10, 0, 0, source]));
    }
    igmp([224, 0, 0, 22], &message)
}

fn report_v6(kind: u8, group: [u8; 16]) -> Vec<u8> {
    let all_mld_routers = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16];
    match kind {
        143 => mld(all_mld_routers, &[&[143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0][..], &group].concat()),
        _ => mld(group, &[&[kind, 0, 0, 0, 0, 0, 0, 0][..], &group].concat()),
    }
}

fn data(mac: [u8; 6]) -> Vec<u8> {
    [&mac[..], &OWN, &[0x08, 0x00], &[0x45, 0, 0, 28, 0, 0, 0, 0, 1, 17], &[0; 26]].concat()
}

/// The ports that get a frame; `None` for all.
fn send(multicast: &mut Multicast, from: PortId, frame: &[u8], at: u64) -> Option<Vec<u16>> {
    send_in(multicast, from, 0, frame, at)
}

fn send_in(multicast: &mut Multicast, from: PortId, vlan: u16, frame: &[u8], at: u64) -> Option<Vec<u16>> {
    let bytes = &frame[..frame.len().min(128)];
    let head = Head::parse(bytes).unwrap();
    let mut listed = Vec::new();
    let audience = multicast.handle(from, vlan, (&head, bytes), second(at), &mut listed);
    listed.sort_unstable();
    assert!(listed.windows(2).all(|two| two[0] != two[1]), "a port twice: {listed:?}");
    (audience == Audience::Listed).then(|| listed.iter().map(|port| port.0).collect())
}

/// A wire, two hosts and a guest that may be a bridge, all there for a long time.
fn multicast() -> Multicast {
    let mut multicast = Multicast::new(7);
    for (port, behind) in [(WIRE, Behind::Wire), (A, Behind::Host), (B, Behind::Host), (BRIDGE, Behind::Any)] {
        multicast.add(port, 0, behind, second(0));
    }
    multicast
}

/// The same, once a router on the wire has asked.
fn asked() -> Multicast {
    let mut multicast = multicast();
    assert_eq!(send(&mut multicast, WIRE, &query(), 1000), None);
    assert_eq!(send(&mut multicast, WIRE, &query_v6(), 1000), None);
    multicast
}

#[test]
fn without_a_router_all_get_all() {
    let mut multicast = multicast();
    for frame in [report(GROUP), leave(GROUP), records(&[(4, GROUP, 0)]), data(mac_v4(GROUP)), report_v6(143, GROUP_V6)]
    {
        assert_eq!(send(&mut multicast, A, &frame, 1000), None);
    }
    // The answers take a second, and may be late by one.
    assert_eq!(send(&mut multicast, WIRE, &query(), 2000), None);
    for (at, listed) in [(2000, None), (2001, None), (2002, Some(vec![0])), (2254, Some(vec![0])), (2255, None)] {
        assert_eq!(send(&mut multicast, A, &data(mac_v4(GROUP)), at), listed, "{at}");
    }
    // IPv6 was not asked for; another VLAN was not, either.
    assert_eq!(send(&mut multicast, A, &data(mac_v6(GROUP_V6)), 2002), None);
    assert_eq!(send_in(&mut multicast, A, 5, &data(mac_v4(GROUP)), 2002), None);
}

#[test]
fn groups_go_to_those_that_reported_them() {
    let mut multicast = asked();
    let data_v4 = |multicast: &mut Multicast, at| send(multicast, WIRE, &data(mac_v4(GROUP)), at);
    assert_eq!(data_v4(&mut multicast, 1002), Some(vec![0]));
    // Other hosts do not see a report.
    assert_eq!(send(&mut multicast, A, &report(GROUP), 1002), Some(vec![0]));
    assert_eq!(data_v4(&mut multicast, 1002), Some(vec![0, 1]));
    assert_eq!(send(&mut multicast, B, &records(&[(2, GROUP, 0), (3, [239, 9, 9, 9], 0)]), 1100), Some(vec![0]));
    assert_eq!(data_v4(&mut multicast, 1100), Some(vec![0, 1, 2]));
    assert_eq!(send(&mut multicast, A, &leave(GROUP), 1110), Some(vec![0]));
    assert_eq!(data_v4(&mut multicast, 1110), Some(vec![0, 2]));
    send(&mut multicast, WIRE, &query(), 1200);
    for (at, listed) in [(1359, vec![0, 2]), (1360, vec![0])] {
        assert_eq!(data_v4(&mut multicast, at), Some(listed), "{at}");
    }
    // What always goes to all, and what is no group of IP.
    for mac in
        [[1, 0, 0x5e, 0, 0, 251], [0x33, 0x33, 0, 0, 0, 1], [1, 0, 0x5e, 0x80, 0, 1], [3, 0, 0, 0, 0, 1], [0xff; 6]]
    {
        assert_eq!(send(&mut multicast, A, &data(mac), 1300), None, "{mac:02x?}");
    }
}

#[test]
fn groups_of_ipv6() {
    let mut multicast = asked();
    let data = data(mac_v6(GROUP_V6));
    assert_eq!(send(&mut multicast, A, &report_v6(143, GROUP_V6), 1001), None);
    assert_eq!(send(&mut multicast, B, &report_v6(131, GROUP_V6), 1002), Some(vec![0]));
    assert_eq!(send(&mut multicast, WIRE, &data, 1002), Some(vec![0, 1, 2]));
    assert_eq!(send(&mut multicast, A, &report_v6(132, GROUP_V6), 1002), Some(vec![0]));
    assert_eq!(send(&mut multicast, WIRE, &data, 1002), Some(vec![0, 2]));
}

#[test]
fn records_join_and_leave() {
    // The record's type and sources: whether a host that was not in the group is, and one that was.
    for (kind, sources, expected) in [
        (1, 0, [false, false]),
        (1, 2, [true, true]),
        (2, 0, [true, true]),
        (3, 0, [false, false]),
        (3, 1, [true, true]),
        (4, 0, [true, true]),
        (5, 1, [true, true]),
        (6, 1, [false, true]),
        (7, 0, [false, true]),
    ] {
        for (was_in, expected) in [false, true].into_iter().zip(expected) {
            let mut multicast = asked();
            if was_in {
                send(&mut multicast, A, &report(GROUP), 1001);
            }
            // Behind a record with sources and one of another group.
            send(&mut multicast, A, &records(&[(6, [239, 0, 0, 9], 3), (kind, GROUP, sources)]), 1002);
            let listed = send(&mut multicast, WIRE, &data(mac_v4(GROUP)), 1002).unwrap();
            assert_eq!(listed.contains(&A.0), expected, "{kind} {sources} {was_in}");
        }
    }
}

/// Groups with one Ethernet address are left one by one.
#[test]
fn groups_with_one_address() {
    let mut multicast = asked();
    assert_eq!(mac_v4(GROUP), mac_v4(ALIAS));
    for group in [GROUP, ALIAS] {
        send(&mut multicast, A, &report(group), 1001);
    }
    assert_eq!(multicast.learnt(A), 1);
    for (group, listed) in [(GROUP, vec![0, 1]), (ALIAS, vec![0])] {
        send(&mut multicast, A, &leave(group), 1001);
        assert_eq!(send(&mut multicast, WIRE, &data(mac_v4(GROUP)), 1002), Some(listed));
    }
}

/// Behind a bridge another host may be in the group: it has two seconds to say so.
#[test]
fn the_last_of_several_hosts() {
    let mut multicast = asked();
    for (again, at, listed) in [(false, 1012, vec![0]), (true, 1022, vec![0, 3])] {
        send(&mut multicast, BRIDGE, &report(GROUP), at - 2);
        send(&mut multicast, BRIDGE, &leave(GROUP), at - 2);
        if again {
            send(&mut multicast, BRIDGE, &report(GROUP), at - 1);
        }
        assert_eq!(send(&mut multicast, WIRE, &data(mac_v4(GROUP)), at - 1), Some(vec![0, 3]));
        assert_eq!(send(&mut multicast, WIRE, &data(mac_v4(GROUP)), at), Some(listed));
    }
}

/// A guest's questions are heeded where it may be a router. Any other could have its neighbours lose their groups.
#[test]
fn who_may_ask() {
    let mut multicast = multicast();
    send(&mut multicast, A, &query(), 1000);
    assert_eq!(send(&mut multicast, B, &data(mac_v4(GROUP)), 1010), None);
    send(&mut multicast, BRIDGE, &query(), 1020);
    // It gets all from then on, and the reports.
    assert_eq!(send(&mut multicast, B, &data(mac_v4(GROUP)), 1022), Some(vec![0, 3]));
    assert_eq!(send(&mut multicast, B, &report(GROUP), 1022), Some(vec![0, 3]));
    // Not those that others do not hear, or that are damaged.
    let mut to_itself = query();
    to_itself[..6].copy_from_slice(&[1, 0, 0x5e, 1, 1, 1]);
    let specific = igmp([224, 0, 0, 1], &[&[0x11, 10, 0, 0][..], &GROUP].concat());
    let (mut far, mut damaged) = (query(), query());
    far[14 + 8] = 2;
    damaged[14 + 24 + 1] = 11;
    for frame in [to_itself, specific, far, damaged, query()[..40].to_vec()] {
        let mut multicast = self::multicast();
        send(&mut multicast, WIRE, &frame, 1000);
        assert_eq!(send(&mut multicast, B, &data(mac_v4(GROUP)), 1100), None, "{frame:02x?}");
    }
}

/// One that came a moment ago gets all until it has answered.
#[test]
fn newcomers_get_all() {
    let mut multicast = asked();
    multicast.add(PortId(4), 0, Behind::Host, second(1010));
    multicast.add(PortId(5), 1, Behind::Host, second(1010));
    let data = data(mac_v4(GROUP));
    assert_eq!(send(&mut multicast, WIRE, &data, 1100), Some(vec![0, 4]));
    // Its neighbours' reports it does not get.
    assert_eq!(send(&mut multicast, A, &report([239, 0, 0, 1]), 1100), Some(vec![0]));
    send(&mut multicast, WIRE, &query(), 1125);
    for (at, listed) in [(1126, vec![0, 4]), (1127, vec![0])] {
        assert_eq!(send(&mut multicast, WIRE, &data, at), Some(listed), "{at}");
    }
    // A new question does not make it new again; a number that is used again is.
    send(&mut multicast, WIRE, &query(), 1130);
    assert_eq!(send(&mut multicast, WIRE, &data, 1130), Some(vec![0]));
    multicast.remove(A);
    multicast.add(A, 0, Behind::Host, second(1130));
    assert_eq!(send(&mut multicast, WIRE, &data, 1130), Some(vec![0, 1]));
}

#[test]
fn a_guest_of_too_many_groups_costs_itself() {
    let mut multicast = asked();
    send(&mut multicast, B, &report(GROUP), 1001);
    let group = |number: u32| [239, 5, (number >> 8) as u8, number as u8];
    for number in 0..20_000 {
        send(&mut multicast, A, &report(group(number)), 1001);
    }
    assert_eq!((multicast.learnt(A), multicast.learnt(B), multicast.entries.len()), (PORT_GROUPS, 1, PORT_GROUPS + 1));
    // It gets all, and its neighbour what it asked for.
    for (mac, listed) in
        [(mac_v4(GROUP), vec![0, 1, 2]), (mac_v4(group(3)), vec![0, 1]), (mac_v4([239, 7, 7, 7]), vec![0, 1])]
    {
        assert_eq!(send(&mut multicast, WIRE, &data(mac), 1002), Some(listed));
    }
    // In time that is over, and its old groups make room.
    send(&mut multicast, WIRE, &query(), 1250);
    assert_eq!(send(&mut multicast, WIRE, &data(mac_v4(group(9))), 1300), Some(vec![0]));
    send(&mut multicast, A, &report(group(900)), 1300);
    assert_eq!((multicast.learnt(A), multicast.entries.len()), (1, PORT_GROUPS + 1));
    assert_eq!(send(&mut multicast, WIRE, &data(mac_v4(group(900))), 1300), Some(vec![0, 1]));
}

#[test]
fn a_full_table_and_too_many_networks() {
    let mut multicast = Multicast::new(1);
    for port in 0..70 {
        multicast.add(PortId(port), 0, Behind::Host, second(0));
    }
    multicast.add(PortId(99), 0, Behind::Wire, second(0));
    for vlan in 0..NETWORKS as u16 + 10 {
        send_in(&mut multicast, PortId(99), vlan, &query(), 1000);
    }
    assert_eq!(multicast.queriers.len(), NETWORKS);
    for port in 0..70 {
        for number in 0..PORT_GROUPS as u8 {
            send(&mut multicast, PortId(port), &report([239, 5, port as u8, number]), 1001);
        }
    }
    assert_eq!((multicast.index.len(), multicast.learnt(PortId(69))), (ALL_GROUPS, 0));
    // A port without room gets all.
    let all: Vec<u16> = (64..70).chain([99]).collect();
    assert_eq!(send(&mut multicast, PortId(99), &data(mac_v4([239, 5, 69, 0])), 1002), Some(all));
    let last = (NETWORKS as u16 + 5, NETWORKS as u16 - 1);
    assert_eq!(send_in(&mut multicast, PortId(99), last.0, &data(mac_v4(GROUP)), 1002), None);
    assert!(send_in(&mut multicast, PortId(99), last.1, &data(mac_v4(GROUP)), 1002).is_some());
    // Those that ask no more make room.
    send_in(&mut multicast, PortId(99), last.0, &query(), 1255);
    assert!(send_in(&mut multicast, PortId(99), last.0, &data(mac_v4(GROUP)), 1257).is_some());
    for port in (0..70).chain([99]) {
        multicast.remove(PortId(port));
    }
    assert!(multicast.index.is_empty() && multicast.groups.is_empty() && multicast.queriers.is_empty());
    assert_eq!((multicast.free.len(), multicast.greedy.len()), (multicast.entries.len(), 0));
}

/// What lies behind the first bytes may be any group.
#[test]
fn a_long_report() {
    let mut multicast = asked();
    let many: Vec<_> = (0..20).map(|number| (4, [239, 0, 1, number], 0)).collect();
    send(&mut multicast, A, &records(&many), 1001);
    assert!((5..20).contains(&multicast.learnt(A)));
    assert_eq!(send(&mut multicast, WIRE, &data(mac_v4([239, 0, 1, 19])), 1002), Some(vec![0, 1]));
    // One whose sources alone are cut off is whole enough.
    send(&mut multicast, B, &records(&[(1, GROUP, 60)]), 1001);
    assert_eq!(send(&mut multicast, WIRE, &data(mac_v4(GROUP)), 1002), Some(vec![0, 1, 2]));
    assert_eq!(send(&mut multicast, WIRE, &data(mac_v4([239, 9, 9, 9])), 1002), Some(vec![0, 1]));
}

#[test]
fn times_of_answers() {
    let mut multicast = asked();
    send(&mut multicast, WIRE, &query(), 1240);
    for (vlan, frame, seconds) in [
        (1, igmp([224, 0, 0, 1], &[0x11, 0, 0, 0, 0, 0, 0, 0]), 10),
        (2, igmp([224, 0, 0, 1], &[0x11, 100, 0, 0, 0, 0, 0, 0]), 10),
        (3, igmp([224, 0, 0, 1], &[0x11, 100, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0]), 10),
        // RFC 3376, 4.1.1: (0 | 0x10) << (0 + 3) tenths.
        (4, igmp([224, 0, 0, 1], &[0x11, 0x80, 0, 0, 0, 0, 0, 0, 2, 125, 0, 0]), 12),
        (5, igmp([224, 0, 0, 1], &[0x11, 0x80, 0, 0, 0, 0, 0, 0]), 12),
    ] {
        send_in(&mut multicast, WIRE, vlan, &frame, 1250);
        let answered = 1250 + seconds + 1;
        let is_listed =
            [answered - 1, answered + 1].map(|at| send_in(&mut multicast, A, vlan, &data(mac_v4(GROUP)), at).is_some());
        assert_eq!(is_listed, [false, true], "{vlan}");
    }
}
