//! A physical volume's label and the headers of its metadata areas (LVM2: `lib/format_text/layout.h`, `lib/label/label.h`). Pure.
//! Floor 3.

use crate::disk::SECTOR_BYTES;
use alloc::vec::Vec;
use core::fmt;
use crc::{Algorithm, Crc};
use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Bytes that a label may lie in: the first four sectors.
pub(super) const LABEL_BYTES: usize = 2048;
/// Bytes of a metadata area's header.
pub(super) const HEADER_BYTES: usize = 512;
/// Bytes of metadata text, at most: it has to fit into a small domain's memory beside what is made of it. LVM's areas are of 1 MiB, of
/// which one copy may fill half.
pub(super) const TEXT_BYTES: u64 = 512 << 10;
/// Areas of one physical volume, at most; LVM makes two.
const AREAS: usize = 8;

/// LVM's CRC: that of Ethernet from another beginning, and not inverted.
const ALGORITHM: Algorithm<u32> = Algorithm {
    width: 32,
    poly: 0x04c1_1db7,
    init: 0xf597_a6cf_u32.reverse_bits(),
    refin: true,
    refout: true,
    xorout: 0,
    check: 0,
    residue: 0,
};

/// The CRC of labels, headers and texts.
pub(crate) static CRC: Crc<u32> = Crc::<u32>::new(&ALGORITHM);

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawLabel {
    id: [u8; 8],
    sector: U64,
    crc: U32,
    /// Where the physical volume's header begins.
    offset: U32,
    kind: [u8; 8],
}
const _: () = assert!(size_of::<RawLabel>() == 32);

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawPhysical {
    id: [u8; 32],
    bytes: U64,
}

/// A run of bytes of the physical volume.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawRange {
    offset: U64,
    size: U64,
}

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawArea {
    crc: U32,
    magic: [u8; 16],
    version: U32,
    start: U64,
    size: U64,
    /// The text in use. After it, the one that is about to be: nobody has committed that yet.
    text: RawLocation,
}
const _: () = assert!(size_of::<RawArea>() == 64);

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawLocation {
    offset: U64,
    size: U64,
    crc: U32,
    flags: U32,
}

/// `RAW_LOCN_IGNORED`: this copy is not kept up to date.
const IGNORED: u32 = 1;

/// A UUID, of 32 letters and digits, without the hyphens that it is shown with.
pub(super) type Id = [u8; 32];

/// A run of bytes of the physical volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// A physical volume, as its label says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) id: Id,
    /// Bytes of what it was made on.
    pub(super) bytes: u64,
    /// Its metadata areas.
    pub(super) areas: Vec<Range>,
}

/// Why a label, a header or a text is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LabelError {
    /// The CRC of what it is.
    Crc(&'static str),
    /// What is said of what it is makes no sense.
    Nonsense(&'static str),
    /// The text has so many bytes.
    TooLong(u64),
}

impl fmt::Display for LabelError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crc(what) => write!(formatter, "the CRC of the {what} is wrong"),
            Self::Nonsense(what) => write!(formatter, "the {what} makes no sense"),
            Self::TooLong(bytes) => {
                write!(formatter, "a metadata text of {bytes} bytes is longer than the {TEXT_BYTES} that are read")
            }
        }
    }
}

impl core::error::Error for LabelError {}

/// Looks for a label in the first four sectors.
///
/// # Errors
/// There is one, but it is damaged.
pub(super) fn find(bytes: &[u8]) -> Result<Option<Label>, LabelError> {
    let mut fault = None;
    for (sector, number) in bytes.chunks_exact(SECTOR_BYTES as usize).take(4).zip(0_u64..) {
        let Ok((raw, _)) = RawLabel::read_from_prefix(sector) else {
            continue;
        };
        if &raw.id != b"LABELONE" || raw.sector.get() != number || &raw.kind != b"LVM2 001" {
            continue;
        }
        if CRC.checksum(sector.get(20..).unwrap_or_default()) != raw.crc.get() {
            fault = Some(LabelError::Crc("label"));
            continue;
        }
        let header = usize::try_from(raw.offset.get()).ok().filter(|offset| *offset >= size_of::<RawLabel>());
        let header = header.and_then(|offset| sector.get(offset..));
        match header.and_then(physical) {
            Some(label) => return Ok(Some(label)),
            None => fault = Some(LabelError::Nonsense("physical volume's header")),
        }
    }
    fault.map_or(Ok(None), Err)
}

fn physical(bytes: &[u8]) -> Option<Label> {
    let (raw, mut rest) = RawPhysical::read_from_prefix(bytes).ok()?;
    // Data areas up to an empty one, then metadata areas up to an empty one.
    let mut areas = Vec::new();
    let mut data = true;
    loop {
        let (range, after) = RawRange::read_from_prefix(rest).ok()?;
        rest = after;
        match (range.offset.get(), data) {
            (0, true) => data = false,
            (0, false) => break,
            (_, true) => {}
            (offset, false) if areas.len() < AREAS => areas.push(Range { offset, bytes: range.size.get() }),
            _ => return None,
        }
    }
    raw.id.iter().all(u8::is_ascii_alphanumeric).then_some(Label { id: raw.id, bytes: raw.bytes.get(), areas })
}

/// Where a text lies in its physical volume: in two parts where it goes round the end of its area.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    pub(super) parts: [Range; 2],
    crc: u32,
}

/// Reads the header of a metadata area; none where that has no text in use.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse_area(area: Range, header: &[u8]) -> Result<Option<Location>, LabelError> {
    const WHAT: &str = "metadata area's header";
    let nonsense = LabelError::Nonsense(WHAT);
    let (raw, _) = RawArea::read_from_prefix(header).map_err(|_| nonsense)?;
    if &raw.magic != b" LVM2 x[5A%r0N*>" || raw.version.get() != 1 {
        return Err(nonsense);
    }
    if CRC.checksum(header.get(4..HEADER_BYTES).unwrap_or_default()) != raw.crc.get() {
        return Err(LabelError::Crc(WHAT));
    }
    let first = HEADER_BYTES as u64;
    if raw.start.get() != area.offset || raw.size.get() != area.bytes || area.bytes <= first {
        return Err(nonsense);
    }
    let (offset, size) = (raw.text.offset.get(), raw.text.size.get());
    if offset == 0 || raw.text.flags.get() & IGNORED != 0 {
        return Ok(None);
    }
    if size > TEXT_BYTES {
        return Err(LabelError::TooLong(size));
    }
    if !(first..area.bytes).contains(&offset) || size == 0 || size > area.bytes - first {
        return Err(nonsense);
    }
    let head = size.min(area.bytes - offset);
    let place = |offset: u64, bytes: u64| area.offset.checked_add(offset).map(|offset| Range { offset, bytes });
    let parts = [place(offset, head).ok_or(nonsense)?, place(first, size - head).ok_or(nonsense)?];
    Ok(Some(Location { parts, crc: raw.text.crc.get() }))
}

impl Location {
    /// # Errors
    /// The text is not the one that the header means.
    pub(super) fn check<'a>(&self, text: &'a [u8]) -> Result<&'a str, LabelError> {
        if CRC.checksum(text) != self.crc {
            return Err(LabelError::Crc("metadata"));
        }
        core::str::from_utf8(text).map_err(|_| LabelError::Nonsense("metadata's text"))
    }
}
