//! Second step of a round: where each packet goes, and all copies that bring it there. Floor 3.

use super::nics::is_nic;
use super::prepare::offload_layout;
use super::queue::Toward;
use super::round::{Bounce, Chunks, Extent, Look, PULLED, Received, ReceivedKind, Round, Source, chunks_of, gather};
use super::vif::{Acceptance, Vif, slots_for};
use super::{DataPath, QueueId, Stop, queue_mut};
use crate::ethernet::MacAddress;
use crate::netback::request::{DataSlot, Wish};
use crate::netback::steering::Steer;
use crate::offload::headers::Layout;
use crate::packet::{Checksum, GsoKind, Offload};
use crate::statistics::DropCause;
use crate::switch::Forward;
use split_driver::hypervisor::Hypervisor;
use split_driver::time::Instant;
use xen_pv_sys::grant_table::{CopyEnd, GrantCopy};
use xen_pv_sys::io::netif::{
    ExtraHash, ExtraInfo, RxFlags, XEN_NETIF_EXTRA_FLAG_MORE, XEN_NETIF_GSO_TYPE_TCPV4, XEN_NETIF_GSO_TYPE_TCPV6,
};
use xen_pv_sys::{DomainId, PAGE_SIZE};

/// A packet on its way through the switch.
pub(super) struct Passing<'a> {
    pub(super) source: Source,
    pub(super) destination: MacAddress,
    /// Where the headers are that `offload` is about.
    pub(super) layout: Option<Layout>,
    pub(super) length: u32,
    pub(super) offload: Offload,
    pub(super) chunks: &'a Chunks,
}

impl<H: Hypervisor> DataPath<H> {
    /// Decides on all packets of the round and makes all copies.
    pub(super) fn route(&mut self, now: Instant) {
        for index in 0..self.round.sent.len() {
            self.route_sent(index, now);
        }
        self.receive_frames(now);
        if !self.round.copies.is_empty() {
            self.hypervisor.grant_copy(&mut self.round.copies);
        }
    }

    fn route_sent(&mut self, index: usize, now: Instant) {
        let Some(sent) = self.round.sent.get(index) else {
            return;
        };
        let from = sent.from;
        let port = from.port;
        if sent.failed || sent.undone || !matches!(sent.request.wish, Wish::Send(_)) {
            return;
        }
        let Some(Some(slot)) = self.vifs.get_mut(usize::from(port)) else {
            return;
        };
        if slot.vif.broken {
            return;
        }
        let may_wait = slot.vif.credit.is_none();
        let domain = slot.vif.config.domain;
        let Some((destination, source)) = Self::addresses(&sent.local) else {
            return;
        };
        let chunks = chunks_of(&sent.local, sent.slots(&self.round.slots), domain);
        let (length, offload) = (sent.request.length, sent.offload);
        let layout = offload_layout(&sent.local, offload);
        self.choose(port, destination, source, now);
        if let [only] = *self.round.destinations.as_slice()
            && !destination.is_group()
        {
            let source = Source::Guest(index as u32);
            if may_wait && let Some(until) = self.must_wait(from, only, source, (length, offload), layout.as_ref(), now)
            {
                self.give_back(index, until);
                return;
            }
            if let Some(queue) = queue_mut(&mut self.vifs, from) {
                queue.toward = if is_nic(only) { Toward::Nic(only) } else { Toward::Vif };
            }
        }
        if let Some(Some(slot)) = self.vifs.get_mut(usize::from(port)) {
            slot.vif.statistics.from_port.count(length);
        }
        let passing =
            Passing { source: Source::Guest(index as u32), destination, layout, length, offload, chunks: &chunks };
        self.pass_on(&passing);
    }

    /// Whether a packet from one vif to another waits for receive slots of that, and until when.
    fn must_wait(
        &mut self,
        from: QueueId,
        to: u16,
        source: Source,
        (length, offload): (u32, Offload),
        layout: Option<&Layout>,
        now: Instant,
    ) -> Option<Instant> {
        if is_nic(to) {
            return None;
        }
        let steer = self.steer(to, source);
        let vif = &mut self.vifs.get_mut(usize::from(to))?.as_mut()?.vif;
        if vif.broken || vif.accepts(length, offload, layout) != Acceptance::AsIs {
            return None;
        }
        let needed = slots_for(length, offload, steer.hash.is_some(), vif.config.headroom);
        let queue = vif.queues.get_mut(usize::from(steer.queue))?;
        if queue.bouncing || !queue.backlog.is_empty() {
            return None;
        }
        // What is wrong with the ring shows when the packet is to go there.
        if queue.await_receive_slots(needed) != Ok(false) {
            queue.patience.handle_slots(now);
            return None;
        }
        let until = queue.patience.poll_until(now)?;
        if queue.waiters.is_empty() {
            queue.awaited = needed;
        }
        if !queue.waiters.contains(&from) {
            queue.waiters.push(from);
        }
        Some(until)
    }

