//! A vbd's ring: slots of either ABI, copied once, checked, typed. Pure. Floor 3.
//!
//! What can be judged without the volume is judged here; what a slot asks for of the volume (its end, its logical block, whether it
//! may be written) is the data path's. A bad request is answered with an error, as Linux does; it does not close the vbd.

use core::fmt;
use split_driver::memory::SharedMemory;
use split_driver::ring::{BackRing, BackState, RingError};
use xen_pv_sys::io::blkif::{self, x86_32};
use xen_pv_sys::{GrantRef, PAGE_SIZE};
use zerocopy::{FromBytes, IntoBytes, transmute};

/// Segments of an indirect request, at most: what `feature-max-indirect-segments` says, 1 MiB.
pub const MAX_INDIRECT_SEGMENTS: usize = 256;
/// Segments described by one page.
pub const SEGMENTS_PER_PAGE: usize = PAGE_SIZE / size_of::<blkif::RequestSegment>();
/// Sectors of a page.
pub const SECTORS_PER_PAGE: u8 = 8;
/// Requests that a page of a ring holds, at most: slots are of 108 or 112 bytes, and a power of two of them.
pub const SLOTS_PER_PAGE: usize = 32;
/// Words of a slot without padding: the same ones, whatever the layout.
pub const SLOT_WORDS: usize = size_of::<x86_32::Request>() / size_of::<u32>();
/// Words of a slot before its segments.
const HEAD_WORDS: usize = 5;

/// How a frontend lays out its slots (`protocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    /// 64-bit numbers aligned to 8 bytes: slots of 112 bytes, responses of 16. `native` is the same here.
    X86_64,
    /// 64-bit numbers aligned to 4 bytes: slots of 108 bytes, responses of 12.
    X86_32,
}

impl fmt::Display for Abi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::X86_64 => "x86_64-abi",
            Self::X86_32 => "x86_32-abi",
        })
    }
}

/// A part of a page of the guest's: within it, and not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestSegment {
    /// The page.
    pub grant: GrantRef,
    /// Its first sector in the page, 0 to 7.
    pub first_sector: u8,
    /// Sectors, 1 to 8; not beyond the page's end.
    pub sectors: u8,
}

impl GuestSegment {
    /// Bytes into the page.
    pub fn offset(self) -> u16 {
        u16::from(self.first_sector) * 512
    }

    /// Bytes.
    pub fn bytes(self) -> u16 {
        u16::from(self.sectors) * 512
    }

    fn parse(raw: blkif::RequestSegment) -> Result<Self, Refusal> {
        let blkif::RequestSegment { gref, first_sect: first, last_sect: last, .. } = raw;
        if last < first || last >= SECTORS_PER_PAGE {
            return Err(Refusal::SegmentBounds { first, last });
        }
        Ok(Self { grant: gref, first_sector: first, sectors: last - first + 1 })
    }
}

/// Which way the data of a [`Request::Transfer`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransferKind {
    /// From the volume.
    Read,
    /// To the volume.
    Write,
    /// To the volume, after all that was asked for earlier and before all that comes later, and durable when it is answered.
    Barrier,
}

/// What a slot asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Data of up to 11 segments.
    Transfer {
        /// To be echoed.
        id: u64,
        /// Which way.
        kind: TransferKind,
        /// The first sector on the volume.
        sector: u64,
        /// The memory; empty for a barrier without data alone (a frontend that knows of no flush sends such).
        segments: heapless::Vec<GuestSegment, { blkif::BLKIF_MAX_SEGMENTS_PER_REQUEST }>,
    },
    /// Data whose segments are in pages of their own: see [`parse_indirect`].
    Indirect {
        /// To be echoed.
        id: u64,
        /// To the volume.
        write: bool,
        /// The first sector on the volume.
        sector: u64,
        /// How many, 1 to [`MAX_INDIRECT_SEGMENTS`].
        segments: u16,
        /// The pages that describe them, as many as that needs.
        pages: heapless::Vec<GrantRef, { blkif::BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST }>,
    },
    /// What was answered before must be durable.
    Flush {
        /// To be echoed.
        id: u64,
    },
    /// The sectors' contents are of no use any more.
    Discard {
        /// To be echoed.
        id: u64,
        /// The first sector on the volume.
        sector: u64,
        /// How many.
        sectors: u64,
        /// They must be beyond recovery.
        secure: bool,
    },
    /// Nothing that can be done: answer with [`Refusal::status`].
    Refused {
        /// To be echoed.
        id: u64,
        /// To be echoed, too.
        operation: u8,
        /// Why.
        reason: Refusal,
    },
}

