//! A small driver against the model on a fake bus: up, frames both ways, several queues, offences. Host.

use std::sync::atomic::Ordering;
use std::time::Duration;

use split_driver::fakes::FakeXen;
use split_driver::memory::{DmaAllocator, DmaMemory, Mmio, SharedMemory};

use super::registers::{self as reg, count};
use super::*;
use crate::advanced::{Errors, status};
use crate::fake::Device;
use crate::packet::tests::Recipe;
use crate::packet::{Headers, Transport};
use crate::queues::tests::{DESCRIPTORS, Queue};
use crate::ring::{ENABLE, offset};
use crate::toeplitz::tests::KEY;

const ADDRESS: Address = [0x00, 0x1B, 0x21, 0xAA, 0xBB, 0x01];

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
    device.write32(reg::RXPBSIZE, kind.packet_memory());
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
        self.receive[queue].next(&self.device)
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
    assert_eq!((driver.device.read32(count::QPRC), driver.device.read32(count::QPRC)), (3 * DESCRIPTORS, 0));
    assert_ne!(driver.device.read32(driver.receive[0].first + offset::TAIL), 0, "beside counters, and not cleared");
    assert_ne!(driver.device.read32(driver.receive[0].first + offset::LENGTH), 0);
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

/// `packet` over pieces of `cut` bytes behind a context, with options for the first data descriptor.
fn send_offloaded(driver: &Driver, packet: &[u8], cut: usize, context: [u32; 4], command: u32, options: u32) {
    let transmit = &driver.transmit[0];
    let start = transmit.tail.get();
    transmit.put(start, context);
    let pieces = packet.chunks(cut).count() as u32;
    for (number, piece) in (1..).zip(packet.chunks(cut)) {
        let index = (start + number) % DESCRIPTORS;
        transmit.write(index, piece);
        let [low, high] = transmit.page(index);
        let last = if number == pieces { 0x0900_0000 } else { 0 };
        // Options stand in the first descriptor alone.
        let options = if number == 1 { options } else { options & !0x3FFF };
        transmit.put(index, [low, high, 0x2230_0000 | command | last | piece.len() as u32, options]);
    }
    driver.advance(0, 1 + pieces);
}

fn context(recipe: Recipe, vlan: u16, size: u32) -> [u32; 4] {
    let kind = u32::from(!recipe.v6) << 10 | u32::from(recipe.tcp) << 11;
    [
        (u32::from(vlan) << 16) | (14 << 9) | recipe.ip() as u32,
        0,
        0x2020_0000 | kind,
        (size << 16) | ((recipe.transport() as u32) << 8),
    ]
}

#[test]
fn offloads_work_over_several_descriptors() {
    let driver = start(1);
    for round in 0..2 * DESCRIPTORS as usize {
        for v6 in [false, true] {
            let recipe = Recipe { v6, payload: 4000 + round, pseudo: Some(0), ..Recipe::default() };
            let packet = recipe.frame([2, 0, 0, 0, 0, 7]);
            let options = (recipe.payload as u32) << 14 | if v6 { 0x200 } else { 0x300 };
            send_offloaded(&driver, &packet, 1499, context(recipe, 9, 1400), 0xC000_0000, options);
            for _ in 0..3 {
                let frame = driver.device.sent().expect("a segment");
                let headers = Headers::parse(&frame, 0x8100);
                assert_eq!((headers.vlan, headers.transport), (Some(9), Some(Transport::Tcp(true))));
            }
            assert_eq!(driver.device.sent(), None);
        }
    }
    assert_eq!(driver.device.with_model(|model| model.contexts_seen()), 4 * DESCRIPTORS as usize);
    let recipe = Recipe { tcp: false, pseudo: Some(108), ..Recipe::default() };
    let packet = recipe.frame([2, 0, 0, 0, 0, 7]);
    send_offloaded(&driver, &packet, 60, context(recipe, 0, 0), 0, (packet.len() as u32) << 14 | 0x300);
    let sent = driver.device.sent().expect("a frame");
    assert_eq!(Headers::parse(&sent, 0x8100).transport, Some(Transport::Udp(Some(true))));
    driver.finish();
}

