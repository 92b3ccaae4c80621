//! What the data path costs a packet, with fakes for Xen, the guests and the NIC: the guests' own work is not in the figures, the fakes'
//! copies are. Host.
//!
//! `cargo run --release -p netdom --features fakes --example netback_cost`

use netdom::datapath::DataPath;
use netdom::fakes::{FakeNic, Frontend, Outgoing};
use netdom::nic::Capabilities;
use netdom::packet::Pool;
use split_driver::fakes::{FakePages, FakeXen};
use std::time::{Duration, Instant};

const BATCH: usize = 64;
const ROUNDS: usize = 2_000;
/// The address of a station on the wire.
const STATION: [u8; 6] = [2, 0, 0, 0, 0, 9];

struct Bench {
    xen: FakeXen,
    path: DataPath<FakeXen>,
    guests: [Frontend; 2],
    now: split_driver::time::Instant,
    spent: Duration,
}

impl Bench {
    fn poll(&mut self) {
        loop {
            self.now = self.now + split_driver::time::Duration::from_micros(10);
            let start = Instant::now();
            while let Some(port) = self.xen.next_event() {
                self.path.handle_event(port, self.now);
            }
            let again = self.path.poll(self.now).again;
            self.spent += start.elapsed();
            if !again {
                return;
            }
        }
    }

    /// Batches of UDP packets of one flow, in nanoseconds a packet: the least of several measurements.
    fn send(&mut self, destination: [u8; 6], length: usize) -> f64 {
        let mut bytes = vec![0; length];
        bytes[..6].copy_from_slice(&destination);
        bytes[6..12].copy_from_slice(&self.guests[0].mac);
        bytes[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0x00]);
        bytes[16..18].copy_from_slice(&(length as u16 - 14).to_be_bytes());
        (bytes[22], bytes[23]) = (64, 17);
        bytes[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        let packet = Outgoing { bytes, ..Outgoing::default() };
        let measure = |_| {
            self.spent = Duration::ZERO;
            for _ in 0..ROUNDS {
                for _ in 0..BATCH {
                    assert!(self.guests[0].place(&packet), "the ring is full");
                }
                self.guests[0].publish();
                self.poll();
                self.guests[0].collect_answers();
                self.guests[0].answers.clear();
                self.guests[1].arrived();
                self.guests[1].post(BATCH);
            }
            self.spent.as_nanos() as f64 / (BATCH * ROUNDS) as f64
        };
        (0..5).map(measure).fold(f64::INFINITY, f64::min)
    }
}

fn main() {
    let xen = FakeXen::new();
    let mut path = DataPath::new(xen.clone(), Pool::new(Box::new(FakePages::new(&xen, 1024))), 1);
    let (nic, wire) = FakeNic::new(Capabilities { max_frame: 1518, ..Capabilities::default() }, 256);
    assert!(path.add_nic(Box::new(nic), "xenbr0").is_ok(), "there is room for a NIC");
    let guests = [1, 2].map(|id| {
        let mut guest = Frontend::new(&xen, id, false);
        guest.post(256);
        assert!(path.attach(guest.config("xenbr0", Frontend::linux_features())).is_ok(), "a vif");
        guest
    });
    let now = split_driver::time::Instant(0);
    let mut bench = Bench { xen, path, guests, now, spent: Duration::ZERO };
    let hello = [&[0xff; 6][..], &bench.guests[1].mac, &[0; 48]].concat();
    bench.guests[1].send(&Outgoing { bytes: hello, ..Outgoing::default() });
    let hello = [&[0xff; 6][..], &STATION, &[0; 48]].concat();
    wire.borrow_mut().incoming.push_back((hello, Default::default()));
    bench.poll();
    let guest = bench.guests[1].mac;
    println!("a packet, in batches of {BATCH}:");
    for length in [64, 1514] {
        println!("{length:>5} bytes, guest to guest {:>8.1} ns", bench.send(guest, length));
        println!("{length:>5} bytes, guest to wire  {:>8.1} ns", bench.send(STATION, length));
        wire.borrow_mut().sent.clear();
    }
}
