//! Packets on the data path in rounds of a fixed load, with fakes for Xen and the guests, and the e1000e driver on the model of its device.
//! Host.
//!
//! It is run by `cargo xtask bench path` under callgrind, which counts the instructions of [`Bench::serve_counted`] alone: guests and device do
//! their work outside of it. Run alone, it says what it asked of Xen and of the device.
//!
//! `cargo run --release -p devices --example path_cost -- LOAD`

use devices::checksum::{put, sum};
use devices::e1000e::{E1000e, IDENTITY};
use devices::fake::Device;
use netdom::datapath::{DataPath, NicId};
use netdom::ethernet::MacAddress;
use netdom::fakes::{Frontend, Outgoing};
use netdom::nic::{Interrupts, Options, models};
use netdom::packet::{Checksum, Gso, GsoKind, Pool};
use netdom::router::config::{Network, Setup, Uplink};
use netdom::router::{Routed, gateway_for, mac_of};
use split_driver::fakes::{FakePages, FakeXen};
use split_driver::time::{Duration, Instant};
use std::net::Ipv4Addr;
use std::process::ExitCode;

/// Rounds that are counted, behind some that are not.
const ROUNDS: usize = 100;
const WARM_UP: usize = 8;
/// Packets of a round: what a vif may send in one.
const BATCH: usize = 64;
/// TCP payload bytes of a segment.
const SEGMENT: usize = 1448;
/// The address of the device.
const ADDRESS: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
/// The address of a station on the wire.
const STATION: [u8; 6] = [2, 0, 0, 0, 0, 9];
/// Ethernet, IPv4, TCP with time stamps.
const TCP_HEADERS: usize = 66;
const PROTOCOL_TCP: u8 = 6;
const PROTOCOL_UDP: u8 = 17;

/// Where packets come from and go to.
#[derive(Clone, Copy)]
enum Way {
    ToWire,
    FromWire,
    BetweenGuests,
}

/// What a round consists of.
struct Load {
    name: &'static str,
    way: Way,
    /// Packets, and bytes of each without its check sequence.
    packets: usize,
    length: usize,
    kind: Kind,
    /// Flows that they are of, in turn.
    flows: usize,
    /// The guest is behind the router, which translates its address.
    translated: bool,
}

impl Load {
    /// A round of packets of one flow.
    const fn new(name: &'static str, way: Way, packets: usize, length: usize, kind: Kind) -> Self {
        Self { name, way, packets, length, kind, flows: 1, translated: false }
    }

    /// The same, of several flows.
    const fn of_flows(self, flows: usize) -> Self {
        Self { flows, ..self }
    }

