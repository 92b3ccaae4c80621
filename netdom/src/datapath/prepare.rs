//! What is done in software to a packet whose receiver cannot. Pure. Floor 3.
//!
//! A NIC is told where the headers are. A guest is not: it finds them itself, and drops what it does not find. Linux' netfront
//! (`checksum_setup`, `skb_checksum_setup`) looks behind an untagged Ethernet header for IPv4 or IPv6, then for TCP or UDP, behind those
//! extension headers that [`headers::parse`] knows, too. So a guest gets a blank checksum or a super-frame in that form only; all other
//! packets are completed and cut here.

use crate::netback::config::Features;
use crate::nic::Capabilities;
use crate::offload::checksum;
use crate::offload::headers::{self, Layout, MAX_HEADERS, Network, Transport};
use crate::offload::segment::{self, SegmentError};
use crate::packet::{Checksum, Gso, GsoKind, Offload, Packet, Pool};
use crate::statistics::DropCause;
use xen_pv_sys::PAGE_SIZE;

/// What a receiver, a NIC or a guest, takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ability {
    checksum_v4: bool,
    checksum_v6: bool,
    gso_v4: bool,
    gso_v6: bool,
    /// It is told where the headers are.
    told_headers: bool,
    /// Bytes of the longest packet, or of the longest segment.
    longest: usize,
}

impl Ability {
    pub(crate) fn of_nic(capabilities: &Capabilities) -> Self {
        Self {
            checksum_v4: capabilities.checksum_v4,
            checksum_v6: capabilities.checksum_v6,
            gso_v4: capabilities.tso_v4,
            gso_v6: capabilities.tso_v6,
            told_headers: true,
            longest: capabilities.max_frame,
        }
    }

    /// `headroom` is what is left free before a packet in its first slot.
    pub(crate) fn of_guest(features: &Features, headroom: u16) -> Self {
        let chains = features.scatter_gather;
        Self {
            checksum_v4: features.checksum_v4,
            checksum_v6: features.checksum_v6,
            gso_v4: features.gso_tcpv4 && features.checksum_v4 && chains,
            gso_v6: features.gso_tcpv6 && features.checksum_v6 && chains,
            told_headers: false,
            longest: if chains { 0xffff } else { PAGE_SIZE - usize::from(headroom).min(PAGE_SIZE) },
        }
    }

    /// Whether it completes the checksum of a packet with these headers.
    pub(crate) fn checksum(&self, layout: &Layout) -> bool {
        let able = match layout.network {
            Network::V4 => self.checksum_v4,
            Network::V6 => self.checksum_v6,
        };
        able && (self.told_headers || layout.is_untagged())
    }

    /// Whether it takes a TCP super-frame with these headers.
    pub(crate) fn gso(&self, layout: &Layout) -> bool {
        let able = match layout.network {
            Network::V4 => self.gso_v4,
            Network::V6 => self.gso_v6,
        };
        // A guest may have to cut it, to pass it on; Linux cuts behind some of the extension headers only (`ipv6_gso_pull_exthdrs`). A NIC
        // knows no routing header, whose last address the checksum is over.
        let found = !layout.has_extensions() && (self.told_headers || layout.is_untagged());
        able && found && layout.transport == Transport::Tcp
    }

    /// Whether it takes super-frames of any kind.
    pub(crate) fn any_gso(&self) -> bool {
        self.gso_v4 || self.gso_v6
    }

    pub(crate) fn longest(&self) -> usize {
        self.longest
    }
}

/// Does what `ability` does not, and gives the packet, or the segments it was cut into, to `take`; with the headers' places where
/// something is left to do.
///
/// # Errors
/// Why the packet, or the rest of it, is lost.
pub(super) fn prepare(
    mut packet: Packet,
    ability: &Ability,
    pool: &Pool,
    take: &mut dyn FnMut(Packet, Option<&Layout>),
) -> Result<(), DropCause> {
    let length = packet.len();
    let gso = packet.offload.gso;
    if gso.is_none() && packet.offload.checksum != Checksum::Blank {
        if length > ability.longest {
            return Err(DropCause::Unsuitable);
        }
        take(packet, None);
        return Ok(());
    }
    let layout = layout_of(&packet).ok_or(DropCause::Unsuitable)?;
    let payload = length.saturating_sub(usize::from(layout.payload_offset));
    let Some(gso) = gso.filter(|gso| payload > usize::from(gso.size)) else {
        // Nothing to be cut.
        packet.offload.gso = None;
        if length > ability.longest {
            return Err(DropCause::Unsuitable);
        }
        return pass_blank(packet, &layout, ability, pool, take);
    };
    let segment = usize::from(layout.payload_offset) + usize::from(gso.size);
    if !fits(gso, &layout) || segment > ability.longest {
        return Err(DropCause::Unsuitable);
    }
    if packet.offload.checksum != Checksum::Blank {
        make_blank(&mut packet, &layout, pool)?;
    }
    if ability.gso(&layout) {
        take(packet, Some(&layout));
        return Ok(());
    }
    let mut lost = None;
    segment::split(&packet, &layout, gso.size, pool, |segment| {
        if let Err(cause) = pass_blank(segment, &layout, ability, pool, take) {
            lost = Some(cause);
        }
    })
    .map_err(|error| match error {
        SegmentError::Page => DropCause::NoBuffer,
        _ => DropCause::Unsuitable,
    })?;
    lost.map_or(Ok(()), Err)
}

