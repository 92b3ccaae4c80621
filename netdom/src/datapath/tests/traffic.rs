//! What well-behaved guests and the wire send arrives, byte for byte.

use super::frames::{ethernet, tcp};
use super::{Net, RING};
use crate::fakes::{Frontend, Outgoing};
use crate::netback::config::Features;
use crate::nic::Link;
use crate::packet::{Checksum, Gso, GsoKind};
use crate::statistics::DropCause;
use alloc::vec;
use alloc::vec::Vec;
use split_driver::time::Duration;
use xen_pv_sys::io::netif::RxFlags;

fn plain(bytes: alloc::vec::Vec<u8>) -> Outgoing {
    Outgoing { bytes, ..Outgoing::default() }
}

fn linux() -> Features {
    Frontend::linux_features()
}

#[test]
fn unicast_goes_one_way_and_broadcast_all() {
    let mut net = Net::new(&[linux(), linux(), linux()]);
    net.introduce();
    let (a, b) = (net.guests[0].mac, net.guests[1].mac);
    let frame = ethernet(b, a, 1000);
    net.send(0, &plain(frame.clone()));
    let arrived = net.guests[1].arrived();
    assert_eq!(arrived.len(), 1);
    assert_eq!(arrived[0].bytes, frame);
    assert_eq!(net.guests[2].arrived(), []);
    assert_eq!(net.guests[0].arrived(), []);
    assert!(net.wire.borrow().sent.is_empty());

    let frame = ethernet([0xff; 6], a, 100);
    net.send(0, &plain(frame.clone()));
    for guest in &mut net.guests[1..] {
        let arrived = guest.arrived();
        assert_eq!(arrived.len(), 1);
        assert_eq!(arrived[0].bytes, frame);
    }
    assert_eq!(net.guests[0].arrived(), [], "it came back");
    assert_eq!(net.wire.borrow().sent.len(), 1);
    assert_eq!(net.wire.borrow().sent[0].bytes, frame);
    net.guests[0].collect_answers();
    assert!(net.guests[0].answers.iter().all(|(_, status)| *status == 0));
    net.end();
}

/// A look-up that the switch just made is not made again, unless something else was learnt meanwhile.
#[test]
fn a_station_that_moves_within_a_round_is_found_where_it_is() {
    let mut net = Net::new(&[linux()]);
    net.introduce();
    let (a, peer) = (net.guests[0].mac, [2, 0, 0, 0, 0, 9]);
    let inward = || (ethernet(a, peer, 200), Checksum::Unverified);
    // The guest's own address comes from the wire: it has moved there.
    let moved = (ethernet([0xff; 6], a, 100), Checksum::Unverified);
    net.wire.borrow_mut().incoming.extend([inward(), inward(), moved, inward()]);
    net.run();
    assert_eq!(net.guests[0].arrived().iter().filter(|packet| packet.bytes == inward().0).count(), 2);
    assert_eq!(net.path.nic_statistics(net.nic).unwrap().drops[DropCause::NotForwarded as usize], 1);
    net.end();
}

/// What is in local memory already goes to a NIC at once, but not past what must still be copied.
#[test]
fn short_packets_do_not_overtake_long_ones() {
    let mut net = Net::new(&[linux(), linux()]);
    net.introduce();
    let peer = [2, 0, 0, 0, 0, 9];
    net.wire.borrow_mut().incoming.push_back((ethernet([0xff; 6], peer, 50), Checksum::Unverified));
    net.run();
    let (a, b) = (net.guests[0].mac, net.guests[1].mac);
    // The sender's last packet was for a guest, so that of a long one the head alone is fetched; and then for the wire.
    net.send(0, &plain(ethernet(b, a, 100)));
    for _ in 0..2 {
        let frames = [100, 8000, 200, 8100, 300].map(|payload| ethernet(peer, a, payload));
        for frame in &frames {
            assert!(net.guests[0].place(&plain(frame.clone())));
        }
        net.guests[0].publish();
        net.run();
        let sent = core::mem::take(&mut net.wire.borrow_mut().sent);
        assert!(sent.iter().map(|frame| &frame.bytes).eq(&frames), "{:?}", sent.iter().map(|frame| frame.bytes.len()));
        net.guests[0].collect_answers();
    }
    let statistics = net.path.vif_statistics(net.ids[0]).unwrap();
    assert_eq!(statistics.from_port.packets, 1 + 1 + 2 * 5);
    net.end();
}

