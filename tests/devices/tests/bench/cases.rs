//! Cases that hold for each card and its driver: frames byte for byte, offloads, queues, interrupts, faults. The model finds nothing wrong in
//! the driver. Host.

use std::fmt::Debug;
use std::time::Duration;

use devices::bus::{Interrupt, Model};
use devices::fake::Device;
use devices::pause;
use netdom::ethernet::Tag;
use netdom::nic::{Error, Fault, Interrupts, Link, NicStatistics, Options, STANDARD_FRAME, models, queue};
use netdom::offload::headers::Network;
use netdom::packet::{Checksum, Packet};
use split_driver::fakes::closed;
use split_driver::memory::DmaAllocator;
use split_driver::time::Instant;

pub(crate) use super::lives::*;
pub(crate) use super::receive::*;
pub(crate) use super::transmit::*;
pub(crate) use super::waiting::*;
use super::{Bench, bytes, contents, layout, packet, tcp_packet};

pub(crate) const ADDRESS: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// Has a fault arise.
type Arise<C> = fn(&mut C);

/// A model of a family of cards.
pub(crate) trait Card: Model + Sized + 'static {
    /// Which card of the family.
    type Kind: Copy + Debug + 'static;
    /// Mbit/s of its link.
    const SPEED: u32;
    /// Bytes of the largest frame, frame check sequence not included.
    const LARGEST: usize;
    /// The register that tells the end of a reset.
    const RESET: &'static str;

    /// The card just powered on.
    fn power_on(kind: Self::Kind, address: [u8; 6]) -> Self;
    /// Its PCI device id.
    fn device(kind: Self::Kind) -> u16;
    /// Errors of a frame that the MAC found, in a descriptor's third word.
    const DAMAGED: &'static [u32];
    /// An offset of a packet's headers that its context descriptors do not reach.
    const FAR: u16;
    /// Where the registers of a receive queue begin.
    fn receive_queue(queue: usize) -> usize;
    /// The same of a transmit queue.
    fn transmit_queue(queue: usize) -> usize;
    /// Context descriptors that the queues took since each was enabled.
    fn contexts(&self) -> usize;
    /// Whether it sends pause frames where its packet buffer fills.
    fn sends_pauses(&self) -> bool;
    /// What the link partner advertises about pause frames. False where the card's link is not negotiated.
    fn set_partner(&mut self, symmetric: bool, asymmetric: bool) -> bool;
    /// How often a driver, or the card when it was powered on, began with the link.
    fn links_begun(&self) -> usize;
    /// A fault of each kind that it tells arises.
    const FAULTS: &'static [(Arise<Self>, Fault)];
    /// EITR of vector 0, and its bits of the interval.
    const INTERVALS: (usize, u32);
    /// The registers by which the device's firmware, and the driver of its other port, share parts with this driver.
    const SEMAPHORES: &'static [usize];
    /// What such have in the last of them, while this driver works.
    const OTHERS: u32;
}

/// Each case as a test, for a card; those in brackets hold for some families alone.
macro_rules! cases {
    ($card:ty, $more:tt, $($name:ident: $kind:expr),+) => {
        $(mod $name {
            use super::*;
            $crate::bench::cases::each!($card, $kind, $more;
                it_starts_and_has_a_link
                a_device_that_cannot_be_started_says_why
                frames_go_both_ways_unchanged_through_many_wraps
                short_frames_are_padded
                jumbo_frames_go_both_ways
                a_frame_beyond_the_wires_mtu_is_counted_and_dropped
                checksums_are_completed_and_super_frames_are_cut
                verified_checksums_are_told
                flows_are_spread_over_queues_and_stay_in_one
                each_queue_interrupts_once_until_it_is_armed_again
                one_interrupt_for_all_says_which_it_was
                the_link_is_told
                the_link_and_faults_are_told
                each_vector_has_an_interval
                lengths_that_cannot_be_cost_their_frame
                damaged_frames_are_dropped_and_counted
                tags_are_taken_out_where_told_to
                tags_are_inserted_into_packets_and_their_segments
                a_tag_counts_for_the_length_of_a_frame
                pause_frames_stop_the_transmitter_for_their_time
                flow_control_is_what_both_ends_can
                a_paused_transmitter_does_not_hang
                pauses_that_are_not_obeyed_hide_no_hang
                only_what_was_reported_is_given_back
                a_restart_forgets_all
                a_queue_that_hangs_is_found_and_the_device_started_anew
                a_pulled_out_device_is_waited_for_nowhere
                pages_of_a_device_that_does_not_stop_stay_with_it
                sends_byte_for_byte_through_many_wraps
                each_frame_arrives_in_order_and_unchanged
                a_full_ring_gives_the_packet_back_and_drains
                long_batches_are_reported_on_in_between
                completes_checksums_with_one_context_for_many
                segments_super_frames
                a_super_frame_that_fits_needs_a_checksum_only
                pages_of_others_are_left_alone
                what_it_cannot_do_comes_back_whole
                what_no_nic_can_send_is_counted
                frames_too_short_for_the_device_are_padded
                receives_byte_for_byte_through_many_wraps
                a_nic_of_an_earlier_life_receives_nothing_more
                a_link_outlives_the_life_that_set_it_up
                a_device_that_lies_costs_itself
                done_bits_where_nothing_is_posted_are_not_looked_at
                memory_of_a_device_that_does_not_stop_goes_back_with_a_proof_alone
                one_interrupt_a_poll_however_wired
                sent_packets_interrupt_only_where_asked
                room_found_while_enabling_is_not_kept_secret
                a_device_that_sends_nothing_for_long_is_started_anew
                packets_left_without_a_link_are_dropped
                what_lay_in_the_rings_when_a_life_ended_is_counted
                frames_that_the_device_missed_between_two_lives_are_counted
                semaphores_held_when_a_life_ends_are_given_back);
        })+
    };
}
pub(crate) use cases;

