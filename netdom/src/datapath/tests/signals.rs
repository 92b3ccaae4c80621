//! When frontends are notified and NICs are told, while rounds follow each other.

use super::Net;
use super::frames::ethernet;
use crate::fakes::{Frontend, Outgoing};
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
