//! A driver on a model, and packets for it. Host.

pub(crate) mod cases;
mod lives;
mod receive;
mod transmit;
mod waiting;

use devices::bus::Model;
use devices::fake::Device;
use netdom::nic::ledger::{Ledger, Ledgers};
use netdom::nic::{Error, Fault, Interrupts, Nic, Options, models};
use netdom::offload::headers::{Layout, Network, Transport};
use netdom::packet::{Checksum, Fragment, Gso, GsoKind, Offload, Packet, Pool};
use split_driver::fakes::{FakePages, FakeXen};
use split_driver::time::Instant;
use xen_pv_sys::PAGE_SIZE;

/// Where the host has the device.
const HOST: &str = "0000:03:00.0";

pub(crate) struct Bench<M: Model + 'static> {
    pub(crate) nic: Box<dyn Nic>,
    pub(crate) device: Device<M>,
    pub(crate) xen: FakeXen,
    pub(crate) pool: Pool,
    pub(crate) ledgers: Ledgers,
}

impl<M: Model + 'static> Bench<M> {
    pub(crate) fn start(
        hardware: M,
        change: impl FnOnce(&Device<M>),
        model: models::Model,
        interrupts: Interrupts,
        options: Options,
    ) -> Result<Self, Error> {
        let xen = FakeXen::new();
        let pool = Pool::new(Box::new(FakePages::new(&xen, 1024)));
        let device = Device::new(&xen, hardware);
        change(&device);
        let time = device.clone();
        let (dma, ledgers) = (device.dma(), Ledgers::default());
        let options = Options { ledger: ledgers.of(HOST), ..options };
        let nic = model.start(device.clone(), dma, interrupts, &pool, options, &mut |delay| time.wait(delay))?;
        Ok(Self { nic, device, xen, pool, ledgers })
    }

    /// The life ends without a word, and the next one takes the device over.
    pub(crate) fn next_life(self, model: models::Model, interrupts: Interrupts, options: Options) -> Self {
        let Self { nic, device, xen, ledgers, .. } = self;
        core::mem::forget(nic);
        Self::take_over(device, xen, &written(&ledgers), model, interrupts, options)
    }

    /// Takes over a device of a life that wrote `left`, as [`netdom`]'s image does.
    pub(crate) fn take_over(
        device: Device<M>,
        xen: FakeXen,
        left: &[u8],
        model: models::Model,
        interrupts: Interrupts,
        options: Options,
    ) -> Self {
        let ledgers = Ledgers::parse(Some(left));
        let options = Options { ledger: ledgers.of(HOST), taken_over: true, ..options };
        reset(&device, model, &options.ledger);
        let pool = Pool::new(Box::new(FakePages::new(&xen, 1024)));
        let (time, dma) = (device.clone(), device.dma());
        let nic = model.start(device.clone(), dma, interrupts, &pool, options, &mut |delay| time.wait(delay));
        Self { nic: nic.expect("it starts anew"), device, xen, pool, ledgers }
    }

    /// Looks at the device, as is done once a second.
    pub(crate) fn watch(&mut self, now: Instant) -> Option<Fault> {
        let time = self.device.clone();
        self.nic.watch(now, &mut |delay| time.wait(delay))
    }

    /// Every test ends so: nothing was done against the datasheet, and all pages are back when the device is stopped.
    pub(crate) fn finish(mut self) {
        self.nic.quiesce();
        assert_eq!(self.device.misuse(), Vec::<String>::new());
        assert_eq!(self.xen.take_violations(), [], "accesses beyond what was given");
        assert_eq!(self.pool.available(), self.pool.capacity());
    }
}

/// What the next life will know.
pub(crate) fn written(ledgers: &Ledgers) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert!(ledgers.write(&mut |piece| bytes.extend_from_slice(piece)));
    bytes
}

/// What the next life does to a device before that reaches memory again.
pub(crate) fn reset<M: Model + 'static>(device: &Device<M>, model: models::Model, ledger: &Ledger) {
    device.set_bus_master(false);
    let delay = &mut |delay| device.wait(delay);
    model.settle(device, ledger, delay);
    for _ in 0..model.resets() {
        device.wait(model.begin_reset(device, ledger, delay));
        model.release_phy(device, ledger, delay);
        assert!(models::Model::is_reset(device), "its reset does not end");
    }
    device.set_bus_master(true);
}

pub(crate) fn bytes(length: usize, seed: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..length).map(|index| ((index * 31 + seed * 7) ^ (index >> 8)) as u8).collect();
    // Of a type that is none: no IP.
    if let Some(kind) = bytes.get_mut(12..14) {
        kind.copy_from_slice(&[0x88, 0xB5]);
    }
    bytes
}

