//! The throughput of `cargo xtask bench lives` over time, with a failure in the middle: a picture in `docs/`. Host.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use e2e::bench::{Drawn, Report};
use lab::cache;
use plotters::prelude::*;

const SIZE: (u32, u32) = (860, 420);
/// Of ours and of the Linux driver domain, as the bars have them.
const COLOURS: [RGBColor; 2] = [RGBColor(31, 119, 180), RGBColor(214, 39, 40)];

/// Draws `docs/lives-ROW.svg` where the report has transfers; gives the file.
pub(crate) fn draw(report: &Report, row: &str) -> Result<Vec<PathBuf>> {
    if report.courses.is_empty() {
        return Ok(Vec::new());
    }
    let path = cache::workspace().join("docs").join(format!("lives-{row}.svg"));
    let title = format!("TCP to the wire, as netdom fails and as a Linux driver domain is created anew ({row})");
    draw_courses(&path, &title, report).map_err(|error| anyhow!("drawing {}: {error}", path.display()))?;
    Ok(vec![path])
}

/// Seconds upwards from the left, with 0 where the pause begins, for as long as each side was watched; rates from 0.
fn draw_courses(path: &Path, title: &str, report: &Report) -> Result<(), Box<dyn std::error::Error>> {
    let (from, to) = shown(&report.courses);
    let rates = report.courses.iter().flat_map(|course| &course.mbit_per_second);
    let highest = rates.fold(0.0, |most: f64, rate| most.max(*rate));
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(from..to, 0.0..(highest * 1.25).max(1.0))?;
    chart
        .configure_mesh()
        .x_desc("seconds from the end of the life")
        .y_desc("Mbit/s")
        .x_label_formatter(&|seconds| format!("{seconds:.0}"))
        .y_label_formatter(&|rate| format!("{rate:.0}"))
        .light_line_style(TRANSPARENT)
        .draw()?;
    for (course, colour) in report.courses.iter().zip(COLOURS) {
        let points = course.points().filter(|(seconds, _)| (from..=to).contains(seconds));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(course.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(RGBColor(200, 200, 200))
        .draw()?;
    area.present()?;
    Ok(())
}

/// The seconds that are shown: from where all have begun until the last one ends.
fn shown(courses: &[Drawn]) -> (f64, f64) {
    let starts = courses.iter().filter_map(|course| Some(course.points().next()?.0));
    let ends = courses.iter().filter_map(|course| Some(course.points().last()?.0));
    let (from, to) = (starts.fold(f64::NEG_INFINITY, f64::max), ends.fold(0.0, f64::max));
    (if from.is_finite() { from.min(0.0) } else { -1.0 }, to.max(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_a_line_for_each_side() {
        let course = |name: &str, before, rates: &[f64]| Drawn {
            name: name.to_owned(),
            interval_ms: 1000.0,
            before,
            mbit_per_second: rates.to_vec(),
        };
        let mut report = Report::with_heads(["", "", ""]);
        assert_eq!(shown(&report.courses), (-1.0, 1.0));
        report.courses = vec![
            course("netdom", 2, &[90.0; 6]),
            course("Linux driver domain", 3, &[80.0, 80.0, 80.0, 0.0, 0.0, 0.0, 0.0, 80.0]),
        ];
        assert_eq!(shown(&report.courses), (-1.5, 4.5));
        let path = std::env::temp_dir().join(format!("oxidom-courses-{}.svg", std::process::id()));
        let drawn = draw_courses(&path, "TCP", &report);
        let text = std::fs::read_to_string(&path);
        let _ = std::fs::remove_file(&path);
        drawn.expect("a picture");
        let text = text.expect("a file");
        for word in ["netdom", "Linux driver domain", "seconds from the end of the life", "#1F77B4", "#D62728"] {
            assert!(text.contains(word), "{word} is not in {text}");
        }
    }
}
