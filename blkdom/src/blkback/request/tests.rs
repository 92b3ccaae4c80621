//! Slots of both ABIs, byte by byte, and every way in which one can be wrong.

use super::*;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use proptest::prelude::*;
use split_driver::ring::{FrontRing, slots_in};
use zerocopy::FromZeros;

fn segment(grant: u32, first: u8, last: u8) -> blkif::RequestSegment {
    blkif::RequestSegment { gref: GrantRef(grant), first_sect: first, last_sect: last, padding: [0xee; 2] }
}

fn guest(grant: u32, first_sector: u8, sectors: u8) -> GuestSegment {
    GuestSegment { grant: GrantRef(grant), first_sector, sectors }
}

/// A slot's bytes with numbers put where the C compiler puts them.
fn slot<T: FromBytes>(fields: &[(usize, &[u8])]) -> T {
    let mut bytes = [0xee; 112];
    for (offset, value) in fields {
        bytes[*offset..*offset + value.len()].copy_from_slice(value);
    }
    T::read_from_prefix(&bytes).expect("as long").0
}

/// The same slot in either ABI: 64-bit numbers at 8, 16 or 4, 12, and what follows at 24 or 20.
fn both(first: [u8; 4], id: u64, sector: u64, rest: &[u8]) -> [Request; 2] {
    let wide: blkif::Request = slot(&[(0, &first), (8, &id.to_le_bytes()), (16, &sector.to_le_bytes()), (24, rest)]);
    let narrow: x86_32::Request = slot(&[(0, &first), (4, &id.to_le_bytes()), (12, &sector.to_le_bytes()), (20, rest)]);
    [parse(&wide), parse(&narrow)]
}

const ID: u64 = 0x0102_0304_0506_0708;
const SECTOR: u64 = 0x1112_1314_1516_1718;

#[test]
fn transfers() {
    let rest: Vec<u8> = (0..11).flat_map(|n| segment(1000 + n, 0, 7).as_bytes().to_vec()).collect();
    for (operation, kind) in [(0, TransferKind::Read), (1, TransferKind::Write), (2, TransferKind::Barrier)] {
        for count in 1..=11_u8 {
            for request in both([operation, count, 0, 0], ID, SECTOR, &rest) {
                assert_eq!((request.id(), request.operation()), (ID, operation));
                let segments = (0..u32::from(count)).map(|n| guest(1000 + n, 0, 8)).collect();
                assert_eq!(request, Request::Transfer { id: ID, kind, sector: SECTOR, segments });
            }
        }
    }
}

#[test]
fn a_barrier_and_a_flush_need_no_data() {
    for request in both([2, 0, 0, 0], ID, SECTOR, &[]) {
        let segments = heapless::Vec::new();
        assert_eq!(request, Request::Transfer { id: ID, kind: TransferKind::Barrier, sector: SECTOR, segments });
    }
    for request in both([3, 0, 0, 0], ID, SECTOR, &[]) {
        assert_eq!((request.operation(), request), (3, Request::Flush { id: ID }));
    }
}

#[test]
fn discards() {
    for (flag, secure) in [(0, false), (1, true), (0xfe, false), (0xff, true)] {
        for request in both([5, flag, 0, 0], ID, SECTOR, &u64::MAX.to_le_bytes()) {
            assert_eq!((request.id(), request.operation()), (ID, 5));
            assert_eq!(request, Request::Discard { id: ID, sector: SECTOR, sectors: u64::MAX, secure });
        }
    }
}

/// `handle`, padding, then the pages.
fn indirect_rest() -> Vec<u8> {
    let mut rest = alloc::vec![9, 9, 0xee, 0xee];
    rest.extend((0..8_u32).flat_map(|n| (70 + n).to_le_bytes()));
    rest
}

#[test]
fn indirect_requests_answer_with_the_operation_within() {
    for (operation, write) in [(0, false), (1, true)] {
        for count in [1_u16, 11, 12, 255, 256] {
            let [low, high] = count.to_le_bytes();
            for request in both([6, operation, low, high], ID, SECTOR, &indirect_rest()) {
                assert_eq!((request.id(), request.operation()), (ID, operation));
                let pages = [GrantRef(70)].into_iter().collect();
                assert_eq!(request, Request::Indirect { id: ID, write, sector: SECTOR, segments: count, pages });
            }
        }
    }
}

