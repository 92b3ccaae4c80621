//! The user of a NIC's driver, and what a hostile NIC does. Host.

use std::time::Duration;

use netdom::nic::{Interrupts, Nic as Driver, NicQueue, NicStatistics, Options, STANDARD_FRAME, models};
use netdom::offload::headers::{Layout, Network, Transport};
use netdom::packet::{Buffer, Checksum, Fragment, Gso, GsoKind, Offload, Packet, Pool};
use split_driver::fakes::FakePages;
use split_driver::fakes::device::Script;
use split_driver::memory::Quiesced;
use xen_pv_sys::PAGE_SIZE;

use super::loans::{is_idle, mark_idle};
use super::{Bed, Subject};
use crate::bus::Model;
use crate::e1000e::{self, E1000e};
use crate::fake::Device;
use crate::i2c;
use crate::igb::{self, Igb};
use crate::ixgbe::{self, Ixgbe};
use crate::ring::offset;

const ADDRESS: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
/// Pages for packets.
const PAGES: usize = 256;
/// Free pages that are watched while the device works: those that came back last.
const WATCHED: usize = 24;
/// How long a link takes at most.
const LINK: Duration = Duration::from_secs(1);
/// Up to there the magnitude of a counter is looked at.
const MOST_COUNTED: u64 = 15;
/// Looks in a row, at most.
const SOON: usize = 40;
/// Register accesses of a look at a module, at most.
const MODULE_ACCESSES: usize = 900;
/// Descriptors of a ring.
const RING: u16 = 64;

/// A NIC that can be hostile.
pub trait Card: Model + 'static {
    /// One of its kinds, just powered on.
    fn power_on(kind: u8) -> Self;
    /// The module in its cage, if it has one, is another from now on, or none.
    fn change_module(&mut self, _choice: u8) {}
    /// Where the registers of a receive queue begin: its ring's address is there.
    fn receive_queue(queue: usize) -> usize;
    /// The same of a transmit queue.
    fn transmit_queue(queue: usize) -> usize;
}

impl Card for Ixgbe {
    fn power_on(kind: u8) -> Self {
        let kinds = ixgbe::Kind::ALL;
        Self::new(kinds[usize::from(kind) % kinds.len()], ADDRESS)
    }

    fn change_module(&mut self, choice: u8) {
        if self.kind() != ixgbe::Kind::Sfp {
            return;
        }
        let fault = match choice & 7 {
            0 => return self.take_out(),
            1 => Some(i2c::Fault::Silent),
            2 => Some(i2c::Fault::Refusing),
            3 => Some(i2c::Fault::Stuck),
            4 => Some(i2c::Fault::Checksum),
            _ => None,
        };
        let kinds = i2c::Kind::ALL;
        let module = i2c::Module::new(kinds[usize::from(choice >> 3) % kinds.len()]);
        self.put_in(match fault {
            Some(fault) => module.with(fault),
            None => module,
        });
    }

    fn receive_queue(queue: usize) -> usize {
        ixgbe::registers::receive(queue)
    }

    fn transmit_queue(queue: usize) -> usize {
        ixgbe::registers::transmit(queue)
    }
}

impl Card for Igb {
    fn power_on(kind: u8) -> Self {
        let kinds = igb::Kind::ALL;
        Self::new(kinds[usize::from(kind) % kinds.len()], ADDRESS)
    }

    fn receive_queue(queue: usize) -> usize {
        igb::registers::receive(queue)
    }

    fn transmit_queue(queue: usize) -> usize {
        igb::registers::transmit(queue)
    }
}

impl Card for E1000e {
    fn power_on(_kind: u8) -> Self {
        Self::new(ADDRESS)
    }

    fn receive_queue(queue: usize) -> usize {
        e1000e::registers::receive(queue)
    }

    fn transmit_queue(queue: usize) -> usize {
        e1000e::registers::transmit(queue)
    }
}

