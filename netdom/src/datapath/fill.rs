//! Filling a guest's receive slots with a packet. Floor 3.

use super::QueueId;
use super::copies::Cursor;
use super::guest::GuestPort;
use super::round::{Received, ReceivedKind, Round};
use crate::netback::vif::Vif;
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

/// Takes the receive slots that a packet needs, which must be posted, and adds the copies into them. The first page is filled behind the
/// headroom, each other from its start; extra infos take the slots behind the first.
///
/// Linux' netback leaves headroom in each page, and says only of the first where the bytes begin. This is right for any frontend: the
/// response says where they are, and so does the extra info that Linux' netfront wants.
pub(super) fn fill_slots<H: Hypervisor>(guest: &mut GuestPort<H>, to: QueueId, round: &mut Round, filling: &Filling) {
    let GuestPort { vif: Vif { config, .. }, queues, statistics, .. } = guest;
    let Some(queue) = queues.get_mut(usize::from(to.queue)) else {
        return;
    };
    let &Filling { length, offload, hash } = filling;
    let mut flags = match offload.checksum {
        Checksum::Blank => RxFlags::CSUM_BLANK | RxFlags::DATA_VALIDATED,
        Checksum::Verified => RxFlags::DATA_VALIDATED,
        Checksum::Unverified => RxFlags::empty(),
    };
    if offload.gso.is_some() {
        // Windows drops super-frames without it.
        flags |= RxFlags::DATA_VALIDATED;
    }
    let mut offset = config.headroom;
    let mut extras = heapless::Vec::new();
    if offload.gso.is_some() || hash.is_some() || offset > 0 {
        extras = filling.extras(offset);
        flags |= RxFlags::EXTRA_INFO;
    }
    let Round { chunks, copies: planned, received, touched, .. } = round;
    let mut source = Cursor::new(chunks);
    let mut left = length;
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
    statistics.to_port.count(length);
    if !queue.touched {
        queue.touched = true;
        touched.push(to);
    }
}