/// The slot's first bytes and segments; the operation, the reason and the status of what is answered.
type Refused<'a> = ([u8; 4], &'a [blkif::RequestSegment], u8, Refusal, i16);

#[test]
fn refusals() {
    let count = |segments| Refusal::SegmentCount { segments };
    let bounds = |first, last| Refusal::SegmentBounds { first, last };
    let good = segment(1, 0, 7);
    let cases: &[Refused<'_>] = &[
        ([0, 0, 0, 0], &[good], 0, count(0), -1),
        ([1, 0, 0, 0], &[good], 1, count(0), -1),
        ([0, 12, 0, 0], &[good; 11], 0, count(12), -1),
        ([1, 255, 0, 0], &[good; 11], 1, count(255), -1),
        ([2, 12, 0, 0], &[good; 11], 2, count(12), -1),
        ([3, 1, 0, 0], &[good], 3, count(1), -1),
        ([0, 1, 0, 0], &[segment(1, 0, 8)], 0, bounds(0, 8), -1),
        ([0, 1, 0, 0], &[segment(1, 0, 255)], 0, bounds(0, 255), -1),
        ([1, 1, 0, 0], &[segment(1, 3, 2)], 1, bounds(3, 2), -1),
        ([1, 1, 0, 0], &[segment(1, 255, 255)], 1, bounds(255, 255), -1),
        ([2, 2, 0, 0], &[good, segment(1, 7, 0)], 2, bounds(7, 0), -1),
        ([6, 0, 0, 0], &[], 0, count(0), -1),
        ([6, 1, 1, 1], &[], 1, count(257), -1),
        ([6, 0, 255, 255], &[], 0, count(65535), -1),
        ([6, 2, 1, 0], &[], 2, Refusal::IndirectOperation { operation: 2 }, -1),
        ([6, 6, 1, 0], &[], 6, Refusal::IndirectOperation { operation: 6 }, -1),
        ([4, 1, 0, 0], &[], 4, Refusal::Operation, -2),
        ([7, 1, 0, 0], &[], 7, Refusal::Operation, -2),
        ([255, 0, 0, 0], &[], 255, Refusal::Operation, -2),
    ];
    for (first, segments, operation, reason, status) in cases {
        for request in both(*first, ID, SECTOR, segments.as_bytes()) {
            assert_eq!((request.id(), request.operation()), (ID, *operation), "{first:?}");
            assert_eq!(request, Request::Refused { id: ID, operation: *operation, reason: *reason });
            assert_eq!(reason.status(), *status);
        }
    }
    // Segments beyond the count are not looked at.
    for request in both([0, 1, 0, 0], ID, SECTOR, [good, segment(1, 7, 0)].as_bytes()) {
        assert!(matches!(request, Request::Transfer { .. }));
    }
}

#[test]
fn indirect_segments() {
    let raw: Vec<_> = (0..256).map(|n| segment(n, (n % 8) as u8, 7)).collect();
    let bytes = raw.as_bytes();
    for count in [1_u16, 2, 255, 256] {
        let segments = parse_indirect(bytes, count).unwrap();
        assert_eq!(segments.len(), usize::from(count));
        for (index, segment) in segments.iter().enumerate() {
            let first = (index % 8) as u8;
            assert_eq!(*segment, guest(index as u32, first, 8 - first));
            assert_eq!((segment.offset() + segment.bytes(), segment.bytes() > 0), (4096, true));
        }
    }
    let count = |segments| Err(Refusal::SegmentCount { segments });
    assert_eq!(parse_indirect(&bytes[..2047], 256), count(256));
    assert_eq!(parse_indirect(&alloc::vec![0; 4096], 257), count(257));
    let bad = [segment(1, 0, 0), segment(2, 1, 0)];
    assert_eq!(parse_indirect(bad.as_bytes(), 2), Err(Refusal::SegmentBounds { first: 1, last: 0 }));
}

