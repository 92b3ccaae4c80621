//! What exists, by all its names, and what a `target=` means by that. Pure. Floor 3.

use super::claims::Claims;
use super::entry::{Entry, Resolved};
use super::fault::Unusable;
use super::region::{self, Glance, Sectors, Source};
use super::target::{Printable, Target, TargetError};
use super::{Piece, UnitRef, Volume};
use crate::disk::{Discard, Geometry, SECTOR_BYTES};
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use hashbrown::HashMap;

/// Bytes of a list of names in an error: with all around it, it must fit into a node of the store (2,048 bytes).
const LIST_BYTES: usize = 850;
/// Names that are put first for being like the one that was asked for.
const NEAR: usize = 3;

/// Why a target means nothing that can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NameError {
    /// It is no name at all.
    Target(TargetError),
    /// Guests wrote what this name follows from, and it was not looked at since.
    Changing(String),
    /// There is nothing of that name.
    Unknown {
        /// The name.
        name: String,
        /// What there is: what is most like it, then the rest in order.
        existing: Vec<String>,
        /// What was not looked into, because guests may write it.
        left_out: Vec<String>,
        /// Where a logical volume or a partition of that name may be, and why it is not used.
        hints: Vec<String>,
    },
    /// Several have that name.
    Ambiguous {
        /// The name.
        name: String,
        /// Whose it is.
        owners: Vec<String>,
    },
    /// It is there, but not to be had.
    Unusable {
        /// The name.
        name: String,
        /// Why.
        reason: Unusable,
    },
}

impl fmt::Display for NameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target(error) => write!(formatter, "{error}"),
            Self::Changing(name) => {
                write!(
                    formatter,
                    "{} may be something else by now: guests wrote the disk's tables; ",
                    Printable(name)
                )?;
                formatter.write_str("attach it again when they no longer do")
            }
            Self::Unknown { name, existing, left_out, hints } => {
                write!(formatter, "there is no {}; ", Printable(name))?;
                if existing.is_empty() {
                    formatter.write_str("there is nothing at all yet")?;
                } else {
                    formatter.write_str("there are: ")?;
                    write_list(formatter, existing, LIST_BYTES)?;
                }
                if !left_out.is_empty() {
                    formatter.write_str("; not looked into, because a guest may write it: ")?;
                    write_list(formatter, left_out, 200)?;
                }
                if !hints.is_empty() {
                    formatter.write_str("; not used: ")?;
                    write_list(formatter, hints, 450)?;
                }
                Ok(())
            }
            Self::Ambiguous { name, owners } => {
                write!(formatter, "{} is the name of several: ", Printable(name))?;
                write_list(formatter, owners, LIST_BYTES)?;
                formatter.write_str("; write one of these")
            }
            Self::Unusable { name, reason } => write!(formatter, "{} cannot be used: {reason}", Printable(name)),
        }
    }
}

impl core::error::Error for NameError {}

/// Writes so many of the names as fit, and how many more there are.
fn write_list(formatter: &mut fmt::Formatter<'_>, names: &[String], bytes: usize) -> fmt::Result {
    let mut room = bytes;
    for (place, name) in names.iter().enumerate() {
        let text = Printable(name).to_string();
        let Some(left) = room.checked_sub(text.len().saturating_add(2)) else {
            return write!(formatter, " and {} more", names.len().saturating_sub(place));
        };
        room = left;
        write!(formatter, "{}{text}", if place == 0 { "" } else { ", " })?;
    }
    Ok(())
}

/// What exists.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    units: HashMap<UnitRef, Geometry>,
    entries: Vec<Entry>,
    notes: Vec<String>,
    left_out: Vec<String>,
    /// Why there may be logical volumes that are not known.
    hints: Vec<String>,
    /// Why there may be partitions that are not known, each with the name of their disk.
    disk_hints: Vec<(String, String)>,
    /// What it follows from.
    glances: Vec<Glance>,
}

/// The headers that a catalogue's answer follows from ([`Catalogue::grounds`]).
#[derive(Debug)]
pub struct Grounds {
    headers: Vec<Glance>,
    written: Vec<Piece>,
}

impl Grounds {
    /// Reads them: whether they are as they were.
    pub async fn hold<S: Sectors>(&self, reader: &S) -> bool {
        region::is_unchanged(reader, &self.headers, &self.written).await
    }
}

impl Catalogue {
    pub(super) fn new(units: &[Source]) -> Self {
        let units = units.iter().map(|source| (source.unit, source.geometry)).collect();
        Self { units, ..Self::default() }
    }

