//! LVM: what the real tools wrote, and what nobody should have. Host.

use crate::volume::fakes::gpt::{Gpt, LINUX, LVM};
use crate::volume::fakes::lvm::{Disk, Text, VG_ID, pv_id};
use crate::volume::fakes::{Units, names, unit};
use crate::volume::{Access, Claims, NameError, Piece, Unusable};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

/// The disks that sgdisk, sfdisk and LVM 2.03.16 made: `tests/fixtures/README.md`.
fn fixture(bytes: &[u8]) -> Vec<u8> {
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize;
    let mut image = vec![0; number(bytes) * 512];
    for sector in bytes[4..].chunks_exact(516) {
        image[number(sector) * 512..][..512].copy_from_slice(&sector[4..]);
    }
    image
}

fn real() -> Units {
    let mut units = Units::one(fixture(include_bytes!("fixtures/gpt-lvm-1.sparse")), 512);
    units.add(fixture(include_bytes!("fixtures/lvm-2.sparse")), 512);
    units.add(fixture(include_bytes!("fixtures/mbr-lvm.sparse")), 512);
    units.sources[2].name = "sda".into();
    units
}

fn piece(number: u16, sector: u64, sectors: u64) -> Piece {
    Piece { unit: unit(number), sector, sectors }
}

#[test]
fn what_the_real_tools_wrote_is_read() {
    let catalogue = real().catalogue();
    assert_eq!(catalogue.notes(), [""; 0]);
    assert_eq!(
        names(&catalogue),
        [
            "nvme0n1",
            "nvme0n1p1",
            "nvme0n1p2",
            "nvme0n1p5",
            "nvme1n1",
            "round-vg/a-b",
            "sda",
            "sda1",
            "sda5",
            "sda6",
            "vg0/frozen",
            "vg0/striped",
            "vg0/vm1-root"
        ]
    );
    let extents = |target: &str| catalogue.resolve(target).unwrap().volume.extents().collect::<Vec<_>>();
    assert_eq!(extents("PARTLABEL=vm1-root"), [piece(0, 2048, 8192)]);
    assert_eq!(extents("PARTLABEL=größe"), [piece(0, 92160, 4096)]);
    assert_eq!(extents("PARTUUID=0B5E55ED-0000-4000-8000-000000000002"), [piece(0, 10240, 81920)]);
    assert_eq!(extents("PARTUUID=c0ffee01-06"), [piece(2, 24576, 2048)]);
    // As `lvs -o+devices` has it: extents of 1 MiB, from 1 MiB on; the first volume's partition begins at sector 10,240.
    assert_eq!(
        extents("/dev/mapper/vg0-vm1--root"),
        [piece(0, 10240 + 2048, 6 * 2048), piece(1, 2048 + 8 * 2048, 3 * 2048)]
    );
    assert_eq!(extents("vg0/striped"), [piece(0, 10240 + 2048 + 6 * 2048, 8 * 2048), piece(1, 2048, 8 * 2048)]);
    assert_eq!(extents("vg0/frozen"), [piece(0, 10240 + 2048 + 14 * 2048, 2 * 2048)]);
    assert_eq!(extents("round-vg/a-b"), [piece(2, 6144 + 72, 3 * 1024)]);
    assert!(catalogue.resolve("vg0/frozen").unwrap().geometry.read_only);
    let striped = catalogue.resolve("/dev/vg0/striped").unwrap();
    assert!(!striped.geometry.read_only);
    let pieces: Vec<_> = striped.volume.pieces(120, 144).collect();
    let first = 10240 + 2048 + 6 * 2048;
    assert_eq!(pieces, [piece(0, first + 120, 8), piece(1, 2048, 128), piece(0, first + 128, 8)]);
}

