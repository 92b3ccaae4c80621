//! The ways of IPv6, against what must hold for any packet; answers are read by another library. Host.
//!
//! An input is packets of guests and of the outside, with bytes changed and pauses between, and guests that go and come. What must hold: a packet goes
//! on to the guest that has its address, or from a guest to the way out, with one hop less and else unchanged; nothing of a link passes; what does not
//! pass is not written to; and an answer is a sound message to the one who sent the packet.

use crate::{Target, hash};
use arbitrary::{Arbitrary, Unstructured};
use netdom::ethernet::MacAddress;
use netdom::router::config::{Network, NetworkV6, Setup, Uplink, UplinkV6};
use netdom::router::{Frame, GUEST_GATEWAY, HEAD, Routed, Router, Verdict};
use netdom::switch::PortId;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv6Message, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv6Packet, NdiscRepr};
use split_driver::time::{Duration, Instant};
use std::net::{Ipv4Addr, Ipv6Addr};

const UPLINK: PortId = PortId(1);
/// Guests have the ports behind it.
const GUESTS: u16 = 2;
const STEPS: usize = 64;
const MTU: u16 = 1500;
/// Between two inputs: longer than a station is known, or a question waits for its answer.
const BETWEEN: Duration = Duration::from_secs(300);
const OWN_V4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
const OWN: Ipv6Addr = local(5);
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x99);
const START: usize = 14;
const BEHIND: usize = START + 40;

const fn local(last: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)
}

/// Guests' addresses, stations outside, and addresses that do not pass.
const ADDRESSES: [Ipv6Addr; 12] = [
    local(11),
    local(12),
    OWN,
    local(1),
    Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1),
    GATEWAY,
    GUEST_GATEWAY,
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11),
    Ipv6Addr::UNSPECIFIED,
    Ipv6Addr::LOCALHOST,
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 11),
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
];

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Sent {
    port: u8,
    source: u8,
    destination: u8,
    hops: u8,
    kind: u8,
    target: u8,
    option: Option<(u8, u8)>,
    /// Extension headers before what is meant.
    extensions: u8,
    long: bool,
    /// Places of the frame, and what is there instead.
    changes: [Option<(u8, u8)>; 2],
    group: bool,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Packet(Sent),
    Pause(u16),
    Leave(u8),
    Return(u8),
}

fn address(number: u8) -> Ipv6Addr {
    ADDRESSES[usize::from(number) % ADDRESSES.len()]
}

fn guest_port(number: u8) -> PortId {
    PortId(UPLINK.0 + 1 + u16::from(number) % GUESTS)
}

fn guest_address(port: PortId) -> Ipv6Addr {
    local(9 + port.0)
}

/// The station behind a port.
fn station(port: PortId) -> MacAddress {
    MacAddress([0, 0x16, 0x3e, 0, 0, port.0 as u8])
}

fn passes(address: Ipv6Addr) -> bool {
    let first = address.segments()[0];
    !address.is_unspecified() && !address.is_loopback() && first >> 8 != 0xff && first & 0xffc0 != 0xfe80
}

/// The complete checksum of a message.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> [u8; 2] {
    let words = |bytes: &[u8]| -> u32 {
        let (words, rest) = bytes.as_chunks::<2>();
        let last = rest.first().map_or(0, |byte| u32::from(*byte) << 8);
        words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum::<u32>() + last
    };
    let sum = words(&source.octets()) + words(&destination.octets()) + message.len() as u32 + 58 + words(message);
    let folded = (sum >> 16) + (sum & 0xffff);
    (!(((folded >> 16) + folded) as u16)).to_be_bytes()
}

impl Sent {
    fn port(&self) -> PortId {
        PortId(UPLINK.0 + u16::from(self.port) % (GUESTS + 1))
    }

    /// Writes the frame, for the router's station there.
    fn write(&self, to: MacAddress, frame: &mut Vec<u8>) {
        let (source, destination) = (address(self.source), address(self.destination));
        let kinds = [135, 136, 133, 134, 137, 128, 129, 1, 3];
        let kind = kinds.get(usize::from(self.kind) % (kinds.len() + 1)).copied();
        let behind = if self.target.is_multiple_of(2) { 17 } else { 6 };
        let last = if kind.is_some() { 58 } else { behind };
        let extensions = self.extensions % 12;
        // The one before the message is number 0.
        let number_of = |extension: u8| [0, 60, 43, 44][usize::from(extension) % 4];
        let to = if self.group { MacAddress([0x33, 0x33, 0, 0, 0, 1]) } else { to };
        let hops = if self.hops < 192 { 255 } else { self.hops - 192 };
        let next = extensions.checked_sub(1).map_or(last, number_of);
        frame.clear();
        frame.extend(to.0);
        frame.extend(station(self.port()).0);
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, next, hops]);
        frame.extend(source.octets());
        frame.extend(destination.octets());
        for extension in (0..extensions).rev() {
            let next = extension.checked_sub(1).map_or(last, number_of);
            frame.extend([next, 0, 0, 0, 0, 0, 0, 0]);
        }
        let message = frame.len();
        frame.extend([kind.unwrap_or(0), 0, 0, 0, 0, 0, 0, 0]);
        if matches!(kind, Some(135..=137)) {
            frame.extend(address(self.target).octets());
        }
        if let Some((code, units)) = self.option {
            frame.extend([1 + code % 3, if units < 200 { 1 } else { units }, 0, 0x16, 0x3e, 0, 0, code % 4]);
        }
        frame.resize(frame.len() + if self.long { 1500 } else { 0 }, 7);
        let sum = checksum(source, destination, &frame[message..]);
        frame[message + 2..message + 4].copy_from_slice(&sum);
        let length = ((frame.len() - BEHIND) as u16).to_be_bytes();
        frame[START + 4..START + 6].copy_from_slice(&length);
        for (place, byte) in self.changes.iter().flatten() {
            let place = START + usize::from(*place) % (frame.len() - START);
            frame[place] = *byte;
        }
    }
}

