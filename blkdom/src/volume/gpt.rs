//! The GUID partition table (UEFI 2.10, section 5.3): header and entries, each with its CRC, at the beginning of a unit and once more
//! at its end. Pure. Floor 3.
//!
//! A parser of our own: the crates for it bring blocking readers or a GUID crate along, and leave all checks of bounds to the caller.

use super::fault::Unusable;
use super::partition::{Partition, Table, mark_overlaps};
use super::region::{ReadError, Region, Sectors};
use crate::disk::SECTOR_BYTES;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use crc::{CRC_32_ISO_HDLC, Crc};
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// The CRC of header and entries.
pub static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Bytes of all entries, at most: eight times what is usual.
const ENTRIES_BYTES: u32 = 128 << 10;
/// Bytes of an entry, at most.
const ENTRY_BYTES: u32 = 4096;

/// `E6D6D379-F507-44C2-A23C-238F2A3DF928` (Linux LVM), as it lies on the disk.
const LVM: [u8; 16] = [0x79, 0xd3, 0xd6, 0xe6, 0x07, 0xf5, 0xc2, 0x44, 0xa2, 0x3c, 0x23, 0x8f, 0x2a, 0x3d, 0xf9, 0x28];

/// The header (UEFI 2.10, table 5.5).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawHeader {
    signature: [u8; 8],
    revision: U32,
    header_size: U32,
    header_crc: U32,
    reserved: U32,
    my_lba: U64,
    alternate_lba: U64,
    first_usable: U64,
    last_usable: U64,
    disk_guid: [u8; 16],
    entries_lba: U64,
    entries: U32,
    entry_size: U32,
    entries_crc: U32,
}
const _: () = assert!(size_of::<RawHeader>() == 92);

/// An entry (UEFI 2.10, table 5.6).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawEntry {
    kind: [u8; 16],
    guid: [u8; 16],
    first: U64,
    last: U64,
    attributes: U64,
    name: [U16; 36],
}
const _: () = assert!(size_of::<RawEntry>() == 128);

/// A header that is to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The first block that a partition may have.
    pub first_usable: u64,
    /// The last one.
    pub last_usable: u64,
    /// Where the entries begin.
    pub entries_lba: u64,
    /// How many there are.
    pub entries: u32,
    /// Bytes of each.
    pub entry_size: u32,
    /// The block of the other copy.
    pub alternate_lba: u64,
    entries_crc: u32,
}

/// Why a copy of the table is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GptError {
    /// It could not be read.
    Read(ReadError),
    /// No `EFI PART`.
    Signature,
    /// A revision other than 1.x.
    Revision(u32),
    /// A header of so many bytes.
    HeaderSize(u32),
    /// The header's CRC.
    HeaderCrc {
        /// What it says.
        stored: u32,
        /// What it is.
        computed: u32,
    },
    /// It says that it lies elsewhere.
    Place(u64),
    /// Entries of so many bytes, or so many of them.
    Entries {
        /// How many.
        count: u32,
        /// Bytes of each.
        size: u32,
    },
    /// Usable blocks that are none, are not on the unit, or hold the table itself.
    Usable {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
    },
    /// The entries' CRC.
    EntriesCrc {
        /// What the header says.
        stored: u32,
        /// What it is.
        computed: u32,
    },
}

impl fmt::Display for GptError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(formatter, "{error}"),
            Self::Signature => formatter.write_str("no signature"),
            Self::Revision(revision) => write!(formatter, "unknown revision {revision:#x}"),
            Self::HeaderSize(bytes) => write!(formatter, "a header of {bytes} bytes"),
            Self::HeaderCrc { stored, computed } => {
                write!(formatter, "the header's CRC is {computed:#010x}, not {stored:#010x}")
            }
            Self::Place(lba) => write!(formatter, "it is meant for block {lba}"),
            Self::Entries { count, size } => write!(formatter, "{count} entries of {size} bytes"),
            Self::Usable { first, last } => write!(formatter, "usable blocks {first} to {last}"),
            Self::EntriesCrc { stored, computed } => {
                write!(formatter, "the entries' CRC is {computed:#010x}, not {stored:#010x}")
            }
        }
    }
}

