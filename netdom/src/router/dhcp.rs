//! The server of DHCP (RFC 2131, 2132): messages, and leases by Ethernet address. Pure. Floor 3.

pub mod client;

use super::config::Network;
use crate::ethernet::MacAddress;
use crate::offload::headers::{put, read_u32};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use split_driver::time::{Duration, Instant};

/// UDP ports of servers and of clients (RFC 2131, 4.1).
pub const SERVER_PORT: u16 = 67;
/// The other one.
pub const CLIENT_PORT: u16 = 68;
/// Bytes of a message of this server: as many as the oldest clients want (RFC 951, 3).
pub const MESSAGE_BYTES: usize = 300;
/// How long a lease is good for.
pub const LEASE: Duration = Duration::from_secs(3600);
/// How long an address is held for the client that was offered it, and how long one is left alone that another station has (RFC 2131, 4.3).
const OFFER: Duration = Duration::from_secs(60);
const DECLINED: Duration = Duration::from_secs(600);
/// Leases of a network.
pub const LEASES: u32 = 1024;
/// Name servers that are told of.
const NAME_SERVERS: usize = 3;

const COOKIE: u32 = 0x6382_5363;
const OPTIONS: usize = 240;

/// Options (RFC 2132).
const PAD: u8 = 0;
const SUBNET_MASK: u8 = 1;
const ROUTER: u8 = 3;
const NAME_SERVER: u8 = 6;
const BROADCAST: u8 = 28;
const REQUESTED: u8 = 50;
const LEASE_TIME: u8 = 51;
const MESSAGE_TYPE: u8 = 53;
const SERVER: u8 = 54;
const END: u8 = 255;

/// What a message is (RFC 2132, 9.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A client looks for servers.
    Discover,
    /// An address is offered.
    Offer,
    /// A client wants an address.
    Request,
    /// Another station has the address.
    Decline,
    /// The client has it.
    Acknowledge,
    /// The client must not use it.
    Refuse,
    /// The client no longer needs it.
    Release,
    /// The client has an address, and wants the rest.
    Inform,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Discover,
        Self::Offer,
        Self::Request,
        Self::Decline,
        Self::Acknowledge,
        Self::Refuse,
        Self::Release,
        Self::Inform,
    ];

    fn number(self) -> u8 {
        self as u8 + 1
    }
}

/// What a client says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Its number, which the answer has, too.
    pub transaction: u32,
    /// The client cannot be reached at an address yet.
    pub broadcast: bool,
    /// The address that the client has.
    pub client: Ipv4Addr,
    /// The client.
    pub mac: MacAddress,
    /// The address that it wants.
    pub requested: Option<Ipv4Addr>,
    /// The server that it is for, where it is for one.
    pub server: Option<Ipv4Addr>,
}

impl Message {
    /// The message of a client; `None` where it is none, came by way of a relay, or is not what it must be.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [1, 1, 6, _, ..] = bytes else {
            return None;
        };
        let address = |place: usize| read_u32(bytes, place).map(Ipv4Addr::from_bits);
        if read_u32(bytes, OPTIONS - 4)? != COOKIE || !address(24)?.is_unspecified() {
            return None;
        }
        let (mut kind, mut requested, mut server) = (None, None, None);
        let mut options = bytes.get(OPTIONS..)?;
        while let [code, rest @ ..] = options {
            options = match *code {
                PAD => rest,
                END => break,
                code => {
                    let (length, rest) = rest.split_first()?;
                    let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                    let address = || value.try_into().ok().map(|octets: [u8; 4]| Ipv4Addr::from(octets));
                    match (code, value) {
                        (MESSAGE_TYPE, [number]) => kind = Kind::ALL.into_iter().find(|kind| kind.number() == *number),
                        (REQUESTED, _) => requested = Some(address()?),
                        (SERVER, _) => server = Some(address()?),
                        _ => {}
                    }
                    rest
                }
            };
        }
        Some(Self {
            kind: kind?,
            transaction: read_u32(bytes, 4)?,
            broadcast: bytes.get(10)? & 0x80 != 0,
            client: address(12)?,
            mac: MacAddress(*bytes.get(28..)?.first_chunk()?),
            requested,
            server,
        })
    }
}

/// What a server tells its clients.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The server, in the network.
    pub own: Network,
    /// The router of the network, where it has one.
    pub router: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: &'a [Ipv4Addr],
}

/// Which addresses clients get.
pub trait Book {
    /// The address for a client that has none; it is held for it for a while. `wanted` is the one that it would like.
    fn offer(&mut self, mac: MacAddress, wanted: Option<Ipv4Addr>, now: Instant) -> Option<Ipv4Addr>;
    /// Whether a client gets this address; it has a lease then.
    fn lease(&mut self, mac: MacAddress, address: Ipv4Addr, now: Instant) -> bool;
    /// A client no longer needs an address; or another station has it.
    fn give_up(&mut self, mac: MacAddress, address: Ipv4Addr, declined: bool, now: Instant);
}

