//! Volumes: what a `target=` may name, and where its sectors lie. Pure. Floor 3.
//!
//! A volume is a whole unit, a partition, or a logical volume; [`Volume::pieces`] is the one place where a guest's sector becomes a
//! unit's.

use crate::disk::UnitId;
use alloc::vec::Vec;

/// A unit among all controllers of the domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitRef {
    /// The controller, in the order that they came in; never given to another one.
    pub controller: u16,
    /// Its unit.
    pub unit: UnitId,
}

/// A run of sectors on one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where.
    pub unit: UnitRef,
    /// Its first sector there.
    pub sector: u64,
    /// How many.
    pub sectors: u64,
}

/// Where the sectors of a volume lie, in its own order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    spans: Vec<Span>,
    sectors: u64,
}

/// A part of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    /// The volume's sector that it begins at.
    start: u64,
    /// How many.
    sectors: u64,
    /// Sectors that go to one stripe before the next one's turn; the whole span where it is linear.
    chunk: u64,
    /// Where each stripe begins; one where it is linear.
    stripes: Vec<(UnitRef, u64)>,
}
