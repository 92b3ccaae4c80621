//! The master boot record's table of partitions, with logical ones in an extended one. Pure. Floor 3.
//!
//! Blocks of the table are the unit's logical blocks. What Linux takes for a table is one here: a signature, and boot indicators of 0
//! or 0x80 alone (block/partitions/msdos.c).

use super::catalogue::Unusable;
use super::partition::{Partition, Table, mark_overlaps};
use super::scan::{Region, Sectors};
use crate::disk::SECTOR_BYTES;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Bytes of a boot record.
pub(super) const BYTES: usize = 512;
/// Logical partitions, at most.
const LOGICAL: usize = 64;

/// GPT protective (UEFI 2.10, section 5.2.3).
const PROTECTIVE: u8 = 0xee;
/// Linux LVM.
const LVM: u8 = 0x8e;

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawEntry {
    boot: u8,
    first_chs: [u8; 3],
    kind: u8,
    last_chs: [u8; 3],
    start: U32,
    blocks: U32,
}

#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawRecord {
    code: [u8; 440],
    signature: U32,
    zero: [u8; 2],
    entries: [RawEntry; 4],
    magic: U16,
}
const _: () = assert!(size_of::<RawRecord>() == BYTES);

impl RawEntry {
    fn is_extended(&self) -> bool {
        matches!(self.kind, 0x05 | 0x0f | 0x85)
    }

    fn is_used(&self) -> bool {
        self.kind != 0 && self.blocks.get() != 0
    }
}

/// What a unit's first sector says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mbr {
    /// There is a GPT.
    Protective,
    /// A table of this kind.
    Table(Primary),
}

/// The table in the first sector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Primary {
    signature: u32,
    /// Partitions, in blocks.
    partitions: Vec<Entry>,
    /// Where extended ones lie, in blocks.
    extended: Option<(u64, u64)>,
    /// There are more extended ones, which nobody should have.
    more_extended: bool,
}

/// A partition, in blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    number: u32,
    start: u64,
    blocks: u64,
    kind: u8,
}

fn record(bytes: &[u8]) -> Option<RawRecord> {
    let (raw, _) = RawRecord::read_from_prefix(bytes).ok()?;
    (raw.magic.get() == 0xaa55).then_some(raw)
}

/// Reads a unit's first sector; none where that holds no table with a partition.
pub fn parse(bytes: &[u8]) -> Option<Mbr> {
    let raw = record(bytes)?;
    if raw.entries.iter().any(|entry| entry.boot & 0x7f != 0) || !raw.entries.iter().any(RawEntry::is_used) {
        return None;
    }
    if raw.entries.iter().any(|entry| entry.kind == PROTECTIVE && entry.start.get() == 1) {
        return Some(Mbr::Protective);
    }
    let used = || raw.entries.iter().zip(1..).filter(|(entry, _)| entry.is_used());
    let plain = used().filter(|(entry, _)| !entry.is_extended());
    let partitions = plain.map(|(entry, number)| Entry {
        number,
        start: entry.start.get().into(),
        blocks: entry.blocks.get().into(),
        kind: entry.kind,
    });
    let mut extended = used().filter(|(entry, _)| entry.is_extended());
    Some(Mbr::Table(Primary {
        signature: raw.signature.get(),
        partitions: partitions.collect(),
        extended: extended.next().map(|(entry, _)| (entry.start.get().into(), entry.blocks.get().into())),
        more_extended: extended.next().is_some(),
    }))
}

/// Reads the logical partitions as well, and gives all of them.
pub(super) async fn read_logical<S: Sectors>(region: &Region<'_, S>, primary: Primary) -> Table {
    let block = u64::from(region.logical_block().max(SECTOR_BYTES));
    let Primary { signature, mut partitions, extended, more_extended } = primary;
    let mut notes = Vec::new();
    // Blocks that hold the table: whoever may write one could move partitions.
    let mut tables = vec![0];
    if more_extended {
        notes.push(String::from("only the first extended partition is looked into"));
    }
    if let Some((start, blocks)) = extended
        && let Err(note) = chain(region, block, start, blocks, &mut partitions, &mut tables).await
    {
        notes.push(note);
    }
    let block_sectors = block / u64::from(SECTOR_BYTES);
    let mut partitions: Vec<Partition> = partitions
        .iter()
        .map(|entry| {
            let range = entry.start..entry.start.saturating_add(entry.blocks);
            let holds = tables.iter().any(|table| range.contains(table));
            Partition {
                number: entry.number,
                start: entry.start.saturating_mul(block_sectors),
                sectors: entry.blocks.saturating_mul(block_sectors),
                label: None,
                uuid: (signature != 0).then(|| format!("{signature:08x}-{:02x}", entry.number)),
                is_lvm: entry.kind == LVM,
                fault: holds.then_some(Unusable::HoldsTable),
            }
        })
        .collect();
    mark_overlaps(&mut partitions);
    Table { partitions, notes }
}

/// Follows the extended boot records: each holds one partition, counted from itself, and the next record, counted from the first one.
async fn chain<S: Sectors>(
    region: &Region<'_, S>,
    block: u64,
    start: u64,
    blocks: u64,
    partitions: &mut Vec<Entry>,
    tables: &mut Vec<u64>,
) -> Result<(), String> {
    let end = start.saturating_add(blocks);
    let mut number = 5;
    let mut at = start;
    loop {
        if tables.contains(&at) {
            return Err(format!("the extended boot records run in a circle at block {at}"));
        }
        if tables.len() > LOGICAL {
            return Err(format!("only the first {LOGICAL} extended boot records are read"));
        }
        if !(start..end).contains(&at) {
            return Err(format!("an extended boot record at block {at} is outside the extended partition"));
        }
        tables.push(at);
        let offset = at.saturating_mul(block);
        let bytes =
            region.read(offset, BYTES).await.map_err(|error| format!("the extended boot record at {at}: {error}"))?;
        let Some(raw) = record(&bytes) else {
            return Err(format!("there is no extended boot record at block {at}"));
        };
        let mut next = None;
        // Which of the entries is which, their kinds say; the last two are always empty.
        for entry in raw.entries.iter().take(2).filter(|entry| entry.is_used()) {
            let offset = u64::from(entry.start.get());
            if entry.is_extended() {
                next = next.or(Some(start.saturating_add(offset)));
                continue;
            }
            let (first, length) = (at.saturating_add(offset), u64::from(entry.blocks.get()));
            // One that reaches beyond is left out, but keeps its number.
            if first.saturating_add(length) <= end {
                partitions.push(Entry { number, start: first, blocks: length, kind: entry.kind });
            }
            number += 1;
        }
        let Some(following) = next else {
            return Ok(());
        };
        at = following;
    }
}