macro_rules! each {
    ($card:ty, $kind:expr, [$($more:ident),*]; $($case:ident)+) => {
        $(#[test]
        fn $case() {
            $crate::bench::cases::$case::<$card>($kind);
        })+
        $(#[test]
        fn $more() {
            super::$more::<$card>($kind);
        })*
    };
}
pub(crate) use each;

pub(super) fn model<C: Card>(kind: C::Kind) -> models::Model {
    models::Model::find(0x8086, C::device(kind)).expect("a driver")
}

pub(crate) fn start_on<C: Card>(
    kind: C::Kind,
    change: impl FnOnce(&Device<C>),
    interrupts: Interrupts,
    options: Options,
) -> Result<Bench<C>, Error> {
    let bench = Bench::start(C::power_on(kind, ADDRESS), change, model::<C>(kind), interrupts, options)?;
    // A link needs some time.
    bench.device.wait(Duration::from_secs(5));
    Ok(bench)
}

pub(crate) fn bench<C: Card>(kind: C::Kind, options: Options) -> Bench<C> {
    let vectors = Interrupts::MsiX(model::<C>(kind).vectors(options.queues));
    start_on(kind, |_| (), vectors, options).expect("it starts")
}

/// The same device in the next life of the domain.
pub(crate) fn next_life<C: Card>(bench: Bench<C>, kind: C::Kind, options: Options) -> Bench<C> {
    let vectors = Interrupts::MsiX(model::<C>(kind).vectors(options.queues));
    bench.next_life(model::<C>(kind), vectors, options)
}

pub(crate) fn it_starts_and_has_a_link<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    assert_eq!(bench.nic.mac_address().0, ADDRESS);
    assert_eq!(bench.nic.link(), Link::Up(C::SPEED));
    let frame = bytes(900, 1);
    assert!(queue(&mut *bench.nic).transmit(packet(&bench.pool, &frame, &[14, 20]), None).is_ok());
    queue(&mut *bench.nic).flush();
    assert_eq!(bench.device.sent(), Some(frame.clone()));
    assert!(bench.device.inject(&frame));
    assert_eq!(contents(&queue(&mut *bench.nic).receive().expect("a frame")), frame);
    bench.finish();
}

pub(crate) fn a_device_that_cannot_be_started_says_why<C: Card>(kind: C::Kind) {
    let run = |change: fn(&Device<C>), options| start_on(kind, change, Interrupts::MsiX(3), options).err();
    let options = Options::default;
    assert_eq!(run(Device::pull_out, options()), Some(Error::Absent { status: u32::MAX }));
    assert!(matches!(run(Device::get_stuck, options()), Some(Error::Reset { register, .. }) if register == C::RESET));
    let asked = C::LARGEST + 1;
    let jumbo = Options { max_frame: asked, ..options() };
    assert_eq!(run(|_| (), jumbo), Some(Error::MaxFrame { asked, limit: C::LARGEST }));
    let ring = Options { receive_descriptors: 100, ..options() };
    assert_eq!(run(|_| (), ring), Some(Error::Ring { descriptors: 100 }));
}

pub(crate) fn frames_go_both_ways_unchanged_through_many_wraps<C: Card>(kind: C::Kind) {
    let mut bench =
        bench::<C>(kind, Options { transmit_descriptors: 64, receive_descriptors: 64, ..Options::default() });
    for round in 0..700 {
        let frame = bytes(60 + round * 37 % 1455, round);
        let cuts: &[usize] = [&[][..], &[14, 20], &[1, 1, 1, 1]][round % 3];
        assert!(queue(&mut *bench.nic).transmit(packet(&bench.pool, &frame, cuts), None).is_ok());
        queue(&mut *bench.nic).flush();
        assert_eq!(bench.device.sent(), Some(frame.clone()), "round {round}");
        assert_eq!(queue(&mut *bench.nic).reclaim(), 1);
        assert!(bench.device.inject(&frame));
        assert_eq!(contents(&queue(&mut *bench.nic).receive().expect("a frame")), frame, "round {round}");
        queue(&mut *bench.nic).refill(&bench.pool);
    }
    bench.finish();
}

