//! The client of DHCP (RFC 2131, 2132) on the way out: it gets the router's own address, and keeps it. Pure. Floor 3.
//!
//! Time is told to it, frames are given to it, and it says what is to be sent. It believes a message that has its Ethernet address and the number of its
//! own question, and one about a lease from the server that it chose. A lease whose address makes no host of its network is none.

use super::{
    COOKIE, END, Kind, LEASE_TIME, MESSAGE_BYTES, MESSAGE_TYPE, NAME_SERVER, NAME_SERVERS, OPTIONS, PAD, REQUESTED,
    ROUTER, SERVER, SUBNET_MASK,
};
use crate::ethernet::MacAddress;
use crate::offload::headers::{put, read_u32};
use crate::router::config::Network;
use core::fmt;
use core::net::Ipv4Addr;
use split_driver::time::{Duration, Instant};

/// Options of a server alone (RFC 2132, 9.8, 9.11, 9.12).
const WISHES: u8 = 55;
const RENEWAL_TIME: u8 = 58;
const REBINDING_TIME: u8 = 59;

/// The first pause between two questions, and how often it doubles (RFC 2131, 4.1); each is up to a second longer or shorter.
const PAUSE: Duration = Duration::from_secs(4);
const DOUBLINGS: u32 = 4;
/// The shortest pause between two questions about a lease that there is (RFC 2131, 4.4.5).
const RENEWAL_PAUSE: Duration = Duration::from_secs(60);
/// How long a client waits that was refused what it had been offered.
const REFUSED: Duration = Duration::from_secs(10);
/// How often an offer is asked for.
const REQUESTS: u32 = 4;
/// The shortest lease that is used, and the longest: an endless one is as long.
const SHORTEST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Bytes of a lease that is kept.
pub const KEPT_BYTES: usize = 62;

/// Name servers.
pub type Servers = heapless::Vec<Ipv4Addr, NAME_SERVERS>;

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// An offer, an acknowledgement or a refusal.
    pub kind: Kind,
    /// The number of the question.
    pub transaction: u32,
    /// The client.
    pub mac: MacAddress,
    /// The client's address.
    pub address: Ipv4Addr,
    /// The server.
    pub server: Option<Ipv4Addr>,
    /// The network's mask.
    pub mask: Option<u32>,
    /// The first router of the network.
    pub router: Option<Ipv4Addr>,
    /// The first name servers.
    pub dns: Servers,
    /// Seconds that the lease is good for.
    pub lease: Option<u32>,
    /// After so many it is renewed.
    pub renew: Option<u32>,
    /// After so many any server is asked for it.
    pub rebind: Option<u32>,
}

impl Reply {
    /// The message of a server; `None` where it is none, or an option has not the length that it must have.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let [2, 1, 6, _, ..] = bytes else {
            return None;
        };
        if read_u32(bytes, OPTIONS - 4)? != COOKIE {
            return None;
        }
        let mut kind = None;
        let mut reply = Self {
            kind: Kind::Offer,
            transaction: read_u32(bytes, 4)?,
            mac: MacAddress(*bytes.get(28..)?.first_chunk()?),
            address: Ipv4Addr::from_bits(read_u32(bytes, 16)?),
            server: None,
            mask: None,
            router: None,
            dns: Servers::new(),
            lease: None,
            renew: None,
            rebind: None,
        };
        let mut options = bytes.get(OPTIONS..)?;
        while let [code, rest @ ..] = options {
            options = match *code {
                PAD => rest,
                END => break,
                code => {
                    let (length, rest) = rest.split_first()?;
                    let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                    reply.take(code, value, &mut kind)?;
                    rest
                }
            };
        }
        Some(Self { kind: kind?, ..reply })
    }

    /// Takes an option. `None` where it has a wrong length.
    fn take(&mut self, code: u8, value: &[u8], kind: &mut Option<Kind>) -> Option<()> {
        let number = || value.try_into().ok().map(u32::from_be_bytes);
        match code {
            MESSAGE_TYPE => {
                let [number] = value else {
                    return None;
                };
                *kind = Kind::ALL.into_iter().find(|kind| kind.number() == *number);
            }
            SERVER => self.server = Some(Ipv4Addr::from_bits(number()?)),
            SUBNET_MASK => self.mask = Some(number()?),
            LEASE_TIME => self.lease = Some(number()?),
            RENEWAL_TIME => self.renew = Some(number()?),
            REBINDING_TIME => self.rebind = Some(number()?),
            ROUTER | NAME_SERVER => {
                let (addresses, []) = value.as_chunks::<4>() else {
                    return None;
                };
                let first = addresses.first()?;
                if code == ROUTER {
                    self.router = Some(Ipv4Addr::from(*first));
                } else {
                    self.dns = addresses.iter().copied().map(Ipv4Addr::from).take(NAME_SERVERS).collect();
                }
            }
            _ => {}
        }
        Some(())
    }
}

