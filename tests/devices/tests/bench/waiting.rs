//! Cases of interrupts, and of a device that sends nothing. Host.

use std::time::Duration;

use devices::bus::Interrupt;
use devices::fake::Device;
use netdom::nic::{Fault, Interrupts, Options, queue};
use split_driver::time::Instant;

use super::cases::{Card, bench, start_on};
use super::{Bench, bytes, contents, packet};

/// Handles the interrupts since the start, the link's above all, and leaves the first queue armed.
pub(crate) fn settle<C: Card>(bench: &mut Bench<C>, link: usize) {
    while queue(&mut *bench.nic).arm(false) || !bench.device.messages().is_empty() {
        let _causes = bench.nic.handle_interrupt(link);
    }
}

pub(crate) fn one_interrupt_a_poll_however_wired<C: Card>(kind: C::Kind) {
    for (vectors, link) in [(1, 0), (2, 1), (3, 2)] {
        one_interrupt_a_poll::<C>(kind, Interrupts::MsiX(vectors), Interrupt::MsiX(0), link);
    }
}

/// Frames interrupt once until the queue is armed again, at vector 0; the link at `link`.
pub(crate) fn one_interrupt_a_poll<C: Card>(kind: C::Kind, interrupts: Interrupts, by: Interrupt, link: usize) {
    let change = |device: &Device<C>| device.interrupt_by(by);
    let mut bench = start_on::<C>(kind, change, interrupts, Options::default()).expect("it starts");
    let frame = bytes(64, 0);
    bench.device.inject(&frame);
    assert!(bench.device.messages().is_empty(), "disabled at first");
    assert!(queue(&mut *bench.nic).arm(false), "a frame is there already");
    assert!(queue(&mut *bench.nic).receive().is_some());
    settle(&mut bench, link);
    bench.device.inject(&frame);
    bench.device.messages();
    for _ in 0..3 {
        let _causes = bench.nic.handle_interrupt(0);
        while queue(&mut *bench.nic).receive().is_some() {}
        // A frame during the poll: no message, and none later, once it was taken.
        bench.device.inject(&frame);
        assert!(bench.device.messages().is_empty(), "{interrupts:?}");
        assert!(queue(&mut *bench.nic).receive().is_some());
        assert!(!queue(&mut *bench.nic).arm(false));
        assert!(bench.device.messages().is_empty(), "{interrupts:?}: stale");
        bench.device.inject(&frame);
        bench.device.inject(&frame);
        assert_eq!(bench.device.messages(), [0], "{interrupts:?}");
    }
    assert!(bench.nic.handle_interrupt(0).receive);
    while queue(&mut *bench.nic).receive().is_some() {}
    assert!(!queue(&mut *bench.nic).arm(false));
    bench.device.set_link(false);
    assert_eq!(bench.device.messages(), [link as u16], "{interrupts:?}");
    assert!(bench.nic.handle_interrupt(link).link);
    assert!(!queue(&mut *bench.nic).arm(false));
    assert!(bench.device.messages().is_empty(), "{interrupts:?}: acknowledged");
    bench.finish();
}

pub(crate) fn sent_packets_interrupt_only_where_asked<C: Card>(kind: C::Kind) {
    sent_packets_interrupt::<C>(kind, 3, 1);
}

/// Packets sent interrupt at `vector`, one of `vectors`, only while a caller waits for room.
pub(crate) fn sent_packets_interrupt<C: Card>(kind: C::Kind, vectors: usize, vector: u16) {
    let mut bench =
        start_on::<C>(kind, Device::be_lazy, Interrupts::MsiX(vectors), Options::default()).expect("it starts");
    settle(&mut bench, vectors - 1);
    let send = |bench: &mut Bench<C>, ask: bool| {
        let packet = packet(&bench.pool, &bytes(64, 0), &[]);
        assert!(queue(&mut *bench.nic).transmit(packet, None).is_ok());
        queue(&mut *bench.nic).flush();
        assert!(!queue(&mut *bench.nic).arm(ask));
        bench.device.run();
        let messages = bench.device.messages();
        assert_eq!(queue(&mut *bench.nic).reclaim(), 1);
        messages
    };
    assert!(send(&mut bench, false).is_empty());
    assert_eq!(send(&mut bench, true), [vector]);
    assert!(send(&mut bench, false).is_empty());
    bench.finish();
}

