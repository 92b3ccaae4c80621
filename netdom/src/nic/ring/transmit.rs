//! The transmit ring: packets in, descriptors out, buffers back when the device is done. Pure. Floor 3.
//!
//! The device reports (RS) on the last descriptor of a batch and on every 64th or so between: a report is a write by the
//! device, and one covers all descriptors before it. Buffers travel from the packet to the descriptor's slot, and go back to
//! their pool when the slot is cleared. Nothing is ever read back from a descriptor but the one bit "done".

use super::left::Unsent;
use super::plan::{self, Plan, Unable};
use super::{DONE, END, Format, REPORT, Ring, Words};
use crate::ethernet::Tag;
use crate::offload::headers::{ETHERNET_HEADER, Layout};
use crate::packet::{Buffer, Checksum, Fragment, Packet, Pool};
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::marker::PhantomData;
use split_driver::memory::{DmaMemory, Quiesced};
use xen_pv_sys::PAGE_SIZE;

/// Descriptors after which a report is asked for within a batch.
const REPORT_EVERY: u16 = 64;
/// The shortest frame that may be handed to the device, which pads it (82574 datasheet 10.2.6.1, TCTL.PSP: 17 bytes).
const SHORTEST: usize = 17;
/// The shortest frame on the wire without its check sequence (IEEE 802.3, 4A.4.2: 64 bytes with it).
const SHORTEST_ON_WIRE: usize = 60;
/// Descriptors that a packet may need beside one a fragment: a context, and one of headers that had to be copied.
const EXTRA: usize = 2;

/// A context, and the packets that it was made for, where it is for checksums: those with headers in these places, and this tag.
struct Context {
    words: Words,
    serves: Option<(Layout, Option<Tag>)>,
}

/// Words of a data descriptor.
const COMMAND: usize = 2;
const STATUS: usize = 3;

/// A transmit ring of a family with the descriptors `F`.
pub struct Transmit<D, F> {
    ring: Ring<D>,
    /// Buffers that are kept until the device is done, then dropped.
    slots: Vec<Option<Buffer>>,
    /// Which of its packets were not sent.
    unsent: Rc<Unsent>,
    /// The first descriptor not yet reclaimed, and the next one to be filled.
    head: u16,
    tail: u16,
    used: u16,
    reclaimed: u64,
    /// Descriptors that will be reported on, in order.
    reports: VecDeque<u16>,
    since_report: u16,
    /// The last data descriptor and its command, while the device has not been told of it.
    pending: Option<(u16, u32)>,
    /// The context that the device holds.
    context: Option<Context>,
    max_frame: usize,
    /// The device inserts tags.
    inserts: bool,
    errors: u64,
    format: PhantomData<F>,
}

impl<D: DmaMemory, F: Format> Transmit<D, F> {
    /// An empty ring. `max_frame`: bytes of the largest frame on the wire; `inserts`: see [`Self::set_insertion`].
    pub fn new(ring: Ring<D>, max_frame: usize, inserts: bool) -> Self {
        let count = usize::from(ring.count());
        Self {
            slots: core::iter::repeat_with(|| None).take(count).collect(),
            unsent: Rc::new(Unsent::new(ring.count())),
            reports: VecDeque::with_capacity(count),
            ring,
            head: 0,
            tail: 0,
            used: 0,
            reclaimed: 0,
            since_report: 0,
            pending: None,
            context: None,
            max_frame,
            inserts,
            errors: 0,
            format: PhantomData,
        }
    }

    /// Whether the device inserts the tags of packets from now on.
    pub const fn set_insertion(&mut self, on: bool) {
        self.inserts = on;
    }

    /// Descriptors that can be filled now. One descriptor stays empty, so that a full ring does not look like an empty one.
    pub fn room(&self) -> usize {
        usize::from(self.ring.count() - 1 - self.used)
    }

    /// The ring.
    pub const fn ring(&self) -> &Ring<D> {
        &self.ring
    }

    /// Which of its packets were not sent.
    pub const fn unsent(&self) -> &Rc<Unsent> {
        &self.unsent
    }

    /// Whether the device has nothing of it.
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Descriptors that were reclaimed in all.
    pub const fn reclaimed(&self) -> u64 {
        self.reclaimed
    }

    /// Packets that were dropped because no NIC could send them, since this was asked last.
    pub const fn take_errors(&mut self) -> u64 {
        core::mem::replace(&mut self.errors, 0)
    }

    /// Fills descriptors for a packet, of which [`Self::flush`] tells the device: see [`crate::nic::NicQueue::transmit`].
    ///
    /// # Errors
    /// The packet, where there is no room for it or the device cannot do to it what it asks for.
    #[inline]
    pub fn queue(&mut self, packet: Packet, layout: Option<&Layout>, pool: &Pool) -> Result<(), Packet> {
        let Some(data) = self.plain(&packet, layout) else {
            return self.queue_any(packet, layout, pool);
        };
        if let Some(fragment) = packet.fragments.into_only() {
            self.push_data(fragment, data, true);
        }
        Ok(())
    }

