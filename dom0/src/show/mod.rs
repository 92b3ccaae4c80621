//! A snapshot as plain tables, for people. Colours are escape sequences here, which the one that prints takes out where no terminal is. Pure. Host.

mod bridge;
mod stats;
mod status;
mod table;
mod volumes;

use serde_json::{Value, json};

use crate::model::{DriverDomain, Snapshot, State};

pub(crate) use bridge::bridges;
pub(crate) use stats::{stats, stats_json};
pub(crate) use status::status;
pub(crate) use table::{Cell, table};
pub(crate) use volumes::{volumes, volumes_json};

/// All of a snapshot, for programs.
pub(crate) fn json(snapshot: &Snapshot) -> Value {
    let domain = |domain: &DriverDomain| {
        let mut value = serde_json::to_value(domain).unwrap_or_default();
        if let Value::Object(fields) = &mut value {
            fields.insert("bridges".into(), serde_json::to_value(domain.bridges()).unwrap_or_default());
            fields.insert("well".into(), domain.is_well().into());
        }
        value
    };
    let domains: Vec<Value> = snapshot.domains.iter().map(domain).collect();
    json!({"store": snapshot.store, "domains": domains, "truncated": snapshot.truncated})
}

/// The two states of a device, in words.
fn state(backend: State, frontend: State, error: Option<&String>) -> Cell {
    match (backend, frontend) {
        _ if error.is_some() => Cell::bad("refused"),
        (State::CONNECTED, State::CONNECTED) => Cell::good("connected"),
        (backend, frontend) => Cell::faint(format!("{}, guest {}", backend.name(), frontend.name())),
    }
}

/// A time span with its two largest units.
fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// So many of something.
fn count(number: usize, one: &str) -> String {
    format!("{number} {one}{}", if number == 1 { "" } else { "s" })
}

/// Sectors of 512 bytes, in the largest unit that leaves at least one.
fn size(sectors: u64) -> String {
    let bytes = sectors.saturating_mul(512);
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64 / 1024.0;
    for unit in units {
        if amount < 1024.0 || unit == "TiB" {
            return if amount.fract() == 0.0 { format!("{amount} {unit}") } else { format!("{amount:.1} {unit}") };
        }
        amount /= 1024.0;
    }
    String::new()
}

#[cfg(test)]
mod tests;
