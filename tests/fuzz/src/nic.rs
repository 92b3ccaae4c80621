//! A NIC's driver with a device that answers nonsense. Host.
//!
//! Each input is one life of a driver. The device is a model that works, and between any two of its acts anything may be written to its
//! registers and descriptors. It must cost frames at most: no panic, no page lost, no frame out of bounds, no endless loop.

use crate::{Target, see};
use devices::bus::Model;
use devices::fake::Device;
use devices::ring::offset;
use netdom::nic::{Interrupts, Nic as Driver, NicStatistics, Options, STANDARD_FRAME, models};
use netdom::offload::headers::{Layout, Network, Transport};
use netdom::packet::{Checksum, Fragment, Gso, GsoKind, Offload, Packet, Pool};
use split_driver::fakes::device::{Script, scribbler};
use split_driver::fakes::{FakePages, FakeXen, closed};
use split_driver::memory::DmaAllocator;
use split_driver::time::Instant;
use std::time::Duration;
use xen_pv_sys::PAGE_SIZE;

/// Pages for packets.
const PAGES: usize = 256;
/// How long a link takes at most.
const LINK: Duration = Duration::from_secs(1);
/// Up to there the magnitude of a counter is looked at.
const MOST_COUNTED: u64 = 15;
/// Descriptors of a ring.
const RING: u16 = 64;

/// A model to be fuzzed with its driver.
pub trait Hostile: Model + Sized + 'static {
    /// One of its kinds, just powered on, and the PCI device id of that kind.
    fn power_on(kind: u8) -> (Self, u16);
    /// Where the registers of a receive queue begin: its ring's address is there.
    fn receive_queue(queue: usize) -> usize;
    /// The same of a transmit queue.
    fn transmit_queue(queue: usize) -> usize;
}

impl Hostile for devices::ixgbe::Ixgbe {
    fn power_on(kind: u8) -> (Self, u16) {
        let kinds = devices::ixgbe::Kind::ALL;
        let kind = kinds[usize::from(kind) % kinds.len()];
        (Self::new(kind, [0x52, 0x54, 0, 0x12, 0x34, 0x56]), kind.identity().device)
    }

    fn receive_queue(queue: usize) -> usize {
        devices::ixgbe::registers::RECEIVE + 0x40 * queue
    }

    fn transmit_queue(queue: usize) -> usize {
        devices::ixgbe::registers::TRANSMIT + 0x40 * queue
    }
}

impl Hostile for devices::igb::Igb {
    fn power_on(kind: u8) -> (Self, u16) {
        let kinds = devices::igb::Kind::ALL;
        let kind = kinds[usize::from(kind) % kinds.len()];
        (Self::new(kind, [0x52, 0x54, 0, 0x12, 0x34, 0x56]), kind.identity().device)
    }

    fn receive_queue(queue: usize) -> usize {
        devices::igb::registers::receive(queue)
    }

    fn transmit_queue(queue: usize) -> usize {
        devices::igb::registers::transmit(queue)
    }
}

impl Hostile for devices::e1000e::E1000e {
    fn power_on(_kind: u8) -> (Self, u16) {
        (Self::new([0x52, 0x54, 0, 0x12, 0x34, 0x56]), devices::e1000e::IDENTITY.device)
    }

    fn receive_queue(queue: usize) -> usize {
        devices::e1000e::registers::receive(queue)
    }

    fn transmit_queue(queue: usize) -> usize {
        devices::e1000e::registers::transmit(queue)
    }
}

/// A driver and its device, anew for each input.
pub struct Nic<M>(std::marker::PhantomData<M>);

impl<M> Default for Nic<M> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<M: Hostile> Target for Nic<M> {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        let mut script = Script::new(input);
        let Some(mut life) = Life::<M>::begin(&mut script) else {
            return;
        };
        let mut acts = [0u64; ACTS];
        while !script.is_over() {
            let act = usize::from(script.byte()) % ACTS;
            life.act(act, &mut script);
            acts[act] += 1;
            if let Some(room) = life.nic.queue(0).map(|queue| queue.room()) {
                assert!(room < usize::from(RING), "more room than descriptors");
            }
        }
        let NicStatistics {
            receive_errors,
            receive_missed,
            receive_malformed,
            receive_oversize,
            transmit_errors,
            pauses,
        } = life.nic.statistics();
        let counts = [receive_errors, receive_missed, receive_malformed, receive_oversize, transmit_errors, pauses];
        let told = [life.received, life.refused, life.sent, life.restarts, life.faults];
        // The device's counters hold any number that is written to them: their magnitude is nothing new.
        see(seen, life.gone, told.into_iter().chain(counts.map(|count| count.min(MOST_COUNTED))));
        life.end();
    }
}

