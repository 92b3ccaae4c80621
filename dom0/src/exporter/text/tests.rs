use super::*;
use crate::model::tests::snapshot;
use crate::model::{DriverDomain, Image};
use std::collections::{BTreeMap, BTreeSet};

/// What a family says of itself.
#[derive(Debug, Default, PartialEq)]
struct Metadata {
    kind: String,
    unit: String,
    help: String,
}

type Labels = BTreeMap<String, String>;

/// A text read back.
#[derive(Debug, Default)]
struct Read {
    families: BTreeMap<String, Metadata>,
    samples: BTreeMap<(String, Labels), f64>,
}

/// The labels in front of a sample's value, and what is behind them.
fn labels(mut text: &str) -> (Labels, &str) {
    let mut labels = Labels::new();
    loop {
        let (name, rest) = text.split_once("=\"").expect("a label's name");
        assert!(name.chars().all(|sign| sign.is_ascii_alphanumeric() || sign == '_'), "{name:?}");
        let (mut value, mut signs) = (String::new(), rest.char_indices());
        let end = loop {
            match signs.next().expect("the end of a label's value") {
                (place, '"') => break place + 1,
                (_, '\\') => value.push(match signs.next().expect("an escaped character").1 {
                    'n' => '\n',
                    sign @ ('\\' | '"') => sign,
                    sign => panic!("\\{sign} is no escape"),
                }),
                (_, '\n') => panic!("a line feed in {value:?}"),
                (_, sign) => value.push(sign),
            }
        };
        assert_eq!(labels.insert(name.to_owned(), value), None, "{name} twice");
        match rest[end..].split_at(1) {
            (",", more) => text = more,
            ("}", more) => return (labels, more),
            (other, _) => panic!("{other:?} behind a label"),
        }
    }
}

/// Reads a text as OpenMetrics 1.0 has it, and no other.
fn parse(text: &str) -> Read {
    let lines = text.strip_suffix("# EOF\n").expect("the end is marked");
    assert!(!lines.contains("# EOF") && (lines.is_empty() || lines.ends_with('\n')));
    let (mut read, mut current, mut left) = (Read::default(), String::new(), BTreeSet::new());
    for line in lines.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            let mut words = rest.splitn(3, ' ');
            let mut next = || words.next().expect("three words").to_owned();
            let (what, name, value) = (next(), next(), next());
            if name != current {
                assert!(left.insert(name.clone()), "{name} comes twice");
                current.clone_from(&name);
            }
            let family = read.families.entry(name.clone()).or_default();
            let field = match what.as_str() {
                "HELP" => &mut family.help,
                "TYPE" => &mut family.kind,
                "UNIT" => {
                    assert!(name.ends_with(&format!("_{value}")), "{name} does not end with {value}");
                    &mut family.unit
                }
                other => panic!("{other} is nothing"),
            };
            assert!(field.is_empty() && !value.is_empty());
            *field = value;
            continue;
        }
        let end = line.find(['{', ' ']).expect("a value");
        let (labels, value) = match line[end..].strip_prefix('{') {
            Some(rest) => labels(rest),
            None => (Labels::new(), &line[end..]),
        };
        let name = &line[..end];
        let suffix = match read.families[&current].kind.as_str() {
            "counter" => "_total",
            "info" => "_info",
            "gauge" => "",
            other => panic!("{current} is a {other}"),
        };
        assert_eq!(name, format!("{current}{suffix}"), "a sample is with its family");
        let value: f64 = value.strip_prefix(' ').expect("one blank").parse().expect("a number");
        let known = read.samples.insert((name.to_owned(), labels), value);
        assert_eq!(known, None, "{line} comes twice");
    }
    read
}

fn text(snapshot: &Snapshot) -> Read {
    parse(&super::text(snapshot).unwrap())
}

fn value(read: &Read, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let has = |found: &Labels| labels.iter().all(|(name, value)| found.get(*name).is_some_and(|found| found == value));
    let found: Vec<f64> = read
        .samples
        .iter()
        .filter(|((known, found), _)| known == name && has(found))
        .map(|(_, value)| *value)
        .collect();
    assert!(found.len() <= 1, "{name} {labels:?}: {found:?}");
    found.first().copied()
}

/// A sample's name, some of its labels, and its value.
type Row = (&'static str, &'static [(&'static str, &'static str)], f64);

