//! The DHCP server, against a list of the clients' addresses, its messages read and written by another library. Host.
//!
//! An input is messages of some clients, with bytes changed and pauses between. What must hold: a message that the other library finds whole is
//! read as it reads it; a client of netdom's own comes to its lease ([`super::client`]); no address is two clients' at a time; and an answer is what that library reads from it.

use super::client::{Peer, Way};
use crate::{Target, hash};
use arbitrary::{Arbitrary, Unstructured};
use netdom::ethernet::MacAddress;
use netdom::router::config::Network;
use netdom::router::dhcp::{Answer, Kind, Leases, Message, Terms, answer, write};
use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress};
use split_driver::time::{Duration, Instant};
use std::net::Ipv4Addr;

const OWN: Network = Network { address: Ipv4Addr::new(10, 0, 7, 1), length: 29 };
const STEPS: usize = 64;
/// Seconds of a lease.
const LEASE: u64 = 3600;

#[derive(Arbitrary, Clone, Copy, Debug)]
struct Step {
    pause: u16,
    client: u8,
    kind: u8,
    has: Option<u8>,
    wants: Option<u8>,
    server: Option<bool>,
    broadcast: bool,
    /// Places of the message, and what is there instead.
    changes: [Option<(u16, u8)>; 2],
    /// Bytes that are cut off.
    cut: Option<u8>,
}

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 7, last % 9)
}

impl Step {
    fn way(&self) -> Way {
        Way { changes: self.changes, cut: self.cut }
    }

    /// Writes the message; what comes of it.
    fn build<'a>(&self, bytes: &'a mut Vec<u8>) -> &'a [u8] {
        bytes.clear();
        bytes.resize(236, 0);
        bytes[..8].copy_from_slice(&[1, 1, 6, 0, 1, 2, 3, self.client]);
        bytes[10] = u8::from(self.broadcast) << 7;
        if let Some(has) = self.has {
            bytes[12..16].copy_from_slice(&address(has).octets());
        }
        bytes[28..34].copy_from_slice(&[0, 0x16, 0x3e, 0, 0, self.client % 6]);
        bytes.extend([99, 130, 83, 99, 53, 1, 1 + self.kind % 9]);
        if let Some(wants) = self.wants {
            bytes.extend([50, 4]);
            bytes.extend(address(wants).octets());
        }
        if let Some(own) = self.server {
            bytes.extend([54, 4]);
            bytes.extend(if own { OWN.address } else { address(6) }.octets());
        }
        bytes.push(255);
        self.way().change(bytes)
    }
}

fn kind_of(kind: DhcpMessageType) -> Option<Kind> {
    Some(match kind {
        DhcpMessageType::Discover => Kind::Discover,
        DhcpMessageType::Offer => Kind::Offer,
        DhcpMessageType::Request => Kind::Request,
        DhcpMessageType::Decline => Kind::Decline,
        DhcpMessageType::Ack => Kind::Acknowledge,
        DhcpMessageType::Nak => Kind::Refuse,
        DhcpMessageType::Release => Kind::Release,
        DhcpMessageType::Inform => Kind::Inform,
        DhcpMessageType::Unknown(_) => return None,
    })
}

fn steps(input: &[u8]) -> impl Iterator<Item = Step> {
    let mut bytes = Unstructured::new(input);
    std::iter::from_fn(move || if bytes.is_empty() { None } else { bytes.arbitrary().ok() }).take(STEPS)
}

/// An input as it is read, for a look at it.
pub fn describe(input: &[u8]) -> String {
    steps(input).map(|step| format!("{step:?}\n")).collect()
}

/// Whether a message that nothing was changed in is read as it was meant.
fn check_reading(step: &Step, bytes: &[u8], message: Option<Message>) {
    let Ok(packet) = DhcpPacket::new_checked(bytes) else {
        assert!(message.is_none() || bytes.len() < 241, "read, where the other does not: {step:?}");
        return;
    };
    let whole = step.changes.iter().all(Option::is_none) && step.cut.is_none();
    let (Ok(repr), true) = (DhcpRepr::parse(&packet), whole) else {
        return;
    };
    let Some(kind) = kind_of(repr.message_type) else {
        return assert_eq!(message, None);
    };
    let expected = Message {
        kind,
        transaction: repr.transaction_id,
        broadcast: repr.broadcast,
        client: repr.client_ip,
        mac: MacAddress(repr.client_hardware_address.0),
        requested: repr.requested_ip,
        server: repr.server_identifier,
    };
    assert_eq!(message, Some(expected), "{step:?}");
}

