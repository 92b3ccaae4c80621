//! A volume group, as its metadata says: typed and checked for itself, before anybody knows which disks are there. Pure. Floor 3.

use super::label::Id;
use super::text::{self, Node, Scalar, Section, TextError};
use crate::volume::fault::Unusable;
use crate::volume::target::is_lvm_name;
use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use hashbrown::{HashMap, HashSet};

/// Stripes of a segment, at most (LVM's `MAX_STRIPES`).
const STRIPES: u64 = 128;
/// The numbers of metadata are of 32 bits.
const NUMBER: u64 = u32::MAX as u64;

/// A volume group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct VolumeGroup {
    pub(super) name: String,
    pub(super) id: Id,
    /// Grows with each change.
    pub(super) sequence: u64,
    /// Sectors of an extent.
    pub(super) extent: u64,
    pub(super) exported: bool,
    pub(super) writable: bool,
    /// Why lvm2 would not use it here, if so, and what helps.
    pub(super) fault: Option<String>,
    pub(super) physical: Vec<Physical>,
    pub(super) logical: Vec<Logical>,
}

/// One of its physical volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Physical {
    /// What the metadata calls it: `pv0`.
    pub(super) name: String,
    pub(super) id: Id,
    /// The sector that extents begin at.
    pub(super) start: u64,
    /// How many extents it has.
    pub(super) extents: u64,
    /// Sectors of it, where the metadata say. `pvresize` changes this and not the label.
    pub(super) size: Option<u64>,
    /// The group was changed while it was not there: what it holds is old.
    pub(super) missing: bool,
}

/// One of its logical volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Logical {
    pub(super) name: String,
    pub(super) visible: bool,
    pub(super) writable: bool,
    /// What lies on physical volumes, whether that is all of it or not.
    pub(super) segments: Vec<Segment>,
    /// Why it cannot be handed out, if so.
    pub(super) fault: Option<Unusable>,
}

/// A run of a logical volume's extents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) start: u64,
    /// Extents on all stripes together; a multiple of their number.
    pub(super) extents: u64,
    /// Which physical volume of the group, and the first extent there.
    pub(super) stripes: Vec<(usize, u64)>,
    /// Sectors to a stripe in turn; 0 where there is one stripe.
    pub(super) chunk: u64,
}

/// Why there is no volume group in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MetadataError {
    /// It cannot be read.
    Text(TextError),
    /// Something is missing or makes no sense.
    Nonsense(&'static str),
}

impl fmt::Display for MetadataError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(error) => write!(formatter, "{error}"),
            Self::Nonsense(what) => write!(formatter, "the metadata makes no sense: {what}"),
        }
    }
}

impl core::error::Error for MetadataError {}

/// Reads a text.
///
/// # Errors
/// Why there is no volume group in it.
pub(super) fn parse(text: &str) -> Result<VolumeGroup, MetadataError> {
    let root = text::parse(text).map_err(MetadataError::Text)?;
    let bad = MetadataError::Nonsense;
    if root.text("contents") != Some("Text Format Volume Group") || root.number("version") != Some(1) {
        return Err(bad("what it is and of which version"));
    }
    let mut groups = root.sections();
    let (Some((name, group)), None) = (groups.next(), groups.next()) else {
        return Err(bad("the number of volume groups"));
    };
    if !is_lvm_name(name) {
        return Err(bad("the volume group's name"));
    }
    if group.text("format").is_some_and(|format| format != "lvm2") {
        return Err(bad("the volume group's format"));
    }
    let id = group.text("id").and_then(id).ok_or(bad("the volume group's id"))?;
    let sequence = group.number("seqno").ok_or(bad("seqno"))?;
    let extent = group.number("extent_size").filter(|size| (1..=NUMBER).contains(size)).ok_or(bad("extent_size"))?;
    let physical = group.section("physical_volumes").map_or(Ok(Vec::new()), physical_volumes)?;
    let logical = match group.section("logical_volumes") {
        Some(section) => logical_volumes(section, &physical).map_err(bad)?,
        None => Vec::new(),
    };
    let (exported, writable) = (group.has("status", "EXPORTED"), is_writable(group));
    let fault = foreign(name, group).or_else(|| unknown_word(group));
    Ok(VolumeGroup { name: name.to_owned(), id, sequence, extent, exported, writable, fault, physical, logical })
}

/// Status words of volume groups, physical and logical volumes (`lib/format_text/flags.c`). LVM refuses a group with another one.
const GROUP_WORDS: [&str; 9] =
    ["EXPORTED", "RESIZEABLE", "PVMOVE", "READ", "WRITE", "WRITE_LOCKED", "CLUSTERED", "SHARED", "PARTIAL"];
