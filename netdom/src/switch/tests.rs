//! The switch against a table of frames, against hostile senders, and against a plain model. Floor 3, host only.

use super::*;
use crate::ethernet::VlanId;
use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use proptest::prelude::*;

const BROADCAST: MacAddress = MacAddress::BROADCAST;

fn mac(number: u32) -> MacAddress {
    let [a, b, c, d] = number.to_be_bytes();
    MacAddress([0x02, 0x16, a, b, c, d])
}

fn second(seconds: u64) -> Instant {
    Instant(seconds * 1_000_000_000)
}

fn switch(ports: &[(u16, &str)]) -> Switch {
    let mut switch = Switch::new(TABLE_ENTRIES, AGEING, 7);
    for (port, bridge) in ports {
        assert_eq!(switch.add(PortId(*port), bridge, Vlans::TRUNK, GUEST_ENTRIES), Ok(()));
    }
    switch
}

fn flood(switch: &Switch, port: u16) -> Vec<u16> {
    switch.flood(PortId(port), 0).map(|port| port.0).collect()
}

#[test]
fn what_was_heard_lately_is_told_the_newest_first() {
    let mut switch = switch(&[(1, "xenbr0"), (2, "xenbr0")]);
    let heard = |switch: &Switch, now| switch.heard(PortId(1), second(now)).collect::<Vec<_>>();
    switch.forward(PortId(1), 0, BROADCAST, mac(1), second(0));
    switch.forward(PortId(1), 5, BROADCAST, mac(2), second(100));
    switch.forward(PortId(2), 0, BROADCAST, mac(3), second(100));
    assert_eq!(heard(&switch, 300), [(5, mac(2)), (0, mac(1))]);
    // Too old, and not forgotten yet as nobody asked for it.
    assert_eq!((heard(&switch, 301), switch.learnt(PortId(1))), (vec![(5, mac(2))], 2));
    switch.forward(PortId(1), 0, BROADCAST, mac(1), second(302));
    assert_eq!(heard(&switch, 310), [(0, mac(1)), (5, mac(2))]);
    // A station of the domain's own is known for good.
    switch.pin(PortId(2), mac(9));
    assert_eq!(switch.heard(PortId(2), second(310)).collect::<Vec<_>>(), [(0, mac(3))]);
}

#[test]
fn frames() {
    use Forward::{Drop, Flood, Port};
    let mut switch = switch(&[(0, "xenbr0"), (1, "xenbr0"), (2, "xenbr0"), (3, "other"), (9, "other")]);
    let table = [
        // Second, from port, source, destination, what becomes of it.
        (0, 1, mac(1), mac(2), Flood),
        (0, 2, mac(2), mac(1), Port(PortId(1))),
        (0, 1, mac(1), mac(2), Port(PortId(2))),
        // Another bridge knows nothing of these, and has its own.
        (0, 3, mac(1), mac(2), Flood),
        (0, 9, mac(2), mac(1), Port(PortId(3))),
        (0, 2, mac(2), mac(1), Port(PortId(1))),
        // Back to where it came from.
        (1, 1, mac(11), mac(1), Drop(Reason::SamePort)),
        (1, 1, mac(1), mac(1), Drop(Reason::SamePort)),
        // Groups.
        (1, 1, mac(1), BROADCAST, Flood),
        (1, 1, mac(1), MacAddress([0x01, 0, 0x5e, 0, 0, 1]), Flood),
        (1, 1, mac(1), MacAddress([0x01, 0x80, 0xc2, 0, 0, 0x00]), Flood),
        (1, 1, mac(1), MacAddress([0x01, 0x80, 0xc2, 0, 0, 0x01]), Drop(Reason::LinkLocal)),
        (1, 1, mac(1), MacAddress([0x01, 0x80, 0xc2, 0, 0, 0x0e]), Drop(Reason::LinkLocal)),
        (1, 1, mac(1), MacAddress([0x01, 0x80, 0xc2, 0, 0, 0x0f]), Drop(Reason::LinkLocal)),
        (1, 1, mac(1), MacAddress([0x01, 0x80, 0xc2, 0, 0, 0x10]), Flood),
        // No station sends from these, and they are not learnt.
        (1, 1, BROADCAST, mac(2), Drop(Reason::Source)),
        (1, 1, MacAddress([0; 6]), mac(2), Drop(Reason::Source)),
        (1, 1, MacAddress([0x01, 0, 0, 0, 0, 0]), mac(2), Drop(Reason::Source)),
        (1, 2, mac(2), MacAddress([0; 6]), Flood),
        // No such port.
        (1, 4, mac(1), mac(2), Drop(Reason::NoBridge)),
        (1, 4000, mac(1), mac(2), Drop(Reason::NoBridge)),
        // A station moves, and moves back.
        (2, 0, mac(1), mac(2), Port(PortId(2))),
        (2, 2, mac(2), mac(1), Port(PortId(0))),
        (2, 1, mac(1), mac(2), Port(PortId(2))),
        (2, 2, mac(2), mac(1), Port(PortId(1))),
        // Heard of at 2: known for 300 seconds, not longer.
        (302, 2, mac(2), mac(1), Port(PortId(1))),
        (303, 2, mac(2), mac(1), Flood),
        (303, 1, mac(1), mac(2), Port(PortId(2))),
    ];
    for (index, (time, port, source, destination, expected)) in table.into_iter().enumerate() {
        assert_eq!(switch.forward(PortId(port), 0, destination, source, second(time)), expected, "frame {index}");
    }
    assert_eq!(flood(&switch, 1), [0, 2]);
    assert_eq!(flood(&switch, 9), [3]);
    assert_eq!(flood(&switch, 5), []);
    assert_eq!(switch.bridge(PortId(9)), Some("other"));
}

