//! ARP (RFC 826): questions and answers, and the stations of the way out that are known by it. Pure. Floor 3.

use crate::ethernet::MacAddress;
use crate::hash::KeyedHash;
use core::net::Ipv4Addr;
use split_driver::time::{Duration, Instant};

/// Bytes of a frame of ARP, padded to what an Ethernet carries at least.
pub(super) const FRAME: usize = 60;
/// `EtherType`.
pub(super) const ETHERTYPE: u16 = 0x0806;
/// An ARP packet begins so for Ethernet and IPv4.
const BEGINNING: [u8; 6] = [0, 1, 0x08, 0x00, 6, 4];

/// What a packet of ARP says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// It asks; otherwise it answers.
    pub(super) asks: bool,
    /// The sender.
    pub(super) sender: (MacAddress, Ipv4Addr),
    /// The station that it is about.
    pub(super) target: (MacAddress, Ipv4Addr),
}

impl Packet {
    /// The packet of a frame.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let packet: &[u8; 28] = bytes.get(14..)?.first_chunk()?;
        let mac = |place: usize| packet.get(place..)?.first_chunk().copied().map(MacAddress);
        let address = |place: usize| packet.get(place..)?.first_chunk::<4>().copied().map(Ipv4Addr::from);
        let asks = match packet.get(6..8)? {
            [0, 1] => true,
            [0, 2] => false,
            _ => return None,
        };
        let (sender, target) = ((mac(8)?, address(14)?), (mac(18)?, address(24)?));
        (packet.first_chunk() == Some(&BEGINNING)).then_some(Self { asks, sender, target })
    }

    /// The frame, to a station.
    pub(super) fn frame(&self, to: MacAddress) -> [u8; FRAME] {
        let mut frame = [0; FRAME];
        let (source, sender) = self.sender;
        let (known, target) = self.target;
        let kind = [0, if self.asks { 1 } else { 2 }];
        let parts: [&[u8]; 9] = [
            &to.0,
            &source.0,
            &ETHERTYPE.to_be_bytes(),
            &BEGINNING,
            &kind,
            &source.0,
            &sender.octets(),
            &known.0,
            &target.octets(),
        ];
        frame.iter_mut().zip(parts.iter().flat_map(|part| part.iter())).for_each(|(to, from)| *to = *from);
        frame
    }
}

/// How long a station is known without a question, how long at all, and how often it is asked.
const FRESH: Duration = Duration::from_secs(60);
const KNOWN: Duration = Duration::from_secs(120);
const AGAIN: Duration = Duration::from_secs(1);
/// Sets of the table, and stations of a set.
const SETS: usize = 64;
const WAYS: usize = 4;

#[derive(Clone, Copy, Default)]
struct Neighbour {
    address: u32,
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

    fn set(&mut self, address: Ipv4Addr) -> &mut [Neighbour] {
        let set = self.key.of([address.to_bits().into()]) as usize % SETS;
        self.sets.get_mut(set).map_or(&mut [], |set| set)
    }

    /// Looks for a station, which is to be sent to.
    pub(super) fn look(&mut self, address: Ipv4Addr, now: Instant) -> Look {
        let set = self.set(address);
        let bits = address.to_bits();
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
    pub(super) fn hear(&mut self, address: Ipv4Addr, mac: MacAddress, now: Instant) {
        let known = self.set(address).iter_mut().find(|known| known.address == address.to_bits());
        if let Some(known) = known.filter(|known| mac.is_station() && known.asked.is_some()) {
            (known.mac, known.heard) = (mac, now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    #[test]
    fn a_frame_and_back() {
        let (one, other) = (MacAddress([2; 6]), MacAddress([4; 6]));
        for asks in [true, false] {
            let packet =
                Packet { asks, sender: (one, Ipv4Addr::new(10, 0, 0, 1)), target: (other, Ipv4Addr::new(10, 0, 0, 2)) };
            let frame = packet.frame(MacAddress::BROADCAST);
            assert_eq!(Packet::parse(&frame), Some(packet));
            assert_eq!(Packet::parse(&frame[..41]), None);
        }
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
}