fn steps(input: &[u8]) -> impl Iterator<Item = Step> {
    let mut bytes = Unstructured::new(input);
    std::iter::from_fn(move || if bytes.is_empty() { None } else { bytes.arbitrary().ok() }).take(STEPS)
}

/// An input as it is read, for a look at it.
pub fn describe(input: &[u8]) -> String {
    steps(input).map(|step| format!("{step:?}\n")).collect()
}

/// The router's ports that are there, and its station at each.
#[derive(Default)]
struct Stations(Vec<(PortId, MacAddress)>);

/// When packets of a guest began to wait for a station.
#[derive(Default)]
struct Waits(Vec<(PortId, Instant)>);

impl Waits {
    /// A packet of a guest is to come again: for 20 ms, and once a second.
    fn wait(&mut self, port: PortId, until: Instant, now: Instant) {
        assert!(port != UPLINK && until > now && until <= now + Duration::from_millis(20));
        let begun = self.0.iter().find(|(known, _)| *known == port).map(|(_, begun)| now.since(*begun));
        if begun.is_none_or(|passed| passed >= Duration::from_millis(20)) {
            assert!(begun.is_none_or(|passed| passed >= Duration::from_secs(1)), "{begun:?} after the last time");
            self.0.retain(|(known, _)| *known != port);
            self.0.push((port, now));
        }
    }
}

/// A router, and the guests that are there.
struct World {
    router: Router,
    stations: Stations,
    waits: Waits,
    /// A frame as it was sent, and as the router has it.
    before: Vec<u8>,
    after: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let network = Network { address: OWN_V4, length: 24 };
        let v6 = Some(UplinkV6 { network: NetworkV6 { address: OWN, length: 64 }, gateway: Some(GATEWAY) });
        let uplink = Uplink { bridge: "xenbr0".into(), network: Some(network), gateway: None, v6 };
        let mut router = Router::new(&Setup { uplink: Some(uplink), ..Setup::default() }, MTU, 5);
        let stations = Stations(vec![(UPLINK, router.add_uplink(UPLINK, network, None))]);
        Self { router, stations, waits: Waits::default(), before: Vec::new(), after: Vec::new() }
    }

    fn come(&mut self, port: PortId) {
        if self.stations.at(port).is_some() {
            return;
        }
        let v4 = Ipv4Addr::new(10, 0, 1, port.0 as u8);
        let guest = Routed::new(station(port), [v4].into_iter(), [guest_address(port)].into_iter(), false).unwrap();
        self.stations.0.push((port, self.router.add_guest(port, guest).expect("no other has its address")));
    }

    fn go(&mut self, port: PortId) {
        self.router.remove(port);
        self.stations.0.retain(|(known, _)| *known != port);
        self.waits.0.retain(|(known, _)| *known != port);
    }

    fn send(&mut self, sent: &Sent, now: Instant) -> [u8; 5] {
        let (port, Self { router, stations, waits, before, after }) = (sent.port(), self);
        sent.write(stations.at(port).unwrap_or_default(), before);
        after.clone_from(before);
        let told = Frame { length: before.len(), blank: false, segment: None };
        let head = before.len().min(HEAD);
        let foreseen = router.foresee(port, &after[..head], now);
        let verdict = router.handle(port, &mut after[..head], told, now);
        let is_whole = usize::from(u16::from_be_bytes([before[18], before[19]])) <= before.len() - BEHIND;
        if let Some(out) = foreseen.filter(|_| is_whole) {
            assert!(port == UPLINK && verdict == Verdict::Send(out), "{out:?} was foreseen, and not {verdict:?}");
        }
        if verdict != Verdict::Taken && port == UPLINK && before[20] == 6 {
            assert_eq!(foreseen.is_some(), matches!(verdict, Verdict::Send(_)) || !is_whole && foreseen.is_some());
        }
        let kind = match verdict {
            Verdict::Send(out) => {
                stations.check_sent(port, out, before, after);
                1 + out.0 as u8
            }
            _ => {
                assert_eq!(after, before, "written, and not sent");
                match verdict {
                    Verdict::Later(until) => {
                        waits.wait(port, until, now);
                        // Behind the ports.
                        16
                    }
                    _ => 0,
                }
            }
        };
        let answer = router.take_answer();
        let said = answer.map_or(0, |(to, bytes)| stations.check_answer((port, before), to, bytes));
        [port.0 as u8, sent.kind % 10, kind, said, sent.long.into()]
    }
}

