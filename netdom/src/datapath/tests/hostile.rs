//! What a hostile guest does costs that guest its vif, and nobody else anything.

use super::Net;
use super::frames::ethernet;
use crate::fakes::{Frontend, Outgoing};
use crate::netback::config::Features;
use crate::netback::violation::{RingName, Violation};
use crate::packet::{Checksum, Gso, GsoKind};
use crate::statistics::DropCause;
use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use split_driver::memory::SharedMemory;
use split_driver::time::Duration;
use xen_pv_sys::GrantRef;
use xen_pv_sys::io::netif::{ExtraInfo, TxFlags, TxRequest};

/// The villain.
const MALLORY: usize = 0;
/// Two honest neighbours.
const ALICE: usize = 1;
const BOB: usize = 2;

fn net() -> Net {
    let features = Frontend::linux_features();
    let mut net = Net::new(&[features, features, features]);
    net.introduce();
    net
}

/// What the neighbours send each other, and to the wire, arrives whole; the data path holds nothing afterwards.
fn neighbours_are_well(mut net: Net) {
    let (a, b) = (net.guests[ALICE].mac, net.guests[BOB].mac);
    let frame = ethernet(b, a, 3000);
    net.send(ALICE, &Outgoing { bytes: frame.clone(), cuts: vec![100], ..Outgoing::default() });
    let arrived: Vec<_> = net.guests[BOB].arrived();
    let good: Vec<_> = arrived.iter().filter(|packet| packet.bytes == frame).collect();
    assert_eq!(good.len(), 1);
    assert!(arrived.iter().all(|packet| !packet.error), "a neighbour saw an error");
    net.send(BOB, &Outgoing { bytes: ethernet([0xff; 6], b, 80), ..Outgoing::default() });
    assert_eq!(net.guests[ALICE].arrived().last().map(|packet| packet.bytes.len()), Some(94));
    net.end();
}

fn request(net: &Net, size: u16, flags: TxFlags) -> TxRequest {
    TxRequest { gref: net.guests[MALLORY].transmit_grant(0), offset: 0, flags, id: 7, size }
}

const GSO: ExtraInfo = ExtraInfo::new_gso(1448, 1);

#[derive(Clone, Copy)]
enum Place {
    Slot(TxRequest),
    Extra(ExtraInfo),
}

/// Each rule of the transmit ring, broken.
#[test]
fn broken_rules_close_the_vif() {
    use Place::{Extra, Slot};
    let more = TxFlags::MORE_DATA;
    let extra = TxFlags::EXTRA_INFO;
    let sample = net();
    let slot = |size, flags| Slot(request(&sample, size, flags));
    let at = |offset, size, flags| Slot(TxRequest { offset, ..request(&sample, size, flags) });
    let kind = |kind| Extra(ExtraInfo { kind, ..GSO });
    let mut long = vec![slot(4000, more); 20];
    long[0] = slot(60_000, more);
    let bad = |reference| Slot(TxRequest { gref: GrantRef(reference), ..request(&sample, 100, TxFlags::empty()) });
    let cases: Vec<(&str, Vec<Place>, Violation)> = vec![
        ("chain cut", vec![slot(2000, more), slot(100, more)], Violation::ChainCut { slots: 2 }),
        ("too long", long, Violation::TooManySlots { slots: 20 }),
        ("extra missing", vec![slot(100, extra)], Violation::ExtraMissing),
        ("extra of no type", vec![slot(100, extra), kind(0)], Violation::ExtraUnknown { kind: 0 }),
        ("unknown extra", vec![slot(100, extra), kind(5)], Violation::ExtraUnknown { kind: 5 }),
        (
            "endless extras",
            vec![slot(100, extra), Extra(ExtraInfo { flags: 1, ..GSO }), Extra(ExtraInfo { flags: 1, ..GSO })],
            Violation::ExtraMissing,
        ),
        ("no segment size", vec![slot(100, extra), Extra(ExtraInfo::new_gso(0, 1))], Violation::GsoSize),
        ("unknown kind", vec![slot(100, extra), Extra(ExtraInfo::new_gso(99, 3))], Violation::GsoKind { kind: 3 }),
        ("across a page", vec![at(4000, 97, TxFlags::empty())], Violation::CrossesPage { offset: 4000, size: 97 }),
        (
            "across a page, later",
            vec![at(0, 5000, more), at(4095, 2, TxFlags::empty())],
            Violation::CrossesPage { offset: 4095, size: 2 },
        ),
        ("no such grant", vec![bad(60_000)], Violation::BadGrant { reference: GrantRef(60_000), status: -3 }),
        ("ended grant", vec![bad(3)], Violation::BadGrant { reference: GrantRef(3), status: -1 }),
    ];
    for (name, places, violation) in cases {
        let mut net = net();
        for place in &places {
            let ring = &mut net.guests[MALLORY].transmit;
            assert!(match place {
                Slot(request) => ring.push(request),
                Extra(extra) => ring.push_as(extra),
            });
        }
        net.guests[MALLORY].publish();
        net.run();
        assert_eq!(net.failures(), [(MALLORY, violation)], "{name}");
        // Nothing more is done for it, whatever it does.
        net.guests[MALLORY].domain.notify(net.guests[MALLORY].ports[0]);
        net.run();
        assert_eq!(net.failures(), []);
        neighbours_are_well(net);
    }
}