/// Whether an address may be that of a station (RFC 1122, 3.2.1.3).
fn is_unicast(address: Ipv4Addr) -> bool {
    let [first, ..] = address.octets();
    (1..224).contains(&first) && first != 127
}

/// An address that the router has for some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The address, in its network.
    pub network: Network,
    /// The router that all other networks are behind.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Servers,
    /// The server that it is of.
    pub server: Ipv4Addr,
    /// The Ethernet address that the server's answer came from: its own, or that of the router to it.
    station: MacAddress,
    renew: Instant,
    rebind: Instant,
    until: Instant,
}

impl Lease {
    /// From an offer or an acknowledgement; the lease begins at `begin`. `None` where it makes no lease.
    fn new(reply: &Reply, server: Ipv4Addr, station: MacAddress, begin: Instant) -> Option<Self> {
        let mask = reply.mask?;
        let network = Network { address: reply.address, length: u8::try_from(mask.leading_ones()).ok()? };
        let is_whole = (1..=30).contains(&network.length) && network.mask() == mask;
        if !is_whole {
            return None;
        }
        let length = Duration::from_secs(reply.lease?.into()).min(LONGEST);
        let given = (reply.renew.unwrap_or(0), reply.rebind.unwrap_or(0));
        let given = (Duration::from_secs(given.0.into()), Duration::from_secs(given.1.into()));
        let (renew, rebind) = match given {
            (renew, rebind) if !renew.is_zero() && renew < rebind && rebind < length => given,
            // RFC 2131, 4.4.5.
            _ => (length / 2, length * 7 / 8),
        };
        let lease = Self {
            network,
            gateway: reply.router,
            dns: reply.dns.clone(),
            server,
            station,
            renew: begin + renew,
            rebind: begin + rebind,
            until: begin + length,
        };
        (length >= SHORTEST).then(|| lease.checked()).flatten()
    }

    /// The same without what makes no sense; `None` where its address makes none.
    fn checked(mut self) -> Option<Self> {
        let network = self.network;
        let is_host = is_unicast(network.address) && network.is_host(network.address);
        self.gateway = self.gateway.filter(|gateway| network.is_host(*gateway) && *gateway != network.address);
        self.dns.retain(|server| is_unicast(*server) && *server != network.address);
        (is_host && self.station.is_station() && is_unicast(self.server)).then_some(self)
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.network)?;
        if let Some(gateway) = self.gateway {
            write!(formatter, ", gateway {gateway}")?;
        }
        for (place, server) in self.dns.iter().enumerate() {
            write!(formatter, "{}{server}", if place == 0 { ", dns " } else { "," })?;
        }
        write!(formatter, ", by DHCP of {}", self.server)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It has no Ethernet address yet.
    Off,
    /// It looks for servers.
    Selecting,
    /// It wants what one offered.
    Requesting { address: Ipv4Addr, server: Ipv4Addr },
    /// It has a lease.
    Bound,
    /// It asks the server for more time.
    Renewing,
    /// It asks any server for more time.
    Rebinding,
}

