//! Disks that are a part of something larger. Host.

use crate::volume::fakes::gpt::{Gpt, LINUX, LVM};
use crate::volume::fakes::lvm::{Disk, Text};
use crate::volume::fakes::{Units, unit};
use crate::volume::member::Member;
use crate::volume::{Access, Claims, NameError, Unusable, Volume};
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

const SECTORS: usize = 16384;
/// What is left behind the inner thing for its marks: 256 KiB.
const BEHIND: usize = 512;

/// Marks: what they say, where they lie (counted from the end where negative), and their bytes.
fn marks() -> Vec<(Member, i64, Vec<u8>)> {
    let end = (SECTORS * 512) as i64;
    let md = |major: u32, sector: i64| {
        let mut bytes = 0xa92b_4efc_u32.to_le_bytes().to_vec();
        bytes.extend(major.to_le_bytes());
        bytes.resize(144, 0);
        bytes.extend((sector as u64).to_le_bytes());
        bytes
    };
    let at = |offset: usize, bytes: &[u8]| [&vec![0; offset], bytes].concat();
    let bcache = [0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81];
    let big_endian: Vec<u8> =
        md(0, 0).chunks(4).flat_map(|word| word.iter().rev().copied().collect::<Vec<_>>()).collect();
    vec![
        (Member::Md("1.1"), 0, md(1, 0)),
        (Member::Md("1.2"), 4096, md(1, 8)),
        (Member::Md("1.0"), -8192, md(1, (end - 8192) / 512)),
        (Member::Md("0.90"), -65536, md(0, 0)),
        (Member::Md("0.90"), -65536, big_endian),
        (Member::Drbd, -4096, at(60, &[0x83, 0x74, 0x02, 0x6b])),
        (Member::Drbd, -4096, at(60, &[0x83, 0x74, 0x02, 0x6d])),
        (Member::Imsm, -1024, b"Intel Raid ISM Cfg Sig. 1.1.00".to_vec()),
        (Member::Ddf, -512, [&[0xde, 0x11, 0xde, 0x11][..], &[0; 28], b"01.02.00"].concat()),
        (Member::Bcache, 4096, [&[0; 8][..], &8_u64.to_le_bytes(), &[0; 8], &bcache].concat()),
        (Member::Luks, 0, b"LUKS\xba\xbe\0\x02".to_vec()),
        (Member::Zfs, 16384, b"\x01\x01\0\0\0\0\0\0\0\0\0\x01\0\0\0\x24\0\0\0\x20\0\0\0\x07version".to_vec()),
        (Member::Bluestore, 0, b"bluestore block device\n".to_vec()),
    ]
}

fn put(image: &mut [u8], at: i64, bytes: &[u8]) {
    let place = if at < 0 { image.len() - at.unsigned_abs() as usize } else { at as usize };
    image[place..place + bytes.len()].copy_from_slice(bytes);
}

/// A group on a physical volume that ends before its disk does.
fn leg(mark: &(Member, i64, Vec<u8>)) -> Vec<u8> {
    let mut disk = Disk::new(1, SECTORS - BEHIND, &Text::default().to_string());
    // Off the marks at the beginning.
    disk.area_offset = 32768;
    disk.area_bytes = 1 << 19;
    let mut image = disk.image();
    image.resize(SECTORS * 512, 0);
    put(&mut image, mark.1, &mark.2);
    image
}

#[test]
fn a_group_on_a_part_of_something_larger_is_refused() {
    for mark in marks() {
        let image = leg(&mark);
        let units = Units::one(image.clone(), 512);
        let catalogue = units.catalogue();
        let Err(NameError::Unusable { reason: Unusable::Group(why), .. }) = catalogue.resolve("vg0/a") else {
            panic!("{:?}: {:?}", mark.0, catalogue.resolve("vg0/a"))
        };
        let remedy = format!("where that is over, `{} DEVICE` takes the mark off", mark.0.remedy());
        assert_eq!(why, format!("nvme0n1 is a part of {}: only what has all parts may write it; {remedy}", mark.0));
        assert!(catalogue.resolve("nvme0n1").is_ok(), "as a whole it may be had");
    }
    // Without a mark, what is smaller than its disk is as it should be: the disk may have grown.
    let none = (Member::Imsm, 0, Vec::new());
    assert!(Units::one(leg(&none), 512).catalogue().resolve("vg0/a").is_ok());
}