#[test]
fn overrun_producers_close_the_vif() {
    for (ring, name) in [(0, RingName::Transmit), (1, RingName::Receive)] {
        let mut net = net();
        let words = net.guests[MALLORY].rings[ring].clone();
        let producer = words.words()[0].load(Ordering::Relaxed).wrapping_add(1000);
        words.words()[0].store(producer, Ordering::Relaxed);
        net.guests[MALLORY].domain.notify(net.guests[MALLORY].ports[0]);
        net.run();
        // The receive ring is looked at when there is something for it, and slots known of are used up.
        let to_mallory = ethernet(net.guests[MALLORY].mac, net.guests[ALICE].mac, 100);
        for _ in 0..300 {
            net.send(ALICE, &Outgoing { bytes: to_mallory.clone(), ..Outgoing::default() });
            net.guests[ALICE].collect_answers();
        }
        let failures = net.failures();
        assert!(matches!(failures[..], [(MALLORY, Violation::Overrun { ring, .. })] if ring == name), "{failures:?}");
        net.guests[BOB].arrived();
        net.guests[BOB].post(256);
        neighbours_are_well(net);
    }
}

/// A bad grant for the payload, not for the head: the neighbour that it was for gets an error in its place, and what comes after is whole.
#[test]
fn bad_payload_is_the_senders_fault() {
    let mut net = net();
    let [m, a, b] = [MALLORY, ALICE, BOB].map(|guest| net.guests[guest].mac);
    net.send(MALLORY, &Outgoing { bytes: ethernet(b, m, 100), ..Outgoing::default() });
    net.guests[BOB].arrived();
    let good = ethernet(b, m, 4000);
    let bad = Outgoing { bytes: ethernet(b, m, 4000), cuts: vec![200], ..Outgoing::default() };
    assert!(net.guests[MALLORY].place(&bad));
    assert!(net.guests[ALICE].place(&Outgoing { bytes: ethernet(b, a, 4000), ..Outgoing::default() }));
    // The second slot's grant ends.
    let id = net.guests[MALLORY].transmit.state().produced - 1;
    let grant = {
        let words = net.guests[MALLORY].rings[0].clone();
        GrantRef(words.words()[16 + 3 * (id as usize % 256)].load(Ordering::Relaxed))
    };
    assert!(net.guests[MALLORY].domain.end_grant(grant));
    net.guests[MALLORY].publish();
    net.guests[ALICE].publish();
    net.run();
    assert_eq!(net.failures(), [(MALLORY, Violation::BadGrant { reference: grant, status: -1 })]);
    let arrived = net.guests[BOB].arrived();
    assert_eq!(arrived.len(), 2);
    assert!(arrived[0].error && !arrived[1].error);
    assert_eq!(arrived[1].bytes[12..], good[12..]);
    net.guests[BOB].post(256);
    neighbours_are_well(net);
}

