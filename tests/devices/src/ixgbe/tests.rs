//! A small driver against the model on a fake bus: up, frames both ways, several queues, offences. Host.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::time::Duration;

use split_driver::fakes::{FakeDmaMemory, FakeXen};
use split_driver::memory::{DmaAllocator, DmaMemory, Mmio, SharedMemory};

use super::registers::{self as reg, count};
use super::*;
use crate::fake::Device;
use crate::ring::{ENABLE, offset};

const ADDRESS: Address = [0x00, 0x1B, 0x21, 0xAA, 0xBB, 0x01];
const DESCRIPTORS: u32 = 64;

/// A ring and a page for each of its descriptors.
struct Queue {
    first: usize,
    ring: FakeDmaMemory,
    pages: FakeDmaMemory,
    tail: Cell<u32>,
    seen: Cell<u32>,
}

impl Queue {
    fn new(device: &Device<Ixgbe>, first: usize) -> Self {
        let dma = device.dma();
        let ring = dma.allocate(16 * DESCRIPTORS as usize).expect("a ring");
        let pages = dma.allocate(4096 * DESCRIPTORS as usize).expect("pages");
        let [low, high] = ring.device_address(0).halves();
        device.write32(first + offset::BASE, low);
        device.write32(first + offset::BASE + 4, high);
        device.write32(first + offset::LENGTH, 16 * DESCRIPTORS);
        device.write32(first + offset::HEAD, 0);
        device.write32(first + offset::TAIL, 0);
        Self { first, ring, pages, tail: Cell::new(0), seen: Cell::new(0) }
    }

    fn put(&self, index: u32, words: [u32; 4]) {
        for (place, word) in self.ring.words().iter().skip(index as usize * 4).zip(words) {
            place.store(word, Ordering::Relaxed);
        }
    }

    fn get(&self, index: u32) -> [u32; 4] {
        let mut words = self.ring.words().iter().skip(index as usize * 4).map(|word| word.load(Ordering::Relaxed));
        std::array::from_fn(|_| words.next().expect("a word"))
    }

    fn page(&self, index: u32) -> [u32; 2] {
        self.pages.device_address(index as usize * 4096).halves()
    }

    fn read(&self, index: u32, length: usize) -> Vec<u8> {
        let words = self.pages.words().iter().skip(index as usize * 1024);
        words
            .take(length.div_ceil(4))
            .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
            .take(length)
            .collect()
    }

    fn write(&self, index: u32, bytes: &[u8]) {
        let words = self.pages.words().iter().skip(index as usize * 1024);
        for (word, chunk) in words.zip(bytes.chunks(4)) {
            let mut padded = [0; 4];
            padded[..chunk.len()].copy_from_slice(chunk);
            word.store(u32::from_le_bytes(padded), Ordering::Relaxed);
        }
    }
}

struct Driver {
    xen: FakeXen,
    device: Device<Ixgbe>,
    receive: Vec<Queue>,
    transmit: Vec<Queue>,
}

fn start(queues: usize) -> Driver {
    start_as(Kind::Sfp, queues, |_| ())
}

/// Brings the device up as 4.6 of the datasheet says; `adjust` acts before queues are enabled.
fn start_as(kind: Kind, queues: usize, adjust: impl FnOnce(&Device<Ixgbe>)) -> Driver {
    let xen = FakeXen::new();
    let device = Device::new(&xen, Ixgbe::new(kind, ADDRESS));
    device.write32(reg::EIMC, u32::MAX);
    device.write32(reg::CTRL, reg::CTRL_MASTER_DISABLE);
    assert_eq!(device.read32(reg::STATUS) & reg::STATUS_MASTER, 0);
    device.write32(reg::CTRL, reg::CTRL_RST);
    assert_ne!(device.read32(reg::CTRL) & reg::CTRL_RST, 0);
    device.wait(Duration::from_millis(10));
    assert_eq!(device.read32(reg::CTRL) & reg::CTRL_RST, 0);
    device.write32(reg::EIMC, u32::MAX);
    assert_ne!(device.read32(reg::EEC) & reg::EEC_AUTO_READ, 0);
    assert_ne!(device.read32(reg::RDRXCTL) & reg::RDRXCTL_DMAIDONE, 0);
    device.write32(reg::FCTRL, reg::FCTRL_BAM);
    device.write32(reg::GPIE, reg::GPIE_MSIX | reg::GPIE_EIAME | 1 << 31);
    device.write32(reg::EIAC, 0xFFFF);
    device.write32(reg::EIAM, 0xFFFF);
    for queue in 0..queues {
        let entry = ((0x80 | queue as u32) * 0x0101) << (16 * (queue & 1));
        let at = reg::IVAR + queue / 2 * 4;
        device.write32(at, device.read32(at) | entry);
    }
    device.write32(reg::IVAR_MISC, (0x80 | 63) << 8);
    adjust(&device);
    device.write32(reg::SECRXCTRL, reg::SECRXCTRL_RX_DIS);
    assert_eq!(device.read32(reg::SECRXSTAT) & 1, 1);
    device.write32(reg::RXCTRL, reg::RXCTRL_RXEN);
    device.write32(reg::SECRXCTRL, 0);
    let mut driver = Driver { xen, device, receive: Vec::new(), transmit: Vec::new() };
    let device = &driver.device;
    for queue in 0..queues {
        let receive = Queue::new(device, reg::receive(queue));
        device.write32(reg::receive(queue) + reg::SRRCTL, 2 | 1 << 25);
        for index in 0..DESCRIPTORS {
            let [low, high] = receive.page(index);
            receive.put(index, [low, high, 0, 0]);
        }
        let control = device.read32(receive.first + offset::CONTROL);
        device.write32(receive.first + offset::CONTROL, control | ENABLE);
        assert_ne!(device.read32(receive.first + offset::CONTROL) & ENABLE, 0);
        device.write32(receive.first + offset::TAIL, DESCRIPTORS - 1);
        driver.receive.push(receive);
    }
    device.write32(reg::DMATXCTL, device.read32(reg::DMATXCTL) | reg::DMATXCTL_TE);
    for queue in 0..queues {
        let transmit = Queue::new(device, reg::transmit(queue));
        device.write32(transmit.first + offset::CONTROL, ENABLE);
        assert_ne!(device.read32(transmit.first + offset::CONTROL) & ENABLE, 0);
        driver.transmit.push(transmit);
    }
    device.write32(reg::EIMS_EX, u32::MAX);
    device.write32(reg::EIMS_EX + 4, u32::MAX);
    device.write32(reg::EIMS, cause::LSC | cause::ECC);
    driver
}