/// Access ports of two VLANs and two trunks: what is known of one VLAN is not of another, and floods stay in theirs.
#[test]
fn vlans_are_networks_of_their_own() {
    let mut switch = Switch::new(TABLE_ENTRIES, AGEING, 7);
    let vlans = [Some(100), Some(100), Some(200), None, None];
    for (port, vlan) in (0..).zip(vlans) {
        assert_eq!(
            switch.add(
                PortId(port),
                "a",
                vlan.and_then(VlanId::new).map_or(Vlans::TRUNK, Vlans::access),
                GUEST_ENTRIES
            ),
            Ok(())
        );
    }
    let flood = |switch: &Switch, port, vlan| switch.flood(PortId(port), vlan).map(|port| port.0).collect::<Vec<_>>();
    assert_eq!(flood(&switch, 0, 100), [1, 3, 4]);
    assert_eq!(flood(&switch, 2, 200), [3, 4]);
    assert_eq!(flood(&switch, 3, 0), [4]);
    assert_eq!(flood(&switch, 3, 100), [0, 1, 4]);
    assert_eq!(flood(&switch, 3, 300), [4]);
    // One address in both VLANs, and without any.
    for (port, vlan) in [(1, 100), (2, 200), (4, 0)] {
        switch.forward(PortId(port), vlan, BROADCAST, mac(1), second(0));
    }
    for (vlan, to) in [(100, 1), (200, 2), (0, 4)] {
        assert_eq!(switch.forward(PortId(3), vlan, mac(1), mac(2), second(0)), Forward::Port(PortId(to)));
    }
    assert_eq!(switch.forward(PortId(3), 300, mac(1), mac(2), second(0)), Forward::Flood);
    assert_eq!((switch.len(), switch.learnt(PortId(3))), (7, 4));
}

#[test]
fn isolated_ports_reach_the_others_alone() {
    let mut switch = switch(&[(0, "a"), (1, "a"), (2, "a"), (3, "a")]);
    for port in [1, 2, 9] {
        switch.isolate(PortId(port));
    }
    for port in 0..4 {
        switch.forward(PortId(port), 0, BROADCAST, mac(port.into()), second(0));
    }
    for (from, others) in
        [(0, Vec::from([1, 2, 3])), (1, Vec::from([0, 3])), (2, Vec::from([0, 3])), (3, Vec::from([0, 1, 2]))]
    {
        assert_eq!(flood(&switch, from), others);
        for to in (0..4).filter(|to| *to != from) {
            let expected = match others.contains(&to) {
                true => Forward::Port(PortId(to)),
                false => Forward::Drop(Reason::Isolated),
            };
            assert_eq!(switch.forward(PortId(from), 0, mac(to.into()), mac(from.into()), second(1)), expected);
        }
    }
    // A number that is used again begins anew.
    assert!(switch.remove(PortId(1)));
    assert_eq!(switch.add(PortId(1), "a", Vlans::TRUNK, 4), Ok(()));
    assert_eq!(flood(&switch, 1), [0, 2, 3]);
}

