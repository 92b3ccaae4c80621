//! Targets, what they resolve to, and who has it. Host.

use crate::disk::{Discard, Geometry};
use crate::volume::fakes::gpt::{Gpt, LINUX};
use crate::volume::fakes::{Units, names, unit};
use crate::volume::target::Target;
use crate::volume::{Access, Claims, NameError, Piece};
use alloc::format;
use alloc::string::{String, ToString};

#[test]
fn targets_are_read_as_linux_writes_them() {
    let uuid = "PARTUUID=0fc63daf-8483-4772-8e79-3d69d8477de4";
    for (target, name) in [
        ("nvme0n1", "nvme0n1"),
        ("/dev/sda", "sda"),
        (" phy:/dev/sda3 ", "sda3"),
        ("phy:sda", "sda"),
        ("PARTLABEL=vm1-root", "PARTLABEL=vm1-root"),
        ("partlabel=\"two words\"", "PARTLABEL=two words"),
        ("PARTUUID=0FC63DAF-8483-4772-8E79-3D69D8477DE4", uuid),
        ("/dev/disk/by-partuuid/0fc63daf-8483-4772-8e79-3d69d8477de4", uuid),
        ("PARTUUID=1234ABCD-0a", "PARTUUID=1234abcd-0a"),
        ("/dev/disk/by-partlabel/a\\x2fb\\x20c", "PARTLABEL=a/b c"),
        ("SERIAL=S5P2 NG0", "SERIAL=S5P2 NG0"),
        ("serial=QM00001-part2", "SERIAL=QM00001-part2"),
        ("WWN=0x5000C500A1B2C3D4-part1", "WWN=0x5000c500a1b2c3d4-part1"),
        ("/dev/disk/by-id/nvme-eui.0025385b71b00c42", "ID=nvme-eui.0025385b71b00c42"),
        ("/dev/disk/by-id/nvme-Samsung_SSD_980_S5P2NG0-part1", "ID=nvme-Samsung_SSD_980_S5P2NG0-part1"),
        ("phy:/dev/disk/by-id/ata-QEMU_HARDDISK_QM00001", "ID=ata-QEMU_HARDDISK_QM00001"),
        ("vg0/vm1-root", "vg0/vm1-root"),
        ("/dev/vg0/vm1-root", "vg0/vm1-root"),
        ("phy:/dev/vg0/vm1-root", "vg0/vm1-root"),
        ("/dev/mapper/vg0-vm1--root", "vg0/vm1-root"),
        ("/dev/mapper/a--b-c--d", "a-b/c-d"),
    ] {
        assert_eq!(Target::parse(target), Ok(Target { name: name.into(), shared: false }), "{target}");
    }
    assert_eq!(Target::parse("w!:vg0/shared"), Ok(Target { name: "vg0/shared".into(), shared: true }));
}

#[test]
fn nonsense_is_answered_with_what_may_be_written() {
    let long = "x".repeat(513);
    for target in [
        "",
        "  ",
        "/",
        "/dev/",
        "phy:",
        "w!:",
        "/etc/passwd",
        "a/b/c",
        "/dev/mapper/vg0",
        "/dev/mapper/a/b",
        "PARTLABEL=",
        "SERIAL=",
        "/dev/disk/by-id/",
        "/dev/disk/by-id/a/b",
        "PARTUUID=",
        "PARTUUID=xyz",
        "PARTUUID=1234abcd-zz",
        "../x",
        "vg0/..",
        "vg0/-x",
        "sda;rm",
        "a\nb",
        "/dev/disk/by-partlabel/\\xzz",
        "/dev/disk/by-partlabel/\\xff",
        "/dev/disk/by-partlabel/\\x2",
        "aio:/x",
        "ü/ü",
        &long,
    ] {
        let text = Target::parse(target).expect_err(target).to_string();
        assert!(text.contains("write a unit (nvme0n1, sda), a partition"), "{text}");
        assert!(text.len() < 600, "{text}");
    }
    let text = Target::parse("a\n\u{1b}[2Jb").unwrap_err().to_string();
    assert!(text.starts_with("target=a\\u{a}\\u{1b}[2Jb names no volume"), "{text}");
}

fn some_units() -> Units {
    let mut units =
        Units::one(Gpt::new(512, 4096).with(LINUX, 64, 127, "vm1-root").with(LINUX, 128, 255, "twice").image(), 512);
    units.add(Gpt::new(512, 4096).with(LINUX, 64, 127, "twice").image(), 512);
    units
}