#[test]
fn partitions_of_a_part_of_something_larger_are_refused() {
    for mark in marks().iter().filter(|mark| mark.1 < 0) {
        let mut image =
            Gpt::new(512, (SECTORS - BEHIND) as u64).with(LINUX, 64, 127, "a").with(LVM, 512, 767, "pv").image();
        image.resize(SECTORS * 512, 0);
        put(&mut image, mark.1, &mark.2);
        let catalogue = Units::one(image, 512).catalogue();
        for name in ["nvme0n1p1", "PARTLABEL=pv"] {
            let Err(NameError::Unusable { reason, .. }) = catalogue.resolve(name) else { panic!("{:?}", mark.0) };
            assert_eq!(reason, Unusable::Within("nvme0n1".into(), mark.0));
        }
    }
}

/// What an earlier use left in the gap between the last partition and the table's backup, at the end of the disk.
#[test]
fn marks_in_the_gap_of_a_table_that_has_the_whole_disk_are_left_over() {
    let [ddf] = &marks().into_iter().filter(|mark| mark.0 == Member::Ddf).collect::<Vec<_>>()[..] else { panic!() };
    let second = (Member::Ddf, -257 * 512, ddf.2.clone());
    for mark in marks().into_iter().filter(|mark| mark.1 == -65536).chain([second]) {
        let table = |blocks| Gpt::new(512, blocks).with(LINUX, 2048, 4095, "a").image();
        let mut image = table(SECTORS as u64);
        put(&mut image, mark.1, &mark.2);
        let catalogue = Units::one(image, 512).catalogue();
        assert!(catalogue.resolve("nvme0n1p1").is_ok(), "{:?}: {:?}", mark.0, catalogue.resolve("nvme0n1p1"));
        // The table of a leg ends where the array does.
        let mut image = table((SECTORS - BEHIND) as u64);
        image.resize(SECTORS * 512, 0);
        put(&mut image, mark.1, &mark.2);
        assert!(Units::one(image, 512).catalogue().resolve("nvme0n1p1").is_err(), "{:?}", mark.0);
    }
}

/// So in the gap before the first partition.
#[test]
fn marks_before_the_first_partition_are_left_over() {
    for mark in marks().iter().filter(|mark| mark.1 >= 4096) {
        let mut image = vec![0; SECTORS * 512];
        image[446..462].copy_from_slice(&[0, 0, 0, 0, 0x83, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0]);
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        put(&mut image, mark.1, &mark.2);
        let catalogue = Units::one(image, 512).catalogue();
        assert!(catalogue.resolve("nvme0n1p1").is_ok(), "{:?}: {:?}", mark.0, catalogue.resolve("nvme0n1p1"));
    }
}

/// What an earlier use left where LVM has its metadata since.
#[test]
fn marks_in_a_metadata_area_are_left_over() {
    for mark in marks().iter().filter(|mark| mark.1 >= 4096) {
        let mut disk = Disk::new(1, SECTORS, &Text::default().to_string());
        disk.area_bytes = 1 << 19;
        let mut image = disk.image();
        // The text lies at the beginning of its area; the mark is put behind it.
        let place = mark.1 as usize;
        let end = place + mark.2.len();
        if image[place..end].iter().any(|byte| *byte != 0) {
            continue;
        }
        put(&mut image, mark.1, &mark.2);
        let catalogue = Units::one(image, 512).catalogue();
        assert!(catalogue.resolve("vg0/a").is_ok(), "{:?}: {:?}", mark.0, catalogue.resolve("vg0/a"));
    }
}

/// Behind a bad sector there may be the mark of an array, which alone may write its legs. Nothing else is taken away.
#[test]
fn a_mark_that_cannot_be_read_costs_writing() {
    let mut image = Disk::new(1, SECTORS - BEHIND, &Text::default().to_string()).image();
    image.resize(SECTORS * 512, 0);
    let mut units = Units::one(image, 512);
    units.bad = vec![(unit(0), SECTORS as u64 - 16)];
    let catalogue = units.catalogue();
    let text = "whether nvme0n1 is a part of something larger is not known: byte 8380416: ";
    let found = catalogue.resolve("vg0/a").unwrap();
    assert!(found.geometry.read_only && found.unwritable.unwrap().to_string().starts_with(text));
    assert!(!catalogue.resolve("nvme0n1").unwrap().geometry.read_only, "the leg as a whole is the administrator's");
    let [note] = catalogue.notes() else { panic!("{:?}", catalogue.notes()) };
    assert!(note.starts_with(text), "{note}");
    // So with a table.
    let mut image = Gpt::new(512, (SECTORS - BEHIND) as u64).with(LINUX, 64, 127, "a").image();
    image.resize(SECTORS * 512, 0);
    let mut units = Units::one(image, 512);
    units.bad = vec![(unit(0), SECTORS as u64 - 16)];
    let catalogue = units.catalogue();
    let found = catalogue.resolve("nvme0n1p1").unwrap();
    assert!(found.geometry.read_only && found.unwritable.unwrap().to_string().starts_with(text));
    assert_eq!(catalogue.notes().len(), 1, "{:?}", catalogue.notes());
    // And with a physical volume in a partition.
    let disk = Disk::new(1, 8192, &Text::default().to_string()).image();
    let mut image = Gpt::new(512, (SECTORS - BEHIND) as u64).with(LVM, 2048, 2048 + 8191, "pv").image();
    image[2048 * 512..][..disk.len()].copy_from_slice(&disk);
    image.resize(SECTORS * 512, 0);
    let mut units = Units::one(image, 512);
    units.bad = vec![(unit(0), SECTORS as u64 - 16)];
    let found = units.catalogue().resolve("vg0/a").unwrap();
    assert!(found.geometry.read_only && found.unwritable.unwrap().to_string().starts_with(text));
}