/// An address is a client's.
struct Held {
    address: Ipv4Addr,
    mac: MacAddress,
    /// Seconds.
    until: u64,
}

/// The target.
#[derive(Default)]
pub struct Server {
    messages: u64,
    /// A client's message.
    bytes: Vec<u8>,
    /// The leases that were given.
    held: Vec<Held>,
}

impl Server {
    /// Gives the lease of a client up, where it has that address.
    fn give_up(&mut self, mac: MacAddress, address: Ipv4Addr) {
        self.held.retain(|held| (held.mac, held.address) != (mac, address));
    }

    /// Checks an answer as the other library reads it, and notes a lease.
    fn check(&mut self, message: &Message, given: &Answer, terms: &Terms<'_>, seconds: u64) {
        let written = write(given, message, terms);
        let packet = DhcpPacket::new_checked(&written[..]).unwrap();
        let repr = DhcpRepr::parse(&packet).unwrap();
        assert_eq!(kind_of(repr.message_type), Some(given.kind));
        assert_eq!((repr.your_ip, repr.server_identifier), (given.address, Some(OWN.address)));
        assert_eq!(repr.client_hardware_address, EthernetAddress(message.mac.0));
        assert_eq!(repr.transaction_id, message.transaction);
        if given.kind == Kind::Refuse {
            return;
        }
        assert_eq!((repr.router, repr.subnet_mask), (Some(OWN.address), Some(Ipv4Addr::from_bits(OWN.mask()))));
        if given.address.is_unspecified() {
            return;
        }
        assert_eq!(repr.lease_duration, Some(LEASE as u32));
        assert!(OWN.is_host(given.address) && given.address != OWN.address, "{given:?}");
        let is_anothers =
            |held: &Held| held.address == given.address && held.mac != message.mac && held.until > seconds;
        assert!(!self.held.iter().any(is_anothers), "{} is another's", given.address);
        if given.kind == Kind::Acknowledge {
            self.held.retain(|held| held.mac != message.mac && held.address != given.address);
            self.held.push(Held { address: given.address, mac: message.mac, until: seconds + LEASE });
        }
    }
}

impl Target for Server {
    fn run(&mut self, input: &[u8], seen: &mut Vec<u64>) {
        let dns = [Ipv4Addr::new(9, 9, 9, 9)];
        let terms = Terms { own: OWN, router: Some(OWN.address), dns: &dns };
        let mut leases = Leases::new(OWN);
        let mut peer = Peer::new(OWN);
        let mut seconds = 1;
        self.held.clear();
        for step in steps(input) {
            self.messages += 1;
            seconds += u64::from(step.pause) / 16;
            let now = Instant::default() + Duration::from_secs(seconds);
            peer.run(step.way(), now, seen);
            let bytes = step.build(&mut self.bytes);
            let message = Message::parse(bytes);
            check_reading(&step, bytes, message);
            let Some(message) = message else {
                seen.push(hash(&[0, step.kind % 9]));
                continue;
            };
            let answered = answer(&message, OWN.address, &mut leases, now);
            match (message.kind, message.requested) {
                (Kind::Release, _) => self.give_up(message.mac, message.client),
                (Kind::Decline, Some(address)) if message.server == Some(OWN.address) => {
                    self.give_up(message.mac, address);
                }
                _ => {}
            }
            let Some(given) = answered else {
                seen.push(hash(&[1, message.kind as u8]));
                continue;
            };
            let last = given.address.octets()[3];
            seen.push(hash(&[2, message.kind as u8, given.kind as u8, last, self.held.len() as u8]));
            self.check(&message, &given, &terms, seconds);
        }
    }

    fn operations(&self) -> Option<u64> {
        Some(self.messages)
    }
}