    /// The data descriptor of a packet in one buffer that needs no other context than the device holds, as nearly all are; `None` for all
    /// others. [`Self::queue_any`] would find the same.
    #[inline]
    fn plain(&self, packet: &Packet, layout: Option<&Layout>) -> Option<[u32; 2]> {
        let only = packet.fragments.only()?;
        let length = usize::from(only.length);
        if packet.offload.gso.is_some()
            || packet.tag.is_some()
            || self.room() <= EXTRA
            || !(SHORTEST..=self.max_frame).contains(&length)
        {
            return None;
        }
        if packet.offload.checksum != Checksum::Blank {
            return Some(F::data(None, None, length));
        }
        let layout = *layout?;
        let payload = only.length.checked_sub(layout.payload_offset)?;
        let served = self.context.as_ref()?.serves? == (layout, None) && only.buffer.is_unique();
        served.then(|| F::data(Some(&Plan { layout, segment: None, payload: payload.into() }), None, length))
    }

    #[inline(never)]
    fn queue_any(&mut self, mut packet: Packet, layout: Option<&Layout>, pool: &Pool) -> Result<(), Packet> {
        let length = packet.len();
        let segment = packet.offload.gso.is_some();
        let tag = packet.tag;
        let tag_bytes = if tag.is_some() { Tag::BYTES } else { 0 };
        if length < ETHERNET_HEADER || (length + tag_bytes > self.max_frame && !segment) {
            self.errors += 1;
            return Ok(());
        }
        if tag.is_some() && !self.inserts {
            return Err(packet);
        }
        if length < SHORTEST {
            return self.queue_padded(&packet, pool);
        }
        if packet.fragments.len() + EXTRA > self.room() {
            return Err(packet);
        }
        let Ok(plan) = plan::plan(&packet, layout, length) else {
            return Err(packet);
        };
        let Ok(context) = self.context(plan.as_ref(), tag) else {
            return Err(packet);
        };
        let mut private = None;
        if let (Some(plan), Some(layout)) = (&plan, layout) {
            if plan.longest_frame(length) + tag_bytes > self.max_frame {
                return Err(packet);
            }
            match own_headers(&mut packet, layout, pool) {
                Ok(copied) => private = copied,
                Err(Refused) => return Err(packet),
            }
            let headers = private.as_ref().or(packet.fragments.first());
            let prepared = plan.segment.is_none()
                || headers.is_some_and(|headers| plan::prepare_segmentation(headers, layout).is_ok());
            if !prepared {
                return Err(packet);
            }
        }
        let data = F::data(plan.as_ref(), tag, length);
        self.describe(context, data, private, packet);
        Ok(())
    }

    /// The context that a packet needs and the device does not hold.
    #[inline]
    fn context(&self, plan: Option<&Plan>, tag: Option<Tag>) -> Result<Option<Context>, Unable> {
        let wanted = plan.filter(|plan| plan.segment.is_none()).map(|plan| (plan.layout, tag));
        if wanted.is_some() && self.context.as_ref().is_some_and(|held| held.serves == wanted) {
            return Ok(None);
        }
        let words =
            F::context(plan, tag)?.filter(|words| self.context.as_ref().is_none_or(|held| held.words != *words));
        Ok(words.map(|words| Context { words, serves: wanted }))
    }

    /// Queues a frame that is too short for the device to pad: padded, in a page of its own. Such a frame has no offload.
    fn queue_padded(&mut self, packet: &Packet, pool: &Pool) -> Result<(), Packet> {
        let refused = || packet.clone();
        if 1 + EXTRA > self.room() {
            return Err(refused());
        }
        let mut bytes = [0; SHORTEST_ON_WIRE];
        let mut rest = bytes.as_mut_slice();
        for fragment in &packet.fragments {
            let (piece, after) = rest.split_at_mut_checked(usize::from(fragment.length)).ok_or_else(refused)?;
            if !fragment.buffer.read(usize::from(fragment.offset), piece) {
                return Err(refused());
            }
            rest = after;
        }
        let buffer = pool.take().ok_or_else(refused)?;
        if !buffer.write(0, &bytes) {
            return Err(refused());
        }
        let Ok(context) = self.context(None, packet.tag) else {
            return Err(refused());
        };
        let mut padded = Packet::default();
        let whole = Fragment { buffer, offset: 0, length: SHORTEST_ON_WIRE as u16 };
        padded.fragments.push(whole).map_err(|_| refused())?;
        self.describe(context, F::data(None, packet.tag, SHORTEST_ON_WIRE), None, padded);
        Ok(())
    }

