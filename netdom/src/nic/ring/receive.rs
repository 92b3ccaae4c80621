//! The receive ring: buffers out, frames in. Every field that the device wrote is checked before it is a length. Pure. Floor 3.
//!
//! The device is believed in one thing only: that the descriptor after the last one is done. Which buffer lies behind it is
//! our own book-keeping, so a device that writes nonsense gets its frames dropped and counted, and nothing else.

use super::left::Untaken;
use super::{DONE, Format, Ring};
use crate::ethernet::Tag;
use crate::packet::{Buffer, Checksum, Fragment, HALF_PAGE, Offload, Packet, Pool};
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::marker::PhantomData;
use split_driver::memory::{DmaMemory, Quiesced};

/// Empty places that are worth a write to the tail register.
const REFILL_AT: u16 = 32;
/// The shortest thing that is an Ethernet frame: two addresses and a type.
const HEADER: usize = 14;

/// EOP: the frame ends here.
const END: u32 = 1 << 1;
/// VP: a tag was taken out, or would have been.
const TAGGED: u32 = 1 << 3;
/// Words of a descriptor that the device wrote.
const STATUS: usize = 2;
const LENGTH: usize = 3;

/// A receive ring of a family with the descriptors `F`, each with a page behind it, or half of one.
pub struct Receive<D, F> {
    ring: Ring<D>,
    /// Bytes of a buffer.
    buffer_bytes: u16,
    slots: Vec<Option<Buffer>>,
    /// The half of a page whose first half was posted last.
    spare: Option<Buffer>,
    /// The next descriptor that the device will have filled, the next to get a buffer, and how many lie between.
    next: u16,
    fill: u16,
    posted: u16,
    /// Which frames were not taken.
    untaken: Rc<Untaken>,
    /// The frame of which the end has not been seen.
    frame: Packet,
    /// The rest of the frame is to be dropped.
    skipping: bool,
    max_frame: usize,
    /// The device takes tags out.
    strips: bool,
    malformed: u64,
    oversize: u64,
    errors: u64,
    format: PhantomData<F>,
}

/// Bytes of a buffer for frames of at most `max_frame` bytes: half a page where that holds any of them with its frame check sequence, else a
/// page.
pub const fn buffer_bytes(max_frame: usize) -> u16 {
    if max_frame + FRAME_CHECK <= HALF_PAGE as usize { HALF_PAGE } else { 2 * HALF_PAGE }
}

/// Bytes of a frame check sequence.
const FRAME_CHECK: usize = 4;

/// Why a buffer is not a part of a frame to be passed on.
enum Unfit {
    /// The device's description of it cannot be right.
    Malformed,
    /// The frame is longer than the wire allows.
    Oversize,
    /// The beginning of its frame was dropped.
    Rest,
}

impl<D: DmaMemory, F: Format> Receive<D, F> {
    /// A ring without buffers. `max_frame`: bytes of the largest frame that is passed on.
    pub fn new(ring: Ring<D>, max_frame: usize) -> Self {
        let count = usize::from(ring.count());
        Self {
            slots: core::iter::repeat_with(|| None).take(count).collect(),
            spare: None,
            buffer_bytes: buffer_bytes(max_frame),
            untaken: Rc::new(Untaken::new(ring.count())),
            ring,
            next: 0,
            fill: 0,
            posted: 0,
            frame: Packet::default(),
            skipping: false,
            max_frame,
            strips: false,
            malformed: 0,
            oversize: 0,
            errors: 0,
            format: PhantomData,
        }
    }

    /// The ring.
    pub const fn ring(&self) -> &Ring<D> {
        &self.ring
    }

    /// Bytes of a buffer.
    pub const fn buffer_bytes(&self) -> u16 {
        self.buffer_bytes
    }

    /// Which frames were not taken.
    pub const fn untaken(&self) -> &Rc<Untaken> {
        &self.untaken
    }

    /// Notes that what [`Self::take`] gave was taken.
    #[inline]
    pub fn note_taken(&self) {
        self.untaken.take(self.next);
    }

    /// Whether the device takes tags out from now on. Drops what it is done with: it did so by either rule.
    pub fn set_stripping(&mut self, on: bool) {
        while self.take().is_some() {}
        self.note_taken();
        // Of a frame that has begun, the rest is written by the other rule.
        if !self.frame.fragments.is_empty() {
            self.frame = Packet::default();
            self.skipping = true;
        }
        self.strips = on;
    }

    /// Frames that the device described wrongly, since this was asked last.
    pub const fn take_malformed(&mut self) -> u64 {
        core::mem::replace(&mut self.malformed, 0)
    }

    /// Frames longer than the wire allows, since this was asked last.
    pub const fn take_oversize(&mut self) -> u64 {
        core::mem::replace(&mut self.oversize, 0)
    }

    /// Frames that the device handed over as damaged, since this was asked last.
    pub const fn take_errors(&mut self) -> u64 {
        core::mem::replace(&mut self.errors, 0)
    }

    fn status(&self) -> Option<u32> {
        if self.posted == 0 {
            return None;
        }
        let status = self.ring.word(self.next, STATUS);
        (status & DONE != 0).then_some(status)
    }

    /// Whether the device has no buffer.
    pub const fn is_empty(&self) -> bool {
        self.posted == 0
    }

    /// Whether the device is done with a descriptor that we have not looked at.
    pub fn ready(&self) -> bool {
        self.status().is_some()
    }

