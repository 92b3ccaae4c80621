//! Segments from the wire that are joined before they are translated: each guest gets, and the router knows, what it would one by one.

use super::super::steering::{self, LISTENER};
use super::super::{Net, OFFLOADS, offloads};
use super::{GUEST, OWN, REMOTE, REMOTE_MAC, answer, receive, reply, routed_with, set_ends, super_frame, translated};
use super::{routed, routed_v6, segment_v6, take_sent};
use crate::datapath::tests::frames::{complete, is_complete, tcp};
use crate::fakes::{Arrived, Frontend, Outgoing};
use crate::packet::Checksum;
use crate::router::{gateway_for, mac_of};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use proptest::prelude::*;
use split_driver::time::Duration;
use xen_pv_sys::io::netif::HashTypes;

const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 7);
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const PSH: u8 = 8;
const ACK: u8 = 16;
const CWR: u8 = 128;
/// Flows: two of a guest that takes super-frames, one of a guest that does not, and one that nobody has.
const FLOWS: usize = 4;

/// What is wrong with a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    None,
    Header,
    Unverified,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    flow: usize,
    payload: usize,
    flags: u8,
    hops: u8,
    damage: Damage,
    /// Bytes that are left out before it.
    gap: u32,
}

const PLAIN: Segment = Segment { flow: 0, payload: 100, flags: ACK, hops: 64, damage: Damage::None, gap: 0 };

/// A net whose guests have opened their flows, and the router's port of each.
fn open() -> (Net, [u16; FLOWS]) {
    let guests = [(GUEST, Frontend::linux_features()), (OTHER, offloads::PLAIN)];
    let mut net = routed_with(OFFLOADS, &guests);
    let mut ports = [0, 0, 0, 9];
    for round in 0..2 {
        for (flow, (guest, port)) in [(0, 0x3039_u16), (0, 0x303a), (1, 0x3039)].into_iter().enumerate() {
            let (address, source) = (guests[guest].0, net.guests[guest].mac);
            let mut bytes = tcp(mac_of(gateway_for(address).address), source, false, 10);
            set_ends(&mut bytes, address, REMOTE);
            bytes[34..36].copy_from_slice(&port.to_be_bytes());
            complete(&mut bytes);
            net.send(guest, &Outgoing { bytes, ..Outgoing::default() });
            net.now = net.now + Duration::from_millis(1);
            if round == 0 {
                receive(&mut net, Vec::from([answer(REMOTE)]));
            } else {
                let sent = take_sent(&mut net);
                let last = sent.last().expect("the packet");
                ports[flow] = u16::from_be_bytes([last[34], last[35]]);
            }
        }
        take_sent(&mut net);
    }
    net.guests[..2].iter_mut().for_each(|guest| drop(guest.arrived()));
    (net, ports)
}

fn frames(segments: &[Segment], ports: &[u16; FLOWS]) -> Vec<(Vec<u8>, Checksum)> {
    let mut sequences = [1_u32; FLOWS];
    let frame = |segment: &Segment| {
        let sequence = &mut sequences[segment.flow];
        *sequence += segment.gap;
        let mut frame = tcp(mac_of(OWN), REMOTE_MAC, false, segment.payload);
        frame[22] = segment.hops;
        set_ends(&mut frame, REMOTE, OWN);
        frame[34..36].copy_from_slice(&80_u16.to_be_bytes());
        frame[36..38].copy_from_slice(&ports[segment.flow].to_be_bytes());
        frame[38..42].copy_from_slice(&sequence.to_be_bytes());
        frame[47] = segment.flags;
        // Bytes that no other segment has.
        frame[66..].iter_mut().enumerate().for_each(|(at, byte)| *byte = (*sequence as usize + at) as u8);
        *sequence += segment.payload as u32;
        complete(&mut frame);
        match segment.damage {
            Damage::None => (frame, Checksum::Verified),
            Damage::Unverified => (frame, Checksum::Unverified),
            Damage::Header => {
                frame[24] ^= 1;
                (frame, Checksum::Verified)
            }
        }
    };
    segments.iter().map(frame).collect()
}