impl Stations {
    fn at(&self, port: PortId) -> Option<MacAddress> {
        self.0.iter().find(|(known, _)| *known == port).map(|(_, mac)| *mac)
    }

    fn check_sent(&self, port: PortId, out: PortId, before: &[u8], after: &[u8]) {
        let ends = |frame: &[u8]| {
            let packet = Ipv6Packet::new_checked(&frame[START..]).expect("a packet");
            (packet.src_addr(), packet.dst_addr())
        };
        let (source, destination) = ends(before);
        assert_eq!(MacAddress(*after[6..].first_chunk().unwrap()), self.at(out).expect("a port that is there"));
        if out == port {
            assert_eq!((before[BEHIND], after[BEHIND], ends(after)), (128, 129, (destination, source)));
            return assert!(destination == OWN || destination.segments()[0] == 0xfe80, "an echo of the router");
        }
        assert!(passes(source) && passes(destination), "{source} to {destination}");
        assert_eq!((before[21] - 1, &before[22..]), (after[21], &after[22..]));
        assert_eq!(before[12..21], after[12..21]);
        let to = MacAddress(*after.first_chunk().unwrap());
        if out == UPLINK {
            assert!(before.len() - START <= usize::from(MTU) && to.is_station());
        } else {
            assert_eq!((guest_address(out), to), (destination, station(out)));
        }
    }

    /// What it is.
    fn check_answer(&self, (port, sent): (PortId, &[u8]), to: PortId, bytes: &[u8]) -> u8 {
        let packet = Ipv6Packet::new_checked(&bytes[START..]).expect("a packet");
        assert_eq!((packet.total_len(), packet.next_header()), (bytes.len() - START, IpProtocol::Icmpv6));
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        let message = Icmpv6Packet::new_checked(packet.payload()).expect("a message");
        assert!(message.verify_checksum(&source, &destination));
        assert_eq!(MacAddress(*bytes[6..].first_chunk().unwrap()), self.at(to).expect("a port that is there"));
        let asker = (!sent.is_empty()).then(|| Ipv6Packet::new_unchecked(&sent[START..]).src_addr());
        let kind = message.msg_type();
        if !kind.is_ndisc() {
            assert!(kind.is_error() && to == port && asker == Some(destination));
            assert!(sent[START..].starts_with(&packet.payload()[8..]), "it quotes what was sent");
            assert!(passes(destination) || destination.segments()[0] & 0xffc0 == 0xfe80);
            return u8::from(kind);
        }
        assert_eq!(packet.hop_limit(), 255);
        let repr = Icmpv6Repr::parse(&source, &destination, &message, &ChecksumCapabilities::default());
        match repr.expect("it is sound") {
            Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, .. }) => {
                assert!(to == UPLINK && port != UPLINK && (target_addr == GATEWAY || passes(target_addr)));
            }
            Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { target_addr, lladdr, .. }) => {
                assert!(to == port && lladdr.is_some() && (port == UPLINK || target_addr != guest_address(port)));
            }
            Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert { prefix_info, mtu, .. }) => {
                assert!(to != UPLINK && source == GUEST_GATEWAY);
                assert_eq!((prefix_info.is_none(), mtu), (true, Some(MTU.into())));
            }
            other => panic!("not the router's to say: {other:?}"),
        }
        if kind == Icmpv6Message::NeighborSolicit { 1 } else { u8::from(kind) }
    }
}

/// The target. Its router stays from one input to the next, which comes when all that it knew of stations outside is too old.
pub struct Ways {
    world: World,
    now: Instant,
    steps: u64,
}

impl Default for Ways {
    fn default() -> Self {
        Self { world: World::new(), now: Instant::default(), steps: 0 }
    }
}

impl Target for Ways {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        let Self { world, now, .. } = self;
        *now = *now + BETWEEN;
        for guest in (0..GUESTS as u8).map(guest_port) {
            world.go(guest);
            world.come(guest);
        }
        for step in steps(input) {
            self.steps += 1;
            match step {
                Step::Packet(sent) => seen.push(hash(&world.send(&sent, *now))),
                Step::Pause(length) => {
                    *now = *now + Duration::from_millis(u64::from(length) * u64::from(length) / 64);
                    let World { router, stations, .. } = &mut *world;
                    while let Some((to, bytes)) = router.poll(*now) {
                        seen.push(hash(&[9, stations.check_answer((to, &[]), to, bytes), to.0 as u8]));
                    }
                    let due = router.deadline();
                    assert!(due.is_none() == (stations.0.len() == 1) && due.is_none_or(|due| due > *now), "{due:?}");
                }
                Step::Leave(guest) => world.go(guest_port(guest)),
                Step::Return(guest) => world.come(guest_port(guest)),
            }
        }
    }

    fn operations(&self) -> Option<u64> {
        Some(self.steps)
    }
}
