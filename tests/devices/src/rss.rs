//! Receive-side scaling: which fields of a packet are hashed. 82599 datasheet 7.1.2.8, 82576 datasheet 7.1.1.7. Pure.

use crate::packet::{Headers, Network, Transport};
use crate::registers::Registers;
use crate::toeplitz;

/// What of a packet is hashed: MRQC's bit, the RSS type in its descriptor, and whether ports are part of it.
const HASHES: [(Rule, u32, u32, bool); 6] = [
    (Rule::TcpV4, 1 << 16, 1, true),
    (Rule::UdpV4, 1 << 22, 7, true),
    (Rule::V4, 1 << 17, 2, false),
    (Rule::TcpV6, 1 << 21, 3, true),
    (Rule::UdpV6, 1 << 23, 8, true),
    (Rule::V6, 1 << 20, 5, false),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Rule {
    TcpV4,
    UdpV4,
    V4,
    TcpV6,
    UdpV6,
    V6,
}

impl Rule {
    const fn fits(self, headers: &Headers) -> bool {
        let v4 = matches!(headers.network, Some(Network::V4 { .. }));
        let v6 = matches!(headers.network, Some(Network::V6 { .. }));
        let tcp = matches!(headers.transport, Some(Transport::Tcp(_)));
        let udp = matches!(headers.transport, Some(Transport::Udp(_)));
        match self {
            Self::TcpV4 => v4 && tcp,
            Self::UdpV4 => v4 && udp,
            Self::V4 => v4,
            Self::TcpV6 => v6 && tcp,
            Self::UdpV6 => v6 && udp,
            Self::V6 => v6,
        }
    }
}

/// Entries of RETA.
const TABLE: usize = 128;

/// Where a device has the registers of receive-side scaling.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// MRQC.
    pub mrqc: usize,
    /// RSSRK: 10 registers.
    pub key: usize,
    /// RETA: 32 registers.
    pub table: usize,
    /// ERETA: 96 registers with the entries behind RETA's, of a device that has 512 and up to 64 queues in them.
    pub more: Option<usize>,
}

/// How a packet is spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spread {
    /// The entry of RETA.
    pub queue: usize,
    /// RSS type of its descriptor.
    pub kind: u32,
    /// The hash.
    pub hash: u32,
}

/// The queue that a packet is spread to, where MRQC has one of its fields hashed.
pub fn spread(registers: &Registers, places: Places, headers: &Headers) -> Option<Spread> {
    let fields = registers.get(places.mrqc);
    let (_, _, kind, ports) = HASHES.into_iter().find(|(rule, bit, ..)| fields & bit != 0 && rule.fits(headers))?;
    let mut input = headers.addresses.clone();
    if ports {
        input.extend(headers.ports.unwrap_or_default());
    }
    let mut key = [0; toeplitz::KEY_BYTES];
    for (index, place) in key.as_chunks_mut::<4>().0.iter_mut().enumerate() {
        *place = registers.get(places.key + 4 * index).to_le_bytes();
    }
    let hash = toeplitz::hash(&key, &input);
    let (entries, queues) = if places.more.is_some() { (512, 0x3F) } else { (TABLE, 0xF) };
    let entry = hash as usize % entries;
    let (table, place) = match places.more {
        Some(more) if entry >= TABLE => (more, entry - TABLE),
        _ => (places.table, entry),
    };
    let queue = registers.get(table + place / 4 * 4) >> (8 * (place % 4)) & queues;
    Some(Spread { queue: queue as usize, kind, hash })
}