    pub(super) fn add(&mut self, entry: Entry) {
        self.entries.push(entry);
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    pub(super) fn remember(&mut self, glances: Vec<Glance>) {
        self.glances = glances;
    }

    pub(super) fn hint(&mut self, hint: String) {
        self.hints.push(hint);
    }

    pub(super) fn hint_of(&mut self, disk: &str, hint: String) {
        self.disk_hints.push((disk.to_owned(), hint));
    }

    pub(super) fn leave_out(&mut self, name: &str) {
        self.left_out.push(name.to_owned());
    }

    /// Takes out what cannot be handed out after all, and sorts.
    pub(super) fn finish(&mut self) {
        for entry in &mut self.entries {
            if let Ok((volume, _)) = &entry.what {
                let fault = fault(&self.units, volume);
                entry.what = fault.map_or_else(|| entry.what.clone(), Err);
            }
        }
        self.entries.sort_by(|a, b| a.names.cmp(&b.names));
    }

    /// What the administrator should know: tables that are damaged, metadata that does not agree.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The names that things are known by, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|entry| entry.listed).filter_map(|entry| entry.names.first()).map(String::as_str)
    }

    /// All that can be handed out with all its names, in order.
    pub fn listing(&self) -> impl Iterator<Item = (&[String], &Volume)> {
        self.entries.iter().filter_map(|entry| Some((entry.names.as_slice(), &entry.what.as_ref().ok()?.0)))
    }

    /// All that can be handed out, in order.
    pub fn volumes(&self) -> impl Iterator<Item = (&str, &Volume)> {
        self.entries.iter().filter_map(|entry| Some((entry.names.first()?.as_str(), &entry.what.as_ref().ok()?.0)))
    }

    /// The units that say what `target` means; none for a unit itself, which is there whatever lies on it.
    fn said_by(&self, target: &str) -> &[UnitRef] {
        let name = Target::parse(target).map(|target| target.name).unwrap_or_default();
        let entry = self.entries.iter().find(|entry| entry.names.contains(&name));
        entry.map(|entry| entry.grounds.as_slice()).unwrap_or_default()
    }

    /// The headers on the units that say what `target` means. They must be as they were for [`resolve`](Self::resolve) to count:
    /// whoever reaches the disk on another way may have changed the partition table, or LVM's metadata, whose sequence number is then
    /// another one.
    pub fn grounds(&self, target: &str, claims: &Claims) -> Grounds {
        let units = self.said_by(target);
        let headers = self.glances.iter().filter(|glance| units.contains(&glance.piece.unit)).copied().collect();
        Grounds { headers, written: claims.written() }
    }

    /// What `target` means, unless a guest could write since the scan what the scan read.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve), and [`NameError::Changing`].
    pub fn resolve_beside(&self, target: &str, claims: &Claims) -> Result<Resolved, NameError> {
        let found = self.resolve(target)?;
        if self.said_by(target).is_empty() {
            return Ok(found);
        }
        let ended = claims.ended();
        if self.glances.iter().any(|glance| ended.covers(&glance.piece)) {
            return Err(NameError::Changing(found.name));
        }
        Ok(found)
    }

    /// What `target` means, as it stands in `params`.
    ///
    /// # Errors
    /// Why nothing, with what there is.
    pub fn resolve(&self, target: &str) -> Result<Resolved, NameError> {
        let Target { name, shared } = Target::parse(target).map_err(NameError::Target)?;
        let mut found = self.entries.iter().filter(|entry| entry.names.contains(&name));
        let Some(entry) = found.next() else {
            return Err(self.unknown(name));
        };
        let more: Vec<_> = found.collect();
        if !more.is_empty() {
            let all = core::iter::once(entry).chain(more);
            let owners = all.filter_map(|entry| entry.names.first().cloned()).collect();
            return Err(NameError::Ambiguous { name, owners });
        }
        let (volume, unwritable) = match &entry.what {
            Ok(found) => found.clone(),
            Err(reason) => return Err(NameError::Unusable { name, reason: reason.clone() }),
        };
        let mut geometry = combine(&self.units, &volume);
        geometry.read_only |= unwritable.is_some();
        let name = entry.names.first().cloned().unwrap_or(name);
        let lasting = self.lasting(entry).cloned();
        Ok(Resolved { name, lasting, volume, geometry, unwritable, shared })
    }