pub(crate) fn short_frames_are_padded<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    for length in [14, 16, 17, 59] {
        let frame = bytes(length, length);
        assert!(queue(&mut *bench.nic).transmit(packet(&bench.pool, &frame, &[]), None).is_ok());
        queue(&mut *bench.nic).flush();
        let mut padded = frame;
        padded.resize(60, 0);
        assert_eq!(bench.device.sent(), Some(padded));
    }
    bench.finish();
}

pub(crate) fn jumbo_frames_go_both_ways<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options { max_frame: 9018, ..Options::default() });
    let frame = bytes(9018, 3);
    assert!(queue(&mut *bench.nic).transmit(packet(&bench.pool, &frame, &[]), None).is_ok());
    queue(&mut *bench.nic).flush();
    assert_eq!(bench.device.sent(), Some(frame.clone()));
    assert!(bench.device.inject(&frame));
    let received = queue(&mut *bench.nic).receive().expect("a frame");
    assert_eq!(received.fragments.len(), 3);
    assert_eq!(contents(&received), frame);
    drop(received);
    bench.finish();
}

pub(crate) fn a_frame_beyond_the_wires_mtu_is_counted_and_dropped<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options { max_frame: STANDARD_FRAME, ..Options::default() });
    bench.device.inject(&bytes(3000, 3));
    assert!(queue(&mut *bench.nic).receive().is_none());
    assert!(bench.device.inject(&bytes(1514, 4)));
    assert_eq!(contents(&queue(&mut *bench.nic).receive().expect("a frame")), bytes(1514, 4));
    bench.finish();
}

pub(crate) fn checksums_are_completed_and_super_frames_are_cut<C: Card>(kind: C::Kind) {
    for network in [Network::V4, Network::V6] {
        let mut bench = bench::<C>(kind, Options::default());
        let frame = tcp_packet(network, 500, 7);
        let mut blank = packet(&bench.pool, &super::without_checksum(network, &frame), &[80]);
        blank.offload.checksum = Checksum::Blank;
        assert!(queue(&mut *bench.nic).transmit(blank, Some(&layout(network))).is_ok());
        queue(&mut *bench.nic).flush();
        assert_eq!(bench.device.sent(), Some(frame), "{network:?}");

        let whole = tcp_packet(network, 20_000, 8);
        let superframe = super::superframe(network, &bench.pool, &whole, 1428);
        assert!(queue(&mut *bench.nic).transmit(superframe, Some(&layout(network))).is_ok());
        queue(&mut *bench.nic).flush();
        let mut payload = Vec::new();
        while let Some(segment) = bench.device.sent() {
            assert!(super::has_right_checksums(network, &segment), "{network:?}");
            payload.extend_from_slice(&segment[usize::from(layout(network).payload_offset)..]);
        }
        assert_eq!(payload, whole[usize::from(layout(network).payload_offset)..], "{network:?}");
        bench.finish();
    }
}

pub(crate) fn verified_checksums_are_told<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    let good = tcp_packet(Network::V4, 300, 1);
    let mut bad = good.clone();
    if let Some(last) = bad.last_mut() {
        *last ^= 1;
    }
    for (frame, expected) in [(good, Checksum::Verified), (bad, Checksum::Unverified)] {
        assert!(bench.device.inject(&frame));
        assert_eq!(queue(&mut *bench.nic).receive().expect("a frame").offload.checksum, expected);
    }
    bench.finish();
}

pub(crate) fn flows_are_spread_over_queues_and_stay_in_one<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options { queues: 4, receive_descriptors: 64, seed: 42, ..Options::default() });
    let queues = model::<C>(kind).vectors(4) - 2;
    assert_eq!(bench.nic.queues(), queues);
    let mut of_flow = [None; 40];
    for _ in 0..3 {
        for (flow, place) in of_flow.iter_mut().enumerate() {
            let mut frame = tcp_packet(Network::V4, 100, flow);
            // The source port.
            frame[35] = flow as u8;
            assert!(bench.device.inject(&frame));
            let found = (0..queues).find(|index| {
                let queue = bench.nic.queue(*index).expect("a queue");
                let received = queue.receive();
                queue.refill(&bench.pool);
                received.is_some()
            });
            let found = found.expect("a frame");
            assert_eq!(*place.get_or_insert(found), found);
        }
    }
    for index in 0..queues {
        assert!(of_flow.contains(&Some(index)), "queue {index} has no flow");
        let frame = bytes(300, index);
        let queue = bench.nic.queue(index).expect("a queue");
        assert!(queue.transmit(packet(&bench.pool, &frame, &[]), None).is_ok());
        queue.flush();
        assert_eq!(bench.device.sent(), Some(frame));
        assert_eq!(queue.reclaim(), 1);
    }
    assert!(bench.nic.queue(queues).is_none());
    bench.finish();
}