    /// Gives a packet and all after it back to their sender's ring, to be read anew then.
    fn give_back(&mut self, index: usize, until: Instant) {
        let Some(from) = self.round.sent.get(index).map(|sent| sent.from) else {
            return;
        };
        let mut used = 0;
        for sent in self.round.sent.iter_mut().skip(index).take_while(|sent| sent.from == from) {
            sent.undone = true;
            used += sent.request.used();
        }
        if let Some(queue) = queue_mut(&mut self.vifs, from) {
            queue.transmit.unconsume(used);
            queue.waited = true;
        }
        if let Some((_, stop)) = self.round.served.iter_mut().find(|(served, _)| *served == from) {
            *stop = Stop::Until(until);
        }
    }

    /// Lists the ports a frame goes to.
    pub(super) fn choose(&mut self, port: u16, destination: MacAddress, source: MacAddress, now: Instant) {
        self.round.destinations.clear();
        // In a round no time passes: the same look-up would learn nothing and find the same.
        if let Some(look) = self.round.last_look
            && (look.from, look.destination, look.source) == (port, destination, source)
        {
            return self.round.destinations.push(look.to);
        }
        self.round.last_look = None;
        match self.switch.forward(port, destination, source, now) {
            Forward::Drop(_) => self.count_drop(port, DropCause::NotForwarded),
            Forward::Port(to) => {
                self.round.destinations.push(to);
                self.round.last_look = Some(Look { from: port, destination, source, to });
            }
            Forward::Flood if destination == MacAddress::BRIDGE_GROUP && !self.bpdus_on_wire => {
                // From guest to guest, and from wire to wire, so that those out there see a loop through the bridge.
                self.round.destinations.extend(self.switch.flood(port).filter(|to| is_nic(*to) == is_nic(port)));
                if self.round.destinations.is_empty() && is_nic(port) {
                    self.count_drop(port, DropCause::NotForwarded);
                }
            }
            Forward::Flood => self.round.destinations.extend(self.switch.flood(port)),
        }
    }

    /// Plans the copies to each of the ports chosen.
    pub(super) fn pass_on(&mut self, passing: &Passing<'_>) {
        for place in 0..self.round.destinations.len() {
            let Some(&to) = self.round.destinations.get(place) else {
                return;
            };
            if is_nic(to) {
                self.bounce(to, Steer::default(), passing.source);
            } else if let Some(steer) = self.pass_to_vif(to, passing) {
                self.bounce(to, steer, passing.source);
            }
        }
    }

    /// Plans the copy into a guest's receive slots, or gives the packet's way where it must go by way of local memory.
    fn pass_to_vif(&mut self, to: u16, passing: &Passing<'_>) -> Option<Steer> {
        let steer = self.steer(to, passing.source);
        let vif = &mut self.vifs.get_mut(usize::from(to))?.as_mut()?.vif;
        if vif.broken {
            return None;
        }
        if !vif.wants(passing.destination) {
            vif.statistics.drop(DropCause::Filtered);
            return None;
        }
        let acceptance = vif.accepts(passing.length, passing.offload, passing.layout.as_ref());
        if acceptance == Acceptance::Never {
            vif.statistics.drop(DropCause::Unsuitable);
            return None;
        }
        let needed = slots_for(passing.length, passing.offload, steer.hash.is_some(), vif.config.headroom);
        let queue = vif.queues.get_mut(usize::from(steer.queue))?;
        let in_order = acceptance == Acceptance::AsIs && !queue.bouncing && queue.backlog.is_empty();
        match if in_order { queue.has_receive_slots(needed) } else { Ok(false) } {
            Ok(true) => {}
            Ok(false) => {
                queue.bouncing = true;
                return Some(steer);
            }
            Err(violation) => {
                self.fail(to, violation);
                return None;
            }
        }
        let Passing { chunks, length, offload, .. } = *passing;
        let filling = Filling { chunks, length, offload, hash: steer.hash };
        fill_slots(vif, QueueId { port: to, queue: steer.queue }, &mut self.round, &filling);
        None
    }