fn page(words: usize) -> Vec<AtomicU32> {
    (0..words).map(|_| AtomicU32::new(0)).collect()
}

#[test]
fn rings_have_as_many_slots_as_the_frontends() {
    for (pages, slots) in [(1, 32), (2, 64), (4, 128), (8, 256), (16, 512)] {
        for (abi, bytes) in [(Abi::X86_64, 112), (Abi::X86_32, 108)] {
            let ring = RequestRing::attach(page(1024 * pages), abi).unwrap();
            assert_eq!((ring.slots(), slots_in(4096 * pages, bytes)), (slots, slots), "{abi:?}");
        }
    }
}

#[test]
fn a_ring_of_either_kind_answers_its_frontend() {
    let answer = |id, status| Answer { id, operation: 3, status };
    let memory = page(1024);
    let mut front = FrontRing::<_, x86_32::Request, x86_32::Response>::init(&memory).unwrap();
    let mut back = RequestRing::attach(&memory, Abi::X86_32).unwrap();
    let mut slot = x86_32::Request::new_zeroed();
    for id in [1, 2, 3] {
        (slot.operation, slot.id) = (3, id);
        assert!(front.push(&slot));
    }
    assert!(front.push_and_check_notify());
    assert_eq!(back.unconsumed(), Ok(3));
    assert_eq!(back.take(), Request::Flush { id: 1 });
    assert_eq!(back.take(), Request::Flush { id: 2 });
    back.unconsume(1);
    assert_eq!((back.take(), back.take()), (Request::Flush { id: 2 }, Request::Flush { id: 3 }));
    // Not in their order: requests are answered as they are done.
    for id in [2, 3, 1] {
        back.push(answer(id, -2));
    }
    assert_eq!((back.unpublished(), front.unconsumed()), (3, Ok(0)));
    assert!(back.push_and_check_notify());
    assert_eq!(front.unconsumed(), Ok(3));
    for expected in [2, 3, 1] {
        let response = front.take();
        let (id, operation, status) = (response.id, response.operation, response.status);
        assert_eq!((id, operation, status), (expected, 3, -2));
    }
    // 12 bytes: the next slot begins 108 later, whatever lies between.
    assert_eq!(memory[16].load(Ordering::Relaxed), 2);
    assert_eq!(memory[16 + 27].load(Ordering::Relaxed), 3);

    memory[0].store(36, Ordering::Relaxed);
    let error = Err(RingError::Overrun { producer: 36, consumer: 3 });
    assert_eq!((back.unconsumed(), back.final_check_for_requests()), (error, error));
}

proptest! {
    /// Whatever lies in a slot: never a panic, the id comes back, and what is let through keeps within its bounds.
    #[test]
    fn any_bytes(words in proptest::collection::vec(any::<u32>(), 28), first in any::<[u8; 4]>(), small: bool) {
        let mut words = words;
        let first = if small { first.map(|byte| byte % 14) } else { first };
        words[0] = u32::from_le_bytes(first);
        let bytes = words.as_bytes();
        let wide = blkif::Request::read_from_bytes(bytes).unwrap();
        let narrow = x86_32::Request::read_from_prefix(bytes).unwrap().0;
        for (request, id) in [(parse(&wide), wide.id), (parse(&narrow), narrow.id)] {
            prop_assert_eq!(request.id(), id);
            match request {
                Request::Transfer { segments, kind, .. } => {
                    prop_assert!(!segments.is_empty() || kind == TransferKind::Barrier);
                    for segment in segments {
                        prop_assert!(segment.sectors > 0 && segment.offset() + segment.bytes() <= 4096);
                    }
                }
                Request::Indirect { segments, pages, .. } => {
                    prop_assert!((1..=256).contains(&segments));
                    prop_assert_eq!(pages.len(), 1);
                }
                _ => {}
            }
        }
    }

    /// The same for indirect pages.
    #[test]
    fn any_indirect_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..4096), count: u16) {
        if let Ok(segments) = parse_indirect(&bytes, count) {
            prop_assert_eq!(segments.len(), usize::from(count));
        }
    }
}