/// A NIC's driver and its user.
pub struct Nics<M> {
    nic: Box<dyn Driver>,
    pool: Pool,
    queues: usize,
    gone: bool,
    received: u64,
    refused: u64,
    sent: u64,
    restarts: u64,
    faults: u64,
    card: std::marker::PhantomData<M>,
}

impl<M: Card> Subject for Nics<M> {
    type Model = M;

    const ACTS: u8 = 20;
    const ACCESSES: usize = 200;
    // A start, a restart, and what is waited for in them.
    const LONG_ACCESSES: usize = 6_000;
    const TIME: Duration = Duration::from_millis(2);
    const LONG_TIME: Duration = Duration::from_secs(2);
    // The rings of two queues, and the pages for packets.
    const REGIONS: usize = 5;

    fn power_on(choice: u8) -> M {
        M::power_on(choice >> 4)
    }

    fn start(bed: &mut Bed<M>, script: &mut Script<'_>) -> Option<Self> {
        let pool = Pool::new(Box::new(FakePages::new(&bed.xen, PAGES)));
        let choice = script.byte();
        let queues = usize::from(choice & 1) + 1;
        let options = Options {
            queues,
            max_frame: if choice & 2 == 0 { STANDARD_FRAME } else { 9018 },
            transmit_descriptors: RING,
            receive_descriptors: RING,
            seed: u64::from(choice),
            ..Options::default()
        };
        let interrupts = if choice & 4 == 0 { Interrupts::MsiX(queues + 2) } else { Interrupts::Single };
        if choice & 8 != 0 {
            bed.scribble(u32::from(script.byte()));
            bed.stray();
        }
        let id = bed.device.with_model(|model| model.configuration().identity().device);
        let model = models::Model::find(0x8086, id)?;
        let (device, time) = (bed.device.clone(), bed.device.clone());
        let start = || model.start(device, bed.device.dma(), interrupts, &pool, options, &mut |delay| time.wait(delay));
        let nic = bed.long_call(start, |_| true).ok()?;
        // As long as a link needs.
        bed.device.wait(LINK);
        bed.device.be_lazy();
        let card = std::marker::PhantomData;
        let queues = nic.queues();
        Some(Self { nic, pool, queues, gone: false, received: 0, refused: 0, sent: 0, restarts: 0, faults: 0, card })
    }

