//! The control ring: packets go where the guest's hash and mapping say, and tell it; and headroom.

extern crate std;

use super::super::kept::KeptPort;
use super::Net;
use super::frames::{ethernet, tcp, tcp_ports};
use crate::fakes::{Arrived, Frontend, Outgoing};
use crate::netback::control::Hashing;
use crate::netback::toeplitz::{KEY_BYTES, toeplitz};
use crate::packet::{Checksum, Gso, GsoKind};
use alloc::vec::Vec;
use split_driver::time::Duration;
use xen_pv_sys::io::netif::{
    ExtraHash, HashTypes, RxFlags, XEN_NETIF_CTRL_HASH_ALGORITHM_NONE, XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ,
    XEN_NETIF_CTRL_TYPE_SET_HASH_ALGORITHM as SET_ALGORITHM, XEN_NETIF_CTRL_TYPE_SET_HASH_FLAGS as SET_FLAGS,
    XEN_NETIF_CTRL_TYPE_SET_HASH_KEY as SET_KEY, XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING as SET_MAPPING,
    XEN_NETIF_CTRL_TYPE_SET_HASH_MAPPING_SIZE as SET_MAPPING_SIZE,
};

const QUEUES: usize = 4;
pub(super) const LISTENER: usize = 1;

fn plain(bytes: Vec<u8>) -> Outgoing {
    Outgoing { bytes, ..Outgoing::default() }
}

fn key() -> [u8; KEY_BYTES] {
    core::array::from_fn(|place| (place as u8).wrapping_mul(73).wrapping_add(11))
}

/// One guest with a plain vif, one with queues and a control ring.
fn net() -> Net {
    let mut net = Net::new(&[Frontend::linux_features()]);
    net.add_queues(QUEUES);
    net.introduce();
    net
}

/// The listener's requests, one by one; all succeed.
fn ask(net: &mut Net, requests: &[(u16, [u32; 3])]) {
    for (kind, data) in requests {
        assert!(net.guests[LISTENER].control.as_mut().unwrap().ask(*kind, *data));
        net.run();
        let answers = net.guests[LISTENER].control.as_mut().unwrap().answers();
        assert_eq!(answers.iter().map(|answer| (answer.kind, answer.status)).collect::<Vec<_>>(), [(*kind, 0)]);
    }
}

/// A life may end while a request is served: the response before it is seen by then, and is taken for no request by the next life.
#[test]
fn a_response_is_shown_before_the_next_request_is_served() {
    let mut net = net();
    configure(&mut net, HashTypes::IPV4, [0; 8]);
    let control = net.guests[LISTENER].control.as_mut().unwrap();
    let grant = control.data_grant.0;
    for _ in 0..2 {
        assert!(control.ask(SET_KEY, [grant, KEY_BYTES as u32, 0]));
    }
    // Each key is copied by a call of its own.
    net.xen.end_life_at_call(1, || panic!("the life ends"));
    let ended = std::panic::catch_unwind(core::panic::AssertUnwindSafe(|| net.run()));
    assert!(ended.is_err());
    assert_eq!(net.guests[LISTENER].control.as_mut().unwrap().answers().len(), 1);
    core::mem::forget(net);
}

/// Has the listener choose its hash, and a mapping of 8 entries.
pub(super) fn configure(net: &mut Net, types: HashTypes, mapping: [u32; 8]) {
    let control = net.guests[LISTENER].control.as_ref().unwrap();
    assert!(control.data.write(0, &key()));
    let grant = control.data_grant.0;
    ask(
        net,
        &[
            (SET_ALGORITHM, [XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ, 0, 0]),
            (SET_FLAGS, [types.bits(), 0, 0]),
            (SET_KEY, [grant, KEY_BYTES as u32, 0]),
            (SET_MAPPING_SIZE, [8, 0, 0]),
        ],
    );
    let table: Vec<u8> = mapping.into_iter().flat_map(u32::to_le_bytes).collect();
    assert!(net.guests[LISTENER].control.as_ref().unwrap().data.write(0, &table));
    ask(net, &[(SET_MAPPING, [grant, 8, 0])]);
}

