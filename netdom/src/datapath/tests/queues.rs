//! Vifs with several queues: all of them work, share what is the vif's, and end together.

use super::Net;
use super::frames::{ethernet, tcp_ports};
use crate::credit::Rate;
use crate::fakes::{Frontend, Outgoing};
use crate::netback::violation::{AttachError, RingName, Violation};
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use split_driver::hypervisor::XenError;
use split_driver::memory::SharedMemory;
use split_driver::time::Duration;
use xen_pv_sys::GrantRef;
use xen_pv_sys::errno::EINVAL;
use xen_pv_sys::io::netif::{TxFlags, TxRequest};

const STATION: [u8; 6] = [0x02, 9, 9, 9, 9, 9];

fn plain(bytes: Vec<u8>) -> Outgoing {
    Outgoing { bytes, ..Outgoing::default() }
}

/// A net of guests with so many queues each, and a station on the wire that is known.
fn net(queues: &[usize]) -> Net {
    let mut net = Net::new(&[]);
    for count in queues {
        net.add_queues(*count);
    }
    net.introduce();
    let hello = (ethernet([0xff; 6], STATION, 60), Default::default());
    net.wire.borrow_mut().incoming.push_back(hello);
    net.run();
    for queue in net.guests.iter_mut().flat_map(|guest| &mut guest.queues) {
        queue.arrived();
        queue.post(256);
    }
    net.run();
    net
}

/// From each queue of one guest to another guest and to the wire; one event and one answer a queue.
#[test]
fn every_queue_sends() {
    for count in 1..=8 {
        let mut net = net(&[count, 1]);
        let [a, b] = [0, 1].map(|guest| net.guests[guest].mac);
        for queue in 0..count {
            let frame = ethernet(b, a, 100 + queue);
            assert!(net.guests[0].queues[queue].send(&plain(frame.clone())));
            net.run();
            let arrived = net.guests[1].arrived();
            assert_eq!(arrived.iter().map(|packet| &packet.bytes).collect::<Vec<_>>(), [&frame]);
            assert!(net.guests[0].queues[queue].send(&plain(ethernet(STATION, a, 300 + queue))));
            net.run();
            assert_eq!(net.wire.borrow_mut().sent.pop().map(|frame| frame.bytes.len()), Some(314 + queue));
            assert_eq!(net.guests[0].queues[queue].collect_answers(), 2);
        }
        let statistics = net.path.vif_statistics(net.ids[0]).unwrap();
        assert_eq!(statistics.from_port.packets, 1 + 2 * count as u64, "all queues together");
        net.end();
    }
}

