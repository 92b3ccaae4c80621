//! Volume groups out of the copies of their metadata and the physical volumes that are there. Pure. Floor 3.

use super::mapping;
use super::metadata::VolumeGroup;
use super::{Copy, Found, Group, PhysicalVolume};
use crate::volume::entry::Entry;
use crate::volume::fault::{Unusable, Unwritable};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

impl Found {
    /// All volume groups.
    pub(in crate::volume) fn assemble(self) -> Vec<Group> {
        let Self { volumes, mut copies, notes } = self;
        let mut groups = vec![Group { volumes: Vec::new(), notes }];
        // The newest of each group first.
        copies.sort_by(|a, b| (a.group.id, b.group.sequence).cmp(&(b.group.id, a.group.sequence)));
        let mut newest: Vec<(VolumeGroup, Vec<String>, Option<String>)> = Vec::new();
        for copy in copies {
            match newest.last_mut() {
                Some((group, notes, fault)) if group.id == copy.group.id => disagree(group, copy, notes, fault),
                _ => newest.push((copy.group, Vec::new(), None)),
            }
        }
        let all: Vec<_> = newest.iter().map(|(group, ..)| group.clone()).collect();
        for (group, mut notes, fault) in newest {
            let fault = fault.or_else(|| clash(&group, &all));
            let (present, more) = present(&group, &volumes);
            let fault = fault.or(more);
            let fault = fault.or_else(|| group.fault.clone());
            let lacking: Vec<_> = group
                .physical
                .iter()
                .zip(&present)
                .filter(|(_, found)| found.is_none())
                .map(|(wanted, _)| wanted.name.as_str())
                .collect();
            if !lacking.is_empty() && fault.is_none() {
                notes.push(format!("volume group {}: {} is not there", group.name, lacking.join(", ")));
            }
            notes.extend(fault.iter().map(|fault| format!("volume group {} is not used: {fault}", group.name)));
            groups.push(Group { volumes: entries(&group, &present, fault), notes });
        }
        groups
    }
}

/// An older copy is noted; one as new that says something else makes the group useless, for nobody knows which is true.
fn disagree(group: &VolumeGroup, copy: Copy, notes: &mut Vec<String>, fault: &mut Option<String>) {
    let owners = copy.owners.join(", ");
    let (name, sequence) = (&group.name, group.sequence);
    if copy.group.sequence == sequence {
        fault.get_or_insert(format!("{owners} and others have different metadata of one number, {sequence}"));
    } else {
        let older = copy.group.sequence;
        notes.push(format!("volume group {name}: {owners} has metadata {older}; the newest is {sequence}"));
    }
}

/// What another group has that this one has too.
fn clash(group: &VolumeGroup, all: &[VolumeGroup]) -> Option<String> {
    let mut others = all.iter().filter(|other| other.id != group.id);
    others.find_map(|other| {
        if other.name == group.name {
            return Some(String::from("another one has the same name"));
        }
        let shared = group.physical.iter().find(|volume| other.physical.iter().any(|own| own.id == volume.id))?;
        Some(format!("its physical volume {} belongs to {} as well", shared.name, other.name))
    })
}

/// Which of the physical volumes that the group has are there; and why the group is useless, where one is there twice.
fn present<'a>(
    group: &VolumeGroup,
    volumes: &'a [PhysicalVolume],
) -> (Vec<Option<&'a PhysicalVolume>>, Option<String>) {
    let mut fault = unsound(group, volumes);
    let found = group.physical.iter().map(|wanted| {
        let mut found = volumes.iter().filter(|volume| volume.id == wanted.id);
        let first = found.next();
        if let (Some(first), Some(second)) = (first, found.next()) {
            fault.get_or_insert(format!(
                "{} and {} are both its physical volume {}",
                first.name, second.name, wanted.name
            ));
        }
        first.filter(|_| !wanted.missing)
    });
    (found.collect(), fault)
}

/// Why lvm2 uses no physical volume of the group, or none that is as it should be: it is a part of something larger, or larger than what
/// it lies on.
fn unsound(group: &VolumeGroup, volumes: &[PhysicalVolume]) -> Option<String> {
    let mut own = volumes.iter().filter(|volume| group.physical.iter().any(|wanted| wanted.id == volume.id));
    own.find_map(|volume| {
        let PhysicalVolume { name, member, declared, sectors, .. } = volume;
        match member {
            Some(member) => Some(format!(
                "{name} is a part of {member}: only what has all parts may write it; where that is over, `{} DEVICE` takes the mark off",
                member.remedy()
            )),
            None if declared > sectors => Some(format!(
                "the physical volume on {name} has {declared} sectors, but {name} only {sectors}"
            )),
            None => None,
        }
    })
}

fn entries(group: &VolumeGroup, present: &[Option<&PhysicalVolume>], fault: Option<String>) -> Vec<Entry> {
    let fault = fault.or(group.exported.then(|| "it is exported".to_string()));
    let mut mapped = mapping::map(group, present);
    if let Some(fault) = fault {
        mapped = mapped.into_iter().map(|_| Err(Unusable::Group(fault.clone()))).collect();
    }
    let mut grounds: Vec<_> = present.iter().flatten().map(|physical| physical.unit).collect();
    grounds.sort_unstable();
    grounds.dedup();
    let volumes = group.logical.iter().zip(mapped);
    let metadata = |writable: bool| (!(group.writable && writable)).then_some(Unwritable::Metadata);
    let unread = present.iter().flatten().find_map(|physical| physical.unwritable.as_ref());
    volumes
        .map(|(volume, what)| Entry {
            grounds: grounds.clone(),
            names: vec![format!("{}/{}", group.name, volume.name)],
            what: what.map(|found| (found, metadata(volume.writable).or_else(|| unread.cloned()))),
            listed: volume.visible,
        })
        .collect()
}