impl Request {
    /// The `id` of its response.
    pub fn id(&self) -> u64 {
        match self {
            Self::Transfer { id, .. }
            | Self::Indirect { id, .. }
            | Self::Flush { id }
            | Self::Discard { id, .. }
            | Self::Refused { id, .. } => *id,
        }
    }

    /// The `operation` of its response: of an indirect request the operation within. Linux's frontend takes the device out of service
    /// where it is another.
    pub fn operation(&self) -> u8 {
        match self {
            Self::Transfer { kind: TransferKind::Read, .. } | Self::Indirect { write: false, .. } => {
                blkif::BLKIF_OP_READ
            }
            Self::Transfer { kind: TransferKind::Write, .. } | Self::Indirect { write: true, .. } => {
                blkif::BLKIF_OP_WRITE
            }
            Self::Transfer { kind: TransferKind::Barrier, .. } => blkif::BLKIF_OP_WRITE_BARRIER,
            Self::Flush { .. } => blkif::BLKIF_OP_FLUSH_DISKCACHE,
            Self::Discard { .. } => blkif::BLKIF_OP_DISCARD,
            Self::Refused { operation, .. } => *operation,
        }
    }
}

/// Why a request is refused without a look at the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An operation that `io/blkif.h` does not have.
    Operation,
    /// None, or more than such a request may have.
    SegmentCount {
        /// How many it claims.
        segments: u16,
    },
    /// A segment that ends before it begins, or beyond its page.
    SegmentBounds {
        /// `first_sect`.
        first: u8,
        /// `last_sect`.
        last: u8,
    },
    /// An indirect request neither to read nor to write.
    IndirectOperation {
        /// `indirect_op`.
        operation: u8,
    },
}

impl Refusal {
    /// The status of the response.
    pub fn status(self) -> i16 {
        match self {
            Self::Operation => blkif::BLKIF_RSP_EOPNOTSUPP,
            _ => blkif::BLKIF_RSP_ERROR,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Operation => write!(formatter, "unknown operation"),
            Self::SegmentCount { segments } => write!(formatter, "{segments} segments"),
            Self::SegmentBounds { first, last } => write!(formatter, "segment from sector {first} to {last} of a page"),
            Self::IndirectOperation { operation } => write!(formatter, "indirect request with operation {operation}"),
        }
    }
}

impl core::error::Error for Refusal {}

/// Reads `count` segments, as [`Request::Indirect`] says, from the pages that describe them, copied and put together into `bytes`.
///
/// # Errors
/// What is wrong with the first bad one, or with their number.
pub fn parse_indirect(bytes: &[u8], count: u16) -> Result<heapless::Vec<GuestSegment, MAX_INDIRECT_SEGMENTS>, Refusal> {
    let mut segments = heapless::Vec::new();
    let mut rest = bytes;
    for _ in 0..count {
        let (raw, after) =
            blkif::RequestSegment::read_from_prefix(rest).map_err(|_| Refusal::SegmentCount { segments: count })?;
        rest = after;
        let segment = GuestSegment::parse(raw)?;
        segments.push(segment).map_err(|_| Refusal::SegmentCount { segments: count })?;
    }
    Ok(segments)
}

/// The fields of a slot, whatever its layout.
struct Fields {
    operation: u8,
    /// `nr_segments`, `flag` or `indirect_op`.
    second: u8,
    id: u64,
    sector: u64,
}

