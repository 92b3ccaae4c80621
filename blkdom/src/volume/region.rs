//! What is read of a unit, and what is remembered of that. Pure: asynchronous over [`Sectors`]. Floor 3.
//!
//! Sectors that a guest may write are not read: they would tell us where other guests' sectors lie.

use super::{Piece, UnitRef};
use crate::disk::{Geometry, IoError, SECTOR_BYTES};
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::fmt;
use crc::{CRC_32_ISO_HDLC, Crc};

/// Sectors of one read, at most.
const READ_SECTORS: u64 = 256;

/// Reads units, for the control plane.
#[expect(async_fn_in_trait, reason = "one thread: no future needs to be Send")]
pub trait Sectors {
    /// The bytes of whole logical blocks. At most 128 KiB are asked for at once.
    async fn read(&self, unit: UnitRef, sector: u64, sectors: u32) -> Result<Vec<u8>, IoError>;
}

/// A unit to look at.
#[derive(Clone, Debug)]
pub struct Source {
    /// Which.
    pub unit: UnitRef,
    /// Its name: `nvme0n1`, `sda`.
    pub name: String,
    /// Its other names ([`super::places::aliases`]).
    pub aliases: Vec<String>,
    /// Its size and abilities.
    pub geometry: Geometry,
}

/// Why bytes were not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadError {
    /// The device.
    Io(IoError),
    /// They are not in the region.
    Outside,
    /// A guest may write them.
    Claimed,
    /// The reader gave another number of bytes, this one.
    Short(usize),
}

impl fmt::Display for ReadError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(formatter, "{error}"),
            Self::Outside => formatter.write_str("it points outside"),
            Self::Claimed => formatter.write_str("a guest may write there"),
            Self::Short(bytes) => write!(formatter, "a read gave {bytes} bytes"),
        }
    }
}

impl core::error::Error for ReadError {}

/// Sectors of a read that are remembered by their CRC, at most: headers, which change with all that they lead to. The largest is that
/// of a block of 4,096 bytes.
const HEAD_SECTORS: u64 = 8;
static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Sectors that a scan read, or would have read if no guest could write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Which.
    pub piece: Piece,
    /// The CRC of what they held, where they are a header.
    head: Option<u32>,
}

/// Whether the headers among `glances` hold what they held. Those that a guest may write are not looked at.
pub(super) async fn is_unchanged<S: Sectors>(reader: &S, glances: &[Glance], written: &[Piece]) -> bool {
    for Glance { piece, head } in glances {
        let Some(head) = head else {
            continue;
        };
        if written.iter().any(|written| written.overlaps(piece)) {
            continue;
        }
        let Ok(count) = u32::try_from(piece.sectors) else {
            return false;
        };
        match reader.read(piece.unit, piece.sector, count).await {
            Ok(bytes) if CRC.checksum(&bytes) == *head => {}
            _ => return false,
        }
    }
    true
}

/// What all reads of a scan have in common.
pub(super) struct Eye<'a, S> {
    pub(super) reader: &'a S,
    pub(super) written: &'a [Piece],
    pub(super) glances: RefCell<Vec<Glance>>,
}

/// A run of sectors of a unit, to read bytes from: nothing outside it, and nothing that a guest may write.
pub(super) struct Region<'a, S> {
    pub(super) eye: &'a Eye<'a, S>,
    pub(super) source: &'a Source,
    pub(super) start: u64,
    pub(super) sectors: u64,
}

impl<'a, S: Sectors> Region<'a, S> {
    pub(super) fn logical_block(&self) -> u32 {
        self.source.geometry.logical_block
    }

    pub(super) fn bytes_long(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR_BYTES.into())
    }

    pub(super) fn unit(&self) -> UnitRef {
        self.source.unit
    }

    /// The `length` bytes at `offset`, of which nothing follows but what is said to the administrator.
    pub(super) async fn peek(&self, offset: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let eye = Eye { reader: self.eye.reader, written: self.eye.written, glances: RefCell::default() };
        Region { eye: &eye, ..*self }.read(offset, length).await
    }

    /// The `length` bytes at `offset`.
    pub(super) async fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let sector_bytes = u64::from(SECTOR_BYTES);
        let long = u64::try_from(length).map_err(|_| ReadError::Outside)?;
        let end = offset.checked_add(long).filter(|end| *end <= self.bytes_long()).ok_or(ReadError::Outside)?;
        let begin = self.start.checked_add(offset / sector_bytes).ok_or(ReadError::Outside)?;
        let end = self.start.checked_add(end.div_ceil(sector_bytes)).ok_or(ReadError::Outside)?;
        // Whole logical blocks, which may reach beyond the region where that is not made of them.
        let block = u64::from(self.logical_block() / SECTOR_BYTES).max(1);
        let first = begin - begin % block;
        let end = end.checked_next_multiple_of(block).ok_or(ReadError::Outside)?;
        if end > self.source.geometry.sectors {
            return Err(ReadError::Outside);
        }
        let asked = Piece { unit: self.unit(), sector: first, sectors: end.saturating_sub(first) };
        if self.eye.written.iter().any(|written| written.overlaps(&asked)) {
            self.eye.glances.borrow_mut().push(Glance { piece: asked, head: None });
            return Err(ReadError::Claimed);
        }
        let skip = (begin - first) * sector_bytes + offset % sector_bytes;
        let skip = usize::try_from(skip).map_err(|_| ReadError::Outside)?;
        let mut bytes = Vec::with_capacity(length.saturating_add(skip));
        let mut sector = first;
        while sector < end {
            let sectors = READ_SECTORS.min(end - sector);
            let count = u32::try_from(sectors).map_err(|_| ReadError::Outside)?;
            let read = self.eye.reader.read(self.unit(), sector, count).await.map_err(ReadError::Io)?;
            if u64::try_from(read.len()) != Ok(sectors * sector_bytes) {
                return Err(ReadError::Short(read.len()));
            }
            bytes.extend_from_slice(&read);
            sector += sectors;
        }
        let head = (asked.sectors <= HEAD_SECTORS).then(|| CRC.checksum(&bytes));
        self.eye.glances.borrow_mut().push(Glance { piece: asked, head });
        bytes.drain(..skip.min(bytes.len()));
        bytes.truncate(length);
        Ok(bytes)
    }
}
