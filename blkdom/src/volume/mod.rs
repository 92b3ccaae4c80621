//! Volumes: what a `target=` may name, and where its sectors lie. Pure. Floor 3.
//!
//! A volume is a whole unit, a partition, or a logical volume; [`Volume::pieces`] is the one place where a guest's sector becomes a
//! unit's.
//!
//! ```text
//! units ── scan ──> Catalogue ── resolve("vg0/vm1-root") ──> Volume ── Claims::claim ──> Claim, as long as the vbd lives
//!            │ Sectors::read                                   └── pieces(sector, sectors) ──> (unit, sector, sectors) ...
//!         gpt, mbr, lvm
//! ```

pub mod catalogue;
pub mod claims;
mod entry;
#[cfg(any(test, feature = "fakes"))]
pub mod fakes;
mod fault;
mod foreign;
pub mod gpt;
mod listing;
pub mod lvm;
pub mod mbr;
pub mod member;
pub mod partition;
pub mod places;
mod region;
mod scan;
pub mod target;
#[cfg(test)]
mod tests;
mod whereabouts;

pub use catalogue::{Catalogue, Grounds, NameError};
pub use claims::{Access, Claim, ClaimError, Claims, Ended};
pub use entry::Resolved;
pub use fault::{Unusable, Unwritable};
pub use listing::listing;
pub use region::{Glance, ReadError, Sectors, Source};
pub use scan::scan;

use crate::disk::UnitId;
use alloc::vec;
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

impl Piece {
    /// Whether the two have a sector in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.unit == other.unit
            && self.sector < other.sector.saturating_add(other.sectors)
            && other.sector < self.sector.saturating_add(self.sectors)
    }
}

/// Where the sectors of a volume lie, in its own order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volume {
    spans: Vec<Span>,
    sectors: u64,
}

/// A part of a volume. Nothing in it is 0, and no sum of it leaves 64 bits: [`Volume::push_striped`] sees to that.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    /// The volume's sector that it begins at.
    start: u64,
    /// How many; a multiple of `chunk` times the stripes.
    sectors: u64,
    /// Sectors that go to one stripe before the next one's turn; the whole span where it is linear.
    chunk: u64,
    /// Where each stripe begins; one where it is linear.
    stripes: Vec<(UnitRef, u64)>,
}

impl Span {
    /// Where the span's sector `within` lies, and how many follow it there; none where it is beyond the end.
    fn locate(&self, within: u64) -> Option<Piece> {
        let left = self.sectors.checked_sub(within).filter(|left| *left > 0)?;
        let chunk = within.checked_div(self.chunk)?;
        let offset = within.checked_rem(self.chunk)?;
        let stripes = u64::try_from(self.stripes.len()).ok()?;
        let (unit, start) = *self.stripes.get(usize::try_from(chunk.checked_rem(stripes)?).ok()?)?;
        let row = chunk.checked_div(stripes)?.checked_mul(self.chunk)?;
        let sector = start.checked_add(row)?.checked_add(offset)?;
        Some(Piece { unit, sector, sectors: left.min(self.chunk.checked_sub(offset)?) })
    }
}

impl Volume {
    /// A run of sectors on one unit. Empty where it would leave 64 bits.
    pub fn linear(unit: UnitRef, start: u64, sectors: u64) -> Self {
        let mut volume = Self::default();
        volume.push_linear(unit, start, sectors).unwrap_or_default();
        volume
    }

    /// Sectors on a disk that there is not: all that is asked of it fails as on one that is gone.
    pub fn gone() -> Self {
        let unit = UnitRef { controller: u16::MAX, unit: UnitId(u16::MAX) };
        Self::linear(unit, 0, u64::MAX >> 1)
    }

