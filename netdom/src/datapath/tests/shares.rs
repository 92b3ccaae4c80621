//! Who gets what share, and what is held for whom: of rounds, of pages, of groups; and what does not leave.

use super::frames::ethernet;
use super::{Net, PAGES, RING};
use crate::fakes::{Frontend, Outgoing};
use crate::netback::config::Features;
use crate::packet::Checksum;
use crate::statistics::DropCause;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use split_driver::memory::SharedMemory;
use split_driver::time::Duration;
use xen_pv_sys::GrantRef;

const LINUX: Features = Features { multicast_control: false, ..ALL };
const ALL: Features = Features {
    scatter_gather: true,
    gso_tcpv4: true,
    gso_tcpv6: true,
    checksum_v4: true,
    checksum_v6: true,
    receive_notify: true,
    multicast_control: true,
};

fn plain(bytes: Vec<u8>) -> Outgoing {
    Outgoing { bytes, ..Outgoing::default() }
}

/// Guests that all send as fast as they can get on alike, round by round.
#[test]
fn senders_have_equal_shares() {
    const SENDERS: usize = 7;
    const STATION: [u8; 6] = [0x02, 9, 9, 9, 9, 9];
    let mut net = Net::new(&[LINUX; SENDERS]);
    // The NIC has room for all that a round takes.
    net.wire.borrow_mut().room = 512;
    net.introduce();
    // A station on the wire that is known, or the packets would fill the queues of all.
    let hello = ethernet([0xff; 6], STATION, 60);
    net.wire.borrow_mut().incoming.push_back((hello, Checksum::Unverified));
    net.run();
    for guest in &mut net.guests {
        let frame = plain(ethernet(STATION, guest.mac, 100));
        while guest.place(&frame) {}
        guest.publish();
    }
    while let Some(port) = net.xen.next_event() {
        net.path.handle_event(port, net.now);
    }
    let mut taken = [0; SENDERS];
    loop {
        net.now = net.now + Duration::from_micros(10);
        let again = net.path.poll(net.now).again;
        for (guest, taken) in net.guests.iter_mut().zip(&mut taken) {
            *taken += guest.collect_answers();
        }
        let (least, most) = (taken.iter().min().unwrap(), taken.iter().max().unwrap());
        // One turn of a vif, which is a quarter of a ring.
        assert!(most - least <= 64, "{taken:?}");
        if !again {
            break;
        }
    }
    assert!(taken.iter().all(|taken| *taken >= 250), "{taken:?}");
    net.end();
}

/// A round has room for a packet beside two guests whose rings are full: none of them takes it all.
#[test]
fn busy_guests_leave_room_in_a_round() {
    let mut net = Net::new(&[LINUX; 3]);
    net.introduce();
    for (guest, packets) in [(0, 256), (1, 256), (2, 1)] {
        let guest = &mut net.guests[guest];
        // To itself: it goes nowhere, and is answered at once.
        let frame = plain(ethernet(guest.mac, guest.mac, 100));
        for _ in 0..packets {
            assert!(guest.place(&frame));
        }
        guest.publish();
    }
    while let Some(port) = net.xen.next_event() {
        net.path.handle_event(port, net.now);
    }
    net.path.poll(net.now);
    assert_eq!(net.guests[2].collect_answers(), 1);
    net.end();
}

/// Has a guest send broadcasts until the queues of all others are full.
fn fill(net: &mut Net, from: usize) {
    let frame = plain(ethernet([0xff; 6], net.guests[from].mac, 200));
    for _ in 0..12 {
        while net.guests[from].place(&frame) {}
        net.guests[from].publish();
        net.run();
        net.guests[from].collect_answers();
    }
}

fn held(net: &Net) -> usize {
    PAGES - RING - net.path.pool().available()
}