/// `bytes` in fragments of the given lengths, the last taking the rest, each at an odd place in its page.
pub(crate) fn packet(pool: &Pool, bytes: &[u8], cuts: &[usize]) -> Packet {
    let mut packet = Packet::default();
    let mut rest = bytes;
    let mut cuts = cuts.iter();
    while !rest.is_empty() {
        let length = cuts.next().copied().unwrap_or(PAGE_SIZE).min(rest.len());
        let offset = (PAGE_SIZE - length).min(66);
        let (now, later) = rest.split_at(length);
        let buffer = pool.take().expect("a page");
        assert!(buffer.write(offset, now));
        let fragment = Fragment { buffer, offset: offset as u16, length: length as u16 };
        assert!(packet.fragments.push(fragment).is_ok());
        rest = later;
    }
    packet
}

pub(crate) fn contents(packet: &Packet) -> Vec<u8> {
    let mut bytes = Vec::new();
    for fragment in &packet.fragments {
        let mut piece = vec![0; usize::from(fragment.length)];
        assert!(fragment.buffer.read(usize::from(fragment.offset), &mut piece));
        bytes.append(&mut piece);
    }
    bytes
}

pub(crate) fn layout(network: Network) -> Layout {
    let transport_offset = if network == Network::V4 { 34 } else { 54 };
    Layout {
        network,
        transport: Transport::Tcp,
        network_offset: 14,
        transport_offset,
        payload_offset: transport_offset + 20,
    }
}

/// One's complement sum of big-endian halfwords (RFC 1071).
fn sum(bytes: &[u8]) -> u32 {
    bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low))).sum()
}

fn fold(mut sum: u32) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    sum as u16
}

fn pseudo(network: Network, frame: &[u8]) -> u32 {
    let addresses = match network {
        Network::V4 => &frame[26..34],
        Network::V6 => &frame[22..54],
    };
    sum(addresses) + 6 + (frame.len() - usize::from(layout(network).transport_offset)) as u32
}

/// A TCP packet with right checksums and `length` bytes of payload.
pub(crate) fn tcp_packet(network: Network, length: usize, seed: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    match network {
        Network::V4 => {
            frame.extend_from_slice(&[8, 0, 0x45, 0]);
            frame.extend_from_slice(&((40 + length) as u16).to_be_bytes());
            frame.extend_from_slice(&[0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
            let checksum = !fold(sum(&frame[14..34]));
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
        }
        Network::V6 => {
            frame.extend_from_slice(&[0x86, 0xDD, 0x60, 0, 0, 0]);
            frame.extend_from_slice(&((20 + length) as u16).to_be_bytes());
            frame.extend_from_slice(&[6, 64]);
            frame.extend((0..32).map(|byte| byte ^ 0x20));
        }
    }
    frame.extend_from_slice(&[0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0x10, 0, 0, 0, 0, 0]);
    frame.extend((0..length).map(|index| (index * 13 + seed) as u8));
    let checksum = !fold(pseudo(network, &frame) + sum(&frame[usize::from(layout(network).transport_offset)..]));
    let at = usize::from(layout(network).checksum_offset());
    frame[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// The same with the pseudo-header's sum alone as its checksum.
pub(crate) fn without_checksum(network: Network, frame: &[u8]) -> Vec<u8> {
    let mut blank = frame.to_vec();
    let at = usize::from(layout(network).checksum_offset());
    let partial = fold(pseudo(network, frame));
    blank[at..at + 2].copy_from_slice(&partial.to_be_bytes());
    blank
}

/// A packet to be cut into segments of `size` bytes.
pub(crate) fn superframe(network: Network, pool: &Pool, whole: &[u8], size: u16) -> Packet {
    let mut packet = packet(pool, &without_checksum(network, whole), &[100]);
    let kind = if network == Network::V4 { GsoKind::TcpV4 } else { GsoKind::TcpV6 };
    packet.offload = Offload { checksum: Checksum::Blank, gso: Some(Gso { kind, size }) };
    packet
}

/// Whether the lengths and the checksums of a TCP packet are right.
pub(crate) fn has_right_checksums(network: Network, frame: &[u8]) -> bool {
    let transport = usize::from(layout(network).transport_offset);
    let length = |at: usize| usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
    let ip = match network {
        Network::V4 => length(16) == frame.len() - 14 && fold(sum(&frame[14..34])) == 0xFFFF,
        Network::V6 => length(18) == frame.len() - 54,
    };
    ip && fold(pseudo(network, frame) + sum(&frame[transport..])) == 0xFFFF
}