/// What a client is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// An offer, an acknowledgement or a refusal.
    pub kind: Kind,
    /// The client's address from then on; unspecified where there is none.
    pub address: Ipv4Addr,
    /// Where the answer goes.
    pub to: Ipv4Addr,
}

/// Answers a message (RFC 2131, 4.3). `None` where no answer is due.
pub fn answer(message: &Message, own: Ipv4Addr, book: &mut dyn Book, now: Instant) -> Option<Answer> {
    let mac = message.mac;
    let unspecified = Ipv4Addr::UNSPECIFIED;
    let to = |address: Ipv4Addr| match () {
        () if !message.client.is_unspecified() => message.client,
        () if message.broadcast => Ipv4Addr::BROADCAST,
        () => address,
    };
    let refusal = Answer { kind: Kind::Refuse, address: unspecified, to: Ipv4Addr::BROADCAST };
    match message.kind {
        Kind::Discover => {
            let address = book.offer(mac, message.requested, now)?;
            Some(Answer { kind: Kind::Offer, address, to: to(address) })
        }
        Kind::Request if message.server.is_some_and(|server| server != own) => None,
        Kind::Request => {
            let address = if message.client.is_unspecified() { message.requested? } else { message.client };
            let granted = book.lease(mac, address, now);
            Some(if granted { Answer { kind: Kind::Acknowledge, address, to: to(address) } } else { refusal })
        }
        Kind::Decline if message.server == Some(own) => {
            book.give_up(mac, message.requested?, true, now);
            None
        }
        Kind::Release => {
            book.give_up(mac, message.client, false, now);
            None
        }
        Kind::Inform if !message.client.is_unspecified() => {
            Some(Answer { kind: Kind::Acknowledge, address: unspecified, to: message.client })
        }
        _ => None,
    }
}

/// Writes an answer.
pub fn write(answer: &Answer, message: &Message, terms: &Terms<'_>) -> [u8; MESSAGE_BYTES] {
    let mut bytes = [0; MESSAGE_BYTES];
    let flags = u16::from(message.broadcast) << 15;
    let mut all = put(&mut bytes, 0, &[2, 1, 6, 0])
        && put(&mut bytes, 4, &message.transaction.to_be_bytes())
        && put(&mut bytes, 10, &flags.to_be_bytes())
        && put(&mut bytes, 16, &answer.address.octets())
        && put(&mut bytes, 28, &message.mac.0)
        && put(&mut bytes, OPTIONS - 4, &COOKIE.to_be_bytes());
    if answer.kind != Kind::Refuse && !message.client.is_unspecified() {
        all &= put(&mut bytes, 12, &message.client.octets());
    }
    let mut place = OPTIONS;
    let mut option = |code: u8, value: &[u8]| {
        all &= put(&mut bytes, place, &[code, value.len() as u8]) && put(&mut bytes, place + 2, value);
        place += 2 + value.len();
    };
    option(MESSAGE_TYPE, &[answer.kind.number()]);
    option(SERVER, &terms.own.address.octets());
    if answer.kind != Kind::Refuse {
        if !answer.address.is_unspecified() {
            option(LEASE_TIME, &(LEASE.as_secs() as u32).to_be_bytes());
        }
        option(SUBNET_MASK, &terms.own.mask().to_be_bytes());
        option(BROADCAST, &terms.own.broadcast().octets());
        if let Some(router) = terms.router {
            option(ROUTER, &router.octets());
        }
        if !terms.dns.is_empty() {
            let mut servers = heapless::Vec::<u8, { 4 * NAME_SERVERS }>::new();
            terms.dns.iter().take(NAME_SERVERS).for_each(|server| {
                let _all = servers.extend_from_slice(&server.octets());
            });
            option(NAME_SERVER, &servers);
        }
    }
    all &= put(&mut bytes, place, &[END]);
    debug_assert!(all, "the options are longer than there is room");
    bytes
}

struct Lease {
    mac: MacAddress,
    until: Instant,
    /// The client has taken it; else it was offered.
    is_taken: bool,
}

/// The leases of a network: an address has a fixed place, and a client begins to look at one that its Ethernet address tells. So most clients
/// get the addresses that they had from an earlier life.
pub struct Leases {
    own: Network,
    /// By address, from the one behind the server's on.
    places: Vec<Lease>,
}