#[test]
fn the_head_is_written_back_where_that_is_asked_for() {
    let driver = start(1);
    let page = driver.device.dma().allocate(4096).expect("a page");
    let [low, high] = page.device_address(64).halves();
    driver.device.write32(driver.transmit[0].first + offset::HEAD_WRITE_BACK, low | 1);
    driver.device.write32(driver.transmit[0].first + offset::HEAD_WRITE_BACK + 4, high);
    driver.send(0, &frame(60, 1));
    driver.send(0, &frame(60, 1));
    assert_eq!(page.words()[16].load(Ordering::Relaxed), 2);
    assert_eq!(driver.transmit[0].get(1)[3] & 1, 0, "not in the descriptor");
    driver.finish();
}

fn with_rss(device: &Device<Ixgbe>) {
    device.write32(reg::RXCSUM, reg::RXCSUM_PCSD);
    for (index, word) in KEY.as_chunks::<4>().0.iter().enumerate() {
        // By the older address of the key.
        device.write32(0x5C80 + 4 * index, u32::from_le_bytes(*word));
    }
    for index in 0..32 {
        device.write32(reg::RETA + 4 * index, 0x0302_0100);
    }
    device.write32(reg::MRQC, 1 | 1 << 16 | 1 << 17 | 1 << 20 | 1 << 21);
}

#[test]
fn flows_spread_over_queues() {
    let driver = start_as(Kind::X540, 4, with_rss);
    driver.device.messages();
    // The first of Microsoft's vectors, with and without ports.
    let tcp = Recipe::default();
    for (recipe, hash, kind) in [(tcp, 0x51CC_C178_u32, 0x111), (Recipe { tcp: false, ..tcp }, 0x323E_8FC2, 0x212)] {
        let sent = recipe.frame(ADDRESS);
        assert!(driver.device.inject(&sent));
        let queue = hash as usize & 3;
        let (got, words) = driver.next(queue).expect("in the queue of its hash");
        assert_eq!((got, words[0], words[1]), (sent, kind, hash));
        assert_eq!(driver.device.messages(), [queue as u16]);
        driver.device.write32(reg::EIMS, 0xFFFF);
    }
    for source in 0..64 {
        assert!(driver.device.inject(&Recipe { source: [10, 0, 0, source], ..tcp }.frame(ADDRESS)));
    }
    let spread: Vec<_> = (0..4).map(|queue| std::iter::from_fn(|| driver.next(queue)).count()).collect();
    assert_eq!(spread.iter().sum::<usize>(), 64);
    assert!(spread.iter().all(|count| *count > 4), "{spread:?}");
    // What is no IP goes to queue 0, without a hash.
    assert!(driver.device.inject(&frame(60, 0)));
    let (_, words) = driver.next(0).expect("a frame");
    assert_eq!(words[..2], [0, 0]);
    driver.finish();
}

#[test]
fn checksums_are_told() {
    let driver = start(1);
    let good = Recipe::default().frame(ADDRESS);
    let mut bad = good.clone();
    bad[14 + 20 + 16] ^= 1;
    let mut header = Recipe { tcp: false, ..Recipe::default() }.frame(ADDRESS);
    header[14 + 8] ^= 1;
    let plain = frame(60, 1);
    let seen: Vec<_> = [&good, &bad, &header, &plain]
        .map(|frame| {
            assert!(driver.device.inject(frame));
            driver.next(0).expect("a frame").1[2] & !3
        })
        .into();
    let (l4, ip) = (status::L4CS, status::IPCS);
    assert_eq!(
        seen,
        [l4 | ip, l4 | ip | Errors::I82599.transport, l4 | ip | Errors::I82599.network | status::UDPCS, 0]
    );
    driver.finish();
}