/// A slot's layout.
trait Layout: FromBytes + IntoBytes + zerocopy::Immutable + Copy {
    fn fields(&self) -> Fields;
    fn segment(&self, index: usize) -> Option<blkif::RequestSegment>;
    /// `nr_sectors` of a discard.
    fn discarded(&self) -> u64;
    /// `nr_segments` and `indirect_grefs` of an indirect request.
    fn indirect(&self) -> (u16, [GrantRef; blkif::BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST]);
}

macro_rules! layout {
    ($($module:tt)*) => {
        impl Layout for $($module)*::Request {
            fn fields(&self) -> Fields {
                Fields { operation: self.operation, second: self.nr_segments, id: self.id, sector: self.sector_number }
            }

            fn segment(&self, index: usize) -> Option<blkif::RequestSegment> {
                let segments = self.seg;
                segments.get(index).copied()
            }

            fn discarded(&self) -> u64 {
                $($module)*::RequestDiscard::read_from_prefix(self.as_bytes()).map_or(0, |(slot, _)| slot.nr_sectors)
            }

            fn indirect(&self) -> (u16, [GrantRef; blkif::BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST]) {
                let none = (0, [GrantRef(0); blkif::BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST]);
                $($module)*::RequestIndirect::read_from_prefix(self.as_bytes())
                    .map_or(none, |(slot, _)| (slot.nr_segments, slot.indirect_grefs))
            }
        }
    };
}

layout!(blkif);
layout!(x86_32);

/// All layouts have the same fields at the places that [`Fields`] are taken from, whatever the operation.
const _: () = {
    use core::mem::offset_of;
    assert!(offset_of!(blkif::Request, id) == offset_of!(blkif::RequestDiscard, id));
    assert!(offset_of!(blkif::Request, id) == offset_of!(blkif::RequestIndirect, id));
    assert!(offset_of!(blkif::Request, sector_number) == offset_of!(blkif::RequestDiscard, sector_number));
    assert!(offset_of!(blkif::Request, sector_number) == offset_of!(blkif::RequestIndirect, sector_number));
    assert!(offset_of!(x86_32::Request, id) == offset_of!(x86_32::RequestDiscard, id));
    assert!(offset_of!(x86_32::Request, id) == offset_of!(x86_32::RequestIndirect, id));
    assert!(offset_of!(x86_32::Request, sector_number) == offset_of!(x86_32::RequestDiscard, sector_number));
    assert!(offset_of!(x86_32::Request, sector_number) == offset_of!(x86_32::RequestIndirect, sector_number));
};

/// How many of a slot's words, without padding, mean something, by the first of them.
#[inline]
pub fn used_words(first: u32) -> usize {
    let [operation, second, ..] = first.to_le_bytes();
    match operation {
        blkif::BLKIF_OP_READ
        | blkif::BLKIF_OP_WRITE
        | blkif::BLKIF_OP_WRITE_BARRIER
        | blkif::BLKIF_OP_FLUSH_DISKCACHE => {
            HEAD_WORDS + 2 * usize::from(second).min(blkif::BLKIF_MAX_SEGMENTS_PER_REQUEST)
        }
        blkif::BLKIF_OP_DISCARD => size_of::<x86_32::RequestDiscard>() / size_of::<u32>(),
        blkif::BLKIF_OP_INDIRECT => size_of::<x86_32::RequestIndirect>() / size_of::<u32>(),
        // What it is, and its id.
        _ => 3,
    }
}

/// Reads a slot from its words, without padding.
pub fn parse_words(abi: Abi, words: &[u32; SLOT_WORDS]) -> Request {
    match abi {
        Abi::X86_64 => {
            let mut padded = [0; SLOT_WORDS + 1];
            let [first, _, rest @ ..] = &mut padded;
            [*first, ..] = *words;
            rest.copy_from_slice(words.get(1..).unwrap_or_default());
            let slot: blkif::Request = transmute!(padded);
            parse(&slot)
        }
        Abi::X86_32 => {
            let slot: x86_32::Request = transmute!(*words);
            parse(&slot)
        }
    }
}

