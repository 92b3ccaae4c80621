//! netdom's ixgbe driver against the models of the 82599 and the X540. Host.

mod bench;
mod modules;
mod server;

use bench::cases::Card;
use devices::bus::Model;
use devices::fake::Device;
use devices::ixgbe::{Ixgbe, Kind, cause, registers};
use netdom::nic::{Fault, Interrupts, Link, Options};
use server::{
    a_starved_ring_is_filled_later, frames_without_a_buffer_are_counted_once, lost_memory_is_told,
    sent_packets_interrupt_until_no_queue_waits,
};
use split_driver::time::Instant;
use std::time::Duration;

impl Card for Ixgbe {
    type Kind = Kind;
    const SPEED: u32 = 10_000;
    const LARGEST: usize = 9724;
    const RESET: &'static str = "CTRL";
    /// CE, LE, PE, OSE and RXE, 82599 datasheet 7.1.6.2.
    const DAMAGED: &'static [u32] = &[1 << 24, 1 << 25, 1 << 27, 1 << 28, 1 << 29];
    const FAR: u16 = 600;

    const SEMAPHORES: &'static [usize] = &[registers::SWSM, registers::SW_FW_SYNC];
    /// SW_PHY_SM1, FW_PHY_SM1.
    const OTHERS: u32 = 1 << 2 | 1 << 7;

    fn receive_queue(queue: usize) -> usize {
        registers::receive(queue)
    }

    fn transmit_queue(queue: usize) -> usize {
        registers::transmit(queue)
    }

    fn contexts(&self) -> usize {
        self.contexts_seen()
    }

    fn power_on(kind: Kind, address: [u8; 6]) -> Self {
        Self::new(kind, address)
    }

    fn device(kind: Kind) -> u16 {
        kind.identity().device
    }

    fn sends_pauses(&self) -> bool {
        self.peek(registers::FCCFG) & registers::FCCFG_TFCE != 0
    }

    fn links_begun(&self) -> usize {
        Self::links_begun(self)
    }

    fn set_partner(&mut self, symmetric: bool, asymmetric: bool) -> bool {
        self.set_partner_pause(symmetric, asymmetric);
        self.kind() != Kind::Sfp
    }

    const FAULTS: &'static [(fn(&mut Self), Fault)] =
        &[(|ixgbe| ixgbe.raise(cause::ECC), Fault::Memory), (|ixgbe| ixgbe.raise(cause::DHER), Fault::Descriptor)];
    const INTERVALS: (usize, u32) = (0x0820, 0xFF8);
}

#[test]
fn a_phy_that_sleeps_is_woken() {
    let asleep = |device: &Device<Ixgbe>| device.with_model(Ixgbe::put_to_sleep);
    let mut bench =
        bench::cases::start_on(Kind::X540, asleep, Interrupts::MsiX(3), Options::default()).expect("it starts");
    assert_eq!(bench.nic.link(), Link::Up(10_000));
    bench.finish();
}

#[test]
fn a_device_whose_requests_do_not_end_is_reset_twice() {
    for (stuck, resets) in [(false, 1), (true, 2)] {
        let change = |device: &Device<Ixgbe>| device.with_model(|model| model.faults().master_stuck = stuck);
        let bench =
            bench::cases::start_on(Kind::Sfp, change, Interrupts::MsiX(3), Options::default()).expect("it starts");
        bench.device.with_model(|model| model.faults().master_stuck = false);
        assert_eq!(bench.device.with_model(|model| model.resets()), resets);
        bench.finish();
    }
}

#[test]
fn semaphores_are_given_back_and_taken_from_owners_that_are_no_more() {
    for kind in [Kind::T3, Kind::X540, Kind::X550] {
        // SMBI and SWESMBI; firmware and software have the PHY, and the register semaphore is taken.
        let left = |device: &Device<Ixgbe>| {
            device.set(registers::SWSM, 3);
            device.set(registers::SW_FW_SYNC, 1 << 31 | 1 << 6 | 1 << 1);
        };
        let mut bench = bench::cases::start_on(kind, left, Interrupts::MsiX(3), Options::default()).expect("it starts");
        assert_ne!(bench.nic.link(), Link::Down);
        assert_eq!(bench.device.peek(registers::SWSM), 0);
        // Firmware's bit is firmware's.
        assert_eq!(bench.device.peek(registers::SW_FW_SYNC), 1 << 6);
        bench.finish();
    }
}