/// A packet cut into its segments, without their identifications; and without PSH, which the last one has of those that were joined.
fn cut(packet: &Arrived) -> Vec<Vec<u8>> {
    let payload = &packet.bytes[66..];
    let size = packet.gso.map_or(payload.len(), |gso| gso.size.into()).max(1);
    let count = payload.len().div_ceil(size).max(1);
    let segment = |number: usize| {
        let part = &payload[number * size..payload.len().min((number + 1) * size)];
        let mut bytes = [&packet.bytes[..66], part].concat();
        let total = (bytes.len() - 14) as u16;
        bytes[16..18].copy_from_slice(&total.to_be_bytes());
        bytes[18..20].fill(0);
        let sequence = u32::from_be_bytes(*bytes[38..].first_chunk().unwrap()) + (number * size) as u32;
        bytes[38..42].copy_from_slice(&sequence.to_be_bytes());
        bytes[47] &= if number + 1 < count { !(FIN | PSH) } else { !PSH };
        bytes[47] &= if number == 0 { !0 } else { !CWR };
        let whole = packet.gso.is_none();
        assert!(!whole || is_complete(&packet.bytes), "a checksum is wrong");
        complete(&mut bytes);
        bytes[24..26].fill(0);
        bytes
    };
    (0..count).map(segment).collect()
}

/// All that can be told of what became of segments.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    /// By guest and port, in order.
    arrived: Vec<Vec<Vec<u8>>>,
    /// What the router sent to the wire.
    answers: Vec<Vec<u8>>,
    drops: Vec<u64>,
    sessions: Vec<Vec<u8>>,
}

/// Sends segments, so many at a time. Gives all that followed, and how many packets the guests got.
fn outcome(segments: &[Segment], at_a_time: usize) -> (Outcome, usize) {
    let (mut net, ports) = open();
    let frames = frames(segments, &ports);
    for some in frames.chunks(at_a_time) {
        net.wire.borrow_mut().incoming.extend(some.iter().cloned());
        net.path.handle_interrupt(net.nic, 0);
        net.run();
    }
    let (mut arrived, mut packets) = (Vec::new(), 0);
    for guest in [0, 1] {
        let all = net.guests[guest].arrived();
        packets += all.len();
        for port in [0x3039_u16, 0x303a] {
            let of_flow = all.iter().filter(|packet| packet.bytes[36..38] == port.to_be_bytes());
            arrived.push(of_flow.flat_map(cut).collect());
        }
    }
    let router = net.path.forwarder.router.as_ref().unwrap();
    let port = |guest: usize| net.path.router_of(net.ids[guest].port()).unwrap();
    let sessions = [0, 1].map(|guest| router.keep_sessions(port(guest)));
    let (drops, sessions) = (Vec::from(router.counts().drops), Vec::from(sessions));
    let outcome = Outcome { arrived, answers: take_sent(&mut net), drops, sessions };
    net.end();
    (outcome, packets)
}

fn segment() -> impl Strategy<Value = Segment> {
    let flow = prop_oneof![6 => Just(0_usize), 2 => Just(1), 2 => Just(2), 1 => Just(3)];
    let payload = prop_oneof![8 => Just(100_usize), 1 => 1..100_usize, 1 => Just(0)];
    let flags = prop_oneof![
        12 => Just(ACK), 2 => Just(ACK | PSH), 1 => Just(ACK | FIN), 1 => Just(ACK | RST), 1 => Just(RST), 1 => Just(SYN | ACK),
        1 => Just(SYN), 1 => any::<u8>(),
    ];
    let hops = prop_oneof![12 => Just(64_u8), 1 => Just(63), 1 => 0..3_u8];
    let damage = prop_oneof![12 => Just(Damage::None), 1 => Just(Damage::Header), 1 => Just(Damage::Unverified)];
    let gap = prop_oneof![12 => Just(0_u32), 1 => 1..5000_u32];
    let all = (flow, payload, flags, hops, damage, gap);
    all.prop_map(|(flow, payload, flags, hops, damage, gap)| Segment { flow, payload, flags, hops, damage, gap })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Segments that come at once are joined. Cut again, they are those that arrive where they come one by one.
    #[test]
    fn joined_segments_are_those_that_came(segments in proptest::collection::vec(segment(), 1..40)) {
        let (alone, packets) = outcome(&segments, 1);
        let (together, fewer) = outcome(&segments, segments.len());
        prop_assert_eq!(&alone, &together);
        prop_assert!(fewer <= packets);
    }
}

