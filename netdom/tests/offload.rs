//! The offloads as properties: garbage harms nothing, sums agree with a plain reference, and cutting undoes joining. Floor 3, host only.

use netdom::ethernet::Tag;
use netdom::offload::checksum::{self, Sum};
use netdom::offload::coalesce::Coalescer;
use netdom::offload::head::Head;
use netdom::offload::headers::{self, Layout, Network, Transport};
use netdom::offload::segment::{self, SegmentError, Segmenter};
use netdom::packet::{Checksum, Fragment, Gso, GsoKind, MAX_FRAGMENTS, Offload, Packet, Pool};
use proptest::collection::vec;
use proptest::prelude::*;
use split_driver::memory::PageArray;
use std::cell::RefCell;
use xen_pv_sys::{Mfn, PAGE_SIZE};

/// Pages of a host.
struct Pages(Vec<RefCell<[u8; PAGE_SIZE]>>);

impl PageArray for Pages {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn frame(&self, index: usize) -> Option<Mfn> {
        (index < self.0.len()).then_some(Mfn(index as u64 + 0x1000))
    }

    fn read(&self, index: usize, offset: usize, destination: &mut [u8]) -> bool {
        let page = self.0[index].borrow();
        match page.get(offset..offset + destination.len()) {
            Some(source) => {
                destination.copy_from_slice(source);
                true
            }
            None => false,
        }
    }

    fn write(&self, index: usize, offset: usize, source: &[u8]) -> bool {
        let mut page = self.0[index].borrow_mut();
        match page.get_mut(offset..offset + source.len()) {
            Some(destination) => {
                destination.copy_from_slice(source);
                true
            }
            None => false,
        }
    }
}

fn pool(pages: usize) -> Pool {
    Pool::new(Box::new(Pages((0..pages).map(|_| RefCell::new([0; PAGE_SIZE])).collect())))
}

/// A packet in pages, `first` bytes in the first of them.
fn packet(pool: &Pool, bytes: &[u8], first: usize, offload: Offload) -> Packet {
    let (head, rest) = bytes.split_at(first.min(bytes.len()));
    let mut packet = Packet { offload, ..Packet::default() };
    for (index, part) in [head].into_iter().chain(rest.chunks(PAGE_SIZE - 100)).enumerate() {
        let buffer = pool.take().expect("the test's pool is large enough");
        let offset = 7 * index;
        assert!(buffer.write(offset, part));
        let fragment = Fragment { buffer, offset: offset as u16, length: part.len() as u16 };
        assert!(packet.fragments.push(fragment).is_ok(), "more pieces than a packet has");
    }
    packet
}

fn bytes(packet: &Packet) -> Vec<u8> {
    let mut all = Vec::new();
    for fragment in &packet.fragments {
        let mut part = vec![0; fragment.length.into()];
        assert!(fragment.buffer.read(fragment.offset.into(), &mut part));
        all.extend(part);
    }
    all
}

/// RFC 1071, word by word.
fn reference_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        sum = (sum >> 16) + (sum & 0xffff);
    }
    sum as u16
}

/// A TCP sender's super-frame.
#[derive(Clone, Debug)]
struct Super {
    v6: bool,
    tags: usize,
    options: usize,
    sequence: u32,
    identification: u16,
    flags: u8,
    payload: Vec<u8>,
    size: u16,
}

impl Super {
    /// The frame with complete checksums.
    fn frame(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for _ in 0..self.tags {
            frame.extend([0x81, 0x00, 0x00, 0x07]);
        }
        let tcp_length = 20 + self.options * 4 + self.payload.len();
        if self.v6 {
            frame.extend([0x86, 0xdd, 0x60, 0x01, 0x02, 0x03]);
            frame.extend((tcp_length as u16).to_be_bytes());
            frame.extend([6, 64]);
            frame.extend((0..32).map(|i| i * 7));
        } else {
            frame.extend([0x08, 0x00, 0x45, 0x10]);
            frame.extend((20 + tcp_length as u16).to_be_bytes());
            frame.extend(self.identification.to_be_bytes());
            frame.extend([0x40, 0, 63, 6, 0, 0, 192, 168, 1, 2, 10, 9, 8, 7]);
        }
        frame.extend([0x30, 0x39, 0x00, 0x50]);
        frame.extend(self.sequence.to_be_bytes());
        frame.extend([1, 2, 3, 4, ((5 + self.options) << 4) as u8, self.flags, 0x10, 0x20, 0, 0, 0, 0]);
        frame.extend((0..self.options * 4).map(|i| i as u8));
        frame.extend(&self.payload);
        let layout = headers::parse(&frame).expect("what the test made");
        checksum::complete_network(&mut frame, &layout);
        complete(&mut frame, &layout);
        frame
    }
}