/// What arrived at the listener, with the queue.
pub(super) fn arrived(net: &mut Net) -> Vec<(usize, Arrived)> {
    let queues = net.guests[LISTENER].queues.iter_mut().enumerate();
    let all = queues.flat_map(|(number, queue)| queue.arrived().into_iter().map(move |packet| (number, packet)));
    let all = all.collect();
    for queue in &mut net.guests[LISTENER].queues {
        queue.post(256);
    }
    all
}

/// The hash of a frame's addresses and ports.
pub(super) fn hash(frame: &[u8]) -> u32 {
    let bytes =
        if frame[12..14] == [0x86, 0xdd] { &frame[22..58] } else { &[&frame[26..34], &frame[34..38]].concat()[..] };
    toeplitz(&key(), bytes)
}

#[test]
fn packets_go_where_the_mapping_says() {
    let mapping = [3, 1, 0, 2, 2, 0, 1, 3];
    let mut net = net();
    let [a, b] = [0, LISTENER].map(|guest| net.guests[guest].mac);
    configure(&mut net, HashTypes::all(), mapping);
    let mut queues = [0; QUEUES];
    for port in 0..64 {
        for from_wire in [false, true] {
            let mut frame = tcp_ports(b, a, [port, 80], 64);
            if from_wire {
                frame[6..12].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
                net.wire.borrow_mut().incoming.push_back((frame.clone(), Checksum::Verified));
                net.run();
            } else {
                net.send(0, &plain(frame.clone()));
            }
            let [(queue, packet)] = &arrived(&mut net)[..] else { panic!("not one packet") };
            let value = hash(&frame);
            assert_eq!(*queue, mapping[value as usize % 8] as usize);
            let expected = ExtraHash { kind: 1, algorithm: 1, value: value.to_le_bytes() };
            assert_eq!((packet.hash, packet.slots, &packet.bytes), (Some(expected), 2, &frame));
            queues[*queue] += 1;
        }
        net.guests[0].collect_answers();
    }
    assert!(queues.iter().all(|count| *count > 10), "{queues:?}");
    // A super-frame has both extra infos.
    let gso = Some(Gso { kind: GsoKind::TcpV6, size: 1000 });
    let bytes = tcp(b, a, true, 9000);
    net.send(0, &Outgoing { bytes: bytes.clone(), cuts: Vec::new(), checksum: Checksum::Blank, gso });
    let [(queue, packet)] = &arrived(&mut net)[..] else { panic!("not one packet") };
    let value = hash(&bytes);
    assert_eq!(*queue, mapping[value as usize % 8] as usize);
    assert_eq!(packet.hash, Some(ExtraHash { kind: 3, algorithm: 1, value: value.to_le_bytes() }));
    assert_eq!((packet.gso, packet.slots, &packet.bytes), (gso, 3 + 2, &bytes));
    assert_eq!(packet.flags, RxFlags::CSUM_BLANK | RxFlags::DATA_VALIDATED);
    // What is not hashed has no extra info, and goes where a hash of 0 goes.
    net.send(0, &plain(ethernet(b, a, 100)));
    let [(3, packet)] = &arrived(&mut net)[..] else { panic!("not in the mapping's first queue") };
    assert_eq!((packet.hash, packet.slots), (None, 1));
    net.end();
}

/// The hash goes with a packet that waits, and the slot that it takes is counted.
#[test]
fn held_packets_tell_their_hash() {
    let mut net = net();
    let [a, b] = [0, LISTENER].map(|guest| net.guests[guest].mac);
    configure(&mut net, HashTypes::IPV4_TCP, [2; 8]);
    let frame = tcp_ports(b, a, [7, 80], 64);
    for _ in 0..4 {
        for _ in 0..60 {
            assert!(net.guests[0].place(&plain(frame.clone())));
        }
        net.guests[0].publish();
        net.run();
        net.now = net.now + Duration::from_millis(6);
        net.run();
        net.guests[0].collect_answers();
    }
    // 256 slots, two a packet.
    let mut total = 0;
    for expected in [128, 112] {
        let packets = arrived(&mut net);
        assert_eq!(packets.len(), expected);
        let value = hash(&frame).to_le_bytes();
        let told = Some(ExtraHash { kind: 1, algorithm: 1, value });
        assert!(packets.iter().all(|(queue, packet)| *queue == 2 && packet.hash == told));
        total += packets.len();
        net.run();
    }
    assert_eq!(total, 240);
    net.end();
}