#[test]
fn a_semaphore_is_given_back_once_the_other_port_is_done_with_the_register() {
    const OTHER: u32 = 1 << 2;
    let mut bench = bench::cases::bench::<Ixgbe>(Kind::Sfp, Options::default());
    bench.device.with_model(Ixgbe::take_out);
    let (device, mut second) = (bench.device.clone(), 0);
    let mut watch = |bench: &mut bench::Bench<Ixgbe>, taken: bool| {
        second += 1;
        let mut delay = |time| {
            device.wait(time);
            if taken {
                device.set(registers::SWSM, 1);
            }
        };
        assert_eq!(bench.nic.watch(Instant(second * 1_000_000_000), &mut delay), None);
        (device.peek(registers::SWSM), device.peek(registers::SW_FW_SYNC))
    };
    // The other port's driver takes SWSM while this one speaks to the cage.
    for _ in 0..2 {
        let (swsm, sync) = watch(&mut bench, true);
        assert_eq!((swsm & 1, sync), (1, 1 << 1), "it is not waited for, and not disturbed");
    }
    bench.device.set(registers::SW_FW_SYNC, OTHER | 1 << 1);
    bench.device.set(registers::SWSM, 0);
    assert_eq!(watch(&mut bench, false), (0, OTHER));
    bench.finish();
}

#[test]
fn firmware_that_keeps_the_phy_is_waited_for_once() {
    const FIRMWARE: u32 = 1 << 6;
    for kind in [Kind::T3, Kind::X540, Kind::X550] {
        let start = |change: fn(&mut Ixgbe)| {
            let change = |device: &Device<Ixgbe>| device.with_model(change);
            bench::cases::start_on(kind, change, Interrupts::MsiX(3), Options::default()).expect("it starts")
        };
        let free = start(Ixgbe::put_to_sleep);
        let mut bench = start(|model| {
            model.put_to_sleep();
            model.poke(registers::SW_FW_SYNC, FIRMWARE);
        });
        let longer = bench.device.now() - free.device.now();
        assert!(longer > Duration::from_millis(190) && longer < Duration::from_millis(250), "{kind:?}: {longer:?}");
        free.finish();
        assert_eq!(bench.nic.link(), Link::Down, "its PHY sleeps");
        assert_eq!(bench.watch(Instant(0)), None);
        assert_eq!(bench.nic.link(), Link::Down, "its PHY sleeps");
        assert_eq!(bench.device.peek(registers::SW_FW_SYNC), FIRMWARE);
        bench.device.set(registers::SW_FW_SYNC, 0);
        assert_eq!(bench.watch(Instant(1_000_000_000)), None);
        // No driver but that of the X540 knows a PHY of the 82599 that sleeps.
        assert_eq!(bench.nic.link() != Link::Down, kind != Kind::T3);
        bench.finish();
    }
}

#[test]
fn the_packet_buffer_of_an_x540_and_an_x550_is_one() {
    for kind in [Kind::X540, Kind::X550] {
        let bench = bench::cases::bench::<Ixgbe>(kind, Options::default());
        assert_eq!(bench.device.peek(registers::RXPBSIZE), 384 << 10);
        bench.finish();
    }
}

#[test]
fn each_queue_has_its_share_of_the_table_of_an_x550() {
    // As many as there are vectors for.
    for (queues, most, least) in [(4, 128, 128), (3, 171, 170), (14, 37, 36)] {
        let options = Options { queues, receive_descriptors: 64, ..Options::default() };
        let bench = bench::cases::bench::<Ixgbe>(Kind::X550, options);
        let table = |from: usize, words| (0..words).map(move |word| from + 4 * word);
        let words = table(registers::RETA, 32).chain(table(registers::ERETA, 96));
        let entries: Vec<u8> = words.flat_map(|offset| bench.device.peek(offset).to_le_bytes()).collect();
        assert_eq!(entries.len(), 512);
        for queue in 0..queues {
            let share = entries.iter().filter(|entry| usize::from(**entry) == queue).count();
            assert!((least..=most).contains(&share), "{share} entries for queue {queue} of {queues}");
        }
        bench.finish();
    }
}

#[test]
fn an_x550_tells_its_speeds() {
    let mut bench = bench::cases::bench::<Ixgbe>(Kind::X550, Options::default());
    for speed in [100, 1000, 2500, 5000, 10_000] {
        bench.device.with_model(|model| model.set_speed(speed));
        assert_eq!(bench.nic.link(), Link::Up(speed));
    }
    bench.finish();
}

bench::cases::cases!(Ixgbe, [lost_memory_is_told, frames_without_a_buffer_are_counted_once, sent_packets_interrupt_until_no_queue_waits, a_starved_ring_is_filled_later], kx4: Kind::Kx4, sfp: Kind::Sfp, t3: Kind::T3, x540: Kind::X540, x550: Kind::X550);
