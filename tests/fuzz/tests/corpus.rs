//! The corpora as plain tests, and a short run from a fixed seed.

use std::time::Duration;

fn run_corpus(name: &str) {
    let inputs = fuzz::inputs::read(&fuzz::corpus_file(name)).unwrap();
    assert!(inputs.len() >= 20, "{} inputs", inputs.len());
    let make = || fuzz::target(name).unwrap();
    let mut world = fuzz::World::new(&make);
    let mut seen = Vec::new();
    for (place, input) in inputs.iter().enumerate() {
        println!("input {place}");
        world.run(input, &mut seen);
        assert!(!seen.is_empty());
    }
}

fn run_for_a_second(name: &str) {
    let mut corpus = Vec::new();
    let make = || fuzz::target(name).unwrap();
    let report = fuzz::run(&mut fuzz::World::new(&make), &mut corpus, Duration::from_secs(1), 7);
    // How many they are is the machine's affair.
    assert!(report.executions > 0 && report.seen > 0, "{report:?}");
}

#[test]
fn netback_corpus() {
    run_corpus("netback");
}

#[test]
fn netback_for_a_second() {
    run_for_a_second("netback");
}

#[test]
fn switch_corpus() {
    run_corpus("switch");
}

#[test]
fn switch_for_a_second() {
    run_for_a_second("switch");
}

#[test]
fn policy_corpus() {
    run_corpus("policy");
}

#[test]
fn policy_for_a_second() {
    run_for_a_second("policy");
}

#[test]
fn lacp_corpus() {
    run_corpus("lacp");
}

#[test]
fn lacp_for_a_second() {
    run_for_a_second("lacp");
}

#[test]
fn multicast_corpus() {
    run_corpus("multicast");
}

#[test]
fn multicast_for_a_second() {
    run_for_a_second("multicast");
}

#[test]
fn nat_corpus() {
    run_corpus("nat");
}

#[test]
fn nat_for_a_second() {
    run_for_a_second("nat");
}

#[test]
fn route4_corpus() {
    run_corpus("route4");
}

#[test]
fn route4_for_a_second() {
    run_for_a_second("route4");
}

#[test]
fn route6_corpus() {
    run_corpus("route6");
}

#[test]
fn route6_for_a_second() {
    run_for_a_second("route6");
}

#[test]
fn dhcp_corpus() {
    run_corpus("dhcp");
}

#[test]
fn dhcp_for_a_second() {
    run_for_a_second("dhcp");
}

#[test]
fn blkback_corpus() {
    run_corpus("blkback");
}

#[test]
fn blkback_for_a_second() {
    run_for_a_second("blkback");
}

#[test]
fn lvm_corpus() {
    run_corpus("lvm");
}

#[test]
fn lvm_for_a_second() {
    run_for_a_second("lvm");
}

#[test]
fn gpt_corpus() {
    run_corpus("gpt");
}

#[test]
fn gpt_for_a_second() {
    run_for_a_second("gpt");
}

#[test]
fn nvme_corpus() {
    run_corpus("nvme");
}

#[test]
fn nvme_for_a_second() {
    run_for_a_second("nvme");
}

#[test]
fn ahci_corpus() {
    run_corpus("ahci");
}

#[test]
fn ahci_for_a_second() {
    run_for_a_second("ahci");
}

#[test]
fn ixgbe_corpus() {
    run_corpus("ixgbe");
}

#[test]
fn ixgbe_for_a_second() {
    run_for_a_second("ixgbe");
}

#[test]
fn igb_corpus() {
    run_corpus("igb");
}

#[test]
fn igb_for_a_second() {
    run_for_a_second("igb");
}

#[test]
fn e1000e_corpus() {
    run_corpus("e1000e");
}

#[test]
fn e1000e_for_a_second() {
    run_for_a_second("e1000e");
}

#[test]
fn xenstore_corpus() {
    run_corpus("xenstore");
}

#[test]
fn xenstore_for_a_second() {
    run_for_a_second("xenstore");
}