pub(crate) fn room_found_while_enabling_is_not_kept_secret<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    for ask in [true, false] {
        let packet = packet(&bench.pool, &bytes(64, 0), &[]);
        assert!(queue(&mut *bench.nic).transmit(packet, None).is_ok());
        queue(&mut *bench.nic).flush();
        assert_eq!(queue(&mut *bench.nic).arm(ask), ask);
        assert_eq!(queue(&mut *bench.nic).room(), 511, "taken back before the wait");
    }
    bench.finish();
}

pub(crate) fn a_device_that_sends_nothing_for_long_is_started_anew<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    let second = |number: u64| Instant(number * 1_000_000_000);
    let send = |bench: &mut Bench<C>, seed| {
        let packet = packet(&bench.pool, &bytes(600, seed), &[]);
        assert!(queue(&mut *bench.nic).transmit(packet, None).is_ok());
        queue(&mut *bench.nic).flush();
    };
    bench.device.be_lazy();
    send(&mut bench, 0);
    // While something is sent from time to time, it does not hang; nor where it has nothing to send, or no link.
    for number in 0..20 {
        assert_eq!(bench.watch(second(number)), None, "after {number} s");
        bench.device.run();
        send(&mut bench, 1);
    }
    bench.device.run();
    assert_eq!((20..40).filter_map(|number| bench.watch(second(number))).count(), 0);
    send(&mut bench, 2);
    bench.device.set_link(false);
    let found: Vec<_> = (40..44).map(|number| bench.watch(second(number))).collect();
    assert_eq!(found, [None, None, Some(Fault::NoLink), None], "not a hang");
    bench.device.set_link(true);
    bench.device.wait(Duration::from_secs(5));
    let found: Vec<_> = (60..70).map(|number| bench.watch(second(number))).collect();
    let expected = (0..10).map(|number| (number >= 5).then_some(Fault::TransmitHang(0)));
    assert!(found.iter().copied().eq(expected), "{found:?}");

    while bench.device.sent().is_some() {}
    let device = bench.device.clone();
    bench.nic.restart(&mut |time| device.wait(time)).expect("it starts anew");
    bench.device.wait(Duration::from_secs(5));
    assert_eq!(bench.pool.available(), bench.pool.capacity() - 128, "the packet to be sent is lost, its page is not");
    assert_eq!(bench.watch(second(80)), None);
    send(&mut bench, 3);
    bench.device.run();
    assert_eq!(bench.device.sent(), Some(bytes(600, 3)));
    assert_eq!(queue(&mut *bench.nic).reclaim(), 1);
    assert!(bench.device.inject(&bytes(70, 4)));
    bench.device.run();
    assert_eq!(contents(&queue(&mut *bench.nic).receive().expect("a frame")), bytes(70, 4));
    settle(&mut bench, 2);
    assert!(bench.device.inject(&bytes(70, 5)));
    bench.device.run();
    assert_eq!(bench.device.messages(), [0], "its interrupts are enabled again");
    bench.finish();
}

/// Not to be sent hours later, nor to hold their pages until then.
pub(crate) fn packets_left_without_a_link_are_dropped<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    let second = |number: u64| Instant(number * 1_000_000_000);
    bench.device.be_lazy();
    let before = bench.pool.available();
    for seed in 0..9 {
        let packet = packet(&bench.pool, &bytes(600, seed), &[]);
        assert!(queue(&mut *bench.nic).transmit(packet, None).is_ok());
    }
    queue(&mut *bench.nic).flush();
    bench.device.set_link(false);
    assert_eq!(bench.watch(second(1)), None);
    bench.device.set_link(true);
    bench.device.wait(Duration::from_secs(5));
    assert_eq!(bench.watch(second(2)), None, "it flickered");
    bench.device.set_link(false);
    let found: Vec<_> = (3..6).map(|number| bench.watch(second(number))).collect();
    assert_eq!(found, [None, None, Some(Fault::NoLink)]);
    assert_eq!(bench.pool.available(), before - 9);
    let device = bench.device.clone();
    bench.nic.restart(&mut |time| device.wait(time)).expect("it starts anew");
    assert_eq!(bench.pool.available(), before);
    assert_eq!((6..16).filter_map(|number| bench.watch(second(number))).count(), 0, "nothing is left");
    bench.device.set_link(true);
    bench.device.wait(Duration::from_secs(5));
    bench.device.run();
    assert_eq!(bench.device.sent(), None);
    bench.finish();
}
