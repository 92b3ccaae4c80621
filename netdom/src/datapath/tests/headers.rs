//! Each header that a packet may have before or behind IP's: what becomes of a blank checksum and of a super-frame on its way to a
//! guest like Linux, whose netfront drops what `skb_checksum_setup` does not find.

use super::Net;
use super::frames::{complete, tcp, transport_offset};
use crate::fakes::{Frontend, Outgoing};
use crate::offload::checksum::Sum;
use crate::packet::{Checksum, Gso, GsoKind};
use crate::statistics::DropCause;
use alloc::vec::Vec;
use xen_pv_sys::io::netif::RxFlags;

const WIRE: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// Payload of a segment.
const SIZE: usize = 1000;

/// What arrives of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The packet as it was sent, its flags too.
    AsIs,
    /// Packets that need no more than a packet of this shape does that is no super-frame.
    Done,
    /// Nothing.
    Lost,
}

/// Headers around those of [`tcp`].
#[derive(Clone, Copy, Debug)]
struct Shape {
    /// `EtherType`s of the tags.
    tags: &'static [u16],
    ipv6: bool,
    /// The number and the bytes of a header between IP's and TCP's; the first byte is replaced. IPv4's are options.
    between: Option<(u8, &'static [u8])>,
    /// What a blank packet and a super-frame become.
    blank: Fate,
    cut: Fate,
}

const fn shape(tags: &'static [u16], ipv6: bool, blank: Fate, cut: Fate) -> Shape {
    Shape { tags, ipv6, between: None, blank, cut }
}

const fn extended(tags: &'static [u16], kind: u8, bytes: &'static [u8], blank: Fate, cut: Fate) -> Shape {
    Shape { tags, ipv6: true, between: Some((kind, bytes)), blank, cut }
}

const SHAPES: &[Shape] = &[
    shape(&[], false, Fate::AsIs, Fate::AsIs),
    shape(&[], true, Fate::AsIs, Fate::AsIs),
    // 802.1Q, 802.1ad, both, and one more than is looked behind.
    shape(&[0x8100], false, Fate::Done, Fate::Done),
    shape(&[0x8100], true, Fate::Done, Fate::Done),
    shape(&[0x88a8], false, Fate::Done, Fate::Done),
    shape(&[0x88a8, 0x8100], false, Fate::Done, Fate::Done),
    shape(&[0x8100, 0x8100], true, Fate::Done, Fate::Done),
    shape(&[0x8100, 0x8100, 0x8100], false, Fate::Lost, Fate::Lost),
    // Options of IPv4.
    Shape { between: Some((0, &[1, 1, 1, 0])), ..shape(&[], false, Fate::AsIs, Fate::AsIs) },
    // Hop-by-hop options, routing, destination options, an atomic fragment; a longer one.
    extended(&[], 0, &[0, 0, 1, 4, 0, 0, 0, 0], Fate::AsIs, Fate::Done),
    extended(&[], 43, &[0, 0, 4, 0, 0, 0, 0, 0], Fate::AsIs, Fate::Done),
    extended(&[], 60, &[0, 0, 1, 4, 0, 0, 0, 0], Fate::AsIs, Fate::Done),
    extended(&[], 60, &[0, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Fate::AsIs, Fate::Done),
    extended(&[], 44, &[0, 0, 0, 0, 0, 0, 0, 1], Fate::AsIs, Fate::Done),
    extended(&[0x8100], 0, &[0, 0, 1, 4, 0, 0, 0, 0], Fate::Done, Fate::Done),
    // A part of a larger packet; an authentication header, which covers the checksum.
    extended(&[], 44, &[0, 0, 0, 1, 0, 0, 0, 1], Fate::Lost, Fate::Lost),
    extended(&[], 51, &[0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1], Fate::Lost, Fate::Lost),
];

impl Shape {
    /// Bytes before TCP's in a frame of this shape.
    fn transport(&self) -> usize {
        let between = self.between.map_or(0, |(_, bytes)| bytes.len());
        14 + 4 * self.tags.len() + if self.ipv6 { 40 } else { 20 } + between
    }

    fn apply(&self, plain: &[u8]) -> Vec<u8> {
        let start = transport_offset(plain);
        let mut frame = Vec::from(&plain[..start]);
        if let Some((kind, bytes)) = self.between {
            let field = if self.ipv6 { 18 } else { 16 };
            let length = u16::from_be_bytes([frame[field], frame[field + 1]]) + bytes.len() as u16;
            frame[field..field + 2].copy_from_slice(&length.to_be_bytes());
            frame.extend(bytes);
            if self.ipv6 {
                frame[start] = frame[20];
                frame[20] = kind;
            } else {
                frame[14] += (bytes.len() / 4) as u8;
                frame[24..26].fill(0);
                let mut sum = Sum::new();
                sum.add(&frame[14..]);
                frame[24..26].copy_from_slice(&sum.checksum().to_be_bytes());
            }
        }
        frame.extend(&plain[start..]);
        let tags: Vec<u8> = self.tags.iter().flat_map(|tag| [(tag >> 8) as u8, *tag as u8, 0, 5]).collect();
        frame.splice(12..12, tags);
        frame
    }

    /// Whether TCP's checksum is complete and right.
    fn is_complete(&self, frame: &[u8]) -> bool {
        let network = 14 + 4 * self.tags.len();
        let mut sum = Sum::new();
        sum.add(if self.ipv6 { &frame[network + 8..network + 40] } else { &frame[network + 12..network + 20] });
        sum.add_u16(6);
        sum.add_u16((frame.len() - self.transport()) as u16);
        sum.add(&frame[self.transport()..]);
        sum.folded() == 0xffff
    }
}

fn gso(ipv6: bool) -> Option<Gso> {
    Some(Gso { kind: if ipv6 { GsoKind::TcpV6 } else { GsoKind::TcpV4 }, size: SIZE as u16 })
}

fn lost(net: &Net, guest: usize) -> u64 {
    net.path.vif_statistics(net.ids[guest]).unwrap().drops[DropCause::Unsuitable as usize]
}

/// A blank packet and a super-frame of each shape from guest to guest, short and long, unicast and flooded.
#[test]
fn guests_get_what_they_find_the_headers_of() {
    for shape in SHAPES {
        for (payload, gso) in [(10, None), (3000, None), (SIZE + 1, gso(shape.ipv6)), (20_000, gso(shape.ipv6))] {
            for flooded in [false, true] {
                let mut net = Net::new(&[Frontend::linux_features(); 2]);
                net.introduce();
                let destination = if flooded { [0xff; 6] } else { net.guests[1].mac };
                let bytes = shape.apply(&tcp(destination, net.guests[0].mac, shape.ipv6, payload));
                let packet = Outgoing { bytes, checksum: Checksum::Blank, gso, ..Outgoing::default() };
                // The second finds the last one's way.
                net.send(0, &packet);
                net.send(0, &packet);
                let arrived = net.guests[1].arrived();
                let what = (shape, payload, flooded);
                let segments = if gso.is_some() { payload.div_ceil(SIZE) } else { 1 };
                match if gso.is_some() { shape.cut } else { shape.blank } {
                    Fate::AsIs => {
                        assert_eq!(arrived.len(), 2, "{what:?}");
                        for one in &arrived {
                            assert_eq!((&one.bytes, one.gso), (&packet.bytes, gso), "{what:?}");
                            assert_eq!(one.flags, RxFlags::CSUM_BLANK | RxFlags::DATA_VALIDATED);
                        }
                    }
                    Fate::Done => {
                        assert_eq!(arrived.len(), 2 * segments, "{what:?}");
                        for one in &arrived {
                            // A segment may be blank where a packet may.
                            let complete = shape.is_complete(&one.bytes);
                            let blank = one.flags == RxFlags::CSUM_BLANK | RxFlags::DATA_VALIDATED;
                            assert_eq!((complete, one.gso), (shape.blank != Fate::AsIs, None), "{what:?}");
                            assert_eq!(blank, !complete, "{what:?}");
                        }
                    }
                    Fate::Lost => {
                        assert_eq!(arrived, [], "{what:?}");
                        assert_eq!(lost(&net, 1), 2, "{what:?}");
                    }
                }
                net.end();
            }
        }
    }
}

/// Headers beyond those bytes that are fetched before the switch decides, of a packet to the wire from a guest whose last packet went to
/// another guest: they are found with the rest of it.
#[test]
fn long_headers_are_found_once_all_of_a_packet_is_here() {
    let mut long = [0; 88];
    long[1] = 10;
    long[2..4].copy_from_slice(&[1, 82]);
    let between: &'static [u8] = Vec::from(long).leak();
    let shape = extended(&[0x8100], 60, between, Fate::AsIs, Fate::Done);
    let mut net = Net::new(&[Frontend::linux_features(); 2]);
    net.introduce();
    let hello = super::frames::ethernet([0xff; 6], WIRE, 50);
    net.wire.borrow_mut().incoming.push_back((hello, Checksum::Unverified));
    net.run();
    let near = tcp(net.guests[1].mac, net.guests[0].mac, false, 3000);
    net.send(0, &Outgoing { bytes: near, checksum: Checksum::Blank, ..Outgoing::default() });
    let bytes = shape.apply(&tcp(WIRE, net.guests[0].mac, true, 3000));
    net.send(0, &Outgoing { bytes: bytes.clone(), checksum: Checksum::Blank, ..Outgoing::default() });
    let sent = core::mem::take(&mut net.wire.borrow_mut().sent);
    assert_eq!((sent.len(), &sent[0].bytes), (1, &bytes));
    assert_eq!(sent[0].layout.map(|layout| usize::from(layout.transport_offset)), Some(shape.transport()));
    net.end();
}

/// Segments from the wire are joined where the guest takes the super-frame as it is; others arrive byte for byte as they came.
#[test]
fn what_a_guest_would_not_take_is_not_joined() {
    for shape in SHAPES {
        let mut net = Net::new(&[Frontend::linux_features()]);
        net.introduce();
        let mut frames = Vec::new();
        for index in 0..7 {
            let mut plain = tcp(net.guests[0].mac, WIRE, shape.ipv6, SIZE);
            let start = transport_offset(&plain);
            plain[start + 4..start + 8].copy_from_slice(&(1 + (index * SIZE) as u32).to_be_bytes());
            plain[start + 13] = 0x10;
            complete(&mut plain);
            let frame = shape.apply(&plain);
            frames.push(frame.clone());
            net.wire.borrow_mut().incoming.push_back((frame, Checksum::Verified));
        }
        net.run();
        let arrived = net.guests[0].arrived();
        if shape.tags.is_empty() && shape.between.is_none() {
            assert_eq!((arrived.len(), arrived[0].gso), (1, gso(shape.ipv6)), "{shape:?}");
        } else {
            let bytes: Vec<_> = arrived.iter().map(|one| one.bytes.clone()).collect();
            assert!(bytes == frames, "{shape:?}");
            assert!(arrived.iter().all(|one| (one.flags, one.gso) == (RxFlags::DATA_VALIDATED, None)));
        }
        net.end();
    }
}

/// Protocols without a checksum that can be blank, and fragments: lost with such a flag, as with Linux' netback; else untouched. VXLAN is
/// UDP to all but its ends, and can be blank on the outside.
#[test]
fn other_protocols() {
    let (gre, esp, sctp, udp) = (47, 50, 132, 17);
    let udp_header: &[u8] = &[0x12, 0xb5, 0x12, 0xb5, 0, 58];
    for (protocol, flags, blank) in [
        (gre, 0, Fate::Lost),
        (esp, 0, Fate::Lost),
        (sctp, 0, Fate::Lost),
        (udp, 0, Fate::AsIs),
        (udp, 0x20, Fate::Lost),
    ] {
        for (checksum, gso, fate) in [
            (Checksum::Unverified, None, Fate::AsIs),
            (Checksum::Verified, None, Fate::AsIs),
            (Checksum::Blank, None, blank),
            (Checksum::Blank, Some(Gso { kind: GsoKind::TcpV4, size: 48 }), Fate::Lost),
        ] {
            let mut net = Net::new(&[Frontend::linux_features(); 2]);
            net.introduce();
            let mut bytes = Vec::from(net.guests[1].mac);
            bytes.extend(net.guests[0].mac);
            bytes.extend([0x08, 0x00, 0x45, 0, 0, 78, 0, 1, flags, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            bytes.extend(udp_header);
            bytes.resize(14 + 78, 7);
            let packet = Outgoing { bytes, checksum, gso, ..Outgoing::default() };
            net.send(0, &packet);
            let arrived = net.guests[1].arrived();
            if fate == Fate::AsIs {
                assert_eq!((arrived.len(), &arrived[0].bytes), (1, &packet.bytes));
                assert_eq!(arrived[0].flags.contains(RxFlags::CSUM_BLANK), checksum == Checksum::Blank);
            } else {
                assert_eq!((arrived.len(), lost(&net, 1)), (0, 1), "{protocol} {checksum:?} {gso:?}");
            }
            net.end();
        }
    }
}