impl core::error::Error for GptError {}

/// Reads a header: the bytes of block `lba` of a unit of `blocks` blocks.
///
/// # Errors
/// Why it is not to be believed.
pub fn parse_header(block: &[u8], lba: u64, blocks: u64) -> Result<Header, GptError> {
    let (raw, _) = RawHeader::read_from_prefix(block).map_err(|_| GptError::Signature)?;
    if &raw.signature != b"EFI PART" {
        return Err(GptError::Signature);
    }
    if raw.revision.get() >> 16 != 1 {
        return Err(GptError::Revision(raw.revision.get()));
    }
    let size = raw.header_size.get();
    let header = usize::try_from(size).ok().filter(|size| *size >= size_of::<RawHeader>());
    let header = header.and_then(|size| block.get(..size)).ok_or(GptError::HeaderSize(size))?;
    let mut digest = CRC.digest();
    digest.update(header.get(..16).unwrap_or_default());
    digest.update(&[0; 4]);
    digest.update(header.get(20..).unwrap_or_default());
    let (stored, computed) = (raw.header_crc.get(), digest.finalize());
    if stored != computed {
        return Err(GptError::HeaderCrc { stored, computed });
    }
    if raw.my_lba.get() != lba {
        return Err(GptError::Place(raw.my_lba.get()));
    }
    check_bounds(&raw, block.len(), lba, blocks)
}

fn check_bounds(raw: &RawHeader, block_bytes: usize, lba: u64, blocks: u64) -> Result<Header, GptError> {
    let (count, size) = (raw.entries.get(), raw.entry_size.get());
    let bytes = count.checked_mul(size).filter(|bytes| (1..=ENTRIES_BYTES).contains(bytes));
    // 128 times a power of two, says the specification.
    let fits = (128..=ENTRY_BYTES).contains(&size) && size.is_power_of_two();
    let bytes = bytes.filter(|_| fits).ok_or(GptError::Entries { count, size })?;
    let (first, last) = (raw.first_usable.get(), raw.last_usable.get());
    let usable = GptError::Usable { first, last };
    let entries_lba = raw.entries_lba.get();
    let length = u64::from(bytes).div_ceil(u64::try_from(block_bytes).unwrap_or(u64::MAX));
    let entries_end = entries_lba.checked_add(length).filter(|end| *end <= blocks).ok_or(usable)?;
    let outside = entries_end <= first || entries_lba > last;
    // Either copy keeps partitions off the other one too, which lies at the other end: whoever could write that could move partitions.
    let before = length.saturating_add(2);
    let after = last.checked_add(length).and_then(|end| end.checked_add(2)).filter(|end| *end <= blocks);
    if first < before || first > last || after.is_none() || !outside || (first..=last).contains(&lba) || entries_lba < 2
    {
        return Err(usable);
    }
    let entries_crc = raw.entries_crc.get();
    Ok(Header {
        first_usable: first,
        last_usable: last,
        entries_lba,
        entries: count,
        entry_size: size,
        alternate_lba: raw.alternate_lba.get(),
        entries_crc,
    })
}

impl Header {
    /// Bytes of all entries.
    pub fn entries_bytes(&self) -> u32 {
        self.entries.saturating_mul(self.entry_size)
    }

    /// Reads the entries, of a unit whose blocks are of `block_sectors` sectors. Those that cannot be are there with their fault.
    ///
    /// # Errors
    /// The CRC is not the header's.
    pub fn parse_entries(&self, bytes: &[u8], block_sectors: u64) -> Result<Vec<Partition>, GptError> {
        let computed = CRC.checksum(bytes);
        if computed != self.entries_crc {
            return Err(GptError::EntriesCrc { stored: self.entries_crc, computed });
        }
        let size = usize::try_from(self.entry_size).unwrap_or(usize::MAX);
        let raw = bytes.chunks_exact(size).filter_map(|entry| RawEntry::read_from_prefix(entry).ok());
        let used = raw.zip(1..).filter(|((entry, _), _)| entry.kind != [0; 16]);
        let mut partitions: Vec<_> =
            used.map(|((entry, _), number)| self.partition(&entry, number, block_sectors)).collect();
        mark_overlaps(&mut partitions);
        Ok(partitions)
    }