/// Passes on a packet whose checksum may be blank.
fn pass_blank(
    mut packet: Packet,
    layout: &Layout,
    ability: &Ability,
    pool: &Pool,
    take: &mut dyn FnMut(Packet, Option<&Layout>),
) -> Result<(), DropCause> {
    if packet.offload.checksum != Checksum::Blank {
        take(packet, None);
        return Ok(());
    }
    if ability.checksum(layout) {
        take(packet, Some(layout));
        return Ok(());
    }
    own_head(&mut packet, pool)?;
    checksum::complete(&mut packet, layout).map_err(|_| DropCause::Unsuitable)?;
    take(packet, None);
    Ok(())
}

/// Whether the packet is what its extra info says.
pub(crate) fn fits(gso: Gso, layout: &Layout) -> bool {
    layout.transport == Transport::Tcp
        && match gso.kind {
            GsoKind::TcpV4 => layout.network == Network::V4,
            GsoKind::TcpV6 => layout.network == Network::V6,
        }
}

/// Some frontends send super-frames with a checksum that is not said to be blank (Linux' `checksum_setup` knows them, too).
fn make_blank(packet: &mut Packet, layout: &Layout, pool: &Pool) -> Result<(), DropCause> {
    let transport = packet.len().saturating_sub(usize::from(layout.transport_offset));
    let length = u16::try_from(transport).map_err(|_| DropCause::Unsuitable)?;
    own_head(packet, pool)?;
    let first = packet.fragments.first().ok_or(DropCause::Unsuitable)?;
    let mut head = [0; MAX_HEADERS];
    let head = head.get_mut(..usize::from(layout.payload_offset.min(first.length))).ok_or(DropCause::Unsuitable)?;
    let offset = usize::from(first.offset);
    if !first.buffer.read(offset, head) || !checksum::blank(head, layout, length) || !first.buffer.write(offset, head) {
        return Err(DropCause::Unsuitable);
    }
    packet.offload.checksum = Checksum::Blank;
    Ok(())
}

/// Gives the packet a first page of its own, so that what is written there changes no other copy of it.
fn own_head(packet: &mut Packet, pool: &Pool) -> Result<(), DropCause> {
    let first = packet.fragments.first_mut().ok_or(DropCause::Unsuitable)?;
    if first.buffer.is_unique() {
        return Ok(());
    }
    let buffer = pool.take().ok_or(DropCause::NoBuffer)?;
    let mut bytes = [0; PAGE_SIZE];
    let bytes = bytes.get_mut(..usize::from(first.length)).ok_or(DropCause::Unsuitable)?;
    if !first.buffer.read(usize::from(first.offset), bytes) || !buffer.write(0, bytes) {
        return Err(DropCause::Unsuitable);
    }
    first.buffer = buffer;
    first.offset = 0;
    Ok(())
}

/// Where the headers are that a packet's offload is about; `None` where it has no offload, or not all of them are in the first page.
pub(super) fn offload_layout(packet: &Packet, offload: Offload) -> Option<Layout> {
    (offload.gso.is_some() || offload.checksum == Checksum::Blank).then(|| layout_of(packet)).flatten()
}

/// Where the headers are, if the first page holds them.
fn layout_of(packet: &Packet) -> Option<Layout> {
    let first = packet.fragments.first()?;
    let mut head = [0; MAX_HEADERS];
    let head = head.get_mut(..usize::from(first.length).min(MAX_HEADERS))?;
    if !first.buffer.read(usize::from(first.offset), head) {
        return None;
    }
    headers::parse(head).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Fragment;
    use alloc::boxed::Box;
    use alloc::vec::Vec;
    use split_driver::fakes::{FakePages, FakeXen};

    /// Each kind of super-frame for a guest that says so, takes that checksum blank, and takes chains.
    #[test]
    fn super_frames_want_three_features() {
        for bits in 0..32_u8 {
            let has = |bit: u8| bits & 1 << bit != 0;
            let features = Features {
                scatter_gather: has(0),
                gso_tcpv4: has(1),
                checksum_v4: has(2),
                gso_tcpv6: has(3),
                checksum_v6: has(4),
                ..Features::default()
            };
            let ability = Ability::of_guest(&features, 0);
            assert_eq!(ability.gso_v4, has(0) && has(1) && has(2), "{features:?}");
            assert_eq!(ability.gso_v6, has(0) && has(3) && has(4), "{features:?}");
        }
    }

    /// An untagged UDP packet, to a guest that completes no checksum.
    #[test]
    fn the_longest_packet_is_taken() {
        let ability = Ability::of_guest(&Features::default(), 0);
        let lengths = [(PAGE_SIZE, Ok(())), (PAGE_SIZE + 1, Err(DropCause::Unsuitable))];
        let kinds = [Checksum::Blank, Checksum::Verified];
        for (checksum, (length, done)) in kinds.into_iter().flat_map(|kind| lengths.map(|length| (kind, length))) {
            let pool = Pool::new(Box::new(FakePages::new(&FakeXen::default(), 8)));
            let mut head = [0; 42];
            head[12..16].copy_from_slice(&[0x08, 0x00, 0x45, 0x00]);
            head[16..18].copy_from_slice(&(length as u16 - 14).to_be_bytes());
            (head[22], head[23]) = (64, 17);
            head[38..40].copy_from_slice(&(length as u16 - 34).to_be_bytes());
            let mut packet = Packet { offload: Offload { checksum, gso: None }, ..Packet::default() };
            for (bytes, length) in [(&head[..], head.len()), (&[], length - head.len())] {
                let buffer = pool.take().expect("a page");
                assert!(buffer.write(0, bytes));
                assert!(packet.fragments.push(Fragment { buffer, offset: 0, length: length as u16 }).is_ok());
            }
            let mut taken = Vec::new();
            assert_eq!(prepare(packet, &ability, &pool, &mut |packet, _| taken.push(packet.len())), done);
            assert_eq!(taken.len(), usize::from(done.is_ok()));
        }
    }
}
