//! The rows of `cargo xtask bench net` as bars: a picture for each group of rows, drawn into `docs/`. Host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use e2e::bench::{Report, Row, number};
use lab::cache;
use plotters::prelude::*;

/// What is in one picture: the word in its file's name, its title, and the units of its rows.
struct Group {
    word: &'static str,
    title: &'static str,
    units: &'static [&'static str],
}

const GROUPS: [Group; 6] = [
    Group { word: "throughput", title: "Throughput: longer is better", units: &["Mbit/s"] },
    Group { word: "packets", title: "Packets of 64 bytes: longer is better", units: &["packets/s"] },
    Group {
        word: "cpu",
        title: "CPU time of the driver domain: shorter is better",
        units: &["ms/MB", "us/packet", "us/round trip"],
    },
    Group { word: "round-trips", title: "Round trips: shorter is better", units: &["us"] },
    Group {
        word: "counts",
        title: "What netdom asks of Xen and of its NIC: shorter is better",
        units: &["1/MB", "1/packet", "1/round trip"],
    },
    Group {
        word: "instructions",
        title: "Instructions of the driver domain, and of Xen for it: shorter is better",
        units: &["10^6 instructions/MB", "instructions/packet", "instructions/round trip"],
    },
];

/// Of ours, the Linux driver domain, and the device passed through.
const COLOURS: [RGBColor; 3] = [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(150, 150, 150)];

/// Pixels: of a bar, of the space behind a row's bars, of the place for names, of the longest bar, of the place for its figure.
const BAR: i32 = 14;
const GAP: i32 = 10;
const NAMES: i32 = 400;
const LONGEST: i32 = 300;
const FIGURE: i32 = 160;
/// Above the first row: title and legend.
const HEAD: i32 = 62;

/// Draws `docs/net-ROW-GROUP.svg` for each group of which the report has rows; gives the files.
pub(crate) fn draw(report: &Report, row: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for group in &GROUPS {
        let mut rows: Vec<&Row> = report.rows.iter().filter(|row| group.units.contains(&row.unit.as_str())).collect();
        if rows.is_empty() {
            continue;
        }
        gather(&mut rows);
        let path = cache::workspace().join("docs").join(format!("net-{row}-{}.svg", group.word));
        let title = format!("{} ({row})", group.title);
        draw_group(&path, &title, report.heads, &rows)
            .map_err(|error| anyhow!("drawing {}: {error}", path.display()))?;
        files.push(path);
    }
    Ok(files)
}

/// The bars of a row, by the place of their head and colour.
fn bars(row: &Row) -> impl Iterator<Item = (usize, f64)> {
    [Some(row.ours), row.linux, row.limit].into_iter().enumerate().filter_map(|(place, figure)| Some((place, figure?)))
}

/// Rows with one scale: those of one unit, and of counts, which differ by orders of magnitude, those of one thing, whatever the load was.
fn scale(row: &Row) -> (&str, &str) {
    let thing = row.name.split_once(": ").filter(|_| row.unit.starts_with("1/")).map_or("", |(_, thing)| thing);
    (row.unit.as_str(), thing)
}

/// Has rows of one scale stand together, in the order in which their first ones came.
fn gather(rows: &mut [&Row]) {
    let mut order: Vec<(&str, &str)> = Vec::new();
    for row in &*rows {
        if !order.contains(&scale(row)) {
            order.push(scale(row));
        }
    }
    rows.sort_by_key(|row| order.iter().position(|other| *other == scale(row)));
}

/// How long the longest bar of each scale is in its unit.
fn longest<'rows>(rows: &[&'rows Row]) -> BTreeMap<(&'rows str, &'rows str), f64> {
    let mut longest = BTreeMap::new();
    for row in rows {
        let most = bars(row).map(|(_, figure)| figure).fold(0.0, f64::max);
        let known: &mut f64 = longest.entry(scale(row)).or_default();
        *known = known.max(most);
    }
    longest
}

/// Pixels of a bar. One that is not nothing is seen.
fn pixels(figure: f64, longest: f64) -> i32 {
    if figure > 0.0 && longest > 0.0 { ((figure / longest * f64::from(LONGEST)) as i32).clamp(1, LONGEST) } else { 0 }
}

