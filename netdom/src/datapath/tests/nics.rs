//! Several NICs, on one bridge and on several.

use super::frames::ethernet;
use super::{Net, OFFLOADS, PAGES, RING};
use crate::datapath::{NICS, NicId};
use crate::fakes::{FakeNic, Frontend, Outgoing, Wire};
use crate::nic::{Fault, Link};
use crate::packet::Checksum;
use crate::statistics::DropCause;
use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use split_driver::time::Duration;

/// Stations behind the first NIC and the second.
const PEERS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

fn plain(bytes: Vec<u8>) -> Outgoing {
    Outgoing { bytes, ..Outgoing::default() }
}

/// One more NIC.
fn add_nic(net: &mut Net, bridge: &str) -> (NicId, Rc<RefCell<Wire>>) {
    let (nic, wire) = FakeNic::new(OFFLOADS, RING);
    (net.path.add_nic(Box::new(nic), bridge).ok().unwrap(), wire)
}

fn receive(net: &mut Net, wire: &Rc<RefCell<Wire>>, frame: Vec<u8>) {
    wire.borrow_mut().incoming.push_back((frame, Checksum::Unverified));
    net.run();
}

fn sent(wire: &Rc<RefCell<Wire>>) -> Vec<Vec<u8>> {
    wire.borrow_mut().sent.drain(..).map(|frame| frame.bytes).collect()
}

#[test]
fn two_nics_of_a_bridge_reach_each_other_and_its_guests() {
    let mut net = Net::new(&[Frontend::linux_features()]);
    let first = Rc::clone(&net.wire);
    let (id, second) = add_nic(&mut net, "xenbr0");
    net.introduce();
    sent(&second);
    let a = net.guests[0].mac;

    // Flooded, and then by what was learnt.
    let hello = ethernet([0xff; 6], PEERS[0], 100);
    receive(&mut net, &first, hello.clone());
    assert_eq!((sent(&first).len(), sent(&second)), (0, [hello].into()));
    assert_eq!(net.guests[0].arrived().len(), 1);
    let back = ethernet(PEERS[0], PEERS[1], 1500);
    receive(&mut net, &second, back.clone());
    assert_eq!((sent(&first), sent(&second).len()), ([back].into(), 0));
    assert_eq!(net.guests[0].arrived(), []);
    for (wire, peer) in [(&first, PEERS[0]), (&second, PEERS[1])] {
        let frame = ethernet(peer, a, 200);
        net.send(0, &plain(frame.clone()));
        assert_eq!(sent(wire), [frame]);
        let frame = ethernet(a, peer, 200);
        receive(&mut net, wire, frame.clone());
        assert_eq!(net.guests[0].arrived()[0].bytes, frame);
    }

    // With the second NIC goes what was learnt there.
    drop(net.path.remove_nic(id));
    let frame = ethernet(PEERS[1], a, 200);
    net.send(0, &plain(frame.clone()));
    assert_eq!((sent(&first), sent(&second).len()), ([frame].into(), 0));
    net.end();
}

#[test]
fn nics_of_two_bridges_are_apart() {
    let mut net = Net::new(&[Frontend::linux_features()]);
    let first = Rc::clone(&net.wire);
    let (id, second) = add_nic(&mut net, "dmz");
    net.add(Frontend::linux_features(), "dmz");
    net.introduce();
    sent(&second);
    for (wire, other, guest, stranger) in [(&first, &second, 0, 1), (&second, &first, 1, 0)] {
        let frame = ethernet([0xff; 6], PEERS[0], 100);
        receive(&mut net, wire, frame);
        assert_eq!((net.guests[guest].arrived().len(), net.guests[stranger].arrived().len()), (1, 0));
        let frame = ethernet([0xff; 6], net.guests[guest].mac, 100);
        net.send(guest, &plain(frame));
        assert_eq!((sent(wire).len(), sent(other).len()), (1, 0));
    }
    drop(net.path.remove_nic(id));
    net.end();
}

