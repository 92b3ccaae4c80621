//! Lost wakeups, looked for in every order that the memory model allows. Floor 1.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p split-driver --release --test ring_loom`
#![cfg(loom)]

use std::sync::Arc;

use loom::sync::atomic::AtomicU32;
use loom::thread;
use split_driver::ring::{BackRing, BackState, FrontRing, FrontState};

type Memory = Arc<Vec<AtomicU32>>;
type Front = FrontRing<Memory, u32, u32>;
type Back = BackRing<Memory, u32, u32>;

/// A ring of two slots through which one request has gone; both ends' event indices are stale, as in a busy ring.
fn busy_ring() -> (Front, Back) {
    let memory: Memory = Arc::new((0..18).map(|_| AtomicU32::new(0)).collect());
    let mut front = Front::init(memory.clone()).unwrap();
    let mut back = Back::attach(memory).unwrap();
    assert!(front.push(&1));
    assert!(front.push_and_check_notify());
    assert_eq!(back.take(), 1);
    back.push(&1);
    assert!(back.push_and_check_notify());
    assert_eq!(front.take(), 1);
    (front, back)
}

#[test]
fn a_request_wakes_the_back_end_or_is_seen() {
    loom::model(|| {
        let (mut front, mut back) = busy_ring();
        let producer = thread::spawn(move || {
            assert!(front.push(&7));
            front.push_and_check_notify()
        });
        let seen = back.final_check_for_requests().unwrap();
        if seen == 1 {
            assert_eq!(back.take(), 7, "the index was seen before the slot");
        }
        let notified = producer.join().unwrap();
        assert!(notified || seen == 1, "lost wakeup");
    });
}

#[test]
fn a_response_wakes_the_front_end_or_is_seen() {
    loom::model(|| {
        let (mut front, mut back) = busy_ring();
        assert!(front.push(&7));
        let _ = front.push_and_check_notify();
        let producer = thread::spawn(move || {
            assert_eq!(back.unconsumed(), Ok(1));
            let request = back.take();
            back.push(&(request + 1));
            back.push_and_check_notify()
        });
        let seen = front.final_check_for_responses().unwrap();
        if seen == 1 {
            assert_eq!(front.take(), 8, "the index was seen before the slot");
        }
        let notified = producer.join().unwrap();
        assert!(notified || seen == 1, "lost wakeup");
    });
}

/// The states are all there is: a ring taken up again goes on where it was.
#[test]
fn resumed_rings_meet() {
    loom::model(|| {
        let (front, back) = busy_ring();
        let (front_state, back_state) = (front.state(), back.state());
        assert_eq!(front_state, FrontState { produced: 1, published: 1, consumed: 1 });
        assert_eq!(back_state, BackState { consumed: 1, produced: 1, published: 1 });
        let mut front = Front::resume(front.into_memory(), front_state).unwrap();
        let back = Back::resume(back.into_memory(), back_state).unwrap();
        let producer = thread::spawn(move || {
            assert!(front.push(&7));
            front.push_and_check_notify()
        });
        let seen = back.final_check_for_requests().unwrap();
        assert!(producer.join().unwrap() || seen == 1, "lost wakeup");
    });
}