#[test]
fn each_number_is_there_with_its_labels() {
    let read = text(&snapshot());
    let table: [Row; 14] = [
        ("oxidom_domain_ready", &[("domain", "netdom"), ("domid", "2")], 1.0),
        ("oxidom_domain_error", &[("domain", "netdom")], 1.0),
        ("oxidom_domain_restarts_total", &[("domain", "netdom")], 2.0),
        ("oxidom_domain_start_time_seconds", &[("domain", "netdom")], 1_000_000.25),
        ("oxidom_domain_free_memory_bytes", &[("domain", "netdom")], 4_096_000.0),
        ("oxidom_domain_image_info", &[("domain", "blkdom"), ("image", "blkdom"), ("version", "0.1.0")], 1.0),
        ("oxidom_nic_packets_total", &[("nic", "0"), ("pci", "00:03.0"), ("direction", "receive")], 100.0),
        ("oxidom_nic_device_events_total", &[("event", "receive-missed")], 2.0),
        ("oxidom_vif_bytes_total", &[("guest", "web"), ("device", "0"), ("direction", "to_guest")], 7000.0),
        ("oxidom_vif_dropped_packets_total", &[("guest", "web"), ("cause", "queue-full")], 4.0),
        ("oxidom_vif_connected", &[("guest", "db"), ("guest_domid", "5"), ("device", "0")], 0.0),
        ("oxidom_bridge_leases", &[("domain", "netdom"), ("bridge", "lan")], 5.0),
        ("oxidom_vbd_bytes_total", &[("guest", "web"), ("target", "vg0/web"), ("kind", "read")], 7200.0 * 512.0),
        ("oxidom_vbd_failed_requests_total", &[("guest", "web"), ("cause", "refused")], 5.0),
    ];
    for (name, labels, expected) in table {
        assert_eq!(value(&read, name, labels), Some(expected), "{name} {labels:?}");
    }
    let family = &read.families["oxidom_vif_bytes"];
    assert_eq!((family.kind.as_str(), family.unit.as_str()), ("counter", "bytes"));
    assert_eq!(read.families["oxidom_nic_packets"].unit, "packets");
    assert!(read.families.values().all(|family| !family.help.is_empty() && !family.kind.is_empty()));
}

#[test]
fn a_host_without_driver_domains_has_no_numbers() {
    assert!(text(&Snapshot::default()).samples.is_empty());
    // Any guest can say that it is one.
    let said = text(&snapshot());
    assert!(said.samples.keys().all(|(_, labels)| labels["domain"] != "liar"));
}

#[test]
fn labels_are_escaped() {
    let name = "a\"b\\c\nd{}=,\\n";
    let image = Some(Image { name: "netdom".into(), version: "1".into() });
    let domain =
        DriverDomain { id: 9, name: name.into(), image, is_vouched: true, cpu: Some(0.25), ..DriverDomain::default() };
    let read = text(&Snapshot { domains: vec![domain], ..Snapshot::default() });
    assert_eq!(value(&read, "oxidom_domain_ready", &[("domain", name)]), Some(0.0));
    assert_eq!(value(&read, "oxidom_domain_cpu_seconds_total", &[("domain", name)]), Some(0.25));
    assert_eq!(value(&read, "oxidom_domain_image_info", &[("domain", name)]), Some(1.0));
}

#[test]
fn the_largest_numbers_are_numbers() {
    let mut snapshot = snapshot();
    let vif = &mut snapshot.domains[0].vifs[0];
    vif.port.as_mut().unwrap().from.bytes = u64::MAX;
    snapshot.domains[0].resources.insert("free-pages".into(), u64::MAX);
    let read = text(&snapshot);
    assert_eq!(
        value(&read, "oxidom_vif_bytes_total", &[("guest", "web"), ("direction", "from_guest")]),
        Some(u64::MAX as f64)
    );
    assert_eq!(value(&read, "oxidom_domain_free_memory_bytes", &[("domain", "netdom")]), Some(i64::MAX as f64));
}

/// What the sample dashboard asks for is exported, and it is JSON.
#[test]
fn the_dashboard_asks_for_what_there_is() {
    let dashboard: serde_json::Value = serde_json::from_str(include_str!("../../../grafana-dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut names: BTreeSet<String> = ALL
        .iter()
        .map(|family| {
            let unit = if family.unit.is_empty() { String::new() } else { format!("_{}", family.unit) };
            format!("{PREFIX}_{}{unit}{}", family.name, if family.kind == Kind::Counter { "_total" } else { "" })
        })
        .collect();
    names.insert(format!("{PREFIX}_domain_image_info"));
    let mut asked = 0;
    for target in panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
        let query = target["expr"].as_str().unwrap();
        for word in query.split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_') {
            if word.starts_with("oxidom_") {
                assert!(names.contains(word), "{word} is not exported");
                asked += 1;
            }
        }
    }
    assert!(asked > 10);
}
