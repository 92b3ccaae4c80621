//! A device that does anything at all: registers, descriptors and interrupts without rhyme or reason, any number of them,
//! between calls of the driver in any order. It must cost frames at most: no panic, no page lost, no frame out of bounds.

use super::descriptors::ReceiveStatus;
use super::model::Device;
use super::registers as reg;
use super::*;
use crate::nic::{Nic, STANDARD_FRAME, queue};
use crate::offload::headers::{Layout, Network, Transport};
use crate::packet::{Checksum, Fragment, Gso, GsoKind, Offload, Packet};
use alloc::boxed::Box;
use alloc::vec;
use proptest::prelude::*;
use split_driver::fakes::device::scribbler;
use split_driver::fakes::{FakeDma, FakePages, FakeXen, closed};
use split_driver::memory::DmaAllocator;
use xen_pv_sys::PAGE_SIZE;

#[derive(Clone, Debug)]
enum Step {
    // The device.
    WriteReceive(u32, [u32; 4]),
    WriteTransmit(u32, [u32; 4]),
    FinishReceive(u32, u32, u32),
    SetRegister(usize, u32),
    Inject(usize, u32),
    Send,
    PullOut,
    // The driver.
    Transmit { length: usize, cut: usize, gso: Option<u16>, layout: Option<Layout> },
    Flush,
    Reclaim,
    Receive,
    Refill,
    Interrupt(usize),
    Enable(bool),
    Statistics,
    Link,
}

fn layout() -> impl Strategy<Value = Layout> {
    (any::<bool>(), any::<bool>(), 0u16..80, 0u16..120, 0u16..300).prop_map(|(v4, tcp, a, b, c)| Layout {
        network: if v4 { Network::V4 } else { Network::V6 },
        transport: if tcp { Transport::Tcp } else { Transport::Udp },
        network_offset: a,
        transport_offset: b,
        payload_offset: c,
    })
}

fn step() -> impl Strategy<Value = Step> {
    let send = (0usize..9000, 1usize..PAGE_SIZE, any::<Option<u16>>(), proptest::option::of(layout()));
    prop_oneof![
        2 => (0u32..80, any::<[u32; 4]>()).prop_map(|(index, words)| Step::WriteReceive(index, words)),
        2 => (0u32..80, any::<[u32; 4]>()).prop_map(|(index, words)| Step::WriteTransmit(index, words)),
        4 => (0u32..64, any::<u32>(), 0u32..10_000).prop_map(|(i, s, l)| Step::FinishReceive(i, s | 1, l)),
        2 => (0usize..0x6000, any::<u32>()).prop_map(|(at, value)| Step::SetRegister(at & !3, value)),
        6 => (0usize..10_000, any::<u32>()).prop_map(|(length, status)| Step::Inject(length, status)),
        3 => Just(Step::Send),
        1 => Just(Step::PullOut),
        8 => send.prop_map(|(length, cut, gso, layout)| Step::Transmit { length, cut, gso, layout }),
        4 => Just(Step::Flush),
        4 => Just(Step::Reclaim),
        8 => Just(Step::Receive),
        4 => Just(Step::Refill),
        2 => (0usize..5).prop_map(Step::Interrupt),
        2 => any::<bool>().prop_map(Step::Enable),
        1 => Just(Step::Statistics),
        1 => Just(Step::Link),
    ]
}

struct World {
    nic: E1000e<Device, FakeDma>,
    device: Device,
    xen: FakeXen,
    pool: Pool,
}

impl World {
    fn new(max_frame: usize, interrupts: Interrupts) -> Self {
        let xen = FakeXen::new();
        let pool = Pool::new(Box::new(FakePages::new(&xen, 96)));
        let device = Device::new(&xen);
        device.be_lazy();
        let options = Options { transmit_descriptors: 64, receive_descriptors: 64, max_frame, ..Options::default() };
        let model = Model::find(0x8086, 0x10D3).expect("the 82574L");
        let nic = E1000e::new(device.clone(), device.dma(), model, interrupts, &pool, options, &mut |_| ());
        Self { nic: nic.expect("the model starts"), device, xen, pool }
    }