/// Flows of a guest and of the wire are spread over the queues; each stays in one, in its order, also where some of it was held.
#[test]
fn a_flow_stays_in_one_queue() {
    for (slots, from_wire) in [(256, false), (256, true), (16, false), (16, true)] {
        let mut net = net(&[1]);
        let mut guest = Frontend::with_queues(&net.xen, 2, &[false, true, true, false]);
        for queue in &mut guest.queues {
            queue.post(slots);
        }
        let hello = plain(ethernet([0xff; 6], guest.mac, 60));
        net.ids.push(net.path.attach(guest.config("xenbr0", Frontend::linux_features())).unwrap());
        net.guests.push(guest);
        net.send(1, &hello);
        net.guests[0].arrived();
        let [a, b] = [0, 1].map(|guest| net.guests[guest].mac);
        let source = if from_wire { STATION } else { a };
        for number in 0..7 {
            for flow in 0..40 {
                let mut frame = tcp_ports(b, source, [1000 + flow, 80], 64);
                frame.push(number);
                if from_wire {
                    net.wire.borrow_mut().incoming.push_back((frame, Default::default()));
                } else {
                    assert!(net.guests[0].place(&plain(frame)));
                }
            }
            net.guests[0].publish();
            net.run();
            // Longer than a sender waits.
            net.now = net.now + Duration::from_millis(6);
            net.run();
            net.guests[0].collect_answers();
        }
        let mut of_flow = vec![None; 40];
        let mut seen = vec![0; 40];
        for number in 0..4 {
            let mut arrived = net.guests[1].queues[number].arrived();
            assert!(arrived.len() > 15, "queue {number} got {} packets", arrived.len());
            net.guests[1].queues[number].post(256);
            net.run();
            let later = net.guests[1].queues[number].arrived();
            assert_eq!(later.is_empty(), slots == 256);
            arrived.extend(later);
            for packet in arrived {
                let flow = usize::from(u16::from_be_bytes([packet.bytes[34], packet.bytes[35]])) - 1000;
                assert_eq!(*of_flow[flow].get_or_insert(number), number, "flow {flow} in two queues");
                assert_eq!(*packet.bytes.last().unwrap(), seen[flow], "flow {flow} out of order");
                assert_eq!(packet.hash, None);
                seen[flow] += 1;
            }
        }
        assert!(seen.iter().all(|seen| *seen == 7), "{seen:?}");
        // What is no IP comes in the first.
        net.send(0, &plain(ethernet([0xff; 6], a, 100)));
        let counts: Vec<_> = net.guests[1].queues.iter_mut().map(|queue| queue.arrived().len()).collect();
        assert_eq!(counts, [1, 0, 0, 0]);
        net.end();
    }
}

/// A queue without receive slots holds its own packets, and no other's.
#[test]
fn a_full_queue_holds_up_itself_alone() {
    let mut net = net(&[1, 2]);
    let [a, b] = [0, 1].map(|guest| net.guests[guest].mac);
    // Two flows, one for each queue.
    let mut flows: [Option<Vec<u8>>; 2] = [None, None];
    for port in 0..40 {
        let frame = tcp_ports(b, a, [port, 80], 100);
        net.send(0, &plain(frame.clone()));
        for (queue, flow) in flows.iter_mut().enumerate() {
            if !net.guests[1].queues[queue].arrived().is_empty() {
                flow.get_or_insert_with(|| frame.clone());
            }
        }
    }
    let flows = flows.map(Option::unwrap);
    net.guests[1].queues.iter_mut().for_each(|queue| assert!(queue.post(256) > 0));
    net.run();
    net.guests[0].collect_answers();
    // More than the first queue has slots.
    for _ in 0..6 {
        for _ in 0..60 {
            assert!(net.guests[0].place(&plain(flows[0].clone())));
        }
        net.guests[0].publish();
        net.run();
        net.now = net.now + Duration::from_millis(6);
        net.run();
        net.guests[0].collect_answers();
    }
    for _ in 0..20 {
        net.send(0, &plain(flows[1].clone()));
        assert_eq!(net.guests[1].queues[1].arrived().len(), 1);
    }
    assert_eq!(net.guests[1].queues[0].arrived().len(), 256);
    net.guests[1].queues[0].post(256);
    net.run();
    assert_eq!(net.guests[1].queues[0].arrived().len(), 360 - 256);
    net.end();
}

/// A packet that waits for another guest's slots holds up those behind it in its queue, and not the other queues, whichever is served first.
#[test]
fn a_waiting_queue_holds_up_itself_alone() {
    for turn in 0..3 {
        let mut net = net(&[3, 1]);
        let [a, b] = [0, 1].map(|guest| net.guests[guest].mac);
        for _ in 0..256 + turn {
            let destination = if net.guests[1].receive.unconsumed().unwrap() < 256 { b } else { STATION };
            net.send(0, &plain(ethernet(destination, a, 100)));
            net.guests[0].collect_answers();
        }
        // The slots are used up, and others wait for them for some milliseconds.
        net.wire.borrow_mut().sent.clear();
        for queue in 0..3 {
            let destination = if queue == 1 { b } else { STATION };
            for _ in 0..3 {
                assert!(net.guests[0].queues[queue].place(&plain(ethernet(destination, a, 100))));
            }
            net.guests[0].queues[queue].publish();
        }
        net.run();
        assert_eq!(net.wire.borrow().sent.len(), 6);
        let answers = [0, 1, 2].map(|queue| net.guests[0].queues[queue].collect_answers());
        assert_eq!(answers, [3, 0, 3]);
        net.guests[1].arrived();
        net.guests[1].post(256);
        net.run();
        assert_eq!(net.guests[1].arrived().len(), 3);
        assert_eq!(net.guests[0].queues[1].collect_answers(), 3);
        net.end();
    }
}

