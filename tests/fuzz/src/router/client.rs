//! The DHCP client, answered by netdom's own server, whose messages may be changed on the way. Host.
//!
//! What must hold: the other library reads what the client writes, and what the client reads as that library does; a lease is an address in its
//! network, and the server's where nothing was changed; and there is always a time at which the client goes on.

use crate::hash;
use netdom::ethernet::MacAddress;
use netdom::router::config::Network;
use netdom::router::dhcp::client::{Client, Reply};
use netdom::router::dhcp::{Kind, Leases, Message, Terms, answer, write};
use smoltcp::wire::{DhcpPacket, DhcpRepr, EthernetAddress};
use split_driver::time::Instant;
use std::net::Ipv4Addr;

const MAC: MacAddress = MacAddress([6, 0, 0, 0, 0, 1]);
const SERVER: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
/// Messages of a step: a client that has lost its lease has another one with the fifth.
const MESSAGES: usize = 16;

/// A client, and its server.
pub(super) struct Peer {
    own: Network,
    client: Client,
    leases: Leases,
}

/// What happens to messages on the way: places and what is there instead, and bytes that are cut off.
#[derive(Clone, Copy)]
pub(super) struct Way {
    pub(super) changes: [Option<(u16, u8)>; 2],
    pub(super) cut: Option<u8>,
}

impl Way {
    fn is_plain(&self) -> bool {
        self.changes.iter().all(Option::is_none) && self.cut.is_none()
    }

    /// What comes of a message.
    pub(super) fn change<'a>(&self, bytes: &'a mut [u8]) -> &'a [u8] {
        for (place, byte) in self.changes.iter().flatten() {
            let place = usize::from(*place) % bytes.len();
            bytes[place] = *byte;
        }
        &bytes[..bytes.len() - usize::from(self.cut.unwrap_or(0)).min(bytes.len())]
    }
}

impl Peer {
    pub(super) fn new(own: Network) -> Self {
        let mut client = Client::new(3);
        client.begin(MAC, Instant::default());
        Self { own, client, leases: Leases::new(own) }
    }

    /// Sends what is due, and gets the answers.
    pub(super) fn run(&mut self, way: Way, now: Instant, seen: &mut Vec<u64>) {
        let dns = [Ipv4Addr::new(9, 9, 9, 9), Ipv4Addr::new(1, 1, 1, 1)];
        let terms = Terms { own: self.own, router: Some(self.own.address), dns: &dns };
        for _ in 0..MESSAGES {
            let Some(question) = self.client.poll(now) else {
                break;
            };
            let message = Message::parse(&question.message).expect("a client's message");
            let packet = DhcpPacket::new_checked(&question.message[..]).expect("a message");
            let repr = DhcpRepr::parse(&packet).expect("a client's message");
            assert_eq!((repr.client_hardware_address, repr.client_ip), (EthernetAddress(MAC.0), question.source));
            let Some(given) = answer(&message, self.own.address, &mut self.leases, now) else {
                continue;
            };
            let mut bytes = write(&given, &message, &terms);
            let bytes = way.change(&mut bytes);
            let reply = Reply::parse(bytes);
            seen.push(hash(&[4, message.kind as u8, given.kind as u8, u8::from(reply.is_some())]));
            if way.is_plain() {
                check_reading(bytes, reply.as_ref().expect("the server's message"));
            }
            if let Some(reply) = reply {
                self.client.hear(&reply, SERVER, now);
            }
            if let Some(lease) = self.client.lease() {
                let network = lease.network;
                assert!(network.is_host(network.address) && (1..=30).contains(&network.length), "{network}");
                let granted = given.kind == Kind::Acknowledge && way.is_plain();
                assert!(!granted || network == Network { address: given.address, ..self.own });
            }
        }
        assert!(self.client.deadline().is_some_and(|due| due > now), "it does not go on");
    }
}

/// Whether a message is read as the other library reads it.
fn check_reading(bytes: &[u8], reply: &Reply) {
    let packet = DhcpPacket::new_checked(bytes).expect("a message");
    let repr = DhcpRepr::parse(&packet).expect("a message");
    assert_eq!((reply.transaction, reply.address), (repr.transaction_id, repr.your_ip));
    assert_eq!((reply.server, reply.router), (repr.server_identifier, repr.router));
    assert_eq!((reply.mask.map(Ipv4Addr::from_bits), reply.lease), (repr.subnet_mask, repr.lease_duration));
    assert_eq!((reply.renew, reply.rebind), (repr.renew_duration, repr.rebind_duration));
    assert!(repr.dns_servers.iter().flatten().eq(&reply.dns), "{:?}, {:?}", repr.dns_servers, reply.dns);
}