/// Completes a TCP checksum by the reference.
fn complete(frame: &mut [u8], layout: &Layout) {
    let transport = usize::from(layout.transport_offset);
    let length = frame.len() - transport;
    assert!(checksum::blank(frame, layout, length as u16));
    let sum = !reference_sum(&frame[transport..]);
    frame[transport + 16..transport + 18].copy_from_slice(&sum.to_be_bytes());
}

/// Whether both checksums are right, by the reference.
fn is_right(frame: &[u8], layout: &Layout) -> bool {
    let transport = usize::from(layout.transport_offset);
    let network = usize::from(layout.network_offset);
    let mut pseudo = match layout.network {
        Network::V4 => frame[network + 12..network + 20].to_vec(),
        Network::V6 => frame[network + 8..network + 40].to_vec(),
    };
    pseudo.extend([0, 6]);
    pseudo.extend(((frame.len() - transport) as u16).to_be_bytes());
    pseudo.extend(&frame[transport..]);
    reference_sum(&pseudo) == 0xffff && checksum::verify_network(frame, layout)
}

fn super_frame() -> impl Strategy<Value = Super> {
    (
        (any::<bool>(), 0..=2_usize, 0..=10_usize, any::<u32>(), any::<u16>()),
        (any::<bool>(), any::<bool>(), any::<bool>()),
        vec(any::<u8>(), 1..26_000),
        1000..=1460_u16,
    )
        .prop_map(|((v6, tags, options, sequence, identification), (psh, fin, ece), payload, size)| Super {
            v6,
            tags,
            options,
            sequence,
            identification,
            flags: 0x10 | u8::from(psh) << 3 | u8::from(fin) | u8::from(ece) << 6,
            payload,
            size,
        })
}

/// The segments of a super-frame with complete checksums.
fn segments(frame: &[u8], layout: &Layout, size: u16) -> Vec<Vec<u8>> {
    let mut segments = Vec::new();
    for segment in Segmenter::new(frame, layout, frame.len(), size).expect("a good frame") {
        let mut bytes = segment.headers.to_vec();
        bytes.extend(&frame[segment.payload]);
        complete(&mut bytes, layout);
        segments.push(bytes);
    }
    segments
}

const VERIFIED: Offload = Offload { checksum: Checksum::Verified, gso: None };