/// However a queue ends (it is taken, it expires, its vif is detached), the next one has as much room.
#[test]
fn what_queues_hold_is_counted() {
    for way in 0..3 {
        let mut net = Net::new(&[LINUX; 2]);
        net.introduce();
        // What was posted at the start is used up first.
        fill(&mut net, 0);
        let first = held(&net);
        assert!(first > 100, "{first}");
        for time in 0..4 {
            match way {
                0 => {
                    for _ in 0..4 {
                        net.guests[1].arrived();
                        net.guests[1].post(256);
                        net.run();
                    }
                    net.guests[1].arrived();
                }
                1 => {
                    net.now = net.now + Duration::from_secs(12);
                    net.run();
                }
                _ => {
                    net.path.detach(net.ids[1]).unwrap();
                    let guest = Frontend::new(&net.xen, 10 + time, false);
                    net.ids[1] = net.path.attach(guest.config("xenbr0", LINUX)).unwrap();
                    net.guests[1] = guest;
                }
            }
            assert_eq!(held(&net), 0, "{way}, {time}");
            fill(&mut net, 0);
            assert_eq!(held(&net), first, "{way}, {time}");
        }
        net.end();
    }
}

/// Guests that take nothing leave room for one that takes its packets late.
#[test]
fn idle_guests_leave_room_in_the_pool() {
    let mut net = Net::new(&[LINUX; 6]);
    net.introduce();
    fill(&mut net, 0);
    assert!(held(&net) < PAGES / 2, "{}", held(&net));
    let late = net.add(LINUX, "xenbr0");
    let before = net.path.vif_statistics(net.ids[late]).unwrap().drops[DropCause::QueueFull as usize];
    let frame = plain(ethernet([0xff; 6], net.guests[0].mac, 200));
    // Its 256 slots, and some more that must be held for it.
    for _ in 0..270 {
        net.send(0, &frame);
        net.guests[0].collect_answers();
    }
    let after = net.path.vif_statistics(net.ids[late]).unwrap().drops[DropCause::QueueFull as usize];
    assert_eq!(after, before);
    net.end();
}

/// A guest with multicast control gets broadcasts and the groups on its list, and no longer those that it took off.
#[test]
fn a_listener_gets_its_groups_alone() {
    let group = |number| [1, 0, 0x5e, 0, 0, number];
    let mut net = Net::new(&[LINUX, ALL]);
    net.introduce();
    for number in [1, 3, 3, 4] {
        assert!(net.guests[1].join(group(number)));
    }
    for number in [3, 5] {
        assert!(net.guests[1].leave(group(number)));
    }
    net.run();
    assert_eq!(net.guests[1].collect_answers(), 12);
    for (destination, arrives) in [
        (group(1), true),
        (group(2), false),
        (group(3), false),
        (group(4), true),
        ([0xff; 6], true),
        ([0x33, 0x33, 0, 0, 0, 1], false),
    ] {
        let frame = ethernet(destination, net.guests[0].mac, 100);
        net.send(0, &plain(frame));
        assert_eq!(net.guests[1].arrived().len(), usize::from(arrives), "{destination:02x?}");
    }
    net.end();
}

/// A packet whose later bytes could not be copied goes nowhere: not to the wire, not into a queue, not whole to a guest.
#[test]
fn nothing_of_a_failed_copy_leaves() {
    let mut net = Net::new(&[LINUX; 3]);
    net.introduce();
    // Guest 2 has no slots: what is for it is queued.
    let idle = Frontend::new(&net.xen, 9, true);
    net.ids.push(net.path.attach(idle.config("xenbr0", LINUX)).unwrap());
    net.guests.push(idle);
    // After this one, its packets are not fetched whole at once.
    net.send(0, &plain(ethernet(net.guests[1].mac, net.guests[0].mac, 100)));
    net.guests[1].arrived();
    let bad = Outgoing { cuts: vec![200], ..plain(ethernet([0xff; 6], net.guests[0].mac, 4000)) };
    assert!(net.guests[0].place(&bad));
    let last = net.guests[0].transmit.state().produced - 1;
    let word = 16 + 3 * (last as usize % 256);
    let grant = GrantRef(net.guests[0].rings[0].words()[word].load(Ordering::Relaxed));
    assert!(net.guests[0].domain.end_grant(grant));
    net.guests[0].publish();
    net.run();
    assert_eq!(net.failures().len(), 1);
    assert!(net.wire.borrow().sent.is_empty(), "it went to the wire");
    for guest in 1..3 {
        assert!(net.guests[guest].arrived().iter().all(|packet| packet.error), "it came to guest {guest}");
    }
    net.guests[3].post(256);
    net.run();
    assert_eq!(net.guests[3].arrived(), []);
    net.end();
}
