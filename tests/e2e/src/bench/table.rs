//! Rows of a benchmark: medians of runs that alternated, and their ratio. Pure.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::lives::Drawn;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Rates.
    More,
    /// Times, memory, sizes.
    Less,
}

impl Better {
    /// Above 1 where ours is better.
    fn ratio(self, ours: f64, peer: f64) -> f64 {
        match self {
            Self::More => ours / peer,
            Self::Less => peer / ours,
        }
    }
}

/// One measured thing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What.
    pub name: String,
    /// Of the three values.
    pub unit: String,
    /// Median of our runs.
    pub ours: f64,
    /// Median of the Linux driver domain's runs, where that can be measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<f64>,
    /// Above 1 where ours is better: `ours / linux` for rates, `linux / ours` for times, memory and sizes; none where it is no number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// The same measured in a Linux guest that owns such a device itself, where that can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// The same of one more that ours is set against, with its own ratio.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub second: Option<Second>,
}

/// A second peer's side of a row.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Second {
    /// Median of its runs.
    pub oxenstored: f64,
    /// As [`Row::ratio`].
    pub oxenstored_ratio: f64,
}

impl Row {
    /// A row of the medians of runs; nothing where a side has none.
    pub fn new(name: &str, unit: &str, better: Better, ours: &[f64], linux: &[f64], limit: &[f64]) -> Option<Self> {
        let (ours, linux) = (median(ours)?, median(linux)?);
        let ratio = Some(better.ratio(ours, linux)).filter(|ratio| ratio.is_finite());
        Some(Self { linux: Some(linux), ratio, limit: median(limit), ..Self::of(name, unit, ours) })
    }

    /// A row of our runs alone, for what the peer cannot tell; nothing where there are none.
    pub fn alone(name: &str, unit: &str, ours: &[f64]) -> Option<Self> {
        median(ours).map(|ours| Self::of(name, unit, ours))
    }

    fn of(name: &str, unit: &str, ours: f64) -> Self {
        let (name, unit) = (name.to_owned(), unit.to_owned());
        Self { name, unit, ours, linux: None, ratio: None, limit: None, second: None }
    }

    /// The same with the runs of a second peer.
    #[must_use]
    pub fn against(self, better: Better, runs: &[f64]) -> Self {
        let second =
            median(runs).map(|second| Second { oxenstored: second, oxenstored_ratio: better.ratio(self.ours, second) });
        Self { second, ..self }
    }
}

/// The middle value; the mean of the middle two.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    let lower = if sorted.len().is_multiple_of(2) { *sorted.get(middle - 1)? } else { upper };
    Some(f64::midpoint(lower, upper))
}

/// What a benchmark found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The heads of the columns of figures, the ratio's left out: ours, the peer's, and what follows the ratio; where that is empty, nothing does.
    #[serde(skip)]
    pub heads: [&'static str; 3],
    /// In the order of the table.
    pub rows: Vec<Row>,
    /// Transfers to be drawn, each side's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub courses: Vec<Drawn>,
}

impl Report {
    /// A report without rows.
    pub fn new(ours: &'static str) -> Self {
        Self::with_heads([ours, "Linux driver domain", "device passed through"])
    }

