//! The lab itself, on real Xen: dom0, a guest, and what they are asked. Host.
//!
//! Ignored by default: each boots a machine. `cargo xtask test` runs them.

use std::time::Duration;

use lab::{GuestConfig, Lab, LabConfig, Row};

fn boots(row: Row) {
    let config = LabConfig::new(row);
    let lab = Lab::boot(&config).expect("dom0 boots");
    println!("{row}: dom0 ready after {:?}", lab.boot_time);
    assert!(lab.must("xl info").expect("xl answers").contains("xen_major"));
    assert_eq!(lab.run("exit 7").expect("the channel works").status, 7);
    let error = lab.run_for("echo begun; sleep 60", Duration::from_secs(2)).expect_err("too long");
    assert!(format!("{error:#}").contains("begun"), "{error:#}");

    let content: Vec<u8> = (0..3_000_000_u32).map(|number| number as u8).collect();
    lab.put("/tmp/file", 0o600, &content).expect("a file goes to dom0");
    assert!(lab.get("/tmp/file").expect("and comes back") == content);

    let bdf = lab.make_assignable(0).expect("pciback takes the NIC");
    assert!(lab.must("xl pci-assignable-list").expect("xl answers").contains(&bdf));

    let start = std::time::Instant::now();
    let guest = lab.create(&GuestConfig::new("a")).expect("a guest comes up");
    println!("{row}: guest up after {:?}", start.elapsed());
    assert_eq!(guest.must("uname -s").expect("the guest answers"), "Linux\n");
    assert_eq!(guest.run("exit 3").expect("the guest answers").status, 3);
    assert_eq!(guest.must("seq 1 5000").expect("long output comes whole").lines().count(), 5000);
    assert!(lab.console("a").expect("consoles are kept").contains("Linux version"));
    lab.must("xl destroy a").expect("xl destroys");
}

#[test]
#[ignore = "boots Xen"]
fn debian12_boots_and_runs_a_guest() {
    boots(Row::Debian12);
}

#[test]
#[ignore = "boots Xen"]
fn debian13_boots_and_runs_a_guest() {
    boots(Row::Debian13);
}
