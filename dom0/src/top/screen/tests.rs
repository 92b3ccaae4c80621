use super::super::rates::rates;
use super::*;
use crate::model::Snapshot;
use crate::model::tests::snapshot;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::time::Duration;

/// What a terminal of that size shows, line by line.
fn shown(rates: &Rates, (width, height): (u16, u16), view: View, note: Option<&str>) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, rates, view, note)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y: u16| -> String { (0..width).map(|x| buffer[(x, y)].symbol()).collect() };
    (0..height).map(|y| line(y).trim_end().to_owned()).collect()
}

fn busy() -> Rates {
    let (before, mut now) = (snapshot(), snapshot());
    let port = now.domains[0].vifs[0].port.as_mut().unwrap();
    (port.from.packets, port.from.bytes) = (port.from.packets + 40_000, port.from.bytes + 60_000_000);
    *port.drops.get_mut("spoofed").unwrap() += 4;
    now.domains[1].vbds[0].disk.as_mut().unwrap().reads += 30;
    rates(&before, &now, Duration::from_secs(2))
}

#[test]
fn all_is_on_the_screen() {
    let lines = shown(&busy(), (120, 30), View::default(), None);
    let find =
        |text: &str| lines.iter().find(|line| line.contains(text)).unwrap_or_else(|| panic!("no {text}: {lines:#?}"));
    assert!(lines[0].contains("of the last 2.0 s"));
    assert!(find("netdom 0.1.0").contains("error") && find("linux-net").contains("well"));
    let vif: Vec<&str> = find("vif 4.0").split_whitespace().collect();
    assert_eq!(vif, ["netdom", "vif", "4.0", "web", "xenbr0", "20k", "30", "MB", "0", "0", "B", "2.0", "spoofed"]);
    let disk: Vec<&str> = find("vg0/web").split_whitespace().collect();
    assert_eq!(disk[..5], ["blkdom", "xvda", "web", "vg0/web", "15"]);
    assert!(find("vif 5.1").ends_with('-'));
}

#[test]
fn rows_are_scrolled_and_sorted() {
    let first = |view| {
        let lines = shown(&busy(), (120, 30), view, None);
        let heading = lines.iter().position(|line| line.contains("FROM/s")).unwrap();
        lines[heading + 1].split_whitespace().skip(1).take(2).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(first(View::default()), "nic 0");
    assert_eq!(first(View { scrolled: 2, busiest: false }), "vif 5.0");
    assert_eq!(first(View { scrolled: 0, busiest: true }), "vif 4.0");
    assert_eq!(first(View { scrolled: 999, busiest: false }), "vif 5.2");
}

#[test]
fn any_size_and_no_domain_at_all_can_be_drawn() {
    for size in [(1, 1), (20, 3), (80, 5), (300, 4), (5, 100)] {
        shown(&busy(), size, View::default(), Some("no store"));
        shown(&rates(&Snapshot::default(), &Snapshot::default(), Duration::ZERO), size, View::default(), None);
    }
    assert!(shown(&busy(), (80, 24), View::default(), Some("no store"))[0].contains("no store"));
}

#[test]
fn numbers_have_few_digits() {
    let table = [
        (0.0, "0"),
        (0.5, "0.5"),
        (9.94, "9.9"),
        (12.6, "13"),
        (9999.0, "9999"),
        (20_000.0, "20k"),
        (1e18, "1000000T"),
    ];
    for (number, text) in table {
        assert_eq!(rate(number), text);
    }
    assert_eq!((bytes(1500.0), bytes(3e7)), ("1500 B".to_owned(), "30 MB".to_owned()));
}
