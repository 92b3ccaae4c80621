//! Partition tables, sound and not. Host.

use crate::volume::fakes::gpt::{Gpt, LINUX};
use crate::volume::fakes::{Units, names, unit};
use crate::volume::gpt::guid;
use crate::volume::{NameError, Piece, Unusable};
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;

fn simple(block: usize) -> Gpt {
    Gpt::new(block, 4096).with(LINUX, 64, 127, "vm1-root").with(LINUX, 128, 255, "with blank").with(LINUX, 512, 512, "")
}

#[test]
fn a_gpt_is_read_with_blocks_of_512_and_4096_bytes() {
    for block in [512, 4096] {
        let catalogue = Units::one(simple(block).image(), block as u32).catalogue();
        assert_eq!(names(&catalogue), ["nvme0n1", "nvme0n1p1", "nvme0n1p2", "nvme0n1p3"], "{block}");
        assert_eq!(catalogue.notes(), [""; 0]);
        let sectors = block as u64 / 512;
        for target in [
            "nvme0n1p1",
            "PARTLABEL=vm1-root",
            "/dev/disk/by-partlabel/vm1-root",
            "phy:/dev/nvme0n1p1",
            "PARTUUID=01010101-0101-0101-0101-010101010101",
            "/dev/disk/by-partuuid/01010101-0101-0101-0101-010101010101",
        ] {
            let found = catalogue.resolve(target).unwrap();
            assert_eq!(found.name, "nvme0n1p1");
            assert_eq!(found.geometry.sectors, 64 * sectors);
            assert_eq!(found.geometry.logical_block, block as u32);
            let pieces: Vec<_> = found.volume.pieces(1, 2).collect();
            assert_eq!(pieces, [Piece { unit: unit(0), sector: 64 * sectors + 1, sectors: 2 }]);
        }
        assert_eq!(catalogue.resolve("/dev/disk/by-partlabel/with\\x20blank").unwrap().name, "nvme0n1p2");
        assert_eq!(catalogue.resolve("/dev/nvme0n1").unwrap().volume.sectors(), 4096 * sectors);
    }
}

#[test]
fn a_guid_is_written_with_its_first_fields_turned_round() {
    assert_eq!(guid(&LINUX), "0fc63daf-8483-4772-8e79-3d69d8477de4");
}

#[test]
fn the_backup_serves_where_any_byte_of_the_primary_is_wrong() {
    let sound = simple(512).image();
    let lengths = (512..512 + 92).step_by(7).chain((1024..1024 + 3 * 128).step_by(29)).chain([1024 + 16383]);
    for place in lengths {
        let mut image = sound.clone();
        image[place] ^= 0x10;
        let catalogue = Units::one(image, 512).catalogue();
        assert_eq!(names(&catalogue).len(), 4, "byte {place}");
        assert_eq!(catalogue.resolve("PARTLABEL=vm1-root").unwrap().volume.sectors(), 64);
        let [note] = catalogue.notes() else { panic!("{:?}", catalogue.notes()) };
        assert!(note.starts_with("nvme0n1: the partition table's backup is used"), "{note}");
    }
    let mut units = Units::one(sound, 512);
    units.bad.push((unit(0), 1));
    let catalogue = units.catalogue();
    assert_eq!(names(&catalogue).len(), 4);
    assert!(catalogue.notes()[0].contains("the device reports error 0x281"), "{:?}", catalogue.notes());
}

#[test]
fn with_neither_copy_sound_the_whole_unit_is_there_still() {
    let mut image = simple(512).image();
    image[512] = 0;
    let end = image.len();
    image[end - 512] = 0;
    let catalogue = Units::one(image, 512).catalogue();
    assert_eq!(names(&catalogue), ["nvme0n1"]);
    assert_eq!(
        catalogue.notes(),
        ["nvme0n1: no GPT is to be believed: the primary: no signature; the backup: no signature"]
    );
}