    fn partition(&self, entry: &RawEntry, number: u32, block_sectors: u64) -> Partition {
        let (first, last) = (entry.first.get(), entry.last.get());
        let inside = first >= self.first_usable && first <= last && last <= self.last_usable;
        let blocks = last.checked_sub(first).and_then(|blocks| blocks.checked_add(1));
        let name: Vec<u16> = entry.name.iter().map(|unit| unit.get()).take_while(|unit| *unit != 0).collect();
        Partition {
            number,
            start: first.saturating_mul(block_sectors),
            sectors: blocks.and_then(|blocks| blocks.checked_mul(block_sectors)).unwrap_or(0),
            label: Some(String::from_utf16_lossy(&name)).filter(|name| !name.is_empty()),
            uuid: Some(guid(&entry.guid)),
            is_lvm: entry.kind == LVM,
            fault: (!inside).then_some(Unusable::Outside { first, last }),
        }
    }
}

/// A GUID as it is written: the first three fields are little-endian (UEFI 2.10, appendix A).
pub fn guid(bytes: &[u8; 16]) -> String {
    let value = u128::from_be_bytes(*bytes);
    let a = u32::swap_bytes((value >> 96) as u32);
    let b = u16::swap_bytes((value >> 80) as u16);
    let c = u16::swap_bytes((value >> 64) as u16);
    let (d, e) = ((value >> 48) as u16, value as u64 & 0xffff_ffff_ffff);
    format!("{a:08x}-{b:04x}-{c:04x}-{d:04x}-{e:012x}")
}

/// Reads the table of a unit: the primary one, and where that is not to be believed, the backup. So do the tools; Linux does with `gpt` on
/// its command line alone.
///
/// # Errors
/// Why neither is, the primary's first.
pub(super) async fn read<S: Sectors>(region: &Region<'_, S>) -> Result<Table, [GptError; 2]> {
    let sector = u64::from(SECTOR_BYTES);
    let block = u64::from(region.logical_block().max(SECTOR_BYTES));
    let blocks = region.bytes_long() / block;
    let primary = match read_copy(region, block, 1, blocks).await {
        Ok((partitions, end)) => {
            let covers = end.min(blocks).saturating_mul(block / sector);
            return Ok(Table { partitions, covers, ..Table::default() });
        }
        Err(error) => error,
    };
    match read_copy(region, block, blocks.saturating_sub(1), blocks).await {
        Ok((partitions, _)) => {
            let note = format!("the partition table's backup is used, for the primary one is bad: {primary}");
            // It lies at the unit's end.
            let covers = blocks.saturating_mul(block / sector);
            Ok(Table { partitions, notes: alloc::vec![note], covers, ..Table::default() })
        }
        Err(backup) => Err([primary, backup]),
    }
}

/// The partitions of the copy at block `lba`, and the block behind all that it says is the table's.
async fn read_copy<S: Sectors>(
    region: &Region<'_, S>,
    block: u64,
    lba: u64,
    blocks: u64,
) -> Result<(Vec<Partition>, u64), GptError> {
    let at = |lba: u64| lba.checked_mul(block).ok_or(GptError::Read(ReadError::Outside));
    let length = usize::try_from(block).unwrap_or(usize::MAX);
    let bytes = region.read(at(lba)?, length).await.map_err(GptError::Read)?;
    let header = parse_header(&bytes, lba, blocks)?;
    let length = usize::try_from(header.entries_bytes()).unwrap_or(usize::MAX);
    let entries = region.read(at(header.entries_lba)?, length).await.map_err(GptError::Read)?;
    let partitions = header.parse_entries(&entries, block / u64::from(SECTOR_BYTES))?;
    Ok((partitions, header.alternate_lba.saturating_add(1)))
}