fn draw_group(path: &Path, title: &str, heads: [&str; 3], rows: &[&Row]) -> Result<(), Box<dyn std::error::Error>> {
    let longest = longest(rows);
    let height = HEAD + rows.iter().map(|row| bars(row).count() as i32 * BAR + GAP).sum::<i32>();
    let size = ((NAMES + LONGEST + FIGURE) as u32, height as u32);
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    let text = |words: &str, size: i32, place: (i32, i32)| {
        area.draw(&Text::new(words.to_owned(), place, ("sans-serif", size).into_font().color(&BLACK)))
    };
    let bar = |place: usize, left: i32, top: i32, width: i32| {
        let colour = COLOURS.get(place).copied().unwrap_or(BLACK);
        area.draw(&Rectangle::new([(left, top), (left + width, top + BAR - 2)], colour.filled()))
    };
    text(title, 18, (12, 10))?;
    let used = |place: usize| rows.iter().any(|row| bars(row).any(|(other, _)| other == place));
    for (index, (place, head)) in heads.iter().enumerate().filter(|(place, _)| used(*place)).enumerate() {
        let left = 12 + index as i32 * 190;
        bar(place, left, 38, BAR)?;
        text(head, 13, (left + BAR + 6, 38))?;
    }
    let mut top = HEAD;
    for row in rows {
        text(&row.name, 13, (12, top))?;
        for (place, figure) in bars(row) {
            let width = pixels(figure, longest.get(&scale(row)).copied().unwrap_or_default());
            bar(place, NAMES, top, width)?;
            text(&format!("{} {}", number(figure), row.unit), 12, (NAMES + width + 6, top))?;
            top += BAR;
        }
        top += GAP;
    }
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use e2e::bench::Better;

    fn alone(name: &str, unit: &str, ours: f64) -> Row {
        Row::alone(name, unit, &[ours]).expect("a run")
    }

    #[test]
    fn bars_of_one_thing_have_one_scale() {
        let rows = [
            Row::new("TCP: CPU", "ms/MB", Better::Less, &[5.0], &[20.0], &[]).expect("both sides"),
            alone("TCP: CPU without register accesses", "ms/MB", 1.0),
            alone("UDP: CPU", "us/packet", 10.0),
            alone("TCP: hypercalls", "1/MB", 6.0),
            alone("TCP: wake-ups", "1/MB", 3.0),
            alone("other TCP: hypercalls", "1/MB", 12.0),
            alone("other TCP: wake-ups", "1/MB", 4.0),
        ];
        let mut rows: Vec<&Row> = rows.iter().collect();
        gather(&mut rows);
        let names: Vec<&str> = rows.iter().skip(3).map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["TCP: hypercalls", "other TCP: hypercalls", "TCP: wake-ups", "other TCP: wake-ups"]);
        let longest = longest(&rows);
        let widths: Vec<i32> =
            rows.iter().flat_map(|row| bars(row).map(|(_, figure)| pixels(figure, longest[&scale(row)]))).collect();
        assert_eq!(widths, [75, 300, 15, 300, 150, 300, 225, 300]);
        assert_eq!((pixels(0.0, 0.0), pixels(0.001, 5.0), pixels(f64::NAN, 5.0)), (0, 1, 0));
    }

    #[test]
    fn a_picture_has_the_names_and_figures_of_its_rows() {
        let row = Row::new("TCP to the wire", "Mbit/s", Better::More, &[412.4], &[180.0], &[800.0]);
        let path = std::env::temp_dir().join(format!("oxidom-bars-{}.svg", std::process::id()));
        let drawn = draw_group(
            &path,
            "Throughput",
            ["netdom", "Linux driver domain", "passed through"],
            &[&row.expect("both sides")],
        );
        let text = std::fs::read_to_string(&path);
        let _ = std::fs::remove_file(&path);
        drawn.expect("a picture");
        let text = text.expect("a file");
        for word in ["TCP to the wire", "412 Mbit/s", "180 Mbit/s", "800 Mbit/s", "netdom", "passed through"] {
            assert!(text.contains(word), "{word} is not in {text}");
        }
    }
}
