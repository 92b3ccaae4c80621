//! Cases of lives that end: what lay in the rings, what the device counted meanwhile, and the semaphores that were held. Host.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::Duration;

use devices::bus::Interrupt;
use devices::fake::Device;
use netdom::nic::ledger::Ledgers;
use netdom::nic::models::Model;
use netdom::nic::{Interrupts, Link, Options, queue};
use netdom::offload::headers::Network;
use netdom::packet::Pool;
use split_driver::fakes::{FakePages, FakeXen};
use split_driver::memory::{Mmio, Reach};
use split_driver::time::Instant;

use super::cases::{ADDRESS, Card, bench, model, next_life};
use super::{Bench, HOST, bytes, layout, packet, superframe, tcp_packet, written};

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

/// The registers of a device, for a life that ends behind an access to one of its semaphores.
struct Mortal<C: Card> {
    device: Device<C>,
    /// Accesses until then.
    left: Cell<usize>,
    ledgers: Ledgers,
    /// What the next life knows then.
    will: Rc<RefCell<Vec<u8>>>,
}

/// The life has ended.
struct End;

/// How long a reset and a start take at most: nobody waits for a semaphore until its owner is given up.
const START: Duration = Duration::from_millis(100);

impl<C: Card> Mortal<C> {
    fn is_over(&self) -> bool {
        self.left.get() == 0
    }

    fn touch(&self, offset: usize) {
        if !C::SEMAPHORES.contains(&offset) {
            return;
        }
        self.left.set(self.left.get() - 1);
        if self.is_over() {
            *self.will.borrow_mut() = written(&self.ledgers);
            resume_unwind(Box::new(End));
        }
    }
}

impl<C: Card> Mmio for Mortal<C> {
    fn reach(&self) -> Reach {
        self.device.reach()
    }

    fn len(&self) -> usize {
        self.device.len()
    }

    fn read32(&self, offset: usize) -> u32 {
        if self.is_over() {
            return u32::MAX;
        }
        let value = self.device.read32(offset);
        self.touch(offset);
        value
    }

    fn write32(&self, offset: usize, value: u32) {
        if !self.is_over() {
            self.device.write32(offset, value);
            self.touch(offset);
        }
    }
}

/// What a life does with a device from its start on, until it ends.
fn live<C: Card>(model: Model, mmio: Mortal<C>, xen: &FakeXen, interrupts: Interrupts) {
    let (pool, device) = (Pool::new(Box::new(FakePages::new(xen, 1024))), mmio.device.clone());
    let options = Options { ledger: mmio.ledgers.of(HOST), ..Options::default() };
    let nic = model.start(mmio, device.dma(), interrupts, &pool, options, &mut |delay| device.wait(delay));
    let mut nic = nic.expect("it starts");
    for second in 1..8 {
        device.wait(Duration::from_secs(1));
        assert_eq!(nic.watch(Instant(second * 1_000_000_000), &mut |delay| device.wait(delay)), None);
        if nic.link() != Link::Down {
            break;
        }
    }
    core::mem::forget(nic);
}

/// A life that ends behind any of its accesses to a semaphore leaves none taken, and costs the next one no long wait.
pub(crate) fn each_semaphore_is_given_back<C: Card>(power_on: impl Fn() -> C, model: Model) {
    let [.., last] = C::SEMAPHORES else { return };
    let free =
        |device: &Device<C>| C::SEMAPHORES.iter().all(|at| device.peek(*at) == if at == last { C::OTHERS } else { 0 });
    let (interrupts, by) = match model.vectors(1) {
        0 => (Interrupts::Single, Interrupt::Msi),
        vectors => (Interrupts::MsiX(vectors), Interrupt::MsiX(0)),
    };
    let (mut accesses, mut lives, mut held) = (0, 0, 0);
    loop {
        // Behind each of those of a start; then there are many, to read a module.
        accesses += if accesses < 50 { 1 } else { 17 };
        let (xen, will) = (FakeXen::new(), Rc::default());
        let device = Device::new(&xen, power_on());
        device.interrupt_by(by);
        device.set(*last, C::OTHERS);
        let ledgers = Ledgers::default();
        let mmio = Mortal { device: device.clone(), left: Cell::new(accesses), ledgers, will: Rc::clone(&will) };
        match catch_unwind(AssertUnwindSafe(|| live(model, mmio, &xen, interrupts))) {
            Ok(()) => break,
            Err(end) => assert!(end.is::<End>(), "life {accesses}"),
        }
        lives += 1;
        held += usize::from(!free(&device));
        let before = device.now();
        let mut next = Bench::take_over(device.clone(), xen, &will.borrow(), model, interrupts, Options::default());
        let took = device.now() - before;
        assert!(took < START, "life {accesses}: {took:?}");
        for second in 1..8 {
            device.wait(Duration::from_secs(1));
            assert_eq!(next.watch(Instant(second * 1_000_000_000)), None);
        }
        let _fell = next.nic.link();
        assert_eq!(next.nic.link(), Link::Up(C::SPEED), "life {accesses}");
        assert!(free(&device), "life {accesses}");
        // The life before this one was not stopped in order, so nor are its pages given back.
        next.nic.quiesce();
        assert_eq!((device.misuse(), next.pool.available()), (Vec::new(), next.pool.capacity()));
    }
    assert!(lives == 0 || held > 0);
}

pub(crate) fn semaphores_held_when_a_life_ends_are_given_back<C: Card>(kind: C::Kind) {
    each_semaphore_is_given_back(|| C::power_on(kind, ADDRESS), model::<C>(kind));
}