    /// The same, behind the router.
    const fn translated(self) -> Self {
        Self { translated: true, ..self }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// UDP, the checksum not to be touched.
    Udp,
    /// UDP, the checksum left to the receiver: as Linux sends it.
    UdpBlank,
    /// A super-frame.
    Super,
    /// Segments of one flow, to be joined.
    Segments,
}

const LOADS: [Load; 18] = [
    Load::new("to-wire-64", Way::ToWire, BATCH, 60, Kind::UdpBlank),
    Load::new("to-wire-64-complete", Way::ToWire, BATCH, 60, Kind::Udp),
    Load::new("to-wire-64-flows", Way::ToWire, BATCH, 60, Kind::UdpBlank).of_flows(8),
    Load::new("from-wire-64", Way::FromWire, BATCH, 60, Kind::Udp),
    Load::new("from-wire-64-flows", Way::FromWire, BATCH, 60, Kind::Udp).of_flows(8),
    Load::new("between-64", Way::BetweenGuests, BATCH, 60, Kind::UdpBlank),
    Load::new("to-wire-1518", Way::ToWire, BATCH, 1514, Kind::UdpBlank),
    Load::new("from-wire-1518", Way::FromWire, BATCH, 1514, Kind::Udp),
    Load::new("between-1518", Way::BetweenGuests, BATCH, 1514, Kind::UdpBlank),
    Load::new("to-wire-super", Way::ToWire, 4, TCP_HEADERS + 44 * SEGMENT, Kind::Super),
    Load::new("between-super", Way::BetweenGuests, 4, TCP_HEADERS + 44 * SEGMENT, Kind::Super),
    Load::new("from-wire-joined", Way::FromWire, 44, TCP_HEADERS + SEGMENT, Kind::Segments),
    Load::new("nat-to-wire-64", Way::ToWire, BATCH, 60, Kind::UdpBlank).translated(),
    Load::new("nat-to-wire-64-flows", Way::ToWire, BATCH, 60, Kind::UdpBlank).of_flows(8).translated(),
    Load::new("nat-from-wire-64", Way::FromWire, BATCH, 60, Kind::Udp).translated(),
    Load::new("nat-from-wire-64-flows", Way::FromWire, BATCH, 60, Kind::Udp).of_flows(8).translated(),
    Load::new("nat-to-wire-super", Way::ToWire, 4, TCP_HEADERS + 44 * SEGMENT, Kind::Super).translated(),
    Load::new("nat-from-wire-joined", Way::FromWire, 44, TCP_HEADERS + SEGMENT, Kind::Segments).translated(),
];

/// The IP addresses of a guest and of the station on the wire; and behind the router, its own and the guest's.
const GUEST_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const STATION_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const ROUTER_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const INNER_IP: Ipv4Addr = Ipv4Addr::new(192, 168, 7, 2);

struct Bench {
    xen: FakeXen,
    path: DataPath<FakeXen>,
    device: Device<E1000e>,
    nic: NicId,
    guests: [Frontend; 2],
    now: Instant,
    /// Since the warm-up.
    sums: Sums,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    copy_calls: u64,
    copies: u64,
    notifications: u64,
    registers: usize,
    arrived: usize,
}

impl Bench {
    fn new(translated: bool) -> Option<Self> {
        let xen = FakeXen::new();
        let pool = Pool::new(Box::new(FakePages::new(&xen, 1024)));
        let device = Device::new(&xen, E1000e::new(ADDRESS));
        device.be_lazy();
        device.discard_sent();
        let model = models::Model::find(IDENTITY.vendor, IDENTITY.device)?;
        let (time, vectors, options) = (device.clone(), Interrupts::MsiX(2), Options::default());
        let wait = &mut |delay| time.wait(delay);
        let nic = model.start(device.clone(), device.dma(), vectors, &pool, options, wait).ok()?;
        let mut path = DataPath::new(xen.clone(), pool, 1);
        let nic = path.add_nic(nic, "xenbr0").ok()?;
        if translated {
            let network = Some(Network { address: ROUTER_IP, length: 24 });
            let uplink = Uplink { bridge: "xenbr0".into(), network, gateway: None, v6: None };
            path.set_router(&Setup { uplink: Some(uplink), ..Setup::default() }, 1500, 1).ok()?;
        }
        let guests = [1, 2].map(|id| {
            let mut guest = Frontend::new(&xen, id, false);
            guest.post(256);
            let mut config = guest.config("xenbr0", Frontend::linux_features());
            if translated && id == 1 {
                let (mac, addresses, addresses_v6) = (MacAddress(guest.mac), vec![INNER_IP], Vec::new());
                config.routed = Some(Routed { mac, addresses, addresses_v6, translated: true });
            }
            assert!(path.attach(config).is_ok(), "a vif");
            guest
        });
        let mut bench = Self { xen, path, device, nic, guests, now: Instant(0), sums: Sums::default() };
        bench.serve(true);
        // The switch learns where everybody is.
        for (index, mac) in [1, 0].into_iter().zip([bench.guests[1].mac, bench.guests[0].mac]) {
            let hello = [&[0xff; 6][..], &mac, &[0; 48]].concat();
            bench.guests[index].send(&Outgoing { bytes: hello, ..Outgoing::default() });
        }
        bench.device.inject(&[&[0xff; 6][..], &STATION, &[0; 48]].concat());
        bench.serve(true);
        bench.settle();
        if translated {
            bench.open();
        }
        Some(bench)
    }