/// A packet with a hash waits where there is a slot for its bytes and none for the hash.
#[test]
fn the_hash_wants_a_slot() {
    for (headroom, slots) in [(0, 2), (256, 3)] {
        let mut net = Net::new(&[Frontend::linux_features()]);
        let guest = Frontend::new(&net.xen, 2, true).with_control();
        net.ids.push(net.path.attach(guest.config("xenbr0", Frontend::linux_features())).unwrap());
        net.guests.push(guest);
        configure(&mut net, HashTypes::IPV4, [0; 8]);
        net.path.set_headroom(net.ids[LISTENER], headroom);
        let [a, b] = [0, LISTENER].map(|guest| net.guests[guest].mac);
        net.guests[LISTENER].post(2 * slots - 1);
        net.run();
        for _ in 0..2 {
            net.send(0, &plain(tcp_ports(b, a, [7, 80], 64)));
        }
        net.now = net.now + Duration::from_millis(6);
        net.run();
        let arrived: Vec<_> = net.guests[LISTENER].arrived();
        assert_eq!(arrived.iter().map(|packet| packet.slots).collect::<Vec<_>>(), [slots]);
        net.guests[LISTENER].post(1);
        net.run();
        assert_eq!(net.guests[LISTENER].arrived().len(), 1);
        net.end();
    }
}

/// Without an algorithm, or with no header fields named, the choice is the backend's, and no hash is told.
#[test]
fn hashing_is_turned_off() {
    for off in [(SET_ALGORITHM, [XEN_NETIF_CTRL_HASH_ALGORITHM_NONE, 0, 0]), (SET_FLAGS, [0; 3])] {
        let mut net = net();
        let [a, b] = [0, LISTENER].map(|guest| net.guests[guest].mac);
        configure(&mut net, HashTypes::all(), [1; 8]);
        ask(&mut net, &[off]);
        for port in 0..64 {
            net.send(0, &plain(tcp_ports(b, a, [port, 80], 64)));
        }
        let packets = arrived(&mut net);
        assert!((0..QUEUES).all(|queue| packets.iter().any(|(one, _)| *one == queue)));
        assert!(packets.len() == 64 && packets.iter().all(|(_, packet)| packet.hash.is_none()));
        net.end();
    }
}

/// One queue with a hash: as Windows has it on one vCPU.
#[test]
fn one_queue_is_told_hashes_too() {
    let mut net = Net::new(&[Frontend::linux_features()]);
    net.add_queues(1);
    net.introduce();
    configure(&mut net, HashTypes::IPV4, [0; 8]);
    let [a, b] = [0, LISTENER].map(|guest| net.guests[guest].mac);
    let frame = tcp_ports(b, a, [7, 80], 64);
    net.send(0, &plain(frame.clone()));
    let [(0, packet)] = &arrived(&mut net)[..] else { panic!("not one packet") };
    let value = toeplitz(&key(), &frame[26..34]).to_le_bytes();
    assert_eq!(packet.hash, Some(ExtraHash { kind: 0, algorithm: 1, value }));
    net.end();
}

/// Any number of requests, any grants: each is answered, and neighbours do not notice.
#[test]
fn a_flood_of_requests() {
    let mut net = net();
    let [a, b] = [0, LISTENER].map(|guest| net.guests[guest].mac);
    let data = net.guests[LISTENER].control.as_ref().unwrap().data_grant.0;
    for round in 0..40_u32 {
        let control = net.guests[LISTENER].control.as_mut().unwrap();
        let mut asked = 0;
        // Of every second flood each request takes a hypercall.
        let request = |asked: u32| match round % 2 {
            0 => (SET_KEY, [data, KEY_BYTES as u32, 0]),
            _ => ((asked % 12) as u16, [[data, 60_000, 1][round as usize % 3], round * 7 % 140, asked]),
        };
        while let (kind, data) = request(asked)
            && control.ask(kind, data)
        {
            asked += 1;
        }
        let (_, calls) = net.xen.copy_count();
        while let Some(port) = net.xen.next_event() {
            net.path.handle_event(port, net.now);
        }
        net.path.poll(net.now);
        assert!(net.xen.copy_count().1 - calls <= 8, "a round is not for one guest's requests alone");
        net.send(0, &plain(tcp_ports(b, a, [round as u16, 80], 64)));
        assert_eq!(net.guests[LISTENER].control.as_mut().unwrap().answers().len(), asked as usize);
        assert_eq!(arrived(&mut net).len(), 1);
        net.guests[0].collect_answers();
    }
    assert_eq!(net.failures(), []);
    net.end();
}

