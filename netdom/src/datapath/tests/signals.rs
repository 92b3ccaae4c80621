//! When frontends are notified and NICs are told, while rounds follow each other.

use super::Net;
use super::frames::ethernet;
use crate::fakes::{Frontend, Outgoing};
use crate::packet::Checksum;
use alloc::vec::Vec;
use split_driver::time::Duration;

/// A guest sends 200 packets, of which a round takes 64, and each round comes `interval` after the one before. Gives, by rounds, how often the
/// NIC was told and the guest notified.
fn signals(interval: Duration) -> Vec<(usize, u64)> {
    const PACKETS: usize = 200;
    let mut net = Net::new(&[Frontend::linux_features()]);
    net.introduce();
    // Longer than any signal waits.
    net.now = net.now + Duration::from_millis(1);
    let frame = ethernet([0xff; 6], net.guests[0].mac, 100);
    for _ in 0..PACKETS {
        assert!(net.guests[0].send(&Outgoing { bytes: frame.clone(), ..Outgoing::default() }));
    }
    let port = net.guests[0].ports[0];
    net.guests[0].domain.take_notifications(port);
    let mut counts = Vec::new();
    loop {
        net.now = net.now + interval;
        while let Some(port) = net.xen.next_event() {
            net.path.handle_event(port, net.now);
        }
        let told = net.wire.borrow().flushes;
        let poll = net.path.poll(net.now);
        // The frontend asks for the next answer's notification, as one does that takes all answers each time.
        net.guests[0].collect_answers();
        let notified = net.guests[0].domain.take_notifications(port);
        counts.push((net.wire.borrow().flushes - told, notified));
        if !poll.again {
            break;
        }
    }
    assert_eq!(net.wire.borrow().sent.len(), PACKETS, "nothing is held when the data path rests");
    assert_eq!(net.guests[0].queues[0].answers.len(), PACKETS);
    net.end();
    counts
}

#[test]
fn rounds_that_follow_at_once_share_a_signal() {
    // The first one at once; then no sooner than 100 us later, and when the data path rests.
    assert_eq!(signals(Duration::from_micros(10)), [(1, 1), (0, 0), (0, 0), (1, 1)]);
    assert_eq!(signals(Duration::from_micros(50)), [(1, 1), (0, 0), (1, 1), (1, 1)]);
    assert_eq!(signals(Duration::from_micros(100)), [(1, 1); 4]);
}

/// A guest with a channel for each ring: what is due on one is not forgotten for what is due on the other.
#[test]
fn both_channels_of_a_queue_are_notified_in_the_end() {
    let mut net = Net::new(&[Frontend::linux_features()]);
    net.introduce();
    net.now = net.now + Duration::from_millis(1);
    let mac = net.guests[0].mac;
    let [transmit, receive] = [0, 1].map(|channel| net.guests[0].ports[channel]);
    assert_ne!(transmit, receive, "two channels");
    for _ in 0..200 {
        assert!(net.guests[0].send(&Outgoing { bytes: ethernet([0xff; 6], mac, 100), ..Outgoing::default() }));
    }
    for port in [transmit, receive] {
        net.guests[0].domain.take_notifications(port);
    }
    let mut counts = Vec::new();
    for round in 0..4 {
        net.now = net.now + Duration::from_micros(10);
        while let Some(port) = net.xen.next_event() {
            net.path.handle_event(port, net.now);
        }
        if round == 1 {
            net.wire.borrow_mut().incoming.push_back((ethernet(mac, [2, 0, 0, 0, 0, 9], 100), Checksum::Unverified));
        }
        let poll = net.path.poll(net.now);
        assert_eq!(poll.again, round < 3);
        net.guests[0].collect_answers();
        counts.push([transmit, receive].map(|port| net.guests[0].domain.take_notifications(port)));
    }
    assert_eq!(counts, [[1, 0], [0, 0], [0, 0], [1, 1]]);
    assert_eq!(net.guests[0].arrived().len(), 1);
    net.end();
}

/// A signal that is held is not for the vif that has the port next.
#[test]
fn a_vif_that_leaves_takes_its_signals_with_it() {
    let mut net = Net::new(&[Frontend::linux_features()]);
    net.introduce();
    net.now = net.now + Duration::from_millis(1);
    let frame = Outgoing { bytes: ethernet([0xff; 6], net.guests[0].mac, 100), ..Outgoing::default() };
    for _ in 0..200 {
        assert!(net.guests[0].send(&frame));
    }
    for _ in 0..2 {
        net.now = net.now + Duration::from_micros(10);
        while let Some(port) = net.xen.next_event() {
            net.path.handle_event(port, net.now);
        }
        assert!(net.path.poll(net.now).again);
        net.guests[0].collect_answers();
    }
    assert_eq!(net.path.ports.unnotified.len(), 1, "the sender's, held");
    assert!(net.path.detach(net.ids[0]).is_some());
    assert_eq!(net.path.ports.unnotified.len(), 0);
    net.run();
    net.end();
}