#[test]
fn any_flipped_bit_of_a_label_or_a_text_is_noticed() {
    let units = real();
    let before = names(&units.catalogue());
    // Label, physical volume's header, metadata area's header, text.
    for place in [512 + 24, 512 + 40, 512 + 80, 4096 + 8, 4096 + 45, 4096 + 60] {
        let mut units = real();
        units.bytes[0][10240 * 512 + place] ^= 4;
        let catalogue = units.catalogue();
        assert!(!catalogue.notes().is_empty(), "{place}");
        assert_eq!(names(&catalogue), before, "the other volumes have the metadata");
    }
    // With that of the second disk gone too, nothing is left of the group.
    let mut units = real();
    units.bytes[0][10240 * 512 + 4096 + 60] ^= 4;
    units.bytes[1].fill(0);
    let catalogue = units.catalogue();
    assert!(
        catalogue.resolve("vg0/vm1-root").unwrap_err().to_string().starts_with("there is no vg0/vm1-root; there are: ")
    );
    let note = "nvme0n1p2: the CRC of the metadata area's header is wrong";
    assert_eq!(catalogue.notes(), [note]);
}

#[test]
fn a_group_that_lacks_a_disk_gives_what_is_whole() {
    let mut units = real();
    units.bytes[1].fill(0);
    let catalogue = units.catalogue();
    assert_eq!(catalogue.notes(), ["volume group vg0: pv1 is not there"]);
    assert!(catalogue.resolve("vg0/frozen").is_ok());
    for name in ["vg0/vm1-root", "vg0/striped"] {
        assert_eq!(
            catalogue.resolve(name).unwrap_err().to_string(),
            format!("{name} cannot be used: a part of it is on pv1, which is not there")
        );
    }
}

#[test]
fn a_disk_that_is_there_twice_spoils_its_group() {
    let mut units = real();
    let clone = units.bytes[1].clone();
    units.add(clone, 512);
    let catalogue = units.catalogue();
    let text = catalogue.resolve("vg0/frozen").unwrap_err().to_string();
    assert_eq!(
        text,
        "vg0/frozen cannot be used: its volume group is not used: nvme1n1 and nvme3n1 are both its physical volume pv1"
    );
    assert!(catalogue.resolve("round-vg/a-b").is_ok());
}

#[test]
fn physical_volumes_are_looked_for_where_the_administrator_put_them() {
    let disk = Disk::new(1, 8192, &Text::default().to_string()).image();
    // In a partition of another type: a guest's own volume group. In one of the right type, and on a whole unit: ours.
    for (kind, found) in [(LINUX, false), (LVM, true)] {
        let mut image = Gpt::new(512, 16384).with(kind, 2048, 2048 + 8191, "a").image();
        image[2048 * 512..][..disk.len()].copy_from_slice(&disk);
        assert_eq!(Units::one(image, 512).catalogue().resolve("vg0/a").is_ok(), found);
    }
    assert!(Units::one(disk, 512).catalogue().resolve("vg0/a").is_ok());
    // Within a logical volume, nothing is looked for.
    let text = Text::default().to_string();
    let mut outer = Disk::new(1, 65536, &text);
    outer.text = text.replace("extent_count = 4", "extent_count = 20");
    let mut image = outer.image();
    let forged = Disk::new(2, 8192, &text.replace("vg0", "forged").replace(VG_ID, &pv_id(9))).image();
    image[2048 * 512..][..forged.len()].copy_from_slice(&forged);
    let units = Units::one(image, 512);
    assert_eq!(names(&units.catalogue()), ["nvme0n1", "vg0/a"]);
}

#[test]
fn a_guest_cannot_forge_a_group_in_what_it_writes() {
    let units = Units::one(Disk::new(1, 8192, &Text::default().to_string()).image(), 512);
    let catalogue = units.catalogue();
    let claims = Claims::new();
    let own = claims.claim("a".into(), &catalogue.resolve("vg0/a").unwrap(), Access::Write).unwrap();
    assert_eq!(names(&units.scan(&claims)), ["nvme0n1", "vg0/a"], "the metadata is not in the logical volume");
    drop(own);
    let _whole = claims.claim("a".into(), &catalogue.resolve("nvme0n1").unwrap(), Access::Write).unwrap();
    assert_eq!(names(&units.scan(&claims)), ["nvme0n1"]);
}

