//! Cases of received frames, and of memory that a device may write to. Host.

use devices::ring::offset;
use netdom::nic::ledger::Ledger;
use netdom::nic::{Link, Options, queue};
use netdom::packet::Offload;
use split_driver::fakes::closed;
use split_driver::memory::DmaAllocator;
use split_driver::time::Instant;
use std::time::Duration;

use super::cases::{Card, bench, model, next_life};
use super::{bytes, contents, reset};

pub(crate) fn receives_byte_for_byte_through_many_wraps<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    for round in 0..1500 {
        let frame = bytes(60 + round * 29 % 1455, round);
        assert!(bench.device.inject(&frame), "round {round}");
        let packet = queue(&mut *bench.nic).receive().expect("a frame");
        assert_eq!(contents(&packet), frame);
        assert_eq!(packet.offload, Offload::default());
        queue(&mut *bench.nic).refill(&bench.pool);
    }
    assert!(queue(&mut *bench.nic).receive().is_none());
    bench.finish();
}

/// A NIC that is taken over writes to no memory of the life before.
pub(crate) fn a_nic_of_an_earlier_life_receives_nothing_more<C: Card>(kind: C::Kind) {
    let bench = bench::<C>(kind, Options::default());
    assert!(bench.device.inject(&bytes(60, 1)), "it receives");
    let device = bench.device.clone();
    reset(&device, model::<C>(kind), &Ledger::default());
    assert!(!bench.device.inject(&bytes(60, 2)), "it receives still");
    // The life ended: nothing was quieted, and nothing of it is used.
    core::mem::forget(bench);
}

pub(crate) fn a_link_outlives_the_life_that_set_it_up<C: Card>(kind: C::Kind) {
    let first = bench::<C>(kind, Options::default());
    let begun = first.device.with_model(|model| model.links_begun());
    let mut next = next_life(first, kind, Options::default());
    assert_eq!(next.nic.link(), Link::Up(C::SPEED), "from the first moment on");
    for second in 1..5 {
        next.device.wait(Duration::from_secs(1));
        assert_eq!(next.watch(Instant(second * 1_000_000_000)), None);
        assert_eq!(next.nic.link(), Link::Up(C::SPEED));
    }
    assert_eq!(next.device.with_model(|model| model.links_begun()), begun);
    // One that is lost later is begun with as ever.
    next.device.set_link(false);
    assert_eq!(next.nic.link(), Link::Down);
    next.device.set_link(true);
    next.device.wait(Duration::from_secs(5));
    let _fell = next.nic.link();
    assert_eq!(next.nic.link(), Link::Up(C::SPEED));
    assert!(next.device.inject(&bytes(60, 1)), "it receives");
    next.finish();
}

pub(crate) fn a_device_that_lies_costs_itself<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    // Status and length of descriptors that a device might write; a good frame after each must come through.
    const DONE: u32 = 1;
    const END: u32 = 3;
    // How many are malformed, and how many oversize.
    type Case = (&'static str, &'static [(u32, u32)], [u64; 2]);
    let cases: &[Case] = &[
        ("longer than its buffer", &[(END, 2049)], [1, 0]),
        ("longest length", &[(END, 0xFFFF)], [1, 0]),
        ("empty", &[(END, 0)], [1, 0]),
        ("shorter than a header", &[(END, 13)], [1, 0]),
        ("longer than a frame", &[(END, 1519)], [0, 1]),
        ("a short middle", &[(DONE, 100), (END, 100)], [1, 0]),
        ("longer than a frame, in pieces", &[(DONE, 2048), (DONE, 2048), (END, 2048)], [0, 1]),
        ("all bits", &[(u32::MAX, u32::MAX)], [1, 0]),
    ];
    let mut index = 0u32;
    let (mut malformed, mut oversize) = (0, 0);
    for (why, descriptors, count) in cases {
        for (status, length) in *descriptors {
            let at = bench.device.descriptor(C::receive_queue(0), index);
            bench.device.write_descriptor(at, [u32::MAX, u32::MAX, *status, *length]);
            index += 1;
        }
        bench.device.set(C::receive_queue(0) + offset::HEAD, index);
        assert!(queue(&mut *bench.nic).receive().is_none(), "{why}");
        malformed += count[0];
        oversize += count[1];
        let counted = bench.nic.statistics();
        assert_eq!((counted.receive_malformed, counted.receive_oversize), (malformed, oversize), "{why}");
        let good = bytes(70, 5);
        assert!(bench.device.inject(&good));
        index += 1;
        assert_eq!(contents(&queue(&mut *bench.nic).receive().expect(why)), good);
    }
    queue(&mut *bench.nic).refill(&bench.pool);
    bench.finish();
}

pub(crate) fn done_bits_where_nothing_is_posted_are_not_looked_at<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    // The whole ring as done, at once: as many frames as buffers were posted, not one more.
    for index in 0..256 {
        let at = bench.device.descriptor(C::receive_queue(0), index);
        bench.device.write_descriptor(at, [0, 0, 3, 64]);
    }
    let mut frames = Vec::new();
    while let Some(frame) = queue(&mut *bench.nic).receive() {
        frames.push(frame);
    }
    assert_eq!(frames.len(), 255);
    // Done bits on transmit descriptors that were never given.
    for index in 0..512 {
        let at = bench.device.descriptor(C::transmit_queue(0), index);
        bench.device.write_descriptor(at, [0, 0, 0, 1]);
    }
    assert_eq!(queue(&mut *bench.nic).reclaim(), 0);
    assert_eq!(queue(&mut *bench.nic).room(), 511);
    drop(frames);
    bench.finish();
}

pub(crate) fn memory_of_a_device_that_does_not_stop_goes_back_with_a_proof_alone<C: Card>(kind: C::Kind) {
    for ended in [false, true] {
        let mut bench = bench::<C>(kind, Options::default());
        let before = bench.pool.available();
        assert!(before < bench.pool.capacity());
        bench.device.stay_busy();
        bench.nic.quiesce();
        assert_eq!(bench.pool.available(), before, "the device may still write to them");
        if ended {
            bench.nic.release(closed(bench.device.dma().reach()));
        }
        drop(bench.nic);
        assert_eq!(bench.pool.available(), if ended { bench.pool.capacity() } else { before });
        // The pool's pages, and the two rings where the device may still write to them.
        assert_eq!(bench.xen.live().local_regions, if ended { 1 } else { 3 });
    }
}