    /// A report without rows whose peers are others.
    pub fn with_heads(heads: [&'static str; 3]) -> Self {
        Self { heads, rows: Vec::new(), courses: Vec::new() }
    }

    /// Adds a row where there is one.
    pub fn push(&mut self, row: Option<Row>) {
        self.rows.extend(row);
    }

    /// The table in Markdown, which is also fit to be read as it is.
    pub fn markdown(&self) -> String {
        let [ours, peer, third] = self.heads;
        let has_second = self.rows.iter().any(|row| row.second.is_some());
        let has_third = !third.is_empty();
        let mut header = vec!["what", "unit", ours, peer, "ratio"];
        header.extend(has_third.then_some(third));
        header.extend(has_second.then_some("ratio"));
        let rows = self.rows.iter().map(|row| {
            let ratio = |ratio: f64| format!("{ratio:.2}");
            let some = |figure: Option<f64>, text: fn(f64) -> String| figure.map_or_else(String::new, text);
            let mut cells = vec![row.name.clone(), row.unit.clone(), number(row.ours)];
            cells.extend([some(row.linux, number), some(row.ratio, ratio)]);
            let second = row.second.map(|second| (second.oxenstored, ratio(second.oxenstored_ratio)));
            let (figure, second_ratio) =
                second.map_or((row.limit, String::new()), |(value, ratio)| (Some(value), ratio));
            cells.extend(has_third.then(|| some(figure, number)));
            cells.extend(has_second.then_some(second_ratio));
            cells
        });
        let header: Vec<String> = header.into_iter().map(str::to_owned).collect();
        let columns = header.len();
        let lines: Vec<Vec<String>> = std::iter::once(header).chain(rows).collect();
        let width = |column: usize| {
            lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let mut text = String::new();
        for (index, line) in lines.iter().enumerate() {
            for (column, cell) in line.iter().enumerate() {
                let width = width(column);
                // Words to the left, numbers to the right.
                let _ = if column < 2 { write!(text, "| {cell:<width$} ") } else { write!(text, "| {cell:>width$} ") };
            }
            text.push_str("|\n");
            if index == 0 {
                (0..columns).for_each(|column| {
                    let dashes = "-".repeat(width(column) + 1);
                    let _ = write!(text, "|{dashes}{}", if column < 2 { "-" } else { ":" });
                });
                text.push_str("|\n");
            }
        }
        text
    }
}

/// Three digits that count, but for the smallest.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        0.0 | 100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        0.1.. => 3,
        0.01.. => 4,
        _ => 5,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_means_that_ours_is_better() {
        let rate = Row::new("a rate", "1/s", Better::More, &[30.0, 20.0, 10.0], &[10.0], &[]).expect("both sides");
        assert_eq!((rate.ours, rate.ratio), (20.0, Some(2.0)));
        let time = Row::new("a time", "s", Better::Less, &[1.0, 3.0], &[8.0], &[1.0]).expect("both sides");
        assert_eq!((time.ours, time.ratio, time.limit), (2.0, Some(4.0), Some(1.0)));
        assert_eq!(Row::new("nothing", "s", Better::Less, &[], &[8.0], &[]), None);
    }

    #[test]
    fn the_json_has_the_agreed_form() {
        let mut report = Report::new("netdom");
        report.push(Row::new("a", "s", Better::Less, &[1.0], &[2.0], &[]));
        let json = serde_json::to_string(&report).expect("plain data");
        assert_eq!(json, r#"{"rows":[{"name":"a","unit":"s","ours":1.0,"linux":2.0,"ratio":2.0}]}"#);
    }

    #[test]
    fn what_cannot_be_divided_has_no_ratio() {
        let mut report = Report::with_heads(["netdom", "Linux", ""]);
        for linux in [8.0, 0.0] {
            report.push(Row::new("lost", "", Better::Less, &[0.0], &[linux], &[]));
        }
        assert!(report.rows.len() == 2 && report.rows.iter().all(|row| row.ratio.is_none()), "{report:?}");
        let lines: Vec<String> = report.markdown().lines().map(|line| line.replace(' ', "")).collect();
        assert_eq!(lines.first().map(String::as_str), Some("|what|unit|netdom|Linux|ratio|"));
        assert_eq!(lines.last().map(String::as_str), Some("|lost||0|0||"));
    }

    #[test]
    fn a_row_of_ours_alone_has_empty_cells_and_no_keys_for_the_peer() {
        let mut report = Report::new("netdom");
        report.push(Row::alone("hypercalls", "1/packet", &[0.25, 0.5, 0.0123]));
        report.push(Row::alone("nothing", "1/packet", &[]));
        let json = serde_json::to_string(&report).expect("plain data");
        assert_eq!(json, r#"{"rows":[{"name":"hypercalls","unit":"1/packet","ours":0.25}]}"#);
        let read: Report = serde_json::from_str(&json).expect("what was written");
        assert_eq!(read.rows, report.rows);
        let markdown = report.markdown();
        let cells: Vec<&str> = markdown.lines().last().unwrap_or_default().split('|').map(str::trim).collect();
        assert_eq!(cells, ["", "hypercalls", "1/packet", "0.250", "", "", "", ""]);
    }

    #[test]
    fn a_second_peer_has_columns_and_keys_of_its_own() {
        let mut report = Report::with_heads(["ours", "C", "OCaml"]);
        let row = Row::new("a", "s", Better::Less, &[1.0], &[2.0], &[]);
        report.push(row.map(|row| row.against(Better::Less, &[4.0])));
        let json = serde_json::to_string(&report).expect("plain data");
        let second = r#""ratio":2.0,"oxenstored":4.0,"oxenstored_ratio":4.0}]}"#;
        assert!(json.ends_with(second), "{json}");
        assert!(
            report.markdown().starts_with("| what | unit | ours |    C | ratio | OCaml | ratio |"),
            "{}",
            report.markdown()
        );
    }

    #[test]
    fn the_table_is_even() {
        let mut report = Report::new("netdom");
        report.push(Row::new("throughput", "Mbit/s", Better::More, &[412.3], &[180.0], &[800.0]));
        let lengths: Vec<usize> = report.markdown().lines().map(str::len).collect();
        assert!(lengths.iter().all(|length| Some(length) == lengths.first()), "{}", report.markdown());
    }
}