const PHYSICAL_WORDS: [&str; 3] = ["ALLOCATABLE", "EXPORTED", "MISSING"];
const LOGICAL_WORDS: [&str; 11] = [
    "READ",
    "WRITE",
    "WRITE_LOCKED",
    "FIXED_MINOR",
    "VISIBLE",
    "PVMOVE",
    "LOCKED",
    "NOTSYNCED",
    "REBUILD",
    "WRITEMOSTLY",
    "ACTIVATION_SKIP",
];

/// Whether it may be written. Where a group has a system ID or a lock type, LVM says `WRITE_LOCKED` in place of `WRITE`, so that versions
/// that know neither do not write.
fn is_writable(section: &Section<'_>) -> bool {
    section.has("status", "WRITE") || ["status", "flags"].iter().any(|key| section.has(key, "WRITE_LOCKED"))
}

/// Whose the group is, where it is not ours alone: lvm2 refuses it on a host that has no such ID and no such lock manager.
fn foreign(name: &str, group: &Section<'_>) -> Option<String> {
    if let Some(system) = group.text("system_id").filter(|system| !system.is_empty()) {
        return Some(format!(
            "it belongs to the host with system ID {system}; there, vgchange --systemid \"\" {name} frees it"
        ));
    }
    if let Some(lock) = group.text("lock_type").filter(|lock| !matches!(*lock, "" | "none")) {
        return Some(format!(
            "hosts share it by lock type {lock}; vgchange --lock-type none {name} makes it one host's"
        ));
    }
    let clustered = group.has("status", "CLUSTERED");
    clustered.then(|| format!("it is clustered; vgchange --force --lock-type none {name} makes it one host's"))
}

/// A status word that nobody knows.
fn unknown_word(group: &Section<'_>) -> Option<String> {
    let below = |key: &str| group.section(key).into_iter().flat_map(Section::sections).map(|(_, section)| section);
    let words = core::iter::once((group, GROUP_WORDS.as_slice()))
        .chain(below("physical_volumes").map(|section| (section, PHYSICAL_WORDS.as_slice())))
        .chain(below("logical_volumes").map(|section| (section, LOGICAL_WORDS.as_slice())));
    words.into_iter().find_map(|(section, known)| {
        section.list("status").iter().find_map(|word| match word {
            Scalar::Text(word) if known.contains(word) => None,
            Scalar::Text(word) => Some(format!("its metadata has the unknown status {word}: a newer LVM wrote it")),
            Scalar::Integer(_) => Some(String::from("its metadata has a number as a status")),
        })
    })
}

/// An id as it is written: `6-4-4-4-4-4-6` letters and digits.
fn id(text: &str) -> Option<Id> {
    let bytes: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    Id::try_from(bytes.as_slice()).ok().filter(|id| id.iter().all(u8::is_ascii_alphanumeric))
}

fn physical_volumes(section: &Section<'_>) -> Result<Vec<Physical>, MetadataError> {
    let bad = MetadataError::Nonsense;
    let mut known = HashSet::new();
    let mut volumes = Vec::new();
    for (name, volume) in section.sections() {
        let id = volume.text("id").and_then(id).ok_or(bad("a physical volume's id"))?;
        if !known.insert(Ok(id)) || !known.insert(Err(name)) {
            return Err(bad("two physical volumes of one id or name"));
        }
        let extents = volume.number("pe_count").filter(|count| *count <= NUMBER).ok_or(bad("pe_count"))?;
        // Without extents there is no beginning of them.
        let start = volume.number("pe_start").or((extents == 0).then_some(0)).ok_or(bad("pe_start"))?;
        let missing = ["status", "flags"].iter().any(|key| volume.has(key, "MISSING"));
        let size = volume.number("dev_size").filter(|size| *size > 0);
        volumes.push(Physical { name: name.to_owned(), id, start, extents, size, missing });
    }
    Ok(volumes)
}