proptest! {
    #[test]
    fn sum_agrees_with_the_reference(pieces in vec(vec(any::<u8>(), 0..200), 0..12)) {
        let mut sum = Sum::new();
        for piece in &pieces {
            sum.add(piece);
        }
        let reference = reference_sum(&pieces.concat());
        // 0 and 0xffff are the two zeros.
        prop_assert_eq!(sum.folded() % 0xffff, reference % 0xffff);
        prop_assert_eq!(sum.folded() == 0, reference == 0);
    }

    #[test]
    fn garbage_has_no_headers_beyond_its_end(mut head in vec(any::<u8>(), 0..200), kind in 0..4_usize, version: u8) {
        // Mostly the right EtherType, so that the rest is looked at.
        let ether_type = [0x0800_u16, 0x86dd, 0x8100, 0x0806][kind];
        if let Some(place) = head.get_mut(12..15) {
            place[..2].copy_from_slice(&ether_type.to_be_bytes());
            place[2] = version;
        }
        if let Ok(layout) = headers::parse(&head) {
            prop_assert!(layout.network_offset < layout.transport_offset);
            prop_assert!(layout.transport_offset < layout.payload_offset);
            prop_assert!(usize::from(layout.payload_offset) <= head.len());
            let _ = headers::transport_length(&head, &layout);
            let _ = checksum::verify_network(&head, &layout);
            let pool = pool(8);
            let mut whole = packet(&pool, &head, 120, Offload::default());
            let _ = checksum::verify(&whole, &layout);
            if checksum::complete(&mut whole, &layout).is_ok() && headers::parse(&bytes(&whole)) == Ok(layout) {
                let _ = checksum::verify(&whole, &layout);
            }
        }
    }

    #[test]
    fn segmenter_survives_any_layout(
        head in vec(any::<u8>(), 0..300),
        offsets in any::<(u16, u16, u16)>(),
        near in any::<(u8, u8, u8)>(),
        v6: bool,
        length in 0..70_000_usize,
        size: u16,
        far: bool,
    ) {
        let (network_offset, transport_offset, payload_offset) =
            if far { offsets } else { (near.0.into(), near.1.into(), near.2.into()) };
        let layout = Layout {
            network: if v6 { Network::V6 } else { Network::V4 },
            transport: Transport::Tcp,
            network_offset,
            transport_offset,
            payload_offset,
        };
        if let Ok(segmenter) = Segmenter::new(&head, &layout, length, size) {
            let mut end = usize::from(payload_offset);
            for segment in segmenter {
                prop_assert_eq!(segment.payload.start, end);
                prop_assert!(segment.payload.len() <= usize::from(size));
                end = segment.payload.end;
            }
            prop_assert!(end <= length);
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn blank_is_completed(whole in super_frame(), first in 130..600_usize) {
        let frame = whole.frame();
        let layout = headers::parse(&frame).unwrap();
        prop_assert!(is_right(&frame, &layout));
        let mut blank = frame.clone();
        let length = frame.len() - usize::from(layout.transport_offset);
        prop_assert!(checksum::blank(&mut blank, &layout, length as u16));
        let pool = pool(40);
        let offload = Offload { checksum: Checksum::Blank, gso: None };
        let mut packet = packet(&pool, &blank, first, offload);
        // Of 65,536 payloads one has the sum that makes the blank field right.
        prop_assert_eq!(checksum::verify(&packet, &layout), Ok(is_right(&blank, &layout)));
        prop_assert_eq!(checksum::complete(&mut packet, &layout), Ok(()));
        prop_assert_eq!(packet.offload.checksum, Checksum::Verified);
        prop_assert_eq!(checksum::verify(&packet, &layout), Ok(true));
        prop_assert!(bytes(&packet) == frame);
    }

    #[test]
    fn segments_are_good_packets(whole in super_frame(), cwr: bool) {
        let whole = Super { flags: whole.flags | u8::from(cwr) << 7, ..whole };
        let frame = whole.frame();
        let layout = headers::parse(&frame).unwrap();
        let all = segments(&frame, &layout, whole.size);
        prop_assert_eq!(all.len(), whole.payload.len().div_ceil(whole.size.into()));
        let mut payload: Vec<u8> = Vec::new();
        for (index, segment) in all.iter().enumerate() {
            prop_assert_eq!(headers::parse(segment), Ok(layout));
            prop_assert!(is_right(segment, &layout));
            let transport = usize::from(layout.transport_offset);
            prop_assert_eq!(
                headers::transport_length(segment, &layout).map(usize::from),
                Some(segment.len() - transport)
            );
            let sequence = u32::from_be_bytes(segment[transport + 4..transport + 8].try_into().unwrap());
            prop_assert_eq!(sequence, whole.sequence.wrapping_add(payload.len() as u32));
            if !whole.v6 {
                let place = usize::from(layout.network_offset) + 4;
                let identification = u16::from_be_bytes([segment[place], segment[place + 1]]);
                prop_assert_eq!(identification, whole.identification.wrapping_add(index as u16));
            }
            let flags = segment[transport + 13];
            let last = index + 1 == all.len();
            prop_assert_eq!(flags & 0x09, if last { whole.flags & 0x09 } else { 0 });
            prop_assert_eq!(flags & 0x80 != 0, cwr && index == 0);
            prop_assert_eq!(flags & 0x50, whole.flags & 0x50);
            payload.extend(&segment[usize::from(layout.payload_offset)..]);
        }
        prop_assert!(payload == whole.payload);
    }

    #[test]
    fn split_moves_no_payload(whole in super_frame(), first in 130..600_usize) {
        let frame = whole.frame();
        let layout = headers::parse(&frame).unwrap();
        let pool = pool(120);
        let whole_packet = packet(&pool, &frame, first, Offload::default());
        let mut parts = Vec::new();
        let before = pool.available();
        let done = segment::split(&whole_packet, &layout, whole.size, &pool, |part| parts.push(part));
        prop_assert_eq!(done, Ok(()));
        prop_assert_eq!(before - pool.available(), parts.len());
        drop(whole_packet);
        let expected = segments(&frame, &layout, whole.size);
        prop_assert_eq!(parts.len(), expected.len());
        for (mut part, expected) in parts.into_iter().zip(expected) {
            prop_assert_eq!(part.offload.checksum, Checksum::Blank);
            prop_assert_eq!(checksum::complete(&mut part, &layout), Ok(()));
            prop_assert!(bytes(&part) == expected);
        }
        prop_assert_eq!(pool.available(), pool.capacity());
    }

    #[test]
    fn joining_undoes_cutting(whole in super_frame(), padding in 0..20_usize) {
        let frame = whole.frame();
        let layout = headers::parse(&frame).unwrap();
        let pool = pool(60);
        let mut coalescer = Coalescer::new();
        let mut out = Vec::new();
        let all = segments(&frame, &layout, whole.size);
        for segment in &all {
            let padded = [segment.clone(), vec![0; padding]].concat();
            let packet = packet(&pool, &padded, padded.len(), VERIFIED);
            let head = Head::parse(segment).unwrap();
            coalescer.push(3_u16, packet, &head, &padded[..128.min(padded.len())], &mut |tag, packet, _| {
                out.push((tag, packet));
            });
        }
        coalescer.flush(&mut |tag, packet, _| out.push((tag, packet)));
        prop_assert_eq!(out.len(), all.len().div_ceil(MAX_FRAGMENTS));
        let mut again = Vec::new();
        for (tag, packet) in &out {
            prop_assert_eq!(*tag, 3);
            let bytes = bytes(packet);
            let layout = headers::parse(&bytes).unwrap();
            match packet.offload.gso {
                Some(Gso { kind, size }) => {
                    prop_assert_eq!(kind == GsoKind::TcpV6, whole.v6);
                    prop_assert_eq!(size, whole.size);
                    prop_assert_eq!(packet.offload.checksum, Checksum::Blank);
                    prop_assert!(checksum::verify_network(&bytes, &layout));
                    again.extend(segments(&bytes, &layout, size));
                }
                None => again.push(bytes),
            }
        }
        prop_assert!(again == all);
        if all.len() > 1 && all.len() <= 20 {
            // One packet: what was cut, but for the blank checksum.
            let mut joined = bytes(&out[0].1);
            complete(&mut joined, &layout);
            prop_assert!(joined == frame);
        }
    }

    /// Segments of several flows, some changed: all bytes leave, in order, within each flow.
    #[test]
    fn joining_loses_and_reorders_nothing(
        flows in vec(super_frame(), 1..4),
        order in vec((0..4_usize, 0..12_u8, any::<u8>()), 0..60),
    ) {
        let pool = pool(400);
        let mut queues: Vec<_> = flows
            .iter()
            .enumerate()
            .map(|(port, flow)| {
                let mut frame = flow.frame();
                let layout = headers::parse(&frame).unwrap();
                let transport = usize::from(layout.transport_offset);
                frame[transport + 1] = port as u8;
                complete(&mut frame, &layout);
                (segments(&frame, &layout, flow.size).into_iter(), layout, Vec::new(), Vec::new())
            })
            .collect();
        let mut coalescer = Coalescer::new();
        let mut out: Vec<(usize, Packet)> = Vec::new();
        for (flow, change, value) in order {
            let count = queues.len();
            let (segments, layout, sent, _) = &mut queues[flow % count];
            let Some(mut segment) = segments.next() else { continue };
            let transport = usize::from(layout.transport_offset);
            let place = match change {
                0 => Some(transport + 13),
                1 => Some(transport + 14),
                2 => Some(transport + 8),
                // Time to live, hop limit.
                3 => Some(usize::from(layout.network_offset) + if flows[flow % count].v6 { 7 } else { 8 }),
                4 => Some(transport + 7),
                5 => Some(usize::from(layout.payload_offset) - 1),
                _ => None,
            };
            if let Some(place) = place {
                segment[place] = value;
                if let Ok(layout) = headers::parse(&segment) {
                    checksum::complete_network(&mut segment, &layout);
                    complete(&mut segment, &layout);
                }
            }
            sent.push(segment.clone());
            let packet = packet(&pool, &segment, segment.len(), VERIFIED);
            let head = Head::parse(&segment).unwrap();
            coalescer.push(flow % count, packet, &head, &segment, &mut |tag, packet, _| out.push((tag, packet)));
        }
        coalescer.flush(&mut |tag, packet, _| out.push((tag, packet)));
        for (flow, packet) in &out {
            let bytes = bytes(packet);
            match packet.offload.gso {
                Some(gso) => {
                    let layout = headers::parse(&bytes).unwrap();
                    queues[*flow].3.extend(segments(&bytes, &layout, gso.size));
                }
                None => queues[*flow].3.push(bytes),
            }
        }
        for (_, layout, sent, received) in queues {
            prop_assert_eq!(sent.len(), received.len());
            for (sent, received) in sent.iter().zip(&received) {
                // PSH may move to the last of what was joined; all else is as it was.
                prop_assert_eq!(sent.len(), received.len());
                prop_assert!(sent[..usize::from(layout.network_offset)] == received[..usize::from(layout.network_offset)]);
                let payload = usize::from(layout.payload_offset);
                prop_assert!(sent[payload..] == received[payload..]);
                let flags = usize::from(layout.transport_offset) + 13;
                prop_assert_eq!(sent[flags] & !0x08, received[flags] & !0x08);
            }
        }
        drop(out);
        prop_assert_eq!(pool.available(), pool.capacity());
    }
}

/// A sender's two segments, the second one shorter.
fn two_segments(v6: bool, port: u8) -> [Vec<u8>; 2] {
    let whole = Super {
        v6,
        tags: 0,
        options: 3,
        sequence: 7,
        identification: 100,
        flags: 0x10,
        payload: vec![port; 1500],
        size: 1000,
    };
    let mut frame = whole.frame();
    let layout = headers::parse(&frame).unwrap();
    frame[usize::from(layout.transport_offset) + 1] = port;
    complete(&mut frame, &layout);
    segments(&frame, &layout, 1000).try_into().expect("two segments")
}

/// The packets that come of these frames.
fn joined<'a>(pool: &Pool, frames: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<Vec<u8>> {
    let (mut coalescer, mut out) = (Coalescer::new(), Vec::new());
    for frame in frames {
        let packet = packet(pool, frame, frame.len(), VERIFIED);
        let head = Head::parse(frame).unwrap();
        coalescer.push(3_u16, packet, &head, frame, &mut |_, packet, _| out.push(bytes(&packet)));
    }
    coalescer.flush(&mut |_, packet, _| out.push(bytes(&packet)));
    out
}

#[test]
fn segments_of_flows_that_take_turns_are_joined() {
    let pool = pool(40);
    for v6 in [false, true] {
        let (one, other) = (two_segments(v6, 1), two_segments(v6, 2));
        let lengths: Vec<usize> =
            joined(&pool, [&one[0], &other[0], &one[1], &other[1]]).iter().map(Vec::len).collect();
        assert_eq!(lengths, [one[0].len() + 500; 2], "IPv6: {v6}");
    }
}

#[test]
fn segments_of_different_vlans_stay_apart() {
    let pool = pool(8);
    for (tag, expected) in [(Tag::new(5), 1), (Tag::new(6), 2), (None, 2)] {
        let (mut coalescer, mut out) = (Coalescer::new(), 0);
        for (frame, tag) in two_segments(false, 1).iter().zip([Tag::new(5), tag]) {
            let mut packet = packet(&pool, frame, 1000, VERIFIED);
            packet.tag = tag;
            let head = Head::parse(frame).unwrap();
            coalescer.push((), packet, &head, frame, &mut |(), _, _| out += 1);
        }
        coalescer.flush(&mut |(), _, _| out += 1);
        assert_eq!(out, expected, "{tag:?}");
    }
}

/// One identification for all, or each the next: anything else would be lost.
#[test]
fn segments_whose_identifications_are_no_series_stay_apart() {
    let pool = pool(40);
    let with_identification = |frame: &[u8], identification: u16| {
        let mut frame = frame.to_vec();
        frame[18..20].copy_from_slice(&identification.to_be_bytes());
        let layout = headers::parse(&frame).unwrap();
        checksum::complete_network(&mut frame, &layout);
        frame
    };
    let [first, second] = two_segments(false, 1);
    for (identification, packets) in [(101, 1), (100, 1), (102, 2), (99, 2), (5000, 2)] {
        let second = with_identification(&second, identification);
        assert_eq!(joined(&pool, [&first, &second]).len(), packets, "100, then {identification}");
    }
}

#[test]
fn headers_alone_in_the_first_page_are_enough_to_cut() {
    let pool = pool(40);
    let [frame, _] = two_segments(false, 1);
    let layout = headers::parse(&frame).unwrap();
    let first = usize::from(layout.payload_offset);
    let whole = packet(&pool, &frame, first, Offload::default());
    let mut parts = 0;
    assert_eq!(segment::split(&whole, &layout, 400, &pool, |_| parts += 1), Ok(()));
    assert_eq!(parts, 3);
    let whole = packet(&pool, &frame, first - 1, Offload::default());
    let error = SegmentError::Headers { headers: first, have: first - 1 };
    assert_eq!(segment::split(&whole, &layout, 400, &pool, |_| ()), Err(error));
}

#[test]
fn segments_behind_a_routing_header_are_for_its_last_destination() {
    let mut frame = vec![2; 12];
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 43, 64]);
    frame.extend([0xfd; 32]);
    // A segment routing header (RFC 8754, 2) with two addresses, one of them left.
    frame.extend([6, 4, 4, 1, 1, 0, 0, 0]);
    frame.extend([0x21; 16]);
    frame.extend([0xfd; 16]);
    frame.extend([0, 22, 0, 23, 0, 0, 0, 1, 0, 0, 0, 2, 5 << 4, 0x10, 1, 0, 0, 0, 0, 0]);
    frame.extend(vec![0xa5; 4000]);
    let layout = headers::parse(&frame).expect("what the test made");
    let segments = segments(&frame, &layout, 1400);
    assert_eq!(segments.len(), 3);
    for mut segment in segments {
        // As it is when it arrives.
        segment[38..54].fill(0x21);
        assert!(is_right(&segment, &layout));
    }
    // Another kind of routing header.
    frame[56] = 3;
    assert_eq!(Segmenter::new(&frame, &layout, frame.len(), 1400).err(), Some(SegmentError::Destination));
}