#[test]
fn what_does_not_exist_is_answered_with_what_does() {
    let catalogue = some_units().catalogue();
    assert_eq!(
        catalogue.resolve("PARTLABEL=vm1-rot").unwrap_err().to_string(),
        "there is no PARTLABEL=vm1-rot; there are: nvme0n1p1 (PARTLABEL=vm1-root), nvme0n1, nvme0n1p2 (PARTLABEL=twice), nvme1n1, \
         nvme1n1p1 (PARTLABEL=twice)"
    );
    let text = catalogue.resolve("vm1-root").unwrap_err().to_string();
    assert!(text.starts_with("target=vm1-root names no volume"), "{text}");
    let text = catalogue.resolve("twice").unwrap_err().to_string();
    assert!(
        text.starts_with("there is no twice; there are: nvme0n1p2 (PARTLABEL=twice), nvme1n1p1 (PARTLABEL=twice), "),
        "{text}"
    );
    let text = Units::default().catalogue().resolve("sda").unwrap_err().to_string();
    assert_eq!(text, "there is no sda; there is nothing at all yet");
}

#[test]
fn a_unit_has_the_names_of_its_serial_number_and_its_partitions_have_them_too() {
    let mut units = some_units();
    for (source, serial) in units.sources.iter_mut().zip(["A1", "A1", "A2"]) {
        source.aliases = [format!("SERIAL={serial}"), format!("ID=nvme-Model_{serial}_{}", source.name)].into();
    }
    units.add(Gpt::new(512, 4096).with(LINUX, 64, 127, "third").image(), 512);
    units.sources[2].aliases = ["SERIAL=A2".into()].into();
    let catalogue = units.catalogue();
    let name = |target: &str| catalogue.resolve(target).unwrap().name;
    assert_eq!(name("SERIAL=A2"), "nvme2n1");
    assert_eq!(name("SERIAL=A2-part1"), "nvme2n1p1");
    assert_eq!(name("/dev/disk/by-id/nvme-Model_A1_nvme1n1"), "nvme1n1");
    assert_eq!(name("/dev/disk/by-id/nvme-Model_A1_nvme1n1-part1"), "nvme1n1p1");
    let text = catalogue.resolve("SERIAL=A1").unwrap_err().to_string();
    assert!(text.starts_with("SERIAL=A1 is the name of several: nvme0n1, nvme1n1"), "{text}");
    // A config that is told a name must not mean another unit with it tomorrow.
    let lasting = |target: &str| catalogue.resolve(target).expect("it is there").lasting;
    assert_eq!(lasting("nvme0n1").as_deref(), Some("ID=nvme-Model_A1_nvme0n1"));
    assert_eq!(lasting("nvme2n1").as_deref(), Some("SERIAL=A2"));
    let text = catalogue.resolve("SERIAL=A3").unwrap_err().to_string();
    assert!(!text.contains("SERIAL=A1"), "{text}");
    assert!(text.contains("nvme2n1 (SERIAL=A2)"), "{text}");
}

#[test]
fn a_name_of_two_things_is_refused() {
    let catalogue = some_units().catalogue();
    assert_eq!(
        catalogue.resolve("PARTLABEL=twice").unwrap_err().to_string(),
        "PARTLABEL=twice is the name of several: nvme0n1p2, nvme1n1p1; write one of these"
    );
    // Both tables have a partition of the same GUID.
    let uuid = "PARTUUID=01010101-0101-0101-0101-010101010101";
    assert!(matches!(catalogue.resolve(uuid), Err(NameError::Ambiguous { .. })));
}

#[test]
fn errors_fit_into_a_node_whatever_there_is() {
    let mut gpt = Gpt::new(512, 4096);
    for number in 0..128 {
        gpt = gpt.with(
            LINUX,
            64 + number,
            64 + number,
            "\u{1}\u{2}\u{3}\u{4}\u{5}\u{6}\u{7}\u{8}\u{9}\u{10ffff}ßäöü a very long name",
        );
    }
    let mut units = Units::default();
    for _ in 0..8 {
        units.add(gpt.image(), 512);
    }
    let catalogue = units.catalogue();
    assert_eq!(names(&catalogue).len(), 8 * 129);
    let labels = "\u{1}".repeat(300);
    for target in
        ["x".repeat(512), format!("PARTLABEL={labels}"), format!("/dev/disk/by-partlabel/{}", gpt.entries[0].3)]
    {
        let text = catalogue.resolve(&target).unwrap_err().to_string();
        assert!(text.len() < 2000, "{} bytes: {text}", text.len());
        assert!(text.contains(" more"), "{text}");
    }
}

#[test]
fn geometry_is_the_units_taken_together() {
    let geometry = |logical_block, discard| Geometry {
        sectors: 1 << 20,
        logical_block,
        physical_block: 4096,
        discard,
        write_zeroes: true,
        ..Geometry::default()
    };
    let discard = Discard { granularity: 8192, alignment: 0, secure: true };
    let mut units = Units::one(Gpt::new(512, 4096).with(LINUX, 72, 127, "a").image(), 512);
    units.sources[0].geometry = Geometry { volatile_cache: true, sectors: 4096, ..geometry(512, Some(discard)) };
    let found = units.catalogue().resolve("PARTLABEL=a").unwrap();
    // 72 sectors are four granules and a half.
    let expected = Discard { granularity: 8192, alignment: 4096, secure: true };
    assert_eq!(found.geometry, Geometry { sectors: 56, volatile_cache: true, ..geometry(512, Some(expected)) });
}

