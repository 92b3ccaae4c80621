//! What the switch refuses a guest for its neighbours' sake: isolated ones reach NICs alone, floods have a limit, and groups go where they were
//! asked for.

use super::Net;
use super::frames::ethernet;
use crate::fakes::{Frontend, Outgoing};
use crate::offload::checksum::Sum;
use crate::packet::Checksum;
use crate::policy::storm::StormLimit;
use crate::statistics::DropCause;
use alloc::string::String;
use alloc::vec::Vec;
use split_driver::time::Duration;

const WIRE: [u8; 6] = [2, 0, 0, 0, 0, 9];
const ALL: [u8; 6] = [0xff; 6];
const GROUP: [u8; 6] = [1, 0, 0x5e, 1, 2, 3];

fn add(net: &mut Net, guests: usize, bridge: &str) {
    for _ in 0..guests {
        net.add(Frontend::linux_features(), bridge);
    }
}

fn send(net: &mut Net, from: usize, frame: Vec<u8>) {
    net.send(from, &Outgoing { bytes: frame, ..Outgoing::default() });
}

fn receive(net: &mut Net, frame: &[u8]) {
    net.wire.borrow_mut().incoming.push_back((frame.into(), Checksum::Verified));
    net.run();
}

/// How many frames came to each guest, and to the wire.
fn came(net: &mut Net) -> Vec<usize> {
    let mut counts: Vec<_> = net.guests.iter_mut().map(|guest| guest.arrived().len()).collect();
    for guest in &mut net.guests {
        guest.post(16);
    }
    net.run();
    counts.push(core::mem::take(&mut net.wire.borrow_mut().sent).len());
    counts
}

fn drops(net: &Net, guest: usize, cause: DropCause) -> u64 {
    net.path.vif_statistics(net.ids[guest]).unwrap().drops[cause as usize]
}

#[test]
fn isolated_guests_reach_the_wire_alone() {
    let mut net = Net::new(&[]);
    net.path.set_isolated(&[String::from("xenbr0")]);
    add(&mut net, 3, "xenbr0");
    add(&mut net, 2, "inside");
    net.introduce();
    receive(&mut net, &ethernet(ALL, WIRE, 50));
    assert_eq!(came(&mut net), [1, 1, 1, 0, 0, 0]);
    let mac = |net: &Net, guest: usize| net.guests[guest].mac;
    for (from, to, expected) in [
        (0, ALL, [0, 0, 0, 0, 0, 1]),
        (0, [2, 0, 0, 0, 0, 77], [0, 0, 0, 0, 0, 1]),
        (0, GROUP, [0, 0, 0, 0, 0, 1]),
        (0, mac(&net, 1), [0; 6]),
        (1, mac(&net, 0), [0; 6]),
        (1, WIRE, [0, 0, 0, 0, 0, 1]),
        (3, ALL, [0, 0, 0, 0, 1, 0]),
        (3, mac(&net, 4), [0, 0, 0, 0, 1, 0]),
    ] {
        let frame = ethernet(to, mac(&net, from), 50);
        send(&mut net, from, frame);
        assert_eq!(came(&mut net), expected, "{from} {to:x?}");
    }
    assert_eq!([0, 1, 2].map(|guest| drops(&net, guest, DropCause::Isolated)), [1, 1, 0]);
    let frame = ethernet(mac(&net, 2), WIRE, 50);
    receive(&mut net, &frame);
    assert_eq!(came(&mut net), [0, 0, 1, 0, 0, 0]);
    net.end();
}

#[test]
fn floods_of_a_guest_have_a_limit() {
    let mut net = Net::new(&[]);
    net.path.set_storm_limit(StormLimit::new(5));
    add(&mut net, 3, "xenbr0");
    net.introduce();
    net.now = net.now + Duration::from_secs(2);
    let (a, b) = (net.guests[0].mac, net.guests[1].mac);
    for number in 0..12 {
        // Broadcasts, stations that are not known, and groups.
        let to = [ALL, [2, 0, 0, 0, 0, 77], GROUP][number % 3];
        send(&mut net, 0, ethernet(to, a, 50));
    }
    assert_eq!(came(&mut net), [0, 5, 5, 5]);
    assert_eq!(drops(&net, 0, DropCause::Storm), 7);
    // It costs neither its own other frames nor its neighbours' floods, nor the wire's.
    send(&mut net, 0, ethernet(b, a, 50));
    send(&mut net, 1, ethernet(ALL, b, 50));
    for _ in 0..10 {
        receive(&mut net, &ethernet(ALL, WIRE, 50));
    }
    assert_eq!(came(&mut net), [11, 11, 11, 1]);
    net.now = net.now + Duration::from_millis(400);
    for _ in 0..5 {
        send(&mut net, 0, ethernet(ALL, a, 50));
    }
    assert_eq!(came(&mut net), [0, 2, 2, 2]);
    assert_eq!([0, 1].map(|guest| drops(&net, guest, DropCause::Storm)), [10, 0]);
    net.end();
}

/// A frame of IGMP from this station.
fn igmp(source: [u8; 6], destination: [u8; 4], message: [u8; 8]) -> Vec<u8> {
    let mut message = message;
    let mut sum = Sum::new();
    sum.add(&message);
    message[2..4].copy_from_slice(&sum.checksum().to_be_bytes());
    let [_, b, c, d] = destination;
    let header = [&[0x45, 0, 0, 28, 0, 0, 0, 0, 1, 2, 0, 0, 10, 0, 0, 5][..], &destination].concat();
    [&[1, 0, 0x5e, b & 0x7f, c, d][..], &source, &[0x08, 0x00], &header, &message, &[0; 18]].concat()
}

#[test]
fn groups_go_to_guests_that_asked_for_them() {
    let mut net = Net::new(&[]);
    add(&mut net, 3, "xenbr0");
    net.introduce();
    let (a, query) = (net.guests[0].mac, igmp(WIRE, [224, 0, 0, 1], [0x11, 10, 0, 0, 0, 0, 0, 0]));
    let data = ethernet(GROUP, WIRE, 50);
    receive(&mut net, &data);
    assert_eq!(came(&mut net), [1, 1, 1, 0]);
    receive(&mut net, &query);
    assert_eq!(came(&mut net), [1, 1, 1, 0]);
    // Its neighbours do not see the report.
    net.now = net.now + Duration::from_secs(3);
    send(&mut net, 0, igmp(a, [239, 1, 2, 3], [0x16, 0, 0, 0, 239, 1, 2, 3]));
    assert_eq!(came(&mut net), [0, 0, 0, 1]);
    receive(&mut net, &data);
    assert_eq!(came(&mut net), [1, 0, 0, 0]);
    // From a guest to the others and to the wire.
    let frame = ethernet(GROUP, net.guests[1].mac, 50);
    send(&mut net, 1, frame);
    assert_eq!(came(&mut net), [1, 0, 0, 1]);
    // It goes, and its number comes again: what it asked for is forgotten; the newcomer gets all for a time.
    let features = Frontend::linux_features();
    assert!(net.path.detach(net.ids[0]).is_some());
    receive(&mut net, &data);
    assert_eq!(came(&mut net), [0, 0, 0, 0]);
    let newcomer = net.add(features, "xenbr0");
    receive(&mut net, &data);
    assert_eq!(net.guests[newcomer].arrived().len(), 1);
    net.end();
}
