//! Properties of the rings: indices wrap, nothing is lost, and a hostile producer is refused. Floor 1.

use super::*;
use crate::atomic::AtomicU32;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use proptest::prelude::*;

type Request = [u32; 3];
type Response = [u32; 1];

fn page(words: usize) -> Vec<AtomicU32> {
    (0..words).map(|_| AtomicU32::new(0)).collect()
}

fn set(page: &[AtomicU32], word: usize, value: u32) {
    page[word].store(value, Ordering::Relaxed);
}

#[test]
fn slot_counts_are_those_of_the_headers() {
    for (bytes, slot, slots) in [
        (4096, 12, 256),
        (4096, 8, 256),
        (4096, 16, 128),
        (4096, 112, 32),
        (2 * 4096, 112, 64),
        (16 * 4096, 112, 512),
        (64, 12, 0),
        (0, 12, 0),
        (76, 12, 1),
    ] {
        assert_eq!(slots_in(bytes, slot), slots, "{bytes} / {slot}");
    }
}

#[test]
fn no_ring_in_no_memory() {
    let error = BackRing::<_, Request, Response>::attach(page(16)).unwrap_err();
    assert_eq!(error, RingError::TooSmall { words: 16 });
}

#[test]
fn slots_lie_where_the_header_says() {
    let memory = page(1024);
    let mut front = FrontRing::<_, Request, Response>::init(&memory).unwrap();
    assert!(front.push(&[1, 2, 3]) && front.push(&[4, 5, 6]));
    assert!(front.push_and_check_notify());
    let words: Vec<u32> = memory.iter().map(|w| w.load(Ordering::Relaxed)).collect();
    assert_eq!(words[..4], [2, 1, 0, 1]);
    assert_eq!(words[16..22], [1, 2, 3, 4, 5, 6]);
    let mut back = BackRing::<_, Request, Response>::attach(&memory).unwrap();
    assert_eq!(back.unconsumed(), Ok(2));
    assert_eq!(back.peek::<Request>(1), [4, 5, 6]);
    assert_eq!(back.take(), [1, 2, 3]);
    back.push(&[77]);
    assert_eq!(front.unconsumed(), Ok(0), "not published");
    assert!(back.push_and_check_notify());
    assert_eq!(memory[16].load(Ordering::Relaxed), 77);
    assert_eq!(front.unconsumed(), Ok(1));
    assert_eq!(front.take(), [77]);
}

/// Each producer index a peer can write, from each place in the ring: accepted exactly where the ring can hold it.
/// The peer hears of an index once it is published, and not again (`RING_PUSH_REQUESTS_AND_CHECK_NOTIFY` of `io/ring.h`).
#[test]
fn the_peer_is_notified_of_what_it_waits_for() {
    for start in [0, 1 << 31, u32::MAX - 1] {
        let memory = page(1024);
        let state = FrontState { produced: start, published: start, consumed: start };
        let mut front = FrontRing::<_, Request, Response>::resume(&memory, state).unwrap();
        for (pushed, event, notified) in
            [(2, 0, false), (2, 1, true), (2, 2, true), (2, 3, false), (0, 0, false), (2, 256, false)]
        {
            let FrontState { published, .. } = front.state();
            set(&memory, REQUEST_EVENT, published.wrapping_add(event));
            assert!((0..pushed).all(|_| front.push(&[0; 3])));
            assert_eq!(front.push_and_check_notify(), notified, "{pushed} from {published} on, waiting for {event}");
        }
    }
}

#[test]
fn producer_is_believed_within_the_ring_only() {
    for start in [0_u32, 5, u32::MAX - 2] {
        for open in [0_u32, 1, 200] {
            for delta in -600_i64..600 {
                let memory = page(1024);
                let state = BackState { consumed: start.wrapping_add(open), produced: start, published: start };
                let ring = BackRing::<_, Request, Response>::resume(&memory, state).unwrap();
                let producer = start.wrapping_add_signed(i32::try_from(delta).unwrap());
                set(&memory, REQUEST_PRODUCER, producer);
                let legal = delta >= i64::from(open) && delta <= 256;
                let expected = if legal {
                    Ok(u32::try_from(delta).unwrap() - open)
                } else {
                    Err(RingError::Overrun { producer, consumer: state.consumed })
                };
                assert_eq!(ring.unconsumed(), expected, "{start} {open} {delta}");
                assert_eq!(ring.final_check_for_requests(), expected);
            }
        }
    }
}

#[test]
fn backend_believes_nothing_it_wrote() {
    let memory = page(1024);
    let mut front = FrontRing::<_, Request, Response>::init(&memory).unwrap();
    let mut back = BackRing::<_, Request, Response>::attach(&memory).unwrap();
    assert!(front.push(&[1, 2, 3]));
    let _ = front.push_and_check_notify();
    // The frontend scribbles over the backend's index.
    set(&memory, RESPONSE_PRODUCER, 0x8000_0000);
    assert_eq!(back.unconsumed(), Ok(1));
    let _ = back.take();
    back.push(&[9]);
    let _ = back.push_and_check_notify();
    assert_eq!(memory[RESPONSE_PRODUCER].load(Ordering::Relaxed), 1);
}

