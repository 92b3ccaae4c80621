//! Cases of server cards alone: queues drop frames for themselves and count them, and the device tells faults of its memory. Host.

use netdom::nic::{Fault, Options, queue};

use crate::bench::cases::{Card, bench};
use crate::bench::{bytes, contents};

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