/// A NIC whose ring is full holds back those that send to it, and nobody else.
#[test]
fn a_full_nic_holds_its_own_senders_back() {
    let mut net = Net::new(&[Frontend::linux_features()]);
    let first = Rc::clone(&net.wire);
    let (id, second) = add_nic(&mut net, "dmz");
    net.add(Frontend::linux_features(), "dmz");
    net.introduce();
    sent(&second);
    for (wire, peer) in [(&first, PEERS[0]), (&second, PEERS[1])] {
        receive(&mut net, wire, ethernet([0xff; 6], peer, 100));
    }
    first.borrow_mut().hold = true;
    let mut placed = [0, 0];
    for _ in 0..20 {
        for guest in [0, 1] {
            let frame = ethernet(PEERS[guest], net.guests[guest].mac, 100);
            while net.guests[guest].place(&plain(frame.clone())) {
                placed[guest] += 1;
            }
            net.guests[guest].publish();
        }
        net.run();
        for guest in &mut net.guests {
            guest.collect_answers();
        }
    }
    assert_eq!(second.borrow().sent.len(), placed[1], "the other NIC's guest is not held back");
    assert!(placed[0] < 1000 && placed[1] > 2000, "{placed:?}");
    first.borrow_mut().hold = false;
    for _ in 0..100 {
        net.now = net.now + Duration::from_millis(1);
        net.run();
    }
    assert_eq!(first.borrow().sent.len(), placed[0]);
    drop(net.path.remove_nic(id));
    net.end();
}

/// BPDUs go from wire to wire: those out there must see a loop through the bridge. They do not reach the guests.
#[test]
fn bpdus_go_from_wire_to_wire() {
    let mut net = Net::new(&[Frontend::linux_features()]);
    let first = Rc::clone(&net.wire);
    let (id, second) = add_nic(&mut net, "xenbr0");
    net.introduce();
    sent(&second);
    let bpdu = ethernet([1, 0x80, 0xc2, 0, 0, 0], PEERS[0], 60);
    receive(&mut net, &first, bpdu.clone());
    assert_eq!((sent(&second).len(), net.guests[0].arrived().len()), (1, 0));
    net.path.set_bpdus_on_wire(true);
    receive(&mut net, &first, bpdu);
    assert_eq!((sent(&second).len(), net.guests[0].arrived().len()), (1, 1));
    drop(net.path.remove_nic(id));
    net.end();
}

/// Frames from one NIC to another that is too slow for them are dropped, and leave room for what guests send.
#[test]
fn a_wire_does_not_starve_the_guests() {
    let mut net = Net::new(&[Frontend::linux_features()]);
    let first = Rc::clone(&net.wire);
    let (id, second) = add_nic(&mut net, "xenbr0");
    net.introduce();
    sent(&second);
    receive(&mut net, &second, ethernet([0xff; 6], PEERS[1], 100));
    net.guests[0].arrived();
    let a = net.guests[0].mac;
    net.send(0, &plain(ethernet(PEERS[1], a, 100)));
    sent(&second);
    second.borrow_mut().hold = true;
    for _ in 0..40 {
        let frames = (0..32).map(|_| (ethernet(PEERS[1], PEERS[0], 1000), Checksum::Unverified));
        first.borrow_mut().incoming.extend(frames);
        net.run();
    }
    let lost = net.path.nic_statistics(id).unwrap().drops[DropCause::NicFull as usize];
    assert!(lost > 500, "{lost}");
    // The ring has room for some of the guest's.
    let frame = ethernet(PEERS[1], a, 200);
    for _ in 0..32 {
        net.send(0, &plain(frame.clone()));
    }
    assert_eq!(sent(&second).iter().filter(|sent| **sent == frame).count(), 32);
    second.borrow_mut().hold = false;
    net.run();
    drop(net.path.remove_nic(id));
    net.end();
}

/// A NIC of another bridge that is full holds nobody back, also where it is not known yet where a guest sends to.
#[test]
fn a_full_nic_of_another_bridge_is_waited_for_by_nobody() {
    let mut net = Net::new(&[Frontend::linux_features()]);
    let first = Rc::clone(&net.wire);
    net.introduce();
    receive(&mut net, &first, ethernet([0xff; 6], PEERS[0], 100));
    first.borrow_mut().hold = true;
    let frame = ethernet(PEERS[0], net.guests[0].mac, 100);
    for _ in 0..20 {
        while net.guests[0].place(&plain(frame.clone())) {}
        net.guests[0].publish();
        net.run();
        net.guests[0].collect_answers();
    }
    let (other, third) = (net.add(Frontend::linux_features(), "inside"), net.add(Frontend::linux_features(), "inside"));
    net.send(other, &plain(ethernet([0xff; 6], net.guests[other].mac, 100)));
    assert_eq!(net.guests[third].arrived().len(), 1);
    first.borrow_mut().hold = false;
    for _ in 0..100 {
        net.now = net.now + Duration::from_millis(1);
        net.run();
    }
    net.end();
}

