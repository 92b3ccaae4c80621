//! A driver that does anything at all, any number of times in any order: the model neither panics nor grows without bound. Host.

use proptest::prelude::*;

use super::registers::{self as reg};
use super::*;
use crate::ring::{ENABLE, offset};

#[derive(Clone, Debug)]
enum Step {
    Read(u64, usize),
    Write(u64, u32),
    /// A queue's register, so that queues are set up now and then.
    Queue(bool, usize, usize, u32),
    Configure(usize, Vec<u8>),
    Frame(Vec<u8>),
    /// Transfers of one batch, some refused, with these bytes for what is read.
    Transfer(Vec<u8>, u8),
    Link(bool),
    Time(u64),
    Reset,
    Enable,
}

fn step() -> impl Strategy<Value = Step> {
    let place = prop_oneof![
        Just(offset::BASE),
        Just(4),
        Just(offset::LENGTH),
        Just(offset::HEAD),
        Just(offset::TAIL),
        0usize..0x40
    ];
    let value = prop_oneof![any::<u32>(), 0u32..64, Just(128), Just(1024), Just(ENABLE | 1)];
    prop_oneof![
        2 => (0u64..0x2_1000, 0usize..16).prop_map(|(at, length)| Step::Read(at, length)),
        4 => (0u64..0x2_1000, any::<u32>()).prop_map(|(at, value)| Step::Write(at & !3, value)),
        12 => (any::<bool>(), 0usize..4, place, value).prop_map(|(way, queue, at, value)| Step::Queue(way, queue, at & !3, value)),
        1 => (0usize..0x120, proptest::collection::vec(any::<u8>(), 0..8)).prop_map(|(at, bytes)| Step::Configure(at, bytes)),
        4 => proptest::collection::vec(any::<u8>(), 0..2000).prop_map(Step::Frame),
        8 => (proptest::collection::vec(any::<u8>(), 1..64), any::<u8>()).prop_map(|(bytes, refuse)| Step::Transfer(bytes, refuse)),
        1 => any::<bool>().prop_map(Step::Link),
        1 => (0u64..2000).prop_map(Step::Time),
        1 => Just(Step::Reset),
        4 => Just(Step::Enable),
    ]
}

fn act(device: &mut Ixgbe, step: Step) {
    match step {
        Step::Read(at, length) => device.read(0, at, &mut vec![0; length]),
        Step::Write(at, value) => device.write(0, at, &value.to_le_bytes()),
        Step::Queue(transmit, queue, at, value) => {
            let first = if transmit { reg::transmit(queue) } else { reg::receive(queue) };
            device.write(0, (first + at) as u64, &value.to_le_bytes());
        }
        Step::Configure(at, bytes) => device.write_configuration(at, &bytes),
        Step::Frame(bytes) => {
            device.take_frame(&bytes);
        }
        Step::Transfer(bytes, refuse) => {
            let mut batch = device.poll_dma();
            for (number, transfer) in batch.iter_mut().enumerate() {
                transfer.done = refuse == 0 || number as u8 % refuse.max(1) != 1;
                if !transfer.write {
                    for (place, byte) in transfer.data.iter_mut().zip(bytes.iter().cycle()) {
                        *place = *byte;
                    }
                }
            }
            if !batch.is_empty() {
                device.handle_dma(batch);
            }
        }
        Step::Link(up) => device.set_link(up),
        Step::Time(micros) => device.handle_time(device.now + Duration::from_micros(micros)),
        Step::Reset => device.reset(),
        // What lets frames and descriptors move at all.
        Step::Enable => {
            device.configuration_mut().enable(Interrupt::MsiX(0));
            for (at, value) in [(reg::RXCTRL, 1u32), (reg::DMATXCTL, 0x8100_0001), (reg::FCTRL, 0x700), (reg::CTRL, 0)]
            {
                device.write(0, at as u64, &value.to_le_bytes());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_driver_may_do_anything(kind in 0usize..4, steps in proptest::collection::vec(step(), 1..300)) {
        let mut device = Ixgbe::new(Kind::ALL[kind], [2, 0, 0, 0, 0, 1]);
        for step in steps {
            act(&mut device, step);
            while device.poll_interrupt().is_some() {}
            while let Some(frame) = device.poll_frame() {
                prop_assert!((60..=LONGEST_SENT).contains(&frame.len()));
            }
            prop_assert!(device.misuse().len() <= 64);
        }
    }
}

/// Bytes of the longest packet of a driver's, with a tag.
const LONGEST_SENT: usize = (64 << 10) + (16 << 10);
