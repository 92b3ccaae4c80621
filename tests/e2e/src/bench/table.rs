//! Rows of a benchmark: medians of runs that alternated, and their ratio. Pure.

use std::fmt::Write as _;

use serde::Serialize;

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Rates.
    More,
    /// Times, memory, sizes.
    Less,
}

/// One measured thing.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What.
    pub name: String,
    /// Of the three values.
    pub unit: String,
    /// Median of our runs.
    pub ours: f64,
    /// Median of the Linux driver domain's runs.
    pub linux: f64,
    /// Above 1 where ours is better: `ours / linux` for rates, `linux / ours` for times, memory and sizes.
    pub ratio: f64,
    /// The same measured in a Linux guest that owns such a device itself, where that can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
}

impl Row {
    /// A row of the medians of runs; nothing where a side has none.
    pub fn new(name: &str, unit: &str, better: Better, ours: &[f64], linux: &[f64], limit: &[f64]) -> Option<Self> {
        let (ours, linux) = (median(ours)?, median(linux)?);
        let ratio = match better {
            Better::More => ours / linux,
            Better::Less => linux / ours,
        };
        Some(Self { name: name.to_owned(), unit: unit.to_owned(), ours, linux, ratio, limit: median(limit) })
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
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What of ours was measured: the head of its column.
    #[serde(skip)]
    pub ours: &'static str,
    /// In the order of the table.
    pub rows: Vec<Row>,
}

impl Report {
    /// A report without rows.
    pub fn new(ours: &'static str) -> Self {
        Self { ours, rows: Vec::new() }
    }

    /// Adds a row where both sides were measured.
    pub fn push(&mut self, row: Option<Row>) {
        self.rows.extend(row);
    }

    /// The table in Markdown, which is also fit to be read as it is.
    pub fn markdown(&self) -> String {
        let header =
            ["what", "unit", self.ours, "Linux driver domain", "ratio", "device passed through"].map(str::to_owned);
        let rows = self.rows.iter().map(|row| {
            let limit = row.limit.map_or_else(String::new, number);
            [
                row.name.clone(),
                row.unit.clone(),
                number(row.ours),
                number(row.linux),
                format!("{:.2}", row.ratio),
                limit,
            ]
        });
        let lines: Vec<[String; 6]> = std::iter::once(header).chain(rows).collect();
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
                (0..6).for_each(|column| {
                    let dashes = "-".repeat(width(column) + 1);
                    let _ = write!(text, "|{dashes}{}", if column < 2 { "-" } else { ":" });
                });
                text.push_str("|\n");
            }
        }
        text
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_above_one_means_that_ours_is_better() {
        let rate = Row::new("a rate", "1/s", Better::More, &[30.0, 20.0, 10.0], &[10.0], &[]).expect("both sides");
        assert_eq!((rate.ours, rate.ratio), (20.0, 2.0));
        let time = Row::new("a time", "s", Better::Less, &[1.0, 3.0], &[8.0], &[1.0]).expect("both sides");
        assert_eq!((time.ours, time.ratio, time.limit), (2.0, 4.0, Some(1.0)));
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
    fn the_table_is_even() {
        let mut report = Report::new("netdom");
        report.push(Row::new("throughput", "Mbit/s", Better::More, &[412.3], &[180.0], &[800.0]));
        let lengths: Vec<usize> = report.markdown().lines().map(str::len).collect();
        assert!(lengths.iter().all(|length| Some(length) == lengths.first()), "{}", report.markdown());
    }
}
