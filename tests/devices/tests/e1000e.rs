//! netdom's e1000e driver against the model of the 82574. Host.

mod bench;

use std::time::Duration;

use bench::cases::{
    ADDRESS, Card, bench, each_semaphore_is_given_back, one_interrupt_a_poll, sent_packets_interrupt, settle, start_on,
};
use bench::{Bench, bytes, contents, has_right_checksums, layout, packet, superframe, tcp_packet};
use devices::bus::{Interrupt, Model};
use devices::e1000e::{E1000e, IDENTITY, Kind, registers};
use devices::fake::Device;
use devices::pause;
use netdom::ethernet::Tag;
use netdom::nic::{Fault, Interrupts, Link, Options, models, queue};
use netdom::offload::headers::Network;
use netdom::packet::Checksum;
use split_driver::time::Instant;

impl Card for E1000e {
    type Kind = ();
    const SPEED: u32 = 1000;
    const LARGEST: usize = 9230;
    const RESET: &'static str = "EEC";
    /// CE, SE, SEQ, CXE and RXE, 82574 datasheet 7.1.4.
    const DAMAGED: &'static [u32] = &[1 << 24, 1 << 25, 1 << 26, 1 << 28, 1 << 31];
    const FAR: u16 = 300;

    const SEMAPHORES: &'static [usize] = &[registers::EXTCNF_CTRL, registers::SWSM];
    const OTHERS: u32 = 0;

    fn receive_queue(queue: usize) -> usize {
        registers::receive(queue)
    }

    fn transmit_queue(queue: usize) -> usize {
        registers::transmit(queue)
    }

    fn contexts(&self) -> usize {
        self.contexts_seen()
    }

    fn power_on((): (), address: [u8; 6]) -> Self {
        Self::new(address)
    }