fn logical_volumes(section: &Section<'_>, physical: &[Physical]) -> Result<Vec<Logical>, &'static str> {
    let places = physical.iter().zip(0..).map(|(volume, place)| (volume.name.as_str(), place)).collect();
    let names: HashSet<&str> = section.sections().map(|(name, _)| name).collect();
    if names.len() != section.sections().count() {
        return Err("two logical volumes of one name");
    }
    let mut owners: HashMap<&str, Unusable> = HashMap::new();
    for (name, volume) in section.sections() {
        for (_, segment) in volume.sections() {
            for (part, why) in parts(name, segment, &names) {
                owners.entry(part).or_insert(why);
            }
        }
    }
    Ok(section.sections().map(|(name, volume)| logical_volume(name, volume, &places, &owners)).collect())
}

/// The logical volumes that a segment of `owner` is made of, or depends upon: nobody may have them by themselves. Which keys name them
/// depends on the kind of segment; so all are looked at but those that are known to hold other words.
fn parts<'a>(owner: &str, segment: &Section<'a>, names: &HashSet<&str>) -> Vec<(&'a str, Unusable)> {
    let is_snapshot = segment.text("type") == Some("snapshot");
    let mut parts = Vec::new();
    for (key, node) in &segment.entries {
        if matches!(*key, "type" | "tags" | "discards" | "cache_mode" | "policy" | "cache_policy") {
            continue;
        }
        let values = match node {
            Node::Scalar(value) => core::slice::from_ref(value),
            Node::List(list) => list.as_slice(),
            Node::Section(_) => &[],
        };
        let named = values.iter().filter_map(|value| match value {
            Scalar::Text(text) => Some(*text),
            Scalar::Integer(_) => None,
        });
        let why = match *key {
            "origin" if is_snapshot => Unusable::HasSnapshots,
            "cow_store" if is_snapshot => Unusable::Kind("snapshot".to_owned()),
            _ => Unusable::PartOf(owner.to_owned()),
        };
        parts.extend(named.filter(|name| *name != owner && names.contains(name)).map(|name| (name, why.clone())));
    }
    parts
}

fn logical_volume(
    name: &str,
    volume: &Section<'_>,
    places: &HashMap<&str, usize>,
    owners: &HashMap<&str, Unusable>,
) -> Logical {
    let mut segments = Vec::new();
    let visible = volume.has("status", "VISIBLE");
    let mut fault = owners.get(name).cloned().or((!visible).then_some(Unusable::Hidden));
    for (_, section) in volume.sections().filter(|(key, _)| key.starts_with("segment")) {
        match segment(section, places) {
            Ok(segment) => segments.push(segment),
            // What is a part of something else is so whatever else there is to say.
            Err(why) => fault = fault.or(Some(why)),
        }
    }
    segments.sort_by_key(|segment| segment.start);
    let mut end = Some(0_u64);
    for segment in &segments {
        end = end.filter(|end| *end == segment.start).and_then(|end| end.checked_add(segment.extents));
    }
    let declared = volume.number("segment_count").and_then(|count| usize::try_from(count).ok());
    if !is_lvm_name(name) {
        fault = fault.or(Some(Unusable::Metadata("its name")));
    } else if segments.is_empty() || declared != Some(segments.len()) || end.is_none() {
        fault = fault.or(Some(Unusable::Metadata("its segments do not follow each other")));
    }
    Logical { name: name.to_owned(), visible, writable: is_writable(volume), segments, fault }
}

fn segment(section: &Section<'_>, places: &HashMap<&str, usize>) -> Result<Segment, Unusable> {
    let kind = section.text("type").unwrap_or("unknown");
    if kind != "striped" {
        return Err(Unusable::Kind(kind.to_owned()));
    }
    let bad = Unusable::Metadata("a segment");
    let number = |key: &str| section.number(key).filter(|value| *value <= NUMBER).ok_or(bad.clone());
    let (start, extents, count) = (number("start_extent")?, number("extent_count")?, number("stripe_count")?);
    let list = section.list("stripes");
    let pairs = u64::try_from(list.len() / 2).unwrap_or(u64::MAX);
    if !(1..=STRIPES).contains(&count) || pairs != count || !list.len().is_multiple_of(2) {
        return Err(bad);
    }
    if extents == 0 || !extents.is_multiple_of(count) {
        return Err(bad);
    }
    let chunk = if count > 1 { number("stripe_size")? } else { 0 };
    if count > 1 && chunk == 0 {
        return Err(bad);
    }
    let mut stripes = Vec::new();
    for pair in list.chunks_exact(2) {
        let [Scalar::Text(name), Scalar::Integer(extent)] = pair else {
            return Err(bad);
        };
        let extent = u64::try_from(*extent).ok().filter(|extent| *extent <= NUMBER).ok_or(bad.clone())?;
        // What is no physical volume is a logical one: `pvmove` is at work.
        let place = places.get(name).copied().ok_or_else(|| Unusable::Kind(alloc::format!("striped, on {name}")))?;
        stripes.push((place, extent));
    }
    Ok(Segment { start, extents, stripes, chunk })
}