pub(crate) fn each_queue_interrupts_once_until_it_is_armed_again<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options { queues: 2, receive_descriptors: 64, seed: 1, ..Options::default() });
    assert!(bench.device.inject(&bytes(70, 1)), "not armed yet");
    assert_eq!(bench.device.messages(), [0u16; 0]);
    assert!(queue(&mut *bench.nic).arm(false), "a frame is there already");
    while queue(&mut *bench.nic).receive().is_some() {}
    let _earlier = bench.device.messages();
    let _causes = bench.nic.handle_interrupt(0);
    assert!(!queue(&mut *bench.nic).arm(false));
    for round in 0..3 {
        // No IP: the first queue.
        for _ in 0..=round {
            assert!(bench.device.inject(&bytes(70, 2)));
        }
        assert_eq!(bench.device.messages(), [0], "one for all");
        bench.device.accesses();
        assert!(bench.nic.handle_interrupt(0).receive);
        assert_eq!(bench.device.accesses(), 0, "a message costs no access");
        while queue(&mut *bench.nic).receive().is_some() {}
        queue(&mut *bench.nic).refill(&bench.pool);
        assert!(!queue(&mut *bench.nic).arm(false));
        assert_eq!(bench.device.messages(), [0u16; 0], "a frame that was taken no longer interrupts");
    }
    // Sent packets interrupt where somebody waits for room: at the vector behind those of the queues.
    let queues = bench.nic.queues();
    for wanted in [false, true, false] {
        let queue = bench.nic.queue(queues - 1).expect("a queue");
        assert!(!queue.arm(wanted));
        assert!(queue.transmit(packet(&bench.pool, &bytes(100, 3), &[]), None).is_ok());
        queue.flush();
        assert_eq!(bench.device.messages(), if wanted { vec![queues as u16] } else { vec![] });
        if wanted {
            assert!(bench.nic.handle_interrupt(queues).transmit);
        }
        assert_eq!(bench.nic.queue(queues - 1).expect("a queue").reclaim(), 1);
    }
    bench.finish();
}

pub(crate) fn one_interrupt_for_all_says_which_it_was<C: Card>(kind: C::Kind) {
    for by in [Interrupt::Msi, Interrupt::Line(true)] {
        let change = |device: &Device<C>| device.interrupt_by(by);
        let mut bench =
            start_on(kind, change, Interrupts::Single, Options { queues: 4, ..Options::default() }).expect("it starts");
        assert_eq!(bench.nic.queues(), 1);
        assert!(!queue(&mut *bench.nic).arm(false));
        while !bench.device.messages().is_empty() {
            let _link = bench.nic.handle_interrupt(0);
            assert!(!queue(&mut *bench.nic).arm(false));
        }
        for round in 0..3 {
            assert!(bench.device.inject(&bytes(70, round)));
            assert!(bench.device.inject(&bytes(70, round)));
            assert!(!bench.device.messages().is_empty(), "{by:?}");
            let causes = bench.nic.handle_interrupt(0);
            assert!(causes.receive && !causes.link, "{by:?} {causes:?}");
            assert!(!bench.device.line());
            while queue(&mut *bench.nic).receive().is_some() {}
            assert!(!queue(&mut *bench.nic).arm(false));
        }
        bench.device.set_link(false);
        assert_eq!(bench.device.messages(), [0], "{by:?}");
        assert!(bench.nic.handle_interrupt(0).link);
        assert_eq!(bench.nic.link(), Link::Down);
        bench.finish();
    }
}

/// The cable is pulled, and plugged in again; leaves the first queue armed.
fn pull_and_plug<C: Card>(bench: &mut Bench<C>) {
    assert!(!queue(&mut *bench.nic).arm(false));
    let _earlier = (bench.device.messages(), bench.nic.handle_interrupt(2), queue(&mut *bench.nic).arm(false));
    for up in [false, true] {
        bench.device.set_link(up);
        bench.device.wait(Duration::from_secs(5));
        assert!(bench.device.messages().contains(&2), "up: {up}");
        assert!(bench.nic.handle_interrupt(2).link);
        assert_eq!(bench.nic.link() != Link::Down, up);
        assert!(!queue(&mut *bench.nic).arm(false));
    }
}

pub(crate) fn the_link_is_told<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    pull_and_plug(&mut bench);
    bench.finish();
}

pub(crate) fn the_link_and_faults_are_told<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    pull_and_plug(&mut bench);
    for (arise, fault) in C::FAULTS {
        let _earlier = bench.device.messages();
        bench.device.with_model(*arise);
        assert_eq!(bench.device.messages(), [2]);
        assert_eq!(bench.nic.handle_interrupt(2).fault, Some(*fault));
        assert!(!queue(&mut *bench.nic).arm(false));
    }
    bench.finish();
}

