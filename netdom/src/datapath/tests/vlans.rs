//! Access ports of VLANs beside trunks, guests and the wire: which frames get where, and with which tag.

use super::frames::{ethernet, is_complete, tcp};
use super::{Net, OFFLOADS, RING};
use crate::ethernet::VlanId;
use crate::fakes::{Arrived, FakeNic, Frontend, Outgoing};
use crate::netback::config::VifConfig;
use crate::nic::Capabilities;
use crate::packet::{Checksum, Gso, GsoKind};
use crate::statistics::DropCause;
use crate::switch::Vlans;
use alloc::boxed::Box;
use alloc::vec::Vec;
use xen_pv_sys::io::netif::RxFlags;

const WIRE: [u8; 6] = [2, 0, 0, 0, 0, 9];
const ALL: [u8; 6] = [0xff; 6];
/// The guests of a [`net`]: two on VLAN 100, one on 200, and a trunk.
const A: usize = 0;
const B: usize = 1;
const OTHER: usize = 2;
const TRUNK: usize = 3;

/// A NIC that handles tags, and one that does not.
const HANDLES: Capabilities = Capabilities { vlan_stripping: true, vlan_insertion: true, ..OFFLOADS };
const NICS: [Capabilities; 3] = [HANDLES, OFFLOADS, Capabilities { vlan_insertion: false, ..HANDLES }];

fn net(nic: Capabilities) -> Net {
    let mut net = Net::with_nic(&[], nic);
    for vlan in [100, 100, 200, 0] {
        add(&mut net, vlan);
    }
    net
}

/// Adds a guest; 0 is a trunk.
fn add(net: &mut Net, vlan: u16) -> usize {
    add_with(net, VlanId::new(vlan).map_or(Vlans::TRUNK, Vlans::access))
}

fn add_with(net: &mut Net, vlans: Vlans) -> usize {
    let guest = Frontend::new(&net.xen, net.guests.len() as u16 + 1, false);
    let config = VifConfig { vlans, ..guest.config("xenbr0", Frontend::linux_features()) };
    net.attach(guest, config)
}

/// The frame with these tags behind its addresses, the outer one first.
fn tagged(frame: &[u8], tags: &[u16]) -> Vec<u8> {
    let tags: Vec<u8> = tags.iter().flat_map(|tag| [0x81, 0, (tag >> 8) as u8, *tag as u8]).collect();
    [&frame[..12], &tags, &frame[12..]].concat()
}

fn plain(bytes: Vec<u8>) -> Outgoing {
    Outgoing { bytes, ..Outgoing::default() }
}

/// A frame from the wire, as it is there.
fn receive(net: &mut Net, frame: &[u8]) {
    net.wire.borrow_mut().incoming.push_back((frame.into(), Checksum::Verified));
    net.run();
}

/// The frames that came, each guest's and the wire's, the latter with the tags that the NIC puts in.
fn came(net: &mut Net) -> [Vec<Vec<u8>>; 5] {
    let guests = [A, B, OTHER, TRUNK].map(|guest| bytes(net.guests[guest].arrived()));
    let wire = core::mem::take(&mut net.wire.borrow_mut().sent);
    let wire = wire.into_iter().map(|frame| match frame.tag {
        Some(tag) => tagged(&frame.bytes, &[tag.control()]),
        None => frame.bytes,
    });
    let wire = wire.collect();
    for guest in &mut net.guests {
        guest.post(16);
    }
    let [a, b, other, trunk] = guests;
    [a, b, other, trunk, wire]
}

fn bytes(arrived: Vec<Arrived>) -> Vec<Vec<u8>> {
    arrived.into_iter().map(|one| one.bytes).collect()
}

fn dropped(net: &Net, guest: usize) -> u64 {
    net.path.vif_statistics(net.ids[guest]).unwrap().drops[DropCause::Vlan as usize]
}

