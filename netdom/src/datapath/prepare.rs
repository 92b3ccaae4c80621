//! What is done in software to a packet whose receiver cannot. Pure. Floor 3.
//!
//! Its [`Ability`] says what that is; what the packet's head says goes with it.

use crate::offload::ability::{Ability, fits};
use crate::offload::checksum;
use crate::offload::headers::{Layout, MAX_HEADERS};
use crate::offload::segment::{self, SegmentError};
use crate::packet::{Checksum, Packet, Pool};
use crate::statistics::DropCause;
use xen_pv_sys::PAGE_SIZE;

/// Does what `ability` does not, and gives the packet, or the segments it was cut into, to `take`; with the headers' places where
/// something is left to do. `layout` says where the packet's headers lie.
///
/// # Errors
/// Why the packet, or the rest of it, is lost.
pub(super) fn prepare(
    mut packet: Packet,
    layout: Option<&Layout>,
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
    let layout = layout.ok_or(DropCause::Unsuitable)?;
    let payload = length.saturating_sub(usize::from(layout.payload_offset));
    let Some(gso) = gso.filter(|gso| payload > usize::from(gso.size)) else {
        // Nothing to be cut.
        packet.offload.gso = None;
        if length > ability.longest {
            return Err(DropCause::Unsuitable);
        }
        return pass_blank(packet, layout, ability, pool, take);
    };
    let segment = usize::from(layout.payload_offset) + usize::from(gso.size);
    if !fits(gso, layout) || segment > ability.longest {
        return Err(DropCause::Unsuitable);
    }
    if packet.offload.checksum != Checksum::Blank {
        make_blank(&mut packet, layout, pool)?;
    }
    if ability.gso(layout) {
        take(packet, Some(layout));
        return Ok(());
    }
    let mut lost = None;
    segment::split(&packet, layout, gso.size, pool, |segment| {
        if let Err(cause) = pass_blank(segment, layout, ability, pool, take) {
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
pub(super) fn own_head(packet: &mut Packet, pool: &Pool) -> Result<(), DropCause> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offload::head::Head;
    use crate::packet::{Fragment, Offload};
    use alloc::boxed::Box;
    use alloc::vec::Vec;
    use split_driver::fakes::{FakePages, FakeXen};

    /// An untagged UDP packet, to a guest that completes no checksum.
    #[test]
    fn the_longest_packet_is_taken() {
        let (checksum_v4, checksum_v6, gso_v4, gso_v6) = Default::default();
        let longest = PAGE_SIZE;
        let ability = Ability { checksum_v4, checksum_v6, gso_v4, gso_v6, told_headers: false, longest };
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
            let layout = Head::parse(&head).and_then(|head| head.layout);
            assert_eq!(
                prepare(packet, layout.as_ref(), &ability, &pool, &mut |packet, _| taken.push(packet.len())),
                done
            );
            assert_eq!(taken.len(), usize::from(done.is_ok()));
        }
    }
}
