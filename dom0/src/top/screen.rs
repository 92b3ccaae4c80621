//! What `oxidom top` shows: three tables, as many of their rows as the terminal has lines. Pure. Host.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Row, Table};

use super::rates::{DiskRate, DomainRate, Operations, PortRate, Rates, Traffics};

/// What is seen of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct View {
    /// Rows that are scrolled over in the tables of ports and disks.
    pub(super) scrolled: usize,
    /// The busiest first, not in the store's order.
    pub(super) busiest: bool,
}

/// Draws it; `note` is what went wrong last, if anything.
pub(super) fn draw(frame: &mut Frame<'_>, rates: &Rates, view: View, note: Option<&str>) {
    let head = |rows: usize| u16::try_from(rows + 2).unwrap_or(u16::MAX);
    let has_disks = !rates.disks.is_empty();
    let domains = Constraint::Length(head(rates.domains.len()).min(frame.area().height / 3));
    let disks = if has_disks {
        Constraint::Length(head(rates.disks.len()).min(frame.area().height / 3))
    } else {
        Constraint::Length(0)
    };
    let parts = Layout::vertical([Constraint::Length(1), domains, Constraint::Min(2), disks]).split(frame.area());
    let part = |place: usize| parts.get(place).copied().unwrap_or_default();
    let title = match note {
        Some(note) => Line::styled(format!("oxidom top   {note}"), Style::new().fg(Color::Red)),
        None => {
            Line::raw(format!("oxidom top   of the last {:.1} s   q ends, s sorts, up and down scroll", rates.seconds))
        }
    };
    frame.render_widget(title, part(0));
    frame.render_widget(domain_table(&rates.domains), part(1));
    let mut ports: Vec<&PortRate> = rates.ports.iter().collect();
    let mut disks: Vec<&DiskRate> = rates.disks.iter().collect();
    if view.busiest {
        let port = |rate: &Option<Traffics>| rate.as_ref().map_or(-1.0, |rate| rate.from_packets + rate.to_packets);
        ports.sort_by(|one, other| port(&other.rate).total_cmp(&port(&one.rate)));
        let disk = |rate: &Option<Operations>| rate.as_ref().map_or(-1.0, |rate| rate.reads + rate.writes);
        disks.sort_by(|one, other| disk(&other.rate).total_cmp(&disk(&one.rate)));
    }
    // The last row stays in sight.
    let from = |length: usize| view.scrolled.min(length.saturating_sub(1));
    frame.render_widget(port_table(ports.get(from(ports.len())..).unwrap_or_default()), part(2));
    if has_disks {
        frame.render_widget(disk_table(disks.get(from(disks.len())..).unwrap_or_default()), part(3));
    }
}

fn heading<const COLUMNS: usize>(names: [&'static str; COLUMNS]) -> Row<'static> {
    Row::new(names).style(Style::new().add_modifier(Modifier::BOLD))
}

fn domain_table(domains: &[DomainRate]) -> Table<'_> {
    let rows = domains.iter().map(|domain| {
        let well = match domain.is_well {
            true => Cell::from("well").style(Style::new().fg(Color::Green)),
            false => Cell::from("error").style(Style::new().fg(Color::Red)),
        };
        let cpu = domain.cpu_percent.map(|percent| format!("{percent:.1}")).unwrap_or_default();
        let lives = domain.lives.map(|lives| lives.to_string()).unwrap_or_default();
        let (name, image) = (Cell::from(domain.name.as_str()), Cell::from(domain.image.as_str()));
        Row::new([name, domain.id.to_string().into(), image, well, lives.into(), cpu.into()])
    });
    let widths = [16, 6, 16, 8, 8, 8].map(Constraint::Length);
    Table::new(rows, widths).header(heading(["DOMAIN", "ID", "IMAGE", "STATE", "LIVES", "CPU %"])).block(Block::new())
}

/// What was lost most, and how much of all.
fn lost(drops: &[(String, f64)]) -> String {
    let all: f64 = drops.iter().map(|(_, rate)| rate).sum();
    match drops.iter().max_by(|(_, one), (_, other)| one.total_cmp(other)) {
        Some((cause, _)) => format!("{} {cause}", rate(all)),
        None => String::new(),
    }
}

fn port_table<'a>(ports: &[&'a PortRate]) -> Table<'a> {
    let rows = ports.iter().map(|port| {
        let first = [
            Cell::from(port.domain.as_str()),
            port.name.as_str().into(),
            port.guest.as_deref().unwrap_or_default().into(),
            port.bridge.as_str().into(),
        ];
        let rest: [Cell<'_>; 5] = match &port.rate {
            None => ["-", "", "", "", ""].map(Cell::from),
            Some(found) => [
                rate(found.from_packets).into(),
                bytes(found.from_bytes).into(),
                rate(found.to_packets).into(),
                bytes(found.to_bytes).into(),
                Cell::from(lost(&found.drops)).style(Style::new().fg(Color::Red)),
            ],
        };
        Row::new(first.into_iter().chain(rest))
    });
    let widths = [14, 10, 14, 12, 9, 11, 9, 11].map(Constraint::Length).into_iter().chain([Constraint::Min(10)]);
    let names = ["DOMAIN", "PORT", "GUEST", "BRIDGE", "FROM/s", "FROM B/s", "TO/s", "TO B/s", "LOST/s"];
    Table::new(rows, widths).header(heading(names))
}

fn disk_table<'a>(disks: &[&'a DiskRate]) -> Table<'a> {
    let rows = disks.iter().map(|disk| {
        let first = [
            Cell::from(disk.domain.as_str()),
            disk.name.as_str().into(),
            disk.guest.as_str().into(),
            disk.target.as_str().into(),
        ];
        let rest: [Cell<'_>; 5] = match &disk.rate {
            None => ["-", "", "", "", ""].map(Cell::from),
            Some(found) => [
                rate(found.reads).into(),
                bytes(found.read_bytes).into(),
                rate(found.writes).into(),
                bytes(found.written_bytes).into(),
                Cell::from(lost(&found.failures)).style(Style::new().fg(Color::Red)),
            ],
        };
        Row::new(first.into_iter().chain(rest))
    });
    let widths = [14, 10, 14, 12, 9, 11, 9, 11].map(Constraint::Length).into_iter().chain([Constraint::Min(10)]);
    let names = ["DOMAIN", "DISK", "GUEST", "TARGET", "READS/s", "READ B/s", "WRITES/s", "WRITTEN B/s", "FAILED/s"];
    Table::new(rows, widths).header(heading(names))
}

/// With three or four digits.
fn scaled(number: f64, units: [&str; 5]) -> String {
    let mut number = number.max(0.0);
    for unit in units {
        if number < 9999.5 || unit == units[4] {
            return if number < 9.95 && number > 0.0 {
                format!("{number:.1}{unit}")
            } else {
                format!("{number:.0}{unit}")
            };
        }
        number /= 1000.0;
    }
    String::new()
}

fn rate(number: f64) -> String {
    scaled(number, ["", "k", "M", "G", "T"])
}

fn bytes(number: f64) -> String {
    scaled(number, [" B", " kB", " MB", " GB", " TB"])
}

#[cfg(test)]
mod tests;