#[test]
fn the_newest_copy_counts_and_others_are_noted() {
    let two = Text { physical: 2, ..Text::default() };
    let older = two.to_string();
    let newer = Text { sequence: 8, ..two }.to_string().replace("extent_count = 4", "extent_count = 6");
    for (first, second) in [(&older, &newer), (&newer, &older)] {
        let mut units = Units::one(Disk::new(1, 32768, first).image(), 512);
        units.add(Disk::new(2, 32768, second).image(), 512);
        let catalogue = units.catalogue();
        assert_eq!(catalogue.resolve("vg0/a").unwrap().volume.sectors(), 6 * 64);
        let [note] = catalogue.notes() else { panic!("{:?}", catalogue.notes()) };
        assert!(note.contains("has metadata 7; the newest is 8"), "{note}");
    }
    let same = newer.replace("seqno = 8", "seqno = 7");
    let mut units = Units::one(Disk::new(1, 32768, &older).image(), 512);
    units.add(Disk::new(2, 32768, &same).image(), 512);
    let text = units.catalogue().resolve("vg0/a").unwrap_err().to_string();
    assert!(text.contains("have different metadata of one number, 7"), "{text}");
}

#[test]
fn two_groups_of_one_name_are_neither_to_be_had() {
    let text = Text::default().to_string();
    let mut units = Units::one(Disk::new(1, 8192, &text).image(), 512);
    let other = text.replace(VG_ID, &pv_id(77)).replace(&pv_id(1), &pv_id(2));
    units.add(Disk::new(2, 8192, &other).image(), 512);
    let catalogue = units.catalogue();
    assert!(matches!(catalogue.resolve("vg0/a"), Err(NameError::Ambiguous { .. })));
    assert_eq!(catalogue.volumes().count(), 2, "the two whole units alone");
    // Two that claim the same disk.
    let mut units = Units::one(Disk::new(1, 8192, &text).image(), 512);
    let other = text.replace(VG_ID, &pv_id(77)).replace("vg0 {", "vg1 {");
    units.add(Disk::new(2, 8192, &other).image(), 512);
    let text = units.catalogue().resolve("vg0/a").unwrap_err().to_string();
    assert!(text.ends_with("its physical volume pv0 belongs to vg1 as well"), "{text}");
}

fn reason(text: &str, name: &str) -> Unusable {
    let catalogue = Units::one(Disk::new(1, 32768, text).image(), 512).catalogue();
    match catalogue.resolve(name) {
        Err(NameError::Unusable { reason, .. }) => reason,
        other => panic!("{other:?}, {:?}", catalogue.notes()),
    }
}

#[test]
fn what_is_not_plain_is_refused_by_its_kind() {
    let text = Text::default();
    let with = |volumes: &str| Text { more: volumes.into(), ..text.clone() }.to_string();
    let special = |name: &str, status: &str, body: &str| {
        format!(
            "{name} {{ status = [{status}]\nsegment_count = 1\nsegment1 {{ start_extent = 0\nextent_count = 1\n{body} }} }}\n"
        )
    };
    let visible = "\"READ\", \"WRITE\", \"VISIBLE\"";
    for kind in ["thin", "thin-pool", "raid1", "mirror", "cache", "writecache", "vdo", "striped+NEW"] {
        let text = with(&special("b", visible, &format!("type = \"{kind}\"")));
        assert_eq!(reason(&text, "vg0/b"), Unusable::Kind(kind.into()));
    }
    // What others are made of is theirs, whatever key names it.
    let raid = special("b", visible, "type = \"raid1\"\nraids = [\"c\", \"a\"]");
    assert_eq!(reason(&with(&raid), "vg0/a"), Unusable::PartOf("b".into()));
    let pool = special("b", visible, "type = \"thin-pool\"\nmetadata = \"m\"\npool = \"a\"");
    assert_eq!(reason(&with(&pool), "vg0/a"), Unusable::PartOf("b".into()));
    let snapshot = special("snapshot0", visible, "type = \"snapshot\"\norigin = \"a\"\ncow_store = \"c\"")
        + &special("c", visible, "type = \"striped\"\nstripe_count = 1\nstripes = [\"pv0\", 20]");
    assert_eq!(reason(&with(&snapshot), "vg0/a"), Unusable::HasSnapshots);
    assert_eq!(reason(&with(&snapshot), "vg0/c"), Unusable::Kind("snapshot".into()));
    let moving = special("b", visible, "type = \"striped\"\nstripe_count = 1\nstripes = [\"pvmove0\", 0]");
    assert_eq!(reason(&with(&moving), "vg0/b"), Unusable::Kind("striped, on pvmove0".into()));
    let hidden = special("b", "\"READ\"", "type = \"striped\"\nstripe_count = 1\nstripes = [\"pv0\", 20]");
    assert_eq!(reason(&with(&hidden), "vg0/b"), Unusable::Hidden);
    let catalogue = Units::one(Disk::new(1, 32768, &with(&hidden)).image(), 512).catalogue();
    assert_eq!(names(&catalogue), ["nvme0n1", "vg0/a"]);
    let exported = text.to_string().replace("\"RESIZEABLE\"", "\"EXPORTED\"");
    assert_eq!(reason(&exported, "vg0/a"), Unusable::Group("it is exported".into()));
}