/// Broadcasts, from each kind of port: to the VLAN's access ports without a tag, to the trunks with it, to no other.
#[test]
fn floods_stay_in_their_vlan() {
    for nic in NICS {
        let mut net = net(nic);
        let frame = |net: &Net, from: usize| ethernet(ALL, net.guests[from].mac, 50);
        let from_a = frame(&net, A);
        let with_tag = tagged(&from_a, &[100]);
        net.send(A, &plain(from_a.clone()));
        assert_eq!(came(&mut net), [vec(&[]), vec(&[&from_a]), vec(&[]), vec(&[&with_tag]), vec(&[&with_tag])]);
        let from_other = frame(&net, OTHER);
        let with_tag = tagged(&from_other, &[200]);
        net.send(OTHER, &plain(from_other));
        assert_eq!(came(&mut net), [vec(&[]), vec(&[]), vec(&[]), vec(&[&with_tag]), vec(&[&with_tag])]);
        // A trunk's, and the wire's: without a tag, with a priority alone, with either VLAN's, with another's.
        for (source, trunk) in [(net.guests[TRUNK].mac, true), (WIRE, false)] {
            let frame = ethernet(ALL, source, 50);
            for tags in [&[][..], &[0xe000], &[0x2064], &[200], &[300]] {
                let sent = tagged(&frame, tags);
                if trunk {
                    net.send(TRUNK, &plain(sent.clone()));
                } else {
                    receive(&mut net, &sent);
                }
                let vlan = tags.first().map_or(0, |tag| tag & 0xfff);
                let access = |number| if vlan == number { vec(&[&frame]) } else { vec(&[]) };
                let (to_trunk, to_wire) = if trunk { (vec(&[]), vec(&[&sent])) } else { (vec(&[&sent]), vec(&[])) };
                let expected = [access(100), access(100), access(200), to_trunk, to_wire];
                assert_eq!(came(&mut net), expected, "{nic:?} {trunk} {tags:x?}");
            }
        }
        net.end();
    }
}

/// A port with a native VLAN and another one's tag, beside the others: what it takes, and what comes to it.
#[test]
fn a_port_may_be_of_one_vlan_without_and_of_others_with_their_tags() {
    let (native, other) = (VlanId::new(100).unwrap(), VlanId::new(200).unwrap());
    for nic in NICS {
        let mut net = net(nic);
        let both = add_with(&mut net, Vlans::new(Some(native), Vec::from([other])));
        let frame = ethernet(ALL, net.guests[both].mac, 50);
        let sent = |tags: &[u16]| tagged(&frame, tags);
        for (tags, [a, b, in_200, trunk]) in [
            (&[][..], [Some(sent(&[])), Some(sent(&[])), None, Some(sent(&[100]))]),
            (&[0xe000], [Some(sent(&[])), Some(sent(&[])), None, Some(sent(&[0xe064]))]),
            (&[0x60c8], [None, None, Some(sent(&[])), Some(sent(&[0x60c8]))]),
            // Its native VLAN's tag, another's, and a tag that would come to light.
            (&[100], [None, None, None, None]),
            (&[300], [None, None, None, None]),
            (&[0, 300], [None, None, None, None]),
        ] {
            net.send(both, &plain(sent(tags)));
            let one = |frame: Option<Vec<u8>>| Vec::from_iter(frame);
            let expected = [one(a), one(b), one(in_200), one(trunk.clone()), one(trunk)];
            assert_eq!(came(&mut net), expected, "{nic:?} {tags:x?}");
            assert_eq!(bytes(net.guests[both].arrived()), Vec::<Vec<u8>>::new());
        }
        assert_eq!(dropped(&net, both), 3);
        let from_wire = ethernet(ALL, WIRE, 50);
        for (tags, arrives) in
            [(&[100][..], Some(&[][..])), (&[200], Some(&[200][..])), (&[300], None), (&[0], None), (&[], None)]
        {
            receive(&mut net, &tagged(&from_wire, tags));
            came(&mut net);
            let expected = Vec::from_iter(arrives.map(|tags| tagged(&from_wire, tags)));
            assert_eq!(bytes(net.guests[both].arrived()), expected, "{nic:?} {tags:?}");
        }
        net.end();
    }
}

fn vec(frames: &[&Vec<u8>]) -> Vec<Vec<u8>> {
    frames.iter().copied().cloned().collect()
}