/// A guest with many queues that takes nothing is held no more pages than one with a single queue.
#[test]
fn many_queues_hold_no_more_pages() {
    let held = [1, 8].map(|queues| {
        let mut net = net(&[1]);
        let guest = Frontend::with_queues(&net.xen, 2, &vec![true; queues]);
        net.ids.push(net.path.attach(guest.config("xenbr0", Frontend::linux_features())).unwrap());
        net.guests.push(guest);
        let [a, b] = [0, 1].map(|guest| net.guests[guest].mac);
        for port in 0..1000 {
            net.send(0, &plain(tcp_ports(b, a, [port, 80], 64)));
            net.guests[0].collect_answers();
        }
        let held = super::PAGES - super::RING - net.path.pool().available();
        for queue in &mut net.guests[1].queues {
            queue.post(256);
        }
        net.run();
        assert_eq!(net.path.pool().available(), super::PAGES - super::RING);
        // There is as much room as before.
        net.guests[1].queues.iter_mut().for_each(|queue| assert!(!queue.arrived().is_empty()));
        net.end();
        held
    });
    assert_eq!(held, [super::PAGES / 4; 2]);
}

/// Guests get on alike, whether they have one queue or eight; and the queues of one get on alike.
#[test]
fn shares_are_of_guests_not_of_queues() {
    let counts = [1, 8, 3, 8, 1];
    let mut net = net(&counts);
    // The NIC has room for all that a round takes.
    net.wire.borrow_mut().room = 512;
    for guest in &mut net.guests {
        let frame = plain(ethernet(STATION, guest.mac, 100));
        for queue in &mut guest.queues {
            while queue.place(&frame) {}
            queue.publish();
        }
    }
    while let Some(port) = net.xen.next_event() {
        net.path.handle_event(port, net.now);
    }
    let mut taken: Vec<Vec<usize>> = counts.iter().map(|queues| vec![0; *queues]).collect();
    loop {
        net.now = net.now + Duration::from_micros(10);
        let again = net.path.poll(net.now).again;
        for (guest, taken) in net.guests.iter_mut().zip(&mut taken) {
            for (queue, taken) in guest.queues.iter_mut().zip(taken) {
                *taken += queue.collect_answers();
            }
        }
        let guests: Vec<usize> = taken.iter().map(|queues| queues.iter().sum()).collect();
        if guests.iter().any(|taken| *taken >= 250) {
            let (least, most) = (guests.iter().min().unwrap(), guests.iter().max().unwrap());
            assert!(most - least <= 64, "{taken:?}");
            for queues in &taken {
                let (least, most) = (queues.iter().min().unwrap(), queues.iter().max().unwrap());
                assert!(most - least <= 64 / queues.len() + 1, "{taken:?}");
            }
            break;
        }
        assert!(again, "it rests too soon: {taken:?}");
    }
    net.run();
    net.end();
}

/// What one queue does not use of the vif's share, another does.
#[test]
fn one_busy_queue_has_the_whole_share() {
    let mut net = net(&[8]);
    let frame = plain(ethernet(STATION, net.guests[0].mac, 100));
    for _ in 0..64 {
        assert!(net.guests[0].queues[5].place(&frame));
    }
    net.guests[0].queues[5].publish();
    while let Some(port) = net.xen.next_event() {
        net.path.handle_event(port, net.now);
    }
    net.path.poll(net.now);
    assert_eq!(net.guests[0].queues[5].collect_answers(), 64);
    net.end();
}

