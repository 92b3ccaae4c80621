//! The cost of a packet to each NIC driver itself, with the model as its device: the model's own work is not in the figures. Host.
//!
//! `cargo run --release -p devices --example nic_cost`

use devices::bus::Model;
use devices::e1000e::E1000e;
use devices::fake::Device;
use devices::igb::{self, Igb};
use devices::ixgbe::{self, Ixgbe};
use netdom::nic::{Interrupts, Nic, Options, models, queue};
use netdom::offload::headers::{Layout, Network, Transport};
use netdom::packet::{Checksum, Fragment, Packet, Pool};
use split_driver::fakes::{FakePages, FakeXen};
use std::time::{Duration, Instant};

const BATCH: usize = 64;
const ROUNDS: usize = 2_000;

const ADDRESS: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

struct Bench<M> {
    nic: Box<dyn Nic>,
    device: Device<M>,
    pool: Pool,
}

fn packet(pool: &Pool, fragments: usize, checksum: Checksum) -> Option<Packet> {
    let mut packet = Packet::default();
    for _ in 0..fragments {
        let length = u16::try_from(1500 / fragments).ok()?;
        packet.fragments.push(Fragment { buffer: pool.take()?, offset: 0, length }).ok()?;
    }
    packet.offload.checksum = checksum;
    Some(packet)
}

/// Time and register accesses of batches of packets sent.
fn send<M: Model>(bench: &mut Bench<M>, fragments: usize, checksum: Checksum) -> (Duration, usize) {
    let layout = Layout {
        network: Network::V4,
        transport: Transport::Tcp,
        network_offset: 14,
        transport_offset: 34,
        payload_offset: 54,
    };
    let (mut spent, mut accesses) = (Duration::ZERO, 0);
    for _ in 0..ROUNDS {
        let packets: Vec<Packet> = (0..BATCH).filter_map(|_| packet(&bench.pool, fragments, checksum)).collect();
        bench.device.accesses();
        let start = Instant::now();
        for packet in packets {
            if queue(&mut *bench.nic).transmit(packet, Some(&layout)).is_err() {
                println!("the ring is full: the figures are wrong");
            }
        }
        queue(&mut *bench.nic).flush();
        spent += start.elapsed();
        accesses += bench.device.accesses();
        bench.device.run();
        let start = Instant::now();
        queue(&mut *bench.nic).reclaim();
        spent += start.elapsed();
    }
    (spent, accesses)
}

/// Time and register accesses of batches of frames received.
fn receive<M: Model>(bench: &mut Bench<M>) -> (Duration, usize) {
    let frame = [0x5A; 64];
    let (mut spent, mut accesses) = (Duration::ZERO, 0);
    for _ in 0..ROUNDS {
        for _ in 0..BATCH {
            bench.device.inject(&frame);
        }
        bench.device.run();
        bench.device.accesses();
        let start = Instant::now();
        bench.nic.handle_interrupt(0);
        while let Some(packet) = queue(&mut *bench.nic).receive() {
            drop(packet);
        }
        queue(&mut *bench.nic).refill(&bench.pool);
        queue(&mut *bench.nic).arm(false);
        spent += start.elapsed();
        accesses += bench.device.accesses();
    }
    (spent, accesses)
}

fn show(name: &str, (spent, accesses): (Duration, usize)) {
    let packets = (BATCH * ROUNDS) as f64;
    let nanoseconds = spent.as_nanos() as f64 / packets;
    println!("{name:<40} {nanoseconds:>8.1} ns {:>8.3} register accesses", accesses as f64 / packets);
}

fn measure<M: Model + 'static>(hardware: M) {
    let xen = FakeXen::new();
    let pool = Pool::new(Box::new(FakePages::new(&xen, 1024)));
    let id = hardware.configuration().identity().device;
    let device = Device::new(&xen, hardware);
    let Some(model) = models::Model::find(0x8086, id) else {
        return println!("{id:#x}: no driver");
    };
    let interrupts = Interrupts::MsiX(model.vectors(1));
    let (time, dma) = (device.clone(), device.dma());
    let options = Options::default();
    let nic = match model.start(device.clone(), dma, interrupts, &pool, options, &mut |delay| time.wait(delay)) {
        Ok(nic) => nic,
        Err(error) => return println!("{}: the model does not start: {error}", model.name()),
    };
    // As long as a link needs.
    device.wait(Duration::from_secs(5));
    device.be_lazy();
    device.discard_sent();
    let mut bench = Bench { nic, device, pool };
    println!("{}, {}, a packet, in batches of {BATCH}:", model.driver(), model.name());
    show("send, one fragment", send(&mut bench, 1, Checksum::Unverified));
    show("send, three fragments", send(&mut bench, 3, Checksum::Unverified));
    show("send, one fragment, checksum by the NIC", send(&mut bench, 1, Checksum::Blank));
    show("receive, one buffer", receive(&mut bench));
}

fn main() {
    measure(E1000e::new(ADDRESS));
    measure(Igb::new(igb::Kind::I82576, ADDRESS));
    measure(Ixgbe::new(ixgbe::Kind::Sfp, ADDRESS));
}