#[test]
fn ports_come_and_go() {
    let mut switch = switch(&[(0, "a"), (1, "a"), (2, "b")]);
    assert_eq!(switch.add(PortId(1), "b", Vlans::TRUNK, 1), Err(AddError::Exists(PortId(1))));
    switch.forward(PortId(1), 0, BROADCAST, mac(1), second(0));
    switch.forward(PortId(0), 0, BROADCAST, mac(2), second(0));
    assert_eq!(switch.forward(PortId(0), 0, mac(1), mac(2), second(0)), Forward::Port(PortId(1)));
    assert!(switch.remove(PortId(1)));
    assert!(!switch.remove(PortId(1)));
    assert!(!switch.remove(PortId(77)));
    assert_eq!(switch.forward(PortId(0), 0, mac(1), mac(2), second(0)), Forward::Flood);
    assert_eq!(flood(&switch, 0), []);
    assert_eq!(switch.len(), 1);
    // The place of a bridge without ports serves for one of another name, where nothing is known.
    assert!(switch.remove(PortId(0)) && switch.is_empty());
    assert_eq!(switch.add(PortId(5), "c", Vlans::TRUNK, 4), Ok(()));
    assert_eq!(switch.bridge(PortId(5)), Some("c"));
    assert_eq!(switch.add(PortId(6), "a", Vlans::TRUNK, 4), Ok(()));
    assert_eq!(switch.bridge(PortId(6)), Some("a"));
    assert_eq!(switch.bridges.len(), 3);
    assert_eq!(flood(&switch, 5), []);
}

#[test]
fn a_flood_of_addresses_costs_its_sender_alone() {
    let mut switch = switch(&[(1, "a"), (2, "a"), (3, "a")]);
    for neighbour in 0..GUEST_ENTRIES as u32 {
        switch.forward(PortId(2), 0, BROADCAST, mac(neighbour), second(0));
    }
    let allocated = (switch.index.allocation_size(), switch.free.capacity());
    for address in 0..100_000 {
        switch.forward(PortId(1), 0, BROADCAST, mac(1_000_000 + address), second(1));
    }
    assert_eq!((switch.index.allocation_size(), switch.free.capacity()), allocated);
    assert_eq!(switch.learnt(PortId(1)), GUEST_ENTRIES);
    assert_eq!(switch.len(), 2 * GUEST_ENTRIES);
    assert!(switch.entries.len() <= 2 * GUEST_ENTRIES + 1);
    for neighbour in 0..GUEST_ENTRIES as u32 {
        assert_eq!(switch.forward(PortId(3), 0, mac(neighbour), mac(5_000_000), second(2)), Forward::Port(PortId(2)));
    }
    // Its own newest are known, its own oldest are not.
    assert_eq!(switch.forward(PortId(3), 0, mac(1_099_999), mac(5_000_000), second(2)), Forward::Port(PortId(1)));
    assert_eq!(switch.forward(PortId(3), 0, mac(1_000_000), mac(5_000_000), second(2)), Forward::Flood);
}

#[test]
fn a_full_table_has_room_for_every_port() {
    let mut switch = Switch::new(64, AGEING, 1);
    for port in 0..70 {
        switch.add(PortId(port), "a", Vlans::TRUNK, 32).unwrap();
    }
    for port in 0..2 {
        for address in 0..1000 {
            switch.forward(PortId(port), 0, BROADCAST, mac(u32::from(port) * 10_000 + address), second(0));
        }
    }
    assert_eq!(switch.len(), 64);
    for port in 2..60 {
        switch.forward(PortId(port), 0, BROADCAST, mac(900_000 + u32::from(port)), second(1));
        assert_eq!(
            switch.forward(PortId(0), 0, mac(900_000 + u32::from(port)), mac(0), second(1)),
            Forward::Port(PortId(port))
        );
    }
    assert_eq!(switch.len(), 64);
}

#[test]
fn a_full_table_keeps_pinned_addresses_and_its_size() {
    let mut switch = Switch::new(64, AGEING, 1);
    for port in 0..220 {
        switch.add(PortId(port), "a", Vlans::TRUNK, 32).unwrap();
    }
    for port in 200..220 {
        switch.pin(PortId(port), mac(800_000 + u32::from(port)));
    }
    for port in 0..200 {
        switch.forward(PortId(port), 0, BROADCAST, mac(900_000 + u32::from(port)), second(1));
        assert!(switch.len() <= 64, "{} of 64", switch.len());
    }
    for port in 200..220 {
        let found = switch.forward(PortId(0), 0, mac(800_000 + u32::from(port)), mac(900_000), second(1000));
        assert_eq!(found, Forward::Port(PortId(port)));
    }
}

#[test]
fn what_is_heard_often_stays() {
    let mut switch = Switch::new(64, AGEING, 1);
    switch.add(PortId(0), "a", Vlans::TRUNK, 8).unwrap();
    switch.add(PortId(1), "a", Vlans::TRUNK, 8).unwrap();
    for time in 0..1000 {
        switch.forward(PortId(0), 0, BROADCAST, mac(1), second(2 * time));
        switch.forward(PortId(0), 0, BROADCAST, mac(1000 + time as u32), second(2 * time));
    }
    assert_eq!(switch.forward(PortId(1), 0, mac(1), mac(2), second(2000)), Forward::Port(PortId(0)));
}