/// One address in two VLANs, and packets to one station each way; also to a station that is in another VLAN.
#[test]
fn stations_are_found_in_their_vlan_alone() {
    for nic in NICS {
        let mut net = net(nic);
        let macs: Vec<_> = net.guests.iter().map(|guest| guest.mac).collect();
        for from in [A, B, OTHER, TRUNK] {
            net.send(from, &plain(ethernet(ALL, macs[from], 50)));
        }
        net.send(TRUNK, &plain(tagged(&ethernet(ALL, macs[TRUNK], 50), &[100])));
        receive(&mut net, &tagged(&ethernet(ALL, WIRE, 50), &[100]));
        receive(&mut net, &tagged(&ethernet(ALL, WIRE, 50), &[200]));
        came(&mut net);
        let none = vec(&[]);
        let frame = |to: [u8; 6], from: usize| ethernet(to, macs[from], 700);
        for (from, to, sent, expected) in [
            (
                A,
                B,
                frame(macs[B], A),
                [none.clone(), vec(&[&frame(macs[B], A)]), none.clone(), none.clone(), none.clone()],
            ),
            (A, TRUNK, frame(macs[TRUNK], A), {
                let out = tagged(&frame(macs[TRUNK], A), &[100]);
                [none.clone(), none.clone(), none.clone(), vec(&[&out]), none.clone()]
            }),
            (TRUNK, A, tagged(&frame(macs[A], TRUNK), &[100]), {
                let out = frame(macs[A], TRUNK);
                [vec(&[&out]), none.clone(), none.clone(), none.clone(), none.clone()]
            }),
            (OTHER, 9, frame(WIRE, OTHER), {
                let out = tagged(&frame(WIRE, OTHER), &[200]);
                [none.clone(), none.clone(), none.clone(), none.clone(), vec(&[&out])]
            }),
            // Its station is of another VLAN: it is not known in this one.
            (A, OTHER, frame(macs[OTHER], A), {
                let (plain, out) = (frame(macs[OTHER], A), tagged(&frame(macs[OTHER], A), &[100]));
                [none.clone(), vec(&[&plain]), none.clone(), vec(&[&out]), vec(&[&out])]
            }),
        ] {
            // The second finds the first one's way.
            for _ in 0..2 {
                net.send(from, &plain(sent.clone()));
                assert_eq!(came(&mut net), expected, "{from} to {to}");
            }
        }
        for (vlan, to) in [(100, A), (200, OTHER)] {
            receive(&mut net, &tagged(&ethernet(macs[to], WIRE, 700), &[vlan]));
            let mut expected = [none.clone(), none.clone(), none.clone(), none.clone(), none.clone()];
            expected[to] = vec(&[&ethernet(macs[to], WIRE, 700)]);
            assert_eq!(came(&mut net), expected);
        }
        // The wire's tag names the VLAN, not the station's address.
        receive(&mut net, &tagged(&ethernet(macs[OTHER], WIRE, 700), &[100]));
        let [.., other, _, _] = came(&mut net);
        assert_eq!(other, none);
        net.end();
    }
}

/// A guest on an access port cannot reach another VLAN by tags of its own, and a tag behind the wire's outer one names none.
#[test]
fn no_frame_hops() {
    for nic in NICS {
        let mut net = net(nic);
        let frame = ethernet(ALL, net.guests[A].mac, 50);
        let none = [vec(&[]), vec(&[]), vec(&[]), vec(&[]), vec(&[])];
        let tags: [&[u16]; 7] = [&[200], &[100], &[100, 200], &[0, 200], &[0, 0], &[0, 0, 200], &[0xfff]];
        for (count, tags) in (1..).zip(tags) {
            net.send(A, &plain(tagged(&frame, tags)));
            assert_eq!((came(&mut net), dropped(&net, A)), (none.clone(), count), "{tags:x?}");
        }
        let mut service = tagged(&frame, &[0]);
        service[12..14].copy_from_slice(&[0x88, 0xa8]);
        net.send(A, &plain(service));
        assert_eq!((came(&mut net), dropped(&net, A)), (none.clone(), 8));
        // A priority alone: the frame is the VLAN's, with that priority on the trunks.
        net.send(A, &plain(tagged(&frame, &[0xe000])));
        let out = tagged(&frame, &[0xe064]);
        assert_eq!(came(&mut net), [vec(&[]), vec(&[&frame]), vec(&[]), vec(&[&out]), vec(&[&out])]);
        // Double tags from the wire.
        let frame = ethernet(ALL, WIRE, 50);
        receive(&mut net, &tagged(&frame, &[100, 200]));
        let inner = tagged(&frame, &[200]);
        let whole = tagged(&frame, &[100, 200]);
        assert_eq!(came(&mut net), [vec(&[&inner]), vec(&[&inner]), vec(&[]), vec(&[&whole]), vec(&[])]);
        receive(&mut net, &tagged(&frame, &[0xfff]));
        let [a, b, other, ..] = came(&mut net);
        assert_eq!([a, b, other], [vec(&[]), vec(&[]), vec(&[])]);
        net.end();
    }
}