#[test]
fn hostile_metadata_maps_nothing_outside() {
    let text = Text::default().to_string();
    let change = |from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    };
    let segment = Unusable::Metadata("a segment");
    let extents = Unusable::Metadata("a segment's extents");
    for (changed, expected) in [
        (change("extent_count = 4", "extent_count = 0"), segment.clone()),
        (change("extent_count = 4", "extent_count = 4294967296"), segment.clone()),
        (change("extent_count = 4", "extent_count = -4"), segment.clone()),
        (change("stripe_count = 1", "stripe_count = 0"), segment.clone()),
        (change("stripe_count = 1", "stripe_count = 2"), segment.clone()),
        (change("stripes = [\"pv0\", 0]", "stripes = [\"pv0\", -1]"), segment.clone()),
        (change("stripes = [\"pv0\", 0]", "stripes = [0, \"pv0\"]"), segment.clone()),
        (change("stripes = [\"pv0\", 0]", "stripes = [\"pv0\"]"), segment),
        (change("stripes = [\"pv0\", 0]", "stripes = [\"pv0\", 97]"), extents.clone()),
        (change("stripes = [\"pv0\", 0]", "stripes = [\"pv0\", 4294967295]"), extents.clone()),
        (change("extent_count = 4", "extent_count = 4294967295"), extents),
        (change("start_extent = 0", "start_extent = 1"), Unusable::Metadata("its segments do not follow each other")),
        (change("segment_count = 1", "segment_count = 2"), Unusable::Metadata("its segments do not follow each other")),
        (change("pe_start = 2048", "pe_start = 0"), Unusable::Metadata("its extents lie over LVM's own metadata")),
        (change("pe_start = 2048", "pe_start = 100"), Unusable::Metadata("its extents lie over LVM's own metadata")),
        (change("pe_start = 2048", "pe_start = 9223372036854775807"), Unusable::BeyondUnit),
        (change("pe_start = 2048", "pe_start = 32513"), Unusable::BeyondUnit),
        (change("extent_size = 64", "extent_size = 4294967295"), Unusable::BeyondUnit),
    ] {
        assert_eq!(reason(&changed, "vg0/a"), expected, "{changed}");
    }
    // Two that have extents in common are both refused.
    let shared = Text { more: Text::volume("b", "\"pv0\", 3", 1, 4), ..Text::default() }.to_string();
    assert_eq!(reason(&shared, "vg0/a"), Unusable::SharesExtents("b".into()));
    assert_eq!(reason(&shared, "vg0/b"), Unusable::SharesExtents("a".into()));
    let beside = Text { more: Text::volume("b", "\"pv0\", 4", 1, 4), ..Text::default() }.to_string();
    let catalogue = Units::one(Disk::new(1, 32768, &beside).image(), 512).catalogue();
    let [a, b] = ["vg0/a", "vg0/b"].map(|name| catalogue.resolve(name).unwrap().volume.extents().collect::<Vec<_>>());
    assert_eq!((a, b), (vec![piece(0, 2048, 256)], vec![piece(0, 2304, 256)]));
}