    fn packet(&self, length: usize, cut: usize) -> Option<Packet> {
        let mut packet = Packet::default();
        let mut rest = length;
        while rest > 0 {
            let now = rest.min(cut.max(500));
            let fragment = Fragment { buffer: self.pool.take()?, offset: 0, length: now as u16 };
            packet.fragments.push(fragment).ok()?;
            rest -= now;
        }
        Some(packet)
    }

    fn step(&mut self, step: Step) -> Result<(), TestCaseError> {
        let (device, nic) = (&self.device, &mut self.nic);
        match step {
            Step::WriteReceive(index, words) => device.write_descriptor(device.receive_descriptor(index), words),
            Step::WriteTransmit(index, words) => device.write_descriptor(device.transmit_descriptor(index), words),
            Step::FinishReceive(index, status, length) => {
                device.write_descriptor(device.receive_descriptor(index), [0, 0, status, length]);
            }
            // The rings' places stay, so that the nonsense lands in them.
            Step::SetRegister(at, _) if (0x2800..0x2810).contains(&at) || (0x3800..0x3810).contains(&at) => {}
            Step::SetRegister(at, value) => device.set(reg::any(at), value),
            Step::Inject(length, status) => {
                device.inject(&vec![0xA5; length], ReceiveStatus::from(status));
            }
            Step::Send => {
                device.transmit();
                while device.sent().is_some() {}
            }
            Step::PullOut => device.pull_out(),
            Step::Transmit { length, cut, gso, layout } => {
                let Some(mut packet) = self.packet(length, cut) else {
                    return Ok(());
                };
                let gso = gso.map(|size| Gso { kind: GsoKind::TcpV4, size });
                let checksum = if layout.is_some() { Checksum::Blank } else { Checksum::Unverified };
                packet.offload = Offload { checksum, gso };
                if let Err(back) = queue(&mut self.nic).transmit(packet, layout.as_ref()) {
                    prop_assert!(back.len() <= length);
                }
            }
            Step::Flush => queue(nic).flush(),
            Step::Reclaim => {
                queue(nic).reclaim();
            }
            Step::Receive => {
                if let Some(packet) = queue(nic).receive() {
                    let limit = nic.capabilities().max_frame;
                    prop_assert!((14..=limit).contains(&packet.len()));
                    let within = |f: &Fragment| usize::from(f.offset) + usize::from(f.length) <= PAGE_SIZE;
                    prop_assert!(packet.fragments.iter().all(within));
                    prop_assert!(packet.offload.gso.is_none());
                }
            }
            Step::Refill => queue(nic).refill(&self.pool),
            Step::Interrupt(vector) => {
                nic.handle_interrupt(vector);
            }
            Step::Enable(transmit) => {
                queue(nic).arm(transmit);
            }
            Step::Statistics => {
                nic.statistics();
            }
            Step::Link => {
                nic.link();
            }
        }
        prop_assert!(queue(&mut self.nic).room() < 64);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_device_may_do_anything(
        jumbo in any::<bool>(),
        single in any::<bool>(),
        scribbles in any::<Option<u32>>(),
        steps in proptest::collection::vec(step(), 1..200),
    ) {
        let interrupts = if single { Interrupts::Single } else { Interrupts::MsiX(2) };
        let mut world = World::new(if jumbo { 9018 } else { STANDARD_FRAME }, interrupts);
        // It writes between any two looks of its driver, too.
        world.xen.set_peer(scribbles.map(scribbler));
        for step in steps {
            world.step(step)?;
        }
        world.nic.quiesce();
        world.nic.release(closed(world.device.dma().reach()));
        drop(world.nic);
        prop_assert_eq!(world.pool.available(), world.pool.capacity());
    }
}