#[test]
fn what_cannot_be_cut_is_an_error() {
    let whole = Super {
        v6: false,
        tags: 0,
        options: 0,
        sequence: 1,
        identification: 1,
        flags: 0x10,
        payload: vec![1; 3000],
        size: 1000,
    };
    let frame = whole.frame();
    let layout = headers::parse(&frame).unwrap();
    let udp = Layout { transport: Transport::Udp, ..layout };
    let table = [
        (&frame[..], layout, frame.len(), 0, SegmentError::Size(0)),
        (&frame[..], layout, frame.len(), 47, SegmentError::Size(47)),
        (&frame[..], udp, frame.len(), 1000, SegmentError::Transport(Transport::Udp)),
        (&frame[..53], layout, frame.len(), 1000, SegmentError::Headers { headers: 54, have: 53 }),
        (&frame[..], layout, 53, 1000, SegmentError::Headers { headers: 54, have: 53 }),
        (&frame[..], layout, 70_000, 1000, SegmentError::Length(70_000)),
        (&frame[..], layout, 65_550, 65_535, SegmentError::Length(65_550)),
    ];
    for (head, layout, length, size, error) in table {
        assert_eq!(Segmenter::new(head, &layout, length, size).err(), Some(error));
    }
    let small = pool(1);
    let pages = pool(4);
    let done = segment::split(&packet(&pages, &frame, 200, Offload::default()), &layout, 1000, &small, |_| ());
    assert_eq!(done, Ok(()), "each header page came back before the next was taken");
    let mut kept = Vec::new();
    let done =
        segment::split(&packet(&pages, &frame, 200, Offload::default()), &layout, 1000, &small, |part| kept.push(part));
    assert_eq!(done, Err(SegmentError::Page));
    let done = segment::split(&packet(&pages, &frame, 53, Offload::default()), &layout, 1000, &pages, |_| ());
    assert_eq!(done, Err(SegmentError::Headers { headers: 54, have: 53 }));
}