/// Reads a slot that was copied from its ring.
fn parse(slot: &impl Layout) -> Request {
    let Fields { operation, second, id, sector } = slot.fields();
    let result = match operation {
        blkif::BLKIF_OP_READ => transfer(slot, TransferKind::Read),
        blkif::BLKIF_OP_WRITE => transfer(slot, TransferKind::Write),
        blkif::BLKIF_OP_WRITE_BARRIER => transfer(slot, TransferKind::Barrier),
        blkif::BLKIF_OP_FLUSH_DISKCACHE if second == 0 => Ok(Request::Flush { id }),
        blkif::BLKIF_OP_FLUSH_DISKCACHE => Err(Refusal::SegmentCount { segments: second.into() }),
        blkif::BLKIF_OP_DISCARD => {
            let secure = second & blkif::BLKIF_DISCARD_SECURE != 0;
            Ok(Request::Discard { id, sector, sectors: slot.discarded(), secure })
        }
        blkif::BLKIF_OP_INDIRECT => indirect(slot),
        _ => Err(Refusal::Operation),
    };
    result.unwrap_or_else(|reason| {
        let operation = if operation == blkif::BLKIF_OP_INDIRECT { second } else { operation };
        Request::Refused { id, operation, reason }
    })
}

fn transfer(slot: &impl Layout, kind: TransferKind) -> Result<Request, Refusal> {
    let Fields { second: count, id, sector, .. } = slot.fields();
    let bad_count = Refusal::SegmentCount { segments: count.into() };
    if count == 0 && kind != TransferKind::Barrier {
        return Err(bad_count);
    }
    let mut segments = heapless::Vec::new();
    for index in 0..usize::from(count) {
        let raw = slot.segment(index).ok_or(bad_count)?;
        segments.push(GuestSegment::parse(raw)?).map_err(|_| bad_count)?;
    }
    Ok(Request::Transfer { id, kind, sector, segments })
}

fn indirect(slot: &impl Layout) -> Result<Request, Refusal> {
    let Fields { second: operation, id, sector, .. } = slot.fields();
    let write = match operation {
        blkif::BLKIF_OP_READ => false,
        blkif::BLKIF_OP_WRITE => true,
        _ => return Err(Refusal::IndirectOperation { operation }),
    };
    let (segments, references) = slot.indirect();
    let count = usize::from(segments);
    if count == 0 || count > MAX_INDIRECT_SEGMENTS {
        return Err(Refusal::SegmentCount { segments });
    }
    let pages = references.into_iter().take(count.div_ceil(SEGMENTS_PER_PAGE)).collect();
    Ok(Request::Indirect { id, write, sector, segments, pages })
}

/// A word, and those among a slot's behind it that mean something.
#[inline]
fn used(words: &[u32; 1 + SLOT_WORDS]) -> &[u32] {
    words.get(..1 + used_words(words[1])).unwrap_or_default()
}

/// What a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// [`Request::id`].
    pub id: u64,
    /// [`Request::operation`].
    pub operation: u8,
    /// `BLKIF_RSP_*`.
    pub status: i16,
}

impl From<Answer> for blkif::Response {
    fn from(Answer { id, operation, status }: Answer) -> Self {
        Self { id, operation, padding0: 0, status, padding1: [0; 4] }
    }
}

impl From<Answer> for x86_32::Response {
    fn from(Answer { id, operation, status }: Answer) -> Self {
        Self { id, operation, padding: 0, status }
    }
}

/// A vbd's ring, of either ABI. As [`BackRing`], but for typed requests and answers.
#[derive(Debug)]
pub enum RequestRing<M> {
    /// [`Abi::X86_64`].
    X86_64(BackRing<M, blkif::Request, blkif::Response>),
    /// [`Abi::X86_32`].
    X86_32(BackRing<M, x86_32::Request, x86_32::Response>),
}

macro_rules! either {
    ($self:expr, $ring:ident => $body:expr) => {
        match $self {
            Self::X86_64($ring) => $body,
            Self::X86_32($ring) => $body,
        }
    };
}