    /// The guest behind the router sends a packet of each flow, and the station answers the router's question for its address.
    fn open(&mut self) {
        // The first packet of all is lost: its station is not known yet.
        for tcp in [false, false, true] {
            for flow in 0..8 {
                let ends = Ends::out(mac_of(gateway_for(INNER_IP).address).0, self.guests[0].mac, INNER_IP);
                self.guests[0].send(&Outgoing { bytes: frame(&ends, 70, tcp, flow, 0, 0), ..Outgoing::default() });
                self.serve(false);
                let (router, answer) = (mac_of(ROUTER_IP).0, [0, 1, 8, 0, 6, 4, 0, 2]);
                let (own, asker) = (STATION_IP.octets(), ROUTER_IP.octets());
                let arp = [&router[..], &STATION, &[8, 6], &answer, &STATION, &own, &router, &asker, &[0; 18]].concat();
                self.device.inject(&arp);
                self.device.run();
                self.serve(true);
                self.settle();
            }
        }
    }

    /// [`Self::serve`], counted.
    #[inline(never)]
    fn serve_counted(&mut self, interrupt: bool) {
        self.serve(interrupt);
    }

    /// What netdom does upon events.
    fn serve(&mut self, interrupt: bool) {
        if interrupt {
            self.path.handle_interrupt(self.nic, 0);
        }
        loop {
            while let Some(port) = self.xen.next_event() {
                self.path.handle_event(port, self.now);
            }
            if !self.path.poll(self.now).again {
                return;
            }
        }
    }

    /// Guests and device take what is theirs.
    fn settle(&mut self) {
        self.device.run();
        let interrupts = self.device.messages().contains(&0);
        assert!(!interrupts || self.device.misuse().is_empty(), "{:?}", self.device.misuse());
        for guest in &mut self.guests {
            guest.collect_answers();
            guest.answers.clear();
            let arrived = guest.arrived();
            self.sums.arrived += arrived.len();
            guest.post(256);
            let ports = guest.ports;
            let domain = guest.domain.clone();
            self.sums.notifications += ports.map(|port| domain.take_notifications(port)).iter().sum::<u64>();
        }
        self.now = self.now + Duration::from_micros(50);
    }

    fn round(&mut self, load: &Load, packets: &[Vec<u8>], serve: fn(&mut Self, bool)) {
        match load.way {
            Way::FromWire => {
                for packet in packets {
                    assert!(self.device.inject(packet), "the packet memory is full");
                    self.device.run();
                }
                self.device.messages();
                serve(self, true);
            }
            Way::ToWire | Way::BetweenGuests => {
                for packet in packets {
                    let gso = (load.kind == Kind::Super).then_some(Gso { kind: GsoKind::TcpV4, size: SEGMENT as u16 });
                    let checksum = if load.kind == Kind::Udp { Checksum::Unverified } else { Checksum::Blank };
                    let packet = Outgoing { bytes: packet.clone(), checksum, gso, ..Outgoing::default() };
                    assert!(self.guests[0].place(&packet), "the ring is full");
                }
                self.guests[0].publish();
                serve(self, false);
            }
        }
        self.settle();
    }