/// What is joined and what is not, by the second of two segments.
#[test]
fn joined_or_not() {
    let whole = Super {
        v6: false,
        tags: 0,
        options: 3,
        sequence: u32::MAX - 500,
        identification: u16::MAX,
        flags: 0x10,
        payload: vec![9; 2000],
        size: 1000,
    };
    let layout = headers::parse(&whole.frame()).unwrap();
    let [first, second]: [Vec<u8>; 2] = segments(&whole.frame(), &layout, 1000).try_into().unwrap();
    let change = |place: usize, value: u8| {
        let mut changed = second.clone();
        changed[place] = value;
        let layout = headers::parse(&changed).unwrap();
        checksum::complete_network(&mut changed, &layout);
        complete(&mut changed, &layout);
        changed
    };
    let table = [
        ("the next", second.clone(), VERIFIED, 1),
        ("pushed", change(47, 0x18), VERIFIED, 1),
        (
            "one identification for all",
            {
                let mut s = change(18, 0xff);
                s[19] = 0xff;
                checksum::complete_network(&mut s, &layout);
                s
            },
            VERIFIED,
            1,
        ),
        ("another identification", change(19, 7), VERIFIED, 2),
        ("may be fragmented, otherwise equal", change(20, 0), VERIFIED, 2),
        ("another time to live", change(22, 62), VERIFIED, 2),
        ("another class", change(15, 0), VERIFIED, 2),
        ("another acknowledgement", change(45, 9), VERIFIED, 2),
        ("another window", change(48, 9), VERIFIED, 2),
        ("another option", change(57, 9), VERIFIED, 2),
        ("not the next", change(41, 9), VERIFIED, 2),
        ("SYN", change(47, 0x12), VERIFIED, 2),
        ("RST", change(47, 0x14), VERIFIED, 2),
        ("URG", change(47, 0x30), VERIFIED, 2),
        ("CWR", change(47, 0x90), VERIFIED, 2),
        ("ECE", change(47, 0x50), VERIFIED, 2),
        ("unverified", second.clone(), Offload::default(), 2),
        (
            "bad header checksum",
            {
                let mut s = second.clone();
                s[24] ^= 1;
                s
            },
            VERIFIED,
            2,
        ),
        (
            "an acknowledgement",
            {
                let mut s = second[..66].to_vec();
                s[16] = 0;
                s[17] = 52;
                checksum::complete_network(&mut s, &layout);
                s
            },
            VERIFIED,
            2,
        ),
        ("another port", change(35, 9), VERIFIED, 2),
        ("another address", change(30, 9), VERIFIED, 2),
        ("another host", change(11, 9), VERIFIED, 2),
    ];
    for (what, second, offload, expected) in table {
        let pool = pool(2);
        let mut out = Vec::new();
        let mut coalescer = Coalescer::new();
        for (bytes, offload) in [(&first, VERIFIED), (&second, offload)] {
            let head = Head::parse(bytes).unwrap();
            coalescer.push((), packet(&pool, bytes, bytes.len(), offload), &head, bytes, &mut |(), packet, _| {
                out.push(packet)
            });
        }
        coalescer.flush(&mut |(), packet, _| out.push(packet));
        assert_eq!(out.len(), expected, "{what}");
        if expected == 2 {
            assert!(
                out.iter().any(|packet| bytes(packet) == first) && out.iter().any(|packet| bytes(packet) == second),
                "{what}"
            );
        }
    }
}