/// A round takes 64 frames at most from all NICs together, and begins with another NIC each time.
#[test]
fn nics_share_a_round() {
    let mut net = Net::new(&[]);
    let first = Rc::clone(&net.wire);
    let (id, second) = add_nic(&mut net, "dmz");
    net.run();
    for (wire, peer) in [(&first, PEERS[0]), (&second, PEERS[1])] {
        let frames = (0..100).map(|_| (ethernet([0xff; 6], peer, 100), Checksum::Unverified));
        wire.borrow_mut().incoming.extend(frames);
    }
    let taken = |net: &Net| [net.nic, id].map(|nic| net.path.nic_statistics(nic).unwrap().from_port.packets);
    for round in 1..=2 {
        assert!(net.path.poll(net.now).again);
        assert_eq!(taken(&net).iter().sum::<u64>(), 64 * round);
    }
    assert!(taken(&net).iter().all(|packets| *packets > 0), "{:?}", taken(&net));
    net.run();
    assert_eq!(taken(&net), [100, 100]);
    drop(net.path.remove_nic(id));
    net.end();
}

#[test]
fn there_is_room_for_16_nics_and_their_places_are_used_again() {
    let mut net = Net::new(&[Frontend::linux_features()]);
    let mut nics: Vec<NicId> =
        (1..NICS).map(|number| add_nic(&mut net, ["xenbr0", "dmz"][usize::from(number) % 2]).0).collect();
    let (nic, _) = FakeNic::new(OFFLOADS, RING);
    assert!(net.path.add_nic(Box::new(nic), "xenbr0").is_err());
    let gone = nics.remove(7);
    drop(net.path.remove_nic(gone));
    assert!(net.path.remove_nic(gone).is_none());
    let (id, wire) = add_nic(&mut net, "lan");
    assert_eq!(id, gone);
    net.introduce();
    assert!(sent(&wire).is_empty(), "it is on another bridge now");
    assert!(net.path.pool().available() <= PAGES - usize::from(NICS) * RING / 2);
    for nic in nics.into_iter().chain([id]) {
        drop(net.path.remove_nic(nic));
    }
    net.end();
}

#[test]
fn a_nic_with_a_fault_is_started_anew_and_serves_on() {
    let mut net = Net::new(&[Frontend::linux_features()]);
    let wire = Rc::clone(&net.wire);
    net.introduce();
    sent(&wire);
    let id = net.nic;
    assert_eq!(net.path.watch(id, net.now, &mut |_| ()), None);
    wire.borrow_mut().fault = Some(Fault::TransmitHang(0));
    wire.borrow_mut().hold = true;
    let frame = ethernet(PEERS[0], net.guests[0].mac, 100);
    net.send(0, &plain(frame.clone()));
    sent(&wire);
    assert_eq!(net.path.watch(id, net.now, &mut |_| ()), Some(Fault::TransmitHang(0)));
    while net.path.poll_link().is_some() {}
    assert_eq!(net.path.restart_nic(id, &mut |_| ()), Ok(()));
    let change = net.path.poll_link().unwrap();
    assert_eq!((change.nic, change.bridge.as_str(), change.link), (id, "xenbr0", Link::Up(1000)));
    assert_eq!(net.path.watch(id, net.now, &mut |_| ()), None);
    wire.borrow_mut().hold = false;
    net.send(0, &plain(frame.clone()));
    assert_eq!(sent(&wire), [frame]);
    let back = ethernet(net.guests[0].mac, PEERS[0], 100);
    receive(&mut net, &wire, back);
    assert_eq!(net.guests[0].arrived().len(), 1, "it has buffers again");
    net.end();
}

#[test]
fn a_link_whose_interrupt_was_lost_is_seen_by_looking() {
    let mut net = Net::new(&[Frontend::linux_features()]);
    let wire = Rc::clone(&net.wire);
    net.introduce();
    while net.path.poll_link().is_some() {}
    for (down, link) in [(true, Link::Down), (false, Link::Up(1000))] {
        wire.borrow_mut().down = down;
        assert_eq!(net.path.watch(net.nic, net.now, &mut |_| ()), None);
        assert_eq!(net.path.poll_link().map(|change| change.link), Some(link));
        assert_eq!(net.path.watch(net.nic, net.now, &mut |_| ()), None);
        assert!(net.path.poll_link().is_none(), "told once");
    }
    net.end();
}

