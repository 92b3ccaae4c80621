//! A driver that does anything at all, any number of times in any order: the model neither panics nor grows without bound. Host.

use std::time::Duration;

use proptest::prelude::*;

use crate::ahci::{self, Ahci, Drive};
use crate::bus::{Interrupt, Model};
use crate::e1000e::{self, E1000e};
use crate::igb::{self, Igb};
use crate::ixgbe::{self, Ixgbe};
use crate::nvme::{Namespace, Nvme};
use crate::ring::{ENABLE, offset};

const ADDRESS: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A model, the places of its queues, and the register writes without which no frame, no descriptor and no command moves.
struct Subject<M> {
    device: M,
    now: Duration,
    receive: fn(usize) -> usize,
    transmit: fn(usize) -> usize,
    enables: &'static [(usize, u32)],
}

fn ixgbe(kind: usize) -> Subject<Ixgbe> {
    use ixgbe::registers as reg;
    let kinds = ixgbe::Kind::ALL;
    Subject {
        device: Ixgbe::new(kinds[kind % kinds.len()], ADDRESS),
        now: Duration::ZERO,
        receive: reg::receive,
        transmit: reg::transmit,
        enables: &[(reg::RXCTRL, 1), (reg::DMATXCTL, 0x8100_0001), (reg::FCTRL, 0x700), (reg::CTRL, 0)],
    }
}

fn igb(kind: usize) -> Subject<Igb> {
    use igb::registers as reg;
    let kinds = igb::Kind::ALL;
    Subject {
        device: Igb::new(kinds[kind % kinds.len()], ADDRESS),
        now: Duration::ZERO,
        receive: reg::receive,
        transmit: reg::transmit,
        enables: &[(reg::RCTL, 0x803A), (reg::TCTL, 0xA), (reg::RLPML, 0x2600), (reg::CTRL, reg::CTRL_SLU)],
    }
}

fn e1000e() -> Subject<E1000e> {
    use e1000e::registers as reg;
    Subject {
        device: E1000e::new(ADDRESS),
        now: Duration::ZERO,
        receive: reg::receive,
        transmit: reg::transmit,
        enables: &[(reg::CTRL, reg::CTRL_SLU), (reg::RFCTL, 0x8000), (reg::RCTL, 0x0203_803A), (reg::TCTL, 0xA)],
    }
}

fn nvme() -> Subject<Nvme> {
    let mut device = Nvme::new();
    device.insert(1, Namespace::new(9, 64));
    Subject {
        device,
        now: Duration::ZERO,
        // The doorbells; the places of the admin queues.
        receive: |queue| 0x1000 + 16 * queue,
        transmit: |_| 0x20,
        // AQA, ASQ, ACQ; CC.EN. The tail of the admin queue.
        enables: &[(0x24, 0x1F_001F), (0x28, 0x1_0000), (0x30, 0x2_0000), (0x14, 0x46_0001), (0x1000, 3), (0x1000, 0)],
    }
}

fn ahci() -> Subject<Ahci> {
    let mut device = Ahci::new();
    (0..ahci::PORTS).for_each(|port| device.plug_in(port, Drive::new(9, 64)));
    Subject {
        device,
        now: Duration::ZERO,
        // The ports.
        receive: |port| 0x100 + 0x80 * port,
        transmit: |port| 0x180 + 0x80 * port,
        // GHC; of port 0, PxIE, FRE and ST in PxCMD, and a slot in PxCI.
        enables: &[(0x04, 0x8000_0002), (0x114, u32::MAX), (0x118, 0x16), (0x118, 0x17), (0x138, 1)],
    }
}

#[derive(Clone, Debug)]
enum Step {
    Read(u64, usize),
    Write(u64, u32),
    /// A queue's register, so that queues are set up now and then.
    Queue(bool, usize, usize, u32),
    Configure(usize, Vec<u8>),
    Frame(Vec<u8>),
    /// Transfers of one batch, some refused; reads give these bytes.
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

fn act<M: Model>(subject: &mut Subject<M>, step: Step) {
    let device = &mut subject.device;
    let bar = device.configuration().identity().bars.registers();
    match step {
        Step::Read(at, length) => device.read(bar, at, &mut vec![0; length]),
        Step::Write(at, value) => device.write(bar, at, &value.to_le_bytes()),
        Step::Queue(transmit, queue, at, value) => {
            let first = if transmit { (subject.transmit)(queue) } else { (subject.receive)(queue) };
            device.write(bar, (first + at) as u64, &value.to_le_bytes());
        }
        Step::Configure(at, bytes) => device.write_configuration(at, &bytes),
        Step::Frame(bytes) => {
            device.handle_frame(&bytes);
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
        Step::Time(micros) => {
            subject.now += Duration::from_micros(micros);
            device.handle_time(subject.now);
        }
        Step::Reset => device.reset(),
        Step::Enable => {
            // COMMAND, and MSI-X.
            device.write_configuration(4, &[6, 0]);
            device.write_configuration(0x73, &[0x80]);
            for (at, value) in subject.enables {
                device.write(bar, *at as u64, &value.to_le_bytes());
            }
        }
    }
}

fn run<M: Model>(mut subject: Subject<M>, steps: Vec<Step>) -> Result<(), TestCaseError> {
    for step in steps {
        act(&mut subject, step);
        let device = &mut subject.device;
        let vectors = device.configuration().identity().vectors;
        while let Some(interrupt) = device.poll_interrupt() {
            prop_assert!(!matches!(interrupt, Interrupt::MsiX(vector) if vector >= vectors));
        }
        while let Some(frame) = device.poll_frame() {
            prop_assert!((60..=LONGEST_SENT).contains(&frame.len()));
        }
        prop_assert!(device.misuse().len() <= 64);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_driver_may_do_anything_to_an_ixgbe(kind in 0usize..4, steps in proptest::collection::vec(step(), 1..300)) {
        run(ixgbe(kind), steps)?;
    }

    #[test]
    fn a_driver_may_do_anything_to_an_igb(kind in 0usize..3, steps in proptest::collection::vec(step(), 1..300)) {
        run(igb(kind), steps)?;
    }

    #[test]
    fn a_driver_may_do_anything_to_an_e1000e(steps in proptest::collection::vec(step(), 1..300)) {
        run(e1000e(), steps)?;
    }

    #[test]
    fn a_driver_may_do_anything_to_an_nvme_controller(steps in proptest::collection::vec(step(), 1..300)) {
        run(nvme(), steps)?;
    }

    #[test]
    fn a_driver_may_do_anything_to_an_ahci_adapter(steps in proptest::collection::vec(step(), 1..300)) {
        run(ahci(), steps)?;
    }
}

/// Bytes of the longest packet of a driver's, with a tag.
const LONGEST_SENT: usize = (64 << 10) + (16 << 10);