pub(crate) fn each_vector_has_an_interval<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options { queues: 2, receive_descriptors: 64, ..Options::default() });
    let (first, bits) = C::INTERVALS;
    for vector in 0..model::<C>(kind).vectors(2) {
        assert_ne!(bench.device.peek(first + 4 * vector) & bits, 0, "vector {vector}");
    }
    let before = bench.device.peek(first) & bits;
    for _ in 0..40 {
        assert!(bench.device.inject(&bytes(70, 2)));
    }
    while queue(&mut *bench.nic).receive().is_some() {}
    queue(&mut *bench.nic).arm(false);
    assert!(bench.device.peek(first) & bits > before, "under load it is longer");
    bench.finish();
}

/// Writes a descriptor of the first queue as the device would, without the device's knowledge.
fn describe<C: Card>(bench: &Bench<C>, index: u32, status: u32, length: u32) {
    let place = bench.device.descriptor(C::receive_queue(0), index);
    bench.device.write_descriptor(place, [0, 0, status, length]);
}

pub(crate) fn lengths_that_cannot_be_cost_their_frame<C: Card>(kind: C::Kind) {
    // DD and EOP; DD.
    let rows = [
        (STANDARD_FRAME, 3, 0, "empty"),
        (STANDARD_FRAME, 3, 13, "shorter than a header"),
        (STANDARD_FRAME, 3, STANDARD_FRAME + 1, "longer than was asked for"),
        (9018, 3, 4097, "longer than its buffer"),
        (9018, 3, 9018, "longer than its buffer"),
        (9018, 3, 0xFFFF, "longer than its buffer"),
        (9018, 1, 4095, "a piece that is not full"),
    ];
    for (max_frame, status, length, why) in rows {
        let mut bench = bench::<C>(kind, Options { max_frame, ..Options::default() });
        describe(&bench, 0, status, length as u32);
        describe(&bench, 1, 3, 60);
        let first = queue(&mut *bench.nic).receive();
        assert_eq!(first.map(|packet| packet.len()), (status == 3).then_some(60), "{why}");
        assert!(queue(&mut *bench.nic).receive().is_none(), "{why}");
        let counted = bench.nic.statistics();
        assert_eq!(counted.receive_malformed + counted.receive_oversize, 1, "{why}");
        bench.finish();
    }
}

pub(crate) fn damaged_frames_are_dropped_and_counted<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    let mut index = 0;
    for error in C::DAMAGED {
        describe(&bench, index, 3 | error, 60);
        describe(&bench, index + 1, 3, 61);
        index += 2;
        assert_eq!(queue(&mut *bench.nic).receive().map(|packet| packet.len()), Some(61), "{error:#x}");
        assert_eq!(bench.nic.statistics().receive_errors, u64::from(index / 2), "{error:#x}");
    }
    bench.finish();
}

const TAG: Tag = Tag::new(0x2005).expect("a tag");

/// `frame` with [`TAG`] behind its addresses.
fn tagged(frame: &[u8]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    [addresses, &[0x81, 0x00], &TAG.control().to_be_bytes(), rest].concat()
}

pub(crate) fn tags_are_taken_out_where_told_to<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options { queues: 2, receive_descriptors: 64, ..Options::default() });
    assert!(bench.nic.capabilities().vlan_stripping);
    let device = bench.device.clone();
    let plain = bytes(300, 1);
    let tcp = tcp_packet(Network::V4, 300, 1);
    for (on, changes) in [(false, false), (true, true), (true, false), (false, true)] {
        // What is there already was handled by the former rule.
        assert!(device.inject(&tagged(&plain)));
        bench.nic.set_vlan_stripping(on);
        assert_eq!(queue(&mut *bench.nic).receive().is_none(), changes);
        if on {
            bench.nic.restart(&mut |time| device.wait(time)).expect("it starts anew");
            device.wait(Duration::from_secs(5));
        }
        for (frame, checksum) in [(&plain, Checksum::Unverified), (&tcp, Checksum::Verified)] {
            // TCP's is of a queue that the hash names.
            let receive = |bench: &mut Bench<C>| {
                let mut frames = (0..bench.nic.queues()).filter_map(|index| bench.nic.queue(index)?.receive());
                frames.next().expect("a frame")
            };
            assert!(device.inject(&tagged(frame)));
            let received = receive(&mut bench);
            let expected = if on { (frame.clone(), Some(TAG)) } else { (tagged(frame), None) };
            assert_eq!((contents(&received), received.tag), expected);
            assert_eq!(received.offload.checksum, checksum);
            assert!(device.inject(frame));
            let received = receive(&mut bench);
            assert_eq!((contents(&received), received.tag), (frame.clone(), None));
        }
    }
    bench.finish();
}

