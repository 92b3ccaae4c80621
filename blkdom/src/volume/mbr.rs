//! The master boot record's table of partitions, with logical ones in an extended one. Pure. Floor 3.
//!
//! Blocks of the table are the unit's logical blocks. What Linux takes for a table is one here, and what it counts is counted, so that
//! all numbers are Linux' (block/partitions/msdos.c and efi.c): an entry is in use where it has a size, whatever its type.

use super::fault::Unusable;
use super::foreign::{self, Within};
use super::partition::{Partition, Table, mark_overlaps};
use super::region::{Region, Sectors};
use crate::disk::SECTOR_BYTES;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout};

/// Bytes of a boot record.
pub(super) const BYTES: usize = 512;
/// Extended boot records that are followed, at most.
const RECORDS: usize = 64;

/// The number of the first logical partition.
const FIRST_LOGICAL: u32 = 5;

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
        self.blocks.get() != 0
    }
}

/// What a unit's first sector says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mbr {
    /// There is a GPT.
    Protective,
    /// There is an entry for a GPT that does not begin at block 1: Linux takes neither table.
    Ambiguous,
    /// Linux takes another table, which is not read here.
    Foreign {
        /// What it is.
        name: &'static str,
        /// What looks like an MBR is there as well, so that LVM takes the disk for a partitioned one.
        beside_mbr: bool,
    },
    /// A table of this kind.
    Table(Primary),
}

/// The table in the first sector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Primary {
    signature: u32,
    /// Partitions, in blocks.
    partitions: Vec<Entry>,
    /// Extended ones, in blocks: where each begins, and how many it has.
    extended: Vec<(u64, u64)>,
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

/// Whether a unit with this first sector is a disk of AIX. Linux looks for that before it looks at the signature, and takes an MBR all the
/// same that has a partition of its own (`aix_magic_present` in msdos.c).
pub(super) async fn is_aix<S: Sectors>(unit: &Region<'_, S>, first: &[u8]) -> bool {
    // `IBMA` in EBCDIC.
    const MAGIC: [u8; 4] = [0xc9, 0xc2, 0xd4, 0xc1];
    const VOLUMES: &[u8] = b"_LVM";
    let is_linux = |entry: &RawEntry| entry.is_extended() || matches!(entry.kind, 0x82 | 0x83 | LVM | 0xfd);
    let raw = RawRecord::read_from_prefix(first);
    first.starts_with(&MAGIC)
        && raw.is_ok_and(|(raw, _)| !raw.entries.iter().any(is_linux))
        && unit.read(7 * u64::from(SECTOR_BYTES), VOLUMES.len()).await.is_ok_and(|mark| mark == VOLUMES)
}

/// Whether there is the signature of a boot record.
pub(super) fn has_signature(bytes: &[u8]) -> bool {
    record(bytes).is_some()
}

/// Reads a unit's first sector; none where that holds no table with a partition.
pub fn parse(bytes: &[u8]) -> Option<Mbr> {
    let Some(raw) = record(bytes) else {
        return foreign::without_mbr(bytes).map(|name| Mbr::Foreign { name, beside_mbr: false });
    };
    let mut protective = raw.entries.iter().filter(|entry| entry.kind == PROTECTIVE);
    // Linux looks for a GPT first, and at nothing but the type and the start.
    if protective.clone().any(|entry| entry.start.get() == 1) {
        return Some(Mbr::Protective);
    }
    if let Some(name) = foreign::before_mbr(bytes, raw.entries.map(|entry| entry.kind)) {
        return Some(Mbr::Foreign { name, beside_mbr: true });
    }
    if raw.entries.iter().any(|entry| entry.boot & 0x7f != 0) || !raw.entries.iter().any(RawEntry::is_used) {
        return None;
    }
    if protective.next().is_some() {
        return Some(Mbr::Ambiguous);
    }
    let used = || raw.entries.iter().zip(1..).filter(|(entry, _)| entry.is_used());
    let plain = used().filter(|(entry, _)| !entry.is_extended());
    let partitions = plain.map(|(entry, number)| Entry {
        number,
        start: entry.start.get().into(),
        blocks: entry.blocks.get().into(),
        kind: entry.kind,
    });
    let extended = used().filter(|(entry, _)| entry.is_extended());
    Some(Mbr::Table(Primary {
        signature: raw.signature.get(),
        partitions: partitions.collect(),
        extended: extended.map(|(entry, _)| (entry.start.get().into(), entry.blocks.get().into())).collect(),
    }))
}