    /// Adds a run of sectors at the end; joins it to the last one where it goes on there. `None`, and nothing is added, where it is
    /// empty or leaves 64 bits.
    pub fn push_linear(&mut self, unit: UnitRef, start: u64, sectors: u64) -> Option<()> {
        start.checked_add(sectors)?;
        let total = self.sectors.checked_add(sectors)?;
        if let Some(last) = self.spans.last_mut()
            && let [(last_unit, last_start)] = last.stripes.as_slice()
            && *last_unit == unit
            && last_start.checked_add(last.sectors) == Some(start)
            && sectors > 0
        {
            last.sectors = last.sectors.checked_add(sectors)?;
            last.chunk = last.sectors;
            self.sectors = total;
            return Some(());
        }
        self.push_striped(vec![(unit, start)], sectors, sectors)
    }

    /// Adds sectors that go round the stripes, `chunk` to each. `None`, and nothing is added, where they are no whole number of rows,
    /// or leave 64 bits.
    pub fn push_striped(&mut self, stripes: Vec<(UnitRef, u64)>, chunk: u64, sectors: u64) -> Option<()> {
        let row = chunk.checked_mul(u64::try_from(stripes.len()).ok()?)?;
        if sectors == 0 || row == 0 || !sectors.is_multiple_of(row) {
            return None;
        }
        let each = sectors.checked_div(u64::try_from(stripes.len()).ok()?)?;
        for (_, start) in &stripes {
            start.checked_add(each)?;
        }
        let total = self.sectors.checked_add(sectors)?;
        self.spans.push(Span { start: self.sectors, sectors, chunk, stripes });
        self.sectors = total;
        Some(())
    }

    /// Its sectors.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether a range lies in it altogether.
    pub fn contains(&self, sector: u64, sectors: u64) -> bool {
        sector.checked_add(sectors).is_some_and(|end| end <= self.sectors)
    }

    /// Where a range of it lies, in its order. Gives nothing at all where a sector of the range is not the volume's: ask
    /// [`Volume::contains`] first.
    pub fn pieces(&self, sector: u64, sectors: u64) -> Pieces<'_> {
        let left = if self.contains(sector, sectors) { sectors } else { 0 };
        let after = self.spans.partition_point(|span| span.start <= sector);
        Pieces { spans: self.spans.get(after.saturating_sub(1)..).unwrap_or_default(), sector, left }
    }

    /// The units under it, each once.
    pub fn units(&self) -> Vec<UnitRef> {
        let mut units: Vec<_> = self.extents().map(|extent| extent.unit).collect();
        units.sort_unstable();
        units.dedup();
        units
    }

    /// All that it covers on its units, in no order that means anything.
    pub fn extents(&self) -> impl Iterator<Item = Piece> {
        self.spans.iter().flat_map(|span| {
            let each = u64::try_from(span.stripes.len()).ok().and_then(|stripes| span.sectors.checked_div(stripes));
            let sectors = each.unwrap_or(span.sectors);
            span.stripes.iter().map(move |(unit, sector)| Piece { unit: *unit, sector: *sector, sectors })
        })
    }

    /// Whether all its sectors begin and end runs at multiples of `sectors`, on the volume and on the units.
    fn is_aligned(&self, sectors: u64) -> bool {
        self.spans.iter().all(|span| {
            [span.start, span.sectors, span.chunk].iter().all(|value| value.is_multiple_of(sectors))
                && span.stripes.iter().all(|(_, start)| start.is_multiple_of(sectors))
        })
    }
}

/// What [`Volume::pieces`] gives.
#[derive(Clone, Debug)]
pub struct Pieces<'a> {
    spans: &'a [Span],
    sector: u64,
    left: u64,
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        if self.left == 0 {
            return None;
        }
        loop {
            let span = self.spans.first()?;
            let Some(mut piece) = span.locate(self.sector.checked_sub(span.start)?) else {
                self.spans = self.spans.get(1..)?;
                continue;
            };
            piece.sectors = piece.sectors.min(self.left);
            self.sector = self.sector.checked_add(piece.sectors)?;
            self.left = self.left.checked_sub(piece.sectors)?;
            return Some(piece);
        }
    }
}