    /// Fills descriptors. Room for them was checked.
    #[inline]
    fn describe(&mut self, context: Option<Context>, data: [u32; 2], headers: Option<Fragment>, packet: Packet) {
        if let Some(context) = context {
            self.push(context.words, None, false);
            self.context = Some(context);
        }
        let parts = packet.fragments.iter().filter(|fragment| fragment.length > 0).count();
        let mut left = parts + usize::from(headers.is_some());
        let mut place = |fragment: Fragment| {
            if fragment.length > 0 {
                left -= 1;
                self.push_data(fragment, data, left == 0);
            }
        };
        headers.into_iter().for_each(&mut place);
        packet.fragments.for_each_taken(place);
    }

    /// Fills a descriptor for a part of a packet.
    #[inline]
    fn push_data(&mut self, Fragment { buffer, offset, length }: Fragment, [command, options]: [u32; 2], last: bool) {
        // Each buffer of a pool has an address.
        let Some(address) = buffer.device_address(offset) else {
            return;
        };
        let mut command = command | u32::from(length);
        let index = self.tail;
        if last {
            command |= END;
            // The one that is pushed counts.
            if self.since_report + 1 >= REPORT_EVERY {
                command |= REPORT;
            } else {
                self.pending = Some((index, command));
            }
        }
        let [low, high] = address.halves();
        self.push([low, high, command, options], Some(buffer), last);
        if command & REPORT != 0 {
            self.report(index);
        }
    }

    #[inline]
    fn push(&mut self, words: Words, buffer: Option<Buffer>, last: bool) {
        let index = self.tail;
        self.ring.write(index, words);
        if let Some(slot) = self.slots.get_mut(usize::from(index)) {
            *slot = buffer;
        }
        self.tail = self.ring.after(index);
        self.unsent.fill(index, last, self.tail);
        self.used += 1;
        self.since_report += 1;
    }

    fn report(&mut self, index: u16) {
        self.reports.push_back(index);
        self.since_report = 0;
        self.pending = None;
    }

    /// What the tail register must be told, if anything is new.
    pub fn flush(&mut self, told: u16) -> Option<u16> {
        if let Some((index, command)) = self.pending {
            self.ring.set_word(index, COMMAND, command | REPORT);
            self.report(index);
        }
        (told != self.tail).then_some(self.tail)
    }

    /// Whether the next report has come.
    pub fn reported(&self) -> bool {
        self.reports.front().is_some_and(|index| self.ring.word(*index, STATUS) & DONE != 0)
    }

    /// Clears the slots of all packets that the device reported, and says how many packets they were.
    pub fn reclaim(&mut self) -> usize {
        let mut packets = 0;
        while self.reported() {
            let Some(end) = self.reports.pop_front() else {
                break;
            };
            while self.used > 0 {
                let index = self.head;
                packets += usize::from(self.unsent.ends(index));
                if let Some(slot) = self.slots.get_mut(usize::from(index)) {
                    *slot = None;
                }
                self.head = self.ring.after(index);
                self.used -= 1;
                self.reclaimed += 1;
                if index == end {
                    break;
                }
            }
            self.unsent.reclaim(self.head);
        }
        packets
    }

    /// Loses all buffers for good, because the device may still use them. Gives how many.
    pub fn abandon(&mut self) -> usize {
        let slots = core::mem::take(&mut self.slots);
        let lost = slots.iter().filter(|slot| slot.is_some()).count();
        core::mem::forget(slots);
        lost
    }

    /// Gives all buffers back, and begins anew at the first descriptor.
    pub fn clear(&mut self, _proof: &Quiesced) {
        self.slots.fill_with(|| None);
        self.unsent.clear();
        self.reports.clear();
        (self.pending, self.context) = (None, None);
        (self.head, self.tail, self.used, self.since_report) = (0, 0, 0, 0);
    }
}

/// The packet is not one that this device can be given now.
#[derive(Debug)]
struct Refused;

/// Sees to it that the headers lie in a page of this packet alone: they are changed here for segmentation, and QEMU writes
/// completed checksums into them, while a flooded packet's pages belong to other ports too. Where they do not, they are
/// copied to a page of `pool` and taken off the packet; that page is what is returned.
fn own_headers(packet: &mut Packet, layout: &Layout, pool: &Pool) -> Result<Option<Fragment>, Refused> {
    let first = packet.fragments.first_mut().ok_or(Refused)?;
    let length = layout.payload_offset;
    if first.length < length {
        return Err(Refused);
    }
    if first.buffer.is_unique() {
        return Ok(None);
    }
    let mut bytes = [0u8; 256];
    let bytes = bytes.get_mut(..usize::from(length)).ok_or(Refused)?;
    let copy = pool.take().ok_or(Refused)?;
    if !first.buffer.read(usize::from(first.offset), bytes) || !copy.write(0, bytes) {
        return Err(Refused);
    }
    first.offset += length;
    first.length -= length;
    Ok(Some(Fragment { buffer: copy, offset: 0, length }))
}

const _: () = assert!(PAGE_SIZE <= 0xF_FFFF, "a page is one descriptor");