#[test]
fn tags_are_stripped_where_the_queue_says() {
    let driver = start(1);
    let tagged = Recipe { vlan: Some(0x2005), ..Recipe::default() }.frame(ADDRESS);
    let plain = Recipe::default().frame(ADDRESS);
    assert!(driver.device.inject(&tagged));
    let (got, words) = driver.next(0).expect("a frame");
    assert_eq!((got, words[2] & status::VP), (tagged.clone(), 0));
    driver.device.write32(driver.receive[0].first + offset::CONTROL, ENABLE | reg::RXDCTL_VME);
    assert!(driver.device.inject(&tagged));
    let (got, words) = driver.next(0).expect("a frame");
    assert_eq!((got, words[2] & status::VP, words[3] >> 16), (plain, status::VP, 0x2005));
    // The filter of VLANs.
    driver.device.write32(reg::VLNCTRL, 0x8100 | reg::VLNCTRL_VFE);
    assert!(!driver.device.inject(&tagged));
    driver.device.write32(reg::VFTA, 1 << 5);
    assert!(driver.device.inject(&tagged));
    driver.finish();
}

#[test]
fn long_frames_need_jumbo_and_several_descriptors() {
    let driver = start(1);
    assert!(driver.device.inject(&frame(1514, 1)));
    assert!(!driver.device.inject(&frame(1515, 1)));
    assert_eq!(driver.device.read32(count::ROC), 1);
    let tagged = [&frame(12, 1)[..12], &[0x81, 0, 0, 1], &frame(1514, 1)[12..]].concat();
    assert!(driver.device.inject(&tagged), "a tag does not count");
    assert_eq!(driver.next(0).map(|(frame, _)| frame.len()), Some(1514));
    assert_eq!(driver.next(0).map(|(frame, _)| frame.len()), Some(1518));
    let hlreg0 = driver.device.read32(reg::HLREG0);
    driver.device.write32(reg::HLREG0, hlreg0 | reg::HLREG0_JUMBOEN);
    driver.device.write32(reg::MAXFRS, 9018 << 16);
    for _ in 0..DESCRIPTORS {
        let sent = frame(9014, 3);
        assert!(driver.device.inject(&sent));
        assert_eq!(driver.next(0).map(|(frame, _)| frame == sent), Some(true));
    }
    assert!(!driver.device.inject(&frame(9015, 1)));
    driver.finish();
}

#[test]
fn frames_wait_for_descriptors_or_are_dropped() {
    let driver = start(1);
    for number in 0..DESCRIPTORS + 10 {
        assert!(driver.device.inject(&frame(60, number as u8)));
    }
    for number in 0..DESCRIPTORS + 10 {
        assert_eq!(driver.next(0).map(|(frame, _)| frame[11]), Some(number as u8));
    }
    assert_eq!(driver.device.read32(count::QPRDC), 0);
    driver.device.write32(reg::receive(0) + reg::SRRCTL, 2 | 1 << 25 | reg::SRRCTL_DROP);
    for _ in 0..DESCRIPTORS + 10 {
        assert!(driver.device.inject(&frame(60, 0)));
    }
    assert_eq!(std::iter::from_fn(|| driver.next(0)).count() as u32, DESCRIPTORS - 1);
    assert_eq!(driver.device.read32(count::QPRDC), 11);
    // Without either, packet memory fills.
    driver.device.write32(reg::receive(0) + reg::SRRCTL, 2 | 1 << 25);
    while driver.device.inject(&frame(1500, 0)) {}
    assert_eq!(driver.device.read32(count::MPC), 1);
    assert_ne!(driver.device.peek(reg::EICR) & cause::RX_MISS, 0);
    driver.finish();
}

#[test]
fn filters_of_addresses() {
    let driver = start(1);
    let to = |address: [u8; 6]| [&address[..], &frame(60, 0)[6..]].concat();
    assert!(driver.device.inject(&to(ADDRESS)));
    assert!(driver.device.inject(&to([0xFF; 6])));
    let (other, group) = ([2, 0, 0, 0, 0, 1], [1, 0, 0x5E, 0, 0, 1]);
    assert!(!driver.device.inject(&to(other)));
    assert!(!driver.device.inject(&to(group)));
    driver.device.write32(reg::RAL + 8, u32::from_le_bytes([2, 0, 0, 0]));
    driver.device.write32(reg::RAL + 12, 0x0100 | reg::RAH_AV);
    assert!(driver.device.inject(&to(other)));
    // Bits 47 to 36 of the address: 0x010.
    driver.device.write32(reg::MTA, 1 << 16);
    assert!(!driver.device.inject(&to(group)), "the table is off");
    driver.device.write32(reg::MCSTCTRL, reg::MCSTCTRL_MFE);
    assert!(driver.device.inject(&to(group)));
    driver.device.write32(reg::FCTRL, reg::FCTRL_UPE | reg::FCTRL_MPE);
    assert!(driver.device.inject(&to([2, 9, 9, 9, 9, 9])));
    assert!(driver.device.inject(&to([3, 9, 9, 9, 9, 9])));
    assert!(!driver.device.inject(&to([0xFF; 6])), "broadcast is off");
    driver.finish();
}

