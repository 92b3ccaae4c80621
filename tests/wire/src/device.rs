//! smoltcp's network device: frames in memory, in and out. Pure: no socket.

use std::collections::VecDeque;
use std::ops::Range;

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;

/// Bytes of an Ethernet header.
pub(crate) const ETHERNET_HEADER: usize = 14;

/// A queue of frames, held back to back.
#[derive(Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
    frames: VecDeque<Range<usize>>,
}

impl Frames {
    pub(crate) fn push(&mut self, frame: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(frame);
        self.frames.push_back(start..self.bytes.len());
    }

    /// Calls `visit` for each frame, then forgets them.
    pub(crate) fn drain(&mut self, mut visit: impl FnMut(&[u8])) {
        for range in self.frames.drain(..) {
            visit(self.bytes.get(range).unwrap_or_default());
        }
        self.bytes.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.frames.len()
    }

    fn pop(&mut self) -> Option<Range<usize>> {
        let range = self.frames.pop_front();
        if range.is_none() {
            self.bytes.clear();
        }
        range
    }
}

/// Frames for the stack and frames from it.
pub(crate) struct MemoryDevice {
    /// For the stack.
    pub(crate) inbox: Frames,
    /// From the stack.
    pub(crate) outbox: Frames,
    /// How many more bytes the stack may send of its own accord; answers to what comes in are always taken.
    pub(crate) credit: usize,
    mtu: usize,
}

impl MemoryDevice {
    pub(crate) fn new(mtu: usize) -> Self {
        Self { inbox: Frames::default(), outbox: Frames::default(), credit: 0, mtu }
    }
}

impl Device for MemoryDevice {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = Transmit<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Received<'_>, Transmit<'_>)> {
        let range = self.inbox.pop()?;
        let Self { inbox, outbox, credit, .. } = self;
        Some((Received(inbox.bytes.get(range).unwrap_or_default()), Transmit { outbox, credit }))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Transmit<'_>> {
        let Self { outbox, credit, .. } = self;
        (*credit > 0).then_some(Transmit { outbox, credit })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + ETHERNET_HEADER;
        capabilities
    }
}

/// A frame for the stack.
pub(crate) struct Received<'a>(&'a [u8]);

impl RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        match of_proxy(self.0) {
            Some(frame) => f(&frame),
            None => f(self.0),
        }
    }
}

/// Where an advertisement of neighbour discovery (RFC 4861, 4.4), behind an IPv6 header without extensions, has its parts.
const SOURCE: Range<usize> = 22..38;
const CHECKSUM: Range<usize> = 56..58;
const TARGET: Range<usize> = 62..78;

/// An advertisement about another station's address, as one of that station: smoltcp files each under its source, and not under its target, as
/// RFC 4861, 7.2.5, has it. `None` for any other frame.
fn of_proxy(frame: &[u8]) -> Option<Vec<u8>> {
    let is_advertisement =
        frame.get(12..14)? == [0x86, 0xdd] && frame.get(20) == Some(&58) && frame.get(54) == Some(&136);
    let (source, target) = (frame.get(SOURCE)?, frame.get(TARGET)?);
    if !is_advertisement || source == target {
        return None;
    }
    // RFC 1624, equation 3.
    let sum =
        |bytes: &[u8]| -> u32 { bytes.chunks_exact(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum() };
    let changed = sum(&frame[CHECKSUM].iter().map(|byte| !byte).collect::<Vec<_>>())
        + sum(&source.iter().map(|byte| !byte).collect::<Vec<_>>())
        + sum(target);
    let folded = (changed >> 16) + (changed & 0xffff);
    let checksum = !(((folded >> 16) + folded) as u16);
    let mut of_station = frame.to_vec();
    of_station.copy_within(TARGET, SOURCE.start);
    of_station[CHECKSUM].copy_from_slice(&checksum.to_be_bytes());
    Some(of_station)
}

/// Room for a frame from the stack.
pub(crate) struct Transmit<'a> {
    outbox: &'a mut Frames,
    credit: &'a mut usize,
}

impl TxToken for Transmit<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let start = self.outbox.bytes.len();
        self.outbox.bytes.resize(start + length, 0);
        let result = f(self.outbox.bytes.get_mut(start..).unwrap_or_default());
        self.outbox.frames.push_back(start..start + length);
        *self.credit = self.credit.saturating_sub(length);
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{Icmpv6Message, Icmpv6Packet, Icmpv6Repr, Ipv6Address, NdiscNeighborFlags, NdiscRepr};

    #[test]
    fn an_answer_of_a_proxy_is_the_stations() {
        let [router, station, asker] = [1, 2, 3].map(|last| Ipv6Address::new(0xfe80, 0, 0, 0, 0, 0, 0, last));
        let advertisement = NdiscRepr::NeighborAdvert {
            flags: NdiscNeighborFlags::SOLICITED,
            target_addr: station,
            lladdr: Some(smoltcp::wire::EthernetAddress([2; 6]).into()),
        };
        let repr = Icmpv6Repr::Ndisc(advertisement);
        let mut frame = vec![0; 54 + repr.buffer_len()];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[20] = 58;
        frame[SOURCE].copy_from_slice(&router.octets());
        frame[38..54].copy_from_slice(&asker.octets());
        let mut packet = Icmpv6Packet::new_unchecked(&mut frame[54..]);
        repr.emit(&router, &asker, &mut packet, &ChecksumCapabilities::default());
        assert_eq!(packet.msg_type(), Icmpv6Message::NeighborAdvert);
        let changed = of_proxy(&frame).expect("another frame");
        assert_eq!(changed[SOURCE], station.octets());
        assert!(Icmpv6Packet::new_unchecked(&changed[54..]).verify_checksum(&station, &asker));
        assert_eq!(of_proxy(&changed), None);
        assert_eq!(of_proxy(&[0; 100]), None);
    }
}