/// A guest that has the end of a physical volume, or of a disk, can make nothing of the rest.
#[test]
fn a_guest_cannot_forge_a_mark() {
    for mark in marks().iter().filter(|mark| mark.1 < 0) {
        let mut image = Disk::new(1, SECTORS, &Text::default().to_string()).image();
        put(&mut image, mark.1, &mark.2);
        assert!(Units::one(image, 512).catalogue().resolve("vg0/a").is_ok(), "{:?}", mark.0);
        // A partition up to the end of its disk.
        let mut image = vec![0; SECTORS * 512];
        image[446..462].copy_from_slice(&[0, 0, 0, 0, 0x83, 0, 0, 0, 64, 0, 0, 0, 0, 1, 0, 0]);
        image[462..478].copy_from_slice(&[0, 0, 0, 0, 0x83, 0, 0, 0, 0, 2, 0, 0, 0, 0x3e, 0, 0]);
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        put(&mut image, mark.1, &mark.2);
        let catalogue = Units::one(image, 512).catalogue();
        assert!(catalogue.resolve("nvme0n1p1").is_ok(), "{:?}: {:?}", mark.0, catalogue.resolve("nvme0n1p1"));
    }
}

/// What a guest writes at the end of its volume keeps nobody from looking at the beginning.
#[test]
fn the_end_of_a_volume_that_a_guest_has_is_not_read() {
    let units = Units::one(Disk::new(1, SECTORS, &Text::default().to_string()).image(), 512);
    let claims = Claims::new();
    let mut tail = units.catalogue().resolve("nvme0n1").unwrap();
    tail.volume = Volume::linear(unit(0), SECTORS as u64 - 1024, 1024);
    let _claim = claims.claim("a".into(), &tail, Access::Write).unwrap();
    assert!(units.scan(&claims).resolve("vg0/a").is_ok());
}

#[test]
fn a_volume_larger_than_what_it_lies_on_is_refused() {
    let mut image = Disk::new(1, SECTORS, &Text::default().to_string()).image();
    image.truncate((SECTORS - 8) * 512);
    let text = Units::one(image, 512).catalogue().resolve("vg0/a").unwrap_err().to_string();
    assert_eq!(
        text,
        "vg0/a cannot be used: its volume group is not used: the physical volume on nvme0n1 has 16384 sectors, but \
         nvme0n1 only 16376"
    );
}

/// `pvresize` writes the metadata and leaves the label as it was.
#[test]
fn a_volume_has_the_size_that_its_metadata_say() {
    let beyond = Text::volume("b", "\"pv0\", 96", 1, 4);
    let grown = Text { sectors: Some(SECTORS as u64), more: beyond, ..Text::default() };
    let mut image = Disk::new(1, SECTORS / 2, &grown.to_string()).image();
    image.resize(SECTORS * 512, 0);
    // What a guest writes at the end of it says nothing of the disk.
    for (_, offset, mark) in marks().iter().filter(|(_, offset, _)| *offset < 0) {
        put(&mut image, *offset, mark);
    }
    let catalogue = Units::one(image, 512).catalogue();
    for name in ["vg0/a", "vg0/b"] {
        assert!(catalogue.resolve(name).is_ok(), "{:?}", catalogue.resolve(name));
    }
    let shrunk = Text { sectors: Some(SECTORS as u64 - 8), ..Text::default() };
    let mut image = Disk::new(1, SECTORS, &shrunk.to_string()).image();
    image.truncate((SECTORS - 8) * 512);
    assert!(Units::one(image, 512).catalogue().resolve("vg0/a").is_ok());
}