#[test]
fn a_reset_clears_and_offences_are_told() {
    let driver = start(1);
    driver.send(0, &frame(60, 0));
    let device = &driver.device;
    device.write32(reg::CTRL, reg::CTRL_RST);
    device.read32(reg::EIMS);
    device.wait(Duration::from_millis(10));
    assert_eq!(device.read32(reg::RXCTRL) | device.read32(reg::DMATXCTL) & 1 | device.read32(count::GPTC), 0);
    assert_eq!(device.read32(driver.transmit[0].first + offset::CONTROL) & ENABLE, 0);
    assert_eq!(device.read32(reg::RAL).to_le_bytes(), ADDRESS[..4]);
    assert_eq!(device.misuse(), ["register 0x880 was touched within 1 ms of a reset"]);
    let offends = |act: &dyn Fn(), told: &str| {
        act();
        let misuse = device.misuse();
        assert_eq!(misuse.last().map(String::as_str), Some(told), "{misuse:?}");
    };
    let tx = reg::transmit(1);
    offends(&|| device.write32(tx + offset::CONTROL, ENABLE), "a transmit queue was enabled before DMATXCTL.TE");
    assert!(device.misuse().contains(&"a ring without descriptors was enabled".to_owned()));
    offends(&|| device.write32(tx + offset::BASE, 0x1000), "a ring was moved while its queue is enabled");
    offends(&|| device.write32(tx + offset::TAIL, 9), "a tail of 9 in a ring of 0");
    offends(&|| device.write32(reg::RXCTRL, 1), "RXCTRL.RXEN was set while SECRXCTRL.RX_DIS was clear");
    let rx = reg::receive(70);
    device.write32(rx + offset::LENGTH, 1000);
    device.write32(rx + offset::BASE, 0x1001);
    device.write32(rx + reg::SRRCTL, 2);
    offends(&|| device.write32(rx + offset::CONTROL, ENABLE), "a receive queue with legacy descriptors");
    assert!(device.misuse().contains(&"a ring's length is no multiple of 128 bytes".to_owned()));
    device.write32(rx + offset::CONTROL, 0);
    device.write32(rx + offset::LENGTH, 1024);
    device.write32(rx + reg::SRRCTL, 2 | 1 << 25);
    offends(&|| device.write32(rx + offset::CONTROL, ENABLE), "a ring's base is not aligned to 128 bytes");
    device.set_bus_master(false);
    device.write32(reg::DMATXCTL, 1);
    offends(
        &|| device.write32(reg::transmit(2) + offset::CONTROL, ENABLE),
        "a queue was enabled while bus mastering is off",
    );
    offends(&|| device.write32(0x2_0000, 0), "a write beyond the registers, at 0x20000");
}