#[test]
fn stripes_are_whole_chunks() {
    let striped = |chunk: u64| {
        let more = Text::volume("b", "\"pv0\", 10, \"pv0\", 20", 2, 4);
        Text { more: more.replace("stripe_size = 16", &format!("stripe_size = {chunk}")), ..Text::default() }
            .to_string()
    };
    for chunk in [0, 3, 256] {
        let why = if chunk == 0 { "a segment" } else { "its stripes are no whole number of chunks" };
        assert_eq!(reason(&striped(chunk), "vg0/b"), Unusable::Metadata(why), "{chunk}");
    }
    let catalogue = Units::one(Disk::new(1, 32768, &striped(32)).image(), 512).catalogue();
    let pieces: Vec<_> = catalogue.resolve("vg0/b").unwrap().volume.pieces(30, 70).collect();
    let (a, b) = (2048 + 640, 2048 + 1280);
    assert_eq!(pieces, [piece(0, a + 30, 2), piece(0, b, 32), piece(0, a + 32, 32), piece(0, b + 32, 4)]);
}

#[test]
fn texts_that_are_none_are_noted() {
    let text = Text::default().to_string();
    let deep = format!("{text}{}{}", "a {".repeat(40), "}".repeat(40));
    let many = format!("{text}\nx = [{}]", "1,".repeat(40_000));
    for (text, expected) in [
        (String::from("}"), "cannot be read at byte 1"),
        (text.replacen('}', "", 1), "ends too early"),
        (text.replace("seqno = 7", "seqno = seven"), "cannot be read at byte"),
        (text.replace("seqno = 7", "seqno = 99999999999999999999"), "cannot be read at byte"),
        (text.replace("seqno = 7", ""), "makes no sense: seqno"),
        (text.replace("version = 1", "version = 2"), "of which version"),
        (text.replace(VG_ID, "short"), "the volume group's id"),
        (text.replace("vg0 {", "-vg0 {"), "the volume group's name"),
        (deep, "nested too deeply"),
        (many, "more than 32768 keys"),
        (format!("{text}\nx = \"no end"), "ends too early"),
        (format!("{text}\nother {{ }}"), "the number of volume groups"),
    ] {
        let catalogue = Units::one(Disk::new(1, 32768, &text).image(), 512).catalogue();
        assert_eq!(names(&catalogue), ["nvme0n1"], "{expected}");
        assert!(catalogue.notes()[0].contains(expected), "{:?} for {expected}", catalogue.notes());
    }
}

#[test]
fn headers_that_point_anywhere_cost_nothing() {
    let sound = Disk::new(1, 32768, &Text::default().to_string());
    type Change = fn(&mut Disk);
    let cases: [(&str, Change); 8] = [
        ("the metadata area's header makes no sense", |disk| disk.text_offset = Some(100)),
        ("the metadata area's header makes no sense", |disk| disk.text_offset = Some(u64::MAX)),
        ("a metadata text of 18446744073709551615 bytes is longer than the 524288 that are read", |disk| {
            disk.text_size = Some(u64::MAX)
        }),
        ("the metadata area's header makes no sense", |disk| disk.text_size = Some(0)),
        ("the CRC of the metadata is wrong", |disk| disk.text_size = Some(600)),
        ("metadata could not be read: it points outside", |disk| disk.area_offset = 1 << 50),
        ("metadata could not be read: it points outside", |disk| disk.area_offset = u64::MAX),
        ("the metadata area's header makes no sense", |disk| disk.area_bytes = 400),
    ];
    for (expected, change) in cases {
        let mut disk = sound.clone();
        change(&mut disk);
        let units = Units::one(disk.image(), 512);
        let catalogue = units.catalogue();
        assert_eq!(catalogue.notes(), [format!("nvme0n1: {expected}")]);
        assert!(units.reads.borrow().len() < 16);
    }
}

#[test]
fn with_blocks_of_4096_bytes_all_reads_and_volumes_are_whole_blocks() {
    let text = Text::default().to_string();
    let units = Units::one(Disk::new(1, 32768, &text).image(), 4096);
    assert!(units.catalogue().resolve("vg0/a").is_ok(), "{:?}", units.catalogue().notes());
    let text = text.replace("pe_start = 2048", "pe_start = 2049");
    let catalogue = Units::one(Disk::new(1, 32768, &text).image(), 4096).catalogue();
    let text = catalogue.resolve("vg0/a").unwrap_err().to_string();
    assert_eq!(text, "vg0/a cannot be used: it is not made of whole blocks of 4096 bytes");
}

