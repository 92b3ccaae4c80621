use super::*;
use crate::model::tests::snapshot;

/// What a terminal without colours gets.
fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

/// A thousand minutes after netdom was created.
const NOW: f64 = 1_060_000.25;

#[test]
fn a_host_at_a_glance() {
    assert_eq!(plain(&status(&snapshot(), NOW)), include_str!("tests/status.txt"));
    assert_eq!(status(&Snapshot::default(), NOW), "no driver domain runs here\n");
}

#[test]
fn bridges_with_ports_and_addresses() {
    let snapshot = snapshot();
    let (text, json) = bridges(&snapshot, None).unwrap();
    assert_eq!(plain(&text), include_str!("tests/bridge.txt"));
    assert_eq!(json["bridges"].as_array().unwrap().len(), 4);
    let (_, json) = bridges(&snapshot, Some("xenbr0")).unwrap();
    assert_eq!(json["bridges"][0]["ports"][1]["of"], "web");
    assert!(bridges(&snapshot, Some("xenbr9")).is_none());
    assert!(bridges(&Snapshot::default(), None).unwrap().0.starts_with("no driver domain"));
}

#[test]
fn each_counter_is_a_line() {
    assert_eq!(plain(&stats(&snapshot())), include_str!("tests/stats.txt"));
    let json = stats_json(&snapshot());
    let found = json["samples"]
        .as_array()
        .unwrap()
        .iter()
        .find(|sample| sample["name"] == "vif_dropped_packets" && sample["labels"]["cause"] == "queue-full");
    assert_eq!(found.unwrap()["value"], 4);
}

#[test]
fn volumes_with_their_users() {
    let snapshot = snapshot();
    let blkdom = &snapshot.domains[1];
    assert_eq!(plain(&volumes(blkdom)), include_str!("tests/volumes.txt"));
    let json = volumes_json(blkdom);
    assert_eq!(
        (&json["volumes"][1]["users"][0]["device"], &json["volumes"][1]["bytes"]),
        (&"xvda".into(), &536_870_912_u64.into())
    );
    let mut shared = blkdom.clone();
    shared.vbds[0].target = Some("w!:/dev/vg0/web".into());
    assert!(volumes(&shared).contains("web (4) as xvda"));
    let more = DriverDomain { more_volumes: 7, ..blkdom.clone() };
    assert!(volumes(&more).ends_with("and 7 more, which `volumes` on its console (`xl console blkdom`) lists\n"));
}

#[test]
fn programs_get_all_of_it() {
    let json = json(&snapshot());
    let netdom = &json["domains"][0];
    assert_eq!((&netdom["image"]["name"], &netdom["well"]), (&"netdom".into(), &false.into()));
    assert_eq!(
        (&netdom["vifs"][0]["state"], &netdom["vifs"][0]["port"]["to"]["bytes"]),
        (&"connected".into(), &7000.into())
    );
    assert_eq!((&netdom["bridges"][1]["name"], &json["store"]["name"]), (&"xenbr0".into(), &"Xenstore".into()));
}

/// Colours are there for a terminal, and are escape sequences of ours alone.
#[test]
fn what_is_wrong_is_red() {
    let text = status(&snapshot(), NOW);
    assert!(text.contains("\u{1b}[31mno volume vg0/lost") || text.contains("\u{1b}[31mrefused"), "{text:?}");
    assert!(!plain(&text).contains('\u{1b}'));
}

#[test]
fn spans_and_sizes_have_few_digits() {
    let spans =
        [(-5.0, "0 s"), (59.9, "59 s"), (3_599.0, "59 min 59 s"), (90_000.0, "1 d 1 h"), (3_661.0, "1 h 1 min")];
    for (seconds, text) in spans {
        assert_eq!(span(seconds), text);
    }
    let sizes = [(0, "0 KiB"), (1, "0.5 KiB"), (2048, "1 MiB"), (3 << 20, "1.5 GiB"), (u64::MAX, "16777216 TiB")];
    for (sectors, text) in sizes {
        assert_eq!(size(sectors), text);
    }
}