/// The worst that one guest can put into a round: packets to all, each with as many bad grants as it may have. What it costs is bounded by
/// what was put in, and by no product of that.
#[test]
fn bad_broadcasts_cost_no_more_than_their_slots() {
    const NEIGHBOURS: usize = 30;
    const PACKETS: u16 = 14;
    const SLOTS: usize = 18;
    let mut net = Net::new(&[Frontend::linux_features(); NEIGHBOURS + 1]);
    net.introduce();
    let (mac, bob) = (net.guests[MALLORY].mac, net.guests[BOB].mac);
    // Its packets stay where they are after this one.
    net.send(MALLORY, &Outgoing { bytes: ethernet(bob, mac, 100), ..Outgoing::default() });
    let mut cuts = vec![200];
    cuts.resize(SLOTS - 1, 230);
    let first = net.guests[MALLORY].transmit.state().produced as usize;
    for _ in 0..PACKETS {
        let packet = Outgoing { bytes: ethernet([0xff; 6], mac, 4000), cuts: cuts.clone(), ..Outgoing::default() };
        assert!(net.guests[MALLORY].place(&packet));
    }
    // All but the heads have grants of their own that are none.
    let words = net.guests[MALLORY].rings[0].clone();
    let mut bad = 0;
    for slot in (0..usize::from(PACKETS) * SLOTS).filter(|slot| slot % SLOTS != 0) {
        words.words()[16 + 3 * ((first + slot) % 256)].store(60_000 + slot as u32, Ordering::Relaxed);
        bad += 1;
    }
    let (copies, calls) = net.xen.copy_count();
    net.guests[MALLORY].publish();
    net.run();
    let (copies, calls) = (net.xen.copy_count().0 - copies, net.xen.copy_count().1 - calls);
    assert_eq!(net.failures().len(), 1, "nobody else is blamed");
    // Heads, copies and probes.
    assert!(calls <= 3, "{calls} hypercalls");
    let made = (bad + u64::from(PACKETS)) * NEIGHBOURS as u64;
    assert!(copies <= 4 * made, "{copies} copies where {made} were asked for");
    for guest in 1..=NEIGHBOURS {
        net.guests[guest].arrived();
    }
    neighbours_are_well(net);
}

/// Receive slots with bad grants: the receiver is at fault, the sender's other packets go on.
#[test]
fn bad_receive_slots_are_the_receivers_fault() {
    let mut net = net();
    let (m, a) = (net.guests[MALLORY].mac, net.guests[ALICE].mac);
    let words = net.guests[MALLORY].rings[1].clone();
    for slot in 0..256 {
        words.words()[16 + slot * 2 + 1].store(3, Ordering::Relaxed);
    }
    net.send(ALICE, &Outgoing { bytes: ethernet(m, a, 100), ..Outgoing::default() });
    assert_eq!(net.failures(), [(MALLORY, Violation::BadGrant { reference: GrantRef(3), status: -1 })]);
    net.guests[ALICE].collect_answers();
    assert!(net.guests[ALICE].answers.iter().all(|(_, status)| *status == 0), "not the sender's fault");
    neighbours_are_well(net);
}

/// Mistakes that harm nobody are answered with an error, slot by slot, and the vif lives.
#[test]
fn mistakes_are_answered() {
    let net0 = net();
    let more = TxFlags::MORE_DATA;
    let slot = |size, flags| request(&net0, size, flags);
    let mut nineteen = vec![slot(10, more); 19];
    nineteen[0] = slot(4000, more);
    nineteen[18] = slot(10, TxFlags::empty());
    let cases = [
        vec![slot(13, TxFlags::empty())],
        vec![slot(0, TxFlags::empty())],
        // More in the slots than in all.
        vec![slot(100, more), slot(101, TxFlags::empty())],
        nineteen,
    ];
    for slots in cases {
        let mut net = net();
        for request in &slots {
            assert!(net.guests[MALLORY].transmit.push(request));
        }
        net.guests[MALLORY].publish();
        net.run();
        assert_eq!(net.failures(), []);
        assert_eq!(net.guests[MALLORY].collect_answers(), slots.len());
        assert!(net.guests[MALLORY].answers.iter().all(|answer| *answer == (7, -1)));
        let drops = net.path.vif_statistics(net.ids[MALLORY]).unwrap().drops;
        assert_eq!(drops[DropCause::Malformed as usize], 1);
        neighbours_are_well(net);
    }
}