pub(crate) fn tags_are_inserted_into_packets_and_their_segments<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    let send = |bench: &mut Bench<C>, mut packet: Packet, network: Option<Network>, tag: Option<Tag>| {
        packet.tag = tag;
        let sent = queue(&mut *bench.nic).transmit(packet, network.map(layout).as_ref());
        queue(&mut *bench.nic).flush();
        sent.is_ok()
    };
    let inserts = bench.nic.capabilities().vlan_insertion;
    let first = packet(&bench.pool, &bytes(100, 1), &[]);
    assert_eq!(send(&mut bench, first, None, Some(TAG)), inserts);
    assert_eq!(bench.device.sent().is_some(), inserts);
    bench.nic.set_vlan_stripping(true);
    assert!(bench.nic.capabilities().vlan_insertion);
    for (length, tag) in [(15, Some(TAG)), (60, Some(TAG)), (600, None), (601, Tag::new(1)), (1514, Some(TAG))] {
        let frame = bytes(length, 1);
        let packet = packet(&bench.pool, &frame, &[14, 10]);
        assert!(send(&mut bench, packet, None, tag));
        let mut expected = frame;
        expected.resize(length.max(60), 0);
        if let Some(tag) = tag {
            expected = tagged(&expected);
            expected[14..16].copy_from_slice(&tag.control().to_be_bytes());
        }
        assert_eq!(bench.device.sent(), Some(expected), "{length} bytes, {tag:?}");
    }
    for network in [Network::V4, Network::V6] {
        let frame = tcp_packet(network, 500, 7);
        let mut blank = packet(&bench.pool, &super::without_checksum(network, &frame), &[80]);
        blank.offload.checksum = Checksum::Blank;
        assert!(send(&mut bench, blank, Some(network), Some(TAG)));
        assert_eq!(bench.device.sent(), Some(tagged(&frame)), "{network:?}");
        let whole = tcp_packet(network, 5_000, 8);
        let superframe = super::superframe(network, &bench.pool, &whole, 1428);
        assert!(send(&mut bench, superframe, Some(network), Some(TAG)));
        let mut segments = 0;
        while let Some(segment) = bench.device.sent() {
            assert_eq!(segment[12..16], [0x81, 0x00, 0x20, 0x05], "{network:?}");
            assert!(super::has_right_checksums(network, &[&segment[..12], &segment[16..]].concat()), "{network:?}");
            segments += 1;
        }
        assert_eq!(segments, 4, "{network:?}");
    }
    bench.finish();
}

pub(crate) fn a_tag_counts_for_the_length_of_a_frame<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    bench.nic.set_vlan_stripping(true);
    for (length, fits) in [(STANDARD_FRAME - 4, true), (STANDARD_FRAME - 3, false)] {
        let mut packet = packet(&bench.pool, &bytes(length, 1), &[]);
        packet.tag = Some(TAG);
        assert!(queue(&mut *bench.nic).transmit(packet, None).is_ok());
        queue(&mut *bench.nic).flush();
        assert_eq!(bench.device.sent().is_some(), fits);
        bench.device.inject(&tagged(&bytes(length, 2)));
        assert_eq!(queue(&mut *bench.nic).receive().is_some(), fits);
    }
    // A device that lets a longer one through.
    let place = bench.device.descriptor(C::receive_queue(0), 1);
    bench.device.write_descriptor(place, [0, 0, 0xB, u32::from(TAG.control()) << 16 | STANDARD_FRAME as u32]);
    assert!(queue(&mut *bench.nic).receive().is_none());
    assert_eq!(bench.nic.statistics().receive_oversize, 2);
    // One whose tag is none.
    let place = bench.device.descriptor(C::receive_queue(0), 2);
    bench.device.write_descriptor(place, [0, 0, 0xB, 0x2FFF_0000 | 100]);
    assert!(queue(&mut *bench.nic).receive().is_none());
    assert_eq!(bench.nic.statistics().receive_malformed, 1);
    // Segments of 1,460 bytes have 1,514 with their headers, and the tag.
    let whole = tcp_packet(Network::V4, 5_000, 8);
    for (size, fits) in [(1460, true), (1461, false)] {
        let mut superframe = super::superframe(Network::V4, &bench.pool, &whole, size);
        superframe.tag = Some(TAG);
        assert_eq!(queue(&mut *bench.nic).transmit(superframe, Some(&layout(Network::V4))).is_ok(), fits);
    }
    bench.finish();
}

/// Whether a frame goes out now.
fn goes_out<C: Card>(bench: &mut Bench<C>) -> bool {
    let frame = packet(&bench.pool, &bytes(64, 1), &[]);
    assert!(queue(&mut *bench.nic).transmit(frame, None).is_ok());
    queue(&mut *bench.nic).flush();
    bench.device.sent().is_some()
}