    /// Has a packet brought into local memory with the batch, to be passed on after it.
    fn bounce(&mut self, to: u16, steer: Steer, source: Source) {
        if let Source::Guest(index) = source {
            let Round { sent, slots, copies, .. } = &mut self.round;
            let Some(sent) = sent.get_mut(index as usize) else {
                return;
            };
            let Some(Some(slot)) = self.vifs.get(usize::from(sent.from.port)) else {
                return;
            };
            let domain = slot.vif.config.domain;
            if !sent.whole() {
                let start = copies.len() as u32;
                let gathered = gather_rest(sent, slots, domain, &self.pool, copies);
                sent.gathered = (start, copies.len() as u32);
                if !gathered {
                    self.count_drop(to, DropCause::NoBuffer);
                    return;
                }
            }
        }
        self.round.bounces.push(Bounce { source, port: to, steer });
    }

    /// Counts a packet lost on its way to a port.
    pub(super) fn count_drop(&mut self, port: u16, cause: DropCause) {
        if let Some(nic) = self.nics.get_mut(port) {
            nic.statistics.drop(cause);
        } else if let Some(Some(slot)) = self.vifs.get_mut(usize::from(port)) {
            slot.vif.statistics.drop(cause);
        }
    }
}

fn gather_rest(
    sent: &mut super::round::Sent,
    slots: &[DataSlot],
    domain: DomainId,
    pool: &crate::packet::Pool,
    copies: &mut alloc::vec::Vec<GrantCopy>,
) -> bool {
    let length = sent.request.length;
    let first = sent.first as usize;
    let slots = slots.get(first..first + usize::from(sent.request.slots)).unwrap_or_default();
    let first_slot = slots.first().map_or(0, |slot| u32::from(slot.size));
    let extent = Extent { first: first_slot.max(PULLED).min(length), length };
    gather(&mut sent.local, slots, domain, extent, pool, copies)
}

/// A packet that receive slots are filled with.
pub(super) struct Filling<'a> {
    pub(super) chunks: &'a Chunks,
    pub(super) length: u32,
    pub(super) offload: Offload,
    pub(super) hash: Option<ExtraHash>,
}

impl Filling<'_> {
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
pub(super) fn fill_slots<H: Hypervisor>(vif: &mut Vif<H>, to: QueueId, round: &mut Round, filling: &Filling<'_>) {
    let Vif { config, queues, statistics, .. } = vif;
    let Some(queue) = queues.get_mut(usize::from(to.queue)) else {
        return;
    };
    let &Filling { chunks, length, offload, hash } = filling;
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
    let mut source = Cursor { chunks, chunk: 0, offset: 0 };
    let mut left = length;
    loop {
        let request = queue.take_receive_slot();
        let start = round.copies.len();
        let room = (PAGE_SIZE as u32).saturating_sub(offset.into());
        let part = left.min(room) as u16;
        source.copy_to(CopyEnd::granted(config.domain, request.gref, offset), part, &mut round.copies);
        left -= u32::from(part);
        flags.set(RxFlags::MORE_DATA, left > 0);
        let copies = (start as u32, round.copies.len() as u32);
        let kind = ReceivedKind::Data { id: request.id, offset, length: part, flags, copies };
        round.received.push(Received { to, kind, failed: false });
        for extra in extras.drain(..) {
            let _ = queue.take_receive_slot();
            round.received.push(Received { to, kind: ReceivedKind::Extra(extra), failed: false });
        }
        if left == 0 {
            break;
        }
        (flags, offset) = (RxFlags::empty(), 0);
    }
    statistics.to_port.count(length);
    if !queue.touched {
        queue.touched = true;
        round.touched.push(to);
    }
}

/// A place in a packet's bytes.
struct Cursor<'a> {
    chunks: &'a Chunks,
    chunk: usize,
    offset: u16,
}

impl Cursor<'_> {
    /// Adds the copies of the next `length` bytes into one granted page.
    fn copy_to(&mut self, mut destination: CopyEnd, length: u16, copies: &mut alloc::vec::Vec<GrantCopy>) {
        let mut left = length;
        while left > 0 {
            let Some(chunk) = self.chunks.get(self.chunk) else {
                return;
            };
            let piece = left.min(chunk.length - self.offset);
            if piece > 0 {
                let mut source = chunk.end;
                source.offset += self.offset;
                copies.push(GrantCopy {
                    source,
                    destination,
                    length: piece,
                    flags: GrantCopy::DESTINATION_GRANT | if chunk.granted { GrantCopy::SOURCE_GRANT } else { 0 },
                    status: 0,
                    padding: 0,
                });
                destination.offset += piece;
                self.offset += piece;
                left -= piece;
            }
            if self.offset >= chunk.length {
                self.chunk += 1;
                self.offset = 0;
            }
        }
    }
}
