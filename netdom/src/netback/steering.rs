//! Which of a vif's queues a packet goes to. Pure. Floor 3.
//!
//! Packets of one flow go to one queue, so that they stay in their order. A guest may say how by its control ring ([`super::control`]), and
//! is then told each packet's hash. Otherwise it is a keyed hash over addresses and ports.

use super::control::Hashing;
use crate::hash::KeyedHash;
use crate::offload::flow::Flow;
use xen_pv_sys::io::netif::ExtraHash;

/// A packet's way within the vif that it is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Steer {
    /// The queue.
    pub queue: u8,
    /// The hash that the guest is told.
    pub hash: Option<ExtraHash>,
}

/// The way of a packet of this flow (`None`: it is no IP packet) to a guest with `queues` queues, at least one. `hashing` is what the guest
/// asked for.
pub(crate) fn steer(flow: Option<&Flow>, queues: u8, hashing: Option<&Hashing>, key: KeyedHash) -> Steer {
    if let Some(hashing) = hashing.filter(|hashing| hashing.is_on()) {
        let hash = flow.and_then(|flow| hashing.hash(flow));
        // As in Linux, what is not hashed has the hash 0.
        return Steer { queue: hashing.queue(hash.map_or(0, |(value, _)| value), queues), hash: hash.map(extra) };
    }
    let (Some(flow), 2..) = (flow, queues) else {
        return Steer::default();
    };
    // The hash's upper half is cut into as many parts as there are queues.
    let part = ((key.of(flow.words()) >> 32) * u64::from(queues)) >> 32;
    Steer { queue: part as u8, hash: None }
}

fn extra((value, kind): (u32, u8)) -> ExtraHash {
    ExtraHash { kind, algorithm: super::control::TOEPLITZ, value: value.to_le_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::head::Head;

    fn flow(source_port: u16) -> Flow {
        let mut frame = [0; 60];
        frame[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0x00]);
        (frame[22], frame[23], frame[46]) = (64, 6, 0x50);
        frame[34..36].copy_from_slice(&source_port.to_be_bytes());
        Flow::new(&Head::parse(&frame).unwrap(), &frame).unwrap()
    }

    #[test]
    fn flows_are_spread_over_all_queues() {
        for queues in 1..=8_u8 {
            let mut counts = [0; 8];
            for port in 0..1000 {
                let steer = steer(Some(&flow(port)), queues, None, KeyedHash::new(7));
                assert_eq!(steer, super::steer(Some(&flow(port)), queues, None, KeyedHash::new(7)));
                assert_eq!(steer.hash, None);
                counts[usize::from(steer.queue)] += 1;
            }
            let fair = 1000 / i32::from(queues);
            for (queue, count) in counts.into_iter().enumerate() {
                let expected = if queue < usize::from(queues) { fair } else { 0 };
                assert!((count - expected).abs() <= 60, "queue {queue} of {queues}: {count}");
            }
        }
        assert_eq!(steer(None, 8, None, KeyedHash::new(7)), Steer::default());
    }

    #[test]
    fn another_key_spreads_otherwise() {
        let spread = |seed| {
            core::array::from_fn::<_, 64, _>(|port| {
                steer(Some(&flow(port as u16)), 8, None, KeyedHash::new(seed)).queue
            })
        };
        assert_ne!(spread(1), spread(2));
    }
}