#[test]
fn wire_to_guest_and_back() {
    let mut net = Net::new(&[linux(), linux()]);
    net.introduce();
    let peer = [2, 0, 0, 0, 0, 9];
    let b = net.guests[1].mac;
    let frame = ethernet(b, peer, 1500);
    let incoming = (frame.clone(), Checksum::Verified);
    net.wire.borrow_mut().incoming.push_back(incoming);
    net.run();
    let arrived = net.guests[1].arrived();
    assert_eq!(arrived.len(), 1);
    assert_eq!(arrived[0].bytes, frame);
    assert_eq!(arrived[0].flags, RxFlags::DATA_VALIDATED);
    assert_eq!(net.guests[0].arrived(), []);
    // The peer is known now: a frame to it goes to the wire alone.
    let frame = ethernet(peer, b, 600);
    net.send(1, &plain(frame.clone()));
    assert_eq!(net.wire.borrow().sent.len(), 1);
    assert_eq!(net.wire.borrow().sent[0].bytes, frame);
    assert_eq!(net.guests[0].arrived(), []);
    net.end();
}

/// Every way of cutting a long packet into slots, to a guest and to the wire.
#[test]
fn chains_arrive_whole() {
    let cuts = [
        vec![],
        vec![66],
        vec![14, 1, 100],
        vec![1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
        vec![4096, 4096],
        vec![128, 4000, 3],
        vec![0, 200, 0],
    ];
    for peer_first in [false, true] {
        for cuts in &cuts {
            let mut net = Net::new(&[linux(), linux()]);
            net.introduce();
            let peer = [2, 0, 0, 0, 0, 9];
            if peer_first {
                let frame = ethernet(net.guests[0].mac, peer, 100);
                let incoming = (frame, Checksum::Unverified);
                net.wire.borrow_mut().incoming.push_back(incoming);
                net.run();
                net.guests[0].arrived();
            }
            let packet =
                |to, from| Outgoing { bytes: ethernet(to, from, 9000 - 14), cuts: cuts.clone(), ..Outgoing::default() };
            let (a, b) = (net.guests[0].mac, net.guests[1].mac);
            let to_guest = packet(b, a);
            net.send(0, &to_guest);
            let arrived = net.guests[1].arrived();
            assert_eq!(arrived.len(), 1, "{cuts:?}");
            assert_eq!(arrived[0].bytes, to_guest.bytes, "{cuts:?}");
            assert_eq!(arrived[0].slots, 3);
            for _ in 0..2 {
                let to_wire = packet(peer, a);
                net.send(0, &to_wire);
                let sent = net.wire.borrow_mut().sent.pop().unwrap();
                assert_eq!(sent.bytes, to_wire.bytes, "{cuts:?}");
                net.guests[1].arrived();
            }
            net.guests[0].collect_answers();
            assert!(net.guests[0].answers.iter().all(|(_, status)| *status == 0));
            net.end();
        }
    }
}

#[test]
fn super_frames_go_whole_between_guests() {
    let mut net = Net::new(&[linux(), linux()]);
    net.introduce();
    let (a, b) = (net.guests[0].mac, net.guests[1].mac);
    // The first packet shows where this guest's packets go.
    net.send(0, &plain(ethernet(b, a, 100)));
    net.guests[1].arrived();
    net.guests[1].post(256);
    let packet = Outgoing {
        bytes: tcp(b, a, false, 65_000),
        cuts: vec![66],
        checksum: Checksum::Blank,
        gso: Some(Gso { kind: GsoKind::TcpV4, size: 1448 }),
    };
    let (copies, calls) = net.xen.copy_count();
    net.send(0, &packet);
    let arrived = net.guests[1].arrived();
    assert_eq!(arrived.len(), 1);
    assert_eq!(arrived[0].bytes, packet.bytes);
    assert_eq!(arrived[0].gso, packet.gso);
    assert_eq!(arrived[0].flags, RxFlags::CSUM_BLANK | RxFlags::DATA_VALIDATED);
    assert_eq!(arrived[0].slots, 16 + 1);
    let (copies_after, calls_after) = net.xen.copy_count();
    assert_eq!(calls_after - calls, 2, "one batch of heads, one of payload");
    assert!(copies_after - copies < 40);
    net.end();
}

#[test]
fn many_packets_two_batches_one_notification() {
    let mut net = Net::new(&[linux(), linux()]);
    net.introduce();
    let (a, b) = (net.guests[0].mac, net.guests[1].mac);
    net.guests[1].domain.take_notifications(net.guests[1].ports[0]);
    let (_, calls) = net.xen.copy_count();
    for place in 0..60 {
        assert!(net.guests[0].place(&plain(ethernet(b, a, 60 + place))));
    }
    net.guests[0].publish();
    net.run();
    let (_, calls_after) = net.xen.copy_count();
    assert_eq!(calls_after - calls, 2);
    let arrived = net.guests[1].arrived();
    assert_eq!(arrived.len(), 60);
    for (place, packet) in arrived.iter().enumerate() {
        assert_eq!(packet.bytes.len(), 14 + 60 + place, "order");
    }
    let port = net.guests[1].ports[0];
    assert_eq!(net.guests[1].domain.take_notifications(port), 1);
    net.end();
}

/// A guest without receive slots: packets wait, in order, bounded, and not for ever.
#[test]
fn queue_holds_and_drains_in_order() {
    let mut net = Net::new(&[linux(), linux()]);
    net.introduce();
    let (a, b) = (net.guests[0].mac, net.guests[1].mac);
    let mut sent = 0;
    for _ in 0..8 {
        for _ in 0..60 {
            let mut frame = ethernet(b, a, 100);
            frame[20..24].copy_from_slice(&u32::to_ne_bytes(sent));
            assert!(net.guests[0].place(&plain(frame)));
            sent += 1;
        }
        net.guests[0].publish();
        net.run();
        net.guests[0].collect_answers();
    }
    // 256 slots were posted, the rest waits.
    let mut got = 0;
    for _ in 0..3 {
        for packet in net.guests[1].arrived() {
            assert_eq!(packet.bytes[20..24], u32::to_ne_bytes(got));
            got += 1;
        }
        net.guests[1].post(256);
        net.run();
    }
    assert_eq!(got, sent);
    assert_eq!(net.failures(), []);
    net.end();
}

#[test]
fn queue_is_bounded_and_expires() {
    let mut net = Net::new(&[linux(), linux()]);
    net.introduce();
    let (a, b) = (net.guests[0].mac, net.guests[1].mac);
    for _ in 0..20 {
        for _ in 0..60 {
            assert!(net.guests[0].place(&plain(ethernet(b, a, 1400))));
        }
        net.guests[0].publish();
        net.run();
        // Longer than a sender waits.
        net.now = net.now + Duration::from_millis(6);
        net.run();
        net.guests[0].collect_answers();
    }
    let drops = net.path.vif_statistics(net.ids[1]).unwrap().drops;
    assert!(drops[DropCause::QueueFull as usize] > 0);
    let held = super::PAGES - RING - net.path.pool().available();
    assert!(held > 100 && held <= super::super::backlog::BACKLOG_PAGES, "{held}");
    // A page each.
    assert_eq!(net.path.held().get() as usize, held);
    let deadline = net.run().deadline.expect("a look at the queue");
    net.now = deadline.max(net.now + Duration::from_secs(11));
    net.run();
    assert_eq!(net.path.pool().available(), super::PAGES - RING);
    let drops = net.path.vif_statistics(net.ids[1]).unwrap().drops;
    assert_eq!(drops[DropCause::Expired as usize], held as u64);
    assert_eq!(net.path.held().get(), 0);
    net.end();
}

#[test]
fn bridges_are_apart() {
    let mut net = Net::new(&[linux()]);
    net.add(linux(), "other");
    net.add(linux(), "other");
    net.introduce();
    let frame = ethernet([0xff; 6], net.guests[1].mac, 100);
    net.send(1, &plain(frame));
    assert_eq!(net.guests[0].arrived(), []);
    assert_eq!(net.guests[2].arrived().len(), 1);
    assert!(net.wire.borrow().sent.is_empty());
    net.end();
}

#[test]
fn groups_are_filtered_where_asked_for() {
    let mut net = Net::new(&[linux(), Features { multicast_control: true, ..linux() }]);
    net.introduce();
    let group = [1, 0, 0x5e, 0, 0, 1];
    let frame = ethernet(group, net.guests[0].mac, 100);
    net.send(0, &plain(frame.clone()));
    assert_eq!(net.guests[1].arrived(), []);
    net.path.set_multicast_control(net.ids[1], false);
    net.send(0, &plain(frame));
    assert_eq!(net.guests[1].arrived().len(), 1);
    net.end();
}

/// The NIC's ring is full: guests wait, nothing is lost.
#[test]
fn a_full_nic_holds_the_senders_back() {
    let mut net = Net::new(&[linux()]);
    net.introduce();
    net.wire.borrow_mut().hold = true;
    let frame = ethernet([2, 0, 0, 0, 0, 9], net.guests[0].mac, 100);
    let mut placed = 0;
    for _ in 0..20 {
        while net.guests[0].place(&plain(frame.clone())) {
            placed += 1;
        }
        net.guests[0].publish();
        net.run();
        net.guests[0].collect_answers();
    }
    assert!(placed < 1000, "{placed}");
    net.wire.borrow_mut().hold = false;
    for _ in 0..100 {
        net.now = net.now + Duration::from_millis(1);
        net.run();
    }
    assert_eq!(net.wire.borrow().sent.len(), placed);
    net.end();
}

/// A NIC without a link takes nothing and holds nobody back, though its ring is full; what is sent then is lost, and counted.
#[test]
fn a_nic_without_a_link_holds_nobody_back() {
    let mut net = Net::new(&[linux(), linux()]);
    net.introduce();
    let (a, b) = (net.guests[0].mac, net.guests[1].mac);
    let outwards = ethernet([2, 0, 0, 0, 0, 9], a, 100);
    {
        let mut wire = net.wire.borrow_mut();
        wire.hold = true;
        wire.room = 100;
    }
    for guest in &mut net.guests {
        for _ in 0..64 {
            let frame = ethernet([2, 0, 0, 0, 0, 9], guest.mac, 100);
            assert!(guest.place(&plain(frame)));
        }
        guest.publish();
    }
    net.run();
    for guest in &mut net.guests {
        guest.arrived();
    }
    net.wire.borrow_mut().down = true;
    net.path.handle_interrupt(net.nic, 0);
    let change = net.path.poll_link().unwrap();
    assert_eq!((change.nic, change.bridge.as_str(), change.link), (net.nic, "xenbr0", Link::Down));
    let lost = net.path.nic_statistics(net.nic).unwrap().drops[DropCause::NoLink as usize];
    assert_eq!(lost, 128 - 100, "what waited for room is dropped");
    for _ in 0..10 {
        net.guests[0].post(64);
        net.guests[1].post(64);
        net.send(0, &plain(outwards.clone()));
        net.send(0, &plain(ethernet(b, a, 100)));
        net.guests[0].collect_answers();
        assert!(net.guests[1].arrived().iter().any(|packet| packet.bytes[..6] == b), "guests reach each other");
    }
    assert_eq!(net.path.nic_statistics(net.nic).unwrap().drops[DropCause::NoLink as usize], lost + 10);
    {
        let mut wire = net.wire.borrow_mut();
        (wire.hold, wire.down) = (false, false);
        wire.sent.clear();
    }
    net.path.handle_interrupt(net.nic, 0);
    assert_eq!(net.path.poll_link().map(|change| change.link), Some(Link::Up(1000)));
    net.send(0, &plain(outwards));
    assert_eq!(net.wire.borrow().sent.len(), 1);
    net.end();
}

/// A guest that is a little slow: senders wait, nothing is lost, copied twice or out of order.
#[test]
fn senders_wait_for_a_slow_guest() {
    let mut net = Net::new(&[linux(), linux()]);
    net.introduce();
    let (a, b) = (net.guests[0].mac, net.guests[1].mac);
    let (mut placed, mut got) = (0_u32, 0_u32);
    for _ in 0..200 {
        for _ in 0..60 {
            let mut frame = ethernet(b, a, 100);
            frame[20..24].copy_from_slice(&placed.to_ne_bytes());
            placed += u32::from(net.guests[0].place(&plain(frame)));
        }
        net.guests[0].publish();
        net.run();
        net.guests[0].collect_answers();
        // It takes some forty packets each time.
        net.guests[1].post(40);
        for packet in net.guests[1].arrived() {
            assert_eq!(packet.bytes[20..24], got.to_ne_bytes());
            got += 1;
        }
        assert!(net.path.pool().available() >= super::PAGES - RING, "nothing is queued");
    }
    assert!(got > 5000 && placed - got <= 256 + 60, "{got} of {placed}");
    assert_eq!(net.path.vif_statistics(net.ids[1]).unwrap().drops, [0; DropCause::COUNT]);
    net.end();
}

/// A guest that takes nothing: its peer waits for some milliseconds, once, and then reaches others.
#[test]
fn senders_do_not_wait_for_ever() {
    let mut net = Net::new(&[linux(), linux(), linux()]);
    net.introduce();
    let [a, b, c] = [0, 1, 2].map(|guest| net.guests[guest].mac);
    for round in 0..40 {
        for _ in 0..20 {
            assert!(net.guests[0].place(&plain(ethernet(b, a, 100))));
        }
        net.guests[0].publish();
        net.run();
        if round == 20 {
            // 256 were taken; the rest waits.
            net.now = net.now + Duration::from_millis(6);
            net.run();
        }
        net.guests[0].collect_answers();
        if round >= 20 {
            net.send(0, &plain(ethernet(c, a, 100)));
            assert_eq!(net.guests[2].arrived().len(), 1, "round {round}");
        }
    }
    net.end();
}

/// BPDUs go from guest to guest, so that one that bridges two vifs sees its loop; to and from the wire only where that is asked for. Other
/// frames for the ends of a link go nowhere.
#[test]
fn bpdus_stay_among_the_guests() {
    for on_wire in [false, true] {
        for last in 0..=15 {
            let mut net = Net::new(&[linux(); 3]);
            net.path.set_bpdus_on_wire(on_wire);
            net.introduce();
            let group = [0x01, 0x80, 0xc2, 0, 0, last];
            let sent = plain(ethernet(group, net.guests[0].mac, 46));
            net.send(0, &sent);
            let incoming = ethernet(group, [2, 0, 0, 0, 0, 9], 50);
            net.wire.borrow_mut().incoming.push_back((incoming.clone(), Checksum::Unverified));
            net.run();
            let expected = match (last, on_wire) {
                (0, false) => vec![&sent.bytes],
                (0, true) => vec![&sent.bytes, &incoming],
                _ => vec![],
            };
            let arrived: Vec<_> = net.guests[1].arrived().into_iter().map(|packet| packet.bytes).collect();
            assert_eq!(arrived.iter().collect::<Vec<_>>(), expected);
            assert_eq!(net.guests[2].arrived().len(), expected.len());
            assert_eq!(net.guests[0].arrived().len(), usize::from(last == 0 && on_wire));
            assert_eq!(net.wire.borrow().sent.len(), usize::from(last == 0 && on_wire));
            net.end();
        }
    }
}