/// Acts of the device and of the driver's caller.
const ACTS: usize = 20;

struct Life<M: Model> {
    nic: Box<dyn Driver>,
    device: Device<M>,
    xen: FakeXen,
    pool: Pool,
    queues: usize,
    now: u64,
    gone: bool,
    received: u64,
    refused: u64,
    sent: u64,
    restarts: u64,
    faults: u64,
}

impl<M: Hostile> Life<M> {
    /// A driver that was started; none where the device kept it from that, which it may.
    fn begin(script: &mut Script<'_>) -> Option<Self> {
        let xen = FakeXen::new();
        let pool = Pool::new(Box::new(FakePages::new(&xen, PAGES)));
        let choice = script.byte();
        let (hardware, id) = M::power_on(choice >> 4);
        let device = Device::new(&xen, hardware);
        let queues = usize::from(choice & 1) + 1;
        let max_frame = if choice & 2 == 0 { STANDARD_FRAME } else { 9018 };
        let interrupts = if choice & 4 == 0 { Interrupts::MsiX(queues + 2) } else { Interrupts::Single };
        let options = Options {
            queues,
            max_frame,
            transmit_descriptors: RING,
            receive_descriptors: RING,
            seed: u64::from(choice),
            ..Options::default()
        };
        if choice & 8 != 0 {
            // It writes between any two looks of its driver, too.
            xen.set_peer(Some(scribbler(u32::from(script.byte()))));
        }
        let model = models::Model::find(0x8086, id)?;
        let time = device.clone();
        let started =
            model.start(device.clone(), device.dma(), interrupts, &pool, options, &mut |delay| time.wait(delay));
        let nic = started.ok()?;
        // As long as a link needs.
        device.wait(LINK);
        device.be_lazy();
        Some(Self {
            queues: nic.queues(),
            nic,
            device,
            xen,
            pool,
            now: 0,
            gone: false,
            received: 0,
            refused: 0,
            sent: 0,
            restarts: 0,
            faults: 0,
        })
    }

    fn act(&mut self, act: usize, script: &mut Script<'_>) {
        let queue = usize::from(script.byte()) % self.queues;
        match act {
            // The device.
            0 => self.scribble(M::receive_queue(queue), script),
            1 => self.scribble(M::transmit_queue(queue), script),
            2 => {
                let (choice, status, length) = (script.byte(), script.half(), script.half());
                let (first, errors) = (M::receive_queue(queue), u32::from(script.byte()) << 24);
                // Half of them where the driver looks next, of a length that may be, without errors.
                let next = self.device.peek(first + offset::HEAD) as u8;
                let index = if choice & 0x80 == 0 { next.wrapping_add(choice & 3) } else { choice };
                let length = if choice & 0x40 == 0 { length % 10_000 } else { length };
                let status = u32::from(status) | 1 | if choice & 0x20 == 0 { 0 } else { errors };
                self.write(first, index, [0, 0, status, u32::from(length)]);
            }
            3 => {
                let (at, value) = (usize::from(script.half()) << 2, script.word());
                // The rings' places stay, so that the nonsense lands in them.
                let ring = |first: usize| (first..first + 0x1000).contains(&at) && at % 0x40 < 0x0C;
                if !ring(M::receive_queue(0)) && !ring(M::transmit_queue(0)) {
                    self.device.set(at, value);
                }
            }
            4 => {
                let length = usize::from(script.half()) % 10_000;
                let mut frame = vec![script.byte(); length];
                let kind: &[u8] = if script.byte() & 1 == 0 { &[8, 0, 0x45] } else { &[0x86, 0xDD, 0x60] };
                if let Some(start) = frame.get_mut(12..15) {
                    start.copy_from_slice(kind);
                }
                self.device.inject(&frame);
            }
            5 => {
                self.device.run();
                while self.device.sent().is_some() {}
            }
            6 => {
                let (bits, length) = (script.byte(), script.half());
                self.device.with_model(|model| {
                    let faults = model.faults();
                    faults.reset_stuck = bits & 1 != 0;
                    faults.master_stuck = bits & 2 != 0;
                    faults.disable_stuck = bits & 4 != 0;
                    faults.hung_transmit = u128::from(bits >> 3 & 3);
                    faults.wrong_length = (bits & 0x20 != 0).then_some(length);
                });
            }
            7 => {
                self.device.set_link(script.byte() & 1 == 0);
                self.device.wait(LINK);
            }
            8 if script.byte() < 16 => {
                self.device.pull_out();
                self.gone = true;
            }
            // The driver's caller.
            8 | 9 => self.transmit(queue, script),
            10 => self.queue(queue, |queue, _| queue.flush()),
            11 => self.queue(queue, |queue, _| {
                queue.reclaim();
            }),
            12 | 13 => self.receive(queue),
            14 => self.queue(queue, |queue, pool| queue.refill(pool)),
            15 => {
                let causes = self.nic.handle_interrupt(script.byte().into());
                self.faults += u64::from(causes.fault.is_some());
            }
            16 => {
                let transmit = script.byte() & 1 == 0;
                self.queue(queue, |queue, _| {
                    queue.arm(transmit);
                });
            }
            17 => {
                self.nic.statistics();
                self.nic.link();
                self.nic.set_vlan_stripping(queue & 1 != 0);
            }
            18 => {
                self.now += u64::from(script.byte()) << 24;
                self.faults += u64::from(self.nic.watch(Instant(self.now), &mut |_| ()).is_some());
            }
            _ => {
                let time = self.device.clone();
                self.restarts += u64::from(self.nic.restart(&mut |delay| time.wait(delay)).is_ok());
            }
        }
    }