/// Reads the logical partitions as well, and gives all of them.
pub(super) async fn read_logical<S: Sectors>(region: &Region<'_, S>, primary: Primary) -> Table {
    let block = u64::from(region.logical_block().max(SECTOR_BYTES));
    let Primary { signature, mut partitions, extended } = primary;
    let mut notes = Vec::new();
    // Blocks that hold the table: whoever may write one could move partitions.
    let mut tables = vec![0];
    let mut number = FIRST_LOGICAL;
    for (start, blocks) in extended {
        let mut chain = Chain { start, blocks, number, partitions: &mut partitions, tables: &mut tables };
        if let Err(note) = chain.follow(region, block).await {
            notes.push(note);
        }
        number = chain.number;
    }
    let block_sectors = block / u64::from(SECTOR_BYTES);
    let unknown = within(region, &partitions, block_sectors, number).await;
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
    Table { partitions, notes, unknown, covers: 0 }
}

/// Says which primary partitions hold a table of their own. What is in them, Linux numbers from `number` on.
async fn within<S: Sectors>(region: &Region<'_, S>, entries: &[Entry], block_sectors: u64, number: u32) -> Vec<String> {
    let mut said = Vec::new();
    for entry in entries.iter().filter(|entry| entry.number < FIRST_LOGICAL) {
        let Some(table) = Within::of(entry.kind) else {
            continue;
        };
        let sector = entry.start.saturating_mul(block_sectors).saturating_add(table.sector);
        let bytes = region.peek(sector.saturating_mul(SECTOR_BYTES.into()), BYTES).await.unwrap_or_default();
        if table.is_marked(&bytes) {
            let (own, name) = (entry.number, table.name);
            said.push(format!(
                "partition {own} holds {name}, whose partitions, which Linux numbers from {number} on, are not known"
            ));
        }
    }
    said
}

/// The extended boot records of one extended partition. Each holds the partition that is counted from itself, and the next record,
/// counted from the first one; OS/2 used all four entries.
struct Chain<'a> {
    /// The extended partition, in blocks.
    start: u64,
    blocks: u64,
    /// The next partition's number.
    number: u32,
    partitions: &'a mut Vec<Entry>,
    tables: &'a mut Vec<u64>,
}

impl Chain<'_> {
    async fn follow<S: Sectors>(&mut self, region: &Region<'_, S>, block: u64) -> Result<(), String> {
        let (mut at, mut extent) = (self.start, self.blocks);
        loop {
            if self.tables.contains(&at) {
                return Err(format!("the extended boot records run in a circle at block {at}"));
            }
            if self.tables.len() > RECORDS {
                return Err(format!("only the first {RECORDS} extended boot records are read"));
            }
            // Linux follows a record that lies outside the extended partition, too.
            self.tables.push(at);
            let offset = at.saturating_mul(block);
            let bytes = region.read(offset, BYTES).await;
            let bytes = bytes.map_err(|error| format!("the extended boot record at {at}: {error}"))?;
            let Some(raw) = record(&bytes) else {
                return Err(format!("there is no extended boot record at block {at}"));
            };
            self.count(&raw, at, extent);
            let Some(next) = raw.entries.iter().find(|entry| entry.is_used() && entry.is_extended()) else {
                return Ok(());
            };
            (at, extent) = (self.start.saturating_add(next.start.get().into()), next.blocks.get().into());
        }
    }

    /// Counts the partitions of the record at block `at`, to which so many blocks belong.
    fn count(&mut self, raw: &RawRecord, at: u64, extent: u64) {
        let end = self.start.saturating_add(self.blocks);
        for (place, entry) in raw.entries.iter().enumerate() {
            if !entry.is_used() || entry.is_extended() {
                continue;
            }
            let (offset, blocks) = (u64::from(entry.start.get()), u64::from(entry.blocks.get()));
            let first = at.saturating_add(offset);
            // What stands in the last two is often no entry.
            let inside =
                offset.saturating_add(blocks) <= extent && first >= self.start && first.saturating_add(blocks) <= end;
            if place < 2 || inside {
                self.partitions.push(Entry { number: self.number, start: first, blocks, kind: entry.kind });
                self.number += 1;
            }
        }
    }
}