impl Leases {
    /// None. `own` is the server, the first host of its network.
    pub fn new(own: Network) -> Self {
        let hosts = (!own.mask() - 2).min(LEASES);
        let empty = || Lease { mac: MacAddress::default(), until: Instant::default(), is_taken: false };
        Self { own, places: (0..hosts).map(|_| empty()).collect() }
    }

    fn address(&self, place: usize) -> Ipv4Addr {
        // As many as there are hosts.
        Ipv4Addr::from_bits(self.own.first().address.to_bits().wrapping_add(1).wrapping_add(place as u32))
    }

    fn place(&self, address: Ipv4Addr) -> Option<usize> {
        let place = address.to_bits().checked_sub(self.own.first().address.to_bits())?.checked_sub(1)?;
        (place as usize).lt(&self.places.len()).then_some(place as usize)
    }

    /// Whether a client may have a place.
    fn is_for(&self, place: usize, mac: MacAddress, now: Instant) -> bool {
        self.places.get(place).is_some_and(|lease| lease.mac == mac || lease.until <= now)
    }

    fn take(&mut self, place: usize, mac: MacAddress, until: Instant) {
        self.set(place, Lease { mac, until, is_taken: true });
    }

    fn set(&mut self, place: usize, lease: Lease) {
        if let Some(place) = self.places.get_mut(place) {
            *place = lease;
        }
    }

    /// Goes on with a lease of an earlier life, as if it had been given now, where its address is free.
    pub fn restore(&mut self, mac: MacAddress, address: Ipv4Addr, now: Instant) {
        let place = self.place(address).filter(|place| mac.is_station() && self.is_for(*place, mac, now));
        if let Some(place) = place {
            self.take(place, mac, now + LEASE);
        }
    }

    /// The leases that there are. An offer is none.
    pub fn iter(&self, now: Instant) -> impl Iterator<Item = (MacAddress, Ipv4Addr)> {
        let known = self
            .places
            .iter()
            .enumerate()
            .filter(move |(_, lease)| lease.is_taken && lease.until > now && lease.mac.is_station());
        known.map(|(place, lease)| (lease.mac, self.address(place)))
    }
}

impl Book for Leases {
    fn offer(&mut self, mac: MacAddress, wanted: Option<Ipv4Addr>, now: Instant) -> Option<Ipv4Addr> {
        let count = self.places.len();
        let known = self.places.iter().position(|lease| lease.mac == mac && mac.is_station());
        let wanted = || wanted.and_then(|wanted| self.place(wanted)).filter(|place| self.is_for(*place, mac, now));
        let place = known.or_else(wanted).or_else(|| {
            let [_, _, c, d, e, f] = mac.0;
            let first = (u32::from_be_bytes([c, d, e, f]).wrapping_mul(0x9e37_79b1) >> 8) as usize;
            (0..count).map(|step| first.wrapping_add(step) % count).find(|place| self.is_for(*place, mac, now))
        })?;
        // A client that has a lease, and asks anew, still has it until it is over.
        let lease = self.places.get(place).filter(|lease| lease.mac == mac && lease.until > now);
        let (until, is_taken) = lease.map_or((now, false), |lease| (lease.until, lease.is_taken));
        self.set(place, Lease { mac, until: until.max(now + OFFER), is_taken });
        Some(self.address(place))
    }

    fn lease(&mut self, mac: MacAddress, address: Ipv4Addr, now: Instant) -> bool {
        let Some(place) = self.place(address).filter(|place| self.is_for(*place, mac, now)) else {
            return false;
        };
        // A client has one address.
        for lease in &mut self.places {
            if lease.mac == mac {
                lease.until = now;
            }
        }
        self.take(place, mac, now + LEASE);
        true
    }

    fn give_up(&mut self, mac: MacAddress, address: Ipv4Addr, declined: bool, now: Instant) {
        let Some(place) = self.place(address) else {
            return;
        };
        if self.places.get(place).is_some_and(|lease| lease.mac == mac) {
            match declined {
                true => self.take(place, MacAddress::default(), now + DECLINED),
                false => self.take(place, mac, now),
            }
        }
    }
}

/// The one address of a guest behind the router.
pub struct Single {
    /// The guest.
    pub mac: MacAddress,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Book for Single {
    fn offer(&mut self, mac: MacAddress, _wanted: Option<Ipv4Addr>, _now: Instant) -> Option<Ipv4Addr> {
        (mac == self.mac).then_some(self.address)
    }

    fn lease(&mut self, mac: MacAddress, address: Ipv4Addr, _now: Instant) -> bool {
        (mac, address) == (self.mac, self.address)
    }

    fn give_up(&mut self, _mac: MacAddress, _address: Ipv4Addr, _declined: bool, _now: Instant) {}
}

#[cfg(test)]
mod tests;
