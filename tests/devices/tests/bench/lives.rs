//! Cases of lives that end: what lay in the rings and what the device counted meanwhile. Host.

use std::time::Duration;

use netdom::nic::{Options, queue};
use netdom::offload::headers::Network;
use netdom::packet::Pool;
use split_driver::time::Instant;

use super::cases::{Card, bench, next_life};
use super::{Bench, bytes, layout, packet, superframe, tcp_packet, written};

/// Sends packets of several descriptors each: some that go out, some that do not, some that the device is not told of.
fn fill_transmit_ring<C: Card>(bench: &mut Bench<C>) {
    let mut send = |pool: &Pool, count, flush: bool| {
        for number in 0..count {
            let packet = packet(pool, &bytes(200 + number, number), &[20, 30, 40][..number % 4]);
            assert!(queue(&mut *bench.nic).transmit(packet, None).is_ok());
        }
        if flush {
            queue(&mut *bench.nic).flush();
        }
    };
    // They are sent; nobody has seen that yet when the life ends.
    send(&bench.pool, 11, true);
    bench.device.hang(0);
    send(&bench.pool, 7, true);
    send(&bench.pool, 3, false);
    // As many descriptors more: a super-frame is a packet.
    let whole = tcp_packet(Network::V4, 5000, 9);
    let superframe = superframe(Network::V4, &bench.pool, &whole, 1400);
    assert!(queue(&mut *bench.nic).transmit(superframe, Some(&layout(Network::V4))).is_ok());
}

pub(crate) fn what_lay_in_the_rings_when_a_life_ended_is_counted<C: Card>(kind: C::Kind) {
    for round in 0..3 {
        let options = || Options { transmit_descriptors: 128, receive_descriptors: 64, ..Options::default() };
        let mut bench = bench::<C>(kind, options());
        // From somewhere in the rings on, in the last round through their ends.
        for number in 0..round * 45 {
            let nic = queue(&mut *bench.nic);
            assert!(nic.transmit(packet(&bench.pool, &bytes(100, number), &[]), None).is_ok());
            nic.flush();
            nic.reclaim();
            assert!(bench.device.inject(&bytes(100, number)) && nic.receive().is_some());
            nic.refill(&bench.pool);
        }
        for number in 0..9 {
            assert!(bench.device.inject(&bytes(100, number)));
        }
        assert!(queue(&mut *bench.nic).receive().is_some());
        assert_eq!(queue(&mut *bench.nic).receive_batch(3, &mut Vec::new()), 3);
        fill_transmit_ring(&mut bench);
        let counted = bench.nic.statistics();
        assert_eq!((counted.receive_reset, counted.transmit_reset), (0, 0));
        // The device goes on until it no longer reaches memory.
        let left = written(&bench.ledgers);
        for number in 0..2 {
            assert!(bench.device.inject(&bytes(100, number)));
        }
        assert_eq!(left, written(&bench.ledgers), "nobody is there to see it");
        let mut next = next_life(bench, kind, options());
        let counted = next.nic.statistics();
        assert_eq!((counted.receive_reset, counted.transmit_reset), (5 + 2, 7 + 3 + 1), "round {round}");
        // Once, however many lives follow; a reset for a fault counts as well.
        next.device.with_model(|model| model.faults().hung_transmit = 0);
        let mut last = next_life(next, kind, options());
        assert_eq!(last.nic.statistics(), counted);
        last.device.wait(Duration::from_secs(5));
        let _fell = last.nic.link();
        for number in 0..4 {
            assert!(last.device.inject(&bytes(100, number)));
        }
        fill_transmit_ring(&mut last);
        let device = last.device.clone();
        last.nic.restart(&mut |time| device.wait(time)).expect("it starts anew");
        let counted = last.nic.statistics();
        assert_eq!((counted.receive_reset, counted.transmit_reset), (5 + 2 + 4, 2 * (7 + 3 + 1)));
        assert!(queue(&mut *last.nic).receive().is_none());
        last.finish();
    }
}

pub(crate) fn frames_that_the_device_missed_between_two_lives_are_counted<C: Card>(kind: C::Kind) {
    const FRAMES: usize = 1000;
    let options = || Options { receive_descriptors: 64, ..Options::default() };
    let mut first = bench::<C>(kind, options());
    assert!(first.device.inject(&bytes(60, 1)) && queue(&mut *first.nic).receive().is_some());
    // A frame that was dropped is known to the next life, once it was counted.
    let place = first.device.descriptor(C::receive_queue(0), 1);
    first.device.write_descriptor(place, [0, 0, 3, 13]);
    first.device.set(C::receive_queue(0) + devices::ring::offset::HEAD, 2);
    assert!(queue(&mut *first.nic).receive().is_none());
    assert_eq!(first.watch(Instant(0)), None);
    let taken = (0..FRAMES).filter(|number| first.device.inject(&bytes(1000, *number))).count();
    let mut next = next_life(first, kind, options());
    let counted = next.nic.statistics();
    assert_eq!((counted.receive_malformed, counted.receive_reset), (1, 61));
    // What waited in the packet memory of a device whose queues do not drop is on no count.
    let missed = if taken == FRAMES { FRAMES - 61 } else { FRAMES - taken };
    assert_eq!(counted.receive_missed, missed as u64);
    assert!(missed > 0);
    let mut last = next_life(next, kind, options());
    assert_eq!(last.nic.statistics(), counted);
    last.finish();
}
