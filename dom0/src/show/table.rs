//! Aligned columns. Pure. Host.

use std::io::Write;

use anstyle::{AnsiColor, Style};
use tabwriter::TabWriter;

/// Blanks between two columns.
const BETWEEN: usize = 2;

/// What stands in a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

impl Cell {
    fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style }
    }

    /// As it should be.
    pub(crate) fn good(text: impl Into<String>) -> Self {
        Self::styled(text, AnsiColor::Green.on_default())
    }

    /// As it should not be.
    pub(crate) fn bad(text: impl Into<String>) -> Self {
        Self::styled(text, AnsiColor::Red.on_default())
    }

    /// Of less weight.
    pub(crate) fn faint(text: impl Into<String>) -> Self {
        Self::styled(text, Style::new().dimmed())
    }

    /// A heading.
    fn heading(text: &str) -> Self {
        Self::styled(text, Style::new().bold())
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, Style::new())
    }
}

impl std::fmt::Display for Cell {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.text.as_str() {
            "" => Ok(()),
            text => write!(formatter, "{}{text}{:#}", self.style, self.style),
        }
    }
}

/// A table with its heading; nothing where it has no row.
pub(crate) fn table<const COLUMNS: usize>(heading: [&str; COLUMNS], rows: &[[Cell; COLUMNS]]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let line = |cells: &[Cell; COLUMNS]| cells.iter().map(ToString::to_string).collect::<Vec<_>>().join("\t");
    let lines: Vec<String> = std::iter::once(&heading.map(Cell::heading)).chain(rows).map(line).collect();
    let mut writer = TabWriter::new(Vec::new()).padding(BETWEEN).minwidth(0).ansi(true);
    // Writing to a vector does not fail.
    let _ = writer.write_all(lines.join("\n").as_bytes());
    let bytes = writer.into_inner().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    text.lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
}
