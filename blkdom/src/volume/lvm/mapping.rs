//! Logical volumes' extents as sectors of units. Pure. Floor 3.

use super::PhysicalVolume;
use super::metadata::{Logical, Physical, Segment, VolumeGroup};
use crate::volume::fault::Unusable;
use crate::volume::{UnitRef, Volume};
use alloc::vec::Vec;

/// Where each logical volume of the group lies, in the group's order.
pub(super) fn map(group: &VolumeGroup, present: &[Option<&PhysicalVolume>]) -> Vec<Result<Volume, Unusable>> {
    let mut faults: Vec<_> = group.logical.iter().map(|volume| volume.fault.clone()).collect();
    mark_shared(group, &mut faults);
    let volumes = group.logical.iter().zip(faults);
    volumes.map(|(volume, fault)| fault.map_or_else(|| map_one(group, volume, present), Err)).collect()
}

fn map_one(group: &VolumeGroup, volume: &Logical, present: &[Option<&PhysicalVolume>]) -> Result<Volume, Unusable> {
    let mut mapped = Volume::default();
    for segment in &volume.segments {
        map_segment(group, segment, present, &mut mapped)?;
    }
    Ok(mapped)
}

fn map_segment(
    group: &VolumeGroup,
    segment: &Segment,
    present: &[Option<&PhysicalVolume>],
    mapped: &mut Volume,
) -> Result<(), Unusable> {
    let bad = Unusable::Metadata("a segment's extents");
    let each = extents_each(segment).ok_or(bad.clone())?;
    let mut stripes = Vec::new();
    for (place, extent) in &segment.stripes {
        let physical = group.physical.get(*place).ok_or(bad.clone())?;
        if extent.checked_add(each).is_none_or(|end| end > physical.extents) {
            return Err(bad);
        }
        let found = present.get(*place).copied().flatten().ok_or_else(|| Unusable::Lacks(physical.name.clone()))?;
        stripes.push(locate(group.extent, physical, found, *extent, each)?);
    }
    let sectors = segment.extents.checked_mul(group.extent).ok_or(bad.clone())?;
    match stripes.as_slice() {
        [(unit, start)] => mapped.push_linear(*unit, *start, sectors),
        _ => mapped.push_striped(stripes, segment.chunk, sectors),
    }
    .ok_or(Unusable::Metadata("its stripes are no whole number of chunks"))
}

/// Extents of a segment on each of its stripes.
fn extents_each(segment: &Segment) -> Option<u64> {
    segment.extents.checked_div(u64::try_from(segment.stripes.len()).ok()?)
}

/// Where `count` extents from `extent` on lie: within the physical volume, and off its label and metadata.
fn locate(
    extent_sectors: u64,
    physical: &Physical,
    found: &PhysicalVolume,
    extent: u64,
    count: u64,
) -> Result<(UnitRef, u64), Unusable> {
    let bad = Unusable::Metadata("a physical volume's extents");
    let sectors = |extents: u64| extents.checked_mul(extent_sectors).ok_or(bad.clone());
    let begin = physical.start.checked_add(sectors(extent)?).ok_or(bad.clone())?;
    let end = begin.checked_add(sectors(count)?).ok_or(bad.clone())?;
    if end > found.sectors.min(found.declared) {
        return Err(Unusable::BeyondUnit);
    }
    if found.reserved.iter().any(|reserved| begin < reserved.end && reserved.start < end) {
        return Err(Unusable::Metadata("its extents lie over LVM's own metadata"));
    }
    Ok((found.unit, found.start.checked_add(begin).ok_or(bad)?))
}

/// Marks logical volumes that have extents in common, whether they can be handed out otherwise or not.
fn mark_shared(group: &VolumeGroup, faults: &mut [Option<Unusable>]) {
    // Physical volume, first extent, end, logical volume.
    let mut runs = Vec::new();
    for (volume, owner) in group.logical.iter().zip(0_usize..) {
        for segment in &volume.segments {
            let each = extents_each(segment).unwrap_or(0);
            runs.extend(
                segment.stripes.iter().map(|(place, extent)| (*place, *extent, extent.saturating_add(each), owner)),
            );
        }
    }
    runs.sort_unstable();
    let name = |owner: usize| group.logical.get(owner).map(|volume| volume.name.clone()).unwrap_or_default();
    let mut farthest: Option<(usize, u64, usize)> = None;
    for (place, begin, end, owner) in runs {
        match farthest {
            Some((before, reach, other)) if before == place && begin < reach => {
                for (marked, shares) in [(owner, other), (other, owner)] {
                    if let Some(fault) = faults.get_mut(marked) {
                        fault.get_or_insert_with(|| Unusable::SharesExtents(name(shares)));
                    }
                }
                if end > reach {
                    farthest = Some((place, end, owner));
                }
            }
            _ => farthest = Some((place, end, owner)),
        }
    }
}