/// What it is about, the flags of four segments, and what leaves: the payload and the flags of each packet.
type Flags = (&'static str, [u8; 4], &'static [(usize, u8)]);

/// What leaves of four segments in sequence, by their flags.
#[test]
fn what_flags_end() {
    let whole = Super {
        v6: false,
        tags: 0,
        options: 0,
        sequence: 1,
        identification: 1,
        flags: 0x10,
        payload: vec![9; 4000],
        size: 1000,
    };
    let layout = headers::parse(&whole.frame()).unwrap();
    const ACK: u8 = 0x10;
    const FIN: u8 = 0x11;
    const PSH: u8 = 0x18;
    let table: [Flags; 12] = [
        ("nothing", [ACK; 4], &[(4000, ACK)]),
        ("FIN of the last stays", [ACK, ACK, ACK, FIN], &[(4000, FIN)]),
        ("PSH of the last stays", [ACK, ACK, ACK, PSH], &[(4000, PSH)]),
        ("both of the last stay", [ACK, ACK, ACK, 0x19], &[(4000, 0x19)]),
        ("FIN ends a packet", [ACK, FIN, ACK, ACK], &[(2000, FIN), (2000, ACK)]),
        ("PSH ends a packet", [ACK, PSH, ACK, ACK], &[(2000, PSH), (2000, ACK)]),
        ("nothing after a first FIN", [FIN, ACK, ACK, ACK], &[(1000, FIN), (3000, ACK)]),
        ("nothing after a first FIN with PSH", [0x19, ACK, ACK, ACK], &[(1000, 0x19), (3000, ACK)]),
        ("FIN after FIN", [FIN, FIN, FIN, FIN], &[(1000, FIN), (1000, FIN), (1000, FIN), (1000, FIN)]),
        ("RST is alone", [ACK, 0x14, ACK, ACK], &[(1000, ACK), (1000, 0x14), (2000, ACK)]),
        ("SYN is alone", [0x12, ACK, ACK, ACK], &[(1000, 0x12), (3000, ACK)]),
        ("URG is alone", [0x30, ACK, 0x30, ACK], &[(1000, 0x30), (1000, ACK), (1000, 0x30), (1000, ACK)]),
    ];
    for (what, flags, expected) in table {
        let pool = pool(4);
        let mut out = Vec::new();
        let mut coalescer = Coalescer::new();
        for (mut segment, flags) in segments(&whole.frame(), &layout, 1000).into_iter().zip(flags) {
            segment[47] = flags;
            complete(&mut segment, &layout);
            let packet = packet(&pool, &segment, segment.len(), VERIFIED);
            coalescer
                .push((), packet, &Head::parse(&segment).unwrap(), &segment, &mut |(), packet, _| out.push(packet));
        }
        coalescer.flush(&mut |(), packet, _| out.push(packet));
        let left: Vec<_> = out.iter().map(bytes).map(|bytes| (bytes.len() - 54, bytes[47])).collect();
        assert_eq!(left, expected, "{what}");
    }
}

#[test]
fn flows_are_bounded() {
    let pool = pool(20);
    let mut out = Vec::new();
    let mut coalescer = Coalescer::new();
    for port in 0..20 {
        let whole = Super {
            v6: true,
            tags: 0,
            options: 0,
            sequence: 1,
            identification: 0,
            flags: 0x10,
            payload: vec![port; 100],
            size: 100,
        };
        let mut frame = whole.frame();
        frame[55] = port;
        let head = Head::parse(&frame).unwrap();
        coalescer
            .push(port, packet(&pool, &frame, frame.len(), VERIFIED), &head, &frame, &mut |port, _, _| out.push(port));
    }
    assert_eq!(out, (0..12).collect::<Vec<_>>(), "the oldest went on");
    coalescer.flush(&mut |port, _, _| out.push(port));
    assert_eq!(out, (0..20).collect::<Vec<_>>());
    assert!(coalescer.is_empty());
}
