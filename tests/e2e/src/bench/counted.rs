//! Rows of what our driver domain alone can tell: what it asked of Xen and of its device for each thing that passed through it. Host.
//!
//! Counts differ by less than a tenth from run to run, where rates and times differ by a factor of two on a machine that does other work.

use super::common::Runs;
use super::{Better, Report, Row};
use crate::driver_domain::Counts;

/// What a row is by: a megabyte of payload, a packet, or a request and its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Megabyte,
    Packet,
    RoundTrip,
}

/// The rows' names behind that of the load, and the counts' names in `data/counts`.
const ROWS: [(&str, &str); 6] = [
    ("hypercalls", "hypercalls"),
    ("grant copies", "copy-calls"),
    ("grant copy entries", "copy-entries"),
    ("notifications", "notifications"),
    ("wake-ups", "blocks"),
    ("register writes", "register-writes"),
];

/// CPU seconds without those in register accesses: an emulated device does its work within them.
fn without_registers(counts: &Counts, cpu_seconds: f64) -> f64 {
    cpu_seconds - counts.get("register-us") as f64 / 1e6
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Megabyte => "MB",
            Self::Packet => "packet",
            Self::RoundTrip => "round trip",
        }
    }

    /// The unit of CPU time, and how many of it are a second.
    fn time(self) -> (&'static str, f64) {
        match self {
            Self::Megabyte => ("ms/MB", 1e3),
            Self::Packet => ("us/packet", 1e6),
            Self::RoundTrip => ("us/round trip", 1e6),
        }
    }

    /// The unit of instructions, and how many of it are 10^9.
    fn instructions(self) -> (&'static str, f64) {
        match self {
            Self::Megabyte => ("10^6 instructions/MB", 1e3),
            Self::Packet => ("instructions/packet", 1e9),
            Self::RoundTrip => ("instructions/round trip", 1e9),
        }
    }
}

/// Adds the rows of CPU time, or where the clock counts instructions (`instructions`), a nanosecond each, of these; then those of what was
/// counted. `amount` gives megabytes or packets.
pub(super) fn cost<T>(
    report: &mut Report,
    load: &str,
    runs: &Runs<T>,
    by: By,
    instructions: bool,
    amount: impl Fn(&T) -> f64,
) {
    let (what, (unit, scale)) = if instructions { ("instructions", by.instructions()) } else { ("CPU", by.time()) };
    report.push(runs.cpu(scale, &amount).row(&format!("{load}: {what} of the driver domain"), unit, Better::Less));
    let rest = runs.counted(|counts, seconds| without_registers(counts, seconds) * scale, &amount);
    report.push(Row::alone(&format!("{load}: {what} without register accesses"), unit, &rest));
    for (name, count) in ROWS {
        let counted = runs.counted(|counts, _| counts.get(count) as f64, &amount);
        report.push(Row::alone(&format!("{load}: {name}"), &format!("1/{}", by.name()), &counted));
    }
}