impl Driver {
    /// Queues `frame` in one descriptor.
    fn send(&self, queue: usize, frame: &[u8]) {
        let transmit = &self.transmit[queue];
        let index = transmit.tail.get();
        transmit.write(index, frame);
        let [low, high] = transmit.page(index);
        let length = frame.len() as u32;
        transmit.put(index, [low, high, 0x2B30_0000 | length, length << 14]);
        self.advance(queue, 1);
    }

    fn advance(&self, queue: usize, by: u32) {
        let transmit = &self.transmit[queue];
        transmit.tail.set((transmit.tail.get() + by) % DESCRIPTORS);
        self.device.write32(transmit.first + offset::TAIL, transmit.tail.get());
    }

    /// The next frame of a queue, with the write-back of its last descriptor.
    fn next(&self, queue: usize) -> Option<(Vec<u8>, [u32; 4])> {
        let receive = &self.receive[queue];
        let mut frame = Vec::new();
        loop {
            let index = receive.seen.get();
            let words = receive.get(index);
            if words[2] & 1 == 0 {
                assert!(frame.is_empty(), "a frame without an end");
                return None;
            }
            frame.extend(receive.read(index, words[3] as usize & 0xFFFF));
            let [low, high] = receive.page(index);
            receive.put(index, [low, high, 0, 0]);
            receive.seen.set((index + 1) % DESCRIPTORS);
            self.device.write32(receive.first + offset::TAIL, index);
            if words[2] & 2 != 0 {
                return Some((frame, words));
            }
        }
    }

    fn finish(self) {
        assert_eq!(self.device.misuse(), Vec::<String>::new());
        assert_eq!(self.xen.take_violations(), []);
    }
}

fn frame(length: usize, seed: u8) -> Vec<u8> {
    let mut frame = ADDRESS.to_vec();
    frame.extend([2, 0, 0, 0, 0, seed, 0x88, 0xB5]);
    frame.extend((0..length.saturating_sub(14)).map(|index| index as u8 ^ seed));
    frame
}

#[test]
fn frames_go_both_ways() {
    let driver = start(1);
    for round in 0..3 * DESCRIPTORS {
        let sent = frame(60 + 7 * round as usize % 1400, round as u8);
        driver.send(0, &sent);
        assert_eq!(driver.device.sent(), Some(sent.clone()));
        assert!(driver.device.inject(&sent));
        let (got, words) = driver.next(0).expect("a frame");
        assert_eq!(got, sent);
        assert_eq!(words[2], 3, "done, and the end");
    }
    assert_eq!(driver.device.read32(count::GPTC), 3 * DESCRIPTORS);
    assert_eq!(driver.device.read32(count::GPTC), 0, "cleared by reading");
    assert_eq!(driver.device.read32(count::GPRC), 3 * DESCRIPTORS);
    assert_eq!(driver.device.read32(count::QPRC), 3 * DESCRIPTORS);
    assert_eq!(driver.device.read32(driver.transmit[0].first + offset::HEAD), 0, "the head went around");
    driver.finish();
}

#[test]
fn interrupts_name_their_vector() {
    let driver = start(4);
    driver.device.messages();
    driver.send(2, &frame(60, 1));
    assert_eq!(driver.device.messages(), [2]);
    driver.send(2, &frame(60, 1));
    assert!(driver.device.messages().is_empty(), "the vector masked itself");
    driver.device.write32(reg::EIMS, 1 << 2);
    assert_eq!(driver.device.messages(), [2]);
    assert!(driver.device.inject(&frame(60, 1)));
    assert_eq!(driver.device.messages(), [0]);
    driver.device.set_link(false);
    assert_eq!(driver.device.messages(), [63]);
    assert_eq!(driver.device.read32(reg::EICR) & cause::LSC, cause::LSC);
    assert_eq!(driver.device.read32(reg::LINKS) & reg::LINKS_UP, 0);
    assert!(!driver.device.inject(&frame(60, 1)));
    driver.device.set_link(true);
    assert_eq!(driver.device.read32(reg::LINKS) & reg::LINKS_UP, reg::LINKS_UP);
    driver.device.with_model(|model| model.raise(cause::ECC));
    assert_eq!(driver.device.messages(), [63, 63]);
    driver.finish();
}