    fn device((): ()) -> u16 {
        IDENTITY.device
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

    /// The 82574 has no cause for one.
    const FAULTS: &'static [(fn(&mut Self), Fault)] = &[];
    const INTERVALS: (usize, u32) = (registers::EITR, registers::EITR_INTERVAL);
}

bench::cases::cases!(E1000e, [], i82574: ());

fn standard() -> Bench<E1000e> {
    bench((), Options::default())
}

#[test]
fn the_speed_of_the_link_is_told() {
    let mut bench = standard();
    assert!(bench.nic.capabilities().tso_v6);
    for (offered, link) in [(10, Link::Up(10)), (100, Link::Up(100)), (1000, Link::Up(1000))] {
        bench.device.with_model(|model| model.set_speed(offered));
        assert_eq!(bench.nic.link(), link);
    }
    bench.device.set_link(false);
    assert_eq!(bench.nic.link(), Link::Down);
    bench.finish();
}

#[test]
fn starting_is_quick() {
    let bench = standard();
    let accesses = bench.device.accesses();
    assert!(accesses < 120, "{accesses} register accesses");
    bench.finish();
}

#[test]
fn a_reset_that_resets_nothing_costs_segmentation_of_ipv6_alone() {
    let hollow = |device: &Device<E1000e>| device.with_model(E1000e::reset_nothing);
    let mut bench = start_on((), hollow, Interrupts::MsiX(2), Options::default()).expect("it starts");
    let can = bench.nic.capabilities();
    assert!(can.tso_v4 && !can.tso_v6 && can.checksum_v6);
    let frame = bytes(600, 4);
    assert!(queue(&mut *bench.nic).transmit(packet(&bench.pool, &frame, &[]), None).is_ok());
    queue(&mut *bench.nic).flush();
    assert_eq!(bench.device.sent(), Some(frame));
    bench.finish();
}

/// Bits of a descriptor's third word, 82574 datasheet 7.1.4.
#[test]
fn believes_the_device_about_checksums_it_looked_at() {
    const DONE: u32 = 3;
    const IGNORE: u32 = 1 << 2;
    const UDP: u32 = 1 << 4;
    const TRANSPORT: u32 = 1 << 5;
    const IP: u32 = 1 << 6;
    const CRC_ERROR: u32 = 1 << 24;
    const TRANSPORT_ERROR: u32 = 1 << 29;
    const IP_ERROR: u32 = 1 << 30;
    let good = DONE | TRANSPORT | IP;
    let cases = [
        (good, Checksum::Verified),
        (good | UDP, Checksum::Verified),
        (DONE | IP, Checksum::Unverified),
        (good | TRANSPORT_ERROR, Checksum::Unverified),
        (good | IP_ERROR, Checksum::Unverified),
        (good | IGNORE, Checksum::Unverified),
    ];
    let mut bench = standard();
    let describe = |bench: &Bench<E1000e>, index, status| {
        let place = bench.device.descriptor(registers::receive(0), index);
        bench.device.write_descriptor(place, [0, 0, status, 64]);
    };
    for (index, (status, expected)) in (0..).zip(cases) {
        describe(&bench, index, status);
        let packet = queue(&mut *bench.nic).receive().expect("a frame");
        assert_eq!(packet.offload.checksum, expected, "{status:#x}");
    }
    describe(&bench, cases.len() as u32, good | CRC_ERROR);
    assert!(queue(&mut *bench.nic).receive().is_none());
    assert_eq!(bench.nic.statistics().receive_errors, 1);
    bench.finish();
}

#[test]
fn jumbo_frames_span_buffers() {
    let options = Options { max_frame: 9018, ..Options::default() };
    let mut bench = bench::<E1000e>((), options);
    for length in [1519, 4096, 4097, 8192, 9018] {
        let frame = bytes(length, length);
        assert!(bench.device.inject(&frame));
        assert_eq!(contents(&queue(&mut *bench.nic).receive().expect("a frame")), frame);
        assert!(queue(&mut *bench.nic).transmit(packet(&bench.pool, &frame, &[]), None).is_ok());
        queue(&mut *bench.nic).flush();
        assert_eq!(bench.device.sent(), Some(frame));
        queue(&mut *bench.nic).reclaim();
    }
    assert!(bench.device.inject(&bytes(9019, 0)));
    assert!(queue(&mut *bench.nic).receive().is_none(), "longer than asked for");
    let counted = bench.nic.statistics();
    assert_eq!((counted.receive_malformed, counted.receive_oversize), (0, 1));
    assert!(bench.device.inject(&bytes(100, 0)));
    assert!(queue(&mut *bench.nic).receive().is_some(), "and the next one is whole");
    bench.finish();
}

#[test]
fn without_buffers_frames_wait_then_are_missed_and_with_them_received_again() {
    let mut bench = standard();
    let mut held = Vec::new();
    while let Some(buffer) = bench.pool.take() {
        held.push(buffer);
    }
    for number in 0..255 {
        assert!(bench.device.inject(&bytes(100, number)));
        assert!(queue(&mut *bench.nic).receive().is_some(), "the ring was full, less one");
    }
    let waiting = (0..).take_while(|number| bench.device.inject(&bytes(1000, *number))).count();
    assert!(waiting > 0 && queue(&mut *bench.nic).receive().is_none());
    assert_eq!(bench.nic.statistics().receive_missed, 1);
    // The dropped packets' pages are the pool's again.
    queue(&mut *bench.nic).refill(&bench.pool);
    for number in 0..waiting {
        assert_eq!(contents(&queue(&mut *bench.nic).receive().expect("a frame")), bytes(1000, number));
    }
    assert!(bench.device.inject(&bytes(100, 1)));
    assert!(queue(&mut *bench.nic).receive().is_some());
    assert_eq!(bench.nic.statistics().receive_missed, 1);
    held.clear();
    bench.finish();
}

#[test]
fn one_message_a_poll_by_msi() {
    one_interrupt_a_poll::<E1000e>((), Interrupts::Single, Interrupt::Msi, 0);
}

#[test]
fn sent_packets_interrupt_only_where_asked_with_two_vectors() {
    sent_packets_interrupt::<E1000e>((), 2, 0);
}

#[test]
fn a_poll_that_finds_nothing_touches_no_register() {
    let mut bench = start_on::<E1000e>((), |_| (), Interrupts::MsiX(2), Options::default()).expect("it starts");
    settle(&mut bench, 1);
    bench.device.accesses();
    for _ in 0..10 {
        queue(&mut *bench.nic).reclaim();
        assert!(queue(&mut *bench.nic).receive().is_none());
        queue(&mut *bench.nic).flush();
        queue(&mut *bench.nic).refill(&bench.pool);
        assert!(!queue(&mut *bench.nic).arm(false));
    }
    assert_eq!(bench.device.accesses(), 0);
    // A batch each way: one access for each tail; the interrupt of it: two to enable, none to handle.
    for _ in 0..32 {
        assert!(bench.device.inject(&bytes(64, 0)));
    }
    bench.device.accesses();
    bench.nic.handle_interrupt(0);
    while let Some(packet) = queue(&mut *bench.nic).receive() {
        assert!(queue(&mut *bench.nic).transmit(packet, None).is_ok());
    }
    queue(&mut *bench.nic).flush();
    queue(&mut *bench.nic).refill(&bench.pool);
    assert!(!queue(&mut *bench.nic).arm(false));
    assert_eq!(bench.device.accesses(), 5, "tails, cause, mask, and the interval for the new load");
    bench.finish();
}

/// Offsets of registers of the I217 to I219: Linux, `e1000e/regs.h`.
mod pch {
    pub(crate) const FEXTNVM4: usize = 0x0_0024;
    pub(crate) const FCTTV: usize = 0x0_0170;
    pub(crate) const IOSFPC: usize = 0x0_0F28;
    pub(crate) const PBECCSTS: usize = 0x0_100C;
    pub(crate) const KABGTXD: usize = 0x0_3004;
    pub(crate) const FEXTNVM11: usize = 0x0_5BBC;
    /// CTRL.MEHE: errors of the packet memory stop the device.
    pub(crate) const CTRL_MEHE: u32 = 1 << 19;
    /// The bit of CTRL_EXT that is reserved, and to be set.
    pub(crate) const CTRL_EXT_RESERVED: u32 = 1 << 22;
}

#[test]
fn a_pch_gets_the_bits_that_its_errata_ask_for() {
    // TARC0, FEXTNVM4 and IOSFPC after a start.
    let rows = [(0x153A, 0x0D80_0403, 7, 0), (0x156F, 0x2D80_0403, 7, 1 << 16), (0x15FB, 0x2D80_0403, 7, 0)];
    for (id, tarc0, fextnvm4, iosfpc) in rows {
        let become_pch = |device: &Device<E1000e>| {
            device.with_model(|model| model.be(Kind::Pch));
            device.interrupt_by(Interrupt::Msi);
        };
        let model = models::Model::find(0x8086, id).expect("a PCH");
        let hardware = E1000e::new(ADDRESS);
        let start = Bench::start(hardware, become_pch, model, Interrupts::Single, Options::default());
        let mut bench = start.expect("it starts");
        let device = bench.device.clone();
        assert!(device.now() >= Duration::from_millis(20));
        assert_eq!(device.peek(pch::KABGTXD), 0x0005_0000);
        let held = [registers::TARC0, pch::FEXTNVM4, pch::IOSFPC].map(|offset| device.peek(offset));
        assert_eq!(held, [tarc0, fextnvm4, iosfpc]);
        assert_eq!(device.peek(pch::PBECCSTS), 1 << 16);
        assert_ne!(device.peek(registers::CTRL) & pch::CTRL_MEHE, 0);
        assert_ne!(device.peek(registers::CTRL_EXT) & pch::CTRL_EXT_RESERVED, 0);
        // Before the next reset; the model no longer resets anything. The Management Engine changed the beacon's duration.
        device.set(pch::FEXTNVM11, 0);
        device.set(pch::FEXTNVM4, 2);
        device.with_model(E1000e::reset_nothing);
        bench.nic.restart(&mut |time| device.wait(time)).expect("it starts anew");
        assert_eq!(device.peek(pch::FEXTNVM11), if id == 0x153A { 0 } else { 1 << 13 });
        assert_eq!(bench.nic.link(), Link::Up(1000));
        assert_ne!(device.peek(registers::CTRL) & registers::CTRL_TFCE, 0, "its PHY is at address 2");
        assert_eq!((device.peek(pch::FCTTV), device.peek(pch::FEXTNVM4)), (0xFFFF, 7));
        bench.finish();
    }
}

/// A driver for a device of another kind than the 82574.
fn start_as(kind: Kind, id: u16, change: impl FnOnce(&Device<E1000e>)) -> Bench<E1000e> {
    let change = |device: &Device<E1000e>| {
        device.with_model(|model| model.be(kind));
        device.interrupt_by(Interrupt::Msi);
        change(device);
    };
    let model = models::Model::find(0x8086, id).expect("a driver");
    let bench = Bench::start(E1000e::new(ADDRESS), change, model, Interrupts::Single, Options::default());
    bench.expect("it starts")
}

/// Whether pause frames are obeyed, and whether they are sent.
fn flow_control(bench: &Bench<E1000e>) -> (bool, bool) {
    let control = bench.device.peek(registers::CTRL);
    (control & registers::CTRL_RFCE != 0, control & registers::CTRL_TFCE != 0)
}

#[test]
fn a_link_without_a_phy_is_negotiated_or_forced() {
    for id in [0x105F, 0x1060, 0x107E, 0x107F] {
        let mut bench = start_as(Kind::Serdes, id, |_| ());
        let mut second = 0;
        let mut watch = |bench: &mut Bench<E1000e>| {
            second += 1;
            assert_eq!(bench.watch(Instant(second * 1_000_000_000)), None);
            bench.nic.link()
        };
        // What the partner advertises; obeyed, sent.
        let rows = [(false, false, (false, false)), (false, true, (true, false)), (true, false, (true, true))];
        for (symmetric, asymmetric, agreed) in rows {
            bench.device.with_model(|model| model.set_partner_pause(symmetric, asymmetric));
            bench.device.set_link(false);
            assert_eq!(watch(&mut bench), Link::Down);
            bench.device.set_link(true);
            assert_eq!(watch(&mut bench), Link::Up(1000));
            assert_eq!(flow_control(&bench), agreed, "{symmetric} {asymmetric}");
        }
        // One that does not negotiate: its pause frames are not known.
        bench.device.with_model(|model| model.set_partner_pause(false, false));
        bench.device.with_model(|model| model.set_partner_negotiates(false));
        assert_eq!((watch(&mut bench), watch(&mut bench)), (Link::Down, Link::Up(1000)));
        assert_eq!(flow_control(&bench), (true, true));
        // Its cable is pulled: STATUS says that a forced link is up.
        bench.device.set_link(false);
        assert_ne!(bench.device.peek(registers::TXCW) & registers::TXCW_ANE, registers::TXCW_ANE);
        assert_eq!(bench.nic.link(), Link::Down);
        assert_eq!(watch(&mut bench), Link::Down);
        assert_ne!(bench.device.peek(registers::TXCW) & registers::TXCW_ANE, 0);
        bench.device.set_link(true);
        assert_eq!((watch(&mut bench), watch(&mut bench)), (Link::Down, Link::Up(1000)));
        // It does after all.
        bench.device.with_model(|model| model.set_partner_negotiates(true));
        assert_eq!(watch(&mut bench), Link::Up(1000));
        assert_ne!(bench.device.peek(registers::TXCW) & registers::TXCW_ANE, 0);
        let device = bench.device.clone();
        bench.nic.restart(&mut |time| device.wait(time)).expect("it starts anew");
        assert_eq!(bench.nic.link(), Link::Up(1000));
        assert_eq!(flow_control(&bench), (false, false));
        bench.finish();
    }
}

#[test]
fn a_semaphore_that_a_boot_agent_left_set_is_cleared_once() {
    let mut bench = start_as(Kind::I82571, 0x105E, |device| device.set(registers::SWSM, registers::SWSM_SMBI));
    assert_eq!(bench.nic.link(), Link::Up(1000));
    assert_eq!(flow_control(&bench), (true, true));
    bench.finish();
    // The driver of the other port has done so already: it is that one's now.
    let taken = |device: &Device<E1000e>| {
        device.set(registers::SWSM2, 1 << 1);
        device.set(registers::SWSM, registers::SWSM_SMBI);
    };
    let mut bench = start_as(Kind::I82571, 0x105E, taken);
    assert_eq!((bench.nic.link(), flow_control(&bench)), (Link::Up(1000), (false, false)));
    bench.device.set(registers::SWSM, 0);
    assert_eq!(bench.watch(Instant(0)), None);
    assert_eq!(flow_control(&bench), (true, true));
    bench.finish();
}

#[test]
fn an_82571_and_a_pch_have_their_semaphores_back() {
    for (kind, id) in [(Kind::I82571, 0x105E), (Kind::Pch, 0x153A)] {
        let power_on = || {
            let mut device = E1000e::new(ADDRESS);
            device.be(kind);
            device
        };
        each_semaphore_is_given_back(power_on, models::Model::find(0x8086, id).expect("a driver"));
    }
}

#[test]
fn pause_frames_are_obeyed_and_sent_as_negotiated() {
    let mut bench = standard();
    // What the partner advertises; obeyed, sent.
    let rows = [(false, false, false, false), (false, true, true, false), (true, false, true, true)];
    for (symmetric, asymmetric, obeys, sends) in rows {
        bench.device.with_model(|model| model.set_partner_pause(symmetric, asymmetric));
        bench.device.set_link(false);
        assert_eq!(bench.nic.link(), Link::Down);
        bench.device.set_link(true);
        assert_eq!(bench.nic.link(), Link::Up(1000));
        assert_eq!(bench.device.with_model(|model| model.sends_pauses()), sends);
        assert!(bench.device.inject(&pause::frame(0xFFFF)));
        let packet = packet(&bench.pool, &bytes(600, 1), &[]);
        assert!(queue(&mut *bench.nic).transmit(packet, None).is_ok());
        queue(&mut *bench.nic).flush();
        assert_eq!(bench.device.sent().is_none(), obeys, "{symmetric} {asymmetric}");
        for second in 0..10 {
            bench.device.inject(&pause::frame(0xFFFF));
            assert_eq!(bench.watch(Instant(second * 1_000_000_000)), None, "it does not hang, it waits");
        }
        assert!(bench.device.inject(&pause::frame(0)));
        assert_eq!(bench.device.sent().is_some(), obeys);
        assert!(queue(&mut *bench.nic).receive().is_none(), "they are the device's matter");
    }
    assert_eq!(bench.nic.statistics().pauses, 33, "those that are not obeyed, too");
    bench.finish();
}

#[test]
fn tags_are_inserted_and_taken_out_where_told_to() {
    let mut bench = standard();
    let device = bench.device.clone();
    let tag = Tag::new(0x2005).expect("a tag");
    let tagged = |frame: &[u8]| {
        let (addresses, rest) = frame.split_at(12);
        [addresses, &[0x81, 0x00], &tag.control().to_be_bytes(), rest].concat()
    };
    let frame = bytes(1514, 5);
    assert!(!bench.nic.capabilities().vlan_insertion);
    let mut refused = packet(&bench.pool, &frame, &[]);
    refused.tag = Some(tag);
    assert!(queue(&mut *bench.nic).transmit(refused, None).is_err());
    for on in [false, true, true, false] {
        bench.nic.set_vlan_stripping(on);
        assert!(device.inject(&tagged(&frame)));
        let received = queue(&mut *bench.nic).receive().expect("a frame");
        let expected = if on { (frame.clone(), Some(tag)) } else { (tagged(&frame), None) };
        assert_eq!((contents(&received), received.tag), expected);
        assert!(device.inject(&frame));
        assert_eq!(queue(&mut *bench.nic).receive().expect("a frame").tag, None);
        if on {
            for length in [15, 1514] {
                let mut packet = packet(&bench.pool, &bytes(length, 2), &[]);
                packet.tag = Some(tag);
                assert!(queue(&mut *bench.nic).transmit(packet, None).is_ok());
                queue(&mut *bench.nic).flush();
                let mut expected = bytes(length, 2);
                expected.resize(length.max(60), 0);
                assert_eq!(device.sent(), Some(tagged(&expected)));
            }
            bench.nic.restart(&mut |time| device.wait(time)).expect("it starts anew");
        }
    }
    bench.nic.set_vlan_stripping(true);
    let whole = tcp_packet(Network::V4, 5000, 9);
    let mut superframe = superframe(Network::V4, &bench.pool, &whole, 1400);
    superframe.tag = Some(tag);
    assert!(queue(&mut *bench.nic).transmit(superframe, Some(&layout(Network::V4))).is_ok());
    queue(&mut *bench.nic).flush();
    let mut segments = 0;
    while let Some(segment) = device.sent() {
        assert_eq!(segment[12..16], [0x81, 0x00, 0x20, 0x05]);
        assert!(has_right_checksums(Network::V4, &[&segment[..12], &segment[16..]].concat()));
        segments += 1;
    }
    assert_eq!(segments, 4);
    bench.finish();
}