#[test]
fn hostile_headers_are_refused() {
    type Change = fn(&mut Gpt);
    let cases: [(&str, Change); 11] = [
        ("unknown revision 0x20000", |gpt| gpt.revision = 0x20000),
        ("a header of 91 bytes", |gpt| gpt.header_size = 91),
        ("a header of 513 bytes", |gpt| gpt.header_size = 513),
        ("a header of 4294967295 bytes", |gpt| gpt.header_size = u32::MAX),
        ("usable blocks 33 to 4062", |gpt| gpt.first_usable = 33),
        ("usable blocks 34 to 4063", |gpt| gpt.last_usable = 4063),
        ("usable blocks 34 to 33", |gpt| gpt.last_usable = 33),
        ("usable blocks 34 to 18446744073709551615", |gpt| gpt.last_usable = u64::MAX),
        ("usable blocks 0 to 4062", |gpt| gpt.first_usable = 0),
        ("0 entries of 128 bytes", |gpt| (gpt.count, gpt.entries) = (0, vec![])),
        ("43 entries of 384 bytes", |gpt| (gpt.count, gpt.size) = (43, 384)),
    ];
    for (expected, change) in cases {
        let mut gpt = simple(512);
        change(&mut gpt);
        let catalogue = Units::one(gpt.image(), 512).catalogue();
        assert_eq!(names(&catalogue), ["nvme0n1"], "{expected}");
        let note = &catalogue.notes()[0];
        // One copy may be sound where the fault is about the other one's place: then the note says so of the primary alone.
        assert!(note.contains(expected), "{note} for {expected}");
    }
}

#[test]
fn counts_beyond_all_measure_cost_nothing() {
    for (count, size) in [(u32::MAX, u32::MAX), (u32::MAX, 128), (1 << 25, 128), (1025, 128), (1, 1 << 31), (16, 8192)]
    {
        let mut image = simple(512).image();
        for header in [512, image.len() - 512] {
            image[header + 80..header + 84].copy_from_slice(&count.to_le_bytes());
            image[header + 84..header + 88].copy_from_slice(&size.to_le_bytes());
            image[header + 16..header + 20].fill(0);
            let crc = crate::volume::gpt::CRC.checksum(&image[header..header + 92]);
            image[header + 16..header + 20].copy_from_slice(&crc.to_le_bytes());
        }
        let units = Units::one(image, 512);
        let catalogue = units.catalogue();
        assert!(catalogue.notes()[0].contains("entries of"), "{:?}", catalogue.notes());
        assert_eq!(units.reads.borrow().len(), 3);
    }
}

#[test]
fn bad_partitions_are_refused_each_for_itself() {
    let gpt = simple(512)
        .with(LINUX, 200, 300, "over")
        .with(LINUX, 33, 40, "low")
        .with(LINUX, 4000, 4063, "high")
        .with(LINUX, 700, 699, "back")
        .with(LINUX, 800, u64::MAX, "far");
    let catalogue = Units::one(gpt.image(), 512).catalogue();
    let reason = |target: &str| match catalogue.resolve(target) {
        Err(NameError::Unusable { reason, .. }) => reason,
        other => panic!("{target}: {other:?}"),
    };
    assert_eq!(reason("PARTLABEL=over"), Unusable::Overlaps(2));
    assert_eq!(reason("nvme0n1p2"), Unusable::Overlaps(4));
    assert_eq!(reason("PARTLABEL=low"), Unusable::Outside { first: 33, last: 40 });
    assert_eq!(reason("PARTLABEL=high"), Unusable::Outside { first: 4000, last: 4063 });
    assert_eq!(reason("PARTLABEL=back"), Unusable::Outside { first: 700, last: 699 });
    assert_eq!(reason("PARTLABEL=far"), Unusable::Outside { first: 800, last: u64::MAX });
    assert!(catalogue.resolve("PARTLABEL=vm1-root").is_ok());
    let text = catalogue.resolve("nvme0n1p4").unwrap_err().to_string();
    assert_eq!(text, "nvme0n1p4 cannot be used: it overlaps with partition 2");
}

/// An entry of an MBR.
fn mbr_entry(image: &mut [u8], block: usize, slot: usize, kind: u8, start: u32, blocks: u32) {
    let entry = &mut image[block * 512 + 446 + slot * 16..][..16];
    entry[4] = kind;
    entry[8..12].copy_from_slice(&start.to_le_bytes());
    entry[12..16].copy_from_slice(&blocks.to_le_bytes());
    image[block * 512 + 510..block * 512 + 512].copy_from_slice(&[0x55, 0xaa]);
}

/// Two primary partitions, and an extended one from 1000 to 2000 with two logical ones.
fn mbr() -> Vec<u8> {
    let mut image = vec![0; 4096 * 512];
    image[440..444].copy_from_slice(&0x1234_abcd_u32.to_le_bytes());
    mbr_entry(&mut image, 0, 0, 0x83, 64, 100);
    mbr_entry(&mut image, 0, 2, 0x83, 200, 300);
    mbr_entry(&mut image, 0, 3, 0x05, 1000, 1000);
    mbr_entry(&mut image, 1000, 0, 0x83, 8, 92);
    mbr_entry(&mut image, 1000, 1, 0x05, 100, 200);
    mbr_entry(&mut image, 1100, 0, 0x83, 8, 92);
    image
}

