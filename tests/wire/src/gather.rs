//! Puts together what a sender cut: IPv4 fragments, and what QEMU makes of TCP segmentation offload. Pure: no socket.
//!
//! Before QEMU 8, an emulated e1000e whose network backend takes no offloads does not segment a TSO packet: it sends an
//! IPv4 packet as fragments, and an IPv6 packet as bare pieces, each behind a copy of the IPv6 header with the
//! driver's payload length of 0, two bytes of the source address overwritten by an IPv4 checksum, and only the first
//! with the TCP header (seen with 7.2; hw/net/net_tx_pkt.c, `net_tx_pkt_do_sw_fragmentation`). Newer versions send proper segments, which pass through here untouched.

use std::collections::VecDeque;

use crate::device::ETHERNET_HEADER;

const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// Largest IPv4 packet, and the largest IPv6 packet without jumbo payload.
const LONGEST: usize = 65_535;
/// Packets that may be incomplete at the same time.
const PARTIAL: usize = 64;
const TCP: u8 = 6;
/// Where an IPv6 header has the source address.
const SOURCE: usize = 8;
/// Where an IPv4 header has its checksum: QEMU puts one there, into the middle of the IPv6 source address.
const SPOILED: usize = 10;

/// A packet of which some has come.
struct Partial {
    /// What identifies it: addresses, protocol and identification for IPv4; addresses and flow for IPv6.
    key: Vec<u8>,
    /// Headers of Ethernet and IP, then the payload so far.
    frame: Vec<u8>,
    header: usize,
    /// IPv6: length of the last piece's payload.
    piece: usize,
    /// IPv6: sum of the payload so far, as RFC 1071 sums; all pieces but the last have an even length.
    sum: u64,
}

/// Packets on their way to being whole.
#[derive(Default)]
pub(crate) struct Gather {
    partial: VecDeque<Partial>,
    /// IPv6 source addresses seen in packets that were whole.
    sources: VecDeque<[u8; 16]>,
}

impl Gather {
    /// Takes a frame; `handle_whole` gets it at once if it is whole, or the packet that it completes.
    pub(crate) fn handle_frame(&mut self, frame: &[u8], mut handle_whole: impl FnMut(&[u8])) {
        let kind = frame.get(12..ETHERNET_HEADER);
        let whole = match kind {
            Some([0x08, 0x00]) => self.handle_ipv4(frame),
            Some([0x86, 0xdd]) => self.handle_ipv6(frame),
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

    /// As [`Self::handle_ipv4`].
    fn handle_ipv6(&mut self, frame: &[u8]) -> Option<Option<Vec<u8>>> {
        let Some(ip) = frame.get(ETHERNET_HEADER..).filter(|ip| ip.len() > IPV6_HEADER) else {
            return Some(None);
        };
        let source = ip.get(SOURCE..)?.first_chunk::<16>()?;
        if word(ip, 4)? != 0 || *ip.get(6)? != TCP {
            self.remember(*source);
            return Some(None);
        }
        let payload = ip.get(IPV6_HEADER..)?;
        let key = [ip.get(..4)?, ip.get(SOURCE..SPOILED)?, ip.get(SPOILED + 2..IPV6_HEADER)?].concat();
        let known = self.partial.iter().position(|partial| partial.key == key);
        let at = known.unwrap_or_else(|| {
            self.start(key, frame.get(..ETHERNET_HEADER + IPV6_HEADER).unwrap_or_default());
            self.partial.len() - 1
        });
        let partial = self.partial.get_mut(at)?;
        let short = partial.piece != 0 && payload.len() < partial.piece;
        partial.piece = payload.len();
        partial.sum += sum(payload);
        partial.frame.extend_from_slice(payload);
        let length = partial.frame.len() - partial.header;
        // All pieces but the last are of one length; a last piece of that length shows by the checksum of it all.
        let rest = partial.sum + sum(ip.get(SOURCE + 16..IPV6_HEADER)?) + u64::from(TCP) + length as u64;
        let whole = self.sources.iter().find(|known| {
            let alike = known.iter().zip(source).enumerate();
            let mut alike = alike.filter(|(index, _)| !(SPOILED - SOURCE..SPOILED - SOURCE + 2).contains(index));
            alike.all(|(_, (known, seen))| known == seen) && fold(rest + sum(known.as_slice())) == 0xffff
        });
        let Some(source) = whole.copied() else {
            if short || length > LONGEST {
                self.partial.remove(at);
            }
            return None;
        };
        let mut partial = self.partial.remove(at)?;
        let ip = partial.frame.get_mut(ETHERNET_HEADER..)?;
        set_word(ip, 4, u16::try_from(length).ok()?);
        *ip.get_mut(SOURCE..)?.first_chunk_mut()? = source;
        Some(Some(partial.frame))
    }

    /// Keeps an address that is known to be right.
    fn remember(&mut self, source: [u8; 16]) {
        if self.sources.contains(&source) {
            return;
        }
        if self.sources.len() >= PARTIAL {
            self.sources.pop_front();
        }
        self.sources.push_back(source);
    }

    fn start(&mut self, key: Vec<u8>, headers: &[u8]) {
        self.partial.retain(|partial| partial.key != key);
        if self.partial.len() >= PARTIAL {
            self.partial.pop_front();
        }
        self.partial.push_back(Partial { key, frame: headers.to_vec(), header: headers.len(), piece: 0, sum: 0 });
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
        frame.extend_from_slice(&[64, TCP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
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

    fn ipv6_pieces(total: usize, piece: usize) -> Vec<Vec<u8>> {
        let mut header = vec![0; 12];
        header.extend_from_slice(&[0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, TCP, 64]);
        header.extend((1..=32).map(|byte| byte ^ 0x40));
        let mut tcp: Vec<u8> = (0..total).map(|byte| byte as u8).collect();
        tcp[16..18].fill(0);
        let check = !fold(sum(&tcp) + sum(&header[22..54]) + u64::from(TCP) + total as u64);
        tcp[16..18].copy_from_slice(&check.to_be_bytes());
        header[24..26].copy_from_slice(&[0xba, 0xad]);
        tcp.chunks(piece).map(|piece| [&header, piece].concat()).collect()
    }

    #[test]
    fn pieces_of_ipv6_become_one_packet() {
        for (total, piece) in [(2000, 1440), (2880, 1440), (1440, 1440), (4321, 1440)] {
            // A packet with its length set, from which the address is known.
            let mut first = ipv6_pieces(100, 200);
            first[0][18..20].copy_from_slice(&100u16.to_be_bytes());
            first[0][24..26].copy_from_slice(&[3 ^ 0x40, 4 ^ 0x40]);
            let pieces = [first.clone(), ipv6_pieces(total, piece), ipv6_pieces(100, 200)].concat();
            let whole = gathered(&pieces);
            assert_eq!(whole.len(), 3, "{total} bytes");
            assert_eq!(whole[0], first[0]);
            assert_eq!(whole[1].len(), 54 + total);
            assert_eq!(whole[1][18..20], (total as u16).to_be_bytes());
            assert_eq!(whole[1][24..26], first[0][24..26]);
            assert_eq!(whole[2].len(), 154);
        }
    }
}