    fn act(&mut self, act: u8, bed: &mut Bed<M>, script: &mut Script<'_>) {
        let queue = usize::from(script.byte()) % self.queues;
        // The device may follow addresses and places that it wrote itself.
        if act < 4 {
            bed.stray();
        }
        match act {
            // The device.
            0 => scribble(bed, M::receive_queue(queue), script),
            1 => scribble(bed, M::transmit_queue(queue), script),
            2 => {
                let (choice, status, length) = (script.byte(), script.half(), script.half());
                let (first, errors) = (M::receive_queue(queue), u32::from(script.byte()) << 24);
                // Half of them where the driver looks next, of a length that may be, without errors.
                let next = bed.device.peek(first + offset::HEAD) as u8;
                let index = if choice & 0x80 == 0 { next.wrapping_add(choice & 3) } else { choice };
                let length = if choice & 0x40 == 0 { length % 10_000 } else { length };
                let status = u32::from(status) | 1 | if choice & 0x20 == 0 { 0 } else { errors };
                write(bed, first, index, [0, 0, status, u32::from(length)]);
            }
            3 => {
                let (at, value) = (usize::from(script.half()) << 2, script.word());
                // The rings' places stay, so that the nonsense lands in them.
                let ring = |first: usize| (first..first + 0x1000).contains(&at) && at % 0x40 < 0x0C;
                if !ring(M::receive_queue(0)) && !ring(M::transmit_queue(0)) {
                    bed.device.set(at, value);
                }
            }
            4 => {
                let length = usize::from(script.half()) % 10_000;
                let mut frame = vec![script.byte(); length];
                let kind: &[u8] = if script.byte() & 1 == 0 { &[8, 0, 0x45] } else { &[0x86, 0xDD, 0x60] };
                if let Some(start) = frame.get_mut(12..15) {
                    start.copy_from_slice(kind);
                }
                bed.device.inject(&frame);
            }
            5 => self.watch_free_pages(bed, |device| {
                device.run();
                while device.sent().is_some() {}
            }),
            6 => {
                let (bits, length) = (script.byte(), script.half());
                bed.device.with_model(|model| {
                    let faults = model.faults();
                    faults.reset_stuck = bits & 1 != 0;
                    faults.master_stuck = bits & 2 != 0;
                    faults.disable_stuck = bits & 4 != 0;
                    faults.hung_transmit = u128::from(bits >> 3 & 3);
                    faults.wrong_length = (bits & 0x20 != 0).then_some(length);
                });
            }
            7 => {
                let choice = script.byte();
                bed.device.set_link(choice & 1 == 0);
                if choice & 2 == 0 {
                    bed.device.with_model(|model| model.change_module(choice >> 2));
                    bed.now = bed.now + LINK;
                    self.watch(bed);
                }
                bed.device.wait(LINK);
            }
            8 if script.byte() < 16 => {
                bed.device.pull_out();
                self.gone = true;
            }
            // The driver's user.
            8 | 9 => self.transmit(bed, queue, script),
            10 => self.queue(bed, queue, |queue, _| queue.flush()),
            11 => self.queue(bed, queue, |queue, _| _ = queue.reclaim()),
            12 | 13 => self.receive(bed, queue),
            14 => self.queue(bed, queue, |queue, pool| queue.refill(pool)),
            15 => {
                let vector = script.byte().into();
                let causes = bed.call(|| self.nic.handle_interrupt(vector));
                self.faults += u64::from(causes.fault.is_some());
            }
            16 => {
                let transmit = script.byte() & 1 == 0;
                self.queue(bed, queue, |queue, _| _ = queue.arm(transmit));
            }
            17 => {
                bed.call(|| self.nic.statistics());
                bed.call(|| self.nic.link());
                bed.call(|| self.nic.set_vlan_stripping(queue & 1 != 0));
            }
            18 => {
                bed.now.0 += u64::from(script.byte()) << 24;
                self.watch(bed);
            }
            _ => self.restart(bed),
        }
        if let Some(room) = self.nic.queue(0).map(|queue| queue.room()) {
            assert!(room < usize::from(RING), "more room than descriptors");
        }
    }

    fn work(&mut self, bed: &mut Bed<M>) {
        for index in 0..self.queues {
            self.queue(bed, index, |queue, _| _ = queue.reclaim());
            for _ in 0..RING {
                self.receive(bed, index);
            }
            self.queue(bed, index, |queue, pool| {
                queue.refill(pool);
                queue.flush();
            });
        }
        self.watch(bed);
    }

    fn recover(&mut self, bed: &mut Bed<M>) {
        self.restart(bed);
        self.work(bed);
        self.watch_free_pages(bed, Device::run);
        self.work(bed);
    }

    fn stop(&mut self, bed: &mut Bed<M>) {
        bed.long_call(|| self.nic.quiesce(), |()| true);
    }

    fn remove(&mut self, bed: &mut Bed<M>, proof: Quiesced) {
        bed.call(|| self.nic.release(proof));
    }

    fn owed(&self) -> usize {
        self.pool.capacity() - self.pool.available()
    }

    fn tell(&mut self, bed: &mut Bed<M>) {
        let NicStatistics {
            receive_errors,
            receive_missed,
            receive_malformed,
            receive_oversize,
            receive_reset,
            transmit_errors,
            transmit_reset,
            pauses,
        } = self.nic.statistics();
        let received = [receive_errors, receive_missed, receive_malformed, receive_oversize, receive_reset];
        let counts = received.into_iter().chain([transmit_errors, transmit_reset, pauses]);
        let told = [self.gone.into(), self.received, self.refused, self.sent, self.restarts, self.faults];
        // The device's counters hold any number that is written to them: their magnitude is nothing new.
        bed.see_counts(told.into_iter().chain(counts.map(|count| count.min(MOST_COUNTED))));
    }
}