#[test]
fn an_mbr_is_read_with_its_logical_partitions() {
    let mut units = Units::one(mbr(), 512);
    units.sources[0].name = "sda".into();
    let catalogue = units.catalogue();
    assert_eq!(names(&catalogue), ["sda", "sda1", "sda3", "sda5", "sda6"]);
    let first = |target: &str| catalogue.resolve(target).unwrap().volume.pieces(0, 1).next().unwrap().sector;
    assert_eq!(first("sda3"), 200);
    assert_eq!(first("/dev/sda5"), 1008);
    assert_eq!(first("PARTUUID=1234ABCD-06"), 1108);
    assert_eq!(catalogue.resolve("sda6").unwrap().volume.sectors(), 92);
}

#[test]
fn chains_of_boot_records_end() {
    // In a circle; upon itself; out of the extended partition; to nothing.
    let cases = [(0, "circle"), (100, "circle"), (2000, "no extended"), (u32::MAX, "outside"), (500, "no extended")];
    for (next, note) in cases {
        let mut image = mbr();
        mbr_entry(&mut image, 1100, 1, 0x05, next, 10);
        let units = Units::one(image, 512);
        let catalogue = units.catalogue();
        assert!(catalogue.notes()[0].contains(note), "{:?}", catalogue.notes());
        assert!(catalogue.resolve("nvme0n1p6").is_ok());
        assert!(units.reads.borrow().len() < 24);
    }
    let mut image = mbr();
    for record in 1000..1900_usize {
        image[record * 512..][..512].fill(0);
        mbr_entry(&mut image, record, 1, 0x05, record as u32 - 999, 1);
    }
    let catalogue = Units::one(image, 512).catalogue();
    assert!(catalogue.notes()[0].contains("only the first 64"), "{:?}", catalogue.notes());
}