    /// A name of the device itself that no other entry has: the namespaces of one controller share its serial number.
    fn lasting<'a>(&self, entry: &'a Entry) -> Option<&'a String> {
        let is_alone = |name: &&String| self.entries.iter().filter(|other| other.names.contains(name)).count() == 1;
        let of_device = |prefix: &'static str| entry.names.iter().filter(move |name| name.starts_with(prefix));
        ["SERIAL=", "WWN=", "ID="].into_iter().flat_map(of_device).find(is_alone)
    }

    fn unknown(&self, name: String) -> NameError {
        let shown = |entry: &Entry| {
            let label = entry.names.iter().find(|name| name.starts_with("PARTLABEL="));
            let telling = label.or_else(|| entry.grounds.is_empty().then(|| self.lasting(entry)).flatten());
            match (entry.names.first(), telling) {
                (Some(first), Some(second)) => format!("{first} ({second})"),
                (Some(first), None) => first.clone(),
                (None, _) => String::new(),
            }
        };
        let listed = self.entries.iter().filter(|entry| entry.listed);
        let mut ranked: Vec<(usize, String)> = listed.map(|entry| (likeness(entry, &name), shown(entry))).collect();
        ranked.sort();
        let rest = ranked.split_off(ranked.iter().take(NEAR).take_while(|(far, _)| *far < usize::MAX).count());
        let mut others: Vec<String> = rest.into_iter().map(|(_, name)| name).collect();
        others.sort();
        let existing = ranked.into_iter().map(|(_, name)| name).chain(others).collect();
        let of_disks = self.disk_hints.iter().filter(|(disk, _)| name.starts_with(disk));
        let of_disks = of_disks.map(|(disk, hint)| format!("{disk}: {hint}"));
        let hints = if name.contains('/') { self.hints.clone() } else { of_disks.collect() };
        NameError::Unknown { name, existing, left_out: self.left_out.clone(), hints }
    }
}

/// How far a name of `entry` is from `name`; `usize::MAX` where they are not alike at all.
fn likeness(entry: &Entry, name: &str) -> usize {
    let limit = name.len().div_ceil(3).min(6);
    let best = entry.names.iter().map(|known| {
        let bare = known.rsplit_once(['/', '=']).map_or(known.as_str(), |(_, bare)| bare);
        if bare.eq_ignore_ascii_case(name) { 1 } else { distance(known, name) }
    });
    best.min().filter(|distance| *distance <= limit).unwrap_or(usize::MAX)
}

/// Bytes to put in, take out or change (Levenshtein). Long names are not compared.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 96 || b.len() > 96 || a.len().abs_diff(b.len()) > 6 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut before = i.saturating_add(1);
        let mut next = Vec::with_capacity(row.len());
        next.push(before);
        for (right, above) in b.bytes().zip(row.iter().skip(1)) {
            let changed = diagonal.saturating_add(usize::from(left != right));
            diagonal = *above;
            before = changed.min(before.saturating_add(1)).min(above.saturating_add(1));
            next.push(before);
        }
        row = next;
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// Why a volume cannot be handed out, if so: it must lie on its units, in whole logical blocks of each of them.
fn fault(units: &HashMap<UnitRef, Geometry>, volume: &Volume) -> Option<Unusable> {
    let mut block = SECTOR_BYTES;
    for extent in volume.extents() {
        let Some(geometry) = units.get(&extent.unit) else {
            return Some(Unusable::BeyondUnit);
        };
        if extent.sector.checked_add(extent.sectors).is_none_or(|end| end > geometry.sectors) {
            return Some(Unusable::BeyondUnit);
        }
        block = block.max(geometry.logical_block);
    }
    let sectors = u64::from(block / SECTOR_BYTES);
    (!volume.is_aligned(sectors)).then_some(Unusable::Misaligned(block))
}

/// What the units of a volume can do together.
fn combine(units: &HashMap<UnitRef, Geometry>, volume: &Volume) -> Geometry {
    let mut all = volume.units().into_iter().filter_map(|unit| units.get(&unit).copied());
    let first = all.next().unwrap_or_default();
    let mut combined = all.fold(first, |a, b| Geometry {
        sectors: 0,
        logical_block: a.logical_block.max(b.logical_block),
        physical_block: a.physical_block.max(b.physical_block),
        volatile_cache: a.volatile_cache || b.volatile_cache,
        read_only: a.read_only || b.read_only,
        discard: a.discard.zip(b.discard).map(|(a, b)| Discard {
            granularity: a.granularity.max(b.granularity),
            alignment: 0,
            secure: a.secure && b.secure,
        }),
        write_zeroes: a.write_zeroes && b.write_zeroes,
    });
    combined.sectors = volume.sectors();
    combined.physical_block = combined.physical_block.max(combined.logical_block);
    if let Some(discard) = &mut combined.discard {
        discard.granularity = discard.granularity.max(combined.logical_block);
        discard.alignment = alignment(units, volume, discard.granularity);
    }
    combined
}

/// Bytes from the volume's beginning to the first range that is discarded as a whole; 0 where its parts do not agree.
fn alignment(units: &HashMap<UnitRef, Geometry>, volume: &Volume, granularity: u32) -> u32 {
    let mut offsets = volume.extents().map(|extent| {
        let own = units.get(&extent.unit).and_then(|unit| unit.discard).map_or(0, |discard| discard.alignment);
        let granularity = u128::from(granularity.max(1));
        let begin = u128::from(extent.sector).saturating_mul(SECTOR_BYTES.into()) % granularity;
        let offset = (u128::from(own) % granularity).saturating_add(granularity).saturating_sub(begin) % granularity;
        u32::try_from(offset).unwrap_or(0)
    });
    let first = offsets.next().unwrap_or(0);
    if offsets.all(|offset| offset == first) { first } else { 0 }
}