/// `rate=` is the vif's: with all queues a guest sends no more than with one. A large packet of one queue is not starved by the others.
#[test]
fn the_rate_is_the_vifs() {
    let mut net = Net::new(&[]);
    let guest = Frontend::with_queues(&net.xen, 1, &[true; 4]);
    let rate = Some(Rate { bytes: 10_000, interval: Duration::from_millis(50) });
    let config = crate::netback::config::VifConfig { rate, ..guest.config("xenbr0", Frontend::linux_features()) };
    net.attach(guest, config);
    let mac = net.guests[0].mac;
    let (small, large) = (plain(ethernet(STATION, mac, 986)), plain(ethernet(STATION, mac, 60_000)));
    assert!(net.guests[0].queues[3].place(&large));
    let (mut gone, mut packets) = (None, [0; 4]);
    for interval in 0..30_u64 {
        net.now = split_driver::time::Instant(interval * 50_000_000);
        for (queue, packets) in net.guests[0].queues.iter_mut().zip(&mut packets) {
            *packets += queue.collect_answers();
            while queue.place(&small) {}
            queue.publish();
        }
        net.run();
        net.wire.borrow_mut().sent.clear();
        let bytes = net.path.vif_statistics(net.ids[0]).unwrap().from_port.bytes;
        assert!(bytes <= 10_000 * (interval + 1), "{bytes} in interval {interval}");
        if gone.is_none() && net.guests[0].queues[3].answers.iter().any(|(id, _)| *id == 0) {
            gone = Some(interval);
        }
    }
    assert!(packets.iter().all(|packets| *packets >= 40), "{packets:?}");
    assert!(gone.is_some_and(|interval| interval < 12), "the large packet never goes: {gone:?}");
    net.end();
}

/// A rule broken on one queue ends all of them, and what waits for any of them is let go.
#[test]
fn a_broken_queue_ends_the_vif() {
    let mut net = net(&[4, 1, 1]);
    let [m, a, b] = [0, 1, 2].map(|guest| net.guests[guest].mac);
    // Packets wait for its queues.
    for _ in 0..20 {
        for port in 0..60 {
            assert!(net.guests[1].place(&plain(tcp_ports(m, a, [port, 80], 100))));
        }
        net.guests[1].publish();
        net.run();
        net.now = net.now + Duration::from_millis(6);
        net.run();
        net.guests[1].collect_answers();
    }
    assert!(net.path.pool().available() < super::PAGES - super::RING - 60);
    let gref = net.guests[0].queues[2].transmit_grant(0);
    let bad = TxRequest { gref, offset: 4000, flags: TxFlags::empty(), id: 1, size: 200 };
    let good = plain(ethernet(b, m, 100));
    assert!(net.guests[0].queues[1].place(&good));
    assert!(net.guests[0].queues[2].transmit.push(&bad));
    assert!(net.guests[0].queues[3].place(&good));
    for queue in [1, 2, 3] {
        net.guests[0].queues[queue].publish();
    }
    net.run();
    assert_eq!(net.failures(), [(0, Violation::CrossesPage { offset: 4000, size: 200 })]);
    assert_eq!(net.path.pool().available(), super::PAGES - super::RING);
    for queue in 0..4 {
        net.guests[0].queues[queue].send(&good);
        net.run();
    }
    assert_eq!(net.failures(), []);
    net.guests[2].arrived();
    net.guests[2].post(256);
    let frame = ethernet(b, a, 99);
    net.send(1, &plain(frame.clone()));
    assert_eq!(net.guests[2].arrived().last().map(|packet| packet.bytes.clone()), Some(frame));
    net.end();
}