/// One translation for many segments; but what says more than that there are bytes is handled by itself.
#[test]
fn what_is_joined_is_translated_once() {
    let after = |changed: &[(usize, Segment)]| {
        let mut segments = [PLAIN; 8];
        changed.iter().for_each(|(at, segment)| segments[*at] = *segment);
        outcome(&segments, 8)
    };
    assert_eq!(after(&[]).1, 1);
    // To a guest that takes none, and to nobody.
    assert_eq!(outcome(&[Segment { flow: 2, ..PLAIN }; 8], 8).1, 8);
    assert_eq!(outcome(&[Segment { flow: 3, ..PLAIN }; 8], 8).0.drops.iter().sum::<u64>(), 8);
    let (quiet, ..) = after(&[]);
    // Two flows in turn.
    let turns: Vec<_> = (0..8).map(|number| Segment { flow: number % 2, ..PLAIN }).collect();
    assert_eq!(outcome(&turns, 8).1, 2);
    for (segment, packets) in [
        (Segment { flags: ACK | FIN, ..PLAIN }, 2),
        (Segment { flags: ACK | RST, ..PLAIN }, 3),
        (Segment { flags: RST, payload: 0, ..PLAIN }, 3),
    ] {
        let (heard, count) = after(&[(3, segment)]);
        assert_ne!(heard.sessions, quiet.sessions, "{segment:?} was not heard");
        assert_eq!(count, packets, "{segment:?}");
    }
    // Of those that may not pass on, each is answered by itself, and the others are joined.
    let last = Segment { hops: 1, ..PLAIN };
    let (told, count) = after(&[(3, last), (4, last)]);
    assert_eq!((count, told.answers.len(), told.drops.iter().sum::<u64>()), (2, 2, 2));
    let quoted = &told.answers[0][42..];
    assert_eq!((told.answers[0][34], &quoted[2..4], quoted[8]), (11, &152_u16.to_be_bytes()[..], 1), "as it came");
}

#[test]
fn a_hop_limit_ends_segments_of_ipv6_one_by_one() {
    let mut net = routed_v6();
    let mut frames: Vec<_> = (0..6).map(segment_v6).collect();
    frames[2..4].iter_mut().for_each(|frame| frame[21] = 1);
    receive(&mut net, frames);
    let arrived = net.guests[0].arrived();
    assert_eq!(arrived.iter().map(|packet| packet.bytes.len()).collect::<Vec<_>>(), [86 + 2000; 2]);
    let sent = take_sent(&mut net);
    assert_eq!((sent.len(), sent[0][54], &sent[0][66..68]), (2, 3, &1032_u16.to_be_bytes()[..]), "as it came");
    net.end();
}

/// More flows than are joined at a time: each comes whole, and in its order.
#[test]
fn a_flow_of_the_router_gives_way_to_one_of_the_switch() {
    let (mut net, ports) = open();
    let switched = net.guests.len() - 1;
    let hello = super::super::frames::ethernet([0xff; 6], net.guests[switched].mac, 50);
    net.send(switched, &Outgoing { bytes: hello, ..Outgoing::default() });
    take_sent(&mut net);
    let mut all = frames(&[PLAIN; 3], &ports);
    for port in 0..9 {
        let frame = super::super::frames::tcp_ports(net.guests[switched].mac, REMOTE_MAC, [port, 80], 100);
        all.insert(2, (frame, Checksum::Verified));
    }
    net.wire.borrow_mut().incoming.extend(all);
    net.path.handle_interrupt(net.nic, 0);
    net.run();
    let arrived: Vec<_> = net.guests[0].arrived().iter().map(|packet| packet.bytes.len()).collect();
    assert_eq!(arrived, [66 + 200, 66 + 100]);
    assert_eq!(net.guests[switched].arrived().iter().filter(|packet| packet.bytes.len() == 166).count(), 9);
    net.end();
}

/// A guest that chose its hash is told the one of the addresses that it sees.
#[test]
fn the_hash_is_of_the_packet_as_it_arrives() {
    let mut net = routed(OFFLOADS, &[OTHER]);
    net.ids.pop().and_then(|id| net.path.detach(id));
    net.guests.pop();
    let guest = Frontend::with_queues(&net.xen, 9, &[false; 4]).with_control();
    let mut config = guest.config("xenbr0", Frontend::linux_features());
    config.routed = Some(translated(&guest, GUEST));
    assert_eq!(net.attach(guest, config), LISTENER);
    steering::configure(&mut net, HashTypes::all(), [0, 1, 2, 3, 0, 1, 2, 3]);
    let mut packet = super_frame(&net, 100);
    packet.bytes[6..12].copy_from_slice(&net.guests[LISTENER].mac.clone());
    net.guests[LISTENER].queues[0].send(&packet);
    net.run();
    receive(&mut net, Vec::from([answer(REMOTE)]));
    net.now = net.now + Duration::from_millis(1);
    net.run();
    let sent = take_sent(&mut net);
    let last = sent.last().expect("the packet");
    let port = [last[34], last[35]];
    steering::arrived(&mut net);
    for count in [1, 3] {
        receive(&mut net, (0..count).map(|number| reply(port, number)).collect());
        let [(queue, packet)] = &steering::arrived(&mut net)[..] else { panic!("not one packet") };
        let value = steering::hash(&packet.bytes);
        assert_eq!(packet.hash.map(|hash| hash.value), Some(value.to_le_bytes()), "{count}");
        assert_eq!(*queue, value as usize % 4);
    }
    net.end();
}