pub(crate) fn pause_frames_stop_the_transmitter_for_their_time<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    for restart in [false, true] {
        if restart {
            let device = bench.device.clone();
            bench.nic.restart(&mut |time| device.wait(time)).expect("it starts anew");
            device.wait(Duration::from_secs(5));
        }
        assert_ne!(bench.nic.link(), Link::Down);
        assert!(goes_out(&mut bench));
        assert!(bench.device.inject(&pause::frame(0xFFFF)));
        assert!(!goes_out(&mut bench));
        bench.device.wait(pause::duration(0xFFFF, C::SPEED));
        assert!(bench.device.sent().is_some(), "the time is over");
        assert!(bench.device.inject(&pause::frame(0xFFFF)));
        assert!(!goes_out(&mut bench));
        assert!(bench.device.inject(&pause::frame(0)));
        assert!(goes_out(&mut bench), "it may go on");
        assert!(queue(&mut *bench.nic).receive().is_none(), "they are the device's matter");
        while bench.device.sent().is_some() {}
        assert_eq!(bench.nic.statistics().pauses, if restart { 4 } else { 2 });
    }
    bench.finish();
}

pub(crate) fn flow_control_is_what_both_ends_can<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    // What the partner advertises; obeyed, sent: IEEE 802.3, table 28B-3, for one that advertises both.
    let rows =
        [(false, false, false, false), (false, true, true, false), (true, false, true, true), (true, true, true, true)];
    for (symmetric, asymmetric, obeys, sends) in rows {
        let negotiates = bench.device.with_model(|model| model.set_partner(symmetric, asymmetric));
        for up in [false, true] {
            bench.device.set_link(up);
            bench.device.wait(Duration::from_secs(5));
            // A link that fell shows once.
            let _told = bench.nic.link();
            assert_eq!(bench.nic.link() != Link::Down, up);
        }
        let (obeys, sends) = (obeys || !negotiates, sends || !negotiates);
        assert_eq!(bench.device.with_model(|model| model.sends_pauses()), sends, "{symmetric} {asymmetric}");
        assert!(bench.device.inject(&pause::frame(0xFFFF)));
        assert_eq!(goes_out(&mut bench), !obeys, "{symmetric} {asymmetric}");
        bench.device.wait(Duration::from_secs(1));
        while bench.device.sent().is_some() {}
    }
    bench.finish();
}

pub(crate) fn a_paused_transmitter_does_not_hang<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    assert_ne!(bench.nic.link(), Link::Down);
    bench.device.hang(0);
    assert!(!goes_out(&mut bench));
    for second in 0..20 {
        assert!(bench.device.inject(&pause::frame(0xFFFF)));
        // Who asks for them must not hide them from the watch.
        let _counted = bench.nic.statistics();
        assert_eq!(bench.watch(Instant(second * 1_000_000_000)), None, "after {second} s");
    }
    let found = (20..40).find(|second| bench.watch(Instant(second * 1_000_000_000)).is_some());
    assert_eq!(found, Some(25), "paused no longer, it does");
    bench.device.with_model(|model| model.faults().hung_transmit = 0);
    bench.finish();
}

/// Sets the link up anew with a partner that advertises no pause frames; false where that is not asked for.
fn without_flow_control<C: Card>(bench: &mut Bench<C>) -> bool {
    let negotiates = bench.device.with_model(|model| model.set_partner(false, false));
    for up in [false, true] {
        bench.device.set_link(up);
        bench.device.wait(Duration::from_secs(5));
        // A link that fell shows once.
        let _told = bench.nic.link();
        assert_eq!(bench.nic.link() != Link::Down, up);
    }
    negotiates
}

pub(crate) fn pauses_that_are_not_obeyed_hide_no_hang<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    if !without_flow_control(&mut bench) {
        return bench.finish();
    }
    bench.device.hang(0);
    assert!(!goes_out(&mut bench));
    let found = (0..20).find_map(|second| {
        bench.device.inject(&pause::frame(0xFFFF));
        bench.watch(Instant(second * 1_000_000_000)).map(|fault| (second, fault))
    });
    assert_eq!(found, Some((5, Fault::TransmitHang(0))));
    assert_eq!(bench.nic.statistics().pauses, 6, "they are counted all the same");
    bench.device.with_model(|model| model.faults().hung_transmit = 0);
    bench.finish();
}

pub(crate) fn only_what_was_reported_is_given_back<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    bench.device.be_lazy();
    let send = |bench: &mut Bench<C>, seed| {
        let frame = packet(&bench.pool, &bytes(300, seed), &[100, 100]);
        assert!(queue(&mut *bench.nic).transmit(frame, None).is_ok());
        queue(&mut *bench.nic).flush();
    };
    send(&mut bench, 1);
    bench.device.run();
    send(&mut bench, 2);
    let in_flight = bench.pool.available();
    assert_eq!(queue(&mut *bench.nic).reclaim(), 1);
    assert_eq!(bench.pool.available(), in_flight + 3, "the second packet's pages are the device's");
    bench.device.run();
    assert_eq!(queue(&mut *bench.nic).reclaim(), 1);
    assert_eq!((bench.device.sent(), bench.device.sent()), (Some(bytes(300, 1)), Some(bytes(300, 2))));
    bench.finish();
}