/// A message that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The message.
    pub message: [u8; MESSAGE_BYTES],
    /// The client's address; unspecified where it has none.
    pub source: Ipv4Addr,
    /// The station, and its address.
    pub to: (MacAddress, Ipv4Addr),
}

/// The client.
pub struct Client {
    random: u64,
    mac: MacAddress,
    state: State,
    transaction: u32,
    /// When it began to look for a lease, or to renew it.
    began: Instant,
    /// When it asked last.
    asked: Instant,
    tries: u32,
    due: Option<Instant>,
    /// The address that it had.
    wanted: Option<Ipv4Addr>,
    lease: Option<Lease>,
}

impl Client {
    /// Without an Ethernet address. `seed` is a number that other stations do not know.
    pub fn new(seed: u64) -> Self {
        let (zero, lease, due, wanted) = (Instant::default(), None, None, None);
        Self {
            random: seed | 1,
            mac: MacAddress::default(),
            state: State::Off,
            transaction: 0,
            began: zero,
            asked: zero,
            tries: 0,
            due,
            wanted,
            lease,
        }
    }

    /// Its Ethernet address; no station's before it has one.
    pub const fn mac(&self) -> MacAddress {
        self.mac
    }

    /// The lease that it has.
    pub const fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    /// When [`Self::poll`] has something to do.
    pub const fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Begins, with this Ethernet address, where it has none yet.
    pub fn begin(&mut self, mac: MacAddress, now: Instant) {
        if self.state == State::Off && mac.is_station() {
            self.mac = mac;
            self.restart(now);
        }
    }

    /// The wire has a link again, and may be another one: what there is to be asked is asked now.
    pub fn link_up(&mut self, now: Instant) {
        match self.state {
            State::Off => {}
            State::Selecting | State::Requesting { .. } => self.restart(now),
            State::Bound | State::Renewing | State::Rebinding => self.begin_exchange(State::Rebinding, now),
        }
    }

    fn restart(&mut self, now: Instant) {
        self.begin_exchange(State::Selecting, now);
    }

    fn begin_exchange(&mut self, state: State, now: Instant) {
        (self.state, self.transaction) = (state, self.next_random() as u32);
        (self.began, self.tries, self.due) = (now, 0, Some(now));
    }

    /// A number that other stations cannot guess (xorshift64*).
    fn next_random(&mut self) -> u64 {
        let mut state = self.random;
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random = state;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32
    }

    fn lose(&mut self, now: Instant) {
        self.wanted = self.lease.take().map(|lease| lease.network.address).or(self.wanted);
        self.restart(now);
    }

