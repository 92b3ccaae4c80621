//! What the benchmarks do alike: the Linux driver domain, runs that alternate, create-to-ready, memory and images. Host.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use lab::{Guest, GuestConfig, Lab};

use super::{Better, Report, Row};
use crate::driver_domain::{Counts, DriverDomain, DriverDomainConfig, cpu_seconds};
use crate::traffic::Shell;

/// The name of the Linux driver domain.
pub(crate) const LINUX: &str = "linuxdd";
/// Memory of the Linux driver domain, in MiB: what it takes to start with all it needs.
const LINUX_MEMORY: u32 = 208;

/// A Linux driver domain.
pub(crate) struct LinuxDriverDomain {
    /// Its devices, in `xl`'s words.
    pub(crate) pci: Vec<String>,
    /// What an administrator's init does in it, `xl devd` for hotplug at the end.
    pub(crate) setup: &'static str,
}

impl LinuxDriverDomain {
    /// Starts it; gives it and the time from `xl create` to `xl devd`.
    pub(crate) fn start<'lab>(&self, lab: &'lab Lab) -> Result<(Guest<'lab>, Duration)> {
        let mut config = GuestConfig::new(LINUX);
        config.memory = LINUX_MEMORY;
        config.pci = self.pci.clone();
        config.root = "/boot/driver.img".to_owned();
        config.role = "driver".to_owned();
        config.more = "driver_domain = 1".to_owned();
        let started = Instant::now();
        let guest = lab.create(&config)?;
        guest.sh(self.setup)?;
        Ok((guest, started.elapsed()))
    }
}

/// Samples of one thing on both sides and at the limit.
#[derive(Default)]
pub(super) struct Samples {
    pub(super) sides: [Vec<f64>; 2],
    pub(super) limit: Vec<f64>,
}

impl Samples {
    /// Their row; none where a side has no sample.
    pub(super) fn row(&self, name: &str, unit: &str, better: Better) -> Option<Row> {
        let [ours, linux] = &self.sides;
        Row::new(name, unit, better, ours, linux, &self.limit)
    }
}

/// A run on one side.
struct Run<T> {
    outcome: T,
    /// Of the driver domain.
    cpu_seconds: f64,
    /// What it counted meanwhile, where it does.
    counts: Option<Counts>,
}

/// What runs of one thing came to, on both sides and at the limit.
pub(super) struct Runs<T> {
    sides: [Vec<Run<T>>; 2],
    limit: Vec<T>,
}

impl<T> Runs<T> {
    /// A figure of each run.
    pub(super) fn samples(&self, figure: impl Fn(&T) -> f64) -> Samples {
        let sides = self.sides.each_ref().map(|side| side.iter().map(|run| figure(&run.outcome)).collect());
        Samples { sides, limit: self.limit.iter().map(figure).collect() }
    }

    /// CPU time of the driver domain by what passed through it: seconds times `scale` for each of `amount`.
    pub(super) fn cpu(&self, scale: f64, amount: impl Fn(&T) -> f64) -> Samples {
        let each = |run: &Run<T>| run.cpu_seconds * scale / amount(&run.outcome).max(1e-9);
        Samples { sides: self.sides.each_ref().map(|side| side.iter().map(each).collect()), limit: Vec::new() }
    }

    /// A figure of what our side counted in each run, where it counts, and of its CPU seconds, by what passed through it.
    pub(super) fn counted(&self, figure: impl Fn(&Counts, f64) -> f64, amount: impl Fn(&T) -> f64) -> Vec<f64> {
        let [ours, _] = &self.sides;
        let each = |run: &Run<T>| Some(figure(run.counts.as_ref()?, run.cpu_seconds) / amount(&run.outcome).max(1e-9));
        ours.iter().filter_map(each).collect()
    }
}

/// Two driver domains that take turns.
pub(super) struct Alternation<'a, S> {
    pub(super) lab: &'a Lab,
    /// Each by the name of its domain, with what a measurement must know of it.
    pub(super) sides: [(&'static str, S); 2],
    /// The first side's domain, where it has the word `profile=on`.
    pub(super) counting: Option<&'a DriverDomain<'a>>,
    pub(super) runs: u32,
    pub(super) progress: &'a dyn Fn(&str),
}

impl<S> Alternation<'_, S> {
    /// Measures on the two sides in turn and, where given, at the limit.
    pub(super) fn run<T>(
        &self,
        what: &str,
        measure: impl Fn(&S) -> Result<T>,
        limit: Option<&dyn Fn() -> Result<T>>,
    ) -> Result<Runs<T>> {
        let mut runs = Runs { sides: [Vec::new(), Vec::new()], limit: Vec::new() };
        for run in 0..self.runs {
            let counting = [self.counting, None];
            for (((name, side), outcomes), counting) in self.sides.iter().zip(&mut runs.sides).zip(counting) {
                (self.progress)(&format!("{what}: {name} ({} of {})", run + 1, self.runs));
                let counts_before = counting.map(DriverDomain::counts).transpose()?;
                let before = cpu_seconds(self.lab, name)?;
                let outcome = measure(side).with_context(|| format!("{what}, {name}"))?;
                let cpu_seconds = cpu_seconds(self.lab, name)? - before;
                let counts = match (counting, counts_before) {
                    (Some(domain), Some(before)) => Some(domain.counts()?.since(&before)?),
                    _ => None,
                };
                outcomes.push(Run { outcome, cpu_seconds, counts });
            }
            if let Some(limit) = limit {
                runs.limit.push(limit().with_context(|| format!("{what}, the limit"))?);
            }
        }
        Ok(runs)
    }
}

/// Creates and destroys the two in turn; for both, ready is when a frontend would be served.
pub(super) fn create_to_ready(
    lab: &Lab,
    ours: &DriverDomainConfig,
    linux: &LinuxDriverDomain,
    runs: u32,
    progress: &dyn Fn(&str),
) -> Result<Samples> {
    let mut ready = Samples::default();
    let [our_times, linux_times] = &mut ready.sides;
    for run in 0..runs {
        progress(&format!("create to ready ({} of {runs})", run + 1));
        let domain = DriverDomain::create(lab, ours)?;
        our_times.push(domain.created.as_secs_f64() * 1e3);
        domain.destroy()?;
        let (guest, took) = linux.start(lab)?;
        linux_times.push(took.as_secs_f64() * 1e3);
        lab.must(&format!("xl destroy {}", guest.name()))?;
    }
    Ok(ready)
}

/// Memory and image of our domain `name` and of the Linux driver domain, both running.
pub(super) fn footprint(lab: &Lab, name: &str, image: &Path, report: &mut Report) -> Result<()> {
    let memory = |domain: &str| -> Result<f64> {
        let line = lab.must(&format!("xl list {domain} | tail -n 1"))?;
        let word = line.split_whitespace().nth(2).and_then(|word| word.parse().ok());
        word.with_context(|| format!("xl list says '{line}'"))
    };
    report.push(Row::new("memory", "MiB", Better::Less, &[memory(name)?], &[memory(LINUX)?], &[]));
    let size = |read: &str| -> Result<f64> {
        let text = lab.must(&format!("{read} | wc -c"))?;
        Ok(text.trim().parse::<f64>()? / 1024.0)
    };
    let ours = std::fs::metadata(image)?.len() as f64 / 1024.0;
    // Both as an administrator would store them: Debian's kernel is compressed, its initramfs would be.
    let linux = size("cat /boot/vmlinuz")? + size("gzip -c /boot/driver.img")?;
    report.push(Row::new("image (kernel and initramfs)", "KiB", Better::Less, &[ours], &[linux], &[]));
    Ok(())
}
