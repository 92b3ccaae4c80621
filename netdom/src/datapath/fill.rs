//! Filling a guest's receive slots with a packet. Floor 3.

use super::QueueId;
use super::copies::Cursor;
use super::queue::Queue;
use super::round::{Received, ReceivedKind, Round};
use crate::netback::config::VifConfig;
use crate::packet::{Checksum, GsoKind, Offload};
use split_driver::hypervisor::Hypervisor;
use xen_pv_sys::PAGE_SIZE;
use xen_pv_sys::grant_table::CopyEnd;
use xen_pv_sys::io::netif::{
    ExtraHash, ExtraInfo, RxFlags, XEN_NETIF_EXTRA_FLAG_MORE, XEN_NETIF_GSO_TYPE_TCPV4, XEN_NETIF_GSO_TYPE_TCPV6,
};

/// A packet that receive slots are filled with; its bytes are [`Round::chunks`].
pub(super) struct Filling {
    pub(super) length: u32,
    pub(super) offload: Offload,
    pub(super) hash: Option<ExtraHash>,
}

impl Filling {
    /// Its extra infos, in the order in which Linux' netback has them.
    fn extras(&self, headroom: u16) -> heapless::Vec<ExtraInfo, 3> {
        let gso = self.offload.gso.map(|gso| {
            let kind = match gso.kind {
                GsoKind::TcpV4 => XEN_NETIF_GSO_TYPE_TCPV4,
                GsoKind::TcpV6 => XEN_NETIF_GSO_TYPE_TCPV6,
            };
            ExtraInfo::new_gso(gso.size, kind)
        });
        let hash = self.hash.map(ExtraInfo::new_hash);
        let xdp = (headroom > 0).then(|| ExtraInfo::new_xdp(headroom));
        let mut extras: heapless::Vec<_, 3> = [gso, hash, xdp].into_iter().flatten().collect();
        if let Some((_, others)) = extras.split_last_mut() {
            others.iter_mut().for_each(|extra| extra.flags |= XEN_NETIF_EXTRA_FLAG_MORE);
        }
        extras
    }
}

/// Takes the receive slots of a queue that a packet needs, which must be posted, and adds the copies into them. The first page is filled behind
/// the headroom, each other from its start; extra infos take the slots behind the first.
///
/// Linux' netback leaves headroom in each page, and says only of the first where the bytes begin. This is right for any frontend: the
/// response says where they are, and so does the extra info that Linux' netfront wants.
#[inline]
pub(super) fn fill_slots<H: Hypervisor>(
    config: &VifConfig,
    queue: &mut Queue<H>,
    to: QueueId,
    round: &mut Round,
    filling: &Filling,
) {
    if !queue.touched {
        queue.touched = true;
        round.touched.push(to);
    }
    let flags = match filling.offload.checksum {
        Checksum::Blank => RxFlags::CSUM_BLANK | RxFlags::DATA_VALIDATED,
        Checksum::Verified => RxFlags::DATA_VALIDATED,
        Checksum::Unverified => RxFlags::empty(),
    };
    let has_extras = filling.offload.gso.is_some() || filling.hash.is_some() || config.headroom > 0;
    let Round { chunks, copies, received, .. } = round;
    // Most packets lie in one piece and go into one slot.
    if let ([chunk], false) = (chunks.as_slice(), has_extras)
        && chunk.length as usize <= PAGE_SIZE
        && u32::from(chunk.length) == filling.length
    {
        let request = queue.take_receive_slot();
        let (start, length) = (copies.len() as u32, chunk.length);
        copies.push(chunk.copy(0, CopyEnd::granted(config.domain, request.gref, 0), length));
        let kind = ReceivedKind::Data { id: request.id, offset: 0, length, flags, copies: (start, start + 1) };
        return received.push(Received { to, kind, failed: false });
    }
    fill_chain(config, queue, to, round, filling, flags);
}

/// [`fill_slots`] for any packet.
#[inline(never)]
fn fill_chain<H: Hypervisor>(
    config: &VifConfig,
    queue: &mut Queue<H>,
    to: QueueId,
    round: &mut Round,
    filling: &Filling,
    mut flags: RxFlags,
) {
    if filling.offload.gso.is_some() {
        // Windows drops super-frames without it.
        flags |= RxFlags::DATA_VALIDATED;
    }
    let mut offset = config.headroom;
    let mut extras = filling.extras(offset);
    flags.set(RxFlags::EXTRA_INFO, !extras.is_empty());
    let Round { chunks, copies: planned, received, .. } = round;
    let mut source = Cursor::new(chunks);
    let mut left = filling.length;
    loop {
        let request = queue.take_receive_slot();
        let start = planned.len();
        let room = (PAGE_SIZE as u32).saturating_sub(offset.into());
        let part = left.min(room) as u16;
        source.copy_to(CopyEnd::granted(config.domain, request.gref, offset), part, planned);
        left -= u32::from(part);
        flags.set(RxFlags::MORE_DATA, left > 0);
        let copies = (start as u32, planned.len() as u32);
        let kind = ReceivedKind::Data { id: request.id, offset, length: part, flags, copies };
        received.push(Received { to, kind, failed: false });
        if !extras.is_empty() {
            for extra in extras.drain(..) {
                let _ = queue.take_receive_slot();
                received.push(Received { to, kind: ReceivedKind::Extra(extra), failed: false });
            }
        }
        if left == 0 {
            break;
        }
        (flags, offset) = (RxFlags::empty(), 0);
    }
}