impl<M: Card> Nics<M> {
    fn queue(&mut self, bed: &Bed<M>, index: usize, act: impl FnOnce(&mut dyn NicQueue, &Pool)) {
        if let Some(queue) = self.nic.queue(index) {
            bed.call(|| act(queue, &self.pool));
        }
    }

    /// Looks once, and then as often as is asked for.
    fn watch(&mut self, bed: &mut Bed<M>) {
        self.look(bed);
        for _ in 0..SOON {
            let Some(at) = self.nic.next_look() else { break };
            bed.now = bed.now.max(at);
            self.look(bed);
        }
    }

    fn look(&mut self, bed: &Bed<M>) {
        let time = bed.device.clone();
        // Eight bytes of a module in the card's cage, by I2C.
        let id = bed.device.with_model(|model| model.configuration().identity().device);
        let most = if id == ixgbe::Kind::Sfp.identity().device { MODULE_ACCESSES } else { Self::ACCESSES };
        let fault = bed.look(most, || self.nic.watch(bed.now, &mut |delay| time.wait(delay)));
        self.faults += u64::from(fault.is_some());
    }

    fn restart(&mut self, bed: &Bed<M>) {
        let time = bed.device.clone();
        let restarted = bed.long_call(|| self.nic.restart(&mut |delay| time.wait(delay)), |_| true);
        self.restarts += u64::from(restarted.is_ok());
    }

    /// The device works, and leaves pages alone that came back.
    fn watch_free_pages(&self, bed: &Bed<M>, work: impl FnOnce(&Device<M>)) {
        let watched = if bed.is_frank() { WATCHED } else { 0 };
        let free: Vec<Buffer> = std::iter::from_fn(|| self.pool.take()).take(watched).collect();
        free.iter().for_each(|page| mark_idle(|at, bytes| page.write(at, bytes)));
        work(&bed.device);
        assert!(free.iter().all(|page| is_idle(|at, bytes| page.read(at, bytes))), "a page was written that is free");
    }

    fn transmit(&mut self, bed: &Bed<M>, index: usize, script: &mut Script<'_>) {
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
        match bed.call(|| queue.transmit(packet, layout.as_ref())) {
            Ok(()) => self.sent += 1,
            Err(back) => {
                assert!(back.len() <= length);
                self.refused += 1;
            }
        }
    }

    fn receive(&mut self, bed: &Bed<M>, index: usize) {
        let limit = self.nic.capabilities().max_frame;
        let Some(packet) = self.nic.queue(index).and_then(|queue| bed.call(|| queue.receive())) else {
            return;
        };
        assert!((14..=limit).contains(&packet.len()), "a frame of {} bytes", packet.len());
        let within = |fragment: &Fragment| usize::from(fragment.offset) + usize::from(fragment.length) <= PAGE_SIZE;
        assert!(packet.fragments.iter().all(within), "a fragment leaves its page");
        assert!(packet.offload.gso.is_none());
        self.received += 1;
    }
}

/// Writes any words to a descriptor of the ring whose address is in the registers at `first`.
fn scribble<M: Card>(bed: &Bed<M>, first: usize, script: &mut Script<'_>) {
    let (index, words) = (script.byte(), [script.word(), script.word(), script.word(), script.word()]);
    write(bed, first, index, words);
}

fn write<M: Card>(bed: &Bed<M>, first: usize, index: u8, words: [u32; 4]) {
    let ring = u64::from(bed.device.peek(first)) | u64::from(bed.device.peek(first + 4)) << 32;
    if ring != 0 {
        bed.device.write_descriptor(ring + 16 * u64::from(u16::from(index) % RING), words);
    }
}