/// Blank checksums and super-frames: whole between access ports, whole to a NIC that puts the tag in, right in any case.
#[test]
fn offloads_stay_right() {
    for nic in NICS {
        for ipv6 in [false, true] {
            let mut net = net(nic);
            let macs: Vec<_> = net.guests.iter().map(|guest| guest.mac).collect();
            for from in [A, B, TRUNK] {
                net.send(from, &plain(ethernet(ALL, macs[from], 50)));
            }
            net.send(TRUNK, &plain(tagged(&ethernet(ALL, macs[TRUNK], 50), &[100])));
            receive(&mut net, &tagged(&ethernet(ALL, WIRE, 50), &[100]));
            came(&mut net);
            let kind = if ipv6 { GsoKind::TcpV6 } else { GsoKind::TcpV4 };
            for (payload, gso) in [(500, None), (20_000, Some(Gso { kind, size: 1000 }))] {
                let packet = |to: [u8; 6], from: [u8; 6]| Outgoing {
                    bytes: tcp(to, from, ipv6, payload),
                    checksum: Checksum::Blank,
                    gso,
                    ..Outgoing::default()
                };
                let segments = payload.div_ceil(1000);
                net.send(A, &packet(macs[B], macs[A]));
                let arrived = net.guests[B].arrived();
                assert_eq!((arrived.len(), arrived[0].gso), (1, gso));
                assert_eq!(arrived[0].bytes, packet(macs[B], macs[A]).bytes);
                assert!(arrived[0].flags.contains(RxFlags::CSUM_BLANK));
                // To a trunk: complete, behind a tag.
                net.send(A, &packet(macs[TRUNK], macs[A]));
                let arrived = net.guests[TRUNK].arrived();
                assert_eq!(arrived.len(), segments);
                for one in arrived {
                    assert_eq!((one.gso, &one.bytes[12..16]), (None, &[0x81, 0, 0, 100][..]));
                    assert!(is_complete(&[&one.bytes[..12], &one.bytes[16..]].concat()));
                }
                // From a trunk, behind a tag.
                let mut from_trunk = packet(macs[A], macs[TRUNK]);
                from_trunk.bytes = tagged(&from_trunk.bytes, &[100]);
                net.send(TRUNK, &from_trunk);
                let arrived = net.guests[A].arrived();
                assert_eq!((arrived.len(), arrived[0].gso), (1, gso));
                assert_eq!(arrived[0].bytes, packet(macs[A], macs[TRUNK]).bytes);
                // To the wire.
                net.send(A, &packet(WIRE, macs[A]));
                let sent = core::mem::take(&mut net.wire.borrow_mut().sent);
                assert_eq!((sent.len(), sent[0].offload.gso), (1, gso));
                let layout = sent[0].layout.expect("what is left to do is said");
                let tags = if nic.vlan_insertion { 0 } else { 4 };
                assert_eq!(usize::from(layout.network_offset), 14 + tags);
                assert_eq!(sent[0].tag.map(|tag| tag.control()), nic.vlan_insertion.then_some(100));
                let whole = tagged(&packet(WIRE, macs[A]).bytes, if tags > 0 { &[100] } else { &[] });
                assert_eq!(sent[0].bytes, whole);
                net.guests[B].post(32);
                net.guests[TRUNK].post(64);
                net.guests[A].post(32);
            }
            net.end();
        }
    }
}

/// Segments of the wire are joined for an access port, where the NIC takes the tag out; in any case they arrive without it.
#[test]
fn segments_from_the_wire() {
    for nic in NICS {
        let mut net = net(nic);
        // A NIC that comes later is told to take tags out, too.
        drop(net.path.remove_nic(net.nic));
        let (later, wire) = FakeNic::new(nic, RING);
        (net.nic, net.wire) = (net.path.add_nic(Box::new(later), "xenbr0").ok().unwrap(), wire);
        net.send(A, &plain(ethernet(ALL, net.guests[A].mac, 50)));
        came(&mut net);
        let mut frames = Vec::new();
        for index in 0..7 {
            let mut frame = tcp(net.guests[A].mac, WIRE, true, 1000);
            frame[58..62].copy_from_slice(&(1 + index * 1000_u32).to_be_bytes());
            frame[67] = 0x10;
            super::frames::complete(&mut frame);
            net.wire.borrow_mut().incoming.push_back((tagged(&frame, &[100]), Checksum::Verified));
            frames.push(frame);
        }
        net.run();
        let arrived = net.guests[A].arrived();
        if nic.vlan_stripping {
            assert_eq!((arrived.len(), arrived[0].gso.map(|gso| gso.size)), (1, Some(1000)));
        } else {
            assert_eq!(bytes(arrived), frames);
        }
        net.end();
    }
}

/// NICs take tags out from their bridge's first access port on, and go on when the last one has left. What trunks get is the same.
#[test]
fn stripping_begins_with_the_first_access_port() {
    let mut net = Net::with_nic(&[], HANDLES);
    let trunk = add(&mut net, 0);
    let frame = tagged(&ethernet(ALL, WIRE, 50), &[100]);
    for was in [false, true] {
        receive(&mut net, &frame);
        assert_eq!((bytes(net.guests[trunk].arrived()), net.wire.borrow().strips), (vec(&[&frame]), was));
        let access = add(&mut net, 100);
        receive(&mut net, &frame);
        assert_eq!(bytes(net.guests[trunk].arrived()), vec(&[&frame]));
        assert_eq!(bytes(net.guests[access].arrived()), [ethernet(ALL, WIRE, 50)]);
        assert!(net.wire.borrow().strips);
        assert!(net.path.detach(net.ids[access]).is_some());
        net.guests[trunk].post(16);
    }
    net.end();
}