    fn queue(&mut self, index: usize, act: impl FnOnce(&mut dyn netdom::nic::NicQueue, &Pool)) {
        if let Some(queue) = self.nic.queue(index) {
            act(queue, &self.pool);
        }
    }

    /// Writes any words to a descriptor of the ring whose address is in the registers at `first`.
    fn scribble(&self, first: usize, script: &mut Script<'_>) {
        let (index, words) = (script.byte(), [script.word(), script.word(), script.word(), script.word()]);
        self.write(first, index, words);
    }

    fn write(&self, first: usize, index: u8, words: [u32; 4]) {
        let ring = u64::from(self.device.peek(first)) | u64::from(self.device.peek(first + 4)) << 32;
        if ring != 0 {
            self.device.write_descriptor(ring + 16 * u64::from(u16::from(index) % RING), words);
        }
    }

    fn transmit(&mut self, index: usize, script: &mut Script<'_>) {
        let (length, cut) = (usize::from(script.half()) % 9000, usize::from(script.half()) % PAGE_SIZE);
        let mut packet = Packet::default();
        let mut rest = length;
        while rest > 0 {
            let Some(buffer) = self.pool.take() else {
                return;
            };
            let now = rest.min(cut.max(500));
            if packet.fragments.push(Fragment { buffer, offset: 0, length: now as u16 }).is_err() {
                return;
            }
            rest -= now;
        }
        let choice = script.byte();
        let layout = (choice & 1 == 0).then(|| Layout {
            network: if choice & 2 == 0 { Network::V4 } else { Network::V6 },
            transport: if choice & 4 == 0 { Transport::Tcp } else { Transport::Udp },
            network_offset: u16::from(script.byte()),
            transport_offset: u16::from(script.byte()),
            payload_offset: script.half() & 0x1FF,
        });
        let kind = if choice & 2 == 0 { GsoKind::TcpV4 } else { GsoKind::TcpV6 };
        let gso = (choice & 8 == 0).then(|| Gso { kind, size: script.half() });
        let checksum = if choice & 16 == 0 { Checksum::Blank } else { Checksum::Unverified };
        packet.offload = Offload { checksum, gso };
        let Some(queue) = self.nic.queue(index) else {
            return;
        };
        match queue.transmit(packet, layout.as_ref()) {
            Ok(()) => self.sent += 1,
            Err(back) => {
                assert!(back.len() <= length);
                self.refused += 1;
            }
        }
    }

    fn receive(&mut self, index: usize) {
        let limit = self.nic.capabilities().max_frame;
        let Some(packet) = self.nic.queue(index).and_then(|queue| queue.receive()) else {
            return;
        };
        assert!((14..=limit).contains(&packet.len()), "a frame of {} bytes", packet.len());
        let within = |fragment: &Fragment| usize::from(fragment.offset) + usize::from(fragment.length) <= PAGE_SIZE;
        assert!(packet.fragments.iter().all(within), "a fragment leaves its page");
        assert!(packet.offload.gso.is_none());
        self.received += 1;
    }

    fn end(mut self) {
        self.nic.quiesce();
        self.nic.release(closed(self.device.dma().reach()));
        drop(self.nic);
        // An act of the device's own is no fault of the driver's.
        let _device = self.xen.take_violations();
        assert_eq!(self.pool.available(), self.pool.capacity(), "pages were lost");
    }
}