    fn run(&mut self, load: &Load) {
        let own = self.guests[0].mac;
        let ends = match (load.way, load.translated) {
            (Way::ToWire, false) => Ends::out(STATION, own, GUEST_IP),
            (Way::FromWire, false) => Ends::out(own, STATION, GUEST_IP),
            (Way::BetweenGuests, _) => Ends::out(self.guests[1].mac, own, GUEST_IP),
            (Way::ToWire, true) => Ends::out(mac_of(gateway_for(INNER_IP).address).0, own, INNER_IP),
            (Way::FromWire, true) => Ends::back(mac_of(ROUTER_IP).0, STATION),
        };
        let mut sequence = 1;
        for round in 0..WARM_UP + ROUNDS {
            let packets: Vec<_> = (0..load.packets)
                .map(|number| {
                    let tcp = matches!(load.kind, Kind::Super | Kind::Segments);
                    let flow = (number % load.flows) as u8;
                    let packet = frame(&ends, load.length, tcp, flow, sequence, number as u16);
                    sequence += (load.length - TCP_HEADERS.min(load.length)) as u32;
                    packet
                })
                .collect();
            if round == WARM_UP {
                self.sums = Sums::default();
                self.device.accesses();
                (self.sums.copies, self.sums.copy_calls) = self.xen.copy_count();
            }
            self.round(load, &packets, if round < WARM_UP { Self::serve } else { Self::serve_counted });
        }
        let (copies, calls) = self.xen.copy_count();
        self.sums = Sums { copies: copies - self.sums.copies, copy_calls: calls - self.sums.copy_calls, ..self.sums };
        self.sums.registers = self.device.accesses();
    }
}

/// The ends of a frame: Ethernet addresses, destination and source, and IP addresses, source and destination.
struct Ends {
    stations: [[u8; 6]; 2],
    addresses: [Ipv4Addr; 2],
    /// It is of the far end.
    back: bool,
}

impl Ends {
    /// From this address to the station's.
    const fn out(destination: [u8; 6], source: [u8; 6], from: Ipv4Addr) -> Self {
        Self { stations: [destination, source], addresses: [from, STATION_IP], back: false }
    }

    /// From the station to the router's address.
    const fn back(destination: [u8; 6], source: [u8; 6]) -> Self {
        Self { stations: [destination, source], addresses: [STATION_IP, ROUTER_IP], back: true }
    }
}

/// A frame of UDP or TCP over IPv4, without its check sequence. The transport checksum is right.
fn frame(ends: &Ends, length: usize, tcp: bool, flow: u8, sequence: u32, identification: u16) -> Vec<u8> {
    let ([destination, source], [from, to]) = (ends.stations, ends.addresses);
    let ports = if ends.back { [0x00, 0x09, 0x12, flow] } else { [0x12, flow, 0x00, 0x09] };
    let mut bytes = vec![0; length];
    let mut write = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    write(0, &destination);
    write(6, &source);
    write(12, &[0x08, 0x00, 0x45, 0x00]);
    write(16, &(length as u16 - 14).to_be_bytes());
    write(18, &identification.to_be_bytes());
    write(20, &[0x40, 0, 64, if tcp { PROTOCOL_TCP } else { PROTOCOL_UDP }]);
    write(26, &from.octets());
    write(30, &to.octets());
    write(34, &ports);
    if tcp {
        write(38, &sequence.to_be_bytes());
        // Data offset of 32 bytes, ACK, window; time stamps.
        write(46, &[0x80, 0x10, 0x10, 0x00]);
        write(54, &[1, 1, 8, 10]);
    } else {
        write(38, &(length as u16 - 34).to_be_bytes());
    }
    let ip = !sum(&bytes[14..34], 0);
    put(&mut bytes, 24, ip);
    // The pseudo-header: the addresses, the protocol, the length.
    let pseudo = sum(&bytes[26..34], u16::from(bytes[23]) + (length - 34) as u16);
    let transport = !sum(&bytes[34..], pseudo);
    put(&mut bytes, if tcp { 50 } else { 40 }, transport);
    bytes
}

fn main() -> ExitCode {
    let name = std::env::args().nth(1);
    let Some(load) = LOADS.iter().find(|load| Some(load.name) == name.as_deref().map(str::trim_end)) else {
        eprintln!("which load? {}", LOADS.map(|load| load.name).join(" "));
        return ExitCode::FAILURE;
    };
    let Some(mut bench) = Bench::new(load.translated) else {
        eprintln!("the model of the device does not start");
        return ExitCode::FAILURE;
    };
    bench.run(load);
    let Sums { copy_calls, copies, notifications, registers, arrived } = bench.sums;
    let expected = match (load.way, load.kind) {
        (Way::ToWire, _) => 0,
        (_, Kind::Segments) => ROUNDS,
        _ => ROUNDS * load.packets,
    };
    assert_eq!(arrived, expected, "packets were lost, or not joined");
    println!("packets {}", ROUNDS * load.packets);
    println!("copy-calls {copy_calls}\ncopies {copies}\nnotifications {notifications}\nregisters {registers}");
    ExitCode::SUCCESS
}