/// An overrun of any queue's rings and of the control ring.
#[test]
fn overruns_of_every_ring() {
    for queue in 0..3 {
        for (ring, name) in [(0, RingName::Transmit), (1, RingName::Receive), (2, RingName::Control)] {
            let mut net = net(&[3, 1]);
            let [m, a] = [0, 1].map(|guest| net.guests[guest].mac);
            let (memory, port) = match ring {
                2 => {
                    let control = net.guests[0].control.as_ref().unwrap();
                    (control.memory.clone(), control.port)
                }
                ring => (net.guests[0].queues[queue].rings[ring].clone(), net.guests[0].queues[queue].ports[0]),
            };
            memory.words()[0].fetch_add(1000, Ordering::Relaxed);
            net.guests[0].domain.notify(port);
            net.run();
            for number in 0..1200 {
                net.guests[1].send(&plain(tcp_ports(m, a, [number, 80], 64)));
                net.now = net.now + Duration::from_millis(1);
                net.run();
                net.guests[1].collect_answers();
            }
            let failures = net.failures();
            let expected = matches!(failures[..], [(0, Violation::Overrun { ring, .. })] if ring == name);
            assert!(expected, "{name} ring of queue {queue}: {failures:?}");
            net.end();
        }
    }
}

/// Queues that share a ring, or an event channel, or name what is not theirs: the guest is refused or harms itself, and all is given back.
#[test]
fn duplicates_among_queues() {
    let mut net = net(&[1]);
    let guest = Frontend::with_queues(&net.xen, 7, &[true, false, true]);
    let good = guest.config("xenbr0", Frontend::linux_features());
    let live = net.xen.live();
    let mut config = good.clone();
    config.queues[2].ports = config.queues[0].ports;
    assert_eq!(net.path.attach(config), Err(AttachError::Bind(XenError::Errno(EINVAL))));
    let mut config = good.clone();
    config.queues[1].receive_ring = GrantRef(3);
    assert!(matches!(net.path.attach(config), Err(AttachError::Map(RingName::Receive, XenError::Grant(_)))));
    let mut config = good.clone();
    config.control = Some(crate::netback::config::ControlConfig { ring: GrantRef(3), port: xen_pv_sys::Port(1) });
    assert!(matches!(net.path.attach(config), Err(AttachError::Map(RingName::Control, XenError::Grant(_)))));
    assert_eq!(net.xen.live(), live, "nothing is left behind");
    // One page as the rings of two queues, and of both directions.
    let mut config = good;
    config.queues[1].transmit_ring = config.queues[0].transmit_ring;
    config.queues[2].receive_ring = config.queues[0].transmit_ring;
    let mallory = net.attach(guest, config);
    let mac = net.guests[mallory].mac;
    for round in 0..20 {
        let frame = plain(ethernet([0xff; 6], mac, 60 + round));
        net.guests[mallory].queues[0].send(&frame);
        net.guests[mallory].queues[1].publish();
        let to_all = ethernet([0xff; 6], net.guests[0].mac, 60);
        net.send(0, &plain(to_all));
        net.guests[0].arrived();
        net.guests[0].post(256);
        net.guests[0].collect_answers();
    }
    assert!(net.failures().iter().all(|(guest, _)| *guest == mallory));
    net.end();
}

/// A vif is promised memory before it connects: for its queues, its control ring, and some hundred others that may wait for each queue.
#[test]
fn a_vif_takes_what_it_was_promised() {
    use crate::backend::{QUEUE_BYTES, VIF_BYTES};
    use crate::datapath::QueueId;
    use crate::datapath::control::Control;
    use crate::datapath::guest::GuestPort;
    use crate::datapath::queue::Queue;
    use split_driver::fakes::FakeXen;
    let waiters = 256 * size_of::<QueueId>();
    let queue = size_of::<Queue<FakeXen>>() + waiters;
    assert!(queue <= QUEUE_BYTES, "{queue}");
    let vif = size_of::<GuestPort<FakeXen>>() + size_of::<Control<FakeXen>>() + queue;
    assert!(vif <= VIF_BYTES, "{vif}");
}
