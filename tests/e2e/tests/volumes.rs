//! blkdom's volumes, held against what Linux says of disks that real tools wrote: the corpus of [`e2e::corpus`]. Host.

use std::collections::BTreeSet;

use blkdom::volume::fakes::{Units, unit};
use blkdom::volume::{Catalogue, NameError, UnitRef, Volume};
use e2e::corpus::{self, Form, Partition, Said, Span};

/// Forms whose volumes blkdom must not hand out, though lvm2 may activate them, or in which lvm2 activates nothing: what the reason
/// says.
const REFUSED: [(&str, &str, &str); 3] = [
    ("lvm-exported", "vg0/a", "exported"),
    ("lvm-foreign", "vg0/a", "system"),
    ("lvm-lacks-a-volume", "vg0/b", "is on"),
];

/// A GPT whose first copy is bad: blkdom takes the other one, as the tools do, and Linux with `gpt` on its command line alone.
const BY_BACKUP: (&str, [&str; 2]) = ("gpt-one-table", ["nvme0n1p1", "nvme0n1p2"]);

fn forms() -> Vec<Form> {
    corpus::read(&corpus::file()).expect("the corpus is there")
}

/// What blkdom finds on the disks, which it takes.
fn catalogue(form: &mut Form) -> Catalogue {
    let mut units = Units::default();
    for unit in form.units.drain(..) {
        units.add(unit.bytes(), unit.block);
    }
    units.catalogue()
}

/// A sector each, in the volume's order.
fn sectors(volume: &Volume) -> Vec<(UnitRef, u64)> {
    let pieces = volume.pieces(0, volume.sectors());
    pieces
        .flat_map(|piece| (piece.sector..piece.sector + piece.sectors).map(move |sector| (piece.unit, sector)))
        .collect()
}

/// The same of what device-mapper was told.
fn mapped(spans: &[Span]) -> Vec<(UnitRef, u64)> {
    let mut all = Vec::new();
    for span in spans {
        assert_eq!(span.start, all.len() as u64, "spans follow each other");
        for within in 0..span.sectors {
            let (chunk, stripes) = (within / span.chunk, span.stripes.len() as u64);
            let (disk, start) = span.stripes[(chunk % stripes) as usize];
            all.push((unit(disk as u16), start + chunk / stripes * span.chunk + within % span.chunk));
        }
    }
    all
}

/// Whether it is an extended partition, of which Linux has 1,024 bytes or a block, for a boot loader: it is nobody's volume.
fn is_extended(partition: &Partition) -> bool {
    partition.number < 5 && [2, 8].contains(&partition.sectors) && partition.uuid.len() < 36
}

/// What the reason says of what lies on a disk that mdadm takes for a leg. A superblock of version 0.90 at the end of the last partition
/// may be the disk's as well, for all that mdadm can tell: it is the partition's.
fn leg(form: &Form, unit: usize) -> Option<String> {
    let format = |disk: bool| form.members.iter().find(|(of, number, _)| *of == unit && (*number == 0) == disk);
    let (_, _, format) = format(true).filter(|_| format(false).is_none())?;
    Some(match format.as_str() {
        "imsm" => "is a part of an Intel firmware RAID".to_owned(),
        "ddf" => "is a part of a DDF RAID".to_owned(),
        version => format!("is a part of an md array (superblock {})", version.trim_end_matches(".00")),
    })
}

/// The table of a disk that Linux reads and blkdom does not, by the name that the reason gives it.
fn foreign(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "amiga" => "an Amiga rigid disk block",
        "atari" => "an Atari root sector",
        "bsd" => "a BSD or OSF disklabel",
        "dvh" => "an SGI volume header (dvh)",
        "mac" => "an Apple partition map",
        "sun" => "a Sun disklabel",
        _ => return None,
    })
}

#[test]
fn partitions_are_those_that_linux_has() {
    for mut form in forms() {
        let catalogue = catalogue(&mut form);
        let mut expected = BTreeSet::new();
        for partition in form.partitions.iter().filter(|partition| !is_extended(partition)) {
            let name = format!("nvme{}n1p{}", partition.unit, partition.number);
            let refused = |text: &str| {
                let error = catalogue.resolve(&name).expect_err(&form.name).to_string();
                assert!(error.contains(text), "{}: {name}: {error}", form.name);
            };
            if let Some(table) =
                form.tables.iter().find_map(|(unit, kind)| (*unit == partition.unit).then(|| foreign(kind))?)
            {
                refused(&format!("{table} is not read"));
                continue;
            }
            if form.name.starts_with("other-") {
                refused("is not read");
                continue;
            }
            if let Some(reason) = leg(&form, partition.unit) {
                refused(&reason);
                expected.insert(name);
                continue;
            }
            let found = catalogue.resolve(&name).unwrap_or_else(|error| panic!("{}: {error}", form.name));
            let own = Volume::linear(unit(partition.unit as u16), partition.start, partition.sectors);
            assert_eq!(found.volume, own, "{}: {name}", form.name);
            let names = [("PARTUUID", &partition.uuid), ("PARTLABEL", &partition.label)];
            for (kind, word) in names.into_iter().filter(|(_, word)| !word.is_empty() && *word != "-") {
                let found = catalogue.resolve(&format!("{kind}={word}"));
                let called_so = form.partitions.iter().filter(|other| [&other.uuid, &other.label].contains(&word));
                if called_so.count() > 1 {
                    assert!(matches!(found, Err(NameError::Ambiguous { .. })), "{}: {kind}={word}", form.name);
                    continue;
                }
                assert_eq!(found.map(|found| found.name).as_ref(), Ok(&name), "{}: {kind}={word}", form.name);
            }
            expected.insert(name);
        }
        if form.name == BY_BACKUP.0 {
            assert!(form.partitions.is_empty(), "Linux takes the backup, too");
            expected.extend(BY_BACKUP.1.map(str::to_owned));
        }
        let names = catalogue.names().filter(|name| name.contains("n1p")).map(str::to_owned);
        assert_eq!(names.collect::<BTreeSet<_>>(), expected, "{}", form.name);
    }
}