#[test]
fn groups_that_lvm2_would_not_use_here_are_refused_with_the_remedy() {
    let status = "status = [\"RESIZEABLE\", \"READ\", \"WRITE\"]";
    let locked = "status = [\"RESIZEABLE\", \"READ\"]\nflags = [\"WRITE_LOCKED\"]";
    let reason = |change: &dyn Fn(String) -> String| {
        let text = change(Text::default().to_string().replace("flags = []\nextent_size", "extent_size"));
        let catalogue = Units::one(Disk::new(1, 16384, &text).image(), 512).catalogue();
        catalogue.resolve("vg0/a").map(|found| found.geometry.read_only).map_err(|error| error.to_string())
    };
    let cases = [
        (format!("{locked}\nsystem_id = \"host1\""), "system ID host1; there, vgchange --systemid \"\" vg0 frees it"),
        (format!("{locked}\nlock_type = \"sanlock\""), "share it by lock type sanlock; vgchange --lock-type none vg0"),
        (status.replace("READ", "READ\", \"CLUSTERED"), "it is clustered; vgchange --force --lock-type none vg0"),
        (status.replace("READ", "READ\", \"NEWER"), "the unknown status NEWER"),
    ];
    for (to, expected) in cases {
        let error = reason(&|text| text.replace(status, &to)).unwrap_err();
        assert!(error.contains(expected), "{error} for {expected}");
    }
    for (from, to) in [("\"VISIBLE\"", "\"VISIBLE\", \"NEWER\""), ("\"ALLOCATABLE\"", "\"NEWER\"")] {
        let error = reason(&|text| text.replace(from, to)).unwrap_err();
        assert!(error.contains("the unknown status NEWER"), "{error}");
    }
    // No longer locked, the word may stay; and words among the flags need not be known.
    assert_eq!(reason(&|text| text.replace(status, locked)), Ok(false));
    assert_eq!(reason(&|text| text.replace(status, &format!("{status}\nflags = [\"NEWER\"]"))), Ok(false));
    assert_eq!(reason(&|text| text.replace(", \"WRITE\"", "")), Ok(true));
    // What was away while the group was changed is not used, though it is back.
    let error = reason(&|text| text.replace("[\"ALLOCATABLE\"]\nflags = []", "[]\nflags = [\"MISSING\"]")).unwrap_err();
    assert!(error.contains("which is not there"), "{error}");
}

#[test]
fn an_unknown_volume_is_answered_with_why_it_may_be_unknown() {
    let pv = Disk::new(1, 8192, &Text::default().to_string()).image();
    let mut image = Gpt::new(512, 16384).with(LINUX, 2048, 2048 + 8191, "mistyped").image();
    image[2048 * 512..][..pv.len()].copy_from_slice(&pv);
    let text = Units::one(image, 512).catalogue().resolve("vg0/a").unwrap_err().to_string();
    let expected = "not used: the physical volume on nvme0n1p1, because the partition's type is not LVM's: sfdisk --part-type nvme0n1 1 lvm";
    assert!(text.ends_with(expected), "{text}");
    let many: String = (0..2000).map(|number| Text::volume(&format!("v{number}"), "\"pv0\", 4", 1, 4)).collect();
    let mut disk = Disk::new(1, 16384, &Text { more: many, ..Text::default() }.to_string());
    let text = Units::one(disk.image(), 512).catalogue().resolve("vg0/a").unwrap_err().to_string();
    assert!(
        text.contains("not used: nvme0n1: the metadata has more than 32768 keys") && text.contains("1,500"),
        "{text}"
    );
    disk.text_size = Some(513 << 10);
    let text = Units::one(disk.image(), 512).catalogue().resolve("vg0/a").unwrap_err().to_string();
    assert!(text.contains("not used: nvme0n1: a metadata text of 525312 bytes is longer than the 524288"), "{text}");
}

/// What an earlier table left in the first sector, which LVM does not write, hides no physical volume.
#[test]
fn a_label_of_another_kind_hides_no_volume() {
    let mut image = Disk::new(1, 16384, &Text::default().to_string()).image();
    image[..4].copy_from_slice(b"RDSK");
    let catalogue = Units::one(image, 512).catalogue();
    assert!(catalogue.resolve("vg0/a").is_ok());
    let [note] = catalogue.notes() else { panic!("{:?}", catalogue.notes()) };
    assert!(note.contains("an Amiga rigid disk block is not read"), "{note}");
}