/// The last slot's zero bytes, and slots of zero bytes in between, are legal (XSA-448).
#[test]
fn empty_slots_do_no_harm() {
    let mut net = net();
    let packet = Outgoing {
        bytes: ethernet(net.guests[BOB].mac, net.guests[MALLORY].mac, 2990),
        cuts: vec![0, 0, 3000, 0, 4],
        ..Outgoing::default()
    };
    net.send(MALLORY, &packet);
    assert_eq!(net.guests[BOB].arrived()[0].bytes, packet.bytes);
    neighbours_are_well(net);
}

/// Events without work: ever fewer of them reach us.
#[test]
fn event_storms_die_down() {
    let mut net = net();
    let port = net.guests[MALLORY].ports[0];
    let mut delivered = 0;
    for _ in 0..1000 {
        net.now = net.now + Duration::from_micros(100);
        net.guests[MALLORY].domain.notify(port);
        while let Some(local) = net.xen.next_event() {
            delivered += 1;
            net.path.handle_event(local, net.now);
        }
        net.path.poll(net.now);
    }
    // A tenth of a second: 5 at once, then after 1, 2, 4, 8, 16, 32 and 64 ms.
    assert!((5..=13).contains(&delivered), "{delivered}");
    assert_eq!(net.failures(), []);
    neighbours_are_well(net);
}

/// A guest that posts no receive slots: its queue is bounded, and others' packets have buffers.
#[test]
fn a_ring_never_filled_starves_itself() {
    let features = Frontend::linux_features();
    let mut net = Net::new(&[features, features, features]);
    net.introduce();
    let (m, a) = (net.guests[MALLORY].mac, net.guests[ALICE].mac);
    for _ in 0..40 {
        for _ in 0..60 {
            let packet = Outgoing { bytes: ethernet(m, a, 1400), ..Outgoing::default() };
            assert!(net.guests[ALICE].place(&packet));
        }
        net.guests[ALICE].publish();
        net.run();
        // Longer than a sender waits.
        net.now = net.now + Duration::from_millis(6);
        net.run();
        net.guests[ALICE].collect_answers();
    }
    assert!(net.path.pool().available() > super::PAGES / 2 - super::RING);
    // It is held nothing any more after a minute.
    for _ in 0..62 {
        net.now = net.now + Duration::from_secs(1);
        let packet = Outgoing { bytes: ethernet(m, a, 1400), ..Outgoing::default() };
        net.send(ALICE, &packet);
        net.guests[ALICE].collect_answers();
    }
    let drops = net.path.vif_statistics(net.ids[MALLORY]).unwrap().drops;
    assert!(drops[DropCause::Expired as usize] > 0 && drops[DropCause::Stalled as usize] > 0, "{drops:?}");
    // It comes back to life with slots.
    net.guests[MALLORY].arrived();
    net.guests[MALLORY].post(256);
    net.run();
    net.guests[MALLORY].arrived();
    let frame = ethernet(m, a, 999);
    net.send(ALICE, &Outgoing { bytes: frame.clone(), ..Outgoing::default() });
    assert_eq!(net.guests[MALLORY].arrived().last().map(|packet| packet.bytes.clone()), Some(frame));
    neighbours_are_well(net);
}

/// Super-frames and blank checksums that are no TCP: lost where something must be done to them, and nothing else.
#[test]
fn lies_about_offloads_are_lost() {
    let plain = Features { scatter_gather: true, receive_notify: true, ..Features::default() };
    let features = Frontend::linux_features();
    let mut net = Net::new(&[features, features, features, plain]);
    net.introduce();
    let m = net.guests[MALLORY].mac;
    for (gso, size) in [(None, 0), (Some(GsoKind::TcpV4), 1448), (Some(GsoKind::TcpV6), 48)] {
        let packet = Outgoing {
            bytes: ethernet(net.guests[3].mac, m, 9000),
            cuts: vec![20],
            checksum: Checksum::Blank,
            gso: gso.map(|kind| Gso { kind, size }),
        };
        net.send(MALLORY, &packet);
    }
    assert_eq!(net.guests[3].arrived(), []);
    let drops = net.path.vif_statistics(net.ids[3]).unwrap().drops;
    assert_eq!(drops[DropCause::Unsuitable as usize], 3);
    neighbours_are_well(net);
}
