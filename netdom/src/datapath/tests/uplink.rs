//! A router whose address is by DHCP, on the wire of a NIC.

use super::{Net, OFFLOADS, RING};
use crate::datapath::{LeaseChange, NicId};
use crate::fakes::{FakeNic, Wire};
use crate::offload::checksum::Sum;
use crate::packet::Checksum;
use crate::router::config::{Setup, Uplink};
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

const SERVER: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A net whose router is on a bridge of its own NIC, `kept` from the life before.
fn leased(kept: &[crate::datapath::kept::KeptLeases]) -> (Net, NicId, Rc<RefCell<Wire>>) {
    let mut net = Net::new(&[]);
    let uplink = Some(Uplink { bridge: "wan".into(), network: None, gateway: None, v6: None });
    net.path.set_router(&Setup { uplink, ..Setup::default() }, 1500, 3).unwrap();
    net.path.restore_leases(kept);
    let (nic, wire) = FakeNic::new(OFFLOADS, RING);
    let nic = net.path.add_nic(Box::new(nic), "wan").ok().unwrap();
    net.run();
    (net, nic, wire)
}

fn take_sent(wire: &Rc<RefCell<Wire>>) -> Vec<Vec<u8>> {
    core::mem::take(&mut wire.borrow_mut().sent).into_iter().map(|frame| frame.bytes).collect()
}

/// A server's message of this kind in answer to a frame, to the router alone.
fn said(kind: u8, question: &[u8]) -> Vec<u8> {
    let mut frame = [&question[6..12], &SERVER, &[8, 0, 0x45, 0, 1, 0x24, 0, 0, 0, 0, 64, 17, 0, 0]].concat();
    frame.extend([10, 9, 0, 1, 10, 9, 1, 1]);
    let mut sum = Sum::new();
    sum.add(&frame[14..34]);
    frame[24..26].copy_from_slice(&sum.checksum().to_be_bytes());
    frame.extend([0, 67, 0, 68, 1, 16, 0, 0, 2, 1, 6, 0]);
    frame.extend(&question[46..50]);
    frame.resize(14 + 0x124, 0);
    frame[58..62].copy_from_slice(&[10, 9, 1, 1]);
    frame[70..76].copy_from_slice(&question[70..76]);
    frame[278..297].copy_from_slice(&[99, 130, 83, 99, 53, 1, kind, 54, 4, 10, 9, 0, 1, 1, 4, 255, 255, 0, 0]);
    frame[297..303].copy_from_slice(&[51, 4, 0, 1, 0, 0]);
    frame
}

fn receive(net: &mut Net, nic: NicId, wire: &Rc<RefCell<Wire>>, frame: Vec<u8>) {
    wire.borrow_mut().incoming.extend([(frame, Checksum::Verified)]);
    net.path.handle_interrupt(nic, 0);
    // What the router has to say of it is due at once.
    if net.run().deadline.is_some_and(|deadline| deadline <= net.now) {
        net.run();
    }
}

#[test]
fn a_lease_is_had_from_the_wire_and_goes_over_a_life() {
    let (mut net, nic, wire) = leased(&[]);
    let mut sent = take_sent(&wire);
    // A link that is there from the start is no reason to ask twice.
    let discover = sent.pop().expect("a question");
    assert!(sent.is_empty() && discover[..6] == [0xff; 6] && discover[6] == 6);
    receive(&mut net, nic, &wire, said(2, &discover));
    let request = take_sent(&wire).pop().expect("it wants what was offered");
    assert_eq!(request[282..285], [53, 1, 3]);
    assert_eq!(net.path.poll_lease(), None);
    receive(&mut net, nic, &wire, said(5, &request));
    let Some(LeaseChange { bridge, lease: Some(lease) }) = net.path.poll_lease() else {
        panic!("no lease");
    };
    assert_eq!((bridge.as_str(), lease.gateway), ("wan", None));
    let statistics = net.path.router_statistics().unwrap();
    assert_eq!((statistics.sessions, statistics.uplink.unwrap().address), (Some(0), Some(lease.network)));
    let announced = take_sent(&wire).pop().expect("it says that it has the address");
    assert_eq!((&announced[..6], &announced[38..42]), (&[0xff; 6][..], &[10, 9, 1, 1][..]));
    assert!(
        net.run().deadline.is_some_and(|deadline| deadline > net.now),
        "it sleeps until the lease is to be renewed"
    );
    let kept = net.path.keep_leases();
    drop(net.path.remove_nic(nic));
    net.end();

    let (mut next, nic, wire) = leased(&kept);
    assert_eq!(next.path.poll_lease().and_then(|change| change.lease), Some(lease));
    let sent = take_sent(&wire);
    let renewal = sent.iter().find(|frame| frame[12..14] == [8, 0]).expect("it is renewed");
    assert_eq!((&renewal[6..12], &renewal[26..30]), (&request[6..12], &[10, 9, 1, 1][..]));
    // The switch knows where its Ethernet address is.
    receive(&mut next, nic, &wire, said(6, renewal));
    assert_eq!(next.path.poll_lease(), Some(LeaseChange { bridge: "wan".into(), lease: None }));
    drop(next.path.remove_nic(nic));
    next.end();
}
