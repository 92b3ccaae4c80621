//! The stations of the way out that are known by ARP (RFC 826) or by neighbour discovery (RFC 4861). A new life learns them anew. Pure. Floor 3.

use crate::ethernet::MacAddress;
use crate::hash::KeyedHash;
use core::net::IpAddr;
use split_driver::time::{Duration, Instant};

/// How long a station is known without a question, how long at all, and how often it is asked.
const FRESH: Duration = Duration::from_secs(60);
const KNOWN: Duration = Duration::from_secs(120);
const AGAIN: Duration = Duration::from_secs(1);
/// Sets of the table, and stations of a set.
const SETS: usize = 64;
const WAYS: usize = 4;

#[derive(Clone, Copy, Default)]
struct Neighbour {
    /// Of IPv6, or of IPv4 in it (RFC 4291, 2.5.5.2); none where it is zero.
    address: u128,
    /// Not a station where it did not answer yet.
    mac: MacAddress,
    heard: Instant,
    asked: Option<Instant>,
    used: Instant,
}

/// What is known of a station.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look {
    /// Its address, where it is known.
    pub(super) mac: Option<MacAddress>,
    /// It is to be asked.
    pub(super) ask: bool,
}

/// The stations that packets were sent to of late: [`SETS`] times [`WAYS`].
pub(super) struct Neighbours {
    key: KeyedHash,
    sets: [[Neighbour; WAYS]; SETS],
}

impl Neighbours {
    /// None. `seed` is a number that nobody knows.
    pub(super) fn new(seed: u64) -> Self {
        Self { key: KeyedHash::new(seed), sets: [[Neighbour::default(); WAYS]; SETS] }
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        self.sets = [[Neighbour::default(); WAYS]; SETS];
    }

    fn set(&mut self, address: u128) -> &mut [Neighbour] {
        let set = self.key.of([(address >> 64) as u64, address as u64]) as usize % SETS;
        self.sets.get_mut(set).map_or(&mut [], |set| set)
    }

    /// Looks for a station, which is to be sent to.
    pub(super) fn look(&mut self, address: impl Into<IpAddr>, now: Instant) -> Look {
        let bits = bits(address.into());
        let set = self.set(bits);
        let place = match set.iter().position(|known| known.address == bits) {
            Some(place) => place,
            None => {
                // Those that never answered go first: a guest that tries one address after the other costs the others no station.
                let given_up = set.iter().enumerate().min_by_key(|(_, known)| (known.mac.is_station(), known.used));
                let given_up = given_up.map_or(0, |(place, _)| place);
                if let Some(place) = set.get_mut(given_up) {
                    *place = Neighbour { address: bits, ..Neighbour::default() };
                }
                given_up
            }
        };
        let Some(known) = set.get_mut(place) else {
            return Look { mac: None, ask: false };
        };
        known.used = now;
        let age = now.since(known.heard);
        let mac = Some(known.mac).filter(|mac| mac.is_station() && age <= KNOWN);
        let ask = (mac.is_none() || age > FRESH) && known.asked.is_none_or(|asked| now.since(asked) >= AGAIN);
        if ask {
            known.asked = Some(now);
        }
        Look { mac, ask }
    }

    /// A station said which address it has. It counts where it is one that packets were to be sent to.
    pub(super) fn hear(&mut self, address: impl Into<IpAddr>, mac: MacAddress, now: Instant) {
        let bits = bits(address.into());
        let known = self.set(bits).iter_mut().find(|known| known.address == bits);
        if let Some(known) = known.filter(|known| mac.is_station() && known.asked.is_some()) {
            (known.mac, known.heard) = (mac, now);
        }
    }
}

const fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use core::net::{Ipv4Addr, Ipv6Addr};

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    /// A guest tries addresses that nobody has.
    #[test]
    fn stations_that_never_answer_push_out_none_that_did() {
        let mut all = Neighbours::new(5);
        let mac = MacAddress([2; 6]);
        // No set of the table is full of stations.
        let known: Vec<_> = (0..64_u32).map(Ipv4Addr::from_bits).collect();
        for address in &known {
            all.look(*address, at(0));
            all.hear(*address, mac, at(0));
        }
        let there = |all: &mut Neighbours| known.iter().filter(|one| all.look(**one, at(0)).mac.is_some()).count();
        assert!(there(&mut all) > 60, "{} of 64", there(&mut all));
        let before = there(&mut all);
        for number in 100_000..110_000 {
            all.look(Ipv4Addr::from_bits(number), at(1));
        }
        let after = there(&mut all);
        assert!(after + 8 >= before, "{after} of {before}");
    }

    #[test]
    fn stations_are_asked_and_heard() {
        let mut all = Neighbours::new(5);
        let (address, mac) = (Ipv4Addr::new(10, 0, 0, 9), MacAddress([2; 6]));
        // Not asked for.
        all.hear(address, mac, at(0));
        assert_eq!(all.look(address, at(0)), Look { mac: None, ask: true });
        assert_eq!(all.look(address, at(0)), Look { mac: None, ask: false });
        assert_eq!(all.look(address, at(1)), Look { mac: None, ask: true });
        all.hear(address, MacAddress::BROADCAST, at(1));
        assert_eq!(all.look(address, at(1)).mac, None);
        all.hear(address, mac, at(1));
        assert_eq!(all.look(address, at(61)), Look { mac: Some(mac), ask: false });
        assert_eq!(all.look(address, at(62)), Look { mac: Some(mac), ask: true });
        assert_eq!(all.look(address, at(122)), Look { mac: None, ask: true });
        // However many there are, the last ones are known.
        for number in 0..5000_u32 {
            let address = Ipv4Addr::from_bits(number);
            all.look(address, at(200 + u64::from(number)));
            all.hear(address, mac, at(200 + u64::from(number)));
            assert_eq!(all.look(address, at(200 + u64::from(number))).mac, Some(mac));
        }
    }

    /// An address of IPv6 is not the one of IPv4 with the same last bits, nor another with them.
    #[test]
    fn addresses_of_both_families() {
        let mut all = Neighbours::new(5);
        let mac = MacAddress([2; 6]);
        let long = [Ipv6Addr::from_bits(9), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9)];
        all.look(Ipv4Addr::from_bits(9), at(0));
        all.hear(Ipv4Addr::from_bits(9), mac, at(0));
        for address in long {
            assert_eq!(all.look(address, at(0)), Look { mac: None, ask: true });
        }
        all.hear(long[1], mac, at(0));
        assert_eq!(long.map(|address| all.look(address, at(0)).mac), [None, Some(mac)]);
    }
}
