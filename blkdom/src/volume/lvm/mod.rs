//! LVM2: physical volumes, their metadata, and the logical volumes that these make. Read, never written. Pure. Floor 3.
//!
//! A physical volume has a label in one of its first four sectors, which says where its metadata areas are. Each area has a header,
//! which says where in it the text is that is in use. All physical volumes of a group have (or may have) a copy of the same text; the
//! one with the highest `seqno` counts.
//!
//! ```text
//! look: label ── areas ── text ──> a copy (metadata)        for each physical volume, in any order
//! measure: each one's size by the newest copy, and the array that it is a part of
//! assemble: copies of one id ──> newest ──> logical volumes (mapping)
//! ```

mod assemble;
pub(crate) mod label;
mod mapping;
mod metadata;
pub(crate) mod text;

use super::entry::Entry;
use super::fault::Unwritable;
use super::member::{self, Member};
use super::region::{Eye, ReadError, Region, Sectors, Source};
use super::{Piece, UnitRef};
use crate::disk::SECTOR_BYTES;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt::Display;
use label::{HEADER_BYTES, Id, LABEL_BYTES, Range};
use metadata::VolumeGroup;

/// The sector from which on a physical volume may have extents, for what is looked for before them: LVM's default is 2,048.
const EXTENTS: u64 = 64;
/// Physical volumes that are looked at, at most.
const PHYSICAL: usize = 256;

/// What was found on units and partitions.
#[derive(Debug, Default)]
pub(super) struct Found {
    volumes: Vec<PhysicalVolume>,
    copies: Vec<Copy>,
    notes: Vec<String>,
}

/// A physical volume that is there.
#[derive(Clone, Debug)]
struct PhysicalVolume {
    /// The unit or partition that it is.
    name: String,
    id: Id,
    unit: UnitRef,
    /// Its first sector there.
    start: u64,
    sectors: u64,
    /// The array or the like that it is a part of, and that alone may write it.
    member: Option<Member>,
    /// Why nothing on it may be written, if so.
    unwritable: Option<Unwritable>,
    /// Sectors that it has by its group's metadata or else by its label; those that there are where neither says.
    declared: u64,
    /// Where label and metadata lie, from its beginning, in sectors: no extent may.
    reserved: Vec<core::ops::Range<u64>>,
}

impl PhysicalVolume {
    /// Where no mark of something larger counts: what is larger than the volume on it may have its mark behind it.
    fn inner(&self) -> Vec<Piece> {
        let piece =
            |sector: u64, sectors| Piece { unit: self.unit, sector: self.start.saturating_add(sector), sectors };
        // What lies in the volume's extents is a guest's.
        let mut inner = vec![piece(EXTENTS, self.declared.saturating_sub(EXTENTS))];
        // A metadata area is LVM's: a ring that is written bit by bit, with what was there before it in the rest.
        let areas = self.reserved.iter().skip(1);
        inner.extend(areas.map(|area| piece(area.start, area.end.saturating_sub(area.start))));
        inner
    }
}

/// A text, and who has it.
#[derive(Debug)]
struct Copy {
    owners: Vec<String>,
    group: VolumeGroup,
}

/// A volume group's logical volumes.
pub(super) struct Group {
    pub(super) volumes: Vec<Entry>,
    pub(super) notes: Vec<String>,
}