/// Every length with every headroom: the first page leaves it free, says so twice, and nothing is lost.
#[test]
fn headroom_is_left_free() {
    for (asked, headroom) in [(1, 1), (256, 256), (2048, 2048), (4095, 4095), (4096, 4095), (u16::MAX, 4095)] {
        let mut net = net();
        net.path.set_headroom(net.ids[LISTENER], asked);
        let [a, b] = [0, LISTENER].map(|guest| net.guests[guest].mac);
        for length in [60, 1514, 3840, 3841, 4096, 9000, 65_000] {
            let bytes = ethernet(b, a, length - 14);
            net.send(0, &plain(bytes.clone()));
            net.guests[0].collect_answers();
            let [(_, packet)] = &arrived(&mut net)[..] else { panic!("not one packet") };
            assert_eq!((packet.offset, packet.headroom), (headroom, Some(headroom)));
            assert_eq!(packet.bytes, bytes);
            assert_eq!(packet.slots, (length + usize::from(headroom)).div_ceil(4096) + 1);
        }
        // None again.
        net.path.set_headroom(net.ids[LISTENER], 0);
        net.send(0, &plain(ethernet(b, a, 100)));
        let [(_, packet)] = &arrived(&mut net)[..] else { panic!("not one packet") };
        assert_eq!((packet.offset, packet.headroom, packet.slots), (0, None, 1));
        net.end();
    }
}

/// What a guest says once, where stations are, and what was counted goes over to another life, as bytes.
#[test]
fn another_life_knows_what_the_last_one_knew() {
    let mut net = net();
    let group = [0x01, 0x00, 0x5e, 0, 0, 9];
    configure(&mut net, HashTypes::all(), [3, 2, 1, 0, 3, 2, 1, 0]);
    assert!(net.path.take_changed() && !net.path.take_changed());
    assert!(net.guests[0].join(group));
    net.run();
    assert!(net.path.take_changed());
    let (station, there) = ([0x52, 0x54, 0, 0, 0, 77], net.guests[0].mac);
    net.wire.borrow_mut().incoming.push_back((ethernet(there, station, 60), Checksum::Unverified));
    net.path.handle_interrupt(net.nic, 0);
    net.run();
    let bytes = minicbor::to_vec((
        net.path.keep_vif(net.ids[0]).unwrap(),
        net.path.keep_vif(net.ids[LISTENER]).unwrap(),
        net.path.keep_nic(net.nic).unwrap(),
    ))
    .unwrap();
    let (first, listener, wire): (KeptPort, KeptPort, KeptPort) = minicbor::decode(&bytes).unwrap();

    let mut next = super::Net::new(&[Frontend::linux_features()]);
    next.add_queues(QUEUES);
    // Longer after the domain's creation than an address is remembered.
    next.now = next.now + Duration::from_secs(1000);
    next.path.begin_at(next.now);
    next.path.restore_vif(next.ids[0], &first);
    next.path.restore_vif(next.ids[LISTENER], &listener);
    next.path.restore_nic(next.nic, &wire);
    let kept = [
        next.path.keep_vif(next.ids[0]).unwrap(),
        next.path.keep_vif(next.ids[LISTENER]).unwrap(),
        next.path.keep_nic(next.nic).unwrap(),
    ];
    assert_eq!(kept, [first, listener, wire]);
    // Nothing is flooded: the station is known on the wire, and the guests where they were.
    let to_station = plain(tcp_ports(station, there, [7, 80], 64));
    next.send(0, &to_station);
    assert_eq!(next.wire.borrow().sent.len(), 1);
    assert!(arrived(&mut next).is_empty());
    net.end();
    next.end();
}

/// Nonsense from a box changes nothing but counters.
#[test]
fn a_life_takes_no_hash_that_no_guest_can_ask_for() {
    let hashing = |types, mapping: &[u8]| Hashing::from_parts(true, types, [0; 40], mapping, 4).is_some();
    assert!(hashing(HashTypes::all().bits(), &[0, 1, 2, 3]) && hashing(0, &[]));
    assert!(!hashing(1 << 7, &[]) && !hashing(1, &[4]) && !hashing(1, &[0; 129]));
}
