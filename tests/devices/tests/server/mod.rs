//! Cases of server cards alone: queues drop frames for themselves and count them, and the device tells faults of its memory. Host.

use netdom::nic::{Fault, Options, queue};

use crate::bench::cases::{Card, bench};
use crate::bench::{Bench, bytes, contents, packet};

pub(crate) fn lost_memory_is_told<C: Card>(kind: C::Kind) {
    let (lose, _) = C::FAULTS.iter().find(|(_, fault)| *fault == Fault::Memory).expect("its memories are guarded");
    let mut bench = bench::<C>(kind, Options::default());
    assert!(!queue(&mut *bench.nic).arm(false));
    let _earlier = (bench.device.messages(), bench.nic.handle_interrupt(2), queue(&mut *bench.nic).arm(false));
    bench.device.messages();
    bench.device.with_model(*lose);
    assert_eq!(bench.device.messages(), [2]);
    assert_eq!(bench.nic.handle_interrupt(2).fault, Some(Fault::Memory));
    bench.finish();
}

pub(crate) fn frames_without_a_buffer_are_counted_once<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options { receive_descriptors: 64, ..Options::default() });
    for number in 0..63 + 11 {
        assert!(bench.device.inject(&bytes(70, number)));
    }
    for _ in 0..2 {
        assert_eq!(bench.nic.statistics().receive_missed, 11);
    }
    for number in 0..63 {
        assert_eq!(contents(&queue(&mut *bench.nic).receive().expect("a frame")), bytes(70, number));
    }
    assert!(queue(&mut *bench.nic).receive().is_none());
    queue(&mut *bench.nic).refill(&bench.pool);
    for number in 0..63 + 5 {
        assert!(bench.device.inject(&bytes(70, number)));
    }
    assert_eq!(bench.nic.statistics().receive_missed, 16);
    bench.finish();
}

pub(crate) fn sent_packets_interrupt_until_no_queue_waits<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options { queues: 2, receive_descriptors: 64, ..Options::default() });
    let told = |bench: &mut Bench<C>| {
        let frame = packet(&bench.pool, &bytes(100, 3), &[]);
        // Of the link.
        let _earlier = bench.device.messages();
        let queue = bench.nic.queue(0).expect("a queue");
        assert!(queue.transmit(frame, None).is_ok());
        queue.flush();
        let messages = bench.device.messages();
        assert_eq!(queue.reclaim(), 1);
        messages
    };
    let arm = |bench: &mut Bench<C>, index, wanted| assert!(!bench.nic.queue(index).expect("a queue").arm(wanted));
    for index in [0, 1] {
        arm(&mut bench, index, true);
    }
    arm(&mut bench, 0, false);
    assert_eq!(told(&mut bench), [2], "the other waits still");
    bench.nic.handle_interrupt(2);
    for (index, wanted) in [(0, false), (1, true), (1, false)] {
        arm(&mut bench, index, wanted);
    }
    assert_eq!(told(&mut bench), [0u16; 0], "nobody waits");
    bench.finish();
}

pub(crate) fn a_starved_ring_is_filled_later<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options { receive_descriptors: 64, ..Options::default() });
    let mut pages: Vec<_> = std::iter::from_fn(|| bench.pool.take()).collect();
    let mut frames = Vec::new();
    // 63 buffers, and the other half of the last one's page.
    for number in 0..64 {
        if number == 63 {
            queue(&mut *bench.nic).refill(&bench.pool);
        }
        assert!(!queue(&mut *bench.nic).starves());
        assert!(bench.device.inject(&bytes(70, number)));
        frames.push(queue(&mut *bench.nic).receive().expect("a frame"));
    }
    queue(&mut *bench.nic).refill(&bench.pool);
    assert!(queue(&mut *bench.nic).starves(), "there is no page");
    pages.truncate(pages.len() - 3);
    queue(&mut *bench.nic).refill(&bench.pool);
    assert!(!queue(&mut *bench.nic).starves());
    for number in 0..6 {
        assert!(bench.device.inject(&bytes(70, number)));
        assert_eq!(contents(&queue(&mut *bench.nic).receive().expect("a frame")), bytes(70, number));
    }
    drop((pages, frames));
    bench.finish();
}
