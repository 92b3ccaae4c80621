//! What a scan found counts no longer once somebody may have written what it follows from. Host.

use crate::volume::fakes::gpt::{Gpt, LINUX, LVM};
use crate::volume::fakes::lvm::{Disk, Text};
use crate::volume::fakes::{Units, unit};
use crate::volume::{Access, Catalogue, Claims, NameError, scan};
use alloc::string::ToString;
use alloc::vec::Vec;
use split_driver::fakes::block_on;

const SECTORS: usize = 16384;

/// `vg0` with `a` on extents 0 to 3 and `b` on 4 to 7; and after `lvremove vg0/a; lvrename vg0/b vg0/a`.
fn before_and_after() -> [Vec<u8>; 2] {
    let before = Text { more: Text::volume("b", "\"pv0\", 4", 1, 4), ..Text::default() }.to_string();
    let after = Text { sequence: 9, ..Text::default() }.to_string().replace("\"pv0\", 0", "\"pv0\", 4");
    [before, after].map(|text| Disk::new(1, SECTORS, &text).image())
}

/// Whether the catalogue's answer for a target counts.
fn counts(units: &Units, catalogue: &Catalogue, claims: &Claims, target: &str) -> bool {
    !matches!(catalogue.resolve_beside(target, claims), Err(NameError::Changing(_)))
        && block_on(catalogue.grounds(target, claims).hold(units))
}

fn first(catalogue: &Catalogue, target: &str) -> u64 {
    catalogue.resolve(target).unwrap().volume.pieces(0, 1).next().unwrap().sector
}

#[test]
fn a_disk_that_a_guest_wrote_and_no_longer_has_is_looked_at_again() {
    let [before, after] = before_and_after();
    let mut units = Units::one(before, 512);
    let claims = Claims::new();
    let catalogue = units.scan(&claims);
    let old = first(&catalogue, "vg0/a");
    assert!(counts(&units, &catalogue, &claims, "vg0/a"));
    let reading = claims.claim("a".into(), &catalogue.resolve("nvme0n1").unwrap(), Access::Read).unwrap();
    drop(reading);
    assert!(counts(&units, &catalogue, &claims, "vg0/a"), "who only read changed nothing");
    for access in [Access::Write, Access::SharedWrite] {
        let writing = claims.claim("a".into(), &catalogue.resolve("nvme0n1").unwrap(), access).unwrap();
        drop(writing);
        let error = catalogue.resolve_beside("vg0/a", &claims).unwrap_err();
        assert_eq!(error, NameError::Changing("vg0/a".into()));
        assert!(counts(&units, &catalogue, &claims, "nvme0n1"), "the disk itself is what it was");
        units.bytes[0].clone_from(&after);
        let catalogue = units.scan(&claims);
        assert!(counts(&units, &catalogue, &claims, "vg0/a"));
        assert_eq!(first(&catalogue, "vg0/a"), old + 4 * 64);
    }
}

#[test]
fn a_claim_that_ends_while_the_disks_are_looked_at_counts() {
    let [before, after] = before_and_after();
    let mut units = Units::one(before, 512);
    let claims = Claims::new();
    let whole = units.catalogue().resolve("nvme0n1").unwrap();
    // One that was there before, and one that comes and goes meanwhile.
    for early in [true, false] {
        let claim = || claims.claim("a".into(), &whole, Access::Write).unwrap();
        let held = early.then(claim);
        let written = claims.begin_scan();
        drop(held.unwrap_or_else(claim));
        let catalogue = block_on(scan(&units, &units.sources, &written));
        assert!(
            matches!(
                catalogue.resolve_beside("vg0/a", &claims),
                Err(NameError::Changing(_) | NameError::Unknown { .. })
            ),
            "early {early}"
        );
    }
    // Half of a group: what the other half says may be old.
    let text = Text { physical: 2, ..Text::default() }.to_string();
    units.bytes[0] = Disk::new(1, SECTORS, &text).image();
    let second = units.add(Disk::new(2, SECTORS, &text).image(), 512);
    assert_eq!(second, unit(1));
    let other = claims.claim("a".into(), &units.catalogue().resolve("nvme1n1").unwrap(), Access::Write).unwrap();
    let catalogue = units.scan(&claims);
    assert!(counts(&units, &catalogue, &claims, "nvme0n1"));
    drop(other);
    assert!(!counts(&units, &catalogue, &claims, "vg0/a"));
    drop(after);
}

#[test]
fn metadata_that_another_host_wrote_is_seen_by_its_number() {
    let [before, after] = before_and_after();
    let mut units = Units::one(before, 512);
    let claims = Claims::new();
    let catalogue = units.scan(&claims);
    assert!(counts(&units, &catalogue, &claims, "vg0/a"));
    units.bytes[0] = after;
    assert!(!counts(&units, &catalogue, &claims, "vg0/a"));
    assert!(counts(&units, &catalogue, &claims, "nvme0n1"));
}

#[test]
fn a_partition_that_was_moved_is_looked_for_again() {
    for block in [512, 4096] {
        let table = |first| Gpt::new(block, 4096).with(LINUX, first, first + 63, "a").with(LVM, 512, 767, "pv").image();
        let mut units = Units::one(table(64), block as u32);
        let claims = Claims::new();
        let catalogue = units.scan(&claims);
        assert!(counts(&units, &catalogue, &claims, "PARTLABEL=a"));
        // What was not looked into may change.
        let claim = claims.claim("a".into(), &catalogue.resolve("PARTLABEL=a").unwrap(), Access::Write).unwrap();
        drop(claim);
        assert!(counts(&units, &catalogue, &claims, "PARTLABEL=a"));
        units.bytes[0] = table(128);
        assert!(!counts(&units, &catalogue, &claims, "PARTLABEL=a"), "{block}");
        let catalogue = units.scan(&claims);
        let claim = claims.claim("a".into(), &catalogue.resolve("PARTLABEL=pv").unwrap(), Access::Write).unwrap();
        drop(claim);
        assert!(catalogue.resolve_beside("PARTLABEL=a", &claims).is_err(), "the partition was looked into for LVM");
    }
}
