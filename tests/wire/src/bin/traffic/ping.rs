//! ICMP and ICMPv6 echo (RFC 792, RFC 4443 section 4) over a raw socket. Linux user space, root.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, connect, socket};
use serde_json::{Value, json};

use crate::Failure;
use crate::arguments::Arguments;

/// How long a request waits for its reply before the next one is sent, where they are not paced.
const WAIT: Duration = Duration::from_secs(2);
/// How long a reply may take after the last request: a busy host is no loss.
const LAST_WAIT: Duration = Duration::from_secs(10);
const HEADER: usize = 8;

struct Pinger {
    socket: UdpSocket,
    v6: bool,
    identifier: u16,
    sent: Vec<Instant>,
    trips: Vec<Option<Duration>>,
    duplicates: u64,
    size: usize,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Value, Failure> {
    let to = arguments.host(0)?;
    let count = usize::try_from(arguments.number(1)?)?;
    let interval = Duration::from_secs_f64(arguments.operand(2).unwrap_or("1000").parse::<f64>()? / 1000.0);
    let mut pinger = Pinger::new(to, usize::from(arguments.size.unwrap_or(56)))?;
    let (mut next, end) = (Instant::now(), arguments.end(None));
    while pinger.sent.len() < count && !end.is_here() {
        pinger.send()?;
        // One that is late makes no more than one request of it.
        next = (next + interval).max(Instant::now());
        if interval.is_zero() {
            pinger.receive_until(Instant::now() + WAIT, |pinger| pinger.trips.last().is_some_and(Option::is_some))?;
        } else {
            pinger.receive_until(next, |_| false)?;
        }
    }
    pinger.receive_until(Instant::now() + LAST_WAIT, |pinger| pinger.trips.iter().all(Option::is_some))?;
    Ok(pinger.result())
}

impl Pinger {
    fn new(to: SocketAddr, size: usize) -> Result<Self, Failure> {
        let (family, protocol) = match to {
            SocketAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            SocketAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let raw = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        connect(raw.as_raw_fd(), &SockaddrStorage::from(to))?;
        // Replies to requests that had to wait come all at once.
        crate::udp::enlarge(&raw);
        Ok(Self {
            // The standard library has no raw sockets, but send, receive and timeouts are the same for all.
            socket: UdpSocket::from(raw),
            v6: to.is_ipv6(),
            identifier: std::process::id() as u16,
            sent: Vec::new(),
            trips: Vec::new(),
            duplicates: 0,
            size,
        })
    }

    fn send(&mut self) -> Result<(), Failure> {
        let sequence = self.sent.len() as u16;
        let mut packet = vec![if self.v6 { 128 } else { 8 }, 0, 0, 0];
        packet.extend_from_slice(&self.identifier.to_be_bytes());
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.resize(HEADER + self.size, 0xa5);
        if !self.v6 {
            // The kernel does it for ICMPv6, whose checksum covers addresses.
            let sum = checksum(&packet).to_be_bytes();
            for (to, from) in packet.iter_mut().skip(2).zip(sum) {
                *to = from;
            }
        }
        self.sent.push(Instant::now());
        self.trips.push(None);
        match self.socket.send(&packet) {
            // A device that is gone for a moment loses this one; that is what is to be counted.
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Err(error.into()),
            Err(_) => Ok(()),
        }
    }

    /// Takes replies until then, and all that are there by then: a process that gets little CPU is late each time.
    fn receive_until(&mut self, until: Instant, mut done: impl FnMut(&Self) -> bool) -> Result<(), Failure> {
        let mut buffer = [0; 65536];
        while !done(self) {
            let left = until.saturating_duration_since(Instant::now());
            self.socket.set_read_timeout(Some(left.max(Duration::from_micros(10))))?;
            match self.socket.recv(&mut buffer) {
                Ok(length) => {
                    self.handle_packet(buffer.get(..length).unwrap_or_default(), Instant::now());
                }
                Err(_) if left.is_zero() => return Ok(()),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn handle_packet(&mut self, packet: &[u8], now: Instant) -> Option<()> {
        // A raw IPv4 socket gives the IP header too.
        let skip = if self.v6 { 0 } else { usize::from(packet.first()? & 0xf) * 4 };
        let [kind, _, _, _, id_high, id_low, high, low] = *packet.get(skip..)?.first_chunk::<HEADER>()?;
        let reply = if self.v6 { 129 } else { 0 };
        if kind != reply || u16::from_be_bytes([id_high, id_low]) != self.identifier {
            return None;
        }
        // The sequence number has 16 bits; the newest request that fits it is meant.
        let newest = self.sent.len().checked_sub(1)?;
        let back = (newest as u16).wrapping_sub(u16::from_be_bytes([high, low]));
        let index = newest.checked_sub(usize::from(back))?;
        let trip = self.trips.get_mut(index)?;
        match trip {
            Some(_) => self.duplicates += 1,
            None => *trip = Some(now.duration_since(*self.sent.get(index)?)),
        }
        Some(())
    }

    fn result(&self) -> Value {
        let mut trips: Vec<f64> =
            self.trips.iter().flatten().map(|trip| (trip.as_secs_f64() * 1e9).round() / 1e3).collect();
        trips.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (share * trips.len().saturating_sub(1) as f64).round() as usize;
            trips.get(index).copied().unwrap_or(0.0)
        };
        let lost = self.sent.len() - trips.len();
        json!({
            "command": "ping",
            "sent": self.sent.len(),
            "received": trips.len(),
            "lost": lost,
            "longest_loss_ms": longest_loss(&self.sent, &self.trips).as_secs_f64() * 1e3,
            "duplicates": self.duplicates,
            "min_us": at(0.0),
            "median_us": at(0.5),
            "mean_us": trips.iter().sum::<f64>() / trips.len().max(1) as f64,
            "p99_us": at(0.99),
            "max_us": at(1.0),
            "ok": lost == 0,
        })
    }
}

/// The longest time in which each request was lost: from the sending of the first of a row to that of the next one that was answered.
fn longest_loss(sent: &[Instant], trips: &[Option<Duration>]) -> Duration {
    let (mut first_lost, mut longest) = (None, Duration::ZERO);
    for (sent, trip) in sent.iter().zip(trips) {
        let since = *first_lost.get_or_insert(*sent);
        longest = longest.max(sent.duration_since(since));
        if trip.is_some() {
            first_lost = None;
        }
    }
    longest
}

/// The checksum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair.first().copied().unwrap_or(0), low]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_loss_is_of_requests_in_a_row() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let loss = |answered: &[bool]| {
            let sent: Vec<_> = (0..answered.len() as u32).map(|index| start + second * index).collect();
            let trips: Vec<_> = answered.iter().map(|answered| answered.then_some(second)).collect();
            longest_loss(&sent, &trips).as_secs()
        };
        assert_eq!(loss(&[]), 0);
        assert_eq!(loss(&[true, true, true]), 0);
        assert_eq!(loss(&[true, false, true, false, false, true, false, true]), 2);
        assert_eq!(loss(&[false, true, false, false, false, false]), 3);
    }
}
