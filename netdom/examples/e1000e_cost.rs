//! What the e1000e driver itself costs a packet, with the model as its device: the model's own work is not in the figures. Host.
//!
//! `cargo run --release -p netdom --features fakes --example e1000e_cost`

use netdom::nic::e1000e::E1000e;
use netdom::nic::e1000e::descriptors::ReceiveStatus;
use netdom::nic::e1000e::model::Device;
use netdom::nic::e1000e::models::Model;
use netdom::nic::{Interrupts, Nic, Options, queue};
use netdom::offload::headers::{Layout, Network, Transport};
use netdom::packet::{Checksum, Fragment, Packet, Pool};
use split_driver::fakes::{FakeDma, FakePages, FakeXen};
use std::time::{Duration, Instant};

const BATCH: usize = 64;
const ROUNDS: usize = 2_000;

struct Bench {
    nic: E1000e<Device, FakeDma>,
    device: Device,
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
fn send(bench: &mut Bench, fragments: usize, checksum: Checksum) -> (Duration, usize) {
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
            if queue(&mut bench.nic).transmit(packet, Some(&layout)).is_err() {
                println!("the ring is full: the figures are wrong");
            }
        }
        queue(&mut bench.nic).flush();
        spent += start.elapsed();
        accesses += bench.device.accesses();
        bench.device.transmit();
        let start = Instant::now();
        queue(&mut bench.nic).reclaim();
        spent += start.elapsed();
    }
    (spent, accesses)
}

/// Time and register accesses of batches of frames received.
fn receive(bench: &mut Bench) -> (Duration, usize) {
    let frame = [0x5A; 64];
    let (mut spent, mut accesses) = (Duration::ZERO, 0);
    for _ in 0..ROUNDS {
        for _ in 0..BATCH {
            bench.device.inject(&frame, ReceiveStatus::new());
        }
        bench.device.accesses();
        let start = Instant::now();
        bench.nic.handle_interrupt(0);
        while let Some(packet) = queue(&mut bench.nic).receive() {
            drop(packet);
        }
        queue(&mut bench.nic).refill(&bench.pool);
        queue(&mut bench.nic).arm(false);
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

fn main() {
    let xen = FakeXen::new();
    let pool = Pool::new(Box::new(FakePages::new(&xen, 1024)));
    let device = Device::new(&xen);
    device.be_lazy();
    device.discard_sent();
    let Some(model) = Model::find(0x8086, 0x10D3) else {
        return;
    };
    let (vectors, options) = (Interrupts::MsiX(2), Options::default());
    let nic = match E1000e::new(device.clone(), device.dma(), model, vectors, &pool, options, &mut |_| ()) {
        Ok(nic) => nic,
        Err(error) => {
            println!("the model does not start: {error}");
            return;
        }
    };
    let mut bench = Bench { nic, device, pool };
    println!("a packet, in batches of {BATCH}:");
    show("send, one fragment", send(&mut bench, 1, Checksum::Unverified));
    show("send, three fragments", send(&mut bench, 3, Checksum::Unverified));
    show("send, one fragment, checksum by the NIC", send(&mut bench, 1, Checksum::Blank));
    show("receive, one buffer", receive(&mut bench));
}