/// Linux' partitions are those that the tools say they made, and blkdom's are Linux'.
#[test]
fn partitions_are_those_that_the_tools_say() {
    let mut tools = BTreeSet::new();
    for form in forms() {
        for Said { tool, partition: said } in &form.said {
            let mut all = form.partitions.iter();
            let found = all.find(|partition| (partition.unit, partition.number) == (said.unit, said.number));
            let found = found.unwrap_or_else(|| panic!("{}: Linux has none of {tool}'s {said:?}", form.name));
            assert_eq!(found.start, said.start, "{}: {tool}", form.name);
            if !is_extended(found) {
                assert_eq!(found.sectors, said.sectors, "{}: {tool}", form.name);
                // Parted prints no letters beyond ASCII in the lab's locale.
                if tool != "parted" || found.label.is_ascii() {
                    assert_eq!(found.label, said.label, "{}: {tool}", form.name);
                }
            }
            tools.insert(tool.clone());
        }
    }
    assert_eq!(tools.into_iter().collect::<Vec<_>>(), ["parted", "sgdisk"]);
}

#[test]
fn volumes_lie_where_lvm_has_them() {
    for mut form in forms() {
        let catalogue = catalogue(&mut form);
        let mut expected = BTreeSet::new();
        for volume in &form.volumes {
            if !volume.others.is_empty() {
                let error = catalogue.resolve(&volume.name).expect_err(&form.name).to_string();
                let reasons = [
                    "only linear and striped ones are supported",
                    "snapshots, which are not supported",
                    "it is a part of ",
                ];
                assert!(reasons.iter().any(|reason| error.contains(reason)), "{}: {error}", form.name);
                continue;
            }
            let found = catalogue.resolve(&volume.name).unwrap_or_else(|error| panic!("{}: {error}", form.name));
            assert!(sectors(&found.volume) == mapped(&volume.spans), "{}: {}", form.name, volume.name);
            assert_eq!(found.geometry.read_only, !volume.writable, "{}: {}", form.name, volume.name);
            expected.insert(volume.name.as_str());
        }
        let found = catalogue.volumes().map(|(name, _)| name).filter(|name| name.contains('/'));
        assert_eq!(found.collect::<BTreeSet<_>>(), expected, "{}", form.name);
    }
}

/// A table that Linux reads and blkdom does not is named, whether Linux finds a partition in it or not.
#[test]
fn tables_of_other_kinds_are_named() {
    let mut seen = BTreeSet::new();
    for mut form in forms() {
        let catalogue = catalogue(&mut form);
        for (unit, kind) in &form.tables {
            if let Some(table) = foreign(kind) {
                let error = catalogue.resolve(&format!("nvme{unit}n1p1")).expect_err(&form.name).to_string();
                assert!(error.contains(&format!("{table} is not read")), "{}: {error}", form.name);
                seen.insert(kind.clone());
            }
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["amiga", "atari", "bsd", "dvh", "mac", "sun"]);
}

/// What lies in a leg that mdadm examines is refused with that reason.
#[test]
fn nothing_in_a_leg_is_handed_out() {
    let mut seen = BTreeSet::new();
    for mut form in forms() {
        let catalogue = catalogue(&mut form);
        for (unit, _, format) in form.members.iter().filter(|(_, number, _)| *number == 0) {
            let Some(reason) = leg(&form, *unit) else {
                continue;
            };
            // What lies behind a superblock at the beginning is not where a disk's would be.
            let at_beginning = ["1.1", "1.2"].contains(&format.as_str());
            let within = match form.partitions.iter().find(|partition| partition.unit == *unit) {
                Some(partition) => format!("nvme{unit}n1p{}", partition.number),
                None if form.name.ends_with("-lvm") && !at_beginning => "vg0/a".to_owned(),
                None => continue,
            };
            let error = catalogue.resolve(&within).expect_err(&form.name).to_string();
            assert!(error.contains(&reason), "{}: {within}: {error}", form.name);
            seen.insert(format.clone());
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["0.90.00", "1.0", "ddf", "imsm"]);
}

#[test]
fn what_lvm_refuses_is_refused() {
    let mut forms = forms();
    for (name, volume, reason) in REFUSED {
        let form = forms.iter_mut().find(|form| form.name == name).unwrap_or_else(|| panic!("no form {name}"));
        let error = catalogue(form).resolve(volume).expect_err(name).to_string();
        assert!(error.contains(reason), "{name}: {error}");
    }
}
