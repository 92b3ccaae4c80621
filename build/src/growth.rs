//! `cargo xtask bench store --library`: how the library's requests grow, measured by criterion, drawn into `docs/`. Host.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, anyhow, ensure};
use lab::cache;
use plotters::prelude::*;

/// A group of criterion's: its name there, the file, the title, and what it grows by.
const PLOTS: [(&str, &str, &str, &str); 2] = [
    ("nodes", "xenstore-nodes.svg", "A request to xenstore-lite, by the nodes in the store", "nodes"),
    ("watches", "xenstore-watches.svg", "A write that one watch hears, by the watches set elsewhere", "watches"),
];

const SIZE: (u32, u32) = (760, 420);
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    BLACK,
];

/// Each thing's times in nanoseconds, by the number that it grows by.
type Lines = BTreeMap<String, BTreeMap<u32, f64>>;

pub(crate) fn run() -> Result<ExitCode> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(cache::workspace())
        .args(["bench", "--package", "xenstore-lite", "--bench", "requests"])
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "the benchmarks of xenstore-lite failed: {status}");
    for (group, file, title, axis) in PLOTS {
        let lines = read(&cache::target_directory().join("criterion").join(group))?;
        let path = cache::workspace().join("docs").join(file);
        draw(&path, title, axis, &lines).map_err(|error| anyhow!("drawing {}: {error}", path.display()))?;
        println!("{}", path.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// The medians that criterion left of a group: `GROUP/THING/NUMBER/new/estimates.json`.
fn read(group: &Path) -> Result<Lines> {
    let mut lines = Lines::new();
    for thing in directories(group)? {
        for number in directories(&thing)? {
            let Some(by) = name(&number).parse().ok() else {
                continue;
            };
            let file = number.join("new/estimates.json");
            let text = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
            let value: serde_json::Value = serde_json::from_slice(&text)?;
            let median = value.pointer("/median/point_estimate").and_then(serde_json::Value::as_f64);
            let median = median.with_context(|| format!("{} has no median", file.display()))?;
            lines.entry(name(&thing)).or_default().insert(by, median);
        }
    }
    ensure!(!lines.is_empty(), "criterion left nothing in {}", group.display());
    Ok(lines)
}

fn directories(path: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.retain(|path| path.is_dir());
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Time upwards from 0, the number to the right by powers of ten: what grows by the logarithm is a straight line.
fn draw(path: &Path, title: &str, axis: &str, lines: &Lines) -> Result<(), Box<dyn std::error::Error>> {
    let numbers = || lines.values().flat_map(|line| line.keys().copied());
    let (least, most) = (numbers().min().unwrap_or(1).max(1), numbers().max().unwrap_or(10));
    let highest = lines.values().flat_map(|line| line.values()).fold(0.0, |most: f64, time| most.max(time / 1e3));
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d((f64::from(least)..f64::from(most)).log_scale(), 0.0..highest * 1.3)?;
    chart
        .configure_mesh()
        .x_desc(axis)
        .y_desc("microseconds, median")
        .x_label_formatter(&|number| format!("{number:.0}"))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for ((thing, line), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let points = || line.iter().map(|(number, time)| (f64::from(*number), time / 1e3));
        let colour = *colour;
        chart
            .draw_series(LineSeries::new(points(), colour.stroke_width(2)))?
            .label(thing)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(points().map(|point| Circle::new(point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(RGBColor(200, 200, 200))
        .draw()?;
    area.present()?;
    Ok(())
}