    /// What is to be sent now. The lease may be over with it.
    pub fn poll(&mut self, now: Instant) -> Option<Question> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        let times = self.lease.as_ref().map(|lease| (lease.rebind, lease.until));
        match (times, self.state) {
            (Some((_, until)), _) if now >= until => self.lose(now),
            (Some((rebind, _)), State::Bound | State::Renewing) if now >= rebind => {
                self.begin_exchange(State::Rebinding, now);
            }
            (_, State::Bound) => self.begin_exchange(State::Renewing, now),
            (_, State::Requesting { .. }) if self.tries >= REQUESTS => self.restart(now),
            _ => {}
        }
        (self.tries, self.asked) = (self.tries.saturating_add(1), now);
        let until_half = |end: Instant| {
            let left = end.since(now);
            now + (left / 2).max(RENEWAL_PAUSE).min(left)
        };
        let due = match (self.state, &self.lease) {
            (State::Renewing, Some(lease)) => until_half(lease.rebind),
            (State::Rebinding, Some(lease)) => until_half(lease.until),
            _ => {
                let doubled = PAUSE * (1 << self.tries.saturating_sub(1).min(DOUBLINGS));
                let spread = Duration::from_millis(self.next_random() % 2000);
                now + (doubled + spread).saturating_sub(Duration::from_secs(1))
            }
        };
        self.due = Some(due);
        self.question(now)
    }

    /// The message that is due in this state.
    fn question(&self, now: Instant) -> Option<Question> {
        let everywhere = (MacAddress::BROADCAST, Ipv4Addr::BROADCAST);
        let nobody = Ipv4Addr::UNSPECIFIED;
        let (kind, source, requested, server, to) = match (self.state, &self.lease) {
            (State::Off | State::Bound, _) | (State::Renewing | State::Rebinding, None) => return None,
            (State::Selecting, _) => (Kind::Discover, nobody, self.wanted, None, everywhere),
            (State::Requesting { address, server }, _) => {
                (Kind::Request, nobody, Some(address), Some(server), everywhere)
            }
            (State::Renewing, Some(lease)) => {
                (Kind::Request, lease.network.address, None, None, (lease.station, lease.server))
            }
            (State::Rebinding, Some(lease)) => (Kind::Request, lease.network.address, None, None, everywhere),
        };
        let seconds = u16::try_from(now.since(self.began).as_secs()).unwrap_or(u16::MAX);
        let mut message = [0; MESSAGE_BYTES];
        let mut all = put(&mut message, 0, &[1, 1, 6, 0])
            && put(&mut message, 4, &self.transaction.to_be_bytes())
            && put(&mut message, 8, &seconds.to_be_bytes())
            && put(&mut message, 12, &source.octets())
            && put(&mut message, 28, &self.mac.0)
            && put(&mut message, OPTIONS - 4, &COOKIE.to_be_bytes());
        let mut place = OPTIONS;
        let mut option = |code: u8, value: &[u8]| {
            all &= put(&mut message, place, &[code, value.len() as u8]) && put(&mut message, place + 2, value);
            place += 2 + value.len();
        };
        option(MESSAGE_TYPE, &[kind.number()]);
        for (code, value) in [(REQUESTED, requested), (SERVER, server)] {
            if let Some(value) = value {
                option(code, &value.octets());
            }
        }
        option(WISHES, &[SUBNET_MASK, ROUTER, NAME_SERVER, LEASE_TIME, RENEWAL_TIME, REBINDING_TIME]);
        all &= put(&mut message, place, &[END]);
        debug_assert!(all, "the options are longer than there is room");
        Some(Question { message, source, to })
    }

    /// A server's message came from a station. Whether the lease is another one than before, as far as its address, gateway and name servers go.
    pub fn hear(&mut self, reply: &Reply, station: MacAddress, now: Instant) -> bool {
        if reply.mac != self.mac || reply.transaction != self.transaction || now.since(self.began) > LONGEST {
            return false;
        }
        let of = |known: Ipv4Addr| reply.server == Some(known);
        let current = self.lease.as_ref().map(|lease| (lease.network.address, lease.server));
        match (self.state, reply.kind, current) {
            (State::Selecting, Kind::Offer, _) => {
                if let Some(server) = reply.server
                    && let Some(offer) = Lease::new(reply, server, station, now)
                {
                    self.state = State::Requesting { address: offer.network.address, server };
                    (self.tries, self.due) = (0, Some(now));
                }
                false
            }
            (State::Requesting { address, server }, Kind::Acknowledge, _) if of(server) && reply.address == address => {
                self.take(Lease::new(reply, server, station, self.asked))
            }
            (State::Requesting { server, .. }, Kind::Refuse, _) if of(server) => {
                (self.wanted, self.lease) = (None, None);
                self.restart(now);
                self.due = Some(now + REFUSED);
                false
            }
            (State::Renewing, Kind::Acknowledge, Some((address, server)))
                if reply.address == address && (of(server) || reply.server.is_none()) =>
            {
                self.take(Lease::new(reply, server, station, self.asked))
            }
            (State::Rebinding, Kind::Acknowledge, Some((address, server))) if reply.address == address => {
                self.take(Lease::new(reply, reply.server.unwrap_or(server), station, self.asked))
            }
            (State::Renewing, Kind::Refuse, Some((_, server))) if !of(server) => false,
            (State::Renewing | State::Rebinding, Kind::Refuse, Some(_)) => {
                self.lose(now);
                self.wanted = None;
                true
            }
            _ => false,
        }
    }

    /// Takes a lease, where it is one.
    fn take(&mut self, lease: Option<Lease>) -> bool {
        let Some(lease) = lease else {
            return false;
        };
        let is_other = self.lease.as_ref().is_none_or(|known| {
            (known.network, known.gateway, &known.dns) != (lease.network, lease.gateway, &lease.dns)
        });
        (self.state, self.due) = (State::Bound, Some(lease.renew));
        (self.wanted, self.lease) = (Some(lease.network.address), Some(lease));
        is_other
    }

    /// The lease for the domain's next life: Ethernet addresses, IP addresses, and times, in the order of the network.
    pub fn keep(&self) -> Option<[u8; KEPT_BYTES]> {
        let lease = self.lease.as_ref()?;
        let mut bytes = [0; KEPT_BYTES];
        let dns: [Ipv4Addr; NAME_SERVERS] =
            core::array::from_fn(|place| lease.dns.get(place).copied().unwrap_or(Ipv4Addr::UNSPECIFIED));
        let mut all = put(&mut bytes, 0, &[1])
            && put(&mut bytes, 1, &self.mac.0)
            && put(&mut bytes, 7, &lease.station.0)
            && put(&mut bytes, 13, &lease.network.address.octets())
            && put(&mut bytes, 17, &[lease.network.length])
            && put(&mut bytes, 18, &lease.gateway.unwrap_or(Ipv4Addr::UNSPECIFIED).octets())
            && put(&mut bytes, 22, &lease.server.octets());
        for (place, server) in dns.iter().enumerate() {
            all &= put(&mut bytes, 26 + 4 * place, &server.octets());
        }
        for (place, time) in [lease.renew, lease.rebind, lease.until].iter().enumerate() {
            all &= put(&mut bytes, 38 + 8 * place, &time.0.to_be_bytes());
        }
        all.then_some(bytes)
    }

    /// Goes on with the lease of an earlier life, and renews it. One that is over, or that makes no sense, is none; the Ethernet address is used
    /// in any case, where it is a station's.
    pub fn restore(&mut self, bytes: &[u8], now: Instant) {
        let Some(bytes) = bytes.first_chunk::<KEPT_BYTES>().filter(|bytes| bytes[0] == 1) else {
            return;
        };
        let mac = |place: usize| bytes.get(place..)?.first_chunk().copied().map(MacAddress);
        let address = |place: usize| read_u32(bytes, place).map(Ipv4Addr::from_bits);
        let time = |place: usize| bytes.get(place..)?.first_chunk().map(|time| Instant(u64::from_be_bytes(*time)));
        if let Some(mac) = mac(1) {
            self.begin(mac, now);
        }
        let lease = || {
            let lease = Lease {
                network: Network { address: address(13)?, length: *bytes.get(17)? },
                gateway: address(18),
                dns: (0..NAME_SERVERS).filter_map(|place| address(26 + 4 * place)).collect(),
                server: address(22)?,
                station: mac(7)?,
                renew: time(38)?,
                rebind: time(46)?,
                until: time(54)?,
            };
            let is_now = lease.until > now && lease.until.since(now) <= LONGEST;
            let in_order = lease.renew <= lease.rebind && lease.rebind <= lease.until;
            let is_network = (1..=30).contains(&lease.network.length);
            (is_now && in_order && is_network).then(|| lease.checked()).flatten()
        };
        if self.state == State::Selecting
            && let Some(lease) = lease()
        {
            self.lease = Some(lease);
            self.begin_exchange(State::Renewing, now);
        }
    }
}

#[cfg(test)]
mod tests;