#[test]
fn each_nic_is_the_first_as_often_as_the_others() {
    let mut net = Net::new(&[Frontend::linux_features()]);
    let first = Rc::clone(&net.wire);
    let (id, second) = add_nic(&mut net, "lan");
    net.introduce();
    sent(&second);
    // More than a round takes from each wire: a round's frames go to whichever is the first.
    let mut rounds = [0, 0];
    for _ in 0..20 {
        for wire in [&first, &second] {
            let mut wire = wire.borrow_mut();
            while wire.incoming.len() < 64 {
                wire.incoming.push_back((ethernet(PEERS[1], PEERS[0], 60), Checksum::Unverified));
            }
        }
        let before = [&first, &second].map(|wire| wire.borrow().incoming.len());
        net.path.poll(net.now);
        let after = [&first, &second].map(|wire| wire.borrow().incoming.len());
        for (count, (before, after)) in rounds.iter_mut().zip(before.into_iter().zip(after)) {
            *count += before - after;
        }
    }
    assert!(rounds[0].abs_diff(rounds[1]) <= 64 && rounds[0] > 300, "{rounds:?}");
    drop(net.path.remove_nic(id));
    net.end();
}

#[test]
fn packets_that_wait_for_a_nic_leave_pages_to_others() {
    let mut net = Net::new(&[Frontend::linux_features(), Frontend::linux_features()]);
    let wire = Rc::clone(&net.wire);
    net.introduce();
    let free = net.path.pool().available();
    // Floods are sent whatever room a NIC has: the guest's last packet went to its neighbour.
    let neighbour = ethernet(net.guests[1].mac, net.guests[0].mac, 100);
    net.send(0, &plain(neighbour.clone()));
    (wire.borrow_mut().hold, wire.borrow_mut().room) = (true, 0);
    for _ in 0..200 {
        net.send(0, &plain(neighbour.clone()));
        net.guests[1].arrived();
        net.guests[1].post(8);
        net.send(0, &plain(ethernet([0xff; 6], net.guests[0].mac, 1500)));
        net.guests[1].arrived();
        net.guests[1].post(8);
        net.guests[0].collect_answers();
    }
    assert!(free - net.path.pool().available() <= PAGES / 8 + 8, "{} of {free} are left", net.path.pool().available());
    (wire.borrow_mut().hold, wire.borrow_mut().room) = (false, 512);
    net.run();
    net.end();
}

/// The other end of the link asks for a pause again and again, or the NIC hangs.
#[test]
fn a_nic_that_stands_still_holds_back_what_is_for_it_alone() {
    let mut net = Net::new(&[Frontend::linux_features(), Frontend::linux_features()]);
    net.introduce();
    let (a, b) = (net.guests[0].mac, net.guests[1].mac);
    let wire = Rc::clone(&net.wire);
    wire.borrow_mut().hold = true;
    let outward = |net: &mut Net| while net.guests[0].send(&plain(ethernet(PEERS[0], a, 100))) {};
    // Flooded at first, then to the wire alone.
    receive(&mut net, &wire, ethernet([0xff; 6], PEERS[0], 100));
    for _ in 0..20 {
        outward(&mut net);
        net.run();
        net.guests[0].collect_answers();
    }
    let room = wire.borrow().room;
    assert!(sent(&wire).len() <= room, "the ring is full");
    let dropped = |net: &Net| net.path.nic_statistics(net.nic).unwrap().drops[DropCause::NicFull as usize];
    assert_eq!(dropped(&net), 0, "its packets wait in the guest's ring");

    // Behind those waits one for the neighbour.
    net.now = net.now + Duration::from_millis(550);
    for _ in 0..20 {
        net.run();
        net.guests[0].collect_answers();
    }
    net.guests[1].arrived();
    net.send(0, &plain(ethernet(b, a, 300)));
    assert_eq!(net.guests[1].arrived().len(), 1, "the neighbour is reached");
    assert!(dropped(&net) > 0, "what is for the NIC is lost");

    // It sends again: guests wait for it as before.
    wire.borrow_mut().hold = false;
    net.run();
    net.send(0, &plain(ethernet(PEERS[0], a, 400)));
    assert!(sent(&wire).contains(&ethernet(PEERS[0], a, 400)));
    net.end();
}