impl Found {
    /// Looks whether a region is a physical volume, and reads what it says. What lies `around` it may not be written, if so.
    ///
    /// # Errors
    /// Its first sectors could not be read.
    pub(super) async fn look<S: Sectors>(
        &mut self,
        name: &str,
        region: &Region<'_, S>,
        around: Option<&Unwritable>,
    ) -> Result<(), ReadError> {
        if self.volumes.len() >= PHYSICAL {
            self.note(name, &format!("not looked at: there are more than {PHYSICAL} physical volumes"));
            return Ok(());
        }
        let first = region.read(0, LABEL_BYTES).await?;
        let label = match label::find(&first) {
            Ok(Some(label)) => label,
            Ok(None) => return Ok(()),
            Err(error) => {
                self.note(name, &error);
                return Ok(());
            }
        };
        let sector_bytes = u64::from(SECTOR_BYTES);
        let mut reserved = Vec::new();
        reserved.push(0..LABEL_BYTES as u64 / sector_bytes);
        for area in &label.areas {
            let end = area.offset.saturating_add(area.bytes).div_ceil(sector_bytes);
            reserved.push(area.offset / sector_bytes..end);
        }
        for area in label.areas {
            match read_copy(region, area).await {
                Ok(Some(group)) => self.add_copy(name, group),
                Ok(None) => {}
                Err(error) => self.note(name, &error),
            }
        }
        let (unit, start, sectors) = (region.unit(), region.start, region.sectors);
        self.volumes.push(PhysicalVolume {
            name: name.to_owned(),
            id: label.id,
            unit,
            start,
            sectors,
            member: None,
            unwritable: around.cloned(),
            declared: if label.bytes == 0 { sectors } else { label.bytes / sector_bytes },
            reserved,
        });
        Ok(())
    }

    /// Takes the sizes of all physical volumes from the newest metadata, and looks of what each is a part.
    pub(super) async fn measure<S: Sectors>(&mut self, eye: &Eye<'_, S>, units: &[Source]) {
        for volume in &mut self.volumes {
            let known = self.copies.iter().filter_map(|copy| {
                let physical = copy.group.physical.iter().find(|physical| physical.id == volume.id)?;
                Some((copy.group.sequence, physical.size?))
            });
            if let Some((_, size)) = known.max() {
                volume.declared = size;
            }
            let Some(source) = units.iter().find(|source| source.unit == volume.unit) else {
                continue;
            };
            let region = Region { eye, source, start: volume.start, sectors: volume.sectors };
            let member::Marks { member, unread } = member::find(&region, &volume.inner()).await;
            volume.member = member;
            if let Some((offset, error)) = unread {
                let unread = Unwritable::Unread { name: volume.name.clone(), offset, error };
                self.notes.push(format!("{unread}: what lies on it cannot be written"));
                volume.unwritable = Some(unread);
            }
        }
    }

    fn note(&mut self, name: &str, what: &dyn Display) {
        self.notes.push(format!("{name}: {what}"));
    }

    fn add_copy(&mut self, name: &str, group: VolumeGroup) {
        match self.copies.iter_mut().find(|copy| copy.group == group) {
            Some(copy) if copy.owners.last().is_some_and(|last| last == name) => {}
            Some(copy) => copy.owners.push(name.to_owned()),
            None => self.copies.push(Copy { owners: vec![name.to_owned()], group }),
        }
    }
}

/// Whether there is a physical volume's label, of which nothing is believed but that.
pub(super) async fn is_labelled<S: Sectors>(region: &Region<'_, S>) -> bool {
    let first = region.peek(0, LABEL_BYTES).await.unwrap_or_default();
    label::find(&first).is_ok_and(|label| label.is_some())
}

/// The volume group that a metadata area holds, if any.
async fn read_copy<S: Sectors>(region: &Region<'_, S>, area: Range) -> Result<Option<VolumeGroup>, String> {
    let read = async |offset: u64, bytes: u64| {
        let length = usize::try_from(bytes).map_err(|_| ReadError::Outside)?;
        region.read(offset, length).await
    };
    let what = |error: ReadError| format!("metadata could not be read: {error}");
    let header = read(area.offset, HEADER_BYTES as u64).await.map_err(what)?;
    let Some(location) = label::parse_area(area, &header).map_err(|error| format!("{error}"))? else {
        return Ok(None);
    };
    let [head, tail] = location.parts;
    let mut text = read(head.offset, head.bytes).await.map_err(what)?;
    if tail.bytes > 0 {
        text.extend(read(tail.offset, tail.bytes).await.map_err(what)?);
    }
    let text = location.check(&text).map_err(|error| format!("{error}"))?;
    metadata::parse(text).map(Some).map_err(|error| format!("{error}"))
}
