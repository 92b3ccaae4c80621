//! Puts IPv4 fragments together, before frames are looked at. Pure: no socket.

use std::collections::VecDeque;

use crate::device::ETHERNET_HEADER;

const IPV4_HEADER: usize = 20;
/// Largest packet.
const LONGEST: usize = 65_535;
/// Packets that may be incomplete at the same time.
const PARTIAL: usize = 64;

/// A packet of which some has come.
struct Partial {
    /// What identifies it: identification, protocol and addresses (RFC 791).
    key: Vec<u8>,
    /// Headers of Ethernet and IP, then the payload so far.
    frame: Vec<u8>,
    header: usize,
}

/// Packets on their way to being whole.
#[derive(Default)]
pub(crate) struct Gather {
    partial: VecDeque<Partial>,
}

impl Gather {
    /// Takes a frame; `handle_whole` gets it at once if it is whole, or the packet that it completes.
    pub(crate) fn handle_frame(&mut self, frame: &[u8], mut handle_whole: impl FnMut(&[u8])) {
        let kind = frame.get(12..ETHERNET_HEADER);
        let whole = match kind {
            Some([0x08, 0x00]) => self.handle_ipv4(frame),
            _ => Some(None),
        };
        match whole {
            Some(Some(packet)) => handle_whole(&packet),
            Some(None) => handle_whole(frame),
            None => {}
        }
    }

    /// `None`: nothing is whole yet; `Some(None)`: `frame` itself is.
    fn handle_ipv4(&mut self, frame: &[u8]) -> Option<Option<Vec<u8>>> {
        let Some(ip) = frame.get(ETHERNET_HEADER..).filter(|ip| ip.len() >= IPV4_HEADER) else {
            return Some(None);
        };
        let field = word(ip, 6)?;
        let (more, offset) = (field & 0x2000 != 0, usize::from(field & 0x1fff) * 8);
        if !more && offset == 0 {
            return Some(None);
        }
        let header = usize::from(*ip.first()? & 0xf) * 4;
        let payload = ip.get(header..usize::from(word(ip, 2)?))?;
        let key = [ip.get(4..6)?, ip.get(9..10)?, ip.get(12..20)?].concat();
        if offset == 0 {
            self.start(key.clone(), frame.get(..ETHERNET_HEADER + header)?);
        }
        let at = self.partial.iter().position(|partial| partial.key == key)?;
        let partial = self.partial.get_mut(at)?;
        let fits = partial.frame.len() + payload.len() <= ETHERNET_HEADER + LONGEST;
        if partial.frame.len() - partial.header != offset || !fits {
            // A piece is missing, and who sent it will do so again.
            self.partial.remove(at);
            return None;
        }
        partial.frame.extend_from_slice(payload);
        if more {
            return None;
        }
        let mut whole = self.partial.remove(at)?;
        let total = u16::try_from(whole.frame.len() - ETHERNET_HEADER).ok()?;
        let ip = whole.frame.get_mut(ETHERNET_HEADER..whole.header)?;
        set_word(ip, 2, total);
        set_word(ip, 6, 0);
        set_word(ip, 10, 0);
        set_word(ip, 10, !fold(sum(ip)));
        Some(Some(whole.frame))
    }

    fn start(&mut self, key: Vec<u8>, headers: &[u8]) {
        self.partial.retain(|partial| partial.key != key);
        if self.partial.len() >= PARTIAL {
            self.partial.pop_front();
        }
        self.partial.push_back(Partial { key, frame: headers.to_vec(), header: headers.len() });
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn set_word(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(field) = bytes.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *field = value.to_be_bytes();
    }
}

/// The sum of RFC 1071 before folding.
fn sum(bytes: &[u8]) -> u64 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let even: u64 = pairs.iter().map(|pair| u64::from(u16::from_be_bytes(*pair))).sum();
    even + rest.first().map_or(0, |byte| u64::from(*byte) << 8)
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut gather = Gather::default();
        let mut whole = Vec::new();
        for frame in frames {
            gather.handle_frame(frame, |packet| whole.push(packet.to_vec()));
        }
        whole
    }

    fn ipv4(id: u8, offset: usize, more: bool, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend_from_slice(&[8, 0, 0x45, 0]);
        frame.extend_from_slice(&(payload.len() as u16 + 20).to_be_bytes());
        frame.extend_from_slice(&[0, id]);
        frame.extend_from_slice(&((offset as u16 / 8) | if more { 0x2000 } else { 0 }).to_be_bytes());
        frame.extend_from_slice(&[64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend_from_slice(payload);
        frame
    }

    #[test]
    fn fragments_become_one_packet_even_when_two_packets_mix() {
        let whole = gathered(&[
            ipv4(1, 0, true, &[1; 16]),
            ipv4(2, 0, true, &[2; 8]),
            ipv4(1, 16, false, &[3; 5]),
            ipv4(2, 8, false, &[4; 1]),
            ipv4(3, 0, false, &[5; 1]),
        ]);
        assert_eq!(whole.len(), 3);
        assert_eq!(whole[0][34..], [[1; 16].as_slice(), &[3; 5]].concat());
        assert_eq!(whole[0][16..18], [0, 41]);
        assert_eq!(fold(sum(&whole[0][14..34])), 0xffff);
        assert_eq!(whole[1][34..], [2, 2, 2, 2, 2, 2, 2, 2, 4]);
    }

    #[test]
    fn a_missing_or_odd_fragment_spoils_only_its_packet() {
        let whole = gathered(&[
            ipv4(1, 0, true, &[1; 16]),
            ipv4(1, 24, false, &[3; 5]),
            ipv4(1, 16, false, &[3; 5]),
            ipv4(2, 0, true, &[2; 8]),
            ipv4(2, 8, false, &[4; 1]),
            vec![0; 13],
            [[0; 12].as_slice(), &[8, 0, 0x4f, 0, 0xff]].concat(),
        ]);
        assert_eq!(whole.len(), 3);
        assert_eq!(whole[0][34..], [2, 2, 2, 2, 2, 2, 2, 2, 4]);
    }
}
