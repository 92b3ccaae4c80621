//! The ends of our driver domains' lives against Linux driver domains that are built anew: a boot for each pair, in turns. Host.
//!
//! Each driver domain has one vCPU that serves, and a device of its own; one guest has a vif, or a disk, on both of a pair. Ours fail, are
//! updated and are restarted. A Linux driver domain has nothing like it: it is destroyed and created, and the guest's device is attached anew,
//! as an administrator would do it, but by a script that takes each step as soon as the one before is done.

mod blk;
mod course;
mod net;

use std::cell::Cell;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use lab::{Lab, Row as Matrix};

use super::common::{LINUX, Samples};
use super::{Better, Report, Row};
use crate::driver_domain::{DriverDomain, DriverDomainConfig};
use crate::rebuilt::rebuild;
use crate::stage::Images;

pub use course::Drawn;

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Runs of each end on each side; the median counts.
    pub runs: u32,
    /// Only ends whose names contain one of these, separated by commas.
    pub only: String,
}

impl Default for Effort {
    fn default() -> Self {
        Self { runs: 3, only: String::new() }
    }
}

impl Effort {
    /// The ends that are asked for of a driver domain of ours.
    fn ends(&self, domain: &str) -> Vec<End> {
        let wanted = |end: &End| self.only.split(',').any(|part| end.of(domain).contains(part));
        End::OURS.into_iter().filter(wanted).collect()
    }
}

/// A report of this benchmark without rows.
pub fn report() -> Report {
    Report::with_heads(["oxidom", "Linux driver domain, created anew", ""])
}

/// Boots, measures, and tells `progress` what it is doing.
///
/// # Errors
/// What did not come up, or did not come back.
pub fn run(row: Matrix, images: &Images, effort: &Effort, progress: &dyn Fn(&str)) -> Result<Report> {
    let (net, blk) = (effort.ends(net::NAME), effort.ends(blk::NAME));
    ensure!(!net.is_empty() || !blk.is_empty(), "no end of a life has '{}' in its name", effort.only);
    let mut report = report();
    if !net.is_empty() {
        net::run(row, images, &net, effort.runs, progress, &mut report)?;
    }
    if !blk.is_empty() {
        blk::run(row, images, &blk, effort.runs, progress, &mut report)?;
    }
    Ok(report)
}

/// How a life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It does not: what the loads alone show.
    Never,
    Failure,
    Update,
    Restart,
    /// A Linux driver domain's: it is created anew.
    Replacement,
}

impl End {
    const OURS: [Self; 4] = [Self::Never, Self::Failure, Self::Update, Self::Restart];

    /// The name of a domain's end.
    fn of(self, domain: &str) -> String {
        let what = match self {
            Self::Never => "runs on",
            Self::Failure => "fails",
            Self::Update => "is updated",
            Self::Restart => "is restarted",
            Self::Replacement => "is created anew",
        };
        format!("{domain} {what}")
    }

    /// What the Linux driver domain does in comparison.
    fn linux(self) -> Self {
        if self == Self::Never { Self::Never } else { Self::Replacement }
    }
}

/// A driver domain of ours whose lives end.
struct Mortal<'s> {
    lab: &'s Lab,
    domain: DriverDomain<'s>,
    /// The image that is installed, and one that does the same and differs in most pages of its text.
    images: [String; 2],
    /// How often it was updated: it has one image after the other.
    updates: Cell<usize>,
}

impl<'s> Mortal<'s> {
    /// Creates it; `image` is the file on the host.
    fn create(lab: &'s Lab, config: &DriverDomainConfig, image: &Path) -> Result<Self> {
        let mut rebuilt = fs::read(image)?;
        rebuild(&mut rebuilt)?;
        let images = [format!("/usr/lib/oxidom/{}", config.image), format!("/tmp/{}-rebuilt", config.image)];
        let [_, place] = &images;
        lab.put(place, 0o644, &rebuilt)?;
        Ok(Self { lab, domain: DriverDomain::create(lab, config)?, images, updates: Cell::default() })
    }

    /// Ends a life.
    fn end(&self, end: End) -> Result<()> {
        let name = &self.domain.name;
        let command = match end {
            End::Never => return Ok(()),
            End::Replacement => bail!("{name} is no Linux driver domain"),
            // The next life has taken over by then: to ask dom0 for it again and again would take the CPU from it.
            End::Failure => format!("xl trigger {name} nmi && usleep 500000"),
            End::Update => {
                let number = self.updates.get() + 1;
                self.updates.set(number);
                format!("oxidom update {name} {}", self.images.get(number % self.images.len()).context("an image")?)
            }
            End::Restart => format!("oxidom restart {name}"),
        };
        self.lab.must(&command).map(drop)
    }

    /// Does what ends so many lives; gives its outcome, and the pauses by the domain's own clock, in milliseconds.
    fn pauses<T>(&self, lives: usize, ends: impl FnOnce() -> Result<T>) -> Result<(T, Vec<f64>)> {
        let first = self.domain.pauses()?.len();
        let outcome = ends().with_context(|| format!("the console:\n{}", self.domain.console().unwrap_or_default()))?;
        self.domain.wait_for_lives(first + lives)?;
        let pauses: Vec<f64> = self.domain.pauses()?.iter().skip(first).map(|pause| pause.whole).collect();
        ensure!(pauses.len() == lives, "{} lives of {} ended in place of {lives}", pauses.len(), self.domain.name);
        Ok((outcome, pauses))
    }
}

/// What was measured of each end, of ours and of the Linux driver domain.
struct Outcomes<T> {
    sides: [Vec<(End, T)>; 2],
    /// Pauses by our domain's own clock, in milliseconds.
    pauses: Vec<(End, f64)>,
}

impl<T> Default for Outcomes<T> {
    fn default() -> Self {
        Self { sides: [Vec::new(), Vec::new()], pauses: Vec::new() }
    }
}

impl<T> Outcomes<T> {
    /// Those of an end of ours, and of what the Linux driver domain does in comparison.
    fn of(&self, end: End) -> [Vec<&T>; 2] {
        let [ours, linux] = &self.sides;
        [outcomes(ours, end), outcomes(linux, end.linux())]
    }

    /// Adds a row of a figure of an end, where both sides have it.
    fn row(
        &self,
        report: &mut Report,
        domain: &str,
        end: End,
        (what, unit): (&str, &str),
        figure: impl Fn(&T) -> Option<f64>,
    ) {
        let sides = self.of(end).map(|side| side.into_iter().filter_map(&figure).collect());
        let samples = Samples { sides, limit: Vec::new() };
        report.push(samples.row(&format!("{}: {what}", end.of(domain)), unit, Better::Less));
    }

    /// Adds the row of the pauses by our domain's own clock, where there are any.
    fn pauses_row(&self, report: &mut Report, domain: &str, end: End) {
        let pauses: Vec<f64> = self.pauses.iter().filter(|(other, _)| *other == end).map(|(_, pause)| *pause).collect();
        report.push(Row::alone(&format!("{}: pause by its own clock", end.of(domain)), "ms", &pauses));
    }
}

fn outcomes<T>(side: &[(End, T)], end: End) -> Vec<&T> {
    side.iter().filter(|(other, _)| *other == end).map(|(_, outcome)| outcome).collect()
}