#[test]
fn frontend_refuses_answers_to_nothing() {
    let memory = page(1024);
    let mut front = FrontRing::<_, Request, Response>::init(&memory).unwrap();
    assert!(front.push(&[1, 2, 3]));
    let _ = front.push_and_check_notify();
    set(&memory, RESPONSE_PRODUCER, 2);
    assert_eq!(front.unconsumed(), Err(RingError::Overrun { producer: 2, consumer: 0 }));
}

#[test]
fn attach_refuses_an_overrun_ring() {
    let memory = page(1024);
    set(&memory, REQUEST_PRODUCER, 300);
    set(&memory, RESPONSE_PRODUCER, 10);
    assert!(BackRing::<_, Request, Response>::attach(&memory).is_err());
    set(&memory, REQUEST_PRODUCER, 266);
    let ring = BackRing::<_, Request, Response>::attach(&memory).unwrap();
    assert_eq!(ring.unconsumed(), Ok(256));
}

proptest! {
    /// Two honest ends, from any start of the indices: everything arrives once and in order, and whoever sleeps is woken.
    #[test]
    fn two_ends(start: u32, pages in 1_usize..4, steps in proptest::collection::vec((0_u8..6, 1_u32..40), 1..400)) {
        let memory = page(1024 * pages);
        for word in [REQUEST_PRODUCER, RESPONSE_PRODUCER] {
            set(&memory, word, start);
        }
        for word in [REQUEST_EVENT, RESPONSE_EVENT] {
            set(&memory, word, start.wrapping_add(1));
        }
        let front = FrontState { produced: start, published: start, consumed: start };
        let mut front = FrontRing::<_, Request, Response>::resume(&memory, front).unwrap();
        let mut back = BackRing::<_, Request, Response>::attach(&memory).unwrap();
        let (mut sent, mut taken, mut done) = (0_u32, 0_u32, 0_u32);
        let mut open = VecDeque::new();
        let (mut back_asleep, mut front_asleep) = (false, false);
        for (step, count) in steps {
            match step {
                0 => for _ in 0..count {
                    if front.push(&[sent, !sent, 7]) { sent += 1; }
                },
                1 => if front.push_and_check_notify() { back_asleep = false; },
                2 => {
                    let waiting = back.unconsumed().unwrap();
                    prop_assert!(!(back_asleep && waiting > 0), "lost wakeup of the back end");
                    for _ in 0..waiting.min(count) {
                        let request = back.take();
                        prop_assert_eq!(request, [taken, !taken, 7]);
                        open.push_back(taken);
                        taken += 1;
                    }
                }
                3 => {
                    for _ in 0..count {
                        if let Some(id) = open.pop_front() { back.push(&[id]); }
                    }
                    if back.push_and_check_notify() { front_asleep = false; }
                }
                4 => back_asleep = back.final_check_for_requests().unwrap() == 0,
                _ => {
                    let waiting = front.unconsumed().unwrap();
                    prop_assert!(!(front_asleep && waiting > 0), "lost wakeup of the front end");
                    for _ in 0..waiting {
                        prop_assert_eq!(front.take(), [done]);
                        done += 1;
                    }
                    front_asleep = front.final_check_for_responses().unwrap() == 0;
                }
            }
            // A restart in between changes nothing.
            let state = back.state();
            back = BackRing::resume(&memory, state).unwrap();
        }
        prop_assert!(done <= taken && taken <= sent);
        prop_assert_eq!(back.slots(), slots_in(4096 * pages, 12));
    }

    /// A peer that writes anything anywhere: never more than a ring's worth of requests, never a panic.
    #[test]
    fn hostile_peer(words in proptest::collection::vec((0_usize..1024, any::<u32>()), 1..100)) {
        let memory = page(1024);
        let mut back = BackRing::<_, Request, Response>::attach(&memory).unwrap();
        for (word, value) in words {
            set(&memory, word, value);
            let Ok(waiting) = back.unconsumed() else { continue };
            prop_assert!(waiting <= 256);
            for _ in 0..waiting {
                let _ = back.take();
                back.push(&[0]);
            }
            let _ = back.push_and_check_notify();
            let _ = back.final_check_for_requests();
        }
    }
}

/// Memory in which each word is 100 more each time that it is looked at.
struct Restless(Vec<AtomicU32>);

impl SharedMemory for Restless {
    fn words(&self) -> &[AtomicU32] {
        &self.0
    }

    fn look(&self, range: Range<usize>) -> &[AtomicU32] {
        let words = self.0.get(range).unwrap_or_default();
        for word in words {
            word.fetch_add(100, Ordering::Relaxed);
        }
        words
    }
}

/// The peer writes between any two looks of ours: an index and each word of a slot are looked at once.
#[test]
fn nothing_is_fetched_twice() {
    let memory = Restless(page(1024));
    let slot = [1, 2, 3, 4, 5, 6];
    slot.into_iter().zip(16..).for_each(|(value, word)| set(&memory.0, word, value));
    set(&memory.0, 0, 2);
    let mut back = BackRing::<_, Request, Response>::resume(&memory, BackState::default()).unwrap();
    assert_eq!(back.unconsumed(), Ok(102));
    assert_eq!(back.peek::<Request>(1), [104, 105, 106]);
    assert_eq!(back.take(), [101, 102, 103]);
    set(&memory.0, 2, 1);
    let state = FrontState { produced: 200, published: 200, consumed: 0 };
    let mut front = FrontRing::<_, Request, Response>::resume(&memory, state).unwrap();
    assert_eq!(front.unconsumed(), Ok(101));
    assert_eq!(front.take(), [201]);
}
