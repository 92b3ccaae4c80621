//! What the two kinds of partition table have in common. Pure. Floor 3.

use super::fault::Unusable;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// A partition, as its table says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, from 1; logical ones from 5.
    pub number: u32,
    /// Its first sector, of 512 bytes.
    pub start: u64,
    /// Its sectors.
    pub sectors: u64,
    /// GPT's name, where it has one.
    pub label: Option<String>,
    /// GPT's GUID, or the MBR's signature and the number.
    pub uuid: Option<String>,
    /// It may hold a physical volume of LVM.
    pub is_lvm: bool,
    /// Why it is not to be used, if so.
    pub fault: Option<Unusable>,
}

/// A table as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The partitions that it has.
    pub partitions: Vec<Partition>,
    /// What its owner should know.
    pub notes: Vec<String>,
    /// What there is in it that is not known, and so has no name here.
    pub unknown: Vec<String>,
    /// Sectors from the beginning that it says are its own, the table's other copy among them; 0 where it does not say.
    pub covers: u64,
}

/// A partition's name on its unit, as Linux has it: `sda3`, `nvme0n1p2`.
pub fn name(unit: &str, number: u32) -> String {
    let separator = if unit.ends_with(|character: char| character.is_ascii_digit()) { "p" } else { "" };
    format!("{unit}{separator}{number}")
}

/// Marks partitions that have sectors in common: which of them a sector belongs to, nobody can know.
pub fn mark_overlaps(partitions: &mut [Partition]) {
    partitions.sort_by_key(|partition| (partition.start, partition.number));
    // The one before that reaches farthest: whoever begins within any before, begins within that.
    let mut farthest: Option<(&mut Partition, u64)> = None;
    for partition in partitions.iter_mut().filter(|partition| partition.sectors > 0) {
        let end = partition.start.saturating_add(partition.sectors);
        match &mut farthest {
            Some((before, reach)) if partition.start < *reach => {
                before.fault.get_or_insert(Unusable::Overlaps(partition.number));
                partition.fault.get_or_insert(Unusable::Overlaps(before.number));
                if end > *reach {
                    farthest = Some((partition, end));
                }
            }
            _ => farthest = Some((partition, end)),
        }
    }
    partitions.sort_by_key(|partition| partition.number);
}