pub(crate) fn a_restart_forgets_all<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options { max_frame: 9018, ..Options::default() });
    let device = bench.device.clone();
    for _ in 0..2 {
        // The context of an offload.
        let frame = tcp_packet(Network::V4, 500, 7);
        let mut blank = packet(&bench.pool, &super::without_checksum(Network::V4, &frame), &[80]);
        blank.offload.checksum = Checksum::Blank;
        assert!(queue(&mut *bench.nic).transmit(blank, Some(&layout(Network::V4))).is_ok());
        queue(&mut *bench.nic).flush();
        assert_eq!(device.sent(), Some(frame));
        assert!(device.inject(&bytes(200, 5)));
        assert_eq!(contents(&queue(&mut *bench.nic).receive().expect("a frame")), bytes(200, 5));
        // The beginning of a frame, and another that is skipped.
        describe(&bench, 1, 1, 4096);
        assert!(queue(&mut *bench.nic).receive().is_none());
        bench.nic.restart(&mut |time| device.wait(time)).expect("it starts anew");
        device.wait(Duration::from_secs(5));
        assert!(device.inject(&bytes(300, 6)));
        assert_eq!(contents(&queue(&mut *bench.nic).receive().expect("a frame")), bytes(300, 6));
        describe(&bench, 1, 1, 7);
        assert!(queue(&mut *bench.nic).receive().is_none());
        bench.nic.restart(&mut |time| device.wait(time)).expect("it starts anew");
        device.wait(Duration::from_secs(5));
    }
    bench.finish();
}

pub(crate) fn a_queue_that_hangs_is_found_and_the_device_started_anew<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options { queues: 2, receive_descriptors: 64, ..Options::default() });
    let last = bench.nic.queues() - 1;
    bench.device.hang(last as u32);
    let send = |bench: &mut Bench<C>, index: usize| {
        let frame = packet(&bench.pool, &bytes(600, index), &[]);
        let queue = bench.nic.queue(index).expect("a queue");
        assert!(queue.transmit(frame, None).is_ok());
        queue.flush();
    };
    send(&mut bench, last);
    let found = (0..10).find_map(|second| {
        send(&mut bench, 0);
        bench.watch(Instant(second * 1_000_000_000)).map(|fault| (second, fault))
    });
    assert_eq!(found, Some((5, Fault::TransmitHang(last))));
    bench.device.with_model(|model| model.faults().hung_transmit = 0);
    while bench.device.sent().is_some() {}
    let device = bench.device.clone();
    bench.nic.restart(&mut |time| device.wait(time)).expect("it starts anew");
    bench.device.wait(Duration::from_secs(5));
    assert!(bench.nic.link() != Link::Down);
    for index in 0..=last {
        send(&mut bench, index);
        assert_eq!(bench.device.sent(), Some(bytes(600, index)));
        assert_eq!(bench.nic.queue(index).expect("a queue").reclaim(), 1);
    }
    assert!(bench.device.inject(&bytes(70, 4)));
    assert_eq!(contents(&queue(&mut *bench.nic).receive().expect("a frame")), bytes(70, 4));
    bench.finish();
}

pub(crate) fn a_pulled_out_device_is_waited_for_nowhere<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    bench.device.pull_out();
    assert!(bench.nic.handle_interrupt(2).link);
    assert_eq!(bench.nic.link(), Link::Down);
    let send = packet(&bench.pool, &bytes(64, 0), &[]);
    assert!(queue(&mut *bench.nic).transmit(send, None).is_err());
    queue(&mut *bench.nic).flush();
    assert_eq!(queue(&mut *bench.nic).reclaim(), 0);
    assert!(queue(&mut *bench.nic).receive().is_none());
    assert!(!queue(&mut *bench.nic).arm(true));
    assert_eq!((bench.nic.statistics(), queue(&mut *bench.nic).room()), (NicStatistics::default(), 0));
    assert_eq!(bench.watch(Instant(0)), None);
    bench.nic.quiesce();
    assert!(bench.pool.available() < bench.pool.capacity(), "a device that reads as ones has not said that it stopped");
    bench.nic.release(closed(bench.device.dma().reach()));
    bench.finish();
}

pub(crate) fn pages_of_a_device_that_does_not_stop_stay_with_it<C: Card>(kind: C::Kind) {
    let mut bench = bench::<C>(kind, Options::default());
    let before = bench.pool.available();
    bench.device.stay_busy();
    let device = bench.device.clone();
    assert_eq!(bench.nic.restart(&mut |time| device.wait(time)), Err(Error::Running));
    let frame = packet(&bench.pool, &bytes(600, 0), &[]);
    assert!(queue(&mut *bench.nic).transmit(frame, None).is_err());
    bench.nic.quiesce();
    assert_eq!(bench.pool.available(), before);
    bench.nic.release(closed(bench.device.dma().reach()));
    bench.finish();
}