/// What a test does to a switch.
#[derive(Clone, Debug)]
enum Step {
    Add(u16, u8, usize),
    Remove(u16),
    Frame(u16, u32, u32),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..6_u16, 0..3_u8, 1..5_usize).prop_map(|(port, bridge, limit)| Step::Add(port, bridge, limit)),
        1 => (0..6_u16).prop_map(Step::Remove),
        20 => (0..6_u16, 0..12_u32, 0..12_u32).prop_map(|(port, to, from)| Step::Frame(port, to, from)),
        1 => (0..200_u16).prop_map(Step::Wait),
    ]
}

fn check(switch: &Switch) {
    let mut seen = 0;
    for (number, port) in switch.ports.iter().enumerate() {
        let Some(port) = port else { continue };
        let (mut older, mut at, mut count) = (NONE, port.oldest, 0);
        let mut heard = Instant(0);
        while at != NONE {
            let entry = &switch.entries[at as usize];
            assert_eq!((entry.older, entry.port.index()), (older, number));
            assert!(entry.heard >= heard, "by age");
            assert_eq!(entry.bridge, port.bridge);
            assert_eq!(switch.find((entry.bridge, entry.vlan), entry.address).map(|found| found.0), Some(at));
            (older, at, heard) = (at, entry.newer, entry.heard);
            count += 1;
        }
        assert_eq!((port.newest, port.count), (older, count));
        assert!(count <= port.limit);
        seen += count;
    }
    assert_eq!(seen, switch.len());
    assert!(seen <= switch.capacity);
    assert_eq!(seen + switch.free.len(), switch.entries.len());
    assert_eq!(switch.entries.capacity(), switch.capacity, "nothing is allocated");
}

proptest! {
    /// Against a model that forgets nothing: what is known is right, what is unknown was pushed out or is old; and all lists are whole.
    #[test]
    fn agrees_with_a_model(steps in proptest::collection::vec(step(), 0..300)) {
        let mut switch = Switch::new(16, AGEING, 3);
        let mut ports: BTreeMap<u16, u8> = BTreeMap::new();
        let mut places: BTreeMap<(u8, u32), (u16, Instant)> = BTreeMap::new();
        let mut now = second(0);
        for step in steps {
            match step {
                Step::Add(port, bridge, limit) => {
                    let added = switch.add(PortId(port), ["a", "b", "c"][usize::from(bridge)], Vlans::TRUNK, limit);
                    prop_assert_eq!(added.is_ok(), !ports.contains_key(&port));
                    ports.entry(port).or_insert(bridge);
                }
                Step::Remove(port) => {
                    prop_assert_eq!(switch.remove(PortId(port)), ports.remove(&port).is_some());
                    places.retain(|_, place| place.0 != port);
                }
                Step::Wait(seconds) => now = now + Duration::from_secs(seconds.into()),
                Step::Frame(port, to, from) => {
                    let verdict = switch.forward(PortId(port), 0, mac(to), mac(from), now);
                    let Some(&bridge) = ports.get(&port) else {
                        prop_assert_eq!(verdict, Forward::Drop(Reason::NoBridge));
                        continue;
                    };
                    places.insert((bridge, from), (port, now));
                    match (verdict, places.get(&(bridge, to))) {
                        (Forward::Port(PortId(found)), Some((place, heard))) => {
                            prop_assert_eq!(found, *place);
                            prop_assert!(found != port && now.since(*heard) <= AGEING);
                        }
                        (Forward::Drop(Reason::SamePort), Some((place, _))) => prop_assert_eq!(*place, port),
                        (Forward::Flood, _) => {
                            let expected: Vec<u16> =
                                ports.iter().filter(|(other, on)| **on == bridge && **other != port).map(|(other, _)| *other).collect();
                            let mut found = flood(&switch, port);
                            found.sort_unstable();
                            prop_assert_eq!(found, expected);
                        }
                        other => prop_assert!(false, "{other:?}"),
                    }
                }
            }
            check(&switch);
        }
    }
}

#[test]
fn hashes_differ_by_seed_and_spread() {
    let buckets = |seed| {
        let switch = Switch::new(1, AGEING, seed);
        let mut buckets = vec![0_u32; 256];
        for number in 0..4096 {
            let hash = hash(switch.key, (0, 0), mac(number));
            buckets[(hash & 0xff) as usize] += 1;
        }
        buckets
    };
    for seed in [0, 1, u64::MAX, 0x1234_5678_9abc_def0] {
        assert!(buckets(seed).iter().all(|count| *count < 48), "seed {seed}");
    }
    assert_ne!(buckets(1), buckets(2));
}