/// Boot records: the block of each, and type, start and length of its entries.
type Records<'a> = &'a [(usize, &'a [(u8, u32, u32)])];
/// Number, first sector, sectors.
type Found<'a> = &'a [(u32, u64, u64)];

/// An image with these records.
fn records(records: Records<'_>) -> Units {
    let mut image = vec![0; 120_000 * 512];
    for (block, entries) in records {
        for (slot, (kind, start, blocks)) in entries.iter().enumerate() {
            mbr_entry(&mut image, *block, slot, *kind, *start, *blocks);
        }
    }
    let mut units = Units::one(image, 512);
    units.sources[0].name = "sda".into();
    units
}

/// The partitions that Linux has of such tables, by `block/partitions/msdos.c`.
#[test]
fn partitions_have_the_numbers_that_linux_gives_them() {
    let cases: [(&str, Records<'_>, Found<'_>); 8] = [
        (
            "a logical one of type 0 with a size",
            &[
                (0, &[(5, 2048, 100_000)]),
                (2048, &[(0, 63, 1000), (5, 2000, 2000)]),
                (4048, &[(0x83, 63, 1000), (5, 4000, 2000)]),
                (6048, &[(0x83, 63, 1000)]),
            ],
            &[(5, 2111, 1000), (6, 4111, 1000), (7, 6111, 1000)],
        ),
        (
            "a primary one of type 0 with a size",
            &[(0, &[(0, 64, 100), (0x83, 200, 100)])],
            &[(1, 64, 100), (2, 200, 100)],
        ),
        (
            "two extended ones",
            &[
                (0, &[(5, 2048, 50_000), (0xf, 60_000, 40_000)]),
                (2048, &[(0x83, 63, 1000)]),
                (60_000, &[(0x83, 63, 2000)]),
            ],
            &[(5, 2111, 1000), (6, 60_063, 2000)],
        ),
        (
            "a third entry within the record's extent",
            &[
                (0, &[(5, 2048, 100_000)]),
                (2048, &[(0x83, 63, 1000), (5, 2000, 2000), (0x83, 1100, 500)]),
                (4048, &[(0x83, 63, 1000)]),
            ],
            &[(5, 2111, 1000), (6, 3148, 500), (7, 4111, 1000)],
        ),
        (
            "a third entry beyond the record's extent",
            &[
                (0, &[(5, 2048, 100_000)]),
                (2048, &[(0x83, 63, 1000), (5, 2000, 2000)]),
                (4048, &[(0x83, 63, 1000), (0, 0, 0), (0x83, 1100, 901)]),
            ],
            &[(5, 2111, 1000), (6, 4111, 1000)],
        ),
        (
            "a second entry that reaches beyond the extended partition",
            &[(0, &[(5, 2048, 2000)]), (2048, &[(0x83, 63, 100), (0x83, 200, 5000)])],
            &[(5, 2111, 100), (6, 2248, 5000)],
        ),
        (
            "a record outside the extended partition",
            &[(0, &[(5, 2048, 2000)]), (2048, &[(0x83, 63, 100), (5, 4000, 1000)]), (6048, &[(0x83, 63, 100)])],
            &[(5, 2111, 100), (6, 6111, 100)],
        ),
        ("an entry for a GPT that begins elsewhere", &[(0, &[(0xef, 1, 2047), (0xee, 2048, 100_000)])], &[]),
    ];
    for (what, table, expected) in cases {
        let units = records(table);
        let catalogue = units.catalogue();
        let found: Vec<_> = catalogue
            .volumes()
            .filter_map(|(name, volume)| {
                let number = name.strip_prefix("sda")?.parse::<u32>().ok()?;
                let extent = volume.extents().next()?;
                Some((number, extent.sector, extent.sectors))
            })
            .collect();
        assert_eq!(found, expected, "{what}: {:?}", catalogue.notes());
    }
    let elsewhere = records(&[(0, &[(0xef, 1, 2047), (0xee, 2048, 100_000)])]);
    assert!(elsewhere.catalogue().notes()[0].contains("does not begin at block 1"));
}

#[test]
fn a_protective_entry_makes_a_gpt_whatever_the_boot_indicators_are() {
    let mut image = simple(512).image();
    image[446] = 0x12;
    assert_eq!(names(&Units::one(image, 512).catalogue()).len(), 4);
}

#[test]
fn who_could_write_a_boot_record_is_refused() {
    let mut image = mbr();
    // A logical partition over the second record, a primary one over the first, one over the table.
    mbr_entry(&mut image, 1000, 0, 0x83, 8, 93);
    mbr_entry(&mut image, 0, 1, 0x83, 999, 2);
    mbr_entry(&mut image, 0, 0, 0x83, 0, 2);
    let catalogue = Units::one(image, 512).catalogue();
    for name in ["nvme0n1p1", "nvme0n1p2", "nvme0n1p5"] {
        let Err(NameError::Unusable { reason, .. }) = catalogue.resolve(name) else { panic!("{name}") };
        assert_eq!(reason, Unusable::HoldsTable, "{name}");
    }
    assert!(catalogue.resolve("nvme0n1p6").is_ok());
}

/// Debian's kernels read them, and an MBR that stands beside one is not looked at.
#[test]
fn tables_of_other_kinds_are_refused_by_name() {
    type Change = fn(&mut [u8]);
    let cases: [(&str, Change); 9] = [
        ("an SGI volume header (dvh)", |image| image[..4].copy_from_slice(&[0x0b, 0xe5, 0xa9, 0x41])),
        ("a Windows dynamic disk (LDM)", |image| mbr_entry(image, 0, 1, 0x42, 700, 100)),
        ("an SGI volume header (dvh)", |image| {
            image[..512].copy_from_slice(&[&[0x0b, 0xe5, 0xa9, 0x41][..], &[0; 508]].concat())
        }),
        ("a Sun disklabel", |image| image[508..512].copy_from_slice(&[0xda, 0xbe, 1, 2])),
        ("an Apple partition map", |image| image[..512].copy_from_slice(&[&b"ER"[..], &[0; 510]].concat())),
        ("a BSD or OSF disklabel", |image| {
            image[..512].fill(0);
            image[64..68].copy_from_slice(&0x8256_4557_u32.to_le_bytes());
        }),
        ("an Atari root sector", |image| {
            image[..512].fill(0);
            image[0x1d2..0x1d6].copy_from_slice(b"\x01LNX");
        }),
        ("an Amiga rigid disk block", |image| image[..512].copy_from_slice(&[&b"RDSK"[..], &[0; 508]].concat())),
        ("an Amiga rigid disk block", |image| {
            image[..512].fill(0);
            rigid_disk_block(&mut image[15 * 512..]);
        }),
    ];
    for (what, change) in cases {
        let mut image = mbr();
        change(&mut image);
        let catalogue = Units::one(image, 512).catalogue();
        assert_eq!(names(&catalogue), ["nvme0n1"], "{what}");
        let text = catalogue.resolve("nvme0n1p1").unwrap_err().to_string();
        assert!(text.contains(&format!("not used: nvme0n1: {what} is not read")), "{what}: {text}");
    }
}

/// Amiga's block with a checksum: the longs that it counts add up to zero.
fn rigid_disk_block(sector: &mut [u8]) {
    let longs = [u32::from_be_bytes(*b"RDSK"), 64];
    let check = longs.iter().fold(0, |sum: u32, long| sum.wrapping_sub(*long));
    for (place, long) in sector.chunks_exact_mut(4).zip(longs.into_iter().chain([check])) {
        place.copy_from_slice(&long.to_be_bytes());
    }
}

/// Linux looks in sixteen sectors, and at the checksum.
#[test]
fn what_is_no_rigid_disk_block_is_not_named() {
    for (sector, byte) in [(16, 0), (15, 1)] {
        let mut image = vec![0; 4096 * 512];
        rigid_disk_block(&mut image[sector * 512..]);
        image[15 * 512 + 100] = byte;
        let text = Units::one(image, 512).catalogue().resolve("nvme0n1p1").unwrap_err().to_string();
        assert!(!text.contains("Amiga"), "{text}");
    }
}

/// Both marks, and no partition of Linux' own.
#[test]
fn an_aix_disk_is_known_before_an_mbr() {
    for (kind, second_mark, is_aix) in
        [(0x06, true, true), (0x06, false, false), (0x83, true, false), (0x05, true, false)]
    {
        let mut image = vec![0; 4096 * 512];
        mbr_entry(&mut image, 0, 1, kind, 64, 100);
        image[..4].copy_from_slice(&[0xc9, 0xc2, 0xd4, 0xc1]);
        if second_mark {
            image[7 * 512..7 * 512 + 4].copy_from_slice(b"_LVM");
        }
        for signature in [true, false] {
            image[510..512].copy_from_slice(if signature { &[0x55, 0xaa] } else { &[0, 0] });
            let catalogue = Units::one(image.clone(), 512).catalogue();
            let text = catalogue.resolve("nvme0n1p9").unwrap_err().to_string();
            let said = text.contains("not used: nvme0n1: an AIX volume group is not read");
            assert_eq!(said, is_aix, "{kind:02x}, {second_mark}, {signature}: {text}");
            let partitions = usize::from(signature && !is_aix && kind != 0x05);
            assert_eq!(names(&catalogue).len(), 1 + partitions, "{kind:02x}, {second_mark}, {signature}");
        }
    }
}

#[test]
fn tables_within_partitions_are_named() {
    let cases: [(u8, &str, usize, &[u8]); 6] = [
        (0xa5, "a BSD disklabel", 512, &[0x57, 0x45, 0x56, 0x82]),
        (0xa9, "a BSD disklabel", 512, &[0x57, 0x45, 0x56, 0x82]),
        (0x82, "a Solaris VTOC", 524, &0x600d_deee_u32.to_le_bytes()),
        (0xbf, "a Solaris VTOC", 524, &0x600d_deee_u32.to_le_bytes()),
        (0x63, "a UnixWare disklabel", 29 * 512 + 4, &0xca5e_600d_u32.to_le_bytes()),
        (0x81, "a Minix table", 510, &[0x55, 0xaa]),
    ];
    for (kind, what, at, magic) in cases {
        for marked in [true, false] {
            let mut image = mbr();
            mbr_entry(&mut image, 0, 2, kind, 200, 300);
            if marked {
                image[200 * 512 + at..][..magic.len()].copy_from_slice(magic);
            }
            let catalogue = Units::one(image, 512).catalogue();
            // The numbers of the others are as they would be without.
            assert_eq!(names(&catalogue), ["nvme0n1", "nvme0n1p1", "nvme0n1p3", "nvme0n1p5", "nvme0n1p6"]);
            let text = catalogue.resolve("nvme0n1p7").unwrap_err().to_string();
            let said = text.contains(&format!(
                "nvme0n1: partition 3 holds {what}, whose partitions, which Linux numbers from 7 on,"
            ));
            assert_eq!(said, marked, "{what}: {text}");
            assert_eq!(catalogue.notes().len(), usize::from(marked));
        }
    }
}

#[test]
fn what_is_no_table_is_a_whole_unit() {
    for image in [vec![0; 1 << 16], vec![0xff; 1 << 16], vec![0; 512], vec![]] {
        assert_eq!(names(&Units::one(image, 512).catalogue()), ["nvme0n1"]);
    }
    assert!(matches!(
        Units::one(vec![], 512).catalogue().resolve("nvme0n1"),
        Err(NameError::Unusable { reason: Unusable::Empty, .. })
    ));
}