    /// The next frame. Bounded by the buffers posted, however the device behaves.
    pub fn take(&mut self) -> Option<Packet> {
        while let Some(status) = self.status() {
            // The load of the status acquired; the length was written with it or before.
            let word = self.ring.word(self.next, LENGTH);
            let (length, control) = ((word & 0xFFFF) as u16, (word >> 16) as u16);
            let control = (self.strips && status & TAGGED != 0).then_some(control);
            let buffer = self.slots.get_mut(usize::from(self.next)).and_then(Option::take);
            self.next = self.ring.after(self.next);
            self.posted -= 1;
            let appended = match buffer {
                Some(buffer) if control.is_none() && self.is_whole(length, status) => {
                    return Some(whole::<F>(buffer, length, status));
                }
                Some(buffer) => self.append(buffer, length, status & END != 0),
                None => Err(Unfit::Malformed),
            };
            if let Err(unfit) = appended {
                self.skip(&unfit);
            }
            if status & END != 0
                && let Some(packet) = self.end(status, control)
            {
                return Some(packet);
            }
        }
        None
    }

    /// Whether a buffer without a tag taken out is a good frame by itself, as nearly all are. The other way would find the same.
    #[inline]
    fn is_whole(&self, length: u16, status: u32) -> bool {
        let bytes = usize::from(length);
        status & END != 0
            && !self.skipping
            && self.frame.fragments.is_empty()
            && !F::RECEIVED.is_damaged(status)
            && (HEADER..=self.max_frame.min(self.buffer_bytes.into())).contains(&bytes)
    }

    /// Drops the frame, its buffers to come among it, and counts it once.
    fn skip(&mut self, unfit: &Unfit) {
        if self.skipping {
            return;
        }
        match unfit {
            Unfit::Malformed => self.malformed += 1,
            Unfit::Oversize => self.oversize += 1,
            Unfit::Rest => {}
        }
        self.skipping = true;
        self.frame = Packet::default();
    }

    /// Adds a buffer to the frame.
    fn append(&mut self, buffer: Buffer, length: u16, end: bool) -> Result<(), Unfit> {
        if self.skipping {
            return Err(Unfit::Rest);
        }
        let bytes = usize::from(length);
        let so_far = self.frame.len();
        // Only the last buffer may be short; it may be empty where it held the frame check sequence alone.
        let plausible = match end {
            true => length <= self.buffer_bytes && (bytes > 0 || so_far > 0),
            false => length == self.buffer_bytes,
        };
        if !plausible {
            return Err(Unfit::Malformed);
        }
        if so_far + bytes > self.max_frame {
            return Err(Unfit::Oversize);
        }
        if bytes == 0 {
            return Ok(());
        }
        let offset = buffer.start();
        self.frame.fragments.push(Fragment { buffer, offset, length }).map_err(|_| Unfit::Oversize)
    }

    /// The end of a frame was seen; `control`: the tag that was taken out.
    fn end(&mut self, status: u32, control: Option<u16>) -> Option<Packet> {
        let mut packet = core::mem::take(&mut self.frame);
        if core::mem::take(&mut self.skipping) {
            return None;
        }
        if F::RECEIVED.is_damaged(status) {
            self.errors += 1;
            return None;
        }
        let tag = control.and_then(Tag::new);
        if packet.len() < HEADER || tag.is_none() && control.is_some() {
            self.malformed += 1;
            return None;
        }
        if packet.len() + tag.map_or(0, |_| Tag::BYTES) > self.max_frame {
            self.oversize += 1;
            return None;
        }
        packet.offload = offload::<F>(status);
        packet.tag = tag;
        Some(packet)
    }

    /// A page, or the other half of the last one, or half of another.
    fn next_buffer(&mut self, pool: &Pool) -> Option<Buffer> {
        if self.buffer_bytes > HALF_PAGE {
            return pool.take();
        }
        self.spare.take().or_else(|| {
            let [first, second] = pool.take_halves()?;
            self.spare = Some(second);
            Some(first)
        })
    }

    /// Posts buffers. Returns what the tail register must be told, if there is anything to tell.
    pub fn refill(&mut self, pool: &Pool) -> Option<u16> {
        let mut empty = self.ring.count() - 1 - self.posted;
        if empty < REFILL_AT.min(self.ring.count() / 2) {
            return None;
        }
        let before = self.fill;
        while empty > 0
            && let Some(buffer) = self.next_buffer(pool)
            && let Some(address) = buffer.device_address(buffer.start())
        {
            let [low, high] = address.halves();
            self.ring.write(self.fill, [low, high, 0, 0]);
            if let Some(slot) = self.slots.get_mut(usize::from(self.fill)) {
                *slot = Some(buffer);
            }
            self.fill = self.ring.after(self.fill);
            self.posted += 1;
            empty -= 1;
        }
        self.untaken.fill(self.fill);
        (self.fill != before).then_some(self.fill)
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
        self.spare = None;
        self.frame = Packet::default();
        self.skipping = false;
        self.untaken.clear();
        (self.next, self.fill, self.posted) = (0, 0, 0);
    }
}

/// What the device says of a frame's checksums.
#[inline]
fn offload<F: Format>(status: u32) -> Offload {
    let checksum = match F::RECEIVED.is_verified(status) {
        true => Checksum::Verified,
        false => Checksum::Unverified,
    };
    Offload { checksum, gso: None }
}

/// The frame in one buffer.
#[inline]
fn whole<F: Format>(buffer: Buffer, length: u16, status: u32) -> Packet {
    let mut packet = Packet { offload: offload::<F>(status), ..Packet::default() };
    let offset = buffer.start();
    // An empty packet has room.
    let _ = packet.fragments.push(Fragment { buffer, offset, length });
    packet
}