#[test]
fn claims_are_by_sectors_not_by_names() {
    let catalogue = some_units().catalogue();
    let claims = Claims::new();
    let holder = || String::from("domain 5's xvda (51712)");
    let of = |name: &str| catalogue.resolve(name).unwrap();
    let first = claims.claim(holder(), &of("PARTLABEL=vm1-root"), Access::Write).unwrap();
    let other = || String::from("domain 6's xvdb (51728)");
    let error = claims.claim(other(), &of("nvme0n1"), Access::Read).unwrap_err();
    assert_eq!(
        error.to_string(),
        "domain 5's xvda (51712) has nvme0n1p1 for writing, and nvme0n1 has sectors in common with it; it can be read only beside a \
         writer that shares it (target=w!:...)"
    );
    let error = claims.claim(other(), &of("nvme0n1p1"), Access::Write).unwrap_err();
    assert!(
        error.to_string().starts_with("domain 5's xvda (51712) has nvme0n1p1 for writing; two may write it only if"),
        "{error}"
    );
    let second = claims.claim(other(), &of("nvme0n1p2"), Access::Write).unwrap();
    claims.claim(other(), &of("nvme1n1"), Access::Write).unwrap();
    assert_eq!(
        claims.written(),
        [Piece { unit: unit(0), sector: 64, sectors: 64 }, Piece { unit: unit(0), sector: 128, sectors: 128 }]
    );
    assert!(claims.is_claimed(&of("nvme0n1").volume));
    drop((first, second));
    assert!(!claims.is_claimed(&of("nvme0n1").volume));
    claims.claim(other(), &of("nvme0n1"), Access::Write).unwrap();
}

#[test]
fn who_may_have_it_beside_whom() {
    use Access::{Read, SharedWrite, Write};
    let catalogue = some_units().catalogue();
    let volume = catalogue.resolve("nvme0n1p1").unwrap();
    for (first, second, fine) in [
        (Read, Read, true),
        (Read, Write, false),
        (Read, SharedWrite, true),
        (Write, Read, false),
        (Write, Write, false),
        (Write, SharedWrite, false),
        (SharedWrite, Read, true),
        (SharedWrite, Write, false),
        (SharedWrite, SharedWrite, true),
    ] {
        let claims = Claims::new();
        let held = claims.claim("a".into(), &volume, first).unwrap();
        let result = claims.claim("b".into(), &volume, second).map(|claim| claim.access());
        assert_eq!(result.is_ok(), fine, "{second:?} beside {first:?}: {result:?}");
        assert!(held.update(&volume).is_ok(), "nobody stands in his own way");
        assert_eq!(claims.written().is_empty(), first == Read);
    }
    for (mode, shared, access) in [
        ("r", false, Read),
        ("ro", true, Read),
        ("w", false, Write),
        ("w", true, SharedWrite),
        ("w!", false, SharedWrite),
        ("", false, Read),
    ] {
        assert_eq!(Access::from_mode(mode, shared), access, "{mode}");
    }
}

#[test]
fn a_claim_that_grows_meets_the_neighbour() {
    let catalogue = some_units().catalogue();
    let [small, large] = ["nvme0n1p1", "nvme0n1"].map(|name| catalogue.resolve(name).unwrap());
    let claims = Claims::new();
    let growing = claims.claim("a".into(), &small, Access::Write).unwrap();
    let neighbour = claims.claim("b".into(), &catalogue.resolve("nvme0n1p2").unwrap(), Access::Read).unwrap();
    assert_eq!(growing.update(&large).unwrap_err().holder, "b");
    assert_eq!(claims.written(), [Piece { unit: unit(0), sector: 64, sectors: 64 }]);
    drop(neighbour);
    growing.update(&large).unwrap();
    assert_eq!(claims.written(), [Piece { unit: unit(0), sector: 0, sectors: 4096 }]);
}

#[test]
fn what_a_guest_may_write_is_not_looked_into() {
    let units = some_units();
    let catalogue = units.catalogue();
    let claims = Claims::new();
    let partition = claims.claim("a".into(), &catalogue.resolve("nvme0n1p1").unwrap(), Access::Write).unwrap();
    assert_eq!(names(&units.scan(&claims)), names(&catalogue), "the table is not in the partition");
    drop(partition);
    let _whole = claims.claim("a".into(), &catalogue.resolve("nvme0n1").unwrap(), Access::Write).unwrap();
    units.reads.borrow_mut().clear();
    let after = units.scan(&claims);
    assert_eq!(names(&after), ["nvme0n1", "nvme1n1", "nvme1n1p1"]);
    assert!(units.reads.borrow().iter().all(|(read, ..)| *read != unit(0)));
    let text = after.resolve("nvme0n1p1").unwrap_err().to_string();
    assert!(text.ends_with("; not looked into, because a guest may write it: nvme0n1"), "{text}");
}