impl<M: SharedMemory> RequestRing<M> {
    /// Takes up a frontend's ring where its published responses end.
    ///
    /// # Errors
    /// As of [`BackRing::attach`].
    pub fn attach(memory: M, abi: Abi) -> Result<Self, RingError> {
        Ok(match abi {
            Abi::X86_64 => Self::X86_64(BackRing::attach(memory)?),
            Abi::X86_32 => Self::X86_32(BackRing::attach(memory)?),
        })
    }

    /// Goes on with a ring that was driven before.
    ///
    /// # Errors
    /// As of [`BackRing::resume`].
    pub fn resume(memory: M, abi: Abi, state: BackState) -> Result<Self, RingError> {
        Ok(match abi {
            Abi::X86_64 => Self::X86_64(BackRing::resume(memory, state)?),
            Abi::X86_32 => Self::X86_32(BackRing::resume(memory, state)?),
        })
    }

    /// The state to [`resume`](Self::resume) from.
    pub fn state(&self) -> BackState {
        either!(self, ring => ring.state())
    }

    /// The memory, given back.
    pub fn into_memory(self) -> M {
        either!(self, ring => ring.into_memory())
    }

    /// Slots of the ring.
    #[inline]
    pub fn slots(&self) -> u32 {
        either!(self, ring => ring.slots())
    }

    /// Requests that wait, so many that may be [taken](Self::take).
    ///
    /// # Errors
    /// [`RingError::Overrun`] where the frontend claims more than fit: it breaks the protocol.
    #[inline]
    pub fn unconsumed(&self) -> Result<u32, RingError> {
        either!(self, ring => ring.unconsumed())
    }

    /// Copies the next request, once, and consumes it. Call at most as often as [`unconsumed`](Self::unconsumed) said.
    #[inline]
    pub fn take(&mut self) -> Request {
        match self {
            Self::X86_64(ring) => parse(&ring.take()),
            Self::X86_32(ring) => parse(&ring.take()),
        }
    }

    /// As [`take`](Self::take); `note` is given `first`, and then the words of the slot that mean something, without padding.
    #[inline]
    pub fn take_noted<T>(&mut self, first: u32, note: impl FnOnce(&[u32]) -> T) -> (Request, T) {
        match self {
            Self::X86_64(ring) => {
                let slot = ring.take();
                let mut words: [u32; 1 + SLOT_WORDS] = transmute!(slot);
                // The second word is padding.
                words[1] = words[0];
                words[0] = first;
                (parse(&slot), note(used(&words)))
            }
            Self::X86_32(ring) => {
                let slot = ring.take();
                let mut words = [first; 1 + SLOT_WORDS];
                let [_, rest @ ..] = &mut words;
                *rest = transmute!(slot);
                (parse(&slot), note(used(&words)))
            }
        }
    }

    /// Gives back the `count` requests that were taken last, none of them answered and nothing yet done for them: they are read anew.
    #[inline]
    pub fn unconsume(&mut self, count: u32) {
        either!(self, ring => ring.unconsume(count));
    }

    /// Places a response, not yet seen by the frontend. There is room for one per request taken.
    #[inline]
    pub fn push(&mut self, answer: Answer) {
        match self {
            Self::X86_64(ring) => ring.push(&answer.into()),
            Self::X86_32(ring) => ring.push(&answer.into()),
        }
    }

    /// Responses placed and not yet published.
    #[inline]
    pub fn unpublished(&self) -> u32 {
        either!(self, ring => ring.unpublished())
    }

    /// Publishes the responses placed. True where the frontend waits for an event.
    #[inline]
    #[must_use = "the frontend may sleep"]
    pub fn push_and_check_notify(&mut self) -> bool {
        either!(self, ring => ring.push_and_check_notify())
    }

    /// To be called before sleeping: how many requests wait; where none does, an event will come with the next.
    ///
    /// # Errors
    /// As of [`unconsumed`](Self::unconsumed).
    #[inline]
    pub fn final_check_for_requests(&self) -> Result<u32, RingError> {
        either!(self, ring => ring.final_check_for_requests())
    }
}

#[cfg(test)]
mod tests;
