//! netdom's igb driver against the models of the 82576, the I350 and the I210. Host.

mod bench;
mod server;

use bench::cases::Card;
use devices::bus::Model;
use devices::fake::Device;
use devices::igb::{Igb, Kind, cause, registers};
use netdom::nic::{Fault, Interrupts, Link, Options};
use server::{
    a_starved_ring_is_filled_later, frames_without_a_buffer_are_counted_once, lost_memory_is_told,
    sent_packets_interrupt_until_no_queue_waits,
};
use split_driver::time::Instant;
use std::time::Duration;

impl Card for Igb {
    type Kind = Kind;
    const SPEED: u32 = 1000;
    const LARGEST: usize = 9724;
    const RESET: &'static str = "CTRL";
    /// CE, SE, SEQ, CXE and RXE, 82576 datasheet 7.1.5.2.
    const DAMAGED: &'static [u32] = &[1 << 24, 1 << 25, 1 << 26, 1 << 28, 1 << 31];
    const FAR: u16 = 600;

    const SEMAPHORES: &'static [usize] = &[registers::SWSM, registers::SW_FW_SYNC];
    /// SW_PHY_SM1, FW_PHY_SM1.
    const OTHERS: u32 = 1 << 2 | 1 << 18;

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
        self.peek(registers::CTRL) & registers::CTRL_TFCE != 0
    }

    fn links_begun(&self) -> usize {
        Self::links_begun(self)
    }

    fn set_partner(&mut self, symmetric: bool, asymmetric: bool) -> bool {
        self.set_partner_pause(symmetric, asymmetric);
        true
    }

    const FAULTS: &'static [(fn(&mut Self), Fault)] =
        &[(|igb| igb.raise(cause::FATAL), Fault::Memory), (|igb| igb.raise(cause::DEVICE_RESET), Fault::Reset)];
    const INTERVALS: (usize, u32) = (0x1680, 0x7FFC);
}

#[test]
fn the_phy_is_waited_for_and_its_semaphore_given_back() {
    for kind in Kind::ALL {
        let slow = |device: &Device<Igb>| device.with_model(|igb| igb.set_up_for(Duration::from_millis(50)));
        let mut bench = bench::cases::start_on(kind, slow, Interrupts::MsiX(3), Options::default()).expect("it starts");
        assert_ne!(bench.nic.link(), Link::Down);
        assert_eq!((bench.device.peek(registers::SWSM), bench.device.peek(registers::SW_FW_SYNC)), (0, 0));
        bench.finish();
    }
}

#[test]
fn a_phy_that_firmware_has_is_left_to_it_and_asked_later() {
    // SW_FW_SYNC, FW_PHY_SM0.
    const FIRMWARE: u32 = 1 << 17;
    for kind in Kind::ALL {
        let mut bench = bench::cases::start_on(kind, |_: &Device<Igb>| (), Interrupts::MsiX(3), Options::default())
            .expect("it starts");
        assert_ne!(bench.nic.link(), Link::Down);
        assert!(bench.device.with_model(|igb| igb.sends_pauses()));
        bench.device.with_model(|igb| igb.set_partner_pause(false, false));
        bench.device.set_link(false);
        assert_eq!(bench.nic.link(), Link::Down);
        bench.device.set(registers::SW_FW_SYNC, FIRMWARE);
        bench.device.set_link(true);
        bench.device.wait(Duration::from_secs(5));
        assert_ne!(bench.nic.link(), Link::Down);
        assert!(bench.device.with_model(|igb| igb.sends_pauses()), "nothing is settled yet");
        assert_eq!(bench.device.peek(registers::SW_FW_SYNC), FIRMWARE);
        bench.device.set(registers::SW_FW_SYNC, 0);
        assert_eq!(bench.watch(Instant(0)), None);
        assert!(!bench.device.with_model(|igb| igb.sends_pauses()));
        bench.finish();
    }
}

#[test]
fn firmware_that_keeps_the_phy_is_waited_for_once() {
    const FIRMWARE: u32 = 1 << 17;
    for kind in Kind::ALL {
        let start = |sync: u32| {
            let change = |device: &Device<Igb>| {
                device.with_model(Igb::power_phy_down);
                device.set(registers::SW_FW_SYNC, sync);
            };
            bench::cases::start_on(kind, change, Interrupts::MsiX(3), Options::default()).expect("it starts")
        };
        // Software's, of a driver that is no more, is waited for as long, and taken.
        for (held, left) in [(FIRMWARE, FIRMWARE), (1 << 1, 0)] {
            let (free, mut bench) = (start(0), start(held));
            let longer = bench.device.now() - free.device.now();
            assert!(longer > Duration::from_millis(190) && longer < Duration::from_millis(250), "{kind:?}: {longer:?}");
            free.finish();
            assert_eq!(bench.device.peek(registers::SW_FW_SYNC), left);
            assert_eq!(bench.watch(Instant(0)), None);
            assert_eq!(bench.nic.link() == Link::Down, left != 0, "its PHY is off");
            bench.device.set(registers::SW_FW_SYNC, 0);
            assert_eq!(bench.watch(Instant(1_000_000_000)), None);
            bench.device.wait(Duration::from_secs(5));
            assert_ne!(bench.nic.link(), Link::Down);
            bench.finish();
        }
    }
}

bench::cases::cases!(Igb, [lost_memory_is_told, frames_without_a_buffer_are_counted_once, sent_packets_interrupt_until_no_queue_waits, a_starved_ring_is_filled_later], i82576: Kind::I82576, i350: Kind::I350, i210: Kind::I210);