#[test]
fn bad_descriptors_cost_themselves() {
    let driver = start(1);
    let transmit = &driver.transmit[0];
    let [low, high] = transmit.page(0);
    let put = |words: [u32; 4], told: &str| {
        transmit.put(transmit.tail.get(), words);
        driver.advance(0, 1);
        let misuse = driver.device.misuse();
        assert_eq!(misuse.last().map(String::as_str), Some(told), "{misuse:?}");
    };
    put([low, high, 0x0B00_0040, 0], "a legacy transmit descriptor");
    put([0, 0, 0x2050_0000, 0], "a transmit descriptor of reserved type 5");
    put([0, 0, 0x2020_0000, 0x50], "a context with an index above 1");
    put([low, high, 0x2B30_0000, 0], "a data descriptor without data");
    put([low, high, 0x2B30_0040, 0x40 << 14 | 1], "a transmit descriptor was posted as done");
    put([low, high, 0x2B30_0040, 0x41 << 14], "PAYLEN is not the packet's length");
    put([low, high, 0x2930_0040, 0x40 << 14], "a packet without IFCS");
    put([low, high, 0x2B30_0040, 0x40 << 14 | 0x200], "an offload without a context");
    put([low, high, 0x2B30_4000, 0x4000 << 14], "a packet longer than 15872 bytes that is not segmented");
    put([0x1000, 0, 0x2B30_0040, 0x40 << 14], "a packet lies where the device may not read");
    assert!(!driver.xen.take_violations().is_empty());
    for index in 0..50 {
        let [low, high] = transmit.page(index);
        transmit.put((transmit.tail.get() + index) % DESCRIPTORS, [low, high, 0x2230_0040, 0]);
    }
    driver.advance(0, 50);
    assert_eq!(
        driver.device.misuse().last().map(String::as_str),
        Some("a packet in more than 40 descriptors, or without an end")
    );
    while driver.device.sent().is_some() {}
    // A queue goes on after all this.
    transmit.put(transmit.tail.get(), [low, high, 0x2B30_0040, 0x40 << 14]);
    driver.advance(0, 1);
    driver.send(0, &frame(61, 5));
    assert_eq!(driver.device.sent().map(|frame| frame.len()), Some(61));
}

#[test]
fn it_misbehaves_when_told() {
    let driver = start(1);
    driver.device.hang(0);
    driver.send(0, &frame(60, 0));
    assert_eq!(driver.device.sent(), None);
    driver.device.with_model(|model| model.faults().hung_transmit = 0);
    assert!(driver.device.sent().is_some());
    driver.device.with_model(|model| model.faults().wrong_length = Some(3000));
    assert!(driver.device.inject(&frame(60, 0)));
    assert_eq!(driver.receive[0].get(0)[3] & 0xFFFF, 3000);
    let [low, high] = driver.receive[0].ring.device_address(16).halves();
    assert_eq!(driver.device.descriptor(reg::receive(0), 1), u64::from(low) | u64::from(high) << 32);
    driver.device.stay_busy();
    driver.device.write32(reg::CTRL, reg::CTRL_MASTER_DISABLE);
    assert_ne!(driver.device.read32(reg::STATUS) & reg::STATUS_MASTER, 0);
    driver.device.get_stuck();
    driver.device.write32(reg::CTRL, reg::CTRL_RST);
    driver.device.wait(Duration::from_secs(10));
    assert_ne!(driver.device.read32(reg::CTRL) & reg::CTRL_RST, 0);
    driver.device.pull_out();
    assert_eq!(driver.device.read32(reg::STATUS), u32::MAX);
    driver.device.write32(reg::CTRL, 0);
    assert!(!driver.device.inject(&frame(60, 0)));
    driver.finish();
}

#[test]
fn the_eeprom_is_read_and_semaphores_are_taken() {
    for kind in Kind::ALL {
        let device = Device::new(&FakeXen::new(), Ixgbe::new(kind, ADDRESS));
        let mut sum = 0u16;
        for address in 0..0x40 {
            device.write32(reg::EERD, address << 2 | 1);
            let value = device.read32(reg::EERD);
            assert_ne!(value & 2, 0);
            sum = sum.wrapping_add((value >> 16) as u16);
        }
        assert_eq!(sum, 0xBABA);
        assert_eq!((device.read32(reg::SWSM) & 1, device.read32(reg::SWSM) & 1), (0, 1));
        // The wires of the EEPROM are granted where they are asked for.
        device.write32(reg::EEC, 1 << 6);
        assert_eq!(device.read32(reg::EEC) & 0x3C0, 0x3C0);
        device.write32(reg::EEC, 0);
        assert_eq!(device.read32(reg::EEC) & 0x3C0, 0x300);
        device.write32(reg::SWSM, 0);
        assert_eq!(device.read32(reg::SWSM) & 1, 0);
        device.with_model(|model| model.faults().eeprom_stuck = true);
        device.write32(reg::EERD, 1);
        assert_eq!(device.read32(reg::EERD) & 2, 0);
    }
}
